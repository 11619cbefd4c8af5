/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes from one descriptor to another: sendfile, splice, tee, vmsplice, copy_file_range. All copy through one kernel buffer.
 *
 * A splice from a pipe consumes what the other side took and nothing more: it holds the front of the pipe while it tries to write
 * without blocking, and lets it go before it waits. */
#include <core/syscalls/rw.h>

#define CHUNK (64 * 1024UL)
#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)

/* Where one side stands: an explicit offset in guest memory, the file's own position, or none. */
typedef struct {
  TesFile *file;
  goffset pos;
  gboolean seekable;
  gulong uoff;
} Side;

static int side_begin(Side *s, TesTask *t, gulong uoff) {
  s->uoff = uoff;
  s->pos = 0;
  s->seekable = (s->file->ops->flags & TES_FILE_SEEKABLE) != 0;
  if (!uoff) {
    TES_LOCKED(&s->file->pos_lock);
    s->pos = s->file->pos;
    return 0;
  }
  return tes_copy_in(t, &s->pos, uoff, sizeof s->pos) < 0 ? -EFAULT : 0;
}

static int side_end(Side *s, TesTask *t) {
  if (s->uoff)
    return tes_copy_out(t, s->uoff, &s->pos, sizeof s->pos);
  if (s->seekable)
    tes_file_seek(s->file, tes_task_ctx(t), s->pos, SEEK_SET);
  return 0;
}

static gssize side_read(Side *s, TesTask *t, void *buf, gsize n, int flags) {
  TesIov iov;
  struct iovec one;
  tes_iov_init_kernel(&iov, &one, buf, n);
  return tes_file_read(s->file, tes_task_ctx(t), &iov, s->seekable ? &s->pos : NULL, flags | TES_RW_QUIET);
}

static gssize side_write(Side *s, TesTask *t, void *buf, gsize n, int flags) {
  TesIov iov;
  struct iovec one;
  tes_iov_init_kernel(&iov, &one, buf, n);
  return tes_file_write(s->file, tes_task_ctx(t), &iov, s->seekable ? &s->pos : NULL, flags | TES_RW_QUIET);
}

/* One event each for the whole transfer. */
static void tell(gssize n, TesFile *in, TesFile *out) {
  if (n <= 0)
    return;
  tes_notify_file(in, IN_ACCESS);
  tes_notify_file(out, IN_MODIFY);
}

/* Copies up to `count` bytes; `in` is seekable, so that what was read but not written is not lost. */
static gssize copy_loop(TesTask *t, Side *in, Side *out, gsize count) {
  g_autofree guchar *buf = g_malloc(MIN(MAX(count, 1), CHUNK));
  gssize done = 0, n = 0;
  while ((gsize)done < count) {
    goffset before = in->pos;
    n = side_read(in, t, buf, MIN(count - (gsize)done, CHUNK), 0);
    if (n <= 0)
      break;
    gssize w = side_write(out, t, buf, (gsize)n, 0);
    in->pos = before + MAX(w, 0);
    done += MAX(w, 0);
    if (w < n) {
      n = w;
      break;
    }
    if (tes_signal_pending(t))
      break;
  }
  return done ? done : MIN(n, 0);
}

glong tes_sys_do_sendfile(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) out = tes_fd_get_io(t, (int)a[0]);
  g_autoptr(TesFile) in = tes_fd_get_io(t, (int)a[1]);
  if (!in || !tes_file_readable(in))
    return -EBADF;
  if (a[2] && !(in->ops->flags & TES_FILE_SEEKABLE))
    return -ESPIPE;
  Side from = {.file = in}, to = {.file = out};
  int r = side_begin(&from, t, a[2]);
  if (r == 0 && (from.pos < 0 || (gssize)a[3] < 0))
    r = -EINVAL;
  if (r < 0)
    return r;
  if (!out || !tes_file_writable(out))
    return -EBADF;
  if (!(in->ops->flags & TES_FILE_SEEKABLE))
    return -EINVAL;
  if ((in->ops->flags | out->ops->flags) & TES_FILE_DIR)
    return -EINVAL;
  if (out->flags & O_APPEND)
    return -EINVAL;
  r = side_begin(&to, t, 0);
  if (r < 0)
    return r;
  gssize n = copy_loop(t, &from, &to, MIN(a[3], TES_MAX_RW_COUNT));
  tell(n, in, out);
  if (n > 0) {
    side_end(&to, t);
    if (side_end(&from, t) < 0)
      return -EFAULT;
  }
  return tes_sys_wrote(t, n);
}

