/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a request: begun by the task that submitted it, perhaps waiting, ended with a completion, and then the next of its chain
 * (IOSQE_IO_LINK, IOSQE_IO_HARDLINK). IOSQE_IO_DRAIN holds a chain back until all before it have ended, and all after it until it has. */
#include "private.h"

static gint all_requests; /* atomic */
static gsize all_kept;    /* atomic, bytes */

gboolean uring_has_room(const Ring *r) {
  return r->inflight.length < URING_MAX_INFLIGHT && g_atomic_int_get(&all_requests) < URING_MAX_ALL;
}

int uring_keep(Request *q, gsize bytes) {
  if (__atomic_add_fetch(&all_kept, bytes, __ATOMIC_RELAXED) > URING_MAX_VECTORS) {
    __atomic_sub_fetch(&all_kept, bytes, __ATOMIC_RELAXED);
    return -ENOMEM;
  }
  q->kept += bytes;
  return 0;
}

Request *uring_request_new(Ring *r, TesTask *t, const struct io_uring_sqe *sqe) {
  Request *q = g_new0(Request, 1);
  g_atomic_int_inc(&all_requests);
  q->ring = r;
  q->task = tes_task_ref(t);
  q->sqe = *sqe;
  q->op = uring_op(sqe->opcode);
  q->expiry = TES_TIME_INFINITE;
  q->node.data = q->deferred_node.data = q->ready_node.data = q;
  TES_LOCKED(&r->lock);
  g_queue_push_tail_link(&r->inflight, &q->node);
  return q;
}

static void request_free(Request *q) {
  uring_disarm(q);
  if (q->file)
    tes_task_current() == q->task ? tes_task_drop_file(q->task, q->file) : tes_file_unref(q->file);
  tes_task_unref(q->task);
  g_free(q->store);
  __atomic_sub_fetch(&all_kept, q->kept, __ATOMIC_RELAXED);
  g_atomic_int_add(&all_requests, -1);
  g_free(q);
}

static gboolean drains(const Request *q) { return (q->sqe.flags & IOSQE_IO_DRAIN) != 0; }

/* ring->lock held: may it run now? Then it does. */
static gboolean admit(Ring *r, Request *q) {
  if (r->draining || (drains(q) && r->n_running > 0))
    return FALSE;
  r->n_running++;
  r->draining = drains(q);
  q->begun = TRUE;
  return TRUE;
}

static void release_deferred(Ring *r) {
  for (Request *q; (q = g_queue_peek_head(&r->deferred)) && admit(r, q);) {
    g_queue_unlink(&r->deferred, &q->deferred_node);
    q->is_deferred = FALSE;
    uring_make_ready(q);
  }
}

/* ring->lock held. */
static void leave(Ring *r, Request *q) {
  g_queue_unlink(&r->inflight, &q->node);
  if (q->is_deferred)
    g_queue_unlink(&r->deferred, &q->deferred_node);
}

/* ring->lock held: a chain is over. */
static void chain_over(Ring *r, const Request *last) {
  r->n_running--;
  if (drains(last))
    r->draining = FALSE;
  release_deferred(r);
}

/* ---- Running ---- */

static int take_file(Request *q) {
  if (!q->op->file)
    return (q->sqe.flags & IOSQE_FIXED_FILE) ? -EBADF : 0;
  q->file = (q->sqe.flags & IOSQE_FIXED_FILE) ? uring_registered_file(q->ring, (guint)q->sqe.fd)
                                              : tes_fd_get(q->task, q->sqe.fd);
  return q->file && !(q->file->flags & O_PATH) ? 0 : -EBADF;
}

static glong first_try(Request *q) {
  if (!q->op)
    return -EINVAL;
  int r = take_file(q);
  if (r == 0 && q->op->prep)
    r = q->op->prep(q);
  q->prepared = TRUE;
  return r < 0 ? r : q->op->issue(q);
}

/* TRUE: it has a result. FALSE: it waits, and may be continued at any moment. */
static gboolean issue(Request *q) {
  if (q->decided)
    return TRUE;
  glong r = q->prepared ? q->op->issue(q) : first_try(q);
  if (r == -EAGAIN && q->prepared && q->op) {
    if (q->op->timer) {
      uring_arm_timer(q);
      return FALSE;
    }
    if (q->op->mask && !q->nowait) { /* O_NONBLOCK makes no difference */
      guint mask = q->op->mask;
      if (mask == POLLOUT && (q->file->ops->flags & TES_FILE_ROOM))
        mask = TES_POLL_ROOM;
      return !uring_arm_file(q, q->sqe.opcode == IORING_OP_POLL_ADD ? q->poll_mask : mask);
    }
  }
  if (r <= -TES_ERESTARTSYS && r >= -TES_ERESTART_RESTARTBLOCK)
    r = -EINTR;
  q->result = r;
  q->decided = TRUE;
  return TRUE;
}

