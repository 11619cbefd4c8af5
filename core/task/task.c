/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks and thread groups as objects: allocation, references, numbers and linking into the process tree, and the first
 * task of a process that the control side creates (L8). */
#include <core/task/kernel.h>
#include <core/task/life.h>
#include <core/task/seccomp.h>
#include <linux/capability.h>
#include <string.h>

static const TesLockClass task_class = {"task", TES_RANK_TASK, FALSE,
                                        "what others read of a task: mm, fd table, fsinfo, credentials"};
static const TesLockClass work_class = {"task work", TES_RANK_RUNNING + 1, FALSE,
                                        "deferred work, the exec being kicked"};

/* ---- Objects ---- */

TesTask *tes_task_alloc(TesKernel *k) {
  TesTask *t = g_new0(TesTask, 1);
  tes_ctx_init(&t->ctx, TES_CTX_TASK, k);
  t->refs = 1;
  t->kernel = k;
  t->id = tes_unique_id(k);
  t->state = TES_TASK_NEW;
  t->pending.tail = &t->pending.head;
  t->altstack.flags = SS_DISABLE;
  t->timer_slack = t->default_timer_slack = 50000;
  memset(t->cpu_mask, 0xff, sizeof t->cpu_mask);
  tes_mutex_init(&t->lock, &task_class);
  tes_mutex_init(&t->work_lock, &work_class);
  t->start_time = tes_time_monotonic(k);
  return t;
}

TesThreadGroup *tes_tg_alloc(TesKernel *k) {
  TesThreadGroup *tg = g_new0(TesThreadGroup, 1);
  tg->refs = 1;
  tg->kernel = k;
  tg->exit_signal = SIGCHLD;
  tg->dumpable = TRUE;
  tg->pending.tail = &tg->pending.head;
  g_queue_init(&tg->threads);
  g_queue_init(&tg->children);
  tes_queue_init(&tg->child_queue);
  tes_queue_init(&tg->exit_queue);
  tes_itimers_init(tg);
  tg->start_time = tes_time_monotonic(k);
  return tg;
}

TesTask *tes_task_ref(TesTask *t) {
  g_atomic_int_inc(&t->refs);
  return t;
}

static void free_rest(TesTask *t) {
  tes_seccomp_release(t);
  tes_sigpending_clear(&t->pending);
  tes_mutex_clear(&t->work_lock);
  tes_mutex_clear(&t->lock);
  g_free(t);
}

/* What came too late for the task itself, without any lock: it may give back files and places. */
static void work_and_free(gpointer task) {
  tes_task_run_work(task);
  free_rest(task);
}

/* May run under the task-set lock: by now everything that takes locks of its own has been given back. */
static void task_free(TesTask *t) {
  tes_cgroup_free(t);
  tes_watch_task_free(t);
  if (t->cred)
    tes_cred_unref(t->cred);
  TesNs *ns[] = {t->ns_user,         t->ns_uts, t->ns_ipc,    t->ns_pid,
                 t->ns_pid_children, t->ns_net, t->ns_cgroup, t->ns_time};
  for (guint i = 0; i < G_N_ELEMENTS(ns); i++)
    if (ns[i])
      tes_ns_unref(ns[i]);
  if (t->tg)
    tes_tg_unref(t->tg);
  if (t->work)
    tes_epoch_defer(work_and_free, t);
  else
    free_rest(t);
}

void tes_task_unref(TesTask *t) {
  if (t && g_atomic_int_dec_and_test(&t->refs))
    task_free(t);
}

TesThreadGroup *tes_tg_ref(TesThreadGroup *tg) {
  g_atomic_int_inc(&tg->refs);
  return tg;
}

void tes_tg_unref(TesThreadGroup *tg) {
  if (!tg || !g_atomic_int_dec_and_test(&tg->refs))
    return;
  tes_queue_clear(&tg->child_queue);
  tes_queue_clear(&tg->exit_queue);
  tes_mutex_clear(&tg->timer_lock);
  tes_sigpending_clear(&tg->pending);
  if (tg->sighand)
    tes_sighand_unref(tg->sighand);
  if (tg->limits)
    tes_limits_unref(tg->limits);
  g_free(tg->container_id);
  g_free(tg);
}

