/* SPDX-License-Identifier: Apache-2.0 */
/* seccomp(2): the call itself, its errors, and what the verifier refuses. Every case runs in a process of its own. */
#include "seccomp.h"
#include <sys/syscall.h>

#define REFUSED(...) CHECK_ERRNO(INSTALL(__VA_ARGS__), EINVAL)
#define ALLOW RET(SECCOMP_RET_ALLOW)

TEST(unknown_operations) {
  CHECK_ERRNO(syscall(SYS_seccomp, 77, 0, NULL), EINVAL);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL), EINVAL);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, &errno), EINVAL);
  CHECK_ERRNO(prctl(PR_SET_SECCOMP, 0), EINVAL);
  CHECK_ERRNO(prctl(PR_SET_SECCOMP, 3), EINVAL);
  CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
}

TEST(filter_arguments) {
  no_new_privs();
  struct sock_filter allow = ALLOW;
  struct sock_fprog p = {.len = 1, .filter = &allow};
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL), EFAULT);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0x80000000U, &p), EINVAL);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                      SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER, &p),
              EINVAL);
  p.len = 0;
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p), EINVAL);
  p.len = BPF_MAXINSNS + 1;
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p), EINVAL);
  p.len = 1;
  p.filter = NULL;
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p), EINVAL);
  p.filter = (struct sock_filter *)8;
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p), EFAULT);
  CHECK_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p), EFAULT);
  CHECK_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL), EFAULT);
  CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
}

TEST(needs_no_new_privs) {
  if (getuid() == 0)
    SYS(syscall(SYS_setresuid, 65534, 65534, 65534));
  CHECK_ERRNO(INSTALL(ALLOW), EACCES);
  CHECK_ERRNO(INSTALL(BPF_STMT(0xffff, 0)), EACCES);
  no_new_privs();
  CHECK_OK(INSTALL(ALLOW));
}

TEST(privileged_needs_no_new_privs_not) {
  if (getuid() || !have_cap(21 /* CAP_SYS_ADMIN */))
    SKIP("not root");
  CHECK_OK(INSTALL(ALLOW));
  CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
}

TEST(action_avail) {
  const uint32_t known[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                            SECCOMP_RET_ERRNO,        SECCOMP_RET_TRACE,       SECCOMP_RET_USER_NOTIF,
                            SECCOMP_RET_LOG,          SECCOMP_RET_ALLOW};
  for (unsigned i = 0; i < COUNT(known); i++)
    CHECK_EQ(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &known[i]), 0);
  const uint32_t unknown[] = {SECCOMP_RET_ERRNO | 1, 0x12340000, 0x7ffb0000};
  for (unsigned i = 0; i < COUNT(unknown); i++)
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &unknown[i]), EOPNOTSUPP);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &known[0]), EINVAL);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, NULL), EFAULT);
}

TEST(actions_in_proc) {
  char *s = read_file("/proc/sys/kernel/seccomp/actions_avail", NULL);
  REQUIRE(s);
  const char *const names[] = {"kill_process", "kill_thread", "trap", "errno",
                               "user_notif",   "trace",       "log",  "allow"};
  for (unsigned i = 0; i < COUNT(names); i++)
    CHECK(strstr(s, names[i]));
  CHECK(strstr(s, "kill_process kill_thread trap errno") == s);
  free(s);
}

/* ---- The verifier ---- */

TEST(must_end_in_return) {
  no_new_privs();
  REFUSED(LOAD(nr));
  REFUSED(ALLOW, LOAD(nr));
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JA, 0, 0, 0));
  REFUSED(BPF_STMT(BPF_RET | BPF_X, 0));
  CHECK_OK(INSTALL(LOAD(nr), ALLOW));
  CHECK_OK(INSTALL(BPF_STMT(BPF_LD | BPF_IMM, SECCOMP_RET_ALLOW), BPF_STMT(BPF_RET | BPF_A, 0)));
}

TEST(bad_jumps) {
  no_new_privs();
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JA, 0xffffffffU, 0, 0), ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JA, 0x7fffffff, 0, 0), ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0), ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_X, 0, 255, 0), ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_X, 0, 0, 200), ALLOW, ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | 0x50, 0, 0, 0), ALLOW);
  CHECK_OK(INSTALL(BPF_JUMP(BPF_JMP | BPF_JA, 0, 0, 0), ALLOW));
  CHECK_OK(INSTALL(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0), ALLOW, ALLOW));
}

TEST(bad_loads) {
  no_new_privs();
  REFUSED(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 1), ALLOW);
  REFUSED(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 62), ALLOW);
  REFUSED(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), ALLOW);
  REFUSED(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0xfffffffcU), ALLOW);
  REFUSED(BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), ALLOW);
  CHECK_OK(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 60), ALLOW));
  CHECK_OK(INSTALL(BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), ALLOW));
  CHECK_OK(INSTALL(BPF_STMT(BPF_LDX | BPF_W | BPF_LEN, 0), ALLOW));
}

TEST(bad_arithmetic) {
  no_new_privs();
  REFUSED(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), ALLOW);
  REFUSED(BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 32), ALLOW);
  REFUSED(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), ALLOW);
  REFUSED(BPF_STMT(BPF_ALU | BPF_MOD | BPF_X, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_ALU | BPF_NEG | BPF_X, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_ALU | 0xd0, 0), ALLOW);
  CHECK_OK(INSTALL(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 31), ALLOW));
  CHECK_OK(INSTALL(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 7), ALLOW));
}

