/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-names.c - names and attributes: lengths, links, making and removing, renameat2(2), mknod(2), access(2), set-id bits,
 * times, statx(2), reading directories. */
#include "check.h"

#include <dirent.h>
#include <sys/sysmacros.h>

#define CAP_ROOT (geteuid() == 0)

TEST(symlink_limit) {
  char name[32], target[32];
  close(tmp_file("l0", "x"));
  for (int i = 1; i <= 42; i++) {
    snprintf(name, sizeof name, "l%d", i);
    snprintf(target, sizeof target, "l%d", i - 1);
    SYS(symlink(target, tmp_path(name)));
  }
  CHECK_OK(open(tmp_path("l40"), O_RDONLY));
  CHECK_ERRNO(open(tmp_path("l41"), O_RDONLY), ELOOP);
  struct stat st;
  CHECK_OK(stat(tmp_path("l40"), &st));
  CHECK_ERRNO(stat(tmp_path("l41"), &st), ELOOP);
  CHECK_ERRNO(open(tmp_path("l3"), O_RDONLY | O_NOFOLLOW), ELOOP);
}

TEST(name_lengths) {
  char *name = malloc(5000), *path = malloc(10000);
  memset(name, 'n', 5000);
  name[255] = 0;
  CHECK_OK(mkdir(tmp_path(name), 0700));
  CHECK_OK(rmdir(tmp_path(name)));
  CHECK_OK(symlink("x", tmp_path(name)));
  CHECK_OK(unlink(tmp_path(name)));
  name[255] = 'n', name[256] = 0;
  int dir = (int)SYS(open(tmp_dir(), O_RDONLY));
  CHECK_ERRNO(mkdirat(dir, name, 0700), ENAMETOOLONG);
  CHECK_ERRNO(symlinkat("x", dir, name), ENAMETOOLONG);
  CHECK_ERRNO(unlinkat(dir, name, 0), ENAMETOOLONG);
  CHECK_ERRNO(mknodat(dir, name, S_IFREG, 0), ENAMETOOLONG);
  CHECK_ERRNO(renameat(dir, name, dir, "x"), ENAMETOOLONG);
  struct stat st;
  CHECK_ERRNO(fstatat(dir, name, &st, 0), ENAMETOOLONG);
  name[256] = 'n', name[4095] = 0;
  CHECK_OK(symlinkat(name, dir, "long")); /* a text of 4095 is the longest */
  char back[5000];
  CHECK_EQ(readlinkat(dir, "long", back, 5000), 4095);
  name[4095] = 'n', name[4096] = 0;
  CHECK_ERRNO(symlinkat(name, dir, "longer"), ENAMETOOLONG);
  CHECK_ERRNO(symlinkat("", dir, "empty"), ENOENT);
  path[0] = 0;
  for (int i = 0; i < 2046; i++)
    strcat(path, "./");
  strcat(path, "abc"); /* 4095 */
  CHECK_EQ(strlen(path), 4095);
  CHECK_ERRNO(fstatat(dir, path, &st, 0), ENOENT);
  strcat(path, "d");
  CHECK_ERRNO(fstatat(dir, path, &st, 0), ENAMETOOLONG);
}

