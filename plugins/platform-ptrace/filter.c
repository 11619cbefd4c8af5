/* SPDX-License-Identifier: Apache-2.0 */
/* The seccomp filter of every stub: pt_filter().
 *
 * It admits the system calls of the protocol, with the arguments of the protocol, from the stub's
 * one syscall instruction. All else traps: SIGSYS stops the thread, and its tracer serves it as a
 * guest's call. In the guest SYSEMU comes first, so this filter only sees the vsyscall page there. */
#include <linux/audit.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "../platform-common/bpf.h"
#include "private.h"

/* Traps unless the first argument is an address below the stub's pages. */
static void need_guest_address(Filter *f) { need_address(f, 0, STUB_BASE, FALSE); }

/* Guest mappings come from the received descriptor, the order page from the order file, read-only. */
static void rule_mmap(Filter *f) {
  guint nr = begin_if(f, SYS_mmap);
  load_arg(f, 3, FALSE);
  emit(f, BPF_ALU | BPF_AND | BPF_K, ~(guint32)MAP_POPULATE, 0, 0);
  need(f, MAP_SHARED | MAP_FIXED);
  load_arg(f, 4, FALSE);
  guint orders = begin_if(f, STUB_FD_ORDERS);
  need_arg(f, 0, STUB_ORDERS);
  need_arg(f, 1, STUB_PAGE);
  need_arg(f, 2, PROT_READ);
  allow(f);
  end_if(f, orders);
  need(f, STUB_FD_IN);
  need_guest_address(f);
  allow(f);
  end_if(f, nr);
}

guint pt_filter(void *out, gsize size) {
  const guint32 clones[] = {PT_CLONE_THREAD, PT_CLONE_PROCESS, SIGCHLD};
  Filter f = {out, 0, (guint)(size / sizeof(struct sock_filter))};
  load(&f, G_STRUCT_OFFSET(struct seccomp_data, arch));
  need(&f, AUDIT_ARCH_X86_64);
  need_64(&f, G_STRUCT_OFFSET(struct seccomp_data, instruction_pointer), STUB_AT(tes_ptrace_stub_syscalled));
  load_nr(&f);
  rule_mmap(&f);
  rule_below(&f, SYS_munmap, STUB_BASE);
  rule_below(&f, SYS_mprotect, STUB_BASE);
  rule_arg(&f, SYS_recvmsg, 1, STUB_AT(tes_ptrace_stub_msghdr));
  rule_arg(&f, SYS_close, 0, STUB_FD_IN);
  rule_one_of(&f, SYS_clone, clones, G_N_ELEMENTS(clones));
  rule_arg(&f, SYS_read, 0, STUB_FD_LIFE);
  rule_arg(&f, SYS_read, 0, STUB_FD_CTL);
  rule_arg(&f, SYS_sendto, 0, STUB_FD_CTL);
  rule_always(&f, SYS_exit);
  rule_always(&f, SYS_exit_group);
  trap(&f);
  return f.n <= f.max ? f.n : 0;
}
