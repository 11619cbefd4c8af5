/* SPDX-License-Identifier: Apache-2.0 */
/* Signals on their way: pending queues, who is told, stop and continue (signal(7), POSIX 2.4).
 *
 * Sending takes the task-set lock and then the target's sighand lock, which guards actions, pending sets and job
 * control of the group. Functions named _locked are called with the task-set lock held. */
#include <core/task/task.h>
#include <core/task/signal-private.h>

static const TesLockClass sighand_class = {"signal handlers", TES_RANK_SIGHAND, TRUE,
                                           "actions, pending signals, group stop"};

#define STOP_SIGNALS \
  (TES_SIGMASK(SIGSTOP) | TES_SIGMASK(SIGTSTP) | TES_SIGMASK(SIGTTIN) | TES_SIGMASK(SIGTTOU))
#define DEFAULT_IGNORED \
  (TES_SIGMASK(SIGCONT) | TES_SIGMASK(SIGCHLD) | TES_SIGMASK(SIGWINCH) | TES_SIGMASK(SIGURG))

/* ---- Handlers ---- */

TesSigHand *tes_sighand_new(void) {
  TesSigHand *sh = g_new0(TesSigHand, 1);
  sh->refs = 1;
  tes_mutex_init(&sh->lock, &sighand_class);
  return sh;
}

TesSigHand *tes_sighand_copy(TesSigHand *from) {
  TesSigHand *sh = tes_sighand_new();
  tes_mutex_lock(&from->lock);
  memcpy(sh->action, from->action, sizeof sh->action);
  tes_mutex_unlock(&from->lock);
  return sh;
}

void tes_sighand_unref(TesSigHand *sh) {
  if (sh && g_atomic_int_dec_and_test(&sh->refs)) {
    tes_mutex_clear(&sh->lock);
    g_free(sh);
  }
}

/* ---- Entries: counted by real user, all processes of a user together (RLIMIT_SIGPENDING, getrlimit(2)) ---- */

/* Users whose numbers are equal modulo this share a count: nothing to allocate, nothing to lock. */
#define USERS 1024
#define MAX_QUEUED (1 << 18) /* of one user, whatever the limit says: entries are the kernel's memory */

static gint queued[USERS];

/* NULL: the user has `limit` already. */
static TesSigQueued *entry_new(const siginfo_t *info, guint32 uid, guint64 limit) {
  guint user = uid % USERS;
  if ((guint64)g_atomic_int_add(&queued[user], 1) >= limit) {
    g_atomic_int_add(&queued[user], -1);
    return NULL;
  }
  TesSigQueued *q = g_new0(TesSigQueued, 1);
  q->info = *info;
  q->user = user;
  return q;
}

static void entry_free(TesSigQueued *q) {
  g_atomic_int_add(&queued[q->user], -1);
  g_free(q);
}

/* ---- Pending sets; sighand lock held ---- */

void tes_sigpending_clear(TesSigPending *p) {
  while (p->head) {
    TesSigQueued *q = p->head;
    p->head = q->next;
    entry_free(q);
  }
  p->tail = NULL;
  p->set = 0;
}

static void discard(TesSigPending *p, guint64 mask) {
  if (!(p->set & mask))
    return;
  p->set &= ~mask;
  TesSigQueued **link = &p->head, *q;
  p->tail = NULL;
  while ((q = *link)) {
    if (TES_SIGMASK(q->info.si_signo) & mask) {
      *link = q->next;
      entry_free(q);
    } else {
      link = &q->next;
      p->tail = link;
    }
  }
}

/* Adds one instance. Standard signals are pending once, so that those of kill(2) and of the kernel need no limit; real-time
 * signals queue up to `limit`, whatever si_code their sender made up. -EAGAIN: no room for a real-time signal that carries data. */
static int enqueue(TesSigPending *p, const siginfo_t *info, guint32 uid, guint64 limit) {
  int sig = info->si_signo;
  if (sig < SIGRTMIN_KERNEL && (p->set & TES_SIGMASK(sig)))
    return 0;
  gboolean exempt = sig < SIGRTMIN_KERNEL && info->si_code >= 0;
  TesSigQueued *q = entry_new(info, uid, exempt ? G_MAXUINT64 : MIN(limit, MAX_QUEUED));
  if (!q) {
    if (sig >= SIGRTMIN_KERNEL && info->si_code != SI_USER)
      return -EAGAIN;
    p->set |= TES_SIGMASK(sig);
    return 0;
  }
  if (!p->tail)
    p->tail = &p->head;
  *p->tail = q;
  p->tail = &q->next;
  p->set |= TES_SIGMASK(sig);
  return 0;
}

