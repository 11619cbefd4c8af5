/* SPDX-License-Identifier: Apache-2.0 */
/* files-meta.c - stat and statx, modes, owners, times, permission checks, attributes, locks, umask, sticky. */
#include "check.h"

#include <grp.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <utime.h>

static bool can_setuid(void) { return getuid() == 0 && have_cap(7) && have_cap(6) && have_cap(0); }

#define NEED_ROOT()                                                 \
  do {                                                              \
    if (!can_setuid())                                              \
      SKIP("needs root with CAP_CHOWN, CAP_SETUID and CAP_SETGID"); \
  } while (0)

/* A child that runs as an ordinary user without supplementary groups. */
#define AS_USER(uid_, ...)                                                              \
  WAIT_OK(CHILD(SYS(syscall(SYS_setgroups, 0, NULL)); SYS(setresgid(uid_, uid_, uid_)); \
                SYS(setresuid(uid_, uid_, uid_)); __VA_ARGS__))

TEST(stat_fields) {
  struct stat st;
  int fd = tmp_file("f", "0123456789");
  time_t now = time(NULL);

  SYS(fstat(fd, &st));
  CHECK(S_ISREG(st.st_mode));
  CHECK_EQ(st.st_mode & 07777, 0644);
  CHECK_EQ(st.st_size, 10);
  CHECK_EQ(st.st_nlink, 1);
  CHECK_EQ(st.st_uid, geteuid());
  CHECK_EQ(st.st_gid, getegid());
  CHECK(st.st_ino != 0 && st.st_blksize > 0 && st.st_blocks >= 1);
  CHECK(st.st_mtime >= now - 10 && st.st_mtime <= now + 10);
  SYS(stat("/dev/null", &st));
  CHECK(S_ISCHR(st.st_mode));
  CHECK_EQ(st.st_rdev, makedev(1, 3));
  CHECK_ERRNO(stat(tmp_path("none"), &st), ENOENT);
  CHECK_ERRNO(fstat(9999, &st), EBADF);
}

TEST(statx_fields) {
  struct statx sx;
  int fd = tmp_file("f", "0123456789");

  SYS(statx(AT_FDCWD, tmp_path("f"), 0, STATX_BASIC_STATS, &sx));
  CHECK_EQ(sx.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
  CHECK_EQ(sx.stx_size, 10);
  CHECK_EQ(sx.stx_mode & 0777, 0644);
  struct stat st;
  SYS(fstat(fd, &st));
  CHECK_EQ(sx.stx_ino, st.st_ino);
  CHECK_EQ(makedev(sx.stx_dev_major, sx.stx_dev_minor), st.st_dev);
  CHECK_OK(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &sx));
  CHECK_ERRNO(statx(fd, "", 0, STATX_SIZE, &sx), ENOENT);
  CHECK_ERRNO(statx(AT_FDCWD, "/", 0, 0x80000000, &sx), EINVAL);
  CHECK_ERRNO(statx(AT_FDCWD, "/", 0x8000000, STATX_SIZE, &sx), EINVAL);
  CHECK_ERRNO(statx(AT_FDCWD, "/", 0x6000, STATX_SIZE, &sx), EINVAL); /* both sync flags */
  CHECK_ERRNO(syscall(SYS_statx, AT_FDCWD, "/", 0, STATX_SIZE, 8), EFAULT);
}

TEST(statfs_kinds) {
  struct statfs fs;
  int fd = (int)SYS(memfd_create("m", 0));

  SYS(statfs("/proc", &fs));
  CHECK_EQ(fs.f_type, 0x9fa0);
  SYS(fstatfs(fd, &fs));
  CHECK_EQ(fs.f_type, 0x01021994); /* W5 */
  SYS(statfs(tmp_dir(), &fs));
  CHECK(fs.f_bsize > 0 && fs.f_namelen == 255 && fs.f_blocks >= fs.f_bfree);
  if (check_in_sandbox && strcmp(check_fs, "overlay") == 0)
    CHECK_EQ(fs.f_type, 0x794c7630);
  else if (check_in_sandbox && strcmp(check_fs, "tmpfs") == 0)
    CHECK_EQ(fs.f_type, 0x01021994);
  CHECK_ERRNO(statfs("/none", &fs), ENOENT);
  CHECK_ERRNO(fstatfs(9999, &fs), EBADF);
}

