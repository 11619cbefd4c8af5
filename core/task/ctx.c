/* SPDX-License-Identifier: Apache-2.0 */
/* The context-key table (FEATURES.md 1.2): one row for each key, one resolver for each kind of context.
 * Lookups borrow. Root and working directory can be changed by another thread of the process, so a task keeps a reference to
 * what it was given until it returns to the guest (before_guest in run.c). */
#include <core/file/file.h>
#include <core/registry/registry.h>
#include <core/task/kernel.h>
#include <core/task/task.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static TesTask *T(TesCtx *c) { return (TesTask *)c; }
static TesCreateCtx *C(TesCtx *c) { return (TesCreateCtx *)c; }

void tes_ctx_init(TesCtx *ctx, TesCtxKind kind, TesKernel *k) {
  *ctx = (TesCtx){kind, k, k->registry->resolve[kind]};
}

/* ---- Values that are the same in every context ---- */
static gpointer get_dcache_limiter(TesCtx *c) { return &c->kernel->dcache_limiter; }
static gpointer get_kernel(TesCtx *c) { return c->kernel; }
static gpointer get_memfile(TesCtx *c) { return c->kernel->memfile; }
static gpointer get_platform(TesCtx *c) { return c->kernel->platform; }
static gpointer get_realtime(TesCtx *c) { return tes_kernel_realtime_clock(c->kernel); }

/* ---- The supervisor: maximum privilege (K23) ---- */
static gboolean always(TesCtx *c, TesTask *t) {
  (void)c, (void)t;
  return TRUE;
}
static gpointer super_can_trace(TesCtx *c) {
  (void)c;
  return (gpointer)always;
}
static gpointer root_pid(TesCtx *c) { return c->kernel->root_pid; }
static gpointer root_uts(TesCtx *c) { return c->kernel->root_uts; }
static gpointer root_ipc(TesCtx *c) { return c->kernel->root_ipc; }
static gpointer root_net(TesCtx *c) { return c->kernel->root_net; }
static gpointer root_user(TesCtx *c) { return c->kernel->root_user; }
static gpointer super_cred(TesCtx *c) { return c->kernel->supervisor_cred; }
static TesTask *init_leader(TesKernel *k) { return k->init ? k->init->leader : NULL; }
static gpointer super_mount_ns(TesCtx *c) { return c->kernel->root_mount_ns; }
static gpointer super_root(TesCtx *c) { return c->kernel->root_path; }

/* ---- A process being created ---- */
static gpointer create_pid(TesCtx *c) { return C(c)->pid_ns; }
static gpointer create_uts(TesCtx *c) { return C(c)->uts_ns; }
static gpointer create_ipc(TesCtx *c) { return C(c)->ipc_ns; }
static gpointer create_cred(TesCtx *c) { return C(c)->cred; }
static gpointer create_root(TesCtx *c) { return C(c)->root; }
static gpointer create_cwd(TesCtx *c) { return C(c)->cwd; }
static gpointer create_limits(TesCtx *c) { return C(c)->limits; }
/* K9: the init process's mount namespace, not the argument's. */
static gpointer create_mount_ns(TesCtx *c) {
  TesTask *t = init_leader(c->kernel);
  return t && t->mount_ns ? t->mount_ns : C(c)->mount_ns;
}

/* ---- A task ---- */
static gboolean task_can_trace(TesCtx *c, TesTask *t) { return tes_task_may_inspect(c, t); }
static gpointer get_task_can_trace(TesCtx *c) {
  (void)c;
  return (gpointer)task_can_trace;
}
static gpointer task_pid(TesCtx *c) { return T(c)->ns_pid; }
static gpointer task_uts(TesCtx *c) { return T(c)->ns_uts; }
static gpointer task_ipc(TesCtx *c) { return T(c)->ns_ipc; }
static gpointer task_net(TesCtx *c) { return T(c)->ns_net; }
static gpointer task_user(TesCtx *c) { return T(c)->ns_user; }
static gpointer task_cred(TesCtx *c) { return T(c)->cred; }
static gpointer task_limits(TesCtx *c) { return T(c)->tg->limits; }
static gpointer task_mount_ns(TesCtx *c) { return T(c)->mount_ns; }
static gpointer task_self(TesCtx *c) { return c; }
static gpointer task_group(TesCtx *c) { return T(c)->tg; }

static gpointer lend(TesTask *t, TesPath *p /* full */) {
  for (GSList *l = t->borrowed_paths; l; l = l->next)
    if (l->data == p) {
      tes_path_unref(p);
      return p;
    }
  t->borrowed_paths = g_slist_prepend(t->borrowed_paths, p);
  return p;
}
void tes_task_keep_path(TesTask *t, TesPath *p) { (void)lend(t, p); }

static void drop_work(TesTask *t, gpointer path) { tes_path_unref(path); }

