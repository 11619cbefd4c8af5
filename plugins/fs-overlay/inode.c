/* SPDX-License-Identifier: Apache-2.0 */
/* Overlay inodes: finding them, what they stand on, attributes and symbolic links. */
#include "overlay.h"

static const TesLockClass copy_class = {"overlay copy-up", TES_RANK_DENTRY + 4, FALSE,
                                        "one inode while it is copied up"};
static const TesLockClass dir_class = {
    "overlay directory", TES_RANK_DENTRY + 5, TRUE,
    "entries of a directory; ancestors first, an overlay before its layers"};

/* ---- The inode ---- */

static void put32(guint32 *to, guint32 value) {
  if (__atomic_load_n(to, __ATOMIC_RELAXED) != value)
    __atomic_store_n(to, value, __ATOMIC_RELAXED);
}

void ov_sync(OvInode *o) {
  TesInode *r = ov_real(o);
  put32(&o->base.mode, r->mode);
  put32(&o->base.uid, r->uid);
  put32(&o->base.gid, r->gid);
  tes_inode_mirror_acl(&o->base, r);
  for (guint k = 0; k < o->n_lower && S_ISDIR(r->mode); k++)
    if (o->lower[k].inode->flags & TES_INODE_REVALIDATE)
      __atomic_fetch_or(&o->base.flags, TES_INODE_REVALIDATE, __ATOMIC_SEQ_CST);
}

void ov_changed(OvInode *dir) {
  dir->version++;
  g_clear_pointer(&dir->cache, ov_snapshot_unref);
}

void ov_place(OvInode *o, OvInode **parent, char **name) {
  TES_LOCKED(&ov_super(o)->names_lock);
  *parent = o->parent && !o->removed ? ov_inode(tes_inode_ref(&o->parent->base)) : NULL;
  *name = *parent ? g_strdup(o->name) : NULL;
}

void ov_set_place(OvInode *o, OvInode *parent, const char *name) {
  OvSuper *s = ov_super(o);
  OvInode *old = NULL;
  tes_mutex_lock(&s->names_lock);
  if (o->parent != parent || g_strcmp0(o->name, name) != 0 || o->removed) {
    if (o->parent && !o->removed && o->parent != parent)
      o->aliased = TRUE;
    old = o->parent;
    o->parent = ov_inode(tes_inode_ref(&parent->base));
    g_free(o->name);
    o->name = g_strdup(name);
    o->removed = FALSE;
  }
  tes_mutex_unlock(&s->names_lock);
  if (old)
    tes_inode_unref(&old->base);
}

void ov_set_removed(OvInode *o) {
  TES_LOCKED(&ov_super(o)->names_lock);
  o->removed = TRUE;
}

static const TesInodeOps *ops_for(guint32 mode) {
  switch (mode & S_IFMT) {
  case S_IFDIR:
    return &ov_dir_ops;
  case S_IFREG:
    return &ov_file_ops;
  case S_IFLNK:
    return &ov_link_ops;
  default:
    return &ov_special_ops;
  }
}

guint64 ov_known_ino(OvSuper *s, TesCtx *ctx, TesInode *upper) {
  guint64 known = ov_origin(s, upper->ino);
  if (known || s->memory || (!S_ISREG(upper->mode) && !S_ISDIR(upper->mode)))
    return known;
  g_autofree char *text = ov_own_get(s, upper, ctx, "ino");
  return text ? g_ascii_strtoull(text, NULL, 16) : 0;
}

static guint64 number(OvSuper *s, TesCtx *ctx, TesInode *upper, const OvLower *lower, guint n_lower) {
  TesInode *r = n_lower ? lower[0].inode : upper;
  guint64 known = n_lower ? 0 : ov_known_ino(s, ctx, upper);
  if (known)
    return known;
  TesAttr a;
  if (!TES_HAS(r->ops, getattr) || r->ops->getattr(r, ctx, &a) < 0)
    a = (TesAttr){.dev = r->super->dev, .ino = r->ino};
  return ov_ino(s, a.dev, a.ino);
}

static void drop_layers(TesInode *upper, OvLower *lower, guint n) {
  if (upper)
    tes_inode_unref(upper);
  for (guint k = 0; k < n; k++)
    tes_inode_unref(lower[k].inode);
}

/* A directory found again must be at the same place: a host directory that is mounted twice is two directories here. */
static gboolean same_place(OvInode *o, OvInode *dir, const char *name) {
  if (!S_ISDIR(o->base.mode) || !dir)
    return TRUE;
  TES_LOCKED(&ov_super(o)->names_lock);
  return o->parent == dir && !o->removed && g_strcmp0(o->name, name) == 0;
}

static OvInode *find(OvSuper *s, TesInode *key) {
  TES_LOCKED(&s->table_lock);
  OvInode *o = g_hash_table_lookup(s->inodes, key);
  return o && tes_inode_try_ref(&o->base) ? o : NULL;
}