TEST(chmod_forms) {
  int fd = tmp_file("f", "");
  struct stat st;

  SYS(chmod(tmp_path("f"), 0751));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_mode & 07777, 0751);
  SYS(fchmod(fd, 04711));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_mode & 07777, 04711);
  SYS(fchmodat(AT_FDCWD, tmp_path("f"), 0177777, 0)); /* only the low twelve bits */
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_mode & 07777, 07777);
  CHECK(S_ISREG(st.st_mode));
  CHECK_ERRNO(chmod(tmp_path("none"), 0644), ENOENT);
}

TEST(chmod_permission) {
  NEED_ROOT();
  int fd = tmp_file("f", "");
  AS_USER(1000, CHECK_ERRNO(fchmod(fd, 0666), EPERM));
  SYS(fchown(fd, 1000, 1000));
  AS_USER(1000, CHECK_OK(fchmod(fd, 0600)); CHECK_ERRNO(fchown(fd, 1001, -1), EPERM);
          CHECK_ERRNO(fchown(fd, -1, 1001), EPERM); CHECK_OK(fchown(fd, -1, 1000)));
}

TEST(chown_clears_setuid) {
  NEED_ROOT();
  int fd = tmp_file("f", "");
  struct stat st;

  SYS(fchmod(fd, 06755));
  SYS(chown(tmp_path("f"), 1000, 2000));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_uid, 1000);
  CHECK_EQ(st.st_gid, 2000);
  CHECK_EQ(st.st_mode & 07777, 0755);
  SYS(fchown(fd, -1, 3000));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_uid, 1000);
  CHECK_EQ(st.st_gid, 3000);
  SYS(symlink("f", tmp_path("l")));
  SYS(lchown(tmp_path("l"), 7, 7));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_uid, 1000);
  SYS(lstat(tmp_path("l"), &st));
  CHECK_EQ(st.st_uid, 7);
}

TEST(write_clears_setuid) {
  NEED_ROOT();
  int fd = tmp_file("f", "");
  struct stat st;

  SYS(fchown(fd, 1000, 1000));
  SYS(fchmod(fd, 06777));
  AS_USER(1000, write_full(fd, "x", 1));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_mode & 06000, 0);
}

TEST(permission_checks) {
  NEED_ROOT();
  char f[256], d[256];

  close(tmp_file("f", "secret"));
  strcpy(f, tmp_path("f"));
  SYS(chown(f, 1000, 1000));
  static const struct {
    mode_t mode;
    uid_t uid;
    int can; /* rwx bits */
  } t[] = {{0600, 1000, 6}, {0600, 1001, 0}, {0604, 1001, 4}, {0077, 1000, 0}, {0707, 1000, 7},
           {0000, 1000, 0}, {0222, 1001, 2}, {0111, 1001, 1}, {0640, 1001, 0}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    SYS(chmod(f, t[i].mode));
    AS_USER(
        t[i].uid,
        for (int bit = 1; bit <= 4; bit <<= 1) {
          int want = t[i].can & bit ? 0 : -1;
          if (access(f, bit) != want)
            check_fail(__FILE__, __LINE__, "mode %o uid %u access %d", t[i].mode, t[i].uid, bit);
        } CHECK_EQ(open(f, O_RDONLY) >= 0, (t[i].can & 4) != 0);
        CHECK_EQ(open(f, O_WRONLY) >= 0, (t[i].can & 2) != 0));
  }
  SYS(mkdir(tmp_path("d"), 0700));
  strcpy(d, tmp_path("d/x"));
  close((int)SYS(open(d, O_CREAT | O_WRONLY, 0666)));
  AS_USER(1000, CHECK_ERRNO(open(d, O_RDONLY), EACCES); struct stat st; CHECK_ERRNO(stat(d, &st), EACCES);
          CHECK_ERRNO(unlink(d), EACCES));
  SYS(chmod(tmp_path("d"), 0711));
  AS_USER(1000, CHECK_OK(open(d, O_RDONLY)); CHECK_ERRNO(open(tmp_path("d"), O_RDONLY), EACCES);
          CHECK_ERRNO(unlink(d), EACCES); CHECK_ERRNO(mkdir(tmp_path("d/new"), 0700), EACCES));
}

TEST(group_permissions) {
  NEED_ROOT();
  char f[256];

  close(tmp_file("f", "group"));
  strcpy(f, tmp_path("f"));
  SYS(chown(f, 1000, 2000));
  SYS(chmod(f, 0640));
  WAIT_OK(CHILD(gid_t groups[] = {2000}; SYS(setgroups(1, groups)); SYS(setresgid(1001, 1001, 1001));
                SYS(setresuid(1001, 1001, 1001)); CHECK_OK(open(f, O_RDONLY));
                CHECK_ERRNO(open(f, O_RDWR), EACCES)));
  AS_USER(1001, CHECK_ERRNO(open(f, O_RDONLY), EACCES));
}

