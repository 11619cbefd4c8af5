/* SPDX-License-Identifier: Apache-2.0 */
/* tmpfs-meta.c - extended attributes (xattr(7)), times (mount(8): relatime and its relatives), seals (memfd_create(2)). */
#include "on-tmpfs.h"

#include <linux/falloc.h>
#include <sys/xattr.h>
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#define MFD_EXEC 16u
#endif

/* ---- Extended attributes ---- */

TMPFS_TEST(xattr_limits) {
  static char value[70000], name[300];
  new_file("f", 0600, 0, 0);
  if (setxattr("f", "user.a", "", 0, 0) < 0)
    SKIP("no user.* attributes");
  CHECK_EQ(getxattr("f", "user.a", value, 0), 0);
  CHECK_EQ(getxattr("f", "user.a", value, 10), 0);
  CHECK_OK(setxattr("f", "user.a", value, 65536, 0));
  CHECK_EQ(getxattr("f", "user.a", value, 65536), 65536);
  CHECK_EQ(getxattr("f", "user.a", value, sizeof value), 65536);
  CHECK_ERRNO(getxattr("f", "user.a", value, 65535), ERANGE);
  CHECK_ERRNO(setxattr("f", "user.a", value, 65537, 0), E2BIG);
  memset(name, 'n', 255);
  memcpy(name, "user.", 5);
  CHECK_OK(setxattr("f", name, "1", 1, 0));
  CHECK_EQ(getxattr("f", name, NULL, 0), 1);
  name[255] = 'n';
  CHECK_ERRNO(setxattr("f", name, "1", 1, 0), ERANGE);
  CHECK_ERRNO(getxattr("f", name, NULL, 0), ERANGE);
  CHECK_ERRNO(removexattr("f", name), ERANGE);
  CHECK_ERRNO(setxattr("f", "", "1", 1, 0), ERANGE);
  CHECK_ERRNO(setxattr("f", "user.", "1", 1, 0), EINVAL);
  CHECK_ERRNO(getxattr("f", "user.", NULL, 0), EINVAL);
  CHECK_ERRNO(setxattr("f", "other.x", "1", 1, 0), EOPNOTSUPP);
  CHECK_ERRNO(setxattr("f", "user", "1", 1, 0), EOPNOTSUPP);
  CHECK_ERRNO(setxattr("f", "user.b", "1", 1, 4), EINVAL);
  CHECK_ERRNO(setxattr("f", "user.b", "1", 1, XATTR_CREATE | XATTR_REPLACE), ENODATA);
  CHECK_ERRNO(setxattr("f", "user.a", "1", 1, XATTR_CREATE), EEXIST);
  CHECK_ERRNO(setxattr("f", "user.b", "1", 1, XATTR_REPLACE), ENODATA);
  CHECK_ERRNO(setxattr("f", (char *)8, "1", 1, 0), EFAULT);
  CHECK_ERRNO(setxattr("f", "user.b", (char *)8, 1, 0), EFAULT);
  CHECK_ERRNO(getxattr("f", "user.a", (char *)8, 65536), EFAULT);
  CHECK_ERRNO(setxattr("none", "user.b", "1", 1, 0), ENOENT);
}

TMPFS_TEST(xattr_lists) {
  static char list[70000], name[300];
  new_file("f", 0600, 0, 0);
  if (setxattr("f", "user.a", "", 0, 0) < 0)
    SKIP("no user.* attributes");
  SYS(setxattr("f", "trusted.t", "1", 1, 0));
  SYS(setxattr("f", "security.s", "1", 1, 0));
  CHECK_EQ(listxattr("f", NULL, 0), 7 + 10 + 11);
  CHECK_ERRNO(listxattr("f", list, 27), ERANGE);
  CHECK_EQ(listxattr("f", list, 28), 28);
  SYS(chmod(".", 0777));
  AS(1000, 1000, 0, CHECK_EQ(listxattr("f", list, sizeof list), 18); CHECK_EQ(listxattr("f", NULL, 0), 18));
  CHECK_ERRNO(listxattr("f", (char *)8, 28), EFAULT);
  /* More names than a list may hold. */
  memset(name, 'n', 250);
  int i, n = 0;
  for (i = 0; i < 400; i++) {
    memcpy(name, "user.", 5);
    sprintf(name + 240, "%d", i);
    n += setxattr("f", name, "", 0, 0) == 0;
  }
  CHECK_EQ(n, 400);
  CHECK_ERRNO(listxattr("f", list, sizeof list), E2BIG);
}

