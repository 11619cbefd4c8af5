/* SPDX-License-Identifier: Apache-2.0 */
/* Creating, removing and renaming. Everything happens in the upper layer; a whiteout there hides what lower layers have under a
 * name that was removed, the opaque mark hides what they have in a directory that was made anew.
 *
 * What replaces something is moved into place by one rename of the upper layer, so that a killed kernel process leaves
 * either the old state or the new one of each name. */
#include "overlay.h"

/* ---- Steps in the upper layer; directory lock held ---- */

/* What the upper layer has under a name; NULL: nothing. Referenced. */
static int upper_entry(OvInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  int r = ov_child(ov_upper(dir), ctx, name, out);
  return r == -ENOENT ? 0 : r;
}

static int make_whiteout(OvSuper *s, TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  (void)s;
  return TES_HAS(dir->ops, mknod) ? dir->ops->mknod(dir, ctx, name, S_IFCHR, 0, out) : -EPERM;
}

static int remove_entry(TesInode *dir, TesCtx *ctx, const char *name, TesInode *i) {
  if (!S_ISDIR(i->mode))
    return dir->ops->unlink(dir, ctx, name, i);
  ov_clear_dir(i, ctx, 0); /* whiteouts: the merged directory is empty */
  return dir->ops->rmdir(dir, ctx, name, i);
}

/* Takes `i` away from the upper layer, leaving a whiteout if lower layers have the name. `i` NULL: there was nothing. */
static int hide(OvInode *dir, TesCtx *ctx, const char *name, TesInode *i, gboolean whiteout) {
  OvSuper *s = ov_super(dir);
  TesInode *du = ov_upper(dir), *w = NULL;
  char temp[32];
  if (!whiteout)
    return i ? remove_entry(du, ctx, name, i) : 0;
  if (!i) {
    int r = make_whiteout(s, du, ctx, name, &w);
    g_clear_pointer(&w, tes_inode_unref);
    return r;
  }
  ov_temp_name(s, temp);
  int r = make_whiteout(s, s->work, ctx, temp, &w);
  if (r < 0)
    return r;
  gboolean swap = S_ISDIR(i->mode);
  r = s->work->ops->rename(s->work, temp, du, name, w, i, ctx, swap ? RENAME_EXCHANGE : 0);
  if (r < 0)
    s->work->ops->unlink(s->work, ctx, temp, w);
  else if (swap)
    remove_entry(s->work, ctx, temp, i);
  tes_inode_unref(w);
  return r;
}

/* Before something is made: a whiteout is put aside; *aside is its name in work, or empty. */
typedef struct {
  TesInode *whiteout;
  char temp[32];
} Aside;

static int put_aside(OvInode *dir, TesCtx *ctx, const char *name, Aside *a) {
  OvSuper *s = ov_super(dir);
  TesInode *du = ov_upper(dir);
  a->whiteout = NULL;
  int r = upper_entry(dir, ctx, name, &a->whiteout);
  if (r < 0 || !a->whiteout)
    return r;
  if (!ov_is_whiteout(a->whiteout)) {
    g_clear_pointer(&a->whiteout, tes_inode_unref);
    return -EEXIST;
  }
  ov_temp_name(s, a->temp);
  r = du->ops->rename(du, name, s->work, a->temp, a->whiteout, NULL, ctx, 0);
  if (r < 0)
    g_clear_pointer(&a->whiteout, tes_inode_unref);
  return r;
}

/* Afterwards: dropped, or put back if nothing was made. */
static void settle(OvInode *dir, TesCtx *ctx, const char *name, Aside *a, gboolean made) {
  OvSuper *s = ov_super(dir);
  TesInode *du = ov_upper(dir);
  if (!a->whiteout)
    return;
  if (made)
    s->work->ops->unlink(s->work, ctx, a->temp, a->whiteout);
  else
    s->work->ops->rename(s->work, a->temp, du, name, a->whiteout, NULL, ctx, 0);
  tes_inode_unref(a->whiteout);
}

/* ---- Creating ---- */

typedef struct {
  guint32 mode;
  guint64 rdev;
  const char *target;
} New;

static int make_new(TesInode *du, TesCtx *ctx, const char *name, const New *n, TesInode **out) {
  const TesInodeOps *ops = du->ops;
  switch (n->mode & S_IFMT) {
  case S_IFREG:
    return TES_HAS(ops, create) ? ops->create(du, ctx, name, n->mode, out) : -EPERM;
  case S_IFDIR:
    return TES_HAS(ops, mkdir) ? ops->mkdir(du, ctx, name, n->mode, out) : -EPERM;
  case S_IFLNK:
    return TES_HAS(ops, symlink) ? ops->symlink(du, ctx, name, n->target, out) : -EPERM;
  default:
    return TES_HAS(ops, mknod) ? ops->mknod(du, ctx, name, n->mode, n->rdev, out) : -EPERM;
  }
}

