/* SPDX-License-Identifier: Apache-2.0 */
/* Scheduling calls: sched(7), setpriority(2), ioprio_set(2), sched_setaffinity(2), membarrier(2), getcpu(2). The host's
 * scheduler runs the threads: policies, priorities and affinity are checked, kept and answered, not enforced.
 * Interface: tes_sys_sched. */
#include <core/syscalls/syscalls.h>
#include <core/task/life.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESET_ON_FORK 0x40000000 /* SCHED_RESET_ON_FORK */
#define POLICY_DEADLINE 6
#define FLAG_RESET_ON_FORK 1ULL
#define FLAG_KEEP_POLICY 8ULL
#define FLAG_KEEP_PARAMS 16ULL
#define KNOWN_FLAGS (FLAG_RESET_ON_FORK | 2 | 4 | FLAG_KEEP_POLICY | FLAG_KEEP_PARAMS)
#define RR_INTERVAL_NS (100 * 1000 * 1000)
#define NORMAL_INTERVAL_NS (4 * 1000 * 1000)

static TesTask *find(TesTask *t, gint pid) {
  return pid ? tes_task_find(t->kernel, t->ns_pid, pid, FALSE) : tes_task_ref(t);
}

/* Same effective uid as the target's real or effective one, or CAP_SYS_NICE. */
static gboolean may_change(TesTask *t, TesTask *target) {
  if (t == target || tes_task_capable(t, CAP_SYS_NICE))
    return TRUE;
  g_autoptr(TesCred) c = tes_task_cred_ref(target);
  return t->cred->euid == c->euid || t->cred->euid == c->uid;
}

/* ---- Policies ---- */

static gboolean is_realtime(int policy) { return policy == SCHED_FIFO || policy == SCHED_RR; }

static glong sys_sched_get_priority_max(TesTask *t, const gulong a[6]) {
  (void)t;
  switch ((int)a[0]) {
  case SCHED_FIFO:
  case SCHED_RR:
    return 99;
  case SCHED_OTHER:
  case SCHED_BATCH:
  case SCHED_IDLE:
  case POLICY_DEADLINE:
    return 0;
  default:
    return -EINVAL;
  }
}

static glong sys_sched_get_priority_min(TesTask *t, const gulong a[6]) {
  glong max = sys_sched_get_priority_max(t, a);
  return max > 0 ? 1 : max;
}

static int check_policy(int policy, int priority) {
  switch (policy) {
  case SCHED_FIFO:
  case SCHED_RR:
    return priority >= 1 && priority <= 99 ? 0 : -EINVAL;
  case SCHED_OTHER:
  case SCHED_BATCH:
  case SCHED_IDLE:
    return priority == 0 ? 0 : -EINVAL;
  default:
    return -EINVAL;
  }
}

static int set_policy(TesTask *t, TesTask *target, int policy, int priority, guint64 flags) {
  int r = check_policy(policy, priority);
  if (r < 0)
    return r;
  if (!may_change(t, target))
    return -EPERM;
  gboolean raises =
      is_realtime(policy) && (!is_realtime(target->sched_policy) || priority > target->sched_priority);
  if (raises && (guint64)priority > tes_task_rlimit(target, RLIMIT_RTPRIO) &&
      !tes_task_capable(t, CAP_SYS_NICE))
    return -EPERM;
  target->sched_policy = policy;
  target->sched_priority = priority;
  target->sched_flags = flags;
  return 0;
}

static glong sys_sched_setscheduler(TesTask *t, const gulong a[6]) {
  int policy = (int)a[1], priority;
  if ((gint)a[0] < 0 || !a[2] || policy < 0)
    return -EINVAL;
  if (tes_copy_in(t, &priority, a[2], sizeof priority))
    return -EFAULT;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  if (!target)
    return -ESRCH;
  return set_policy(t, target, policy & ~RESET_ON_FORK, priority,
                    policy & RESET_ON_FORK ? FLAG_RESET_ON_FORK : 0);
}

