/* SPDX-License-Identifier: Apache-2.0 */
/* tmpfs.c - tmpfs(5): options and limits, remount, sparse files, fallocate(2), mappings. */
#include "on-tmpfs.h"

#include <linux/falloc.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

static struct statfs fs_now(void) {
  struct statfs s;

  SYS(statfs(".", &s));
  return s;
}
static long blocks_of(const char *path) {
  struct stat st;

  SYS(lstat(path, &st));
  return (long)st.st_blocks;
}

/* ---- Limits ---- */

TMPFS_TEST_OPTS(size_is_exact, "size=64k,nr_inodes=100") {
  static char buf[100000];
  struct statfs s = fs_now();
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));

  CHECK_EQ(s.f_type, 0x01021994);
  CHECK_EQ(s.f_blocks, 16);
  CHECK_EQ(s.f_bfree, 16);
  CHECK_EQ(s.f_files, 100);
  CHECK_EQ(s.f_ffree, 99);
  CHECK_EQ(write(fd, buf, sizeof buf), 65536);
  CHECK_ERRNO(write(fd, buf, 1), ENOSPC);
  CHECK_EQ(pwrite(fd, "x", 1, 70), 1); /* what is there can be written again */
  CHECK_EQ(fs_now().f_bfree, 0);
  CHECK_EQ(blocks_of("f"), 128);
  SYS(ftruncate(fd, 5000));
  CHECK_EQ(fs_now().f_bfree, 14);
  CHECK_EQ(blocks_of("f"), 16);
  CHECK_ERRNO(fallocate(fd, 0, 0, 65537), ENOSPC);
  CHECK_EQ(fs_now().f_bfree, 14); /* nothing stays behind */
  CHECK_OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 65536));
  CHECK_EQ(fs_now().f_bfree, 0);
  SYS(unlink("f"));
  CHECK_EQ(fs_now().f_bfree, 0); /* it is still open */
  SYS(close(fd));
  WAIT_FOR(fs_now().f_bfree == 16);
  CHECK_EQ(fs_now().f_ffree, 99);
}

TMPFS_TEST_OPTS(size_and_mappings, "size=16k") {
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));
  SYS(ftruncate(fd, 1 << 20));
  char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(p != MAP_FAILED);
  int full = 0, n = 0;
  for (; n < 256 && !full; n++)
    full = touch_write(p + n * PAGE, NULL);
  CHECK_EQ(full, SIGBUS);
  CHECK_EQ(n, 5);
  CHECK_EQ(fs_now().f_bfree, 0);
  SYS(munmap(p, 1 << 20));
}

TMPFS_TEST_OPTS(inodes_are_counted, "nr_inodes=10") {
  char name[20];
  int i;

  CHECK_EQ(fs_now().f_ffree, 9);
  for (i = 0; i < 20; i++) {
    sprintf(name, "f%d", i);
    int fd = open(name, O_CREAT | O_RDWR, 0600);
    if (fd < 0)
      break;
    close(fd);
  }
  CHECK_EQ(i, 9);
  CHECK_EQ(errno, ENOSPC);
  CHECK_EQ(fs_now().f_ffree, 0);
  CHECK_ERRNO(mkdir("d", 0700), ENOSPC);
  CHECK_ERRNO(symlink("a", "l"), ENOSPC);
  CHECK_ERRNO(mknod("p", S_IFIFO | 0600, 0), ENOSPC);
  CHECK_ERRNO(link("f0", "l"), ENOSPC); /* a name counts too */
  CHECK_ERRNO(open(".", O_TMPFILE | O_RDWR, 0600), ENOSPC);
  CHECK_OK(rename("f0", "g"));
  SYS(unlink("g"));
  CHECK_OK(link("f1", "l"));
  SYS(unlink("l"));
  int fd = (int)SYS(open(".", O_TMPFILE | O_RDWR, 0600));
  sprintf(name, "/proc/self/fd/%d", fd);
  CHECK_OK(linkat(AT_FDCWD, name, AT_FDCWD, "t", AT_SYMLINK_FOLLOW)); /* the first name is included */
  CHECK_EQ(fs_now().f_ffree, 0);
  SYS(unlink("t"));
  SYS(close(fd));
  WAIT_FOR(fs_now().f_ffree == 1);
}

TMPFS_TEST_OPTS(attributes_are_counted, "nr_inodes=20") {
  static char value[65536];
  new_file("f", 0600, 0, 0);
  CHECK_EQ(fs_now().f_ffree, 18);
  if (setxattr("f", "user.big", value, 10000, 0) < 0 && errno == EOPNOTSUPP)
    SKIP("no user.* attributes");
  CHECK_EQ(fs_now().f_ffree, 8);
  CHECK_ERRNO(setxattr("f", "user.more", value, 10000, 0), ENOSPC);
  CHECK_ERRNO(getxattr("f", "user.more", NULL, 0), ENODATA);
  CHECK_OK(setxattr("f", "user.big", value, 100, 0));
  CHECK_EQ(fs_now().f_ffree, 17);
  SYS(unlink("f"));
  WAIT_FOR(fs_now().f_ffree == 19);
}

