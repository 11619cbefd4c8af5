/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of clocks, sleeping and timers: clock_gettime(2), nanosleep(2), setitimer(2), timer_create(2), times(2), adjtimex(2).
 * Nobody in a sandbox can set its clocks: EPERM. */
#include <core/syscalls/syscalls.h>
#include <core/time/cpuclock.h>
#include <core/time/itimer.h>
#include <core/vdso/params.h>
#include <linux/capability.h>
#include <sys/times.h>
#include <sys/timex.h>

/* ---- Copying times ---- */

/* 0, -EFAULT, or -EINVAL for what no time is. */
static int get_timespec(TesTask *t, gulong addr, TesTime *out) {
  struct timespec ts;
  if (tes_copy_in(t, &ts, addr, sizeof ts) < 0)
    return -EFAULT;
  if (!tes_timespec_valid(&ts))
    return -EINVAL;
  *out = tes_timespec_to_ns(&ts);
  return 0;
}

static int put_timespec(TesTask *t, gulong addr, TesTime ns) {
  struct timespec ts = tes_timespec_from_ns(ns);
  return tes_copy_out(t, addr, &ts, sizeof ts);
}

static gboolean timeval_to_ns(const struct timeval *tv, TesTime *out) {
  if (tv->tv_sec < 0 || tv->tv_usec < 0 || tv->tv_usec >= 1000000)
    return FALSE;
  struct timespec ts = {tv->tv_sec, tv->tv_usec * 1000};
  *out = tes_timespec_to_ns(&ts);
  return TRUE;
}

static struct timeval timeval_from_ns(TesTime ns) {
  return (struct timeval){ns / TES_NSEC, ns % TES_NSEC / 1000};
}

/* ---- Reading clocks ---- */

static glong sys_clock_gettime(TesTask *t, const gulong a[6]) {
  TesTime now;
  int r = tes_clock_get(t, (int)a[0], &now);
  return r < 0 ? r : put_timespec(t, a[1], now);
}

static glong sys_clock_getres(TesTask *t, const gulong a[6]) {
  int id = (int)a[0];
  TesTime unused, res = 1;
  int r = tes_clock_get(t, id, &unused);
  if (r < 0)
    return r;
  if (id == CLOCK_REALTIME_COARSE || id == CLOCK_MONOTONIC_COARSE)
    res = TES_COARSE_NS;
  else if (tes_clock_is_cpu(id))
    res = TES_CLOCK_TICK;
  return a[1] ? put_timespec(t, a[1], res) : 0;
}

static glong sys_clock_settime(TesTask *t, const gulong a[6]) {
  TesTime value;
  int id = (int)a[0];
  if (id != CLOCK_REALTIME && !tes_clock_is_cpu(id))
    return -EINVAL;
  int r = get_timespec(t, a[1], &value);
  return r < 0 ? r : -EPERM;
}

static glong sys_gettimeofday(TesTask *t, const gulong a[6]) {
  struct timeval tv = timeval_from_ns(tes_time_realtime(t->kernel));
  struct timezone tz = {0};
  if (a[0] && tes_copy_out(t, a[0], &tv, sizeof tv) < 0)
    return -EFAULT;
  if (a[1] && tes_copy_out(t, a[1], &tz, sizeof tz) < 0)
    return -EFAULT;
  return 0;
}

static glong sys_settimeofday(TesTask *t, const gulong a[6]) {
  struct timeval tv;
  struct timezone tz;
  TesTime ns;
  if (a[0] && tes_copy_in(t, &tv, a[0], sizeof tv) < 0)
    return -EFAULT;
  if (a[0] && !timeval_to_ns(&tv, &ns))
    return -EINVAL;
  if (a[1] && tes_copy_in(t, &tz, a[1], sizeof tz) < 0)
    return -EFAULT;
  return -EPERM;
}

static glong sys_time(TesTask *t, const gulong a[6]) {
  /* From the coarse clock, as in the vDSO: time(2) must not be ahead of it. */
  TesTime now;
  tes_clock_get(t, CLOCK_REALTIME_COARSE, &now);
  gint64 s = now / TES_NSEC;
  if (a[0] && tes_copy_out(t, a[0], &s, sizeof s) < 0)
    return -EFAULT;
  return s;
}

