/* SPDX-License-Identifier: Apache-2.0 */
/* What the core asks (TesCgroupOps), and what is done to the tasks of a cgroup: moving, holding (freezer, CPU quota), killing. */
#include "cgroup.h"
#include <linux/capability.h>

/* ---- Holding: a held task waits on its way to the guest, or where it blocks ---- */

gboolean cg_held(Cg *c) {
  for (; c; c = c->parent)
    if (g_atomic_int_get(&c->freeze) || g_atomic_int_get(&c->throttled))
      return TRUE;
  return FALSE;
}

static void tell_frozen(Cg *c) {
  for (; c; c = c->parent)
    if (g_atomic_int_get(&c->freeze))
      cg_event(c);
}

static gboolean is_held(TesTask *t, gboolean tell) {
  Cg *c = (Cg *)tes_task_cgroup(t);
  gboolean held = c && cg_held(c);
  if (held && tell)
    tell_frozen(c);
  if (c)
    cg_unref(c);
  return held;
}

/* Once for each thread: what is added while it waits finds it waiting (and would nest without end). */
static __thread gboolean holding;

static void hold(TesTask *t, gpointer data) {
  (void)data;
  if (tes_task_current() != t || holding || !is_held(t, TRUE))
    return;
  holding = TRUE;
  while (tes_task_block_killable(t, TES_TIME_INFINITE) == 0 && is_held(t, FALSE))
    ;
  holding = FALSE;
  tes_task_wake(t); /* what it waited for before may have come meanwhile: have it look again */
}

void cg_hold_tasks(Cg *c) {
  g_autoptr(GPtrArray) all = cg_tasks(c, TRUE);
  for (guint i = 0; i < all->len; i++)
    tes_task_add_work(g_ptr_array_index(all, i), hold, NULL);
}

void cg_wake_tasks(Cg *c) {
  g_autoptr(GPtrArray) all = cg_tasks(c, TRUE);
  for (guint i = 0; i < all->len; i++)
    tes_task_wake(g_ptr_array_index(all, i));
}

gboolean cg_is_frozen(Cg *c) {
  gboolean frozen = FALSE;
  for (Cg *a = c; a && !frozen; a = a->parent)
    frozen = g_atomic_int_get(&a->freeze);
  if (!frozen)
    return FALSE;
  g_autoptr(GPtrArray) all = cg_tasks(c, TRUE);
  for (guint i = 0; i < all->len; i++) {
    TesTaskStat st;
    tes_task_stat(g_ptr_array_index(all, i), &st);
    if (st.state == 'R')
      return FALSE;
  }
  return TRUE;
}

/* Again until a pass finds nobody new: a fork may have been under way. */
void cg_kill(Cg *c) {
  g_autoptr(GHashTable) seen = g_hash_table_new_full(NULL, NULL, (GDestroyNotify)tes_task_unref, NULL);
  guint fresh;
  do {
    g_autoptr(GPtrArray) all = cg_tasks(c, TRUE);
    fresh = 0;
    for (guint i = 0; i < all->len; i++) {
      TesTask *t = g_ptr_array_index(all, i);
      if (g_hash_table_contains(seen, t))
        continue;
      g_hash_table_add(seen, tes_task_ref(t));
      tes_signal_group(tes_task_group(t), SIGKILL, NULL);
      fresh++;
    }
  } while (fresh);
}

/* ---- Members ---- */

static TesCgroup *op_root(TesKernel *k) { return &cg_ref(cg_tree(k)->root)->base; }
static TesCgroup *op_ref(TesCgroup *c) { return &cg_ref((Cg *)c)->base; }
static void op_unref(TesCgroup *c) { cg_unref((Cg *)c); }
static int op_charge(TesCgroup *c, gboolean force) { return pids_charge((Cg *)c, force); }
static void op_uncharge(TesCgroup *c) { pids_uncharge((Cg *)c); }

/* A cgroup whose children share out more than CPU time and numbers must have no processes of its own ("no internal
 * processes"). Lock held. */
