/* SPDX-License-Identifier: Apache-2.0 */
/* A connection between a FUSE filesystem and its server: requests wait in `pending` until the server reads them, then in `sent`
 * until it answers. Each client blocks on its own request. */
#include "fuse.h"
#include <errno.h>
#include <semaphore.h>

/* Above the wait queues, which are told under it. */
static const TesLockClass conn_class = {"fuse connection", TES_RANK_QUEUE - 1, FALSE,
                                        "requests of a FUSE connection"};

FuseConn *fuse_conn_new(TesKernel *k) {
  FuseConn *c = g_new0(FuseConn, 1);
  c->refs = 1;
  c->kernel = k;
  tes_mutex_init(&c->lock, &conn_class);
  g_queue_init(&c->pending);
  c->sent = g_hash_table_new(g_int64_hash, g_int64_equal);
  tes_queue_init(&c->to_server);
  tes_queue_init(&c->started);
  c->max_read = FUSE_DEFAULT_PAGES * TES_PAGE_SIZE;
  c->max_write = TES_PAGE_SIZE;
  return c;
}

FuseConn *fuse_conn_ref(FuseConn *c) {
  g_atomic_int_inc(&c->refs);
  return c;
}

void fuse_conn_unref(FuseConn *c) {
  if (!g_atomic_int_dec_and_test(&c->refs))
    return;
  fuse_conn_abort(c);
  g_hash_table_destroy(c->sent);
  tes_queue_clear(&c->to_server);
  tes_queue_clear(&c->started);
  tes_mutex_clear(&c->lock);
  g_free(c);
}

/* ---- Requests ---- */

static FuseRequest *request_new(TesCtx *ctx, guint32 opcode, guint64 node, const FusePiece *pieces, guint n) {
  FuseRequest *r = g_new0(FuseRequest, 1);
  r->refs = 1;
  r->opcode = opcode;
  r->link.data = r;
  tes_queue_init(&r->queue);
  r->out_len = sizeof(struct fuse_in_header);
  for (guint i = 0; i < n; i++)
    r->out_len += pieces[i].len;
  r->out = g_malloc(r->out_len);
  struct fuse_in_header h = {.len = (guint32)r->out_len, .opcode = opcode, .nodeid = node};
  TesTask *task = ctx ? tes_ctx_task(ctx) : NULL;
  TesCred *cred = ctx ? tes_ctx_cred(ctx) : NULL;
  h.uid = cred ? cred->fsuid : 0;
  h.gid = cred ? cred->fsgid : 0;
  h.pid = task ? (guint32)tes_task_tid(task, NULL) : 0;
  memcpy(r->out, &h, sizeof h);
  gsize at = sizeof h;
  for (guint i = 0; i < n; i++) {
    memcpy(r->out + at, pieces[i].data, pieces[i].len);
    at += pieces[i].len;
  }
  return r;
}

static FuseRequest *request_ref(FuseRequest *r) {
  g_atomic_int_inc(&r->refs);
  return r;
}

void fuse_request_unref(FuseRequest *r) {
  if (!g_atomic_int_dec_and_test(&r->refs))
    return;
  tes_queue_clear(&r->queue);
  if (r->reply)
    g_bytes_unref(r->reply);
  g_free(r->out);
  g_free(r);
}

/* Puts a request in line; FALSE: the connection has ended. */
static gboolean enqueue(FuseConn *c, FuseRequest *r) {
  tes_mutex_lock(&c->lock);
  gboolean ok = !c->dead;
  if (ok) {
    r->unique = c->next_unique += 2; /* odd numbers are those of interruptions */
    memcpy(r->out + G_STRUCT_OFFSET(struct fuse_in_header, unique), &r->unique, sizeof r->unique);
    request_ref(r);
    g_queue_push_tail_link(&c->pending, &r->link);
  }
  tes_mutex_unlock(&c->lock);
  if (ok)
    tes_queue_notify(&c->to_server, POLLIN | POLLRDNORM);
  return ok;
}

/* Marks as answered and wakes the client; connection lock held. Drops the list's reference. */
static void complete(FuseRequest *r, int error, GBytes *reply) {
  r->answered = TRUE;
  r->error = error;
  r->reply = reply ? g_bytes_ref(reply) : NULL;
  tes_queue_notify(&r->queue, POLLIN);
  fuse_request_unref(r);
}

void fuse_conn_abort(FuseConn *c) {
  tes_mutex_lock(&c->lock);
  c->dead = TRUE;
  GList *l;
  while ((l = g_queue_pop_head_link(&c->pending)))
    complete(l->data, -ECONNABORTED, NULL);
  GHashTableIter it;
  gpointer r;
  g_hash_table_iter_init(&it, c->sent);
  while (g_hash_table_iter_next(&it, NULL, &r)) {
    g_hash_table_iter_remove(&it);
    complete(r, -ECONNABORTED, NULL);
  }
  tes_mutex_unlock(&c->lock);
  tes_queue_notify(&c->to_server, POLLIN | POLLERR | POLLHUP);
  tes_queue_notify(&c->started, POLLIN);
}

