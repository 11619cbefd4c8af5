/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that make, remove and read names, and where a process stands: mkdir(2) to rename(2), readlink(2), chdir(2),
 * chroot(2), getcwd(2), umask(2), truncate(2). Interface: tes_sys_path. */
#include <core/file/file.h>
#include <core/syscalls/pathutil.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

/* ---- Making names ---- */

static guint32 masked(TesTask *t, gulong mode) { return tes_ctx_apply_umask(tes_task_ctx(t), (guint32)mode); }

static glong create(TesTask *t, int dirfd, gulong upath, const TesNode *node) {
  TES_PATH_ARG(p);
  TesVfs *v = t->kernel->vfs;
  int r = tes_path_arg(t, &p, dirfd, upath, TES_AT_NOFOLLOW);
  return r < 0 ? r : v->ops->create(v, tes_task_ctx(t), &p.at, node, NULL);
}

static glong do_mkdir(TesTask *t, int dirfd, gulong upath, gulong mode) {
  TesNode n = {.mode = S_IFDIR | (masked(t, mode) & 01777)};
  return create(t, dirfd, upath, &n);
}
static glong sys_mkdir(TesTask *t, const gulong a[6]) { return do_mkdir(t, AT_FDCWD, a[0], a[1]); }
static glong sys_mkdirat(TesTask *t, const gulong a[6]) { return do_mkdir(t, (int)a[0], a[1], a[2]); }

static glong do_mknod(TesTask *t, int dirfd, gulong upath, guint32 mode, gulong dev) {
  guint32 type = mode & S_IFMT;
  if (type == S_IFDIR)
    return -EPERM;
  if (type != 0 && type != S_IFREG && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO &&
      type != S_IFSOCK)
    return -EINVAL;
  TesNode n = {.mode = (type ? type : S_IFREG) | (masked(t, mode) & 07777),
               .rdev = type == S_IFCHR || type == S_IFBLK ? (guint32)dev : 0};
  return create(t, dirfd, upath, &n);
}
static glong sys_mknod(TesTask *t, const gulong a[6]) {
  return do_mknod(t, AT_FDCWD, a[0], (guint32)a[1], a[2]);
}
static glong sys_mknodat(TesTask *t, const gulong a[6]) {
  return do_mknod(t, (int)a[0], a[1], (guint32)a[2], a[3]);
}

static glong do_symlink(TesTask *t, gulong utarget, int dirfd, gulong upath) {
  g_autofree char *target = g_malloc(TES_PATH_MAX);
  gssize n = tes_copy_in_str(t, target, utarget, TES_PATH_MAX);
  if (n <= 0)
    return n < 0 ? n : -ENOENT;
  TesNode node = {.mode = S_IFLNK | 0777, .target = target};
  return create(t, dirfd, upath, &node);
}
static glong sys_symlink(TesTask *t, const gulong a[6]) { return do_symlink(t, a[0], AT_FDCWD, a[1]); }
static glong sys_symlinkat(TesTask *t, const gulong a[6]) { return do_symlink(t, a[0], (int)a[1], a[2]); }

static glong do_link(TesTask *t, int odir, gulong opath, int ndir, gulong npath, int flags) {
  if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
    return -EINVAL;
  TES_PATH_ARG(p);
  g_autoptr(TesPath) old = NULL;
  g_autoptr(TesFile) file = NULL;
  int r = tes_path_arg(t, &p, odir, opath, tes_at_flags(flags, FALSE));
  if (r == 0 && (flags & AT_EMPTY_PATH) && p.file && !tes_task_capable(t, CAP_DAC_READ_SEARCH))
    r = -ENOENT;
  if (r == 0)
    r = tes_path_arg_resolve(t, &p, &old, &file);
  if (r < 0)
    return r;
  if (!old)
    return -EXDEV; /* a pipe or socket: on a filesystem of its own */
  TesNode n = {.link_to = old};
  return create(t, ndir, npath, &n);
}
static glong sys_link(TesTask *t, const gulong a[6]) { return do_link(t, AT_FDCWD, a[0], AT_FDCWD, a[1], 0); }
static glong sys_linkat(TesTask *t, const gulong a[6]) {
  return do_link(t, (int)a[0], a[1], (int)a[2], a[3], (int)a[4]);
}

