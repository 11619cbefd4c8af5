/* SPDX-License-Identifier: Apache-2.0 */
/* Seeing inside: --strace=FILTER, --inject, --stats and --trace=json of `tessera do`, on the host's own root.
 *
 * Environment: TESSERA is the command; TESSERA_ARMS lists PLATFORM:VFS pairs (default "ptrace:vfs2 systrap:vfs2").
 */
#include "proc.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

#define MAX_ARGS 32
#define WORDS(...) ((const char *[]){__VA_ARGS__, NULL})

typedef struct {
  char *platform, *vfs;
} Arm;

static ProcResult run(const Arm *arm, const char *const *words, const char *input) {
  const char *argv[MAX_ARGS];
  int n = 0;
  argv[n++] = g_getenv("TESSERA");
  argv[n++] = "do";
  argv[n++] = arm->platform;
  argv[n++] = arm->vfs;
  while (*words && n < MAX_ARGS - 1)
    argv[n++] = *words++;
  argv[n] = NULL;
  return proc_run(argv, input, 60);
}

/* Runs `script` with a flag and looks at all that it says. */
static void expect(const Arm *arm, const char *flag, const char *script, int status, const char *out) {
  g_auto(ProcResult) r = run(arm, WORDS(flag, "--", "/bin/bash", "-c", script), NULL);
  if (r.status != status || strcmp(r.out->str, out)) {
    g_test_message("%s: %s: status %d, expected %d", flag, script, r.status, status);
    proc_show("standard output:", r.out->str, 10);
    proc_show("standard error:", r.err->str, 10);
    g_test_fail();
  }
}

/* ---- Filters ---- */

/* Every call in the text, as a set of names. */
static GHashTable *names_in(const char *text) {
  GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **l = lines; *l; l++) {
    const char *s = strstr(*l, "] "), *paren = s ? strchr(s, '(') : NULL;
    if (paren && !g_str_has_prefix(s, "] ---") && !g_str_has_prefix(s, "] +++"))
      g_hash_table_add(names, g_strndup(s + 2, (gsize)(paren - s - 2)));
  }
  return names;
}

/* With `filter` the trace has the calls `has` and none of `lacks` (words). */
static void filter_case(const Arm *arm, const char *filter, const char *has, const char *lacks) {
  g_autofree char *flag = g_strdup_printf("--strace=%s", filter);
  g_auto(ProcResult) r = run(arm, WORDS(flag, "--", "/bin/cat", "/etc/passwd"), NULL);
  g_assert_cmpint(r.status, ==, 0);
  g_autoptr(GHashTable) names = names_in(r.err->str);
  g_auto(GStrv) want = g_strsplit(has, " ", -1), not = g_strsplit(lacks, " ", -1);
  for (char **w = want; *w; w++)
    if (**w && !g_hash_table_contains(names, *w)) {
      g_test_message("%s does not show %s", flag, *w);
      g_test_fail();
    }
  for (char **w = not ; *w; w++)
    if (**w && g_hash_table_contains(names, *w)) {
      g_test_message("%s shows %s", flag, *w);
      g_test_fail();
    }
}

static void test_filter(gconstpointer arm) {
  filter_case(arm, "openat", "openat", "read write close mmap exit_group");
  filter_case(arm, "openat,read", "openat read", "write close mmap");
  filter_case(arm, "!openat,read", "write close mmap exit_group", "openat read");
  filter_case(arm, "%file", "openat", "read mmap close exit_group");
  filter_case(arm, "%desc", "openat read close mmap", "exit_group brk");
  filter_case(arm, "%process", "exit_group", "openat read mmap");
  filter_case(arm, "%memory", "mmap brk", "openat read exit_group");
  filter_case(arm, "%network,%ipc,%signal", "", "openat read mmap exit_group");
  filter_case(arm, "/^exit", "exit_group", "openat read mmap");
  filter_case(arm, "?nosuchcall,close", "close", "openat read mmap");
  filter_case(arm, "all", "openat read close mmap exit_group", "");
  filter_case(arm, "none", "", "openat read close mmap exit_group");
}

/* ---- Fault injection ---- */

