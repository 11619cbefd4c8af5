/* SPDX-License-Identifier: Apache-2.0 */
/* seccomp(2): what filters see and what their verdicts do: actions, precedence, inheritance. */
#include "seccomp.h"
#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

#define ALLOW RET(SECCOMP_RET_ALLOW)

/* ---- ERRNO ---- */

TEST(errno_action) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  CHECK_ERRNO(syscall(SYS_mkdir, "/nonexistent/x", 0), EDOM);
  CHECK_ERRNO(syscall(SYS_rmdir, "/nonexistent/x"), ENOENT);
}

TEST(errno_zero_is_success) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO), ALLOW));
  CHECK_EQ(syscall(SYS_mkdir, "/nonexistent/x", 0), 0);
}

/* Numbers that mean something inside a kernel are results like others. */
TEST(errno_values) {
  no_new_privs();
  SYS(INSTALL(LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdir, 1, 0), ALLOW, LOAD(args[1]),
              BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), BPF_STMT(BPF_RET | BPF_A, 0)));
  const struct {
    unsigned value, want;
  } v[] = {{1, 1},     {511, 511},   {512, 512},   {513, 513},   {514, 514},
           {516, 516}, {4094, 4094}, {4095, 4095}, {4096, 4095}, {0xffff, 4095}};
  for (unsigned i = 0; i < COUNT(v); i++) {
    errno = 0;
    CHECK_EQ(syscall(SYS_mkdir, "", v[i].value), -1);
    CHECK_EQ(errno, v[i].want);
  }
}

/* Calls that a platform may answer by itself, often enough that it would. */
TEST(constant_calls_are_seen) {
  const int nr[] = {SYS_getpid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid};
  for (unsigned i = 0; i < COUNT(nr); i++)
    for (unsigned k = 0; k < 300; k++)
      syscall(nr[i]);
  no_new_privs();
  SYS(INSTALL(LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 5, 0),
              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_gettid, 4, 0),
              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getuid, 3, 0),
              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_geteuid, 2, 0),
              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getgid, 1, 0),
              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getegid, 0, 1), RET(SECCOMP_RET_ERRNO | EXDEV), ALLOW));
  for (unsigned i = 0; i < COUNT(nr); i++)
    for (unsigned k = 0; k < 300; k++)
      if (!CHECK_ERRNO(syscall(nr[i]), EXDEV))
        return;
  pid_t pid = (pid_t)syscall(SYS_fork);
  if (pid == 0)
    _exit(syscall(SYS_getpid) == -1 && errno == EXDEV ? 0 : 1);
  WAIT_OK(pid);
}

/* ---- What a filter sees ---- */

/* ERRNO with the low bits of what `load` loads, for mkdir. */
#define SHOW(...)                                                                                            \
  INSTALL(LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdir, 1, 0), ALLOW, __VA_ARGS__,                \
          BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfff), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), \
          BPF_STMT(BPF_RET | BPF_A, 0))

static int shown(long a, long b, long c, long d, long e, long f) {
  errno = 0;
  long r = syscall(SYS_mkdir, a, b, c, d, e, f);
  return r == -1 ? errno : (int)-r;
}

#define SHOWN(want_, ...)                                                                                \
  WAIT_OK(CHILD({                                                                                        \
    SYS(SHOW(__VA_ARGS__));                                                                              \
    CHECK_EQ(                                                                                            \
        shown(0x12300000101, 0x22300000202, 0x32300000303, 0x42300000404, 0x52300000505, 0x62300000606), \
        want_);                                                                                          \
  }))

TEST(data) {
  no_new_privs();
  SHOWN(SYS_mkdir, LOAD(nr));
  SHOWN(AUDIT_ARCH_X86_64 & 0xfff, LOAD(arch));
  SHOWN(0x101, LOAD(args[0]));
  SHOWN(0x123, LOAD_HIGH(args[0]));
  SHOWN(0x202, LOAD(args[1]));
  SHOWN(0x223, LOAD_HIGH(args[1]));
  SHOWN(0x303, LOAD(args[2]));
  SHOWN(0x404, LOAD(args[3]));
  SHOWN(0x505, LOAD(args[4]));
  SHOWN(0x606, LOAD(args[5]));
  SHOWN(0x623, LOAD_HIGH(args[5]));
  SHOWN(64, BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0));
}

