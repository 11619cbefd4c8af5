/* SPDX-License-Identifier: Apache-2.0 */
/* cpuid.c - the CPUID instruction in programs (X1). A kernel may change it in mapped files; it does not touch what the program
 * writes itself, so a copy of the instruction in a page made here says what the CPU says. */
#include "check.h"

#include <pthread.h>
#include <sys/time.h>

typedef struct {
  uint32_t a, b, c, d;
} Regs;
typedef void CpuidFn(uint32_t leaf, uint32_t subleaf, Regs *out);

/* The same instruction at places with different neighbours. */
__attribute__((noinline)) static void plain(uint32_t leaf, uint32_t subleaf, Regs *r) {
  __asm__ volatile("cpuid" : "=a"(r->a), "=b"(r->b), "=c"(r->c), "=d"(r->d) : "a"(leaf), "c"(subleaf));
}
__attribute__((noinline)) static void after_big_immediate(uint32_t leaf, uint32_t subleaf, Regs *r) {
  __asm__ volatile("movabs $0xa20fa20fa20fa20f, %%r9\n\tcpuid\n\tnop"
                   : "=a"(r->a), "=b"(r->b), "=c"(r->c), "=d"(r->d)
                   : "a"(leaf), "c"(subleaf)
                   : "r9");
  __asm__ volatile("" ::: "memory");
}
__attribute__((noinline)) static void between_vectors(uint32_t leaf, uint32_t subleaf, Regs *r) {
  __asm__ volatile("pxor %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm1\n\tcpuid\n\tpaddd %%xmm1, %%xmm0"
                   : "=a"(r->a), "=b"(r->b), "=c"(r->c), "=d"(r->d)
                   : "a"(leaf), "c"(subleaf)
                   : "xmm0", "xmm1");
}
__attribute__((noinline)) static void in_loop(uint32_t leaf, uint32_t subleaf, Regs *r) {
  for (int i = 0; i < 3; i++)
    __asm__ volatile("cpuid" : "=a"(r->a), "=b"(r->b), "=c"(r->c), "=d"(r->d) : "a"(leaf), "c"(subleaf));
}
static CpuidFn *const sites[] = {plain, after_big_immediate, between_vectors, in_loop};

/* Position-independent, with its address known: void f(leaf, subleaf, Regs *). */
extern const uint8_t site_start[], site_cpuid[], site_end[];
__asm__(".pushsection .text\n"
        ".rept 300\n nop\n .endr\n"
        ".globl site_start, site_cpuid, site_end\n"
        "site_start:\n"
        "  push %rbx\n  mov %rdx, %r8\n  mov %edi, %eax\n  mov %esi, %ecx\n"
        "site_cpuid:\n"
        "  cpuid\n"
        "  mov %eax, (%r8)\n  mov %ebx, 4(%r8)\n  mov %ecx, 8(%r8)\n  mov %edx, 12(%r8)\n"
        "  pop %rbx\n  ret\n"
        "site_end:\n"
        ".rept 100\n nop\n .endr\n"
        ".popsection\n");
static void labelled(uint32_t leaf, uint32_t subleaf, Regs *r) {
  ((CpuidFn *)(uintptr_t)site_start)(leaf, subleaf, r);
}

/* The CPU itself. */
static CpuidFn *own_copy(int prot) {
  uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(p != MAP_FAILED);
  memcpy(p, site_start, (size_t)(site_end - site_start));
  p[site_cpuid - site_start] = 0x0f; /* reading one's own code may show the change */
  p[site_cpuid - site_start + 1] = 0xa2;
  if (!prot)
    SYS(mprotect(p, 4096, PROT_READ | PROT_EXEC));
  return (CpuidFn *)(uintptr_t)p;
}

static const struct {
  uint32_t leaf, subleaf;
} questions[] = {{0, 0},          {1, 0},
                 {2, 0},          {4, 0},
                 {4, 1},          {4, 2},
                 {4, 3},          {4, 4},
                 {5, 0},          {6, 0},
                 {7, 0},          {7, 1},
                 {0xb, 0},        {0xb, 1},
                 {0xd, 0},        {0xd, 1},
                 {0xd, 2},        {0x14, 0},
                 {0x15, 0},       {0x16, 0},
                 {0x19, 0},       {0x80000000, 0},
                 {0x80000001, 0}, {0x80000002, 0},
                 {0x80000003, 7}, {0x80000004, 0xffffffff},
                 {0x80000006, 0}, {0x80000008, 0},
                 {0x8000001d, 1}};

