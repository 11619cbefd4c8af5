/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of execution: TesExecOps of the systrap platform.
 *
 * An exec uses a guest thread of the stub, which waits in its slot while the task's thread serves. run() answers the
 * last trap and waits for the next. Registers are in the slot, in a signal frame or, for a rewritten call, in StOut;
 * they are copied once, when somebody asks for them.
 *
 * A kick sets `attn`, then looks at `in_guest`; run() sets `in_guest`, then looks at `attn`, and again after it has
 * answered: the signal of a kick that came before the answer is dropped by the stub. */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "../platform-common/xstate.h"
#include "private.h"

#define MXCSR_MASK 0xffffU
#define TICKS_PER_LOOK 8         /* is the stub alive? */
#define REFRAME_LIMIT 10         /* seconds */
#define FLAGS_UNSAVED 0x244500UL /* TF, DF, NT, AC, ID: a direct call leaves them where they are */

__thread StExec *st_current;

static void send_kick(StExec *e) { st_kick_thread(ST_ASPACE(e), e->thread); }

/* ---- Running ---- */

static void died(StExec *e) {
  StAspace *as = ST_ASPACE(e);
  g_atomic_int_set(&e->in_guest, 0);
  g_mutex_lock(&as->lock);
  st_kill(as);
  g_mutex_unlock(&as->lock);
}

/* After a direct call there is no signal frame: makes one, with the guest's registers and extended state. TRUE: e->frame is
 * valid. The kind may be forged, and is read once each time. */
static gboolean need_frame(StExec *e) {
  TesTrap trap;
  gboolean fresh = !e->stopped; /* a thread that waits for its first use, or its next */
  if (!fresh && e->kind == ST_FRAME)
    return TRUE;
  if (!fresh && !e->has_regs)
    st_get_regs(e);
  gboolean has_regs = e->has_regs, syscall = e->syscall;
  gulong nr = e->nr;
  gboolean ok = !fresh || (st_wait_post(e, REFRAME_LIMIT) && st_decode(e, &trap));
  if (ok && e->kind != ST_FRAME) {
    st_answer(e, ST_REFRAME);
    ok = st_wait_post(e, REFRAME_LIMIT) && st_decode(e, &trap) && e->kind == ST_FRAME;
    if (has_regs && ok && !fresh)
      e->regs.eflags |= __atomic_load_n(&e->frame->c.eflags, __ATOMIC_RELAXED) & FLAGS_UNSAVED;
  }
  e->has_regs = has_regs;
  e->dirty = TRUE;
  e->syscall = syscall;
  e->nr = nr;
  return ok;
}

/* The frame's extended state, as this process sees it; NULL: it is not in the slot. */
static void *find_xstate(const StExec *e) {
  return st_in_slot(e->thread, __atomic_load_n(&e->frame->c.fpstate, __ATOMIC_RELAXED),
                    ST_PLATFORM(ST_ASPACE(e))->base.xstate_size, 64);
}

static gboolean put_xstate(StExec *e, const void *buf) {
  void *at = find_xstate(e);
  if (at)
    memcpy(at, buf, ST_PLATFORM(ST_ASPACE(e))->base.xstate_size);
  return at != NULL;
}

/* First run. */
static gboolean bind_exec(StExec *e) {
  e->bound = TRUE;
  g_atomic_int_set(&ST_ASPACE(e)->ran, TRUE); /* before the queue is looked at: see aspace_apply() */
  e->owner = gettid();
  pair_start(&e->pair, &ST_PLATFORM(ST_ASPACE(e))->pairs, e);
  if (!need_frame(e) || !put_xstate(e, e->xstate ? e->xstate : ST_PLATFORM(ST_ASPACE(e))->xinit))
    return FALSE;
  g_clear_pointer(&e->xstate, g_free);
  e->has_regs = e->dirty = TRUE;
  return TRUE;
}

/* TRUE: in_guest is set, nothing is queued. FALSE: kicked. */
static gboolean enter(StExec *e) {
  StAspace *as = ST_ASPACE(e);
  for (;;) {
    g_atomic_int_set(&e->in_guest, 1);
    if (G_UNLIKELY(g_atomic_int_get(&e->attn))) {
      g_atomic_int_set(&e->in_guest, 0);
      g_atomic_int_set(&e->attn, 0);
      return FALSE;
    }
    if (G_LIKELY(!g_atomic_int_get(&as->queue.n)))
      return TRUE;
    g_atomic_int_set(&e->in_guest, 0);
    g_mutex_lock(&as->lock);
    st_drain(as, as->queue.ops->len);
    g_mutex_unlock(&as->lock);
  }
}