gboolean tes_sigpending_take(TesSigPending *p, int sig, siginfo_t *out) {
  if (!(p->set & TES_SIGMASK(sig)))
    return FALSE;
  *out = (siginfo_t){.si_signo = sig, .si_code = SI_USER};
  TesSigQueued **link = &p->head, *q;
  while ((q = *link) && q->info.si_signo != sig)
    link = &q->next;
  gboolean more = FALSE;
  if (q) {
    *out = q->info;
    *link = q->next;
    if (p->tail == &q->next)
      p->tail = p->head ? link : NULL;
    entry_free(q);
    for (q = *link; q && !more; q = q->next)
      more = q->info.si_signo == sig;
  }
  if (!more)
    p->set &= ~TES_SIGMASK(sig);
  return TRUE;
}

void tes_signal_recalc(TesTask *t) {
  guint64 ready = (t->pending.set | t->tg->pending.set) & ~t->blocked;
  g_atomic_int_set(&t->sig_flag, ready != 0 || (t->tg->stop_sig && !t->stopped));
}

/* ---- Choosing and telling a thread; sighand lock held ---- */

static gboolean wants(const TesTask *t, int sig) {
  return !t->is_dead && !g_atomic_int_get(&t->killed) &&
         (!(t->blocked & TES_SIGMASK(sig)) || (t->wait_set & TES_SIGMASK(sig)));
}

static void poke(TesTask *t) {
  g_atomic_int_set(&t->sig_flag, 1);
  tes_task_interrupt(t);
}

/* One thread that can take a group's signal is told: the leader if it can, else the first. */
static void poke_group(TesThreadGroup *tg, int sig) {
  if (tg->leader && wants(tg->leader, sig)) {
    poke(tg->leader);
    return;
  }
  for (GList *l = tg->threads.head; l; l = l->next)
    if (wants(l->data, sig)) {
      poke(l->data);
      return;
    }
}

/* A thread blocked `newly`: group signals that it was to take go to another. */
void tes_signal_retarget(TesTask *t, guint64 newly) {
  guint64 set = t->tg->pending.set & newly;
  for (int sig = 1; set; sig++)
    if (set & TES_SIGMASK(sig)) {
      set &= ~TES_SIGMASK(sig);
      poke_group(t->tg, sig);
    }
}

/* ---- Sending ---- */

/* Init of a nested pid namespace takes no signal it has no handler for from inside (pid_namespaces(7)). */
static gboolean is_protected_init(const TesThreadGroup *tg) {
  return tg->n_nrs > 1 && tg->nrs[tg->n_nrs - 1].nr == 1;
}

static gboolean is_ignored(const TesThreadGroup *tg, const TesTask *t, int sig, const siginfo_t *info) {
  guint64 handler = tg->sighand->action[sig].handler;
  if (is_protected_init(tg) && handler == 0 && info->si_code <= 0 &&
      !(info->si_code == SI_USER && info->si_pid == 0))
    return TRUE;
  const TesTask *who = t ? t : tg->leader;
  if (who && ((who->blocked | who->wait_set) & TES_SIGMASK(sig)))
    return FALSE; /* blocked: the action may change before it is looked at */
  if (handler == 1)
    return sig != SIGKILL && sig != SIGSTOP;
  return handler == 0 && (DEFAULT_IGNORED & TES_SIGMASK(sig));
}

void tes_signal_discard_group(TesThreadGroup *tg, guint64 mask) {
  discard(&tg->pending, mask);
  for (GList *l = tg->threads.head; l; l = l->next)
    discard(&((TesTask *)l->data)->pending, mask);
}

/* SIGCONT, and SIGKILL, end a stop. */
static void resume_group(TesThreadGroup *tg, gboolean report) {
  if (!tg->stop_sig)
    return;
  gboolean was_stopped = tg->stopped;
  tg->stop_sig = 0;
  tg->stopped = tg->stop_reported = FALSE;
  for (GList *l = tg->threads.head; l; l = l->next) {
    g_atomic_int_set(&((TesTask *)l->data)->stopped, FALSE);
    tes_task_wake(l->data);
  }
  tg->cont_pending = report && was_stopped;
}

static void kill_locked(TesThreadGroup *tg, int status) {
  if (!tg->exiting) {
    tg->exiting = TRUE;
    tg->exit_status = status;
  }
  resume_group(tg, FALSE);
  for (GList *l = tg->threads.head; l; l = l->next) {
    g_atomic_int_set(&((TesTask *)l->data)->killed, 1);
    tes_task_interrupt(l->data);
  }
}

