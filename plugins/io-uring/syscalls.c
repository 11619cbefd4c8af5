/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring_setup(2), io_uring_enter(2), io_uring_register(2), and the plugin. */
#include "private.h"

/* ---- All rings: a task that ends, or becomes another program, takes its requests with it ---- */

static const TesLockClass rings_class = {"io_uring rings", TES_RANK_LEAF, FALSE, "list of all rings"};
static TesMutex rings_lock = TES_MUTEX_INIT(&rings_class);
static GQueue rings = G_QUEUE_INIT;

static void remember(Ring *r) {
  TES_LOCKED(&rings_lock);
  g_queue_push_tail(&rings, r);
  r->all = rings.tail;
}

void uring_forget(Ring *r) {
  TES_LOCKED(&rings_lock);
  g_queue_delete_link(&rings, r->all);
}

static void task_leaves(TesTask *t, gpointer data) {
  g_autoptr(GPtrArray) all = NULL;
  (void)data;
  if (!__atomic_load_n(&rings.length, __ATOMIC_RELAXED))
    return;
  all = g_ptr_array_new();
  {
    TES_LOCKED(&rings_lock);
    for (GList *l = rings.head; l; l = l->next)
      if (tes_file_try_ref(l->data))
        g_ptr_array_add(all, l->data);
  }
  for (guint i = 0; i < all->len; i++) {
    uring_drop(all->pdata[i], t);
    tes_file_unref(all->pdata[i]);
  }
}

static gboolean plugin_init(TesKernel *k, GError **error) {
  (void)error;
  tes_kernel_on_leave(k, task_leaves, NULL);
  return TRUE;
}

/* ---- Setup ---- */

#define SETUP_KNOWN                                                                               \
  (IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL | \
   IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER |           \
   IORING_SETUP_DEFER_TASKRUN)
#define FEATURES                                                                                         \
  (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_RW_CUR_POS |   \
   IORING_FEAT_CUR_PERSONALITY | IORING_FEAT_FAST_POLL | IORING_FEAT_POLL_32BITS | IORING_FEAT_EXT_ARG | \
   IORING_FEAT_CQE_SKIP | IORING_FEAT_LINKED_FILE)

static guint32 power_of_two(guint32 n) { return n <= 1 ? 1 : 1u << (32 - __builtin_clz(n - 1)); }

static int sizes(guint32 entries, const struct io_uring_params *p, guint32 *sq, guint32 *cq) {
  gboolean clamp = (p->flags & IORING_SETUP_CLAMP) != 0;
  if (entries == 0 || (entries > URING_MAX_ENTRIES && !clamp))
    return -EINVAL;
  *sq = power_of_two(MIN(entries, URING_MAX_ENTRIES));
  *cq = 2 * *sq;
  if (!(p->flags & IORING_SETUP_CQSIZE))
    return 0;
  if (p->cq_entries == 0 || (p->cq_entries > 2 * URING_MAX_ENTRIES && !clamp))
    return -EINVAL;
  *cq = power_of_two(MIN(p->cq_entries, 2 * URING_MAX_ENTRIES));
  return *cq < *sq ? -EINVAL : 0;
}

static glong sys_io_uring_setup(TesTask *t, const gulong a[6]) {
  struct io_uring_params p;
  guint32 sq, cq;
  Ring *r;
  if (tes_copy_in(t, &p, a[1], sizeof p) < 0)
    return -EFAULT;
  if (p.resv[0] || p.resv[1] || p.resv[2] || (p.flags & ~(guint32)SETUP_KNOWN))
    return -EINVAL;
  if ((p.flags & IORING_SETUP_DEFER_TASKRUN) && !(p.flags & IORING_SETUP_SINGLE_ISSUER))
    return -EINVAL;
  if ((p.flags & IORING_SETUP_TASKRUN_FLAG) &&
      !(p.flags & (IORING_SETUP_COOP_TASKRUN | IORING_SETUP_DEFER_TASKRUN)))
    return -EINVAL;
  int e = sizes((guint32)a[0], &p, &sq, &cq);
  if (e == 0)
    e = uring_new(tes_task_kernel(t), sq, cq, p.flags, &r);
  if (e < 0)
    return e;
  remember(r);
  if ((p.flags & IORING_SETUP_SINGLE_ISSUER) && r->enabled)
    r->issuer = t;
  uring_offsets(r, &p);
  p.features = FEATURES;
  glong fd = tes_copy_out(t, a[1], &p, sizeof p);
  if (fd == 0)
    fd = tes_fd_install(t, &r->file, 0, TRUE);
  tes_file_unref(&r->file);
  return fd;
}