/* Loads what changed and lets the guest go on. */
static gboolean resume(StExec *e) {
  guint32 flags = 0;
  if (e->dirty) {
    if (!need_frame(e))
      return FALSE;
    st_put_regs(e);
    st_copy_cpuid(ST_PLATFORM(ST_ASPACE(e)));
    flags = ST_LOAD_FS | ST_LOAD_GS;
  } else if (e->has_result && e->kind == ST_DIRECT)
    e->thread->in->result = e->result;
  else if (e->has_result)
    e->frame->c.rax = e->result;
  e->stopped = e->syscall = e->dirty = e->has_result = e->has_regs = FALSE;
  st_answer(e, flags);
  if (G_UNLIKELY(g_atomic_int_get(&e->attn)))
    send_kick(e);
  return TRUE;
}

static int exec_run(TesExec *base, TesTrap *out) {
  StExec *e = (StExec *)base;
  StAspace *as = ST_ASPACE(e);
  memset(out, 0, sizeof *out);
  st_current = e;
  if (G_UNLIKELY(!e->bound) && !bind_exec(e))
    goto dead;
  for (;;) {
    if (!enter(e)) {
      out->kind = TES_TRAP_KICK;
      return 0;
    }
    pair_enter(&e->pair);
    if (g_atomic_int_get(&as->dead) || !resume(e) || !st_guest_round(e))
      break;
    if (!st_decode(e, out))
      break;
    if (G_LIKELY(out->kind != TES_TRAP_KICK))
      return 0;
    /* Ours: enter() says so. A late one, of a kick that was told already: nobody needs to know. */
  }
dead:
  died(e);
  out->kind = TES_TRAP_DEAD;
  return 0;
}

static TesRegs *exec_regs(TesExec *base, gboolean write) {
  StExec *e = (StExec *)base;
  if (e->stopped && e->kind == ST_DIRECT)
    need_frame(e); /* for all the flags */
  if (!e->has_regs && e->stopped)
    st_get_regs(e);
  e->dirty |= write;
  return &e->regs;
}

static void exec_set_result(TesExec *base, gulong rax) {
  StExec *e = (StExec *)base;
  if (e->has_regs)
    e->regs.rax = rax;
  e->result = rax;
  e->has_result = TRUE;
}

/* ---- Extended state ---- */

static int exec_xstate_get(TesExec *base, void *buf, gsize n) {
  StExec *e = (StExec *)base;
  StPlatform *p = ST_PLATFORM(ST_ASPACE(e));
  n = MIN(n, p->base.xstate_size);
  if (!e->bound) {
    memcpy(buf, e->xstate ? e->xstate : p->xinit, n);
    return (int)n;
  }
  const void *at = need_frame(e) ? find_xstate(e) : NULL;
  if (!at)
    return -ESRCH;
  memcpy(buf, at, n);
  return (int)n;
}

/* What XRSTOR would refuse is refused here. */
static gboolean valid_xstate(const StPlatform *p, const void *buf) {
  guint64 header[8];
  guint32 mxcsr;
  memcpy(header, (const char *)buf + XSTATE_HEADER, sizeof header);
  memcpy(&mxcsr, (const char *)buf + XSTATE_MXCSR, sizeof mxcsr);
  for (guint i = 1; i < 8; i++)
    if (header[i])
      return FALSE;
  return !(header[0] & ~p->base.xfeatures) && !(mxcsr & ~MXCSR_MASK);
}

static int exec_xstate_set(TesExec *base, const void *buf, gsize n) {
  StExec *e = (StExec *)base;
  StPlatform *p = ST_PLATFORM(ST_ASPACE(e));
  if (n != p->base.xstate_size)
    return -EINVAL;
  g_autofree void *copy = g_memdup2(buf, n);
  if (!valid_xstate(p, copy))
    return -EINVAL;
  if (e->bound)
    return need_frame(e) && put_xstate(e, copy) ? 0 : -ESRCH;
  g_free(e->xstate);
  e->xstate = g_steal_pointer(&copy);
  return 0;
}

/* ---- Kicks ---- */

