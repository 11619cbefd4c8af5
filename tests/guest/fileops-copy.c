/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-copy.c - sendfile(2), splice(2), tee(2), vmsplice(2), copy_file_range(2): what is moved, what stays, and every error. */
#include "check.h"

#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

static char *contents(const char *name) {
  size_t n;
  char *t = read_file(tmp_path(name), &n);
  return t;
}

TEST(sendfile_moves) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", ""), p[2], s[2];
  off_t off = 2;
  char buf[32];
  SYS(pipe(p));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  CHECK_EQ(sendfile(out, in, NULL, 4), 4);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 4);
  CHECK_EQ(lseek(out, 0, SEEK_CUR), 4);
  CHECK_EQ(sendfile(out, in, &off, 3), 3);
  CHECK_EQ(off, 5);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 4);
  CHECK_STR(contents("out"), "0123234");
  CHECK_EQ(sendfile(p[1], in, &off, 100), 5);
  CHECK_EQ(off, 10);
  CHECK_EQ(sendfile(p[1], in, &off, 100), 0);
  CHECK_EQ(read(p[0], buf, 32), 5);
  CHECK_EQ(sendfile(s[0], in, NULL, 2), 2);
  CHECK_EQ(read(s[1], buf, 32), 2);
  CHECK_EQ(sendfile(out, in, NULL, 0), 0);
}

TEST(sendfile_errors) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", ""), p[2], s[2],
      dir = open(tmp_dir(), O_RDONLY), ro = open(tmp_path("out"), O_RDONLY),
      wo = open(tmp_path("in"), O_WRONLY), app = open(tmp_path("out"), O_WRONLY | O_APPEND),
      pa = open(tmp_path("in"), O_PATH);
  off_t neg = -1, big = INT64_MAX;
  SYS(pipe(p));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  CHECK_ERRNO(sendfile(-1, in, NULL, 1), EBADF);
  CHECK_ERRNO(sendfile(out, -1, NULL, 1), EBADF);
  CHECK_ERRNO(sendfile(out, wo, NULL, 1), EBADF);
  CHECK_ERRNO(sendfile(ro, in, NULL, 1), EBADF);
  CHECK_ERRNO(sendfile(out, pa, NULL, 1), EBADF);
  CHECK_ERRNO(sendfile(out, in, &neg, 1), EINVAL);
  CHECK_ERRNO(sendfile(out, in, &big, 2), EINVAL);
  CHECK_ERRNO(sendfile(out, in, (off_t *)1, 1), EFAULT);
  CHECK_ERRNO(sendfile(app, in, NULL, 1), EINVAL);
  CHECK_ERRNO(sendfile(out, dir, NULL, 1), EINVAL);
  off_t zero = 0;
  CHECK_ERRNO(sendfile(out, p[0], &zero, 1), ESPIPE);
  CHECK_ERRNO(sendfile(out, in, NULL, -1), EINVAL);
}

TEST(splice_moves) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", ""), p[2], q[2];
  loff_t a = 3, b = 2;
  char buf[32];
  SYS(pipe2(p, O_NONBLOCK));
  SYS(pipe2(q, O_NONBLOCK));
  CHECK_EQ(splice(in, &a, p[1], NULL, 4, 0), 4);
  CHECK_EQ(a, 7);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 0);
  CHECK_EQ(splice(in, NULL, p[1], NULL, 2, SPLICE_F_MOVE), 2);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 2);
  CHECK_EQ(tee(p[0], q[1], 100, 0), 6); /* consumes nothing */
  CHECK_EQ(splice(p[0], NULL, out, &b, 100, 0), 6);
  CHECK_EQ(b, 8);
  CHECK_EQ(pread(out, buf, 32, 0), 8);
  CHECK(!memcmp(buf,
                "\0\0"
                "345601",
                8));
  CHECK_EQ(splice(q[0], NULL, p[1], NULL, 4, 0), 4); /* pipe to pipe */
  CHECK_EQ(read(p[0], buf, 32), 4);
  CHECK(!memcmp(buf, "3456", 4));
  CHECK_EQ(read(q[0], buf, 32), 2);
  CHECK_EQ(splice(p[0], NULL, out, NULL, 0, 0), 0);
  a = 10;
  CHECK_EQ(splice(in, &a, p[1], NULL, 4, 0), 0); /* end of file */
  close(p[1]);
  CHECK_EQ(splice(p[0], NULL, out, NULL, 4, 0), 0); /* no writers */
}

