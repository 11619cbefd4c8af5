/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps a task's thread and its stub thread on one CPU while they talk much: waking the other costs 3 us there and
 * 30 us across CPUs (DESIGN.md, "What interception costs"), and the host's scheduler prefers an idle CPU.
 *
 *   - A new pair stays where its creator put it (threads inherit affinity); the first of all where it is.
 *   - A pair that stopped trapping computes: pair_tick() lets both go, and the host balances. Once it traps often again
 *     it is pinned where its task's thread is.
 *   - A pair that waits for the CPU is let go for a moment, so that the host can move it to an idle one, then
 *     pinned again. It waits when the time spent in run() exceeds what both threads used of a CPU: neither sleeps
 *     there. Pairs that wait for each other elsewhere (a pipe) are not torn apart by this.
 *
 * A thread that a pinned thread creates inherits its one CPU. pair_start() knows that of task threads; other
 * helpers of the core are better started by unpinned threads. */
#pragma once

#include <sched.h>
#include <tessera/types.h>

typedef struct {
  const cpu_set_t *allowed; /* CPUs at open */
  guint ncpus;              /* in `allowed`; with one nothing is done */
  /* Both threads of the pair; by the task's thread, or, unpinning, by pair_tick()'s. FALSE: not now. */
  gboolean (*place)(gpointer exec, const cpu_set_t *set);
  gint64 (*stub_cpu_ns)(gpointer exec); /* CPU time of the stub thread */
} PairOps;

typedef struct {
  GMutex lock;                    /* guards pinned, and changes of affinity */
  int pinned;                     /* CPU of both threads, or -1 */
  guint traps;                    /* written by the owner, read by pair_tick() */
  guint tick_traps, quiet_ticks;  /* pair_tick()'s */
  guint64 enter_tsc, trap_tsc;    /* last entry, last trap */
  guint64 guest_tsc;              /* cycles in run() since the window began */
  guint64 checked_tsc;            /* the window's beginning, in cycles, */
  gint64 checked_ns, checked_cpu; /* in time, and in CPU time of the pair */
  gint64 batch_ns;                /* time of the last check */
  gint64 free_until, contended_until, free_for;
} Pair;

void pair_init(Pair *);
/* All but tick and free on the task's thread. */
void pair_start(Pair *, const PairOps *, gpointer exec); /* before the first run */
void pair_enter(Pair *);
void pair_trap(Pair *, const PairOps *, gpointer exec);
guint pair_tick(Pair *, const PairOps *, gpointer exec); /* ticks without a trap so far */
void pair_free(Pair *,
               const PairOps *); /* the task's thread may go on to something else; any, if never started */
