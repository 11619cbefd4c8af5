/* SPDX-License-Identifier: Apache-2.0 */
/* The filesystem types "dev" (a fixed tree of device nodes, links and mount points, with pts/ inside) and "devpts". */
#include "dev.h"

#define DEVFS_MAGIC 0x01021994 /* what devtmpfs reports */
#define DEVPTS_MAGIC 0x1cd1
#define PTS_MAJOR 136
#define PTS_INO_BASE 3
#define PTMX_POS (TTY_PTS_MAX + 2) /* behind all terminals in a directory of devpts */

typedef struct {
  const char *name;
  guint32 mode; /* type and permissions */
  guint major, minor;
  const char *target;
} Spec;

static const Spec specs[] = {
    {"null", S_IFCHR | 0666, 1, 3, NULL},
    {"zero", S_IFCHR | 0666, 1, 5, NULL},
    {"full", S_IFCHR | 0666, 1, 7, NULL},
    {"random", S_IFCHR | 0666, 1, 8, NULL},
    {"urandom", S_IFCHR | 0666, 1, 9, NULL},
    {"tty", S_IFCHR | 0666, 5, 0, NULL},
    {"console", S_IFCHR | 0600, 5, 1, NULL},
    {"ptmx", S_IFCHR | 0666, 5, 2, NULL},
    {"fuse", S_IFCHR | 0666, 10, 229, NULL},
    {"fd", S_IFLNK | 0777, 0, 0, "/proc/self/fd"},
    {"stdin", S_IFLNK | 0777, 0, 0, "/proc/self/fd/0"},
    {"stdout", S_IFLNK | 0777, 0, 0, "/proc/self/fd/1"},
    {"stderr", S_IFLNK | 0777, 0, 0, "/proc/self/fd/2"},
    {"shm", S_IFDIR | 01777, 0, 0, NULL},
    {"mqueue", S_IFDIR | 01777, 0, 0, NULL},
};
#define N_SPECS G_N_ELEMENTS(specs)

typedef enum { NODE_ROOT, NODE_SPEC, NODE_PTS_DIR, NODE_PTS } NodeKind;
typedef struct {
  TesInode inode;
  NodeKind kind;
  const Spec *spec;
  Tty *tty; /* NODE_PTS, referenced */
} DevNode;

typedef struct {
  TesSuper super;
  gboolean only_pts; /* mounted as devpts */
  PtsOptions pts;
} DevFs;

static const TesInodeOps dev_inode_ops;

static DevNode *node_new(DevFs *fs, NodeKind kind, guint32 mode, guint64 ino) {
  DevNode *n = g_new0(DevNode, 1);
  n->kind = kind;
  tes_inode_init(&n->inode, &fs->super, &dev_inode_ops, mode, ino);
  n->inode.flags = TES_INODE_FLEETING;
  return n;
}

static void node_free(TesInode *i) {
  DevNode *n = (DevNode *)i;
  if (n->tty)
    tty_unref(n->tty);
  g_free(n);
}

static int pts_lookup(DevFs *fs, const char *name, TesInode **out) {
  guint64 index;
  if (g_str_equal(name, "ptmx") && fs->only_pts) {
    DevNode *n = node_new(fs, NODE_SPEC, S_IFCHR | fs->pts.ptmxmode, 2);
    n->spec = &specs[7];
    n->inode.rdev = makedev(5, 2);
    *out = &n->inode;
    return 0;
  }
  if (!g_ascii_string_to_unsigned(name, 10, 0, TTY_PTS_MAX, &index, NULL))
    return -ENOENT;
  Tty *t = pty_find(fs->super.kernel, fs->pts.instance, index);
  if (!t)
    return -ENOENT;
  DevNode *n = node_new(fs, NODE_PTS, g_atomic_int_get(&t->mode), PTS_INO_BASE + index);
  n->tty = t;
  n->inode.rdev = makedev(PTS_MAJOR + index / 256, index % 256);
  n->inode.uid = g_atomic_int_get(&t->uid);
  n->inode.gid = g_atomic_int_get(&t->gid);
  *out = &n->inode;
  return 0;
}