TMPFS_TEST(xattr_rules) {
  SYS(chmod(".", 0777));
  new_file("f", 0644, 1000, 1000);
  new_dir("d", 0755, 1000, 1000);
  SYS(symlink("f", "l"));
  SYS(mkfifo("p", 0666));
  SYS(chmod("p", 0666));
  if (setxattr("f", "user.a", "1", 1, 0) < 0)
    SKIP("no user.* attributes");
  /* user.*: as the contents, and only where there are contents. */
  AS(1001, 1001, 0, CHECK_EQ(getxattr("f", "user.a", NULL, 0), 1);
     CHECK_ERRNO(setxattr("f", "user.a", "2", 1, 0), EACCES); CHECK_ERRNO(removexattr("f", "user.a"), EACCES);
     CHECK_ERRNO(setxattr("d", "user.a", "2", 1, 0), EACCES));
  AS(1000, 1000, 0, CHECK_OK(setxattr("f", "user.b", "2", 1, 0));
     CHECK_OK(setxattr("d", "user.b", "2", 1, 0)));
  SYS(chmod("f", 0600));
  AS(1001, 1001, 0, CHECK_ERRNO(getxattr("f", "user.a", NULL, 0), EACCES);
     CHECK(listxattr("f", NULL, 0) == 14); CHECK_ERRNO(getxattr("f", "other.a", NULL, 0), EACCES));
  CHECK_ERRNO(setxattr("p", "user.a", "1", 1, 0), EPERM);
  CHECK_ERRNO(getxattr("p", "user.a", NULL, 0), ENODATA);
  CHECK_ERRNO(lsetxattr("l", "user.a", "1", 1, 0), EPERM);
  CHECK_ERRNO(lgetxattr("l", "user.a", NULL, 0), ENODATA);
  CHECK_ERRNO(lremovexattr("l", "user.a"), EPERM);
  CHECK_OK(setxattr("l", "user.via", "1", 1, 0));
  CHECK_OK(getxattr("f", "user.via", NULL, 0));
  /* trusted.*: CAP_SYS_ADMIN; on anything. */
  CHECK_OK(lsetxattr("l", "trusted.a", "1", 1, 0));
  CHECK_OK(setxattr("p", "trusted.a", "1", 1, 0));
  CHECK_EQ(lgetxattr("l", "trusted.a", NULL, 0), 1);
  CHECK_ERRNO(getxattr("f", "trusted.a", NULL, 0), ENODATA);
  AS(1000, 1000, 0, CHECK_ERRNO(setxattr("f", "trusted.a", "1", 1, 0), EPERM);
     CHECK_ERRNO(getxattr("p", "trusted.a", NULL, 0), ENODATA);
     CHECK_ERRNO(removexattr("p", "trusted.a"), EPERM); CHECK_EQ(listxattr("p", NULL, 0), 0));
  WITH_CAPS(1001, 1001, 1ul << 21, CHECK_OK(setxattr("f", "trusted.a", "1", 1, 0)));
  /* security.*: anybody reads. */
  CHECK_OK(setxattr("f", "security.x", "1", 1, 0));
  AS(1001, 1001, 0, CHECK_EQ(getxattr("f", "security.x", NULL, 0), 1));
  AS(1000, 1000, 0, CHECK_ERRNO(setxattr("f", "security.x", "1", 1, 0), EPERM);
     CHECK_ERRNO(removexattr("f", "security.x"), EPERM));
}

TMPFS_TEST(file_capabilities) {
  uint32_t v2[5] = {0x02000001, 0x400, 0, 0, 0}, got[6];

  SYS(chmod(".", 0777));
  new_file("f", 0755, 1000, 1000);
  CHECK_OK(setxattr("f", "security.capability", v2, sizeof v2, 0));
  CHECK_EQ(getxattr("f", "security.capability", got, sizeof got), 20);
  CHECK(!memcmp(v2, got, 20));
  CHECK_ERRNO(setxattr("f", "security.capability", v2, 12, 0), EINVAL);
  CHECK_ERRNO(setxattr("f", "security.capability", "x", 1, 0), EINVAL);
  v2[0] = 0x05000000;
  CHECK_ERRNO(setxattr("f", "security.capability", v2, sizeof v2, 0), EINVAL);
  v2[0] = 0x02000000;
  AS(1000, 1000, 0, CHECK_ERRNO(setxattr("f", "security.capability", v2, sizeof v2, 0), EPERM);
     CHECK_ERRNO(removexattr("f", "security.capability"), EPERM));
  WITH_CAPS(1001, 1001, 1ul << 31, CHECK_OK(setxattr("f", "security.capability", v2, sizeof v2, 0)));
  CHECK_OK(removexattr("f", "security.capability"));
}

