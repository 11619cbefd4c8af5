/* SPDX-License-Identifier: Apache-2.0 */
/* Making, removing and renaming names, and extended attributes: each one request. */
#include "fuse.h"
#include <sys/xattr.h>

/* Sends a request that makes `name` and takes the entry it answers with. */
static int make(TesInode *dir, TesCtx *ctx, guint32 opcode, const FusePiece *pieces, guint n, guint32 type,
                TesInode **out) {
  g_autoptr(GBytes) reply = NULL;
  struct fuse_entry_out e = {0};
  int r = fuse_call(fuse_conn(dir), ctx, opcode, fuse_inode(dir)->node, pieces, n, sizeof e, &reply);
  if (r < 0)
    return r;
  fuse_bytes_copy(reply, &e, sizeof e);
  fuse_attr_stale(fuse_inode(dir));
  if ((e.attr.mode & S_IFMT) != type)
    return -EIO;
  return fuse_inode_get(fuse_super(dir), &e, out);
}

int fuse_mknod(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, guint64 rdev, TesInode **out) {
  guint32 ma = (guint32)(rdev >> 8 & 0xfff), mi = (guint32)((rdev & 0xff) | (rdev >> 12 & 0xfff00));
  struct fuse_mknod_in in = {.mode = mode, .rdev = (mi & 0xff) | ma << 8 | (mi & ~0xffU) << 12};
  const FusePiece p[] = {FUSE_ARG(in), FUSE_NAME(name)};
  return make(dir, ctx, FUSE_MKNOD, p, 2, mode & S_IFMT, out);
}

/* The file is opened by a request of its own afterwards: CREATE would have to hand an open file to the VFS. */
int fuse_create(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  if (!fuse_lacks(fuse_conn(dir), FUSE_MKNOD)) {
    int r = fuse_mknod(dir, ctx, name, S_IFREG | (mode & 07777), 0, out);
    if (r != -ENOSYS)
      return r;
    __atomic_fetch_or(&fuse_conn(dir)->no_calls, G_GUINT64_CONSTANT(1) << FUSE_MKNOD, __ATOMIC_RELAXED);
  }
  struct fuse_create_in in = {.flags = O_CREAT | O_EXCL | O_RDONLY, .mode = S_IFREG | (mode & 07777)};
  const FusePiece p[] = {FUSE_ARG(in), FUSE_NAME(name)};
  g_autoptr(GBytes) reply = NULL;
  struct {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
  } o = {0};
  int r = fuse_call(fuse_conn(dir), ctx, FUSE_CREATE, fuse_inode(dir)->node, p, 2, sizeof o, &reply);
  if (r < 0)
    return r;
  fuse_bytes_copy(reply, &o, sizeof o);
  fuse_attr_stale(fuse_inode(dir));
  struct fuse_release_in rel = {.fh = o.open.fh, .flags = O_RDONLY};
  const FusePiece piece = FUSE_ARG(rel);
  fuse_post(fuse_conn(dir), ctx, FUSE_RELEASE, o.entry.nodeid, &piece, 1, TRUE);
  return S_ISREG(o.entry.attr.mode) ? fuse_inode_get(fuse_super(dir), &o.entry, out) : -EIO;
}

int fuse_mkdir(TesInode *dir, TesCtx *ctx, const char *name, guint32 mode, TesInode **out) {
  struct fuse_mkdir_in in = {.mode = mode & 07777};
  const FusePiece p[] = {FUSE_ARG(in), FUSE_NAME(name)};
  return make(dir, ctx, FUSE_MKDIR, p, 2, S_IFDIR, out);
}

int fuse_symlink(TesInode *dir, TesCtx *ctx, const char *name, const char *target, TesInode **out) {
  const FusePiece p[] = {FUSE_NAME(name), FUSE_NAME(target)};
  return make(dir, ctx, FUSE_SYMLINK, p, 2, S_IFLNK, out);
}

int fuse_link(TesInode *dir, TesCtx *ctx, const char *name, TesInode *target) {
  struct fuse_link_in in = {.oldnodeid = fuse_inode(target)->node};
  const FusePiece p[] = {FUSE_ARG(in), FUSE_NAME(name)};
  g_autoptr(TesInode) same = NULL;
  int r = make(dir, ctx, FUSE_LINK, p, 2, target->mode & S_IFMT, &same);
  fuse_attr_stale(fuse_inode(target));
  return r < 0 ? r : same == target ? 0 : -EIO;
}

