/* SPDX-License-Identifier: Apache-2.0 */
/* timerfd: timers that are read like files. timerfd_create(2).
 *
 * This is the tutorial plugin: what a plugin that adds a kind of file and its system calls consists of.
 *   1. a struct that embeds TesFile first;
 *   2. the operations of the file: read, poll, fdinfo, freeze, release;
 *   3. the system calls, as rows of a table;
 *   4. the descriptor, which names what there is to find. Nothing runs until a program makes the first call.
 * Without this plugin the three calls are ENOSYS, and nothing else changes. */
#include <linux/capability.h>
#include <sys/timerfd.h>
#include <tessera/tessera.h>

/* ---- 1. The file ---- */

typedef struct {
  TesFile file; /* first: TesFile * and TimerFd * are converted into each other */
  int clockid;
  TesTimer timer; /* the core's timer service; its callback runs on the event thread */
  TesMutex lock;
  guint64 ticks;   /* expirations not read yet; lock */
  guint set_flags; /* of the last timerfd_settime; lock */
  gboolean frozen; /* then the following hold what the timer had; lock */
  TesTime left, period, date;
} TimerFd;

/* Ranks order locks: this one may be held when the timer service's lock is taken. */
static const TesLockClass timerfd_class = {"timerfd", TES_RANK_FILE, FALSE, "ticks and setting of a timerfd"};

static TimerFd *timerfd(TesFile *f) { return (TimerFd *)f; }

static gboolean on_realtime(int clockid) {
  return clockid == CLOCK_REALTIME || clockid == CLOCK_REALTIME_ALARM;
}

/* ---- 2. Its operations ---- */

/* The state changes first, then the waiters are told: whoever enlists and then polls misses nothing. */
static void on_timer(TesTimer *timer, guint64 missed, gpointer data) {
  TimerFd *t = data;
  (void)timer;
  tes_mutex_lock(&t->lock);
  t->ticks += missed;
  tes_mutex_unlock(&t->lock);
  tes_queue_notify(t->file.queue, POLLIN);
}

/* Operations never wait. -EAGAIN lets the core block on the file's queue and ask again, or give it to a caller who
 * set O_NONBLOCK. */
static gssize timerfd_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TimerFd *t = timerfd(f);
  (void)ctx, (void)pos, (void)flags;
  if (iov->left < sizeof t->ticks)
    return -EINVAL;
  tes_mutex_lock(&t->lock);
  /* The event thread may be late; the time is not. Nobody else need be told: what has expired is read here. */
  guint64 ticks = t->ticks + tes_timer_overdue(&t->timer);
  t->ticks = 0;
  tes_mutex_unlock(&t->lock);
  /* Copied without the lock: guest memory may have to be brought in. */
  return ticks ? tes_iov_write_to(iov, &ticks, sizeof ticks) : -EAGAIN;
}

static guint timerfd_poll(TesFile *f) {
  TimerFd *t = timerfd(f);
  TES_LOCKED(&t->lock);
  return t->ticks ? POLLIN : 0;
}

/* What is left until the next expiration (0: disarmed) and the period. */
static void get_locked(TimerFd *t, TesTime *left, TesTime *period) {
  *left = t->left;
  *period = t->period;
  if (!t->frozen)
    tes_timer_get(&t->timer, left, period);
}

/* Lines of /proc/PID/fdinfo/N, proc(5). */
static char *timerfd_fdinfo(TesFile *f) {
  TimerFd *t = timerfd(f);
  TesTime left, period;
  TES_LOCKED(&t->lock);
  get_locked(t, &left, &period);
  return g_strdup_printf("clockid: %d\nticks: %" G_GUINT64_FORMAT
                         "\nsettime flags: 0%o\nit_value: (%ld, %ld)\nit_interval: (%ld, %ld)\n",
                         t->clockid, t->ticks, t->set_flags, (long)(left / TES_NSEC), (long)(left % TES_NSEC),
                         (long)(period / TES_NSEC), (long)(period % TES_NSEC));
}

/* Pause and save stop what moves by itself (C10). A monotonic timer goes on with the time it had left; a realtime one
 * keeps its date. */
static int timerfd_freeze(TesFile *f, gboolean on) {
  TimerFd *t = timerfd(f);
  TES_LOCKED(&t->lock);
  if (on && !t->frozen) {
    tes_timer_get(&t->timer, &t->left, &t->period);
    t->date = tes_time_add(tes_time_realtime(f->kernel), t->left);
    tes_timer_cancel(&t->timer, FALSE);
  } else if (!on && t->frozen && t->left > 0) {
    tes_timer_arm(&t->timer,
                  t->timer.realtime ? t->date : tes_time_add(tes_time_monotonic(f->kernel), t->left),
                  t->period);
  }
  t->frozen = on;
  return 0;
}

/* lseek(2) succeeds and does nothing, as on Linux. */
static goffset timerfd_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  (void)f, (void)ctx, (void)off, (void)whence;
  return 0;
}

static void timerfd_release(TesFile *f) {
  TimerFd *t = timerfd(f);
  tes_timer_cancel(&t->timer, TRUE); /* waits for a callback that runs; it takes our lock, so we hold none */
  tes_mutex_clear(&t->lock);
  g_free(t);
}

static const TesFileOps timerfd_ops = {
    .size = sizeof(TesFileOps),
    .name = "timerfd",
    .read = timerfd_read,
    .poll = timerfd_poll,
    .seek = timerfd_seek,
    .fdinfo = timerfd_fdinfo,
    .freeze = timerfd_freeze,
    .release = timerfd_release,
};

