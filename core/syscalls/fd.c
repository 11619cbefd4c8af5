/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: close, dup, fcntl, ioctl; and the anonymous files the core makes: pipes and eventfds. */
#include <core/file/file.h>
#include <core/syscalls/syscalls.h>
#include <linux/fs.h>
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

static glong sys_close(TesTask *t, const gulong a[6]) { return tes_fd_close(t, (int)a[0]); }

static glong sys_close_range(TesTask *t, const gulong a[6]) {
  enum { UNSHARE = 1 << 1, CLOEXEC = 1 << 2 };
  guint first = (guint)a[0], last = (guint)a[1];
  if ((a[2] & ~(gulong)(UNSHARE | CLOEXEC)) || first > last)
    return -EINVAL;
  if (a[2] & UNSHARE) {
    int r = tes_task_unshare_fdtable(t);
    if (r < 0)
      return r;
  }
  tes_fd_close_range(t, first, last, (a[2] & CLOEXEC) != 0);
  return 0;
}

static glong sys_dup(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  return f ? tes_fd_install(t, f, 0, FALSE) : -EBADF;
}

static glong sys_dup2(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  if (!f)
    return -EBADF;
  return (int)a[0] == (int)a[1] ? (glong)(int)a[0] : tes_fd_replace(t, f, (int)a[1], FALSE);
}

static glong sys_dup3(TesTask *t, const gulong a[6]) {
  if ((a[2] & ~(gulong)O_CLOEXEC) || (int)a[0] == (int)a[1])
    return -EINVAL;
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  return f ? tes_fd_replace(t, f, (int)a[1], (a[2] & O_CLOEXEC) != 0) : -EBADF;
}

/* ---- fcntl ---- */

static glong dup_above(TesTask *t, TesFile *f, gulong min, gboolean cloexec) {
  if (min >= tes_task_rlimit(t, RLIMIT_NOFILE) || min >= TES_NR_OPEN)
    return -EINVAL;
  return tes_fd_install(t, f, (int)min, cloexec);
}

static int set_status(TesFile *f, guint set, guint mask) {
  guint old = (guint)g_atomic_int_get((gint *)&f->flags), new;
  if (TES_HAS(f->ops, set_flags)) {
    int r = f->ops->set_flags(f, (old & ~mask) | (set & mask));
    if (r < 0)
      return r;
  }
  do {
    old = (guint)g_atomic_int_get((gint *)&f->flags);
    new = (old & ~mask) | (set & mask);
  } while (!g_atomic_int_compare_and_exchange((gint *)&f->flags, (gint)old, (gint) new));
  return 0;
}

static glong set_fl(TesTask *t, int fd, TesFile *f, gulong arg) {
  guint mask = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC;
  guint old = f->flags, change = ((guint)arg ^ old) & mask;
  if ((change & O_APPEND) && f->inode && (f->inode->flags & TES_INODE_APPEND_ONLY))
    return -EPERM;
  if ((change & O_NOATIME) && (arg & O_NOATIME) && f->inode &&
      !tes_inode_owner_or_capable(f->inode, tes_task_ctx(t)))
    return -EPERM;
  if ((change & O_DIRECT) && (arg & O_DIRECT) && !f->inode && !tes_file_pipe(f))
    return -EINVAL;
  if ((change & O_ASYNC) && tes_file_can_async(f))
    tes_file_set_async(f, fd, (arg & O_ASYNC) != 0);
  return set_status(f, (guint)arg, mask);
}

/* Owners are kept as root-namespace numbers. A group whose leader has gone still has its number. */
static glong set_owner(TesTask *t, TesFile *f, int type, glong id) {
  gint nr = 0;
  if (id != 0) {
    TesNs *ns = tes_ctx_pid_ns(tes_task_ctx(t));
    g_autoptr(TesTask) who = tes_task_find(f->kernel, ns, (gint)ABS(id), FALSE);
    if (who)
      nr = tes_task_tid(who, NULL);
    else if (type == F_OWNER_PGRP && !ns->parent && tes_signal_pgrp(f->kernel, (gint)ABS(id), 0, NULL) == 0)
      nr = (gint)ABS(id);
    else
      return -ESRCH;
  }
  f->owner_type = type;
  f->owner_uid = t->cred->uid;
  f->owner_euid = t->cred->euid;
  f->owner = type == F_OWNER_PGRP ? -nr : nr;
  return 0;
}

