/* SPDX-License-Identifier: Apache-2.0 */
/* The data structure behind advisory locks: for each owner a balanced tree of disjoint ranges. A call costs the number of owners
 * plus the logarithm of an owner's ranges; only ranges that it removes cost more. */
#include <core/file/locks.h>

typedef struct {
  gpointer owner;
  GTree *ranges; /* TesLockRange, by start; owned */
  guint writes;  /* how many of them exclude readers */
  GList *link;   /* in `owners` */
} LockOwner;

static gint by_start(gconstpointer a, gconstpointer b, gpointer data) {
  goffset x = ((const TesLockRange *)a)->start, y = ((const TesLockRange *)b)->start;
  return x < y ? -1 : x > y;
}

static void free_owner(gpointer data) {
  LockOwner *o = data;
  g_tree_unref(o->ranges);
  g_free(o);
}

void tes_locktable_init(TesLockTable *t) {
  t->by_owner = g_hash_table_new_full(NULL, NULL, NULL, free_owner);
  g_queue_init(&t->owners);
  t->n = 0;
}

void tes_locktable_clear(TesLockTable *t) {
  g_queue_clear(&t->owners);
  g_hash_table_unref(t->by_owner);
}

/* The owner's first range that ends at or behind `from`, or NULL. */
static TesLockRange *first_from(LockOwner *o, goffset from) {
  TesLockRange key = {.start = from};
  GTreeNode *after = g_tree_upper_bound(o->ranges, &key);
  GTreeNode *before = after ? g_tree_node_previous(after) : g_tree_node_last(o->ranges);
  if (before && ((TesLockRange *)g_tree_node_value(before))->end >= from)
    return g_tree_node_value(before);
  return after ? g_tree_node_value(after) : NULL;
}

/* The first range in [want->start, want->end] that excludes it. */
static TesLockRange *conflict_in(LockOwner *o, const TesLockRange *want) {
  if (want->type == F_RDLCK && !o->writes)
    return NULL;
  TesLockRange *r = first_from(o, want->start);
  if (!r || want->type == F_WRLCK || r->type == F_WRLCK)
    return r && r->start <= want->end ? r : NULL;
  for (GTreeNode *n = g_tree_lower_bound(o->ranges, r); n; n = g_tree_node_next(n)) {
    r = g_tree_node_value(n);
    if (r->start > want->end)
      break;
    if (r->type == F_WRLCK)
      return r;
  }
  return NULL;
}

const TesLockRange *tes_locktable_conflict(TesLockTable *t, const TesLockRange *want) {
  for (GList *l = t->owners.head; l; l = l->next) {
    LockOwner *o = l->data;
    TesLockRange *r = o->owner == want->owner ? NULL : conflict_in(o, want);
    if (r)
      return r;
  }
  return NULL;
}

static void add_range(TesLockTable *t, LockOwner *o, const TesLockRange *r) {
  TesLockRange *copy = g_memdup2(r, sizeof *r);
  g_tree_insert(o->ranges, copy, copy);
  o->writes += r->type == F_WRLCK;
  t->n++;
}

static void remove_range(TesLockTable *t, LockOwner *o, TesLockRange *r) {
  t->n--;
  o->writes -= r->type == F_WRLCK;
  g_tree_remove(o->ranges, r); /* frees it */
}

static LockOwner *get_owner(TesLockTable *t, gpointer owner) {
  LockOwner *o = g_hash_table_lookup(t->by_owner, owner);
  if (!o) {
    o = g_new0(LockOwner, 1);
    o->owner = owner;
    o->ranges = g_tree_new_full(by_start, NULL, NULL, g_free);
    g_queue_push_tail(&t->owners, o);
    o->link = t->owners.tail;
    g_hash_table_insert(t->by_owner, owner, o);
  }
  return o;
}

static void put_owner(TesLockTable *t, LockOwner *o) {
  if (g_tree_nnodes(o->ranges))
    return;
  g_queue_delete_link(&t->owners, o->link);
  g_hash_table_remove(t->by_owner, o->owner);
}

/* What is left of `old` outside of `want` stays, as up to two ranges. */
static void cut(TesLockTable *t, LockOwner *o, TesLockRange *old, const TesLockRange *want) {
  TesLockRange left = *old, right = *old;
  remove_range(t, o, old);
  if (left.start < want->start) {
    left.end = want->start - 1;
    add_range(t, o, &left);
  }
  if (right.end > want->end) {
    right.start = want->end + 1;
    add_range(t, o, &right);
  }
}

void tes_locktable_apply(TesLockTable *t, const TesLockRange *want) {
  if (want->type == F_UNLCK && !g_hash_table_contains(t->by_owner, want->owner))
    return;
  LockOwner *o = get_owner(t, want->owner);
  TesLockRange merged = *want, *r;
  /* One to each side as well: equal neighbours are joined. */
  goffset from = MAX(want->start, 1) - 1, to = want->end == G_MAXINT64 ? want->end : want->end + 1;
  while ((r = first_from(o, from)) && r->start <= to) {
    if (r->type == want->type) {
      merged.start = MIN(merged.start, r->start);
      merged.end = MAX(merged.end, r->end);
      from = r->end == G_MAXINT64 ? r->end : r->end + 1;
      remove_range(t, o, r);
    } else {
      goffset end = r->end;
      if (r->start <= want->end && want->start <= end)
        cut(t, o, r, want);
      from = end == G_MAXINT64 ? end : end + 1;
    }
    if (from > to || from == G_MAXINT64)
      break;
  }
  if (want->type != F_UNLCK)
    add_range(t, o, &merged);
  put_owner(t, o);
}

void tes_locktable_foreach(TesLockTable *t, void (*fn)(const TesLockRange *, gpointer), gpointer data) {
  for (GList *l = t->owners.head; l; l = l->next)
    for (GTreeNode *n = g_tree_node_first(((LockOwner *)l->data)->ranges); n; n = g_tree_node_next(n))
      fn(g_tree_node_value(n), data);
}
