/* SPDX-License-Identifier: Apache-2.0 */
/* open(2), openat2(2): resolving and creating; the checks are in vfs-common. */
#include "vfs2.h"
#include "../vfs-common/rules.h"

/* p is counted by the caller, and empty afterwards if the file took it over. */
static int open_place(V2 *v, TesCtx *ctx, Pos *p, guint flags, gboolean created, TesFile **out) {
  gulong mount_flags = v2_mount_flags(p->mnt) | (p->mnt->super->read_only ? MS_RDONLY : 0);
  int r = rules_open(ctx, d_inode(p->d), mount_flags, flags, created, out);
  if (r < 0)
    return r;
  if (!(*out)->path) {
    (*out)->path = v2_path_new(v, p->mnt, p->d);
    if ((*out)->writer) {
      v2_path((*out)->path)->writes = TRUE;
      g_atomic_int_inc(&p->mnt->writers);
    }
    *p = (Pos){NULL, NULL};
  }
  rules_tell_open(*out, flags, created);
  return 0;
}

/* ---- Creating ---- */

/* The last component does not exist and the directory's lock is held: makes a regular file. */
static int create_locked(Walk *w, Dentry *d, guint32 mode) {
  TesInode *dir = d_inode(w->pos.d), *inode = NULL;
  int r = v2_may_create(w->ctx, w->pos.mnt, w->pos.d);
  if (r < 0)
    return r;
  if (!TES_HAS(dir->ops, create))
    return -EACCES;
  r = dir->ops->create(dir, w->ctx, d->name, S_IFREG | (mode & 07777), &inode);
  if (r < 0)
    return r;
  v2_instantiate(d, inode);
  tes_notify_create(dir, d->name, inode);
  return 0;
}

/* Finds or makes the last component; *d is counted. */
static int find_or_create(Walk *w, guint32 mode, Dentry **d, gboolean *created) {
  *created = FALSE;
  int r = v2_lookup(w->v, w->ctx, w->pos.d, w->last, w->last_len, NULL, d);
  if (r < 0 || d_inode(*d))
    return r;
  v2_dentry_unref(*d);
  *d = NULL;
  if (!tes_task_lock(&w->pos.d->lock))
    return -EINTR;
  r = v2_lookup_locked(w->v, w->ctx, w->pos.d, w->last, w->last_len, d);
  if (r >= 0 && !d_inode(*d)) {
    r = create_locked(w, *d, mode);
    *created = r >= 0;
    if (r < 0) {
      /* A shared filesystem may know the name meanwhile: the cached "missing" is wrong then. */
      if (r == -EEXIST)
        v2_dcache_drop(*d);
      v2_dentry_unref(*d);
      *d = NULL;
    }
  }
  tes_mutex_unlock(&w->pos.d->lock);
  return r;
}

/* The walk stands at the directory of the last component. RETURN 1: a link was followed, look again. */
static int open_last(Walk *w, guint flags, guint32 mode, TesFile **out) {
  if (w->last_kind == LAST_ROOT) /* "/", or where a magic link led */
    return (flags & O_EXCL) ? -EEXIST : open_place(w->v, w->ctx, &w->pos, flags, FALSE, out);
  if (w->last_kind != LAST_NORM)
    return (flags & O_EXCL) ? -EEXIST : -EISDIR;
  if (w->last_slash)
    return -EISDIR;
  Dentry *d;
  gboolean created;
  int r = find_or_create(w, mode, &d, &created);
  if (r < 0)
    return r;
  if (!created && (flags & O_EXCL)) {
    v2_dentry_unref(d);
    return -EEXIST;
  }
  if (!created && S_ISLNK(d_inode(d)->mode) && !(flags & (O_NOFOLLOW | O_EXCL))) {
    r = v2_walk_link(w, d);
    v2_dentry_unref(d);
    return r < 0 ? r : 1;
  }
  Pos p = {v2_mount_ref(w->pos.mnt), d};
  v2_cross_mounts(w->v, &p);
  if (p.mnt != w->pos.mnt && (w->resolve & 1 /* RESOLVE_NO_XDEV */))
    r = -EXDEV;
  else
    r = created ? 0 : rules_may_open_existing(w->ctx, d_inode(w->pos.d), d_inode(p.d));
  if (r >= 0)
    r = open_place(w->v, w->ctx, &p, flags, created, out);
  v2_pos_unref(&p);
  return r;
}

