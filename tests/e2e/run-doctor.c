/* SPDX-License-Identifier: Apache-2.0 */
/* The command `tessera doctor` on the host: as this user and as nobody, without plugins, without /proc, and with platforms that
 * hang or crash when they are asked.
 *
 * Environment: TESSERA is the command; ODD_PLUGINS the directory of odd-platforms.so.
 */
#include "proc.h"

#include <json-glib/json-glib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGS 16
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED TRUE /* their run-time libraries need /proc */
#else
#define SANITIZED FALSE
#endif
#define WORDS(...) ((const char *[]){__VA_ARGS__, NULL})

static const char *tessera, *plugins;

/* Runs the words before the command, the command and the words after it. */
static ProcResult doctor(const char *const *front, const char *const *flags, double seconds) {
  const char *argv[MAX_ARGS];
  int n = 0;
  for (; front && *front; front++)
    argv[n++] = *front;
  argv[n++] = tessera;
  argv[n++] = "doctor";
  argv[n++] = "--json";
  for (; *flags && n < MAX_ARGS - 1; flags++)
    argv[n++] = *flags;
  argv[n] = NULL;
  return proc_run(argv, NULL, seconds);
}

/* Parses the answer; every check has a name, a state and a reason. Transfer full. */
static JsonNode *parse(const ProcResult *r, int status) {
  static const char *const areas[] = {"plugins-checks", "platforms-checks",   "vfs-checks",
                                      "network-checks", "confinement-checks", "machine-checks"};
  g_autoptr(GError) error = NULL;
  JsonNode *root = json_from_string(r->out->str, &error);
  if (!root || r->status != status || r->err->len) {
    g_test_message("status %d, expected %d; %s", r->status, status, error ? error->message : "");
    proc_show("standard output:", r->out->str, 10);
    proc_show("standard error:", r->err->str, 10);
    g_error("no answer");
  }
  for (guint i = 0; i < G_N_ELEMENTS(areas); i++) {
    JsonArray *lines = json_object_get_array_member(json_node_get_object(root), areas[i]);
    g_assert_cmpuint(json_array_get_length(lines), >, 0);
    for (guint k = 0; k < json_array_get_length(lines); k++) {
      JsonObject *l = json_array_get_object_element(lines, k);
      const char *state = json_object_get_string_member(l, "state");
      g_assert_true(g_strv_contains(WORDS("yes", "no", "limited"), state));
      g_assert_cmpint(strlen(json_object_get_string_member(l, "name")), >, 0);
      g_assert_cmpint(strlen(json_object_get_string_member(l, "reason")), >, 0);
      g_assert_null(strstr(json_object_get_string_member(l, "reason"), "without an answer"));
    }
  }
  return root;
}

/* A check's line, borrowed. */
static JsonObject *line(JsonNode *root, const char *area, const char *name) {
  JsonArray *lines = json_object_get_array_member(json_node_get_object(root), area);
  for (guint k = 0; k < json_array_get_length(lines); k++) {
    JsonObject *l = json_array_get_object_element(lines, k);
    if (g_str_equal(json_object_get_string_member(l, "name"), name))
      return l;
  }
  g_error("no line %s in %s", name, area);
}

static void expect(JsonNode *root, const char *area, const char *name, const char *state,
                   const char *reason) {
  JsonObject *l = line(root, area, name);
  g_assert_cmpstr(json_object_get_string_member(l, "state"), ==, state);
  if (!strstr(json_object_get_string_member(l, "reason"), reason))
    g_error("%s: expected \"%s\", got \"%s\"", name, reason, json_object_get_string_member(l, "reason"));
}

static const char *member(JsonNode *root, const char *name) {
  JsonNode *n = json_object_get_member(json_node_get_object(root), name);
  return json_node_is_null(n) ? NULL : json_node_get_string(n);
}

static void nothing_left(void) {
  g_autofree char *left = proc_leftovers(3);
  g_assert_cmpstr(left, ==, NULL);
}

/* The named platform is the one marked, it works, and `do` runs with it. */
static void works(JsonNode *root) {
  const char *platform = member(root, "platform");
  g_assert_nonnull(platform);
  g_assert_true(json_object_get_boolean_member(json_node_get_object(root), "works"));
  expect(root, "platforms-checks", platform, "yes", "opened in");
  g_assert_true(json_object_get_boolean_member(line(root, "platforms-checks", platform), "chosen"));
  g_assert_true(json_object_get_boolean_member(line(root, "vfs-checks", member(root, "vfs")), "chosen"));
  expect(root, "confinement-checks", "no_new_privs", "yes", "");
}

static void test_here(void) {
  g_auto(ProcResult) r = doctor(NULL, WORDS(NULL), 40);
  g_autoptr(JsonNode) root = parse(&r, 0);
  works(root);
  g_autofree char *flag = g_strconcat("--platform=", member(root, "platform"), NULL);
  g_auto(ProcResult) d = proc_run(WORDS(tessera, "do", flag, "--", "/bin/true"), NULL, 60);
  g_assert_cmpint(d.status, ==, 0);
  nothing_left();
}

/* The line of a section that is marked as chosen, or NULL. */
static const char *chosen_in(const char *text, const char *section) {
  g_autofree char *title = g_strdup_printf("\n%s\n", section);
  const char *from = strstr(text, title), *end, *line;
  if (!from)
    return NULL;
  from += strlen(title) - 1;
  end = strstr(from, "\n\n");
  line = strstr(from, "\n  * yes");
  return line && (!end || line < end) ? line : NULL;
}

