/* SPDX-License-Identifier: Apache-2.0 */
/* The seccomp filter of every stub: pt_filter().
 *
 * It admits the system calls of the protocol, with the arguments of the protocol, from the stub's
 * one syscall instruction. All else traps: SIGSYS stops the thread, and its tracer serves it as a
 * guest's call. In the guest SYSEMU comes first, so this filter only sees the vsyscall page there. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "private.h"

typedef struct {
  struct sock_filter *code;
  guint n, max;
} Filter;

static void emit(Filter *f, guint16 code, guint32 k, guint8 jt, guint8 jf) {
  if (f->n < f->max)
    f->code[f->n] = (struct sock_filter){code, jt, jf, k};
  f->n++;
}

static void load(Filter *f, gsize offset) { emit(f, BPF_LD | BPF_W | BPF_ABS, (guint32)offset, 0, 0); }
static void allow(Filter *f) { emit(f, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0); }
static void trap(Filter *f) { emit(f, BPF_RET | BPF_K, SECCOMP_RET_TRAP, 0, 0); }

static void load_arg(Filter *f, guint n, gboolean high) {
  load(f, G_STRUCT_OFFSET(struct seccomp_data, args) + 8 * n + (high ? 4 : 0));
}

/* Traps unless the loaded word is `k`. */
static void need(Filter *f, gulong k) {
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, (guint32)k, 1, 0);
  trap(f);
}

static void need_64(Filter *f, gsize offset, gulong value) {
  load(f, offset + 4);
  need(f, value >> 32);
  load(f, offset);
  need(f, value & G_MAXUINT32);
}

static void need_arg(Filter *f, guint n, gulong value) {
  need_64(f, G_STRUCT_OFFSET(struct seccomp_data, args) + 8 * n, value);
}

/* What follows, until end_if(), is for the loaded word `k` only. */
static guint begin_if(Filter *f, gulong k) {
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, (guint32)k, 0, 0);
  return f->n - 1;
}

static void end_if(Filter *f, guint at) {
  if (at < f->max)
    f->code[at].jf = (guint8)(f->n - at - 1);
}

/* Traps unless the first argument is an address below the stub's pages. */
static void need_guest_address(Filter *f) {
  load_arg(f, 0, TRUE);
  emit(f, BPF_JMP | BPF_JGT | BPF_K, STUB_BASE >> 32, 0, 1);
  trap(f);
  guint same = begin_if(f, STUB_BASE >> 32);
  load_arg(f, 0, FALSE);
  emit(f, BPF_JMP | BPF_JGE | BPF_K, STUB_BASE & G_MAXUINT32, 0, 1);
  trap(f);
  end_if(f, same);
}

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

static void rule_clone(Filter *f) {
  const guint32 flags[] = {PT_CLONE_THREAD, PT_CLONE_PROCESS, SIGCHLD};
  guint nr = begin_if(f, SYS_clone);
  load_arg(f, 0, FALSE);
  for (guint i = 0; i < G_N_ELEMENTS(flags); i++) {
    guint same = begin_if(f, flags[i]);
    allow(f);
    end_if(f, same);
  }
  trap(f);
  end_if(f, nr);
}

static void rule_guest_address(Filter *f, guint32 number) {
  guint nr = begin_if(f, number);
  need_guest_address(f);
  allow(f);
  end_if(f, nr);
}

/* Allowed when argument `n` is `value`. */
static void rule_arg(Filter *f, guint32 number, guint n, gulong value) {
  guint nr = begin_if(f, number);
  load_arg(f, n, TRUE);
  guint high = begin_if(f, value >> 32);
  load_arg(f, n, FALSE);
  guint low = begin_if(f, value & G_MAXUINT32);
  allow(f);
  end_if(f, low);
  end_if(f, high);
  load(f, G_STRUCT_OFFSET(struct seccomp_data, nr));
  end_if(f, nr);
}

static void rule_always(Filter *f, guint32 number) {
  guint nr = begin_if(f, number);
  allow(f);
  end_if(f, nr);
}

guint pt_filter(void *out, gsize size) {
  Filter f = {out, 0, (guint)(size / sizeof(struct sock_filter))};
  load(&f, G_STRUCT_OFFSET(struct seccomp_data, arch));
  need(&f, AUDIT_ARCH_X86_64);
  need_64(&f, G_STRUCT_OFFSET(struct seccomp_data, instruction_pointer), STUB_AT(tes_ptrace_stub_syscalled));
  load(&f, G_STRUCT_OFFSET(struct seccomp_data, nr));
  rule_mmap(&f);
  rule_guest_address(&f, SYS_munmap);
  rule_guest_address(&f, SYS_mprotect);
  rule_arg(&f, SYS_recvmsg, 1, STUB_AT(tes_ptrace_stub_msghdr));
  rule_arg(&f, SYS_close, 0, STUB_FD_IN);
  rule_clone(&f);
  rule_arg(&f, SYS_read, 0, STUB_FD_LIFE);
  rule_arg(&f, SYS_read, 0, STUB_FD_CTL);
  rule_arg(&f, SYS_sendto, 0, STUB_FD_CTL);
  rule_always(&f, SYS_exit);
  rule_always(&f, SYS_exit_group);
  trap(&f);
  return f.n <= f.max ? f.n : 0;
}