/* Without what names the CPU of the moment: APIC numbers. */
static Regs ask(CpuidFn *fn, uint32_t leaf, uint32_t subleaf) {
  Regs r;
  fn(leaf, subleaf, &r);
  if (leaf == 1)
    r.b &= 0x00ffffff;
  if (leaf == 0xb)
    r.d = 0;
  return r;
}

static void compare(CpuidFn *fn, CpuidFn *cpu) {
  for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
    Regs got = ask(fn, questions[i].leaf, questions[i].subleaf),
         want = ask(cpu, questions[i].leaf, questions[i].subleaf);
    if (memcmp(&got, &want, sizeof got) != 0)
      check_fail(__FILE__, __LINE__, "leaf %x.%x: %x %x %x %x, the CPU says %x %x %x %x", questions[i].leaf,
                 questions[i].subleaf, got.a, got.b, got.c, got.d, want.a, want.b, want.c, want.d);
  }
}

TEST(same_as_the_cpu) {
  CpuidFn *cpu = own_copy(0);
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
      compare(sites[i], cpu);
    compare(labelled, cpu);
  }
}

TEST(out_of_range_leaves) {
  static const uint32_t leaves[] = {0x3fffffff, 0x40000000, 0x40000001, 0x7fffffff,
                                    0x8000ffff, 0xc0000000, 0xffffffff};
  Regs r;
  for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++)
    for (uint32_t sub = 0; sub < 50; sub++)
      labelled(leaves[i] - (sub & 7), sub * 0x05050505, &r);
  for (uint32_t sub = 0; sub < 200; sub++)
    labelled(4, sub, &r);
  compare(labelled, own_copy(0));
}

/* void probe(flags, out): registers that are known before, CPUID leaf 1, registers behind. */
void probe(uint64_t flags, uint64_t *out);
__asm__(".pushsection .text\n"
        "probe:\n"
        "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  push %rdi\n  popfq\n"
        "  mov %rsi, %r15\n"
        "  movabs $0xffffffff00000001, %rax\n  movabs $0xffffffff00000000, %rcx\n  mov $-1, %rbx\n  mov $-1, "
        "%rdx\n"
        "  mov $0x1111, %esi\n  mov $0x2222, %edi\n  mov $0x3333, %r8d\n  mov $0x4444, %r9d\n  mov $0x5555, "
        "%r10d\n"
        "  mov $0x6666, %r11d\n  mov $0x7777, %r12d\n  mov $0x8888, %r13d\n  mov $0x9999, %r14d\n  movq "
        "%r12, %xmm5\n"
        "  movabs $0x1122334455667788, %rbp\n"
        "  mov %rbp, -8(%rsp)\n  mov %rbp, -64(%rsp)\n  mov %rbp, -128(%rsp)\n"
        "  cpuid\n"
        "  mov %rax, (%r15)\n  mov %rbx, 8(%r15)\n  mov %rcx, 16(%r15)\n  mov %rdx, 24(%r15)\n"
        "  mov -8(%rsp), %rax\n  mov %rax, 32(%r15)\n  mov -64(%rsp), %rax\n  mov %rax, 40(%r15)\n"
        "  mov -128(%rsp), %rax\n  mov %rax, 48(%r15)\n"
        "  pushfq\n  popq 56(%r15)\n"
        "  mov %rsi, 64(%r15)\n  mov %rdi, 72(%r15)\n  mov %r8, 80(%r15)\n  mov %r9, 88(%r15)\n  mov %r10, "
        "96(%r15)\n"
        "  mov %r11, 104(%r15)\n  mov %r12, 112(%r15)\n  mov %r13, 120(%r15)\n  mov %r14, 128(%r15)\n"
        "  movq %xmm5, 136(%r15)\n  mov %rbp, 144(%r15)\n"
        "  push $0\n  popfq\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n  ret\n"
        ".popsection\n");

/* Results are zero-extended; nothing else changes: other registers, flags, vector registers, the red zone. */
TEST(registers_and_red_zone) {
  const uint64_t arithmetic = 0x8d5; /* OF SF ZF AF PF CF */
  for (uint64_t flags = 0; flags < 2; flags++) {
    uint64_t out[19] = {0};
    probe(flags ? arithmetic : 0, out);
    for (int i = 0; i < 4; i++)
      CHECK_EQ(out[i] >> 32, 0);
    for (int i = 4; i < 7; i++)
      CHECK_EQ(out[i], 0x1122334455667788);
    CHECK_EQ(out[7] & arithmetic, flags ? arithmetic : 0);
    for (int i = 8; i < 17; i++)
      CHECK_EQ(out[i], 0x1111 * (i - 7));
    CHECK_EQ(out[17], 0x7777);
    CHECK_EQ(out[18], 0x1122334455667788);
    Regs want = ask(own_copy(0), 1, 0);
    CHECK_EQ(out[0], want.a);
    CHECK_EQ(out[2], want.c);
    CHECK_EQ(out[3], want.d);
  }
}