static void test_text(void) {
  g_auto(ProcResult) r = proc_run(WORDS(tessera, "doctor"), NULL, 40);
  g_assert_cmpint(r.status, ==, 0);
  g_assert_nonnull(chosen_in(r.out->str, "Platforms"));
  g_assert_nonnull(strstr(r.out->str, "\ntessera do would use"));
  g_auto(ProcResult) bad = proc_run(WORDS(tessera, "doctor", "--nosuch"), NULL, 40);
  g_assert_cmpint(bad.status, ==, 125);
  g_auto(ProcResult) more = proc_run(WORDS(tessera, "doctor", "word"), NULL, 40);
  g_assert_cmpint(more.status, ==, 125);
}

static void test_nobody(void) {
  static const char *const front[] = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", NULL};
  g_auto(ProcResult) can = proc_run(
      WORDS("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "test", "-r", plugins), NULL, 20);
  if (geteuid() != 0 || can.status != 0) {
    g_test_skip("needs root, and a build directory that other users can read");
    return;
  }
  g_auto(ProcResult) r = doctor(front, WORDS(NULL), 40);
  g_autoptr(JsonNode) root = parse(&r, 0);
  works(root);
  expect(root, "confinement-checks", "capabilities", "no", "none");
  expect(root, "network-checks", "CAP_NET_ADMIN", "no", "not held");
  nothing_left();
}

static void test_no_plugins(void) {
  g_auto(ProcResult) r = doctor(NULL, WORDS("--plugin-path=/no/such/dir"), 40);
  g_autoptr(JsonNode) root = parse(&r, 1);
  expect(root, "plugins-checks", "directory", "no", "/no/such/dir");
  g_assert_cmpstr(member(root, "platform"), ==, NULL);
  g_assert_cmpstr(member(root, "vfs"), ==, NULL);
  g_assert_nonnull(member(root, "error"));
}

static void odd(JsonNode *root) {
  expect(root, "platforms-checks", "refuses", "no", "the moon is not full");
  expect(root, "platforms-checks", "crashes", "no", "signal 11");
  expect(root, "platforms-checks", "hangs", "no", "no answer in time");
  expect(root, "platforms-checks", "zz-breaks", "no", "there is nothing to open");
}

static void test_odd(void) {
  g_autofree char *odd_path = g_strdup_printf("--plugin-path=%s", g_getenv("ODD_PLUGINS"));
  g_autofree char *path = g_strdup_printf("--plugin-path=%s", plugins);
  gint64 begin = g_get_monotonic_time();
  g_auto(ProcResult) r = doctor(NULL, WORDS(path, odd_path), 60);
  g_assert_cmpint(g_get_monotonic_time() - begin, <, (gint64)(proc_scale(20) * 1e6));
  g_autoptr(JsonNode) root = parse(&r, 0);
  odd(root);
  works(root);
  nothing_left();

  g_auto(ProcResult) alone = doctor(NULL, WORDS(odd_path), 60);
  g_autoptr(JsonNode) none = parse(&alone, 1);
  odd(none);
  g_assert_cmpstr(member(none, "platform"), ==, "zz-breaks"); /* its probe succeeds: do would choose it */
  g_assert_nonnull(strstr(member(none, "error"), "there is nothing to open"));
  nothing_left();
}

/* In a chroot that has neither /proc nor /dev: everything is mounted in a namespace of its own. */
static void test_no_proc(void) {
  static const char script[] =
      "set -e; r=$(mktemp -d); mount -t tmpfs none $r; mkdir $r/usr $r/b $r/tmp; mount --bind /usr $r/usr; "
      "mount --bind \"$1\" $r/b\n"
      "for d in lib lib64 bin; do if [ -L /$d ]; then cp -P /$d $r/$d; elif [ -d /$d ]; then mkdir $r/$d; "
      "mount --bind /$d $r/$d; fi; done\n"
      "s=0; LD_LIBRARY_PATH=/b/core chroot $r /b/tessera doctor --json --plugin-path=/b/plugins || s=$?\n"
      "umount -l $r; rmdir $r; exit $s\n";
  g_auto(ProcResult) can = proc_run(WORDS("unshare", "-m", "mount", "-t", "tmpfs", "none", "/tmp"), NULL, 20);
  g_autofree char *build = g_path_get_dirname(tessera);
  if (SANITIZED || geteuid() != 0 || can.status != 0) {
    g_test_skip("needs root, a mount namespace, and a build without sanitizers");
    return;
  }
  g_auto(ProcResult) r = proc_run(WORDS("unshare", "-m", "/bin/sh", "-c", script, "sh", build), NULL, 60);
  g_autoptr(JsonNode) root = parse(&r, 0);
  works(root);
  expect(root, "confinement-checks", "tracing children", "limited", "/proc is missing");
  expect(root, "network-checks", "tun device", "no", "No such file");
  nothing_left();
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  proc_setup();
  tessera = g_getenv("TESSERA");
  if (!tessera || !g_getenv("ODD_PLUGINS"))
    g_error("TESSERA and ODD_PLUGINS must be set");
  g_autofree char *dir = g_path_get_dirname(tessera);
  plugins = g_build_filename(dir, "plugins", NULL); /* lives as long as the program */
  g_test_add_func("/doctor/here", test_here);
  g_test_add_func("/doctor/text", test_text);
  g_test_add_func("/doctor/nobody", test_nobody);
  g_test_add_func("/doctor/no-plugins", test_no_plugins);
  g_test_add_func("/doctor/odd-platforms", test_odd);
  g_test_add_func("/doctor/no-proc", test_no_proc);
  return g_test_run();
}