static void test_inject(gconstpointer arm) {
  const char *three = "for i in 1 2 3 4; do echo $i >/tmp/f$i; done 2>/dev/null; cd /tmp; echo *";
  expect(arm, "--inject=openat:ENOSPC:when=2+,path=/tmp/f*", three, 0, "f1\n");
  expect(arm, "--inject=openat:ENOSPC:when=2,path=/tmp/f*", three, 0, "f1 f3 f4\n");
  expect(arm, "--inject=openat:ENOSPC:when=1..3,path=/tmp/f*", three, 0, "f4\n");
  expect(arm, "--inject=openat:error=28:when=2..3+,path=/tmp/f*", three, 0, "f1 f4\n");
  expect(arm, "--inject=openat:ENOSPC:when=1+2,path=/tmp/f*", three, 0, "f2 f4\n");
  expect(arm, "--inject=openat:ENOSPC:when=1..2+2,path=/tmp/f*", three, 0, "f2 f3 f4\n");
  expect(arm, "--inject=%file:EIO:path=/tmp/f3", three, 0, "f1 f2 f4\n");
  expect(arm, "--inject=%file:path=/tmp/f3:error=EIO", three, 0, "f1 f2 f4\n");
  expect(arm, "--inject=openat:ENOSPC:path=/tmp/x",
         "cd /tmp; echo a 2>/dev/null >./y/../x; echo a >y; echo *", 0, "y\n");
  /* by descriptor; and the message */
  expect(arm, "--inject=write:EDQUOT:path=/tmp/x", "echo a 2>&1 >/tmp/x | sed 's/.*: //'; echo b", 0,
         "Disk quota exceeded\nb\n");
}

/* getpgid(2) is the call: nothing but the script makes it. */
static void perl(const Arm *arm, const char *flag, const char *script, int status, const char *out) {
  g_auto(ProcResult) r = run(arm, WORDS(flag, "--", "/usr/bin/perl", "-e", script), NULL);
  if (r.status != status || strcmp(r.out->str, out)) {
    g_test_message("%s: status %d, expected %d", flag, r.status, status);
    proc_show("standard output:", r.out->str, 10);
    proc_show("standard error:", r.err->str, 10);
    g_test_fail();
  }
}

static void test_inject_result(gconstpointer arm) {
  perl(arm, "--inject=getpgid:retval=4242", "print syscall(121, 0)", 0, "4242");
  perl(arm, "--inject=getpgid:ESRCH:when=2", "print syscall(121, 0) < 0 ? $!{ESRCH} : 0 for 1 .. 3", 0,
       "010");
  perl(arm, "--inject=getpgid:signal=SIGUSR1:when=3",
       "$SIG{USR1} = sub { print \"usr1 \" }; for (1 .. 4) { syscall(121, 0); print \"$_ \" }", 0,
       "1 2 usr1 3 4 ");
  perl(arm, "--inject=getpgid:signal=USR1:retval=9",
       "$SIG{USR1} = sub { print \"usr1 \" }; print syscall(121, 0)", 0, "9usr1 ");
  perl(arm, "--inject=getpgid:signal=KILL", "syscall(121, 0); print \"no\"", 137, "");
}

/* A child's calls count from 1. */
static void test_inject_per_task(gconstpointer arm) {
  perl(arm, "--inject=getpgid:retval=7:when=2",
       "$| = 1; sub f { print syscall(121, 0) == 7 ? 1 : 0 } f; if (!fork) { f; f; exit } wait; f; f", 0,
       "00110");
}

static void test_inject_several(gconstpointer arm) {
  g_auto(ProcResult) r =
      run(arm,
          WORDS("--inject=openat:EACCES:path=/tmp/a", "--inject=openat:EROFS:path=/tmp/b*", "--strace=openat",
                "--", "/bin/bash", "-c", "echo >/tmp/a; echo >/tmp/bc; echo >/tmp/c"),
          NULL);
  g_assert_nonnull(strstr(r.err->str, "/tmp/a: Permission denied"));
  g_assert_nonnull(strstr(r.err->str, "/tmp/bc: Read-only file system"));
  g_assert_nonnull(strstr(r.err->str, "= -1 EROFS (Read-only file system) (INJECTED)\n"));
  g_assert_null(strstr(r.err->str, "/tmp/c: "));
}

static gint64 time_of(const Arm *arm, const char *flag) {
  gint64 began = g_get_monotonic_time();
  perl(arm, flag, "syscall(121, 0) for 1 .. 5", 0, "");
  return g_get_monotonic_time() - began;
}

static void test_delay(gconstpointer arm) {
  g_assert_cmpint(time_of(arm, "--inject=getpgid:delay_enter=200000:when=1..3+"), >=, 600000);
  g_assert_cmpint(time_of(arm, "--inject=getpgid:delay_exit=300ms:delay_enter=1s:when=2"), >=, 1300000);
  /* Not the other calls: they would be 30 s. */
  g_assert_cmpint(time_of(arm, "--inject=getpgid:delay_enter=10s:when=6+"), <, 10000000);
}

