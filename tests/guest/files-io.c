/* SPDX-License-Identifier: Apache-2.0 */
/* files-io.c - open(2) flags, reading, writing, seeking, duplicating, fcntl(2), truncating, allocating. */
#include "check.h"

#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

TEST(open_create_exclusive) {
  char path[256];

  strcpy(path, tmp_path("f"));
  CHECK_ERRNO(open(path, O_RDWR), ENOENT);
  int fd = (int)SYS(open(path, O_RDWR | O_CREAT | O_EXCL, 0640));
  CHECK_ERRNO(open(path, O_RDWR | O_CREAT | O_EXCL, 0640), EEXIST);
  CHECK_OK(open(path, O_RDWR | O_CREAT, 0640));
  SYS(symlink(path, tmp_path("l")));
  CHECK_ERRNO(open(tmp_path("l"), O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
  SYS(symlink(tmp_path("target"), tmp_path("dangling")));
  CHECK_ERRNO(open(tmp_path("dangling"), O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
  CHECK_OK(open(tmp_path("dangling"), O_CREAT | O_WRONLY, 0600)); /* makes the target */
  CHECK_OK(access(tmp_path("target"), F_OK));
  CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
}

TEST(open_errors) {
  char name[300];

  tmp_file("f", "x");
  memset(name, 'n', sizeof name);
  name[256] = 0;
  CHECK_ERRNO(open(tmp_path(name), O_RDONLY), ENAMETOOLONG);
  name[255] = 0;
  CHECK_OK(open(tmp_path(name), O_RDWR | O_CREAT, 0600));
  CHECK_ERRNO(open("", O_RDONLY), ENOENT);
  CHECK_ERRNO(open(tmp_path("f/x"), O_RDONLY), ENOTDIR);
  CHECK_ERRNO(open(tmp_path("f/"), O_RDONLY), ENOTDIR);
  CHECK_ERRNO(open(tmp_path("f"), O_RDONLY | O_DIRECTORY), ENOTDIR);
  CHECK_ERRNO(open(tmp_dir(), O_WRONLY), EISDIR);
  CHECK_ERRNO(open(tmp_dir(), O_RDWR), EISDIR);
  CHECK_ERRNO(open(tmp_dir(), O_RDONLY | O_CREAT, 0600), EISDIR);
  CHECK_ERRNO(open(tmp_path("no/such"), O_RDWR | O_CREAT, 0600), ENOENT);
  CHECK_ERRNO(open(tmp_path("new/"), O_RDWR | O_CREAT, 0600), EISDIR);
  SYS(symlink("f", tmp_path("l")));
  CHECK_ERRNO(open(tmp_path("l"), O_RDONLY | O_NOFOLLOW), ELOOP);
  SYS(symlink("self", tmp_path("self")));
  CHECK_ERRNO(open(tmp_path("self"), O_RDONLY), ELOOP);
}

TEST(path_too_long) {
  char *path = malloc(5000);

  memset(path, '/', 5000);
  path[4096] = 0;
  CHECK_ERRNO(open(path, O_RDONLY), ENAMETOOLONG);
  path[4095] = 0;
  CHECK_OK(open(path, O_RDONLY));
}

TEST(lowest_descriptor) {
  int a = (int)SYS(dup(0)), b = (int)SYS(dup(0)), c = (int)SYS(dup(0));

  close(b);
  CHECK_EQ(open("/dev/null", O_RDONLY), b);
  close(a);
  close(c);
  CHECK_EQ(dup(0), a);
}

TEST(descriptor_limit) {
  WAIT_OK(CHILD(struct rlimit r = {20, 20}; SYS(setrlimit(RLIMIT_NOFILE, &r)); int n = 0;
                while (dup(0) >= 0) n++; CHECK_EQ(errno, EMFILE); CHECK(n > 0 && n < 20);
                CHECK_ERRNO(open("/dev/null", O_RDONLY), EMFILE); CHECK_ERRNO(fcntl(0, F_DUPFD, 20), EINVAL);
                CHECK_ERRNO(dup2(0, 20), EBADF); int p[2]; close(19); CHECK_ERRNO(pipe(p), EMFILE)));
}

TEST(truncate_and_append_flags) {
  int fd = tmp_file("f", "0123456789");
  struct stat st;

  SYS(open(tmp_path("f"), O_WRONLY | O_TRUNC));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 0);
  int app = (int)SYS(open(tmp_path("f"), O_WRONLY | O_APPEND));
  write_full(fd, "abc", 3);
  CHECK_EQ(write(app, "de", 2), 2);
  CHECK_EQ(lseek(app, 0, SEEK_CUR), 5);
  CHECK_EQ(pwrite(app, "f", 1, 0), 1); /* O_APPEND wins over the offset, on Linux */
  char *text = read_file(tmp_path("f"), NULL);
  CHECK_STR(text, "abcdef");
  SYS(fcntl(app, F_SETFL, 0));
  CHECK_EQ(pwrite(app, "X", 1, 0), 1);
  CHECK_STR(text = read_file(tmp_path("f"), NULL), "Xbcdef");
}

TEST(append_is_atomic) {
  enum { W = 4, N = 200 };
  pid_t pids[W];
  char path[256];

  close(tmp_file("log", ""));
  strcpy(path, tmp_path("log"));
  for (int w = 0; w < W; w++)
    pids[w] =
        CHILD(int fd = (int)SYS(open(path, O_WRONLY | O_APPEND)); char rec[64]; memset(rec, 'a' + w, 63);
              rec[63] = '\n'; for (int i = 0; i < N; i++) CHECK_EQ(write(fd, rec, 64), 64));
  for (int w = 0; w < W; w++)
    WAIT_OK(pids[w]);
  size_t n;
  char *text = read_file(path, &n);
  CHECK_EQ(n, W * N * 64);
  for (size_t i = 0; i < n; i += 64)
    if (!CHECK(text[i + 63] == '\n' && text[i] == text[i + 62]))
      break;
}

TEST(seek) {
  int fd = tmp_file("f", "0123456789");

  CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
  CHECK_EQ(lseek(fd, 2, SEEK_CUR), 5);
  CHECK_EQ(lseek(fd, -1, SEEK_END), 9);
  CHECK_EQ(lseek(fd, 100, SEEK_END), 110);
  CHECK_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
  CHECK_ERRNO(lseek(fd, -200, SEEK_CUR), EINVAL);
  CHECK_ERRNO(lseek(fd, 0, 99), EINVAL);
  CHECK_ERRNO(lseek(9999, 0, SEEK_SET), EBADF);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 110);
  CHECK_EQ(write(fd, "z", 1), 1);
  char buf[5] = "xxxx";
  CHECK_EQ(pread(fd, buf, 4, 50), 4);
  CHECK(memcmp(buf, "\0\0\0\0", 4) == 0);
}

TEST(seek_data_and_hole) {
  int fd = tmp_file("f", "");

  SYS(ftruncate(fd, 1 << 20));
  CHECK_EQ(pwrite(fd, "x", 1, 512 * 1024), 1);
  off_t d = lseek(fd, 0, SEEK_DATA), h = lseek(fd, 0, SEEK_HOLE);
  CHECK(d >= 0 && d <= 512 * 1024);
  CHECK(h == 0 || h == 1 << 20);
  CHECK_ERRNO(lseek(fd, 2 << 20, SEEK_DATA), ENXIO);
  CHECK_EQ(lseek(fd, 512 * 1024, SEEK_DATA), 512 * 1024);
}

TEST(positioned_io) {
  int fd = tmp_file("f", "0123456789");
  char a[3], b[4];
  struct iovec iov[2] = {{a, 3}, {b, 4}};

  CHECK_EQ(preadv(fd, iov, 2, 2), 7);
  CHECK(memcmp(a, "234", 3) == 0 && memcmp(b, "5678", 4) == 0);
  CHECK_EQ(pwritev(fd, iov, 2, 8), 7);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
  CHECK_STR(read_file(tmp_path("f"), NULL), "012345672345678");
  CHECK_EQ(preadv2(fd, iov, 1, -1, 0), 3); /* -1: at the file's own offset */
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
  CHECK_ERRNO(preadv2(fd, iov, 1, 0, 0x8000), EOPNOTSUPP);
  CHECK_EQ(pwritev2(fd, iov, 1, 0, RWF_APPEND), 3);
  struct stat st;
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 18);
  CHECK_ERRNO(preadv(fd, iov, 2, -5), EINVAL);
}

TEST(vectors) {
  int fd = tmp_file("f", "");
  struct iovec iov[4] = {{"one", 3}, {NULL, 0}, {"two", 3}, {"three", 5}};

  CHECK_EQ(writev(fd, iov, 4), 11);
  CHECK_STR(read_file(tmp_path("f"), NULL), "onetwothree");
  CHECK_EQ(writev(fd, iov, 0), 0);
}

TEST(wrong_direction) {
  tmp_file("f", "x");
  int r = (int)SYS(open(tmp_path("f"), O_RDONLY)), w = (int)SYS(open(tmp_path("f"), O_WRONLY));
  char c;

  CHECK_ERRNO(write(r, "x", 1), EBADF);
  CHECK_ERRNO(read(w, &c, 1), EBADF);
  CHECK_ERRNO(ftruncate(r, 0), EINVAL);
  CHECK_ERRNO(read(-1, &c, 1), EBADF);
  CHECK_ERRNO(read((int)SYS(open(tmp_dir(), O_RDONLY)), &c, 1), EISDIR);
}

TEST(dup_family) {
  int fd = tmp_file("f", "0123456789");
  char c;
  int d = (int)SYS(dup(fd));

  SYS(lseek(fd, 5, SEEK_SET));
  CHECK_EQ(read(d, &c, 1), 1);
  CHECK_EQ(c, '5'); /* one file description */
  CHECK_EQ(dup2(fd, fd), fd);
  CHECK_ERRNO(dup2(9999, 9999), EBADF);
  CHECK_ERRNO(dup2(9999, fd), EBADF);
  CHECK_OK(fcntl(fd, F_GETFD)); /* untouched by the failure */
  CHECK_ERRNO(dup3(fd, fd, 0), EINVAL);
  CHECK_ERRNO(dup3(fd, 100, 0x800000), EINVAL);
  CHECK_EQ(dup3(fd, 100, O_CLOEXEC), 100);
  CHECK_EQ(fcntl(100, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(dup2(100, 101), 101);
  CHECK_EQ(fcntl(101, F_GETFD), 0);
  CHECK_EQ(fcntl(fd, F_DUPFD, 150), 150);
  CHECK_EQ(fcntl(fd, F_DUPFD, 150), 151);
  CHECK_EQ(fcntl(fcntl(fd, F_DUPFD_CLOEXEC, 0), F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(fcntl(fd, F_DUPFD, -1), EINVAL);
}

TEST(close_range_forms) {
  int a = (int)SYS(fcntl(0, F_DUPFD, 200));

  for (int i = 1; i < 10; i++)
    SYS(dup2(0, a + i));
  long r = syscall(SYS_close_range, a, a + 4, 0);
  if (r < 0 && errno == ENOSYS)
    SKIP("close_range is not there");
  CHECK_OK(r);
  CHECK_ERRNO(fcntl(a + 4, F_GETFD), EBADF);
  CHECK_OK(fcntl(a + 5, F_GETFD));
  CHECK_OK(syscall(SYS_close_range, a + 5, a + 6, 4 /* CLOSE_RANGE_CLOEXEC */));
  CHECK_EQ(fcntl(a + 5, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(a + 7, F_GETFD), 0);
  CHECK_ERRNO(syscall(SYS_close_range, 10, 5, 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_close_range, 10, 20, 0x100), EINVAL);
  CHECK_OK(syscall(SYS_close_range, a, ~0u, 0));
  CHECK_ERRNO(fcntl(a + 9, F_GETFD), EBADF);
}

TEST(close_errors) {
  int fd = (int)SYS(dup(0));

  CHECK_OK(close(fd));
  CHECK_ERRNO(close(fd), EBADF);
  CHECK_ERRNO(close(-1), EBADF);
}

TEST(fcntl_flags) {
  int fd = tmp_file("f", "");

  SYS(fcntl(fd, F_SETFD, 0));
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  SYS(fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND | O_WRONLY | O_CREAT)); /* only status flags count */
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_APPEND | O_ACCMODE), O_NONBLOCK | O_APPEND | O_RDWR);
  CHECK_ERRNO(fcntl(fd, 9999), EINVAL);
  CHECK_ERRNO(fcntl(9999, F_GETFD), EBADF);
  int on = 0;
  SYS(ioctl(fd, FIONBIO, &on));
  CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  SYS(ioctl(fd, FIOCLEX));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(ioctl(fd, 0x5401, &on), ENOTTY);
  CHECK_ERRNO(ioctl(fd, 0xdeadbeef, &on), ENOTTY);
}

TEST(truncate_forms) {
  int fd = tmp_file("f", "0123456789");
  struct stat st;
  char c = 'x';

  SYS(ftruncate(fd, 5));
  CHECK_STR(read_file(tmp_path("f"), NULL), "01234");
  SYS(truncate(tmp_path("f"), 5000));
  CHECK_EQ(pread(fd, &c, 1, 4999), 1);
  CHECK_EQ(c, 0);
  CHECK_ERRNO(truncate(tmp_path("f"), -1), EINVAL);
  CHECK_ERRNO(truncate(tmp_dir(), 0), EISDIR);
  CHECK_ERRNO(truncate(tmp_path("none"), 0), ENOENT);
  SYS(ftruncate(fd, 3));
  SYS(ftruncate(fd, 10));
  CHECK_EQ(pread(fd, &c, 1, 5), 1);
  CHECK_EQ(c, 0); /* what was cut off does not come back */
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 10);
  CHECK_OK(ftruncate(fd, 1ul << 40)); /* sparse */
  CHECK_EQ(pread(fd, &c, 1, 1ul << 39), 1);
  SYS(fstat(fd, &st));
  CHECK(st.st_blocks < 1000);
}

TEST(file_size_limit) {
  int fd = tmp_file("f", "");
  static char buf[8192];

  WAIT_OK(CHILD(struct rlimit r = {4096, 4096}; SYS(setrlimit(RLIMIT_FSIZE, &r)); signal(SIGXFSZ, SIG_IGN);
                CHECK_EQ(write(fd, buf, 8192), 4096); CHECK_ERRNO(write(fd, buf, 1), EFBIG);
                CHECK_ERRNO(ftruncate(fd, 5000), EFBIG); CHECK_OK(ftruncate(fd, 100))));
  int status = check_wait(CHILD(struct rlimit r = {4096, 4096}; SYS(setrlimit(RLIMIT_FSIZE, &r));
                                pwrite(fd, buf, 10, 4096); _exit(0)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ); /* X9 */
}

TEST(fallocate_forms) {
  int fd = tmp_file("f", "0123456789");
  struct stat st;
  char c;

  if (fallocate(fd, 0, 0, 8192) < 0 && errno == EOPNOTSUPP)
    SKIP("fallocate is not supported here");
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 8192);
  CHECK_OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8192, 100000));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 8192);
  CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
  CHECK_EQ(pread(fd, &c, 1, 3), 1);
  CHECK_EQ(c, 0);
  CHECK_EQ(pread(fd, &c, 1, 5), 1);
  CHECK_EQ(c, '5');
  CHECK_ERRNO(fallocate(fd, 0, -1, 10), EINVAL);
  CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
  CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
  CHECK_ERRNO(fallocate((int)SYS(open(tmp_path("f"), O_RDONLY)), 0, 0, 10), EBADF);
  int p[2];
  SYS(pipe(p));
  CHECK_ERRNO(fallocate(p[1], 0, 0, 10), ESPIPE);
}