static glong sys_sched_getscheduler(TesTask *t, const gulong a[6]) {
  if ((gint)a[0] < 0)
    return -EINVAL;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  if (!target)
    return -ESRCH;
  return target->sched_policy | (target->sched_flags & FLAG_RESET_ON_FORK ? RESET_ON_FORK : 0);
}

static glong sys_sched_setparam(TesTask *t, const gulong a[6]) {
  int priority;
  if ((gint)a[0] < 0 || !a[1])
    return -EINVAL;
  if (tes_copy_in(t, &priority, a[1], sizeof priority))
    return -EFAULT;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  return target ? set_policy(t, target, target->sched_policy, priority, target->sched_flags) : -ESRCH;
}

static glong sys_sched_getparam(TesTask *t, const gulong a[6]) {
  if ((gint)a[0] < 0 || !a[1])
    return -EINVAL;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  return target ? tes_copy_out(t, a[1], &target->sched_priority, sizeof(gint)) : -ESRCH;
}

static glong sys_sched_rr_get_interval(TesTask *t, const gulong a[6]) {
  if ((gint)a[0] < 0)
    return -EINVAL;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  if (!target)
    return -ESRCH;
  glong ns = target->sched_policy == SCHED_RR     ? RR_INTERVAL_NS
             : target->sched_policy == SCHED_FIFO ? 0
                                                  : NORMAL_INTERVAL_NS;
  struct timespec ts = {0, ns};
  return tes_copy_out(t, a[1], &ts, sizeof ts);
}

/* The kernel's struct sched_attr, first published version and utilisation clamps. */
typedef struct {
  guint32 size, policy;
  guint64 flags;
  gint32 nice;
  guint32 priority;
  guint64 runtime, deadline, period;
  guint32 util_min, util_max;
} SchedAttr;
#define ATTR_SIZE_VER0 48

static int put_size(TesTask *t, gulong attr) {
  guint32 size = sizeof(SchedAttr);
  return tes_copy_out(t, attr, &size, sizeof size) ? -EFAULT : -E2BIG;
}

static int copy_attr(TesTask *t, gulong uattr, SchedAttr *out) {
  guint32 size;
  if (tes_copy_in(t, &size, uattr, sizeof size))
    return -EFAULT;
  size = size ? size : ATTR_SIZE_VER0;
  if (size < ATTR_SIZE_VER0 || size > TES_PAGE_SIZE)
    return put_size(t, uattr);
  guchar buf[TES_PAGE_SIZE];
  if (tes_copy_in(t, buf, uattr, size))
    return -EFAULT;
  for (guint i = sizeof *out; i < size; i++)
    if (buf[i])
      return put_size(t, uattr);
  memset(out, 0, sizeof *out);
  memcpy(out, buf, MIN(size, sizeof *out));
  return 0;
}

static int set_nice(TesTask *t, TesTask *target, int nice);

static glong sys_sched_setattr(TesTask *t, const gulong a[6]) {
  SchedAttr attr;
  if (!a[1] || (gint)a[0] < 0 || a[2])
    return -EINVAL;
  int r = copy_attr(t, a[1], &attr);
  if (r < 0)
    return r;
  if (attr.flags & ~KNOWN_FLAGS || (gint32)attr.policy < 0)
    return -EINVAL;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  if (!target)
    return -ESRCH;
  int policy = attr.flags & FLAG_KEEP_POLICY ? target->sched_policy : (int)attr.policy;
  if (attr.flags & FLAG_KEEP_PARAMS) {
    attr.priority = target->sched_priority;
    attr.nice = target->nice;
  }
  r = set_policy(t, target, policy, (int)attr.priority, attr.flags & FLAG_RESET_ON_FORK);
  return r == 0 && !is_realtime(policy) ? set_nice(t, target, CLAMP(attr.nice, -20, 19)) : r;
}

