/* SPDX-License-Identifier: Apache-2.0 */
/* open(2), openat2(2): resolving, creating, checking, and making the description. */
#include "vfs2.h"

/* ---- O_PATH ---- */

static void path_file_release(TesFile *f) { g_free(f); }
static const TesFileOps path_file_ops = {.size = sizeof(TesFileOps),
                                         .name = "path",
                                         .flags = TES_FILE_NO_READ_WRITE,
                                         .release = path_file_release};

#define O_PATH_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* The file takes over the place. */
static void set_place(TesFile *f, V2 *v, Pos *p) {
  if (!f->inode)
    f->inode = tes_inode_ref(d_inode(p->d));
  if (f->path)
    return;
  f->path = v2_path_new(v, p->mnt, p->d);
  *p = (Pos){NULL, NULL};
}

static int open_o_path(V2 *v, TesCtx *ctx, Pos *p, guint flags, TesFile **out) {
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, ctx->kernel, &path_file_ops, flags & O_PATH_FLAGS & ~O_CLOEXEC);
  set_place(f, v, p);
  *out = f;
  return 0;
}

/* ---- Checks ---- */

static guint access_mask(guint flags) {
  static const guint by_mode[] = {R_OK, W_OK, R_OK | W_OK, R_OK | W_OK};
  return by_mode[flags & O_ACCMODE] | ((flags & O_TRUNC) ? W_OK : 0);
}

static int may_open(TesCtx *ctx, const Pos *p, guint *flags, gboolean created) {
  TesInode *i = d_inode(p->d);
  guint mask = created ? 0 : access_mask(*flags);
  switch (i->mode & S_IFMT) {
  case S_IFLNK:
    return -ELOOP;
  case S_IFDIR:
    if ((mask & W_OK) || (*flags & O_CREAT))
      return -EISDIR;
    break;
  case S_IFBLK:
  case S_IFCHR:
    if (v2_mount_flags(p->mnt) & MS_NODEV)
      return -EACCES;
    G_GNUC_FALLTHROUGH;
  case S_IFIFO:
  case S_IFSOCK:
    *flags &= ~O_TRUNC;
    if (!created)
      mask = access_mask(*flags);
    break;
  default:
    if ((mask & W_OK) && v2_mount_read_only(p->mnt))
      return -EROFS;
  }
  int r = mask ? tes_inode_permission(i, ctx, mask) : 0;
  if (r < 0)
    return r;
  if ((i->flags & TES_INODE_APPEND_ONLY) &&
      (((*flags & O_ACCMODE) != O_RDONLY && !(*flags & O_APPEND)) || (*flags & O_TRUNC)))
    return -EPERM;
  if ((*flags & O_NOATIME) && !tes_inode_owner_or_capable(i, ctx))
    return -EPERM;
  return 0;
}

/* O_TRUNC. Set-id bits go as in a write (inode(7)), unless the caller has CAP_FSETID. */
static int truncate_now(TesCtx *ctx, TesInode *i) {
  TesSetAttr set = {.valid = TES_SET_SIZE | TES_SET_MTIME | TES_SET_CTIME};
  set.mtime.tv_nsec = set.ctime.tv_nsec = UTIME_NOW;
  guint32 mode = i->mode & ~S_ISUID;
  if (mode & S_IXGRP)
    mode &= ~S_ISGID;
  if (mode != i->mode && !tes_ctx_capable(ctx, 4 /* CAP_FSETID */)) {
    set.valid |= TES_SET_MODE;
    set.mode = mode & 07777;
  }
  return TES_HAS(i->ops, setattr) ? i->ops->setattr(i, ctx, &set) : -EPERM;
}

static int make_file(TesCtx *ctx, TesInode *i, guint flags, TesFile **out) {
  if (S_ISSOCK(i->mode))
    return -ENXIO;
  if (S_ISFIFO(i->mode))
    return tes_fifo_open(i, ctx, flags, out);
  return TES_HAS(i->ops, open) ? i->ops->open(i, ctx, flags, out) : -ENXIO;
}

