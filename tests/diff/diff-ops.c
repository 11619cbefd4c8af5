/* SPDX-License-Identifier: Apache-2.0 */
/* diff-ops.c - a seeded random sequence of file operations, logged; a static program that runs on the host and in the sandbox.
 *
 *   diff-ops --root=DIR [--seed=N] [--ops=N] [--prefix=N] [--drop=A-B,...] [--without=NAME,...] [--no-dir-counts] [--user-attributes] [--fs=overlay]
 *            [--no-tree] [--threads=N]
 *
 * Three processes take turns, each with descriptors, locks, ids, umask and working directory of its own; all live in a chroot of DIR.
 * First come PREFIX operations that are not logged, after which all three start anew (an overlay has them in its lower layer). One line for each
 * operation, then one for each file that is left. With --threads, that many threads run at once, unlogged: what counts
 * is that everything can be removed afterwards.
 */
#include "diff.h"

#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/wait.h>

#define BLOCK 24 /* operations of one actor in a row */
#define LOG_FD 200
#define MAX_OPS 100

static const char *root = "/tmp/t", *drop = "", *without = "", *fs = "";
static uint64_t seed = 1, count = 1000, prefix = 0;
static unsigned threads;
static bool no_tree, silent;
static const Op *ops[MAX_OPS];
static unsigned n_ops, total_weight;
static char out[1 << 17];
static size_t out_len;

static void die(const char *what) {
  dprintf(2, "diff-ops: %s: %s\n", what, strerror(errno));
  exit(2);
}

static void flush(void) {
  for (size_t at = 0; at < out_len;) {
    ssize_t n = write(LOG_FD, out + at, out_len - at);
    if (n < 0 && errno != EINTR)
      _exit(3);
    at += n > 0 ? (size_t)n : 0;
  }
  out_len = 0;
}

static void log_line(const char *text) {
  size_t n = strlen(text);

  if (out_len + n + 1 > sizeof out)
    flush();
  memcpy(out + out_len, text, n);
  out[out_len + n] = '\n';
  out_len += n + 1;
}

static bool listed(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; (p = strstr(p, name)); p += n)
    if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
      return true;
  return false;
}

static void add_ops(const Op *table) {
  for (; table->name; table++) {
    bool unsafe = threads && (!strcmp(table->name, "creat") || !strcmp(table->name, "pass") ||
                              !strcmp(table->name, "take"));
    if (listed(without, table->name) || unsafe)
      continue;
    ops[n_ops++] = table;
    total_weight += table->weight;
  }
}

static const Op *choose(void) {
  unsigned at = below(total_weight);
  for (unsigned i = 0;; i++) {
    if (at < ops[i]->weight)
      return ops[i];
    at -= ops[i]->weight;
  }
}

static bool dropped(uint64_t op) {
  for (const char *p = drop; *p;) {
    char *end;
    uint64_t a = strtoull(p, &end, 10), b = *end == '-' ? strtoull(end + 1, &end, 10) : a;
    if (op >= a && op <= b)
      return true;
    p = *end ? end + 1 : end;
  }
  return false;
}

static void run_op(uint64_t op) {
  me->rng =
      seed * 0x2545f4914f6cdd1dull + op * 0x9e3779b97f4a7c15ull + me->index * (opt_threads ? 77777777ull : 0);
  draw();
  me->n = 0;
  say("%lu.%u ", (unsigned long)op, me->index);
  choose()->fn();
  if (!silent && !opt_threads)
    log_line(me->line);
}

static Actor *new_actor(unsigned index) {
  Actor *a = calloc(1, sizeof *a);
  if (!a)
    die("no memory");
  a->index = index;
  for (int i = 0; i < SLOTS; i++)
    a->fd[i] = -1;
  return a;
}

static void futex(uint32_t *p, int op, uint32_t v) { syscall(SYS_futex, p, op, v, NULL, NULL, 0); }

static unsigned actor_for(uint64_t op) {
  uint64_t z = (op / BLOCK + seed) * 0xbf58476d1ce4e5b9ull;
  return (unsigned)((z >> 40) % ACTORS);
}

static void act(unsigned index) {
  uint32_t turn;

  prctl(PR_SET_PDEATHSIG, SIGKILL);
  me = new_actor(index);
  me->mail[0] = 201 + 2 * (int)index;
  me->mail[1] = 202 + 2 * (int)((index + 1) % ACTORS);
  for (;;) {
    while ((turn = __atomic_load_n(&shared->turn, __ATOMIC_ACQUIRE)) != index)
      if (turn == ACTORS)
        _exit(0);
      else
        futex(&shared->turn, FUTEX_WAIT, turn);
    while (shared->op < count && actor_for(shared->op) == index) {
      if (!dropped(shared->op))
        run_op(shared->op);
      shared->op++;
    }
    flush();
    turn = shared->op < count ? actor_for(shared->op) : ACTORS;
    __atomic_store_n(&shared->turn, turn, __ATOMIC_RELEASE);
    futex(&shared->turn, FUTEX_WAKE, INT_MAX);
  }
}

