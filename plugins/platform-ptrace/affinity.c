/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps a task's thread and its stub thread on one CPU while they talk much: waking the other costs 3 us there and
 * 30 us across CPUs (DESIGN.md, "What interception costs"), and the host's scheduler prefers an idle CPU.
 *
 *   - A new pair stays where its creator put it (threads inherit affinity); the first of all where it is.
 *   - A pair that stopped trapping computes: tick() lets both go, and the host balances. Once it traps often again it
 *     is pinned where its tracer is.
 *   - A pair that waits for the CPU is let go for a moment, so that the host can move it to an idle one, then
 *     pinned again. It waits when the time spent in run() exceeds what both threads used of a CPU: neither sleeps
 *     there. Pairs that wait for each other elsewhere (a pipe) are not torn apart by this.
 *
 * A thread that a pinned thread creates inherits its one CPU. pt_affinity_init() knows that of task threads; other
 * helpers of the core are better started by unpinned threads. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>
#include "private.h"

#define TRAPS_PER_CHECK 16
#define HOT_NS (500 * 1000)         /* between traps: a pair that is worth pinning */
#define WINDOW_NS (4 * 1000 * 1000) /* contention is judged over this time */
#define FREE_MIN_NS (1000 * 1000)
#define FREE_MAX_NS (256 * 1000 * 1000)
#define QUIET_TICKS 2
#define TICKS_PER_REAP 16

static gint64 now_ns(clockid_t clock) {
  struct timespec t;
  return clock_gettime(clock, &t) < 0 ? 0 : t.tv_sec * TES_NSEC + t.tv_nsec;
}

static void set_affinity(PtExec *e, const cpu_set_t *set) {
  sched_setaffinity(e->tid, sizeof *set, set);
  sched_setaffinity(e->owner, sizeof *set, set);
}

/* Under pin_lock. */
static void pin(PtExec *e, int cpu) {
  PtPlatform *p = (PtPlatform *)e->base.aspace->platform;
  cpu_set_t set;
  if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &p->allowed))
    return;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  set_affinity(e, &set);
  e->pinned = cpu;
}

static void unpin(PtExec *e) {
  set_affinity(e, &((PtPlatform *)e->base.aspace->platform)->allowed);
  e->pinned = -1;
}

/* CPU time of the stub thread. Of the whole stub where /proc is not to be had: then contention is seen too rarely. */
static gint64 stub_cpu_ns(PtExec *e) {
  pid_t pid = ((PtAspace *)e->base.aspace)->stub.pid;
  char buf[64], path[64];
  gint64 ns = -1;
  if (g_atomic_int_get(&((PtAspace *)e->base.aspace)->nexecs) > 1) {
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", pid, e->tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    gssize n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    if (fd >= 0)
      close(fd);
    if (n > 0) {
      buf[n] = 0;
      ns = g_ascii_strtoll(buf, NULL, 10);
    }
  }
  clockid_t clock;
  if (ns < 0 && clock_getcpuclockid(pid, &clock) == 0)
    ns = now_ns(clock);
  return ns;
}

static gint64 pair_cpu_ns(PtExec *e) { return now_ns(CLOCK_THREAD_CPUTIME_ID) + stub_cpu_ns(e); }

static void start_window(PtExec *e, guint64 tsc, gint64 now) {
  e->checked_tsc = tsc;
  e->checked_ns = now;
  e->checked_cpu = pair_cpu_ns(e);
  e->guest_tsc = 0;
}

void pt_affinity_init(PtExec *e) {
  PtPlatform *p = (PtPlatform *)e->base.aspace->platform;
  cpu_set_t set;
  if (p->ncpus < 2)
    return;
  int cpu = sched_getcpu();
  g_mutex_lock(&e->pin_lock);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set)) {
    sched_setaffinity(e->tid, sizeof set, &set);
    e->pinned = cpu;
  } else
    pin(e, cpu);
  g_mutex_unlock(&e->pin_lock);
  e->free_for = FREE_MIN_NS;
  start_window(e, __rdtsc(), now_ns(CLOCK_MONOTONIC));
}

/* Under pin_lock. The pair is pinned: does it wait for its CPU? */
static void judge(PtExec *e, guint64 tsc, gint64 now) {
  gint64 wall = now - e->checked_ns;
  if (wall < WINDOW_NS)
    return;
  double in_run = (double)e->guest_tsc / (double)(tsc - e->checked_tsc) * (double)wall;
  gint64 used = pair_cpu_ns(e) - e->checked_cpu;
  if (in_run - (double)used > (double)wall / 4) {
    unpin(e);
    e->free_until = now + FREE_MIN_NS;
    e->contended_until = now + e->free_for;
    e->free_for = MIN(e->free_for * 2, FREE_MAX_NS);
  } else
    e->free_for = MAX(e->free_for / 2, FREE_MIN_NS);
  start_window(e, tsc, now);
}

static void check(PtExec *e, guint64 tsc) {
  gint64 now = now_ns(CLOCK_MONOTONIC);
  gint64 since = now - e->batch_ns;
  e->batch_ns = now;
  g_mutex_lock(&e->pin_lock);
  if (e->pinned >= 0) {
    if (now > e->contended_until)
      judge(e, tsc, now);
  } else if (since < (gint64)TRAPS_PER_CHECK * HOT_NS && now > e->free_until) {
    pin(e, sched_getcpu());
    start_window(e, tsc, now);
  }
  g_mutex_unlock(&e->pin_lock);
}

void pt_affinity_enter(PtExec *e) { e->enter_tsc = __rdtsc(); }

void pt_affinity_trap(PtExec *e) {
  guint64 tsc = __rdtsc();
  guint traps = __atomic_load_n(&e->traps, __ATOMIC_RELAXED) + 1;
  e->guest_tsc += tsc - e->enter_tsc;
  __atomic_store_n(&e->traps, traps, __ATOMIC_RELAXED);
  if (G_UNLIKELY(traps % TRAPS_PER_CHECK == 0) && ((PtPlatform *)e->base.aspace->platform)->ncpus > 1)
    check(e, tsc);
}

void pt_affinity_tick(PtExec *e) {
  guint traps = __atomic_load_n(&e->traps, __ATOMIC_RELAXED);
  if (traps != e->tick_traps) {
    e->tick_traps = traps;
    e->quiet_ticks = 0;
    return;
  }
  e->quiet_ticks++;
  if (e->quiet_ticks == QUIET_TICKS) {
    g_mutex_lock(&e->pin_lock);
    if (e->pinned >= 0)
      unpin(e);
    g_mutex_unlock(&e->pin_lock);
  }
  if (e->quiet_ticks % TICKS_PER_REAP == 0)
    pt_reap_others(e);
}

/* On the owner thread, which may go on to something else, or to another exec. */
void pt_affinity_free(PtExec *e) {
  PtPlatform *p = (PtPlatform *)e->base.aspace->platform;
  g_mutex_lock(&e->pin_lock);
  if (e->pinned >= 0)
    sched_setaffinity(0, sizeof p->allowed, &p->allowed);
  e->pinned = -1;
  g_mutex_unlock(&e->pin_lock);
}
