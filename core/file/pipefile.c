/* SPDX-License-Identifier: Apache-2.0 */
/* The file operations of a pipe's ends, and pipe(2). All ends share the pipe's wait queue. */
#include <core/file/pipe.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/ioctl.h>

static TesPipe *pipe_of(TesFile *f) { return ((TesPipeFile *)f)->pipe; }

static gssize pipe_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TesPipe *p = pipe_of(f);
  guint events = 0;
  tes_mutex_lock(&p->lock);
  gssize r = tes_pipe_drain(p, iov, &events);
  tes_mutex_unlock(&p->lock);
  if (events)
    tes_queue_notify(&p->queue, events);
  return r;
}

static gssize pipe_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TesPipe *p = pipe_of(f);
  guint events = 0;
  tes_mutex_lock(&p->lock);
  gssize r = tes_pipe_fill(p, iov, (g_atomic_int_get((gint *)&f->flags) & O_DIRECT) != 0, &events);
  tes_mutex_unlock(&p->lock);
  if (events)
    tes_queue_notify(&p->queue, events);
  return r;
}

static guint pipe_poll(TesFile *f) {
  TesPipe *p = pipe_of(f);
  guint mask = 0, state = __atomic_load_n(&p->state, __ATOMIC_ACQUIRE);
  if (tes_file_readable(f)) {
    if (state & PIPE_DATA)
      mask |= POLLIN | POLLRDNORM;
    if ((state & PIPE_NO_WRITERS) &&
        ((TesPipeFile *)f)->w_seen != __atomic_load_n(&p->w_counter, __ATOMIC_RELAXED))
      mask |= POLLHUP;
  }
  if (tes_file_writable(f)) {
    if (state & PIPE_SPACE)
      mask |= POLLOUT | POLLWRNORM;
    if (state & PIPE_NO_READERS)
      mask |= POLLERR;
  }
  return mask;
}

static glong pipe_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  if (cmd != FIONREAD)
    return -ENOTTY;
  TesPipe *p = pipe_of(f);
  tes_mutex_lock(&p->lock);
  int n = (int)tes_pipe_len(p);
  tes_mutex_unlock(&p->lock);
  return tes_copy_out(t, arg, &n, sizeof n);
}

static glong set_size(TesPipe *p, gulong size) {
  if (size > 1UL << 31)
    return -EINVAL;
  gsize cap = TES_PAGE_SIZE;
  while (cap < size)
    cap *= 2;
  if (cap > TES_PIPE_MAX)
    return -EPERM;
  guint events = 0;
  tes_mutex_lock(&p->lock);
  gboolean more = cap > p->cap;
  int r = tes_pipe_resize(p, cap);
  if (r == 0 && more)
    events = POLLOUT | POLLWRNORM | TES_POLL_ROOM;
  tes_mutex_unlock(&p->lock);
  if (events)
    tes_queue_notify(&p->queue, events);
  return r < 0 ? r : (glong)cap;
}

static glong pipe_fcntl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  TesPipe *p = pipe_of(f);
  switch (cmd) {
  case F_GETPIPE_SZ: {
    TES_LOCKED(&p->lock);
    return (glong)p->cap;
  }
  case F_SETPIPE_SZ:
    return set_size(p, arg);
  default:
    return -EINVAL;
  }
}

static int pipe_getattr(TesFile *f, TesCtx *ctx, TesAttr *a) {
  if (f->inode)
    return TES_HAS(f->inode->ops, getattr) ? f->inode->ops->getattr(f->inode, ctx, a) : -EIO;
  TesPipe *p = pipe_of(f);
  struct timespec ts = {p->created / TES_NSEC, p->created % TES_NSEC};
  *a = (TesAttr){.mode = S_IFIFO | 0600,
                 .nlink = 1,
                 .uid = p->uid,
                 .gid = p->gid,
                 .blksize = 4096,
                 .ino = p->ino,
                 .atime = ts,
                 .mtime = ts,
                 .ctime = ts};
  return 0;
}

static char *pipe_describe(TesFile *f) {
  return g_strdup_printf("pipe:[%" G_GUINT64_FORMAT "]", pipe_of(f)->ino);
}

static void pipe_release(TesFile *f) {
  TesPipe *p = pipe_of(f);
  guint events = 0;
  tes_mutex_lock(&p->lock);
  if (tes_file_readable(f) && --p->readers == 0)
    events |= POLLOUT | POLLWRNORM | POLLERR;
  if (tes_file_writable(f) && --p->writers == 0)
    events |= POLLIN | POLLRDNORM | POLLHUP;
  tes_pipe_publish(p);
  tes_mutex_unlock(&p->lock);
  if (events)
    tes_queue_notify(&p->queue, events);
  tes_pipe_unref(p);
  g_free(f);
}

static int pipe_reopen(TesFile *f, TesCtx *ctx, guint flags, TesFile **out) {
  *out = tes_pipe_open(pipe_of(f), ctx->kernel, flags);
  tes_queue_notify(f->queue, TES_POLL_PEER);
  return 0;
}

const TesFileOps tes_pipe_ops = {
    .size = sizeof(TesFileOps),
    .name = "pipe",
    .flags = TES_FILE_STREAM | TES_FILE_ROOM,
    .read = pipe_read,
    .write = pipe_write,
    .poll = pipe_poll,
    .ioctl = pipe_ioctl,
    .getattr = pipe_getattr,
    .describe = pipe_describe,
    .release = pipe_release,
    .fcntl = pipe_fcntl,
    .reopen = pipe_reopen,
};

TesPipe *tes_file_pipe(TesFile *f) { return f->ops == &tes_pipe_ops ? pipe_of(f) : NULL; }

TesFile *tes_pipe_open(TesPipe *p, TesKernel *kernel, guint flags) {
  TesPipeFile *pf = g_new0(TesPipeFile, 1);
  tes_file_init(&pf->file, kernel, &tes_pipe_ops, flags);
  pf->pipe = tes_pipe_ref(p);
  pf->file.queue = &p->queue;
  tes_mutex_lock(&p->lock);
  if (tes_file_readable(&pf->file)) {
    p->readers++;
    p->r_counter++;
  }
  if (tes_file_writable(&pf->file)) {
    p->writers++;
    __atomic_store_n(&p->w_counter, p->w_counter + 1, __ATOMIC_RELAXED);
  }
  gboolean reads = tes_file_readable(&pf->file);
  pf->alone = (reads ? p->writers : p->readers) == 0;
  pf->peers_seen = reads ? p->w_counter : p->r_counter;
  tes_pipe_publish(p);
  tes_mutex_unlock(&p->lock);
  return &pf->file;
}

int tes_pipe_new(TesKernel *kernel, TesCtx *ctx, guint flags, TesFile *out[2]) {
  TesCred *c = ctx ? tes_ctx_cred(ctx) : NULL;
  TesPipe *p = tes_pipe_alloc(c ? c->fsuid : 0, c ? c->fsgid : 0);
  flags &= O_NONBLOCK | O_DIRECT;
  out[0] = tes_pipe_open(p, kernel, O_RDONLY | flags);
  out[1] = tes_pipe_open(p, kernel, O_WRONLY | flags);
  p->ino = out[0]->ino;
  out[1]->ino = p->ino;
  p->created = kernel ? tes_time_realtime(kernel) : 0;
  tes_pipe_unref(p);
  return 0;
}

const TesStateOps tes_state_pipe = {.size = sizeof(TesStateOps), .section = "pipe", .version = 1};
