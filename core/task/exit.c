/* SPDX-License-Identifier: Apache-2.0 */
/* The end of tasks and thread groups: exit(2), exit_group(2), zombies, reparenting, orphaned process groups, the
 * end of pid namespaces. Memory, files and namespaces are given back without locks, before the task leaves the tree under
 * the task-set lock; signals that follow from that are sent after it (TesAfter). */
#include <core/task/life.h>
#include <string.h>
#include <sys/wait.h>

/* ---- Signals for later ---- */

typedef struct {
  TesThreadGroup *tg; /* or */
  TesTask *task;
  int sig;
} Later;

static void add_later(TesAfter *a, Later l) {
  if (!a->signals)
    a->signals = g_array_new(FALSE, FALSE, sizeof(Later));
  g_array_append_val(a->signals, l);
}

void tes_after_signal_tg(TesAfter *a, TesThreadGroup *tg, int sig) {
  add_later(a, (Later){tes_tg_ref(tg), NULL, sig});
}

void tes_after_signal_task(TesAfter *a, TesTask *t, int sig) {
  add_later(a, (Later){NULL, tes_task_ref(t), sig});
}

void tes_after_signal_pgrp(TesAfter *a, TesPgrp *p, int sig) {
  for (GList *l = p->groups.head; l; l = l->next)
    tes_after_signal_tg(a, l->data, sig);
}

void tes_after_run(TesAfter *a) {
  for (guint i = 0; a->signals && i < a->signals->len; i++) {
    Later *l = &g_array_index(a->signals, Later, i);
    if (l->tg) {
      tes_signal_group(l->tg, l->sig, NULL);
      tes_tg_unref(l->tg);
    } else {
      tes_signal_task(l->task, l->sig, NULL);
      tes_task_unref(l->task);
    }
  }
  g_clear_pointer(&a->signals, g_array_unref);
}

/* ---- Starting to exit ---- */

void tes_task_exit(TesTask *t, int status) {
  t->exit_code = status;
  g_atomic_int_set(&t->killed, TRUE);
}

static void kill_thread(TesTask *t) {
  g_atomic_int_set(&t->killed, TRUE);
  tes_task_interrupt(t);
}

void tes_tg_kill_locked(TesThreadGroup *tg, int status) {
  tes_mutex_assert_held(&tg->kernel->task_set);
  if (tg->exiting || tg->n_live == 0)
    return;
  tg->exiting = TRUE;
  tg->exit_status = status;
  for (GList *l = tg->threads.head; l; l = l->next)
    kill_thread(l->data);
}

/* A group that never ran has no thread that could end it: the caller does. */
static TesTask *claim_unstarted(TesThreadGroup *tg) {
  TesTask *t = tg->leader;
  if (tg->started || tg->n_live == 0 || !t || g_atomic_int_get(&t->state) != TES_TASK_NEW)
    return NULL;
  tg->started = TRUE;
  return tes_task_ref(t);
}

void tes_tg_kill(TesThreadGroup *tg, int status) {
  TesKernel *k = tg->kernel;
  tes_mutex_lock(&k->task_set);
  tes_tg_kill_locked(tg, status);
  TesTask *unstarted = claim_unstarted(tg);
  tes_mutex_unlock(&k->task_set);
  if (unstarted) {
    tes_task_do_exit(unstarted);
    tes_task_thread_gone(k);
  }
}

/* A thread that loses against another's execve(2) only ends itself. */
void tes_task_group_exit(TesTask *t, int status) {
  TesThreadGroup *tg = t->tg;
  tes_mutex_lock(&t->kernel->task_set);
  if (!tg->exec_task || tg->exec_task == t)
    tes_tg_kill_locked(tg, status);
  tes_mutex_unlock(&t->kernel->task_set);
  tes_task_exit(t, tg->exiting ? tg->exit_status : status);
}

/* ---- exec(2): all other threads go ---- */

