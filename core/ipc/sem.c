/* SPDX-License-Identifier: Apache-2.0 */
/* System V semaphores: semget(2), semop(2), semtimedop(2), and what SEM_UNDO gives back at exit. */
#include <core/ipc/sem.h>
#include <core/syscalls/syscalls.h>

static gint all_sems;  /* atomic */
static gint all_undos; /* atomic: adjustments that undo lists have room for */

void sem_set_unref(SemSet *s) {
  if (!g_atomic_int_dec_and_test(&s->refs))
    return;
  g_atomic_int_add(&all_sems, -(gint)s->n);
  tes_queue_clear(&s->queue);
  g_free(s->sem);
  g_free(s);
}

void sem_undo_drop(Undo *u) {
  u->owner->undos = g_slist_remove(u->owner->undos, u);
  u->set->undos = g_slist_remove(u->set->undos, u);
  g_atomic_int_add(&all_undos, -(gint)u->set->n);
  g_free(u);
}

/* Undo lists keep their namespace, so none is left. */
void tes_sem_ns_free(TesIpcNs *ns) {
  for (guint i = 0; i < ns->sem.top; i++)
    if (ns->sem.slot[i])
      sem_set_unref((SemSet *)ns->sem.slot[i]);
}

/* ---- semget(2) ---- */

static int set_new(TesTask *t, TesIpcNs *ns, guint32 key, gint n, guint mode) {
  if (n < 1)
    return -EINVAL;
  if (g_atomic_int_add(&all_sems, n) + n > SEM_ALL_MAX) {
    g_atomic_int_add(&all_sems, -n);
    return -ENOSPC;
  }
  SemSet *s = g_new0(SemSet, 1);
  s->refs = 1;
  s->n = (guint)n;
  s->sem = g_new0(Sem, s->n);
  s->ctime = tes_ipc_now(t->kernel);
  tes_queue_init(&s->queue);
  int id = tes_ipc_add(t, &ns->sem, &s->perm, key, mode);
  if (id < 0)
    sem_set_unref(s);
  return id;
}

static glong sys_semget(TesTask *t, const gulong a[6]) {
  guint32 key = (guint32)a[0];
  gint n = (gint)a[1];
  guint flags = (guint)a[2];
  if (n < 0 || n > SEM_SET_MAX)
    return -EINVAL;
  TesIpcNs *ns = tes_ipc_ns(t);
  TES_LOCKED(&ns->lock);
  TesIpcPerm *p = key == IPC_PRIVATE ? NULL : tes_ipc_find_key(&ns->sem, key);
  if (!p)
    return key != IPC_PRIVATE && !(flags & IPC_CREAT) ? -ENOENT : set_new(t, ns, key, n, flags);
  if ((flags & IPC_CREAT) && (flags & IPC_EXCL))
    return -EEXIST;
  if ((guint)n > ((SemSet *)p)->n)
    return -EINVAL;
  int r = tes_ipc_permission(t, p, (flags | flags >> 3 | flags >> 6) & 6);
  return r < 0 ? r : p->id;
}

/* ---- Undo ---- */

static TesSemUndo *undo_list(TesTask *t) {
  if (!t->sem_undo) {
    t->sem_undo = g_new0(TesSemUndo, 1);
    t->sem_undo->refs = 1;
    t->sem_undo->ns = tes_ns_ref(t->ns_ipc);
  }
  return t->sem_undo;
}

TesSemUndo *tes_sem_undo_share(TesTask *t) {
  g_atomic_int_inc(&undo_list(t)->refs);
  return t->sem_undo;
}

/* What the task has to give back to the set; NULL: all undo lists together have no more room. */
static Undo *undo_of(TesTask *t, SemSet *s) {
  TesSemUndo *list = undo_list(t);
  for (GSList *l = list->undos; l; l = l->next)
    if (((Undo *)l->data)->set == s)
      return l->data;
  if (g_atomic_int_add(&all_undos, (gint)s->n) + (gint)s->n > SEM_UNDO_MAX) {
    g_atomic_int_add(&all_undos, -(gint)s->n);
    return NULL;
  }
  Undo *u = g_malloc0(sizeof *u + s->n * sizeof *u->adjust);
  u->owner = list;
  u->set = s;
  list->undos = g_slist_prepend(list->undos, u);
  s->undos = g_slist_prepend(s->undos, u);
  return u;
}

