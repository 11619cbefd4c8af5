/* SPDX-License-Identifier: Apache-2.0 */
/* Contents of tmpfs files: chunks of the memory file, found by the first byte of their range.
 *
 * Locks: the node lock (INODE) is held around reads, writes, allocation and truncation. data_lock nests inside the mm's mapping
 * lock, because a page fault asks piece() for a page; it guards the chunk table, the size and the page count, and
 * is never held while guest memory is copied. */
#include "tmpfs.h"
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/uio.h>

#define MIN_FILL (4 * TES_PAGE_SIZE) /* fill_fresh() pays from here on */
#define MAX_FILL_VEC 32
#define RANK_DATA (TES_RANK_MM_MAP + 2)
static const TesLockClass data_class = {"tmpfs data", RANK_DATA, FALSE,
                                        "chunk table, size and pages of a file"};

static gsize chunk_size(goffset off) { return (gsize)off < SMALL_LIMIT ? SMALL_CHUNK : LARGE_CHUNK; }
static goffset chunk_start(goffset off) { return off & ~(goffset)(chunk_size(off) - 1); }
static TesMemFile *memfile(const Node *n) { return tes_kernel_memfile(n->inode.super->kernel); }

/* ---- Chunks; data_lock held ---- */

static gboolean take_pages(Node *n, guint64 pages) {
  Tmpfs *fs = tmpfs_of(n);
  TES_LOCKED(&fs->lock);
  if (fs->max_pages && fs->pages + pages > fs->max_pages)
    return FALSE;
  fs->pages += pages;
  n->n_pages += pages;
  return TRUE;
}

static void give_pages(Node *n, guint64 pages) {
  Tmpfs *fs = tmpfs_of(n);
  TES_LOCKED(&fs->lock);
  fs->pages -= pages;
  n->n_pages -= pages;
}

/* Bits are set under data_lock, and cleared with the node lock held as well: one that a holder of the node lock sees stays. */
static gboolean page_used(const Chunk *c, guint i) {
  return __atomic_load_n(&c->used[i / 64], __ATOMIC_RELAXED) >> i % 64 & 1;
}
static void page_set_used(Chunk *c, guint i) {
  __atomic_store_n(&c->used[i / 64], c->used[i / 64] | 1ULL << i % 64, __ATOMIC_RELAXED);
}
static guint page_of(goffset off) { return (off - chunk_start(off)) / TES_PAGE_SIZE; }

static Chunk *chunk_find(Node *n, goffset off) {
  gint64 key = chunk_start(off);
  return g_hash_table_lookup(n->chunks, &key);
}

/* For reading, with the node lock instead of data_lock. */
static Chunk *chunk_recent(Node *n, goffset off) {
  goffset start = chunk_start(off);
  if (n->recent && n->recent_start == start)
    return n->recent;
  tes_mutex_lock(&n->data_lock);
  Chunk *c = chunk_find(n, off);
  tes_mutex_unlock(&n->data_lock);
  if (c) {
    n->recent = c;
    n->recent_start = start;
  }
  return c;
}

static Chunk *chunk_make(Node *n, goffset off) {
  Chunk *c = chunk_find(n, off);
  if (c)
    return c;
  gsize size = chunk_size(off);
  goffset at = tes_memfile_alloc(memfile(n), size, size, 0, TES_MEM_FILE);
  if (at < 0)
    return NULL;
  gint64 *key = g_new(gint64, 1);
  *key = chunk_start(off);
  c = g_new0(Chunk, 1);
  c->off = at;
  g_hash_table_insert(n->chunks, key, c);
  return c;
}

/* Marks the pages of [off, off+len), inside one chunk, as used. FALSE: the filesystem is full. */
static gboolean chunk_use(Node *n, Chunk *c, goffset off, gsize len) {
  guint first = page_of(off), last = page_of(off + len - 1);
  guint64 fresh = 0;
  for (guint i = first; i <= last; i++)
    fresh += !page_used(c, i);
  if (fresh && !take_pages(n, fresh))
    return FALSE;
  for (guint i = first; i <= last; i++)
    page_set_used(c, i);
  return TRUE;
}

