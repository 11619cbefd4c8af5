/* SPDX-License-Identifier: Apache-2.0 */
/* Open host files and directories. Data moves between the host's descriptor and pinned guest memory without a copy. */
#include "host.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MAX_VEC 64
#define MAX_STEP (4UL << 20)
#define DENTS_BUF 32768

typedef struct {
  TesFile file;
  HostInode *i;
  int slot, fd; /* regular: pinned as long as the file is open */
  /* directory: a stream of its own, made when it is first read; position lock */
  int stream;
  goffset stream_pos;
  char *buf;
} HostFile;

static HostFile *of(TesFile *f) { return (HostFile *)f; }

/* ---- Regular files ---- */

typedef enum { MOVE_READ, MOVE_WRITE, MOVE_APPEND } Move;

/* Moves what one pinned stretch holds; *asked is what was tried. */
static gssize move_once(HostFile *h, TesIov *iov, goffset at, Move how, gsize *asked) {
  gboolean write = how != MOVE_READ;
  struct iovec v[MAX_VEC];
  TesIovPin *pin;
  int n = tes_iov_pin(iov, MAX_STEP, !write, v, MAX_VEC, &pin);
  if (n < 0)
    return n;
  *asked = 0;
  for (int k = 0; k < n; k++)
    *asked += v[k].iov_len;
  /* Appending is atomic in the host: no lock of ours is held over guest memory. */
  gssize r = write ? pwritev2(h->fd, v, n, at, how == MOVE_APPEND ? RWF_APPEND : 0) : preadv(h->fd, v, n, at);
  if (r < 0)
    r = -errno;
  if (write)
    tes_iov_unpin(pin);
  else
    tes_iov_unpin_written(iov, v, (gsize)MAX(r, 0), pin);
  if (r > 0)
    tes_iov_advance(iov, (gsize)r);
  return r;
}

static gssize move_all(HostFile *h, TesIov *iov, goffset *pos, Move how) {
  gssize done = 0;
  while (iov->left) {
    gsize asked;
    gssize r = move_once(h, iov, *pos + done, how, &asked);
    if (r < 0 && r != -EINTR) {
      if (!done)
        return r;
      break;
    }
    done += MAX(r, 0);
    if (r >= 0 && (gsize)r < asked)
      break;
  }
  *pos += done;
  return done;
}

static gssize host_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx, (void)flags;
  char none;
  if (!iov->left && pread(of(f)->fd, &none, 0, *pos) < 0) /* no bytes, but the access time */
    return -errno;
  return move_all(of(f), iov, pos, MOVE_READ);
}

static gssize host_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx;
  HostFile *h = of(f);
  gboolean append = (flags & TES_RW_APPEND) != 0;
  gssize r = move_all(h, iov, pos, append ? MOVE_APPEND : MOVE_WRITE);
  struct stat st;
  if (r > 0 && append && fstat(h->fd, &st) == 0)
    *pos = st.st_size;
  if (r > 0)
    host_attr_stale(h->i);
  if (r > 0 && (flags & TES_RW_SYNC) && fdatasync(h->fd) < 0)
    return -errno;
  return r;
}

static goffset host_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  (void)ctx;
  struct stat st;
  goffset base = 0;
  if (whence == SEEK_DATA || whence == SEEK_HOLE) {
    /* The descriptor is shared, but nobody uses its position. */
    goffset r = off < 0 ? -ENXIO : lseek(of(f)->fd, off, whence);
    return r < 0 && off >= 0 ? -errno : r;
  }
  if (whence == SEEK_CUR)
    base = f->pos;
  if (whence == SEEK_END) {
    if (fstat(of(f)->fd, &st) < 0)
      return -errno;
    base = st.st_size;
  }
  return __builtin_add_overflow(base, off, &off) ? -EOVERFLOW : off < 0 ? -EINVAL : off;
}

static int host_file_map(TesFile *f, TesCtx *ctx, guint prot, gboolean shared, TesMapSource **out) {
  (void)ctx, (void)prot;
  HostFile *h = of(f);
  if (host_super(h->i)->rw) { /* mapping counts as a read even if no page is ever mapped for the guest */
    void *p = mmap(NULL, TES_PAGE_SIZE, PROT_READ, MAP_SHARED, h->fd, 0);
    if (p != MAP_FAILED)
      munmap(p, TES_PAGE_SIZE);
    host_attr_stale(h->i);
  }
  /* A shared mapping of a writable description may be made writable later by mprotect. */
  return host_map(of(f)->i, shared && (f->flags & O_ACCMODE) == O_RDWR && host_super(of(f)->i)->rw, out);
}

static int host_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  (void)ctx;
  HostFile *h = of(f);
  if (!host_super(h->i)->rw)
    return 0;
  return (data_only ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? -errno : 0;
}

