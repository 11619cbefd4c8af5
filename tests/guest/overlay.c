/* SPDX-License-Identifier: Apache-2.0 */
/* overlay.c - overlayfs as its documentation describes it: merging, copy-up, mounting. overlay-names.c has the rest. */
#include "overlay.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

const char *ov_names(const char *name) {
  static char text[4096];
  char *all[256];
  int n = 0;
  DIR *d = opendir(ov(name));
  text[0] = 0;
  if (!d)
    return "(none)";
  for (struct dirent *e; (e = readdir(d)) && n < 256;)
    if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
      all[n++] = strdup(e->d_name);
  closedir(d);
  qsort(all, (size_t)n, sizeof *all, by_name);
  for (int i = 0; i < n; i++) {
    strcat(text, i ? " " : "");
    strcat(text, all[i]);
    free(all[i]);
  }
  return text;
}

/* ---- Merging ---- */

TEST(merged_directory) {
  ov_setup();
  put("l/a", "low");
  put("l/both", "low");
  put("u/both", "up");
  put("u/z", "up");
  SYS(mkdir(ov("l/d"), 0755));
  SYS(mkdir(ov("u/d"), 0755));
  put("l/d/1", "low");
  put("u/d/2", "up");
  ov_mount(NULL);
  CHECK_STR(ov_names("m"), "a both d z");
  CHECK_STR(ov_names("m/d"), "1 2");
  CHECK(has_text("m/both", "up"));
  CHECK(has_text("m/a", "low"));
  struct stat st;
  SYS(stat(ov("m/d"), &st));
  CHECK_EQ(st.st_nlink, 1);
  struct statfs fs;
  SYS(statfs(ov("m"), &fs));
  CHECK_EQ(fs.f_type, 0x794c7630);
  ov_down();
}

/* d_ino is what stat says, before and after a copy-up; "." and ".." are there once. */
TEST(directory_numbers) {
  ov_setup();
  put("l/a", "low");
  SYS(mkdir(ov("l/d"), 0755));
  put("l/d/f", "low");
  put("u/u", "up");
  ov_mount(NULL);
  for (int round = 0; round < 2; round++) {
    int dots = 0;
    DIR *d = opendir(ov("m"));
    REQUIRE(d != NULL);
    for (struct dirent *e; (e = readdir(d));) {
      struct stat st;
      SYS(fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW));
      if (!strcmp(e->d_name, "."))
        dots |= CHECK_EQ(dots & 1, 0) ? 1 : 0;
      else if (!strcmp(e->d_name, ".."))
        dots |= 2;
      else
        CHECK_EQ(e->d_ino, st.st_ino);
    }
    CHECK_EQ(dots, 3);
    closedir(d);
    SYS(chmod(ov("m/a"), 0600));
    SYS(chmod(ov("m/d/f"), 0600));
    SYS(chmod(ov("m/d"), 0700));
  }
  ov_down();
}

/* A position of telldir leads to the same entry; what is removed and made meanwhile does no harm; rewinddir sees it. */
TEST(directory_positions) {
  ov_setup();
  char name[32];
  for (int i = 0; i < 60; i++) {
    snprintf(name, sizeof name, "%c/f%d", "lu"[i & 1], i);
    put(name, "x");
  }
  ov_mount(NULL);
  DIR *d = opendir(ov("m"));
  REQUIRE(d != NULL);
  for (int i = 0; i < 20; i++)
    readdir(d);
  long at = telldir(d);
  struct dirent *e = readdir(d);
  REQUIRE(e != NULL);
  char kept[256];
  strcpy(kept, e->d_name);
  while (readdir(d))
    ;
  seekdir(d, at);
  e = readdir(d);
  CHECK(e && strcmp(e->d_name, kept) == 0);
  snprintf(name, sizeof name, "m/f%d", 7);
  SYS(unlink(ov(name)));
  put("m/new", "x");
  rewinddir(d);
  int n = 0, seen = 0;
  while ((e = readdir(d))) {
    n++;
    seen += !strcmp(e->d_name, "new");
    CHECK(strcmp(e->d_name, "f7") != 0);
  }
  CHECK_EQ(n, 62);
  CHECK_EQ(seen, 1);
  closedir(d);
  ov_down();
}

