/* SPDX-License-Identifier: Apache-2.0 */
/* Files over inherited host descriptors: standard input, output and error, --preserve-fds.
 *
 * The host's file description is shared with whoever started us, so O_NONBLOCK is never set on it. Sockets are asked with
 * MSG_DONTWAIT; pipes are opened a second time through /proc, non-blocking, where the host allows it; for the rest poll(2) says whether a
 * bounded read or write can go ahead. Who must wait is woken by the kernel's event thread: a one-shot source on the
 * descriptor, made only while somebody is enlisted. Regular files keep using the host's own position, which others share. */
#include <core/file/file.h>
#include <glib-unix.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#define IO_CHUNK (256 * 1024) /* bytes of one host call */
#define TTY_CHUNK 256         /* what a terminal takes without blocking when poll says it is writable */
#define IOV_PIN 16

typedef enum { HOST_REGULAR, HOST_SOCKET, HOST_NONBLOCK, HOST_POLLED, HOST_TTY } HostKind;

typedef struct _HostFile HostFile;

/* Outlives the file while the event thread may still call it. */
typedef struct {
  gint refs;
  TesMutex lock;
  HostFile *file; /* NULL once released */
  guint armed;    /* POLL* the source waits for */
  GSource *source;
} HostWatch;

struct _HostFile {
  TesFile file;
  int fd;
  HostKind kind;
  HostWatch *watch;
  TesMapSource *map; /* one for all mappings; owned; atomic, set once */
};

static const TesLockClass host_class = {"host file", TES_RANK_FILE, FALSE,
                                        "readiness source of an inherited host descriptor"};

/* ---- Readiness ---- */

static void watch_unref(gpointer data) {
  HostWatch *w = data;
  if (!g_atomic_int_dec_and_test(&w->refs))
    return;
  tes_mutex_clear(&w->lock);
  g_free(w);
}

static gboolean ready(gint fd, GIOCondition cond, gpointer data) {
  HostWatch *w = data;
  TES_LOCKED(&w->lock);
  g_clear_pointer(&w->source, g_source_unref);
  /* The source is gone for the events that did not come, too: whoever waits for those looks again and arms a new one. */
  guint events = (guint)cond | w->armed;
  w->armed = 0;
  if (w->file)
    tes_queue_notify(w->file->file.queue,
                     events | (events & POLLIN ? POLLRDNORM : 0) | (events & POLLOUT ? POLLWRNORM : 0));
  return G_SOURCE_REMOVE;
}

/* Has the queue notified once any of `events` (POLLIN, POLLOUT) may be there. */
static void arm(HostFile *h, guint events) {
  HostWatch *w = h->watch;
  if (!h->file.kernel)
    return;
  TES_LOCKED(&w->lock);
  if ((w->armed & events) == events)
    return;
  if (w->source) {
    g_source_destroy(w->source);
    g_source_unref(w->source);
  }
  w->armed |= events;
  w->source = g_unix_fd_source_new(h->fd, (GIOCondition)(w->armed | POLLERR | POLLHUP));
  g_atomic_int_inc(&w->refs);
  g_source_set_callback(w->source, (GSourceFunc)(void (*)(void))ready, w, watch_unref);
  g_source_attach(w->source, tes_kernel_main_context(h->file.kernel));
}

static guint host_events(int fd, guint events) {
  struct pollfd p = {.fd = fd, .events = (short)events};
  return poll(&p, 1, 0) == 1 ? (guint)(gushort)p.revents : 0;
}

static gboolean has_waiters(TesFile *f) { return g_atomic_int_get(&f->queue->n) > 0; }

static guint stream_poll(TesFile *f) {
  HostFile *h = (HostFile *)f;
  guint want =
      (tes_file_readable(f) ? POLLIN | POLLPRI | POLLRDHUP : 0u) | (tes_file_writable(f) ? POLLOUT : 0u);
  guint mask = host_events(h->fd, want);
  guint missing = want & (POLLIN | POLLOUT) & ~mask;
  if (missing && !(mask & (POLLHUP | POLLERR)) && has_waiters(f))
    arm(h, missing);
  return mask | (mask & POLLIN ? POLLRDNORM : 0) | (mask & POLLOUT ? POLLWRNORM : 0);
}

/* ---- Moving bytes ---- */

