/* SPDX-License-Identifier: Apache-2.0 */
/* Address spaces: TesAspaceOps of the ptrace platform.
 *
 * apply() queues operations. While no other thread of the address space is in the guest the queue may wait: every
 * run() empties it before it enters the guest, in one batch of orders to the stub. Otherwise it is emptied at once: by
 * the caller's own stub thread, or, for a caller that has none here, by a thread that is kicked out of the guest. The
 * host kernel's munmap and mprotect take the old mapping from all threads, so one thread's batch is enough.
 *
 * What happens when the host refuses an operation: ../platform-common/mapqueue.h. Lost mappings whose callers are gone
 * make the address space `strict` for a while, so that the next caller is told. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "../platform-common/birth.h"
#include "private.h"

#define FDS_PER_BATCH 8 /* fits any socket's queue */
#define STRICT_FOR 64   /* operations */
#define KICK_AGAIN (10 * G_TIME_SPAN_MILLISECOND)

PtExec *pt_my_exec(PtAspace *as) {
  PtExec *e = pt_my_execs;
  while (e && e->base.aspace != &as->base)
    e = e->owner_next;
  return e;
}

void pt_mark_dead(PtAspace *as) {
  g_atomic_int_set(&as->dead, TRUE);
  g_cond_broadcast(&as->left);
}

static void kill_stub(PtAspace *as) {
  if (!as->dead)
    kill(as->stub.pid, SIGKILL);
  pt_mark_dead(as);
}

static void clear_queue(PtAspace *as) {
  mapqueue_clear(&as->queue);
  as->drained = as->pushed;
}

static int queue(PtAspace *as, const TesMapOp *ops, gsize n) {
  int r = mapqueue_push(&as->queue, ops, n);
  if (r == 0)
    as->pushed += n;
  return r;
}

static void order_for(PtAspace *as, const TesMapOp *op) {
  gulong flags = MAP_SHARED | MAP_FIXED | (op->flags & TES_MAP_POPULATE ? MAP_POPULATE : 0);
  const gulong args[6] = {op->addr, op->len, op->prot, flags, STUB_FD_IN, (gulong)op->off};
  const guint nrs[] = {SYS_mmap, SYS_munmap, SYS_mprotect};
  pt_order(as, nrs[op->kind], 0, args);
}

/* Returns the order's number, or G_MAXUINT when no fork is wanted. */
static guint order_fork(PtAspace *as) {
  const gulong args[6] = {PT_CLONE_PROCESS, 0, 0, 0, 0, (gulong)as->fork_slot * STUB_PAGE};
  if (!as->fork_slot)
    return G_MAXUINT;
  as->fork_slot = 0;
  as->fork_error = 0;
  pt_order(as, SYS_clone, STUB_F_CLONE | STUB_F_FORK, args);
  return as->nordered - 1;
}

/* Runs queued operations from *next on, as many as one batch holds. On an error *next is the operation that failed, or
 * where the batch broke off for want of a descriptor. */
