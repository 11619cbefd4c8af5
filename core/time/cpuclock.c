/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU clock: a tick of 10 ms while any task runs (C5-C9). Each tick adds 1 to the kernel's CPU clock however late it comes, and
 * charges as many running tasks as there are CPUs, in turn, so that the sum never exceeds what the sandbox's CPUs could give.
 *
 * Blocking must cost next to nothing: tasks only count themselves (kernel->running) and mark themselves running. A task is put on
 * the list of those to charge when it runs and is not on it; the tick takes off those that it finds blocked. The
 * ticker stops at the first tick that finds nobody running; the next task to run starts it again. Where the VFS generation's profile says
 * so it never stops (FEATURES.md 1.24). */
#include <core/task/task.h>
#include <core/time/cpuclock.h>
#include <core/time/timekeeper.h>

typedef struct {
  TesKernel *kernel;
  TesTimer timer;
  gint idle;       /* atomic: the timer is not armed */
  TesTime last;    /* the tick's grid: when the last one was due; event thread, or who cleared `idle` */
  GPtrArray *list; /* TesTask, borrowed: tes_ticker_forget() comes first; running lock */
  guint next;      /* whose turn it is; running lock */
} Ticker;

#define FORGOTTEN (-1) /* TesTask.cpu_listed: never listed again */

/* ---- The list ---- */

static void enlist(Ticker *k, TesTask *t) {
  TES_LOCKED(&k->kernel->running_lock);
  if (t->cpu_listed != 0)
    return;
  g_atomic_int_set(&t->cpu_listed, 1);
  g_ptr_array_add(k->list, t);
}

void tes_ticker_forget(TesTask *t) {
  Ticker *k = t->kernel->ticker;
  TES_LOCKED(&t->kernel->running_lock);
  if (t->cpu_listed == 1)
    g_ptr_array_remove_fast(k->list, t);
  g_atomic_int_set(&t->cpu_listed, FORGOTTEN);
}

/* Takes those off that do not run, and refers to those whose turn it is, at most `max`. */
static GPtrArray *choose(Ticker *k, guint max) {
  GPtrArray *chosen = g_ptr_array_new_with_free_func((GDestroyNotify)tes_task_unref);
  TES_LOCKED(&k->kernel->running_lock);
  for (guint i = k->list->len; i-- > 0;) {
    TesTask *t = g_ptr_array_index(k->list, i);
    g_atomic_int_set(&t->cpu_listed, 0); /* before the look: see tes_running_inc() */
    if (g_atomic_int_get(&t->cpu_running))
      g_atomic_int_set(&t->cpu_listed, 1);
    else
      g_ptr_array_remove_index_fast(k->list, i);
  }
  guint n = k->list->len;
  if (k->next >= n)
    k->next = 0;
  for (guint i = 0; i < MIN(n, max); i++)
    g_ptr_array_add(chosen, tes_task_ref(g_ptr_array_index(k->list, (k->next + i) % n)));
  k->next = n ? (k->next + MIN(n, max)) % n : 0;
  return chosen;
}

/* In turn, a group's profiling signal would always find the same of its threads (C7). */
static void shuffle(GPtrArray *a) {
  for (guint i = a->len; i > 1; i--) {
    guint j = g_random_int_range(0, i);
    gpointer t = a->pdata[j];
    a->pdata[j] = a->pdata[i - 1];
    a->pdata[i - 1] = t;
  }
}

/* ---- A tick ---- */

/* Bounded work that a platform wants done for a thread inside the guest. */
static void tick_exec(TesTask *t) {
  tes_mutex_lock(&t->work_lock); /* keeps the exec from being replaced or freed */
  if (t->exec && g_atomic_int_get(&t->in_guest) && TES_HAS(t->exec->ops, tick))
    t->exec->ops->tick(t->exec);
  tes_mutex_unlock(&t->work_lock);
}

static void charge(gpointer task, gpointer data) {
  TesTask *t = task;
  (void)data;
  gboolean in_guest = g_atomic_int_get(&t->in_guest);
  __atomic_add_fetch(in_guest ? &t->utime : &t->stime, 1, __ATOMIC_RELAXED);
  __atomic_add_fetch(in_guest ? &t->tg->utime : &t->tg->stime, 1, __ATOMIC_RELAXED);
  if (t->kernel->cgroups) {
    TesCgroup *cg = tes_task_cgroup(t);
    __atomic_add_fetch(in_guest ? &cg->utime : &cg->stime, 1, __ATOMIC_RELAXED);
    t->kernel->cgroups->tick(cg, t);
    t->kernel->cgroups->unref(cg);
  }
  if (in_guest)
    tick_exec(t);
  tes_itimers_charge(t, in_guest);
}