/* rm -r reads a directory while it empties it. */
TEST(remove_while_reading) {
  ov_setup();
  char name[32];
  SYS(mkdir(ov("l/d"), 0755));
  for (int i = 0; i < 700; i++) {
    snprintf(name, sizeof name, "l/d/file%d", i);
    put(name, "");
  }
  ov_mount(NULL);
  DIR *d = opendir(ov("m/d"));
  REQUIRE(d != NULL);
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.')
      CHECK_OK(unlinkat(dirfd(d), e->d_name, 0));
  closedir(d);
  CHECK_OK(rmdir(ov("m/d")));
  CHECK(is_whiteout("u/d"));
  ov_down();
}

TEST(several_lowers) {
  ov_setup();
  put("l/a", "top");
  put("l2/a", "bottom");
  put("l2/b", "bottom");
  put("l2/gone", "bottom");
  SYS(mknod(ov("l/gone"), S_IFCHR, 0));
  SYS(mkdir(ov("l/op"), 0755));
  SYS(mkdir(ov("l2/op"), 0755));
  put("l2/op/hidden", "bottom");
  SYS(setxattr(ov("l/op"), "trusted.overlay.opaque", "y", 1, 0));
  char lower[512];
  snprintf(lower, sizeof lower, "%s:%s", ov("l"), ov("l2"));
  if (ov_mount_at(ov("m"), lower, NULL, NULL) != 0 && errno == ENODEV)
    SKIP("no overlayfs");
  CHECK_STR(ov_names("m"), "a b op");
  CHECK(has_text("m/a", "top"));
  CHECK(!exists("m/gone"));
  CHECK_STR(ov_names("m/op"), "");
  CHECK_ERRNO(open(ov("m/new"), O_CREAT | O_WRONLY, 0644), EROFS);
  CHECK_ERRNO(chmod(ov("m/a"), 0600), EROFS);
  CHECK_ERRNO(unlink(ov("m/a")), EROFS);
  CHECK_ERRNO(open(ov("m/a"), O_RDWR), EROFS);
  SYS(umount(ov("m")));
  SYS(ov_mount_at(ov("m"), lower, ov("u"), NULL));
  SYS(unlink(ov("m/b")));
  CHECK(is_whiteout("u/b"));
  CHECK_STR(ov_names("m"), "a op");
  ov_down();
}

/* ---- Copy-up ---- */

static void check_copied(const char *what, mode_t mode) {
  struct stat st;
  char buf[32];
  SYS(stat(ov("m/d/f"), &st));
  if (!CHECK_EQ(st.st_mode & 07777, mode) || !CHECK_EQ(st.st_uid, 12) || !CHECK_EQ(st.st_gid, 34))
    check_fail(__FILE__, __LINE__, "after %s", what);
  CHECK_EQ(getxattr(ov("m/d/f"), "user.colour", buf, sizeof buf), 4);
  CHECK(exists("u/d/f"));
  CHECK(has_text("l/d/f", "content"));
}

static void lower_file(void) {
  SYS(mkdir(ov("l/d"), 0750));
  put("l/d/f", "content");
  SYS(chown(ov("l/d/f"), 12, 34));
  SYS(chmod(ov("l/d/f"), 0640));
  SYS(chown(ov("l/d"), 56, 78));
  SYS(chmod(ov("l/d"), 02750));
  SYS(setxattr(ov("l/d/f"), "user.colour", "blue", 4, 0));
  struct timespec t[2] = {{1000000, 1}, {2000000, 2}};
  SYS(utimensat(AT_FDCWD, ov("l/d/f"), t, 0));
  SYS(utimensat(AT_FDCWD, ov("l/d"), t, 0));
}

