/* SPDX-License-Identifier: Apache-2.0 */
/* Clock ids: clock_getres(2), clock_nanosleep(2), clock_getcpuclockid(3). Interface: tes_clock_get() in
 * <tessera/time.h>, and itimer.h. */
#include <core/time/cpuclock.h>
#include <core/time/itimer.h>
#include <core/time/timekeeper.h>

/* Ids of CPU clocks of any process or thread are negative: ~number << 3, a bit for "thread", two for the kind. */
#define CPU_KIND(id) ((id)&3) /* 0 PROF, 1 VIRT, 2 SCHED; 3: a clock device's descriptor */
#define CPU_THREAD(id) (((id)&4) != 0)
#define CPU_NUMBER(id) (~((id) >> 3))

int tes_cpu_clock_find(TesTask *t, int clockid, TesTask **task, TesThreadGroup **tg) {
  gboolean thread = clockid == CLOCK_THREAD_CPUTIME_ID;
  gint number = 0;
  *task = NULL;
  *tg = NULL;
  if (clockid < 0) {
    if (CPU_KIND(clockid) == 3)
      return -EINVAL;
    thread = CPU_THREAD(clockid);
    number = CPU_NUMBER(clockid);
  }
  g_autoptr(TesTask) found = number ? tes_task_find(t->kernel, t->ns_pid, number, !thread) : tes_task_ref(t);
  if (!found || (thread && found->tg != t->tg)) /* another process's threads have no clock here */
    return -EINVAL;
  if (thread)
    *task = g_steal_pointer(&found);
  else
    *tg = tes_tg_ref(found->tg);
  return 0;
}

static int get_cpu(TesTask *t, int clockid, TesTime *out) {
  TesTask *task;
  TesThreadGroup *tg;
  int r = tes_cpu_clock_find(t, clockid, &task, &tg);
  if (r < 0)
    return r;
  *out = task ? tes_cpu_time_task(task) : tes_cpu_time_group(tg);
  g_clear_pointer(&task, tes_task_unref);
  g_clear_pointer(&tg, tes_tg_unref);
  return 0;
}

int tes_clock_get(TesTask *t, int clockid, TesTime *out) {
  TesNow now;
  if (tes_clock_is_cpu(clockid))
    return get_cpu(t, clockid, out);
  tes_timekeeper_now(t->kernel->timekeeper, &now);
  switch (clockid) {
  case CLOCK_REALTIME:
  case CLOCK_REALTIME_ALARM:
  case CLOCK_TAI: /* no leap seconds are configured */
    *out = now.real;
    return 0;
  case CLOCK_MONOTONIC:
  case CLOCK_MONOTONIC_RAW:
    *out = now.mono;
    return 0;
  case CLOCK_BOOTTIME:
  case CLOCK_BOOTTIME_ALARM:
    *out = now.boot;
    return 0;
  case CLOCK_REALTIME_COARSE:
    *out = now.real - now.mono % TES_COARSE_NS; /* as the vDSO does it */
    return 0;
  case CLOCK_MONOTONIC_COARSE:
    *out = now.mono - now.mono % TES_COARSE_NS;
    return 0;
  default:
    return -EINVAL;
  }
}

/* ---- Sleeping on a clock ---- */

static void wake_task(TesTimer *timer, guint64 missed, gpointer task) {
  (void)timer, (void)missed;
  tes_task_wake(task);
}

/* A far realtime deadline waits on a timer too, which fires when the host's date is set forward. */
static int block_realtime(TesTask *t, TesTime deadline, TesTime left, TesTime until) {
  if (left < TES_NSEC)
    return tes_task_block(t, until);
  TesTimer timer;
  tes_timer_init(&timer, t->kernel, TRUE, wake_task, t);
  tes_timer_arm(&timer, deadline, 0);
  int r = tes_task_block(t, TES_TIME_INFINITE);
  tes_timer_cancel(&timer, TRUE);
  return r;
}

int tes_clock_block(TesTask *t, int clockid, TesTime deadline) {
  if (deadline == TES_TIME_INFINITE || clockid == CLOCK_MONOTONIC)
    return tes_task_block(t, deadline);
  TesTime now;
  int r = tes_clock_get(t, clockid, &now);
  if (r < 0)
    return r;
  if (now >= deadline)
    return -ETIMEDOUT;
  TesTime left = deadline - now, until = tes_time_add(tes_time_monotonic(t->kernel), left);
  gboolean realtime = clockid == CLOCK_REALTIME || clockid == CLOCK_REALTIME_ALARM || clockid == CLOCK_TAI;
  r = realtime ? block_realtime(t, deadline, left, until) : tes_task_block(t, until);
  if (r == -ETIMEDOUT || r == 0) {
    TesTime then;
    tes_clock_get(t, clockid, &then);
    r = then >= deadline ? -ETIMEDOUT : 0;
  }
  return r;
}