static void complete(Request *q) {
  if (q->result < 0 || !(q->sqe.flags & IOSQE_CQE_SKIP_SUCCESS))
    uring_post(q->ring, q->sqe.user_data, (gint32)q->result, 0);
}

/* What follows a failure; a hard link is cut too once something before it was cancelled. */
static void cancel_rest(Ring *r, Request *q) {
  while (q) {
    Request *next = q->link;
    q->result = -ECANCELED;
    complete(q);
    {
      TES_LOCKED(&r->lock);
      leave(r, q);
    }
    request_free(q);
    q = next;
  }
}

static gboolean is_link_timeout(const Request *q) { return q && q->sqe.opcode == IORING_OP_LINK_TIMEOUT; }

/* The timeout of a request that has ended, which ends too; returns what follows. */
static Request *finish_link_timeout(Request *lt) {
  Ring *r = lt->ring;
  Request *next = g_steal_pointer(&lt->link);
  uring_disarm(lt);
  lt->result = lt->fired ? -ETIME : -ECANCELED;
  complete(lt);
  {
    TES_LOCKED(&r->lock);
    leave(r, lt);
  }
  request_free(lt);
  return next;
}

static Request *finish(Request *q) {
  Ring *r = q->ring;
  Request *next = g_steal_pointer(&q->link);
  gboolean in_time = q->result == -ETIME && q->sqe.opcode == IORING_OP_TIMEOUT &&
                     (q->sqe.timeout_flags & IORING_TIMEOUT_ETIME_SUCCESS);
  gboolean failed = (q->result < 0 && !in_time) || (q->op && q->op->whole && (gsize)q->result < q->len);
  uring_disarm(q);
  {
    TES_LOCKED(&r->lock);
    q->counts = FALSE;
  }
  gboolean guarded = is_link_timeout(next);
  if (guarded)
    uring_disarm(next); /* it refers to q */
  complete(q);
  if (guarded)
    next = finish_link_timeout(next);
  if (next && failed && !(q->sqe.flags & IOSQE_IO_HARDLINK)) {
    cancel_rest(r, next);
    next = NULL;
  }
  {
    TES_LOCKED(&r->lock);
    leave(r, q);
    if (next) {
      next->begun = TRUE;
      next->sqe.flags |= q->sqe.flags & IOSQE_IO_DRAIN;
    } else {
      chain_over(r, q);
    }
  }
  request_free(q);
  return next;
}

/* An operation may block after all (a FIFO is opened), and the task's deferred work runs meanwhile. One chain does not run on top of
 * another then, however many become ready: uring_ready_work() waits for the end of the first. */
static __thread guint running;

gboolean uring_is_running(void) { return running > 0; }

static void run_chain(Request *q) {
  for (; q; q = finish(q))
    if (!issue(q)) {
      if (is_link_timeout(q->link))
        uring_arm_link(q->link, q);
      return;
    }
}

static void run(Request *q) {
  TesTask *t = q->task; /* the calling one */
  running++;
  run_chain(q);
  if (--running == 0)
    uring_work_postponed(t);
}

void uring_begin(Request *q) {
  Ring *r = q->ring;
  {
    TES_LOCKED(&r->lock);
    if (r->deferred.length > 0 || !admit(r, q)) {
      q->is_deferred = TRUE;
      g_queue_push_tail_link(&r->deferred, &q->deferred_node);
      return;
    }
  }
  run(q);
}

void uring_continue(Request *q) {
  if (q->decided)
    uring_disarm(q);
  run(q);
}

/* ---- Ending them early ---- */

int uring_cancel(Ring *r, gboolean (*match)(const Request *, gpointer), gpointer data, gboolean all) {
  guint n = 0, busy = 0;
  TES_LOCKED(&r->lock);
  for (GList *l = r->inflight.head; l && (all || n == 0); l = l->next) {
    Request *q = l->data;
    if (!match(q, data))
      continue;
    if (uring_decide(q, -ECANCELED))
      n++;
    else
      busy++;
  }
  return n ? (int)n : busy ? -EALREADY : -ENOENT;
}

void uring_drop(Ring *r, TesTask *t) {
  g_autoptr(GPtrArray) dead = g_ptr_array_new();
  {
    TES_LOCKED(&r->lock);
    for (GList *l = r->inflight.head, *next; l; l = next) {
      Request *q = l->data;
      next = l->next;
      if (t && q->task != t)
        continue;
      leave(r, q);
      if (q->begun) {
        r->n_running--;
        if (drains(q))
          r->draining = FALSE;
      }
      g_ptr_array_add(dead, q);
    }
  }
  for (guint i = 0; i < dead->len; i++)
    uring_stop(dead->pdata[i]);
  for (guint i = 0; i < dead->len; i++) /* linked timeouts refer to others */
    request_free(dead->pdata[i]);
  if (t) {
    TES_LOCKED(&r->lock);
    release_deferred(r);
  }
}