TMPFS_TEST(xattr_descriptors) {
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600)), path = (int)SYS(open("f", O_PATH)),
      ro = (int)SYS(open("f", O_RDONLY));
  char p[40];

  if (fsetxattr(fd, "user.a", "1", 1, 0) < 0)
    SKIP("no user.* attributes");
  CHECK_OK(fsetxattr(ro, "user.b", "1", 1, 0)); /* the file's permission counts, not the description's */
  CHECK_EQ(fgetxattr(ro, "user.a", NULL, 0), 1);
  CHECK_EQ(flistxattr(ro, NULL, 0), 14);
  CHECK_ERRNO(fsetxattr(path, "user.a", "1", 1, 0), EBADF);
  CHECK_ERRNO(fgetxattr(path, "user.a", NULL, 0), EBADF);
  CHECK_ERRNO(flistxattr(path, NULL, 0), EBADF);
  CHECK_ERRNO(fremovexattr(path, "user.a"), EBADF);
  CHECK_ERRNO(fgetxattr(999, "user.a", NULL, 0), EBADF);
  sprintf(p, "/proc/self/fd/%d", path);
  CHECK_OK(setxattr(p, "user.c", "1", 1, 0));
  CHECK_EQ(getxattr("f", "user.c", NULL, 0), 1);
  SYS(unlink("f"));
  CHECK_EQ(fgetxattr(fd, "user.c", NULL, 0), 1);
  SYS(close(fd));
  SYS(close(path));
  SYS(close(ro));
  SYS(mkdir("r", 0755));
  SYS(mount("x", tmpfs_root_, NULL, MS_REMOUNT | MS_RDONLY, NULL));
  CHECK_ERRNO(setxattr("r", "user.a", "1", 1, 0), EROFS);
  CHECK_ERRNO(removexattr("r", "user.a"), EROFS);
}

/* ---- Times ---- */

static struct stat st_of(const char *path) {
  struct stat st;

  SYS(lstat(path, &st));
  return st;
}
static void set_times(const char *path, time_t atime, time_t mtime) {
  struct timespec ts[2] = {{atime, 0}, {mtime, 0}};

  SYS(utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW));
}
static void read_it(const char *path, int flags) {
  char c;
  int fd = (int)SYS(open(path, O_RDONLY | flags));

  SYS(read(fd, &c, 1));
  close(fd);
}

TMPFS_TEST(atime_is_relative) {
  time_t now = time(NULL);

  write_file("f", "hello", 5, 0600);
  set_times("f", 1000, now - 50); /* older than the change */
  read_it("f", 0);
  CHECK(st_of("f").st_atime >= now - 1);
  sleep_ms(20);
  set_times("f", now - 20, now - 50); /* not older than the change, but than the inode's */
  sleep_ms(20);
  read_it("f", 0);
  CHECK(st_of("f").st_atime >= now - 1);
  time_t one = st_of("f").st_atim.tv_nsec;
  read_it("f", 0);
  CHECK_EQ(st_of("f").st_atim.tv_nsec, one);
  set_times("f", 1000, 500);
  read_it("f", O_NOATIME);
  CHECK_EQ(st_of("f").st_atime, 1000);
  char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, (int)SYS(open("f", O_RDONLY)), 0);
  CHECK(p != MAP_FAILED);
  CHECK(st_of("f").st_atime >= now - 1);
  /* Directories by reading them, links by reading or following them. */
  SYS(mkdir("d", 0755));
  set_times("d", 1000, 1000);
  char buf[400];
  int d = (int)SYS(open("d", O_RDONLY | O_DIRECTORY));
  SYS(syscall(SYS_getdents64, d, buf, sizeof buf));
  CHECK(st_of("d").st_atime >= now - 1);
  SYS(symlink("f", "l"));
  set_times("l", 1000, 1000);
  SYS(readlink("l", buf, sizeof buf));
  CHECK(st_of("l").st_atime >= now - 1);
}

