/* SPDX-License-Identifier: Apache-2.0 */
/* getrlimit, setrlimit, prlimit64 and getrusage. Interface: misc.h. */
#include <core/syscalls/misc.h>
#include <core/task/life.h>
#include <linux/capability.h>

#define NR_OPEN 1048576 /* fs.nr_open: no more descriptors than this for anybody */

/* Swaps in *set (or not) and gives the old pair; -EINVAL, -EPERM as setrlimit(2). */
static int do_prlimit(TesTask *t, TesThreadGroup *tg, guint resource, const struct rlimit *set,
                      struct rlimit *old) {
  gboolean may_raise = tes_task_capable(t, CAP_SYS_RESOURCE);
  if (resource >= RLIM_NLIMITS)
    return -EINVAL;
  if (set && set->rlim_cur > set->rlim_max)
    return -EINVAL;
  if (set && resource == RLIMIT_NOFILE && set->rlim_max > NR_OPEN)
    return -EPERM;
  TesLimits *l = tg->limits;
  TES_LOCKED(&l->lock);
  if (old)
    *old = l->v[resource];
  if (!set)
    return 0;
  if (set->rlim_max > l->v[resource].rlim_max && !may_raise)
    return -EPERM;
  l->v[resource] = *set;
  return 0;
}

glong tes_do_getrlimit(TesTask *t, const gulong a[6]) {
  struct rlimit old;
  int r = do_prlimit(t, t->tg, (guint)a[0], NULL, &old);
  return r < 0 ? r : tes_copy_out(t, a[1], &old, sizeof old);
}

glong tes_do_setrlimit(TesTask *t, const gulong a[6]) {
  struct rlimit set;
  if (tes_copy_in(t, &set, a[1], sizeof set))
    return -EFAULT;
  return do_prlimit(t, t->tg, (guint)a[0], &set, NULL);
}

/* All ids of the target are the caller's real ones, or CAP_SYS_RESOURCE (prlimit(2)). */
static gboolean may_touch(TesTask *t, TesTask *target) {
  if (target->tg == t->tg || tes_task_capable(t, CAP_SYS_RESOURCE))
    return TRUE;
  g_autoptr(TesCred) o = tes_task_cred_ref(target);
  const TesCred *c = t->cred;
  return c->uid == o->euid && c->uid == o->suid && c->uid == o->uid && c->gid == o->egid &&
         c->gid == o->sgid && c->gid == o->gid;
}

glong tes_do_prlimit64(TesTask *t, const gulong a[6]) {
  struct rlimit set, old;
  gint pid = (gint)a[0];
  if (a[2] && tes_copy_in(t, &set, a[2], sizeof set))
    return -EFAULT;
  g_autoptr(TesTask) target = pid ? tes_task_find(t->kernel, t->ns_pid, pid, FALSE) : tes_task_ref(t);
  if (!target)
    return -ESRCH;
  if (!may_touch(t, target))
    return -EPERM;
  int r = do_prlimit(t, target->tg, (guint)a[1], a[2] ? &set : NULL, &old);
  if (r < 0 || !a[3])
    return r;
  return tes_copy_out(t, a[3], &old, sizeof old);
}

glong tes_do_getrusage(TesTask *t, const gulong a[6]) {
  TesUsage u;
  gboolean self = FALSE;
  tes_mutex_lock(&t->kernel->task_set);
  int r = 0;
  switch ((int)a[0]) {
  case RUSAGE_SELF:
    tes_tg_usage(t->tg, &u);
    self = TRUE;
    break;
  case RUSAGE_CHILDREN:
    tes_tg_child_usage(t->tg, &u);
    break;
  case RUSAGE_THREAD:
    tes_task_usage(t, &u);
    self = TRUE;
    break;
  default:
    r = -EINVAL;
  }
  tes_mutex_unlock(&t->kernel->task_set);
  if (r < 0)
    return r;
  if (self) {
    TesMMStat st;
    tes_mm_stat(t->mm, &st);
    u.maxrss = MAX(u.maxrss, MAX(st.rss, st.rss_peak));
  }
  struct rusage ru;
  tes_usage_to_rusage(&u, &ru);
  return tes_copy_out(t, a[1], &ru, sizeof ru);
}
