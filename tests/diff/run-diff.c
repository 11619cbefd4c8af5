/* SPDX-License-Identifier: Apache-2.0 */
/* run-diff.c - GTest runner: random file operations on the host's tmpfs and in the sandbox, compared line by line.
 *
 *   run-diff [GTEST OPTIONS] [--shrink] [-- ARGUMENTS OF diff-ops]
 *
 * Environment: DIFF_OPS (the program), TESSERA (the command), TESSERA_ARMS (tests/guest/arms.h; default all combinations),
 * TESSERA_TIMEOUT_SCALE, TESSERA_DIFF_SEED (a number or "random": then only that is compared), TESSERA_DIFF_OPS. --shrink leaves out operations as long as the first
 * difference stays, and prints what remains. docs/testing.md explains how to reproduce one.
 */
#include <tests/guest/arms.h>
#include <tests/guest/run-guest.h>

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define FIXED_SEED 40
#define FIXED_OPS 50000
#define THREADS_OPS 16000
#define PREFIX 400 /* operations that an overlay has in its lower layer */

typedef struct {
  const Arm *arm;
  guint64 seed;
  guint ops, threads;
  char *drop; /* ranges that are left out, or NULL */
} Job;

static const char *tessera, *program;
static char *tmp, **more;
static double scale = 1;
static gboolean shrink;

static void collect(gpointer user, char *line) { g_ptr_array_add(user, g_strdup(line)); }

static void add(GPtrArray *argv, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  g_ptr_array_add(argv, g_strdup_vprintf(fmt, ap));
  va_end(ap);
}

static void add_job(GPtrArray *argv, const Job *job, gboolean overlay, gboolean prefix_done) {
  add(argv, "--seed=%" G_GUINT64_FORMAT, job->seed);
  add(argv, "--ops=%u", job->ops);
  if (job->threads)
    add(argv, "--threads=%u", job->threads);
  if (job->drop)
    add(argv, "--drop=%s", job->drop);
  if (overlay)
    add(argv, "--no-dir-counts");
  if (strcmp(job->arm->fs, "tmpfs") != 0)
    add(argv, "--user-attributes");
  if (!prefix_done)
    add(argv, "--prefix=%d", overlay ? PREFIX : 0);
  for (char **p = more; p && *p; p++)
    add(argv, "%s", *p);
}

/* Runs a command to its end; its lines (transfer full), or NULL with the reason in *why. */
static GPtrArray *run(GPtrArray *argv, guint seconds, char **why) {
  g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
  RunOutput io = {.deadline = g_get_monotonic_time() + (gint64)(seconds * scale * G_USEC_PER_SEC),
                  .line = collect,
                  .user = lines};
  g_autoptr(GError) error = NULL;
  g_auto(GStrv) envp = g_environ_unsetenv(g_get_environ(), "MALLOC_PERTURB_");

  g_ptr_array_add(argv, NULL);
  if (!run_command((const char *const *)argv->pdata, envp, &io, &error))
    *why = g_strdup(error->message);
  else if (io.timed_out)
    *why = g_strdup_printf("it hung after %u lines, the last: %s", lines->len,
                           lines->len ? (char *)lines->pdata[lines->len - 1] : "");
  else if (io.status)
    *why = g_strdup_printf("it ended with wait status 0x%x after: %s", (guint)io.status,
                           lines->len ? (char *)lines->pdata[lines->len - 1] : "");
  g_free(reap_strays(1000));
  return g_steal_pointer(&lines);
}

static GPtrArray *run_native(const Job *job, gboolean overlay, char **why) {
  g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
  g_autofree char *dir = g_build_filename(tmp, "native-XXXXXX", NULL);

  if (!g_mkdtemp_full(dir, 0755))
    g_error("cannot make %s", dir);
  add(argv, "%s", program);
  add(argv, "--root=%s/t", dir);
  add_job(argv, job, overlay, FALSE);
  GPtrArray *lines = run(argv, 60, why);
  remove_tree(dir);
  return lines;
}

/* The tree that the prefix leaves, made by the host, becomes the lower layer. */
static void make_lower(const Job *job, const char *dir, char **why) {
  Job none = *job;
  g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);

  none.ops = none.threads = 0;
  add(argv, "%s", program);
  add(argv, "--root=%s/t", dir);
  add(argv, "--no-tree");
  add_job(argv, &none, TRUE, FALSE);
  g_ptr_array_unref(run(argv, 60, why));
}

