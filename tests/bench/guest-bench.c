/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that `./dev bench` times, as a static program that runs natively and in the sandbox alike.
 *
 *   guest-bench [ROW…]     all rows, or these; prints `ROW MIN MEDIAN` in nanoseconds
 *
 * `exit-now` beside this program is what the fork-exec row executes. It writes only in /tmp.
 */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIE(what) \
  do {            \
    perror(what); \
    exit(1);      \
  } while (0)

static char exit_now[PATH_MAX];

static void do_syscall(void) { syscall(SYS_getppid); }

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

static void do_mmap(void) {
  char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    DIE("mmap");
  *(volatile char *)p = 1;
  munmap(p, 65536);
}

static void do_open(void) {
  int fd = open("/tmp/bench-file", O_RDONLY);
  if (fd < 0)
    DIE("open");
  close(fd);
}

static void do_stat(void) {
  struct stat st;
  if (stat("/tmp/a/b/c/d/e", &st))
    DIE("stat");
}

static void do_stat_missing(void) {
  struct stat st;
  if (!stat("/tmp/a/b/c/d/missing", &st))
    abort();
}

static void do_stat_host(void) {
  struct stat st;
  if (stat("/usr/share/doc", &st))
    DIE("stat");
}

static int file_fd;
static void do_read(void) {
  static char buf[4096];
  if (pread(file_fd, buf, sizeof buf, 0) != sizeof buf)
    DIE("read");
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

/* 256 MiB written to a file in /tmp and read back, 64 KiB at a time. */
static void row_file(const char *name) {
  static char buf[65536];
  double values[3];
  memset(buf, 'x', sizeof buf);
  for (int i = 0; i < 3; i++) {
    int fd = open("/tmp/bench-big", O_RDWR | O_CREAT | O_TRUNC, 0600);
    double begin = measure_now();
    for (int k = 0; k < 4096; k++)
      if (write(fd, buf, sizeof buf) != sizeof buf)
        DIE("write");
    lseek(fd, 0, SEEK_SET);
    for (int k = 0; k < 4096; k++)
      if (read(fd, buf, sizeof buf) != sizeof buf)
        DIE("read");
    values[i] = measure_now() - begin;
    close(fd);
    unlink("/tmp/bench-big");
  }
  measure_print(name, values, 3);
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

static const struct {
  const char *name;
  void (*once)(void);
  void (*row)(const char *name);
} rows[] = {
    {"syscall", do_syscall, NULL},
    {"clock", do_clock, NULL},
    {"signal", do_signal, NULL},
    {"fork", do_fork, NULL},
    {"fork-exec", do_fork_exec, NULL},
    {"thread", do_thread, NULL},
    {"mmap", do_mmap, NULL},
    {"faults-1024", NULL, row_faults},
    {"pipe", NULL, row_pipe},
    {"futex", NULL, row_futex},
    {"open-close", do_open, NULL},
    {"stat", do_stat, NULL},
    {"stat-missing", do_stat_missing, NULL},
    {"stat-host", do_stat_host, NULL},
    {"read-4k", do_read, NULL},
    {"file-256m", NULL, row_file},
};

static void prepare(const char *self) {
  static const char zero[4096];
  const char *slash = strrchr(self, '/');
  snprintf(exit_now, sizeof exit_now, "%.*sexit-now", slash ? (int)(slash - self) + 1 : 0, self);
  static const char *const dirs[] = {"/tmp/a", "/tmp/a/b", "/tmp/a/b/c", "/tmp/a/b/c/d", "/tmp/a/b/c/d/e"};
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
    mkdir(dirs[i], 0755);
  file_fd = open("/tmp/bench-file", O_RDWR | O_CREAT, 0600);
  if (file_fd < 0 || pwrite(file_fd, zero, sizeof zero, 0) != sizeof zero)
    DIE("/tmp/bench-file");
  signal(SIGUSR1, on_signal);
}

int main(int argc, char **argv) {
  prepare(argv[0]);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int wanted = argc == 1;
    for (int k = 1; k < argc; k++)
      wanted |= !strcmp(argv[k], rows[i].name);
    if (!wanted)
      continue;
    if (rows[i].row)
      rows[i].row(rows[i].name);
    else
      measure(rows[i].name, rows[i].once);
  }
  unlink("/tmp/bench-file");
  return 0;
}
