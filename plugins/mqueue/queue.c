/* SPDX-License-Identifier: Apache-2.0 */
/* Queues and what bounds them: the settings of their IPC namespace, RLIMIT_MSGQUEUE of their owner, and a bound of ours on all
 * together, as messages live in the kernel process. */
#include "mqueue.h"
#include <linux/capability.h>
#include <sched.h>

static const TesLockClass mq_class = {"mqueue", TES_RANK_FILE, FALSE, "messages of a queue"};
static const TesLockClass total_class = {"mqueue bytes", TES_RANK_LEAF, FALSE,
                                         "bytes of message queues by user"};

/* ---- Bytes ---- */

/* A box of GLib's: queues may outlive the plugin's data by what still refers to them at the kernel's end. */
struct _MqBytes {
  TesMutex lock;
  GHashTable *by_user; /* uid -> bytes, boxed */
  guint64 total;
};

static int bytes_key;

static void bytes_clear(gpointer data) {
  MqBytes *b = data;
  g_hash_table_unref(b->by_user);
  tes_mutex_clear(&b->lock);
}
static void bytes_release(gpointer b) { g_atomic_rc_box_release_full(b, bytes_clear); }

gboolean mq_init(TesKernel *k, GError **error) {
  (void)error;
  MqBytes *b = g_atomic_rc_box_new0(MqBytes);
  tes_mutex_init(&b->lock, &total_class);
  b->by_user = g_hash_table_new_full(NULL, NULL, NULL, g_free);
  tes_kernel_set_data(k, &bytes_key, b, bytes_release);
  return TRUE;
}

static int take_bytes(MqBytes *b, guint32 uid, guint64 n, guint64 limit) {
  TES_LOCKED(&b->lock);
  guint64 *own = g_hash_table_lookup(b->by_user, GUINT_TO_POINTER(uid));
  guint64 had = own ? *own : 0;
  if (had + n > limit)
    return -EMFILE;
  if (b->total + n > MQ_TOTAL_BYTES)
    return -ENOMEM;
  if (!own)
    g_hash_table_insert(b->by_user, GUINT_TO_POINTER(uid), own = g_new0(guint64, 1));
  *own = had + n;
  b->total += n;
  return 0;
}

static void give_bytes(MqBytes *b, guint32 uid, guint64 n) {
  TES_LOCKED(&b->lock);
  guint64 *own = g_hash_table_lookup(b->by_user, GUINT_TO_POINTER(uid));
  b->total -= n;
  if ((*own -= n) == 0)
    g_hash_table_remove(b->by_user, GUINT_TO_POINTER(uid));
}

/* What a queue counts for, full or not: getrlimit(2), RLIMIT_MSGQUEUE (two structures of 48 bytes for each message). */
static guint64 queue_bytes(const MqAttr *a) {
  return (guint64)a->maxmsg * 48 + (guint64)MIN(a->maxmsg, MQ_PRIORITIES) * 48 +
         (guint64)a->maxmsg * (guint64)a->msgsize;
}

/* ---- Queues ---- */

Mq *mq_ref(Mq *q) {
  g_atomic_int_inc(&q->refs);
  return q;
}

void mq_unref(Mq *q) {
  if (!g_atomic_int_dec_and_test(&q->refs))
    return;
  give_bytes(q->bytes_of, q->owner, q->bytes);
  bytes_release(q->bytes_of);
  g_sequence_free(q->msgs);
  if (q->notify.tg)
    tes_tg_unref(q->notify.tg);
  tes_queue_clear(&q->queue);
  tes_mutex_clear(&q->lock);
  g_free(q);
}

static int check_attr(MqNs *ns, TesCtx *ctx, MqAttr *a) {
  gboolean privileged = tes_ctx_capable(ctx, CAP_SYS_RESOURCE);
  glong msgs = privileged ? MQ_HARD_MSGS : g_atomic_int_get(&ns->msg_max),
        size = privileged ? MQ_HARD_SIZE : g_atomic_int_get(&ns->msgsize_max);
  if (a->maxmsg <= 0 || a->msgsize <= 0 || a->maxmsg > msgs || a->msgsize > size)
    return -EINVAL;
  return 0;
}

