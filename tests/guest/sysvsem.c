/* SPDX-License-Identifier: Apache-2.0 */
/* sysvsem.c - System V semaphores: semget(2), semop(2), semctl(2), SEM_UNDO, in an IPC namespace of the case's own. */
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/sem.h>

static int make(int n) {
  if (unshare(CLONE_NEWIPC) < 0)
    SKIP("needs an IPC namespace of its own: %s", strerror(errno));
  return (int)SYS(semget(IPC_PRIVATE, n, 0600));
}

static int op(int id, int sem, int by, int flags) {
  struct sembuf b = {(unsigned short)sem, (short)by, (short)flags};
  return semop(id, &b, 1);
}

static int value(int id, int sem) { return semctl(id, sem, GETVAL); }

TEST(get) {
  make(1);
  CHECK_ERRNO(semget(3, 1, 0600), ENOENT);
  CHECK_ERRNO(semget(3, 0, IPC_CREAT | 0600), EINVAL);
  CHECK_ERRNO(semget(3, 32001, IPC_CREAT | 0600), EINVAL);
  CHECK_ERRNO(semget(3, -1, IPC_CREAT | 0600), EINVAL);
  int id = (int)SYS(semget(3, 5, IPC_CREAT | 0640));
  CHECK_EQ(semget(3, 0, 0), id);
  CHECK_EQ(semget(3, 5, 0), id);
  CHECK_ERRNO(semget(3, 6, 0), EINVAL);
  CHECK_ERRNO(semget(3, 5, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
  struct semid_ds d;
  SYS(semctl(id, 0, IPC_STAT, &d));
  CHECK_EQ(d.sem_nsems, 5);
  CHECK_EQ(d.sem_perm.mode, 0640);
  CHECK_EQ(d.sem_otime, 0);
}

TEST(operations) {
  int id = make(3);

  SYS(op(id, 0, 3, 0));
  CHECK_EQ(value(id, 0), 3);
  CHECK_EQ(semctl(id, 0, GETPID), getpid());
  SYS(op(id, 0, -2, 0));
  CHECK_ERRNO(op(id, 0, -2, IPC_NOWAIT), EAGAIN);
  CHECK_ERRNO(op(id, 0, 0, IPC_NOWAIT), EAGAIN);
  SYS(op(id, 1, 0, 0));
  CHECK_ERRNO(op(id, 3, 1, 0), EFBIG);
  CHECK_ERRNO(op(id, 0, 32767, 0), ERANGE);
  CHECK_ERRNO(op(id + 99, 0, 1, 0), EINVAL);
  /* all or none */
  struct sembuf b[3] = {{0, -1, 0}, {1, 5, 0}, {2, -1, IPC_NOWAIT}};
  CHECK_ERRNO(semop(id, b, 3), EAGAIN);
  CHECK_EQ(value(id, 0), 1);
  CHECK_EQ(value(id, 1), 0);
  b[2].sem_op = 0;
  SYS(semop(id, b, 3));
  CHECK_EQ(value(id, 0), 0);
  CHECK_EQ(value(id, 1), 5);
  CHECK_ERRNO(semop(id, b, 0), EINVAL);
  CHECK_ERRNO(semop(id, (void *)8, 1), EFAULT);
  static struct sembuf many[501];
  CHECK_ERRNO(semop(id, many, 501), E2BIG);
}

TEST(waiting) {
  int id = make(2);
  pid_t pid = CHILD(SYS(op(id, 0, -2, 0)));

  WAIT_FOR(semctl(id, 0, GETNCNT) == 1);
  SYS(op(id, 0, 1, 0));
  sleep_ms(10);
  CHECK_EQ(semctl(id, 0, GETNCNT), 1);
  SYS(op(id, 0, 1, 0));
  WAIT_OK(pid);
  CHECK_EQ(value(id, 0), 0);
  CHECK_EQ(semctl(id, 0, GETNCNT), 0);
  SYS(op(id, 1, 1, 0));
  pid = CHILD(SYS(op(id, 1, 0, 0)));
  WAIT_FOR(semctl(id, 1, GETZCNT) == 1);
  SYS(op(id, 1, -1, 0));
  WAIT_OK(pid);
}

TEST(timeouts) {
  int id = make(1);
  struct sembuf b = {0, -1, 0};
  struct timespec ts = {0, 30000000}, bad = {0, 1000000000};
  int64_t start = now_ns();

  CHECK_ERRNO(semtimedop(id, &b, 1, &ts), EAGAIN);
  CHECK(now_ns() - start >= 29000000);
  CHECK_ERRNO(semtimedop(id, &b, 1, &bad), EINVAL);
  CHECK_EQ(semctl(id, 0, GETNCNT), 0);
}

static void handler(int sig) { (void)sig; }

TEST(removed_and_interrupted) {
  int id = make(1);
  pid_t pid = CHILD(CHECK_ERRNO(op(id, 0, -1, 0), EIDRM));

  WAIT_FOR(semctl(id, 0, GETNCNT) == 1);
  SYS(semctl(id, 0, IPC_RMID));
  WAIT_OK(pid);
  id = (int)SYS(semget(IPC_PRIVATE, 1, 0600));
  pid = CHILD({
    on_signal(SIGUSR1, handler, SA_RESTART);
    CHECK_ERRNO(op(id, 0, -1, 0), EINTR);
  });
  WAIT_FOR(semctl(id, 0, GETNCNT) == 1);
  SYS(kill(pid, SIGUSR1));
  WAIT_OK(pid);
  CHECK_EQ(semctl(id, 0, GETNCNT), 0);
}

TEST(undo_at_exit) {
  int id = make(2);

  SYS(semctl(id, 0, SETVAL, 5));
  WAIT_OK(CHILD({
    SYS(op(id, 0, -3, SEM_UNDO));
    SYS(op(id, 0, 1, SEM_UNDO));
    SYS(op(id, 1, 4, SEM_UNDO));
    CHECK_EQ(value(id, 0), 3);
    WAIT_OK(CHILD(CHECK_EQ(value(id, 0), 3))); /* a child's exit gives nothing back */
  }));
  CHECK_EQ(value(id, 0), 5);
  CHECK_EQ(value(id, 1), 0);
  /* killed as well */
  pid_t pid = CHILD({
    SYS(op(id, 0, -5, SEM_UNDO));
    pause();
  });
  WAIT_FOR(value(id, 0) == 0);
  SYS(kill(pid, SIGKILL));
  check_wait(pid);
  WAIT_FOR(value(id, 0) == 5);
  /* SETVAL forgets */
  WAIT_OK(CHILD({
    SYS(op(id, 0, -5, SEM_UNDO));
    SYS(semctl(id, 0, SETVAL, 2));
  }));
  CHECK_EQ(value(id, 0), 2);
}

static void *take(void *id) {
  op(*(int *)id, 0, -1, SEM_UNDO);
  return NULL;
}

/* Threads share their undo: it comes with the last. */
TEST(undo_of_threads) {
  int id = make(1);

  SYS(semctl(id, 0, SETVAL, 3));
  WAIT_OK(CHILD({
    pthread_t t;
    REQUIRE(pthread_create(&t, NULL, take, &id) == 0);
    pthread_join(t, NULL);
    sleep_ms(20);
    CHECK_EQ(value(id, 0), 2);
  }));
  CHECK_EQ(value(id, 0), 3);
  WAIT_OK(CHILD({
    SYS(op(id, 0, -1, SEM_UNDO));
    SYS(unshare(CLONE_SYSVSEM));
    CHECK_EQ(value(id, 0), 3);
  }));
}

TEST(control) {
  int id = make(3), n;
  unsigned short v[3] = {1, 2, 3}, w[3];
  struct semid_ds d;
  struct seminfo i;

  SYS(semctl(id, 0, SETALL, v));
  SYS(semctl(id, 0, GETALL, w));
  CHECK(!memcmp(v, w, sizeof v));
  v[1] = 40000;
  CHECK_ERRNO(semctl(id, 0, SETALL, v), ERANGE);
  CHECK_ERRNO(semctl(id, 0, SETVAL, 32768), ERANGE);
  CHECK_ERRNO(semctl(id, 0, SETVAL, -1), ERANGE);
  CHECK_ERRNO(semctl(id, 3, GETVAL), EINVAL);
  CHECK_ERRNO(semctl(id, -1, GETVAL), EINVAL);
  CHECK_ERRNO(semctl(id, 0, 99), EINVAL);
  CHECK_OK(n = semctl(0, 0, IPC_INFO, &i));
  CHECK_EQ(i.semvmx, 32767);
  CHECK_EQ(i.semmsl, 32000);
  CHECK_EQ(i.semopm, 500);
  CHECK_OK(semctl(0, 0, SEM_INFO, &i));
  CHECK_EQ(i.semusz, 1);
  CHECK_EQ(i.semaem, 3);
  CHECK_EQ(semctl(n, 0, SEM_STAT, &d), id);
  SYS(semctl(id, 0, IPC_STAT, &d));
  d.sem_perm.mode = 0444;
  SYS(semctl(id, 0, IPC_SET, &d));
  WAIT_OK(CHILD({
    SYS(setresuid(1000, 1000, 1000));
    CHECK_EQ(value(id, 0), 1);
    CHECK_ERRNO(op(id, 0, 1, 0), EACCES);
    CHECK_ERRNO(op(id, 0, 0, IPC_NOWAIT), EAGAIN);
    CHECK_ERRNO(semctl(id, 0, SETVAL, 1), EACCES);
    CHECK_ERRNO(semctl(id, 0, IPC_RMID), EPERM);
  }));
}

/* /proc/sysvipc lists the namespace's objects. */
TEST(listed) {
  int id = make(2);
  char want[64], *text;

  SYS(semctl(id, 0, SETVAL, 1));
  text = read_file("/proc/sysvipc/sem", NULL);
  REQUIRE(text != NULL);
  snprintf(want, sizeof want, "\n%10d %10d   600 %10d ", 0, id, 2);
  CHECK(strstr(text, "       key      semid perms      nsems") == text);
  CHECK(strstr(text, want) != NULL);
  SYS(semctl(id, 0, IPC_RMID));
  CHECK_STR(read_file("/proc/sysvipc/sem", NULL),
            "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
  text = read_file("/proc/sysvipc/shm", NULL);
  CHECK(text && strstr(text, "nattch"));
  text = read_file("/proc/sysvipc/msg", NULL);
  CHECK(text && strstr(text, "cbytes"));
}

/* A lock made of a semaphore under several processes. */
TEST_LIMIT(mutual_exclusion, 30) {
  int id = make(1);
  volatile long *n = map_shared(PAGE);
  pid_t pid[4];

  SYS(semctl(id, 0, SETVAL, 1));
  for (int p = 0; p < 4; p++)
    pid[p] = CHILD(for (int i = 0; i < 500; i++) {
      SYS(op(id, 0, -1, SEM_UNDO));
      long seen = *n;
      if (i % 50 == 0)
        sched_yield();
      *n = seen + 1;
      SYS(op(id, 0, 1, SEM_UNDO));
    });
  for (int p = 0; p < 4; p++)
    WAIT_OK(pid[p]);
  CHECK_EQ(*n, 2000);
  CHECK_EQ(value(id, 0), 1);
}
