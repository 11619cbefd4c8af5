/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-rw.c - read, write and their relatives at the edges: flags, vectors, faults in the middle, positions, limits; lseek on
 * every kind of file; syncing, truncating, allocating, advice. */
#include "check.h"

#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <linux/fs.h>

/* A page followed by one that is not there. */
static char *edge(void) {
  char *p = map_anon(2 * PAGE, PROT_READ | PROT_WRITE);
  SYS(munmap(p + PAGE, PAGE));
  return p + PAGE;
}

TEST(access_modes) {
  close(tmp_file("f", "x"));
  int ro = (int)SYS(open(tmp_path("f"), O_RDONLY)), wo = (int)SYS(open(tmp_path("f"), O_WRONLY)),
      pa = (int)SYS(open(tmp_path("f"), O_PATH)), dir = (int)SYS(open(tmp_dir(), O_RDONLY)),
      none = (int)SYS(open(tmp_path("f"), O_ACCMODE));
  char c;
  CHECK_ERRNO(write(ro, "x", 1), EBADF);
  CHECK_ERRNO(read(wo, &c, 1), EBADF);
  CHECK_ERRNO(read(pa, &c, 1), EBADF);
  CHECK_ERRNO(write(pa, &c, 1), EBADF);
  CHECK_ERRNO(pread(pa, &c, 1, 0), EBADF);
  CHECK_ERRNO(lseek(pa, 0, SEEK_SET), EBADF);
  CHECK_ERRNO(read(none, &c, 1), EBADF);
  CHECK_ERRNO(write(none, &c, 1), EBADF);
  CHECK_ERRNO(read(dir, &c, 1), EISDIR);
  CHECK_ERRNO(write(dir, &c, 1), EBADF);
  CHECK_ERRNO(read(-1, &c, 1), EBADF);
  CHECK_ERRNO(read(1000, &c, 1), EBADF);
  CHECK_EQ(read(ro, NULL, 0), 0);
  CHECK_EQ(write(wo, NULL, 0), 0);
  CHECK_ERRNO(read(ro, (void *)1, 1), EFAULT);
  CHECK_ERRNO(write(wo, (void *)1, 1), EFAULT);
  CHECK_ERRNO(read(ro, (void *)-1, 1), EFAULT);
  CHECK_ERRNO(read(ro, &c, -1), EFAULT);
  CHECK_ERRNO(pread(ro, &c, 1, -1), EINVAL);
  CHECK_ERRNO(pwrite(wo, &c, 1, -1), EINVAL);
  CHECK_ERRNO(pread(ro, &c, 1, INT64_MAX), EINVAL);
  CHECK_ERRNO(pwrite(wo, &c, 1, INT64_MAX), EINVAL);
}

TEST(short_counts_at_faults) {
  char *e = edge();
  int fd = tmp_file("f", "");
  memset(e - 10, 'a', 10);
  CHECK_EQ(write(fd, e - 10, 100), 10);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
  CHECK_ERRNO(write(fd, e, 10), EFAULT);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
  CHECK_EQ(ftruncate(fd, 0), 0);
  static char big[3 * PAGE];
  write_full(fd, "", 0);
  CHECK_EQ(pwrite(fd, big, sizeof big, 0), sizeof big);
  CHECK_EQ(pread(fd, e - 5, 100, 0), 5);
  CHECK_ERRNO(pread(fd, e, 100, 0), EFAULT);
  struct iovec v[3] = {{e - 4, 4}, {e, 4}, {big, 4}};
  CHECK_EQ(preadv(fd, v, 3, 0), 4);
  v[0].iov_len = 0;
  CHECK_ERRNO(preadv(fd, v, 3, 0), EFAULT);
  v[0].iov_len = 4;
  CHECK_EQ(pwritev(fd, v, 3, 0), 4);
  v[1] = (struct iovec){e, 0};
  CHECK_EQ(pwritev(fd, v, 3, 0), 8);
  SYS(mprotect(e - PAGE, PAGE, PROT_READ));
  CHECK_ERRNO(pread(fd, e - 5, 5, 0), EFAULT);
  CHECK_EQ(pwrite(fd, e - 5, 5, 0), 5);
  SYS(mprotect(e - PAGE, PAGE, PROT_NONE));
  CHECK_ERRNO(pwrite(fd, e - 5, 5, 0), EFAULT);
}