/* The caller takes the dead leader's number and place (execve(2), "Effect on multithreaded"). Locked. */
static void become_leader(TesTask *t) {
  TesThreadGroup *tg = t->tg;
  TesTask *old = tg->leader;
  if (old == t)
    return;
  TesKernel *k = t->kernel;
  TesPid *own = tes_pid_of(t->nrs), *pid = tes_pid_of(old->nrs);
  gint own_tid = t->tid;
  tes_task_ref(t);
  g_hash_table_remove(k->tasks, GINT_TO_POINTER(own_tid));
  g_hash_table_insert(k->tasks, GINT_TO_POINTER(old->tid),
                      tes_task_ref(t)); /* drops the table's reference to old */
  g_hash_table_insert(k->tasks, GINT_TO_POINTER(own_tid), tes_task_ref(old));
  t->tid = old->tid;
  t->nrs = pid->nr;
  t->n_nrs = pid->n;
  pid->task = t;
  old->tid = own_tid;
  old->nrs = own->nr;
  old->n_nrs = own->n;
  own->task = old;
  t->start_time = old->start_time;
  tg->leader = t; /* the reference taken above */
  tes_task_unlink(old);
  tes_task_unref(old);
}

int tes_task_make_alone(TesTask *t) {
  TesThreadGroup *tg = t->tg;
  TesKernel *k = t->kernel;
  tes_mutex_lock(&k->task_set);
  if (tg->exiting || tg->exec_task || g_atomic_int_get(&t->killed)) {
    tes_mutex_unlock(&k->task_set);
    return -EINTR;
  }
  tg->exec_task = t;
  for (GList *l = tg->threads.head; l; l = l->next)
    if (l->data != t)
      kill_thread(l->data);
  int r = 0;
  while (tg->n_live > 1 && r == 0) {
    tes_mutex_unlock(&k->task_set);
    r = tes_task_block_killable(t, TES_TIME_INFINITE);
    tes_mutex_lock(&k->task_set);
  }
  tg->exec_task = NULL;
  if (tg->exiting || r < 0)
    r = -EINTR;
  else
    become_leader(t);
  tes_mutex_unlock(&k->task_set);
  return r;
}

/* ---- Accounting ---- */

void tes_task_usage(TesTask *t, TesUsage *u) {
  *u = (TesUsage){.utime = __atomic_load_n(&t->utime, __ATOMIC_RELAXED),
                  .stime = __atomic_load_n(&t->stime, __ATOMIC_RELAXED),
                  .minflt = tes_counted(&t->minflt),
                  .majflt = tes_counted(&t->majflt),
                  .nvcsw = tes_counted(&t->nvcsw),
                  .nivcsw = tes_counted(&t->nivcsw)};
}

static void add_usage(TesUsage *to, const TesUsage *u) {
  to->utime += u->utime;
  to->stime += u->stime;
  to->minflt += u->minflt;
  to->majflt += u->majflt;
  to->nvcsw += u->nvcsw;
  to->nivcsw += u->nivcsw;
  to->maxrss = MAX(to->maxrss, u->maxrss);
}

void tes_tg_usage(TesThreadGroup *tg, TesUsage *out) {
  *out = (TesUsage){tg->dead_utime, tg->dead_stime,  tg->dead_minflt, tg->dead_majflt,
                    tg->dead_nvcsw, tg->dead_nivcsw, tg->maxrss};
  for (GList *l = tg->threads.head; l; l = l->next) {
    TesUsage u;
    tes_task_usage(l->data, &u);
    add_usage(out, &u);
  }
}

void tes_tg_child_usage(TesThreadGroup *tg, TesUsage *out) {
  *out = (TesUsage){tg->child_utime, tg->child_stime,  tg->child_minflt, tg->child_majflt,
                    tg->child_nvcsw, tg->child_nivcsw, tg->child_maxrss};
}

void tes_usage_to_rusage(const TesUsage *u, struct rusage *r) {
  memset(r, 0, sizeof *r);
  r->ru_utime.tv_sec = u->utime / 100;
  r->ru_utime.tv_usec = u->utime % 100 * 10000;
  r->ru_stime.tv_sec = u->stime / 100;
  r->ru_stime.tv_usec = u->stime % 100 * 10000;
  r->ru_maxrss = u->maxrss / 1024;
  r->ru_minflt = u->minflt;
  r->ru_majflt = u->majflt;
  r->ru_nvcsw = u->nvcsw;
  r->ru_nivcsw = u->nivcsw;
}

