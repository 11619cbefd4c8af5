/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - main() of every guest test program: command line, cases in forked children, time limits.
 *
 * No alarm and no SIGCHLD handler is used, so that cases see the signal state a fresh program has:
 * the parent polls waitpid(WNOHANG) and kills the case's process group when its time is over.
 */
#include "check.h"

#include <stdarg.h>
#include <sys/mount.h>

bool check_in_sandbox;
unsigned long check_seed, check_seconds;
const char *check_fs = "tmpfs";

void check_tmp_cleanup(void);
void (*check_at_end)(void);

static volatile int failed;
static unsigned long limit_override;

extern const CheckCase *const __start_check_cases[] __attribute__((weak));
extern const CheckCase *const __stop_check_cases[] __attribute__((weak));
extern const CheckHelper *const __start_check_helpers[] __attribute__((weak));
extern const CheckHelper *const __stop_check_helpers[] __attribute__((weak));

void check_fail(const char *file, int line, const char *fmt, ...) {
  char text[1024];
  const char *base = strrchr(file, '/');
  va_list ap;
  int saved = errno;
  int n = snprintf(text, sizeof text, "%s:%d: ", base ? base + 1 : file, line);

  va_start(ap, fmt);
  n += vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
  va_end(ap);
  if (n > (int)sizeof text - 2)
    n = (int)sizeof text - 2;
  text[n++] = '\n';
  if (write(2, text, (size_t)n) < 0) { /* the case may have closed it */
  }
  __atomic_store_n(&failed, 1, __ATOMIC_SEQ_CST);
  errno = saved;
}

/* _exit: buffers of the parent must not be written twice. */
static void finish(int status) {
  if (check_at_end)
    check_at_end();
  check_tmp_cleanup();
  _exit(status);
}

void check_abort(void) {
  finish(1);
  abort();
}

void check_child_start(void) { failed = 0; }

void check_child_exit(void) {
  finish(failed ? 1 : 0);
  abort();
}

void check_skip(const char *fmt, ...) {
  char text[512];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  dprintf(2, "SKIP: %s\n", text);
  finish(failed ? 1 : 77);
  abort();
}

bool check_eq(const char *file, int line, const char *text, long long got, long long want) {
  if (got == want)
    return true;
  check_fail(file, line, "failed: %s: got %lld (0x%llx), want %lld (0x%llx)", text, got,
             (unsigned long long)got, want, (unsigned long long)want);
  return false;
}

bool check_str(const char *file, int line, const char *text, const char *got, const char *want) {
  if (got && want && strcmp(got, want) == 0)
    return true;
  check_fail(file, line, "failed: %s: got \"%.300s\", want \"%.300s\"", text, got ? got : "(null)",
             want ? want : "(null)");
  return false;
}

long long check_ok(const char *file, int line, const char *text, long long got, bool required) {
  if (got >= 0)
    return got;
  check_fail(file, line, "failed: %s: %s (%d)", text, strerror(errno), errno);
  if (required)
    check_abort();
  return got;
}

bool check_errno(const char *file, int line, const char *text, long long got, int want) {
  int e = errno;

  if (got == -1 && e == want)
    return true;
  if (got == -1)
    check_fail(file, line, "failed: %s: errno %d (%s), want %d (%s)", text, e, strerror(e), want,
               strerror(want));
  else
    check_fail(file, line, "failed: %s: returned %lld, want errno %d (%s)", text, got, want, strerror(want));
  return false;
}

int check_wait(pid_t pid) {
  int status = 0;
  pid_t r;

  do
    r = waitpid(pid, &status, 0);
  while (r < 0 && errno == EINTR);
  if (r != pid) {
    check_fail(__FILE__, __LINE__, "waitpid(%d) = %d: %s", pid, r, strerror(errno));
    return -1;
  }
  return status;
}

void check_wait_ok(const char *file, int line, pid_t pid) {
  int status = check_wait(pid);

  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
    finish(77);
  check_fail(file, line, "child %d ended with status 0x%x", pid, (unsigned)status);
}

static int run_case(const CheckCase *c) {
  failed = 0;
  c->fn();
  finish(failed ? 1 : 0);
  return 1;
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const CheckCase *const *)a)->name, (*(const CheckCase *const *)b)->name);
}

static size_t sorted_cases(const CheckCase ***ret) {
  size_t n = (size_t)(__stop_check_cases - __start_check_cases);
  const CheckCase **list = calloc(n + 1, sizeof *list);

  if (!list)
    _exit(2);
  for (size_t i = 0; i < n; i++)
    list[i] = __start_check_cases[i];
  qsort(list, n, sizeof *list, by_name);
  *ret = list;
  return n;
}

/* Waits at most LIMIT seconds; false when the child still runs. */
static bool wait_limited(pid_t pid, unsigned long limit, int *ret_status) {
  int64_t until = now_ns() + (int64_t)limit * 1000000000;
  long pause_us = 100;

  for (;;) {
    pid_t r = waitpid(pid, ret_status, WNOHANG);
    if (r == pid)
      return true;
    if (r < 0 && errno != EINTR) {
      *ret_status = 0xff00;
      return true;
    }
    if (now_ns() > until)
      return false;
    struct timespec ts = {0, pause_us * 1000};
    nanosleep(&ts, NULL);
    if (pause_us < 5000)
      pause_us *= 2;
  }
}

