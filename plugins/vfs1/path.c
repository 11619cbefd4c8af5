/* SPDX-License-Identifier: Apache-2.0 */
/* Places (TesPath) and their names. */
#include "vfs1.h"

TesPath *v1_path_new(V1 *v, Mount *mnt, Dirent *d) {
  V1Path *p = g_new(V1Path, 1);
  *p = (V1Path){{&v->base, 1, d->inode}, {mnt, d}, FALSE};
  return &p->base;
}

TesPath *v1_path_ref(TesPath *p) {
  g_atomic_int_inc(&p->refs);
  return p;
}

void v1_path_unref(TesPath *p) {
  if (!g_atomic_int_dec_and_test(&p->refs))
    return;
  if (((V1Path *)p)->writes)
    g_atomic_int_add(&v1_pos(p)->mnt->writers, -1);
  v1_pos_clear(v1_pos(p));
  g_free(p);
}

gboolean v1_is_deleted(TesPath *p) { return (d_flags(v1_pos(p)->d) & D_DELETED) != 0; }

gboolean v1_parent_name(TesPath *p, gboolean (*want)(TesInode *), TesInode **dir, char *name) {
  Dirent *d = v1_pos(p)->d;
  tes_rwlock_read(&d->v->tree);
  gboolean wanted = d->parent && want(d->parent->inode);
  if (wanted) {
    *dir = tes_inode_ref(d->parent->inode);
    g_strlcpy(name, d->name, TES_NAME_MAX + 1);
  }
  tes_rwlock_unlock(&d->v->tree);
  return wanted;
}

/* ---- Names ---- */

/* The names from p up to `root`, nearest first; FALSE if `root` was not met. Tree lock held: nothing moves. */
static gboolean collect_names(GPtrArray *names, const Pos *root, Pos p, gboolean in_super) {
  for (;;) {
    if (root && p.mnt == root->mnt && p.d == root->d)
      return TRUE;
    if (p.d == p.mnt->root && !in_super) {
      if (!p.mnt->parent)
        return FALSE;
      p = (Pos){p.mnt->parent, p.mnt->point};
      continue;
    }
    if (p.d->parent || (d_flags(p.d) & D_ANON))
      g_ptr_array_add(names, g_strdup(p.d->name));
    if (!p.d->parent)
      return in_super;
    p.d = p.d->parent;
  }
}

char *v1_name_of(const Pos *root, const Pos *p, gboolean in_super) {
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  tes_rwlock_read(&p->mnt->v->tree);
  gboolean reached = collect_names(names, root, *p, in_super);
  tes_rwlock_unlock(&p->mnt->v->tree);
  gboolean anon = (d_flags(p->d) & D_ANON) != 0;
  GString *s = g_string_new(reached || in_super || anon ? "" : "(unreachable)");
  for (guint i = names->len; i-- > 0;)
    g_string_append_printf(s, "/%s", (char *)names->pdata[i]);
  if (!names->len)
    g_string_append_c(s, '/');
  if ((d_flags(p->d) & (D_DELETED | D_ANON)) && !in_super)
    g_string_append(s, " (deleted)");
  return g_string_free(s, FALSE);
}

char *v1_name(TesVfs *vfs, TesPath *root, TesPath *path) {
  (void)vfs;
  return v1_name_of(root ? v1_pos(root) : NULL, v1_pos(path), FALSE);
}

/* ---- Disconnected mounts: files without a name in any tree ---- */

/* The mount of a super that is mounted nowhere. Found by its super: one whose last reference has gone is not revived. */
static Mount *anon_mount(V1 *v, TesSuper *s, TesInode *inode) {
  Dirent *root = s->root ? v1_root_of(v, s) : v1_dirent_new(v, NULL, "", tes_inode_ref(inode));
  Mount *fresh = v1_mount_new(v, tes_super_ref(s), root, s->type, MS_NOSUID | MS_NODEV);
  fresh->anon = TRUE;
  tes_mutex_lock(&v->mounts);
  Mount *m = g_hash_table_lookup(v->anon, s);
  gint n = m ? g_atomic_int_get(&m->refs) : 0;
  while (n > 0 && !__atomic_compare_exchange_n(&m->refs, &n, n + 1, TRUE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
    ;
  if (n <= 0)
    g_hash_table_replace(v->anon, s, fresh);
  tes_mutex_unlock(&v->mounts);
  if (n <= 0)
    return fresh;
  v1_mount_unref(fresh);
  return m;
}

TesPath *v1_anon_path(TesVfs *vfs, TesCtx *ctx, TesInode *inode, const char *name) {
  (void)ctx;
  V1 *v = v1_of(vfs);
  if (!inode->super)
    return NULL;
  Mount *m = anon_mount(v, inode->super, inode);
  Dirent *d = v1_dirent_new(v, NULL, name, tes_inode_ref(inode));
  d_set(d, D_ANON);
  return v1_path_new(v, m, d);
}
