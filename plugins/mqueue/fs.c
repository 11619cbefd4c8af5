/* SPDX-License-Identifier: Apache-2.0 */
/* The filesystem "mqueue": one directory, whose files are the queues of an IPC namespace; and the plugin. */
#include "mqueue.h"

#define MQUEUE_MAGIC 0x19800202
#define FILE_SIZE 80 /* what stat(2) says of each */

typedef struct {
  TesInode inode;
  Mq *q; /* referenced; NULL: the directory */
} MqInode;

static const TesInodeOps inode_ops;

TesInode *mq_inode_new(MqNs *ns, Mq *q) {
  MqInode *i = g_new0(MqInode, 1);
  i->q = q ? mq_ref(q) : NULL;
  tes_inode_init(&i->inode, &ns->super, &inode_ops, q ? q->mode : S_IFDIR | 01777, q ? q->ino : 1);
  i->inode.uid = q ? q->uid : 0;
  i->inode.gid = q ? q->gid : 0;
  if (!q)
    i->inode.flags |= TES_INODE_NO_CACHE; /* mq_open and mq_unlink change it, too */
  return &i->inode;
}

static void inode_free(TesInode *i) {
  if (((MqInode *)i)->q)
    mq_unref(((MqInode *)i)->q);
  g_free(i);
}

static MqNs *ns_of(TesInode *i) { return (MqNs *)i->super; }

static int mq_lookup(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  MqNs *ns = ns_of(dir);
  TES_LOCKED(&ns->lock);
  Mq *q = g_hash_table_lookup(ns->names, name);
  if (!q)
    return -ENOENT;
  *out = mq_inode_new(ns, q);
  return 0;
}

static int mq_create(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  MqNs *ns = ns_of(dir);
  Mq *q;
  TES_LOCKED(&ns->lock);
  int r = mq_make(ns, ctx, name, mode, NULL, &q);
  if (r < 0)
    return r;
  *out = mq_inode_new(ns, q);
  mq_unref(q);
  return 0;
}

static int mq_unlink(TesInode *dir, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)ctx, (void)victim;
  MqNs *ns = ns_of(dir);
  TES_LOCKED(&ns->lock);
  return mq_unlink_name(ns, name);
}

static int mq_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  (void)ctx;
  Mq *q = ((MqInode *)i)->q;
  *a = (TesAttr){.mode = i->mode,
                 .nlink = q ? 1 : 2,
                 .uid = i->uid,
                 .gid = i->gid,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .size = q ? FILE_SIZE : 0,
                 .blksize = TES_PAGE_SIZE};
  if (!q)
    return 0;
  TES_LOCKED(&q->lock);
  a->mode = q->mode;
  a->uid = q->uid;
  a->gid = q->gid;
  a->atime = q->atime;
  a->mtime = q->mtime;
  a->ctime = q->ctime;
  return 0;
}

static int mq_setattr(TesInode *i, TesCtx *ctx, const TesSetAttr *s) {
  (void)ctx;
  Mq *q = ((MqInode *)i)->q;
  if (!q)
    return -EPERM;
  TES_LOCKED(&q->lock);
  if (s->valid & TES_SET_MODE)
    i->mode = q->mode = S_IFREG | (s->mode & 07777);
  if (s->valid & TES_SET_UID)
    i->uid = q->uid = s->uid;
  if (s->valid & TES_SET_GID)
    i->gid = q->gid = s->gid;
  if (s->valid & TES_SET_ATIME)
    q->atime = s->atime;
  if (s->valid & TES_SET_MTIME)
    q->mtime = s->mtime;
  return 0;
}

/* ---- Open queues ---- */

static gssize mq_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)flags;
  Mq *q = mq_of_file(f);
  char text[FILE_SIZE + 1];
  TesTask *reader = tes_ctx_task(ctx);
  tes_mutex_lock(&q->lock);
  gboolean told = q->notify.tg != NULL;
  int len = g_snprintf(text, sizeof text,
                       "QSIZE:%-10" G_GUINT64_FORMAT " NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", q->qsize,
                       told ? q->notify.how : 0, told && q->notify.how == SIGEV_SIGNAL ? q->notify.signo : 0,
                       told && reader ? q->notify.pid : 0);
  tes_mutex_unlock(&q->lock);
  if (*pos >= len)
    return 0;
  gssize r = tes_iov_write_to(iov, text + *pos, MIN((gsize)(len - *pos), iov->left));
  if (r > 0)
    *pos += r;
  return r;
}

static guint file_poll(TesFile *f) { return mq_poll(mq_of_file(f)); }