TEST(access_uses_real_ids) {
  NEED_ROOT();
  char f[256];

  SYS(fchmod(tmp_file("f", ""), 0600));
  strcpy(f, tmp_path("f"));
  WAIT_OK(CHILD(SYS(setresuid(1000, 0, 0)); CHECK_ERRNO(access(f, R_OK), EACCES);
                CHECK_OK(faccessat(AT_FDCWD, f, R_OK, AT_EACCESS)); CHECK_OK(open(f, O_RDONLY))));
  CHECK_ERRNO(access(f, 8), EINVAL);
  CHECK_OK(access(f, R_OK | W_OK));
  CHECK_ERRNO(access(f, X_OK), EACCES); /* root needs one execute bit */
}

TEST(umask_applies) {
  struct stat st;

  umask(027);
  CHECK_EQ(umask(077), 027);
  close((int)SYS(open(tmp_path("f"), O_CREAT | O_WRONLY, 0666)));
  SYS(stat(tmp_path("f"), &st));
  CHECK_EQ(st.st_mode & 0777, 0600);
  SYS(mkdir(tmp_path("d"), 0777));
  SYS(stat(tmp_path("d"), &st));
  CHECK_EQ(st.st_mode & 0777, 0700);
  umask(0777777); /* masked to nine bits */
  CHECK_EQ(umask(022), 0777);
}

TEST(setgid_directory) {
  NEED_ROOT();
  struct stat st;

  SYS(mkdir(tmp_path("d"), 0777));
  SYS(chown(tmp_path("d"), 0, 2000));
  SYS(chmod(tmp_path("d"), 02777));
  AS_USER(1000, close((int)SYS(open(tmp_path("d/f"), O_CREAT | O_WRONLY, 0644)));
          SYS(mkdir(tmp_path("d/sub"), 0755)));
  SYS(stat(tmp_path("d/f"), &st));
  CHECK_EQ(st.st_gid, 2000);
  SYS(stat(tmp_path("d/sub"), &st));
  CHECK_EQ(st.st_gid, 2000);
  CHECK_EQ(st.st_mode & S_ISGID, S_ISGID);
}

TEST(sticky_directory) {
  NEED_ROOT();
  char f[256], g[256];

  SYS(mkdir(tmp_path("d"), 0777));
  SYS(chmod(tmp_path("d"), 01777));
  strcpy(f, tmp_path("d/f"));
  strcpy(g, tmp_path("d/g"));
  AS_USER(1000, close((int)SYS(open(f, O_CREAT | O_WRONLY, 0666))));
  AS_USER(1001, CHECK_ERRNO(unlink(f), EPERM); CHECK_ERRNO(rename(f, g), EPERM); CHECK_OK(access(f, F_OK));
          close((int)SYS(open(g, O_CREAT | O_WRONLY, 0666))); CHECK_ERRNO(rename(g, f), EPERM));
  AS_USER(1000, CHECK_OK(unlink(f)));
}

TEST(times) {
  int fd = tmp_file("f", "x");
  struct timespec ts[2] = {{1000000000, 123456789}, {1500000000, 987654321}};
  struct stat st;

  SYS(utimensat(AT_FDCWD, tmp_path("f"), ts, 0));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_atim.tv_sec, 1000000000);
  CHECK_EQ(st.st_mtim.tv_nsec, 987654321);
  CHECK(st.st_ctim.tv_sec > 1600000000);
  ts[0].tv_nsec = UTIME_OMIT;
  ts[1].tv_nsec = UTIME_NOW;
  SYS(futimens(fd, ts));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_atim.tv_sec, 1000000000);
  CHECK(st.st_mtim.tv_sec > 1600000000);
  ts[0].tv_nsec = 2000000000;
  CHECK_ERRNO(futimens(fd, ts), EINVAL);
  SYS(symlink("f", tmp_path("l")));
  struct timespec l[2] = {{5, 0}, {6, 0}};
  CHECK_OK(utimensat(AT_FDCWD, tmp_path("l"), l, AT_SYMLINK_NOFOLLOW));
  SYS(lstat(tmp_path("l"), &st));
  CHECK_EQ(st.st_mtim.tv_sec, 6);
  struct utimbuf ub = {111, 222};
  SYS(utime(tmp_path("f"), &ub));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_mtime, 222);
}

