/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera compare`: it says "the same" where nothing differs, and finds each kind of difference. Environment: TESSERA. */
#include "proc.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define WORDS(...) ((const char *[]){__VA_ARGS__, NULL})

static const char *tessera;

static ProcResult compare(const char *const *words) {
  const char *argv[32] = {tessera, "compare"};
  for (int i = 2; *words && i < 31; i++)
    argv[i] = *words++;
  return proc_run(argv, NULL, 120);
}

static void has(const ProcResult *r, const char *text) {
  if (strstr(r->out->str, text))
    return;
  g_test_message("not found: %s", text);
  proc_show("standard output:", r->out->str, 60);
  proc_show("standard error:", r->err->str, 10);
  g_test_fail();
}

static void nothing_left(void) {
  g_autofree char *left = proc_leftovers(3);
  g_assert_cmpstr(left, ==, NULL);
}

#define ARMS "--a", "platform=ptrace", "--b", "platform=ptrace,hostname=other"

static void test_same(void) {
  g_auto(ProcResult) r =
      compare(WORDS("--runs=1", ARMS, "--", "sh", "-c", "echo out; echo err >&2; echo x > file; exit 3"));
  g_assert_cmpint(r.status, ==, 0);
  has(&r, "exited with 3");
  has(&r, "exit status: the same");
  has(&r, "standard output: the same");
  has(&r, "standard error: the same");
  has(&r, "file tree: the same");
  has(&r, "system calls: the same");
  nothing_left();
}

static void test_output_and_tree(void) {
  g_auto(ProcResult) r =
      compare(WORDS("--runs=1", ARMS, "--", "sh", "-c",
                    "echo 1; uname -n; uname -n > file; touch $(uname -n); test $(uname -n) = other"));
  g_assert_cmpint(r.status, ==, 1);
  has(&r, "exit status: differs");
  has(&r, "standard output: differs in line 2: ");
  has(&r, "standard error: the same");
  has(&r, "file: mode 0644, owner 0:0, file of ");
  has(&r, "only in platform=ptrace,hostname=other: other: mode 0644");
  nothing_left();
}

static void test_calls(void) {
  g_auto(ProcResult) r =
      compare(WORDS("--runs=1", "--a", "platform=ptrace", "--b", "platform=ptrace,user=1234", "--", "sh",
                    "-c", "chown 77 /tmp/x 2>/dev/null; : > /tmp/x; chown 77 /tmp/x 2>/dev/null; exit 0"));
  g_assert_cmpint(r.status, ==, 0);
  has(&r, "fchownat(AT_FDCWD, \"/tmp/x\", 77, -1, 0): 0, -1 EPERM");
  nothing_left();
}

static void test_host_and_page(void) {
  g_autofree char *page = g_build_filename(g_get_tmp_dir(), "run-compare-XXXXXX.html", NULL);
  int fd = g_mkstemp(page);
  g_assert_cmpint(fd, >=, 0);
  close(fd);
  g_autofree char *html = g_strconcat("--html=", page, NULL), *text = NULL;
  g_auto(ProcResult) r = compare(
      WORDS("--runs=1", "--a", "platform=ptrace", "--host", html, "--", "sh", "-c", "echo '<&>' > f; cat f"));
  g_assert_cmpint(r.status, ==, 0);
  has(&r, "platform=ptrace and host");
  g_assert_true(g_file_get_contents(page, &text, NULL, NULL));
  g_assert_nonnull(strstr(text, "echo &apos;&lt;&amp;&gt;&apos;")
                       ?: strstr(text, "echo &#39;&lt;&amp;&gt;&#39;"));
  g_assert_nonnull(strstr(text, "openat"));
  g_assert_nonnull(strstr(text, "</html>"));
  g_assert_null(strstr(text, "http")); /* nothing is fetched */
  g_assert_null(strstr(text, "<script"));
  g_unlink(page);
  nothing_left();
}

static void test_tree_copied(void) {
  g_autofree char *dir = g_dir_make_tmp("run-compare-XXXXXX", NULL),
                  *file = g_build_filename(dir, "given", NULL);
  g_assert_true(g_file_set_contents(file, "text\n", -1, NULL));
  g_autofree char *tree = g_strconcat("--tree=", dir, NULL), *after = NULL;
  g_auto(ProcResult) r = compare(
      WORDS("--runs=2", "--no-trace", tree, ARMS, "--", "sh", "-c", "cat given && echo more >> given"));
  g_assert_cmpint(r.status, ==, 0);
  has(&r, "system calls: not compared: --no-trace");
  g_assert_true(g_file_get_contents(file, &after, NULL, NULL));
  g_assert_cmpstr(after, ==, "text\n");
  g_unlink(file);
  g_rmdir(dir);
}

static void test_refusals(void) {
  static const char *const bad[][5] = {{"--", "true"},
                                       {"--a", "vfs=vfs2", "--", "true"},
                                       {"--a", "--vfs=vfs2", "--host", "--", "true"},
                                       {"--runs=0", "--host", "--", "true"},
                                       {"--tree=/nonexistent", "--host", "--", "true"},
                                       {"--a=vfs=nosuch", "--host", "--", "true"}};
  for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
    const char *words[6] = {NULL};
    memcpy(words, bad[i], sizeof bad[i]);
    g_auto(ProcResult) r = compare(words);
    g_assert_cmpint(r.status, ==, 125);
    g_assert_cmpstr(r.out->str, ==, "");
    g_assert_true(g_str_has_prefix(r.err->str, "tessera: "));
    g_assert_true(strchr(r.err->str, '\n') == r.err->str + r.err->len - 1); /* one line */
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  proc_setup();
  tessera = g_getenv("TESSERA");
  g_test_add_func("/compare/same", test_same);
  g_test_add_func("/compare/output-and-tree", test_output_and_tree);
  g_test_add_func("/compare/calls", test_calls);
  g_test_add_func("/compare/host-and-page", test_host_and_page);
  g_test_add_func("/compare/tree-copied", test_tree_copied);
  g_test_add_func("/compare/refusals", test_refusals);
  return g_test_run();
}