static int mq_flush(TesFile *f, TesCtx *ctx) {
  TesTask *t = tes_ctx_task(ctx);
  if (t)
    mq_forget_notify(mq_of_file(f), tes_task_group(t));
  return 0;
}

static void file_release(TesFile *f) { g_free(f); }
static const TesFileOps file_ops = {.size = sizeof(TesFileOps),
                                    .name = "mqueue",
                                    .flags = TES_FILE_SEEKABLE,
                                    .read = mq_read,
                                    .poll = file_poll,
                                    .flush = mq_flush,
                                    .release = file_release};

Mq *mq_of_file(TesFile *f) {
  return f->ops == &file_ops && f->inode && f->inode->ops == &inode_ops ? ((MqInode *)f->inode)->q : NULL;
}

static int mq_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  MqNs *ns = ns_of(f->inode);
  for (; *pos < 2; ++*pos)
    if (!fill(data, "..", *pos + 1, f->inode->ino, DT_DIR, *pos + 1))
      return 0;
  TES_LOCKED(&ns->lock);
  /* By number, which grows: removals between two calls skip nobody. */
  for (guint i = 0; i < ns->order->len; i++) {
    const char *name = g_ptr_array_index(ns->order, i);
    Mq *q = g_hash_table_lookup(ns->names, name);
    if ((goffset)q->ino < *pos)
      continue;
    if (!fill(data, name, strlen(name), q->ino, DT_REG, (goffset)q->ino + 1))
      return 0;
    *pos = (goffset)q->ino + 1;
  }
  return 0;
}

static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "mqueue-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = mq_readdir,
                                   .release = file_release};

static int mq_open_inode(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  (void)ctx;
  Mq *q = ((MqInode *)i)->q;
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, i->super->kernel, q ? &file_ops : &dir_ops, flags);
  if (q)
    f->queue = &q->queue; /* lives as long as the inode, which the file holds */
  *out = f;
  return 0;
}

static const TesInodeOps inode_ops = {.size = sizeof(TesInodeOps),
                                      .lookup = mq_lookup,
                                      .create = mq_create,
                                      .unlink = mq_unlink,
                                      .getattr = mq_getattr,
                                      .setattr = mq_setattr,
                                      .open = mq_open_inode,
                                      .free = inode_free};

/* ---- Instances ---- */

static int mq_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)s, (void)ctx;
  *st = (struct statfs){
      .f_type = MQUEUE_MAGIC, .f_bsize = TES_PAGE_SIZE, .f_frsize = TES_PAGE_SIZE, .f_namelen = TES_NAME_MAX};
  return 0;
}

static void super_free(TesSuper *s) {
  MqNs *ns = (MqNs *)s;
  g_hash_table_unref(ns->names);
  g_ptr_array_unref(ns->order);
  tes_mutex_clear(&ns->lock);
  g_free(ns);
}
static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps), .statfs = mq_statfs, .free = super_free};

static const TesLockClass names_class = {"mqueue names", TES_RANK_FS + 1, FALSE, "names of message queues"};

MqNs *mq_ns_new(TesKernel *k) {
  MqNs *ns = g_new0(MqNs, 1);
  tes_super_init(&ns->super, k, &super_ops, "mqueue");
  ns->super.magic = MQUEUE_MAGIC;
  tes_mutex_init(&ns->lock, &names_class);
  ns->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)mq_unref);
  ns->order = g_ptr_array_new();
  ns->msg_default = ns->msg_max = 10;
  ns->msgsize_default = ns->msgsize_max = 8192;
  ns->queues_max = 256;
  tes_super_set_root(&ns->super, mq_inode_new(ns, NULL));
  return ns;
}

static int mq_mount(TesCtx *ctx, const char *source, const char *opts, gulong flags, TesSuper **out) {
  (void)source, (void)opts, (void)flags;
  MqNs *ns = mq_ns_of(ctx);
  if (!ns)
    return -EINVAL;
  *out = &ns->super;
  return 0;
}

const TesFsTypeOps mq_fs_type = {.size = sizeof(TesFsTypeOps), .name = "mqueue", .mount = mq_mount};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "mqueue", .version = 1};
static const TesFeature features[] = {{"filesystem", "mqueue", &mq_fs_type},
                                      {"syscalls", "mqueue", &mq_calls},
                                      {"sysctl", "fs/mqueue", &mq_sysctl},
                                      {"state", "mqueue", &state},
                                      {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(mqueue, .name = "mqueue", .summary = "POSIX message queues", .licence = "Apache-2.0",
                  .features = features, .init = mq_init, .fini = mq_fini);
