/* SPDX-License-Identifier: Apache-2.0 */
/* mount(2), umount2(2), pivot_root(2), and the list for /proc/PID/mountinfo. Who may do it is checked by the system call layer. */
#include "vfs2.h"

#define MAX_MOUNTS 100000 /* per namespace, as fs.mount-max */
#define MAX_NESTING 500

static guint count_mounts(const Mount *m) {
  guint n = 1;
  for (const Mount *c = m->children; c; c = c->snext)
    n += count_mounts(c);
  return n;
}

static guint nesting(const Mount *m) {
  guint n = 0;
  for (; m; m = m->parent)
    n++;
  return n;
}

/* May something be attached at `at` now? mount lock held. */
static int may_attach(const Pos *at, const Mount *what) {
  TesMountNs *ns = at->mnt->ns;
  if (!ns)
    return -EINVAL; /* a detached tree */
  if (d_flags(at->d) & (D_DELETED | D_DEAD))
    return -ENOENT;
  if (S_ISDIR(d_inode(at->d)->mode) != S_ISDIR(d_inode(what->root)->mode))
    return -ENOTDIR;
  if (nesting(at->mnt) >= MAX_NESTING || count_mounts(ns->root) >= MAX_MOUNTS)
    return -ENOSPC;
  return 0;
}

/* Attaches on top of whatever is mounted at the place now. `m`: the caller keeps its reference. */
static int attach_at(V2 *v, Pos *at, Mount *m) {
  tes_mutex_lock(&v->mount_lock);
  int r = may_attach(at, m);
  if (r >= 0) {
    Mount *parent = at->mnt, *over;
    Dentry *mp = at->d;
    while ((over = v2_mount_find(v, parent, mp))) {
      parent = over;
      mp = over->root;
    }
    v2_mount_attach(m, at->mnt->ns, parent, mp);
  }
  tes_mutex_unlock(&v->mount_lock);
  return r;
}

static int walk_pos(V2 *v, TesCtx *ctx, const TesAt *at, Walk *w) {
  return v2_walk(w, v, ctx, at, v2_at_flags(at), FALSE);
}

int v2_op_mount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesSuper *s, const char *source, gulong flags) {
  V2 *v = v2_of(vfs);
  Walk w;
  int r = walk_pos(v, ctx, at, &w);
  if (r < 0)
    return r;
  Mount *m = v2_mount_new(v, tes_super_ref(s), v2_dcache_root(v, s), source, flags);
  r = attach_at(v, &w.pos, m);
  v2_mount_unref(m);
  v2_walk_end(&w);
  if (r >= 0)
    tes_super_unref(s); /* consumed */
  return r;
}

int v2_op_bind(TesVfs *vfs, TesCtx *ctx, TesPath *source, const TesAt *target, gulong flags) {
  V2 *v = v2_of(vfs);
  V2Path *src = v2_path(source);
  Walk w;
  int r = walk_pos(v, ctx, target, &w);
  if (r < 0)
    return r;
  Mount *m = NULL;
  GSList *dead = NULL;
  tes_mutex_lock(&v->mount_lock);
  if (!src->mnt->ns && !src->mnt->anon)
    r = -EINVAL;
  else if (d_flags(src->d) & D_DEAD)
    r = -ENOENT;
  else
    m = v2_mount_copy(src->mnt, src->d, w.pos.mnt->ns, (flags & MS_REC) != 0);
  tes_mutex_unlock(&v->mount_lock);
  if (m) {
    r = attach_at(v, &w.pos, m);
    if (r < 0) {
      tes_mutex_lock(&v->mount_lock);
      while (m->children)
        v2_mount_detach_tree(m->children, &dead);
      tes_mutex_unlock(&v->mount_lock);
      v2_mounts_release(dead);
    }
    v2_mount_unref(m);
  }
  v2_walk_end(&w);
  return r;
}

