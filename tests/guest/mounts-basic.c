/* SPDX-License-Identifier: Apache-2.0 */
/* mounts-basic.c - mount(2), umount(2): errors, flags of mounts and what they forbid, binding, moving, stacks, expiry. */
#include "mounts.h"

#include <sys/statfs.h>

MOUNT_TEST(errors) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  SYS(close(SYS(creat("f", 0644))));
  CHECK_ERRNO(mount("x", "d", "nosuchfs", 0, NULL), ENODEV);
  CHECK_ERRNO(mount("x", "nope", "tmpfs", 0, NULL), ENOENT);
  CHECK_ERRNO(mount("x", "d", NULL, 0, NULL), EINVAL);
  CHECK_ERRNO(mount("x", "f", "tmpfs", 0, NULL), ENOTDIR);
  CHECK_ERRNO(mount("x", "d", "tmpfs", 0, "nosuchoption=1"), EINVAL);
  CHECK_ERRNO(mount("f", "d", NULL, MS_BIND, NULL), ENOTDIR);
  CHECK_ERRNO(mount("d", "f", NULL, MS_BIND, NULL), ENOTDIR);
  CHECK_ERRNO(mount("nope", "d", NULL, MS_BIND, NULL), ENOENT);
  CHECK_ERRNO(mount("d", "e", NULL, MS_MOVE, NULL), EINVAL); /* not a mount */
  CHECK_ERRNO(umount("d"), EINVAL);
  CHECK_ERRNO(umount("nope"), ENOENT);
  CHECK_ERRNO(umount2("d", 0x100), EINVAL);
  CHECK_ERRNO(umount2("d", MNT_EXPIRE | MNT_DETACH), EINVAL);
  CHECK_ERRNO(umount2("d", MNT_EXPIRE | MNT_FORCE), EINVAL);
  CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT, NULL), EINVAL);
  CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND, NULL), EINVAL);
  CHECK_ERRNO(mount(NULL, "d", NULL, MS_SHARED, NULL), EINVAL); /* not a mount */
  CHECK_ERRNO(mount(NULL, here(""), NULL, MS_SHARED | MS_SLAVE, NULL), EINVAL);
  CHECK_ERRNO(mount(NULL, here(""), NULL, MS_SHARED | MS_RDONLY, NULL), EINVAL);
  CHECK_ERRNO(mount("x", (void *)8, "tmpfs", 0, NULL), EFAULT);
  CHECK_ERRNO(mount("x", "d", (void *)8, 0, NULL), EFAULT);
}

MOUNT_TEST(unprivileged) {
  SYS(mkdir("d", 0777));
  new_tmpfs("d");
  WAIT_OK(CHILD(SYS(setuid(1000)); CHECK_ERRNO(mount("x", "d", "tmpfs", 0, NULL), EPERM);
                CHECK_ERRNO(umount("d"), EPERM); CHECK_ERRNO(chroot("d"), EPERM);
                CHECK_ERRNO(syscall(SYS_pivot_root, ".", "."), EPERM);
                CHECK_ERRNO(unshare(CLONE_NEWNS), EPERM)));
}

MOUNT_TEST(stack_on_one_place) {
  SYS(mkdir("d", 0755));
  for (int i = 0; i < 20; i++) {
    char name[16];
    new_tmpfs("d");
    snprintf(name, sizeof name, "d/%d", i);
    SYS(mkdir(name, 0755));
  }
  CHECK_EQ(mount_count_at("d"), 20);
  for (int i = 19; i >= 0; i--) {
    char name[16];
    snprintf(name, sizeof name, "d/%d", i);
    CHECK(is_there(name));
    SYS(umount("d"));
  }
  CHECK_ERRNO(umount("d"), EINVAL);
  CHECK_EQ(rmdir("d"), 0);
}

/* A working directory below a new mount stays what it was; ".." of the top one leads out at the bottom. */
MOUNT_TEST(cwd_under_a_new_mount) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("d/in", 0755));
  SYS(chdir("d"));
  new_tmpfs("../d");
  CHECK(is_there("in"));
  CHECK(!is_there("../d/in"));
  new_tmpfs("../d");
  SYS(mkdir("../d/top", 0755));
  SYS(chdir("../d"));
  CHECK(is_there("top"));
  SYS(chdir(".."));
  CHECK(is_there("d/top"));
}

