/* SPDX-License-Identifier: Apache-2.0 */
/* What it costs by itself to hand a call over to another process without ptrace: the yardstick for platforms that trap by
 * signals, rewritten calls and seccomp notifications.
 *
 *   bare-systrap        prints `NAME MIN MEDIAN` in nanoseconds; each is a round trip
 *
 *   answered            rewritten call: save the registers, answer from a page, restore them
 *   direct-futex        rewritten call, registers to a shared page, futex to the other process and back; one CPU
 *   direct-spin         the same, both sides spinning on CPUs of their own
 *   sigsys-xrstor       a filter's SIGSYS, left without sigreturn; nobody else involved
 *   sigsys-futex, sigsys-spin   that, and the other process as above
 *   notify              seccomp user notification, with SYNC_WAKE_UP where the host has it; one CPU
 */
#include "measure.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTIF_SET_FLAGS SECCOMP_IOW(4, uint64_t) /* Linux 6.6 */
#define NOTIF_SYNC_WAKE_UP 1UL
#define FRAME_XFEATURES 472 /* in the frame's software-reserved words: which state follows */
#define RESULT 42

enum { OURS, THEIRS };

/* Shared by both sides. `turn` in a cache line of its own. */
typedef struct {
  _Alignas(64) _Atomic(unsigned) turn;
  _Alignas(64) uint64_t regs[NGREG];
  _Alignas(64) _Atomic(int) listener;
} Shared;
static Shared *shared;
static int cpus[2]; /* two usable CPUs; the second -1 if there is one only */

static void check(const char *what, long result) {
  if (result < 0) {
    perror(what);
    exit(1);
  }
}

static void pin(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof one, &one);
}

/* ---- Handing over ---- */

static void wake(void) { syscall(SYS_futex, &shared->turn, FUTEX_WAKE, 1, NULL, NULL, 0); }
static void wait_while(unsigned turn) {
  while (atomic_load(&shared->turn) == turn)
    syscall(SYS_futex, &shared->turn, FUTEX_WAIT, turn, NULL, NULL, 0);
}
static void spin_while(unsigned turn) {
  while (atomic_load(&shared->turn) == turn)
    __builtin_ia32_pause();
}

static void over_by_futex(void) {
  atomic_store(&shared->turn, THEIRS);
  wake();
  wait_while(THEIRS);
}
static void over_by_spinning(void) {
  atomic_store(&shared->turn, THEIRS);
  spin_while(THEIRS);
}

/* The other side: takes the registers, answers. */
static void serve(int spin) {
  uint64_t mine[NGREG];
  for (;;) {
    if (spin)
      spin_while(OURS);
    else
      wait_while(OURS);
    memcpy(mine, shared->regs, sizeof mine);
    mine[REG_RAX] = RESULT;
    shared->regs[REG_RAX] = mine[REG_RAX];
    atomic_store(&shared->turn, OURS);
    if (!spin)
      wake();
  }
}

static pid_t partner(int spin) {
  atomic_store(&shared->turn, OURS);
  pid_t pid = fork();
  check("fork", pid);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(cpus[spin]);
    serve(spin);
  }
  return pid;
}