/* Namespaces whose end may take locks; those of pids and users stay with the zombie. */
static void drop_namespaces(TesTask *t) {
  TesNs **slot[] = {&t->ns_uts, &t->ns_ipc, &t->ns_net, &t->ns_cgroup, &t->ns_time};
  TesNs *ns[G_N_ELEMENTS(slot)];
  tes_mutex_lock(&t->lock);
  TesMountNs *mounts = g_steal_pointer(&t->mount_ns);
  for (guint i = 0; i < G_N_ELEMENTS(slot); i++)
    ns[i] = g_steal_pointer(slot[i]);
  tes_mutex_unlock(&t->lock);
  for (guint i = 0; i < G_N_ELEMENTS(ns); i++)
    if (ns[i])
      tes_ns_unref(ns[i]);
  if (mounts)
    t->kernel->vfs->ops->ns_unref(mounts);
}

/* Closing files may ask for root, credentials and namespaces, so these go later. */
void tes_task_drop_resources(TesTask *t) {
  tes_sem_undo_leave(t);
  tes_task_switch_memory(t, NULL, NULL);
  tes_mutex_lock(&t->lock);
  TesFdTable *fdtable = g_steal_pointer(&t->fdtable);
  tes_mutex_unlock(&t->lock);
  if (fdtable)
    tes_fdtable_unref(fdtable, &t->ctx);
  g_slist_free_full(g_steal_pointer(&t->borrowed_paths), (GDestroyNotify)tes_path_unref);
  tes_mutex_lock(&t->lock);
  TesFsInfo *fsinfo = g_steal_pointer(&t->fsinfo);
  tes_mutex_unlock(&t->lock);
  if (fsinfo)
    tes_fsinfo_unref(fsinfo);
  drop_namespaces(t);
}

void tes_task_abort(TesTask *t) {
  tes_task_drop_resources(t);
  tes_task_unref(t);
}

/* ---- Linking ---- */

static void link_group(TesTask *t, TesThreadGroup *parent, TesPgrp *pgrp) {
  TesThreadGroup *tg = t->tg;
  tg->leader = tes_task_ref(t);
  tg->tgid = t->tid;
  tg->nrs = t->nrs;
  tg->n_nrs = t->n_nrs;
  tg->parent = parent;
  if (parent)
    g_queue_push_tail(&parent->children, tes_tg_ref(tg));
  if (pgrp)
    tes_tg_set_pgrp(tg, pgrp);
  if (t->nrs[t->n_nrs - 1].nr == 1)
    TES_PID_NS(t->ns_pid)->init = tg;
}

int tes_task_link(TesTask *t, TesThreadGroup *parent, TesPgrp *pgrp, const gint *set_tid, guint n) {
  TesKernel *k = t->kernel;
  int r = tes_pid_alloc(k, t->ns_pid, t, set_tid, n);
  if (r < 0) {
    tes_cgroup_died(t);
    return r;
  }
  if (!t->tg->leader)
    link_group(t, parent, pgrp);
  for (guint i = 0; i < t->n_nrs; i++)
    TES_PID_NS(t->nrs[i].ns)->n_tasks++;
  g_queue_push_tail(&t->tg->threads, t);
  g_atomic_int_inc(&t->tg->n_live);
  g_hash_table_insert(k->tasks, GINT_TO_POINTER(t->tid), tes_task_ref(t));
  t->counted_uid = t->cred->uid;
  tes_uid_count(k, t->counted_uid, 1);
  t->linked = TRUE;
  g_atomic_int_inc(&k->n_tasks);
  return 0;
}

void tes_task_unlink(TesTask *t) {
  TesKernel *k = t->kernel;
  if (!t->linked)
    return;
  t->linked = FALSE;
  tes_cgroup_died(t);
  tes_cgroup_release(t);
  for (guint i = 0; i < t->n_nrs; i++)
    TES_PID_NS(t->nrs[i].ns)->n_tasks--;
  tes_uid_count(k, t->counted_uid, -1);
  TesPid *pid = tes_pid_of(t->nrs);
  pid->task = NULL;
  gint tid = t->tid;
  t->nrs = NULL;
  t->n_nrs = 0;
  tes_pid_unref(k, pid);
  g_hash_table_remove(k->tasks, GINT_TO_POINTER(tid)); /* may free t */
}

