/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of execution: TesExecOps of the ptrace platform.
 *
 * An exec is a stub thread. It is parked until the first run(), whose caller becomes its tracer. The cheapest round trip
 * is PTRACE_SYSEMU, waitpid, PTRACE_GET_SYSCALL_INFO and one PTRACE_POKEUSER for the result; all
 * registers move only when somebody asks for them.
 *
 * A kick sets `attn`, then looks at `in_guest`; run() sets `in_guest`, then looks at `attn`. So either the kicker sends
 * its signal, or run() sees the kick. The signal may arrive late, in a batch or in a later run(): it is dropped there. */
#include <elf.h>
#include <errno.h>
#include <linux/ptrace.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "private.h"

#define REAP_TRIES 200
#define TICKS_PER_REAP 16

__thread PtExec *pt_my_execs;

static int load_xstate(PtExec *e, const void *buf) {
  struct iovec iov = {(void *)(gulong)buf, PT_PLATFORM((PtAspace *)e->base.aspace)->base.xstate_size};
  long r = pt_ptrace(PTRACE_SETREGSET, e->tid, NT_X86_XSTATE, (gulong)&iov);
  return r == -ESRCH ? -ESRCH : r < 0 ? -EINVAL : 0;
}

/* The stub thread died, or cannot be traced any more: then its process must die. While the thread is not reaped its
 * process's pid cannot be used again. */
static void died(PtExec *e) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  e->dead = TRUE;
  g_atomic_int_set(&e->in_guest, 0);
  g_mutex_lock(&as->lock);
  if (!e->reaped && !as->dead)
    kill(as->stub.pid, SIGKILL);
  pt_mark_dead(as);
  g_mutex_unlock(&as->lock);
}

/* First run: the calling thread becomes the tracer. */
static void bind_exec(PtExec *e) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  int r = pt_takeover(e);
  e->owner = gettid();
  e->owner_next = pt_my_execs;
  pt_my_execs = e;
  g_mutex_lock(&as->lock);
  g_ptr_array_add(as->execs, e);
  g_mutex_unlock(&as->lock);
  if (r == 0)
    r = load_xstate(e, e->xstate ? e->xstate : PT_PLATFORM(as)->xinit);
  if (r == -EINVAL)
    r = load_xstate(e, PT_PLATFORM(as)->xinit);
  g_clear_pointer(&e->xstate, g_free);
  pair_start(&e->pair, &PT_PLATFORM(as)->pairs, e);
  if (r < 0)
    died(e);
}

/* Empties the address space's queue with this thread; also answers a kick that asked for that. */
static void serve_queue(PtExec *e) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  g_mutex_lock(&as->lock);
  g_atomic_int_and(&e->attn, ~(guint)PT_ATTN_DRAIN);
  if (as->queue.ops->len && !as->dead && !e->dead)
    pt_drain(e, as->queue.ops->len);
  else
    g_cond_broadcast(&as->left);
  g_mutex_unlock(&as->lock);
}

/* TRUE: in_guest is set, nothing is queued. FALSE: kicked. */
static gboolean enter(PtExec *e) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  for (;;) {
    g_atomic_int_set(&e->in_guest, 1);
    gint attn = g_atomic_int_get(&e->attn);
    if (G_LIKELY(!attn && !g_atomic_int_get(&as->queue.n)))
      return TRUE;
    g_atomic_int_set(&e->in_guest, 0);
    if (attn & PT_ATTN_KICK) {
      g_atomic_int_and(&e->attn, ~(guint)PT_ATTN_KICK);
      return FALSE;
    }
    serve_queue(e);
  }
}

/* Loads what changed and lets the guest go on. */
static int resume(PtExec *e) {
  int r = 0;
  if (e->dirty)
    r = pt_set_regs(e, &e->regs);
  else if (e->has_result &&
           pt_ptrace(PTRACE_POKEUSR, e->tid, G_STRUCT_OFFSET(struct user, regs.rax), e->result) < 0)
    r = -ESRCH;
  e->dirty = e->has_result = e->has_regs = e->emulated = e->syscall_stop = FALSE;
  return r < 0 || pt_ptrace(PTRACE_SYSEMU, e->tid, 0, 0) < 0 ? -ESRCH : 0;
}