TEST(sendfile_forms) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", ""), p[2];
  off_t off = 4;
  char buf[16] = "";

  CHECK_EQ(sendfile(out, in, NULL, 3), 3);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 3);
  CHECK_EQ(sendfile(out, in, &off, 100), 6);
  CHECK_EQ(off, 10);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 3);
  CHECK_STR(read_file(tmp_path("out"), NULL), "012456789");
  SYS(pipe(p));
  off = 0;
  CHECK_EQ(sendfile(p[1], in, &off, 5), 5);
  CHECK_EQ(read(p[0], buf, 16), 5);
  CHECK_ERRNO(sendfile(out, p[0], NULL, 5), EINVAL);
  CHECK_ERRNO(sendfile(9999, in, NULL, 5), EBADF);
  CHECK_ERRNO(sendfile(out, in, (off_t *)8, 5), EFAULT);
}

/* Copying loops end because the position ends up at the end of the file. */
TEST(sendfile_until_the_end) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", "");

  CHECK_EQ(sendfile(out, in, NULL, 1 << 24), 10);
  CHECK_EQ(lseek(in, 0, SEEK_CUR), 10);
  CHECK_EQ(lseek(out, 0, SEEK_CUR), 10);
  CHECK_EQ(sendfile(out, in, NULL, 1 << 24), 0);
  CHECK_EQ(lseek(in, 10, SEEK_SET), 10);
  CHECK_EQ(lseek(in, 0, SEEK_END), 10);
  CHECK_STR(read_file(tmp_path("out"), NULL), "0123456789");
}

