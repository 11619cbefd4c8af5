/* SPDX-License-Identifier: Apache-2.0 */
/* Open FUSE files and directories. Contents are not cached: each read and write is a request, as with FOPEN_DIRECT_IO. Private
 * mappings (programs, libraries) see a copy of the contents as they were when the file was mapped, kept until size or
 * modification time change; a shared writable mapping is refused with ENODEV, as for direct I/O. */
#include "fuse.h"
#include <sys/mman.h>

#define MAX_MAPPED (256 << 20) /* bytes of a file that may be mapped */

typedef struct {
  TesFile file;
  FuseInode *i; /* counted */
  guint64 fh;
  guint32 open_flags; /* FOPEN_* */
  gboolean opened;    /* the server was told, and shall be told of the end */
} File;

static File *of(TesFile *f) { return (File *)f; }
static FuseConn *conn_of(TesFile *f) { return fuse_conn(&of(f)->i->inode); }

/* ---- Contents ---- */

static gssize read_chunk(TesFile *f, TesCtx *ctx, guint32 opcode, guint64 off, gsize n, GBytes **reply) {
  FuseConn *c = conn_of(f);
  struct fuse_read_in in = {
      .fh = of(f)->fh, .offset = off, .size = (guint32)MIN(n, c->max_read), .flags = f->flags};
  const FusePiece p = FUSE_ARG(in);
  int r = fuse_call(c, ctx, opcode, of(f)->i->node, &p, 1, 0, reply);
  if (r < 0)
    return r;
  gsize got = g_bytes_get_size(*reply);
  if (got <= in.size)
    return (gssize)got;
  g_clear_pointer(reply, g_bytes_unref);
  return -EIO;
}

static gssize file_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  gssize done = 0;
  while (iov->left) {
    g_autoptr(GBytes) reply = NULL;
    gsize want = MIN(iov->left, conn_of(f)->max_read);
    gssize n = read_chunk(f, ctx, FUSE_READ, (guint64)*pos, want, &reply);
    if (n > 0)
      n = tes_iov_write_to(iov, g_bytes_get_data(reply, NULL), (gsize)n);
    if (n < 0)
      return done ? done : n;
    done += n;
    *pos += n;
    if ((gsize)n < want)
      break;
  }
  return done;
}

static gssize write_chunk(TesFile *f, TesCtx *ctx, const void *data, gsize n, guint64 off) {
  struct fuse_write_in in = {.fh = of(f)->fh, .offset = off, .size = (guint32)n, .flags = f->flags};
  const FusePiece p[] = {FUSE_ARG(in), {data, n}};
  g_autoptr(GBytes) reply = NULL;
  struct fuse_write_out o = {0};
  int r = fuse_call(conn_of(f), ctx, FUSE_WRITE, of(f)->i->node, p, 2, sizeof o, &reply);
  if (r < 0)
    return r;
  fuse_bytes_copy(reply, &o, sizeof o);
  return o.size <= n ? (gssize)o.size : -EIO;
}

static gssize file_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  FuseInode *i = of(f)->i;
  if (flags & TES_RW_APPEND) {
    int r = fuse_attr_refresh(i, ctx, TRUE);
    if (r < 0)
      return r;
    *pos = (goffset)fuse_size(i);
  }
  gssize done = 0, n = 0;
  gsize max = conn_of(f)->max_write;
  g_autofree guint8 *buf = g_malloc(MIN(iov->left, max) + 1);
  while (iov->left && n >= 0) {
    gsize want = MIN(iov->left, max);
    n = tes_iov_read_from(iov, buf, want);
    gsize have = n > 0 ? (gsize)n : 0;
    if (n > 0)
      n = write_chunk(f, ctx, buf, have, (guint64)*pos);
    if (n <= 0)
      break;
    done += n;
    *pos += n;
    if ((gsize)n < want)
      break;
  }
  fuse_attr_stale(i);
  return done ? done : n;
}

static goffset file_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    int r = whence == SEEK_END ? fuse_attr_refresh(of(f)->i, ctx, TRUE) : 0;
    return r < 0 ? r : -EOPNOTSUPP; /* the core's rule */
  }
  struct fuse_lseek_in in = {.fh = of(f)->fh, .offset = (guint64)off, .whence = (guint32)whence};
  const FusePiece p = FUSE_ARG(in);
  g_autoptr(GBytes) reply = NULL;
  struct fuse_lseek_out o = {0};
  int r = fuse_call_optional(conn_of(f), ctx, FUSE_LSEEK, of(f)->i->node, &p, 1, sizeof o, &reply);
  if (r == -ENOSYS) { /* all data, and a hole at the end */
    r = fuse_attr_refresh(of(f)->i, ctx, TRUE);
    goffset size = (goffset)fuse_size(of(f)->i);
    return r < 0 ? r : off < 0 || off >= size ? -ENXIO : whence == SEEK_DATA ? off : size;
  }
  if (r < 0)
    return r;
  fuse_bytes_copy(reply, &o, sizeof o);
  return o.offset <= G_MAXINT64 ? (goffset)o.offset : -EIO;
}

