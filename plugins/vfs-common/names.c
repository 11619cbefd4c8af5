/* SPDX-License-Identifier: Apache-2.0 */
/* Names: what mkdir(2), mknod(2), symlink(2), link(2), unlink(2), rmdir(2) and rename(2) allow. */
#include "rules.h"
#include "walk.h"
#include <linux/capability.h>
#include <stdio.h>

int rules_may_create(TesCtx *ctx, TesInode *dir, gboolean read_only) {
  return read_only ? -EROFS : tes_inode_permission(dir, ctx, W_OK | X_OK);
}

int rules_make(TesCtx *ctx, TesInode *dir, const char *name, const TesNode *n, TesInode **out) {
  const TesInodeOps *ops = dir->ops;
  switch (n->mode & S_IFMT) {
  case S_IFDIR:
    return TES_HAS(ops, mkdir) ? ops->mkdir(dir, ctx, name, n->mode, out) : -EPERM;
  case S_IFLNK:
    return TES_HAS(ops, symlink) ? ops->symlink(dir, ctx, name, n->target, out) : -EPERM;
  case 0:
  case S_IFREG:
    return TES_HAS(ops, create) ? ops->create(dir, ctx, name, n->mode | S_IFREG, out) : -EACCES;
  case S_IFCHR:
  case S_IFBLK:
    if (!(S_ISCHR(n->mode) && n->rdev == 0) && !tes_ctx_capable(ctx, CAP_MKNOD))
      return -EPERM;
    G_GNUC_FALLTHROUGH;
  case S_IFIFO:
  case S_IFSOCK:
    return TES_HAS(ops, mknod) ? ops->mknod(dir, ctx, name, n->mode, n->rdev, out) : -EPERM;
  default:
    return -EINVAL;
  }
}

/* ---- Other people's things: proc_sys_fs(5), protected_* ---- */

static gboolean is_mine(TesCtx *ctx, const TesInode *i) {
  const TesCred *c = tes_ctx_cred(ctx);
  return !c || c->fsuid == i->uid;
}

int rules_may_follow(TesCtx *ctx, TesInode *dir, TesInode *link) {
  if (!tes_protected(TES_PROTECTED_SYMLINKS) || (dir->mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH))
    return 0;
  return is_mine(ctx, link) || dir->uid == link->uid ? 0 : -EACCES;
}

int rules_may_open_existing(TesCtx *ctx, TesInode *dir, TesInode *i) {
  if (!(dir->mode & S_ISVTX) || S_ISDIR(i->mode) || S_ISLNK(i->mode) || dir->uid == i->uid || is_mine(ctx, i))
    return 0;
  gint level = S_ISREG(i->mode)    ? tes_protected(TES_PROTECTED_REGULAR)
               : S_ISFIFO(i->mode) ? tes_protected(TES_PROTECTED_FIFOS)
                                   : 1;
  return level && ((dir->mode & S_IWOTH) || ((dir->mode & S_IWGRP) && level > 1)) ? -EACCES : 0;
}

/* A file that somebody else could not write, or that gives rights away, is linked by its owner only. */
static gboolean safe_to_link(TesCtx *ctx, TesInode *t) {
  if (!tes_protected(TES_PROTECTED_HARDLINKS) || tes_inode_owner_or_capable(t, ctx))
    return TRUE;
  return S_ISREG(t->mode) && !(t->mode & S_ISUID) && (t->mode & (S_ISGID | S_IXGRP)) != (S_ISGID | S_IXGRP) &&
         tes_inode_permission(t, ctx, R_OK | W_OK) == 0;
}

static gboolean is_gone(TesCtx *ctx, TesInode *i) {
  TesAttr a;
  return TES_HAS(i->ops, getattr) && i->ops->getattr(i, ctx, &a) == 0 && a.nlink == 0;
}

int rules_may_link(TesCtx *ctx, TesInode *t) { return safe_to_link(ctx, t) ? 0 : -EPERM; }