/* ---- Removing and renaming ---- */

static glong do_remove(TesTask *t, int dirfd, gulong upath, gboolean dir) {
  TES_PATH_ARG(p);
  TesVfs *v = t->kernel->vfs;
  int r = tes_path_arg(t, &p, dirfd, upath, TES_AT_NOFOLLOW);
  return r < 0 ? r : v->ops->remove(v, tes_task_ctx(t), &p.at, dir);
}
static glong sys_unlink(TesTask *t, const gulong a[6]) { return do_remove(t, AT_FDCWD, a[0], FALSE); }
static glong sys_rmdir(TesTask *t, const gulong a[6]) { return do_remove(t, AT_FDCWD, a[0], TRUE); }
static glong sys_unlinkat(TesTask *t, const gulong a[6]) {
  return ((int)a[2] & ~AT_REMOVEDIR) ? -EINVAL : do_remove(t, (int)a[0], a[1], (a[2] & AT_REMOVEDIR) != 0);
}

/* The first path's directory is looked for before the second descriptor is looked at: what is wrong with it, or `r`. */
static int first_parent_error(TesTask *t, const TesPathArg *from, int r) {
  const char *p = from->buf;
  gsize n = strlen(p);
  while (n && p[n - 1] == '/')
    n--;
  while (n && p[n - 1] != '/')
    n--;
  g_autofree char *dir = g_strdup_printf("%.*s.", (int)n, p);
  TesAt at = from->at;
  g_autoptr(TesPath) parent = NULL;
  at.path = dir;
  int e = tes_vfs_walk(tes_task_ctx(t), &at, &parent);
  return e < 0 ? e : r;
}

static glong do_rename(TesTask *t, int odir, gulong opath, int ndir, gulong npath, guint flags) {
  if ((flags & ~(guint)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) ||
      ((flags & RENAME_EXCHANGE) && flags != RENAME_EXCHANGE))
    return -EINVAL;
  TES_PATH_ARG(from);
  TES_PATH_ARG(to);
  TesVfs *v = t->kernel->vfs;
  int r = tes_path_arg(t, &from, odir, opath, TES_AT_NOFOLLOW);
  if (r == 0)
    r = tes_path_arg(t, &to, ndir, npath, TES_AT_NOFOLLOW);
  else
    return r;
  if (r == -EBADF || r == -ENOTDIR)
    return first_parent_error(t, &from, r);
  return r < 0 ? r : v->ops->rename(v, tes_task_ctx(t), &from.at, &to.at, flags);
}
static glong sys_rename(TesTask *t, const gulong a[6]) {
  return do_rename(t, AT_FDCWD, a[0], AT_FDCWD, a[1], 0);
}
static glong sys_renameat(TesTask *t, const gulong a[6]) {
  return do_rename(t, (int)a[0], a[1], (int)a[2], a[3], 0);
}
static glong sys_renameat2(TesTask *t, const gulong a[6]) {
  return do_rename(t, (int)a[0], a[1], (int)a[2], a[3], (guint)a[4]);
}

/* ---- Reading links ---- */

