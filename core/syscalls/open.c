/* SPDX-License-Identifier: Apache-2.0 */
/* open(2), openat2(2), creat(2), access(2), memfd_create(2). Interface: tes_sys_open. */
#include <core/file/file.h>
#include <core/syscalls/pathutil.h>
#include <linux/capability.h>
#include <linux/memfd.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#define KERNEL_O_LARGEFILE 0100000u /* 0 in the C library's header for x86-64; F_GETFL shows it */

/* Leases are broken before the file is opened, and truncated. Whoever may not open it cannot break one. */
static int break_leases(TesTask *t, const TesAt *open_at, guint flags) {
  static const guint masks[] = {R_OK, W_OK, R_OK | W_OK, R_OK | W_OK};
  TesAt at = *open_at;
  g_autoptr(TesPath) path = NULL;
  if (flags & O_NOFOLLOW)
    at.flags |= TES_AT_NOFOLLOW;
  if ((flags & O_PATH) || tes_vfs_walk(tes_task_ctx(t), &at, &path) < 0 || !S_ISREG(path->inode->mode) ||
      tes_inode_permission(path->inode, tes_task_ctx(t), masks[flags & O_ACCMODE]) < 0)
    return 0;
  return tes_lease_break(path->inode, t, flags);
}

static glong open_common(TesTask *t, int dirfd, gulong upath, guint flags, guint32 mode, guint64 resolve) {
  TES_PATH_ARG(p);
  if ((flags & (O_CREAT | O_DIRECTORY)) == (O_CREAT | O_DIRECTORY) && !(flags & O_PATH))
    return -EINVAL; /* since Linux 6.4, also with the bits of O_TMPFILE */
  int r = tes_path_arg(t, &p, dirfd, upath, 0);
  if (r < 0)
    return r;
  p.at.resolve = resolve;
  if ((resolve & RESOLVE_BENEATH) && p.buf[0] == '/')
    return -EXDEV; /* whatever the descriptor is */
  if ((resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) && dirfd != AT_FDCWD && !p.file) {
    p.file = tes_fd_get(t, dirfd); /* scoped: the descriptor matters for an absolute path too */
    if (!p.file || !p.file->path)
      return p.file ? -ENOTDIR : -EBADF;
    p.at.base = p.file->path;
  }
  TesFile *f = NULL;
  mode = tes_ctx_apply_umask(tes_task_ctx(t), mode & 07777);
  if (G_UNLIKELY(tes_lease_any()) && (r = break_leases(t, &p.at, flags)) < 0)
    return r;
  r = tes_vfs_open(tes_task_ctx(t), &p.at, flags, mode, &f);
  return r < 0 ? r : tes_fd_give(t, f, (flags & O_CLOEXEC) != 0);
}

static glong sys_open(TesTask *t, const gulong a[6]) {
  return open_common(t, AT_FDCWD, a[0], (guint)a[1] | KERNEL_O_LARGEFILE, (guint32)a[2], 0);
}
static glong sys_openat(TesTask *t, const gulong a[6]) {
  return open_common(t, (int)a[0], a[1], (guint)a[2] | KERNEL_O_LARGEFILE, (guint32)a[3], 0);
}
static glong sys_creat(TesTask *t, const gulong a[6]) {
  return open_common(t, AT_FDCWD, a[0], O_CREAT | O_WRONLY | O_TRUNC | KERNEL_O_LARGEFILE, (guint32)a[1], 0);
}

#define OPEN_KNOWN                                                                                           \
  (O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC | O_SYNC | O_ASYNC |  \
   O_DIRECT | O_LARGEFILE | KERNEL_O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH | \
   O_TMPFILE)
#define RESOLVE_KNOWN                                                                                  \
  (RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT | \
   RESOLVE_CACHED)

/* Unlike open(2), openat2(2) refuses what it does not know. */
static int check_how(const struct open_how *how) {
  gboolean creates = (how->flags & O_CREAT) || (how->flags & O_TMPFILE) == O_TMPFILE;
  if ((how->flags & ~(guint64)OPEN_KNOWN) || (how->resolve & ~(guint64)RESOLVE_KNOWN))
    return -EINVAL;
  if ((how->resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) == (RESOLVE_BENEATH | RESOLVE_IN_ROOT))
    return -EINVAL;
  if (creates ? (how->mode & ~07777ULL) != 0 : how->mode != 0)
    return -EINVAL;
  if ((how->flags & O_PATH) && (how->flags & ~(guint64)(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)))
    return -EINVAL;
  if ((how->flags & O_TMPFILE & ~O_DIRECTORY) && (how->flags & O_TMPFILE) != O_TMPFILE)
    return -EINVAL;
  if ((how->resolve & RESOLVE_CACHED) && (creates || (how->flags & O_TRUNC)))
    return -EAGAIN;
  return 0;
}

