/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of a sysfs: nodes are made at mount and never change, so that inodes, made at lookup, only point to them. */
#include "sys.h"

#define SYSFS_MAGIC 0x62656572

typedef struct {
  TesInode inode;
  SysNode *node; /* the super's */
} SysInode;

/* ---- Building ---- */

static SysNode *find_child(const SysNode *dir, const char *name, gsize len) {
  for (guint i = 0; i < dir->n_child; i++)
    if (strncmp(dir->child[i]->name, name, len) == 0 && dir->child[i]->name[len] == 0)
      return dir->child[i];
  return NULL;
}

static SysNode *add_child(SysFs *fs, SysNode *dir, const char *name, gsize len) {
  SysNode *n = find_child(dir, name, len);
  if (n)
    return n;
  n = g_new0(SysNode, 1);
  n->name = g_strndup(name, len);
  n->mode = S_IFDIR | 0755;
  n->ino = ++fs->last_ino;
  if (dir->n_child == dir->cap) {
    dir->cap = MAX(4, dir->cap * 2);
    dir->child = g_renew(SysNode *, dir->child, dir->cap);
  }
  dir->child[dir->n_child++] = n;
  return n;
}

SysNode *sys_add(SysFs *fs, const char *path, const SysEntry *e, guint cpu, guint n) {
  SysNode *node = fs->root;
  while (*path) {
    gsize len = strcspn(path, "/");
    node = add_child(fs, node, path, len);
    path += len + (path[len] == '/');
  }
  node->cpu = cpu;
  node->n = n;
  if (e->target) {
    node->mode = S_IFLNK | 0777;
    node->fixed = g_strdup(e->target);
  } else if (e->text || e->fixed) {
    node->mode = S_IFREG | 0444;
    node->text = e->text;
    node->fixed = e->fixed ? g_strconcat(e->fixed, *e->fixed ? "\n" : "", NULL) : NULL;
  }
  return node;
}

void sys_add_table(SysFs *fs, const SysEntry *e) {
  for (; e->path; e++) {
    const char *mark = strchr(e->path, '#');
    if (!mark) {
      sys_add(fs, e->path, e, 0, 0);
      continue;
    }
    for (guint cpu = 0; cpu < tes_kernel_cores(fs->super.kernel); cpu++) {
      g_autofree char *path = g_strdup_printf("%.*s%u%s", (int)(mark - e->path), e->path, cpu, mark + 1);
      sys_add(fs, path, e, cpu, 0);
    }
  }
}

void sys_add_link(SysFs *fs, const char *path, const char *to) {
  g_autoptr(GString) target = g_string_new(NULL);
  for (const char *p = strchr(path, '/'); p; p = strchr(p + 1, '/'))
    g_string_append(target, "../");
  g_string_append(target, to);
  sys_add(fs, path, &(SysEntry){.target = target->str}, 0, 0);
}

static void node_free(SysNode *n) {
  for (guint i = 0; i < n->n_child; i++)
    node_free(n->child[i]);
  g_free(n->child);
  g_free((char *)n->name);
  g_free(n->fixed);
  g_free(n);
}

/* ---- Inodes ---- */

static const TesInodeOps inode_ops;

static TesInode *inode_new(SysFs *fs, SysNode *node) {
  SysInode *i = g_new0(SysInode, 1);
  i->node = node;
  tes_inode_init(&i->inode, &fs->super, &inode_ops, node->mode, node->ino);
  i->inode.flags = TES_INODE_FLEETING;
  return &i->inode;
}

static void inode_free(TesInode *i) { g_free(i); }

static int sys_lookup(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  SysNode *n = find_child(((SysInode *)dir)->node, name, strlen(name));
  if (!n)
    return -ENOENT;
  *out = inode_new((SysFs *)dir->super, n);
  return 0;
}

static int sys_readlink(TesInode *i, TesCtx *ctx, char **out) {
  (void)ctx;
  *out = g_strdup(((SysInode *)i)->node->fixed);
  return 0;
}

