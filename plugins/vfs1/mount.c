/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts, and trees of them. A tree may be as deep as it has mounts, so nothing here recurses: v1_tree() lists it. */
#include "vfs1.h"

Mount *v1_mount_new(V1 *v, TesSuper *s, Dirent *root, const char *source, gulong flags) {
  Mount *m = g_new0(Mount, 1);
  m->refs = 1;
  m->v = v;
  m->id = (guint)g_atomic_int_add(&v->next_mount_id, 1) + 1;
  m->super = s;
  m->root = root;
  m->source = g_strdup(source ? source : "none");
  m->flags = rules_mount_flags(flags);
  m->children = g_hash_table_new(NULL, NULL);
  tes_super_activate(s);
  tes_rwlock_write(&v->tree);
  g_hash_table_add(v->all, m);
  tes_rwlock_unlock(&v->tree);
  return m;
}

Mount *v1_mount_ref(Mount *m) {
  g_atomic_int_inc(&m->refs);
  return m;
}

void v1_mount_unref(Mount *m) {
  if (G_UNLIKELY(g_atomic_int_get(&m->expire_mark)))
    g_atomic_int_set(&m->expire_mark, 0);
  v1_mount_unref_unused(m);
}

void v1_mount_unref_unused(Mount *m) {
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
  tes_rwlock_write(&v->tree);
  g_hash_table_remove(v->all, m);
  tes_rwlock_unlock(&v->tree);
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

gboolean v1_is_mountpoint(TesMountNs *ns, Dirent *d) {
  GHashTableIter it;
  gpointer key;
  gboolean found = FALSE;
  if (!g_atomic_int_get(&d->mounted))
    return FALSE;
  tes_rwlock_read(&d->v->tree);
  g_hash_table_iter_init(&it, d->v->all);
  while (!found && g_hash_table_iter_next(&it, &key, NULL)) {
    const Mount *m = key;
    found = m->point == d && (!ns || m->ns == ns);
  }
  tes_rwlock_unlock(&d->v->tree);
  return found;
}

#define MOUNTS_TOTAL 300000 /* of the sandbox: what namespaces and copies can take of memory */

gboolean v1_has_room(V1 *v, guint more) {
  tes_rwlock_read(&v->tree);
  guint have = g_hash_table_size(v->all);
  tes_rwlock_unlock(&v->tree);
  return have + more <= MOUNTS_TOTAL;
}

gboolean v1_super_written(V1 *v, const TesSuper *s) {
  GHashTableIter it;
  gpointer key;
  gboolean found = FALSE;
  tes_rwlock_read(&v->tree);
  g_hash_table_iter_init(&it, v->all);
  while (!found && g_hash_table_iter_next(&it, &key, NULL))
    found = ((Mount *)key)->super == s && g_atomic_int_get(&((Mount *)key)->writers) > 0;
  tes_rwlock_unlock(&v->tree);
  return found;
}

/* ---- Trees; mount lock held ---- */

GPtrArray *v1_tree(Mount *top) {
  GPtrArray *all = g_ptr_array_new();
  g_ptr_array_add(all, top);
  for (guint i = 0; i < all->len; i++) {
    GHashTableIter it;
    gpointer child;
    g_hash_table_iter_init(&it, ((Mount *)all->pdata[i])->children);
    while (g_hash_table_iter_next(&it, NULL, &child))
      g_ptr_array_add(all, child);
  }
  return all;
}

void v1_set_ns(Mount *top, TesMountNs *ns) {
  g_autoptr(GPtrArray) all = v1_tree(top);
  tes_rwlock_write(&top->v->tree);
  for (guint i = 0; i < all->len; i++)
    ((Mount *)all->pdata[i])->ns = ns;
  tes_rwlock_unlock(&top->v->tree);
}

void v1_attach(Mount *m, TesMountNs *ns, Mount *parent, Dirent *point) {
  tes_rwlock_write(&m->v->tree);
  m->parent = parent;
  m->point = v1_dirent_ref(point);
  v1_pin(point);
  g_atomic_int_inc(&point->mounted);
  tes_rwlock_unlock(&m->v->tree);
  g_hash_table_insert(parent->children, point, m);
  g_atomic_int_inc(&m->v->moves);
  v1_set_ns(m, ns);
}

void v1_detach(Mount *m, Dead *dead) {
  Dirent *point = m->point;
  if (point)
    g_hash_table_remove(m->parent->children, point);
  tes_rwlock_write(&m->v->tree);
  m->ns = NULL;
  m->parent = NULL;
  m->point = NULL;
  if (point) {
    v1_unpin(point);
    g_atomic_int_add(&point->mounted, -1);
    dead->dirents = g_slist_prepend(dead->dirents, point);
  }
  tes_rwlock_unlock(&m->v->tree);
  g_atomic_int_inc(&m->v->moves);
  dead->mounts = g_slist_prepend(dead->mounts, m);
}

void v1_detach_tree(Mount *top, Dead *dead) {
  g_autoptr(GPtrArray) all = v1_tree(top);
  while (all->len)
    v1_detach(g_ptr_array_steal_index(all, all->len - 1), dead);
}

void v1_release(Dead *dead) {
  g_slist_free_full(dead->dirents, (GDestroyNotify)v1_dirent_unref);
  g_slist_free_full(dead->mounts, (GDestroyNotify)v1_mount_unref);
}

/* ---- Copies ---- */

static Mount *copy_one(Mount *m, Dirent *root) {
  Mount *k = v1_mount_new(m->v, tes_super_ref(m->super), v1_dirent_ref(root), m->source, 0);
  k->flags = __atomic_load_n(&m->flags, __ATOMIC_ACQUIRE);
  k->origin = m->id;
  k->unbindable = m->unbindable;
  return k;
}

static gboolean is_inside(const Dirent *d, const Dirent *root) {
  tes_rwlock_read(&root->v->tree);
  gboolean inside = v1_is_above(root, d);
  tes_rwlock_unlock(&root->v->tree);
  return inside;
}

Mount *v1_copy_tree(Mount *top, Dirent *root, gboolean recursive, gboolean unbindable_too) {
  g_autoptr(GHashTable) copies = g_hash_table_new(NULL, NULL); /* Mount -> its copy */
  g_autoptr(GPtrArray) all = v1_tree(top);
  if (!v1_has_room(top->v, recursive ? all->len : 1))
    return NULL;
  Mount *k = copy_one(top, root);
  g_hash_table_insert(copies, top, k);
  for (guint i = 1; recursive && i < all->len; i++) {
    Mount *m = all->pdata[i], *parent = g_hash_table_lookup(copies, m->parent);
    if (!parent || (m->unbindable && !unbindable_too) || (m->parent == top && !is_inside(m->point, root)))
      continue;
    Mount *c = copy_one(m, m->root);
    g_hash_table_insert(copies, m, c);
    v1_attach(c, NULL, parent, m->point);
  }
  return k;
}
