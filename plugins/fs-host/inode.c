/* SPDX-License-Identifier: Apache-2.0 */
/* Lookup, attributes and symbolic links of host files. */
#include "host.h"
#include <fcntl.h>
#include <linux/capability.h>

/* ---- Attributes ---- */

static void put32(guint32 *to, guint32 value) {
  if (__atomic_load_n(to, __ATOMIC_RELAXED) != value)
    __atomic_store_n(to, value, __ATOMIC_RELAXED);
}

void host_attr_set(HostInode *i, const struct statx *x) {
  TES_LOCKED(&i->attr_lock);
  i->stx = *x;
  i->fresh = TRUE;
  /* Read by permission checks without a lock. */
  put32(&i->base.mode, x->stx_mode);
  put32(&i->base.uid, x->stx_uid);
  put32(&i->base.gid, x->stx_gid);
}

void host_attr_stale(HostInode *i) {
  TES_LOCKED(&i->attr_lock);
  i->fresh = FALSE;
}

static gboolean same_time(const struct statx_timestamp *a, const struct statx_timestamp *b) {
  return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* A directory of an exclusive instance whose entries changed without us is shared after all. */
static void notice_change(HostInode *i, const struct statx *x) {
  HostSuper *s = host_super(i);
  if (s->shared || s->rw || !S_ISDIR(i->base.mode))
    return;
  tes_mutex_lock(&i->attr_lock);
  gboolean changed = !same_time(&i->stx.stx_mtime, &x->stx_mtime);
  tes_mutex_unlock(&i->attr_lock);
  if (changed)
    __atomic_fetch_or(&i->base.flags, TES_INODE_REVALIDATE, __ATOMIC_SEQ_CST);
}

static int statx_open(HostInode *i, struct statx *x) {
  for (int k = 0; k < N_SLOTS; k++) {
    int fd = host_fd_get_open(i, k);
    if (fd < 0)
      continue;
    int r = statx(fd, "", AT_EMPTY_PATH, HOST_STATX, x) < 0 ? -errno : 0;
    if (r == 0)
      host_meta_load(host_super(i), fd, NULL, x);
    host_fd_put(i, k);
    return r;
  }
  return 1;
}

static int statx_named(HostInode *i, struct statx *x) {
  HostSuper *s = host_super(i);
  HostInode *parent;
  TES_LOCKED(&s->names_lock);
  int fd = host_parent_fd(i, &parent);
  if (fd < 0)
    return fd;
  int r = statx(fd, i->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, HOST_STATX, x) < 0 ? -errno : 0;
  if (r == 0)
    host_meta_load(s, fd, i->name, x);
  host_fd_put(parent, SLOT_READ);
  if (r == 0 && (host_stx_dev(x) != i->id.dev || x->stx_ino != i->id.ino))
    r = -ESTALE;
  return r == -ENOENT || r == -ENOTDIR ? -ESTALE : r;
}

int host_attr_refresh(HostInode *i) {
  struct statx x;
  int r = statx_open(i, &x);
  if (r > 0)
    r = statx_named(i, &x);
  if (r < 0)
    return r;
  notice_change(i, &x);
  host_attr_set(i, &x);
  return 0;
}

static struct timespec to_timespec(const struct statx_timestamp *t) {
  return (struct timespec){t->tv_sec, t->tv_nsec};
}

static int host_getattr(TesInode *base, TesCtx *ctx, TesAttr *a) {
  (void)ctx;
  HostInode *i = host_inode(base);
  HostSuper *s = host_super(i);
  tes_mutex_lock(&i->attr_lock);
  gboolean fresh = i->fresh && !s->shared;
  struct statx x = i->stx;
  tes_mutex_unlock(&i->attr_lock);
  if (!fresh) {
    int r = host_attr_refresh(i);
    tes_mutex_lock(&i->attr_lock);
    x = i->stx;
    tes_mutex_unlock(&i->attr_lock);
    if (r == -ESTALE)
      x.stx_nlink = 0; /* removed: what was known of it last */
    else if (r < 0)
      return r;
  }
  *a = (TesAttr){.mode = x.stx_mode,
                 .nlink = x.stx_nlink,
                 .uid = x.stx_uid,
                 .gid = x.stx_gid,
                 .blksize = x.stx_blksize,
                 .ino = x.stx_ino,
                 .size = x.stx_size,
                 .blocks = x.stx_blocks,
                 .rdev = base->rdev,
                 .dev = i->id.dev == host_inode(s->base.root)->id.dev ? s->base.dev
                                                                      : host_virtual_dev(s, i->id.dev),
                 .atime = to_timespec(&x.stx_atime),
                 .mtime = to_timespec(&x.stx_mtime),
                 .ctime = to_timespec(&x.stx_ctime),
                 .btime = to_timespec(&x.stx_btime)};
  return 0;
}

/* ---- Changing attributes ---- */

/* The sandbox's clock is not the host's: "now" is set explicitly. */
static struct timespec host_time(HostInode *i, const struct timespec *t, gboolean set) {
  struct timespec ts = {.tv_nsec = UTIME_OMIT};
  if (!set)
    return ts;
  if (t->tv_nsec != UTIME_NOW)
    return *t;
  TesTime now = tes_time_realtime(i->base.super->kernel);
  return (struct timespec){now / TES_NSEC, now % TES_NSEC};
}

/* ftruncate(2) changes times, whatever the size was; truncate(2), which wants a path, may leave them. */
static int resize(int fd, const TesSetAttr *set) {
  char self[32];
  g_snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  if ((set->valid & TES_SET_IF_RESIZED) && truncate(self, set->size) == 0)
    return 0;
  return ftruncate(fd, set->size) < 0 ? -errno : 0;
}

static int change(HostInode *i, int fd, const TesSetAttr *set) {
  int e = (set->valid & TES_SET_SIZE) ? resize(fd, set) : 0;
  if (e < 0)
    return e;
  if (set->valid & (TES_SET_UID | TES_SET_GID)) {
    guint32 keep = host_super(i)->emulate ? 0 : (guint32)-1; /* an attribute holds both */
    uid_t u = set->valid & TES_SET_UID ? set->uid : keep ? keep : i->base.uid;
    gid_t g = set->valid & TES_SET_GID ? set->gid : keep ? keep : i->base.gid;
    int r = host_meta_chown(host_super(i), fd, i->base.mode, u, g);
    if (r < 0)
      return r;
  }
  if (set->valid & TES_SET_MODE) {
    if (S_ISLNK(i->base.mode))
      return -EOPNOTSUPP;
    int r = host_meta_chmod(host_super(i), fd, i->base.mode, set->mode);
    if (r < 0)
      return r;
  }
  /* A change of size changes mtime by itself. */
  if ((set->valid & (TES_SET_ATIME | TES_SET_MTIME)) && !(set->valid & TES_SET_SIZE)) {
    struct timespec ts[2] = {host_time(i, &set->atime, set->valid & TES_SET_ATIME),
                             host_time(i, &set->mtime, set->valid & TES_SET_MTIME)};
    if (utimensat(fd, "", ts, AT_EMPTY_PATH) < 0)
      return -errno;
  }
  return 0;
}

int host_setattr(TesInode *base, TesCtx *ctx, const TesSetAttr *set) {
  (void)ctx;
  HostInode *i = host_inode(base);
  if (!host_super(i)->rw)
    return -EROFS;
  if (i->hidden)
    return -EPERM;
  if ((set->valid & TES_SET_SIZE) && !S_ISREG(base->mode))
    return -EINVAL;
  int slot = (set->valid & TES_SET_SIZE) ? SLOT_WRITE : SLOT_READ;
  int fd = host_fd_get(i, slot);
  if (fd == -EACCES && slot == SLOT_READ && S_ISREG(base->mode))
    fd = host_fd_get(i, slot = SLOT_WRITE);
  if (fd < 0)
    return fd;
  int r = change(i, fd, set);
  host_fd_put(i, slot);
  if (r == 0 && (set->valid & TES_SET_SIZE))
    host_map_invalidate(i, set->size);
  int r2 = host_attr_refresh(i);
  return r < 0 ? r : r2 == -ESTALE ? 0 : r2;
}

/* ---- Names ---- */

static int statx_child(HostInode *dir, const char *name, struct statx *x) {
  int fd = host_fd_get(dir, SLOT_READ);
  if (fd < 0)
    return fd;
  int r = statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, HOST_STATX, x) < 0 ? -errno : 0;
  if (r == 0)
    host_meta_load(host_super(dir), fd, name, x);
  host_fd_put(dir, SLOT_READ);
  return r;
}

