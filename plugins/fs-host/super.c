/* SPDX-License-Identifier: Apache-2.0 */
/* fs-host: instances, their options, and the table of identities.
 *
 * Options: ro (default), rw, store (meta.c), cache=exclusive|shared (default: exclusive; shared for rw). Exclusive: only the sandbox is
 * expected to change names and attributes, so both are answered from memory; contents always are the host's. What
 * changes outside is noticed when a file or directory is opened. Shared: every name is checked at every use.
 * Host devices cannot be opened (ENXIO), FIFOs are the sandbox's own, sockets are names only. */
#include "host.h"
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define PROC_MAGIC 0x9fa0

static const TesLockClass names_class = {"host names", TES_RANK_INODE + 1, FALSE,
                                         "directory and name of fs-host's inodes"};
static const TesLockClass fd_class = {"host descriptors", TES_RANK_FS, FALSE,
                                      "fs-host's descriptor budget and identities"};
static const TesLockClass attr_class = {"host attributes", TES_RANK_FS + 1, FALSE,
                                        "cached attributes of one inode"};
static const TesLockClass map_class = {"host map", TES_RANK_LEAF - 1, FALSE, "kernel windows on one file"};

static guint id_hash(gconstpointer p) {
  const HostId *id = p;
  return (guint)((id->ino * 0x9e3779b97f4a7c15ULL) >> 32) ^ (guint)id->dev;
}
static gboolean id_equal(gconstpointer a, gconstpointer b) {
  const HostId *x = a, *y = b;
  return x->dev == y->dev && x->ino == y->ino;
}

/* ---- Identities ---- */

static HostInode *inode_new(HostSuper *s, HostInode *dir, const char *name, const struct statx *x) {
  HostInode *i = g_new0(HostInode, 1);
  tes_inode_init(&i->base, &s->base, host_ops_for(x->stx_mode, s->rw), x->stx_mode, x->stx_ino);
  i->base.rdev = makedev(x->stx_rdev_major, x->stx_rdev_minor);
  i->id = (HostId){host_stx_dev(x), x->stx_ino};
  i->parent = dir ? host_inode(tes_inode_ref(&dir->base)) : NULL;
  i->name = g_strdup(name);
  tes_mutex_init(&i->attr_lock, &attr_class);
  tes_mutex_init(&i->map_lock, &map_class);
  for (int k = 0; k < N_SLOTS; k++)
    i->slot[k] = (HostFd){.fd = -1, .owner = i};
  if (s->shared && S_ISDIR(x->stx_mode))
    i->base.flags |= TES_INODE_REVALIDATE;
  host_attr_set(i, x);
  return i;
}

/* The name by which a known inode was found last is the best one to find it again. */
static void rename_known(HostInode *i, HostInode *dir, const char *name) {
  HostSuper *s = host_super(i);
  HostInode *old = NULL;
  tes_mutex_lock(&s->names_lock);
  if (i->parent && (i->parent != dir || g_strcmp0(i->name, name) != 0)) {
    old = i->parent;
    i->parent = host_inode(tes_inode_ref(&dir->base));
    g_free(i->name);
    i->name = g_strdup(name);
    i->unlinked = FALSE;
  }
  tes_mutex_unlock(&s->names_lock);
  if (old)
    tes_inode_unref(&old->base);
}

static HostInode *find(HostSuper *s, const struct statx *x) {
  HostId id = {host_stx_dev(x), x->stx_ino};
  TES_LOCKED(&s->fd_lock);
  HostInode *i = g_hash_table_lookup(s->inodes, &id);
  /* A number used again for another kind of file is another inode. */
  return i && (i->base.mode & S_IFMT) == (x->stx_mode & S_IFMT) && tes_inode_try_ref(&i->base) ? i : NULL;
}

