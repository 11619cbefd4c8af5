/* SPDX-License-Identifier: Apache-2.0 */
/* mounts-api.c - fsopen(2), fsconfig(2), fsmount(2), fspick(2), open_tree(2), move_mount(2), mount_setattr(2). */
#include "mounts.h"

#include <sys/statfs.h>

enum { SET_FLAG, SET_STRING, SET_BINARY, SET_PATH, SET_PATH_EMPTY, SET_FD, CREATE, RECONFIGURE };
#define CLONE_TREE 1
#define RECURSIVE 0x8000
#define F_EMPTY 4
#define T_EMPTY 0x40
#define SET_GROUP 0x100
#define ATTR_RDONLY 1
#define ATTR_NOSUID 2
#define ATTR_NOEXEC 8
#define ATTR_ATIME 0x70
#define ATTR_NOATIME 0x10
#define ATTR_STRICT 0x20
#define ATTR_IDMAP 0x100000

typedef struct {
  uint64_t set, clear, propagation, userns;
} Attr;

static int fsopen_(const char *type, unsigned flags) { return (int)syscall(430, type, flags); }
static int config(int fd, unsigned cmd, const char *key, const void *value, int aux) {
  return (int)syscall(431, fd, cmd, key, value, aux);
}
static int fsmount_(int fd, unsigned flags, unsigned attr) { return (int)syscall(432, fd, flags, attr); }
static int fspick_(const char *path, unsigned flags) { return (int)syscall(433, AT_FDCWD, path, flags); }
static int tree(int dir, const char *path, unsigned flags) { return (int)syscall(428, dir, path, flags); }
static int move_to(int from, const char *path, int to, const char *to_path, unsigned flags) {
  return (int)syscall(429, from, path, to, to_path, flags);
}
static int setattr(int dir, const char *path, unsigned flags, const void *attr, size_t n) {
  return (int)syscall(442, dir, path, flags, attr, n);
}

static int made(const char *source) {
  int fd = (int)SYS(fsopen_("tmpfs", 0));
  SYS(config(fd, SET_STRING, "source", source, 0));
  SYS(config(fd, CREATE, NULL, NULL, 0));
  return fd;
}
static int detached(void) {
  int fd = made("fresh"), m = (int)SYS(fsmount_(fd, 1, 0));
  SYS(close(fd));
  return m;
}

MOUNT_TEST(api_from_fsopen_to_move_mount) {
  SYS(mkdir("d", 0755));
  int fd = (int)SYS(fsopen_("tmpfs", 1));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  SYS(config(fd, SET_STRING, "source", "my source", 0));
  SYS(config(fd, SET_STRING, "size", "1m", 0));
  SYS(config(fd, SET_STRING, "mode", "0700", 0));
  CHECK_ERRNO(fsmount_(fd, 0, 0), EINVAL); /* nothing made yet */
  SYS(config(fd, CREATE, NULL, NULL, 0));
  CHECK_ERRNO(config(fd, CREATE, NULL, NULL, 0), EBUSY);
  CHECK_ERRNO(config(fd, SET_STRING, "size", "2m", 0), EBUSY);
  CHECK_ERRNO(fsmount_(fd, 2, 0), EINVAL);
  CHECK_ERRNO(fsmount_(fd, 0, 0x30), EINVAL);
  CHECK_ERRNO(fsmount_(fd, 0, 1u << 30), EINVAL);
  int before = mount_count();
  int m = (int)SYS(fsmount_(fd, 0, ATTR_NOEXEC | ATTR_NOATIME));
  CHECK_EQ(mount_count(), before);
  CHECK_ERRNO(fsmount_(fd, 0, 0), EBUSY);
  /* It can be used before it is anywhere. */
  SYS(close(SYS(openat(m, "file", O_CREAT | O_WRONLY, 0644))));
  CHECK(fcntl(m, F_GETFL) & O_PATH);
  SYS(move_to(m, "", AT_FDCWD, "d", F_EMPTY));
  CHECK_EQ(close(m), 0);
  CHECK(is_there("d/file")); /* it has a place: the descriptor's end is not its end */
  MountLine l = the_mount("d");
  CHECK_STR(l.options, "rw,noexec,noatime");
  CHECK_STR(l.source, "my\\040source");
  CHECK(strstr(l.super, "size=1024k") != NULL);
  struct stat st;
  SYS(stat("d", &st));
  CHECK_EQ(st.st_mode & 07777, 0700);
  struct statfs s;
  SYS(statfs("d", &s));
  CHECK_EQ(s.f_blocks * s.f_bsize, 1 << 20);
}

