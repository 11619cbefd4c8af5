/* SPDX-License-Identifier: Apache-2.0 */
/* exec-basic.c - execve(2), execveat(2): arguments, limits, descriptors, signal state, threads, the auxiliary vector. */
#include "check.h"

#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define SELF "/proc/self/exe"

extern char **environ;

static int exec_helper_status(char *const argv[], char *const envp[]) {
  pid_t pid = CHILD(execve(SELF, argv, envp); check_fail(__FILE__, __LINE__, "execve: %s", strerror(errno));
                    _exit(120));
  int status = check_wait(pid);

  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define RUN(...) exec_helper_status((char *[]){"exec", "--helper", __VA_ARGS__, NULL}, environ)

HELPER(exit42) { return 42; }

HELPER(count_args) { return argc; }

TEST(exec_self) {
  CHECK_EQ(RUN("exit42"), 42);
  CHECK_EQ(RUN("count_args", "a", "", "c"), 3);
}

HELPER(check_args) {
  CHECK_EQ(argc, 4);
  CHECK_STR(argv[0], "");
  CHECK_STR(argv[1], "two words");
  CHECK_STR(argv[2], "\xff\xfe\x01");
  CHECK_EQ(strlen(argv[3]), 131071);
  CHECK(argv[4] == NULL);
  CHECK_STR(getenv("EMPTY"), "");
  CHECK_STR(getenv("WITH"), "equals=inside");
  CHECK(getenv("HOME") == NULL);
  CHECK_STR(environ[2], "novalue");
  check_child_exit();
}

/* L10: passed unchanged, empty strings and 128 KiB arguments included. */
TEST(argv_and_envp_unchanged) {
  char *big = malloc(131072);

  memset(big, 'b', 131071);
  big[131071] = 0;
  char *argv[] = {"exec", "--helper", "check_args", "", "two words", "\xff\xfe\x01", big, NULL};
  char *envp[] = {"EMPTY=", "WITH=equals=inside", "novalue", NULL};
  CHECK_EQ(exec_helper_status(argv, envp), 0);
}

TEST(argument_too_long) {
  char *big = malloc(131073);

  memset(big, 'b', 131072);
  big[131072] = 0; /* with its terminator one byte more than MAX_ARG_STRLEN */
  char *argv[] = {"exec", big, NULL}, *envp[] = {big, NULL}, *none[] = {"exec", NULL};
  CHECK_ERRNO(execve(SELF, argv, environ), E2BIG);
  CHECK_ERRNO(execve(SELF, none, envp), E2BIG);
}

static char **many_args(int n, size_t len) {
  char **argv = calloc((size_t)n + 4, sizeof *argv), *s = malloc(len + 1);

  memset(s, 'm', len);
  s[len] = 0;
  argv[0] = "exec";
  argv[1] = "--helper";
  argv[2] = "many";
  for (int i = 0; i < n; i++)
    argv[3 + i] = s;
  return argv;
}

HELPER(many) {
  size_t total = 0;

  for (int i = 0; i < argc; i++)
    total += strlen(argv[i]);
  return total == (size_t)argc * 1000 && argc == 1500 ? 0 : 1;
}

TEST(arguments_of_a_quarter_stack) {
  struct rlimit r = {0};

  SYS(getrlimit(RLIMIT_STACK, &r));
  if (r.rlim_cur < (8u << 20))
    SKIP("RLIMIT_STACK is below 8 MiB");
  CHECK_EQ(exec_helper_status(many_args(1500, 1000), environ), 0); /* 1.5 MB fit in 8 MiB / 4 */
  CHECK_ERRNO(execve(SELF, many_args(70, 130000), environ), E2BIG);
  CHECK_ERRNO(execve(SELF, many_args(1000000, 10), environ), E2BIG);
  WAIT_OK(CHILD(r.rlim_cur = 1 << 20; SYS(setrlimit(RLIMIT_STACK, &r));
                CHECK_ERRNO(execve(SELF, many_args(1500, 1000), environ), E2BIG)));
}

TEST(bad_pointers) {
  char *unterminated[] = {"exec", (char *)8, NULL};

  CHECK_ERRNO(execve((char *)8, (char *[]){"x", NULL}, environ), EFAULT);
  CHECK_ERRNO(execve(SELF, (char **)8, environ), EFAULT);
  CHECK_ERRNO(execve(SELF, unterminated, environ), EFAULT);
  CHECK_ERRNO(execve(SELF, (char *[]){"x", NULL}, (char **)8), EFAULT);
  CHECK_ERRNO(execve("", (char *[]){"x", NULL}, environ), ENOENT);
  CHECK_ERRNO(execve("/no/such", (char *[]){"x", NULL}, environ), ENOENT);
  CHECK_ERRNO(execve("/dev/null/x", (char *[]){"x", NULL}, environ), ENOTDIR);
  CHECK_ERRNO(execve("/", (char *[]){"x", NULL}, environ), EACCES);
  CHECK_ERRNO(execve("/dev/null", (char *[]){"x", NULL}, environ), EACCES);
}

/* Since Linux 5.18 an empty argv becomes one empty string. */
TEST(empty_argv) {
  char *none[] = {NULL};

  WAIT_OK(CHILD(syscall(SYS_execve, "/bin/true", NULL, NULL)));
  WAIT_OK(CHILD(syscall(SYS_execve, "/bin/true", none, none)));
  int fds[2];
  char text[64] = "";
  SYS(pipe(fds));
  WAIT_OK(CHILD(dup2(fds[1], 1); dup2(open("/dev/null", O_RDONLY), 0);
                syscall(SYS_execve, "/bin/cat", none, none)));
  close(fds[1]);
  CHECK_EQ(read(fds[0], text, sizeof text), 0);
}

TEST(not_executable) {
  SYS(fchmod(tmp_file("plain", "hello"), 0644));
  CHECK_ERRNO(execve(tmp_path("plain"), (char *[]){"x", NULL}, environ), EACCES);
  SYS(chmod(tmp_path("plain"), 0100)); /* executable for the owner: but no format */
  CHECK_ERRNO(execve(tmp_path("plain"), (char *[]){"x", NULL}, environ),
              ETXTBSY); /* we hold it open to write */
}

TEST(text_file_busy) {
  char path[256];

  strcpy(path, tmp_path("busy"));
  write_file(path, "#!/bin/true\n", 12, 0755);
  int fd = (int)SYS(open(path, O_WRONLY));
  CHECK_ERRNO(execve(path, (char *[]){"x", NULL}, environ), ETXTBSY);
  close(fd);
  CHECK_EQ(check_wait(CHILD(execve(path, (char *[]){"x", NULL}, environ); _exit(9))), 0);
}

HELPER(which_fds) {
  int r = 0;

  for (int i = 0; i < argc; i++)
    r |= (fcntl(atoi(argv[i]), F_GETFD) >= 0) << i;
  return r;
}

TEST(close_on_exec) {
  char a[16], b[16];
  int keep = (int)SYS(dup(0)), gone = (int)SYS(fcntl(0, F_DUPFD_CLOEXEC, 50));

  snprintf(a, sizeof a, "%d", keep);
  snprintf(b, sizeof b, "%d", gone);
  CHECK_EQ(RUN("which_fds", a, b), 1);
  CHECK_OK(fcntl(gone, F_GETFD)); /* only the child's table changed */
  SYS(fcntl(gone, F_SETFD, 0));
  CHECK_EQ(RUN("which_fds", a, b), 3);
}

TEST(failed_exec_closes_nothing) {
  int fd = (int)SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));

  CHECK_ERRNO(execve("/no/such", (char *[]){"x", NULL}, environ), ENOENT);
  CHECK_OK(fcntl(fd, F_GETFD));
}

