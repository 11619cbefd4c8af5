/* SPDX-License-Identifier: Apache-2.0 */
/* tmpfs nodes: making and freeing them, attributes and times. */
#include "tmpfs.h"

#define DIRENT_SIZE 20 /* what a name adds to st_size of its directory, as on Linux */
#define ATIME_MAX_AGE (24 * 3600)
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

static const TesLockClass node_class = {"tmpfs inode", TES_RANK_INODE, TRUE,
                                        "attributes and directory entries"};

/* ---- Times ---- */

void node_now(const Node *n, struct timespec *ts) {
  TesTime t = tes_time_realtime(n->inode.super->kernel);
  *ts = (struct timespec){t / TES_NSEC, t % TES_NSEC};
}

void node_modified(Node *n) {
  node_now(n, &n->mtime);
  n->ctime = n->mtime;
}

static gboolean not_later(const struct timespec *a, const struct timespec *b) {
  return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec <= b->tv_nsec);
}

/* mount(8), relatime: when it is not younger than the last change, or a day old. The host's clock will do for the day; it costs
 * a tenth of ours. */
static gboolean atime_is_due(const Node *n) {
  return not_later(&n->atime, &n->mtime) || not_later(&n->atime, &n->ctime) ||
         time(NULL) - n->atime.tv_sec >= ATIME_MAX_AGE;
}

void touch_atime(TesFile *f, Node *n) {
  gulong ms = f->path ? f->path->vfs->ops->mount_flags(f->path) : 0;
  if ((ms & (MS_NOATIME | MS_RDONLY)) || ((ms & MS_NODIRATIME) && is_dir(n)))
    return;
  if ((f->flags & O_NOATIME) || (n->fsflags & FS_NOATIME_FL))
    return;
  if ((ms & MS_STRICTATIME) || atime_is_due(n))
    node_now(n, &n->atime);
}

/* ---- Nodes ---- */

static gsize node_size(guint32 mode) {
  gsize head = G_STRUCT_OFFSET(Node, dir);
  return head + (S_ISDIR(mode) ? sizeof(Dir) : S_ISREG(mode) ? sizeof(Data) : sizeof(char *));
}

Node *node_new(Tmpfs *fs, TesCtx *ctx, Node *dir, guint32 mode, int *err) {
  if (!space_take(fs, INODE_SPACE)) {
    *err = -ENOSPC;
    return NULL;
  }
  Node *n = g_malloc0(node_size(mode));
  guint32 uid = 0, gid = 0;
  if (dir)
    tes_inode_new_owner(&dir->inode, ctx, &mode, &uid, &gid);
  tes_inode_init(&n->inode, &fs->super, &tmpfs_inode_ops, mode,
                 __atomic_add_fetch(&fs->next_ino, 1, __ATOMIC_RELAXED));
  n->inode.uid = uid;
  n->inode.gid = gid;
  tes_mutex_init(&n->lock, &node_class);
  node_now(n, &n->btime);
  n->atime = n->mtime = n->ctime = n->btime;
  n->nlink = S_ISDIR(mode) ? 2 : 1;
  if (S_ISDIR(mode))
    dir_init(n, dir);
  else if (S_ISREG(mode))
    data_init(n);
  if (dir && G_UNLIKELY(dir->extra != NULL) && !S_ISLNK(mode)) {
    TES_LOCKED(&dir->lock);
    if (!inherit_acl(n, default_acl(dir), ctx))
      *err = -ENOSPC;
  }
  if (*err < 0)
    tes_inode_unref(&n->inode);
  return *err < 0 ? NULL : n;
}

/* Long targets take a page of size=, though they lie in the kernel's own memory. */
static gsize target_pages(const char *target) { return strlen(target) >= SHORT_SYMLINK ? 1 : 0; }

static int target_set(Node *n, const char *target) {
  gsize pages = target_pages(target);
  if (pages && !heap_take(TES_PAGE_SIZE))
    return -ENOSPC;
  if (pages && !pages_take(tmpfs_of(n), pages, TRUE)) {
    heap_give(TES_PAGE_SIZE);
    return -ENOSPC;
  }
  n->target = g_strdup(target);
  return 0;
}

static void target_free(Node *n) {
  if (n->target && target_pages(n->target)) {
    pages_give(tmpfs_of(n), 1);
    heap_give(TES_PAGE_SIZE);
  }
  g_free(n->target);
}

static void node_free(TesInode *i) {
  Node *n = node_of(i);
  Tmpfs *fs = tmpfs_of(n);
  if (is_dir(n)) {
    dir_clear(n);
  } else if (is_reg(n)) {
    data_clear(n);
  } else if (S_ISLNK(i->mode)) {
    target_free(n);
  }
  extra_free(n);
  tes_mutex_clear(&n->lock);
  space_give(fs, INODE_SPACE);
  g_free(n);
}