TEST(times_move) {
  struct timespec old[2] = {{1000, 0}, {1000, 0}};
  struct stat st;
  int fd = tmp_file("f", "x");

  SYS(futimens(fd, old));
  write_full(fd, "y", 1);
  SYS(fstat(fd, &st));
  CHECK(st.st_mtime > 1000000);
  SYS(mkdir(tmp_path("d"), 0755));
  SYS(utimensat(AT_FDCWD, tmp_path("d"), old, 0));
  close((int)SYS(open(tmp_path("d/f"), O_CREAT | O_WRONLY, 0600)));
  SYS(stat(tmp_path("d"), &st));
  CHECK(st.st_mtime > 1000000);
  SYS(utimensat(AT_FDCWD, tmp_path("d"), old, 0));
  SYS(unlink(tmp_path("d/f")));
  SYS(stat(tmp_path("d"), &st));
  CHECK(st.st_mtime > 1000000);
}

TEST(times_permission) {
  NEED_ROOT();
  struct timespec ts[2] = {{1, 0}, {1, 0}};
  char f[256];

  SYS(fchmod(tmp_file("f", ""), 0666));
  strcpy(f, tmp_path("f"));
  AS_USER(1000, CHECK_OK(utimensat(AT_FDCWD, f, NULL, 0)); CHECK_ERRNO(utimensat(AT_FDCWD, f, ts, 0), EPERM));
  SYS(chmod(f, 0644));
  AS_USER(1000, CHECK_ERRNO(utimensat(AT_FDCWD, f, NULL, 0), EACCES));
}