static gssize host_call(HostFile *h, struct iovec *v, int n, gboolean writing, goffset *pos) {
  gssize r;
  struct msghdr m = {.msg_iov = v, .msg_iovlen = (gsize)n};
  do {
    if (h->kind == HOST_SOCKET)
      r = writing ? sendmsg(h->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) : recvmsg(h->fd, &m, MSG_DONTWAIT);
    else if (pos)
      r = writing ? pwritev(h->fd, v, n, *pos) : preadv(h->fd, v, n, *pos);
    else
      r = writing ? writev(h->fd, v, n) : readv(h->fd, v, n);
  } while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : r;
}

static gssize move(HostFile *h, TesIov *iov, gboolean writing, gsize max, goffset *pos) {
  struct iovec v[IOV_PIN];
  TesIovPin *pin = NULL;
  int n = tes_iov_pin(iov, max, !writing, v, IOV_PIN, &pin);
  if (n < 0)
    return n;
  gssize r = host_call(h, v, n, writing, pos);
  if (writing)
    tes_iov_unpin(pin);
  else
    tes_iov_unpin_written(iov, v, (gsize)MAX(r, 0), pin);
  if (r > 0)
    tes_iov_advance(iov, (gsize)r);
  return r;
}

static gssize stream_move(TesFile *f, TesIov *iov, gboolean writing) {
  HostFile *h = (HostFile *)f;
  guint events = writing ? POLLOUT : POLLIN;
  gsize max = IO_CHUNK;
  if (iov->left == 0)
    return 0;
  if (h->kind == HOST_POLLED || h->kind == HOST_TTY) {
    if (!host_events(h->fd, events)) {
      if (has_waiters(f))
        arm(h, events);
      return -EAGAIN;
    }
    if (writing)
      max = h->kind == HOST_TTY ? TTY_CHUNK : PIPE_BUF;
  }
  gssize r = move(h, iov, writing, max, NULL);
  if (r == -EAGAIN && has_waiters(f))
    arm(h, events);
  return r;
}

static gssize stream_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  return stream_move(f, iov, FALSE);
}

static gssize stream_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  gssize done = 0, r;
  do {
    r = stream_move(f, iov, TRUE);
    done += MAX(r, 0);
  } while (r > 0 && iov->left > 0);
  return done ? done : r;
}

static gssize regular_move(TesFile *f, TesIov *iov, goffset *pos, int flags, gboolean writing) {
  HostFile *h = (HostFile *)f;
  gssize done = 0, r = 0;
  while (iov->left > 0) {
    r = move(h, iov, writing, IO_CHUNK, (flags & TES_RW_PWRITE) ? pos : NULL);
    if (r <= 0)
      break;
    done += r;
    if (flags & TES_RW_PWRITE)
      *pos += r;
  }
  if (!(flags & TES_RW_PWRITE))
    *pos = MAX(lseek(h->fd, 0, SEEK_CUR), 0);
  if (done > 0 && writing && (flags & TES_RW_SYNC))
    fdatasync(h->fd);
  return done ? done : r;
}

static gssize regular_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  return regular_move(f, iov, pos, flags, FALSE);
}

static gssize regular_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  return regular_move(f, iov, pos, flags, TRUE);
}

static goffset regular_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  goffset r = lseek(((HostFile *)f)->fd, off, whence);
  return r < 0 ? -errno : r;
}

static int regular_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  int fd = ((HostFile *)f)->fd;
  return (data_only ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
}

static int regular_fallocate(TesFile *f, TesCtx *ctx, int mode, goffset off, goffset len) {
  return fallocate(((HostFile *)f)->fd, mode, off, len) < 0 ? -errno : 0;
}

static int regular_map(TesFile *f, TesCtx *ctx, guint prot, gboolean shared, TesMapSource **out) {
  HostFile *h = (HostFile *)f;
  TesMapSource *map = g_atomic_pointer_get(&h->map);
  if (!map) {
    TesMapSource *fresh = NULL;
    int r = tes_host_map_new(h->fd, tes_file_readable(f) && tes_file_writable(f), &fresh);
    if (r < 0)
      return r;
    if (!g_atomic_pointer_compare_and_exchange(&h->map, NULL, fresh))
      fresh->ops->unref(fresh);
    map = g_atomic_pointer_get(&h->map);
  }
  map->ops->ref(map);
  *out = map;
  return 0;
}

/* ---- Attributes and control ---- */

