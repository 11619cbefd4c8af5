/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel object as the runtime uses it (FEATURES.md 1.1, 1.2): create, start, wait, kill, pause, contexts, on the
 * real plugins, for the VFS generation that the argument names. Programs come from the host's root; busybox is static. */
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <tessera/tessera.h>
#include <unistd.h>

#define BUSYBOX "/bin/busybox"

static const char *generation; /* NULL: the default one */

static TesRegistry *registry(void) {
  g_autoptr(GError) e = NULL;
  g_autofree char *dir = tes_registry_default_dir();
  TesRegistry *r = tes_registry_new();
  g_assert_true(tes_registry_load_dir(r, dir, &e));
  g_assert_true(tes_registry_seal(r, &e));
  g_assert_no_error(e);
  return r;
}

typedef struct {
  TesRegistry *r;
  TesKernel *k;
} Box;

static Box box_new(void) {
  g_autoptr(GError) e = NULL;
  Box b = {registry(), NULL};
  b.k = tes_kernel_new(b.r);
  TesKernelArgs a = {.size = sizeof a,
                     .timekeeper = tes_timekeeper_new(),
                     .application_cores = 2,
                     .hostname = "box",
                     .vfs = generation};
  tes_timekeeper_set_clocks(a.timekeeper, NULL, NULL);
  g_assert_true(tes_kernel_init(b.k, &a, &e));
  TesCtx *ctx = tes_kernel_supervisor_ctx(b.k);
  TesVfs *v = tes_kernel_vfs(b.k);
  TesSuper *super;
  g_assert_cmpint(tes_fs_new_super(ctx, "host", "/", "ro", MS_RDONLY, &super), ==, 0);
  TesMountNs *ns = v->ops->ns_new(v, ctx, super, "/", MS_RDONLY);
  g_assert_true(tes_kernel_set_root_mount_ns(b.k, ns, &e));
  TesAt proc = {.path = "/proc"}, dev = {.path = "/dev"};
  g_assert_cmpint(tes_fs_mount(ctx, &proc, "proc", "proc", NULL, 0), ==, 0);
  g_assert_cmpint(tes_fs_mount(ctx, &dev, "dev", "dev", NULL, 0), ==, 0);
  return b;
}

static void box_free(Box *b) {
  tes_kernel_free(b->k);
  tes_registry_free(b->r);
}

static TesThreadGroup *create(Box *b, const char *const *argv, gint *pid, GError **e) {
  TesFdTable *fds = tes_fdtable_new();
  TesProcessArgs a = {
      .size = sizeof a, .filename = argv[0], .argv = argv, .fdtable = fds, .container_id = "c1"};
  TesThreadGroup *tg = tes_kernel_create_process(b->k, &a, pid, e);
  tes_fdtable_unref(fds, tes_kernel_supervisor_ctx(b->k));
  return tg;
}

static TesThreadGroup *create_ok(Box *b, const char *const *argv) {
  g_autoptr(GError) e = NULL;
  TesThreadGroup *tg = create(b, argv, NULL, &e);
  g_assert_no_error(e);
  g_assert_nonnull(tg);
  return tg;
}

static const char *const exit_3[] = {BUSYBOX, "sh", "-c", "exit 3", NULL};
static const char *const sleeper[] = {BUSYBOX, "sleep", "1000", NULL};

/* L8, L21-L24: created processes wait for Start; the status can be asked again after the end. */
static void test_life(void) {
  Box b = box_new();
  g_autoptr(GError) e = NULL;
  g_assert_false(tes_kernel_start(b.k, &e));
  g_assert_cmpstr(e->message, ==, "kernel contains no tasks");
  g_clear_error(&e);
  g_assert_null(tes_kernel_global_init(b.k));
  TesThreadGroup *tg = create_ok(&b, exit_3);
  g_assert_true(tes_kernel_global_init(b.k) == tg);
  g_assert_true(tes_kernel_start(b.k, &e));
  g_assert_false(tes_kernel_start(b.k, &e));
  g_assert_cmpstr(e->message, ==, "kernel already started");
  g_clear_error(&e);
  for (int i = 0; i < 2; i++) {
    int status = tes_tg_wait(tg);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 3);
  }
  tes_kernel_wait_exited(b.k);
  g_assert_true(tes_kernel_global_init(b.k) == tg);
  tes_tg_unref(tg);
  box_free(&b);
}

