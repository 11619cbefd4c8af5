/* SPDX-License-Identifier: Apache-2.0 */
/* dev-nodes.c - the device nodes without a terminal: null, zero, full, random, urandom, shm, fd. */
#include "check.h"

#include <dirent.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/sysmacros.h>

TEST(null_device) {
  int fd = (int)SYS(open("/dev/null", O_RDWR));
  char buf[16];

  CHECK_EQ(read(fd, buf, sizeof buf), 0);
  CHECK_EQ(write(fd, buf, sizeof buf), sizeof buf);
  CHECK_EQ(write(fd, (void *)8, 100), 100); /* null does not look at the buffer */
  CHECK_EQ(lseek(fd, 100, SEEK_SET), 0);
  CHECK_OK(open("/dev/null", O_WRONLY | O_TRUNC | O_CREAT, 0666));
  struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
  CHECK_EQ(poll(&p, 1, 0), 1);
  CHECK_EQ(p.revents, POLLIN | POLLOUT);
}

TEST(zero_device) {
  int fd = (int)SYS(open("/dev/zero", O_RDWR));
  static char buf[70000];

  memset(buf, 1, sizeof buf);
  CHECK_EQ(read(fd, buf, sizeof buf), sizeof buf);
  for (size_t i = 0; i < sizeof buf; i++)
    if (!CHECK_EQ(buf[i], 0))
      break;
  CHECK_EQ(write(fd, buf, 10), 10);
  CHECK_ERRNO(read(fd, (void *)8, 10), EFAULT);
}

TEST(full_device) {
  int fd = (int)SYS(open("/dev/full", O_RDWR));
  char c = 1;

  CHECK_ERRNO(write(fd, &c, 1), ENOSPC);
  CHECK_EQ(read(fd, &c, 1), 1);
  CHECK_EQ(c, 0);
}

TEST(random_devices) {
  static const char *const names[] = {"/dev/random", "/dev/urandom"};

  for (int i = 0; i < 2; i++) {
    int fd = (int)SYS(open(names[i], O_RDONLY));
    unsigned char a[256], b[256];
    int ones = 0;
    CHECK_EQ(read(fd, a, sizeof a), sizeof a);
    CHECK_EQ(read(fd, b, sizeof b), sizeof b);
    CHECK(memcmp(a, b, sizeof a) != 0);
    for (size_t k = 0; k < sizeof a; k++)
      ones += __builtin_popcount(a[k]);
    CHECK(ones > 800 && ones < 1250);
  }
}

TEST(device_numbers) {
  static const struct {
    const char *path;
    unsigned major, minor;
  } t[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
           {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};

  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    struct stat st;
    SYS(stat(t[i].path, &st));
    CHECK(S_ISCHR(st.st_mode));
    CHECK_EQ(major(st.st_rdev), t[i].major);
    CHECK_EQ(minor(st.st_rdev), t[i].minor);
    CHECK_EQ(st.st_mode & 0666, 0666);
  }
}

TEST(fd_links) {
  int p[2];
  char path[64], c;

  SYS(pipe(p));
  write_full(p[1], "d", 1);
  snprintf(path, sizeof path, "/dev/fd/%d", p[0]);
  int fd = open(path, O_RDONLY);
  if (fd < 0 && errno == ENOENT && !check_in_sandbox)
    SKIP("the host has no /dev/fd");
  SYS(fd);
  CHECK_EQ(read(fd, &c, 1), 1);
  CHECK_EQ(c, 'd');
  struct stat st;
  CHECK_OK(lstat("/dev/stdin", &st));
  CHECK(S_ISLNK(st.st_mode));
}

TEST(shm_directory) {
  char path[64];

  snprintf(path, sizeof path, "/dev/shm/tessera-%d", getpid());
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd < 0 && !check_in_sandbox)
    SKIP("/dev/shm is not writable on this host: %s", strerror(errno));
  SYS(fd);
  SYS(ftruncate(fd, PAGE));
  char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(p != MAP_FAILED);
  WAIT_OK(CHILD(int again = (int)SYS(open(path, O_RDWR)); write_full(again, "shared", 6)));
  CHECK(memcmp(p, "shared", 6) == 0);
  SYS(unlink(path));
}

TEST(writable_tmpfs_places) {
  static const char *const dirs[] = {"/tmp", "/run", "/dev/shm"};

  if (!check_in_sandbox)
    SKIP("only the sandbox promises these");
  for (int i = 0; i < 3; i++) {
    char path[64];
    snprintf(path, sizeof path, "%s/probe", dirs[i]);
    int fd = (int)SYS(open(path, O_CREAT | O_RDWR, 0600));
    CHECK_EQ(write(fd, "x", 1), 1);
    SYS(unlink(path));
  }
  struct stat st;
  SYS(stat("/tmp", &st));
  CHECK_EQ(st.st_mode & 07777, 01777);
}

TEST(getrandom_forms) {
  unsigned char a[600], b[600];

  CHECK_EQ(getrandom(a, sizeof a, 0), sizeof a);
  CHECK_EQ(getrandom(b, sizeof b, GRND_NONBLOCK), sizeof b);
  CHECK(memcmp(a, b, sizeof a) != 0);
  CHECK_EQ(getrandom(a, 0, 0), 0);
  CHECK_ERRNO(getrandom(a, 10, 0x100), EINVAL);
  CHECK_ERRNO(getrandom(a, 10, GRND_RANDOM | 4 /* GRND_INSECURE */), EINVAL);
  CHECK_ERRNO(getrandom((void *)8, 10, 0), EFAULT);
}

TEST(forked_children_get_different_bytes) {
  unsigned char *s = map_shared(PAGE);

  WAIT_OK(CHILD(CHECK_EQ(getrandom(s, 16, 0), 16)));
  WAIT_OK(CHILD(CHECK_EQ(getrandom(s + 16, 16, 0), 16)));
  CHECK(memcmp(s, s + 16, 16) != 0);
}

TEST(no_dev_tty_without_a_terminal) {
  WAIT_OK(CHILD(SYS(setsid()); CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO)));
}