int rules_link(TesCtx *ctx, TesInode *dir, const char *name, TesInode *t, gboolean linkable, TesInode **out) {
  if (t->super != dir->super)
    return -EXDEV;
  if (t->flags & (TES_INODE_APPEND_ONLY | TES_INODE_IMMUTABLE))
    return -EPERM;
  if (!TES_HAS(dir->ops, link) || S_ISDIR(t->mode))
    return -EPERM;
  if (!linkable && is_gone(ctx, t))
    return -ENOENT;
  int r = dir->ops->link(dir, ctx, name, t);
  if (r >= 0)
    *out = tes_inode_ref(t);
  return r;
}

int rules_remove_last(int last_kind, gboolean dir) {
  if (!dir)
    return -EISDIR;
  return last_kind == LAST_DOT ? -EINVAL : last_kind == LAST_DOTDOT ? -ENOTEMPTY : -EBUSY;
}

int rules_may_delete(TesCtx *ctx, TesInode *dir, TesInode *i, gboolean as_dir) {
  int r = tes_inode_permission(dir, ctx, W_OK | X_OK);
  if (r < 0)
    return r;
  if (dir->flags & TES_INODE_APPEND_ONLY)
    return -EPERM;
  TesCred *c = tes_ctx_cred(ctx);
  if ((dir->mode & S_ISVTX) && c && c->fsuid != i->uid && c->fsuid != dir->uid &&
      !tes_ctx_capable(ctx, CAP_FOWNER))
    return -EPERM;
  if (i->flags & (TES_INODE_APPEND_ONLY | TES_INODE_IMMUTABLE))
    return -EPERM;
  if (as_dir != S_ISDIR(i->mode))
    return as_dir ? -ENOTDIR : -EISDIR;
  return 0;
}

/* ---- rename(2), renameat2(2) ---- */

int rules_rename_flags(guint flags) {
  gboolean exchange = (flags & RENAME_EXCHANGE) != 0;
  return (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) ||
                 (exchange && flags != RENAME_EXCHANGE)
             ? -EINVAL
             : 0;
}

static gboolean exchanging(const RulesRename *m) { return (m->flags & RENAME_EXCHANGE) != 0; }

int rules_rename_names(const RulesRename *m) {
  TesInode *s = m->source, *t = m->target;
  if (!s)
    return -ENOENT;
  if (t && (m->flags & RENAME_NOREPLACE))
    return -EEXIST;
  if (exchanging(m)) {
    if (!t)
      return -ENOENT;
    if (!S_ISDIR(t->mode) && m->target_slash)
      return -ENOTDIR;
  }
  if (!S_ISDIR(s->mode) && (m->source_slash || (!exchanging(m) && m->target_slash)))
    return -ENOTDIR;
  if (m->into_itself)
    return -EINVAL;
  if (m->target_above)
    return exchanging(m) ? -EINVAL : -ENOTEMPTY;
  return s == t ? 1 : 0;
}

int rules_may_rename(TesCtx *ctx, const RulesRename *m) {
  TesInode *s = m->source, *t = m->target;
  int r = rules_may_delete(ctx, m->odir, s, S_ISDIR(s->mode));
  if (r >= 0)
    r = t ? rules_may_delete(ctx, m->ndir, t, S_ISDIR(exchanging(m) ? t->mode : s->mode))
          : rules_may_create(ctx, m->ndir, FALSE);
  /* A directory that changes its parent has its ".." rewritten. */
  if (r >= 0 && m->odir != m->ndir && S_ISDIR(s->mode))
    r = tes_inode_permission(s, ctx, W_OK);
  if (r >= 0 && m->odir != m->ndir && exchanging(m) && S_ISDIR(t->mode))
    r = tes_inode_permission(t, ctx, W_OK);
  if (r >= 0 && !TES_HAS(m->odir->ops, rename))
    r = -EPERM;
  if (r >= 0 && (m->flags & RENAME_WHITEOUT) && !(m->odir->flags & TES_INODE_WHITEOUTS))
    r = -EINVAL;
  return r;
}
