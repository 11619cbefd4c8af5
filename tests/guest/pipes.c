/* SPDX-License-Identifier: Apache-2.0 */
/* pipes.c - pipe(2), pipe(7): capacity, atomicity, ends, signals, FIFOs, sizes, splice-free copying. */
#include "check.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>

TEST(basics) {
  int fds[2];
  char buf[8] = "";
  struct stat st;

  SYS(pipe2(fds, O_CLOEXEC));
  CHECK_EQ(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
  CHECK_EQ(fcntl(fds[1], F_GETFL) & O_ACCMODE, O_WRONLY);
  SYS(fstat(fds[0], &st));
  CHECK(S_ISFIFO(st.st_mode));
  CHECK_ERRNO(pipe2(fds, 0x10000000), EINVAL);
  CHECK_EQ(write(fds[1], "hello", 5), 5);
  CHECK_EQ(read(fds[0], buf, 2), 2);
  CHECK_EQ(read(fds[0], buf + 2, 8), 3);
  CHECK_STR(buf, "hello");
  CHECK_ERRNO(write(fds[0], "x", 1), EBADF);
  CHECK_ERRNO(read(fds[1], buf, 1), EBADF);
  CHECK_ERRNO(lseek(fds[0], 0, SEEK_SET), ESPIPE);
  CHECK_ERRNO(pread(fds[0], buf, 1, 0), ESPIPE);
  CHECK_ERRNO(ftruncate(fds[1], 0), EINVAL);
}

/* U1, W4: pipe:[n] with one device and growing numbers. */
TEST(identity) {
  int a[2], b[2];
  struct stat sa, sb, s2;
  char path[64], link[64] = "", want[64];

  SYS(pipe(a));
  SYS(pipe(b));
  SYS(fstat(a[0], &sa));
  SYS(fstat(a[1], &s2));
  SYS(fstat(b[0], &sb));
  CHECK_EQ(sa.st_ino, s2.st_ino);
  CHECK(sa.st_ino != sb.st_ino);
  CHECK_EQ(sa.st_dev, sb.st_dev);
  snprintf(path, sizeof path, "/proc/self/fd/%d", a[0]);
  CHECK(readlink(path, link, sizeof link - 1) > 0);
  snprintf(want, sizeof want, "pipe:[%lu]", (unsigned long)sa.st_ino);
  CHECK_STR(link, want);
}

TEST(end_of_file) {
  int fds[2];
  char c;

  SYS(pipe(fds));
  write_full(fds[1], "x", 1);
  int copy = dup(fds[1]);
  close(fds[1]);
  SYS(fcntl(fds[0], F_SETFL, O_NONBLOCK));
  CHECK_EQ(read(fds[0], &c, 1), 1);
  CHECK_ERRNO(read(fds[0], &c, 1), EAGAIN);
  close(copy);
  CHECK_EQ(read(fds[0], &c, 1), 0);
}

TEST(broken_pipe) {
  int fds[2];

  SYS(pipe(fds));
  close(fds[0]);
  int status = check_wait(CHILD(write(fds[1], "x", 1); _exit(0)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
  signal(SIGPIPE, SIG_IGN);
  CHECK_ERRNO(write(fds[1], "x", 1), EPIPE);
  CHECK_EQ(write(fds[1], "", 0), 0); /* nothing to write: no signal, no error */
}

TEST(reader_leaves_while_writing) {
  int fds[2];
  static char big[200000];

  signal(SIGPIPE, SIG_IGN);
  SYS(pipe(fds));
  pid_t pid = CHILD(close(fds[1]); char b[1000]; read_full(fds[0], b, sizeof b); sleep_ms(30));
  close(fds[0]);
  ssize_t n = write(fds[1], big, sizeof big);
  CHECK((n > 0 && n < (ssize_t)sizeof big) || (n == -1 && errno == EPIPE));
  WAIT_OK(pid);
}

TEST(nonblocking_capacity) {
  int fds[2], total = 0;
  char buf[1000] = "";

  SYS(pipe2(fds, O_NONBLOCK));
  for (ssize_t n; (n = write(fds[1], buf, sizeof buf)) > 0;)
    total += (int)n;
  CHECK_EQ(errno, EAGAIN);
  CHECK(total > 65536 - 4096 && total <= 65536);
  int avail = 0;
  SYS(ioctl(fds[0], FIONREAD, &avail));
  CHECK_EQ(avail, total);
}

TEST(set_pipe_size) {
  int fds[2];
  static char page[4096];

  SYS(pipe2(fds, O_NONBLOCK));
  CHECK_EQ(fcntl(fds[0], F_GETPIPE_SZ), 65536);
  CHECK_EQ(fcntl(fds[1], F_SETPIPE_SZ, 4096), 4096);
  CHECK_EQ(write(fds[1], page, 4096), 4096);
  CHECK_ERRNO(write(fds[1], page, 1), EAGAIN);
  CHECK(fcntl(fds[1], F_SETPIPE_SZ, 100000) >= 100000);
  for (int i = 0; i < 16; i++)
    CHECK_EQ(write(fds[1], page, 4096), 4096);
  CHECK_ERRNO(fcntl(fds[1], F_SETPIPE_SZ, 4096), EBUSY); /* more in it than would fit */
  CHECK_ERRNO(fcntl(fds[1], F_SETPIPE_SZ, -1), EINVAL);
  CHECK_ERRNO(fcntl(tmp_file("f", ""), F_GETPIPE_SZ), EBADF);
}

TEST(atomic_writes) {
  enum { WRITERS = 4, N = 300 };
  int fds[2];
  pid_t pids[WRITERS];
  static char rec[PIPE_BUF];

  SYS(pipe(fds));
  for (int w = 0; w < WRITERS; w++)
    pids[w] = CHILD(memset(rec, 'a' + w, sizeof rec);
                    for (int i = 0; i < N; i++) CHECK_EQ(write(fds[1], rec, sizeof rec), sizeof rec));
  close(fds[1]);
  int torn = 0, count = 0;
  for (; count < WRITERS * N; count++) {
    read_full(fds[0], rec, sizeof rec);
    for (size_t i = 1; i < sizeof rec; i++)
      torn += rec[i] != rec[0];
  }
  CHECK_EQ(torn, 0);
  for (int w = 0; w < WRITERS; w++)
    WAIT_OK(pids[w]);
}

TEST(nonblocking_atomic_or_nothing) {
  int fds[2];
  static char buf[65536];

  SYS(pipe2(fds, O_NONBLOCK));
  CHECK_EQ(write(fds[1], buf, 65536 - 100), 65536 - 100);
  CHECK_ERRNO(write(fds[1], buf, PIPE_BUF), EAGAIN); /* up to PIPE_BUF all or nothing */
  ssize_t n = write(fds[1], buf, PIPE_BUF + 5000);   /* beyond it a part is allowed */
  CHECK((n == -1 && errno == EAGAIN) || (n > 0 && n <= 200));
}

TEST(large_transfer) {
  int fds[2];
  size_t n = 8 << 20;
  char *p = map_anon(n, PROT_READ | PROT_WRITE), *q = map_anon(n, PROT_READ | PROT_WRITE);

  pattern_fill(p, n, 6);
  SYS(pipe(fds));
  pid_t pid = CHILD(write_full(fds[1], p, n));
  close(fds[1]);
  read_full(fds[0], q, n);
  CHECK(pattern_ok(q, n, 6));
  CHECK_EQ(read(fds[0], q, 1), 0);
  WAIT_OK(pid);
}

TEST(ping_pong) {
  int a[2], b[2];
  uint32_t v = 0;

  SYS(pipe(a));
  SYS(pipe(b));
  pid_t pid = CHILD(uint32_t x; for (int i = 0; i < 2000; i++) {
    read_full(a[0], &x, 4);
    x++;
    write_full(b[1], &x, 4);
  });
  for (int i = 0; i < 2000; i++) {
    write_full(a[1], &v, 4);
    read_full(b[0], &v, 4);
  }
  CHECK_EQ(v, 2000);
  WAIT_OK(pid);
}

TEST(many_readers_get_each_byte_once) {
  int fds[2];
  volatile int *counts = map_shared(PAGE * 4);
  pid_t pids[4];

  SYS(pipe(fds));
  for (int i = 0; i < 4; i++)
    pids[i] = CHILD(close(fds[1]); uint16_t v; while (read(fds[0], &v, 2) == 2)
                        __atomic_fetch_add((int *)&counts[v], 1, __ATOMIC_SEQ_CST));
  for (uint16_t v = 0; v < 2000; v++)
    write_full(fds[1], &v, 2);
  close(fds[1]);
  for (int i = 0; i < 4; i++)
    WAIT_OK(pids[i]);
  for (int v = 0; v < 2000; v++)
    if (!CHECK_EQ(counts[v], 1))
      break;
}

TEST(fifo_open_semantics) {
  char path[256], c = 0;

  strcpy(path, tmp_path("fifo"));
  SYS(mkfifo(path, 0600));
  CHECK_ERRNO(open(path, O_WRONLY | O_NONBLOCK), ENXIO);
  int r = (int)SYS(open(path, O_RDONLY | O_NONBLOCK));
  CHECK_EQ(read(r, &c, 1), 0); /* no writer yet */
  int w = (int)SYS(open(path, O_WRONLY | O_NONBLOCK));
  CHECK_ERRNO(read(r, &c, 1), EAGAIN);
  write_full(w, "f", 1);
  CHECK_EQ(read(r, &c, 1), 1);
  close(w);
  CHECK_EQ(read(r, &c, 1), 0);
  close(r);
  CHECK_OK(open(path, O_RDWR | O_NONBLOCK)); /* both ends at once */
}

TEST(fifo_open_waits_for_the_other_end) {
  char path[256], c = 0;

  strcpy(path, tmp_path("fifo"));
  SYS(mkfifo(path, 0600));
  pid_t pid = CHILD(sleep_ms(30); int w = (int)SYS(open(path, O_WRONLY)); write_full(w, "w", 1));
  int r = (int)SYS(open(path, O_RDONLY));
  CHECK_EQ(read(r, &c, 1), 1);
  CHECK_EQ(c, 'w');
  CHECK_EQ(read(r, &c, 1), 0);
  WAIT_OK(pid);
  close(r);
  pid = CHILD(sleep_ms(30); SYS(open(path, O_RDONLY)); sleep_ms(20));
  SYS(open(path, O_WRONLY));
  WAIT_OK(pid);
}

static void nop(int sig) {}

TEST(fifo_open_interrupted) {
  char path[256];

  strcpy(path, tmp_path("fifo"));
  SYS(mkfifo(path, 0600));
  on_signal(SIGUSR1, nop, 0);
  pid_t me = getpid(), pid = CHILD(sleep_ms(40); kill(me, SIGUSR1));
  CHECK_ERRNO(open(path, O_RDONLY), EINTR);
  WAIT_OK(pid);
}

TEST(packet_mode) {
  int fds[2];
  char buf[16];

  if (pipe2(fds, O_DIRECT) < 0 && errno == EINVAL)
    SKIP("packet pipes (O_DIRECT) are not supported");
  write_full(fds[1], "abc", 3);
  write_full(fds[1], "de", 2);
  CHECK_EQ(read(fds[0], buf, 16), 3);
  CHECK_EQ(read(fds[0], buf, 1), 1); /* the rest of the packet is dropped */
  write_full(fds[1], "f", 1);
  CHECK_EQ(read(fds[0], buf, 16), 1);
  CHECK_EQ(buf[0], 'f');
}

TEST(reopen_through_proc) {
  int fds[2];
  char path[64], c = 0;

  SYS(pipe(fds));
  snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
  int w = open(path, O_WRONLY);
  if (w < 0)
    SKIP("a pipe cannot be reopened through /proc: %s", strerror(errno));
  write_full(w, "r", 1);
  CHECK_EQ(read(fds[0], &c, 1), 1);
  CHECK_EQ(c, 'r');
}

/* A writer may come, and be gone again, before a reader who opens at the same time has looked: it was there all the same. */
static pthread_barrier_t start_together;
static void *come_and_go(void *path) {
  for (int i = 0; i < 1000; i++) {
    pthread_barrier_wait(&start_together);
    close((int)SYS(open(path, O_WRONLY)));
  }
  return NULL;
}

TEST_LIMIT(fifo_peer_that_leaves_at_once, 60) {
  char *path = tmp_path("fifo"), c;
  pthread_t t;

  SYS(mkfifo(path, 0600));
  REQUIRE(pthread_barrier_init(&start_together, NULL, 2) == 0);
  REQUIRE(pthread_create(&t, NULL, come_and_go, path) == 0);
  for (int i = 0; i < 1000; i++) {
    pthread_barrier_wait(&start_together);
    int fd = (int)SYS(open(path, O_RDONLY));
    CHECK_EQ(read(fd, &c, 1), 0);
    close(fd);
  }
  pthread_join(t, NULL);
}
