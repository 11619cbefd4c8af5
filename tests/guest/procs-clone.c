/* SPDX-License-Identifier: Apache-2.0 */
/* procs-clone.c - fork(2), vfork(2), clone(2), clone3(2): what each flag shares, and the refusals. */
#include "check.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>

#define STACK 65536

static int run_clone(int (*fn)(void *), int flags, void *arg) {
  char *stack = map_anon(STACK, PROT_READ | PROT_WRITE);

  return clone(fn, stack + STACK, flags, arg, NULL, NULL, NULL);
}

static long sys_clone3(struct clone_args *a, size_t n) { return syscall(SYS_clone3, a, n); }

TEST(fork_returns_twice) {
  pid_t parent = getpid();
  pid_t pid = CHILD(CHECK_EQ(getppid(), parent); CHECK(getpid() != parent); CHECK_EQ(gettid(), getpid()));
  CHECK(pid > 0);
  WAIT_OK(pid);
  CHECK_EQ(getpid(), parent);
}

TEST(fork_inherits) {
  int fd = tmp_file("f", "0123456789");

  SYS(chdir(tmp_dir()));
  umask(027);
  SYS(prctl(PR_SET_NAME, "namedone"));
  WAIT_OK(CHILD(char cwd[300]; char name[17] = ""; CHECK(getcwd(cwd, sizeof cwd) != NULL);
                CHECK_STR(strrchr(cwd, '/') + 1, strrchr(tmp_dir(), '/') + 1); CHECK_EQ(umask(0), 027);
                prctl(PR_GET_NAME, name); CHECK_STR(name, "namedone"); CHECK_EQ(lseek(fd, 4, SEEK_SET), 4);
                SYS(chdir("/"))));
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4); /* the file description is shared */
  CHECK_EQ(umask(0), 027);
  char cwd[300];
  CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") != 0);
}

TEST(fork_closes_are_private) {
  int fds[2];
  char c;

  SYS(pipe(fds));
  WAIT_OK(CHILD(close(fds[0]); close(fds[1]); CHECK(dup(0) >= 0)));
  write_full(fds[1], "x", 1);
  CHECK_EQ(read(fds[0], &c, 1), 1);
}

TEST(fork_many_in_sequence) {
  for (int i = 0; i < 100; i++) {
    int status = check_wait(CHILD(_exit(i & 127)));
    if (!CHECK_EQ(WEXITSTATUS(status), i & 127))
      break;
  }
}

TEST(fork_many_at_once) {
  enum { N = 64 };
  pid_t pids[N];
  int go[2];

  SYS(pipe(go));
  for (int i = 0; i < N; i++)
    pids[i] = CHILD(close(go[1]); char c; CHECK_EQ(read(go[0], &c, 1), 0); _exit(i));
  close(go[1]);
  for (int i = 0; i < N; i++)
    CHECK_EQ(WEXITSTATUS(check_wait(pids[i])), i);
}

TEST(fork_deep) {
  int fds[2];
  char buf[64];

  SYS(pipe(fds));
  pid_t pid = (pid_t)SYS(fork());
  if (pid == 0) {
    check_child_start();
    for (int depth = 1; depth < 20; depth++) {
      pid_t next = (pid_t)SYS(fork());
      if (next) {
        WAIT_OK(next);
        check_child_exit();
      }
    }
    write_full(fds[1], "x", 1);
    check_child_exit();
  }
  WAIT_OK(pid);
  CHECK_EQ(read(fds[0], buf, sizeof buf), 1);
}

static volatile int shared_value;

TEST(vfork_shares_memory_and_waits) {
  shared_value = 0;
  int64_t start = now_ns();
  pid_t pid = vfork();
  if (pid == 0) {
    struct timespec ts = {0, 50000000};
    nanosleep(&ts, NULL);
    shared_value = 5;
    _exit(3);
  }
  CHECK(pid > 0);
  CHECK_EQ(shared_value, 5);
  CHECK(now_ns() - start >= 49000000);
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 3);
}

TEST(vfork_released_by_exec) {
  pid_t pid = vfork();
  if (pid == 0) {
    execl("/proc/self/exe", "procs", "--helper", "sleep_then_exit", NULL);
    _exit(99);
  }
  int status;
  CHECK_EQ(waitpid(pid, &status, WNOHANG), 0); /* we run while the new program sleeps */
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 6);
}

HELPER(sleep_then_exit) {
  sleep_ms(300);
  return 6;
}

TEST(vfork_child_killed) {
  pid_t pid = vfork();
  if (pid == 0) {
    kill(getpid(), SIGKILL);
    _exit(0);
  }
  int status = check_wait(pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int set_shared(void *arg) {
  *(volatile int *)arg = 77;
  return 9;
}

TEST(clone_vm) {
  shared_value = 0;
  int pid = (int)SYS(run_clone(set_shared, CLONE_VM | SIGCHLD, (void *)&shared_value));
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 9);
  CHECK_EQ(shared_value, 77);
  shared_value = 0;
  pid = (int)SYS(run_clone(set_shared, SIGCHLD, (void *)&shared_value));
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 9);
  CHECK_EQ(shared_value, 0);
}