static int add(TesInode *base, TesCtx *ctx, const char *name, const New *n, TesInode **out) {
  OvInode *dir = ov_inode(base);
  OvSuper *s = ov_super(dir);
  Aside aside;
  TesInode *made = NULL;
  int r = ov_copy_up(dir, ctx, -1);
  if (r < 0)
    return r;
  TES_LOCKED(&dir->lock);
  r = put_aside(dir, ctx, name, &aside);
  if (r < 0)
    return r;
  r = make_new(ov_upper(dir), ctx, name, n, &made);
  if (r == 0 && S_ISDIR(n->mode) && aside.whiteout) {
    r = ov_own_set(s, made, ctx, "opaque", "y");
    if (r < 0) {
      ov_upper(dir)->ops->rmdir(ov_upper(dir), ctx, name, made);
      tes_inode_unref(made);
    }
  }
  settle(dir, ctx, name, &aside, r == 0);
  if (r < 0)
    return r;
  ov_changed(dir);
  ov_sync(dir);
  return ov_inode_get(s, ctx, dir, name, made, NULL, 0, out);
}

int ov_create(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  return add(dir, ctx, name, &(New){S_IFREG | (mode & 07777), 0, NULL}, out);
}
int ov_mkdir(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  return add(dir, ctx, name, &(New){S_IFDIR | (mode & 07777), 0, NULL}, out);
}
int ov_mknod(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, guint64 rdev, TesInode **out) {
  if (S_ISCHR(mode) && rdev == 0)
    return -EPERM; /* would be a whiteout */
  return add(dir, ctx, name, &(New){mode, rdev, NULL}, out);
}
int ov_symlink(TesInode *dir, TesCtx *ctx, const char *name, const char *target, TesInode **out) {
  return add(dir, ctx, name, &(New){S_IFLNK | 0777, 0, target}, out);
}

int ov_tmpfile(TesInode *base, TesCtx *ctx, guint32 mode, TesInode **out) {
  OvInode *dir = ov_inode(base);
  TesInode *made = NULL;
  int r = ov_copy_up(dir, ctx, -1);
  if (r < 0)
    return r;
  TesInode *du = ov_upper(dir);
  r = TES_HAS(du->ops, tmpfile) ? du->ops->tmpfile(du, ctx, mode, &made) : -EOPNOTSUPP;
  return r < 0 ? r : ov_inode_get(ov_super(dir), ctx, NULL, NULL, made, NULL, 0, out);
}

int ov_link(TesInode *base, TesCtx *ctx, const char *name, TesInode *target) {
  OvInode *dir = ov_inode(base), *t = ov_inode(target);
  Aside aside;
  int r = ov_copy_up(t, ctx, -1);
  if (r == 0)
    r = ov_copy_up(dir, ctx, -1);
  if (r < 0)
    return r;
  TesInode *du = ov_upper(dir);
  if (!TES_HAS(du->ops, link))
    return -EPERM;
  TES_LOCKED(&dir->lock);
  r = put_aside(dir, ctx, name, &aside);
  if (r < 0)
    return r;
  r = du->ops->link(du, ctx, name, ov_upper(t));
  settle(dir, ctx, name, &aside, r == 0);
  if (r < 0)
    return r;
  ov_count_link(t, ctx, 1);
  ov_set_place(t, dir, name);
  ov_changed(dir);
  return 0;
}

/* ---- Removing ---- */

static int clear_one(gpointer data, const char *name, guint64 ino, guint type) {
  (void)ino, (void)type;
  g_ptr_array_add(data, g_strdup(name));
  return 0;
}

void ov_clear_dir(TesInode *dir, TesCtx *ctx, guint depth) {
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  ov_list_layer(dir, ctx, clear_one, names);
  for (guint k = 0; k < names->len && depth < 64; k++) {
    TesInode *i;
    if (ov_child(dir, ctx, names->pdata[k], &i) < 0)
      continue;
    if (S_ISDIR(i->mode)) {
      ov_clear_dir(i, ctx, depth + 1);
      dir->ops->rmdir(dir, ctx, names->pdata[k], i);
    } else {
      dir->ops->unlink(dir, ctx, names->pdata[k], i);
    }
    tes_inode_unref(i);
  }
}

/* Directory lock held. */
static int remove_name(OvInode *dir, TesCtx *ctx, const char *name, OvInode *victim) {
  TesInode *i = NULL;
  int r = upper_entry(dir, ctx, name, &i);
  if (r == 0 && i && ov_is_whiteout(i))
    r = -ENOENT;
  if (r == 0)
    r = hide(dir, ctx, name, i, ov_lower_has(dir, ctx, name));
  if (i)
    tes_inode_unref(i);
  if (r < 0)
    return r;
  ov_changed(dir);
  ov_sync(dir);
  ov_count_link(victim, ctx, -1);
  return 0;
}

