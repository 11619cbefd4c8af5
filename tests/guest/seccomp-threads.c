/* SPDX-License-Identifier: Apache-2.0 */
/* seccomp(2) and threads: filters belong to a thread, TSYNC, who dies of KILL_THREAD and KILL_PROCESS. */
#include "seccomp.h"
#include <pthread.h>

#define ALLOW RET(SECCOMP_RET_ALLOW)

static pthread_barrier_t start, installed;
static volatile long result, other_tid;

static long try_mkdir(void) { return syscall(SYS_mkdir, "/nonexistent/x", 0) == -1 ? errno : 0; }

static void *tries(void *arg) {
  other_tid = syscall(SYS_gettid);
  pthread_barrier_wait(&start);
  pthread_barrier_wait(&installed);
  result = try_mkdir();
  return (void *)(long)prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static pthread_t start_other(void *(*fn)(void *)) {
  pthread_t th;
  pthread_barrier_init(&start, NULL, 2);
  pthread_barrier_init(&installed, NULL, 2);
  REQUIRE(pthread_create(&th, NULL, fn, NULL) == 0);
  pthread_barrier_wait(&start);
  return th;
}

TEST(filter_is_the_threads_own) {
  pthread_t th = start_other(tries);
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  pthread_barrier_wait(&installed);
  pthread_join(th, NULL);
  CHECK_EQ(result, ENOENT);
  CHECK_EQ(try_mkdir(), EDOM);
}

TEST(new_thread_inherits) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  pthread_t th = start_other(tries);
  pthread_barrier_wait(&installed);
  pthread_join(th, NULL);
  CHECK_EQ(result, EDOM);
}

TEST(tsync) {
  pthread_t th = start_other(tries);
  no_new_privs();
  SYS(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_TSYNC, ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  pthread_barrier_wait(&installed);
  void *nnp;
  pthread_join(th, &nnp);
  CHECK_EQ(result, EDOM);
  CHECK_EQ((long)nnp, 1);
}

static void *diverges(void *arg) {
  other_tid = syscall(SYS_gettid);
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_rmdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  pthread_barrier_wait(&start);
  pthread_barrier_wait(&installed);
  result = try_mkdir();
  return NULL;
}

TEST(tsync_of_different_filters) {
  pthread_t th = start_other(diverges);
  no_new_privs();
  CHECK_EQ(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_TSYNC, ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW),
           other_tid);
  CHECK_ERRNO(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
                            ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW),
              ESRCH);
  CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
  pthread_barrier_wait(&installed);
  pthread_join(th, NULL);
  CHECK_EQ(result, ENOENT);
}

/* The others have some of the caller's filters: they get the rest. */
TEST(tsync_of_older_filters) {
  no_new_privs();
  SYS(INSTALL(ON_CALL(SYS_rmdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  pthread_t th = start_other(tries);
  SYS(INSTALL(ON_CALL(SYS_rmdir, SECCOMP_RET_ERRNO | EXDEV), ALLOW));
  SYS(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_TSYNC, ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  pthread_barrier_wait(&installed);
  pthread_join(th, NULL);
  CHECK_EQ(result, EDOM);
}

/* A thread that computes, and one that waits: both are filtered when they make their next call. */
static volatile int stop_spinning;
static void *spins(void *arg) {
  for (int i = 0; i < 300; i++)
    syscall(SYS_getppid);
  pthread_barrier_wait(&start);
  while (!stop_spinning)
    __asm__ volatile("pause");
  result = syscall(SYS_getppid) == -1 ? errno : 0;
  return NULL;
}

TEST(tsync_of_a_spinning_thread) {
  pthread_t th = start_other(spins);
  no_new_privs();
  SYS(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_TSYNC, ON_CALL(SYS_getppid, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  stop_spinning = 1;
  pthread_join(th, NULL);
  CHECK_EQ(result, EDOM);
}

static void *is_killed(void *arg) {
  pthread_barrier_wait(&start);
  result = 1;
  syscall(SYS_mkdir, "/nonexistent/x", 0);
  result = 2;
  return NULL;
}

static int with_victim(uint32_t verdict) {
  return check_wait(CHILD({
    no_new_privs();
    SYS(INSTALL(ON_CALL(SYS_mkdir, verdict), ALLOW));
    start_other(is_killed);
    char path[64];
    for (int i = 0; i < 200; i++) { /* until there is one thread */
      char *s = read_file("/proc/self/status", NULL), *n = s ? strstr(s, "\nThreads:") : NULL;
      bool one = n && atoi(n + 9) == 1;
      free(s);
      if (one)
        break;
      sleep_ms(5);
    }
    (void)path;
    _exit(result == 1 ? 42 : 43);
  }));
}

TEST(kill_thread_leaves_the_others) {
  int s = with_victim(SECCOMP_RET_KILL_THREAD);
  CHECK(WIFEXITED(s) && WEXITSTATUS(s) == 42);
}

TEST(kill_process_takes_all) {
  int s = with_victim(SECCOMP_RET_KILL_PROCESS);
  CHECK(WIFSIGNALED(s) && WTERMSIG(s) == SIGSYS);
}

/* Threads that are made while others are being filtered do not slip through. */
static volatile int churning = 1;
static void *is_filtered(void *arg) { return (void *)(long)prctl(PR_GET_SECCOMP); }
static void *churns(void *arg) {
  long bad = 0;
  pthread_barrier_wait(&start);
  while (churning) {
    pthread_t th;
    if (pthread_create(&th, NULL, is_filtered, NULL))
      break;
    pthread_join(th, NULL);
  }
  for (int i = 0; i < 20; i++) {
    pthread_t th;
    void *mode;
    if (pthread_create(&th, NULL, is_filtered, NULL))
      break;
    pthread_join(th, &mode);
    bad += (long)mode != 2;
  }
  return (void *)bad;
}

TEST(tsync_while_threads_are_made) {
  pthread_t th = start_other(churns);
  no_new_privs();
  for (int i = 0; i < 50; i++)
    SYS(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_TSYNC, ON_CALL(SYS_mkdir, SECCOMP_RET_ERRNO | EDOM), ALLOW));
  churning = 0;
  void *bad;
  pthread_join(th, &bad);
  CHECK_EQ((long)bad, 0);
}
