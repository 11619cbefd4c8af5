/* SPDX-License-Identifier: Apache-2.0 */
/* The command `tessera do` on the host's own root: exit statuses, standard streams, flags, signals, the terminal, bad
 * input, and that nothing is left running or mounted, whatever ends it.
 *
 * Environment: TESSERA is the command; TESSERA_ARMS lists PLATFORM:VFS pairs (default "ptrace:vfs2 systrap:vfs2").
 */
#include "proc.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MAX_ARGS 32

typedef struct {
  char *platform, *vfs; /* flags, as in --platform=ptrace */
} Arm;

/* Builds `tessera do --platform --vfs WORDS…`; words are borrowed. */
static void command(const Arm *arm, const char *const *words, const char *out[MAX_ARGS]) {
  int n = 0;
  out[n++] = g_getenv("TESSERA");
  out[n++] = "do";
  if (arm) {
    out[n++] = arm->platform;
    out[n++] = arm->vfs;
  }
  while (*words && n < MAX_ARGS - 1)
    out[n++] = *words++;
  out[n] = NULL;
}

static ProcResult run(const Arm *arm, const char *const *words, const char *input) {
  const char *argv[MAX_ARGS];
  command(arm, words, argv);
  return proc_run(argv, input, 60);
}

static Proc start(const Arm *arm, const char *const *words) {
  const char *argv[MAX_ARGS];
  command(arm, words, argv);
  return proc_start(argv, NULL);
}

#define WORDS(...) ((const char *[]){__VA_ARGS__, NULL})
#define SH(script) WORDS("--", "/bin/sh", "-c", script)

static void nothing_left(void) {
  g_autofree char *left = proc_leftovers(3);
  if (left) {
    g_test_message("processes left behind: %s", left);
    g_test_fail();
  }
}

static void expect(const Arm *arm, const char *const *words, const char *input, int status, const char *out,
                   const char *err) {
  g_auto(ProcResult) r = run(arm, words, input);
  if (r.status != status || (out && strcmp(r.out->str, out)) || (err && strcmp(r.err->str, err))) {
    g_autofree char *line = g_strjoinv(" ", (char **)words);
    g_test_message("%s: status %d, expected %d", line, r.status, status);
    proc_show("standard output:", r.out->str, 10);
    proc_show("standard error:", r.err->str, 10);
    g_test_fail();
  }
  nothing_left();
}

static void test_status(gconstpointer arm) {
  expect(arm, WORDS("--", "/bin/true"), NULL, 0, "", "");
  expect(arm, WORDS("--", "/bin/false"), NULL, 1, "", "");
  expect(arm, WORDS("--", "/bin/busybox", "true"), NULL, 0, "", "");
  expect(arm, SH("exit 42"), NULL, 42, "", "");
  expect(arm, SH("exit 255"), NULL, 255, "", "");
  expect(arm, WORDS("--", "true"), NULL, 0, "", ""); /* found on PATH */
}

static void test_signal_status(gconstpointer arm) {
  expect(arm, SH("kill -KILL $$"), NULL, 137, "", NULL);
  expect(arm, SH("kill -TERM $$"), NULL, 143, "", NULL);
  expect(arm, SH("kill -SEGV $$"), NULL, 139, "", NULL);
  expect(arm, SH("sh -c 'kill -INT $$'"), NULL, 130, "", NULL);
}

static void test_streams(gconstpointer arm) {
  expect(arm, WORDS("--", "/bin/cat"), "one\ntwo\n", 0, "one\ntwo\n", "");
  expect(arm, SH("echo out; echo err >&2"), NULL, 0, "out\n", "err\n");
  expect(arm, WORDS("--", "/bin/cat"), "", 0, "", "");
  g_autofree char *big = g_strnfill(4 << 20, 'x');
  expect(arm, WORDS("--", "/usr/bin/wc", "-c"), big, 0, "4194304\n", "");
  expect(arm, WORDS("--", "/bin/cat"), big, 0, big, "");
  expect(arm, SH("exec 0<&- 1>&- 2>&-; exit 5"), NULL, 5, "", "");
  expect(arm, SH("[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none"), "", 0, "none\n", "");
}

