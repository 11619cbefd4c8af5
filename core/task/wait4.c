/* SPDX-License-Identifier: Apache-2.0 */
/* wait4(2) and waitid(2): which children count, what happened to them, waiting for it. A waiter enlists on its group's
 * child queue, then looks at the children under the task-set lock. */
#include <core/task/life.h>
#include <string.h>
#include <sys/wait.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* A request and its result. */
typedef struct {
  int which;          /* P_ALL, P_PID, P_PGID, P_PIDFD */
  gint nr;            /* P_PID, P_PGID: number in the caller's pid namespace */
  TesThreadGroup *tg; /* P_PIDFD: referenced */
  int options;
  gboolean nonblock; /* the pidfd is O_NONBLOCK: EAGAIN instead of waiting */
  gint pid;          /* result; 0: nothing (WNOHANG) */
  guint32 uid;
  int status, code; /* wait status; CLD_* */
  int info_status;
  TesUsage usage;
} Wait;

/* ---- Which children ---- */

static gboolean is_named(TesTask *t, TesThreadGroup *c, const Wait *w) {
  switch (w->which) {
  case P_PID:
    return c->nrs && tes_pid_in(tes_pid_of(c->nrs), t->ns_pid) == w->nr;
  case P_PGID:
    return c->pgrp && (w->nr ? tes_pid_in(c->pgrp->pid, t->ns_pid) == w->nr : c->pgrp == t->tg->pgrp);
  case P_PIDFD:
    return c == w->tg;
  default:
    return TRUE;
  }
}

static gboolean is_eligible(TesTask *t, TesThreadGroup *c, const Wait *w) {
  if (!is_named(t, c, w))
    return FALSE;
  if (w->options & __WNOTHREAD && c->parent_task != t->id)
    return FALSE;
  return w->options & __WALL || (c->exit_signal != SIGCHLD) == !!(w->options & __WCLONE);
}

/* ---- What happened ---- */

static void set_result(TesTask *t, TesThreadGroup *c, Wait *w, int code, int status, int info_status) {
  w->pid = tes_pid_in(tes_pid_of(c->nrs), t->ns_pid);
  w->uid = c->leader->cred->uid;
  w->code = code;
  w->status = status;
  w->info_status = info_status;
  TesUsage children;
  tes_tg_usage(c, &w->usage);
  tes_tg_child_usage(c, &children);
  w->usage.utime += children.utime;
  w->usage.stime += children.stime;
  w->usage.minflt += children.minflt;
  w->usage.majflt += children.majflt;
  w->usage.nvcsw += children.nvcsw;
  w->usage.nivcsw += children.nivcsw;
  w->usage.maxrss = MAX(w->usage.maxrss, children.maxrss);
}

static gboolean take_exit(TesTask *t, TesThreadGroup *c, Wait *w, TesAfter *after) {
  if (!c->zombie || !(w->options & WEXITED))
    return FALSE;
  int st = c->exit_status;
  if (WIFEXITED(st))
    set_result(t, c, w, CLD_EXITED, st, WEXITSTATUS(st));
  else
    set_result(t, c, w, WCOREDUMP(st) ? CLD_DUMPED : CLD_KILLED, st, WTERMSIG(st));
  if (!(w->options & WNOWAIT))
    tes_tg_reap(c, TRUE, after);
  return TRUE;
}

static gboolean take_stop_or_continue(TesTask *t, TesThreadGroup *c, Wait *w) {
  if (c->zombie)
    return FALSE;
  TES_LOCKED(&c->sighand->lock);
  gboolean consume = !(w->options & WNOWAIT);
  if (w->options & WSTOPPED && c->stopped && !c->stop_reported) {
    set_result(t, c, w, CLD_STOPPED, c->stop_sig << 8 | 0x7f, c->stop_sig);
    c->stop_reported = consume;
    return TRUE;
  }
  if (w->options & WCONTINUED && c->cont_pending) {
    set_result(t, c, w, CLD_CONTINUED, 0xffff, SIGCONT);
    c->cont_pending = !consume;
    return TRUE;
  }
  return FALSE;
}

