/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-open.c - open(2) in all its flags, running programs as files, calls that are larger than one call may be, devices and terminals. */
#include "check.h"

#include <linux/openat2.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

TEST(flag_combinations) {
  close(tmp_file("f", "hello"));
  struct stat st;
  SYS(mkdir(tmp_path("d"), 0700));
  SYS(symlink("f", tmp_path("l")));
  SYS(symlink("d", tmp_path("ld")));
  CHECK_ERRNO(open(tmp_path("d"), O_RDWR | O_CREAT, 0600), EISDIR);
  CHECK_ERRNO(open(tmp_path("d"), O_RDONLY | O_TRUNC), EISDIR);
  CHECK_ERRNO(open(tmp_path("f"), O_RDONLY | O_DIRECTORY), ENOTDIR);
  CHECK_ERRNO(open(tmp_path("new"), O_RDWR | O_CREAT | O_DIRECTORY, 0600), EINVAL);
  CHECK_ERRNO(stat(tmp_path("new"), &st), ENOENT);
  CHECK_ERRNO(open(tmp_path("l"), O_RDONLY | O_NOFOLLOW), ELOOP);
  CHECK_ERRNO(open(tmp_path("ld"), O_RDONLY | O_NOFOLLOW), ELOOP);
  CHECK_ERRNO(open(tmp_path("ld"), O_RDONLY | O_NOFOLLOW | O_DIRECTORY), ENOTDIR);
  CHECK_OK(open(tmp_path("ld/"), O_RDONLY | O_NOFOLLOW | O_DIRECTORY));
  CHECK_ERRNO(open(tmp_path("l"), O_RDWR | O_CREAT | O_NOFOLLOW, 0600), ELOOP);
  CHECK_ERRNO(open(tmp_path("l"), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  CHECK_ERRNO(open(tmp_path("f"), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  CHECK_OK(open(tmp_path("f"), O_RDONLY | O_EXCL));           /* without O_CREAT: nothing */
  int fd = (int)SYS(open(tmp_path("f"), O_RDONLY | O_TRUNC)); /* truncates on Linux */
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 0);
  fd = (int)SYS(
      open(tmp_path("readonly"), O_CREAT | O_RDWR, 0400)); /* the mode counts from the next open on */
  CHECK_EQ(write(fd, "x", 1), 1);
  fd = (int)SYS(creat(tmp_path("c"), 0600));
  CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  fd = (int)SYS(open(tmp_path("c"), O_RDWR | O_CLOEXEC | O_SYNC | O_NONBLOCK | 0x40000000));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_SYNC | O_NONBLOCK), O_SYNC | O_NONBLOCK);
  CHECK_EQ(write(fd, "x", 1), 1);
}

static int o2(const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
  struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
  return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}
TEST(openat2_rules) {
  close(tmp_file("f", "x"));
  struct {
    struct open_how how;
    uint64_t more;
  } big = {.how = {.flags = O_RDONLY}};
  CHECK_OK(o2(tmp_path("f"), O_RDONLY, 0, 0));
  CHECK_ERRNO(o2(tmp_path("f"), O_RDONLY, 0600, 0), EINVAL);
  CHECK_ERRNO(o2(tmp_path("n"), O_CREAT | O_RDWR, 010000, 0), EINVAL);
  CHECK_ERRNO(o2(tmp_path("f"), 0x80000000, 0, 0), EINVAL);
  CHECK_ERRNO(o2(tmp_path("f"), 1ULL << 40, 0, 0), EINVAL);
  CHECK_ERRNO(o2(tmp_path("f"), O_RDONLY, 0, 0x80), EINVAL);
  CHECK_ERRNO(o2(tmp_path("f"), O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT), EINVAL);
  CHECK_ERRNO(o2(tmp_path("f"), O_PATH | O_RDWR, 0, 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, tmp_path("f"), &big, 8), EINVAL);
  CHECK_OK(syscall(SYS_openat2, AT_FDCWD, tmp_path("f"), &big, sizeof big));
  big.more = 1;
  CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, tmp_path("f"), &big, sizeof big), E2BIG);
  CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, tmp_path("f"), 8, sizeof big.how), EFAULT);
}

