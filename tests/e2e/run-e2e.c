/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one case of cases/: a script that must print the same and exit with the same status on the host kernel and in
 * the sandbox, in the same Debian root.
 *
 *   run-e2e CASE.sh [GTest options]
 *
 * Environment: TESSERA is the command; TESSERA_ARMS lists PLATFORM:VFS pairs (default "ptrace:vfs2 systrap:vfs2"; "none" runs the
 * native half only); TESSERA_E2E_DIR holds make-root and native; TESSERA_E2E_ROOT overrides the root.
 *
 * A case starts with comment lines; those of the form `#: KEY VALUE` are settings:
 *   shell WORDS     what runs the script with -c (default /bin/bash)
 *   timeout SECONDS of one run in the sandbox (default 120)
 *   needs PATH      in the root; skipped without it
 *   root overlay    changes may be made anywhere and vanish; without it the root is read-only
 */
#include "proc.h"

#include <string.h>
#include <unistd.h>

typedef struct {
  char *name, *script;
  char **shell;
  const char *needs;
  double timeout;
  gboolean overlay;
  char *root;
  char *skip; /* why the case cannot run here */
  gboolean native_ok;
  ProcResult native;
} Case;

static Case the;

static const char *dir(void) {
  const char *d = g_getenv("TESSERA_E2E_DIR");
  return d ? d : ".";
}

static void load(const char *path) {
  g_autoptr(GError) error = NULL;
  if (!g_file_get_contents(path, &the.script, NULL, &error))
    g_error("%s", error->message);
  the.name = g_path_get_basename(path);
  *strrchr(the.name, '.') = 0;
  the.timeout = 120;
  const char *shell = "/bin/bash";
  g_auto(GStrv) lines = g_strsplit(the.script, "\n", -1);
  for (char **l = lines; *l && **l == '#'; l++) {
    if (g_str_has_prefix(*l, "#: shell "))
      shell = *l + 9;
    else if (g_str_has_prefix(*l, "#: timeout "))
      the.timeout = g_ascii_strtod(*l + 11, NULL);
    else if (g_str_has_prefix(*l, "#: needs "))
      the.needs = g_intern_string(*l + 9);
    else if (g_str_equal(*l, "#: root overlay"))
      the.overlay = TRUE;
  }
  the.shell = g_strsplit(shell, " ", -1);
}

/* Finds the root, building it if nobody has; sets the.skip if there is none. */
static void find_root(void) {
  if (geteuid() != 0) {
    the.skip = g_strdup("needs root");
    return;
  }
  the.root = g_strdup(g_getenv("TESSERA_E2E_ROOT"));
  if (!the.root) {
    g_autofree char *make = g_build_filename(dir(), "make-root", NULL);
    g_auto(ProcResult) r = proc_run((const char *[]){make, NULL}, NULL, 1800);
    if (r.status != 0) {
      the.skip = g_strdup(g_strstrip(r.err->str));
      return;
    }
    the.root = g_strdup(g_strstrip(r.out->str));
  }
  g_autofree char *needed = the.needs ? g_build_filename(the.root, the.needs, NULL) : NULL;
  if (needed && !g_file_test(needed, G_FILE_TEST_EXISTS))
    the.skip = g_strdup_printf("%s is not in the root", the.needs);
}

/* `front` is native's or tessera's command line; the rest is the same for both. */
static ProcResult run_case(const char *const *front, double timeout) {
  g_autoptr(GPtrArray) argv = g_ptr_array_new();
  static const char *const env[] = {
      "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C", "TERM=dumb", NULL};
  for (; *front; front++)
    g_ptr_array_add(argv, (gpointer)*front);
  for (const char *const *e = env; *e; e++)
    g_ptr_array_add(argv, (gpointer)*e);
  for (char **s = the.shell; *s; s++)
    g_ptr_array_add(argv, *s);
  g_ptr_array_add(argv, (gpointer) "-c");
  g_ptr_array_add(argv, the.script);
  g_ptr_array_add(argv, the.name);
  g_ptr_array_add(argv, NULL);
  return proc_run((const char *const *)argv->pdata, NULL, timeout);
}

