/* SPDX-License-Identifier: Apache-2.0 */
/* mm-limits.c - stack growth and its guard gap, RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK. */
#include "check.h"

#include <alloca.h>
#include <pthread.h>
#include <sys/resource.h>

#define RW (PROT_READ | PROT_WRITE)

static void set_limit(int what, rlim_t soft) {
  struct rlimit r;

  SYS(getrlimit(what, &r));
  r.rlim_cur = soft;
  SYS(setrlimit(what, &r));
}

__attribute__((noinline)) static int deep(int n) {
  volatile char frame[8192];

  frame[0] = (char)n;
  frame[8191] = (char)(n + 1);
  if (n > 0)
    return deep(n - 1) + (frame[0] != (char)n);
  return 0;
}

TEST(stack_grows) {
  struct rlimit r;

  SYS(getrlimit(RLIMIT_STACK, &r));
  if (r.rlim_cur != RLIM_INFINITY && r.rlim_cur < (6u << 20))
    SKIP("RLIMIT_STACK is below 6 MiB");
  CHECK_EQ(deep(600), 0); /* 4.8 MiB */
}

__attribute__((noinline)) static void far_touch(size_t below) {
  volatile char *sp = __builtin_frame_address(0);

  sp[-(ptrdiff_t)below] = 1;
}

TEST(stack_grows_by_a_far_touch) {
  /* Since Linux 4.20 the distance from the stack pointer does not matter. */
  far_touch(2 << 20);
  CHECK(true);
}

TEST(stack_overflow_is_segv) {
  int status = check_wait(CHILD(set_limit(RLIMIT_STACK, 256 * 1024); deep(2000)));
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

static volatile int overflow_seen;

static void overflow_handler(int sig, siginfo_t *si, void *uc) {
  overflow_seen = 1;
  check_child_exit();
}

TEST(stack_overflow_handled_on_altstack) {
  WAIT_OK(CHILD(stack_t ss = {.ss_sp = map_anon(65536, RW), .ss_size = 65536};
                set_limit(RLIMIT_STACK, 256 * 1024); SYS(sigaltstack(&ss, NULL));
                on_siginfo(SIGSEGV, overflow_handler, SA_ONSTACK); deep(2000); CHECK(!"reached")));
}

/* Lowest address of the vma that holds the stack. */
static uintptr_t stack_start(void) {
  char *maps = read_file("/proc/self/maps", NULL);
  uintptr_t lo = 0;

  for (char *line = maps; line && *line; line = strchr(line, '\n') + 1) {
    unsigned long a, b;
    if (sscanf(line, "%lx-%lx", &a, &b) == 2 && (uintptr_t)&lo >= a && (uintptr_t)&lo < b)
      lo = a;
    if (!strchr(line, '\n'))
      break;
  }
  free(maps);
  return lo;
}

/* The stack may not grow to within 256 pages of another mapping. */
TEST(stack_guard_gap) {
  WAIT_OK(
      CHILD(uintptr_t lo = stack_start(); REQUIRE(lo != 0); char *wall = (char *)lo - 300 * PAGE;
            REQUIRE(mmap(wall, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == wall);
            stack_t ss = {.ss_sp = map_anon(65536, RW), .ss_size = 65536}; SYS(sigaltstack(&ss, NULL));
            CHECK_EQ(touch_write((char *)lo - 10 * PAGE, NULL), 0);
            CHECK_EQ(touch_write(wall + 100 * PAGE, NULL), SIGSEGV); CHECK_EQ(touch_write(wall, NULL), 0)));
}

TEST(mmap_keeps_clear_of_the_stack) {
  uintptr_t lo = stack_start();

  for (int i = 0; i < 20; i++) {
    uintptr_t p = (uintptr_t)map_anon(1 << 20, RW);
    CHECK(p + (1 << 20) + 256 * PAGE <= lo || p > lo);
  }
}

/* Buffers of system calls on stack pages that were never touched: the kernel's copy grows the stack. */
TEST(kernel_copy_grows_the_stack) {
  int fd = tmp_file("f", "stack");
  char *sp = __builtin_frame_address(0);
  char *far = sp - (1 << 20);

  CHECK_EQ(pread(fd, far, 5, 0), 5);
  CHECK(memcmp(far, "stack", 5) == 0);
}

TEST(rlimit_as) {
  WAIT_OK(CHILD(
      set_limit(RLIMIT_AS, 256ul << 20);
      CHECK_ERRNO((long)mmap(NULL, 512ul << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM); CHECK_ERRNO(
          (long)mmap(NULL, 512ul << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
          ENOMEM);
      char *p = map_anon(64ul << 20, RW);
      CHECK_ERRNO((long)mremap(p, 64ul << 20, 512ul << 20, MREMAP_MAYMOVE), ENOMEM);
      CHECK_OK(munmap(p, 64ul << 20)); CHECK(sbrk(300 << 20) == (void *)-1); CHECK_EQ(errno, ENOMEM)));
}

TEST(rlimit_as_counts_and_releases) {
  WAIT_OK(CHILD(set_limit(RLIMIT_AS, 256ul << 20); for (int i = 0; i < 50; i++) {
    char *p = map_anon(100ul << 20, RW);
    p[i * 4096] = 1;
    SYS(munmap(p, 100ul << 20));
  }));
}

TEST(rlimit_data) {
  WAIT_OK(CHILD(set_limit(RLIMIT_DATA, 64ul << 20); CHECK(sbrk(128 << 20) == (void *)-1);
                CHECK_EQ(errno, ENOMEM);
                CHECK_ERRNO((long)mmap(NULL, 128ul << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
                /* Not data: shared or not writable. */
                CHECK(mmap(NULL, 128ul << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
                CHECK(mmap(NULL, 128ul << 20, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)));
}

TEST(rlimit_stack_inherited_by_fork) {
  WAIT_OK(CHILD(set_limit(RLIMIT_STACK, 512 * 1024); WAIT_OK(CHILD(
      struct rlimit r; SYS(getrlimit(RLIMIT_STACK, &r)); CHECK_EQ(r.rlim_cur, 512 * 1024)))));
}

static void *deep_thread(void *unused) { return (void *)(long)deep(100); }

TEST(memory_of_many_threads) {
  enum { N = 32 };
  pthread_t t[N];
  pthread_attr_t attr;

  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 8 << 20);
  for (int i = 0; i < N; i++)
    REQUIRE(pthread_create(&t[i], &attr, deep_thread, NULL) == 0);
  for (int i = 0; i < N; i++) {
    void *r;
    pthread_join(t[i], &r);
    CHECK_EQ((int)(long)r, 0);
  }
}

TEST(out_of_memory_is_enomem_not_death) {
  /* RLIMIT_AS keeps the host safe; a program that asks for ever must see ENOMEM in the end. */
  WAIT_OK(CHILD(set_limit(RLIMIT_AS, 512ul << 20); int n = 0;
                while (n < 10000 && mmap(NULL, 4 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
                    n++;
                CHECK_EQ(errno, ENOMEM); CHECK(n > 50 && n < 128)));
}
