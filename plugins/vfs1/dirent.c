/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of dirents. A directory's table of children does not count them: a dirent that nobody needs leaves it by itself, with its
 * last reference. The cache is one of those who need dirents: a queue of at most V1.cache_max of them (V9), the latest first. What was
 * found again since it was queued gets a second round. */
#include "vfs1.h"

static const TesLockClass tree_class = {"vfs1 tree", TES_RANK_DENTRY + 1, FALSE,
                                        "shape of the tree of dirents, their names, the cache"};
static const TesLockClass dir_class = {"vfs1 directory", TES_RANK_DENTRY, TRUE,
                                       "names of one directory (ancestors first)"};

void v1_tree_init(V1 *v) {
  tes_rwlock_init(&v->tree, &tree_class);
  g_queue_init(&v->cache);
  v->roots = g_hash_table_new(NULL, NULL);
}

/* ---- References ---- */

Dirent *v1_dirent_new(V1 *v, Dirent *parent, const char *name, TesInode *inode) {
  Dirent *d = g_new0(Dirent, 1);
  d->refs = 1;
  d->v = v;
  d->super = inode->super;
  d->inode = inode;
  d->parent = parent ? v1_dirent_ref(parent) : NULL;
  d->name = g_strdup(name);
  tes_mutex_init(&d->lock, &dir_class);
  return d;
}

Dirent *v1_dirent_ref(Dirent *d) {
  g_atomic_int_inc(&d->refs);
  return d;
}

