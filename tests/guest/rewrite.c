/* SPDX-License-Identifier: Apache-2.0 */
/* rewrite.c - call sites that are executed so often that a platform may replace them: nothing that a program can do
 * with its code, registers, stack or signals may come out differently for it. Sites are written in assembly, so that where they are and
 * what surrounds them is known. */
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>

#define HOT 3000 /* executions after which a site counts as hot anywhere */

/* Position-independent functions: long f(a, b, c, d, e, f). NAME_call is the address of the instruction. */
#define SITE(name, before, nr)                                                                        \
  extern const uint8_t name[], name##_call[], name##_end[];                                           \
  __asm__(".pushsection .text\n .balign 64\n .globl " #name ", " #name "_call, " #name "_end\n" #name \
          ":\n" before "  mov $" #nr ", %eax\n" #name "_call:\n  syscall\n  ret\n" #name              \
          "_end:\n .balign 64\n .popsection\n")
#define FOURTH_ARG "  mov %rcx, %r10\n"
typedef long SiteFn(long, long, long, long, long, long);
#define CALL(name, ...) CALL_(name, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(name, a, b, c, d, e, f, ...) ((SiteFn *)(uintptr_t)(name))(a, b, c, d, e, f)

SITE(s_getpid, "", 39);
SITE(s_getppid, "", 110);
SITE(s_entered, "", 39);
SITE(s_changed, "", 39);
SITE(s_moved, "", 39);
SITE(s_read, "", 0);
SITE(s_pread, FOURTH_ARG, 17);
SITE(s_mmap, FOURTH_ARG, 9);
SITE(s_munmap, "", 11);
SITE(s_fork, "", 57);
SITE(s_gs, "", 39);
SITE(s_threads, "", 186);
SITE(s_prot, "", 39);
SITE(s_handler, "", 39);

static void heat(const uint8_t *site, long want) {
  for (int i = 0; i < HOT; i++)
    if (CALL(site) != want) {
      check_fail(__FILE__, __LINE__, "call %d of a site", i);
      return;
    }
}

TEST(hot) {
  heat(s_getpid, getpid());
  heat(s_getppid, getppid());
  heat(s_getpid, getpid());
}

/* Somebody jumps to the instruction itself, with another number. */
static long enter(const uint8_t *at, long nr) {
  long r;
  __asm__ volatile("call *%[at]" : "=a"(r) : [at] "r"(at), "a"(nr) : "rcx", "r11", "memory", "cc");
  return r;
}

TEST(entered_in_the_middle) {
  heat(s_entered, getpid());
  for (int i = 0; i < HOT; i++) {
    CHECK_EQ(enter(s_entered_call, SYS_getppid), getppid());
    CHECK_EQ(CALL(s_entered), getpid());
  }
}

/* Registers that a call keeps, flags, vector registers and the red zone. */
void kept(uint64_t *out, const uint64_t *vec);
__asm__(".pushsection .text\n"
        "kept:\n"
        "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rdi, %r15\n"
        "  movdqu (%rsi), %xmm0\n  movdqu 16(%rsi), %xmm7\n  movdqu 32(%rsi), %xmm15\n"
        "  mov $0x1111, %ebx\n  mov $0x2222, %ebp\n  mov $0x3333, %r12d\n  mov $0x4444, %r13d\n  mov "
        "$0x5555, %r14d\n"
        "  mov $0x6666, %edi\n  mov $0x7777, %esi\n  mov $0x8888, %edx\n  mov $0x9999, %r8d\n  mov $0xaaaa, "
        "%r9d\n"
        "  mov $0xbbbb, %r10d\n"
        "  movabs $0x1122334455667788, %rax\n"
        "  mov %rax, -8(%rsp)\n  mov %rax, -64(%rsp)\n  mov %rax, -120(%rsp)\n  mov %rax, -128(%rsp)\n"
        "  stc\n"
        "  mov $39, %eax\n"
        "  syscall\n"
        "  mov %rax, (%r15)\n"
        "  setc %al\n  movzbl %al, %eax\n  mov %rax, 8(%r15)\n"
        "  mov -8(%rsp), %rax\n  mov %rax, 16(%r15)\n  mov -64(%rsp), %rax\n  mov %rax, 24(%r15)\n"
        "  mov -120(%rsp), %rax\n  mov %rax, 32(%r15)\n  mov -128(%rsp), %rax\n  mov %rax, 40(%r15)\n"
        "  mov %rbx, 48(%r15)\n  mov %rbp, 56(%r15)\n  mov %r12, 64(%r15)\n  mov %r13, 72(%r15)\n  mov %r14, "
        "80(%r15)\n"
        "  mov %rdi, 88(%r15)\n  mov %rsi, 96(%r15)\n  mov %rdx, 104(%r15)\n  mov %r8, 112(%r15)\n  mov %r9, "
        "120(%r15)\n"
        "  mov %r10, 128(%r15)\n"
        "  movdqu %xmm0, 136(%r15)\n  movdqu %xmm7, 152(%r15)\n  movdqu %xmm15, 168(%r15)\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n  ret\n"
        ".popsection\n");