/* Entry i of the fixed tree, a new node each time: the VFS caches it by name. */
static DevNode *spec_node(DevFs *fs, gsize i) {
  gboolean pts = i == N_SPECS;
  DevNode *n = node_new(fs, pts ? NODE_PTS_DIR : NODE_SPEC, pts ? S_IFDIR | 0755 : specs[i].mode, i + 2);
  if (pts) {
    n->inode.flags |= TES_INODE_NO_CACHE;
  } else {
    n->spec = &specs[i];
    n->inode.rdev = makedev(specs[i].major, specs[i].minor);
  }
  return n;
}

static int dev_lookup(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  DevFs *fs = (DevFs *)dir->super;
  DevNode *d = (DevNode *)dir;
  if (d->kind == NODE_PTS_DIR)
    return pts_lookup(fs, name, out);
  if (d->kind != NODE_ROOT)
    return -ENOENT;
  for (gsize i = 0; i <= N_SPECS; i++)
    if (g_str_equal(name, i == N_SPECS ? "pts" : specs[i].name)) {
      *out = &spec_node(fs, i)->inode;
      return 0;
    }
  return -ENOENT;
}

static int dev_readlink(TesInode *i, TesCtx *ctx, char **out) {
  (void)ctx;
  *out = g_strdup(((DevNode *)i)->spec->target);
  return 0;
}

static int dev_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  DevNode *n = (DevNode *)i;
  TesTime now = n->tty ? (TesTime)pty_creation_time(n->tty) : tes_time_realtime(tes_ctx_kernel(ctx));
  struct timespec ts = {now / TES_NSEC, now % TES_NSEC};
  *a = (TesAttr){.mode = i->mode,
                 .nlink = S_ISDIR(i->mode) ? 2 : 1,
                 .uid = i->uid,
                 .gid = i->gid,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .rdev = i->rdev,
                 .blksize = TES_PAGE_SIZE,
                 .atime = ts,
                 .mtime = ts,
                 .ctime = ts};
  if (S_ISLNK(i->mode))
    a->size = strlen(n->spec->target);
  return 0;
}

static int dev_setattr(TesInode *i, TesCtx *ctx, const TesSetAttr *s) {
  (void)ctx;
  if (s->valid & TES_SET_MODE)
    i->mode = (i->mode & S_IFMT) | (s->mode & 07777);
  if (s->valid & TES_SET_UID)
    i->uid = s->uid;
  if (s->valid & TES_SET_GID)
    i->gid = s->gid;
  Tty *t = ((DevNode *)i)->tty;
  if (t) { /* nodes of terminals are made at each look: the terminal remembers */
    g_atomic_int_set(&t->mode, i->mode);
    g_atomic_int_set(&t->uid, i->uid);
    g_atomic_int_set(&t->gid, i->gid);
  }
  return 0; /* a size change is O_TRUNC of a device: nothing to do */
}

/* ---- Directories ---- */

typedef struct {
  guint instance;
  TesDirFill fill;
  gpointer data;
  goffset *pos;
  gboolean full;
} PtsList;

static void list_pts(Tty *t, gpointer data) {
  PtsList *l = data;
  if (l->full || t->instance != l->instance || *l->pos > t->index + 2)
    return;
  char name[16];
  int n = g_snprintf(name, sizeof name, "%d", t->index);
  if (l->fill(l->data, name, n, PTS_INO_BASE + t->index, DT_CHR, t->index + 3))
    *l->pos = t->index + 3;
  else
    l->full = TRUE;
}

static int dir_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  DevNode *d = (DevNode *)f->inode;
  for (; *pos < 2; ++*pos)
    if (!fill(data, "..", *pos + 1, d->inode.ino, DT_DIR, *pos + 1))
      return 0;
  if (d->kind == NODE_PTS_DIR) {
    PtsList l = {((DevFs *)f->inode->super)->pts.instance, fill, data, pos, FALSE};
    pty_foreach(f->kernel, list_pts, &l);
    if (((DevFs *)f->inode->super)->only_pts && !l.full && *pos <= PTMX_POS &&
        fill(data, "ptmx", 4, 2, DT_CHR, PTMX_POS + 1))
      *pos = PTMX_POS + 1;
    return 0;
  }
  if (d->kind != NODE_ROOT)
    return 0;
  for (; *pos - 2 <= (goffset)N_SPECS; ++*pos) {
    gsize i = *pos - 2;
    const char *name = i == N_SPECS ? "pts" : specs[i].name;
    if (!fill(data, name, strlen(name), i + 2, i == N_SPECS ? DT_DIR : IFTODT(specs[i].mode), *pos + 1))
      return 0;
  }
  return 0;
}

