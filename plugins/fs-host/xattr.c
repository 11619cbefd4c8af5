/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of host files and directories. security.* and trusted.* of the host mean something to the host only: they
 * are not shown. */
#include "host.h"
#include <fcntl.h>
#include <sys/xattr.h>

static gboolean visible(const char *name) { return g_str_has_prefix(name, "user.") && !host_meta_own(name); }

/* Namespaces that the host has are empty; others do not exist. */
static int absent(const char *name) {
  gboolean known = g_str_has_prefix(name, "user.") || g_str_has_prefix(name, "trusted.") ||
                   g_str_has_prefix(name, "security.");
  return known ? -ENODATA : -EOPNOTSUPP;
}

/* A descriptor that the xattr calls accept (an O_PATH one is not); closed by done(). */
static int begin(HostInode *i, int *pinned) {
  int fd = !i->hidden && (S_ISREG(i->base.mode) || S_ISDIR(i->base.mode)) ? host_fd_get(i, SLOT_READ)
                                                                          : -EOPNOTSUPP;
  *pinned = fd >= 0;
  if (fd < 0 || S_ISREG(i->base.mode))
    return fd;
  int real = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int r = real < 0 ? -errno : real;
  host_fd_put(i, SLOT_READ);
  *pinned = FALSE;
  return r;
}

static void done(HostInode *i, int fd, int pinned) {
  if (pinned)
    host_fd_put(i, SLOT_READ);
  else if (fd >= 0)
    close(fd);
}

gssize host_getxattr(TesInode *base, TesCtx *ctx, const char *name, void *value, gsize size) {
  (void)ctx;
  if (!visible(name))
    return absent(name);
  int pinned, fd = begin(host_inode(base), &pinned);
  gssize r = fd < 0 ? fd : fgetxattr(fd, name, value, size);
  if (fd >= 0 && r < 0)
    r = -errno;
  done(host_inode(base), fd, pinned);
  return r;
}

/* Keeps what is visible of the host's list. */
static gsize filter(char *list, gsize n) {
  gsize kept = 0;
  for (gsize at = 0; at < n;) {
    gsize len = strnlen(list + at, n - at) + 1;
    if (visible(list + at)) {
      memmove(list + kept, list + at, MIN(len, n - at));
      kept += len;
    }
    at += len;
  }
  return kept;
}

gssize host_listxattr(TesInode *base, TesCtx *ctx, char *list, gsize size) {
  (void)ctx;
  int pinned, fd = begin(host_inode(base), &pinned);
  if (fd == -EOPNOTSUPP)
    return 0;
  g_autofree char *all = g_malloc(65536);
  gssize r = fd < 0 ? fd : flistxattr(fd, all, 65536);
  if (fd >= 0 && r < 0)
    r = errno == EOPNOTSUPP ? 0 : -errno;
  done(host_inode(base), fd, pinned);
  if (r <= 0)
    return r;
  gsize n = filter(all, (gsize)r);
  if (size == 0)
    return (gssize)n;
  if (n > size)
    return -ERANGE;
  memcpy(list, all, n);
  return (gssize)n;
}

int host_setxattr(TesInode *base, TesCtx *ctx, const char *name, const void *value, gsize size, int flags) {
  (void)ctx;
  HostInode *i = host_inode(base);
  if (!host_super(i)->rw)
    return -EROFS;
  if (!visible(name))
    return -EOPNOTSUPP;
  int pinned, fd = begin(i, &pinned);
  int r = fd < 0 ? fd : fsetxattr(fd, name, value, size, flags) < 0 ? -errno : 0;
  done(i, fd, pinned);
  host_attr_stale(i);
  return r;
}

int host_removexattr(TesInode *base, TesCtx *ctx, const char *name) {
  (void)ctx;
  HostInode *i = host_inode(base);
  if (!host_super(i)->rw)
    return -EROFS;
  if (!visible(name))
    return absent(name);
  int pinned, fd = begin(i, &pinned);
  int r = fd < 0 ? fd : fremovexattr(fd, name) < 0 ? -errno : 0;
  done(i, fd, pinned);
  host_attr_stale(i);
  return r;
}
