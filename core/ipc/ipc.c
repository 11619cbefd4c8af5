/* SPDX-License-Identifier: Apache-2.0 */
/* What all kinds of System V IPC share: tables, identifiers, permission. sysvipc(7). */
#include <core/ipc/ipc.h>
#include <linux/capability.h>

#define SEQ_SHIFT 15 /* an identifier is seq << 15 | slot */

static const TesLockClass ipc_class = {"sysv ipc", TES_RANK_FILE, FALSE,
                                       "System V IPC objects of a namespace"};

static void ns_free(gpointer data) {
  TesIpcNs *ns = data;
  TesIpcTable *tables[] = {&ns->shm, &ns->msg, &ns->sem};
  tes_shm_ns_free(ns);
  tes_msg_ns_free(ns);
  tes_sem_ns_free(ns);
  for (gsize i = 0; i < G_N_ELEMENTS(tables); i++) {
    g_free(tables[i]->slot);
    g_free(tables[i]->seq);
  }
  tes_mutex_clear(&ns->lock);
  g_free(ns);
}

TesIpcNs *tes_ipc_ns(TesTask *t) {
  TesNs *ns = t->ns_ipc;
  TesIpcNs *d = g_atomic_pointer_get(&ns->data);
  if (d)
    return d;
  d = g_new0(TesIpcNs, 1);
  tes_mutex_init(&d->lock, &ipc_class);
  ns->free_data = ns_free; /* the same for whoever else makes one now */
  if (!g_atomic_pointer_compare_and_exchange(&ns->data, NULL, d))
    ns_free(d);
  return g_atomic_pointer_get(&ns->data);
}

int tes_ipc_find(TesIpcTable *t, int id, TesIpcPerm **out) {
  guint i = (guint)id & ((1u << SEQ_SHIFT) - 1);
  if (id < 0 || i >= t->top || !t->slot[i] || t->slot[i]->id != id)
    return -EINVAL;
  *out = t->slot[i];
  return 0;
}

TesIpcPerm *tes_ipc_find_key(TesIpcTable *t, guint32 key) {
  for (guint i = 0; i < t->top; i++)
    if (t->slot[i] && t->slot[i]->key == key)
      return t->slot[i];
  return NULL;
}

int tes_ipc_add(TesTask *task, TesIpcTable *t, TesIpcPerm *p, guint32 key, guint32 mode) {
  if (!t->slot) {
    t->slot = g_new0(TesIpcPerm *, TES_IPC_SLOTS);
    t->seq = g_new0(guint16, TES_IPC_SLOTS);
  }
  guint i = 0;
  while (i < TES_IPC_SLOTS && t->slot[i])
    i++;
  if (i == TES_IPC_SLOTS)
    return -ENOSPC;
  const TesCred *c = tes_task_cred(task);
  p->key = key;
  p->uid = p->cuid = c->euid;
  p->gid = p->cgid = c->egid;
  p->mode = mode & 0777;
  p->seq = t->seq[i];
  p->id = (int)(i | (guint)p->seq << SEQ_SHIFT);
  t->slot[i] = p;
  t->n++;
  t->top = MAX(t->top, i + 1);
  return p->id;
}

void tes_ipc_remove(TesIpcTable *t, TesIpcPerm *p) {
  guint i = (guint)p->id & ((1u << SEQ_SHIFT) - 1);
  t->slot[i] = NULL;
  t->seq[i] = (guint16)((t->seq[i] + 1) & 0xffff);
  t->n--;
  while (t->top && !t->slot[t->top - 1])
    t->top--;
}

int tes_ipc_permission(TesTask *t, const TesIpcPerm *p, guint mask) {
  const TesCred *c = tes_task_cred(t);
  guint bits = p->mode;
  if (c->euid == p->uid || c->euid == p->cuid)
    bits >>= 6;
  else if (c->egid == p->gid || c->egid == p->cgid || tes_cred_in_group(c, p->gid) ||
           tes_cred_in_group(c, p->cgid))
    bits >>= 3;
  return !(mask & ~bits & 6) || tes_cred_capable(c, CAP_IPC_OWNER) ? 0 : -EACCES;
}

int tes_ipc_stat(TesTask *t, TesIpcTable *table, int id, gboolean by_slot, gboolean any, TesIpcPerm **out) {
  int r = 0;
  if (!by_slot)
    r = tes_ipc_find(table, id, out);
  else if (id < 0 || (guint)id >= table->top || !(*out = table->slot[id]))
    r = -EINVAL;
  if (r == 0 && !any)
    r = tes_ipc_permission(t, *out, 4);
  return r < 0 ? r : by_slot ? (*out)->id : 0;
}

int tes_ipc_may_change(TesTask *t, const TesIpcPerm *p) {
  const TesCred *c = tes_task_cred(t);
  return c->euid == p->uid || c->euid == p->cuid || tes_cred_capable(c, CAP_SYS_ADMIN) ? 0 : -EPERM;
}

void tes_ipc_perm_out(const TesIpcPerm *p, struct ipc_perm *o) {
  *o = (struct ipc_perm){.__key = (key_t)p->key,
                         .uid = p->uid,
                         .gid = p->gid,
                         .cuid = p->cuid,
                         .cgid = p->cgid,
                         .mode = p->mode,
                         .__seq = p->seq};
}

int tes_ipc_perm_set(TesIpcPerm *p, const struct ipc_perm *i) {
  if (i->uid == (uid_t)-1 || i->gid == (gid_t)-1)
    return -EINVAL;
  p->uid = i->uid;
  p->gid = i->gid;
  p->mode = (guint16)((p->mode & ~0777) | (i->mode & 0777));
  return 0;
}

void tes_ipc_list(TesTask *t, TesIpcTable *table, void (*line)(const TesIpcPerm *, GString *), GString *out) {
  TES_LOCKED(&tes_ipc_ns(t)->lock);
  for (guint i = 0; i < table->top; i++)
    if (table->slot[i])
      line(table->slot[i], out);
}
