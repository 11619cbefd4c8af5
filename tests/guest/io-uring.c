/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring(7) with nothing but the kernel's header: rings, requests that are done at once and requests that wait, chains, ends. */
#include "check.h"
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static _Atomic bool stop; /* for threads */

typedef struct {
  int fd;
  struct io_uring_params p;
  char *ring;
  size_t ring_len;
  struct io_uring_sqe *sqes;
  unsigned queued;
} Uring;

#define AT(u, off) ((unsigned *)((u)->ring + (off)))
static unsigned load(unsigned *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

static int setup(unsigned n, struct io_uring_params *p) { return (int)syscall(SYS_io_uring_setup, n, p); }
static int enter(Uring *u, unsigned submit, unsigned min, unsigned flags) {
  return (int)syscall(SYS_io_uring_enter, u->fd, submit, min, flags, NULL, 0);
}
static int reg(Uring *u, unsigned op, const void *arg, unsigned n) {
  return (int)syscall(SYS_io_uring_register, u->fd, op, arg, n);
}

static Uring make(unsigned n, unsigned flags, unsigned cq) {
  Uring u = {.p = {.flags = flags, .cq_entries = cq}};
  u.fd = setup(n, &u.p);
  if (u.fd < 0 && !check_in_sandbox && (errno == EPERM || errno == ENOSYS))
    SKIP("io_uring is disabled here (kernel.io_uring_disabled)");
  SYS(u.fd);
  CHECK(u.p.features & IORING_FEAT_SINGLE_MMAP);
  size_t sq = u.p.sq_off.array + u.p.sq_entries * 4, cqs = u.p.cq_off.cqes + u.p.cq_entries * 16;
  u.ring_len = sq > cqs ? sq : cqs;
  u.ring =
      mmap(NULL, u.ring_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u.fd, IORING_OFF_SQ_RING);
  REQUIRE(u.ring != MAP_FAILED);
  u.sqes = mmap(NULL, u.p.sq_entries * 64, PROT_READ | PROT_WRITE, MAP_SHARED, u.fd, (off_t)IORING_OFF_SQES);
  REQUIRE(u.sqes != MAP_FAILED);
  return u;
}

static void done(Uring *u) {
  munmap(u->ring, u->ring_len);
  munmap(u->sqes, u->p.sq_entries * 64);
  close(u->fd);
}

static struct io_uring_sqe *sqe(Uring *u, int op, int fd, const void *addr, unsigned len, uint64_t off,
                                uint64_t data) {
  unsigned tail = *AT(u, u->p.sq_off.tail), i = tail & (u->p.sq_entries - 1);
  struct io_uring_sqe *s = &u->sqes[i];
  memset(s, 0, sizeof *s);
  s->opcode = (uint8_t)op;
  s->fd = fd;
  s->addr = (uint64_t)(uintptr_t)addr;
  s->len = len;
  s->off = off;
  s->user_data = data;
  AT(u, u->p.sq_off.array)[i] = i;
  __atomic_store_n(AT(u, u->p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
  u->queued++;
  return s;
}

static int submit(Uring *u, unsigned wait) {
  int r = enter(u, u->queued, wait, wait ? IORING_ENTER_GETEVENTS : 0);
  u->queued = 0;
  return r;
}

static bool peek(Uring *u, struct io_uring_cqe *out) {
  unsigned head = *AT(u, u->p.cq_off.head);
  if (head == load(AT(u, u->p.cq_off.tail)))
    return false;
  memcpy(out, u->ring + u->p.cq_off.cqes + (head & (u->p.cq_entries - 1)) * 16, 16);
  __atomic_store_n(AT(u, u->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
  return true;
}

/* The completion of `data` is the next one; its result. */
static int expect(Uring *u, uint64_t data) {
  struct io_uring_cqe c = {0};
  if (!peek(u, &c)) {
    enter(u, 0, 1, IORING_ENTER_GETEVENTS);
    REQUIRE(peek(u, &c));
  }
  CHECK_EQ(c.user_data, data);
  return c.res;
}
/* The same wherever it is in a batch of n. */
static int result_of(struct io_uring_cqe *c, int n, uint64_t data) {
  for (int i = 0; i < n; i++)
    if (c[i].user_data == data)
      return c[i].res;
  check_fail(__FILE__, __LINE__, "no completion %lu", (unsigned long)data);
  return -9999;
}
static void collect(Uring *u, struct io_uring_cqe *c, int n) {
  for (int i = 0; i < n; i++)
    if (!peek(u, &c[i])) {
      SYS(enter(u, 0, 1, IORING_ENTER_GETEVENTS));
      REQUIRE(peek(u, &c[i]));
    }
}

TEST(setup_arguments) {
  Uring u = make(5, 0, 0);
  CHECK_EQ(u.p.sq_entries, 8);
  CHECK_EQ(u.p.cq_entries, 16);
  CHECK_EQ(*AT(&u, u.p.sq_off.ring_mask), 7);
  CHECK_EQ(*AT(&u, u.p.cq_off.ring_entries), 16);
  CHECK_EQ(fcntl(u.fd, F_GETFD), FD_CLOEXEC);
  char link[64], text[64] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", u.fd);
  CHECK(readlink(link, text, sizeof text - 1) > 0);
  CHECK_STR(text, "anon_inode:[io_uring]");
  done(&u);
  u = make(4, IORING_SETUP_CQSIZE, 100);
  CHECK_EQ(u.p.cq_entries, 128);
  done(&u);
  struct io_uring_params p = {0};
  CHECK_ERRNO(setup(0, &p), EINVAL);
  CHECK_ERRNO(setup(1 << 20, &p), EINVAL);
  p.flags = IORING_SETUP_CQSIZE;
  CHECK_ERRNO(setup(4, &p), EINVAL);
  p.cq_entries = 2;
  CHECK_ERRNO(setup(4, &p), EINVAL);
  p = (struct io_uring_params){.flags = 1u << 31};
  CHECK_ERRNO(setup(4, &p), EINVAL);
  p = (struct io_uring_params){.resv = {1}};
  CHECK_ERRNO(setup(4, &p), EINVAL);
  CHECK_ERRNO(setup(4, (void *)1), EFAULT);
  p = (struct io_uring_params){.flags = IORING_SETUP_DEFER_TASKRUN};
  CHECK_ERRNO(setup(4, &p), EINVAL);
}

TEST(enter_arguments) {
  Uring u = make(4, 0, 0);
  int fd = tmp_file("f", "");
  CHECK_ERRNO(syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0), EBADF);
  CHECK_ERRNO(syscall(SYS_io_uring_enter, fd, 0, 0, 0, NULL, 0), EOPNOTSUPP);
  CHECK_ERRNO(enter(&u, 0, 0, 1u << 30), EINVAL);
  CHECK_EQ(enter(&u, 0, 0, 0), 0);
  CHECK_EQ(enter(&u, 3, 0, 0), 0); /* nothing is queued */
  char c;
  CHECK_ERRNO(read(u.fd, &c, 1), EINVAL);
  done(&u);
  u = make(4, IORING_SETUP_R_DISABLED, 0);
  CHECK_ERRNO(enter(&u, 0, 0, 0), EBADFD);
  SYS(reg(&u, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
  CHECK_EQ(enter(&u, 0, 0, 0), 0);
  done(&u);
}

TEST(nops_and_wrapping) {
  Uring u = make(8, 0, 0);
  uint64_t n = 0;
  for (int round = 0; round < 50; round++) {
    for (int i = 0; i < 7; i++)
      sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, n + i);
    CHECK_EQ(submit(&u, 7), 7);
    for (int i = 0; i < 7; i++)
      CHECK_EQ(expect(&u, n + i), 0);
    n += 7;
  }
  done(&u);
}

TEST(files) {
  Uring u = make(8, 0, 0);
  int fd = tmp_file("f", "0123456789");
  char b[16] = "";
  sqe(&u, IORING_OP_READ, fd, b, 4, 3, 1);
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 1), 4);
  CHECK_STR(b, "3456");
  sqe(&u, IORING_OP_WRITE, fd, "abc", 3, 8, 2);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 2), 3);
  struct iovec v[2] = {{b, 2}, {b + 2, 20}};
  memset(b, 0, sizeof b);
  v[1].iov_len = 9;
  sqe(&u, IORING_OP_READV, fd, v, 2, 0, 3);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 3), 11);
  CHECK_STR(b, "01234567abc");
  v[0] = (struct iovec){(char *)"XY", 2};
  sqe(&u, IORING_OP_WRITEV, fd, v, 1, 0, 4);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 4), 2);
  lseek(fd, 1, SEEK_SET);
  memset(b, 0, sizeof b);
  sqe(&u, IORING_OP_READ, fd, b, 2, -1ull, 5); /* the file's own position */
  submit(&u, 1);
  CHECK_EQ(expect(&u, 5), 2);
  CHECK_STR(b, "Y2");
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
  sqe(&u, IORING_OP_FSYNC, fd, NULL, 0, 0, 6);
  sqe(&u, IORING_OP_READ, fd, b, 4, 1000, 7);
  sqe(&u, IORING_OP_READ, -1, b, 4, 0, 8);
  sqe(&u, IORING_OP_READ, fd, (void *)1, 4, 0, 9);
  sqe(&u, IORING_OP_FSYNC, fd, NULL, 0, 0, 10)->fsync_flags = 77;
  CHECK_EQ(submit(&u, 5), 5);
  struct io_uring_cqe c[5];
  collect(&u, c, 5);
  CHECK_EQ(result_of(c, 5, 6), 0);
  CHECK_EQ(result_of(c, 5, 7), 0);
  CHECK_EQ(result_of(c, 5, 8), -EBADF);
  CHECK_EQ(result_of(c, 5, 9), -EFAULT);
  CHECK_EQ(result_of(c, 5, 10), -EINVAL);
  done(&u);
}

