/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-locks.c - flock(2), record locks of fcntl(2) owned by processes and by open file descriptions: conflicts, splitting and
 * joining, who is told what, deadlocks, signals, and when locks go. */
#include "check.h"

#include <pthread.h>
#include <sys/file.h>

static struct flock range(short type, off_t start, off_t len) {
  return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}
static int set(int fd, int cmd, short type, off_t start, off_t len) {
  struct flock fl = range(type, start, len);
  return fcntl(fd, cmd, &fl);
}
static struct flock get(int fd, int cmd, short type, off_t start, off_t len) {
  struct flock fl = range(type, start, len);
  if (fcntl(fd, cmd, &fl) < 0)
    fl.l_type = -errno;
  return fl;
}

/* Locked ranges of our process as another one sees them: "r0-9 w20- ". */
static char *layout(const char *path) {
  static char text[1024];
  int p[2];
  SYS(pipe(p));
  WAIT_OK(CHILD(int fd = (int)SYS(open(path, O_RDWR)); char out[1000] = ""; off_t at = 0;
                for (int i = 0; i < 50; i++) {
                  struct flock fl = get(fd, F_GETLK, F_WRLCK, at, 0);
                  if (fl.l_type == F_UNLCK)
                    break;
                  CHECK_EQ(fl.l_whence, SEEK_SET);
                  CHECK_EQ(fl.l_pid, getppid());
                  char one[64];
                  if (fl.l_len)
                    snprintf(one, sizeof one, "%c%ld-%ld ", fl.l_type == F_RDLCK ? 'r' : 'w',
                             (long)fl.l_start, (long)(fl.l_start + fl.l_len - 1));
                  else
                    snprintf(one, sizeof one, "%c%ld- ", fl.l_type == F_RDLCK ? 'r' : 'w', (long)fl.l_start);
                  strcat(out, one);
                  if (!fl.l_len)
                    break;
                  at = fl.l_start + fl.l_len;
                } write_full(p[1], out, strlen(out) + 1)));
  ssize_t n = SYS(read(p[0], text, sizeof text));
  close(p[0]);
  close(p[1]);
  return n > 0 ? text : NULL;
}

TEST(split_and_join) {
  int fd = tmp_file("f", "");
  char path[256];
  strcpy(path, tmp_path("f"));
  SYS(set(fd, F_SETLK, F_WRLCK, 0, 100));
  CHECK_STR(layout(path), "w0-99 ");
  SYS(set(fd, F_SETLK, F_RDLCK, 10, 10));
  CHECK_STR(layout(path), "w0-9 r10-19 w20-99 ");
  SYS(set(fd, F_SETLK, F_UNLCK, 15, 10));
  CHECK_STR(layout(path), "w0-9 r10-14 w25-99 ");
  SYS(set(fd, F_SETLK, F_WRLCK, 10, 15));
  CHECK_STR(layout(path), "w0-99 ");
  SYS(set(fd, F_SETLK, F_UNLCK, 0, 1));
  SYS(set(fd, F_SETLK, F_UNLCK, 99, 0));
  CHECK_STR(layout(path), "w1-98 ");
  SYS(set(fd, F_SETLK, F_WRLCK, 99, 0));
  CHECK_STR(layout(path), "w1- ");
  SYS(set(fd, F_SETLK, F_UNLCK, 50, 1));
  CHECK_STR(layout(path), "w1-49 w51- ");
  SYS(set(fd, F_SETLK, F_RDLCK, 0, 0));
  CHECK_STR(layout(path), "r0- ");
  for (int i = 0; i < 10; i++)
    SYS(set(fd, F_SETLK, F_UNLCK, i * 10, 5));
  CHECK_STR(layout(path), "r5-9 r15-19 r25-29 r35-39 r45-49 r55-59 r65-69 r75-79 r85-89 r95- ");
  SYS(set(fd, F_SETLK, F_WRLCK, 7, 30));
  CHECK_STR(layout(path), "r5-6 w7-36 r37-39 r45-49 r55-59 r65-69 r75-79 r85-89 r95- ");
  SYS(set(fd, F_SETLK, F_UNLCK, 0, 0));
  CHECK_STR(layout(path), "");
}

