/* SPDX-License-Identifier: Apache-2.0 */
/* Signal system calls: rt_sig*, kill family, sigaltstack, pause. */
#include <core/syscalls/syscalls.h>
#include <core/task/signal-private.h>
#include <sys/syscall.h>

#define SIGSET_SIZE 8

static glong sys_rt_sigaction(TesTask *t, const gulong a[6]) {
  int sig = (int)a[0];
  TesSigAction new_, old;
  if (a[3] != SIGSET_SIZE || sig < 1 || sig > TES_NSIG)
    return -EINVAL;
  if (a[1] && tes_copy_in(t, &new_, a[1], sizeof new_) < 0)
    return -EFAULT;
  if (a[1] && (sig == SIGKILL || sig == SIGSTOP))
    return -EINVAL;
  TesSigHand *sh = t->tg->sighand;
  tes_mutex_lock(&t->kernel->task_set);
  tes_mutex_lock(&sh->lock);
  old = sh->action[sig];
  if (a[1]) {
    new_.mask &= ~TES_SIG_UNBLOCKABLE;
    sh->action[sig] = new_;
    gboolean ignored =
        new_.handler == 1 ||
        (new_.handler == 0 && (sig == SIGCONT || sig == SIGCHLD || sig == SIGWINCH || sig == SIGURG));
    if (ignored)
      tes_signal_discard_group(t->tg, TES_SIGMASK(sig));
  }
  tes_mutex_unlock(&sh->lock);
  tes_mutex_unlock(&t->kernel->task_set);
  return a[2] && tes_copy_out(t, a[2], &old, sizeof old) < 0 ? -EFAULT : 0;
}

static glong sys_rt_sigprocmask(TesTask *t, const gulong a[6]) {
  if (a[3] != SIGSET_SIZE)
    return -EINVAL;
  guint64 old = t->blocked, set;
  if (a[1]) {
    if (tes_copy_in(t, &set, a[1], sizeof set) < 0)
      return -EFAULT;
    switch ((int)a[0]) {
    case SIG_BLOCK:
      set = old | set;
      break;
    case SIG_UNBLOCK:
      set = old & ~set;
      break;
    case SIG_SETMASK:
      break;
    default:
      return -EINVAL;
    }
    if ((set & ~TES_SIG_UNBLOCKABLE) != old)
      tes_signal_set_blocked(t, set);
  }
  return a[2] && tes_copy_out(t, a[2], &old, sizeof old) < 0 ? -EFAULT : 0;
}

static glong sys_rt_sigpending(TesTask *t, const gulong a[6]) {
  if (a[1] > SIGSET_SIZE)
    return -EINVAL;
  tes_mutex_lock(&t->tg->sighand->lock);
  guint64 set = (t->pending.set | t->tg->pending.set) & t->blocked;
  tes_mutex_unlock(&t->tg->sighand->lock);
  return tes_copy_out(t, a[0], &set, a[1]);
}

static glong sys_rt_sigsuspend(TesTask *t, const gulong a[6]) {
  guint64 mask;
  if (a[1] != SIGSET_SIZE)
    return -EINVAL;
  if (tes_copy_in(t, &mask, a[0], sizeof mask) < 0)
    return -EFAULT;
  tes_task_set_tmp_mask(t, mask);
  while (tes_task_block(t, TES_TIME_INFINITE) == 0)
    ;
  return -TES_ERESTARTNOHAND;
}

static glong sys_pause(TesTask *t, const gulong a[6]) {
  (void)a;
  while (tes_task_block(t, TES_TIME_INFINITE) == 0)
    ;
  return -TES_ERESTARTNOHAND;
}

/* Waits for one of `set`, which stay blocked; the queue's lock order lets a sender see wait_set before it decides whom to tell. */
static int wait_for_signal(TesTask *t, guint64 set, TesTime deadline, siginfo_t *info) {
  TesSigHand *sh = t->tg->sighand;
  int sig, r = 0;
  for (;;) {
    tes_mutex_lock(&sh->lock);
    sig = tes_signal_dequeue(t, set, info);
    t->wait_set = sig || r < 0 ? 0 : set;
    tes_signal_recalc(t);
    tes_mutex_unlock(&sh->lock);
    if (sig)
      return sig;
    if (r < 0)
      return r == -ETIMEDOUT ? -EAGAIN : r;
    r = tes_task_block(t, deadline);
  }
}

