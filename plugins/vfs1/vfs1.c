/* SPDX-License-Identifier: Apache-2.0 */
/* The vfs1 generation: its operations, its two profiles (FEATURES.md 1.24, the first two columns), and its descriptor. */
#include "vfs1.h"

static const TesLockClass mounts_class = {"vfs1 mounts", TES_RANK_VFS_MOUNT, FALSE,
                                          "mount trees of all namespaces"};
static const TesLockClass renames_class = {"vfs1 renames", TES_RANK_VFS_RENAME, FALSE,
                                           "the shape of directory trees: one rename at a time"};

static int op_walk(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesPath **out) {
  Walk w;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  *out = v1_path_new(w.v, w.pos.mnt, w.pos.d); /* takes over the walk's references */
  w.pos = (Pos){NULL, NULL};
  v1_walk_end(&w);
  return 0;
}

static int op_getattr(TesVfs *vfs, TesCtx *ctx, const TesAt *at, TesAttr *out) {
  Walk w;
  int r = v1_walk(&w, vfs, ctx, at, walk_flags(at));
  if (r < 0)
    return r;
  r = w.pos.d->inode->ops->getattr(w.pos.d->inode, ctx, out);
  tes_attr_set_place(out, w.pos.mnt->id, w.pos.d == w.pos.mnt->root);
  v1_walk_end(&w);
  return r;
}

static gulong op_mount_flags(TesPath *p) {
  gulong f = v1_mount_flags(v1_pos(p)->mnt);
  return f & (MS_NOATIME | MS_RELATIME) ? f : f | MS_STRICTATIME;
}
static gboolean op_is_mount_root(TesPath *p) { return v1_pos(p)->d == v1_pos(p)->mnt->root; }
static guint op_mount_id(TesPath *p) { return v1_pos(p)->mnt->id; }

static TesVfs *new_2018(TesKernel *k, GError **error);
static TesVfs *new_2020(TesKernel *k, GError **error);

static void op_free(TesVfs *vfs) {
  V1 *v = v1_of(vfs);
  v1_forget_all(v);
  /* Inodes that went last are still on their way; each round may let go of more. */
  for (guint i = 0; i < 100; i++) {
    tes_epoch_barrier();
    tes_epoch_poll();
  }
  v1_tree_clear(v);
  g_hash_table_unref(v->anon);
  g_hash_table_unref(v->all);
  tes_mutex_clear(&v->mounts);
  tes_mutex_clear(&v->renames);
  g_free(v);
}

/* A kernel of 2018: one mount namespace, everything counted in its own way everywhere. All flags are off. */
static const TesProfile profile_2018 = {.size = sizeof(TesProfile)};

static const TesProfile profile_2020 = {
    .size = sizeof(TesProfile),
    .mount_ns_per_process = TRUE,
    .start_process = TRUE,
    .pid_ns_argument = TRUE,
    .kernel_futexes = TRUE,
    .ticker_stops_idle = TRUE,
    .posix_timers_paused = TRUE,
    .save_cpuid_first = TRUE,
};

#define V1_OPS(level, prio)                                                                                \
  {                                                                                                        \
    .size = sizeof(TesVfsOps), .profile = &profile_##level, .new_ = new_##level, .free = op_free,          \
    .ns_new = v1_ns_new, .ns_copy = v1_ns_copy, .ns_ref = v1_ns_ref, .ns_unref = v1_ns_unref,              \
    .ns_root = v1_ns_root, .ns_id = v1_ns_id, .mount = v1_mount, .bind = v1_bind, .remount = v1_remount,   \
    .propagation = v1_propagation, .umount = v1_umount, .pivot_root = v1_pivot_root, .mounts = v1_mounts,  \
    .walk = op_walk, .open = v1_open, .open_path = v1_open_path, .create = v1_create, .remove = v1_remove, \
    .rename = v1_rename, .mount_flags = op_mount_flags, .mount_id = op_mount_id, .getattr = op_getattr,    \
    .name = v1_name, .path_ref = v1_path_ref, .path_unref = v1_path_unref, .anon_path = v1_anon_path,      \
    .priority = prio, .ns_path = v1_ns_path, .is_deleted = v1_is_deleted, .parent = v1_parent_name,        \
    .move = v1_move_mount, .reconfigure = v1_reconfigure, .mount_setattr = v1_setattr,                     \
    .mount_detached = v1_mount_detached, .clone_tree = v1_clone_tree, .ns_event = v1_ns_event,             \
    .is_mount_root = op_is_mount_root,                                                                     \
  }

static const TesVfsOps ops_2018 = V1_OPS(2018, 5), ops_2020 = V1_OPS(2020, 10);

static TesVfs *op_new(TesKernel *k, const TesVfsOps *ops) {
  V1 *v = g_new0(V1, 1);
  v->base = (TesVfs){ops, k};
  v->cache_max = tes_kernel_dcache_max(k) ? tes_kernel_dcache_max(k) : V1_DCACHE_DEFAULT;
  tes_mutex_init(&v->mounts, &mounts_class);
  tes_mutex_init(&v->renames, &renames_class);
  v1_tree_init(v);
  v->anon = g_hash_table_new(NULL, NULL);
  v->all = g_hash_table_new(NULL, NULL);
  return &v->base;
}

static TesVfs *new_2018(TesKernel *k, GError **error) {
  (void)error;
  return op_new(k, &ops_2018);
}
static TesVfs *new_2020(TesKernel *k, GError **error) {
  (void)error;
  return op_new(k, &ops_2020);
}

/* Mount trees, dirents that are in use, open places. Served by the save/restore issue. */
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "vfs1", .version = 1};

static const TesFeature features[] = {{"vfs", "vfs1", &ops_2020},
                                      {"vfs", "vfs1:2018", &ops_2018},
                                      {"state", "vfs1", &state},
                                      {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(vfs1, .name = "vfs1",
                  .summary = "VFS generation 1: one lookup for each component, a bounded cache of names",
                  .licence = "Apache-2.0", .features = features);
