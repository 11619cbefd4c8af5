/* SPDX-License-Identifier: Apache-2.0 */
/* The proc tree's machinery: nodes are made at lookup from const entries and keep nothing; text is made when a file is
 * read from its beginning. */
#include "proc.h"

#define PROC_MAGIC 0x9fa0

static const TesInodeOps node_ops;

/* Stable for what a node shows: the task, the entry, the number. */
static guint64 node_ino(const Entry *e, TesTask *task, gint number) {
  guint64 tid = task ? tes_task_tid(task, NULL) : 0;
  return (tid << 32 | (guint32)(g_str_hash(e->name ? e->name : "") ^ (number * 2654435761U))) | 1;
}

int node_new(TesSuper *super, const Entry *e, TesTask *task, gint number, TesInode **out) {
  Node *n = g_new0(Node, 1);
  n->entry = e;
  n->task = task ? tes_task_ref(task) : NULL;
  n->number = number;
  tes_inode_init(&n->inode, super, &node_ops, e->mode, node_ino(e, task, number));
  n->inode.flags = TES_INODE_FLEETING | (S_ISDIR(e->mode) ? TES_INODE_NO_CACHE : 0) |
                   (e->follow ? TES_INODE_MAGIC_LINK : 0);
  if (task) {
    TesCred *c = tes_task_cred(task);
    n->inode.uid = c ? c->euid : 0;
    n->inode.gid = c ? c->egid : 0;
  }
  *out = &n->inode;
  return 0;
}

static void node_free(TesInode *i) {
  Node *n = (Node *)i;
  if (n->task)
    tes_task_unref(n->task);
  g_free(n);
}

int check_task(Node *n, TesCtx *ctx) {
  if (!n->task)
    return 0;
  return tes_task_may_inspect(ctx, n->task) ? 0 : -EACCES;
}

/* ---- Directories ---- */

int find_entry(Node *n, const Entry *list, const char *name, TesInode **out) {
  for (const Entry *e = list; e && e->name; e++)
    if (g_str_equal(e->name, name)) {
      int r = node_new(n->inode.super, e, n->task, n->number, out);
      ((Node *)*out)->thread = n->thread;
      return r;
    }
  return -ENOENT;
}

/* A process that was waited for is gone, though its struct lives as long as somebody holds its files. */
static gboolean is_gone(Node *n, TesKernel *k) {
  if (!n->task)
    return FALSE;
  g_autoptr(TesTask) t = tes_task_find(k, NULL, tes_task_tid(n->task, NULL), FALSE);
  return t != n->task;
}

static int node_lookup(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  Node *n = (Node *)dir;
  if (is_gone(n, ctx->kernel))
    return -ENOENT;
  int r = n->entry->private_ ? check_task(n, ctx) : 0;
  if (r == 0)
    r = find_entry(n, n->entry->dir, name, out);
  return r == -ENOENT && n->entry->lookup ? n->entry->lookup(n, ctx, name, out) : r;
}

int list_entries(Node *n, const Entry *list, goffset *pos, TesDirFill fill, gpointer data, guint first) {
  guint i = first;
  for (const Entry *e = list; e && e->name; e++, i++) {
    if (*pos > i)
      continue;
    if (!fill(data, e->name, strlen(e->name), node_ino(e, n->task, 0), IFTODT(e->mode), i + 1))
      return 1;
    *pos = i + 1;
  }
  return 0;
}

#define FIRST_COMPUTED 1000 /* positions of computed names begin here */

static int dir_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  Node *n = (Node *)f->inode;
  int r = n->entry->private_ ? check_task(n, ctx) : 0;
  if (r < 0)
    return r;
  for (; *pos < 2; ++*pos)
    if (!fill(data, "..", *pos + 1, n->inode.ino, DT_DIR, *pos + 1))
      return 0;
  if (list_entries(n, n->entry->dir, pos, fill, data, 2) || !n->entry->list)
    return 0;
  *pos = MAX(*pos, FIRST_COMPUTED);
  goffset rel = *pos - FIRST_COMPUTED;
  r = n->entry->list(n, ctx, &rel, fill, data);
  *pos = rel + FIRST_COMPUTED;
  return r;
}

static void plain_release(TesFile *f) { g_free(f); }
static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "proc-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = dir_readdir,
                                   .release = plain_release};

/* ---- Text files ---- */

typedef struct {
  TesFile file;
  GMutex lock;
  GString *text; /* made at the first read from 0 */
} TextFile;

static gssize text_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)flags;
  TextFile *t = (TextFile *)f;
  Node *n = (Node *)f->inode;
  g_autoptr(GString) fresh = NULL;
  if (is_gone(n, ctx->kernel))
    return -ESRCH;
  if (*pos == 0 || !t->text) {
    fresh = g_string_new(NULL);
    int r = n->entry->text(n, ctx, fresh);
    if (r < 0)
      return r;
    g_mutex_lock(&t->lock);
    GString *old = t->text;
    t->text = g_steal_pointer(&fresh);
    fresh = old;
    g_mutex_unlock(&t->lock);
  }
  g_mutex_lock(&t->lock);
  gsize len = *pos < (goffset)t->text->len ? t->text->len - *pos : 0;
  len = MIN(len, iov->left);
  g_autofree char *copy = g_memdup2(t->text->str + (len ? *pos : 0), len);
  g_mutex_unlock(&t->lock);
  gssize r = len ? tes_iov_write_to(iov, copy, len) : 0;
  if (r > 0)
    *pos += r;
  return r;
}

