/* SPDX-License-Identifier: Apache-2.0 */
/* semctl(2). */
#include <core/ipc/sem.h>

#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif

static void fill(const SemSet *s, struct semid_ds *d) {
  *d = (struct semid_ds){.sem_otime = s->otime, .sem_ctime = s->ctime, .sem_nsems = s->n};
  tes_ipc_perm_out(&s->perm, &d->sem_perm);
}

static glong info(TesTask *t, TesIpcNs *ns, int cmd, gulong out) {
  struct seminfo i = {.semmap = SEM_ALL_MAX,
                      .semmni = TES_IPC_SLOTS,
                      .semmns = SEM_ALL_MAX,
                      .semmnu = SEM_ALL_MAX,
                      .semmsl = SEM_SET_MAX,
                      .semopm = SEM_OPS_MAX,
                      .semume = SEM_OPS_MAX,
                      .semusz = 20,
                      .semvmx = SEM_MOST,
                      .semaem = SEM_MOST};
  tes_mutex_lock(&ns->lock);
  int highest = ns->sem.top ? (int)ns->sem.top - 1 : 0;
  if (cmd == SEM_INFO) {
    i.semusz = (int)ns->sem.n;
    i.semaem = 0;
    for (guint k = 0; k < ns->sem.top; k++)
      i.semaem += ns->sem.slot[k] ? (int)((SemSet *)ns->sem.slot[k])->n : 0;
  }
  tes_mutex_unlock(&ns->lock);
  return tes_copy_out(t, out, &i, sizeof i) < 0 ? -EFAULT : highest;
}

static glong status(TesTask *t, TesIpcNs *ns, int id, int cmd, gulong out) {
  struct semid_ds d;
  TesIpcPerm *p;
  tes_mutex_lock(&ns->lock);
  int r = tes_ipc_stat(t, &ns->sem, id, cmd != IPC_STAT, cmd == SEM_STAT_ANY, &p);
  if (r >= 0)
    fill((SemSet *)p, &d);
  tes_mutex_unlock(&ns->lock);
  return r >= 0 && tes_copy_out(t, out, &d, sizeof d) < 0 ? -EFAULT : r;
}

static void line(const TesIpcPerm *p, GString *out) {
  const SemSet *s = (const SemSet *)p;
  g_string_append_printf(
      out, "%10d %10d  %4o %10u %5u %5u %5u %5u %10" G_GINT64_FORMAT " %10" G_GINT64_FORMAT "\n",
      (gint)p->key, p->id, p->mode, s->n, p->uid, p->gid, p->cuid, p->cgid, s->otime, s->ctime);
}