int v2_op_remount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags, const char *opts) {
  V2 *v = v2_of(vfs);
  Walk w;
  int r = walk_pos(v, ctx, at, &w);
  if (r < 0)
    return r;
  TesSuper *s = w.pos.mnt->super;
  gulong keep = flags & V2_MOUNT_FLAGS;
  if (w.pos.d != w.pos.mnt->root)
    r = -EINVAL;
  else if (!(flags & MS_BIND)) {
    if (TES_HAS(s->ops, remount))
      r = s->ops->remount(s, ctx, flags, opts);
    else if (opts && *opts)
      r = -EINVAL;
    else
      s->read_only = (flags & MS_RDONLY) != 0;
  }
  if (r >= 0)
    __atomic_store_n(&w.pos.mnt->flags, keep, __ATOMIC_RELEASE);
  v2_walk_end(&w);
  return r;
}

/* All mounts are private: making them private (or slaves of nobody) changes nothing, sharing is not supported. */
int v2_op_propagation(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags) {
  Walk w;
  int r = walk_pos(v2_of(vfs), ctx, at, &w);
  if (r < 0)
    return r;
  if (w.pos.d != w.pos.mnt->root || !(flags & (MS_PRIVATE | MS_SLAVE)))
    r = -EINVAL;
  v2_walk_end(&w);
  return r;
}

/* mount lock held; the walk holds one reference of its own. */
static int may_umount(const Walk *w, int flags) {
  Mount *m = w->pos.mnt;
  if (w->pos.d != m->root || !m->ns)
    return -EINVAL;
  if (m == m->ns->root)
    return (flags & MNT_DETACH) ? -EINVAL : -EBUSY;
  if (flags & MNT_DETACH)
    return 0;
  if (m->children || g_atomic_int_get(&m->refs) > 2)
    return -EBUSY;
  if ((flags & MNT_EXPIRE) && g_atomic_int_compare_and_exchange(&m->expire_mark, 0, 1))
    return -EAGAIN;
  return 0;
}

int v2_op_umount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, int flags) {
  V2 *v = v2_of(vfs);
  Walk w;
  if ((flags & MNT_EXPIRE) && (flags & (MNT_FORCE | MNT_DETACH)))
    return -EINVAL;
  int r = walk_pos(v, ctx, at, &w);
  if (r < 0)
    return r;
  GSList *dead = NULL;
  tes_mutex_lock(&v->mount_lock);
  r = may_umount(&w, flags);
  if (r >= 0)
    v2_mount_detach_tree(w.pos.mnt, &dead);
  tes_mutex_unlock(&v->mount_lock);
  v2_walk_end(&w);
  v2_mounts_release(dead);
  return r;
}

/* ---- pivot_root(2) ---- */

static gboolean below(const Pos *p, const Pos *root) {
  Mount *m = p->mnt;
  const Dentry *d = p->d;
  while (m != root->mnt) {
    if (!m->parent)
      return FALSE;
    d = m->mountpoint;
    m = m->parent;
  }
  for (; d; d = d->parent)
    if (d == root->d)
      return TRUE;
  return FALSE;
}

/* mount lock held. old_root: the caller's root. */
static int pivot_locked(const Pos *nr, const Pos *po, const Pos *old_root) {
  Mount *n = nr->mnt, *o = old_root->mnt;
  if (!n->ns || n->ns != o->ns || po->mnt->ns != n->ns || nr->d != n->root || old_root->d != o->root)
    return -EINVAL;
  if (n == o || po->mnt == o)
    return -EBUSY;
  if (!below(po, nr) || !below(nr, old_root) || !n->parent)
    return -EINVAL;
  if (!S_ISDIR(d_inode(po->d)->mode))
    return -ENOTDIR;
  TesMountNs *ns = n->ns;
  Mount *top = o->parent; /* NULL: the namespace's root */
  Dentry *top_mp = o->mountpoint;
  if (top)
    v2_dentry_ref(top_mp);
  v2_mount_unlink(n);
  v2_mount_unlink(o);
  if (top) {
    v2_mount_attach(n, ns, top, top_mp);
    v2_mount_unref(n);
    v2_dentry_unref(top_mp);
  } else {
    ns->root = n;
    n->ns = ns;
  }
  v2_mount_attach(o, ns, po->mnt, po->d);
  v2_mount_unref(o); /* the tree's old reference; attaching took another */
  return 0;
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
  r = pivot_locked(&n.pos, &o.pos, &old);
  tes_mutex_unlock(&v->mount_lock);
  if (r >= 0)
    move_processes(ctx->kernel, v2_path(root), v, &n.pos);
  v2_walk_end(&o);
  v2_walk_end(&n);
  return r;
}

