/* SPDX-License-Identifier: Apache-2.0 */
/* tmpfs inodes: directories, links, metadata. The VFS serialises changes of one directory and has checked permissions;
 * the node lock only protects against lookups and attribute changes going on at the same time. */
#include "tmpfs.h"

static const TesLockClass node_class = {"tmpfs inode", TES_RANK_INODE, TRUE,
                                        "attributes and directory entries"};
#define DIRENT_SIZE 20 /* what a name adds to st_size of its directory */

void node_now(const Node *n, struct timespec *ts) {
  TesTime t = tes_time_realtime(n->inode.super->kernel);
  *ts = (struct timespec){t / TES_NSEC, t % TES_NSEC};
}

static void entry_free(gpointer p) {
  Entry *e = p;
  tes_inode_unref(&e->node->inode);
  g_free(e->name);
  g_free(e);
}

static int by_cookie(gconstpointer a, gconstpointer b, gpointer data) {
  (void)data;
  guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;
  return x < y ? -1 : x > y;
}

static gboolean take_inode(Tmpfs *fs, guint64 *ino) {
  TES_LOCKED(&fs->lock);
  if (fs->max_inodes && fs->inodes >= fs->max_inodes)
    return FALSE;
  fs->inodes++;
  *ino = ++fs->next_ino;
  return TRUE;
}

Node *node_new(Tmpfs *fs, TesCtx *ctx, Node *dir, guint32 mode, int *err) {
  guint64 ino;
  if (!take_inode(fs, &ino)) {
    *err = -ENOSPC;
    return NULL;
  }
  Node *n = g_new0(Node, 1);
  guint32 uid = 0, gid = 0;
  if (dir)
    tes_inode_new_owner(&dir->inode, ctx, &mode, &uid, &gid);
  tes_inode_init(&n->inode, &fs->super, &tmpfs_inode_ops, mode, ino);
  n->inode.uid = uid;
  n->inode.gid = gid;
  tes_mutex_init(&n->lock, &node_class);
  node_now(n, &n->btime);
  n->atime = n->mtime = n->ctime = n->btime;
  n->nlink = S_ISDIR(mode) ? 2 : 1;
  if (S_ISDIR(mode)) {
    n->names = g_hash_table_new(g_str_hash, g_str_equal);
    n->order = g_tree_new_full(by_cookie, NULL, NULL, entry_free);
    n->next_cookie = 2; /* after "." and ".." */
    n->parent = dir ? dir : n;
  } else if (S_ISREG(mode)) {
    data_init(n);
  }
  return n;
}

static void node_free(TesInode *i) {
  Node *n = node_of(i);
  Tmpfs *fs = tmpfs_of(n);
  if (n->order) {
    g_hash_table_unref(n->names);
    g_tree_unref(n->order);
  }
  if (n->chunks)
    data_clear(n);
  if (n->xattrs)
    g_hash_table_unref(n->xattrs);
  g_free(n->target);
  tes_mutex_clear(&n->lock);
  tes_mutex_lock(&fs->lock);
  fs->inodes--;
  tes_mutex_unlock(&fs->lock);
  g_free(n);
}

/* ---- Directory entries; node lock of the directory held ---- */

static void touch_dir(Node *dir) {
  node_now(dir, &dir->mtime);
  dir->ctime = dir->mtime;
}

static void entry_add(Node *dir, const char *name, Node *child /* reference taken */) {
  Entry *e = g_new(Entry, 1);
  *e = (Entry){dir->next_cookie++, g_strdup(name), child};
  tes_inode_ref(&child->inode);
  g_hash_table_insert(dir->names, e->name, e);
  g_tree_insert(dir->order, &e->cookie, e);
  touch_dir(dir);
}

static void entry_remove(Node *dir, const char *name) {
  Entry *e = g_hash_table_lookup(dir->names, name);
  if (!e)
    return;
  guint64 cookie = e->cookie;
  g_hash_table_remove(dir->names, name);
  g_tree_remove(dir->order, &cookie);
  touch_dir(dir);
}

static int tmpfs_lookup(TesInode *i, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  Node *dir = node_of(i);
  TES_LOCKED(&dir->lock);
  Entry *e = g_hash_table_lookup(dir->names, name);
  if (!e)
    return -ENOENT;
  *out = tes_inode_ref(&e->node->inode);
  return 0;
}