void tes_task_link_undo(TesTask *t) {
  TesThreadGroup *tg = t->tg;
  TesKernel *k = t->kernel;
  g_queue_remove(&tg->threads, t);
  g_atomic_int_add(&tg->n_live, -1);
  if (tg->leader == t) {
    if (TES_PID_NS(t->ns_pid)->init == tg)
      TES_PID_NS(t->ns_pid)->init = NULL;
    tg->nrs = NULL;
    tg->n_nrs = 0;
    tes_tg_set_pgrp(tg, NULL);
    if (tg->parent && g_queue_remove(&tg->parent->children, tg))
      tes_tg_unref(tg);
    tg->parent = NULL;
    tg->leader = NULL;
    tes_task_unref(t);
  }
  tes_task_unlink(t);
  g_atomic_int_add(&k->n_tasks, -1);
}

/* ---- The first task of a process (L8) ---- */

static void take_namespaces(TesTask *t, TesCreateCtx *c) {
  TesKernel *k = t->kernel;
  t->ns_user = tes_ns_ref(k->root_user);
  t->ns_uts = tes_ns_ref(c->uts_ns);
  t->ns_ipc = tes_ns_ref(c->ipc_ns);
  t->ns_pid = tes_ns_ref(c->pid_ns);
  t->ns_pid_children = tes_ns_ref(c->pid_ns);
  t->ns_net = tes_ns_ref(k->root_net);
  t->ns_cgroup = tes_ns_ref(k->root_cgroup);
  t->ns_time = tes_ns_ref(k->root_time);
  t->mount_ns = k->vfs->ops->ns_ref(c->mount_ns);
}

static TesThreadGroup *first_group(TesCreateCtx *c, const TesProcessArgs *a) {
  TesThreadGroup *tg = tes_tg_alloc(c->ctx.kernel);
  tg->sighand = tes_sighand_new();
  tg->limits = tes_limits_ref(c->limits);
  tg->container_id = g_strdup(a->container_id);
  tg->execed = TRUE;
  return tg;
}

static int link_first(TesTask *t, TesTty *tty) {
  TesKernel *k = t->kernel;
  TES_LOCKED(&k->task_set);
  if (!tes_uid_may_add(k, t->cred->uid, RLIM_INFINITY, TRUE))
    return -EAGAIN;
  int r = tes_cgroup_link(t, NULL);
  if (r == 0)
    r = tes_task_link(t, NULL, NULL, NULL, 0);
  if (r < 0)
    return r;
  TesSession *s = tes_session_new(t->tg);
  TesPgrp *p = tes_pgrp_new(t->tid, s);
  tes_tg_set_pgrp(t->tg, p);
  tes_pgrp_unref(k, p);
  tes_session_unref(s);
  if (tty && !tty->session) {
    tty->ops->ref(tty);
    s->tty = tty;
    tty->session = s;
    tty->pgrp = p->pgid;
  }
  return 0;
}

TesThreadGroup *tes_task_create_first(TesCreateCtx *c, const TesProcessArgs *a, TesImage *image,
                                      GError **error) {
  TesKernel *k = c->ctx.kernel;
  TesExec *exec = k->platform->ops->exec_new(k->platform, tes_mm_aspace(image->mm), error);
  if (!exec)
    return NULL;
  TesTask *t = tes_task_alloc(k);
  t->tg = first_group(c, a);
  t->exec = exec;
  t->mm = g_steal_pointer(&image->mm);
  tes_mm_attach(t->mm);
  t->cred = tes_cred_ref(c->cred);
  t->fsinfo = tes_fsinfo_new(tes_path_ref(c->root), tes_path_ref(c->cwd), a->umask);
  t->fdtable = a->fdtable ? tes_fdtable_ref(a->fdtable) : tes_fdtable_new();
  memcpy(t->comm, image->comm, sizeof t->comm);
  t->futex_root = tes_kernel_profile(k)->kernel_futexes ? 0 : tes_unique_id(k);
  take_namespaces(t, c);
  TesRegs *regs = tes_task_regs(t, TRUE);
  regs->rip = image->entry;
  regs->rsp = image->sp;
  int r = link_first(t, a->tty);
  if (r < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "a new process could not be made: %s", g_strerror(-r));
    tes_task_abort(t);
    return NULL;
  }
  TesThreadGroup *tg = tes_tg_ref(t->tg);
  tes_task_unref(t); /* the tree holds it from here on */
  return tg;
}

const TesStateOps tes_state_task = {.size = sizeof(TesStateOps), .section = "task", .version = 1};
