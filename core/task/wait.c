/* SPDX-License-Identifier: Apache-2.0 */
/* Wait queues, and how a task blocks and is woken.
 *
 * A task has one wake word: EMPTY, TOKEN (woken, not yet noticed) or SLEEPING. A wake is never lost: it leaves a token
 * that the next block consumes. While it sleeps a task does not count as running (C8) and need not be waited for by Pause (L26). */
#include <core/task/task.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EMPTY, TOKEN, SLEEPING };

static const TesLockClass queue_class = {"wait queue", TES_RANK_QUEUE, TRUE,
                                         "list of waiters; callbacks run under it"};

/* Threads that callbacks wake are woken once no queue is locked any more: on a busy CPU a woken thread runs at once, and would
 * only find the lock held. The task may have gone by then; waking at an address needs nothing there. */
typedef struct {
  guint depth; /* run_waiters() that this thread is in */
  guint n;
  gint *word[16];
  GSList *after; /* After, newest first */
} Wakes;
typedef struct {
  void (*fn)(gpointer);
  gpointer data;
} After;
static __thread Wakes wakes __attribute__((tls_model("initial-exec")));

static void wake_thread(gint *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

static void leave_waiters(void) {
  if (--wakes.depth > 0)
    return;
  while (wakes.n > 0)
    wake_thread(wakes.word[--wakes.n]);
  if (G_LIKELY(!wakes.after))
    return;
  GSList *after = g_slist_reverse(g_steal_pointer(&wakes.after));
  for (GSList *l = after; l; l = l->next)
    ((After *)l->data)->fn(((After *)l->data)->data);
  g_slist_free_full(after, g_free);
}

void tes_queue_after(void (*fn)(gpointer), gpointer data) {
  After *a = g_new(After, 1);
  *a = (After){fn, data};
  wakes.after = g_slist_prepend(wakes.after, a);
}

void tes_queue_init(TesQueue *q) {
  tes_mutex_init(&q->lock, &queue_class);
  q->head = q->tail = NULL;
  q->n = 0;
}

static void unlink_waiter(TesQueue *q, TesWaiter *w) {
  if (w->prev)
    w->prev->next = w->next;
  else
    q->head = w->next;
  if (w->next)
    w->next->prev = w->prev;
  else
    q->tail = w->prev;
  w->prev = w->next = NULL;
  __atomic_store_n(&w->queue, NULL, __ATOMIC_RELEASE);
  __atomic_store_n(&q->n, q->n - 1, __ATOMIC_RELAXED); /* written under the lock only */
}

/* Who could still add or remove a waiter has a reference to what the queue belongs to. */
void tes_queue_clear(TesQueue *q) {
  if (g_atomic_int_get(&q->n) == 0) {
    tes_mutex_clear(&q->lock);
    return;
  }
  tes_mutex_lock(&q->lock);
  while (q->head)
    unlink_waiter(q, q->head);
  tes_mutex_unlock(&q->lock);
  tes_mutex_clear(&q->lock);
}

void tes_queue_add(TesQueue *q, TesWaiter *w) {
  tes_mutex_lock(&q->lock);
  w->next = NULL;
  w->prev = q->tail;
  if (q->tail)
    q->tail->next = w;
  else
    q->head = w;
  q->tail = w;
  __atomic_store_n(&w->queue, q, __ATOMIC_RELEASE);
  g_atomic_int_inc(&q->n); /* full barrier: the caller's check comes after */
  tes_mutex_unlock(&q->lock);
}

void tes_waiter_remove(TesWaiter *w) {
  TesQueue *q = g_atomic_pointer_get(&w->queue);
  if (!q)
    return;
  tes_mutex_lock(&q->lock);
  if (w->queue == q)
    unlink_waiter(q, w);
  tes_mutex_unlock(&q->lock);
}

/* Calls matching waiters; stops after `max` of those that `counts` selects returned TRUE. */
static guint run_waiters(TesQueue *q, guint mask, gpointer key, guint max, gboolean count_all) {
  guint woken = 0;
  wakes.depth++;
  tes_mutex_lock(&q->lock);
  for (TesWaiter *w = q->head, *next; w && woken < max; w = next) {
    next = w->next;
    if (!(mask & (w->mask | POLLERR | POLLHUP)))
      continue;
    gboolean exclusive = w->flags & TES_WAIT_EXCLUSIVE;
    if (w->flags & TES_WAIT_ONESHOT)
      unlink_waiter(q, w);
    if (w->fn(w, mask, key) && (count_all || exclusive))
      woken++;
  }
  tes_mutex_unlock(&q->lock);
  leave_waiters();
  return woken;
}

void tes_queue_notify(TesQueue *q, guint mask) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the change before the look for waiters */
  if (g_atomic_int_get(&q->n))
    run_waiters(q, mask, NULL, 1, FALSE);
}