static glong sys_sched_getattr(TesTask *t, const gulong a[6]) {
  guint32 size = (guint32)a[2];
  if (!a[1] || (gint)a[0] < 0 || size < ATTR_SIZE_VER0 || size > TES_PAGE_SIZE || a[3])
    return -EINVAL;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  if (!target)
    return -ESRCH;
  SchedAttr attr = {
      .size = MIN(size, sizeof attr),
      .policy = target->sched_policy,
      .flags = target->sched_flags & FLAG_RESET_ON_FORK,
      .nice = is_realtime(target->sched_policy) ? 0 : target->nice,
      .priority = target->sched_priority,
      .util_max = 1024,
  };
  return tes_copy_out(t, a[1], &attr, attr.size);
}

static glong sys_sched_yield(TesTask *t, const gulong a[6]) {
  (void)t, (void)a;
  sched_yield();
  return 0;
}

/* ---- CPUs ---- */

static gboolean has_cpu(const TesTask *t, guint cpu) {
  return cpu < t->kernel->cores && (t->cpu_mask[cpu / 64] >> (cpu % 64) & 1);
}

static glong sys_sched_setaffinity(TesTask *t, const gulong a[6]) {
  guint64 mask[16] = {0}, any = 0, all = 1;
  gsize len = MIN((guint32)a[1], sizeof mask);
  if (tes_copy_in(t, mask, a[2], len))
    return -EFAULT;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  if (!target)
    return -ESRCH;
  if (!may_change(t, target))
    return -EPERM;
  for (guint cpu = 0; cpu < t->kernel->cores && cpu < 1024; cpu++) {
    any |= mask[cpu / 64] >> (cpu % 64) & 1;
    all &= mask[cpu / 64] >> (cpu % 64);
  }
  if (!any)
    return -EINVAL;
  memcpy(target->cpu_mask, mask, sizeof mask);
  if (!all)
    tes_vdso_ask_cpu(t->kernel);
  return 0;
}

static glong sys_sched_getaffinity(TesTask *t, const gulong a[6]) {
  gsize words = (t->kernel->cores + 63) / 64, len = (guint32)a[1];
  if (len * 8 < t->kernel->cores || len & 7)
    return -EINVAL;
  g_autoptr(TesTask) target = find(t, (gint)a[0]);
  if (!target)
    return -ESRCH;
  guint64 mask[16] = {0};
  for (guint cpu = 0; cpu < t->kernel->cores && cpu < 1024; cpu++)
    if (has_cpu(target, cpu))
      mask[cpu / 64] |= 1ULL << (cpu % 64);
  gsize n = MIN(len, MIN(words, 16) * 8);
  return tes_copy_out(t, a[2], mask, n) ? -EFAULT : (glong)n;
}

/* A CPU that the affinity mask allows, chosen by where the kernel's thread runs. */
static guint current_cpu(TesTask *t) {
  guint allowed = 0;
  for (guint cpu = 0; cpu < t->kernel->cores; cpu++)
    allowed += has_cpu(t, cpu);
  guint nth = allowed ? (guint)MAX(sched_getcpu(), 0) % allowed : 0;
  for (guint cpu = 0; cpu < t->kernel->cores; cpu++)
    if (has_cpu(t, cpu) && nth-- == 0)
      return cpu;
  return 0;
}

static glong sys_getcpu(TesTask *t, const gulong a[6]) {
  guint32 cpu = current_cpu(t), node = 0;
  if ((a[0] && tes_copy_out(t, a[0], &cpu, sizeof cpu)) ||
      (a[1] && tes_copy_out(t, a[1], &node, sizeof node)))
    return -EFAULT;
  return 0;
}

/* ---- Nice values and I/O priorities: one task, a process group, or a user ---- */