#define IMM(v_) BPF_STMT(BPF_LD | BPF_IMM, v_)
#define ALU(op_, v_) BPF_STMT(BPF_ALU | (op_) | BPF_K, v_)
#define X_IS(v_) BPF_STMT(BPF_LDX | BPF_IMM, v_)
#define ALU_X(op_) BPF_STMT(BPF_ALU | (op_) | BPF_X, 0)

TEST(arithmetic) {
  no_new_privs();
  SHOWN(12, IMM(7), ALU(BPF_ADD, 5));
  SHOWN(0xffe, IMM(5), ALU(BPF_SUB, 7));
  SHOWN(35, IMM(7), ALU(BPF_MUL, 5));
  SHOWN(3, IMM(17), ALU(BPF_DIV, 5));
  SHOWN(0x7ff, IMM(0xfffffff0U), ALU(BPF_DIV, 0x20), BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16));
  SHOWN(0x20, IMM(0x2f), ALU(BPF_AND, 0xf0));
  SHOWN(0xff, IMM(0xf), ALU(BPF_OR, 0xf0));
  SHOWN(0xf0, IMM(0xff), ALU(BPF_XOR, 0xf));
  SHOWN(0x100, IMM(1), ALU(BPF_LSH, 8));
  SHOWN(0x800, IMM(0x80000000U), ALU(BPF_RSH, 20));
  SHOWN(0xfff, IMM(1), BPF_STMT(BPF_ALU | BPF_NEG, 0));
  SHOWN(42, X_IS(6), IMM(7), ALU_X(BPF_MUL));
  SHOWN(7, X_IS(6), IMM(47), ALU_X(BPF_DIV));
  SHOWN(4, X_IS(34), IMM(1), ALU_X(BPF_LSH));
  SHOWN(9, IMM(9), BPF_STMT(BPF_MISC | BPF_TAX, 0), IMM(1), BPF_STMT(BPF_MISC | BPF_TXA, 0));
  SHOWN(11, IMM(11), BPF_STMT(BPF_ST, 3), IMM(1), BPF_STMT(BPF_LD | BPF_MEM, 3));
  SHOWN(13, X_IS(13), BPF_STMT(BPF_STX, 0), X_IS(1), BPF_STMT(BPF_LDX | BPF_MEM, 0),
        BPF_STMT(BPF_MISC | BPF_TXA, 0));
}

#define BRANCH(op_, a_, k_, want_)                                                    \
  SHOWN(want_, IMM(a_), BPF_JUMP(BPF_JMP | (op_) | BPF_K, k_, 0, 2), IMM(1),          \
        BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), IMM(2));                                 \
  SHOWN(want_, X_IS(k_), IMM(a_), BPF_JUMP(BPF_JMP | (op_) | BPF_X, 0, 0, 2), IMM(1), \
        BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), IMM(2))

TEST(branches) {
  no_new_privs();
  BRANCH(BPF_JEQ, 5, 5, 1);
  BRANCH(BPF_JEQ, 5, 6, 2);
  BRANCH(BPF_JGT, 0x80000000U, 1, 1);
  BRANCH(BPF_JGT, 5, 5, 2);
  BRANCH(BPF_JGE, 5, 5, 1);
  BRANCH(BPF_JGE, 4, 0xffffffffU, 2);
  BRANCH(BPF_JSET, 6, 2, 1);
  BRANCH(BPF_JSET, 6, 9, 2);
}