/* Queues for one task (t) or its group. task-set lock held. *continued: a stopped group was continued, so the parent must be told. */
static int send_locked(TesThreadGroup *tg, TesTask *t, const siginfo_t *info, gboolean *continued) {
  int sig = info->si_signo, r = 0;
  if (tg->zombie || tg->reaped || (t && t->is_dead))
    return 0;
  tes_mutex_lock(&tg->sighand->lock);
  if (sig == SIGCONT) {
    tes_signal_discard_group(tg, STOP_SIGNALS);
    resume_group(tg, TRUE);
    *continued = tg->cont_pending;
  } else if (TES_SIGMASK(sig) & STOP_SIGNALS) {
    tes_signal_discard_group(tg, TES_SIGMASK(SIGCONT));
  }
  if (!is_ignored(tg, t, sig, info)) {
    if (sig == SIGKILL) {
      kill_locked(tg, SIGKILL);
    } else {
      const TesTask *who = t ? t : tg->leader;
      guint64 limit = tes_limits_soft(tg->limits, RLIMIT_SIGPENDING);
      r = enqueue(t ? &t->pending : &tg->pending, info, who ? who->counted_uid : 0, limit);
      if (r == 0 && t && wants(t, sig))
        poke(t);
      else if (r == 0 && !t)
        poke_group(tg, sig);
    }
  }
  tes_mutex_unlock(&tg->sighand->lock);
  tes_queue_notify(&tg->kernel->signal_queue, POLLIN | POLLRDNORM);
  return r;
}

static siginfo_t fill_info(int sig, const siginfo_t *info) {
  siginfo_t i = info ? *info : (siginfo_t){.si_code = SI_KERNEL};
  i.si_signo = sig;
  return i;
}

static int send_signal(TesKernel *k, TesThreadGroup *tg, TesTask *t, int sig, const siginfo_t *info) {
  if (sig < 1 || sig > TES_NSIG)
    return -EINVAL;
  siginfo_t i = fill_info(sig, info);
  gboolean continued = FALSE;
  tes_mutex_lock(&k->task_set);
  int r = send_locked(tg, t, &i, &continued);
  if (continued)
    tes_signal_notify_parent(tg, CLD_CONTINUED, SIGCONT);
  tes_mutex_unlock(&k->task_set);
  return r;
}

int tes_signal_task(TesTask *t, int sig, const siginfo_t *info) {
  return send_signal(t->kernel, t->tg, t, sig, info);
}

int tes_signal_group(TesThreadGroup *tg, int sig, const siginfo_t *info) {
  return send_signal(tg->kernel, tg, NULL, sig, info);
}

int tes_signal_group_locked(TesThreadGroup *tg, int sig, const siginfo_t *info) {
  siginfo_t i = fill_info(sig, info);
  gboolean continued = FALSE;
  int r = send_locked(tg, NULL, &i, &continued);
  if (continued)
    tes_signal_notify_parent(tg, CLD_CONTINUED, SIGCONT);
  return r;
}

int tes_signal_pgrp(TesKernel *k, gint pgid, int sig, const siginfo_t *info) {
  int r = -ESRCH;
  tes_mutex_lock(&k->task_set);
  TesPgrp *pg = g_hash_table_lookup(k->pgrps, GINT_TO_POINTER(pgid));
  for (GList *l = pg ? pg->groups.head : NULL; l; l = l->next)
    if (sig == 0)
      r = 0;
    else if (tes_signal_group_locked(l->data, sig, info) == 0)
      r = 0;
  tes_mutex_unlock(&k->task_set);
  return r;
}

/* The sender's real or effective uid is the target's real or saved one, or CAP_KILL; SIGCONT also within a session (kill(2)). */
gboolean tes_signal_may_send(TesCtx *ctx, TesTask *target, int sig) {
  TesTask *self = tes_ctx_to_task(ctx);
  TesCred *c = tes_ctx_cred(ctx);
  if (!self || self->tg == target->tg)
    return TRUE;
  tes_mutex_lock(&target->lock);
  TesCred *tc = target->cred;
  gboolean same =
      tc && (c->euid == tc->suid || c->euid == tc->uid || c->uid == tc->suid || c->uid == tc->uid);
  tes_mutex_unlock(&target->lock);
  if (same || tes_cred_capable(c, CAP_KILL))
    return TRUE;
  TES_LOCKED(&self->kernel->task_set);
  return sig == SIGCONT && self->tg->session == target->tg->session;
}

/* ---- Telling the parent ---- */

void tes_signal_notify_parent(TesThreadGroup *child, int why, int status) {
  TesThreadGroup *parent = child->parent;
  if (!parent)
    return;
  tes_mutex_lock(&parent->sighand->lock);
  gboolean no_stop = parent->sighand->action[SIGCHLD].flags & SA_NOCLDSTOP;
  tes_mutex_unlock(&parent->sighand->lock);
  gboolean exited = why == CLD_EXITED || why == CLD_KILLED || why == CLD_DUMPED;
  int sig = exited ? child->exit_signal : SIGCHLD;
  if (sig && (exited || !no_stop)) {
    TesNs *ns = parent->leader ? parent->leader->ns_pid : NULL;
    siginfo_t info = {.si_signo = sig, .si_code = why};
    info.si_pid = tes_tg_nr(child, ns);
    info.si_uid = child->leader && child->leader->cred ? child->leader->cred->uid : 0;
    info.si_status = status;
    info.si_utime = child->dead_utime;
    info.si_stime = child->dead_stime;
    tes_signal_group_locked(parent, sig, &info);
  }
  tes_queue_notify(&parent->child_queue, POLLIN);
}
