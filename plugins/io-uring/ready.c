/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait, and the way back to their tasks. What ends a wait may be any thread, under a queue's lock: it only moves the
 * request to the ring's ready list. A task in io_uring_enter(2) is woken there; for any other the event thread asks for deferred work.
 * States change under ready_lock. */
#include "private.h"

typedef struct {
  Ring *ring;
  GPtrArray *tasks;
} Kick;

static gboolean waits_in_enter(const Ring *r, const TesTask *t) {
  for (const Waiting *w = r->waiting; w; w = w->next)
    if (w->task == t)
      return TRUE;
  return FALSE;
}

static __thread GSList *postponed; /* Ring, referenced */

static void ready_work(TesTask *t, gpointer ring) {
  if (uring_is_running()) {
    if (g_slist_find(postponed, ring))
      tes_file_unref(ring);
    else
      postponed = g_slist_prepend(postponed, ring);
    return;
  }
  uring_run_ready(ring, t);
  tes_file_unref(ring);
}

void uring_work_postponed(TesTask *t) {
  GSList *list = g_steal_pointer(&postponed);
  for (GSList *l = list; l; l = l->next)
    tes_task_add_work(t, ready_work, l->data);
  g_slist_free(list);
}

/* The event thread, without locks. */
static gboolean kick_tasks(gpointer data) {
  Ring *r = data;
  g_autoptr(GPtrArray) tasks = g_ptr_array_new_with_free_func((GDestroyNotify)tes_task_unref);
  tes_mutex_lock(&r->ready_lock);
  r->kicking = FALSE;
  for (GList *l = r->ready.head; l; l = l->next) {
    TesTask *t = ((Request *)l->data)->task;
    if (!waits_in_enter(r, t) && !g_ptr_array_find(tasks, t, NULL))
      g_ptr_array_add(tasks, tes_task_ref(t));
  }
  tes_mutex_unlock(&r->ready_lock);
  for (guint i = 0; i < tasks->len; i++)
    tes_task_add_work(tasks->pdata[i], ready_work, tes_file_ref(&r->file));
  return G_SOURCE_REMOVE;
}

static void kick_done(gpointer ring) { tes_file_unref(ring); }

/* ready_lock held, perhaps a queue's too: nothing of ours may run in this thread. */
static void kick(Ring *r, TesTask *t) {
  if (waits_in_enter(r, t)) {
    tes_task_wake(t);
    return;
  }
  if (r->kicking || !tes_file_try_ref(&r->file))
    return;
  r->kicking = TRUE;
  GSource *s = g_idle_source_new();
  g_source_set_priority(s, G_PRIORITY_HIGH);
  g_source_set_callback(s, kick_tasks, r, kick_done);
  g_source_attach(s, tes_kernel_main_context(r->file.kernel));
  g_source_unref(s);
}

/* ready_lock held. */
static gboolean make_ready(Request *q) {
  if (q->state != REQ_ARMED)
    return FALSE;
  q->state = REQ_READY;
  g_queue_push_tail_link(&q->ring->ready, &q->ready_node);
  kick(q->ring, q->task);
  return TRUE;
}

void uring_make_ready(Request *q) {
  TES_LOCKED(&q->ring->ready_lock);
  q->state = REQ_ARMED;
  make_ready(q);
}

gboolean uring_decide(Request *q, glong result) {
  TES_LOCKED(&q->ring->ready_lock);
  if (!make_ready(q))
    return FALSE;
  q->decided = TRUE;
  q->result = result;
  return TRUE;
}

static gboolean on_event(TesWaiter *w, guint mask, gpointer key) {
  (void)mask, (void)key;
  Request *q = w->data;
  TES_LOCKED(&q->ring->ready_lock);
  return make_ready(q);
}

static void on_timer(TesTimer *timer, guint64 missed, gpointer data) {
  (void)timer, (void)missed;
  uring_decide(data, -ETIME);
}

static void set_state(Request *q, ReqState state) {
  TES_LOCKED(&q->ring->ready_lock);
  q->state = state;
}

/* Enlists first, then tries once more. What came meanwhile is not lost: the request is ready, with this result. */
gboolean uring_arm_file(Request *q, guint mask) {
  if (!q->waiter.queue) {
    q->waiter = (TesWaiter){.mask = mask, .fn = on_event, .data = q};
    tes_queue_add(q->file->queue, &q->waiter);
  }
  set_state(q, REQ_ARMED);
  glong r = q->op->issue(q);
  if (r == -EAGAIN)
    return TRUE;
  TES_LOCKED(&q->ring->ready_lock);
  q->result = r;
  q->decided = TRUE;
  if (q->state == REQ_READY)
    return TRUE;
  q->state = REQ_IDLE;
  return FALSE;
}

void uring_arm_timer(Request *q) {
  tes_timer_init(&q->timer, q->ring->file.kernel, q->realtime, on_timer, q);
  q->timer_set = TRUE;
  set_state(q, REQ_ARMED);
  {
    TES_LOCKED(&q->ring->lock);
    q->counts = q->sqe.off != 0;
    q->target = q->ring->n_posted + (guint32)q->sqe.off;
  }
  tes_timer_arm(&q->timer, q->expiry, 0);
}

static void on_link_timer(TesTimer *timer, guint64 missed, gpointer data) {
  Request *lt = data;
  (void)timer, (void)missed;
  lt->fired = uring_decide(lt->guards, -ECANCELED);
}

void uring_arm_link(Request *lt, Request *before) {
  if (lt->timer.fn)
    return;
  lt->guards = before;
  tes_timer_init(&lt->timer, lt->ring->file.kernel, lt->realtime, on_link_timer, lt);
  tes_timer_arm(&lt->timer, uring_expiry(lt, lt->time, lt->sqe.timeout_flags), 0);
}

/* In the hands of its task, or gone: nothing ends its wait any more. */
void uring_disarm(Request *q) {
  tes_waiter_remove(&q->waiter);
  if (q->timer.fn) /* an update may have armed it again */
    tes_timer_cancel(&q->timer, TRUE);
  q->timer_set = FALSE;
}

static Request *take_ready(Ring *r, const TesTask *t) {
  TES_LOCKED(&r->ready_lock);
  for (GList *l = r->ready.head; l; l = l->next) {
    Request *q = l->data;
    if (q->task != t)
      continue;
    g_queue_unlink(&r->ready, l);
    q->state = REQ_IDLE;
    return q;
  }
  return NULL;
}

gboolean uring_run_ready(Ring *r, TesTask *t) {
  gboolean any = FALSE;
  for (Request *q; (q = take_ready(r, t)); any = TRUE)
    uring_continue(q);
  return any;
}

void uring_stop(Request *q) {
  Ring *r = q->ring;
  {
    TES_LOCKED(&r->ready_lock);
    if (q->state == REQ_READY)
      g_queue_unlink(&r->ready, &q->ready_node);
    q->state = REQ_DONE;
  }
  uring_disarm(q);
}

void uring_wait_begin(Ring *r, Waiting *w, TesTask *t) {
  TES_LOCKED(&r->ready_lock);
  *w = (Waiting){r->waiting, t};
  r->waiting = w;
}

void uring_wait_end(Ring *r, Waiting *w) {
  {
    TES_LOCKED(&r->ready_lock);
    for (Waiting **p = &r->waiting; *p; p = &(*p)->next)
      if (*p == w) {
        *p = w->next;
        break;
      }
  }
  uring_run_ready(r, w->task);
}
