/* SPDX-License-Identifier: Apache-2.0 */
/* futex.c - futex(2): every operation of issue 2, private and shared, its timeouts and its errors (X8). */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>

static long futex(volatile void *word, int op, unsigned val, const void *timeout, volatile void *word2,
                  unsigned val3) {
  return syscall(SYS_futex, word, op, val, timeout, word2, val3);
}

/* val2 travels in the timeout's place. */
#define VAL2(n) ((const void *)(uintptr_t)(n))

typedef struct {
  volatile int *word;
  int op, val;
  unsigned bits;
  volatile int state; /* 1 started, 2 woken */
  volatile long result;
  volatile int error;
  pthread_t thread;
} Waiter;

static void *wait_main(void *arg) {
  Waiter *w = arg;
  struct timespec ts = ts_ms(8000);
  const void *timeout = &ts;

  if ((w->op & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) { /* absolute */
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += 8;
  }
  w->state = 1;
  w->result = futex(w->word, w->op, (unsigned)w->val, timeout, NULL, w->bits);
  w->error = errno;
  w->state = 2;
  return NULL;
}

static void start_waiter(Waiter *w, volatile int *word, int op, unsigned bits) {
  *w = (Waiter){.word = word, .op = op, .val = *word, .bits = bits};
  REQUIRE(pthread_create(&w->thread, NULL, wait_main, w) == 0);
  WAIT_FOR(w->state >= 1);
}

static void join_waiter(Waiter *w) {
  pthread_join(w->thread, NULL);
  CHECK_EQ(w->result, 0);
}

/* Wakes until n have been woken in all: a waiter may not be asleep yet. */
static void wake_until(volatile int *word, int op, unsigned bits, int n) {
  int64_t until = now_ns() + 8000000000LL;

  while (n > 0 && now_ns() < until) {
    long r = SYS(futex(word, op, (unsigned)n, NULL, NULL, bits));
    n -= (int)r;
    if (n > 0)
      sleep_ms(1);
  }
  CHECK_EQ(n, 0);
}

TEST(wait_value_differs) {
  int word = 5;

  CHECK_ERRNO(futex(&word, FUTEX_WAIT, 4, NULL, NULL, 0), EAGAIN);
  CHECK_ERRNO(futex(&word, FUTEX_WAIT_PRIVATE, 4, NULL, NULL, 0), EAGAIN);
  CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET, 4, NULL, NULL, 1), EAGAIN);
}

TEST(wake_without_waiters) {
  int word = 0;

  CHECK_EQ(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
  CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0), 0);
}

TEST(wait_and_wake) {
  static const int ops[2][2] = {{FUTEX_WAIT, FUTEX_WAKE}, {FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE}};

  for (int i = 0; i < 2; i++) {
    volatile int word = 0;
    Waiter w;
    start_waiter(&w, &word, ops[i][0], 0);
    wake_until(&word, ops[i][1], 0, 1);
    join_waiter(&w);
  }
}

TEST(wake_counts) {
  enum { N = 5 };
  volatile int word = 0;
  Waiter w[N];

  for (int i = 0; i < N; i++)
    start_waiter(&w[i], &word, FUTEX_WAIT_PRIVATE, 0);
  sleep_ms(50);
  wake_until(&word, FUTEX_WAKE_PRIVATE, 0, 2);
  int awake = 0;
  WAIT_FOR(({
    awake = 0;
    for (int i = 0; i < N; i++)
      awake += w[i].state == 2;
    awake >= 2;
  }));
  sleep_ms(20);
  awake = 0;
  for (int i = 0; i < N; i++)
    awake += w[i].state == 2;
  CHECK_EQ(awake, 2);
  wake_until(&word, FUTEX_WAKE_PRIVATE, 0, 3);
  for (int i = 0; i < N; i++)
    join_waiter(&w[i]);
}

TEST(bitset_selects) {
  volatile int word = 0;
  Waiter a, b;

  start_waiter(&a, &word, FUTEX_WAIT_BITSET_PRIVATE, 1);
  start_waiter(&b, &word, FUTEX_WAIT_BITSET_PRIVATE, 6);
  sleep_ms(20);
  CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 8), 0);
  wake_until(&word, FUTEX_WAKE_BITSET_PRIVATE, 2, 1);
  join_waiter(&b);
  CHECK_EQ(a.state, 1);
  wake_until(&word, FUTEX_WAKE_PRIVATE, 0, 1); /* a plain wake matches every bit */
  join_waiter(&a);
}

