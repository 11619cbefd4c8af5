/* SPDX-License-Identifier: Apache-2.0 */
/* Which operations there are, and those on files of any kind: reading, writing, syncing, polling; timeouts and cancelling. */
#include "private.h"
#include <fcntl.h>

static TesCtx *ctx_of(const Request *q) { return tes_task_ctx(q->task); }

/* ---- Reading and writing ---- */

static int rw_flags(Request *q) {
  guint f = (guint)q->sqe.rw_flags;
  if (q->sqe.ioprio)
    return -EINVAL;
  if (f & ~(guint)(RWF_NOWAIT | RWF_SYNC | RWF_DSYNC | RWF_APPEND))
    return -EOPNOTSUPP;
  q->nowait = (f & RWF_NOWAIT) != 0;
  return 0;
}

static int import_vector(Request *q) {
  int r = uring_keep(q, MIN(q->sqe.len, TES_IOV_MAX) * sizeof(struct iovec));
  return r < 0 ? r : tes_iov_import(&q->vec, &q->store, q->task, q->sqe.addr, q->sqe.len);
}

/* The list is copied now (IORING_FEAT_SUBMIT_STABLE); what it points at is used later. */
static int prep_rw(Request *q) {
  const struct io_uring_sqe *s = &q->sqe;
  int r = rw_flags(q);
  if (r < 0)
    return r;
  if (s->opcode == IORING_OP_READV || s->opcode == IORING_OP_WRITEV)
    r = import_vector(q);
  else
    r = tes_iov_init_user(&q->vec, &q->one, q->task, s->addr, s->len);
  if (r == 0 && (s->opcode == IORING_OP_READ_FIXED || s->opcode == IORING_OP_WRITE_FIXED))
    r = uring_registered_buffer(q->ring, s->buf_index, s->addr, s->len);
  q->len = q->vec.left;
  return r;
}

/* io_uring_enter(2): offset -1 is the file's own position. */
static goffset *position(const Request *q, goffset *pos) {
  *pos = (goffset)q->sqe.off;
  return *pos != -1 && (q->file->ops->flags & TES_FILE_SEEKABLE) ? pos : NULL;
}

static glong op_read(Request *q) {
  TesIov iov = q->vec;
  goffset pos;
  return tes_file_read(q->file, ctx_of(q), &iov, position(q, &pos), TES_RW_NONBLOCK);
}

static glong op_write(Request *q) {
  TesIov iov = q->vec;
  goffset pos;
  int flags = TES_RW_NONBLOCK | (q->sqe.rw_flags & (RWF_SYNC | RWF_DSYNC) ? TES_RW_SYNC : 0) |
              (q->sqe.rw_flags & RWF_APPEND ? TES_RW_APPEND : 0);
  gssize n = tes_file_write(q->file, ctx_of(q), &iov, position(q, &pos), flags);
  if (n == -EPIPE)
    tes_signal_task(q->task, SIGPIPE, NULL);
  return n;
}

static glong op_fsync(Request *q) {
  TesFile *f = q->file;
  if (q->sqe.fsync_flags & ~(guint)IORING_FSYNC_DATASYNC)
    return -EINVAL;
  if (TES_HAS(f->ops, fsync))
    return f->ops->fsync(f, ctx_of(q), q->sqe.fsync_flags != 0);
  return f->inode && (S_ISREG(f->inode->mode) || S_ISDIR(f->inode->mode)) ? 0 : -EINVAL;
}

static glong op_fallocate(Request *q) { return q->sqe.ioprio ? -EINVAL : uring_call(q); }

static glong op_nop(Request *q) {
  (void)q;
  return 0;
}

/* ---- Polling ---- */

static int prep_poll(Request *q) {
  q->poll_mask = (q->sqe.poll32_events & 0xffff) | POLLERR | POLLHUP;
  return q->sqe.len || q->sqe.off || q->sqe.addr ? -EINVAL : 0; /* neither multishot nor update */
}

static glong op_poll(Request *q) {
  guint now = tes_file_poll(q->file) & q->poll_mask;
  return now ? (glong)now : -EAGAIN;
}

/* ---- Timeouts ---- */

static int fetch_time(const Request *q, gulong uts, TesTime *value) {
  struct timespec ts;
  if (tes_copy_in(q->task, &ts, uts, sizeof ts) < 0)
    return -EFAULT;
  if (ts.tv_sec < 0 || ts.tv_nsec < 0) /* a second and more of nanoseconds is taken */
    return -EINVAL;
  *value = tes_timespec_to_ns(&ts);
  return 0;
}