TEST(splice_errors) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", ""), p[2], q[2], s[2],
      dir = open(tmp_dir(), O_RDONLY), app = open(tmp_path("out"), O_WRONLY | O_APPEND),
      ro = open(tmp_path("out"), O_RDONLY);
  loff_t zero = 0, neg = -1;
  SYS(pipe(p));
  SYS(pipe(q));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  CHECK_ERRNO(splice(in, NULL, out, NULL, 1, 0), EINVAL);
  CHECK_ERRNO(splice(in, NULL, p[1], &zero, 1, 0), ESPIPE);
  CHECK_ERRNO(splice(p[0], &zero, out, NULL, 1, 0), ESPIPE);
  CHECK_ERRNO(splice(in, &neg, p[1], NULL, 1, 0), EINVAL);
  CHECK_ERRNO(splice(in, (loff_t *)1, p[1], NULL, 1, 0), EFAULT);
  CHECK_ERRNO(splice(-1, NULL, p[1], NULL, 1, 0), EBADF);
  CHECK_ERRNO(splice(in, NULL, -1, NULL, 1, 0), EBADF);
  CHECK_ERRNO(splice(in, NULL, p[0], NULL, 1, 0), EBADF);
  CHECK_ERRNO(splice(p[1], NULL, out, NULL, 1, 0), EBADF);
  CHECK_ERRNO(splice(in, NULL, p[1], NULL, 1, 0x100), EINVAL);
  CHECK_ERRNO(splice(p[0], NULL, p[1], NULL, 1, 0), EINVAL);
  CHECK_ERRNO(splice(p[0], NULL, ro, NULL, 1, 0), EBADF);
  write_full(p[1], "x", 1);
  CHECK_ERRNO(splice(p[0], NULL, app, NULL, 1, 0), EINVAL);
  CHECK_ERRNO(splice(dir, NULL, q[1], NULL, 1, 0), EINVAL);
  CHECK_ERRNO(splice(q[0], NULL, out, NULL, 1, SPLICE_F_NONBLOCK), EAGAIN);
  CHECK_ERRNO(splice(s[0], &zero, q[1], NULL, 1, 0), EINVAL);
  CHECK_EQ(splice(p[0], NULL, s[0], NULL, 10, 0), 1);
  CHECK_EQ(splice(s[1], NULL, q[1], NULL, 10, 0), 1);
  CHECK_ERRNO(tee(p[0], p[1], 1, 0), EINVAL);
  CHECK_ERRNO(tee(in, p[1], 1, 0), EINVAL);
  CHECK_ERRNO(tee(p[0], out, 1, 0), EINVAL);
  CHECK_ERRNO(tee(p[0], q[1], 1, 0x100), EINVAL);
  CHECK_ERRNO(tee(p[0], q[1], 1, SPLICE_F_NONBLOCK), EAGAIN);
  CHECK_ERRNO(tee(p[1], q[1], 1, 0), EBADF);
  CHECK_EQ(tee(p[0], q[1], 0, 0), 0);
  signal(SIGPIPE, SIG_IGN);
  close(q[0]);
  CHECK_ERRNO(splice(in, NULL, q[1], NULL, 1, 0), EPIPE);
}

TEST(vmsplice_rules) {
  int p[2], fd = tmp_file("f", "x");
  char buf[32] = "";
  struct iovec v[2] = {{"abc", 3}, {"de", 2}}, r = {buf, 32};
  SYS(pipe2(p, O_NONBLOCK));
  CHECK_EQ(vmsplice(p[1], v, 2, 0), 5);
  CHECK_EQ(vmsplice(p[0], &r, 1, 0), 5);
  CHECK(!memcmp(buf, "abcde", 5));
  CHECK_ERRNO(vmsplice(fd, v, 1, 0), EBADF);
  CHECK_ERRNO(vmsplice(-1, v, 1, 0), EBADF);
  CHECK_ERRNO(vmsplice(p[1], v, 1, 0x100), EINVAL);
  CHECK_ERRNO(vmsplice(p[1], v, 1025, 0), EINVAL);
  CHECK_ERRNO(vmsplice(p[1], (void *)8, 1, 0), EFAULT);
  CHECK_EQ(vmsplice(p[1], v, 0, 0), 0);
  CHECK_ERRNO(vmsplice(p[0], &r, 1, SPLICE_F_NONBLOCK), EAGAIN);
}

