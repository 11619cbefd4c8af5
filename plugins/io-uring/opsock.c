/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on sockets. send and recv go to the socket itself; messages with headers go through the system calls' handlers, by number,
 * as long as the number still means the same socket. */
#include "private.h"
#include <sys/syscall.h>

static TesCtx *ctx_of(const Request *q) { return tes_task_ctx(q->task); }

static glong call(const Request *q, guint nr, gulong a0, gulong a1, gulong a2) {
  const TesSyscall *row = tes_syscall_row(tes_kernel_registry(tes_task_kernel(q->task)), nr);
  const gulong a[6] = {a0, a1, a2};
  return row && row->fn ? row->fn(q->task, a) : -EOPNOTSUPP;
}

static int need_socket(const Request *q) { return TES_HAS(q->file->ops, sock) ? 0 : -ENOTSOCK; }

/* ioprio holds flags (multishot, poll first): none are known. */
int uring_prep_message(Request *q) {
  if (q->sqe.ioprio || (q->sqe.file_index && q->sqe.opcode != IORING_OP_SEND))
    return -EINVAL;
  int r = need_socket(q);
  q->nowait = (q->sqe.msg_flags & MSG_DONTWAIT) != 0;
  if (r < 0 || q->sqe.opcode == IORING_OP_SENDMSG || q->sqe.opcode == IORING_OP_RECVMSG)
    return r < 0 ? r : (q->sqe.flags & IOSQE_FIXED_FILE) ? -EINVAL : 0;
  r = tes_iov_init_user(&q->vec, &q->one, q->task, q->sqe.addr, q->sqe.len);
  q->len = q->vec.left;
  return r;
}

glong uring_op_send(Request *q) {
  const TesSockOps *ops = q->file->ops->sock;
  TesIov iov = q->vec;
  TesMsg m = {.iov = &iov, .flags = (int)q->sqe.msg_flags | MSG_DONTWAIT | MSG_NOSIGNAL};
  return TES_HAS(ops, sendmsg) ? ops->sendmsg(q->file, ctx_of(q), &m) : -EOPNOTSUPP;
}

glong uring_op_recv(Request *q) {
  const TesSockOps *ops = q->file->ops->sock;
  TesIov iov = q->vec;
  TesMsg m = {.iov = &iov, .flags = (int)q->sqe.msg_flags | MSG_DONTWAIT};
  gssize n = TES_HAS(ops, recvmsg) ? ops->recvmsg(q->file, ctx_of(q), &m) : -EOPNOTSUPP;
  if (m.files)
    g_ptr_array_unref(m.files);
  return n;
}

static glong message(Request *q, guint nr, guint flags) {
  g_autoptr(TesFile) now = tes_fd_get(q->task, q->sqe.fd);
  if (now != q->file)
    return -EBADF; /* closed while it waited */
  return call(q, nr, (gulong)q->sqe.fd, q->sqe.addr, q->sqe.msg_flags | flags | MSG_DONTWAIT);
}

glong uring_op_sendmsg(Request *q) { return message(q, SYS_sendmsg, MSG_NOSIGNAL); }
glong uring_op_recvmsg(Request *q) { return message(q, SYS_recvmsg, 0); }

int uring_prep_accept(Request *q) {
  if (q->sqe.ioprio || q->sqe.len || q->sqe.buf_index || q->sqe.file_index ||
      (q->sqe.accept_flags & ~(guint)(SOCK_CLOEXEC | SOCK_NONBLOCK)))
    return -EINVAL;
  return need_socket(q);
}

static int put_peer(const Request *q, TesFile *peer) {
  struct sockaddr_storage name;
  socklen_t len = sizeof name;
  int room;
  const TesSockOps *ops = peer->ops->sock;
  if (!q->sqe.addr)
    return 0;
  if (tes_copy_in(q->task, &room, q->sqe.addr2, sizeof room) < 0)
    return -EFAULT;
  if (room < 0)
    return -EINVAL;
  int r = TES_HAS(ops, getname) ? ops->getname(peer, ctx_of(q), TRUE, &name, &len) : -EOPNOTSUPP;
  if (r < 0)
    return r == -ENOTCONN ? -ECONNABORTED : r;
  gsize n = MIN((gsize)room, len);
  int full = (int)len;
  if (n && tes_copy_out(q->task, q->sqe.addr, &name, n) < 0)
    return -EFAULT;
  return tes_copy_out(q->task, q->sqe.addr2, &full, sizeof full);
}

glong uring_op_accept(Request *q) {
  const TesSockOps *ops = q->file->ops->sock;
  g_autoptr(TesFile) peer = NULL;
  int r = TES_HAS(ops, accept)
              ? ops->accept(q->file, ctx_of(q), (q->sqe.accept_flags & SOCK_NONBLOCK) ? O_NONBLOCK : 0, &peer)
              : -EOPNOTSUPP;
  if (r >= 0)
    r = put_peer(q, peer);
  return r < 0 ? r : tes_fd_install(q->task, peer, 0, (q->sqe.accept_flags & SOCK_CLOEXEC) != 0);
}

int uring_prep_connect(Request *q) {
  gsize n = q->sqe.addr2;
  if (q->sqe.ioprio || q->sqe.len || q->sqe.buf_index || q->sqe.rw_flags || q->sqe.file_index)
    return -EINVAL;
  int r = need_socket(q);
  if (r < 0)
    return r;
  if (n > sizeof q->name)
    return -EINVAL;
  q->name_len = (socklen_t)n;
  return n ? tes_copy_in(q->task, &q->name, q->sqe.addr, n) : 0;
}

glong uring_op_connect(Request *q) {
  const TesSockOps *ops = q->file->ops->sock;
  if (!TES_HAS(ops, connect))
    return -EOPNOTSUPP;
  int r = ops->connect(q->file, ctx_of(q), (struct sockaddr *)&q->name, q->name_len);
  return r == -EINPROGRESS || r == -EALREADY ? -EAGAIN : r;
}
