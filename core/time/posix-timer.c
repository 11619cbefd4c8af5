/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX timers: timer_create(2), timer_settime(2), timer_getoverrun(2). Interface: itimer.h.
 *
 * A timer has at most one signal pending; expirations meanwhile count as its overrun. Timers on real clocks are
 * timers of the service; those on CPU clocks are looked at when the CPU clock charges the group. */
#include <core/time/cpuclock.h>
#include <core/time/itimer.h>
#include <linux/capability.h>

#define TIMERS_MAX 32768 /* a group's, whatever RLIMIT_SIGPENDING says */

typedef struct {
  int id;
  TesThreadGroup *tg; /* borrowed: the group clears its timers first */
  int clockid;
  int notify, signo;
  sigval_t value;
  TesTask *target;                 /* SIGEV_THREAD_ID; owned */
  TesTask *cpu_task;               /* thread CPU clock; owned. NULL: the group's */
  TesTimer timer;                  /* real clocks */
  TesTime cpu_expiry, cpu_period;  /* CPU clocks; INFINITE: disarmed */
  guint64 overrun, overrun_before; /* of the signal sent last, and of the one before it */
} PosixTimer;

static gboolean is_cpu(const PosixTimer *p) { return tes_clock_is_cpu(p->clockid); }

static void posix_timer_free(PosixTimer *p) {
  g_clear_pointer(&p->target, tes_task_unref);
  g_clear_pointer(&p->cpu_task, tes_task_unref);
  g_free(p);
}

/* ---- Expiry; timer_lock held ---- */

/* The entry that waits for delivery, or NULL. Signal lock held. */
static TesSigQueued *pending_entry(const PosixTimer *p) {
  TesSigQueued *q = p->target ? p->target->pending.head : p->tg->pending.head;
  while (q && !(q->info.si_code == SI_TIMER && q->info.si_timerid == p->id))
    q = q->next;
  return q;
}

static int clamp_overrun(guint64 n) { return (int)MIN(n, G_MAXINT32); }

static gboolean count_overrun(PosixTimer *p, guint64 missed) {
  TES_LOCKED(&p->tg->sighand->lock);
  TesSigQueued *q = pending_entry(p);
  if (!q)
    return FALSE;
  p->overrun += missed;
  q->info.si_overrun = clamp_overrun(p->overrun);
  return TRUE;
}

static void expire(PosixTimer *p, guint64 missed) {
  if (p->notify == SIGEV_NONE || count_overrun(p, missed))
    return;
  siginfo_t info = {.si_signo = p->signo, .si_code = SI_TIMER};
  p->overrun_before = p->overrun;
  p->overrun = missed - 1;
  info.si_timerid = p->id;
  info.si_overrun = clamp_overrun(p->overrun);
  info.si_value = p->value;
  if (p->target)
    tes_signal_task(p->target, p->signo, &info);
  else
    tes_signal_group(p->tg, p->signo, &info);
}

static void on_timer(TesTimer *t, guint64 missed, gpointer data) {
  PosixTimer *p = data;
  (void)t;
  TES_LOCKED(&p->tg->timer_lock);
  expire(p, missed);
}

static TesTime cpu_now(const PosixTimer *p) {
  return p->cpu_task ? tes_cpu_time_task(p->cpu_task) : tes_cpu_time_group(p->tg);
}

static void charge_one(gpointer key, gpointer value, gpointer data) {
  PosixTimer *p = value;
  (void)key;
  if (!is_cpu(p) || p->cpu_expiry == TES_TIME_INFINITE || (p->cpu_task && p->cpu_task != data))
    return;
  TesTime now = cpu_now(p);
  if (now < p->cpu_expiry)
    return;
  guint64 missed = 1;
  if (p->cpu_period > 0) {
    missed += (now - p->cpu_expiry) / p->cpu_period;
    p->cpu_expiry = tes_time_add(p->cpu_expiry, missed * p->cpu_period);
  } else {
    p->cpu_expiry = TES_TIME_INFINITE;
  }
  expire(p, missed);
}

void tes_posix_timers_charge(TesTask *t) {
  TES_LOCKED(&t->tg->timer_lock);
  if (t->tg->posix_timers)
    g_hash_table_foreach(t->tg->posix_timers, charge_one, t);
}