TEST(bitset_zero_is_einval) {
  int word = 0;

  CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0), EINVAL);
  CHECK_ERRNO(futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0), EINVAL);
}

TEST(bad_arguments) {
  int words[2] = {0};
  struct timespec bad = {0, 1000000000}, negative = {-1, 0};

  CHECK_ERRNO(futex((char *)words + 1, FUTEX_WAIT, 0, NULL, NULL, 0), EINVAL);
  CHECK_ERRNO(futex((char *)words + 2, FUTEX_WAKE, 1, NULL, NULL, 0), EINVAL);
  CHECK_ERRNO(futex((void *)8, FUTEX_WAIT, 0, NULL, NULL, 0), EFAULT);
  CHECK_ERRNO(futex((void *)8, FUTEX_WAKE, 1, NULL, NULL, 0), EFAULT);
  CHECK_EQ(futex((void *)8, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0),
           0); /* private: the address is only a key */
  CHECK_ERRNO(futex(words, FUTEX_WAIT, 0, &bad, NULL, 0), EINVAL);
  CHECK_ERRNO(futex(words, FUTEX_WAIT, 0, &negative, NULL, 0), EINVAL);
  CHECK_ERRNO(futex(words, FUTEX_WAIT, 0, (void *)8, NULL, 0), EFAULT);
  CHECK_ERRNO(futex(words, 99, 0, NULL, NULL, 0), ENOSYS);
  CHECK_ERRNO(futex(words, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0), ENOSYS);
  CHECK_ERRNO(futex((void *)0xffff800000000000ul, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EFAULT);
}

TEST(wait_on_prot_none_and_read_only) {
  int *none = map_anon(PAGE, PROT_NONE), *ro = map_anon(PAGE, PROT_READ);

  CHECK_ERRNO(futex(none, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EFAULT);
  CHECK_ERRNO(futex(ro, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0), EAGAIN);
  CHECK_ERRNO(futex(ro, FUTEX_WAKE_OP_PRIVATE, 1, VAL2(1), ro, FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0)),
              EFAULT);
}

TEST(relative_timeout) {
  int word = 0;
  struct timespec ts = ts_ms(60), zero = {0};
  int64_t start = now_ns();

  CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), ETIMEDOUT);
  int64_t took = now_ns() - start;
  CHECK(took >= 59000000 && took < 5000000000LL);
  CHECK_ERRNO(futex(&word, FUTEX_WAIT_PRIVATE, 0, &zero, NULL, 0), ETIMEDOUT);
}

