/* SPDX-License-Identifier: Apache-2.0 */
/* A ring: its memory, which the guest maps from the descriptor, and the completion queue. What the guest writes there is read once
 * and only ever changes what it gets itself: indices are masked, and our own copies count. */
#include "private.h"

static const TesLockClass ring_class = {"io_uring", TES_RANK_FILE, FALSE,
                                        "requests and completions of a ring"};
static const TesLockClass ready_class = {"io_uring ready", TES_RANK_QUEUE + 1, FALSE,
                                         "requests whose wait is over"};

/* ---- Memory ---- */

static void memory_ref(TesMapSource *s) { g_atomic_int_inc(&((Memory *)s)->refs); }

static void memory_unref(TesMapSource *s) {
  Memory *m = (Memory *)s;
  if (!g_atomic_int_dec_and_test(&m->refs))
    return;
  if (m->rings >= 0)
    tes_memfile_unref(m->mf, m->rings, m->rings_len);
  if (m->sqes >= 0)
    tes_memfile_unref(m->mf, m->sqes, m->sqes_len);
  tes_map_source_clear(s);
  g_free(m);
}

/* mmap(2) offsets say which part: IORING_OFF_*; both rings are one. */
static int memory_piece(TesMapSource *s, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  Memory *m = (Memory *)s;
  (void)write;
  gboolean sqes = off >= (goffset)IORING_OFF_SQES;
  goffset inside = sqes                                 ? off - (goffset)IORING_OFF_SQES
                   : off >= (goffset)IORING_OFF_CQ_RING ? off - (goffset)IORING_OFF_CQ_RING
                                                        : off;
  gsize len = sqes ? m->sqes_len : m->rings_len;
  if (inside < 0 || (gsize)inside >= len)
    return -EFAULT;
  goffset at = (sqes ? m->sqes : m->rings) + inside;
  *out = (TesMapPiece){tes_memfile_fd(m->mf), at, tes_memfile_ptr(m->mf, at), MIN(len - (gsize)inside, max)};
  return 0;
}

static const TesMapSourceOps memory_ops = {
    .size = sizeof(TesMapSourceOps), .piece = memory_piece, .ref = memory_ref, .unref = memory_unref};

static Memory *memory_new(TesKernel *k, gsize rings_len, gsize sqes_len) {
  Memory *m = g_new0(Memory, 1);
  tes_map_source_init(&m->source, &memory_ops);
  m->refs = 1;
  m->mf = tes_kernel_memfile(k);
  m->rings_len = TES_PAGE_UP(rings_len);
  m->sqes_len = TES_PAGE_UP(sqes_len);
  m->rings = tes_memfile_alloc(m->mf, m->rings_len, TES_PAGE_SIZE, 0, TES_MEM_FILE);
  m->sqes = m->rings < 0 ? -1 : tes_memfile_alloc(m->mf, m->sqes_len, TES_PAGE_SIZE, 0, TES_MEM_FILE);
  if (m->sqes >= 0)
    return m;
  memory_unref(&m->source);
  return NULL;
}

int uring_new(TesKernel *k, guint32 sq, guint32 cq, guint32 setup, Ring **out) {
  gsize array = sizeof(Shared) + cq * sizeof(struct io_uring_cqe);
  Memory *m = memory_new(k, array + sq * sizeof(guint32), sq * sizeof(struct io_uring_sqe));
  if (!m)
    return -ENOMEM;
  Ring *r = g_new0(Ring, 1);
  r->memory = m;
  r->shared = tes_memfile_ptr(m->mf, m->rings);
  r->sq_array = (guint32 *)((char *)r->shared + array);
  r->sqes = tes_memfile_ptr(m->mf, m->sqes);
  r->sq_entries = sq;
  r->cq_entries = cq;
  r->setup = setup;
  r->enabled = !(setup & IORING_SETUP_R_DISABLED);
  r->overflow_tail = &r->overflow;
  tes_mutex_init(&r->lock, &ring_class);
  tes_mutex_init(&r->ready_lock, &ready_class);
  *r->shared = (Shared){.sq_mask = sq - 1, .cq_mask = cq - 1, .sq_entries = sq, .cq_entries = cq};
  tes_file_init(&r->file, k, &uring_file_ops, O_RDWR);
  *out = r;
  return 0;
}

void uring_offsets(const Ring *r, struct io_uring_params *p) {
#define AT(field) G_STRUCT_OFFSET(Shared, field)
  p->sq_entries = r->sq_entries;
  p->cq_entries = r->cq_entries;
  p->sq_off = (struct io_sqring_offsets){.head = AT(sq_head),
                                         .tail = AT(sq_tail),
                                         .ring_mask = AT(sq_mask),
                                         .ring_entries = AT(sq_entries),
                                         .flags = AT(sq_flags),
                                         .dropped = AT(sq_dropped),
                                         .array = (guint32)((char *)r->sq_array - (char *)r->shared)};
  p->cq_off = (struct io_cqring_offsets){.head = AT(cq_head),
                                         .tail = AT(cq_tail),
                                         .ring_mask = AT(cq_mask),
                                         .ring_entries = AT(cq_entries),
                                         .overflow = AT(cq_overflow),
                                         .cqes = AT(cqes),
                                         .flags = AT(cq_flags)};
#undef AT
}

/* ---- Completions ---- */

static guint32 cq_used(Ring *r) {
  guint32 used = r->cq_tail - __atomic_load_n(&r->shared->cq_head, __ATOMIC_ACQUIRE);
  return MIN(used, r->cq_entries);
}

