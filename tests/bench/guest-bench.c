/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that `./dev bench` times, as a static program that runs natively and in the sandbox alike.
 *
 *   guest-bench [ROW…]     all rows, or these; prints `ROW MIN MEDIAN` in nanoseconds
 *
 * `exit-now` beside this program is what the fork-exec row executes. It writes only in /tmp.
 */
#include "guest-bench.h"

#include <cpuid.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char exit_now[PATH_MAX];

static void do_syscall(void) { syscall(SYS_getppid); }

/* The pattern that compilers and C libraries emit: a call with a constant number, always at the same place. */
#define CALL_HERE(nr)                                                                                \
  do {                                                                                               \
    long result;                                                                                     \
    __asm__ volatile("mov %1, %%eax\n\tsyscall" : "=&a"(result) : "i"(nr) : "rcx", "r11", "memory"); \
  } while (0)
static void do_null(void) { CALL_HERE(SYS_getppid); }
static void do_getpid(void) { CALL_HERE(SYS_getpid); }

/* The same in a shared mapping, whose text no kernel may rewrite. */
static void (*shared_code)(void);
static void do_null_shared(void) { shared_code(); }
static void row_null_shared(const char *name) {
  static const unsigned char code[] = {0xb8, SYS_getppid, 0, 0, 0, 0x0f, 0x05, 0xc3};
  int fd = memfd_create("bench-code", 0);
  if (fd < 0 || ftruncate(fd, 4096) || pwrite(fd, code, sizeof code, 0) != sizeof code)
    DIE("memfd");
  void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED)
    DIE("mmap");
  shared_code = (void (*)(void))p;
  measure(name, do_null_shared);
  munmap(p, 4096);
  close(fd);
}

static void do_cpuid(void) {
  unsigned a, b, c, d;
  __cpuid(1, a, b, c, d);
}

#define BUSY_GUESTS 3
#define BUSY_WINDOWS 6
#define BUSY_WINDOW_NS 100e6
static int usable_cpus(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

/* Three processes that do nothing but call: how long a CPU is busy with one call, whoever works on it. */
static void row_null_busy(const char *name) {
  struct counter {
    _Alignas(64) _Atomic(unsigned long) calls;
  } *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t pid[BUSY_GUESTS];
  double values[BUSY_WINDOWS];
  int cpus = usable_cpus() < BUSY_GUESTS ? usable_cpus() : BUSY_GUESTS;
  for (int i = 0; i < BUSY_GUESTS; i++)
    if ((pid[i] = fork()) == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;; atomic_fetch_add_explicit(&count[i].calls, 100, memory_order_relaxed))
        for (int k = 0; k < 100; k++)
          do_null();
    }
  const struct timespec window = {0, (long)BUSY_WINDOW_NS};
  unsigned long last = 0;
  double begin = 0;
  for (int w = -1; w < BUSY_WINDOWS; w++) { /* the first warms up */
    nanosleep(&window, NULL);
    unsigned long now = 0;
    for (int i = 0; i < BUSY_GUESTS; i++)
      now += atomic_load(&count[i].calls);
    double end = measure_now();
    if (w >= 0)
      values[w] = now > last ? (end - begin) * cpus / (double)(now - last) : 1e9;
    last = now;
    begin = end;
  }
  for (int i = 0; i < BUSY_GUESTS; i++) {
    kill(pid[i], SIGKILL);
    waitpid(pid[i], NULL, 0);
  }
  munmap(count, 4096);
  measure_print(name, values, BUSY_WINDOWS);
}

static void do_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
}

static void do_fork(void) {
  pid_t pid = fork();
  if (pid == 0)
    _exit(0);
  if (pid < 0 || waitpid(pid, NULL, 0) != pid)
    DIE("fork");
}

static void do_fork_exec(void) {
  int status;
  pid_t pid = fork();
  if (pid == 0) {
    execl(exit_now, "exit-now", NULL);
    _exit(9);
  }
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
    DIE("fork-exec");
}

static void do_fork_busybox(void) {
  int status;
  pid_t pid = fork();
  if (pid == 0) {
    execl("/bin/busybox", "busybox", "true", NULL);
    _exit(9);
  }
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
    DIE("fork-busybox");
}

static void do_mmap_untouched(void) {
  char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || munmap(p, 65536))
    DIE("mmap");
}

static void do_mmap(void) {
  char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    DIE("mmap");
  *(volatile char *)p = 1;
  munmap(p, 65536);
}

static void *nothing(void *p) { return p; }
static void do_thread(void) {
  pthread_t t;
  if (pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL))
    DIE("thread");
}

static void on_signal(int sig) { (void)sig; }
static void do_signal(void) { raise(SIGUSR1); }

/* 1,024 first touches of fresh anonymous pages; only the touching is timed. */
static void row_faults(const char *name) {
  double values[60];
  for (int i = 0; i < 60; i++) {
    char *p = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      DIE("mmap");
    madvise(p, 4 << 20, MADV_NOHUGEPAGE);
    double begin = measure_now();
    for (int k = 0; k < 1024; k++)
      ((volatile char *)p)[k * 4096] = 1;
    values[i] = measure_now() - begin;
    munmap(p, 4 << 20);
  }
  measure_print(name, values, 60);
}

static int ping[2], pong[2];
static void do_pipe(void) {
  char c = 'x';
  if (write(ping[1], &c, 1) != 1 || read(pong[0], &c, 1) != 1)
    DIE("pipe");
}