TEST(mknod_rules) {
  CHECK_OK(mknod(tmp_path("r"), 0644, 0));
  CHECK_OK(mknod(tmp_path("p"), S_IFIFO | 0644, 0));
  CHECK_OK(mknod(tmp_path("s"), S_IFSOCK | 0644, 0));
  CHECK_ERRNO(mknod(tmp_path("d"), S_IFDIR | 0755, 0), EPERM);
  CHECK_ERRNO(mknod(tmp_path("l"), S_IFLNK | 0755, 0), EINVAL);
  CHECK_ERRNO(mknod(tmp_path("x"), 0170000, 0), EINVAL);
  CHECK_ERRNO(mknod(tmp_path("r"), S_IFREG, 0), EEXIST);
  CHECK_ERRNO(mknod(tmp_path("no/r"), S_IFREG, 0), ENOENT);
  CHECK_ERRNO(open(tmp_path("s"), O_RDONLY), ENXIO);
  struct stat st;
  SYS(stat(tmp_path("r"), &st));
  CHECK(S_ISREG(st.st_mode));
  if (!CAP_ROOT)
    return;
  SYS(chmod(tmp_dir(), 0777));
  WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234));
                CHECK_ERRNO(mknod(tmp_path("c"), S_IFCHR | 0666, makedev(1, 3)), EPERM);
                CHECK_ERRNO(mknod(tmp_path("b"), S_IFBLK | 0666, makedev(1, 3)), EPERM);
                CHECK_OK(mknod(tmp_path("p2"), S_IFIFO | 0666, 0)); CHECK_OK(mknod(tmp_path("r2"), 0666, 0));
                /* a whiteout: everybody may, where the filesystem has device nodes at all */ CHECK(
                    mknod(tmp_path("white"), S_IFCHR, 0) == 0 || errno == EPERM)));
}

TEST(umask_applies) {
  struct stat st;
  umask(077);
  close((int)SYS(open(tmp_path("f"), O_CREAT | O_RDWR, 07777)));
  SYS(stat(tmp_path("f"), &st));
  CHECK_EQ(st.st_mode & 07777, 07700);
  SYS(mkdir(tmp_path("d"), 07777));
  SYS(stat(tmp_path("d"), &st));
  CHECK_EQ(st.st_mode & 07777, 01700);
  SYS(mkfifo(tmp_path("p"), 0666));
  SYS(stat(tmp_path("p"), &st));
  CHECK_EQ(st.st_mode & 07777, 0600);
  CHECK_EQ(umask(01777), 077);
  CHECK_EQ(umask(0), 0777);
}

