/* SPDX-License-Identifier: Apache-2.0 */
/* fsx.c - one file changed at random in every way there is, against a model in memory.
 *
 * --seed=N repeats a run (the seed is printed), --seconds=N makes it longer (TESSERA_HOSTILE_SECONDS for the runner).
 */
#include "check.h"

#include <linux/falloc.h>
#include <sys/uio.h>

#define MAX (192 * 1024)
#define OPS 4000

static unsigned char model[MAX], buf[MAX];
static size_t size;
static uint64_t rng, start_seed;
static unsigned long op;
static int fd, fd2;
static unsigned char *map; /* of MAX bytes, shared, for the whole time */

static size_t below(size_t n) { return n ? next_random(&rng) % n : 0; }

static void wrong(const char *what, size_t at) {
  check_fail(__FILE__, __LINE__, "seed %lu, operation %lu: %s: wrong at %zu (size %zu)",
             (unsigned long)start_seed, op, what, at, size);
  check_abort();
}

static void compare(const char *what, const unsigned char *got, size_t at, size_t n) {
  if (memcmp(got, model + at, n) == 0)
    return;
  size_t i = 0;
  while (got[i] == model[at + i])
    i++;
  wrong(what, at + i);
}

static void range(size_t limit, size_t *at, size_t *n) {
  *at = below(limit);
  if (below(3) == 0)
    *at &= ~4095ul;
  *n = 1 + below(below(4) ? 3000 : 40000);
  if (*n > limit - *at)
    *n = limit - *at;
}

static void random_bytes(size_t n) {
  for (size_t i = 0; i < n; i++)
    buf[i] = (unsigned char)(next_random(&rng) >> 20);
}

static void grown(size_t end) {
  if (end > size) {
    memset(model + size, 0, end - size);
    size = end;
  }
}

static void put(size_t at, size_t n) {
  if (at > size)
    grown(at);
  memcpy(model + at, buf, n);
  if (at + n > size)
    size = at + n;
}

static void do_write(void) {
  size_t at, n;
  range(MAX, &at, &n);
  random_bytes(n);
  int how = (int)below(3);
  if (how == 0) {
    CHECK_EQ(pwrite(fd, buf, n, (off_t)at), n);
  } else if (how == 1) {
    struct iovec v[2] = {{buf, n / 3}, {buf + n / 3, n - n / 3}};
    CHECK_EQ(pwritev(fd2, v, 2, (off_t)at), n);
  } else {
    SYS(lseek(fd, (off_t)at, SEEK_SET));
    CHECK_EQ(write(fd, buf, n), n);
  }
  put(at, n);
}

static void do_read(void) {
  size_t at, n;
  range(MAX, &at, &n);
  size_t want = at >= size ? 0 : n < size - at ? n : size - at;
  CHECK_EQ(pread(below(2) ? fd : fd2, buf, n, (off_t)at), want);
  compare("read", buf, at, want);
}

/* Within the pages of the file; what is stored behind its end need not stay. */
static void do_map_write(void) {
  size_t at, n;
  if (size == 0)
    return;
  range(size, &at, &n);
  random_bytes(n);
  memcpy(map + at, buf, n);
  put(at, n);
  if (below(5) == 0)
    SYS(msync(map, (size + 4095) & ~4095ul, below(2) ? MS_SYNC : MS_ASYNC));
}

static void do_map_read(void) {
  size_t at, n;
  if (size == 0)
    return;
  range(size, &at, &n);
  compare("mapping", map + at, at, n);
}

static void do_private(void) {
  size_t at, n;
  if (size == 0)
    return;
  range(size, &at, &n);
  size_t page = at & ~4095ul;
  unsigned char *p = mmap(NULL, n + (at - page), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (off_t)page);
  REQUIRE(p != MAP_FAILED);
  compare("private mapping", p + at - page, at, n);
  memset(p + at - page, 0xee, n); /* nobody else sees it */
  SYS(munmap(p, n + (at - page)));
}

