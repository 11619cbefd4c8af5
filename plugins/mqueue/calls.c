/* SPDX-License-Identifier: Apache-2.0 */
/* mq_open(2), mq_unlink, mq_timedsend, mq_timedreceive, mq_notify, mq_getsetattr. Names come without the slash that the C library
 * takes off. */
#include "mqueue.h"
#include <sys/syscall.h>

static int copy_name(TesTask *t, gulong addr, char name[TES_NAME_MAX + 2]) {
  gssize n = tes_copy_in_str(t, name, addr, TES_NAME_MAX + 1);
  if (n < 0)
    return (int)n;
  if (n == 0)
    return -ENOENT;
  return strchr(name, '/') || g_str_equal(name, ".") || g_str_equal(name, "..") ? -EACCES : 0;
}

/* ---- mq_open, mq_unlink ---- */

/* The queue's inode, made if need be. *made: the caller made it, so its mode does not matter now. */
static int find_or_make(MqNs *ns, TesCtx *ctx, const char *name, guint flags, guint32 mode,
                        const MqAttr *attr, TesInode **out, gboolean *made) {
  TES_LOCKED(&ns->lock);
  Mq *q = g_hash_table_lookup(ns->names, name);
  *made = FALSE;
  if (q && flags & O_CREAT && flags & O_EXCL)
    return -EEXIST;
  if (q) {
    *out = mq_inode_new(ns, q);
    return 0;
  }
  if (!(flags & O_CREAT))
    return -ENOENT;
  int r = mq_make(ns, ctx, name, mode, attr, &q);
  if (r < 0)
    return r;
  *made = TRUE;
  *out = mq_inode_new(ns, q);
  mq_unref(q);
  return 0;
}

static guint wanted(guint flags) {
  static const guint masks[] = {[O_RDONLY] = 4, [O_WRONLY] = 2, [O_RDWR] = 6};
  return masks[flags & O_ACCMODE];
}

static int open_queue(TesTask *t, MqNs *ns, const char *name, guint flags, guint32 mode, const MqAttr *attr,
                      TesFile **out) {
  TesCtx *ctx = tes_task_ctx(t);
  TesVfs *v = tes_kernel_vfs(tes_task_kernel(t));
  g_autoptr(TesInode) i = NULL;
  gboolean made;
  int r = find_or_make(ns, ctx, name, flags, mode, attr, &i, &made);
  if (r == 0 && !made)
    r = tes_inode_permission(i, ctx, wanted(flags));
  if (r == 0)
    r = i->ops->open(i, ctx, flags & ~(guint)(O_CREAT | O_EXCL | O_CLOEXEC), out);
  if (r < 0)
    return r;
  (*out)->path = v->ops->anon_path(v, ctx, i, name);
  (*out)->inode = g_steal_pointer(&i);
  return 0;
}

static glong sys_mq_open(TesTask *t, const gulong a[6]) {
  char name[TES_NAME_MAX + 2];
  guint flags = (guint)a[1];
  MqAttr u;
  if (a[3] && tes_copy_in(t, &u, a[3], sizeof u) < 0)
    return -EFAULT;
  int r = copy_name(t, a[0], name);
  if (r < 0)
    return r;
  if ((flags & O_ACCMODE) == O_ACCMODE)
    return -EINVAL;
  MqAttr attr = {.maxmsg = a[3] ? u.maxmsg : 0, .msgsize = a[3] ? u.msgsize : 0};
  TesCtx *ctx = tes_task_ctx(t);
  MqNs *ns = mq_ns_of(ctx);
  if (!ns)
    return -ENOSYS;
  guint32 mode = tes_ctx_apply_umask(ctx, (guint32)a[2] & 07777);
  TesFile *f = NULL;
  r = open_queue(t, ns, name, flags, mode, a[3] ? &attr : NULL, &f);
  tes_super_unref(&ns->super);
  if (r < 0)
    return r;
  r = tes_fd_install(t, f, 0, TRUE);
  tes_file_unref(f);
  return r;
}

