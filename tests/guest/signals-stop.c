/* SPDX-License-Identifier: Apache-2.0 */
/* signals-stop.c - SIGCHLD's info and flags, stop and continue, signals and threads. */
#include "check.h"

#include <pthread.h>
#include <sys/prctl.h>

static volatile int hits;
static volatile siginfo_t info;
static volatile pid_t hit_tid;

static void keep_info(int sig, siginfo_t *si, void *uc) {
  *(siginfo_t *)&info = *si;
  hit_tid = gettid();
  hits++;
}

TEST(sigchld_exit_info) {
  on_siginfo(SIGCHLD, keep_info, 0);
  pid_t pid = CHILD(_exit(7));
  WAIT_FOR(hits == 1);
  CHECK_EQ(info.si_signo, SIGCHLD);
  CHECK_EQ(info.si_code, CLD_EXITED);
  CHECK_EQ(info.si_pid, pid);
  CHECK_EQ(info.si_status, 7);
  CHECK_EQ(info.si_uid, getuid());
  check_wait(pid);
}

TEST(sigchld_killed_info) {
  on_siginfo(SIGCHLD, keep_info, 0);
  pid_t pid = CHILD(raise(SIGTERM));
  WAIT_FOR(hits == 1);
  CHECK_EQ(info.si_code, CLD_KILLED);
  CHECK_EQ(info.si_status, SIGTERM);
  check_wait(pid);
}

TEST(stop_and_continue) {
  int status;
  pid_t pid = CHILD(sleep_ms(5000));

  kill(pid, SIGSTOP);
  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  CHECK(WIFSTOPPED(status));
  CHECK_EQ(WSTOPSIG(status), SIGSTOP);
  CHECK_EQ(waitpid(pid, &status, WUNTRACED | WNOHANG), 0); /* reported once */
  kill(pid, SIGCONT);
  CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
  CHECK(WIFCONTINUED(status));
  CHECK_EQ(waitpid(pid, &status, WCONTINUED | WNOHANG), 0);
  kill(pid, SIGKILL);
  check_wait(pid);
}

TEST(stop_signals_by_default) {
  static const int stops[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};

  /* Not an orphaned group: the parent is in another group of the same session. */
  for (int i = 0; i < 4; i++) {
    int status;
    pid_t pid = CHILD(setpgid(0, 0); raise(stops[i]));
    setpgid(pid, pid);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), stops[i]);
    kill(pid, SIGCONT);
    WAIT_OK(pid);
  }
}

TEST(orphaned_group_ignores_tty_stops) {
  WAIT_OK(CHILD(setsid(); raise(SIGTSTP); raise(SIGTTIN); raise(SIGTTOU)));
}

