/* SPDX-License-Identifier: Apache-2.0 */
/* overlay-names.c - overlayfs as its documentation describes it: whiteouts, opaque directories, rename, links, nameless files. */
#include "overlay.h"

static bool xattr_is(const char *name, const char *attr, const char *value) {
  char buf[4096];
  ssize_t n = lgetxattr(ov(name), attr, buf, sizeof buf);
  return n == (ssize_t)strlen(value) && memcmp(buf, value, (size_t)n) == 0;
}

/* ---- Whiteouts and opaque directories ---- */

TEST(whiteouts) {
  ov_setup();
  put("l/a", "low");
  put("l/b", "low");
  put("u/only", "up");
  put("u/b", "up");
  ov_mount(NULL);
  SYS(unlink(ov("m/a")));
  CHECK(!exists("m/a"));
  CHECK(is_whiteout("u/a"));
  CHECK(has_text("l/a", "low"));
  CHECK_ERRNO(unlink(ov("m/a")), ENOENT);
  SYS(unlink(ov("m/only")));
  CHECK(!exists("u/only"));
  SYS(unlink(ov("m/b")));
  CHECK(is_whiteout("u/b"));
  CHECK_STR(ov_names("m"), "");
  put("m/a", "again");
  CHECK(has_text("m/a", "again"));
  CHECK(has_text("u/a", "again"));
  SYS(symlink("x", ov("m/b")));
  CHECK_STR(ov_names("m"), "a b");
  ov_remount(NULL);
  CHECK_STR(ov_names("m"), "a b");
  CHECK_STR(ov_names("w/work"), "");
  ov_down();
}

TEST(removed_directory_made_again_is_empty) {
  ov_setup();
  SYS(mkdir(ov("l/d"), 0755));
  put("l/d/1", "low");
  put("l/d/2", "low");
  ov_mount(NULL);
  put("m/d/3", "up");
  CHECK_ERRNO(rmdir(ov("m/d")), ENOTEMPTY);
  SYS(unlink(ov("m/d/1")));
  SYS(unlink(ov("m/d/2")));
  CHECK_ERRNO(rmdir(ov("m/d")), ENOTEMPTY);
  SYS(unlink(ov("m/d/3")));
  SYS(rmdir(ov("m/d"))); /* nothing but whiteouts */
  CHECK(is_whiteout("u/d"));
  CHECK(!exists("m/d"));
  SYS(mkdir(ov("m/d"), 0755));
  CHECK_STR(ov_names("m/d"), "");
  CHECK(xattr_is("u/d", "trusted.overlay.opaque", "y"));
  ov_remount(NULL);
  CHECK_STR(ov_names("m/d"), "");
  /* A file over a directory's whiteout, and the reverse. */
  SYS(rmdir(ov("m/d")));
  put("m/d", "file");
  SYS(unlink(ov("m/d")));
  SYS(mkdir(ov("m/d"), 0755));
  put("m/d/1", "new");
  CHECK_STR(ov_names("m/d"), "1");
  ov_down();
}

TEST(own_attributes_are_hidden) {
  ov_setup();
  SYS(mkdir(ov("l/d"), 0755));
  ov_mount(NULL);
  SYS(rmdir(ov("m/d")));
  SYS(mkdir(ov("m/d"), 0755));
  char list[256];
  ssize_t n = SYS(listxattr(ov("m/d"), list, sizeof list));
  for (ssize_t i = 0; i < n; i += (ssize_t)strlen(list + i) + 1)
    CHECK(strncmp(list + i, "trusted.overlay.", 16) != 0);
  CHECK(getxattr(ov("m/d"), "trusted.overlay.opaque", list, sizeof list) == -1);
  SYS(setxattr(ov("m/d"), "trusted.mine", "v", 1, 0));
  CHECK(xattr_is("u/d", "trusted.mine", "v"));
  ov_down();
}

/* New files get owner and mode as anywhere else, also where a whiteout was. */
TEST(new_files_belong_to_their_makers) {
  ov_setup();
  SYS(mkdir(ov("l/g"), 0755));
  SYS(chown(ov("l/g"), 0, 77));
  SYS(chmod(ov("l/g"), 02777));
  put("l/g/old", "x");
  ov_mount(NULL);
  SYS(unlink(ov("m/g/old")));
  WAIT_OK(CHILD({
    SYS(syscall(SYS_setgroups, 0, NULL));
    SYS(setresgid(1000, 1000, 1000));
    SYS(setresuid(1000, 1000, 1000));
    umask(022);
    close((int)SYS(open(ov("m/g/old"), O_CREAT | O_EXCL | O_WRONLY, 0666)));
    SYS(mkdir(ov("m/g/dir"), 0777));
    struct stat st;
    SYS(stat(ov("m/g/old"), &st));
    CHECK_EQ(st.st_uid, 1000);
    CHECK_EQ(st.st_gid, 77);
    CHECK_EQ(st.st_mode & 07777, 0644);
    SYS(stat(ov("m/g/dir"), &st));
    CHECK_EQ(st.st_mode & 07777, 02755);
    CHECK_EQ(st.st_gid, 77);
  }));
  ov_down();
}