static glong sys_times(TesTask *t, const gulong a[6]) {
  struct tms b = {
      .tms_utime = __atomic_load_n(&t->tg->utime, __ATOMIC_RELAXED),
      .tms_stime = __atomic_load_n(&t->tg->stime, __ATOMIC_RELAXED),
      .tms_cutime = __atomic_load_n(&t->tg->child_utime, __ATOMIC_RELAXED),
      .tms_cstime = __atomic_load_n(&t->tg->child_stime, __ATOMIC_RELAXED),
  };
  if (a[0] && tes_copy_out(t, a[0], &b, sizeof b) < 0)
    return -EFAULT;
  return tes_time_monotonic(t->kernel) / TES_CLOCK_TICK;
}

/* ---- adjtimex: reading only. The clock is the host's; for the guest it is one that nobody steers. ---- */

static glong adjust(TesTask *t, gulong addr) {
  struct timex x;
  if (tes_copy_in(t, &x, addr, sizeof x) < 0)
    return -EFAULT;
  if (x.modes != 0 && x.modes != ADJ_OFFSET_SS_READ)
    return -EPERM;
  x = (struct timex){
      .modes = x.modes,
      .maxerror = 16000000,
      .esterror = 16000000,
      .status = STA_UNSYNC,
      .constant = 2,
      .precision = 1,
      .tolerance = 32768000,
      .tick = 10000,
      .time = timeval_from_ns(tes_time_realtime(t->kernel)),
  };
  return tes_copy_out(t, addr, &x, sizeof x) < 0 ? -EFAULT : TIME_ERROR;
}

static glong sys_adjtimex(TesTask *t, const gulong a[6]) { return adjust(t, a[0]); }

static glong sys_clock_adjtime(TesTask *t, const gulong a[6]) {
  TesTime unused;
  int id = (int)a[0];
  if (id == CLOCK_REALTIME)
    return adjust(t, a[1]);
  return tes_clock_get(t, id, &unused) < 0 ? -EINVAL : -EOPNOTSUPP;
}

/* ---- Sleeping ---- */

/* Sleeps to the end (0) or until a signal (-EINTR). */
static int sleep_until(TesTask *t, int clockid, TesTime deadline) {
  int r;
  while ((r = tes_clock_block(t, clockid, deadline)) == 0)
    ;
  return r == -ETIMEDOUT ? 0 : r;
}

static glong sleep_relative(TesTask *t, TesTime deadline, gulong remaining);

static glong restart_sleep(TesTask *t, const gulong a[6]) { return sleep_relative(t, (TesTime)a[0], a[1]); }

/* Relative sleeps are on the monotonic clock, whichever was named: setting the date does not change them (C3). */
static glong sleep_relative(TesTask *t, TesTime deadline, gulong remaining) {
  if (sleep_until(t, CLOCK_MONOTONIC, deadline) == 0)
    return 0;
  TesTime left = deadline - tes_time_monotonic(t->kernel);
  if (left <= 0)
    return 0;
  if (remaining && put_timespec(t, remaining, left) < 0)
    return -EFAULT;
  tes_task_set_restart(t, restart_sleep, (gulong[6]){deadline, remaining});
  return -TES_ERESTART_RESTARTBLOCK;
}

static glong sys_nanosleep(TesTask *t, const gulong a[6]) {
  TesTime length;
  int r = get_timespec(t, a[0], &length);
  return r < 0 ? r : sleep_relative(t, tes_time_add(tes_time_monotonic(t->kernel), length), a[1]);
}

static glong sleep_cpu(TesTask *t, int clockid, TesTime deadline, gulong remaining, gboolean absolute);

static glong restart_cpu(TesTask *t, const gulong a[6]) {
  return sleep_cpu(t, (int)a[0], (TesTime)a[1], a[2], FALSE);
}

/* A CPU clock runs at most `cores` times as fast as real time: look again when it can have got there. */
static glong sleep_cpu(TesTask *t, int clockid, TesTime deadline, gulong remaining, gboolean absolute) {
  TesTime now;
  for (;;) {
    int r = tes_clock_get(t, clockid, &now);
    if (r < 0)
      return r;
    if (now >= deadline)
      return 0;
    TesTime wait = MAX((deadline - now) / t->kernel->cores, TES_CLOCK_TICK);
    if (tes_task_block(t, tes_time_add(tes_time_monotonic(t->kernel), wait)) == -EINTR)
      break;
  }
  if (absolute)
    return -TES_ERESTARTNOHAND;
  if (remaining && put_timespec(t, remaining, deadline - now) < 0)
    return -EFAULT;
  tes_task_set_restart(t, restart_cpu, (gulong[6]){clockid, deadline, remaining});
  return -TES_ERESTART_RESTARTBLOCK;
}

