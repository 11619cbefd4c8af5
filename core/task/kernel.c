/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel object (FEATURES.md 1.1): initialisation with its refusals, the event thread, unique ids, teardown. Processes of the
 * control side are in control.c, Pause in run.c. */
#include <core/file/file.h>
#include <core/loader/loader.h>
#include <core/registry/registry.h>
#include <core/task/kernel.h>
#include <core/task/life.h>
#include <core/trace/trace.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static const TesLockClass ext_class = {"kernel external", TES_RANK_KERNEL_EXT, FALSE,
                                       "changes from outside the sandbox"};
static const TesLockClass task_set_class = {"task set", TES_RANK_TASK_SET, FALSE,
                                            "process tree, groups, sessions, pid namespaces"};
static const TesLockClass running_class = {"running tasks", TES_RANK_RUNNING, FALSE,
                                           "CPU clock ticker's start and stop"};

#define DEFAULT_PID_MAX 32768

static gboolean fail(GError **error, TesErrorCode code, const char *message) {
  g_set_error_literal(error, TES_ERROR, code, message);
  return FALSE;
}

TesKernel *tes_kernel_new(TesRegistry *sealed) {
  TesKernel *k = g_new0(TesKernel, 1);
  k->registry = sealed;
  tes_mutex_init(&k->ext_lock, &ext_class);
  tes_mutex_init(&k->task_set, &task_set_class);
  tes_mutex_init(&k->running_lock, &running_class);
  pthread_mutex_init(&k->pause_mutex, NULL);
  pthread_cond_init(&k->pause_cond, NULL);
  k->tasks = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)tes_task_unref);
  k->pgrps = g_hash_table_new(NULL, NULL);
  k->sessions = g_hash_table_new(NULL, NULL);
  k->to_start = g_ptr_array_new_with_free_func((GDestroyNotify)tes_tg_unref);
  k->data = g_hash_table_new(NULL, NULL);
  k->plugins_inited = g_ptr_array_new();
  tes_queue_init(&k->exited_queue);
  tes_queue_init(&k->signal_queue);
  return k;
}

/* ---- Initialisation ---- */

static gboolean check_args(TesKernel *k, const TesKernelArgs *a, GError **error) {
  if (k->initialised)
    return fail(error, TES_ERROR_STATE, "the kernel is already initialised");
  if (!tes_registry_is_sealed(k->registry))
    return fail(error, TES_ERROR_STATE, "the plugin registry is not sealed");
  if (!a->timekeeper)
    return fail(error, TES_ERROR_CONFIG, "a kernel needs a timekeeper");
  if (!tes_timekeeper_has_clocks(a->timekeeper))
    return fail(error, TES_ERROR_CONFIG,
                "the timekeeper's clocks must be set before the kernel is initialised");
  if (a->application_cores == 0)
    return fail(error, TES_ERROR_CONFIG, "the number of CPUs must be at least 1 (--cpus)");
  return TRUE;
}

static gboolean open_platform(TesKernel *k, const TesKernelArgs *a, GError **error) {
  const TesFeature *f = tes_choose_platform(k->registry, a->platform, NULL, NULL, error);
  if (!f)
    return FALSE;
  const TesPlatformOps *ops = f->ops;
  tes_cpuid_init(k, a->cpuid, (ops->flags & TES_PLATFORM_CPUID) != 0);
  TesPlatformArgs pa = {
      .size = sizeof pa, .cores = k->cores, .device = a->device, .cpuid = tes_cpuid_table(k)};
  k->platform = ops->open(&pa, error);
  return k->platform != NULL;
}

static gboolean open_vfs(TesKernel *k, const char *want, GError **error) {
  const TesFeature *f = tes_choose_vfs(k->registry, want, error);
  if (!f)
    return FALSE;
  k->vfs = ((const TesVfsOps *)f->ops)->new_(k, error);
  k->vfs_name = f->name;
  if (!k->vfs)
    g_prefix_error(error, "failed to initialize VFS: ");
  return k->vfs != NULL;
}

