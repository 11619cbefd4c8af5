/* SPDX-License-Identifier: Apache-2.0 */
/* The hierarchy: making and removing cgroups, their names, walking them. */
#include "cgroup.h"

/* Below the task set: members are counted with that held. */
static const TesLockClass tree_class = {"cgroup tree", TES_RANK_TASK_SET + 1, FALSE,
                                        "the hierarchy of control groups and their settings"};

static const TesLockClass notify_class = {"cgroup inodes", TES_RANK_QUEUE - 3, FALSE,
                                          "which inode tells of a control group's events"};

static int tree_key;
CgTree *cg_tree(TesKernel *k) { return tes_kernel_get_data(k, &tree_key); }

/* ---- One cgroup ---- */

static guint take_mem_id(CgTree *t) {
  for (guint n = 1; n < TES_MEM_IDS; n++) {
    guint id = t->last_mem_id % (TES_MEM_IDS - 1) + 1;
    t->last_mem_id = id;
    if (!(t->used_ids[id / 8] & 1 << id % 8)) {
      t->used_ids[id / 8] |= (guint8)(1 << id % 8);
      return id;
    }
  }
  return 0;
}

static void drop_mem_id(CgTree *t, guint id) { t->used_ids[id / 8] &= (guint8) ~(1 << id % 8); }

static Cg *cg_new(CgTree *t, Cg *parent, const char *name) {
  Cg *c = g_new0(Cg, 1);
  c->refs = 1;
  c->tree = g_atomic_rc_box_acquire(t);
  c->parent = parent ? cg_ref(parent) : NULL;
  c->name = g_strdup(name);
  c->id = ++t->last_id;
  c->depth = parent ? parent->depth + 1 : 0;
  c->children = g_ptr_array_new();
  c->dead_ids = g_array_new(FALSE, FALSE, sizeof(guint));
  c->made = tes_time_realtime(t->kernel);
  c->max_depth = c->max_descendants = CG_MAX;
  c->ctl = parent ? parent->subtree : CTL_ALL;
  c->pids_max = CG_MAX;
  tes_queue_init(&c->queue);
  memory_reset(c);
  cpu_init(c);
  for (guint i = 0; i < cg_n_files; i++)
    c->attr[i] = (CgAttr){S_IFREG | cg_files[i].mode, 0, 0};
  c->attr[CG_N_FILES] = (CgAttr){S_IFDIR | (parent ? 0755 : 0555), 0, 0};
  return c;
}

static void tree_clear(gpointer data) {
  CgTree *t = data;
  tes_mutex_clear(&t->lock);
  tes_mutex_clear(&t->notify_lock);
  g_free(t->used_ids);
}

Cg *cg_ref(Cg *c) {
  g_atomic_int_inc(&c->refs);
  return c;
}

void cg_unref(Cg *c) {
  while (c && g_atomic_int_dec_and_test(&c->refs)) {
    Cg *parent = c->parent;
    tes_queue_clear(&c->queue);
    g_ptr_array_unref(c->children);
    g_array_unref(c->dead_ids);
    g_free(c->name);
    g_atomic_rc_box_release_full(c->tree, tree_clear);
    g_free(c);
    c = parent;
  }
}

Cg *cg_child(Cg *c, const char *name) {
  for (guint i = 0; i < c->children->len; i++) {
    Cg *k = g_ptr_array_index(c->children, i);
    if (g_str_equal(k->name, name))
      return k;
  }
  return NULL;
}

/* cgroup.max.descendants and cgroup.max.depth of every ancestor. */
static gboolean has_room(const Cg *parent) {
  for (const Cg *a = parent; a; a = a->parent)
    if (a->descendants >= a->max_descendants || parent->depth + 1 - a->depth > a->max_depth)
      return FALSE;
  return parent->depth < CG_DEPTH_MAX && parent->tree->total < CG_TOTAL_MAX;
}

int cg_make(Cg *parent, const char *name, Cg **out) {
  CgTree *t = parent->tree;
  if (parent->dead)
    return -ENODEV;
  if (strchr(name, '\n'))
    return -EINVAL;
  for (guint i = 0; i < cg_n_files; i++)
    if (cg_has_file(parent, i) && g_str_equal(cg_files[i].name, name))
      return -EEXIST;
  if (cg_child(parent, name))
    return -EEXIST;
  if (!has_room(parent))
    return -EAGAIN;
  tes_memfile_account(tes_kernel_memfile(t->kernel));
  guint mem_id = take_mem_id(t);
  if (!mem_id)
    return -ENOSPC;
  Cg *c = cg_new(t, parent, name);
  c->base.mem_id = mem_id;
  g_ptr_array_add(parent->children, c);
  t->total++;
  for (Cg *a = parent; a; a = a->parent)
    a->descendants++;
  memory_watch(c);
  *out = cg_ref(c);
  return 0;
}

