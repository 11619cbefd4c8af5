/* SPDX-License-Identifier: Apache-2.0 */
/* What the core and the plugins add to a system call: real tasks on a platform that runs no guest. Its run() answers at
 * once with the next call of a script, so that the loop trap, serve, run can be timed, or counted exactly:
 *
 *   call-cost [CASE...]                                  minimum ns for each case
 *   valgrind --tool=callgrind --dump-instr=no --collect-atstart=no call-cost [CASE...]
 *                                                         one dump for each case, of COUNT_ROUNDS rounds
 *
 * `pingpong-*` cases have a second task; they say nothing under callgrind, which runs one thread at a time. Not a test. */
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <tessera/tessera.h>
#include <time.h>
#include <unistd.h>
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#define CALLGRIND_TOGGLE_COLLECT
#define CALLGRIND_ZERO_STATS
#define CALLGRIND_DUMP_STATS_AT(name) (void)(name)
#endif

#define COUNT_ROUNDS 100
#define WARM_ROUNDS 50
#define BATCHES 60
#define MAX_CALLS 4

typedef struct {
  gulong nr, a[6];
} Call;

/* A case prepares its descriptors and memory, and fills in the calls of a round; and undoes it. */
typedef struct {
  const char *name;
  void (*prepare)(void);
  guint rounds; /* of a batch */
  gboolean pingpong;
} Case;

/* One task's loop. */
typedef struct {
  TesExec base;
  TesRegs regs;
  Call call[MAX_CALLS];
  guint n, next;
  guint64 rounds;
  void (*round_done)(void); /* NULL: for ever */
  gboolean started, again;  /* again: repeat the last call */
} Exec;

static TesRegistry *registry;
static TesKernel *kernel;
static gulong buf;           /* 1 MiB of guest memory */
static const Case *the_case; /* being run */
static Exec *first;
static Exec second_script; /* what the next new exec begins with */

/* ---- Direct calls, for preparations; in the task's thread ---- */

static glong sys(gulong nr, gulong a, gulong b, gulong c, gulong d, gulong e) {
  const gulong args[6] = {a, b, c, d, e, 0};
  glong r = tes_syscall_row(registry, (guint)nr)->fn(tes_task_current(), args);
  return r;
}