/* A division by zero ends the program with 0: the thread is killed. */
TEST(division_by_zero) {
  pid_t pid = CHILD({
    no_new_privs();
    SYS(INSTALL(LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdir, 1, 0), ALLOW, X_IS(0), IMM(1),
                ALU_X(BPF_DIV), ALLOW));
    syscall(SYS_mkdir, "/nonexistent/x", 0);
  });
  int s = check_wait(pid);
  CHECK(WIFSIGNALED(s) && WTERMSIG(s) == SIGSYS);
}

/* ---- TRAP ---- */

static volatile int traps;
static siginfo_t trapped;
static long trapped_rax, trapped_rip;

static void on_trap(int sig, siginfo_t *si, void *uc) {
  greg_t *r = ((ucontext_t *)uc)->uc_mcontext.gregs;
  traps++;
  trapped = *si;
  trapped_rax = r[REG_RAX];
  trapped_rip = r[REG_RIP];
  r[REG_RAX] = 1234;
}

extern char after_call[];
static __attribute__((noinline, noclone)) long call_here(long nr, long a) {
  long r;
  __asm__ volatile("syscall\n.globl after_call\nafter_call:"
                   : "=a"(r)
                   : "a"(nr), "D"(a), "S"(0)
                   : "rcx", "r11", "memory");
  return r;
}

TEST(trap_action) {
  no_new_privs();
  on_siginfo(SIGSYS, on_trap, 0);
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_TRAP | 0x1234), ALLOW));
  CHECK_EQ(call_here(SYS_mkdir, 0), 1234);
  CHECK_EQ(traps, 1);
  CHECK_EQ(trapped.si_signo, SIGSYS);
  CHECK_EQ(trapped.si_code, 1 /* SYS_SECCOMP */);
  CHECK_EQ(trapped.si_errno, 0x1234);
  CHECK_EQ(trapped.si_syscall, SYS_mkdir);
  CHECK_EQ(trapped.si_arch, AUDIT_ARCH_X86_64);
  CHECK_EQ((long)trapped.si_call_addr, (long)after_call);
  CHECK_EQ(trapped_rax, SYS_mkdir);
  CHECK_EQ(trapped_rip, (long)after_call);
}

/* The same where the call has been made so often that its code may have been changed. */
TEST(trap_at_a_hot_place) {
  for (int i = 0; i < 5000; i++)
    call_here(SYS_getppid, 0);
  no_new_privs();
  on_siginfo(SIGSYS, on_trap, 0);
  SYS(INSTALL(ON_CALL(SYS_getppid, SECCOMP_RET_TRAP), ALLOW));
  for (int i = 1; i <= 300; i++) {
    bool ok = CHECK_EQ(call_here(SYS_getppid, 0), 1234) && CHECK_EQ(traps, i);
    ok = ok && CHECK_EQ((long)trapped.si_call_addr, (long)after_call) &&
         CHECK_EQ(trapped_rip, (long)after_call);
    if (!ok || !CHECK_EQ(trapped_rax, SYS_getppid))
      return;
  }
}

/* Only calls from one place are allowed. */
TEST(instruction_pointer) {
  pid_t parent = getppid();
  for (int i = 0; i < 5000; i++)
    call_here(SYS_getppid, 0);
  no_new_privs();
  long ip = (long)after_call;
  SYS(INSTALL(LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 1, 0), ALLOW,
              LOAD(instruction_pointer), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)ip, 0, 3),
              LOAD_HIGH(instruction_pointer), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(ip >> 32), 0, 1),
              ALLOW, RET(SECCOMP_RET_ERRNO | EXDEV)));
  for (int i = 0; i < 300; i++)
    if (!CHECK_EQ(call_here(SYS_getppid, 0), parent) || !CHECK_ERRNO(syscall(SYS_getppid), EXDEV))
      return;
}