/* One round trip: two writes and two reads, in two processes. */
static void row_pipe(const char *name) {
  if (pipe(ping) || pipe(pong))
    DIE("pipe");
  pid_t pid = fork();
  if (pid == 0) {
    char c;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ping[1]);
    while (read(ping[0], &c, 1) == 1)
      if (write(pong[1], &c, 1) != 1)
        break;
    _exit(0);
  }
  measure(name, do_pipe);
  close(ping[1]);
  waitpid(pid, NULL, 0);
}

#define CLIENTS 20
#define MESSAGE 64

/* Asks and waits for the answer, for ever. */
static void client(int ask, int answer) {
  char message[MESSAGE] = {0};
  while (write(ask, message, MESSAGE) == MESSAGE && read(answer, message, MESSAGE) == MESSAGE)
    ;
  _exit(0);
}

/* Answers what is ready once; how many that were. */
static int serve(struct pollfd *clients, const int *answers) {
  char message[MESSAGE];
  int served = 0;
  if (poll(clients, CLIENTS, -1) < 0)
    DIE("poll");
  for (int i = 0; i < CLIENTS; i++) {
    if (!(clients[i].revents & POLLIN))
      continue;
    if (read(clients[i].fd, message, MESSAGE) != MESSAGE || write(answers[i], message, MESSAGE) != MESSAGE)
      DIE("server");
    served++;
  }
  return served;
}

/* A server that polls, and 20 client processes: time for each request. */
static void row_server(const char *name) {
  struct pollfd clients[CLIENTS];
  int answers[CLIENTS];
  pid_t pid[CLIENTS];
  double values[10];
  for (int i = 0; i < CLIENTS; i++) {
    int ask[2], answer[2];
    if (pipe(ask) || pipe(answer) || (pid[i] = fork()) < 0)
      DIE("server");
    if (pid[i] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      client(ask[1], answer[0]);
    }
    close(ask[1]);
    close(answer[0]);
    clients[i] = (struct pollfd){.fd = ask[0], .events = POLLIN};
    answers[i] = answer[1];
  }
  for (int w = -1; w < 10; w++) { /* the first warms up */
    double begin = measure_now(), end = begin;
    long served = 0;
    while (end < begin + 100e6) {
      served += serve(clients, answers);
      end = measure_now();
    }
    if (w >= 0)
      values[w] = (end - begin) / (double)served;
  }
  for (int i = 0; i < CLIENTS; i++) {
    kill(pid[i], SIGKILL);
    waitpid(pid[i], NULL, 0);
    close(clients[i].fd);
    close(answers[i]);
  }
  measure_print(name, values, 10);
}

static _Atomic(unsigned) *turn;
/* Waits for its turn, then gives the turn to the other. */
static void pass(unsigned mine, unsigned other) {
  unsigned now;
  while ((now = atomic_load(turn)) != mine && now != 2)
    syscall(SYS_futex, turn, FUTEX_WAIT, now, NULL, NULL, 0);
  if (now == 2)
    _exit(0);
  atomic_store(turn, other);
  syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}
/* One round trip: the turn goes over and comes back. */
static void do_futex(void) {
  atomic_store(turn, 1);
  syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
  while (atomic_load(turn) == 1)
    syscall(SYS_futex, turn, FUTEX_WAIT, 1, NULL, NULL, 0);
}

static void row_futex(const char *name) {
  turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
      pass(1, 0);
  }
  measure(name, do_futex);
  atomic_store(turn, 2);
  syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
  waitpid(pid, NULL, 0);
}

static const BenchRow rows[] = {
    {"syscall", do_syscall, NULL},
    {"null", do_null, NULL},
    {"null-shared", NULL, row_null_shared},
    {"null-busy", NULL, row_null_busy},
    {"getpid", do_getpid, NULL},
    {"cpuid", do_cpuid, NULL},
    {"clock", do_clock, NULL},
    {"signal", do_signal, NULL},
    {"fork", do_fork, NULL},
    {"fork-exec", do_fork_exec, NULL},
    {"fork-busybox", do_fork_busybox, NULL},
    {"thread", do_thread, NULL},
    {"mmap", do_mmap, NULL},
    {"mmap-untouched", do_mmap_untouched, NULL},
    {"faults-1024", NULL, row_faults},
    {"pipe", NULL, row_pipe},
    {"server", NULL, row_server},
    {"futex", NULL, row_futex},
    {NULL, NULL, NULL},
};

static void prepare(const char *self) {
  const char *slash = strrchr(self, '/');
  snprintf(exit_now, sizeof exit_now, "%.*sexit-now", slash ? (int)(slash - self) + 1 : 0, self);
  signal(SIGUSR1, on_signal);
}

/* The rows that are wanted: all, or those named. */
static void run_rows(const BenchRow *r, int argc, char **argv) {
  for (; r->name; r++) {
    int wanted = argc == 1;
    for (int k = 1; k < argc; k++)
      wanted |= !strcmp(argv[k], r->name);
    if (wanted && r->row)
      r->row(r->name);
    else if (wanted)
      measure(r->name, r->once);
  }
}

int main(int argc, char **argv) {
  prepare(argv[0]);
  run_rows(rows, argc, argv);
  file_rows_begin();
  run_rows(file_rows, argc, argv);
  file_rows_end();
  return 0;
}