static gssize text_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)flags;
  Node *n = (Node *)f->inode;
  if (!n->entry->write)
    return -EINVAL;
  gsize len = MIN(iov->left, TES_PAGE_SIZE - 1);
  g_autofree char *buf = g_malloc(len + 1);
  gssize r = tes_iov_read_from(iov, buf, len);
  if (r < 0)
    return r;
  buf[r] = 0;
  int w = n->entry->write(n, ctx, buf, r);
  if (w < 0)
    return w;
  *pos += r;
  return r;
}

static void text_release(TesFile *f) {
  TextFile *t = (TextFile *)f;
  if (t->text)
    g_string_free(t->text, TRUE);
  g_mutex_clear(&t->lock);
  g_free(t);
}

static const TesFileOps text_ops = {.size = sizeof(TesFileOps),
                                    .name = "proc",
                                    .flags = TES_FILE_SEEKABLE,
                                    .read = text_read,
                                    .write = text_write,
                                    .release = text_release};

static int node_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  Node *n = (Node *)i;
  int r = n->entry->private_ ? check_task(n, ctx) : 0;
  if (r < 0)
    return r;
  if (n->entry->open)
    return n->entry->open(n, ctx, flags, out);
  if (S_ISDIR(i->mode) || n->entry->ops) {
    TesFile *f = g_new0(TesFile, 1);
    tes_file_init(f, i->super->kernel, S_ISDIR(i->mode) ? &dir_ops : n->entry->ops, flags);
    *out = f;
    return 0;
  }
  TextFile *t = g_new0(TextFile, 1);
  tes_file_init(&t->file, i->super->kernel, &text_ops, flags);
  g_mutex_init(&t->lock);
  *out = &t->file;
  return 0;
}

/* ---- Links and attributes ---- */

static int node_readlink(TesInode *i, TesCtx *ctx, char **out) {
  Node *n = (Node *)i;
  int r = n->entry->private_ ? check_task(n, ctx) : 0;
  if (r < 0)
    return r;
  GString *s = g_string_new(NULL);
  r = n->entry->text(n, ctx, s);
  *out = g_string_free(s, r < 0);
  return r;
}

static int node_follow(TesInode *i, TesCtx *ctx, TesPath **out) {
  Node *n = (Node *)i;
  int r = n->entry->private_ ? check_task(n, ctx) : 0;
  return r < 0 ? r : n->entry->follow(n, ctx, out);
}

static int node_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  TesTime now = tes_time_realtime(tes_ctx_kernel(ctx));
  struct timespec ts = {now / TES_NSEC, now % TES_NSEC};
  *a = (TesAttr){.mode = i->mode,
                 .nlink = S_ISDIR(i->mode) ? 2 : 1,
                 .uid = i->uid,
                 .gid = i->gid,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .blksize = 1024,
                 .atime = ts,
                 .mtime = ts,
                 .ctime = ts};
  if (S_ISLNK(i->mode))
    a->size = 64;
  return 0;
}

static int node_setattr(TesInode *i, TesCtx *ctx, const TesSetAttr *s) {
  (void)ctx;
  if (s->valid & (TES_SET_MODE | TES_SET_UID | TES_SET_GID))
    return -EPERM;
  return S_ISREG(i->mode) ? 0 : -EPERM; /* O_TRUNC of a writable file */
}

static const TesInodeOps node_ops = {.size = sizeof(TesInodeOps),
                                     .lookup = node_lookup,
                                     .readlink = node_readlink,
                                     .follow = node_follow,
                                     .getattr = node_getattr,
                                     .setattr = node_setattr,
                                     .open = node_open,
                                     .free = node_free};

/* ---- The instance and the plugin ---- */

static int proc_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)s, (void)ctx;
  *st = (struct statfs){
      .f_type = PROC_MAGIC, .f_bsize = TES_PAGE_SIZE, .f_frsize = TES_PAGE_SIZE, .f_namelen = TES_NAME_MAX};
  return 0;
}

static void proc_super_free(TesSuper *s) { g_free(s); }
static const TesSuperOps super_ops = {
    .size = sizeof(TesSuperOps), .statfs = proc_statfs, .free = proc_super_free};

static int proc_mount(TesCtx *ctx, const char *source, const char *opts, gulong flags, TesSuper **out) {
  (void)source, (void)opts, (void)flags;
  TesSuper *s = g_new0(TesSuper, 1);
  tes_super_init(s, tes_ctx_kernel(ctx), &super_ops, "proc");
  s->magic = PROC_MAGIC;
  TesInode *root;
  node_new(s, &proc_root, NULL, 0, &root);
  tes_super_set_root(s, root);
  *out = s;
  return 0;
}

static const TesFsTypeOps proc_type = {.size = sizeof(TesFsTypeOps), .name = "proc", .mount = proc_mount};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-proc", .version = 1};
static const TesFeature features[] = {
    {"filesystem", "proc", &proc_type}, {"state", "fs-proc", &state}, {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(fs_proc, .name = "fs-proc", .summary = "Process and system information (proc)",
                  .licence = "Apache-2.0", .features = features);
