/* SPDX-License-Identifier: Apache-2.0 */
/* What a stop of the guest means: pt_syscall_trap() and pt_decode() fill a TesTrap.
 *
 * System calls arrive as SYSEMU stops; those of the vsyscall page, which SYSEMU misses, as SIGSYS from the stub's
 * filter, or as a fault where the host has no such page (vsyscall=none). Signals of the hardware have a
 * positive si_code; any other was sent by somebody on the host and is dropped. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "private.h"

#define VSYSCALL_BASE 0xffffffffff600000UL
#define VSYSCALL_STEP 1024
#define X32_BIT 0x40000000U

/* x32 numbers have this bit; negative numbers are no ABI of their own. */
static gboolean is_x32(gulong nr) { return (nr & X32_BIT) && !(nr & 0x80000000U); }

gboolean pt_syscall_trap(PtExec *e, TesTrap *out) {
  struct ptrace_syscall_info info;
  if (pt_ptrace(PTRACE_GET_SYSCALL_INFO, e->tid, sizeof info, (gulong)&info) < 0 ||
      info.op != PTRACE_SYSCALL_INFO_ENTRY)
    return FALSE;
  e->syscall_stop = TRUE;
  out->kind = TES_TRAP_SYSCALL;
  out->foreign_abi = info.arch != AUDIT_ARCH_X86_64 ? TES_ABI_I386 : is_x32(info.entry.nr) ? TES_ABI_X32 : 0;
  out->nr = info.entry.nr;
  for (guint i = 0; i < 6; i++)
    out->args[i] = info.entry.args[i];
  out->ip = info.instruction_pointer;
  out->sp = info.stack_pointer;
  return TRUE;
}

/* The registers are at the return address already. */
static gboolean vsyscall_trap(PtExec *e, gulong nr, gboolean foreign, TesTrap *out) {
  e->emulated = e->syscall_stop = TRUE;
  e->nr = nr;
  e->regs.rax = (gulong)-ENOSYS;
  e->regs.orig_rax = nr;
  *out = (TesTrap){.kind = TES_TRAP_SYSCALL,
                   .foreign_abi = foreign      ? TES_ABI_I386
                                  : is_x32(nr) ? TES_ABI_X32
                                               : 0,
                   .nr = nr,
                   .args = {e->regs.rdi, e->regs.rsi, e->regs.rdx, e->regs.r10, e->regs.r8, e->regs.r9},
                   .ip = e->regs.rip,
                   .sp = e->regs.rsp};
  return TRUE;
}

/* A jump to an entry of a vsyscall page that the host does not have: does the `ret` it would do. FALSE: something else. */
static gboolean missing_vsyscall(PtExec *e, const siginfo_t *si, TesTrap *out) {
  const gulong nrs[] = {SYS_gettimeofday, SYS_time, SYS_getcpu};
  gulong at = e->regs.rip - VSYSCALL_BASE, caller;
  if (at / VSYSCALL_STEP >= G_N_ELEMENTS(nrs) || at % VSYSCALL_STEP || (gulong)si->si_addr != e->regs.rip)
    return FALSE;
  if (pt_ptrace(PTRACE_PEEKDATA, e->tid, e->regs.rsp, (gulong)&caller) < 0) {
    out->addr = e->regs.rsp; /* perhaps only not mapped yet: the jump will be tried again */
    out->access = TES_ACCESS_READ;
    return FALSE;
  }
  e->regs.rip = caller;
  e->regs.rsp += 8;
  e->dirty = TRUE;
  return vsyscall_trap(e, nrs[at / VSYSCALL_STEP], FALSE, out);
}

/* As in struct sigcontext, for what can be told from a signal. */
static gulong trapno(const siginfo_t *si) {
  switch (si->si_signo) {
  case SIGFPE:
    return si->si_code == FPE_INTDIV ? 0 : 16;
  case SIGILL:
    return 6;
  case SIGTRAP:
    return si->si_code == SI_KERNEL ? 3 : 1;
  case SIGBUS:
    return si->si_code == BUS_ADRALN ? 17 : 14;
  default:
    return si->si_code == SI_KERNEL ? 13 : 14;
  }
}

static gboolean is_page_fault(const siginfo_t *si) {
  if (si->si_signo == SIGSEGV)
    return si->si_code == SEGV_MAPERR || si->si_code == SEGV_ACCERR || si->si_code == SEGV_PKUERR;
  return si->si_signo == SIGBUS && si->si_code != BUS_ADRALN && si->si_code != SI_KERNEL;
}

static gboolean hardware_signal(PtExec *e, int sig, TesTrap *out) {
  siginfo_t si;
  if (pt_ptrace(PTRACE_GETSIGINFO, e->tid, 0, (gulong)&si) < 0 || si.si_code <= 0)
    return FALSE;
  if (pt_get_regs(e) < 0)
    return FALSE;
  if (sig == SIGSYS)
    return vsyscall_trap(e, (gulong)(glong)si.si_syscall, si.si_arch != AUDIT_ARCH_X86_64, out);
  *out = (TesTrap){.signo = sig,
                   .code = si.si_code,
                   .addr = (gulong)si.si_addr,
                   .trapno = trapno(&si),
                   .ip = e->regs.rip,
                   .sp = e->regs.rsp};
  if (sig == SIGSEGV && missing_vsyscall(e, &si, out))
    return TRUE;
  out->kind = is_page_fault(&si) ? TES_TRAP_FAULT : TES_TRAP_EXCEPTION;
  if (out->kind == TES_TRAP_FAULT && !out->access && out->addr == out->ip)
    out->access = TES_ACCESS_EXEC;
  return TRUE;
}

gboolean pt_decode(PtExec *e, int status, TesTrap *out) {
  int sig = WSTOPSIG(status);
  if (status >> 16) /* an INTERRUPT, or a job-control stop of the host: the guest knows neither */
    return FALSE;
  switch (sig) {
  case SIGTRAP | 0x80:
    return pt_syscall_trap(e, out);
  case SIGSEGV:
  case SIGBUS:
  case SIGILL:
  case SIGFPE:
  case SIGTRAP:
  case SIGSYS:
    return hardware_signal(e, sig, out);
  default: /* our kick, whose reason is in `attn`, or a stray signal */
    return FALSE;
  }
}
