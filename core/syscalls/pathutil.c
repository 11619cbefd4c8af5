/* SPDX-License-Identifier: Apache-2.0 */
/* Path arguments: copy, base directory, and the place they name. */
#include <core/syscalls/pathutil.h>
#include <sys/mount.h>

guint tes_at_flags(int flags, gboolean follow_by_default) {
  gboolean follow = follow_by_default ? !(flags & AT_SYMLINK_NOFOLLOW) : (flags & AT_SYMLINK_FOLLOW) != 0;
  return (follow ? 0 : TES_AT_NOFOLLOW) | ((flags & AT_EMPTY_PATH) ? TES_AT_EMPTY : 0) |
         ((flags & AT_NO_AUTOMOUNT) ? TES_AT_NO_AUTOMOUNT : 0);
}

int tes_path_arg(TesTask *t, TesPathArg *p, int dirfd, gulong upath, guint flags) {
  p->at = (TesAt){.path = p->buf, .flags = flags};
  p->file = NULL;
  p->empty = FALSE;
  p->buf[0] = '\0';
  /* A null pointer with AT_EMPTY_PATH is an empty path (Linux 6.11). */
  if (upath || !(flags & TES_AT_EMPTY)) {
    gssize n = tes_copy_in_str(t, p->buf, upath, sizeof p->buf);
    if (n < 0)
      return (int)n;
  }
  if (!p->buf[0]) {
    if (!(flags & TES_AT_EMPTY))
      return -ENOENT;
    p->empty = TRUE;
  }
  if (p->buf[0] == '/' || dirfd == AT_FDCWD)
    return 0;
  p->file = tes_fd_get(t, dirfd);
  if (!p->file)
    return -EBADF;
  if (!p->file->path && !p->empty)
    return -ENOTDIR;
  p->at.base = p->file->path;
  return 0;
}

void tes_path_arg_clear(TesPathArg *p) { g_clear_pointer(&p->file, tes_file_unref); }

int tes_path_arg_resolve(TesTask *t, TesPathArg *p, TesPath **path, TesFile **file) {
  *path = NULL;
  *file = NULL;
  if (p->empty && p->file) {
    if (p->file->path)
      *path = tes_path_ref(p->file->path);
    *file = tes_file_ref(p->file);
    return 0;
  }
  return tes_vfs_walk(tes_task_ctx(t), &p->at, path);
}

/* What an append-only file refuses (ioctl_iflags(2)): anything but the times of now. */
static gboolean changes_more_than_now(const TesSetAttr *s) {
  return (s->valid & (TES_SET_MODE | TES_SET_UID | TES_SET_GID)) ||
         ((s->valid & TES_SET_ATIME) && s->atime.tv_nsec != UTIME_NOW) ||
         ((s->valid & TES_SET_MTIME) && s->mtime.tv_nsec != UTIME_NOW);
}

int tes_path_setattr(TesTask *t, TesPath *p, const TesSetAttr *set) {
  TesInode *i = p->inode;
  if (p->vfs->ops->mount_flags(p) & MS_RDONLY)
    return -EROFS;
  if (((i->flags & TES_INODE_IMMUTABLE) && (set->valid & ~(guint)TES_SET_CTIME)) ||
      ((i->flags & TES_INODE_APPEND_ONLY) && changes_more_than_now(set)))
    return -EPERM;
  int r = TES_HAS(i->ops, setattr) ? i->ops->setattr(i, tes_task_ctx(t), set) : -EPERM;
  if (r >= 0)
    tes_notify_setattr(p, set->valid);
  return r;
}