TEST(wrong_entries) {
  Uring u = make(8, 0, 0);
  sqe(&u, 250, -1, NULL, 0, 0, 1);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 2);
  CHECK_EQ(enter(&u, 2, 0, 0), 1); /* stops behind the wrong one */
  CHECK_EQ(expect(&u, 1), -EINVAL);
  CHECK_EQ(enter(&u, 1, 0, 0), 1);
  CHECK_EQ(expect(&u, 2), 0);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 3)->flags = 0x80;
  CHECK_EQ(enter(&u, 1, 0, 0), 1);
  CHECK_EQ(expect(&u, 3), -EINVAL);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 4);
  AT(&u, u.p.sq_off.array)[(*AT(&u, u.p.sq_off.tail) - 1) & 7] = 12345;
  CHECK(enter(&u, 1, 0, 0) <= 0);
  CHECK_EQ(*AT(&u, u.p.sq_off.dropped), 1);
  done(&u);
  u = make(8, IORING_SETUP_SUBMIT_ALL, 0);
  sqe(&u, 250, -1, NULL, 0, 0, 1);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 2);
  CHECK_EQ(enter(&u, 2, 0, 0), 2);
  CHECK_EQ(expect(&u, 1), -EINVAL);
  CHECK_EQ(expect(&u, 2), 0);
  done(&u);
}

