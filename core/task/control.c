/* SPDX-License-Identifier: Apache-2.0 */
/* Processes as the control side sees them (FEATURES.md L8-L25): create, start, wait, kill, signals from outside. */
#include <core/task/kernel.h>
#include <sys/wait.h>

static gboolean fail(GError **error, TesErrorCode code, const char *message) {
  g_set_error_literal(error, TES_ERROR, code, message);
  return FALSE;
}

gboolean tes_kernel_start_process(TesKernel *k, TesThreadGroup *tg, GError **error) {
  tes_mutex_lock(&k->task_set);
  gboolean can = k->started && !tg->started;
  if (can)
    tg->started = TRUE;
  tes_mutex_unlock(&k->task_set);
  if (!can)
    return fail(error, TES_ERROR_STATE,
                k->started ? "the process is already started" : "the kernel is not started");
  if (tes_task_start(tg->leader) < 0)
    return fail(error, TES_ERROR_FAILED, "no thread for the process (ulimit -u, cgroup pids.max)");
  return TRUE;
}

gboolean tes_kernel_start(TesKernel *k, GError **error) {
  if (!k->initialised)
    return fail(error, TES_ERROR_STATE, "the kernel is not initialised");
  tes_mutex_lock(&k->task_set);
  gboolean started = k->started, empty = k->to_start->len == 0;
  if (!started && !empty)
    k->started = TRUE;
  tes_mutex_unlock(&k->task_set);
  if (started)
    return fail(error, TES_ERROR_STATE, "kernel already started");
  if (empty)
    return fail(error, TES_ERROR_STATE, "kernel contains no tasks");
  tes_time_resume(k);
  for (guint i = 0; i < k->to_start->len; i++)
    if (!tes_kernel_start_process(k, g_ptr_array_index(k->to_start, i), error))
      return FALSE;
  g_ptr_array_set_size(k->to_start, 0);
  return TRUE;
}

/* Remembers it for Start, or starts it if the generation's processes run at once (FEATURES.md 1.24). */
static void queue_process(TesKernel *k, TesThreadGroup *tg) {
  tes_mutex_lock(&k->task_set);
  if (!k->init)
    k->init = tes_tg_ref(tg);
  gboolean started = k->started;
  if (!started)
    g_ptr_array_add(k->to_start, tes_tg_ref(tg));
  tes_mutex_unlock(&k->task_set);
  if (started && !tes_kernel_profile(k)->start_process)
    tes_kernel_start_process(k, tg, NULL);
}

static const char *program_name(const TesProcessArgs *a, GError **error) {
  if (a->filename)
    return a->filename;
  if (a->file)
    return NULL;
  if (!a->argv || !a->argv[0]) {
    fail(error, TES_ERROR_CONFIG, "no filename or command provided");
    return NULL;
  }
  if (!g_path_is_absolute(a->argv[0])) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "'%s' is not an absolute path", a->argv[0]);
    return NULL;
  }
  return a->argv[0];
}

static gboolean find_dirs(TesKernel *k, const TesProcessArgs *a, TesCreateCtx *c, GError **error) {
  TesVfs *v = k->vfs;
  c->root = a->mount_ns ? v->ops->ns_root(a->mount_ns) : tes_path_ref(k->root_path);
  c->cwd = tes_path_ref(c->root);
  if (a->root) {
    TesAt at = {.base = c->root, .path = a->root, .flags = TES_AT_DIRECTORY};
    TesPath *p;
    int r = v->ops->walk(v, &c->ctx, &at, &p);
    if (r < 0) {
      g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "failed to find root directory \"%s\": %s", a->root,
                  g_strerror(-r));
      return FALSE;
    }
    tes_path_unref(c->root);
    c->root = p;
    tes_path_unref(c->cwd);
    c->cwd = tes_path_ref(p);
  }
  const char *cwd = a->cwd ? a->cwd : "/";
  TesAt at = {.base = c->cwd, .path = cwd, .flags = TES_AT_DIRECTORY};
  TesPath *p = NULL;
  int r = v->ops->walk(v, &c->ctx, &at, &p);
  if (r == 0)
    r = tes_inode_permission(p->inode, &c->ctx, X_OK);
  if (r < 0) {
    if (p)
      tes_path_unref(p);
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "failed to find initial working directory \"%s\": %s",
                cwd, g_strerror(-r));
    return FALSE;
  }
  tes_path_unref(c->cwd);
  c->cwd = p;
  return TRUE;
}

static gboolean load_program(const TesProcessArgs *a, TesCreateCtx *c, TesImage *image, GError **error) {
  g_autoptr(GError) e = NULL;
  const char *name = program_name(a, &e);
  if (e) {
    g_propagate_error(error, g_steal_pointer(&e));
    return FALSE;
  }
  static const char *const none[] = {NULL};
  TesAt at = {.base = c->cwd, .path = name};
  TesLoadArgs la = {.file = name ? NULL : a->file,
                    .at = name ? &at : NULL,
                    .argv = (char **)(a->argv ? a->argv : none),
                    .envv = (char **)(a->envv ? a->envv : none),
                    .limits = c->limits,
                    .execfn = name};
  int r = tes_load_image(&c->ctx, &la, image);
  if (r < 0)
    g_set_error(error, TES_ERROR, r == -ENOENT || r == -ENOTDIR ? TES_ERROR_NOTFOUND : TES_ERROR_NOEXEC,
                "%s: %s", name ? name : "program",
                r == -ENOEXEC ? "not an executable for this machine" : g_strerror(-r));
  return r == 0;
}