TEST(random_against_model) {
  enum { N = 64, STEPS = 400 };
  char model[N] = {0}, path[256];
  uint64_t seed = 99;
  int fd = tmp_file("f", "");
  strcpy(path, tmp_path("f"));
  for (int i = 0; i < STEPS; i++) {
    int a = next_random(&seed) % N, n = 1 + next_random(&seed) % (N - a);
    short type = (short[]){F_RDLCK, F_WRLCK, F_UNLCK}[next_random(&seed) % 3];
    SYS(set(fd, F_SETLK, type, a, n));
    memset(model + a, type == F_RDLCK ? 'r' : type == F_WRLCK ? 'w' : 0, n);
    if (i % 20)
      continue;
    char want[1024] = "", one[32];
    for (int k = 0; k < N;) {
      int e = k;
      while (e < N && model[e] == model[k])
        e++;
      if (model[k]) {
        snprintf(one, sizeof one, "%c%d-%d ", model[k], k, e - 1);
        strcat(want, one);
      }
      k = e;
    }
    if (!CHECK_STR(layout(path), want))
      break;
  }
}

TEST(ranges_and_errors) {
  int fd = tmp_file("f", "0123456789");
  char path[256];
  strcpy(path, tmp_path("f"));
  struct flock fl;
  SYS(lseek(fd, 4, SEEK_SET));
  fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = 1, .l_len = 2};
  SYS(fcntl(fd, F_SETLK, &fl));
  CHECK_STR(layout(path), "w5-6 ");
  fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -1, .l_len = 1};
  SYS(fcntl(fd, F_SETLK, &fl));
  CHECK_STR(layout(path), "w5-6 w9-9 ");
  fl = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 7, .l_len = -2};
  SYS(fcntl(fd, F_SETLK, &fl));
  CHECK_STR(layout(path), "w9-9 ");
  CHECK_ERRNO(set(fd, F_SETLK, F_WRLCK, -1, 1), EINVAL);
  CHECK_ERRNO(set(fd, F_SETLK, F_WRLCK, 1, -2), EINVAL);
  CHECK_OK(set(fd, F_SETLK, F_WRLCK, INT64_MAX, 1));
  CHECK_ERRNO(set(fd, F_SETLK, F_WRLCK, INT64_MAX, 2), EOVERFLOW);
  CHECK_ERRNO(set(fd, F_SETLK, F_WRLCK, 2, INT64_MAX), EOVERFLOW);
  CHECK_OK(set(fd, F_SETLK, F_WRLCK, 1, INT64_MAX));
  fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = INT64_MAX, .l_len = 1};
  CHECK_ERRNO(fcntl(fd, F_SETLK, &fl), EOVERFLOW);
  fl = (struct flock){.l_type = F_WRLCK, .l_whence = 3};
  CHECK_ERRNO(fcntl(fd, F_SETLK, &fl), EINVAL);
  CHECK_ERRNO(set(fd, F_SETLK, 3, 0, 1), EINVAL);
  CHECK_ERRNO(set(fd, F_GETLK, F_UNLCK, 0, 1), EINVAL);
  CHECK_ERRNO(fcntl(fd, F_SETLK, (void *)1), EFAULT);
  CHECK_ERRNO(fcntl(fd, F_GETLK, (void *)1), EFAULT);
  int ro = (int)SYS(open(path, O_RDONLY)), wo = (int)SYS(open(path, O_WRONLY)),
      op = (int)SYS(open(path, O_PATH));
  CHECK_ERRNO(set(ro, F_SETLK, F_WRLCK, 0, 1), EBADF);
  CHECK_ERRNO(set(wo, F_SETLK, F_RDLCK, 0, 1), EBADF);
  CHECK_ERRNO(set(op, F_SETLK, F_RDLCK, 0, 1), EBADF);
  CHECK_OK(set(ro, F_SETLK, F_UNLCK, 0, 1));
  CHECK_OK(set(wo, F_GETLK, F_RDLCK, 0, 1));
  CHECK_ERRNO(flock(op, LOCK_SH), EBADF);
  CHECK_ERRNO(flock(fd, 0), EINVAL);
  CHECK_ERRNO(flock(fd, LOCK_SH | LOCK_EX), EINVAL);
  CHECK_OK(flock(ro, LOCK_EX));
  CHECK_OK(flock(ro, LOCK_UN));
  fl = range(F_RDLCK, 0, 1);
  fl.l_pid = 5;
  CHECK_ERRNO(fcntl(fd, F_OFD_SETLK, &fl), EINVAL);
  CHECK_ERRNO(fcntl(fd, F_OFD_GETLK, &fl), EINVAL);
}

