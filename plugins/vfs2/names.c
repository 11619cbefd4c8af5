/* SPDX-License-Identifier: Apache-2.0 */
/* Changing names: create, remove, rename; what is allowed is decided in vfs-common. Each runs under the lock
 * of the directory it changes; renames are one at a time and take ancestors first. */
#include "vfs2.h"
#include "../vfs-common/rules.h"

int v2_may_create(TesCtx *ctx, Mount *mnt, Dentry *dir) {
  if (d_flags(dir) & (D_DEAD | D_DELETED))
    return -ENOENT;
  return rules_may_create(ctx, d_inode(dir), v2_mount_read_only(mnt));
}

/* ---- Create ---- */

static int make_link(TesCtx *ctx, const Walk *w, TesPath *target, const char *name, TesInode **out) {
  if (v2_path(target)->mnt != w->pos.mnt)
    return -EXDEV;
  gboolean linkable = d_flags(v2_path(target)->d) & D_LINKABLE;
  int r = rules_link(ctx, d_inode(w->pos.d), name, target->inode, linkable, out);
  if (r >= 0 && linkable)
    d_clear(v2_path(target)->d, D_LINKABLE);
  return r;
}

/* What link(2) asks before it looks at the directory. */
static int may_link(const Walk *w, TesPath *target) {
  if (v2_mount_read_only(w->pos.mnt))
    return -EROFS;
  return v2_path(target)->mnt != w->pos.mnt ? -EXDEV : rules_may_link(w->ctx, target->inode);
}

static int create_in_locked_dir(Walk *w, const TesNode *n, Dentry **out) {
  Dentry *dir = w->pos.d, *d = NULL;
  int r = v2_lookup_locked(w->v, w->ctx, dir, w->last, w->last_len, &d);
  if (r < 0)
    return r;
  TesInode *inode = NULL;
  if (d_inode(d))
    r = -EEXIST;
  else if (w->last_slash && (n->link_to || !S_ISDIR(n->mode)))
    r = -ENOENT;
  else if ((r = n->link_to ? may_link(w, n->link_to) : 0) >= 0 &&
           (r = v2_may_create(w->ctx, w->pos.mnt, dir)) >= 0)
    r = n->link_to ? make_link(w->ctx, w, n->link_to, d->name, &inode)
                   : rules_make(w->ctx, d_inode(dir), d->name, n, &inode);
  if (r >= 0) {
    v2_instantiate(d, inode);
    if (n->link_to)
      tes_notify_link(d_inode(dir), d->name, inode);
    else
      tes_notify_create(d_inode(dir), d->name, inode);
    *out = d;
    return 0;
  }
  if (r == -EEXIST && !d_inode(d))
    v2_dcache_drop(d); /* made behind our back */
  v2_dentry_unref(d);
  return r;
}

int v2_op_create(TesVfs *vfs, TesCtx *ctx, const TesAt *at, const TesNode *n, TesPath **out) {
  Walk w;
  Dentry *d = NULL;
  int r = v2_walk(&w, v2_of(vfs), ctx, at, W_PARENT, FALSE);
  if (r < 0)
    return r;
  if (w.last_kind != LAST_NORM) {
    r = -EEXIST;
  } else if (!tes_task_lock(&w.pos.d->lock)) {
    r = -EINTR;
  } else {
    r = create_in_locked_dir(&w, n, &d);
    tes_mutex_unlock(&w.pos.d->lock);
  }
  if (r >= 0 && out)
    *out = v2_path_new(w.v, v2_mount_ref(w.pos.mnt), v2_dentry_ref(d));
  if (d)
    v2_dentry_unref(d);
  v2_walk_end(&w);
  return r;
}

/* ---- Remove ---- */

/* After the filesystem removed it: nobody finds the name again. */
static void forget(Dentry *d, gboolean dir) {
  d_set(d, D_DELETED);
  v2_dcache_drop(d);
  if (dir)
    v2_dcache_prune_children(d);
}

