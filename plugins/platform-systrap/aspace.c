/* SPDX-License-Identifier: Apache-2.0 */
/* Address spaces: TesAspaceOps of the systrap platform.
 *
 * apply() queues operations. As long as no thread of the address space has ever run guest code the queue may wait: every run()
 * empties it before it enters the guest. Later it is emptied at once, by the mapper, whoever asks: the host kernel's munmap
 * and mprotect take the old mapping from all threads. Whether a thread waits, as it says, does not count: a guest can
 * say so and run on, with pages that the core has given to somebody else. What happens when the host refuses an operation:
 * ../platform-common/mapqueue.h. Lost mappings whose callers are gone make the address space `strict` for a while, so that
 * the next caller is told. */
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>
#include "private.h"

#define FDS_PER_BATCH 8 /* fits any socket's queue */
#define STRICT_FOR 64   /* operations */
#define DEATH_MS 2000
#define RENEW_SECONDS 10

/* The core frees the pages of an address space that is dead: no thread may use them any more. After SIGKILL that takes a
 * moment; only a thread that the host keeps from dying outlasts the wait, and that one is not in user space. */
void st_mark_dead(StAspace *as) {
  if (!as->dead)
    st_mapper_gone(as->mapper, DEATH_MS);
  g_atomic_int_set(&as->dead, TRUE);
  for (guint i = 0; i < as->execs->len; i++)
    st_exec_wake(g_ptr_array_index(as->execs, i));
}

void st_kill(StAspace *as) {
  if (!as->dead)
    st_mapper_kill(as->mapper);
  st_mark_dead(as);
}

/* Not under the lock. */
void st_kick_thread(StAspace *as, StThread *t) {
  for (guint i = 0; i < 100 && !g_atomic_int_get(&as->dead) && !st_kick(as->mapper, t); i++) {
    g_mutex_lock(&as->lock);
    st_begin(ST_PLATFORM(as), as->mapper);
    if (!as->dead && st_batch(as->mapper, NULL, NULL, 0) < 0)
      st_kill(as);
    g_mutex_unlock(&as->lock);
  }
}

/* ---- The queue ---- */

/* Makes ST_FD_MEM the memory file: sent once, inherited by forks. */
static int give_memory(StMapper *m, int fd) {
  const gulong dup[6] = {ST_FD_IN, ST_FD_MEM};
  int r = st_send_fd(m, fd);
  if (r < 0)
    return r;
  st_order(m, SYS_dup2, 0, dup);
  st_close_fd(m);
  m->mem_fd = fd;
  return 0;
}

static void order_for(StMapper *m, const TesMapOp *op) {
  gulong flags = MAP_SHARED | MAP_FIXED | (op->flags & TES_MAP_POPULATE ? MAP_POPULATE : 0);
  gulong fd = op->flags & TES_MAP_STABLE_FD && op->fd == m->mem_fd ? ST_FD_MEM : ST_FD_IN;
  const gulong args[6] = {op->addr, op->len, op->prot, flags, fd, (gulong)op->off};
  const guint nrs[] = {SYS_mmap, SYS_munmap, SYS_mprotect};
  st_order(m, nrs[op->kind], 0, args);
}

/* Sees to the descriptor of a MAP operation; *in is what ST_FD_IN holds. 1: no more in this batch. */
static int order_fd(StAspace *as, const TesMapOp *op, int *in, guint *fds) {
  StPlatform *p = ST_PLATFORM(as);
  StMapper *m = as->mapper;
  if (op->flags & TES_MAP_STABLE_FD && p->mem_fd < 0)
    p->mem_fd = op->fd;
  if (op->flags & TES_MAP_STABLE_FD && op->fd == p->mem_fd) {
    if (m->mem_fd == op->fd)
      return 0;
    if (*in < 0)
      return give_memory(m, op->fd);
  }
  if (op->fd == *in)
    return 0;
  if ((*fds)++ == FDS_PER_BATCH)
    return 1;
  if (*in >= 0)
    st_close_fd(m);
  *in = -1;
  int r = st_send_fd(m, op->fd);
  if (r == 0)
    *in = op->fd;
  return r;
}

/* Runs queued operations from *next on, as many as one batch holds. On an error *next is the operation that failed, or
 * where the batch broke off for want of a descriptor. */