static int host_lookup(TesInode *base, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  HostInode *dir = host_inode(base), *i;
  struct statx x;
  int r = dir->hidden ? -ENOENT : statx_child(dir, name, &x);
  gboolean hidden = FALSE;
  if (r == 0 && host_stx_dev(&x) != dir->id.dev) { /* something is mounted there on the host */
    int fd = host_fd_get(dir, SLOT_READ);
    hidden = fd < 0 || host_is_kernel_fs(fd, name);
    if (fd >= 0)
      host_fd_put(dir, SLOT_READ);
  }
  if (r == 0)
    r = host_inode_get(host_super(dir), dir, name, &x, &i);
  if (r == 0) {
    if (hidden)
      i->hidden = TRUE;
    *out = &i->base;
  }
  return r;
}

/* Several components: each below the descriptor of the one before, as in lookup; saves the VFS its rounds. */
static int host_walk(TesInode *base, TesCtx *ctx, const char *const *names, guint n, TesInode **out) {
  guint k = 0;
  TesInode *dir = base;
  while (k < n) {
    int r = host_lookup(dir, ctx, names[k], &out[k]);
    if (r < 0)
      return k ? (int)k : r;
    dir = out[k++];
    if (!S_ISDIR(dir->mode))
      break;
  }
  return (int)k;
}

