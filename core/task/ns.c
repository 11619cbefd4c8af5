/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces as objects: UTS, IPC, PID, network, cgroup; sets of them for clone(2), unshare(2), setns(2).
 * User and time namespaces exist only as the initial one (namespaces(7): as a kernel built without them, EINVAL). */
#include <core/task/life.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/utsname.h>

static const TesLockClass uts_class = {"uts namespace", TES_RANK_LEAF, FALSE, "host and domain name"};

/* Inode numbers of the initial namespaces as Linux has them. */
static guint64 initial_id(int kind) {
  switch (kind) {
  case CLONE_NEWIPC:
    return 4026531839;
  case CLONE_NEWUTS:
    return 4026531838;
  case CLONE_NEWUSER:
    return 4026531837;
  case CLONE_NEWPID:
    return 4026531836;
  case CLONE_NEWCGROUP:
    return 4026531835;
  case CLONE_NEWTIME:
    return 4026531834;
  default:
    return 4026531833;
  }
}

#define FIRST_NS_ID 4026532000ULL

TesNs *tes_ns_new(TesKernel *k, int kind, TesNs *parent) {
  TesNs *ns = g_new0(TesNs, 1);
  ns->refs = 1;
  ns->kind = kind;
  ns->kernel = k;
  ns->parent = parent ? tes_ns_ref(parent) : NULL;
  g_datalist_init(&ns->plugins);
  ns->id = tes_kernel_root_ns(k, kind) ? FIRST_NS_ID + tes_unique_id(k) : initial_id(kind);
  return ns;
}

TesNs *tes_ns_ref(TesNs *ns) {
  g_atomic_int_inc(&ns->refs);
  return ns;
}

void tes_ns_unref(TesNs *ns) {
  while (ns && g_atomic_int_dec_and_test(&ns->refs)) {
    TesNs *parent = ns->parent;
    g_datalist_clear(&ns->plugins);
    if (ns->free_data)
      ns->free_data(ns->data);
    g_free(ns);
    ns = parent;
  }
}

/* ---- UTS ---- */

static void uts_free(gpointer data) {
  TesUtsNs *u = data;
  tes_mutex_clear(&u->lock);
  g_free(u);
}

static TesNs *uts_new(TesKernel *k, TesNs *parent, const char *node, const char *domain) {
  TesNs *ns = tes_ns_new(k, CLONE_NEWUTS, parent);
  TesUtsNs *u = g_new0(TesUtsNs, 1);
  tes_mutex_init(&u->lock, &uts_class);
  g_strlcpy(u->nodename, node, sizeof u->nodename);
  g_strlcpy(u->domainname, domain, sizeof u->domainname);
  ns->data = u;
  ns->free_data = uts_free;
  return ns;
}

static TesNs *uts_copy(TesKernel *k, TesNs *from) {
  TesUtsNs *u = TES_UTS_NS(from);
  TES_LOCKED(&u->lock);
  return uts_new(k, NULL, u->nodename, u->domainname);
}

gboolean tes_kernel_init_namespaces(TesKernel *k, const char *hostname) {
  struct utsname host = {.nodename = "tessera"};
  uname(&host);
  k->root_user = tes_ns_new(k, CLONE_NEWUSER, NULL);
  k->root_uts = uts_new(k, NULL, hostname ? hostname : host.nodename, "(none)");
  k->root_ipc = tes_ns_new(k, CLONE_NEWIPC, NULL);
  k->root_pid = tes_pid_ns_new(k, NULL);
  k->root_net = tes_ns_new(k, CLONE_NEWNET, NULL);
  k->root_cgroup = tes_ns_new(k, CLONE_NEWCGROUP, NULL);
  k->root_time = tes_ns_new(k, CLONE_NEWTIME, NULL);
  k->uid_tasks = g_hash_table_new(NULL, NULL);
  tes_task_limit_init(k);
  return k->root_pid != NULL;
}

/* ---- Sets ---- */

static TesNs *ref_or_null(TesNs *ns) { return ns ? tes_ns_ref(ns) : NULL; }

static TesNs *ref_or_new(TesKernel *k, TesNs *ns, int kind, guint64 flags) {
  return flags & kind ? tes_ns_new(k, kind, NULL) : ref_or_null(ns);
}

static int make_mount_ns(TesTask *t, guint64 flags, TesMountNs **out) {
  const TesVfsOps *ops = t->kernel->vfs->ops;
  if (!(flags & CLONE_NEWNS)) {
    *out = t->mount_ns ? ops->ns_ref(t->mount_ns) : NULL;
    return 0;
  }
  if (!TES_HAS(ops, ns_copy) || !TES_HAS(ops, ns_path) || !t->mount_ns || !ops->profile->mount_ns_per_process)
    return -EINVAL;
  *out = ops->ns_copy(t->kernel->vfs, &t->ctx, t->mount_ns);
  return *out ? 0 : -ENOSPC;
}