static int open_create(V2 *v, TesCtx *ctx, const TesAt *at, guint flags, guint32 mode, TesFile **out) {
  Walk w;
  if (flags & O_DIRECTORY)
    return -EINVAL;
  int r = -EEXIST;
  for (guint tries = 0; r == -EEXIST && tries < 3; tries++) {
    r = v2_walk(&w, v, ctx, at, W_PARENT, FALSE);
    if (r < 0)
      return r;
    do
      r = open_last(&w, flags, mode, out);
    while (r == 1);
    v2_walk_end(&w);
    if (flags & O_EXCL)
      break;
  }
  return r;
}

static int open_tmpfile(V2 *v, TesCtx *ctx, const TesAt *at, guint flags, guint32 mode, TesFile **out) {
  Walk w;
  int r = rules_tmpfile_flags(flags);
  if (r >= 0)
    r = v2_walk(&w, v, ctx, at, walk_flags(at) | W_DIRECTORY, FALSE);
  if (r < 0)
    return r;
  TesInode *dir = d_inode(w.pos.d), *inode = NULL;
  if (v2_mount_read_only(w.pos.mnt))
    r = -EROFS;
  else if ((r = tes_inode_permission(dir, ctx, W_OK | X_OK)) >= 0)
    r = TES_HAS(dir->ops, tmpfile) ? dir->ops->tmpfile(dir, ctx, S_IFREG | (mode & 07777), &inode)
                                   : -EOPNOTSUPP;
  if (r >= 0) {
    char name[32];
    g_snprintf(name, sizeof name, "#%" G_GUINT64_FORMAT, inode->ino);
    Dentry *d = v2_dentry_new(v, dir->super, w.pos.d, name, strlen(name), inode);
    d_set(d, D_DELETED | ((flags & O_EXCL) ? 0 : D_LINKABLE));
    Pos p = {v2_mount_ref(w.pos.mnt), d};
    r = open_place(v, ctx, &p, flags & ~O_EXCL, TRUE, out);
    v2_pos_unref(&p);
  }
  v2_walk_end(&w);
  return r < 0 ? r : 0;
}

int v2_op_open(TesVfs *vfs, TesCtx *ctx, const TesAt *at_in, guint flags, guint32 mode, TesFile **out) {
  V2 *v = v2_of(vfs);
  TesAt at = *at_in;
  flags = rules_open_flags(flags, &at);
  if ((flags & O_TMPFILE) == O_TMPFILE)
    return open_tmpfile(v, ctx, &at, flags, mode, out);
  if (flags & O_CREAT)
    return open_create(v, ctx, &at, flags, mode, out);
  Walk w;
  int r = -ESTALE;
  /* ESTALE: the filesystem lost sight of a cached name; forget it and look once more. */
  for (guint tries = 0; r == -ESTALE && tries < 2; tries++) {
    r = v2_walk(&w, v, ctx, &at, walk_flags(&at), FALSE);
    if (r < 0)
      return r;
    r = open_place(v, ctx, &w.pos, flags, FALSE, out);
    if (r == -ESTALE)
      v2_dcache_drop(w.pos.d);
    v2_walk_end(&w);
  }
  return r;
}

int v2_op_open_path(TesVfs *vfs, TesCtx *ctx, TesPath *path, guint flags, TesFile **out) {
  if ((flags & O_DIRECTORY) && !S_ISDIR(path->inode->mode))
    return -ENOTDIR;
  Pos p = {v2_mount_ref(v2_path(path)->mnt), v2_dentry_ref(v2_path(path)->d)};
  int r = open_place(v2_of(vfs), ctx, &p, flags & ~(O_CREAT | O_EXCL), FALSE, out);
  v2_pos_unref(&p);
  return r;
}
