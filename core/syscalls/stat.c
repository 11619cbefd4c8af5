/* SPDX-License-Identifier: Apache-2.0 */
/* Asking about files: stat(2), statx(2), statfs(2). Interface: tes_sys_stat. */
#include <core/syscalls/pathutil.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

/* ---- stat ---- */

static glong put_stat(TesTask *t, gulong ustat, const TesAttr *a) {
  struct stat s;
  memset(&s, 0, sizeof s);
  s.st_dev = a->dev;
  s.st_ino = a->ino;
  s.st_nlink = a->nlink;
  s.st_mode = a->mode;
  s.st_uid = a->uid;
  s.st_gid = a->gid;
  s.st_rdev = a->rdev;
  s.st_size = (off_t)a->size;
  s.st_blksize = a->blksize;
  s.st_blocks = (blkcnt_t)a->blocks;
  s.st_atim = a->atime;
  s.st_mtim = a->mtime;
  s.st_ctim = a->ctime;
  return tes_copy_out(t, ustat, &s, sizeof s);
}

static void add_mount(TesAttr *a, TesPath *p) {
  const TesVfsOps *ops = p->vfs->ops;
  tes_attr_set_place(a, ops->mount_id(p), TES_HAS(ops, is_mount_root) && ops->is_mount_root(p));
}

/* Attributes of a place without making a path of it, where the generation can. */
static int getattr_at(TesTask *t, const TesAt *at, TesAttr *a) {
  TesVfs *v = t->kernel->vfs;
  TesCtx *ctx = tes_task_ctx(t);
  if (TES_HAS(v->ops, getattr))
    return v->ops->getattr(v, ctx, at, a);
  g_autoptr(TesPath) p = NULL;
  int r = v->ops->walk(v, ctx, at, &p);
  if (r == 0 && (r = p->inode->ops->getattr(p->inode, ctx, a)) == 0)
    add_mount(a, p);
  return r;
}

static int attr_of(TesTask *t, int dirfd, gulong upath, guint flags, TesAttr *a) {
  TES_PATH_ARG(p);
  int r = tes_path_arg(t, &p, dirfd, upath, flags);
  if (r < 0)
    return r;
  return p.empty && p.file ? tes_file_getattr(p.file, tes_task_ctx(t), a) : getattr_at(t, &p.at, a);
}

static glong do_stat(TesTask *t, int dirfd, gulong upath, guint flags, gulong ustat) {
  TesAttr a;
  int r = attr_of(t, dirfd, upath, flags, &a);
  return r < 0 ? r : put_stat(t, ustat, &a);
}
static glong sys_stat(TesTask *t, const gulong a[6]) { return do_stat(t, AT_FDCWD, a[0], 0, a[1]); }
static glong sys_lstat(TesTask *t, const gulong a[6]) {
  return do_stat(t, AT_FDCWD, a[0], TES_AT_NOFOLLOW, a[1]);
}

static glong sys_newfstatat(TesTask *t, const gulong a[6]) {
  int flags = (int)a[3];
  if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH))
    return -EINVAL;
  return do_stat(t, (int)a[0], a[1], tes_at_flags(flags, TRUE), a[2]);
}

static glong sys_fstat(TesTask *t, const gulong a[6]) {
  g_auto(TesFdLoan) l = tes_fd_borrow(t, (int)a[0]);
  TesAttr attr;
  if (!l.file)
    return -EBADF;
  int r = tes_file_getattr(l.file, tes_task_ctx(t), &attr);
  return r < 0 ? r : put_stat(t, a[1], &attr);
}

/* ---- statx ---- */

static struct statx_timestamp stamp(const struct timespec *ts) {
  return (struct statx_timestamp){.tv_sec = ts->tv_sec, .tv_nsec = (guint32)ts->tv_nsec};
}

static void fill_statx(struct statx *x, const TesAttr *a) {
  memset(x, 0, sizeof *x);
  x->stx_mask = STATX_BASIC_STATS;
  x->stx_blksize = a->blksize;
  x->stx_attributes = a->attributes;
  x->stx_attributes_mask = STATX_ATTR_APPEND | STATX_ATTR_IMMUTABLE | TES_ATTR_MOUNT_ROOT;
  x->stx_nlink = a->nlink;
  x->stx_uid = a->uid;
  x->stx_gid = a->gid;
  x->stx_mode = (guint16)a->mode;
  x->stx_ino = a->ino;
  x->stx_size = a->size;
  x->stx_blocks = a->blocks;
  x->stx_atime = stamp(&a->atime);
  x->stx_mtime = stamp(&a->mtime);
  x->stx_ctime = stamp(&a->ctime);
  if (a->btime.tv_sec || a->btime.tv_nsec) {
    x->stx_btime = stamp(&a->btime);
    x->stx_mask |= STATX_BTIME;
  }
  x->stx_rdev_major = major(a->rdev);
  x->stx_rdev_minor = minor(a->rdev);
  x->stx_dev_major = major(a->dev);
  x->stx_dev_minor = minor(a->dev);
}

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000U
#endif

#define MNT_ID_UNIQUE 0x4000U /* STATX_MNT_ID_UNIQUE */