/* A reader that goes away ends the writer, as it does outside. */
static void test_broken_pipe(gconstpointer arm) {
  Proc p = start(arm, WORDS("--", "/usr/bin/yes"));
  g_autoptr(GString) seen = g_string_new(NULL);
  g_assert_true(proc_until(&p, seen, "y\ny\n", 30));
  close(p.out);
  p.out = -1;
  g_auto(ProcResult) r = proc_finish(&p, NULL, 20);
  g_assert_cmpint(r.status, ==, 141);
  nothing_left();
}

static void test_flags(gconstpointer arm) {
  expect(arm, WORDS("--cwd=/usr", "--", "/bin/pwd"), NULL, 0, "/usr\n", "");
  expect(arm, WORDS("--env=TES_A=b c", "--", "/usr/bin/printenv", "TES_A"), NULL, 0, "b c\n", "");
  expect(arm, WORDS("--user=1234:4321", "--", "/bin/sh", "-c", "id -u; id -g"), NULL, 0, "1234\n4321\n", "");
  expect(arm, WORDS("--cpus=1", "--", "/usr/bin/nproc"), NULL, 0, "1\n", "");
  expect(arm, WORDS("--", "/bin/echo", "--platform=none", "-x"), NULL, 0, "--platform=none -x\n", "");
  g_auto(ProcResult) r = run(arm, WORDS("--strace", "--", "/bin/busybox", "true"), NULL);
  g_assert_cmpint(r.status, ==, 0);
  g_assert_nonnull(strstr(r.err->str, "exit_group"));
}

static void test_binds(gconstpointer arm) {
  g_autofree char *dir = g_dir_make_tmp("tessera-cli-XXXXXX", NULL);
  g_autofree char *file = g_build_filename(dir, "file", NULL), *made = g_build_filename(dir, "made", NULL);
  g_autofree char *text = NULL;
  g_assert_true(g_file_set_contents(file, "host\n", -1, NULL));
  expect(arm, WORDS("--ro-bind", dir, "/mnt", "--", "/bin/cat", "/mnt/file"), NULL, 0, "host\n", "");
  expect(arm,
         WORDS("--ro-bind", dir, "/mnt", "--", "/bin/sh", "-c", "echo x 2>&- >/mnt/made || echo refused"),
         NULL, 0, "refused\n", NULL);
  g_assert_false(g_file_test(made, G_FILE_TEST_EXISTS));
  expect(arm, WORDS("--bind", dir, "/mnt", "--", "/bin/sh", "-c", "echo guest >/mnt/made"), NULL, 0, "", "");
  g_assert_true(g_file_get_contents(made, &text, NULL, NULL));
  g_assert_cmpstr(text, ==, "guest\n");
  expect(arm, WORDS("--tmpfs", "/mnt", "--", "/bin/sh", "-c", "echo t >/mnt/x; cat /mnt/x; ls /mnt"), NULL, 0,
         "t\nx\n", "");
  g_unlink(made);
  g_unlink(file);
  g_rmdir(dir);
}

/* By default what is written to the root stays in the sandbox; /tmp, /run and /dev/shm are the sandbox's own. */
static void test_root(gconstpointer arm) {
  g_autofree char *mark = g_strdup_printf("/tmp/tessera-mark-%d", getpid());
  g_autofree char *script =
      g_strdup_printf("for d in /tmp /run /dev/shm; do ls -A $d; echo x >$d/x; cat $d/x; done; "
                      "touch %s; [ -e %s ] && echo made",
                      mark, mark);
  expect(arm, SH(script), NULL, 0, "x\nx\nx\nmade\n", "");
  g_assert_false(g_file_test(mark, G_FILE_TEST_EXISTS));
  const char *write = "for f in /etc/x /usr/x /x; do (echo >$f) 2>/dev/null && echo $f; done; echo done";
  expect(arm, WORDS("--ro", "--", "/bin/sh", "-c", write), NULL, 0, "done\n", "");
  expect(arm, SH(write), NULL, 0, "/etc/x\n/usr/x\n/x\ndone\n", "");
  g_assert_false(g_file_test("/etc/x", G_FILE_TEST_EXISTS) || g_file_test("/x", G_FILE_TEST_EXISTS));
  expect(arm, SH("mkdir /tmp/d && cd /tmp/d && echo $$ $(ls /proc | grep -c '^[0-9]') $(cat /proc/1/comm)"),
         NULL, 0, NULL, "");
}