int host_inode_get(HostSuper *s, HostInode *dir, const char *name, const struct statx *x, HostInode **out) {
  HostInode *i = find(s, x);
  if (!i) {
    HostInode *fresh = inode_new(s, dir, name, x);
    tes_mutex_lock(&s->fd_lock);
    HostInode *other = g_hash_table_lookup(s->inodes, &fresh->id);
    if (other && (other->base.mode & S_IFMT) == (x->stx_mode & S_IFMT) && tes_inode_try_ref(&other->base))
      i = other;
    else
      g_hash_table_replace(s->inodes, &fresh->id, fresh);
    tes_mutex_unlock(&s->fd_lock);
    if (!i) {
      *out = fresh;
      return 0;
    }
    tes_inode_unref(&fresh->base);
  }
  if (name)
    rename_known(i, dir, name);
  host_attr_set(i, x);
  *out = i;
  return 0;
}

void host_inode_forget(HostInode *i) {
  HostSuper *s = host_super(i);
  TES_LOCKED(&s->fd_lock);
  if (g_hash_table_lookup(s->inodes, &i->id) == i)
    g_hash_table_remove(s->inodes, &i->id);
}

guint64 host_virtual_dev(HostSuper *s, guint64 host_dev) {
  TES_LOCKED(&s->fd_lock);
  guint64 *v = g_hash_table_lookup(s->devs, &host_dev);
  if (v)
    return *v;
  guint64 *pair = g_new(guint64, 2);
  pair[0] = host_dev;
  pair[1] = g_hash_table_size(s->devs) == 0 ? s->base.dev : tes_kernel_new_dev(s->base.kernel);
  g_hash_table_insert(s->devs, pair, pair + 1);
  return pair[1];
}

/* ---- The instance ---- */

static int super_statfs(TesSuper *base, TesCtx *ctx, struct statfs *out) {
  (void)ctx;
  HostInode *root = host_inode(base->root);
  int fd = host_fd_get(root, SLOT_READ);
  if (fd < 0)
    return fd;
  int r = fstatfs(fd, out) < 0 ? -errno : 0;
  host_fd_put(root, SLOT_READ);
  return r;
}

static int super_sync(TesSuper *base) {
  HostSuper *s = (HostSuper *)base;
  HostInode *root = host_inode(base->root);
  if (!s->rw)
    return 0;
  int fd = host_fd_get(root, SLOT_READ);
  if (fd < 0)
    return fd;
  /* The root's own descriptor is O_PATH; syncfs(2) wants a real one. */
  int real = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int r = real >= 0 && syncfs(real) < 0 ? -errno : 0;
  if (real >= 0)
    close(real);
  host_fd_put(root, SLOT_READ);
  return r;
}

static char *super_show(TesSuper *base) {
  HostSuper *s = (HostSuper *)base;
  return g_strdup(s->shared ? ",cache=shared" : ",cache=exclusive");
}

static void super_free(TesSuper *base) {
  HostSuper *s = (HostSuper *)base;
  g_hash_table_destroy(s->inodes);
  g_hash_table_destroy(s->devs);
  tes_mutex_clear(&s->names_lock);
  tes_mutex_clear(&s->fd_lock);
  if (s->store_lock)
    close(s->store_lock);
  g_free(s->source);
  g_free(s);
}

static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps),
                                      .statfs = super_statfs,
                                      .sync = super_sync,
                                      .show_options = super_show,
                                      .free = super_free};

static int option(const char *key, const char *value, gpointer data) {
  HostSuper *s = data;
  if (!value && g_str_equal(key, "ro"))
    s->rw = FALSE;
  else if (!value && g_str_equal(key, "rw"))
    s->rw = TRUE;
  else if (!value && g_str_equal(key, "store"))
    s->store = TRUE;
  else if (value && g_str_equal(key, "cache") &&
           (g_str_equal(value, "shared") || g_str_equal(value, "exclusive")))
    s->cache = g_str_equal(value, "shared") ? HOST_CACHE_SHARED : HOST_CACHE_EXCLUSIVE;
  else
    return -EINVAL;
  return 0;
}

static guint fd_budget(void) {
  struct rlimit r = {0};
  getrlimit(RLIMIT_NOFILE, &r);
  return CLAMP((guint)MIN(r.rlim_cur, 65536) / 4, 16, 1024);
}