static int remove_locked(Walk *w, Dentry *d, gboolean dir) {
  TesInode *i = d_inode(d), *di = d_inode(w->pos.d);
  if (!i)
    return -ENOENT;
  if (!dir && w->last_slash)
    return S_ISDIR(i->mode) ? -EISDIR : -ENOTDIR;
  int r = d_flags(w->pos.d) & D_DEAD ? -ENOENT : rules_may_delete(w->ctx, di, i, dir);
  if (r < 0)
    return r;
  if (v2_is_mountpoint_in(tes_ctx_mount_ns(w->ctx), d))
    return -EBUSY;
  if (!dir) {
    r = TES_HAS(di->ops, unlink) ? di->ops->unlink(di, w->ctx, d->name, i) : -EPERM;
    if (r >= 0) {
      forget(d, FALSE);
      tes_notify_inode(i, IN_ATTRIB);
    }
    return r;
  }
  TES_LOCKED(&d->lock);
  r = TES_HAS(di->ops, rmdir) ? di->ops->rmdir(di, w->ctx, d->name, i) : -EPERM;
  if (r >= 0) {
    d_set(d, D_DEAD);
    forget(d, TRUE);
  }
  return r;
}

int v2_op_remove(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gboolean dir) {
  Walk w;
  Dentry *d = NULL, *covered = NULL;
  int r = v2_walk(&w, v2_of(vfs), ctx, at, W_PARENT, FALSE);
  if (r < 0)
    return r;
  if (w.last_kind != LAST_NORM)
    r = rules_remove_last(w.last_kind, dir);
  else if (v2_mount_read_only(w.pos.mnt))
    r = -EROFS;
  else if (!tes_task_lock(&w.pos.d->lock))
    r = -EINTR;
  else {
    r = v2_lookup_locked(w.v, ctx, w.pos.d, w.last, w.last_len, &d);
    if (r >= 0)
      r = remove_locked(&w, d, dir);
    if (r >= 0 && __atomic_load_n(&d->mounted, __ATOMIC_SEQ_CST))
      covered = v2_dentry_ref(d);
    /* The end of the file itself is told before that of its name. */
    if (d)
      v2_dentry_unref(d);
    if (r >= 0)
      tes_notify_remove(d_inode(w.pos.d), w.last, dir);
    tes_mutex_unlock(&w.pos.d->lock);
  }
  if (covered) { /* in other namespaces */
    v2_detach_mounts(w.v, covered);
    v2_dentry_unref(covered);
  }
  v2_walk_end(&w);
  return r;
}

/* ---- Rename ---- */

static gboolean is_ancestor(const Dentry *a, const Dentry *d) {
  for (; d; d = d->parent)
    if (d == a)
      return TRUE;
  return FALSE;
}

/* Ancestors first; with the rename lock held the tree stands still. */
static void lock_pair(Dentry *a, Dentry *b) {
  if (a == b) {
    tes_mutex_lock(&a->lock);
    return;
  }
  if (is_ancestor(b, a) || (!is_ancestor(a, b) && b < a)) {
    Dentry *x = a;
    a = b;
    b = x;
  }
  tes_mutex_lock(&a->lock);
  tes_mutex_lock(&b->lock);
}

static void unlock_pair(Dentry *a, Dentry *b) {
  tes_mutex_unlock(&a->lock);
  if (a != b)
    tes_mutex_unlock(&b->lock);
}

typedef struct {
  Walk from, to;
  Dentry *source, *target; /* target may be negative */
  guint flags;
} Rename;

static gboolean exchanging(const Rename *m) { return m->flags & RENAME_EXCHANGE; }

/* Returns 1 if there is nothing to do. */
static int may_rename(Rename *m) {
  TesCtx *ctx = m->from.ctx;
  Dentry *odir = m->from.pos.d, *ndir = m->to.pos.d;
  RulesRename rules = {.odir = d_inode(odir),
                       .ndir = d_inode(ndir),
                       .source = d_inode(m->source),
                       .target = d_inode(m->target),
                       .flags = m->flags,
                       .source_slash = m->from.last_slash,
                       .target_slash = m->to.last_slash,
                       .into_itself = is_ancestor(m->source, ndir),
                       .target_above = d_inode(m->target) && is_ancestor(m->target, odir)};
  int r = rules_rename_names(&rules);
  if (r != 0)
    return r;
  if ((d_flags(odir) | d_flags(ndir)) & (D_DEAD | D_DELETED))
    return -ENOENT;
  r = rules_may_rename(ctx, &rules);
  TesMountNs *ns = tes_ctx_mount_ns(m->from.ctx);
  if (r >= 0 && (v2_is_mountpoint_in(ns, m->source) || v2_is_mountpoint_in(ns, m->target)))
    r = -EBUSY;
  return r;
}

