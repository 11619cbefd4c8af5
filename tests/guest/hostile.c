/* SPDX-License-Identifier: Apache-2.0 */
/* hostile.c - a guest that passes garbage to every system call: the kernel process must survive it.
 *
 * Only in the sandbox (`--in-sandbox`): on a host these calls, made as root, would do real harm.
 * `--seed=N` repeats a run, `--seconds=N` sets its length (default 30; ten minutes once per change).
 * Workers do the calling; the parent respawns them, kills those that hang, survives and prints totals.
 * No call is left out. Guards: workers that keep root never aim at the parent's process ids.
 */
#include "check.h"

#include <dirent.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>

#define MAX_NR 460
#define WORKERS 6
#define THREADS 3
#define BATCH 1500        /* calls of one thread */
#define WORKER_LIMIT 1000 /* milliseconds */
#define SCRATCH (64 * PAGE)

#define NEED_SANDBOX()                                       \
  do {                                                       \
    if (!check_in_sandbox)                                   \
      SKIP("would harm the host: runs in the sandbox only"); \
  } while (0)

typedef struct {
  uint64_t rng;
  unsigned char *scratch; /* SCRATCH bytes, then a hole */
  pid_t safe_above;       /* process ids up to this one are the parent's and are not aimed at */
  bool guarded;
  int left;
} Caller;

static volatile unsigned long *calls; /* made in all; a hint only: a worker may scribble on it */

