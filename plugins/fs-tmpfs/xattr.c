/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of tmpfs nodes: a table of name -> value. The system call layer checks namespaces and sizes. */
#include "tmpfs.h"
#include <sys/xattr.h>

#define MAX_XATTR_BYTES (64UL << 10) /* of names and values of one node: a guest's metadata stays bounded */

static gsize total_bytes(GHashTable *t) {
  GHashTableIter it;
  gpointer name, value;
  gsize n = 0;
  g_hash_table_iter_init(&it, t);
  while (g_hash_table_iter_next(&it, &name, &value))
    n += strlen(name) + g_bytes_get_size(value);
  return n;
}

gssize tmpfs_getxattr(TesInode *i, TesCtx *ctx, const char *name, void *value, gsize size) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  GBytes *b = n->xattrs ? g_hash_table_lookup(n->xattrs, name) : NULL;
  if (!b)
    return -ENODATA;
  gsize len;
  const void *data = g_bytes_get_data(b, &len);
  if (size == 0)
    return len;
  if (len > size)
    return -ERANGE;
  if (len)
    memcpy(value, data, len);
  return len;
}

int tmpfs_setxattr(TesInode *i, TesCtx *ctx, const char *name, const void *value, gsize size, int flags) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  gboolean exists = n->xattrs && g_hash_table_contains(n->xattrs, name);
  if ((flags & XATTR_CREATE) && exists)
    return -EEXIST;
  if ((flags & XATTR_REPLACE) && !exists)
    return -ENODATA;
  if (!n->xattrs)
    n->xattrs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
  if (total_bytes(n->xattrs) + strlen(name) + size > MAX_XATTR_BYTES)
    return -ENOSPC;
  g_hash_table_replace(n->xattrs, g_strdup(name), g_bytes_new(value, size));
  node_now(n, &n->ctime);
  return 0;
}

int tmpfs_removexattr(TesInode *i, TesCtx *ctx, const char *name) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  if (!n->xattrs || !g_hash_table_remove(n->xattrs, name))
    return -ENODATA;
  node_now(n, &n->ctime);
  return 0;
}

gssize tmpfs_listxattr(TesInode *i, TesCtx *ctx, char *list, gsize size) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  gsize used = 0;
  GHashTableIter it;
  gpointer name;
  if (n->xattrs) {
    g_hash_table_iter_init(&it, n->xattrs);
    while (g_hash_table_iter_next(&it, &name, NULL)) {
      gsize len = strlen(name) + 1;
      if (size && used + len > size)
        return -ERANGE;
      if (size)
        memcpy(list + used, name, len);
      used += len;
    }
  }
  return used;
}
