/* SPDX-License-Identifier: Apache-2.0 */
/* System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2). Waiters hold a reference on the queue: it may be removed meanwhile. */
#include <core/ipc/ipc.h>
#include <core/syscalls/syscalls.h>
#include <linux/capability.h>
#include <sys/msg.h>

#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif
#define MESSAGE_MAX 8192   /* MSGMAX, bytes */
#define QUEUE_MAX 16384    /* MSGMNB, bytes */
#define ALL_MAX (64 << 20) /* bytes of all messages in the sandbox */
#define MESSAGE_COST 64    /* of each, beside its text */

typedef struct _Message {
  struct _Message *next;
  glong type;
  gsize len;
  guint8 text[];
} Message;

typedef struct {
  TesIpcPerm perm;
  gint refs;
  gboolean removed;
  Message *head, **tail;
  gsize bytes, max;
  guint n;
  gint64 stime, rtime, ctime;
  gint lspid, lrpid;
  TesQueue queue; /* POLLIN: a message came, POLLOUT: one went */
} MsgQueue;

static gsize all_bytes; /* atomic */

static Message *message_new(gsize len) {
  if (__atomic_add_fetch(&all_bytes, len + MESSAGE_COST, __ATOMIC_RELAXED) > ALL_MAX) {
    __atomic_sub_fetch(&all_bytes, len + MESSAGE_COST, __ATOMIC_RELAXED);
    return NULL;
  }
  Message *m = g_malloc(sizeof *m + len);
  m->next = NULL;
  m->len = len;
  return m;
}

static void message_free(Message *m) {
  __atomic_sub_fetch(&all_bytes, m->len + MESSAGE_COST, __ATOMIC_RELAXED);
  g_free(m);
}

static void queue_unref(MsgQueue *q) {
  if (!g_atomic_int_dec_and_test(&q->refs))
    return;
  for (Message *m = q->head, *next; m; m = next) {
    next = m->next;
    message_free(m);
  }
  tes_queue_clear(&q->queue);
  g_free(q);
}

void tes_msg_ns_free(TesIpcNs *ns) {
  for (guint i = 0; i < ns->msg.top; i++)
    if (ns->msg.slot[i])
      queue_unref((MsgQueue *)ns->msg.slot[i]);
}

/* ---- msgget(2) ---- */

static int queue_new(TesTask *t, TesIpcNs *ns, guint32 key, guint mode) {
  MsgQueue *q = g_new0(MsgQueue, 1);
  q->refs = 1;
  q->tail = &q->head;
  q->max = QUEUE_MAX;
  q->ctime = tes_ipc_now(t->kernel);
  tes_queue_init(&q->queue);
  int id = tes_ipc_add(t, &ns->msg, &q->perm, key, mode);
  if (id < 0)
    queue_unref(q);
  return id;
}

static glong sys_msgget(TesTask *t, const gulong a[6]) {
  guint32 key = (guint32)a[0];
  guint flags = (guint)a[1];
  TesIpcNs *ns = tes_ipc_ns(t);
  TES_LOCKED(&ns->lock);
  TesIpcPerm *p = key == IPC_PRIVATE ? NULL : tes_ipc_find_key(&ns->msg, key);
  if (!p)
    return key != IPC_PRIVATE && !(flags & IPC_CREAT) ? -ENOENT : queue_new(t, ns, key, flags);
  if ((flags & IPC_CREAT) && (flags & IPC_EXCL))
    return -EEXIST;
  int r = tes_ipc_permission(t, p, (flags | flags >> 3 | flags >> 6) & 6);
  return r < 0 ? r : p->id;
}

/* ---- Waiting ---- */

/* Finds the queue (referenced) and asks for permission. */
static int get(TesTask *t, TesIpcNs *ns, int id, guint mask, MsgQueue **out) {
  TesIpcPerm *p;
  TES_LOCKED(&ns->lock);
  int r = tes_ipc_find(&ns->msg, id, &p);
  if (r == 0)
    r = tes_ipc_permission(t, p, mask);
  if (r == 0) {
    *out = (MsgQueue *)p;
    g_atomic_int_inc(&(*out)->refs);
  }
  return r;
}

