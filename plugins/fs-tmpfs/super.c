/* SPDX-License-Identifier: Apache-2.0 */
/* fs-tmpfs: the filesystem instance, its limits, its mount options (tmpfs(5)) and the plugin. */
#include "tmpfs.h"

#define TMPFS_MAGIC 0x01021994
#define SPACE_FLOOR (64ULL << 20)

/* ---- Limits ---- */

/* What nodes, names and attributes of all instances take of the kernel process: nr_inodes= is one instance's own limit, and a guest
 * may mount many, or lift it. A quarter of the sandbox's memory, at least 64 MiB. */
static guint64 total_space, max_total_space = SPACE_FLOOR;

gboolean heap_take(guint64 bytes) {
  if (__atomic_add_fetch(&total_space, bytes, __ATOMIC_RELAXED) <= max_total_space)
    return TRUE;
  heap_give(bytes);
  return FALSE;
}

void heap_give(guint64 bytes) { __atomic_sub_fetch(&total_space, bytes, __ATOMIC_RELAXED); }

gboolean space_take(Tmpfs *fs, guint64 bytes) {
  guint64 max = __atomic_load_n(&fs->max_inodes, __ATOMIC_RELAXED) * INODE_SPACE;
  guint64 now = __atomic_add_fetch(&fs->space, bytes, __ATOMIC_RELAXED);
  if ((!max || now <= max) && heap_take(bytes))
    return TRUE;
  __atomic_sub_fetch(&fs->space, bytes, __ATOMIC_RELAXED);
  return FALSE;
}

void space_give(Tmpfs *fs, guint64 bytes) {
  __atomic_sub_fetch(&fs->space, bytes, __ATOMIC_RELAXED);
  heap_give(bytes);
}

guint64 pages_take(Tmpfs *fs, guint64 n, gboolean all) {
  guint64 max = __atomic_load_n(&fs->max_pages, __ATOMIC_RELAXED);
  guint64 used = __atomic_load_n(&fs->pages, __ATOMIC_RELAXED), take;
  do {
    guint64 left = !max ? n : max > used ? max - used : 0;
    take = n <= left ? n : all ? 0 : left;
  } while (take && !__atomic_compare_exchange_n(&fs->pages, &used, used + take, TRUE, __ATOMIC_RELAXED,
                                                __ATOMIC_RELAXED));
  return take;
}

void pages_give(Tmpfs *fs, guint64 n) { __atomic_sub_fetch(&fs->pages, n, __ATOMIC_RELAXED); }

/* ---- Options ---- */

enum { SEEN_SIZE = 1, SEEN_INODES = 2 };
typedef struct {
  guint seen;
  guint64 max_pages, max_inodes, memory /* bytes; size=N% is of it */;
  guint32 mode, uid, gid;
  gboolean noswap, inode64;
  const char *huge;
} Options;

static int parse_size(const char *v, guint64 whole, guint64 *out) {
  char *end;
  if (!g_ascii_isdigit(*v))
    return -EINVAL;
  guint64 n = g_ascii_strtoull(v, &end, 0);
  static const char suffix[] = "kmgtpe";
  const char *s = *end ? strchr(suffix, g_ascii_tolower(*end)) : NULL;
  int shift = s ? 10 * (int)(s - suffix + 1) : 0;
  if (*end == '%' && whole) {
    *out = MIN(n, G_MAXUINT32) * (whole / 100);
    return end[1] ? -EINVAL : 0;
  }
  if ((s ? end[1] : *end) || n > G_MAXINT64 >> shift)
    return -EINVAL;
  *out = n << shift;
  return 0;
}

static int parse_number(const char *v, guint base, guint64 *out) {
  return g_ascii_string_to_unsigned(v, base, 0, G_MAXUINT32 - 1, out, NULL) ? 0 : -EINVAL;
}

static int parse_huge(const char *v, const char **out) {
  static const char *const known[] = {"never", "always", "within_size", "advise"};
  for (guint i = 0; i < G_N_ELEMENTS(known); i++)
    if (g_str_equal(v, known[i])) {
      *out = i ? known[i] : NULL;
      return 0;
    }
  return -EINVAL;
}

static int plain_option(const char *key, Options *o) {
  if (g_str_equal(key, "noswap"))
    o->noswap = TRUE;
  else if (g_str_equal(key, "inode64"))
    o->inode64 = TRUE;
  else if (!g_str_equal(key, "inode32"))
    return -EINVAL;
  return 0;
}

static int option(const char *key, const char *value, gpointer data) {
  Options *o = data;
  guint64 n = 0;
  int r;
  if (!value)
    return plain_option(key, o);
  if (g_str_equal(key, "size")) {
    r = parse_size(value, o->memory, &n);
    o->max_pages = n / TES_PAGE_SIZE + (n % TES_PAGE_SIZE != 0);
    o->seen |= SEEN_SIZE;
  } else if (g_str_equal(key, "nr_blocks")) {
    r = parse_size(value, 0, &o->max_pages);
    o->seen |= SEEN_SIZE;
  } else if (g_str_equal(key, "nr_inodes")) {
    r = parse_size(value, 0, &o->max_inodes);
    if (o->max_inodes > G_MAXUINT64 / INODE_SPACE)
      r = -EINVAL;
    o->seen |= SEEN_INODES;
  } else if (g_str_equal(key, "mode")) {
    r = parse_number(value, 8, &n);
    o->mode = n & 07777;
  } else if (g_str_equal(key, "uid") || g_str_equal(key, "gid")) {
    r = parse_number(value, 10, &n);
    *(key[0] == 'u' ? &o->uid : &o->gid) = n;
  } else if (g_str_equal(key, "huge")) {
    r = parse_huge(value, &o->huge);
  } else {
    r = g_str_equal(key, "mpol") && g_str_equal(value, "default") ? 0 : -EINVAL;
  }
  return r;
}

