/* SPDX-License-Identifier: Apache-2.0 */
/* mounts-walk.c - openat2(2) with every RESOLVE_ flag, over mounts too; chroot(2), pivot_root(2), setns(2) with a file. */
#include "mounts.h"

#include <linux/openat2.h>

static int open2(int dir, const char *path, uint64_t flags, uint64_t resolve) {
  struct open_how how = {.flags = flags, .resolve = resolve};
  return (int)syscall(437, dir, path, &how, sizeof how);
}
/* Opens and closes: 0 or -1. */
static int try(int dir, const char *path, uint64_t resolve) {
  int fd = open2(dir, path, O_PATH, resolve);
  return fd < 0 ? -1 : close(fd);
}

MOUNT_TEST(openat2_struct) {
  union {
    struct open_how how;
    char bytes[8192];
  } u;
  memset(&u, 0, sizeof u);
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, 0), EINVAL);
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, sizeof u.how - 1), EINVAL);
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, 8192), E2BIG);
  CHECK_OK(close((int)CHECK_OK(syscall(437, AT_FDCWD, ".", &u, sizeof u.how))));
  CHECK_OK(close((int)CHECK_OK(syscall(437, AT_FDCWD, ".", &u, 4096))));
  u.bytes[4095] = 1;
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, 4096), E2BIG);
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", NULL, sizeof u.how), EFAULT);
  u.how = (struct open_how){.flags = 1ull << 33};
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, sizeof u.how), EINVAL);
  u.how = (struct open_how){.resolve = 1ull << 20};
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, sizeof u.how), EINVAL);
  u.how = (struct open_how){.mode = 0644};
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, sizeof u.how), EINVAL);
  u.how = (struct open_how){.flags = O_CREAT | O_RDWR, .mode = 010000};
  CHECK_ERRNO(syscall(437, AT_FDCWD, "x", &u, sizeof u.how), EINVAL);
  u.how = (struct open_how){.flags = O_PATH | O_RDWR};
  CHECK_ERRNO(syscall(437, AT_FDCWD, ".", &u, sizeof u.how), EINVAL);
  CHECK_ERRNO(open2(AT_FDCWD, ".", 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT), EINVAL);
}

MOUNT_TEST(openat2_no_xdev) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("d/sub", 0755));
  SYS(mkdir("d/sub/x", 0755));
  SYS(mkdir("b", 0755));
  SYS(mkdir("m", 0755));
  bind_to("d/sub", "b");
  new_tmpfs("m");
  SYS(symlink("/", "root"));
  SYS(symlink("../d", "m/out"));
  int m = (int)SYS(open("m", O_PATH));
  CHECK_EQ(try(AT_FDCWD, "d/sub/x", RESOLVE_NO_XDEV), 0);
  CHECK_ERRNO(try(AT_FDCWD, "b", RESOLVE_NO_XDEV), EXDEV); /* a bind mount of the same filesystem counts */
  CHECK_ERRNO(try(AT_FDCWD, "b/x", RESOLVE_NO_XDEV), EXDEV);
  CHECK_ERRNO(try(AT_FDCWD, "m", RESOLVE_NO_XDEV), EXDEV);
  CHECK_EQ(try(m, ".", RESOLVE_NO_XDEV), 0);
  CHECK_ERRNO(try(m, "..", RESOLVE_NO_XDEV), EXDEV);
  CHECK_ERRNO(try(m, "out", RESOLVE_NO_XDEV), EXDEV);
  CHECK_ERRNO(try(AT_FDCWD, "root", RESOLVE_NO_XDEV), EXDEV);
  CHECK_EQ(try(AT_FDCWD, "/", RESOLVE_NO_XDEV), 0);
  CHECK_ERRNO(open2(AT_FDCWD, "m", O_RDONLY | O_DIRECTORY, RESOLVE_NO_XDEV), EXDEV);
  SYS(close(SYS(creat("f", 0644))));
  SYS(close(SYS(creat("g", 0644))));
  bind_to("f", "g");
  CHECK_ERRNO(open2(AT_FDCWD, "g", O_RDWR | O_CREAT, RESOLVE_NO_XDEV), EXDEV);
  CHECK_ERRNO(open2(AT_FDCWD, "/proc/self/fd/0", O_PATH, RESOLVE_NO_XDEV), EXDEV);
}

