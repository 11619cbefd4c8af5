/* SPDX-License-Identifier: Apache-2.0 */
/* The filesystem "cgroup2": a directory for each cgroup, and the plugin. Owners and modes of the files are kept in the cgroup, so
 * that an inode may be forgotten and made again. */
#include "cgroup.h"

#define CGROUP2_MAGIC 0x63677270
#define DIR_INDEX CG_N_FILES

typedef struct {
  TesInode inode;
  Cg *cg; /* referenced */
  guint index;
} CgInode;

static const TesInodeOps inode_ops;

static TesInode *inode_new(TesSuper *s, Cg *c, guint index) {
  CgInode *i = g_new0(CgInode, 1);
  const CgAttr *a = &c->attr[index];
  i->cg = cg_ref(c);
  i->index = index;
  tes_inode_init(&i->inode, s, &inode_ops, a->mode, index == DIR_INDEX ? c->id : c->id << 8 | (index + 1));
  i->inode.uid = a->uid;
  i->inode.gid = a->gid;
  if (index == DIR_INDEX)
    i->inode.flags |= TES_INODE_REVALIDATE;
  i->inode.flags |= TES_INODE_FLEETING;
  if (index == CG_EVENTS) {
    TES_LOCKED(&c->tree->notify_lock);
    c->events_inode = &i->inode;
  }
  return &i->inode;
}

static void inode_free(TesInode *i) {
  CgInode *ci = (CgInode *)i;
  if (ci->index == CG_EVENTS) {
    TES_LOCKED(&ci->cg->tree->notify_lock);
    if (ci->cg->events_inode == i)
      ci->cg->events_inode = NULL;
  }
  cg_unref(((CgInode *)i)->cg);
  g_free(i);
}

static gboolean find_file(const Cg *c, const char *name, guint *index) {
  for (guint i = 0; i < cg_n_files; i++)
    if (g_str_equal(cg_files[i].name, name)) {
      *index = i;
      return !c->dead && cg_has_file(c, i);
    }
  return FALSE;
}

static int cg_lookup(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  Cg *c = ((CgInode *)dir)->cg;
  guint index;
  TES_LOCKED(&c->tree->lock);
  Cg *child = cg_child(c, name);
  if (child)
    *out = inode_new(dir->super, child, DIR_INDEX);
  else if (find_file(c, name, &index))
    *out = inode_new(dir->super, c, index);
  else
    return -ENOENT;
  return 0;
}

/* Controllers come and go, and other mounts show the same cgroups. */
static int cg_revalidate(TesInode *dir, TesCtx *ctx, const char *name, TesInode *child) {
  (void)ctx;
  Cg *c = ((CgInode *)dir)->cg;
  CgInode *i = (CgInode *)child;
  guint index;
  TES_LOCKED(&c->tree->lock);
  Cg *k = cg_child(c, name);
  gboolean file = !k && find_file(c, name, &index);
  if (!i)
    return !k && !file;
  if (i->index == DIR_INDEX ? i->cg != k : !file)
    return 0;
  const CgAttr *a = &i->cg->attr[i->index];
  i->inode.mode = a->mode;
  i->inode.uid = a->uid;
  i->inode.gid = a->gid;
  return 1;
}

static int cg_mkdir(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  Cg *c = ((CgInode *)dir)->cg, *made;
  guint32 uid, gid;
  tes_inode_new_owner(dir, ctx, &mode, &uid, &gid);
  tes_mutex_lock(&c->tree->lock);
  int r = cg_make(c, name, &made);
  if (r == 0) {
    for (guint i = 0; i <= CG_N_FILES; i++) {
      made->attr[i].uid = uid;
      made->attr[i].gid = gid;
    }
    made->attr[DIR_INDEX].mode = S_IFDIR | (mode & 07777);
    *out = inode_new(dir->super, made, DIR_INDEX);
  }
  tes_mutex_unlock(&c->tree->lock);
  if (r == 0)
    cg_unref(made);
  return r;
}