/* All actors from operation 0 to the end. */
static void run_actors(void) {
  bool failed = false;

  if (count == 0)
    return;
  *shared = (Shared){.turn = actor_for(0)};
  for (int i = 0; i < ACTORS; i++) {
    int s[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, s) < 0 || dup2(s[0], 201 + 2 * i) < 0 ||
        dup2(s[1], 202 + 2 * i) < 0)
      die("socketpair");
    close(s[0]);
    close(s[1]);
  }
  /* Nobody runs before all are there: pid[] must be complete. */
  uint32_t first = shared->turn;
  shared->turn = ACTORS + 1;
  for (unsigned i = 0; i < ACTORS; i++) {
    pid_t pid = fork();
    if (pid == 0)
      act(i);
    if (pid < 0)
      die("fork");
    shared->pid[i] = pid;
  }
  __atomic_store_n(&shared->turn, first, __ATOMIC_RELEASE);
  futex(&shared->turn, FUTEX_WAKE, INT_MAX);
  for (int left = ACTORS; left > 0; left--) {
    int status;
    if (wait(&status) < 0)
      die("wait");
    if (status) {
      dprintf(2, "diff-ops: an actor ended with status 0x%x near operation %lu\n", status,
              (unsigned long)shared->op);
      _exit(4);
    }
  }
  (void)failed;
  syscall(SYS_close_range, 201, 210, 0);
}

static void *thread_main(void *arg) {
  me = new_actor((unsigned)(uintptr_t)arg);
  for (uint64_t i = 0; i < count / threads; i++)
    run_op(i);
  for (int i = 0; i < MAPS; i++)
    if (me->map[i].at)
      munmap(me->map[i].at, me->map[i].len);
  return NULL;
}

static void run_threads(void) {
  pthread_t t[64];

  for (unsigned i = 0; i < threads; i++)
    if (pthread_create(&t[i], NULL, thread_main, (void *)(uintptr_t)i) != 0)
      die("pthread_create");
  for (unsigned i = 0; i < threads; i++)
    pthread_join(t[i], NULL);
  syscall(SYS_close_range, 3, LOG_FD - 1, 0);
}

static long in_use(void) {
  struct statfs st;
  return statfs("/", &st) == 0 ? (long)(st.f_files - st.f_ffree) : -1;
}

/* Everything goes away, and on a tmpfs of our own so do all inodes. */
static void check_removal(long before) {
  long left = remove_all("/");

  if (left)
    dprintf(2, "diff-ops: %ld files could not be removed\n", left);
  for (int i = 0; i < 200 && in_use() != before; i++)
    usleep(10000);
  if (strcmp(fs, "tmpfs") == 0 && in_use() != before)
    dprintf(2, "diff-ops: %ld inodes before, %ld after everything was removed\n", before, in_use());
  log_line(left ? "not clean" : "clean");
}

static bool value(const char *arg, const char *name, const char **ret) {
  size_t n = strlen(name);
  if (strncmp(arg, name, n) != 0 || arg[n] != '=')
    return false;
  *ret = arg + n + 1;
  return true;
}

static void parse(char **argv) {
  const char *v;
  for (; *argv; argv++)
    if (value(*argv, "--root", &root) || value(*argv, "--drop", &drop) ||
        value(*argv, "--without", &without) || value(*argv, "--fs", &fs))
      ;
    else if (value(*argv, "--seed", &v))
      seed = strtoull(v, NULL, 0);
    else if (value(*argv, "--ops", &v))
      count = strtoull(v, NULL, 0);
    else if (value(*argv, "--prefix", &v))
      prefix = strtoull(v, NULL, 0);
    else if (value(*argv, "--threads", &v))
      threads = (unsigned)strtoul(v, NULL, 0);
    else if (strcmp(*argv, "--no-dir-counts") == 0)
      opt_dir_counts = false;
    else if (strcmp(*argv, "--user-attributes") == 0)
      opt_user_attributes = true;
    else if (strcmp(*argv, "--no-tree") == 0)
      no_tree = true;
    else {
      dprintf(2, "diff-ops: unknown argument %s\n", *argv);
      exit(2);
    }
}

static void mount_overlay(void) {
  mkdir("/run/upper", 01777);
  chmod("/run/upper", 01777);
  mkdir("/run/work", 0700);
  if (mount("overlay", "/tmp", "overlay", 0, "lowerdir=/tmp,upperdir=/run/upper,workdir=/run/work") < 0)
    die("cannot mount an overlay");
}

static void enter_root(void) {
  struct rlimit limit = {FILE_LIMIT, FILE_LIMIT};

  if (strcmp(fs, "overlay") == 0)
    mount_overlay();
  umask(022);
  if (mkdir(root, 0777) < 0 && errno != EEXIST)
    die(root);
  if (chdir(root) < 0 || chroot(".") < 0 || chdir("/") < 0)
    die("chroot");
  if (dup2(1, LOG_FD) < 0)
    die("dup2");
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void run_prefix(void) {
  uint64_t real_seed = seed, real_count = count;
  const char *real_drop = drop;

  silent = true;
  seed = ~seed;
  count = prefix;
  drop = "";
  run_actors();
  seed = real_seed;
  count = real_count;
  drop = real_drop;
  silent = false;
}

int main(int argc, char **argv) {
  (void)argc;
  parse(argv + 1);
  opt_threads = threads > 0;
  add_ops(io_ops);
  add_ops(name_ops);
  add_ops(attr_ops);
  add_ops(fd_ops);
  enter_root();
  long before = in_use();
  me = new_actor(0);
  if (threads) {
    run_threads();
  } else {
    run_prefix();
    run_actors();
  }
  opt_threads = false;
  umask(022);
  if (chdir("/") < 0)
    die("chdir");
  if (!no_tree) {
    if (!threads)
      print_tree(log_line, "/");
    check_removal(before);
  }
  log_line("end");
  flush();
  return 0;
}