TMPFS_TEST_OPTS(links_take_pages, "size=8k") {
  char text[1000];

  memset(text, 'x', 999);
  text[127] = 0;
  SYS(symlink(text, "short"));
  CHECK_EQ(fs_now().f_bfree, 2);
  CHECK_EQ(blocks_of("short"), 0);
  text[127] = 'x';
  text[200] = 0;
  SYS(symlink(text, "long"));
  SYS(symlink(text, "longer"));
  CHECK_EQ(fs_now().f_bfree, 0);
  CHECK_EQ(blocks_of("long"), 8);
  CHECK_ERRNO(symlink(text, "one"), ENOSPC);
  SYS(unlink("long"));
  WAIT_FOR(fs_now().f_bfree == 1);
}

/* ---- Options ---- */

static const char *options_of(void) {
  static char out[4][200];
  static int turn;
  char *text = read_file("/proc/self/mountinfo", NULL), *o = out[turn++ % 4], *line, *save = NULL, dir[300];

  *o = 0;
  sprintf(dir, " %s ", tmpfs_root_);
  for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
    if (strstr(line, dir)) {
      char *last = strrchr(line, ' ') + 1;
      snprintf(o, 200, "%s", last);
    }
  free(text);
  return o;
}
static int remounted(const char *opts) { return mount("x", tmpfs_root_, NULL, MS_REMOUNT, opts); }

TMPFS_TEST_OPTS(options_are_shown, "size=1m,nr_inodes=50,mode=750,uid=5,gid=6") {
  struct stat st;

  CHECK_STR(options_of(), "rw,size=1024k,nr_inodes=50,mode=750,uid=5,gid=6");
  SYS(stat(".", &st));
  CHECK_EQ(st.st_mode & 07777, 0750);
  CHECK_EQ(st.st_uid, 5);
  CHECK_EQ(st.st_gid, 6);
  CHECK_EQ(st.st_nlink, 2);
  CHECK_EQ(st.st_size, 40);
}

TMPFS_TEST(options) {
  static const struct {
    const char *opts, *shown;
    long blocks; /* 0: whatever */
  } t[] = {{"", "rw", 0},
           {"size=12345", "rw,size=16k", 4},
           {"size=5k,size=9k", "rw,size=12k", 3},
           {"nr_blocks=10", "rw,size=40k", 10},
           {"nr_blocks=1k", "rw,size=4096k", 1024},
           {"nr_inodes=2k", "rw,nr_inodes=2048", 0},
           {"size=0x10000", "rw,size=64k", 16},
           {"size=0", "rw,size=0k", 0},
           {"nr_inodes=0", "rw,nr_inodes=0", 0},
           {"noswap", "rw,noswap", 0},
           {"huge=never", "rw", 0},
           {"mode=17777", "rw,mode=7777", 0},
           {"mode=0", "rw,mode=000", 0},
           {"inode64", "rw,inode64", 0}};
  static const char *const bad[] = {"size=3x", "size=-1",        "size=",      "size",
                                    "mode=8",  "uid=-1",         "uid=x",      "bogus",
                                    "bogus=1", "huge=x",         "nr_inodes=", "size=1k1",
                                    "mpol=xx", "gid=4294967295", "mode=rwx",   "nr_blocks=5%"};
  SYS(mkdir("n", 0755));
  char *root = tmpfs_root_, mine[600];
  sprintf(mine, "%s/n", root);
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    struct statfs s;
    SYS(mount("x", "n", "tmpfs", 0, t[i].opts));
    tmpfs_root_ = mine;
    CHECK_STR(options_of(), t[i].shown);
    SYS(statfs("n", &s));
    if (t[i].blocks)
      CHECK_EQ(s.f_blocks, t[i].blocks);
    SYS(umount("n"));
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (mount("x", "n", "tmpfs", 0, bad[i]) == 0 || errno != EINVAL)
      check_fail(__FILE__, __LINE__, "%s: %s", bad[i], strerror(errno));
  tmpfs_root_ = root;
  AS(1000, 1000, 0, CHECK_ERRNO(mount("x", "n", "tmpfs", 0, NULL), EPERM));
}