/* Makes [off, off+len), inside one chunk, read as zeros again; whole pages are given back to the host. */
static void chunk_zero(Node *n, Chunk *c, goffset off, gsize len) {
  goffset base = c->off + (off - chunk_start(off));
  guint64 freed = 0;
  goffset first = TES_PAGE_UP((gulong)off), end = TES_PAGE_DOWN((gulong)(off + len));
  for (goffset p = first; p < end; p += TES_PAGE_SIZE) {
    guint i = (p - chunk_start(off)) / TES_PAGE_SIZE;
    freed += page_used(c, i);
    __atomic_store_n(&c->used[i / 64], c->used[i / 64] & ~(1ULL << i % 64), __ATOMIC_RELAXED);
  }
  if (freed)
    give_pages(n, freed);
  fallocate(tes_memfile_fd(memfile(n)), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, base, len);
}

static void chunk_drop(Node *n, goffset start, Chunk *c) {
  guint64 pages = 0;
  for (guint i = 0; i < MAX_CHUNK_PAGES / 64; i++)
    pages += __builtin_popcountll(c->used[i]);
  give_pages(n, pages);
  tes_memfile_unref(memfile(n), c->off, chunk_size(start));
}

static void node_source_ref(TesMapSource *s) {
  tes_inode_ref(&((Node *)((char *)s - G_STRUCT_OFFSET(Node, source)))->inode);
}
static void node_source_unref(TesMapSource *s) {
  tes_inode_unref(&((Node *)((char *)s - G_STRUCT_OFFSET(Node, source)))->inode);
}

static int node_piece(TesMapSource *s, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  Node *n = (Node *)((char *)s - G_STRUCT_OFFSET(Node, source));
  (void)write; /* a hole gets its page either way: a later write through the mapping would not ask again */
  TES_LOCKED(&n->data_lock);
  goffset end = TES_PAGE_UP((gulong)n->size);
  if (off >= end)
    return -EFAULT;
  Chunk *c = chunk_make(n, off);
  if (!c)
    return -ENOMEM;
  goffset start = chunk_start(off);
  gsize len = MIN(MIN(max, chunk_size(off) - (gsize)(off - start)), (gsize)(end - off));
  if (!chunk_use(n, c, off, len))
    return -ENOSPC;
  goffset at = c->off + (off - start);
  *out = (TesMapPiece){tes_memfile_fd(memfile(n)), at, tes_memfile_ptr(memfile(n), at), len};
  return 0;
}

static const TesMapSourceOps source_ops = {sizeof(TesMapSourceOps), node_piece, node_source_ref,
                                           node_source_unref};

void data_init(Node *n) {
  tes_mutex_init(&n->data_lock, &data_class);
  n->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
  tes_map_source_init(&n->source, &source_ops);
  n->seals = F_SEAL_SEAL;
}

void data_clear(Node *n) {
  GHashTableIter it;
  gpointer key, c;
  g_hash_table_iter_init(&it, n->chunks);
  while (g_hash_table_iter_next(&it, &key, &c))
    chunk_drop(n, *(gint64 *)key, c);
  g_hash_table_unref(n->chunks);
  tes_map_source_clear(&n->source);
  tes_mutex_clear(&n->data_lock);
}

static gboolean drop_beyond(gpointer key, gpointer c, gpointer data) {
  Node *n = data;
  goffset start = *(gint64 *)key;
  if (start >= n->size) {
    chunk_drop(n, start, c);
    return TRUE;
  }
  gsize keep = n->size - start;
  if (keep < chunk_size(start))
    chunk_zero(n, c, n->size, chunk_size(start) - keep);
  return FALSE;
}

int data_truncate(Node *n, goffset size) {
  if (size < 0)
    return -EINVAL;
  if ((size < n->size && (n->seals & F_SEAL_SHRINK)) || (size > n->size && (n->seals & F_SEAL_GROW)))
    return -EPERM;
  goffset old = n->size;
  tes_mutex_lock(&n->data_lock);
  n->size = size;
  tes_mutex_unlock(&n->data_lock);
  if (size >= old)
    return 0;
  n->recent = NULL;
  goffset first_gone = TES_PAGE_UP((gulong)size);
  tes_map_source_invalidate(&n->source, first_gone, G_MAXINT64 - first_gone, TRUE);
  tes_mutex_lock(&n->data_lock);
  g_hash_table_foreach_remove(n->chunks, drop_beyond, n);
  tes_mutex_unlock(&n->data_lock);
  return 0;
}

/* ---- Reading and writing ---- */

