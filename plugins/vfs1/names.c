/* SPDX-License-Identifier: Apache-2.0 */
/* Changing names: create, remove, rename; what is allowed is decided in vfs-common. Each runs under the lock of the
 * directory it changes; renames are one at a time and take ancestors first. */
#include "vfs1.h"

/* ---- Create ---- */

static int make_link(const Walk *w, TesPath *target, TesInode **out) {
  if (v1_pos(target)->mnt != w->pos.mnt)
    return -EXDEV;
  gboolean linkable = d_flags(v1_pos(target)->d) & D_LINKABLE;
  int r = rules_link(w->ctx, w->pos.d->inode, w->last, target->inode, linkable, out);
  if (r >= 0 && linkable)
    d_clear(v1_pos(target)->d, D_LINKABLE);
  return r;
}

/* What link(2) asks before it looks at the directory. */
static int may_link(const Walk *w, TesPath *target) {
  if (v1_read_only(w->pos.mnt))
    return -EROFS;
  return v1_pos(target)->mnt != w->pos.mnt ? -EXDEV : rules_may_link(w->ctx, target->inode);
}

int v1_make(Walk *w, const TesNode *n, Dirent **out) {
  Dirent *dir = w->pos.d;
  TesInode *inode = NULL;
  if (d_flags(dir) & (D_DEAD | D_DELETED))
    return -ENOENT;
  int r = n->link_to ? may_link(w, n->link_to) : 0;
  if (r >= 0)
    r = rules_may_create(w->ctx, dir->inode, v1_read_only(w->pos.mnt));
  if (r >= 0)
    r = n->link_to ? make_link(w, n->link_to, &inode) : rules_make(w->ctx, dir->inode, w->last, n, &inode);
  if (r < 0)
    return r;
  *out = v1_dirent_new(w->v, dir, w->last, inode);
  if (!d_asks_always(dir) && (d_flags(dir) & D_IN_TREE))
    v1_enter_tree(*out);
  if (n->link_to)
    tes_notify_link(dir->inode, w->last, inode);
  else
    tes_notify_create(dir->inode, w->last, inode);
  return 0;
}

static int make_new(Walk *w, const TesNode *n, Dirent **out) {
  if (!tes_task_lock(&w->pos.d->lock))
    return -EINTR;
  g_autoptr(TesMutexHolder) locked = &w->pos.d->lock;
  int r = v1_lookup_locked(w->ctx, w->pos.d, w->last, out);
  if (r != -ENOENT)
    return r < 0 ? r : -EEXIST;
  if (w->last_slash && (n->link_to || !S_ISDIR(n->mode)))
    return -ENOENT;
  return v1_make(w, n, out);
}

int v1_create(TesVfs *vfs, TesCtx *ctx, const TesAt *at, const TesNode *n, TesPath **out) {
  Walk w;
  Dirent *d = NULL;
  int r = v1_walk(&w, vfs, ctx, at, W_PARENT);
  if (r < 0)
    return r;
  r = w.last_kind == LAST_NORM ? make_new(&w, n, &d) : -EEXIST;
  if (r >= 0 && out)
    *out = v1_path_new(w.v, v1_mount_ref(w.pos.mnt), v1_dirent_ref(d));
  if (d)
    v1_dirent_unref(d);
  v1_walk_end(&w);
  return r;
}

/* ---- Remove ---- */

static int may_remove(const Walk *w, const Dirent *d, gboolean dir) {
  if (!dir && w->last_slash)
    return S_ISDIR(d->inode->mode) ? -EISDIR : -ENOTDIR;
  if (d_flags(w->pos.d) & D_DEAD)
    return -ENOENT;
  int r = rules_may_delete(w->ctx, w->pos.d->inode, d->inode, dir);
  return r >= 0 && v1_is_mountpoint(tes_ctx_mount_ns(w->ctx), (Dirent *)d) ? -EBUSY : r;
}

