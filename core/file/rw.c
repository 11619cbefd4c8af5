/* SPDX-License-Identifier: Apache-2.0 */
/* Reading, writing and seeking on behalf of a task: positions, access modes, limits, and the loop that blocks.
 *
 * Operations of a file never wait; -EAGAIN makes the loop here enlist on file->queue, ask again, and sleep. The path of a call
 * that is ready at once allocates nothing and takes one lock (the position's) at most. */
#include <core/file/file.h>
#include <linux/capability.h>

/* A file with a position that is not told one uses its own, under its lock. With one reference, that of a table that only the
 * calling task uses, nobody else can. */
static gboolean lock_pos(TesFile *f) {
  gboolean shared = g_atomic_int_get(&f->refs) > 1;
  if (shared)
    tes_mutex_lock(&f->pos_lock);
  return shared;
}

static void unlock_pos(TesFile *f, gboolean locked) {
  if (locked)
    tes_mutex_unlock(&f->pos_lock);
}

static gssize do_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  if (pos || !(f->ops->flags & TES_FILE_SEEKABLE)) {
    goffset none = 0;
    return f->ops->read(f, ctx, iov, pos ? pos : &none, flags);
  }
  gboolean locked = lock_pos(f);
  gssize n = f->ops->read(f, ctx, iov, &f->pos, flags);
  unlock_pos(f, locked);
  return n;
}

gssize tes_file_read_once(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  if (!tes_file_readable(f))
    return -EBADF;
  if (!TES_HAS(f->ops, read))
    return (f->ops->flags & TES_FILE_DIR) ? -EISDIR : -EINVAL;
  if (pos && !(f->ops->flags & TES_FILE_SEEKABLE))
    return -ESPIPE;
  if (pos && (*pos < 0 || iov->left > (guint64)G_MAXINT64 - (guint64)*pos))
    return -EINVAL;
  if (pos)
    flags |= TES_RW_PWRITE;
  return do_read(f, ctx, iov, pos, flags);
}

static gboolean limited(TesCtx *ctx, guint64 *limit) {
  TesTask *t = tes_ctx_to_task(ctx);
  if (!t)
    return FALSE;
  *limit = tes_task_rlimit(t, RLIMIT_FSIZE);
  return *limit < (guint64)G_MAXINT64;
}

gssize tes_file_size_limit(TesFile *f, TesCtx *ctx, goffset pos, gsize n) {
  guint64 limit;
  if (n == 0 || !tes_file_is_regular(f) || !limited(ctx, &limit))
    return (gssize)n;
  if ((guint64)pos >= limit) {
    tes_file_signal_self(tes_ctx_to_task(ctx), SIGXFSZ);
    return -EFBIG;
  }
  return (gssize)MIN(n, limit - (guint64)pos);
}

/* Writing by somebody else takes set-id bits away (chmod of the file's owner would too; inode(7)). */
static void drop_setid(TesFile *f, TesCtx *ctx) {
  TesSetAttr set = {.valid = TES_SET_MODE};
  if (tes_inode_drops_setid(f->inode, ctx, FALSE, &set.mode))
    tes_file_setattr(f, ctx, &set);
}

/* Regular files: limits and set-id bits, then the operation. The position lock is held if pos is the file's own. */
static gssize write_regular(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  guint64 limit;
  if (iov->left && limited(ctx, &limit)) {
    goffset at = *pos;
    TesAttr a;
    if ((flags & TES_RW_APPEND) && tes_file_getattr(f, ctx, &a) == 0)
      at = (goffset)a.size;
    gssize n = tes_file_size_limit(f, ctx, at, iov->left);
    if (n < 0)
      return n;
    iov->left = (gsize)n;
  }
  if ((f->inode->mode & (S_ISUID | S_ISGID)) && iov->left)
    drop_setid(f, ctx);
  return f->ops->write(f, ctx, iov, pos, flags);
}

static gssize do_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  gboolean regular = tes_file_is_regular(f);
  if (pos || !(f->ops->flags & TES_FILE_SEEKABLE)) {
    goffset none = 0;
    return regular && pos ? write_regular(f, ctx, iov, pos, flags)
                          : f->ops->write(f, ctx, iov, pos ? pos : &none, flags);
  }
  gboolean locked = lock_pos(f);
  gssize n =
      regular ? write_regular(f, ctx, iov, &f->pos, flags) : f->ops->write(f, ctx, iov, &f->pos, flags);
  unlock_pos(f, locked);
  return n;
}

gssize tes_file_write_once(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  if (!tes_file_writable(f))
    return -EBADF;
  if (!TES_HAS(f->ops, write))
    return (f->ops->flags & TES_FILE_DIR) ? -EISDIR : -EINVAL;
  if (pos && !(f->ops->flags & TES_FILE_SEEKABLE))
    return -ESPIPE;
  if (pos && (*pos < 0 || iov->left > (guint64)G_MAXINT64 - (guint64)*pos))
    return -EINVAL;
  if (pos)
    flags |= TES_RW_PWRITE;
  if (iov->left == 0 && tes_file_is_regular(f))
    return 0; /* and O_APPEND does not move the position */
  return do_write(f, ctx, iov, pos, flags);
}

static void clip(TesIov *iov) {
  if (iov->left > TES_MAX_RW_COUNT)
    iov->left = TES_MAX_RW_COUNT;
}

