/* SPDX-License-Identifier: Apache-2.0 */
/* mm-fault.c - fault siginfo, and system calls with buffers that are unmapped, or mapped in part. */
#include "check.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <ucontext.h>

#define RW (PROT_READ | PROT_WRITE)

/* Two pages of which only the first is there; returns its last byte + 1. */
static char *edge(void) {
  char *p = map_anon(2 * PAGE, RW);

  SYS(munmap(p + PAGE, PAGE));
  return p + PAGE;
}

static char *const BAD = (char *)0x10;

TEST(segv_maperr_and_accerr) {
  siginfo_t si;
  char *none = map_anon(PAGE, PROT_NONE), *ro = map_anon(PAGE, PROT_READ);
  char *hole = edge(); /* last: a later mapping would fill it */

  CHECK_EQ(touch_write(hole + 5, &si), SIGSEGV);
  CHECK_EQ(si.si_signo, SIGSEGV);
  CHECK_EQ(si.si_code, SEGV_MAPERR);
  CHECK(si.si_addr == hole + 5);
  CHECK_EQ(touch_read(none, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SEGV_ACCERR);
  CHECK_EQ(touch_read(ro, &si), 0);
  CHECK_EQ(touch_write(ro + 9, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SEGV_ACCERR);
  CHECK(si.si_addr == ro + 9);
}

TEST(segv_non_canonical) {
  siginfo_t si;

  CHECK_EQ(touch_read((void *)0x8000000000000000ul, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SI_KERNEL);
  CHECK(si.si_addr == NULL);
  CHECK_EQ(touch_read((void *)0xffffffff80000000ul, &si), SIGSEGV);
}

static volatile greg_t seen_err, seen_trapno, seen_cr2, seen_rip;
static volatile unsigned long patched_addr;

static void fix_up(int sig, siginfo_t *si, void *ucp) {
  ucontext_t *uc = ucp;

  seen_err = uc->uc_mcontext.gregs[REG_ERR];
  seen_trapno = uc->uc_mcontext.gregs[REG_TRAPNO];
  seen_cr2 = uc->uc_mcontext.gregs[REG_CR2];
  seen_rip = uc->uc_mcontext.gregs[REG_RIP];
  uc->uc_mcontext.gregs[REG_RAX] = (greg_t)patched_addr; /* the faulting access goes through rax */
}

/* A handler that repairs a register and returns makes the instruction run again. */
TEST(segv_handler_repairs_and_returns) {
  volatile char good = 0;
  char *bad = edge();

  on_siginfo(SIGSEGV, fix_up, 0);
  patched_addr = (unsigned long)&good;
  __asm__ volatile("movb $77, (%%rax)" : : "a"(bad) : "memory");
  CHECK_EQ(good, 77);
  CHECK_EQ(seen_trapno, 14);
  CHECK_EQ(seen_err & 7, 6); /* a write from user mode to a page that is absent */
  CHECK(seen_cr2 == (greg_t)bad);
}

static char *fill_page;

static void map_it(int sig, siginfo_t *si, void *uc) {
  mprotect(fill_page, PAGE, RW);
  fill_page[0] = 'm';
}

/* What garbage collectors do: the handler maps the page, the access is retried. */
TEST(segv_handler_maps_the_page) {
  fill_page = map_anon(PAGE, PROT_NONE);
  on_siginfo(SIGSEGV, map_it, 0);
  CHECK_EQ(*(volatile char *)fill_page, 'm');
  CHECK_EQ(*(volatile char *)(fill_page + 1), 0);
}

TEST(segv_without_handler_kills) {
  int status = check_wait(CHILD(*(volatile char *)BAD = 1));
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

TEST(segv_blocked_or_ignored_still_kills) {
  int status = check_wait(CHILD(block_signal(SIGSEGV); *(volatile char *)BAD = 1));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  status = check_wait(CHILD(signal(SIGSEGV, SIG_IGN); *(volatile char *)BAD = 1));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  status = check_wait(CHILD(on_signal(SIGSEGV, (void (*)(int))BAD, 0); *(volatile char *)BAD = 1));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

TEST(efault_plain_pointers) {
  int fd = tmp_file("f", "0123456789");
  struct stat st;

  CHECK_ERRNO(read(fd, BAD, 5), EFAULT);
  CHECK_ERRNO(write(fd, BAD, 5), EFAULT);
  CHECK_ERRNO(open(BAD, O_RDONLY), EFAULT);
  CHECK_ERRNO(syscall(SYS_stat, "/", BAD), EFAULT);
  CHECK_ERRNO(stat(BAD, &st), EFAULT);
  CHECK_ERRNO(syscall(SYS_pipe, BAD), EFAULT);
  CHECK_ERRNO(syscall(SYS_nanosleep, BAD, NULL), EFAULT);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, BAD, NULL, 8), EFAULT);
  CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, BAD, NULL, 8), EFAULT);
  CHECK_ERRNO(syscall(SYS_uname, BAD), EFAULT);
  CHECK_ERRNO(syscall(SYS_getcwd, BAD, 100), EFAULT);
  CHECK_ERRNO(poll((struct pollfd *)BAD, 1, 0), EFAULT);
  CHECK_ERRNO(syscall(SYS_clock_gettime, CLOCK_REALTIME, 0xffff800000000000ul), EFAULT);
  CHECK_EQ(read(fd, BAD, 0), 0);
}

TEST(read_stops_at_the_edge_file) {
  char *e = edge();
  int fd = tmp_file("f", "0123456789");

  /* Files give what fits before the hole. */
  ssize_t n = read(fd, e - 4, 10);
  CHECK_EQ(n, 4);
  CHECK(memcmp(e - 4, "0123", 4) == 0);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
  CHECK_ERRNO(read(fd, e, 10), EFAULT);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
}

TEST(write_stops_at_the_edge_file) {
  char *e = edge(), buf[16] = "";
  int fd = tmp_file("f", "");

  memset(e - 6, 'w', 6);
  ssize_t n = write(fd, e - 6, 20);
  CHECK_EQ(n, 6);
  CHECK_EQ(pread(fd, buf, 16, 0), 6);
  CHECK(memcmp(buf, "wwwwww", 6) == 0);
  CHECK_ERRNO(write(fd, e, 1), EFAULT);
}

TEST(pipe_read_into_a_hole) {
  char *e = edge(), buf[16];
  int fds[2];

  SYS(pipe(fds));
  write_full(fds[1], "0123456789", 10);
  CHECK_ERRNO(read(fds[0], e, 10), EFAULT);
  /* The bytes are still there. */
  CHECK_EQ(read(fds[0], buf, 16), 10);
  CHECK(memcmp(buf, "0123456789", 10) == 0);
}

TEST(pipe_write_from_a_hole) {
  char *e = edge(), buf[16];
  int fds[2];

  SYS(pipe2(fds, O_NONBLOCK));
  CHECK_ERRNO(write(fds[1], e, 10), EFAULT);
  CHECK_ERRNO(read(fds[0], buf, 16), EAGAIN);
  ssize_t n = write(fds[1], e - 5, 10); /* EFAULT or the part: Linux says EFAULT for one pipe buffer */
  if (n < 0)
    CHECK_EQ(errno, EFAULT);
  else
    CHECK_EQ(n, 5);
}

TEST(readv_partial_by_iovec) {
  char *e = edge(), a[4];
  int fd = tmp_file("f", "0123456789");
  struct iovec iov[3] = {{a, 4}, {e, 4}, {a, 2}};

  CHECK_EQ(readv(fd, iov, 3), 4);
  CHECK(memcmp(a, "0123", 4) == 0);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
  struct iovec straddle[2] = {{e - 2, 4}, {a, 4}};
  CHECK_EQ(readv(fd, straddle, 2), 2);
  CHECK(memcmp(e - 2, "45", 2) == 0);
}

TEST(writev_partial_by_iovec) {
  char *e = edge();
  int fd = tmp_file("f", "");
  struct iovec iov[3] = {{"abcd", 4}, {e, 4}, {"xy", 2}};

  CHECK_EQ(writev(fd, iov, 3), 4);
  struct iovec first[2] = {{e, 4}, {"xy", 2}};
  CHECK_ERRNO(writev(fd, first, 2), EFAULT);
  char *text = read_file(tmp_path("f"), NULL);
  CHECK_STR(text, "abcd");
}

TEST(iovec_arguments) {
  int fd = tmp_file("f", "0123456789");
  char buf[8];
  struct iovec iov[2] = {{buf, 4}, {buf + 4, (size_t)-1}};

  CHECK_ERRNO(readv(fd, iov, 2), EINVAL); /* negative as ssize_t */
  CHECK_ERRNO(readv(fd, (struct iovec *)BAD, 1), EFAULT);
  CHECK_ERRNO(readv(fd, iov, -1), EINVAL);
  CHECK_ERRNO(readv(fd, iov, 1025), EINVAL);
  CHECK_EQ(readv(fd, iov, 0), 0);
  struct iovec *many = map_anon(1024 * sizeof *many, RW);
  for (int i = 0; i < 1024; i++)
    many[i] = (struct iovec){buf, i == 500 ? 4 : 0};
  CHECK_EQ(readv(fd, many, 1024), 4);
  struct iovec *cut = (struct iovec *)edge() - 1; /* the array itself crosses the edge */
  *cut = (struct iovec){buf, 2};
  CHECK_ERRNO(readv(fd, cut, 2), EFAULT);
  CHECK_EQ(readv(fd, cut, 1), 2);
}

TEST(path_crosses_the_edge) {
  char *e = edge();

  memcpy(e - 5, "/dev/", 5); /* no terminator before the hole */
  CHECK_ERRNO(open(e - 5, O_RDONLY), EFAULT);
  memcpy(e - 5, "/dev", 5);
  CHECK_OK(access(e - 5, F_OK));
}

TEST(read_only_target) {
  char *ro = map_anon(PAGE, PROT_READ);
  int fd = tmp_file("f", "0123456789"), fds[2];

  CHECK_ERRNO(read(fd, ro, 5), EFAULT);
  SYS(pipe(fds));
  write_full(fds[1], "abc", 3);
  CHECK_ERRNO(read(fds[0], ro, 3), EFAULT);
  CHECK_EQ(write(fds[1], ro, 3), 3);
  CHECK_ERRNO(syscall(SYS_pipe, ro), EFAULT);
  CHECK_ERRNO(syscall(SYS_uname, ro), EFAULT);
  char *none = map_anon(PAGE, PROT_NONE);
  CHECK_ERRNO(write(fds[1], none, 3), EFAULT);
}

TEST(failed_pipe_call_leaks_no_descriptor) {
  int before = (int)SYS(dup(0));

  close(before);
  for (int i = 0; i < 50; i++)
    syscall(SYS_pipe, BAD);
  for (int i = 0; i < 50; i++)
    syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, BAD);
  int after = (int)SYS(dup(0));
  CHECK_EQ(after, before);
}

