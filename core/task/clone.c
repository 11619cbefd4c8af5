/* SPDX-License-Identifier: Apache-2.0 */
/* fork, vfork, clone and clone3 (clone(2)): checks of flags, what a child shares or copies, its registers, its start.
 * A child is built completely before it is linked, and linked before its thread exists; whatever fails undoes the rest. */
#include <core/file/file.h>
#include <core/task/life.h>
#include <core/task/seccomp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <string.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

/* ---- Flags ---- */

static int check_flags(TesTask *t, const TesCloneArgs *a) {
  guint64 f = a->flags;
  gboolean thread = f & CLONE_THREAD;
  if ((f & CLONE_NEWNS && f & CLONE_FS) || (f & CLONE_NEWUSER && f & CLONE_FS))
    return -EINVAL;
  if ((thread && !(f & CLONE_SIGHAND)) || (f & CLONE_SIGHAND && !(f & CLONE_VM)))
    return -EINVAL;
  if (f & CLONE_CLEAR_SIGHAND && f & CLONE_SIGHAND)
    return -EINVAL;
  if (thread && (f & (CLONE_NEWUSER | CLONE_NEWPID | CLONE_PIDFD) || t->ns_pid != t->ns_pid_children))
    return -EINVAL;
  if (f & CLONE_NEWIPC && f & CLONE_SYSVSEM)
    return -EINVAL;
  if (f & CLONE_PIDFD && f & CLONE_DETACHED)
    return -EINVAL;
  if (f & CLONE_PARENT && TES_PID_NS(t->ns_pid)->init == t->tg)
    return -EINVAL;
  if (f & CLONE_SETTLS && a->tls >= t->kernel->platform->max_addr)
    return -EPERM;
  return 0;
}

static int check_set_tid(TesTask *t, const TesCloneArgs *a) {
  if (!a->n_set_tid)
    return 0;
  if (a->n_set_tid > TES_PID_NS(t->ns_pid_children)->level + 1)
    return -EINVAL;
  return tes_task_capable(t, CAP_SYS_ADMIN) || tes_task_capable(t, CAP_CHECKPOINT_RESTORE) ? 0 : -EPERM;
}

/* ---- Pieces ---- */

static TesLimits *copy_limits(TesLimits *from) {
  TES_LOCKED(&from->lock);
  return tes_limits_new(from->v);
}

static TesSigHand *child_sighand(TesTask *t, guint64 flags) {
  TesSigHand *own = t->tg->sighand;
  if (flags & CLONE_SIGHAND) {
    g_atomic_int_inc(&own->refs);
    return own;
  }
  TesSigHand *copy = tes_sighand_copy(own);
  for (int sig = 1; flags & CLONE_CLEAR_SIGHAND && sig <= TES_NSIG; sig++)
    if (copy->action[sig].handler > 1)
      copy->action[sig] = (TesSigAction){0};
  return copy;
}

static TesThreadGroup *child_group(TesTask *t, const TesCloneArgs *a) {
  TesThreadGroup *from = t->tg;
  if (a->flags & CLONE_THREAD)
    return tes_tg_ref(from);
  TesThreadGroup *tg = tes_tg_alloc(t->kernel);
  tg->sighand = child_sighand(t, a->flags);
  tg->limits = copy_limits(from->limits);
  tg->exit_signal = a->exit_signal;
  tg->container_id = g_strdup(from->container_id);
  tg->dumpable = from->dumpable;
  tg->oom_score_adj = from->oom_score_adj;
  tg->started = TRUE;
  return tg;
}

static void copy_plain(TesTask *t, TesTask *c, guint64 flags) {
  memcpy(c->comm, t->comm, sizeof c->comm);
  c->blocked = t->have_saved_mask ? t->saved_mask : t->blocked;
  if (!(flags & CLONE_VM) || flags & CLONE_VFORK)
    c->altstack = t->altstack;
  memcpy(c->cpu_mask, t->cpu_mask, sizeof c->cpu_mask);
  gboolean reset = t->sched_flags & 1 /* SCHED_FLAG_RESET_ON_FORK */;
  c->nice = reset ? MAX(t->nice, 0) : t->nice;
  c->sched_policy = reset ? 0 : t->sched_policy;
  c->sched_priority = reset ? 0 : t->sched_priority;
  c->sched_flags = reset ? 0 : t->sched_flags;
  c->ioprio = t->ioprio;
  c->timer_slack = c->default_timer_slack = t->timer_slack;
  c->keep_caps = t->keep_caps;
  c->personality = t->personality;
  c->thp_disable = t->thp_disable;
  c->tsc_sigsegv = t->tsc_sigsegv;
  c->cpuid_fault = t->cpuid_fault;
  c->futex_root = t->futex_root;
  if (flags & CLONE_VM && !(flags & CLONE_THREAD))
    c->vm_shared = t->vm_shared = TRUE;
  else if (flags & CLONE_THREAD)
    c->vm_shared = t->vm_shared;
}

