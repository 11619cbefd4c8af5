/* SPDX-License-Identifier: Apache-2.0 */
/* eventfd(2): a counter that is read, written and polled. */
#include <core/file/file.h>

#define EVENTFD_FULL (G_MAXUINT64 - 1) /* highest value the counter may reach */

typedef struct {
  TesFile file;
  TesMutex lock;
  guint64 count;
  gboolean semaphore;
} EventFd;

static const TesLockClass eventfd_class = {"eventfd", TES_RANK_FILE, FALSE, "counter of an eventfd"};

static gssize eventfd_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  EventFd *e = (EventFd *)f;
  if (iov->left < 8)
    return -EINVAL;
  tes_mutex_lock(&e->lock);
  guint64 v = e->semaphore ? MIN(e->count, 1) : e->count;
  e->count -= v;
  tes_mutex_unlock(&e->lock);
  if (v == 0)
    return -EAGAIN;
  tes_queue_notify(f->queue, POLLOUT | POLLWRNORM);
  return tes_iov_write_to(iov, &v, 8);
}

static gssize eventfd_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  EventFd *e = (EventFd *)f;
  guint64 v;
  if (iov->left < 8)
    return -EINVAL;
  TesIov saved = *iov; /* asked again after waiting: the cursor must not have moved */
  gssize r = tes_iov_read_from(iov, &v, 8);
  if (r != 8)
    return r < 0 ? r : -EFAULT;
  if (v == G_MAXUINT64)
    return -EINVAL;
  tes_mutex_lock(&e->lock);
  gboolean fits = v <= EVENTFD_FULL - e->count;
  if (fits)
    e->count += v;
  tes_mutex_unlock(&e->lock);
  if (!fits) {
    *iov = saved;
    return -EAGAIN;
  }
  if (v)
    tes_queue_notify(f->queue, POLLIN | POLLRDNORM);
  return 8;
}

static guint eventfd_poll(TesFile *f) {
  EventFd *e = (EventFd *)f;
  TES_LOCKED(&e->lock);
  return (e->count > 0 ? POLLIN | POLLRDNORM : 0) | (e->count < EVENTFD_FULL ? POLLOUT | POLLWRNORM : 0);
}

/* As lseek(2) has it for such files: accepted, without effect. */
static goffset eventfd_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) { return 0; }

static char *eventfd_fdinfo(TesFile *f) {
  EventFd *e = (EventFd *)f;
  TES_LOCKED(&e->lock);
  return g_strdup_printf("eventfd-count: %16" G_GINT64_MODIFIER "x\neventfd-id: %" G_GUINT64_FORMAT
                         "\neventfd-semaphore: %d\n",
                         e->count, f->id, e->semaphore);
}

static void eventfd_release(TesFile *f) {
  tes_mutex_clear(&((EventFd *)f)->lock);
  g_free(f);
}

static const TesFileOps eventfd_ops = {
    .size = sizeof(TesFileOps),
    .name = "eventfd",
    .read = eventfd_read,
    .write = eventfd_write,
    .poll = eventfd_poll,
    .seek = eventfd_seek,
    .fdinfo = eventfd_fdinfo,
    .release = eventfd_release,
};

int tes_eventfd_new(TesKernel *kernel, guint64 count, gboolean semaphore, guint flags, TesFile **out) {
  EventFd *e = g_new0(EventFd, 1);
  tes_file_init(&e->file, kernel, &eventfd_ops, O_RDWR | flags);
  tes_mutex_init(&e->lock, &eventfd_class);
  e->count = count;
  e->semaphore = semaphore;
  *out = &e->file;
  return 0;
}