TEST(vectors) {
  int fd = tmp_file("f", "0123456789");
  char a[4], b[4];
  struct iovec *v = calloc(2000, sizeof *v);
  CHECK_EQ(readv(fd, v, 0), 0);
  CHECK_EQ(readv(fd, NULL, 0), 0);
  CHECK_ERRNO(readv(fd, v, -1), EINVAL);
  CHECK_ERRNO(readv(fd, v, 1025), EINVAL);
  CHECK_EQ(readv(fd, v, 1024), 0);
  CHECK_ERRNO(readv(fd, (void *)8, 1), EFAULT);
  v[0] = (struct iovec){a, (size_t)-1};
  CHECK_ERRNO(readv(fd, v, 1), EINVAL);
  v[0] = (struct iovec){a, 3};
  v[1] = (struct iovec){b, 3};
  CHECK_EQ(readv(fd, v, 2), 6);
  CHECK(!memcmp(a, "012", 3) && !memcmp(b, "345", 3));
  CHECK_EQ(preadv(fd, v, 2, 8), 2);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
  CHECK_ERRNO(preadv(fd, v, 2, -1), EINVAL);
  CHECK_ERRNO(pwritev(fd, v, 2, -5), EINVAL);
  CHECK_EQ(preadv2(fd, v, 2, -1, 0), 4); /* the file's own position */
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
  CHECK_ERRNO(preadv2(fd, v, 2, -2, 0), EINVAL);
}

TEST(rwf_flags) {
  int fd = tmp_file("f", "0123456789"), p[2];
  char c[4] = "abc";
  struct iovec v = {c, 1};
  SYS(pipe(p));
  CHECK_ERRNO(preadv2(fd, &v, 1, 0, 0x10000), EOPNOTSUPP);
  CHECK_ERRNO(pwritev2(fd, &v, 1, 0, 0x10000), EOPNOTSUPP);
  CHECK_EQ(preadv2(fd, &v, 1, 0, RWF_APPEND), 1); /* means nothing */
  CHECK_EQ(pwritev2(fd, &v, 1, 3, RWF_APPEND), 1);
  CHECK_EQ(lseek(fd, 0, SEEK_END), 11);
  CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_DSYNC), 1);
  CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_SYNC), 1);
  CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_DSYNC | RWF_SYNC | RWF_HIPRI), 1);
  CHECK(preadv2(fd, &v, 1, 1, RWF_NOWAIT) == 1 || errno == EOPNOTSUPP);
  CHECK_ERRNO(preadv2(p[0], &v, 1, -1, RWF_NOWAIT), EAGAIN);
  CHECK_ERRNO(preadv2(p[0], &v, 1, 0, 0), ESPIPE);
  CHECK_ERRNO(pwritev2(p[1], &v, 1, 7, 0), ESPIPE);
  CHECK_EQ(pwritev2(p[1], &v, 1, -1, RWF_NOWAIT), 1);
  SYS(lseek(fd, 5, SEEK_SET));
  CHECK_EQ(pwritev2(fd, &v, 1, -1, RWF_APPEND), 1);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 12);
  CHECK_EQ(preadv2(fd, &v, 0, 0, 0), 0);
}

