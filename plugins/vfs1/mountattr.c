/* SPDX-License-Identifier: Apache-2.0 */
/* What a mount is like: MS_REMOUNT, mount_setattr(2), propagation types (private and unbindable only); and trees in no namespace
 * yet, which live as long as the O_PATH file of fsmount(2) or open_tree(2), unless they are moved into one. */
#include "vfs1.h"

static gulong own_flags(Mount *m) { return __atomic_load_n(&m->flags, __ATOMIC_ACQUIRE); }
static void set_flags(Mount *m, gulong f) { __atomic_store_n(&m->flags, f, __ATOMIC_RELEASE); }

/* Would it become read-only while it is written to? */
static gboolean is_written(Mount *m, gulong flags) {
  return (flags & MS_RDONLY) && !(own_flags(m) & MS_RDONLY) && g_atomic_int_get(&m->writers) > 0;
}

/* ---- The filesystem, and one mount of it ---- */

int v1_reconfigure(TesVfs *vfs, TesCtx *ctx, TesSuper *s, gulong flags, const char *opts) {
  if ((flags & MS_RDONLY) && !s->read_only && v1_super_written(v1_of(vfs), s))
    return -EBUSY;
  if (TES_HAS(s->ops, remount))
    return s->ops->remount(s, ctx, flags, opts);
  if (opts && *opts)
    return -EINVAL;
  s->read_only = (flags & MS_RDONLY) != 0;
  return 0;
}

/* The place is the root of a mount in the caller's namespace. */
static int check_root(V1 *v, TesCtx *ctx, const Pos *p) {
  TES_LOCKED(&v->mounts);
  return p->d == p->mnt->root && v1_is_ours(ctx, p->mnt) ? 0 : -EINVAL;
}

static int remount_here(V1 *v, Mount *m, gulong flags) {
  TES_LOCKED(&v->mounts);
  if ((flags & MS_BIND) && is_written(m, flags))
    return -EBUSY;
  set_flags(m, rules_remount_flags(own_flags(m), flags));
  if (m->ns)
    v1_ns_changed(m->ns);
  return 0;
}

int v1_remount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags, const char *opts) {
  V1 *v = v1_of(vfs);
  Walk w;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  r = check_root(v, ctx, &w.pos);
  if (r >= 0 && !(flags & MS_BIND))
    r = v1_reconfigure(vfs, ctx, w.pos.mnt->super, flags, opts);
  if (r >= 0)
    r = remount_here(v, w.pos.mnt, flags);
  v1_walk_end(&w);
  return r;
}

/* ---- Propagation types ---- */

/* Private is what every mount is, and a private one stays so as a slave of nobody; sharing is not served. */
static int set_propagation(Mount *top, gulong type, gboolean recursive) {
  if (type == MS_SHARED)
    return -EINVAL;
  g_autoptr(GPtrArray) all = v1_tree(top);
  for (guint i = 0; i < (recursive ? all->len : 1); i++)
    ((Mount *)all->pdata[i])->unbindable = type == MS_UNBINDABLE;
  return 0;
}

int v1_propagation(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags) {
  V1 *v = v1_of(vfs);
  gulong type = flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE);
  Walk w;
  if (!type || (type & (type - 1)) || (flags & ~(type | MS_REC | MS_SILENT)))
    return -EINVAL;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  tes_mutex_lock(&v->mounts);
  if (w.pos.d != w.pos.mnt->root || !w.pos.mnt->ns) /* of any namespace, as Linux */
    r = -EINVAL;
  else
    r = set_propagation(w.pos.mnt, type, (flags & MS_REC) != 0);
  tes_mutex_unlock(&v->mounts);
  v1_walk_end(&w);
  return r;
}

/* ---- mount_setattr(2) ---- */

int v1_setattr(TesVfs *vfs, TesCtx *ctx, TesPath *p, const TesMountAttr *a) {
  Mount *top = v1_pos(p)->mnt;
  TES_LOCKED(&v1_of(vfs)->mounts);
  gboolean detached = top->ns && top->ns->detached && top == top->ns->root;
  if (v1_pos(p)->d != top->root || !(detached || v1_is_ours(ctx, top)) || a->propagation == MS_SHARED)
    return -EINVAL;
  g_autoptr(GPtrArray) all = v1_tree(top);
  guint n = a->recursive ? all->len : 1;
  for (guint i = 0; i < n; i++) /* all or nothing */
    if (is_written(all->pdata[i], rules_changed_flags(own_flags(all->pdata[i]), a)))
      return -EBUSY;
  for (guint i = 0; i < n; i++)
    set_flags(all->pdata[i], rules_changed_flags(own_flags(all->pdata[i]), a));
  if (a->propagation)
    set_propagation(top, a->propagation, a->recursive);
  v1_ns_changed(top->ns);
  return 0;
}

/* ---- Detached trees ---- */

static void tree_file_release(TesFile *f) {
  Mount *top = v1_pos(f->path)->mnt;
  Dead dead = {NULL, NULL};
  tes_mutex_lock(&top->v->mounts);
  TesMountNs *ns = top->ns;
  if (ns && ns->detached && ns->root == top) {
    v1_detach_tree(top, &dead);
    v1_ns_free(ns);
  }
  tes_mutex_unlock(&top->v->mounts);
  v1_release(&dead);
  g_free(f);
}

static const TesFileOps tree_file_ops = {.size = sizeof(TesFileOps),
                                         .name = "path",
                                         .flags = TES_FILE_NO_READ_WRITE,
                                         .release = tree_file_release};

TesFile *v1_detached_file(V1 *v, TesCtx *ctx, Mount *top) {
  TesMountNs *ns = v1_ns_alloc(v, TRUE);
  tes_mutex_lock(&v->mounts);
  ns->root = top;
  v1_set_ns(top, ns);
  tes_mutex_unlock(&v->mounts);
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, ctx->kernel, &tree_file_ops, O_PATH);
  f->inode = tes_inode_ref(top->root->inode);
  f->path = v1_path_new(v, v1_mount_ref(top), v1_dirent_ref(top->root));
  return f;
}

int v1_mount_detached(TesVfs *vfs, TesCtx *ctx, TesSuper *s, const char *source, gulong flags,
                      TesFile **out) {
  V1 *v = v1_of(vfs);
  if (!v1_has_room(v, 1))
    return -ENOSPC;
  *out = v1_detached_file(v, ctx, v1_mount_new(v, s, v1_root_of(v, s), source, flags));
  return 0;
}