MOUNT_TEST(api_arguments) {
  int fd = made("x"), null = (int)SYS(open("/dev/null", O_RDONLY));
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  CHECK_ERRNO(fsopen_("nosuchfs", 0), ENODEV);
  CHECK_ERRNO(fsopen_("tmpfs", 2), EINVAL);
  CHECK_ERRNO(fsopen_(NULL, 0), EFAULT);
  CHECK_ERRNO(config(-1, CREATE, NULL, NULL, 0), EINVAL);
  CHECK_ERRNO(config(999, CREATE, NULL, NULL, 0), EBADF);
  CHECK_ERRNO(config(null, CREATE, NULL, NULL, 0), EINVAL);
  CHECK_ERRNO(config(fd, 77, NULL, NULL, 0), EOPNOTSUPP);
  CHECK_ERRNO(config(fd, CREATE, "key", NULL, 0), EINVAL);
  CHECK_ERRNO(config(fd, SET_FLAG, NULL, NULL, 0), EINVAL);
  CHECK_ERRNO(config(fd, SET_FLAG, "ro", "value", 0), EINVAL);
  CHECK_ERRNO(config(fd, SET_STRING, "size", NULL, 0), EINVAL);
  CHECK_ERRNO(config(fd, SET_STRING, "size", "1m", 1), EINVAL);
  CHECK_ERRNO(config(fd, SET_BINARY, "size", "1m", 0), EINVAL);
  CHECK_ERRNO(config(fd, SET_FD, "fd", NULL, -1), EINVAL);
  CHECK_ERRNO(fsmount_(null, 0, 0), EINVAL);
  CHECK_ERRNO(fsmount_(999, 0, 0), EBADF);
  CHECK_ERRNO(fspick_("d", 0x10), EINVAL);
  CHECK_ERRNO(fspick_("nope", 0), ENOENT);
  SYS(mkdir("plain", 0755));
  CHECK_ERRNO(fspick_("plain", 0), EINVAL);
  CHECK_ERRNO(tree(AT_FDCWD, "d", RECURSIVE), EINVAL);
  CHECK_ERRNO(tree(AT_FDCWD, "d", 2), EINVAL);
  CHECK_ERRNO(tree(AT_FDCWD, "", CLONE_TREE), ENOENT);
  CHECK_ERRNO(move_to(AT_FDCWD, "plain", AT_FDCWD, "d", 0), EINVAL);
  CHECK_ERRNO(move_to(AT_FDCWD, "d", AT_FDCWD, "plain", 0x1000), EINVAL);
  CHECK_ERRNO(move_to(999, "", AT_FDCWD, "plain", F_EMPTY), EBADF);
  WAIT_OK(CHILD(SYS(setuid(1000)); CHECK_ERRNO(fsopen_("tmpfs", 0), EPERM);
                CHECK_ERRNO(fspick_("d", 0), EPERM); CHECK_ERRNO(fsmount_(fd, 0, 0), EPERM);
                CHECK_ERRNO(tree(AT_FDCWD, "d", CLONE_TREE), EPERM); CHECK_OK(tree(AT_FDCWD, "d", 0));
                CHECK_ERRNO(move_to(fd, "", fd, "", 4), EPERM); Attr a = {.set = 1};
                CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &a, sizeof a), EPERM)));
}

/* The context tells what was wrong: a message for each read(2). */
MOUNT_TEST(api_messages) {
  char buf[256];
  int fd = (int)SYS(fsopen_("tmpfs", 0));
  CHECK_ERRNO(read(fd, buf, sizeof buf), ENODATA);
  CHECK_ERRNO(config(fd, SET_STRING, "nosuchoption", "1", 0), EINVAL);
  CHECK_ERRNO(config(fd, SET_STRING, "size", "many", 0), EINVAL);
  CHECK_ERRNO(read(fd, buf, 3), EMSGSIZE);
  ssize_t n = CHECK_OK(read(fd, buf, sizeof buf - 1));
  buf[n > 0 ? n : 0] = 0;
  CHECK(strncmp(buf, "e ", 2) == 0 && strstr(buf, "nosuchoption") && buf[n - 1] == '\n');
  n = CHECK_OK(read(fd, buf, sizeof buf - 1));
  buf[n > 0 ? n : 0] = 0;
  CHECK(strstr(buf, "size") != NULL);
  CHECK_ERRNO(read(fd, buf, sizeof buf), ENODATA);
  /* A mistake spoils nothing. */
  SYS(config(fd, SET_STRING, "size", "1m", 0));
  SYS(config(fd, CREATE, NULL, NULL, 0));
  SYS(fsmount_(fd, 0, 0));
}