/* 1: *w has a result; 0: there are children, but nothing to tell; -ECHILD. */
static int look(TesTask *t, Wait *w, TesAfter *after) {
  int r = -ECHILD;
  TES_LOCKED(&t->kernel->task_set);
  for (GList *l = t->tg->children.head; l; l = l->next) {
    TesThreadGroup *c = l->data;
    if (!is_eligible(t, c, w))
      continue;
    r = 0;
    if (take_exit(t, c, w, after) || take_stop_or_continue(t, c, w))
      return 1;
  }
  return r;
}

/* 0 with or without a result, or -errno. */
static glong wait_for(TesTask *t, Wait *w) {
  TesWaiter waiter;
  TesAfter after = {0};
  tes_waiter_init_task(&waiter, t, POLLIN);
  tes_queue_add(&t->tg->child_queue, &waiter);
  gboolean interrupted = FALSE;
  glong r;
  for (;;) {
    r = look(t, w, &after); /* a child's end comes with SIGCHLD: the child first, then the signal */
    if (r != 0 || w->options & WNOHANG)
      break;
    if (w->nonblock || interrupted) {
      r = interrupted ? -TES_ERESTARTSYS : -EAGAIN;
      break;
    }
    interrupted = tes_task_block(t, TES_TIME_INFINITE) < 0;
  }
  tes_waiter_remove(&waiter);
  tes_after_run(&after);
  return MIN(r, 0);
}

static int put_rusage(TesTask *t, const Wait *w, gulong to) {
  if (!to || !w->pid)
    return 0;
  struct rusage ru;
  tes_usage_to_rusage(&w->usage, &ru);
  return tes_copy_out(t, to, &ru, sizeof ru);
}

/* ---- The calls ---- */

#define COMMON_OPTIONS (WNOHANG | __WNOTHREAD | __WCLONE | (int)__WALL)

glong tes_do_wait4(TesTask *t, const gulong a[6]) {
  gint pid = (gint)a[0];
  int options = (int)a[2];
  if (options & ~(COMMON_OPTIONS | WUNTRACED | WCONTINUED))
    return -EINVAL;
  if (pid == G_MININT)
    return -ESRCH;
  Wait w = {.which = pid > 0     ? P_PID
                     : pid == -1 ? P_ALL
                                 : P_PGID,
            .nr = ABS(pid),
            .options = options | WEXITED};
  glong r = wait_for(t, &w);
  if (r < 0)
    return r;
  if (w.pid && a[1] && tes_copy_out(t, a[1], &w.status, sizeof w.status))
    return -EFAULT;
  return put_rusage(t, &w, a[3]) ? -EFAULT : w.pid;
}

static int name_pidfd(TesTask *t, int fd, Wait *w) {
  if (fd < 0)
    return -EINVAL;
  g_autoptr(TesFile) f = tes_fd_get(t, fd);
  w->tg = f ? tes_file_pidfd(f) : NULL;
  if (!w->tg)
    return -EBADF;
  w->nonblock = f->flags & O_NONBLOCK;
  return 0;
}

static int put_siginfo(TesTask *t, const Wait *w, gulong to) {
  if (!to)
    return 0;
  gint head[3] = {w->pid ? SIGCHLD : 0, 0, w->code}, tail[3] = {w->pid, (gint)w->uid, w->info_status};
  if (tes_copy_out(t, to, head, sizeof head) ||
      tes_copy_out(t, to + G_STRUCT_OFFSET(siginfo_t, si_pid), tail, sizeof tail))
    return -EFAULT;
  return 0;
}

glong tes_do_waitid(TesTask *t, const gulong a[6]) {
  int which = (int)a[0], options = (int)a[3];
  gint nr = (gint)a[1];
  if (options & ~(COMMON_OPTIONS | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED) ||
      !(options & (WEXITED | WSTOPPED | WCONTINUED)))
    return -EINVAL;
  Wait w = {.which = which, .nr = nr, .options = options};
  int r = 0;
  switch (which) {
  case P_ALL:
    break;
  case P_PID:
    r = nr <= 0 ? -EINVAL : 0;
    break;
  case P_PGID:
    r = nr < 0 ? -EINVAL : 0;
    break;
  case P_PIDFD:
    r = name_pidfd(t, nr, &w);
    break;
  default:
    r = -EINVAL;
  }
  if (r < 0)
    return r;
  glong res = wait_for(t, &w);
  if (w.tg)
    tes_tg_unref(w.tg);
  if (res < 0)
    return res;
  if (put_siginfo(t, &w, a[2]) || put_rusage(t, &w, a[4]))
    return -EFAULT;
  return 0;
}
