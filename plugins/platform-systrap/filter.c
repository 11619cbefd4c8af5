/* SPDX-License-Identifier: Apache-2.0 */
/* The seccomp filters of the stub processes.
 *
 *   st_filter_process  on everything that descends from the zygote. Admits the mapper's calls, with the arguments of the
 *                      protocol, from the mapper's syscall instruction, and what guest threads need from theirs.
 *   st_filter_guest    on guest threads, on top of the other: nothing but to wait and wake, wherever they jump to.
 *
 * All else traps: SIGSYS is the guest's system call. */
#include <linux/audit.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "../platform-common/bpf.h"
#include "private.h"

static void need_guest_range(Filter *f) { need_address(f, 0, ST_BASE, FALSE); }

/* Mappings of guests come from the memory file or from the received descriptor; our own pages from our two files. */
static void rule_mmap(Filter *f) {
  guint nr = begin_if(f, SYS_mmap);
  load_arg(f, 3, FALSE);
  emit(f, BPF_ALU | BPF_AND | BPF_K, ~(guint32)MAP_POPULATE, 0, 0);
  need(f, MAP_SHARED | MAP_FIXED);
  load_arg(f, 4, FALSE);
  guint ro = begin_if(f, ST_FD_RO);
  load_arg(f, 2, FALSE);
  emit(f, BPF_ALU | BPF_AND | BPF_K, ~(guint32)PROT_EXEC, 0, 0);
  need(f, PROT_READ);
  allow(f);
  end_if(f, ro);
  guint rw = begin_if(f, ST_FD_RW);
  need_arg(f, 2, PROT_READ | PROT_WRITE);
  need_address(f, 0, ST_SLOTS, TRUE);
  allow(f);
  end_if(f, rw);
  guint mem = begin_if(f, ST_FD_MEM);
  need_guest_range(f);
  allow(f);
  end_if(f, mem);
  need(f, ST_FD_IN);
  need_guest_range(f);
  allow(f);
  end_if(f, nr);
}

/* Guests' pages; slots of a forked process; trampolines. */
static void rule_munmap(Filter *f) {
  guint nr = begin_if(f, SYS_munmap);
  load_arg(f, 0, FALSE);
  for (guint i = 0; i < 2; i++) {
    guint low = begin_if(f, (i ? ST_TRAMPOLINES : ST_SLOTS) & G_MAXUINT32);
    load_arg(f, 0, TRUE);
    guint high = begin_if(f, ST_SLOTS >> 32);
    allow(f);
    end_if(f, high);
    load_arg(f, 0, FALSE);
    end_if(f, low);
  }
  need_guest_range(f);
  allow(f);
  end_if(f, nr);
}

static void rule_dup2(Filter *f) {
  guint nr = begin_if(f, SYS_dup2);
  need_arg(f, 0, ST_FD_IN);
  load_arg(f, 1, FALSE);
  guint sock = begin_if(f, ST_FD_SOCK);
  allow(f);
  end_if(f, sock);
  need(f, ST_FD_MEM);
  allow(f);
  end_if(f, nr);
}

/* What a guest thread needs, the number being loaded. No requeue, no PI, no way to
 * block a signal. */
static void guest_rules(Filter *f) {
  guint futex = begin_if(f, SYS_futex);
  load_arg(f, 1, FALSE);
  guint wait = begin_if(f, FUTEX_WAIT);
  allow(f);
  end_if(f, wait);
  need(f, FUTEX_WAKE);
  allow(f);
  end_if(f, futex);
  guint unblock = begin_if(f, SYS_rt_sigprocmask);
  need_arg(f, 0, SIG_SETMASK);
  need_arg(f, 1, ST_AT(tes_st_empty_set));
  need_arg(f, 2, 0);
  allow(f);
  end_if(f, unblock);
  trap(f);
}

static void mapper_rules(Filter *f) {
  const guint32 clones[] = {ST_CLONE_THREAD, ST_CLONE_PROCESS, SIGCHLD};
  rule_mmap(f);
  rule_munmap(f);
  rule_below(f, SYS_mprotect, ST_BASE);
  rule_arg(f, SYS_futex, 0, ST_ORDERS + ST_O_BELL);
  rule_arg(f, SYS_sendto, 0, ST_FD_SOCK);
  rule_arg(f, SYS_recvmsg, 1, ST_AT(tes_st_msghdr));
  rule_arg(f, SYS_close, 0, ST_FD_IN);
  rule_arg(f, SYS_close, 0, ST_FD_LIFE);
  rule_arg(f, SYS_tgkill, 2, ST_KICK_SIGNAL);
  rule_arg(f, SYS_tkill, 1, ST_KICK_SIGNAL);
  rule_arg(f, SYS_madvise, 0, ST_SCRATCH);
  rule_always(f, SYS_membarrier);
  rule_arg(f, SYS_sched_setaffinity, 2, ST_ORDERS + ST_O_MASK);
  rule_arg(f, SYS_prctl, 0, PR_SET_PDEATHSIG);
  rule_arg(f, SYS_seccomp, 2, ST_SHARED);
  rule_arg(f, SYS_read, 0, ST_FD_LIFE);
  rule_dup2(f);
  rule_one_of(f, SYS_clone, clones, G_N_ELEMENTS(clones));
  rule_always(f, SYS_getpid);
  rule_always(f, SYS_sigaltstack);
  rule_always(f, SYS_close_range);
  rule_always(f, SYS_exit_group);
  trap(f);
}

/* Splits by the instruction pointer: what follows is for `at`, until end_if() of both results. */
static void begin_at(Filter *f, gulong at, guint out[2]) {
  load(f, G_STRUCT_OFFSET(struct seccomp_data, instruction_pointer) + 4);
  out[0] = begin_if(f, at >> 32);
  load(f, G_STRUCT_OFFSET(struct seccomp_data, instruction_pointer));
  out[1] = begin_if(f, at & G_MAXUINT32);
  load_nr(f);
}

static void end_at(Filter *f, const guint at[2]) {
  end_if(f, at[1]);
  end_if(f, at[0]);
}

guint st_filter_process(void *out, gsize size) {
  Filter f = {out, 0, (guint)(size / sizeof(struct sock_filter))};
  guint guest[2];
  load(&f, G_STRUCT_OFFSET(struct seccomp_data, arch));
  need(&f, AUDIT_ARCH_X86_64);
  begin_at(&f, ST_AT(tes_st_guest_called), guest);
  guest_rules(&f);
  end_at(&f, guest);
  need_64(&f, G_STRUCT_OFFSET(struct seccomp_data, instruction_pointer), ST_AT(tes_st_mapper_called));
  load_nr(&f);
  mapper_rules(&f);
  return f.n <= f.max ? f.n : 0;
}

guint st_filter_guest(void *out, gsize size) {
  Filter f = {out, 0, (guint)(size / sizeof(struct sock_filter))};
  load(&f, G_STRUCT_OFFSET(struct seccomp_data, arch));
  need(&f, AUDIT_ARCH_X86_64);
  need_64(&f, G_STRUCT_OFFSET(struct seccomp_data, instruction_pointer), ST_AT(tes_st_guest_called));
  load_nr(&f);
  guest_rules(&f);
  return f.n <= f.max ? f.n : 0;
}