TMPFS_TEST(atime_by_mount) {
  time_t now = time(NULL);

  write_file("f", "hello", 5, 0600);
  SYS(mkdir("d", 0755));
  SYS(mount("x", tmpfs_root_, NULL, MS_REMOUNT | MS_NOATIME, NULL));
  set_times("f", 1000, 2000);
  read_it("f", 0);
  CHECK_EQ(st_of("f").st_atime, 1000);
  SYS(mount("x", tmpfs_root_, NULL, MS_REMOUNT | MS_NODIRATIME, NULL));
  char buf[400];
  set_times("d", 1000, 2000);
  int d = (int)SYS(open("d", O_RDONLY | O_DIRECTORY));
  SYS(syscall(SYS_getdents64, d, buf, sizeof buf));
  CHECK_EQ(st_of("d").st_atime, 1000);
  read_it("f", 0);
  CHECK(st_of("f").st_atime >= now - 1);
  SYS(mount("x", tmpfs_root_, NULL, MS_REMOUNT | MS_STRICTATIME, NULL));
  struct timespec a = st_of("f").st_atim;
  sleep_ms(15);
  read_it("f", 0);
  struct timespec b = st_of("f").st_atim;
  CHECK(b.tv_sec > a.tv_sec || b.tv_nsec > a.tv_nsec);
}

TMPFS_TEST(times_of_changes) {
  time_t now = time(NULL);
  struct stat st;

  write_file("f", "hello", 5, 0600);
  SYS(mkdir("d", 0755));
#define OLD(path_) set_times(path_, 1000, 1000)
#define MOVED(path_, what_) CHECK(st_of(path_).st_##what_##time >= now - 1)
#define STAYS(path_, what_) CHECK_EQ(st_of(path_).st_##what_##time, 1000)
  int fd = (int)SYS(open("f", O_RDWR));
  OLD("f"), SYS(write(fd, "x", 1)), MOVED("f", m), STAYS("f", a);
  OLD("f"), SYS(ftruncate(fd, 5)), MOVED("f", m); /* the same size */
  OLD("f"), SYS(truncate("f", 5)), MOVED("f", m);
  write_file("hole", "", 0, 0600);
  SYS(truncate("hole", 10000));
  OLD("hole"), SYS(truncate("hole", 10000)), STAYS("hole", m), MOVED("hole", c); /* nothing is allocated */
  OLD("f"), SYS(write(fd, "", 0)), STAYS("f", m);
  OLD("f"), SYS(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 10)), MOVED("f", m);
  OLD("f"), close((int)SYS(open("f", O_RDWR | O_TRUNC))), MOVED("f", m);
  OLD("f"), SYS(chmod("f", 0644)), STAYS("f", m), MOVED("f", c);
  OLD("d"), SYS(link("f", "d/f")), MOVED("d", m), MOVED("d", c), STAYS("d", a);
  OLD("d"), SYS(rename("d/f", "d/g")), MOVED("d", m);
  OLD("f"), SYS(rename("f", "h")), STAYS("h", m), MOVED("h", c);
  OLD("d"), SYS(unlink("d/g")), MOVED("d", m), STAYS("h", m);
  OLD("d"), SYS(mkdir("d/e", 0700)), MOVED("d", m);
  OLD("d"), SYS(setxattr("d", "trusted.x", "", 0, 0)), STAYS("d", m), MOVED("d", c);
  struct timespec odd[2] = {{-1, 999999999}, {1ll << 33, 1}};
  SYS(utimensat(AT_FDCWD, "h", odd, 0));
  SYS(stat("h", &st));
  CHECK_EQ(st.st_atim.tv_sec, -1);
  CHECK_EQ(st.st_atim.tv_nsec, 999999999);
  CHECK_EQ(st.st_mtim.tv_sec, 1ll << 33);
  odd[0].tv_nsec = 1000000000;
  CHECK_ERRNO(utimensat(AT_FDCWD, "h", odd, 0), EINVAL);
  struct statx sx;
  SYS(statx(AT_FDCWD, "h", 0, STATX_BASIC_STATS | STATX_BTIME, &sx));
  CHECK(sx.stx_mask & STATX_BTIME);
  CHECK(sx.stx_btime.tv_sec >= now - 1 && sx.stx_btime.tv_sec <= now + 60);
}

