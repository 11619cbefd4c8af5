/* SPDX-License-Identifier: Apache-2.0 */
/* run-guest.c - GTest runner of the guest programs: natively, then in the sandbox on each arm.
 *
 *   run-guest [GTEST OPTIONS] [--matrix] [PROGRAM...]
 *
 * Environment: TESSERA_GUEST_DIR (directory of the programs), TESSERA (the command; without it only the native
 * arm exists), TESSERA_ARMS (arms.h; default: all combinations with --matrix, for programs about files; else both platforms on
 * vfs2 and one on vfs1), TESSERA_DO_ARGS (more arguments of `tessera do`), TESSERA_TIMEOUT_SCALE (a factor for every limit), TESSERA_HOSTILE_SEED, TESSERA_HOSTILE_SECONDS.
 * Cases are /guest/PROGRAM/CASE/native and /guest/PROGRAM/CASE/ARM. An arm runs the program once, in one sandbox
 * (`PROGRAM --tap`); when that sandbox dies or hangs, the case it was in fails and the rest run one by one.
 */
#include "arms.h"
#include "run-guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define MATRIX_ARMS "*/*/*"
#define DEFAULT_ARMS "*/vfs2/tmpfs systrap/vfs1/tmpfs?"
#define START_LIMIT 20 /* seconds for the sandbox to begin the first case */
#define MAX_OUTPUT 20000
#define MAX_DEAD 4 /* sandboxes in a row that end without beginning a case: then give up */

typedef struct Case Case;

typedef struct {
  const char *name; /* of the program */
  char *path;
  GPtrArray *cases; /* Case */
} Program;

struct Case {
  Program *program;
  char *name;
  guint limit;     /* seconds */
  GPtrArray *runs; /* CaseRun, one per arm */
};

typedef struct {
  Case *test;
  const Arm *arm;
  gboolean done;
  char *result; /* "pass", "skip", or why it failed */
  GString *output;
} CaseRun;

/* State while the output of one sandbox is parsed. */
typedef struct {
  Program *program;
  const Arm *arm;
  CaseRun *current;
  gboolean began; /* at least one case */
  RunOutput *io;
  GString *preamble; /* output outside cases */
} Parse;

static const char *tessera, *guest_dir;
static char *native_tmp;
static double scale = 1;
static gboolean matrix;     /* programs about files: the VFS generation and the filesystem matter */
static gboolean one_by_one; /* a selection was made with -p */
static GPtrArray *arms;

static gint64 deadline_in(double seconds) {
  return g_get_monotonic_time() + (gint64)(seconds * scale * G_USEC_PER_SEC);
}

static void append_output(GString *to, const char *line) {
  if (to->len < MAX_OUTPUT && *line)
    g_string_append_printf(to, "%s\n", line);
}

static void end_run(CaseRun *run, const char *result) {
  g_free(run->result);
  run->result = g_strdup(result);
  run->done = TRUE;
}

static CaseRun *find_run(Program *program, const Arm *arm, const char *name) {
  for (guint i = 0; i < program->cases->len; i++) {
    Case *c = program->cases->pdata[i];
    if (strcmp(c->name, name) == 0)
      return c->runs->pdata[arm->index];
  }
  return NULL;
}

static void batch_line(gpointer user, char *line) {
  Parse *p = user;

  if (g_str_has_prefix(line, "@begin ")) {
    p->current = find_run(p->program, p->arm, line + 7);
    p->began = TRUE;
    /* The parent in the sandbox enforces the limit; this is for a sandbox that cannot. */
    if (p->current)
      p->io->deadline = deadline_in(p->current->test->limit * 1.5 + 8);
  } else if (g_str_has_prefix(line, "@end ") && p->current) {
    char *result = strchr(line + 5, ' ');
    end_run(p->current, result ? result + 1 : "fail (no result)");
    p->current = NULL;
    p->io->deadline = deadline_in(START_LIMIT);
  } else {
    append_output(p->current ? p->current->output : p->preamble, line);
  }
}