static void dir_release(TesFile *f) { g_free(f); }
static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "dev-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = dir_readdir,
                                   .release = dir_release};

/* ---- Opening devices ---- */

static int open_controlling(TesKernel *k, TesCtx *ctx, guint64 rdev, guint flags, TesFile **out) {
  TesTask *task = tes_ctx_task(ctx);
  TesTty *t = task ? tes_task_tty(task) : NULL;
  if (!t)
    return -ENXIO;
  int r = t->ops->open(t, ctx, flags | O_NOCTTY, out);
  t->ops->unref(t);
  return r;
}

static int open_console(TesKernel *k, TesCtx *ctx, guint64 rdev, guint flags, TesFile **out) {
  Tty *t = host_terminal_console(k);
  if (!t)
    return -ENXIO;
  int r = tty_open_slave(t, ctx, flags, out);
  tty_unref(t);
  return r;
}

static int open_ptmx(TesKernel *k, TesCtx *ctx, guint64 rdev, guint flags, TesFile **out) {
  return ptmx_open(k, ctx, &pts_defaults, flags, out);
}

static int open_mem(TesKernel *k, TesCtx *ctx, guint64 rdev, guint flags, TesFile **out) {
  return mem_open(k, minor(rdev), flags, out);
}

/* Terminals are found by their node, everything else by its number, as on any other filesystem. */
static int dev_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  DevNode *n = (DevNode *)i;
  if (n->kind == NODE_PTS)
    return tty_open_slave(n->tty, ctx, flags, out);
  DevFs *fs = (DevFs *)i->super;
  if (fs->only_pts && !S_ISDIR(i->mode))
    return ptmx_open(i->super->kernel, ctx, &fs->pts, flags, out);
  if (!S_ISDIR(i->mode))
    return -ENXIO;
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, i->super->kernel, &dir_ops, flags);
  *out = f;
  return 0;
}

static const TesInodeOps dev_inode_ops = {.size = sizeof(TesInodeOps),
                                          .lookup = dev_lookup,
                                          .readlink = dev_readlink,
                                          .getattr = dev_getattr,
                                          .setattr = dev_setattr,
                                          .open = dev_open,
                                          .free = node_free};

/* ---- Instances ---- */

static int dev_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)ctx;
  *st = (struct statfs){
      .f_type = s->magic, .f_bsize = TES_PAGE_SIZE, .f_frsize = TES_PAGE_SIZE, .f_namelen = TES_NAME_MAX};
  return 0;
}

static void dev_super_free(TesSuper *s) { g_free(s); }

static char *dev_show_options(TesSuper *s) {
  const DevFs *fs = (const DevFs *)s;
  GString *o = g_string_new(NULL);
  if (fs->only_pts && fs->pts.uid >= 0)
    g_string_append_printf(o, ",uid=%u", (guint)fs->pts.uid);
  if (fs->only_pts && fs->pts.gid >= 0)
    g_string_append_printf(o, ",gid=%u", (guint)fs->pts.gid);
  if (fs->only_pts)
    g_string_append_printf(o, ",mode=%03o,ptmxmode=%03o", fs->pts.mode, fs->pts.ptmxmode);
  return g_string_free(o, FALSE);
}

static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps),
                                      .statfs = dev_statfs,
                                      .free = dev_super_free,
                                      .show_options = dev_show_options};