static gint owner_in_ns(TesTask *t, TesFile *f) {
  gint owner = f->owner;
  if (owner == 0)
    return 0;
  TesNs *ns = tes_ctx_pid_ns(tes_task_ctx(t));
  g_autoptr(TesTask) who = tes_task_find(f->kernel, NULL, ABS(owner), FALSE);
  if (!who)
    return ns->parent ? 0 : ABS(owner);
  return tes_task_tid(who, ns);
}

static glong owner_ex(TesTask *t, TesFile *f, guint cmd, gulong arg) {
  struct f_owner_ex o;
  if (cmd == F_GETOWN_EX) {
    o = (struct f_owner_ex){.type = f->owner_type, .pid = owner_in_ns(t, f)};
    return tes_copy_out(t, arg, &o, sizeof o);
  }
  if (tes_copy_in(t, &o, arg, sizeof o) < 0)
    return -EFAULT;
  if (o.type != F_OWNER_TID && o.type != F_OWNER_PID && o.type != F_OWNER_PGRP)
    return -EINVAL;
  return set_owner(t, f, o.type, o.pid);
}

static glong fcntl_owner(TesTask *t, TesFile *f, guint cmd, gulong arg) {
  switch (cmd) {
  case F_SETOWN: {
    int who = (int)arg;
    if (who == G_MININT)
      return -EINVAL;
    return set_owner(t, f, who < 0 ? F_OWNER_PGRP : F_OWNER_PID, who);
  }
  case F_GETOWN: {
    gint nr = owner_in_ns(t, f);
    return f->owner_type == F_OWNER_PGRP ? -nr : nr;
  }
  case F_SETSIG:
    if (arg > TES_NSIG)
      return -EINVAL;
    f->sigio = (int)arg;
    return 0;
  case F_GETSIG:
    return f->sigio;
  default:
    return owner_ex(t, f, cmd, arg);
  }
}

static glong fcntl_seals(TesTask *t, TesFile *f, guint cmd, gulong arg) {
  if (!TES_HAS(f->ops, seals))
    return -EINVAL;
  if (cmd == F_GET_SEALS)
    return f->ops->seals(f, tes_task_ctx(t), TES_SEALS_GET, 0);
  return tes_file_writable(f) ? f->ops->seals(f, tes_task_ctx(t), TES_SEALS_ADD, (guint)arg) : -EPERM;
}

/* Commands that O_PATH descriptors allow too. */
static gboolean fcntl_any(guint cmd) {
  return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC || cmd == F_GETFD || cmd == F_SETFD || cmd == F_GETFL;
}

static glong sys_fcntl(TesTask *t, const gulong a[6]) {
  int fd = (int)a[0];
  guint cmd = (guint)a[1];
  g_auto(TesFdLoan) loan = tes_fd_borrow(t, fd);
  TesFile *f = loan.file;
  if (!f || ((f->flags & O_PATH) && !fcntl_any(cmd)))
    return -EBADF;
  switch (cmd) {
  case F_DUPFD:
  case F_DUPFD_CLOEXEC:
    return dup_above(t, f, (guint)a[2], cmd == F_DUPFD_CLOEXEC);
  case F_GETFD:
    return tes_fd_get_cloexec(t, fd);
  case F_SETFD:
    return tes_fd_set_cloexec(t, fd, (a[2] & FD_CLOEXEC) != 0);
  case F_GETFL:
    /* open(2) of a 64-bit program implies O_LARGEFILE, and shows it. */
    return (glong)(guint)g_atomic_int_get((gint *)&f->flags) |
           (f->path && !(f->flags & O_PATH) ? 0100000 : 0);
  case F_SETFL:
    return set_fl(t, fd, f, a[2]);
  case F_GETLK:
  case F_SETLK:
  case F_SETLKW:
  case F_OFD_GETLK:
  case F_OFD_SETLK:
  case F_OFD_SETLKW:
    return tes_lock_fcntl(t, fd, f, (int)cmd, a[2]);
  case F_SETOWN:
  case F_GETOWN:
  case F_SETOWN_EX:
  case F_GETOWN_EX:
  case F_SETSIG:
  case F_GETSIG:
    return fcntl_owner(t, f, cmd, a[2]);
  case F_ADD_SEALS:
  case F_GET_SEALS:
    return fcntl_seals(t, f, cmd, a[2]);
  case F_GETPIPE_SZ:
  case F_SETPIPE_SZ:
    return tes_file_pipe(f) ? f->ops->fcntl(f, t, cmd, a[2]) : -EBADF;
  case F_GETLEASE:
    return tes_lease_get(f);
  case F_SETLEASE:
    return tes_lease_set(t, f, fd, (int)a[2]);
  default:
    return TES_HAS(f->ops, fcntl) ? f->ops->fcntl(f, t, cmd, a[2]) : -EINVAL;
  }
}