static glong nanosleep_cpu(TesTask *t, int clockid, TesTime value, gulong remaining, gboolean absolute) {
  TesTask *task;
  TesThreadGroup *tg;
  if (clockid == CLOCK_THREAD_CPUTIME_ID)
    return -EOPNOTSUPP;
  int r = tes_cpu_clock_find(t, clockid, &task, &tg);
  if (r < 0)
    return r;
  gboolean own_thread = task == t;
  g_clear_pointer(&task, tes_task_unref);
  g_clear_pointer(&tg, tes_tg_unref);
  if (own_thread)
    return -EINVAL; /* it stands still while it sleeps */
  TesTime now = 0;
  if (!absolute)
    tes_clock_get(t, clockid, &now);
  return sleep_cpu(t, clockid, tes_time_add(now, value), remaining, absolute);
}

static int check_sleep_clock(TesTask *t, int clockid) {
  switch (clockid) {
  case CLOCK_REALTIME:
  case CLOCK_MONOTONIC:
  case CLOCK_BOOTTIME:
  case CLOCK_TAI:
    return 0;
  case CLOCK_REALTIME_ALARM:
  case CLOCK_BOOTTIME_ALARM:
    return tes_task_capable(t, CAP_WAKE_ALARM) ? 0 : -EPERM;
  case CLOCK_MONOTONIC_RAW:
  case CLOCK_REALTIME_COARSE:
  case CLOCK_MONOTONIC_COARSE:
    return -EOPNOTSUPP;
  default:
    return -EINVAL;
  }
}

static glong sys_clock_nanosleep(TesTask *t, const gulong a[6]) {
  int clockid = (int)a[0];
  gboolean absolute = (a[1] & TIMER_ABSTIME) != 0;
  TesTime value;
  int r = tes_clock_is_cpu(clockid) ? 0 : check_sleep_clock(t, clockid);
  if (r == 0)
    r = get_timespec(t, a[2], &value);
  if (r < 0)
    return r;
  if (tes_clock_is_cpu(clockid))
    return nanosleep_cpu(t, clockid, value, a[3], absolute);
  if (!absolute)
    return sleep_relative(t, tes_time_add(tes_time_monotonic(t->kernel), value), a[3]);
  return sleep_until(t, clockid, value) < 0 ? -TES_ERESTARTNOHAND : 0;
}

/* ---- Interval timers ---- */

/* An armed timer never reads as 0. */
static struct itimerval make_itimerval(TesTime left, TesTime period) {
  return (struct itimerval){.it_value = timeval_from_ns(left > 0 ? MAX(left, 1000) : 0),
                            .it_interval = timeval_from_ns(period)};
}

static gboolean which_ok(int which) {
  return which == ITIMER_REAL || which == ITIMER_VIRTUAL || which == ITIMER_PROF;
}

static glong sys_getitimer(TesTask *t, const gulong a[6]) {
  TesTime left, period;
  if (!which_ok((int)a[0]))
    return -EINVAL;
  tes_itimer_get(t->tg, (int)a[0], &left, &period);
  struct itimerval v = make_itimerval(left, period);
  return tes_copy_out(t, a[1], &v, sizeof v);
}

static glong sys_setitimer(TesTask *t, const gulong a[6]) {
  struct itimerval v = {0};
  TesTime value, period, old_left, old_period;
  if (a[1] && tes_copy_in(t, &v, a[1], sizeof v) < 0)
    return -EFAULT;
  if (!which_ok((int)a[0]) || !timeval_to_ns(&v.it_value, &value) || !timeval_to_ns(&v.it_interval, &period))
    return -EINVAL;
  tes_itimer_set(t->tg, (int)a[0], value, period, &old_left, &old_period);
  v = make_itimerval(old_left, old_period);
  return a[2] ? tes_copy_out(t, a[2], &v, sizeof v) : 0;
}

/* What was left is rounded to the nearest second, but never to 0. */
static glong sys_alarm(TesTask *t, const gulong a[6]) {
  TesTime old_left, old_period;
  tes_itimer_set(t->tg, ITIMER_REAL, (TesTime)(guint32)a[0] * TES_NSEC, 0, &old_left, &old_period);
  if (old_left == 0)
    return 0;
  return MAX((old_left + TES_NSEC / 2) / TES_NSEC, 1);
}

/* ---- POSIX timers ---- */

/* The kernel's struct sigevent (64 bytes): only its beginning means something. */
typedef struct {
  guint64 value;
  gint32 signo, notify, tid;
  gint32 pad[11];
} UserSigEvent;

