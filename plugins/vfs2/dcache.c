/* SPDX-License-Identifier: Apache-2.0 */
/* Dentries: one for each cached name. Found without locks inside an epoch; every structural change is made under
 * the dcache lock. A hashed dentry nobody uses stays until the clock hand of the shrinker finds it twice unused. */
#include "vfs2.h"

static const TesLockClass dcache_class = {"vfs2 dentry cache", TES_RANK_DENTRY + 1, FALSE,
                                          "hash chains, child lists and the clock of vfs2's dentries"};
static const TesLockClass dir_class = {"vfs2 directory", TES_RANK_DENTRY, TRUE,
                                       "entries of one directory (ancestors first)"};

static guint mix(guint64 h) {
  h ^= h >> 29;
  h *= 0xbf58476d1ce4e5b9ULL;
  return (guint)(h >> 32);
}

static guint hash_name(const Dentry *parent, const char *name, gsize len) {
  guint64 h = ((guint64)(gsize)parent >> 4) * 0x9e3779b97f4a7c15ULL, w;
  for (; len >= 8; name += 8, len -= 8) {
    memcpy(&w, name, 8);
    h = (h ^ w) * 0x94d049bb133111ebULL;
    h ^= h >> 32;
  }
  w = len;
  for (gsize i = 0; i < len; i++)
    w = w << 8 | (guchar)name[i];
  return mix((h ^ w) * 0x94d049bb133111ebULL);
}

static Dentry **bucket(V2 *v, guint hash) { return &v->buckets[hash >> (32 - V2_HASH_BITS)]; }

void v2_dcache_init(V2 *v) {
  tes_mutex_init(&v->dcache_lock, &dcache_class);
  guint max = tes_kernel_dcache_max(v->base.kernel);
  v->dcache_max = max ? max : V2_DCACHE_MAX;
  v->tracing = tes_trace_path_on(v->base.kernel);
  v->buckets = g_new0(Dentry *, 1u << V2_HASH_BITS);
  v->roots = g_hash_table_new(NULL, NULL);
}