static int run_some(PtExec *e, guint *next) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  PtPlatform *p = PT_PLATFORM(as);
  const gulong in_fd[6] = {STUB_FD_IN};
  gulong receive[6] = {0, STUB_AT(tes_ptrace_stub_msghdr), MSG_DONTWAIT};
  guint16 op_of[PT_ORDERS_MAX + 1] = {0};
  guint first = *next, i = first, fds = 0, failed = G_MAXUINT - 1;
  int fd = -1, sock = -1, r = 0;
  if (as->broken)
    pt_order(as, SYS_close, STUB_F_MAYFAIL, in_fd);
  for (; i < as->queue.ops->len && as->nordered + 5 < PT_ORDERS_MAX; i++) {
    const TesMapOp *op = &mapqueue_at(&as->queue, i)->op;
    if (op->kind == TES_MAP_MAP && op->fd != fd) {
      if (fds++ == FDS_PER_BATCH)
        break;
      if (sock < 0)
        receive[0] = (gulong)(STUB_FD_POOL + (sock = pt_pool_get(p)));
      if ((r = birth_send_fd(p->tx[sock], op->fd)) < 0)
        break;
      /* Always, so that the new one gets this number whatever happened before. */
      pt_order(as, SYS_close, STUB_F_MAYFAIL, in_fd);
      pt_order(as, SYS_recvmsg, STUB_F_MAYFAIL, receive);
      fd = op->fd;
    }
    op_of[as->nordered] = (guint16)(i - first);
    order_for(as, op);
  }
  if (fd >= 0)
    pt_order(as, SYS_close, STUB_F_MAYFAIL, in_fd);
  *next = i;
  guint slot = as->fork_slot, fork_at = i == as->queue.ops->len ? order_fork(as) : G_MAXUINT;
  int rb = pt_batch(e, &failed);
  if (rb < 0 && failed == fork_at) {
    as->fork_error = rb;
    rb = 0;
  } else if (rb < 0)
    as->fork_slot = slot;
  as->broken = rb < 0;
  if (sock >= 0 && rb < 0)
    pt_drain_socket(p->rx[sock]);
  if (sock >= 0)
    pt_pool_put(p, sock);
  if (rb < 0 && failed <= PT_ORDERS_MAX)
    *next = first + op_of[failed];
  return rb < 0 ? rb : r;
}

/* Empties the queue. Returns the first error of operation `first` or later; lost mappings before it, whose callers are
 * gone, make the address space strict. */
int pt_drain(PtExec *e, guint first) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  gboolean dropped = FALSE;
  int error = 0;
  guint i = 0;
  while (i < as->queue.ops->len && !as->dead) {
    guint before = as->queue.ops->len;
    int r = run_some(e, &i);
    if (r == 0)
      continue;
    Refused what = r == -ESRCH || i >= before ? REFUSED_FATAL : mapqueue_degrade(&as->queue, i, r, &dropped);
    if (as->queue.ops->len > before && i <= first)
      first++;
    if (what == REFUSED_FATAL)
      kill_stub(as);
    else if (what == REFUSED_LOST && i >= first)
      error = error ? error : r;
    else if (what == REFUSED_LOST)
      as->strict = STRICT_FOR;
  }
  clear_queue(as);
  g_cond_broadcast(&as->left);
  return as->dead ? 0 : error;
}

static PtExec *exec_in_guest(PtAspace *as, const PtExec *except) {
  for (guint i = 0; i < as->execs->len; i++) {
    PtExec *e = g_ptr_array_index(as->execs, i);
    if (e != except && g_atomic_int_get(&e->in_guest))
      return e;
  }
  return NULL;
}

/* For a caller without an exec here: until the queue was emptied, or nobody is in the guest (then the next to enter
 * empties it). The lock is released while waiting. */
static void drain_from_outside(PtAspace *as) {
  guint64 mine = as->pushed;
  PtExec *e;
  while (as->drained < mine && !as->dead && (e = exec_in_guest(as, NULL))) {
    g_atomic_int_or(&e->attn, PT_ATTN_DRAIN);
    if (g_atomic_int_get(&e->in_guest))
      syscall(SYS_tgkill, as->stub.pid, e->tid, PT_KICK_SIGNAL);
    g_cond_wait_until(&as->left, &as->lock, g_get_monotonic_time() + KICK_AGAIN);
  }
}

static int aspace_apply(TesAspace *base, const TesMapOp *ops, gsize n) {
  PtAspace *as = (PtAspace *)base;
  PtExec *self = pt_my_exec(as);
  int r = 0;
  g_mutex_lock(&as->lock);
  if (as->dead) { /* nothing is mapped, nothing runs */
    g_mutex_unlock(&as->lock);
    return 0;
  }
  guint first = as->queue.ops->len;
  r = queue(as, ops, n);
  if (r == 0 && self && !self->dead) {
    if (as->strict || as->queue.ops->len > MAPQUEUE_MAX / 4 || exec_in_guest(as, self))
      r = pt_drain(self, first);
    if (as->strict && r == 0)
      as->strict -= MIN(as->strict, n);
  } else if (r == 0)
    drain_from_outside(as);
  g_mutex_unlock(&as->lock);
  return r;
}