static int close_fd(void *arg) { return close(*(int *)arg) ? 1 : 0; }

TEST(clone_files) {
  int fd = dup(0);

  int pid = (int)SYS(run_clone(close_fd, SIGCHLD, &fd));
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 0);
  CHECK_OK(fcntl(fd, F_GETFD));
  pid = (int)SYS(run_clone(close_fd, CLONE_FILES | SIGCHLD, &fd));
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 0);
  CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
}

static int change_fs(void *arg) {
  umask(0123);
  return chdir("/");
}

TEST(clone_fs) {
  char cwd[300];

  SYS(chdir(tmp_dir()));
  umask(022);
  check_wait((int)SYS(run_clone(change_fs, SIGCHLD, NULL)));
  CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") != 0);
  CHECK_EQ(umask(022), 022);
  check_wait((int)SYS(run_clone(change_fs, CLONE_FS | SIGCHLD, NULL)));
  CHECK_STR(getcwd(cwd, sizeof cwd), "/");
  CHECK_EQ(umask(022), 0123);
}

static int ignore_usr1(void *arg) {
  struct sigaction sa = {.sa_handler = SIG_IGN};
  return sigaction(SIGUSR1, &sa, NULL);
}

TEST(clone_sighand) {
  struct sigaction now;

  check_wait((int)SYS(run_clone(ignore_usr1, CLONE_VM | SIGCHLD, NULL)));
  SYS(sigaction(SIGUSR1, NULL, &now));
  CHECK(now.sa_handler == SIG_DFL);
  check_wait((int)SYS(run_clone(ignore_usr1, CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL)));
  SYS(sigaction(SIGUSR1, NULL, &now));
  CHECK(now.sa_handler == SIG_IGN);
}

static int give_ppid(void *arg) {
  *(volatile int *)arg = getppid();
  return 0;
}

TEST(clone_parent) {
  volatile int *ppid = map_shared(PAGE);
  pid_t me = getpid();
  pid_t child = CHILD(int p = run_clone(give_ppid, CLONE_PARENT | SIGCHLD, (void *)ppid); CHECK(p > 0);
                      CHECK_ERRNO(waitpid(p, NULL, 0), ECHILD));
  WAIT_OK(child);
  SYS(waitpid(-1, NULL, 0)); /* the grandchild is ours */
  CHECK_EQ(*ppid, me);
}

static volatile int got_sig;

static void note(int sig) { got_sig = sig; }

static int nothing(void *arg) { return 0; }

TEST(clone_exit_signal) {
  /* G1: an exit signal other than SIGCHLD; such a child needs __WALL or __WCLONE. */
  on_signal(SIGUSR1, note, 0);
  int pid = (int)SYS(run_clone(nothing, SIGUSR1, NULL));
  WAIT_FOR(got_sig == SIGUSR1);
  CHECK_ERRNO(waitpid(pid, NULL, 0), ECHILD);
  CHECK_EQ(waitpid(pid, NULL, __WCLONE), pid);
  pid = (int)SYS(run_clone(nothing, 0, NULL)); /* none at all */
  CHECK_EQ(waitpid(pid, NULL, __WALL), pid);
}

TEST(clone_tid_pointers) {
  char *stack = map_anon(STACK, PROT_READ | PROT_WRITE);
  volatile pid_t *t = map_shared(PAGE);
  int pid = (int)SYS(clone(nothing, stack + STACK, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, NULL,
                           (pid_t *)&t[0], NULL, (pid_t *)&t[1]));
  CHECK_EQ(t[0], pid);
  check_wait(pid);
  CHECK_EQ(t[1], pid);
  /* CHILD_CLEARTID does nothing visible when the memory has one user only; with CLONE_VM it clears and wakes. */
  t[2] = 55;
  pid = (int)SYS(clone(nothing, stack + STACK, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL, NULL,
                       (pid_t *)&t[2]));
  check_wait(pid);
  WAIT_FOR(t[2] == 0);
}

TEST(clone_bad_flags) {
  static const unsigned long bad[] = {
      CLONE_THREAD | SIGCHLD,
      CLONE_THREAD | CLONE_VM,
      CLONE_SIGHAND | SIGCHLD,
      CLONE_FS | CLONE_NEWNS | SIGCHLD,
      CLONE_THREAD | CLONE_SIGHAND | SIGCHLD,
      CLONE_FS | CLONE_NEWUSER | SIGCHLD,
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    long pid = syscall(SYS_clone, bad[i], 0, NULL, NULL, 0);
    if (pid == 0)
      _exit(0);
    if (!(pid == -1 && errno == EINVAL))
      check_fail(__FILE__, __LINE__, "clone flags 0x%lx gave %ld, errno %d", bad[i], pid, errno);
  }
}

