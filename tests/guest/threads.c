/* SPDX-License-Identifier: Apache-2.0 */
/* threads.c - threads by glibc and by raw clone: TLS, exit notification, locks under stress, many at once. */
#include "check.h"

#include <asm/prctl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/uio.h>

static __thread int tls_value = 41;
static __thread char tls_big[5000];

static void *use_tls(void *arg) {
  long id = (long)arg;

  if (tls_value != 41)
    return (void *)1;
  tls_value = (int)id;
  memset(tls_big, (int)id, sizeof tls_big);
  for (int i = 0; i < 50; i++) {
    sched_yield();
    if (tls_value != (int)id || tls_big[4999] != (char)id)
      return (void *)2;
  }
  return NULL;
}

TEST(tls_is_per_thread) {
  enum { N = 16 };
  pthread_t t[N];

  for (long i = 0; i < N; i++)
    REQUIRE(pthread_create(&t[i], NULL, use_tls, (void *)(i + 1)) == 0);
  for (int i = 0; i < N; i++) {
    void *r;
    pthread_join(t[i], &r);
    CHECK_EQ((long)r, 0);
  }
  CHECK_EQ(tls_value, 41);
}

TEST(arch_prctl_fs_gs) {
  unsigned long fs = 0, gs = 1, word = 0xfeedface, got;

  SYS(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
  __asm__("mov %%fs:0, %0" : "=r"(got));
  CHECK_EQ(fs, got); /* the TLS block starts with its own address */
  SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, &word));
  SYS(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
  CHECK_EQ(gs, &word);
  __asm__ volatile("mov %%gs:0, %0" : "=r"(got));
  CHECK_EQ(got, 0xfeedface);
  SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
  CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_SET_GS, 1ul << 63), EPERM);
  CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_GET_FS, 8), EFAULT);
  CHECK_ERRNO(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static long counter;

static void *add_under_lock(void *arg) {
  for (int i = 0; i < 20000; i++) {
    pthread_mutex_lock(&lock);
    counter++;
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

TEST(mutex_stress) {
  pthread_t t[8];

  for (int i = 0; i < 8; i++)
    REQUIRE(pthread_create(&t[i], NULL, add_under_lock, NULL) == 0);
  for (int i = 0; i < 8; i++)
    pthread_join(t[i], NULL);
  CHECK_EQ(counter, 160000);
}

static int turn;

static void *take_turns(void *arg) {
  int me = (int)(long)arg;

  for (int i = 0; i < 300; i++) {
    pthread_mutex_lock(&lock);
    while (turn % 4 != me)
      pthread_cond_wait(&cond, &lock);
    turn++;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

TEST(cond_ring) {
  pthread_t t[4];

  for (long i = 0; i < 4; i++)
    REQUIRE(pthread_create(&t[i], NULL, take_turns, (void *)i) == 0);
  for (int i = 0; i < 4; i++)
    pthread_join(t[i], NULL);
  CHECK_EQ(turn, 1200);
}

TEST(cond_timedwait) {
  struct timespec ts;

  SYS(clock_gettime(CLOCK_REALTIME, &ts));
  ts.tv_nsec += 50000000;
  if (ts.tv_nsec >= 1000000000) {
    ts.tv_nsec -= 1000000000;
    ts.tv_sec++;
  }
  int64_t start = now_ns();
  pthread_mutex_lock(&lock);
  CHECK_EQ(pthread_cond_timedwait(&cond, &lock, &ts), ETIMEDOUT);
  pthread_mutex_unlock(&lock);
  CHECK(now_ns() - start >= 45000000);
}

static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static volatile long pair[2];

static void *rw_worker(void *arg) {
  for (int i = 0; i < 1000; i++)
    if (arg) {
      pthread_rwlock_wrlock(&rw);
      pair[0]++;
      pair[1]++;
      pthread_rwlock_unlock(&rw);
    } else {
      pthread_rwlock_rdlock(&rw);
      CHECK_EQ(pair[0], pair[1]);
      pthread_rwlock_unlock(&rw);
    }
  return NULL;
}

TEST(rwlock_stress) {
  pthread_t t[6];

  for (long i = 0; i < 6; i++)
    REQUIRE(pthread_create(&t[i], NULL, rw_worker, (void *)(i % 2)) == 0);
  for (int i = 0; i < 6; i++)
    pthread_join(t[i], NULL);
  CHECK_EQ(pair[0], 3000);
}

static pthread_barrier_t barrier;
static int arrived;

static void *barrier_worker(void *arg) {
  for (int i = 1; i <= 50; i++) {
    __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&barrier);
    if (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < i * 6)
      return (void *)1;
    pthread_barrier_wait(&barrier);
  }
  return NULL;
}

TEST(barrier_stress) {
  pthread_t t[6];
  void *r;

  pthread_barrier_init(&barrier, NULL, 6);
  for (int i = 0; i < 6; i++)
    REQUIRE(pthread_create(&t[i], NULL, barrier_worker, NULL) == 0);
  for (int i = 0; i < 6; i++) {
    pthread_join(t[i], &r);
    CHECK_EQ((long)r, 0);
  }
}

static void *nothing(void *arg) { return arg; }

TEST(create_and_join_many) {
  for (long i = 0; i < 500; i++) {
    pthread_t t;
    void *r;
    REQUIRE(pthread_create(&t, NULL, nothing, (void *)i) == 0);
    pthread_join(t, &r);
    if (!CHECK_EQ((long)r, i))
      break;
  }
}

static sem_t gate;

static void *wait_at_gate(void *arg) {
  while (sem_wait(&gate) < 0)
    ;
  return NULL;
}

TEST(two_hundred_at_once) {
  enum { N = 200 };
  pthread_t t[N];
  pthread_attr_t attr;
  int made = 0;

  sem_init(&gate, 0, 0);
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 65536);
  while (made < N && pthread_create(&t[made], &attr, wait_at_gate, NULL) == 0)
    made++;
  CHECK_EQ(made, N);
  for (int i = 0; i < made; i++)
    sem_post(&gate);
  for (int i = 0; i < made; i++)
    pthread_join(t[i], NULL);
}

typedef struct {
  volatile int tid_cell;
  volatile int ran;
  volatile int same_pid, tid;
  int pid;
} Raw;

static int raw_main(void *arg) {
  Raw *r = arg;

  r->same_pid = (int)syscall(SYS_getpid) == r->pid;
  r->tid = (int)syscall(SYS_gettid);
  r->ran = 1;
  syscall(SYS_exit, 0);
  return 0;
}

#define RAW_FLAGS                                                                                           \
  (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID | \
   CLONE_CHILD_CLEARTID)

TEST(raw_clone_thread) {
  char *stack = map_anon(65536, PROT_READ | PROT_WRITE);
  Raw r = {.pid = getpid()};
  int tid = (int)SYS(
      clone(raw_main, stack + 65536, RAW_FLAGS, &r, (pid_t *)&r.tid_cell, NULL, (pid_t *)&r.tid_cell));

  /* CHILD_CLEARTID: the cell is cleared and its futex woken at the thread's end. */
  struct timespec ts = ts_ms(5000);
  int seen;
  while ((seen = r.tid_cell) != 0)
    if (syscall(SYS_futex, &r.tid_cell, FUTEX_WAIT, seen, &ts, NULL, 0) < 0 && errno == ETIMEDOUT)
      break;
  CHECK_EQ(r.tid_cell, 0);
  CHECK_EQ(r.ran, 1);
  CHECK_EQ(r.same_pid, 1);
  CHECK_EQ(r.tid, tid);
  CHECK(tid != getpid());
  CHECK_ERRNO(waitpid(tid, NULL, __WALL), ECHILD); /* a thread is not a child */
}

TEST(raw_clone_threads_stress) {
  enum { N = 20 };
  static Raw r[N];
  char *stacks = map_anon(N * 65536, PROT_READ | PROT_WRITE);

  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < N; i++) {
      r[i] = (Raw){.pid = getpid()};
      SYS(clone(raw_main, stacks + (i + 1) * 65536, RAW_FLAGS, &r[i], (pid_t *)&r[i].tid_cell, NULL,
                (pid_t *)&r[i].tid_cell));
    }
    for (int i = 0; i < N; i++) {
      WAIT_FOR(r[i].tid_cell == 0);
      CHECK_EQ(r[i].ran, 1);
    }
  }
}

static void *robust_owner(void *m) {
  pthread_mutex_lock(m);
  return NULL; /* exits with the lock held */
}

TEST(robust_mutex_thread) {
  pthread_mutexattr_t attr;
  pthread_mutex_t m;
  pthread_t t;

  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&m, &attr);
  REQUIRE(pthread_create(&t, NULL, robust_owner, &m) == 0);
  pthread_join(t, NULL);
  CHECK_EQ(pthread_mutex_lock(&m), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(&m), 0);
  CHECK_EQ(pthread_mutex_unlock(&m), 0);
  CHECK_EQ(pthread_mutex_lock(&m), 0);
}

