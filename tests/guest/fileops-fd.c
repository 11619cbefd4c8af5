/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-fd.c - descriptors: dup(2), close_range(2), limits, status flags, O_PATH, pipe sizes, handles. */
#include "check.h"

#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static int cr(unsigned a, unsigned b, unsigned f) { return (int)syscall(SYS_close_range, a, b, f); }
static bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(dup_rules) {
  int a = (int)SYS(open("/dev/null", O_RDWR | O_CLOEXEC)), b = (int)SYS(dup(a));
  CHECK_EQ(fcntl(b, F_GETFD), 0);
  CHECK_EQ(dup2(a, a), a);
  CHECK_EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(dup2(500, 500), EBADF);
  CHECK_ERRNO(dup2(a, -1), EBADF);
  CHECK_ERRNO(dup2(-1, a), EBADF);
  CHECK_EQ(dup2(a, 50), 50);
  CHECK_EQ(fcntl(50, F_GETFD), 0);
  CHECK_ERRNO(dup3(a, a, 0), EINVAL);
  CHECK_ERRNO(dup3(a, 51, O_NONBLOCK), EINVAL);
  CHECK_ERRNO(dup3(-1, 51, 0), EBADF);
  CHECK_ERRNO(dup3(-1, -1, 0), EINVAL);
  CHECK_EQ(dup3(a, 51, O_CLOEXEC), 51);
  CHECK_EQ(fcntl(51, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(a, F_DUPFD, 60), 60);
  CHECK_EQ(fcntl(a, F_DUPFD, 60), 61);
  CHECK_EQ(fcntl(a, F_DUPFD_CLOEXEC, 60), 62);
  CHECK_EQ(fcntl(62, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(fcntl(a, F_DUPFD, -1), EINVAL);
  CHECK_ERRNO(fcntl(a, F_DUPFD, INT_MAX), EINVAL);
  CHECK_ERRNO(fcntl(-1, F_DUPFD, -1), EBADF);
  CHECK_ERRNO(fcntl(a, 9999, 0), EINVAL);
  CHECK_ERRNO(close(-1), EBADF);
  CHECK_ERRNO(close(499), EBADF);
  CHECK_OK(close(50));
  CHECK_ERRNO(close(50), EBADF);
}

TEST(closing_ranges) {
  for (int i = 100; i < 300; i++)
    SYS(dup2(0, i));
  CHECK_ERRNO(cr(110, 109, 0), EINVAL);
  CHECK_ERRNO(cr(100, 110, 1), EINVAL);
  CHECK_ERRNO(cr(100, 110, 8), EINVAL);
  CHECK_OK(cr(110, 119, 0));
  CHECK(is_open(109) && !is_open(110) && !is_open(119) && is_open(120));
  CHECK_OK(cr(110, 119, 0)); /* nothing there */
  CHECK_OK(cr(125, 200, CLOSE_RANGE_CLOEXEC));
  CHECK_EQ(fcntl(124, F_GETFD), 0);
  CHECK_EQ(fcntl(125, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(200, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(201, F_GETFD), 0);
  CHECK_OK(cr(250, UINT_MAX, 0));
  CHECK(is_open(249) && !is_open(250) && !is_open(299));
  CHECK_OK(cr(100000, UINT_MAX, 0));
  CHECK_OK(cr(100, UINT_MAX, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC));
  CHECK_EQ(fcntl(249, F_GETFD), FD_CLOEXEC);
}

static int unshare_and_close(void *arg) { return cr(100, UINT_MAX, CLOSE_RANGE_UNSHARE) < 0 || is_open(100); }
TEST(close_range_unshares) {
  char *stack = map_anon(65536, PROT_READ | PROT_WRITE);
  SYS(dup2(0, 100));
  pid_t pid = (pid_t)SYS(clone(unshare_and_close, stack + 65536, CLONE_FILES | CLONE_VM | SIGCHLD, NULL));
  WAIT_OK(pid);
  CHECK(is_open(100));
}

TEST(descriptor_limits) {
  WAIT_OK(CHILD(struct rlimit r; SYS(getrlimit(RLIMIT_NOFILE, &r)); cr(3, UINT_MAX, 0);
                for (int lim = 3; lim <= 70; lim += 67) {
                  r.rlim_cur = lim;
                  SYS(setrlimit(RLIMIT_NOFILE, &r));
                  int n = 3;
                  while (n < 100 && dup(0) == n)
                    n++;
                  CHECK_EQ(n, lim);
                  CHECK_ERRNO(dup(0), EMFILE);
                  CHECK_ERRNO(open("/dev/null", O_RDONLY), EMFILE);
                  CHECK_ERRNO(fcntl(0, F_DUPFD, lim), EINVAL);
                  CHECK_ERRNO(fcntl(0, F_DUPFD, lim - 1), EMFILE);
                  CHECK_ERRNO(dup2(0, lim), EBADF);
                  CHECK_OK(dup2(0, lim - 1));
                  int p[2] = {-7, -7};
                  CHECK_ERRNO(pipe(p), EMFILE);
                  CHECK_EQ(p[0], -7);
                  if (lim > 3) {
                    close(lim - 1);
                    CHECK_ERRNO(pipe(p), EMFILE);
                    CHECK_EQ(dup(0), lim - 1);
                  }
                }
                /* Lowering the limit closes nothing. */
                r.rlim_cur = 0;
                SYS(setrlimit(RLIMIT_NOFILE, &r)); CHECK(is_open(60)); CHECK_ERRNO(dup(0), EMFILE);
                struct pollfd pf = {0, POLLIN, 0}; CHECK_ERRNO(poll(&pf, 1, 0), EINVAL)));
}

TEST(status_flags) {
  int fd = tmp_file("f", "x");
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR);
  SYS(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK | O_WRONLY | O_CREAT | O_SYNC | O_EXCL));
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_CREAT | O_EXCL | O_SYNC),
           O_RDWR | O_APPEND | O_NONBLOCK);
  int d = (int)SYS(dup(fd));
  SYS(fcntl(d, F_SETFL, 0));
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK), 0);
  SYS(fcntl(fd, F_SETFD, 0xff));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  SYS(fcntl(fd, F_SETFD, 2));
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  if (geteuid() == 0) {
    SYS(chmod(tmp_dir(), 0755));
    SYS(chmod(tmp_path("f"), 0666));
    WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234)); CHECK_ERRNO(fcntl(fd, F_SETFL, O_NOATIME), EPERM);
                  CHECK_ERRNO(open(tmp_path("f"), O_RDONLY | O_NOATIME), EPERM)));
  }
}