static glong sys_mq_unlink(TesTask *t, const gulong a[6]) {
  char name[TES_NAME_MAX + 2];
  int r = copy_name(t, a[0], name);
  if (r < 0)
    return r;
  TesCtx *ctx = tes_task_ctx(t);
  MqNs *ns = mq_ns_of(ctx);
  if (!ns)
    return -ENOSYS;
  tes_mutex_lock(&ns->lock);
  Mq *q = g_hash_table_lookup(ns->names, name);
  r = q ? 0 : -ENOENT;
  if (q) { /* the directory is sticky */
    g_autoptr(TesInode) i = mq_inode_new(ns, q);
    r = tes_inode_owner_or_capable(i, ctx) ? mq_unlink_name(ns, name) : -EPERM;
  }
  tes_mutex_unlock(&ns->lock);
  tes_super_unref(&ns->super);
  return r;
}

/* ---- Sending and receiving ---- */

/* An absolute time of the realtime clock as a deadline for waiting; 0 means none was given. */
static int get_deadline(TesTask *t, gulong addr, TesTime *out) {
  struct timespec ts;
  *out = TES_TIME_INFINITE;
  if (!addr)
    return 0;
  if (tes_copy_in(t, &ts, addr, sizeof ts) < 0)
    return -EFAULT;
  if (!tes_timespec_valid(&ts))
    return -EINVAL;
  TesKernel *k = tes_task_kernel(t);
  TesTime left = tes_timespec_to_ns(&ts) - tes_time_realtime(k);
  *out = tes_time_add(tes_time_monotonic(k), MAX(left, 0));
  return 0;
}

static int wait_for(TesFile *f, TesTask *t, guint mask, TesTime deadline) {
  if (f->flags & O_NONBLOCK)
    return -EAGAIN;
  int r = tes_file_wait(f, t, mask, deadline);
  return r == -EINTR ? -TES_ERESTARTSYS : r;
}

/* A descriptor of a queue that allows what is wanted; referenced, as the call may block. */
static int get_queue(TesTask *t, int fd, gboolean (*allows)(const TesFile *), TesFile **out, Mq **q) {
  g_autoptr(TesFile) f = tes_fd_get(t, fd);
  if (!f || !(*q = mq_of_file(f)) || (allows && !allows(f)))
    return -EBADF;
  *out = g_steal_pointer(&f);
  return 0;
}
static gboolean may_send(const TesFile *f) { return tes_file_writable(f); }
static gboolean may_receive(const TesFile *f) { return tes_file_readable(f); }

static glong sys_mq_timedsend(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = NULL;
  Mq *q = NULL;
  TesTime deadline;
  if (a[3] >= MQ_PRIORITIES)
    return -EINVAL;
  int r = get_deadline(t, a[4], &deadline);
  if (r == 0)
    r = get_queue(t, (int)a[0], may_send, &f, &q);
  if (r < 0)
    return r;
  if (a[2] > (gulong)q->msg_size)
    return -EMSGSIZE;
  g_autofree Msg *m = g_malloc(sizeof *m + a[2]);
  *m = (Msg){.prio = (guint)a[3], .len = a[2]};
  if (tes_copy_in(t, m->data, a[1], a[2]) < 0)
    return -EFAULT;
  while ((r = mq_send(q, tes_task_ctx(t), m)) == -EAGAIN)
    if ((r = wait_for(f, t, POLLOUT, deadline)) < 0)
      return r;
  m = NULL;
  return r;
}

/* While somebody waits for a message its arrival is not news for mq_notify(3). */
static int wait_for_message(TesFile *f, Mq *q, TesTask *t, TesTime deadline) {
  tes_mutex_lock(&q->lock);
  q->receivers++;
  tes_mutex_unlock(&q->lock);
  int r = wait_for(f, t, POLLIN, deadline);
  tes_mutex_lock(&q->lock);
  q->receivers--;
  tes_mutex_unlock(&q->lock);
  return r;
}

static glong sys_mq_timedreceive(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = NULL;
  Mq *q = NULL;
  TesTime deadline;
  int r = get_deadline(t, a[4], &deadline);
  if (r == 0)
    r = get_queue(t, (int)a[0], may_receive, &f, &q);
  if (r < 0)
    return r;
  if (a[2] < (gulong)q->msg_size)
    return -EMSGSIZE;
  g_autofree Msg *m = NULL;
  while (!(m = mq_receive(q)))
    if ((r = wait_for_message(f, q, t, deadline)) < 0)
      return r;
  if (a[3] && tes_copy_out(t, a[3], &m->prio, sizeof m->prio) < 0)
    return -EFAULT;
  if (tes_copy_out(t, a[1], m->data, m->len) < 0)
    return -EFAULT;
  return (glong)m->len;
}