MOUNT_TEST(busy) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/sub", 0755));
  int fd = (int)SYS(open("d", O_RDONLY | O_DIRECTORY));
  CHECK_ERRNO(umount("d"), EBUSY);
  SYS(close(fd));
  fd = (int)SYS(open("d", O_PATH));
  CHECK_ERRNO(umount("d"), EBUSY);
  SYS(close(fd));
  SYS(chdir("d/sub"));
  CHECK_ERRNO(umount(here("d")), EBUSY);
  SYS(chdir(here("")));
  fd = (int)SYS(open("d/f", O_RDWR | O_CREAT, 0644));
  SYS(ftruncate(fd, 4096));
  void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(p != MAP_FAILED);
  SYS(close(fd));
  CHECK_ERRNO(umount("d"), EBUSY);
  SYS(munmap(p, 4096));
  new_tmpfs("d/sub");
  CHECK_ERRNO(umount("d"), EBUSY); /* a mount is in it */
  SYS(umount("d/sub"));
  CHECK_EQ(umount("d"), 0);
  CHECK_ERRNO(rmdir(here("")), EBUSY);
}

MOUNT_TEST(names_of_mountpoints_are_kept) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  SYS(close(SYS(creat("f", 0644))));
  SYS(close(SYS(creat("g", 0644))));
  new_tmpfs("d");
  bind_to("f", "g");
  CHECK_ERRNO(rmdir("d"), EBUSY);
  CHECK_ERRNO(rename("d", "x"), EBUSY);
  CHECK_ERRNO(rename("e", "d"), EBUSY);
  CHECK_ERRNO(unlink("g"), EBUSY);
  CHECK_ERRNO(rename("f", "g"), EBUSY);
  CHECK_ERRNO(link("f", "d/f"), EXDEV);
  CHECK_ERRNO(rename("f", "d/f"), EXDEV);
  SYS(umount("g"));
  SYS(umount("d"));
  CHECK_EQ(rmdir("d"), 0);
  CHECK_EQ(unlink("g"), 0);
}

/* unlink(2), rename(2), EBUSY: only where the caller sees the mount; elsewhere it is taken off. */
MOUNT_TEST(mountpoint_removed_from_another_namespace) {
  int go[2], done[2];
  char c;
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  SYS(mkdir("old", 0755));
  SYS(close(SYS(creat("f", 0644))));
  SYS(pipe(go));
  SYS(pipe(done));
  pid_t pid = CHILD(
      SYS(unshare(CLONE_NEWNS)); new_tmpfs("d"); new_tmpfs("e"); new_tmpfs("old"); SYS(mkdir("old/in", 0755));
      bind_to("/dev/null", "f"); SYS(chdir("e")); write_full(done[1], "x", 1); read_full(go[0], &c, 1);
      CHECK_EQ(mount_count_at("d"), 0); CHECK(!is_there(here("d"))); CHECK(!is_there(here("f")));
      CHECK_EQ(mount_count_at("e"), 0); CHECK(is_there(here("new/in"))); CHECK_EQ(mount_count_at("new"), 1);
      CHECK_EQ(mount_count_at("old"), 0); CHECK_OK(mkdir("still", 0755)));
  read_full(done[0], &c, 1);
  CHECK_EQ(rmdir("d"), 0);
  CHECK_EQ(unlink("f"), 0);
  SYS(mkdir("repl", 0755));
  CHECK_EQ(rename("repl", "e"), 0); /* what is replaced goes */
  CHECK_EQ(rename("old", "new"), 0);
  write_full(go[1], "x", 1);
  WAIT_OK(pid);
}

/* ---- Flags ---- */