/* The name is gone: later changes of an open file are not to be looked for there. */
static void forget_place(OvInode *o, OvInode *dir, const char *name) {
  TES_LOCKED(&ov_super(o)->names_lock);
  if (o->parent == dir && g_strcmp0(o->name, name) == 0)
    o->removed = TRUE;
}

int ov_unlink(TesInode *base, TesCtx *ctx, const char *name, TesInode *victim) {
  OvInode *dir = ov_inode(base);
  int r = ov_copy_up(dir, ctx, -1);
  if (r < 0)
    return r;
  TES_LOCKED(&dir->lock);
  r = remove_name(dir, ctx, name, ov_inode(victim));
  if (r == 0)
    forget_place(ov_inode(victim), dir, name);
  return r;
}

int ov_rmdir(TesInode *base, TesCtx *ctx, const char *name, TesInode *victim) {
  OvInode *dir = ov_inode(base), *v = ov_inode(victim);
  int r = ov_copy_up(dir, ctx, -1);
  if (r < 0)
    return r;
  TES_LOCKED(&dir->lock);
  TES_LOCKED(&v->lock);
  r = ov_check_empty(v, ctx);
  if (r == 0)
    r = remove_name(dir, ctx, name, v);
  if (r == 0) {
    forget_place(v, dir, name);
    ov_changed(v);
  }
  return r;
}

/* ---- Renaming ---- */

/* Where the lower layers have what this directory merges; transfer full. Names lock held. */
static char *lower_path(OvInode *o) {
  g_autoptr(GPtrArray) parts = g_ptr_array_new();
  const char *top = "";
  for (; o->parent; o = o->parent) {
    if (o->redirect) {
      top = o->redirect;
      break;
    }
    g_ptr_array_add(parts, o->name);
  }
  GString *path = g_string_new(top);
  while (parts->len)
    g_string_append_printf(path, "/%s", (char *)g_ptr_array_steal_index(parts, parts->len - 1));
  return g_string_free(path, FALSE);
}

/* Before a directory gets another name: lookups there must find what it merges, and nothing else. `covers`: lower
 * layers have something under the new name. */
static int prepare_dir(OvInode *o, TesCtx *ctx, gboolean covers) {
  OvSuper *s = ov_super(o);
  if (!S_ISDIR(o->base.mode))
    return 0;
  if (!o->n_lower)
    return covers ? ov_own_set(s, ov_upper(o), ctx, "opaque", "y") : 0;
  if (!s->redirect)
    return -EXDEV;
  tes_mutex_lock(&s->names_lock);
  char *to = lower_path(o);
  tes_mutex_unlock(&s->names_lock);
  if (strlen(to) >= TES_PATH_MAX) {
    g_free(to);
    return -EXDEV;
  }
  int r = ov_own_set(s, ov_upper(o), ctx, "redirect", to);
  if (r < 0) {
    g_free(to);
    return r == -EOPNOTSUPP ? -EXDEV : r;
  }
  tes_mutex_lock(&s->names_lock);
  char *old = o->redirect;
  o->redirect = to;
  tes_mutex_unlock(&s->names_lock);
  g_free(old);
  return 0;
}

static gboolean is_ancestor(OvInode *a, OvInode *o) {
  TES_LOCKED(&ov_super(o)->names_lock);
  for (; o; o = o->parent)
    if (o == a)
      return TRUE;
  return FALSE;
}

/* Ancestors first; with the rename lock held no directory moves. */
static void lock_pair(OvInode *a, OvInode *b) {
  if (a != b && (is_ancestor(b, a) || (!is_ancestor(a, b) && b < a))) {
    OvInode *x = a;
    a = b;
    b = x;
  }
  tes_mutex_lock(&a->lock);
  if (a != b)
    tes_mutex_lock(&b->lock);
}

static void unlock_pair(OvInode *a, OvInode *b) {
  tes_mutex_unlock(&a->lock);
  if (a != b)
    tes_mutex_unlock(&b->lock);
}

typedef struct {
  OvInode *odir, *ndir, *source, *target;
  const char *oname, *nname;
  TesCtx *ctx;
  gboolean old_below, new_below; /* lower layers have the names */
} Move;

static int layer_rename(const Move *m, TesInode *there, guint flags) {
  TesInode *od = ov_upper(m->odir), *nd = ov_upper(m->ndir);
  return od->ops->rename(od, m->oname, nd, m->nname, ov_upper(m->source), there, m->ctx, flags);
}

