/* SPDX-License-Identifier: Apache-2.0 */
/* Owner, mode and device numbers that the host does not keep for us (option store: the directory is the sandbox's alone, as
 * the upper layer of an overlay is).
 *
 *   user.tessera.node    "c MAJOR:MINOR" or "b MAJOR:MINOR" on an empty regular file: a device node. Always in this form, so that no
 *                        guest makes a device on the host; but 0:0 (a whiteout) is a real one where the host allows it
 *   user.tessera.owner   "UID:GID", where the kernel process may not give files away
 *   user.tessera.mode    octal permission bits, there too: the host's own keep the file accessible to the kernel process
 *
 * Links, FIFOs and sockets cannot carry them (xattr(7)): those belong to the kernel process then. */
#include "host.h"
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define OWNER "user.tessera.owner"
#define MODE "user.tessera.mode"
#define NODE "user.tessera.node"

gboolean host_meta_own(const char *name) { return g_str_has_prefix(name, "user.tessera."); }

/* A path of the kernel process for what is `name` below `dirfd`, or for the descriptor itself (name NULL). Links of /proc lead to
 * the object; what is named is not followed. */
static void self_path(char path[TES_NAME_MAX + 64], int fd, const char *name) {
  if (name)
    g_snprintf(path, TES_NAME_MAX + 64, "/proc/self/fd/%d/%s", fd, name);
  else
    g_snprintf(path, TES_NAME_MAX + 64, "/proc/self/fd/%d", fd);
}

static gboolean get(const char *path, gboolean follow, const char *attr, char value[64]) {
  gssize n = follow ? getxattr(path, attr, value, 63) : lgetxattr(path, attr, value, 63);
  value[MAX(n, 0)] = '\0';
  return n > 0;
}

void host_meta_load(HostSuper *s, int fd, const char *name, struct statx *x) {
  char path[TES_NAME_MAX + 64], value[64], kind;
  guint a, b;
  if (!s->store || (!S_ISREG(x->stx_mode) && !S_ISDIR(x->stx_mode)))
    return;
  self_path(path, fd, name);
  if (S_ISREG(x->stx_mode) && x->stx_size == 0 && get(path, !name, NODE, value) &&
      sscanf(value, "%c %u:%u", &kind, &a, &b) == 3) {
    x->stx_mode = (x->stx_mode & 07777) | (kind == 'b' ? S_IFBLK : S_IFCHR);
    x->stx_rdev_major = a;
    x->stx_rdev_minor = b;
  }
  if (!s->emulate)
    return;
  if (get(path, !name, OWNER, value) && sscanf(value, "%u:%u", &a, &b) == 2) {
    x->stx_uid = a;
    x->stx_gid = b;
  }
  if (get(path, !name, MODE, value) && sscanf(value, "%o", &a) == 1)
    x->stx_mode = (guint16)((x->stx_mode & S_IFMT) | (a & 07777));
}

static int set(int fd, const char *attr, const char *value) {
  char path[TES_NAME_MAX + 64];
  self_path(path, fd, NULL);
  return setxattr(path, attr, value, strlen(value), 0) < 0 ? -errno : 0;
}

static gboolean carries(guint32 mode) {
  return S_ISREG(mode) || S_ISDIR(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

int host_meta_chown(HostSuper *s, int fd, guint32 type, guint32 uid, guint32 gid) {
  char value[64];
  if (!s->emulate)
    return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
  if (!carries(type))
    return 0;
  g_snprintf(value, sizeof value, "%u:%u", uid, gid);
  return set(fd, OWNER, value);
}

int host_meta_chmod(HostSuper *s, int fd, guint32 type, guint32 mode) {
  char path[TES_NAME_MAX + 64], value[64];
  guint32 real = mode & 07777;
  if (s->emulate && carries(type)) {
    g_snprintf(value, sizeof value, "%o", mode & 07777);
    int r = set(fd, MODE, value);
    if (r < 0)
      return r;
    real = (mode & 0777) | (S_ISDIR(type) ? 0700 : 0600);
  }
  self_path(path, fd, NULL); /* fchmod(2) refuses O_PATH */
  return chmod(path, real) < 0 ? -errno : 0;
}

int host_meta_mknod(HostSuper *s, int dirfd, const char *name, guint32 mode, guint64 rdev) {
  char value[64];
  if (!s->store)
    return -EPERM;
  if (S_ISCHR(mode) && rdev == 0 && mknodat(dirfd, name, S_IFCHR | 0600, 0) == 0)
    return 0;
  int fd = openat(dirfd, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0)
    return -errno;
  g_snprintf(value, sizeof value, "%c %u:%u", S_ISBLK(mode) ? 'b' : 'c', major(rdev), minor(rdev));
  int r = fsetxattr(fd, NODE, value, strlen(value), 0) < 0 ? -errno : 0;
  close(fd);
  if (r < 0)
    unlinkat(dirfd, name, 0);
  return r;
}

/* May files be given away here? */
gboolean host_meta_must_emulate(int dirfd) {
  static const char probe[] = ".tessera-probe";
  unlinkat(dirfd, probe, 0);
  int fd = openat(dirfd, probe, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0)
    return TRUE;
  gboolean refused = fchown(fd, 12345, 12345) < 0;
  close(fd);
  unlinkat(dirfd, probe, 0);
  return refused;
}