/* Referenced tasks; `which` counts from 0: process (thread), group, user. */
static GPtrArray *select_tasks(TesTask *t, int which, gint who) {
  GPtrArray *out = g_ptr_array_new_with_free_func((GDestroyNotify)tes_task_unref);
  TesKernel *k = t->kernel;
  TES_LOCKED(&k->task_set);
  if (which == 0) {
    TesTask *one = who ? tes_task_find_locked(k, t->ns_pid, who, FALSE) : t;
    if (one)
      g_ptr_array_add(out, tes_task_ref(one));
    return out;
  }
  TesPgrp *pgrp = which == 1 ? (who ? tes_pgrp_find_locked(k, t->ns_pid, who) : t->tg->pgrp) : NULL;
  guint32 uid = who ? (guint32)who : t->cred->uid;
  GHashTableIter it;
  gpointer p;
  g_hash_table_iter_init(&it, k->tasks);
  while (g_hash_table_iter_next(&it, NULL, &p)) {
    TesTask *one = p;
    if (which == 1 ? pgrp && one->tg->pgrp == pgrp : one->counted_uid == uid)
      g_ptr_array_add(out, tes_task_ref(one));
  }
  return out;
}

static int set_nice(TesTask *t, TesTask *target, int nice) {
  if (!may_change(t, target))
    return -EPERM;
  if (nice < target->nice && 20 - nice > (glong)MIN(tes_task_rlimit(target, RLIMIT_NICE), 40) &&
      !tes_task_capable(t, CAP_SYS_NICE))
    return -EACCES;
  target->nice = nice;
  return 0;
}

static glong sys_setpriority(TesTask *t, const gulong a[6]) {
  int which = (int)a[0], nice = CLAMP((int)a[2], -20, 19);
  if (which < 0 || which > 2)
    return -EINVAL;
  g_autoptr(GPtrArray) all = select_tasks(t, which, (gint)a[1]);
  int r = all->len ? 0 : -ESRCH;
  for (guint i = 0; i < all->len; i++) {
    int one = set_nice(t, all->pdata[i], nice);
    r = one < 0 ? one : r;
  }
  return r;
}

/* 20 - nice of the most favoured: 1..40. */
static glong sys_getpriority(TesTask *t, const gulong a[6]) {
  int which = (int)a[0];
  if (which < 0 || which > 2)
    return -EINVAL;
  g_autoptr(GPtrArray) all = select_tasks(t, which, (gint)a[1]);
  glong best = -ESRCH;
  for (guint i = 0; i < all->len; i++)
    best = MAX(best, 20 - ((TesTask *)all->pdata[i])->nice);
  return best;
}

#define IOPRIO_CLASS(p) ((p) >> 13)
#define IOPRIO_DATA(p) ((p)&0x1fff)

static int check_ioprio(TesTask *t, int prio) {
  switch (IOPRIO_CLASS(prio)) {
  case 1:
    if (!tes_task_capable(t, CAP_SYS_ADMIN) && !tes_task_capable(t, CAP_SYS_NICE))
      return -EPERM;
    return IOPRIO_DATA(prio) < 8 ? 0 : -EINVAL;
  case 2:
    return IOPRIO_DATA(prio) < 8 ? 0 : -EINVAL;
  case 3:
    return 0;
  case 0:
    return IOPRIO_DATA(prio) ? -EINVAL : 0;
  default:
    return -EINVAL;
  }
}

static glong sys_ioprio_set(TesTask *t, const gulong a[6]) {
  int which = (int)a[0], prio = (int)a[2];
  int r = check_ioprio(t, prio);
  if (r < 0)
    return r;
  if (which < 1 || which > 3)
    return -EINVAL;
  g_autoptr(GPtrArray) all = select_tasks(t, which - 1, (gint)a[1]);
  r = all->len ? 0 : -ESRCH;
  for (guint i = 0; i < all->len && r == 0; i++) {
    TesTask *one = all->pdata[i];
    if (!may_change(t, one))
      r = -EPERM;
    else
      one->ioprio = prio;
  }
  return r;
}

/* Without a priority of its own: best effort, from the nice value (ioprio_set(2)). */
static int ioprio_of(const TesTask *t) { return t->ioprio ? t->ioprio : 2 << 13 | (t->nice + 20) / 5; }