static glong sys_timer_create(TesTask *t, const gulong a[6]) {
  UserSigEvent u;
  TesSigEvent ev;
  if (a[1]) {
    if (tes_copy_in(t, &u, a[1], sizeof u) < 0)
      return -EFAULT;
    ev = (TesSigEvent){.notify = u.notify, .signo = u.signo, .value = u.value, .tid = u.tid};
  }
  int id = tes_posix_timer_create(t, (int)a[0], a[1] ? &ev : NULL);
  if (id < 0)
    return id;
  if (tes_copy_out(t, a[2], &id, sizeof id) < 0) {
    tes_posix_timer_delete(t, id);
    return -EFAULT;
  }
  return 0;
}

static struct itimerspec make_itimerspec(TesTime left, TesTime period) {
  return (struct itimerspec){.it_value = tes_timespec_from_ns(left),
                             .it_interval = tes_timespec_from_ns(period)};
}

static glong sys_timer_settime(TesTask *t, const gulong a[6]) {
  struct itimerspec v;
  TesTime old_left, old_period;
  if (!a[2])
    return -EINVAL;
  if (tes_copy_in(t, &v, a[2], sizeof v) < 0)
    return -EFAULT;
  if (!tes_timespec_valid(&v.it_value) || !tes_timespec_valid(&v.it_interval))
    return -EINVAL;
  int r = tes_posix_timer_set(t, (int)a[0], (a[1] & TIMER_ABSTIME) != 0, tes_timespec_to_ns(&v.it_value),
                              tes_timespec_to_ns(&v.it_interval), &old_left, &old_period);
  if (r < 0 || !a[3])
    return r;
  v = make_itimerspec(old_left, old_period);
  return tes_copy_out(t, a[3], &v, sizeof v);
}

static glong sys_timer_gettime(TesTask *t, const gulong a[6]) {
  TesTime left, period;
  int r = tes_posix_timer_get(t, (int)a[0], &left, &period);
  if (r < 0)
    return r;
  struct itimerspec v = make_itimerspec(left, period);
  return tes_copy_out(t, a[1], &v, sizeof v);
}

static glong sys_timer_getoverrun(TesTask *t, const gulong a[6]) {
  return tes_posix_timer_overrun(t, (int)a[0]);
}

static glong sys_timer_delete(TesTask *t, const gulong a[6]) { return tes_posix_timer_delete(t, (int)a[0]); }

static const TesSyscall rows[] = {
    {35, "nanosleep", sys_nanosleep, TES_FULL, NULL, "Tp"},
    {36, "getitimer", sys_getitimer, TES_FULL, NULL, "dp"},
    {37, "alarm", sys_alarm, TES_FULL, NULL, "u"},
    {38, "setitimer", sys_setitimer, TES_FULL, NULL, "dpp"},
    {96, "gettimeofday", sys_gettimeofday, TES_FULL, NULL, "pp"},
    {100, "times", sys_times, TES_FULL, NULL, "p"},
    {159, "adjtimex", sys_adjtimex, TES_PARTIAL, "reading only: changes are EPERM", "p"},
    {164, "settimeofday", sys_settimeofday, TES_PARTIAL, "always EPERM: clocks cannot be set", "pp"},
    {201, "time", sys_time, TES_FULL, NULL, "p"},
    {222, "timer_create", sys_timer_create, TES_PARTIAL, "CPU clocks only of the caller's own process",
     "dpp"},
    {223, "timer_settime", sys_timer_settime, TES_FULL, NULL, "ddpp"},
    {224, "timer_gettime", sys_timer_gettime, TES_FULL, NULL, "dp"},
    {225, "timer_getoverrun", sys_timer_getoverrun, TES_FULL, NULL, "d"},
    {226, "timer_delete", sys_timer_delete, TES_FULL, NULL, "d"},
    {227, "clock_settime", sys_clock_settime, TES_PARTIAL, "always EPERM: clocks cannot be set", "dT"},
    {228, "clock_gettime", sys_clock_gettime, TES_FULL, NULL, "dp"},
    {229, "clock_getres", sys_clock_getres, TES_FULL, NULL, "dp"},
    {230, "clock_nanosleep", sys_clock_nanosleep, TES_FULL, NULL, "ddTp"},
    {305, "clock_adjtime", sys_clock_adjtime, TES_PARTIAL, "reading only: changes are EPERM", "dp"},
};

const TesSyscallTable tes_sys_time = TES_ROWS(rows);