TEST(stopped_process_does_not_run) {
  volatile long *counter = map_shared(PAGE);
  int status;
  pid_t pid = CHILD(for (;;)(*counter)++);

  WAIT_FOR(*counter > 1000);
  kill(pid, SIGSTOP);
  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  long before = *counter;
  sleep_ms(50);
  CHECK_EQ(*counter, before);
  kill(pid, SIGCONT);
  WAIT_FOR(*counter > before);
  kill(pid, SIGSTOP);
  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  kill(pid, SIGKILL); /* kills a stopped process without SIGCONT */
  status = check_wait(pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void *spin(void *p) {
  for (;;)
    ++*(volatile long *)p;
  return NULL;
}

TEST(stop_halts_all_threads) {
  volatile long *counters = map_shared(PAGE);
  int status;
  pid_t pid = CHILD(for (long t = 0; t < 3; t++) {
    pthread_t th;
    pthread_create(&th, NULL, spin, (void *)&counters[t * 8]);
  } pause());

  WAIT_FOR(counters[0] > 1000 && counters[8] > 1000 && counters[16] > 1000);
  kill(pid, SIGSTOP);
  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  long before = counters[0] + counters[8] + counters[16];
  sleep_ms(50);
  CHECK_EQ(counters[0] + counters[8] + counters[16], before);
  kill(pid, SIGCONT);
  WAIT_FOR(counters[0] + counters[8] + counters[16] > before);
  kill(pid, SIGKILL);
  check_wait(pid);
}

TEST(pending_signal_waits_for_continue) {
  int status;
  pid_t pid = CHILD(for (;;) pause());

  kill(pid, SIGSTOP);
  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  kill(pid, SIGTERM);
  sleep_ms(30);
  CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
  kill(pid, SIGCONT);
  status = check_wait(pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(sigcont_clears_pending_stops) {
  sigset_t set;

  block_signal(SIGTSTP);
  raise(SIGTSTP);
  SYS(sigpending(&set));
  CHECK(sigismember(&set, SIGTSTP));
  raise(SIGCONT);
  SYS(sigpending(&set));
  CHECK(!sigismember(&set, SIGTSTP));
}

TEST(sigcont_handler_runs) {
  int status;
  pid_t pid = CHILD(on_siginfo(SIGCONT, keep_info, 0); raise(SIGSTOP); CHECK_EQ(hits, 1));

  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  kill(pid, SIGCONT);
  WAIT_OK(pid);
}

TEST(sigchld_on_stop_and_continue) {
  on_siginfo(SIGCHLD, keep_info, 0);
  pid_t pid = CHILD(for (;;) pause());
  kill(pid, SIGSTOP);
  WAIT_FOR(hits == 1);
  CHECK_EQ(info.si_code, CLD_STOPPED);
  CHECK_EQ(info.si_status, SIGSTOP);
  kill(pid, SIGCONT);
  WAIT_FOR(hits == 2);
  CHECK_EQ(info.si_code, CLD_CONTINUED);
  CHECK_EQ(info.si_status, SIGCONT);
  kill(pid, SIGKILL);
  check_wait(pid);
}

TEST(nocldstop) {
  int status;

  on_siginfo(SIGCHLD, keep_info, SA_NOCLDSTOP);
  pid_t pid = CHILD(for (;;) pause());
  kill(pid, SIGSTOP);
  while (waitpid(pid, &status, WUNTRACED) < 0 && errno == EINTR)
    ;
  CHECK(WIFSTOPPED(status));
  kill(pid, SIGCONT);
  sleep_ms(20);
  CHECK_EQ(hits, 0);
  kill(pid, SIGKILL);
  WAIT_FOR(hits == 1);
  check_wait(pid);
}

TEST(nocldwait_reaps_itself) {
  on_siginfo(SIGCHLD, keep_info, SA_NOCLDWAIT);
  pid_t pid = CHILD(_exit(1));
  int status;
  CHECK_ERRNO(waitpid(pid, &status, 0), ECHILD);
  WAIT_FOR(hits == 1); /* on Linux the signal comes all the same */
  CHECK_ERRNO(kill(pid, 0), ESRCH);
}

TEST(sigchld_ignored_reaps_itself) {
  signal(SIGCHLD, SIG_IGN);
  pid_t a = CHILD(_exit(1)), b = CHILD(sleep_ms(30));
  int status;
  CHECK_ERRNO(waitpid(-1, &status, 0), ECHILD); /* returns when the last child is gone */
  CHECK_ERRNO(kill(a, 0), ESRCH);
  CHECK_ERRNO(kill(b, 0), ESRCH);
}

typedef struct {
  pthread_t thread;
  volatile pid_t tid;
  volatile int quit;
} Worker;

static void *worker_main(void *arg) {
  Worker *w = arg;

  w->tid = gettid();
  while (!w->quit)
    sleep_ms(1);
  return NULL;
}

TEST(thread_directed_signal_goes_to_that_thread) {
  Worker w[4] = {{0}};

  on_siginfo(SIGUSR1, keep_info, 0);
  for (int i = 0; i < 4; i++)
    REQUIRE(pthread_create(&w[i].thread, NULL, worker_main, &w[i]) == 0);
  for (int i = 0; i < 4; i++) {
    int before = hits;
    WAIT_FOR(w[i].tid != 0);
    SYS(syscall(SYS_tgkill, getpid(), w[i].tid, SIGUSR1));
    WAIT_FOR(hits == before + 1);
    CHECK_EQ(hit_tid, w[i].tid);
  }
  for (int i = 0; i < 4; i++) {
    w[i].quit = 1;
    pthread_join(w[i].thread, NULL);
  }
}

TEST(process_signal_goes_to_a_thread_that_takes_it) {
  Worker w = {0};

  on_siginfo(SIGUSR1, keep_info, 0);
  REQUIRE(pthread_create(&w.thread, NULL, worker_main, &w) == 0);
  WAIT_FOR(w.tid != 0);
  block_signal(SIGUSR1);
  SYS(kill(getpid(), SIGUSR1));
  WAIT_FOR(hits == 1);
  CHECK_EQ(hit_tid, w.tid);
  w.quit = 1;
  pthread_join(w.thread, NULL);
}

TEST(fatal_signal_to_a_thread_kills_the_process) {
  int status =
      check_wait(CHILD(Worker w = {0}; pthread_create(&w.thread, NULL, worker_main, &w); WAIT_FOR(w.tid != 0);
                       syscall(SYS_tgkill, getpid(), w.tid, SIGTERM); sleep(5)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void *wait_for_signal(void *arg) {
  sigset_t set = sigset_of(SIGUSR2, 0);
  siginfo_t si;

  return (void *)(long)sigwaitinfo(&set, &si);
}

TEST(sigwait_thread) {
  pthread_t t;
  void *r;

  block_signal(SIGUSR2);
  REQUIRE(pthread_create(&t, NULL, wait_for_signal, NULL) == 0);
  sleep_ms(20);
  SYS(kill(getpid(), SIGUSR2));
  pthread_join(t, &r);
  CHECK_EQ((long)r, SIGUSR2);
}

TEST(pdeathsig) {
  int fds[2];
  char c;

  SYS(pipe(fds));
  pid_t middle =
      CHILD(pid_t leaf = CHILD(prctl(PR_SET_PDEATHSIG, SIGTERM); write_full(fds[1], "r", 1); sleep(30));
            (void)leaf; read_full(fds[0], &c, 1); _exit(0));
  WAIT_OK(middle);
  close(fds[1]);
  CHECK_EQ(read(fds[0], &c, 1), 0); /* the leaf is dead when its end of the pipe is gone */
}

TEST(handlers_across_fork_and_threads) {
  on_siginfo(SIGUSR1, keep_info, 0);
  WAIT_OK(CHILD(raise(SIGUSR1); CHECK_EQ(hits, 1); signal(SIGUSR1, SIG_IGN)));
  CHECK_EQ(hits, 0);
  raise(SIGUSR1); /* the child's SIG_IGN is its own */
  CHECK_EQ(hits, 1);
}