static void forwards(gconstpointer arm, int sig, const char *name) {
  g_autofree char *script = g_strdup_printf(
      "trap 'echo got-%s; exit 3' %s; echo ready; i=0; while [ $i -lt 400 ]; do sleep 0.05; i=$((i+1)); done",
      name, name);
  Proc p = start(arm, SH(script));
  g_autoptr(GString) seen = g_string_new(NULL);
  g_assert_true(proc_until(&p, seen, "ready\n", 30));
  kill(p.pid, sig);
  g_assert_true(proc_until(&p, seen, "got-", 10));
  g_auto(ProcResult) r = proc_finish(&p, NULL, 10);
  g_assert_cmpint(r.status, ==, 3);
  nothing_left();

  Proc q = start(arm, SH("echo ready; exec sleep 30"));
  g_string_truncate(seen, 0);
  g_assert_true(proc_until(&q, seen, "ready\n", 30));
  kill(q.pid, sig);
  g_auto(ProcResult) s = proc_finish(&q, NULL, 10);
  g_assert_cmpint(s.status, ==, 128 + sig);
  nothing_left();
}

static void test_forward(gconstpointer arm) {
  forwards(arm, SIGTERM, "TERM");
  forwards(arm, SIGINT, "INT");
}

/* A tree of guest processes and threads that would live for a long time. */
static Proc start_busy(const Arm *arm) {
  Proc p = start(
      arm, SH("sleep 300 & sleep 300 & (while :; do :; done) & (sh -c 'sleep 300 | sleep 300') & sleep 0.3; "
              "echo ready; wait"));
  g_autoptr(GString) seen = g_string_new(NULL);
  g_assert_true(proc_until(&p, seen, "ready\n", 30));
  return p;
}

static int threads(pid_t pid) {
  g_autofree char *path = g_strdup_printf("/proc/%d/task", pid);
  g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
  int n = 0;
  while (dir && g_dir_read_name(dir))
    n++;
  return n;
}

static void test_kill(gconstpointer arm) {
  Proc p = start_busy(arm);
  kill(p.pid, SIGKILL);
  g_auto(ProcResult) r = proc_finish(&p, NULL, 10);
  g_assert_cmpint(r.status, ==, 137);
  nothing_left();
}

/* The kernel process is the one with the threads; it may or may not be the process that was started. */
static void test_kill_kernel(gconstpointer arm) {
  Proc p = start_busy(arm);
  g_autoptr(GArray) pids = proc_descendants(p.pid);
  pid_t kernel = p.pid;
  for (guint i = 0; i < pids->len; i++)
    if (threads(g_array_index(pids, pid_t, i)) > threads(kernel))
      kernel = g_array_index(pids, pid_t, i);
  kill(kernel, SIGKILL);
  g_auto(ProcResult) r = proc_finish(&p, NULL, 10);
  g_assert_cmpint(r.status, !=, 0);
  g_assert_cmpint(r.status, !=, -1);
  nothing_left();
}

/* When the first process ends, so does the sandbox, whatever still runs in it. */
static void test_orphans(gconstpointer arm) {
  expect(arm, SH("sleep 300 >/dev/null 2>&1 & (while :; do :; done) >/dev/null 2>&1 & exit 6"), NULL, 6, "",
         "");
}

