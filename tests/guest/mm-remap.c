/* SPDX-License-Identifier: Apache-2.0 */
/* mm-remap.c - mremap(2), madvise(2), msync(2), mincore(2), mlock(2), brk(2), memfd_create(2) and seals. */
#include "check.h"

#include <linux/memfd.h>

#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

TEST(mremap_grow_in_place_and_move) {
  char *p = map_anon(8 * PAGE, RW);

  SYS(munmap(p + 4 * PAGE, 4 * PAGE));
  pattern_fill(p, 4 * PAGE, 1);
  CHECK(mremap(p, 4 * PAGE, 8 * PAGE, 0) == p);
  CHECK(pattern_ok(p, 4 * PAGE, 1));
  CHECK_EQ(p[7 * PAGE], 0);
  SYS(munmap(p + 4 * PAGE, 4 * PAGE));
  CHECK(mmap(p + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == p + 4 * PAGE);
  CHECK_ERRNO((long)mremap(p, 4 * PAGE, 6 * PAGE, 0), ENOMEM);
  char *q = mremap(p, 4 * PAGE, 100 * PAGE, MREMAP_MAYMOVE);
  REQUIRE(q != MAP_FAILED);
  CHECK(q != p);
  CHECK(pattern_ok(q, 4 * PAGE, 1));
  CHECK_EQ(q[99 * PAGE], 0);
  CHECK_EQ(touch_read(p, NULL), SIGSEGV);
}

TEST(mremap_shrink) {
  char *p = map_anon(8 * PAGE, RW);

  pattern_fill(p, 8 * PAGE, 2);
  CHECK(mremap(p, 8 * PAGE, 3 * PAGE, 0) == p);
  CHECK(pattern_ok(p, 3 * PAGE, 2));
  CHECK_EQ(touch_read(p + 3 * PAGE, NULL), SIGSEGV);
  CHECK_EQ(touch_read(p + 7 * PAGE, NULL), SIGSEGV);
}

TEST(mremap_fixed) {
  char *p = map_anon(4 * PAGE, RW), *q = map_anon(4 * PAGE, RW);

  pattern_fill(p, 4 * PAGE, 3);
  memset(q, 'z', 4 * PAGE);
  CHECK(mremap(p, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
  CHECK(pattern_ok(q, 4 * PAGE, 3));
  CHECK_EQ(touch_read(p, NULL), SIGSEGV);
  CHECK_ERRNO((long)mremap(q, 4 * PAGE, 4 * PAGE, MREMAP_FIXED, p), EINVAL);
  CHECK_ERRNO((long)mremap(q, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q + PAGE), EINVAL);
  CHECK_ERRNO((long)mremap(q, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 1), EINVAL);
}

TEST(mremap_bad_arguments) {
  char *p = map_anon(4 * PAGE, RW);

  CHECK_ERRNO((long)mremap(p + 1, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EINVAL);
  CHECK_ERRNO((long)mremap(p, PAGE, 0, MREMAP_MAYMOVE), EINVAL);
  CHECK_ERRNO((long)mremap(p, PAGE, PAGE, 0x80), EINVAL);
  CHECK_ERRNO((long)mremap(p, 0, PAGE, MREMAP_MAYMOVE), EINVAL); /* old size 0 needs a shared mapping */
  SYS(munmap(p + 2 * PAGE, PAGE));
  CHECK_ERRNO((long)mremap(p + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
  CHECK_ERRNO((long)mremap(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE), EFAULT);
}

TEST(mremap_duplicates_a_shared_mapping) {
  char *p = map_shared(2 * PAGE);
  char *q = mremap(p, 0, 2 * PAGE, MREMAP_MAYMOVE);

  REQUIRE(q != MAP_FAILED);
  p[0] = 5;
  CHECK_EQ(q[0], 5);
  q[PAGE] = 6;
  CHECK_EQ(p[PAGE], 6);
}

TEST(mremap_dontunmap) {
  char *p = map_anon(2 * PAGE, RW);

  p[0] = 8;
  char *q = mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
  if (q == MAP_FAILED && errno == EINVAL)
    SKIP("MREMAP_DONTUNMAP is not supported (it is from Linux 5.7)");
  REQUIRE(q != MAP_FAILED);
  CHECK_EQ(q[0], 8);
  CHECK_EQ(p[0], 0);
  CHECK_ERRNO((long)mremap(p, 2 * PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL), EINVAL);
}

TEST(mremap_keeps_the_file_offset) {
  int fd = tmp_file("f", "");
  char buf[3 * PAGE];

  pattern_fill(buf, sizeof buf, 4);
  write_full(fd, buf, sizeof buf);
  char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
  REQUIRE(p != MAP_FAILED);
  char *q = mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
  REQUIRE(q != MAP_FAILED);
  CHECK(memcmp(q, buf + PAGE, 2 * PAGE) == 0);
}

TEST(madvise_dontneed) {
  char *p = map_anon(4 * PAGE, RW);

  memset(p, 'x', 4 * PAGE);
  CHECK_OK(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED));
  CHECK_EQ(p[0], 'x');
  CHECK_EQ(p[PAGE], 0);
  CHECK_EQ(p[3 * PAGE - 1], 0);
  CHECK_EQ(p[3 * PAGE], 'x');
  p[PAGE] = 'y';
  CHECK_EQ(p[PAGE], 'y');
}

TEST(madvise_dontneed_private_file_rereads_it) {
  int fd = tmp_file("f", "hello");
  char *p = mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);

  REQUIRE(p != MAP_FAILED);
  p[0] = 'J';
  CHECK_EQ(p[0], 'J');
  CHECK_OK(madvise(p, PAGE, MADV_DONTNEED));
  CHECK_EQ(p[0], 'h');
}

TEST(madvise_arguments) {
  char *p = map_anon(4 * PAGE, RW);

  CHECK_ERRNO(madvise(p + 1, PAGE, MADV_DONTNEED), EINVAL);
  CHECK_ERRNO(madvise(p, PAGE, 12345), EINVAL);
  CHECK_OK(madvise(p, 0, MADV_DONTNEED));
  CHECK_ERRNO(madvise(p, ~0ul - 100, MADV_DONTNEED), EINVAL);
  SYS(munmap(p + PAGE, PAGE));
  p[2 * PAGE] = 3;
  CHECK_ERRNO(madvise(p, 4 * PAGE, MADV_DONTNEED), ENOMEM);
  CHECK_EQ(p[2 * PAGE], 0); /* what lies after the hole is dropped all the same */
  static const int harmless[] = {MADV_NORMAL,   MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
                                 MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP,   MADV_DODUMP};
  for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
    CHECK_OK(madvise(p, PAGE, harmless[i]));
}

TEST(madvise_free_reads_old_or_zero) {
  char *p = map_anon(PAGE, RW);

  p[0] = 'o';
  CHECK_OK(madvise(p, PAGE, MADV_FREE));
  CHECK(p[0] == 'o' || p[0] == 0);
  p[0] = 'n';
  CHECK_EQ(p[0], 'n');
}

TEST(madvise_dontfork_and_wipeonfork) {
  char *gone = map_anon(PAGE, RW), *wiped = map_anon(PAGE, RW), *kept = map_anon(PAGE, RW);

  gone[0] = wiped[0] = kept[0] = 'k';
  CHECK_OK(madvise(gone, PAGE, MADV_DONTFORK));
  CHECK_OK(madvise(wiped, PAGE, MADV_WIPEONFORK));
  WAIT_OK(CHILD(CHECK_EQ(touch_read(gone, NULL), SIGSEGV); CHECK_EQ(wiped[0], 0); CHECK_EQ(kept[0], 'k')));
  CHECK_EQ(wiped[0], 'k');
  CHECK_EQ(gone[0], 'k');
}

TEST(madvise_remove_punches_a_shared_mapping) {
  int fd = (int)SYS(memfd_create("m", MFD_CLOEXEC));
  char c;

  SYS(ftruncate(fd, 4 * PAGE));
  char *p = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
  REQUIRE(p != MAP_FAILED);
  memset(p, 'x', 4 * PAGE);
  CHECK_OK(madvise(p + PAGE, PAGE, MADV_REMOVE));
  CHECK_EQ(p[PAGE], 0);
  CHECK_EQ(p[0], 'x');
  CHECK_EQ(pread(fd, &c, 1, PAGE + 5), 1);
  CHECK_EQ(c, 0);
  CHECK_ERRNO(madvise(map_anon(PAGE, RW), PAGE, MADV_REMOVE), EINVAL);
}

TEST(msync_arguments) {
  int fd = tmp_file("f", "hello");
  char *p = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);

  REQUIRE(p != MAP_FAILED);
  CHECK_OK(msync(p, PAGE, MS_SYNC));
  CHECK_OK(msync(p, PAGE, MS_ASYNC));
  CHECK_OK(msync(p, PAGE, MS_INVALIDATE));
  CHECK_ERRNO(msync(p, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
  CHECK_ERRNO(msync(p, PAGE, 0x40), EINVAL);
  CHECK_ERRNO(msync(p + 1, PAGE, MS_SYNC), EINVAL);
  SYS(munmap(p + PAGE, PAGE));
  CHECK_ERRNO(msync(p, 2 * PAGE, MS_SYNC), ENOMEM);
  CHECK_OK(msync(p, 0, MS_SYNC));
}

TEST(mincore_results) {
  char *p = map_anon(8 * PAGE, RW);
  unsigned char vec[8];

  memset(vec, 0x55, sizeof vec);
  p[0] = 1;
  CHECK_OK(mincore(p, 8 * PAGE, vec));
  CHECK_EQ(vec[0] & 1, 1);
  for (int i = 0; i < 8; i++)
    CHECK_EQ(vec[i] & 0xfe, 0);
  CHECK_ERRNO(mincore(p + 1, PAGE, vec), EINVAL);
  CHECK_ERRNO(mincore(p, PAGE, (unsigned char *)8), EFAULT);
  SYS(munmap(p + 4 * PAGE, PAGE));
  CHECK_ERRNO(mincore(p, 8 * PAGE, vec), ENOMEM);
  CHECK_OK(mincore(p, 0, vec));
}

TEST(mlock_arguments) {
  char *p = map_anon(4 * PAGE, RW);

  CHECK_OK(mlock(p, 2 * PAGE));
  CHECK_OK(mlock(p + 100, 10));
  CHECK_OK(munlock(p, 2 * PAGE));
  CHECK_OK(mlock2(p, PAGE, MLOCK_ONFAULT));
  CHECK_ERRNO(mlock2(p, PAGE, 0x80), EINVAL);
  SYS(munmap(p + 2 * PAGE, PAGE));
  CHECK_ERRNO(mlock(p, 4 * PAGE), ENOMEM);
  CHECK_ERRNO(munlock(p, 4 * PAGE), ENOMEM);
  int r = mlock(p, ~0ul - PAGE); /* which of the two comes first depends on CAP_IPC_LOCK */
  CHECK(r == -1 && (errno == EINVAL || errno == ENOMEM));
  CHECK_ERRNO(mlockall(0), EINVAL);
  CHECK_ERRNO(mlockall(0x100), EINVAL);
  CHECK_OK(munlockall());
}

static void *raw_brk(void *p) { return (void *)syscall(SYS_brk, p); }

TEST(brk_moves) {
  char *start = raw_brk(NULL);
  char *base = (char *)(((uintptr_t)start + PAGE - 1) & ~(PAGE - 1));

  CHECK(raw_brk(base + 10 * PAGE) == base + 10 * PAGE);
  memset(base, 'b', 10 * PAGE);
  CHECK(raw_brk(base + 10 * PAGE + 123) == base + 10 * PAGE + 123);
  CHECK_EQ(base[10 * PAGE + 5], 0);
  CHECK(raw_brk(base + PAGE) == base + PAGE);
  CHECK_EQ(touch_read(base + PAGE, NULL), SIGSEGV);
  CHECK_EQ(base[PAGE - 1], 'b');
  CHECK(raw_brk(base + 2 * PAGE) == base + 2 * PAGE);
  CHECK_EQ(base[PAGE], 0); /* comes back zeroed */
  /* Refusals answer with the break as it is. */
  CHECK(raw_brk((void *)1) == base + 2 * PAGE);
  CHECK(raw_brk((void *)(1ul << 47)) == base + 2 * PAGE);
  CHECK(raw_brk(start) == start);
}

TEST(brk_stops_at_a_mapping) {
  char *start = raw_brk(NULL);
  char *base = (char *)(((uintptr_t)start + PAGE - 1) & ~(PAGE - 1));
  char *wall = base + 64 * PAGE;

  REQUIRE(mmap(wall, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == wall);
  wall[0] = 'w';
  CHECK(raw_brk(wall + 10 * PAGE) == start);
  CHECK_EQ(wall[0], 'w');
  CHECK(raw_brk(base + 8 * PAGE) == base + 8 * PAGE);
}

TEST(brk_after_fork_is_private) {
  char *p = sbrk(PAGE * 2);

  REQUIRE(p != (void *)-1);
  p[0] = 'p';
  WAIT_OK(CHILD(p[0] = 'c'; CHECK(sbrk(4 * PAGE) == p + 2 * PAGE); p[5 * PAGE] = 1));
  CHECK_EQ(p[0], 'p');
  CHECK(sbrk(0) == p + 2 * PAGE);
}

TEST(memfd_basics) {
  int fd = (int)SYS(memfd_create("some name", MFD_CLOEXEC));
  char link[200] = "", path[64];
  struct stat st;

  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 0);
  CHECK(S_ISREG(st.st_mode));
  CHECK_EQ(st.st_nlink, 0);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK(readlink(path, link, sizeof link - 1) > 0);
  CHECK_STR(link, "/memfd:some name (deleted)"); /* W5 */
  CHECK_EQ(write(fd, "abc", 3), 3);
  char *p = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
  REQUIRE(p != MAP_FAILED);
  CHECK(memcmp(p, "abc", 4) == 0);
  p[0] = 'X';
  char c;
  CHECK_EQ(pread(fd, &c, 1, 0), 1);
  CHECK_EQ(c, 'X');
}

TEST(memfd_arguments) {
  char name[300];

  memset(name, 'n', sizeof name);
  name[250] = 0;
  CHECK_ERRNO(memfd_create(name, 0), EINVAL);
  name[249] = 0;
  CHECK_OK(memfd_create(name, 0));
  CHECK_ERRNO(memfd_create("x", 0x40000000), EINVAL);
  CHECK_ERRNO(memfd_create((char *)8, 0), EFAULT);
  int fd = (int)SYS(memfd_create("", 0));
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
}

TEST(memfd_seals) {
  int fd = (int)SYS(memfd_create("s", MFD_ALLOW_SEALING));
  int unsealable = (int)SYS(memfd_create("u", 0));

  CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
  CHECK_EQ(fcntl(unsealable, F_GET_SEALS), F_SEAL_SEAL);
  CHECK_ERRNO(fcntl(unsealable, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
  SYS(ftruncate(fd, 2 * PAGE));
  CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
  CHECK_ERRNO(ftruncate(fd, PAGE), EPERM);
  CHECK_OK(ftruncate(fd, 3 * PAGE));
  CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
  CHECK_ERRNO(ftruncate(fd, 4 * PAGE), EPERM);
  CHECK_ERRNO(pwrite(fd, "x", 1, 3 * PAGE), EPERM);
  CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
  CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, 0x8000), EINVAL);
  CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
  CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
  CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK);
  CHECK_ERRNO(fcntl(tmp_file("plain", ""), F_ADD_SEALS, 0x8000), EINVAL);
}

TEST(memfd_write_seal) {
  int fd = (int)SYS(memfd_create("s", MFD_ALLOW_SEALING));

  SYS(ftruncate(fd, PAGE));
  char *p = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
  REQUIRE(p != MAP_FAILED);
  CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
  SYS(munmap(p, PAGE));
  CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  CHECK_ERRNO(write(fd, "x", 1), EPERM);
  CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), EPERM);
  p = mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);
  REQUIRE(p != MAP_FAILED);
  p[0] = 1;
  CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), EPERM);
}