HELPER(signal_state) {
  struct sigaction sa;
  sigset_t set, pending;

  sigaction(SIGUSR1, NULL, &sa);
  CHECK(sa.sa_handler == SIG_DFL);
  sigaction(SIGUSR2, NULL, &sa);
  CHECK(sa.sa_handler == SIG_IGN);
  sigprocmask(SIG_BLOCK, NULL, &set);
  CHECK(sigismember(&set, SIGHUP) == 1);
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGHUP) == 1);
  stack_t ss;
  sigaltstack(NULL, &ss);
  CHECK_EQ(ss.ss_flags, SS_DISABLE);
  check_child_exit();
}

static void nop(int sig) {}

TEST(signals_across_exec) {
  WAIT_OK(CHILD(on_signal(SIGUSR1, nop, 0); signal(SIGUSR2, SIG_IGN); block_signal(SIGHUP); raise(SIGHUP);
                stack_t ss = {.ss_sp = map_anon(65536, PROT_READ | PROT_WRITE), .ss_size = 65536};
                SYS(sigaltstack(&ss, NULL)); execl(SELF, "exec", "--helper", "signal_state", NULL)));
}

HELPER(same_pid) {
  char name[17] = "";

  CHECK_EQ(getpid(), atoi(argv[0]));
  CHECK_EQ(gettid(), getpid());
  prctl(PR_GET_NAME, name);
  CHECK_STR(name, "exe"); /* the last part of the path given to execve */
  check_child_exit();
}