/* ---- ioctl ---- */

static glong set_flag_ioctl(TesTask *t, TesFile *f, gulong arg, guint flag) {
  int on;
  if (tes_copy_in(t, &on, arg, sizeof on) < 0)
    return -EFAULT;
  return set_status(f, on ? flag : 0, flag);
}

static glong set_async(TesTask *t, TesFile *f, int fd, gulong arg) {
  int on;
  if (tes_copy_in(t, &on, arg, sizeof on) < 0)
    return -EFAULT;
  if (!on == !(f->flags & O_ASYNC))
    return 0;
  if (!tes_file_can_async(f))
    return -ENOTTY;
  tes_file_set_async(f, fd, on != 0);
  return set_status(f, on ? O_ASYNC : 0, O_ASYNC);
}

/* What is left to read, of a regular file. */
static glong bytes_left(TesTask *t, TesFile *f, gulong arg) {
  TesAttr attr;
  int r = tes_file_getattr(f, tes_task_ctx(t), &attr);
  if (r < 0)
    return r;
  tes_mutex_lock(&f->pos_lock);
  int left = (int)((goffset)attr.size - f->pos);
  tes_mutex_unlock(&f->pos_lock);
  return tes_copy_out(t, arg, &left, sizeof left);
}

/* ioctl_ficlonerange(2): everything up to the filesystem's own answer, which is that none here shares extents. */
static glong clone_range(TesTask *t, TesFile *to, int from_fd) {
  g_autoptr(TesFile) from = tes_fd_get_io(t, from_fd);
  if (!from)
    return -EBADF;
  if (!from->inode || !to->inode || from->inode->super != to->inode->super)
    return -EXDEV;
  if (S_ISDIR(from->inode->mode) || S_ISDIR(to->inode->mode))
    return -EISDIR;
  if (!tes_file_is_regular(from) || !tes_file_is_regular(to))
    return -EINVAL;
  return tes_file_readable(from) && tes_file_writable(to) && !(to->flags & O_APPEND) ? -EOPNOTSUPP : -EBADF;
}

static glong dedupe_range(TesTask *t, TesFile *f, gulong arg) {
  struct file_dedupe_range r;
  if (tes_copy_in(t, &r, arg, sizeof r) < 0)
    return -EFAULT;
  if (!tes_file_readable(f) || r.reserved1 || r.reserved2)
    return -EINVAL;
  if (f->ops->flags & TES_FILE_DIR)
    return -EISDIR;
  return tes_file_is_regular(f) ? -EOPNOTSUPP : -EINVAL;
}

static glong block_size(TesTask *t, TesFile *f, gulong arg) {
  TesAttr attr;
  int r = tes_file_getattr(f, tes_task_ctx(t), &attr), n = (int)attr.blksize;
  return r < 0 ? r : tes_copy_out(t, arg, &n, sizeof n);
}

static glong sys_ioctl(TesTask *t, const gulong a[6]) {
  int fd = (int)a[0];
  guint cmd = (guint)a[1];
  g_auto(TesFdLoan) loan = tes_fd_borrow_io(t, fd);
  TesFile *f = loan.file;
  if (!f)
    return -EBADF;
  switch (cmd) {
  case FIOCLEX:
    return tes_fd_set_cloexec(t, fd, TRUE);
  case FIONCLEX:
    return tes_fd_set_cloexec(t, fd, FALSE);
  case FIONBIO:
    return set_flag_ioctl(t, f, a[2], O_NONBLOCK);
  case FIOASYNC:
    return set_async(t, f, fd, a[2]);
  case FIONREAD:
    if (tes_file_is_regular(f))
      return bytes_left(t, f, a[2]);
    break;
  case FICLONE:
    return clone_range(t, f, (int)a[2]);
  case FICLONERANGE: {
    struct file_clone_range r;
    return tes_copy_in(t, &r, a[2], sizeof r) < 0 ? -EFAULT : clone_range(t, f, (int)r.src_fd);
  }
  case FIDEDUPERANGE:
    return dedupe_range(t, f, a[2]);
  case FIGETBSZ:
    if (f->inode)
      return block_size(t, f, a[2]);
    break;
  case FIOQSIZE: {
    TesAttr attr;
    if (!f->inode || (!S_ISREG(f->inode->mode) && !S_ISDIR(f->inode->mode)))
      return -ENOTTY;
    int r = tes_file_getattr(f, tes_task_ctx(t), &attr);
    gint64 bytes = (gint64)attr.blocks * 512; /* what it occupies, not its length */
    return r < 0 ? r : tes_copy_out(t, a[2], &bytes, 8);
  }
  default:
    break;
  }
  return TES_HAS(f->ops, ioctl) ? f->ops->ioctl(f, t, cmd, a[2]) : -ENOTTY;
}