/* Enters a fresh inode, or returns the one that another thread entered meanwhile, referenced. */
static OvInode *enter(OvSuper *s, TesInode *key, OvInode *fresh) {
  TES_LOCKED(&s->table_lock);
  OvInode *o = g_hash_table_lookup(s->inodes, key);
  if (o && tes_inode_try_ref(&o->base))
    return o;
  g_hash_table_replace(s->inodes, key, fresh);
  return fresh;
}

void ov_inode_enter_upper(OvInode *o) {
  TES_LOCKED(&ov_super(o)->table_lock);
  g_hash_table_replace(ov_super(o)->inodes, o->upper, o);
}

void ov_watch_upper(OvSuper *s, TesInode *upper) {
  if (S_ISDIR(upper->mode) && !s->private_upper)
    __atomic_fetch_or(&upper->flags, TES_INODE_REVALIDATE, __ATOMIC_SEQ_CST);
}

static OvInode *inode_new(OvSuper *s, TesCtx *ctx, OvInode *dir, const char *name, TesInode *upper,
                          OvLower *lower, guint n_lower) {
  OvInode *o = g_new0(OvInode, 1);
  TesInode *r = upper ? upper : lower[0].inode;
  tes_inode_init(&o->base, &s->base, ops_for(r->mode), r->mode, number(s, ctx, upper, lower, n_lower));
  o->base.rdev = r->rdev;
  o->upper = upper;
  o->lower = g_memdup2(lower, n_lower * sizeof *lower);
  o->n_lower = n_lower;
  if (upper)
    ov_watch_upper(s, upper);
  tes_mutex_init(&o->copy, &copy_class);
  tes_mutex_init(&o->lock, &dir_class);
  if (dir) {
    o->parent = ov_inode(tes_inode_ref(&dir->base));
    o->name = g_strdup(name);
  }
  if (S_ISDIR(r->mode) && upper && n_lower)
    o->redirect = ov_own_get(s, upper, ctx, "redirect");
  ov_sync(o);
  return o;
}

int ov_inode_get(OvSuper *s, TesCtx *ctx, OvInode *dir, const char *name, TesInode *upper, OvLower *lower,
                 guint n_lower, TesInode **out) {
  OvLower one;
  OvIndex *ix = NULL;
  gboolean is_dir = S_ISDIR((upper ? upper : lower[0].inode)->mode);
  if (!is_dir && (ix = ov_index_find(s, upper ? upper : lower[0].inode)) &&
      __atomic_load_n(&ix->upper, __ATOMIC_ACQUIRE)) {
    drop_layers(upper, lower, n_lower);
    upper = tes_inode_ref(ix->upper);
    one = (OvLower){tes_inode_ref(ix->lower), ix->layer};
    lower = &one;
    n_lower = 1;
  }
  TesInode *key = upper ? upper : lower[0].inode;
  OvInode *o = find(s, key);
  if (!o || !same_place(o, dir, name)) {
    OvInode *fresh = inode_new(s, ctx, dir, name, upper, lower, n_lower);
    fresh->index = ix;
    gboolean alias = o != NULL;
    if (o)
      tes_inode_unref(&o->base);
    o = alias ? fresh : enter(s, key, fresh);
    if (o == fresh) {
      *out = &o->base;
      return 0;
    }
    tes_inode_unref(&fresh->base);
  } else {
    drop_layers(upper, lower, n_lower);
  }
  if (!is_dir && dir)
    ov_set_place(o, dir, name);
  ov_sync(o);
  *out = &o->base;
  return 0;
}

/* A chain of parents is released in a loop, however deep the tree is. */
static void release_parent(OvInode *parent) {
  static __thread GSList *waiting;
  static __thread gboolean draining;
  waiting = g_slist_prepend(waiting, parent);
  if (draining)
    return;
  draining = TRUE;
  while (waiting) {
    OvInode *p = waiting->data;
    waiting = g_slist_delete_link(waiting, waiting);
    tes_inode_unref(&p->base);
  }
  draining = FALSE;
}

static void ov_free(TesInode *base) {
  OvInode *o = ov_inode(base), *parent = o->parent;
  OvSuper *s = ov_super(o);
  TesInode *keys[2] = {o->upper, o->n_lower ? o->lower[0].inode : NULL};
  tes_mutex_lock(&s->table_lock);
  for (int k = 0; k < 2; k++)
    if (keys[k] && g_hash_table_lookup(s->inodes, keys[k]) == o)
      g_hash_table_remove(s->inodes, keys[k]);
  tes_mutex_unlock(&s->table_lock);
  drop_layers(o->upper, o->lower, o->n_lower);
  ov_snapshot_unref(o->cache);
  tes_mutex_clear(&o->copy);
  tes_mutex_clear(&o->lock);
  g_free(o->lower);
  g_free(o->redirect);
  g_free(o->name);
  g_free(o);
  if (parent)
    release_parent(parent);
}

