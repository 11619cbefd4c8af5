/* SPDX-License-Identifier: Apache-2.0 */
/* The memory file: one sparse memfd, mapped once, so that offset -> pointer is an addition (DESIGN.md decision 3).
 * Ranges are taken from the high end downwards: neighbouring mappings, which are placed downwards too, then merge on
 * the host. A page whose last reference goes is punched before its offset is used again, in batches. */
#include <core/mm/memfile.h>
#include <core/mm/mm.h>
#include <core/mm/safe.h>
#include <core/task/task.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_MAX_WANTED (8ULL << 40)
#define SIZE_MIN_WANTED (4ULL << 30)
#define DEAD_BYTES (1UL << 20) /* unreferenced memory kept back to punch in batches */
#define DEAD_RUNS 64
#define CHECK_EVERY (4UL << 20) /* bytes handed out between looks at what the host holds */
#define OVERCOMMIT 16           /* offsets handed out, as a multiple of the limit */

static const TesLockClass memfile_class = {"memfile", TES_RANK_MEMFILE, FALSE,
                                           "free ranges of the memory file"};

typedef struct {
  TesTreeNode node;
} Extent;

/* Adds a free range, merging it with its neighbours. */
static void free_insert(TesMemFile *mf, goffset off, gsize len) {
  TesTreeNode *prev = tes_tree_le(&mf->free_tree, (gulong)off);
  if (prev && prev->key + prev->val == (gulong)off) {
    off = (goffset)prev->key;
    len += prev->val;
  } else {
    prev = NULL;
  }
  TesTreeNode *next = tes_tree_ge(&mf->free_tree, (gulong)off + len);
  if (next && next->key == (gulong)off + len) {
    len += next->val;
    tes_tree_remove(&mf->free_tree, next);
    g_free(next);
  }
  if (prev) {
    tes_tree_set_val(&mf->free_tree, prev, len);
    return;
  }
  Extent *e = g_new(Extent, 1);
  e->node.key = (gulong)off;
  e->node.val = len;
  tes_tree_insert(&mf->free_tree, &e->node);
}

/* Cuts [off, off+len) out of a free range. */
static void free_carve(TesMemFile *mf, TesTreeNode *n, goffset off, gsize len) {
  gulong start = n->key, end = n->key + n->val;
  if (start == (gulong)off) {
    tes_tree_remove(&mf->free_tree, n);
    g_free(n);
  } else {
    tes_tree_set_val(&mf->free_tree, n, (gulong)off - start);
  }
  if ((gulong)off + len < end)
    free_insert(mf, off + (goffset)len, end - (gulong)off - len);
}

goffset tes_memfile_reserve(TesMemFile *mf, gsize len, gsize align, gsize phase) {
  if (len == 0 || len > mf->size || align > mf->size)
    return -ENOMEM;
  gsize slack = align > TES_PAGE_SIZE ? align - TES_PAGE_SIZE : 0;
  TES_LOCKED(&mf->lock);
  TesTreeNode *n = tes_tree_last_fit(&mf->free_tree, G_MAXULONG, len + slack);
  if (!n)
    return -ENOMEM;
  gulong off = n->key + n->val - len;
  off -= (off - phase) & (align - 1);
  free_carve(mf, n, (goffset)off, len);
  mf->low = MIN(mf->low, off);
  return (goffset)off;
}

void tes_memfile_release(TesMemFile *mf, goffset off, gsize len) {
  TES_LOCKED(&mf->lock);
  free_insert(mf, off, len);
}

void tes_memfile_commit(TesMemFile *mf, goffset off, gsize len, TesMemClass cls) {
  guint32 *r = mf->refs + (off >> TES_PAGE_SHIFT), v = (guint32)cls << 30 | 1;
  for (gsize i = 0; i < len >> TES_PAGE_SHIFT; i++)
    __atomic_store_n(&r[i], v, __ATOMIC_RELAXED);
  __atomic_fetch_add(&mf->usage[cls], len, __ATOMIC_RELAXED);
  if (G_UNLIKELY(tes_memfile_accounts(mf)))
    tes_memfile_charge(mf, off, len);
}

guint64 tes_memfile_resident(TesMemFile *mf) {
  struct stat st;
  return fstat(mf->fd, &st) == 0 ? (guint64)st.st_blocks * 512 : 0;
}