TEST(seek_on_every_kind) {
  int fd = tmp_file("f", "0123456789"), p[2], s[2], ev = eventfd(0, 0), dir = open(tmp_dir(), O_RDONLY),
      null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDWR);
  SYS(pipe(p));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  CHECK_ERRNO(lseek(p[0], 0, SEEK_CUR), ESPIPE);
  CHECK_ERRNO(lseek(s[0], 0, SEEK_CUR), ESPIPE);
  CHECK_ERRNO(lseek(p[0], 0, 99), EINVAL);
  CHECK_OK(lseek(ev, 0, SEEK_CUR));
  CHECK_EQ(lseek(null, 5, SEEK_SET), 0);
  CHECK_OK(lseek(zero, 5, SEEK_SET));
  CHECK_ERRNO(lseek(fd, 0, 5), EINVAL);
  CHECK_ERRNO(lseek(fd, 0, -1), EINVAL);
  CHECK_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
  CHECK_ERRNO(lseek(fd, -11, SEEK_END), EINVAL);
  CHECK_EQ(lseek(fd, -10, SEEK_END), 0);
  CHECK_EQ(lseek(fd, 1000, SEEK_END), 1010);
  CHECK_EQ(lseek(fd, 0, SEEK_DATA), 0);
  CHECK_EQ(lseek(fd, 3, SEEK_DATA), 3);
  CHECK_EQ(lseek(fd, 3, SEEK_HOLE), 10);
  CHECK_ERRNO(lseek(fd, 10, SEEK_DATA), ENXIO);
  CHECK_ERRNO(lseek(fd, 10, SEEK_HOLE), ENXIO);
  CHECK_ERRNO(lseek(fd, -1, SEEK_DATA), ENXIO);
  CHECK_ERRNO(lseek(fd, -1, SEEK_HOLE), ENXIO);
  CHECK_EQ(lseek(dir, 0, SEEK_SET), 0);
  SYS(ftruncate(fd, 1 << 20));
  CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 4096);
  CHECK_ERRNO(lseek(fd, 4096, SEEK_DATA), ENXIO);
  CHECK_EQ(pwrite(fd, "x", 1, 512 * 1024), 1);
  CHECK_EQ(lseek(fd, 4096, SEEK_DATA), 512 * 1024);
  CHECK_EQ(lseek(fd, 512 * 1024, SEEK_HOLE), 512 * 1024 + 4096);
}

TEST(position_beyond_the_end) {
  int fd = tmp_file("f", "ab");
  char buf[16];
  SYS(lseek(fd, 10, SEEK_SET));
  CHECK_EQ(read(fd, buf, 4), 0);
  CHECK_EQ(write(fd, "x", 1), 1);
  CHECK_EQ(pread(fd, buf, 16, 0), 11);
  CHECK(!memcmp(buf, "ab\0\0\0\0\0\0\0\0x", 11));
}

TEST(sync_calls) {
  int fd = tmp_file("f", "x"), p[2], s[2], dir = open(tmp_dir(), O_RDONLY), pa = open(tmp_path("f"), O_PATH),
      ro = open(tmp_path("f"), O_RDONLY);
  SYS(pipe(p));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  CHECK_OK(fsync(fd));
  CHECK_OK(fdatasync(fd));
  CHECK_OK(fsync(ro));
  CHECK_OK(fsync(dir));
  CHECK_OK(syncfs(fd));
  CHECK_OK(syncfs(p[0]));
  CHECK_ERRNO(fsync(p[0]), EINVAL);
  CHECK_ERRNO(fsync(s[0]), EINVAL);
  CHECK_ERRNO(fsync(pa), EBADF);
  CHECK_ERRNO(syncfs(pa), EBADF);
  CHECK_ERRNO(fsync(-1), EBADF);
  CHECK_OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
  CHECK_OK(sync_file_range(fd, 0, 1, 7));
  CHECK_ERRNO(sync_file_range(fd, 0, 1, 8), EINVAL);
  CHECK_ERRNO(sync_file_range(fd, -1, 1, 0), EINVAL);
  CHECK_ERRNO(sync_file_range(fd, 1, INT64_MAX, 0), EINVAL);
  CHECK_ERRNO(sync_file_range(p[0], 0, 1, 0), ESPIPE);
  CHECK_ERRNO(sync_file_range(s[0], 0, 1, 0), ESPIPE);
  CHECK_OK(sync_file_range(dir, 0, 1, 0));
  CHECK_ERRNO(sync_file_range(pa, 0, 1, 0), EBADF);
  sync();
}

