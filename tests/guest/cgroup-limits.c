/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup-limits.c - the controllers pids, memory and cpu of control groups version 2. */
#include "cgroup.h"

#include <pthread.h>

#define MB (1024 * 1024L)

/* ---- pids ---- */

static void *idle(void *p) {
  for (;;)
    pause();
  return p;
}

/* Starts sleeping children until fork fails; how many there are, the error in *err. */
static int fork_until_refused(int most, int *err) {
  int n = 0;

  for (*err = 0; n < most; n++) {
    pid_t pid = fork();
    if (pid < 0) {
      *err = errno;
      break;
    }
    if (pid == 0)
      for (;;)
        pause();
  }
  return n;
}

TEST(pids_max_is_exact) {
  cg_base("+pids");
  SYS(mkdir(cg("a"), 0755));
  CHECK_STR(cg_read(cg("a/pids.max")), "max\n");
  SYS(cg_write(cg("a/pids.max"), "6"));
  CHECK_STR(cg_read(cg("a/pids.max")), "6\n");
  WAIT_OK(CHILD(int err; cg_enter(cg("a"), getpid()); CHECK_EQ(fork_until_refused(20, &err), 5);
                CHECK_EQ(err, EAGAIN); CHECK_EQ(atoi(cg_read(cg("a/pids.current"))), 6);
                CHECK(cg_value(cg("a/pids.events"), "max") >= 1);
                CHECK_EQ(atoi(cg_read(cg("a/pids.peak"))), 6); pthread_t t;
                CHECK_EQ(pthread_create(&t, NULL, idle, NULL), EAGAIN); cg_enter(cg(".."), getpid());
                SYS(cg_write(cg("a/cgroup.kill"), "1")); while (wait(NULL) > 0);));
  WAIT_FOR(atoi(cg_read(cg("a/pids.current"))) == 0);
  CHECK_ERRNO(cg_write(cg("a/pids.max"), "-1"), EINVAL);
  CHECK_ERRNO(cg_write(cg("a/pids.max"), "few"), EINVAL);
}

TEST(pids_count_threads_and_zombies) {
  cg_base("+pids");
  SYS(mkdir(cg("a"), 0755));
  WAIT_OK(CHILD(cg_enter(cg("a"), getpid()); pthread_t t; SYS(-pthread_create(&t, NULL, idle, NULL));
                CHECK_EQ(atoi(cg_read(cg("a/pids.current"))), 2); pid_t z = CHILD(_exit(0)); siginfo_t si;
                SYS(waitid(P_PID, z, &si, WEXITED | WNOWAIT));
                CHECK_EQ(atoi(cg_read(cg("a/pids.current"))), 3); SYS(waitpid(z, NULL, 0));
                CHECK_EQ(atoi(cg_read(cg("a/pids.current"))), 2)));
  WAIT_FOR(atoi(cg_read(cg("a/pids.current"))) == 0);
}

TEST(pids_are_bounded_by_every_ancestor) {
  cg_base("+pids");
  SYS(mkdir(cg("a"), 0755));
  SYS(cg_write(cg("a/cgroup.subtree_control"), "+pids"));
  SYS(mkdir(cg("a/b"), 0755));
  SYS(cg_write(cg("a/pids.max"), "4"));
  WAIT_OK(CHILD(int err; cg_enter(cg("a/b"), getpid()); CHECK_EQ(fork_until_refused(20, &err), 3);
                CHECK_EQ(err, EAGAIN)));
  SYS(cg_write(cg("a/cgroup.kill"), "1"));
  /* A move may exceed the limit, a fork may not. */
  SYS(cg_write(cg("a/pids.max"), "0"));
  WAIT_OK(CHILD(cg_enter(cg("a/b"), getpid()); CHECK_ERRNO(fork(), EAGAIN)));
  /* Children cannot be put in past it either. */
}