static void give_back(TesTask *t, Undo *u) {
  SemSet *s = u->set;
  for (guint i = 0; i < s->n; i++) {
    if (!u->adjust[i])
      continue;
    gint v = (gint)s->sem[i].value + u->adjust[i];
    s->sem[i].value = (guint16)CLAMP(v, 0, SEM_MOST);
    s->sem[i].pid = t->tg->tgid;
  }
  s->otime = tes_ipc_now(t->kernel);
  tes_queue_notify(&s->queue, POLLIN);
  sem_undo_drop(u);
}

void tes_sem_undo_leave(TesTask *t) {
  TesSemUndo *list = g_steal_pointer(&t->sem_undo);
  if (!list || !g_atomic_int_dec_and_test(&list->refs))
    return;
  TesIpcNs *ns = g_atomic_pointer_get(&list->ns->data);
  if (ns) {
    TES_LOCKED(&ns->lock);
    while (list->undos)
      give_back(t, list->undos->data);
  }
  tes_ns_unref(list->ns);
  g_free(list);
}

/* ---- semop(2) ---- */

typedef struct {
  struct sembuf op[SEM_OPS_MAX];
  guint n;
  gboolean alters, undoes;
  const struct sembuf *stuck; /* the operation that cannot be done yet */
} Ops;

/* Takes operations [0, n) back. */
static void take_back(SemSet *s, Undo *u, const Ops *o, guint n) {
  while (n-- > 0) {
    const struct sembuf *op = &o->op[n];
    s->sem[op->sem_num].value = (guint16)(s->sem[op->sem_num].value - op->sem_op);
    if (op->sem_flg & SEM_UNDO)
      u->adjust[op->sem_num] = (gint16)(u->adjust[op->sem_num] + op->sem_op);
  }
}

/* All or none. 0, -EAGAIN: o->stuck must wait, -ERANGE. Lock held. */
static int try_ops(TesTask *t, SemSet *s, Ops *o) {
  Undo *u = o->undoes ? undo_of(t, s) : NULL;
  if (o->undoes && !u)
    return -ENOMEM;
  for (guint i = 0; i < o->n; i++) {
    const struct sembuf *op = &o->op[i];
    gint v = (gint)s->sem[op->sem_num].value + op->sem_op;
    gint adjust = op->sem_flg & SEM_UNDO ? u->adjust[op->sem_num] - op->sem_op : 0;
    gboolean wait = v < 0 || (op->sem_op == 0 && v != 0);
    if (wait || v > SEM_MOST || adjust < -SEM_MOST - 1 || adjust > SEM_MOST) {
      take_back(s, u, o, i);
      o->stuck = op;
      return wait ? -EAGAIN : -ERANGE;
    }
    s->sem[op->sem_num].value = (guint16)v;
    if (op->sem_flg & SEM_UNDO)
      u->adjust[op->sem_num] = (gint16)adjust;
  }
  for (guint i = 0; i < o->n; i++)
    s->sem[o->op[i].sem_num].pid = t->tg->tgid;
  s->otime = tes_ipc_now(t->kernel);
  if (o->alters)
    tes_queue_notify(&s->queue, POLLIN);
  return 0;
}

static guint16 *waiting(SemSet *s, const Ops *o) {
  Sem *sem = &s->sem[o->stuck->sem_num];
  return o->stuck->sem_op == 0 ? &sem->waiting_zero : &sem->waiting_more;
}

