/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces as files: where /proc/PID/ns/NAME leads, and what setns(2) is given (namespaces(7)). They are on a filesystem of their
 * own without a root. A file keeps its namespace alive. */
#include <core/file/file.h>
#include <core/task/life.h>
#include <string.h>

#define NSFS_MAGIC 0x6e736673
#define NS_GET_NSTYPE 0xb703

typedef struct {
  TesInode inode;
  int kind; /* CLONE_NEW* */
  TesNs *ns;
  TesMountNs *mounts; /* CLONE_NEWNS */
} NsInode;

static const char *kind_name(int kind) {
  switch (kind) {
  case CLONE_NEWNS:
    return "mnt";
  case CLONE_NEWUTS:
    return "uts";
  case CLONE_NEWIPC:
    return "ipc";
  case CLONE_NEWPID:
    return "pid";
  case CLONE_NEWNET:
    return "net";
  case CLONE_NEWCGROUP:
    return "cgroup";
  case CLONE_NEWTIME:
    return "time";
  default:
    return "user";
  }
}

static int ns_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  TesTime now = tes_time_realtime(tes_ctx_kernel(ctx));
  struct timespec ts = {now / TES_NSEC, now % TES_NSEC};
  *a = (TesAttr){.mode = i->mode,
                 .nlink = 1,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .blksize = TES_PAGE_SIZE,
                 .atime = ts,
                 .mtime = ts,
                 .ctime = ts};
  return 0;
}

static glong file_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  (void)t, (void)arg;
  return cmd == NS_GET_NSTYPE ? ((NsInode *)f->inode)->kind : -ENOTTY;
}

static void file_release(TesFile *f) { g_free(f); }
static const TesFileOps file_ops = {
    .size = sizeof(TesFileOps), .name = "nsfs", .ioctl = file_ioctl, .release = file_release};

static int ns_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  (void)i;
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, ctx->kernel, &file_ops, flags);
  *out = f;
  return 0;
}

static void ns_free(TesInode *i) {
  NsInode *n = (NsInode *)i;
  if (n->ns)
    tes_ns_unref(n->ns);
  if (n->mounts)
    tes_kernel_vfs(i->super->kernel)->ops->ns_unref(n->mounts);
  g_free(n);
}

static const TesInodeOps inode_ops = {
    .size = sizeof(TesInodeOps), .getattr = ns_getattr, .open = ns_open, .free = ns_free};

static void super_free(TesSuper *s) { g_free(s); }
static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps), .free = super_free};

/* Made at first use; tes_kernel_free() gives it back. */
static TesSuper *nsfs_super(TesKernel *k) {
  TesSuper *s = g_atomic_pointer_get(&k->nsfs_super);
  if (s)
    return s;
  s = g_new0(TesSuper, 1);
  tes_super_init(s, k, &super_ops, "nsfs");
  s->magic = NSFS_MAGIC;
  if (g_atomic_pointer_compare_and_exchange(&k->nsfs_super, NULL, s))
    return s;
  tes_super_unref(s);
  return g_atomic_pointer_get(&k->nsfs_super);
}

int tes_ns_place(TesCtx *ctx, TesTask *t, int kind, TesPath **out) {
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  TesMountNs *mounts = kind == CLONE_NEWNS ? tes_task_mount_ns(t) : NULL;
  TesNs *ns = kind == CLONE_NEWNS ? NULL : tes_task_ns(t, kind);
  if ((!mounts && !ns) || !TES_HAS(v->ops, anon_path)) {
    if (ns)
      tes_ns_unref(ns);
    if (mounts)
      v->ops->ns_unref(mounts);
    return -ENOENT;
  }
  NsInode *n = g_new0(NsInode, 1);
  guint64 id = ns ? ns->id : v->ops->ns_id(mounts);
  tes_inode_init(&n->inode, nsfs_super(ctx->kernel), &inode_ops, S_IFREG | 0444, id);
  n->inode.flags |= mounts ? TES_INODE_NO_BIND : 0; /* mounted in itself it would never go */
  n->kind = kind;
  n->ns = ns;
  n->mounts = mounts;
  char name[64];
  g_snprintf(name, sizeof name, "%s:[%" G_GUINT64_FORMAT "]", kind_name(kind), id);
  *out = v->ops->anon_path(v, ctx, &n->inode, name);
  tes_inode_unref(&n->inode);
  return *out ? 0 : -ENOMEM;
}

int tes_ns_of_file(TesFile *f, TesNs **ns, TesMountNs **mounts) {
  if (!f->inode || f->inode->ops != &inode_ops)
    return 0;
  NsInode *n = (NsInode *)f->inode;
  *ns = n->ns;
  *mounts = n->mounts;
  return n->kind;
}

char *tes_ns_file_name(TesFile *f) {
  TesNs *ns;
  TesMountNs *mounts;
  int kind = tes_ns_of_file(f, &ns, &mounts);
  return kind ? g_strdup_printf("%s:[%" G_GUINT64_FORMAT "]", kind_name(kind), f->inode->ino) : NULL;
}