static void tell_rename(const Rename *m) {
  const Walk *f = &m->from, *t = &m->to;
  TesInode *od = d_inode(f->pos.d), *nd = d_inode(t->pos.d), *s = d_inode(m->source), *x = d_inode(m->target);
  tes_notify_rename(f->ctx, od, f->last, nd, t->last, s, exchanging(m) ? NULL : x);
  if (exchanging(m))
    tes_notify_rename(f->ctx, nd, t->last, od, f->last, x, NULL);
}

static int rename_locked(Rename *m) {
  Dentry *odir = m->from.pos.d, *ndir = m->to.pos.d;
  int r = v2_lookup_locked(m->from.v, m->from.ctx, odir, m->from.last, m->from.last_len, &m->source);
  if (r >= 0)
    r = v2_lookup_locked(m->to.v, m->to.ctx, ndir, m->to.last, m->to.last_len, &m->target);
  if (r >= 0)
    r = may_rename(m);
  if (r != 0)
    return r < 0 ? r : 0;
  TesInode *od = d_inode(odir), *s = d_inode(m->source), *t = d_inode(m->target);
  gboolean victim_dir = t && S_ISDIR(t->mode) && !exchanging(m);
  if (victim_dir)
    tes_mutex_lock(&m->target->lock);
  r = od->ops->rename(od, m->from.last, d_inode(ndir), m->to.last, s, t, m->from.ctx, m->flags);
  if (r >= 0 && victim_dir)
    d_set(m->target, D_DEAD);
  if (r >= 0 && exchanging(m))
    v2_dcache_exchange(m->source, m->target);
  else if (r >= 0) {
    if (t)
      d_set(m->target, D_DELETED);
    v2_dcache_move(m->source, ndir, m->to.last, m->target);
  }
  if (victim_dir) {
    if (r >= 0)
      v2_dcache_prune_children(m->target);
    tes_mutex_unlock(&m->target->lock);
  }
  if (r >= 0)
    tell_rename(m);
  return r;
}

static int rename_walked(Rename *m) {
  if (m->from.pos.mnt != m->to.pos.mnt)
    return -EXDEV;
  if (m->from.last_kind != LAST_NORM)
    return -EBUSY;
  if (m->to.last_kind != LAST_NORM)
    return (m->flags & RENAME_NOREPLACE) ? -EEXIST : -EBUSY;
  if (v2_mount_read_only(m->from.pos.mnt))
    return -EROFS;
  V2 *v = m->from.v;
  tes_mutex_lock(&v->rename_lock);
  lock_pair(m->from.pos.d, m->to.pos.d);
  int r = rename_locked(m);
  unlock_pair(m->from.pos.d, m->to.pos.d);
  tes_mutex_unlock(&v->rename_lock);
  return r;
}

int v2_op_rename(TesVfs *vfs, TesCtx *ctx, const TesAt *from, const TesAt *to, guint flags) {
  V2 *v = v2_of(vfs);
  Rename m = {.flags = flags};
  int r = rules_rename_flags(flags);
  if (r < 0)
    return r;
  r = v2_walk(&m.from, v, ctx, from, W_PARENT, FALSE);
  if (r < 0)
    return r;
  r = v2_walk(&m.to, v, ctx, to, W_PARENT, FALSE);
  if (r >= 0) {
    r = rename_walked(&m);
    if (r >= 0 && m.target && (d_flags(m.target) & D_DELETED) &&
        __atomic_load_n(&m.target->mounted, __ATOMIC_SEQ_CST))
      v2_detach_mounts(v, m.target);
    if (m.source)
      v2_dentry_unref(m.source);
    if (m.target)
      v2_dentry_unref(m.target);
    v2_walk_end(&m.to);
  }
  v2_walk_end(&m.from);
  return r;
}
