/* SPDX-License-Identifier: Apache-2.0 */
/* open(2), openat2(2), from the inode on: checks, truncation, the description. */
#include "rules.h"
#include <linux/capability.h>
#include <sys/mount.h>

#define O_PATH_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

guint rules_open_flags(guint flags, TesAt *at) {
  if (flags & O_PATH)
    flags &= O_PATH_FLAGS;
  if (flags & O_NOFOLLOW)
    at->flags |= TES_AT_NOFOLLOW;
  if (flags & O_DIRECTORY)
    at->flags |= TES_AT_DIRECTORY;
  return flags;
}

int rules_tmpfile_flags(guint flags) {
  return (flags & O_ACCMODE) == O_RDONLY || (flags & O_CREAT) ? -EINVAL : 0;
}

/* ---- O_PATH ---- */

static void path_file_release(TesFile *f) { g_free(f); }
static const TesFileOps path_file_ops = {.size = sizeof(TesFileOps),
                                         .name = "path",
                                         .flags = TES_FILE_NO_READ_WRITE,
                                         .release = path_file_release};

static int open_o_path(TesCtx *ctx, TesInode *i, guint flags, TesFile **out) {
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, ctx->kernel, &path_file_ops, flags & O_PATH_FLAGS & ~O_CLOEXEC);
  f->inode = tes_inode_ref(i);
  *out = f;
  return 0;
}

/* ---- Checks ---- */

static guint access_mask(guint flags) {
  static const guint by_mode[] = {R_OK, W_OK, R_OK | W_OK, R_OK | W_OK};
  return by_mode[flags & O_ACCMODE] | ((flags & O_TRUNC) ? W_OK : 0);
}

static int may_open(TesCtx *ctx, TesInode *i, gulong mount_flags, guint *flags, gboolean created) {
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
    if (mount_flags & MS_NODEV)
      return -EACCES;
    G_GNUC_FALLTHROUGH;
  case S_IFIFO:
  case S_IFSOCK:
    *flags &= ~O_TRUNC; /* the permission to write that it asks for is needed all the same */
    break;
  default:
    if ((mask & W_OK) && (mount_flags & MS_RDONLY))
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
  if (tes_inode_drops_setid(i, ctx, FALSE, &set.mode))
    set.valid |= TES_SET_MODE;
  return TES_HAS(i->ops, setattr) ? i->ops->setattr(i, ctx, &set) : -EPERM;
}

static int make_file(TesCtx *ctx, TesInode *i, guint flags, TesFile **out) {
  if (S_ISSOCK(i->mode))
    return -ENXIO;
  if (S_ISFIFO(i->mode))
    return tes_fifo_open(i, ctx, flags, out);
  int r = TES_HAS(i->ops, open) ? i->ops->open(i, ctx, flags, out) : -ENXIO;
  return r == -ENXIO && (S_ISCHR(i->mode) || S_ISBLK(i->mode)) ? tes_device_open(i, ctx, flags, out) : r;
}

int rules_open(TesCtx *ctx, TesInode *i, gulong mount_flags, guint flags, gboolean created, TesFile **out) {
  if (flags & O_PATH)
    return open_o_path(ctx, i, flags, out);
  if (created)
    flags &= ~O_TRUNC;
  int r = may_open(ctx, i, mount_flags, &flags, created);
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
    if (!f->inode)
      f->inode = tes_inode_ref(i);
    f->writer = writer && f->inode == i; /* the count goes with the description (ETXTBSY) */
    *out = f;
  }
  if ((writer || trunc) && (r < 0 || !f->writer))
    tes_inode_put_write(i);
  return r < 0 ? r : 0;
}

void rules_tell_open(TesFile *f, guint flags, gboolean created) {
  if (!tes_notify_on() || (flags & O_PATH))
    return;
  tes_notify_file(f, IN_OPEN);
  if ((flags & O_TRUNC) && !created && S_ISREG(f->inode->mode))
    tes_notify_file(f, IN_MODIFY);
}