TEST(path_descriptors) {
  close(tmp_file("f", "x"));
  int pa = (int)SYS(open(tmp_path("f"), O_PATH | O_RDWR | O_APPEND | O_TRUNC)), n;
  int dir = (int)SYS(open(tmp_dir(), O_PATH | O_DIRECTORY));
  struct stat st;
  char buf[64];
  CHECK_EQ(fcntl(pa, F_GETFL), O_PATH);
  CHECK_OK(fstat(pa, &st));
  CHECK_EQ(st.st_size, 1); /* not truncated */
  CHECK_ERRNO(read(pa, buf, 1), EBADF);
  CHECK_ERRNO(write(pa, buf, 1), EBADF);
  CHECK_ERRNO(fchmod(pa, 0600), EBADF);
  CHECK_ERRNO(fchown(pa, 0, 0), EBADF);
  CHECK_ERRNO(ftruncate(pa, 0), EBADF);
  CHECK_ERRNO(futimens(pa, NULL), EBADF);
  CHECK_ERRNO(fsetxattr(pa, "user.x", "", 0, 0), EBADF);
  CHECK_ERRNO(fgetxattr(pa, "user.x", buf, 1), EBADF);
  CHECK_ERRNO(flistxattr(pa, buf, 1), EBADF);
  CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, pa, 0) == MAP_FAILED && errno == EBADF);
  CHECK_ERRNO(fcntl(pa, F_SETFL, O_APPEND), EBADF);
  CHECK_ERRNO(fcntl(pa, F_GETOWN), EBADF);
  CHECK_ERRNO(fcntl(pa, F_GETLEASE), EBADF);
  CHECK_ERRNO(ioctl(pa, FIONREAD, &n), EBADF);
  CHECK_ERRNO(lseek(pa, 0, SEEK_CUR), EBADF);
  CHECK_ERRNO(fsync(pa), EBADF);
  CHECK_ERRNO(fallocate(pa, 0, 0, 1), EBADF);
  CHECK_ERRNO(readahead(pa, 0, 1), EBADF);
  CHECK_ERRNO(sendfile(1, pa, NULL, 1), EBADF);
  CHECK_ERRNO(syscall(SYS_getdents64, dir, buf, 64), EBADF);
  CHECK_OK(fstatat(dir, "f", &st, 0));
  CHECK_OK(fstatat(pa, "", &st, AT_EMPTY_PATH));
  CHECK_ERRNO(fstatat(pa, "x", &st, 0), ENOTDIR);
  int d = (int)SYS(dup(pa));
  CHECK_EQ(fcntl(d, F_GETFL), O_PATH);
  CHECK_OK(fcntl(d, F_SETFD, FD_CLOEXEC));
  CHECK_EQ(fcntl(d, F_GETFD), FD_CLOEXEC);
  snprintf(buf, sizeof buf, "/proc/self/fd/%d", pa);
  int re = (int)SYS(open(buf, O_RDONLY));
  CHECK_EQ(read(re, buf, 2), 1);
  CHECK_OK(fchdir(dir));
  CHECK_OK(access("f", R_OK));
  SYS(chdir("/"));
  SYS(symlink("f", tmp_path("l")));
  int l = (int)SYS(open(tmp_path("l"), O_PATH | O_NOFOLLOW));
  CHECK_OK(fstat(l, &st));
  CHECK(S_ISLNK(st.st_mode));
  CHECK_EQ(readlinkat(l, "", buf, sizeof buf), 1);
  CHECK_ERRNO(readlinkat(pa, "", buf, sizeof buf), ENOENT);
  struct pollfd pf = {pa, POLLIN, 0};
  CHECK_EQ(poll(&pf, 1, 0), 1);
  CHECK_EQ(pf.revents, POLLNVAL);
  CHECK_OK(close(pa));
}