static int cg_rmdir(TesInode *dir, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)dir, (void)ctx, (void)name;
  CgInode *i = (CgInode *)victim;
  if (i->index != DIR_INDEX)
    return -ENOTDIR;
  Cg *c = i->cg;
  tes_mutex_lock(&c->tree->lock);
  int r = cg_remove(c);
  tes_mutex_unlock(&c->tree->lock);
  if (r < 0)
    return r;
  cpu_fini(c);
  cg_unref(c);
  return 0;
}

static int cg_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  (void)ctx;
  Cg *c = ((CgInode *)i)->cg;
  struct timespec ts = {c->made / TES_NSEC, c->made % TES_NSEC};
  TES_LOCKED(&c->tree->lock);
  *a = (TesAttr){.mode = i->mode,
                 .nlink = S_ISDIR(i->mode) ? 2 + c->children->len : 1,
                 .uid = i->uid,
                 .gid = i->gid,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .blksize = TES_PAGE_SIZE,
                 .atime = ts,
                 .mtime = ts,
                 .ctime = ts};
  return 0;
}

static int cg_setattr(TesInode *inode, TesCtx *ctx, const TesSetAttr *s) {
  (void)ctx;
  CgInode *i = (CgInode *)inode;
  TES_LOCKED(&i->cg->tree->lock);
  CgAttr *a = &i->cg->attr[i->index];
  if (s->valid & TES_SET_MODE)
    inode->mode = a->mode = (inode->mode & S_IFMT) | (s->mode & 07777);
  if (s->valid & TES_SET_UID)
    inode->uid = a->uid = s->uid;
  if (s->valid & TES_SET_GID)
    inode->gid = a->gid = s->gid;
  return 0;
}

/* ---- Contents ---- */

static int cg_text(TesInode *i, TesCtx *ctx, GString *s) {
  CgInode *ci = (CgInode *)i;
  const CgFile *f = &cg_files[ci->index];
  tes_mutex_lock(&ci->cg->tree->lock);
  gboolean there = !ci->cg->dead && cg_has_file(ci->cg, ci->index);
  tes_mutex_unlock(&ci->cg->tree->lock);
  if (!there)
    return -ENODEV;
  return f->show ? f->show(ci->cg, ctx, s) : -EINVAL;
}

static int cg_write(TesInode *i, TesCtx *ctx, TesFile *file, char *text) {
  CgInode *ci = (CgInode *)i;
  const CgFile *f = &cg_files[ci->index];
  tes_mutex_lock(&ci->cg->tree->lock);
  gboolean there = !ci->cg->dead && cg_has_file(ci->cg, ci->index);
  tes_mutex_unlock(&ci->cg->tree->lock);
  if (!there)
    return -ENODEV;
  return f->store ? f->store(ci->cg, ctx, file, text) : -EINVAL;
}

static guint64 cg_version(TesInode *i) {
  return __atomic_load_n(&((CgInode *)i)->cg->version, __ATOMIC_ACQUIRE);
}

static const TextOps text_ops = {.text = cg_text, .write = cg_write};
static const TextOps events_ops = {.text = cg_text, .write = cg_write, .version = cg_version};

static int cg_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  Cg *c = ((CgInode *)f->inode)->cg;
  if (!text_dir_dots(f, pos, fill, data))
    return 0;
  TES_LOCKED(&c->tree->lock);
  for (; *pos - 2 < (goffset)cg_n_files; ++*pos) {
    guint i = (guint)(*pos - 2);
    const char *name = cg_files[i].name;
    if (!c->dead && cg_has_file(c, i) &&
        !fill(data, name, strlen(name), c->id << 8 | (i + 1), DT_REG, *pos + 1))
      return 0;
  }
  /* Children by their number, which grows, so that removals between two calls skip nobody. */
  for (guint k = 0; k < c->children->len; k++) {
    Cg *child = g_ptr_array_index(c->children, k);
    goffset at = (goffset)(child->id + 2 + CG_N_FILES);
    if (at < *pos)
      continue;
    if (!fill(data, child->name, strlen(child->name), child->id, DT_DIR, at + 1))
      return 0;
    *pos = at + 1;
  }
  return 0;
}

