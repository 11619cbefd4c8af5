/* SPDX-License-Identifier: Apache-2.0 */
/* Creating, removing and renaming on read-write instances. The VFS has checked permission; the host sees the kernel's
 * own credentials, so a new inode is given to the guest's user afterwards (where the kernel process may do that). */
#include "host.h"
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

/* A directory's descriptor (pinned), or why nothing can be made in it. */
static int writable_dir(HostInode *dir) {
  if (dir->hidden)
    return -EACCES;
  return host_super(dir)->rw ? host_fd_get(dir, SLOT_READ) : -EROFS;
}

/* What was just made under a name, if that still is what the name leads to: somebody else may have put a link there. */
static int open_made(HostInode *dir, int dirfd, const char *name, guint32 mode) {
  struct stat st;
  int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) < 0)
    return fd < 0 ? -errno : -EIO;
  gboolean node = (S_ISCHR(mode) || S_ISBLK(mode)) && host_super(dir)->store && S_ISREG(st.st_mode);
  if (node || (st.st_mode & S_IFMT) == (mode & S_IFMT))
    return fd;
  close(fd);
  return -ESTALE;
}

/* Owner and mode of a new inode. Without the right to give files away the host's owner stays (documented). */
static int give(HostInode *dir, TesCtx *ctx, int dirfd, const char *name, int fd, guint32 mode) {
  guint32 uid, gid;
  HostSuper *s = host_super(dir);
  int own = fd < 0 ? open_made(dir, dirfd, name, mode) : -1;
  if (fd < 0 && own < 0)
    return own;
  tes_inode_new_owner(&dir->base, ctx, &mode, &uid, &gid);
  int r = host_meta_chown(s, fd < 0 ? own : fd, mode, uid, gid);
  if (r == -EPERM || r == -EINVAL)
    r = 0;
  if (r == 0 && !S_ISLNK(mode))
    r = host_meta_chmod(s, fd < 0 ? own : fd, mode, mode);
  if (own >= 0)
    close(own);
  return r;
}

/* What was made: its inode; undone if that fails. */
static int finish(HostInode *dir, int dirfd, const char *name, int r, TesInode **out) {
  struct statx x;
  HostInode *i;
  if (r == 0 && statx(dirfd, name, AT_SYMLINK_NOFOLLOW, HOST_STATX, &x) < 0)
    r = -errno;
  if (r == 0)
    host_meta_load(host_super(dir), dirfd, name, &x);
  if (r == 0)
    r = host_inode_get(host_super(dir), dir, name, &x, &i);
  if (r == 0)
    *out = &i->base;
  host_attr_stale(dir);
  host_fd_put(dir, SLOT_READ);
  return r;
}

int host_create(TesInode *base, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  HostInode *dir = host_inode(base);
  int dirfd = writable_dir(dir);
  if (dirfd < 0)
    return dirfd;
  struct open_how how = {.flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC,
                         .mode = 0600,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
  int fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof how);
  int r = fd < 0 ? -errno : give(dir, ctx, dirfd, name, fd, mode);
  if (r < 0 && fd >= 0)
    unlinkat(dirfd, name, 0);
  r = finish(dir, dirfd, name, r, out);
  if (r < 0 && fd >= 0)
    close(fd);
  if (r == 0) { /* it will be opened at once, whatever its mode says */
    host_fd_install(host_inode(*out), SLOT_WRITE, fd);
    host_fd_put(host_inode(*out), SLOT_WRITE);
  }
  return r;
}

int host_mkdir(TesInode *base, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  HostInode *dir = host_inode(base);
  int dirfd = writable_dir(dir);
  if (dirfd < 0)
    return dirfd;
  int r = mkdirat(dirfd, name, 0700) < 0 ? -errno : 0;
  if (r == 0 && (r = give(dir, ctx, dirfd, name, -1, mode)) < 0)
    unlinkat(dirfd, name, AT_REMOVEDIR);
  return finish(dir, dirfd, name, r, out);
}