static void *write_later(void *arg) {
  sleep_ms(30);
  write(*(int *)arg, "later", 5);
  return NULL;
}

TEST(waits_in_enter) {
  Uring u = make(8, 0, 0);
  int p[2];
  char b[16] = "";
  pthread_t t;
  SYS(pipe(p));
  sqe(&u, IORING_OP_READ, p[0], b, sizeof b, 0, 1);
  CHECK_EQ(submit(&u, 0), 1);
  struct io_uring_cqe c;
  CHECK(!peek(&u, &c));
  pthread_create(&t, NULL, write_later, &p[1]);
  CHECK_EQ(enter(&u, 0, 1, IORING_ENTER_GETEVENTS), 0);
  CHECK_EQ(expect(&u, 1), 5);
  CHECK_STR(b, "later");
  pthread_join(t, NULL);
  done(&u);
}

/* The submitter runs and makes no call: the completion comes all the same. */
TEST(comes_while_running) {
  Uring u = make(8, 0, 0);
  int p[2];
  char b[16] = "";
  pthread_t t;
  SYS(pipe(p));
  sqe(&u, IORING_OP_READ, p[0], b, sizeof b, 0, 1);
  CHECK_EQ(submit(&u, 0), 1);
  pthread_create(&t, NULL, write_later, &p[1]);
  int64_t until = now_ns() + 5000000000LL;
  struct io_uring_cqe c;
  bool came;
  while (!(came = peek(&u, &c)) && now_ns() < until)
    ;
  CHECK(came);
  CHECK_EQ(c.res, 5);
  pthread_join(t, NULL);
  done(&u);
}

/* The submitter sleeps in another call: the request goes on, and that call too. */
TEST(comes_while_blocked) {
  Uring u = make(8, 0, 0);
  int p[2], q[2], ep = (int)SYS(epoll_create1(0));
  char b[16] = "";
  pthread_t t;
  SYS(pipe(p));
  SYS(pipe(q));
  struct epoll_event ev = {.events = EPOLLIN}, got;
  SYS(epoll_ctl(ep, EPOLL_CTL_ADD, u.fd, &ev));
  CHECK_EQ(epoll_wait(ep, &got, 1, 0), 0);
  sqe(&u, IORING_OP_READ, p[0], b, sizeof b, 0, 1)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_WRITE, q[1], "next", 4, 0, 2)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_CLOSE, p[0], NULL, 0, 0, 3);
  CHECK_EQ(submit(&u, 0), 3);
  pthread_create(&t, NULL, write_later, &p[1]);
  int r;
  while ((r = epoll_wait(ep, &got, 1, 5000)) < 0 && errno == EINTR)
    ;
  CHECK_EQ(r, 1);
  CHECK_EQ(expect(&u, 1), 5);
  /* A short read breaks a chain. */
  CHECK_EQ(expect(&u, 2), -ECANCELED);
  CHECK_EQ(expect(&u, 3), -ECANCELED);
  pthread_join(t, NULL);
  sqe(&u, IORING_OP_READ, p[0], b, 5, 0, 4)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_CLOSE, q[0], NULL, 0, 0, 5)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_CLOSE, p[0], NULL, 0, 0, 6);
  CHECK_EQ(submit(&u, 0), 3);
  pthread_create(&t, NULL, write_later, &p[1]);
  char c;
  fcntl(q[0], F_SETFL, 0);
  pid_t pid = CHILD({
    sleep_ms(300);
    write(q[1], "z", 1);
  });
  /* Its descriptor is closed meanwhile: the call goes on, or is restarted without it. */
  ssize_t n = read(q[0], &c, 1);
  CHECK(n == 1 ? c == 'z' : n < 0 && errno == EBADF);
  CHECK_EQ(expect(&u, 4), 5);
  CHECK_EQ(expect(&u, 5), 0);
  CHECK_EQ(expect(&u, 6), 0);
  CHECK_ERRNO(fcntl(q[0], F_GETFD), EBADF);
  CHECK_ERRNO(fcntl(p[0], F_GETFD), EBADF);
  pthread_join(t, NULL);
  WAIT_OK(pid);
  done(&u);
}

TEST(nonblocking_files) {
  Uring u = make(8, 0, 0);
  int p[2];
  char b[4];
  SYS(pipe2(p, O_NONBLOCK));
  sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 1); /* waits all the same */
  CHECK_EQ(submit(&u, 0), 1);
  struct io_uring_cqe c;
  CHECK(!peek(&u, &c));
  write(p[1], "x", 1);
  CHECK_EQ(expect(&u, 1), 1);
  sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 2)->rw_flags = RWF_NOWAIT;
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 2), -EAGAIN);
  done(&u);
}