TEST(extended_attributes) {
  int fd = tmp_file("f", "");
  char buf[64] = "";

  if (fsetxattr(fd, "user.one", "value", 5, 0) < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
    SKIP("no user.* attributes here");
  CHECK_EQ(fgetxattr(fd, "user.one", NULL, 0), 5);
  CHECK_EQ(fgetxattr(fd, "user.one", buf, sizeof buf), 5);
  CHECK_STR(buf, "value");
  CHECK_ERRNO(fgetxattr(fd, "user.one", buf, 2), ERANGE);
  CHECK_ERRNO(fgetxattr(fd, "user.none", buf, 2), ENODATA);
  CHECK_ERRNO(fsetxattr(fd, "user.one", "x", 1, XATTR_CREATE), EEXIST);
  CHECK_ERRNO(fsetxattr(fd, "user.two", "x", 1, XATTR_REPLACE), ENODATA);
  CHECK_EQ(flistxattr(fd, buf, sizeof buf) >= 9, 1);
  CHECK(memmem(buf, sizeof buf, "user.one", 9) != NULL);
  CHECK_OK(fremovexattr(fd, "user.one"));
  CHECK_ERRNO(fremovexattr(fd, "user.one"), ENODATA);
  CHECK_ERRNO(fsetxattr(fd, "bogus.x", "x", 1, 0), EOPNOTSUPP);
}

TEST(flock_rules) {
  int a = tmp_file("f", "");
  int b = (int)SYS(open(tmp_path("f"), O_RDWR)), c = (int)SYS(dup(a));

  SYS(flock(a, LOCK_EX));
  CHECK_ERRNO(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  CHECK_OK(flock(c, LOCK_SH)); /* the lock is the description's: this converts it */
  CHECK_OK(flock(b, LOCK_SH | LOCK_NB));
  CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  CHECK_OK(flock(b, LOCK_SH | LOCK_NB)); /* a failed conversion loses the lock on Linux: take it again */
  close(a);
  CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  close(c);
  CHECK_OK(flock(b, LOCK_EX | LOCK_NB));
  CHECK_ERRNO(flock(b, 0x10), EINVAL);
  WAIT_OK(CHILD(CHECK_OK(flock(b, LOCK_EX | LOCK_NB)); CHECK_OK(flock(b, LOCK_UN))));
  int d = (int)SYS(open(tmp_path("f"), O_RDWR));
  CHECK_OK(flock(d, LOCK_EX | LOCK_NB)); /* the child unlocked for us all */
}

TEST(flock_waits) {
  char path[256];
  int fd = tmp_file("f", "");
  volatile int *got = map_shared(PAGE);

  strcpy(path, tmp_path("f"));
  SYS(flock(fd, LOCK_EX));
  pid_t pid = CHILD(int mine = (int)SYS(open(path, O_RDWR)); SYS(flock(mine, LOCK_EX)); *got = 1);
  sleep_ms(40);
  CHECK_EQ(*got, 0);
  SYS(flock(fd, LOCK_UN));
  WAIT_OK(pid);
}

static int setlk(int fd, int cmd, short type, off_t start, off_t len) {
  struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

  return fcntl(fd, cmd, &l);
}

TEST(record_locks) {
  int fd = tmp_file("f", "0123456789");
  pid_t parent = getpid();

  SYS(setlk(fd, F_SETLK, F_WRLCK, 2, 4));
  CHECK_OK(setlk(fd, F_SETLK, F_RDLCK, 4, 1)); /* own locks never conflict; splits in three */
  WAIT_OK(CHILD(CHECK_ERRNO(setlk(fd, F_SETLK, F_WRLCK, 5, 1), EAGAIN);
                CHECK_ERRNO(setlk(fd, F_SETLK, F_WRLCK, 4, 1), EAGAIN);
                CHECK_OK(setlk(fd, F_SETLK, F_RDLCK, 4, 1)); CHECK_OK(setlk(fd, F_SETLK, F_WRLCK, 6, 0));
                CHECK_OK(setlk(fd, F_SETLK, F_WRLCK, 0, 2));
                struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
                SYS(fcntl(fd, F_GETLK, &l)); CHECK_EQ(l.l_pid, parent); CHECK_EQ(l.l_start, 2);
                CHECK_EQ(l.l_len, 2); CHECK_EQ(l.l_type, F_WRLCK)));
  struct flock l = {.l_type = F_WRLCK};
  SYS(fcntl(fd, F_GETLK, &l));
  CHECK_EQ(l.l_type, F_UNLCK); /* the child's locks died with it */
  CHECK_ERRNO(setlk(fd, F_SETLK, 99, 0, 1), EINVAL);
  CHECK_ERRNO(setlk(fd, F_SETLK, F_WRLCK, -5, 1), EINVAL);
  int ro = (int)SYS(open(tmp_path("f"), O_RDONLY));
  CHECK_ERRNO(setlk(ro, F_SETLK, F_WRLCK, 0, 1), EBADF);
  close(ro); /* closing any descriptor of the file drops all of the process's locks */
  WAIT_OK(CHILD(CHECK_OK(setlk(fd, F_SETLK, F_WRLCK, 0, 0))));
}

TEST(record_lock_waits_and_deadlock) {
  int fd = tmp_file("f", "0123456789"), go[2];
  char c;

  SYS(pipe(go));
  SYS(setlk(fd, F_SETLK, F_WRLCK, 0, 1));
  pid_t pid = CHILD(SYS(setlk(fd, F_SETLK, F_WRLCK, 1, 1)); write_full(go[1], "x", 1);
                    CHECK_OK(setlk(fd, F_SETLKW, F_WRLCK, 0, 1)));
  read_full(go[0], &c, 1);
  sleep_ms(100); /* the child waits for us; us waiting for it would never end */
  CHECK_ERRNO(setlk(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
  SYS(setlk(fd, F_SETLK, F_UNLCK, 0, 0));
  WAIT_OK(pid);
}

TEST(open_description_locks) {
  int a = tmp_file("f", "x"), b = (int)SYS(open(tmp_path("f"), O_RDWR));

  if (setlk(a, F_OFD_SETLK, F_WRLCK, 0, 0) < 0 && errno == EINVAL)
    SKIP("open file description locks are not supported");
  CHECK_ERRNO(setlk(b, F_OFD_SETLK, F_RDLCK, 0, 0), EAGAIN); /* in one process */
  WAIT_OK(CHILD(CHECK_OK(setlk(a, F_OFD_SETLK, F_WRLCK, 0, 0))));
  close(a);
  CHECK_OK(setlk(b, F_OFD_SETLK, F_RDLCK, 0, 0));
}

/* Each probe is harmless where the root turns out to be writable. */
TEST(read_only_root) {
  if (!check_in_sandbox)
    SKIP("only the sandbox shows its root read-only");
  int fd = open("/etc/tessera-probe", O_CREAT | O_EXCL | O_WRONLY, 0600);
  CHECK(fd == -1 && errno == EROFS);
  if (fd >= 0)
    unlink("/etc/tessera-probe");
  CHECK_ERRNO(mkdir("/etc", 0700), EEXIST);
  CHECK_ERRNO(rmdir("/etc"), EROFS);
  CHECK_ERRNO(rename("/etc", "/etc/sub"), EROFS);
  CHECK_ERRNO(open("/etc/passwd", O_WRONLY), EROFS);
  struct stat before;
  SYS(stat("/etc/passwd", &before));
  CHECK_ERRNO(chmod("/etc/passwd", before.st_mode & 07777), EROFS);
  CHECK_ERRNO(chown("/etc/passwd", before.st_uid, before.st_gid), EROFS);
  CHECK_ERRNO(access("/etc/passwd", W_OK), EROFS);
  struct statvfs st;
  SYS(statvfs("/etc", &st));
  CHECK_EQ(st.f_flag & ST_RDONLY, ST_RDONLY);
}
