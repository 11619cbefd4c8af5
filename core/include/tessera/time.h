/* SPDX-License-Identifier: Apache-2.0 */
/* Time: the timekeeper, its clocks, and timers. Every clock, timeout and timer of the sandbox goes through it,
 * so that time can pause, jump, scale or be virtual (FEATURES.md 1.3). All times are nanoseconds. */
#pragma once

#include <tessera/lock.h>
#include <tessera/types.h>
#include <time.h>

TES_BEGIN_DECLS

#define TES_CLOCK_TICK ((TesTime)10 * 1000 * 1000) /* CPU accounting unit, 10 ms (C5) */

/* A source of time; the two clocks of a timekeeper are of this type, and a plugin or a test may supply others. */
typedef struct _TesClock TesClock;
struct _TesClock {
  TesTime (*now)(TesClock *);
  gpointer data;
};

/* Transfer full. Clocks are set (tes_timekeeper_set_clocks) before a kernel is initialised (L6). */
TesTimekeeper *tes_timekeeper_new(void);
void tes_timekeeper_free(TesTimekeeper *);
/* NULL clocks mean the host's. Borrowed; they must outlive the timekeeper. */
void tes_timekeeper_set_clocks(TesTimekeeper *, TesClock *realtime, TesClock *monotonic);
gboolean tes_timekeeper_has_clocks(const TesTimekeeper *);

TesTime tes_time_monotonic(TesKernel *); /* NowMonotonic: never goes back (C3) */
TesTime tes_time_realtime(TesKernel *);  /* NowNanoseconds (C3) */
TesTime tes_time_boot(TesKernel *);
TesClock *tes_kernel_realtime_clock(TesKernel *);
TesClock *tes_kernel_monotonic_clock(TesKernel *);
/* Kernel CPU clock in ticks: +1 per tick while a task runs (C5, C6). */
guint64 tes_kernel_cpu_ticks(TesKernel *);
/* Host CLOCK_MONOTONIC time at which the sandbox's monotonic clock will show `t`, for host waits. */
TesTime tes_time_to_host(TesKernel *, TesTime t);
/* Stops and resumes all clocks, timers and vDSO updates; idempotent (C10, C13). */
void tes_time_pause(TesKernel *);
void tes_time_resume(TesKernel *);

/* Reads a clock for a task: all clock ids of clock_gettime(2), CPU clocks of other processes included.
 * Returns 0 or -EINVAL. */
int tes_clock_get(TesTask *, int clockid, TesTime *out);

/* A timer on one of the sandbox's clocks. The callback runs on the kernel's event thread without locks held;
 * `missed` is how many expirations it stands for (>= 1). */
typedef struct _TesTimer TesTimer;
typedef void (*TesTimerFunc)(TesTimer *, guint64 missed, gpointer data);
struct _TesTimer {
  TesKernel *kernel;
  TesTimerFunc fn;
  gpointer data;
  gboolean realtime; /* CLOCK_REALTIME instead of CLOCK_MONOTONIC */
  TesTime expiry;    /* TES_TIME_INFINITE: not armed */
  TesTime period;    /* 0: one-shot */
  gsize heap_index;  /* private */
  guint firing;      /* private */
};
void tes_timer_init(TesTimer *, TesKernel *, gboolean realtime, TesTimerFunc fn, gpointer data);
/* (Re)arms: absolute `expiry` on its clock; period 0 for one-shot. */
void tes_timer_arm(TesTimer *, TesTime expiry, TesTime period);
/* Disarms. With `wait` it also waits for a running callback to end (not from the callback itself, no lock held
 * that the callback takes). */
void tes_timer_cancel(TesTimer *, gboolean wait);
/* Time until expiry and the period; *left is 0 when disarmed. */
void tes_timer_get(TesTimer *, TesTime *left, TesTime *period);
/* How often it has expired by now without having been fired, because the event thread is late. These are taken: the
 * callback will not run for them. */
guint64 tes_timer_overdue(TesTimer *);

/* Times as system calls give them. Valid: not negative, nanoseconds below a second (else EINVAL). What does not fit in
 * TesTime becomes the last moment before TES_TIME_INFINITE, as in Linux. */
static inline gboolean tes_timespec_valid(const struct timespec *ts) {
  return ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < TES_NSEC;
}
static inline TesTime tes_timespec_to_ns(const struct timespec *ts) {
  return ts->tv_sec >= G_MAXINT64 / TES_NSEC ? TES_TIME_INFINITE - 1 : ts->tv_sec * TES_NSEC + ts->tv_nsec;
}
static inline struct timespec tes_timespec_from_ns(TesTime ns) {
  struct timespec ts = {ns / TES_NSEC, ns % TES_NSEC};
  return ts;
}
/* a + b, both not negative, at most the last moment before TES_TIME_INFINITE. */
static inline TesTime tes_time_add(TesTime a, TesTime b) {
  return b >= TES_TIME_INFINITE - 1 - a ? TES_TIME_INFINITE - 1 : a + b;
}

TES_END_DECLS