/* For who found it in a table, under the tree lock: fails if the last reference has gone. */
static Dirent *try_ref(Dirent *d) {
  gint n = d ? g_atomic_int_get(&d->refs) : 0;
  while (n > 0)
    if (__atomic_compare_exchange_n(&d->refs, &n, n + 1, TRUE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      return d;
  return NULL;
}

/* Out of its parent's table, unless another dirent has the name by now. Tree lock held for writing. */
static void unlink_child(Dirent *d) {
  if (d->parent && d->parent->children && g_hash_table_lookup(d->parent->children, d->name) == d)
    g_hash_table_remove(d->parent->children, d->name);
  if (!d->parent && g_hash_table_lookup(d->v->roots, d->super) == d)
    g_hash_table_remove(d->v->roots, d->super);
}

void v1_dirent_unref(Dirent *d) {
  while (d && g_atomic_int_dec_and_test(&d->refs)) {
    Dirent *parent = d->parent;
    tes_rwlock_write(&d->v->tree);
    unlink_child(d);
    tes_rwlock_unlock(&d->v->tree);
    if (d_flags(d) & D_DELETED)
      tes_notify_gone(d->inode);
    /* Later, when no lock is held: with an inode whatever hangs on it may go, mounts too. */
    tes_epoch_defer((void (*)(gpointer))tes_inode_unref, d->inode);
    if (d->children)
      g_hash_table_unref(d->children);
    tes_mutex_clear(&d->lock);
    g_free(d->name);
    g_free(d);
    d = parent;
  }
}

/* ---- Looking ---- */

Dirent *v1_child(Dirent *dir, const char *name) {
  tes_rwlock_read(&dir->v->tree);
  Dirent *d = dir->children ? try_ref(g_hash_table_lookup(dir->children, name)) : NULL;
  tes_rwlock_unlock(&dir->v->tree);
  if (d && !g_atomic_int_get(&d->used))
    g_atomic_int_set(&d->used, 1);
  return d;
}

Dirent *v1_parent(Dirent *d) {
  tes_rwlock_read(&d->v->tree);
  Dirent *up = d->parent ? v1_dirent_ref(d->parent) : NULL;
  tes_rwlock_unlock(&d->v->tree);
  return up;
}

gboolean v1_is_above(const Dirent *above, const Dirent *d) {
  for (; d; d = d->parent)
    if (d == above)
      return TRUE;
  return FALSE;
}

/* ---- The cache; tree lock held for writing ---- */

static void cache_add(Dirent *d) {
  d->cached.data = v1_dirent_ref(d);
  g_queue_push_head_link(&d->v->cache, &d->cached);
}

/* The caller drops the cache's reference, after the lock. */
static GSList *cache_remove(Dirent *d, GSList *dropped) {
  if (!d->cached.data)
    return dropped;
  g_queue_unlink(&d->v->cache, &d->cached);
  d->cached.data = NULL;
  return g_slist_prepend(dropped, d);
}

static GSList *cache_shrink(V1 *v) {
  GSList *dropped = NULL;
  while (v->cache.length > v->cache_max) {
    Dirent *d = v->cache.tail->data;
    if (g_atomic_int_compare_and_exchange(&d->used, 1, 0))
      g_queue_push_head_link(&v->cache, g_queue_pop_tail_link(&v->cache));
    else
      dropped = cache_remove(d, dropped);
  }
  return dropped;
}

static void drop(GSList *dirents) { g_slist_free_full(dirents, (GDestroyNotify)v1_dirent_unref); }

void v1_drop_super(V1 *v, TesSuper *s) {
  GSList *dropped = NULL;
  tes_rwlock_write(&v->tree);
  for (GList *l = v->cache.head, *next; l; l = next) {
    next = l->next;
    if (((Dirent *)l->data)->super == s)
      dropped = cache_remove(l->data, dropped);
  }
  tes_rwlock_unlock(&v->tree);
  drop(dropped);
}

/* ---- Changing the tree ---- */

/* Tree lock held for writing. */
static void link_child(Dirent *d) {
  if (!d->parent->children)
    d->parent->children = g_hash_table_new(g_str_hash, g_str_equal);
  g_hash_table_replace(d->parent->children, d->name, d);
}

void v1_enter_tree(Dirent *d) {
  V1 *v = d->v;
  tes_rwlock_write(&v->tree);
  d_set(d, D_IN_TREE);
  link_child(d);
  if (g_atomic_int_get(&d->super->active) >
      0) /* else v1_drop_super() has been here, and nobody will come again */
    cache_add(d);
  GSList *dropped = cache_shrink(v);
  tes_rwlock_unlock(&v->tree);
  drop(dropped);
}

void v1_leave_tree(Dirent *d) {
  V1 *v = d->v;
  tes_rwlock_write(&v->tree);
  d_clear(d, D_IN_TREE);
  unlink_child(d);
  GSList *dropped = cache_remove(d, NULL);
  tes_rwlock_unlock(&v->tree);
  drop(dropped);
}

/* Gives it another name and parent; returns the old parent, whose reference the caller drops. Tree lock held for writing. */
static Dirent *rename_to(Dirent *d, Dirent *parent, const char *name) {
  Dirent *old = d->parent;
  unlink_child(d);
  g_free(d->name);
  d->name = g_strdup(name);
  d->parent = v1_dirent_ref(parent);
  return old;
}

void v1_move(Dirent *d, Dirent *new_parent, const char *new_name, Dirent *victim) {
  V1 *v = d->v;
  if (victim)
    v1_leave_tree(victim);
  tes_rwlock_write(&v->tree);
  Dirent *old = rename_to(d, new_parent, new_name);
  if (d_flags(d) & D_IN_TREE)
    link_child(d);
  g_atomic_int_inc(&v->moves);
  tes_rwlock_unlock(&v->tree);
  v1_dirent_unref(old);
}

void v1_exchange(Dirent *a, Dirent *b) {
  V1 *v = a->v;
  tes_rwlock_write(&v->tree);
  g_autofree char *name = g_strdup(a->name);
  Dirent *pa = rename_to(a, b->parent, b->name), *pb = rename_to(b, pa, name);
  if (d_flags(a) & D_IN_TREE)
    link_child(a);
  if (d_flags(b) & D_IN_TREE)
    link_child(b);
  g_atomic_int_inc(&v->moves);
  tes_rwlock_unlock(&v->tree);
  v1_dirent_unref(pa);
  v1_dirent_unref(pb);
}

Dirent *v1_root_of(V1 *v, TesSuper *s) {
  Dirent *fresh = v1_dirent_new(v, NULL, "", tes_inode_ref(s->root));
  d_set(fresh, D_IN_TREE);
  tes_rwlock_write(&v->tree);
  Dirent *d = try_ref(g_hash_table_lookup(v->roots, s));
  if (!d)
    g_hash_table_replace(v->roots, s, fresh);
  tes_rwlock_unlock(&v->tree);
  if (!d)
    return fresh;
  v1_dirent_unref(fresh);
  return d;
}

/* ---- Names on the way to a mount ---- */

/* Below a directory that is asked every time a dirent is normally private to one walk; the way to a mount must be found again. */
void v1_pin(Dirent *point) {
  for (Dirent *d = point; d->parent; d = d->parent)
    if (d_asks_always(d->parent) && g_atomic_int_add(&d->pins, 1) == 0) {
      d_set(d, D_IN_TREE);
      link_child(d);
    }
}

void v1_unpin(Dirent *point) {
  for (Dirent *d = point; d->parent; d = d->parent)
    if (g_atomic_int_get(&d->pins) && g_atomic_int_dec_and_test(&d->pins)) {
      d_clear(d, D_IN_TREE);
      unlink_child(d);
    }
}

void v1_forget_all(V1 *v) {
  v->cache_max = 0;
  tes_rwlock_write(&v->tree);
  for (GList *l = v->cache.head; l; l = l->next)
    g_atomic_int_set(&((Dirent *)l->data)->used, 0);
  GSList *dropped = cache_shrink(v);
  tes_rwlock_unlock(&v->tree);
  drop(dropped);
}

void v1_tree_clear(V1 *v) {
  g_hash_table_unref(v->roots);
  tes_rwlock_clear(&v->tree);
}
