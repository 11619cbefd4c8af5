/* SPDX-License-Identifier: Apache-2.0 */
/* signals-restart.c - system calls interrupted by a handler: restarted (SA_RESTART), EINTR, or what remains. */
#include "check.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>

static volatile int hits;

static void count(int sig) { hits++; }

/* Sends SIGUSR1 to the caller after 30 ms and runs FINISH after another 60 ms. */
#define PESTER(finish)                                                 \
  ({                                                                   \
    pid_t target_ = getpid();                                          \
    CHILD(sleep_ms(30); kill(target_, SIGUSR1); sleep_ms(60); finish); \
  })

TEST(read_pipe_restarts) {
  int fds[2];
  char c = 0;

  SYS(pipe(fds));
  on_signal(SIGUSR1, count, SA_RESTART);
  pid_t pid = PESTER(write_full(fds[1], "r", 1));
  CHECK_EQ(read(fds[0], &c, 1), 1);
  CHECK_EQ(c, 'r');
  CHECK_EQ(hits, 1);
  WAIT_OK(pid);
}

TEST(read_pipe_eintr) {
  int fds[2];
  char c;

  SYS(pipe(fds));
  on_signal(SIGUSR1, count, 0);
  pid_t pid = PESTER((void)0);
  CHECK_ERRNO(read(fds[0], &c, 1), EINTR);
  CHECK_EQ(hits, 1);
  WAIT_OK(pid);
}

TEST(ignored_signal_does_not_interrupt) {
  int fds[2];
  char c;

  SYS(pipe(fds));
  signal(SIGUSR1, SIG_IGN);
  signal(SIGWINCH, SIG_DFL);
  pid_t me = getpid();
  pid_t pid =
      CHILD(sleep_ms(20); kill(me, SIGUSR1); kill(me, SIGWINCH); sleep_ms(20); write_full(fds[1], "i", 1));
  CHECK_EQ(read(fds[0], &c, 1), 1);
  WAIT_OK(pid);
}

TEST(blocked_signal_does_not_interrupt) {
  int fds[2];
  char c;

  SYS(pipe(fds));
  on_signal(SIGUSR1, count, 0);
  block_signal(SIGUSR1);
  pid_t pid = PESTER(write_full(fds[1], "b", 1));
  CHECK_EQ(read(fds[0], &c, 1), 1);
  CHECK_EQ(hits, 0);
  WAIT_OK(pid);
}

TEST(write_full_pipe_partial) {
  int fds[2], size;
  static char big[1 << 20];

  SYS(pipe(fds));
  size = (int)SYS(fcntl(fds[1], F_GETPIPE_SZ));
  on_signal(SIGUSR1, count, SA_RESTART);
  pid_t pid = PESTER((void)0);
  ssize_t n = write(fds[1], big, sizeof big); /* what was written is returned, not restarted */
  CHECK_EQ(n, size);
  on_signal(SIGUSR1, count, 0);
  WAIT_OK(pid);
  pid = PESTER((void)0);
  CHECK_ERRNO(write(fds[1], big, 10), EINTR);
  WAIT_OK(pid);
}

TEST(nanosleep_remaining) {
  struct timespec want = ts_ms(4000), left = {-1, -1};

  on_signal(SIGUSR1, count, SA_RESTART); /* never restarted after a handler */
  pid_t pid = PESTER((void)0);
  CHECK_ERRNO(nanosleep(&want, &left), EINTR);
  int64_t ms = left.tv_sec * 1000 + left.tv_nsec / 1000000;
  CHECK(ms > 500 && ms <= 3980);
  WAIT_OK(pid);
}

TEST(clock_nanosleep_absolute_leaves_remaining_alone) {
  struct timespec until, left = {-7, -7};

  SYS(clock_gettime(CLOCK_MONOTONIC, &until));
  until.tv_sec += 5;
  on_signal(SIGUSR1, count, 0);
  pid_t pid = PESTER((void)0);
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, &left), EINTR);
  CHECK_EQ(left.tv_sec, -7);
  WAIT_OK(pid);
}

TEST(nanosleep_continues_over_stop) {
  /* Stop and continue have no handler: the sleep goes on (restart_syscall) and ends on time. */
  pid_t pid = CHILD(int64_t start = now_ns(); struct timespec ts = ts_ms(300); CHECK_OK(nanosleep(&ts, NULL));
                    CHECK(now_ns() - start >= 295000000));
  sleep_ms(50);
  kill(pid, SIGSTOP);
  sleep_ms(50);
  kill(pid, SIGCONT);
  WAIT_OK(pid);
}

TEST(pipe_read_continues_over_stop) {
  int fds[2];

  SYS(pipe(fds));
  pid_t pid = CHILD(char c; CHECK_EQ(read(fds[0], &c, 1), 1));
  sleep_ms(30);
  kill(pid, SIGSTOP);
  int status;
  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  kill(pid, SIGCONT);
  sleep_ms(30);
  write_full(fds[1], "x", 1);
  WAIT_OK(pid);
}

TEST(wait4_restarts_or_eintr) {
  int status;

  on_signal(SIGUSR1, count, SA_RESTART);
  pid_t pid = PESTER(_exit(4));
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(WEXITSTATUS(status), 4);
  CHECK_EQ(hits, 1);
  on_signal(SIGUSR1, count, 0);
  pid = PESTER(_exit(0));
  CHECK_ERRNO(waitpid(pid, &status, 0), EINTR);
  WAIT_OK(pid);
}

