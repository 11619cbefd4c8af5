/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptor tables: descriptor -> file description, close-on-exec, lowest free number.
 *
 * Chunks of 64 slots behind a directory: a table with one descriptor at 500,000 costs its directory and two chunks, and fork
 * copies only chunks that exist. A number that is in use without a file is reserved for a call in progress. Look-ups by the only owner of a table (refs == 1) take no lock: nobody else can change it, and who
 * gets a reference meanwhile (/proc) only reads, under the lock. Files are dropped outside the lock. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <unistd.h>

#define CHUNK 64u

typedef struct {
  guint64 used, cloexec; /* bit per slot */
  TesFile *file[CHUNK];
} FdChunk;

struct _TesFdTable {
  gint refs;
  TesMutex lock;
  FdChunk **chunk; /* n_chunks entries, NULL: 64 free descriptors */
  guint n_chunks;
  guint hint; /* no number below it is free */
};

/* Host memory of all tables together, bounded to a sixteenth of what the host has: sparse tables are cheap, thousands of forked
 * copies of one are not. Beyond it calls fail with ENFILE, fork with ENOMEM. */
static gsize all_tables;

static gboolean charge(gsize bytes) {
  static gsize limit;
  if (g_once_init_enter(&limit))
    g_once_init_leave(&limit, (gsize)sysconf(_SC_PHYS_PAGES) * TES_PAGE_SIZE / 16);
  if (__atomic_add_fetch(&all_tables, bytes, __ATOMIC_RELAXED) <= limit)
    return TRUE;
  __atomic_sub_fetch(&all_tables, bytes, __ATOMIC_RELAXED);
  return FALSE;
}

static void uncharge(gsize bytes) { __atomic_sub_fetch(&all_tables, bytes, __ATOMIC_RELAXED); }

static const TesLockClass fdtable_class = {"descriptor table", TES_RANK_FDTABLE, FALSE,
                                           "descriptors of a process"};

TesFdTable *tes_fdtable_new(void) {
  TesFdTable *t = g_new0(TesFdTable, 1);
  t->refs = 1;
  t->n_chunks = 1;
  t->chunk = g_new0(FdChunk *, 1);
  __atomic_add_fetch(&all_tables, sizeof *t->chunk, __ATOMIC_RELAXED);
  tes_mutex_init(&t->lock, &fdtable_class);
  return t;
}

TesFdTable *tes_fdtable_ref(TesFdTable *t) {
  g_atomic_int_inc(&t->refs);
  return t;
}

gboolean tes_fdtable_is_shared(TesFdTable *t) { return g_atomic_int_get(&t->refs) > 1; }

guint tes_fdtable_size(TesFdTable *t) { return __atomic_load_n(&t->n_chunks, __ATOMIC_RELAXED) * CHUNK; }

static int drop_file(TesFdTable *t, TesFile *f, TesCtx *ctx) {
  int r = 0;
  tes_lock_fd_closed(f, t);
  if (TES_HAS(f->ops, flush))
    r = f->ops->flush(f, ctx);
  tes_file_unref(f);
  return r;
}

void tes_fdtable_unref(TesFdTable *t, TesCtx *ctx) {
  if (!t || !g_atomic_int_dec_and_test(&t->refs))
    return;
  for (guint c = 0; c < t->n_chunks; c++) {
    FdChunk *k = t->chunk[c];
    if (!k)
      continue;
    for (guint64 used = k->used; used; used &= used - 1)
      if (k->file[__builtin_ctzll(used)])
        drop_file(t, k->file[__builtin_ctzll(used)], ctx);
    g_free(k);
    uncharge(sizeof *k);
  }
  uncharge(t->n_chunks * sizeof *t->chunk);
  tes_mutex_clear(&t->lock);
  g_free(t->chunk);
  g_free(t);
}

static void unreserve(TesFdTable *t, guint fd) {
  FdChunk *k = t->chunk[fd / CHUNK];
  k->used &= ~(1ULL << (fd % CHUNK));
  k->cloexec &= ~(1ULL << (fd % CHUNK));
  t->hint = MIN(t->hint, fd);
}

static guint chunks_in_use(const TesFdTable *t, guint n) {
  guint used = 0;
  for (guint c = 0; c < n; c++)
    used += t->chunk[c] && t->chunk[c]->used;
  return used;
}

static void copy_chunk(TesFdTable *t, guint c, const FdChunk *k) {
  t->chunk[c] = g_memdup2(k, sizeof *k);
  for (guint64 used = k->used; used; used &= used - 1) {
    guint i = (guint)__builtin_ctzll(used);
    if (k->file[i])
      tes_file_ref(k->file[i]);
    else
      unreserve(t, c * CHUNK + i);
  }
}

