/* SPDX-License-Identifier: Apache-2.0 */
/* One name in one directory: the tree first, then the filesystem, which is asked for this one name.
 *
 * The answer enters the tree under the directory's lock, so no create or removal can overtake it. Missing names are not kept. */
#include "vfs1.h"

/* Is what the tree says still so? 1, 0, or -errno. */
static int is_valid(TesCtx *ctx, Dirent *dir, const char *name, Dirent *d) {
  if (g_atomic_int_get(&d->mounted) || g_atomic_int_get(&d->pins))
    return 1; /* a mount keeps its place */
  if (d_asks_always(dir))
    return 0;
  if (!(dir->inode->flags & TES_INODE_REVALIDATE))
    return 1;
  if (!TES_HAS(dir->inode->ops, revalidate))
    return 0;
  int r = dir->inode->ops->revalidate(dir->inode, ctx, name, d->inode);
  tes_trace_path(ctx, dir->super->type, name, r);
  return r;
}

/* What the tree has, if it is still right: *out NULL if not. 0 or -errno. */
static int from_tree(TesCtx *ctx, Dirent *dir, const char *name, Dirent **out) {
  Dirent *d = v1_child(dir, name);
  *out = NULL;
  if (!d)
    return 0;
  int r = is_valid(ctx, dir, name, d);
  if (r > 0) {
    tes_trace_path(ctx, NULL, name, 1);
    *out = d;
    return 0;
  }
  if (r == 0)
    v1_leave_tree(d);
  v1_dirent_unref(d);
  return r;
}

/* Asks the filesystem. The directory's lock is held, unless its names are asked for every time. */
static int ask(TesCtx *ctx, Dirent *dir, const char *name, Dirent **out) {
  TesInode *di = dir->inode, *inode = NULL;
  if ((d_flags(dir) & D_DEAD) || !TES_HAS(di->ops, lookup))
    return -ENOENT;
  int r = di->ops->lookup(di, ctx, name, &inode);
  tes_trace_path(ctx, dir->super->type, name, r < 0 ? r : 1);
  if (r < 0)
    return r;
  *out = v1_dirent_new(dir->v, dir, name, inode);
  if (!d_asks_always(dir) && (d_flags(dir) & D_IN_TREE))
    v1_enter_tree(*out);
  return 0;
}

int v1_lookup_locked(TesCtx *ctx, Dirent *dir, const char *name, Dirent **out) {
  int r = from_tree(ctx, dir, name, out);
  return r < 0 || *out ? r : ask(ctx, dir, name, out);
}

int v1_lookup(TesCtx *ctx, Dirent *dir, const char *name, gboolean cached_only, Dirent **out) {
  int r = from_tree(ctx, dir, name, out);
  if (r < 0 || *out)
    return r;
  if (cached_only)
    return -EAGAIN;
  if (d_asks_always(dir))
    return ask(ctx, dir, name, out);
  if (!tes_task_lock(&dir->lock))
    return -EINTR;
  *out = v1_child(dir, name); /* somebody else may have asked meanwhile */
  r = *out ? 0 : ask(ctx, dir, name, out);
  tes_mutex_unlock(&dir->lock);
  return r;
}