static int copy_range_modes(TesFile *in, TesFile *out) {
  if ((in->ops->flags | out->ops->flags) & TES_FILE_DIR)
    return -EISDIR;
  if (!tes_file_is_regular(in) || !tes_file_is_regular(out))
    return -EINVAL;
  if (!tes_file_readable(in) || !tes_file_writable(out) || (out->flags & O_APPEND))
    return -EBADF;
  return 0;
}

/* In Linux's order. *len is shortened to what the source has and the limits allow. Offsets wrap as unsigned numbers do. */
static int copy_range_checks(TesTask *t, Side *from, Side *to, gsize *len) {
  TesCtx *ctx = tes_task_ctx(t);
  TesAttr a;
  guint64 end;
  int r = copy_range_modes(from->file, to->file);
  if (r == 0)
    r = tes_file_getattr(from->file, ctx, &a);
  if (r < 0)
    return r;
  if (__builtin_add_overflow((guint64)from->pos, *len, &end) ||
      __builtin_add_overflow((guint64)to->pos, *len, &end))
    return -EOVERFLOW;
  *len = from->pos >= (goffset)a.size ? 0 : MIN(*len, a.size - (guint64)from->pos);
  if (from->pos < 0 || to->pos < 0)
    return -EINVAL;
  *len = MIN(*len, (guint64)(G_MAXINT64 - to->pos));
  gssize allowed =
      tes_file_size_limit(to->file, ctx, to->pos, MAX(*len, 1)); /* also where nothing is left to copy */
  if (allowed < 0)
    return (int)allowed;
  *len = MIN(*len, (gsize)allowed);
  goffset n = (goffset)*len;
  gboolean overlap =
      from->file->inode == to->file->inode && from->pos < to->pos + n && to->pos < from->pos + n;
  return overlap ? -EINVAL : 0;
}

glong tes_sys_do_copy_file_range(TesTask *t, const gulong a[6]) {
  gsize len = MIN(a[4], TES_MAX_RW_COUNT);
  g_autoptr(TesFile) in = tes_fd_get_io(t, (int)a[0]);
  g_autoptr(TesFile) out = tes_fd_get_io(t, (int)a[2]);
  if (!in || !out)
    return -EBADF;
  if (a[5])
    return -EINVAL;
  Side from = {.file = in}, to = {.file = out};
  int r = side_begin(&from, t, a[1]);
  if (r == 0)
    r = side_begin(&to, t, a[3]);
  if (r < 0)
    return r;
  r = copy_range_checks(t, &from, &to, &len);
  if (r < 0 || len == 0)
    return r;
  gssize n = copy_loop(t, &from, &to, len);
  tell(n, in, out);
  if (n > 0 && (side_end(&from, t) < 0 || side_end(&to, t) < 0))
    return -EFAULT;
  return n;
}

/* ---- Pipes ---- */

/* Waits until `f` may be ready; -EAGAIN when the caller must not wait. */
static int wait_ready(TesTask *t, TesFile *f, guint mask, gboolean nonblock) {
  if (nonblock || tes_file_nonblock(f))
    return -EAGAIN;
  int r = tes_file_wait(f, t, mask, TES_TIME_INFINITE);
  return r == -EINTR ? -TES_ERESTARTSYS : r;
}

static gssize splice_from_pipe(TesTask *t, TesFile *in, Side *out, gsize len, gboolean nonblock) {
  TesPipe *p = tes_file_pipe(in);
  gsize max = MIN(len, CHUNK);
  g_autofree guchar *buf = g_malloc(max);
  for (;;) {
    gssize n = tes_pipe_peek_begin(p, buf, max);
    if (n == 0)
      return 0;
    int r;
    if (n == -EAGAIN) {
      r = wait_ready(t, in, POLLIN, nonblock);
    } else {
      gssize w = side_write(out, t, buf, (gsize)n, TES_RW_NONBLOCK);
      tes_pipe_peek_end(p, (gsize)MAX(w, 0));
      if (w != -EAGAIN)
        return w;
      r = wait_ready(t, out->file, POLLOUT, nonblock && tes_file_pipe(out->file));
    }
    if (r < 0)
      return r;
  }
}

static gssize splice_to_pipe(TesTask *t, Side *in, TesFile *out, gsize len, gboolean nonblock) {
  TesPipe *p = tes_file_pipe(out);
  gsize room;
  while ((room = tes_pipe_room(p)) == 0) {
    int r = wait_ready(t, out, POLLOUT, nonblock);
    if (r < 0)
      return r;
    if (tes_file_poll(out) & POLLERR)
      return -EPIPE;
  }
  gsize n = MIN(MIN(len, room), CHUNK);
  g_autofree guchar *buf = g_malloc(n);
  goffset before = in->pos;
  gssize r = side_read(in, t, buf, n, nonblock ? TES_RW_NONBLOCK : 0);
  if (r <= 0)
    return r;
  Side to = {.file = out};
  gssize w = side_write(&to, t, buf, (gsize)r, 0);
  if (in->seekable)
    in->pos = before + MAX(w, 0);
  return w;
}