TEST_LIMIT(fork_bomb, 30) {
  cg_base("+pids");
  SYS(mkdir(cg("bomb"), 0755));
  SYS(cg_write(cg("bomb/pids.max"), "20"));
  int gate[2];
  SYS(pipe(gate));
  pid_t pid = CHILD(char c; read(gate[0], &c, 1); for (;;) fork());

  cg_enter(cg("bomb"), pid);
  SYS(write(gate[1], "x", 1));
  int most = 0;
  for (int64_t end = now_ns() + 1000000000LL; now_ns() < end; sleep_ms(5)) {
    int n = atoi(cg_read(cg("bomb/pids.current")));
    most = n > most ? n : most;
  }
  CHECK_EQ(most, 20);
  CHECK_EQ(atoi(cg_read(cg("bomb/pids.peak"))), 20);
  WAIT_OK(CHILD()); /* we may still fork */
  SYS(cg_write(cg("bomb/cgroup.kill"), "1"));
  waitpid(pid, NULL, 0);
  WAIT_FOR(atoi(cg_read(cg("bomb/pids.current"))) <= 20);
  WAIT_FOR(cg_value(cg("bomb/cgroup.events"), "populated") == 0);
}

/* ---- memory ---- */

static long current(const char *dir) { return atol(cg_read(cg("%s/memory.current", dir))); }

static void touch(char *p, long n) {
  for (long i = 0; i < n; i += 4096)
    p[i] = 1;
}