#define COPY_UP_CASE(name_, mode_, ...)  \
  TEST(copy_up_##name_) {                \
    ov_setup();                          \
    lower_file();                        \
    ov_mount(NULL);                      \
    ino_t before = ino_of("m/d/f");      \
    ino_t dir_before = ino_of("m/d");    \
    __VA_ARGS__;                         \
    check_copied(#name_, mode_);         \
    struct stat st;                      \
    SYS(stat(ov("m/d"), &st));           \
    CHECK_EQ(st.st_mode & 07777, 02750); \
    CHECK_EQ(st.st_uid, 56);             \
    CHECK_EQ(st.st_gid, 78);             \
    CHECK_EQ(ino_of("m/d/f"), before);   \
    CHECK_EQ(ino_of("m/d"), dir_before); \
    struct stat top, in;                 \
    SYS(stat(ov("m"), &top));            \
    SYS(stat(ov("m/d/f"), &in));         \
    CHECK_EQ(top.st_dev, in.st_dev);     \
    ov_down();                           \
  }

COPY_UP_CASE(chmod, 0604, SYS(chmod(ov("m/d/f"), 0604)))
COPY_UP_CASE(chown, 0640, SYS(chown(ov("m/d/f"), 12, 34)))
COPY_UP_CASE(open_write, 0640, close((int)SYS(open(ov("m/d/f"), O_WRONLY))))
COPY_UP_CASE(setxattr, 0640, SYS(setxattr(ov("m/d/f"), "user.other", "x", 1, 0)))
COPY_UP_CASE(link, 0640, SYS(link(ov("m/d/f"), ov("m/d/g"))))
COPY_UP_CASE(rename, 0640, SYS(rename(ov("m/d/f"), ov("m/d/g"))); SYS(rename(ov("m/d/g"), ov("m/d/f"))))
COPY_UP_CASE(utimens, 0640, struct timespec t[2] = {{5, 0}, {6, 0}};
             SYS(utimensat(AT_FDCWD, ov("m/d/f"), t, 0)); struct stat s; SYS(stat(ov("m/d/f"), &s));
             CHECK_EQ(s.st_atime, 5); CHECK_EQ(s.st_mtime, 6))

/* Times of the file and of the directory above stay what they were when only the owner changes. */
TEST(copy_up_keeps_times) {
  ov_setup();
  lower_file();
  ov_mount(NULL);
  SYS(chown(ov("m/d/f"), 1, 1));
  struct stat st;
  SYS(stat(ov("m/d/f"), &st));
  CHECK_EQ(st.st_mtime, 2000000);
  CHECK_EQ(st.st_mtim.tv_nsec, 2);
  CHECK_EQ(st.st_size, 7);
  SYS(stat(ov("m/d"), &st));
  CHECK_EQ(st.st_mtime, 2000000);
  ov_down();
}

TEST(copy_up_keeps_data_and_holes) {
  ov_setup();
  int fd = (int)SYS(open(ov("l/f"), O_CREAT | O_RDWR, 0644));
  char block[8192];
  pattern_fill(block, sizeof block, 1);
  write_full(fd, block, sizeof block);
  SYS(pwrite(fd, block, sizeof block, 4 << 20));
  SYS(ftruncate(fd, 6 << 20));
  close(fd);
  ov_mount(NULL);
  fd = (int)SYS(open(ov("m/f"), O_RDWR));
  SYS(pwrite(fd, "X", 1, 0));
  struct stat st;
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 6 << 20);
  if (check_in_sandbox) { /* Linux copies up the holes of a tmpfs file as zeros */
    CHECK(st.st_blocks < 1024);
    CHECK_EQ(lseek(fd, 65536, SEEK_DATA), 4 << 20);
  }
  char got[8192];
  SYS(pread(fd, got, sizeof got, 4 << 20));
  CHECK(pattern_ok(got, sizeof got, 1));
  SYS(pread(fd, got, sizeof got, 2 << 20));
  CHECK(got[0] == 0 && memcmp(got, got + 1, sizeof got - 1) == 0);
  SYS(pread(fd, got, 2, 0));
  CHECK(got[0] == 'X' && got[1] == block[1]);
  close(fd);
  ov_down();
}

TEST(truncate_copies_what_is_left) {
  ov_setup();
  put("l/a", "0123456789");
  put("l/b", "0123456789");
  put("l/c", "0123456789");
  ov_mount(NULL);
  SYS(truncate(ov("m/a"), 3));
  CHECK(has_text("m/a", "012"));
  close((int)SYS(open(ov("m/b"), O_WRONLY | O_TRUNC)));
  CHECK(has_text("m/b", ""));
  int fd = (int)SYS(open(ov("m/c"), O_WRONLY | O_APPEND));
  write_full(fd, "ab", 2);
  close(fd);
  CHECK(has_text("m/c", "0123456789ab"));
  CHECK(has_text("l/a", "0123456789") && has_text("l/b", "0123456789") && has_text("l/c", "0123456789"));
  ov_down();
}