static void put_cqe(Ring *r, const struct io_uring_cqe *c) {
  r->shared->cqes[r->cq_tail & (r->cq_entries - 1)] = *c;
  __atomic_store_n(&r->shared->cq_tail, ++r->cq_tail, __ATOMIC_RELEASE);
}

static void keep_overflow(Ring *r, const struct io_uring_cqe *c) {
  if (r->n_overflow >= URING_MAX_OVERFLOW) {
    __atomic_add_fetch(&r->shared->cq_overflow, 1, __ATOMIC_RELAXED);
    return;
  }
  Overflow *o = g_new(Overflow, 1);
  *o = (Overflow){NULL, *c};
  *r->overflow_tail = o;
  r->overflow_tail = &o->next;
  r->n_overflow++;
  __atomic_fetch_or(&r->shared->sq_flags, IORING_SQ_CQ_OVERFLOW, __ATOMIC_RELAXED);
}

void uring_flush_overflow(Ring *r) {
  TES_LOCKED(&r->lock);
  while (r->overflow && cq_used(r) < r->cq_entries) {
    Overflow *o = r->overflow;
    put_cqe(r, &o->cqe);
    r->overflow = o->next;
    r->n_overflow--;
    g_free(o);
  }
  if (!r->overflow) {
    r->overflow_tail = &r->overflow;
    __atomic_fetch_and(&r->shared->sq_flags, ~(guint32)IORING_SQ_CQ_OVERFLOW, __ATOMIC_RELAXED);
  }
}

guint uring_cq_ready(Ring *r) {
  TES_LOCKED(&r->lock);
  return cq_used(r);
}

static void tell_eventfd(TesFile *f) {
  guint64 one = 1;
  struct iovec store;
  TesIov iov;
  TesCtx *ctx = tes_task_current() ? tes_task_ctx(tes_task_current()) : NULL;
  if (!ctx)
    return;
  tes_iov_init_kernel(&iov, &store, &one, sizeof one);
  tes_file_write(f, ctx, &iov, NULL, TES_RW_NONBLOCK);
}

/* IORING_OP_TIMEOUT with a count: those that have seen enough. */
static void count_timeouts(Ring *r) {
  for (GList *l = r->inflight.head; l; l = l->next) {
    Request *q = l->data;
    if (q->counts && q->target == r->n_posted)
      uring_decide(q, 0);
  }
}

void uring_post(Ring *r, guint64 user_data, gint32 res, guint32 flags) {
  struct io_uring_cqe c = {.user_data = user_data, .res = res, .flags = flags};
  TesFile *efd;
  {
    TES_LOCKED(&r->lock);
    if (!r->overflow && cq_used(r) < r->cq_entries)
      put_cqe(r, &c);
    else
      keep_overflow(r, &c);
    r->n_posted++;
    count_timeouts(r);
    efd =
        r->eventfd && !(__atomic_load_n(&r->shared->cq_flags, __ATOMIC_RELAXED) & IORING_CQ_EVENTFD_DISABLED)
            ? tes_file_ref(r->eventfd)
            : NULL;
  }
  if (efd) {
    tell_eventfd(efd);
    tes_file_unref(efd);
  }
  tes_queue_notify(r->file.queue, POLLIN | POLLRDNORM);
}

/* ---- The description ---- */

static guint ring_poll(TesFile *f) {
  Ring *r = uring(f);
  TES_LOCKED(&r->lock);
  guint32 queued = __atomic_load_n(&r->shared->sq_tail, __ATOMIC_ACQUIRE) - r->sq_head;
  return (queued < r->sq_entries ? POLLOUT | POLLWRNORM : 0) |
         (cq_used(r) || r->overflow ? POLLIN | POLLRDNORM : 0);
}

static int ring_map(TesFile *f, TesCtx *ctx, guint prot, gboolean shared, TesMapSource **out) {
  (void)ctx, (void)prot;
  if (!shared)
    return -EINVAL;
  TesMapSource *s = &uring(f)->memory->source;
  memory_ref(s);
  *out = s;
  return 0;
}

static char *ring_describe(TesFile *f) {
  (void)f;
  return g_strdup("anon_inode:[io_uring]");
}

static char *ring_fdinfo(TesFile *f) {
  Ring *r = uring(f);
  TES_LOCKED(&r->lock);
  return g_strdup_printf("SqMask:\t0x%x\nSqHead:\t%u\nSqTail:\t%u\nCqMask:\t0x%x\nCqHead:\t%u\nCqTail:\t%u\n"
                         "UserFiles:\t%u\nUserBufs:\t%u\n",
                         r->sq_entries - 1, r->sq_head,
                         __atomic_load_n(&r->shared->sq_tail, __ATOMIC_RELAXED), r->cq_entries - 1,
                         __atomic_load_n(&r->shared->cq_head, __ATOMIC_RELAXED), r->cq_tail, r->n_files,
                         r->n_buffers);
}

/* Whoever runs a request holds the description, so all that is left waits. */
static void ring_release(TesFile *f) {
  Ring *r = uring(f);
  uring_forget(r);
  uring_drop(r, NULL);
  uring_unregister_all(r);
  for (Overflow *o = r->overflow, *next; o; o = next) {
    next = o->next;
    g_free(o);
  }
  memory_unref(&r->memory->source);
  tes_mutex_clear(&r->lock);
  tes_mutex_clear(&r->ready_lock);
  g_free(r);
}

const TesFileOps uring_file_ops = {
    .size = sizeof(TesFileOps),
    .name = "io_uring",
    .flags = TES_FILE_UNPASSABLE, /* as Linux 6.8 */
    .poll = ring_poll,
    .map = ring_map,
    .describe = ring_describe,
    .fdinfo = ring_fdinfo,
    .release = ring_release,
};
