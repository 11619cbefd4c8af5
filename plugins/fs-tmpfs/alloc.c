/* SPDX-License-Identifier: Apache-2.0 */
/* fallocate(2), SEEK_DATA and SEEK_HOLE, and the seals of memfd_create(2). */
#include "tmpfs.h"
#include <fcntl.h>
#include <linux/falloc.h>

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#define ALL_SEALS \
  (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC)

/* ---- fallocate ---- */

static goffset whole_pages(goffset size) {
  return size > G_MAXINT64 - (goffset)TES_PAGE_SIZE ? G_MAXINT64 : (goffset)TES_PAGE_UP((gulong)size);
}

static int punch(Node *n, goffset off, goffset len) {
  Data *d = &n->data;
  if (d->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
    return -EPERM;
  goffset end = off + len, whole = whole_pages(off), whole_end = end & (goffset)TES_PAGE_MASK;
  if (whole < whole_end)
    tes_map_source_invalidate(&d->source, whole, whole_end - whole, FALSE);
  TES_LOCKED(&d->lock);
  Chunk *c = chunk_find(n, off);
  goffset at = off;
  if (c && c->start < off) {
    at = chunk_end(c);
    chunk_punch(n, c, off, (gsize)(MIN(end, at) - off)); /* may free it */
  }
  while ((c = chunk_next(n, at)) && c->start < end) {
    at = chunk_end(c);
    goffset start = c->start;
    chunk_punch(n, c, start, (gsize)(MIN(end, at) - start));
  }
  return 0;
}

/* Pages of [off, end) that hold something. */
static guint64 count_used(Node *n, goffset off, goffset end) {
  guint64 used = 0;
  Chunk *c = chunk_find(n, off);
  for (c = c ? c : chunk_next(n, off); c && c->start < end; c = chunk_next(n, chunk_end(c))) {
    goffset p = MAX(off, c->start);
    used += chunk_count(c, p, (gsize)(MIN(end, chunk_end(c)) - p));
  }
  return used;
}

/* All or nothing, as far as size= is concerned: what has been had is given back. */
static int preallocate(Node *n, goffset off, goffset len) {
  TES_LOCKED(&n->data.lock);
  goffset start = off & (goffset)TES_PAGE_MASK, end = whole_pages(off + len);
  guint64 pages = (guint64)(end - start) / TES_PAGE_SIZE;
  Tmpfs *fs = tmpfs_of(n);
  guint64 memory = tes_memfile_limit(tes_kernel_memfile(fs->super.kernel)) / TES_PAGE_SIZE;
  guint64 fresh = pages - MIN(pages, count_used(n, start, end));
  if (pages > memory || pages_take(fs, fresh, TRUE) != fresh)
    return -ENOSPC;
  pages_give(fs, fresh); /* nobody else allocates in this file meanwhile, and chunk_use() takes them again */
  for (goffset p = start, next; p < end; p = next) {
    Chunk *c = chunk_make(n, p);
    if (!c)
      return -ENOSPC;
    next = MIN(chunk_end(c), end);
    if (chunk_use(n, c, p, (gsize)(next - p), TRUE) < (gsize)(next - p))
      return -ENOSPC;
  }
  return 0;
}

/* Linux has no other modes on tmpfs either. */
int file_fallocate(TesFile *f, TesCtx *ctx, int mode, goffset off, goffset len) {
  (void)ctx;
  Node *n = node_of(f->inode);
  Data *d = &n->data;
  TES_LOCKED(&n->lock);
  gboolean hole = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  if (!hole && (mode & ~FALLOC_FL_KEEP_SIZE))
    return -EOPNOTSUPP;
  gboolean beyond = !hole && off + len > d->size;
  if (beyond && (d->seals & F_SEAL_GROW))
    return -EPERM;
  int r = hole ? punch(n, off, len) : preallocate(n, off, len);
  if (r < 0)
    return r;
  if (beyond && !(mode & FALLOC_FL_KEEP_SIZE))
    data_set_size(n, off + len);
  node_modified(n);
  return 0;
}

/* ---- Holes ---- */

static goffset seek_in_chunk(const Chunk *c, goffset off, goffset end, gboolean data) {
  while (off < end && chunk_is_data(c, off) != data)
    off = (off & (goffset)TES_PAGE_MASK) + (goffset)TES_PAGE_SIZE;
  return off;
}

goffset file_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  (void)ctx;
  Node *n = node_of(f->inode);
  if (whence != SEEK_DATA && whence != SEEK_HOLE)
    return -EOPNOTSUPP;
  TES_LOCKED(&n->data.lock);
  goffset size = n->data.size;
  if (off < 0 || off >= size)
    return -ENXIO;
  gboolean data = whence == SEEK_DATA;
  while (off < size) {
    const Chunk *c = chunk_find(n, off);
    if (c) {
      goffset end = MIN(chunk_end(c), size);
      off = seek_in_chunk(c, off, end, data);
      if (off < end)
        return off;
    } else if (!data) {
      return off;
    } else if ((c = chunk_next(n, off))) {
      off = c->start;
    } else {
      break;
    }
  }
  return data ? -ENXIO : size;
}

/* ---- Seals ---- */

int file_seals(TesFile *f, TesCtx *ctx, int op, guint seals) {
  (void)ctx;
  Node *n = node_of(f->inode);
  TES_LOCKED(&n->lock);
  if (op == TES_SEALS_GET)
    return (int)n->data.seals;
  if (op == TES_SEALS_RESET) {
    n->data.seals = seals;
    return 0;
  }
  if (seals & ~(guint)ALL_SEALS)
    return -EINVAL;
  if (n->data.seals & F_SEAL_SEAL)
    return -EPERM;
  /* What may be executed must not change afterwards (memfd_create(2)). */
  if ((seals & F_SEAL_EXEC) && (n->inode.mode & 0111))
    seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
  if ((seals & F_SEAL_WRITE) && !(n->data.seals & F_SEAL_WRITE) &&
      tes_map_source_has_writers(&n->data.source))
    return -EBUSY;
  n->data.seals |= seals;
  return 0;
}