/* Devices would give the guest the host's drivers; what only looks like one does not. */
int host_mknod(TesInode *base, TesCtx *ctx, const char *name, guint32 mode, guint64 rdev, TesInode **out) {
  HostInode *dir = host_inode(base);
  gboolean device = S_ISCHR(mode) || S_ISBLK(mode);
  if (!device && !S_ISFIFO(mode) && !S_ISSOCK(mode))
    return -EPERM;
  int dirfd = writable_dir(dir), r;
  if (dirfd < 0)
    return dirfd;
  if (device)
    r = host_meta_mknod(host_super(dir), dirfd, name, mode, rdev);
  else
    r = mknodat(dirfd, name, (mode & S_IFMT) | 0600, 0) < 0 ? -errno : 0;
  gboolean whiteout = S_ISCHR(mode) && rdev == 0;
  if (r == 0 && !whiteout && (r = give(dir, ctx, dirfd, name, -1, mode)) < 0)
    unlinkat(dirfd, name, 0);
  return finish(dir, dirfd, name, r, out);
}

int host_symlink(TesInode *base, TesCtx *ctx, const char *name, const char *target, TesInode **out) {
  HostInode *dir = host_inode(base);
  int dirfd = writable_dir(dir);
  if (dirfd < 0)
    return dirfd;
  int r = symlinkat(target, dirfd, name) < 0 ? -errno : 0;
  if (r == 0 && (r = give(dir, ctx, dirfd, name, -1, S_IFLNK | 0777)) < 0)
    unlinkat(dirfd, name, 0);
  return finish(dir, dirfd, name, r, out);
}

/* A nameless file (O_TMPFILE), or one whose known name is gone, is linked through its descriptor. */
static int link_nameless(HostInode *t, int dirfd, const char *name) {
  int slot = SLOT_WRITE, fd = host_fd_get_open(t, slot);
  if (fd < 0)
    fd = host_fd_get_open(t, slot = SLOT_READ);
  if (fd < 0)
    return -ENOENT;
  g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", fd);
  int r = linkat(AT_FDCWD, self, dirfd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
  host_fd_put(t, slot);
  return r;
}

int host_link(TesInode *base, TesCtx *ctx, const char *name, TesInode *target) {
  (void)ctx;
  HostInode *dir = host_inode(base), *t = host_inode(target), *parent;
  HostSuper *s = host_super(dir);
  int dirfd = writable_dir(dir);
  if (dirfd < 0)
    return dirfd;
  tes_mutex_lock(&s->names_lock);
  gboolean nameless = !t->parent || t->unlinked;
  HostInode *old = t->parent;
  int r;
  if (nameless) {
    r = link_nameless(t, dirfd, name);
  } else {
    r = host_parent_fd(t, &parent);
    if (r >= 0) {
      r = linkat(r, t->name, dirfd, name, 0) < 0 ? -errno : 0;
      host_fd_put(parent, SLOT_READ);
    }
  }
  if (r == 0 && nameless) {
    t->parent = host_inode(tes_inode_ref(base));
    g_free(t->name);
    t->name = g_strdup(name);
    t->unlinked = FALSE;
  } else {
    old = NULL;
  }
  tes_mutex_unlock(&s->names_lock);
  if (old)
    tes_inode_unref(&old->base);
  host_attr_stale(t);
  host_attr_stale(dir);
  host_fd_put(dir, SLOT_READ);
  return r == -ESTALE ? -ENOENT : r;
}

/* names lock held. Another link, if there is one, is learned at its next lookup. */
static void lost_name(HostInode *i, HostInode *dir, const char *name) {
  if (i->parent == dir && g_strcmp0(i->name, name) == 0)
    i->unlinked = TRUE;
}

static int remove_name(TesInode *base, const char *name, TesInode *victim, int flags) {
  HostInode *dir = host_inode(base), *v = host_inode(victim);
  HostSuper *s = host_super(dir);
  int dirfd = writable_dir(dir);
  if (dirfd < 0)
    return dirfd;
  /* Somebody may hold the inode without a descriptor (O_PATH, a mapping about to be made): keep it reachable. */
  int keep = host_fd_get(v, SLOT_READ);
  tes_mutex_lock(&s->names_lock);
  int r = unlinkat(dirfd, name, flags) < 0 ? -errno : 0;
  if (r == 0)
    lost_name(v, dir, name);
  tes_mutex_unlock(&s->names_lock);
  if (keep >= 0)
    host_fd_put(v, SLOT_READ);
  host_attr_stale(v);
  host_attr_stale(dir);
  host_fd_put(dir, SLOT_READ);
  return r;
}

int host_unlink(TesInode *base, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)ctx;
  return remove_name(base, name, victim, 0);
}
int host_rmdir(TesInode *base, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)ctx;
  return remove_name(base, name, victim, AT_REMOVEDIR);
}

