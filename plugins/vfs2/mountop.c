/* SPDX-License-Identifier: Apache-2.0 */
/* mount(2), umount2(2), move_mount(2), pivot_root(2). Whether the caller is privileged is checked by the system call layer. */
#include "vfs2.h"

gboolean v2_mount_is_ours(TesCtx *ctx, const Mount *m) {
  TesMountNs *ns = tes_ctx_mount_ns(ctx);
  return m->ns && !m->ns->detached && (!ns || m->ns == ns);
}

/* May something be attached at `at`, which is on top there? mount lock held. */
static int may_attach(TesCtx *ctx, const Pos *at, const Mount *what) {
  if (!v2_mount_is_ours(ctx, at->mnt))
    return -EINVAL;
  if (d_flags(at->d) & (D_DELETED | D_DEAD))
    return -ENOENT;
  return S_ISDIR(d_inode(at->d)->mode) != S_ISDIR(d_inode(what->root)->mode) ? -ENOTDIR : 0;
}

/* Attaches on top of whatever is mounted at the place now; consumes the tree's reference. mount lock held. */
static int attach_at(V2 *v, TesCtx *ctx, const Pos *at, Mount *m, GSList **dead) {
  Pos top = *at;
  v2_mount_top(v, &top);
  int r = may_attach(ctx, &top, m);
  if (r >= 0)
    r = v2_attach_tree(v, m, top.mnt, top.d, dead);
  if (r < 0)
    v2_tree_dissolve(m, dead);
  return r;
}

static int walk_pos(V2 *v, TesCtx *ctx, const TesAt *at, Walk *w) {
  return v2_walk(w, v, ctx, at, walk_flags(at), FALSE);
}

int v2_op_mount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesSuper *s, const char *source, gulong flags) {
  V2 *v = v2_of(vfs);
  Walk w;
  int r = walk_pos(v, ctx, at, &w);
  if (r < 0)
    return r;
  GSList *dead = NULL;
  Mount *m = v2_mount_new(v, tes_super_ref(s), v2_dcache_root(v, s), source, flags);
  tes_mutex_lock(&v->mount_lock);
  gboolean full = v->n_mounts >= V2_MOUNTS_TOTAL;
  v2_mount_enlist(m);
  if (full) {
    v2_tree_dissolve(m, &dead);
    r = -ENOSPC;
  } else {
    r = attach_at(v, ctx, &w.pos, m, &dead);
  }
  tes_mutex_unlock(&v->mount_lock);
  v2_mounts_release(dead);
  v2_walk_end(&w);
  if (r >= 0)
    tes_super_unref(s); /* consumed */
  return r;
}

/* May it be copied? From another namespace only if nobody's (pipes, namespaces as files). mount lock held. */
static int may_copy(TesCtx *ctx, const V2Path *src) {
  const Mount *m = src->mnt;
  if ((d_inode(src->d)->flags & TES_INODE_NO_BIND) || (d_flags(src->d) & D_DEAD))
    return d_flags(src->d) & D_DEAD ? -ENOENT : -EINVAL;
  if (m->unbindable || !(m->anon || v2_mount_is_ours(ctx, m) || (m->ns && m->ns->detached)))
    return -EINVAL;
  return 0;
}

int v2_op_bind(TesVfs *vfs, TesCtx *ctx, TesPath *source, const TesAt *target, gulong flags) {
  V2 *v = v2_of(vfs);
  V2Path *src = v2_path(source);
  Walk w;
  int r = walk_pos(v, ctx, target, &w);
  if (r < 0)
    return r;
  GSList *dead = NULL;
  tes_mutex_lock(&v->mount_lock);
  r = may_copy(ctx, src);
  if (r >= 0) {
    Mount *m = v2_tree_copy(src->mnt, src->d, (flags & MS_REC) ? COPY_TREE : 0);
    r = m ? attach_at(v, ctx, &w.pos, m, &dead) : -ENOSPC;
  }
  tes_mutex_unlock(&v->mount_lock);
  v2_mounts_release(dead);
  v2_walk_end(&w);
  return r;
}

int v2_op_clone_tree(TesVfs *vfs, TesCtx *ctx, TesPath *source, gboolean recursive, TesFile **out) {
  V2 *v = v2_of(vfs);
  V2Path *src = v2_path(source);
  tes_mutex_lock(&v->mount_lock);
  int r = may_copy(ctx, src);
  Mount *m = r < 0 ? NULL : v2_tree_copy(src->mnt, src->d, recursive ? COPY_TREE : 0);
  tes_mutex_unlock(&v->mount_lock);
  if (!m)
    return r < 0 ? r : -ENOSPC;
  *out = v2_detached_file(v, ctx, m);
  return 0;
}

/* ---- Moving ---- */