static glong sys_openat2(TesTask *t, const gulong a[6]) {
  struct open_how how = {0};
  gulong size = a[3];
  guchar page[TES_PAGE_SIZE];
  if (size < sizeof how)
    return -EINVAL;
  if (size > sizeof page)
    return -E2BIG;
  int r = tes_copy_in(t, page, a[2], size);
  if (r < 0)
    return r;
  for (gulong i = sizeof how; i < size; i++)
    if (page[i])
      return -E2BIG;
  memcpy(&how, page, sizeof how);
  r = check_how(&how);
  if (r < 0)
    return r;
  guint flags = (guint)how.flags | (how.flags & O_PATH ? 0 : KERNEL_O_LARGEFILE);
  return open_common(t, (int)a[0], a[1], flags, (guint32)how.mode, how.resolve);
}

/* ---- access ---- */

/* access(2) asks for the real ids: credentials with them in the place of the filesystem ids. NULL: they are the same. */
static TesCred *real_cred(TesTask *t) {
  TesCred *c = t->cred;
  guint64 caps = c->uid == 0 ? c->cap_permitted : 0;
  if (c->fsuid == c->uid && c->fsgid == c->gid && c->cap_effective == caps)
    return NULL;
  TesCred *n = tes_cred_copy(c);
  n->fsuid = n->uid;
  n->fsgid = n->gid;
  n->cap_effective = caps;
  return n;
}

static TesCred *swap_cred(TesTask *t, TesCred *c) {
  TES_LOCKED(&t->lock);
  TesCred *old = t->cred;
  t->cred = c;
  return old;
}

static int access_place(TesTask *t, TesPath *p, guint mask) {
  gulong mount = p->vfs->ops->mount_flags(p);
  guint32 type = p->inode->mode & S_IFMT;
  if (!mask)
    return 0;
  if ((mask & X_OK) && type == S_IFREG && (mount & MS_NOEXEC))
    return -EACCES;
  int r = tes_inode_permission(p->inode, tes_task_ctx(t), mask);
  if (r == 0 && (mask & W_OK) && (mount & MS_RDONLY) &&
      (type == S_IFREG || type == S_IFDIR || type == S_IFLNK))
    r = -EROFS;
  return r;
}

static glong access_common(TesTask *t, int dirfd, gulong upath, gulong mode, int flags) {
  if ((mode & ~7UL) || (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)))
    return -EINVAL;
  TES_PATH_ARG(p);
  int r = tes_path_arg(t, &p, dirfd, upath, tes_at_flags(flags, TRUE));
  if (r < 0)
    return r;
  TesCred *real = (flags & AT_EACCESS) ? NULL : real_cred(t), *own = NULL;
  if (real)
    own = swap_cred(t, real);
  g_autoptr(TesPath) path = NULL;
  g_autoptr(TesFile) file = NULL;
  r = tes_path_arg_resolve(t, &p, &path, &file);
  if (r == 0 && path)
    r = access_place(t, path, (guint)mode);
  if (real)
    tes_cred_unref(swap_cred(t, own));
  return r;
}

static glong sys_access(TesTask *t, const gulong a[6]) {
  return access_common(t, AT_FDCWD, a[0], a[1] & G_MAXUINT32, 0);
}
static glong sys_faccessat(TesTask *t, const gulong a[6]) {
  return access_common(t, (int)a[0], a[1], a[2] & G_MAXUINT32, 0);
}
static glong sys_faccessat2(TesTask *t, const gulong a[6]) {
  return access_common(t, (int)a[0], a[1], a[2] & G_MAXUINT32, (int)a[3]);
}

/* ---- Handles: no filesystem here has any; the arguments are checked all the same ---- */

static glong sys_name_to_handle_at(TesTask *t, const gulong a[6]) {
  enum { MNT_ID_UNIQUE = 1, CONNECTABLE = 2, FID = 0x200 };
  int flags = (int)a[4];
  if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | MNT_ID_UNIQUE | CONNECTABLE | FID))
    return -EINVAL;
  TES_PATH_ARG(p);
  g_autoptr(TesPath) path = NULL;
  g_autoptr(TesFile) file = NULL;
  int r =
      tes_path_arg(t, &p, (int)a[0], a[1], tes_at_flags(flags & (AT_SYMLINK_FOLLOW | AT_EMPTY_PATH), FALSE));
  if (r == 0)
    r = tes_path_arg_resolve(t, &p, &path, &file);
  return r < 0 ? r : -EOPNOTSUPP;
}