TesThreadGroup *tes_kernel_create_process(TesKernel *k, const TesProcessArgs *a, gint *pid, GError **error) {
  if (!k->initialised || !k->root_mount_ns) {
    fail(error, TES_ERROR_STATE, "the kernel is not initialised");
    return NULL;
  }
  if (a->mount_ns && a->mount_ns != k->root_mount_ns && !tes_kernel_profile(k)->mount_ns_per_process) {
    fail(error, TES_ERROR_CONFIG, "this VFS generation has one mount namespace for the whole sandbox");
    return NULL;
  }
  gboolean own_pid_ns = a->pid_ns && tes_kernel_profile(k)->pid_ns_argument;
  TesCreateCtx c = {.pid_ns = own_pid_ns ? a->pid_ns : k->root_pid,
                    .uts_ns = a->uts_ns ? a->uts_ns : k->root_uts,
                    .ipc_ns = a->ipc_ns ? a->ipc_ns : k->root_ipc,
                    .cred = a->cred ? a->cred : k->supervisor_cred,
                    .mount_ns = a->mount_ns ? a->mount_ns : k->root_mount_ns,
                    .limits = tes_limits_new(a->limits)};
  tes_ctx_init(&c.ctx, TES_CTX_CREATE, k);
  TesImage image = {0};
  TesThreadGroup *tg = NULL;
  if (find_dirs(k, a, &c, error) && load_program(a, &c, &image, error)) {
    g_autofree char *line = g_strjoinv(" ", (char **)a->argv);
    tes_info("EXEC: [%s]", line);
    tg = tes_task_create_first(&c, a, &image, error);
    tes_image_clear(&image);
  }
  if (tg) {
    tes_watch_first(tg->leader, a->argv);
    if (pid)
      *pid = tes_task_pid(tg->leader, c.pid_ns);
    queue_process(k, tg);
  }
  tes_limits_unref(c.limits);
  tes_path_unref(c.cwd);
  tes_path_unref(c.root);
  return tg;
}

TesTask *tes_tg_leader(TesThreadGroup *tg) { return tg->leader; }

/* A thread that is not a task waits on a queue by a condition of its own. */
typedef struct {
  TesWaiter w;
  pthread_mutex_t m;
  pthread_cond_t c;
  gboolean fired;
} Bell;

static gboolean ring(TesWaiter *w, guint mask, gpointer key) {
  (void)mask, (void)key;
  Bell *b = w->data;
  pthread_mutex_lock(&b->m);
  b->fired = TRUE;
  pthread_cond_signal(&b->c);
  pthread_mutex_unlock(&b->m);
  return TRUE;
}

static void wait_until(TesQueue *q, gboolean (*done)(gpointer), gpointer data) {
  Bell b = {.m = PTHREAD_MUTEX_INITIALIZER, .c = PTHREAD_COND_INITIALIZER};
  b.w = (TesWaiter){.mask = POLLIN, .fn = ring, .data = &b};
  tes_queue_add(q, &b.w);
  while (!done(data)) {
    pthread_mutex_lock(&b.m);
    while (!b.fired)
      pthread_cond_wait(&b.c, &b.m);
    b.fired = FALSE;
    pthread_mutex_unlock(&b.m);
  }
  tes_waiter_remove(&b.w);
}

static gboolean tg_is_dead(gpointer p) {
  TesThreadGroup *tg = p;
  TES_LOCKED(&tg->kernel->task_set);
  return tg->zombie || tg->reaped;
}

int tes_tg_wait(TesThreadGroup *tg) {
  wait_until(&tg->exit_queue, tg_is_dead, tg);
  return tg->exit_status;
}

static gboolean all_exited(gpointer p) {
  TesKernel *k = p;
  TES_LOCKED(&k->task_set);
  return g_atomic_int_get(&k->n_tasks) == 0;
}

void tes_kernel_wait_exited(TesKernel *k) { wait_until(&k->exited_queue, all_exited, k); }

/* Under one lock, so that no process sees another's death and goes on. */
void tes_kernel_kill(TesKernel *k, int wait_status) {
  GHashTableIter it;
  gpointer t;
  TES_LOCKED(&k->task_set);
  g_hash_table_iter_init(&it, k->tasks);
  while (g_hash_table_iter_next(&it, NULL, &t))
    tes_tg_kill_locked(((TesTask *)t)->tg, wait_status);
}

void tes_kernel_send_external_signal(TesKernel *k, int sig, const char *context) {
  tes_info("Received external signal %d (%s)", sig, context);
  if (k->init && sig != SIGURG)
    tes_signal_group(k->init, sig, NULL);
}

int tes_kernel_send_container_signal(TesKernel *k, const char *cid, int sig) {
  g_autoptr(GPtrArray) all = tes_tasks_snapshot(k, NULL);
  int r = -ESRCH;
  for (guint i = 0; i < all->len; i++) {
    TesThreadGroup *tg = tes_task_group(g_ptr_array_index(all, i));
    if (g_strcmp0(tg->container_id, cid) == 0)
      r = tes_signal_group(tg, sig, NULL);
  }
  return r;
}