int tes_memfile_check(TesMemFile *mf, gsize len) {
  guint64 handed = 0;
  for (guint i = 0; i < TES_MEM_CLASSES; i++)
    handed += __atomic_load_n(&mf->usage[i], __ATOMIC_RELAXED);
  if (len > mf->limit || (handed + len) / OVERCOMMIT > mf->limit)
    return -ENOMEM;
  if (__atomic_add_fetch(&mf->unchecked, len, __ATOMIC_RELAXED) < MIN(CHECK_EVERY, mf->limit / 64))
    return 0;
  if (tes_memfile_resident(mf) + len > mf->limit)
    return -ENOMEM;
  __atomic_store_n(&mf->unchecked, 0, __ATOMIC_RELAXED);
  return 0;
}

goffset tes_memfile_alloc(TesMemFile *mf, gsize len, gsize align, gsize phase, TesMemClass cls) {
  len = TES_PAGE_UP(len);
  int r = tes_memfile_check(mf, len);
  if (r < 0)
    return r;
  goffset off = tes_memfile_reserve(mf, len, MAX(align, TES_PAGE_SIZE), phase);
  if (off >= 0)
    tes_memfile_commit(mf, off, len, cls);
  return off;
}

void tes_memfile_ref(TesMemFile *mf, goffset off, gsize len) {
  guint32 *r = mf->refs + (off >> TES_PAGE_SHIFT);
  for (gsize i = 0; i < len >> TES_PAGE_SHIFT; i++)
    if ((__atomic_load_n(&r[i], __ATOMIC_RELAXED) & TES_REF_COUNT) < TES_REF_STICKY)
      __atomic_fetch_add(&r[i], 1, __ATOMIC_RELAXED);
}