static void test_parallel(gconstpointer arm) {
  Proc p[6];
  for (guint i = 0; i < G_N_ELEMENTS(p); i++)
    p[i] = start(arm, SH("read x; echo $x; exit $x"));
  for (guint i = 0; i < G_N_ELEMENTS(p); i++) {
    g_autofree char *text = g_strdup_printf("%u\n", i + 10);
    g_auto(ProcResult) r = proc_finish(&p[i], text, 60);
    g_assert_cmpstr(r.out->str, ==, text);
    g_assert_cmpint(r.status, ==, (int)i + 10);
  }
  nothing_left();
}

/* One conversation with an interactive bash; natively with front == NULL, which proves the conversation itself. */
static void converse(const Arm *arm) {
  static const struct {
    const char *say, *see;
    gboolean settle; /* wait for the prompt afterwards */
  } lines[] = {
      /* perl, because a shell catches SIGINT and loses it when it arrives just before an exec. */
      {"echo $((6*7))\n", "42", TRUE},
      {"[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo ter\"\"minal\n", "terminal", TRUE},
      {"perl -e '$|=1; print \"be\", \"gin\"; sleep 100'\n", "begin", FALSE},
      {"\003", "ready> ", FALSE},
      {"echo st-$?\n", "st-130", TRUE},
      {"perl -e '$|=1; print \"be\", \"gin\"; sleep 101'\n", "begin", FALSE},
      {"\032", "Stopped", TRUE},
      {"jobs\n", "Stopped", TRUE},
      {"bg\n", "sleep 101' &", TRUE},
      {"jobs\n", "Running", TRUE},
      {"fg\n", "sleep 101'", FALSE},
      {"\003", "ready> ", FALSE},
      {"cat | tr a-z A-Z\n", "\n", FALSE},
      {"upper\n\004", "UPPER", TRUE},
      {"cat & until jobs | grep -q S''topped; do sleep 0.1; done; jobs; kill %1\n", "Stopped", TRUE},
      {"stty size\n", "24 80", TRUE},
  };
  const char *argv[MAX_ARGS];
  const char *const shell[] = {"/usr/bin/env", "PS1=ready> ", "/bin/bash", "--norc",
                               "--noprofile",  "--noediting", "-i",        NULL};
  if (arm)
    command(
        arm,
        WORDS("--", "/usr/bin/env", "PS1=ready> ", "/bin/bash", "--norc", "--noprofile", "--noediting", "-i"),
        argv);
  Proc p = proc_start_terminal(arm ? argv : shell);
  struct termios before, after;
  g_autoptr(GString) seen = g_string_new(NULL);
  g_assert_cmpint(tcgetattr(p.in, &before), ==, 0);
  gboolean ok = proc_until(&p, seen, "ready> ", 30);
  for (guint i = 0; ok && i < G_N_ELEMENTS(lines); i++) {
    /* A job that fg announced may not have the terminal yet: a control key is pressed again. */
    gboolean key = lines[i].say[0] < ' ';
    ok = FALSE;
    for (int tries = key ? 10 : 1; tries > 0 && !ok; tries--) {
      proc_write(&p, lines[i].say);
      ok = proc_until(&p, seen, lines[i].see, key ? 2 : 20);
    }
    ok = ok && (!lines[i].settle || proc_until(&p, seen, "ready> ", 20));
    if (!ok) {
      g_autofree char *said = g_strescape(lines[i].say, NULL), *got = g_strescape(seen->str, NULL);
      g_test_message("after \"%s\", expected \"%s\", got \"%s\"", said, lines[i].see, got);
    }
  }
  if (ok) {
    ioctl(p.in, TIOCSWINSZ, &(struct winsize){.ws_row = 33, .ws_col = 99});
    g_usleep(200000);
    proc_write(&p, "stty size\n");
    ok = proc_until(&p, seen, "33 99", 20) && proc_until(&p, seen, "ready> ", 20);
  }
  proc_write(&p, "exit 7\n");
  g_auto(ProcResult) r = proc_finish(&p, NULL, ok ? 20 : 2);
  g_assert_true(ok);
  g_assert_cmpint(r.status, ==, 7);
  nothing_left();

  /* A program that dies in raw mode, and a command that is killed by a signal: the terminal is as it was. */
  if (!arm)
    return;
  command(arm, SH("stty raw -echo; echo r\"\"aw; sleep 30"), argv);
  Proc q = proc_start_terminal(argv);
  g_assert_cmpint(tcgetattr(q.in, &before), ==, 0);
  g_string_truncate(seen, 0);
  g_assert_true(proc_until(&q, seen, "raw", 30));
  kill(q.pid, SIGTERM);
  int status;
  for (int i = 0; i < 1000 && waitpid(q.pid, &status, WNOHANG) == 0; i++)
    g_usleep(10000);
  g_assert_cmpint(tcgetattr(q.in, &after), ==, 0);
  g_assert_cmpint(after.c_lflag, ==, before.c_lflag);
  g_assert_cmpint(after.c_oflag, ==, before.c_oflag);
  g_assert_cmpint(after.c_iflag, ==, before.c_iflag);
  close(q.in);
  nothing_left();
}