static bool run_forked(const CheckCase *c) {
  int status = 0;
  char result[64] = "pass";
  bool ok = true;

  dprintf(1, "@begin %s\n", c->name);
  pid_t pid = fork();
  if (pid == 0) {
    setpgid(0, 0);
    _exit(run_case(c));
  }
  if (pid < 0) {
    dprintf(1, "@end %s fail cannot fork: %s\n", c->name, strerror(errno));
    return false;
  }
  setpgid(pid, pid); /* whoever is first */
  bool ended = wait_limited(pid, limit_override ? limit_override : c->limit, &status);
  kill(-pid, SIGKILL); /* what the case left behind, or the case itself */
  if (!ended) {
    kill(pid, SIGKILL);
    snprintf(result, sizeof result, "timeout%s",
             wait_limited(pid, 2, &status) ? "" : " and cannot be killed");
    ok = false;
  } else if (WIFSIGNALED(status)) {
    snprintf(result, sizeof result, "signal %d", WTERMSIG(status));
    ok = false;
  } else if (WEXITSTATUS(status) == 77) {
    strcpy(result, "skip");
  } else if (WEXITSTATUS(status) != 0) {
    snprintf(result, sizeof result, "fail status %d", WEXITSTATUS(status));
    ok = false;
  }
  dprintf(1, "\n@end %s %s\n", c->name, result);
  return ok;
}

static int run_batch(const CheckCase **list, size_t n, char **names) {
  bool ok = true;

  for (size_t i = 0; i < n; i++) {
    bool wanted = !names || !*names;
    for (char **p = names; p && *p; p++)
      wanted |= strcmp(*p, list[i]->name) == 0;
    if (wanted)
      ok &= run_forked(list[i]);
  }
  return ok ? 0 : 1;
}

static int run_helper(int argc, char **argv) {
  for (const CheckHelper *const *h = __start_check_helpers; argc > 0 && h < __stop_check_helpers; h++)
    if (strcmp((*h)->name, argv[0]) == 0)
      return (*h)->fn(argc - 1, argv + 1);
  dprintf(2, "no such helper\n");
  return 2;
}

static bool option(const char *arg) {
  if (strcmp(arg, "--in-sandbox") == 0)
    check_in_sandbox = true;
  else if (strncmp(arg, "--fs=", 5) == 0)
    check_fs = arg + 5;
  else if (strncmp(arg, "--seed=", 7) == 0)
    check_seed = strtoul(arg + 7, NULL, 0);
  else if (strncmp(arg, "--seconds=", 10) == 0)
    check_seconds = strtoul(arg + 10, NULL, 0);
  else if (strncmp(arg, "--limit=", 8) == 0)
    limit_override = strtoul(arg + 8, NULL, 0);
  else
    return false;
  return true;
}

/* /tmp is a host's directory, read-only; cover it with an overlay whose writable layer is in memory. */
static bool mount_overlay(void) {
  mkdir("/run/upper", 01777);
  chmod("/run/upper", 01777);
  mkdir("/run/work", 0700);
  return mount("overlay", "/tmp", "overlay", 0, "lowerdir=/tmp,upperdir=/run/upper,workdir=/run/work") == 0;
}

int main(int argc, char **argv) {
  const CheckCase **list;
  size_t n;

  if (argc < 1 || !argv[0][0])
    return 3; /* a case that executes this program without arguments must not run all of it again */
  if (argc > 2 && strcmp(argv[1], "--helper") == 0)
    return run_helper(argc - 2, argv + 2);
  n = sorted_cases(&list);
  argv++;
  while (argc > 1 && option(*argv)) {
    argv++;
    argc--;
  }
  if (check_in_sandbox && check_sandbox_evidence()) {
    dprintf(2, "refused: --in-sandbox, but %s\n", check_sandbox_evidence());
    return 2;
  }
  if (check_in_sandbox && strcmp(check_fs, "overlay") == 0 && !mount_overlay()) {
    dprintf(2, "cannot mount an overlay on /tmp: %s\n", strerror(errno));
    return 2;
  }
  if (argc < 2)
    return run_batch(list, n, NULL);
  if (strcmp(*argv, "--tap") == 0)
    return run_batch(list, n, argv + 1);
  if (strncmp(*argv, "--list", 6) == 0) {
    for (size_t i = 0; i < n; i++)
      if ((*argv)[6] == '=')
        dprintf(1, "%s %u\n", list[i]->name, list[i]->limit);
      else
        dprintf(1, "%s\n", list[i]->name);
    return 0;
  }
  for (size_t i = 0; i < n; i++)
    if (strcmp(list[i]->name, *argv) == 0)
      return run_case(list[i]);
  dprintf(2, "no such case: %s\n", *argv);
  return 2;
}