MOUNT_TEST(read_only_bind) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("ro", 0755));
  new_tmpfs("d");
  SYS(close(SYS(creat("d/f", 0644))));
  bind_to("d", "ro");
  SYS(mount(NULL, "ro", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
  CHECK_ERRNO(open("ro/f", O_WRONLY), EROFS);
  CHECK_ERRNO(open("ro/new", O_WRONLY | O_CREAT, 0644), EROFS);
  CHECK_ERRNO(mkdir("ro/new", 0755), EROFS);
  CHECK_ERRNO(unlink("ro/f"), EROFS);
  CHECK_ERRNO(rename("ro/f", "ro/g"), EROFS);
  CHECK_ERRNO(symlink("x", "ro/l"), EROFS);
  CHECK_ERRNO(link("ro/f", "ro/h"), EROFS);
  CHECK_ERRNO(mknod("ro/p", S_IFIFO | 0644, 0), EROFS);
  CHECK_ERRNO(chmod("ro/f", 0600), EROFS);
  CHECK_ERRNO(chown("ro/f", 1, 1), EROFS);
  CHECK_ERRNO(truncate("ro/f", 1), EROFS);
  CHECK_ERRNO(utimensat(AT_FDCWD, "ro/f", NULL, 0), EROFS);
  CHECK_ERRNO(access("ro/f", W_OK), EROFS);
  CHECK_ERRNO(open("ro", O_TMPFILE | O_RDWR, 0600), EROFS);
  CHECK_EQ(access("ro/f", R_OK), 0);
  CHECK_ERRNO(mkdir("ro/f", 0755), EEXIST);
  /* The other view stays writable. */
  CHECK_OK(close(CHECK_OK(open("d/f", O_WRONLY))));
  struct statfs s;
  SYS(statfs("ro", &s));
  CHECK(s.f_flags & 1);
  SYS(statfs("d", &s));
  CHECK(!(s.f_flags & 1));
  CHECK(strncmp(the_mount("ro").options, "ro", 2) == 0);
  CHECK(strncmp(the_mount("ro").super, "rw", 2) == 0);
  SYS(mount(NULL, "ro", NULL, MS_REMOUNT | MS_BIND, NULL));
  CHECK_OK(close(CHECK_OK(open("ro/f", O_WRONLY))));
}

MOUNT_TEST(read_only_filesystem) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  new_tmpfs("d");
  bind_to("d", "e");
  int fd = (int)SYS(open("d/f", O_CREAT | O_WRONLY, 0644));
  CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT | MS_RDONLY, NULL), EBUSY);
  CHECK_ERRNO(mount(NULL, "e", NULL, MS_REMOUNT | MS_RDONLY, NULL), EBUSY);
  CHECK_ERRNO(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), EBUSY);
  CHECK_EQ(mount(NULL, "e", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0); /* written through d only */
  SYS(close(fd));
  SYS(mount(NULL, "d", NULL, MS_REMOUNT | MS_RDONLY, NULL));
  SYS(mount(NULL, "e", NULL, MS_REMOUNT | MS_BIND, NULL));
  CHECK_ERRNO(open("e/f", O_WRONLY), EROFS); /* the filesystem is read-only wherever it is mounted */
  CHECK(strncmp(the_mount("e").options, "rw", 2) == 0);
  CHECK(strncmp(the_mount("e").super, "ro", 2) == 0);
  SYS(mount(NULL, "d", NULL, MS_REMOUNT, NULL));
  CHECK_OK(close(CHECK_OK(open("e/f", O_WRONLY))));
}

static void copy_self(const char *to, mode_t mode) {
  size_t n;
  char *image = read_file("/proc/self/exe", &n);
  REQUIRE(image != NULL);
  write_file(to, image, n, mode);
  free(image);
}

HELPER(ids) {
  printf("%d %d\n", (int)geteuid(), (int)getegid());
  return geteuid() == 1234 ? 42 : 41;
}

static int run_copy(const char *path) {
  pid_t pid = (pid_t)SYS(fork());
  if (pid == 0) {
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    execl(path, path, "--helper", "ids", NULL);
    _exit(errno == EACCES ? 13 : 99);
  }
  int status = check_wait(pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

MOUNT_TEST(noexec_and_nosuid) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  copy_self("d/prog", 0755);
  SYS(chown("d/prog", 1234, 1234));
  SYS(chmod("d/prog", 06755));
  CHECK_EQ(run_copy("d/prog"), 42);
  SYS(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID, NULL));
  CHECK_EQ(run_copy("d/prog"), 41);
  SYS(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_NOEXEC, NULL));
  CHECK_EQ(run_copy("d/prog"), 13);
  CHECK_ERRNO(access("d/prog", X_OK), EACCES);
  CHECK_EQ(access("d", X_OK), 0);
  int fd = (int)SYS(open("d/prog", O_RDONLY));
  CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EPERM);
  void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  REQUIRE(p != MAP_FAILED);
  CHECK_ERRNO(mprotect(p, 4096, PROT_READ | PROT_EXEC), EACCES);
}

MOUNT_TEST(nodev) {
  SYS(close(SYS(creat("null", 0644))));
  bind_to("/dev/null", "null");
  CHECK_OK(close(CHECK_OK(open("null", O_RDWR))));
  SYS(mount(NULL, "null", NULL, MS_REMOUNT | MS_BIND | MS_NODEV, NULL));
  CHECK_ERRNO(open("null", O_RDWR), EACCES);
  CHECK_OK(close(CHECK_OK(open("null", O_PATH))));
  CHECK_OK(close(CHECK_OK(open("/dev/null", O_RDWR))));
}