TEST(registers) {
  uint64_t out[23], vec[6];
  pattern_fill(vec, sizeof vec, 7);
  for (int i = 0; i < HOT * 2; i++) {
    kept(out, vec);
    bool ok = out[0] == (uint64_t)getpid() && out[1] == 1 && memcmp(&out[17], vec, sizeof vec) == 0;
    for (int k = 2; k < 6; k++)
      ok &= out[k] == 0x1122334455667788;
    for (int k = 6; k < 17; k++)
      ok &= out[k] == 0x1111ul * (unsigned)(k - 5);
    if (!ok) {
      check_fail(__FILE__, __LINE__, "something has changed in call %d", i);
      break;
    }
  }
}

/* A call needs no stack. */
long no_stack(long rsp);
__asm__(".pushsection .text\n"
        "no_stack:\n"
        "  mov %rsp, %r9\n  mov %rdi, %rsp\n"
        "  mov $39, %eax\n"
        "  syscall\n"
        "  mov %r9, %rsp\n  ret\n"
        ".popsection\n");

TEST(no_stack_at_all) {
  static const long stacks[] = {0, 1, 0x7ffffffff000, -1, 0x10};
  for (int i = 0; i < HOT; i++)
    if (no_stack(stacks[i % 5]) != getpid())
      check_abort();
}

TEST(arguments) {
  int fd = tmp_file("data", "0123456789");
  char buf[4];
  for (int i = 0; i < HOT; i++) {
    memset(buf, 0, 4);
    if (CALL(s_pread, fd, (long)buf, 3, i % 7) != 3 || buf[0] != '0' + i % 7)
      check_abort();
    long p = CALL(s_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p < 0 || *(char *)p != '0' || CALL(s_munmap, p, PAGE) != 0)
      check_abort();
    if (CALL(s_pread, -1, (long)buf, 3, 0) != -EBADF || CALL(s_pread, fd, 1, 3, 0) != -EFAULT)
      check_abort();
  }
}

/* ---- Signals ---- */

static volatile sig_atomic_t ticks;
static void tick(int sig) {
  ticks++;
  if (CALL(s_handler) != getpid())
    _exit(9);
}

static void timer(int us) {
  struct itimerval v = {{0, us}, {0, us}};
  SYS(setitimer(ITIMER_REAL, &v, NULL));
}

TEST(interrupted_anywhere) {
  on_signal(SIGALRM, tick, SA_RESTART);
  timer(300);
  int64_t end = now_ns() + 500000000;
  while (now_ns() < end)
    for (int i = 0; i < 50; i++)
      if (CALL(s_handler) != getpid())
        check_abort();
  timer(0);
  CHECK(ticks > 10);
}

/* A call that is interrupted is made again: the same call with the same arguments. */
static void count(int sig) { ticks++; }

static void *writer(void *arg) {
  int fd = *(int *)arg;
  for (int i = 0; i < 100; i++) {
    sleep_ms(2);
    write_full(fd, "x", 1);
  }
  return NULL;
}