/* A copy of this program, which runs and says so. */
static pid_t run_copy(const char *path) {
  size_t n;
  int p[2];
  char c = 0;
  char *self = read_file("/proc/self/exe", &n);
  write_file(path, self, n, 0755);
  free(self);
  SYS(pipe(p));
  pid_t pid = CHILD(dup2(p[1], 1); execl(path, path, "--helper", "stay", NULL); CHECK(false));
  read_full(p[0], &c, 1);
  return pid;
}
HELPER(stay) {
  write_full(1, "x", 1);
  pause();
  return 0;
}
TEST(text_file_busy) {
  char path[256];
  strcpy(path, tmp_path("prog"));
  pid_t pid = run_copy(path);
  CHECK_ERRNO(open(path, O_WRONLY), ETXTBSY);
  CHECK_ERRNO(open(path, O_RDWR | O_TRUNC), ETXTBSY);
  CHECK_ERRNO(truncate(path, 0), ETXTBSY);
  CHECK_OK(open(path, O_RDONLY));
  CHECK_OK(chmod(path, 0700));
  CHECK_OK(rename(path, tmp_path("moved")));
  kill(pid, SIGKILL);
  check_wait(pid);
  int fd = (int)CHECK_OK(open(tmp_path("moved"), O_WRONLY));
  pid = CHILD(CHECK_ERRNO(execl(tmp_path("moved"), "x", "--list", NULL), ETXTBSY));
  WAIT_OK(pid);
  close(fd);
}

TEST(one_call_moves_two_gigabytes_at_most) {
  size_t n = 3ul << 30;
  char *m = mmap(NULL, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(m != MAP_FAILED);
  int null = (int)SYS(open("/dev/null", O_WRONLY));
  CHECK_EQ(write(null, m, n), 0x7ffff000);
  struct iovec v[2] = {{m, 0x70000000}, {m, 0x70000000}};
  CHECK_EQ(writev(null, v, 2), 0x7ffff000);
}

TEST(devices) {
  char buf[8] = "xxxxxxx";
  int null = (int)SYS(open("/dev/null", O_RDWR)), zero = (int)SYS(open("/dev/zero", O_RDWR)),
      full = (int)SYS(open("/dev/full", O_RDWR));
  CHECK_EQ(read(null, buf, 8), 0);
  CHECK_EQ(pread(null, buf, 8, 100), 0);
  CHECK_EQ(pread(zero, buf, 8, 100), 8);
  CHECK_EQ(buf[0], 0);
  CHECK_ERRNO(write(full, "x", 1), ENOSPC);
  CHECK_EQ(pwrite(zero, "x", 1, 5), 1);
  CHECK_ERRNO(fsync(null), EINVAL);
  CHECK_ERRNO(fdatasync(zero), EINVAL);
  CHECK_ERRNO(ftruncate(null, 0), EINVAL);
  CHECK_OK(open("/dev/null", O_RDWR | O_TRUNC | O_CREAT | O_APPEND, 0600));
}

static volatile int got;
static int tty_fd;
static char drained[64];
static void count(int sig) {
  got++;
  while (read(tty_fd, drained, sizeof drained) > 0)
    ;
}
TEST(terminals_send_sigio) {
  int m = (int)SYS(posix_openpt(O_RDWR | O_NOCTTY)), on = 1;
  SYS(grantpt(m));
  SYS(unlockpt(m));
  int s = (int)SYS(open(ptsname(m), O_RDWR | O_NOCTTY));
  on_signal(SIGIO, count, 0);
  SYS(fcntl(s, F_SETOWN, getpid()));
  SYS(fcntl(s, F_SETFL, O_NONBLOCK));
  SYS(ioctl(s, FIOASYNC, &on));
  tty_fd = s;
  for (int i = 0; i < 3; i++) {
    got = 0;
    write_full(m, "line\n", 5);
    WAIT_FOR(got > 0);
    CHECK_STR(drained, "line\n");
    sleep_ms(30);
    CHECK(got < 10); /* reading in the handler does not raise it again and again */
  }
}

TEST(append_can_be_refused_for_a_call) {
  close(tmp_file("f", "0123"));
  int fd = (int)SYS(open(tmp_path("f"), O_RDWR | O_APPEND));
  struct iovec v = {"X", 1};
  if (pwritev2(fd, &v, 1, 1, RWF_NOAPPEND) < 0)
    SKIP("a kernel before 6.9");
  size_t n;
  CHECK_STR(read_file(tmp_path("f"), &n), "0X23");
  CHECK_ERRNO(pwritev2(fd, &v, 1, 1, RWF_NOAPPEND | RWF_APPEND), EINVAL);
}
