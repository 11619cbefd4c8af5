/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions, process groups and job control: setsid(2), setpgid(2), credentials(7), and the services of tty.h.
 * Sessions, groups and a terminal's session and foreground group are guarded by the task-set lock. */
#include <core/task/life.h>
#include <linux/capability.h>
#include <sys/ioctl.h>

/* ---- Objects ---- */

TesSession *tes_session_new(TesThreadGroup *leader) {
  TesSession *s = g_new0(TesSession, 1);
  s->refs = 1;
  s->sid = leader->tgid;
  s->leader = leader;
  s->pid = tes_pid_ref(tes_pid_of(leader->nrs));
  g_hash_table_insert(leader->kernel->sessions, GINT_TO_POINTER(s->sid), s);
  return s;
}

static TesKernel *kernel_of(gpointer pid) { return ((TesPid *)pid)->nr[0].ns->kernel; }

void tes_session_unref(TesSession *s) {
  if (--s->refs > 0)
    return;
  TesKernel *k = kernel_of(s->pid);
  g_hash_table_remove(k->sessions, GINT_TO_POINTER(s->sid));
  tes_pid_unref(k, s->pid);
  g_free(s);
}

TesPgrp *tes_pgrp_new(gint pgid, TesSession *session) {
  TesKernel *k = kernel_of(session->pid);
  TesPgrp *p = g_new0(TesPgrp, 1);
  p->refs = 1;
  p->pgid = pgid;
  p->session = session;
  session->refs++;
  p->pid = tes_pid_ref(tes_pid_find(k, NULL, pgid));
  g_queue_init(&p->groups);
  g_hash_table_insert(k->pgrps, GINT_TO_POINTER(pgid), p);
  return p;
}

void tes_pgrp_unref(TesKernel *k, TesPgrp *p) {
  if (--p->refs > 0)
    return;
  g_hash_table_remove(k->pgrps, GINT_TO_POINTER(p->pgid));
  tes_pid_unref(k, p->pid);
  tes_session_unref(p->session);
  g_free(p);
}

TesPgrp *tes_pgrp_find_locked(TesKernel *k, TesNs *ns, gint pgid) {
  TesPid *pid = tes_pid_find(k, ns, pgid);
  return pid ? g_hash_table_lookup(k->pgrps, GINT_TO_POINTER(pid->nr[0].nr)) : NULL;
}

void tes_tg_set_pgrp(TesThreadGroup *tg, TesPgrp *p) {
  TesPgrp *old = tg->pgrp;
  TesSession *old_session = tg->session;
  if (p) {
    p->refs++;
    p->session->refs++;
    g_queue_push_tail(&p->groups, tg);
  }
  tg->pgrp = p;
  tg->session = p ? p->session : NULL;
  if (old) {
    g_queue_remove(&old->groups, tg);
    tes_pgrp_unref(tg->kernel, old);
  }
  if (old_session)
    tes_session_unref(old_session);
}

/* POSIX: no member has a parent in another group of the same session. */
gboolean tes_pgrp_is_orphaned(TesPgrp *p) {
  for (GList *l = p->groups.head; l; l = l->next) {
    TesThreadGroup *tg = l->data;
    if (tg->zombie || !tg->parent)
      continue;
    if (tg->parent->pgrp != p && tg->parent->session == p->session)
      return FALSE;
  }
  return TRUE;
}

/* ---- Terminals ---- */

/* Cuts a session from its terminal; the caller gives the returned reference back without the lock. */
static TesTty *detach_tty(TesSession *s) {
  TesTty *tty = g_steal_pointer(&s->tty);
  if (tty && tty->session == s) {
    tty->session = NULL;
    tty->pgrp = 0;
  }
  return tty;
}

static TesPgrp *foreground(TesKernel *k, TesTty *tty) {
  return tty->pgrp ? g_hash_table_lookup(k->pgrps, GINT_TO_POINTER(tty->pgrp)) : NULL;
}

static void hang_up_group(TesAfter *after, TesPgrp *p) {
  if (!p)
    return;
  tes_after_signal_pgrp(after, p, SIGHUP);
  tes_after_signal_pgrp(after, p, SIGCONT);
}

/* A pseudo terminal is not hung up when its session leader goes (only its foreground group is told): other sessions
 * that still have it open go on, as on Linux. */
void tes_session_leader_exit(TesThreadGroup *tg) {
  TesKernel *k = tg->kernel;
  TesAfter after = {0};
  TesTty *tty = NULL;
  tes_mutex_lock(&k->task_set);
  TesSession *s = tg->session;
  if (s && s->leader == tg) {
    s->leader = NULL;
    if (s->tty) {
      hang_up_group(&after, foreground(k, s->tty));
      tty = detach_tty(s);
    }
  }
  tes_mutex_unlock(&k->task_set);
  tes_after_run(&after);
  if (tty)
    tty->ops->unref(tty);
}

void tes_tty_signal_fg(TesKernel *k, TesTty *tty, int sig) {
  tes_mutex_lock(&k->task_set);
  gint pgrp = tty->pgrp;
  tes_mutex_unlock(&k->task_set);
  if (pgrp)
    tes_signal_pgrp(k, pgrp, sig, NULL);
}

static gboolean is_ignored_or_blocked(TesTask *t, int sig) {
  TES_LOCKED(&t->tg->sighand->lock);
  return t->tg->sighand->action[sig].handler == 1 /* SIG_IGN */ || t->blocked & TES_SIGMASK(sig);
}