TEST(renaming) {
  int dir = (int)SYS(open(tmp_dir(), O_RDONLY));
  struct stat a, b;
  write_file(tmp_path("a"), "A", 1, 0644);
  write_file(tmp_path("b"), "B", 1, 0644);
  SYS(mkdir(tmp_path("d"), 0700));
  SYS(mkdir(tmp_path("e"), 0700));
  SYS(mkdir(tmp_path("d/sub"), 0700));
#define RN(x, y, f) syscall(SYS_renameat2, dir, x, dir, y, f)
  CHECK_ERRNO(RN("a", "b", 1), EEXIST);
  CHECK_OK(RN("a", "c", 1));
  CHECK_ERRNO(RN("c", "none", 2), ENOENT);
  SYS(stat(tmp_path("c"), &a));
  CHECK_OK(RN("c", "b", 2));
  SYS(stat(tmp_path("b"), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  CHECK_OK(RN("c", "d", 2)); /* a file with a directory */
  CHECK_OK(stat(tmp_path("c/sub"), &a));
  CHECK_OK(RN("c", "d", 2));
  CHECK_ERRNO(RN("a", "b", 3), EINVAL);
  CHECK_ERRNO(RN("a", "b", 6), EINVAL);
  CHECK_ERRNO(RN("a", "b", 8), EINVAL);
  CHECK_ERRNO(RN("d", "d/sub/x", 0), EINVAL);
  CHECK_ERRNO(RN("d/sub", "d", 0), ENOTEMPTY);
  CHECK_ERRNO(RN("d", "d/sub/x", 2), ENOENT);
  CHECK_ERRNO(RN("d", "d/sub", 2), EINVAL);
  CHECK_ERRNO(RN("e", "d", 0), ENOTEMPTY);
  CHECK_ERRNO(RN("e", "b", 0), ENOTDIR);
  CHECK_ERRNO(RN("b", "e", 0), EISDIR);
  CHECK_ERRNO(RN("none", "e", 0), ENOENT);
  CHECK_ERRNO(RN(".", "x", 0), EBUSY);
  CHECK_ERRNO(RN("d/..", "x", 0), EBUSY);
  CHECK_ERRNO(RN("d", "..", 0), EBUSY);
  CHECK_ERRNO(RN("d", "..", 1), EEXIST);
  CHECK_ERRNO(RN("b", "x/", 0), ENOTDIR);
  CHECK_ERRNO(RN("b/", "x", 0), ENOTDIR);
  CHECK_OK(RN("e", "f/", 0));
  CHECK_OK(RN("f/", "e", 0));
  CHECK_OK(RN("d/sub", "e", 0)); /* over an empty directory */
  SYS(link(tmp_path("b"), tmp_path("b2")));
  CHECK_OK(RN("b", "b2", 0)); /* the same file: nothing happens */
  CHECK_OK(access(tmp_path("b"), F_OK));
  SYS(symlink("b", tmp_path("l")));
  CHECK_OK(RN("l", "l2", 0));
  CHECK_OK(lstat(tmp_path("l2"), &a));
  CHECK(S_ISLNK(a.st_mode));
}

TEST(removing) {
  int dir = (int)SYS(open(tmp_dir(), O_RDONLY));
  close(tmp_file("f", ""));
  SYS(mkdir(tmp_path("d"), 0700));
  close((int)SYS(open(tmp_path("d/x"), O_CREAT | O_RDWR, 0600)));
  CHECK_ERRNO(unlinkat(dir, "f", 1), EINVAL);
  CHECK_ERRNO(unlinkat(dir, "f", AT_REMOVEDIR), ENOTDIR);
  CHECK_ERRNO(unlinkat(dir, "d", 0), EISDIR);
  CHECK_ERRNO(unlinkat(dir, "d", AT_REMOVEDIR), ENOTEMPTY);
  CHECK_ERRNO(unlinkat(dir, "d/.", AT_REMOVEDIR), EINVAL);
  CHECK_ERRNO(unlinkat(dir, "d/..", AT_REMOVEDIR), ENOTEMPTY);
  CHECK_ERRNO(unlinkat(dir, "f/", 0), ENOTDIR);
  CHECK_ERRNO(unlinkat(dir, "none", 0), ENOENT);
  CHECK_ERRNO(unlinkat(dir, "none/", 0), ENOENT);
  CHECK_ERRNO(unlinkat(dir, "", 0), ENOENT);
  CHECK_ERRNO(unlinkat(dir, ".", 0), EISDIR);
  SYS(symlink("d", tmp_path("l")));
  CHECK_ERRNO(rmdir(tmp_path("l")), ENOTDIR);
  CHECK_ERRNO(rmdir("/"), EBUSY);
  CHECK_ERRNO(mkdir("/", 0700), EEXIST);
  CHECK_ERRNO(mkdir(tmp_path("f"), 0700), EEXIST);
  CHECK_ERRNO(mkdir(tmp_path("f/x"), 0700), ENOTDIR);
  CHECK_ERRNO(mkdir(tmp_path("."), 0700), EEXIST);
  CHECK_OK(mkdir(tmp_path("new/"), 0700));
  /* A removed directory that is still open. */
  int n = (int)SYS(open(tmp_path("new"), O_RDONLY));
  struct stat st;
  SYS(rmdir(tmp_path("new")));
  SYS(fstat(n, &st));
  CHECK_EQ(st.st_nlink, 0);
  CHECK_ERRNO(openat(n, "x", O_CREAT | O_RDWR, 0600), ENOENT);
  CHECK_ERRNO(mkdirat(n, "x", 0700), ENOENT);
  char buf[512];
  CHECK_ERRNO(syscall(SYS_getdents64, n, buf, sizeof buf), ENOENT);
}

TEST(linking) {
  int dir = (int)SYS(open(tmp_dir(), O_RDONLY)), fd = tmp_file("f", "x");
  struct stat a, b;
  char proc[64];
  SYS(symlink("f", tmp_path("l")));
  CHECK_OK(linkat(dir, "l", dir, "l2", 0)); /* the link itself */
  SYS(lstat(tmp_path("l2"), &a));
  CHECK(S_ISLNK(a.st_mode));
  CHECK_OK(linkat(dir, "l", dir, "f2", AT_SYMLINK_FOLLOW));
  SYS(lstat(tmp_path("f2"), &a));
  CHECK(S_ISREG(a.st_mode));
  CHECK_EQ(a.st_nlink, 2);
  CHECK_ERRNO(linkat(dir, "f", dir, "f2", 0), EEXIST);
  CHECK_ERRNO(linkat(dir, "none", dir, "x", 0), ENOENT);
  CHECK_ERRNO(linkat(dir, ".", dir, "x", 0), EPERM);
  CHECK_ERRNO(linkat(dir, "f", dir, "x", 0x100), EINVAL);
  CHECK_ERRNO(linkat(dir, "f", dir, "x/", 0), ENOENT);
  if (CAP_ROOT) {
    CHECK_OK(linkat(fd, "", dir, "f3", AT_EMPTY_PATH));
    SYS(fstat(fd, &b));
    CHECK_EQ(b.st_nlink, 3);
  }
  int t = open(tmp_dir(), O_TMPFILE | O_RDWR, 0600);
  if (t < 0)
    return;
  SYS(fstat(t, &b));
  CHECK_EQ(b.st_nlink, 0);
  write_full(t, "tmp", 3);
  snprintf(proc, sizeof proc, "/proc/self/fd/%d", t);
  CHECK_OK(linkat(AT_FDCWD, proc, dir, "t", AT_SYMLINK_FOLLOW));
  SYS(stat(tmp_path("t"), &b));
  CHECK_EQ(b.st_size, 3);
  CHECK_EQ(b.st_nlink, 1);
  t = (int)SYS(open(tmp_dir(), O_TMPFILE | O_RDWR | O_EXCL, 0600));
  snprintf(proc, sizeof proc, "/proc/self/fd/%d", t);
  CHECK_ERRNO(linkat(AT_FDCWD, proc, dir, "t2", AT_SYMLINK_FOLLOW), ENOENT);
  CHECK_ERRNO(open(tmp_dir(), O_TMPFILE | O_RDONLY, 0600), EINVAL);
  CHECK_ERRNO(open(tmp_path("f"), O_TMPFILE | O_RDWR, 0600), ENOTDIR);
}

TEST(access_rules) {
  int dir = (int)SYS(open(tmp_dir(), O_RDONLY));
  close(tmp_file("f", ""));
  SYS(symlink("none", tmp_path("dangling")));
#define FA(p, m, f) syscall(SYS_faccessat2, dir, p, m, f)
  CHECK_ERRNO(FA("f", 8, 0), EINVAL);
  CHECK_ERRNO(FA("f", 0, 0x10), EINVAL);
  CHECK_OK(FA("f", R_OK | W_OK, AT_EACCESS));
  CHECK_ERRNO(FA("f", X_OK, 0), EACCES);
  CHECK_ERRNO(FA("dangling", F_OK, 0), ENOENT);
  CHECK_OK(FA("dangling", F_OK, AT_SYMLINK_NOFOLLOW));
  CHECK_OK(FA("", R_OK, AT_EMPTY_PATH));
  CHECK_ERRNO(FA("", R_OK, 0), ENOENT);
  CHECK_ERRNO(FA("f/", F_OK, 0), ENOTDIR);
  if (!CAP_ROOT)
    return;
  SYS(chmod(tmp_dir(), 0755));
  SYS(chmod(tmp_path("f"), 0600));
  WAIT_OK(CHILD(SYS(setresuid(1234, 0, 0)); /* the real id counts, unless told otherwise */
                CHECK_ERRNO(FA("f", R_OK, 0), EACCES); CHECK_OK(FA("f", R_OK, AT_EACCESS));
                CHECK_ERRNO(access(tmp_path("f"), R_OK), EACCES); CHECK_OK(FA("f", F_OK, 0))));
}

TEST(set_id_bits) {
  struct stat st;
  if (!CAP_ROOT)
    SKIP("not root");
  SYS(chmod(tmp_dir(), 0777));
  char path[256];
  strcpy(path, tmp_path("f"));
#define MODE() (stat(path, &st), st.st_mode & 07777)
  write_file(path, "x", 1, 0644);
  SYS(chown(path, 1234, 1234));
  SYS(chmod(path, 06755));
  CHECK_EQ(MODE(), 06755);
  SYS(chown(path, 1234, 1234)); /* whoever calls */
  CHECK_EQ(MODE(), 0755);
  SYS(chmod(path, 02644)); /* not executable for the group: a mark for locking */
  SYS(chown(path, 1234, -1));
  CHECK(MODE() == 02644 || MODE() == 0644);
  SYS(chmod(path, 06777));
  int fd = (int)SYS(open(path, O_RDWR));
  CHECK_EQ(write(fd, "y", 1), 1); /* with CAP_FSETID nothing is lost */
  CHECK_EQ(MODE(), 06777);
  WAIT_OK(CHILD(SYS(setresgid(1234, 1234, 1234)); SYS(setresuid(1234, 1234, 1234));
                CHECK_EQ(write(fd, "y", 1), 1)));
  CHECK_EQ(MODE(), 0777);
  SYS(chmod(path, 06777));
  WAIT_OK(CHILD(SYS(setresuid(4321, 4321, 4321)); SYS(truncate(path, 1))));
  CHECK_EQ(MODE(), 0777);
  SYS(chmod(path, 06777));
  WAIT_OK(CHILD(SYS(setresuid(4321, 4321, 4321)); SYS(open(path, O_WRONLY | O_TRUNC))));
  CHECK_EQ(MODE(), 0777);
  SYS(chmod(path, 06777));
  WAIT_OK(CHILD(SYS(setresuid(4321, 4321, 4321)); SYS(ftruncate(fd, 10))));
  CHECK_EQ(MODE(), 0777);
  SYS(chmod(path, 06777));
  WAIT_OK(CHILD(SYS(setresuid(4321, 4321, 4321)); SYS(fallocate(fd, 0, 0, 100))));
  CHECK_EQ(MODE(), 0777);
  /* chmod by an owner who is not in the file's group. */
  SYS(chown(path, 1234, 5555));
  WAIT_OK(CHILD(SYS(setresgid(1234, 1234, 1234)); SYS(setresuid(1234, 1234, 1234)); SYS(chmod(path, 06755))));
  CHECK_EQ(MODE(), 04755);
  WAIT_OK(CHILD(SYS(setresuid(4321, 4321, 4321)); CHECK_ERRNO(chmod(path, 0777), EPERM);
                CHECK_ERRNO(chown(path, 4321, -1), EPERM); CHECK_ERRNO(chown(path, -1, 4321), EPERM)));
  WAIT_OK(CHILD(SYS(setresgid(1234, 1234, 1234)); SYS(setresuid(1234, 1234, 1234));
                CHECK_OK(chown(path, 1234, 1234)); CHECK_ERRNO(chown(path, -1, 77), EPERM);
                CHECK_ERRNO(chown(path, 77, -1), EPERM)));
  /* Directories keep theirs. */
  SYS(mkdir(tmp_path("d"), 0755));
  SYS(chmod(tmp_path("d"), 06755));
  SYS(chown(tmp_path("d"), 1, 1));
  stat(tmp_path("d"), &st);
  CHECK_EQ(st.st_mode & 07777, 06755);
}

TEST(times) {
  int fd = tmp_file("f", "x");
  struct stat st;
  struct timespec t[2] = {{100, 5}, {200, 999999999}};
  CHECK_OK(futimens(fd, t));
  SYS(fstat(fd, &st));
  CHECK(st.st_atim.tv_sec == 100 && st.st_atim.tv_nsec == 5 && st.st_mtim.tv_sec == 200);
  CHECK_EQ(st.st_mtim.tv_nsec, 999999999);
  t[0].tv_nsec = UTIME_OMIT;
  t[1] = (struct timespec){-5, 7}; /* before 1970 */
  CHECK_OK(futimens(fd, t));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_atim.tv_sec, 100);
  CHECK_EQ(st.st_mtim.tv_sec, -5);
  t[1].tv_nsec = UTIME_NOW;
  CHECK_OK(futimens(fd, t));
  SYS(fstat(fd, &st));
  CHECK(st.st_mtim.tv_sec > 1000000000 && st.st_atim.tv_sec == 100);
  t[1].tv_nsec = 1000000000;
  CHECK_ERRNO(futimens(fd, t), EINVAL);
  t[1].tv_nsec = -1;
  CHECK_ERRNO(futimens(fd, t), EINVAL);
  CHECK_ERRNO(utimensat(AT_FDCWD, tmp_path("f"), NULL, 0x10), EINVAL);
  CHECK_ERRNO(syscall(SYS_utimensat, AT_FDCWD, tmp_path("f"), 1, 0), EFAULT);
  CHECK_ERRNO(syscall(SYS_utimensat, AT_FDCWD, NULL, NULL, 0), EFAULT);
  CHECK_ERRNO(syscall(SYS_utimensat, fd, NULL, NULL, AT_SYMLINK_NOFOLLOW), EINVAL);
  t[0].tv_nsec = t[1].tv_nsec = UTIME_OMIT;
  CHECK_OK(utimensat(AT_FDCWD, tmp_path("f"), t, 0));
  SYS(symlink("f", tmp_path("l")));
  t[0] = t[1] = (struct timespec){42, 0};
  CHECK_OK(utimensat(AT_FDCWD, tmp_path("l"), t, AT_SYMLINK_NOFOLLOW));
  SYS(lstat(tmp_path("l"), &st));
  CHECK_EQ(st.st_mtim.tv_sec, 42);
  if (!CAP_ROOT)
    return;
  SYS(chmod(tmp_dir(), 0755));
  SYS(chmod(tmp_path("f"), 0666));
  WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234)); CHECK_OK(utimensat(AT_FDCWD, tmp_path("f"), NULL, 0));
                struct timespec n[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
                CHECK_OK(utimensat(AT_FDCWD, tmp_path("f"), n, 0)); n[0].tv_nsec = UTIME_OMIT;
                CHECK_ERRNO(utimensat(AT_FDCWD, tmp_path("f"), n, 0), EPERM); n[0].tv_nsec = 0;
                CHECK_ERRNO(utimensat(AT_FDCWD, tmp_path("f"), n, 0), EPERM)));
  SYS(chmod(tmp_path("f"), 0644));
  WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234));
                CHECK_ERRNO(utimensat(AT_FDCWD, tmp_path("f"), NULL, 0), EACCES);
                CHECK_ERRNO(chmod(tmp_path("f"), 0), EPERM)));
}

