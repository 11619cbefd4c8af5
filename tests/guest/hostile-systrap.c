/* SPDX-License-Identifier: Apache-2.0 */
/* hostile-systrap.c - attacks on the code and the pages that platform systrap puts into a guest's address space.
 *
 * docs/security/systrap.md names these cases beside its claims. Everything hostile happens in children, which may die of it;
 * the sandbox and other processes may not. Natively, and on platforms without such a stub, there is nothing to attack: what
 * concerns the stub passes at once, the rest runs all the same. `--seconds=N` (TESSERA_HOSTILE_SECONDS) prolongs the storms.
  hostile-forged.c holds those
 * that forge traps. */
#include "hostile-stub.h"

#include <sys/uio.h>
#include <sys/utsname.h>

/* ---- Jumps ---- */

/* At every syscall instruction, ours or by chance: the sandbox's kernel answers, not the host's. */
TEST_LIMIT(calls_from_the_stub, 30) {
  unsigned long at[BACK_MAX];
  struct utsname u, v;

  NEED_STUB();
  int n = find_syscalls(at, BACK_MAX);
  CHECK(n >= 2);
  SYS(uname(&u));
  for (int i = 0; i < n; i++) {
    pid_t pid = CHILD({
      CHECK_EQ(call_at(at[i], SYS_getpid, 0, 0, 0, 0, 0, 0), getpid());
      CHECK_EQ(call_at(at[i], SYS_getppid, 0, 0, 0, 0, 0, 0), getppid());
      CHECK_EQ(call_at(at[i], SYS_uname, (long)&v, 0, 0, 0, 0, 0), 0);
      CHECK_STR(v.release, u.release);
      CHECK_EQ(call_at(at[i], SYS_openat, AT_FDCWD, (long)"/nowhere/x", 0, 0, 0, 0), -ENOENT);
      CHECK_EQ(call_at(at[i], SYS_close, 0x7fff, 0, 0, 0, 0, 0), -EBADF);
      CHECK_EQ(call_at(at[i], SYS_sendto, 0x7fff, (long)"x", 1, 0, 0, 0), -EBADF);
      CHECK_EQ(call_at(at[i], SYS_tgkill, getpid(), gettid(), 0, 0, 0, 0), 0);
      CHECK_EQ(call_at(at[i], SYS_rt_sigprocmask, SIG_SETMASK, 8, 0, 8, 0, 0), -EFAULT);
      CHECK_EQ(call_at(at[i], SYS_futex, (long)&v, FUTEX_CMP_REQUEUE, 1, 1, (long)&v + 1, 0), -EINVAL);
      CHECK_EQ(call_at(at[i], SYS_execve, (long)"/nowhere/x", 0, 0, 0, 0, 0), -ENOENT);
      long r = call_at(at[i], SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      CHECK(r > 0 && r < (long)ST_BASE);
      memset((void *)r, 1, PAGE);
      CHECK_EQ(munmap((void *)r, PAGE), 0); /* the sandbox knows of it */
      long child = call_at(at[i], SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
      if (child == 0)
        _exit(getppid() == 1);
      CHECK_EQ(check_wait((pid_t)child), 0);
    });
    WAIT_OK(pid);
  }
}

static void *busy_thread(void *arg) {
  for (;;) {
    free(malloc(100000));
    getppid();
  }
  return NULL;
}

static void jump_about(uint64_t seed) {
  static Regs r;
  pthread_t t;

  for (int i = 0; i < 2; i++)
    pthread_create(&t, NULL, busy_thread, NULL);
  catch_all();
  sigsetjmp(again, 0);
  for (;;) {
    unsigned long *words = (unsigned long *)&r;
    for (size_t i = 0; i < sizeof r / 8; i++)
      words[i] = random_register(&seed);
    if (next_random(&seed) % 2)
      r.r15 = r.rcx = (unsigned long)come_back;
    jump_and_return(&r, ST_BASE + 64 + next_random(&seed) % 0x1400);
  }
}

TEST_LIMIT(random_jumps, 400) {
  NEED_STUB();
  storm(jump_about, 150, 3000);
}

/* ---- The pages ---- */

static const unsigned long read_only[] = {ST_BASE, ST_BASE + PAGE, ST_SHARED, ST_CPUID, ST_ORDERS, 0};

TEST(pages_stay) {
  unsigned long slot = my_slot();
  static char copy[ST_CODE_MAX];

  NEED_STUB();
  memcpy(copy, (void *)ST_BASE, sizeof copy);
  for (int i = 0; i < 6; i++) {
    char *p = (char *)(read_only[i] ? read_only[i] : slot);
    struct iovec from = {copy, 64}, to = {p, 64};
    CHECK_EQ(touch_read(p, NULL), 0);
    CHECK_EQ(touch_write(p, NULL), SIGSEGV);
    CHECK(munmap(p, PAGE) < 0);
    CHECK(mprotect(p, PAGE, PROT_READ | PROT_WRITE) < 0);
    CHECK(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          MAP_FAILED);
    CHECK(mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
    CHECK(madvise(p, PAGE, MADV_DONTNEED) < 0);
    CHECK(process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0);
    CHECK(read(0, p, 0) <= 0);
    CHECK_EQ(touch_read(p, NULL), 0);
  }
  CHECK_EQ(touch_write((char *)slot + ST_STACK, NULL), 0);
  CHECK_EQ(memcmp(copy, (void *)ST_BASE, sizeof copy), 0);
  CHECK_EQ(touch_read((char *)slot + ST_SLOT_SIZE * 4096ul, NULL), SIGSEGV); /* nobody else's slot */
}

/* Execution of pages that can be written. */
static void jump_there(void *at) { ((void (*)(void))at)(); }

TEST(slots_are_not_executable) {
  NEED_STUB();
  WAIT_OK(CHILD({
    unsigned char *p = (unsigned char *)my_slot() + ST_STACK;
    *p = 0xc3;
    CHECK_EQ(catch_fault(jump_there, p, NULL), SIGSEGV);
    CHECK_EQ(catch_fault(jump_there, (void *)ST_SCRATCH, NULL), SIGSEGV);
  }));
}

/* ---- Corruption ---- */

static volatile unsigned long victims[8];

static void *victim_thread(void *arg) {
  victims[(long)arg] = my_slot();
  for (long i = 0;; i++) {
    getppid();
    if (i % 64 == 0) {
      void *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (p != MAP_FAILED) {
        *(volatile char *)p = 1;
        munmap(p, 4 * PAGE);
      }
    }
    if (i % 512 == 0) {
      pid_t pid = fork();
      if (pid == 0)
        _exit(0);
      if (pid > 0)
        waitpid(pid, NULL, 0);
    }
    if (i % 100 == 0)
      tgkill(getpid(), gettid(), SIGUSR1);
  }
  return NULL;
}

static void nothing(int sig) {}

static void corrupt(uint64_t seed) {
  pthread_t t;

  on_signal(SIGUSR1, nothing, SA_RESTART);
  for (long i = 0; i < 4; i++)
    pthread_create(&t, NULL, victim_thread, (void *)i);
  for (;;) {
    uint64_t r = next_random(&seed);
    unsigned long slot = victims[r % 4];
    if (!slot)
      continue;
    volatile uint64_t *words = (volatile uint64_t *)(slot + ST_OUT);
    volatile StOut *out = slot_out(slot);
    switch (r >> 8 & 15) {
    case 0:
      words[(r >> 16) % ((ST_SLOT_SIZE - ST_OUT) / 8)] = random_register(&seed);
      break;
    case 1:
      out->post = slot_in(slot)->answer + (uint32_t)(r >> 16) % 3;
      break;
    case 2:
      out->kind = (uint16_t)(r >> 16) % 5;
      break;
    case 3: /* a frame at the very end, or before the stack */
      out->frame = slot + ((r >> 16) % 3 ? ST_SLOT_SIZE - 8 * ((r >> 20) % 64) : (r >> 20) % ST_STACK);
      break;
    case 4: { /* what a frame says of its signal, and where its state is */
      unsigned long f = out->frame;
      if (f > slot + ST_STACK && f + sizeof(StFrame) < slot + ST_SLOT_SIZE) {
        volatile StFrame *frame = (volatile StFrame *)f;
        if (r >> 16 & 1)
          frame->signo = (int32_t)(r >> 20);
        else
          frame->c.fpstate = slot + ((r >> 20) % ST_SLOT_SIZE & ~63ul);
      }
      break;
    }
    case 5:
      out->entering = (uint32_t)(r >> 16) % 2 ? slot_in(slot)->answer + 1 : (uint32_t)(r >> 20);
      break;
    default:
      getpid();
    }
  }
}

TEST_LIMIT(corrupted_slots, 400) {
  NEED_STUB();
  storm(corrupt, 100, 4000);
}

/* ---- Odd processor state ---- */

static long call_with(unsigned long sp, unsigned long flags) {
  long r = SYS_getppid;
  __asm__ volatile("mov %%rsp, %%r12\n pushf\n pop %%r13\n"
                   "push %[flags]\n popf\n mov %[sp], %%rsp\n"
                   "syscall\n"
                   "mov %%r12, %%rsp\n push %%r13\n popf\n cld\n"
                   : "+a"(r)
                   : [sp] "r"(sp), [flags] "r"(flags)
                   : "r12", "r13", "rcx", "r11", "memory", "cc");
  return r;
}

TEST(any_stack_pointer) {
  static const unsigned long sps[] = {0,    8,           0x10001, 0xffff800000000000ul, 0x8000000000000000ul,
                                      ~0ul, ST_BASE + 64};
  for (size_t i = 0; i < sizeof sps / sizeof *sps; i++)
    for (int k = 0; k < 50; k++)
      CHECK_EQ(call_with(sps[i], 0x202), getppid());
}

TEST(any_flags) {
  static const unsigned long flags[] = {0x602, 0x40202, 0x4202, 0x200202, 0x44602, 0xad7};
  unsigned long sp;
  __asm__("mov %%rsp, %0" : "=r"(sp));
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    for (int k = 0; k < 200; k++)
      CHECK_EQ(call_with((sp - 4096) & ~15ul, flags[i]), getppid());
}

/* Into the signal stack, into its first page: only this process dies of it. */
static void stack_in_slot(uint64_t seed) {
  unsigned long slot = my_slot();
  catch_all();
  for (int i = 0; i < 200; i++)
    call_with(slot + next_random(&seed) % (ST_SLOT_SIZE + 16), 0x202);
}

TEST_LIMIT(stack_in_the_slot, 120) {
  NEED_STUB();
  storm(stack_in_slot, 100, 1500);
}

/* 32-bit code (mov $20, %eax; int $0x80; inc %eax; lret): int $0x80 is no call here, and it stays 32-bit code: elsewhere `inc` is
 * a prefix. */
TEST(compatibility_mode) {
  static const unsigned char code[] = "\xb8\x14\0\0\0\xcd\x80\x40\xcb";
  if (!check_in_sandbox)
    return; /* native answers 32-bit calls */
  void *p = mmap((void *)0x30000000, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_32BIT, -1, 0);
  REQUIRE(p != MAP_FAILED);
  memcpy(p, code, sizeof code);
  for (int i = 0; i < 20; i++) {
    WAIT_OK(CHILD({
      long r;
      __asm__ volatile("mov %%rsp, %%r12\n mov $0x30002000, %%esp\n"
                       "lea 1f(%%rip), %%rax\n"
                       "sub $8, %%esp\n movl $0x33, 4(%%rsp)\n movl %%eax, (%%rsp)\n"
                       "push $0x23\n push $0x30000000\n lretq\n"
                       "1: mov %%r12, %%rsp\n"
                       : "=a"(r)::"r12", "rcx", "rdx", "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11",
                         "memory", "cc");
      CHECK_EQ((int)r, -ENOSYS + 1);
    }));
  }
}

/* ---- Death in the middle ---- */

static void die(uint64_t seed) {
  pthread_t t;
  on_signal(SIGUSR1, nothing, SA_RESTART);
  for (long i = 0; i < 4; i++)
    pthread_create(&t, NULL, victim_thread, (void *)i);
  usleep((useconds_t)(next_random(&seed) % 20000));
  switch (next_random(&seed) % 4) {
  case 0:
    _exit(1);
  case 1:
    execl("/proc/self/exe", "hostile-systrap", "--list", NULL);
    break;
  case 2: /* no room for a signal frame: the host kills the stub, wherever the others are */
    call_with(my_slot() + ST_STACK + 64, 0x202);
    break;
  default:
    kill(getpid(), SIGKILL);
  }
}

static void die_quietly(uint64_t seed) {
  dup2(open("/dev/null", O_WRONLY), 1);
  die(seed);
}

TEST_LIMIT(death_in_the_middle, 400) {
  if (!check_in_sandbox)
    return;
  if (stub_here())
    storm(die_quietly, 60, 3000);
}