static glong do_readlink(TesTask *t, int dirfd, gulong upath, gulong ubuf, gint size) {
  if (size <= 0)
    return -EINVAL;
  TES_PATH_ARG(p);
  g_autoptr(TesPath) path = NULL;
  g_autoptr(TesFile) file = NULL;
  int r = tes_path_arg(t, &p, dirfd, upath, TES_AT_NOFOLLOW | TES_AT_EMPTY);
  if (r == 0)
    r = p.empty && !p.file ? -ENOENT : tes_path_arg_resolve(t, &p, &path, &file);
  if (r < 0)
    return r;
  TesInode *i = path ? path->inode : NULL;
  if (!i || !S_ISLNK(i->mode) || !TES_HAS(i->ops, readlink))
    return p.empty ? -ENOENT : -EINVAL;
  g_autofree char *text = NULL;
  r = i->ops->readlink(i, tes_task_ctx(t), &text);
  if (r < 0)
    return r;
  gsize n = MIN(strlen(text), (gsize)size);
  return tes_copy_out(t, ubuf, text, n) < 0 ? -EFAULT : (glong)n;
}
static glong sys_readlink(TesTask *t, const gulong a[6]) {
  return do_readlink(t, AT_FDCWD, a[0], a[1], (gint)a[2]);
}
static glong sys_readlinkat(TesTask *t, const gulong a[6]) {
  return do_readlink(t, (int)a[0], a[1], a[2], (gint)a[3]);
}

/* ---- Where a process stands ---- */

static int walk_dir(TesTask *t, gulong upath, TesPath **out) {
  TES_PATH_ARG(p);
  int r = tes_path_arg(t, &p, AT_FDCWD, upath, TES_AT_DIRECTORY);
  if (r == 0)
    r = tes_vfs_walk(tes_task_ctx(t), &p.at, out);
  if (r == 0)
    r = tes_inode_permission((*out)->inode, tes_task_ctx(t), X_OK);
  return r;
}

static glong sys_chdir(TesTask *t, const gulong a[6]) {
  g_autoptr(TesPath) p = NULL;
  int r = walk_dir(t, a[0], &p);
  if (r == 0)
    tes_fsinfo_set_cwd(t->fsinfo, g_steal_pointer(&p));
  return r;
}

static glong sys_fchdir(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  if (!f)
    return -EBADF;
  if (!f->path || !S_ISDIR(f->path->inode->mode))
    return -ENOTDIR;
  int r = tes_inode_permission(f->path->inode, tes_task_ctx(t), X_OK);
  if (r == 0)
    tes_fsinfo_set_cwd(t->fsinfo, tes_path_ref(f->path));
  return r;
}

static glong sys_chroot(TesTask *t, const gulong a[6]) {
  g_autoptr(TesPath) p = NULL;
  int r = walk_dir(t, a[0], &p);
  if (r < 0)
    return r;
  if (!tes_task_capable(t, CAP_SYS_CHROOT))
    return -EPERM;
  tes_fsinfo_set_root(t->fsinfo, g_steal_pointer(&p));
  return 0;
}

static glong sys_getcwd(TesTask *t, const gulong a[6]) {
  g_autoptr(TesPath) cwd = tes_fsinfo_cwd(t->fsinfo);
  if (!cwd)
    return -ENOENT;
  const TesVfsOps *ops = cwd->vfs->ops;
  if (TES_HAS(ops, is_deleted) && ops->is_deleted(cwd))
    return -ENOENT;
  g_autofree char *name = tes_vfs_name(tes_task_ctx(t), cwd);
  gsize n = name ? strlen(name) + 1 : G_MAXSIZE;
  if (n > TES_PATH_MAX)
    return -ENAMETOOLONG;
  if (n > a[1])
    return -ERANGE;
  return tes_copy_out(t, a[0], name, n) < 0 ? -EFAULT : (glong)n;
}

static glong sys_umask(TesTask *t, const gulong a[6]) {
  return tes_fsinfo_set_umask(t->fsinfo, (guint32)a[0]);
}

/* ---- truncate ---- */