static int exec_run(TesExec *base, TesTrap *out) {
  PtExec *e = (PtExec *)base;
  PtAspace *as = (PtAspace *)base->aspace;
  int status = 0;
  memset(out, 0, sizeof *out);
  if (G_UNLIKELY(!e->owner) && !e->dead)
    bind_exec(e);
  while (!e->dead) {
    if (!enter(e)) {
      out->kind = TES_TRAP_KICK;
      return 0;
    }
    pair_enter(&e->pair);
    if (resume(e) < 0)
      break;
    if (pt_wait(e->tid, &status) < 0 || !WIFSTOPPED(status)) {
      e->reaped = TRUE;
      break;
    }
    g_atomic_int_set(&e->in_guest, 0);
    pair_trap(&e->pair, &PT_PLATFORM(as)->pairs, e);
    gboolean told = pt_decode(e, status, out);
    if (G_UNLIKELY(g_atomic_int_get(&e->attn) & PT_ATTN_DRAIN))
      serve_queue(e);
    if (told)
      return 0;
  }
  died(e);
  out->kind = TES_TRAP_DEAD;
  return 0;
}

static TesRegs *exec_regs(TesExec *base, gboolean write) {
  PtExec *e = (PtExec *)base;
  if (!e->dead && pt_get_regs(e) < 0)
    e->dead = TRUE;
  e->dirty |= write;
  return &e->regs;
}

static void exec_set_result(TesExec *base, gulong rax) {
  PtExec *e = (PtExec *)base;
  /* -ERESTARTSYS and its kin would speak to the host kernel if it found orig_rax; loading all registers hides that. */
  if (G_UNLIKELY(rax >= (gulong)-516 && rax <= (gulong)-512))
    exec_regs(base, TRUE);
  if (e->has_regs) {
    e->regs.rax = rax;
    if (e->dirty)
      return;
  }
  e->result = rax;
  e->has_result = TRUE;
}

static int exec_xstate_get(TesExec *base, void *buf, gsize n) {
  PtExec *e = (PtExec *)base;
  PtPlatform *p = PT_PLATFORM((PtAspace *)base->aspace);
  n = MIN(n, p->base.xstate_size);
  if (!e->owner) {
    memcpy(buf, e->xstate ? e->xstate : p->xinit, n);
    return (int)n;
  }
  struct iovec iov = {buf, n};
  if (e->dead || pt_ptrace(PTRACE_GETREGSET, e->tid, NT_X86_XSTATE, (gulong)&iov) < 0)
    return -ESRCH;
  return (int)iov.iov_len;
}

static int exec_xstate_set(TesExec *base, const void *buf, gsize n) {
  PtExec *e = (PtExec *)base;
  if (n != PT_PLATFORM((PtAspace *)base->aspace)->base.xstate_size)
    return -EINVAL;
  if (e->dead)
    return -ESRCH;
  if (e->owner)
    return load_xstate(e, buf);
  g_free(e->xstate);
  e->xstate = g_memdup2(buf, n);
  return 0;
}

static void exec_kick(TesExec *base) {
  PtExec *e = (PtExec *)base;
  g_atomic_int_or(&e->attn, PT_ATTN_KICK);
  if (g_atomic_int_get(&e->in_guest))
    syscall(SYS_tgkill, ((PtAspace *)base->aspace)->stub.pid, e->tid, PT_KICK_SIGNAL);
}

static void exec_tick(TesExec *base) {
  PtExec *e = (PtExec *)base;
  guint quiet = pair_tick(&e->pair, &PT_PLATFORM((PtAspace *)base->aspace)->pairs, e);
  if (quiet && quiet % TICKS_PER_REAP == 0)
    pt_reap_others(e);
}

/* Under the lock. The thread waits for the next exec, or ends if enough do. */
static void park(PtAspace *as, PtExec *e) {
  gboolean keep = as->idle->len < PT_IDLE || e->tid == as->stub.pid;
  pt_release(e, keep ? STUB_AT(tes_ptrace_stub_park) : STUB_AT(tes_ptrace_stub_exit));
  if (keep)
    g_array_append_val(as->idle, e->tid);
}

/* Under the lock. The last exec of the address space goes: a lone thread is emptied for the next address
 * space, else the process ends. */
static void finish_stub(PtAspace *as, PtExec *e) {
  const gulong all[6] = {0, STUB_BASE};
  guint failed;
  if (as->idle->len == 0 && !as->broken && e->tid == as->stub.pid &&
      g_atomic_int_get(&PT_PLATFORM(as)->nspares) < PT_SPARES) {
    pt_order(as, SYS_munmap, 0, all);
    as->clean = pt_batch(e, &failed) == 0;
    if (as->clean) {
      park(as, e);
      return;
    }
  }
  pt_release(e, STUB_AT(tes_ptrace_stub_exit_group));
  pt_mark_dead(as);
}