int tes_ns_set_make(TesTask *t, guint64 flags, TesNsSet *out) {
  TesKernel *k = t->kernel;
  if (flags & (CLONE_NEWUSER | CLONE_NEWTIME))
    return -EINVAL;
  if ((flags & TES_CLONE_NEW_SERVED) && !tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  TesNsSet s = {0};
  int r = make_mount_ns(t, flags, &s.mount_ns);
  if (r < 0)
    return r;
  s.pid_children =
      flags & CLONE_NEWPID ? tes_pid_ns_new(k, t->ns_pid_children) : tes_ns_ref(t->ns_pid_children);
  if (!s.pid_children) {
    tes_ns_set_clear(k, &s);
    return -ENOSPC;
  }
  s.pid = tes_ns_ref(t->ns_pid);
  s.user = ref_or_null(t->ns_user);
  s.uts = flags & CLONE_NEWUTS ? uts_copy(k, t->ns_uts) : ref_or_null(t->ns_uts);
  s.ipc = ref_or_new(k, t->ns_ipc, CLONE_NEWIPC, flags);
  s.net = ref_or_new(k, t->ns_net, CLONE_NEWNET, flags);
  s.cgroup = flags & CLONE_NEWCGROUP ? tes_cgroup_ns_new(t) : ref_or_null(t->ns_cgroup);
  s.time = ref_or_null(t->ns_time);
  *out = s;
  return 0;
}

void tes_ns_set_clear(TesKernel *k, TesNsSet *s) {
  if (s->mount_ns)
    k->vfs->ops->ns_unref(s->mount_ns);
  TesNs *all[] = {s->user, s->uts, s->ipc, s->pid, s->pid_children, s->net, s->cgroup, s->time};
  for (guint i = 0; i < G_N_ELEMENTS(all); i++)
    if (all[i])
      tes_ns_unref(all[i]);
  *s = (TesNsSet){0};
}

void tes_ns_set_give(TesTask *t, TesNsSet *s) {
  t->mount_ns = s->mount_ns;
  t->ns_user = s->user;
  t->ns_uts = s->uts;
  t->ns_ipc = s->ipc;
  t->ns_pid = s->pid;
  t->ns_pid_children = s->pid_children;
  t->ns_net = s->net;
  t->ns_cgroup = s->cgroup;
  t->ns_time = s->time;
  *s = (TesNsSet){0};
}

/* The task's own set changes places with `s`; others see either. */
static void exchange(TesTask *t, TesNsSet *s) {
  tes_mutex_lock(&t->lock);
  TesNsSet old = {t->mount_ns,        t->ns_user, t->ns_uts,    t->ns_ipc, t->ns_pid,
                  t->ns_pid_children, t->ns_net,  t->ns_cgroup, t->ns_time};
  tes_ns_set_give(t, s);
  tes_mutex_unlock(&t->lock);
  *s = old;
}

/* ---- unshare(2), setns(2) ---- */

/* After a change of mount namespace root and working directory are looked up again in the new one. */
static void enter_mounts(TesTask *t) {
  const TesVfsOps *ops = t->kernel->vfs->ops;
  tes_fsinfo_set_root(t->fsinfo, ops->ns_root(t->mount_ns));
  tes_fsinfo_set_cwd(t->fsinfo, ops->ns_root(t->mount_ns));
}

/* The same places in the copied namespace: a new one keeps root and working directory. */
void tes_ns_carry_dirs(TesTask *t) {
  const TesVfsOps *ops = t->kernel->vfs->ops;
  g_autoptr(TesPath) root = tes_fsinfo_root(t->fsinfo);
  g_autoptr(TesPath) cwd = tes_fsinfo_cwd(t->fsinfo);
  if (root)
    tes_fsinfo_set_root(t->fsinfo, ops->ns_path(t->mount_ns, root));
  if (cwd)
    tes_fsinfo_set_cwd(t->fsinfo, ops->ns_path(t->mount_ns, cwd));
}

glong tes_ns_unshare(TesTask *t, guint64 flags) {
  TesNsSet s;
  int r = tes_ns_set_make(t, flags, &s);
  if (r < 0)
    return r;
  exchange(t, &s);
  if (flags & CLONE_NEWNS)
    tes_ns_carry_dirs(t);
  tes_ns_set_clear(t->kernel, &s);
  return 0;
}

/* What `flags` name in `from` becomes the task's; `from` gets what it replaced of a set that the caller clears. */
static int join(TesTask *t, TesNsSet *from, guint64 flags) {
  TesNsSet s;
  int r = tes_ns_set_make(t, 0, &s);
  if (r < 0)
    return r;
  struct {
    int flag;
    TesNs **slot, **source;
  } parts[] = {{CLONE_NEWUTS, &s.uts, &from->uts},
               {CLONE_NEWIPC, &s.ipc, &from->ipc},
               {CLONE_NEWNET, &s.net, &from->net},
               {CLONE_NEWCGROUP, &s.cgroup, &from->cgroup},
               {CLONE_NEWPID, &s.pid_children, &from->pid}};
  for (guint i = 0; i < G_N_ELEMENTS(parts); i++)
    if (flags & parts[i].flag && *parts[i].source) {
      TesNs *old = *parts[i].slot;
      *parts[i].slot = *parts[i].source;
      *parts[i].source = old;
    }
  if (flags & CLONE_NEWNS && from->mount_ns) {
    TesMountNs *old = s.mount_ns;
    s.mount_ns = from->mount_ns;
    from->mount_ns = old;
  }
  exchange(t, &s);
  tes_ns_set_clear(t->kernel, &s);
  if (flags & CLONE_NEWNS)
    enter_mounts(t);
  return 0;
}

/* A pid namespace may only be entered downwards. */
static gboolean is_below(TesNs *ns, TesNs *top) {
  while (ns && ns != top)
    ns = ns->parent;
  return ns == top;
}

/* By a file of /proc/PID/ns. */
static glong setns_file(TesTask *t, TesFile *f, int nstype) {
  TesNs *ns = NULL;
  TesMountNs *mounts = NULL;
  int kind = tes_ns_of_file(f, &ns, &mounts);
  if (!kind || (nstype && nstype != kind) || !(kind & TES_CLONE_NEW_SERVED))
    return -EINVAL;
  if (!tes_task_capable(t, CAP_SYS_ADMIN) || (mounts && !tes_task_capable(t, CAP_SYS_CHROOT)))
    return -EPERM;
  if ((kind == CLONE_NEWPID && !is_below(ns, t->ns_pid)) ||
      (mounts && !tes_kernel_profile(t->kernel)->mount_ns_per_process))
    return -EINVAL;
  TesNsSet from = {.mount_ns = mounts ? t->kernel->vfs->ops->ns_ref(mounts) : NULL};
  TesNs **slot = kind == CLONE_NEWUTS   ? &from.uts
                 : kind == CLONE_NEWIPC ? &from.ipc
                 : kind == CLONE_NEWNET ? &from.net
                 : kind == CLONE_NEWPID ? &from.pid
                                        : &from.cgroup;
  if (ns)
    *slot = tes_ns_ref(ns);
  int r = join(t, &from, kind);
  tes_ns_set_clear(t->kernel, &from);
  return r;
}

glong tes_ns_setns(TesTask *t, TesFile *f, int nstype) {
  g_autoptr(TesThreadGroup) tg = tes_file_pidfd(f);
  if (!tg)
    return setns_file(t, f, nstype);
  if (nstype == 0 || nstype & ~(int)TES_CLONE_NEW_SERVED)
    return -EINVAL;
  if (nstype & CLONE_NEWNS && !tes_kernel_profile(t->kernel)->mount_ns_per_process)
    return -EINVAL;
  if (!tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  tes_mutex_lock(&t->kernel->task_set);
  g_autoptr(TesTask) task = tg->leader && !tg->zombie ? tes_task_ref(tg->leader) : NULL;
  tes_mutex_unlock(&t->kernel->task_set);
  if (!task)
    return -ESRCH;
  if (!tes_task_may_inspect(&t->ctx, task))
    return -EPERM;
  TesNsSet from = {.mount_ns = tes_task_mount_ns(task),
                   .uts = tes_task_ns(task, CLONE_NEWUTS),
                   .ipc = tes_task_ns(task, CLONE_NEWIPC),
                   .net = tes_task_ns(task, CLONE_NEWNET),
                   .pid = tes_task_ns(task, CLONE_NEWPID),
                   .cgroup = tes_task_ns(task, CLONE_NEWCGROUP)};
  int r = nstype & CLONE_NEWPID && !is_below(from.pid, t->ns_pid) ? -EINVAL : join(t, &from, nstype);
  tes_ns_set_clear(t->kernel, &from);
  return r;
}

void tes_uts_get(TesNs *ns, gboolean domain, char *buf, gsize n) {
  TesUtsNs *u = TES_UTS_NS(ns);
  tes_mutex_lock(&u->lock);
  g_strlcpy(buf, domain ? u->domainname : u->nodename, n);
  tes_mutex_unlock(&u->lock);
}