MOUNT_TEST(nosymfollow) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(close(SYS(creat("d/f", 0644))));
  SYS(symlink("f", "d/l"));
  SYS(symlink("d/f", "outer"));
  SYS(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | MS_NOSYMFOLLOW, NULL));
  CHECK_ERRNO(open("d/l", O_RDONLY), ELOOP);
  char buf[8];
  CHECK_EQ(readlink("d/l", buf, 8), 1);
  CHECK_OK(close(CHECK_OK(open("outer", O_RDONLY)))); /* the link is on another mount */
  CHECK(strstr(the_mount("d").options, "nosymfollow") != NULL);
}

static const char *options_after(unsigned long flags) {
  static char text[256];
  SYS(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND | flags, NULL));
  snprintf(text, sizeof text, "%s", the_mount("d").options);
  return text;
}

MOUNT_TEST(flags_as_mountinfo_shows_them) {
  SYS(mkdir("d", 0755));
  SYS(mount("a b", "d", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
  CHECK_STR(the_mount("d").options, "rw,nosuid,nodev,noexec,relatime");
  CHECK_STR(the_mount("d").source, "a\\040b");
  CHECK_STR(the_mount("d").type, "tmpfs");
  CHECK_STR(the_mount("d").root, "/");
  CHECK_STR(options_after(MS_NOATIME), "rw,noatime");
  CHECK_STR(options_after(0), "rw,noatime"); /* times stay when nothing is said about them */
  CHECK_STR(options_after(MS_STRICTATIME), "rw");
  CHECK_STR(options_after(MS_RDONLY), "ro");
  CHECK_STR(options_after(MS_NODIRATIME), "rw,nodiratime,relatime");
  CHECK_STR(options_after(MS_RELATIME | MS_NOSUID), "rw,nosuid,relatime");
}

static struct timespec atime_after_read(const char *path) {
  struct stat st;
  char c;
  struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 900}};
  SYS(utimensat(AT_FDCWD, path, old, 0));
  int fd = (int)SYS(open(path, O_RDONLY));
  SYS(read(fd, &c, 1));
  SYS(close(fd));
  SYS(stat(path, &st));
  return st.st_atim;
}

MOUNT_TEST(access_times) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  write_file("d/f", "x", 1, 0644);
  options_after(MS_STRICTATIME);
  CHECK(atime_after_read("d/f").tv_sec > 1000);
  options_after(MS_NOATIME);
  CHECK_EQ(atime_after_read("d/f").tv_sec, 1000);
  /* relatime: older than a day is brought up to date, whatever the other times say. */
  options_after(MS_RELATIME);
  CHECK(atime_after_read("d/f").tv_sec > 1000);
  SYS(mkdir("b", 0755));
  bind_to("d", "b"); /* each mount has its own rule */
  SYS(mount(NULL, "b", NULL, MS_REMOUNT | MS_BIND | MS_NOATIME, NULL));
  CHECK_EQ(atime_after_read("b/f").tv_sec, 1000);
  CHECK(atime_after_read("d/f").tv_sec > 1000);
}

/* ---- Binding and moving ---- */

MOUNT_TEST(bind_parts) {
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/sub", 0755));
  SYS(mkdir("d/sub/deep", 0755));
  new_tmpfs("d/sub/deep");
  SYS(close(SYS(creat("d/sub/deep/x", 0644))));
  bind_to("d/sub", "e");
  CHECK_STR(the_mount("e").root, "/sub");
  CHECK(is_there("e/deep") && !is_there("e/deep/x")); /* not recursive */
  SYS(umount("e"));
  SYS(mount("d/sub", "e", NULL, MS_BIND | MS_REC, NULL));
  CHECK(is_there("e/deep/x"));
  CHECK_EQ(mount_count_at("e/deep"), 1);
  CHECK_EQ(the_mount("e/deep").parent, the_mount("e").id);
  CHECK_ERRNO(umount("e"), EBUSY);
  SYS(umount2("e", MNT_DETACH));
  CHECK_EQ(mount_count_at("e/deep"), 0);
  /* ".." of a bound directory's root is where it is bound. */
  bind_to("d/sub", "e");
  struct stat a, b;
  SYS(stat("e/..", &a));
  SYS(stat(".", &b));
  CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
  SYS(close(SYS(creat("file", 0644))));
  SYS(close(SYS(creat("other", 0644))));
  write_file("file", "bound", 5, 0644);
  bind_to("file", "other");
  char *text = read_file("other", NULL);
  CHECK_STR(text, "bound");
  free(text);
}