int tes_tty_check_change(TesTask *t, TesTty *tty, int sig) {
  TesKernel *k = t->kernel;
  tes_mutex_lock(&k->task_set);
  TesPgrp *own = t->tg->pgrp;
  gboolean background =
      t->tg->session && tty->session == t->tg->session && tty->pgrp && own && own->pgid != tty->pgrp;
  gboolean orphaned = background && tes_pgrp_is_orphaned(own);
  gint pgid = own ? own->pgid : 0;
  tes_mutex_unlock(&k->task_set);
  if (!background)
    return 0;
  if (is_ignored_or_blocked(t, sig))
    return sig == SIGTTIN ? -EIO : 0;
  if (orphaned)
    return -EIO;
  tes_signal_pgrp(k, pgid, sig, NULL);
  return -TES_ERESTARTSYS;
}

static void take_tty(TesTask *t, TesTty *tty) {
  TesSession *s = t->tg->session;
  tty->ops->ref(tty);
  s->tty = tty;
  tty->session = s;
  tty->pgrp = t->tg->pgrp->pgid;
}

void tes_tty_opened(TesTask *t, TesTty *tty) {
  TES_LOCKED(&t->kernel->task_set);
  TesSession *s = t->tg->session;
  if (s && s->leader == t->tg && !s->tty && !tty->session)
    take_tty(t, tty);
}

static glong set_controlling(TesTask *t, TesTty *tty, gboolean steal) {
  gboolean admin = tes_task_capable(t, CAP_SYS_ADMIN);
  TesTty *old = NULL;
  glong r = 0;
  tes_mutex_lock(&t->kernel->task_set);
  TesSession *s = t->tg->session;
  if (s && s->leader == t->tg && tty->session == s)
    r = 0;
  else if (!s || s->leader != t->tg || s->tty)
    r = -EPERM;
  else if (tty->session && !(steal && admin))
    r = -EPERM;
  else {
    if (tty->session)
      old = detach_tty(tty->session);
    take_tty(t, tty);
  }
  tes_mutex_unlock(&t->kernel->task_set);
  if (old)
    old->ops->unref(old);
  return r;
}

static glong give_up_controlling(TesTask *t, TesTty *tty) {
  TesKernel *k = t->kernel;
  TesAfter after = {0};
  TesTty *old = NULL;
  glong r = 0;
  tes_mutex_lock(&k->task_set);
  TesSession *s = t->tg->session;
  if (!s || s->tty != tty)
    r = -ENOTTY;
  else if (s->leader == t->tg) {
    hang_up_group(&after, foreground(k, tty));
    old = detach_tty(s);
  } /* a member that is not the leader has no terminal of its own to give up here */
  tes_mutex_unlock(&k->task_set);
  tes_after_run(&after);
  if (old)
    old->ops->unref(old);
  return r;
}

static glong set_foreground(TesTask *t, TesTty *tty, gulong arg) {
  gint nr;
  int r = tes_tty_check_change(t, tty, SIGTTOU);
  if (r < 0)
    return r == -EIO ? -ENOTTY : r;
  if (tes_copy_in(t, &nr, arg, sizeof nr))
    return -EFAULT;
  TES_LOCKED(&t->kernel->task_set);
  TesSession *s = t->tg->session;
  if (!s || s->tty != tty || tty->session != s)
    return -ENOTTY;
  if (nr < 0)
    return -EINVAL;
  TesPgrp *p = tes_pgrp_find_locked(t->kernel, t->ns_pid, nr);
  if (!p)
    return -ESRCH;
  if (p->session != s)
    return -EPERM;
  tty->pgrp = p->pgid;
  return 0;
}

static glong get_number(TesTask *t, TesTty *tty, gboolean sid, gulong arg) {
  gint nr = 0;
  tes_mutex_lock(&t->kernel->task_set);
  gboolean own = tty->session && t->tg->session == tty->session;
  if (own && sid)
    nr = tes_pid_in(tty->session->pid, t->ns_pid);
  else if (own) {
    TesPgrp *p = foreground(t->kernel, tty);
    nr = p ? tes_pid_in(p->pid, t->ns_pid) : 0;
  }
  tes_mutex_unlock(&t->kernel->task_set);
  if (!own)
    return -ENOTTY;
  return tes_copy_out(t, arg, &nr, sizeof nr);
}

glong tes_tty_job_ioctl(TesTask *t, TesTty *tty, guint cmd, gulong arg) {
  switch (cmd) {
  case TIOCSCTTY:
    return set_controlling(t, tty, arg == 1);
  case TIOCNOTTY:
    return give_up_controlling(t, tty);
  case TIOCGPGRP:
    return get_number(t, tty, FALSE, arg);
  case TIOCSPGRP:
    return set_foreground(t, tty, arg);
  case TIOCGSID:
    return get_number(t, tty, TRUE, arg);
  default:
    return -ENOTTY;
  }
}

void tes_tty_vanished(TesKernel *k, TesTty *tty) {
  TesAfter after = {0};
  TesTty *old = NULL;
  tes_mutex_lock(&k->task_set);
  TesSession *s = tty->session;
  if (s) {
    if (s->leader) {
      tes_after_signal_tg(&after, s->leader, SIGHUP);
      tes_after_signal_tg(&after, s->leader, SIGCONT);
    }
    TesPgrp *fg = foreground(k, tty);
    if (fg && !(s->leader && s->leader->pgrp == fg && fg->groups.length == 1))
      hang_up_group(&after, fg);
    old = detach_tty(s);
  }
  tes_mutex_unlock(&k->task_set);
  tes_after_run(&after);
  if (old)
    old->ops->unref(old);
}

TesTty *tes_task_tty(TesTask *t) {
  TES_LOCKED(&t->kernel->task_set);
  TesTty *tty = t->tg->session ? t->tg->session->tty : NULL;
  if (tty)
    tty->ops->ref(tty);
  return tty;
}