TEST(polls) {
  Uring u = make(8, 0, 0);
  int p[2];
  SYS(pipe(p));
  sqe(&u, IORING_OP_POLL_ADD, p[1], NULL, 0, 0, 1)->poll32_events = POLLOUT;
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 1), POLLOUT);
  sqe(&u, IORING_OP_POLL_ADD, p[0], NULL, 0, 0, 2)->poll32_events = POLLIN;
  CHECK_EQ(submit(&u, 0), 1);
  write(p[1], "x", 1);
  CHECK_EQ(expect(&u, 2), POLLIN);
  char c;
  read(p[0], &c, 1);
  sqe(&u, IORING_OP_POLL_ADD, p[0], NULL, 0, 0, 3)->poll32_events = POLLIN;
  sqe(&u, IORING_OP_POLL_REMOVE, -1, (void *)3, 0, 0, 4);
  sqe(&u, IORING_OP_POLL_REMOVE, -1, (void *)99, 0, 0, 5);
  CHECK_EQ(submit(&u, 3), 3);
  struct io_uring_cqe cs[3];
  collect(&u, cs, 3);
  CHECK_EQ(result_of(cs, 3, 3), -ECANCELED);
  CHECK_EQ(result_of(cs, 3, 4), 0);
  CHECK_EQ(result_of(cs, 3, 5), -ENOENT);
  sqe(&u, IORING_OP_POLL_ADD, p[0], NULL, 0, 0, 6)->poll32_events = POLLIN;
  submit(&u, 0);
  close(p[1]);
  CHECK_EQ(expect(&u, 6) & POLLHUP, POLLHUP);
  done(&u);
}

TEST(timeouts) {
  Uring u = make(8, 0, 0);
  struct __kernel_timespec ts = {0, 50000000}, bad = {0, -1}, lng = {100, 0};
  int64_t t0 = now_ns();
  sqe(&u, IORING_OP_TIMEOUT, -1, &ts, 1, 0, 1);
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 1), -ETIME);
  CHECK(now_ns() - t0 >= 49000000);
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  struct __kernel_timespec abs = {now.tv_sec, now.tv_nsec};
  sqe(&u, IORING_OP_TIMEOUT, -1, &abs, 1, 0, 2)->timeout_flags = IORING_TIMEOUT_ABS;
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 2), -ETIME);
  sqe(&u, IORING_OP_TIMEOUT, -1, &bad, 1, 0, 3);
  CHECK_EQ(enter(&u, 1, 0, 0), 1);
  u.queued = 0;
  CHECK_EQ(expect(&u, 3), -EINVAL);
  sqe(&u, IORING_OP_TIMEOUT, -1, &lng, 1, 2, 4); /* or two completions */
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 5);
  CHECK_EQ(submit(&u, 1), 2);
  CHECK_EQ(expect(&u, 5), 0);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 6);
  CHECK_EQ(submit(&u, 2), 1);
  CHECK_EQ(expect(&u, 6), 0);
  CHECK_EQ(expect(&u, 4), 0);
  sqe(&u, IORING_OP_TIMEOUT, -1, &lng, 1, 0, 7);
  CHECK_EQ(submit(&u, 0), 1);
  sqe(&u, IORING_OP_TIMEOUT_REMOVE, -1, (void *)7, 0, 0, 8);
  sqe(&u, IORING_OP_TIMEOUT_REMOVE, -1, (void *)70, 0, 0, 9);
  CHECK_EQ(submit(&u, 3), 2);
  struct io_uring_cqe c[3];
  collect(&u, c, 3);
  CHECK_EQ(result_of(c, 3, 7), -ECANCELED);
  CHECK_EQ(result_of(c, 3, 8), 0);
  CHECK_EQ(result_of(c, 3, 9), -ENOENT);
  sqe(&u, IORING_OP_TIMEOUT, -1, &lng, 1, 0, 10);
  struct io_uring_sqe *s = sqe(&u, IORING_OP_TIMEOUT_REMOVE, -1, (void *)10, 0, (uint64_t)(uintptr_t)&ts, 11);
  s->timeout_flags = IORING_TIMEOUT_UPDATE;
  CHECK_EQ(submit(&u, 2), 2);
  CHECK_EQ(expect(&u, 11), 0);
  CHECK_EQ(expect(&u, 10), -ETIME);
  done(&u);
}

TEST(chains) {
  Uring u = make(16, 0, 0);
  int fd = tmp_file("f", "");
  char b[8] = "";
  sqe(&u, IORING_OP_WRITE, fd, "hello", 5, 0, 1)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_FSYNC, fd, NULL, 0, 0, 2)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_READ, fd, b, 5, 0, 3);
  CHECK_EQ(submit(&u, 3), 3);
  CHECK_EQ(expect(&u, 1), 5);
  CHECK_EQ(expect(&u, 2), 0);
  CHECK_EQ(expect(&u, 3), 5);
  CHECK_STR(b, "hello");
  sqe(&u, IORING_OP_READ, -1, b, 5, 0, 4)->flags = IOSQE_IO_LINK; /* fails */
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 5)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 6);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 7); /* of its own */
  CHECK_EQ(submit(&u, 4), 4);
  struct io_uring_cqe c[4];
  collect(&u, c, 4);
  CHECK_EQ(result_of(c, 4, 4), -EBADF);
  CHECK_EQ(result_of(c, 4, 5), -ECANCELED);
  CHECK_EQ(result_of(c, 4, 6), -ECANCELED);
  CHECK_EQ(result_of(c, 4, 7), 0);
  sqe(&u, IORING_OP_READ, -1, b, 5, 0, 8)->flags = IOSQE_IO_HARDLINK;
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 9);
  CHECK_EQ(submit(&u, 2), 2);
  CHECK_EQ(expect(&u, 8), -EBADF);
  CHECK_EQ(expect(&u, 9), 0);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 10)->flags = IOSQE_CQE_SKIP_SUCCESS;
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 11);
  CHECK_EQ(submit(&u, 1), 2);
  CHECK_EQ(expect(&u, 11), 0);
  done(&u);
}

