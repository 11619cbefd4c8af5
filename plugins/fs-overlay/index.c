/* SPDX-License-Identifier: Apache-2.0 */
/* Lower files with several names. Changed under one name they must stay one file: the index leads from the lower inode to its copy, and
 * counts names gained and lost over what the lower inode says. A link in the work directory keeps the copy while names are
 * left that only lower layers have. Entries live as long as the instance. */
#include "overlay.h"

OvIndex *ov_index_find(OvSuper *s, TesInode *key) {
  TES_LOCKED(&s->table_lock);
  return g_hash_table_lookup(s->index, key);
}

static guint32 lower_links(const OvInode *o, TesCtx *ctx) {
  TesAttr a;
  TesInode *low = o->lower[0].inode;
  return low->ops->getattr(low, ctx, &a) < 0 ? 1 : a.nlink;
}

OvIndex *ov_index_make(OvInode *o, TesCtx *ctx) {
  OvSuper *s = ov_super(o);
  OvIndex *ix = __atomic_load_n(&o->index, __ATOMIC_ACQUIRE);
  if (ix || S_ISDIR(o->base.mode) || !o->n_lower)
    return ix;
  tes_mutex_lock(&s->names_lock);
  gboolean several = o->aliased;
  tes_mutex_unlock(&s->names_lock);
  if (!several && lower_links(o, ctx) < 2)
    return NULL;
  TES_LOCKED(&s->table_lock);
  ix = g_hash_table_lookup(s->index, o->lower[0].inode);
  if (!ix) {
    ix = g_new0(OvIndex, 1);
    ix->lower = tes_inode_ref(o->lower[0].inode);
    ix->layer = o->lower[0].layer;
    ix->nlink_delta = g_atomic_int_get(&o->nlink_delta);
    g_hash_table_insert(s->index, ix->lower, ix);
  }
  __atomic_store_n(&o->index, ix, __ATOMIC_RELEASE);
  return ix;
}

void ov_index_set_upper(OvSuper *s, OvIndex *ix, TesInode *copy, const char *kept) {
  TES_LOCKED(&s->table_lock);
  g_strlcpy(ix->kept, kept, sizeof ix->kept);
  __atomic_store_n(&ix->upper, tes_inode_ref(copy), __ATOMIC_RELEASE);
  g_hash_table_insert(s->index, copy, ix);
}

guint32 ov_index_links(OvInode *o, TesCtx *ctx) {
  OvIndex *ix = __atomic_load_n(&o->index, __ATOMIC_ACQUIRE);
  gint delta = g_atomic_int_get(ix ? &ix->nlink_delta : &o->nlink_delta);
  return (guint32)MAX((gint)lower_links(o, ctx) + delta, 0);
}

/* The layer may use the number of a removed file again, for another one. */
static void forget_number(OvInode *o, TesCtx *ctx) {
  OvSuper *s = ov_super(o);
  TesInode *u = ov_upper(o);
  TesAttr a;
  if (!u || (!S_ISDIR(u->mode) && (u->ops->getattr(u, ctx, &a) < 0 || a.nlink > 0)))
    return;
  TES_LOCKED(&s->table_lock);
  g_hash_table_remove(s->origins, &u->ino);
}

void ov_count_link(OvInode *o, TesCtx *ctx, gint by) {
  OvIndex *ix = ov_index_make(o, ctx);
  OvSuper *s = ov_super(o);
  g_atomic_int_add(ix ? &ix->nlink_delta : &o->nlink_delta, by);
  if (by < 0 && !ix)
    forget_number(o, ctx);
  if (!ix || by > 0)
    return;
  gboolean gone = ov_index_links(o, ctx) == 0;
  tes_mutex_lock(&s->table_lock);
  g_autofree char *kept = g_strdup(ix->kept);
  if (gone)
    ix->kept[0] = '\0';
  tes_mutex_unlock(&s->table_lock);
  TesInode *again = NULL;
  if (*kept && gone) /* the last name went: open files keep what is left */
    s->work->ops->unlink(s->work, ctx, kept, ix->upper);
  if (gone)
    forget_number(o, ctx);
  else if (*kept && ov_child(s->work, ctx, kept, &again) == 0)
    tes_inode_unref(again); /* a layer that finds files by a name has learned one that is left */
}

void ov_index_clear(OvSuper *s) {
  g_autoptr(GPtrArray) all = g_ptr_array_new();
  GHashTableIter it;
  gpointer key, value;
  g_hash_table_iter_init(&it, s->index);
  while (g_hash_table_iter_next(&it, &key, &value))
    if (key == ((OvIndex *)value)->lower)
      g_ptr_array_add(all, value);
  g_clear_pointer(&s->index, g_hash_table_unref);
  for (guint k = 0; k < all->len; k++) {
    OvIndex *ix = all->pdata[k];
    tes_inode_unref(ix->lower);
    if (ix->upper)
      tes_inode_unref(ix->upper);
    g_free(ix);
  }
}
