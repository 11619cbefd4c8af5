/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of writes to the root of `tessera do` (--overlay, --ro, --rw), that nothing outside a root is ever reached, and that
 * files of the host survive a kernel process that is killed.
 *
 * Environment: TESSERA; TESSERA_GUEST_DIR holds the guest program `escape`; TESSERA_ARMS as in run-cli.c. Works in a
 * directory of its own below /var/tmp. */
#include "proc.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECRET "TOP-SECRET\n"
#define MAX_ARGS 32

typedef struct {
  char *platform, *vfs;
} Arm;

static char *top; /* of the current test */

static char *in(const char *name) { return g_build_filename(top, name, NULL); }

static void put(const char *name, const char *text) {
  g_autofree char *path = in(name);
  g_autofree char *dir = g_path_get_dirname(path);
  g_mkdir_with_parents(dir, 0755);
  g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static char *get(const char *name) {
  g_autofree char *path = in(name);
  char *text = NULL;
  g_file_get_contents(path, &text, NULL, NULL);
  return text;
}

#define HAS(name, text)                 \
  do {                                  \
    g_autofree char *text_ = get(name); \
    g_assert_cmpstr(text_, ==, text);   \
  } while (0)

static void begin(void) {
  top = g_strdup("/var/tmp/tessera-roots-XXXXXX");
  g_assert_nonnull(g_mkdtemp_full(top, 0755));
}

static void end(void) {
  g_autofree char *left = proc_leftovers(3);
  if (left) {
    g_test_message("processes left behind: %s", left);
    g_test_fail();
  }
  const char *argv[] = {"rm", "-rf", top, NULL};
  g_auto(ProcResult) r = proc_run(argv, NULL, 60);
  g_clear_pointer(&top, g_free);
}

static void command(const Arm *arm, const char *const *words, const char *out[MAX_ARGS]) {
  int n = 0;
  out[n++] = g_getenv("TESSERA");
  out[n++] = "do";
  out[n++] = arm->platform;
  out[n++] = arm->vfs;
  while (*words && n < MAX_ARGS - 1)
    out[n++] = *words++;
  out[n] = NULL;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect(const Arm *arm, const char *const *words, int status, const char *text) {
  const char *argv[MAX_ARGS];
  command(arm, words, argv);
  g_auto(ProcResult) r = proc_run(argv, NULL, 60);
  if (r.status != status || (text && strcmp(r.out->str, text))) {
    g_autofree char *line = g_strjoinv(" ", (char **)words);
    g_test_message("%s: status %d, expected %d", line, r.status, status);
    proc_show("standard output:", r.out->str, 10);
    proc_show("standard error:", r.err->str, 10);
    g_test_fail();
  }
}

/* ---- What becomes of writes ---- */

/* By default they stay inside: files changed, made, removed, whole trees too. */
static void test_memory(gconstpointer arm) {
  begin();
  put("d/f", "host\n");
  put("d/sub/g", "host\n");
  g_autofree char *d = in("d");
  g_autofree char *script = g_strdup_printf("cd %s && echo more >>f && cat f && rm -r sub && mkdir sub && "
                                            "touch sub/new && ls sub && mv sub s2 && chmod 600 f && "
                                            "chown 1:1 f && ls",
                                            d);
  for (int i = 0; i < 2; i++) { /* and the next sandbox begins anew */
    expect(arm, WORDS("--", "/bin/sh", "-c", script), 0, "host\nmore\nnew\nf\ns2\n");
    HAS("d/f", "host\n");
    HAS("d/sub/g", "host\n");
  }
  expect(arm, WORDS("--overlay=memory", "--", "/bin/sh", "-c", script), 0, "host\nmore\nnew\nf\ns2\n");
  struct stat st;
  g_autofree char *f = in("d/f");
  g_assert_cmpint(stat(f, &st), ==, 0);
  g_assert_cmpint(st.st_mode & 0777, ==, 0644);
  /* What a program would do that thinks the machine its own. */
  expect(arm,
         WORDS("--", "/bin/sh", "-c",
               "rm -rf /usr/share/doc /etc/passwd; touch /etc/x /usr/y /var/z; [ ! -e /usr/share/doc ] && [ "
               "! -e /etc/passwd ] && "
               "ls /etc/x /usr/y /var/z"),
         0, "/etc/x\n/usr/y\n/var/z\n");
  g_assert_true(g_file_test("/etc/passwd", G_FILE_TEST_EXISTS));
  g_assert_true(!g_file_test("/etc/x", G_FILE_TEST_EXISTS) && !g_file_test("/var/z", G_FILE_TEST_EXISTS));
  end();
}

static void test_ro(gconstpointer arm) {
  begin();
  put("d/f", "host\n");
  g_autofree char *d = in("d");
  g_autofree char *script = g_strdup_printf("cd %s && cat f; (echo x >>f) 2>/dev/null || echo no; rm f "
                                            "2>/dev/null || echo no; mkdir n 2>/dev/null || echo no",
                                            d);
  expect(arm, WORDS("--ro", "--", "/bin/sh", "-c", script), 0, "host\nno\nno\nno\n");
  HAS("d/f", "host\n");
  end();
}

static void test_rw(gconstpointer arm) {
  begin();
  put("d/f", "host\n");
  put("d/gone", "host\n");
  g_autofree char *d = in("d");
  g_autofree char *script =
      g_strdup_printf("cd %s && echo more >>f && rm gone && mkdir n && echo x >n/x && mv n n2", d);
  expect(arm, WORDS("--rw", "--", "/bin/sh", "-c", script), 0, "");
  HAS("d/f", "host\nmore\n");
  HAS("d/gone", NULL);
  HAS("d/n2/x", "x\n");
  /* Of the host's proc and sys nothing is to be seen, even when the sandbox's own are taken away. */
  expect(
      arm,
      WORDS("--rw", "--", "/bin/sh", "-c",
            "umount -l /sys /proc || exit 3; ls -A /proc /sys; (echo x >/proc/sysrq-trigger) 2>/dev/null || "
            "echo no"),
      0, "/proc:\n\n/sys:\nno\n");
  end();
}

static void test_directory(gconstpointer arm) {
  begin();
  put("root/d/f", "host\n");
  put("root/d/old", "host\n");
  g_autofree char *d = in("root/d"), *ov = in("upper, with a comma"),
                  *flag = g_strdup_printf("--overlay=%s", ov);
  g_autofree char *first = g_strdup_printf("cd %s && echo more >>f && rm old && mkdir n && echo x >n/x && "
                                           "chown 12:34 n/x && chmod 4711 n/x && mknod dev c 1 3 && "
                                           "stat -c %%i f n >/tmp/x && cat /tmp/x | wc -l",
                                           d);
  g_autofree char *second = g_strdup_printf(
      "cd %s && cat f n/x && stat -c '%%u:%%g %%a' n/x && stat -c '%%F %%t:%%T' dev && ls", d);
  expect(arm, WORDS(flag, "--", "/bin/sh", "-c", first), 0, "2\n");
  expect(arm, WORDS(flag, "--", "/bin/sh", "-c", second), 0,
         "host\nmore\nx\n12:34 4711\ncharacter special file 1:3\ndev\nf\nn\n");
  HAS("root/d/f", "host\n");
  HAS("root/d/old", "host\n");
  /* No device was made on the host. */
  g_autofree char *dev = g_strdup_printf("%s/upper/%s/dev", ov, d);
  struct stat st;
  g_assert_true(lstat(dev, &st) == 0 && S_ISREG(st.st_mode));
  /* One sandbox at a time. */
  const char *argv[MAX_ARGS];
  command(arm, WORDS(flag, "--", "/bin/sh", "-c", "echo up; read x"), argv);
  Proc p = proc_start(argv, NULL);
  GString *seen = g_string_new(NULL);
  g_assert_true(proc_until(&p, seen, "up\n", 20));
  g_string_free(seen, TRUE);
  expect(arm, WORDS(flag, "--", "/bin/true"), 125, "");
  g_auto(ProcResult) r = proc_finish(&p, "\n", 20);
  g_assert_cmpint(r.status, ==, 0);
  end();
}

/* A kernel process without the right to give files away keeps owners, modes and devices in attributes. */
static void test_directory_as_user(gconstpointer arm) {
  g_autofree char *setpriv = g_find_program_in_path("setpriv");
  if (getuid() != 0 || !setpriv) {
    g_test_skip("needs root and setpriv");
    return;
  }
  begin();
  g_autofree char *d = in("d"), *ov = in("d/ov"), *flag = g_strdup_printf("--overlay=%s", ov);
  g_mkdir(d, 0755);
  g_assert_cmpint(chown(d, 65534, 65534), ==, 0);
  g_autofree char *script = g_strdup_printf("if [ -e /var/one ]; then stat -c '%%u:%%g %%a' /var/one; stat "
                                            "-c '%%F %%t:%%T' /var/dev; [ -e /etc/hostname ] || echo gone; "
                                            "else echo 1 >/var/one; chown 12:34 /var/one; chmod 6755 "
                                            "/var/one; mknod /var/dev b 8 1; rm -f /etc/hostname; fi");
  for (int i = 0; i < 2; i++) {
    const char *inner[MAX_ARGS],
        *argv[MAX_ARGS] = {setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"};
    command(arm, WORDS(flag, "--", "/bin/sh", "-c", script), inner);
    for (int k = 0; k < MAX_ARGS - 5 && (argv[4 + k] = inner[k]); k++)
      ;
    g_auto(ProcResult) r = proc_run(argv, NULL, 60);
    g_assert_cmpstr(r.err->str, ==, "");
    g_assert_cmpstr(r.out->str, ==, i ? "12:34 6755\nblock special file 8:1\ngone\n" : "");
  }
  struct stat st;
  g_autofree char *one = g_strdup_printf("%s/upper/var/one", ov);
  g_assert_true(stat(one, &st) == 0 && st.st_uid == 65534 && !(st.st_mode & 06000));
  end();
}

/* ---- Confinement ---- */

static char *guest(const char *name) { return g_build_filename(g_getenv("TESSERA_GUEST_DIR"), name, NULL); }

/* A root with nothing but the program and a directory to work in; secrets around it. */
static void make_jail(void) {
  begin();
  g_autofree char *from = guest("escape"), *to = in("jail/root/escape"), *work = in("jail/root/place");
  g_mkdir_with_parents(work, 0755);
  put("secret", SECRET);
  put("jail/secret", SECRET);
  put("jail/outside/secret", SECRET);
  const char *argv[] = {"cp", from, to, NULL};
  g_auto(ProcResult) r = proc_run(argv, NULL, 20);
  g_assert_cmpint(r.status, ==, 0);
  const char *names[] = {"secret", "jail/secret", "jail/outside/secret"};
  for (int i = 0; i < 3; i++) {
    g_autofree char *path = in(names[i]);
    g_assert_cmpint(chmod(path, 0600), ==, 0);
  }
}

static void check_secrets(void) {
  const char *names[] = {"secret", "jail/secret", "jail/outside/secret"};
  for (int i = 0; i < 3; i++) {
    g_autofree char *path = in(names[i]);
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 07777, ==, 0600);
    g_assert_cmpint(st.st_uid, ==, getuid());
    HAS(names[i], SECRET);
  }
}

/* The guest moves, exchanges and mounts while it walks: every kind of root. */
static void test_guest_attacks(gconstpointer arm) {
  make_jail();
  g_autofree char *root = g_strdup_printf("--root=%s/jail/root", top), *secret = in("secret");
  g_autofree char *ov = g_strdup_printf("--overlay=%s/jail/ov", top);
  const char *modes[] = {"--rw", "--overlay=memory", ov};
  for (int i = 0; i < 3; i++)
    expect(arm, WORDS(root, modes[i], "--", "/escape", "--helper", "attack", "/place", "700", secret), 0,
           "looked\n");
  check_secrets();
  end();
}

/* Two mounts of one directory: what is made in one is exchanged for a link through the other. */
static void test_chase(gconstpointer arm) {
  make_jail();
  g_autofree char *root = g_strdup_printf("--root=%s/jail/root", top), *secret = in("secret");
  g_autofree char *work = in("jail/root/place");
  expect(arm,
         WORDS(root, "--bind", work, "/w1", "--bind", work, "/w2", "--", "/escape", "--helper", "chase",
               "/w1", "/w2", secret, "1000"),
         0, "looked\n");
  check_secrets();
  end();
}

/* A process of the host exchanges directories with links, and moves one out of the root and back. */
static pid_t host_attacker(void) {
  g_autofree char *work = in("jail/root/place"), *away = in("jail/outside/out");
  pid_t pid = fork();
  if (pid != 0)
    return pid;
  int w = open(work, O_RDONLY | O_DIRECTORY);
  for (;;) {
    renameat2(w, "b", w, "link", RENAME_EXCHANGE);
    renameat2(w, "f", w, "fl", RENAME_EXCHANGE);
    renameat(w, "out", AT_FDCWD, away);
    symlinkat("../../outside", w, "out");
    unlinkat(w, "out", 0);
    renameat(AT_FDCWD, away, w, "out");
    renameat2(w, "a", w, "up", RENAME_EXCHANGE);
  }
}

static void test_host_attacks(gconstpointer arm) {
  make_jail();
  g_autofree char *root = g_strdup_printf("--root=%s/jail/root", top), *secret = in("secret");
  /* The tree first. */
  expect(arm, WORDS(root, "--rw", "--", "/escape", "--helper", "attack", "/place", "50", secret), 0, NULL);
  pid_t pid = host_attacker();
  const char *modes[] = {"--rw", "--ro", "--overlay=memory"};
  for (int i = 0; i < 3; i++)
    expect(arm, WORDS(root, modes[i], "--", "/escape", "--helper", "look", "/place", "700", secret), 0,
           "looked\n");
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  check_secrets();
  end();
}

/* Devices, sockets, FIFOs and set-id programs of the host. */
static void test_special_files(gconstpointer arm) {
  if (getuid() != 0) {
    g_test_skip("needs root");
    return;
  }
  begin();
  put("d/f", "x");
  g_autofree char *d = in("d"), *loop = in("d/loop"), *fifo = in("d/fifo");
  g_assert_cmpint(mknod(loop, S_IFBLK | 0666, 0x7ff), ==, 0);
  g_assert_cmpint(mkfifo(fifo, 0666), ==, 0);
  const char *script = "cd /mnt && (cat loop) 2>/dev/null || echo no; (echo x >loop) 2>/dev/null || echo no; "
                       "mknod n c 1 3 2>/dev/null || "
                       "echo no; (echo hello >fifo &) ; cat fifo";
  expect(arm, WORDS("--bind", d, "/mnt", "--", "/bin/sh", "-c", script), 0, "no\nno\nno\nhello\n");
  /* A server of the host cannot be reached. */
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  g_snprintf(a.sun_path, sizeof a.sun_path, "%s/sock", d);
  int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint(bind(server, (struct sockaddr *)&a, sizeof a), ==, 0);
  g_assert_cmpint(listen(server, 1), ==, 0);
  expect(arm,
         WORDS("--bind", d, "/mnt", "--ro-bind", g_getenv("TESSERA_GUEST_DIR"), "/opt", "--", "/opt/escape",
               "--helper", "connect", "/mnt/sock"),
         ECONNREFUSED, "");
  close(server);
  /* Set-id programs are so in the sandbox. */
  g_autofree char *id = in("d/id");
  const char *copy[] = {"cp", "/usr/bin/id", id, NULL};
  g_auto(ProcResult) copied = proc_run(copy, NULL, 10);
  g_assert_true(copied.status == 0 && chown(id, 65534, 0) == 0 && chmod(id, 04755) == 0);
  expect(arm, WORDS("--user=1000", "--ro-bind", d, "/mnt", "--", "/bin/sh", "-c", "/mnt/id -u; true"), 0,
         "65534\n");
  end();
}

/* ---- kill -9 ---- */

static int threads(pid_t pid) {
  g_autofree char *path = g_strdup_printf("/proc/%d/task", pid);
  GDir *d = g_dir_open(path, 0, NULL);
  int n = 0;
  while (d && g_dir_read_name(d))
    n++;
  if (d)
    g_dir_close(d);
  return n;
}

/* Starts words, waits for "go", and kills the kernel process (that of the most threads) after `ms`. */
static void kill_kernel(const Arm *arm, const char *const *words, guint ms) {
  const char *argv[MAX_ARGS];
  command(arm, words, argv);
  Proc p = proc_start(argv, NULL);
  GString *seen = g_string_new(NULL);
  g_assert_true(proc_until(&p, seen, "go\n", 20));
  g_string_free(seen, TRUE);
  g_usleep(ms * 1000);
  g_autoptr(GArray) pids = proc_descendants(p.pid);
  pid_t kernel = p.pid;
  for (guint i = 0; i < pids->len; i++)
    if (threads(g_array_index(pids, pid_t, i)) > threads(kernel))
      kernel = g_array_index(pids, pid_t, i);
  kill(kernel, SIGKILL);
  g_auto(ProcResult) r = proc_finish(&p, NULL, 20);
  g_assert_cmpint(r.status, !=, 0);
}

/* Appended records are whole, and what is replaced by rename is the old or the new file. */
static void test_killed_writers(gconstpointer arm) {
  begin();
  g_autofree char *d = in("d"), *log = in("d/log"), *escape = guest("escape");
  put("d/file", "");
  for (guint i = 0; i < 6; i++) {
    kill_kernel(arm, WORDS("--rw", "--", escape, "--helper", "append", log), 5 + 17 * i);
    g_autofree char *text = NULL;
    gsize n = 0;
    g_assert_true(g_file_get_contents(log, &text, &n, NULL));
    g_assert_cmpint(n, >, 0);
    g_assert_cmpint(n % 64, ==, 0);
    for (gsize at = 0; at < n; at += 64)
      if (text[at] != 'r' || text[at + 63] != '\n')
        g_test_fail();
    kill_kernel(arm, WORDS("--rw", "--", escape, "--helper", "replace", d), 5 + 17 * i);
    g_autofree char *file = get("d/file");
    g_assert_cmpint(strlen(file) % 8192, ==, 0); /* 0 before the first replacement */
    g_assert_cmpint(strlen(file), <=, 8192);
  }
  end();
}

/* Killed in the middle of copy-ups: the next sandbox finds every file whole. */
static void test_killed_copy_up(gconstpointer arm) {
  begin();
  enum { FILES = 24, SIZE = 3 << 20 };
  g_autofree char *text = g_strnfill(SIZE, 'c');
  g_autofree char *d = in("d"), *flag = g_strdup_printf("--overlay=%s/ov", top);
  for (int i = 0; i < FILES; i++) {
    g_autofree char *name = g_strdup_printf("d/f%d", i);
    put(name, text);
  }
  for (guint i = 0; i < 4; i++) {
    g_autofree char *n = g_strdup_printf("%d", FILES);
    kill_kernel(arm,
                WORDS(flag, "--ro-bind", g_getenv("TESSERA_GUEST_DIR"), "/mnt", "--", "/mnt/escape",
                      "--helper", "copyup", d, n),
                3 + 8 * i);
    g_autofree char *script = g_strdup_printf("cd %s && ls | wc -l && find . -type f ! -size %dc", d, SIZE);
    expect(arm, WORDS(flag, "--", "/bin/sh", "-c", script), 0, "24\n");
    g_autofree char *work = in("ov/work");
    g_autoptr(GDir) dir = g_dir_open(work, 0, NULL);
    g_assert_true(dir && !g_dir_read_name(dir)); /* what was left over has been cleared away */
  }
  end();
}

static void add_arm(const char *name) {
  static const struct {
    const char *name;
    void (*fn)(gconstpointer);
  } tests[] = {
      {"memory", test_memory},
      {"ro", test_ro},
      {"rw", test_rw},
      {"directory", test_directory},
      {"directory-as-user", test_directory_as_user},
      {"guest-attacks", test_guest_attacks},
      {"chase", test_chase},
      {"host-attacks", test_host_attacks},
      {"special-files", test_special_files},
      {"killed-writers", test_killed_writers},
      {"killed-copy-up", test_killed_copy_up},
  };
  g_auto(GStrv) parts = g_strsplit(name, ":", 2);
  Arm *arm = g_new0(Arm, 1); /* lives as long as the program */
  arm->platform = g_strdup_printf("--platform=%s", parts[0]);
  arm->vfs = g_strdup_printf("--vfs=%s", parts[1] ? parts[1] : "vfs2");
  for (guint i = 0; i < G_N_ELEMENTS(tests); i++) {
    g_autofree char *path = g_strdup_printf("/roots/%s/%s", name, tests[i].name);
    g_test_add_data_func(path, arm, tests[i].fn);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  proc_setup();
  const char *arms = g_getenv("TESSERA_ARMS");
  g_auto(GStrv) list = g_strsplit(arms && *arms ? arms : "ptrace:vfs2 systrap:vfs2 systrap:vfs1", " ", -1);
  for (char **a = list; *a; a++)
    if (**a && !g_str_equal(*a, "none"))
      add_arm(*a);
  return g_test_run();
}