TEST(statx_rules) {
  struct statx x;
  int fd = tmp_file("f", "hello");
  CHECK_OK(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x));
  CHECK_EQ(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
  CHECK_EQ(x.stx_size, 5);
  CHECK_OK(statx(fd, "", AT_EMPTY_PATH, 0, &x));
  CHECK_ERRNO(statx(fd, "", AT_EMPTY_PATH, 0x80000000, &x), EINVAL);
  CHECK_ERRNO(statx(fd, "", AT_EMPTY_PATH | 0x6000, 0, &x), EINVAL);
  CHECK_OK(statx(fd, "", AT_EMPTY_PATH | 0x4000, 0, &x));
  CHECK_ERRNO(statx(fd, "", 0, 0, &x), ENOENT);
  CHECK_ERRNO(statx(AT_FDCWD, tmp_path("f"), 0x10, 0, &x), EINVAL);
  CHECK_ERRNO(statx(AT_FDCWD, tmp_path("none"), 0, 0, &x), ENOENT);
  CHECK_ERRNO(syscall(SYS_statx, fd, "", AT_EMPTY_PATH, 0, 1), EFAULT);
  CHECK_OK(statx(AT_FDCWD, "/", 0, STATX_ALL, &x));
  CHECK(x.stx_attributes_mask & 0x2000 /* STATX_ATTR_MOUNT_ROOT */);
  CHECK(x.stx_attributes & 0x2000);
  CHECK_OK(statx(fd, "", AT_EMPTY_PATH, STATX_ALL, &x));
  CHECK(!(x.stx_attributes & 0x2000));
}

