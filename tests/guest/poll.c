/* SPDX-License-Identifier: Apache-2.0 */
/* poll.c - poll(2), ppoll(2), select(2), pselect(2) and eventfd(2). */
#include "check.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>

static volatile int hits;

static void count(int sig) { hits++; }

static short poll1(int fd, short events, int ms) {
  struct pollfd p = {.fd = fd, .events = events};

  SYS(poll(&p, 1, ms));
  return p.revents;
}

TEST(poll_pipe_states) {
  int fds[2];

  SYS(pipe(fds));
  CHECK_EQ(poll1(fds[0], POLLIN, 0), 0);
  CHECK_EQ(poll1(fds[1], POLLOUT, 0), POLLOUT);
  write_full(fds[1], "x", 1);
  CHECK_EQ(poll1(fds[0], POLLIN | POLLRDNORM, 0), POLLIN | POLLRDNORM);
  close(fds[1]);
  CHECK_EQ(poll1(fds[0], POLLIN, 0), POLLIN | POLLHUP);
  char c;
  read_full(fds[0], &c, 1);
  CHECK_EQ(poll1(fds[0], POLLIN, 0), POLLHUP);
  SYS(pipe(fds));
  close(fds[0]);
  CHECK_EQ(poll1(fds[1], POLLOUT, 0), POLLOUT | POLLERR);
}

TEST(poll_full_pipe) {
  int fds[2];
  static char page[4096];

  SYS(pipe2(fds, O_NONBLOCK));
  while (write(fds[1], page, sizeof page) > 0)
    ;
  CHECK_EQ(poll1(fds[1], POLLOUT, 0), 0);
  CHECK_EQ(read(fds[0], page, 4096), 4096);
  CHECK_EQ(poll1(fds[1], POLLOUT, 0), POLLOUT);
}

TEST(poll_special_descriptors) {
  struct pollfd p[3] = {
      {.fd = -1, .events = POLLIN, .revents = 99}, {.fd = 9999, .events = POLLIN}, {.fd = 0}};

  p[2].fd = tmp_file("f", "");
  p[2].events = POLLIN | POLLOUT;
  CHECK_EQ(poll(p, 3, 0), 2);
  CHECK_EQ(p[0].revents, 0);
  CHECK_EQ(p[1].revents, POLLNVAL);
  CHECK_EQ(p[2].revents, POLLIN | POLLOUT); /* files are always ready */
}

TEST(poll_arguments) {
  struct rlimit r;

  CHECK_EQ(poll(NULL, 0, 0), 0);
  CHECK_ERRNO(poll((void *)8, 1, 0), EFAULT);
  SYS(getrlimit(RLIMIT_NOFILE, &r));
  if (r.rlim_cur < 1000000)
    CHECK_ERRNO(poll(NULL, r.rlim_cur + 1, 0), EINVAL);
  struct timespec bad = {0, 1000000000};
  CHECK_ERRNO(ppoll(NULL, 0, &bad, NULL), EINVAL);
  CHECK_ERRNO(syscall(SYS_ppoll, NULL, 0, NULL, &(long){0}, 3), EINVAL);
}

TEST(poll_timeout_and_wake) {
  int fds[2];
  int64_t start = now_ns();

  SYS(pipe(fds));
  CHECK_EQ(poll1(fds[0], POLLIN, 50), 0);
  CHECK(now_ns() - start >= 49000000);
  pid_t pid = CHILD(sleep_ms(30); write_full(fds[1], "x", 1));
  CHECK_EQ(poll1(fds[0], POLLIN, 8000), POLLIN);
  WAIT_OK(pid);
}

TEST(poll_hangup_wakes) {
  int fds[2];

  SYS(pipe(fds));
  pid_t pid = CHILD(close(fds[0]); sleep_ms(40));
  close(fds[1]);
  CHECK_EQ(poll1(fds[0], 0, 8000), POLLHUP);
  WAIT_OK(pid);
}

TEST(poll_same_descriptor_many_times) {
  int fds[2];
  struct pollfd p[200];

  SYS(pipe(fds));
  write_full(fds[1], "x", 1);
  for (int i = 0; i < 200; i++)
    p[i] = (struct pollfd){.fd = fds[0], .events = i % 2 ? POLLIN : POLLOUT};
  CHECK_EQ(poll(p, 200, 0), 100);
}

TEST(ppoll_mask_is_atomic) {
  sigset_t none;
  struct timespec ts = ts_ms(5000);

  sigemptyset(&none);
  on_signal(SIGUSR1, count, 0);
  block_signal(SIGUSR1);
  raise(SIGUSR1);
  CHECK_ERRNO(ppoll(NULL, 0, &ts, &none), EINTR);
  CHECK_EQ(hits, 1);
  sigset_t now;
  SYS(sigprocmask(SIG_BLOCK, NULL, &now));
  CHECK(sigismember(&now, SIGUSR1) == 1); /* restored */
}

TEST(ppoll_updates_the_timeout) {
  struct timespec ts = ts_ms(50);

  CHECK_EQ(syscall(SYS_ppoll, NULL, 0, &ts, NULL, 8), 0);
  CHECK_EQ(ts.tv_sec * 1000000000 + ts.tv_nsec, 0); /* the raw call writes what remains */
}