typedef struct {
  glong type;
  guint flags;
  gsize size;
  Message *message; /* to send; or received */
} Transfer;

/* 0, -EAGAIN: not now, or the error that ends the call. Lock held. */
typedef int (*Attempt)(TesTask *, MsgQueue *, Transfer *);

static int transfer(TesTask *t, TesIpcNs *ns, MsgQueue *q, Attempt attempt, Transfer *x, guint event) {
  TesWaiter w;
  int r;
  tes_waiter_init_task(&w, t, event);
  tes_queue_add(&q->queue, &w);
  for (;;) {
    tes_mutex_lock(&ns->lock);
    r = q->removed ? -EIDRM : attempt(t, q, x);
    tes_mutex_unlock(&ns->lock);
    if (r != -EAGAIN || (x->flags & IPC_NOWAIT))
      break;
    if (tes_task_block(t, TES_TIME_INFINITE) < 0) {
      r = -TES_ERESTARTNOHAND;
      break;
    }
  }
  tes_waiter_remove(&w);
  return r;
}

/* ---- msgsnd(2) ---- */

static int try_send(TesTask *t, MsgQueue *q, Transfer *x) {
  if (q->bytes + x->message->len > q->max || q->n + 1 > q->max)
    return -EAGAIN;
  *q->tail = x->message;
  q->tail = &x->message->next;
  q->bytes += x->message->len;
  q->n++;
  q->lspid = t->tg->tgid;
  q->stime = tes_ipc_now(t->kernel);
  tes_queue_notify(&q->queue, POLLIN);
  return 0;
}

static glong sys_msgsnd(TesTask *t, const gulong a[6]) {
  gsize size = a[2];
  glong type;
  if ((int)a[0] < 0 || size > MESSAGE_MAX)
    return -EINVAL;
  if (tes_copy_in(t, &type, a[1], sizeof type) < 0)
    return -EFAULT;
  if (type < 1)
    return -EINVAL;
  Transfer x = {.flags = (guint)a[3], .message = message_new(size)};
  if (!x.message)
    return -ENOMEM;
  x.message->type = type;
  int r = size && tes_copy_in(t, x.message->text, a[1] + sizeof type, size) < 0 ? -EFAULT : 0;
  TesIpcNs *ns = tes_ipc_ns(t);
  MsgQueue *q = NULL;
  if (r == 0)
    r = get(t, ns, (int)a[0], 2, &q);
  if (r == 0) {
    r = transfer(t, ns, q, try_send, &x, POLLOUT);
    queue_unref(q);
  }
  if (r < 0)
    message_free(x.message);
  return r;
}

/* ---- msgrcv(2) ---- */

/* The link to the message that type and flags ask for, or to NULL. */
static Message **choose(MsgQueue *q, const Transfer *x) {
  Message **best = NULL, **l = &q->head;
  if (x->flags & MSG_COPY) { /* `type` counts */
    for (glong i = 0; *l && i < x->type; i++)
      l = &(*l)->next;
    return l;
  }
  for (; *l; l = &(*l)->next) {
    glong type = (*l)->type;
    if (x->type == 0 || (x->type > 0 && (x->flags & MSG_EXCEPT ? type != x->type : type == x->type)))
      return l;
    if (x->type < 0 && type <= (x->type == G_MINLONG ? G_MAXLONG : -x->type) &&
        (!best || type < (*best)->type))
      best = l;
  }
  return best ? best : l;
}