static int copy_memory(TesTask *t, TesTask *c, guint64 flags) {
  int r = 0;
  if (flags & CLONE_VM)
    c->mm = tes_mm_ref(t->mm);
  else
    r = tes_mm_fork(t->mm, t, &c->mm);
  if (r == 0)
    tes_mm_attach(c->mm);
  return r;
}

static int copy_files(TesTask *t, TesTask *c, guint64 flags) {
  c->fdtable = flags & CLONE_FILES ? tes_fdtable_ref(t->fdtable) : tes_fdtable_fork(t->fdtable);
  if (!c->fdtable)
    return -ENOMEM;
  if (flags & CLONE_SYSVSEM)
    c->sem_undo = tes_sem_undo_share(t);
  c->fsinfo = flags & CLONE_FS ? tes_fsinfo_ref(t->fsinfo) : tes_fsinfo_copy(t->fsinfo);
  return 0;
}

static int copy_namespaces(TesTask *t, TesTask *c, guint64 flags) {
  TesNsSet s;
  int r = tes_ns_set_make(t, flags & TES_CLONE_NEW_ALL, &s);
  if (r < 0)
    return r;
  if (!(flags & CLONE_THREAD)) { /* a child lives where the parent's children live */
    tes_ns_unref(s.pid);
    s.pid = tes_ns_ref(s.pid_children);
  }
  tes_ns_set_give(c, &s);
  if (flags & CLONE_NEWNS)
    tes_ns_carry_dirs(c);
  return 0;
}

/* Registers and extended state as after the call, with result 0 (and another stack and thread pointer). */
static int copy_exec(TesTask *t, TesTask *c, const TesCloneArgs *a) {
  TesPlatform *p = t->kernel->platform;
  g_autoptr(GError) error = NULL;
  c->exec = p->ops->exec_new(p, tes_mm_aspace(c->mm), &error);
  if (!c->exec) {
    tes_debug("clone: %s", error ? error->message : "no thread of execution");
    return -EAGAIN;
  }
  TesRegs *to = tes_task_regs(c, TRUE);
  *to = *tes_task_regs(t, FALSE);
  to->rax = 0;
  to->orig_rax = (gulong)-1;
  if (a->stack)
    to->rsp = a->stack + a->stack_size;
  if (a->flags & CLONE_SETTLS)
    to->fs_base = a->tls;
  g_autofree void *x = g_malloc(p->xstate_size);
  int n = t->exec->ops->xstate_get(t->exec, x, p->xstate_size);
  return n > 0 ? c->exec->ops->xstate_set(c->exec, x, n) : n;
}

static int build_child(TesTask *t, TesTask *c, const TesCloneArgs *a) {
  c->tg = child_group(t, a);
  c->cred = tes_cred_ref(t->cred);
  copy_plain(t, c, a->flags);
  int r = copy_files(t, c, a->flags);
  if (r == 0)
    r = copy_namespaces(t, c, a->flags);
  if (r == 0)
    r = copy_memory(t, c, a->flags);
  if (r == 0)
    r = copy_exec(t, c, a);
  return r;
}

/* ---- Linking ---- */

static TesThreadGroup *child_parent(TesTask *t, guint64 flags) {
  return flags & CLONE_PARENT ? t->tg->parent : t->tg;
}