static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "cgroup2-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = cg_readdir,
                                   .release = text_dir_release};

Cg *cg_of_dir(TesFile *f) {
  return f->inode && f->inode->ops == &inode_ops && S_ISDIR(f->inode->mode) ? ((CgInode *)f->inode)->cg
                                                                            : NULL;
}

static int cg_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  TesKernel *k = i->super->kernel;
  CgInode *ci = (CgInode *)i;
  if (S_ISDIR(i->mode)) {
    *out = text_dir_new(k, flags, &dir_ops);
    return 0;
  }
  gboolean events = g_str_has_suffix(cg_files[ci->index].name, ".events");
  *out = text_file_new(k, flags, events ? &events_ops : &text_ops);
  text_set_opener(*out, tes_ctx_cred(ctx));
  if (events)
    text_watch(*out, &ci->cg->queue, cg_version(i));
  return 0;
}

static const TesInodeOps inode_ops = {.size = sizeof(TesInodeOps),
                                      .lookup = cg_lookup,
                                      .revalidate = cg_revalidate,
                                      .mkdir = cg_mkdir,
                                      .rmdir = cg_rmdir,
                                      .getattr = cg_getattr,
                                      .setattr = cg_setattr,
                                      .open = cg_open,
                                      .free = inode_free};

/* ---- The instance and the plugin ---- */

static int cg_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)s, (void)ctx;
  *st = (struct statfs){.f_type = CGROUP2_MAGIC,
                        .f_bsize = TES_PAGE_SIZE,
                        .f_frsize = TES_PAGE_SIZE,
                        .f_namelen = TES_NAME_MAX};
  return 0;
}

static void cg_super_free(TesSuper *s) { g_free(s); }
static const TesSuperOps super_ops = {
    .size = sizeof(TesSuperOps), .statfs = cg_statfs, .free = cg_super_free};

static int mount_option(const char *key, const char *value, gpointer data) {
  static const char *const known[] = {"nsdelegate", "favordynmods", "memory_localevents",
                                      "memory_recursiveprot"};
  (void)data;
  for (gsize i = 0; i < G_N_ELEMENTS(known); i++)
    if (g_str_equal(key, known[i]) && !value)
      return 0;
  return -EINVAL;
}

/* Every mount shows the one hierarchy, from the root of the caller's cgroup namespace down. */
static int cg_mount(TesCtx *ctx, const char *source, const char *opts, gulong flags, TesSuper **out) {
  (void)source, (void)flags;
  TesKernel *k = tes_ctx_kernel(ctx);
  int r = opts ? tes_mount_opts_parse(opts, mount_option, NULL) : 0;
  if (r < 0)
    return r;
  Cg *root = (Cg *)tes_ctx_cgroup_root(ctx);
  TesSuper *s = g_new0(TesSuper, 1);
  tes_super_init(s, k, &super_ops, "cgroup2");
  s->magic = CGROUP2_MAGIC;
  tes_super_set_root(s, inode_new(s, root ? root : cg_tree(k)->root, DIR_INDEX));
  *out = s;
  return 0;
}

static gboolean cg_init(TesKernel *k, GError **error) {
  (void)error;
  cg_tree_new(k);
  return TRUE;
}

static const TesFsTypeOps cg_type = {.size = sizeof(TesFsTypeOps), .name = "cgroup2", .mount = cg_mount};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-cgroup", .version = 1};
static const TesFeature features[] = {{"filesystem", "cgroup2", &cg_type},
                                      {"cgroup", "v2", &cg_ops},
                                      {"state", "fs-cgroup", &state},
                                      {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(fs_cgroup, .name = "fs-cgroup", .summary = "Control groups version 2: cpu, memory, pids",
                  .licence = "Apache-2.0", .features = features, .init = cg_init);