/* ---- Anonymous files ---- */

static glong make_pipe(TesTask *t, gulong ufds, guint flags) {
  TesFile *end[2];
  int fd[2];
  int r = tes_pipe_new(tes_task_kernel(t), tes_task_ctx(t), flags, end);
  if (r < 0)
    return r;
  gboolean cloexec = (flags & O_CLOEXEC) != 0;
  fd[0] = tes_fd_install(t, end[0], 0, cloexec);
  fd[1] = fd[0] < 0 ? -EMFILE : tes_fd_install(t, end[1], 0, cloexec);
  tes_file_unref(end[0]);
  tes_file_unref(end[1]);
  r = fd[1] < 0 ? fd[1] : tes_copy_out(t, ufds, fd, sizeof fd);
  if (r < 0) {
    if (fd[0] >= 0)
      tes_fd_close(t, fd[0]);
    if (fd[1] >= 0)
      tes_fd_close(t, fd[1]);
  }
  return r;
}

static glong sys_pipe(TesTask *t, const gulong a[6]) { return make_pipe(t, a[0], 0); }

static glong sys_pipe2(TesTask *t, const gulong a[6]) {
  if (a[1] & ~(gulong)(O_CLOEXEC | O_NONBLOCK | O_DIRECT))
    return -EINVAL;
  return make_pipe(t, a[0], (guint)a[1]);
}

static glong make_eventfd(TesTask *t, guint count, guint flags) {
  if (flags & ~(guint)(EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK))
    return -EINVAL;
  TesFile *f;
  int r = tes_eventfd_new(tes_task_kernel(t), count, (flags & EFD_SEMAPHORE) != 0, flags & O_NONBLOCK, &f);
  if (r < 0)
    return r;
  r = tes_fd_install(t, f, 0, (flags & EFD_CLOEXEC) != 0);
  tes_file_unref(f);
  return r;
}

static glong sys_eventfd(TesTask *t, const gulong a[6]) { return make_eventfd(t, (guint)a[0], 0); }
static glong sys_eventfd2(TesTask *t, const gulong a[6]) { return make_eventfd(t, (guint)a[0], (guint)a[1]); }

static glong sys_flock(TesTask *t, const gulong a[6]) {
  int kind = (int)a[1] & ~LOCK_NB;
  if (kind != LOCK_SH && kind != LOCK_EX && kind != LOCK_UN)
    return -EINVAL;
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  if (f && kind != LOCK_UN && !tes_file_readable(f) && !tes_file_writable(f))
    return -EBADF;
  return f ? tes_lock_flock(t, f, (int)a[1]) : -EBADF;
}

#define FCNTL_NOTE "no F_NOTIFY; execve does not break leases"

static const TesSyscall rows[] = {
    {3, "close", sys_close, TES_FULL, NULL, "f"},
    {16, "ioctl", sys_ioctl, TES_PARTIAL, "what the file offers", "fxp"},
    {22, "pipe", sys_pipe, TES_FULL, NULL, "p"},
    {32, "dup", sys_dup, TES_FULL, NULL, "f"},
    {33, "dup2", sys_dup2, TES_FULL, NULL, "fd"},
    {72, "fcntl", sys_fcntl, TES_PARTIAL, FCNTL_NOTE, "fdx"},
    {73, "flock", sys_flock, TES_FULL, NULL, "fx"},
    {284, "eventfd", sys_eventfd, TES_FULL, NULL, "u"},
    {290, "eventfd2", sys_eventfd2, TES_FULL, NULL, "ux"},
    {292, "dup3", sys_dup3, TES_FULL, NULL, "fdx"},
    {293, "pipe2", sys_pipe2, TES_FULL, NULL, "px"},
    {300, "fanotify_init", NULL, TES_NONE, "whole mounts and decisions about access are not offered", "xx"},
    {301, "fanotify_mark", NULL, TES_NONE, "whole mounts and decisions about access are not offered",
     "fxxas"},
    {436, "close_range", sys_close_range, TES_FULL, NULL, "uux"},
};

const TesSyscallTable tes_sys_fd = TES_ROWS(rows);