/* With `force` the bound is ignored (exec cannot fail any more). */
static TesFdTable *copy_table(TesFdTable *src, gboolean force) {
  TES_LOCKED(&src->lock);
  guint n = src->n_chunks;
  while (n > 1 && (!src->chunk[n - 1] || !src->chunk[n - 1]->used))
    n--;
  gsize bytes = chunks_in_use(src, n) * sizeof(FdChunk) + (n - 1) * sizeof(FdChunk *);
  if (!charge(bytes)) {
    if (!force)
      return NULL;
    __atomic_add_fetch(&all_tables, bytes, __ATOMIC_RELAXED);
  }
  TesFdTable *t = tes_fdtable_new();
  t->chunk = g_renew(FdChunk *, t->chunk, n);
  t->n_chunks = n;
  t->hint = src->hint;
  for (guint c = 0; c < n; c++) {
    t->chunk[c] = NULL;
    if (src->chunk[c] && src->chunk[c]->used)
      copy_chunk(t, c, src->chunk[c]);
  }
  return t;
}

TesFdTable *tes_fdtable_fork(TesFdTable *src) { return copy_table(src, FALSE); }

/* ---- With the lock held (or by the only owner) ---- */

static inline TesFile *slot_get(TesFdTable *t, guint fd) {
  if (G_UNLIKELY(fd >= t->n_chunks * CHUNK))
    return NULL;
  FdChunk *k = t->chunk[fd / CHUNK];
  return k ? k->file[fd % CHUNK] : NULL;
}

/* Makes sure that the slot exists: FALSE when tables have used all the memory they may. */
static gboolean need_slot(TesFdTable *t, guint fd) {
  guint need = fd / CHUNK + 1;
  if (need > t->n_chunks) {
    need = MIN(MAX(need, t->n_chunks * 2), TES_NR_OPEN / CHUNK);
    if (!charge((need - t->n_chunks) * sizeof *t->chunk))
      return FALSE;
    t->chunk = g_renew(FdChunk *, t->chunk, need);
    memset(t->chunk + t->n_chunks, 0, (need - t->n_chunks) * sizeof *t->chunk);
    __atomic_store_n(&t->n_chunks, need, __ATOMIC_RELAXED);
  }
  if (t->chunk[fd / CHUNK])
    return TRUE;
  if (!charge(sizeof(FdChunk)))
    return FALSE;
  t->chunk[fd / CHUNK] = g_new0(FdChunk, 1);
  return TRUE;
}

/* Takes over the reference; returns the file that was there. The slot exists. */
static TesFile *slot_set(TesFdTable *t, guint fd, TesFile *f, gboolean cloexec) {
  FdChunk *k = t->chunk[fd / CHUNK];
  guint64 bit = 1ULL << (fd % CHUNK);
  TesFile *old = k->file[fd % CHUNK];
  k->file[fd % CHUNK] = f;
  k->used |= bit;
  k->cloexec = cloexec ? k->cloexec | bit : k->cloexec & ~bit;
  return old;
}

static TesFile *slot_clear(TesFdTable *t, guint fd) {
  TesFile *f = slot_get(t, fd);
  if (!f)
    return NULL;
  t->chunk[fd / CHUNK]->file[fd % CHUNK] = NULL;
  unreserve(t, fd);
  return f;
}

static guint lowest_free(TesFdTable *t, guint min) {
  guint fd = MAX(min, t->hint);
  for (guint c = fd / CHUNK; c < t->n_chunks; c++, fd = c * CHUNK) {
    FdChunk *k = t->chunk[c];
    guint64 free = (k ? ~k->used : ~0ULL) & (~0ULL << (fd % CHUNK));
    if (free)
      return c * CHUNK + (guint)__builtin_ctzll(free);
  }
  return MAX(fd, t->n_chunks * CHUNK);
}

/* ---- For tasks ---- */

static guint limit_nofile(TesTask *t) {
  guint64 l = tes_task_rlimit(t, RLIMIT_NOFILE);
  return l > TES_NR_OPEN ? TES_NR_OPEN : (guint)l;
}

TesFdLoan tes_fd_borrow(TesTask *task, int fd) {
  TesFdTable *t = task->fdtable;
  if (G_UNLIKELY(fd < 0 || !t))
    return (TesFdLoan){NULL, FALSE};
  if (G_LIKELY(__atomic_load_n(&t->refs, __ATOMIC_ACQUIRE) == 1))
    return (TesFdLoan){slot_get(t, (guint)fd), FALSE};
  TES_LOCKED(&t->lock);
  TesFile *f = slot_get(t, (guint)fd);
  return (TesFdLoan){f ? tes_file_ref(f) : NULL, f != NULL};
}