/* ---- Code the program writes itself ---- */

TEST(written_by_the_program) {
  CpuidFn *rx = own_copy(0), *rwx = own_copy(PROT_EXEC);
  compare(rx, rwx);
  /* Written again, and executed from where it was data before. */
  for (int i = 0; i < 50; i++) {
    SYS(mprotect((void *)(uintptr_t)rx, 4096, PROT_READ | PROT_WRITE));
    memset((void *)(uintptr_t)rx, 0xcc, 256);
    memcpy((void *)(uintptr_t)rx, site_start, (size_t)(site_end - site_start));
    ((uint8_t *)(uintptr_t)rx)[site_cpuid - site_start] = 0x0f;
    SYS(mprotect((void *)(uintptr_t)rx, 4096, PROT_READ | PROT_EXEC));
    Regs r = ask(rx, 0, 0);
    CHECK(r.a >= 1);
  }
}

static void call_fn(void *fn) { ((void (*)(void))(uintptr_t)fn)(); }

/* What is no instruction stays none. */
TEST(illegal_instructions) {
  static const uint8_t codes[][4] = {
      {0x0f, 0x0b, 0xc3}, {0x27, 0xc3}, {0x06, 0xc3}, {0xf0, 0x0f, 0xa2, 0xc3}};
  uint8_t *p = map_anon(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
  siginfo_t si;
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    memcpy(p, codes[i], 4);
    CHECK_EQ(catch_fault(call_fn, p, &si), SIGILL);
    CHECK_EQ((uintptr_t)si.si_addr, (uintptr_t)p);
  }
}

/* ---- Everywhere a program can be ---- */

static volatile sig_atomic_t illegal, handled;
static void on_ill(int sig) { illegal++; }
static void handler(int sig) {
  Regs r;
  plain(0, 0, &r);
  handled += r.a >= 1;
}

TEST(no_signal_is_seen) {
  Regs r;
  on_signal(SIGILL, on_ill, 0);
  for (int i = 0; i < 100; i++)
    sites[i % 4](1, 0, &r);
  CHECK_EQ(illegal, 0);
  signal(SIGILL, SIG_IGN); /* a forced signal that is ignored kills */
  plain(0, 0, &r);
  block_signal(SIGILL);
  plain(0, 0, &r);
  CHECK(r.a >= 1);
}

TEST(in_a_handler) {
  on_signal(SIGUSR1, handler, 0);
  for (int i = 0; i < 20; i++)
    raise(SIGUSR1);
  CHECK_EQ(handled, 20);
}

TEST(interrupted_by_a_timer) {
  struct itimerval tick = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
  Regs first, r;
  on_signal(SIGALRM, handler, SA_RESTART);
  plain(0, 0, &first);
  SYS(setitimer(ITIMER_REAL, &tick, NULL));
  int64_t end = now_ns() + 300000000;
  while (now_ns() < end) {
    labelled(0, 0, &r);
    if (memcmp(&r, &first, sizeof r) != 0)
      check_fail(__FILE__, __LINE__, "leaf 0 has changed");
  }
  SYS(setitimer(ITIMER_REAL, &off, NULL));
  CHECK(handled > 0);
}

TEST(in_children) {
  CpuidFn *cpu = own_copy(0);
  compare(plain, cpu);
  pid_t pid = CHILD({
    compare(plain, cpu);
    compare(labelled, cpu);
    WAIT_OK(CHILD(compare(in_loop, cpu)));
  });
  WAIT_OK(pid);
  compare(in_loop, cpu);
}

static void *hammer(void *arg) {
  Regs first, r;
  plain(0, 0, &first);
  for (int i = 0; i < 2000; i++) {
    sites[i % 4](0, 0, &r);
    if (memcmp(&first, &r, sizeof r) != 0)
      return arg;
  }
  return NULL;
}

TEST(in_threads) {
  pthread_t t[4];
  void *bad;
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&t[i], NULL, hammer, t), 0);
  for (int i = 0; i < 10; i++)
    WAIT_OK(CHILD(CHECK(hammer(t) == NULL)));
  for (int i = 0; i < 4; i++) {
    pthread_join(t[i], &bad);
    CHECK(bad == NULL);
  }
}

