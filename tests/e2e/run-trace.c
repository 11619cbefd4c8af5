/* SPDX-License-Identifier: Apache-2.0 */
/* Seeing inside: --strace=FILTER, --inject, --stats and --trace=json of `tessera do`, on the host's own root.
 *
 * Environment: TESSERA is the command; TESSERA_ARMS lists PLATFORM:VFS pairs (default "ptrace:vfs2 systrap:vfs2").
 */
#include "proc.h"

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
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
  perl(arm, "--inject=getpgid:ESRCH:when=2", "print syscall(121, 0) < 0 ? $! + 0 : 0 for 1 .. 3", 0, "030");
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

/* ---- JSON ---- */

/* Every line is an object; how many of each event there are. Transfer full; the first object goes to *first. */
static GHashTable *read_events(const char *text, JsonParser *first) {
  GHashTable *counts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **l = lines; *l; l++) {
    if (!**l && !l[1])
      break; /* after the last newline */
    g_autoptr(JsonParser) parser = l == lines ? g_object_ref(first) : json_parser_new_immutable();
    g_autoptr(GError) error = NULL;
    if (!json_parser_load_from_data(parser, *l, -1, &error) ||
        !JSON_NODE_HOLDS_OBJECT(json_parser_get_root(parser))) {
      proc_show(error ? error->message : "not an object", *l, 3);
      g_test_fail();
      continue;
    }
    JsonObject *o = json_node_get_object(json_parser_get_root(parser));
    const char *event = json_object_get_string_member_with_default(o, "event", "?"),
               *name = json_object_get_string_member_with_default(o, "name", "");
    g_assert_cmpint(json_object_get_int_member_with_default(o, "task", 0), >, 0);
    g_assert_cmpint(json_object_get_int_member_with_default(o, "pid", 0), >, 0);
    g_assert_cmpfloat(json_object_get_double_member_with_default(o, "time", 0), >, 1e9);
    char *key = g_strdup_printf("%s %s", event, name);
    g_hash_table_insert(counts, key,
                        GUINT_TO_POINTER(GPOINTER_TO_UINT(g_hash_table_lookup(counts, key)) + 1));
  }
  return counts;
}

#define COUNT(counts, key) GPOINTER_TO_UINT(g_hash_table_lookup(counts, key))

static const char *first_arg(JsonParser *p, guint i) {
  JsonObject *o = json_node_get_object(json_parser_get_root(p));
  g_assert_cmpstr(json_object_get_string_member(o, "event"), ==, "exec");
  return json_array_get_string_element(json_object_get_array_member(o, "argv"), i);
}

static void test_json(gconstpointer arm) {
  const char *script = "printf 'q\"\\\\\\001\\377\\n' | cat >/dev/null; exit 3";
  g_autoptr(JsonParser) first = json_parser_new_immutable();
  g_auto(ProcResult) r =
      run(arm, WORDS("--trace=json", "--", "/bin/bash", "-c", script, "\303\251\t\"", "\377"), NULL);
  g_assert_cmpint(r.status, ==, 3);
  g_autoptr(GHashTable) n = read_events(r.err->str, first);
  g_assert_cmpstr(first_arg(first, 0), ==, "/bin/bash");
  g_assert_cmpstr(first_arg(first, 2), ==, script);
  g_assert_cmpstr(first_arg(first, 3), ==, "\303\251\t\"");
  g_assert_cmpuint(COUNT(n, "exec "), ==, 2);
  g_assert_cmpuint(COUNT(n, "exit "), ==, 3);
  g_assert_cmpuint(COUNT(n, "syscall clone"), ==, 2);
  g_assert_cmpuint(COUNT(n, "syscall execve"), >=, 1);
  g_assert_cmpuint(COUNT(n, "syscall wait4"), >=, 2);
  g_assert_cmpuint(COUNT(n, "signal SIGCHLD"), >=, 1);
  g_assert_nonnull(strstr(r.err->str, "\"argv_base64\""));
  g_assert_nonnull(strstr(r.err->str, "\"errno\":\"ENOENT\""));
}

static void test_json_crash(gconstpointer arm) {
  g_autofree char *dir = g_dir_make_tmp("tessera-trace-XXXXXX", NULL),
                  *file = g_build_filename(dir, "events", NULL);
  g_autofree char *flag = g_strdup_printf("--trace=json:%s,regs", file), *text = NULL;
  g_autoptr(JsonParser) first = json_parser_new_immutable();
  g_auto(ProcResult) r = run(arm,
                             WORDS(flag, "--strace=%process", "--inject=getpgid:EPERM", "--", "/usr/bin/perl",
                                   "-e", "syscall(121, 0); syscall(400); unpack 'p', pack 'Q', 4096"),
                             NULL);
  g_assert_cmpint(r.status, ==, 139);
  g_assert_nonnull(strstr(r.err->str, "+++ killed by signal 11 +++"));
  g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
  g_autoptr(GHashTable) n = read_events(text, first);
  g_assert_cmpuint(COUNT(n, "exec "), ==, 1);
  g_assert_cmpuint(COUNT(n, "signal SIGSEGV"), ==, 1);
  g_assert_cmpuint(COUNT(n, "exit SIGSEGV"), ==, 1);
  g_assert_cmpuint(COUNT(n, "unimplemented "), ==, 1);
  g_assert_cmpuint(COUNT(n, "syscall openat"), ==, 0);
  g_assert_nonnull(strstr(text, "\"addr\":\"0x1000\""));
  g_assert_nonnull(strstr(text, "\"rip\":\"0x"));
  g_unlink(file);
  g_rmdir(dir);
}