TEST(restarted) {
  int p[2], fd = tmp_file("empty", "");
  char c;
  pthread_t t;
  for (int i = 0; i < HOT; i++)
    CALL(s_read, fd, (long)&c, 1);
  SYS(pipe(p));
  sigset_t alarm_only = sigset_of(SIGALRM, 0);
  pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
  CHECK_EQ(pthread_create(&t, NULL, writer, &p[1]), 0);
  pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
  on_signal(SIGALRM, count, SA_RESTART);
  timer(400);
  for (int i = 0; i < 100; i++) {
    c = 0;
    if (!CHECK_EQ(CALL(s_read, p[0], (long)&c, 1), 1) || !CHECK_EQ(c, 'x'))
      break;
  }
  on_signal(SIGALRM, count, 0);
  SYS(fcntl(p[1], F_SETFL, 0));
  pthread_join(t, NULL);
  CHECK_EQ(CALL(s_read, p[0], (long)&c, 1), -EINTR);
  timer(0);
  CHECK(ticks > 10);
}

TEST(hot_sigreturn) {
  on_signal(SIGUSR1, count, 0);
  for (int i = 0; i < HOT; i++)
    raise(SIGUSR1);
  CHECK_EQ(ticks, HOT);
}

/* ---- Processes and threads ---- */

static void *in_thread(void *arg) {
  long tid = gettid();
  for (int i = 0; i < HOT * 2; i++)
    if (CALL(s_threads) != tid)
      return arg;
  return NULL;
}

TEST(threads) {
  pthread_t t[4];
  void *bad;
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&t[i], NULL, in_thread, t), 0);
  for (int i = 0; i < 4; i++) {
    pthread_join(t[i], &bad);
    CHECK(bad == NULL);
  }
}

TEST(forked_from_a_hot_site) {
  for (int i = 0; i < 200; i++) {
    long pid = CALL(s_fork);
    if (pid == 0)
      _exit(CALL(s_getpid) == syscall(SYS_getpid) ? 42 : 1);
    REQUIRE(pid > 0);
    if (!CHECK_EQ(check_wait((pid_t)pid), 42 << 8))
      break;
  }
  heat(s_getpid, getpid());
  WAIT_OK(CHILD({
    heat(s_getpid, getpid());
    heat(s_changed, getpid());
    WAIT_OK(CHILD(heat(s_changed, getpid())));
  }));
  heat(s_changed, getpid());
}

/* ---- The code as data ---- */

static void *page_of(const uint8_t *p) { return (void *)((uintptr_t)p & ~(PAGE - 1)); }
static size_t pages_of(const uint8_t *p, const uint8_t *end) {
  return (((uintptr_t)end + PAGE - 1) & ~(PAGE - 1)) - (uintptr_t)page_of(p);
}

TEST(read_by_system_calls) {
  uint8_t cold[16], got[16];
  size_t n = (size_t)(s_prot_end - s_prot);
  int fd = tmp_file("code", ""), mem = (int)SYS(open("/proc/self/mem", O_RDONLY));
  memcpy(cold, s_prot, n);
  heat(s_prot, getpid());
  CHECK_EQ(pwrite(fd, s_prot, n, 0), n);
  CHECK_EQ(pread(fd, got, n, 0), n);
  CHECK(memcmp(got, cold, n) == 0);
  CHECK_EQ(pread(mem, got, n, (off_t)(uintptr_t)s_prot), n);
  CHECK(memcmp(got, cold, n) == 0);
  heat(s_prot, getpid());
}

TEST(changed_by_the_program) {
  uint8_t *code = (uint8_t *)(uintptr_t)s_changed, cold[16];
  size_t n = (size_t)(s_changed_end - s_changed), len = pages_of(s_changed, s_changed_end);
  memcpy(cold, code, n);
  for (int round = 0; round < 3; round++) {
    heat(code, getpid());
    SYS(mprotect(page_of(code), len, PROT_READ | PROT_WRITE | PROT_EXEC));
    CHECK(memcmp(code, cold, n) == 0);
    heat(code, getpid());
    code[1] = 110; /* getppid */
    heat(code, getppid());
    SYS(mprotect(page_of(code), len, PROT_READ | PROT_EXEC));
    heat(code, getppid());
    SYS(mprotect(page_of(code), len, PROT_READ | PROT_WRITE | PROT_EXEC));
    code[1] = 39;
    SYS(mprotect(page_of(code), len, PROT_READ | PROT_EXEC));
  }
  heat(code, getpid());
}

