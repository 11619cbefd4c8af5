/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes: the table that keeps one inode for each node number, lookup, attributes, links, permission, extended attributes. */
#include "fuse.h"
#include <linux/capability.h>
#include <sys/sysmacros.h>

static const TesLockClass inode_class = {"fuse inode", TES_RANK_INODE, FALSE, "attributes of a FUSE node"};

static const TesInodeOps dir_ops, file_ops, link_ops, special_ops;

/* A valid time of the protocol as a point in (monotonic) time. */
static TesTime valid_until(TesKernel *k, guint64 s, guint32 ns) {
  if (!s && !ns)
    return 0;
  s = MIN(s, G_MAXINT32);
  return tes_time_monotonic(k) + (TesTime)s * TES_NSEC + MIN(ns, 999999999);
}

static gboolean is_type(guint32 mode) {
  switch (mode & S_IFMT) {
  case S_IFREG:
  case S_IFDIR:
  case S_IFLNK:
  case S_IFCHR:
  case S_IFBLK:
  case S_IFIFO:
  case S_IFSOCK:
    return TRUE;
  default:
    return FALSE;
  }
}

/* Takes over what the server said; a file's type never changes. Inode lock held. */
static int take_attr(FuseInode *i, const struct fuse_attr *a, TesTime until) {
  if (!is_type(a->mode) || ((a->mode ^ i->inode.mode) & S_IFMT) || a->size > G_MAXINT64)
    return -EIO;
  i->attr = *a;
  i->attr_until = until;
  i->inode.mode = a->mode;
  i->inode.uid = a->uid;
  i->inode.gid = a->gid;
  i->inode.rdev = makedev(a->rdev >> 8 & 0xfff, (a->rdev & 0xff) | (a->rdev >> 12 & 0xfff00));
  return 0;
}

static FuseInode *inode_new(FuseSuper *s, guint64 node, guint32 mode) {
  FuseInode *i = g_new0(FuseInode, 1);
  const TesInodeOps *ops = S_ISDIR(mode)   ? &dir_ops
                           : S_ISREG(mode) ? &file_ops
                           : S_ISLNK(mode) ? &link_ops
                                           : &special_ops;
  tes_inode_init(&i->inode, &s->super, ops, mode, node);
  tes_mutex_init(&i->lock, &inode_class);
  i->node = node;
  if (S_ISDIR(mode))
    i->inode.flags |= TES_INODE_REVALIDATE;
  return i;
}

FuseInode *fuse_inode_root(FuseSuper *s, guint32 mode) {
  FuseInode *i = inode_new(s, FUSE_ROOT_ID, mode);
  i->attr.mode = mode;
  g_hash_table_insert(s->nodes, &i->node, i);
  return i;
}

static void forget(FuseSuper *s, guint64 node, guint64 lookups) {
  struct fuse_forget_in in = {.nlookup = lookups};
  const FusePiece piece = FUSE_ARG(in);
  if (lookups && node != FUSE_ROOT_ID)
    fuse_post(s->conn, NULL, FUSE_FORGET, node, &piece, 1, FALSE);
}

static void inode_free(TesInode *base) {
  FuseInode *i = fuse_inode(base);
  FuseSuper *s = fuse_super(base);
  tes_mutex_lock(&s->lock);
  if (g_hash_table_lookup(s->nodes, &i->node) == i)
    g_hash_table_remove(s->nodes, &i->node);
  tes_mutex_unlock(&s->lock);
  forget(s, i->node, i->lookups);
  fuse_map_drop(i);
  tes_mutex_clear(&i->lock);
  g_free(i);
}

/* The node's inode, if there is one that can still be it; table lock held. A server may use a number again with another generation. */
static FuseInode *find(FuseSuper *s, const struct fuse_entry_out *e) {
  FuseInode *i = g_hash_table_lookup(s->nodes, &e->nodeid);
  if (!i || i->generation != e->generation || ((i->inode.mode ^ e->attr.mode) & S_IFMT))
    return NULL;
  return tes_inode_try_ref(&i->inode) ? i : NULL;
}

int fuse_inode_get(FuseSuper *s, const struct fuse_entry_out *e, TesInode **out) {
  TesKernel *k = s->super.kernel;
  if (!e->nodeid || e->nodeid == FUSE_ROOT_ID || !is_type(e->attr.mode))
    return -EIO;
  FuseInode *fresh = inode_new(s, e->nodeid, e->attr.mode), *i;
  fresh->generation = e->generation;
  tes_mutex_lock(&s->lock);
  i = find(s, e);
  if (!i) {
    i = (FuseInode *)tes_inode_ref(&fresh->inode);
    g_hash_table_replace(s->nodes, &i->node, i);
  }
  tes_mutex_unlock(&s->lock);
  tes_mutex_lock(&i->lock);
  i->lookups++;
  i->name_until = valid_until(k, e->entry_valid, e->entry_valid_nsec);
  int r = take_attr(i, &e->attr, valid_until(k, e->attr_valid, e->attr_valid_nsec));
  tes_mutex_unlock(&i->lock);
  tes_inode_unref(&fresh->inode);
  if (r < 0)
    tes_inode_unref(&i->inode);
  else
    *out = &i->inode;
  return r;
}