/* L8, L20, L24: a second process after Start waits for StartProcess; WaitExited waits for both. */
static void test_second_process(void) {
  Box b = box_new();
  g_autoptr(GError) e = NULL;
  TesThreadGroup *first = create_ok(&b, sleeper);
  g_assert_true(tes_kernel_start(b.k, &e));
  gint pid = 0;
  TesThreadGroup *second = create(&b, exit_3, &pid, &e);
  g_assert_nonnull(second);
  g_assert_cmpint(pid, >, 1);
  g_assert_cmpint(tes_task_ppid(tes_tg_leader(second), NULL), ==, 0);
  gboolean waits = tes_kernel_profile(b.k)->start_process; /* else it ran at once */
  g_assert_true(tes_kernel_start_process(b.k, second, &e) == waits);
  g_clear_error(&e);
  g_assert_false(tes_kernel_start_process(b.k, second, &e));
  g_assert_error(e, TES_ERROR, TES_ERROR_STATE);
  g_assert_cmpint(WEXITSTATUS(tes_tg_wait(second)), ==, 3);
  g_assert_cmpint(tes_kernel_send_container_signal(b.k, "nobody", SIGTERM), ==, -ESRCH);
  g_assert_cmpint(tes_kernel_send_container_signal(b.k, "c1", SIGTERM), ==, 0);
  g_assert_cmpint(WTERMSIG(tes_tg_wait(first)), ==, SIGTERM);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(first);
  tes_tg_unref(second);
  box_free(&b);
}

/* L9, L11, L19: the refusals, with nothing left behind. */
static void test_refusals(void) {
  Box b = box_new();
  static const struct {
    const char *argv0, *cwd, *message;
    int code;
  } cases[] = {{"/nonexistent", NULL, "/nonexistent", TES_ERROR_NOTFOUND},
               {"/etc/passwd", NULL, "/etc/passwd", TES_ERROR_NOEXEC},
               {"/etc", NULL, "/etc", TES_ERROR_NOEXEC},
               {BUSYBOX, "/nope", "failed to find initial working directory \"/nope\"", TES_ERROR_CONFIG}};
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) e = NULL;
    const char *argv[] = {cases[i].argv0, NULL};
    TesProcessArgs a = {.size = sizeof a, .argv = argv, .cwd = cases[i].cwd};
    g_assert_null(tes_kernel_create_process(b.k, &a, NULL, &e));
    g_assert_error(e, TES_ERROR, cases[i].code);
    g_assert_nonnull(strstr(e->message, cases[i].message));
  }
  g_autoptr(GError) e = NULL;
  const char *relative[] = {"sh", NULL}, *none[] = {NULL};
  TesProcessArgs a = {.size = sizeof a, .argv = relative};
  g_assert_null(tes_kernel_create_process(b.k, &a, NULL, &e));
  g_assert_cmpstr(e->message, ==, "'sh' is not an absolute path");
  g_clear_error(&e);
  a.argv = none;
  g_assert_null(tes_kernel_create_process(b.k, &a, NULL, &e));
  g_assert_cmpstr(e->message, ==, "no filename or command provided");
  g_assert_null(tes_kernel_global_init(b.k));
  tes_kernel_wait_exited(b.k); /* nothing lives */
  box_free(&b);
}

/* L25: Kill does not wait, and reaches children too. */
static void test_kill(void) {
  Box b = box_new();
  static const char *const family[] = {BUSYBOX, "sh", "-c",
                                       BUSYBOX " sleep 1000 & " BUSYBOX " sleep 1000 & wait", NULL};
  TesThreadGroup *tg = create_ok(&b, family);
  g_assert_true(tes_kernel_start(b.k, NULL));
  g_usleep(100 * 1000);
  tes_kernel_kill(b.k, SIGKILL);
  g_assert_cmpint(WTERMSIG(tes_tg_wait(tg)), ==, SIGKILL);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(tg);
  box_free(&b);
}

static guint64 total_cpu(TesThreadGroup *tg) {
  TesTaskStat st;
  tes_task_stat(tes_tg_leader(tg), &st);
  return st.utime + st.stime;
}

/* L26, C5: Pause nests and stops everything; an unmatched Unpause is an error. */
static void test_pause(void) {
  Box b = box_new();
  g_autoptr(GError) e = NULL;
  static const char *const spin[] = {BUSYBOX, "sh", "-c", "while :; do :; done", NULL};
  TesThreadGroup *tg = create_ok(&b, spin);
  g_assert_true(tes_kernel_start(b.k, NULL));
  for (int i = 0; i < 200 && total_cpu(tg) < 5; i++)
    g_usleep(20 * 1000);
  g_assert_cmpuint(total_cpu(tg), >=, 5);
  tes_kernel_pause(b.k);
  tes_kernel_pause(b.k);
  guint64 before = total_cpu(tg);
  g_assert_true(tes_kernel_unpause(b.k, &e));
  g_usleep(100 * 1000);
  g_assert_cmpuint(total_cpu(tg), <=, before + 1);
  g_assert_true(tes_kernel_unpause(b.k, &e));
  g_assert_false(tes_kernel_unpause(b.k, &e));
  g_assert_error(e, TES_ERROR, TES_ERROR_STATE);
  for (int i = 0; i < 200 && total_cpu(tg) < before + 5; i++)
    g_usleep(20 * 1000);
  g_assert_cmpuint(total_cpu(tg), >=, before + 5);
  tes_kernel_kill(b.k, SIGKILL);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(tg);
  box_free(&b);
}

