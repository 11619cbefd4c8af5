/* SPDX-License-Identifier: Apache-2.0 */
/* The vfs2 generation: its operations, its profile (FEATURES.md 1.24, last column), and its descriptor. */
#include "vfs2.h"

static const TesLockClass mount_class = {"vfs2 mounts", TES_RANK_VFS_MOUNT, FALSE,
                                         "mount trees of all namespaces"};
static const TesLockClass rename_class = {"vfs2 rename", TES_RANK_VFS_RENAME, FALSE,
                                          "the shape of directory trees: one rename at a time"};

static int op_walk(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesPath **out) {
  Walk w;
  int r = v2_walk(&w, v2_of(vfs), ctx, at, walk_flags(at), FALSE);
  if (r < 0)
    return r;
  *out = v2_path_new(w.v, w.pos.mnt, w.pos.d); /* takes over the walk's references */
  w.pos = (Pos){NULL, NULL};
  v2_walk_end(&w);
  return 0;
}

/* stat(2): a walk of cached names takes one reference, on the inode. */
static int op_getattr(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesAttr *out) {
  Walk w;
  int r = v2_walk(&w, v2_of(vfs), ctx, at, walk_flags(at), TRUE);
  if (r < 0)
    return r;
  TesInode *i = d_inode(w.pos.d);
  guint mount = w.pos.mnt->id;
  gboolean root = w.pos.d == w.pos.mnt->root;
  v2_mount_used(w.pos.mnt);
  if (w.lockless && !tes_inode_try_ref(i)) {
    v2_walk_end(&w);
    return -ENOENT;
  }
  if (!w.lockless)
    tes_inode_ref(i);
  v2_walk_end(&w);
  r = i->ops->getattr(i, ctx, out);
  tes_inode_unref(i);
  tes_attr_set_place(out, mount, root);
  return r;
}

static gulong op_mount_flags(TesPath *p) {
  Mount *m = v2_path(p)->mnt;
  gulong f = v2_mount_flags(m) | (m->super->read_only ? MS_RDONLY : 0);
  return f & (MS_NOATIME | MS_RELATIME) ? f : f | MS_STRICTATIME;
}
static gboolean op_is_mount_root(TesPath *p) { return v2_path(p)->d == v2_path(p)->mnt->root; }
static guint op_mount_id(TesPath *p) { return v2_path(p)->mnt->id; }

static TesVfs *op_new(TesKernel *k, GError **error);

static void op_free(TesVfs *vfs) {
  V2 *v = v2_of(vfs);
  /* Mounts and dentries that went last are still on their way; each round may retire more. */
  for (guint i = 0; i < 100; i++) {
    tes_epoch_barrier();
    tes_epoch_poll();
  }
  v2_dcache_clear(v);
  g_hash_table_destroy(v->anon);
  tes_mutex_clear(&v->mount_lock);
  tes_mutex_clear(&v->rename_lock);
  g_free(v);
}

static const TesProfile profile = {
    .size = sizeof(TesProfile),
    .mount_ns_per_process = TRUE,
    .start_process = TRUE,
    .pid_ns_argument = TRUE,
    .kernel_futexes = TRUE,
    .ticker_stops_idle = TRUE,
    .posix_timers_paused = TRUE,
    .own_anon_mounts = TRUE,
    .ipc_lookup_refs = TRUE,
    .aio_in_pause = TRUE,
    .save_discard_first = TRUE,
    .save_cpuid_first = TRUE,
    .sockets_table = TRUE,
};

static const TesVfsOps ops = {
    .size = sizeof(TesVfsOps),
    .profile = &profile,
    .new_ = op_new,
    .free = op_free,
    .ns_new = v2_op_ns_new,
    .ns_copy = v2_op_ns_copy,
    .ns_ref = v2_op_ns_ref,
    .ns_unref = v2_op_ns_unref,
    .ns_root = v2_op_ns_root,
    .ns_id = v2_op_ns_id,
    .mount = v2_op_mount,
    .bind = v2_op_bind,
    .remount = v2_op_remount,
    .propagation = v2_op_propagation,
    .umount = v2_op_umount,
    .pivot_root = v2_op_pivot_root,
    .mounts = v2_op_mounts,
    .walk = op_walk,
    .open = v2_op_open,
    .open_path = v2_op_open_path,
    .create = v2_op_create,
    .remove = v2_op_remove,
    .rename = v2_op_rename,
    .mount_flags = op_mount_flags,
    .mount_id = op_mount_id,
    .getattr = op_getattr,
    .name = v2_op_name,
    .path_ref = v2_op_path_ref,
    .path_unref = v2_op_path_unref,
    .anon_path = v2_op_anon_path,
    .priority = 20,
    .ns_path = v2_op_ns_path,
    .is_deleted = v2_op_is_deleted,
    .parent = v2_op_parent,
    .move = v2_op_move,
    .reconfigure = v2_op_reconfigure,
    .mount_setattr = v2_op_setattr,
    .mount_detached = v2_op_detached,
    .clone_tree = v2_op_clone_tree,
    .ns_event = v2_op_ns_event,
    .is_mount_root = op_is_mount_root,
};

static TesVfs *op_new(TesKernel *k, GError **error) {
  (void)error;
  V2 *v = g_new0(V2, 1);
  v->base = (TesVfs){&ops, k};
  tes_mutex_init(&v->mount_lock, &mount_class);
  tes_mutex_init(&v->rename_lock, &rename_class);
  v2_dcache_init(v);
  v->anon = g_hash_table_new(NULL, NULL);
  return &v->base;
}

/* Mount trees, dentries that are in use, open places. Served by the save/restore issue. */
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "vfs2", .version = 1};

static const TesFeature features[] = {{"vfs", "vfs2", &ops}, {"state", "vfs2", &state}, {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(
    vfs2, .name = "vfs2",
    .summary = "VFS generation 2: whole-path walks, lock-free cached names, bind mounts, openat2",
    .licence = "Apache-2.0", .features = features);