MOUNT_TEST(openat2_links) {
  SYS(mkdir("d", 0755));
  SYS(symlink("d", "l"));
  SYS(symlink("l/../d", "l2"));
  CHECK_EQ(try(AT_FDCWD, "l", 0), 0);
  CHECK_ERRNO(try(AT_FDCWD, "l", RESOLVE_NO_SYMLINKS), ELOOP);
  CHECK_ERRNO(try(AT_FDCWD, "l/.", RESOLVE_NO_SYMLINKS), ELOOP);
  CHECK_ERRNO(try(AT_FDCWD, "l2", RESOLVE_NO_SYMLINKS), ELOOP);
  CHECK_OK(close(CHECK_OK(open2(AT_FDCWD, "l", O_PATH | O_NOFOLLOW, RESOLVE_NO_SYMLINKS))));
  CHECK_EQ(try(AT_FDCWD, "l2", RESOLVE_NO_MAGICLINKS), 0);
  CHECK_EQ(try(AT_FDCWD, "/proc/self/cwd", 0), 0);
  CHECK_ERRNO(try(AT_FDCWD, "/proc/self/cwd", RESOLVE_NO_MAGICLINKS), ELOOP);
  CHECK_ERRNO(try(AT_FDCWD, "/proc/self/root/", RESOLVE_NO_MAGICLINKS), ELOOP);
  CHECK_ERRNO(try(AT_FDCWD, "/proc/self/ns/mnt", RESOLVE_NO_MAGICLINKS), ELOOP);
}

