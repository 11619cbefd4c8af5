/* SPDX-License-Identifier: Apache-2.0 */
/* ptrace(2) primitives on a stub thread.
 *
 * pt_takeover() seizes a parked thread for the calling thread, pt_batch() runs the orders that
 * pt_order() collected, pt_release() lets the thread go at an entry point of the stub. A tracer is a
 * thread: everything here runs on the exec's owner. */
#include <elf.h>
#include <errno.h>
#include <linux/ptrace.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "private.h"

#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK)
#define TAKEOVER_LIMIT (5 * G_TIME_SPAN_SECOND)

#define USER_CS 0x33
#define USER32_CS 0x23
#define USER_DS 0x2b

long pt_ptrace(int request, pid_t pid, gulong addr, gulong data) {
  long r = syscall(SYS_ptrace, request, pid, addr, data);
  return r < 0 ? -errno : r;
}

int pt_wait(pid_t pid, int *status) {
  pid_t r;
  do
    r = waitpid(pid, status, __WALL | __WNOTHREAD);
  while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : 0;
}

static gboolean at_park(pid_t tid) {
  TesRegs r;
  return pt_ptrace(PTRACE_GETREGS, tid, 0, (gulong)&r) == 0 && r.rip == STUB_AT(tes_ptrace_stub_syscalled) &&
         r.r15 == STUB_AT(tes_ptrace_stub_parked);
}

/* Seizes a thread and stops it. *parked: it waits where parked threads wait. FALSE: it is gone, or not ours to trace. */
gboolean pt_seize(pid_t tid, gboolean *parked) {
  int status;
  *parked = FALSE;
  if (pt_ptrace(PTRACE_SEIZE, tid, 0, OPTIONS) < 0)
    return FALSE;
  if (pt_ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 || pt_wait(tid, &status) < 0 || !WIFSTOPPED(status))
    return FALSE;
  *parked = at_park(tid);
  return TRUE;
}

/* The thread was made a moment ago and may still be on its way to the parking place. */
int pt_takeover(PtExec *e) {
  gboolean parked;
  int status;
  gint64 end = g_get_monotonic_time() + TAKEOVER_LIMIT;
  if (!pt_seize(e->tid, &parked))
    return -ESRCH;
  while (!parked) {
    const struct timespec pause = {0, 20000};
    if (g_get_monotonic_time() > end) {
      pt_ptrace(PTRACE_DETACH, e->tid, 0, 0); /* not a thread of ours: a pid was used again */
      return -ESRCH;
    }
    if (pt_ptrace(PTRACE_CONT, e->tid, 0, 0) < 0)
      return -ESRCH;
    nanosleep(&pause, NULL);
    if (pt_ptrace(PTRACE_INTERRUPT, e->tid, 0, 0) < 0 || pt_wait(e->tid, &status) < 0 || !WIFSTOPPED(status))
      return -ESRCH;
    parked = at_park(e->tid);
  }
  return 0;
}

int pt_get_regs(PtExec *e) {
  if (e->has_regs)
    return 0;
  if (pt_ptrace(PTRACE_GETREGS, e->tid, 0, (gulong)&e->regs) < 0)
    return -ESRCH;
  if (e->emulated)
    e->regs.rax = (gulong)-ENOSYS, e->regs.orig_rax = e->nr;
  else if (!e->syscall_stop)
    e->regs.orig_rax = (gulong)-1;
  if (e->has_result)
    e->regs.rax = e->result;
  e->has_regs = TRUE;
  return 0;
}

/* Makes registers loadable that a guest chose: selectors of user mode, bases in user space. */
void pt_sanitise(TesRegs *r) {
  r->cs = r->cs == USER32_CS ? USER32_CS : USER_CS;
  r->ss = USER_DS;
  r->ds = r->ds == USER_DS ? USER_DS : 0;
  r->es = r->es == USER_DS ? USER_DS : 0;
  r->fs = r->gs = 0;
  if (r->fs_base >= STUB_USER_END)
    r->fs_base = 0;
  if (r->gs_base >= STUB_USER_END)
    r->gs_base = 0;
}

/* Loads registers. orig_rax becomes -1: the host kernel must never see a system call to restart. */
int pt_set_regs(PtExec *e, TesRegs *r) {
  r->orig_rax = (gulong)-1;
  long rc = pt_ptrace(PTRACE_SETREGS, e->tid, 0, (gulong)r);
  if (rc == -EIO) {
    pt_sanitise(r);
    rc = pt_ptrace(PTRACE_SETREGS, e->tid, 0, (gulong)r);
  }
  return rc < 0 ? -ESRCH : 0;
}

void pt_order(PtAspace *as, guint nr, guint flags, const gulong args[6]) {
  g_return_if_fail(as->nordered < PT_ORDERS_MAX);
  StubOrder *o = &as->orders[as->nordered++];
  o->nr = nr;
  o->flags = flags;
  if (args)
    memcpy(o->args, args, sizeof o->args);
}