MOUNT_TEST(api_reconfigure) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  int fd = (int)SYS(fspick_("d", 1));
  SYS(config(fd, SET_FLAG, "ro", NULL, 0));
  CHECK_ERRNO(config(fd, CREATE, NULL, NULL, 0), EBUSY);
  SYS(config(fd, RECONFIGURE, NULL, NULL, 0));
  CHECK_ERRNO(mkdir("d/x", 0755), EROFS);
  CHECK(strncmp(the_mount("d").options, "rw", 2) == 0);
  CHECK(strncmp(the_mount("d").super, "ro", 2) == 0);
  SYS(config(fd, SET_FLAG, "rw", NULL, 0));
  SYS(config(fd, RECONFIGURE, NULL, NULL, 0));
  CHECK_EQ(mkdir("d/x", 0755), 0);
  CHECK_EQ(umount("d"), 0); /* a context does not keep the mount busy */
  SYS(close(fd));
}

MOUNT_TEST(api_detached_goes_with_its_descriptor) {
  SYS(mkdir("d", 0755));
  int m = detached();
  SYS(mkdirat(m, "sub", 0755));
  int in = (int)SYS(openat(m, "sub", O_RDONLY | O_DIRECTORY)), copy = (int)SYS(dup(m));
  SYS(close(m));
  CHECK_EQ(faccessat(copy, "sub", F_OK, 0), 0); /* the same description */
  SYS(close(copy));
  CHECK_OK(mkdirat(in, "still", 0755)); /* files are files */
  CHECK_ERRNO(mount("/proc/self/fd/0", "d", NULL, MS_MOVE, NULL), EINVAL);
  /* Many of them leave nothing behind. */
  int before = mount_count();
  for (int i = 0; i < 300; i++)
    SYS(close(detached()));
  CHECK_EQ(mount_count(), before);
}

