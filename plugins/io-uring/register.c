/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring_register(2): buffers, files, an eventfd, the probe. A registered buffer is a range that fixed operations may use; its pages
 * are not pinned, so what the guest unmaps is EFAULT. */
#include "private.h"

/* ---- Files ---- */

TesFile *uring_registered_file(Ring *r, guint index) {
  TES_LOCKED(&r->lock);
  return index < r->n_files && r->files[index] ? tes_file_ref(r->files[index]) : NULL;
}

static void free_files(TesFile **files, guint n) {
  for (guint i = 0; i < n; i++)
    if (files[i])
      tes_file_unref(files[i]);
  g_free(files);
}

/* -1: no file. A ring is refused: it could only be freed after itself. */
static int fetch_file(TesTask *t, gint32 fd, TesFile **out) {
  *out = NULL;
  if (fd == -1)
    return 0;
  *out = tes_fd_get(t, fd);
  if (!*out)
    return -EBADF;
  if ((*out)->ops != &uring_file_ops && !((*out)->flags & O_PATH))
    return 0;
  g_clear_pointer(out, tes_file_unref);
  return -EBADF;
}

static glong register_files(Ring *r, TesTask *t, gulong arg, guint n) {
  if (n == 0)
    return -EINVAL;
  if (n > URING_MAX_FILES)
    return -EMFILE;
  g_autofree gint32 *fds = g_new(gint32, n);
  if (tes_copy_in(t, fds, arg, n * sizeof *fds) < 0)
    return -EFAULT;
  TesFile **files = g_new0(TesFile *, n);
  int e = 0;
  for (guint i = 0; i < n && e == 0; i++)
    e = fetch_file(t, fds[i], &files[i]);
  if (e == 0) {
    TES_LOCKED(&r->lock);
    if (!r->files) {
      r->files = files;
      r->n_files = n;
      return 0;
    }
    e = -EBUSY;
  }
  free_files(files, n);
  return e;
}

static glong unregister_files(Ring *r) {
  tes_mutex_lock(&r->lock);
  TesFile **files = g_steal_pointer(&r->files);
  guint n = r->n_files;
  r->n_files = 0;
  tes_mutex_unlock(&r->lock);
  if (!files)
    return -ENXIO;
  free_files(files, n);
  return 0;
}

static glong update_files(Ring *r, TesTask *t, gulong arg, guint n) {
  struct io_uring_files_update up;
  guint done = 0;
  int e = 0;
  if (tes_copy_in(t, &up, arg, sizeof up) < 0)
    return -EFAULT;
  if (up.resv || n == 0)
    return -EINVAL;
  for (; done < n; done++) {
    gint32 fd;
    TesFile *f = NULL, *old = NULL;
    if (tes_copy_in(t, &fd, up.fds + done * sizeof fd, sizeof fd) < 0)
      e = -EFAULT;
    else if (fd != -2 /* IORING_REGISTER_FILES_SKIP */)
      e = fetch_file(t, fd, &f);
    if (e < 0)
      break;
    {
      TES_LOCKED(&r->lock);
      guint64 at = (guint64)up.offset + done;
      if (!r->files || at >= r->n_files) {
        e = r->files ? -EINVAL : -ENXIO;
      } else if (fd != -2) {
        old = r->files[at];
        r->files[at] = g_steal_pointer(&f);
      }
    }
    g_clear_pointer(&f, tes_file_unref);
    g_clear_pointer(&old, tes_file_unref);
    if (e < 0)
      break;
  }
  return done ? (glong)done : e;
}

/* ---- Buffers ---- */

static glong register_buffers(Ring *r, TesTask *t, gulong arg, guint n) {
  if (n == 0 || n > URING_MAX_BUFFERS)
    return -EINVAL;
  g_autofree struct iovec *v = g_new(struct iovec, n);
  if (tes_copy_in(t, v, arg, n * sizeof *v) < 0)
    return -EFAULT;
  for (guint i = 0; i < n; i++) {
    guchar byte;
    gulong base = (gulong)v[i].iov_base;
    if (!v[i].iov_base || v[i].iov_len == 0 || v[i].iov_len > 1UL << 30 ||
        tes_copy_in(t, &byte, base, 1) < 0 || tes_copy_in(t, &byte, base + v[i].iov_len - 1, 1) < 0)
      return -EFAULT;
  }
  TES_LOCKED(&r->lock);
  if (r->buffers)
    return -EBUSY;
  r->buffers = g_steal_pointer(&v);
  r->n_buffers = n;
  return 0;
}

