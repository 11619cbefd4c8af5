/* SPDX-License-Identifier: Apache-2.0 */
/* procs-wait.c - wait4(2), waitid(2), zombies, reparenting, exit_group(2), process groups and sessions. */
#include "check.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>

TEST(wait_statuses) {
  int status = check_wait(CHILD(_exit(0x1ff)));
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 0xff);
  status = check_wait(CHILD(raise(SIGKILL)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  status = check_wait(CHILD(syscall(SYS_exit, 5)));
  CHECK_EQ(status, 5 << 8);
}

TEST(wait_errors) {
  int status;

  CHECK_ERRNO(waitpid(-1, &status, 0), ECHILD);
  CHECK_ERRNO(waitpid(getpid(), &status, 0), ECHILD);
  CHECK_ERRNO(waitpid(0x3ffffff, &status, 0), ECHILD);
  CHECK_ERRNO(waitpid(-1, &status, 0x100), EINVAL);
  pid_t pid = CHILD(_exit(0));
  CHECK_ERRNO(waitpid(-getpid() - 10000, &status, 0), ECHILD);
  CHECK_ERRNO(syscall(SYS_wait4, pid, 8, 0, NULL), EFAULT);
  /* The child was reaped before the copy failed, as on Linux. */
  CHECK_ERRNO(waitpid(pid, &status, 0), ECHILD);
  CHECK_ERRNO(syscall(SYS_wait4, (long)(int)0x80000000, &status, 0, NULL), ESRCH);
}

TEST(wait_nohang) {
  int status;
  int go[2];

  SYS(pipe(go));
  pid_t pid = CHILD(char c; close(go[1]); read(go[0], &c, 1));
  close(go[0]);
  CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
  close(go[1]);
  WAIT_FOR(waitpid(pid, &status, WNOHANG) == pid);
  CHECK_ERRNO(waitpid(pid, &status, WNOHANG), ECHILD);
}

TEST(wait_any_takes_each_once) {
  enum { N = 10 };
  int seen = 0;

  for (int i = 0; i < N; i++)
    CHILD(_exit(i));
  for (int i = 0; i < N; i++) {
    int status;
    CHECK(waitpid(-1, &status, 0) > 0);
    seen |= 1 << WEXITSTATUS(status);
  }
  CHECK_EQ(seen, (1 << N) - 1);
  CHECK_ERRNO(wait(NULL), ECHILD);
}

TEST(wait_by_group) {
  pid_t a = CHILD(setpgid(0, 0); _exit(1));
  setpgid(a, a);
  pid_t b = CHILD(_exit(2));
  int status;
  CHECK_EQ(waitpid(-a, &status, 0), a);
  CHECK_ERRNO(waitpid(-a, &status, 0), ECHILD);
  CHECK_EQ(waitpid(0, &status, 0), b); /* our own group */
  CHECK_ERRNO(waitpid(0, &status, 0), ECHILD);
}

TEST(wait4_rusage) {
  struct rusage ru;
  int status;
  pid_t pid = CHILD(int64_t until = now_ns() + 200000000; while (now_ns() < until);
                    char *p = map_anon(4 << 20, PROT_READ | PROT_WRITE); memset(p, 1, 4 << 20));
  CHECK_EQ(wait4(pid, &status, 0, &ru), pid);
  CHECK(ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec + ru.ru_stime.tv_sec * 1000000 +
            ru.ru_stime.tv_usec >
        20000);
  CHECK(ru.ru_maxrss >= 0);
  struct rusage kids;
  SYS(getrusage(RUSAGE_CHILDREN, &kids));
  CHECK(kids.ru_utime.tv_sec * 1000000 + kids.ru_utime.tv_usec + kids.ru_stime.tv_sec * 1000000 +
            kids.ru_stime.tv_usec >
        20000);
}

TEST(waitid_info) {
  siginfo_t si;
  pid_t pid = CHILD(_exit(21));

  memset(&si, 0xff, sizeof si);
  SYS(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT));
  CHECK_EQ(si.si_pid, pid);
  CHECK_EQ(si.si_signo, SIGCHLD);
  CHECK_EQ(si.si_code, CLD_EXITED);
  CHECK_EQ(si.si_status, 21);
  CHECK_EQ(si.si_uid, getuid());
  SYS(waitid(P_ALL, 0, &si, WEXITED));
  CHECK_EQ(si.si_pid, pid);
  CHECK_ERRNO(waitid(P_ALL, 0, &si, WEXITED), ECHILD);
  pid = CHILD(raise(SIGUSR1));
  SYS(waitid(P_PID, (id_t)pid, &si, WEXITED));
  CHECK_EQ(si.si_code, CLD_KILLED);
  CHECK_EQ(si.si_status, SIGUSR1);
}