static void arm(Ticker *k) { tes_timer_arm(&k->timer, k->last + TES_CLOCK_TICK, 0); }

static void on_tick(TesTimer *timer, guint64 missed, gpointer data) {
  Ticker *k = data;
  (void)timer, (void)missed;
  TesTime now = tes_time_monotonic(k->kernel);
  k->last += MAX((now - k->last) / TES_CLOCK_TICK, 1) * TES_CLOCK_TICK; /* on the grid, late or not */
  __atomic_add_fetch(&k->kernel->cpu_ticks, 1, __ATOMIC_RELAXED);       /* C6: only one */
  g_autoptr(GPtrArray) chosen = choose(k, k->kernel->cores);
  shuffle(chosen);
  g_ptr_array_foreach(chosen, charge, NULL);
  if (tes_kernel_profile(k->kernel)->ticker_stops_idle && g_atomic_int_get(&k->kernel->running) == 0) {
    g_atomic_int_set(&k->idle, 1);
    gint idle = 1;
    /* A task may have started to run before it could see `idle`; whoever clears it arms the timer. */
    if (g_atomic_int_get(&k->kernel->running) == 0 ||
        !__atomic_compare_exchange_n(&k->idle, &idle, 0, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return;
  }
  arm(k);
}

/* C9: what was missed while nothing ran is added to the clock, not to any task; ticks stay on their grid. */
static void restart(Ticker *k) {
  gint idle = 1;
  if (!__atomic_compare_exchange_n(&k->idle, &idle, 0, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    return;
  TesTime missed = MAX((tes_time_monotonic(k->kernel) - k->last) / TES_CLOCK_TICK, 0);
  k->last += missed * TES_CLOCK_TICK;
  __atomic_add_fetch(&k->kernel->cpu_ticks, missed, __ATOMIC_RELAXED);
  arm(k);
}

/* ---- Counting ---- */

void tes_running_inc(TesKernel *kernel) {
  Ticker *k = kernel->ticker;
  TesTask *t = tes_task_current();
  if (t) {
    g_atomic_int_set(&t->cpu_running,
                     1); /* before the look at the list: choose() does it the other way round */
    if (G_UNLIKELY(g_atomic_int_get(&t->cpu_listed) == 0))
      enlist(k, t);
  }
  g_atomic_int_inc(&kernel->running);
  if (G_UNLIKELY(g_atomic_int_get(&k->idle)))
    restart(k);
}

void tes_running_dec(TesKernel *kernel) {
  TesTask *t = tes_task_current();
  if (t)
    g_atomic_int_set(&t->cpu_running, 0);
  if (G_UNLIKELY(g_atomic_int_add(&kernel->running, -1) <= 0))
    g_error("Invalid running count");
}

guint64 tes_kernel_cpu_ticks(TesKernel *k) { return __atomic_load_n(&k->cpu_ticks, __ATOMIC_RELAXED); }

TesTime tes_cpu_time_task(TesTask *t) {
  guint64 ticks = __atomic_load_n(&t->utime, __ATOMIC_RELAXED) + __atomic_load_n(&t->stime, __ATOMIC_RELAXED);
  return (TesTime)ticks * TES_CLOCK_TICK;
}

TesTime tes_cpu_time_group(TesThreadGroup *tg) {
  guint64 ticks =
      __atomic_load_n(&tg->utime, __ATOMIC_RELAXED) + __atomic_load_n(&tg->stime, __ATOMIC_RELAXED);
  return (TesTime)ticks * TES_CLOCK_TICK;
}

void tes_ticker_init(TesKernel *kernel) {
  Ticker *k = g_new0(Ticker, 1);
  k->kernel = kernel;
  k->list = g_ptr_array_new();
  k->idle = 1;
  k->last = tes_time_monotonic(kernel);
  tes_timer_init(&k->timer, kernel, FALSE, on_tick, k);
  kernel->ticker = k;
}

void tes_ticker_free(TesKernel *kernel) {
  Ticker *k = kernel->ticker;
  tes_timer_cancel(&k->timer, TRUE);
  g_ptr_array_unref(k->list);
  g_free(k);
  kernel->ticker = NULL;
}