/* On the clock of the timer service, which is realtime or monotonic. */
TesTime uring_expiry(const Request *q, TesTime value, guint flags) {
  TesKernel *k = tes_task_kernel(q->task);
  TesTime mono = tes_time_monotonic(k);
  if (!(flags & IORING_TIMEOUT_ABS))
    return tes_time_add((flags & IORING_TIMEOUT_REALTIME) ? tes_time_realtime(k) : mono, value);
  return (flags & IORING_TIMEOUT_BOOTTIME) ? value - (tes_time_boot(k) - mono) : value;
}

#define CLOCKS (IORING_TIMEOUT_BOOTTIME | IORING_TIMEOUT_REALTIME)

static int prep_timeout(Request *q) {
  guint flags = q->sqe.timeout_flags;
  if (q->sqe.ioprio || q->sqe.len != 1 ||
      (flags & ~(guint)(IORING_TIMEOUT_ABS | CLOCKS | IORING_TIMEOUT_ETIME_SUCCESS)) ||
      (flags & CLOCKS) == CLOCKS)
    return -EINVAL;
  q->realtime = (flags & IORING_TIMEOUT_REALTIME) != 0;
  int r = fetch_time(q, q->sqe.addr, &q->time);
  q->expiry = uring_expiry(q, q->time, flags);
  return r;
}

/* Of the request before it in its chain, which must be there. */
static int prep_link_timeout(Request *q) {
  guint flags = q->sqe.timeout_flags;
  if (q->sqe.ioprio || q->sqe.len != 1 || q->sqe.off || (flags & ~(guint)(IORING_TIMEOUT_ABS | CLOCKS)) ||
      (flags & CLOCKS) == CLOCKS)
    return -EINVAL;
  q->realtime = (flags & IORING_TIMEOUT_REALTIME) != 0;
  return fetch_time(q, q->sqe.addr, &q->time);
}

static glong op_timeout(Request *q) {
  (void)q;
  return -EAGAIN;
}

static gboolean match_timeout(const Request *q, gpointer data) {
  const Request *by = data;
  return q != by && q->sqe.opcode == IORING_OP_TIMEOUT && q->sqe.user_data == by->sqe.addr;
}

/* IORING_TIMEOUT_UPDATE: another time for one that waits. */
static glong update_timeout(Request *by) {
  Ring *r = by->ring;
  TesTime value;
  int e = fetch_time(by, by->sqe.addr2, &value);
  if (e < 0)
    return e;
  TesTime expiry = uring_expiry(by, value, by->sqe.timeout_flags);
  TES_LOCKED(&r->lock);
  for (GList *l = r->inflight.head; l; l = l->next) {
    Request *q = l->data;
    if (!match_timeout(q, by) || !q->timer_set)
      continue;
    tes_timer_arm(&q->timer, expiry, 0);
    return 0;
  }
  return -ENOENT;
}

static glong op_timeout_remove(Request *q) {
  guint flags = q->sqe.timeout_flags;
  if (q->sqe.ioprio || q->sqe.len || (flags & ~(guint)(IORING_TIMEOUT_UPDATE | IORING_TIMEOUT_ABS)) ||
      (flags & ~(guint)IORING_TIMEOUT_UPDATE && !(flags & IORING_TIMEOUT_UPDATE)))
    return -EINVAL;
  if (flags & IORING_TIMEOUT_UPDATE)
    return update_timeout(q);
  int r = uring_cancel(q->ring, match_timeout, q, FALSE);
  return MIN(r, 0);
}

/* ---- Cancelling ---- */

static gboolean match_user_data(const Request *q, gpointer data) {
  const Request *by = data;
  return q != by && q->sqe.user_data == by->sqe.addr;
}
static gboolean match_poll(const Request *q, gpointer data) {
  return q->sqe.opcode == IORING_OP_POLL_ADD && match_user_data(q, data);
}
static gboolean match_file(const Request *q, gpointer data) {
  const Request *by = data;
  return q != by && q->file && q->file == by->file;
}
static gboolean match_any(const Request *q, gpointer data) { return q != (const Request *)data; }

static glong op_poll_remove(Request *q) {
  if (q->sqe.ioprio || q->sqe.len || q->sqe.off || q->sqe.buf_index)
    return -EINVAL;
  int r = uring_cancel(q->ring, match_poll, q, FALSE);
  return MIN(r, 0);
}

