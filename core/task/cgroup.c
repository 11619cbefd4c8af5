/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups, the core's side (tessera/cgroup.h): which cgroup a task belongs to through fork, move and exit. What that means
 * is a plugin's business; without one `kernel->cgroups` is NULL and nothing here does anything.
 *
 * TesTask.cgroup is written and read under the task-set lock (before the task is linked: by its maker). A task is charged from before it is linked until its number goes (zombies count), and counted as a member while it
 * is alive. */
#include <core/task/life.h>
#include <linux/capability.h>
#include <sched.h>
#include <tessera/cgroup.h>

void tes_cgroups_init(TesKernel *k) {
  g_auto(GStrv) names = tes_registry_names(k->registry, "cgroup");
  k->cgroups = names && names[0] ? tes_registry_find(k->registry, "cgroup", names[0]) : NULL;
}

static void set_cgroup(TesTask *t, TesCgroup *cg /* transfer full */) {
  t->cgroup = cg;
  g_atomic_int_set(&t->mem_id, (gint)cg->mem_id);
}

TesCgroup *tes_task_cgroup(TesTask *t) {
  if (!t->kernel->cgroups)
    return NULL;
  TES_LOCKED(&t->kernel->task_set);
  return t->cgroup ? t->kernel->cgroups->ref(t->cgroup) : NULL;
}

/* ---- Birth and death ---- */

int tes_cgroup_fork(TesTask *t, TesTask *c, const TesCloneArgs *a) {
  const TesCgroupOps *ops = t->kernel->cgroups;
  gboolean into = (a->flags & CLONE_INTO_CGROUP) != 0;
  if (!ops)
    return into ? -EBADF : 0;
  TesCgroup *cg;
  if (into) {
    g_autoptr(TesFile) dir = tes_fd_get(t, a->cgroup);
    int r = dir ? ops->open(t, dir, &cg) : -EBADF;
    if (r < 0)
      return r;
  } else {
    cg = tes_task_cgroup(t);
  }
  if (into && a->flags & CLONE_THREAD && cg != t->cgroup) { /* threads of a process stay together */
    ops->unref(cg);
    return -EOPNOTSUPP;
  }
  int r = ops->charge(cg, FALSE);
  if (r < 0) {
    ops->unref(cg);
    return r;
  }
  set_cgroup(c, cg);
  c->cgroup_charged = TRUE;
  return 0;
}

/* Puts a task elsewhere, with its charge. Task-set lock held. */
static void change(TesTask *t, TesCgroup *to) {
  const TesCgroupOps *ops = t->kernel->cgroups;
  TesCgroup *old = t->cgroup;
  if (t->cgroup_charged) {
    ops->charge(to, TRUE);
    ops->uncharge(old);
  }
  set_cgroup(t, ops->ref(to));
  ops->unref(old);
}

int tes_cgroup_link(TesTask *t, TesTask *parent) {
  const TesCgroupOps *ops = t->kernel->cgroups;
  if (!ops)
    return 0;
  if (!t->cgroup) {
    set_cgroup(t, ops->root(t->kernel));
    t->cgroup_charged = TRUE;
    ops->charge(t->cgroup, TRUE);
  } else if (parent && parent->cgroup != t->cgroup) { /* it was moved while the child was made */
    change(t, parent->cgroup);
  }
  int r = ops->count(t->cgroup, t, 1);
  t->cgroup_counted = r == 0;
  return r;
}

void tes_cgroup_died(TesTask *t) {
  if (!t->cgroup_counted)
    return;
  t->cgroup_counted = FALSE;
  t->kernel->cgroups->count(t->cgroup, t, -1);
}

void tes_cgroup_release(TesTask *t) {
  if (!t->cgroup_charged)
    return;
  t->cgroup_charged = FALSE;
  t->kernel->cgroups->uncharge(t->cgroup);
}

void tes_cgroup_free(TesTask *t) {
  tes_cgroup_release(t);
  if (t->cgroup)
    t->kernel->cgroups->unref(t->cgroup);
  t->cgroup = NULL;
}