/* Programs that handle EINTR as POSIX has it do not notice. The first reads are the dynamic linker's, which does not. */
static void test_eintr(gconstpointer arm) {
  expect(arm, "--inject=wait4:EINTR:when=1+2", "for i in 1 2 3; do /bin/true; echo $(echo $i | cat); done", 0,
         "1\n2\n3\n");
  expect(arm, "--inject=read:EINTR:when=20+2", "seq 200 | { while read x; do s=$((s + x)); done; echo $s; }",
         0, "20100\n");
  g_auto(ProcResult) r = run(arm,
                             WORDS("--inject=read,write,poll,select,wait4:EINTR:when=20+2", "--stats", "--",
                                   "/usr/bin/python3", "-c",
                                   "import os, subprocess\n"
                                   "r, w = os.pipe()\n"
                                   "for i in range(100):\n"
                                   "  os.write(w, b'x'); assert os.read(r, 9) == b'x'\n"
                                   "for i in range(40): assert subprocess.call(['/bin/true']) == 0\n"
                                   "print('done')"),
                             NULL);
  g_assert_cmpstr(r.out->str, ==, "done\n");
}

static void bad(const Arm *arm, const char *flag, const char *says) {
  g_auto(ProcResult) r = run(arm, WORDS(flag, "--", "/bin/true"), NULL);
  const char *newline = strchr(r.err->str, '\n');
  g_assert_cmpint(r.status, ==, 125);
  g_assert_true(newline && !newline[1]);
  if (!strstr(r.err->str, says)) {
    proc_show(flag, r.err->str, 5);
    g_test_fail();
  }
}

static void test_bad(gconstpointer arm) {
  bad(arm, "--strace=nosuch", "no system call \"nosuch\"");
  bad(arm, "--strace=%nosuch", "no system call \"%nosuch\"");
  bad(arm, "--inject=nosuch:EIO", "no system call \"nosuch\"");
  bad(arm, "--inject=read", "expected CALL");
  bad(arm, "--inject=read:EWHAT", "\"EWHAT\"");
  bad(arm, "--inject=read:0", "\"0\"");
  bad(arm, "--inject=read:EIO:EIO", "twice");
  bad(arm, "--inject=read:EIO:retval=3", "twice");
  bad(arm, "--inject=read:retval=-1", "retval=-1");
  bad(arm, "--inject=read:EIO:when=0", "when=0");
  bad(arm, "--inject=read:EIO:when=3..2", "when=3..2");
  bad(arm, "--inject=read:EIO:when=3x", "when=3x");
  bad(arm, "--inject=read:signal=SIGWHAT", "SIGWHAT");
  bad(arm, "--inject=read:delay_enter=x", "delay_enter=x");
  bad(arm, "--inject=read:path=/x", "nothing to inject");
  bad(arm, "--stats=/nosuch/file", "/nosuch/file");
}

/* ---- Statistics ---- */

typedef struct {
  guint64 calls, errors, injected;
  double kernel, blocked;
} Row;

static gboolean find_row(const char *text, const char *name, Row *row) {
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **l = lines; *l; l++) {
    char word[64];
    double each;
    if (sscanf(*l, "%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %lf %lf %lf %63s",
               &row->calls, &row->errors, &row->injected, &row->kernel, &row->blocked, &each, word) == 7 &&
        g_str_equal(word, name))
      return TRUE;
  }
  return FALSE;
}

static Row row_of(const char *text, const char *name) {
  Row row = {0};
  if (!find_row(text, name, &row)) {
    proc_show(name, text, 60);
    g_test_fail();
  }
  return row;
}

