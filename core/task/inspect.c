/* SPDX-License-Identifier: Apache-2.0 */
/* What others may ask about a task: numbers, statistics, the objects it holds. Readers are /proc, signals,
 * tracers and the control side; fields are read under the task lock, the tree under the task-set lock. */
#include <core/task/life.h>
#include <core/task/signal-private.h>
#include <string.h>

/* ---- Plain ---- */

TesCtx *tes_task_ctx(TesTask *t) { return &t->ctx; }
TesKernel *tes_task_kernel(TesTask *t) { return t->kernel; }
TesThreadGroup *tes_task_group(TesTask *t) { return t->tg; }
TesMM *tes_task_mm(TesTask *t) { return t->mm; }
TesCred *tes_task_cred(TesTask *t) { return t->cred; }
TesFdTable *tes_task_fdtable(TesTask *t) { return t->fdtable; }
const char *tes_task_comm(TesTask *t) { return t->comm; }

int tes_task_set_comm(TesTask *t, const char *name) {
  char comm[sizeof t->comm] = {0};
  g_strlcpy(comm, name, sizeof comm);
  tes_mutex_lock(&t->lock);
  memcpy(t->comm, comm, sizeof comm);
  tes_mutex_unlock(&t->lock);
  return 0;
}

/* ---- Numbers ---- */

static gint number(TesPidNr *nrs, TesNs *ns) { return nrs ? tes_pid_in(tes_pid_of(nrs), ns) : 0; }

gint tes_tg_nr(const TesThreadGroup *tg, TesNs *ns) { return number(tg->nrs, ns); }

gint tes_task_tid(TesTask *t, TesNs *ns) {
  TES_LOCKED(&t->kernel->task_set);
  return number(t->nrs, ns);
}

gint tes_task_pid(TesTask *t, TesNs *ns) {
  TES_LOCKED(&t->kernel->task_set);
  return number(t->tg->nrs, ns);
}

gint tes_task_ppid(TesTask *t, TesNs *ns) {
  TES_LOCKED(&t->kernel->task_set);
  return t->tg->parent ? number(t->tg->parent->nrs, ns) : 0;
}

gint tes_task_pgid(TesTask *t, TesNs *ns) {
  TES_LOCKED(&t->kernel->task_set);
  return t->tg->pgrp ? tes_pid_in(t->tg->pgrp->pid, ns) : 0;
}

gint tes_task_sid(TesTask *t, TesNs *ns) {
  TES_LOCKED(&t->kernel->task_set);
  return t->tg->session ? tes_pid_in(t->tg->session->pid, ns) : 0;
}

/* ---- Finding ---- */

TesTask *tes_task_find_locked(TesKernel *k, TesNs *ns, gint tid, gboolean tgid_only) {
  TesPid *p = tes_pid_find(k, ns, tid);
  TesTask *t = p ? p->task : NULL;
  return t && (!tgid_only || t->tg->leader == t) ? t : NULL;
}

TesTask *tes_task_find(TesKernel *k, TesNs *ns, gint tid, gboolean tgid_only) {
  TES_LOCKED(&k->task_set);
  TesTask *t = tes_task_find_locked(k, ns, tid, tgid_only);
  return t ? tes_task_ref(t) : NULL;
}

typedef struct {
  gint nr;
  TesTask *task;
} Numbered;

static int by_number(gconstpointer a, gconstpointer b) {
  return ((const Numbered *)a)->nr - ((const Numbered *)b)->nr;
}

GPtrArray *tes_tasks_snapshot(TesKernel *k, TesNs *ns) {
  g_autoptr(GArray) found = g_array_new(FALSE, FALSE, sizeof(Numbered));
  GHashTableIter it;
  gpointer nr, p;
  tes_mutex_lock(&k->task_set);
  g_hash_table_iter_init(&it, TES_PID_NS(ns ? ns : k->root_pid)->map);
  while (g_hash_table_iter_next(&it, &nr, &p)) {
    TesTask *t = ((TesPid *)p)->task;
    if (t && t->tg->leader == t) {
      Numbered n = {GPOINTER_TO_INT(nr), tes_task_ref(t)};
      g_array_append_val(found, n);
    }
  }
  tes_mutex_unlock(&k->task_set);
  g_array_sort(found, by_number);
  GPtrArray *out = g_ptr_array_new_full(found->len, (GDestroyNotify)tes_task_unref);
  for (guint i = 0; i < found->len; i++)
    g_ptr_array_add(out, g_array_index(found, Numbered, i).task);
  return out;
}

/* A leader that exited before the others is listed first, as Linux does. */
GPtrArray *tes_task_threads(TesTask *t) {
  GPtrArray *out = g_ptr_array_new_with_free_func((GDestroyNotify)tes_task_unref);
  TES_LOCKED(&t->kernel->task_set);
  TesThreadGroup *tg = t->tg;
  if (tg->leader && tg->leader->is_dead)
    g_ptr_array_add(out, tes_task_ref(tg->leader));
  for (GList *l = tg->threads.head; l; l = l->next)
    g_ptr_array_add(out, tes_task_ref(l->data));
  return out;
}

/* ---- What a task holds ---- */

TesMM *tes_task_mm_ref(TesTask *t) {
  TES_LOCKED(&t->lock);
  return t->mm ? tes_mm_ref(t->mm) : NULL;
}

TesCred *tes_task_cred_ref(TesTask *t) {
  TES_LOCKED(&t->lock);
  return tes_cred_ref(t->cred);
}