/* A clone order was carried out: the new thread is traced by us too. Lets it go; it parks. */
static void adopt(PtExec *e) {
  gulong tid = 0;
  int status;
  if (pt_ptrace(PTRACE_GETEVENTMSG, e->tid, 0, (gulong)&tid) < 0 || pt_wait((pid_t)tid, &status) < 0)
    return;
  if (WIFSTOPPED(status) && pt_ptrace(PTRACE_DETACH, (pid_t)tid, 0, 0) == 0)
    e->new_tid = (pid_t)tid;
}

/* The guest denied itself (with WRPKRU) the pages that have no protection key, ours among them. Opens them,
 * keeps its PKRU in *saved. FALSE: that was not the reason. */
static gboolean open_pkru(PtExec *e, void **saved) {
  PtPlatform *p = (PtPlatform *)e->base.aspace->platform;
  gsize size = p->base.xstate_size;
  siginfo_t si;
  if (*saved || !(p->base.xfeatures & (1 << 9)) || pt_ptrace(PTRACE_GETSIGINFO, e->tid, 0, (gulong)&si) < 0 ||
      si.si_code != SEGV_PKUERR)
    return FALSE;
  void *buf = g_try_malloc(size);
  struct iovec get = {buf, size}, set = {p->xinit, size};
  if (!buf || pt_ptrace(PTRACE_GETREGSET, e->tid, NT_X86_XSTATE, (gulong)&get) < 0 ||
      pt_ptrace(PTRACE_SETREGSET, e->tid, NT_X86_XSTATE, (gulong)&set) < 0) {
    g_free(buf);
    return FALSE;
  }
  *saved = buf;
  return TRUE;
}

/* Waits for the trap at the end of a batch. Signals that were sent from outside are dropped on the way. */
static int finish(PtExec *e, TesRegs *r, void **saved) {
  int status;
  for (;;) {
    if (pt_wait(e->tid, &status) < 0)
      return -ESRCH;
    if (!WIFSTOPPED(status)) {
      e->dead = e->reaped = TRUE;
      return -ESRCH;
    }
    int event = status >> 16, sig = WSTOPSIG(status);
    if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK)
      adopt(e);
    else if (!event && sig == SIGTRAP) {
      if (pt_ptrace(PTRACE_GETREGS, e->tid, 0, (gulong)r) < 0)
        return -ESRCH;
      if (r->rip == STUB_AT(tes_ptrace_stub_trapped))
        return 0;
    } else if (!event && (sig == SIGSEGV || sig == SIGSYS || sig == SIGBUS)) {
      siginfo_t si;
      if (pt_ptrace(PTRACE_GETSIGINFO, e->tid, 0, (gulong)&si) < 0)
        return -ESRCH;
      if (si.si_code > 0 && !open_pkru(e, saved))
        return -ESRCH; /* an order that the filter refuses, or a lost stub page: cannot be */
    }
    if (pt_ptrace(PTRACE_CONT, e->tid, 0, 0) < 0)
      return -ESRCH;
  }
}

int pt_batch(PtExec *e, guint *failed) {
  PtAspace *as = (PtAspace *)e->base.aspace;
  void *saved = NULL;
  TesRegs r;
  as->orders[as->nordered].nr = STUB_NR_END;
  as->orders[as->nordered].flags = 0;
  as->nordered = 0;
  e->new_tid = 0;
  if (pt_get_regs(e) < 0)
    return -ESRCH;
  r = e->regs;
  r.cs = USER_CS;
  r.ss = USER_DS;
  r.eflags = 0x202;
  r.rip = STUB_AT(tes_ptrace_stub_batch);
  r.rbx = STUB_ORDERS;
  e->dirty = TRUE;
  int rc = pt_set_regs(e, &r);
  if (rc == 0)
    rc = pt_ptrace(PTRACE_CONT, e->tid, 0, 0) < 0 ? -ESRCH : finish(e, &r, &saved);
  if (saved) {
    struct iovec set = {saved, PT_PLATFORM(as)->base.xstate_size};
    if (pt_ptrace(PTRACE_SETREGSET, e->tid, NT_X86_XSTATE, (gulong)&set) < 0)
      rc = -ESRCH;
    g_free(saved);
  }
  if (rc < 0)
    return rc;
  *failed = (guint)((r.rbx - STUB_ORDERS) / STUB_ORDER_SIZE);
  return (int)r.rax;
}

void pt_release(PtExec *e, gulong ip) {
  TesRegs r = {.rip = ip, .cs = USER_CS, .ss = USER_DS, .eflags = 0x202};
  if (!e->dead && pt_set_regs(e, &r) == 0)
    pt_ptrace(PTRACE_DETACH, e->tid, 0, 0);
}