static int file_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  guint32 opcode = S_ISDIR(of(f)->i->inode.mode) ? FUSE_FSYNCDIR : FUSE_FSYNC;
  struct fuse_fsync_in in = {.fh = of(f)->fh, .fsync_flags = data_only ? FUSE_FSYNC_FDATASYNC : 0};
  const FusePiece p = FUSE_ARG(in);
  int r = fuse_call_optional(conn_of(f), ctx, opcode, of(f)->i->node, &p, 1, 0, NULL);
  return r == -ENOSYS ? 0 : r;
}

static int file_flush(TesFile *f, TesCtx *ctx) {
  struct fuse_flush_in in = {.fh = of(f)->fh};
  const FusePiece p = FUSE_ARG(in);
  int r = fuse_call_optional(conn_of(f), ctx, FUSE_FLUSH, of(f)->i->node, &p, 1, 0, NULL);
  return r == -ENOSYS ? 0 : r;
}

static int file_fallocate(TesFile *f, TesCtx *ctx, int mode, goffset off, goffset len) {
  struct fuse_fallocate_in in = {
      .fh = of(f)->fh, .offset = (guint64)off, .length = (guint64)len, .mode = (guint32)mode};
  const FusePiece p = FUSE_ARG(in);
  int r = fuse_call_optional(conn_of(f), ctx, FUSE_FALLOCATE, of(f)->i->node, &p, 1, 0, NULL);
  fuse_attr_stale(of(f)->i);
  return r == -ENOSYS ? -EOPNOTSUPP : r;
}

/* ---- Mapping ---- */

void fuse_map_drop(FuseInode *i) {
  TesMapSource *m = g_steal_pointer(&i->map);
  if (m)
    m->ops->unref(m);
}

/* Copies the whole file into fresh memory. */
static int copy_contents(TesFile *f, TesCtx *ctx, guint64 size, TesMapSource **out) {
  TesMapSource *m = tes_shm_source_new(f->kernel, MAX(TES_PAGE_UP(size), TES_PAGE_SIZE));
  if (!m)
    return -ENOMEM;
  guint64 at = 0;
  gssize n = 1;
  while (n > 0 && at < size) {
    g_autoptr(GBytes) reply = NULL;
    TesMapPiece piece;
    n = m->ops->piece(m, (goffset)TES_PAGE_DOWN(at), conn_of(f)->max_read + TES_PAGE_SIZE, TRUE, &piece);
    gsize in = at & ~TES_PAGE_MASK;
    if (n >= 0)
      n = read_chunk(f, ctx, FUSE_READ, at, MIN(piece.len - in, size - at), &reply);
    if (n > 0) {
      memcpy((char *)piece.window + in, g_bytes_get_data(reply, NULL), (gsize)n);
      at += (guint64)n;
    }
  }
  if (n < 0)
    m->ops->unref(m);
  else
    *out = m;
  return n < 0 ? (int)n : 0;
}

static int file_map(TesFile *f, TesCtx *ctx, guint prot, gboolean shared, TesMapSource **out) {
  FuseInode *i = of(f)->i;
  if (shared && (f->flags & O_ACCMODE) == O_RDWR)
    return -ENODEV;
  int r = fuse_attr_refresh(i, ctx, TRUE);
  if (r < 0)
    return r;
  tes_mutex_lock(&i->lock);
  struct timespec mtime = {(time_t)i->attr.mtime, i->attr.mtimensec};
  guint64 size = i->attr.size;
  if (i->map && (i->map_size != size || memcmp(&i->map_mtime, &mtime, sizeof mtime) != 0))
    fuse_map_drop(i);
  TesMapSource *m = i->map;
  if (m)
    m->ops->ref(m);
  tes_mutex_unlock(&i->lock);
  if (!m && size > MAX_MAPPED)
    return -ENOMEM;
  if (!m) {
    r = copy_contents(f, ctx, size, &m);
    if (r < 0)
      return r;
    TES_LOCKED(&i->lock);
    fuse_map_drop(i);
    i->map = m;
    m->ops->ref(m);
    i->map_size = size;
    i->map_mtime = mtime;
  }
  *out = m;
  return 0;
}

