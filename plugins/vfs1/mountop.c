/* SPDX-License-Identifier: Apache-2.0 */
/* mount(2), umount2(2), pivot_root(2), and the list for /proc/PID/mountinfo. Who may do it is checked by the system call layer. All
 * mounts are private: what is mounted in one namespace never appears in another. */
#include "vfs1.h"

#define MAX_MOUNTS 100000 /* per namespace, as fs.mount-max */
#define MAX_NESTING 500

static guint count_mounts(const Mount *m) {
  guint n = 1;
  GHashTableIter it;
  gpointer child;
  g_hash_table_iter_init(&it, m->children);
  while (g_hash_table_iter_next(&it, NULL, &child))
    n += count_mounts(child);
  return n;
}

static guint nesting(const Mount *m) {
  guint n = 0;
  for (; m; m = m->parent)
    n++;
  return n;
}

/* Attaches a tree on top of whatever is mounted at the place now; the caller keeps its reference. */
static int attach_at(V1 *v, const Pos *at, Mount *m) {
  TES_LOCKED(&v->mounts);
  TesMountNs *ns = at->mnt->ns;
  if (!ns)
    return -EINVAL; /* a detached tree */
  if (d_flags(at->d) & (D_DELETED | D_DEAD))
    return -ENOENT;
  if (S_ISDIR(at->d->inode->mode) != S_ISDIR(m->root->inode->mode))
    return -ENOTDIR;
  Mount *parent = at->mnt, *over;
  Dirent *point = at->d;
  while ((over = g_hash_table_lookup(parent->children, point))) {
    parent = over;
    point = over->root;
  }
  if (nesting(parent) >= MAX_NESTING || count_mounts(ns->root) + count_mounts(m) > MAX_MOUNTS)
    return -ENOSPC;
  v1_mount_attach(m, ns, parent, point);
  v1_set_ns(m, ns);
  return 0;
}

int v1_mount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesSuper *s, const char *source, gulong flags) {
  V1 *v = v1_of(vfs);
  Walk w;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  Mount *m = v1_mount_new(v, tes_super_ref(s), v1_root_of(v, s), source, flags);
  r = attach_at(v, &w.pos, m);
  v1_mount_unref(m);
  v1_walk_end(&w);
  if (r >= 0)
    tes_super_unref(s); /* consumed */
  return r;
}

/* A tree that found no place. */
static void discard(Mount *m) {
  Dead dead = {NULL, NULL};
  tes_mutex_lock(&m->v->mounts);
  v1_mount_detach_tree(m, &dead);
  tes_mutex_unlock(&m->v->mounts);
  v1_release(&dead); /* the top's reference was the caller's */
}

int v1_bind(TesVfs *vfs, TesCtx *ctx, TesPath *source, const TesAt *target, gulong flags) {
  V1 *v = v1_of(vfs);
  Pos *src = v1_pos(source);
  Walk w;
  int r = v1_walk(&w, vfs, ctx, target, walk_flags(target));
  if (r < 0)
    return r;
  Mount *m = NULL;
  tes_mutex_lock(&v->mounts);
  if (!src->mnt->ns && !src->mnt->anon)
    r = -EINVAL;
  else if (d_flags(src->d) & D_DEAD)
    r = -ENOENT;
  else
    m = v1_mount_copy(src->mnt, src->d, (flags & MS_REC) != 0);
  tes_mutex_unlock(&v->mounts);
  if (m) {
    r = attach_at(v, &w.pos, m);
    if (r < 0)
      discard(m);
    else
      v1_mount_unref(m);
  }
  v1_walk_end(&w);
  return r;
}

int v1_remount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags, const char *opts) {
  Walk w;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  TesSuper *s = w.pos.mnt->super;
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
    __atomic_store_n(&w.pos.mnt->flags, flags & V1_MOUNT_FLAGS, __ATOMIC_RELEASE);
  v1_walk_end(&w);
  return r;
}

/* Private is what every mount is, and a private one stays so as a slave of nobody; sharing is not served. */
int v1_propagation(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags) {
  Walk w;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  if (w.pos.d != w.pos.mnt->root || !(flags & (MS_PRIVATE | MS_SLAVE)))
    r = -EINVAL;
  v1_walk_end(&w);
  return r;
}