static void exec_kick(TesExec *base) {
  StExec *e = (StExec *)base;
  /* Where it was set, whoever set it, or run(), sees to the signal. */
  if (__atomic_exchange_n(&e->attn, 1, __ATOMIC_SEQ_CST) == 0 && g_atomic_int_get(&e->in_guest)) {
    send_kick(e);
    st_insist(e);
  }
}

static void exec_tick(TesExec *base) {
  StExec *e = (StExec *)base;
  StAspace *as = ST_ASPACE(e);
  if (g_atomic_int_get(&e->attn) && g_atomic_int_get(&e->in_guest)) {
    send_kick(e);
    st_insist(e);
  }
  if (pair_tick(&e->pair, &ST_PLATFORM(as)->pairs, e) % TICKS_PER_LOOK != 1 || st_alive(as->mapper))
    return;
  g_mutex_lock(&as->lock);
  st_mark_dead(as);
  g_mutex_unlock(&as->lock);
}

/* ---- Beginning and end ---- */

/* Under the lock. The thread waits for the next exec. */
static void exec_free(TesExec *base) {
  StExec *e = (StExec *)base;
  StAspace *as = ST_ASPACE(e);
  StPlatform *p = ST_PLATFORM(as);
  g_mutex_lock(&as->lock);
  g_ptr_array_remove_fast(as->execs, e);
  g_atomic_int_add(&as->nexecs, -1);
  memset(e->thread->in->fact_of, 0, sizeof e->thread->in->fact_of);
  g_ptr_array_add(as->idle, e->thread);
  if (!as->execs->len)
    st_empty(as);
  g_mutex_unlock(&as->lock);
  if (e->spinning)
    g_atomic_int_add(&p->spinning, -1);
  if (st_current == e)
    st_current = NULL;
  pair_free(&e->pair, &p->pairs);
  g_free(e->xstate);
  g_free(e);
}

static const TesExecOps exec_ops = {
    .size = sizeof(TesExecOps),
    .run = exec_run,
    .regs = exec_regs,
    .set_result = exec_set_result,
    .xstate_get = exec_xstate_get,
    .xstate_set = exec_xstate_set,
    .kick = exec_kick,
    .tick = exec_tick,
    .free = exec_free,
    .facts = st_facts,
};

/* Under the lock. A waiting thread: an idle one, or a new one. NULL and *error, -errno. */
static StThread *find_thread(StAspace *as, int *error) {
  StPlatform *p = ST_PLATFORM(as);
  StThread *t = NULL;
  guint place;
  *error = as->dead ? -ESRCH : -EAGAIN;
  if (as->dead)
    return NULL;
  if (as->idle->len)
    return g_ptr_array_steal_index_fast(as->idle, as->idle->len - 1);
  if (as->unborn->len)
    t = g_ptr_array_steal_index_fast(as->unborn, as->unborn->len - 1);
  else if (!st_number_take(&as->places, &place))
    return NULL;
  else if (!(t = st_thread_new(p, place))) {
    st_number_give(&as->places, place);
    return NULL;
  }
  st_begin(p, as->mapper);
  st_order_thread(as->mapper, t);
  *error = st_batch(as->mapper, NULL, &t->tid, 1);
  t->cpu = as->mapper->cpu;
  if (*error == 0)
    return t;
  /* The slot may be mapped, so that no other process may get it. */
  g_ptr_array_add(as->unborn, t);
  return NULL;
}

TesExec *st_exec_new(TesPlatform *platform, TesAspace *base, GError **error) {
  StAspace *as = (StAspace *)base;
  StExec *e = g_new0(StExec, 1);
  int r;
  (void)platform;
  st_gather();
  g_mutex_lock(&as->lock);
  e->thread = find_thread(as, &r);
  if (e->thread) {
    g_ptr_array_add(as->execs, e);
    g_atomic_int_inc(&as->nexecs);
    as->empty = FALSE;
  }
  g_mutex_unlock(&as->lock);
  if (!e->thread) {
    g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "systrap platform: cannot make a stub thread: %s",
                g_strerror(-r));
    g_free(e);
    return NULL;
  }
  e->base.ops = &exec_ops;
  e->base.aspace = base;
  e->regs = (TesRegs){.cs = 0x33, .ss = 0x2b, .eflags = 0x202, .orig_rax = (gulong)-1};
  e->has_regs = e->dirty = TRUE;
  pair_init(&e->pair);
  e->rest_ms = 1;
  return &e->base;
}
