/* SPDX-License-Identifier: Apache-2.0 */
/* rewrite-sites.c - hot call sites of each shape that compilers and libraries emit: what signals see of them, who comes in
 * in the middle, what they keep. Calls that have to be made (getppid) and calls whose answer is known (getpid). */
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <ucontext.h>

#define HOT 3000
#define DF 0x400
#define AC 0x40000

/* long NAME(long nr, long a, long b): NAME_call is the call, NAME_after what follows it. */
#define SHAPE(name, before, after)                                                                      \
  extern const uint8_t name[], name##_call[], name##_after[], name##_end[];                             \
  __asm__(".pushsection .text\n .balign 64\n .globl " #name ", " #name "_call, " #name "_after, " #name \
          "_end\n" #name ":\n  nop\n" before #name "_call:\n  syscall\n" #name "_after:\n" after        \
          "  ret\n" #name "_end:\n .balign 64\n .popsection\n")
#define ARGS_READ "  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov $1, %edx\n"
/* As glibc's syscall(): -1 in rdx for an error, so that the flags of the comparison count. */
#define CMP "  cmp $-4095, %rax\n  sbb %rdx, %rdx\n"

SHAPE(mov_ppid, "  mov $110, %eax\n", "");
SHAPE(movq_ppid, "  .byte 0x48, 0xc7, 0xc0\n  .long 110\n", "");
SHAPE(cmp_ppid, "  mov %rdi, %rax\n", CMP);
SHAPE(bare_ppid, "  mov %rdi, %rax\n", "");
SHAPE(r8_ppid, "  mov %rdi, %rax\n  mov $110, %r8d\n", ""); /* ends as `mov $110, %eax` does */
SHAPE(cmp_read, "  mov %rdi, %rax\n" ARGS_READ, CMP);
SHAPE(movq_read, ARGS_READ "  .byte 0x48, 0xc7, 0xc0\n  .long 0\n", "");
SHAPE(cmp_signal, "  mov %rdi, %rax\n", CMP);
SHAPE(movq_signal, "  .byte 0x48, 0xc7, 0xc0\n  .long 110\n", "");
SHAPE(mov_pid, "  mov $39, %eax\n", "");
SHAPE(movq_uid, "  .byte 0x48, 0xc7, 0xc0\n  .long 102\n", "");
SHAPE(cmp_tid, "  mov %rdi, %rax\n", CMP);
SHAPE(cmp_fork, "  mov %rdi, %rax\n", CMP);

typedef long SiteFn(long, long, long);
static long call3(const uint8_t *f, long nr, long a, long b) { return ((SiteFn *)(uintptr_t)f)(nr, a, b); }
static long call(const uint8_t *f, long nr) { return call3(f, nr, 0, 0); }

typedef struct {
  const char *name;
  const uint8_t *start, *call, *after, *end;
} Shape;
#define ROW(n) \
  { #n, n, n##_call, n##_after, n##_end }
static const Shape shapes[] = {ROW(mov_ppid), ROW(movq_ppid), ROW(cmp_ppid), ROW(bare_ppid), ROW(r8_ppid)};
#define NSHAPES (sizeof shapes / sizeof *shapes)

TEST(shapes) {
  for (unsigned k = 0; k < NSHAPES; k++)
    for (int i = 0; i < HOT; i++)
      if (!CHECK_EQ(call(shapes[k].start, SYS_getppid), getppid()))
        break;
  CHECK_EQ(call(cmp_ppid, SYS_getpgrp), getpgrp());
  CHECK_EQ(call(bare_ppid, SYS_getpgrp), getpgrp());
  CHECK_EQ(call(r8_ppid, SYS_getpgrp), getpgrp());
}

/* The comparison behind the call is made, whatever the result. */
TEST(result_compared) {
  long r, below;
  int fd = tmp_file("data", "");
  char c;
  for (int i = 0; i < HOT; i++) {
    long nr = SYS_read, from = i % 2 ? fd : -1;
    below = (long)&c;
    __asm__ volatile("call *%[f]"
                     : "=a"(r), "+D"(nr), "+S"(from), "+d"(below)
                     : [f] "r"(cmp_read)
                     : "rcx", "r11", "memory", "cc");
    if (r != (i % 2 ? 0 : -EBADF) || below != (i % 2 ? -1 : 0))
      check_fail(__FILE__, __LINE__, "call %d: %ld %ld", i, r, below), check_abort();
  }
}

/* Jumps to the call, and behind it, of hot sites. */
static long jump(const uint8_t *to, long rax) {
  __asm__ volatile("call *%[to]" : "+a"(rax) : [to] "r"(to) : "rcx", "rdx", "r11", "memory", "cc");
  return rax;
}

TEST(jumps_into_sites) {
  for (unsigned k = 0; k < NSHAPES; k++) {
    const Shape *s = &shapes[k];
    for (int i = 0; i < HOT; i++)
      call(s->start, SYS_getppid);
    for (int i = 0; i < 200; i++) {
      if (!CHECK_EQ(jump(s->call, SYS_getpgrp), getpgrp()) || !CHECK_EQ(jump(s->after, 1234), 1234) ||
          !CHECK_EQ(call(s->start, SYS_getppid), getppid()))
        break;
    }
  }
}

/* ---- Registers, flags, stack ---- */

typedef struct {
  uint64_t flags_in, flags_out, regs[13], xmm[4], zone[16];
} State;
/* Calls f with flags and known registers, a red zone full of data, and says what became of them. */
void keep(State *, const uint8_t *f, long nr);
__asm__(
    ".pushsection .text\n"
    "keep:\n"
    "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rdi, %rbx\n  mov %rsi, %rbp\n  mov %rdx, %r12\n"
    "  movdqu 120(%rbx), %xmm3\n  movdqu 136(%rbx), %xmm14\n"
    "  mov $0x13, %r13d\n  mov $0x14, %r14d\n  mov $0x15, %r15d\n"
    "  mov $0x8, %r8d\n  mov $0x9, %r9d\n  mov $0x10, %r10d\n  mov $0x51, %esi\n  mov $0xd1, %edx\n"
    /* The return address of f would be in the red zone: f is jumped to, with it below. */
    "  lea 1f(%rip), %rax\n  push %rax\n"
    "  mov $-136, %rax\n"
    "2:  mov %rax, (%rsp,%rax)\n  add $8, %rax\n  jne 2b\n"
    "  mov %r12, %rdi\n"
    "  pushq (%rbx)\n  popfq\n"
    "  mov %rax, -8(%rsp)\n" /* the flags were there */
    "  jmp *%rbp\n"
    "1:  pushfq\n  popq 8(%rbx)\n  cld\n"
    "  mov %rax, 16(%rbx)\n  mov %rsi, 24(%rbx)\n  mov %r8, 32(%rbx)\n  mov %r9, 40(%rbx)\n"
    "  mov %r10, 48(%rbx)\n  mov %r13, 56(%rbx)\n  mov %r14, 64(%rbx)\n  mov %r15, 72(%rbx)\n"
    "  mov %rdi, 80(%rbx)\n  mov %rbp, 88(%rbx)\n"
    "  movdqu %xmm3, 120(%rbx)\n  movdqu %xmm14, 136(%rbx)\n"
    "  xor %ecx, %ecx\n"
    "3:  mov -144(%rsp,%rcx,8), %rax\n  mov %rax, 152(%rbx,%rcx,8)\n  inc %ecx\n  cmp $15, %ecx\n  jne 3b\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n  ret\n"
    ".popsection\n");

static void check_kept(const uint8_t *f, long nr, long want, bool compares) {
  static const uint64_t flags[] = {0, 1, 0x8d5, 0x800, DF, 0xcd5, AC | 0x44, 0x10};
  for (int i = 0; i < HOT; i++) {
    State s = {.flags_in = flags[i % 8]};
    uint64_t mask = compares ? DF | AC : DF | AC | 0x8d5;
    pattern_fill(s.xmm, sizeof s.xmm, (uint64_t)i);
    State before = s;
    keep(&s, f, nr);
    bool ok = s.regs[0] == (uint64_t)want && s.regs[1] == 0x51 && s.regs[2] == 8 && s.regs[3] == 9 &&
              s.regs[4] == 0x10 && s.regs[5] == 0x13 && s.regs[6] == 0x14 && s.regs[7] == 0x15 &&
              s.regs[8] == (uint64_t)nr && s.regs[9] == (uintptr_t)f &&
              ((s.flags_in ^ s.flags_out) & mask) == 0 && memcmp(s.xmm, before.xmm, sizeof s.xmm) == 0;
    for (int k = 2; k < 15; k++) /* the red zone before and after the return */
      ok &= s.zone[k] == (uint64_t)(-136 + 8 * k);
    if (!ok) {
      check_fail(__FILE__, __LINE__, "call %d: flags %lx, then %lx; rax %ld", i, (long)s.flags_in,
                 (long)s.flags_out, (long)s.regs[0]);
      check_abort();
    }
  }
}

TEST(everything_kept) {
  for (unsigned k = 0; k < 4; k++)
    check_kept(shapes[k].start, SYS_getppid, getppid(), shapes[k].start == cmp_ppid);
  check_kept(mov_pid, 0, getpid(), false);
  check_kept(movq_uid, 0, getuid(), false);
  check_kept(cmp_tid, SYS_gettid, gettid(), true);
}

static void nothing(int sig) {}

TEST(everything_kept_under_signals) {
  on_signal(SIGALRM, nothing, SA_RESTART);
  struct itimerval v = {{0, 200}, {0, 200}};
  SYS(setitimer(ITIMER_REAL, &v, NULL));
  for (unsigned k = 0; k < 4; k++)
    check_kept(shapes[k].start, SYS_getppid, getppid(), shapes[k].start == cmp_ppid);
  for (int i = 0; i < 20; i++) {
    check_kept(mov_pid, 0, getpid(), false);
    check_kept(cmp_tid, SYS_gettid, gettid(), true);
  }
}

/* The stack pointer stands at the very start of a page below which there is nothing. */
long on_edge(long rsp, const uint8_t *f, long nr);
__asm__(".pushsection .text\n"
        "on_edge:\n"
        "  push %rbx\n  mov %rsp, %rbx\n  mov %rdi, %rsp\n  mov %rdx, %rdi\n"
        "  lea 1f(%rip), %rax\n  mov %rax, (%rsp)\n  jmp *%rsi\n"
        "1:  mov %rbx, %rsp\n  pop %rbx\n  ret\n"
        ".popsection\n");

TEST(stack_at_the_edge_of_a_page) {
  uint8_t *p = map_anon(2 * PAGE, PROT_READ | PROT_WRITE);
  SYS(munmap(p, PAGE));
  for (unsigned k = 0; k < NSHAPES; k++)
    for (int i = 0; i < HOT; i++)
      if (on_edge((long)(p + PAGE), shapes[k].start, SYS_getppid) != getppid())
        check_abort();
  for (int i = 0; i < HOT; i++)
    if (on_edge((long)(p + PAGE), mov_pid, 0) != getpid())
      check_abort();
}

/* ---- What a signal handler sees ---- */

extern const char __executable_start[], etext[];
static const Shape *signal_shape;
static volatile sig_atomic_t seen, inside, wrong;
static uintptr_t vdso;

static void look(int sig, siginfo_t *si, void *context) {
  const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  uintptr_t ip = (uintptr_t)r[REG_RIP];
  const Shape *s = signal_shape;
  bool ok = (ip >= (uintptr_t)__executable_start && ip < (uintptr_t)etext) || ip - vdso < 8 * PAGE;
  seen++;
  if (!s)
    return;
  if (ip >= (uintptr_t)s->start && ip < (uintptr_t)s->end) {
    inside++;
    if (ip > (uintptr_t)s->call && ip < (uintptr_t)s->after)
      ok = false;
    if (ip == (uintptr_t)s->call)
      ok &= r[REG_RAX] == SYS_getppid;
    if (ip >= (uintptr_t)s->after)
      ok &= r[REG_RAX] == getppid();
    ok &= r[REG_RDI] == SYS_getppid;
  }
  wrong += !ok;
}

static volatile int stop;
static pthread_t target;
static void *pester(void *arg) {
  while (!stop) {
    pthread_kill(target, SIGUSR1);
    sleep_ms(0);
    for (volatile int i = 0; i < 3000; i++)
      ;
  }
  return arg;
}

static void watch(const Shape *s) {
  pthread_t t;
  long ppid = getppid();
  stop = 0;
  target = pthread_self();
  signal_shape = s;
  CHECK_EQ(pthread_create(&t, NULL, pester, NULL), 0);
  int64_t end = now_ns() + 600000000;
  while (now_ns() < end && !wrong)
    for (int i = 0; i < 100; i++)
      if (call(s->start, SYS_getppid) != ppid)
        check_abort();
  stop = 1;
  pthread_join(t, NULL);
  signal_shape = NULL;
  if (wrong)
    check_fail(__FILE__, __LINE__, "%s: %d of %d contexts are wrong", s->name, wrong, seen);
}

TEST_LIMIT(context_of_signals, 30) {
  struct sigaction a = {.sa_sigaction = look, .sa_flags = SA_SIGINFO | SA_RESTART};
  vdso = getauxval(AT_SYSINFO_EHDR);
  SYS(sigaction(SIGUSR1, &a, NULL));
  for (unsigned k = 0; k < NSHAPES; k++)
    watch(&shapes[k]);
  CHECK(seen > 100);
  CHECK(inside > 0);
}

/* A call that is interrupted before it has done anything is made again, from a site of each shape. */
static volatile sig_atomic_t ticks;
static void tick(int sig) {
  ticks++;
  if (call(cmp_signal, SYS_getppid) != getppid() || call(movq_signal, 0) != getppid())
    _exit(9);
}

static void *write_slowly(void *arg) {
  for (int i = 0; i < 60; i++) {
    sleep_ms(3);
    write_full(*(int *)arg, "x", 1);
  }
  return NULL;
}

static void restart(const uint8_t *f) {
  int p[2], fd = tmp_file("empty", "");
  char c;
  pthread_t t;
  for (int i = 0; i < HOT; i++)
    call3(f, SYS_read, fd, (long)&c);
  SYS(pipe(p));
  sigset_t alarm_only = sigset_of(SIGALRM, 0);
  pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
  CHECK_EQ(pthread_create(&t, NULL, write_slowly, &p[1]), 0);
  pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
  on_signal(SIGALRM, tick, SA_RESTART);
  struct itimerval v = {{0, 500}, {0, 500}}, off = {0};
  SYS(setitimer(ITIMER_REAL, &v, NULL));
  for (int i = 0; i < 60; i++) {
    c = 0;
    if (!CHECK_EQ(call3(f, SYS_read, p[0], (long)&c), 1) || !CHECK_EQ(c, 'x'))
      break;
  }
  on_signal(SIGALRM, tick, 0);
  CHECK_EQ(call3(f, SYS_read, p[0], (long)&c), -EINTR);
  SYS(setitimer(ITIMER_REAL, &off, NULL));
  pthread_join(t, NULL);
  CHECK(ticks > 10);
}

TEST(restarted_compared) { restart(cmp_read); }
TEST(restarted_long_mov) { restart(movq_read); }

/* A handler that goes on elsewhere, behind the call. */
static void skip_call(int sig, siginfo_t *si, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  ticks++;
  if (r[REG_RIP] == (greg_t)(uintptr_t)cmp_ppid_call || r[REG_RIP] == (greg_t)(uintptr_t)cmp_ppid_after) {
    r[REG_RIP] = (greg_t)(uintptr_t)cmp_ppid_after;
    r[REG_RAX] = 77;
  }
}

TEST(handler_changes_ip) {
  struct sigaction a = {.sa_sigaction = skip_call, .sa_flags = SA_SIGINFO | SA_RESTART};
  SYS(sigaction(SIGALRM, &a, NULL));
  struct itimerval v = {{0, 200}, {0, 200}};
  SYS(setitimer(ITIMER_REAL, &v, NULL));
  int64_t end = now_ns() + 400000000;
  while (now_ns() < end)
    for (int i = 0; i < 100; i++) {
      long r = call(cmp_ppid, SYS_getppid);
      if (r != 77 && r != getppid())
        check_fail(__FILE__, __LINE__, "returned %ld", r), check_abort();
    }
  CHECK(ticks > 10);
}

/* ---- Threads and processes ---- */

static void *hammer(void *arg) {
  long ppid = getppid(), tid = gettid(), pid = getpid();
  for (int i = 0; i < 4 * HOT; i++) {
    const uint8_t *f = shapes[i % NSHAPES].start;
    if (call(f, SYS_getppid) != ppid || call(cmp_tid, SYS_gettid) != tid || call(mov_pid, 0) != pid)
      return arg;
  }
  return NULL;
}

TEST_LIMIT(threads_and_signals, 30) {
  pthread_t t[6];
  void *bad;
  on_signal(SIGALRM, tick, SA_RESTART);
  struct itimerval v = {{0, 1000}, {0, 1000}};
  SYS(setitimer(ITIMER_REAL, &v, NULL));
  for (int i = 0; i < 6; i++)
    CHECK_EQ(pthread_create(&t[i], NULL, hammer, t), 0);
  for (int i = 0; i < 6; i++) {
    pthread_join(t[i], &bad);
    CHECK(bad == NULL);
  }
}

/* Sites become hot in parent and child after the fork: neither disturbs the other. */
TEST(both_sides_of_a_fork) {
  for (int i = 0; i < HOT; i++)
    call(cmp_ppid, SYS_getppid);
  pid_t child = CHILD({
    for (int i = 0; i < HOT; i++) {
      if (call(cmp_ppid, SYS_getppid) != getppid() || call(movq_ppid, 0) != getppid() ||
          call(mov_pid, 0) != getpid())
        check_abort();
    }
  });
  for (int i = 0; i < HOT; i++)
    if (call(mov_ppid, 0) != getppid() || call(cmp_signal, SYS_getppid) != getppid())
      check_abort();
  WAIT_OK(child);
  for (int i = 0; i < 200; i++) {
    long pid = call(cmp_fork, SYS_fork);
    REQUIRE(pid >= 0);
    if (pid == 0)
      _exit(call(mov_pid, 0) == syscall(SYS_getpid) && call(cmp_tid, SYS_gettid) == getpid() ? 3 : 4);
    if (!CHECK_EQ(check_wait((pid_t)pid), 3 << 8))
      break;
  }
}

/* ---- Answers that change ---- */

static void ids_are(uid_t uid, pid_t pid) {
  for (int i = 0; i < HOT; i++)
    if (call(movq_uid, 0) != uid || call(mov_pid, 0) != pid || call(cmp_tid, SYS_gettid) != pid)
      check_fail(__FILE__, __LINE__, "ids %ld %ld %ld in call %d", call(movq_uid, 0), call(mov_pid, 0),
                 call(cmp_tid, SYS_gettid), i),
          check_abort();
}

TEST(answers_after_setuid_and_fork) {
  ids_are(getuid(), getpid());
  uid_t me = getuid();
  WAIT_OK(CHILD({
    ids_are(me, (pid_t)syscall(SYS_getpid));
    if (me == 0) {
      SYS(syscall(SYS_setresuid, 1234, 1234, 0));
      ids_are(1234, getpid());
      SYS(syscall(SYS_setresuid, 0, 0, 0));
      ids_are(0, getpid());
      SYS(syscall(SYS_setuid, 4321));
      ids_are(4321, getpid());
    }
  }));
  ids_are(me, getpid());
}

static int in_clone(void *arg) {
  return call(mov_pid, 0) == syscall(SYS_getpid) && call(mov_pid, 0) != *(long *)arg ? 0 : 1;
}

TEST(answers_in_clones) {
  long pid = getpid();
  char *stack = map_anon(16 * PAGE, PROT_READ | PROT_WRITE);
  ids_are(getuid(), (pid_t)pid);
  for (int i = 0; i < 50; i++) {
    int child = (int)SYS(clone(in_clone, stack + 16 * PAGE, CLONE_VM | CLONE_VFORK | SIGCHLD, &pid));
    CHECK_EQ(check_wait(child), 0);
    ids_are(getuid(), (pid_t)pid);
  }
}

static void *exec_self(void *arg) {
  char pid[16];
  snprintf(pid, sizeof pid, "%d", getpid());
  execl("/proc/self/exe", "rewrite", "--helper", "after_exec", pid, NULL);
  return arg;
}

HELPER(after_exec) {
  ids_are(getuid(), atoi(argv[0]));
  return gettid() == atoi(argv[0]) ? 0 : 1;
}

TEST(answers_after_exec_from_a_thread) {
  WAIT_OK(CHILD({
    pthread_t t;
    ids_are(getuid(), getpid());
    pthread_create(&t, NULL, exec_self, NULL);
    pthread_join(t, NULL);
    check_abort();
  }));
}