#define CLONE3_BAD(want_, ...)                                                                     \
  do {                                                                                             \
    struct clone_args a_ = {__VA_ARGS__};                                                          \
    long pid_ = sys_clone3(&a_, sizeof a_);                                                        \
    if (pid_ == 0)                                                                                 \
      _exit(0);                                                                                    \
    if (!(pid_ == -1 && errno == (want_)))                                                         \
      check_fail(__FILE__, __LINE__, "clone3 {" #__VA_ARGS__ "} gave %ld, errno %d", pid_, errno); \
  } while (0)

TEST(clone3_bad_arguments) {
  char *stack = map_anon(STACK, PROT_READ | PROT_WRITE);
  struct {
    struct clone_args a;
    char tail[200];
  } big = {.a = {.exit_signal = SIGCHLD}};

  CLONE3_BAD(EINVAL, .flags = CLONE_DETACHED, .exit_signal = SIGCHLD);
  CLONE3_BAD(EINVAL, .flags = 1ull << 40, .exit_signal = SIGCHLD);
  CLONE3_BAD(EINVAL, .exit_signal = 65);
  CLONE3_BAD(EINVAL, .exit_signal = 0x100 | SIGCHLD);
  CLONE3_BAD(EINVAL, .flags = CLONE_THREAD | CLONE_VM | CLONE_SIGHAND, .exit_signal = SIGCHLD);
  CLONE3_BAD(EINVAL, .flags = CLONE_THREAD);
  CLONE3_BAD(EINVAL, .flags = CLONE_SIGHAND, .exit_signal = SIGCHLD);
  CLONE3_BAD(EINVAL, .flags = CLONE_SIGHAND | CLONE_VM | CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD);
  CLONE3_BAD(EINVAL, .exit_signal = SIGCHLD, .stack = (uintptr_t)stack);
  CLONE3_BAD(EINVAL, .exit_signal = SIGCHLD, .stack_size = STACK);
  CLONE3_BAD(EINVAL, .exit_signal = SIGCHLD, .set_tid_size = 33, .set_tid = (uintptr_t)stack);
  CLONE3_BAD(EINVAL, .exit_signal = SIGCHLD, .set_tid_size = 1);
  CHECK_ERRNO(sys_clone3(&big.a, 63), EINVAL);
  CHECK_ERRNO(sys_clone3((void *)8, 88), EFAULT);
  CHECK_ERRNO(sys_clone3(&big.a, 5000), E2BIG);
  big.tail[100] = 1;
  CHECK_ERRNO(sys_clone3(&big.a, sizeof big), E2BIG);
}

TEST(clone3_plain_fork) {
  volatile pid_t *t = map_shared(PAGE);
  struct clone_args a = {.exit_signal = SIGCHLD, .flags = CLONE_PARENT_SETTID, .parent_tid = (uintptr_t)t};
  long pid = SYS(sys_clone3(&a, 64)); /* the first version of the structure */

  if (pid == 0)
    _exit(11);
  CHECK_EQ(t[0], pid);
  CHECK_EQ(WEXITSTATUS(check_wait((pid_t)pid)), 11);
  struct {
    struct clone_args a;
    char zeros[200];
  } big = {.a = {.exit_signal = SIGCHLD}};
  pid = SYS(sys_clone3(&big.a, sizeof big)); /* a newer one whose unknown part is zero */
  if (pid == 0)
    _exit(12);
  CHECK_EQ(WEXITSTATUS(check_wait((pid_t)pid)), 12);
}

TEST(clone3_clear_sighand) {
  struct clone_args a = {.exit_signal = SIGCHLD, .flags = CLONE_CLEAR_SIGHAND};

  on_signal(SIGUSR1, note, 0);
  signal(SIGUSR2, SIG_IGN);
  long pid = SYS(sys_clone3(&a, sizeof a));
  if (pid == 0) {
    struct sigaction s1, s2;
    sigaction(SIGUSR1, NULL, &s1);
    sigaction(SIGUSR2, NULL, &s2);
    _exit(s1.sa_handler == SIG_DFL && s2.sa_handler == SIG_IGN ? 0 : 1);
  }
  WAIT_OK((pid_t)pid);
}

TEST(set_tid_address_returns_the_tid) {
  int word;

  WAIT_OK(CHILD(CHECK_EQ(syscall(SYS_set_tid_address, &word), gettid())));
}

TEST(pids_are_not_reused_at_once) {
  pid_t last = 0;

  for (int i = 0; i < 50; i++) {
    pid_t pid = CHILD(_exit(0));
    CHECK(pid != last);
    last = pid;
    check_wait(pid);
  }
}