TEST(advice) {
  int fd = tmp_file("f", "x"), p[2], s[2], dir = open(tmp_dir(), O_RDONLY),
      wo = open(tmp_path("f"), O_WRONLY), pa = open(tmp_path("f"), O_PATH);
  SYS(pipe(p));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  for (int a = 0; a < 6; a++)
    CHECK_EQ(posix_fadvise(fd, 0, 0, a), 0);
  CHECK_EQ(posix_fadvise(fd, 0, 0, 6), EINVAL);
  CHECK_EQ(posix_fadvise(fd, 0, -1, 0), EINVAL);
  CHECK_EQ(posix_fadvise(fd, -1, 1, 0), 0);
  CHECK_EQ(posix_fadvise(p[0], 0, 0, 0), ESPIPE);
  CHECK_EQ(posix_fadvise(pa, 0, 0, 0), EBADF);
  CHECK_EQ(posix_fadvise(-1, 0, 0, 0), EBADF);
  CHECK_OK(readahead(fd, 0, 4096));
  CHECK_ERRNO(readahead(wo, 0, 1), EBADF);
  CHECK_ERRNO(readahead(p[0], 0, 1), EINVAL);
  CHECK_ERRNO(readahead(s[0], 0, 1), EINVAL);
  CHECK_ERRNO(readahead(pa, 0, 1), EBADF);
  CHECK_ERRNO(readahead(dir, 0, 1), EINVAL);
}

TEST(truncation) {
  int fd = tmp_file("f", "0123456789"), p[2], ro = open(tmp_path("f"), O_RDONLY),
      pa = open(tmp_path("f"), O_PATH);
  struct stat st, st2;
  SYS(pipe(p));
  CHECK_ERRNO(ftruncate(ro, 1), EINVAL);
  CHECK_ERRNO(ftruncate(pa, 1), EBADF);
  CHECK_ERRNO(ftruncate(fd, -1), EINVAL);
  CHECK_ERRNO(ftruncate(p[1], 0), EINVAL);
  CHECK_ERRNO(truncate(tmp_path("f"), -1), EINVAL);
  CHECK_ERRNO(truncate(tmp_dir(), 0), EISDIR);
  CHECK_ERRNO(truncate(tmp_path("none"), 0), ENOENT);
  CHECK_ERRNO(truncate("", 0), ENOENT);
  SYS(mkfifo(tmp_path("fifo"), 0600));
  CHECK_ERRNO(truncate(tmp_path("fifo"), 0), EINVAL);
  SYS(fstat(fd, &st));
  sleep_ms(20);
  SYS(ftruncate(fd, 10)); /* the same size: times change */
  SYS(fstat(fd, &st2));
  CHECK(st2.st_mtim.tv_nsec != st.st_mtim.tv_nsec);
  CHECK(st2.st_ctim.tv_nsec != st.st_ctim.tv_nsec);
  SYS(ftruncate(fd, 5000));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 5000);
  SYS(truncate(tmp_path("f"), 3));
  SYS(ftruncate(fd, 10));
  char buf[16];
  CHECK_EQ(pread(fd, buf, 16, 0), 10);
  CHECK(!memcmp(buf, "012\0\0\0\0\0\0\0", 10));
}

TEST(size_limit) {
  close(tmp_file("f", ""));
  char path[256];
  strcpy(path, tmp_path("f"));
  WAIT_OK(CHILD(int fd = (int)SYS(open(path, O_RDWR)); signal(SIGXFSZ, SIG_IGN); struct rlimit r = {100, 100};
                SYS(setrlimit(RLIMIT_FSIZE, &r)); char buf[64] = ""; CHECK_EQ(pwrite(fd, buf, 64, 60), 40);
                CHECK_ERRNO(pwrite(fd, buf, 1, 100), EFBIG); CHECK_EQ(pwrite(fd, buf, 0, 200), 0);
                CHECK_ERRNO(ftruncate(fd, 101), EFBIG); CHECK_OK(ftruncate(fd, 100));
                CHECK_ERRNO(truncate(path, 200), EFBIG); CHECK_ERRNO(fallocate(fd, 0, 0, 101), EFBIG);
                int app = (int)SYS(open(path, O_WRONLY | O_APPEND)); CHECK_ERRNO(write(app, buf, 1), EFBIG);
                SYS(ftruncate(fd, 90)); CHECK_EQ(write(app, buf, 64), 10);
                struct iovec v[2] = {{buf, 8}, {buf, 8}}; SYS(lseek(fd, 90, SEEK_SET));
                CHECK_EQ(writev(fd, v, 2), 10)));
  int st = check_wait(CHILD(int fd = (int)SYS(open(path, O_RDWR)); struct rlimit r = {100, 100};
                            SYS(setrlimit(RLIMIT_FSIZE, &r)); pwrite(fd, "x", 1, 100)));
  CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGXFSZ);
  st = check_wait(CHILD(int fd = (int)SYS(open(path, O_RDWR)); struct rlimit r = {10, 100};
                        SYS(setrlimit(RLIMIT_FSIZE, &r)); ftruncate(fd, 5000)));
  CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGXFSZ);
}