/* ---- mq_notify ---- */

typedef struct {
  guint64 value;
  gint32 signo, how;
} UserEvent; /* the beginning of struct sigevent */

static int check_event(TesTask *t, const UserEvent *e) {
  if (e->how == SIGEV_THREAD) { /* signo is a netlink socket, of which there are none */
    g_autoptr(TesFile) f = tes_fd_get(t, e->signo);
    return !f ? -EBADF : TES_HAS(f->ops, sock) ? -EINVAL : -ENOTSOCK;
  }
  if (e->how != SIGEV_NONE && e->how != SIGEV_SIGNAL)
    return -EINVAL;
  return e->how == SIGEV_SIGNAL && (e->signo < 0 || e->signo > 64) ? -EINVAL : 0;
}

static glong sys_mq_notify(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = NULL;
  Mq *q = NULL;
  UserEvent e;
  TesThreadGroup *tg = tes_task_group(t);
  if (a[1] && tes_copy_in(t, &e, a[1], sizeof e) < 0)
    return -EFAULT;
  int r = a[1] ? check_event(t, &e) : 0;
  if (r == 0)
    r = get_queue(t, (int)a[0], NULL, &f, &q);
  if (r < 0)
    return r;
  if (!a[1]) {
    mq_forget_notify(q, tg);
    return 0;
  }
  gint pid = tes_task_pid(t, NULL);
  TES_LOCKED(&q->lock);
  if (q->notify.tg)
    return -EBUSY;
  q->notify = (Notify){tes_tg_ref(tg), pid, e.how, e.signo, e.value};
  q->atime = q->ctime = tes_timespec_from_ns(tes_time_realtime(q->kernel));
  return 0;
}

/* ---- mq_getsetattr ---- */

static glong sys_mq_getsetattr(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = NULL;
  Mq *q = NULL;
  MqAttr in;
  if (a[1] && tes_copy_in(t, &in, a[1], sizeof in) < 0)
    return -EFAULT;
  if (a[1] && in.flags & ~(glong)O_NONBLOCK)
    return -EINVAL;
  int r = get_queue(t, (int)a[0], NULL, &f, &q);
  if (r < 0)
    return r;
  MqAttr out = {
      .flags = f->flags & O_NONBLOCK, .maxmsg = q->max_msgs, .msgsize = q->msg_size, .curmsgs = mq_count(q)};
  if (a[1] && in.flags & O_NONBLOCK)
    __atomic_or_fetch(&f->flags, O_NONBLOCK, __ATOMIC_SEQ_CST);
  else if (a[1])
    __atomic_and_fetch(&f->flags, ~(guint)O_NONBLOCK, __ATOMIC_SEQ_CST);
  return a[2] && tes_copy_out(t, a[2], &out, sizeof out) < 0 ? -EFAULT : 0;
}

static const TesSyscall rows[] = {
    {SYS_mq_open, "mq_open", sys_mq_open, TES_FULL, NULL, "sOop"},
    {SYS_mq_unlink, "mq_unlink", sys_mq_unlink, TES_FULL, NULL, "s"},
    {SYS_mq_timedsend, "mq_timedsend", sys_mq_timedsend, TES_FULL, NULL, "fpuup"},
    {SYS_mq_timedreceive, "mq_timedreceive", sys_mq_timedreceive, TES_FULL, NULL, "fpupp"},
    {SYS_mq_notify, "mq_notify", sys_mq_notify, TES_PARTIAL, "no SIGEV_THREAD, which needs a netlink socket",
     "fp"},
    {SYS_mq_getsetattr, "mq_getsetattr", sys_mq_getsetattr, TES_FULL, NULL, "fpp"},
};
const TesSyscallTable mq_calls = {sizeof(TesSyscallTable), rows, G_N_ELEMENTS(rows)};