TEST(pid_kept_name_set) {
  WAIT_OK(CHILD(char pid[16]; snprintf(pid, sizeof pid, "%d", getpid()); prctl(PR_SET_NAME, "before");
                execl(SELF, "exec", "--helper", "same_pid", pid, NULL)));
}

static void *exec_in_thread(void *arg) {
  execl(SELF, "exec", "--helper", "same_pid", arg, NULL);
  return NULL;
}

static void *idle(void *arg) {
  for (;;)
    pause();
  return NULL;
}

/* The other threads go; the caller takes over the leader's id. */
TEST(exec_from_a_thread) {
  for (int round = 0; round < 5; round++)
    WAIT_OK(CHILD(char pid[16]; pthread_t t; snprintf(pid, sizeof pid, "%d", getpid());
                  for (int i = 0; i < 6; i++) pthread_create(&t, NULL, idle, NULL);
                  pthread_create(&t, NULL, exec_in_thread, pid); idle(NULL)));
}

TEST(execveat_forms) {
  int dir = (int)SYS(open("/proc/self", O_PATH | O_DIRECTORY));
  char *argv[] = {"exec", "--helper", "exit42", NULL};

  CHECK_EQ(check_wait(CHILD(syscall(SYS_execveat, dir, "exe", argv, environ, 0); _exit(9))) >> 8, 42);
  int exe = (int)SYS(open(SELF, O_RDONLY));
  CHECK_EQ(check_wait(CHILD(syscall(SYS_execveat, exe, "", argv, environ, AT_EMPTY_PATH); _exit(9))) >> 8,
           42);
  int path = (int)SYS(open(SELF, O_PATH | O_CLOEXEC));
  CHECK_EQ(check_wait(CHILD(syscall(SYS_execveat, path, "", argv, environ, AT_EMPTY_PATH); _exit(9))) >> 8,
           42);
  CHECK_EQ(check_wait(CHILD(syscall(SYS_execveat, AT_FDCWD, SELF, argv, environ, 0); _exit(9))) >> 8, 42);
}

TEST(execveat_errors) {
  int exe = (int)SYS(open(SELF, O_RDONLY)), dir = (int)SYS(open(tmp_dir(), O_PATH | O_DIRECTORY));
  char *argv[] = {"x", NULL};

  CHECK_ERRNO(syscall(SYS_execveat, exe, "", argv, environ, 0), ENOENT);
  CHECK_ERRNO(syscall(SYS_execveat, exe, "x", argv, environ, 0), ENOTDIR);
  CHECK_ERRNO(syscall(SYS_execveat, 999, "x", argv, environ, 0), EBADF);
  CHECK_ERRNO(syscall(SYS_execveat, dir, "none", argv, environ, 0), ENOENT);
  CHECK_ERRNO(syscall(SYS_execveat, dir, "", argv, environ, AT_EMPTY_PATH), EACCES);
  CHECK_ERRNO(syscall(SYS_execveat, exe, "", argv, environ, AT_EMPTY_PATH | 0x4000000), EINVAL);
  SYS(symlink(SELF, tmp_path("link")));
  CHECK_ERRNO(syscall(SYS_execveat, dir, "link", argv, environ, AT_SYMLINK_NOFOLLOW), ELOOP);
}

TEST(fexecve_of_an_unlinked_copy) {
  size_t n;
  char *image = read_file(SELF, &n);

  REQUIRE(image != NULL);
  write_file(tmp_path("copy"), image, n, 0755);
  int fd = (int)SYS(open(tmp_path("copy"), O_RDONLY));
  SYS(unlink(tmp_path("copy")));
  CHECK_EQ(
      check_wait(CHILD(fexecve(fd, (char *[]){"exec", "--helper", "exit42", NULL}, environ); _exit(9))) >> 8,
      42);
}

TEST(exec_from_memfd) {
  size_t n;
  char *image = read_file(SELF, &n);
  int fd = (int)SYS(memfd_create("prog", MFD_CLOEXEC));

  write_full(fd, image, n);
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int ro = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
  close(fd);
  CHECK_EQ(
      check_wait(CHILD(fexecve(ro, (char *[]){"exec", "--helper", "exit42", NULL}, environ); _exit(9))) >> 8,
      42);
}

