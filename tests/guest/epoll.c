/* SPDX-License-Identifier: Apache-2.0 */
/* epoll.c - epoll_create1(2), epoll_ctl(2), epoll_wait(2): level, edge, one-shot, nesting, masks, life cycles. */
#include "check.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int ep_new(void) { return (int)SYS(epoll_create1(EPOLL_CLOEXEC)); }

static int ep_ctl(int ep, int op, int fd, uint32_t events, uint64_t data) {
  struct epoll_event ev = {.events = events, .data.u64 = data};

  return epoll_ctl(ep, op, fd, &ev);
}

/* Number of events within ms; the first one's mask and data. */
static int ep_get(int ep, int ms, uint32_t *ret_events, uint64_t *ret_data) {
  struct epoll_event ev[8];
  int n = (int)SYS(epoll_wait(ep, ev, 8, ms));

  if (n > 0 && ret_events)
    *ret_events = ev[0].events;
  if (n > 0 && ret_data)
    *ret_data = ev[0].data.u64;
  return n;
}

TEST(create_arguments) {
  CHECK_EQ(fcntl(ep_new(), F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(epoll_create1(1), EINVAL);
  CHECK_ERRNO(syscall(SYS_epoll_create, 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_epoll_create, -1), EINVAL);
  CHECK_OK(syscall(SYS_epoll_create, 10));
}

TEST(ctl_errors) {
  int ep = ep_new(), fds[2], file = tmp_file("f", "");

  SYS(pipe(fds));
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_MOD, fds[0], EPOLLIN, 0), ENOENT);
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_DEL, fds[0], EPOLLIN, 0), ENOENT);
  CHECK_OK(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 0));
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 0), EEXIST);
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_ADD, ep, EPOLLIN, 0), EINVAL);
  CHECK_ERRNO(ep_ctl(fds[0], EPOLL_CTL_ADD, fds[1], EPOLLIN, 0), EINVAL);
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_ADD, 9999, EPOLLIN, 0), EBADF);
  CHECK_ERRNO(ep_ctl(9999, EPOLL_CTL_ADD, fds[0], EPOLLIN, 0), EBADF);
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_ADD, file, EPOLLIN, 0), EPERM); /* regular files cannot be watched */
  CHECK_ERRNO(ep_ctl(ep, 9, fds[1], EPOLLIN, 0), EINVAL);
  CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, fds[1], (void *)8), EFAULT);
  CHECK_OK(epoll_ctl(ep, EPOLL_CTL_DEL, fds[0], NULL));
}

TEST(wait_errors) {
  int ep = ep_new(), fds[2];
  struct epoll_event ev;

  SYS(pipe(fds));
  CHECK_ERRNO(epoll_wait(ep, &ev, 0, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(ep, &ev, -1, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(fds[0], &ev, 1, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(9999, &ev, 1, 0), EBADF);
  CHECK_OK(ep_ctl(ep, EPOLL_CTL_ADD, fds[1], EPOLLOUT, 0));
  CHECK_ERRNO(epoll_wait(ep, (void *)8, 1, 0), EFAULT);
}

TEST(level_triggered) {
  int ep = ep_new(), fds[2];
  uint32_t events;
  uint64_t data;
  char c;

  SYS(pipe(fds));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 0xabcdef0123456789));
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
  write_full(fds[1], "x", 1);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(ep_get(ep, 0, &events, &data), 1);
    CHECK_EQ(events, EPOLLIN);
    CHECK_EQ(data, 0xabcdef0123456789);
  }
  read_full(fds[0], &c, 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
}

TEST(edge_triggered) {
  int ep = ep_new(), fds[2];
  char buf[10];

  SYS(pipe(fds));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN | EPOLLET, 0));
  write_full(fds[1], "x", 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
  write_full(fds[1], "y", 1); /* new data is a new edge, although the old was not read */
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
  read_full(fds[0], buf, 2);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
  SYS(ep_ctl(ep, EPOLL_CTL_MOD, fds[0], EPOLLIN | EPOLLET, 0));
  write_full(fds[1], "z", 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
  SYS(ep_ctl(ep, EPOLL_CTL_MOD, fds[0], EPOLLIN | EPOLLET, 0)); /* MOD checks again */
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
}

TEST(edge_ready_at_add) {
  int ep = ep_new(), fds[2];

  SYS(pipe(fds));
  write_full(fds[1], "x", 1);
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN | EPOLLET, 0));
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
}