static int take_away(TesInode *dir, TesCtx *ctx, guint32 opcode, const char *name, TesInode *victim) {
  const FusePiece p = FUSE_NAME(name);
  int r = fuse_call(fuse_conn(dir), ctx, opcode, fuse_inode(dir)->node, &p, 1, 0, NULL);
  if (r == 0) {
    fuse_attr_stale(fuse_inode(dir));
    fuse_attr_stale(fuse_inode(victim));
  }
  return r;
}
int fuse_unlink(TesInode *dir, TesCtx *ctx, const char *name, TesInode *victim) {
  return take_away(dir, ctx, FUSE_UNLINK, name, victim);
}
int fuse_rmdir(TesInode *dir, TesCtx *ctx, const char *name, TesInode *victim) {
  return take_away(dir, ctx, FUSE_RMDIR, name, victim);
}

int fuse_rename(TesInode *odir, const char *oname, TesInode *ndir, const char *nname, TesInode *source,
                TesInode *target, TesCtx *ctx, guint flags) {
  struct fuse_rename2_in in2 = {.newdir = fuse_inode(ndir)->node, .flags = flags};
  struct fuse_rename_in in = {.newdir = in2.newdir};
  const FusePiece p2[] = {FUSE_ARG(in2), FUSE_NAME(oname), FUSE_NAME(nname)};
  const FusePiece p[] = {FUSE_ARG(in), FUSE_NAME(oname), FUSE_NAME(nname)};
  FuseConn *c = fuse_conn(odir);
  int r = flags ? fuse_call_optional(c, ctx, FUSE_RENAME2, fuse_inode(odir)->node, p2, 3, 0, NULL)
                : fuse_call(c, ctx, FUSE_RENAME, fuse_inode(odir)->node, p, 3, 0, NULL);
  if (r < 0)
    return r == -ENOSYS && flags ? -EINVAL : r;
  TesInode *changed[] = {odir, ndir, source, target};
  for (gsize i = 0; i < G_N_ELEMENTS(changed); i++)
    if (changed[i])
      fuse_attr_stale(fuse_inode(changed[i]));
  return 0;
}

/* ---- Extended attributes ---- */

static gssize read_xattr(TesInode *i, TesCtx *ctx, guint32 opcode, const char *name, void *to, gsize size) {
  struct fuse_getxattr_in in = {.size = (guint32)MIN(size, XATTR_SIZE_MAX)};
  const FusePiece p[] = {FUSE_ARG(in), {name, name ? strlen(name) + 1 : 0}};
  g_autoptr(GBytes) reply = NULL;
  struct fuse_getxattr_out o = {0};
  int r = fuse_call_optional(fuse_conn(i), ctx, opcode, fuse_inode(i)->node, p, name ? 2 : 1,
                             in.size ? 0 : sizeof o, &reply);
  if (r < 0)
    return r == -ENOSYS ? -EOPNOTSUPP : r;
  if (!in.size) {
    fuse_bytes_copy(reply, &o, sizeof o);
    return MIN(o.size, XATTR_SIZE_MAX);
  }
  return g_bytes_get_size(reply) > in.size ? -EIO : (gssize)fuse_bytes_copy(reply, to, in.size);
}

gssize fuse_getxattr(TesInode *i, TesCtx *ctx, const char *name, void *value, gsize size) {
  return read_xattr(i, ctx, FUSE_GETXATTR, name, value, size);
}

gssize fuse_listxattr(TesInode *i, TesCtx *ctx, char *list, gsize size) {
  gssize n = read_xattr(i, ctx, FUSE_LISTXATTR, NULL, list, size);
  return n > 0 && size && list[n - 1] ? -EIO : n;
}

int fuse_setxattr(TesInode *i, TesCtx *ctx, const char *name, const void *value, gsize size, int flags) {
  struct fuse_setxattr_in in = {.size = (guint32)size, .flags = (guint32)flags};
  /* Before FUSE_SETXATTR_EXT, which is not asked for, the argument ends here. */
  const FusePiece p[] = {{&in, FUSE_COMPAT_SETXATTR_IN_SIZE}, FUSE_NAME(name), {value, size}};
  int r = fuse_call_optional(fuse_conn(i), ctx, FUSE_SETXATTR, fuse_inode(i)->node, p, 3, 0, NULL);
  fuse_attr_stale(fuse_inode(i));
  return r == -ENOSYS ? -EOPNOTSUPP : r;
}

int fuse_removexattr(TesInode *i, TesCtx *ctx, const char *name) {
  const FusePiece p = FUSE_NAME(name);
  int r = fuse_call_optional(fuse_conn(i), ctx, FUSE_REMOVEXATTR, fuse_inode(i)->node, &p, 1, 0, NULL);
  fuse_attr_stale(fuse_inode(i));
  return r == -ENOSYS ? -EOPNOTSUPP : r;
}
