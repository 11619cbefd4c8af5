/* SPDX-License-Identifier: Apache-2.0 */
/* One name in one directory: the cache first, then the filesystem.
 *
 * The result of a filesystem's lookup enters the cache under the directory's lock, so it cannot be overtaken by a create
 * or a removal. Directories whose names come and go by themselves (NO_CACHE) are asked every time; their dentries are
 * private to the walk unless something is mounted on them. */
#include "vfs2.h"

gboolean v2_dir_is_cached(Dentry *dir) {
  return !(dir->inode->flags & TES_INODE_NO_CACHE) && (d_flags(dir) & (D_HASHED | D_ROOT)) &&
         !(d_flags(dir) & D_ANON);
}

/* A dentry from the cache, as far as it is still right; NULL: ask. < 0 through *error. */
static Dentry *from_cache(V2 *v, TesCtx *ctx, Dentry *dir, const char *name, gsize len, int *error) {
  Dentry *d = v2_dcache_find_ref(v, dir, name, len);
  *error = 0;
  if (!d || __atomic_load_n(&d->mounted, __ATOMIC_ACQUIRE))
    return d; /* what is covered by a mount keeps its place */
  guint flags = dir->inode->flags;
  char nm[TES_NAME_MAX + 1]; /* a rename may take d->name away meanwhile */
  memcpy(nm, name, len);
  nm[len] = '\0';
  if (!(flags & (TES_INODE_NO_CACHE | TES_INODE_REVALIDATE))) {
    tes_trace_path(ctx, NULL, nm, 1);
    return d;
  }
  gboolean valid = FALSE;
  if (!(flags & TES_INODE_NO_CACHE) && TES_HAS(dir->inode->ops, revalidate)) {
    int r = dir->inode->ops->revalidate(dir->inode, ctx, nm, d_inode(d));
    tes_trace_path(ctx, dir->super->type, nm, r);
    if (r < 0)
      *error = r;
    valid = r > 0;
  }
  if (valid)
    return d;
  if (!*error)
    v2_dcache_drop(d);
  v2_dentry_unref(d);
  return NULL;
}

/* Splits what follows into names that a batch walk may take; returns how many. `text` keeps the bytes. */
#define BATCH 16
static guint split_more(const char *more, char *text, gsize room, const char **names) {
  guint n = 0;
  char *to = text;
  while (more && n < BATCH - 1) {
    while (*more == '/')
      more++;
    gsize len = strcspn(more, "/");
    if (!len || len > TES_NAME_MAX || len + 1 > room ||
        (more[0] == '.' && (len == 1 || (len == 2 && more[1] == '.'))))
      break;
    memcpy(to, more, len);
    to[len] = '\0';
    names[n++] = to;
    to += len + 1;
    room -= len + 1;
    more += len;
  }
  return n;
}

/* Puts the result of a batch into the cache; returns the first (full). */
static Dentry *add_batch(V2 *v, Dentry *dir, const char *const *names, TesInode **inodes, guint n) {
  Dentry *d[BATCH], *parent = dir;
  guint k = 0;
  for (; k < n; k++) {
    if (k && (!S_ISDIR(parent->inode->mode) || (parent->inode->flags & TES_INODE_NO_CACHE)))
      break;
    d[k] = v2_dentry_new(v, dir->super, parent, names[k], strlen(names[k]), inodes[k]);
    parent = d[k];
  }
  for (guint i = k; i < n; i++)
    tes_inode_unref(inodes[i]);
  v2_dcache_add_chain(d, k);
  for (guint i = 1; i < k; i++)
    v2_dentry_unref(d[i]);
  return d[0];
}

static int ask_batch(V2 *v, TesCtx *ctx, Dentry *dir, const char *nm, const char *more, Dentry **out) {
  const char *names[BATCH + 1] = {nm};
  TesInode *inodes[BATCH];
  char text[1024];
  guint n = 1 + split_more(more, text, sizeof text, names + 1);
  int r = dir->inode->ops->walk(dir->inode, ctx, names, n, inodes);
  if (G_UNLIKELY(v->tracing)) {
    names[n] = NULL;
    g_autofree char *all = g_strjoinv("/", (char **)names);
    tes_trace_path(ctx, dir->super->type, all, r);
  }
  if (r < 0)
    return r;
  *out = add_batch(v, dir, names, inodes, (guint)r);
  return 0;
}

/* Asks the filesystem. Cached directories: their lock is held. */
static int ask(V2 *v, TesCtx *ctx, Dentry *dir, const char *name, gsize len, const char *more, Dentry **out) {
  TesInode *di = dir->inode, *inode = NULL;
  gboolean cached = v2_dir_is_cached(dir);
  char nm[TES_NAME_MAX + 1];
  memcpy(nm, name, len);
  nm[len] = '\0';
  if (d_flags(dir) & D_DEAD)
    return -ENOENT;
  int r = -ENOENT;
  if (cached && more && TES_HAS(di->ops, walk)) {
    r = ask_batch(v, ctx, dir, nm, more, out);
    if (r != -ENOENT)
      return r;
  } else if (TES_HAS(di->ops, lookup)) {
    r = di->ops->lookup(di, ctx, nm, &inode);
    tes_trace_path(ctx, dir->super->type, nm, r < 0 ? r : 1);
  }
  if (r < 0 && r != -ENOENT)
    return r;
  *out = v2_dentry_new(v, dir->super, dir, nm, len, inode);
  if (cached)
    v2_dcache_add(*out);
  return 0;
}

int v2_lookup_locked(V2 *v, TesCtx *ctx, Dentry *dir, const char *name, gsize len, Dentry **out) {
  int error;
  *out = from_cache(v, ctx, dir, name, len, &error);
  if (*out || error)
    return error;
  return ask(v, ctx, dir, name, len, NULL, out);
}

int v2_lookup(V2 *v, TesCtx *ctx, Dentry *dir, const char *name, gsize len, const char *more, Dentry **out) {
  int error;
  *out = from_cache(v, ctx, dir, name, len, &error);
  if (*out || error)
    return error;
  if (!v2_dir_is_cached(dir))
    return ask(v, ctx, dir, name, len, NULL, out);
  if (!tes_task_lock(&dir->lock))
    return -EINTR;
  *out = v2_dcache_find_ref(v, dir, name, len);
  int r = *out ? 0 : ask(v, ctx, dir, name, len, more, out);
  tes_mutex_unlock(&dir->lock);
  return r;
}

void v2_instantiate(Dentry *d, TesInode *inode) {
  g_assert(!d->inode);
  STORE(d->inode, inode);
}