TesFile *tes_fd_get(TesTask *task, int fd) {
  TesFdLoan l = tes_fd_borrow(task, fd);
  return l.file && !l.counted ? tes_file_ref(l.file) : l.file;
}

TesFile *tes_fd_get_io(TesTask *task, int fd) {
  TesFile *f = tes_fd_get(task, fd);
  if (f && G_UNLIKELY(f->flags & O_PATH)) {
    tes_file_unref(f);
    return NULL;
  }
  return f;
}

TesFdLoan tes_fd_borrow_io(TesTask *task, int fd) {
  TesFdLoan l = tes_fd_borrow(task, fd);
  if (l.file && G_UNLIKELY(l.file->flags & O_PATH)) {
    tes_fd_return(&l);
    return (TesFdLoan){NULL, FALSE};
  }
  return l;
}

gboolean tes_fd_is(TesTask *task, int fd, TesFile *f) {
  TesFdTable *t = tes_task_fdtable(task);
  TES_LOCKED(&t->lock);
  return slot_get(t, (guint)fd) == f;
}

/* Takes over the reference to `f` unless it fails; with `f` NULL only reserves the number. */
static int take_lowest(TesTask *task, TesFile *f, int min, gboolean cloexec) {
  TesFdTable *t = tes_task_fdtable(task);
  guint limit = limit_nofile(task);
  TES_LOCKED(&t->lock);
  guint fd = lowest_free(t, (guint)MAX(min, 0));
  if (fd >= limit)
    return -EMFILE;
  if ((f && tes_file_too_many()) || !need_slot(t, fd))
    return -ENFILE;
  slot_set(t, fd, f, cloexec);
  if ((guint)MAX(min, 0) <= t->hint)
    t->hint = fd + 1;
  return (int)fd;
}

int tes_fd_install(TesTask *task, TesFile *f, int min, gboolean cloexec) {
  int fd = take_lowest(task, tes_file_ref(f), min, cloexec);
  if (fd < 0)
    tes_file_unref(f);
  return fd;
}

int tes_fd_give(TesTask *task, TesFile *f, gboolean cloexec) {
  int fd = take_lowest(task, f, 0, cloexec);
  if (fd < 0)
    tes_file_unref(f);
  return fd;
}

int tes_fd_reserve(TesTask *task, gboolean cloexec) { return take_lowest(task, NULL, 0, cloexec); }

void tes_fd_fill(TesTask *task, int fd, TesFile *f) {
  TesFdTable *t = tes_task_fdtable(task);
  TES_LOCKED(&t->lock);
  if (f)
    t->chunk[(guint)fd / CHUNK]->file[(guint)fd % CHUNK] = tes_file_ref(f);
  else
    unreserve(t, (guint)fd);
}

static gboolean is_reserved(TesFdTable *t, guint fd) {
  FdChunk *k = fd < t->n_chunks * CHUNK ? t->chunk[fd / CHUNK] : NULL;
  return k && (k->used >> (fd % CHUNK) & 1) && !k->file[fd % CHUNK];
}

int tes_fdtable_install_at(TesFdTable *t, TesFile *f, int fd, gboolean cloexec) {
  if (fd < 0 || fd >= TES_NR_OPEN)
    return -EBADF;
  tes_mutex_lock(&t->lock);
  gboolean ok = need_slot(t, (guint)fd);
  TesFile *old = ok ? slot_set(t, (guint)fd, tes_file_ref(f), cloexec) : NULL;
  tes_mutex_unlock(&t->lock);
  tes_file_unref(old);
  return ok ? fd : -ENFILE;
}

int tes_fd_replace(TesTask *task, TesFile *f, int fd, gboolean cloexec) {
  TesFdTable *t = tes_task_fdtable(task);
  if (fd < 0 || (guint)fd >= limit_nofile(task))
    return -EBADF;
  tes_mutex_lock(&t->lock);
  int r = is_reserved(t, (guint)fd) ? -EBUSY : need_slot(t, (guint)fd) ? fd : -ENFILE;
  TesFile *old = r < 0 ? NULL : slot_set(t, (guint)fd, tes_file_ref(f), cloexec);
  tes_mutex_unlock(&t->lock);
  if (old)
    drop_file(t, old, tes_task_ctx(task));
  return r;
}

int tes_fd_close(TesTask *task, int fd) {
  TesFdTable *t = tes_task_fdtable(task);
  if (fd < 0)
    return -EBADF;
  tes_mutex_lock(&t->lock);
  TesFile *f = slot_clear(t, (guint)fd);
  tes_mutex_unlock(&t->lock);
  return f ? drop_file(t, f, tes_task_ctx(task)) : -EBADF;
}