static glong sys_open_by_handle_at(TesTask *t, const gulong a[6]) {
  guint32 head[2]; /* handle_bytes, handle_type */
  g_autoptr(TesFile) f = (int)a[0] == AT_FDCWD ? NULL : tes_fd_get(t, (int)a[0]);
  if (!f && (int)a[0] != AT_FDCWD)
    return -EBADF;
  if (!tes_task_capable(t, CAP_DAC_READ_SEARCH))
    return -EPERM;
  if (tes_copy_in(t, head, a[1], sizeof head) < 0)
    return -EFAULT;
  return head[0] == 0 || head[0] > 128 /* MAX_HANDLE_SZ */ ? -EINVAL : -ESTALE;
}

/* ---- memfd_create ---- */

/* The kernel's own tmpfs, made at first use (W5): NULL without such a filesystem. tes_kernel_free() gives it back. */
static TesSuper *memfd_super(TesTask *t) {
  TesKernel *k = t->kernel;
  TesSuper *s = g_atomic_pointer_get(&k->memfd_super);
  if (s || tes_fs_new_super(tes_task_ctx(t), "tmpfs", "memfd", NULL, 0, &s) < 0)
    return s;
  tes_super_activate(s);
  if (g_atomic_pointer_compare_and_exchange(&k->memfd_super, NULL, s))
    return s;
  tes_super_deactivate(s);
  tes_super_unref(s);
  return g_atomic_pointer_get(&k->memfd_super);
}

#define MEMFD_NAME_MAX 249
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#define MFD_EXEC 16U
#endif

static int memfd_open(TesTask *t, TesSuper *s, const char *name, guint flags, TesFile **out) {
  TesCtx *ctx = tes_task_ctx(t);
  TesVfs *v = t->kernel->vfs;
  g_autoptr(TesInode) i = NULL;
  g_autoptr(TesPath) path = NULL;
  guint32 mode = (flags & MFD_NOEXEC_SEAL) ? 0666 : 0777;
  int r = TES_HAS(s->root->ops, tmpfile) ? s->root->ops->tmpfile(s->root, ctx, S_IFREG | mode, &i) : -ENOSYS;
  if (r == 0 && !(path = v->ops->anon_path(v, ctx, i, name)))
    r = -ENOMEM;
  if (r == 0)
    r = v->ops->open_path(v, ctx, path, O_RDWR | KERNEL_O_LARGEFILE, out);
  if (r < 0)
    return r;
  guint seals = (flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL)) ? 0 : F_SEAL_SEAL;
  if (flags & MFD_NOEXEC_SEAL)
    seals |= 0x20; /* F_SEAL_EXEC */
  if (TES_HAS((*out)->ops, seals))
    (*out)->ops->seals(*out, ctx, TES_SEALS_RESET, seals);
  return 0;
}

static glong sys_memfd_create(TesTask *t, const gulong a[6]) {
  char name[MEMFD_NAME_MAX + 8] = "memfd:";
  guint flags = (guint)a[1];
  if (flags & ~(guint)(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC))
    return -EINVAL; /* MFD_HUGETLB too: there are no huge pages */
  if ((flags & MFD_NOEXEC_SEAL) && (flags & MFD_EXEC))
    return -EINVAL;
  gssize n = tes_copy_in_str(t, name + 6, a[0], MEMFD_NAME_MAX + 1);
  if (n < 0)
    return n == -ENAMETOOLONG ? -EINVAL : n;
  TesSuper *s = memfd_super(t);
  if (!s)
    return -ENOSYS;
  TesFile *f = NULL;
  int r = memfd_open(t, s, name, flags, &f);
  return r < 0 ? r : tes_fd_give(t, f, (flags & MFD_CLOEXEC) != 0);
}

static const TesSyscall rows[] = {
    {SYS_open, "open", sys_open, TES_FULL, NULL, "sOo"},
    {SYS_access, "access", sys_access, TES_FULL, NULL, "so"},
    {SYS_creat, "creat", sys_creat, TES_FULL, NULL, "so"},
    {SYS_openat, "openat", sys_openat, TES_FULL, NULL, "asOo"},
    {SYS_faccessat, "faccessat", sys_faccessat, TES_FULL, NULL, "aso"},
    {SYS_name_to_handle_at, "name_to_handle_at", sys_name_to_handle_at, TES_PARTIAL,
     "no filesystem here has handles: EOPNOTSUPP", "asppx"},
    {SYS_open_by_handle_at, "open_by_handle_at", sys_open_by_handle_at, TES_PARTIAL,
     "no filesystem here has handles: ESTALE", "fpO"},
    {SYS_memfd_create, "memfd_create", sys_memfd_create, TES_PARTIAL, "no huge pages", "sx"},
    {SYS_openat2, "openat2", sys_openat2, TES_FULL, NULL, "aspu"},
    {SYS_faccessat2, "faccessat2", sys_faccessat2, TES_FULL, NULL, "asox"},
};

const TesSyscallTable tes_sys_open = TES_ROWS(rows);