/* E2: at most 1,000 events at once and 100 a second; what was dropped is counted. */
static void test_unimplemented(gconstpointer arm) {
  g_autoptr(JsonParser) first = json_parser_new_immutable();
  gint64 began = g_get_monotonic_time();
  g_auto(ProcResult) r = run(arm,
                             WORDS("--trace=json", "--strace=none", "--stats", "--", "/usr/bin/perl", "-e",
                                   "syscall(400) for 1 .. 5000"),
                             NULL);
  double seconds = (g_get_monotonic_time() - began) * 1e-6;
  guint64 dropped = 0;
  const char *told = strstr(r.err->str, "{\"event\":\"dropped\",\"unimplemented\":"),
             *stats = strstr(r.err->str, "     calls    errors");
  g_assert_true(told && stats &&
                sscanf(strstr(told, "\"unimplemented\":") + 16, "%" G_GUINT64_FORMAT, &dropped) == 1);
  g_autofree char *events = told ? g_strndup(r.err->str, (gsize)(told - r.err->str)) : g_strdup("");
  guint emitted = 0;
  for (const char *p = events; (p = strstr(p, "\"event\":\"unimplemented\"")); p++)
    emitted++;
  Row rseq = {0}; /* the C library tries it */
  find_row(r.err->str, "rseq", &rseq);
  g_assert_cmpuint(emitted + dropped, ==, 5000 + rseq.errors);
  g_assert_cmpuint(emitted, >=, 1000);
  g_assert_cmpuint(emitted, <=, 1000 + (guint)(seconds * 100) + 1);
  g_autofree char *line = g_strdup_printf("dropped: %" G_GUINT64_FORMAT "\n", dropped);
  g_assert_nonnull(strstr(stats ? stats : "", line));
}

/* ---- Decoding ---- */

static void test_decode(gconstpointer arm) {
  static const char *const lines[] = {
      "write(1, \"a\\\"\\001\\377\\n\", 5) = 5\n",
      "[{WIFEXITED(s) && WEXITSTATUS(s) == 7}]",
      "[{WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL}]",
      "kill(1, 0) = 0\n",
      "rt_sigaction(SIGUSR1, {sa_handler=SIG_IGN, sa_mask=[], sa_flags=",
      "{st_mode=S_IFDIR|01777, st_size=",
      "openat(AT_FDCWD, \"/tmp/x\", O_WRONLY|O_CREAT|O_APPEND|O_CLOEXEC, 0644)",
      "lseek(3, 5, SEEK_SET) = 5\n",
      "socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = ",
      "{sa_family=AF_UNIX, sun_path=\"/no/sock\"}, ",
      "= -1 ENOENT (No such file or directory)\n",
      "[{fd=0, events=POLLIN, revents=POLLIN",
      "execve(\"/bin/true\", [\"/bin/true\", \"arg\"], ",
      "{iov_base=\"one\", iov_len=3}, {iov_base=\"two\", iov_len=3}], 2) = 6\n",
  };
  g_auto(ProcResult) r =
      run(arm,
          WORDS("--strace", "--", "/usr/bin/python3", "-c",
                "import os, signal, select, socket, subprocess\n"
                "os.write(1, b'a\"\\x01\\xff\\n')\n"
                "for f in (lambda: os._exit(7)), (lambda: os.kill(os.getpid(), 9)):\n"
                "  p = os.fork()\n"
                "  if p == 0: f()\n"
                "  os.waitpid(p, 0)\n"
                "os.kill(1, 0); signal.signal(signal.SIGUSR1, signal.SIG_IGN); os.stat('/tmp')\n"
                "fd = os.open('/tmp/x', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)\n"
                "os.lseek(fd, 5, 0); os.writev(fd, [b'one', b'two'])\n"
                "s = socket.socket(socket.AF_UNIX)\n"
                "try: s.connect('/no/sock')\n"
                "except OSError: pass\n"
                "p = select.poll(); p.register(0, 1); p.poll()\n"
                "if os.fork() == 0: os.execv('/bin/true', ['/bin/true', 'arg'])\n"
                "os.wait()\n"),
          "input");
  g_assert_cmpint(r.status, ==, 0);
  for (guint i = 0; i < G_N_ELEMENTS(lines); i++)
    if (!strstr(r.err->str, lines[i])) {
      g_test_message("not in the trace: %s", lines[i]);
      g_test_fail();
    }
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
               {"json", test_json},
               {"json-crash", test_json_crash},
               {"unimplemented", test_unimplemented},
               {"decode", test_decode},
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
