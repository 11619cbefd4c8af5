/* SPDX-License-Identifier: Apache-2.0 */
/* Sending and receiving: msghdr and control messages decoded with every bound checked, blocking with the socket's timeouts, and control
 * messages written back. What the guest gave is copied in once. send(2), recv(2), cmsg(3). */
#include <core/syscalls/socket.h>

#define CONTROL_MAX (64 * 1024)

/* struct msghdr as the guest lays it out. */
typedef struct {
  guint64 name;
  gint32 name_len, pad;
  guint64 iov, iov_n, control, control_len;
  guint32 flags, pad2;
} UserMsg;

typedef struct {
  TesMsg m;
  TesIov iov;
  struct iovec one, *store;
} Message;

static void message_clear(Message *msg) {
  g_free(msg->store);
  g_free(msg->m.control);
  if (msg->m.files)
    g_ptr_array_unref(msg->m.files);
}

/* ---- Sending ---- */

static gssize send_wait(TesTask *t, TesFile *f, TesMsg *m) {
  const TesSockOps *ops = tes_sock_ops(f);
  TesCtx *ctx = tes_task_ctx(t);
  gboolean nonblock = (m->flags & MSG_DONTWAIT) || tes_file_nonblock(f),
           stream = (f->ops->flags & TES_FILE_STREAM) != 0;
  if (nonblock)
    m->flags |= MSG_DONTWAIT;
  gssize n = ops->sendmsg(f, ctx, m), done = MAX(n, 0);
  if (nonblock || (n < 0 && n != -EAGAIN) || (n >= 0 && (!stream || m->iov->left == 0)))
    return n;
  TesTime deadline = tes_file_deadline(f, TRUE);
  TesFileWait fw;
  tes_file_wait_begin(&fw, f, t, POLLOUT | POLLWRNORM);
  for (;;) {
    if (done > 0)
      m->control_len = 0; /* went with the first part */
    n = ops->sendmsg(f, ctx, m);
    done += MAX(n, 0);
    if ((n < 0 && n != -EAGAIN) || (n >= 0 && (!stream || m->iov->left == 0)))
      break;
    if (n > 0)
      continue;
    int w = tes_file_wait_block(&fw, deadline);
    if (w < 0) {
      n = w == -ETIMEDOUT ? -EAGAIN : tes_file_interrupted(deadline);
      break;
    }
  }
  tes_file_wait_end(&fw);
  return done ? done : n;
}

static glong do_send(TesTask *t, TesFile *f, Message *msg) {
  if (!TES_HAS(tes_sock_ops(f), sendmsg))
    return -EOPNOTSUPP;
  msg->m.iov = &msg->iov;
  gssize n = send_wait(t, f, &msg->m);
  if (n == -EPIPE && !(msg->m.flags & MSG_NOSIGNAL))
    tes_file_signal_self(t, SIGPIPE);
  return n;
}

glong tes_sys_do_sendto(TesTask *t, const gulong a[6]) {
  Message msg = {.m = {.flags = (int)a[3]}};
  int r;
  g_auto(TesFdLoan) loan = tes_sock_borrow(t, a[0], &r);
  TesFile *f = loan.file;
  if (!f)
    return r;
  r = tes_iov_init_user(&msg.iov, &msg.one, t, a[1], a[2]);
  if (r == 0 && a[4])
    r = tes_sock_addr_in(t, a[4], (int)a[5], &msg.m.name, &msg.m.name_len);
  return r < 0 ? r : do_send(t, f, &msg);
}

static int import_header(TesTask *t, gulong uaddr, UserMsg *u, Message *msg) {
  if (tes_copy_in(t, u, uaddr, sizeof *u) < 0)
    return -EFAULT;
  if (!u->name)
    u->name_len = 0;
  if (u->name_len < 0)
    return -EINVAL;
  if (u->iov_n > TES_IOV_MAX)
    return -EMSGSIZE;
  return tes_iov_import(&msg->iov, &msg->store, t, u->iov, u->iov_n);
}