/* ---- Directories ---- */

/* Hands the entries of one reply on. 1: the caller is full. */
static int emit(GBytes *reply, goffset *pos, TesDirFill fill, gpointer data) {
  gsize n;
  const guint8 *p = g_bytes_get_data(reply, &n);
  while (n >= FUSE_NAME_OFFSET) {
    struct fuse_dirent d;
    memcpy(&d, p, FUSE_NAME_OFFSET);
    if (!d.namelen || d.namelen > TES_NAME_MAX ||
        memchr(p + FUSE_NAME_OFFSET, '/', MIN(d.namelen, n - FUSE_NAME_OFFSET)))
      return -EIO;
    gsize len = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d.namelen);
    if (FUSE_NAME_OFFSET + d.namelen > n)
      break;
    char name[TES_NAME_MAX + 1];
    memcpy(name, p + FUSE_NAME_OFFSET, d.namelen);
    name[d.namelen] = '\0';
    if (!fill(data, name, strlen(name), d.ino, d.type & 15, (goffset)d.off))
      return 1;
    *pos = (goffset)d.off;
    if (len >= n)
      break;
    p += len;
    n -= len;
  }
  return 0;
}

static int dir_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  for (;;) {
    g_autoptr(GBytes) reply = NULL;
    goffset before = *pos;
    gssize n = read_chunk(f, ctx, FUSE_READDIR, (guint64)*pos, 32 * TES_PAGE_SIZE, &reply);
    if (n <= 0)
      return (int)n;
    int r = emit(reply, pos, fill, data);
    if (r != 0)
      return r < 0 ? r : 0;
    if (*pos == before)
      return -EIO; /* it would never end */
  }
}

static goffset dir_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  goffset to = whence == SEEK_CUR ? f->pos + off : off;
  return whence == SEEK_END || to < 0 ? -EINVAL : to;
}

/* ---- Open and close ---- */

static void file_release(TesFile *f) {
  gboolean dir = S_ISDIR(of(f)->i->inode.mode);
  struct fuse_release_in in = {.fh = of(f)->fh, .flags = f->flags};
  const FusePiece p = FUSE_ARG(in);
  if (of(f)->opened)
    fuse_post(conn_of(f), NULL, dir ? FUSE_RELEASEDIR : FUSE_RELEASE, of(f)->i->node, &p, 1, TRUE);
  tes_inode_unref(&of(f)->i->inode);
  g_free(f);
}

static const TesFileOps file_ops = {.size = sizeof(TesFileOps),
                                    .name = "fuse-file",
                                    .flags = TES_FILE_SEEKABLE,
                                    .read = file_read,
                                    .write = file_write,
                                    .seek = file_seek,
                                    .map = file_map,
                                    .fsync = file_fsync,
                                    .flush = file_flush,
                                    .fallocate = file_fallocate,
                                    .release = file_release};
/* FOPEN_NONSEEKABLE, FOPEN_STREAM. */
static const TesFileOps stream_ops = {.size = sizeof(TesFileOps),
                                      .name = "fuse-file",
                                      .read = file_read,
                                      .write = file_write,
                                      .fsync = file_fsync,
                                      .flush = file_flush,
                                      .release = file_release};
static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "fuse-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .seek = dir_seek,
                                   .readdir = dir_readdir,
                                   .fsync = file_fsync,
                                   .release = file_release};

int fuse_open(TesInode *base, TesCtx *ctx, guint flags, TesFile **out) {
  gboolean dir = S_ISDIR(base->mode);
  guint32 opcode = dir ? FUSE_OPENDIR : FUSE_OPEN;
  struct fuse_open_in in = {.flags = flags & ~(guint)(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC)};
  const FusePiece p = FUSE_ARG(in);
  g_autoptr(GBytes) reply = NULL;
  struct fuse_open_out o = {0};
  int r = fuse_call_optional(fuse_conn(base), ctx, opcode, fuse_inode(base)->node, &p, 1, sizeof o, &reply);
  if (r < 0 && r != -ENOSYS)
    return r;
  if (r == 0)
    fuse_bytes_copy(reply, &o, sizeof o);
  File *f = g_new0(File, 1);
  gboolean stream = o.open_flags & (FOPEN_NONSEEKABLE | FOPEN_STREAM);
  tes_file_init(&f->file, ctx->kernel, dir ? &dir_ops : stream ? &stream_ops : &file_ops, flags);
  f->i = fuse_inode(tes_inode_ref(base));
  f->fh = o.fh;
  f->open_flags = o.open_flags;
  f->opened = r == 0;
  *out = &f->file;
  return 0;
}