static int get_ring(TesTask *t, gulong fd, Ring **out) {
  TesFile *f = tes_fd_get(t, (int)fd);
  if (!f)
    return -EBADF;
  if (f->ops != &uring_file_ops) {
    tes_file_unref(f);
    return -EOPNOTSUPP;
  }
  *out = uring(f);
  return 0;
}

/* ---- Submitting ---- */

#define SQE_FLAGS                                                                        \
  (IOSQE_FIXED_FILE | IOSQE_IO_DRAIN | IOSQE_IO_LINK | IOSQE_IO_HARDLINK | IOSQE_ASYNC | \
   IOSQE_CQE_SKIP_SUCCESS)

static guint queued(Ring *r) {
  TES_LOCKED(&r->lock);
  return MIN(__atomic_load_n(&r->shared->sq_tail, __ATOMIC_ACQUIRE) - r->sq_head, r->sq_entries);
}

/* The next entry, copied once; FALSE: there is none, or its index is out of range, which is counted and ends the submission. */
static gboolean next_sqe(Ring *r, struct io_uring_sqe *out) {
  TES_LOCKED(&r->lock);
  if (r->sq_head == __atomic_load_n(&r->shared->sq_tail, __ATOMIC_ACQUIRE))
    return FALSE;
  guint32 index = __atomic_load_n(&r->sq_array[r->sq_head & (r->sq_entries - 1)], __ATOMIC_RELAXED);
  __atomic_store_n(&r->shared->sq_head, ++r->sq_head, __ATOMIC_RELEASE);
  if (index < r->sq_entries)
    memcpy(out, &r->sqes[index], sizeof *out);
  else
    __atomic_add_fetch(&r->shared->sq_dropped, 1, __ATOMIC_RELAXED);
  return index < r->sq_entries;
}

static int check_sqe(const Ring *r, const struct io_uring_sqe *s) {
  (void)r;
  if ((s->flags & ~(guint)SQE_FLAGS) || !uring_op(s->opcode) || s->personality)
    return -EINVAL;
  return 0;
}

typedef struct {
  Request *first, *last; /* the chain that is being put together */
} Chain;

static void begin(Chain *c) {
  Request *q = g_steal_pointer(&c->first);
  c->last = NULL;
  if (q)
    uring_begin(q);
}

/* An entry that is wrong ends the submission, unless IORING_SETUP_SUBMIT_ALL, and breaks its chain. */
static gboolean add(Ring *r, TesTask *t, const struct io_uring_sqe *s, Chain *c) {
  int e = check_sqe(r, s);
  Request *q = uring_request_new(r, t, s);
  if (e == 0 && s->opcode == IORING_OP_LINK_TIMEOUT)
    e = !c->last || c->last->sqe.opcode == IORING_OP_LINK_TIMEOUT ? -EINVAL : q->op->prep(q);
  if (e < 0) {
    q->result = e;
    q->decided = TRUE;
  }
  if (c->last)
    c->last->link = q;
  else
    c->first = q;
  c->last = q;
  if (e < 0 && c->first != q) {
    c->first->result = -ECANCELED;
    c->first->decided = TRUE;
  }
  if (!(s->flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)))
    begin(c);
  return e == 0 || (r->setup & IORING_SETUP_SUBMIT_ALL);
}

static glong submit(Ring *r, TesTask *t, guint n) {
  Chain c = {NULL, NULL};
  struct io_uring_sqe sqe;
  guint done = 0;
  n = MIN(n, queued(r));
  while (done < n) {
    if (!uring_has_room(r))
      break;
    if (!next_sqe(r, &sqe))
      break;
    done++;
    if (!add(r, t, &sqe, &c))
      break;
  }
  gboolean full = done == 0 && n > 0 && !uring_has_room(r);
  begin(&c);
  return full ? -EAGAIN : (glong)done;
}

/* ---- Waiting ---- */

typedef struct {
  gulong sigmask;
  gsize sigmask_len;
  TesTime deadline;
} WaitArg;