TEST(one_shot) {
  int ep = ep_new(), fds[2];

  SYS(pipe(fds));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN | EPOLLONESHOT, 0));
  write_full(fds[1], "x", 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
  write_full(fds[1], "x", 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
  SYS(ep_ctl(ep, EPOLL_CTL_MOD, fds[0], EPOLLIN | EPOLLONESHOT, 0));
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
}

TEST(hangup_and_error_are_always_reported) {
  int ep = ep_new(), fds[2];
  uint32_t events = 0;

  SYS(pipe(fds));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], 0, 1));
  close(fds[1]);
  CHECK_EQ(ep_get(ep, 0, &events, NULL), 1);
  CHECK_EQ(events, EPOLLHUP);
  SYS(pipe(fds));
  int ep2 = ep_new();
  SYS(ep_ctl(ep2, EPOLL_CTL_ADD, fds[1], EPOLLOUT, 1));
  close(fds[0]);
  CHECK_EQ(ep_get(ep2, 0, &events, NULL), 1);
  CHECK_EQ(events, EPOLLOUT | EPOLLERR);
}

TEST(rdhup_on_a_socket) {
  int ep = ep_new(), fds[2];
  uint32_t events = 0;

  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN | EPOLLRDHUP, 0));
  SYS(shutdown(fds[1], SHUT_WR));
  CHECK_EQ(ep_get(ep, 0, &events, NULL), 1);
  CHECK_EQ(events, EPOLLIN | EPOLLRDHUP);
  close(fds[1]);
  CHECK_EQ(ep_get(ep, 0, &events, NULL), 1);
  CHECK_EQ(events, EPOLLIN | EPOLLRDHUP | EPOLLHUP);
}

TEST(nested) {
  int inner = ep_new(), outer = ep_new(), fds[2];
  uint64_t data = 0;
  char c;

  SYS(pipe(fds));
  SYS(ep_ctl(outer, EPOLL_CTL_ADD, inner, EPOLLIN, 7));
  SYS(ep_ctl(inner, EPOLL_CTL_ADD, fds[0], EPOLLIN, 8));
  CHECK_EQ(ep_get(outer, 0, NULL, NULL), 0);
  write_full(fds[1], "x", 1);
  CHECK_EQ(ep_get(outer, 0, NULL, &data), 1);
  CHECK_EQ(data, 7);
  CHECK_EQ(ep_get(inner, 0, NULL, &data), 1);
  CHECK_EQ(data, 8);
  read_full(fds[0], &c, 1);
  CHECK_EQ(ep_get(outer, 0, NULL, NULL), 0);
}

TEST(loops_are_refused) {
  int a = ep_new(), b = ep_new(), chain[8];

  SYS(ep_ctl(a, EPOLL_CTL_ADD, b, EPOLLIN, 0));
  CHECK_ERRNO(ep_ctl(b, EPOLL_CTL_ADD, a, EPOLLIN, 0), ELOOP);
  int failed_at = -1;
  chain[0] = ep_new();
  for (int i = 1; i < 8; i++) {
    chain[i] = ep_new();
    if (ep_ctl(chain[i], EPOLL_CTL_ADD, chain[i - 1], EPOLLIN, 0) < 0) {
      failed_at = i;
      CHECK(errno == ELOOP || errno == EINVAL);
      break;
    }
  }
  CHECK(failed_at >= 4 && failed_at <= 6);
}

/* DESIGN.md decision 5: an entry hangs on the description and leaves at its last release. */
TEST(closed_descriptor_with_a_duplicate) {
  int ep = ep_new(), fds[2];
  uint64_t data = 0;

  SYS(pipe(fds));
  int copy = (int)SYS(dup(fds[0]));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 5));
  close(fds[0]);
  write_full(fds[1], "x", 1);
  CHECK_EQ(ep_get(ep, 0, NULL, &data), 1);
  CHECK_EQ(data, 5);
  close(copy);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 0);
}

TEST(descriptor_number_reused) {
  int ep = ep_new(), a[2], b[2];

  SYS(pipe(a));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, a[0], EPOLLIN, 1));
  close(a[0]);
  SYS(pipe(b));
  CHECK_OK(ep_ctl(ep, EPOLL_CTL_ADD, b[0], EPOLLIN, 2));
  write_full(b[1], "x", 1);
  uint64_t data = 0;
  CHECK_EQ(ep_get(ep, 0, NULL, &data), 1);
  CHECK_EQ(data, 2);
}

TEST(two_descriptors_of_one_file) {
  int ep = ep_new(), fds[2];

  SYS(pipe(fds));
  int copy = (int)SYS(dup(fds[0]));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 1));
  CHECK_OK(ep_ctl(ep, EPOLL_CTL_ADD, copy, EPOLLIN, 2));
  write_full(fds[1], "x", 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 2);
}

TEST(timeout_and_wakeup) {
  int ep = ep_new(), fds[2];
  int64_t start = now_ns();

  SYS(pipe(fds));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 0));
  CHECK_EQ(ep_get(ep, 50, NULL, NULL), 0);
  CHECK(now_ns() - start >= 49000000);
  pid_t pid = CHILD(sleep_ms(30); write_full(fds[1], "x", 1));
  CHECK_EQ(ep_get(ep, 8000, NULL, NULL), 1);
  WAIT_OK(pid);
}

