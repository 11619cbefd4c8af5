/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts: references, the table (parent mount, dentry) -> mount, and trees: attaching, taking apart, copying. A tree may be
 * as deep as it has mounts, so nothing here recurses. */
#include "vfs2.h"
#include "../vfs-common/rules.h"

Mount *v2_mount_new(V2 *v, TesSuper *s, Dentry *root, const char *source, gulong flags) {
  Mount *m = g_new0(Mount, 1);
  m->refs = 1;
  m->v = v;
  m->id = (guint)g_atomic_int_add((gint *)&v->next_mount_id, 1) + 1;
  m->super = s;
  m->root = root;
  m->source = g_strdup(source ? source : "none");
  m->flags = rules_mount_flags(flags);
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

void v2_mount_unref_unused(Mount *m) {
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

void v2_mount_unref(Mount *m) {
  v2_mount_used(m);
  v2_mount_unref_unused(m);
}

/* ---- The tables ---- */

static guint place_hash(const Mount *parent, const Dentry *d) {
  guint64 h = ((guint64)(gsize)parent >> 4) * 0x9e3779b97f4a7c15ULL ^
              ((guint64)(gsize)d >> 4) * 0xbf58476d1ce4e5b9ULL;
  return (guint)((h >> 32) % V2_MOUNT_BUCKETS);
}
static Mount **bucket(V2 *v, const Mount *parent, const Dentry *d) {
  return &v->mounts[place_hash(parent, d)];
}
static Mount **place(V2 *v, const Dentry *d) { return &v->places[place_hash(NULL, d)]; }

Mount *v2_mount_find(V2 *v, Mount *parent, Dentry *d) {
  for (Mount *m = LOAD(*bucket(v, parent, d)); m; m = LOAD(m->hnext))
    if (LOAD(m->parent) == parent && LOAD(m->mountpoint) == d)
      return m;
  return NULL;
}

void v2_mount_top(V2 *v, Pos *p) {
  Mount *over;
  while ((over = v2_mount_find(v, p->mnt, p->d)))
    *p = (Pos){over, over->root};
}

gboolean v2_is_mountpoint_in(TesMountNs *ns, Dentry *d) {
  V2 *v = d->v;
  if (!__atomic_load_n(&d->mounted, __ATOMIC_ACQUIRE))
    return FALSE;
  TES_LOCKED(&v->dcache_lock);
  for (Mount *m = *place(v, d); m; m = m->pnext)
    if (m->mountpoint == d && (!ns || LOAD(m->ns) == ns))
      return TRUE;
  return d->pins > 0; /* part of the way to one */
}

Mount *v2_mount_at_place(Dentry *d) {
  V2 *v = d->v;
  TES_LOCKED(&v->dcache_lock);
  Mount *m = *place(v, d);
  while (m && m->mountpoint != d)
    m = m->pnext;
  return m;
}

/* Names below NO_CACHE directories are normally private to a walk; the way to a mount must be found again, so it
 * is hashed and counted as covered. */
static gboolean needs_pin(Dentry *d) {
  tes_epoch_enter();
  Dentry *up = LOAD(d->parent);
  gboolean r = up && (d->pins || !v2_dir_is_cached(up));
  tes_epoch_leave();
  return r;
}

static void pin_way(Dentry *d) {
  for (; needs_pin(d); d = d->parent) {
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

static void unhash(V2 *v, Mount *m) {
  for (Mount **p = bucket(v, m->parent, m->mountpoint); *p; p = &(*p)->hnext)
    if (*p == m) {
      STORE(*p, m->hnext); /* m->hnext stays: a reader may stand on m */
      break;
    }
  *m->plink = m->pnext;
  if (m->pnext)
    m->pnext->plink = m->plink;
  __atomic_fetch_sub(&m->mountpoint->mounted, 1, __ATOMIC_SEQ_CST);
}

/* Publishes a change of parent and mountpoint to walkers that hold no lock. */
static void publish(Mount *m, Mount *parent, Dentry *mountpoint) {
  V2 *v = m->v;
  tes_mutex_lock(&v->dcache_lock);
  v2_seq_begin(v);
  if (m->parent)
    unhash(v, m);
  STORE(m->parent, parent);
  STORE(m->mountpoint, mountpoint);
  if (parent) {
    Mount **b = bucket(v, parent, mountpoint), **p = place(v, mountpoint);
    STORE(m->hnext, *b);
    STORE(*b, m);
    m->pnext = *p;
    m->plink = p;
    if (*p)
      (*p)->plink = &m->pnext;
    *p = m;
    __atomic_fetch_add(&mountpoint->mounted, 1, __ATOMIC_SEQ_CST);
  }
  v2_seq_end(v);
  tes_mutex_unlock(&v->dcache_lock);
}

/* ---- Trees ---- */

Mount *v2_mount_next(const Mount *m, const Mount *top) {
  if (m->children)
    return m->children;
  for (; m != top; m = m->parent)
    if (m->snext)
      return m->snext;
  return NULL;
}

guint v2_tree_size(const Mount *top) {
  guint n = 0;
  for (const Mount *m = top; m; m = v2_mount_next(m, top))
    n++;
  return n;
}

/* A rename may take a parent away meanwhile. */
gboolean v2_tree_below(const Dentry *d, const Dentry *root) {
  tes_epoch_enter();
  while (d && d != root)
    d = LOAD(d->parent);
  tes_epoch_leave();
  return d != NULL;
}

gboolean v2_pos_below(const Pos *p, const Pos *root) {
  Mount *m = p->mnt;
  const Dentry *d = p->d;
  for (; m != root->mnt; m = m->parent) {
    if (!m->parent)
      return FALSE;
    d = m->mountpoint;
  }
  return v2_tree_below(d, root->d);
}

void v2_tree_set_ns(Mount *top, TesMountNs *ns) {
  if (top->ns == ns)
    return;
  for (Mount *m = top; m; m = v2_mount_next(m, top)) {
    if (m->ns)
      m->ns->n--;
    if (ns)
      ns->n++;
    STORE(m->ns, ns);
  }
}

static void unlink_sibling(Mount *m, Mount *parent) {
  if (m->sprev)
    m->sprev->snext = m->snext;
  else
    parent->children = m->snext;
  if (m->snext)
    m->snext->sprev = m->sprev;
  else
    parent->last = m->sprev;
  m->snext = m->sprev = NULL;
}

void v2_mount_attach(Mount *m, TesMountNs *ns, Mount *parent, Dentry *mountpoint) {
  Mount *old_parent = m->parent;
  Dentry *old_mp = m->mountpoint;
  pin_way(mountpoint);
  v2_tree_set_ns(m, ns);
  publish(m, parent, v2_dentry_ref(mountpoint));
  if (old_parent) {
    unlink_sibling(m, old_parent);
    unpin_way(old_mp);
    v2_dentry_unref(old_mp);
  }
  m->sprev = parent->last;
  if (m->sprev)
    m->sprev->snext = m;
  else
    parent->children = m;
  parent->last = m;
}

void v2_mount_unlink(Mount *m) {
  Mount *parent = m->parent;
  Dentry *mp = m->mountpoint;
  v2_tree_set_ns(m, NULL);
  if (!parent)
    return;
  publish(m, NULL, NULL);
  unlink_sibling(m, parent);
  unpin_way(mp);
  v2_dentry_unref(mp);
}

/* In no tree any more: it hears of nothing and counts no longer. */
void v2_mount_retire(Mount *m) {
  V2 *v = m->v;
  v2_set_propagation(m, MS_PRIVATE);
  if (m->aprev)
    m->aprev->anext = m->anext;
  else
    v->all = m->anext;
  if (m->anext)
    m->anext->aprev = m->aprev;
  m->anext = m->aprev = NULL;
  v->n_mounts--;
}

void v2_tree_dissolve(Mount *top, GSList **dead) {
  Mount *m = top;
  for (;;) {
    while (m->children)
      m = m->children;
    Mount *up = m == top ? NULL : m->parent;
    v2_mount_unlink(m);
    v2_mount_retire(m);
    *dead = g_slist_prepend(*dead, m);
    if (!up)
      return;
    m = up;
  }
}

void v2_mounts_release(GSList *dead) {
  for (GSList *l = dead; l; l = l->next)
    v2_mount_unref(l->data);
  g_slist_free(dead);
}

/* ---- Copies ---- */

void v2_mount_enlist(Mount *m) {
  V2 *v = m->v;
  m->anext = v->all;
  if (v->all)
    v->all->aprev = m;
  v->all = m;
  v->n_mounts++;
}

static Mount *copy_one(Mount *m, Dentry *root, guint how) {
  Mount *k = v2_mount_new(m->v, tes_super_ref(m->super), v2_dentry_ref(root), m->source, v2_mount_flags(m));
  k->flags = v2_mount_flags(m);
  k->origin = (how & COPY_UNBINDABLE) ? m->id : 0;
  v2_mount_enlist(k);
  if (how & COPY_SLAVE) {
    v2_slave_of(k, m->group);
  } else {
    if (m->group)
      v2_group_join(k, m->group);
    v2_slave_of(k, m->master);
  }
  if (how & COPY_SHARE)
    v2_group_new(k);
  k->unbindable = m->unbindable && (how & COPY_UNBINDABLE);
  return k;
}

Mount *v2_tree_copy(Mount *top, Dentry *root, guint how) {
  if (top->v->n_mounts + ((how & COPY_TREE) ? v2_tree_size(top) : 1) > V2_MOUNTS_TOTAL)
    return NULL;
  Mount *copy = copy_one(top, root, how), *parent = copy; /* the copy of m->parent */
  Mount *m = (how & COPY_TREE) ? top->children : NULL;
  while (m) {
    Mount *k = NULL;
    if ((!m->unbindable || (how & COPY_UNBINDABLE)) &&
        (m->parent != top || v2_tree_below(m->mountpoint, root))) {
      k = copy_one(m, m->root, how);
      v2_mount_attach(k, NULL, parent, m->mountpoint);
    }
    if (k && m->children) {
      parent = k;
      m = m->children;
      continue;
    }
    while (!m->snext && m->parent != top) {
      m = m->parent;
      parent = parent->parent;
    }
    m = m->snext;
  }
  return copy;
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