/* The stub thread was killed: takes its remains away. The first thread's can be had only after all others' are; what
 * cannot be had goes with our thread, which must then end. */
static void reap(PtExec *e) {
  for (int i = 0; i < REAP_TRIES && !e->reaped; i++) {
    pid_t r = waitpid(e->tid, NULL, __WALL | __WNOTHREAD | WNOHANG);
    if (r != 0)
      return;
    g_usleep(100);
  }
  tes_task_retire_thread();
}

/* Is it a zombie? */
static gboolean is_zombie(pid_t tid) {
  g_autofree char *path = g_strdup_printf("/proc/%d/stat", tid), *text = NULL;
  const char *after = g_file_get_contents(path, &text, NULL, NULL) ? strrchr(text, ')') : NULL;
  return after && after[1] == ' ' && after[2] == 'Z';
}

/* Called now and then while the exec is in the guest. When the host kills a stub, the end of its first thread is
 * reported only after its other threads were reaped, by tracers that may be asleep. If this is such a first
 * thread, reaps the others in their stead. */
void pt_reap_others(PtExec *e) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  if (e->tid != as->stub.pid || as->nexecs < 2 || !is_zombie(e->tid))
    return;
  g_mutex_lock(&as->lock);
  pt_mark_dead(as);
  for (guint i = 0; i < as->execs->len; i++) {
    PtExec *other = g_ptr_array_index(as->execs, i);
    if (other != e)
      waitpid(other->tid, NULL, __WALL | WNOHANG);
  }
  g_mutex_unlock(&as->lock);
}

static void unbind(PtAspace *as, PtExec *e) {
  PtExec **link = &pt_my_execs;
  while (*link && *link != e)
    link = &(*link)->owner_next;
  if (*link)
    *link = e->owner_next;
  g_ptr_array_remove_fast(as->execs, e);
}

static void exec_free(TesExec *base) {
  PtExec *e = (PtExec *)base;
  PtAspace *as = (PtAspace *)base->aspace;
  g_mutex_lock(&as->lock);
  g_atomic_int_add(&as->nexecs, -1);
  if (!e->owner)
    g_array_append_val(as->idle, e->tid);
  else {
    unbind(as, e);
    if (e->dead || as->dead)
      reap(e);
    else if (as->nexecs == 0)
      finish_stub(as, e);
    else
      park(as, e);
  }
  g_mutex_unlock(&as->lock);
  pair_free(&e->pair, &PT_PLATFORM(as)->pairs);
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
};

/* Under the lock. A parked thread of the stub: an idle one, or a new one. > 0, or -errno. */
static pid_t find_thread(PtAspace *as) {
  const gulong args[6] = {PT_CLONE_THREAD};
  PtExec *self = pt_my_exec(as);
  guint failed;
  if (as->dead)
    return -ESRCH;
  if (as->idle->len) {
    pid_t tid = g_array_index(as->idle, pid_t, as->idle->len - 1);
    g_array_set_size(as->idle, as->idle->len - 1);
    return tid;
  }
  if (!self || self->dead)
    return -ESRCH;
  pt_order(as, SYS_clone, STUB_F_CLONE, args);
  int r = pt_batch(self, &failed);
  return r < 0 ? r : self->new_tid ? self->new_tid : -ESRCH;
}

TesExec *pt_exec_new(TesPlatform *platform, TesAspace *base, GError **error) {
  PtAspace *as = (PtAspace *)base;
  (void)platform;
  g_mutex_lock(&as->lock);
  pid_t tid = find_thread(as);
  if (tid > 0)
    g_atomic_int_inc(&as->nexecs);
  g_mutex_unlock(&as->lock);
  if (tid < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "ptrace platform: cannot make a stub thread: %s",
                g_strerror(-tid));
    return NULL;
  }
  PtExec *e = g_new0(PtExec, 1);
  e->base.ops = &exec_ops;
  e->base.aspace = base;
  e->tid = tid;
  e->regs = (TesRegs){.cs = 0x33, .ss = 0x2b, .eflags = 0x202, .orig_rax = (gulong)-1};
  e->has_regs = e->dirty = TRUE;
  pair_init(&e->pair);
  return &e->base;
}
