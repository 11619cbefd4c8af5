/* SPDX-License-Identifier: Apache-2.0 */
/* files-dir.c - the tree: directories, links, renaming, unlinking, listing, walking, working directory and root. */
#include "check.h"

#include <dirent.h>
#include <limits.h>
#include <linux/openat2.h>

TEST(mkdir_rmdir) {
  char d[256];

  strcpy(d, tmp_path("d"));
  SYS(mkdir(d, 0755));
  CHECK_ERRNO(mkdir(d, 0755), EEXIST);
  CHECK_ERRNO(mkdir(tmp_path("no/such"), 0755), ENOENT);
  close(tmp_file("f", ""));
  CHECK_ERRNO(mkdir(tmp_path("f/x"), 0755), ENOTDIR);
  CHECK_ERRNO(mkdir(tmp_path("f"), 0755), EEXIST);
  CHECK_ERRNO(rmdir(tmp_path("f")), ENOTDIR);
  SYS(mkdir(tmp_path("d/e"), 0755));
  CHECK_ERRNO(rmdir(d), ENOTEMPTY);
  CHECK_ERRNO(rmdir(tmp_path("d/e/.")), EINVAL);
  CHECK_ERRNO(rmdir(tmp_path("d/e/..")), ENOTEMPTY);
  CHECK_ERRNO(rmdir("/"), EBUSY);
  CHECK_OK(rmdir(tmp_path("d/e/")));
  CHECK_OK(rmdir(d));
  CHECK_ERRNO(rmdir(d), ENOENT);
  CHECK_OK(mkdir(tmp_path("slash/"), 0755));
}

TEST(link_counts) {
  struct stat st;

  SYS(mkdir(tmp_path("d"), 0755));
  SYS(stat(tmp_path("d"), &st));
  CHECK_EQ(st.st_nlink, 2);
  SYS(mkdir(tmp_path("d/a"), 0755));
  SYS(mkdir(tmp_path("d/b"), 0755));
  SYS(stat(tmp_path("d"), &st));
  CHECK_EQ(st.st_nlink, 4);
  SYS(rmdir(tmp_path("d/a")));
  SYS(stat(tmp_path("d"), &st));
  CHECK_EQ(st.st_nlink, 3);
}

TEST(hard_links) {
  int fd = tmp_file("a", "linked");
  struct stat sa, sb;

  SYS(link(tmp_path("a"), tmp_path("b")));
  SYS(stat(tmp_path("a"), &sa));
  SYS(stat(tmp_path("b"), &sb));
  CHECK_EQ(sa.st_ino, sb.st_ino);
  CHECK_EQ(sa.st_nlink, 2);
  CHECK_ERRNO(link(tmp_path("a"), tmp_path("b")), EEXIST);
  CHECK_ERRNO(link(tmp_path("none"), tmp_path("c")), ENOENT);
  CHECK_ERRNO(link(tmp_dir(), tmp_path("c")), EPERM);
  SYS(unlink(tmp_path("a")));
  CHECK_STR(read_file(tmp_path("b"), NULL), "linked");
  SYS(fstat(fd, &sa));
  CHECK_EQ(sa.st_nlink, 1);
  SYS(symlink("b", tmp_path("s")));
  SYS(link(tmp_path("s"), tmp_path("s2"))); /* link(2) does not follow */
  SYS(lstat(tmp_path("s2"), &sa));
  CHECK(S_ISLNK(sa.st_mode));
  CHECK_ERRNO(link("/proc/self/status", tmp_path("x")), EXDEV);
}

TEST(symlink_and_readlink) {
  char buf[64];
  struct stat st;

  SYS(symlink("some/where", tmp_path("l")));
  memset(buf, '#', sizeof buf);
  CHECK_EQ(readlink(tmp_path("l"), buf, sizeof buf), 10);
  CHECK(memcmp(buf, "some/where#", 11) == 0);
  CHECK_EQ(readlink(tmp_path("l"), buf, 4), 4);
  CHECK_ERRNO(readlink(tmp_path("l"), buf, 0), EINVAL);
  close(tmp_file("f", ""));
  CHECK_ERRNO(readlink(tmp_path("f"), buf, sizeof buf), EINVAL);
  CHECK_ERRNO(symlink("x", tmp_path("f")), EEXIST);
  CHECK_ERRNO(symlink("", tmp_path("e")), ENOENT);
  SYS(lstat(tmp_path("l"), &st));
  CHECK_EQ(st.st_size, 10);
  CHECK_EQ(st.st_mode & 0777, 0777);
  CHECK_ERRNO(stat(tmp_path("l"), &st), ENOENT);
  char *longest = malloc(5000);
  memset(longest, 'x', 4999);
  longest[4999] = 0;
  CHECK_ERRNO(symlink(longest, tmp_path("big")), ENAMETOOLONG);
}