static int host_fallocate(TesFile *f, TesCtx *ctx, int mode, goffset off, goffset len) {
  (void)ctx;
  HostFile *h = of(f);
  if (fallocate(h->fd, mode, off, len) < 0)
    return -errno;
  host_attr_stale(h->i);
  return 0;
}

/* ---- Directories ---- */

static int open_stream(HostFile *h) {
  int fd = host_fd_get(h->i, SLOT_READ);
  if (fd < 0)
    return fd;
  h->stream = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int r = h->stream < 0 ? -errno : 0;
  host_fd_put(h->i, SLOT_READ);
  h->stream_pos = 0;
  return r;
}

/* Hands one buffer of host entries on, as far as the caller has room. */
static void emit(HostFile *h, gssize n, goffset *pos, TesDirFill fill, gpointer data) {
  gboolean root = !h->i->parent;
  for (gssize at = 0; at < n;) {
    struct dirent64 *d = (struct dirent64 *)(h->buf + at);
    guint64 ino = root && g_str_equal(d->d_name, "..") ? h->i->base.ino : d->d_ino;
    if (!fill(data, d->d_name, strlen(d->d_name), ino, d->d_type, d->d_off)) {
      h->stream_pos = -1; /* the host's position is ahead of what was taken */
      return;
    }
    *pos = d->d_off;
    at += d->d_reclen;
  }
  h->stream_pos = *pos;
}

static int read_hidden(HostFile *h, goffset *pos, TesDirFill fill, gpointer data) {
  for (; *pos < 2; ++*pos) {
    const HostInode *i = *pos == 1 && h->i->parent ? h->i->parent : h->i;
    if (!fill(data, *pos ? ".." : ".", (gsize)*pos + 1, i->base.ino, DT_DIR, *pos + 1))
      break;
  }
  return 0;
}

/* One buffer of the host's at a time: whoever wants more comes again, and is told of the end then. */
static int host_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  HostFile *h = of(f);
  if (h->i->hidden)
    return read_hidden(h, pos, fill, data);
  int r = h->stream < 0 ? open_stream(h) : 0;
  if (r < 0)
    return r;
  if (h->stream_pos != *pos && lseek(h->stream, *pos, SEEK_SET) < 0)
    return -errno;
  if (!h->buf)
    h->buf = g_malloc(DENTS_BUF);
  gssize n = syscall(SYS_getdents64, h->stream, h->buf, DENTS_BUF);
  if (n < 0)
    return -errno;
  if (n > 0)
    emit(h, n, pos, fill, data);
  return 0;
}

static int dir_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  (void)ctx, (void)data_only;
  HostFile *h = of(f);
  if (!host_super(h->i)->rw)
    return 0;
  int r = h->stream < 0 ? open_stream(h) : 0;
  return r < 0 ? r : fsync(h->stream) < 0 ? -errno : 0;
}

/* ---- Both ---- */

static void host_release(TesFile *f) {
  HostFile *h = of(f);
  if (h->fd >= 0)
    host_fd_put(h->i, h->slot);
  if (h->stream >= 0)
    close(h->stream);
  tes_inode_unref(&h->i->base);
  g_free(h->buf);
  g_free(h);
}

static const TesFileOps file_ops = {.size = sizeof(TesFileOps),
                                    .name = "host",
                                    .flags = TES_FILE_SEEKABLE,
                                    .read = host_read,
                                    .write = host_write,
                                    .seek = host_seek,
                                    .map = host_file_map,
                                    .fsync = host_fsync,
                                    .fallocate = host_fallocate,
                                    .release = host_release};
static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "host-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = host_readdir,
                                   .fsync = dir_fsync,
                                   .release = host_release};

int host_open(TesInode *base, TesCtx *ctx, guint flags, TesFile **out) {
  HostInode *i = host_inode(base);
  gboolean dir = S_ISDIR(base->mode);
  if (i->hidden && !dir)
    return -EACCES;
  int slot = (flags & O_ACCMODE) == O_RDONLY ? SLOT_READ : SLOT_WRITE, fd = -1;
  gboolean known = dir || (fd = host_fd_get_open(i, slot)) >= 0;
  if (!known)
    fd = host_fd_get(i, slot);
  if (!dir && fd < 0)
    return fd;
  if (known)
    host_attr_refresh(i);
  HostFile *h = g_new0(HostFile, 1);
  tes_file_init(&h->file, ctx->kernel, dir ? &dir_ops : &file_ops, flags);
  h->i = host_inode(tes_inode_ref(base));
  h->slot = slot;
  h->fd = fd;
  h->stream = -1;
  *out = &h->file;
  return 0;
}