static void test_terminal_native(void) { converse(NULL); }
static void test_terminal(gconstpointer arm) { converse(arm); }

/* Bad input: the status, nothing on standard output, and one line on standard error that names the thing. */
static void refuse(const char *const *words, int status, const char *named) {
  g_auto(ProcResult) r = run(NULL, words, NULL);
  const char *newline = strchr(r.err->str, '\n');
  gboolean one_line = newline && newline[1] == 0 && newline > r.err->str;
  if (r.status != status || r.out->len || !one_line || !strstr(r.err->str, named)) {
    g_autofree char *line = g_strjoinv(" ", (char **)words);
    g_test_message("do %s: status %d, expected %d and one line that names %s", line, r.status, status, named);
    proc_show("standard output:", r.out->str, 10);
    proc_show("standard error:", r.err->str, 10);
    g_test_fail();
  }
  nothing_left();
}

static void test_bad_flags(void) {
  refuse(WORDS("--platform=nosuch", "--", "/bin/true"), 125, "nosuch");
  refuse(WORDS("--vfs=nosuch", "--", "/bin/true"), 125, "nosuch");
  refuse(WORDS("--vfs=nosuch", "--", "/bin/true"), 125, "vfs1, vfs1:2018, vfs2");
  refuse(WORDS("--dcache=0", "--", "/bin/true"), 125, "dcache");
  refuse(WORDS("--trace=nosuch", "--", "/bin/true"), 125, "nosuch");
  refuse(WORDS("--plugin-path=/no/such/dir", "--", "/bin/true"), 125, "/no/such/dir");
  refuse(WORDS("--no-such-flag", "--", "/bin/true"), 125, "no-such-flag");
  refuse(WORDS("--root=/no/such/root", "--", "/bin/true"), 125, "/no/such/root");
  refuse(WORDS("--root=/etc/passwd", "--", "/bin/true"), 125, "/etc/passwd");
  refuse(WORDS("--user=who:what", "--", "/bin/true"), 125, "who");
  refuse(WORDS("--cpus=0", "--", "/bin/true"), 125, "cpus");
  refuse(WORDS("--cpus=many", "--", "/bin/true"), 125, "many");
  refuse(WORDS("--cwd=/no/such/cwd", "--", "/bin/true"), 125, "/no/such/cwd");
  refuse(WORDS("--ro-bind", "/no/such/src", "/mnt", "--", "/bin/true"), 125, "/no/such/src");
  refuse(WORDS("--"), 125, "program");
}

static void test_bad_program(void) {
  refuse(WORDS("--", "/no/such/program"), 127, "/no/such/program");
  refuse(WORDS("--", "no-such-program-on-path"), 127, "no-such-program-on-path");
  refuse(WORDS("--", "/etc/passwd"), 126, "/etc/passwd");
  refuse(WORDS("--", "/etc"), 126, "/etc");
}