static gssize read_blocking(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  clip(iov);
  gboolean nonblock = (flags & TES_RW_NONBLOCK) || tes_file_nonblock(f);
  if (nonblock)
    flags |= TES_RW_NONBLOCK;
  gssize n = tes_file_read_once(f, ctx, iov, pos, flags);
  if (n != -EAGAIN || nonblock)
    return n;
  TesTime deadline = tes_file_deadline(f, FALSE);
  TesFileWait fw;
  tes_file_wait_begin(&fw, f, tes_ctx_to_task(ctx), POLLIN | POLLRDNORM | POLLRDHUP);
  while ((n = tes_file_read_once(f, ctx, iov, pos, flags)) == -EAGAIN) {
    int r = tes_file_wait_block(&fw, deadline);
    if (r == 0)
      continue;
    n = r == -ETIMEDOUT ? -EAGAIN : tes_file_interrupted(deadline);
    break;
  }
  tes_file_wait_end(&fw);
  return n;
}

gssize tes_file_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  gssize n = read_blocking(f, ctx, iov, pos, flags);
  if (n > 0 && !(flags & TES_RW_QUIET))
    tes_notify_file(f, IN_ACCESS);
  return n;
}

static int write_flags(TesFile *f, int flags) {
  guint status = (guint)g_atomic_int_get((gint *)&f->flags);
  if ((status & O_APPEND) && !(flags & TES_RW_NOAPPEND))
    flags |= TES_RW_APPEND;
  if (status & O_DSYNC) /* O_SYNC includes it */
    flags |= TES_RW_SYNC;
  if (status & O_NONBLOCK)
    flags |= TES_RW_NONBLOCK;
  return flags;
}

static gssize write_blocking(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  clip(iov);
  flags = write_flags(f, flags);
  gboolean stream = (f->ops->flags & TES_FILE_STREAM) != 0;
  gssize n = tes_file_write_once(f, ctx, iov, pos, flags);
  if ((n >= 0 && (!stream || iov->left == 0)) || (n < 0 && n != -EAGAIN))
    return n;
  if (flags & TES_RW_NONBLOCK)
    return n;
  gssize done = MAX(n, 0);
  TesTime deadline = tes_file_deadline(f, TRUE);
  guint mask = (f->ops->flags & TES_FILE_ROOM) ? TES_POLL_ROOM : POLLOUT | POLLWRNORM;
  TesFileWait fw;
  tes_file_wait_begin(&fw, f, tes_ctx_to_task(ctx), mask);
  for (;;) {
    n = tes_file_write_once(f, ctx, iov, pos, flags);
    if (n >= 0) {
      done += n;
      if (!stream || iov->left == 0)
        break;
      if (n > 0)
        continue;
      n = -EAGAIN;
    }
    if (n != -EAGAIN)
      break;
    int r = tes_file_wait_block(&fw, deadline);
    if (r == 0)
      continue;
    n = r == -ETIMEDOUT ? -EAGAIN : tes_file_interrupted(deadline);
    break;
  }
  tes_file_wait_end(&fw);
  return done ? done : n;
}

gssize tes_file_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  gssize n = write_blocking(f, ctx, iov, pos, flags);
  if (n > 0 && !(flags & TES_RW_QUIET))
    tes_notify_file(f, IN_MODIFY);
  return n;
}

gssize tes_file_read_kernel(TesFile *f, TesCtx *ctx, void *buf, gsize n, goffset pos) {
  gsize done = 0;
  while (done < n) {
    TesIov iov;
    struct iovec one;
    tes_iov_init_kernel(&iov, &one, (char *)buf + done, n - done);
    gssize r = tes_file_read(f, ctx, &iov, &pos, 0);
    if (r < 0)
      return done ? (gssize)done : r;
    if (r == 0)
      break;
    done += (gsize)r;
  }
  return (gssize)done;
}

/* From the size alone: data everywhere, one hole at the end. Position lock held. */
static goffset default_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  TesAttr a = {.size = 0};
  if (whence == SEEK_CUR)
    return __builtin_add_overflow(f->pos, off, &off) ? -EOVERFLOW : off < 0 ? -EINVAL : off;
  if (whence != SEEK_SET) {
    int r = tes_file_getattr(f, ctx, &a);
    if (r < 0)
      return r;
  }
  switch (whence) {
  case SEEK_SET:
    return off < 0 ? -EINVAL : off;
  case SEEK_END:
    return __builtin_add_overflow((goffset)a.size, off, &off) ? -EOVERFLOW : off < 0 ? -EINVAL : off;
  case SEEK_DATA:
  case SEEK_HOLE:
    if (off < 0 || off >= (goffset)a.size)
      return -ENXIO;
    return whence == SEEK_DATA ? off : (goffset)a.size;
  default:
    return -EINVAL;
  }
}

goffset tes_file_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  if (whence < SEEK_SET || whence > SEEK_HOLE)
    return -EINVAL;
  if (!(f->ops->flags & TES_FILE_SEEKABLE) && !TES_HAS(f->ops, seek))
    return -ESPIPE;
  gboolean locked = lock_pos(f);
  goffset r = TES_HAS(f->ops, seek) ? f->ops->seek(f, ctx, off, whence) : -EOPNOTSUPP;
  if (r == -EOPNOTSUPP)
    r = default_seek(f, ctx, off, whence);
  if (r >= 0)
    f->pos = r;
  unlock_pos(f, locked);
  return r;
}