TEST(waitid_arguments) {
  siginfo_t si;
  pid_t pid = CHILD(sleep_ms(200));

  CHECK_ERRNO(waitid(P_PID, (id_t)pid, &si, 0), EINVAL);
  CHECK_ERRNO(waitid(P_PID, (id_t)pid, &si, WNOHANG), EINVAL);
  CHECK_ERRNO(waitid(17, (id_t)pid, &si, WEXITED), EINVAL);
  CHECK_ERRNO(waitid(P_PID, 0, &si, WEXITED), EINVAL);
  CHECK_ERRNO(waitid(P_ALL, 0, &si, WEXITED | 0x100), EINVAL);
  si.si_pid = 99;
  si.si_signo = 99;
  CHECK_OK(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG));
  CHECK_EQ(si.si_pid, 0);
  CHECK_EQ(si.si_signo, 0);
  CHECK_OK(waitid(P_PID, (id_t)pid, NULL, WEXITED));
}

TEST(waitid_stop_continue) {
  siginfo_t si;
  pid_t pid = CHILD(for (;;) pause());

  kill(pid, SIGSTOP);
  SYS(waitid(P_PID, (id_t)pid, &si, WSTOPPED | WNOWAIT));
  CHECK_EQ(si.si_code, CLD_STOPPED);
  CHECK_EQ(si.si_status, SIGSTOP);
  SYS(waitid(P_PID, (id_t)pid, &si, WSTOPPED));
  si.si_pid = 1;
  SYS(waitid(P_PID, (id_t)pid, &si, WSTOPPED | WNOHANG));
  CHECK_EQ(si.si_pid, 0);
  kill(pid, SIGCONT);
  SYS(waitid(P_PID, (id_t)pid, &si, WCONTINUED));
  CHECK_EQ(si.si_code, CLD_CONTINUED);
  CHECK_EQ(si.si_status, SIGCONT);
  kill(pid, SIGKILL);
  SYS(waitid(P_PID, (id_t)pid, &si, WEXITED | WSTOPPED | WCONTINUED));
  CHECK_EQ(si.si_code, CLD_KILLED);
}

static char proc_state(pid_t pid) {
  char path[64], *text, state = 0;

  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  text = read_file(path, NULL);
  if (text && strrchr(text, ')'))
    state = strrchr(text, ')')[2];
  free(text);
  return state;
}

TEST(zombie_is_visible) {
  pid_t pid = CHILD(_exit(0));
  char path[64];

  WAIT_FOR(proc_state(pid) == 'Z');
  snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
  size_t n = 1;
  free(read_file(path, &n));
  CHECK_EQ(n, 0);
  CHECK_EQ(getpgid(pid), getpgrp());
  check_wait(pid);
  CHECK_EQ(proc_state(pid), 0);
}

TEST(orphan_gets_a_new_parent) {
  int fds[2];
  pid_t seen[2];

  SYS(pipe(fds));
  pid_t middle =
      CHILD(pid_t me = getpid(); pid_t leaf = CHILD(WAIT_FOR(getppid() != me); pid_t v[2] = {me, getppid()};
                                                    write_full(fds[1], v, sizeof v));
            (void)leaf);
  WAIT_OK(middle);
  read_full(fds[0], seen, sizeof seen);
  CHECK_EQ(seen[0], middle);
  CHECK(seen[1] != middle && seen[1] >= 0);
}

TEST(subreaper) {
  SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
  int on = 0, status;
  SYS(prctl(PR_GET_CHILD_SUBREAPER, &on));
  CHECK_EQ(on, 1);
  pid_t me = getpid();
  pid_t middle =
      CHILD(pid_t mid = getpid(); CHILD(WAIT_FOR(getppid() != mid); CHECK_EQ(getppid(), me); _exit(33)));
  WAIT_OK(middle);
  CHECK(waitpid(-1, &status, 0) > 0);
  CHECK_EQ(WEXITSTATUS(status), 33);
}

static void *sleeper(void *arg) {
  sleep_ms(30000);
  return NULL;
}

TEST(exit_group_ends_all_threads) {
  int64_t start = now_ns();
  int status =
      check_wait(CHILD(pthread_t t; for (int i = 0; i < 8; i++) pthread_create(&t, NULL, sleeper, NULL);
                       sleep_ms(10); _exit(4)));
  CHECK_EQ(WEXITSTATUS(status), 4);
  CHECK(now_ns() - start < 8000000000LL);
}

static void *exit_from_thread(void *arg) {
  syscall(SYS_exit_group, 17);
  return NULL;
}

TEST(exit_group_from_a_thread) {
  int status = check_wait(CHILD(pthread_t t; pthread_create(&t, NULL, exit_from_thread, NULL); sleep(20)));
  CHECK_EQ(WEXITSTATUS(status), 17);
}

static void *late_exit(void *arg) {
  sleep_ms(100);
  _exit(23);
}

TEST(leader_exits_first) {
  /* The leader is a zombie until the last thread goes; its wait waits for all. */
  pid_t pid = CHILD(pthread_t t; pthread_create(&t, NULL, late_exit, NULL); syscall(SYS_exit, 1));
  int status;
  WAIT_FOR(proc_state(pid) == 'Z' || waitpid(pid, &status, WNOHANG | WNOWAIT) != 0);
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 23);
}