static int try_receive(TesTask *t, MsgQueue *q, Transfer *x) {
  Message **link = choose(q, x), *m = *link;
  if (!m)
    return -EAGAIN;
  if (m->len > x->size && !(x->flags & MSG_NOERROR))
    return -E2BIG;
  if (x->flags & MSG_COPY) {
    x->message = message_new(m->len);
    if (!x->message)
      return -ENOMEM;
    x->message->type = m->type;
    memcpy(x->message->text, m->text, m->len);
    return 0;
  }
  *link = m->next;
  if (q->tail == &m->next)
    q->tail = link;
  q->bytes -= m->len;
  q->n--;
  q->lrpid = t->tg->tgid;
  q->rtime = tes_ipc_now(t->kernel);
  x->message = m;
  tes_queue_notify(&q->queue, POLLOUT);
  return 0;
}

static glong sys_msgrcv(TesTask *t, const gulong a[6]) {
  Transfer x = {.type = (glong)a[3], .flags = (guint)a[4], .size = a[2]};
  if ((int)a[0] < 0 || a[2] > G_MAXLONG)
    return -EINVAL;
  if ((x.flags & MSG_COPY) && ((x.flags & MSG_EXCEPT) || !(x.flags & IPC_NOWAIT)))
    return -EINVAL;
  TesIpcNs *ns = tes_ipc_ns(t);
  MsgQueue *q;
  int r = get(t, ns, (int)a[0], 4, &q);
  if (r < 0)
    return r;
  r = transfer(t, ns, q, try_receive, &x, POLLIN);
  queue_unref(q);
  if (r < 0)
    return r == -EAGAIN ? -ENOMSG : r;
  gsize n = MIN(x.message->len, x.size);
  gboolean bad = tes_copy_out(t, a[1], &x.message->type, sizeof(glong)) < 0 ||
                 (n && tes_copy_out(t, a[1] + sizeof(glong), x.message->text, n) < 0);
  message_free(x.message);
  return bad ? -EFAULT : (glong)n;
}

/* ---- msgctl(2) ---- */

static void fill(const MsgQueue *q, struct msqid_ds *d) {
  *d = (struct msqid_ds){.msg_stime = q->stime,
                         .msg_rtime = q->rtime,
                         .msg_ctime = q->ctime,
                         .__msg_cbytes = q->bytes,
                         .msg_qnum = q->n,
                         .msg_qbytes = q->max,
                         .msg_lspid = q->lspid,
                         .msg_lrpid = q->lrpid};
  tes_ipc_perm_out(&q->perm, &d->msg_perm);
}

static glong info(TesTask *t, TesIpcNs *ns, int cmd, gulong out) {
  struct msginfo i = {.msgpool = TES_IPC_SLOTS * QUEUE_MAX / 1024,
                      .msgmap = QUEUE_MAX,
                      .msgmax = MESSAGE_MAX,
                      .msgmnb = QUEUE_MAX,
                      .msgmni = TES_IPC_SLOTS,
                      .msgssz = 16,
                      .msgtql = QUEUE_MAX,
                      .msgseg = G_MAXUINT16};
  tes_mutex_lock(&ns->lock);
  int highest = ns->msg.top ? (int)ns->msg.top - 1 : 0;
  if (cmd == MSG_INFO) {
    i.msgpool = (int)ns->msg.n;
    i.msgmap = i.msgtql = 0;
    for (guint k = 0; k < ns->msg.top; k++) {
      const MsgQueue *q = (MsgQueue *)ns->msg.slot[k];
      i.msgmap += q ? (int)q->n : 0;
      i.msgtql += q ? (int)q->bytes : 0;
    }
  }
  tes_mutex_unlock(&ns->lock);
  return tes_copy_out(t, out, &i, sizeof i) < 0 ? -EFAULT : highest;
}

static glong status(TesTask *t, TesIpcNs *ns, int id, int cmd, gulong out) {
  struct msqid_ds d;
  TesIpcPerm *p;
  tes_mutex_lock(&ns->lock);
  int r = tes_ipc_stat(t, &ns->msg, id, cmd != IPC_STAT, cmd == MSG_STAT_ANY, &p);
  if (r >= 0)
    fill((MsgQueue *)p, &d);
  tes_mutex_unlock(&ns->lock);
  return r >= 0 && tes_copy_out(t, out, &d, sizeof d) < 0 ? -EFAULT : r;
}

