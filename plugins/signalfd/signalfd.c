/* SPDX-License-Identifier: Apache-2.0 */
/* Signals that are read like files: signalfd(2).
 *
 * A signalfd belongs to no process: whoever reads it takes signals of his own, and whoever polls it is told of his own. So all of
 * them share one queue, which the core tells of every signal that it queues. */
#include <fcntl.h>
#include <string.h>
#include <sys/signalfd.h>
#include <tessera/tessera.h>

#define UNBLOCKABLE ((G_GUINT64_CONSTANT(1) << (SIGKILL - 1)) | (G_GUINT64_CONSTANT(1) << (SIGSTOP - 1)))

typedef struct {
  TesFile file;
  guint64 mask; /* atomic; bit SIG - 1 */
} SignalFd;

static const TesFileOps signalfd_ops;

static SignalFd *of(TesFile *f) { return (SignalFd *)f; }
static guint64 mask_of(TesFile *f) { return __atomic_load_n(&of(f)->mask, __ATOMIC_ACQUIRE); }

/* The union of siginfo_t says by si_code which members count. */
static struct signalfd_siginfo translate(const siginfo_t *i) {
  struct signalfd_siginfo s = {
      .ssi_signo = (guint32)i->si_signo, .ssi_errno = i->si_errno, .ssi_code = i->si_code};
  gboolean fault =
      i->si_code > 0 && (i->si_signo == SIGSEGV || i->si_signo == SIGBUS || i->si_signo == SIGILL ||
                         i->si_signo == SIGFPE || i->si_signo == SIGTRAP);
  if (i->si_code == SI_TIMER) {
    s.ssi_tid = (guint32)i->si_timerid;
    s.ssi_overrun = (guint32)i->si_overrun;
    s.ssi_int = i->si_int;
    s.ssi_ptr = (guint64)(gsize)i->si_ptr;
  } else if (fault) {
    s.ssi_addr = (guint64)(gsize)i->si_addr;
  } else if (i->si_code > 0 && i->si_signo == SIGCHLD) {
    s.ssi_pid = (guint32)i->si_pid;
    s.ssi_uid = i->si_uid;
    s.ssi_status = i->si_status;
    s.ssi_utime = (guint64)i->si_utime;
    s.ssi_stime = (guint64)i->si_stime;
  } else if (i->si_code > 0 && i->si_code != SI_KERNEL) { /* SIGIO and whatever F_SETSIG named */
    s.ssi_band = (guint32)i->si_band;
    s.ssi_fd = i->si_fd;
  } else {
    s.ssi_pid = (guint32)i->si_pid;
    s.ssi_uid = i->si_uid;
    if (i->si_code < 0) {
      s.ssi_int = i->si_int;
      s.ssi_ptr = (guint64)(gsize)i->si_ptr;
    }
  }
  return s;
}

/* As many as there are and fit. One that cannot be copied out is lost, as in Linux. */
static gssize signalfd_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TesTask *t = tes_ctx_task(ctx);
  gssize done = 0;
  siginfo_t info;
  if (iov->left < sizeof(struct signalfd_siginfo) || !t)
    return -EINVAL;
  while (iov->left >= sizeof(struct signalfd_siginfo) && tes_signal_take(t, mask_of(f), &info)) {
    struct signalfd_siginfo s = translate(&info);
    gssize n = tes_iov_write_to(iov, &s, sizeof s);
    if (n != sizeof s)
      return done ? done : -EFAULT;
    done += n;
  }
  return done ? done : -EAGAIN;
}

static guint signalfd_poll(TesFile *f) {
  TesTask *t = tes_task_current();
  return t && (tes_signal_pending_set(t) & mask_of(f)) ? POLLIN | POLLRDNORM : 0;
}

static char *signalfd_fdinfo(TesFile *f) {
  return g_strdup_printf("sigmask:\t%016" G_GINT64_MODIFIER "x\n", mask_of(f));
}

static void signalfd_release(TesFile *f) { g_free(f); }

static const TesFileOps signalfd_ops = {.size = sizeof(TesFileOps),
                                        .name = "signalfd",
                                        .read = signalfd_read,
                                        .poll = signalfd_poll,
                                        .fdinfo = signalfd_fdinfo,
                                        .release = signalfd_release};

/* ---- System calls ---- */

static int change(TesTask *t, int fd, guint64 mask) {
  g_autoptr(TesFile) f = tes_fd_get(t, fd);
  if (!f)
    return -EBADF;
  if (f->ops != &signalfd_ops)
    return -EINVAL;
  __atomic_store_n(&of(f)->mask, mask, __ATOMIC_RELEASE);
  tes_queue_notify(f->queue, POLLIN | POLLRDNORM); /* it may have become readable */
  return fd;
}

static glong make(TesTask *t, int fd, gulong uaddr, gulong size, guint flags) {
  guint64 mask;
  if (flags & ~(guint)(SFD_CLOEXEC | SFD_NONBLOCK) || size != sizeof mask)
    return -EINVAL;
  if (tes_copy_in(t, &mask, uaddr, sizeof mask) < 0)
    return -EFAULT;
  mask &= ~UNBLOCKABLE;
  if (fd != -1)
    return change(t, fd, mask);
  SignalFd *s = g_new0(SignalFd, 1);
  TesKernel *k = tes_task_kernel(t);
  tes_file_init(&s->file, k, &signalfd_ops, O_RDWR | (flags & SFD_NONBLOCK));
  s->file.queue = tes_signal_queue(k);
  s->mask = mask;
  int r = tes_fd_install(t, &s->file, 0, (flags & SFD_CLOEXEC) != 0);
  tes_file_unref(&s->file);
  return r;
}

static glong sys_signalfd(TesTask *t, const gulong a[6]) { return make(t, (int)a[0], a[1], a[2], 0); }
static glong sys_signalfd4(TesTask *t, const gulong a[6]) {
  return make(t, (int)a[0], a[1], a[2], (guint)a[3]);
}

static const TesSyscall rows[] = {
    {282, "signalfd", sys_signalfd, TES_FULL, NULL, "fpu"},
    {289, "signalfd4", sys_signalfd4, TES_FULL, NULL, "fpux"},
};
static const TesSyscallTable table = {.size = sizeof(TesSyscallTable), .rows = rows, .n = G_N_ELEMENTS(rows)};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "signalfd", .version = 1};
static const TesFeature features[] = {
    {"syscalls", "signalfd", &table}, {"state", "signalfd", &state}, {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(signalfd, .name = "signalfd", .summary = "Signals as file descriptors: signalfd(2)",
                  .licence = "Apache-2.0", .features = features);