/* A descriptor opened for reading before the copy sees what is written afterwards; so does fstat. */
TEST(reader_follows_copy) {
  ov_setup();
  put("l/f", "old old");
  ov_mount(NULL);
  int r = (int)SYS(open(ov("m/f"), O_RDONLY));
  char buf[16] = "";
  SYS(pread(r, buf, 3, 0));
  int w = (int)SYS(open(ov("m/f"), O_RDWR));
  SYS(pwrite(w, "new", 3, 0));
  SYS(ftruncate(w, 5));
  SYS(pread(r, buf, sizeof buf - 1, 0));
  CHECK(memcmp(buf, "new o", 5) == 0);
  struct stat st;
  SYS(fstat(r, &st));
  CHECK_EQ(st.st_size, 5);
  /* One file: locks meet. */
  SYS(flock(r, LOCK_EX));
  CHECK_ERRNO(flock(w, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  SYS(fcntl(w, F_SETLK, &fl));
  WAIT_OK(CHILD({
    struct flock q = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    CHECK_ERRNO(fcntl(r, F_SETLK, &q), EAGAIN);
  }));
  close(r);
  close(w);
  ov_down();
}

TEST(shared_mapping_reaches_upper) {
  ov_setup();
  put("l/f", "0123456789");
  ov_mount(NULL);
  int fd = (int)SYS(open(ov("m/f"), O_RDWR));
  char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(p != MAP_FAILED);
  memcpy(p, "ABC", 3);
  CHECK(has_text("m/f", "ABC3456789"));
  SYS(pwrite(fd, "xyz", 3, 3));
  CHECK(memcmp(p, "ABCxyz6789", 10) == 0);
  SYS(munmap(p, PAGE));
  close(fd);
  CHECK(has_text("u/f", "ABCxyz6789"));
  CHECK(has_text("l/f", "0123456789"));
  ov_down();
}

/* Everything but regular files, and a deep path. */
TEST(copy_up_of_other_kinds) {
  ov_setup();
  SYS(mkdir(ov("l/1"), 0700));
  SYS(mkdir(ov("l/1/2"), 0711));
  SYS(mkdir(ov("l/1/2/3"), 0755));
  SYS(symlink("target", ov("l/1/2/3/s")));
  SYS(mkfifo(ov("l/1/2/3/p"), 0620));
  SYS(mknod(ov("l/1/2/3/n"), S_IFCHR | 0606, makedev(1, 3)));
  ov_mount(NULL);
  SYS(lchown(ov("m/1/2/3/s"), 5, 6));
  SYS(chmod(ov("m/1/2/3/p"), 0602));
  SYS(chown(ov("m/1/2/3/n"), 7, 8));
  char text[32];
  ssize_t n = SYS(readlink(ov("m/1/2/3/s"), text, sizeof text));
  CHECK(n == 6 && memcmp(text, "target", 6) == 0);
  struct stat st;
  SYS(lstat(ov("u/1/2/3/s"), &st));
  CHECK(S_ISLNK(st.st_mode) && st.st_uid == 5);
  SYS(lstat(ov("m/1/2/3/p"), &st));
  CHECK(S_ISFIFO(st.st_mode) && (st.st_mode & 0777) == 0602);
  SYS(lstat(ov("m/1/2/3/n"), &st));
  CHECK(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3) && st.st_uid == 7);
  SYS(lstat(ov("u/1/2"), &st));
  CHECK_EQ(st.st_mode & 07777, 0711);
  CHECK_ERRNO(mknod(ov("m/wh"), S_IFCHR | 0600, 0), EPERM);
  ov_down();
}

/* ---- Mounting ---- */

TEST(mount_errors) {
  ov_setup();
  char opts[1024];
  ov_mount(NULL);
  SYS(umount(ov("m")));
  CHECK_ERRNO(ov_mount_at(ov("m"), ov("none"), ov("u"), NULL), ENOENT);
  CHECK_ERRNO(ov_mount_at(ov("m"), ov("l"), ov("none"), NULL), ENOENT);
  CHECK_ERRNO(ov_mount_at(ov("m"), ov("l"), NULL, NULL), EINVAL);
  snprintf(opts, sizeof opts, "lowerdir=%s,upperdir=%s", ov("l"), ov("u"));
  CHECK_ERRNO(mount("overlay", ov("m"), "overlay", 0, opts), EINVAL);
  SYS(mkdir(ov("other"), 0755));
  SYS(mount("tmpfs", ov("other"), "tmpfs", 0, NULL));
  snprintf(opts, sizeof opts, "lowerdir=%s,upperdir=%s,workdir=%s", ov("l"), ov("u"), ov("other"));
  CHECK_ERRNO(mount("overlay", ov("m"), "overlay", 0, opts), EINVAL);
  SYS(umount(ov("other")));
  CHECK(ov_mount_at(ov("m"), ov("l"), ov("u"), "nonsense=1") == -1 && errno == EINVAL);
  /* The layers stay usable when what they lie on is detached. */
  put("l/f", "low");
  ov_mount(NULL);
  int fd = (int)SYS(open(ov("m"), O_RDONLY | O_DIRECTORY));
  SYS(umount2(ov("m"), MNT_DETACH));
  int f = (int)SYS(openat(fd, "f", O_RDWR));
  SYS(pwrite(f, "LOW", 3, 0));
  close(f);
  close(fd);
  CHECK(has_text("u/f", "LOW"));
  ov_down();
}

/* Escapes in lowerdir: a colon in a name. */
TEST(mount_escapes) {
  ov_setup();
  SYS(mkdir(ov("a:b"), 0755));
  put("a:b/f", "x");
  char lower[512];
  snprintf(lower, sizeof lower, "%s", tmp_path("ov/a\\:b"));
  if (ov_mount_at(ov("m"), lower, ov("u"), NULL) != 0) {
    if (errno == ENODEV)
      SKIP("no overlayfs");
    check_fail(__FILE__, __LINE__, "mount: %s", strerror(errno));
  }
  CHECK(has_text("m/f", "x"));
  ov_down();
}

/* An overlay as the lower layer of another. */
TEST(overlay_on_overlay) {
  ov_setup();
  put("l/f", "bottom");
  put("l/g", "bottom");
  ov_mount(NULL);
  SYS(unlink(ov("m/g")));
  put("m/h", "middle");
  const char *more[] = {"u2", "w2", "m2"};
  for (int i = 0; i < 3; i++)
    SYS(mkdir(ov(more[i]), 0755));
  char opts[1024];
  snprintf(opts, sizeof opts, "lowerdir=%s,upperdir=%s,workdir=%s", ov("m"), ov("u2"), ov("w2"));
  SYS(mount("overlay", ov("m2"), "overlay", 0, opts));
  CHECK_STR(ov_names("m2"), "f h");
  int fd = (int)SYS(open(ov("m2/f"), O_RDWR));
  SYS(pwrite(fd, "top", 3, 0));
  close(fd);
  SYS(unlink(ov("m2/h")));
  CHECK(has_text("m2/f", "toptom") && has_text("m/f", "bottom"));
  CHECK(has_text("m/h", "middle"));
  CHECK_STR(ov_names("m2"), "f");
  /* Linux stacks two deep; the sandbox's root does not count. */
  const char *third[] = {"u3", "w3", "m3"};
  for (int i = 0; i < 3; i++)
    SYS(mkdir(ov(third[i]), 0755));
  snprintf(opts, sizeof opts, "lowerdir=%s,upperdir=%s,workdir=%s", ov("m2"), ov("u3"), ov("w3"));
  CHECK_ERRNO(mount("overlay", ov("m3"), "overlay", 0, opts), EINVAL);
  SYS(umount(ov("m2")));
  ov_down();
}

/* Who copies up a large file can be killed meanwhile, and nothing of it is left. */
TEST_LIMIT(copy_up_can_be_killed, 60) {
  ov_setup();
  int fd = (int)SYS(open(ov("l/f"), O_CREAT | O_RDWR, 0644));
  static char block[1 << 20];
  memset(block, 'x', sizeof block);
  for (int i = 0; i < 64; i++)
    write_full(fd, block, sizeof block);
  close(fd);
  ov_mount(NULL);
  for (unsigned ms = 0; ms < 12; ms += 3) {
    pid_t pid = CHILD({
      truncate(ov("m/f"), (64 << 20) - (off_t)ms);
      pause();
    });
    sleep_ms(ms);
    kill(pid, SIGKILL);
    check_wait(pid);
    struct stat st;
    SYS(stat(ov("m/f"), &st));
    CHECK(st.st_size >= (64 << 20) - 12);
    CHECK_STR(ov_names("w/work"), "");
  }
  ov_down();
}