MOUNT_TEST(api_open_tree) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/sub", 0755));
  new_tmpfs("d/sub");
  SYS(mkdir("d/sub/deep", 0755));
  int plain = (int)SYS(tree(AT_FDCWD, "d", O_CLOEXEC));
  CHECK(fcntl(plain, F_GETFL) & O_PATH);
  CHECK_EQ(fcntl(plain, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(umount2("d/sub", 0x100), EINVAL);
  int one = (int)SYS(tree(AT_FDCWD, "d", CLONE_TREE));
  CHECK(faccessat(one, "sub", F_OK, 0) == 0 && faccessat(one, "sub/deep", F_OK, 0) < 0);
  int all = (int)SYS(tree(AT_FDCWD, "d", CLONE_TREE | RECURSIVE));
  CHECK_EQ(faccessat(all, "sub/deep", F_OK, 0), 0);
  SYS(move_to(all, "", AT_FDCWD, "e", F_EMPTY));
  CHECK_EQ(mount_count_at("e/sub"), 1);
  CHECK(is_there("e/sub/deep"));
  /* A second time it is where it is: it can be moved on, like any mount. */
  SYS(mkdir("f", 0755));
  CHECK_EQ(move_to(all, "", AT_FDCWD, "f", F_EMPTY), 0);
  CHECK(!is_there("e/sub") && is_there("f/sub/deep"));
  /* What is not shared with the clone: changes of mounts after it. What is: files. */
  SYS(close(SYS(creat("d/new", 0644))));
  CHECK_EQ(faccessat(one, "new", F_OK, 0), 0);
  make("d", MS_UNBINDABLE);
  CHECK_ERRNO(tree(AT_FDCWD, "d", CLONE_TREE), EINVAL);
  /* Of a directory that is no mount. */
  SYS(mkdir("p", 0755));
  SYS(mkdir("p/q", 0755));
  int part = (int)SYS(tree(AT_FDCWD, "p", CLONE_TREE));
  SYS(move_to(part, "", AT_FDCWD, "e", F_EMPTY));
  CHECK_STR(the_mount("e").root, "/p");
}

SHARED_TEST(api_move_mount) {
  SYS(mkdir("a", 0755));
  SYS(mkdir("b", 0755));
  SYS(close(SYS(creat("f", 0644))));
  new_tmpfs("a");
  SYS(mkdir("a/in", 0755));
  SYS(symlink("b", "l"));
  CHECK_ERRNO(move_to(AT_FDCWD, "a", AT_FDCWD, "f", 0), EINVAL);
  CHECK_ERRNO(move_to(AT_FDCWD, "a", AT_FDCWD, "a/in", 0), ELOOP);
  CHECK_ERRNO(move_to(AT_FDCWD, "a", AT_FDCWD, "l", 0), EINVAL); /* the link itself */
  SYS(move_to(AT_FDCWD, "a", AT_FDCWD, "l", 0x10));              /* T_SYMLINKS */
  CHECK_EQ(mount_count_at("b"), 1);
  int to = (int)SYS(open("a", O_PATH));
  SYS(move_to(AT_FDCWD, "b", to, "", T_EMPTY));
  CHECK_EQ(mount_count_at("a"), 1);
  make(here(""), MS_SHARED);
  CHECK_ERRNO(move_to(AT_FDCWD, "a", AT_FDCWD, "b", 0), EINVAL);
  int m = detached();
  SYS(move_to(m, "", AT_FDCWD, "b", F_EMPTY)); /* below a shared mount: shared */
  CHECK(the_mount("b").shared > 0);
}

SHARED_TEST(api_set_group) {
  SYS(mkdir("a", 0755));
  SYS(mkdir("b", 0755));
  SYS(mkdir("c", 0755));
  new_tmpfs("a");
  SYS(mkdir("a/m", 0755));
  bind_to("a", "b");
  new_tmpfs("c");
  CHECK_ERRNO(move_to(AT_FDCWD, "a", AT_FDCWD, "b", SET_GROUP), EINVAL); /* not shared */
  make("a", MS_SHARED);
  CHECK_ERRNO(move_to(AT_FDCWD, "a", AT_FDCWD, "c", SET_GROUP), EINVAL); /* another filesystem */
  SYS(move_to(AT_FDCWD, "a", AT_FDCWD, "b", SET_GROUP));
  CHECK_EQ(the_mount("a").shared, the_mount("b").shared);
  new_tmpfs("a/m");
  CHECK_EQ(mount_count_at("b/m"), 1);
  CHECK_ERRNO(move_to(AT_FDCWD, "a", AT_FDCWD, "b", SET_GROUP), EINVAL); /* has one now */
}

SHARED_TEST(api_setattr) {
  Attr a = {.set = ATTR_RDONLY | ATTR_NOSUID};
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/sub", 0755));
  new_tmpfs("d/sub");
  SYS(setattr(AT_FDCWD, "d", 0, &a, sizeof a));
  CHECK_STR(the_mount("d").options, "ro,nosuid,relatime");
  CHECK_STR(the_mount("d/sub").options, "rw,relatime");
  CHECK_ERRNO(mkdir("d/x", 0755), EROFS);
  a = (Attr){.set = ATTR_NOATIME, .clear = ATTR_RDONLY | ATTR_ATIME};
  SYS(setattr(AT_FDCWD, "d", RECURSIVE, &a, sizeof a));
  CHECK_STR(the_mount("d").options, "rw,nosuid,noatime");
  CHECK_STR(the_mount("d/sub").options, "rw,noatime");
  a = (Attr){.set = ATTR_STRICT, .clear = ATTR_ATIME};
  SYS(setattr(AT_FDCWD, "d", 0, &a, sizeof a));
  CHECK_STR(the_mount("d").options, "rw,nosuid");
  a = (Attr){.set = ATTR_NOEXEC};
  SYS(setattr(AT_FDCWD, "d", 0, &a, sizeof a));
  CHECK_STR(the_mount("d").options, "rw,nosuid,noexec"); /* still strict */
  a = (Attr){.clear = ATTR_ATIME};
  SYS(setattr(AT_FDCWD, "d", 0, &a, sizeof a)); /* RELATIME is 0 */
  CHECK_STR(the_mount("d").options, "rw,nosuid,noexec,relatime");
  a = (Attr){.propagation = MS_SHARED};
  SYS(setattr(AT_FDCWD, "d", RECURSIVE, &a, sizeof a));
  CHECK(the_mount("d").shared > 0 && the_mount("d/sub").shared > 0);
  /* All or nothing. */
  int fd = (int)SYS(open("d/sub/f", O_CREAT | O_WRONLY, 0644));
  a = (Attr){.set = ATTR_RDONLY};
  CHECK_ERRNO(setattr(AT_FDCWD, "d", RECURSIVE, &a, sizeof a), EBUSY);
  CHECK(strncmp(the_mount("d").options, "rw", 2) == 0);
  SYS(close(fd));
  CHECK_EQ(setattr(AT_FDCWD, "d", RECURSIVE, &a, sizeof a), 0);
  int m = detached();
  SYS(setattr(m, "", AT_EMPTY_PATH, &a, sizeof a));
  CHECK_ERRNO(mkdirat(m, "x", 0755), EROFS);
}

MOUNT_TEST(api_setattr_arguments) {
  union {
    Attr a;
    char bytes[8192];
  } u;
  memset(&u, 0, sizeof u);
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/plain", 0755));
  CHECK_EQ(setattr(AT_FDCWD, "nope", 0, &u, sizeof(Attr)), 0); /* nothing to do: nothing is looked at */
  u.a.set = 1;
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, 31), EINVAL);
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, 8192), E2BIG);
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 2, &u, sizeof(Attr)), EINVAL);
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, NULL, sizeof(Attr)), EFAULT);
  CHECK_ERRNO(setattr(AT_FDCWD, "d/plain", 0, &u, sizeof(Attr)), EINVAL);
  CHECK_ERRNO(setattr(AT_FDCWD, "nope", 0, &u, sizeof(Attr)), ENOENT);
  CHECK_EQ(setattr(AT_FDCWD, "d", 0, &u, 4096), 0); /* zeros behind what is known */
  u.bytes[100] = 1;
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, 4096), E2BIG);
  u.a = (Attr){.set = ATTR_NOATIME};
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, sizeof(Attr)), EINVAL); /* times are cleared first */
  u.a = (Attr){.set = 0x30, .clear = ATTR_ATIME};
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, sizeof(Attr)), EINVAL);
  u.a = (Attr){.clear = 0x10};
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, sizeof(Attr)), EINVAL);
  u.a = (Attr){.set = 1ull << 40};
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, sizeof(Attr)), EINVAL);
  u.a = (Attr){.propagation = MS_SHARED | MS_SLAVE};
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, sizeof(Attr)), EINVAL);
  u.a = (Attr){.propagation = MS_RDONLY};
  CHECK_ERRNO(setattr(AT_FDCWD, "d", 0, &u, sizeof(Attr)), EINVAL);
}