TEST(trap_blocked_or_ignored_kills) {
  for (int how = 0; how < 3; how++) {
    int s = check_wait(CHILD({
      no_new_privs();
      if (how == 0) {
        on_siginfo(SIGSYS, on_trap, 0);
        block_signal(SIGSYS);
      } else if (how == 1) {
        signal(SIGSYS, SIG_IGN);
      }
      SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_TRAP), ALLOW));
      syscall(SYS_mkdir, "/nonexistent/x", 0);
    }));
    CHECK(WIFSIGNALED(s) && WTERMSIG(s) == SIGSYS);
  }
}

static void emulate(int sig, siginfo_t *si, void *uc) {
  greg_t *r = ((ucontext_t *)uc)->uc_mcontext.gregs;
  r[REG_RAX] = si->si_syscall == SYS_uname ? r[REG_RDI] * 2 : -ENOSYS;
}

TEST(trap_emulation) {
  no_new_privs();
  on_siginfo(SIGSYS, emulate, SA_NODEFER);
  SYS(INSTALL(ON_CALL(SYS_uname, SECCOMP_RET_TRAP), ALLOW));
  for (long i = 0; i < 200; i++)
    if (!CHECK_EQ(syscall(SYS_uname, i), 2 * i))
      return;
}

/* ---- KILL ---- */

static int dies_of(uint32_t verdict) {
  return check_wait(CHILD({
    no_new_privs();
    on_siginfo(SIGSYS, on_trap, 0);
    SYS(INSTALL(ON_CALL(SYS_mkdir, verdict), ALLOW));
    syscall(SYS_mkdir, "/nonexistent/x", 0);
    _exit(9);
  }));
}

TEST(kill_actions) {
  const uint32_t v[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_KILL_PROCESS | 5,
                        0x12340000, 0x80010000};
  for (unsigned i = 0; i < COUNT(v); i++) {
    int s = dies_of(v[i]);
    CHECK(WIFSIGNALED(s) && WTERMSIG(s) == SIGSYS);
  }
}

TEST(trace_without_tracer) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_TRACE | 3), ALLOW));
  CHECK_ERRNO(syscall(SYS_mkdir, "/nonexistent/x", 0), ENOSYS);
}

TEST(notif_without_listener) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_USER_NOTIF), ALLOW));
  CHECK_ERRNO(syscall(SYS_mkdir, "/nonexistent/x", 0), ENOSYS);
}

TEST(log_allows) {
  no_new_privs();
  SYS(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                    ON_CALL(SYS_mkdir, SECCOMP_RET_LOG), ALLOW));
  CHECK_ERRNO(syscall(SYS_mkdir, "/nonexistent/x", 0), ENOENT);
}

/* ---- Several filters ---- */

TEST(precedence) {
  const uint32_t order[] = {SECCOMP_RET_TRAP | 1, SECCOMP_RET_ERRNO | EXDEV, SECCOMP_RET_TRACE,
                            SECCOMP_RET_LOG};
  for (unsigned hi = 0; hi < COUNT(order); hi++)
    for (unsigned lo = hi; lo < COUNT(order); lo++)
      for (int swap = 0; swap < 2; swap++)
        WAIT_OK(CHILD({
          no_new_privs();
          on_siginfo(SIGSYS, on_trap, 0);
          SYS(INSTALL(ON_CALL(SYS_mkdir, order[swap ? lo : hi]), ALLOW));
          SYS(INSTALL(ON_CALL(SYS_mkdir, order[swap ? hi : lo]), ALLOW));
          errno = 0;
          long r = syscall(SYS_mkdir, "/nonexistent/x", 0);
          CHECK_EQ(r, hi == 0 ? 1234 : -1);
          CHECK_EQ(errno, hi == 0 ? 0 : hi == 1 ? EXDEV : hi == 2 ? ENOSYS : ENOENT);
        }));
}

/* Of equal actions the newest filter's value counts. */
TEST(newest_wins) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | 100), ALLOW));
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | 50), ALLOW));
  CHECK_ERRNO(syscall(SYS_mkdir, "", 0), 50);
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | 70), ALLOW));
  CHECK_ERRNO(syscall(SYS_mkdir, "", 0), 70);
}

