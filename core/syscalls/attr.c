/* SPDX-License-Identifier: Apache-2.0 */
/* Changing attributes: chmod(2), chown(2), utimensat(2) and their relatives. Interface: tes_sys_attr. */
#include <core/syscalls/pathutil.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/time.h>

/* What a call is about: a place, or a file without one. */
typedef struct {
  TesPath *path;
  TesFile *file;
} Target;

static void target_clear(Target *x) {
  g_clear_pointer(&x->path, tes_path_unref);
  g_clear_pointer(&x->file, tes_file_unref);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Target, target_clear)

static int by_path(TesTask *t, int dirfd, gulong upath, int at_flags, Target *x) {
  TES_PATH_ARG(p);
  int r = tes_path_arg(t, &p, dirfd, upath, tes_at_flags(at_flags, TRUE));
  return r < 0 ? r : tes_path_arg_resolve(t, &p, &x->path, &x->file);
}

static int by_fd(TesTask *t, int fd, Target *x) {
  x->file = tes_fd_get(t, fd);
  if (!x->file || (x->file->flags & O_PATH))
    return -EBADF;
  x->path = x->file->path ? tes_path_ref(x->file->path) : NULL;
  return 0;
}

/* Files without a place (pipes, sockets) take changes through their own operation. */
static int apply(TesTask *t, Target *x, TesSetAttr *set) {
  if (!(set->valid & TES_SET_CTIME)) {
    set->valid |= TES_SET_CTIME;
    set->ctime.tv_nsec = UTIME_NOW;
  }
  if (x->path)
    return tes_path_setattr(t, x->path, set);
  return TES_HAS(x->file->ops, setattr) ? x->file->ops->setattr(x->file, tes_task_ctx(t), set) : -EPERM;
}

/* Read-only mounts answer before ownership is looked at. */
static int writable(const Target *x) {
  return x->path && (x->path->vfs->ops->mount_flags(x->path) & MS_RDONLY) ? -EROFS : 0;
}

static int owner_of(TesTask *t, const Target *x, guint32 *uid, guint32 *gid, guint32 *mode) {
  TesAttr a;
  if (x->path) {
    *uid = x->path->inode->uid;
    *gid = x->path->inode->gid;
    *mode = x->path->inode->mode;
    return 0;
  }
  int r = tes_file_getattr(x->file, tes_task_ctx(t), &a);
  *uid = a.uid;
  *gid = a.gid;
  *mode = a.mode;
  return r;
}

/* ---- chmod ---- */

static glong change_mode(TesTask *t, Target *x, gulong mode) {
  guint32 uid, gid, old;
  int r = writable(x);
  if (r == 0)
    r = owner_of(t, x, &uid, &gid, &old);
  if (r < 0)
    return r;
  if (S_ISLNK(old))
    return -EOPNOTSUPP;
  if (t->cred->fsuid != uid && !tes_task_capable(t, CAP_FOWNER))
    return -EPERM;
  TesSetAttr set = {.valid = TES_SET_MODE, .mode = (guint32)mode & 07777};
  if (!tes_cred_in_group(t->cred, gid) && !tes_task_capable(t, CAP_FSETID))
    set.mode &= ~(guint32)S_ISGID;
  return apply(t, x, &set);
}

static glong chmod_at(TesTask *t, int dirfd, gulong upath, gulong mode, int flags) {
  g_auto(Target) x = {NULL, NULL};
  int r = by_path(t, dirfd, upath, flags, &x);
  return r < 0 ? r : change_mode(t, &x, mode);
}
static glong sys_chmod(TesTask *t, const gulong a[6]) { return chmod_at(t, AT_FDCWD, a[0], a[1], 0); }
static glong sys_fchmodat(TesTask *t, const gulong a[6]) { return chmod_at(t, (int)a[0], a[1], a[2], 0); }
static glong sys_fchmodat2(TesTask *t, const gulong a[6]) {
  int flags = (int)a[3];
  return (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) ? -EINVAL
                                                          : chmod_at(t, (int)a[0], a[1], a[2], flags);
}
static glong sys_fchmod(TesTask *t, const gulong a[6]) {
  g_auto(Target) x = {NULL, NULL};
  int r = by_fd(t, (int)a[0], &x);
  return r < 0 ? r : change_mode(t, &x, a[1]);
}