/* ---- Names ---- */

static int ask_name(TesInode *dir, TesCtx *ctx, const char *name, struct fuse_entry_out *e) {
  const FusePiece piece = FUSE_NAME(name);
  g_autoptr(GBytes) reply = NULL;
  *e = (struct fuse_entry_out){0};
  int r = fuse_call(fuse_conn(dir), ctx, FUSE_LOOKUP, fuse_inode(dir)->node, &piece, 1, sizeof *e, &reply);
  if (r < 0)
    return r;
  fuse_bytes_copy(reply, e, sizeof *e);
  return e->nodeid ? 0 : -ENOENT; /* 0: it is not there, and that may be remembered */
}

static int lookup(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  struct fuse_entry_out e;
  int r = ask_name(dir, ctx, name, &e);
  return r < 0 ? r : fuse_inode_get(fuse_super(dir), &e, out);
}

static int revalidate(TesInode *dir, TesCtx *ctx, const char *name, TesInode *child) {
  if (!child)
    return 0; /* that a name is missing is not remembered */
  FuseInode *i = fuse_inode(child);
  tes_mutex_lock(&i->lock);
  gboolean valid = i->name_until > tes_time_monotonic(ctx->kernel);
  tes_mutex_unlock(&i->lock);
  if (valid)
    return 1;
  struct fuse_entry_out e;
  int r = ask_name(dir, ctx, name, &e);
  if (r == -ENOENT)
    return 0;
  g_autoptr(TesInode) now = NULL;
  if (r == 0)
    r = fuse_inode_get(fuse_super(dir), &e, &now);
  return r < 0 ? r : now == child;
}

static int read_link(TesInode *i, TesCtx *ctx, char **out) {
  g_autoptr(GBytes) reply = NULL;
  int r = fuse_call(fuse_conn(i), ctx, FUSE_READLINK, fuse_inode(i)->node, NULL, 0, 1, &reply);
  if (r < 0)
    return r;
  gsize n;
  const char *text = g_bytes_get_data(reply, &n);
  if (n >= TES_PATH_MAX)
    return -EIO;
  *out = g_strndup(text, n);
  return 0;
}

/* ---- Attributes ---- */

void fuse_attr_stale(FuseInode *i) {
  TES_LOCKED(&i->lock);
  i->attr_until = 0;
}

guint64 fuse_size(FuseInode *i) {
  TES_LOCKED(&i->lock);
  return i->attr.size;
}

static int take_attr_reply(FuseInode *i, GBytes *reply) {
  struct fuse_attr_out o = {0};
  fuse_bytes_copy(reply, &o, sizeof o);
  TES_LOCKED(&i->lock);
  return take_attr(i, &o.attr, valid_until(i->inode.super->kernel, o.attr_valid, o.attr_valid_nsec));
}

int fuse_attr_refresh(FuseInode *i, TesCtx *ctx, gboolean force) {
  tes_mutex_lock(&i->lock);
  gboolean valid = !force && i->attr_until > tes_time_monotonic(ctx->kernel);
  tes_mutex_unlock(&i->lock);
  if (valid)
    return 0;
  struct fuse_getattr_in in = {0};
  const FusePiece piece = FUSE_ARG(in);
  g_autoptr(GBytes) reply = NULL;
  int r = fuse_call(fuse_conn(&i->inode), ctx, FUSE_GETATTR, i->node, &piece, 1, sizeof(struct fuse_attr_out),
                    &reply);
  return r < 0 ? r : take_attr_reply(i, reply);
}

/* Without allow_other the tree is for who mounted it alone: not even root may look, lest it be tricked by the server. */
static int may_enter(FuseSuper *s, TesCtx *ctx) {
  TesCred *c = tes_ctx_cred(ctx);
  if (s->allow_other || (c && c->uid == s->user && c->euid == s->user && c->suid == s->user &&
                         c->gid == s->group && c->egid == s->group && c->sgid == s->group))
    return 0;
  return -EACCES;
}