TEST(copy_file_range_forms) {
  int in = tmp_file("in", "0123456789"), out = tmp_file("out", "");
  loff_t a = 2, b = 1;

  ssize_t n = copy_file_range(in, &a, out, &b, 5, 0);
  if (n < 0 && (errno == ENOSYS || errno == EXDEV || errno == EOPNOTSUPP))
    SKIP("copy_file_range: %s", strerror(errno));
  CHECK_EQ(n, 5);
  CHECK_EQ(a, 7);
  CHECK_EQ(b, 6);
  size_t len;
  char *text = read_file(tmp_path("out"), &len);
  CHECK(len == 6 && memcmp(text, "\00023456", 6) == 0);
  CHECK_ERRNO(copy_file_range(in, NULL, out, NULL, 5, 1), EINVAL);
  loff_t x = 0, y = 3;
  CHECK_ERRNO(copy_file_range(in, &x, in, &y, 5, 0), EINVAL); /* overlapping */
}

TEST(sync_calls) {
  int fd = tmp_file("f", "x"), p[2];

  CHECK_OK(fsync(fd));
  CHECK_OK(fdatasync(fd));
  CHECK_OK(syncfs(fd));
  SYS(pipe(p));
  CHECK_ERRNO(fsync(p[0]), EINVAL);
  CHECK_ERRNO(fsync(9999), EBADF);
  CHECK_OK(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
  CHECK_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
  CHECK_OK(readahead(fd, 0, 100));
}

TEST(big_file_contents) {
  size_t n = 16 << 20;
  char *p = map_anon(n, PROT_READ | PROT_WRITE), *q = map_anon(n, PROT_READ | PROT_WRITE);
  int fd = tmp_file("big", "");

  pattern_fill(p, n, 12);
  for (size_t at = 0; at < n;) {
    size_t piece = 1 + (at * 7 + 12345) % 300000;
    if (piece > n - at)
      piece = n - at;
    write_full(fd, p + at, piece);
    at += piece;
  }
  SYS(lseek(fd, 0, SEEK_SET));
  read_full(fd, q, n);
  CHECK(pattern_ok(q, n, 12));
  CHECK_EQ(read(fd, q, 1), 0);
}

/* Files of every size around the sizes in which a filesystem may take its memory keep to themselves. */
TEST(middle_sized_files_stay_apart) {
  enum { N = 12 };
  size_t mib = 1 << 20, most = 4 * mib;
  char *own = map_anon(most, PROT_READ | PROT_WRITE), *buf = map_anon(most, PROT_READ | PROT_WRITE);
  int fd[N];

  pattern_fill(own, most, 1000);
  for (int i = 0; i < N; i++) {
    char name[8];
    snprintf(name, sizeof name, "m%d", i);
    fd[i] = tmp_file(name, "");
  }
  for (int i = 0; i < N; i++) {
    size_t n = mib / 4 + (size_t)i * (mib / 4) + 123;
    pattern_fill(buf, n, (uint32_t)i);
    for (int k = 0; k < 2; k++) {
      bool tail = (k == 1) != (i % 4 == 3); /* of some files the end comes first */
      size_t at = tail ? n / 2 : 0, len = tail ? n - n / 2 : n / 2;
      CHECK_EQ(pwrite(fd[i], buf + at, len, (off_t)at), len);
    }
  }
  for (int i = 0; i < N; i++) {
    size_t n = mib / 4 + (size_t)i * (mib / 4) + 123;
    CHECK_EQ(pread(fd[i], buf, most, 0), n);
    CHECK(pattern_ok(buf, n, (uint32_t)i));
  }
  CHECK(pattern_ok(own, most, 1000));
}

TEST(concurrent_disjoint_writes) {
  enum { W = 6, CHUNK = 64 * 1024 };
  int fd = tmp_file("f", "");
  pid_t pids[W];

  for (int w = 0; w < W; w++)
    pids[w] =
        CHILD(char *b = map_anon(CHUNK, PROT_READ | PROT_WRITE); pattern_fill(b, CHUNK, (uint32_t)w);
              for (int i = 0; i < CHUNK; i += 1024) CHECK_EQ(pwrite(fd, b + i, 1024, w * CHUNK + i), 1024));
  for (int w = 0; w < W; w++)
    WAIT_OK(pids[w]);
  char *b = map_anon(CHUNK, PROT_READ | PROT_WRITE);
  for (int w = 0; w < W; w++) {
    CHECK_EQ(pread(fd, b, CHUNK, w * CHUNK), CHUNK);
    CHECK(pattern_ok(b, CHUNK, (uint32_t)w));
  }
}

TEST(tmpfile_flag) {
  int fd = open(tmp_dir(), O_TMPFILE | O_RDWR, 0600);
  struct stat st;
  char path[64];

  if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR))
    SKIP("O_TMPFILE is not supported here");
  SYS(fd);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_nlink, 0);
  write_full(fd, "tmp", 3);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK_OK(linkat(AT_FDCWD, path, AT_FDCWD, tmp_path("named"), AT_SYMLINK_FOLLOW));
  CHECK_STR(read_file(tmp_path("named"), NULL), "tmp");
  fd = (int)SYS(open(tmp_dir(), O_TMPFILE | O_RDWR | O_EXCL, 0600));
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK_ERRNO(linkat(AT_FDCWD, path, AT_FDCWD, tmp_path("n2"), AT_SYMLINK_FOLLOW), ENOENT);
  CHECK_ERRNO(open(tmp_dir(), O_TMPFILE | O_RDONLY, 0600), EINVAL);
}