TEST(absolute_timeout) {
  static const clockid_t clocks[2] = {CLOCK_MONOTONIC, CLOCK_REALTIME};

  for (int i = 0; i < 2; i++) {
    int word = 0;
    struct timespec ts, past = {1, 0};
    int op = FUTEX_WAIT_BITSET | (i ? FUTEX_CLOCK_REALTIME : 0);
    clock_gettime(clocks[i], &ts);
    ts.tv_nsec += 60000000;
    if (ts.tv_nsec >= 1000000000) {
      ts.tv_nsec -= 1000000000;
      ts.tv_sec++;
    }
    int64_t start = now_ns();
    CHECK_ERRNO(futex(&word, op, 0, &ts, NULL, FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
    CHECK(now_ns() - start >= 55000000);
    CHECK_ERRNO(futex(&word, op, 0, &past, NULL, FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
  }
}

TEST(requeue_moves_waiters) {
  enum { N = 4 };
  volatile int a = 0, b = 0;
  Waiter w[N];

  for (int i = 0; i < N; i++)
    start_waiter(&w[i], &a, FUTEX_WAIT_PRIVATE, 0);
  sleep_ms(100);
  long r = futex(&a, FUTEX_REQUEUE_PRIVATE, 1, VAL2(10), &b, 0);
  CHECK(r >= 1 && r <= N);
  CHECK_EQ(r, N);
  CHECK_EQ(futex(&a, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 0);
  wake_until(&b, FUTEX_WAKE_PRIVATE, 0, N - 1);
  for (int i = 0; i < N; i++)
    join_waiter(&w[i]);
}

TEST(cmp_requeue) {
  volatile int a = 3, b = 0;
  Waiter w[3];

  CHECK_ERRNO(futex(&a, FUTEX_CMP_REQUEUE_PRIVATE, 1, VAL2(1), &b, 4), EAGAIN);
  CHECK_EQ(futex(&a, FUTEX_CMP_REQUEUE_PRIVATE, 1, VAL2(1), &b, 3), 0);
  CHECK_ERRNO(futex(&a, FUTEX_CMP_REQUEUE_PRIVATE, (unsigned)-1, VAL2(1), &b, 3), EINVAL);
  for (int i = 0; i < 3; i++)
    start_waiter(&w[i], &a, FUTEX_WAIT_PRIVATE, 0);
  sleep_ms(100);
  CHECK_EQ(futex(&a, FUTEX_CMP_REQUEUE_PRIVATE, 0, VAL2(2), &b, 3), 2);
  CHECK_EQ(futex(&a, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 1);
  CHECK_EQ(futex(&b, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 2);
  for (int i = 0; i < 3; i++)
    join_waiter(&w[i]);
}

TEST(requeued_waiter_times_out) {
  volatile int a = 0, b = 0;
  Waiter w = {.word = &a, .op = FUTEX_WAIT_PRIVATE};

  start_waiter(&w, &a, FUTEX_WAIT_PRIVATE, 0);
  sleep_ms(50);
  futex(&a, FUTEX_REQUEUE_PRIVATE, 0, VAL2(1), &b, 0);
  wake_until(&b, FUTEX_WAKE_PRIVATE, 0, 1);
  join_waiter(&w);
}

TEST(wake_op_arithmetic) {
  static const struct {
    int op, arg, start, want;
  } t[] = {{FUTEX_OP_SET, 7, 3, 7},
           {FUTEX_OP_ADD, 5, 3, 8},
           {FUTEX_OP_OR, 12, 3, 15},
           {FUTEX_OP_ANDN, 2, 3, 1},
           {FUTEX_OP_XOR, 6, 3, 5},
           {FUTEX_OP_ADD, 0xfff, 3, 2},
           {FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 4, 0, 16}};
  int a = 0;

  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    int b = t[i].start;
    unsigned code =
        ((unsigned)t[i].op & 15) << 28 | FUTEX_OP_CMP_EQ << 24 | ((unsigned)t[i].arg & 0xfff) << 12;
    CHECK_EQ(futex(&a, FUTEX_WAKE_OP_PRIVATE, 1, VAL2(1), &b, code), 0);
    CHECK_EQ(b, t[i].want);
  }
}

TEST(wake_op_wakes_by_condition) {
  volatile int a = 0, b = 0;
  Waiter wa, wb;

  start_waiter(&wa, &a, FUTEX_WAIT_PRIVATE, 0);
  start_waiter(&wb, &b, FUTEX_WAIT_PRIVATE, 0);
  sleep_ms(100);
  CHECK_EQ(futex(&a, FUTEX_WAKE_OP_PRIVATE, 5, VAL2(5), &b, FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_GT, 10)),
           1);
  CHECK_EQ(b, 1);
  join_waiter(&wa);
  CHECK_EQ(futex(&a, FUTEX_WAKE_OP_PRIVATE, 5, VAL2(5), &b, FUTEX_OP(FUTEX_OP_SET, 2, FUTEX_OP_CMP_LT, 10)),
           1);
  join_waiter(&wb);
  CHECK_EQ(b, 2);
}

static void wait_in_child(volatile int *word, volatile int *asleep) {
  struct timespec ts = ts_ms(8000);

  *asleep = 1;
  CHECK_EQ(futex(word, FUTEX_WAIT, 0, &ts, NULL, 0), 0);
}

TEST(shared_between_processes_anon) {
  volatile int *s = map_shared(PAGE);
  pid_t pid = CHILD(wait_in_child(&s[0], &s[1]));

  WAIT_FOR(s[1]);
  wake_until(&s[0], FUTEX_WAKE, 0, 1);
  WAIT_OK(pid);
}

/* X8: two processes that mapped the file on their own, at different addresses and offsets. */
TEST(shared_between_processes_file) {
  SYS(ftruncate(tmp_file("f", ""), 4 * PAGE));
  char path[256];
  strcpy(path, tmp_path("f"));
  int fd = (int)SYS(open(path, O_RDWR));
  volatile int *s = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(s != MAP_FAILED);
  pid_t pid = CHILD(int mine = (int)SYS(open(path, O_RDWR));
                    volatile int *m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mine, 2 * PAGE);
                    REQUIRE(m != MAP_FAILED); wait_in_child(&m[0], &m[1]));
  volatile int *word = s + 2 * 1024;
  WAIT_FOR(word[1]);
  wake_until(word, FUTEX_WAKE, 0, 1);
  WAIT_OK(pid);
}

TEST(shared_memfd) {
  int fd = (int)SYS(memfd_create("futex", 0));
  SYS(ftruncate(fd, PAGE));
  volatile int *s = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  volatile int *again = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

  REQUIRE(s != MAP_FAILED && again != MAP_FAILED);
  pid_t pid = CHILD(wait_in_child(&s[0], &s[1]));
  WAIT_FOR(s[1]);
  wake_until(&again[0], FUTEX_WAKE, 0, 1);
  WAIT_OK(pid);
}

TEST(private_is_not_seen_by_others) {
  volatile int *s = map_shared(PAGE);
  pid_t pid = CHILD(struct timespec ts = ts_ms(200); s[1] = 1;
                    CHECK_ERRNO(futex(&s[0], FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0), ETIMEDOUT));
  WAIT_FOR(s[1]);
  sleep_ms(30);
  CHECK_EQ(futex(&s[0], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 0);
  WAIT_OK(pid);
}

TEST(cow_copies_are_different_futexes) {
  volatile int *word = map_anon(PAGE, PROT_READ | PROT_WRITE);
  int fds[2];
  char c;

  SYS(pipe(fds));
  *word = 0;
  pid_t pid = CHILD(struct timespec ts = ts_ms(200); write_full(fds[1], "x", 1);
                    CHECK_ERRNO(futex(word, FUTEX_WAIT, 0, &ts, NULL, 0), ETIMEDOUT));
  read_full(fds[0], &c, 1);
  sleep_ms(30);
  CHECK_EQ(futex(word, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
  WAIT_OK(pid);
}

TEST(wait_sees_a_racing_store) {
  /* Either the wait refuses or it is woken; it never sleeps over a change. */
  volatile int *s = map_shared(PAGE);
  enum { N = 2000 };
  pid_t pid = CHILD(for (int i = 0; i < N; i++) {
    while (s[0] == i)
      futex(&s[0], FUTEX_WAIT, (unsigned)i, NULL, NULL, 0);
    s[1] = i + 1;
    futex(&s[1], FUTEX_WAKE, 1, NULL, NULL, 0);
  });

  for (int i = 0; i < N; i++) {
    s[0] = i + 1;
    futex(&s[0], FUTEX_WAKE, 1, NULL, NULL, 0);
    while (s[1] == i)
      futex(&s[1], FUTEX_WAIT, (unsigned)i, NULL, NULL, 0);
  }
  WAIT_OK(pid);
}

TEST(waiter_killed) {
  volatile int *s = map_shared(PAGE);
  pid_t pid = CHILD(s[1] = 1; futex(&s[0], FUTEX_WAIT, 0, NULL, NULL, 0));

  WAIT_FOR(s[1]);
  sleep_ms(20);
  kill(pid, SIGKILL);
  check_wait(pid);
  CHECK_EQ(futex(&s[0], FUTEX_WAKE, 1, NULL, NULL, 0), 0);
}

TEST(unmapped_while_waiting) {
  volatile int *s = map_shared(PAGE);
  Waiter w;

  start_waiter(&w, s, FUTEX_WAIT, 0);
  sleep_ms(30);
  volatile int *alias = mremap((void *)s, 0, PAGE, MREMAP_MAYMOVE);
  REQUIRE(alias != MAP_FAILED);
  SYS(munmap((void *)s, PAGE));
  wake_until(alias, FUTEX_WAKE, 0, 1);
  join_waiter(&w);
}