/* Another thread executes a site all the time while its page is made writable and back. */
static volatile int stop;
static void *run_site(void *arg) {
  long n = 0;
  while (!stop) {
    if (CALL(s_moved) != getpid())
      return arg;
    n++;
  }
  return n ? NULL : arg;
}

TEST(changed_under_a_thread) {
  pthread_t t;
  void *bad;
  size_t len = pages_of(s_moved, s_moved_end);
  CHECK_EQ(pthread_create(&t, NULL, run_site, (void *)page_of), 0);
  int64_t end = now_ns() + 1000000000;
  while (now_ns() < end) {
    sleep_ms(1);
    SYS(mprotect(page_of(s_moved), len, PROT_READ | PROT_WRITE | PROT_EXEC));
    SYS(mprotect(page_of(s_moved), len, PROT_READ | PROT_EXEC));
  }
  stop = 1;
  pthread_join(t, &bad);
  CHECK(bad == NULL);
}

/* Code in pages of the program's own: hot, moved, replaced, gone. */
TEST(moved_and_replaced) {
  size_t n = (size_t)(s_moved_end - s_moved);
  uint8_t *p = map_anon(PAGE, PROT_READ | PROT_WRITE), original[16];
  int mem = (int)SYS(open("/proc/self/mem", O_RDONLY));
  CHECK_EQ(pread(mem, original, n, (off_t)(uintptr_t)s_moved), n);
  for (int round = 0; round < 4; round++) {
    memcpy(p, original, n);
    SYS(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    heat(p, getpid());
    uint8_t *q = mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map_anon(PAGE, PROT_NONE));
    REQUIRE(q != MAP_FAILED);
    heat(q, getpid());
    REQUIRE(mmap(q, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == q);
    memcpy(q, original, n);
    q[1] = 110;
    SYS(mprotect(q, PAGE, PROT_READ | PROT_EXEC));
    heat(q, getppid());
    SYS(munmap(q, PAGE));
    REQUIRE(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
  }
}

/* A site whose call ends a page, and one that lies across two. */
TEST(at_page_boundaries) {
  static const uint8_t call[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
  uint8_t *p = map_anon(3 * PAGE, PROT_READ | PROT_WRITE);
  for (unsigned before = 1; before <= 8; before++) {
    SYS(mprotect(p, 3 * PAGE, PROT_READ | PROT_WRITE));
    memset(p, 0xcc, 3 * PAGE);
    memcpy(p + PAGE - before, call, sizeof call);
    SYS(mprotect(p, 3 * PAGE, PROT_READ | PROT_EXEC));
    heat(p + PAGE - before, getpid());
    CHECK_EQ(enter(p + PAGE - before + 5, SYS_getppid), getppid());
  }
}

/* ---- %gs belongs to the program ---- */

TEST(program_uses_gs) {
  static uint64_t data[4] = {0x1234, 2, 3, 4};
  uint64_t got, base = 0;
  heat(s_gs, getpid());
  SYS(syscall(SYS_arch_prctl, 0x1001, data));
  for (int i = 0; i < HOT; i++) {
    if (CALL(s_gs) != getpid())
      check_abort();
    __asm__ volatile("mov %%gs:0, %0" : "=r"(got));
    if (got != 0x1234)
      check_abort();
  }
  SYS(syscall(SYS_arch_prctl, 0x1004, &base));
  CHECK_EQ(base, (uintptr_t)data);
  WAIT_OK(CHILD({
    heat(s_gs, getpid());
    __asm__ volatile("mov %%gs:8, %0" : "=r"(got));
    CHECK_EQ(got, 2);
  }));
}