static glong send_one(TesTask *t, TesFile *f, gulong uaddr, int flags) {
  UserMsg u;
  Message msg = {.m = {.flags = flags}};
  int r = import_header(t, uaddr, &u, &msg);
  if (r == 0 && u.name_len)
    r = tes_sock_addr_in(t, u.name, MIN(u.name_len, (gint)sizeof msg.m.name), &msg.m.name, &msg.m.name_len);
  if (r == 0 && u.control && u.control_len) {
    if (u.control_len > CONTROL_MAX) {
      r = -ENOBUFS;
    } else {
      msg.m.control = g_malloc(u.control_len);
      msg.m.control_len = u.control_len;
      r = tes_copy_in(t, msg.m.control, u.control, u.control_len);
    }
  }
  glong n = r < 0 ? r : do_send(t, f, &msg);
  message_clear(&msg);
  return n;
}

glong tes_sys_do_sendmsg(TesTask *t, const gulong a[6]) {
  int r;
  g_auto(TesFdLoan) loan = tes_sock_borrow(t, a[0], &r);
  TesFile *f = loan.file;
  return f ? send_one(t, f, a[1], (int)a[2]) : r;
}

/* struct mmsghdr: a msghdr and the bytes moved. */
#define MMSG_SIZE 64
#define MMSG_LEN 56

glong tes_sys_do_sendmmsg(TesTask *t, const gulong a[6]) {
  int r;
  guint n = MIN((guint)a[2], TES_IOV_MAX), done = 0;
  g_auto(TesFdLoan) loan = tes_sock_borrow(t, a[0], &r);
  TesFile *f = loan.file;
  if (!f)
    return r;
  glong sent = 0;
  while (done < n) {
    gulong at = a[1] + (gulong)done * MMSG_SIZE;
    sent = send_one(t, f, at, (int)a[3]);
    if (sent < 0)
      break;
    guint32 len = (guint32)sent;
    if (tes_copy_out(t, at + MMSG_LEN, &len, sizeof len) < 0) {
      sent = -EFAULT;
      break;
    }
    done++;
    if (tes_signal_pending(t))
      break;
  }
  return done ? (glong)done : MIN(sent, 0);
}

/* ---- Receiving ---- */

static gssize recv_wait(TesTask *t, TesFile *f, TesMsg *m) {
  const TesSockOps *ops = tes_sock_ops(f);
  TesCtx *ctx = tes_task_ctx(t);
  gboolean nonblock = (m->flags & MSG_DONTWAIT) || tes_file_nonblock(f);
  gboolean all = (m->flags & MSG_WAITALL) && !(m->flags & MSG_PEEK) && (f->ops->flags & TES_FILE_STREAM);
  if (nonblock)
    m->flags |= MSG_DONTWAIT;
  gssize n = ops->recvmsg(f, ctx, m), done = MAX(n, 0);
  if (nonblock || (n < 0 && n != -EAGAIN) || (n >= 0 && (!all || n == 0 || m->iov->left == 0)))
    return n;
  TesTime deadline = tes_file_deadline(f, FALSE);
  TesFileWait fw;
  tes_file_wait_begin(&fw, f, t, POLLIN | POLLRDNORM | POLLRDHUP);
  for (;;) {
    /* What came with control data ends the wait for more. */
    if (done > 0 && (m->files || m->have_cred))
      break;
    n = ops->recvmsg(f, ctx, m);
    done += MAX(n, 0);
    if ((n < 0 && n != -EAGAIN) || (n >= 0 && (!all || n == 0 || m->iov->left == 0)))
      break;
    if (n > 0)
      continue;
    int w = tes_file_wait_block(&fw, deadline);
    if (w < 0) {
      n = w == -ETIMEDOUT ? -EAGAIN : tes_file_interrupted(deadline);
      break;
    }
  }
  tes_file_wait_end(&fw);
  return done ? done : n;
}

static glong do_recv(TesTask *t, TesFile *f, Message *msg) {
  if (!TES_HAS(tes_sock_ops(f), recvmsg))
    return -EOPNOTSUPP;
  msg->m.iov = &msg->iov;
  return recv_wait(t, f, &msg->m);
}