/* L12: forty links are followed, one more is ELOOP. */
TEST(forty_symlinks) {
  char a[32], b[32];

  close(tmp_file("l0", "end"));
  for (int i = 1; i <= 41; i++) {
    snprintf(a, sizeof a, "l%d", i - 1);
    snprintf(b, sizeof b, "l%d", i);
    SYS(symlink(a, tmp_path(b)));
  }
  CHECK_OK(open(tmp_path("l40"), O_RDONLY));
  CHECK_ERRNO(open(tmp_path("l41"), O_RDONLY), ELOOP);
  CHECK_OK(open(tmp_path("l41"), O_PATH | O_NOFOLLOW));
}

TEST(dot_dot_and_slashes) {
  struct stat a, b;

  SYS(mkdir(tmp_path("d"), 0755));
  SYS(mkdir(tmp_path("d/e"), 0755));
  SYS(stat(tmp_path("d"), &a));
  SYS(stat(tmp_path("d/e/.."), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  SYS(stat(tmp_path("d//./e/.././//."), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  SYS(stat("/../../..", &a));
  SYS(stat("/", &b));
  CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
  CHECK_ERRNO(stat(tmp_path("none/.."), &a), ENOENT);
  SYS(symlink("d/e", tmp_path("l")));
  SYS(stat(tmp_path("l/.."), &a)); /* the parent of the target */
  SYS(stat(tmp_path("d"), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  SYS(lstat(tmp_path("l/"), &a));
  CHECK(S_ISDIR(a.st_mode));
}

TEST(unlink_rules) {
  close(tmp_file("f", "x"));
  SYS(mkdir(tmp_path("d"), 0755));
  CHECK_ERRNO(unlink(tmp_path("d")), EISDIR);
  CHECK_ERRNO(unlink(tmp_path("none")), ENOENT);
  CHECK_ERRNO(unlink(tmp_path("f/")), ENOTDIR);
  CHECK_OK(unlink(tmp_path("f")));
  CHECK_ERRNO(unlinkat(AT_FDCWD, tmp_path("d"), 0x1), EINVAL);
  CHECK_OK(unlinkat(AT_FDCWD, tmp_path("d"), AT_REMOVEDIR));
}

TEST(unlink_while_open) {
  int fd = tmp_file("f", "still here");
  char buf[16] = "", path[64], link[512] = "", want[512];

  SYS(unlink(tmp_path("f")));
  CHECK_ERRNO(open(tmp_path("f"), O_RDONLY), ENOENT);
  CHECK_EQ(pread(fd, buf, 16, 0), 10);
  write_full(fd, "x", 1);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK(readlink(path, link, sizeof link - 1) > 0);
  snprintf(want, sizeof want, "%s (deleted)", tmp_path("f"));
  CHECK_STR(link, want);
  int again = (int)SYS(open(path, O_RDWR)); /* the link leads to the file itself */
  CHECK_EQ(read(again, buf, 16), 10);
  close(tmp_file("f", "new")); /* the name is free again */
  CHECK_EQ(pread(fd, buf, 1, 0), 1);
  CHECK_EQ(buf[0], 'x');
}

TEST(rename_files) {
  char a[256], b[256];
  struct stat st;

  strcpy(a, tmp_path("a"));
  strcpy(b, tmp_path("b"));
  close(tmp_file("a", "aaa"));
  close(tmp_file("b", "bbb"));
  int old = (int)SYS(open(b, O_RDONLY));
  CHECK_OK(rename(a, b));
  CHECK_ERRNO(stat(a, &st), ENOENT);
  CHECK_STR(read_file(b, NULL), "aaa");
  char c;
  CHECK_EQ(read(old, &c, 1), 1);
  CHECK_EQ(c, 'b'); /* the replaced file lives on in its descriptor */
  CHECK_OK(rename(b, b));
  CHECK_ERRNO(rename(a, b), ENOENT);
  SYS(link(b, a));
  CHECK_OK(rename(a, b)); /* two names of one file: nothing happens */
  CHECK_OK(stat(a, &st));
}

TEST(rename_directories) {
  SYS(mkdir(tmp_path("d"), 0755));
  SYS(mkdir(tmp_path("d/sub"), 0755));
  SYS(mkdir(tmp_path("e"), 0755));
  close(tmp_file("f", ""));
  CHECK_ERRNO(rename(tmp_path("d"), tmp_path("d/sub/x")), EINVAL);
  CHECK_ERRNO(rename(tmp_path("d"), tmp_path("f")), ENOTDIR);
  CHECK_ERRNO(rename(tmp_path("f"), tmp_path("d")), EISDIR);
  CHECK_ERRNO(rename(tmp_path("e"), tmp_path("d")), ENOTEMPTY);
  CHECK_ERRNO(rename(tmp_path("d/."), tmp_path("x")), EBUSY);
  CHECK_OK(rename(tmp_path("d"), tmp_path("e"))); /* an empty one is replaced */
  CHECK_OK(access(tmp_path("e/sub"), F_OK));
  struct stat a, b;
  SYS(mkdir(tmp_path("g"), 0755));
  SYS(rename(tmp_path("e/sub"), tmp_path("g/sub")));
  SYS(stat(tmp_path("g/sub/.."), &a));
  SYS(stat(tmp_path("g"), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  SYS(stat(tmp_path("e"), &a));
  CHECK_EQ(a.st_nlink, 2);
  CHECK_ERRNO(rename(tmp_path("f"), "/proc/x"), EXDEV);
}

TEST(renameat2_flags) {
  close(tmp_file("a", "aaa"));
  close(tmp_file("b", "bbb"));
  if (renameat2(AT_FDCWD, tmp_path("a"), AT_FDCWD, tmp_path("b"), RENAME_EXCHANGE) < 0 && errno == EINVAL)
    SKIP("RENAME_EXCHANGE is not supported here");
  CHECK_STR(read_file(tmp_path("a"), NULL), "bbb");
  CHECK_STR(read_file(tmp_path("b"), NULL), "aaa");
  CHECK_ERRNO(renameat2(AT_FDCWD, tmp_path("a"), AT_FDCWD, tmp_path("b"), RENAME_NOREPLACE), EEXIST);
  CHECK_OK(renameat2(AT_FDCWD, tmp_path("a"), AT_FDCWD, tmp_path("c"), RENAME_NOREPLACE));
  CHECK_ERRNO(renameat2(AT_FDCWD, tmp_path("b"), AT_FDCWD, tmp_path("none"), RENAME_EXCHANGE), ENOENT);
  CHECK_ERRNO(renameat2(AT_FDCWD, tmp_path("b"), AT_FDCWD, tmp_path("c"), RENAME_EXCHANGE | RENAME_NOREPLACE),
              EINVAL);
  CHECK_ERRNO(renameat2(AT_FDCWD, tmp_path("b"), AT_FDCWD, tmp_path("c"), 0x100), EINVAL);
}

TEST(listing) {
  enum { N = 500 };
  char name[32], seen[N] = {0};
  int dots = 0, other = 0;

  for (int i = 0; i < N; i++) {
    snprintf(name, sizeof name, "entry-%d", i);
    close((int)SYS(open(tmp_path(name), O_CREAT | O_WRONLY, 0600)));
  }
  DIR *d = opendir(tmp_dir());
  REQUIRE(d != NULL);
  for (struct dirent *e; (e = readdir(d));) {
    int i;
    if (e->d_name[0] == '.')
      dots++;
    else if (sscanf(e->d_name, "entry-%d", &i) == 1 && i >= 0 && i < N && !seen[i]++)
      CHECK(e->d_type == DT_REG && e->d_ino != 0);
    else
      other++;
  }
  CHECK_EQ(dots, 2);
  CHECK_EQ(other, 0);
  for (int i = 0; i < N; i++)
    if (!CHECK_EQ(seen[i], 1))
      break;
  rewinddir(d);
  CHECK(readdir(d) != NULL);
  closedir(d);
}

TEST(getdents_buffers) {
  int d = (int)SYS(open(tmp_dir(), O_RDONLY | O_DIRECTORY)), count = 0;
  char buf[300];
  long n;

  CHECK_ERRNO(syscall(SYS_getdents64, d, buf, 10), EINVAL); /* not one entry fits */
  CHECK_ERRNO(syscall(SYS_getdents64, d, (void *)8, 300), EFAULT);
  for (int i = 0; i < 40; i++) {
    char name[64];
    snprintf(name, sizeof name, "a-rather-long-name-to-fill-buffers-%d", i);
    close((int)SYS(open(tmp_path(name), O_CREAT | O_WRONLY, 0600)));
  }
  SYS(lseek(d, 0, SEEK_SET));
  while ((n = SYS(syscall(SYS_getdents64, d, buf, sizeof buf))) > 0)
    for (long at = 0; at < n; count++) {
      unsigned short len = *(unsigned short *)(buf + at + 16);
      REQUIRE(len >= 24 && at + len <= n && len % 8 == 0);
      at += len;
    }
  CHECK_EQ(count, 42);
  CHECK_EQ(syscall(SYS_getdents64, d, buf, sizeof buf), 0);
  CHECK_ERRNO(syscall(SYS_getdents64, tmp_file("f", ""), buf, sizeof buf), ENOTDIR);
  CHECK_ERRNO(syscall(SYS_getdents64, 9999, buf, sizeof buf), EBADF);
}

TEST(removing_while_listing) {
  char name[32];
  int removed = 0;

  for (int i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "x%d", i);
    close((int)SYS(open(tmp_path(name), O_CREAT | O_WRONLY, 0600)));
  }
  DIR *d = opendir(tmp_dir());
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] == 'x')
      removed += unlinkat(dirfd(d), e->d_name, 0) == 0;
  closedir(d);
  CHECK_EQ(removed, 100); /* what was there all the time is listed once */
}

TEST(working_directory) {
  char buf[PATH_MAX], want[300];

  SYS(mkdir(tmp_path("wd"), 0755));
  strcpy(want, tmp_path("wd"));
  SYS(chdir(want));
  CHECK_STR(getcwd(buf, sizeof buf), want);
  CHECK_ERRNO(syscall(SYS_getcwd, buf, 5), ERANGE);
  CHECK_EQ(syscall(SYS_getcwd, buf, sizeof buf), strlen(want) + 1);
  CHECK_ERRNO(chdir(tmp_path("none")), ENOENT);
  CHECK_ERRNO(chdir("/dev/null"), ENOTDIR);
  CHECK_ERRNO(fchdir(tmp_file("f", "")), ENOTDIR);
  int d = (int)SYS(open("..", O_RDONLY | O_DIRECTORY));
  SYS(rename(want, tmp_path("moved")));
  CHECK_STR(getcwd(buf, sizeof buf), tmp_path("moved"));
  SYS(rmdir(tmp_path("moved")));
  CHECK_ERRNO(syscall(SYS_getcwd, buf, sizeof buf), ENOENT);
  CHECK_ERRNO(open("x", O_CREAT | O_WRONLY, 0600), ENOENT);
  CHECK_ERRNO(mkdir("sub", 0700), ENOENT);
  SYS(fchdir(d));
  CHECK_STR(getcwd(buf, sizeof buf), tmp_dir());
}

TEST(chroot_confines) {
  if (!have_cap(18 /* CAP_SYS_CHROOT */))
    SKIP("needs CAP_SYS_CHROOT");
  SYS(mkdir(tmp_path("jail"), 0755));
  close(tmp_file("outside", "x"));
  SYS(symlink("/inner", tmp_path("jail/abs")));
  close((int)SYS(open(tmp_path("jail/inner"), O_CREAT | O_WRONLY, 0600)));
  WAIT_OK(CHILD(char cwd[PATH_MAX]; SYS(chroot(tmp_path("jail"))); SYS(chdir("/"));
                CHECK_STR(getcwd(cwd, sizeof cwd), "/"); CHECK_OK(access("/inner", F_OK));
                CHECK_OK(access("/abs", F_OK)); CHECK_ERRNO(access("/../outside", F_OK), ENOENT);
                CHECK_OK(access("/../../inner", F_OK))));
  CHECK_ERRNO(chroot(tmp_path("outside")), ENOTDIR);
  CHECK_OK(access("/proc", F_OK));
}

TEST(at_functions) {
  int d = (int)SYS(open(tmp_dir(), O_RDONLY | O_DIRECTORY)), f = tmp_file("f", "abc");
  struct stat st;

  CHECK_OK(mkdirat(d, "sub", 0755));
  CHECK_OK(fstatat(d, "f", &st, 0));
  CHECK_OK(fstatat(d, "", &st, AT_EMPTY_PATH));
  CHECK(S_ISDIR(st.st_mode));
  CHECK_OK(fstatat(f, "", &st, AT_EMPTY_PATH));
  CHECK_EQ(st.st_size, 3);
  CHECK_ERRNO(fstatat(d, "", &st, 0), ENOENT);
  CHECK_ERRNO(fstatat(f, "x", &st, 0), ENOTDIR);
  CHECK_ERRNO(fstatat(9999, "x", &st, 0), EBADF);
  CHECK_OK(fstatat(9999, "/", &st, 0)); /* absolute: the descriptor is not looked at */
  CHECK_ERRNO(fstatat(d, "f", &st, 0x8000), EINVAL);
  CHECK_OK(renameat(d, "f", d, "g"));
  CHECK_OK(linkat(d, "g", d, "h", 0));
  CHECK_OK(symlinkat("g", d, "s"));
  CHECK_OK(faccessat(d, "s", R_OK, 0));
  CHECK_OK(unlinkat(d, "sub", AT_REMOVEDIR));
}

TEST(openat2_resolve) {
  struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
  int d = (int)SYS(open(tmp_dir(), O_RDONLY | O_DIRECTORY));

  close(tmp_file("f", ""));
  if (syscall(SYS_openat2, d, "f", &how, sizeof how) < 0 && errno == ENOSYS)
    SKIP("openat2 is not there");
  CHECK_OK(syscall(SYS_openat2, d, "f", &how, sizeof how));
  CHECK_ERRNO(syscall(SYS_openat2, d, "../x", &how, sizeof how), EXDEV);
  CHECK_ERRNO(syscall(SYS_openat2, d, "/etc", &how, sizeof how), EXDEV);
  SYS(symlink("f", tmp_path("l")));
  how.resolve = RESOLVE_NO_SYMLINKS;
  CHECK_ERRNO(syscall(SYS_openat2, d, "l", &how, sizeof how), ELOOP);
  how.resolve = RESOLVE_IN_ROOT;
  CHECK_OK(syscall(SYS_openat2, d, "/../f", &how, sizeof how));
  how.resolve = 0x8000;
  CHECK_ERRNO(syscall(SYS_openat2, d, "f", &how, sizeof how), EINVAL);
  how.resolve = 0;
  how.mode = 0600;
  CHECK_ERRNO(syscall(SYS_openat2, d, "f", &how, sizeof how), EINVAL); /* a mode without O_CREAT */
  CHECK_ERRNO(syscall(SYS_openat2, d, "f", &how, 8), EINVAL);
}

TEST(mknod_kinds) {
  struct stat st;

  SYS(mknod(tmp_path("reg"), S_IFREG | 0644, 0));
  SYS(stat(tmp_path("reg"), &st));
  CHECK(S_ISREG(st.st_mode));
  SYS(mknod(tmp_path("fifo"), S_IFIFO | 0644, 0));
  SYS(stat(tmp_path("fifo"), &st));
  CHECK(S_ISFIFO(st.st_mode));
  SYS(mknod(tmp_path("sock"), S_IFSOCK | 0644, 0));
  SYS(stat(tmp_path("sock"), &st));
  CHECK(S_ISSOCK(st.st_mode));
  CHECK_ERRNO(mknod(tmp_path("dir"), S_IFDIR | 0755, 0), EPERM);
  CHECK_ERRNO(mknod(tmp_path("bad"), 0170000 | 0644, 0), EINVAL);
  CHECK_ERRNO(mknod(tmp_path("reg"), S_IFREG | 0644, 0), EEXIST);
  CHECK_ERRNO(open(tmp_path("sock"), O_RDWR), ENXIO);
}

TEST(deep_tree) {
  SYS(chdir(tmp_dir()));
  for (int i = 0; i < 100; i++) {
    SYS(mkdir("deeper-and-deeper-and-deeper-and-deeper-than-path-max", 0755));
    SYS(chdir("deeper-and-deeper-and-deeper-and-deeper-than-path-max"));
  }
  char buf[PATH_MAX];
  CHECK_ERRNO(syscall(SYS_getcwd, buf, sizeof buf), ENAMETOOLONG);
  close((int)SYS(open("bottom", O_CREAT | O_WRONLY, 0600)));
  SYS(unlink("bottom"));
  for (int i = 0; i < 100; i++) {
    SYS(chdir(".."));
    SYS(rmdir("deeper-and-deeper-and-deeper-and-deeper-than-path-max"));
  }
}

TEST(create_and_remove_race) {
  char path[256];
  pid_t pids[4];

  strcpy(path, tmp_path("contended"));
  for (int w = 0; w < 4; w++)
    pids[w] = CHILD(for (int i = 0; i < 300; i++) {
      int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
      if (fd >= 0) {
        CHECK_OK(unlink(path)); /* whoever made it is alone with it */
        close(fd);
      } else {
        CHECK_EQ(errno, EEXIST);
      }
    });
  for (int w = 0; w < 4; w++)
    WAIT_OK(pids[w]);
  CHECK_ERRNO(access(path, F_OK), ENOENT);
}