static void end(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

/* ---- Rewritten calls ---- */

/* What a trampoline does: every register but rsp to the page and back, then the answer. */
/* clang-format off */
#define EACH_REGISTER(X) \
  X(rbx, 0) X(rcx, 8) X(rdx, 16) X(rsi, 24) X(rdi, 32) X(rbp, 40) X(r8, 48) \
  X(r9, 56) X(r10, 64) X(r11, 72) X(r12, 80) X(r13, 88) X(r14, 96) X(r15, 104)
/* clang-format on */
#define SAVE(reg, at) "mov %%" #reg ", " #at "(%%rax)\n\t"
#define LOAD(reg, at) "mov " #at "(%%rax), %%" #reg "\n\t"

static inline void save_registers(void) {
  __asm__ volatile(EACH_REGISTER(SAVE) : : "a"(shared->regs) : "memory");
}
static inline void load_registers(void) {
  __asm__ volatile(EACH_REGISTER(SAVE) EACH_REGISTER(LOAD) : : "a"(shared->regs) : "memory");
}

static volatile uint64_t sink;
static void do_answered(void) {
  load_registers();
  sink = shared->regs[REG_RAX];
}
static void do_direct_futex(void) {
  save_registers();
  over_by_futex();
}
static void do_direct_spin(void) {
  save_registers();
  over_by_spinning();
}

/* ---- SIGSYS ---- */

uint64_t bare_stack;
long bare_trapped(void);
__asm__(".text\n"
        "bare_trapped:\n\t"
        "push %rbx\n\tpush %rbp\n\tpush %r12\n\tpush %r13\n\tpush %r14\n\tpush %r15\n\t"
        "mov %rsp, bare_stack(%rip)\n\t"
        "mov $110, %eax\n\t"
        "syscall\n"
        "bare_resume:\n\t"
        "pop %r15\n\tpop %r14\n\tpop %r13\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\t"
        "ret\n");

static void (*hand_over)(void); /* NULL: nobody else involved */
static void on_sigsys(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)info;
  ucontext_t *uc = context;
  memcpy(shared->regs, uc->uc_mcontext.gregs, sizeof shared->regs);
  if (hand_over)
    hand_over();
  /* Back with the extended state that the frame holds, without the kernel. */
  uint64_t features;
  memcpy(&features, (char *)uc->uc_mcontext.fpregs + FRAME_XFEATURES, sizeof features);
  __asm__ volatile("xrstor64 (%0)\n\t"
                   "mov %1, %%eax\n\t"
                   "mov bare_stack(%%rip), %%rsp\n\t"
                   "jmp bare_resume"
                   :
                   : "r"(uc->uc_mcontext.fpregs), "i"(RESULT), "a"((uint32_t)features),
                     "d"((uint32_t)(features >> 32))
                   : "memory");
  __builtin_unreachable();
}

static int filter(unsigned action, unsigned flags) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog prog = {sizeof code / sizeof *code, code};
  check("NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

static void do_sigsys(void) {
  if (bare_trapped() != RESULT)
    _exit(1);
}

/* Filters are for life: in a child. */
static void row_sigsys(const char *name, void (*over)(void), int spin) {
  fflush(stdout);
  pid_t other = over ? partner(spin) : 0, pid = fork();
  if (pid == 0) {
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_NODEFER};
    hand_over = over;
    sigaction(SIGSYS, &action, NULL);
    check("seccomp", filter(SECCOMP_RET_TRAP, SECCOMP_FILTER_FLAG_SPEC_ALLOW));
    measure(name, do_sigsys);
    _exit(0);
  }
  waitpid(pid, NULL, 0);
  if (other)
    end(other);
}

/* ---- User notification ---- */

static int listener;
static void do_notify(void) {
  struct seccomp_notif ask;
  memset(&ask, 0, sizeof ask);
  check("NOTIF_RECV", ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &ask));
  struct seccomp_notif_resp answer = {.id = ask.id, .val = RESULT};
  check("NOTIF_SEND", ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer));
}

/* The caller and this process share their descriptors, which is how the listener gets here. */
static void row_notify(const char *name) {
  atomic_store(&shared->listener, -1);
  pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
  check("clone", pid);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd =
        filter(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    atomic_store(&shared->listener, fd < 0 ? -2 : fd);
    while (fd >= 0)
      syscall(SYS_getppid);
    _exit(0);
  }
  while ((listener = atomic_load(&shared->listener)) == -1)
    sched_yield();
  if (listener >= 0) {
    ioctl(listener, NOTIF_SET_FLAGS, NOTIF_SYNC_WAKE_UP);
    measure(name, do_notify);
    close(listener);
  }
  end(pid);
}

int main(void) {
  cpu_set_t everywhere;
  cpus[0] = cpus[1] = -1;
  sched_getaffinity(0, sizeof everywhere, &everywhere);
  for (int cpu = CPU_SETSIZE - 1, n = 0; cpu >= 0 && n < 2; cpu--)
    if (CPU_ISSET(cpu, &everywhere))
      cpus[n++] = cpu;
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED || cpus[0] < 0)
    return 1;
  pin(cpus[0]);
  measure("answered", do_answered);
  pid_t other = partner(0);
  measure("direct-futex", do_direct_futex);
  end(other);
  row_sigsys("sigsys-xrstor", NULL, 0);
  row_sigsys("sigsys-futex", over_by_futex, 0);
  row_notify("notify");
  if (cpus[1] < 0)
    return 0;
  other = partner(1);
  measure("direct-spin", do_direct_spin);
  end(other);
  row_sigsys("sigsys-spin", over_by_spinning, 1);
  return 0;
}
