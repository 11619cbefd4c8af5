/* SPDX-License-Identifier: Apache-2.0 */
/* isolation.c - 64 threads and processes that map, unmap, fork and copy at once: nobody ever sees another's
 * bytes, freed memory comes back zeroed, and no mapping stays behind when it was taken away (issue 2, Robustness).
 */
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>

#define RW (PROT_READ | PROT_WRITE)
#define CROWD 64

static int rounds(int n) { return check_seconds ? n * (int)check_seconds : n; }

static bool all_bytes(const unsigned char *p, size_t n, unsigned char want) {
  for (size_t i = 0; i < n; i++)
    if (p[i] != want) {
      check_fail(__FILE__, __LINE__, "byte %zu of %zu is 0x%02x, want 0x%02x", i, n, p[i], want);
      return false;
    }
  return true;
}

/* The life of one: fresh memory is zero, stays ours, survives a copy through a pipe and a fork. */
static bool live(int who, int n, bool forks) {
  uint64_t rng = (uint64_t)who * 7919 + 1;
  unsigned char mark = (unsigned char)(who + 1);
  int p[2];

  if (pipe(p) < 0)
    return CHECK(!"pipe");
  for (int i = 0; i < n; i++) {
    size_t pages = 1 + next_random(&rng) % 24, len = pages * PAGE;
    unsigned char *m = map_anon(len, RW);
    if (!all_bytes(m, len, 0))
      return false;
    memset(m, mark, len);
    if (next_random(&rng) % 2)
      sched_yield();
    size_t piece = len < 8192 ? len : 8192;
    write_full(p[1], m + len - piece, piece);
    madvise(m, len / PAGE / 2 * PAGE, MADV_DONTNEED);
    if (!all_bytes(m, len / PAGE / 2 * PAGE, 0))
      return false;
    read_full(p[0], m, piece);
    if (!all_bytes(m, piece, mark))
      return false;
    if (forks && i % 8 == 0) {
      memset(m, mark, len);
      WAIT_OK(CHILD(all_bytes(m, len, mark); memset(m, 0xee, len)));
      if (!all_bytes(m, len, mark))
        return false;
    }
    if (next_random(&rng) % 3 == 0 && pages > 2) {
      /* In pieces; the hole may be another thread's at once, so it must not be unmapped twice. */
      munmap(m + PAGE, PAGE);
      munmap(m + 2 * PAGE, len - 2 * PAGE);
      munmap(m, PAGE);
    } else {
      munmap(m, len);
    }
  }
  close(p[0]);
  close(p[1]);
  return true;
}

static void *thread_life(void *arg) { return (void *)(long)!live((int)(long)arg, rounds(25), false); }

static void *forking_thread_life(void *arg) { return (void *)(long)!live((int)(long)arg, rounds(9), true); }

static void run_threads(void *(*fn)(void *)) {
  pthread_t t[CROWD];
  pthread_attr_t attr;

  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 128 * 1024);
  for (long i = 0; i < CROWD; i++)
    REQUIRE(pthread_create(&t[i], &attr, fn, (void *)i) == 0);
  for (int i = 0; i < CROWD; i++) {
    void *r;
    pthread_join(t[i], &r);
    CHECK_EQ((long)r, 0);
  }
}

TEST_LIMIT(threads, 60) { run_threads(thread_life); }

TEST_LIMIT(threads_that_fork, 90) { run_threads(forking_thread_life); }

TEST_LIMIT(processes, 60) {
  pid_t pids[CROWD];

  for (int i = 0; i < CROWD; i++)
    pids[i] = CHILD(live(i, rounds(25), true));
  for (int i = 0; i < CROWD; i++)
    WAIT_OK(pids[i]);
}