TEST(pipe_sizes) {
  int p[2], fd = tmp_file("f", "");
  SYS(pipe2(p, O_NONBLOCK));
  CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
  CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
  CHECK_EQ(fcntl(p[1], F_GETPIPE_SZ), 8192);
  CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 1), 4096);
  CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 1 << 20), 1 << 20);
  CHECK_ERRNO(fcntl(fd, F_GETPIPE_SZ), EBADF);
  CHECK_ERRNO(fcntl(fd, F_SETPIPE_SZ, 4096), EBADF);
  static char buf[20000];
  CHECK_EQ(write(p[1], buf, 20000), 20000);
  CHECK_ERRNO(fcntl(p[1], F_SETPIPE_SZ, 4096), EBUSY);
  CHECK_EQ(read(p[0], buf, 20000), 20000);
  CHECK_EQ(fcntl(p[1], F_SETPIPE_SZ, 4096), 4096);
  CHECK_EQ(write(p[1], buf, 20000), 4096);
  CHECK_ERRNO(write(p[1], buf, 1), EAGAIN);
  if (geteuid() == 0)
    WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234)); CHECK_ERRNO(fcntl(p[0], F_SETPIPE_SZ, 2 << 20), EPERM)));
}

struct handle {
  unsigned bytes;
  int type;
  unsigned char data[128];
};
TEST(file_handles) {
  int fd = tmp_file("f", "x"), mount = -1;
  struct handle h = {.bytes = 128};
  CHECK_ERRNO(syscall(SYS_name_to_handle_at, AT_FDCWD, tmp_path("none"), &h, &mount, 0), ENOENT);
  CHECK_ERRNO(syscall(SYS_name_to_handle_at, AT_FDCWD, tmp_path("f"), &h, &mount, 0x10), EINVAL);
  CHECK_ERRNO(syscall(SYS_name_to_handle_at, -1, "f", &h, &mount, 0), EBADF);
  h.bytes = 129;
  CHECK(syscall(SYS_name_to_handle_at, AT_FDCWD, tmp_path("f"), &h, &mount, 0) < 0 &&
        (errno == EINVAL || errno == EOPNOTSUPP));
  h.bytes = 128;
  long r = syscall(SYS_name_to_handle_at, fd, "", &h, &mount, AT_EMPTY_PATH);
  CHECK(r == 0 || errno == EOPNOTSUPP);
  CHECK_ERRNO(syscall(SYS_open_by_handle_at, 500, &h, O_RDONLY), EBADF);
  if (geteuid() == 0)
    WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234)); errno = 0;
                  long o = syscall(SYS_open_by_handle_at, fd, &h, O_RDONLY);
                  CHECK(o < 0 && (errno == EPERM || errno == EOPNOTSUPP || errno == ESTALE))));
}
