/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes: xattr(7), getxattr(2), setxattr(2), listxattr(2), removexattr(2). Interface: tes_sys_xattr. */
#include <core/syscalls/pathutil.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#define NAME_MAX_ 255
#define SIZE_MAX_ 65536
#define LIST_MAX_ 65536
#define FILE_CAPS "security.capability"

/* How a call names its file. */
typedef enum { BY_PATH, BY_LINK, BY_FD } How;

static int target(TesTask *t, How how, gulong arg, TesPath **out) {
  if (how == BY_FD) {
    g_autoptr(TesFile) f = tes_fd_get(t, (int)arg);
    if (!f || (f->flags & O_PATH))
      return -EBADF;
    if (!f->path)
      return -EOPNOTSUPP;
    *out = tes_path_ref(f->path);
    return 0;
  }
  TES_PATH_ARG(p);
  int r = tes_path_arg(t, &p, AT_FDCWD, arg, how == BY_LINK ? TES_AT_NOFOLLOW : 0);
  return r < 0 ? r : tes_vfs_walk(tes_task_ctx(t), &p.at, out);
}

static int copy_name(TesTask *t, char *name, gulong uname) {
  gssize n = tes_copy_in_str(t, name, uname, NAME_MAX_ + 1);
  if (n == -ENAMETOOLONG || n == 0)
    return -ERANGE;
  return n < 0 ? (int)n : 0;
}

/* Each namespace has its own rule (xattr(7)). An unknown one is as the contents, until the filesystem refuses it. */
static int may_access(TesTask *t, TesInode *i, const char *name, gboolean write) {
  TesCtx *ctx = tes_task_ctx(t);
  if (write && (i->flags & (TES_INODE_IMMUTABLE | TES_INODE_APPEND_ONLY)))
    return -EPERM;
  if (g_str_has_prefix(name, "security.")) {
    int cap = g_str_equal(name, FILE_CAPS) ? CAP_SETFCAP : CAP_SYS_ADMIN;
    return !write || tes_task_capable(t, cap) ? 0 : -EPERM;
  }
  if (g_str_has_prefix(name, "system."))
    return 0; /* access lists: the filesystem asks tes_inode_may_set_acl() */
  if (g_str_has_prefix(name, "trusted."))
    return tes_task_capable(t, CAP_SYS_ADMIN) ? 0 : write ? -EPERM : -ENODATA;
  if (g_str_has_prefix(name, "user.")) {
    if (!S_ISREG(i->mode) && !S_ISDIR(i->mode))
      return write ? -EPERM : -ENODATA;
    if (write && S_ISDIR(i->mode) && (i->mode & S_ISVTX) && !tes_inode_owner_or_capable(i, ctx))
      return -EPERM;
  }
  return tes_inode_permission(i, ctx, write ? W_OK : R_OK);
}

/* capabilities(7): the forms a file's capabilities may have, <linux/capability.h>. */
static gboolean valid_caps(const void *value, gsize size) {
  guint32 magic;
  if (size < sizeof magic)
    return FALSE;
  memcpy(&magic, value, sizeof magic);
  magic = GUINT32_FROM_LE(magic) & VFS_CAP_REVISION_MASK;
  return (magic == VFS_CAP_REVISION_2 && size == XATTR_CAPS_SZ_2) ||
         (magic == VFS_CAP_REVISION_3 && size == XATTR_CAPS_SZ_3);
}

static int may_change(TesTask *t, TesPath *p, const char *name) {
  return (p->vfs->ops->mount_flags(p) & MS_RDONLY) ? -EROFS : may_access(t, p->inode, name, TRUE);
}

static glong do_set(TesTask *t, How how, const gulong a[6]) {
  char name[NAME_MAX_ + 1];
  int flags = (int)a[4];
  if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
    return -EINVAL;
  int r = copy_name(t, name, a[1]);
  if (r < 0)
    return r;
  if (a[3] > SIZE_MAX_)
    return -E2BIG;
  g_autofree char *value = g_malloc(MAX(a[3], 1));
  if (a[3] && tes_copy_in(t, value, a[2], a[3]) < 0)
    return -EFAULT;
  g_autoptr(TesPath) p = NULL;
  r = target(t, how, a[0], &p);
  if (r == 0 && a[3] && g_str_equal(name, FILE_CAPS) && !valid_caps(value, a[3]))
    r = -EINVAL;
  if (r == 0)
    r = may_change(t, p, name);
  if (r < 0)
    return r;
  r = TES_HAS(p->inode->ops, setxattr)
          ? p->inode->ops->setxattr(p->inode, tes_task_ctx(t), name, value, a[3], flags)
          : -EOPNOTSUPP;
  if (r >= 0)
    tes_notify_path(p, IN_ATTRIB);
  return r;
}

static glong do_get(TesTask *t, How how, const gulong a[6]) {
  char name[NAME_MAX_ + 1];
  int r = copy_name(t, name, a[1]);
  if (r < 0)
    return r;
  g_autoptr(TesPath) p = NULL;
  r = target(t, how, a[0], &p);
  if (r == 0)
    r = may_access(t, p->inode, name, FALSE);
  if (r < 0)
    return r;
  if (!TES_HAS(p->inode->ops, getxattr))
    return -EOPNOTSUPP;
  gsize size = MIN(a[3], SIZE_MAX_);
  g_autofree char *value = g_malloc(MAX(size, 1));
  gssize n = p->inode->ops->getxattr(p->inode, tes_task_ctx(t), name, value, size);
  if (n > 0 && size && tes_copy_out(t, a[2], value, (gsize)n) < 0)
    return -EFAULT;
  return n;
}