/* ---- 3. The system calls ---- */

static glong sys_timerfd_create(TesTask *task, const gulong a[6]) {
  int clockid = (int)a[0], flags = (int)a[1];
  gboolean alarm = clockid == CLOCK_REALTIME_ALARM || clockid == CLOCK_BOOTTIME_ALARM;
  if (flags & ~(TFD_CLOEXEC | TFD_NONBLOCK))
    return -EINVAL;
  if (!alarm && clockid != CLOCK_REALTIME && clockid != CLOCK_MONOTONIC && clockid != CLOCK_BOOTTIME)
    return -EINVAL;
  if (alarm && !tes_task_capable(task, CAP_WAKE_ALARM))
    return -EPERM;
  TesKernel *k = tes_task_kernel(task);
  TimerFd *t = g_new0(TimerFd, 1);
  tes_mutex_init(&t->lock, &timerfd_class);
  tes_timer_init(&t->timer, k, on_realtime(clockid), on_timer, t);
  t->clockid = clockid;
  tes_file_init(&t->file, k, &timerfd_ops, O_RDWR | (flags & TFD_NONBLOCK ? O_NONBLOCK : 0));
  int fd = tes_fd_install(task, &t->file, 0, (flags & TFD_CLOEXEC) != 0);
  tes_file_unref(&t->file); /* the descriptor has its own reference */
  return fd;
}

/* The file of a descriptor, referenced; -EBADF, or -EINVAL if it is of another kind. */
static int get_timerfd(TesTask *task, int fd, TimerFd **out) {
  g_autoptr(TesFile) f = tes_fd_get(task, fd);
  if (!f)
    return -EBADF;
  if (f->ops != &timerfd_ops)
    return -EINVAL;
  *out = timerfd(g_steal_pointer(&f));
  return 0;
}

/* The moment on the service's clock, which is realtime or monotonic; boot time is ahead of monotonic by what the host
 * slept. */
static TesTime service_expiry(TimerFd *t, gboolean absolute, TesTime value) {
  TesKernel *k = t->file.kernel;
  TesTime mono = tes_time_monotonic(k);
  if (!absolute)
    return tes_time_add(t->timer.realtime ? tes_time_realtime(k) : mono, value);
  if (t->clockid == CLOCK_BOOTTIME || t->clockid == CLOCK_BOOTTIME_ALARM)
    return value - (tes_time_boot(k) - mono);
  return value;
}

static struct itimerspec get_setting(TimerFd *t) {
  TesTime left, period;
  TES_LOCKED(&t->lock);
  get_locked(t, &left, &period);
  return (struct itimerspec){.it_value = tes_timespec_from_ns(left),
                             .it_interval = tes_timespec_from_ns(period)};
}

static void set_setting(TimerFd *t, guint flags, const struct itimerspec *new) {
  TesTime value = tes_timespec_to_ns(&new->it_value);
  tes_timer_cancel(&t->timer, TRUE); /* no late tick of the old setting */
  TES_LOCKED(&t->lock);
  t->ticks = 0;
  t->set_flags = flags;
  if (value > 0)
    tes_timer_arm(&t->timer, service_expiry(t, (flags & TFD_TIMER_ABSTIME) != 0, value),
                  tes_timespec_to_ns(&new->it_interval));
}

static glong sys_timerfd_settime(TesTask *task, const gulong a[6]) {
  guint flags = (guint)a[1];
  struct itimerspec new;
  g_autoptr(TesFile) held = NULL;
  TimerFd *t;
  if (tes_copy_in(task, &new, a[2], sizeof new) < 0) /* guest memory: copied once, then checked, then used */
    return -EFAULT;
  if ((flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) || !tes_timespec_valid(&new.it_value) ||
      !tes_timespec_valid(&new.it_interval))
    return -EINVAL;
  int r = get_timerfd(task, (int)a[0], &t);
  if (r < 0)
    return r;
  held = &t->file;
  struct itimerspec old = get_setting(t);
  set_setting(t, flags, &new);
  return a[3] ? tes_copy_out(task, a[3], &old, sizeof old) : 0;
}

static glong sys_timerfd_gettime(TesTask *task, const gulong a[6]) {
  g_autoptr(TesFile) held = NULL;
  TimerFd *t;
  int r = get_timerfd(task, (int)a[0], &t);
  if (r < 0)
    return r;
  held = &t->file;
  struct itimerspec now = get_setting(t);
  return tes_copy_out(task, a[1], &now, sizeof now);
}

static const TesSyscall rows[] = {
    {283, "timerfd_create", sys_timerfd_create, TES_FULL, NULL, "dx"},
    {286, "timerfd_settime", sys_timerfd_settime, TES_PARTIAL,
     "TFD_TIMER_CANCEL_ON_SET never cancels: guests cannot set clocks", "fxpp"},
    {287, "timerfd_gettime", sys_timerfd_gettime, TES_FULL, NULL, "fp"},
};
static const TesSyscallTable table = {.size = sizeof(TesSyscallTable), .rows = rows, .n = G_N_ELEMENTS(rows)};

/* ---- 4. The descriptor ---- */

/* The section that a saved sandbox's timers will be in. */
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "timerfd", .version = 1};

static const TesFeature features[] = {
    {"syscalls", "timerfd", &table},
    {"state", "timerfd", &state},
    {NULL, NULL, NULL},
};

TES_PLUGIN_DEFINE(timerfd, .name = "timerfd", .summary = "Timers as file descriptors: timerfd_create(2)",
                  .licence = "Apache-2.0", .features = features);