/* ---- Creation and removal ---- */

static int check_clock(TesTask *t, int clockid) {
  switch (clockid) {
  case CLOCK_REALTIME:
  case CLOCK_MONOTONIC:
  case CLOCK_BOOTTIME:
  case CLOCK_TAI:
  case CLOCK_PROCESS_CPUTIME_ID:
  case CLOCK_THREAD_CPUTIME_ID:
    return 0;
  case CLOCK_REALTIME_ALARM:
  case CLOCK_BOOTTIME_ALARM:
    return tes_task_capable(t, CAP_WAKE_ALARM) ? 0 : -EPERM;
  case CLOCK_MONOTONIC_RAW:
  case CLOCK_REALTIME_COARSE:
  case CLOCK_MONOTONIC_COARSE:
    return -EOPNOTSUPP;
  default:
    return clockid < 0 ? 0 : -EINVAL;
  }
}

/* A CPU clock must be of the caller's own group. */
static int bind_cpu_clock(TesTask *t, PosixTimer *p) {
  TesThreadGroup *tg = NULL;
  int r = tes_cpu_clock_find(t, p->clockid, &p->cpu_task, &tg);
  if (r < 0)
    return r;
  gboolean own = (p->cpu_task ? p->cpu_task->tg : tg) == t->tg;
  g_clear_pointer(&tg, tes_tg_unref);
  return own ? 0 : -EINVAL;
}

static int bind_event(TesTask *t, PosixTimer *p, const TesSigEvent *ev) {
  if (!ev) {
    p->notify = SIGEV_SIGNAL;
    p->signo = SIGALRM;
    return 0;
  }
  p->notify = ev->notify;
  p->signo = ev->signo;
  p->value.sival_ptr = (void *)ev->value;
  if (ev->notify == SIGEV_NONE)
    return 0;
  if ((ev->notify != SIGEV_SIGNAL && ev->notify != SIGEV_THREAD && ev->notify != SIGEV_THREAD_ID) ||
      ev->signo < 1 || ev->signo > TES_NSIG)
    return -EINVAL;
  if (ev->notify == SIGEV_THREAD_ID) {
    p->target = tes_task_find(t->kernel, t->ns_pid, ev->tid, FALSE);
    if (!p->target || p->target->tg != t->tg)
      return -EINVAL;
  }
  return 0;
}

static gboolean on_realtime(int clockid) {
  return clockid == CLOCK_REALTIME || clockid == CLOCK_REALTIME_ALARM || clockid == CLOCK_TAI;
}

/* Ids grow and are not given out again before they wrap. timer_lock held. */
static int add_timer(TesThreadGroup *tg, PosixTimer *p, guint64 limit) {
  if (!tg->posix_timers)
    tg->posix_timers = g_hash_table_new(NULL, NULL);
  if (g_hash_table_size(tg->posix_timers) >= MIN(limit, TIMERS_MAX))
    return -EAGAIN;
  do
    p->id = tg->next_timer_id++ & G_MAXINT32;
  while (g_hash_table_contains(tg->posix_timers, GINT_TO_POINTER(p->id)));
  g_hash_table_insert(tg->posix_timers, GINT_TO_POINTER(p->id), p);
  tg->n_cpu_timers += is_cpu(p);
  return p->id;
}

int tes_posix_timer_create(TesTask *t, int clockid, const TesSigEvent *ev) {
  int r = check_clock(t, clockid);
  if (r < 0)
    return r;
  PosixTimer *p = g_new0(PosixTimer, 1);
  p->tg = t->tg;
  p->clockid = clockid;
  p->cpu_expiry = TES_TIME_INFINITE;
  tes_timer_init(&p->timer, t->kernel, on_realtime(clockid), on_timer, p);
  if (is_cpu(p))
    r = bind_cpu_clock(t, p);
  if (r == 0)
    r = bind_event(t, p, ev);
  guint64 limit = tes_task_rlimit(t, RLIMIT_SIGPENDING);
  if (r == 0) {
    TES_LOCKED(&t->tg->timer_lock);
    r = add_timer(t->tg, p, limit);
    if (r >= 0 && !ev)
      p->value.sival_ptr = (void *)(gulong)r;
  }
  if (r < 0)
    posix_timer_free(p);
  return r;
}