static glong must(glong r, const char *what) {
  if (r < 0)
    g_error("%s: %s", what, g_strerror((int)-r));
  return r;
}
#define SYS(nr, a, b, c, d, e) \
  must(sys(SYS_##nr, (gulong)(a), (gulong)(b), (gulong)(c), (gulong)(d), (gulong)(e)), #nr)

static void put(gulong at, const void *p, gsize n) {
  must(tes_copy_out(tes_task_current(), at, p, n), "copy out");
}
static gulong text(gulong at, const char *s) {
  put(at, s, strlen(s) + 1);
  return at;
}

static void add(Exec *x, gulong nr, gulong a, gulong b, gulong c, gulong d, gulong e) {
  x->call[x->n++] = (Call){nr, {a, b, c, d, e}};
}
#define CALL(nr, a, b, c, d, e) \
  add(first, SYS_##nr, (gulong)(a), (gulong)(b), (gulong)(c), (gulong)(d), (gulong)(e))

/* ---- Cases ---- */

#define NAME (buf + 0x80000)

static int file_of(const char *path, gsize size) {
  int fd = (int)SYS(open, text(NAME, path), O_RDWR | O_CREAT, 0644, 0, 0);
  for (gsize n = 0; n < size; n += 65536)
    SYS(write, fd, buf, 65536, 0, 0);
  return fd;
}
static int pipe_of(int *w) {
  int p[2];
  SYS(pipe2, NAME, 0, 0, 0, 0);
  must(tes_copy_in(tes_task_current(), p, NAME, sizeof p), "copy in");
  *w = p[1];
  return p[0];
}

static void null_call(void) { CALL(getppid, 0, 0, 0, 0, 0); }
static void bad_call(void) { CALL(close, -1, 0, 0, 0, 0); }
static void lseek_(void) { CALL(lseek, file_of("/tmp/f", 65536), 10, SEEK_SET, 0, 0); }
static void pread_1(void) { CALL(pread64, file_of("/tmp/f", 65536), buf, 1, 0, 0); }
static void pread_4k(void) { CALL(pread64, file_of("/tmp/f", 65536), buf, 4096, 4096, 0); }
static void pread_64k(void) { CALL(pread64, file_of("/tmp/f", 65536), buf, 65536, 0, 0); }
static void pwrite_1(void) { CALL(pwrite64, file_of("/tmp/f", 65536), buf, 1, 0, 0); }
static void pwrite_4k(void) { CALL(pwrite64, file_of("/tmp/f", 65536), buf, 4096, 4096, 0); }
static void read_eof(void) {
  int fd = file_of("/tmp/f", 65536);
  SYS(lseek, fd, 0, SEEK_END, 0, 0);
  CALL(read, fd, buf, 100, 0, 0);
}
static void readv_2(void) {
  int fd = file_of("/tmp/f", 65536);
  struct iovec v[2] = {{(void *)buf, 100}, {(void *)(buf + 8192), 100}};
  put(NAME, v, sizeof v);
  CALL(preadv, fd, NAME, 2, 0, 0);
}
static void host_pread_1(void) {
  CALL(pread64, SYS(open, text(NAME, "/host/bin/busybox"), 0, 0, 0, 0), buf, 1, 0, 0);
}
static void host_pread_4k(void) {
  CALL(pread64, SYS(open, text(NAME, "/host/bin/busybox"), 0, 0, 0, 0), buf, 4096, 4096, 0);
}
static void fstat_(void) { CALL(fstat, file_of("/tmp/f", 0), buf, 0, 0, 0); }
static void fstat_host(void) {
  CALL(fstat, SYS(open, text(NAME, "/host/bin/busybox"), 0, 0, 0, 0), buf, 0, 0, 0);
}
static void stat_(void) {
  SYS(close, file_of("/tmp/f", 0), 0, 0, 0, 0);
  CALL(stat, NAME, buf, 0, 0, 0);
}
static void deep(void) {
  static const char *const dirs[] = {"/tmp/a", "/tmp/a/b", "/tmp/a/b/c", "/tmp/a/b/c/d"};
  for (guint i = 0; i < G_N_ELEMENTS(dirs); i++)
    sys(SYS_mkdir, text(NAME, dirs[i]), 0755, 0, 0, 0);
  SYS(close, file_of("/tmp/a/b/c/d/e", 0), 0, 0, 0, 0);
}
static void stat_deep(void) {
  deep();
  CALL(stat, NAME, buf, 0, 0, 0);
}
static void access_deep(void) {
  deep();
  CALL(access, NAME, R_OK, 0, 0, 0);
}
static void stat_missing(void) { CALL(stat, text(NAME, "/tmp/missing"), buf, 0, 0, 0); }
static void stat_relative(void) {
  SYS(close, file_of("/tmp/f", 0), 0, 0, 0, 0);
  SYS(chdir, text(NAME + 512, "/tmp"), 0, 0, 0, 0);
  CALL(stat, text(NAME, "f"), buf, 0, 0, 0);
}
static void stat_host(void) { CALL(stat, text(NAME, "/host/usr/share/doc"), buf, 0, 0, 0); }
static void statx_(void) {
  SYS(close, file_of("/tmp/f", 0), 0, 0, 0, 0);
  CALL(statx, AT_FDCWD, NAME, 0, 0x7ff, buf);
}
/* Descriptors 0 to 2 are free, so the new one is 0. */
static void open_close(void) {
  SYS(close, file_of("/tmp/f", 0), 0, 0, 0, 0);
  CALL(openat, AT_FDCWD, NAME, O_RDONLY, 0, 0);
  CALL(close, 0, 0, 0, 0, 0);
}
static void open_host(void) {
  CALL(openat, AT_FDCWD, text(NAME, "/host/bin/busybox"), O_RDONLY, 0, 0);
  CALL(close, 0, 0, 0, 0, 0);
}
static void create_unlink(void) {
  text(NAME, "/tmp/new");
  CALL(openat, AT_FDCWD, NAME, O_RDWR | O_CREAT, 0644, 0);
  CALL(close, 0, 0, 0, 0, 0);
  CALL(unlink, NAME, 0, 0, 0, 0);
}
static void dup_close(void) {
  file_of("/tmp/f", 0);
  CALL(dup, 0, 0, 0, 0, 0);
  CALL(close, 1, 0, 0, 0, 0);
}
static void getdents_(void) {
  int fd = (int)SYS(open, text(NAME, "/tmp"), O_RDONLY | O_DIRECTORY, 0, 0, 0);
  CALL(lseek, fd, 0, SEEK_SET, 0, 0);
  CALL(getdents64, fd, buf, 32768, 0, 0);
}
static void pipe_rw(void) {
  int w, r = pipe_of(&w);
  CALL(write, w, buf, 1, 0, 0);
  CALL(read, r, buf, 1, 0, 0);
}
static void pipe_4k(void) {
  int w, r = pipe_of(&w);
  CALL(write, w, buf, 4096, 0, 0);
  CALL(read, r, buf, 4096, 0, 0);
}
static void pipe_64k(void) {
  int w, r = pipe_of(&w);
  CALL(write, w, buf, 65536, 0, 0);
  CALL(read, r, buf, 65536, 0, 0);
}
static void eventfd_rw(void) {
  int fd = (int)SYS(eventfd2, 0, 0, 0, 0, 0);
  guint64 one = 1;
  put(buf, &one, 8);
  CALL(write, fd, buf, 8, 0, 0);
  CALL(read, fd, buf, 8, 0, 0);
}
static void unix_rw(void) {
  int p[2];
  SYS(socketpair, 1, 1, 0, NAME, 0);
  must(tes_copy_in(tes_task_current(), p, NAME, sizeof p), "copy in");
  CALL(write, p[0], buf, 64, 0, 0);
  CALL(read, p[1], buf, 64, 0, 0);
}
static void poll_n(guint n) {
  struct pollfd p[20];
  for (guint i = 0; i < n; i++) {
    int w, r = pipe_of(&w);
    p[i] = (struct pollfd){.fd = r, .events = POLLIN};
    if (i == n - 1)
      SYS(write, w, buf, 1, 0, 0);
  }
  put(NAME, p, n * sizeof *p);
  CALL(poll, NAME, n, -1, 0, 0);
}
static void poll_1(void) { poll_n(1); }
static void poll_20(void) { poll_n(20); }
static void poll_none(void) {
  poll_n(20);
  SYS(read, 38, buf, 1, 0, 0);
  first->n = 0;
  CALL(poll, NAME, 20, 0, 0, 0);
}
static void select_20(void) {
  poll_n(20);
  first->n = 0;
  fd_set in;
  FD_ZERO(&in);
  FD_SET(38, &in);
  put(NAME, &in, sizeof in);
  CALL(select, 40, NAME, 0, 0, 0);
}
static void epoll_n(guint n, guint flags) {
  int ep = (int)SYS(epoll_create1, 0, 0, 0, 0, 0);
  for (guint i = 0; i < n; i++) {
    int w, r = pipe_of(&w);
    struct epoll_event ev = {.events = EPOLLIN | flags};
    put(NAME, &ev, sizeof ev);
    SYS(epoll_ctl, ep, EPOLL_CTL_ADD, r, NAME, 0);
    if (i == n - 1) {
      SYS(write, w, buf, 1, 0, 0);
      CALL(epoll_wait, ep, buf, 16, -1, 0);
    }
  }
}
static void epoll_1(void) { epoll_n(1, 0); }
static void epoll_100(void) { epoll_n(100, 0); }
static void epoll_none(void) { CALL(epoll_wait, SYS(epoll_create1, 0, 0, 0, 0, 0), buf, 16, 0, 0); }
/* What a server does: a request comes, it waits, reads. */
static void epoll_cycle(void) {
  int ep = (int)SYS(epoll_create1, 0, 0, 0, 0, 0), w, r = pipe_of(&w);
  struct epoll_event ev = {.events = EPOLLIN};
  put(NAME, &ev, sizeof ev);
  SYS(epoll_ctl, ep, EPOLL_CTL_ADD, r, NAME, 0);
  CALL(write, w, buf, 1, 0, 0);
  CALL(epoll_wait, ep, buf + 4096, 16, -1, 0);
  CALL(read, r, buf, 1, 0, 0);
}
static void futex_wake_none(void) { CALL(futex, buf, FUTEX_WAKE_PRIVATE, 1, 0, 0); }
static void futex_wake_shared(void) { CALL(futex, buf, FUTEX_WAKE, 1, 0, 0); }
static void futex_again(void) { CALL(futex, buf, FUTEX_WAIT_PRIVATE, 77, 0, 0); }
static void clock_(void) { CALL(clock_gettime, 1, buf, 0, 0, 0); }
static void sigmask_(void) { CALL(rt_sigprocmask, SIG_BLOCK, 0, buf, 8, 0); }
static void sigaction_(void) { CALL(rt_sigaction, 10, 0, buf, 8, 0); }
static void fcntl_(void) { CALL(fcntl, file_of("/tmp/f", 0), F_GETFL, 0, 0, 0); }
static void brk_(void) { CALL(brk, 0, 0, 0, 0, 0); }
static void mmap_munmap(void) {
  CALL(mmap, 0x7e0000000000, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
  CALL(munmap, 0x7e0000000000, 65536, 0, 0, 0);
}
static void readlink_(void) { CALL(readlink, text(NAME, "/proc/self/exe"), buf, 256, 0, 0); }
static void getcwd_(void) { CALL(getcwd, buf, 256, 0, 0, 0); }

static void with_second(void) {
  SYS(clone, 0x10f00 /* VM FS FILES SIGHAND THREAD */, buf + 0x90000, 0, 0, 0);
}
#define CALL2(nr, a, b, c, d, e) \
  add(&second_script, SYS_##nr, (gulong)(a), (gulong)(b), (gulong)(c), (gulong)(d), (gulong)(e))
static void pingpong_pipe(void) {
  int w1, r1 = pipe_of(&w1), w2, r2 = pipe_of(&w2);
  CALL2(read, r1, buf, 1, 0, 0);
  CALL2(write, w2, buf, 1, 0, 0);
  with_second();
  CALL(write, w1, buf, 1, 0, 0);
  CALL(read, r2, buf, 1, 0, 0);
}
static void pingpong_epoll(void) {
  int w1, r1 = pipe_of(&w1), w2, r2 = pipe_of(&w2), ep = (int)SYS(epoll_create1, 0, 0, 0, 0, 0);
  struct epoll_event ev = {.events = EPOLLIN};
  put(NAME, &ev, sizeof ev);
  SYS(epoll_ctl, ep, EPOLL_CTL_ADD, r1, NAME, 0);
  CALL2(epoll_wait, ep, buf + 4096, 16, -1, 0);
  CALL2(read, r1, buf, 1, 0, 0);
  CALL2(write, w2, buf, 1, 0, 0);
  with_second();
  CALL(write, w1, buf, 1, 0, 0);
  CALL(read, r2, buf, 1, 0, 0);
}
static void pingpong_poll(void) {
  int w1, r1 = pipe_of(&w1), w2, r2 = pipe_of(&w2);
  struct pollfd p[2] = {{.fd = r1, .events = POLLIN}, {.fd = r2, .events = POLLIN}};
  put(NAME, p, sizeof p);
  CALL2(poll, NAME, 1, -1, 0, 0);
  CALL2(read, r1, buf, 1, 0, 0);
  CALL2(write, w2, buf, 1, 0, 0);
  with_second();
  CALL(write, w1, buf, 1, 0, 0);
  CALL(poll, NAME + sizeof *p, 1, -1, 0, 0);
  CALL(read, r2, buf, 1, 0, 0);
}
static void pingpong_eventfd(void) {
  int e1 = (int)SYS(eventfd2, 0, 0, 0, 0, 0), e2 = (int)SYS(eventfd2, 0, 0, 0, 0, 0);
  guint64 one = 1;
  put(buf, &one, 8);
  CALL2(read, e1, buf + 64, 8, 0, 0);
  CALL2(write, e2, buf, 8, 0, 0);
  with_second();
  CALL(write, e1, buf, 8, 0, 0);
  CALL(read, e2, buf + 64, 8, 0, 0);
}
/* The words never change: every wait sleeps. */
static void pingpong_futex(void) {
  CALL2(futex, buf, FUTEX_WAIT_PRIVATE, 0, 0, 0);
  CALL2(futex, buf + 64, FUTEX_WAKE_PRIVATE, 1, 0, 0);
  with_second();
  CALL(futex, buf, FUTEX_WAKE_PRIVATE, 1, 0, 0);
  CALL(futex, buf + 64, FUTEX_WAIT_PRIVATE, 0, 0, 0);
}

static const Case cases[] = {
    {"null", null_call, 20000},
    {"close-ebadf", bad_call, 20000},
    {"clock", clock_, 20000},
    {"sigprocmask", sigmask_, 20000},
    {"sigaction", sigaction_, 20000},
    {"fcntl", fcntl_, 20000},
    {"brk", brk_, 20000},
    {"lseek", lseek_, 20000},
    {"read-eof", read_eof, 20000},
    {"pread-1", pread_1, 20000},
    {"pread-4k", pread_4k, 20000},
    {"pread-64k", pread_64k, 2000},
    {"preadv-2", readv_2, 20000},
    {"pwrite-1", pwrite_1, 20000},
    {"pwrite-4k", pwrite_4k, 20000},
    {"host-pread-1", host_pread_1, 5000},
    {"host-pread-4k", host_pread_4k, 5000},
    {"fstat", fstat_, 20000},
    {"fstat-host", fstat_host, 5000},
    {"stat", stat_, 10000},
    {"stat-deep", stat_deep, 10000},
    {"stat-relative", stat_relative, 10000},
    {"stat-missing", stat_missing, 10000},
    {"stat-host", stat_host, 5000},
    {"statx", statx_, 10000},
    {"access-deep", access_deep, 10000},
    {"open-close", open_close, 5000},
    {"open-close-host", open_host, 2000},
    {"create-unlink", create_unlink, 2000},
    {"dup-close", dup_close, 10000},
    {"getdents", getdents_, 5000},
    {"readlink-proc", readlink_, 2000},
    {"getcwd", getcwd_, 10000},
    {"pipe-1", pipe_rw, 10000},
    {"pipe-4k", pipe_4k, 10000},
    {"pipe-64k", pipe_64k, 2000},
    {"eventfd", eventfd_rw, 10000},
    {"unix-64", unix_rw, 5000},
    {"poll-1", poll_1, 10000},
    {"poll-20", poll_20, 5000},
    {"poll-20-none", poll_none, 5000},
    {"select-20", select_20, 5000},
    {"epoll-1", epoll_1, 10000},
    {"epoll-100", epoll_100, 10000},
    {"epoll-none", epoll_none, 10000},
    {"epoll-cycle", epoll_cycle, 5000},
    {"futex-wake-none", futex_wake_none, 20000},
    {"futex-wake-shared", futex_wake_shared, 20000},
    {"futex-again", futex_again, 20000},
    {"mmap-munmap", mmap_munmap, 5000},
    {"pingpong-pipe", pingpong_pipe, 1000, TRUE},
    {"pingpong-poll", pingpong_poll, 1000, TRUE},
    {"pingpong-epoll", pingpong_epoll, 1000, TRUE},
    {"pingpong-eventfd", pingpong_eventfd, 1000, TRUE},
    {"pingpong-futex", pingpong_futex, 1000, TRUE},
};

/* ---- The loop ---- */

static char **wanted;
static gsize case_no;
static guint64 started_at, best;
static guint batch;

static guint64 now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (guint64)ts.tv_sec * 1000000000 + (guint64)ts.tv_nsec;
}

/* The first case from `case_no` on that is wanted; NULL: none left. */
static const Case *next_case(void) {
  for (; case_no < G_N_ELEMENTS(cases); case_no++)
    if ((!*wanted || g_strv_contains((const char *const *)wanted, cases[case_no].name)) &&
        !(RUNNING_ON_VALGRIND && (cases[case_no].pingpong || strstr(cases[case_no].name, "host"))))
      return &cases[case_no++];
  return NULL;
}

static void begin_case(void) {
  first->n = first->next = 0;
  first->rounds = 0;
  memset(&second_script, 0, sizeof second_script);
  batch = 0;
  best = G_MAXUINT64;
  sys(SYS_close_range, 0, ~0U, 0, 0, 0);
  SYS(chdir, text(NAME, "/"), 0, 0, 0, 0);
  the_case->prepare();
}

/* Between two rounds of the first task. FALSE: nothing is left to do. */
static gboolean count_round(void) {
  guint64 n = first->rounds++;
  if (RUNNING_ON_VALGRIND) {
    if (n == WARM_ROUNDS) {
      CALLGRIND_ZERO_STATS;
      CALLGRIND_TOGGLE_COLLECT;
    }
    if (n < WARM_ROUNDS + COUNT_ROUNDS)
      return TRUE;
    CALLGRIND_TOGGLE_COLLECT;
    CALLGRIND_DUMP_STATS_AT(the_case->name);
  } else {
    if (n == 0)
      started_at = now();
    if (n < the_case->rounds)
      return TRUE;
    best = MIN(best, (now() - started_at) * 100 / the_case->rounds);
    first->rounds = 0;
    if (++batch < BATCHES)
      return count_round();
    printf("%-18s %8" G_GUINT64_FORMAT ".%02u\n", the_case->name, best / 100, (guint)(best % 100));
    fflush(stdout);
  }
  /* The second task of a ping-pong is left waiting for ever: only one such case in a process. */
  the_case = the_case->pingpong ? NULL : next_case();
  if (the_case) {
    begin_case();
    return count_round();
  }
  return FALSE;
}

static int script_run(TesExec *base, TesTrap *out) {
  Exec *x = (Exec *)base;
  if (G_UNLIKELY(!x->started)) {
    x->started = TRUE;
    if (!first) {
      first = x;
      buf = (gulong)SYS(mmap, 0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
      for (gsize i = 0; i < 1 << 20; i += 4096)
        put(buf + i, "\0\0\0\0", 4);
      the_case = next_case();
      begin_case();
    }
  }
  out->kind = TES_TRAP_SYSCALL;
  out->foreign_abi = FALSE;
  if (G_UNLIKELY(x->again)) {
    x->again = FALSE;
    x->next--;
    sched_yield();
  } else {
    if (x->next == x->n)
      x->next = 0;
    if (x == first && x->next == 0 && !count_round()) {
      *out = (TesTrap){.kind = TES_TRAP_SYSCALL, .nr = SYS_exit_group};
      return 0;
    }
  }
  const Call *c = &x->call[x->next++];
  out->nr = c->nr;
  memcpy(out->args, c->a, sizeof out->args);
  return 0;
}

/* ---- The platform ---- */

static TesRegs *script_regs(TesExec *x, gboolean write) { return &((Exec *)x)->regs; }
static gboolean may_fail(const char *name) {
  return strstr(name, "ebadf") || strstr(name, "missing") || strstr(name, "again") ||
         strstr(name, "pingpong");
}
static void script_result(TesExec *base, gulong rax) {
  Exec *x = (Exec *)base;
  glong r = (glong)rax;
  const Call *c = &x->call[x->next - 1];
  if (G_UNLIKELY(r < 0 && the_case && !may_fail(the_case->name)))
    g_error("%s: call %lu: %s", the_case->name, c->nr, g_strerror((int)-r));
  /* A wake that came before the other task slept is made again. */
  if (G_UNLIKELY(r == 0 && c->nr == SYS_futex && c->a[1] == FUTEX_WAKE_PRIVATE && the_case &&
                 the_case->pingpong))
    x->again = TRUE;
}
static int script_xget(TesExec *x, void *p, gsize n) {
  memset(p, 0, n);
  return (int)n;
}
static int script_xset(TesExec *x, const void *p, gsize n) { return 0; }
static void script_kick(TesExec *x) {}
static void script_exec_free(TesExec *x) { g_free(x); }
static const TesExecOps exec_ops = {.size = sizeof exec_ops,
                                    .run = script_run,
                                    .regs = script_regs,
                                    .set_result = script_result,
                                    .xstate_get = script_xget,
                                    .xstate_set = script_xset,
                                    .kick = script_kick,
                                    .free = script_exec_free};

static int no_apply(TesAspace *a, const TesMapOp *ops, gsize n) { return 0; }
static void aspace_free(TesAspace *a) { g_free(a); }
static const TesAspaceOps aspace_ops = {.size = sizeof aspace_ops, .apply = no_apply, .free = aspace_free};

static int probe(char **why_not) { return 0; }
static void platform_close(TesPlatform *p) { g_free(p); }
static TesAspace *aspace_new(TesPlatform *p, GError **error) {
  TesAspace *a = g_new0(TesAspace, 1);
  *a = (TesAspace){&aspace_ops, p};
  return a;
}
static TesExec *exec_new(TesPlatform *p, TesAspace *a, GError **error) {
  Exec *x = g_new(Exec, 1);
  *x = second_script;
  x->base = (TesExec){&exec_ops, a};
  return &x->base;
}
static TesPlatform *platform_open(const TesPlatformArgs *args, GError **error);
static const TesPlatformOps script_ops = {.size = sizeof script_ops,
                                          .probe = probe,
                                          .open = platform_open,
                                          .close = platform_close,
                                          .aspace_new = aspace_new,
                                          .exec_new = exec_new};
static TesPlatform *platform_open(const TesPlatformArgs *args, GError **error) {
  TesPlatform *p = g_new(TesPlatform, 1);
  *p = (TesPlatform){&script_ops, .min_addr = 0x10000, .max_addr = 0x7ffffffff000, .xstate_size = 832,
                     .xfeatures = 7};
  return p;
}
static const TesFeature features[] = {{"platform", "script", &script_ops}, {NULL}};
TES_PLUGIN_DEFINE(platform_script, .name = "platform-script", .summary = "answers with a script's calls",
                  .licence = "Apache-2.0", .features = features);

/* ---- Start ---- */

static void directory(TesCtx *ctx, const char *path) {
  TesVfs *v = tes_kernel_vfs(kernel);
  TesAt at = {.path = path};
  TesNode n = {.mode = S_IFDIR | 0755};
  must(v->ops->create(v, ctx, &at, &n, NULL), path);
}

/* Any static program does; it never runs. */
static void copy_program(TesCtx *ctx) {
  g_autofree char *bytes = NULL;
  g_autoptr(TesFile) f = NULL;
  g_autoptr(GError) e = NULL;
  gsize n;
  TesAt at = {.path = "/program"};
  if (!g_file_get_contents("/bin/busybox", &bytes, &n, &e))
    g_error("%s", e->message);
  must(tes_vfs_open(ctx, &at, O_WRONLY | O_CREAT, 0755, &f), at.path);
  TesIov iov;
  struct iovec one;
  tes_iov_init_kernel(&iov, &one, bytes, n);
  must(tes_file_write(f, ctx, &iov, NULL, 0), "write");
}

static void boot(void) {
  g_autoptr(GError) e = NULL;
  g_autofree char *dir = tes_registry_default_dir();
  registry = tes_registry_new();
  if (!tes_registry_load_dir(registry, g_getenv("TESSERA_PLUGIN_PATH") ?: dir, &e) ||
      !tes_registry_add(registry, &tes_plugin_platform_script, "call-cost", &e) ||
      !tes_registry_seal(registry, &e))
    g_error("%s", e->message);
  kernel = tes_kernel_new(registry);
  TesKernelArgs a = {.size = sizeof a,
                     .timekeeper = tes_timekeeper_new(),
                     .application_cores = 2,
                     .hostname = "box",
                     .platform = "script"};
  tes_timekeeper_set_clocks(a.timekeeper, NULL, NULL);
  if (!tes_kernel_init(kernel, &a, &e))
    g_error("%s", e->message);
  TesCtx *ctx = tes_kernel_supervisor_ctx(kernel);
  TesVfs *v = tes_kernel_vfs(kernel);
  TesSuper *super;
  must(tes_fs_new_super(ctx, "tmpfs", "none", "mode=755", 0, &super), "root");
  TesMountNs *ns = v->ops->ns_new(v, ctx, super, "/", 0);
  if (!tes_kernel_set_root_mount_ns(kernel, ns, &e))
    g_error("%s", e->message);
  directory(ctx, "/tmp");
  directory(ctx, "/host");
  directory(ctx, "/proc");
  TesAt tmp = {.path = "/tmp"}, proc = {.path = "/proc"}, host = {.path = "/host"};
  must(tes_fs_mount(ctx, &tmp, "tmpfs", "tmpfs", NULL, 0), "tmpfs");
  must(tes_fs_mount(ctx, &proc, "proc", "proc", NULL, 0), "proc");
  if (!RUNNING_ON_VALGRIND) /* has no openat2 */
    must(tes_fs_mount(ctx, &host, "host", "/", "ro,cache=exclusive", MS_RDONLY), "host");
  copy_program(ctx);
}

int main(int argc, char **argv) {
  static const char *const program[] = {"/program", NULL};
  g_autoptr(GError) e = NULL;
  wanted = argv + 1;
  boot();
  TesFdTable *fds = tes_fdtable_new();
  TesProcessArgs p = {.size = sizeof p, .argv = program, .fdtable = fds};
  TesThreadGroup *tg = tes_kernel_create_process(kernel, &p, NULL, &e);
  if (!tg || !tes_kernel_start(kernel, &e))
    g_error("%s", e->message);
  tes_fdtable_unref(fds, tes_kernel_supervisor_ctx(kernel));
  tes_tg_wait(tg);
  return 0;
}
