/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera compare`: runs one command on several arms (flags of `tessera do`, or the host itself) and says what came out
 * differently. Arms take turns, so that a busy moment of the machine meets them all. */
#include <runtime/compare.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_SAME = 0, EXIT_DIFFERENT = 1 };

typedef struct {
  GPtrArray *arms; /* Arm */
  char *html, *tree;
  guint runs;
  gboolean host, no_trace, keep;
} Options;

static void arm_free(gpointer p) {
  Arm *a = p;
  g_free(a->name);
  g_ptr_array_unref(a->flags);
  g_free(a->dir);
  if (a->out)
    g_string_free(a->out, TRUE);
  if (a->err)
    g_string_free(a->err, TRUE);
  g_clear_pointer(&a->tree, g_ptr_array_unref);
  g_array_unref(a->walls);
  g_clear_pointer(&a->calls, calls_free);
  g_free(a);
}

static Arm *arm_new(const char *name) {
  Arm *a = g_new0(Arm, 1);
  a->name = g_strdup(name);
  a->flags = g_ptr_array_new_with_free_func(g_free);
  a->walls = g_array_new(FALSE, FALSE, sizeof(gint64));
  return a;
}

/* "vfs=vfs1,platform=ptrace,ro": each becomes a flag of `tessera do`. */
static gboolean add_arm(gpointer o, char **a, GError **e) {
  Arm *arm = arm_new(a[0]);
  g_ptr_array_add(((Options *)o)->arms, arm);
  g_auto(GStrv) words = g_strsplit(a[0], ",", -1);
  for (char **w = words; *w; w++) {
    if (!**w || **w == '-') {
      g_set_error(e, TES_ERROR, TES_ERROR_CONFIG,
                  "arm \"%s\": expected FLAG=VALUE,... as in vfs=vfs2,platform=ptrace", a[0]);
      return FALSE;
    }
    g_ptr_array_add(arm->flags, g_strconcat("--", *w, NULL));
  }
  return TRUE;
}

static gboolean set_host(gpointer o, char **a, GError **e) { return ((Options *)o)->host = TRUE; }
static gboolean set_no_trace(gpointer o, char **a, GError **e) { return ((Options *)o)->no_trace = TRUE; }
static gboolean set_keep(gpointer o, char **a, GError **e) { return ((Options *)o)->keep = TRUE; }
static gboolean set_html(gpointer o, char **a, GError **e) {
  g_free(((Options *)o)->html);
  ((Options *)o)->html = g_strdup(a[0]);
  return TRUE;
}
static gboolean set_tree(gpointer o, char **a, GError **e) {
  g_free(((Options *)o)->tree);
  ((Options *)o)->tree = g_canonicalize_filename(a[0], NULL);
  if (g_file_test(a[0], G_FILE_TEST_IS_DIR))
    return TRUE;
  g_set_error(e, TES_ERROR, TES_ERROR_CONFIG, "--tree=%s: no such directory", a[0]);
  return FALSE;
}
static gboolean set_runs(gpointer o, char **a, GError **e) {
  guint64 n;
  if (!g_ascii_string_to_unsigned(a[0], 10, 1, 1000, &n, NULL)) {
    g_set_error(e, TES_ERROR, TES_ERROR_CONFIG, "--runs=%s: expected a number from 1 to 1000", a[0]);
    return FALSE;
  }
  ((Options *)o)->runs = (guint)n;
  return TRUE;
}

static const Flag compare_flags[] = {
    {"a", 1, add_arm},     {"b", 1, add_arm},     {"host", 0, set_host}, {"runs", 1, set_runs},
    {"tree", 1, set_tree}, {"html", 1, set_html}, {"keep", 0, set_keep}, {"no-trace", 0, set_no_trace},
    {NULL, 0, NULL},
};

/* ---- Running ---- */

static gboolean run_all(const RunPlan *plan, GPtrArray *arms, guint runs, GError **error) {
  for (guint n = 0; n < runs; n++)
    for (guint i = 0; i < arms->len; i++)
      if (!run_arm(plan, arms->pdata[i], n ? RUN_TIMED : RUN_FIRST, error))
        return FALSE;
  return TRUE;
}

static gboolean trace_all(const RunPlan *plan, GPtrArray *arms, gboolean no_trace, GError **error) {
  for (guint i = 0; i < arms->len; i++) {
    Arm *arm = arms->pdata[i];
    g_autofree char *strace = g_find_program_in_path("strace");
    arm->no_calls = no_trace               ? "--no-trace"
                    : arm->host && !strace ? "strace is not installed on the host"
                                           : NULL;
    if (!arm->no_calls && !run_arm(plan, arm, RUN_TRACED, error))
      return FALSE;
  }
  return TRUE;
}

static int by_value(gconstpointer a, gconstpointer b) {
  gint64 x = *(const gint64 *)a, y = *(const gint64 *)b;
  return x < y ? -1 : x > y;
}

/* ---- Comparing ---- */

/* The first line that differs, as "line 3: "..." and "..."", or NULL. */
static char *text_difference(const GString *a, const GString *b) {
  if (g_string_equal(a, b))
    return NULL;
  const char *p = a->str, *q = b->str;
  for (guint line = 1;; line++) {
    gsize n = strcspn(p, "\n"), m = strcspn(q, "\n");
    if (n != m || memcmp(p, q, n) != 0 || !p[n] || !q[m]) {
      g_autofree char *x = g_utf8_make_valid(p, (gssize)MIN(n, 200)),
                      *y = g_utf8_make_valid(q, (gssize)MIN(m, 200));
      return g_strdup_printf("differs in line %u: \"%s\", \"%s\"", line, x, y);
    }
    p += n + 1;
    q += m + 1;
  }
}

static void comparison_free(gpointer p) {
  Comparison *c = p;
  g_free(c->out);
  g_free(c->err);
  g_ptr_array_unref(c->tree);
  g_clear_pointer(&c->calls, g_ptr_array_unref);
  g_free(c);
}

static Comparison *compare_arms(Arm *first, Arm *other) {
  Comparison *c = g_new0(Comparison, 1);
  c->other = other;
  c->same_exit = first->status == other->status;
  c->out = text_difference(first->out, other->out);
  c->err = text_difference(first->err, other->err);
  c->tree = tree_differences(first->tree, first->name, other->tree, other->name);
  if (first->calls && other->calls)
    c->calls = calls_differences(first->calls, other->calls);
  return c;
}

static gboolean is_same(const Comparison *c) {
  return c->same_exit && !c->out && !c->err && c->tree->len == 0;
}

static int finish(const Options *o, char **command, GError **error) {
  Result r = {o->arms, g_ptr_array_new_with_free_func(comparison_free), command, o->runs};
  for (guint i = 0; i < o->arms->len; i++)
    g_array_sort(((Arm *)o->arms->pdata[i])->walls, by_value);
  int status = EXIT_SAME;
  for (guint i = 1; i < o->arms->len; i++) {
    Comparison *c = compare_arms(o->arms->pdata[0], o->arms->pdata[i]);
    g_ptr_array_add(r.comparisons, c);
    if (!is_same(c))
      status = EXIT_DIFFERENT;
  }
  report_text(&r, stdout);
  if (o->html && !report_html(&r, o->html, error))
    status = -1;
  g_ptr_array_unref(r.comparisons);
  return status;
}

static int run_compare(Options *o, char **command, GError **error) {
  if (o->host)
    g_ptr_array_add(o->arms, arm_new("host"));
  if (o->arms->len < 2) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG,
                "two arms are needed: --a vfs=vfs1 --b vfs=vfs2, or one and --host");
    return -1;
  }
  g_autofree char *self = g_file_read_link("/proc/self/exe", error);
  g_autofree char *dir = self ? g_dir_make_tmp("tessera-compare-XXXXXX", error) : NULL;
  if (!dir)
    return -1;
  g_autofree char *work = g_build_filename(dir, "work", NULL);
  for (guint i = 0; i < o->arms->len; i++) {
    Arm *arm = o->arms->pdata[i];
    arm->host = o->host && i == o->arms->len - 1;
    arm->dir = g_strdup_printf("%s/%u", dir, i);
    g_mkdir_with_parents(arm->dir, 0700);
  }
  RunPlan plan = {self, work, o->tree, command};
  int status = -1;
  if (run_all(&plan, o->arms, o->runs, error) && trace_all(&plan, o->arms, o->no_trace, error))
    status = finish(o, command, error);
  if (o->keep)
    printf("\noutputs, trees and traces are kept in %s, one directory for each arm\n", dir);
  else
    remove_tree(dir);
  return status;
}

static int compare_main(int argc, char **argv) {
  Options o = {.arms = g_ptr_array_new_with_free_func(arm_free), .runs = 3};
  g_autoptr(GError) error = NULL;
  gboolean help = FALSE;
  int rest = 0, status = -1;
  if (parse_flags(compare_flags, &o, argc, argv, &rest, &help, &error) && !help) {
    if (rest >= argc)
      g_set_error(&error, TES_ERROR, TES_ERROR_CONFIG,
                  "no program given; try tessera compare --a vfs=vfs1 --b vfs=vfs2 -- /bin/ls");
    else
      status = run_compare(&o, argv + rest, &error);
  }
  g_ptr_array_unref(o.arms);
  g_free(o.html);
  g_free(o.tree);
  if (help) {
    fputs(verb_compare.manual, stdout);
    return 0;
  }
  return error ? report(error) : status;
}

const Verb verb_compare = {
    "compare", "run a program on two kernels and show what differs", compare_main,
    "NAME\n"
    "    tessera compare - run a program on two kernels and show what differs\n\n"
    "SYNOPSIS\n"
    "    tessera compare --a FLAGS --b FLAGS [--host] [FLAG...] -- PROGRAM [ARGUMENT...]\n\n"
    "DESCRIPTION\n"
    "    Runs PROGRAM on each arm and compares with the first one: exit status, standard output and error, "
    "the files in the "
    "working\n"
    "    directory afterwards, and the system calls that were answered differently or made on one arm only. "
    "Times are of "
    "runs without\n"
    "    trace; the system calls come from one more run with --strace-to. An arm's FLAGS are flags of "
    "tessera do without "
    "the dashes,\n"
    "    separated by commas: vfs=vfs1, platform=ptrace,cpuid=host. Each run starts in a fresh working "
    "directory that the "
    "host and the\n"
    "    sandbox share; other changes of a sandbox vanish with it. Standard input is empty.\n\n"
    "FLAGS\n"
    "    --a FLAGS, --b FLAGS  an arm; both may be repeated for more arms\n"
    "    --host                one more arm: the host itself, without a sandbox. Its system calls are "
    "compared if strace is "
    "installed\n"
    "    --runs=N              timed runs of each arm, in turns; default: 3\n"
    "    --tree=DIR            the working directory begins as a copy of DIR; default: empty\n"
    "    --html=FILE           the result as a page that needs no network\n"
    "    --no-trace            compares no system calls\n"
    "    --keep                keeps outputs, trees and traces, and says where\n\n"
    "EXIT STATUS\n"
    "    0 if status, output and files were the same, 1 if not (system calls do not count), 125 if an arm "
    "could not run.\n"};
