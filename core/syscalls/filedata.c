/* SPDX-License-Identifier: Apache-2.0 */
/* A file's contents as a whole: fsync, truncation, allocation, advice, and reading directories. */
#include <core/syscalls/rw.h>
#include <dirent.h>
#include <linux/capability.h>
#include <linux/falloc.h>
#include <tessera/vfs.h>

#define DENTS_MAX (64 * 1024) /* bytes of entries handed out by one getdents */

/* ---- Syncing ---- */

static glong sync_file(TesTask *t, gulong fd, gboolean data_only) {
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)fd);
  if (!f)
    return -EBADF;
  if (TES_HAS(f->ops, fsync))
    return f->ops->fsync(f, tes_task_ctx(t), data_only);
  return f->inode && (S_ISREG(f->inode->mode) || S_ISDIR(f->inode->mode)) ? 0 : -EINVAL;
}

glong tes_sys_do_fsync(TesTask *t, const gulong a[6]) { return sync_file(t, a[0], FALSE); }
glong tes_sys_do_fdatasync(TesTask *t, const gulong a[6]) { return sync_file(t, a[0], TRUE); }

glong tes_sys_do_sync_file_range(TesTask *t, const gulong a[6]) {
  goffset off = (goffset)a[1], len = (goffset)a[2], end;
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  if (!f)
    return -EBADF;
  if ((a[3] & ~7UL) || off < 0 || len < 0 || __builtin_add_overflow(off, len, &end))
    return -EINVAL;
  if (!(f->ops->flags & TES_FILE_SEEKABLE))
    return -ESPIPE;
  return a[3] && TES_HAS(f->ops, fsync) ? f->ops->fsync(f, tes_task_ctx(t), TRUE) : 0;
}

static int sync_super(TesInode *i) {
  return i && TES_HAS(i->super->ops, sync) ? i->super->ops->sync(i->super) : 0;
}

glong tes_sys_do_syncfs(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  return f ? sync_super(f->inode) : -EBADF;
}

glong tes_sys_do_sync(TesTask *t, const gulong a[6]) {
  tes_supers_sync(t->kernel);
  return 0;
}

/* ---- Advice ---- */

glong tes_sys_do_readahead(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  if (!f || !tes_file_readable(f))
    return -EBADF;
  return tes_file_is_regular(f) ? 0 : -EINVAL;
}

glong tes_sys_do_fadvise64(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  if (!f)
    return -EBADF;
  if (tes_file_pipe(f))
    return -ESPIPE;
  if ((glong)a[2] < 0 || (int)a[3] < POSIX_FADV_NORMAL || (int)a[3] > POSIX_FADV_NOREUSE)
    return -EINVAL;
  return 0;
}

/* ---- Size ---- */

glong tes_sys_do_ftruncate(TesTask *t, const gulong a[6]) {
  TesCtx *ctx = tes_task_ctx(t);
  goffset size = (goffset)a[1];
  if (size < 0)
    return -EINVAL;
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  if (!f)
    return -EBADF;
  TesAttr attr;
  int r = tes_file_getattr(f, ctx, &attr);
  if (r < 0)
    return r;
  if (!S_ISREG(attr.mode) || !tes_file_writable(f))
    return -EINVAL;
  if (f->inode && (f->inode->flags & TES_INODE_APPEND_ONLY))
    return -EPERM;
  if ((guint64)size > attr.size && tes_file_size_limit(f, ctx, size - 1, 1) < 0)
    return -EFBIG;
  TesSetAttr set = {.valid = TES_SET_SIZE, .size = size};
  if (f->inode && tes_inode_drops_setid(f->inode, ctx, FALSE, &set.mode))
    set.valid |= TES_SET_MODE;
  return tes_file_setattr(f, ctx, &set);
}

static int fallocate_mode_ok(int mode) {
  int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_ZERO_RANGE |
              FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE;
  int kind = mode & ~FALLOC_FL_KEEP_SIZE;
  if ((mode & ~known) || (kind & (kind - 1)))
    return -EOPNOTSUPP;
  if ((mode & FALLOC_FL_PUNCH_HOLE) && !(mode & FALLOC_FL_KEEP_SIZE))
    return -EOPNOTSUPP;
  if ((mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) && (mode & FALLOC_FL_KEEP_SIZE))
    return -EINVAL;
  return 0;
}