/* ---- Seals ---- */

static int sealed(unsigned flags, int seals) {
  int fd = (int)SYS(memfd_create("m", flags | MFD_ALLOW_SEALING));

  SYS(ftruncate(fd, 8192));
  if (seals)
    SYS(fcntl(fd, F_ADD_SEALS, seals));
  return fd;
}

TEST(seal_rules) {
  int fd = sealed(0, F_SEAL_GROW);

  CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_GROW);
  CHECK_ERRNO(ftruncate(fd, 8193), EPERM);
  CHECK_ERRNO(fallocate(fd, 0, 0, 8193), EPERM);
  CHECK_ERRNO(fallocate(fd, 1, 0, 10000), EPERM);
  CHECK_OK(fallocate(fd, 1, 0, 8192));
  CHECK_ERRNO(pwrite(fd, "x", 1, 8192), EPERM);
  CHECK_EQ(pwrite(fd, "xyz", 3, 8190), 2);
  CHECK_OK(ftruncate(fd, 4096));
  fd = sealed(0, F_SEAL_SHRINK);
  CHECK_ERRNO(ftruncate(fd, 1), EPERM);
  CHECK_OK(ftruncate(fd, 9000));
  CHECK_OK(fallocate(fd, 3, 0, 4096));
  fd = sealed(0, F_SEAL_WRITE);
  CHECK_ERRNO(write(fd, "x", 1), EPERM);
  CHECK_ERRNO(fallocate(fd, 3, 0, 4096), EPERM);
  CHECK_OK(ftruncate(fd, 4096));
  CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM);
  CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
  CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
  fd = sealed(0, F_SEAL_SEAL);
  CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), EPERM);
  CHECK_ERRNO(fcntl(sealed(0, 0), F_ADD_SEALS, 0x1000), EINVAL);
  int plain = (int)SYS(memfd_create("p", 0));
  CHECK_EQ(fcntl(plain, F_GET_SEALS), F_SEAL_SEAL);
  fd = sealed(0, 0);
  char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
  CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)); /* mappings that exist go on */
  p[5] = 'x';
  CHECK_ERRNO(write(fd, "x", 1), EPERM);
  CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM);
  char *r = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  CHECK(r != MAP_FAILED && r[5] == 'x');
  CHECK_ERRNO(mprotect(r, 4096, PROT_READ | PROT_WRITE), EACCES);
  SYS(munmap(p, 8192));
  CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  CHECK_ERRNO(mprotect(p, 4096, PROT_READ | PROT_WRITE), EACCES);
  char path[40];
  sprintf(path, "/proc/self/fd/%d", fd);
  int ro = (int)SYS(open(path, O_RDONLY));
  CHECK_ERRNO(fcntl(ro, F_ADD_SEALS, F_SEAL_SEAL), EPERM);
}

TEST(seal_exec) {
  int fd = (int)syscall(SYS_memfd_create, "x", MFD_NOEXEC_SEAL);
  struct stat st;

  if (fd < 0)
    SKIP("no MFD_NOEXEC_SEAL before Linux 6.3");
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_mode & 07777, 0666);
  CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_EXEC);
  CHECK_ERRNO(fchmod(fd, 0755), EPERM);
  CHECK_OK(fchmod(fd, 0600));
  CHECK_EQ(write(fd, "x", 1), 1);
  fd = (int)SYS(syscall(SYS_memfd_create, "x", MFD_EXEC | MFD_ALLOW_SEALING));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_mode & 07777, 0777);
  SYS(fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC)); /* an executable that stays as it is */
  CHECK_EQ(fcntl(fd, F_GET_SEALS),
           F_SEAL_EXEC | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
  CHECK_ERRNO(fchmod(fd, 0644), EPERM);
  CHECK_OK(fchmod(fd, 0711));
  CHECK_ERRNO(syscall(SYS_memfd_create, "x", MFD_EXEC | MFD_NOEXEC_SEAL), EINVAL);
  CHECK_ERRNO(syscall(SYS_memfd_create, "x", 0x40), EINVAL);
}
