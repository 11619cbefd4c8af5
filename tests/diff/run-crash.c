/* SPDX-License-Identifier: Apache-2.0 */
/* run-crash.c - GTest runner: kill -9 of the kernel process while the guest writes to a host directory.
 *
 * What is on the host afterwards is what some prefix of the guest's writes gives: nothing torn, nothing out of order. The last write may be
 * there in part, as when Linux kills a writer. And nothing of the sandbox stays behind.
 * Environment: CRASH_WRITER (the guest program), TESSERA, TESSERA_ARMS (tests/guest/arms.h).
 */
#include "crash.h"
#include <tests/guest/arms.h>
#include <tests/guest/run-guest.h>

#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define TIMES 4

static const char *tessera, *writer;
static char *tmp;

static void add(GPtrArray *argv, const char *text) { g_ptr_array_add(argv, g_strdup(text)); }

/* A stream of records 0, 1, 2 ... of any length; *ret_whole: how many are complete. */
static void check_stream(const char *dir, const char *name, gsize *ret_whole) {
  g_autofree char *path = g_build_filename(dir, name, NULL), *text = NULL;
  unsigned char record[RECORD];
  gsize n = 0;

  *ret_whole = 0;
  if (!g_file_get_contents(path, &text, &n, NULL)) {
    g_test_fail_printf("%s is missing", name);
    return;
  }
  for (gsize at = 0; at < n; at += RECORD) {
    crash_record(record, (unsigned)(at / RECORD));
    if (memcmp(text + at, record, MIN(RECORD, n - at)) != 0) {
      g_test_fail_printf("%s: record %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT
                         " bytes is not what was written",
                         name, at / RECORD, n);
      return;
    }
  }
  *ret_whole = n / RECORD;
}

/* One version, complete, of a round that was reached. */
static void check_whole(const char *dir, gsize rounds) {
  g_autofree char *path = g_build_filename(dir, "whole", NULL), *text = NULL;
  unsigned char record[RECORD];
  gsize n = 0;

  if (!g_file_get_contents(path, &text, &n, NULL)) {
    g_test_fail_printf("whole is missing");
    return;
  }
  for (gsize back = 1; back <= 2 && back <= rounds; back++) {
    unsigned i = (unsigned)(rounds - back);
    gsize k = 0;
    crash_record(record, i);
    while (k < n && n == (i % 50 + 1) * RECORD && memcmp(text + k, record, RECORD) == 0)
      k += RECORD;
    if (k == n && n)
      return;
  }
  g_test_fail_printf("whole (%" G_GSIZE_FORMAT " bytes) is no version of rounds %" G_GSIZE_FORMAT
                     " or %" G_GSIZE_FORMAT,
                     n, rounds - 1, rounds - 2);
}

static void check(const char *dir) {
  gsize first, second;

  check_stream(dir, "first", &first);
  check_stream(dir, "second", &second);
  if (first < second || first > second + 1)
    g_test_fail_printf("%" G_GSIZE_FORMAT " records in first, %" G_GSIZE_FORMAT " in second", first, second);
  if (first < 2)
    g_test_fail_printf("only %" G_GSIZE_FORMAT " rounds: too few to tell", first);
  else
    check_whole(dir, first);
}

static GPid start(const Arm *arm, const char *dir, int *out) {
  g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
  g_autofree char *at = g_path_get_dirname(writer), *base = g_path_get_basename(writer);
  g_autofree char *guest = g_build_filename("/mnt", base, NULL);
  g_autoptr(GError) error = NULL;
  GPid pid = 0;

  add(argv, tessera);
  add(argv, "do");
  arm_add_argv(argv, arm, dir);
  add(argv, "--ro-bind");
  add(argv, at);
  add(argv, "/mnt");
  add(argv, "--");
  add(argv, guest);
  add(argv, "/tmp");
  g_ptr_array_add(argv, NULL);
  if (!g_spawn_async_with_pipes(NULL, (char **)argv->pdata, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid,
                                NULL, out, NULL, &error))
    g_error("%s", error->message);
  return pid;
}

static void test_kill(gconstpointer data) {
  const Arm *arm = data;

  if (arm->why_not) {
    g_test_skip(arm->why_not);
    return;
  }
  for (guint i = 0; i < TIMES; i++) {
    g_autofree char *dir = arm_host_dir(arm, tmp), *strays = NULL;
    char byte;
    int out, status;
    GPid pid = start(arm, dir, &out);
    if (read(out, &byte, 1) != 1)
      g_test_fail_printf("the guest did not start");
    g_usleep((gulong)g_test_rand_int_range(50, 400) * 1000);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    strays = reap_strays(3000);
    if (strays)
      g_test_fail_printf("left behind: %s", strays);
    close(out);
    check(dir);
    remove_tree(dir);
  }
}

int main(int argc, char **argv) {
  const char *spec = g_getenv("TESSERA_ARMS");

  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  run_command_init();
  tessera = g_getenv("TESSERA");
  writer = g_getenv("CRASH_WRITER");
  if (!tessera || !writer)
    g_error("usage: TESSERA=COMMAND CRASH_WRITER=PROGRAM run-crash");
  tmp = make_host_tmp();
  GPtrArray *arms = arms_parse(tessera, spec ? spec : "*/vfs2/host systrap/vfs1/host?");
  for (guint i = 0; i < arms->len; i++) {
    const Arm *arm = arms->pdata[i];
    g_autofree char *path = g_strdup_printf("/crash/kill/%s", arm->name);
    if (g_strcmp0(arm->fs, "host") == 0)
      g_test_add_data_func(path, arm, test_kill);
  }
  int status = g_test_run();
  remove_tree(tmp);
  return status;
}