/* ---- chown ---- */

static gboolean may_chown(TesTask *t, guint32 uid, guint32 gid, guint32 new_uid, guint32 new_gid) {
  if (tes_task_capable(t, CAP_CHOWN))
    return TRUE;
  gboolean owner = t->cred->fsuid == uid;
  if (new_uid != G_MAXUINT32 && !(owner && new_uid == uid))
    return FALSE;
  return new_gid == G_MAXUINT32 || (owner && (new_gid == gid || tes_cred_in_group(t->cred, new_gid)));
}

/* chown(2): set-id bits of files that are not directories go, whoever calls. */
static glong change_owner(TesTask *t, Target *x, guint32 new_uid, guint32 new_gid) {
  guint32 uid, gid, mode;
  int r = writable(x);
  if (r == 0)
    r = owner_of(t, x, &uid, &gid, &mode);
  if (r < 0)
    return r;
  if (!may_chown(t, uid, gid, new_uid, new_gid))
    return -EPERM;
  TesSetAttr set = {.valid = (new_uid != G_MAXUINT32 ? TES_SET_UID : 0) |
                             (new_gid != G_MAXUINT32 ? TES_SET_GID : 0),
                    .uid = new_uid,
                    .gid = new_gid};
  if (x->path && tes_inode_drops_setid(x->path->inode, tes_task_ctx(t), TRUE, &set.mode)) {
    if (!tes_inode_owner_or_capable(x->path->inode, tes_task_ctx(t)))
      return -EPERM; /* Linux sees a change of mode in it, even when nothing else changes */
    set.valid |= TES_SET_MODE;
  }
  return apply(t, x, &set);
}

static glong chown_at(TesTask *t, int dirfd, gulong upath, gulong uid, gulong gid, int flags) {
  g_auto(Target) x = {NULL, NULL};
  int r = by_path(t, dirfd, upath, flags, &x);
  return r < 0 ? r : change_owner(t, &x, (guint32)uid, (guint32)gid);
}
static glong sys_chown(TesTask *t, const gulong a[6]) { return chown_at(t, AT_FDCWD, a[0], a[1], a[2], 0); }
static glong sys_lchown(TesTask *t, const gulong a[6]) {
  return chown_at(t, AT_FDCWD, a[0], a[1], a[2], AT_SYMLINK_NOFOLLOW);
}
static glong sys_fchownat(TesTask *t, const gulong a[6]) {
  int flags = (int)a[4];
  return (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) ? -EINVAL
                                                          : chown_at(t, (int)a[0], a[1], a[2], a[3], flags);
}
static glong sys_fchown(TesTask *t, const gulong a[6]) {
  g_auto(Target) x = {NULL, NULL};
  int r = by_fd(t, (int)a[0], &x);
  return r < 0 ? r : change_owner(t, &x, (guint32)a[1], (guint32)a[2]);
}

/* ---- Times ---- */

static gboolean valid_nsec(glong n) { return n == UTIME_NOW || n == UTIME_OMIT || (n >= 0 && n < TES_NSEC); }

/* times NULL, or both UTIME_NOW: write permission is enough; anything else needs the owner. */
static glong change_times(TesTask *t, Target *x, const struct timespec ts[2]) {
  static const struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  if (!ts)
    ts = now;
  if (!valid_nsec(ts[0].tv_nsec) || !valid_nsec(ts[1].tv_nsec))
    return -EINVAL;
  gboolean both_now = ts[0].tv_nsec == UTIME_NOW && ts[1].tv_nsec == UTIME_NOW;
  guint32 uid, gid, mode;
  int r = writable(x);
  if (r == 0)
    r = owner_of(t, x, &uid, &gid, &mode);
  if (r < 0)
    return r;
  if (t->cred->fsuid != uid && !tes_task_capable(t, CAP_FOWNER)) {
    if (!both_now)
      return -EPERM;
    if (x->path && (r = tes_inode_permission(x->path->inode, tes_task_ctx(t), W_OK)) < 0)
      return r;
  }
  TesSetAttr set = {.atime = ts[0], .mtime = ts[1]};
  set.valid =
      (ts[0].tv_nsec != UTIME_OMIT ? TES_SET_ATIME : 0) | (ts[1].tv_nsec != UTIME_OMIT ? TES_SET_MTIME : 0);
  return apply(t, x, &set);
}