TEST(bad_opcodes) {
  no_new_privs();
  REFUSED(BPF_STMT(0x100 | BPF_LD | BPF_IMM, 0), ALLOW);
  REFUSED(BPF_STMT(0xffff, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_MISC | 0x40, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_RET | BPF_K | 0x60, 0), ALLOW);
}

TEST(bad_memory) {
  no_new_privs();
  REFUSED(BPF_STMT(BPF_ST, 16), ALLOW);
  REFUSED(BPF_STMT(BPF_STX, 0xffffffffU), ALLOW);
  REFUSED(BPF_STMT(BPF_ST, 0), BPF_STMT(BPF_LD | BPF_MEM, 16), ALLOW);
  REFUSED(BPF_STMT(BPF_LD | BPF_MEM, 0), ALLOW);
  REFUSED(BPF_STMT(BPF_LDX | BPF_MEM, 3), ALLOW);
  REFUSED(ALLOW, BPF_STMT(BPF_LD | BPF_MEM, 0), ALLOW); /* though nobody comes there */
  /* written on one of two ways only */
  REFUSED(LOAD(nr), IF_EQ(1), BPF_STMT(BPF_ST, 2), BPF_STMT(BPF_LD | BPF_MEM, 2), ALLOW);
  REFUSED(BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), BPF_STMT(BPF_ST, 2), BPF_STMT(BPF_LD | BPF_MEM, 2), ALLOW);
  CHECK_OK(INSTALL(BPF_STMT(BPF_ST, 15), BPF_STMT(BPF_LD | BPF_MEM, 15), ALLOW));
  CHECK_OK(INSTALL(LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 2), BPF_STMT(BPF_ST, 2),
                   BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), BPF_STMT(BPF_STX, 2), BPF_STMT(BPF_LD | BPF_MEM, 2),
                   ALLOW));
}

/* A refused filter leaves nothing behind. */
TEST(refusal_changes_nothing) {
  no_new_privs();
  REFUSED(ON_CALL(SYS_getpid, SECCOMP_RET_ERRNO | EPERM), LOAD(nr));
  CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
  CHECK_EQ(syscall(SYS_getpid), getpid());
}

static struct sock_filter large[BPF_MAXINSNS];

TEST(length_limits) {
  no_new_privs();
  for (unsigned i = 0; i < BPF_MAXINSNS; i++)
    large[i] = (struct sock_filter)ALLOW;
  unsigned n = 0;
  while (n < 100 && install_n(large, BPF_MAXINSNS, 0) == 0)
    n++;
  CHECK_EQ(errno, ENOMEM);
  CHECK(n >= 3 && n <= 8); /* Linux counts the instructions that it made of them */
  CHECK_OK(INSTALL(ALLOW));
}

TEST(many_small_filters) {
  no_new_privs();
  unsigned n = 0;
  while (n < 10000 && INSTALL(ALLOW) == 0)
    n++;
  CHECK_EQ(errno, ENOMEM);
  CHECK(n > 1000 && n <= 32768 / 5 + 1);
  CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
}

static long status_value(const char *name) {
  char *s = read_file("/proc/self/status", NULL), *at = s ? strstr(s, name) : NULL;
  long v = at ? strtol(at + strlen(name), NULL, 10) : -1;
  free(s);
  return v;
}

TEST(proc_status) {
  no_new_privs();
  CHECK_EQ(status_value("\nSeccomp:"), 0);
  CHECK_EQ(status_value("\nSeccomp_filters:"), 0);
  SYS(INSTALL(ALLOW));
  CHECK_EQ(status_value("\nSeccomp:"), 2);
  CHECK_EQ(status_value("\nSeccomp_filters:"), 1);
  SYS(INSTALL(ALLOW));
  CHECK_EQ(status_value("\nSeccomp_filters:"), 2);
  CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL), EINVAL);
  CHECK_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), EINVAL);
}

/* ---- Strict mode ---- */

static int after_strict(void (*fn)(void)) {
  return check_wait(CHILD({
    SYS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    fn();
    syscall(SYS_exit, 7);
  }));
}

static void do_nothing(void) {}
static void do_getpid(void) { syscall(SYS_getpid); }
static void do_exit_group(void) { syscall(SYS_exit_group, 3); }
static void do_open(void) { syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY); }
static void do_unknown(void) { syscall(511); }
static void do_rw(void) {
  char c;
  syscall(SYS_write, -1, "", 1);
  syscall(SYS_read, -1, &c, 1);
}

TEST(strict) {
  int s = after_strict(do_nothing);
  CHECK(WIFEXITED(s) && WEXITSTATUS(s) == 7);
  s = after_strict(do_rw);
  CHECK(WIFEXITED(s) && WEXITSTATUS(s) == 7);
  void (*const killed[])(void) = {do_getpid, do_exit_group, do_open, do_unknown};
  for (unsigned i = 0; i < COUNT(killed); i++) {
    s = after_strict(killed[i]);
    CHECK(WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL);
  }
}

/* As an old ssh does: set up, then read, work, write and leave. */
TEST(strict_worker) {
  int in[2], out[2];
  SYS(pipe(in));
  SYS(pipe(out));
  pid_t pid = CHILD({
    unsigned char b[16];
    SYS(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL));
    long n = syscall(SYS_read, in[0], b, sizeof b);
    for (long i = 0; i < n; i++)
      b[i] ^= 0x20;
    syscall(SYS_write, out[1], b, n);
    syscall(SYS_exit, 0);
  });
  char b[6] = "";
  SYS(write(in[1], "HELLO", 5));
  read_full(out[0], b, 5);
  CHECK_STR(b, "hello");
  WAIT_OK(pid);
}