TEST(filters_add_up) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  SYS(INSTALL(ON_CALL(SYS_rmdir, SECCOMP_RET_ERRNO | EXDEV), ALLOW));
  SYS(INSTALL(ALLOW));
  CHECK_ERRNO(syscall(SYS_mkdir, "", 0), EDOM);
  CHECK_ERRNO(syscall(SYS_rmdir, ""), EXDEV);
}

/* A filter may forbid seccomp itself. */
TEST(no_more_filters) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_seccomp, SECCOMP_RET_ERRNO | EPERM), ALLOW));
  CHECK_ERRNO(INSTALL(ALLOW), EPERM);
}

/* ---- Inheritance ---- */

HELPER(try_mkdir) {
  errno = 0;
  return syscall(SYS_mkdir, "/nonexistent/x", 0) == -1 ? errno : 0;
}

TEST(fork_and_exec_keep_filters) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  int s = check_wait(CHILD({
    CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
    CHECK_ERRNO(syscall(SYS_mkdir, "", 0), EDOM);
    execl("/proc/self/exe", "seccomp", "--helper", "try_mkdir", NULL);
    _exit(99);
  }));
  CHECK(WIFEXITED(s) && WEXITSTATUS(s) == EDOM);
}

TEST(child_filter_is_not_the_parents) {
  no_new_privs();
  WAIT_OK(CHILD({
    SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
    CHECK_ERRNO(syscall(SYS_mkdir, "", 0), EDOM);
  }));
  CHECK_ERRNO(syscall(SYS_mkdir, "", 0), ENOENT);
}

/* ---- Other ABIs ---- */

TEST(x32_numbers) {
  no_new_privs();
  SYS(INSTALL(LOAD(arch), IF_EQ(AUDIT_ARCH_X86_64), BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
              RET(SECCOMP_RET_KILL_PROCESS), LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
              RET(SECCOMP_RET_ERRNO | EXDEV), ALLOW));
  CHECK_ERRNO(syscall(0x40000000 | SYS_getpid), EXDEV);
  CHECK_ERRNO(syscall(0x40000000 | 511), EXDEV);
}

TEST(unknown_numbers) {
  no_new_privs();
  SYS(INSTALL(LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 1000, 0, 1), RET(SECCOMP_RET_ERRNO | EXDEV),
              ALLOW));
  CHECK_ERRNO(syscall(5000), EXDEV);
  CHECK_ERRNO(syscall(-1), EXDEV);
  CHECK_ERRNO(syscall(999), ENOSYS);
}

static long call_i386(long nr, long ebx, long ecx) {
  long r;
  __asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(ebx), "c"(ecx) : "memory", "r8", "r9", "r10", "r11");
  return (int)r;
}

#define I386_GETPID 20
TEST(i386_calls) {
  no_new_privs();
  SYS(INSTALL(LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 1, 0), ALLOW, LOAD(nr),
              IF_EQ(I386_GETPID), LOAD(args[1]), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO),
              BPF_STMT(BPF_RET | BPF_A, 0)));
  CHECK_EQ(call_i386(I386_GETPID, 5, 77), -77);
}

/* A call that a signal interrupted is judged again when it goes on. */
static void nothing(int sig) {}

TEST(restarted_calls) {
  no_new_privs();
  on_signal(SIGUSR1, nothing, SA_RESTART);
  int p[2];
  char c = 0;
  SYS(pipe(p));
  SYS(INSTALL(LOAD(nr), IF_EQ(SYS_mkdir), RET(SECCOMP_RET_ERRNO), ALLOW));
  pid_t self = getpid();
  pid_t pid = CHILD({
    sleep_ms(50);
    SYS(kill(self, SIGUSR1));
    sleep_ms(50);
    SYS(write(p[1], "x", 1));
  });
  CHECK_EQ(read(p[0], &c, 1), 1);
  CHECK_EQ(c, 'x');
  WAIT_OK(pid);
}
