/* SPDX-License-Identifier: Apache-2.0 */
/* tmpfs-names.c - directories of tmpfs: order and positions, many and deep ones, link counts, O_TMPFILE, renameat2(2). */
#include "on-tmpfs.h"

#include <dirent.h>

static int list(const char *dir, char *out) {
  DIR *d = opendir(dir);
  struct dirent *e;
  int n = 0;

  *out = 0;
  while ((e = readdir(d)))
    if (e->d_name[0] != '.') {
      sprintf(out + strlen(out), "%s ", e->d_name);
      n++;
    }
  closedir(d);
  return n;
}

/* Newest first, as Linux lists a tmpfs since 6.14; older ones begin with the oldest. Only who is there is asked for there. */
TMPFS_TEST(listing_order) {
  char text[500];

  for (const char *p = "abcdef"; *p; p++) {
    char name[2] = {*p, 0};
    new_file(name, 0600, 0, 0);
  }
  CHECK_EQ(list(".", text), 6);
  if (!check_in_sandbox && strcmp(text, "f e d c b a "))
    SKIP("another order: %s", text);
  CHECK_STR(text, "f e d c b a ");
  SYS(unlink("c"));
  SYS(rename("a", "z"));
  SYS(link("d", "y"));
  CHECK_EQ(list(".", text), 6);
  CHECK_STR(text, "y z f e d b ");
}

TMPFS_TEST(directory_positions) {
  char name[20];
  struct stat st;

  SYS(mkdir("d", 0755));
  for (int i = 0; i < 300; i++) {
    sprintf(name, "d/f%d", i);
    new_file(name, 0600, 0, 0);
  }
  SYS(stat("d", &st));
  CHECK_EQ(st.st_size, 20 * 302);
  CHECK_EQ(st.st_nlink, 2);
  DIR *d = opendir("d");
  struct dirent *e;
  long where[303];
  char names[302][12];
  int n = 0, seen[300] = {0};
  for (; (where[n] = telldir(d), e = readdir(d)); n++)
    if (n < 302)
      strcpy(names[n], e->d_name);
  CHECK_EQ(n, 302);
  CHECK_STR(names[0], ".");
  CHECK_STR(names[1], "..");
  for (int i = 301; i >= 0; i -= 7) {
    seekdir(d, where[i]);
    e = readdir(d);
    REQUIRE(e);
    CHECK_STR(e->d_name, names[i]);
  }
  /* While half are removed and others made, each that stays is seen exactly once. */
  rewinddir(d);
  for (n = 0; (e = readdir(d)); n++) {
    int i = e->d_name[0] == 'f' ? atoi(e->d_name + 1) : -1;
    if (i >= 0 && i < 300)
      seen[i]++;
    if (n % 3 == 0) {
      sprintf(name, "d/f%d", (n * 37) % 300);
      if ((n * 37) % 300 % 2)
        unlink(name);
      sprintf(name, "d/n%d", n);
      close(open(name, O_CREAT | O_WRONLY, 0600));
    }
  }
  for (int i = 0; i < 300; i += 2)
    if (seen[i] != 1)
      check_fail(__FILE__, __LINE__, "f%d was seen %d times", i, seen[i]);
  CHECK(readdir(d) == NULL);
  CHECK_ERRNO(lseek(dirfd(d), 0, SEEK_END), EINVAL);
  CHECK_ERRNO(lseek(dirfd(d), -1, SEEK_SET), EINVAL);
}

static void remove_all(const char *dir, int *count) {
  DIR *d = opendir(dir);
  struct dirent *e;

  while ((e = readdir(d)))
    if (e->d_name[0] != '.') {
      SYS(unlinkat(dirfd(d), e->d_name, 0));
      ++*count;
    }
  closedir(d);
}

TEST_LIMIT(large_directory, 120) {
  const int n = 100000;
  char name[40];
  int removed = 0;
  int64_t times[2] = {0, 0}, at = now_ns();

  tmpfs_new("mode=755");
  SYS(mkdir("d", 0755));
  for (int i = 0; i < n; i++) {
    sprintf(name, "d/name-of-file-%d", i);
    if (mknod(name, S_IFREG | 0600, 0) < 0) {
      check_fail(__FILE__, __LINE__, "%s: %s", name, strerror(errno));
      break;
    }
    if (i == n / 4)
      times[0] = now_ns() - at, at = now_ns();
  }
  times[1] = now_ns() - at;
  /* Linear: three times as many take about three times as long; quadratic would be fifteen times, and a busy machine has its own say. */
  if (times[1] > 12 * times[0] && times[1] - times[0] > 2000000000)
    check_fail(__FILE__, __LINE__, "creating: %ld us, then %ld us", (long)times[0] / 1000,
               (long)times[1] / 1000);
  for (int i = 0; i < n; i += 1000) {
    struct stat st;
    sprintf(name, "d/name-of-file-%d", i);
    SYS(stat(name, &st));
  }
  at = now_ns();
  remove_all("d", &removed);
  CHECK_EQ(removed, n);
  CHECK(now_ns() - at < 10 * (times[0] + times[1]) + 2000000000);
  CHECK_OK(rmdir("d"));
  SYS(chdir("/"));
  tmpfs_leave();
}

/* What is unmounted goes, however deep it is nested. */
TMPFS_TEST(deep_directories) {
  SYS(mkdir("n", 0755));
  SYS(mount("y", "n", "tmpfs", 0, NULL));
  SYS(chdir("n"));
  for (int i = 0; i < 20000; i++) {
    SYS(mkdir("d", 0755));
    new_file("f", 0600, 0, 0);
    SYS(chdir("d"));
  }
  CHECK_ERRNO(umount2(tmp_path("m/n"), 0), EBUSY);
  SYS(chdir(tmpfs_root_));
  CHECK_OK(umount2("n", 0));
  CHECK_OK(rmdir("n"));
}