static long raw(long nr, const unsigned long a[6]) {
  register unsigned long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
  long r = nr;

  /* No errno: a random arch_prctl may have moved the thread's TLS. */
  __asm__ volatile("syscall"
                   : "+a"(r)
                   : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory", "cc");
  return r;
}

static unsigned long pick_pointer(Caller *c) {
  uint64_t r = next_random(&c->rng);
  unsigned char *s = c->scratch;

  switch (r % 12) {
  case 0:
    return 0;
  case 1:
    return 8;
  case 2:
    return 0xffff800000000000ul + (r >> 20);
  case 3:
    return 0x7ffffffff000ul - (r >> 40) % 8192;
  case 4:
    return (unsigned long)s + SCRATCH - (r >> 8) % 64; /* runs into the hole */
  case 5:
    return (unsigned long)s + SCRATCH + (r >> 8) % 4096;
  case 6:
    return r; /* anywhere */
  default:
    return (unsigned long)s + ((r >> 8) % SCRATCH & ((r >> 32) % 4 ? ~7ul : ~0ul));
  }
}

static unsigned long pick_number(Caller *c) {
  static const long odd[] = {-1,           -2,       -100, 0x7fffffff, 0x80000000l, 0xffffffffl,
                             0x100000000l, 1l << 62, 4095, 4096,       4097,        65536};
  uint64_t r = next_random(&c->rng);

  switch (r % 6) {
  case 0:
    return (unsigned long)odd[(r >> 8) % (sizeof odd / sizeof *odd)];
  case 1:
    return 1ul << (r >> 8) % 64;
  case 2:
    return (r >> 8) & (r >> 30) & 0xffffffff; /* a few flag bits */
  case 3:
    return r;
  default:
    return (r >> 8) % 70;
  }
}

static unsigned long pick(Caller *c) {
  uint64_t r = next_random(&c->rng);

  switch (r % 5) {
  case 0:
    return (r >> 8) % 24; /* a descriptor, a signal, a small count */
  case 1:
  case 2:
    return pick_pointer(c);
  case 3:
    return pick_number(c);
  default:
    return (unsigned long)c->scratch + (r >> 8) % 16 * 64; /* a path, see fill */
  }
}

/* Paths at the first sixteen slots; the rest random words that look like descriptors, pointers and lengths. */
static void fill(Caller *c) {
  static const char *const paths[] = {"/tmp/h0",
                                      "/tmp/h1",
                                      "/tmp/hd",
                                      "/tmp/hd/x",
                                      "/proc/self/maps",
                                      "/proc/self/mem",
                                      "/dev/null",
                                      "/dev/zero",
                                      "/dev/ptmx",
                                      "",
                                      ".",
                                      "/proc/self/fd",
                                      "/tmp/hl",
                                      "/dev/urandom",
                                      "/proc/self/exe",
                                      "/tmp/h0/../h1"};
  unsigned long *words = (unsigned long *)c->scratch;

  for (int i = 0; i < 16; i++)
    strcpy((char *)c->scratch + i * 64, paths[i]);
  for (int i = 0; i < 40; i++) {
    size_t at = 128 + next_random(&c->rng) % (SCRATCH / 8 - 128);
    words[at] = next_random(&c->rng) % 2 ? pick_number(c) : pick_pointer(c);
  }
}

static bool takes_pid(long nr, int *ret_arg) {
  static const short first[] = {SYS_kill,
                                SYS_tkill,
                                SYS_tgkill,
                                SYS_rt_sigqueueinfo,
                                SYS_rt_tgsigqueueinfo,
                                SYS_prlimit64,
                                SYS_pidfd_open,
                                SYS_process_vm_writev,
                                SYS_process_vm_readv,
                                SYS_sched_setscheduler,
                                SYS_sched_setparam,
                                SYS_sched_setattr,
                                SYS_sched_setaffinity,
                                SYS_migrate_pages,
                                SYS_move_pages};

  for (size_t i = 0; i < sizeof first / sizeof *first; i++)
    if (nr == first[i]) {
      *ret_arg = 0;
      return true;
    }
  *ret_arg = 1;
  return nr == SYS_ptrace || nr == SYS_setpriority || nr == SYS_ioprio_set;
}

static void guard(Caller *c, long nr, unsigned long a[6]) {
  int i;

  if (!c->guarded || !takes_pid(nr, &i))
    return;
  for (int k = i; k < i + 2 && k < 6; k++)
    if ((int)a[k] < 0 || (int)a[k] <= c->safe_above)
      a[k] = (unsigned long)(c->safe_above + 1) + a[k] % 64;
  if (nr == SYS_setpriority || nr == SYS_ioprio_set)
    a[0] = 0; /* of one process, not of a user */
}

static void call_many(Caller *c, int depth) {
  for (; c->left > 0; c->left--) {
    uint64_t r = next_random(&c->rng);
    long nr = (long)(r % (MAX_NR + 1));
    unsigned long a[6];
    /* These end the worker: useful, but not every other moment. */
    bool deadly = nr == SYS_exit || nr == SYS_exit_group || nr == SYS_rt_sigreturn || nr == SYS_execve ||
                  nr == SYS_execveat || nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone ||
                  nr == SYS_clone3 || nr == SYS_pause || nr == SYS_munmap || nr == SYS_mremap ||
                  nr == SYS_brk;
    if (deadly && (r >> 20) % 16)
      continue;
    for (int i = 0; i < 6; i++)
      a[i] = pick(c);
    if ((r >> 40) % 8 == 0)
      fill(c);
    guard(c, nr, a);
    __atomic_fetch_add(calls, 1, __ATOMIC_RELAXED);
    if (raw(nr, a) == 0 && (nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone || nr == SYS_clone3)) {
      if (depth < 2 && c->left > 20)
        c->left = 20; /* a child of its own: a few more calls */
      else
        raw(SYS_exit_group, a);
      depth++;
    }
  }
}

static void ignore(int sig) {}

static int thread_main(void *arg) {
  call_many(arg, 0);
  return 0;
}

static void limit(int what, rlim_t n) {
  struct rlimit r = {n, n};

  setrlimit(what, &r);
}

static void worker(uint64_t seed, pid_t safe_above, bool keep_root) {
  static Caller callers[THREADS];
  unsigned char *scratch = map_anon(SCRATCH + PAGE, PROT_READ | PROT_WRITE),
                *stacks = map_anon(THREADS * 65536, PROT_READ | PROT_WRITE);
  struct itimerval tick = {{0, 20000}, {0, 20000}};
  int null = open("/dev/null", O_RDWR);

  setpgid(0, 0);
  munmap(scratch + SCRATCH, PAGE);
  for (int fd = 0; fd < 6; fd++) /* the runner's pipe is out of reach */
    dup2(null, fd);
  limit(RLIMIT_AS, 512ul << 20);
  limit(RLIMIT_FSIZE, 8 << 20);
  limit(RLIMIT_NOFILE, 200);
  limit(RLIMIT_NPROC, 300);
  limit(RLIMIT_CORE, 0);
  if (!keep_root) {
    SYS(setresgid(65534, 65534, 65534));
    SYS(setresuid(65534, 65534, 65534));
  }
  for (int s = 1; s < 32; s++)
    signal(s, ignore);
  on_signal(SIGALRM, ignore, 0);
  setitimer(ITIMER_REAL, &tick, NULL); /* blocking calls come back */
  for (int i = 0; i < THREADS; i++) {
    callers[i] = (Caller){.rng = seed * 31 + (uint64_t)i + 1,
                          .scratch = scratch,
                          .safe_above = safe_above,
                          .guarded = keep_root,
                          .left = BATCH};
    fill(&callers[i]);
    if (i > 0)
      clone(thread_main, stacks + (i + 1) * 65536,
            CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, &callers[i]);
  }
  call_many(&callers[0], 0);
  raw(SYS_exit_group, (unsigned long[6]){7});
}

typedef struct {
  pid_t pid;
  int64_t born;
} Slot;

/* Processes that left their worker's group: everything that is neither ours, an ancestor nor a worker's. */
static void kill_strays(const Slot *slots, pid_t safe_above) {
  DIR *d = opendir("/proc");

  for (struct dirent *e; d && (e = readdir(d));) {
    pid_t pid = atoi(e->d_name);
    bool known = pid <= safe_above || pid == getppid();
    for (int i = 0; i < WORKERS && !known; i++)
      known = slots[i].pid && (pid == slots[i].pid || getpgid(pid) == slots[i].pid);
    if (!known)
      kill(pid, SIGKILL);
  }
  if (d)
    closedir(d);
  while (waitpid(-1, NULL, WNOHANG) > 0)
    ;
}

static bool sandbox_is_sane(void) {
  char buf[8] = "";
  int fd = open("/proc/self/comm", O_RDONLY), p[2];

  CHECK(fd >= 0 && read(fd, buf, 7) > 0);
  close(fd);
  CHECK(pipe(p) == 0 && write(p[1], "ok", 2) == 2 && read(p[0], buf, 2) == 2);
  close(p[0]);
  close(p[1]);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(open("/dev/null", O_WRONLY), 1);
    execl("/proc/self/exe", "hostile", "--list", NULL);
    _exit(9);
  }
  int status = pid > 0 ? check_wait(pid) : -1;
  return CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A worker that SIGKILL does not end is a fault of the kernel under test. */
static pid_t kill_worker(pid_t pid, int *ret_status) {
  int64_t until = now_ns() + 5000000000ll;
  pid_t r;

  kill(-pid, SIGKILL);
  kill(pid, SIGKILL);
  while ((r = waitpid(pid, ret_status, WNOHANG)) == 0 && now_ns() < until)
    sleep_ms(2);
  if (r == 0)
    check_fail(__FILE__, __LINE__, "worker %d cannot be killed", pid);
  return r;
}

static void reap_slot(Slot *s, unsigned long totals[3]) {
  int status = 0;
  pid_t r = waitpid(s->pid, &status, WNOHANG);

  if (r == 0 && now_ns() - s->born > WORKER_LIMIT * 1000000ll) {
    totals[2]++;
    kill_worker(s->pid, &status);
    s->pid = 0;
  } else if (r != 0) {
    kill(-s->pid, SIGKILL);
    totals[r == s->pid && WIFEXITED(status) ? 0 : 1]++;
    s->pid = 0;
  }
}

TEST_LIMIT(random_syscalls, 750) {
  unsigned long seconds = check_seconds ? check_seconds : 30, totals[3] = {0};
  uint64_t seed = check_seed ? check_seed : 1, batch = 0;
  Slot slots[WORKERS] = {{0}};
  pid_t me = getpid();

  NEED_SANDBOX();
  calls = map_shared(PAGE);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (int64_t end = now_ns() + (int64_t)seconds * 1000000000; now_ns() < end; sleep_ms(2)) {
    for (int i = 0; i < WORKERS; i++) {
      if (slots[i].pid)
        reap_slot(&slots[i], totals);
      if (slots[i].pid)
        continue;
      uint64_t n = batch++;
      pid_t pid = fork();
      if (pid == 0)
        worker(seed * 1000003 + n, me, n % 2 == 0);
      if (pid > 0)
        slots[i] = (Slot){pid, now_ns()};
    }
    if (batch % 16 == 0)
      kill_strays(slots, me);
  }
  for (int i = 0, status; i < WORKERS; i++)
    if (slots[i].pid) {
      kill_worker(slots[i].pid, &status);
      slots[i].pid = 0;
    }
  kill_strays(slots, me);
  dprintf(2,
          "seed %lu: about %lu calls, %lu workers, %lu ended by themselves, %lu died of a signal, %lu were "
          "stuck\n",
          (unsigned long)seed, *calls, (unsigned long)batch, totals[0], totals[1], totals[2]);
  CHECK(batch > 3);
  sandbox_is_sane();
}

static const unsigned long same[] = {
    0, 1, ~0ul, 8, 0xffff800000000000ul, 0x7ffffffff000ul, 0x7fffffff, 0x8000000000000000ul};

static void one_value_to_all(unsigned long value, pid_t safe_above, int from) {
  Caller c = {.guarded = true, .safe_above = safe_above, .rng = 1};

  setpgid(0, 0);
  for (int fd = 0; fd < 6; fd++)
    dup2(open("/dev/null", O_RDWR), fd);
  for (int s = 1; s < 32; s++)
    signal(s, ignore);
  struct itimerval tick = {{0, 20000}, {0, 20000}};
  setitimer(ITIMER_REAL, &tick, NULL);
  for (long nr = from; nr < from + 10 && nr <= MAX_NR; nr++) {
    unsigned long a[6] = {value, value, value, value, value, value};
    if (nr == SYS_exit || nr == SYS_exit_group)
      continue; /* otherwise the rest of the ten would not be tried */
    guard(&c, nr, a);
    if (raw(nr, a) == 0 && (nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone))
      raw(SYS_exit, a);
  }
  raw(SYS_exit_group, (unsigned long[6]){0});
}

/* The deterministic half: every number with the same nasty value in all six places. */
TEST_LIMIT(every_number_with_one_value, 120) {
  pid_t me = getpid();

  NEED_SANDBOX();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (size_t v = 0; v < sizeof same / sizeof *same; v++)
    for (int from = 0; from <= MAX_NR; from += 10) {
      pid_t pid = (pid_t)SYS(fork());
      int status;
      if (pid == 0)
        one_value_to_all(same[v], me, from);
      int64_t until = now_ns() + 500000000;
      while (waitpid(pid, &status, WNOHANG) == 0)
        if (now_ns() < until)
          sleep_ms(1);
        else
          kill(pid, SIGKILL);
      kill(-pid, SIGKILL);
      while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    }
  sandbox_is_sane();
}

/* Numbers that no kernel has, and register contents of every pattern: always ENOSYS, nothing else. */
TEST(numbers_beyond_the_table) {
  unsigned long a[6] = {1, 2, 3, 4, 5, 6};
  uint64_t seed = 99;

  for (int i = 0; i < 2000; i++) {
    long nr = (long)(next_random(&seed) & 0x3fffffff) | 0x10000;
    if (!CHECK_EQ(raw(nr, a), -ENOSYS))
      break;
  }
  CHECK_EQ(raw(-1, a), -ENOSYS);
  CHECK_EQ(raw(0x7fffffffffffffff, a), -ENOSYS);
}

/* Strings, vectors and structures that another thread changes while the kernel reads them. */
static volatile int stop_flipping;

static int flipper(void *arg) {
  volatile char *s = arg;

  while (!stop_flipping)
    for (int i = 0; i < 64; i++) {
      s[i % 64] = (char)(i & 1 ? '/' : 't');
      ((volatile unsigned long *)s)[8 + i % 16] = i & 1 ? ~0ul : 4;
    }
  return 0;
}

TEST_LIMIT(memory_changes_while_it_is_read, 30) {
  char *s = map_anon(2 * PAGE, PROT_READ | PROT_WRITE), *stack = map_anon(65536, PROT_READ | PROT_WRITE);
  int p[2];

  SYS(munmap(s + PAGE, PAGE));
  strcpy(s, "/tmp/none");
  SYS(pipe2(p, O_NONBLOCK));
  SYS(clone(flipper, stack + 65536,
            CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, s));
  for (int i = 0; i < 3000; i++) {
    unsigned long vec = (unsigned long)s + 64;
    raw(SYS_access, (unsigned long[6]){(unsigned long)s});
    raw(SYS_writev, (unsigned long[6]){(unsigned long)p[1], vec, 4});
    raw(SYS_readv, (unsigned long[6]){(unsigned long)p[0], vec, 4});
    raw(SYS_nanosleep, (unsigned long[6]){(unsigned long)s + 64 + (unsigned long)(i % 2) * PAGE, 0});
    raw(SYS_poll, (unsigned long[6]){vec, 8, 0});
    raw(SYS_futex, (unsigned long[6]){vec, 0, 4, 8});
  }
  stop_flipping = 1;
  sleep_ms(20);
}
