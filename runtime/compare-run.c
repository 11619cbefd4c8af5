/* SPDX-License-Identifier: Apache-2.0 */
/* One run of one arm of `tessera compare`: the command in a fresh copy of the working directory, under `tessera do` or on the
 * host, with its output, its time and perhaps a trace of its system calls. */
#include <fcntl.h>
#include <ftw.h>
#include <runtime/compare.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;
static void note_interrupt(int sig) { interrupted = sig; }

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  return remove(path);
}
void remove_tree(const char *dir) { nftw(dir, remove_one, 32, FTW_DEPTH | FTW_PHYS); }

static gboolean fail(GError **error, const char *what, const char *path) {
  g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "%s %s: %s", what, path, g_strerror(errno));
  return FALSE;
}

/* The working directory as the command shall find it. */
static gboolean fresh_work(const RunPlan *plan, GError **error) {
  remove_tree(plan->work);
  if (!plan->tree)
    return mkdir(plan->work, 0755) == 0 || fail(error, "cannot make", plan->work);
  const char *argv[] = {"cp", "-a", "--reflink=auto", "--", plan->tree, plan->work, NULL};
  int status;
  return g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status,
                      error) &&
         g_spawn_check_wait_status(status, error);
}

/* Words of the command; borrowed or owned by `keep`. */
static GPtrArray *command_line(const RunPlan *plan, const Arm *arm, const char *trace, GPtrArray *keep) {
  GPtrArray *argv = g_ptr_array_new();
  if (arm->host) {
    static const char *const strace[] = {"strace",
                                         "-f",
                                         "-qq",
                                         "-s",
                                         "64",
                                         "--absolute-timestamps=format:unix,precision:ns",
                                         "--syscall-times=ns",
                                         "-o"};
    for (gsize i = 0; trace && i < G_N_ELEMENTS(strace); i++)
      g_ptr_array_add(argv, (gpointer)strace[i]);
    if (trace)
      g_ptr_array_add(argv, (gpointer)trace);
  } else {
    g_ptr_array_add(argv, (gpointer)plan->self);
    g_ptr_array_add(argv, "do");
    for (guint i = 0; i < arm->flags->len; i++)
      g_ptr_array_add(argv, arm->flags->pdata[i]);
    g_ptr_array_add(argv, "--bind");
    g_ptr_array_add(argv, (gpointer)plan->work);
    g_ptr_array_add(argv, (gpointer)plan->work);
    g_ptr_array_add(keep, g_strconcat("--cwd=", plan->work, NULL));
    g_ptr_array_add(argv, keep->pdata[keep->len - 1]);
    if (trace) {
      g_ptr_array_add(keep, g_strconcat("--strace-to=", trace, NULL));
      g_ptr_array_add(argv, keep->pdata[keep->len - 1]);
      g_ptr_array_add(argv, "--trace=plain");
    }
    g_ptr_array_add(argv, "--");
  }
  for (char **w = plan->command; *w; w++)
    g_ptr_array_add(argv, *w);
  g_ptr_array_add(argv, NULL);
  return argv;
}

typedef struct {
  int status;
  gint64 wall, begin, end; /* ns; begin and end since the epoch */
  struct rusage use;
} Outcome;

static gint64 now(clockid_t clock) {
  struct timespec ts;
  clock_gettime(clock, &ts);
  return (gint64)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static gboolean run_command(char **argv, const char *cwd, int out, int err, Outcome *o, GError **error) {
  GPid pid;
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  o->begin = now(CLOCK_REALTIME);
  gint64 start = now(CLOCK_MONOTONIC);
  gboolean ok = g_spawn_async_with_fds(cwd, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                                       NULL, &pid, null, out, err, error);
  while (ok && wait4(pid, &o->status, 0, &o->use) < 0)
    if (errno != EINTR)
      ok = fail(error, "cannot wait for", argv[0]);
  o->wall = now(CLOCK_MONOTONIC) - start;
  o->end = now(CLOCK_REALTIME);
  close(null);
  return ok;
}

static GString *read_all(const char *path) {
  char *text = NULL;
  gsize n = 0;
  g_file_get_contents(path, &text, &n, NULL);
  GString *s = g_string_new_len(text ? text : "", (gssize)n);
  g_free(text);
  return s;
}

static gboolean keep_first(const RunPlan *plan, Arm *arm, const Outcome *o, const char *out, const char *err,
                           GError **error) {
  arm->status = o->status;
  arm->out = read_all(out);
  arm->err = read_all(err);
  g_autofree char *tree = g_build_filename(arm->dir, "tree", NULL);
  if (rename(plan->work, tree) < 0)
    return fail(error, "cannot keep", plan->work);
  arm->tree = tree_read(tree);
  return TRUE;
}

static void keep_time(Arm *arm, const Outcome *o) {
  gint64 user = o->use.ru_utime.tv_sec * G_USEC_PER_SEC + o->use.ru_utime.tv_usec;
  gint64 sys = o->use.ru_stime.tv_sec * G_USEC_PER_SEC + o->use.ru_stime.tv_usec;
  arm->user = arm->walls->len ? MIN(arm->user, user) : user;
  arm->sys = arm->walls->len ? MIN(arm->sys, sys) : sys;
  g_array_append_val(arm->walls, o->wall);
}

/* 125: `tessera do` could not make the sandbox; what it said is the reason. */
static gboolean check_sandbox(const Arm *arm, const Outcome *o, const char *err, GError **error) {
  if (arm->host || !WIFEXITED(o->status) || WEXITSTATUS(o->status) != EXIT_CONFIG)
    return TRUE;
  g_autoptr(GString) said = read_all(err);
  g_strstrip(said->str);
  g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "arm %s could not run: %s", arm->name, said->str);
  return FALSE;
}

gboolean run_arm(const RunPlan *plan, Arm *arm, RunKind kind, GError **error) {
  if (!fresh_work(plan, error))
    return FALSE;
  g_autofree char *out = g_build_filename(arm->dir, "stdout", NULL);
  g_autofree char *err = g_build_filename(arm->dir, "stderr", NULL);
  g_autofree char *trace = g_build_filename(arm->dir, "calls", NULL);
  g_autoptr(GPtrArray) keep = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GPtrArray) argv = command_line(plan, arm, kind == RUN_TRACED ? trace : NULL, keep);
  int out_fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  int err_fd = open(err, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (out_fd < 0 || err_fd < 0)
    return fail(error, "cannot write in", arm->dir);
  struct sigaction note = {.sa_handler = note_interrupt}, before;
  sigaction(SIGINT, &note, &before);
  Outcome o = {0};
  gboolean ok = run_command((char **)argv->pdata, plan->work, out_fd, err_fd, &o, error);
  sigaction(SIGINT, &before, NULL);
  close(out_fd);
  close(err_fd);
  if (ok && interrupted) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "interrupted");
    ok = FALSE;
  }
  if (!ok || !check_sandbox(arm, &o, err, error))
    return FALSE;
  if (kind == RUN_TRACED) {
    arm->traced_begin = o.begin;
    arm->traced_end = o.end;
    arm->calls = calls_read(trace, arm->host);
    return TRUE;
  }
  if (kind == RUN_FIRST && !keep_first(plan, arm, &o, out, err, error))
    return FALSE;
  keep_time(arm, &o);
  return TRUE;
}
