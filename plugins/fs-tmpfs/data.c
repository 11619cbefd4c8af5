/* SPDX-License-Identifier: Apache-2.0 */
/* Contents of tmpfs files: chunks of the memory file, found by the first byte of their range.
 *
 * Locks: the node lock (INODE) is held around reads, writes, allocation and truncation. data.lock nests inside the mm's mapping
 * lock, because a page fault asks piece() for a page; it guards the chunk table, the size and the page count, and
 * is never held while guest memory is copied. */
#include "tmpfs.h"
#include <linux/falloc.h>
#include <sys/uio.h>

#define MIN_FILL (4 * TES_PAGE_SIZE) /* fill_fresh() pays from here on */
#define MAX_FILL_VEC 32
#define RANK_DATA (TES_RANK_MM_MAP + 2)
static const TesLockClass data_class = {"tmpfs data", RANK_DATA, FALSE,
                                        "chunk table, size and pages of a file"};

static goffset chunk_start(goffset off) {
  if ((gsize)off < SMALL_CHUNK)
    return (gsize)off < TES_PAGE_SIZE ? 0 : TES_PAGE_SIZE;
  return off & ~(goffset)(((gsize)off < SMALL_LIMIT ? SMALL_CHUNK : LARGE_CHUNK) - 1);
}
gsize chunk_size(goffset off) {
  if ((gsize)off >= SMALL_LIMIT)
    return LARGE_CHUNK;
  return (gsize)off >= SMALL_CHUNK     ? SMALL_CHUNK
         : (gsize)off >= TES_PAGE_SIZE ? SMALL_CHUNK - TES_PAGE_SIZE
                                       : TES_PAGE_SIZE;
}
static TesMemFile *memfile(const Node *n) { return tes_kernel_memfile(n->inode.super->kernel); }
static void *chunk_ptr(const Node *n, const Chunk *c, goffset off) {
  return tes_memfile_ptr(memfile(n), c->at + (off - c->start));
}

/* ---- Chunks; data.lock held ---- */

static void give_pages(Node *n, guint64 pages) {
  pages_give(tmpfs_of(n), pages);
  n->data.n_pages -= pages;
}

/* Bits are set under data.lock, and cleared with the node lock held as well: one that a holder of the node lock sees stays. */
static gboolean page_used(const Chunk *c, guint i) {
  return __atomic_load_n(&c->used[i / 64], __ATOMIC_RELAXED) >> i % 64 & 1;
}
static void page_set_used(Chunk *c, guint i) {
  __atomic_store_n(&c->used[i / 64], c->used[i / 64] | 1ULL << i % 64, __ATOMIC_RELAXED);
}
static gboolean page_blank(const Chunk *c, guint i) { return c->used[c->words + i / 64] >> i % 64 & 1; }
static void page_set_blank(Chunk *c, guint i, gboolean blank) {
  if (page_blank(c, i) == blank)
    return;
  c->used[c->words + i / 64] ^= 1ULL << i % 64;
  c->n_blank += blank ? 1 : -1u;
}
static guint page_of(const Chunk *c, goffset off) { return (guint)((off - c->start) / TES_PAGE_SIZE); }

Chunk *chunk_find(Node *n, goffset off) {
  if (off < TES_PAGE_SIZE)
    return n->data.first.at >= 0 ? &n->data.first : NULL;
  goffset start = chunk_start(off);
  return n->data.chunks ? g_tree_lookup(n->data.chunks, &start) : NULL;
}

Chunk *chunk_next(Node *n, goffset off) {
  if (off == 0 && n->data.first.at >= 0)
    return &n->data.first;
  GTreeNode *t = n->data.chunks ? g_tree_lower_bound(n->data.chunks, &off) : NULL;
  return t ? g_tree_node_value(t) : NULL;
}

static int by_start(gconstpointer a, gconstpointer b, gpointer data) {
  (void)data;
  goffset x = *(const goffset *)a, y = *(const goffset *)b;
  return x < y ? -1 : x > y;
}