/* One attempt; before it the counts of what this task waits for are taken back, after it they are made. */
static int attempt(TesTask *t, TesIpcNs *ns, SemSet *s, Ops *o, gboolean last) {
  TES_LOCKED(&ns->lock);
  if (o->stuck)
    --*waiting(s, o);
  o->stuck = NULL;
  int r = s->removed ? -EIDRM : last ? -EAGAIN : try_ops(t, s, o);
  gboolean wait = r == -EAGAIN && !last && !(o->stuck->sem_flg & IPC_NOWAIT);
  if (wait)
    ++*waiting(s, o);
  else
    o->stuck = NULL;
  return wait ? 1 : r;
}

static int perform(TesTask *t, TesIpcNs *ns, SemSet *s, Ops *o, TesTime deadline) {
  TesWaiter w;
  int r, ended = 0;
  tes_waiter_init_task(&w, t, POLLIN);
  tes_queue_add(&s->queue, &w);
  while ((r = attempt(t, ns, s, o, ended < 0)) == 1)
    ended = tes_task_block(t, deadline);
  tes_waiter_remove(&w);
  return r == -EAGAIN && ended == -EINTR ? -EINTR : r;
}

static int import(TesTask *t, const gulong a[6], Ops *o) {
  if ((int)a[0] < 0 || a[2] < 1)
    return -EINVAL;
  if (a[2] > SEM_OPS_MAX)
    return -E2BIG;
  o->n = (guint)a[2];
  o->alters = o->undoes = FALSE;
  o->stuck = NULL;
  if (tes_copy_in(t, o->op, a[1], o->n * sizeof *o->op) < 0)
    return -EFAULT;
  for (guint i = 0; i < o->n; i++) {
    o->alters |= o->op[i].sem_op != 0;
    o->undoes |= (o->op[i].sem_flg & SEM_UNDO) != 0;
  }
  return 0;
}

/* Finds the set (referenced) and checks the operations against it. */
static int get(TesTask *t, TesIpcNs *ns, int id, const Ops *o, SemSet **out) {
  TesIpcPerm *p;
  TES_LOCKED(&ns->lock);
  int r = tes_ipc_find(&ns->sem, id, &p);
  SemSet *s = (SemSet *)p;
  for (guint i = 0; r == 0 && i < o->n; i++)
    if (o->op[i].sem_num >= s->n)
      r = -EFBIG;
  if (r == 0)
    r = tes_ipc_permission(t, p, o->alters ? 2 : 4);
  if (r == 0) {
    *out = s;
    g_atomic_int_inc(&s->refs);
  }
  return r;
}

static glong operate(TesTask *t, const gulong a[6], TesTime deadline) {
  g_autofree Ops *o = g_new(Ops, 1);
  TesIpcNs *ns = tes_ipc_ns(t);
  SemSet *s = NULL;
  int r = import(t, a, o);
  if (r == 0)
    r = get(t, ns, (int)a[0], o, &s);
  if (r < 0)
    return r;
  r = perform(t, ns, s, o, deadline);
  sem_set_unref(s);
  return r;
}

static glong sys_semop(TesTask *t, const gulong a[6]) { return operate(t, a, TES_TIME_INFINITE); }

static glong sys_semtimedop(TesTask *t, const gulong a[6]) {
  struct timespec ts;
  if (!a[3])
    return sys_semop(t, a);
  if (tes_copy_in(t, &ts, a[3], sizeof ts) < 0)
    return -EFAULT;
  if (!tes_timespec_valid(&ts))
    return -EINVAL;
  return operate(t, a, tes_time_add(tes_time_monotonic(t->kernel), tes_timespec_to_ns(&ts)));
}

static const TesSyscall rows[] = {
    {64, "semget", sys_semget, TES_PARTIAL, "at most 4,096 sets in a namespace, 1,000,000 semaphores in all",
     "xdx"},
    {65, "semop", sys_semop, TES_FULL, NULL, "dpu"},
    {66, "semctl", tes_sys_semctl, TES_FULL, NULL, "dddp"},
    {220, "semtimedop", sys_semtimedop, TES_FULL, NULL, "dpuT"},
};
const TesSyscallTable tes_sys_sem = TES_ROWS(rows);