/* ---- Lookup ---- */

int ov_child(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  *out = NULL;
  return TES_HAS(dir->ops, lookup) ? dir->ops->lookup(dir, ctx, name, out) : -ENOENT;
}

/* An absolute path below the root of a layer: what a redirect names. */
static int walk_layer(TesInode *root, TesCtx *ctx, const char *path, TesInode **out) {
  g_auto(GStrv) parts = g_strsplit(path, "/", -1);
  TesInode *at = tes_inode_ref(root);
  int r = 0;
  for (char **p = parts; *p && r == 0; p++) {
    TesInode *next = NULL;
    if (!**p)
      continue;
    r = strlen(*p) > TES_NAME_MAX || !S_ISDIR(at->mode) ? -ENOENT : ov_child(at, ctx, *p, &next);
    tes_inode_unref(at);
    at = next;
  }
  *out = at;
  return r;
}

typedef struct {
  OvSuper *s;
  TesCtx *ctx;
  gboolean have_dir; /* an upper directory, or a lower one already */
  GArray *found;     /* OvLower */
} Gather;

/* One more layer's answer (consumed). TRUE: go on with the layers below. */
static gboolean gather(Gather *g, TesInode *i, guint layer, char **redirect) {
  gboolean take = !ov_is_whiteout(i) && (S_ISDIR(i->mode) || !g->have_dir);
  if (!take) {
    tes_inode_unref(i);
    return FALSE;
  }
  OvLower l = {i, layer};
  g_array_append_val(g->found, l);
  if (!S_ISDIR(i->mode))
    return FALSE;
  g->have_dir = TRUE;
  if (layer + 1 == g->s->n_lower)
    return FALSE;
  g_autofree char *opaque = ov_own_get(g->s, i, g->ctx, "opaque");
  char *to = g->s->redirect ? ov_own_get(g->s, i, g->ctx, "redirect") : NULL;
  if (to) {
    g_free(*redirect);
    *redirect = to;
  }
  return !(opaque && *opaque == 'y');
}

/* What the lower layers have under a name of `dir`, or at the path that a redirect gives. */
static int gather_all(Gather *g, OvInode *dir, const char *name, char **redirect) {
  guint n = *redirect && **redirect == '/' ? g->s->n_lower : dir->n_lower;
  for (guint k = 0; k < n; k++) {
    gboolean absolute = *redirect && **redirect == '/';
    if (absolute && n != g->s->n_lower) { /* found on the way: go on in the layers below this one */
      k = dir->lower[k - 1].layer + 1;
      n = g->s->n_lower;
      if (k >= n)
        break;
    }
    TesInode *i;
    guint layer = absolute ? k : dir->lower[k].layer;
    int r = absolute ? walk_layer(g->s->lower[k], g->ctx, *redirect, &i)
                     : ov_child(dir->lower[k].inode, g->ctx, *redirect ? *redirect : name, &i);
    if (r < 0 && r != -ENOENT && r != -ENOTDIR)
      return r;
    if (r == 0 && !gather(g, i, layer, redirect))
      break;
  }
  return 0;
}

gboolean ov_lower_has(OvInode *dir, TesCtx *ctx, const char *name) {
  for (guint k = 0; k < dir->n_lower; k++) {
    TesInode *i;
    if (ov_child(dir->lower[k].inode, ctx, name, &i) < 0)
      continue;
    gboolean whiteout = ov_is_whiteout(i);
    tes_inode_unref(i);
    return !whiteout;
  }
  return FALSE;
}

static int lookup_upper(OvInode *dir, TesCtx *ctx, const char *name, TesInode **out, gboolean *final) {
  TesInode *du = ov_upper(dir);
  *final = FALSE;
  *out = NULL;
  int r = du ? ov_child(du, ctx, name, out) : -ENOENT;
  if (r < 0)
    return r == -ENOENT ? 0 : r;
  if (ov_is_whiteout(*out)) {
    tes_inode_unref(*out);
    return -ENOENT;
  }
  *final = !S_ISDIR((*out)->mode);
  return 0;
}