/* Takes the first file in [*fd, last] out, if `only_cloexec` only those marked; *fd becomes the number behind it. */
static TesFile *take_next(TesFdTable *t, guint *fd, guint last, gboolean only_cloexec) {
  TES_LOCKED(&t->lock);
  last = MIN(last, t->n_chunks * CHUNK - 1);
  for (guint i = *fd; i <= last;) {
    FdChunk *k = t->chunk[i / CHUNK];
    guint64 set = (k ? (only_cloexec ? k->cloexec : k->used) : 0) & (~0ULL << (i % CHUNK));
    if (!set) {
      i = (i / CHUNK + 1) * CHUNK;
      continue;
    }
    i = i / CHUNK * CHUNK + (guint)__builtin_ctzll(set);
    if (i > last)
      break;
    *fd = i + 1;
    if (k->file[i % CHUNK])
      return slot_clear(t, i);
    i++;
  }
  return NULL;
}

static void close_marked(TesFdTable *t, guint first, guint last, gboolean only_cloexec, TesCtx *ctx) {
  TesFile *f;
  while ((f = take_next(t, &first, last, only_cloexec)))
    drop_file(t, f, ctx);
}

void tes_fd_close_range(TesTask *task, guint first, guint last, gboolean cloexec) {
  TesFdTable *t = tes_task_fdtable(task);
  if (!cloexec) {
    close_marked(t, first, last, FALSE, tes_task_ctx(task));
    return;
  }
  TES_LOCKED(&t->lock);
  last = MIN(last, t->n_chunks * CHUNK - 1);
  for (guint64 i = first; i <= last; i = (i / CHUNK + 1) * CHUNK) {
    FdChunk *k = t->chunk[i / CHUNK];
    guint64 range = ~0ULL << (i % CHUNK);
    if (last / CHUNK == i / CHUNK)
      range &= ~0ULL >> (CHUNK - 1 - last % CHUNK);
    if (k)
      k->cloexec |= k->used & range;
  }
}

int tes_fd_get_cloexec(TesTask *task, int fd) {
  TesFdTable *t = tes_task_fdtable(task);
  TES_LOCKED(&t->lock);
  if (fd < 0 || !slot_get(t, (guint)fd))
    return -EBADF;
  return (int)(t->chunk[(guint)fd / CHUNK]->cloexec >> ((guint)fd % CHUNK) & 1);
}

int tes_fd_set_cloexec(TesTask *task, int fd, gboolean on) {
  TesFdTable *t = tes_task_fdtable(task);
  TES_LOCKED(&t->lock);
  if (fd < 0 || !slot_get(t, (guint)fd))
    return -EBADF;
  FdChunk *k = t->chunk[(guint)fd / CHUNK];
  guint64 bit = 1ULL << ((guint)fd % CHUNK);
  k->cloexec = on ? k->cloexec | bit : k->cloexec & ~bit;
  return 0;
}

TesFdTable *tes_fdtable_exec(TesFdTable *t, TesCtx *ctx) {
  if (tes_fdtable_is_shared(t)) {
    TesFdTable *own = copy_table(t, TRUE);
    tes_fdtable_unref(t, ctx);
    t = own;
  }
  close_marked(t, 0, G_MAXUINT, TRUE, ctx);
  return t;
}

int tes_task_unshare_fdtable(TesTask *task) {
  TesFdTable *t = tes_task_fdtable(task);
  if (!tes_fdtable_is_shared(t))
    return 0;
  TesFdTable *own = tes_fdtable_fork(t);
  if (!own)
    return -ENOMEM;
  tes_mutex_lock(&task->lock);
  task->fdtable = own;
  tes_mutex_unlock(&task->lock);
  tes_fdtable_unref(t, tes_task_ctx(task));
  return 0;
}

typedef struct {
  int fd;
  gboolean cloexec;
  TesFile *file;
} Entry;

/* Called on a snapshot, without the lock: callbacks may look at paths and inodes. */
void tes_fdtable_foreach(TesFdTable *t, void (*fn)(int, TesFile *, gboolean, gpointer), gpointer data) {
  g_autoptr(GArray) all = g_array_new(FALSE, FALSE, sizeof(Entry));
  tes_mutex_lock(&t->lock);
  for (guint c = 0; c < t->n_chunks; c++) {
    FdChunk *k = t->chunk[c];
    for (guint64 used = k ? k->used : 0; used; used &= used - 1) {
      guint i = (guint)__builtin_ctzll(used);
      if (!k->file[i])
        continue;
      Entry e = {(int)(c * CHUNK + i), (k->cloexec >> i) & 1, tes_file_ref(k->file[i])};
      g_array_append_val(all, e);
    }
  }
  tes_mutex_unlock(&t->lock);
  for (guint i = 0; i < all->len; i++) {
    Entry *e = &g_array_index(all, Entry, i);
    fn(e->fd, e->file, e->cloexec, data);
    tes_file_unref(e->file);
  }
}