TEST(linked_timeouts) {
  Uring u = make(8, 0, 0);
  int p[2];
  char b[8];
  struct __kernel_timespec ts = {0, 30000000}, lng = {100, 0};
  struct io_uring_cqe c[3];
  SYS(pipe(p));
  sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 1)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_LINK_TIMEOUT, -1, &ts, 1, 0, 2)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 3);
  CHECK_EQ(submit(&u, 0), 3);
  collect(&u, c, 3);
  CHECK_EQ(result_of(c, 3, 1), -ECANCELED);
  CHECK_EQ(result_of(c, 3, 2), -ETIME);
  CHECK_EQ(result_of(c, 3, 3), -ECANCELED);
  sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 4)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_LINK_TIMEOUT, -1, &lng, 1, 0, 5)->flags = IOSQE_IO_LINK;
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 6);
  CHECK_EQ(submit(&u, 0), 3);
  write(p[1], "four", 4);
  collect(&u, c, 3);
  CHECK_EQ(result_of(c, 3, 4), 4);
  CHECK_EQ(result_of(c, 3, 5), -ECANCELED);
  int nop = result_of(c, 3, 6);
  CHECK_EQ(nop, 0); /* some kernels cut the chain behind a timeout that was not needed */
  sqe(&u, IORING_OP_LINK_TIMEOUT, -1, &lng, 1, 0, 7); /* of nothing */
  CHECK_EQ(enter(&u, 1, 0, 0), 1);
  u.queued = 0;
  CHECK_EQ(expect(&u, 7), -EINVAL);
  done(&u);
}

TEST(drains) {
  Uring u = make(8, 0, 0);
  int p[2];
  char b[8];
  SYS(pipe(p));
  sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 1);
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 2)->flags = IOSQE_IO_DRAIN;
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 3);
  CHECK_EQ(submit(&u, 0), 3);
  struct io_uring_cqe c;
  CHECK(!peek(&u, &c));
  write(p[1], "x", 1);
  CHECK_EQ(expect(&u, 1), 1);
  CHECK_EQ(expect(&u, 2), 0);
  CHECK_EQ(expect(&u, 3), 0);
  done(&u);
}

TEST(cancelling) {
  Uring u = make(16, 0, 0);
  int p[2];
  char b[8];
  SYS(pipe(p));
  for (int i = 1; i <= 3; i++)
    sqe(&u, IORING_OP_READ, p[0], b, 4, 0, i);
  CHECK_EQ(submit(&u, 0), 3);
  sqe(&u, IORING_OP_ASYNC_CANCEL, -1, (void *)2, 0, 0, 10);
  sqe(&u, IORING_OP_ASYNC_CANCEL, -1, (void *)20, 0, 0, 11);
  CHECK_EQ(submit(&u, 3), 2);
  struct io_uring_cqe c[3];
  collect(&u, c, 3);
  CHECK_EQ(result_of(c, 3, 2), -ECANCELED);
  CHECK_EQ(result_of(c, 3, 10), 0);
  CHECK_EQ(result_of(c, 3, 11), -ENOENT);
  sqe(&u, IORING_OP_ASYNC_CANCEL, p[0], NULL, 0, 0, 12)->cancel_flags =
      IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
  CHECK_EQ(submit(&u, 3), 1);
  collect(&u, c, 3);
  CHECK_EQ(result_of(c, 3, 1), -ECANCELED);
  CHECK_EQ(result_of(c, 3, 3), -ECANCELED);
  CHECK_EQ(result_of(c, 3, 12), 2);
  write(p[1], "kept", 4);
  CHECK_EQ(read(p[0], b, 4), 4); /* those that were cancelled took nothing */
  done(&u);
}

/* Opening a FIFO waits for its other end in the submitting task; meanwhile others become ready, and none runs on top of another. */
enum { FIFOS = 200 };
static int gates[FIFOS][2];

static void *open_gates(void *arg) {
  (void)arg;
  for (int i = 0; i < FIFOS; i++) {
    write(gates[i][1], "x", 1);
    if (i % 10 == 0)
      sleep_ms(1);
  }
  sleep_ms(20);
  for (int i = 0; i < FIFOS; i++)
    close(open("fifo", O_WRONLY));
  while (!stop) { /* whoever still waits */
    int fd = open("fifo", O_WRONLY | O_NONBLOCK);
    if (fd >= 0)
      close(fd);
    sleep_ms(1);
  }
  return NULL;
}

TEST_LIMIT(fifos_in_chains, 30) {
  Uring u = make(512, 0, 0);
  pthread_t t;
  char b[8];
  SYS(chdir(tmp_dir()));
  SYS(mkfifo("fifo", 0600));
  for (int i = 0; i < FIFOS; i++) {
    SYS(pipe(gates[i]));
    sqe(&u, IORING_OP_READ, gates[i][0], b, 1, 0, 1)->flags = IOSQE_IO_LINK;
    sqe(&u, IORING_OP_OPENAT, AT_FDCWD, "fifo", 0, 0, 2)->open_flags = O_RDONLY;
  }
  SYS(submit(&u, 0));
  REQUIRE(pthread_create(&t, NULL, open_gates, NULL) == 0);
  int read_ok = 0, opened = 0;
  struct io_uring_cqe c;
  while (read_ok + opened < 2 * FIFOS) {
    if (!peek(&u, &c)) {
      enter(&u, 0, 1, IORING_ENTER_GETEVENTS);
      continue;
    }
    read_ok += c.user_data == 1 && c.res == 1;
    opened += c.user_data == 2 && c.res >= 0;
    if (c.res < 0)
      break;
  }
  CHECK_EQ(read_ok, FIFOS);
  CHECK_EQ(opened, FIFOS);
  stop = true;
  pthread_join(t, NULL);
  done(&u);
}

