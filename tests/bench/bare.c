/* SPDX-License-Identifier: Apache-2.0 */
/* What the interception techniques cost by themselves on this machine, now: the yardstick of `./dev bench`.
 *
 *   bare        prints `NAME MIN MEDIAN` in nanoseconds
 *
 * Rows ending in -free are left to the scheduler; all others have every party on one core.
 */
#include "measure.h"

#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static cpu_set_t everywhere;

static void pin(void) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
    if (CPU_ISSET(cpu, &everywhere)) {
      CPU_SET(cpu, &one);
      break;
    }
  sched_setaffinity(0, sizeof one, &one);
}

static void unpin(void) { sched_setaffinity(0, sizeof everywhere, &everywhere); }

static void check(const char *what, long result) {
  if (result < 0) {
    perror(what);
    exit(1);
  }
}

static void do_syscall(void) { syscall(SYS_getppid); }

static pid_t tracee;
static void stopped(void) {
  int status;
  check("waitpid", waitpid(tracee, &status, __WALL));
  if (!WIFSTOPPED(status))
    exit(1);
}

/* A tracee that calls getppid for ever; stopped at its first call under SYSEMU. */
static void start_tracee(void) {
  tracee = fork();
  if (tracee == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    for (;;)
      __asm__ volatile("syscall" : : "a"(SYS_getppid) : "rcx", "r11", "memory");
  }
  stopped();
  check("SETOPTIONS", ptrace(PTRACE_SETOPTIONS, tracee, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD));
}

static void stop_tracee(void) {
  kill(tracee, SIGKILL);
  waitpid(tracee, NULL, __WALL);
}

static void do_sysemu(void) {
  struct __ptrace_syscall_info info;
  ptrace(PTRACE_SYSEMU, tracee, 0, 0);
  stopped();
  check("GET_SYSCALL_INFO", ptrace(PTRACE_GET_SYSCALL_INFO, tracee, sizeof info, &info));
  check("POKEUSER", ptrace(PTRACE_POKEUSER, tracee, offsetof(struct user_regs_struct, rax), 42));
}

static void do_sysemu_regs(void) {
  struct user_regs_struct regs;
  ptrace(PTRACE_SYSEMU, tracee, 0, 0);
  stopped();
  check("GETREGS", ptrace(PTRACE_GETREGS, tracee, 0, &regs));
  regs.rax = 42;
  check("SETREGS", ptrace(PTRACE_SETREGS, tracee, 0, &regs));
}

static struct user_regs_struct at_syscall;

/* The tracee executes one host system call for us: registers in, one step over its syscall instruction, result out. */
static void do_inject(void) {
  struct user_regs_struct regs = at_syscall;
  regs.rax = SYS_getppid;
  regs.orig_rax = (unsigned long long)-1;
  check("SETREGS", ptrace(PTRACE_SETREGS, tracee, 0, &regs));
  check("SINGLESTEP", ptrace(PTRACE_SINGLESTEP, tracee, 0, 0));
  stopped();
  check("GETREGS", ptrace(PTRACE_GETREGS, tracee, 0, &regs));
}

static void row_ptrace(const char *suffix) {
  char name[40];
  start_tracee();
  snprintf(name, sizeof name, "sysemu%s", suffix);
  measure(name, do_sysemu);
  if (!*suffix) {
    measure("sysemu-regs", do_sysemu_regs);
    check("GETREGS", ptrace(PTRACE_GETREGS, tracee, 0, &at_syscall));
    at_syscall.rip -= 2;
    measure("inject", do_inject);
  }
  stop_tracee();
}

/* A fault reported to the tracer as SIGSEGV and answered by letting the tracee try again. */
static void do_fault(void) {
  siginfo_t info;
  ptrace(PTRACE_CONT, tracee, 0, 0);
  stopped();
  check("GETSIGINFO", ptrace(PTRACE_GETSIGINFO, tracee, 0, &info));
}

static void row_fault(void) {
  tracee = fork();
  if (tracee == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    volatile char *p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *p = 1;
    _exit(0);
  }
  stopped();
  measure("fault", do_fault);
  stop_tracee();
}

static void on_sigsys(int sig, siginfo_t *info, void *context) {
  (void)sig;
  (void)info;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 42;
}

/* Traps are for life: in a child. */
static void row_sigsys(void) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {sizeof code / sizeof *code, code};
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    check("NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    check("seccomp", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
    measure("sigsys", do_syscall);
    _exit(0);
  }
  waitpid(pid, NULL, 0);
}

static _Atomic(unsigned) *turn;
static void pass(unsigned mine, unsigned other) {
  unsigned now;
  while ((now = atomic_load(turn)) != mine)
    syscall(SYS_futex, turn, FUTEX_WAIT, now, NULL, NULL, 0);
  atomic_store(turn, other);
  syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}
/* One round trip: the turn goes over and comes back. */
static void do_futex(void) {
  atomic_store(turn, 1);
  syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
  while (atomic_load(turn) == 1)
    syscall(SYS_futex, turn, FUTEX_WAIT, 1, NULL, NULL, 0);
}

static void row_futex(const char *name) {
  turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
      pass(1, 0);
  }
  measure(name, do_futex);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

int main(void) {
  sched_getaffinity(0, sizeof everywhere, &everywhere);
  pin();
  measure("syscall", do_syscall);
  row_ptrace("");
  row_fault();
  row_sigsys();
  row_futex("futex");
  unpin();
  row_ptrace("-free");
  row_futex("futex-free");
  return 0;
}