static int run_some(StAspace *as, guint *next) {
  StMapper *m = as->mapper;
  guint16 op_of[ST_ORDERS_MAX + 1] = {0};
  guint first = *next, i = first, fds = 0, failed = G_MAXUINT;
  int in = -1, r = 0;
  st_begin(ST_PLATFORM(as), m);
  for (; i < as->queue.ops->len && m->nordered + 8 < ST_ORDERS_MAX; i++) {
    const TesMapOp *op = &mapqueue_at(&as->queue, i)->op;
    if (op->kind == TES_MAP_MAP && (r = order_fd(as, op, &in, &fds)) != 0)
      break;
    op_of[m->nordered] = (guint16)(i - first);
    order_for(m, op);
  }
  if (in >= 0)
    st_close_fd(m);
  *next = i;
  int rb = st_batch(m, &failed, NULL, 0);
  if (rb < 0 && failed <= ST_ORDERS_MAX)
    *next = first + op_of[failed];
  return rb < 0 ? rb : MIN(r, 0);
}

/* Empties the queue. Returns the first error of operation `first` or later. */
static int drain(StAspace *as, guint first) {
  gboolean dropped = FALSE;
  int error = 0;
  guint i = 0;
  while (i < as->queue.ops->len && !as->dead) {
    guint before = as->queue.ops->len;
    int r = run_some(as, &i);
    if (r == 0)
      continue;
    Refused what = r == -ESRCH || i >= before ? REFUSED_FATAL : mapqueue_degrade(&as->queue, i, r, &dropped);
    if (as->queue.ops->len > before && i <= first)
      first++;
    if (what == REFUSED_FATAL)
      st_kill(as);
    else if (what == REFUSED_LOST && i >= first)
      error = error ? error : r;
    else if (what == REFUSED_LOST)
      as->strict = STRICT_FOR;
  }
  mapqueue_clear(&as->queue);
  return as->dead ? 0 : error;
}

/* A guest that spins on another CPU must be interrupted when a page is taken from it: that costs more than spinning saves,
 * and shows in the time. */
int st_drain(StAspace *as, guint first) {
  if (!st_current || !st_current->spinning)
    return drain(as, first);
  guint64 begin = __rdtsc();
  int r = drain(as, first);
  if (__rdtsc() - begin > ST_PLATFORM(as)->short_cycles)
    st_against_spinning(st_current);
  return r;
}

static int aspace_apply(TesAspace *base, const TesMapOp *ops, gsize n) {
  StAspace *as = (StAspace *)base;
  int r = 0;
  g_mutex_lock(&as->lock);
  if (!as->dead) { /* else nothing is mapped, nothing runs */
    as->empty = FALSE;
    guint first = as->queue.ops->len;
    r = mapqueue_push(&as->queue, ops, n);
    if (r == 0 && (as->strict || as->queue.ops->len > MAPQUEUE_MAX / 4 || g_atomic_int_get(&as->ran)))
      r = st_drain(as, first);
    if (as->strict && r == 0)
      as->strict -= MIN(as->strict, n);
  }
  g_mutex_unlock(&as->lock);
  return r;
}

/* ---- New and old stubs ---- */

static const TesAspaceOps aspace_ops;

static StAspace *wrap(TesPlatform *platform, StMapper *m, StThread *t) {
  StAspace *as = g_new0(StAspace, 1);
  guint place;
  as->base.ops = &aspace_ops;
  as->base.platform = platform;
  as->mapper = m;
  mapqueue_init(&as->queue, platform->min_addr, ST_BASE);
  as->execs = g_ptr_array_new();
  as->idle = g_ptr_array_new();
  st_numbers_init(&as->places, ST_PER_PROCESS);
  as->unborn = g_ptr_array_new();
  g_ptr_array_add(as->idle, t);
  st_number_take(&as->places, &place); /* t's */
  g_mutex_init(&as->lock);
  return as;
}

static GPtrArray *list_of(StThread *t) {
  GPtrArray *list = g_ptr_array_new();
  g_ptr_array_add(list, t);
  return list;
}

/* A fork that failed, with -ESRCH perhaps because a guest killed its own stub meanwhile: the child may live, and would follow the
 * orders in its page and use its slot whoever they belong to next. It tells its pid, or its socket tells that it is not. */
static void abandon(StPlatform *p, StMapper *from, StMapper *m, StThread *t, int error) {
  if (m && error != -ESRCH)
    st_begin(p, from); /* closes what was sent to it: the child alone has the socket */
  if (m && m->alone)
    st_wait(m, NULL, NULL, 0);
  if (m)
    st_bury(p, m, list_of(t), NULL);
  else if (t)
    st_thread_free(p, t);
}