static int vet(const Cg *c) {
  if (c->dead)
    return -ENODEV;
  if (!c->parent || !c->subtree)
    return 0;
  gboolean busy = c->subtree & CTL_MEMORY;
  for (guint i = 0; i < c->children->len && !busy; i++)
    busy = ((Cg *)g_ptr_array_index(c->children, i))->live_all > 0;
  return busy ? -EBUSY : 0;
}

static int op_count(TesCgroup *base, TesTask *t, int delta) {
  Cg *c = (Cg *)base;
  TES_LOCKED(&c->tree->lock);
  int r = delta > 0 && c->live == 0 ? vet(c) : 0;
  if (r < 0)
    return r;
  c->live += delta;
  for (Cg *a = c; a; a = a->parent) {
    a->live_all += delta;
    if (a->live_all == (delta > 0 ? 1 : 0))
      cg_event(a);
  }
  if (delta > 0 && cg_held(c))
    tes_task_add_work(t, hold, NULL);
  return 0;
}

/* ---- Moving ---- */

static gboolean may_write(const TesCred *cred, const CgAttr *a) {
  if (tes_cred_capable(cred, CAP_DAC_OVERRIDE))
    return TRUE;
  guint bit = cred->fsuid == a->uid ? 0200 : tes_cred_in_group(cred, a->gid) ? 0020 : 0002;
  return (a->mode & bit) != 0;
}

int cg_may_move(const TesCred *cred, Cg *from, Cg *to) {
  Cg *common = to;
  while (!cg_is_below(from, common))
    common = common->parent;
  TES_LOCKED(&to->tree->lock);
  return may_write(cred, &common->attr[CG_PROCS]) ? vet(to) : -EACCES;
}

int cg_attach(Cg *to, TesCtx *ctx, const TesCred *opener, TesTask *task) {
  (void)ctx;
  Cg *from = (Cg *)tes_task_cgroup(task);
  int r = cg_may_move(opener, from, to);
  cg_unref(from);
  if (r == 0)
    r = tes_task_cgroup_move(task, &to->base);
  return r == -ESRCH ? 0 : r; /* a zombie: it has nothing left to move */
}

static int op_open(TesTask *t, TesFile *dir, TesCgroup **out) {
  Cg *to = cg_of_dir(dir);
  if (!to)
    return -EBADF;
  Cg *from = (Cg *)tes_task_cgroup(t);
  const TesCred *cred = tes_task_cred(t);
  tes_mutex_lock(&to->tree->lock);
  int r = to->dead ? -ENOENT : may_write(cred, &to->attr[CG_PROCS]) ? 0 : -EACCES;
  tes_mutex_unlock(&to->tree->lock);
  if (r == 0)
    r = cg_may_move(cred, from, to);
  cg_unref(from);
  if (r == 0)
    *out = &cg_ref(to)->base;
  return r;
}

static char *op_path(TesCgroup *c, TesCgroup *root) { return cg_path((Cg *)c, (Cg *)root); }

static void op_tick(TesCgroup *base, TesTask *t) {
  (void)t;
  Cg *c = (Cg *)base;
  if (c->tree->total == 0) /* the root alone has no quota */
    return;
  cpu_tick(c);
  memory_tick(c, FALSE);
}

static void op_pressure(TesTask *t) {
  Cg *c = (Cg *)tes_task_cgroup(t);
  memory_tick(c, TRUE);
  cg_unref(c);
}

static void op_describe(TesKernel *k, GString *s) {
  static const char *const names[] = {"cpu", "memory", "pids"};
  CgTree *t = cg_tree(k);
  tes_mutex_lock(&t->lock);
  guint n = t->total + 1;
  tes_mutex_unlock(&t->lock);
  for (guint i = 0; i < G_N_ELEMENTS(names); i++)
    g_string_append_printf(s, "%s\t0\t%u\t1\n", names[i], n);
}

const TesCgroupOps cg_ops = {.size = sizeof(TesCgroupOps),
                             .root = op_root,
                             .ref = op_ref,
                             .unref = op_unref,
                             .charge = op_charge,
                             .uncharge = op_uncharge,
                             .count = op_count,
                             .open = op_open,
                             .path = op_path,
                             .tick = op_tick,
                             .pressure = op_pressure,
                             .describe = op_describe};
