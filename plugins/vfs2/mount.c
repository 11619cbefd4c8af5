/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts: references, the table (parent mount, dentry) -> mount, attaching, detaching and copying. */
#include "vfs2.h"

Mount *v2_mount_new(V2 *v, TesSuper *s, Dentry *root, const char *source, gulong flags) {
  Mount *m = g_new0(Mount, 1);
  m->refs = 1;
  m->v = v;
  m->id = (guint)g_atomic_int_add((gint *)&v->next_mount_id, 1) + 1;
  m->super = s;
  m->root = root;
  m->source = g_strdup(source ? source : "none");
  m->flags = flags & V2_MOUNT_FLAGS;
  tes_super_activate(s);
  return m;
}

Mount *v2_mount_ref(Mount *m) {
  g_atomic_int_inc(&m->refs);
  return m;
}

gboolean v2_mount_try_ref(Mount *m) {
  gint n = g_atomic_int_get(&m->refs);
  while (n > 0)
    if (__atomic_compare_exchange_n(&m->refs, &n, n + 1, TRUE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      return TRUE;
  return FALSE;
}

static void mount_free(gpointer p) {
  Mount *m = p;
  V2 *v = m->v;
  TesSuper *s = m->super;
  v2_dentry_unref(m->root);
  tes_super_deactivate(s);
  if (g_atomic_int_get(&s->active) == 0)
    v2_dcache_drop_super(v, s);
  tes_super_unref(s);
  g_free(m->source);
  g_free(m);
}

void v2_mount_unref(Mount *m) {
  gboolean anon = m->anon;
  V2 *v = m->v;
  TesSuper *s = m->super;
  if (!anon) {
    if (g_atomic_int_dec_and_test(&m->refs))
      tes_epoch_defer(mount_free, m);
    return;
  }
  /* Disconnected mounts are found by their super: the table must not hand out a dying one. */
  tes_mutex_lock(&v->mount_lock);
  gboolean last = g_atomic_int_dec_and_test(&m->refs);
  if (last && g_hash_table_lookup(v->anon, s) == m)
    g_hash_table_remove(v->anon, s);
  tes_mutex_unlock(&v->mount_lock);
  if (last)
    tes_epoch_defer(mount_free, m);
}

/* ---- The table ---- */

static Mount **bucket(V2 *v, const Mount *parent, const Dentry *d) {
  guint64 h = ((guint64)(gsize)parent >> 4) * 0x9e3779b97f4a7c15ULL ^
              ((guint64)(gsize)d >> 4) * 0xbf58476d1ce4e5b9ULL;
  return &v->mounts[(h >> 32) % V2_MOUNT_BUCKETS];
}

Mount *v2_mount_find(V2 *v, Mount *parent, Dentry *d) {
  for (Mount *m = LOAD(*bucket(v, parent, d)); m; m = LOAD(m->hnext))
    if (LOAD(m->parent) == parent && LOAD(m->mountpoint) == d)
      return m;
  return NULL;
}

/* Names below NO_CACHE directories are normally private to a walk; the way to a mount must be found again, so it
 * is hashed and counted as covered. */
static void pin_way(Dentry *d) {
  for (; d->parent && (d->pins || !v2_dir_is_cached(d->parent)); d = d->parent) {
    if (!(d_flags(d) & D_HASHED))
      v2_dcache_add(d);
    if (d->pins++ == 0)
      v2_dentry_ref(d);
    __atomic_fetch_add(&d->mounted, 1, __ATOMIC_SEQ_CST);
  }
}

static void unpin_way(Dentry *d) {
  while (d && d->pins) {
    Dentry *up = d->parent;
    __atomic_fetch_sub(&d->mounted, 1, __ATOMIC_SEQ_CST);
    if (--d->pins == 0)
      v2_dentry_unref(d); /* the caller, or the child, still holds it */
    d = up;
  }
}

/* Publishes a change of parent and mountpoint to walkers that hold no lock. */
static void publish(Mount *m, Mount *parent, Dentry *mountpoint) {
  V2 *v = m->v;
  tes_mutex_lock(&v->dcache_lock);
  v2_seq_begin(v);
  if (m->parent) {
    for (Mount **p = bucket(v, m->parent, m->mountpoint); *p; p = &(*p)->hnext)
      if (*p == m) {
        STORE(*p, m->hnext);
        break;
      }
    __atomic_fetch_sub(&m->mountpoint->mounted, 1, __ATOMIC_SEQ_CST);
  }
  STORE(m->parent, parent);
  STORE(m->mountpoint, mountpoint);
  if (parent) {
    Mount **b = bucket(v, parent, mountpoint);
    STORE(m->hnext, *b);
    STORE(*b, m);
    __atomic_fetch_add(&mountpoint->mounted, 1, __ATOMIC_SEQ_CST);
  }
  v2_seq_end(v);
  tes_mutex_unlock(&v->dcache_lock);
}

void v2_mount_attach(Mount *m, TesMountNs *ns, Mount *parent, Dentry *mountpoint) {
  v2_mount_ref(m);
  m->ns = ns;
  pin_way(mountpoint);
  publish(m, parent, v2_dentry_ref(mountpoint));
  m->sprev = NULL;
  m->snext = parent->children;
  if (m->snext)
    m->snext->sprev = m;
  parent->children = m;
}

void v2_mount_unlink(Mount *m) {
  Mount *parent = m->parent;
  Dentry *mp = m->mountpoint;
  m->ns = NULL;
  if (!parent)
    return;
  publish(m, NULL, NULL);
  if (m->sprev)
    m->sprev->snext = m->snext;
  else
    parent->children = m->snext;
  if (m->snext)
    m->snext->sprev = m->sprev;
  m->snext = m->sprev = NULL;
  unpin_way(mp);
  v2_dentry_unref(mp);
}

void v2_mount_detach_tree(Mount *m, GSList **dead) {
  while (m->children)
    v2_mount_detach_tree(m->children, dead);
  v2_mount_unlink(m);
  *dead = g_slist_prepend(*dead, m);
}

void v2_mounts_release(GSList *dead) {
  for (GSList *l = dead; l; l = l->next)
    v2_mount_unref(l->data);
  g_slist_free(dead);
}

/* ---- Copies ---- */

static gboolean is_below(const Dentry *d, const Dentry *root) {
  for (; d; d = d->parent)
    if (d == root)
      return TRUE;
  return FALSE;
}

/* Depth of the recursion is bounded by the nesting of mounts, which op_mount limits. */
static void copy_children(Mount *from, Mount *to, const Dentry *root, TesMountNs *ns) {
  for (Mount *c = from->children; c; c = c->snext) {
    if (!is_below(c->mountpoint, root))
      continue;
    Mount *k = v2_mount_copy(c, c->root, ns, TRUE);
    v2_mount_attach(k, ns, to, c->mountpoint);
    v2_mount_unref(k);
  }
}

Mount *v2_mount_copy(Mount *m, Dentry *root, TesMountNs *ns, gboolean recursive) {
  Mount *k = v2_mount_new(m->v, tes_super_ref(m->super), v2_dentry_ref(root), m->source, v2_mount_flags(m));
  k->origin = m->id;
  if (recursive)
    copy_children(m, k, root, ns);
  return k;
}

gboolean v2_mount_above(Mount *m, Mount **parent, Dentry **mountpoint) {
  V2 *v = m->v;
  gboolean found = FALSE;
  tes_mutex_lock(&v->mount_lock);
  if (m->parent) {
    *parent = v2_mount_ref(m->parent);
    *mountpoint = v2_dentry_ref(m->mountpoint);
    found = TRUE;
  }
  tes_mutex_unlock(&v->mount_lock);
  return found;
}

/* ---- Namespaces ---- */

TesMountNs *v2_op_ns_new(TesVfs *vfs, TesCtx *ctx, TesSuper *root, const char *source, gulong flags) {
  V2 *v = v2_of(vfs);
  TesMountNs *ns = g_new0(TesMountNs, 1);
  ns->refs = 1;
  ns->v = v;
  ns->id = tes_unique_id(ctx->kernel);
  ns->root = v2_mount_new(v, root, v2_dcache_root(v, root), source, flags);
  ns->root->ns = ns;
  return ns;
}

TesMountNs *v2_op_ns_copy(TesVfs *vfs, TesCtx *ctx, TesMountNs *old) {
  V2 *v = v2_of(vfs);
  TesMountNs *ns = g_new0(TesMountNs, 1);
  ns->refs = 1;
  ns->v = v;
  ns->id = tes_unique_id(ctx->kernel);
  TES_LOCKED(&v->mount_lock);
  ns->root = v2_mount_copy(old->root, old->root->root, ns, TRUE);
  ns->root->ns = ns;
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
  v2_mount_detach_tree(ns->root, &dead);
  tes_mutex_unlock(&ns->v->mount_lock);
  v2_mounts_release(dead);
  g_free(ns);
}

/* Everything mounted over the root counts: a walk of "/" ends on top. */
TesPath *v2_op_ns_root(TesMountNs *ns) {
  V2 *v = ns->v;
  tes_mutex_lock(&v->mount_lock);
  Pos p = {v2_mount_ref(ns->root), v2_dentry_ref(ns->root->root)};
  tes_mutex_unlock(&v->mount_lock);
  v2_cross_mounts(v, &p);
  return v2_path_new(v, p.mnt, p.d);
}

guint64 v2_op_ns_id(TesMountNs *ns) { return ns->id; }

static Mount *find_copy(Mount *m, guint origin) {
  if (m->origin == origin)
    return m;
  for (Mount *c = m->children; c; c = c->snext) {
    Mount *k = find_copy(c, origin);
    if (k)
      return k;
  }
  return NULL;
}

TesPath *v2_op_ns_path(TesMountNs *ns, TesPath *p) {
  V2Path *old = v2_path(p);
  V2 *v = ns->v;
  tes_mutex_lock(&v->mount_lock);
  Mount *m = find_copy(ns->root, old->mnt->id);
  if (m)
    v2_mount_ref(m);
  tes_mutex_unlock(&v->mount_lock);
  return m ? v2_path_new(v, m, v2_dentry_ref(old->d)) : tes_path_ref(p);
}