static int sys_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  (void)ctx;
  SysFs *fs = (SysFs *)i->super;
  SysNode *n = ((SysInode *)i)->node;
  struct timespec ts = {fs->made / TES_NSEC, fs->made % TES_NSEC};
  *a = (TesAttr){.mode = i->mode,
                 .nlink = 1,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .size = S_ISREG(i->mode) ? TES_PAGE_SIZE : 0,
                 .blksize = TES_PAGE_SIZE,
                 .atime = ts,
                 .mtime = ts,
                 .ctime = ts};
  if (S_ISDIR(i->mode)) {
    a->nlink = 2;
    for (guint k = 0; k < n->n_child; k++)
      a->nlink += S_ISDIR(n->child[k]->mode);
  }
  return 0;
}

static int sys_setattr(TesInode *i, TesCtx *ctx, const TesSetAttr *s) {
  (void)i, (void)ctx, (void)s;
  return -EPERM;
}

static int sys_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  SysNode *n = ((SysInode *)f->inode)->node;
  if (!text_dir_dots(f, pos, fill, data))
    return 0;
  for (; *pos - 2 < (goffset)n->n_child; ++*pos) {
    SysNode *c = n->child[*pos - 2];
    if (!fill(data, c->name, strlen(c->name), c->ino, IFTODT(c->mode), *pos + 1))
      return 0;
  }
  return 0;
}

static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "sysfs-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = sys_readdir,
                                   .release = text_dir_release};

static int sys_text(TesInode *i, TesCtx *ctx, GString *s) {
  SysNode *n = ((SysInode *)i)->node;
  if (n->text)
    n->text(n, tes_ctx_kernel(ctx), s);
  else
    g_string_append(s, n->fixed);
  return 0;
}

static const TextOps text_ops = {.text = sys_text};

static int sys_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  (void)ctx;
  TesKernel *k = i->super->kernel;
  *out = S_ISDIR(i->mode) ? text_dir_new(k, flags, &dir_ops) : text_file_new(k, flags, &text_ops);
  return 0;
}

static const TesInodeOps inode_ops = {.size = sizeof(TesInodeOps),
                                      .lookup = sys_lookup,
                                      .readlink = sys_readlink,
                                      .getattr = sys_getattr,
                                      .setattr = sys_setattr,
                                      .open = sys_open,
                                      .free = inode_free};

/* ---- The instance and the plugin ---- */

static int sys_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)s, (void)ctx;
  *st = (struct statfs){
      .f_type = SYSFS_MAGIC, .f_bsize = TES_PAGE_SIZE, .f_frsize = TES_PAGE_SIZE, .f_namelen = TES_NAME_MAX};
  return 0;
}

static void sys_super_free(TesSuper *s) {
  node_free(((SysFs *)s)->root);
  g_free(s);
}
static const TesSuperOps super_ops = {
    .size = sizeof(TesSuperOps), .statfs = sys_statfs, .free = sys_super_free};

static int sys_mount(TesCtx *ctx, const char *source, const char *opts, gulong flags, TesSuper **out) {
  (void)source, (void)opts, (void)flags;
  SysFs *fs = g_new0(SysFs, 1);
  tes_super_init(&fs->super, tes_ctx_kernel(ctx), &super_ops, "sysfs");
  fs->super.magic = SYSFS_MAGIC;
  fs->made = tes_time_realtime(tes_ctx_kernel(ctx));
  fs->root = g_new0(SysNode, 1);
  fs->root->mode = S_IFDIR | 0555;
  fs->root->ino = fs->last_ino = 1;
  sys_add_kernel(fs);
  sys_add_cpus(fs);
  sys_add_net(fs);
  tes_super_set_root(&fs->super, inode_new(fs, fs->root));
  *out = &fs->super;
  return 0;
}

static const TesFsTypeOps sys_type = {.size = sizeof(TesFsTypeOps), .name = "sysfs", .mount = sys_mount};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-sys", .version = 1};
static const TesFeature features[] = {
    {"filesystem", "sysfs", &sys_type}, {"state", "fs-sys", &state}, {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(fs_sys, .name = "fs-sys", .summary = "Devices, CPUs and settings of the kernel (sysfs)",
                  .licence = "Apache-2.0", .features = features);
