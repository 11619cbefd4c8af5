/* SPDX-License-Identifier: Apache-2.0 */
/* Mount namespaces, their events, and the list of mounts for /proc/PID/mountinfo. */
#include "vfs1.h"

#define FIRST_NS_ID 4026532000ULL /* as other kinds of namespaces are numbered */

TesMountNs *v1_ns_alloc(V1 *v, gboolean detached) {
  TesMountNs *ns = g_new0(TesMountNs, 1);
  ns->refs = 1;
  ns->v = v;
  ns->id = FIRST_NS_ID + tes_unique_id(v->base.kernel);
  ns->detached = detached;
  tes_queue_init(&ns->queue);
  return ns;
}

void v1_ns_free(TesMountNs *ns) {
  tes_queue_clear(&ns->queue);
  g_free(ns);
}

void v1_ns_changed(TesMountNs *ns) {
  __atomic_fetch_add(&ns->event, 1, __ATOMIC_SEQ_CST);
  tes_queue_notify(&ns->queue, POLLPRI | POLLERR);
}

guint64 v1_ns_event(TesMountNs *ns, TesQueue **queue) {
  *queue = &ns->queue;
  return __atomic_load_n(&ns->event, __ATOMIC_SEQ_CST);
}

TesMountNs *v1_ns_new(TesVfs *vfs, TesCtx *ctx, TesSuper *root, const char *source, gulong flags) {
  (void)ctx;
  V1 *v = v1_of(vfs);
  TesMountNs *ns = v1_ns_alloc(v, FALSE);
  ns->root = v1_mount_new(v, root, v1_root_of(v, root), source, flags);
  TES_LOCKED(&v->mounts);
  v1_set_ns(ns->root, ns);
  return ns;
}

TesMountNs *v1_ns_copy(TesVfs *vfs, TesCtx *ctx, TesMountNs *old) {
  (void)ctx;
  V1 *v = v1_of(vfs);
  TES_LOCKED(&v->mounts);
  Mount *copy = v1_copy_tree(old->root, old->root->root, TRUE, TRUE);
  if (!copy)
    return NULL;
  TesMountNs *ns = v1_ns_alloc(v, FALSE);
  ns->root = copy;
  v1_set_ns(ns->root, ns);
  return ns;
}

TesMountNs *v1_ns_ref(TesMountNs *ns) {
  g_atomic_int_inc(&ns->refs);
  return ns;
}

void v1_ns_unref(TesMountNs *ns) {
  if (!g_atomic_int_dec_and_test(&ns->refs))
    return;
  Dead dead = {NULL, NULL};
  tes_mutex_lock(&ns->v->mounts);
  v1_detach_tree(ns->root, &dead);
  tes_mutex_unlock(&ns->v->mounts);
  v1_release(&dead);
  v1_ns_free(ns);
}

TesPath *v1_ns_root(TesMountNs *ns) {
  V1 *v = ns->v;
  tes_mutex_lock(&v->mounts);
  Pos p = {v1_mount_ref(ns->root), v1_dirent_ref(ns->root->root)};
  tes_mutex_unlock(&v->mounts);
  v1_cross(v, &p); /* what is mounted over "/" counts */
  return v1_path_new(v, p.mnt, p.d);
}

guint64 v1_ns_id(TesMountNs *ns) { return ns->id; }

TesPath *v1_ns_path(TesMountNs *ns, TesPath *p) {
  V1 *v = ns->v;
  TES_LOCKED(&v->mounts);
  g_autoptr(GPtrArray) all = v1_tree(ns->root);
  for (guint i = 0; i < all->len; i++) {
    Mount *m = all->pdata[i];
    if (m->origin == v1_pos(p)->mnt->id)
      return v1_path_new(v, v1_mount_ref(m), v1_dirent_ref(v1_pos(p)->d));
  }
  return v1_path_ref(p);
}

/* ---- /proc/PID/mountinfo ---- */

static void describe(Mount *m, const Pos *root, void (*fn)(const TesMountInfo *, gpointer), gpointer data) {
  TesSuper *s = m->super;
  Pos at = {m, m->root};
  g_autofree char *point = v1_name_of(root, &at, FALSE), *inside = v1_name_of(NULL, &at, TRUE);
  if (*point != '/')
    return; /* "(unreachable)" */
  g_autofree char *opts = rules_mount_options(__atomic_load_n(&m->flags, __ATOMIC_ACQUIRE));
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
                       .propagation = m->unbindable ? "unbindable" : "",
                       .super_read_only = s->read_only};
  fn(&info, data);
}

static gint older_first(gconstpointer a, gconstpointer b) {
  guint x = (*(Mount *const *)a)->id, y = (*(Mount *const *)b)->id;
  return x < y ? -1 : x > y;
}

/* The lock is held throughout: references taken here would keep umount(2) away. */
void v1_mounts(TesVfs *vfs, TesCtx *ctx, TesPath *root, void (*fn)(const TesMountInfo *, gpointer),
               gpointer data) {
  TES_LOCKED(&v1_of(vfs)->mounts);
  TesMountNs *ns = root ? v1_pos(root)->mnt->ns : tes_ctx_mount_ns(ctx);
  if (!ns)
    return;
  Pos top = root ? *v1_pos(root) : (Pos){ns->root, ns->root->root};
  g_autoptr(GPtrArray) all = v1_tree(ns->root);
  g_ptr_array_sort(all, older_first);
  for (guint i = 0; i < all->len; i++)
    describe(all->pdata[i], &top, fn, data);
}