/* A null path with a descriptor is the descriptor itself (futimens). */
static glong times_at(TesTask *t, int dirfd, gulong upath, const struct timespec *ts, int flags) {
  g_auto(Target) x = {NULL, NULL};
  int r = !upath && dirfd != AT_FDCWD ? (flags ? -EINVAL : by_fd(t, dirfd, &x))
                                      : by_path(t, dirfd, upath, flags, &x);
  return r < 0 ? r : change_times(t, &x, ts);
}

static glong sys_utimensat(TesTask *t, const gulong a[6]) {
  struct timespec ts[2];
  int flags = (int)a[3];
  if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
    return -EINVAL;
  if (a[2]) {
    if (tes_copy_in(t, ts, a[2], sizeof ts) < 0)
      return -EFAULT;
    if (ts[0].tv_nsec == UTIME_OMIT && ts[1].tv_nsec == UTIME_OMIT)
      return 0;
  }
  return times_at(t, (int)a[0], a[1], a[2] ? ts : NULL, flags);
}

static glong times_timeval(TesTask *t, int dirfd, gulong upath, gulong utimes) {
  struct timeval tv[2];
  struct timespec ts[2];
  if (utimes) {
    if (tes_copy_in(t, tv, utimes, sizeof tv) < 0)
      return -EFAULT;
    for (int i = 0; i < 2; i++) {
      if (tv[i].tv_usec < 0 || tv[i].tv_usec >= 1000000)
        return -EINVAL;
      ts[i] = (struct timespec){tv[i].tv_sec, tv[i].tv_usec * 1000};
    }
  }
  return times_at(t, dirfd, upath, utimes ? ts : NULL, 0);
}
static glong sys_utimes(TesTask *t, const gulong a[6]) { return times_timeval(t, AT_FDCWD, a[0], a[1]); }
static glong sys_futimesat(TesTask *t, const gulong a[6]) { return times_timeval(t, (int)a[0], a[1], a[2]); }

static glong sys_utime(TesTask *t, const gulong a[6]) {
  glong sec[2];
  struct timespec ts[2] = {{0, 0}, {0, 0}};
  if (a[1]) {
    if (tes_copy_in(t, sec, a[1], sizeof sec) < 0)
      return -EFAULT;
    ts[0].tv_sec = sec[0];
    ts[1].tv_sec = sec[1];
  }
  return times_at(t, AT_FDCWD, a[0], a[1] ? ts : NULL, 0);
}

static const TesSyscall rows[] = {
    {SYS_chmod, "chmod", sys_chmod, TES_FULL, NULL, "so"},
    {SYS_fchmod, "fchmod", sys_fchmod, TES_FULL, NULL, "fo"},
    {SYS_chown, "chown", sys_chown, TES_FULL, NULL, "sdd"},
    {SYS_fchown, "fchown", sys_fchown, TES_FULL, NULL, "fdd"},
    {SYS_lchown, "lchown", sys_lchown, TES_FULL, NULL, "sdd"},
    {SYS_utime, "utime", sys_utime, TES_FULL, NULL, "sp"},
    {SYS_utimes, "utimes", sys_utimes, TES_FULL, NULL, "sp"},
    {SYS_fchownat, "fchownat", sys_fchownat, TES_FULL, NULL, "asddx"},
    {SYS_futimesat, "futimesat", sys_futimesat, TES_FULL, NULL, "asp"},
    {SYS_fchmodat, "fchmodat", sys_fchmodat, TES_FULL, NULL, "aso"},
    {SYS_utimensat, "utimensat", sys_utimensat, TES_FULL, NULL, "aspx"},
    {452, "fchmodat2", sys_fchmodat2, TES_FULL, NULL, "asox"},
};

const TesSyscallTable tes_sys_attr = TES_ROWS(rows);