/* ---- Rename ---- */

TEST(rename_files) {
  ov_setup();
  put("l/a", "A");
  put("l/b", "B");
  put("u/c", "C");
  ov_mount(NULL);
  ino_t a = ino_of("m/a");
  SYS(rename(ov("m/a"), ov("m/x"))); /* leaves a whiteout */
  CHECK(is_whiteout("u/a"));
  CHECK_EQ(ino_of("m/x"), a);
  SYS(rename(ov("m/x"), ov("m/b"))); /* over a lower file, from a name that no lower has */
  CHECK(has_text("m/b", "A"));
  CHECK(!exists("u/x"));
  SYS(rename(ov("m/c"), ov("m/a"))); /* over a whiteout */
  CHECK(has_text("m/a", "C"));
  SYS(rename(ov("m/a"), ov("m/b"))); /* both below */
  CHECK(has_text("m/b", "C"));
  CHECK(is_whiteout("u/a"));
  CHECK_STR(ov_names("m"), "b");
  CHECK_ERRNO(rename(ov("m/a"), ov("m/q")), ENOENT);
  ov_remount(NULL);
  CHECK_STR(ov_names("m"), "b");
  CHECK(has_text("m/b", "C"));
  CHECK_STR(ov_names("w/work"), "");
  ov_down();
}

TEST(rename_flags) {
  ov_setup();
  put("l/a", "A");
  put("l/b", "B");
  SYS(mkdir(ov("u/d"), 0755));
  ov_mount("redirect_dir=on");
  CHECK_ERRNO(renameat2(AT_FDCWD, ov("m/a"), AT_FDCWD, ov("m/b"), RENAME_NOREPLACE), EEXIST);
  SYS(renameat2(AT_FDCWD, ov("m/a"), AT_FDCWD, ov("m/b"), RENAME_EXCHANGE));
  CHECK(has_text("m/a", "B") && has_text("m/b", "A"));
  SYS(renameat2(AT_FDCWD, ov("m/a"), AT_FDCWD, ov("m/d"), RENAME_EXCHANGE));
  CHECK(has_text("m/d", "B"));
  CHECK_STR(ov_names("m/a"), ""); /* the directory hides the lower file of that name */
  SYS(renameat2(AT_FDCWD, ov("m/a"), AT_FDCWD, ov("m/n"), RENAME_NOREPLACE));
  CHECK_STR(ov_names("m"), "b d n");
  ov_remount("redirect_dir=on");
  CHECK_STR(ov_names("m"), "b d n");
  ov_down();
}

TEST(rename_new_directory) {
  ov_setup();
  SYS(mkdir(ov("l/low"), 0755));
  put("l/low/hidden", "low");
  ov_mount("redirect_dir=off");
  SYS(mkdir(ov("m/d"), 0755));
  put("m/d/f", "up");
  SYS(rename(ov("m/d"), ov("m/e")));
  CHECK(has_text("m/e/f", "up"));
  /* Over an empty merged directory: what lower layers have there must not come back. */
  SYS(unlink(ov("m/low/hidden")));
  SYS(rename(ov("m/e"), ov("m/low")));
  CHECK_STR(ov_names("m/low"), "f");
  CHECK_STR(ov_names("m"), "low");
  ov_remount("redirect_dir=off");
  CHECK_STR(ov_names("m/low"), "f");
  /* To where a removed lower directory was. */
  SYS(rename(ov("m/low"), ov("m/x")));
  CHECK_STR(ov_names("m"), "x");
  SYS(rename(ov("m/x"), ov("m/low")));
  CHECK_STR(ov_names("m/low"), "f");
  ov_remount("redirect_dir=off");
  CHECK_STR(ov_names("m/low"), "f");
  ov_down();
}

TEST(rename_merged_directory_without_redirect) {
  ov_setup();
  SYS(mkdir(ov("l/d"), 0755));
  SYS(mkdir(ov("l/e"), 0755));
  put("l/d/f", "low");
  ov_mount("redirect_dir=off");
  CHECK_ERRNO(rename(ov("m/d"), ov("m/x")), EXDEV);
  CHECK_ERRNO(renameat2(AT_FDCWD, ov("m/d"), AT_FDCWD, ov("m/e"), RENAME_EXCHANGE), EXDEV);
  CHECK_STR(ov_names("m"), "d e");
  ov_down();
}

