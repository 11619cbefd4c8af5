/* SPDX-License-Identifier: Apache-2.0 */
/* mm-fork.c - copy-on-write after fork, shared mappings between processes, file mappings and truncation. */
#include "check.h"

#include <sys/mman.h>

#define RW (PROT_READ | PROT_WRITE)

TEST(cow_child_writes) {
  size_t len = 64 * PAGE;
  char *p = map_anon(len, RW);

  pattern_fill(p, len, 1);
  WAIT_OK(CHILD(CHECK(pattern_ok(p, len, 1)); pattern_fill(p, len, 2); CHECK(pattern_ok(p, len, 2))));
  CHECK(pattern_ok(p, len, 1));
}

TEST(cow_parent_writes) {
  size_t len = 64 * PAGE;
  char *p = map_anon(len, RW);
  int go[2];
  char c;

  SYS(pipe(go));
  pattern_fill(p, len, 1);
  pid_t pid = CHILD(CHECK_EQ(read(go[0], &c, 1), 1); CHECK(pattern_ok(p, len, 1)));
  pattern_fill(p, len, 9);
  write_full(go[1], "x", 1);
  WAIT_OK(pid);
  CHECK(pattern_ok(p, len, 9));
}

/* The kernel's own writes into a page must break copy-on-write as well. */
TEST(cow_broken_by_read_syscall) {
  char *p = map_anon(4 * PAGE, RW);
  int fd = tmp_file("f", "from the file");

  memset(p, 'o', 4 * PAGE);
  WAIT_OK(CHILD(CHECK_EQ(pread(fd, p + 2 * PAGE - 4, 13, 0), 13);
                CHECK(memcmp(p + 2 * PAGE - 4, "from the file", 13) == 0)));
  for (size_t i = 0; i < 4 * PAGE; i++)
    if (!CHECK_EQ(p[i], 'o'))
      break;
}

TEST(cow_chain_of_forks) {
  volatile int *p = map_anon(16 * PAGE, RW);

  for (int i = 0; i < 16; i++)
    p[i * 1024] = i;
  for (int depth = 0; depth < 8; depth++) {
    pid_t pid = (pid_t)SYS(fork());
    if (pid > 0) {
      WAIT_OK(pid);
      for (int i = 0; i < 16; i++)
        CHECK_EQ(p[i * 1024], i < depth ? 100 + i : i);
      if (depth > 0)
        check_child_exit();
      return;
    }
    check_child_start();
    p[depth * 1024] = 100 + depth;
  }
  check_child_exit();
}

TEST(cow_many_children_at_once) {
  enum { N = 12 };
  size_t len = 32 * PAGE;
  char *p = map_anon(len, RW);
  pid_t pids[N];

  pattern_fill(p, len, 77);
  for (int i = 0; i < N; i++)
    pids[i] = CHILD(for (int r = 0; r < 5; r++) {
      CHECK(r > 0 || pattern_ok(p, len, 77));
      pattern_fill(p, len, (uint32_t)(i * 10 + r));
      usleep(500);
      CHECK(pattern_ok(p, len, (uint32_t)(i * 10 + r)));
    });
  for (int i = 0; i < N; i++)
    WAIT_OK(pids[i]);
  CHECK(pattern_ok(p, len, 77));
}

TEST(cow_after_mprotect) {
  char *p = map_anon(2 * PAGE, RW);

  p[0] = 'a';
  SYS(mprotect(p, PAGE, PROT_READ));
  WAIT_OK(CHILD(CHECK_EQ(touch_write(p, NULL), SIGSEGV); SYS(mprotect(p, PAGE, RW)); p[0] = 'b'));
  CHECK_EQ(p[0], 'a');
  SYS(mprotect(p, PAGE, RW));
  p[0] = 'c';
  CHECK_EQ(p[0], 'c');
}

TEST(cow_private_file) {
  int fd = tmp_file("f", "0123456789");
  char *p = mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);

  REQUIRE(p != MAP_FAILED);
  p[0] = 'P';
  WAIT_OK(CHILD(CHECK_EQ(p[0], 'P'); CHECK_EQ(p[1], '1'); p[0] = 'C'; p[1] = 'C'));
  CHECK(memcmp(p, "P123", 4) == 0);
  char buf[4];
  CHECK_EQ(pread(fd, buf, 4, 0), 4);
  CHECK(memcmp(buf, "0123", 4) == 0);
}