TEST(select_basics) {
  int fds[2];
  fd_set r, w;
  struct timeval tv = {0, 50000};

  SYS(pipe(fds));
  FD_ZERO(&r);
  FD_ZERO(&w);
  FD_SET(fds[0], &r);
  FD_SET(fds[1], &w);
  CHECK_EQ(select(fds[1] + 1, &r, &w, NULL, &tv), 1);
  CHECK(!FD_ISSET(fds[0], &r) && FD_ISSET(fds[1], &w));
  write_full(fds[1], "x", 1);
  FD_SET(fds[0], &r);
  CHECK_EQ(select(fds[1] + 1, &r, &w, NULL, NULL), 2);
  FD_ZERO(&r);
  FD_SET(fds[0], &r);
  char c;
  read_full(fds[0], &c, 1);
  CHECK_EQ(select(fds[1] + 1, &r, NULL, NULL, &tv), 0);
  CHECK(!FD_ISSET(fds[0], &r));
  CHECK_EQ(tv.tv_sec + tv.tv_usec, 0); /* Linux writes what remains */
}

TEST(select_errors) {
  fd_set r;
  struct timeval bad = {-1, 0};

  int closed = (int)SYS(dup(0));

  close(closed);
  FD_ZERO(&r);
  FD_SET(closed, &r);
  CHECK_ERRNO(select(closed + 1, &r, NULL, NULL, NULL), EBADF);
  CHECK_ERRNO(select(-1, NULL, NULL, NULL, NULL), EINVAL);
  CHECK_ERRNO(select(0, NULL, NULL, NULL, &bad), EINVAL);
  CHECK_ERRNO(select(5, (void *)8, NULL, NULL, NULL), EFAULT);
  int fds[2];
  SYS(pipe(fds));
  close(fds[1]);
  FD_ZERO(&r);
  FD_SET(fds[0], &r);
  CHECK_EQ(select(fds[0] + 1, &r, NULL, NULL, NULL), 1); /* end of file is readable */
}

TEST(select_only_counts_below_nfds) {
  int fds[2];
  fd_set r;
  struct timeval zero = {0, 0};

  SYS(pipe(fds));
  write_full(fds[1], "x", 1);
  FD_ZERO(&r);
  FD_SET(fds[0], &r);
  CHECK_EQ(select(fds[0], &r, NULL, NULL, &zero), 0);
  FD_SET(fds[0], &r);
  CHECK_EQ(select(fds[0] + 1, &r, NULL, NULL, &zero), 1);
}

TEST(pselect_mask) {
  sigset_t none;
  struct timespec ts = ts_ms(5000);

  sigemptyset(&none);
  on_signal(SIGUSR1, count, 0);
  block_signal(SIGUSR1);
  pid_t me = getpid();
  pid_t pid = CHILD(sleep_ms(30); kill(me, SIGUSR1));
  CHECK_ERRNO(pselect(0, NULL, NULL, NULL, &ts, &none), EINTR);
  CHECK_EQ(hits, 1);
  WAIT_OK(pid);
}

TEST(select_exceptional_ptrace_free) {
  fd_set e;
  int fds[2];
  struct timeval zero = {0, 0};

  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
  FD_ZERO(&e);
  FD_SET(fds[0], &e);
  CHECK_EQ(select(fds[0] + 1, NULL, NULL, &e, &zero), 0);
}

TEST(eventfd_counter) {
  int fd = (int)SYS(eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC));
  uint64_t v = 0;

  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(read(fd, &v, 8), 8);
  CHECK_EQ(v, 3);
  CHECK_ERRNO(read(fd, &v, 8), EAGAIN);
  for (int i = 1; i <= 4; i++)
    write_full(fd, &(uint64_t){(uint64_t)i}, 8);
  CHECK_EQ(read(fd, &v, 8), 8);
  CHECK_EQ(v, 10);
}

TEST(eventfd_semaphore) {
  int fd = (int)SYS(eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE));
  uint64_t v;

  for (int i = 0; i < 2; i++) {
    CHECK_EQ(read(fd, &v, 8), 8);
    CHECK_EQ(v, 1);
  }
  CHECK_ERRNO(read(fd, &v, 8), EAGAIN);
}

TEST(eventfd_limits) {
  int fd = (int)SYS(eventfd(0, EFD_NONBLOCK));
  uint64_t max = ~0ull - 1, all = ~0ull, one = 1, v;

  CHECK_ERRNO(write(fd, &all, 8), EINVAL);
  CHECK_EQ(write(fd, &max, 8), 8);
  CHECK_ERRNO(write(fd, &one, 8), EAGAIN);
  CHECK_EQ(poll1(fd, POLLIN | POLLOUT, 0), POLLIN);
  CHECK_EQ(read(fd, &v, 8), 8);
  CHECK_EQ(v, max);
  CHECK_EQ(poll1(fd, POLLIN | POLLOUT, 0), POLLOUT);
  CHECK_ERRNO(read(fd, &v, 7), EINVAL);
  CHECK_ERRNO(write(fd, &v, 4), EINVAL);
  CHECK_ERRNO(eventfd(0, 0x40), EINVAL);
  CHECK_ERRNO(write(fd, (void *)8, 8), EFAULT);
}

TEST(eventfd_blocks_and_wakes) {
  int fd = (int)SYS(eventfd(0, 0));
  uint64_t v;
  pid_t pid = CHILD(sleep_ms(30); write_full(fd, &(uint64_t){5}, 8));

  CHECK_EQ(read(fd, &v, 8), 8);
  CHECK_EQ(v, 5);
  WAIT_OK(pid);
  write_full(fd, &(uint64_t){~0ull - 1}, 8);
  pid = CHILD(sleep_ms(30); uint64_t x; read_full(fd, &x, 8));
  CHECK_EQ(write(fd, &(uint64_t){1}, 8), 8); /* waited for room */
  WAIT_OK(pid);
}