int mq_make(MqNs *ns, TesCtx *ctx, const char *name, guint32 mode, const MqAttr *want, Mq **out) {
  MqAttr a = {.maxmsg = MIN(g_atomic_int_get(&ns->msg_default), g_atomic_int_get(&ns->msg_max)),
              .msgsize = MIN(g_atomic_int_get(&ns->msgsize_default), g_atomic_int_get(&ns->msgsize_max))};
  if (want)
    a = *want;
  int r = want ? check_attr(ns, ctx, &a) : 0;
  if (r < 0)
    return r;
  if (g_hash_table_contains(ns->names, name))
    return -EEXIST;
  if ((gint)g_hash_table_size(ns->names) >= g_atomic_int_get(&ns->queues_max) &&
      !tes_ctx_capable(ctx, CAP_SYS_RESOURCE))
    return -ENOSPC;
  TesTask *task = tes_ctx_task(ctx);
  TesCred *cred = tes_ctx_cred(ctx);
  MqBytes *bytes = tes_kernel_get_data(ns->super.kernel, &bytes_key);
  r = take_bytes(bytes, cred->uid, queue_bytes(&a),
                 task ? tes_task_rlimit(task, RLIMIT_MSGQUEUE) : RLIM_INFINITY);
  if (r < 0)
    return r;
  Mq *q = g_new0(Mq, 1);
  TesTime now = tes_time_realtime(ns->super.kernel);
  q->refs = 1;
  q->bytes_of = g_atomic_rc_box_acquire(bytes);
  q->kernel = ns->super.kernel;
  q->ino = tes_unique_id(q->kernel) + 16;
  q->mode = S_IFREG | (mode & 07777);
  q->uid = cred->fsuid;
  q->gid = cred->fsgid;
  q->atime = q->mtime = q->ctime = tes_timespec_from_ns(now);
  q->owner = cred->uid;
  q->bytes = queue_bytes(&a);
  q->max_msgs = a.maxmsg;
  q->msg_size = a.msgsize;
  q->msgs = g_sequence_new(g_free);
  tes_mutex_init(&q->lock, &mq_class);
  tes_queue_init(&q->queue);
  char *key = g_strdup(name);
  g_hash_table_insert(ns->names, key, mq_ref(q));
  g_ptr_array_add(ns->order, key);
  *out = q;
  return 0;
}

int mq_unlink_name(MqNs *ns, const char *name) {
  gpointer key, q;
  if (!g_hash_table_lookup_extended(ns->names, name, &key, &q))
    return -ENOENT;
  g_ptr_array_remove(ns->order, key);
  g_hash_table_remove(ns->names, name);
  return 0;
}

void mq_clear(MqNs *ns) {
  TES_LOCKED(&ns->lock);
  g_ptr_array_set_size(ns->order, 0);
  g_hash_table_remove_all(ns->names);
}

/* ---- Messages ---- */