static glong sys_rt_sigtimedwait(TesTask *t, const gulong a[6]) {
  guint64 set;
  TesTime deadline = TES_TIME_INFINITE;
  if (a[3] != SIGSET_SIZE)
    return -EINVAL;
  if (tes_copy_in(t, &set, a[0], sizeof set) < 0)
    return -EFAULT;
  if (a[2]) {
    struct timespec ts;
    if (tes_copy_in(t, &ts, a[2], sizeof ts) < 0)
      return -EFAULT;
    if (ts.tv_sec < 0 || ts.tv_nsec < 0 || ts.tv_nsec >= TES_NSEC)
      return -EINVAL;
    if (ts.tv_sec < G_MAXINT32)
      deadline = tes_time_monotonic(t->kernel) + ts.tv_sec * TES_NSEC + ts.tv_nsec;
  }
  siginfo_t info;
  int sig = wait_for_signal(t, set & ~TES_SIG_UNBLOCKABLE, deadline, &info);
  if (sig > 0 && a[1] && tes_copy_out(t, a[1], &info, sizeof info) < 0)
    return -EFAULT;
  return sig;
}

static glong sys_rt_sigreturn(TesTask *t, const gulong a[6]) {
  (void)a;
  return tes_signal_sigreturn(t);
}

static glong sys_restart_syscall(TesTask *t, const gulong a[6]) {
  (void)a;
  glong (*fn)(TesTask *, const gulong[6]) = g_steal_pointer(&t->restart_fn);
  return fn ? fn(t, t->restart_args) : -EINTR;
}

/* ---- sigaltstack ---- */

typedef struct {
  guint64 sp;
  gint32 flags, pad;
  guint64 size;
} GuestStack;

#define MIN_ALTSTACK 2048

static glong sys_sigaltstack(TesTask *t, const gulong a[6]) {
  GuestStack new_, old = {.sp = t->altstack.sp, .size = t->altstack.size};
  gulong sp = t->trap.sp;
  gboolean inside = !(t->altstack.flags & SS_AUTODISARM) && t->altstack.size && sp > t->altstack.sp &&
                    sp - t->altstack.sp <= t->altstack.size;
  old.flags = !t->altstack.size ? SS_DISABLE : inside ? SS_ONSTACK : (int)t->altstack.flags;
  if (a[0]) {
    if (tes_copy_in(t, &new_, a[0], sizeof new_) < 0)
      return -EFAULT;
    if (inside)
      return -EPERM;
    int mode = new_.flags & ~SS_AUTODISARM;
    if (mode != 0 && mode != SS_ONSTACK && mode != SS_DISABLE)
      return -EINVAL;
    if (mode == SS_DISABLE)
      t->altstack = (TesAltStack){.flags = SS_DISABLE};
    else if (new_.size < MIN_ALTSTACK)
      return -ENOMEM;
    else
      t->altstack = (TesAltStack){new_.sp, new_.size, new_.flags & SS_AUTODISARM};
  }
  return a[1] && tes_copy_out(t, a[1], &old, sizeof old) < 0 ? -EFAULT : 0;
}

/* ---- kill family ---- */

static siginfo_t info_from(TesTask *t, TesTask *target, int sig, int code) {
  siginfo_t info = {.si_signo = sig, .si_code = code};
  info.si_pid = tes_task_pid(t, target->ns_pid);
  info.si_uid = t->cred->uid;
  return info;
}

static int kill_one(TesTask *t, TesTask *target, int sig, gboolean thread, siginfo_t *given) {
  if (!tes_signal_may_send(&t->ctx, target, sig))
    return -EPERM;
  if (sig == 0)
    return 0;
  siginfo_t info = given ? *given : info_from(t, target, sig, thread ? SI_TKILL : SI_USER);
  return thread ? tes_signal_task(target, sig, &info) : tes_signal_group(target->tg, sig, &info);
}

/* kill(-1): everything but init and the caller; kill(0), kill(-pgid): a process group of the caller's namespace. */
static int kill_many(TesTask *t, gint pgid, int sig) {
  g_autoptr(GPtrArray) all = tes_tasks_snapshot(t->kernel, t->ns_pid);
  int r = -ESRCH;
  gboolean sent = FALSE;
  for (guint i = 0; i < all->len; i++) {
    TesTask *target = g_ptr_array_index(all, i);
    if (pgid == -1 ? target->tg == t->tg || tes_task_pid(target, t->ns_pid) == 1
                   : tes_task_pgid(target, t->ns_pid) != pgid)
      continue;
    int e = kill_one(t, target, sig, FALSE, NULL);
    sent |= e == 0;
    if (r == -ESRCH || e == 0)
      r = e;
  }
  return sent ? 0 : r;
}