/* Forks `from`, which has nothing else to do: the new stub has one waiting thread. 0 or -errno. */
static int fork_stub(StPlatform *p, StMapper *from, StMapper **mapper, StThread **thread) {
  int theirs = -1, r;
  pid_t tid = 0;
  StThread *t = st_thread_new(p, 0);
  StMapper *m = t ? st_mapper_new(p, &theirs) : NULL;
  r = m ? 0 : -EAGAIN;
  if (m) {
    const gulong clone[6] = {ST_CLONE_PROCESS, 0, 0, 0, 0, ST_RO_ORDERS + (gulong)m->page * ST_PAGE};
    st_order_thread(m, t); /* waits there for the child */
    m->orders->list[m->nordered].nr = ST_NR_END;
    m->orders->batch = 1;
    m->nordered = 0;
    m->mem_fd = from->mem_fd;
    st_begin(p, from);
    r = st_send_fd(from, theirs);
    close(theirs);
    if (r == 0) {
      st_order(from, SYS_clone, ST_F_FORK, clone);
      st_close_fd(from);
      r = st_batch(from, NULL, NULL, 0);
    }
    if (r == 0)
      r = st_wait(m, NULL, &tid, 1);
    m->cpu = from->cpu;
  }
  if (r == 0) {
    t->tid = tid;
    t->cpu = m->cpu;
    *mapper = m;
    *thread = t;
    return 0;
  }
  abandon(p, from, m, t, r);
  return r;
}

static TesAspace *aspace_clone(TesAspace *base, const TesMapOp *ops, gsize n, GError **error) {
  StAspace *as = (StAspace *)base;
  StMapper *m;
  StThread *t;
  g_mutex_lock(&as->lock);
  int r = as->dead ? -ESRCH : mapqueue_push(&as->queue, ops, n);
  if (r == 0)
    st_drain(as, as->queue.ops->len); /* what is lost comes back by faults, in both */
  if (r == 0)
    r = as->dead ? -ESRCH : fork_stub(ST_PLATFORM(as), as->mapper, &m, &t);
  g_mutex_unlock(&as->lock);
  if (r == 0) {
    StAspace *child = wrap(base->platform, m, t);
    child->family = st_family_ref(as->family); /* mapped by the fork */
    return &child->base;
  }
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "systrap platform: cannot fork a stub: %s",
              g_strerror(-r));
  return NULL;
}

static void free_spare(StPlatform *p, StMapper *m, StThread *t) { st_bury(p, m, list_of(t), NULL); }

/* A spare stub that the host has not killed; NULLs if there is none. */
static StSpare take_spare(StPlatform *p) {
  StSpare s = {NULL, NULL};
  for (;;) {
    g_mutex_lock(&p->lock);
    s = p->nspares ? p->spares[--p->nspares] : (StSpare){NULL, NULL};
    g_mutex_unlock(&p->lock);
    if (!s.mapper || st_alive(s.mapper))
      return s;
    free_spare(p, s.mapper, s.thread);
  }
}

TesAspace *st_aspace_new(TesPlatform *platform, GError **error) {
  StPlatform *p = (StPlatform *)platform;
  StSpare s = take_spare(p);
  int r = 0;
  if (!s.mapper) {
    g_mutex_lock(&p->seed_lock);
    r = fork_stub(p, p->seed, &s.mapper, &s.thread);
    g_mutex_unlock(&p->seed_lock);
  }
  if (r == 0)
    return &wrap(platform, s.mapper, s.thread)->base;
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM,
              r == -EAGAIN ? "systrap platform: too many processes: %s"
                           : "systrap platform: no new stub process (did its zygote die?): %s",
              g_strerror(-r));
  return NULL;
}

/* A thread that has run guest code is made like a new one. It was sent a kick while ST_RESET was set, and cannot have
 * executed anything since but the stub's way to wait for this (tes_st_reset): no other thread is there to interfere, and no other
 * way to make it say what it cannot know before. FALSE: the stub is no good. */
static gboolean renew(StAspace *as, StThread *t) {
  const struct timespec second = {1, 0};
  StIn fresh = {.altstack = t->in->altstack};
  guint32 post, n = t->seq + 1 ? t->seq + 1 : 1;
  gint64 end = g_get_monotonic_time() + RENEW_SECONDS * G_TIME_SPAN_SECOND;
  __atomic_store_n(&t->out->post, 0, __ATOMIC_SEQ_CST); /* what it may have foreseen */
  __atomic_store_n(&t->in->answer, n, __ATOMIC_SEQ_CST);
  st_futex(&t->in->answer, FUTEX_WAKE, G_MAXINT, NULL);
  while ((post = __atomic_load_n(&t->out->post, __ATOMIC_SEQ_CST)) != n) {
    if (!st_alive(as->mapper) || g_get_monotonic_time() > end)
      return FALSE;
    st_futex(&t->out->post, FUTEX_WAIT, post, &second);
  }
  memset(t->out, 0, RW_SLOT); /* the next guest must not read what is left here */
  memcpy(&t->in->result, &fresh.result, sizeof fresh - G_STRUCT_OFFSET(StIn, result));
  t->seq = 0;
  __atomic_store_n(&t->in->flags, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&t->in->answer, 0, __ATOMIC_SEQ_CST);
  st_futex(&t->in->answer, FUTEX_WAKE, G_MAXINT, NULL);
  return TRUE;
}