/* ---- Moving ---- */

/* Memory that it was given but has not touched goes along; the rest stays charged where it was taken. */
static void move_memory(TesTask *t, TesCgroup *to) {
  TesMM *mm = t->kernel->cgroups ? tes_task_mm_ref(t) : NULL;
  if (!mm)
    return;
  tes_mm_recharge(mm, to->mem_id);
  tes_mm_unref(mm);
}

static int move_one(TesTask *t, TesCgroup *to) {
  const TesCgroupOps *ops = t->kernel->cgroups;
  if (t->cgroup == to)
    return 0;
  if (t->cgroup_counted) {
    int r = ops->count(to, t, 1);
    if (r < 0)
      return r;
    ops->count(t->cgroup, t, -1);
  }
  change(t, to);
  return 0;
}

int tes_task_cgroup_move(TesTask *t, TesCgroup *to) {
  TesThreadGroup *tg = t->tg;
  tes_mutex_lock(&t->kernel->task_set);
  TesTask *any = tg->threads.head ? tes_task_ref(tg->threads.head->data) : NULL;
  int r = any ? 0 : -ESRCH;
  for (GList *l = tg->threads.head; l && r == 0; l = l->next)
    r = move_one(l->data, to);
  if (r == 0 && tg->leader && tg->leader->is_dead)
    r = move_one(tg->leader, to);
  tes_mutex_unlock(&t->kernel->task_set);
  if (r == 0)
    move_memory(any, to);
  if (any)
    tes_task_unref(any);
  return r;
}

void tes_cgroup_foreach_task(TesKernel *k, void (*fn)(TesTask *, TesCgroup *, gpointer), gpointer data) {
  GHashTableIter it;
  gpointer p;
  TES_LOCKED(&k->task_set);
  g_hash_table_iter_init(&it, k->tasks);
  while (g_hash_table_iter_next(&it, NULL, &p)) {
    TesTask *t = p;
    if (t->cgroup_counted)
      fn(t, t->cgroup, data);
  }
}

/* ---- What others see ---- */

TesCgroup *tes_ctx_cgroup_root(TesCtx *ctx) {
  TesTask *t = tes_ctx_task(ctx);
  TesNs *ns = t ? t->ns_cgroup : NULL;
  return ns ? ns->data : NULL;
}

TesNs *tes_cgroup_ns_new(TesTask *t) {
  TesNs *ns = tes_ns_new(t->kernel, CLONE_NEWCGROUP, NULL);
  ns->data = tes_task_cgroup(t);
  ns->free_data = ns->data ? (void (*)(gpointer))t->kernel->cgroups->unref : NULL;
  return ns;
}

void tes_task_cgroup_line(TesTask *t, TesCtx *viewer, GString *s) {
  const TesCgroupOps *ops = t->kernel->cgroups;
  TesCgroup *cg = tes_task_cgroup(t);
  g_autofree char *path = cg ? ops->path(cg, tes_ctx_cgroup_root(viewer)) : g_strdup("/");
  g_string_append_printf(s, "0::%s\n", path);
  if (cg)
    ops->unref(cg);
}

void tes_cgroup_describe(TesKernel *k, GString *s) {
  g_string_append(s, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
  if (k->cgroups)
    k->cgroups->describe(k, s);
}

guint64 tes_kernel_memory_limit(TesKernel *k) { return k->memory_limit; }
guint64 tes_kernel_pids_limit(TesKernel *k) { return k->pids_limit; }
gint tes_task_oom_score_adj(TesTask *t) { return g_atomic_int_get(&t->tg->oom_score_adj); }

int tes_task_set_oom_score_adj(TesTask *t, TesCtx *who, gint adj) {
  if (adj < -1000 || adj > 1000)
    return -EINVAL;
  if (adj < tes_task_oom_score_adj(t) && !tes_ctx_capable(who, CAP_SYS_RESOURCE))
    return -EACCES;
  g_atomic_int_set(&t->tg->oom_score_adj, adj);
  return 0;
}
