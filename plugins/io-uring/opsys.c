/* SPDX-License-Identifier: Apache-2.0 */
/* Operations that are a system call with its arguments in other places: the call's own handler does them. They do not wait for
 * readiness; one that waits for something else (a FIFO's other end, a slow disk) keeps its task waiting. */
#include "private.h"
#include <fcntl.h>
#include <sys/syscall.h>

/* Where an argument is. */
typedef enum { NONE, FD, ADDR, ADDR2, LEN, LEN_FD, OFF, FLAGS, ADVICE } From;

static const struct {
  guint nr;
  guint8 from[5];
} calls[IORING_OP_LAST] = {
    [IORING_OP_SYNC_FILE_RANGE] = {SYS_sync_file_range, {FD, OFF, LEN, FLAGS}},
    [IORING_OP_FALLOCATE] = {SYS_fallocate, {FD, LEN, OFF, ADDR}},
    [IORING_OP_OPENAT] = {SYS_openat, {FD, ADDR, FLAGS, LEN}},
    [IORING_OP_OPENAT2] = {SYS_openat2, {FD, ADDR, ADDR2, LEN}},
    [IORING_OP_CLOSE] = {SYS_close, {FD}},
    [IORING_OP_STATX] = {SYS_statx, {FD, ADDR, FLAGS, LEN, OFF}},
    [IORING_OP_FADVISE] = {SYS_fadvise64, {FD, OFF, LEN, ADVICE}},
    [IORING_OP_MADVISE] = {SYS_madvise, {ADDR, LEN, ADVICE}},
    [IORING_OP_EPOLL_CTL] = {SYS_epoll_ctl, {FD, LEN, OFF, ADDR}},
    [IORING_OP_SHUTDOWN] = {SYS_shutdown, {FD, LEN}},
    [IORING_OP_RENAMEAT] = {SYS_renameat2, {FD, ADDR, LEN_FD, ADDR2, FLAGS}},
    [IORING_OP_UNLINKAT] = {SYS_unlinkat, {FD, ADDR, FLAGS}},
    [IORING_OP_MKDIRAT] = {SYS_mkdirat, {FD, ADDR, LEN}},
    [IORING_OP_SYMLINKAT] = {SYS_symlinkat, {ADDR, FD, ADDR2}},
    [IORING_OP_LINKAT] = {SYS_linkat, {FD, ADDR, LEN_FD, ADDR2, FLAGS}},
    [IORING_OP_SOCKET] = {SYS_socket, {FD, OFF, LEN}},
};

static gulong value(const struct io_uring_sqe *s, guint8 from) {
  switch (from) {
  case FD:
  case LEN_FD:
    return (gulong)(glong)(from == FD ? s->fd : (gint32)s->len);
  case ADDR:
    return s->addr;
  case ADDR2:
  case OFF:
    return s->off;
  case LEN:
    return s->len;
  case FLAGS:
  case ADVICE:
    return (guint)s->rw_flags;
  default:
    return 0;
  }
}

/* Descriptors of the ring's own table (file_index) are not supported. */
int uring_prep_call(Request *q) {
  return q->sqe.file_index || (q->sqe.buf_index && q->sqe.opcode != IORING_OP_FALLOCATE) ? -EINVAL : 0;
}

static glong do_close(Request *q, const TesSyscall *row, const gulong a[6]) {
  TesFile *f = tes_fd_get(q->task, q->sqe.fd);
  if (!f)
    return -EBADF;
  glong r = f == &q->ring->file ? -EBADF : row->fn(q->task, a);
  tes_task_drop_file(q->task, f);
  return r;
}

glong uring_call(Request *q) {
  const TesSyscall *row =
      tes_syscall_row(tes_kernel_registry(tes_task_kernel(q->task)), calls[q->sqe.opcode].nr);
  const guint8 *from = calls[q->sqe.opcode].from;
  gulong a[6] = {0};
  for (guint i = 0; i < 5; i++)
    a[i] = value(&q->sqe, from[i]);
  if (!row || !row->fn)
    return -EOPNOTSUPP;
  return q->sqe.opcode == IORING_OP_CLOSE ? do_close(q, row, a) : row->fn(q->task, a);
}