TEST(o_path) {
  tmp_file("f", "0123");
  int p = (int)SYS(open(tmp_path("f"), O_PATH)), d = (int)SYS(open(tmp_dir(), O_PATH | O_DIRECTORY));
  char c, path[64];
  struct stat st;

  CHECK_ERRNO(read(p, &c, 1), EBADF);
  CHECK_ERRNO(write(p, &c, 1), EBADF);
  CHECK_ERRNO(fchmod(p, 0600), EBADF);
  CHECK_ERRNO(ioctl(p, FIONBIO, &(int){0}), EBADF);
  CHECK_OK(fstat(p, &st));
  CHECK_EQ(st.st_size, 4);
  CHECK_OK(openat(d, "f", O_RDONLY));
  CHECK_EQ(fcntl(p, F_GETFL) & O_PATH, O_PATH);
  CHECK_OK(dup(p));
  snprintf(path, sizeof path, "/proc/self/fd/%d", p);
  int real = (int)SYS(open(path, O_RDWR));
  CHECK_EQ(read(real, &c, 1), 1);
  SYS(symlink("f", tmp_path("l")));
  int l = (int)SYS(open(tmp_path("l"), O_PATH | O_NOFOLLOW));
  SYS(fstat(l, &st));
  CHECK(S_ISLNK(st.st_mode));
  char target[16] = "";
  CHECK_EQ(readlinkat(l, "", target, sizeof target), 1);
  CHECK_OK(fchdir(d));
}