static gpointer event_main(gpointer data) {
  TesKernel *k = data;
  prctl(PR_SET_NAME, "tessera-events");
  g_main_context_push_thread_default(k->main_context);
  g_main_loop_run(k->main_loop);
  g_main_context_pop_thread_default(k->main_context);
  return NULL;
}

static gboolean quit_loop(gpointer loop) {
  g_main_loop_quit(loop);
  return G_SOURCE_REMOVE;
}

/* By a source, not by g_main_loop_quit() from here: the thread may not have entered its loop yet. */
static void stop_events(TesKernel *k) {
  GSource *s = g_idle_source_new();
  g_source_set_priority(s, G_PRIORITY_HIGH);
  g_source_set_callback(s, quit_loop, k->main_loop, NULL);
  g_source_attach(s, k->main_context);
  g_source_unref(s);
  g_thread_join(k->event_thread);
}

static gboolean start_events(TesKernel *k, GError **error) {
  k->main_context = g_main_context_new();
  k->main_loop = g_main_loop_new(k->main_context, FALSE);
  tes_timers_init(k);
  tes_ticker_init(k);
  k->event_thread = g_thread_try_new("tessera-events", event_main, k, error);
  if (!k->event_thread)
    g_prefix_error(error, "no thread for the kernel's events (ulimit -u, cgroup pids.max): ");
  return k->event_thread != NULL;
}

typedef struct {
  TesKernel *k;
  GError **error;
  gboolean ok;
} InitPlugins;

static void init_plugin(const TesPlugin *p, const char *origin, gpointer data) {
  (void)origin;
  InitPlugins *i = data;
  if (!i->ok)
    return;
  if (p->init && !p->init(i->k, i->error))
    i->ok = FALSE;
  else if (p->fini)
    g_ptr_array_add(i->k->plugins_inited, (gpointer)p);
}

static void copy_auxv(TesKernel *k, const guint64 *auxv) {
  while (auxv && (auxv[2 * k->n_extra_auxv] || auxv[2 * k->n_extra_auxv + 1]))
    k->n_extra_auxv++;
  k->extra_auxv = g_memdup2(auxv, k->n_extra_auxv * 2 * sizeof *auxv);
}

gboolean tes_kernel_init(TesKernel *k, const TesKernelArgs *a, GError **error) {
  if (!check_args(k, a, error))
    return FALSE;
  k->cores = a->application_cores;
  k->use_host_cores = a->use_host_cores;
  k->pid_max = a->pid_max ? a->pid_max : DEFAULT_PID_MAX;
  k->memory_limit = a->memory_limit;
  k->pids_limit = a->pids_limit;
  tes_cgroups_init(k);
  copy_auxv(k, a->extra_auxv);
  tes_protected_init();
  for (guint i = 0; i < TES_SYSCALL_MAX; i++)
    k->syscalls[i] = tes_syscall_row(k->registry, i);
  if (!tes_watch_init(k, a, error))
    return FALSE;
  if (!open_platform(k, a, error))
    return FALSE;
  k->memfile = tes_memfile_new(a->memory_limit, error);
  if (!k->memfile)
    return FALSE;
  k->timekeeper = a->timekeeper;
  k->futexes = tes_futexes_new();
  k->unimpl = tes_unimpl_new();
  if (!start_events(k, error))
    return FALSE;
  if (!tes_kernel_init_namespaces(k, a->hostname))
    return fail(error, TES_ERROR_FAILED, "the root namespaces could not be made");
  k->supervisor_cred = tes_cred_new_root(k->root_user);
  tes_ctx_init(&k->supervisor, TES_CTX_SUPERVISOR, k);
  k->dcache_limiter.max = a->dcache_max;
  k->trace_path = a->trace_path;
  if (!tes_vdso_init(k, error) || !open_vfs(k, a->vfs, error))
    return FALSE;
  InitPlugins ip = {k, error, TRUE};
  tes_registry_foreach_plugin(k->registry, init_plugin, &ip);
  k->initialised = ip.ok;
  return ip.ok;
}

