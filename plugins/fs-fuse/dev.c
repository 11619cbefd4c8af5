/* SPDX-License-Identifier: Apache-2.0 */
/* /dev/fuse as the server has it open: read(2) takes one request, write(2) gives one reply. */
#include "fuse.h"

typedef struct {
  TesFile file;
  FuseConn *conn;
} Dev;

static const TesFileOps dev_ops;

static Dev *of(TesFile *f) { return (Dev *)f; }

static gssize dev_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  FuseRequest *r;
  FuseConn *c = of(f)->conn;
  if (!__atomic_load_n(&c->mounted, __ATOMIC_ACQUIRE))
    return -EPERM; /* not mounted yet */
  int error = fuse_conn_take(c, iov->left, &r);
  if (error < 0)
    return error;
  gssize n = tes_iov_write_to(iov, r->out, r->out_len);
  gboolean whole = n == (gssize)r->out_len;
  if (!whole && r->wants_reply) { /* its buffer was bad: the client must not wait for ever */
    struct fuse_out_header h = {.unique = r->unique, .error = -EIO};
    g_autoptr(GBytes) none = g_bytes_new(NULL, 0);
    fuse_conn_answer(c, &h, none);
  }
  fuse_request_unref(r);
  return whole ? n : -EFAULT;
}

static gssize dev_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  FuseConn *c = of(f)->conn;
  struct fuse_out_header h;
  gsize total = iov->left;
  if (!__atomic_load_n(&c->mounted, __ATOMIC_ACQUIRE))
    return -EPERM;
  if (total < sizeof h || total > sizeof h + FUSE_MAX_TRANSFER + TES_PAGE_SIZE)
    return -EINVAL;
  if (tes_iov_read_from(iov, &h, sizeof h) != sizeof h)
    return -EFAULT;
  if (h.len != total)
    return -EINVAL;
  gsize n = total - sizeof h;
  guint8 *data = g_malloc(MAX(n, 1));
  g_autoptr(GBytes) bytes = g_bytes_new_take(data, n);
  if (n && tes_iov_read_from(iov, data, n) != (gssize)n)
    return -EFAULT;
  if (!h.unique)
    return -EINVAL; /* notifications: nothing is cached that they could invalidate before its time */
  int r = fuse_conn_answer(c, &h, bytes);
  return r < 0 ? r : (gssize)total;
}

static guint dev_poll(TesFile *f) {
  FuseConn *c = of(f)->conn;
  TES_LOCKED(&c->lock);
  if (c->dead)
    return POLLERR | POLLIN | POLLOUT;
  return POLLOUT | POLLWRNORM | (c->pending.length ? POLLIN | POLLRDNORM : 0);
}

static void dev_release(TesFile *f) {
  fuse_conn_abort(of(f)->conn);
  fuse_conn_unref(of(f)->conn);
  g_free(f);
}

static const TesFileOps dev_ops = {.size = sizeof(TesFileOps),
                                   .name = "fuse",
                                   .read = dev_read,
                                   .write = dev_write,
                                   .poll = dev_poll,
                                   .release = dev_release};

int fuse_dev_open(TesKernel *k, TesCtx *ctx, guint64 rdev, guint flags, TesFile **out) {
  Dev *d = g_new0(Dev, 1);
  tes_file_init(&d->file, k, &dev_ops, flags);
  d->conn = fuse_conn_new(k);
  d->file.queue = &d->conn->to_server;
  *out = &d->file;
  return 0;
}

FuseConn *fuse_dev_conn(TesFile *f) { return f->ops == &dev_ops ? fuse_conn_ref(of(f)->conn) : NULL; }
