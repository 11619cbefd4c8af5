/* SPDX-License-Identifier: Apache-2.0 */
/* Mount namespaces, their events, and the list of mounts for /proc/PID/mountinfo. */
#include "vfs2.h"
#include "../vfs-common/rules.h"

#define FIRST_NS_ID 4026532000ULL /* as other kinds of namespaces are numbered */

TesMountNs *v2_ns_alloc(V2 *v, gboolean detached) {
  TesMountNs *ns = g_new0(TesMountNs, 1);
  ns->refs = 1;
  ns->v = v;
  ns->id = FIRST_NS_ID + tes_unique_id(v->base.kernel);
  ns->detached = detached;
  tes_queue_init(&ns->queue);
  return ns;
}

void v2_ns_free(TesMountNs *ns) {
  tes_queue_clear(&ns->queue);
  g_free(ns);
}

void v2_ns_changed(TesMountNs *ns) {
  __atomic_fetch_add(&ns->event, 1, __ATOMIC_SEQ_CST);
  tes_queue_notify(&ns->queue, POLLPRI | POLLERR);
}

guint64 v2_op_ns_event(TesMountNs *ns, TesQueue **queue) {
  *queue = &ns->queue;
  return __atomic_load_n(&ns->event, __ATOMIC_SEQ_CST);
}

TesMountNs *v2_op_ns_new(TesVfs *vfs, TesCtx *ctx, TesSuper *root, const char *source, gulong flags) {
  (void)ctx;
  V2 *v = v2_of(vfs);
  TesMountNs *ns = v2_ns_alloc(v, FALSE);
  ns->root = v2_mount_new(v, root, v2_dcache_root(v, root), source, flags);
  TES_LOCKED(&v->mount_lock);
  v2_mount_enlist(ns->root);
  v2_tree_set_ns(ns->root, ns);
  return ns;
}

TesMountNs *v2_op_ns_copy(TesVfs *vfs, TesCtx *ctx, TesMountNs *old) {
  (void)ctx;
  V2 *v = v2_of(vfs);
  TES_LOCKED(&v->mount_lock);
  Mount *copy = v2_tree_copy(old->root, old->root->root, COPY_TREE | COPY_UNBINDABLE);
  if (!copy)
    return NULL;
  TesMountNs *ns = v2_ns_alloc(v, FALSE);
  ns->root = copy;
  v2_tree_set_ns(copy, ns);
  return ns;
}

TesMountNs *v2_op_ns_ref(TesMountNs *ns) {
  g_atomic_int_inc(&ns->refs);
  return ns;
}

void v2_op_ns_unref(TesMountNs *ns) {
  if (!g_atomic_int_dec_and_test(&ns->refs))
    return;
  GSList *dead = NULL;
  tes_mutex_lock(&ns->v->mount_lock);
  v2_tree_dissolve(ns->root, &dead);
  tes_mutex_unlock(&ns->v->mount_lock);
  v2_mounts_release(dead);
  v2_ns_free(ns);
}

/* Everything mounted over the root counts: a walk of "/" ends on top. */
TesPath *v2_op_ns_root(TesMountNs *ns) {
  V2 *v = ns->v;
  TES_LOCKED(&v->mount_lock);
  Pos p = {ns->root, ns->root->root};
  v2_mount_top(v, &p);
  return v2_path_new(v, v2_mount_ref(p.mnt), v2_dentry_ref(p.d));
}

guint64 v2_op_ns_id(TesMountNs *ns) { return ns->id; }

TesPath *v2_op_ns_path(TesMountNs *ns, TesPath *p) {
  V2Path *old = v2_path(p);
  V2 *v = ns->v;
  TES_LOCKED(&v->mount_lock);
  Mount *m = ns->root;
  while (m && m->origin != old->mnt->id)
    m = v2_mount_next(m, ns->root);
  return m ? v2_path_new(v, v2_mount_ref(m), v2_dentry_ref(old->d)) : tes_path_ref(p);
}

/* ---- /proc/PID/mountinfo ---- */

static int by_age(gconstpointer a, gconstpointer b) {
  guint x = (*(Mount *const *)a)->id, y = (*(Mount *const *)b)->id;
  return x < y ? -1 : x > y;
}

static void describe(V2 *v, Mount *m, const Pos *root, void (*fn)(const TesMountInfo *, gpointer),
                     gpointer data) {
  TesSuper *s = m->super;
  Pos at = {m, m->root};
  g_autofree char *point = v2_name_of(v, root, &at, FALSE), *inside = v2_name_of(v, NULL, &at, TRUE);
  if (*point != '/')
    return; /* "(unreachable)" */
  g_autofree char *opts = rules_mount_options(v2_mount_flags(m)), *propagation = v2_propagation_text(m, root);
  g_autofree char *more = TES_HAS(s->ops, show_options) ? s->ops->show_options(s) : NULL;
  TesMountInfo info = {.id = m->id,
                       .parent_id = m->parent ? m->parent->id : m->id,
                       .dev = s->dev,
                       .root = inside,
                       .mount_point = point,
                       .type = s->type,
                       .source = m->source,
                       .options = opts,
                       .super_options = more ? more : "",
                       .propagation = propagation,
                       .super_read_only = s->read_only};
  fn(&info, data);
}

/* In the order they were made, as Linux lists them. The lock is held throughout: references taken here would keep umount(2) away. */
void v2_op_mounts(TesVfs *vfs, TesCtx *ctx, TesPath *root, void (*fn)(const TesMountInfo *, gpointer),
                  gpointer data) {
  V2 *v = v2_of(vfs);
  TesMountNs *ns = root ? NULL : tes_ctx_mount_ns(ctx);
  Pos r = root ? (Pos){v2_path(root)->mnt, v2_path(root)->d} : (Pos){NULL, NULL};
  g_autoptr(GPtrArray) mounts = g_ptr_array_new();
  TES_LOCKED(&v->mount_lock);
  if (root)
    ns = r.mnt->ns;
  else if (ns)
    r = (Pos){ns->root, ns->root->root};
  for (Mount *m = ns ? ns->root : NULL; m; m = v2_mount_next(m, ns->root))
    g_ptr_array_add(mounts, m);
  g_ptr_array_sort(mounts, by_age);
  for (guint i = 0; i < mounts->len; i++)
    describe(v, mounts->pdata[i], &r, fn, data);
}