TMPFS_TEST(link_counts) {
  struct stat st;

  SYS(mkdir("d", 0755));
  SYS(mkdir("d/a", 0755));
  SYS(mkdir("d/b", 0755));
  new_file("d/f", 0600, 0, 0);
  SYS(stat("d", &st));
  CHECK_EQ(st.st_nlink, 4);
  CHECK_EQ(st.st_size, 100);
  CHECK_EQ(st.st_blocks, 0);
  SYS(rename("d/a", "a"));
  SYS(stat("d", &st));
  CHECK_EQ(st.st_nlink, 3);
  SYS(link("d/f", "g"));
  SYS(stat("g", &st));
  CHECK_EQ(st.st_nlink, 2);
  SYS(rename("g", "d/f")); /* the same file: nothing happens */
  CHECK_OK(stat("g", &st));
  SYS(unlink("g"));
  SYS(stat("d/f", &st));
  CHECK_EQ(st.st_nlink, 1);
  SYS(rename("a", "d/b")); /* over an empty directory */
  SYS(stat("d", &st));
  CHECK_EQ(st.st_nlink, 3);
  CHECK_ERRNO(rmdir("d"), ENOTEMPTY);
  CHECK_ERRNO(link("d", "e"), EPERM);
  int fd = (int)SYS(open("d/b", O_RDONLY));
  SYS(rmdir("d/b"));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_nlink, 0);
  CHECK_ERRNO(mkdirat(fd, "x", 0700), ENOENT);
  CHECK_OK(openat(fd, ".", O_TMPFILE | O_RDWR, 0600));
}

TMPFS_TEST(nameless_files) {
  char p[40];
  struct stat st;
  int fd = (int)SYS(open(".", O_TMPFILE | O_RDWR, 0640)),
      ex = (int)SYS(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));

  CHECK_ERRNO(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_nlink, 0);
  CHECK_EQ(st.st_mode, S_IFREG | 0640);
  write_full(fd, "hello", 5);
  sprintf(p, "/proc/self/fd/%d", fd);
  CHECK_OK(linkat(AT_FDCWD, p, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
  SYS(stat("named", &st));
  CHECK_EQ(st.st_size, 5);
  CHECK_EQ(st.st_nlink, 1);
  CHECK_ERRNO(linkat(AT_FDCWD, p, AT_FDCWD, "named", AT_SYMLINK_FOLLOW), EEXIST);
  CHECK_OK(linkat(fd, "", AT_FDCWD, "again", AT_EMPTY_PATH));
  sprintf(p, "/proc/self/fd/%d", ex);
  CHECK_ERRNO(linkat(AT_FDCWD, p, AT_FDCWD, "never", AT_SYMLINK_FOLLOW), ENOENT);
  /* What was removed does not come back, O_TMPFILE or not. */
  int old = (int)SYS(open("x", O_CREAT | O_RDWR, 0600));
  SYS(unlink("x"));
  sprintf(p, "/proc/self/fd/%d", old);
  CHECK_ERRNO(linkat(AT_FDCWD, p, AT_FDCWD, "x", AT_SYMLINK_FOLLOW), ENOENT);
}

TMPFS_TEST(rename_flags) {
  struct stat st;

  new_file("a", 0600, 1, 1);
  new_file("b", 0600, 2, 2);
  SYS(mkdir("d", 0755));
  SYS(mkdir("e", 0755));
  SYS(mkdir("e/sub", 0755));
  CHECK_ERRNO(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
  CHECK_OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "d/a", RENAME_NOREPLACE));
  CHECK_OK(renameat2(AT_FDCWD, "d/a", AT_FDCWD, "b", RENAME_EXCHANGE));
  SYS(stat("b", &st));
  CHECK_EQ(st.st_uid, 1);
  CHECK_OK(renameat2(AT_FDCWD, "b", AT_FDCWD, "e/sub", RENAME_EXCHANGE));
  SYS(stat("b", &st));
  CHECK(S_ISDIR(st.st_mode));
  SYS(stat("e", &st));
  CHECK_EQ(st.st_nlink, 2);
  SYS(stat(".", &st));
  CHECK_EQ(st.st_nlink, 5);
  SYS(stat("b/..", &st));
  struct stat root;
  SYS(stat(".", &root));
  CHECK_EQ(st.st_ino, root.st_ino);
  CHECK_ERRNO(renameat2(AT_FDCWD, "b", AT_FDCWD, "none", RENAME_EXCHANGE), ENOENT);
  CHECK_ERRNO(renameat2(AT_FDCWD, "b", AT_FDCWD, "d", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
  CHECK_ERRNO(renameat2(AT_FDCWD, "b", AT_FDCWD, "d", RENAME_EXCHANGE | RENAME_WHITEOUT), EINVAL);
  CHECK_ERRNO(renameat2(AT_FDCWD, "b", AT_FDCWD, "d", 8), EINVAL);
  CHECK_OK(renameat2(AT_FDCWD, "d/a", AT_FDCWD, "w", RENAME_WHITEOUT));
  SYS(lstat("d/a", &st));
  CHECK_EQ(st.st_mode, S_IFCHR);
  CHECK_EQ(st.st_rdev, 0);
  SYS(stat("w", &st));
  CHECK_EQ(st.st_uid, 2);
  CHECK_ERRNO(renameat2(AT_FDCWD, "w", AT_FDCWD, "d/a", RENAME_WHITEOUT | RENAME_NOREPLACE), EEXIST);
}