static gint by_rank(gconstpointer a, gconstpointer b, gpointer data) {
  const Msg *x = a, *y = b;
  (void)data;
  if (x->prio != y->prio)
    return x->prio > y->prio ? -1 : 1;
  return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Tells who asked for it, once; lock held. The signal is sent by the caller, without the lock. */
static gboolean take_notify(Mq *q, Notify *out) {
  if (!q->notify.tg || q->receivers)
    return FALSE;
  *out = q->notify;
  q->notify = (Notify){0};
  return TRUE;
}

static void send_notify(const Notify *n, TesCtx *sender) {
  TesTask *t = tes_ctx_task(sender);
  if (n->how == SIGEV_SIGNAL && n->signo) {
    siginfo_t info = {.si_signo = n->signo, .si_code = SI_MESGQ};
    info.si_pid = t ? tes_task_pid(t, NULL) : 0;
    info.si_uid = tes_ctx_cred(sender)->uid;
    info.si_value.sival_ptr = (void *)(gulong)n->value;
    tes_signal_group(n->tg, n->signo, &info);
  }
  tes_tg_unref(n->tg);
}

int mq_send(Mq *q, TesCtx *ctx, Msg *m) {
  Notify n;
  tes_mutex_lock(&q->lock);
  glong count = g_sequence_get_length(q->msgs);
  if (count >= q->max_msgs) {
    tes_mutex_unlock(&q->lock);
    return -EAGAIN;
  }
  m->seq = ++q->seq;
  g_sequence_insert_sorted(q->msgs, m, by_rank, NULL);
  q->qsize += m->len;
  q->mtime = q->ctime = tes_timespec_from_ns(tes_time_realtime(q->kernel));
  gboolean tell = count == 0 && take_notify(q, &n);
  tes_mutex_unlock(&q->lock);
  tes_queue_notify(&q->queue, POLLIN | POLLRDNORM);
  if (tell)
    send_notify(&n, ctx);
  return 0;
}

Msg *mq_receive(Mq *q) {
  tes_mutex_lock(&q->lock);
  GSequenceIter *first = g_sequence_get_begin_iter(q->msgs);
  Msg *m = NULL;
  if (!g_sequence_iter_is_end(first)) {
    Msg *best = g_sequence_get(first);
    m = g_memdup2(best, sizeof *best + best->len);
    q->qsize -= m->len;
    g_sequence_remove(first);
    q->atime = q->ctime = tes_timespec_from_ns(tes_time_realtime(q->kernel));
  }
  tes_mutex_unlock(&q->lock);
  if (m)
    tes_queue_notify(&q->queue, POLLOUT | POLLWRNORM);
  return m;
}

glong mq_count(Mq *q) {
  TES_LOCKED(&q->lock);
  return g_sequence_get_length(q->msgs);
}

guint mq_poll(Mq *q) {
  glong n = mq_count(q);
  return (n > 0 ? POLLIN | POLLRDNORM : 0) | (n < q->max_msgs ? POLLOUT | POLLWRNORM : 0);
}

void mq_forget_notify(Mq *q, TesThreadGroup *tg) {
  tes_mutex_lock(&q->lock);
  TesThreadGroup *old = q->notify.tg == tg ? tg : NULL;
  if (old)
    q->notify = (Notify){0};
  tes_mutex_unlock(&q->lock);
  if (old)
    tes_tg_unref(old);
}

/* ---- Namespaces ---- */

static const char ns_key[] = "tessera-mqueue";

static void ns_ended(gpointer data) {
  MqNs *ns = data;
  mq_clear(ns);
  tes_super_unref(&ns->super);
}

MqNs *mq_ns_of(TesCtx *ctx) {
  TesKernel *k = tes_ctx_kernel(ctx);
  TesNs *ipc =
      tes_ctx_task(ctx) ? (TesNs *)tes_ctx_get(ctx, TES_CTX_IPC_NS) : tes_kernel_root_ns(k, CLONE_NEWIPC);
  if (!ipc)
    return NULL;
  static GMutex making;
  g_mutex_lock(&making);
  MqNs *ns = g_datalist_get_data(&ipc->plugins, ns_key);
  if (!ns) {
    ns = mq_ns_new(k);
    g_datalist_set_data_full(&ipc->plugins, ns_key, ns, ns_ended);
  }
  tes_super_ref(&ns->super);
  g_mutex_unlock(&making);
  return ns;
}

void mq_fini(TesKernel *k) {
  TesNs *ipc = tes_kernel_root_ns(k, CLONE_NEWIPC);
  g_datalist_set_data(&ipc->plugins, ns_key, NULL);
}

/* ---- /proc/sys/fs/mqueue ---- */

static int show(TesCtx *ctx, GString *s, goffset field) {
  MqNs *ns = mq_ns_of(ctx);
  if (!ns)
    return -EINVAL;
  g_string_append_printf(s, "%d\n", g_atomic_int_get((gint *)G_STRUCT_MEMBER_P(ns, field)));
  tes_super_unref(&ns->super);
  return 0;
}

static int store(TesCtx *ctx, const char *text, goffset field, gint lo, gint hi) {
  gint64 v;
  g_autofree char *word = g_strstrip(g_strdup(text));
  if (!g_ascii_string_to_signed(word, 10, lo, hi, &v, NULL))
    return -EINVAL;
  MqNs *ns = mq_ns_of(ctx);
  if (!ns)
    return -EINVAL;
  g_atomic_int_set((gint *)G_STRUCT_MEMBER_P(ns, field), (gint)v);
  tes_super_unref(&ns->super);
  return 0;
}

#define SETTING(name_, lo_, hi_)                                                                          \
  static int show_##name_(TesCtx *ctx, GString *s) { return show(ctx, s, G_STRUCT_OFFSET(MqNs, name_)); } \
  static int store_##name_(TesCtx *ctx, const char *text) {                                               \
    return store(ctx, text, G_STRUCT_OFFSET(MqNs, name_), lo_, hi_);                                      \
  }
SETTING(msg_default, 1, MQ_HARD_MSGS)
SETTING(msg_max, 1, MQ_HARD_MSGS)
SETTING(msgsize_default, 128, MQ_HARD_SIZE)
SETTING(msgsize_max, 128, MQ_HARD_SIZE)
SETTING(queues_max, 0, 4096)

#define ROW(name_) \
  { #name_, 0644, show_##name_, store_##name_ }
static const TesSysctl rows[] = {ROW(msg_default), ROW(msg_max), ROW(msgsize_default), ROW(msgsize_max),
                                 ROW(queues_max)};
const TesSysctlTable mq_sysctl = {sizeof(TesSysctlTable), rows, G_N_ELEMENTS(rows)};