SHARED_TEST(move) {
  SYS(mkdir("a", 0755));
  SYS(mkdir("b", 0755));
  new_tmpfs("a");
  SYS(mkdir("a/in", 0755));
  new_tmpfs("a/in");
  SYS(mkdir("a/in/deep", 0755));
  int id = the_mount("a").id;
  CHECK_ERRNO(mount("a", "a/in/deep", NULL, MS_MOVE, NULL), ELOOP);
  CHECK_ERRNO(mount("a", "a", NULL, MS_MOVE, NULL), ELOOP);
  SYS(mount("a", "b", NULL, MS_MOVE, NULL));
  CHECK(!is_there("a/in") && is_there("b/in/deep"));
  CHECK_EQ(the_mount("b").id, id);
  CHECK_EQ(the_mount("b/in").parent, id);
  SYS(close(SYS(creat("f", 0644))));
  CHECK_ERRNO(mount("b", "f", NULL, MS_MOVE, NULL), EINVAL);
  /* A mount whose parent is shared cannot be moved away from it. */
  make(here(""), MS_SHARED);
  CHECK_ERRNO(mount("b", "a", NULL, MS_MOVE, NULL), EINVAL);
  make(here(""), MS_PRIVATE);
  CHECK_EQ(mount("b", "a", NULL, MS_MOVE, NULL), 0);
}

MOUNT_TEST(detach_keeps_what_is_open) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  write_file("d/f", "alive", 5, 0644);
  SYS(mkdir("d/sub", 0755));
  new_tmpfs("d/sub");
  int fd = (int)SYS(open("d/f", O_RDONLY)), dir = (int)SYS(open("d", O_RDONLY | O_DIRECTORY));
  SYS(umount2("d", MNT_DETACH));
  char buf[8] = "";
  CHECK_EQ(read(fd, buf, 8), 5);
  CHECK_STR(buf, "alive");
  CHECK_OK(mkdirat(dir, "new", 0755));
  CHECK(!is_there("d/f"));
  /* What was mounted in it is no longer: the directory below shows. */
  CHECK_OK(mkdirat(dir, "sub/x", 0755));
  CHECK_ERRNO(umount("d"), EINVAL);
  SYS(fchdir(dir));
  CHECK_EQ(chdir(".."), 0); /* the top of a detached tree is its own parent */
  CHECK(is_there("new"));
  CHECK(mount("x", "new", "tmpfs", 0, NULL) < 0 && (errno == EINVAL || errno == ENOENT));
}

MOUNT_TEST(expire) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/x", 0755));
  CHECK_ERRNO(umount2("d", MNT_EXPIRE), EAGAIN);
  SYS(close(SYS(open("d", O_RDONLY)))); /* use takes the mark back */
  CHECK_ERRNO(umount2("d", MNT_EXPIRE), EAGAIN);
  struct stat st;
  SYS(stat("d/x", &st));
  CHECK_ERRNO(umount2("d", MNT_EXPIRE), EAGAIN);
  int fd = (int)SYS(open("d", O_RDONLY));
  CHECK_ERRNO(umount2("d", MNT_EXPIRE), EBUSY);
  SYS(close(fd));
  CHECK_ERRNO(umount2("d", MNT_EXPIRE), EAGAIN);
  CHECK_EQ(umount2("d", MNT_EXPIRE), 0);
  CHECK_ERRNO(umount2("/", MNT_EXPIRE), EINVAL);
}

MOUNT_TEST(umount_nofollow) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(symlink("d", "l"));
  CHECK_ERRNO(umount2("l", UMOUNT_NOFOLLOW), EINVAL);
  CHECK_EQ(mount_count_at("d"), 1);
  CHECK_EQ(umount("l"), 0);
  CHECK_EQ(mount_count_at("d"), 0);
}

MOUNT_TEST_LIMIT(deep_stack, 60) {
  /* As deep as PATH_MAX is generous with, each in the one before. */
  char path[4096] = "";
  int n = 1200;
  int depth = (int)SYS(open(".", O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < n; i++) {
    SYS(mkdir("d", 0755));
    new_tmpfs("d");
    SYS(chdir("d"));
  }
  SYS(mkdir("bottom", 0755));
  struct stat a, b;
  SYS(fstat(depth, &a));
  for (int i = 0; i < n; i++)
    SYS(chdir(".."));
  SYS(stat(".", &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  SYS(mkdir("copy", 0755));
  SYS(mount("d", "copy", NULL, MS_BIND | MS_REC, NULL));
  CHECK(mount_count() > 2 * n);
  SYS(umount2("copy", MNT_DETACH));
  WAIT_OK(CHILD(SYS(unshare(CLONE_NEWNS)); SYS(umount2("d", MNT_DETACH))));
  for (int i = 0; i < 1000; i++)
    strcat(path, "d/");
  strcat(path, "..");
  CHECK_OK(chdir(path));
  SYS(fchdir(depth));
  SYS(umount2("d", MNT_DETACH));
  CHECK_EQ(mount_count_at("d"), 0);
}