TesFsInfo *tes_task_fsinfo(TesTask *t) {
  TES_LOCKED(&t->lock);
  return t->fsinfo ? tes_fsinfo_ref(t->fsinfo) : NULL;
}

TesFdTable *tes_task_fdtable_ref(TesTask *t) {
  TES_LOCKED(&t->lock);
  return t->fdtable ? tes_fdtable_ref(t->fdtable) : NULL;
}

TesNs *tes_task_ns(TesTask *t, int flag) {
  TES_LOCKED(&t->lock);
  TesNs *ns = NULL;
  switch (flag) {
  case CLONE_NEWUSER:
    ns = t->ns_user;
    break;
  case CLONE_NEWUTS:
    ns = t->ns_uts;
    break;
  case CLONE_NEWIPC:
    ns = t->ns_ipc;
    break;
  case CLONE_NEWPID:
    ns = t->ns_pid;
    break;
  case CLONE_NEWNET:
    ns = t->ns_net;
    break;
  case CLONE_NEWCGROUP:
    ns = t->ns_cgroup;
    break;
  case CLONE_NEWTIME:
    ns = t->ns_time;
    break;
  }
  return ns ? tes_ns_ref(ns) : NULL;
}

TesMountNs *tes_task_mount_ns(TesTask *t) {
  TES_LOCKED(&t->lock);
  return t->mount_ns ? t->kernel->vfs->ops->ns_ref(t->mount_ns) : NULL;
}

/* ptrace(2), "Ptrace access mode checking", PTRACE_MODE_READ_FSCREDS: same ids all round and a subset of
 * capabilities, or CAP_SYS_PTRACE; not dumpable: the capability only. */
gboolean tes_task_may_inspect(TesCtx *ctx, TesTask *target) {
  TesTask *self = tes_ctx_to_task(ctx);
  if (ctx->kind == TES_CTX_SUPERVISOR || (self && self->tg == target->tg))
    return TRUE;
  TesCred *c = tes_ctx_cred(ctx);
  if (tes_cred_capable(c, CAP_SYS_PTRACE))
    return TRUE;
  g_autoptr(TesCred) o = tes_task_cred_ref(target);
  gboolean same = c->fsuid == o->euid && c->fsuid == o->suid && c->fsuid == o->uid && c->fsgid == o->egid &&
                  c->fsgid == o->sgid && c->fsgid == o->gid;
  return same && target->tg->dumpable && !(o->cap_permitted & ~c->cap_permitted);
}

/* ---- Statistics ---- */

static char state_letter(TesTask *t) {
  if (t->is_dead)
    return t->tg->reaped || t->tg->leader != t ? 'X' : 'Z';
  if (t->stopped)
    return 'T';
  switch (g_atomic_int_get(&t->state)) {
  case TES_TASK_BLOCKED:
    return 'S';
  case TES_TASK_BLOCKED_WITHIN:
    return 'D';
  case TES_TASK_STOPPED:
    return 'T';
  default:
    return 'R';
  }
}

static void fill_signals(TesTask *t, TesTaskStat *out) {
  TesSigHand *sh = t->tg->sighand;
  TES_LOCKED(&sh->lock);
  out->sig_pending = t->pending.set;
  out->shared_pending = t->tg->pending.set;
  out->sig_blocked = t->blocked;
  for (int sig = 1; sig <= TES_NSIG; sig++) {
    if (sh->action[sig].handler == 1)
      out->sig_ignored |= TES_SIGMASK(sig);
    else if (sh->action[sig].handler > 1)
      out->sig_caught |= TES_SIGMASK(sig);
  }
}

static void fill_tty(TesThreadGroup *tg, TesTaskStat *out) {
  TesTty *tty = tg->session ? tg->session->tty : NULL;
  out->tty_pgrp = tty ? tty->pgrp : -1;
  out->tty_nr = tty && TES_HAS(tty->ops, dev) ? tty->ops->dev(tty) : 0;
}

static guint32 umask_of(TesTask *t) {
  TesFsInfo *fs = tes_task_fsinfo(t);
  guint32 umask = fs ? tes_fsinfo_umask(fs) : 0;
  if (fs)
    tes_fsinfo_unref(fs);
  return umask;
}

/* A leader's numbers are its group's. */
void tes_task_stat(TesTask *t, TesTaskStat *out) {
  TesThreadGroup *tg = t->tg;
  TesUsage u, children;
  guint32 umask = umask_of(t);
  TES_LOCKED(&t->kernel->task_set);
  if (tg->leader == t)
    tes_tg_usage(tg, &u);
  else
    tes_task_usage(t, &u);
  tes_tg_child_usage(tg, &children);
  *out = (TesTaskStat){
      .state = state_letter(t),
      .exit_signal = tg->leader == t ? tg->exit_signal : -1,
      .nice = t->nice,
      .threads = tg->n_live,
      .priority = t->sched_priority ? -1 - t->sched_priority : 20 + t->nice,
      .start_time = t->start_time,
      .utime = u.utime,
      .stime = u.stime,
      .cutime = children.utime,
      .cstime = children.stime,
      .minflt = u.minflt,
      .majflt = u.majflt,
      .voluntary_switches = tes_counted(&t->nvcsw),
      .involuntary_switches = tes_counted(&t->nivcsw),
      .exit_code = tg->zombie   ? tg->exit_status
                   : t->is_dead ? t->exit_code
                                : 0,
      .umask = umask,
  };
  fill_tty(tg, out);
  fill_signals(t, out);
}