TEST(shared_anon_over_fork) {
  volatile int *p = map_shared(4 * PAGE);

  WAIT_OK(CHILD(p[0] = 1; p[3000] = 2));
  CHECK_EQ(p[0], 1);
  CHECK_EQ(p[3000], 2);
  WAIT_OK(CHILD(CHECK_EQ(p[0], 1); WAIT_OK(CHILD(p[1] = 3))));
  CHECK_EQ(p[1], 3);
}

TEST(shared_anon_counter) {
  enum { N = 8, ROUNDS = 20000 };
  int *p = map_shared(PAGE);
  pid_t pids[N];

  for (int i = 0; i < N; i++)
    pids[i] = CHILD(for (int r = 0; r < ROUNDS; r++) __atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST));
  for (int i = 0; i < N; i++)
    WAIT_OK(pids[i]);
  CHECK_EQ(*p, N * ROUNDS);
}

/* Issue 2, 5: two processes that map the file independently see each other's writes. */
TEST(two_processes_share_a_file) {
  SYS(ftruncate(tmp_file("f", ""), 2 * PAGE));
  char path[256];
  strcpy(path, tmp_path("f"));
  pid_t pids[2];

  for (int who = 0; who < 2; who++)
    pids[who] = CHILD(int fd = (int)SYS(open(path, O_RDWR));
                      volatile int *p = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0); REQUIRE(p != MAP_FAILED);
                      for (int i = 1; i <= 200; i++) {
                        p[who * 1024] = i;
                        WAIT_FOR(p[(1 - who) * 1024] >= i);
                      });
  WAIT_OK(pids[0]);
  WAIT_OK(pids[1]);
}

TEST(shared_file_and_write_agree) {
  int fd = tmp_file("f", "");
  char buf[100];

  SYS(ftruncate(fd, 3 * PAGE));
  char *p = mmap(NULL, 3 * PAGE, RW, MAP_SHARED, fd, 0);
  char *q = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE);
  REQUIRE(p != MAP_FAILED && q != MAP_FAILED);
  CHECK_EQ(pwrite(fd, "written", 7, PAGE - 3), 7);
  CHECK(memcmp(p + PAGE - 3, "written", 7) == 0);
  CHECK(memcmp(q, "tten", 4) == 0); /* an untouched private page still shows the file */
  memcpy(p + 2 * PAGE, "mapped", 6);
  CHECK_EQ(pread(fd, buf, 6, 2 * PAGE), 6);
  CHECK(memcmp(buf, "mapped", 6) == 0);
}

TEST(mapping_outlives_descriptor_and_name) {
  int fd = tmp_file("f", "kept");
  char *p = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);

  REQUIRE(p != MAP_FAILED);
  SYS(close(fd));
  SYS(unlink(tmp_path("f")));
  CHECK(memcmp(p, "kept", 4) == 0);
  p[0] = 'K';
  WAIT_OK(CHILD(CHECK_EQ(p[0], 'K'); p[1] = 'E'));
  CHECK_EQ(p[1], 'E');
}

TEST(bytes_after_end_of_file_are_zero) {
  int fd = tmp_file("f", "abc");
  char *p = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);

  REQUIRE(p != MAP_FAILED);
  for (size_t i = 3; i < PAGE; i++)
    if (!CHECK_EQ(p[i], 0))
      break;
  struct stat st;
  p[2] = 'C';
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 3);
}

TEST(sigbus_beyond_the_file) {
  int fd = tmp_file("f", "abc");
  siginfo_t si;
  char *p = mmap(NULL, 3 * PAGE, RW, MAP_SHARED, fd, 0);

  REQUIRE(p != MAP_FAILED);
  CHECK_EQ(touch_read(p + PAGE + 7, &si), SIGBUS);
  CHECK_EQ(si.si_code, BUS_ADRERR);
  CHECK(si.si_addr == p + PAGE + 7);
  CHECK_EQ(touch_write(p + 2 * PAGE, &si), SIGBUS);
  SYS(ftruncate(fd, 2 * PAGE));
  CHECK_EQ(touch_write(p + PAGE, NULL), 0);
  CHECK_EQ(touch_read(p + 2 * PAGE, NULL), SIGBUS);
}