static void native_line(gpointer user, char *line) { append_output(((CaseRun *)user)->output, line); }

static char **environment(const Arm *arm) {
  char **envp = g_get_environ();

  envp = g_environ_unsetenv(envp, "MALLOC_PERTURB_"); /* meson sets it; it slows static programs only */
  if (arm->platform)
    return g_environ_unsetenv(envp, "TMPDIR");
  return g_environ_setenv(envp, "TMPDIR", native_tmp, TRUE);
}

static void add_hostile_options(GPtrArray *argv) {
  const char *seed = g_getenv("TESSERA_HOSTILE_SEED"), *seconds = g_getenv("TESSERA_HOSTILE_SECONDS");

  if (seed)
    g_ptr_array_add(argv, g_strdup_printf("--seed=%s", seed));
  if (seconds)
    g_ptr_array_add(argv, g_strdup_printf("--seconds=%s", seconds));
}

/* The sandbox covers /tmp and /run with tmpfs: programs built there are bound to a directory that every host has. */
#define BOUND_AT "/mnt"

static gboolean is_covered(const Program *program) {
  return g_str_has_prefix(program->path, "/tmp/") || g_str_has_prefix(program->path, "/run/");
}

static GPtrArray *sandbox_argv(Program *program, const Arm *arm, const char *host_dir) {
  GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
  g_auto(GStrv) more = NULL;
  const char *extra = g_getenv("TESSERA_DO_ARGS");

  g_ptr_array_add(argv, g_strdup(tessera));
  g_ptr_array_add(argv, g_strdup("do"));
  g_ptr_array_add(argv, g_strdup("--ro")); /* the programs look for it before they dare to remove files */
  arm_add_argv(argv, arm, host_dir);
  if (extra && g_shell_parse_argv(extra, NULL, &more, NULL))
    for (char **p = more; *p; p++)
      g_ptr_array_add(argv, g_strdup(*p));
  if (is_covered(program)) {
    g_ptr_array_add(argv, g_strdup("--ro-bind"));
    g_ptr_array_add(argv, g_strdup(guest_dir));
    g_ptr_array_add(argv, g_strdup(BOUND_AT));
  }
  g_ptr_array_add(argv, g_strdup("--"));
  g_ptr_array_add(argv, is_covered(program) ? g_strdup_printf(BOUND_AT "/%s", program->name)
                                            : g_strdup(program->path));
  g_ptr_array_add(argv, g_strdup("--in-sandbox"));
  g_ptr_array_add(argv, g_strdup_printf("--fs=%s", arm->fs));
  if (scale != 1)
    g_ptr_array_add(argv, g_strdup_printf("--limit=%d", (int)(20 * scale)));
  add_hostile_options(argv);
  g_ptr_array_add(argv, g_strdup("--tap"));
  return argv;
}

static char *describe_status(const RunOutput *io) {
  if (io->timed_out)
    return g_strdup("hung and was killed");
  if (WIFSIGNALED(io->status))
    return g_strdup_printf("died of signal %d", WTERMSIG(io->status));
  return g_strdup_printf("exited with status %d", WEXITSTATUS(io->status));
}

