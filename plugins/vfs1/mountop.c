/* SPDX-License-Identifier: Apache-2.0 */
/* mount(2), umount2(2), move_mount(2), pivot_root(2). Who may do it is checked by the system call layer. */
#include "vfs1.h"

#define MAX_MOUNTS 100000 /* of a namespace, as fs.mount-max */

gboolean v1_is_ours(TesCtx *ctx, const Mount *m) {
  TesMountNs *ns = tes_ctx_mount_ns(ctx);
  return m->ns && !m->ns->detached && (!ns || m->ns == ns);
}

/* ---- Attaching; mount lock held ---- */

/* What is on top at a place now. */
static Pos top_of(const Pos *at) {
  Pos p = *at;
  Mount *over;
  while ((over = g_hash_table_lookup(p.mnt->children, p.d)))
    p = (Pos){over, over->root};
  return p;
}

static gboolean has_room(TesMountNs *ns, Mount *more) {
  g_autoptr(GPtrArray) have = v1_tree(ns->root), come = v1_tree(more);
  return have->len + come->len <= MAX_MOUNTS;
}

/* Attaches a new tree on top of whatever is mounted at the place; it goes to `dead` if it cannot. */
static int attach_new(TesCtx *ctx, const Pos *at, Mount *m, Dead *dead) {
  Pos top = top_of(at);
  int r = 0;
  if (!v1_is_ours(ctx, top.mnt))
    r = -EINVAL;
  else if (d_flags(top.d) & (D_DELETED | D_DEAD))
    r = -ENOENT;
  else if (S_ISDIR(top.d->inode->mode) != S_ISDIR(m->root->inode->mode))
    r = -ENOTDIR;
  else if (!has_room(top.mnt->ns, m))
    r = -ENOSPC;
  if (r < 0) {
    v1_detach_tree(m, dead);
    return r;
  }
  v1_attach(m, top.mnt->ns, top.mnt, top.d);
  v1_ns_changed(m->ns);
  return 0;
}

int v1_mount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesSuper *s, const char *source, gulong flags) {
  V1 *v = v1_of(vfs);
  Dead dead = {NULL, NULL};
  Walk w;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  if (!v1_has_room(v, 1)) {
    v1_walk_end(&w);
    return -ENOSPC;
  }
  Mount *m = v1_mount_new(v, tes_super_ref(s), v1_root_of(v, s), source, flags);
  tes_mutex_lock(&v->mounts);
  r = attach_new(ctx, &w.pos, m, &dead);
  tes_mutex_unlock(&v->mounts);
  v1_release(&dead);
  v1_walk_end(&w);
  if (r >= 0)
    tes_super_unref(s); /* consumed */
  return r;
}

/* ---- Copies ---- */

/* From another namespace only what is nobody's (pipes, detached trees). */
static int may_copy(TesCtx *ctx, const Pos *p) {
  const Mount *m = p->mnt;
  if (d_flags(p->d) & D_DEAD)
    return -ENOENT;
  if (p->d->inode->flags & TES_INODE_NO_BIND)
    return -EINVAL;
  gboolean free_ = m->anon || (m->ns && m->ns->detached);
  return m->unbindable || !(free_ || v1_is_ours(ctx, m)) ? -EINVAL : 0;
}

int v1_bind(TesVfs *vfs, TesCtx *ctx, TesPath *source, const TesAt *target, gulong flags) {
  V1 *v = v1_of(vfs);
  Pos *src = v1_pos(source);
  Dead dead = {NULL, NULL};
  Walk w;
  int r = v1_walk(&w, vfs, ctx, target, walk_flags(target));
  if (r < 0)
    return r;
  tes_mutex_lock(&v->mounts);
  r = may_copy(ctx, src);
  if (r >= 0) {
    Mount *m = v1_copy_tree(src->mnt, src->d, (flags & MS_REC) != 0, FALSE);
    r = m ? attach_new(ctx, &w.pos, m, &dead) : -ENOSPC;
  }
  tes_mutex_unlock(&v->mounts);
  v1_release(&dead);
  v1_walk_end(&w);
  return r;
}

int v1_clone_tree(TesVfs *vfs, TesCtx *ctx, TesPath *source, gboolean recursive, TesFile **out) {
  V1 *v = v1_of(vfs);
  Pos *src = v1_pos(source);
  tes_mutex_lock(&v->mounts);
  int r = may_copy(ctx, src);
  Mount *m = r < 0 ? NULL : v1_copy_tree(src->mnt, src->d, recursive, FALSE);
  tes_mutex_unlock(&v->mounts);
  if (!m)
    return r < 0 ? r : -ENOSPC;
  *out = v1_detached_file(v, ctx, m);
  return 0;
}