static void account_dead_thread(TesThreadGroup *tg, TesTask *t) {
  tg->dead_utime += __atomic_load_n(&t->utime, __ATOMIC_RELAXED);
  tg->dead_stime += __atomic_load_n(&t->stime, __ATOMIC_RELAXED);
  tg->dead_minflt += t->minflt;
  tg->dead_majflt += t->majflt;
  tg->dead_nvcsw += t->nvcsw;
  tg->dead_nivcsw += t->nivcsw;
}

static void account_to_parent(TesThreadGroup *parent, TesThreadGroup *tg) {
  TesUsage own, children;
  tes_tg_usage(tg, &own);
  tes_tg_child_usage(tg, &children);
  add_usage(&own, &children);
  parent->child_utime += own.utime;
  parent->child_stime += own.stime;
  parent->child_minflt += own.minflt;
  parent->child_majflt += own.majflt;
  parent->child_nvcsw += own.nvcsw;
  parent->child_nivcsw += own.nivcsw;
  parent->child_maxrss = MAX(parent->child_maxrss, own.maxrss);
}

/* ---- Memory ---- */

void tes_task_vfork_done(TesTask *child) {
  TesTask *parent = g_steal_pointer(&child->vfork_parent);
  if (!parent)
    return;
  g_atomic_int_set(&parent->vfork_done, 1);
  tes_task_wake(parent);
  tes_task_unref(parent);
}

void tes_task_leave_memory(TesTask *t) {
  tes_task_tell_leave(t);
  if (t->mm) {
    tes_futex_exit_robust(t);
    if (t->clear_child_tid && (tes_tg_n_live(t->tg) > 1 || t->vm_shared)) {
      guint32 zero = 0;
      if (tes_copy_out(t, t->clear_child_tid, &zero, sizeof zero) == 0)
        tes_futex_wake_addr(t, t->clear_child_tid, 1);
    }
  }
  t->clear_child_tid = 0;
  t->robust_list = 0;
  tes_task_vfork_done(t);
}

void tes_task_switch_memory(TesTask *t, TesMM *mm, TesExec *exec) {
  TesExec *old_exec = tes_task_swap_exec(t, exec);
  if (old_exec)
    old_exec->ops->free(old_exec);
  tes_mutex_lock(&t->lock);
  TesMM *old = t->mm;
  t->mm = mm;
  tes_mutex_unlock(&t->lock);
  if (!old)
    return;
  if (!mm && tes_tg_n_live(t->tg) == 1) /* not at exec: it would cost more than it tells */
    t->tg->maxrss = MAX(t->tg->maxrss, tes_mm_final_rss(old));
  tes_mm_detach(old);
  tes_mm_unref(old);
}

/* ---- Zombies and parents; everything below is locked ---- */

static void become_zombie(TesThreadGroup *, TesAfter *);

/* Init of a pid namespace ends when every other member has gone (pid_namespaces(7)). */
static void check_dying(TesNs *ns, TesAfter *after) {
  for (; ns; ns = ns->parent) {
    TesPidNs *d = TES_PID_NS(ns);
    if (!d->dying || d->n_tasks != 1 || !d->init || !d->init->exit_deferred)
      continue;
    d->init->exit_deferred = FALSE;
    become_zombie(d->init, after);
  }
}

void tes_tg_reap(TesThreadGroup *tg, gboolean account, TesAfter *after) {
  TesThreadGroup *parent = tg->parent;
  tes_tg_ref(tg);
  if (parent) {
    if (account)
      account_to_parent(parent, tg);
    if (g_queue_remove(&parent->children, tg))
      tes_tg_unref(tg);
  }
  tg->parent = NULL;
  tg->reaped = TRUE;
  tes_tg_set_pgrp(tg, NULL);
  TesTask *leader = g_steal_pointer(&tg->leader);
  if (leader) {
    g_autoptr(TesNs) ns = tes_ns_ref(leader->ns_pid);
    if (TES_PID_NS(ns)->init == tg)
      TES_PID_NS(ns)->init = NULL;
    tg->nrs = NULL;
    tg->n_nrs = 0;
    tes_task_unlink(leader);
    tes_task_unref(leader);
    check_dying(ns, after);
  }
  tes_tg_unref(tg);
}