TMPFS_TEST_OPTS(remount, "size=1m,nr_inodes=50") {
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));
  static char buf[40000];

  write_full(fd, buf, sizeof buf);
  CHECK_ERRNO(remounted("size=8k"), EINVAL); /* less than is in use */
  CHECK_ERRNO(remounted("nr_inodes=1"), EINVAL);
  CHECK_ERRNO(remounted("noswap"), EINVAL);
  CHECK_ERRNO(remounted("bogus"), EINVAL);
  CHECK_STR(options_of(), "rw,size=1024k,nr_inodes=50");
  CHECK_OK(remounted("size=40k"));
  CHECK_EQ(fs_now().f_bfree, 0);
  CHECK_EQ(write(fd, buf, 4000), 960);
  CHECK_ERRNO(write(fd, buf, 4000), ENOSPC);
  CHECK_OK(remounted("size=80k,nr_inodes=3"));
  CHECK_EQ(fs_now().f_bfree, 10);
  CHECK_EQ(fs_now().f_ffree, 1);
  CHECK_OK(remounted("mode=700,uid=9")); /* of no effect */
  CHECK_STR(options_of(), "rw,size=80k,nr_inodes=3");
  CHECK_OK(remounted("size=0"));
  CHECK_ERRNO(remounted("size=1g"), EINVAL); /* a limit cannot come back */
  CHECK_OK(remounted(""));
  SYS(close(fd));
  CHECK_OK(mount("x", tmpfs_root_, NULL, MS_REMOUNT | MS_RDONLY, NULL));
  CHECK_ERRNO(open("f", O_RDWR), EROFS);
  CHECK_ERRNO(mkdir("d", 0700), EROFS);
  CHECK_OK(remounted(""));
  CHECK_OK(open("f", O_RDWR));
}

/* ---- Sparse files ---- */

TMPFS_TEST(huge_and_sparse) {
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));
  const off_t T = 1ll << 40;
  char buf[20] = "";
  int64_t began = now_ns();

  SYS(ftruncate(fd, T));
  CHECK_EQ(blocks_of("f"), 0);
  CHECK_EQ(pwrite(fd, "end", 3, T - 3), 3);
  CHECK_EQ(pwrite(fd, "begin", 5, 0), 5);
  CHECK_EQ(pwrite(fd, "middle", 6, T / 2 - 3), 6);
  CHECK_EQ(blocks_of("f"), 8 * 4);
  CHECK_EQ(lseek(fd, 1, SEEK_HOLE), 4096);
  CHECK_EQ(lseek(fd, 4096, SEEK_DATA), T / 2 - 4096);
  CHECK_EQ(lseek(fd, T / 2, SEEK_HOLE), T / 2 + 4096);
  CHECK_EQ(lseek(fd, T / 2 + 4096, SEEK_DATA), T - 4096);
  CHECK_EQ(lseek(fd, T - 1, SEEK_HOLE), T);
  CHECK_ERRNO(lseek(fd, T, SEEK_DATA), ENXIO);
  CHECK_ERRNO(lseek(fd, T, SEEK_HOLE), ENXIO);
  CHECK_EQ(pread(fd, buf, 6, T / 2 - 3), 6);
  CHECK_STR(buf, "middle");
  CHECK_EQ(pread(fd, buf, 20, T / 4), 20);
  CHECK_EQ(buf[3], 0);
  CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, T - 200));
  CHECK_EQ(blocks_of("f"), 16);
  SYS(ftruncate(fd, 3));
  CHECK_EQ(blocks_of("f"), 8);
  CHECK_EQ(pread(fd, buf, 20, 0), 3);
  SYS(ftruncate(fd, 10));
  CHECK_EQ(pread(fd, buf, 20, 0), 10);
  CHECK(!memcmp(buf, "beg\0\0\0\0\0\0\0", 10));
  CHECK(now_ns() - began < 2000000000);
}

TMPFS_TEST(largest_size) {
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));
  const off_t max = 0x7fffffffffffffff;
  char c;
  struct stat st;

  CHECK_ERRNO(ftruncate(fd, -1), EINVAL);
  CHECK_OK(ftruncate(fd, max));
  CHECK_EQ(pwrite(fd, "x", 1, max - 1), 1);
  CHECK_EQ(pread(fd, &c, 1, max - 1), 1);
  CHECK_EQ(c, 'x');
  CHECK_ERRNO(pwrite(fd, "xy", 2, max - 1), EINVAL);
  CHECK_EQ(lseek(fd, 0, SEEK_END), max);
  CHECK_ERRNO(write(fd, "x", 1), EINVAL);
  CHECK_ERRNO(fallocate(fd, 0, max - 10, 100), EFBIG);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, max);
  CHECK_EQ(st.st_blocks, 8);
  CHECK_OK(ftruncate(fd, 0));
  CHECK_EQ(blocks_of("f"), 0);
}