TEST(allocation) {
  int fd = tmp_file("f", "0123456789"), p[2], ro = open(tmp_path("f"), O_RDONLY),
      dir = open(tmp_dir(), O_RDONLY), null = open("/dev/null", O_RDWR);
  struct stat st;
  SYS(pipe(p));
  CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
  CHECK_ERRNO(fallocate(fd, 0, -1, 1), EINVAL);
  CHECK_ERRNO(fallocate(fd, 0, 1, -1), EINVAL);
  CHECK_ERRNO(fallocate(fd, 0, INT64_MAX, 1), EFBIG);
  CHECK_ERRNO(fallocate(fd, 0x4000, 0, 1), EOPNOTSUPP);
  CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1), EOPNOTSUPP);
  CHECK_ERRNO(fallocate(ro, 0, 0, 1), EBADF);
  CHECK_ERRNO(fallocate(p[1], 0, 0, 1), ESPIPE);
  CHECK_ERRNO(fallocate(null, 0, 0, 1), ENODEV);
  CHECK_ERRNO(fallocate(dir, 0, 0, 1), EBADF);
  SYS(fallocate(fd, 0, 0, 20));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 20);
  SYS(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100000));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 20);
  SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
  char buf[20];
  CHECK_EQ(pread(fd, buf, 20, 0), 20);
  CHECK(!memcmp(buf,
                "01\0\0\0"
                "56789\0",
                11));
}