TEST(copy_range) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", ""), dir = open(tmp_dir(), O_RDONLY), p[2],
      ro = open(tmp_path("out"), O_RDONLY), wo = open(tmp_path("in"), O_WRONLY),
      app = open(tmp_path("out"), O_WRONLY | O_APPEND);
  loff_t a = 2, b = 1, neg = -1, big = INT64_MAX - 5;
  SYS(pipe(p));
  CHECK_EQ(copy_file_range(in, &a, out, &b, 4, 0), 4);
  CHECK_EQ(a, 6);
  CHECK_EQ(b, 5);
  CHECK_EQ(copy_file_range(in, NULL, out, NULL, 3, 0), 3);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 3);
  CHECK_EQ(lseek(out, 0, SEEK_CUR), 3);
  CHECK_STR(contents("out"), "01245");
  a = 10;
  CHECK_EQ(copy_file_range(in, &a, out, &b, 4, 0), 0);
  CHECK_EQ(copy_file_range(in, NULL, out, NULL, 0, 0), 0);
  CHECK_ERRNO(copy_file_range(in, NULL, out, NULL, 1, 1), EINVAL);
  CHECK_ERRNO(copy_file_range(in, NULL, ro, NULL, 1, 0), EBADF);
  CHECK_ERRNO(copy_file_range(wo, NULL, out, NULL, 1, 0), EBADF);
  CHECK_ERRNO(copy_file_range(in, NULL, app, NULL, 1, 0), EBADF);
  CHECK_ERRNO(copy_file_range(dir, NULL, out, NULL, 1, 0), EISDIR);
  CHECK_ERRNO(copy_file_range(p[0], NULL, out, NULL, 1, 0), EINVAL);
  CHECK_ERRNO(copy_file_range(in, NULL, p[1], NULL, 1, 0), EINVAL);
  CHECK_ERRNO(copy_file_range(in, &neg, out, NULL, 1, 0), EOVERFLOW);
  neg = -100;
  CHECK_ERRNO(copy_file_range(in, &neg, out, NULL, 1, 0), EINVAL);
  CHECK_ERRNO(copy_file_range(in, (loff_t *)1, out, NULL, 1, 0), EFAULT);
  CHECK_EQ(copy_file_range(in, &big, out, NULL, 100, 0), 0);
  big = INT64_MAX - 5;
  a = 0;
  CHECK(copy_file_range(in, &a, out, &big, 100, 0) <= 5); /* EFBIG where files cannot be that long */
  int same = open(tmp_path("in"), O_RDWR);
  loff_t x = 0, y = 3;
  CHECK_ERRNO(copy_file_range(in, &x, same, &y, 5, 0), EINVAL);
  CHECK_EQ(copy_file_range(in, &x, same, &y, 3, 0), 3);
  CHECK_STR(contents("in"), "0120126789");
}

TEST(large_copy) {
  enum { N = 1 << 20 };
  char *data = map_anon(N, PROT_READ | PROT_WRITE), *back = map_anon(N, PROT_READ | PROT_WRITE);
  pattern_fill(data, N, 7);
  int in = tmp_file("in", ""), out = tmp_file("out", ""), p[2];
  write_full(in, data, N);
  SYS(lseek(in, 0, SEEK_SET));
  SYS(pipe(p));
  for (size_t done = 0; done < N;) {
    ssize_t n = SYS(splice(in, NULL, p[1], NULL, N - done, 0));
    REQUIRE(n > 0);
    for (ssize_t m = 0; m < n;)
      m += SYS(splice(p[0], NULL, out, NULL, n - m, 0));
    done += n;
  }
  CHECK_EQ(pread(out, back, N, 0), N);
  CHECK(pattern_ok(back, N, 7));
  SYS(ftruncate(out, 0));
  loff_t a = 0, b = 0;
  while (a < N)
    REQUIRE(copy_file_range(in, &a, out, &b, N, 0) > 0);
  memset(back, 0, N);
  CHECK_EQ(pread(out, back, N, 0), N);
  CHECK(pattern_ok(back, N, 7));
  SYS(ftruncate(out, 0));
  SYS(lseek(out, 0, SEEK_SET));
  off_t o = 0;
  while (o < N)
    REQUIRE(sendfile(out, in, &o, N) > 0);
  memset(back, 0, N);
  CHECK_EQ(pread(out, back, N, 0), N);
  CHECK(pattern_ok(back, N, 7));
}
