/* SPDX-License-Identifier: Apache-2.0 */
/* What a mount is like: remount with MS_REMOUNT, mount_setattr(2), propagation types; and mounts in no namespace yet, which
 * live as long as the O_PATH file that fsmount(2) or open_tree(2) returned, unless they are moved into one. */
#include "vfs2.h"
#include "../vfs-common/rules.h"

static void set_flags(Mount *m, gulong f) { __atomic_store_n(&m->flags, f, __ATOMIC_RELEASE); }

/* May it become read-only? */
static gboolean written(Mount *m, gulong flags) {
  return (flags & MS_RDONLY) && !(v2_mount_flags(m) & MS_RDONLY) && g_atomic_int_get(&m->writers) > 0;
}

/* ---- mount(2) with MS_REMOUNT ---- */

static gboolean super_written(V2 *v, const TesSuper *s) {
  TES_LOCKED(&v->mount_lock);
  for (Mount *m = v->all; m; m = m->anext)
    if (m->super == s && g_atomic_int_get(&m->writers) > 0)
      return TRUE;
  return FALSE;
}

static int reconfigure(V2 *v, TesCtx *ctx, TesSuper *s, gulong flags, const char *opts) {
  if ((flags & MS_RDONLY) && !s->read_only && super_written(v, s))
    return -EBUSY;
  if (TES_HAS(s->ops, remount))
    return s->ops->remount(s, ctx, flags, opts);
  if (opts && *opts)
    return -EINVAL;
  s->read_only = (flags & MS_RDONLY) != 0;
  return 0;
}

int v2_op_reconfigure(TesVfs *vfs, TesCtx *ctx, TesSuper *s, gulong flags, const char *opts) {
  return reconfigure(v2_of(vfs), ctx, s, flags, opts);
}

int v2_op_remount(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags, const char *opts) {
  V2 *v = v2_of(vfs);
  Walk w;
  int r = v2_walk(&w, v, ctx, at, walk_flags(at), FALSE);
  if (r < 0)
    return r;
  Mount *m = w.pos.mnt;
  tes_mutex_lock(&v->mount_lock);
  if (w.pos.d != m->root || !v2_mount_is_ours(ctx, m))
    r = -EINVAL;
  tes_mutex_unlock(&v->mount_lock);
  if (r >= 0 && !(flags & MS_BIND))
    r = reconfigure(v, ctx, m->super, flags, opts);
  if (r >= 0) {
    TES_LOCKED(&v->mount_lock);
    if ((flags & MS_BIND) && written(m, flags)) {
      r = -EBUSY;
    } else {
      set_flags(m, rules_remount_flags(v2_mount_flags(m), flags));
      if (m->ns)
        v2_ns_changed(m->ns);
    }
  }
  v2_walk_end(&w);
  return r;
}

/* ---- Propagation types ---- */

int v2_op_propagation(TesVfs *vfs, TesCtx *ctx, const TesAt *at, gulong flags) {
  V2 *v = v2_of(vfs);
  gulong type = flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE);
  Walk w;
  if (!type || (type & (type - 1)) || (flags & ~(type | MS_REC | MS_SILENT)))
    return -EINVAL;
  int r = v2_walk(&w, v, ctx, at, walk_flags(at), FALSE);
  if (r < 0)
    return r;
  tes_mutex_lock(&v->mount_lock);
  Mount *top = w.pos.mnt;
  if (w.pos.d != top->root || !top->ns) /* of any namespace, as Linux */
    r = -EINVAL;
  else
    for (Mount *m = top; m; m = (flags & MS_REC) ? v2_mount_next(m, top) : NULL)
      v2_set_propagation(m, type);
  tes_mutex_unlock(&v->mount_lock);
  v2_walk_end(&w);
  return r;
}

/* ---- mount_setattr(2) ---- */

int v2_op_setattr(TesVfs *vfs, TesCtx *ctx, TesPath *p, const TesMountAttr *a) {
  V2 *v = v2_of(vfs);
  Mount *top = v2_path(p)->mnt;
  TES_LOCKED(&v->mount_lock);
  if (v2_path(p)->d != top->root ||
      !(v2_mount_is_ours(ctx, top) || (top->ns && top->ns->detached && top == top->ns->root)))
    return -EINVAL;
  /* All or nothing. */
  for (Mount *m = top; m; m = a->recursive ? v2_mount_next(m, top) : NULL)
    if (written(m, rules_changed_flags(v2_mount_flags(m), a)))
      return -EBUSY;
  for (Mount *m = top; m; m = a->recursive ? v2_mount_next(m, top) : NULL) {
    set_flags(m, rules_changed_flags(v2_mount_flags(m), a));
    if (a->propagation)
      v2_set_propagation(m, a->propagation);
  }
  v2_ns_changed(top->ns);
  return 0;
}

/* ---- Detached trees ---- */

static void tree_file_release(TesFile *f) {
  V2Path *p = v2_path(f->path);
  V2 *v = p->mnt->v;
  GSList *dead = NULL;
  tes_mutex_lock(&v->mount_lock);
  TesMountNs *ns = p->mnt->ns;
  if (ns && ns->detached && ns->root == p->mnt) {
    v2_tree_dissolve(p->mnt, &dead);
    v2_ns_free(ns);
  }
  tes_mutex_unlock(&v->mount_lock);
  v2_mounts_release(dead);
  g_free(f);
}

static const TesFileOps tree_file_ops = {.size = sizeof(TesFileOps),
                                         .name = "path",
                                         .flags = TES_FILE_NO_READ_WRITE,
                                         .release = tree_file_release};

TesFile *v2_detached_file(V2 *v, TesCtx *ctx, Mount *m) {
  TesMountNs *ns = v2_ns_alloc(v, TRUE);
  tes_mutex_lock(&v->mount_lock);
  ns->root = m;
  v2_tree_set_ns(m, ns);
  tes_mutex_unlock(&v->mount_lock);
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, ctx->kernel, &tree_file_ops, O_PATH);
  f->inode = tes_inode_ref(d_inode(m->root));
  f->path = v2_path_new(v, v2_mount_ref(m), v2_dentry_ref(m->root));
  return f;
}

int v2_op_detached(TesVfs *vfs, TesCtx *ctx, TesSuper *s, const char *source, gulong flags, TesFile **out) {
  V2 *v = v2_of(vfs);
  tes_mutex_lock(&v->mount_lock);
  gboolean full = v->n_mounts >= V2_MOUNTS_TOTAL;
  tes_mutex_unlock(&v->mount_lock);
  if (full)
    return -ENOSPC;
  Mount *m = v2_mount_new(v, s, v2_dcache_root(v, s), source, flags);
  tes_mutex_lock(&v->mount_lock);
  v2_mount_enlist(m);
  tes_mutex_unlock(&v->mount_lock);
  *out = v2_detached_file(v, ctx, m);
  return 0;
}