static glong unregister_buffers(Ring *r) {
  TES_LOCKED(&r->lock);
  if (!r->buffers)
    return -ENXIO;
  g_clear_pointer(&r->buffers, g_free);
  r->n_buffers = 0;
  return 0;
}

int uring_registered_buffer(Ring *r, guint index, gulong addr, gsize len) {
  TES_LOCKED(&r->lock);
  if (index >= r->n_buffers)
    return -EFAULT;
  gulong base = (gulong)r->buffers[index].iov_base, end = base + r->buffers[index].iov_len;
  return addr < base || addr > end || len > end - addr ? -EFAULT : 0;
}

/* ---- The rest ---- */

static glong register_eventfd(Ring *r, TesTask *t, gulong arg, guint n, gboolean async) {
  gint32 fd;
  if (n != 1)
    return -EINVAL;
  if (tes_copy_in(t, &fd, arg, sizeof fd) < 0)
    return -EFAULT;
  TesFile *f = tes_fd_get(t, fd);
  if (!f)
    return -EBADF;
  if (!g_str_equal(f->ops->name, "eventfd")) {
    tes_file_unref(f);
    return -EINVAL;
  }
  tes_mutex_lock(&r->lock);
  gboolean free_place = !r->eventfd;
  if (free_place) {
    r->eventfd = f;
    r->eventfd_async = async;
  }
  tes_mutex_unlock(&r->lock);
  if (!free_place)
    tes_file_unref(f);
  return free_place ? 0 : -EBUSY;
}

static glong unregister_eventfd(Ring *r) {
  tes_mutex_lock(&r->lock);
  TesFile *f = g_steal_pointer(&r->eventfd);
  tes_mutex_unlock(&r->lock);
  if (!f)
    return -ENXIO;
  tes_file_unref(f);
  return 0;
}

static glong probe(TesTask *t, gulong arg, guint n) {
  struct {
    struct io_uring_probe head;
    struct io_uring_probe_op ops[256];
  } p;
  n = MIN(n, 256);
  gsize len = sizeof p.head + n * sizeof p.ops[0];
  if (tes_copy_in(t, &p, arg, len) < 0)
    return -EFAULT;
  for (gsize i = 0; i < len; i++)
    if (((const char *)&p)[i])
      return -EINVAL;
  n = MIN(n, IORING_OP_LAST);
  p.head.last_op = IORING_OP_LAST - 1;
  p.head.ops_len = (guint8)n;
  for (guint i = 0; i < n; i++)
    p.ops[i] = (struct io_uring_probe_op){.op = (guint8)i, .flags = uring_op(i) ? IO_URING_OP_SUPPORTED : 0};
  return tes_copy_out(t, arg, &p, sizeof p.head + n * sizeof p.ops[0]);
}

static glong enable(Ring *r, gulong arg, guint n) {
  if (arg || n)
    return -EINVAL;
  return g_atomic_int_compare_and_exchange(&r->enabled, 0, 1) ? 0 : -EBADFD;
}

glong uring_register(Ring *r, TesTask *t, guint opcode, gulong arg, guint n) {
  switch (opcode) {
  case IORING_REGISTER_BUFFERS:
    return register_buffers(r, t, arg, n);
  case IORING_UNREGISTER_BUFFERS:
    return arg || n ? -EINVAL : unregister_buffers(r);
  case IORING_REGISTER_FILES:
    return register_files(r, t, arg, n);
  case IORING_UNREGISTER_FILES:
    return arg || n ? -EINVAL : unregister_files(r);
  case IORING_REGISTER_FILES_UPDATE:
    return update_files(r, t, arg, n);
  case IORING_REGISTER_EVENTFD:
  case IORING_REGISTER_EVENTFD_ASYNC:
    return register_eventfd(r, t, arg, n, opcode == IORING_REGISTER_EVENTFD_ASYNC);
  case IORING_UNREGISTER_EVENTFD:
    return arg || n ? -EINVAL : unregister_eventfd(r);
  case IORING_REGISTER_PROBE:
    return arg && n <= 256 ? probe(t, arg, n) : -EINVAL;
  case IORING_REGISTER_ENABLE_RINGS:
    return enable(r, arg, n);
  default:
    return -EINVAL;
  }
}

void uring_unregister_all(Ring *r) {
  unregister_files(r);
  unregister_buffers(r);
  unregister_eventfd(r);
}
