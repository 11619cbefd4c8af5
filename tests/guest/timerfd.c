/* SPDX-License-Identifier: Apache-2.0 */
/* timerfd.c - timerfd_create(2) and its calls; without the plugin every case is ENOSYS. */
#include "check.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

static int64_t read_ticks(int fd) {
  uint64_t n = 0;

  return read(fd, &n, sizeof n) == sizeof n ? (int64_t)n : -1;
}

static void arm(int fd, long first, long period) {
  struct itimerspec its = {.it_value = ts_ms(first), .it_interval = ts_ms(period)};

  SYS(timerfd_settime(fd, 0, &its, NULL));
}

TEST(create_arguments) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));

  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_NONBLOCK | O_RDWR);
  CHECK_OK(timerfd_create(CLOCK_REALTIME, 0));
  CHECK_OK(timerfd_create(CLOCK_BOOTTIME, 0));
  CHECK_ERRNO(timerfd_create(CLOCK_THREAD_CPUTIME_ID, 0), EINVAL);
  CHECK_ERRNO(timerfd_create(99, 0), EINVAL);
  CHECK_ERRNO(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
}

TEST(one_shot) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, 0));
  int64_t start = now_ns();

  arm(fd, 50, 0);
  CHECK_EQ(read_ticks(fd), 1);
  CHECK(now_ns() - start >= 49000000);
  struct itimerspec now;
  SYS(timerfd_gettime(fd, &now));
  CHECK_EQ(now.it_value.tv_nsec + now.it_value.tv_sec, 0);
}

TEST(periodic_accumulates) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));

  arm(fd, 10, 10);
  sleep_ms(105);
  int64_t n = read_ticks(fd);
  CHECK(n >= 9 && n < 800);
  int64_t more = read_ticks(fd);
  CHECK(more == -1 || more >= 1);
}

TEST(nonblocking_and_disarmed) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  uint64_t n;

  CHECK_ERRNO(read(fd, &n, 8), EAGAIN);
  arm(fd, 30, 30);
  struct itimerspec off = {0}, old;
  SYS(timerfd_settime(fd, 0, &off, &old));
  CHECK_EQ(old.it_interval.tv_nsec, 30000000);
  CHECK(old.it_value.tv_nsec > 0 && old.it_value.tv_nsec <= 30000000);
  sleep_ms(60);
  CHECK_ERRNO(read(fd, &n, 8), EAGAIN);
}

TEST(settime_clears_expirations) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  uint64_t n;

  arm(fd, 1, 1);
  sleep_ms(30);
  arm(fd, 5000, 0);
  CHECK_ERRNO(read(fd, &n, 8), EAGAIN);
}

TEST(absolute_time) {
  static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME};

  for (int i = 0; i < 2; i++) {
    int fd = (int)SYS(timerfd_create(clocks[i], 0));
    struct itimerspec its = {.it_value = {1, 0}};
    SYS(timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL)); /* long ago: at once */
    CHECK_EQ(read_ticks(fd), 1);
    SYS(clock_gettime(clocks[i], &its.it_value));
    its.it_value.tv_sec += 1;
    SYS(timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL));
    struct itimerspec left; /* gettime answers relative */
    SYS(timerfd_gettime(fd, &left));
    CHECK(left.it_value.tv_sec <= 1);
    SYS(clock_gettime(clocks[i], &its.it_value));
    its.it_value.tv_nsec = its.it_value.tv_nsec / 2;
    SYS(timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL));
    CHECK_EQ(read_ticks(fd), 1);
  }
}

TEST(read_sizes_and_bad_arguments) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  char buf[16];
  struct itimerspec bad = {.it_value = {0, 1000000000}}, its = {.it_value = ts_ms(1)};

  CHECK_ERRNO(timerfd_settime(fd, 0, &bad, NULL), EINVAL);
  CHECK_ERRNO(timerfd_settime(fd, 0x100, &its, NULL), EINVAL);
  CHECK_ERRNO(timerfd_settime(0x7ffffff, 0, &its, NULL), EBADF);
  CHECK_ERRNO(timerfd_settime(tmp_file("f", ""), 0, &its, NULL), EINVAL);
  CHECK_ERRNO(timerfd_settime(fd, 0, (void *)8, NULL), EFAULT);
  CHECK_ERRNO(timerfd_gettime(fd, (void *)8), EFAULT);
  SYS(timerfd_settime(fd, 0, &its, NULL));
  sleep_ms(10);
  CHECK_ERRNO(read(fd, buf, 7), EINVAL);
  CHECK_ERRNO(write(fd, buf, 8), EINVAL);
  CHECK_ERRNO(pread(fd, buf, 8, 0), ESPIPE);
  CHECK_EQ(read(fd, buf, 16), 8);
}

TEST(poll_and_epoll) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, 0)), ep = (int)SYS(epoll_create1(0));
  struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
  struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = 9}, out;

  SYS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
  CHECK_EQ(poll(&p, 1, 0), 0);
  CHECK_EQ(epoll_wait(ep, &out, 1, 0), 0);
  arm(fd, 20, 0);
  CHECK_EQ(poll(&p, 1, 8000), 1);
  CHECK_EQ(p.revents, POLLIN);
  CHECK_EQ(epoll_wait(ep, &out, 1, 8000), 1);
  CHECK_EQ(out.data.u64, 9);
  CHECK_EQ(epoll_wait(ep, &out, 1, 0), 0); /* edge */
  CHECK_EQ(read_ticks(fd), 1);
  CHECK_EQ(poll(&p, 1, 0), 0);
}

TEST(shared_after_fork) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));

  arm(fd, 5, 0);
  sleep_ms(20);
  WAIT_OK(CHILD(CHECK_EQ(read_ticks(fd), 1)));
  CHECK_EQ(read_ticks(fd), -1);
}

TEST(blocked_reader_sees_rearm) {
  int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, 0));
  pid_t pid = CHILD(CHECK_EQ(read_ticks(fd), 1));

  sleep_ms(30);
  arm(fd, 10, 0);
  WAIT_OK(pid);
}