glong tes_sys_do_recvfrom(TesTask *t, const gulong a[6]) {
  Message msg = {.m = {.flags = (int)a[3]}};
  int r;
  g_auto(TesFdLoan) loan = tes_sock_borrow(t, a[0], &r);
  TesFile *f = loan.file;
  if (!f)
    return r;
  r = tes_iov_init_user(&msg.iov, &msg.one, t, a[1], a[2]);
  if (r < 0)
    return r;
  glong n = do_recv(t, f, &msg);
  if (n >= 0 && a[4] && (r = tes_sock_addr_out(t, a[4], a[5], &msg.m.name, msg.m.name_len)) < 0)
    n = r;
  message_clear(&msg);
  return n;
}

/* ---- Control messages to the guest ---- */

typedef struct {
  TesTask *t;
  gulong at;
  gsize left, used;
  int *out_flags;
} Control;

/* One message with `n` bytes of data; cut short, with MSG_CTRUNC, when it does not fit. */
static int put_cmsg(Control *c, int level, int type, const void *data, gsize n) {
  struct cmsghdr h = {.cmsg_len = CMSG_LEN(n), .cmsg_level = level, .cmsg_type = type};
  if (c->left < sizeof h) {
    *c->out_flags |= MSG_CTRUNC;
    return 0;
  }
  if (h.cmsg_len > c->left) {
    *c->out_flags |= MSG_CTRUNC;
    h.cmsg_len = c->left;
    n = c->left - sizeof h;
  }
  if (tes_copy_out(c->t, c->at, &h, sizeof h) < 0 || (n && tes_copy_out(c->t, c->at + sizeof h, data, n) < 0))
    return -EFAULT;
  gsize step = MIN(CMSG_SPACE(n), c->left);
  c->at += step;
  c->left -= step;
  c->used += step;
  return 0;
}

static int put_cred(Control *c, const struct ucred *cred) {
  struct ucred seen = *cred;
  TesNs *ns = tes_ctx_pid_ns(tes_task_ctx(c->t));
  if (ns && ns->parent) {
    g_autoptr(TesTask) who = tes_task_find(tes_task_kernel(c->t), NULL, cred->pid, TRUE);
    seen.pid = who ? tes_task_pid(who, ns) : 0;
  }
  return put_cmsg(c, SOL_SOCKET, SCM_CREDENTIALS, &seen, sizeof seen);
}

/* Installs as many files as there is room for; the rest are dropped with MSG_CTRUNC. */
static int put_files(Control *c, GPtrArray *files, gboolean cloexec) {
  gsize room = c->left > CMSG_LEN(0) ? (c->left - CMSG_LEN(0)) / sizeof(int) : 0, n = 0;
  g_autofree int *fd = g_new(int, MAX(files->len, 1));
  for (; n < files->len && n < room; n++) {
    fd[n] = tes_fd_install(c->t, g_ptr_array_index(files, n), 0, cloexec);
    if (fd[n] < 0)
      break;
  }
  if (n < files->len)
    *c->out_flags |= MSG_CTRUNC;
  return n ? put_cmsg(c, SOL_SOCKET, SCM_RIGHTS, fd, n * sizeof(int)) : 0;
}

static int put_control(TesTask *t, UserMsg *u, Message *msg) {
  Control c = {.t = t,
               .at = u->control,
               .left = u->control ? MIN(u->control_len, G_MAXINT) : 0,
               .out_flags = &msg->m.out_flags};
  int r = msg->m.have_cred ? put_cred(&c, &msg->m.cred) : 0;
  if (r == 0 && msg->m.files)
    r = put_files(&c, msg->m.files, (msg->m.flags & MSG_CMSG_CLOEXEC) != 0);
  u->control_len = c.used;
  return r;
}