gboolean tes_memfile_try_ref(TesMemFile *mf, goffset off, gsize len) {
  guint32 *r = mf->refs + (off >> TES_PAGE_SHIFT);
  for (gsize i = 0; i < len >> TES_PAGE_SHIFT; i++) {
    guint32 v = __atomic_load_n(&r[i], __ATOMIC_RELAXED);
    do {
      if ((v & TES_REF_COUNT) == 0) {
        if (i > 0)
          tes_memfile_unref(mf, off, i << TES_PAGE_SHIFT);
        return FALSE;
      }
      if ((v & TES_REF_COUNT) >= TES_REF_STICKY)
        break;
    } while (!__atomic_compare_exchange_n(&r[i], &v, v + 1, FALSE, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
  }
  return TRUE;
}

guint tes_memfile_refs(TesMemFile *mf, goffset off) { return tes_memfile_count(mf, off); }
void *tes_memfile_ptr(const TesMemFile *mf, goffset off) { return mf->base + off; }
int tes_memfile_fd(const TesMemFile *mf) { return mf->fd; }
guint64 tes_memfile_usage(TesMemFile *mf, TesMemClass c) {
  return __atomic_load_n(&mf->usage[c], __ATOMIC_RELAXED);
}

/* ---- Freeing ---- */

int tes_memfile_zero(TesMemFile *mf, goffset off, gsize len) {
  return fallocate(mf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, (off_t)len) < 0 ? -errno : 0;
}

static gint run_order(gconstpointer a, gconstpointer b) {
  goffset x = ((const TesRun *)a)->off, y = ((const TesRun *)b)->off;
  return (x > y) - (x < y);
}

static void punch(TesMemFile *mf, goffset off, gsize len) {
  /* Memory that cannot be punched would show old bytes to its next owner: clear it by hand. */
  if (tes_memfile_zero(mf, off, len) < 0)
    memset(mf->base + off, 0, len);
}

/* Punches what is dead and makes it free. Takes the array. */
static void bury(TesMemFile *mf, GArray *dead) {
  g_array_sort(dead, run_order);
  guint n = 0;
  for (guint i = 0; i < dead->len; i++) {
    TesRun *r = &g_array_index(dead, TesRun, i), *last = n ? &g_array_index(dead, TesRun, n - 1) : NULL;
    if (last && last->off + (goffset)last->len == r->off)
      last->len += r->len;
    else
      g_array_index(dead, TesRun, n++) = *r;
  }
  for (guint i = 0; i < n; i++)
    punch(mf, g_array_index(dead, TesRun, i).off, g_array_index(dead, TesRun, i).len);
  tes_mutex_lock(&mf->lock);
  for (guint i = 0; i < n; i++)
    free_insert(mf, g_array_index(dead, TesRun, i).off, g_array_index(dead, TesRun, i).len);
  tes_mutex_unlock(&mf->lock);
  g_array_free(dead, TRUE);
}

static void retire(TesMemFile *mf, const TesRun *runs, guint n) {
  GArray *full = NULL;
  tes_mutex_lock(&mf->lock);
  g_array_append_vals(mf->dead, runs, n);
  for (guint i = 0; i < n; i++)
    mf->dead_bytes += runs[i].len;
  if (mf->dead_bytes >= DEAD_BYTES || mf->dead->len >= DEAD_RUNS) {
    full = mf->dead;
    mf->dead = g_array_new(FALSE, FALSE, sizeof(TesRun));
    mf->dead_bytes = 0;
  }
  tes_mutex_unlock(&mf->lock);
  if (full)
    bury(mf, full);
}

/* Takes one reference of a page away; TRUE: it was the last. `past`: beyond the epoch, where nobody can gain a reference
 * to a private page of a single owner, so that the last one needs no locked instruction. A page of a file may still be
 * found by a fault that asked the file before it was truncated. */
static gboolean drop_one(guint32 *r, gboolean past, guint64 freed[4]) {
  guint32 old = __atomic_load_n(r, __ATOMIC_ACQUIRE);
  if ((old & TES_REF_COUNT) >= TES_REF_STICKY)
    return FALSE;
  if (past && (old & TES_REF_COUNT) == 1 && old >> 30 != TES_MEM_FILE)
    __atomic_store_n(r, old - 1, __ATOMIC_RELAXED);
  else
    old = __atomic_fetch_sub(r, 1, __ATOMIC_ACQ_REL);
  g_assert((old & TES_REF_COUNT) != 0);
  if ((old & TES_REF_COUNT) != 1)
    return FALSE;
  freed[old >> 30] += TES_PAGE_SIZE;
  return TRUE;
}

/* Drops one reference of each page and calls fn for each run of pages that became free. */
static void drop(TesMemFile *mf, goffset off, gsize len, gboolean past,
                 void (*fn)(TesMemFile *, const TesRun *, gpointer), gpointer data) {
  guint32 *r = mf->refs + (off >> TES_PAGE_SHIFT);
  gsize n = len >> TES_PAGE_SHIFT, from = 0;
  guint64 freed[4] = {0};
  for (gsize i = 0; i <= n; i++) {
    gboolean gone = i < n && drop_one(&r[i], past, freed);
    if (gone)
      continue;
    if (i > from && G_UNLIKELY(tes_memfile_accounts(mf)))
      tes_memfile_uncharge(mf, off + (goffset)(from << TES_PAGE_SHIFT), (i - from) << TES_PAGE_SHIFT);
    if (i > from)
      fn(mf, &(TesRun){off + (goffset)(from << TES_PAGE_SHIFT), (i - from) << TES_PAGE_SHIFT}, data);
    from = i + 1;
  }
  for (guint i = 0; i < TES_MEM_CLASSES; i++)
    if (freed[i])
      __atomic_fetch_sub(&mf->usage[i], freed[i], __ATOMIC_RELAXED);
}

static void drop_now(TesMemFile *mf, const TesRun *run, gpointer data) { retire(mf, run, 1); }

void tes_memfile_unref_now(TesMemFile *mf, goffset off, gsize len) {
  drop(mf, off, len, TRUE, drop_now, NULL);
}

typedef struct {
  TesMemFile *mf;
  GArray *runs;
} Later;

static void later_run(gpointer data) {
  Later *l = data;
  retire(l->mf, (const TesRun *)(gpointer)l->runs->data, l->runs->len);
  g_array_free(l->runs, TRUE);
  g_free(l);
}

static void drop_later(TesMemFile *mf, const TesRun *run, gpointer data) {
  GArray **runs = data;
  if (!*runs)
    *runs = g_array_new(FALSE, FALSE, sizeof(TesRun));
  g_array_append_val(*runs, *run);
}

void tes_memfile_unref(TesMemFile *mf, goffset off, gsize len) {
  GArray *runs = NULL;
  drop(mf, off, len, FALSE, drop_later, &runs);
  if (!runs)
    return;
  Later *l = g_new(Later, 1);
  *l = (Later){mf, runs};
  tes_epoch_defer(later_run, l);
}

/* ---- Copying ---- */

static int write_all(TesMemFile *mf, goffset dst, const guint8 *src, gsize len) {
  while (len > 0) {
    ssize_t n = pwrite(mf->fd, src, len, dst);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 && errno == ENOSPC ? -ENOMEM : -EFAULT;
    src += n;
    dst += n;
    len -= (gsize)n;
  }
  return 0;
}

/* Does the page hold data that is merely not in memory now (swapped out), or is it a hole? */
static gboolean is_hole(TesMemFile *mf, goffset off) { return lseek(mf->fd, off, SEEK_DATA) != off; }

int tes_memfile_copy_page_run(TesMemFile *mf, goffset dst, const void *src, gsize len) {
  if (!tes_memfile_has(mf, src))
    return write_all(mf, dst, src, len);
  guint8 here[256];
  for (gsize done = 0; done < len;) {
    gsize part = MIN(len - done, sizeof here * TES_PAGE_SIZE), n = part >> TES_PAGE_SHIFT;
    const guint8 *from = (const guint8 *)src + done;
    if (mincore((void *)(gulong)from, part, here) < 0)
      return -EFAULT;
    for (gsize i = 0; i < n;) {
      gsize first = i;
      while (i < n && ((here[i] & 1) || !is_hole(mf, tes_memfile_offset(mf, from + i * TES_PAGE_SIZE))))
        i++;
      int r = i > first ? write_all(mf, dst + (goffset)(done + first * TES_PAGE_SIZE),
                                    from + first * TES_PAGE_SIZE, (i - first) * TES_PAGE_SIZE)
                        : 0;
      if (r < 0)
        return r;
      i += i < n;
    }
    done += part;
  }
  return 0;
}

/* ---- Life ---- */

/* What the host could give now without killing something for it. */
static guint64 host_memory(void) {
  guint64 kib = 0;
  char line[128];
  FILE *f = fopen("/proc/meminfo", "re");
  while (f && fgets(line, sizeof line, f)) {
    if (g_str_has_prefix(line, "MemAvailable:"))
      kib += g_ascii_strtoull(line + 13, NULL, 10);
    else if (g_str_has_prefix(line, "SwapFree:"))
      kib += g_ascii_strtoull(line + 9, NULL, 10);
  }
  if (f)
    fclose(f);
  return kib ? kib << 10 : 4ULL << 30;
}

/* The largest sparse size that the host lets the kernel map. */
static gboolean map_sparse(TesMemFile *mf) {
  for (mf->size = SIZE_MAX_WANTED; mf->size >= SIZE_MIN_WANTED; mf->size /= 2) {
    if (ftruncate(mf->fd, (off_t)mf->size) < 0)
      continue;
    gsize table = mf->size / TES_PAGE_SIZE * sizeof *mf->refs;
    void *p = mmap(NULL, mf->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mf->fd, 0);
    void *r = mmap(NULL, table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED && r != MAP_FAILED) {
      mf->base = p;
      mf->refs = r;
      madvise(p, mf->size, MADV_DONTDUMP);
      madvise(r, table, MADV_DONTDUMP);
      return TRUE;
    }
    if (p != MAP_FAILED)
      munmap(p, mf->size);
    if (r != MAP_FAILED)
      munmap(r, table);
  }
  return FALSE;
}

guint64 tes_memfile_limit(const TesMemFile *mf) { return mf->limit; }

TesMemFile *tes_memfile_new(guint64 limit, GError **error) {
  TesMemFile *mf = g_new0(TesMemFile, 1);
  tes_safe_init();
  mf->fd = memfd_create("tessera-memory", MFD_CLOEXEC);
  if (mf->fd < 0 || !map_sparse(mf)) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED,
                "cannot make the memory file: %s; raise the address-space and file-size limits (ulimit -v, "
                "ulimit -f)",
                g_strerror(errno));
    if (mf->fd >= 0)
      close(mf->fd);
    g_free(mf);
    return NULL;
  }
  mf->limit = limit ? limit : host_memory();
  mf->low = mf->size;
  mf->dead = g_array_new(FALSE, FALSE, sizeof(TesRun));
  tes_mutex_init(&mf->lock, &memfile_class);
  /* Offset 0 stays unused, so that a zero offset in a dump is always a mistake. */
  free_insert(mf, TES_PAGE_SIZE, mf->size - TES_PAGE_SIZE);
  return mf;
}

void tes_memfile_free(TesMemFile *mf) {
  for (TesTreeNode *n = tes_tree_first(&mf->free_tree), *next; n; n = next) {
    next = tes_tree_next(n);
    tes_tree_remove(&mf->free_tree, n);
    g_free(n);
  }
  tes_memfile_account_free(mf);
  munmap(mf->base, mf->size);
  munmap(mf->refs, mf->size / TES_PAGE_SIZE * sizeof *mf->refs);
  close(mf->fd);
  g_array_free(mf->dead, TRUE);
  tes_mutex_clear(&mf->lock);
  g_free(mf);
}

const TesStateOps tes_state_memfile = {.size = sizeof(TesStateOps), .section = "memfile", .version = 1};