TEST(conflicts) {
  int fd = tmp_file("f", "x");
  char path[256];
  strcpy(path, tmp_path("f"));
  SYS(set(fd, F_SETLK, F_RDLCK, 0, 10));
  SYS(set(fd, F_SETLK, F_WRLCK, 10, 10));
  WAIT_OK(CHILD(
      int c = (int)SYS(open(path, O_RDWR)); CHECK_OK(set(c, F_SETLK, F_RDLCK, 0, 10));
      CHECK_ERRNO(set(c, F_SETLK, F_WRLCK, 9, 1), EAGAIN);
      CHECK_ERRNO(set(c, F_SETLK, F_RDLCK, 5, 10), EAGAIN); CHECK_OK(set(c, F_SETLK, F_WRLCK, 20, 0));
      struct flock fl = get(c, F_GETLK, F_RDLCK, 0, 0); CHECK_EQ(fl.l_type, F_WRLCK);
      CHECK_EQ(fl.l_start, 10); CHECK_EQ(fl.l_len, 10); CHECK_EQ(fl.l_pid, getppid());
      fl = get(c, F_GETLK, F_RDLCK, 0, 10); CHECK_EQ(fl.l_type, F_UNLCK); CHECK_EQ(fl.l_len, 10);
      CHECK_OK(set(fd, F_SETLK, F_RDLCK, 0, 1)) /* the inherited descriptor: own locks, not the parent's */));
  /* What the child had is gone. */
  CHECK_OK(set(fd, F_SETLK, F_WRLCK, 0, 0));
}

