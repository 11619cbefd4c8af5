/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts and namespaces: trees of filesystems, changed and looked at under one lock. */
#include "vfs1.h"

Mount *v1_mount_new(V1 *v, TesSuper *s, Dirent *root, const char *source, gulong flags) {
  Mount *m = g_new0(Mount, 1);
  m->refs = 1;
  m->v = v;
  m->id = (guint)g_atomic_int_add(&v->next_mount_id, 1) + 1;
  m->super = s;
  m->root = root;
  m->source = g_strdup(source ? source : "none");
  m->flags = flags & V1_MOUNT_FLAGS;
  m->children = g_hash_table_new(NULL, NULL);
  tes_super_activate(s);
  return m;
}

Mount *v1_mount_ref(Mount *m) {
  g_atomic_int_inc(&m->refs);
  return m;
}

void v1_mount_unref(Mount *m) {
  V1 *v = m->v;
  TesSuper *s = m->super;
  if (!g_atomic_int_dec_and_test(&m->refs))
    return;
  if (m->anon) {
    tes_mutex_lock(&v->mounts);
    if (g_hash_table_lookup(v->anon, s) == m)
      g_hash_table_remove(v->anon, s);
    tes_mutex_unlock(&v->mounts);
  }
  v1_dirent_unref(m->root);
  tes_super_deactivate(s);
  if (g_atomic_int_get(&s->active) == 0)
    v1_drop_super(v, s);
  tes_super_unref(s);
  g_hash_table_unref(m->children);
  g_free(m->source);
  g_free(m);
}

/* ---- Walks ---- */

void v1_cross(V1 *v, Pos *p) {
  while (g_atomic_int_get(&p->d->mounted)) {
    tes_mutex_lock(&v->mounts);
    Mount *m = g_hash_table_lookup(p->mnt->children, p->d);
    if (m)
      v1_mount_ref(m);
    tes_mutex_unlock(&v->mounts);
    if (!m)
      return; /* mounted elsewhere: in another namespace, or another mount of the filesystem */
    v1_pos_clear(p);
    *p = (Pos){m, v1_dirent_ref(m->root)};
  }
}

gboolean v1_step_out(V1 *v, Pos *p) {
  Pos up = {NULL, NULL};
  tes_mutex_lock(&v->mounts);
  if (p->mnt->parent)
    up = (Pos){v1_mount_ref(p->mnt->parent), v1_dirent_ref(p->mnt->point)};
  tes_mutex_unlock(&v->mounts);
  if (!up.mnt)
    return FALSE;
  v1_pos_clear(p);
  *p = up;
  return TRUE;
}

/* ---- Trees; mount lock held ---- */

void v1_mount_attach(Mount *m, TesMountNs *ns, Mount *parent, Dirent *point) {
  v1_mount_ref(m);
  m->ns = ns;
  m->parent = parent;
  m->point = v1_dirent_ref(point);
  g_hash_table_insert(parent->children, point, m);
  v1_pin(point);
  g_atomic_int_inc(&point->mounted);
  g_atomic_int_inc(&m->v->moves);
}

void v1_mount_detach(Mount *m, Dead *dead) {
  Dirent *point = m->point;
  m->ns = NULL;
  if (point) {
    g_hash_table_remove(m->parent->children, point);
    m->parent = NULL;
    m->point = NULL;
    v1_unpin(point);
    g_atomic_int_add(&point->mounted, -1);
    g_atomic_int_inc(&m->v->moves);
    dead->dirents = g_slist_prepend(dead->dirents, point);
  }
  dead->mounts = g_slist_prepend(dead->mounts, m);
}

void v1_mount_detach_tree(Mount *m, Dead *dead) {
  g_autoptr(GList) children = g_hash_table_get_values(m->children);
  for (GList *l = children; l; l = l->next)
    v1_mount_detach_tree(l->data, dead);
  v1_mount_detach(m, dead);
}

void v1_release(Dead *dead) {
  g_slist_free_full(dead->dirents, (GDestroyNotify)v1_dirent_unref);
  g_slist_free_full(dead->mounts, (GDestroyNotify)v1_mount_unref);
}

/* Depth of the recursion is bounded by the nesting of mounts (mountop.c). */
Mount *v1_mount_copy(Mount *m, Dirent *root, gboolean recursive) {
  Mount *k = v1_mount_new(m->v, tes_super_ref(m->super), v1_dirent_ref(root), m->source,
                          __atomic_load_n(&m->flags, __ATOMIC_ACQUIRE));
  k->origin = m->id;
  GHashTableIter it;
  gpointer point, child;
  g_hash_table_iter_init(&it, m->children);
  while (recursive && g_hash_table_iter_next(&it, &point, &child)) {
    tes_rwlock_read(&m->v->tree);
    gboolean inside = v1_is_above(root, point);
    tes_rwlock_unlock(&m->v->tree);
    if (!inside)
      continue;
    Mount *c = v1_mount_copy(child, ((Mount *)child)->root, TRUE);
    v1_mount_attach(c, NULL, k, point);
    v1_mount_unref(c);
  }
  return k;
}

/* ---- Namespaces ---- */

static TesMountNs *new_ns(V1 *v, TesCtx *ctx) {
  TesMountNs *ns = g_new0(TesMountNs, 1);
  ns->refs = 1;
  ns->v = v;
  ns->id = tes_unique_id(ctx->kernel);
  return ns;
}

TesMountNs *v1_ns_new(TesVfs *vfs, TesCtx *ctx, TesSuper *root, const char *source, gulong flags) {
  V1 *v = v1_of(vfs);
  TesMountNs *ns = new_ns(v, ctx);
  ns->root = v1_mount_new(v, root, v1_root_of(v, root), source, flags);
  ns->root->ns = ns;
  return ns;
}

void v1_set_ns(Mount *m, TesMountNs *ns) {
  GHashTableIter it;
  gpointer child;
  m->ns = ns;
  g_hash_table_iter_init(&it, m->children);
  while (g_hash_table_iter_next(&it, NULL, &child))
    v1_set_ns(child, ns);
}

TesMountNs *v1_ns_copy(TesVfs *vfs, TesCtx *ctx, TesMountNs *old) {
  V1 *v = v1_of(vfs);
  TesMountNs *ns = new_ns(v, ctx);
  TES_LOCKED(&v->mounts);
  ns->root = v1_mount_copy(old->root, old->root->root, TRUE);
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
  v1_mount_detach_tree(ns->root, &dead);
  tes_mutex_unlock(&ns->v->mounts);
  v1_release(&dead);
  g_free(ns);
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

static Mount *find_copy(Mount *m, guint origin) {
  if (m->origin == origin)
    return m;
  GHashTableIter it;
  gpointer child;
  Mount *found = NULL;
  g_hash_table_iter_init(&it, m->children);
  while (!found && g_hash_table_iter_next(&it, NULL, &child))
    found = find_copy(child, origin);
  return found;
}

TesPath *v1_ns_path(TesMountNs *ns, TesPath *p) {
  V1 *v = ns->v;
  tes_mutex_lock(&v->mounts);
  Mount *m = find_copy(ns->root, v1_pos(p)->mnt->id);
  if (m)
    v1_mount_ref(m);
  tes_mutex_unlock(&v->mounts);
  return m ? v1_path_new(v, m, v1_dirent_ref(v1_pos(p)->d)) : v1_path_ref(p);
}