/* Files that are executable, but not by this machine. */
static void test_bad_elf(void) {
  g_autofree char *dir = g_dir_make_tmp("tessera-cli-XXXXXX", NULL);
  g_autofree char *flag = g_strdup_printf("--root=%s", dir);
  guint8 arm[4096] = {0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 2, [18] = 183, [20] = 1};
  struct {
    const char *name;
    gconstpointer bytes;
    gssize size;
  } files[] = {{"aarch64", arm, sizeof arm}, {"cut", arm, 20}, {"binary", "\1\2\3\4\5", 5}, {"empty", "", 0}};
  static const char *const dirs[] = {"tmp", "run", "proc", "dev", "sys"};
  for (guint i = 0; i < G_N_ELEMENTS(dirs); i++) {
    g_autofree char *path = g_build_filename(dir, dirs[i], NULL);
    g_mkdir(path, 0755);
  }
  for (guint i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *path = g_build_filename(dir, files[i].name, NULL),
                    *inside = g_strconcat("/", files[i].name, NULL);
    g_assert_true(g_file_set_contents(path, files[i].bytes, files[i].size, NULL));
    g_chmod(path, 0755);
    refuse(WORDS(flag, "--", inside), 126, files[i].name);
    g_unlink(path);
  }
  for (guint i = 0; i < G_N_ELEMENTS(dirs); i++) {
    g_autofree char *path = g_build_filename(dir, dirs[i], NULL);
    g_rmdir(path);
  }
  g_rmdir(dir);
}

/* A directory of plugins that holds a file which is none. */
static void test_bad_plugin(void) {
  g_autofree char *dir = g_dir_make_tmp("tessera-cli-XXXXXX", NULL);
  g_autofree char *flag = g_strdup_printf("--plugin-path=%s", dir),
                  *path = g_build_filename(dir, "junk.so", NULL);
  g_assert_true(g_file_set_contents(path, "not a plugin", -1, NULL));
  refuse(WORDS(flag, "--", "/bin/true"), 125, "junk.so");
  g_unlink(path);
  g_rmdir(dir);
}

static void says(const char *const *words, const char *named) {
  const char *argv[MAX_ARGS] = {g_getenv("TESSERA")};
  for (int i = 0; words[i] && i < MAX_ARGS - 2; i++)
    argv[i + 1] = words[i];
  g_auto(ProcResult) r = proc_run(argv, NULL, 30);
  if (r.status != 0 || !strstr(r.out->str, named) || r.err->len) {
    g_test_message("tessera %s: status %d, expected 0 and a mention of %s", words[0], r.status, named);
    proc_show("standard output:", r.out->str, 5);
    proc_show("standard error:", r.err->str, 5);
    g_test_fail();
  }
}

static void test_verbs(void) {
  says(WORDS("--version"), "tessera");
  says(WORDS("--help"), "do");
  says(WORDS("do", "--help"), "--platform");
  says(WORDS("plugins"), "ptrace");
  says(WORDS("plugins", "--json"), "\"ptrace\"");
  says(WORDS("syscalls"), "openat");
  says(WORDS("syscalls", "--format=csv"), "openat,");
  says(WORDS("syscalls", "--format=json"), "\"openat\"");
  g_auto(ProcResult) r = proc_run(WORDS(g_getenv("TESSERA"), "nosuchverb"), NULL, 30);
  g_assert_cmpint(r.status, ==, 125);
  g_assert_nonnull(strstr(r.err->str, "nosuchverb"));
}

/* What was mounted before everything above is what is mounted now. */
static char *mounts_before;
static void test_mounts(void) {
  g_autofree char *now = NULL;
  g_assert_true(g_file_get_contents("/proc/self/mountinfo", &now, NULL, NULL));
  g_assert_cmpstr(now, ==, mounts_before);
}

static guint count_lines(const char *text, const char *needle) {
  guint n = 0;
  for (const char *p = text; (p = strstr(p, needle)); p++)
    n++;
  return n;
}

/* W1: the choice is the sandbox's own, and its log names it. */
static void test_generations(void) {
  static const char *const flags[] = {"--vfs=vfs1", "--vfs=vfs1:2018", "--vfs=vfs2"},
                           *const says[] = {"Setting up VFS1...", "Setting up VFS1:2018...",
                                            "Setting up VFS2..."};
  for (guint i = 0; i < G_N_ELEMENTS(flags); i++) {
    g_auto(ProcResult) r = run(NULL, WORDS(flags[i], "--", "/bin/busybox", "dmesg"), NULL);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_nonnull(strstr(r.out->str, says[i]));
  }
}