MOUNT_TEST(openat2_beneath) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("d/in", 0755));
  SYS(symlink("/", "d/abs"));
  SYS(symlink("..", "d/up"));
  SYS(symlink("in/..", "d/round"));
  int d = (int)SYS(open("d", O_PATH));
  CHECK_EQ(try(d, "in", RESOLVE_BENEATH), 0);
  CHECK_EQ(try(d, "in/..", RESOLVE_BENEATH), 0);
  CHECK_EQ(try(d, "round", RESOLVE_BENEATH), 0);
  CHECK_EQ(try(d, "in/../in/./..", RESOLVE_BENEATH), 0);
  CHECK_ERRNO(try(d, "..", RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(try(d, "in/../..", RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(try(d, "in/../../d", RESOLVE_BENEATH), EXDEV); /* not even for a moment */
  CHECK_ERRNO(try(d, "/", RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(try(d, here("d/in"), RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(try(d, "abs", RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(try(d, "up", RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(open2(d, "../new", O_CREAT | O_RDWR, RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(open2(d, "abs/new", O_CREAT | O_RDWR, RESOLVE_BENEATH), EXDEV);
  CHECK_OK(close(CHECK_OK(open2(d, "in/new", O_CREAT | O_RDWR, RESOLVE_BENEATH))));
  new_tmpfs("d/in");
  CHECK_EQ(try(d, "in", RESOLVE_BENEATH), 0);
  CHECK_EQ(try(d, "in/..", RESOLVE_BENEATH), 0);
  char self[64];
  snprintf(self, sizeof self, "/proc/self/fd");
  int fds = (int)SYS(open(self, O_PATH));
  char num[16];
  snprintf(num, sizeof num, "%d", d);
  CHECK_ERRNO(try(fds, num, RESOLVE_BENEATH), EXDEV);
  CHECK_ERRNO(try(fds, num, RESOLVE_IN_ROOT), EXDEV);
}

static ino_t inode_in(int dir, const char *path, uint64_t resolve) {
  struct stat st = {0};
  int fd = open2(dir, path, O_PATH, resolve);
  if (CHECK(fd >= 0)) {
    fstat(fd, &st);
    close(fd);
  }
  return st.st_ino;
}

MOUNT_TEST(openat2_in_root) {
  struct stat d, in;
  SYS(mkdir("d", 0755));
  SYS(mkdir("d/in", 0755));
  SYS(symlink("/in", "d/abs"));
  SYS(symlink("../../../../in", "d/up"));
  int fd = (int)SYS(open("d", O_PATH));
  SYS(stat("d", &d));
  SYS(stat("d/in", &in));
  CHECK_EQ(inode_in(fd, "/", RESOLVE_IN_ROOT), d.st_ino);
  CHECK_EQ(inode_in(fd, "..", RESOLVE_IN_ROOT), d.st_ino);
  CHECK_EQ(inode_in(fd, "in/../../../..", RESOLVE_IN_ROOT), d.st_ino);
  CHECK_EQ(inode_in(fd, "/in", RESOLVE_IN_ROOT), in.st_ino);
  CHECK_EQ(inode_in(fd, "abs", RESOLVE_IN_ROOT), in.st_ino);
  CHECK_EQ(inode_in(fd, "up", RESOLVE_IN_ROOT), in.st_ino);
  CHECK_ERRNO(try(fd, "/d", RESOLVE_IN_ROOT), ENOENT);
  CHECK_OK(close(CHECK_OK(open2(fd, "/../new", O_CREAT | O_RDWR, RESOLVE_IN_ROOT))));
  CHECK(is_there("d/new") && !is_there("new"));
}

MOUNT_TEST(openat2_cached) {
  SYS(mkdir("d", 0755));
  SYS(close(SYS(creat("d/f", 0644))));
  struct stat st;
  SYS(stat("d/f", &st));
  CHECK_OK(close(CHECK_OK(open2(AT_FDCWD, "d/f", O_RDONLY, RESOLVE_CACHED))));
  CHECK_ERRNO(open2(AT_FDCWD, "d/f", O_RDONLY | O_TRUNC, RESOLVE_CACHED), EAGAIN);
  CHECK_ERRNO(open2(AT_FDCWD, "d/g", O_RDWR | O_CREAT, RESOLVE_CACHED), EAGAIN);
  CHECK_ERRNO(open2(AT_FDCWD, "d", O_RDWR | O_TMPFILE, RESOLVE_CACHED), EAGAIN);
  CHECK_ERRNO(open2(AT_FDCWD, "d/f", O_RDONLY, RESOLVE_CACHED | (1u << 20)), EINVAL);
}

/* ---- chroot ---- */

MOUNT_TEST(chroot_rules) {
  char buf[512];
  SYS(mkdir("jail", 0755));
  SYS(mkdir("jail/in", 0755));
  SYS(mkdir("out", 0755));
  SYS(close(SYS(creat("f", 0644))));
  CHECK_ERRNO(chroot("f"), ENOTDIR);
  CHECK_ERRNO(chroot("nope"), ENOENT);
  SYS(chmod("out", 0));
  WAIT_OK(CHILD(SYS(setuid(1000)); CHECK_ERRNO(chroot("jail"), EPERM); CHECK_ERRNO(chroot("out"), EACCES)));
  int out = (int)SYS(open("out", O_PATH | O_DIRECTORY));
  SYS(chroot("jail"));
  /* The working directory stays outside: getcwd(2) says so. */
  CHECK(syscall(SYS_getcwd, buf, sizeof buf) > 0);
  CHECK(strncmp(buf, "(unreachable)", 13) == 0);
  CHECK(is_there("jail") && is_there("/in") && !is_there("/jail"));
  SYS(chdir("/"));
  SYS(chdir("../../.."));
  CHECK(is_there("in"));
  CHECK_STR(getcwd(buf, sizeof buf), "/");
  /* A descriptor from outside is a way out, as on Linux; ".." from there does not stop at the jail. */
  SYS(fchdir(out));
  SYS(chdir(".."));
  CHECK(is_there("jail"));
  SYS(chdir("jail"));
  CHECK_STR(getcwd(buf, sizeof buf), "/");
  /* And a second chroot below leaves a process that stands above it free. */
  SYS(chroot("in"));
  SYS(chdir(".."));
  CHECK(is_there("jail/in"));
}

/* "/" is the root itself, ".." from it what covers it. */
MOUNT_TEST(mount_over_the_root) {
  new_tmpfs("/");
  CHECK(is_there("/proc"));
  SYS(chdir("/"));
  CHECK(is_there("proc"));
  CHECK(!is_there("../proc") && !is_there("/../proc"));
  SYS(chdir(".."));
  CHECK(!is_there("proc"));
  SYS(mkdir("in", 0755));
  CHECK(is_there("/../in") && !is_there("/in"));
  SYS(chdir("/"));
  CHECK_EQ(umount(".."), 0);
  CHECK(is_there("../proc"));
}

/* ---- pivot_root ---- */

static int pivot(const char *root, const char *old) { return (int)syscall(SYS_pivot_root, root, old); }

SHARED_TEST(pivot_root_errors) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("d/old", 0755));
  SYS(mkdir("e", 0755));
  CHECK_ERRNO(pivot("d", "d/old"), EINVAL); /* not a mount */
  new_tmpfs("d");
  SYS(mkdir("d/old", 0755));
  SYS(close(SYS(creat("d/file", 0644))));
  CHECK_ERRNO(pivot("nope", "d/old"), ENOENT);
  CHECK_ERRNO(pivot("d", "d/file"), ENOTDIR);
  CHECK_ERRNO(pivot("d", "e"), EINVAL); /* not below the new root */
  CHECK_ERRNO(pivot("/", "/"), EBUSY);
  make(here(""), MS_SHARED);
  CHECK_ERRNO(pivot("d", "d/old"), EINVAL); /* the parent is shared */
  make(here(""), MS_PRIVATE);
  make("d", MS_SHARED);
  CHECK_ERRNO(pivot("d", "d/old"), EINVAL); /* put_old is */
  make("d", MS_PRIVATE);
  SYS(chroot(here("")));
  SYS(chdir("/"));
  SYS(mkdir("plain", 0755));
  SYS(mkdir("plain/m", 0755));
  new_tmpfs("plain/m");
  SYS(chroot("plain"));
  CHECK_ERRNO(pivot("/m", "/m"), EINVAL); /* the root is not a mount */
}

MOUNT_TEST(pivot_root_moves_everybody) {
  int up[2], down[2];
  char c, buf[512];
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/old", 0755));
  SYS(mkdir("d/proc", 0755));
  bind_to("/proc", "d/proc");
  SYS(pipe(up));
  SYS(pipe(down));
  SYS(chdir("/"));
  pid_t pid = CHILD(write_full(up[1], "x", 1); read_full(down[0], &c, 1); CHECK(is_there("/old"));
                    CHECK(is_there("old")); CHECK_STR(getcwd(buf, sizeof buf), "/"));
  read_full(up[0], &c, 1);
  SYS(chdir(here("d")));
  SYS(pivot(".", "old"));
  write_full(down[1], "x", 1);
  WAIT_OK(pid);
  CHECK(is_there("/old/proc") && is_there("/proc/self"));
  CHECK_EQ(the_mount("/").id, the_mount("/").id);
  CHECK_EQ(mount_count_at("/old"), 1);
  SYS(chdir("/"));
  CHECK_EQ(umount2("/old", MNT_DETACH), 0);
  CHECK_EQ(rmdir("/old"), 0);
  CHECK_EQ(mount_count(), 2);
  SYS(mkdir("/x", 0755));
}

/* pivot_root(2), NOTES: with "." twice the old root lies on top of the new one and is taken off there. */
MOUNT_TEST(pivot_root_dot_dot) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/proc", 0755));
  SYS(mkdir("d/marker", 0755));
  bind_to("/proc", "d/proc");
  SYS(chdir("d"));
  SYS(pivot(".", "."));
  SYS(umount2(".", MNT_DETACH));
  CHECK_EQ(chdir("/"), 0);
  CHECK(is_there("/marker"));
  CHECK_EQ(mount_count(), 2);
  CHECK(!is_there("/old"));
}

/* What switch_root does: move the mount over the root and make it the root. */
MOUNT_TEST(move_over_the_root) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/marker", 0755));
  SYS(mkdir("d/proc", 0755));
  bind_to("/proc", "d/proc");
  SYS(chdir("d"));
  SYS(mount(".", "/", NULL, MS_MOVE, NULL));
  SYS(chroot("."));
  SYS(chdir("/"));
  CHECK(is_there("/marker") && is_there("/proc/self"));
  CHECK_EQ(mount_count_at("/"), 1);
  SYS(chdir(".."));
  CHECK(is_there("marker"));
}

/* ---- setns ---- */

MOUNT_TEST(setns_by_file) {
  int up[2], down[2];
  char c, path[64], a[64], b[64];
  SYS(mkdir("d", 0755));
  SYS(pipe(up));
  SYS(pipe(down));
  pid_t pid = CHILD(SYS(unshare(CLONE_NEWNS)); new_tmpfs("d"); SYS(mkdir("d/theirs", 0755));
                    write_full(up[1], "x", 1); read_full(down[0], &c, 1));
  read_full(up[0], &c, 1);
  snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
  int theirs = (int)SYS(open(path, O_RDONLY)), ours = (int)SYS(open("/proc/self/ns/mnt", O_RDONLY));
  struct stat st1, st2;
  SYS(fstat(theirs, &st1));
  SYS(fstat(ours, &st2));
  CHECK(st1.st_dev == st2.st_dev && st1.st_ino != st2.st_ino);
  memset(a, 0, sizeof a);
  SYS(readlink(path, a, sizeof a - 1));
  snprintf(b, sizeof b, "mnt:[%lu]", (unsigned long)st1.st_ino);
  CHECK_STR(a, b);
  snprintf(path, sizeof path, "/proc/self/fd/%d", theirs);
  memset(a, 0, sizeof a);
  SYS(readlink(path, a, sizeof a - 1));
  CHECK_STR(a, b);
  CHECK_ERRNO(setns(theirs, CLONE_NEWUTS), EINVAL);
  CHECK_ERRNO(setns(up[0], 0), EINVAL);
  CHECK_ERRNO(setns(999, 0), EBADF);
  CHECK(!is_there("d/theirs"));
  WAIT_OK(CHILD(SYS(setns(theirs, CLONE_NEWNS)); CHECK(is_there(here("d/theirs"))); char buf[256];
                CHECK_STR(getcwd(buf, sizeof buf), "/"); CHECK(is_there("proc")); SYS(setns(ours, 0));
                CHECK(!is_there(here("d/theirs")))));
  write_full(down[1], "x", 1);
  WAIT_OK(pid);
  /* The file keeps the namespace when its last process has gone. */
  WAIT_OK(CHILD(SYS(setns(theirs, 0)); CHECK(is_there(here("d/theirs")))));
  /* It cannot be mounted where it would keep itself alive. */
  SYS(close(SYS(creat("f", 0644))));
  CHECK_ERRNO(mount("/proc/self/ns/mnt", "f", NULL, MS_BIND, NULL), EINVAL);
  SYS(mount("/proc/self/ns/uts", "f", NULL, MS_BIND, NULL));
  int uts = (int)SYS(open("f", O_RDONLY));
  CHECK_EQ(setns(uts, CLONE_NEWUTS), 0);
  SYS(close(uts));
  CHECK_EQ(umount("f"), 0);
}