static int link_child(TesTask *t, TesTask *c, const TesCloneArgs *a) {
  TesKernel *k = t->kernel;
  gboolean thread = a->flags & CLONE_THREAD;
  guint64 limit = tes_task_rlimit(t, RLIMIT_NPROC);
  gboolean exempt =
      t->cred->uid == 0 || tes_task_capable(t, CAP_SYS_RESOURCE) || tes_task_capable(t, CAP_SYS_ADMIN);
  TES_LOCKED(&k->task_set);
  /* A signal for the whole group or its process group must reach the child too, or be handled before the fork. */
  if (tes_signal_pending(t) || t->tg->exiting || (thread && t->tg->exec_task))
    return -TES_ERESTARTNOINTR;
  if (!tes_uid_may_add(k, t->cred->uid, limit, exempt))
    return -EAGAIN;
  TesThreadGroup *parent = thread ? NULL : child_parent(t, a->flags);
  if (!thread && !(a->flags & CLONE_PARENT))
    c->tg->parent_task = t->id;
  else if (!thread) {
    c->tg->parent_task = t->tg->parent_task;
    c->tg->exit_signal = t->tg->exit_signal;
  }
  t->nproc_exceeded = FALSE;
  int r = tes_cgroup_link(c, a->flags & CLONE_INTO_CGROUP ? NULL : t);
  if (r < 0)
    return r;
  tes_seccomp_inherit(t, c);
  return tes_task_link(c, parent, thread ? NULL : t->tg->pgrp, a->set_tid, a->n_set_tid);
}

static void unlink_child(TesTask *c) {
  TesKernel *k = c->kernel;
  tes_mutex_lock(&k->task_set);
  tes_task_link_undo(c);
  tes_mutex_unlock(&k->task_set);
}

/* Writes the numbers that the flags ask for; failures to write are ignored, as Linux does (but not for a pidfd). */
static void store_tids(TesTask *t, TesTask *c, const TesCloneArgs *a) {
  gint in_parent = tes_pid_in(tes_pid_of(c->nrs), t->ns_pid),
       in_child = tes_pid_in(tes_pid_of(c->nrs), c->ns_pid);
  if (a->flags & CLONE_PARENT_SETTID)
    (void)!tes_copy_out(t, a->parent_tid, &in_parent, sizeof in_parent);
  if (a->flags & CLONE_CHILD_SETTID)
    tes_mm_copy_out(c->mm, a->child_tid, &in_child, sizeof in_child);
  if (a->flags & CLONE_CHILD_CLEARTID)
    c->clear_child_tid = a->child_tid;
}

static int give_pidfd(TesTask *t, TesTask *c, const TesCloneArgs *a) {
  if (!(a->flags & CLONE_PIDFD))
    return -1;
  g_autoptr(TesFile) f = tes_pidfd_new(c->tg, 0);
  int fd = tes_fd_install(t, f, 0, TRUE);
  if (fd >= 0 && tes_copy_out(t, a->pidfd, &fd, sizeof fd) < 0) {
    tes_fd_close(t, fd);
    return -EFAULT;
  }
  return fd;
}

static int wait_for_vfork(TesTask *t) {
  while (!g_atomic_int_get(&t->vfork_done))
    if (tes_task_block_killable(t, TES_TIME_INFINITE) < 0)
      break;
  return 0;
}

static int start_child(TesTask *t, TesTask *c, const TesCloneArgs *a) {
  int r = link_child(t, c, a);
  if (r < 0)
    return r;
  int fd = give_pidfd(t, c, a);
  if (a->flags & CLONE_PIDFD && fd < 0) {
    unlink_child(c);
    return fd;
  }
  store_tids(t, c, a);
  if (a->flags & CLONE_VFORK) {
    g_atomic_int_set(&t->vfork_done, 0);
    c->vfork_parent = tes_task_ref(t);
  }
  gint nr = tes_pid_in(tes_pid_of(c->nrs), t->ns_pid);
  r = tes_task_start(c);
  if (r == 0)
    return nr;
  tes_task_vfork_done(c);
  if (fd >= 0)
    tes_fd_close(t, fd);
  unlink_child(c);
  return r;
}

glong tes_task_clone(TesTask *t, const TesCloneArgs *a) {
  int r = check_flags(t, a);
  if (r == 0)
    r = check_set_tid(t, a);
  if (r < 0)
    return r;
  if (tes_signal_pending(t))
    return -TES_ERESTARTNOINTR;
  TesTask *c = tes_task_alloc(t->kernel);
  r = tes_cgroup_fork(t, c, a);
  if (r == 0)
    r = build_child(t, c, a);
  if (r == 0)
    r = start_child(t, c, a);
  if (r < 0) {
    tes_task_abort(c);
    return r;
  }
  tes_task_unref(c); /* the tree and its thread hold it */
  if (a->flags & CLONE_VFORK)
    wait_for_vfork(t);
  return r;
}