static int remove_dir(Walk *w, Dirent *d) {
  TesInode *di = w->pos.d->inode;
  TES_LOCKED(&d->lock);
  int r = TES_HAS(di->ops, rmdir) ? di->ops->rmdir(di, w->ctx, w->last, d->inode) : -EPERM;
  if (r >= 0)
    d_set(d, D_DEAD);
  return r;
}

static int remove_dirent(Walk *w, Dirent *d, gboolean dir) {
  TesInode *di = w->pos.d->inode;
  int r = may_remove(w, d, dir);
  if (r < 0)
    return r;
  if (dir)
    r = remove_dir(w, d);
  else
    r = TES_HAS(di->ops, unlink) ? di->ops->unlink(di, w->ctx, w->last, d->inode) : -EPERM;
  if (r < 0)
    return r;
  d_set(d, D_DELETED);
  v1_leave_tree(d);
  if (!dir)
    tes_notify_inode(d->inode, IN_ATTRIB);
  return 0;
}

/* *covered: the dirent, referenced, if something is mounted on it in another namespace. */
static int remove_last(Walk *w, gboolean dir, Dirent **covered) {
  Dirent *d;
  if (!tes_task_lock(&w->pos.d->lock))
    return -EINTR;
  g_autoptr(TesMutexHolder) locked = &w->pos.d->lock;
  int r = v1_lookup_locked(w->ctx, w->pos.d, w->last, &d);
  if (r < 0)
    return r;
  r = remove_dirent(w, d, dir);
  if (r >= 0 && g_atomic_int_get(&d->mounted))
    *covered = v1_dirent_ref(d);
  v1_dirent_unref(d); /* the end of the file itself is told before that of its name */
  if (r >= 0)
    tes_notify_remove(w->pos.d->inode, w->last, dir);
  return r;
}

int v1_remove(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gboolean dir) {
  Walk w;
  Dirent *covered = NULL;
  int r = v1_walk(&w, vfs, ctx, at, W_PARENT);
  if (r < 0)
    return r;
  if (w.last_kind != LAST_NORM) {
    r = rules_remove_last(w.last_kind, dir);
  } else if (v1_read_only(w.pos.mnt)) {
    r = -EROFS;
  } else {
    r = remove_last(&w, dir, &covered);
  }
  if (covered) {
    v1_detach_all(w.v, covered);
    v1_dirent_unref(covered);
  }
  v1_walk_end(&w);
  return r;
}

/* ---- Rename ---- */

/* Ancestors first; nothing moves meanwhile, since renames are one at a time. */
static void lock_pair(Dirent *a, Dirent *b) {
  if (v1_is_above(b, a) || (!v1_is_above(a, b) && b < a)) {
    Dirent *x = a;
    a = b;
    b = x;
  }
  tes_mutex_lock(&a->lock);
  if (a != b)
    tes_mutex_lock(&b->lock);
}

static void unlock_pair(Dirent *a, Dirent *b) {
  tes_mutex_unlock(&a->lock);
  if (a != b)
    tes_mutex_unlock(&b->lock);
}

typedef struct {
  Walk from, to;
  Dirent *source, *target; /* target may be NULL */
  guint flags;
} Rename;

/* Both directories are locked. Returns 1 if there is nothing to do. */
static int find_both(Rename *m) {
  Dirent *odir = m->from.pos.d, *ndir = m->to.pos.d;
  int r = v1_lookup_locked(m->from.ctx, odir, m->from.last, &m->source);
  if (r >= 0)
    r = v1_lookup_locked(m->to.ctx, ndir, m->to.last, &m->target);
  if (r < 0 && (r != -ENOENT || !m->source))
    return r;
  Dirent *s = m->source, *t = m->target;
  RulesRename rules = {.odir = odir->inode,
                       .ndir = ndir->inode,
                       .source = s->inode,
                       .target = t ? t->inode : NULL,
                       .flags = m->flags,
                       .source_slash = m->from.last_slash,
                       .target_slash = m->to.last_slash,
                       .into_itself = v1_is_above(s, ndir),
                       .target_above = t && v1_is_above(t, odir)};
  r = rules_rename_names(&rules);
  if (r != 0)
    return r;
  if ((d_flags(odir) | d_flags(ndir)) & (D_DEAD | D_DELETED))
    return -ENOENT;
  r = rules_may_rename(m->from.ctx, &rules);
  TesMountNs *ns = tes_ctx_mount_ns(m->from.ctx);
  return r >= 0 && (v1_is_mountpoint(ns, s) || (t && v1_is_mountpoint(ns, t))) ? -EBUSY : r;
}