/* Runs one sandbox over all cases (only == NULL) or one. Returns whether it began any case. */
static gboolean run_sandbox(Program *program, const Arm *arm, CaseRun *only) {
  g_autofree char *host_dir = arm_host_dir(arm, native_tmp);
  g_autoptr(GPtrArray) argv = sandbox_argv(program, arm, host_dir);
  g_auto(GStrv) envp = environment(arm);
  g_autoptr(GError) error = NULL;
  g_autoptr(GString) preamble = g_string_new(NULL);
  g_autofree char *strays = NULL, *how = NULL;
  RunOutput io = {.deadline = deadline_in(START_LIMIT), .line = batch_line};
  Parse parse = {.program = program, .arm = arm, .io = &io, .preamble = preamble};

  io.user = &parse;
  if (only)
    g_ptr_array_add(argv, g_strdup(only->test->name));
  g_ptr_array_add(argv, NULL);
  if (!run_command((const char *const *)argv->pdata, envp, &io, &error)) {
    g_test_message("cannot start the sandbox: %s", error->message);
    return FALSE;
  }
  strays = reap_strays(2000);
  if (host_dir)
    remove_tree(host_dir);
  how = describe_status(&io);
  if (parse.current) {
    g_autofree char *why = g_strdup_printf("the sandbox %s in this case", how);
    append_output(parse.current->output, preamble->str);
    end_run(parse.current, why);
  }
  if (strays) {
    g_test_message("FAIL: processes survived the sandbox: %s", strays);
    if (only)
      end_run(only, "processes survived the sandbox");
  }
  if (preamble->len)
    g_test_message("%s on %s said: %s", program->name, arm->name, preamble->str);
  if (!parse.began)
    g_test_message("%s on %s: the sandbox began no case: it %s", program->name, arm->name, how);
  return parse.began;
}

/* A sandbox that did not get as far as its first case will not do better for the others. */
static void give_up(Program *program, const Arm *arm) {
  for (guint i = 0; i < program->cases->len; i++) {
    Case *c = program->cases->pdata[i];
    CaseRun *run = c->runs->pdata[arm->index];
    if (!run->done)
      end_run(run, "the sandbox does not start");
  }
}

static void run_rest(Program *program, const Arm *arm) {
  guint dead = 0;

  for (guint i = 0; i < program->cases->len; i++) {
    Case *c = program->cases->pdata[i];
    CaseRun *run = c->runs->pdata[arm->index];
    if (run->done)
      continue;
    if (dead < MAX_DEAD)
      dead = run_sandbox(program, arm, run) ? 0 : dead + 1;
    if (!run->done)
      end_run(run, dead ? "the sandbox does not start" : "the sandbox ended before the case");
  }
}

static void run_native(CaseRun *run) {
  GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
  g_auto(GStrv) envp = environment(run->arm);
  g_autoptr(GError) error = NULL;
  g_autofree char *result = NULL;
  RunOutput io = {.deadline = deadline_in(run->test->limit), .line = native_line, .user = run};

  g_ptr_array_add(argv, g_strdup(run->test->program->path));
  add_hostile_options(argv);
  g_ptr_array_add(argv, g_strdup(run->test->name));
  g_ptr_array_add(argv, NULL);
  if (!run_command((const char *const *)argv->pdata, envp, &io, &error)) {
    end_run(run, error->message);
  } else if (!io.timed_out && WIFEXITED(io.status) && WEXITSTATUS(io.status) == 0) {
    end_run(run, "pass");
  } else if (!io.timed_out && WIFEXITED(io.status) && WEXITSTATUS(io.status) == 77) {
    end_run(run, "skip");
  } else {
    result = describe_status(&io);
    end_run(run, result);
  }
  g_ptr_array_unref(argv);
  g_free(reap_strays(0));
}

static void report(CaseRun *run) {
  if (strcmp(run->result, "skip") == 0) {
    const char *reason = g_strrstr(run->output->str, "SKIP: ");
    g_autofree char *line = g_strdup(reason ? reason + 6 : "no reason given");
    line[strcspn(line, "\n")] = '\0';
    g_test_skip(line);
  } else if (strcmp(run->result, "pass") != 0) {
    g_auto(GStrv) lines = g_strsplit(run->output->str, "\n", -1);
    for (char **p = lines; *p; p++)
      if (**p)
        g_test_message("%s", *p);
    g_test_fail_printf("%s", run->result);
    g_test_message("FAIL %s/%s/%s: %s", run->test->program->name, run->test->name, run->arm->name,
                   run->result);
  }
}