static int truncate_place(TesTask *t, TesPath *p, goffset len) {
  TesInode *i = p->inode;
  if (S_ISDIR(i->mode))
    return -EISDIR;
  if (!S_ISREG(i->mode))
    return -EINVAL;
  int r = tes_inode_permission(i, tes_task_ctx(t), W_OK);
  if (r < 0)
    return r;
  if (i->flags & TES_INODE_APPEND_ONLY)
    return -EPERM;
  if (tes_lease_any() && (r = tes_lease_break(i, t, O_WRONLY)) < 0)
    return r;
  guint64 limit = tes_task_rlimit(t, RLIMIT_FSIZE);
  TesAttr attr;
  if ((guint64)len > limit && p->inode->ops->getattr(p->inode, tes_task_ctx(t), &attr) == 0 &&
      (guint64)len > attr.size) {
    tes_file_signal_self(t, SIGXFSZ);
    return -EFBIG;
  }
  TesSetAttr set = {.valid = TES_SET_SIZE | TES_SET_IF_RESIZED, .size = len};
  if (tes_inode_drops_setid(i, tes_task_ctx(t), FALSE, &set.mode))
    set.valid |= TES_SET_MODE;
  if ((r = tes_inode_get_write(i)) < 0)
    return r;
  r = tes_path_setattr(t, p, &set);
  tes_inode_put_write(i);
  return r;
}

static glong sys_truncate(TesTask *t, const gulong a[6]) {
  TES_PATH_ARG(p);
  g_autoptr(TesPath) path = NULL;
  goffset len = (goffset)a[1];
  if (len < 0)
    return -EINVAL;
  int r = tes_path_arg(t, &p, AT_FDCWD, a[0], 0);
  if (r == 0)
    r = tes_vfs_walk(tes_task_ctx(t), &p.at, &path);
  if (r < 0)
    return r;
  return truncate_place(t, path, len);
}

static const TesSyscall rows[] = {
    {SYS_truncate, "truncate", sys_truncate, TES_FULL, NULL, "sd"},
    {SYS_getcwd, "getcwd", sys_getcwd, TES_FULL, NULL, "pu"},
    {SYS_chdir, "chdir", sys_chdir, TES_FULL, NULL, "s"},
    {SYS_fchdir, "fchdir", sys_fchdir, TES_FULL, NULL, "f"},
    {SYS_rename, "rename", sys_rename, TES_FULL, NULL, "ss"},
    {SYS_mkdir, "mkdir", sys_mkdir, TES_FULL, NULL, "so"},
    {SYS_rmdir, "rmdir", sys_rmdir, TES_FULL, NULL, "s"},
    {SYS_link, "link", sys_link, TES_FULL, NULL, "ss"},
    {SYS_unlink, "unlink", sys_unlink, TES_FULL, NULL, "s"},
    {SYS_symlink, "symlink", sys_symlink, TES_FULL, NULL, "ss"},
    {SYS_readlink, "readlink", sys_readlink, TES_FULL, NULL, "spu"},
    {SYS_umask, "umask", sys_umask, TES_FULL, NULL, "o"},
    {SYS_mknod, "mknod", sys_mknod, TES_FULL, NULL, "sox"},
    {SYS_chroot, "chroot", sys_chroot, TES_FULL, NULL, "s"},
    {SYS_mkdirat, "mkdirat", sys_mkdirat, TES_FULL, NULL, "aso"},
    {SYS_mknodat, "mknodat", sys_mknodat, TES_FULL, NULL, "asox"},
    {SYS_unlinkat, "unlinkat", sys_unlinkat, TES_FULL, NULL, "asx"},
    {SYS_renameat, "renameat", sys_renameat, TES_FULL, NULL, "asas"},
    {SYS_linkat, "linkat", sys_linkat, TES_FULL, NULL, "asasx"},
    {SYS_symlinkat, "symlinkat", sys_symlinkat, TES_FULL, NULL, "sas"},
    {SYS_readlinkat, "readlinkat", sys_readlinkat, TES_FULL, NULL, "aspu"},
    {SYS_renameat2, "renameat2", sys_renameat2, TES_PARTIAL, "RENAME_WHITEOUT on tmpfs only", "asasx"},
};

const TesSyscallTable tes_sys_path = TES_ROWS(rows);