/* Mount lock held; the walk holds one reference of its own, the tree another. */
static int may_umount(const Walk *w, int flags) {
  Mount *m = w->pos.mnt;
  if (w->pos.d != m->root || !m->ns)
    return -EINVAL;
  if (m == m->ns->root)
    return (flags & MNT_DETACH) ? -EINVAL : -EBUSY;
  if (flags & MNT_DETACH)
    return 0;
  if (g_hash_table_size(m->children) || g_atomic_int_get(&m->refs) > 2)
    return -EBUSY;
  if ((flags & MNT_EXPIRE) && g_atomic_int_compare_and_exchange(&m->expire_mark, 0, 1))
    return -EAGAIN;
  return 0;
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
  tes_mutex_lock(&v->mounts);
  r = may_umount(&w, flags);
  if (r >= 0)
    v1_mount_detach_tree(w.pos.mnt, &dead);
  tes_mutex_unlock(&v->mounts);
  v1_walk_end(&w);
  v1_release(&dead);
  return r;
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

static int may_pivot(V1 *v, const Pos *new_root, const Pos *put_old, const Pos *root) {
  Mount *n = new_root->mnt, *o = root->mnt;
  if (!n->ns || n->ns != o->ns || put_old->mnt->ns != n->ns || new_root->d != n->root || root->d != o->root)
    return -EINVAL;
  if (n == o || put_old->mnt == o)
    return -EBUSY;
  if (!is_below(v, put_old, new_root) || !is_below(v, new_root, root) || !n->parent)
    return -EINVAL;
  return S_ISDIR(put_old->d->inode->mode) ? 0 : -ENOTDIR;
}

/* Mount lock held. */
static void pivot(const Pos *new_root, const Pos *put_old, const Pos *root, Dead *dead) {
  Mount *n = new_root->mnt, *o = root->mnt, *top = o->parent;
  TesMountNs *ns = n->ns;
  Dirent *point = o->point; /* both alive until `dead` is released */
  v1_mount_detach(n, dead);
  v1_mount_detach(o, dead);
  if (top)
    v1_mount_attach(n, ns, top, point);
  else
    ns->root = v1_mount_ref(n);
  n->ns = ns;
  v1_mount_attach(o, ns, put_old->mnt, put_old->d);
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
  r = may_pivot(v, &n.pos, &o.pos, v1_pos(root));
  if (r >= 0)
    pivot(&n.pos, &o.pos, v1_pos(root), &dead);
  tes_mutex_unlock(&v->mounts);
  if (r >= 0)
    move_processes(v, v1_pos(root), &n.pos);
  v1_release(&dead);
  v1_walk_end(&o);
  v1_walk_end(&n);
  return r;
}

/* ---- /proc/PID/mountinfo ---- */

static char *options(Mount *m) {
  static const struct {
    gulong flag;
    const char *text;
  } table[] = {{MS_NOSUID, ",nosuid"},
               {MS_NODEV, ",nodev"},
               {MS_NOEXEC, ",noexec"},
               {MS_NOATIME, ",noatime"},
               {MS_NODIRATIME, ",nodiratime"}};
  gulong f = __atomic_load_n(&m->flags, __ATOMIC_ACQUIRE);
  GString *s = g_string_new(f & MS_RDONLY ? "ro" : "rw");
  for (guint i = 0; i < G_N_ELEMENTS(table); i++)
    if (f & table[i].flag)
      g_string_append(s, table[i].text);
  if (!(f & (MS_NOATIME | MS_STRICTATIME)))
    g_string_append(s, ",relatime");
  return g_string_free(s, FALSE);
}

static void describe(V1 *v, Mount *m, guint parent, const Pos *root,
                     void (*fn)(const TesMountInfo *, gpointer), gpointer data) {
  Pos at = {m, m->root};
  g_autofree char *point = v1_name_of(v, root, &at, FALSE), *inside = v1_name_of(v, NULL, &at, TRUE);
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

typedef struct {
  Mount *mnt; /* counted */
  guint parent;
} Listed;

static void collect(Mount *m, GArray *out) {
  Listed one = {v1_mount_ref(m), m->parent ? m->parent->id : 0};
  g_array_append_val(out, one);
  GHashTableIter it;
  gpointer child;
  g_hash_table_iter_init(&it, m->children);
  while (g_hash_table_iter_next(&it, NULL, &child))
    collect(child, out);
}

static gint older_first(gconstpointer a, gconstpointer b) {
  guint x = ((const Listed *)a)->mnt->id, y = ((const Listed *)b)->mnt->id;
  return x < y ? -1 : x > y;
}

void v1_mounts(TesVfs *vfs, TesCtx *ctx, TesPath *root, void (*fn)(const TesMountInfo *, gpointer),
               gpointer data) {
  V1 *v = v1_of(vfs);
  TesMountNs *ns = root ? NULL : tes_ctx_mount_ns(ctx);
  Pos top = {NULL, NULL};
  g_autoptr(GArray) all = g_array_new(FALSE, FALSE, sizeof(Listed));
  tes_mutex_lock(&v->mounts);
  if (root) {
    top = *v1_pos(root);
    ns = top.mnt->ns;
  } else if (ns) {
    top = (Pos){ns->root, ns->root->root};
  }
  if (ns)
    collect(ns->root, all);
  tes_mutex_unlock(&v->mounts);
  g_array_sort(all, older_first);
  for (guint i = 0; i < all->len; i++) {
    Listed *l = &g_array_index(all, Listed, i);
    describe(v, l->mnt, l->parent, &top, fn, data);
    v1_mount_unref(l->mnt);
  }
}