gboolean fuse_conn_is_dead(FuseConn *c) {
  TES_LOCKED(&c->lock);
  return c->dead;
}

/* ---- Waiting ---- */

typedef struct {
  TesWaiter waiter;
  sem_t sem;
  TesTask *task;
} Wait;

static gboolean post(TesWaiter *w, guint mask, gpointer key) {
  sem_post(&((Wait *)w->data)->sem);
  return TRUE;
}

/* Also who acts for the supervisor in a task's thread must be killable. */
static void wait_begin(Wait *w, TesCtx *ctx, TesQueue *q) {
  w->task = tes_ctx_task(ctx) ? tes_ctx_task(ctx) : tes_task_current();
  sem_init(&w->sem, 0, 0);
  if (w->task)
    tes_waiter_init_task(&w->waiter, w->task, POLLIN);
  else
    w->waiter = (TesWaiter){.mask = POLLIN, .fn = post, .data = w};
  tes_queue_add(q, &w->waiter);
}

/* The supervisor itself can not be killed, so a silent server may not hold it up for ever. */
#define SUPERVISOR_SECONDS 2

static int wait_block(Wait *w, gboolean killable_only) {
  if (w->task)
    return tes_task_block_within(w->task, TES_TIME_INFINITE, killable_only);
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += SUPERVISOR_SECONDS;
  int r;
  while ((r = sem_clockwait(&w->sem, CLOCK_MONOTONIC, &until)) < 0 && errno == EINTR)
    ;
  return r < 0 ? -EIO : 0;
}

static void wait_end(Wait *w) {
  tes_waiter_remove(&w->waiter);
  sem_destroy(&w->sem);
}

static gboolean is_answered(FuseConn *c, FuseRequest *r) {
  TES_LOCKED(&c->lock);
  return r->answered;
}

/* The client was killed: the server may still read or answer the request, in vain. */
static void give_up(FuseConn *c, FuseRequest *r) {
  TES_LOCKED(&c->lock);
  if (r->answered)
    return;
  if (r->sent)
    g_hash_table_remove(c->sent, &r->unique);
  else
    g_queue_unlink(&c->pending, &r->link);
  fuse_request_unref(r);
}

/* A signal came: the server is told, and the client goes on waiting for its decision. */
static void interrupt(FuseConn *c, FuseRequest *r) {
  gboolean sent;
  {
    TES_LOCKED(&c->lock);
    sent = r->sent && !r->answered;
  }
  struct fuse_interrupt_in in = {.unique = r->unique};
  const FusePiece piece = FUSE_ARG(in);
  if (sent && !fuse_lacks(c, FUSE_INTERRUPT))
    fuse_post(c, NULL, FUSE_INTERRUPT, 0, &piece, 1, FALSE);
}

static int wait_answer(FuseConn *c, TesCtx *ctx, FuseRequest *r) {
  Wait w;
  int error = 0;
  gboolean told = FALSE;
  wait_begin(&w, ctx, &r->queue);
  while (!is_answered(c, r)) {
    error = wait_block(&w, told);
    if (error == -EIO || (error == -EINTR && told))
      break;
    if (error == -EINTR) {
      interrupt(c, r);
      told = TRUE;
    }
    error = 0;
  }
  wait_end(&w);
  if (error < 0)
    give_up(c, r);
  return error;
}

static gboolean is_ready(FuseConn *c) {
  TES_LOCKED(&c->lock);
  return c->ready || c->dead;
}

/* The server must have answered INIT before anything else is asked. */
static int wait_ready(FuseConn *c, TesCtx *ctx) {
  if (is_ready(c))
    return 0;
  Wait w;
  int r = 0;
  wait_begin(&w, ctx, &c->started);
  while (r == 0 && !is_ready(c))
    r = wait_block(&w, FALSE);
  wait_end(&w);
  return r;
}

/* ---- Calls ---- */

gboolean fuse_lacks(FuseConn *c, guint32 opcode) {
  return opcode < 64 && (__atomic_load_n(&c->no_calls, __ATOMIC_RELAXED) & (G_GUINT64_CONSTANT(1) << opcode));
}

int fuse_call(FuseConn *c, TesCtx *ctx, guint32 opcode, guint64 node, const FusePiece *pieces, guint n,
              gsize least, GBytes **reply) {
  int error = wait_ready(c, ctx);
  if (error < 0)
    return error;
  FuseRequest *r = request_new(ctx, opcode, node, pieces, n);
  r->wants_reply = r->waited = TRUE;
  error = enqueue(c, r) ? wait_answer(c, ctx, r) : -ENOTCONN;
  if (error == 0)
    error = r->error;
  if (error == 0 && (r->reply ? g_bytes_get_size(r->reply) : 0) < least)
    error = -EIO;
  if (error == 0 && reply)
    *reply = r->reply ? g_bytes_ref(r->reply) : g_bytes_new(NULL, 0);
  fuse_request_unref(r);
  return error;
}

