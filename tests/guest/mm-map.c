/* SPDX-License-Identifier: Apache-2.0 */
/* mm-map.c - mmap(2), munmap(2), mprotect(2): arguments, placement, partial changes, reservations. */
#include "check.h"

#include <sys/auxv.h>

#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

TEST(anon_is_zero_and_writable) {
  size_t len = 3 * 1024 * 1024;
  unsigned char *p = map_anon(len, RW);

  for (size_t i = 0; i < len; i += 512)
    if (!CHECK_EQ(p[i], 0))
      break;
  pattern_fill(p, len, 3);
  CHECK(pattern_ok(p, len, 3));
  CHECK_OK(munmap(p, len));
  CHECK_EQ(touch_read(p, NULL), SIGSEGV);
}

TEST(freed_memory_comes_back_zeroed) {
  for (int round = 0; round < 20; round++) {
    size_t len = (size_t)(1 + round * 7 % 40) * PAGE;
    unsigned char *p = map_anon(len, RW);
    for (size_t i = 0; i < len; i++)
      if (p[i]) {
        check_fail(__FILE__, __LINE__, "byte %zu is 0x%x", i, p[i]);
        return;
      }
    memset(p, 0xa5, len);
    CHECK_OK(munmap(p, len));
  }
}

TEST(mmap_bad_arguments) {
  CHECK_ERRNO((long)mmap(NULL, 0, RW, ANON, -1, 0), EINVAL);
  CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
  CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_PRIVATE, -1, 0), EBADF);
  CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_PRIVATE, 9999, 0), EBADF);
  CHECK_ERRNO((long)mmap((void *)(0x10000000 + 1), PAGE, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
  CHECK_ERRNO((long)mmap(NULL, ~0ul - PAGE, RW, ANON, -1, 0), ENOMEM);
  CHECK_ERRNO((long)mmap(NULL, 1ul << 47, RW, ANON | MAP_NORESERVE, -1, 0), ENOMEM);
  CHECK_ERRNO((long)mmap((void *)(1ul << 47), PAGE, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
  CHECK_ERRNO((long)mmap((void *)((1ul << 47) - PAGE), PAGE, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
}

TEST(mmap_unaligned_file_offset) {
  int fd = tmp_file("f", "x");
  CHECK_ERRNO(syscall(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fd, 1), EINVAL);
  CHECK_ERRNO(syscall(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE / 2), EINVAL);
  CHECK_ERRNO(syscall(SYS_mmap, 0, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0x7ffffffffffff000), EOVERFLOW);
}

TEST(mmap_file_permissions) {
  int fd = tmp_file("f", "hello");
  int ro = (int)SYS(open(tmp_path("f"), O_RDONLY)), wo = (int)SYS(open(tmp_path("f"), O_WRONLY));
  int opath = (int)SYS(open(tmp_path("f"), O_PATH)), dir = (int)SYS(open(tmp_dir(), O_RDONLY | O_DIRECTORY));
  int pipes[2];

  SYS(pipe(pipes));
  CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_SHARED, ro, 0), EACCES);
  CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, wo, 0), EACCES);
  CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, wo, 0), EACCES);
  CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, opath, 0), EBADF);
  CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, dir, 0), ENODEV);
  CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pipes[0], 0), ENODEV);
  char *p = mmap(NULL, PAGE, RW, MAP_PRIVATE, ro, 0);
  REQUIRE(p != MAP_FAILED);
  p[0] = 'J';
  char c;
  CHECK_EQ(pread(fd, &c, 1, 0), 1);
  CHECK_EQ(c, 'h');
}

TEST(shared_read_only_cannot_become_writable) {
  tmp_file("f", "hello");
  int ro = (int)SYS(open(tmp_path("f"), O_RDONLY));
  char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ro, 0);
  REQUIRE(p != MAP_FAILED);
  CHECK_ERRNO(mprotect(p, PAGE, RW), EACCES);
  CHECK_OK(mprotect(p, PAGE, PROT_NONE));
  CHECK_OK(mprotect(p, PAGE, PROT_READ));
  CHECK_EQ(p[0], 'h');
}

TEST(map_shared_validate_rejects_unknown_flags) {
  int fd = tmp_file("f", "hello");
  CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 0x200000, fd, 0), EOPNOTSUPP);
  void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE, fd, 0);
  CHECK(p != MAP_FAILED);
}