/* ---- Moving ---- */

static int may_move(TesCtx *ctx, const Pos *from, const Pos *top, const Pos *asked) {
  Mount *m = from->mnt;
  if (from->d != m->root || !m->ns || !v1_is_ours(ctx, asked->mnt))
    return -EINVAL;
  if (m->ns->detached ? m != m->ns->root : (!v1_is_ours(ctx, m) || !m->parent))
    return -EINVAL;
  if (S_ISDIR(top->d->inode->mode) != S_ISDIR(m->root->inode->mode))
    return -EINVAL;
  for (const Mount *x = top->mnt; x; x = x->parent)
    if (x == m)
      return -ELOOP;
  if (d_flags(top->d) & (D_DELETED | D_DEAD))
    return -ENOENT;
  return m->ns->detached && !has_room(top->mnt->ns, m) ? -ENOSPC : 0;
}

int v1_move_mount(TesVfs *vfs, TesCtx *ctx, TesPath *from, TesPath *to, guint how) {
  V1 *v = v1_of(vfs);
  Mount *m = v1_pos(from)->mnt;
  Dead dead = {NULL, NULL};
  if (how != TES_MOVE_MOUNT)
    return -EINVAL; /* there are no peer groups */
  tes_mutex_lock(&v->mounts);
  Pos top = top_of(v1_pos(to));
  int r = may_move(ctx, v1_pos(from), &top, v1_pos(to));
  if (r >= 0) {
    TesMountNs *detached = m->ns->detached ? m->ns : NULL;
    v1_detach(m, &dead);
    v1_attach(v1_mount_ref(m), top.mnt->ns, top.mnt, top.d);
    v1_ns_changed(m->ns);
    if (detached)
      v1_ns_free(detached);
  }
  tes_mutex_unlock(&v->mounts);
  v1_release(&dead);
  return r;
}

/* ---- Unmounting ---- */

/* Mount lock held; the walk holds one reference of its own, the tree another. */
static int may_umount(const Walk *w, int flags) {
  Mount *m = w->pos.mnt;
  if (w->pos.d != m->root || !v1_is_ours(w->ctx, m))
    return -EINVAL;
  if ((flags & MNT_EXPIRE) && m == v1_pos(tes_ctx_root(w->ctx))->mnt)
    return -EINVAL;
  if (!m->parent)
    return (flags & MNT_DETACH) ? -EINVAL : -EBUSY;
  if (flags & MNT_DETACH)
    return 0;
  if (g_hash_table_size(m->children) || g_atomic_int_get(&m->refs) > 2)
    return -EBUSY;
  return (flags & MNT_EXPIRE) && g_atomic_int_compare_and_exchange(&m->expire_mark, 0, 1) ? -EAGAIN : 0;
}

int v1_umount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, int flags) {
  V1 *v = v1_of(vfs);
  Walk w;
  Dead dead = {NULL, NULL};
  if ((flags & MNT_EXPIRE) && (flags & (MNT_FORCE | MNT_DETACH)))
    return -EINVAL;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  v1_cross(v, &w.pos); /* "." may be covered: pivot_root(".", ".") */
  tes_mutex_lock(&v->mounts);
  r = may_umount(&w, flags);
  if (r >= 0) {
    v1_ns_changed(w.pos.mnt->ns);
    v1_detach_tree(w.pos.mnt, &dead);
  }
  tes_mutex_unlock(&v->mounts);
  if (r == -EAGAIN) { /* this look is no use that takes the mark back */
    v1_dirent_unref(w.pos.d);
    v1_mount_unref_unused(w.pos.mnt);
    w.pos = (Pos){NULL, NULL};
  }
  v1_walk_end(&w);
  v1_release(&dead);
  return r;
}

/* Some mount on the dirent, in whatever tree. */
static Mount *find_on(V1 *v, const Dirent *d) {
  GHashTableIter it;
  gpointer key;
  Mount *found = NULL;
  tes_rwlock_read(&v->tree);
  g_hash_table_iter_init(&it, v->all);
  while (!found && g_hash_table_iter_next(&it, &key, NULL))
    found = ((Mount *)key)->point == d ? key : NULL;
  tes_rwlock_unlock(&v->tree);
  return found;
}

void v1_detach_all(V1 *v, Dirent *d) {
  Dead dead = {NULL, NULL};
  if (!g_atomic_int_get(&d->mounted))
    return;
  tes_mutex_lock(&v->mounts);
  for (Mount *m; (m = find_on(v, d));) {
    if (m->ns)
      v1_ns_changed(m->ns);
    v1_detach_tree(m, &dead);
  }
  tes_mutex_unlock(&v->mounts);
  v1_release(&dead);
}