/* Descriptors of other namespaces' mounts are no way in. */
SHARED_TEST(api_other_namespaces) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  new_tmpfs("d");
  int fd = (int)SYS(open("d", O_PATH)), dir = (int)SYS(open("e", O_PATH));
  Attr a = {.set = ATTR_RDONLY};
  WAIT_OK(CHILD(SYS(unshare(CLONE_NEWNS)); CHECK_ERRNO(tree(fd, "", CLONE_TREE | AT_EMPTY_PATH), EINVAL);
                CHECK_ERRNO(move_to(fd, "", AT_FDCWD, "e", F_EMPTY), EINVAL);
                CHECK_ERRNO(move_to(AT_FDCWD, "d", dir, "", T_EMPTY), EINVAL);
                CHECK_ERRNO(setattr(fd, "", AT_EMPTY_PATH, &a, sizeof a), EINVAL); char path[64];
                snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
                CHECK_ERRNO(mount(path, "e", NULL, MS_BIND, NULL), EINVAL);
                CHECK_ERRNO(mount("x", path, "tmpfs", 0, NULL), EINVAL);
                CHECK_ERRNO(umount2(path, MNT_DETACH), EINVAL);
                CHECK_EQ(mount(NULL, path, NULL, MS_SHARED, NULL), 0);
                CHECK_ERRNO(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL), EINVAL)));
}