TEST(any_close_releases) {
  int fd = tmp_file("f", "x");
  char path[256];
  strcpy(path, tmp_path("f"));
  SYS(set(fd, F_SETLK, F_WRLCK, 0, 0));
  int d = (int)SYS(dup(fd));
  int other = (int)SYS(open(path, O_RDONLY));
  CHECK_STR(layout(path), "w0- ");
  close(other);
  CHECK_STR(layout(path), "");
  SYS(set(fd, F_SETLK, F_WRLCK, 0, 0));
  close(d);
  CHECK_STR(layout(path), "");
  SYS(set(fd, F_SETLK, F_WRLCK, 0, 0));
  SYS(dup2(0, (int)SYS(open(path, O_RDONLY)))); /* replaced: closed too */
  CHECK_STR(layout(path), "");
  SYS(set(fd, F_SETLK, F_WRLCK, 0, 0));
  SYS(link(path, tmp_path("g")));
  close((int)SYS(open(tmp_path("g"), O_RDONLY))); /* the inode counts, not the name */
  CHECK_STR(layout(path), "");
  /* OFD and flock locks stay until the description goes. */
  d = (int)SYS(dup(fd));
  SYS(set(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
  SYS(flock(fd, LOCK_EX));
  close((int)SYS(open(path, O_RDONLY)));
  close(fd);
  int o2 = (int)SYS(open(path, O_RDWR));
  CHECK_ERRNO(set(o2, F_OFD_SETLK, F_RDLCK, 0, 1), EAGAIN);
  CHECK_ERRNO(flock(o2, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  close(d);
  CHECK_OK(set(o2, F_OFD_SETLK, F_WRLCK, 0, 1));
  CHECK_OK(flock(o2, LOCK_EX | LOCK_NB));
}

TEST(ofd_locks) {
  int a = tmp_file("f", "x");
  char path[256];
  strcpy(path, tmp_path("f"));
  int b = (int)SYS(open(path, O_RDWR));
  SYS(set(a, F_OFD_SETLK, F_WRLCK, 0, 10));
  CHECK_ERRNO(set(b, F_OFD_SETLK, F_WRLCK, 5, 1), EAGAIN);
  CHECK_ERRNO(set(b, F_SETLK, F_WRLCK, 5, 1), EAGAIN);
  CHECK_ERRNO(set(a, F_SETLK, F_WRLCK, 5, 1), EAGAIN); /* even the same description, owned by the process */
  struct flock fl = get(b, F_OFD_GETLK, F_WRLCK, 0, 0);
  CHECK_EQ(fl.l_type, F_WRLCK);
  CHECK_EQ(fl.l_pid, -1);
  CHECK_EQ(fl.l_len, 10);
  fl = get(b, F_GETLK, F_WRLCK, 0, 0);
  CHECK_EQ(fl.l_pid, -1);
  fl = get(a, F_OFD_GETLK, F_WRLCK, 0, 0);
  CHECK_EQ(fl.l_type, F_UNLCK);
  /* Inherited over fork: the same owner. */
  WAIT_OK(CHILD(CHECK_OK(set(a, F_OFD_SETLK, F_UNLCK, 0, 5))));
  CHECK_OK(set(b, F_OFD_SETLK, F_WRLCK, 0, 5));
  CHECK_ERRNO(set(b, F_OFD_SETLK, F_WRLCK, 0, 6), EAGAIN);
}

TEST(flock_rules) {
  int a = tmp_file("f", "x");
  char path[256];
  strcpy(path, tmp_path("f"));
  int b = (int)SYS(open(path, O_RDONLY)), c = (int)SYS(open(path, O_RDONLY)), d = (int)SYS(dup(a));
  SYS(flock(a, LOCK_SH));
  SYS(flock(b, LOCK_SH));
  CHECK_ERRNO(flock(c, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  CHECK_ERRNO(flock(a, LOCK_EX | LOCK_NB), EWOULDBLOCK); /* loses its shared lock */
  CHECK_OK(flock(b, LOCK_EX | LOCK_NB));
  CHECK_ERRNO(flock(a, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  CHECK_OK(flock(b, LOCK_SH | LOCK_NB)); /* downgrade */
  CHECK_OK(flock(a, LOCK_SH | LOCK_NB));
  CHECK_OK(flock(d, LOCK_UN)); /* the same description */
  CHECK_OK(flock(b, LOCK_EX | LOCK_NB));
  /* flock and record locks do not see each other. */
  CHECK_OK(set(a, F_SETLK, F_WRLCK, 0, 0));
  close(b);
  WAIT_OK(CHILD(CHECK_OK(flock(a, LOCK_EX | LOCK_NB)))); /* inherited description */
  CHECK_ERRNO(flock(c, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  int dir = (int)SYS(open(tmp_dir(), O_RDONLY | O_DIRECTORY));
  CHECK_OK(flock(dir, LOCK_EX | LOCK_NB));
}

TEST(locks_on_pipes) {
  int p[2];
  SYS(pipe(p));
  CHECK_OK(flock(p[0], LOCK_EX | LOCK_NB));
  CHECK_ERRNO(flock(p[1], LOCK_EX | LOCK_NB), EWOULDBLOCK); /* two descriptions of one inode */
  CHECK_OK(set(p[1], F_SETLK, F_WRLCK, 0, 0));
  WAIT_OK(CHILD(CHECK_ERRNO(set(p[1], F_SETLK, F_WRLCK, 0, 0), EAGAIN);
                CHECK_ERRNO(set(p[0], F_SETLK, F_RDLCK, 0, 0), EAGAIN)));
  close(p[0]);
  CHECK_OK(flock(p[1], LOCK_EX | LOCK_NB));
  WAIT_OK(CHILD(CHECK_OK(set(p[1], F_SETLK, F_WRLCK, 0, 0)))); /* any close released it */
}

TEST(exec_keeps_record_locks) {
  int fd = tmp_file("f", "x");
  char path[256];
  strcpy(path, tmp_path("f"));
  int p[2];
  SYS(pipe(p));
  pid_t pid = CHILD(SYS(set(fd, F_SETLK, F_WRLCK, 0, 0)); SYS(dup2(p[1], 1)); SYS(fcntl(fd, F_SETFD, 0));
                    execl("/proc/self/exe", "self", "--helper", "hold", NULL); CHECK(false));
  char c;
  read_full(p[0], &c, 1);
  CHECK_ERRNO(set(fd, F_SETLK, F_RDLCK, 0, 0), EAGAIN);
  struct flock fl = get(fd, F_GETLK, F_RDLCK, 0, 0);
  CHECK_EQ(fl.l_pid, pid);
  kill(pid, SIGKILL);
  check_wait(pid);
  CHECK_OK(set(fd, F_SETLK, F_WRLCK, 0, 0)); /* exit released it */
}
HELPER(hold) {
  write_full(1, "x", 1);
  pause();
  return 0;
}

TEST(blocked_until_released) {
  close(tmp_file("f", "x"));
  char path[256];
  strcpy(path, tmp_path("f"));
  for (int kind = 0; kind < 3; kind++) {
    int p[2], own = (int)SYS(open(path, O_RDWR));
    SYS(pipe(p));
    if (kind == 2)
      SYS(flock(own, LOCK_EX));
    else
      SYS(set(own, kind ? F_OFD_SETLK : F_SETLK, F_WRLCK, 0, 10));
    pid_t pid =
        CHILD(int c = (int)SYS(open(path, O_RDWR)); close(own); write_full(p[1], "a", 1);
              kind == 2 ? SYS(flock(c, LOCK_EX)) : SYS(set(c, kind ? F_OFD_SETLKW : F_SETLKW, F_WRLCK, 5, 1));
              write_full(p[1], "b", 1));
    char c;
    read_full(p[0], &c, 1);
    sleep_ms(50);
    SYS(fcntl(p[0], F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(read(p[0], &c, 1), EAGAIN);
    if (kind == 2)
      SYS(flock(own, LOCK_UN));
    else
      SYS(set(own, kind ? F_OFD_SETLK : F_SETLK, F_UNLCK, 5, 1));
    WAIT_OK(pid);
    CHECK_EQ(read(p[0], &c, 1), 1);
    close(p[0]);
    close(p[1]);
    close(own);
  }
}

static void nothing(int sig) {}

TEST(signals_interrupt) {
  int fd = tmp_file("f", "x");
  char path[256];
  strcpy(path, tmp_path("f"));
  SYS(set(fd, F_SETLK, F_WRLCK, 0, 0));
  SYS(flock(fd, LOCK_EX));
  int ofd = (int)SYS(open(path, O_RDWR));
  SYS(set(ofd, F_OFD_SETLK, F_UNLCK, 0, 0));
  WAIT_OK(CHILD(int c = (int)SYS(open(path, O_RDWR)); on_signal(SIGALRM, nothing, 0); ualarm(50000, 0);
                CHECK_ERRNO(set(c, F_SETLKW, F_RDLCK, 0, 1), EINTR); ualarm(50000, 0);
                CHECK_ERRNO(set(c, F_OFD_SETLKW, F_RDLCK, 0, 1), EINTR); ualarm(50000, 0);
                CHECK_ERRNO(flock(c, LOCK_EX), EINTR)));
  /* A killed waiter leaves nothing behind. */
  pid_t pid = CHILD(int c = (int)SYS(open(path, O_RDWR)); set(c, F_SETLKW, F_WRLCK, 0, 0));
  sleep_ms(50);
  kill(pid, SIGKILL);
  check_wait(pid);
  SYS(set(fd, F_SETLK, F_UNLCK, 0, 0));
  WAIT_OK(CHILD(int c = (int)SYS(open(path, O_RDWR)); CHECK_OK(set(c, F_SETLK, F_WRLCK, 0, 0))));
}

/* N processes lock byte i, then wait for byte i+1: exactly those that would close the circle get EDEADLK. */
static void circle(int n) {
  char path[256];
  close(tmp_file("f", "x"));
  strcpy(path, tmp_path("f"));
  volatile int *ready = map_shared(4096);
  pid_t pid[16];
  ready[0] = ready[1] = 0;
  for (int i = 0; i < n; i++)
    pid[i] = CHILD(int c = (int)SYS(open(path, O_RDWR)); SYS(set(c, F_SETLK, F_WRLCK, i, 1));
                   __sync_fetch_and_add(&ready[0], 1); WAIT_FOR(ready[0] == n);
                   if (set(c, F_SETLKW, F_WRLCK, (i + 1) % n, 1) < 0) {
                     CHECK_EQ(errno, EDEADLK);
                     __sync_fetch_and_add(&ready[1], 1);
                   });
  for (int i = 0; i < n; i++)
    WAIT_OK(pid[i]);
  CHECK_EQ(ready[1], 1);
}
TEST(deadlock_of_two) { circle(2); }
TEST(deadlock_of_three) { circle(3); }
TEST(deadlock_of_eight) { circle(8); }

TEST(no_deadlock_check_for_ofd) {
  int a = tmp_file("f", "x");
  char path[256];
  strcpy(path, tmp_path("f"));
  SYS(set(a, F_OFD_SETLK, F_WRLCK, 0, 1));
  pid_t pid = CHILD(int c = (int)SYS(open(path, O_RDWR)); SYS(set(c, F_OFD_SETLK, F_WRLCK, 1, 1));
                    on_signal(SIGALRM, nothing, 0); ualarm(400000, 0);
                    CHECK_ERRNO(set(c, F_OFD_SETLKW, F_WRLCK, 0, 1), EINTR));
  WAIT_FOR(get(a, F_OFD_GETLK, F_WRLCK, 1, 1).l_type == F_WRLCK);
  sleep_ms(50);
  on_signal(SIGALRM, nothing, 0);
  ualarm(100000, 0);
  CHECK_ERRNO(set(a, F_OFD_SETLKW, F_WRLCK, 1, 1), EINTR);
  WAIT_OK(pid);
}

static int thread_fd;
static void *thread_lock(void *arg) {
  return (void *)(long)(set(thread_fd, F_SETLK, F_WRLCK, 0, 1) < 0 ? errno : 0);
}
TEST(threads_share_record_locks) {
  pthread_t th;
  void *r;
  thread_fd = tmp_file("f", "x");
  SYS(set(thread_fd, F_SETLK, F_WRLCK, 0, 10));
  pthread_create(&th, NULL, thread_lock, NULL);
  pthread_join(th, &r);
  CHECK_EQ((long)r, 0);
  CHECK_STR(layout(tmp_path("f")), "w0-9 ");
}

TEST_LIMIT(many_locks, 30) {
  int fd = tmp_file("f", "x");
  char path[256];
  int64_t t0 = now_ns();
  strcpy(path, tmp_path("f"));
  for (int i = 59999; i >= 0; i--)
    if (!CHECK_OK(set(fd, F_SETLK, F_WRLCK, i * 2, 1)))
      return;
  WAIT_OK(CHILD(int c = (int)SYS(open(path, O_RDWR));
                CHECK_ERRNO(set(c, F_SETLK, F_RDLCK, 119998, 1), EAGAIN);
                CHECK_OK(set(c, F_SETLK, F_RDLCK, 119999, 1))));
  SYS(set(fd, F_SETLK, F_WRLCK, 0, 0));
  CHECK_STR(layout(path), "w0- ");
  if (check_in_sandbox) /* Linux itself is quadratic */
    CHECK(now_ns() - t0 < 15000000000LL);
}

TEST(proc_locks) {
  int fd = tmp_file("f", "x");
  struct stat st;
  char want[128], *text;
  SYS(fstat(fd, &st));
  SYS(set(fd, F_SETLK, F_WRLCK, 3, 4));
  SYS(set(fd, F_OFD_SETLK, F_RDLCK, 100, 0));
  SYS(flock(fd, LOCK_SH));
  text = read_file("/proc/locks", NULL);
  REQUIRE(text != NULL);
  snprintf(want, sizeof want, "POSIX  ADVISORY  WRITE %d %02x:%02x:%lu 3 6\n", getpid(),
           (int)(st.st_dev >> 8 & 0xfff), (int)(st.st_dev & 0xff), st.st_ino);
  CHECK(strstr(text, want) != NULL);
  snprintf(want, sizeof want, "OFDLCK ADVISORY  READ -1 %02x:%02x:%lu 100 EOF\n",
           (int)(st.st_dev >> 8 & 0xfff), (int)(st.st_dev & 0xff), st.st_ino);
  CHECK(strstr(text, want) != NULL);
  snprintf(want, sizeof want, "FLOCK  ADVISORY  READ %d %02x:%02x:%lu 0 EOF\n", getpid(),
           (int)(st.st_dev >> 8 & 0xfff), (int)(st.st_dev & 0xff), st.st_ino);
  CHECK(strstr(text, want) != NULL);
}