glong tes_sys_do_fallocate(TesTask *t, const gulong a[6]) {
  TesCtx *ctx = tes_task_ctx(t);
  goffset off = (goffset)a[2], len = (goffset)a[3], end;
  int mode = (int)a[1];
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  if (!f)
    return -EBADF;
  if (off < 0 || len <= 0)
    return -EINVAL;
  int r = fallocate_mode_ok(mode);
  if (r < 0)
    return r;
  if (!tes_file_writable(f))
    return -EBADF;
  if (tes_file_pipe(f))
    return -ESPIPE;
  if (f->ops->flags & TES_FILE_DIR)
    return -EISDIR;
  if (f->inode && !S_ISREG(f->inode->mode))
    return -ENODEV;
  if (__builtin_add_overflow(off, len, &end))
    return -EFBIG;
  if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE)) && /* KEEP_SIZE is no exception */
      tes_file_size_limit(f, ctx, end - 1, 1) < 0)
    return -EFBIG;
  guint flags = f->inode ? f->inode->flags : 0;
  if ((flags & TES_INODE_IMMUTABLE) || ((flags & TES_INODE_APPEND_ONLY) && (mode & ~FALLOC_FL_KEEP_SIZE)))
    return -EPERM;
  r = TES_HAS(f->ops, fallocate) ? f->ops->fallocate(f, ctx, mode, off, len) : -EOPNOTSUPP;
  TesSetAttr set = {.valid = TES_SET_MODE};
  if (r == 0 && f->inode && tes_inode_drops_setid(f->inode, ctx, FALSE, &set.mode))
    tes_file_setattr(f, ctx, &set);
  if (r == 0)
    tes_notify_file(f, IN_MODIFY);
  return r;
}

/* ---- Directories ---- */

typedef struct {
  guchar *buf;
  gsize room, used;
  gboolean old; /* getdents: struct linux_dirent */
  gboolean full;
} Dents;

/* Both layouts begin with inode number, offset and length; the old one has no type byte before the name but one at the end. */
static gboolean fill_dent(gpointer data, const char *name, gsize len, guint64 ino, guint type, goffset next) {
  Dents *d = data;
  gsize head = d->old ? 18 : 19, size = (head + len + (d->old ? 2 : 1) + 7) & ~(gsize)7;
  if (size > d->room - d->used) {
    d->full = TRUE;
    return FALSE;
  }
  guchar *e = d->buf + d->used;
  guint16 reclen = (guint16)size;
  memset(e, 0, size);
  memcpy(e, &ino, 8);
  memcpy(e + 8, &next, 8);
  memcpy(e + 16, &reclen, 2);
  if (d->old)
    e[size - 1] = (guchar)type;
  else
    e[18] = (guchar)type;
  memcpy(e + head, name, len);
  d->used += size;
  return TRUE;
}

static glong getdents(TesTask *t, const gulong a[6], gboolean old) {
  g_auto(TesFdLoan) loan = tes_fd_borrow_io(t, (int)a[0]);
  TesFile *f = loan.file;
  if (!f)
    return -EBADF;
  if (!TES_HAS(f->ops, readdir))
    return -ENOTDIR;
  if (f->path && TES_HAS(f->path->vfs->ops, is_deleted) && f->path->vfs->ops->is_deleted(f->path))
    return -ENOENT;
  Dents d = {.room = MIN((guint)a[2], DENTS_MAX), .old = old};
  g_autofree guchar *buf = d.buf = g_malloc(MAX(d.room, 1));
  TES_LOCKED(&f->pos_lock);
  goffset pos = f->pos;
  int r = f->ops->readdir(f, tes_task_ctx(t), &pos, fill_dent, &d);
  if (r >= 0)
    tes_notify_file(f, IN_ACCESS);
  if (d.used == 0)
    return d.full ? -EINVAL : MIN(r, 0);
  if (tes_copy_out(t, a[1], buf, d.used) < 0)
    return -EFAULT;
  f->pos = pos;
  return (glong)d.used;
}

glong tes_sys_do_getdents(TesTask *t, const gulong a[6]) { return getdents(t, a, TRUE); }
glong tes_sys_do_getdents64(TesTask *t, const gulong a[6]) { return getdents(t, a, FALSE); }
