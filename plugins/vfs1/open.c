/* SPDX-License-Identifier: Apache-2.0 */
/* open(2), openat2(2): resolving and creating; the checks are in vfs-common. */
#include "vfs1.h"
#include <linux/openat2.h>

/* The file takes over the place, unless the filesystem gave it one. */
static int open_place(V1 *v, TesCtx *ctx, Pos *p, guint flags, gboolean created, TesFile **out) {
  int r = rules_open(ctx, p->d->inode, v1_mount_flags(p->mnt), flags, created, out);
  if (r < 0)
    return r;
  if (!(*out)->path) {
    (*out)->path = v1_path_new(v, p->mnt, p->d);
    if ((*out)->writer) {
      ((V1Path *)(*out)->path)->writes = TRUE;
      g_atomic_int_inc(&p->mnt->writers);
    }
    *p = (Pos){NULL, NULL};
  }
  rules_tell_open(*out, flags, created);
  return 0;
}

/* Finds or makes the last component. */
static int find_or_create(Walk *w, guint32 mode, Dirent **d, gboolean *created) {
  TesNode node = {.mode = S_IFREG | (mode & 07777)};
  TES_LOCKED(&w->pos.d->lock);
  int r = v1_lookup_locked(w->ctx, w->pos.d, w->last, d);
  *created = r == -ENOENT;
  return *created ? v1_make(w, &node, d) : r;
}

/* The walk stands at the directory of the last component. Returns 1 if a link was followed: look again. */
static int open_last(Walk *w, guint flags, guint32 mode, TesFile **out) {
  if (w->last_kind == LAST_ROOT) /* "/", or where a magic link led */
    return (flags & O_EXCL) ? -EEXIST : open_place(w->v, w->ctx, &w->pos, flags, FALSE, out);
  if (w->last_kind != LAST_NORM)
    return (flags & O_EXCL) ? -EEXIST : -EISDIR;
  if (w->last_slash)
    return -EISDIR;
  Pos p = {NULL, NULL};
  gboolean created;
  int r = find_or_create(w, mode, &p.d, &created);
  if (r < 0)
    return r;
  p.mnt = v1_mount_ref(w->pos.mnt);
  if (!created && (flags & O_EXCL)) {
    r = -EEXIST;
  } else if (S_ISLNK(p.d->inode->mode) && !(flags & (O_NOFOLLOW | O_EXCL))) {
    r = v1_walk_link(w, p.d);
    r = r < 0 ? r : 1;
  } else {
    v1_cross(w->v, &p);
    r = p.mnt != w->pos.mnt && (w->resolve & RESOLVE_NO_XDEV) ? -EXDEV
        : created                                             ? 0
                  : rules_may_open_existing(w->ctx, w->pos.d->inode, p.d->inode);
    if (r >= 0)
      r = open_place(w->v, w->ctx, &p, flags, created, out);
  }
  v1_pos_clear(&p);
  return r;
}

static int open_create(TesVfs *vfs, TesCtx *ctx, const TesAt *at, guint flags, guint32 mode, TesFile **out) {
  Walk w;
  int r = (flags & O_DIRECTORY) ? -EINVAL : -EEXIST;
  /* EEXIST without O_EXCL: made behind our back, on a filesystem that others use too. */
  for (guint tries = 0; r == -EEXIST && tries < 3; tries++) {
    r = v1_walk(&w, vfs, ctx, at, W_PARENT);
    if (r < 0)
      return r;
    do
      r = open_last(&w, flags, mode, out);
    while (r == 1);
    v1_walk_end(&w);
    if (flags & O_EXCL)
      break;
  }
  return r;
}

static int open_tmpfile(TesVfs *vfs, TesCtx *ctx, const TesAt *at, guint flags, guint32 mode, TesFile **out) {
  Walk w;
  int r = rules_tmpfile_flags(flags);
  if (r >= 0)
    r = v1_walk(&w, vfs, ctx, at, walk_flags(at) | W_DIRECTORY);
  if (r < 0)
    return r;
  TesInode *dir = w.pos.d->inode, *inode = NULL;
  r = rules_may_create(ctx, dir, v1_read_only(w.pos.mnt));
  if (r >= 0)
    r = TES_HAS(dir->ops, tmpfile) ? dir->ops->tmpfile(dir, ctx, S_IFREG | (mode & 07777), &inode)
                                   : -EOPNOTSUPP;
  if (r >= 0) {
    g_autofree char *name = g_strdup_printf("#%" G_GUINT64_FORMAT, inode->ino);
    Pos p = {v1_mount_ref(w.pos.mnt), v1_dirent_new(w.v, w.pos.d, name, inode)};
    d_set(p.d, D_DELETED | ((flags & O_EXCL) ? 0 : D_LINKABLE));
    r = open_place(w.v, ctx, &p, flags & ~O_EXCL, TRUE, out);
    v1_pos_clear(&p);
  }
  v1_walk_end(&w);
  return r < 0 ? r : 0;
}

int v1_open(TesVfs *vfs, TesCtx *ctx, const TesAt *at_in, guint flags, guint32 mode, TesFile **out) {
  TesAt at = *at_in;
  flags = rules_open_flags(flags, &at);
  if ((flags & O_TMPFILE) == O_TMPFILE)
    return open_tmpfile(vfs, ctx, &at, flags, mode, out);
  if (flags & O_CREAT)
    return open_create(vfs, ctx, &at, flags, mode, out);
  Walk w;
  int r = -ESTALE;
  /* ESTALE: the filesystem lost sight of a name in the tree; forget it and look once more. */
  for (guint tries = 0; r == -ESTALE && tries < 2; tries++) {
    r = v1_walk(&w, vfs, ctx, &at, walk_flags(&at));
    if (r < 0)
      return r;
    r = open_place(w.v, ctx, &w.pos, flags, FALSE, out);
    if (r == -ESTALE && w.pos.d->parent)
      v1_leave_tree(w.pos.d);
    v1_walk_end(&w);
  }
  return r;
}

int v1_open_path(TesVfs *vfs, TesCtx *ctx, TesPath *path, guint flags, TesFile **out) {
  if ((flags & O_DIRECTORY) && !S_ISDIR(path->inode->mode))
    return -ENOTDIR;
  Pos p = {v1_mount_ref(v1_pos(path)->mnt), v1_dirent_ref(v1_pos(path)->d)};
  int r = open_place(v1_of(vfs), ctx, &p, flags & ~(O_CREAT | O_EXCL), FALSE, out);
  v1_pos_clear(&p);
  return r;
}