/* C8: nothing runs, nothing ticks, where the generation says so. */
static void test_idle_clock(void) {
  Box b = box_new();
  TesThreadGroup *tg = create_ok(&b, sleeper);
  g_assert_true(tes_kernel_start(b.k, NULL));
  g_usleep(200 * 1000);
  guint64 before = tes_kernel_cpu_ticks(b.k);
  g_usleep(300 * 1000);
  if (tes_kernel_profile(b.k)->ticker_stops_idle)
    g_assert_cmpuint(tes_kernel_cpu_ticks(b.k), <=, before + 1);
  else
    g_assert_cmpuint(tes_kernel_cpu_ticks(b.k), >=, before + 10);
  tes_kernel_kill(b.k, SIGKILL);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(tg);
  box_free(&b);
}

static int run(Box *b, const char *const *argv) {
  g_autoptr(GError) e = NULL;
  TesThreadGroup *tg = create_ok(b, argv);
  tes_kernel_start_process(b->k, tg, NULL); /* fails where it runs at once */
  int status = tes_tg_wait(tg);
  tes_tg_unref(tg);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* V1, V2: a mount namespace of its own for whoever asks, or one for the whole sandbox. */
static void test_mount_namespaces(void) {
  Box b = box_new();
  g_autoptr(GError) e = NULL;
  gboolean many = tes_kernel_profile(b.k)->mount_ns_per_process;
  TesThreadGroup *first = create_ok(&b, sleeper);
  g_assert_true(tes_kernel_start(b.k, &e));
  static const char *const unshare[] = {BUSYBOX, "unshare", "-m", BUSYBOX, "true", NULL};
  g_assert_cmpint(run(&b, unshare), ==, many ? 0 : 1);
  TesVfs *v = tes_kernel_vfs(b.k);
  TesCtx *ctx = tes_kernel_supervisor_ctx(b.k);
  TesSuper *super;
  g_assert_cmpint(tes_fs_new_super(ctx, "host", "/", "ro", MS_RDONLY, &super), ==, 0);
  TesMountNs *ns = v->ops->ns_new(v, ctx, super, "/", MS_RDONLY);
  TesProcessArgs a = {.size = sizeof a, .argv = exit_3, .mount_ns = ns};
  TesThreadGroup *tg = tes_kernel_create_process(b.k, &a, NULL, &e);
  g_assert_true(many == (tg != NULL));
  if (tg) {
    g_assert_true(tes_kernel_start_process(b.k, tg, NULL));
    g_assert_cmpint(WEXITSTATUS(tes_tg_wait(tg)), ==, 3);
    tes_tg_unref(tg);
  } else {
    g_assert_error(e, TES_ERROR, TES_ERROR_CONFIG);
  }
  tes_kernel_kill(b.k, SIGKILL);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(first);
  v->ops->ns_unref(ns);
  box_free(&b);
}

/* X8: shared futexes of two created processes are the same, where the generation says so. */
static void test_futexes(void) {
  const char *partner = g_getenv("FUTEX_PARTNER");
  if (!partner) {
    g_test_skip("FUTEX_PARTNER is not set");
    return;
  }
  Box b = box_new();
  TesCtx *ctx = tes_kernel_supervisor_ctx(b.k);
  TesAt mnt = {.path = "/mnt"};
  g_assert_cmpint(tes_fs_mount(ctx, &mnt, "tmpfs", "none", NULL, 0), ==, 0);
  const char *wait[] = {partner, "/mnt/word", "wait", NULL}, *wake[] = {partner, "/mnt/word", "wake", NULL};
  TesThreadGroup *waiter = create_ok(&b, wait);
  g_assert_true(tes_kernel_start(b.k, NULL));
  int met = tes_kernel_profile(b.k)->kernel_futexes ? 0 : 1;
  g_assert_cmpint(run(&b, wake), ==, met);
  g_assert_cmpint(WEXITSTATUS(tes_tg_wait(waiter)), ==, met);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(waiter);
  box_free(&b);
}

static void count_null(guint key, const TesCtxKeyRow *row, gpointer data) {
  TesCtx *ctx = data;
  gboolean expected = row->resolve[ctx->kind] != NULL;
  gpointer v = tes_ctx_get(ctx, key);
  if (expected && !v)
    g_error("context kind %d: key %s answers NULL", ctx->kind, row->name);
  if (!expected)
    g_assert_null(v);
}

/* K1-K24: every key that a context offers answers; lookups repeat. */
static void test_contexts(void) {
  Box b = box_new();
  TesCtx *super = tes_kernel_supervisor_ctx(b.k);
  TesThreadGroup *tg = create_ok(&b, sleeper);
  TesCtx *task = tes_task_ctx(tes_tg_leader(tg));
  tes_ctx_keys_foreach(b.r, count_null, super);
  tes_ctx_keys_foreach(b.r, count_null, task);
  g_assert_true(tes_ctx_get(super, TES_CTX_KERNEL) == b.k);
  g_assert_true(tes_ctx_task(task) == tes_tg_leader(tg));
  g_assert_null(tes_ctx_task(super));
  g_assert_true(tes_ctx_root(task)->inode == tes_ctx_root(super)->inode);
  g_assert_cmpuint(tes_ctx_cred(super)->euid, ==, 0);
  guint64 id = tes_unique_id(b.k);
  g_assert_cmpuint(tes_unique_id(b.k), >, id); /* U1 */
  guint32 cookie = tes_notify_cookie(b.k);
  g_assert_cmpuint(tes_notify_cookie(b.k), ==, cookie + 1); /* U3 */
  g_assert_true(tes_kernel_start(b.k, NULL));
  tes_kernel_kill(b.k, SIGKILL);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(tg);
  box_free(&b);
}

/* L1: two kernels at once share nothing. */
static void test_two_kernels(void) {
  Box a = box_new(), b = box_new();
  TesThreadGroup *x = create_ok(&a, exit_3), *y = create_ok(&b, sleeper);
  g_assert_true(tes_kernel_start(a.k, NULL));
  g_assert_true(tes_kernel_start(b.k, NULL));
  g_assert_cmpint(WEXITSTATUS(tes_tg_wait(x)), ==, 3);
  tes_kernel_wait_exited(a.k);
  g_assert_cmpint(tes_task_pid(tes_tg_leader(y), NULL), ==, 1);
  tes_kernel_kill(b.k, SIGKILL);
  tes_kernel_wait_exited(b.k);
  tes_tg_unref(x);
  tes_tg_unref(y);
  box_free(&a);
  box_free(&b);
}

/* L29: the first error is kept. */
static void test_save_error(void) {
  TesRegistry *r = registry();
  TesKernel *k = tes_kernel_new(r);
  g_assert_null(tes_kernel_save_error(k));
  tes_kernel_set_save_error(k, g_error_new_literal(TES_ERROR, TES_ERROR_FAILED, "first"));
  tes_kernel_set_save_error(k, g_error_new_literal(TES_ERROR, TES_ERROR_FAILED, "second"));
  g_assert_cmpstr(tes_kernel_save_error(k)->message, ==, "first");
  tes_kernel_free(k);
  tes_registry_free(r);
}

static gboolean works_here(char **why) {
  TesRegistry *r = registry();
  g_auto(GStrv) names = tes_registry_names(r, "platform");
  gboolean ok = FALSE;
  for (char **n = names; *n && !ok; n++) {
    const TesPlatformOps *ops = tes_registry_find(r, "platform", *n);
    g_clear_pointer(why, g_free);
    ok = ops->probe(why) >= 0;
  }
  tes_registry_free(r);
  return ok;
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  generation = argc > 1 ? argv[1] : NULL;
  g_autofree char *why = NULL;
  if (access(BUSYBOX, X_OK) < 0 || !works_here(&why)) {
    g_print("1..0 # SKIP %s\n", why ? why : "no " BUSYBOX);
    return 0;
  }
  g_test_add_func("/kernel/life", test_life);
  g_test_add_func("/kernel/second-process", test_second_process);
  g_test_add_func("/kernel/refusals", test_refusals);
  g_test_add_func("/kernel/kill", test_kill);
  g_test_add_func("/kernel/pause", test_pause);
  g_test_add_func("/kernel/idle-clock", test_idle_clock);
  g_test_add_func("/kernel/mount-namespaces", test_mount_namespaces);
  g_test_add_func("/kernel/futexes", test_futexes);
  g_test_add_func("/kernel/contexts", test_contexts);
  g_test_add_func("/kernel/two-kernels", test_two_kernels);
  g_test_add_func("/kernel/save-error", test_save_error);
  return g_test_run();
}