/* A new node under a name, handed back with a reference. A removed directory takes no names. */
static int add_new(TesInode *i, TesCtx *ctx, const char *name, guint32 mode, guint64 rdev, const char *target,
                   TesInode **out) {
  Node *dir = node_of(i);
  int err = 0;
  Node *n = node_new(tmpfs_of(dir), ctx, dir, mode, &err);
  if (!n)
    return err;
  n->inode.rdev = rdev;
  n->target = g_strdup(target);
  tes_mutex_lock(&dir->lock);
  if (dir->nlink == 0)
    err = -ENOENT;
  else if (g_hash_table_contains(dir->names, name))
    err = -EEXIST;
  else
    entry_add(dir, name, n);
  if (err == 0 && S_ISDIR(mode))
    dir->nlink++;
  tes_mutex_unlock(&dir->lock);
  if (err < 0)
    tes_inode_unref(&n->inode);
  else
    *out = &n->inode;
  return err;
}

static int tmpfs_create(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  return add_new(dir, ctx, name, S_IFREG | (mode & 07777), 0, NULL, out);
}
static int tmpfs_mkdir(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  return add_new(dir, ctx, name, S_IFDIR | (mode & 07777), 0, NULL, out);
}
static int tmpfs_mknod(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, guint64 rdev,
                       TesInode **out) {
  return add_new(dir, ctx, name, mode, rdev, NULL, out);
}
static int tmpfs_symlink(TesInode *dir, TesCtx *ctx, const char *name, const char *target, TesInode **out) {
  return add_new(dir, ctx, name, S_IFLNK | 0777, 0, target, out);
}

static int tmpfs_tmpfile(TesInode *dir, TesCtx *ctx, guint32 mode, TesInode **out) {
  int err = 0;
  Node *n = node_new(tmpfs_of(node_of(dir)), ctx, node_of(dir), S_IFREG | (mode & 07777), &err);
  if (!n)
    return err;
  n->nlink = 0;
  *out = &n->inode;
  return 0;
}

static void change_nlink(Node *n, int by) {
  TES_LOCKED(&n->lock);
  n->nlink += by;
  node_now(n, &n->ctime);
}

static int tmpfs_link(TesInode *i, TesCtx *ctx, const char *name, TesInode *target) {
  (void)ctx;
  Node *dir = node_of(i);
  tes_mutex_lock(&dir->lock);
  int err = dir->nlink == 0 ? -ENOENT : g_hash_table_contains(dir->names, name) ? -EEXIST : 0;
  if (err == 0)
    entry_add(dir, name, node_of(target));
  tes_mutex_unlock(&dir->lock);
  if (err == 0)
    change_nlink(node_of(target), 1);
  return err;
}

static int tmpfs_unlink(TesInode *i, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)ctx;
  Node *dir = node_of(i);
  change_nlink(node_of(victim), -1);
  TES_LOCKED(&dir->lock);
  entry_remove(dir, name);
  return 0;
}

static int tmpfs_rmdir(TesInode *i, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)ctx;
  Node *dir = node_of(i), *v = node_of(victim);
  tes_mutex_lock(&v->lock);
  gboolean empty = g_hash_table_size(v->names) == 0;
  if (empty)
    v->nlink = 0;
  tes_mutex_unlock(&v->lock);
  if (!empty)
    return -ENOTEMPTY;
  TES_LOCKED(&dir->lock);
  dir->nlink--;
  entry_remove(dir, name);
  return 0;
}

static gboolean is_dir(const Node *n) { return S_ISDIR(n->inode.mode); }

static int check_rename_target(Node *target, guint flags) {
  if (!target || (flags & RENAME_EXCHANGE) || !is_dir(target))
    return 0;
  TES_LOCKED(&target->lock);
  return g_hash_table_size(target->names) ? -ENOTEMPTY : 0;
}

/* Moves a directory's ".." and the link it holds on its parent. */
static void reparent(Node *child, Node *from, Node *to) {
  if (!is_dir(child) || from == to)
    return;
  child->parent = to;
  change_nlink(from, -1);
  change_nlink(to, 1);
}

static void replace_entry(Node *dir, const char *name, Node *with) {
  TES_LOCKED(&dir->lock);
  entry_remove(dir, name);
  if (with)
    entry_add(dir, name, with);
}

static int tmpfs_rename(TesInode *odir, const char *oname, TesInode *ndir, const char *nname,
                        TesInode *source, TesInode *target, TesCtx *ctx, guint flags) {
  (void)ctx;
  Node *from = node_of(odir), *to = node_of(ndir), *s = node_of(source), *t = target ? node_of(target) : NULL;
  int err = check_rename_target(t, flags);
  if (err < 0)
    return err;
  tes_inode_ref(source); /* survives the removal of its old name */
  if (flags & RENAME_EXCHANGE) {
    tes_inode_ref(target);
    replace_entry(from, oname, t);
    replace_entry(to, nname, s);
    reparent(s, from, to);
    reparent(t, to, from);
    tes_inode_unref(target);
  } else {
    if (t && is_dir(t)) {
      change_nlink(t, -(int)t->nlink);
      change_nlink(to, -1);
    } else if (t) {
      change_nlink(t, -1);
    }
    replace_entry(from, oname, NULL);
    replace_entry(to, nname, s);
    reparent(s, from, to);
  }
  change_nlink(s, 0);
  tes_inode_unref(source);
  return 0;
}