TEST(setpgid_rules) {
  pid_t pid = CHILD(sleep_ms(5000));

  CHECK_ERRNO(setpgid(0, -1), EINVAL);
  CHECK_ERRNO(setpgid(0x3ffffff, 0), ESRCH);
  CHECK_ERRNO(setpgid(getppid(), 0), ESRCH); /* not a child of ours */
  CHECK_ERRNO(setpgid(pid, 0x3ffffff), EPERM);
  CHECK_OK(setpgid(pid, 0));
  CHECK_EQ(getpgid(pid), pid);
  CHECK_OK(setpgid(pid, getpgrp()));
  CHECK_EQ(getpgid(pid), getpgrp());
  CHECK_ERRNO(getpgid(0x3ffffff), ESRCH);
  kill(pid, SIGKILL);
  check_wait(pid);
}

HELPER(wait_for_eof) {
  char c;
  return read(0, &c, 1) == 0 ? 0 : 1;
}

TEST(setpgid_after_exec_is_eacces) {
  int go[2];

  SYS(pipe2(go, O_CLOEXEC));
  pid_t pid =
      CHILD(dup2(go[0], 0); execl("/proc/self/exe", "procs", "--helper", "wait_for_eof", NULL); _exit(9));
  char path[64], link[256];
  snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
  for (int i = 0; i < 4000; i++) {
    char *text = read_file(path, NULL);
    bool there = text && memmem(text, 64, "--helper", 8) != NULL;
    free(text);
    if (there)
      break;
    sleep_ms(1);
  }
  (void)link;
  CHECK_ERRNO(setpgid(pid, pid), EACCES);
  close(go[1]);
  WAIT_OK(pid);
}

TEST(setsid_rules) {
  WAIT_OK(CHILD(pid_t sid = (pid_t)SYS(setsid()); CHECK_EQ(sid, getpid()); CHECK_EQ(getsid(0), getpid());
                CHECK_EQ(getpgrp(), getpid()); CHECK_ERRNO(setsid(), EPERM);
                CHECK_ERRNO(setpgid(0, 0), EPERM)));
  WAIT_OK(CHILD(SYS(setpgid(0, 0)); CHECK_ERRNO(setsid(), EPERM)));
  CHECK_ERRNO(getsid(0x3ffffff), ESRCH);
  pid_t other = CHILD(SYS(setsid()); sleep_ms(5000));
  WAIT_FOR(getsid(other) == other);
  CHECK_ERRNO(setpgid(other, getpgrp()), EPERM); /* a session leader */
  kill(other, SIGKILL);
  check_wait(other);
}

TEST(orphaned_stopped_group_gets_hup_and_cont) {
  int fds[2];
  char buf[4];

  SYS(pipe(fds));
  /* session leader -> group leader (exits) -> stopped member */
  WAIT_OK(CHILD(SYS(setsid());
                pid_t middle = CHILD(SYS(setpgid(0, 0));
                                     pid_t leaf = CHILD(signal(SIGHUP, SIG_DFL); raise(SIGSTOP); sleep(20));
                                     int st; CHECK_EQ(waitpid(leaf, &st, WUNTRACED), leaf));
                WAIT_OK(middle)));
  close(fds[1]);
  CHECK_EQ(read(fds[0], buf, 1), 0); /* the leaf died of SIGHUP and closed the pipe */
}

TEST(exit_closes_files) {
  int fds[2];
  char c;

  SYS(pipe(fds));
  pid_t pid = CHILD(raise(SIGKILL));
  close(fds[1]);
  CHECK_EQ(read(fds[0], &c, 1), 0);
  check_wait(pid);
}

TEST(thread_waits_for_sibling_children) {
  /* A child of one thread may be waited for by another, but not with __WNOTHREAD. */
  pid_t pid = CHILD(_exit(8));
  pthread_t t;
  void *r = NULL;
  WAIT_FOR(proc_state(pid) == 'Z');
  REQUIRE(pthread_create(&t, NULL, (void *(*)(void *))(void *)check_wait, (void *)(long)pid) == 0);
  pthread_join(t, &r);
  CHECK_EQ(WEXITSTATUS((int)(long)r), 8);
}

TEST(getpriority_and_nice) {
  WAIT_OK(CHILD(errno = 0; CHECK_EQ(getpriority(PRIO_PROCESS, 0), 0);
                CHECK_OK(setpriority(PRIO_PROCESS, 0, 5)); CHECK_EQ(getpriority(PRIO_PROCESS, 0), 5);
                CHECK_EQ(nice(3), 8); CHECK_OK(setpriority(PRIO_PROCESS, 0, 100));
                CHECK_EQ(getpriority(PRIO_PROCESS, 0), 19); CHECK_ERRNO(getpriority(9, 0), EINVAL);
                CHECK_ERRNO(getpriority(PRIO_PROCESS, 0x3ffffff), ESRCH)));
}