TEST_LIMIT(memory_is_counted_where_it_is_taken, 20) {
  cg_base("+memory");
  SYS(mkdir(cg("a"), 0755));
  SYS(mkdir(cg("b"), 0755));
  int *step = map_shared(PAGE);
  pid_t pid =
      CHILD(char *p = map_anon(256 * MB, PROT_READ | PROT_WRITE);
            while (*(volatile int *)step != 1) sleep_ms(1); touch(p, 40 * MB); *step = 2;
            while (*(volatile int *)step != 3) sleep_ms(1); munmap(p, 256 * MB); *step = 4; for (;;) pause());

  cg_enter(cg("a"), pid);
  CHECK(current("a") < 8 * MB); /* mapping is not using */
  *step = 1;
  WAIT_FOR(*(volatile int *)step == 2);
  CHECK(current("a") >= 40 * MB && current("a") < 50 * MB);
  CHECK(cg_value(cg("a/memory.stat"), "anon") >= 40 * MB);
  cg_enter(cg("b"), pid); /* what it has stays charged to a */
  CHECK(current("a") >= 40 * MB);
  CHECK(current("b") < 8 * MB);
  *step = 3;
  WAIT_FOR(*(volatile int *)step == 4);
  WAIT_FOR(current("a") < 8 * MB);
  CHECK(atol(cg_read(cg("a/memory.peak"))) >= 40 * MB);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

static int bomb(long step_bytes) {
  for (;;) {
    char *p = mmap(NULL, step_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      return 1;
    touch(p, step_bytes);
  }
}

static void bomb_dies(long step_bytes) {
  SYS(mkdir(cg("bomb"), 0755));
  SYS(cg_write(cg("bomb/memory.max"), "64M"));
  if (access(cg("bomb/memory.swap.max"), F_OK) == 0)
    SYS(cg_write(cg("bomb/memory.swap.max"), "0"));
  CHECK_EQ(atol(cg_read(cg("bomb/memory.max"))), 64 * MB);
  SYS(mkdir(cg("good"), 0755));
  SYS(cg_write(cg("good/memory.max"), "64M"));
  volatile uint64_t *n = map_shared(PAGE);
  pid_t good = CHILD(char *p = map_anon(32 * MB, PROT_READ | PROT_WRITE); for (;;) {
    touch(p, 32 * MB);
    (*n)++;
  });
  cg_enter(cg("good"), good);
  pid_t bad = CHILD(cg_enter(cg("bomb"), getpid()); _exit(bomb(step_bytes)));
  int st = check_wait(bad);
  CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
  CHECK_EQ(cg_value(cg("bomb/memory.events"), "oom_kill"), 1);
  CHECK(cg_value(cg("bomb/memory.events"), "oom") >= 1);
  CHECK(cg_value(cg("bomb/memory.events"), "max") >= 1);
  CHECK(atol(cg_read(cg("bomb/memory.peak"))) < 128 * MB);
  CHECK_EQ(cg_value(cg("good/memory.events"), "oom_kill"), 0);
  uint64_t before = *n;
  WAIT_FOR(*n > before);
  CHECK_EQ(waitpid(good, NULL, WNOHANG), 0);
  kill(good, SIGKILL);
  waitpid(good, NULL, 0);
}

TEST_LIMIT(a_memory_bomb_dies_alone, 30) {
  cg_base("+memory");
  bomb_dies(1 * MB);
}

TEST_LIMIT(a_bomb_of_large_pieces_dies_too, 30) {
  cg_base("+memory");
  bomb_dies(200 * MB);
}

TEST_LIMIT(untouched_memory_kills_nobody, 30) {
  cg_base("+memory");
  SYS(mkdir(cg("a"), 0755));
  SYS(cg_write(cg("a/memory.max"), "32M"));
  WAIT_OK(CHILD(
      cg_enter(cg("a"), getpid()); for (int i = 0; i < 20; i++) {
        char *p = map_anon(60 * MB, PROT_READ | PROT_WRITE);
        p[0] = 1;
      } for (int i = 0; i < 20; i++) { /* taken and given back */
                                       char *p = map_anon(8 * MB, PROT_READ | PROT_WRITE);
                                       touch(p, 8 * MB);
                                       munmap(p, 8 * MB);
      }));
  CHECK_EQ(cg_value(cg("a/memory.events"), "oom_kill"), 0);
}

TEST_LIMIT(the_largest_dies_or_all, 30) {
  cg_base("+memory");
  SYS(mkdir(cg("a"), 0755));
  SYS(cg_write(cg("a/memory.max"), "64M"));
  if (access(cg("a/memory.swap.max"), F_OK) == 0)
    SYS(cg_write(cg("a/memory.swap.max"), "0"));
  for (int group = 0; group < 2; group++) {
    SYS(cg_write(cg("a/memory.oom.group"), group ? "1" : "0"));
    pid_t small = CHILD(for (;;) pause());
    cg_enter(cg("a"), small);
    pid_t bad = CHILD(cg_enter(cg("a"), getpid()); _exit(bomb(1 * MB)));
    int st = check_wait(bad);
    CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
    sleep_ms(50);
    CHECK_EQ(waitpid(small, NULL, WNOHANG), group ? small : 0);
    kill(small, SIGKILL);
    waitpid(small, NULL, 0);
  }
}

TEST_LIMIT(a_parent_bounds_its_children, 30) {
  cg_base("+memory");
  SYS(mkdir(cg("a"), 0755));
  SYS(cg_write(cg("a/cgroup.subtree_control"), "+memory"));
  SYS(mkdir(cg("a/b"), 0755));
  SYS(cg_write(cg("a/memory.max"), "48M"));
  CHECK_ERRNO(cg_write(cg("a/cgroup.procs"), "0"), EBUSY); /* no processes where memory is shared out */
  pid_t bad = CHILD(cg_enter(cg("a/b"), getpid()); _exit(bomb(1 * MB)));
  int st = check_wait(bad);
  CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
  CHECK_EQ(cg_value(cg("a/memory.events"), "oom_kill"), 1);
  CHECK_EQ(cg_value(cg("a/b/memory.events"), "oom_kill"), 1);
  CHECK_EQ(cg_value(cg("a/b/memory.events"), "oom"), 0);
  CHECK_EQ(cg_value(cg("a/memory.events.local"), "oom"), 1);
}

TEST(memory_settings) {
  cg_base("+memory");
  SYS(mkdir(cg("a"), 0755));
  CHECK_STR(cg_read(cg("a/memory.max")), "max\n");
  CHECK_STR(cg_read(cg("a/memory.low")), "0\n");
  SYS(cg_write(cg("a/memory.high"), "1g"));
  CHECK_STR(cg_read(cg("a/memory.high")), "1073741824\n");
  SYS(cg_write(cg("a/memory.max"), "1000000")); /* whole pages */
  CHECK_STR(cg_read(cg("a/memory.max")), "999424\n");
  SYS(cg_write(cg("a/memory.min"), "max"));
  CHECK_STR(cg_read(cg("a/memory.min")), "max\n");
  CHECK_ERRNO(cg_write(cg("a/memory.max"), "much"), EINVAL);
  CHECK_ERRNO(cg_write(cg("a/memory.oom.group"), "2"), EINVAL);
}

/* ---- cpu ---- */

TEST_LIMIT(cpu_time_is_counted, 20) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  SYS(mkdir(cg("a/b"), 0755));
  pid_t pid = CHILD(cg_enter(cg("a/b"), getpid()); for (;;) clock() > CLOCKS_PER_SEC / 2 ? exit(0) : (void)0);
  waitpid(pid, NULL, 0);
  long long used = cg_value(cg("a/cpu.stat"), "usage_usec");
  CHECK(used >= 350000 && used <= 900000);
  long long sum = cg_value(cg("a/cpu.stat"), "user_usec") + cg_value(cg("a/cpu.stat"), "system_usec");
  CHECK(sum >= used - 2 && sum <= used + 2);
  SYS(rmdir(cg("a/b")));
  CHECK(cg_value(cg("a/cpu.stat"), "usage_usec") >= used); /* what a removed one used remains */
}

TEST_LIMIT(cpu_max_holds_back, 30) {
  cg_base("+cpu");
  SYS(mkdir(cg("a"), 0755));
  CHECK_STR(cg_read(cg("a/cpu.max")), "max 100000\n");
  SYS(cg_write(cg("a/cpu.max"), "20000 100000"));
  CHECK_STR(cg_read(cg("a/cpu.max")), "20000 100000\n");
  pid_t pid = CHILD(cg_enter(cg("a"), getpid()); for (;;));
  sleep_ms(2000);
  long long used = cg_value(cg("a/cpu.stat"), "usage_usec");
  CHECK(used >= 200000 && used <= 650000); /* a fifth of two seconds */
  CHECK(cg_value(cg("a/cpu.stat"), "nr_throttled") >= 5);
  CHECK(cg_value(cg("a/cpu.stat"), "throttled_usec") > 500000);
  SYS(cg_write(cg("a/cpu.max"), "max"));
  long long before = cg_value(cg("a/cpu.stat"), "usage_usec");
  WAIT_FOR(cg_value(cg("a/cpu.stat"), "usage_usec") > before + 300000);
  SYS(cg_write(cg("a/cpu.max"), "1000")); /* held, it can still be killed */
  sleep_ms(200);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

TEST(cpu_settings) {
  cg_base("+cpu");
  SYS(mkdir(cg("a"), 0755));
  CHECK_STR(cg_read(cg("a/cpu.weight")), "100\n");
  CHECK_STR(cg_read(cg("a/cpu.weight.nice")), "0\n");
  SYS(cg_write(cg("a/cpu.weight"), "500"));
  CHECK_STR(cg_read(cg("a/cpu.weight")), "500\n");
  CHECK_ERRNO(cg_write(cg("a/cpu.weight"), "0"), ERANGE);
  CHECK_ERRNO(cg_write(cg("a/cpu.weight"), "10001"), ERANGE);
  SYS(cg_write(cg("a/cpu.weight.nice"), "-5"));
  CHECK(atoi(cg_read(cg("a/cpu.weight"))) > 280 && atoi(cg_read(cg("a/cpu.weight"))) < 320);
  CHECK_STR(cg_read(cg("a/cpu.weight.nice")), "-5\n");
  CHECK_ERRNO(cg_write(cg("a/cpu.max"), "10 100000"), EINVAL);
  CHECK_ERRNO(cg_write(cg("a/cpu.max"), "1000 10"), EINVAL);
}

TEST(controllers_are_switched) {
  cg_base("+pids +cpu");
  SYS(mkdir(cg("a"), 0755));
  CHECK_OK(access(cg("a/pids.max"), F_OK));
  CHECK_ERRNO(access(cg("a/memory.max"), F_OK), ENOENT);
  SYS(cg_write(cg("a/cgroup.subtree_control"), "+pids"));
  SYS(mkdir(cg("a/b"), 0755));
  CHECK_ERRNO(access(cg("a/b/cpu.max"), F_OK), ENOENT);
  CHECK_ERRNO(cg_write(cg("cgroup.subtree_control"), "-pids"), EBUSY); /* a has it on */
  SYS(cg_write(cg("a/cgroup.subtree_control"), "-pids"));
  CHECK_ERRNO(access(cg("a/b/pids.max"), F_OK), ENOENT);
  SYS(cg_write(cg("cgroup.subtree_control"), "-pids"));
  CHECK_ERRNO(access(cg("a/pids.max"), F_OK), ENOENT);
}
