/* SPDX-License-Identifier: Apache-2.0 */
#include "pair.h"
#include <time.h>
#include <x86intrin.h>

#define TRAPS_PER_CHECK 16
#define HOT_NS (500 * 1000)         /* between traps: a pair that is worth pinning */
#define WINDOW_NS (4 * 1000 * 1000) /* contention is judged over this time */
#define FREE_MIN_NS (1000 * 1000)
#define FREE_MAX_NS (256 * 1000 * 1000)
#define QUIET_TICKS 2

static gint64 now_ns(clockid_t clock) {
  struct timespec t;
  return clock_gettime(clock, &t) < 0 ? 0 : t.tv_sec * TES_NSEC + t.tv_nsec;
}

/* Under the lock. */
static void pin(Pair *p, const PairOps *ops, gpointer exec, int cpu) {
  cpu_set_t set;
  if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, ops->allowed))
    return;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (ops->place(exec, &set))
    p->pinned = cpu;
}

static void unpin(Pair *p, const PairOps *ops, gpointer exec) {
  if (ops->place(exec, ops->allowed))
    p->pinned = -1;
}

static gint64 cpu_ns(const PairOps *ops, gpointer exec) {
  return now_ns(CLOCK_THREAD_CPUTIME_ID) + ops->stub_cpu_ns(exec);
}

static void start_window(Pair *p, const PairOps *ops, gpointer exec, guint64 tsc, gint64 now) {
  p->checked_tsc = tsc;
  p->checked_ns = now;
  p->checked_cpu = cpu_ns(ops, exec);
  p->guest_tsc = 0;
}

void pair_init(Pair *p) {
  *p = (Pair){.pinned = -1, .free_for = FREE_MIN_NS};
  g_mutex_init(&p->lock);
}

void pair_start(Pair *p, const PairOps *ops, gpointer exec) {
  if (ops->ncpus < 2)
    return;
  g_mutex_lock(&p->lock);
  pin(p, ops, exec, sched_getcpu());
  g_mutex_unlock(&p->lock);
  start_window(p, ops, exec, __rdtsc(), now_ns(CLOCK_MONOTONIC));
}

/* Under the lock. The pair is pinned: does it wait for its CPU? */
static void judge(Pair *p, const PairOps *ops, gpointer exec, guint64 tsc, gint64 now) {
  gint64 wall = now - p->checked_ns;
  if (wall < WINDOW_NS)
    return;
  double in_run = (double)p->guest_tsc / (double)(tsc - p->checked_tsc) * (double)wall;
  gint64 used = cpu_ns(ops, exec) - p->checked_cpu;
  if (in_run - (double)used > (double)wall / 4) {
    unpin(p, ops, exec);
    p->free_until = now + FREE_MIN_NS;
    p->contended_until = now + p->free_for;
    p->free_for = MIN(p->free_for * 2, FREE_MAX_NS);
  } else
    p->free_for = MAX(p->free_for / 2, FREE_MIN_NS);
  start_window(p, ops, exec, tsc, now);
}

static void check(Pair *p, const PairOps *ops, gpointer exec, guint64 tsc) {
  gint64 now = now_ns(CLOCK_MONOTONIC);
  gint64 since = now - p->batch_ns;
  p->batch_ns = now;
  g_mutex_lock(&p->lock);
  if (p->pinned >= 0) {
    if (now > p->contended_until)
      judge(p, ops, exec, tsc, now);
  } else if (since < (gint64)TRAPS_PER_CHECK * HOT_NS && now > p->free_until) {
    pin(p, ops, exec, sched_getcpu());
    start_window(p, ops, exec, tsc, now);
  }
  g_mutex_unlock(&p->lock);
}

void pair_enter(Pair *p) { p->enter_tsc = __rdtsc(); }

void pair_trap(Pair *p, const PairOps *ops, gpointer exec) {
  guint64 tsc = __rdtsc();
  guint traps = __atomic_load_n(&p->traps, __ATOMIC_RELAXED) + 1;
  p->trap_tsc = tsc;
  p->guest_tsc += tsc - p->enter_tsc;
  __atomic_store_n(&p->traps, traps, __ATOMIC_RELAXED);
  if (G_UNLIKELY(traps % TRAPS_PER_CHECK == 0) && ops->ncpus > 1)
    check(p, ops, exec, tsc);
}

guint pair_tick(Pair *p, const PairOps *ops, gpointer exec) {
  guint traps = __atomic_load_n(&p->traps, __ATOMIC_RELAXED);
  if (traps != p->tick_traps) {
    p->tick_traps = traps;
    p->quiet_ticks = 0;
    return 0;
  }
  p->quiet_ticks++;
  if (p->quiet_ticks >= QUIET_TICKS && g_mutex_trylock(&p->lock)) {
    if (p->pinned >= 0)
      unpin(p, ops, exec);
    g_mutex_unlock(&p->lock);
  }
  return p->quiet_ticks;
}

void pair_free(Pair *p, const PairOps *ops) {
  g_mutex_lock(&p->lock);
  if (p->pinned >= 0)
    sched_setaffinity(0, sizeof *ops->allowed, ops->allowed);
  p->pinned = -1;
  g_mutex_unlock(&p->lock);
  g_mutex_clear(&p->lock);
}