static void touch_atime(Node *n) {
  /* relatime: only when it would otherwise be older than the last change, as mount(8)'s default. */
  if (n->atime.tv_sec < n->mtime.tv_sec ||
      (n->atime.tv_sec == n->mtime.tv_sec && n->atime.tv_nsec <= n->mtime.tv_nsec))
    node_now(n, &n->atime);
}

static gssize file_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx, (void)flags;
  Node *n = node_of(f->inode);
  gssize total = 0;
  TES_LOCKED(&n->lock);
  touch_atime(n);
  while (iov->left && *pos < n->size) {
    goffset start = chunk_start(*pos);
    gsize len = MIN(MIN(iov->left, (gsize)(n->size - *pos)), chunk_size(*pos) - (gsize)(*pos - start));
    Chunk *c = chunk_recent(n, *pos);
    gssize r = c ? tes_iov_write_to(iov, tes_memfile_ptr(memfile(n), c->off + (*pos - start)), len)
                 : tes_iov_zero(iov, len);
    if (r < 0)
      return total ? total : r;
    total += r;
    *pos += r;
    if ((gsize)r < len)
      break;
  }
  return total;
}

/* The same where there was something before, without data_lock; NULL: ask room_for(). */
static void *room_again(Node *n, goffset pos, gsize len) {
  Chunk *c = n->recent;
  if (!c || n->recent_start != chunk_start(pos))
    return NULL;
  for (guint i = page_of(pos), last = page_of(pos + len - 1); i <= last; i++)
    if (!page_used(c, i))
      return NULL;
  return tes_memfile_ptr(memfile(n), c->off + (pos - n->recent_start));
}

/* Room for [pos, pos+len) inside one chunk: its address, or NULL with *err. *fresh: its last page held nothing. */
static void *room_for(Node *n, goffset pos, gsize len, gboolean *fresh, int *err) {
  TES_LOCKED(&n->data_lock);
  Chunk *c = chunk_make(n, pos);
  *fresh = c && !page_used(c, page_of(pos + len - 1));
  n->recent = c;
  n->recent_start = chunk_start(pos);
  if (!c)
    *err = -ENOSPC; /* as a full tmpfs on Linux */
  else if (!chunk_use(n, c, pos, len))
    *err = -ENOSPC;
  return *err ? NULL : tes_memfile_ptr(memfile(n), c->off + (pos - chunk_start(pos)));
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

static gssize file_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx;
  Node *n = node_of(f->inode);
  gssize total = 0;
  int err = 0;
  TES_LOCKED(&n->lock);
  if (n->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
    return -EPERM;
  if (flags & TES_RW_APPEND)
    *pos = n->size;
  while (iov->left) {
    if (*pos > TMPFS_MAX_SIZE - (goffset)iov->left || ((n->seals & F_SEAL_GROW) && *pos >= n->size))
      return total ? total : *pos >= n->size && (n->seals & F_SEAL_GROW) ? -EPERM : -EFBIG;
    gsize len = MIN(iov->left, chunk_size(*pos) - (gsize)(*pos - chunk_start(*pos)));
    if (n->seals & F_SEAL_GROW)
      len = MIN(len, (gsize)(n->size - *pos));
    gboolean fresh = FALSE;
    void *to = room_again(n, *pos, len);
    if (!to)
      to = room_for(n, *pos, len, &fresh, &err);
    gssize r = to ? fill(n, iov, to, len, fresh) : err;
    if (r < 0)
      return total ? total : r;
    total += r;
    *pos += r;
    if (*pos > n->size) {
      tes_mutex_lock(&n->data_lock);
      n->size = *pos;
      tes_mutex_unlock(&n->data_lock);
    }
    if ((gsize)r < len)
      break;
  }
  node_now(n, &n->mtime);
  n->ctime = n->mtime;
  return total;
}

static goffset file_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  (void)ctx;
  Node *n = node_of(f->inode);
  if (whence != SEEK_DATA && whence != SEEK_HOLE)
    return -EOPNOTSUPP;
  TES_LOCKED(&n->data_lock);
  if (off < 0 || off >= n->size)
    return -ENXIO;
  gboolean want_data = whence == SEEK_DATA;
  while (off < n->size) {
    Chunk *c = chunk_find(n, off);
    goffset start = chunk_start(off), end = start + chunk_size(off);
    for (; off < end && off < n->size; off = (off & TES_PAGE_MASK) + TES_PAGE_SIZE)
      if ((c && page_used(c, (off - start) / TES_PAGE_SIZE)) == want_data)
        return off;
  }
  return want_data ? -ENXIO : n->size;
}