/* A lower file with several names is copied up under one of them; the others get into the upper layer when they are needed there. */
static int materialize(OvInode *dir, TesCtx *ctx, const char *name, OvInode *o) {
  TesInode *du = ov_upper(dir), *there = NULL;
  int r = upper_entry(dir, ctx, name, &there);
  if (r < 0 || there) {
    gboolean right = there && there == ov_upper(o);
    g_clear_pointer(&there, tes_inode_unref);
    return r < 0 ? r : right ? 0 : -ESTALE;
  }
  return S_ISDIR(o->base.mode) || !TES_HAS(du->ops, link) ? -ESTALE
                                                          : du->ops->link(du, ctx, name, ov_upper(o));
}

static int exchange(Move *m) {
  int r = materialize(m->ndir, m->ctx, m->nname, m->target);
  if (r == 0)
    r = prepare_dir(m->source, m->ctx, m->new_below);
  if (r == 0)
    r = prepare_dir(m->target, m->ctx, m->old_below);
  if (r == 0)
    r = layer_rename(m, ov_upper(m->target), RENAME_EXCHANGE);
  if (r < 0)
    return r;
  ov_set_place(m->target, m->odir, m->oname);
  ov_set_place(m->source, m->ndir, m->nname);
  return 0;
}

/* The source takes the new name. If the old one must become a whiteout, or the upper layer has something at the new
 * name, the two change places and what is then at the old name is put away. */
static int replace(Move *m) {
  TesInode *there = NULL;
  int r = prepare_dir(m->source, m->ctx, m->new_below);
  if (r == 0)
    r = upper_entry(m->ndir, m->ctx, m->nname, &there);
  if (r < 0)
    return r;
  if (!there && !m->old_below)
    return layer_rename(m, NULL, 0);
  gboolean fresh = !there;
  if (fresh)
    r = make_whiteout(ov_super(m->ndir), ov_upper(m->ndir), m->ctx, m->nname, &there);
  if (r < 0)
    return r;
  r = layer_rename(m, there, RENAME_EXCHANGE);
  if (r < 0) {
    if (fresh)
      ov_upper(m->ndir)->ops->unlink(ov_upper(m->ndir), m->ctx, m->nname, there);
  } else if (!ov_is_whiteout(there) || !m->old_below) {
    hide(m->odir, m->ctx, m->oname, there, m->old_below);
  }
  tes_inode_unref(there);
  return r;
}

static int rename_locked(Move *m, guint flags) {
  m->old_below = ov_lower_has(m->odir, m->ctx, m->oname);
  m->new_below = ov_lower_has(m->ndir, m->ctx, m->nname);
  int r = materialize(m->odir, m->ctx, m->oname, m->source);
  if (r < 0)
    return r;
  if (flags & RENAME_EXCHANGE) {
    r = exchange(m);
  } else {
    gboolean dir = m->target && S_ISDIR(m->target->base.mode);
    if (dir)
      tes_mutex_lock(&m->target->lock);
    r = dir ? ov_check_empty(m->target, m->ctx) : 0;
    if (r == 0)
      r = replace(m);
    if (r == 0 && dir)
      ov_changed(m->target);
    if (dir)
      tes_mutex_unlock(&m->target->lock);
    if (r == 0 && m->target) {
      ov_count_link(m->target, m->ctx, -1);
      forget_place(m->target, m->ndir, m->nname);
    }
    if (r == 0)
      ov_set_place(m->source, m->ndir, m->nname);
  }
  if (r == 0) {
    ov_changed(m->odir);
    ov_changed(m->ndir);
    if (S_ISDIR(m->source->base.mode))
      ov_changed(m->source); /* its ".." */
    ov_sync(m->odir);
    ov_sync(m->ndir);
  }
  return r;
}

int ov_rename(TesInode *odir, const char *oname, TesInode *ndir, const char *nname, TesInode *source,
              TesInode *target, TesCtx *ctx, guint flags) {
  Move m = {.odir = ov_inode(odir),
            .ndir = ov_inode(ndir),
            .source = ov_inode(source),
            .target = target ? ov_inode(target) : NULL,
            .oname = oname,
            .nname = nname,
            .ctx = ctx};
  OvSuper *s = ov_super(m.odir);
  if (S_ISDIR(source->mode) && m.source->n_lower && !s->redirect)
    return -EXDEV;
  int r = ov_copy_up(m.source, ctx, -1);
  if (r == 0)
    r = ov_copy_up(m.odir, ctx, -1);
  if (r == 0)
    r = ov_copy_up(m.ndir, ctx, -1);
  if (r == 0 && (flags & RENAME_EXCHANGE) && m.target)
    r = ov_copy_up(m.target, ctx, -1);
  if (r < 0)
    return r;
  TES_LOCKED(&s->rename_lock);
  lock_pair(m.odir, m.ndir);
  r = rename_locked(&m, flags);
  unlock_pair(m.odir, m.ndir);
  return r;
}