static glong sys_kill(TesTask *t, const gulong a[6]) {
  gint pid = (gint)a[0];
  int sig = (int)a[1];
  if (sig < 0 || sig > TES_NSIG)
    return -EINVAL;
  if (pid == G_MININT)
    return -ESRCH;
  if (pid == 0)
    return kill_many(t, tes_task_pgid(t, t->ns_pid), sig);
  if (pid < 0)
    return kill_many(t, pid == -1 ? -1 : -pid, sig);
  g_autoptr(TesTask) target = tes_task_find(t->kernel, t->ns_pid, pid, FALSE);
  return target ? kill_one(t, target, sig, FALSE, NULL) : -ESRCH;
}

static int kill_thread(TesTask *t, gint tgid, gint tid, int sig, siginfo_t *given) {
  if (sig < 0 || sig > TES_NSIG || tid <= 0)
    return -EINVAL;
  g_autoptr(TesTask) target = tes_task_find(t->kernel, t->ns_pid, tid, FALSE);
  if (!target || (tgid > 0 && tes_task_pid(target, t->ns_pid) != tgid))
    return -ESRCH;
  return kill_one(t, target, sig, TRUE, given);
}

static glong sys_tkill(TesTask *t, const gulong a[6]) {
  return kill_thread(t, -1, (gint)a[0], (int)a[1], NULL);
}

static glong sys_tgkill(TesTask *t, const gulong a[6]) {
  if ((gint)a[0] <= 0)
    return -EINVAL;
  return kill_thread(t, (gint)a[0], (gint)a[1], (int)a[2], NULL);
}

/* Only a task itself may claim to be the kernel or kill(2). */
static int import_info(TesTask *t, gulong uinfo, int sig, gboolean self, siginfo_t *info) {
  if (tes_copy_in(t, info, uinfo, sizeof *info) < 0)
    return -EFAULT;
  info->si_signo = sig;
  return (info->si_code >= 0 || info->si_code == SI_TKILL) && !self ? -EPERM : 0;
}

static glong sys_rt_sigqueueinfo(TesTask *t, const gulong a[6]) {
  siginfo_t info;
  int sig = (int)a[1];
  int r = import_info(t, a[2], sig, (gint)a[0] == tes_task_pid(t, t->ns_pid), &info);
  if (r < 0)
    return r;
  if (sig < 0 || sig > TES_NSIG)
    return -EINVAL;
  g_autoptr(TesTask) target = (gint)a[0] > 0 ? tes_task_find(t->kernel, t->ns_pid, (gint)a[0], FALSE) : NULL;
  return target ? kill_one(t, target, sig, FALSE, &info) : -ESRCH;
}

static glong sys_rt_tgsigqueueinfo(TesTask *t, const gulong a[6]) {
  siginfo_t info;
  int r = import_info(t, a[3], (int)a[2], (gint)a[1] == tes_task_tid(t, t->ns_pid), &info);
  if (r < 0)
    return r;
  if ((gint)a[0] <= 0)
    return -EINVAL;
  return kill_thread(t, (gint)a[0], (gint)a[1], (int)a[2], &info);
}

static const TesSyscall rows[] = {
    {SYS_rt_sigaction, "rt_sigaction", sys_rt_sigaction, TES_FULL, NULL, "Sppu"},
    {SYS_rt_sigprocmask, "rt_sigprocmask", sys_rt_sigprocmask, TES_FULL, NULL, "dppu"},
    {SYS_rt_sigreturn, "rt_sigreturn", sys_rt_sigreturn, TES_FULL, NULL, ""},
    {SYS_rt_sigpending, "rt_sigpending", sys_rt_sigpending, TES_FULL, NULL, "pu"},
    {SYS_rt_sigtimedwait, "rt_sigtimedwait", sys_rt_sigtimedwait, TES_FULL, NULL, "ppTu"},
    {SYS_rt_sigqueueinfo, "rt_sigqueueinfo", sys_rt_sigqueueinfo, TES_FULL, NULL, "dSp"},
    {SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo", sys_rt_tgsigqueueinfo, TES_FULL, NULL, "ddSp"},
    {SYS_rt_sigsuspend, "rt_sigsuspend", sys_rt_sigsuspend, TES_FULL, NULL, "pu"},
    {SYS_sigaltstack, "sigaltstack", sys_sigaltstack, TES_FULL, NULL, "pp"},
    {SYS_kill, "kill", sys_kill, TES_FULL, NULL, "dS"},
    {SYS_tkill, "tkill", sys_tkill, TES_FULL, NULL, "dS"},
    {SYS_tgkill, "tgkill", sys_tgkill, TES_FULL, NULL, "ddS"},
    {SYS_pause, "pause", sys_pause, TES_FULL, NULL, ""},
    {SYS_restart_syscall, "restart_syscall", sys_restart_syscall, TES_FULL, NULL, ""},
};
const TesSyscallTable tes_sys_signal = TES_ROWS(rows);