static void do_truncate(void) {
  size_t to = below(MAX + 1);
  if (below(4) == 0)
    to &= ~4095ul;
  /* Behind the end of the file a mapping may have left something: it must read as zeros afterwards. */
  SYS(ftruncate(below(2) ? fd : fd2, (off_t)to));
  if (to > size)
    grown(to);
  size = to;
}

static void do_fallocate(void) {
  size_t at, n;
  range(MAX, &at, &n);
  if (below(3)) {
    SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n));
    if (at < size)
      memset(model + at, 0, n < size - at ? n : size - at);
  } else {
    bool keep = below(2);
    SYS(fallocate(fd, keep ? FALLOC_FL_KEEP_SIZE : 0, (off_t)at, (off_t)n));
    if (!keep)
      grown(at + n);
  }
}

static void do_copy(void) {
  size_t from, n, to;
  range(MAX / 2, &from, &n);
  if (from + n > size)
    return;
  to = from + n + below(MAX - (from + n) - n + 1);
  if (to + n > MAX)
    return;
  loff_t a = (loff_t)from, b = (loff_t)to;
  long done = SYS(copy_file_range(fd, &a, fd2, &b, n, 0));
  CHECK_EQ(done, n);
  memcpy(buf, model + from, n);
  put(to, n);
}

static void do_append(void) {
  size_t n = 1 + below(2000);
  if (size + n > MAX)
    return;
  int a = (int)SYS(open(tmp_path("file"), O_WRONLY | O_APPEND));
  random_bytes(n);
  CHECK_EQ(write(a, buf, n), n);
  put(size, n);
  SYS(close(a));
}

static void do_reopen(void) {
  SYS(close(fd));
  fd = (int)SYS(open(tmp_path("file"), O_RDWR));
  if (below(2))
    SYS(fsync(fd));
}

/* Data and holes cover the file, and holes read as zeros. */
static void do_seek(void) {
  off_t at = 0;
  while (at < (off_t)size) {
    off_t data = lseek(fd, at, SEEK_DATA);
    if (data < 0) {
      CHECK_EQ(errno, ENXIO);
      data = (off_t)size;
    }
    for (off_t i = at; i < data; i++)
      if (model[i])
        wrong("SEEK_DATA jumped over data", (size_t)i);
    if (data == (off_t)size)
      break;
    at = SYS(lseek(fd, data, SEEK_HOLE));
    if (at <= data)
      wrong("SEEK_HOLE does not move", (size_t)data);
  }
}

static void check_all(void) {
  struct stat st;
  SYS(fstat(fd, &st));
  if ((size_t)st.st_size != size)
    wrong("st_size", (size_t)st.st_size);
  CHECK_EQ(pread(fd2, buf, MAX, 0), size);
  compare("whole file", buf, 0, size);
  compare("whole mapping", map, 0, size);
}

static void (*const ops[])(void) = {do_write,     do_write,     do_write,    do_read,    do_read,
                                    do_map_write, do_map_write, do_map_read, do_private, do_truncate,
                                    do_fallocate, do_copy,      do_append,   do_reopen,  do_seek};

TEST_LIMIT(random_operations, 60) {
  start_seed = check_seed ? check_seed : (uint64_t)now_ns() | 1;
  rng = start_seed * 2654435761u + 1;
  dprintf(2, "seed %lu\n", (unsigned long)start_seed);
  int64_t until = now_ns() + (int64_t)(check_seconds ? check_seconds : 4) * 1000000000;
  fd = tmp_file("file", "");
  fd2 = (int)SYS(open(tmp_path("file"), O_RDWR));
  map = mmap(NULL, MAX, PROT_READ | PROT_WRITE, MAP_SHARED, fd2, 0);
  REQUIRE(map != MAP_FAILED);
  for (op = 0; (check_seconds || op < OPS) && now_ns() < until; op++) {
    ops[below(sizeof ops / sizeof *ops)]();
    if (op % 16 == 0)
      check_all();
  }
  check_all();
  CHECK(op > 100);
}