static int tmpfs_readlink(TesInode *i, TesCtx *ctx, char **out) {
  (void)ctx;
  *out = g_strdup(node_of(i)->target);
  return 0;
}

/* ---- Attributes ---- */

static int tmpfs_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  *a = (TesAttr){.mode = i->mode,
                 .nlink = n->nlink,
                 .uid = i->uid,
                 .gid = i->gid,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .rdev = i->rdev,
                 .blksize = TES_PAGE_SIZE,
                 .atime = n->atime,
                 .mtime = n->mtime,
                 .ctime = n->ctime,
                 .btime = n->btime};
  if (n->names)
    a->size = (g_hash_table_size(n->names) + 2) * DIRENT_SIZE;
  else if (n->target)
    a->size = strlen(n->target);
  else
    a->size = n->size;
  a->blocks = n->n_pages * (TES_PAGE_SIZE / 512);
  return 0;
}

static void set_time(const Node *n, struct timespec *slot, const struct timespec *ts) {
  if (ts->tv_nsec == UTIME_NOW)
    node_now(n, slot);
  else
    *slot = *ts;
}

static int tmpfs_setattr(TesInode *i, TesCtx *ctx, const TesSetAttr *s) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  if (s->valid & TES_SET_SIZE) {
    int r = n->chunks ? data_truncate(n, s->size) : -EINVAL;
    if (r < 0)
      return r;
    node_now(n, &n->mtime);
  }
  if (s->valid & TES_SET_MODE)
    i->mode = (i->mode & S_IFMT) | (s->mode & 07777);
  if (s->valid & TES_SET_UID)
    i->uid = s->uid;
  if (s->valid & TES_SET_GID)
    i->gid = s->gid;
  if (s->valid & TES_SET_ATIME)
    set_time(n, &n->atime, &s->atime);
  if (s->valid & TES_SET_MTIME)
    set_time(n, &n->mtime, &s->mtime);
  if (s->valid & TES_SET_CTIME)
    set_time(n, &n->ctime, &s->ctime);
  else
    node_now(n, &n->ctime);
  return 0;
}

/* ---- Reading directories ---- */

static void dir_release(TesFile *f) { g_free(f); }

static int dir_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  Node *dir = node_of(f->inode);
  TES_LOCKED(&dir->lock);
  if (*pos == 0) {
    if (!fill(data, ".", 1, dir->inode.ino, DT_DIR, 1))
      return 0;
    *pos = 1;
  }
  if (*pos == 1) {
    if (!fill(data, "..", 2, dir->parent->inode.ino, DT_DIR, 2))
      return 0;
    *pos = 2;
  }
  guint64 from = *pos;
  for (GTreeNode *t = g_tree_lower_bound(dir->order, &from); t; t = g_tree_node_next(t)) {
    Entry *e = g_tree_node_value(t);
    if (!fill(data, e->name, strlen(e->name), e->node->inode.ino, IFTODT(e->node->inode.mode), e->cookie + 1))
      return 0;
    *pos = e->cookie + 1;
  }
  return 0;
}

const TesFileOps tmpfs_dir_ops = {.size = sizeof(TesFileOps),
                                  .name = "tmpfs-dir",
                                  .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                  .readdir = dir_readdir,
                                  .release = dir_release};

static int tmpfs_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  if (S_ISREG(i->mode))
    return data_open(node_of(i), ctx, flags, out);
  if (!S_ISDIR(i->mode))
    return -ENXIO;
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, i->super->kernel, &tmpfs_dir_ops, flags);
  *out = f;
  return 0;
}

const TesInodeOps tmpfs_inode_ops = {
    .size = sizeof(TesInodeOps),
    .lookup = tmpfs_lookup,
    .create = tmpfs_create,
    .mkdir = tmpfs_mkdir,
    .mknod = tmpfs_mknod,
    .symlink = tmpfs_symlink,
    .link = tmpfs_link,
    .unlink = tmpfs_unlink,
    .rmdir = tmpfs_rmdir,
    .rename = tmpfs_rename,
    .tmpfile = tmpfs_tmpfile,
    .readlink = tmpfs_readlink,
    .getattr = tmpfs_getattr,
    .setattr = tmpfs_setattr,
    .open = tmpfs_open,
    .getxattr = tmpfs_getxattr,
    .setxattr = tmpfs_setxattr,
    .removexattr = tmpfs_removexattr,
    .listxattr = tmpfs_listxattr,
    .free = node_free,
};