/* Asked only where an overlay changes the directory without the VFS (TES_INODE_REVALIDATE). */
static int tmpfs_revalidate(TesInode *i, TesCtx *ctx, const char *name, TesInode *child) {
  TesInode *now = NULL;
  int r = tmpfs_lookup(i, ctx, name, &now);
  if (r < 0)
    return r == -ENOENT ? child == NULL : r;
  tes_inode_unref(now);
  return now == child;
}

/* A new node under a name, handed back with a reference. */
static int add_new(TesInode *i, TesCtx *ctx, const char *name, guint32 mode, guint64 rdev, const char *target,
                   TesInode **out) {
  Node *dir = node_of(i);
  int err = 0;
  Node *n = node_new(tmpfs_of(dir), ctx, dir, mode, &err);
  if (!n)
    return err;
  n->inode.rdev = rdev;
  if (target)
    err = target_set(n, target);
  if (err == 0)
    err = dir_add(dir, name, n);
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
  n->linkable = TRUE;
  *out = &n->inode;
  return 0;
}

void change_nlink(Node *n, int by) {
  TES_LOCKED(&n->lock);
  n->nlink += by;
  node_now(n, &n->ctime);
}

static int tmpfs_readlink(TesInode *i, TesCtx *ctx, char **out) {
  (void)ctx;
  Node *n = node_of(i);
  *out = g_strdup(n->target);
  TES_LOCKED(&n->lock);
  if (atime_is_due(n))
    node_now(n, &n->atime);
  return 0;
}

/* ---- Attributes ---- */

static guint64 statx_attributes(const Node *n) {
  return ((n->fsflags & FS_IMMUTABLE_FL) ? STATX_ATTR_IMMUTABLE : 0) |
         ((n->fsflags & FS_APPEND_FL) ? STATX_ATTR_APPEND : 0) |
         ((n->fsflags & FS_NODUMP_FL) ? STATX_ATTR_NODUMP : 0);
}

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
                 .btime = n->btime,
                 .attributes = statx_attributes(n)};
  guint64 pages = 0;
  if (is_dir(n)) {
    a->size = (n->dir.n_entries + 2) * DIRENT_SIZE;
  } else if (is_reg(n)) {
    a->size = n->data.size;
    pages = n->data.n_pages;
  } else if (S_ISLNK(i->mode)) {
    a->size = strlen(n->target);
    pages = target_pages(n->target);
  }
  a->blocks = pages * (TES_PAGE_SIZE / 512);
  return 0;
}

static void set_time(const Node *n, struct timespec *slot, const struct timespec *ts) {
  if (ts->tv_nsec == UTIME_NOW)
    node_now(n, slot);
  else
    *slot = *ts;
}

static void set_mode(Node *n, guint32 mode) {
  TesInode *i = &n->inode;
  __atomic_store_n(&i->mode, (i->mode & S_IFMT) | (mode & 07777), __ATOMIC_RELAXED);
  if (i->acl)
    chmod_acl(n);
}

static int tmpfs_setattr(TesInode *i, TesCtx *ctx, const TesSetAttr *s) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  if ((s->valid & TES_SET_MODE) && is_reg(n) && (n->data.seals & F_SEAL_EXEC) && ((i->mode ^ s->mode) & 0111))
    return -EPERM;
  if (s->valid & TES_SET_SIZE) {
    gboolean same =
        (s->valid & TES_SET_IF_RESIZED) && is_reg(n) && n->data.size == s->size && !n->data.n_pages;
    int r = is_reg(n) ? data_truncate(n, s->size) : -EINVAL;
    if (r < 0)
      return r;
    if (!same)
      node_now(n, &n->mtime);
  }
  if (s->valid & TES_SET_UID)
    i->uid = s->uid;
  if (s->valid & TES_SET_GID)
    i->gid = s->gid;
  if (s->valid & TES_SET_MODE)
    set_mode(n, s->mode);
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

static int tmpfs_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  (void)ctx;
  if (!S_ISREG(i->mode) && !S_ISDIR(i->mode))
    return -ENXIO;
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, i->super->kernel, S_ISDIR(i->mode) ? &tmpfs_dir_ops : &tmpfs_file_ops, flags);
  *out = f;
  return 0;
}

const TesInodeOps tmpfs_inode_ops = {
    .size = sizeof(TesInodeOps),
    .lookup = tmpfs_lookup,
    .revalidate = tmpfs_revalidate,
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