/* names lock held; returns the parent whose reference is to be dropped. */
static HostInode *moved(HostInode *i, HostInode *dir, const char *name) {
  HostInode *old = i->parent;
  i->parent = host_inode(tes_inode_ref(&dir->base));
  g_free(i->name);
  i->name = g_strdup(name);
  return old;
}

int host_rename(TesInode *obase, const char *oname, TesInode *nbase, const char *nname, TesInode *source,
                TesInode *target, TesCtx *ctx, guint flags) {
  (void)ctx;
  HostInode *od = host_inode(obase), *nd = host_inode(nbase), *old[2] = {NULL, NULL};
  HostSuper *s = host_super(od);
  int ofd = writable_dir(od);
  if (ofd < 0)
    return ofd;
  int nfd = host_fd_get(nd, SLOT_READ);
  if (nfd < 0) {
    host_fd_put(od, SLOT_READ);
    return nfd;
  }
  int keep = target ? host_fd_get(host_inode(target), SLOT_READ) : -1; /* as in remove_name() */
  tes_mutex_lock(&s->names_lock);
  int r = renameat2(ofd, oname, nfd, nname, flags) < 0 ? -errno : 0;
  if (r == 0) {
    if (target && (flags & RENAME_EXCHANGE))
      old[1] = moved(host_inode(target), od, oname);
    else if (target)
      lost_name(host_inode(target), nd, nname);
    old[0] = moved(host_inode(source), nd, nname);
  }
  tes_mutex_unlock(&s->names_lock);
  for (int k = 0; k < 2; k++)
    if (old[k])
      tes_inode_unref(&old[k]->base);
  if (keep >= 0)
    host_fd_put(host_inode(target), SLOT_READ);
  host_attr_stale(host_inode(source));
  if (target)
    host_attr_stale(host_inode(target));
  host_attr_stale(od);
  host_attr_stale(nd);
  host_fd_put(nd, SLOT_READ);
  host_fd_put(od, SLOT_READ);
  return r;
}

int host_tmpfile(TesInode *base, TesCtx *ctx, guint32 mode, TesInode **out) {
  HostInode *dir = host_inode(base), *i;
  int dirfd = writable_dir(dir);
  if (dirfd < 0)
    return dirfd;
  int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  int r = fd < 0 ? -errno : give(dir, ctx, dirfd, ".", fd, mode);
  struct statx x;
  if (r == 0 && statx(fd, "", AT_EMPTY_PATH, HOST_STATX, &x) < 0)
    r = -errno;
  if (r == 0)
    host_meta_load(host_super(dir), fd, NULL, &x);
  if (r == 0)
    r = host_inode_get(host_super(dir), NULL, NULL, &x, &i);
  if (r == 0) {
    /* It cannot be found again by a name: its descriptors stay open as long as it lives. */
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", fd);
    int rd = open(self, O_RDONLY | O_CLOEXEC);
    host_fd_install(i, SLOT_WRITE, fd);
    if (rd >= 0)
      host_fd_install(i, SLOT_READ, rd);
    *out = &i->base;
  } else if (fd >= 0) {
    close(fd);
  }
  host_fd_put(dir, SLOT_READ);
  return r;
}