static int ov_lookup(TesInode *base, TesCtx *ctx, const char *name, TesInode **out) {
  OvInode *dir = ov_inode(base);
  OvSuper *s = ov_super(dir);
  TesInode *upper;
  gboolean final;
  g_autofree char *redirect = NULL;
  TES_LOCKED(&dir->lock);
  int r = lookup_upper(dir, ctx, name, &upper, &final);
  if (r < 0)
    return r;
  if (upper && !final) {
    g_autofree char *opaque = ov_own_get(s, upper, ctx, "opaque");
    final = opaque && *opaque == 'y';
    redirect = s->redirect && !final ? ov_own_get(s, upper, ctx, "redirect") : NULL;
  }
  g_autoptr(GArray) found = g_array_new(FALSE, FALSE, sizeof(OvLower));
  Gather g = {s, ctx, upper != NULL, found};
  if (!final)
    r = gather_all(&g, dir, name, &redirect);
  if (r < 0 || (!upper && !found->len)) {
    drop_layers(upper, (OvLower *)(void *)found->data, found->len);
    return r < 0 ? r : -ENOENT;
  }
  return ov_inode_get(s, ctx, dir, name, upper, (OvLower *)(void *)found->data, found->len, out);
}

static int ov_walk(TesInode *base, TesCtx *ctx, const char *const *names, guint n, TesInode **out) {
  TesInode *dir = base;
  for (guint k = 0; k < n; k++) {
    int r = ov_lookup(dir, ctx, names[k], &out[k]);
    if (r < 0)
      return k ? (int)k : r;
    dir = out[k];
    if (!S_ISDIR(dir->mode))
      return (int)k + 1;
  }
  return (int)n;
}

static int ov_revalidate(TesInode *base, TesCtx *ctx, const char *name, TesInode *child) {
  TesInode *now = NULL;
  int r = ov_lookup(base, ctx, name, &now);
  if (r == -ENOENT || r == -ESTALE)
    return child == NULL;
  if (r < 0)
    return r;
  tes_inode_unref(now);
  return now == child;
}

/* ---- Attributes ---- */

gboolean ov_is_removed(OvInode *o) {
  TES_LOCKED(&ov_super(o)->names_lock);
  return o->removed;
}

static void fix_nlink(OvInode *o, TesCtx *ctx, TesAttr *a) {
  if (S_ISDIR(a->mode)) {
    if (ov_is_removed(o))
      a->nlink = 0;
    else if (o->n_lower && (ov_upper(o) || o->n_lower > 1))
      a->nlink = 1; /* merged: nobody counts the subdirectories */
    return;
  }
  if (o->n_lower)
    a->nlink = ov_index_links(o, ctx);
}

int ov_getattr(TesInode *base, TesCtx *ctx, TesAttr *a) {
  OvInode *o = ov_inode(base);
  TesInode *r = ov_real(o);
  int e = TES_HAS(r->ops, getattr) ? r->ops->getattr(r, ctx, a) : -EIO;
  if (e < 0)
    return e;
  ov_sync(o);
  a->ino = base->ino;
  a->dev = base->super->dev;
  fix_nlink(o, ctx, a);
  return 0;
}

static int ov_setattr(TesInode *base, TesCtx *ctx, const TesSetAttr *set) {
  OvInode *o = ov_inode(base);
  int r = ov_copy_up(o, ctx, (set->valid & TES_SET_SIZE) ? MAX(set->size, 0) : -1);
  if (r < 0)
    return r;
  TesInode *u = o->upper;
  r = TES_HAS(u->ops, setattr) ? u->ops->setattr(u, ctx, set) : -EPERM;
  ov_sync(o);
  return r;
}

static int ov_readlink(TesInode *base, TesCtx *ctx, char **out) {
  TesInode *r = ov_real(ov_inode(base));
  return TES_HAS(r->ops, readlink) ? r->ops->readlink(r, ctx, out) : -EINVAL;
}

static int ov_open(TesInode *base, TesCtx *ctx, guint flags, TesFile **out) {
  OvInode *o = ov_inode(base);
  return S_ISDIR(base->mode) ? ov_dir_open(o, ctx, flags, out) : ov_file_open(o, ctx, flags, out);
}

#define COMMON                                                                                        \
  .size = sizeof(TesInodeOps), .getattr = ov_getattr, .setattr = ov_setattr, .getxattr = ov_getxattr, \
  .setxattr = ov_setxattr, .removexattr = ov_removexattr, .listxattr = ov_listxattr, .free = ov_free

const TesInodeOps ov_dir_ops = {COMMON,
                                .lookup = ov_lookup,
                                .walk = ov_walk,
                                .revalidate = ov_revalidate,
                                .open = ov_open,
                                .create = ov_create,
                                .mkdir = ov_mkdir,
                                .mknod = ov_mknod,
                                .symlink = ov_symlink,
                                .link = ov_link,
                                .unlink = ov_unlink,
                                .rmdir = ov_rmdir,
                                .rename = ov_rename,
                                .tmpfile = ov_tmpfile};
const TesInodeOps ov_file_ops = {COMMON, .open = ov_open};
const TesInodeOps ov_link_ops = {COMMON, .readlink = ov_readlink};
/* Devices have no driver here, FIFOs and sockets are the core's. */
const TesInodeOps ov_special_ops = {COMMON};