TEST(rename_merged_directory) {
  ov_setup();
  SYS(mkdir(ov("l/d"), 0755));
  SYS(mkdir(ov("l/d/sub"), 0755));
  put("l/d/f", "low");
  put("l/d/sub/g", "low");
  ov_mount("redirect_dir=on");
  ino_t f = ino_of("m/d/f"), d = ino_of("m/d");
  put("m/d/new", "up");
  SYS(rename(ov("m/d"), ov("m/x")));
  CHECK_STR(ov_names("m"), "x");
  CHECK_STR(ov_names("m/x"), "f new sub");
  CHECK_EQ(ino_of("m/x"), d);
  CHECK_EQ(ino_of("m/x/f"), f);
  CHECK(has_text("m/x/sub/g", "low"));
  SYS(mkdir(ov("m/d"), 0755)); /* not what was there before */
  CHECK_STR(ov_names("m/d"), "");
  SYS(rename(ov("m/x"), ov("m/d/deep")));
  CHECK(has_text("m/d/deep/sub/g", "low"));
  SYS(rename(ov("m/d/deep/sub"), ov("m/d/deep/s2"))); /* inside a renamed one */
  CHECK(has_text("m/d/deep/s2/g", "low"));
  SYS(unlink(ov("m/d/deep/f")));
  ov_remount("redirect_dir=on");
  CHECK_STR(ov_names("m"), "d");
  CHECK_STR(ov_names("m/d/deep"), "new s2");
  CHECK(has_text("m/d/deep/s2/g", "low"));
  put("m/d/deep/s2/g", "changed");
  CHECK(has_text("m/d/deep/s2/g", "changed") && has_text("l/d/sub/g", "low"));
  ov_down();
}

/* ---- Links and nameless files ---- */

TEST(hard_links) {
  ov_setup();
  put("l/a", "low");
  ov_mount(NULL);
  ino_t a = ino_of("m/a");
  SYS(link(ov("m/a"), ov("m/b")));
  struct stat st;
  SYS(stat(ov("m/b"), &st));
  CHECK_EQ(st.st_nlink, 2);
  CHECK_EQ(st.st_ino, a);
  int fd = (int)SYS(open(ov("m/b"), O_WRONLY | O_TRUNC));
  write_full(fd, "both", 4);
  close(fd);
  CHECK(has_text("m/a", "both"));
  SYS(unlink(ov("m/a")));
  SYS(stat(ov("m/b"), &st));
  CHECK_EQ(st.st_nlink, 1);
  CHECK(has_text("m/b", "both"));
  CHECK_ERRNO(link(ov("m/a"), ov("m/c")), ENOENT);
  SYS(link(ov("m/b"), ov("m/a"))); /* over the whiteout */
  CHECK(has_text("m/a", "both"));
  CHECK_ERRNO(link(ov("m/b"), ov("m/a")), EEXIST);
  ov_down();
}

TEST(nameless_files) {
  ov_setup();
  put("l/gone", "low");
  ov_mount(NULL);
  SYS(unlink(ov("m/gone")));
  int fd = open(ov("m"), O_TMPFILE | O_RDWR, 0640);
  if (fd < 0 && errno == EOPNOTSUPP && !check_in_sandbox)
    SKIP("this kernel's overlayfs has no O_TMPFILE");
  REQUIRE(fd >= 0);
  write_full(fd, "temp", 4);
  struct stat st;
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_nlink, 0);
  char self[64];
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  SYS(linkat(AT_FDCWD, self, AT_FDCWD, ov("m/gone"), AT_SYMLINK_FOLLOW));
  CHECK(has_text("m/gone", "temp"));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_nlink, 1);
  close(fd);
  ov_down();
}

/* An open lower file goes on after its name went, and can still be changed. */
TEST(removed_lower_file_lives_on) {
  ov_setup();
  put("l/f", "content");
  ov_mount(NULL);
  int fd = (int)SYS(open(ov("m/f"), O_RDONLY));
  SYS(unlink(ov("m/f")));
  char buf[16];
  CHECK_EQ(pread(fd, buf, sizeof buf, 0), 7);
  struct stat st;
  SYS(fstat(fd, &st));
  if (check_in_sandbox) { /* Linux keeps the count of the lower file, and fails to copy it up (EEXIST) */
    CHECK_EQ(st.st_nlink, 0);
    CHECK_OK(fchmod(fd, 0600));
    SYS(fstat(fd, &st));
    CHECK_EQ(st.st_mode & 0777, 0600);
  }
  CHECK_EQ(pread(fd, buf, sizeof buf, 0), 7);
  CHECK(is_whiteout("u/f"));
  close(fd);
  ov_down();
}
