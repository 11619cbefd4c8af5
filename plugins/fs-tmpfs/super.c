/* SPDX-License-Identifier: Apache-2.0 */
/* fs-tmpfs: the filesystem instance, its mount options (size=, nr_blocks=, nr_inodes=, mode=, uid=, gid=) and the plugin. */
#include "tmpfs.h"

static const TesLockClass fs_class = {"tmpfs", TES_RANK_LEAF, FALSE, "page and inode counts of an instance"};
#define TMPFS_MAGIC 0x01021994
#define MAX_INODES (1 << 20) /* by default: a node takes about 1 KiB of the kernel's own memory */

typedef struct {
  Tmpfs *fs;
  guint32 mode, uid, gid;
} Options;

static int parse_size(const char *v, guint64 *out) {
  char *end;
  guint64 n = g_ascii_strtoull(v, &end, 0);
  int shift = 0;
  switch (g_ascii_tolower(*end)) {
  case 'k':
    shift = 10;
    break;
  case 'm':
    shift = 20;
    break;
  case 'g':
    shift = 30;
    break;
  case '%': {
    guint64 pages = sysconf(_SC_PHYS_PAGES);
    *out = pages * TES_PAGE_SIZE / 100 * MIN(n, 100);
    return end[1] || end == v ? -EINVAL : 0;
  }
  }
  if (end == v || (shift ? end[1] : *end) || n > G_MAXUINT64 >> shift)
    return -EINVAL;
  *out = n << shift;
  return 0;
}

static int parse_number(const char *v, int base, guint64 max, guint64 *out) {
  char *end;
  *out = g_ascii_strtoull(v, &end, base);
  return *end || end == v || *out > max ? -EINVAL : 0;
}

static int option(const char *key, const char *value, gpointer data) {
  Options *o = data;
  guint64 n = 0;
  int r = 0;
  if (!value)
    return g_str_equal(key, "noswap") || g_str_equal(key, "inode64") || g_str_equal(key, "inode32") ? 0
                                                                                                    : -EINVAL;
  if (g_str_equal(key, "size")) {
    r = parse_size(value, &n);
    o->fs->max_pages = (n + TES_PAGE_SIZE - 1) / TES_PAGE_SIZE;
  } else if (g_str_equal(key, "nr_blocks")) {
    r = parse_size(value, &o->fs->max_pages);
  } else if (g_str_equal(key, "nr_inodes")) {
    r = parse_size(value, &o->fs->max_inodes);
  } else if (g_str_equal(key, "mode")) {
    r = parse_number(value, 8, 07777, &n);
    o->mode = n;
  } else if (g_str_equal(key, "uid") || g_str_equal(key, "gid")) {
    r = parse_number(value, 10, G_MAXUINT32 - 1, &n);
    *(key[0] == 'u' ? &o->uid : &o->gid) = n;
  } else if (!g_str_equal(key, "huge") && !g_str_equal(key, "mpol")) {
    r = -EINVAL;
  }
  return r;
}

static int tmpfs_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)ctx;
  Tmpfs *fs = (Tmpfs *)s;
  TES_LOCKED(&fs->lock);
  *st = (struct statfs){
      .f_type = TMPFS_MAGIC, .f_bsize = TES_PAGE_SIZE, .f_frsize = TES_PAGE_SIZE, .f_namelen = TES_NAME_MAX};
  st->f_blocks = fs->max_pages;
  st->f_bfree = st->f_bavail = fs->max_pages > fs->pages ? fs->max_pages - fs->pages : 0;
  st->f_files = fs->max_inodes;
  st->f_ffree = fs->max_inodes > fs->inodes ? fs->max_inodes - fs->inodes : 0;
  return 0;
}

static char *tmpfs_show_options(TesSuper *s) {
  Tmpfs *fs = (Tmpfs *)s;
  return fs->max_pages
             ? g_strdup_printf(",size=%" G_GUINT64_FORMAT "k", fs->max_pages * (TES_PAGE_SIZE / 1024))
             : g_strdup("");
}

static void tmpfs_super_free(TesSuper *s) {
  Tmpfs *fs = (Tmpfs *)s;
  tes_mutex_clear(&fs->lock);
  g_free(fs);
}

static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps),
                                      .statfs = tmpfs_statfs,
                                      .show_options = tmpfs_show_options,
                                      .free = tmpfs_super_free};

static int tmpfs_mount(TesCtx *ctx, const char *source, const char *opts, gulong ms_flags, TesSuper **out) {
  (void)source, (void)ms_flags;
  Tmpfs *fs = g_new0(Tmpfs, 1);
  tes_mutex_init(&fs->lock, &fs_class);
  tes_super_init(&fs->super, tes_ctx_kernel(ctx), &super_ops, "tmpfs");
  fs->super.magic = TMPFS_MAGIC;
  fs->max_pages = sysconf(_SC_PHYS_PAGES) / 2; /* tmpfs(5): half of the memory by default */
  fs->max_inodes = MIN(fs->max_pages, MAX_INODES);
  Options o = {fs, 01777, 0, 0};
  int r = tes_mount_opts_parse(opts, option, &o);
  Node *root = r == 0 ? node_new(fs, ctx, NULL, S_IFDIR | o.mode, &r) : NULL;
  if (!root) {
    tes_super_unref(&fs->super);
    return r;
  }
  root->inode.uid = o.uid;
  root->inode.gid = o.gid;
  tes_super_set_root(&fs->super, &root->inode);
  *out = &fs->super;
  return 0;
}

const TesFsTypeOps tmpfs_type = {.size = sizeof(TesFsTypeOps), .name = "tmpfs", .mount = tmpfs_mount};

static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-tmpfs", .version = 1};
static const TesFeature features[] = {
    {"filesystem", "tmpfs", &tmpfs_type}, {"state", "fs-tmpfs", &state}, {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(fs_tmpfs, .name = "fs-tmpfs", .summary = "Files in memory (tmpfs)", .licence = "Apache-2.0",
                  .features = features);