static int host_revalidate(TesInode *base, TesCtx *ctx, const char *name, TesInode *child) {
  (void)ctx;
  struct statx x;
  if (host_inode(base)->hidden)
    return child == NULL;
  int r = statx_child(host_inode(base), name, &x);
  if (r == -ENOENT || r == -ESTALE || r == -ENOTDIR)
    return child ? 0 : 1;
  if (r < 0)
    return r;
  if (!child)
    return 0;
  HostInode *i = host_inode(child);
  if (host_stx_dev(&x) != i->id.dev || x.stx_ino != i->id.ino ||
      (x.stx_mode & S_IFMT) != (child->mode & S_IFMT))
    return 0;
  host_attr_set(i, &x);
  return 1;
}

static int host_readlink(TesInode *base, TesCtx *ctx, char **out) {
  (void)ctx;
  HostInode *i = host_inode(base), *parent;
  HostSuper *s = host_super(i);
  char buf[TES_PATH_MAX];
  if (i->hidden)
    return -EACCES;
  int open = host_fd_get_open(i, SLOT_READ);
  if (open >= 0) { /* also when its known name is gone */
    gssize n = readlinkat(open, "", buf, sizeof buf);
    host_fd_put(i, SLOT_READ);
    if (n > 0) {
      *out = g_strndup(buf, (gsize)n);
      return 0;
    }
  }
  TES_LOCKED(&s->names_lock);
  int fd = host_parent_fd(i, &parent);
  if (fd < 0)
    return fd;
  gssize n = readlinkat(fd, i->name, buf, sizeof buf);
  int r = n < 0 ? -errno : 0;
  host_fd_put(parent, SLOT_READ);
  if (r < 0)
    return r == -EINVAL || r == -ENOENT ? -ESTALE : r;
  *out = g_strndup(buf, (gsize)n);
  return 0;
}

/* ---- The end ---- */

/* A chain of parents is released in a loop, however deep the tree is. */
static void release_parent(HostInode *parent) {
  static __thread GSList *waiting;
  static __thread gboolean draining;
  waiting = g_slist_prepend(waiting, parent);
  if (draining)
    return;
  draining = TRUE;
  while (waiting) {
    HostInode *p = waiting->data;
    waiting = g_slist_delete_link(waiting, waiting);
    tes_inode_unref(&p->base);
  }
  draining = FALSE;
}

static void host_free(TesInode *base) {
  HostInode *i = host_inode(base), *parent = i->parent;
  host_inode_forget(i);
  host_map_free(i);
  host_fds_close(i);
  tes_mutex_clear(&i->attr_lock);
  tes_mutex_clear(&i->map_lock);
  g_free(i->name);
  g_free(i);
  if (parent)
    release_parent(parent);
}

#define COMMON                                                                                              \
  .size = sizeof(TesInodeOps), .getattr = host_getattr, .setattr = host_setattr, .getxattr = host_getxattr, \
  .listxattr = host_listxattr, .setxattr = host_setxattr, .removexattr = host_removexattr, .free = host_free

const TesInodeOps host_dir_ops = {COMMON,
                                  .lookup = host_lookup,
                                  .walk = host_walk,
                                  .revalidate = host_revalidate,
                                  .open = host_open,
                                  .create = host_create,
                                  .mkdir = host_mkdir,
                                  .mknod = host_mknod,
                                  .symlink = host_symlink,
                                  .link = host_link,
                                  .unlink = host_unlink,
                                  .rmdir = host_rmdir,
                                  .rename = host_rename,
                                  .tmpfile = host_tmpfile};
const TesInodeOps host_file_ops = {COMMON, .open = host_open};
const TesInodeOps host_link_ops = {COMMON, .readlink = host_readlink};
/* Devices and sockets of the host: no open. FIFOs are opened by the core as pipes of the sandbox. */
const TesInodeOps host_special_ops = {COMMON};

const TesInodeOps *host_ops_for(guint32 mode, gboolean rw) {
  (void)rw;
  switch (mode & S_IFMT) {
  case S_IFDIR:
    return &host_dir_ops;
  case S_IFREG:
    return &host_file_ops;
  case S_IFLNK:
    return &host_link_ops;
  default:
    return &host_special_ops;
  }
}