HELPER(brand) {
  Regs r;
  plain(0, 0, &r);
  char text[40];
  snprintf(text, sizeof text, "%x %x %x %x", r.a, r.b, r.c, r.d);
  return argc == 1 && strcmp(argv[0], text) == 0 ? 42 : 1;
}

TEST(after_exec) {
  Regs r;
  own_copy(0)(0, 0, &r);
  char text[40];
  snprintf(text, sizeof text, "%x %x %x %x", r.a, r.b, r.c, r.d);
  for (int i = 0; i < 3; i++) {
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
      execl("/proc/self/exe", "cpuid", "--helper", "brand", text, (char *)NULL);
      _exit(1);
    }
    CHECK_EQ(check_wait(pid), 42 << 8);
  }
}

/* ---- Nobody sees that code was changed ---- */

static const uint8_t insn[2] = {0x0f, 0xa2};

TEST(read_by_system_calls) {
  uint8_t got[2] = {0};
  Regs r;
  int p[2];
  labelled(0, 0, &r);
  SYS(pipe(p));
  CHECK_EQ(write(p[1], site_cpuid, 2), 2);
  CHECK_EQ(read(p[0], got, 2), 2);
  CHECK(memcmp(got, insn, 2) == 0);
  int fd = tmp_file("text", "");
  CHECK_EQ(pwrite(fd, site_start, (size_t)(site_end - site_start), 0), site_end - site_start);
  CHECK_EQ(pread(fd, got, 2, site_cpuid - site_start), 2);
  CHECK(memcmp(got, insn, 2) == 0);
  int mem = (int)SYS(open("/proc/self/mem", O_RDONLY));
  memset(got, 0, 2);
  CHECK_EQ(pread(mem, got, 2, (off_t)(uintptr_t)site_cpuid), 2);
  CHECK(memcmp(got, insn, 2) == 0);
  compare(labelled, own_copy(0));
}

TEST(made_writable) {
  CpuidFn *cpu = own_copy(0);
  uint8_t *page = (uint8_t *)((uintptr_t)site_cpuid & ~(PAGE - 1));
  compare(labelled, cpu);
  WAIT_OK(CHILD({
    SYS(mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
    CHECK(memcmp((const void *)site_cpuid, insn, 2) == 0);
    compare(labelled, cpu);
    *(volatile uint8_t *)(uintptr_t)site_end = 0x90;
    CHECK(memcmp((const void *)site_cpuid, insn, 2) == 0);
    SYS(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
    compare(labelled, cpu);
    memset(page, 0, 0);
  }));
  compare(labelled, cpu);
}

/* The program's file mapped again. */
TEST(other_mappings_of_the_file) {
  CpuidFn *cpu = own_copy(0);
  char *maps = read_file("/proc/self/maps", NULL);
  unsigned long lo = 0, hi = 0, off = 0;
  for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
    unsigned long a, b, o;
    if (sscanf(line, "%lx-%lx %*s %lx", &a, &b, &o) == 3 && a <= (uintptr_t)site_cpuid &&
        (uintptr_t)site_cpuid < b)
      lo = a, hi = b, off = o;
  }
  REQUIRE(lo != 0);
  int fd = (int)SYS(open("/proc/self/exe", O_RDONLY));
  for (int round = 0; round < 4; round++) {
    uint8_t *p =
        mmap(NULL, hi - lo, PROT_READ | PROT_EXEC, round == 3 ? MAP_SHARED : MAP_PRIVATE, fd, (off_t)off);
    REQUIRE(p != MAP_FAILED);
    uint8_t *there = p + ((uintptr_t)site_cpuid - lo);
    CpuidFn *fn = (CpuidFn *)(uintptr_t)(p + ((uintptr_t)site_start - lo));
    compare(fn, cpu);
    if (round == 3)
      CHECK(memcmp(there, insn, 2) == 0);
    if (round == 1) {
      SYS(madvise(p, hi - lo, MADV_DONTNEED));
      compare(fn, cpu);
    }
    if (round == 2) {
      uint8_t *q = mremap(p, hi - lo, hi - lo, MREMAP_MAYMOVE | MREMAP_FIXED, map_anon(hi - lo, PROT_NONE));
      REQUIRE(q != MAP_FAILED);
      compare((CpuidFn *)(uintptr_t)(q + ((uintptr_t)site_start - lo)), cpu);
      p = q;
    }
    if (round % 2)
      SYS(munmap(p, hi - lo));
  }
}