/* p is counted by the caller, and empty afterwards if the file took it over. */
static int open_place(V2 *v, TesCtx *ctx, Pos *p, guint flags, gboolean created, TesFile **out) {
  if (flags & O_PATH)
    return open_o_path(v, ctx, p, flags, out);
  TesInode *i = d_inode(p->d);
  if (created)
    flags &= ~O_TRUNC;
  int r = may_open(ctx, p, &flags, created);
  if (r < 0)
    return r;
  gboolean writer = S_ISREG(i->mode) && (flags & O_ACCMODE) != O_RDONLY,
           trunc = S_ISREG(i->mode) && (flags & O_TRUNC);
  if ((writer || trunc) && (r = tes_inode_get_write(i)) < 0)
    return r;
  if (trunc)
    r = truncate_now(ctx, i);
  TesFile *f = NULL;
  if (r >= 0)
    r = make_file(ctx, i, flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC), &f);
  if (r >= 0) {
    __atomic_fetch_and(&f->flags, ~(guint)O_NOCTTY, __ATOMIC_RELAXED);
    set_place(f, v, p);
    f->writer = writer && f->inode == i; /* the count goes with the description (ETXTBSY) */
    *out = f;
  }
  if ((writer || trunc) && (r < 0 || !f->writer))
    tes_inode_put_write(i);
  return r < 0 ? r : 0;
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
  tes_mutex_lock(&w->pos.d->lock);
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
  if (w->last_kind != LAST_NORM || w->last_slash)
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
  if (!created && S_ISLNK(d_inode(d)->mode) && !(flags & O_NOFOLLOW)) {
    r = v2_walk_link(w, d);
    v2_dentry_unref(d);
    return r < 0 ? r : 1;
  }
  Pos p = {v2_mount_ref(w->pos.mnt), d};
  v2_cross_mounts(w->v, &p);
  if (p.mnt != w->pos.mnt && (w->resolve & 1 /* RESOLVE_NO_XDEV */))
    r = -EXDEV;
  else
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
  if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_CREAT))
    return -EINVAL;
  Walk w;
  int r = v2_walk(&w, v, ctx, at, v2_at_flags(at) | W_DIRECTORY, FALSE);
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
    d_set(d, D_DELETED | ((flags & O_EXCL) ? D_NOLINK : 0));
    Pos p = {v2_mount_ref(w.pos.mnt), d};
    r = open_place(v, ctx, &p, flags & ~(O_TMPFILE | O_EXCL), TRUE, out);
    v2_pos_unref(&p);
  }
  v2_walk_end(&w);
  return r < 0 ? r : 0;
}

int v2_op_open(TesVfs *vfs, TesCtx *ctx, const TesAt *at_in, guint flags, guint32 mode, TesFile **out) {
  V2 *v = v2_of(vfs);
  TesAt at = *at_in;
  if (flags & O_PATH)
    flags &= O_PATH_FLAGS;
  if (flags & O_NOFOLLOW)
    at.flags |= TES_AT_NOFOLLOW;
  if (flags & O_DIRECTORY)
    at.flags |= TES_AT_DIRECTORY;
  if ((flags & O_TMPFILE) == O_TMPFILE)
    return open_tmpfile(v, ctx, &at, flags, mode, out);
  if (flags & O_CREAT)
    return open_create(v, ctx, &at, flags | ((flags & O_EXCL) ? O_NOFOLLOW : 0), mode, out);
  Walk w;
  int r = -ESTALE;
  /* ESTALE: the filesystem lost sight of a cached name; forget it and look once more. */
  for (guint tries = 0; r == -ESTALE && tries < 2; tries++) {
    r = v2_walk(&w, v, ctx, &at, v2_at_flags(&at), FALSE);
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