/* ---- pivot_root(2) ---- */

/* Is p at or below `top` in the mount tree? Mount lock held. */
static gboolean is_below(V1 *v, const Pos *p, const Pos *top) {
  Pos x = *p;
  while (x.mnt != top->mnt) {
    if (!x.mnt->parent)
      return FALSE;
    x = (Pos){x.mnt->parent, x.mnt->point};
  }
  tes_rwlock_read(&v->tree);
  gboolean below = v1_is_above(top->d, x.d);
  tes_rwlock_unlock(&v->tree);
  return below;
}

static int may_pivot(V1 *v, TesCtx *ctx, const Pos *new_root, const Pos *put_old, const Pos *root) {
  Mount *n = new_root->mnt, *o = root->mnt;
  if (!v1_is_ours(ctx, n) || !v1_is_ours(ctx, o))
    return -EINVAL;
  if ((d_flags(new_root->d) | d_flags(put_old->d)) & (D_DELETED | D_DEAD))
    return -ENOENT;
  if (n == o || put_old->mnt == o)
    return -EBUSY;
  if (root->d != o->root || new_root->d != n->root || put_old->mnt->ns != n->ns || !n->parent)
    return -EINVAL;
  return is_below(v, put_old, new_root) && is_below(v, new_root, root) ? 0 : -EINVAL;
}

/* Mount lock held. */
static void pivot(const Pos *new_root, const Pos *put_old, const Pos *root, Dead *dead) {
  Mount *n = new_root->mnt, *o = root->mnt, *above = o->parent;
  TesMountNs *ns = n->ns;
  Dirent *point = o->point; /* both alive until `dead` is released */
  v1_detach(n, dead);
  v1_detach(o, dead);
  v1_mount_ref(n); /* the trees' references, anew */
  v1_mount_ref(o);
  if (above) {
    v1_attach(n, ns, above, point);
  } else {
    ns->root = n;
    v1_set_ns(n, ns);
  }
  v1_attach(o, ns, put_old->mnt, put_old->d);
  v1_ns_changed(ns);
}

/* Processes whose root or working directory was the old root move to the new one. */
static void move_processes(V1 *v, const Pos *from, const Pos *to) {
  g_autoptr(GPtrArray) all = tes_tasks_snapshot(v->base.kernel, NULL);
  for (guint i = 0; all && i < all->len; i++) {
    TesTask *t = all->pdata[i];
    TesFsInfo *fs = tes_task_fsinfo(t);
    if (!fs)
      continue;
    struct {
      TesPath *path;
      void (*set)(TesFsInfo *, TesPath *);
    } places[] = {{tes_fsinfo_root(fs), tes_fsinfo_set_root}, {tes_fsinfo_cwd(fs), tes_fsinfo_set_cwd}};
    for (guint k = 0; k < G_N_ELEMENTS(places); k++) {
      Pos *p = places[k].path ? v1_pos(places[k].path) : NULL;
      if (p && p->mnt == from->mnt && p->d == from->d) {
        places[k].set(fs, v1_path_new(v, v1_mount_ref(to->mnt), v1_dirent_ref(to->d)));
        tes_task_drop_path(t, places[k].path); /* the process may be looking at it, without a reference */
      } else if (p) {
        tes_path_unref(places[k].path);
      }
    }
    tes_fsinfo_unref(fs);
  }
}

int v1_pivot_root(TesVfs *vfs, TesCtx *ctx, const TesAt *new_root, const TesAt *put_old) {
  V1 *v = v1_of(vfs);
  Walk n, o;
  Dead dead = {NULL, NULL};
  int r = v1_walk(&n, vfs, ctx, new_root, W_DIRECTORY);
  if (r < 0)
    return r;
  r = v1_walk(&o, vfs, ctx, put_old, W_DIRECTORY);
  if (r < 0) {
    v1_walk_end(&n);
    return r;
  }
  g_autoptr(TesPath) root = tes_path_ref(tes_ctx_root(ctx));
  tes_mutex_lock(&v->mounts);
  Pos put = top_of(&o.pos);
  r = may_pivot(v, ctx, &n.pos, &put, v1_pos(root));
  if (r >= 0)
    pivot(&n.pos, &put, v1_pos(root), &dead);
  tes_mutex_unlock(&v->mounts);
  if (r >= 0)
    move_processes(v, v1_pos(root), &n.pos);
  v1_release(&dead);
  v1_walk_end(&o);
  v1_walk_end(&n);
  return r;
}