static void add_program(GPtrArray *argv) {
  g_autofree char *dir = g_path_get_dirname(program), *base = g_path_get_basename(program);

  add(argv, "--ro-bind");
  add(argv, "%s", dir);
  add(argv, "/mnt");
  add(argv, "--");
  add(argv, "/mnt/%s", base);
}

static GPtrArray *run_arm(const Job *job, char **why) {
  g_autofree char *dir = arm_host_dir(job->arm, tmp);
  g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
  gboolean overlay = strcmp(job->arm->fs, "overlay") == 0;
  GPtrArray *lines = NULL;

  if (overlay)
    make_lower(job, dir, why);
  add(argv, "%s", tessera);
  add(argv, "do");
  arm_add_argv(argv, job->arm, dir);
  add_program(argv);
  add(argv, "--fs=%s", job->arm->fs);
  add_job(argv, job, overlay, overlay);
  if (!*why)
    lines = run(argv, 60 + job->ops / 400, why);
  if (dir)
    remove_tree(dir);
  return lines;
}

/* Up to the line's first blank: number and actor. */
static guint64 number_of(const char *line) { return g_ascii_strtoull(line, NULL, 10); }

/* Index of the first line that differs, or -1. */
static int first_difference(GPtrArray *a, GPtrArray *b) {
  for (guint i = 0; i < MAX(a->len, b->len); i++)
    if (i >= a->len || i >= b->len || strcmp(a->pdata[i], b->pdata[i]) != 0)
      return (int)i;
  return -1;
}

static const char *line_at(GPtrArray *lines, int i) {
  return i >= 0 && (guint)i < lines->len ? lines->pdata[i] : "(nothing)";
}

/* Both runs. TRUE if they agree; else what differs, as text, and the number of the operation (or the last one). */
static gboolean compare(const Job *job, char **ret_text, guint64 *ret_op) {
  gboolean overlay = strcmp(job->arm->fs, "overlay") == 0;
  g_autofree char *why_native = NULL, *why = NULL;
  g_autoptr(GPtrArray) host = run_native(job, overlay, &why_native);
  g_autoptr(GPtrArray) ours = NULL;

  *ret_text = NULL;
  *ret_op = job->ops;
  if (why_native) {
    *ret_text = g_strdup_printf("the host's own run: %s", why_native);
    return FALSE;
  }
  ours = run_arm(job, &why);
  int at = ours ? first_difference(host, ours) : -1;
  if (at >= 0 && (guint)at < host->len) {
    const char *line = line_at(host, at);
    if (g_ascii_isdigit(*line))
      *ret_op = number_of(line);
    *ret_text = g_strdup_printf("first difference:\n  host: %s\n  ours: %s%s%s", line, line_at(ours, at),
                                why ? "\nand: " : "", why ? why : "");
  } else if (why || at >= 0) {
    *ret_text = g_strdup(why ? why : line_at(ours, at));
  }
  return *ret_text == NULL;
}

static char *drop_text(const gboolean *dropped, guint n) {
  GString *s = g_string_new(NULL);
  for (guint i = 0; i < n; i++)
    if (dropped[i]) {
      guint from = i;
      while (i + 1 < n && dropped[i + 1])
        i++;
      g_string_append_printf(s, "%s%u-%u", s->len ? "," : "", from, i);
    }
  return g_string_free(s, FALSE);
}

/* Does the last operation still differ without these? */
static gboolean still_differs(Job *job, const gboolean *dropped, guint64 last, const char *kind) {
  g_autofree char *text = NULL;
  guint64 op;

  g_free(job->drop);
  job->drop = drop_text(dropped, job->ops);
  return !compare(job, &text, &op) && (op == last || last == G_MAXUINT64) && text &&
         (!kind || strstr(text, kind));
}

/* Leaves out ever smaller runs of operations as long as the last one differs (ddmin without its complements). */
static void shrink_job(Job *job, guint64 last) {
  gboolean *dropped = g_new0(gboolean, last + 2);
  gboolean in_tree = last >= job->ops;

  if (!in_tree)
    job->ops = (guint)last + 1;
  for (guint size = MAX(1, job->ops / 2); size >= 1; size /= 2)
    for (guint at = job->ops - (in_tree ? 0 : 1); at > 0;) {
      guint from = at > size ? at - size : 0, gained = 0;
      g_autofree gboolean *saved = g_memdup2(dropped, job->ops * sizeof *dropped);
      for (guint i = from; i < at; i++) {
        gained += !dropped[i];
        dropped[i] = TRUE;
      }
      if (gained && !still_differs(job, dropped, in_tree ? job->ops : last, NULL))
        memcpy(dropped, saved, job->ops * sizeof *dropped);
      at = from;
    }
  still_differs(job, dropped, last, NULL);
  g_autofree char *why = NULL;
  g_autoptr(GPtrArray) lines = run_native(job, strcmp(job->arm->fs, "overlay") == 0, &why);
  g_test_message("shrunk to %u lines (--drop=%s):", lines->len, job->drop);
  for (guint i = 0; i < lines->len; i++)
    if (in_tree || g_ascii_isdigit(*(char *)lines->pdata[i]))
      g_test_message("  %s", (char *)lines->pdata[i]);
  g_free(dropped);
}