TEST(system_calls) {
  Uring u = make(16, 0, 0);
  struct statx stx;
  SYS(chdir(tmp_dir()));
  struct io_uring_sqe *s = sqe(&u, IORING_OP_OPENAT, AT_FDCWD, "f", 0600, 0, 1);
  s->open_flags = O_CREAT | O_RDWR;
  CHECK_EQ(submit(&u, 1), 1);
  int fd = expect(&u, 1);
  REQUIRE(fd >= 0);
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  sqe(&u, IORING_OP_FALLOCATE, fd, (void *)4096, 0, 0, 2);
  submit(&u, 1);
  int r = expect(&u, 2);
  CHECK(r == 0 || r == -EOPNOTSUPP);
  sqe(&u, IORING_OP_STATX, AT_FDCWD, "f", STATX_BASIC_STATS, (uint64_t)(uintptr_t)&stx, 3);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 3), 0);
  CHECK(S_ISREG(stx.stx_mode));
  sqe(&u, IORING_OP_CLOSE, fd, NULL, 0, 0, 4);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 4), 0);
  CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
  sqe(&u, IORING_OP_CLOSE, u.fd, NULL, 0, 0, 5);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 5), -EBADF);
  sqe(&u, IORING_OP_OPENAT, AT_FDCWD, "none", 0, 0, 6);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 6), -ENOENT);
  sqe(&u, IORING_OP_MKDIRAT, AT_FDCWD, "d", 0755, 0, 7);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 7), 0);
  sqe(&u, IORING_OP_RENAMEAT, AT_FDCWD, "f", (unsigned)AT_FDCWD, (uint64_t)(uintptr_t) "d/g", 8);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 8), 0);
  sqe(&u, IORING_OP_UNLINKAT, AT_FDCWD, "d/g", 0, 0, 9);
  submit(&u, 1);
  CHECK_EQ(expect(&u, 9), 0);
  done(&u);
}

TEST(sockets) {
  Uring u = make(16, 0, 0);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  char b[16] = "";
  SYS(chdir(tmp_dir()));
  strcpy(a.sun_path, "s");
  int l = (int)SYS(socket(AF_UNIX, SOCK_STREAM, 0)), s = (int)SYS(socket(AF_UNIX, SOCK_STREAM, 0));
  SYS(bind(l, (struct sockaddr *)&a, sizeof a));
  SYS(listen(l, 5));
  sqe(&u, IORING_OP_ACCEPT, l, NULL, 0, 0, 1)->accept_flags = SOCK_CLOEXEC;
  CHECK_EQ(submit(&u, 0), 1);
  sqe(&u, IORING_OP_CONNECT, s, &a, 0, sizeof a, 2);
  CHECK_EQ(submit(&u, 2), 1);
  struct io_uring_cqe c[2];
  collect(&u, c, 2);
  CHECK_EQ(result_of(c, 2, 2), 0);
  int peer = result_of(c, 2, 1);
  REQUIRE(peer >= 0);
  CHECK_EQ(fcntl(peer, F_GETFD), FD_CLOEXEC);
  sqe(&u, IORING_OP_RECV, peer, b, 16, 0, 3);
  CHECK_EQ(submit(&u, 0), 1);
  sqe(&u, IORING_OP_SEND, s, "stream", 6, 0, 4);
  CHECK_EQ(submit(&u, 2), 1);
  collect(&u, c, 2);
  CHECK_EQ(result_of(c, 2, 4), 6);
  CHECK_EQ(result_of(c, 2, 3), 6);
  CHECK_STR(b, "stream");
  struct iovec v = {b, 16};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  sqe(&u, IORING_OP_RECVMSG, s, &m, 1, 0, 5);
  CHECK_EQ(submit(&u, 0), 1);
  struct iovec w = {(char *)"message", 7};
  struct msghdr n = {.msg_iov = &w, .msg_iovlen = 1};
  sqe(&u, IORING_OP_SENDMSG, peer, &n, 1, 0, 6);
  CHECK_EQ(submit(&u, 2), 1);
  collect(&u, c, 2);
  CHECK_EQ(result_of(c, 2, 5), 7);
  CHECK_EQ(result_of(c, 2, 6), 7);
  CHECK_STR(b, "message");
  sqe(&u, IORING_OP_SHUTDOWN, peer, NULL, SHUT_RDWR, 0, 7);
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 7), 0);
  sqe(&u, IORING_OP_RECV, s, b, 16, 0, 8);
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 8), 0);
  sqe(&u, IORING_OP_RECV, u.fd, b, 16, 0, 9);
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 9), -ENOTSOCK);
  sqe(&u, IORING_OP_SEND, s, "x", 1, 0, 10); /* EPIPE without SIGPIPE */
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 10), -EPIPE);
  done(&u);
}

