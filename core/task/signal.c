/* SPDX-License-Identifier: Apache-2.0 */
/* Signals on arrival: which one is next, its default action or handler, group stops, system call restart.
 * Everything here is run by the receiving task itself, between a trap and the next run of the guest. */
#include <core/task/signal-private.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SYNCHRONOUS                                                                          \
  (TES_SIGMASK(SIGSEGV) | TES_SIGMASK(SIGBUS) | TES_SIGMASK(SIGILL) | TES_SIGMASK(SIGTRAP) | \
   TES_SIGMASK(SIGFPE) | TES_SIGMASK(SIGSYS))
#define CORE_SIGNALS \
  (SYNCHRONOUS | TES_SIGMASK(SIGQUIT) | TES_SIGMASK(SIGABRT) | TES_SIGMASK(SIGXCPU) | TES_SIGMASK(SIGXFSZ))
#define SYSCALL_INSN_LEN 2

int tes_signal_dequeue(TesTask *t, guint64 set, siginfo_t *out) {
  TesSigPending *both[] = {&t->pending, &t->tg->pending};
  for (int i = 0; i < 2; i++) {
    guint64 ready = both[i]->set & set;
    if (!ready)
      continue;
    guint64 first = ready & SYNCHRONOUS ? ready & SYNCHRONOUS : ready;
    int sig = __builtin_ctzll(first) + 1;
    tes_sigpending_take(both[i], sig, out);
    return sig;
  }
  return 0;
}

guint64 tes_signal_pending_set(TesTask *t) {
  TES_LOCKED(&t->tg->sighand->lock);
  return t->pending.set | t->tg->pending.set;
}

int tes_signal_take(TesTask *t, guint64 set, siginfo_t *info) {
  TES_LOCKED(&t->tg->sighand->lock);
  int sig = tes_signal_dequeue(t, set, info);
  if (sig)
    tes_signal_recalc(t);
  return sig;
}

TesQueue *tes_signal_queue(TesKernel *k) { return &k->signal_queue; }

/* ---- Masks ---- */

static void set_blocked_locked(TesTask *t, guint64 mask) {
  mask &= ~TES_SIG_UNBLOCKABLE;
  guint64 newly = mask & ~t->blocked;
  t->blocked = mask;
  if (newly & t->tg->pending.set)
    tes_signal_retarget(t, newly);
  tes_signal_recalc(t);
}

void tes_signal_set_blocked(TesTask *t, guint64 mask) {
  tes_mutex_lock(&t->kernel->task_set); /* retargeting walks the group's threads */
  tes_mutex_lock(&t->tg->sighand->lock);
  set_blocked_locked(t, mask);
  tes_mutex_unlock(&t->tg->sighand->lock);
  tes_mutex_unlock(&t->kernel->task_set);
}

void tes_task_set_tmp_mask(TesTask *t, guint64 mask) {
  if (!t->have_saved_mask) {
    t->saved_mask = t->blocked;
    t->have_saved_mask = TRUE;
  }
  tes_signal_set_blocked(t, mask);
}

gboolean tes_signal_pending(TesTask *t) {
  return g_atomic_int_get(&t->killed) || g_atomic_int_get(&t->sig_flag);
}

gboolean tes_task_is_killed(TesTask *t) { return g_atomic_int_get(&t->killed) != 0; }

void tes_task_set_restart(TesTask *t, glong (*fn)(TesTask *, const gulong a[6]), const gulong args[6]) {
  t->restart_fn = fn;
  memcpy(t->restart_args, args, sizeof t->restart_args);
}

void tes_signal_exec(TesTask *t) {
  TesSigHand *sh = t->tg->sighand;
  tes_mutex_lock(&sh->lock);
  for (int sig = 1; sig <= TES_NSIG; sig++) {
    guint64 handler = sh->action[sig].handler;
    sh->action[sig] = (TesSigAction){.handler = handler == 1 ? 1 : 0};
  }
  tes_mutex_unlock(&sh->lock);
  t->altstack = (TesAltStack){.flags = SS_DISABLE};
  t->restart_fn = NULL;
}

void tes_signal_force(TesTask *t, const siginfo_t *info) {
  int sig = info->si_signo;
  tes_mutex_lock(&t->tg->sighand->lock);
  TesSigAction *a = &t->tg->sighand->action[sig];
  gboolean blocked = (t->blocked & TES_SIGMASK(sig)) != 0;
  if (blocked || a->handler == 1) {
    a->handler = 0;
    t->blocked &= ~TES_SIGMASK(sig);
  }
  tes_mutex_unlock(&t->tg->sighand->lock);
  tes_signal_task(t, sig, info);
}

/* ---- Group stop ---- */

/* All threads that live have stopped: the parent learns of it. task-set and sighand locks held. */
static gboolean stop_is_complete(TesThreadGroup *tg) {
  for (GList *l = tg->threads.head; l; l = l->next) {
    TesTask *t = l->data;
    if (!t->stopped && !t->is_dead)
      return FALSE;
  }
  return TRUE;
}