static glong op_cancel(Request *q) {
  guint flags = q->sqe.cancel_flags;
  gboolean all = (flags & (IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY)) != 0;
  if (q->sqe.ioprio || q->sqe.off ||
      (flags & ~(guint)(IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY)) ||
      ((flags & IORING_ASYNC_CANCEL_FD) && (flags & IORING_ASYNC_CANCEL_ANY)))
    return -EINVAL;
  if ((flags & IORING_ASYNC_CANCEL_FD) && !(q->file = tes_fd_get(q->task, q->sqe.fd)))
    return -EBADF;
  int r = uring_cancel(q->ring,
                       (flags & IORING_ASYNC_CANCEL_FD)    ? match_file
                       : (flags & IORING_ASYNC_CANCEL_ANY) ? match_any
                                                           : match_user_data,
                       q, all);
  return all ? (r == -ENOENT ? 0 : r) : MIN(r, 0);
}

/* ---- The table ---- */

#define RW(mask_, issue_) \
  { .known = TRUE, .file = TRUE, .mask = mask_, .prep = prep_rw, .issue = issue_, .whole = TRUE }
#define CALL \
  { .known = TRUE, .prep = uring_prep_call, .issue = uring_call }

static const OpDef ops[] = {
    [IORING_OP_NOP] = {.known = TRUE, .issue = op_nop},
    [IORING_OP_READV] = RW(POLLIN, op_read),
    [IORING_OP_WRITEV] = RW(POLLOUT, op_write),
    [IORING_OP_FSYNC] = {.known = TRUE, .file = TRUE, .issue = op_fsync},
    [IORING_OP_READ_FIXED] = RW(POLLIN, op_read),
    [IORING_OP_WRITE_FIXED] = RW(POLLOUT, op_write),
    [IORING_OP_POLL_ADD] = {.known = TRUE, .file = TRUE, .mask = POLLIN, .prep = prep_poll, .issue = op_poll},
    [IORING_OP_POLL_REMOVE] = {.known = TRUE, .issue = op_poll_remove},
    [IORING_OP_SYNC_FILE_RANGE] = CALL,
    [IORING_OP_SENDMSG] =
        {.known = TRUE, .file = TRUE, .mask = POLLOUT, .prep = uring_prep_message, .issue = uring_op_sendmsg},
    [IORING_OP_RECVMSG] =
        {.known = TRUE, .file = TRUE, .mask = POLLIN, .prep = uring_prep_message, .issue = uring_op_recvmsg},
    [IORING_OP_TIMEOUT] = {.known = TRUE, .timer = TRUE, .prep = prep_timeout, .issue = op_timeout},
    [IORING_OP_TIMEOUT_REMOVE] = {.known = TRUE, .issue = op_timeout_remove},
    [IORING_OP_LINK_TIMEOUT] = {.known = TRUE, .prep = prep_link_timeout, .issue = op_nop},
    [IORING_OP_ACCEPT] =
        {.known = TRUE, .file = TRUE, .mask = POLLIN, .prep = uring_prep_accept, .issue = uring_op_accept},
    [IORING_OP_ASYNC_CANCEL] = {.known = TRUE, .issue = op_cancel},
    [IORING_OP_CONNECT] =
        {.known = TRUE, .file = TRUE, .mask = POLLOUT, .prep = uring_prep_connect, .issue = uring_op_connect},
    [IORING_OP_FALLOCATE] = {.known = TRUE, .prep = uring_prep_call, .issue = op_fallocate},
    [IORING_OP_OPENAT] = CALL,
    [IORING_OP_CLOSE] = CALL,
    [IORING_OP_STATX] = CALL,
    [IORING_OP_READ] = RW(POLLIN, op_read),
    [IORING_OP_WRITE] = RW(POLLOUT, op_write),
    [IORING_OP_FADVISE] = CALL,
    [IORING_OP_MADVISE] = CALL,
    [IORING_OP_SEND] = {.known = TRUE,
                        .file = TRUE,
                        .mask = POLLOUT,
                        .prep = uring_prep_message,
                        .issue = uring_op_send,
                        .whole = TRUE},
    [IORING_OP_RECV] =
        {.known = TRUE, .file = TRUE, .mask = POLLIN, .prep = uring_prep_message, .issue = uring_op_recv},
    [IORING_OP_OPENAT2] = CALL,
    [IORING_OP_EPOLL_CTL] = CALL,
    [IORING_OP_SHUTDOWN] = CALL,
    [IORING_OP_RENAMEAT] = CALL,
    [IORING_OP_UNLINKAT] = CALL,
    [IORING_OP_MKDIRAT] = CALL,
    [IORING_OP_SYMLINKAT] = CALL,
    [IORING_OP_LINKAT] = CALL,
    [IORING_OP_SOCKET] = CALL,
};

const OpDef *uring_op(guint opcode) {
  return opcode < G_N_ELEMENTS(ops) && ops[opcode].known ? &ops[opcode] : NULL;
}