static void test_native(void) {
  if (the.skip) {
    g_test_skip(the.skip);
    return;
  }
  g_autofree char *native = g_build_filename(dir(), "native", NULL);
  the.native = the.overlay ? run_case((const char *[]){native, "--overlay", the.root, NULL}, the.timeout)
                           : run_case((const char *[]){native, the.root, NULL}, the.timeout);
  the.native_ok = the.native.status == 0 && the.native.out->len > 0;
  if (!the.native_ok) {
    g_test_message("the case itself is broken: status %d natively", the.native.status);
    proc_show("standard output:", the.native.out->str, 40);
    proc_show("standard error:", the.native.err->str, 40);
    g_test_fail();
  }
}

/* Fails with a diff when the texts differ. */
static void compare(const char *what, const GString *want, const GString *got) {
  if (g_string_equal(want, got))
    return;
  g_autofree char *tmp = g_dir_make_tmp("tessera-e2e-XXXXXX", NULL);
  g_autofree char *a = g_build_filename(tmp, "native", NULL), *b = g_build_filename(tmp, "tessera", NULL);
  g_file_set_contents(a, want->str, (gssize)want->len, NULL);
  g_file_set_contents(b, got->str, (gssize)got->len, NULL);
  g_auto(ProcResult) diff = proc_run(
      (const char *[]){"diff", "-a", "-U2", "--label", "native", "--label", "tessera", a, b, NULL}, NULL, 60);
  g_autofree char *title = g_strdup_printf("%s differs:", what);
  proc_show(title, diff.out->str, 60);
  unlink(a);
  unlink(b);
  rmdir(tmp);
  g_test_fail();
}

static void test_arm(gconstpointer data) {
  const char *arm = data;
  if (the.skip || !the.native_ok) {
    g_test_skip(the.skip ? the.skip : "the native half failed");
    return;
  }
  g_auto(GStrv) parts = g_strsplit(arm, ":", 2);
  g_autofree char *platform = g_strdup_printf("--platform=%s", parts[0]);
  g_autofree char *vfs = g_strdup_printf("--vfs=%s", parts[0] && parts[1] ? parts[1] : "vfs2");
  g_autofree char *root = g_strdup_printf("--root=%s", the.root);
  double start = g_get_monotonic_time() / 1e6;
  g_auto(ProcResult) r =
      run_case((const char *[]){g_getenv("TESSERA"), "do", platform, vfs, root, the.overlay ? "--" : "--ro",
                                the.overlay ? NULL : "--", NULL},
               the.timeout);
  g_test_message("%.1f s", g_get_monotonic_time() / 1e6 - start);
  if (r.status != the.native.status) {
    if (r.status < 0)
      g_test_message("no end within %.0f s", proc_scale(the.timeout));
    g_test_message("exit status: native %d, tessera %d", the.native.status, r.status);
    g_test_fail();
  }
  compare("standard output", the.native.out, r.out);
  compare("standard error", the.native.err, r.err);
  g_autofree char *left = proc_leftovers(3);
  if (left) {
    g_test_message("processes left behind: %s", left);
    g_test_fail();
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  if (argc < 2)
    g_error("usage: run-e2e CASE.sh");
  proc_setup();
  load(argv[1]);
  find_root();
  g_autofree char *native = g_strdup_printf("/%s/native", the.name);
  g_test_add_func(native, test_native);
  const char *arms = g_getenv("TESSERA_ARMS");
  g_auto(GStrv) list = g_strsplit(arms && *arms ? arms : "ptrace:vfs2 systrap:vfs2", " ", -1);
  for (char **a = list; *a; a++) {
    if (!**a || g_str_equal(*a, "none"))
      continue;
    if (!g_file_test(g_getenv("TESSERA") ?: "", G_FILE_TEST_IS_EXECUTABLE))
      g_error("TESSERA does not name the command");
    g_autofree char *path = g_strdup_printf("/%s/%s", the.name, *a);
    g_test_add_data_func(path, *a, test_arm);
  }
  return g_test_run();
}