void tes_ipc_sem_text(TesTask *t, GString *out) {
  g_string_append(out,
                  "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
  tes_ipc_list(t, &tes_ipc_ns(t)->sem, line, out);
}

static glong change(TesTask *t, TesIpcNs *ns, int id, int cmd, gulong in) {
  struct semid_ds d;
  TesIpcPerm *p;
  if (cmd == IPC_SET && tes_copy_in(t, &d, in, sizeof d) < 0)
    return -EFAULT;
  tes_mutex_lock(&ns->lock);
  int r = tes_ipc_find(&ns->sem, id, &p);
  if (r == 0)
    r = tes_ipc_may_change(t, p);
  SemSet *s = (SemSet *)p;
  if (r == 0 && cmd == IPC_SET) {
    r = tes_ipc_perm_set(p, &d.sem_perm);
    s->ctime = tes_ipc_now(t->kernel);
  } else if (r == 0) {
    tes_ipc_remove(&ns->sem, p);
    s->removed = TRUE;
    while (s->undos)
      sem_undo_drop(s->undos->data);
    tes_queue_notify(&s->queue, POLLIN);
  }
  tes_mutex_unlock(&ns->lock);
  if (r == 0 && cmd == IPC_RMID)
    sem_set_unref(s);
  return r;
}

/* ---- Values ---- */

static void clear_undo(SemSet *s, guint first, guint n) {
  for (GSList *l = s->undos; l; l = l->next)
    memset(((Undo *)l->data)->adjust + first, 0, n * sizeof(gint16));
}

static int get_one(const SemSet *s, guint i, int cmd) {
  const Sem *sem = &s->sem[i];
  return cmd == GETVAL    ? sem->value
         : cmd == GETPID  ? sem->pid
         : cmd == GETNCNT ? sem->waiting_more
                          : sem->waiting_zero;
}

static int set_one(TesTask *t, SemSet *s, guint i, gulong arg) {
  int value = (int)arg;
  if (value < 0 || value > SEM_MOST)
    return -ERANGE;
  s->sem[i].value = (guint16)value;
  s->sem[i].pid = t->tg->tgid;
  clear_undo(s, i, 1);
  s->ctime = tes_ipc_now(t->kernel);
  tes_queue_notify(&s->queue, POLLIN);
  return 0;
}

static glong one(TesTask *t, TesIpcNs *ns, int id, int i, int cmd, gulong arg) {
  TesIpcPerm *p;
  TES_LOCKED(&ns->lock);
  int r = tes_ipc_find(&ns->sem, id, &p);
  SemSet *s = (SemSet *)p;
  if (r == 0 && (i < 0 || (guint)i >= s->n))
    r = -EINVAL;
  if (r == 0)
    r = tes_ipc_permission(t, p, cmd == SETVAL ? 2 : 4);
  if (r < 0)
    return r;
  return cmd == SETVAL ? set_one(t, s, (guint)i, arg) : get_one(s, (guint)i, cmd);
}

/* The size of a set never changes, but another may have its identifier by the time that the values are here. */
static glong set_size(TesTask *t, TesIpcNs *ns, int id, guint mask) {
  TesIpcPerm *p;
  TES_LOCKED(&ns->lock);
  int r = tes_ipc_find(&ns->sem, id, &p);
  if (r == 0)
    r = tes_ipc_permission(t, p, mask);
  return r < 0 ? r : (glong)((SemSet *)p)->n;
}

static int get_all(SemSet *s, guint16 *values) {
  for (guint i = 0; i < s->n; i++)
    values[i] = s->sem[i].value;
  return 0;
}

static int set_all(TesTask *t, SemSet *s, const guint16 *values) {
  for (guint i = 0; i < s->n; i++)
    if (values[i] > SEM_MOST)
      return -ERANGE;
  for (guint i = 0; i < s->n; i++) {
    s->sem[i].value = values[i];
    s->sem[i].pid = t->tg->tgid;
  }
  clear_undo(s, 0, s->n);
  s->ctime = tes_ipc_now(t->kernel);
  tes_queue_notify(&s->queue, POLLIN);
  return 0;
}

static glong all(TesTask *t, TesIpcNs *ns, int id, int cmd, gulong arg) {
  glong n = set_size(t, ns, id, cmd == SETALL ? 2 : 4);
  if (n < 0)
    return n;
  g_autofree guint16 *values = g_new(guint16, n);
  if (cmd == SETALL && tes_copy_in(t, values, arg, (gsize)n * sizeof *values) < 0)
    return -EFAULT;
  TesIpcPerm *p;
  tes_mutex_lock(&ns->lock);
  int r = tes_ipc_find(&ns->sem, id, &p);
  SemSet *s = (SemSet *)p;
  if (r == 0 && s->n != n)
    r = -EIDRM;
  if (r == 0)
    r = cmd == SETALL ? set_all(t, s, values) : get_all(s, values);
  tes_mutex_unlock(&ns->lock);
  if (r == 0 && cmd == GETALL && tes_copy_out(t, arg, values, (gsize)n * sizeof *values) < 0)
    return -EFAULT;
  return r;
}

glong tes_sys_semctl(TesTask *t, const gulong a[6]) {
  int id = (int)a[0], i = (int)a[1], cmd = (int)a[2];
  TesIpcNs *ns = tes_ipc_ns(t);
  if (id < 0)
    return -EINVAL;
  switch (cmd) {
  case IPC_INFO:
  case SEM_INFO:
    return info(t, ns, cmd, a[3]);
  case IPC_STAT:
  case SEM_STAT:
  case SEM_STAT_ANY:
    return status(t, ns, id, cmd, a[3]);
  case IPC_SET:
  case IPC_RMID:
    return change(t, ns, id, cmd, a[3]);
  case GETALL:
  case SETALL:
    return all(t, ns, id, cmd, a[3]);
  case GETVAL:
  case GETPID:
  case GETNCNT:
  case GETZCNT:
  case SETVAL:
    return one(t, ns, id, i, cmd, a[3]);
  default:
    return -EINVAL;
  }
}