/* Tells the parent, or has nobody to tell and reaps (do SA_NOCLDWAIT and an ignored SIGCHLD: sigaction(2)). */
static void notify_exit(TesThreadGroup *tg, TesAfter *after) {
  TesThreadGroup *parent = tg->parent;
  gboolean reap = parent == NULL, send = tg->exit_signal != 0;
  if (parent && tg->exit_signal == SIGCHLD) {
    TES_LOCKED(&parent->sighand->lock);
    const TesSigAction *a = &parent->sighand->action[SIGCHLD];
    reap = a->handler == 1 || a->flags & SA_NOCLDWAIT;
    send = a->handler != 1;
  }
  int st = tg->exit_status;
  if (parent && send)
    tes_signal_notify_parent(tg,
                             WIFEXITED(st)   ? CLD_EXITED
                             : WCOREDUMP(st) ? CLD_DUMPED
                                             : CLD_KILLED,
                             WIFEXITED(st) ? WEXITSTATUS(st) : WTERMSIG(st));
  if (parent)
    tes_queue_notify(&parent->child_queue, POLLIN);
  tes_queue_notify(&tg->exit_queue, POLLIN);
  if (reap)
    tes_tg_reap(tg, FALSE, after);
}

static gboolean has_stopped_member(TesPgrp *p) {
  for (GList *l = p->groups.head; l; l = l->next)
    if (((TesThreadGroup *)l->data)->stopped)
      return TRUE;
  return FALSE;
}

/* POSIX: stopped members of a group that loses its last link to a shell get SIGHUP and SIGCONT. `link` was the
 * parent's side of the link that went. */
static void check_orphaned(TesThreadGroup *member, TesThreadGroup *link, TesAfter *after) {
  TesPgrp *p = member->pgrp;
  if (!p || !link || link->pgrp == p || link->session != member->session)
    return;
  if (!tes_pgrp_is_orphaned(p) || !has_stopped_member(p))
    return;
  tes_after_signal_pgrp(after, p, SIGHUP);
  tes_after_signal_pgrp(after, p, SIGCONT);
}

static void become_zombie(TesThreadGroup *tg, TesAfter *after) {
  tg->zombie = TRUE;
  check_orphaned(tg, tg->parent, after);
  notify_exit(tg, after);
}

/* prctl(2) PR_SET_CHILD_SUBREAPER, then init of the namespace, then nobody. */
static TesThreadGroup *find_reaper(TesThreadGroup *tg) {
  TesNs *ns = tg->leader->ns_pid;
  for (TesThreadGroup *p = tg->parent; p && p->leader && p->leader->ns_pid == ns; p = p->parent)
    if (p->child_subreaper && p->n_live > 0)
      return p;
  TesThreadGroup *init = TES_PID_NS(ns)->init;
  return init && init != tg && init->n_live > 0 ? init : NULL;
}

static void reparent(TesThreadGroup *tg, TesAfter *after) {
  TesThreadGroup *heir = find_reaper(tg);
  for (TesThreadGroup *c; (c = g_queue_pop_head(&tg->children));) {
    c->parent = heir;
    c->exit_signal = SIGCHLD;
    if (heir) {
      g_queue_push_tail(&heir->children, tes_tg_ref(c));
      TesTask *first = g_queue_peek_head(&heir->threads);
      c->parent_task = first->id;
    }
    check_orphaned(c, tg, after);
    if (c->zombie)
      notify_exit(c, after);
    tes_tg_unref(c);
  }
}

/* The children of one thread pass to another of its group; those who asked get their signal (PR_SET_PDEATHSIG). */
static void pass_children(TesThreadGroup *tg, TesTask *t, TesAfter *after) {
  TesTask *next = g_queue_peek_head(&tg->threads);
  for (GList *l = tg->children.head; l; l = l->next) {
    TesThreadGroup *c = l->data;
    if (c->parent_task != t->id)
      continue;
    for (GList *m = c->threads.head; m; m = m->next) {
      TesTask *ct = m->data;
      if (g_atomic_int_get(&ct->pdeath_signal))
        tes_after_signal_task(after, ct, ct->pdeath_signal);
    }
    c->parent_task = next ? next->id : 0;
  }
}