static int may_move(TesCtx *ctx, const Pos *from, const Pos *to, const Pos *asked) {
  Mount *m = from->mnt;
  if (from->d != m->root || !v2_mount_is_ours(ctx, asked->mnt))
    return -EINVAL;
  if (m->ns && m->ns->detached) {
    if (m != m->ns->root)
      return -EINVAL;
  } else if (!v2_mount_is_ours(ctx, m) || !m->parent || m->parent->group) {
    return -EINVAL;
  }
  if (S_ISDIR(d_inode(to->d)->mode) != S_ISDIR(d_inode(m->root)->mode))
    return -EINVAL;
  for (Mount *x = to->mnt->group ? m : NULL; x; x = v2_mount_next(x, m))
    if (x->unbindable)
      return -EINVAL;
  for (const Mount *x = to->mnt; x; x = x->parent)
    if (x == m)
      return -ELOOP;
  return d_flags(to->d) & (D_DELETED | D_DEAD) ? -ENOENT : 0;
}

static int move_locked(V2 *v, TesCtx *ctx, const Pos *from, const Pos *to, GSList **dead) {
  Pos top = *to;
  v2_mount_top(v, &top);
  int r = may_move(ctx, from, &top, to);
  if (r < 0)
    return r;
  TesMountNs *detached = from->mnt->ns->detached ? from->mnt->ns : NULL;
  r = v2_attach_tree(v, from->mnt, top.mnt, top.d, dead);
  if (r >= 0 && detached)
    v2_ns_free(detached);
  return r;
}

/* move_mount(2), MOVE_MOUNT_SET_GROUP: a mount that is in no group gets those of another of the same filesystem. */
static int set_group(TesCtx *ctx, const Pos *from, const Pos *to) {
  Mount *f = from->mnt, *t = to->mnt;
  if (from->d != f->root || to->d != t->root || !v2_mount_is_ours(ctx, f) || !v2_mount_is_ours(ctx, t))
    return -EINVAL;
  if (f->super != t->super || !v2_tree_below(t->root, f->root) || t->group || t->master)
    return -EINVAL;
  if (f->unbindable || (!f->group && !f->master))
    return -EINVAL;
  v2_slave_of(t, f->master);
  if (f->group)
    v2_group_join(t, f->group);
  t->unbindable = FALSE;
  return 0;
}

int v2_op_move(TesVfs *vfs, TesCtx *ctx, TesPath *from, TesPath *to, guint how) {
  V2 *v = v2_of(vfs);
  Pos f = {v2_path(from)->mnt, v2_path(from)->d}, t = {v2_path(to)->mnt, v2_path(to)->d};
  GSList *dead = NULL;
  tes_mutex_lock(&v->mount_lock);
  int r = how == TES_MOVE_SET_GROUP ? set_group(ctx, &f, &t) : move_locked(v, ctx, &f, &t, &dead);
  tes_mutex_unlock(&v->mount_lock);
  v2_mounts_release(dead);
  return r;
}

/* ---- Unmounting ---- */

/* mount lock held; the walk holds one reference of its own. */
static int may_umount(const Walk *w, int flags) {
  Mount *m = w->pos.mnt;
  if (w->pos.d != m->root || !v2_mount_is_ours(w->ctx, m))
    return -EINVAL;
  if ((flags & MNT_EXPIRE) && m == v2_path(tes_ctx_root(w->ctx))->mnt)
    return -EINVAL;
  if (!m->parent)
    return (flags & MNT_DETACH) ? -EINVAL : -EBUSY;
  if (flags & MNT_DETACH)
    return 0;
  if (m->children || g_atomic_int_get(&m->refs) > 2)
    return -EBUSY;
  if ((flags & MNT_EXPIRE) && !__atomic_exchange_n(&m->expire_mark, 1, __ATOMIC_RELAXED))
    return -EAGAIN;
  return v2_umount_busy(m) ? -EBUSY : 0;
}

int v2_op_umount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, int flags) {
  V2 *v = v2_of(vfs);
  Walk w;
  if ((flags & MNT_EXPIRE) && (flags & (MNT_FORCE | MNT_DETACH)))
    return -EINVAL;
  int r = walk_pos(v, ctx, at, &w);
  if (r < 0)
    return r;
  v2_cross_mounts(v, &w.pos); /* "." may be covered: pivot_root(".", ".") */
  GSList *dead = NULL;
  tes_mutex_lock(&v->mount_lock);
  r = may_umount(&w, flags);
  if (r >= 0)
    v2_umount_tree(w.pos.mnt, &dead);
  tes_mutex_unlock(&v->mount_lock);
  if (r == -EAGAIN) { /* this look does not count as use */
    v2_dentry_unref(w.pos.d);
    v2_mount_unref_unused(w.pos.mnt);
    w.pos = (Pos){NULL, NULL};
  }
  v2_walk_end(&w);
  v2_mounts_release(dead);
  return r;
}