/* ---- /proc/PID/mountinfo ---- */

static char *options(const Mount *m) {
  static const struct {
    gulong flag;
    const char *text;
  } table[] = {{MS_NOSUID, ",nosuid"},
               {MS_NODEV, ",nodev"},
               {MS_NOEXEC, ",noexec"},
               {MS_NOATIME, ",noatime"},
               {MS_NODIRATIME, ",nodiratime"}};
  gulong f = v2_mount_flags((Mount *)m);
  GString *s = g_string_new(f & MS_RDONLY ? "ro" : "rw");
  for (guint i = 0; i < G_N_ELEMENTS(table); i++)
    if (f & table[i].flag)
      g_string_append(s, table[i].text);
  if (!(f & (MS_NOATIME | MS_STRICTATIME)))
    g_string_append(s, ",relatime");
  return g_string_free(s, FALSE);
}

static void describe(V2 *v, Mount *m, guint parent, const Pos *root,
                     void (*fn)(const TesMountInfo *, gpointer), gpointer data) {
  Pos at = {m, m->root};
  g_autofree char *point = v2_name_of(v, root, &at, FALSE), *inside = v2_name_of(v, NULL, &at, TRUE);
  if (g_str_has_prefix(point, "(unreachable)"))
    return;
  g_autofree char *opts = options(m);
  g_autofree char *more = TES_HAS(m->super->ops, show_options) ? m->super->ops->show_options(m->super) : NULL;
  TesMountInfo info = {.id = m->id,
                       .parent_id = parent,
                       .dev = m->super->dev,
                       .root = inside,
                       .mount_point = point,
                       .type = m->super->type,
                       .source = m->source,
                       .options = opts,
                       .super_options = more ? more : "",
                       .propagation = ""};
  fn(&info, data);
}

/* Parents before children, older ones first. */
static void collect(Mount *m, GPtrArray *mounts, GArray *parents, guint parent) {
  g_ptr_array_add(mounts, v2_mount_ref(m));
  g_array_append_val(parents, parent);
  Mount *c = m->children;
  while (c && c->snext)
    c = c->snext;
  for (; c; c = c->sprev)
    collect(c, mounts, parents, m->id);
}

void v2_op_mounts(TesVfs *vfs, TesCtx *ctx, TesPath *root, void (*fn)(const TesMountInfo *, gpointer),
                  gpointer data) {
  V2 *v = v2_of(vfs);
  TesMountNs *ns = root ? NULL : tes_ctx_mount_ns(ctx);
  Pos r = root ? (Pos){v2_path(root)->mnt, v2_path(root)->d} : (Pos){NULL, NULL};
  g_autoptr(GPtrArray) mounts = g_ptr_array_new_with_free_func((GDestroyNotify)v2_mount_unref);
  g_autoptr(GArray) parents = g_array_new(FALSE, FALSE, sizeof(guint));
  tes_mutex_lock(&v->mount_lock);
  if (root)
    ns = r.mnt->ns;
  if (ns)
    collect(ns->root, mounts, parents, 0);
  tes_mutex_unlock(&v->mount_lock);
  if (!root && ns)
    r = (Pos){ns->root, ns->root->root};
  for (guint i = 0; i < mounts->len; i++)
    describe(v, mounts->pdata[i], g_array_index(parents, guint, i), &r, fn, data);
}