int fuse_call_optional(FuseConn *c, TesCtx *ctx, guint32 opcode, guint64 node, const FusePiece *pieces,
                       guint n, gsize least, GBytes **reply) {
  if (fuse_lacks(c, opcode))
    return -ENOSYS;
  int error = fuse_call(c, ctx, opcode, node, pieces, n, least, reply);
  if (error == -ENOSYS && opcode < 64)
    __atomic_fetch_or(&c->no_calls, G_GUINT64_CONSTANT(1) << opcode, __ATOMIC_RELAXED);
  return error;
}

void fuse_post(FuseConn *c, TesCtx *ctx, guint32 opcode, guint64 node, const FusePiece *pieces, guint n,
               gboolean wants_reply) {
  FuseRequest *r = request_new(ctx, opcode, node, pieces, n);
  r->wants_reply = wants_reply;
  enqueue(c, r);
  fuse_request_unref(r);
}

void fuse_conn_start(FuseConn *c) {
  struct fuse_init_in in = {.major = FUSE_KERNEL_VERSION,
                            .minor = FUSE_OUR_MINOR,
                            .max_readahead = FUSE_DEFAULT_PAGES * TES_PAGE_SIZE,
                            .flags = FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_DONT_MASK};
  /* Protocol 7.31 knows no flags2. */
  const FusePiece piece = {&in, G_STRUCT_OFFSET(struct fuse_init_in, flags2)};
  fuse_post(c, NULL, FUSE_INIT, 0, &piece, 1, TRUE);
}

/* ---- The server's side ---- */

int fuse_conn_take(FuseConn *c, gsize room, FuseRequest **out) {
  TES_LOCKED(&c->lock);
  *out = NULL;
  if (c->dead)
    return -ENODEV;
  if (room < FUSE_MIN_READ_BUFFER ||
      room < sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) + c->max_write)
    return -EINVAL;
  FuseRequest *r = NULL;
  for (GList *l; !r && (l = g_queue_pop_head_link(&c->pending));) {
    r = l->data;
    if (r->out_len > room) { /* only an attribute's value may be longer than what every server has room for */
      complete(r, r->opcode == FUSE_SETXATTR ? -E2BIG : -EIO, NULL);
      r = NULL;
    }
  }
  if (!r)
    return -EAGAIN;
  if (r->wants_reply && (r->waited || c->unwaited < FUSE_MAX_UNWAITED)) {
    r->sent = TRUE;
    c->unwaited += !r->waited;
    g_hash_table_insert(c->sent, &r->unique, r);
    *out = request_ref(r);
  } else {
    *out = r; /* the list's reference */
  }
  return 0;
}

/* The reply to INIT decides how the connection goes on; lock held. FALSE: it cannot. */
static gboolean started(FuseConn *c, int error, GBytes *data) {
  struct fuse_init_out o = {0};
  gsize n = data ? fuse_bytes_copy(data, &o, sizeof o) : 0;
  if (error || n < 8 || o.major != FUSE_KERNEL_VERSION || o.minor < 12)
    return FALSE;
  c->minor = o.minor;
  c->init_flags = n >= 16 ? o.flags : 0;
  guint32 pages = (o.flags & FUSE_MAX_PAGES) && o.max_pages ? o.max_pages : FUSE_DEFAULT_PAGES;
  c->max_write = CLAMP(o.max_write, TES_PAGE_SIZE, MIN(pages * TES_PAGE_SIZE, FUSE_MAX_TRANSFER));
  c->ready = TRUE;
  return TRUE;
}

int fuse_conn_answer(FuseConn *c, const struct fuse_out_header *h, GBytes *data) {
  if (h->error > 0 || h->error <= -512 || (h->error && g_bytes_get_size(data)))
    return -EINVAL;
  tes_mutex_lock(&c->lock);
  FuseRequest *r = g_hash_table_lookup(c->sent, &h->unique);
  if (!r) {
    /* An answer to an interruption: EAGAIN asks for another, ENOSYS says that there is no use. */
    tes_mutex_unlock(&c->lock);
    return -ENOENT;
  }
  g_hash_table_remove(c->sent, &h->unique);
  c->unwaited -= !r->waited;
  gboolean init = r->opcode == FUSE_INIT;
  gboolean ok = !init || started(c, h->error, data);
  complete(r, h->error, data);
  tes_mutex_unlock(&c->lock);
  if (init && ok)
    tes_queue_notify(&c->started, POLLIN);
  if (!ok)
    fuse_conn_abort(c);
  return 0;
}