glong tes_sys_do_splice(TesTask *t, const gulong a[6]) {
  gsize len = MIN(a[4], TES_MAX_RW_COUNT);
  gboolean nonblock = (a[5] & SPLICE_F_NONBLOCK) != 0;
  if (len == 0)
    return 0;
  if (a[5] & ~(gulong)SPLICE_FLAGS)
    return -EINVAL;
  g_autoptr(TesFile) in = tes_fd_get_io(t, (int)a[0]);
  g_autoptr(TesFile) out = tes_fd_get_io(t, (int)a[2]);
  if (!in || !out || !tes_file_readable(in) || !tes_file_writable(out))
    return -EBADF;
  TesPipe *pin = tes_file_pipe(in), *pout = tes_file_pipe(out);
  if (!pin && !pout)
    return -EINVAL;
  if ((pin && a[1]) || (pout && a[3]))
    return -ESPIPE;
  if ((in->ops->flags | out->ops->flags) & TES_FILE_DIR)
    return -EINVAL;
  if (pin == pout || (!pout && (out->flags & O_APPEND)))
    return -EINVAL;
  if ((a[1] && !(in->ops->flags & TES_FILE_SEEKABLE)) || (a[3] && !(out->ops->flags & TES_FILE_SEEKABLE)))
    return -EINVAL;
  Side from = {.file = in}, to = {.file = out};
  int r = side_begin(&from, t, a[1]);
  if (r == 0)
    r = side_begin(&to, t, a[3]);
  if (r == 0 && (from.pos < 0 || to.pos < 0))
    r = -EINVAL;
  if (r < 0)
    return r;
  gssize n = pin ? splice_from_pipe(t, in, &to, len, nonblock) : splice_to_pipe(t, &from, out, len, nonblock);
  tell(n, in, out);
  if (n > 0 && (side_end(&from, t) < 0 || side_end(&to, t) < 0))
    return -EFAULT;
  return tes_sys_wrote(t, n);
}

glong tes_sys_do_tee(TesTask *t, const gulong a[6]) {
  gboolean nonblock = (a[3] & SPLICE_F_NONBLOCK) != 0;
  if (a[3] & ~(gulong)SPLICE_FLAGS)
    return -EINVAL;
  g_autoptr(TesFile) in = tes_fd_get_io(t, (int)a[0]);
  g_autoptr(TesFile) out = tes_fd_get_io(t, (int)a[1]);
  if (!in || !out || !tes_file_readable(in) || !tes_file_writable(out))
    return -EBADF;
  TesPipe *pin = tes_file_pipe(in), *pout = tes_file_pipe(out);
  if (!pin || !pout || pin == pout)
    return -EINVAL;
  gsize max = MIN(MIN(a[2], TES_MAX_RW_COUNT), CHUNK);
  if (max == 0)
    return 0;
  g_autofree guchar *buf = g_malloc(max);
  Side to = {.file = out};
  for (;;) {
    gssize n = tes_pipe_peek(pin, buf, max);
    if (n == 0)
      return 0;
    gssize w = n < 0 ? n : side_write(&to, t, buf, (gsize)n, TES_RW_NONBLOCK);
    if (w != -EAGAIN)
      return tes_sys_wrote(t, w);
    int r = n < 0 ? wait_ready(t, in, POLLIN, nonblock) : wait_ready(t, out, POLLOUT, nonblock);
    if (r < 0)
      return r;
  }
}

glong tes_sys_do_vmsplice(TesTask *t, const gulong a[6]) {
  if (a[3] & ~(gulong)SPLICE_FLAGS)
    return -EINVAL;
  g_autoptr(TesFile) f = tes_fd_get_io(t, (int)a[0]);
  if (!f || !tes_file_pipe(f))
    return -EBADF;
  TesIov iov;
  g_autofree struct iovec *store = NULL;
  int r = tes_iov_import(&iov, &store, t, a[1], a[2]);
  if (r < 0)
    return r;
  if (iov.left == 0)
    return 0;
  int flags = (a[3] & SPLICE_F_NONBLOCK) ? TES_RW_NONBLOCK : 0;
  if (tes_file_writable(f))
    return tes_sys_wrote(t, tes_file_write(f, tes_task_ctx(t), &iov, NULL, flags));
  return tes_file_read(f, tes_task_ctx(t), &iov, NULL, flags);
}