static void kill_namespace(TesThreadGroup *init, TesPidNs *d) {
  d->dying = TRUE;
  GHashTableIter it;
  gpointer p;
  g_hash_table_iter_init(&it, d->map);
  while (g_hash_table_iter_next(&it, NULL, &p)) {
    TesTask *t = ((TesPid *)p)->task;
    if (t && t->tg != init)
      tes_tg_kill_locked(t->tg, SIGKILL);
  }
}

/* The last thread is gone. */
static void end_group(TesThreadGroup *tg, TesAfter *after) {
  TesPidNs *d = TES_PID_NS(tg->leader->ns_pid);
  if (d->init == tg)
    kill_namespace(tg, d);
  reparent(tg, after);
  tes_mutex_lock(&tg->sighand->lock);
  tes_sigpending_clear(&tg->pending);
  tes_mutex_unlock(&tg->sighand->lock);
  if (d->init == tg && d->n_tasks > 1)
    tg->exit_deferred = TRUE;
  else
    become_zombie(tg, after);
}

/* ---- The thread's own way out ---- */

/* The thread that goes may have been the last one that a group stop waited for. */
static void complete_stop(TesThreadGroup *tg) {
  tes_mutex_lock(&tg->sighand->lock);
  gboolean complete = tg->stop_sig && !tg->stopped && !tg->exiting;
  for (GList *l = tg->threads.head; l && complete; l = l->next)
    complete = ((TesTask *)l->data)->stopped;
  if (complete)
    tg->stopped = TRUE;
  tes_mutex_unlock(&tg->sighand->lock);
  if (complete)
    tes_signal_notify_parent(tg, CLD_STOPPED, tg->stop_sig);
}

/* TRUE: it was the group's last thread. */
static gboolean leave_group(TesTask *t, TesAfter *after) {
  TesThreadGroup *tg = t->tg;
  TES_LOCKED(&t->kernel->task_set);
  if (tg->exiting)
    t->exit_code = tg->exit_status;
  t->is_dead = TRUE;
  tes_cgroup_died(t);
  g_atomic_int_set(&t->state, TES_TASK_DEAD);
  g_queue_remove(&tg->threads, t);
  account_dead_thread(tg, t);
  tes_mutex_lock(&tg->sighand->lock);
  tes_sigpending_clear(&t->pending);
  tes_mutex_unlock(&tg->sighand->lock);
  pass_children(tg, t, after);
  if (g_atomic_int_dec_and_test(&tg->n_live))
    return TRUE;
  complete_stop(tg);
  if (tg->exec_task && tg->n_live == 1)
    tes_task_wake(tg->exec_task);
  if (tg->leader != t) {
    g_autoptr(TesNs) ns = tes_ns_ref(t->ns_pid);
    tes_task_unlink(t);
    check_dying(ns, after);
  }
  return FALSE;
}

static void finish_group(TesTask *t, TesAfter *after) {
  TesThreadGroup *tg = t->tg;
  TesKernel *k = t->kernel;
  tes_itimers_exit(tg);
  tes_session_leader_exit(tg);
  TES_LOCKED(&k->task_set);
  if (!tg->exiting) {
    tg->exiting = TRUE;
    tg->exit_status = tg->leader->exit_code;
  }
  if (tg->leader != t)
    tes_task_unlink(t);
  end_group(tg, after);
}

void tes_task_do_exit(TesTask *t) {
  g_autoptr(TesThreadGroup) tg = tes_tg_ref(t->tg);
  if (G_UNLIKELY(t->kernel->watch))
    tes_watch_exit(t, tg->exiting ? tg->exit_status : t->exit_code);
  tes_task_leave_memory(t);
  tes_task_drop_resources(t);
  TesAfter after = {0};
  if (leave_group(t, &after))
    finish_group(t, &after);
  tes_after_run(&after);
  tes_ticker_forget(t);
  tes_task_unref(t);
}

/* Under the lock, with which tes_kernel_wait_exited() looks: the kernel is not freed before the queue was told. */
void tes_task_thread_gone(TesKernel *k) {
  TES_LOCKED(&k->task_set);
  if (g_atomic_int_dec_and_test(&k->n_tasks))
    tes_queue_notify(&k->exited_queue, POLLIN);
}
