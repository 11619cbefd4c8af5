/* SPDX-License-Identifier: Apache-2.0 */
/* fsstress.c - several processes hammer one tree; then names, link counts and contents must agree, and all of it can be removed.
 *
 * --seed=N, --seconds=N as in fsx.c. What runs at once is not repeatable; the operations of each process are.
 */
#include "check.h"

#include <dirent.h>
#include <ftw.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/xattr.h>

#define PROCESSES 4
#define OPS 1500
#define BLOCK 512

static uint64_t rng;
static size_t below(size_t n) { return next_random(&rng) % n; }

static char *name(char *p) {
  static const char *const dirs[] = {"", "d0/", "d1/", "d2/", "d0/d1/", "d1/d0/", "d2/d2/"};
  if (below(6) == 0)
    sprintf(p, "%sd%zu", dirs[below(7)], below(3));
  else
    sprintf(p, "%sf%zu", dirs[below(7)], below(6));
  return p;
}

/* Blocks are all of one byte, so that half of one would show. */
static void fill_and_check(int fd) {
  unsigned char block[BLOCK];
  for (int k = 0; k < 4; k++) {
    off_t at = (off_t)(below(64) * BLOCK);
    memset(block, 1 + (int)below(255), BLOCK);
    if (below(2)) {
      ssize_t n = pwrite(fd, block, BLOCK, at);
      CHECK(n == BLOCK || errno == EBADF);
    } else if (pread(fd, block, BLOCK, at) == BLOCK) {
      for (int i = 1; i < BLOCK; i++)
        if (block[i] != block[0]) {
          check_fail(__FILE__, __LINE__, "a block was torn at %d: %d and %d", i, block[0], block[i]);
          return;
        }
    }
  }
  if (below(8) == 0)
    ftruncate(fd, (off_t)(below(64) * BLOCK));
}

static void do_files(const char *a) {
  int fd = open(a, O_RDWR | (below(2) ? O_CREAT : 0) | O_NONBLOCK, 0644);
  if (fd < 0)
    return;
  struct stat st;
  SYS(fstat(fd, &st));
  if (S_ISREG(st.st_mode))
    fill_and_check(fd);
  if (below(10) == 0)
    flock(fd, LOCK_EX | LOCK_NB);
  SYS(close(fd));
}

static void do_list(const char *a) {
  struct dirent *e;
  DIR *d = opendir(a);
  if (!d)
    return;
  for (int n = 0; (e = readdir(d)) && n < 500; n++)
    CHECK(e->d_name[0] == '.' || e->d_name[0] == 'd' || e->d_name[0] == 'f');
  closedir(d);
}

static void one(void) {
  char a[64], b[64];
  struct stat st;
  name(a);
  name(b);
  switch (below(14)) {
  case 0:
  case 1:
  case 2:
    do_files(a);
    break;
  case 3:
    unlink(a);
    break;
  case 4:
    rename(a, b);
    break;
  case 5:
    syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, below(2) ? RENAME_EXCHANGE : RENAME_NOREPLACE);
    break;
  case 6:
    link(a, b);
    break;
  case 7:
    symlink("f0", a);
    break;
  case 8:
    mkdir(a, 0755);
    break;
  case 9:
    rmdir(a);
    break;
  case 10:
    do_list(below(2) ? "." : a);
    break;
  case 11:
    if (lstat(a, &st) == 0)
      CHECK(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode));
    break;
  case 12:
    chmod(a, below(2) ? 0755 : 0700);
    break;
  case 13:
    truncate(a, (off_t)(below(64) * BLOCK));
    break;
  }
}

static void hammer(uint64_t seed) {
  int64_t until = now_ns() + (int64_t)(check_seconds ? check_seconds : 4) * 1000000000;
  rng = seed;
  for (int i = 0; (check_seconds || i < OPS) && now_ns() < until; i++)
    one();
}

/* Every name that the tree has. */
static struct {
  ino_t ino;
  nlink_t nlink;
  bool dir;
  unsigned names, subdirs;
} seen[512];
static unsigned n_seen;

static int note(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)ftw;
  unsigned i = 0;
  if (type == FTW_NS)
    check_fail(__FILE__, __LINE__, "%s is listed, but lstat says %s", path, strerror(errno));
  while (i < n_seen && seen[i].ino != st->st_ino)
    i++;
  REQUIRE(i < 512);
  if (i == n_seen)
    n_seen++;
  seen[i].ino = st->st_ino;
  seen[i].nlink = st->st_nlink;
  seen[i].dir = S_ISDIR(st->st_mode);
  seen[i].names++;
  return 0;
}

TEST_LIMIT(many_processes, 60) {
  uint64_t seed = check_seed ? check_seed : (uint64_t)now_ns() | 1;
  pid_t pids[PROCESSES];
  dprintf(2, "seed %lu\n", (unsigned long)seed);
  SYS(mkdir(tmp_path("tree"), 0755));
  SYS(chdir(tmp_path("tree")));
  for (unsigned i = 0; i < PROCESSES; i++)
    pids[i] = CHILD(hammer(seed * PROCESSES + i + 1));
  for (unsigned i = 0; i < PROCESSES; i++)
    WAIT_OK(pids[i]);
  CHECK_EQ(nftw(".", note, 16, FTW_PHYS), 0);
  CHECK(n_seen > 3);
  for (unsigned i = 0; i < n_seen; i++) {
    if (seen[i].dir)
      CHECK_EQ(seen[i].names, 1);
    else if (seen[i].nlink != seen[i].names)
      check_fail(__FILE__, __LINE__, "inode %lu has %u names, but st_nlink says %lu",
                 (unsigned long)seen[i].ino, seen[i].names, (unsigned long)seen[i].nlink);
  }
}

typedef struct {
  uint32_t writer, number, sum, pad[5];
} Record;

/* O_APPEND: no record is torn, lost or doubled, and each writer's are in order. */
TEST_LIMIT(append_records, 60) {
  enum { EACH = 400 };
  pid_t pids[PROCESSES];
  SYS(close(tmp_file("log", "")));
  for (unsigned w = 0; w < PROCESSES; w++)
    pids[w] = CHILD({
      int fd = (int)SYS(open(tmp_path("log"), O_WRONLY | O_APPEND));
      for (uint32_t i = 0; i < EACH; i++) {
        Record r = {w, i, w * 1000003 + i, {i, w, i, w, i}};
        CHECK_EQ(write(fd, &r, sizeof r), sizeof r);
      }
    });
  for (unsigned w = 0; w < PROCESSES; w++)
    WAIT_OK(pids[w]);
  size_t n;
  Record *log = (Record *)read_file(tmp_path("log"), &n);
  uint32_t next[PROCESSES] = {0};
  CHECK_EQ(n, PROCESSES * EACH * sizeof *log);
  for (size_t i = 0; i < n / sizeof *log; i++) {
    REQUIRE(log[i].writer < PROCESSES && log[i].sum == log[i].writer * 1000003 + log[i].number);
    CHECK_EQ(log[i].number, next[log[i].writer]);
    next[log[i].writer] = log[i].number + 1;
  }
  free(log);
}