static int put_header(TesTask *t, gulong uaddr, UserMsg *u, Message *msg) {
  int r = put_control(t, u, msg);
  gint32 name_len = (gint32)msg->m.name_len;
  guint32 flags = (guint32)(msg->m.out_flags | (msg->m.flags & MSG_CMSG_CLOEXEC));
  if (r == 0 && u->name) {
    gsize n = (gsize)MIN(u->name_len, name_len);
    if ((n && tes_copy_out(t, u->name, &msg->m.name, n) < 0) ||
        tes_copy_out(t, uaddr + G_STRUCT_OFFSET(UserMsg, name_len), &name_len, sizeof name_len) < 0)
      r = -EFAULT;
  }
  if (r == 0 && (tes_copy_out(t, uaddr + G_STRUCT_OFFSET(UserMsg, flags), &flags, sizeof flags) < 0 ||
                 tes_copy_out(t, uaddr + G_STRUCT_OFFSET(UserMsg, control_len), &u->control_len,
                              sizeof u->control_len) < 0))
    r = -EFAULT;
  return r;
}

static glong recv_one(TesTask *t, TesFile *f, gulong uaddr, int flags, int *out_flags) {
  UserMsg u;
  Message msg = {.m = {.flags = flags}};
  int r = import_header(t, uaddr, &u, &msg);
  glong n = r < 0 ? r : do_recv(t, f, &msg);
  if (n >= 0 && (r = put_header(t, uaddr, &u, &msg)) < 0)
    n = r;
  if (out_flags)
    *out_flags = msg.m.out_flags;
  message_clear(&msg);
  return n;
}

glong tes_sys_do_recvmsg(TesTask *t, const gulong a[6]) {
  int r;
  g_auto(TesFdLoan) loan = tes_sock_borrow(t, a[0], &r);
  TesFile *f = loan.file;
  return f ? recv_one(t, f, a[1], (int)a[2], NULL) : r;
}

/* The timeout of recvmmsg is looked at after each message only (its BUGS section). */
static int fetch_deadline(TesTask *t, gulong uts, TesTime *deadline) {
  glong ts[2];
  *deadline = TES_TIME_INFINITE;
  if (!uts)
    return 0;
  if (tes_copy_in(t, ts, uts, sizeof ts) < 0)
    return -EFAULT;
  if (ts[0] < 0 || ts[1] < 0 || ts[1] >= TES_NSEC)
    return -EINVAL;
  TesTime now = tes_time_monotonic(tes_task_kernel(t));
  if (ts[0] < (G_MAXINT64 - now) / TES_NSEC - 1)
    *deadline = now + ts[0] * TES_NSEC + ts[1];
  return 0;
}

static void store_left(TesTask *t, gulong uts, TesTime deadline) {
  if (!uts || deadline == TES_TIME_INFINITE)
    return;
  TesTime left = deadline - tes_time_monotonic(tes_task_kernel(t));
  left = MAX(left, 0);
  glong ts[2] = {left / TES_NSEC, left % TES_NSEC};
  (void)tes_copy_out(t, uts, ts, sizeof ts);
}

glong tes_sys_do_recvmmsg(TesTask *t, const gulong a[6]) {
  int r, flags = (int)a[3];
  guint n = MIN((guint)a[2], TES_IOV_MAX), done = 0;
  TesTime deadline;
  g_auto(TesFdLoan) loan = tes_sock_borrow(t, a[0], &r);
  TesFile *f = loan.file;
  if (!f)
    return r;
  r = fetch_deadline(t, a[4], &deadline);
  if (r < 0)
    return r;
  glong got = 0;
  while (done < n) {
    gulong at = a[1] + (gulong)done * MMSG_SIZE;
    int out_flags = 0;
    got = recv_one(t, f, at, flags & ~MSG_WAITFORONE, &out_flags);
    if (got < 0)
      break;
    guint32 len = (guint32)got;
    if (tes_copy_out(t, at + MMSG_LEN, &len, sizeof len) < 0) {
      got = -EFAULT;
      break;
    }
    done++;
    if (flags & MSG_WAITFORONE)
      flags |= MSG_DONTWAIT;
    if ((out_flags & MSG_OOB) || tes_signal_pending(t) ||
        (deadline != TES_TIME_INFINITE && tes_time_monotonic(tes_task_kernel(t)) >= deadline))
      break;
  }
  store_left(t, a[4], deadline);
  return done ? (glong)done : MIN(got, 0);
}