static int names_in(int fd, size_t size, char seen[256]) {
  char buf[65536];
  int n = 0;
  for (;;) {
    long r = syscall(SYS_getdents64, fd, buf, size);
    if (r <= 0)
      return r < 0 ? -errno : n;
    for (long at = 0; at < r;) {
      struct dirent64 *d = (struct dirent64 *)(buf + at);
      if (d->d_name[0] == 'f') {
        int k = atoi(d->d_name + 1);
        if (k >= 0 && k < 256)
          seen[k]++;
      }
      n++;
      at += d->d_reclen;
    }
  }
}

TEST(reading_directories) {
  char name[16], seen[256] = {0};
  for (int i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "f%d", i);
    close((int)SYS(open(tmp_path(name), O_CREAT | O_RDWR, 0600)));
  }
  int fd = (int)SYS(open(tmp_dir(), O_RDONLY)), f = (int)SYS(open(tmp_path("f1"), O_RDONLY));
  char buf[64];
  CHECK_ERRNO(syscall(SYS_getdents64, fd, buf, 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_getdents64, fd, buf, 10), EINVAL);
  CHECK_ERRNO(syscall(SYS_getdents64, f, buf, 64), ENOTDIR);
  CHECK_ERRNO(syscall(SYS_getdents64, -1, buf, 64), EBADF);
  CHECK_ERRNO(syscall(SYS_getdents64, fd, 1, 64), EFAULT);
  CHECK_EQ(names_in(fd, 24, seen), 102); /* one at a time */
  for (int i = 0; i < 100; i++)
    CHECK_EQ(seen[i], 1);
  CHECK_EQ(names_in(fd, 1000, seen), 0);
  SYS(lseek(fd, 0, SEEK_SET));
  CHECK_EQ(names_in(fd, 1000, seen), 102);
  /* Positions hold while other names go and come. */
  DIR *d = opendir(tmp_dir());
  memset(seen, 0, sizeof seen);
  long where = 0;
  struct dirent *after;
  char next[256] = "";
  for (int i = 0; i < 50; i++)
    readdir(d);
  where = telldir(d);
  after = readdir(d);
  strcpy(next, after->d_name);
  while (readdir(d))
    ;
  seekdir(d, where);
  after = readdir(d);
  CHECK_STR(after->d_name, next);
  closedir(d);
  /* Deleting while reading: every name is seen once and goes. */
  SYS(lseek(fd, 0, SEEK_SET));
  int gone = 0;
  char b[512];
  for (;;) {
    long r = syscall(SYS_getdents64, fd, b, sizeof b);
    if (r <= 0)
      break;
    for (long at = 0; at < r;) {
      struct dirent64 *x = (struct dirent64 *)(b + at);
      if (x->d_name[0] == 'f')
        gone += unlinkat(fd, x->d_name, 0) == 0;
      at += x->d_reclen;
    }
  }
  CHECK_EQ(gone, 100);
  SYS(lseek(fd, 0, SEEK_SET));
  CHECK_EQ(names_in(fd, 4096, seen), 2);
}