void tes_signal_stop_wait(TesTask *t) {
  TesThreadGroup *tg = t->tg;
  tes_mutex_lock(&t->kernel->task_set);
  tes_mutex_lock(&tg->sighand->lock);
  gboolean complete = FALSE;
  int sig = tg->stop_sig;
  if (sig) {
    g_atomic_int_set(&t->stopped, TRUE);
    complete = !tg->stopped && stop_is_complete(tg);
    if (complete)
      tg->stopped = TRUE;
  }
  tes_signal_recalc(t);
  tes_mutex_unlock(&tg->sighand->lock);
  if (complete)
    tes_signal_notify_parent(tg, CLD_STOPPED, sig);
  tes_mutex_unlock(&t->kernel->task_set);
  while (g_atomic_int_get(&t->stopped) && tes_task_block_killable(t, TES_TIME_INFINITE) == 0)
    ;
  tes_mutex_lock(&tg->sighand->lock);
  g_atomic_int_set(&t->stopped, FALSE);
  tes_signal_recalc(t);
  tes_mutex_unlock(&tg->sighand->lock);
}

/* Default action of SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU. The terminal's ones do nothing to an orphaned group. */
static void begin_stop(TesTask *t, int sig) {
  TesThreadGroup *tg = t->tg;
  tes_mutex_lock(&t->kernel->task_set);
  if (sig == SIGSTOP || !tes_pgrp_is_orphaned(tg->pgrp)) {
    tes_mutex_lock(&tg->sighand->lock);
    if (!tg->exiting) {
      if (!tg->stop_sig)
        tg->stop_sig = sig;
      tg->cont_pending = FALSE;
      for (GList *l = tg->threads.head; l; l = l->next)
        if (l->data != t && !((TesTask *)l->data)->stopped) {
          g_atomic_int_set(&((TesTask *)l->data)->sig_flag, 1);
          tes_task_interrupt(l->data);
        }
    }
    tes_mutex_unlock(&tg->sighand->lock);
  }
  tes_mutex_unlock(&t->kernel->task_set);
}

/* ---- Restart of interrupted calls ---- */

static void restart_syscall(TesTask *t, TesRegs *r, gulong nr) {
  r->rax = nr;
  r->rip -= SYSCALL_INSN_LEN;
}

/* What becomes of a restart code in rax when a handler with `flags` is about to run. */
static void settle_for_handler(TesTask *t, guint64 flags) {
  if (!t->in_syscall)
    return;
  t->in_syscall = FALSE;
  TesRegs *r = tes_task_regs(t, TRUE);
  switch (-(glong)r->rax) {
  case TES_ERESTARTSYS:
    if (flags & SA_RESTART) {
      restart_syscall(t, r, t->nr);
      return;
    }
    r->rax = -EINTR;
    return;
  case TES_ERESTARTNOINTR:
    restart_syscall(t, r, t->nr);
    return;
  case TES_ERESTARTNOHAND:
  case TES_ERESTART_RESTARTBLOCK:
    r->rax = -EINTR;
  }
}

static void settle_without_handler(TesTask *t) {
  if (!t->in_syscall)
    return;
  t->in_syscall = FALSE;
  TesRegs *r = tes_task_regs(t, TRUE);
  switch (-(glong)r->rax) {
  case TES_ERESTARTSYS:
  case TES_ERESTARTNOINTR:
  case TES_ERESTARTNOHAND:
    restart_syscall(t, r, t->nr);
    return;
  case TES_ERESTART_RESTARTBLOCK:
    restart_syscall(t, r, SYS_restart_syscall);
  }
}

/* ---- Delivery ---- */

static void run_handler(TesTask *t, const siginfo_t *info, const TesSigAction *a) {
  settle_for_handler(t, a->flags);
  guint64 old = t->have_saved_mask ? t->saved_mask : t->blocked;
  t->have_saved_mask = FALSE;
  if (!tes_signal_setup_frame(t, info, a, old)) {
    /* No room for the frame: SIGSEGV that cannot be handled. */
    tes_task_group_exit(t, SIGSEGV);
    return;
  }
  guint64 mask = t->blocked | a->mask;
  if (!(a->flags & SA_NODEFER))
    mask |= TES_SIGMASK(info->si_signo);
  tes_signal_set_blocked(t, mask);
}

static void default_action(TesTask *t, const siginfo_t *info) {
  int sig = info->si_signo;
  switch (sig) {
  case SIGCONT:
  case SIGCHLD:
  case SIGWINCH:
  case SIGURG:
    return;
  case SIGSTOP:
  case SIGTSTP:
  case SIGTTIN:
  case SIGTTOU:
    begin_stop(t, sig);
    return;
  default:
    /* No core is written, but the status says what Linux's would with RLIMIT_CORE 0: no core bit. */
    tes_task_group_exit(t, sig);
  }
}

void tes_signal_deliver(TesTask *t) {
  TesSigHand *sh = t->tg->sighand;
  while (!g_atomic_int_get(&t->killed)) {
    siginfo_t info;
    TesSigAction action;
    tes_mutex_lock(&sh->lock);
    gboolean stop = t->tg->stop_sig != 0;
    int sig = stop ? 0 : tes_signal_dequeue(t, ~t->blocked, &info);
    if (sig) {
      action = sh->action[sig];
      if (action.handler > 1 && (action.flags & SA_RESETHAND))
        sh->action[sig].handler = 0;
    }
    tes_signal_recalc(t);
    tes_mutex_unlock(&sh->lock);
    if (stop) {
      tes_signal_stop_wait(t);
      continue;
    }
    if (!sig)
      break;
    if (G_UNLIKELY(t->kernel->watch))
      tes_trace_signal(t, &info);
    if (action.handler > 1)
      run_handler(t, &info, &action);
    else if (action.handler == 0)
      default_action(t, &info);
  }
  if (g_atomic_int_get(&t->killed))
    return;
  settle_without_handler(t);
  if (t->have_saved_mask) {
    t->have_saved_mask = FALSE;
    tes_signal_set_blocked(t, t->saved_mask);
  }
}