static void test_case(gconstpointer data) {
  CaseRun *run = (CaseRun *)data;

  if (!run->done && !run->arm->platform) {
    run_native(run);
  } else if (!run->done && one_by_one) {
    if (!run_sandbox(run->test->program, run->arm, run) && !run->done)
      end_run(run, "the sandbox does not start");
  } else if (!run->done) {
    if (run_sandbox(run->test->program, run->arm, NULL))
      run_rest(run->test->program, run->arm);
    else
      give_up(run->test->program, run->arm);
  }
  if (!run->done)
    end_run(run, "the sandbox does not start");
  report(run);
}

static void test_missing(gconstpointer why_not) { g_test_skip(why_not); }

static void list_line(gpointer user, char *line) {
  Program *program = user;
  g_auto(GStrv) words = g_strsplit(line, " ", 2);
  Case *c = g_new0(Case, 1);

  if (!words[0] || !words[1]) {
    g_free(c);
    return;
  }
  c->program = program;
  c->name = g_strdup(words[0]);
  c->limit = (guint)g_ascii_strtoull(words[1], NULL, 10);
  c->runs = g_ptr_array_new();
  for (guint i = 0; i < arms->len; i++) {
    CaseRun *run = g_new0(CaseRun, 1);
    run->test = c;
    run->arm = arms->pdata[i];
    run->output = g_string_new(NULL);
    g_ptr_array_add(c->runs, run);
  }
  g_ptr_array_add(program->cases, c);
}

static void load_program(const char *name) {
  Program *program = g_new0(Program, 1);
  g_autoptr(GError) error = NULL;
  RunOutput io = {.deadline = deadline_in(20), .line = list_line, .user = program};

  program->name = name;
  program->path = g_build_filename(guest_dir, name, NULL);
  program->cases = g_ptr_array_new();
  const char *argv[] = {program->path, "--list=long", NULL};
  if (!run_command(argv, NULL, &io, &error))
    g_error("%s", error->message);
  if (io.timed_out || !WIFEXITED(io.status) || WEXITSTATUS(io.status) != 0 || program->cases->len == 0)
    g_error("%s --list failed", program->path);
  /* Native first, arm by arm, so that the oracle's verdict stands above the sandbox's. */
  for (guint a = 0; a < arms->len; a++)
    for (guint i = 0; i < program->cases->len; i++) {
      Case *c = program->cases->pdata[i];
      const Arm *arm = arms->pdata[a];
      if (arm->why_not) {
        g_autofree char *skipped = g_strdup_printf("/guest/%s/%s", name, arm->name);
        g_test_add_data_func(skipped, arm->why_not, test_missing);
        break;
      }
      g_autofree char *path = g_strdup_printf("/guest/%s/%s/%s", name, c->name, arm->name);
      g_test_add_data_func(path, c->runs->pdata[a], test_case);
    }
}

static void load_arms(void) {
  const char *spec = g_getenv("TESSERA_ARMS");

  if (tessera)
    arms = arms_parse(tessera, spec ? spec : matrix ? MATRIX_ARMS : DEFAULT_ARMS);
  else
    arms = g_ptr_array_new();
  g_ptr_array_insert(arms, 0, arm_native());
  for (guint i = 0; i < arms->len; i++)
    ((Arm *)arms->pdata[i])->index = i;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    one_by_one |= g_str_has_prefix(argv[i], "-p") || g_str_has_prefix(argv[i], "-s");
  for (int i = 1; i < argc; i++)
    matrix |= strcmp(argv[i], "--matrix") == 0;
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  run_command_init();
  tessera = g_getenv("TESSERA");
  guest_dir = g_getenv("TESSERA_GUEST_DIR");
  if (g_getenv("TESSERA_TIMEOUT_SCALE"))
    scale = g_ascii_strtod(g_getenv("TESSERA_TIMEOUT_SCALE"), NULL);
  if (!guest_dir || argc < 2)
    g_error("usage: TESSERA_GUEST_DIR=DIR run-guest [OPTIONS] PROGRAM...");
  if (tessera && !*tessera)
    tessera = NULL;
  load_arms();
  native_tmp = make_host_tmp();
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--matrix") != 0)
      load_program(argv[i]);
  int status = g_test_run();
  remove_tree(native_tmp);
  return status;
}
