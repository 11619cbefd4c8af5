/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of futexes: futex(2), futex_waitv(2), set_robust_list(2). The mechanism is core/task/futex.c. */
#include <core/syscalls/syscalls.h>
#include <core/task/futex.h>
#include <linux/futex.h>

#ifndef FUTEX_32
#define FUTEX_32 2
#endif
#define SIZE_MASK 3 /* of a futex_waitv's flags */

/* 0, -EFAULT; -EINVAL for what no time is. */
static int get_time(TesTask *t, gulong addr, TesTime *out) {
  struct timespec ts;
  if (tes_copy_in(t, &ts, addr, sizeof ts) < 0)
    return -EFAULT;
  if (!tes_timespec_valid(&ts))
    return -EINVAL;
  *out = tes_timespec_to_ns(&ts);
  return 0;
}

/* ---- Waiting ---- */

enum { WAIT_PRIVATE = 1, WAIT_REALTIME = 2 };

static glong wait_on(TesTask *t, const TesFutexWait *f, guint flags, TesTime deadline);

static glong restart_wait(TesTask *t, const gulong a[6]) {
  TesFutexWait f = {.addr = a[0], .value = a[1], .bitset = a[2], .private_ = (a[3] & WAIT_PRIVATE) != 0};
  return wait_on(t, &f, a[3], (TesTime)a[4]);
}

/* Interrupted with a deadline, it goes on with the same deadline; without one the call is simply made again. */
static glong wait_on(TesTask *t, const TesFutexWait *f, guint flags, TesTime deadline) {
  int r = tes_futex_wait(t, f, 1, flags & WAIT_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC, deadline);
  if (r != -EINTR)
    return r;
  if (deadline == TES_TIME_INFINITE)
    return -TES_ERESTARTSYS;
  tes_task_set_restart(t, restart_wait, (gulong[6]){f->addr, f->value, f->bitset, flags, deadline});
  return -TES_ERESTART_RESTARTBLOCK;
}

/* The timeout of FUTEX_WAIT is relative, FUTEX_WAIT_BITSET's absolute. */
static glong futex_wait(TesTask *t, const gulong a[6], gboolean private_, gboolean realtime,
                        gboolean relative, guint32 bitset) {
  TesTime deadline = TES_TIME_INFINITE;
  if (a[3]) {
    int r = get_time(t, a[3], &deadline);
    if (r < 0)
      return r;
    if (relative)
      deadline = tes_time_add(tes_time_monotonic(t->kernel), deadline);
  }
  if (bitset == 0 || (a[0] & 3))
    return -EINVAL;
  TesFutexWait f = {.addr = a[0], .value = a[2], .bitset = bitset, .private_ = private_};
  return wait_on(t, &f, (private_ ? WAIT_PRIVATE : 0) | (realtime ? WAIT_REALTIME : 0), deadline);
}

static glong futex_requeue(TesTask *t, const gulong a[6], gboolean private_, gboolean compare) {
  int wake = (int)a[2], move = (int)a[3];
  guint32 value = a[5];
  if (wake < 0 || move < 0 || (a[0] & 3) || (a[4] & 3))
    return -EINVAL;
  return tes_futex_requeue(t, a[0], a[4], private_, wake, move, compare ? &value : NULL);
}

static glong sys_futex(TesTask *t, const gulong a[6]) {
  int op = (int)a[1], cmd = op & FUTEX_CMD_MASK;
  gboolean private_ = (op & FUTEX_PRIVATE_FLAG) != 0, realtime = (op & FUTEX_CLOCK_REALTIME) != 0;
  if (realtime && cmd != FUTEX_WAIT_BITSET)
    return -ENOSYS;
  switch (cmd) {
  case FUTEX_WAIT:
    return futex_wait(t, a, private_, FALSE, TRUE, TES_FUTEX_ANY);
  case FUTEX_WAIT_BITSET:
    return futex_wait(t, a, private_, realtime, FALSE, (guint32)a[5]);
  case FUTEX_WAKE:
    return a[0] & 3 ? -EINVAL : tes_futex_wake(t, a[0], private_, (int)a[2], TES_FUTEX_ANY);
  case FUTEX_WAKE_BITSET:
    return (a[0] & 3) || (guint32)a[5] == 0 ? -EINVAL
                                            : tes_futex_wake(t, a[0], private_, (int)a[2], (guint32)a[5]);
  case FUTEX_REQUEUE:
    return futex_requeue(t, a, private_, FALSE);
  case FUTEX_CMP_REQUEUE:
    return futex_requeue(t, a, private_, TRUE);
  case FUTEX_WAKE_OP:
    if ((a[0] & 3) || (a[4] & 3))
      return -EINVAL;
    return tes_futex_wake_op(t, a[0], a[4], private_, (int)a[2], (int)a[3], (guint32)a[5]);
  default:
    return -ENOSYS; /* FUTEX_FD, and the operations with priority inheritance */
  }
}