/* V3, W7: a path of four names is four lookups in a directory, or one. */
static void test_trace_path(void) {
  g_autofree char *dir = g_dir_make_tmp("tessera-cli-XXXXXX", NULL);
  g_autofree char *deep = g_build_filename(dir, "tes-a", "tes-b", "tes-c", "tes-d", NULL);
  g_assert_cmpint(g_mkdir_with_parents(deep, 0755), ==, 0);
  static const struct {
    const char *flag;
    guint lookups;
  } cases[] = {{"--vfs=vfs1", 4}, {"--vfs=vfs1:2018", 4}, {"--vfs=vfs2", 1}};
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_auto(ProcResult) r = run(NULL,
                               WORDS(cases[i].flag, "--trace=path", "--ro-bind", dir, "/mnt", "--",
                                     "/bin/busybox", "ls", "-d", "/mnt/tes-a/tes-b/tes-c/tes-d"),
                               NULL);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(count_lines(r.err->str, "path: asked host for tes-"), ==, cases[i].lookups);
    g_assert_nonnull(strstr(r.err->str, "lookups asked for"));
  }
  for (char *end; (end = strrchr(deep, '/')) && strlen(deep) > strlen(dir); *end = '\0')
    g_rmdir(deep);
  g_rmdir(dir);
}

static void add_arm(const char *name) {
  static const struct {
    const char *name;
    GTestDataFunc fn;
  } tests[] = {
      {"status", test_status},     {"signal-status", test_signal_status},
      {"streams", test_streams},   {"broken-pipe", test_broken_pipe},
      {"flags", test_flags},       {"binds", test_binds},
      {"root", test_root},         {"forward", test_forward},
      {"kill", test_kill},         {"kill-kernel", test_kill_kernel},
      {"orphans", test_orphans},   {"parallel", test_parallel},
      {"terminal", test_terminal},
  };
  g_auto(GStrv) parts = g_strsplit(name, ":", 2);
  Arm *arm = g_new0(Arm, 1); /* lives as long as the program */
  arm->platform = g_strdup_printf("--platform=%s", parts[0]);
  arm->vfs = g_strdup_printf("--vfs=%s", parts[1] ? parts[1] : "vfs2");
  for (guint i = 0; i < G_N_ELEMENTS(tests); i++) {
    g_autofree char *path = g_strdup_printf("/cli/%s/%s", name, tests[i].name);
    g_test_add_data_func(path, arm, tests[i].fn);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  proc_setup();
  g_file_get_contents("/proc/self/mountinfo", &mounts_before, NULL, NULL);
  g_test_add_func("/cli/terminal-native", test_terminal_native);
  const char *arms = g_getenv("TESSERA_ARMS");
  g_auto(GStrv) list = g_strsplit(arms && *arms ? arms : "ptrace:vfs2 systrap:vfs2", " ", -1);
  gboolean any = FALSE;
  for (char **a = list; *a; a++)
    if (**a && !g_str_equal(*a, "none")) {
      if (!any && !g_file_test(g_getenv("TESSERA") ?: "", G_FILE_TEST_IS_EXECUTABLE))
        g_error("TESSERA does not name the command");
      add_arm(*a);
      any = TRUE;
    }
  if (any) {
    g_test_add_func("/cli/verbs", test_verbs);
    g_test_add_func("/cli/generations", test_generations);
    g_test_add_func("/cli/trace-path", test_trace_path);
    g_test_add_func("/cli/bad/flags", test_bad_flags);
    g_test_add_func("/cli/bad/program", test_bad_program);
    g_test_add_func("/cli/bad/elf", test_bad_elf);
    g_test_add_func("/cli/bad/plugin", test_bad_plugin);
  }
  g_test_add_func("/cli/after/mounts", test_mounts);
  return g_test_run();
}
