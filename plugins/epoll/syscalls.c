/* SPDX-License-Identifier: Apache-2.0 */
/* epoll_create(2), epoll_ctl(2), epoll_wait(2) and relatives; the plugin's descriptor. epoll(7). */
#include "private.h"

static glong create(TesTask *t, gboolean cloexec) {
  TesFile *f;
  int r = epoll_new(tes_task_kernel(t), 0, &f);
  if (r < 0)
    return r;
  r = tes_fd_install(t, f, 0, cloexec);
  tes_file_unref(f);
  return r;
}

static glong sys_epoll_create(TesTask *t, const gulong a[6]) {
  return (int)a[0] <= 0 ? -EINVAL : create(t, FALSE);
}

static glong sys_epoll_create1(TesTask *t, const gulong a[6]) {
  return (a[0] & ~(gulong)EPOLL_CLOEXEC) ? -EINVAL : create(t, (a[0] & EPOLL_CLOEXEC) != 0);
}

static int check_exclusive(int op, const struct epoll_event *ev, TesFile *target) {
  const guint allowed = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
  if (op == EPOLL_CTL_DEL || !(ev->events & EPOLLEXCLUSIVE))
    return 0;
  return op == EPOLL_CTL_MOD || is_epoll(target) || (ev->events & ~allowed) ? -EINVAL : 0;
}

static glong sys_epoll_ctl(TesTask *t, const gulong a[6]) {
  struct epoll_event ev = {.events = 0};
  int op = (int)a[1], fd = (int)a[2];
  if (op != EPOLL_CTL_DEL && tes_copy_in(t, &ev, a[3], sizeof ev) < 0)
    return -EFAULT;
  g_auto(TesFdLoan) set_loan = tes_fd_borrow_io(t, (int)a[0]), loan = tes_fd_borrow_io(t, fd);
  TesFile *set = set_loan.file, *target = loan.file;
  if (!set || !target)
    return -EBADF;
  if (!TES_HAS(target->ops, poll))
    return -EPERM;
  if (!is_epoll(set) || set == target)
    return -EINVAL;
  int r = check_exclusive(op, &ev, target);
  if (r < 0)
    return r;
  switch (op) {
  case EPOLL_CTL_ADD:
    return epoll_add((Epoll *)set, target, fd, &ev);
  case EPOLL_CTL_MOD:
    return epoll_modify((Epoll *)set, target, fd, &ev);
  case EPOLL_CTL_DEL:
    return epoll_delete((Epoll *)set, target, fd);
  default:
    return -EINVAL;
  }
}

/* One waiter of several is woken for an event; who leaves while more is ready hands on. */
static glong wait_events(TesTask *t, Epoll *e, gulong uevents, int max, TesTime deadline) {
  int n = epoll_harvest(e, t, uevents, max);
  if (n == 0 && deadline != 0) {
    TesWaiter w;
    tes_waiter_init_task(&w, t, POLLIN);
    w.flags = TES_WAIT_EXCLUSIVE;
    tes_queue_add(&e->sleepers, &w);
    int r = 0;
    while ((n = epoll_harvest(e, t, uevents, max)) == 0 && r == 0)
      r = tes_task_block(t, deadline);
    tes_waiter_remove(&w);
    if (n == 0 && r == -EINTR)
      n = r;
  }
  if (g_atomic_int_get(&e->sleepers.n) > 0 && epoll_has_ready(e))
    tes_queue_notify(&e->sleepers, POLLIN | POLLRDNORM);
  return n;
}

static glong do_wait(TesTask *t, const gulong a[6], TesTime deadline, gulong umask, gulong mask_size) {
  guint64 mask;
  int max = (int)a[2];
  if (umask) {
    if (mask_size != sizeof mask)
      return -EINVAL;
    if (tes_copy_in(t, &mask, umask, sizeof mask) < 0)
      return -EFAULT;
  }
  if (max <= 0 || (gsize)max > G_MAXINT / sizeof(struct epoll_event))
    return -EINVAL;
  g_auto(TesFdLoan) loan = tes_fd_borrow_io(t, (int)a[0]);
  TesFile *f = loan.file;
  if (!f)
    return -EBADF;
  if (!is_epoll(f))
    return -EINVAL;
  if (umask)
    tes_task_set_tmp_mask(t, mask);
  return wait_events(t, (Epoll *)f, a[1], max, deadline);
}

static TesTime after(TesTask *t, TesTime left) {
  TesTime now = tes_time_monotonic(tes_task_kernel(t)), d;
  if (left == 0)
    return 0;
  return __builtin_add_overflow(now, left, &d) ? TES_TIME_INFINITE : d;
}

static TesTime after_ms(TesTask *t, int ms) {
  return ms < 0 ? TES_TIME_INFINITE : after(t, (TesTime)ms * 1000000);
}

static glong sys_epoll_wait(TesTask *t, const gulong a[6]) {
  return do_wait(t, a, after_ms(t, (int)a[3]), 0, 0);
}

static glong sys_epoll_pwait(TesTask *t, const gulong a[6]) {
  return do_wait(t, a, after_ms(t, (int)a[3]), a[4], a[5]);
}

static glong sys_epoll_pwait2(TesTask *t, const gulong a[6]) {
  TesTime deadline = TES_TIME_INFINITE;
  glong ts[2];
  if (a[3]) {
    if (tes_copy_in(t, ts, a[3], sizeof ts) < 0)
      return -EFAULT;
    if (ts[0] < 0 || ts[1] < 0 || ts[1] >= TES_NSEC)
      return -EINVAL;
    if (ts[0] < G_MAXINT64 / TES_NSEC)
      deadline = after(t, ts[0] * TES_NSEC + ts[1]);
  }
  return do_wait(t, a, deadline, a[4], a[5]);
}

static const TesSyscall rows[] = {
    {213, "epoll_create", sys_epoll_create, TES_FULL, NULL, "d"},
    {232, "epoll_wait", sys_epoll_wait, TES_FULL, NULL, "fpdd"},
    {233, "epoll_ctl", sys_epoll_ctl, TES_FULL, NULL, "fdfp"},
    {281, "epoll_pwait", sys_epoll_pwait, TES_FULL, NULL, "fpddpu"},
    {291, "epoll_create1", sys_epoll_create1, TES_FULL, NULL, "x"},
    {441, "epoll_pwait2", sys_epoll_pwait2, TES_FULL, NULL, "fpdTpu"},
};

static const TesSyscallTable table = {.size = sizeof(TesSyscallTable), .rows = rows, .n = G_N_ELEMENTS(rows)};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "epoll", .version = 1};
static const TesFeature features[] = {
    {"syscalls", "epoll", &table}, {"state", "epoll", &state}, {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(epoll, .name = "epoll", .summary = "epoll(7): many files watched at once",
                  .licence = "Apache-2.0", .features = features);