static guint64 host_dev(TesKernel *k) {
  static gsize dev; /* W3: inherited descriptors have a device of their own */
  if (g_once_init_enter(&dev))
    g_once_init_leave(&dev, (gsize)tes_kernel_new_dev(k));
  return dev;
}

static int host_getattr(TesFile *f, TesCtx *ctx, TesAttr *a) {
  struct stat st;
  if (fstat(((HostFile *)f)->fd, &st) < 0)
    return -errno;
  *a = (TesAttr){.mode = st.st_mode,
                 .nlink = (guint32)st.st_nlink,
                 .uid = st.st_uid,
                 .gid = st.st_gid,
                 .blksize = (guint32)st.st_blksize,
                 .ino = st.st_ino,
                 .size = (guint64)st.st_size,
                 .blocks = (guint64)st.st_blocks,
                 .dev = host_dev(f->kernel),
                 .rdev = st.st_rdev,
                 .atime = st.st_atim,
                 .mtime = st.st_mtim,
                 .ctime = st.st_ctim};
  return 0;
}

static int host_setattr(TesFile *f, TesCtx *ctx, const TesSetAttr *set) {
  HostFile *h = (HostFile *)f;
  if (set->valid & (TES_SET_UID | TES_SET_GID | TES_SET_MODE))
    return -EPERM;
  if ((set->valid & TES_SET_SIZE) && ftruncate(h->fd, set->size) < 0)
    return -errno;
  if (set->valid & (TES_SET_ATIME | TES_SET_MTIME)) {
    struct timespec ts[2] = {set->atime, set->mtime};
    if (!(set->valid & TES_SET_ATIME))
      ts[0].tv_nsec = UTIME_OMIT;
    if (!(set->valid & TES_SET_MTIME))
      ts[1].tv_nsec = UTIME_OMIT;
    if (futimens(h->fd, ts) < 0)
      return -errno;
  }
  return 0;
}

/* What a program may do to a host terminal: its modes and size, nothing that injects input or changes sessions. */
static const struct {
  guint cmd;
  guint8 size; /* of the argument; 0: a plain number */
  gboolean in, out;
} tty_ioctls[] = {
    {TCGETS, 36, FALSE, TRUE},  {TCSETS, 36, TRUE, FALSE},    {TCSETSW, 36, TRUE, FALSE},
    {TCSETSF, 36, TRUE, FALSE}, {TIOCGWINSZ, 8, FALSE, TRUE}, {TIOCSWINSZ, 8, TRUE, FALSE},
    {TIOCOUTQ, 4, FALSE, TRUE}, {TCFLSH, 0, FALSE, FALSE},    {TCXONC, 0, FALSE, FALSE},
    {TCSBRK, 0, FALSE, FALSE},
};

static glong tty_ioctl(HostFile *h, TesTask *t, guint cmd, gulong arg) {
  for (gsize i = 0; i < G_N_ELEMENTS(tty_ioctls); i++) {
    if (tty_ioctls[i].cmd != cmd)
      continue;
    guchar buf[64];
    if (tty_ioctls[i].in && tes_copy_in(t, buf, arg, tty_ioctls[i].size) < 0)
      return -EFAULT;
    if (ioctl(h->fd, cmd, tty_ioctls[i].size ? (gulong)buf : arg) < 0)
      return -errno;
    return tty_ioctls[i].out ? tes_copy_out(t, arg, buf, tty_ioctls[i].size) : 0;
  }
  return -ENOTTY;
}

static glong host_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  HostFile *h = (HostFile *)f;
  if (cmd == FIONREAD && h->kind != HOST_REGULAR) {
    int n;
    return ioctl(h->fd, FIONREAD, &n) < 0 ? -errno : tes_copy_out(t, arg, &n, sizeof n);
  }
  return h->kind == HOST_TTY ? tty_ioctl(h, t, cmd, arg) : -ENOTTY;
}

static char *host_describe(TesFile *f) { return g_strdup_printf("host:[%" G_GUINT64_FORMAT "]", f->ino); }

static void host_release(TesFile *f) {
  HostFile *h = (HostFile *)f;
  HostWatch *w = h->watch;
  tes_mutex_lock(&w->lock);
  w->file = NULL;
  GSource *source = g_steal_pointer(&w->source);
  tes_mutex_unlock(&w->lock);
  if (source) {
    g_source_destroy(source);
    g_source_unref(source);
  }
  watch_unref(w);
  if (h->map)
    h->map->ops->unref(h->map);
  close(h->fd);
  g_free(h);
}

