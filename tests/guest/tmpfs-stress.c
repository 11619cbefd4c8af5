/* SPDX-License-Identifier: Apache-2.0 */
/* tmpfs-stress.c - everything at once on one small tmpfs, from several processes: nothing breaks, and when all is removed the
 * filesystem is as empty as it was. */
#include "on-tmpfs.h"

#include <dirent.h>
#include <linux/falloc.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#define WORKERS 6
#define NAMES 12

static void any_name(char *out, uint64_t *seed) {
  static const char *const dirs[] = {".", "a", "b", "a/c"};

  sprintf(out, "%s/n%d", dirs[next_random(seed) % 4], (int)(next_random(seed) % NAMES));
}

static void change_contents(const char *path, uint64_t *seed) {
  static char buf[200000];
  int fd = open(path, O_RDWR | O_NONBLOCK);
  off_t at = (off_t)(next_random(seed) % (3 << 20));
  size_t n = next_random(seed) % sizeof buf;

  if (fd < 0)
    return;
  switch (next_random(seed) % 8) {
  case 0:
    ftruncate(fd, at);
    break;
  case 1:
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, (off_t)n + 1);
    break;
  case 2:
    fallocate(fd, next_random(seed) % 2 ? FALLOC_FL_KEEP_SIZE : 0, at, (off_t)n + 1);
    break;
  case 3: {
    char *p =
        mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, next_random(seed) % 2 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
      break;
    for (int i = 0; i < 5; i++)
      touch_write(p + next_random(seed) % (1 << 20), NULL);
    munmap(p, 1 << 20);
    break;
  }
  case 4:
    pread(fd, buf, n, at);
    lseek(fd, at, next_random(seed) % 2 ? SEEK_DATA : SEEK_HOLE);
    break;
  default:
    pwrite(fd, buf, n, at);
  }
  close(fd);
}

static void change_attributes(const char *path, uint64_t *seed) {
  static const unsigned acl[] = {2, 0x70001, ~0u, 0x50002, 1000, 0x50004, ~0u, 0x70010, ~0u, 0x40020, ~0u};
  static char value[5000];

  switch (next_random(seed) % 7) {
  case 0:
    setxattr(path, "trusted.a", value, next_random(seed) % sizeof value, 0);
    break;
  case 1:
    removexattr(path, "trusted.a");
    break;
  case 2:
    setxattr(path, "system.posix_acl_access", acl, sizeof acl, 0);
    break;
  case 3:
    setxattr(path, "system.posix_acl_default", acl, sizeof acl, 0);
    break;
  case 4:
    removexattr(path, next_random(seed) % 2 ? "system.posix_acl_default" : "system.posix_acl_access");
    break;
  case 5:
    chmod(path, next_random(seed) & 0777);
    break;
  default:
    listxattr(path, value, sizeof value);
  }
}

static void list_it(uint64_t *seed) {
  DIR *d = opendir(next_random(seed) % 2 ? "." : "a");
  struct dirent *e;
  int dots = 0, n = 0;

  if (!d)
    return;
  while ((e = readdir(d)) && n++ < 1000)
    dots += !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
  CHECK_EQ(dots, 2);
  closedir(d);
}

static void one_step(uint64_t *seed) {
  char p[40], q[40], text[300];

  any_name(p, seed);
  any_name(q, seed);
  switch (next_random(seed) % 14) {
  case 0:
  case 1: {
    int fd = open(p, O_CREAT | O_RDWR | O_NONBLOCK, 0644);
    if (fd >= 0)
      close(fd);
    break;
  }
  case 2:
    mkdir(p, 0755);
    break;
  case 3:
    unlink(p);
    rmdir(p);
    break;
  case 4:
    link(p, q);
    break;
  case 5:
    memset(text, 'x', sizeof text);
    text[next_random(seed) % 299 + 1] = 0;
    symlink(text, p);
    break;
  case 6:
  case 7: {
    static const unsigned flags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT};
    renameat2(AT_FDCWD, p, AT_FDCWD, q, flags[next_random(seed) % 5]);
    break;
  }
  case 8: {
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    sprintf(text, "/proc/self/fd/%d", fd);
    write(fd, "x", 1);
    if (next_random(seed) % 2)
      linkat(AT_FDCWD, text, AT_FDCWD, p, AT_SYMLINK_FOLLOW);
    close(fd);
    break;
  }
  case 9:
    list_it(seed);
    break;
  case 10:
  case 11:
    change_attributes(p, seed);
    break;
  default:
    change_contents(p, seed);
  }
}

static void remove_tree(const char *dir) {
  DIR *d = opendir(dir);
  struct dirent *e;
  char p[400];

  while (d && (e = readdir(d)))
    if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
      snprintf(p, sizeof p, "%s/%s", dir, e->d_name);
      if (unlink(p) < 0 && errno == EISDIR) {
        remove_tree(p);
        CHECK_OK(rmdir(p));
      }
    }
  if (d)
    closedir(d);
}

TMPFS_TEST_OPTS(everything_at_once, "size=8m,nr_inodes=60,mode=777") {
  struct statfs s, t;
  struct stat st;
  pid_t pid[WORKERS];
  unsigned long base = check_seed ? check_seed : (unsigned long)now_ns();

  printf("seed %lu\n", base);
  SYS(statfs(".", &s));
  mkdir("a", 0755);
  mkdir("b", 0755);
  mkdir("a/c", 0755);
  for (int i = 0; i < WORKERS; i++)
    pid[i] = CHILD(uint64_t seed = base + (uint64_t)i * 7919; int64_t end = now_ns() + 2500000000;
                   while (now_ns() < end) one_step(&seed));
  for (int i = 0; i < WORKERS; i++)
    WAIT_OK(pid[i]);
  remove_tree(".");
  SYS(stat(".", &st));
  CHECK_EQ(st.st_nlink, 2);
  CHECK_EQ(st.st_size, 40);
  removexattr(".", "trusted.a");
  WAIT_FOR(statfs(".", &t) == 0 && t.f_bfree == s.f_bfree && t.f_ffree == s.f_ffree);
  SYS(statfs(".", &t));
  CHECK_EQ(t.f_bfree, s.f_bfree);
  CHECK_EQ(t.f_ffree, s.f_ffree);
}