TEST(overflow) {
  Uring u = make(4, IORING_SETUP_CQSIZE, 4);
  for (int i = 0; i < 10; i++) {
    sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, i);
    CHECK_EQ(submit(&u, 0), 1);
  }
  CHECK_EQ(load(AT(&u, u.p.cq_off.tail)) - *AT(&u, u.p.cq_off.head), 4);
  CHECK(*AT(&u, u.p.sq_off.flags) & IORING_SQ_CQ_OVERFLOW);
  for (int i = 0; i < 10; i++)
    CHECK_EQ(expect(&u, i), 0); /* none is lost, and in order */
  enter(&u, 0, 0, IORING_ENTER_GETEVENTS);
  CHECK(!(*AT(&u, u.p.sq_off.flags) & IORING_SQ_CQ_OVERFLOW));
  done(&u);
}

TEST(registered) {
  Uring u = make(8, 0, 0);
  int fd = tmp_file("f", "0123456789"), p[2], ev = (int)SYS(eventfd(0, EFD_NONBLOCK));
  static char b[4096];
  uint64_t n;
  SYS(pipe(p));
  int fds[3] = {fd, -1, p[0]};
  SYS(reg(&u, IORING_REGISTER_FILES, fds, 3));
  CHECK_ERRNO(reg(&u, IORING_REGISTER_FILES, fds, 3), EBUSY);
  close(fd);
  struct iovec v = {b, sizeof b};
  SYS(reg(&u, IORING_REGISTER_BUFFERS, &v, 1));
  SYS(reg(&u, IORING_REGISTER_EVENTFD, &ev, 1));
  sqe(&u, IORING_OP_READ_FIXED, 0, b + 10, 4, 2, 1)->flags = IOSQE_FIXED_FILE;
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 1), 4);
  CHECK_STR(b + 10, "2345");
  CHECK_EQ(read(ev, &n, 8), 8);
  CHECK_EQ(n, 1);
  sqe(&u, IORING_OP_READ, 1, b, 4, 0, 2)->flags = IOSQE_FIXED_FILE;
  submit(&u, 1);
  CHECK_EQ(expect(&u, 2), -EBADF);
  sqe(&u, IORING_OP_READ, 3, b, 4, 0, 3)->flags = IOSQE_FIXED_FILE;
  submit(&u, 1);
  CHECK_EQ(expect(&u, 3), -EBADF);
  sqe(&u, IORING_OP_READ_FIXED, 0, b + 4090, 10, 0, 4)->flags = IOSQE_FIXED_FILE;
  submit(&u, 1);
  CHECK_EQ(expect(&u, 4), -EFAULT);
  struct io_uring_files_update up = {.offset = 1, .fds = (uint64_t)(uintptr_t)&p[0]};
  CHECK_EQ(reg(&u, IORING_REGISTER_FILES_UPDATE, &up, 1), 1);
  write(p[1], "pipe", 4);
  sqe(&u, IORING_OP_READ, 1, b, 4, 0, 5)->flags = IOSQE_FIXED_FILE;
  submit(&u, 1);
  CHECK_EQ(expect(&u, 5), 4);
  SYS(reg(&u, IORING_UNREGISTER_EVENTFD, NULL, 0));
  SYS(reg(&u, IORING_UNREGISTER_FILES, NULL, 0));
  CHECK_ERRNO(reg(&u, IORING_UNREGISTER_FILES, NULL, 0), ENXIO);
  SYS(reg(&u, IORING_UNREGISTER_BUFFERS, NULL, 0));
  CHECK_ERRNO(reg(&u, 250, NULL, 0), EINVAL);
  struct {
    struct io_uring_probe p;
    struct io_uring_probe_op o[64];
  } probe = {0};
  SYS(reg(&u, IORING_REGISTER_PROBE, &probe, 64));
  CHECK(probe.o[IORING_OP_READ].flags & IO_URING_OP_SUPPORTED);
  CHECK(probe.p.ops_len > IORING_OP_READ);
  done(&u);
}

TEST(enter_with_timeout_and_signals) {
  Uring u = make(8, 0, 0);
  struct __kernel_timespec ts = {0, 30000000};
  struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)&ts};
  unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
  CHECK_ERRNO(syscall(SYS_io_uring_enter, u.fd, 0, 1, flags, &arg, sizeof arg), ETIME);
  CHECK_ERRNO(syscall(SYS_io_uring_enter, u.fd, 0, 1, flags, &arg, 3), EINVAL);
  sigset_t set = sigset_of(SIGUSR1, 0);
  block_signal(SIGUSR1);
  pid_t me = getpid();
  pid_t pid = CHILD({
    sleep_ms(30);
    kill(me, SIGUSR1);
  });
  ts.tv_sec = 0;
  ts.tv_nsec = 200000000;
  arg.sigmask = (uint64_t)(uintptr_t)&set; /* stays blocked */
  arg.sigmask_sz = 8;
  CHECK_ERRNO(syscall(SYS_io_uring_enter, u.fd, 0, 1, flags, &arg, sizeof arg), ETIME);
  WAIT_OK(pid);
  done(&u);
}

static void nothing(int sig) { (void)sig; }

TEST(enter_is_interrupted) {
  Uring u = make(8, 0, 0);
  on_signal(SIGUSR1, nothing, 0);
  pid_t me = getpid();
  pid_t pid = CHILD({
    sleep_ms(50);
    kill(me, SIGUSR1);
  });
  CHECK_ERRNO(enter(&u, 0, 1, IORING_ENTER_GETEVENTS), EINTR);
  WAIT_OK(pid);
  done(&u);
}