static int ask_rename(Rename *m) {
  TesInode *od = m->from.pos.d->inode;
  return od->ops->rename(od, m->from.last, m->to.pos.d->inode, m->to.last, m->source->inode,
                         m->target ? m->target->inode : NULL, m->from.ctx, m->flags);
}

/* A directory that is replaced is empty, and stays so until it is gone. */
static int ask_replacing_dir(Rename *m) {
  TES_LOCKED(&m->target->lock);
  int r = ask_rename(m);
  if (r >= 0)
    d_set(m->target, D_DEAD);
  return r;
}

static void tell_rename(const Rename *m) {
  const Walk *f = &m->from, *t = &m->to;
  TesInode *x = m->target ? m->target->inode : NULL;
  gboolean exchange = (m->flags & RENAME_EXCHANGE) != 0;
  tes_notify_rename(f->ctx, f->pos.d->inode, f->last, t->pos.d->inode, t->last, m->source->inode,
                    exchange ? NULL : x);
  if (exchange)
    tes_notify_rename(f->ctx, t->pos.d->inode, t->last, f->pos.d->inode, f->last, x, NULL);
}

static int rename_locked(Rename *m) {
  int r = find_both(m);
  if (r != 0)
    return r < 0 ? r : 0;
  gboolean exchange = (m->flags & RENAME_EXCHANGE) != 0;
  if (m->target && S_ISDIR(m->target->inode->mode) && !exchange)
    r = ask_replacing_dir(m);
  else
    r = ask_rename(m);
  if (r < 0)
    return r;
  if (exchange) {
    v1_exchange(m->source, m->target);
  } else {
    if (m->target)
      d_set(m->target, D_DELETED);
    v1_move(m->source, m->to.pos.d, m->to.last, m->target);
  }
  tell_rename(m);
  return 0;
}

static int rename_walked(Rename *m) {
  if (m->from.pos.mnt != m->to.pos.mnt)
    return -EXDEV;
  if (m->from.last_kind != LAST_NORM)
    return -EBUSY;
  if (m->to.last_kind != LAST_NORM)
    return (m->flags & RENAME_NOREPLACE) ? -EEXIST : -EBUSY;
  if (v1_read_only(m->from.pos.mnt))
    return -EROFS;
  TES_LOCKED(&m->from.v->renames);
  lock_pair(m->from.pos.d, m->to.pos.d);
  int r = rename_locked(m);
  unlock_pair(m->from.pos.d, m->to.pos.d);
  return r;
}

int v1_rename(TesVfs *vfs, TesCtx *ctx, const TesAt *from, const TesAt *to, guint flags) {
  Rename m = {.flags = flags};
  int r = rules_rename_flags(flags);
  if (r >= 0)
    r = v1_walk(&m.from, vfs, ctx, from, W_PARENT);
  if (r < 0)
    return r;
  r = v1_walk(&m.to, vfs, ctx, to, W_PARENT);
  if (r >= 0) {
    r = rename_walked(&m);
    if (r >= 0 && m.target && (d_flags(m.target) & D_DELETED))
      v1_detach_all(m.from.v, m.target); /* in other namespaces */
    if (m.source)
      v1_dirent_unref(m.source);
    if (m.target)
      v1_dirent_unref(m.target);
    v1_walk_end(&m.to);
  }
  v1_walk_end(&m.from);
  return r;
}