/* mount(8), "Mount options for devpts". Without newinstance a mount shows what /dev/pts shows. */
static int pts_option(const char *key, const char *value, gpointer data) {
  static gint instances;
  PtsOptions *o = data;
  guint64 v = 0;
  if (g_str_equal(key, "newinstance") && !value) {
    o->instance = (guint)g_atomic_int_add(&instances, 1) + 1;
    return 0;
  }
  gboolean octal = g_str_equal(key, "mode") || g_str_equal(key, "ptmxmode");
  if (!value ||
      !g_ascii_string_to_unsigned(value, octal ? 8 : 10, 0, octal ? 0777 : G_MAXUINT32 - 1, &v, NULL))
    return -EINVAL;
  if (g_str_equal(key, "mode"))
    o->mode = (guint32)v;
  else if (octal)
    o->ptmxmode = (guint32)v;
  else if (g_str_equal(key, "uid"))
    o->uid = (gint64)v;
  else if (g_str_equal(key, "gid"))
    o->gid = (gint64)v;
  else if (g_str_equal(key, "max"))
    o->max = (gint)MIN(v, TTY_PTS_MAX);
  else
    return -EINVAL;
  return 0;
}

static int mount_dev(TesCtx *ctx, gboolean only_pts, const PtsOptions *pts, TesSuper **out) {
  DevFs *fs = g_new0(DevFs, 1);
  fs->pts = *pts;
  fs->only_pts = only_pts;
  tes_super_init(&fs->super, tes_ctx_kernel(ctx), &super_ops, only_pts ? "devpts" : "devtmpfs");
  fs->super.magic = only_pts ? DEVPTS_MAGIC : DEVFS_MAGIC;
  DevNode *root = node_new(fs, only_pts ? NODE_PTS_DIR : NODE_ROOT, S_IFDIR | 0755, 1);
  if (only_pts)
    root->inode.flags |= TES_INODE_NO_CACHE;
  tes_super_set_root(&fs->super, &root->inode);
  *out = &fs->super;
  return 0;
}

static int dev_mount(TesCtx *ctx, const char *source, const char *opts, gulong flags, TesSuper **out) {
  (void)source, (void)opts, (void)flags;
  return mount_dev(ctx, FALSE, &pts_defaults, out);
}
static int devpts_mount(TesCtx *ctx, const char *source, const char *opts, gulong flags, TesSuper **out) {
  (void)source, (void)flags;
  PtsOptions o = {.uid = -1, .gid = -1, .mode = 0600, .max = TTY_PTS_MAX};
  int r = opts ? tes_mount_opts_parse(opts, pts_option, &o) : 0;
  return r < 0 ? r : mount_dev(ctx, TRUE, &o, out);
}

const TesFsTypeOps dev_type = {.size = sizeof(TesFsTypeOps), .name = "devtmpfs", .mount = dev_mount};
const TesFsTypeOps devpts_type = {.size = sizeof(TesFsTypeOps), .name = "devpts", .mount = devpts_mount};

/* ---- The plugin ---- */

static int table_key;
PtyTable *pty_table(TesKernel *k) { return tes_kernel_get_data(k, &table_key); }

static gboolean dev_init(TesKernel *k, GError **error) {
  (void)error;
  tes_kernel_set_data(k, &table_key, pty_table_new(k), pty_table_free);
  return TRUE;
}

static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-dev", .version = 1};
#define DEVICE(open_) (&(const TesDeviceOps){.size = sizeof(TesDeviceOps), .open = (open_)})
static const TesFeature features[] = {{"char-device", "1:3", DEVICE(open_mem)},
                                      {"char-device", "1:5", DEVICE(open_mem)},
                                      {"char-device", "1:7", DEVICE(open_mem)},
                                      {"char-device", "1:8", DEVICE(open_mem)},
                                      {"char-device", "1:9", DEVICE(open_mem)},
                                      {"char-device", "5:0", DEVICE(open_controlling)},
                                      {"char-device", "5:1", DEVICE(open_console)},
                                      {"char-device", "5:2", DEVICE(open_ptmx)},
                                      {"filesystem", "dev", &dev_type},
                                      {"filesystem", "devtmpfs", &dev_type},
                                      {"filesystem", "devpts", &devpts_type},
                                      {"tty", "pty", &host_terminal_ops},
                                      {"state", "fs-dev", &state},
                                      {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(fs_dev, .name = "fs-dev", .summary = "Device nodes and terminals", .licence = "Apache-2.0",
                  .features = features, .init = dev_init);