/* What waits ends with its process, whoever else has the ring, and with its program. */
TEST(ends_with_its_task) {
  Uring u = make(8, 0, 0);
  int p[2];
  static char b[64];
  SYS(pipe(p));
  WAIT_OK(CHILD({
    struct __kernel_timespec ts = {100, 0};
    sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 1);
    sqe(&u, IORING_OP_TIMEOUT, -1, &ts, 1, 0, 2);
    CHECK_EQ(submit(&u, 0), 2);
  }));
  SYS(write(p[1], "mine", 4));
  CHECK_EQ(read(p[0], b, 64), 4); /* the child's request did not take it */
  pid_t pid = CHILD({
    sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 3);
    CHECK_EQ(submit(&u, 0), 1);
    dup2(open("/dev/null", O_WRONLY), 1);
    execl("/proc/self/exe", "io-uring", "--list", NULL);
  });
  CHECK(pid > 0);
  check_wait(pid);
  SYS(write(p[1], "mine", 4));
  CHECK_EQ(read(p[0], b, 64), 4);
  done(&u);
}

TEST(closed_while_waiting) {
  Uring u = make(8, 0, 0);
  int p[2];
  char b[64];
  SYS(pipe(p));
  sqe(&u, IORING_OP_READ, p[0], b, 4, 0, 1);
  CHECK_EQ(submit(&u, 0), 1);
  done(&u);
  sleep_ms(50);
  SYS(write(p[1], "mine", 4));
  fcntl(p[0], F_SETFL, O_NONBLOCK);
  CHECK_EQ(read(p[0], b, 64), 4);
}

/* ---- Hostile: indices of any value, entries that change under the reader ---- */

static void *scribble(void *arg) {
  Uring *u = arg;
  uint64_t seed = 42;
  while (!stop) {
    uint64_t r = next_random(&seed);
    struct io_uring_sqe *s = &u->sqes[r & 7];
    s->opcode = (uint8_t)((r >> 8) % 50);
    s->fd = (int)((r >> 16) % 8) - 1;
    s->addr = (r >> 20) & 1 ? r : (uint64_t)(uintptr_t)u->ring;
    s->len = (uint32_t)(r >> 40) & 0xff;
    s->flags = (uint8_t)(r >> 50);
    s->user_data = r;
    AT(u, u->p.sq_off.array)[r & 7] = (unsigned)(r >> 5) & 15;
    if (!(r & 0xf000))
      *AT(u, u->p.sq_off.tail) = (unsigned)(r >> 13);
    if (!(r & 0xf0000))
      *AT(u, u->p.cq_off.head) = (unsigned)(r >> 17);
  }
  return NULL;
}

/* It may have the socket among its registered files, and then nobody would ever find the circle (Linux 6.8). */
TEST(cannot_be_passed) {
  Uring u = make(4, 0, 0);
  int s[2];
  char byte = 'x', ctl[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec iov = {&byte, 1};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);

  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  SYS(reg(&u, IORING_REGISTER_FILES, s, 2));
  *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
  memcpy(CMSG_DATA(c), &u.fd, sizeof u.fd);
  CHECK_ERRNO(sendmsg(s[0], &m, 0), EINVAL);
  close(s[0]);
  close(s[1]);
  done(&u);
}

TEST_LIMIT(hostile_rings, 60) {
  /* In a child with nothing but a pipe: what it opens, closes and writes at random is its own. */
  if (!check_in_sandbox)
    SKIP("random system calls: only in a sandbox");
  pid_t pid = CHILD({
    Uring u = make(8, 0, 0);
    pthread_t t;
    int p[2];
    SYS(chdir(tmp_dir()));
    SYS(pipe2(p, O_NONBLOCK));
    int null = (int)SYS(open("/dev/null", O_RDWR));
    for (int i = 0; i < 3; i++)
      dup2(null, i);
    pthread_create(&t, NULL, scribble, &u);
    int64_t until = now_ns() + (check_seconds ? (int64_t)check_seconds : 2) * 1000000000;
    while (now_ns() < until)
      enter(&u, 8, 0, IORING_ENTER_GETEVENTS);
    _exit(0);
  });
  int status;
  SYS(waitpid(pid, &status, 0));
  Uring u = make(8, 0, 0); /* and the kernel is there */
  sqe(&u, IORING_OP_NOP, -1, NULL, 0, 0, 1);
  CHECK_EQ(submit(&u, 1), 1);
  CHECK_EQ(expect(&u, 1), 0);
  done(&u);
}

static void *storm(void *arg) {
  Uring *u = arg;
  int p[2];
  char b[8];
  if (pipe(p) < 0)
    return NULL;
  Uring mine = make(32, 0, 0);
  while (!stop) {
    for (int i = 0; i < 8; i++)
      sqe(&mine, IORING_OP_READ, p[0], b, 1, 0, i);
    submit(&mine, 0);
    write(p[1], "01234567", 8);
    struct io_uring_cqe c[8];
    collect(&mine, c, 8);
    for (int i = 0; i < 8; i++)
      CHECK_EQ(c[i].res, 1);
    enter(u, 0, 0, IORING_ENTER_GETEVENTS);
  }
  done(&mine);
  close(p[0]);
  close(p[1]);
  return NULL;
}

TEST_LIMIT(storms, 60) {
  pthread_t t[8];
  Uring u = make(8, 0, 0);
  for (int i = 0; i < 8; i++)
    REQUIRE(pthread_create(&t[i], NULL, storm, &u) == 0);
  sleep_ms(check_seconds ? (unsigned)check_seconds * 1000 : 1000);
  stop = true;
  for (int i = 0; i < 8; i++)
    pthread_join(t[i], NULL);
  done(&u);
}