TMPFS_TEST(fallocate_modes) {
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));
  static char buf[3 * 4096], got[3 * 4096];
  struct stat st;

  memset(buf, 'a', sizeof buf);
  CHECK_OK(fallocate(fd, 0, 4096, 4097));
  CHECK_EQ(blocks_of("f"), 16);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 8193);
  CHECK_ERRNO(lseek(fd, 0, SEEK_DATA), ENXIO); /* allocated, but not written */
  SYS(pwrite(fd, "x", 1, 5000));
  CHECK_EQ(lseek(fd, 0, SEEK_DATA), 4096);
  CHECK_EQ(lseek(fd, 4096, SEEK_HOLE), 8192);
  CHECK_OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100000));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 8193);
  CHECK_EQ(st.st_blocks, 25 * 8);
  SYS(ftruncate(fd, 8193)); /* the same size: what lies beyond goes */
  CHECK_EQ(blocks_of("f"), 24);
  SYS(pwrite(fd, buf, sizeof buf, 0));
  CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 8192));
  SYS(pread(fd, got, sizeof got, 0));
  memset(buf + 10, 0, 8192);
  CHECK(!memcmp(buf, got, sizeof got));
  CHECK_EQ(blocks_of("f"), 16);
  CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
  CHECK_ERRNO(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 10), EOPNOTSUPP);
  CHECK_ERRNO(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
  CHECK_ERRNO(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096), EOPNOTSUPP);
  CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
  CHECK_ERRNO(fallocate(fd, 0, -1, 5), EINVAL);
  int ro = (int)SYS(open("f", O_RDONLY));
  CHECK_ERRNO(fallocate(ro, 0, 0, 10), EBADF);
}

/* Mappings, reads and writes see the same bytes, also after a hole was made or the file got shorter. */
TMPFS_TEST(mapping_coherence) {
  const size_t n = 3 << 20;
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));
  char b[8] = "";

  SYS(ftruncate(fd, (off_t)n));
  char *s = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
       *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  for (size_t at = 100; at < n; at += 700001) {
    SYS(pwrite(fd, "one", 3, (off_t)at));
    CHECK(!memcmp(s + at, "one", 3) && !memcmp(p + at, "one", 3));
    memcpy(s + at, "two", 3);
    CHECK(!memcmp(p + at, "two", 3));
    SYS(pread(fd, b, 3, (off_t)at));
    CHECK_STR(b, "two");
  }
  p[100] = 'X'; /* a page of its own from now on */
  SYS(pwrite(fd, "six", 3, 100));
  CHECK_EQ(p[100], 'X');
  CHECK_EQ(p[101], 'w');
  CHECK_EQ(s[101], 'i');
  SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192));
  CHECK_EQ(s[100], 0);
  CHECK_EQ(p[100], 'X');
  s[100] = 'z';
  SYS(pread(fd, b, 1, 100));
  CHECK_EQ(b[0], 'z');
  SYS(ftruncate(fd, 5000));
  CHECK_EQ(touch_read(s + 8192, NULL), SIGBUS);
  CHECK_EQ(touch_read(p + n - 1, NULL), SIGBUS);
  CHECK_EQ(touch_write(s + 8000, NULL), 0); /* the last page has an end of its own */
  SYS(ftruncate(fd, (off_t)n));
  CHECK_EQ(s[8192], 0);
  CHECK_EQ(s[5001], 0);
}

TMPFS_TEST(write_patterns) {
  static char buf[300000], got[300000];
  int fd = (int)SYS(open("f", O_CREAT | O_RDWR, 0600));
  uint64_t seed = 7;
  char *model = calloc(1, 6 << 20);
  off_t size = 0;

  for (int i = 0; i < 400; i++) {
    off_t at = (off_t)(next_random(&seed) % (5 << 20));
    size_t n = next_random(&seed) % (i % 7 ? 9000 : 300000);
    switch (next_random(&seed) % 8) {
    case 0:
      SYS(ftruncate(fd, at));
      if (at < size)
        memset(model + at, 0, (size_t)(size - at));
      size = at;
      break;
    case 1:
      if (!n)
        break;
      SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, (off_t)n));
      if (at < size)
        memset(model + at, 0, at + (off_t)n > size ? (size_t)(size - at) : n);
      break;
    default:
      pattern_fill(buf, n, (uint32_t)i);
      CHECK_EQ(pwrite(fd, buf, n, at), n);
      memcpy(model + at, buf, n);
      if (n && at + (off_t)n > size)
        size = at + (off_t)n;
    }
    at = (off_t)(next_random(&seed) % (5 << 20));
    ssize_t r = pread(fd, got, sizeof got, at);
    ssize_t want = at >= size                      ? 0
                   : size - at > (off_t)sizeof got ? (ssize_t)sizeof got
                                                   : (ssize_t)(size - at);
    if (r != want || memcmp(got, model + at, (size_t)want)) {
      check_fail(__FILE__, __LINE__, "round %d: %zd of %zd bytes at %ld", i, r, want, (long)at);
      break;
    }
  }
}