TEST(robust_mutex_process_killed) {
  pthread_mutexattr_t attr;
  pthread_mutex_t *m = map_shared(PAGE);
  volatile int *held = (int *)((char *)m + 1024);

  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(m, &attr);
  pid_t pid = CHILD(pthread_mutex_lock(m); *held = 1; sleep(20));
  WAIT_FOR(*held);
  pid_t waiter = CHILD(CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD); pthread_mutex_consistent(m);
                       pthread_mutex_unlock(m));
  sleep_ms(20);
  kill(pid, SIGKILL);
  check_wait(pid);
  WAIT_OK(waiter);
}

TEST(robust_list_calls) {
  struct robust_list_head *head;
  size_t len = 0;

  SYS(syscall(SYS_get_robust_list, 0, &head, &len));
  CHECK_EQ(len, sizeof *head);
  CHECK_ERRNO(syscall(SYS_set_robust_list, head, 5), EINVAL);
  CHECK_ERRNO(syscall(SYS_get_robust_list, 0x3ffffff, &head, &len), ESRCH);
}

static void *spin_until(void *flag) {
  while (!*(volatile int *)flag)
    ;
  return NULL;
}

TEST(spinning_threads_make_progress) {
  /* More spinners than processors: each is preempted. */
  volatile int flag = 0;
  pthread_t t[8];

  for (int i = 0; i < 8; i++)
    REQUIRE(pthread_create(&t[i], NULL, spin_until, (void *)&flag) == 0);
  sleep_ms(50);
  flag = 1;
  for (int i = 0; i < 8; i++)
    pthread_join(t[i], NULL);
}