TEST(fixed_replaces_what_is_there) {
  char *p = map_anon(5 * PAGE, RW);

  memset(p, 'a', 5 * PAGE);
  CHECK(mmap(p + 2 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == p + 2 * PAGE);
  CHECK_EQ(p[2 * PAGE - 1], 'a');
  CHECK_EQ(p[2 * PAGE], 0);
  CHECK_EQ(p[3 * PAGE - 1], 0);
  CHECK_EQ(p[3 * PAGE], 'a');
}

TEST(fixed_noreplace) {
  char *p = map_anon(4 * PAGE, RW);
  int flags = ANON | MAP_FIXED_NOREPLACE;

  p[0] = 7;
  CHECK_ERRNO((long)mmap(p, PAGE, RW, flags, -1, 0), EEXIST);
  CHECK_OK(munmap(p + PAGE, 2 * PAGE));
  CHECK(mmap(p + PAGE, PAGE, RW, flags, -1, 0) == p + PAGE);
  CHECK_ERRNO((long)mmap(p + PAGE, 2 * PAGE, RW, flags, -1, 0), EEXIST);
  CHECK_ERRNO((long)mmap(p + 2 * PAGE, 2 * PAGE, RW, flags, -1, 0), EEXIST);
  CHECK(mmap(p + 2 * PAGE, PAGE, RW, flags, -1, 0) == p + 2 * PAGE);
  CHECK_EQ(p[0], 7);
}

TEST(hint_is_taken_when_free) {
  char *p = map_anon(4 * PAGE, RW);

  SYS(munmap(p, 4 * PAGE));
  CHECK(mmap(p + PAGE, PAGE, RW, ANON, -1, 0) == p + PAGE);
  char *q = mmap(p + PAGE, PAGE, RW, ANON, -1, 0);
  CHECK(q != p + PAGE && q != MAP_FAILED);
  /* An unaligned hint is rounded, not refused. */
  char *r = mmap(p + 2 * PAGE + 5, PAGE, RW, ANON, -1, 0);
  CHECK(r != MAP_FAILED && (uintptr_t)r % PAGE == 0);
}

TEST(munmap_arguments) {
  char *p = map_anon(4 * PAGE, RW);

  CHECK_ERRNO(munmap(p + 1, PAGE), EINVAL);
  CHECK_ERRNO(munmap(p, 0), EINVAL);
  CHECK_ERRNO(munmap(p, 1ul << 47), EINVAL);
  CHECK_ERRNO(munmap((void *)~(PAGE - 1), PAGE), EINVAL);
  CHECK_OK(munmap(p, 1)); /* rounded up to a page */
  CHECK_EQ(touch_read(p, NULL), SIGSEGV);
  CHECK_EQ(touch_read(p + PAGE, NULL), 0);
  CHECK_OK(munmap(p, 4 * PAGE)); /* holes are fine */
  CHECK_OK(munmap(p, 4 * PAGE));
}

TEST(partial_unmaps) {
  enum { N = 16 };
  char *p = map_anon(N * PAGE, RW);

  for (int i = 0; i < N; i++)
    p[i * (int)PAGE] = (char)(i + 1);
  for (int i = 1; i < N; i += 2)
    SYS(munmap(p + i * (int)PAGE, PAGE));
  for (int i = 0; i < N; i++) {
    CHECK_EQ(touch_read(p + i * (int)PAGE, NULL), i % 2 ? SIGSEGV : 0);
    if (i % 2 == 0)
      CHECK_EQ(p[i * (int)PAGE], i + 1);
  }
  SYS(munmap(p + 3 * PAGE, 10 * PAGE));
  CHECK_EQ(p[2 * PAGE], 3);
  CHECK_EQ(touch_read(p + 4 * PAGE, NULL), SIGSEGV);
  CHECK_EQ(p[14 * PAGE], 15);
}

TEST(unmap_inside_one_huge_range) {
  size_t big = 256ul << 20;
  char *p = mmap(NULL, big, RW, ANON | MAP_NORESERVE, -1, 0);

  REQUIRE(p != MAP_FAILED);
  p[0] = 1;
  p[big / 2 + PAGE] = 2;
  p[big - 1] = 3;
  SYS(munmap(p + big / 2, PAGE));
  CHECK_EQ(touch_read(p + big / 2, NULL), SIGSEGV);
  CHECK_EQ(touch_read(p + big / 2 - 1, NULL), 0);
  CHECK_EQ(p[0], 1);
  CHECK_EQ(p[big / 2 + PAGE], 2);
  CHECK_EQ(p[big - 1], 3);
  CHECK_OK(munmap(p, big));
}

TEST(mprotect_steps) {
  char *p = map_anon(3 * PAGE, RW);
  siginfo_t si;

  memset(p, 'q', 3 * PAGE);
  SYS(mprotect(p + PAGE, PAGE, PROT_READ));
  CHECK_EQ(touch_read(p + PAGE, NULL), 0);
  CHECK_EQ(touch_write(p + PAGE, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SEGV_ACCERR);
  CHECK(si.si_addr == p + PAGE);
  SYS(mprotect(p + PAGE, PAGE, PROT_NONE));
  CHECK_EQ(touch_read(p + PAGE + 100, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SEGV_ACCERR);
  CHECK(si.si_addr == p + PAGE + 100);
  SYS(mprotect(p, 3 * PAGE, RW));
  CHECK_EQ(p[PAGE], 'q');
  p[PAGE] = 'r';
  CHECK_EQ(p[PAGE], 'r');
}

TEST(mprotect_arguments) {
  char *p = map_anon(3 * PAGE, RW);

  CHECK_ERRNO(mprotect(p + 1, PAGE, PROT_READ), EINVAL);
  CHECK_OK(mprotect(p, 0, PROT_READ));
  CHECK_EQ(touch_write(p, NULL), 0);
  CHECK_ERRNO(mprotect(p, PAGE, 0x1000), EINVAL);
  SYS(munmap(p + 2 * PAGE, PAGE));
  /* The part before the hole is changed all the same. */
  CHECK_ERRNO(mprotect(p, 3 * PAGE, PROT_READ), ENOMEM);
  CHECK_EQ(touch_write(p, NULL), SIGSEGV);
  CHECK_ERRNO(mprotect((void *)0x1000, PAGE, PROT_READ), ENOMEM);
}

static int exec_code(const unsigned char *code, size_t n, int prot) {
  unsigned char *p = map_anon(PAGE, RW);
  memcpy(p, code, n);
  SYS(mprotect(p, PAGE, prot));
  int r = ((int (*)(void))(void *)p)();
  SYS(munmap(p, PAGE));
  return r;
}

static void run_code(void *p) { ((int (*)(void))p)(); }

TEST(executable_memory) {
  static const unsigned char ret42[] = {0xb8, 42, 0, 0, 0, 0xc3}, ret7[] = {0xb8, 7, 0, 0, 0, 0xc3};

  CHECK_EQ(exec_code(ret42, sizeof ret42, PROT_READ | PROT_EXEC), 42);
  CHECK_EQ(exec_code(ret42, sizeof ret42, RW | PROT_EXEC), 42);
  unsigned char *p = map_anon(PAGE, RW | PROT_EXEC);
  memcpy(p, ret42, sizeof ret42);
  CHECK_EQ(((int (*)(void))(void *)p)(), 42);
  memcpy(p, ret7, sizeof ret7); /* self-modifying code, also where the kernel rewrites instructions */
  CHECK_EQ(((int (*)(void))(void *)p)(), 7);
}

TEST(no_exec_is_enforced) {
  unsigned char *p = map_anon(PAGE, RW);
  siginfo_t si;

  p[0] = 0xc3;
  CHECK_EQ(catch_fault(run_code, p, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SEGV_ACCERR);
  CHECK(si.si_addr == p);
}

/* DESIGN.md decision 3: terabyte reservations cost nothing. */
TEST(terabyte_noreserve) {
  size_t len = 1ul << 40;
  char *p = mmap(NULL, len, RW, ANON | MAP_NORESERVE, -1, 0);

  if (p == MAP_FAILED && !check_in_sandbox)
    SKIP("the host refuses 1 TiB NORESERVE: %s", strerror(errno));
  REQUIRE(p != MAP_FAILED);
  for (size_t at = 0; at < len; at += len / 8)
    CHECK_EQ(p[at], 0);
  for (size_t at = 12345; at < len; at += len / 16)
    p[at] = (char)(at >> 36);
  for (size_t at = 12345; at < len; at += len / 16)
    CHECK_EQ(p[at], (char)(at >> 36));
  CHECK_OK(munmap(p, len));
}

TEST(terabyte_prot_none_then_commit) {
  size_t len = 1ul << 40;
  char *p = mmap(NULL, len, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);

  REQUIRE(p != MAP_FAILED);
  CHECK_EQ(touch_read(p + len / 2, NULL), SIGSEGV);
  for (int i = 0; i < 32; i++) {
    char *at = p + (len / 32) * (size_t)i;
    SYS(mprotect(at, 16 * PAGE, RW));
    at[5 * PAGE] = (char)i;
  }
  for (int i = 0; i < 32; i++)
    CHECK_EQ(p[(len / 32) * (size_t)i + 5 * PAGE], i);
  CHECK_EQ(touch_read(p + 16 * PAGE, NULL), SIGSEGV);
  /* The way Go and Java give memory back. */
  CHECK(mmap(p, 16 * PAGE, PROT_NONE, ANON | MAP_NORESERVE | MAP_FIXED, -1, 0) == p);
  CHECK_EQ(touch_read(p, NULL), SIGSEGV);
  CHECK_OK(munmap(p, len));
}

TEST(many_reservations) {
  void *p[64];

  for (int i = 0; i < 64; i++) {
    p[i] = mmap(NULL, 64ul << 30, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    REQUIRE(p[i] != MAP_FAILED);
  }
  for (int i = 0; i < 64; i++)
    CHECK_OK(munmap(p[i], 64ul << 30));
}

TEST(fork_with_a_reservation) {
  size_t len = 1ul << 40;
  char *p = mmap(NULL, len, RW, ANON | MAP_NORESERVE, -1, 0);

  if (p == MAP_FAILED)
    SKIP("the host refuses 1 TiB NORESERVE: %s", strerror(errno));
  p[len / 3] = 9;
  pid_t pid = CHILD(CHECK_EQ(p[len / 3], 9); p[len / 3] = 10; p[len / 5] = 1; CHECK_EQ(p[len / 3], 10));
  WAIT_OK(pid);
  CHECK_EQ(p[len / 3], 9);
  CHECK_EQ(p[len / 5], 0);
}

TEST(thousands_of_scattered_pages) {
  enum { N = 4000 };
  char *p = map_anon((size_t)N * 2 * PAGE, RW);

  for (int i = 0; i < N; i++) {
    SYS(mprotect(p + (size_t)i * 2 * PAGE, PAGE, PROT_READ));
    p[((size_t)i * 2 + 1) * PAGE] = (char)i;
  }
  for (int i = 0; i < N; i++)
    if (!CHECK_EQ(p[((size_t)i * 2 + 1) * PAGE], (char)i))
      break;
  CHECK_EQ(touch_write(p + 100 * PAGE, NULL), SIGSEGV);
  CHECK_EQ(touch_write(p + 101 * PAGE, NULL), 0);
  CHECK_OK(munmap(p, (size_t)N * 2 * PAGE));
}

TEST(null_page_is_never_given) {
  for (int i = 0; i < 50; i++) {
    char *p = mmap(NULL, PAGE, RW, ANON, -1, 0);
    CHECK(p != NULL && p != MAP_FAILED);
  }
  siginfo_t si;
  CHECK_EQ(touch_write(NULL, &si), SIGSEGV);
  CHECK(si.si_addr == NULL);
  CHECK_EQ(si.si_code, SEGV_MAPERR);
}

TEST(map_32bit) {
  char *p = mmap(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0);

  REQUIRE(p != MAP_FAILED);
  CHECK((uintptr_t)p < (1ul << 31));
  p[0] = 1;
}

TEST(map_populate_and_locked_flags) {
  char *p = mmap(NULL, 16 * PAGE, RW, ANON | MAP_POPULATE, -1, 0);
  unsigned char vec[16];

  REQUIRE(p != MAP_FAILED);
  CHECK_OK(mincore(p, 16 * PAGE, vec));
  for (int i = 0; i < 16; i++)
    CHECK(vec[i] & 1);
  p = mmap(NULL, PAGE, RW, ANON | MAP_NORESERVE | MAP_STACK | MAP_GROWSDOWN, -1, 0);
  CHECK(p != MAP_FAILED);
}

HELPER(print_layout) {
  int local;
  printf("%lx %lx %lx\n", (unsigned long)&local, (unsigned long)map_anon(PAGE, RW), (unsigned long)sbrk(0));
  return 0;
}

static void layout(unsigned long out[3]) {
  int fds[2];
  char text[200] = "";

  SYS(pipe(fds));
  pid_t pid =
      CHILD(dup2(fds[1], 1); execl("/proc/self/exe", "mm", "--helper", "print_layout", NULL); _exit(9));
  close(fds[1]);
  CHECK(read(fds[0], text, sizeof text - 1) > 0);
  close(fds[0]);
  WAIT_OK(pid);
  CHECK_EQ(sscanf(text, "%lx %lx %lx", &out[0], &out[1], &out[2]), 3);
}

TEST(addresses_are_random) {
  char *aslr = read_file("/proc/sys/kernel/randomize_va_space", NULL);
  unsigned long a[3], b[3], c[3];

  if (aslr && aslr[0] == '0' && !check_in_sandbox)
    SKIP("the host has randomisation switched off");
  layout(a);
  layout(b);
  layout(c);
  for (int i = 0; i < 3; i++)
    CHECK(a[i] != b[i] || b[i] != c[i]);
}