TEST_LIMIT(freed_secrets_stay_secret, 60) {
  size_t len = 8 << 20;
  uint64_t secret = 0x5ec4e7c0ffee1234ull;

  for (int round = 0; round < rounds(4); round++) {
    WAIT_OK(CHILD(uint64_t *p = map_anon(len, RW); for (size_t i = 0; i < len / 8; i++) p[i] = secret;
                  if (round % 2) munmap(p, len)));
    WAIT_OK(CHILD(int fd = (int)SYS(memfd_create("s", 0)); SYS(ftruncate(fd, (off_t)len));
                  uint64_t *p = mmap(NULL, len, RW, MAP_SHARED, fd, 0); REQUIRE(p != MAP_FAILED);
                  for (size_t i = 0; i < len / 8; i++) p[i] = secret; SYS(ftruncate(fd, 0))));
    WAIT_OK(CHILD(uint64_t *p = map_anon(len, RW);
                  for (size_t i = 0; i < len / 8; i++) if (!CHECK_EQ(p[i], 0)) break;));
    WAIT_OK(CHILD(int fd = (int)SYS(memfd_create("t", 0)); SYS(ftruncate(fd, (off_t)len));
                  uint64_t *p = mmap(NULL, len, RW, MAP_SHARED, fd, 0); REQUIRE(p != MAP_FAILED);
                  for (size_t i = 0; i < len / 8; i++) if (!CHECK_EQ(p[i], 0)) break;));
  }
}

/* A window that is moved over a file whose pages carry their number: after the mapping call returned, every
 * thread sees the new page, never the old one. */
static volatile uint64_t *window;
static volatile uint64_t before_gen, after_gen;
static volatile int finished;

static void *watch_window(void *arg) {
  long bad = 0;

  while (!finished) {
    uint64_t low = __atomic_load_n(&after_gen, __ATOMIC_SEQ_CST);
    uint64_t seen = *window;
    uint64_t high = __atomic_load_n(&before_gen, __ATOMIC_SEQ_CST);
    bad += seen < low || seen > high;
  }
  return (void *)bad;
}

TEST_LIMIT(moved_window_is_never_stale, 30) {
  enum { PAGES = 600 };
  int fd = (int)SYS(memfd_create("w", 0));
  pthread_t t[4];

  SYS(ftruncate(fd, PAGES * PAGE));
  uint64_t *all = mmap(NULL, PAGES * PAGE, RW, MAP_SHARED, fd, 0);
  for (uint64_t i = 0; i < PAGES; i++)
    all[i * 512] = i;
  window = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(window != MAP_FAILED);
  for (int i = 0; i < 4; i++)
    REQUIRE(pthread_create(&t[i], NULL, watch_window, NULL) == 0);
  for (uint64_t g = 1; g < PAGES; g++) {
    __atomic_store_n(&before_gen, g, __ATOMIC_SEQ_CST);
    REQUIRE(mmap((void *)window, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, (off_t)(g * PAGE)) ==
            (void *)window);
    __atomic_store_n(&after_gen, g, __ATOMIC_SEQ_CST);
  }
  finished = 1;
  for (int i = 0; i < 4; i++) {
    void *r;
    pthread_join(t[i], &r);
    CHECK_EQ((long)r, 0);
  }
}

/* A writer hammers a page while it is made read-only: once mprotect returned, nothing changes any more. */
static volatile uint64_t *cell;
static __thread sigjmp_buf retry;

static void jump_back(int sig) { siglongjmp(retry, 1); }

static void *hammer(void *arg) {
  sigsetjmp(retry, 1);
  while (!finished)
    cell[0]++;
  return NULL;
}

TEST_LIMIT(protection_reaches_running_threads, 30) {
  pthread_t t;
  int bad = 0;

  cell = map_anon(PAGE, RW);
  on_signal(SIGSEGV, jump_back, SA_NODEFER);
  REQUIRE(pthread_create(&t, NULL, hammer, NULL) == 0);
  for (int i = 0; i < rounds(100); i++) {
    uint64_t start = cell[0];
    int64_t until = now_ns() + 2000000000;
    while (cell[0] == start && now_ns() < until)
      ;
    SYS(mprotect((void *)cell, PAGE, PROT_READ));
    uint64_t a = cell[0];
    for (int k = 0; k < 2000; k++)
      bad += cell[0] != a;
    SYS(mprotect((void *)cell, PAGE, RW));
  }
  finished = 1;
  pthread_join(t, NULL);
  CHECK_EQ(bad, 0);
}