static glong sys_statx(TesTask *t, const gulong args[6]) {
  int flags = (int)args[2];
  guint mask = (guint)args[3];
  if ((mask & STATX__RESERVED) ||
      (flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE)) ||
      (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE)
    return -EINVAL;
  TesAttr a;
  struct statx x;
  TES_PATH_ARG(p);
  int r = tes_path_arg(t, &p, (int)args[0], args[1], tes_at_flags(flags, TRUE));
  if (r < 0)
    return r;
  if (!p.empty || !p.file)
    r = getattr_at(t, &p.at, &a);
  else if ((r = tes_file_getattr(p.file, tes_task_ctx(t), &a)) == 0 && p.file->path)
    add_mount(&a, p.file->path);
  if (r < 0)
    return r;
  fill_statx(&x, &a);
  if (a.mount_id) {
    x.stx_mask |= (mask & MNT_ID_UNIQUE) ? MNT_ID_UNIQUE : STATX_MNT_ID;
    x.stx_mnt_id = a.mount_id | ((mask & MNT_ID_UNIQUE) ? TES_MOUNT_UNIQUE : 0);
  }
  return tes_copy_out(t, args[4], &x, sizeof x);
}

/* ---- statfs ---- */

static glong statfs_flags(gulong ms) {
  return 0x20 /* ST_VALID */ | ((ms & MS_RDONLY) ? 1 : 0) | ((ms & MS_NOSUID) ? 2 : 0) |
         ((ms & MS_NODEV) ? 4 : 0) | ((ms & MS_NOEXEC) ? 8 : 0) | ((ms & MS_NOATIME) ? 0x400 : 0) |
         ((ms & MS_NODIRATIME) ? 0x800 : 0) |
         ((ms & (MS_NOATIME | MS_STRICTATIME)) ? 0 : 0x1000 /* ST_RELATIME */);
}

static int statfs_super(TesTask *t, TesSuper *s, gulong ms, struct statfs *out) {
  memset(out, 0, sizeof *out);
  out->f_bsize = out->f_frsize = TES_PAGE_SIZE;
  out->f_namelen = TES_NAME_MAX;
  int r = TES_HAS(s->ops, statfs) ? s->ops->statfs(s, tes_task_ctx(t), out) : 0;
  if (!out->f_type)
    out->f_type = (__fsword_t)s->magic;
  out->f_flags = statfs_flags(ms);
  out->f_fsid.__val[0] = (int)s->dev;
  return r;
}

static glong put_statfs(TesTask *t, TesPath *p, gulong ubuf) {
  struct statfs s;
  int r = statfs_super(t, p->inode->super, p->vfs->ops->mount_flags(p), &s);
  return r < 0 ? r : tes_copy_out(t, ubuf, &s, sizeof s);
}

static glong sys_statfs(TesTask *t, const gulong a[6]) {
  TES_PATH_ARG(p);
  g_autoptr(TesPath) path = NULL;
  int r = tes_path_arg(t, &p, AT_FDCWD, a[0], 0);
  if (r == 0)
    r = tes_vfs_walk(tes_task_ctx(t), &p.at, &path);
  return r < 0 ? r : put_statfs(t, path, a[1]);
}

/* Files without a place are on the kernel's own filesystems; <linux/magic.h>. */
static glong sys_fstatfs(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  if (!f)
    return -EBADF;
  if (f->path)
    return put_statfs(t, f->path, a[1]);
  TesAttr attr;
  int r = tes_file_getattr(f, tes_task_ctx(t), &attr);
  if (r < 0)
    return r;
  struct statfs s = {
      .f_bsize = TES_PAGE_SIZE, .f_frsize = TES_PAGE_SIZE, .f_namelen = TES_NAME_MAX, .f_flags = 0x20};
  s.f_type = S_ISFIFO(attr.mode) ? 0x50495045 : S_ISSOCK(attr.mode) ? 0x534f434b : 0x09041934;
  s.f_fsid.__val[0] = (int)attr.dev;
  return tes_copy_out(t, a[1], &s, sizeof s);
}

static const TesSyscall rows[] = {
    {SYS_stat, "stat", sys_stat, TES_FULL, NULL, "sp"},
    {SYS_fstat, "fstat", sys_fstat, TES_FULL, NULL, "fp"},
    {SYS_lstat, "lstat", sys_lstat, TES_FULL, NULL, "sp"},
    {SYS_ustat, "ustat", NULL, TES_NONE, "statfs(2) replaces it", "xp"},
    {SYS_statfs, "statfs", sys_statfs, TES_FULL, NULL, "sp"},
    {SYS_fstatfs, "fstatfs", sys_fstatfs, TES_FULL, NULL, "fp"},
    {SYS_newfstatat, "newfstatat", sys_newfstatat, TES_FULL, NULL, "aspx"},
    {SYS_statx, "statx", sys_statx, TES_PARTIAL,
     "MOUNT_ROOT is not shown where a directory below a filesystem's root is bound; no DIOALIGN", "asxxp"},
};

const TesSyscallTable tes_sys_stat = TES_ROWS(rows);