static int getattr(TesInode *base, TesCtx *ctx, TesAttr *a) {
  FuseInode *i = fuse_inode(base);
  int r = may_enter(fuse_super(base), ctx);
  if (r == 0)
    r = fuse_attr_refresh(i, ctx, FALSE);
  if (r < 0)
    return r;
  TES_LOCKED(&i->lock);
  const struct fuse_attr *f = &i->attr;
  *a = (TesAttr){.mode = base->mode,
                 .nlink = f->nlink,
                 .uid = f->uid,
                 .gid = f->gid,
                 .blksize = f->blksize ? f->blksize : TES_PAGE_SIZE,
                 .ino = f->ino,
                 .size = f->size,
                 .blocks = f->blocks,
                 .dev = base->super->dev,
                 .rdev = base->rdev,
                 .atime = {(time_t)f->atime, MIN(f->atimensec, 999999999)},
                 .mtime = {(time_t)f->mtime, MIN(f->mtimensec, 999999999)},
                 .ctime = {(time_t)f->ctime, MIN(f->ctimensec, 999999999)}};
  return 0;
}

static void put_time(const struct timespec *t, guint32 *valid, guint32 set, guint32 now, guint64 *s,
                     guint32 *ns) {
  *valid |= t->tv_nsec == UTIME_NOW ? set | now : set;
  *s = (guint64)t->tv_sec;
  *ns = t->tv_nsec == UTIME_NOW ? 0 : (guint32)t->tv_nsec;
}

static int setattr(TesInode *base, TesCtx *ctx, const TesSetAttr *s) {
  FuseInode *i = fuse_inode(base);
  struct fuse_setattr_in in = {0};
  if (s->valid & TES_SET_MODE) {
    in.valid |= FATTR_MODE;
    in.mode = (base->mode & S_IFMT) | (s->mode & 07777);
  }
  if (s->valid & TES_SET_UID) {
    in.valid |= FATTR_UID;
    in.uid = s->uid;
  }
  if (s->valid & TES_SET_GID) {
    in.valid |= FATTR_GID;
    in.gid = s->gid;
  }
  if (s->valid & TES_SET_SIZE) {
    in.valid |= FATTR_SIZE;
    in.size = (guint64)s->size;
  }
  if (s->valid & TES_SET_ATIME)
    put_time(&s->atime, &in.valid, FATTR_ATIME, FATTR_ATIME_NOW, &in.atime, &in.atimensec);
  if (s->valid & TES_SET_MTIME)
    put_time(&s->mtime, &in.valid, FATTR_MTIME, FATTR_MTIME_NOW, &in.mtime, &in.mtimensec);
  if (!in.valid)
    return 0;
  const FusePiece piece = FUSE_ARG(in);
  g_autoptr(GBytes) reply = NULL;
  int r =
      fuse_call(fuse_conn(base), ctx, FUSE_SETATTR, i->node, &piece, 1, sizeof(struct fuse_attr_out), &reply);
  return r < 0 ? r : take_attr_reply(i, reply);
}

/* default_permissions: mode bits decide here. Otherwise the server does, call by call; only what no file system allows is refused. */
static int permission(TesInode *base, TesCtx *ctx, guint mask) {
  FuseSuper *s = fuse_super(base);
  int r = may_enter(s, ctx);
  if (r < 0)
    return r;
  if (s->default_permissions) {
    r = fuse_attr_refresh(fuse_inode(base), ctx, FALSE);
    return r < 0 ? r : tes_inode_mode_permission(base, ctx, mask);
  }
  if ((mask & X_OK) && S_ISREG(base->mode)) {
    r = fuse_attr_refresh(fuse_inode(base), ctx, FALSE);
    return r < 0 ? r : base->mode & 0111 ? 0 : -EACCES;
  }
  return 0;
}

#define COMMON                                                                                   \
  .size = sizeof(TesInodeOps), .getattr = getattr, .setattr = setattr, .permission = permission, \
  .getxattr = fuse_getxattr, .setxattr = fuse_setxattr, .removexattr = fuse_removexattr,         \
  .listxattr = fuse_listxattr, .free = inode_free

static const TesInodeOps dir_ops = {COMMON,
                                    .lookup = lookup,
                                    .revalidate = revalidate,
                                    .create = fuse_create,
                                    .mkdir = fuse_mkdir,
                                    .mknod = fuse_mknod,
                                    .symlink = fuse_symlink,
                                    .link = fuse_link,
                                    .unlink = fuse_unlink,
                                    .rmdir = fuse_rmdir,
                                    .rename = fuse_rename,
                                    .open = fuse_open};
static const TesInodeOps file_ops = {COMMON, .open = fuse_open};
static const TesInodeOps link_ops = {COMMON, .readlink = read_link};
static const TesInodeOps special_ops = {COMMON};