/* ---- Teardown (L28): the reverse of initialisation ---- */

static void fini_plugins(TesKernel *k) {
  GPtrArray *done = k->plugins_inited;
  for (guint i = done->len; i-- > 0;)
    ((const TesPlugin *)g_ptr_array_index(done, i))->fini(k);
  g_ptr_array_unref(done);
}

static void free_data(TesKernel *k);

void tes_kernel_free(TesKernel *k) {
  if (!k)
    return;
  g_ptr_array_unref(k->to_start);
  g_hash_table_unref(k->tasks);
  if (k->root_path)
    tes_path_unref(k->root_path);
  if (k->root_mount_ns)
    k->vfs->ops->ns_unref(k->root_mount_ns);
  if (k->memfd_super) {
    tes_super_deactivate(k->memfd_super);
    tes_super_unref(k->memfd_super);
  }
  if (k->nsfs_super)
    tes_super_unref(k->nsfs_super);
  fini_plugins(k);
  free_data(k);
  if (k->event_thread)
    stop_events(k);
  if (k->init) /* an external signal may have been under way to it */
    tes_tg_unref(k->init);
  tes_epoch_poll(); /* retired mounts and dentries still use the VFS */
  if (k->vfs)
    k->vfs->ops->free(k->vfs);
  tes_trace_path_end(k);
  tes_watch_end(k);
  if (k->vdso_source)
    tes_vdso_free(k);
  if (k->supervisor_cred)
    tes_cred_unref(k->supervisor_cred);
  TesNs *ns[] = {k->root_uts,    k->root_ipc,  k->root_pid, k->root_net,
                 k->root_cgroup, k->root_time, k->root_user};
  for (guint i = 0; i < G_N_ELEMENTS(ns); i++)
    if (ns[i])
      tes_ns_unref(ns[i]);
  tes_epoch_poll();
  if (k->main_context) {
    tes_ticker_free(k);
    tes_timers_free(k);
    g_main_loop_unref(k->main_loop);
    g_main_context_unref(k->main_context);
  }
  if (k->futexes)
    tes_futexes_free(k->futexes);
  if (k->unimpl)
    tes_unimpl_free(k->unimpl);
  if (k->timekeeper)
    tes_timekeeper_free(k->timekeeper);
  if (k->memfile)
    tes_memfile_free(k->memfile);
  if (k->platform)
    k->platform->ops->close(k->platform);
  tes_cpuid_free(k);
  g_hash_table_unref(k->pgrps);
  g_hash_table_unref(k->sessions);
  tes_queue_clear(&k->exited_queue);
  tes_queue_clear(&k->signal_queue);
  g_clear_error(&k->save_error);
  g_free(k->extra_auxv);
  g_slist_free_full(k->on_leave, g_free);
  g_free(k->syslog);
  tes_mutex_clear(&k->ext_lock);
  tes_mutex_clear(&k->task_set);
  tes_mutex_clear(&k->running_lock);
  g_free(k);
}

/* ---- Plain accessors ---- */

TesRegistry *tes_kernel_registry(TesKernel *k) { return k->registry; }
TesPlatform *tes_kernel_platform(TesKernel *k) { return k->platform; }
TesVfs *tes_kernel_vfs(TesKernel *k) { return k->vfs; }
guint tes_kernel_dcache_max(TesKernel *k) { return k->dcache_limiter.max; }

const TesProfile *tes_kernel_profile(TesKernel *k) {
  /* Before there is a generation (tests of parts of the core). */
  static const TesProfile none = {.size = sizeof none,
                                  .mount_ns_per_process = TRUE,
                                  .kernel_futexes = TRUE,
                                  .ticker_stops_idle = TRUE,
                                  .own_anon_mounts = TRUE};
  return k->vfs ? k->vfs->ops->profile : &none;
}
TesMemFile *tes_kernel_memfile(TesKernel *k) { return k->memfile; }
guint tes_kernel_cores(TesKernel *k) { return k->cores; }
GMainContext *tes_kernel_main_context(TesKernel *k) { return k->main_context; }
TesCtx *tes_kernel_supervisor_ctx(TesKernel *k) { return &k->supervisor; }
void tes_kernel_ext_lock(TesKernel *k) { tes_mutex_lock(&k->ext_lock); }
void tes_kernel_ext_unlock(TesKernel *k) { tes_mutex_unlock(&k->ext_lock); }
TesMountNs *tes_kernel_root_mount_ns(TesKernel *k) { return k->root_mount_ns; }
TesThreadGroup *tes_kernel_global_init(TesKernel *k) { return k->init; }
const GError *tes_kernel_save_error(TesKernel *k) { return k->save_error; }