static glong sys_ioprio_get(TesTask *t, const gulong a[6]) {
  int which = (int)a[0];
  if (which < 1 || which > 3)
    return -EINVAL;
  g_autoptr(GPtrArray) all = select_tasks(t, which - 1, (gint)a[1]);
  if (!all->len)
    return -ESRCH;
  if (which == 1)
    return ((TesTask *)all->pdata[0])->ioprio;
  int best = G_MAXINT;
  for (guint i = 0; i < all->len; i++)
    best = MIN(best, ioprio_of(all->pdata[i]));
  return best;
}

/* ---- membarrier ---- */

#define MEMBARRIER_SERVED \
  (MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_PRIVATE_EXPEDITED | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)

/* Guest threads are threads of the host, and the host's global barrier covers all of them: correct, if slow. */
static glong host_barrier(void) {
  return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 ? 0 : -EINVAL;
}

static glong sys_membarrier(TesTask *t, const gulong a[6]) {
  if (a[1])
    return -EINVAL;
  switch ((int)a[0]) {
  case MEMBARRIER_CMD_QUERY: {
    long host = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    return host > 0 && host & MEMBARRIER_CMD_GLOBAL ? MEMBARRIER_SERVED : 0;
  }
  case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
    t->tg->membarrier = TRUE;
    return 0;
  case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
    if (!t->tg->membarrier)
      return -EPERM;
    return tes_tg_n_live(t->tg) > 1 || t->vm_shared ? host_barrier() : 0;
  case MEMBARRIER_CMD_GLOBAL:
    return host_barrier();
  default:
    return -EINVAL;
  }
}

#define STORED "kept and answered; the host's scheduler does not see it"

static const TesSyscall rows[] = {
    {SYS_sched_yield, "sched_yield", sys_sched_yield, TES_FULL, NULL, ""},
    {SYS_getpriority, "getpriority", sys_getpriority, TES_FULL, NULL, "dd"},
    {SYS_setpriority, "setpriority", sys_setpriority, TES_PARTIAL, STORED, "ddd"},
    {SYS_sched_setparam, "sched_setparam", sys_sched_setparam, TES_PARTIAL, STORED, "dp"},
    {SYS_sched_getparam, "sched_getparam", sys_sched_getparam, TES_FULL, NULL, "dp"},
    {SYS_sched_setscheduler, "sched_setscheduler", sys_sched_setscheduler, TES_PARTIAL, STORED, "ddp"},
    {SYS_sched_getscheduler, "sched_getscheduler", sys_sched_getscheduler, TES_FULL, NULL, "d"},
    {SYS_sched_get_priority_max, "sched_get_priority_max", sys_sched_get_priority_max, TES_FULL, NULL, "d"},
    {SYS_sched_get_priority_min, "sched_get_priority_min", sys_sched_get_priority_min, TES_FULL, NULL, "d"},
    {SYS_sched_rr_get_interval, "sched_rr_get_interval", sys_sched_rr_get_interval, TES_FULL, NULL, "dp"},
    {SYS_sched_setaffinity, "sched_setaffinity", sys_sched_setaffinity, TES_PARTIAL, STORED, "dup"},
    {SYS_sched_getaffinity, "sched_getaffinity", sys_sched_getaffinity, TES_FULL, NULL, "dup"},
    {SYS_ioprio_set, "ioprio_set", sys_ioprio_set, TES_PARTIAL,
     "kept and answered; the host's block layer does not see it", "ddd"},
    {SYS_ioprio_get, "ioprio_get", sys_ioprio_get, TES_FULL, NULL, "dd"},
    {SYS_getcpu, "getcpu", sys_getcpu, TES_FULL, NULL, "ppp"},
    {SYS_sched_setattr, "sched_setattr", sys_sched_setattr, TES_PARTIAL, STORED "; no SCHED_DEADLINE", "dpx"},
    {SYS_sched_getattr, "sched_getattr", sys_sched_getattr, TES_PARTIAL, "no SCHED_DEADLINE", "dpux"},
    {SYS_membarrier, "membarrier", sys_membarrier, TES_PARTIAL,
     "QUERY, GLOBAL and PRIVATE_EXPEDITED; the latter is slow", "dxd"},
};

const TesSyscallTable tes_sys_sched = TES_ROWS(rows);