static PtAspace *wrap(TesPlatform *platform, const PtStub *stub);

/* Applies the queue and forks, in one batch if it fits. Under the lock. 0 or -errno. */
static int fork_stub(PtExec *e, PtStub *out) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  guint failed;
  int r = pt_slot_new(PT_PLATFORM(as), &out->slot);
  if (r < 0)
    return r;
  as->fork_slot = out->slot;
  pt_drain(e, as->queue.ops->len); /* what is lost comes back by faults, in both */
  if (as->fork_slot && !as->dead) {
    order_fork(as);
    r = pt_batch(e, &failed);
    as->fork_error = r;
  }
  as->fork_slot = 0;
  if (r == -ESRCH)
    kill_stub(as);
  r = as->dead ? -ESRCH : as->fork_error ? as->fork_error : e->new_tid ? 0 : -EAGAIN;
  if (r < 0)
    pt_slot_free(PT_PLATFORM(as), out->slot);
  out->pid = e->new_tid;
  return r;
}

static TesAspace *aspace_clone(TesAspace *base, const TesMapOp *ops, gsize n, GError **error) {
  PtAspace *as = (PtAspace *)base;
  PtExec *self = pt_my_exec(as);
  PtStub stub;
  int r;
  g_mutex_lock(&as->lock);
  r = as->dead || !self || self->dead ? -ESRCH : queue(as, ops, n);
  if (r == 0)
    r = fork_stub(self, &stub);
  g_mutex_unlock(&as->lock);
  if (r == 0)
    return &wrap(base->platform, &stub)->base;
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "ptrace platform: cannot fork a stub: %s",
              g_strerror(-r));
  return NULL;
}

static TesAspace *aspace_spare(TesAspace *base, gboolean rewritten) {
  PtStub stub;
  (void)rewritten; /* nothing is */
  return pt_stub_spare(PT_PLATFORM((PtAspace *)base), &stub) ? &wrap(base->platform, &stub)->base : NULL;
}

static void aspace_free(TesAspace *base) {
  PtAspace *as = (PtAspace *)base;
  PtPlatform *p = PT_PLATFORM(as);
  if (as->clean && !as->dead)
    pt_stub_recycle(p, &as->stub);
  else if (!as->dead)
    pt_stub_kill(p, &as->stub);
  else
    pt_slot_free(p, as->stub.slot);
  mapqueue_free(&as->queue);
  g_array_unref(as->idle);
  g_ptr_array_unref(as->execs);
  g_mutex_clear(&as->lock);
  g_cond_clear(&as->left);
  g_free(as);
}

static const TesAspaceOps aspace_ops = {
    .size = sizeof(TesAspaceOps),
    .apply = aspace_apply,
    .clone = aspace_clone,
    .free = aspace_free,
    .spare = aspace_spare,
};

static PtAspace *wrap(TesPlatform *platform, const PtStub *stub) {
  PtPlatform *p = (PtPlatform *)platform;
  PtAspace *as = g_new0(PtAspace, 1);
  as->base.ops = &aspace_ops;
  as->base.platform = platform;
  as->stub = *stub;
  as->orders = (StubOrder *)(p->orders + (gsize)stub->slot * STUB_PAGE);
  mapqueue_init(&as->queue, platform->min_addr, STUB_BASE);
  as->execs = g_ptr_array_new();
  as->idle = g_array_new(FALSE, FALSE, sizeof(pid_t));
  g_array_append_val(as->idle, stub->pid);
  g_mutex_init(&as->lock);
  g_cond_init(&as->left);
  return as;
}

TesAspace *pt_aspace_new(TesPlatform *platform, GError **error) {
  PtStub stub;
  if (!pt_stub_new((PtPlatform *)platform, &stub, error))
    return NULL;
  return &wrap(platform, &stub)->base;
}
