/* SPDX-License-Identifier: Apache-2.0 */
/* Places (TesPath) and their names. */
#include "vfs2.h"

TesPath *v2_path_new(V2 *v, Mount *mnt, Dentry *d) {
  V2Path *p = g_new(V2Path, 1);
  *p = (V2Path){{&v->base, 1, d_inode(d)}, mnt, d, FALSE};
  return &p->base;
}

TesPath *v2_op_path_ref(TesPath *p) {
  g_atomic_int_inc(&p->refs);
  return p;
}

void v2_op_path_unref(TesPath *p) {
  if (!g_atomic_int_dec_and_test(&p->refs))
    return;
  V2Path *vp = v2_path(p);
  if (vp->writes)
    g_atomic_int_add(&vp->mnt->writers, -1);
  v2_dentry_unref(vp->d);
  v2_mount_unref(vp->mnt);
  g_free(vp);
}

gboolean v2_op_is_deleted(TesPath *p) { return d_flags(v2_path(p)->d) & D_DELETED ? TRUE : FALSE; }

/* The name and the directory belong together only while no rename runs. */
gboolean v2_op_parent(TesPath *p, gboolean (*want)(TesInode *), TesInode **dir, char *name) {
  Dentry *d = v2_path(p)->d;
  tes_epoch_enter();
  Dentry *up = LOAD(d->parent);
  gboolean wanted = up && want(d_inode(up));
  tes_epoch_leave();
  if (!wanted)
    return FALSE;
  TES_LOCKED(&d->v->dcache_lock);
  *dir = tes_inode_ref(d_inode(d->parent));
  g_strlcpy(name, d->name, TES_NAME_MAX + 1);
  return TRUE;
}

/* ---- Names, written from the end of a buffer that grows at its front ---- */

typedef struct {
  char *buf;
  gsize size, at;
} Name;

static void prepend(Name *n, const char *s, gsize len) {
  if (len > n->at) {
    gsize used = n->size - n->at, size = MAX(n->size * 2, used + len + 256);
    char *bigger = g_malloc(size);
    memcpy(bigger + size - used, n->buf + n->at, used);
    g_free(n->buf);
    *n = (Name){bigger, size, size - used};
  }
  n->at -= len;
  memcpy(n->buf + n->at, s, len);
}

/* One attempt, in an epoch. Returns FALSE if `root` was not met on the way. */
static gboolean build(Name *n, const Pos *root, Pos p, gboolean in_super) {
  /* More components than any path can have: a tree that changes while it is read. */
  for (guint i = 0; i < 100000; i++) {
    if (root && p.mnt == root->mnt && p.d == root->d)
      return TRUE;
    if (p.d == p.mnt->root && !in_super) {
      Mount *parent = LOAD(p.mnt->parent);
      Dentry *mp = LOAD(p.mnt->mountpoint);
      if (!parent || !mp)
        return FALSE;
      p = (Pos){parent, mp};
      continue;
    }
    Dentry *up = LOAD(p.d->parent);
    const char *s = LOAD(p.d->name);
    if (!up) {
      if (d_flags(p.d) & D_ANON) {
        prepend(n, s, strlen(s));
        prepend(n, "/", 1);
      }
      return in_super;
    }
    prepend(n, s, strlen(s));
    prepend(n, "/", 1);
    p.d = up;
  }
  return FALSE;
}

static gboolean name_once(V2 *v, const Pos *root, const Pos *p, gboolean in_super, Name *n,
                          gboolean *reached) {
  n->at = n->size - 1;
  n->buf[n->at] = '\0';
  guint seq = v2_seq_read(v);
  tes_epoch_enter();
  *reached = build(n, root, *p, in_super);
  tes_epoch_leave();
  return !v2_seq_changed(v, seq);
}

char *v2_name_of(V2 *v, const Pos *root, const Pos *p, gboolean in_super) {
  Name n = {g_malloc(256), 256, 255};
  gboolean reached = FALSE, ok = FALSE;
  for (guint tries = 0; !ok && tries < 50; tries++)
    ok = name_once(v, root, p, in_super, &n, &reached);
  if (!ok) { /* renames without end: hold them off */
    tes_mutex_lock(&v->dcache_lock);
    name_once(v, root, p, in_super, &n, &reached);
    tes_mutex_unlock(&v->dcache_lock);
  }
  if (n.at == n.size - 1)
    prepend(&n, "/", 1);
  if (!reached && !in_super && !(d_flags(p->d) & D_ANON))
    prepend(&n, "(unreachable)", 13);
  char *out = (d_flags(p->d) & (D_DELETED | D_ANON)) && !in_super
                  ? g_strconcat(n.buf + n.at, " (deleted)", NULL)
                  : g_strdup(n.buf + n.at);
  g_free(n.buf);
  return out;
}

char *v2_op_name(TesVfs *vfs, TesPath *root, TesPath *path) {
  Pos r = {NULL, NULL}, p = {v2_path(path)->mnt, v2_path(path)->d};
  if (root)
    r = (Pos){v2_path(root)->mnt, v2_path(root)->d};
  return v2_name_of(v2_of(vfs), root ? &r : NULL, &p, FALSE);
}

/* ---- Disconnected mounts (W4-W6) ---- */

TesPath *v2_op_anon_path(TesVfs *vfs, TesCtx *ctx, TesInode *inode, const char *name) {
  V2 *v = v2_of(vfs);
  TesSuper *s = inode->super;
  if (!s)
    return NULL;
  Dentry *root = s->root ? v2_dcache_root(v, s) : v2_dentry_new(v, s, NULL, "", 0, tes_inode_ref(inode));
  tes_mutex_lock(&v->mount_lock);
  Mount *m = g_hash_table_lookup(v->anon, s);
  if (m) { /* in the table: not dying, see v2_mount_unref() */
    v2_mount_ref(m);
  } else {
    m = v2_mount_new(v, tes_super_ref(s), v2_dentry_ref(root), s->type, MS_NOSUID | MS_NODEV);
    m->anon = TRUE;
    g_hash_table_insert(v->anon, s, m);
  }
  tes_mutex_unlock(&v->mount_lock);
  v2_dentry_unref(root);
  Dentry *d = v2_dentry_new(v, s, NULL, name, strlen(name), tes_inode_ref(inode));
  d_set(d, D_ANON);
  return v2_path_new(v, m, d);
}