static int file_map(TesFile *f, TesCtx *ctx, guint prot, gboolean shared, TesMapSource **out) {
  (void)ctx;
  Node *n = node_of(f->inode);
  if (shared && (prot & PROT_WRITE) && (n->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
    return -EPERM;
  tes_inode_ref(f->inode);
  *out = &n->source;
  return 0;
}

static int file_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  (void)f, (void)ctx, (void)data_only;
  return 0; /* there is no slower storage behind it */
}

static int punch(Node *n, goffset off, goffset len) {
  if (n->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
    return -EPERM;
  goffset end = MIN(off + len, (goffset)TES_PAGE_UP((gulong)n->size));
  goffset whole = TES_PAGE_UP((gulong)off), whole_end = TES_PAGE_DOWN((gulong)end);
  if (whole < whole_end)
    tes_map_source_invalidate(&n->source, whole, whole_end - whole, FALSE);
  TES_LOCKED(&n->data_lock);
  for (goffset p = off, next; p < end; p = next) {
    next = MIN(chunk_start(p) + (goffset)chunk_size(p), end);
    Chunk *c = chunk_find(n, p);
    if (c)
      chunk_zero(n, c, p, next - p);
  }
  return 0;
}

static int preallocate(Node *n, goffset off, goffset len) {
  TES_LOCKED(&n->data_lock);
  for (goffset p = off, next; p < off + len; p = next) {
    next = MIN(chunk_start(p) + (goffset)chunk_size(p), off + len);
    Chunk *c = chunk_make(n, p);
    if (!c || !chunk_use(n, c, p, next - p))
      return -ENOSPC;
  }
  return 0;
}

static int file_fallocate(TesFile *f, TesCtx *ctx, int mode, goffset off, goffset len) {
  (void)ctx;
  Node *n = node_of(f->inode);
  TES_LOCKED(&n->lock);
  if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
    return punch(n, off, len);
  if (mode & ~FALLOC_FL_KEEP_SIZE)
    return -EOPNOTSUPP;
  gboolean grows = off + len > n->size && !(mode & FALLOC_FL_KEEP_SIZE);
  if (grows && (n->seals & F_SEAL_GROW))
    return -EPERM;
  Tmpfs *fs = tmpfs_of(n);
  if (fs->max_pages && (guint64)len / TES_PAGE_SIZE > fs->max_pages)
    return -ENOSPC;
  int r = preallocate(n, off, len);
  if (r == 0 && grows) {
    tes_mutex_lock(&n->data_lock);
    n->size = off + len;
    tes_mutex_unlock(&n->data_lock);
  }
  node_now(n, &n->ctime);
  return r;
}

static int file_seals(TesFile *f, TesCtx *ctx, int op, guint seals) {
  (void)ctx;
  Node *n = node_of(f->inode);
  TES_LOCKED(&n->lock);
  if (op == TES_SEALS_GET)
    return n->seals;
  if (op == TES_SEALS_RESET) {
    n->seals = seals;
    return 0;
  }
  if (seals & ~(guint)(F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
    return -EINVAL;
  if (n->seals & F_SEAL_SEAL)
    return -EPERM;
  if ((seals & F_SEAL_WRITE) && !(n->seals & F_SEAL_WRITE) && tes_map_source_has_writers(&n->source))
    return -EBUSY;
  n->seals |= seals;
  return 0;
}

static void file_release(TesFile *f) { g_free(f); }

const TesFileOps tmpfs_file_ops = {
    .size = sizeof(TesFileOps),
    .name = "tmpfs",
    .flags = TES_FILE_SEEKABLE,
    .read = file_read,
    .write = file_write,
    .seek = file_seek,
    .map = file_map,
    .fsync = file_fsync,
    .fallocate = file_fallocate,
    .seals = file_seals,
    .release = file_release,
};

int data_open(Node *n, TesCtx *ctx, guint flags, TesFile **out) {
  (void)ctx;
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, n->inode.super->kernel, &tmpfs_file_ops, flags);
  *out = f;
  return 0;
}