Chunk *chunk_make(Node *n, goffset off) {
  Chunk *c = chunk_find(n, off);
  if (c)
    return c;
  gsize size = chunk_size(off), align = size & (size - 1) ? TES_PAGE_SIZE : size;
  goffset at = tes_memfile_alloc(memfile(n), size, align, 0, TES_MEM_FILE);
  if (at < 0)
    return NULL;
  if (off < TES_PAGE_SIZE) {
    n->data.first.at = at;
    return &n->data.first;
  }
  guint words = (guint)((size / TES_PAGE_SIZE + 63) / 64);
  c = g_malloc0(sizeof *c + 2 * words * sizeof c->used[0]);
  c->words = words;
  c->start = chunk_start(off);
  c->at = at;
  if (!n->data.chunks)
    n->data.chunks = g_tree_new_full(by_start, NULL, NULL, g_free);
  g_tree_insert(n->data.chunks, &c->start, c);
  return c;
}

guint64 chunk_count(const Chunk *c, goffset off, gsize len) {
  guint64 used = 0;
  for (guint i = page_of(c, off), last = page_of(c, off + (goffset)len - 1); i <= last; i++)
    used += page_used(c, i);
  return used;
}

gboolean chunk_is_data(const Chunk *c, goffset off) {
  return page_used(c, page_of(c, off)) && !page_blank(c, page_of(c, off));
}

/* Marks the pages of [off, off+len), inside one chunk, as used: the bytes there was room for, from the beginning. `blank`: fresh ones
 * hold nothing yet; otherwise none is blank afterwards. */
gsize chunk_use(Node *n, Chunk *c, goffset off, gsize len, gboolean blank) {
  guint first = page_of(c, off), last = page_of(c, off + (goffset)len - 1);
  guint64 fresh = last - first + 1 - chunk_count(c, off, len);
  for (guint i = first; !blank && c->n_blank && i <= last; i++)
    page_set_blank(c, i, FALSE);
  if (!fresh)
    return len;
  guint64 got = pages_take(tmpfs_of(n), fresh, FALSE);
  n->data.n_pages += got;
  for (guint i = first; i <= last; i++) {
    if (page_used(c, i))
      continue;
    if (!got)
      return (gsize)MAX(c->start + (goffset)i * (goffset)TES_PAGE_SIZE - off, 0);
    got--;
    page_set_used(c, i);
    page_set_blank(c, i, blank);
  }
  return len;
}

static void chunk_drop(Node *n, Chunk *c) {
  gsize size = chunk_size(c->start);
  give_pages(n, chunk_count(c, c->start, size));
  tes_memfile_unref(memfile(n), c->at, size);
  n->data.recent = NULL;
  if (c == &n->data.first) {
    c->at = -1;
    c->used[0] = c->used[1] = 0;
    c->n_blank = 0;
  } else {
    g_tree_remove(n->data.chunks, &c->start);
  }
}

/* [off, off+len), inside one chunk, reads as zeros again; whole pages are given back to the host, and the chunk's room if it is empty. */
void chunk_punch(Node *n, Chunk *c, goffset off, gsize len) {
  guint64 freed = 0;
  goffset first = TES_PAGE_UP((gulong)off), end = TES_PAGE_DOWN((gulong)off + len);
  for (goffset p = first; p < end; p += TES_PAGE_SIZE) {
    guint i = page_of(c, p);
    freed += page_used(c, i);
    __atomic_store_n(&c->used[i / 64], c->used[i / 64] & ~(1ULL << i % 64), __ATOMIC_RELAXED);
    page_set_blank(c, i, FALSE);
  }
  if (freed)
    give_pages(n, freed);
  if (!chunk_count(c, c->start, chunk_size(c->start)))
    chunk_drop(n, c);
  else
    fallocate(tes_memfile_fd(memfile(n)), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              c->at + (off - c->start), (goffset)len);
}

/* ---- Mapping ---- */

static Node *node_of_source(TesMapSource *s) {
  return (Node *)((char *)s - G_STRUCT_OFFSET(Node, data) - G_STRUCT_OFFSET(Data, source));
}
static void node_source_ref(TesMapSource *s) { tes_inode_ref(&node_of_source(s)->inode); }
static void node_source_unref(TesMapSource *s) { tes_inode_unref(&node_of_source(s)->inode); }

