/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/time and core/syscalls/time.c: a thread group's timers. */
#pragma once

#include <core/task/task.h>
#include <sys/time.h>

/* which: ITIMER_*. Times left and periods in ns; 0: disarmed. */
void tes_itimer_get(TesThreadGroup *, int which, TesTime *left, TesTime *period);
void tes_itimer_set(TesThreadGroup *, int which, TesTime value, TesTime period, TesTime *old_left,
                    TesTime *old_period);

/* ---- posix-timer.c: timer_create(2) and its family ---- */
typedef struct {
  int notify; /* SIGEV_* */
  int signo;
  gulong value;
  gint tid; /* SIGEV_THREAD_ID: in the caller's namespace */
} TesSigEvent;
/* ev NULL: SIGALRM with the timer's id as value. Returns the id, -EINVAL, -EOPNOTSUPP, -EPERM, -EAGAIN. */
int tes_posix_timer_create(TesTask *, int clockid, const TesSigEvent *ev);
int tes_posix_timer_set(TesTask *, int id, gboolean absolute, TesTime value, TesTime period,
                        TesTime *old_left, TesTime *old_period);
int tes_posix_timer_get(TesTask *, int id, TesTime *left, TesTime *period);
int tes_posix_timer_overrun(TesTask *, int id);
int tes_posix_timer_delete(TesTask *, int id);
/* All of a group's (exec, exit). No lock held. */
void tes_posix_timers_clear(TesThreadGroup *);

/* ---- clocks.c ---- */
/* CPU clocks: the thing a clock id stands for. 0 with exactly one of *task (referenced) and *tg (referenced), -EINVAL. */
int tes_cpu_clock_find(TesTask *, int clockid, TesTask **task, TesThreadGroup **tg);
static inline gboolean tes_clock_is_cpu(int clockid) {
  return clockid < 0 || clockid == CLOCK_PROCESS_CPUTIME_ID || clockid == CLOCK_THREAD_CPUTIME_ID;
}
/* Blocks until woken (0), a signal (-EINTR), or the clock shows `deadline` (-ETIMEDOUT). The clock may be any but a CPU clock; a realtime
 * deadline follows settings of the host's date (of deadlines within a second: only backward). */
int tes_clock_block(TesTask *, int clockid, TesTime deadline);