TEST(futex_wait_eintr) {
  int word = 0;
  struct timespec ts = ts_ms(5000);

  on_signal(SIGUSR1, count, SA_RESTART); /* with a timeout it is EINTR whatever SA_RESTART says */
  pid_t pid = PESTER((void)0);
  long r = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &ts, NULL, 0);
  CHECK(r == -1 && errno == EINTR);
  WAIT_OK(pid);
  on_signal(SIGUSR1, count, 0);
  pid = PESTER((void)0);
  CHECK_ERRNO(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0), EINTR);
  WAIT_OK(pid);
}

TEST(futex_wait_restarts) {
  int *word = map_shared(PAGE);

  on_signal(SIGUSR1, count, SA_RESTART);
  pid_t pid = PESTER(*word = 1; syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0));
  long r = syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
  CHECK(r == 0 || (r == -1 && errno == EAGAIN));
  CHECK_EQ(hits, 1);
  CHECK_EQ(*word, 1);
  WAIT_OK(pid);
}

/* signal(7): these give EINTR in spite of SA_RESTART. */
TEST(poll_family_never_restarts) {
  struct epoll_event ev;
  struct timespec ts = ts_ms(5000);
  struct timeval tv = {5, 0};
  int ep = (int)SYS(epoll_create1(0));

  on_signal(SIGUSR1, count, SA_RESTART);
  pid_t pid = PESTER((void)0);
  CHECK_ERRNO(poll(NULL, 0, 5000), EINTR);
  WAIT_OK(pid);
  pid = PESTER((void)0);
  CHECK_ERRNO(select(0, NULL, NULL, NULL, &tv), EINTR);
  WAIT_OK(pid);
  pid = PESTER((void)0);
  CHECK_ERRNO(ppoll(NULL, 0, &ts, NULL), EINTR);
  WAIT_OK(pid);
  pid = PESTER((void)0);
  CHECK_ERRNO(epoll_wait(ep, &ev, 1, 5000), EINTR);
  WAIT_OK(pid);
  pid = PESTER((void)0);
  CHECK_ERRNO(pause(), EINTR);
  WAIT_OK(pid);
  CHECK_EQ(hits, 5);
}

TEST(socket_calls_restart) {
  int fds[2];
  char c;

  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
  on_signal(SIGUSR1, count, SA_RESTART);
  pid_t pid = PESTER(write_full(fds[1], "s", 1));
  CHECK_EQ(recv(fds[0], &c, 1, 0), 1);
  CHECK_EQ(hits, 1);
  WAIT_OK(pid);
  struct timeval tv = {5, 0}; /* with a receive timeout it is EINTR always */
  SYS(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
  pid = PESTER((void)0);
  CHECK_ERRNO(recv(fds[0], &c, 1, 0), EINTR);
  WAIT_OK(pid);
}

TEST(flock_restarts) {
  int fd = tmp_file("lock", "");
  char path[256];

  strcpy(path, tmp_path("lock"));
  struct flock lk = {.l_type = F_WRLCK};
  SYS(fcntl(fd, F_SETLK, &lk));
  pid_t pid =
      CHILD(on_signal(SIGALRM, count, SA_RESTART); struct itimerval it = {.it_value = {0, 30000}};
            setitimer(ITIMER_REAL, &it, NULL); int f = (int)SYS(open(path, O_RDWR));
            struct flock mine = {.l_type = F_WRLCK}; CHECK_OK(fcntl(f, F_SETLKW, &mine)); CHECK_EQ(hits, 1));
  sleep_ms(150);
  lk.l_type = F_UNLCK;
  SYS(fcntl(fd, F_SETLK, &lk));
  WAIT_OK(pid);
}

TEST(storm_during_reads) {
  /* Thousands of signals while bytes move: none lost, none doubled. */
  int fds[2];
  enum { N = 4000 };
  volatile int *done = map_shared(PAGE);

  SYS(pipe(fds));
  on_signal(SIGUSR1, count, SA_RESTART);
  pid_t me = getpid();
  pid_t noisy = CHILD(while (!*done) {
    kill(me, SIGUSR1);
    usleep(50);
  }); /* a storm, not a denial of service */
  pid_t writer = CHILD(on_signal(SIGUSR1, count, SA_RESTART);
                       for (int i = 0; i < N; i++) write_full(fds[1], &(uint16_t){(uint16_t)i}, 2));
  int bad = 0;
  for (int i = 0; i < N; i++) {
    uint16_t v;
    read_full(fds[0], &v, 2);
    bad += v != (uint16_t)i;
  }
  *done = 1;
  CHECK_EQ(bad, 0);
  CHECK(hits > 0);
  WAIT_OK(writer);
  WAIT_OK(noisy);
}

static volatile long counted;

static void add_one(int sig) { counted++; }

TEST(signals_in_pure_computation) {
  struct itimerval it = {{0, 2000}, {0, 2000}};
  volatile double x = 1.0;

  on_signal(SIGALRM, add_one, 0);
  SYS(setitimer(ITIMER_REAL, &it, NULL));
  int64_t start = now_ns();
  for (long i = 0; counted < 20 && now_ns() - start < 5000000000LL; i++)
    for (int k = 0; k < 1000; k++)
      x = x * 1.0000001 + 1e-9;
  CHECK(counted >= 20);
  CHECK(x > 1.0);
}