/* Without CAP_SYS_ADMIN the trusted ones are not listed. */
static gsize drop_trusted(char *list, gsize n) {
  gsize kept = 0;
  for (gsize at = 0; at < n;) {
    gsize len = strnlen(list + at, n - at) + 1;
    if (!g_str_has_prefix(list + at, "trusted.")) {
      memmove(list + kept, list + at, MIN(len, n - at));
      kept += len;
    }
    at += len;
  }
  return kept;
}

static glong do_list(TesTask *t, How how, const gulong a[6]) {
  g_autoptr(TesPath) p = NULL;
  int r = target(t, how, a[0], &p);
  if (r < 0)
    return r;
  if (!TES_HAS(p->inode->ops, listxattr))
    return 0;
  g_autofree char *list = g_malloc(LIST_MAX_);
  gssize n = p->inode->ops->listxattr(p->inode, tes_task_ctx(t), list, LIST_MAX_);
  if (n < 0)
    return n == -ERANGE ? -E2BIG : n;
  if (!tes_task_capable(t, CAP_SYS_ADMIN))
    n = (gssize)drop_trusted(list, (gsize)n);
  if (a[2] == 0)
    return n;
  if ((gulong)n > a[2])
    return -ERANGE;
  return n && tes_copy_out(t, a[1], list, (gsize)n) < 0 ? -EFAULT : n;
}

static glong do_remove(TesTask *t, How how, const gulong a[6]) {
  char name[NAME_MAX_ + 1];
  int r = copy_name(t, name, a[1]);
  if (r < 0)
    return r;
  g_autoptr(TesPath) p = NULL;
  r = target(t, how, a[0], &p);
  if (r == 0)
    r = may_change(t, p, name);
  if (r < 0)
    return r;
  r = TES_HAS(p->inode->ops, removexattr) ? p->inode->ops->removexattr(p->inode, tes_task_ctx(t), name)
                                          : -EOPNOTSUPP;
  if (r >= 0)
    tes_notify_path(p, IN_ATTRIB);
  return r;
}

static glong sys_setxattr(TesTask *t, const gulong a[6]) { return do_set(t, BY_PATH, a); }
static glong sys_lsetxattr(TesTask *t, const gulong a[6]) { return do_set(t, BY_LINK, a); }
static glong sys_fsetxattr(TesTask *t, const gulong a[6]) { return do_set(t, BY_FD, a); }
static glong sys_getxattr(TesTask *t, const gulong a[6]) { return do_get(t, BY_PATH, a); }
static glong sys_lgetxattr(TesTask *t, const gulong a[6]) { return do_get(t, BY_LINK, a); }
static glong sys_fgetxattr(TesTask *t, const gulong a[6]) { return do_get(t, BY_FD, a); }
static glong sys_listxattr(TesTask *t, const gulong a[6]) { return do_list(t, BY_PATH, a); }
static glong sys_llistxattr(TesTask *t, const gulong a[6]) { return do_list(t, BY_LINK, a); }
static glong sys_flistxattr(TesTask *t, const gulong a[6]) { return do_list(t, BY_FD, a); }
static glong sys_removexattr(TesTask *t, const gulong a[6]) { return do_remove(t, BY_PATH, a); }
static glong sys_lremovexattr(TesTask *t, const gulong a[6]) { return do_remove(t, BY_LINK, a); }
static glong sys_fremovexattr(TesTask *t, const gulong a[6]) { return do_remove(t, BY_FD, a); }

static const TesSyscall rows[] = {
    {SYS_setxattr, "setxattr", sys_setxattr, TES_FULL, NULL, "sspux"},
    {SYS_lsetxattr, "lsetxattr", sys_lsetxattr, TES_FULL, NULL, "sspux"},
    {SYS_fsetxattr, "fsetxattr", sys_fsetxattr, TES_FULL, NULL, "fspux"},
    {SYS_getxattr, "getxattr", sys_getxattr, TES_FULL, NULL, "sspu"},
    {SYS_lgetxattr, "lgetxattr", sys_lgetxattr, TES_FULL, NULL, "sspu"},
    {SYS_fgetxattr, "fgetxattr", sys_fgetxattr, TES_FULL, NULL, "fspu"},
    {SYS_listxattr, "listxattr", sys_listxattr, TES_FULL, NULL, "spu"},
    {SYS_llistxattr, "llistxattr", sys_llistxattr, TES_FULL, NULL, "spu"},
    {SYS_flistxattr, "flistxattr", sys_flistxattr, TES_FULL, NULL, "fpu"},
    {SYS_removexattr, "removexattr", sys_removexattr, TES_FULL, NULL, "ss"},
    {SYS_lremovexattr, "lremovexattr", sys_lremovexattr, TES_FULL, NULL, "ss"},
    {SYS_fremovexattr, "fremovexattr", sys_fremovexattr, TES_FULL, NULL, "fs"},
};

const TesSyscallTable tes_sys_xattr = TES_ROWS(rows);