TEST(common_ioctls) {
  int fd = tmp_file("f", "0123456789"), p[2], dir = open(tmp_dir(), O_RDONLY),
      pa = open(tmp_path("f"), O_PATH), n = -1, on = 1, off = 0;
  long long q = 0;
  SYS(pipe(p));
  SYS(lseek(fd, 3, SEEK_SET));
  CHECK_OK(ioctl(fd, FIONREAD, &n));
  CHECK_EQ(n, 7);
  SYS(lseek(fd, 12, SEEK_SET));
  CHECK_OK(ioctl(fd, FIONREAD, &n));
  CHECK_EQ(n, -2);
  write_full(p[1], "abc", 3);
  CHECK_OK(ioctl(p[0], FIONREAD, &n));
  CHECK_EQ(n, 3);
  CHECK_OK(ioctl(p[1], FIONREAD, &n));
  CHECK_EQ(n, 3);
  CHECK_ERRNO(ioctl(p[0], FIONREAD, (void *)1), EFAULT);
  CHECK_OK(ioctl(p[0], FIONBIO, &on));
  CHECK_EQ(fcntl(p[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_OK(ioctl(p[0], FIONBIO, &off));
  CHECK_EQ(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
  CHECK_OK(ioctl(p[0], FIOCLEX));
  CHECK_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
  CHECK_OK(ioctl(p[0], FIONCLEX));
  CHECK_EQ(fcntl(p[0], F_GETFD), 0);
  CHECK_OK(ioctl(fd, FIGETBSZ, &n));
  CHECK_EQ(n, 4096);
  CHECK_OK(ioctl(dir, FIGETBSZ, &n));
  CHECK_OK(ioctl(fd, FIOQSIZE, &q));
  CHECK(q % 512 == 0); /* bytes it occupies */
  CHECK_ERRNO(ioctl(p[0], FIOQSIZE, &q), ENOTTY);
  CHECK_ERRNO(ioctl(fd, 0x5401 /* TCGETS */, &q), ENOTTY);
  CHECK_ERRNO(ioctl(p[0], 0x5401, &q), ENOTTY);
  CHECK_ERRNO(ioctl(dir, FIONREAD, &n), ENOTTY);
  CHECK_ERRNO(ioctl(pa, FIOCLEX), EBADF);
  CHECK_ERRNO(ioctl(pa, FIONREAD, &n), EBADF);
  CHECK_ERRNO(ioctl(-1, FIONREAD, &n), EBADF);
  CHECK_ERRNO(ioctl(fd, 0xdeadbeef, &n), ENOTTY);
}

TEST(clone_ioctls) {
  int fd = tmp_file("f", "0123456789"), to = tmp_file("g", ""), ro = open(tmp_path("g"), O_RDONLY), p[2],
      dir = open(tmp_dir(), O_RDONLY);
  SYS(pipe(p));
  CHECK_ERRNO(ioctl(to, FICLONE, -1), EBADF);
  CHECK_ERRNO(ioctl(to, FICLONERANGE, (void *)1), EFAULT);
  CHECK_ERRNO(ioctl(to, FIDEDUPERANGE, (void *)1), EFAULT);
  struct file_clone_range r = {.src_fd = -1};
  CHECK_ERRNO(ioctl(to, FICLONERANGE, &r), EBADF);
  /* Filesystems differ in whether they can; the modes are checked first. */
  CHECK(ioctl(ro, FICLONE, fd) < 0 && (errno == EBADF || errno == EOPNOTSUPP || errno == ENOTTY));
  CHECK(ioctl(to, FICLONE, dir) < 0 &&
        (errno == EISDIR || errno == EOPNOTSUPP || errno == EINVAL || errno == EXDEV));
  CHECK(ioctl(to, FICLONE, p[0]) < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP));
  CHECK(ioctl(to, FICLONE, fd) == 0 || errno == EOPNOTSUPP);
}

static char buf4[4096] __attribute__((aligned(4096)));
TEST(direct_io_is_offered_or_refused) {
  close(tmp_file("f", "0123456789"));
  int fd = open(tmp_path("f"), O_RDWR | O_DIRECT);
  if (fd < 0) {
    CHECK_EQ(errno, EINVAL);
    return;
  }
  CHECK(fcntl(fd, F_GETFL) & O_DIRECT);
  CHECK_EQ(pread(fd, buf4, 4096, 0), 10);
  CHECK_EQ(pwrite(fd, buf4, 4096, 0), 4096);
  CHECK_OK(fcntl(fd, F_SETFL, 0));
  CHECK_EQ(pread(fd, buf4 + 1, 100, 1), 100);
}

TEST(odd_files) {
  int ev = eventfd(3, EFD_NONBLOCK), p[2];
  char buf[16];
  struct iovec v = {buf, 8};
  CHECK_ERRNO(read(ev, buf, 7), EINVAL);
  CHECK_ERRNO(write(ev, buf, 7), EINVAL);
  memset(buf, 0xff, 8);
  CHECK_ERRNO(write(ev, buf, 8), EINVAL);
  CHECK_ERRNO(write(ev, (void *)1, 8), EFAULT);
  CHECK_EQ(readv(ev, &v, 1), 8);
  CHECK_ERRNO(read(ev, buf, 8), EAGAIN);
  CHECK_ERRNO(pread(ev, buf, 8, 0), ESPIPE);
  CHECK_ERRNO(syscall(SYS_eventfd2, 0, 0x10), EINVAL);
  SYS(pipe(p));
  CHECK_ERRNO(pread(p[0], buf, 1, 0), ESPIPE);
  CHECK_ERRNO(pwrite(p[1], buf, 1, 0), ESPIPE);
  CHECK_ERRNO(pread(p[0], buf, 1, -1), EINVAL);
  CHECK_ERRNO(read(p[1], buf, 1), EBADF);
  CHECK_ERRNO(write(p[0], buf, 1), EBADF);
  CHECK_ERRNO(syscall(SYS_pipe2, p, 1), EINVAL);
  CHECK_ERRNO(syscall(SYS_pipe2, 1, 0), EFAULT);
}