/* Two sandboxes that think a directory theirs alone would spoil it. */
static int own_store(HostSuper *s, int dirfd) {
  int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    close(fd);
    return -EBUSY;
  }
  s->store_lock = fd;
  s->emulate = host_meta_must_emulate(dirfd);
  return 0;
}

/* Opens what the operator named. A directory's descriptor is kept; so are those of a single file, which has no directory here. */
static int open_root(HostSuper *s, HostInode **out) {
  int fd = open(s->source, O_PATH | O_CLOEXEC);
  struct statx x;
  if (fd < 0)
    return -errno;
  if (statx(fd, "", AT_EMPTY_PATH, HOST_STATX, &x) < 0) {
    int r = -errno;
    close(fd);
    return r;
  }
  struct statfs st;
  /* The kernel process' own memory is a file there. */
  if (fstatfs(fd, &st) < 0 || st.f_type == PROC_MAGIC) {
    close(fd);
    return -EPERM;
  }
  s->base.magic = (guint64)st.f_type;
  int real[N_SLOTS] = {fd, -1};
  if (S_ISREG(x.stx_mode)) {
    char self[40]; /* the file that was looked at, whatever its name leads to by now */
    g_snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    real[SLOT_READ] = open(self, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (s->rw)
      real[SLOT_WRITE] = open(self, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    close(fd);
    if (real[SLOT_READ] < 0)
      return -EACCES;
  } else if (!S_ISDIR(x.stx_mode)) {
    close(fd);
    return -ENOTDIR;
  }
  if (s->store && s->rw && S_ISDIR(x.stx_mode)) {
    int r = own_store(s, fd);
    if (r < 0) {
      close(fd);
      return r;
    }
  }
  host_meta_load(s, fd, NULL, &x);
  host_virtual_dev(s, host_stx_dev(&x)); /* the first is the super's own number */
  host_inode_get(s, NULL, NULL, &x, out);
  for (int k = 0; k < N_SLOTS; k++)
    if (real[k] >= 0)
      host_fd_install(*out, k, real[k]); /* the pin is never given back */
  return 0;
}

static int fs_mount(TesCtx *ctx, const char *source, const char *opts, gulong ms_flags, TesSuper **out) {
  if (ctx->kind != TES_CTX_SUPERVISOR)
    return -EPERM;
  if (!source || *source != '/')
    return -EINVAL;
  HostSuper *s = g_new0(HostSuper, 1);
  tes_super_init(&s->base, ctx->kernel, &super_ops, "host");
  tes_mutex_init(&s->names_lock, &names_class);
  tes_mutex_init(&s->fd_lock, &fd_class);
  s->inodes = g_hash_table_new(id_hash, id_equal);
  s->devs = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
  s->source = g_strdup(source);
  s->budget = fd_budget();
  guint max = tes_kernel_dcache_max(ctx->kernel);
  if (max) /* --dcache bounds what cached names hold on to: one descriptor each */
    s->budget = MIN(s->budget, max);
  int r = tes_mount_opts_parse(opts, option, s);
  if (ms_flags & 1 /* MS_RDONLY */)
    s->rw = FALSE;
  s->base.read_only = !s->rw;
  s->shared = s->cache == HOST_CACHE_SHARED || (s->cache == HOST_CACHE_DEFAULT && s->rw);
  HostInode *root = NULL;
  if (r >= 0)
    r = open_root(s, &root);
  if (r < 0) {
    tes_super_unref(&s->base);
    return r;
  }
  tes_super_set_root(&s->base, &root->base);
  *out = &s->base;
  return 0;
}

const TesFsTypeOps host_fs_ops = {.size = sizeof(TesFsTypeOps), .name = "host", .mount = fs_mount};

static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-host", .version = 1};
static const TesFeature features[] = {
    {"filesystem", "host", &host_fs_ops}, {"state", "fs-host", &state}, {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(fs_host, .name = "fs-host", .summary = "Directories of the host, read-only or read-write",
                  .licence = "Apache-2.0", .features = features);
