/* SPDX-License-Identifier: Apache-2.0 */
/* What the host knows of processes and threads that run guest code: no privileges, filters, and under systrap no descriptors
 * and no blocked signals; as many threads as there should be; and what guests cannot make the platform do. */
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include "platform-box.h"

#define EXECS 5
#define ROUNDS 200

static gboolean systrap; /* its guest threads are all but the first of a process */

static int children_of(pid_t parent, pid_t *out, int max) {
  g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/children", parent, parent), *text = NULL;
  int n = 0;
  if (!g_file_get_contents(path, &text, NULL, NULL))
    return 0;
  g_auto(GStrv) words = g_strsplit(text, " ", -1);
  for (int i = 0; words[i] && n < max; i++)
    if (words[i][0])
      out[n++] = atoi(words[i]);
  return n;
}

static int stubs(pid_t *out, int max) {
  pid_t zygotes[16];
  int n = children_of(getpid(), zygotes, 16), total = 0;
  for (int i = 0; i < n; i++)
    total += children_of(zygotes[i], out + total, max - total);
  return total;
}

static int count_names(const char *path) {
  DIR *d = opendir(path);
  int n = 0;
  for (struct dirent *e; d && (e = readdir(d));)
    n += e->d_name[0] != '.';
  if (d)
    closedir(d);
  return n;
}

static guint64 number_in(const char *status, const char *key, guint base) {
  const char *at = strstr(status, key);
  g_assert_nonnull(at);
  return g_ascii_strtoull(at + strlen(key), NULL, base);
}

/* FALSE: it has just ended. */
static gboolean check_thread(pid_t pid, pid_t tid) {
  g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/status", pid, tid), *status = NULL;
  g_autofree char *fds = g_strdup_printf("/proc/%d/task/%d/fd", pid, tid);
  if (!g_file_get_contents(path, &status, NULL, NULL))
    return FALSE;
  g_assert_cmpuint(number_in(status, "\nNoNewPrivs:\t", 10), ==, 1);
  g_assert_cmpuint(number_in(status, "\nSeccomp:\t", 10), ==, 2);
  g_assert_cmphex(number_in(status, "\nCapEff:\t", 16), ==, 0);
  g_assert_cmphex(number_in(status, "\nCapPrm:\t", 16), ==, 0);
  if (systrap && tid != pid) {
    g_assert_cmphex(number_in(status, "\nSigBlk:\t", 16), ==, 0);
    g_assert_cmpuint(number_in(status, "\nSeccomp_filters:\t", 10), >=, 2);
    g_assert_cmpint(count_names(fds), ==, 0);
  }
  return TRUE;
}

/* All threads of all stubs; returns their number. */
static int check_all(void) {
  pid_t pids[256];
  int n = stubs(pids, 256), threads = 0;
  for (int i = 0; i < n; i++) {
    g_autofree char *path = g_strdup_printf("/proc/%d/task", pids[i]);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
      if (g_ascii_isdigit(e->d_name[0]))
        threads += check_thread(pids[i], atoi(e->d_name));
    if (d)
      closedir(d);
  }
  return threads;
}

static gpointer run_once(gpointer exec) {
  TesExec *e = exec;
  TesTrap t;
  e->ops->regs(e, TRUE)->rip = CODE;
  e->ops->run(e, &t);
  g_assert_cmpint(t.kind, ==, TES_TRAP_SYSCALL);
  e->ops->free(e);
  return NULL;
}

/* Threads come and go: those that the host has are those that the platform keeps for the next. */
static void test_threads(void) {
  Box b;
  box_new(&b, SYSCALL_LOOP);
  run(&b);
  int before = check_all(), after;
  g_assert_cmpint(before, >, 0);
  for (int round = 0; round < 4; round++) {
    GThread *t[EXECS];
    for (int i = 0; i < EXECS; i++)
      t[i] = g_thread_new("once", run_once, ops->exec_new(platform, b.as, NULL));
    for (int i = 0; i < EXECS; i++)
      g_thread_join(t[i]);
    after = check_all();
    g_assert_cmpint(after, <=, before + EXECS);
  }
  box_free(&b);
}

/* Guests that end their own process while it is forked, in ways that the platform is not told of: here the host's. What is left
 * is a stub for each address space, and some in reserve. */
static void test_death_during_clone(void) {
  pid_t before[256], after[256];
  for (int i = 0; i < ROUNDS; i++) {
    Box b;
    int n = stubs(before, 256);
    box_new(&b, SYSCALL_LOOP);
    run(&b);
    TesAspace *copy = b.as->ops->clone ? b.as->ops->clone(b.as, NULL, 0, NULL) : NULL;
    int m = stubs(after, 256);
    pid_t killer = fork();
    if (killer == 0) {
      for (int spin = g_random_int_range(0, 20000); spin > 0; spin--)
        __asm__ volatile("pause");
      for (int k = 0; k < m; k++) { /* all but the seed, the eldest: the boxes' */
        gboolean eldest = TRUE;
        for (int j = 0; j < m; j++)
          eldest &= after[k] <= after[j];
        if (!eldest)
          kill(after[k], SIGKILL);
      }
      _exit(0);
    }
    TesAspace *other = b.as->ops->clone ? b.as->ops->clone(b.as, NULL, 0, NULL) : NULL;
    waitpid(killer, NULL, 0);
    if (other)
      other->ops->free(other);
    if (copy)
      copy->ops->free(copy);
    box_free(&b);
    g_assert_cmpint(n, <, 64);
  }
  Box b;
  box_new(&b, SYSCALL_LOOP);
  for (int i = 0; i < 100; i++) {
    g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
    b.exec->ops->set_result(b.exec, 0);
  }
  box_free(&b);
  for (int i = 0; i < 500 && stubs(after, 256) > 8; i++)
    g_usleep(10000);
  g_assert_cmpint(stubs(after, 256), <=, 8);
  check_all();
}

/* A stub used again shows nothing of its last guest: code that reads a word of its slot's stack into rax, leaves a secret there
 * and makes a system call. */
static void test_used_again(void) {
  static const gulong secret = 0x5345435245545321,
                      stack = 0x7fffd0002000; /* of the first thread: see stub.h */
  Box b;
  if (!systrap) {
    g_test_skip("no pages of the platform's own");
    return;
  }
  for (int round = 0; round < 20; round++) {
    box_new(&b, CODE_BYTES(0x48, 0x8b, 0x06, 0x48, 0x89, 0x3e, 0x0f,
                           0x05)); /* mov (%rsi), %rax; mov %rdi, (%rsi) */
    for (gulong at = stack; at < stack + 0x3000; at += 256) {
      TesRegs *r = b.exec->ops->regs(b.exec, TRUE);
      r->rip = CODE;
      r->rsi = at;
      r->rdi = secret;
      g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
      g_assert_cmphex(b.trap.nr & G_MAXUINT32, !=, secret & G_MAXUINT32);
    }
    box_free(&b);
  }
}

int main(int argc, char **argv) {
  static const PlatformTest tests[] = {
      {"host-threads", test_threads},
      {"death-during-clone", test_death_during_clone},
      {"used-again", test_used_again},
  };
  for (int i = 1; i < argc; i++)
    systrap |= strcmp(argv[i], "systrap") == 0;
  return platform_main(argc, argv, tests, G_N_ELEMENTS(tests));
}