void v2_seq_begin(V2 *v) {
  __atomic_store_n(&v->seq, v->seq + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void v2_seq_end(V2 *v) { __atomic_store_n(&v->seq, v->seq + 1, __ATOMIC_SEQ_CST); }

/* ---- References ---- */

Dentry *v2_dentry_new(V2 *v, TesSuper *s, Dentry *parent, const char *name, gsize len, TesInode *inode) {
  Dentry *d = g_new0(Dentry, 1);
  d->refs = 1;
  d->v = v;
  d->super = s;
  d->parent = parent ? v2_dentry_ref(parent) : NULL;
  d->name = g_strndup(name, len);
  d->inode = inode;
  tes_mutex_init(&d->lock, &dir_class);
  return d;
}

Dentry *v2_dentry_ref(Dentry *d) {
  g_atomic_int_inc(&d->refs);
  return d;
}

gboolean v2_dentry_try_ref(Dentry *d) {
  gint n = g_atomic_int_get(&d->refs);
  while (n >= 0)
    if (__atomic_compare_exchange_n(&d->refs, &n, n + 1, TRUE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      return TRUE;
  return FALSE;
}

/* Whoever changes 0 to -1 owns what is left. */
static gboolean claim(Dentry *d) {
  gint zero = 0;
  return __atomic_compare_exchange_n(&d->refs, &zero, -1, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static void dentry_free(gpointer p) {
  Dentry *d = p;
  if (d->inode)
    tes_inode_unref(d->inode);
  g_free(d->link);
  g_free(d->name);
  tes_mutex_clear(&d->lock);
  g_free(d);
}

/* ---- Hash, children and clock; dcache lock held ---- */

static void clock_insert(V2 *v, Dentry *d) {
  if (!v->clock) {
    v->clock = d->lnext = d->lprev = d;
    return;
  }
  d->lnext = v->clock; /* behind the hand: seen last */
  d->lprev = v->clock->lprev;
  d->lprev->lnext = d->lnext->lprev = d;
}

static void clock_remove(V2 *v, Dentry *d) {
  if (d->lnext == d)
    v->clock = NULL;
  else {
    d->lprev->lnext = d->lnext;
    d->lnext->lprev = d->lprev;
    if (v->clock == d)
      v->clock = d->lnext;
  }
  d->lnext = d->lprev = NULL;
}

static void hash_insert(V2 *v, Dentry *d) {
  __atomic_store_n(&d->hash, hash_name(d->parent, d->name, strlen(d->name)), __ATOMIC_RELAXED);
  Dentry **b = bucket(v, d->hash);
  STORE(d->hnext, *b);
  d_set(d, D_HASHED);
  STORE(*b, d);
  d->snext = d->parent->children;
  d->sprev = NULL;
  if (d->snext)
    d->snext->sprev = d;
  d->parent->children = d;
}

static void hash_remove(V2 *v, Dentry *d) {
  for (Dentry **p = bucket(v, d->hash); *p; p = &(*p)->hnext)
    if (*p == d) {
      STORE(*p, d->hnext); /* d->hnext stays: a reader may stand on d */
      break;
    }
  if (d->sprev)
    d->sprev->snext = d->snext;
  else
    d->parent->children = d->snext;
  if (d->snext)
    d->snext->sprev = d->sprev;
  d->snext = d->sprev = NULL;
}

static void unhash(V2 *v, Dentry *d) {
  if (!(d_flags(d) & D_HASHED))
    return;
  hash_remove(v, d);
  clock_remove(v, d);
  v->n_hashed--;
  d_clear(d, D_HASHED);
}

/* Frees a claimed dentry; returns its parent, whose reference the caller drops. */
static Dentry *kill_claimed(Dentry *d) {
  V2 *v = d->v;
  Dentry *parent = d->parent;
  tes_mutex_lock(&v->dcache_lock);
  unhash(v, d);
  if ((d_flags(d) & D_ROOT) && g_hash_table_lookup(v->roots, d->super) == d)
    g_hash_table_remove(v->roots, d->super);
  tes_mutex_unlock(&v->dcache_lock);
  if ((d_flags(d) & D_DELETED) && d->inode)
    tes_notify_gone(d->inode);
  tes_epoch_defer(dentry_free, d);
  return parent;
}

/* A cached name is worth keeping while its filesystem is mounted. */
static gboolean keep(const Dentry *d) {
  return (d_flags(d) & D_HASHED) && g_atomic_int_get(&d->super->active) > 0;
}

void v2_dentry_unref(Dentry *d) {
  while (d) {
    tes_epoch_enter(); /* once the count is 0 another thread may free it */
    gboolean mine = g_atomic_int_dec_and_test(&d->refs) && !keep(d) && claim(d);
    tes_epoch_leave();
    if (!mine)
      return;
    d = kill_claimed(d);
  }
}

static void kill_list(GSList *l) {
  for (GSList *i = l; i; i = i->next) {
    Dentry *parent = kill_claimed(i->data);
    if (parent)
      v2_dentry_unref(parent);
  }
  g_slist_free(l);
}

/* One step of the clock; a dentry that goes is claimed and out of the hash. dcache lock held. */
static Dentry *clock_step(V2 *v) {
  Dentry *d = v->clock;
  v->clock = d->lnext;
  if (d_flags(d) & D_ACCESSED) {
    d_clear(d, D_ACCESSED);
    return NULL;
  }
  if (g_atomic_int_get(&d->refs) != 0 || !claim(d))
    return NULL;
  unhash(v, d);
  return d;
}

static void shrink(V2 *v) {
  GSList *dead = NULL;
  tes_mutex_lock(&v->dcache_lock);
  /* Bounded work for each insertion, more than one removal so that it catches up. */
  for (guint i = 0, n = 0; v->n_hashed > v->dcache_max && v->clock && i < 256 && n < 32; i++) {
    Dentry *d = clock_step(v);
    if (d) {
      dead = g_slist_prepend(dead, d);
      n++;
    }
  }
  tes_mutex_unlock(&v->dcache_lock);
  kill_list(dead);
}

/* ---- Interface ---- */

Dentry *v2_dcache_find(V2 *v, Dentry *parent, const char *name, gsize len) {
  guint hash = hash_name(parent, name, len);
  for (Dentry *d = LOAD(*bucket(v, hash)); d; d = LOAD(d->hnext)) {
    if (__atomic_load_n(&d->hash, __ATOMIC_RELAXED) != hash || LOAD(d->parent) != parent)
      continue;
    const char *s = LOAD(d->name);
    if (strncmp(s, name, len) != 0 || s[len])
      continue;
    if (!(d_flags(d) & D_ACCESSED))
      d_set(d, D_ACCESSED);
    return d;
  }
  return NULL;
}

Dentry *v2_dcache_find_ref(V2 *v, Dentry *parent, const char *name, gsize len) {
  for (guint tries = 0;; tries++) {
    guint seq = v2_seq_read(v);
    tes_epoch_enter();
    Dentry *d = v2_dcache_find(v, parent, name, len);
    if (d && !v2_dentry_try_ref(d))
      d = NULL;
    tes_epoch_leave();
    if (!v2_seq_changed(v, seq) || (!d && tries > 3))
      return d;
    if (d) {
      v2_dentry_unref(d);
      d = NULL;
    }
    if (tries > 100) { /* many renames: exclude them for one look */
      tes_mutex_lock(&v->dcache_lock);
      d = v2_dcache_find(v, parent, name, len);
      if (d && !v2_dentry_try_ref(d))
        d = NULL;
      tes_mutex_unlock(&v->dcache_lock);
      return d;
    }
  }
}

void v2_dcache_add_chain(Dentry **d, guint n) {
  V2 *v = d[0]->v;
  tes_mutex_lock(&v->dcache_lock);
  while (n-- > 0) {
    hash_insert(v, d[n]);
    clock_insert(v, d[n]);
    v->n_hashed++;
  }
  gboolean full = v->n_hashed > v->dcache_max;
  tes_mutex_unlock(&v->dcache_lock);
  if (full)
    shrink(v);
}

void v2_dcache_add(Dentry *d) { v2_dcache_add_chain(&d, 1); }

void v2_dcache_drop(Dentry *d) {
  V2 *v = d->v;
  tes_mutex_lock(&v->dcache_lock);
  unhash(v, d);
  tes_mutex_unlock(&v->dcache_lock);
}

void v2_dcache_prune_children(Dentry *dir) {
  V2 *v = dir->v;
  GSList *dead = NULL;
  tes_mutex_lock(&v->dcache_lock);
  for (Dentry *d = dir->children, *next; d; d = next) {
    next = d->snext;
    unhash(v, d);
    if (claim(d))
      dead = g_slist_prepend(dead, d);
  }
  tes_mutex_unlock(&v->dcache_lock);
  kill_list(dead);
}

void v2_dcache_drop_super(V2 *v, TesSuper *s) {
  GSList *dead = NULL;
  tes_mutex_lock(&v->dcache_lock);
  Dentry *d = v->clock;
  for (guint i = v->n_hashed; i > 0; i--) {
    Dentry *next = d->lnext;
    if (d->super == s && claim(d)) {
      unhash(v, d);
      dead = g_slist_prepend(dead, d);
    }
    d = next;
  }
  tes_mutex_unlock(&v->dcache_lock);
  kill_list(dead); /* parents follow by themselves: their super is no longer active */
}

static void rename_to(V2 *v, Dentry *d, Dentry *parent, const char *name) {
  char *old = d->name;
  gboolean hashed = d_flags(d) & D_HASHED;
  if (hashed)
    hash_remove(v, d);
  STORE(d->name, g_strdup(name));
  STORE(d->parent, parent);
  if (hashed)
    hash_insert(v, d);
  tes_epoch_defer(g_free, old);
}

void v2_dcache_move(Dentry *d, Dentry *new_parent, const char *new_name, Dentry *victim) {
  V2 *v = d->v;
  Dentry *old_parent = d->parent;
  v2_dentry_ref(new_parent);
  tes_mutex_lock(&v->dcache_lock);
  v2_seq_begin(v);
  if (victim)
    unhash(v, victim);
  rename_to(v, d, new_parent, new_name);
  v2_seq_end(v);
  tes_mutex_unlock(&v->dcache_lock);
  v2_dentry_unref(old_parent);
}

void v2_dcache_exchange(Dentry *a, Dentry *b) {
  V2 *v = a->v;
  Dentry *pa = a->parent, *pb = b->parent; /* each keeps one reference: they change owners */
  g_autofree char *na = g_strdup(a->name), *nb = g_strdup(b->name);
  tes_mutex_lock(&v->dcache_lock);
  v2_seq_begin(v);
  rename_to(v, a, pb, nb);
  rename_to(v, b, pa, na);
  v2_seq_end(v);
  tes_mutex_unlock(&v->dcache_lock);
}

Dentry *v2_dcache_root(V2 *v, TesSuper *s) {
  Dentry *fresh = v2_dentry_new(v, s, NULL, "", 0, tes_inode_ref(s->root));
  d_set(fresh, D_ROOT);
  tes_mutex_lock(&v->dcache_lock);
  Dentry *d = g_hash_table_lookup(v->roots, s);
  if (d && v2_dentry_try_ref(d)) {
    tes_mutex_unlock(&v->dcache_lock);
    v2_dentry_unref(fresh);
    return d;
  }
  g_hash_table_replace(v->roots, s, fresh);
  tes_mutex_unlock(&v->dcache_lock);
  return fresh;
}

void v2_dcache_clear(V2 *v) {
  g_hash_table_destroy(v->roots);
  g_free(v->buckets);
  tes_mutex_clear(&v->dcache_lock);
}