/* Two words written in order: a fork is one moment for both of them. */
static void *write_in_order(void *arg) {
  volatile uint64_t *w = arg;

  for (uint64_t i = 1; !finished; i++) {
    w[0] = i;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    w[4096 * 8 / 8] = i; /* eight pages further on */
  }
  return NULL;
}

TEST_LIMIT(fork_is_one_moment, 30) {
  uint64_t *w = map_anon(16 * PAGE, RW);
  pthread_t t;

  REQUIRE(pthread_create(&t, NULL, write_in_order, w) == 0);
  for (int i = 0; i < rounds(40); i++)
    WAIT_OK(CHILD(uint64_t a = w[0]; uint64_t b = w[4096]; CHECK(a == b || a == b + 1); usleep(200);
                  CHECK_EQ(w[0], a); CHECK_EQ(w[4096], b)));
  finished = 1;
  pthread_join(t, NULL);
}

/* Buffers that vanish under a copying system call: an errno or a part, never a crash or another's bytes. */
static unsigned char *volatile shaky;

static void *shake(void *arg) {
  while (!finished) {
    munmap(shaky, 16 * PAGE);
    mmap(shaky, 16 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mprotect(shaky + 4 * PAGE, PAGE, PROT_NONE);
    madvise(shaky, 16 * PAGE, MADV_DONTNEED);
  }
  return NULL;
}

TEST_LIMIT(buffers_vanish_under_copies, 30) {
  static unsigned char file_bytes[16 * 4096], back[16 * 4096];
  int fd = tmp_file("f", ""), out = tmp_file("out", "");
  pthread_t t;

  memset(file_bytes, 0x77, sizeof file_bytes);
  write_full(fd, file_bytes, sizeof file_bytes);
  shaky = map_anon(16 * PAGE, RW);
  REQUIRE(pthread_create(&t, NULL, shake, NULL) == 0);
  for (int i = 0; i < rounds(800); i++) {
    ssize_t n = pread(fd, shaky, sizeof file_bytes, 0);
    if (n < 0)
      CHECK_EQ(errno, EFAULT);
    n = pwrite(out, shaky, sizeof file_bytes, 0);
    if (n < 0)
      CHECK_EQ(errno, EFAULT);
    else
      pread(out, back, (size_t)n, 0);
    for (ssize_t k = 0; k < n; k += 97)
      if (back[k] != 0 && back[k] != 0x77) {
        check_fail(__FILE__, __LINE__, "a byte 0x%02x that nobody wrote", back[k]);
        i = 1 << 30;
        break;
      }
  }
  finished = 1;
  pthread_join(t, NULL);
}

static void *map_storm(void *arg) {
  unsigned char *base = arg;
  uint64_t rng = (uint64_t)(uintptr_t)&rng;

  for (int i = 0; i < rounds(300); i++) {
    size_t at = next_random(&rng) % 60 * PAGE, len = (1 + next_random(&rng) % 4) * PAGE;
    switch (next_random(&rng) % 4) {
    case 0:
      mmap(base + at, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      break;
    case 1:
      munmap(base + at, len);
      break;
    case 2:
      mprotect(base + at, len, next_random(&rng) % 2 ? PROT_READ : RW);
      break;
    default:
      madvise(base + at, len, MADV_DONTNEED);
    }
  }
  return NULL;
}

/* Eight threads fight over one range: afterwards the kernel's book agrees with the memory. */
TEST_LIMIT(one_range_many_hands, 30) {
  unsigned char *base = map_anon(64 * PAGE, RW);
  pthread_t t[8];

  for (int i = 0; i < 8; i++)
    REQUIRE(pthread_create(&t[i], NULL, map_storm, base) == 0);
  for (int i = 0; i < 8; i++)
    pthread_join(t[i], NULL);
  for (int i = 0; i < 64; i++) {
    unsigned char vec;
    bool mapped = mincore(base + i * (long)PAGE, PAGE, &vec) == 0;
    CHECK_EQ(touch_read(base + i * (long)PAGE, NULL), mapped ? 0 : SIGSEGV);
    CHECK_OK(mmap(base + i * (long)PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
                     MAP_FAILED
                 ? -1
                 : 0);
    CHECK(all_bytes(base + i * (long)PAGE, PAGE, 0));
  }
}