/* A task that comes back from the guest says so without a barrier (run_guest), so this side makes it have one. FALSE: it cannot. */
static gboolean barrier_everywhere(void) {
  static gsize once; /* 1: cannot, 2: can */
  if (g_once_init_enter(&once))
    g_once_init_leave(&once,
                      syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 ? 2 : 1);
  return once == 2 && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void tes_task_drop_path(TesTask *t, TesPath *p) {
  /* The change of the path came first: what is borrowed after the barrier is the new one. */
  if (barrier_everywhere() &&
      (g_atomic_int_get(&t->in_guest) || g_atomic_int_get(&t->state) == TES_TASK_BLOCKED))
    tes_path_unref(p);
  else
    tes_task_add_work(t, drop_work, p);
}

static gpointer task_place(TesTask *t, gboolean cwd) {
  TesFsInfo *f = t->fsinfo;
  if (!f)
    return NULL;
  TesPath *p = tes_task_current() == t ? tes_fsinfo_peek(f, cwd) : NULL;
  return p ? p : lend(t, cwd ? tes_fsinfo_cwd(f) : tes_fsinfo_root(f));
}
static gpointer task_root(TesCtx *c) { return task_place(T(c), FALSE); }
static gpointer task_cwd(TesCtx *c) { return task_place(T(c), TRUE); }

#define ALL(fn) \
  { fn, fn, fn }

const TesCtxKeyRow tes_core_ctx_rows[TES_CTX_N_CORE] = {
    [TES_CTX_CAN_TRACE] = {"can-trace",
                           "gboolean (*)(TesCtx *, TesTask *)",
                           "K1",
                           "static",
                           {get_task_can_trace, NULL, super_can_trace}},
    [TES_CTX_KERNEL] = {"kernel", "TesKernel", "K2", "runtime", ALL(get_kernel)},
    [TES_CTX_PID_NS] =
        {"pid-ns", "TesNs", "K3", "task, create arguments, kernel", {task_pid, create_pid, root_pid}},
    [TES_CTX_UTS_NS] =
        {"uts-ns", "TesNs", "K4", "task, create arguments, kernel", {task_uts, create_uts, root_uts}},
    [TES_CTX_IPC_NS] =
        {"ipc-ns", "TesNs", "K5", "task, create arguments, kernel", {task_ipc, create_ipc, root_ipc}},
    [TES_CTX_CRED] =
        {"cred", "TesCred", "K6", "task, create arguments, kernel", {task_cred, create_cred, super_cred}},
    [TES_CTX_ROOT] = {"root",
                      "TesPath",
                      "K7, K8",
                      "task until it returns to the guest, create arguments, kernel",
                      {task_root, create_root, super_root}},
    [TES_CTX_MOUNT_NS] =
        {"mount-ns", "TesMountNs", "K9", "task, kernel", {task_mount_ns, create_mount_ns, super_mount_ns}},
    [TES_CTX_DCACHE_LIMITER] = {"dentry-cache-limiter", "TesDcacheLimiter", "K10", "kernel",
                                ALL(get_dcache_limiter)},
    [TES_CTX_NET_NS] = {"net-ns", "TesNs", "K11", "task, kernel", {task_net, root_net, root_net}},
    [TES_CTX_REALTIME_CLOCK] = {"realtime-clock", "TesClock", "K12", "timekeeper", ALL(get_realtime)},
    [TES_CTX_LIMITS] = {"limits",
                        "TesLimits",
                        "K13",
                        "thread group, create arguments; the supervisor has none",
                        {task_limits, create_limits, NULL}},
    [TES_CTX_MEMFILE] = {"memory-file", "TesMemFile", "K14", "kernel", ALL(get_memfile)},
    [TES_CTX_MEMFILE_PROVIDER] = {"memory-file-provider", "TesKernel", "K15", "runtime", ALL(get_kernel)},
    [TES_CTX_PLATFORM] = {"platform", "TesPlatform", "K16", "kernel", ALL(get_platform)},
    [TES_CTX_UNIQUE_ID] = {"unique-id-provider", "TesKernel", "K17, K18",
                           "runtime; draw with tes_unique_id()", ALL(get_kernel)},
    [TES_CTX_INOTIFY_COOKIE] = {"inotify-cookie-provider", "TesKernel", "K19",
                                "runtime; draw with tes_notify_cookie()", ALL(get_kernel)},
    [TES_CTX_EVENTS] = {"unimplemented-events", "TesKernel", "K20", "runtime", ALL(get_kernel)},
    [TES_CTX_TASK_SELF] = {"task", "TesTask", "K24", "itself", {task_self, NULL, NULL}},
    [TES_CTX_THREAD_GROUP] = {"thread-group", "TesThreadGroup", "K24", "task", {task_group, NULL, NULL}},
    [TES_CTX_WORKING_DIR] = {"working-directory",
                             "TesPath",
                             "",
                             "task until it returns to the guest, create arguments, kernel",
                             {task_cwd, create_cwd, super_root}},
    [TES_CTX_USER_NS] = {"user-ns", "TesNs", "", "task, kernel", {task_user, root_user, root_user}},
};