guint tes_queue_wake(TesQueue *q, guint mask, gpointer key, guint n) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return n && g_atomic_int_get(&q->n) ? run_waiters(q, mask, key, n, TRUE) : 0;
}

static gboolean wake_task(TesWaiter *w, guint mask, gpointer key) {
  (void)mask, (void)key;
  tes_task_wake(w->data);
  return TRUE;
}

void tes_waiter_init_task(TesWaiter *w, TesTask *task, guint mask) {
  *w = (TesWaiter){.mask = mask, .fn = wake_task, .data = task};
}

void tes_task_wake(TesTask *t) {
  if (__atomic_exchange_n(&t->wake, TOKEN, __ATOMIC_SEQ_CST) != SLEEPING)
    return;
  if (wakes.depth > 0 && wakes.n < G_N_ELEMENTS(wakes.word))
    wakes.word[wakes.n++] = &t->wake;
  else
    wake_thread(&t->wake);
}

/* Sleeps until a token arrives or the sandbox's monotonic clock passes `deadline`. */
static int sleep_for_token(TesTask *t, TesTime deadline, TesTaskState how) {
  int empty = EMPTY;
  if (!__atomic_compare_exchange_n(&t->wake, &empty, SLEEPING, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    return 0;
  int r = 0;
  tes_task_set_blocked(t, how);
  for (;;) {
    struct timespec ts, *tp = NULL;
    if (deadline != TES_TIME_INFINITE) {
      TesTime host = tes_time_to_host(t->kernel, deadline);
      host = MAX(host, 0);
      ts = (struct timespec){host / TES_NSEC, host % TES_NSEC};
      tp = &ts;
    }
    long s =
        syscall(SYS_futex, &t->wake, FUTEX_WAIT_BITSET_PRIVATE, SLEEPING, tp, NULL, FUTEX_BITSET_MATCH_ANY);
    if (__atomic_load_n(&t->wake, __ATOMIC_SEQ_CST) != SLEEPING)
      break;
    if (s < 0 && errno == ETIMEDOUT && tes_time_monotonic(t->kernel) >= deadline) {
      r = -ETIMEDOUT;
      break;
    }
  }
  tes_task_set_blocked(t, TES_TASK_KERNEL);
  int sleeping = SLEEPING;
  if (!__atomic_compare_exchange_n(&t->wake, &sleeping, EMPTY, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    r = 0; /* a token came: leave it for the caller's loop */
  return r;
}

static int block(TesTask *t, TesTime deadline, gboolean killable_only, TesTaskState how) {
  tes_count(&t->nvcsw);
  for (;;) {
    if (how == TES_TASK_BLOCKED && g_atomic_int_get(&t->work_pending)) {
      gboolean within = t->working; /* work may block in turn */
      t->working = TRUE;
      tes_task_run_work(t);
      t->working = within;
    }
    if (g_atomic_int_get(&t->killed) || (!killable_only && g_atomic_int_get(&t->sig_flag)))
      return -EINTR;
    int token = TOKEN;
    if (__atomic_compare_exchange_n(&t->wake, &token, EMPTY, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
      /* The token may have been for a signal or for work alone; either way the caller looks again. */
      if (g_atomic_int_get(&t->killed) || (!killable_only && g_atomic_int_get(&t->sig_flag)))
        return -EINTR;
      return 0;
    }
    int r = sleep_for_token(t, deadline, how);
    if (r < 0)
      return r;
  }
}

int tes_task_block(TesTask *t, TesTime deadline) { return block(t, deadline, FALSE, TES_TASK_BLOCKED); }

int tes_task_block_killable(TesTask *t, TesTime deadline) {
  return block(t, deadline, TRUE, TES_TASK_BLOCKED);
}

int tes_task_block_within(TesTask *t, TesTime deadline, gboolean killable_only) {
  return block(t, deadline, killable_only, TES_TASK_BLOCKED_WITHIN);
}