TEST(added_while_waiting) {
  int ep = ep_new(), fds[2];

  SYS(pipe(fds));
  write_full(fds[1], "x", 1);
  pid_t pid = CHILD(sleep_ms(30); SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 0)));
  CHECK_EQ(ep_get(ep, 8000, NULL, NULL), 1); /* the set is shared over fork */
  WAIT_OK(pid);
}

static volatile int hits;

static void count(int sig) { hits++; }

TEST(pwait_mask) {
  int ep = ep_new();
  struct epoll_event ev;
  sigset_t none;

  sigemptyset(&none);
  on_signal(SIGUSR1, count, 0);
  block_signal(SIGUSR1);
  raise(SIGUSR1);
  CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
  CHECK_EQ(hits, 0);
  CHECK_ERRNO(epoll_pwait(ep, &ev, 1, 5000, &none), EINTR);
  CHECK_EQ(hits, 1);
  CHECK_ERRNO(syscall(SYS_epoll_pwait, ep, &ev, 1, 0, &none, 4), EINVAL);
}

TEST(max_events_and_fairness) {
  enum { N = 20 };
  int ep = ep_new(), seen[N] = {0};
  struct epoll_event ev[5];

  for (int i = 0; i < N; i++) {
    int e = (int)SYS(eventfd(1, 0));
    SYS(ep_ctl(ep, EPOLL_CTL_ADD, e, EPOLLIN, (uint64_t)i));
  }
  for (int round = 0; round < 8; round++) {
    int n = (int)SYS(epoll_wait(ep, ev, 5, 0));
    CHECK_EQ(n, 5);
    for (int i = 0; i < n; i++)
      seen[ev[i].data.u64]++;
  }
  for (int i = 0; i < N; i++)
    CHECK(seen[i] >= 1); /* the ready list turns round */
}

static void *wait_once(void *arg) {
  struct epoll_event ev;

  return (void *)(long)epoll_wait(*(int *)arg, &ev, 1, 300);
}

TEST(edge_wakes_one_waiter) {
  int ep = ep_new(), e = (int)SYS(eventfd(0, 0)), got = 0;
  pthread_t t[4];

  SYS(ep_ctl(ep, EPOLL_CTL_ADD, e, EPOLLIN | EPOLLET, 0));
  for (int i = 0; i < 4; i++)
    REQUIRE(pthread_create(&t[i], NULL, wait_once, &ep) == 0);
  sleep_ms(100);
  write_full(e, &(uint64_t){1}, 8);
  for (int i = 0; i < 4; i++) {
    void *r;
    pthread_join(t[i], &r);
    got += (int)(long)r;
  }
  CHECK_EQ(got, 1);
}

TEST(exclusive_flag) {
  int ep = ep_new(), fds[2];

  SYS(pipe(fds));
  CHECK_OK(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN | EPOLLEXCLUSIVE, 0));
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_MOD, fds[0], EPOLLIN, 0), EINVAL);
  CHECK_ERRNO(ep_ctl(ep, EPOLL_CTL_ADD, fds[1], EPOLLOUT | EPOLLEXCLUSIVE | EPOLLONESHOT, 0), EINVAL);
  write_full(fds[1], "x", 1);
  CHECK_EQ(ep_get(ep, 0, NULL, NULL), 1);
}

TEST(stress_many_descriptors) {
  enum { N = 300 };
  int ep = ep_new(), fds[N][2];

  for (int i = 0; i < N; i++) {
    SYS(pipe(fds[i]));
    SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[i][0], EPOLLIN | EPOLLET, (uint64_t)i));
  }
  uint64_t seed = 5;
  for (int round = 0; round < 300; round++) {
    int pick = (int)(next_random(&seed) % N);
    uint64_t data = N;
    write_full(fds[pick][1], "x", 1);
    CHECK_EQ(ep_get(ep, 1000, NULL, &data), 1);
    if (!CHECK_EQ(data, pick))
      break;
  }
  for (int i = 0; i < N; i++)
    close(fds[i][i % 2]);
}

TEST(closed_while_waiting) {
  int ep = ep_new(), fds[2];

  SYS(pipe(fds));
  SYS(ep_ctl(ep, EPOLL_CTL_ADD, fds[0], EPOLLIN, 0));
  pthread_t t;
  void *r;
  REQUIRE(pthread_create(&t, NULL, wait_once, &ep) == 0);
  sleep_ms(30);
  close(fds[0]);
  close(fds[1]);
  pthread_join(t, &r);
  CHECK_EQ((long)r, 0); /* the entry went with the file: the wait just times out */
}