static guint64 default_pages(Tmpfs *fs) {
  return tes_memfile_limit(tes_kernel_memfile(fs->super.kernel)) / TES_PAGE_SIZE / 2;
}

/* Only what was asked for changes; a limit may come down as far as what is in use, and cannot come back once it was lifted. */
static int tmpfs_remount(TesSuper *s, TesCtx *ctx, gulong ms_flags, const char *opts) {
  (void)ctx;
  Tmpfs *fs = (Tmpfs *)s;
  Options o = {.huge = fs->huge, .memory = 2 * default_pages(fs) * TES_PAGE_SIZE};
  int r = tes_mount_opts_parse(opts, option, &o);
  if (r < 0 || (o.noswap && !fs->noswap))
    return MIN(r, -EINVAL);
  if ((o.seen & SEEN_SIZE) && o.max_pages && (!fs->max_pages || fs->pages > o.max_pages))
    return -EINVAL;
  guint64 inodes = (fs->space + INODE_SPACE - 1) / INODE_SPACE;
  if ((o.seen & SEEN_INODES) && o.max_inodes && (!fs->max_inodes || inodes > o.max_inodes))
    return -EINVAL;
  if (o.seen & SEEN_SIZE) {
    __atomic_store_n(&fs->max_pages, o.max_pages, __ATOMIC_RELAXED);
    fs->size_given = TRUE;
  }
  if (o.seen & SEEN_INODES) {
    __atomic_store_n(&fs->max_inodes, o.max_inodes, __ATOMIC_RELAXED);
    fs->inodes_given = TRUE;
  }
  fs->huge = o.huge;
  s->read_only = (ms_flags & 1 /* MS_RDONLY */) != 0;
  return 0;
}

static char *tmpfs_show_options(TesSuper *s) {
  Tmpfs *fs = (Tmpfs *)s;
  GString *o = g_string_new(NULL);
  if (fs->size_given)
    g_string_append_printf(o, ",size=%" G_GUINT64_FORMAT "k", fs->max_pages * (TES_PAGE_SIZE / 1024));
  if (fs->inodes_given)
    g_string_append_printf(o, ",nr_inodes=%" G_GUINT64_FORMAT, fs->max_inodes);
  if (fs->mode != 01777)
    g_string_append_printf(o, ",mode=%03o", fs->mode);
  if (fs->uid)
    g_string_append_printf(o, ",uid=%u", fs->uid);
  if (fs->gid)
    g_string_append_printf(o, ",gid=%u", fs->gid);
  if (fs->inode64)
    g_string_append(o, ",inode64");
  if (fs->huge)
    g_string_append_printf(o, ",huge=%s", fs->huge);
  if (fs->noswap)
    g_string_append(o, ",noswap");
  return g_string_free(o, FALSE);
}

static int tmpfs_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)ctx;
  Tmpfs *fs = (Tmpfs *)s;
  *st = (struct statfs){
      .f_type = TMPFS_MAGIC, .f_bsize = TES_PAGE_SIZE, .f_frsize = TES_PAGE_SIZE, .f_namelen = TES_NAME_MAX};
  st->f_blocks = fs->max_pages;
  st->f_bfree = st->f_bavail = fs->max_pages > fs->pages ? fs->max_pages - fs->pages : 0;
  st->f_files = fs->max_inodes;
  guint64 space = fs->max_inodes * INODE_SPACE;
  st->f_ffree = space > fs->space ? (space - fs->space) / INODE_SPACE : 0;
  return 0;
}

/* ---- The instance ---- */

/* Directories hold their entries, and every node holds the super: without this nothing would ever go. */
static void tmpfs_shutdown(TesSuper *s) { dir_clear(node_of(s->root)); }

static void tmpfs_super_free(TesSuper *s) { g_free((Tmpfs *)s); }

static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps),
                                      .statfs = tmpfs_statfs,
                                      .show_options = tmpfs_show_options,
                                      .free = tmpfs_super_free,
                                      .shutdown = tmpfs_shutdown,
                                      .remount = tmpfs_remount};

static int tmpfs_mount(TesCtx *ctx, const char *source, const char *opts, gulong ms_flags, TesSuper **out) {
  (void)source, (void)ms_flags;
  Tmpfs *fs = g_new0(Tmpfs, 1);
  TesCred *c = tes_ctx_cred(ctx);
  tes_super_init(&fs->super, tes_ctx_kernel(ctx), &super_ops, "tmpfs");
  fs->super.magic = TMPFS_MAGIC;
  guint64 half = default_pages(fs);
  max_total_space = MAX(SPACE_FLOOR, half * TES_PAGE_SIZE / 2);
  Options o = {.max_pages = half,
               .max_inodes = half,
               .memory = 2 * half * TES_PAGE_SIZE,
               .mode = 01777,
               .uid = c ? c->fsuid : 0,
               .gid = c ? c->fsgid : 0};
  int r = tes_mount_opts_parse(opts, option, &o);
  fs->max_pages = o.max_pages;
  fs->max_inodes = o.max_inodes;
  fs->size_given = o.seen & SEEN_SIZE;
  fs->inodes_given = o.seen & SEEN_INODES;
  fs->mode = o.mode;
  fs->noswap = o.noswap;
  fs->inode64 = o.inode64;
  fs->huge = o.huge;
  fs->uid = o.uid;
  fs->gid = o.gid;
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