static void test_compare(gconstpointer data) {
  Job job = *(const Job *)data;
  g_autofree char *text = NULL;
  guint64 op;

  if (job.arm->why_not) {
    g_test_skip(job.arm->why_not);
    return;
  }
  g_test_message("seed %" G_GUINT64_FORMAT ", %u operations", job.seed, job.ops);
  if (compare(&job, &text, &op))
    return;
  g_test_message("%s", text);
  g_test_fail_printf("seed %" G_GUINT64_FORMAT " differs on %s", job.seed, job.arm->name);
  if (shrink)
    shrink_job(&job, op);
}

/* Only that nothing breaks: nobody knows what the right answers are. */
static void test_threads(gconstpointer data) {
  const Job *job = data;
  g_autofree char *why = NULL;

  if (job->arm->why_not) {
    g_test_skip(job->arm->why_not);
    return;
  }
  g_autoptr(GPtrArray) lines = run_arm(job, &why);
  if (why)
    g_test_fail_printf("seed %" G_GUINT64_FORMAT ": %s", job->seed, why);
  for (guint i = 0; lines && i < lines->len; i++)
    if (strcmp(lines->pdata[i], "clean") != 0 && strcmp(lines->pdata[i], "end") != 0) {
      g_test_message("%s", (char *)lines->pdata[i]);
      g_test_fail();
    }
}

static void add_test(const char *what, const Arm *arm, guint64 seed, guint ops, guint threads) {
  Job *job = g_new0(Job, 1);
  g_autofree char *path = g_strdup_printf("/diff/%s/%s", what, arm->name);

  *job = (Job){.arm = arm, .seed = seed, .ops = ops, .threads = threads};
  g_test_add_data_func(path, job, threads ? test_threads : test_compare);
}

/* Without a seed: a fixed sequence that agrees, and threads. With one, or "random": only that. */
static void add_tests(const char *seed, guint ops) {
  const char *spec = g_getenv("TESSERA_ARMS");
  GPtrArray *arms = arms_parse(tessera, spec ? spec : "*/*/*");
  guint64 now = (guint64)g_get_real_time() % 1000000007;

  for (guint i = 0; i < arms->len; i++)
    if (seed) {
      guint64 n = strcmp(seed, "random") == 0 ? now : g_ascii_strtoull(seed, NULL, 0);
      add_test("seed", arms->pdata[i], n, ops ? ops : 50000, 0);
    } else {
      add_test("fixed", arms->pdata[i], FIXED_SEED, ops ? ops : FIXED_OPS, 0);
      add_test("threads", arms->pdata[i], now, ops ? ops : THREADS_OPS, 8);
    }
}

int main(int argc, char **argv) {
  const char *seed = g_getenv("TESSERA_DIFF_SEED"), *o = g_getenv("TESSERA_DIFF_OPS");
  guint ops = o ? (guint)g_ascii_strtoull(o, NULL, 0) : 0;

  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  run_command_init();
  for (int i = 1; i < argc && !more; i++)
    if (strcmp(argv[i], "--shrink") == 0)
      shrink = TRUE;
    else if (strcmp(argv[i], "--") == 0)
      more = argv + i + 1;
  tessera = g_getenv("TESSERA");
  program = g_getenv("DIFF_OPS");
  if (g_getenv("TESSERA_TIMEOUT_SCALE"))
    scale = g_ascii_strtod(g_getenv("TESSERA_TIMEOUT_SCALE"), NULL);
  if (!program || !tessera)
    g_error("usage: DIFF_OPS=PROGRAM TESSERA=COMMAND run-diff [OPTIONS]");
  tmp = make_host_tmp();
  add_tests(seed, ops);
  int status = g_test_run();
  remove_tree(tmp);
  return status;
}
