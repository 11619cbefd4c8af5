/* SPDX-License-Identifier: Apache-2.0 */
/* Inode flags of tmpfs: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_IOC_FSGETXATTR (ioctl_iflags(2)), as chattr(1) uses them. */
#include "tmpfs.h"
#include <linux/capability.h>

#define SETTABLE (FS_APPEND_FL | FS_IMMUTABLE_FL | FS_NODUMP_FL | FS_NOATIME_FL)
#define GUARDED (FS_APPEND_FL | FS_IMMUTABLE_FL) /* CAP_LINUX_IMMUTABLE */

static glong set_flags(TesFile *f, TesTask *t, guint32 flags) {
  Node *n = node_of(f->inode);
  if (f->path && (f->path->vfs->ops->mount_flags(f->path) & MS_RDONLY))
    return -EROFS;
  if (!tes_inode_owner_or_capable(&n->inode, tes_task_ctx(t)))
    return -EPERM;
  TES_LOCKED(&n->lock);
  if (((flags ^ n->fsflags) & GUARDED) && !tes_task_capable(t, CAP_LINUX_IMMUTABLE))
    return -EPERM;
  if (flags & ~(guint32)SETTABLE)
    return -EOPNOTSUPP;
  n->fsflags = flags;
  g_atomic_int_and(&n->inode.flags, ~(guint)(TES_INODE_APPEND_ONLY | TES_INODE_IMMUTABLE));
  g_atomic_int_or(&n->inode.flags, ((flags & FS_APPEND_FL) ? TES_INODE_APPEND_ONLY : 0) |
                                       ((flags & FS_IMMUTABLE_FL) ? TES_INODE_IMMUTABLE : 0));
  node_now(n, &n->ctime);
  return 0;
}

static guint32 xflags_of(guint32 flags) {
  return ((flags & FS_APPEND_FL) ? FS_XFLAG_APPEND : 0) |
         ((flags & FS_IMMUTABLE_FL) ? FS_XFLAG_IMMUTABLE : 0) |
         ((flags & FS_NODUMP_FL) ? FS_XFLAG_NODUMP : 0) | ((flags & FS_NOATIME_FL) ? FS_XFLAG_NOATIME : 0);
}

/* The C type of the commands is long, but int is what moves. */
glong tmpfs_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  Node *n = node_of(f->inode);
  guint32 flags = n->fsflags;
  struct fsxattr x = {.fsx_xflags = xflags_of(flags)};
  switch (cmd) {
  case FS_IOC_GETFLAGS:
    return tes_copy_out(t, arg, &flags, sizeof flags);
  case FS_IOC_SETFLAGS:
    return tes_copy_in(t, &flags, arg, sizeof flags) < 0 ? -EFAULT : set_flags(f, t, flags);
  case FS_IOC_FSGETXATTR:
    return tes_copy_out(t, arg, &x, sizeof x);
  case FS_IOC_FSSETXATTR:
    return tes_copy_in(t, &x, arg, sizeof x) < 0 ? -EFAULT : -EOPNOTSUPP;
  default:
    return -ENOTTY;
  }
}