/* What it used stays with its parent. */
static void hand_over(Cg *c) {
  Cg *p = c->parent;
  __atomic_add_fetch(&p->base.utime, c->base.utime, __ATOMIC_RELAXED);
  __atomic_add_fetch(&p->base.stime, c->base.stime, __ATOMIC_RELAXED);
  g_array_append_val(p->dead_ids, c->base.mem_id);
  g_array_append_vals(p->dead_ids, c->dead_ids->data, c->dead_ids->len);
  g_array_set_size(c->dead_ids, 0);
  cg_prune_ids(p);
}

int cg_remove(Cg *c) {
  if (c->dead)
    return -ENODEV;
  if (!c->parent || c->live || c->children->len)
    return -EBUSY;
  c->dead = TRUE;
  tes_memfile_watch(tes_kernel_memfile(c->tree->kernel), c->base.mem_id, FALSE);
  hand_over(c);
  g_ptr_array_remove(c->parent->children, c);
  c->tree->total--;
  for (Cg *a = c->parent; a; a = a->parent)
    a->descendants--;
  cg_event(c);
  return 0;
}

void cg_prune_ids(Cg *c) {
  TesMemFile *mf = tes_kernel_memfile(c->tree->kernel);
  for (guint i = c->dead_ids->len; i-- > 0;) {
    guint id = g_array_index(c->dead_ids, guint, i);
    if (tes_memfile_charged(mf, id) == 0) {
      drop_mem_id(c->tree, id);
      g_array_remove_index_fast(c->dead_ids, i);
    }
  }
}

/* ---- The tree ---- */

gboolean cg_is_below(const Cg *c, const Cg *top) {
  while (c && c != top)
    c = c->parent;
  return c == top;
}

void cg_foreach(Cg *c, void (*fn)(Cg *, gpointer), gpointer data) {
  fn(c, data);
  for (guint i = 0; i < c->children->len; i++)
    cg_foreach(g_ptr_array_index(c->children, i), fn, data);
}

static void prepend_names(GString *s, const Cg *c, const Cg *top) {
  for (; c != top; c = c->parent) {
    g_string_prepend(s, c->name);
    g_string_prepend_c(s, '/');
  }
}

/* Outside of `root` the way leads up through "..", as cgroup_namespaces(7) shows it. */
char *cg_path(Cg *c, Cg *root) {
  GString *s = g_string_new(NULL);
  Cg *common = root ? root : c->tree->root;
  while (!cg_is_below(c, common))
    common = common->parent;
  for (Cg *up = root; up && up != common; up = up->parent)
    g_string_append(s, "/..");
  g_autoptr(GString) down = g_string_new(NULL);
  prepend_names(down, c, common);
  g_string_append(s, down->str);
  if (s->len == 0)
    g_string_append_c(s, '/');
  tes_mutex_lock(&c->tree->lock);
  if (c->dead)
    g_string_append(s, " (deleted)");
  tes_mutex_unlock(&c->tree->lock);
  return g_string_free(s, FALSE);
}

void cg_event(Cg *c) {
  __atomic_add_fetch(&c->version, 1, __ATOMIC_RELEASE);
  tes_queue_notify(&c->queue, POLLPRI | POLLERR);
  if (!tes_notify_on())
    return;
  TES_LOCKED(&c->tree->notify_lock);
  if (c->events_inode)
    tes_notify_inode(c->events_inode, IN_MODIFY);
}

typedef struct {
  Cg *cg;
  gboolean below;
  GPtrArray *out;
} Collect;

static void collect(TesTask *t, TesCgroup *cg, gpointer data) {
  Collect *c = data;
  if ((Cg *)cg == c->cg || (c->below && cg_is_below((Cg *)cg, c->cg)))
    g_ptr_array_add(c->out, tes_task_ref(t));
}

GPtrArray *cg_tasks(Cg *c, gboolean below) {
  Collect k = {c, below, g_ptr_array_new_with_free_func((GDestroyNotify)tes_task_unref)};
  tes_cgroup_foreach_task(c->tree->kernel, collect, &k);
  return k.out;
}

CgTree *cg_tree_new(TesKernel *k) {
  CgTree *t = g_atomic_rc_box_new0(CgTree);
  t->kernel = k;
  tes_mutex_init(&t->lock, &tree_class);
  tes_mutex_init(&t->notify_lock, &notify_class);
  t->used_ids = g_new0(guint8, TES_MEM_IDS / 8);
  t->root = cg_new(t, NULL, "");
  t->root->pids_max = tes_kernel_pids_limit(k) ? tes_kernel_pids_limit(k) : CG_MAX;
  t->root->mem_max = tes_kernel_memory_limit(k) ? tes_kernel_memory_limit(k) : CG_MAX;
  tes_kernel_set_data(k, &tree_key, t, cg_tree_free);
  return t;
}

/* Removed or not, cgroups that are left hold their parents and nobody else holds them. */
static void free_children(Cg *c) {
  while (c->children->len) {
    Cg *k = g_ptr_array_steal_index(c->children, c->children->len - 1);
    free_children(k);
    cpu_fini(k);
    cg_unref(k);
  }
}

void cg_tree_free(gpointer data) {
  CgTree *t = data;
  free_children(t->root);
  cpu_fini(t->root);
  cg_unref(t->root);
  g_atomic_rc_box_release_full(t, tree_clear);
}