/* Never more access than the inherited descriptor has. A regular file gets a position of its own. */
static int host_reopen(TesFile *f, TesCtx *ctx, guint flags, TesFile **out) {
  HostFile *h = (HostFile *)f;
  guint have = f->flags & O_ACCMODE, want = flags & O_ACCMODE;
  if (have != O_RDWR && have != want)
    return -EACCES;
  char path[64];
  g_snprintf(path, sizeof path, "/proc/self/fd/%d", h->fd);
  int fd = h->kind == HOST_REGULAR ? open(path, want | O_CLOEXEC) : fcntl(h->fd, F_DUPFD_CLOEXEC, 3);
  if (fd < 0)
    return -errno;
  *out = tes_host_file_new(ctx->kernel, fd, flags, NULL);
  if (!*out) {
    close(fd);
    return -ENXIO;
  }
  return 0;
}

/* Null devices and the like have a position of their own kind; pipes and terminals have none. */
static goffset stream_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  goffset r = lseek(((HostFile *)f)->fd, off, whence);
  return r < 0 ? -errno : r;
}

static const TesFileOps stream_ops = {
    .size = sizeof(TesFileOps),
    .name = "host",
    .flags = TES_FILE_STREAM,
    .read = stream_read,
    .write = stream_write,
    .poll = stream_poll,
    .seek = stream_seek,
    .ioctl = host_ioctl,
    .getattr = host_getattr,
    .setattr = host_setattr,
    .describe = host_describe,
    .release = host_release,
    .reopen = host_reopen,
};

static const TesFileOps regular_ops = {
    .size = sizeof(TesFileOps),
    .name = "host",
    .flags = TES_FILE_SEEKABLE,
    .read = regular_read,
    .write = regular_write,
    .seek = regular_seek,
    .map = regular_map,
    .ioctl = host_ioctl,
    .fsync = regular_fsync,
    .fallocate = regular_fallocate,
    .getattr = host_getattr,
    .setattr = host_setattr,
    .describe = host_describe,
    .release = host_release,
    .reopen = host_reopen,
};

/* A second, non-blocking description of a host pipe, or -1. */
static int reopen_pipe(int fd, int access) {
  char path[64];
  g_snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, access | O_NONBLOCK | O_CLOEXEC);
}

static gboolean classify(HostFile *h, const struct stat *st, int access, GError **error) {
  switch (st->st_mode & S_IFMT) {
  case S_IFREG:
  case S_IFBLK:
    h->kind = HOST_REGULAR;
    return TRUE;
  case S_IFSOCK:
    h->kind = HOST_SOCKET;
    return TRUE;
  case S_IFCHR:
    h->kind = isatty(h->fd) ? HOST_TTY : HOST_POLLED;
    return TRUE;
  case S_IFIFO: {
    int again = reopen_pipe(h->fd, access);
    h->kind = again >= 0 ? HOST_NONBLOCK : HOST_POLLED;
    if (again >= 0) {
      close(h->fd);
      h->fd = again;
    }
    return TRUE;
  }
  case S_IFDIR:
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG,
                "descriptor %d is a directory: pass it with --bind instead", h->fd);
    return FALSE;
  default:
    h->kind = HOST_POLLED; /* eventfd, epoll, ... */
    return TRUE;
  }
}

TesFile *tes_host_file_new(TesKernel *kernel, int host_fd, guint flags, GError **error) {
  struct stat st;
  int status = fcntl(host_fd, F_GETFL);
  if (status < 0 || fstat(host_fd, &st) < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "descriptor %d cannot be used: %s", host_fd,
                g_strerror(errno));
    return NULL;
  }
  HostFile *h = g_new0(HostFile, 1);
  h->fd = host_fd;
  if (!classify(h, &st, status & O_ACCMODE, error)) {
    g_free(h);
    return NULL;
  }
  guint keep = (guint)status & (O_ACCMODE | O_APPEND);
  tes_file_init(&h->file, kernel, h->kind == HOST_REGULAR ? &regular_ops : &stream_ops,
                (flags & ~(guint)O_ACCMODE) | keep);
  if (h->kind == HOST_REGULAR)
    h->file.pos = MAX(lseek(h->fd, 0, SEEK_CUR), 0);
  h->watch = g_new0(HostWatch, 1);
  h->watch->refs = 1;
  h->watch->file = h;
  tes_mutex_init(&h->watch->lock, &host_class);
  return &h->file;
}