TEST(process_shared_mutex_and_cond) {
  struct {
    pthread_mutex_t m;
    pthread_cond_t c;
    int turn;
  } *s = map_shared(PAGE);
  pthread_mutexattr_t ma;
  pthread_condattr_t ca;

  pthread_mutexattr_init(&ma);
  pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&s->m, &ma);
  pthread_condattr_init(&ca);
  pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED);
  pthread_cond_init(&s->c, &ca);
  pid_t pids[3];
  for (int me = 0; me < 3; me++)
    pids[me] = CHILD(for (int i = 0; i < 100; i++) {
      pthread_mutex_lock(&s->m);
      while (s->turn % 3 != me)
        pthread_cond_wait(&s->c, &s->m);
      s->turn++;
      pthread_cond_broadcast(&s->c);
      pthread_mutex_unlock(&s->m);
    });
  for (int i = 0; i < 3; i++)
    WAIT_OK(pids[i]);
  CHECK_EQ(s->turn, 300);
}

static void *cancel_me(void *arg) {
  for (;;)
    pause();
  return NULL;
}

TEST(pthread_cancel_in_a_blocking_call) {
  pthread_t t;
  void *r;

  REQUIRE(pthread_create(&t, NULL, cancel_me, NULL) == 0);
  sleep_ms(20);
  CHECK_EQ(pthread_cancel(t), 0);
  pthread_join(t, &r);
  CHECK(r == PTHREAD_CANCELED);
}

static void *forker(void *arg) {
  for (int i = 0; i < 10; i++) {
    pid_t pid = fork();
    if (pid == 0)
      _exit(7);
    int status = check_wait(pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
      return (void *)1;
  }
  return NULL;
}

TEST(fork_from_many_threads) {
  pthread_t t[6];
  void *r;

  for (int i = 0; i < 6; i++)
    REQUIRE(pthread_create(&t[i], NULL, forker, NULL) == 0);
  for (int i = 0; i < 6; i++) {
    pthread_join(t[i], &r);
    CHECK_EQ((long)r, 0);
  }
}

/* Reads a file of the host into pages of which other threads write the ends, and fork. */
typedef struct {
  char *want, *page;
  struct iovec v[64];
  int n, fd;
  atomic_bool stop;
} ForkRead;

static void *end_writer(void *arg) {
  ForkRead *f = arg;
  while (!f->stop)
    for (int i = 0; i < f->n; i++)
      f->page[i * PAGE + PAGE - 1]++;
  return NULL;
}

static void *forker_until(void *arg) {
  ForkRead *f = arg;
  while (!f->stop) {
    pid_t pid = fork();
    if (pid == 0)
      _exit(0);
    if (pid < 0 || waitpid(pid, NULL, 0) != pid)
      return (void *)1;
  }
  return NULL;
}

TEST(read_while_others_fork) {
  ForkRead f = {.n = 64, .fd = SYS(open("/proc/self/exe", O_RDONLY))};
  size_t part = PAGE - 64, all = 64 * part;
  pthread_t writer, other;
  void *r;

  f.want = malloc(all);
  f.page = map_anon(64 * PAGE, PROT_READ | PROT_WRITE);
  REQUIRE(f.want && pread(f.fd, f.want, all, 0) == (ssize_t)all);
  for (int i = 0; i < f.n; i++)
    f.v[i] = (struct iovec){f.page + i * PAGE, part};
  REQUIRE(pthread_create(&writer, NULL, end_writer, &f) == 0);
  REQUIRE(pthread_create(&other, NULL, forker_until, &f) == 0);
  bool same = true;
  for (int64_t end = now_ns() + 1500000000; same && now_ns() < end;) {
    for (int i = 0; i < f.n; i++)
      memset(f.v[i].iov_base, 0xaa, part);
    REQUIRE(preadv(f.fd, f.v, f.n, 0) == (ssize_t)all);
    for (int i = 0; i < f.n && same; i++)
      same = CHECK(memcmp(f.v[i].iov_base, f.want + i * part, part) == 0);
  }
  f.stop = true;
  pthread_join(writer, NULL);
  pthread_join(other, &r);
  CHECK_EQ((long)r, 0);
}

static void *fd_worker(void *arg) {
  for (int i = 0; i < 300; i++) {
    int fd = open("/dev/null", O_RDWR);
    if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) < 0)
      return (void *)1;
  }
  return NULL;
}

TEST(descriptors_under_threads) {
  pthread_t t[6];
  void *r;

  for (int i = 0; i < 6; i++)
    REQUIRE(pthread_create(&t[i], NULL, fd_worker, NULL) == 0);
  for (int i = 0; i < 6; i++) {
    pthread_join(t[i], &r);
    CHECK_EQ((long)r, 0);
  }
}