static int node_piece(TesMapSource *s, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  Node *n = node_of_source(s);
  (void)write; /* a hole gets its page either way: a later write through the mapping would not ask again */
  TES_LOCKED(&n->data.lock);
  goffset end = n->data.size > G_MAXINT64 - (goffset)TES_PAGE_SIZE
                    ? G_MAXINT64 & TES_PAGE_MASK
                    : (goffset)TES_PAGE_UP((gulong)n->data.size);
  if (off >= end)
    return -EFAULT;
  Chunk *c = chunk_make(n, off);
  if (!c)
    return -ENOMEM;
  gsize len = MIN(MIN(max, (gsize)(chunk_end(c) - off)), (gsize)(end - off));
  len = TES_PAGE_DOWN(chunk_use(n, c, off, len, FALSE));
  if (!len)
    return -ENOSPC;
  goffset at = c->at + (off - c->start);
  *out = (TesMapPiece){tes_memfile_fd(memfile(n)), at, tes_memfile_ptr(memfile(n), at), len};
  return 0;
}

static const TesMapSourceOps source_ops = {sizeof(TesMapSourceOps), node_piece, node_source_ref,
                                           node_source_unref};

static int file_map(TesFile *f, TesCtx *ctx, guint prot, gboolean shared, TesMapSource **out) {
  (void)ctx;
  Node *n = node_of(f->inode);
  TES_LOCKED(&n->lock);
  if (shared && (prot & PROT_WRITE) && (n->data.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
    return -EPERM;
  touch_atime(f, n);
  tes_inode_ref(f->inode);
  *out = &n->data.source;
  return 0;
}

/* ---- Size ---- */

void data_init(Node *n) {
  tes_mutex_init(&n->data.lock, &data_class);
  n->data.first.at = -1;
  n->data.first.words = 1;
  tes_map_source_init(&n->data.source, &source_ops);
  n->data.seals = F_SEAL_SEAL;
}

/* Nobody uses the node any more. */
void data_clear(Node *n) {
  Chunk *c;
  while ((c = chunk_next(n, 0)))
    chunk_drop(n, c);
  if (n->data.chunks)
    g_tree_unref(n->data.chunks);
  tes_map_source_clear(&n->data.source);
  tes_mutex_clear(&n->data.lock);
}

void data_set_size(Node *n, goffset size) {
  TES_LOCKED(&n->data.lock);
  n->data.size = size;
}

int data_truncate(Node *n, goffset size) {
  Data *d = &n->data;
  goffset old = d->size;
  if (size < 0)
    return -EINVAL;
  if ((size < old && (d->seals & F_SEAL_SHRINK)) || (size > old && (d->seals & F_SEAL_GROW)))
    return -EPERM;
  data_set_size(n, size);
  /* Pages beyond the end may have been allocated without growing the file: they go too, as on Linux. */
  if (size > old || (size == old && !d->n_pages))
    return 0;
  goffset gone = (goffset)TES_PAGE_UP((gulong)MIN(size, G_MAXINT64 - (goffset)TES_PAGE_SIZE));
  tes_map_source_invalidate(&d->source, gone, G_MAXINT64 - gone, TRUE);
  TES_LOCKED(&d->lock);
  Chunk *c = chunk_find(n, size);
  if (c && size > c->start)
    chunk_punch(n, c, size, (gsize)(chunk_end(c) - size));
  while ((c = chunk_next(n, size)))
    chunk_drop(n, c);
  return 0;
}

/* ---- Reading and writing ---- */

/* For reading, with the node lock instead of data.lock. */
static const Chunk *chunk_recent(Node *n, goffset off) {
  Data *d = &n->data;
  const Chunk *c = d->recent;
  if (c && off >= c->start && off < chunk_end(c))
    return c;
  tes_mutex_lock(&d->lock);
  c = chunk_find(n, off);
  tes_mutex_unlock(&d->lock);
  if (c)
    d->recent = c;
  return c;
}

static gssize file_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx, (void)flags;
  Node *n = node_of(f->inode);
  gssize total = 0;
  TES_LOCKED(&n->lock);
  touch_atime(f, n);
  while (iov->left && *pos < n->data.size) {
    gsize len = MIN(MIN(iov->left, (gsize)(n->data.size - *pos)),
                    chunk_size(*pos) - (gsize)(*pos - chunk_start(*pos)));
    const Chunk *c = chunk_recent(n, *pos);
    gssize r = c ? tes_iov_write_to(iov, chunk_ptr(n, c, *pos), len) : tes_iov_zero(iov, len);
    if (r < 0)
      return total ? total : r;
    total += r;
    *pos += r;
    if ((gsize)r < len)
      break;
  }
  return total;
}

/* The same where there was something before, without data.lock; NULL: ask room_for(). */
static void *room_again(const Node *n, goffset pos, gsize len) {
  const Chunk *c = n->data.recent;
  if (!c || c->n_blank || pos < c->start || pos + (goffset)len > chunk_end(c))
    return NULL;
  for (guint i = page_of(c, pos), last = page_of(c, pos + (goffset)len - 1); i <= last; i++)
    if (!page_used(c, i))
      return NULL;
  return chunk_ptr(n, c, pos);
}

/* Room for [pos, pos+*len) inside one chunk, or for as much of it as the filesystem has left: its address, or NULL (-ENOSPC).
 * *fresh: its last page held nothing. */
static void *room_for(Node *n, goffset pos, gsize *len, gboolean *fresh) {
  TES_LOCKED(&n->data.lock);
  Chunk *c = chunk_make(n, pos);
  if (!c)
    return NULL;
  *fresh = !page_used(c, page_of(c, pos + (goffset)*len - 1));
  *len = chunk_use(n, c, pos, *len, FALSE);
  n->data.recent = c;
  return *len ? chunk_ptr(n, c, pos) : NULL;
}

/* Fresh pages written by memcpy cost a fault and a clearing each; pwrite(2) into the memory file spares both: 64 KiB take
 * 30 us, not 46. What it cannot do is left to memcpy. */
static gssize fill_fresh(Node *n, TesIov *iov, void *to, gsize len) {
  struct iovec v[MAX_FILL_VEC];
  TesIovPin *pin;
  int fd = tes_memfile_fd(memfile(n)), count = tes_iov_pin(iov, len, FALSE, v, MAX_FILL_VEC, &pin);
  if (count < 0)
    return count;
  gssize r = pwritev(fd, v, count, (char *)to - (char *)tes_memfile_ptr(memfile(n), 0));
  tes_iov_unpin(pin);
  if (r > 0)
    tes_iov_advance(iov, (gsize)r);
  return r;
}

static gssize fill(Node *n, TesIov *iov, void *to, gsize len, gboolean fresh) {
  gssize r = fresh && len >= MIN_FILL ? fill_fresh(n, iov, to, len) : 0;
  gsize done = (gsize)MAX(r, 0);
  if (done == len)
    return r;
  r = tes_iov_read_from(iov, (char *)to + done, len - done);
  return r < 0 && done ? (gssize)done : r < 0 ? r : (gssize)done + r;
}

/* How far a write at pos may go: bytes, or -errno. */
static gssize write_limit(const Node *n, goffset pos, gsize len) {
  if (!(n->data.seals & F_SEAL_GROW))
    return (gssize)len;
  return pos >= n->data.size ? -EPERM : (gssize)MIN(len, (gsize)(n->data.size - pos));
}

static gssize write_piece(Node *n, TesIov *iov, goffset pos) {
  gssize max = write_limit(n, pos, iov->left);
  if (max < 0)
    return max;
  gsize len = MIN((gsize)max, chunk_size(pos) - (gsize)(pos - chunk_start(pos)));
  gboolean fresh = FALSE;
  void *to = room_again(n, pos, len);
  if (!to)
    to = room_for(n, pos, &len, &fresh);
  if (!to)
    return -ENOSPC;
  gssize r = fill(n, iov, to, len, fresh);
  if (r > 0 && pos + r > n->data.size)
    data_set_size(n, pos + r);
  return r;
}

static gssize file_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx;
  Node *n = node_of(f->inode);
  gssize total = 0, r = 0;
  TES_LOCKED(&n->lock);
  if (n->data.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
    return -EPERM;
  if (flags & TES_RW_APPEND)
    *pos = n->data.size;
  if (*pos > TMPFS_MAX_SIZE - (goffset)iov->left)
    return -EINVAL; /* as a position that cannot be told */
  while (iov->left && (r = write_piece(n, iov, *pos)) > 0) {
    total += r;
    *pos += r;
  }
  if (total)
    node_modified(n);
  return total ? total : r;
}

static int file_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  (void)f, (void)ctx, (void)data_only;
  return 0; /* there is no slower storage behind it */
}

static void file_release(TesFile *f) { g_free(f); }

const TesFileOps tmpfs_file_ops = {
    .size = sizeof(TesFileOps),
    .name = "tmpfs",
    .flags = TES_FILE_SEEKABLE,
    .read = file_read,
    .write = file_write,
    .seek = file_seek,
    .ioctl = tmpfs_ioctl,
    .map = file_map,
    .fsync = file_fsync,
    .fallocate = file_fallocate,
    .seals = file_seals,
    .release = file_release,
};