static gboolean has_one_thread(const StAspace *as) {
  return as->execs->len == 0 && as->idle->len == 1 && as->places.next - as->places.free->len == 1;
}

static void order_reset(StMapper *m, StThread *t) {
  const gulong kick[6] = {(gulong)t->tid, ST_KICK_SIGNAL};
  const gulong barrier[6] = {MEMBARRIER_CMD_PRIVATE_EXPEDITED};
  const gulong scratch[6] = {ST_SCRATCH, ST_PAGE, MADV_DONTNEED};
  t->in->flags = ST_RESET;
  st_order(m, SYS_tkill, 0, kick);
  st_order(m, SYS_membarrier, 0, barrier); /* where the thread runs, the kick has arrived now */
  st_order(m, SYS_madvise, 0, scratch);
}

/* The last exec is gone and the core will free the pages: no thread may use them any more, whatever it posted. */
void st_empty(StAspace *as) {
  StPlatform *p = ST_PLATFORM(as);
  const gulong all[6] = {0, ST_BASE}, trampolines[6] = {ST_TRAMPOLINES, ST_TRAMPOLINES_SIZE};
  mapqueue_clear(&as->queue);
  if (as->dead || as->empty)
    return;
  as->empty = TRUE;
  StThread *t = as->ran && has_one_thread(as) && p->nspares < ST_SPARES ? as->idle->pdata[0] : NULL;
  st_begin(p, as->mapper);
  st_order(as->mapper, SYS_munmap, 0, all);
  st_order(as->mapper, SYS_munmap, 0, trampolines);
  if (t)
    order_reset(as->mapper, t);
  if (st_batch(as->mapper, NULL, NULL, 0) < 0 || (t && !renew(as, t)))
    st_kill(as);
  else if (t)
    g_atomic_int_set(&as->ran, FALSE);
}

/* Keeps an empty stub with one thread that waits for the next address space. FALSE: it is not fit for that. */
static gboolean recycle(StAspace *as) {
  StPlatform *p = ST_PLATFORM(as);
  gboolean kept = FALSE;
  st_empty(as);
  if (as->dead || as->ran || !has_one_thread(as))
    return FALSE;
  StThread *t = g_ptr_array_index(as->idle, 0);
  g_mutex_lock(&p->lock);
  kept = t->place == 0 && p->nspares < ST_SPARES;
  if (kept)
    p->spares[p->nspares++] = (StSpare){as->mapper, t};
  g_mutex_unlock(&p->lock);
  return kept;
}

void st_spares_free(StPlatform *p) {
  while (p->nspares) {
    StSpare s = p->spares[--p->nspares];
    free_spare(p, s.mapper, s.thread);
  }
}

static void aspace_free(TesAspace *base);

/* As an empty address space, but only if one is at hand. `rewritten`: `base`'s code jumps to its trampolines. */
static TesAspace *aspace_spare(TesAspace *base, gboolean rewritten) {
  StAspace *from = (StAspace *)base;
  StPlatform *p = ST_PLATFORM(from);
  StSpare s = take_spare(p);
  if (!s.mapper)
    return NULL;
  StAspace *as = wrap(base->platform, s.mapper, s.thread);
  StFamily *f = rewritten ? st_family_ref(__atomic_load_n(&from->family, __ATOMIC_ACQUIRE)) : NULL;
  if (!f || st_family_join(as, f))
    return &as->base;
  st_family_unref(p, f);
  aspace_free(&as->base);
  return NULL;
}

static void aspace_free(TesAspace *base) {
  StAspace *as = (StAspace *)base;
  StPlatform *p = ST_PLATFORM(as);
  if (recycle(as))
    st_family_unref(p, as->family);
  else {
    for (guint i = 0; i < as->unborn->len; i++)
      g_ptr_array_add(as->idle, g_ptr_array_index(as->unborn, i));
    st_bury(p, as->mapper, g_ptr_array_ref(as->idle), as->family);
  }
  mapqueue_free(&as->queue);
  g_ptr_array_unref(as->execs);
  g_ptr_array_unref(as->idle);
  g_ptr_array_unref(as->unborn);
  g_array_unref(as->places.free);
  g_mutex_clear(&as->lock);
  g_free(as);
}

static const TesAspaceOps aspace_ops = {
    .size = sizeof(TesAspaceOps),
    .apply = aspace_apply,
    .clone = aspace_clone,
    .free = aspace_free,
    .spare = aspace_spare,
    .rewrite = st_rewrite,
    .rewritten = st_rewritten,
};