/* It is in no table any more. */
static void dispose(PosixTimer *p) {
  tes_timer_cancel(&p->timer, TRUE);
  posix_timer_free(p);
}

int tes_posix_timer_delete(TesTask *t, int id) {
  TesThreadGroup *tg = t->tg;
  PosixTimer *p = NULL;
  tes_mutex_lock(&tg->timer_lock);
  if (tg->posix_timers && (p = g_hash_table_lookup(tg->posix_timers, GINT_TO_POINTER(id)))) {
    g_hash_table_remove(tg->posix_timers, GINT_TO_POINTER(id));
    tg->n_cpu_timers -= is_cpu(p);
  }
  tes_mutex_unlock(&tg->timer_lock);
  if (!p)
    return -EINVAL;
  dispose(p);
  return 0;
}

void tes_posix_timers_clear(TesThreadGroup *tg) {
  tes_mutex_lock(&tg->timer_lock);
  GHashTable *all = g_steal_pointer(&tg->posix_timers);
  tg->n_cpu_timers = 0;
  tes_mutex_unlock(&tg->timer_lock);
  if (!all)
    return;
  GHashTableIter it;
  gpointer p;
  g_hash_table_iter_init(&it, all);
  while (g_hash_table_iter_next(&it, NULL, &p))
    dispose(p);
  g_hash_table_unref(all);
}

/* ---- Use; everything under timer_lock ---- */

static PosixTimer *find_locked(TesTask *t, int id) {
  return t->tg->posix_timers ? g_hash_table_lookup(t->tg->posix_timers, GINT_TO_POINTER(id)) : NULL;
}

static void get_locked(PosixTimer *p, TesTime *left, TesTime *period) {
  if (is_cpu(p)) {
    *left = p->cpu_expiry == TES_TIME_INFINITE ? 0 : MAX(p->cpu_expiry - cpu_now(p), 1);
    *period = p->cpu_period;
  } else {
    tes_timer_get(&p->timer, left, period);
  }
}

/* The moment on the service's clock. Boot time differs from monotonic time by what the host slept. */
static TesTime service_expiry(PosixTimer *p, gboolean absolute, TesTime value) {
  TesKernel *k = p->tg->kernel;
  TesTime mono = tes_time_monotonic(k);
  if (!absolute)
    return tes_time_add(p->timer.realtime ? tes_time_realtime(k) : mono, value);
  if (p->clockid == CLOCK_BOOTTIME || p->clockid == CLOCK_BOOTTIME_ALARM)
    return value - (tes_time_boot(k) - mono);
  return value;
}

static void set_locked(PosixTimer *p, gboolean absolute, TesTime value, TesTime period) {
  if (is_cpu(p)) {
    p->cpu_expiry = value == 0 ? TES_TIME_INFINITE : absolute ? value : tes_time_add(cpu_now(p), value);
    p->cpu_period = period;
  } else if (value == 0) {
    tes_timer_cancel(&p->timer, FALSE);
  } else {
    tes_timer_arm(&p->timer, service_expiry(p, absolute, value), period);
  }
  p->overrun = p->overrun_before = 0;
}

int tes_posix_timer_set(TesTask *t, int id, gboolean absolute, TesTime value, TesTime period,
                        TesTime *old_left, TesTime *old_period) {
  TES_LOCKED(&t->tg->timer_lock);
  PosixTimer *p = find_locked(t, id);
  if (!p)
    return -EINVAL;
  get_locked(p, old_left, old_period);
  set_locked(p, absolute, value, value == 0 ? 0 : period);
  return 0;
}

int tes_posix_timer_get(TesTask *t, int id, TesTime *left, TesTime *period) {
  TES_LOCKED(&t->tg->timer_lock);
  PosixTimer *p = find_locked(t, id);
  if (!p)
    return -EINVAL;
  get_locked(p, left, period);
  return 0;
}

int tes_posix_timer_overrun(TesTask *t, int id) {
  TES_LOCKED(&t->tg->timer_lock);
  PosixTimer *p = find_locked(t, id);
  if (!p)
    return -EINVAL;
  TES_LOCKED(&t->tg->sighand->lock);
  return clamp_overrun(pending_entry(p) ? p->overrun_before : p->overrun);
}