TEST(truncate_under_a_mapping) {
  int fd = tmp_file("f", "");
  SYS(ftruncate(fd, 4 * PAGE));
  char *p = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
  char *priv = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE, fd, 0);

  REQUIRE(p != MAP_FAILED && priv != MAP_FAILED);
  memset(p, 'x', 4 * PAGE);
  priv[3 * PAGE] = 'y';
  SYS(ftruncate(fd, PAGE + 10));
  CHECK_EQ(p[PAGE + 9], 'x');
  CHECK_EQ(p[PAGE + 10], 0);
  CHECK_EQ(touch_read(p + 2 * PAGE, NULL), SIGBUS);
  CHECK_EQ(touch_read(priv + 3 * PAGE, NULL), SIGBUS); /* copied pages beyond the end go as well */
  SYS(ftruncate(fd, 4 * PAGE));
  CHECK_EQ(p[2 * PAGE], 0);
  CHECK_EQ(p[PAGE + 10], 0);
}

/* Copying from a mapping whose file has shrunk is EFAULT, not a dead kernel. */
TEST(syscall_on_truncated_mapping) {
  int fd = tmp_file("f", ""), fds[2];
  SYS(ftruncate(fd, 2 * PAGE));
  char *p = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);

  REQUIRE(p != MAP_FAILED);
  SYS(pipe(fds));
  p[PAGE] = 1;
  SYS(ftruncate(fd, PAGE));
  CHECK_ERRNO(write(fds[1], p + PAGE, 10), EFAULT);
  CHECK_EQ(write(fds[1], "0123456789", 10), 10);
  CHECK_ERRNO(read(fds[0], p + PAGE, 10), EFAULT);
  CHECK_ERRNO(open(p + PAGE, O_RDONLY), EFAULT);
}

TEST(file_offsets_and_two_views) {
  int fd = tmp_file("f", "");
  SYS(ftruncate(fd, 16 * PAGE));
  char *whole = mmap(NULL, 16 * PAGE, RW, MAP_SHARED, fd, 0);
  char *part = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 5 * PAGE);

  REQUIRE(whole != MAP_FAILED && part != MAP_FAILED);
  part[PAGE + 1] = 'v';
  CHECK_EQ(whole[6 * PAGE + 1], 'v');
  whole[8 * PAGE] = 'w';
  CHECK_EQ(part[3 * PAGE], 'w');
}

TEST(fork_while_the_parent_writes) {
  volatile uint64_t *p = map_anon(8 * PAGE, RW);

  for (int round = 0; round < 30; round++) {
    for (int i = 0; i < 8; i++)
      p[i * 512] = (uint64_t)round;
    pid_t pid = CHILD(for (int i = 0; i < 8; i++) CHECK_EQ(p[i * 512], round));
    for (int i = 0; i < 8; i++)
      p[i * 512] = 999;
    WAIT_OK(pid);
  }
}

TEST(freed_by_the_child_kept_by_the_parent) {
  char *p = map_anon(64 * PAGE, RW);

  pattern_fill(p, 64 * PAGE, 5);
  WAIT_OK(CHILD(SYS(munmap(p, 64 * PAGE)); char *q = map_anon(64 * PAGE, RW); memset(q, 1, 64 * PAGE)));
  CHECK(pattern_ok(p, 64 * PAGE, 5));
  WAIT_OK(CHILD(SYS(madvise(p, 64 * PAGE, MADV_DONTNEED)); CHECK_EQ(p[77], 0)));
  CHECK(pattern_ok(p, 64 * PAGE, 5));
}

TEST(dev_zero_mapping) {
  int fd = (int)SYS(open("/dev/zero", O_RDWR));
  char *priv = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);
  char *shared = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);

  REQUIRE(priv != MAP_FAILED && shared != MAP_FAILED);
  CHECK_EQ(priv[PAGE], 0);
  priv[0] = 1;
  WAIT_OK(CHILD(shared[0] = 2));
  CHECK_EQ(shared[0], 2);
}