TEST(huge_counts) {
  int fd = tmp_file("f", "0123456789");
  char buf[32];

  /* A count beyond the buffer is fine as long as the file is short; a negative one is not. */
  CHECK_EQ(pread(fd, buf, 32, 0), 10);
  CHECK_ERRNO(pread(fd, buf, (size_t)-1, 0), EFAULT);
  CHECK_ERRNO(pread(fd, buf, 5, -1), EINVAL);
  CHECK_ERRNO(pwrite(fd, buf, 5, -1), EINVAL);
  char *p = map_anon(PAGE, RW);
  CHECK_EQ(pread(fd, p, 0x7fffffff, 0), 10);
}

TEST(buffer_unmapped_while_blocked) {
  int fds[2];
  char *p = map_anon(PAGE, RW);

  SYS(pipe(fds));
  pid_t pid = CHILD(sleep_ms(30); write_full(fds[1], "data", 4));
  SYS(munmap(p, PAGE));
  CHECK_ERRNO(read(fds[0], p, 4), EFAULT);
  WAIT_OK(pid);
}

TEST(writes_across_many_vmas) {
  /* Neighbouring mappings of different kinds make one valid buffer. */
  int fd = tmp_file("f", "");
  char *p = map_anon(6 * PAGE, RW);

  SYS(ftruncate(fd, PAGE));
  REQUIRE(mmap(p + PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0) == p + PAGE);
  SYS(mprotect(p + 2 * PAGE, PAGE, RW | PROT_EXEC));
  REQUIRE(mmap(p + 3 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0) == p + 3 * PAGE);
  pattern_fill(p, 6 * PAGE, 11);
  int out = tmp_file("out", "");
  CHECK_EQ(write(out, p + 10, 6 * PAGE - 20), 6 * PAGE - 20);
  char *back = map_anon(6 * PAGE, RW);
  CHECK_EQ(pread(out, back + 10, 6 * PAGE, 0), 6 * PAGE - 20);
  CHECK(memcmp(p + 10, back + 10, 6 * PAGE - 20) == 0);
  memset(p, 0, 6 * PAGE);
  CHECK_EQ(pread(out, p + 10, 6 * PAGE - 20, 0), 6 * PAGE - 20);
  CHECK(memcmp(p + 10, back + 10, 6 * PAGE - 20) == 0);
}

TEST(cross_process_memory_stays_apart) {
  char *p = map_anon(PAGE, RW);
  int fds[2];

  SYS(pipe(fds));
  strcpy(p, "parent");
  pid_t pid = CHILD(strcpy(p, "child!"); write_full(fds[1], p, 6));
  WAIT_OK(pid);
  char buf[7] = "";
  read_full(fds[0], buf, 6);
  CHECK_STR(buf, "child!");
  CHECK_STR(p, "parent");
}