void v2_detach_mounts(V2 *v, Dentry *d) {
  GSList *dead = NULL;
  tes_mutex_lock(&v->mount_lock);
  for (Mount *m; (m = v2_mount_at_place(d));)
    v2_umount_tree(m, &dead);
  tes_mutex_unlock(&v->mount_lock);
  v2_mounts_release(dead);
}

/* ---- pivot_root(2) ---- */

/* mount lock held. old_root: the caller's root. */
static int may_pivot(TesCtx *ctx, const Pos *nr, const Pos *po, const Pos *old_root) {
  Mount *n = nr->mnt, *o = old_root->mnt;
  if (po->mnt->group || (n->parent && n->parent->group) || (o->parent && o->parent->group))
    return -EINVAL;
  if (!v2_mount_is_ours(ctx, n) || !v2_mount_is_ours(ctx, o))
    return -EINVAL;
  if ((d_flags(nr->d) | d_flags(po->d)) & (D_DELETED | D_DEAD))
    return -ENOENT;
  if (n == o || po->mnt == o)
    return -EBUSY;
  if (old_root->d != o->root || nr->d != n->root || po->mnt->ns != n->ns || !n->parent)
    return -EINVAL;
  return v2_pos_below(po, nr) && v2_pos_below(nr, old_root) ? 0 : -EINVAL;
}

static void pivot(const Pos *nr, const Pos *po, const Pos *old_root) {
  Mount *n = nr->mnt, *o = old_root->mnt;
  TesMountNs *ns = n->ns;
  Mount *above = o->parent; /* NULL: the namespace's root */
  if (!above) {
    v2_mount_unlink(n);
    v2_tree_set_ns(n, ns);
    ns->root = n;
    v2_mount_attach(o, ns, po->mnt, po->d);
  } else {
    Dentry *mp = v2_dentry_ref(o->mountpoint);
    v2_mount_attach(n, ns, above, mp);
    v2_mount_attach(o, ns, po->mnt, po->d);
    v2_dentry_unref(mp);
  }
  v2_ns_changed(ns);
}

/* Processes whose root or working directory was the old root move to the new one. A process may be looking at the old path
 * right now, without a reference of its own. */
static void move_processes(TesKernel *k, const V2Path *from, V2 *v, const Pos *to) {
  g_autoptr(GPtrArray) all = tes_tasks_snapshot(k, NULL);
  for (guint i = 0; all && i < all->len; i++) {
    TesTask *t = all->pdata[i];
    TesFsInfo *fs = tes_task_fsinfo(t);
    if (!fs)
      continue;
    g_autoptr(TesPath) root = tes_fsinfo_root(fs);
    g_autoptr(TesPath) cwd = tes_fsinfo_cwd(fs);
    if (root && v2_path(root)->mnt == from->mnt && v2_path(root)->d == from->d) {
      tes_fsinfo_set_root(fs, v2_path_new(v, v2_mount_ref(to->mnt), v2_dentry_ref(to->d)));
      tes_task_drop_path(t, g_steal_pointer(&root));
    }
    if (cwd && v2_path(cwd)->mnt == from->mnt && v2_path(cwd)->d == from->d) {
      tes_fsinfo_set_cwd(fs, v2_path_new(v, v2_mount_ref(to->mnt), v2_dentry_ref(to->d)));
      tes_task_drop_path(t, g_steal_pointer(&cwd));
    }
    tes_fsinfo_unref(fs);
  }
}

int v2_op_pivot_root(TesVfs *vfs, TesCtx *ctx, const TesAt *new_root, const TesAt *put_old) {
  V2 *v = v2_of(vfs);
  Walk n, o;
  int r = v2_walk(&n, v, ctx, new_root, W_DIRECTORY, FALSE);
  if (r < 0)
    return r;
  r = v2_walk(&o, v, ctx, put_old, W_DIRECTORY, FALSE);
  if (r < 0) {
    v2_walk_end(&n);
    return r;
  }
  g_autoptr(TesPath) root = tes_path_ref(tes_ctx_root(ctx));
  Pos old = {v2_path(root)->mnt, v2_path(root)->d};
  tes_mutex_lock(&v->mount_lock);
  Pos put = o.pos;
  v2_mount_top(v, &put);
  r = may_pivot(ctx, &n.pos, &put, &old);
  if (r >= 0)
    pivot(&n.pos, &put, &old);
  tes_mutex_unlock(&v->mount_lock);
  if (r >= 0)
    move_processes(ctx->kernel, v2_path(root), v, &n.pos);
  v2_walk_end(&o);
  v2_walk_end(&n);
  return r;
}