/* ---- futex_waitv ---- */

static int import_waitv(TesTask *t, gulong addr, guint n, TesFutexWait *f) {
  struct futex_waitv_ {
    guint64 val, uaddr;
    guint32 flags, reserved;
  } u[TES_FUTEX_WAITV_MAX];
  if (tes_copy_in(t, u, addr, n * sizeof *u) < 0)
    return -EFAULT;
  for (guint i = 0; i < n; i++) {
    if ((u[i].flags & ~(SIZE_MASK | FUTEX_PRIVATE_FLAG)) || u[i].reserved ||
        (u[i].flags & SIZE_MASK) != FUTEX_32 || (u[i].uaddr & 3) || u[i].val > G_MAXUINT32)
      return -EINVAL;
    f[i] = (TesFutexWait){
        .addr = u[i].uaddr,
        .value = u[i].val,
        .bitset = TES_FUTEX_ANY,
        .private_ = (u[i].flags & FUTEX_PRIVATE_FLAG) != 0,
    };
  }
  return 0;
}

static glong sys_futex_waitv(TesTask *t, const gulong a[6]) {
  TesFutexWait f[TES_FUTEX_WAITV_MAX];
  TesTime deadline = TES_TIME_INFINITE;
  guint n = a[1];
  int clockid = (int)a[4], r = 0;
  if ((guint)a[2] != 0 || n == 0 || n > TES_FUTEX_WAITV_MAX || !a[0])
    return -EINVAL;
  if (a[3]) {
    if (clockid != CLOCK_MONOTONIC && clockid != CLOCK_REALTIME)
      return -EINVAL;
    r = get_time(t, a[3], &deadline);
  } else {
    clockid = CLOCK_MONOTONIC;
  }
  if (r == 0)
    r = import_waitv(t, a[0], n, f);
  if (r == 0)
    r = tes_futex_wait(t, f, n, clockid, deadline);
  return r == -EINTR ? -TES_ERESTARTSYS : r; /* the deadline is absolute: made again as it is */
}

/* ---- Robust lists ---- */

#define ROBUST_HEAD_SIZE 24

static glong sys_set_robust_list(TesTask *t, const gulong a[6]) {
  if (a[1] != ROBUST_HEAD_SIZE)
    return -EINVAL;
  t->robust_list = a[0];
  t->robust_list_len = a[1];
  return 0;
}

static glong sys_get_robust_list(TesTask *t, const gulong a[6]) {
  gint pid = (gint)a[0];
  g_autoptr(TesTask) other = pid ? tes_task_find(t->kernel, t->ns_pid, pid, FALSE) : tes_task_ref(t);
  if (!other)
    return -ESRCH;
  if (other != t && !tes_task_may_inspect(&t->ctx, other))
    return -EPERM;
  gulong len = ROBUST_HEAD_SIZE, head = __atomic_load_n(&other->robust_list, __ATOMIC_RELAXED);
  if (tes_copy_out(t, a[2], &len, sizeof len) < 0 || tes_copy_out(t, a[1], &head, sizeof head) < 0)
    return -EFAULT;
  return 0;
}

static const TesSyscall rows[] = {
    {202, "futex", sys_futex, TES_PARTIAL, "no priority inheritance: the PI operations are ENOSYS", "pxuTpu"},
    {273, "set_robust_list", sys_set_robust_list, TES_FULL, NULL, "pu"},
    {274, "get_robust_list", sys_get_robust_list, TES_FULL, NULL, "dpp"},
    {449, "futex_waitv", sys_futex_waitv, TES_FULL, NULL, "puxTd"},
};

const TesSyscallTable tes_sys_futex = TES_ROWS(rows);