HELPER(auxv) {
  unsigned long a;
  const Elf64_Phdr *ph = (const Elf64_Phdr *)getauxval(AT_PHDR);

  CHECK_EQ(getauxval(AT_PAGESZ), 4096);
  CHECK_EQ(getauxval(AT_CLKTCK), 100); /* C5 */
  CHECK_EQ(getauxval(AT_UID), getuid());
  CHECK_EQ(getauxval(AT_EGID), getegid());
  CHECK_EQ(getauxval(AT_SECURE), 0);
  CHECK_EQ(getauxval(AT_PHENT), sizeof(Elf64_Phdr));
  CHECK(getauxval(AT_PHNUM) > 0 && ph != NULL && ph[0].p_type < 0x7fffffff);
  CHECK_EQ(getauxval(AT_BASE), 0); /* static: no interpreter */
  CHECK(getauxval(AT_ENTRY) != 0);
  CHECK((a = getauxval(AT_EXECFN)) != 0);
  CHECK_STR((char *)a, argv[0]);
  CHECK_STR((char *)getauxval(AT_PLATFORM), "x86_64");
  CHECK((a = getauxval(AT_RANDOM)) != 0);
  uint64_t r[2];
  memcpy(r, (void *)a, 16);
  CHECK(r[0] != 0 && r[1] != 0 && r[0] != r[1]);
  CHECK(getauxval(AT_HWCAP) != 0);
  CHECK(getauxval(AT_SYSINFO_EHDR) != 0); /* X6 */
  check_child_exit();
}

TEST(auxiliary_vector) { CHECK_EQ(RUN("auxv", SELF), 0); }

HELPER(print_random) {
  fwrite((void *)getauxval(AT_RANDOM), 16, 1, stdout);
  return 0;
}

TEST(at_random_differs) {
  char r[2][16];

  for (int i = 0; i < 2; i++) {
    int fds[2];
    SYS(pipe(fds));
    pid_t pid = CHILD(dup2(fds[1], 1); execl(SELF, "exec", "--helper", "print_random", NULL));
    read_full(fds[0], r[i], 16);
    WAIT_OK(pid);
  }
  CHECK(memcmp(r[0], r[1], 16) != 0);
}

HELPER(stack_is_aligned) {
  /* The initial stack: argc at a multiple of 16, then argv, envp, auxv up to AT_NULL. */
  char **end = environ;
  while (*end)
    end++;
  uintptr_t top = (uintptr_t)(argv - 3) - sizeof(long); /* argv[0] of the helper is argv[3] */
  CHECK_EQ(top % 16, 0);
  CHECK_EQ(*(long *)top, argc + 3);
  const Elf64_auxv_t *aux = (const Elf64_auxv_t *)(end + 1);
  int n = 0;
  while (aux->a_type != AT_NULL && n++ < 100)
    aux++;
  CHECK(n > 10 && n < 100);
  check_child_exit();
}

TEST(initial_stack_layout) {
  CHECK_EQ(RUN("stack_is_aligned"), 0);
  CHECK_EQ(RUN("stack_is_aligned", "x"), 0);
  CHECK_EQ(RUN("stack_is_aligned", "x", "yy", "zzz"), 0);
}

TEST(memory_is_replaced) {
  /* A mapping and a shared one of the old image are gone; another process keeps the shared one. */
  volatile int *s = map_shared(PAGE);
  char addr[32];

  snprintf(addr, sizeof addr, "%lx", (unsigned long)s);
  *s = 5;
  CHECK_EQ(RUN("probe_address", addr), SIGSEGV);
  CHECK_EQ(*s, 5);
}

HELPER(probe_address) { return touch_read((void *)strtoul(argv[0], NULL, 16), NULL); }

TEST(setuid_program) {
  if (getuid() != 0 || !have_cap(7 /* CAP_SETUID */))
    SKIP("needs root with CAP_SETUID");
  size_t n;
  char *image = read_file(SELF, &n), path[256];
  strcpy(path, tmp_path("suid"));
  write_file(path, image, n, 0755);
  SYS(chown(path, 1234, 1234));
  SYS(chmod(path, 06755));
  char *slash = strrchr(path, '/');
  *slash = 0;
  SYS(chmod(path, 0755));
  *slash = '/';
  WAIT_OK(CHILD(SYS(setresgid(1000, 1000, 1000)); SYS(setresuid(1000, 1000, 1000));
                execl(path, "suid", "--helper", "print_ids", NULL)));
}

HELPER(print_ids) {
  CHECK_EQ(getuid(), 1000);
  CHECK_EQ(getgid(), 1000);
  if (geteuid() == 1000 && getegid() == 1000)
    check_child_exit(); /* a nosuid mount or no_new_privs: allowed, but then wholly */
  CHECK_EQ(geteuid(), 1234);
  CHECK_EQ(getegid(), 1234);
  CHECK_EQ(getauxval(AT_SECURE), 1);
  check_child_exit();
}

TEST(exec_in_a_loop) {
  for (int i = 0; i < 40; i++)
    if (!CHECK_EQ(RUN("exit42"), 42))
      break;
}