static void line(const TesIpcPerm *p, GString *out) {
  const MsgQueue *q = (const MsgQueue *)p;
  g_string_append_printf(out,
                         "%10d %10d  %4o  %10" G_GSIZE_FORMAT
                         " %10u %5d %5d %5u %5u %5u %5u %10" G_GINT64_FORMAT " %10" G_GINT64_FORMAT
                         " %10" G_GINT64_FORMAT "\n",
                         (gint)p->key, p->id, p->mode, q->bytes, q->n, q->lspid, q->lrpid, p->uid, p->gid,
                         p->cuid, p->cgid, q->stime, q->rtime, q->ctime);
}

void tes_ipc_msg_text(TesTask *t, GString *out) {
  g_string_append(out, "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  "
                       "cgid      stime      rtime      ctime\n");
  tes_ipc_list(t, &tes_ipc_ns(t)->msg, line, out);
}

static int set(TesTask *t, MsgQueue *q, const struct msqid_ds *d) {
  if (d->msg_qbytes > QUEUE_MAX)
    return tes_task_capable(t, CAP_SYS_RESOURCE) && d->msg_qbytes <= ALL_MAX ? -EINVAL : -EPERM;
  int r = tes_ipc_perm_set(&q->perm, &d->msg_perm);
  if (r == 0) {
    q->max = d->msg_qbytes;
    q->ctime = tes_ipc_now(t->kernel);
    tes_queue_notify(&q->queue, POLLOUT | POLLIN);
  }
  return r;
}

static glong change(TesTask *t, TesIpcNs *ns, int id, int cmd, gulong in) {
  struct msqid_ds d;
  TesIpcPerm *p;
  if (cmd == IPC_SET && tes_copy_in(t, &d, in, sizeof d) < 0)
    return -EFAULT;
  tes_mutex_lock(&ns->lock);
  int r = tes_ipc_find(&ns->msg, id, &p);
  if (r == 0)
    r = tes_ipc_may_change(t, p);
  MsgQueue *q = (MsgQueue *)p;
  if (r == 0 && cmd == IPC_SET) {
    r = set(t, q, &d);
  } else if (r == 0) {
    tes_ipc_remove(&ns->msg, p);
    q->removed = TRUE;
    tes_queue_notify(&q->queue, POLLIN | POLLOUT);
  }
  tes_mutex_unlock(&ns->lock);
  if (r == 0 && cmd == IPC_RMID)
    queue_unref(q);
  return r;
}

static glong sys_msgctl(TesTask *t, const gulong a[6]) {
  int id = (int)a[0], cmd = (int)a[1];
  TesIpcNs *ns = tes_ipc_ns(t);
  if (id < 0 || cmd < 0)
    return -EINVAL;
  switch (cmd) {
  case IPC_INFO:
  case MSG_INFO:
    return info(t, ns, cmd, a[2]);
  case IPC_STAT:
  case MSG_STAT:
  case MSG_STAT_ANY:
    return status(t, ns, id, cmd, a[2]);
  case IPC_SET:
  case IPC_RMID:
    return change(t, ns, id, cmd, a[2]);
  default:
    return -EINVAL;
  }
}

static const TesSyscall rows[] = {
    {68, "msgget", sys_msgget, TES_PARTIAL, "at most 4,096 queues in a namespace", "xx"},
    {69, "msgsnd", sys_msgsnd, TES_FULL, NULL, "dpux"},
    {70, "msgrcv", sys_msgrcv, TES_FULL, NULL, "dpudx"},
    {71, "msgctl", sys_msgctl, TES_PARTIAL, "a queue holds at most MSGMNB bytes, also for root", "ddp"},
};
const TesSyscallTable tes_sys_msg = TES_ROWS(rows);