static void check_sums(const char *text) {
  Row sum = {0}, total = row_of(text, "total");
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **l = lines; *l; l++) {
    Row r;
    double each;
    char word[64];
    if (sscanf(*l, "%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %lf %lf %lf %63s",
               &r.calls, &r.errors, &r.injected, &r.kernel, &r.blocked, &each, word) != 7 ||
        g_str_equal(word, "total"))
      continue;
    sum.calls += r.calls;
    sum.errors += r.errors;
    sum.kernel += r.kernel;
    sum.blocked += r.blocked;
  }
  g_assert_cmpuint(sum.calls, ==, total.calls);
  g_assert_cmpuint(sum.errors, ==, total.errors);
  g_assert_cmpfloat_with_epsilon(sum.kernel, total.kernel, 1e-3);
  g_assert_cmpfloat_with_epsilon(sum.blocked, total.blocked, 1e-3);
  guint64 traps = 0, calls = 0;
  const char *line = strstr(text, "traps: ");
  g_assert_true(line && sscanf(line, "traps: %" G_GUINT64_FORMAT " (system calls %" G_GUINT64_FORMAT, &traps,
                               &calls) == 2);
  g_assert_cmpuint(calls, ==, total.calls);
  g_assert_cmpuint(traps, >=, calls);
  double all, guest, kernel, faults, blocked, other, passed;
  line = strstr(text, "task seconds: ");
  g_assert_true(
      line &&
      sscanf(line, "task seconds: %lf = guest %lf + calls %lf + faults %lf + blocked %lf + other %lf; %lf",
             &all, &guest, &kernel, &faults, &blocked, &other, &passed) == 7);
  g_assert_cmpfloat_with_epsilon(all, guest + kernel + faults + blocked + other, 1e-4);
  g_assert_cmpfloat(other, >=, 0);
  g_assert_cmpfloat_with_epsilon(kernel, total.kernel, 1e-3);
  g_assert_cmpfloat(blocked, >=, total.blocked - 1e-3);
}

static void test_stats(gconstpointer arm) {
  g_autofree char *dir = g_dir_make_tmp("tessera-trace-XXXXXX", NULL),
                  *file = g_build_filename(dir, "stats", NULL);
  g_autofree char *flag = g_strdup_printf("--stats=%s", file), *text = NULL;
  g_auto(ProcResult) r =
      run(arm,
          WORDS(flag, "--inject=getpgid:EPERM:when=1..10+", "--", "/usr/bin/perl", "-e",
                "syscall(110) for 1 .. 1000; syscall(3, 999) for 1 .. 100; syscall(121, 0) for 1 .. 40; "
                "if (!fork) { syscall(110) for 1 .. 500; exit } wait; select(undef, undef, undef, 0.3)"),
          NULL);
  g_assert_cmpint(r.status, ==, 0);
  g_assert_cmpstr(r.err->str, ==, "");
  g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
  g_assert_cmpuint(row_of(text, "getppid").calls, ==, 1500);
  g_assert_cmpuint(row_of(text, "getppid").errors, ==, 0);
  g_assert_cmpuint(row_of(text, "close").errors, >=, 100);
  g_assert_cmpuint(row_of(text, "getpgid").errors, ==, 10);
  g_assert_cmpuint(row_of(text, "getpgid").injected, ==, 10);
  Row select;
  if (!find_row(text, "select", &select))
    select = row_of(text, "pselect6");
  g_assert_cmpfloat(select.blocked, >=, 0.29);
  g_assert_cmpfloat(select.kernel, <, 0.2);
  g_assert_nonnull(strstr(text, "\ntasks: 2\n"));
  check_sums(text);
  g_auto(ProcResult) s =
      run(arm, WORDS("--stats", "--", "/bin/bash", "-c", "ls / | cat | wc -l; kill -SEGV $$"), NULL);
  g_assert_cmpint(s.status, ==, 139);
  check_sums(s.err->str);
  g_unlink(file);
  g_rmdir(dir);
}

static void add_arm(const char *name) {
  static const struct {
    const char *name;
    GTestDataFunc fn;
  } tests[] = {{"filter", test_filter},
               {"inject", test_inject},
               {"inject-result", test_inject_result},
               {"inject-per-task", test_inject_per_task},
               {"inject-several", test_inject_several},
               {"delay", test_delay},
               {"eintr", test_eintr},
               {"bad", test_bad},
               {"stats", test_stats}};
  g_auto(GStrv) parts = g_strsplit(name, ":", 2);
  Arm *arm = g_new0(Arm, 1); /* lives as long as the program */
  arm->platform = g_strdup_printf("--platform=%s", parts[0]);
  arm->vfs = g_strdup_printf("--vfs=%s", parts[1] ? parts[1] : "vfs2");
  for (guint i = 0; i < G_N_ELEMENTS(tests); i++) {
    g_autofree char *path = g_strdup_printf("/trace/%s/%s", name, tests[i].name);
    g_test_add_data_func(path, arm, tests[i].fn);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  proc_setup();
  const char *arms = g_getenv("TESSERA_ARMS");
  g_auto(GStrv) list = g_strsplit(arms && *arms ? arms : "ptrace:vfs2 systrap:vfs2", " ", -1);
  for (char **a = list; *a; a++)
    if (**a && !g_str_equal(*a, "none"))
      add_arm(*a);
  return g_test_run();
}