static int fetch_arg(TesTask *t, guint flags, gulong arg, gsize len, WaitArg *w) {
  *w = (WaitArg){arg, len, TES_TIME_INFINITE};
  if (!(flags & IORING_ENTER_EXT_ARG))
    return 0;
  struct io_uring_getevents_arg ext;
  struct timespec ts;
  if (len != sizeof ext)
    return -EINVAL;
  if (tes_copy_in(t, &ext, arg, sizeof ext) < 0)
    return -EFAULT;
  if (ext.pad)
    return -EINVAL;
  w->sigmask = ext.sigmask;
  w->sigmask_len = ext.sigmask_sz;
  if (!ext.ts)
    return 0;
  if (tes_copy_in(t, &ts, ext.ts, sizeof ts) < 0)
    return -EFAULT;
  if (!tes_timespec_valid(&ts))
    return -EINVAL;
  w->deadline = tes_time_add(tes_time_monotonic(tes_task_kernel(t)), tes_timespec_to_ns(&ts));
  return 0;
}

static int wait_for(Ring *r, TesTask *t, guint min, const WaitArg *arg) {
  guint64 mask;
  if (arg->sigmask) {
    if (arg->sigmask_len != sizeof mask)
      return -EINVAL;
    if (tes_copy_in(t, &mask, arg->sigmask, sizeof mask) < 0)
      return -EFAULT;
    tes_task_set_tmp_mask(t, mask);
  }
  TesWaiter w;
  tes_waiter_init_task(&w, t, POLLIN);
  tes_queue_add(r->file.queue, &w);
  int e = 0;
  for (;;) {
    uring_run_ready(r, t);
    uring_flush_overflow(r);
    if (uring_cq_ready(r) >= min || e < 0)
      break;
    e = tes_task_block(t, arg->deadline);
  }
  tes_waiter_remove(&w);
  return uring_cq_ready(r) >= min ? 0 : e == -ETIMEDOUT ? -ETIME : e;
}

static glong enter(Ring *r, TesTask *t, const gulong a[6]) {
  guint to_submit = (guint)a[1], flags = (guint)a[3];
  WaitArg arg;
  Waiting me;
  glong done = 0;
  int e = 0;
  if (!g_atomic_int_get(&r->enabled))
    return -EBADFD;
  if (r->setup & IORING_SETUP_SINGLE_ISSUER) {
    TES_LOCKED(&r->lock);
    if (!r->issuer)
      r->issuer = t;
    if (r->issuer != t)
      return -EEXIST;
  }
  uring_wait_begin(r, &me, t);
  if (to_submit)
    done = submit(r, t, to_submit);
  uring_run_ready(r, t);
  if (done >= 0 && (flags & IORING_ENTER_GETEVENTS)) {
    e = fetch_arg(t, flags, a[4], a[5], &arg);
    if (e == 0)
      e = wait_for(r, t, MIN((guint)a[2], r->cq_entries), &arg);
  }
  uring_wait_end(r, &me);
  return done ? done : e;
}

static glong sys_io_uring_enter(TesTask *t, const gulong a[6]) {
  Ring *r;
  guint known = IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT | IORING_ENTER_EXT_ARG;
  if ((guint)a[3] & ~known)
    return -EINVAL;
  int e = get_ring(t, a[0], &r);
  if (e < 0)
    return e;
  glong n = enter(r, t, a);
  tes_file_unref(&r->file);
  return n;
}

static glong sys_io_uring_register(TesTask *t, const gulong a[6]) {
  Ring *r;
  int e = get_ring(t, a[0], &r);
  if (e < 0)
    return e;
  glong n = uring_register(r, t, (guint)a[1], a[2], (guint)a[3]);
  tes_file_unref(&r->file);
  return n;
}

#define NOTE                                                                                \
  "no SQPOLL, IOPOLL, large entries, multishot, provided buffers, splice, xattrs, message " \
  "rings"

static const TesSyscall rows[] = {
    {425, "io_uring_setup", sys_io_uring_setup, TES_PARTIAL, NOTE, "up"},
    {426, "io_uring_enter", sys_io_uring_enter, TES_PARTIAL, NOTE, "fuuxpu"},
    {427, "io_uring_register", sys_io_uring_register, TES_PARTIAL,
     "buffers, files, eventfd, probe, enable; buffers are not pinned", "fupu"},
};
static const TesSyscallTable table = {.size = sizeof(TesSyscallTable), .rows = rows, .n = G_N_ELEMENTS(rows)};

/* Rings of a saved sandbox, with their requests. Served by the save/restore issue. */
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "io-uring", .version = 1};

static const TesFeature features[] = {
    {"syscalls", "io-uring", &table}, {"state", "io-uring", &state}, {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(io_uring, .name = "io-uring", .summary = "Rings of requests and completions: io_uring(7)",
                  .licence = "Apache-2.0", .features = features, .init = plugin_init);