TesNs *tes_kernel_root_ns(TesKernel *k, int flag) {
  switch (flag) {
  case CLONE_NEWUSER:
    return k->root_user;
  case CLONE_NEWUTS:
    return k->root_uts;
  case CLONE_NEWIPC:
    return k->root_ipc;
  case CLONE_NEWPID:
    return k->root_pid;
  case CLONE_NEWNET:
    return k->root_net;
  case CLONE_NEWCGROUP:
    return k->root_cgroup;
  default:
    return k->root_time;
  }
}

void tes_kernel_set_save_error(TesKernel *k, GError *e) {
  TES_LOCKED(&k->ext_lock);
  if (k->save_error)
    g_error_free(e);
  else
    k->save_error = e;
}

gboolean tes_kernel_set_root_mount_ns(TesKernel *k, TesMountNs *ns, GError **error) {
  if (k->root_mount_ns)
    return fail(error, TES_ERROR_STATE, "the root mount namespace is already set");
  k->root_mount_ns = ns;
  k->root_path = k->vfs->ops->ns_root(ns);
  return TRUE;
}

guint64 tes_unique_id(TesKernel *k) {
  guint64 id = __atomic_add_fetch(&k->unique_id, 1, __ATOMIC_RELAXED);
  if (G_UNLIKELY(id == 0))
    g_error("unique identifier generator wrapped around");
  return id;
}

guint32 tes_notify_cookie(TesKernel *k) {
  guint32 c;
  do
    c = __atomic_add_fetch(&k->inotify_cookie, 1, __ATOMIC_RELAXED);
  while (c == 0);
  return c;
}

/* ---- Plugins' per-kernel data ---- */

typedef struct {
  gpointer data;
  GDestroyNotify destroy;
} Datum;

static void datum_free(Datum *d) {
  if (d && d->destroy)
    d->destroy(d->data);
  g_free(d);
}

void tes_kernel_set_data(TesKernel *k, gconstpointer key, gpointer data, GDestroyNotify destroy) {
  Datum *d = g_new(Datum, 1);
  *d = (Datum){data, destroy};
  tes_mutex_lock(&k->ext_lock);
  Datum *old = g_hash_table_lookup(k->data, key);
  g_hash_table_insert(k->data, (gpointer)key, d);
  tes_mutex_unlock(&k->ext_lock);
  datum_free(old);
}

gpointer tes_kernel_get_data(TesKernel *k, gconstpointer key) {
  Datum *d = g_hash_table_lookup(k->data, key); /* set while no task runs */
  return d ? d->data : NULL;
}

static void free_data(TesKernel *k) {
  GHashTableIter it;
  gpointer d;
  g_hash_table_iter_init(&it, k->data);
  while (g_hash_table_iter_next(&it, NULL, &d))
    datum_free(d);
  g_clear_pointer(&k->data, g_hash_table_unref);
}

const char *tes_kernel_syslog(TesKernel *k) {
  TES_LOCKED(&k->ext_lock);
  g_autofree char *vfs = g_ascii_strup(k->vfs_name ? k->vfs_name : "vfs", -1);
  if (!k->syslog)
    k->syslog = g_strdup_printf("<6>[    0.000000] Tessera, a Linux kernel in user space\n"
                                "<6>[    0.000000] %u CPUs, plugins sealed\n"
                                "<6>[    0.000000] Setting up %s...\n",
                                k->cores, vfs);
  return k->syslog;
}
