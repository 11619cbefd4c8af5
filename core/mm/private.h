/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of core/mm share: the address space, its vmas, its page map and pending changes of the platform.
 *
 * Two locks. map_lock: vmas, layout, counters; every system call that changes the address space and every slow fault
 * takes it. pages_lock: page-map entries together with the platform's mappings, so that the two agree; truncation takes
 * it without map_lock. Entries are read without a lock inside an epoch. */
#pragma once

#include <core/mm/memfile.h>
#include <core/mm/mm.h>
#include <core/mm/safe.h>
#include <core/task/task.h>
#include <string.h>
#include <sys/mman.h>

#define TES_VMA_MAX 65530
#define TES_LEAF_SIZE (2UL << 20)
#define TES_LEAF_PAGES 512
#define TES_EAGER_MAX (64UL << 20) /* anonymous ranges up to this get memory offsets at mmap */
#define TES_COW_BLOCK (64UL << 10) /* copied at once; */
#define TES_COW_FIRST (16UL << 10) /* this much by the first breaks after a fork: exec usually follows */
#define TES_COW_FEW 16
#define TES_STACK_GUARD (256 * TES_PAGE_SIZE)
#define TES_COPY_SEGMENT (256UL << 10) /* writable private file mappings up to this are copied at mmap */

/* ---- Page map ---- */

/* An entry is the kernel's address of the page with flags in its low bits; 0: nothing there. */
typedef guint64 TesPte;
enum {
  TES_PTE_READ = 1,  /* the guest may read it: the kernel may copy from it */
  TES_PTE_WRITE = 2, /* the guest may write it now */
  TES_PTE_ANON = 4,  /* page of a private mapping, not of its source */
  TES_PTE_OWNED = 8, /* ANON and nobody else's */
  TES_PTE_MEM = 16,  /* in the memory file, holds one reference */
  /* ANON page with code that Tessera changed (patch.c): never writable; readers get the original bytes */
  TES_PTE_PATCHED = 32,
};
#define TES_PTE_FLAGS 0xfffUL
static inline guint8 *tes_pte_page(TesPte e) { return (guint8 *)(e & ~TES_PTE_FLAGS); }

/* 2 MiB of entries. The slots are offsets reserved in the memory file in the same shape: page i, if it is taken from
 * there, has offset slots + i pages, so that what is filled piece by piece merges on the host. */
typedef struct _TesLeaf TesLeaf;
struct _TesLeaf {
  TesPte e[TES_LEAF_PAGES]; /* written under pages_lock */
  gulong base;              /* address of e[0] */
  TesLeaf *next, **link;    /* all leaves of the address space; pages_lock, as what follows */
  guint present;
  goffset slots; /* -1: none reserved */
  guint64 free_slots[TES_LEAF_PAGES / 64];
};

#define TES_TOP_BITS 8
#define TES_DIR_BITS 9
#define TES_ADDR_LIMIT (1UL << 47)
typedef struct _TesDir TesDir;
struct _TesDir {
  gpointer sub[1 << TES_DIR_BITS];
  TesDir *next; /* all of the address space: its end need not search them */
};

/* ---- Vmas ---- */

enum {
  TES_VMA_SHARED = 1 << 0,
  TES_VMA_GROWSDOWN = 1 << 1,
  TES_VMA_NORESERVE = 1 << 2,
  TES_VMA_LOCKED = 1 << 3,
  TES_VMA_LOCKONFAULT = 1 << 4,
  TES_VMA_DONTFORK = 1 << 5,
  TES_VMA_WIPEONFORK = 1 << 6,
  TES_VMA_DONTDUMP = 1 << 7,
};

/* Guarded by map_lock; start, end and off of a vma with a source are changed under the source's lock as well. */
typedef struct _TesVma TesVma;
typedef struct _TesHot TesHot;
struct _TesVma {
  TesTreeNode node; /* key: start; val: free bytes below */
  gulong end;
  TesMM *mm;
  guint8 prot, may; /* PROT_*: allowed now; what mprotect may allow */
  guint16 flags;
  TesFile *file;        /* owned, or NULL */
  TesMapSource *source; /* owned, or NULL: anonymous private memory */
  goffset off;          /* of the start in the source */
  const char *name;     /* static string, or NULL */
  GList link;           /* in source->maps */
  TesMapPiece piece;    /* the last of the source outside the memory file that was mapped; len 0: none */
  TesVma *next_dead;
};
#define tes_vma_start(v) ((v)->node.key)

/* Bytes of guest code that Tessera has changed. Counts only while its page has TES_PTE_PATCHED: what takes the page away
 * (truncation, say) takes the patch away. */
typedef enum { TES_PATCH_REWRITE, TES_PATCH_CPUID } TesPatchKind;
typedef struct {
  gulong addr;
  guint8 len, kind; /* kind: TesPatchKind */
  guint8 old[16], new[16];
} TesPatch;

struct _TesMM {
  gint refs, users;
  TesKernel *kernel;
  TesMemFile *mf;
  TesAspace *aspace;
  guint64 id;
  gulong min_addr, max_addr;

  TesMutex map_lock;
  TesTree vmas;
  guint n_vmas;
  gulong pages, data_pages, stack_pages, exec_pages, locked_pages, peak_pages, peak_rss;
  gulong brk;
  TesMMLayout layout;
  TesFile *exe;
  guint64 *auxv;
  gsize auxv_len;
  guint def_flags; /* mlockall(MCL_FUTURE): TES_VMA_LOCKED, TES_VMA_LOCKONFAULT */
  guint64 stack_limit, as_limit, data_limit,
      lock_limit;      /* soft limits as last seen: their lock comes before map_lock */
  TesVma *dead;        /* removed, to be freed after the lock */
  gboolean dropped;    /* the last user has gone */
  GArray *patches;     /* TesPatch, by address; NULL: none */
  guint rewrites;      /* of them TES_PATCH_REWRITE */
  gboolean no_rewrite; /* none any more: tes_mm_unpatch_all() */
  gint moves;          /* atomic: times that own pages became shared or moved; see tes_iov_unpin_written() */
  /* a fault that looked like a violation was tried once more: whose, and the changes seen then */
  const TesTask *retry_task;
  gulong retry_addr;
  guint64 retry_changes;

  TesMutex pages_lock;
  gpointer top[1 << TES_TOP_BITS];
  TesLeaf *leaves;
  TesDir *dirs;
  gulong defer_lo, defer_hi; /* nothing is mapped here yet (defer.c); hi 0: no such range */
  GArray *deferred;          /* TesMapOp for that range, all MAP, without overlaps */
  guint64 invalidations;     /* how often truncation took pages away */
  guint64 changes;           /* batches handed to the platform */
  guint breaks;              /* copies on write since the last fork */
  TesHot *hot; /* pages that forks copy at once (hot.c), shared with relatives; NULL before the first fork */
  guint noted; /* breaks that were noted there since the last fork */
  guint scattered; /* estimate of the host's mappings made by copy-on-write */
};

#define TES_TOP_SHIFT 39
#define TES_MID_SHIFT 30
#define TES_LEAF_SHIFT 21

static inline TesLeaf *tes_leaf(const TesMM *mm, gulong addr) {
  if (addr >= TES_ADDR_LIMIT)
    return NULL;
  const TesDir *d = __atomic_load_n(&mm->top[addr >> TES_TOP_SHIFT], __ATOMIC_ACQUIRE);
  if (!d)
    return NULL;
  d = __atomic_load_n(&d->sub[(addr >> TES_MID_SHIFT) & 511], __ATOMIC_ACQUIRE);
  return d ? __atomic_load_n(&d->sub[(addr >> TES_LEAF_SHIFT) & 511], __ATOMIC_ACQUIRE) : NULL;
}
static inline guint tes_leaf_index(gulong addr) { return (addr >> TES_PAGE_SHIFT) & (TES_LEAF_PAGES - 1); }
/* Without a lock only inside an epoch. */
static inline TesPte tes_pte(const TesMM *mm, gulong addr) {
  const TesLeaf *l = tes_leaf(mm, addr);
  return l ? __atomic_load_n(&l->e[tes_leaf_index(addr)], __ATOMIC_ACQUIRE) : 0;
}
static inline void tes_pte_store(TesLeaf *l, guint i, TesPte e) {
  l->present = l->present + (e != 0) - (l->e[i] != 0);
  __atomic_store_n(&l->e[i], e, __ATOMIC_RELEASE);
}
/* For a look from outside both. */
static inline TesPte tes_pte_peek(const TesMM *mm, gulong addr) {
  tes_epoch_enter();
  TesPte e = tes_pte(mm, addr);
  tes_epoch_leave();
  return e;
}

/* pagemap.c; pages_lock held */
TesLeaf *tes_leaf_get(TesMM *, gulong addr); /* made if missing; never NULL */
/* The first existing leaf that covers something of [addr, end); NULL: none. */
TesLeaf *tes_leaf_next(const TesMM *, gulong addr, gulong end);
/* Takes offsets for n pages from index i: from the leaf's slots, or -ENOMEM. `renew`: a used-up set of slots is replaced. */
goffset tes_leaf_take(TesMM *, TesLeaf *, guint i, guint n, gboolean renew);
void tes_pagemap_free(TesMM *);

/* ---- A change: operations for the platform in one batch, and pages to let go once it is done ---- */

typedef struct {
  TesMapOp *op;
  guint n, cap;
  TesMapOp few[8];
  TesRun *run;
  guint n_runs, cap_runs;
  TesRun few_runs[8];
} TesChange;

void tes_change_init(TesChange *);
void tes_change_map(TesChange *, gulong addr, gsize len, guint prot, int fd, goffset off, guint flags);
void tes_change_unmap(TesChange *, gulong addr, gsize len);
void tes_change_protect(TesChange *, gulong addr, gsize len, guint prot);
void tes_change_drop(TesChange *, goffset off, gsize len); /* one reference of each page */
/* Hands the operations over; pages_lock held. After an error they are still listed and may be tried again. */
int tes_change_apply(TesMM *, TesChange *);
/* Lets the pages go past the epoch, frees the lists. After apply, or when nothing was ever mapped. */
void tes_change_finish(TesMM *, TesChange *);

/* defer.c; pages_lock held */
static inline gboolean tes_deferring(const TesMM *mm, gulong addr) {
  return addr >= mm->defer_lo && addr < mm->defer_hi;
}
/* From now on changes in [lo, hi), where the platform has nothing mapped, wait. Ends an earlier range unless it holds lo. */
int tes_defer_begin(TesMM *, gulong lo, gulong hi);
/* The range exists. TRUE: the whole change lies in it and was taken. */
gboolean tes_defer_change(TesMM *, const TesChange *);
/* The range exists: hands over what waits, then `c` (may be NULL), and ends the range. 0 or -errno. */
int tes_defer_flush(TesMM *, const TesChange *c);
void tes_defer_sort(TesMapOp *ops,
                    guint n); /* operations that do not overlap, for few changes of descriptor */

/* pagemap.c: ranges; pages_lock held */
enum { TES_CLEAR_SLOTS = 1, TES_CLEAR_KEEP_ANON = 2 };
void tes_pages_clear(TesMM *, TesChange *, gulong start, gulong end, guint flags);
void tes_pages_clear_all(TesMM *, TesChange *); /* and their slots, by the list of leaves */
/* First address >= start in [start, end) whose presence is `present`, else end. */
gulong tes_pages_find(const TesMM *, gulong start, gulong end, gboolean present);
/* Prot that the platform gets for an entry of a vma. */
guint tes_pte_prot(const TesVma *, TesPte);
/* Sets the access flags of an entry from its vma. */
TesPte tes_pte_for(const TesVma *, TesPte);
/* MAP operations for present memory-file entries of [start, end). */
void tes_pages_replay(TesMM *, const TesVma *, TesChange *, gulong start, gulong end);

/* vma.c; map_lock held */
void tes_mm_lock(TesMM *);
void tes_mm_unlock(TesMM *); /* also frees dead vmas, outside the lock */
TesVma *tes_vma_new(TesMM *, gulong start, gulong end);
TesVma *tes_vma_copy(const TesVma *, TesMM *);
TesVma *tes_vma_find(TesMM *, gulong addr);  /* that holds addr */
TesVma *tes_vma_first(TesMM *, gulong addr); /* first that ends above addr */
static inline TesVma *tes_vma_next(const TesVma *v) { return (TesVma *)tes_tree_next(&v->node); }
static inline TesVma *tes_vma_prev(const TesVma *v) { return (TesVma *)tes_tree_prev(&v->node); }
void tes_vma_insert(TesMM *, TesVma *);
void tes_vma_remove(TesMM *, TesVma *); /* to the dead list */
void tes_vma_resize(TesMM *, TesVma *, gulong start, gulong end);
void tes_vma_set(TesMM *, TesVma *, guint prot, guint flags); /* with the counters */
TesVma *tes_vma_merge(TesMM *, TesVma *);                     /* with its neighbours; the vma that remains */
/* Splits vmas at start and end. -ENOMEM: too many. */
int tes_vma_isolate(TesMM *, gulong start, gulong end);
gboolean tes_range_mapped(TesMM *, gulong start, gulong end); /* no hole */
/* A free range in [lo, hi), as high as possible; 0: none. */
gulong tes_vma_gap(TesMM *, gsize len, gulong lo, gulong hi);
/* Anonymous memory that is handed out before it is touched. Little where a limit counts what is. */
static inline gsize tes_eager_max(const TesMM *mm) {
  return G_UNLIKELY(tes_memfile_accounts(mm->mf)) && tes_memfile_watches_me(mm->mf) ? TES_LEAF_SIZE
                                                                                    : TES_EAGER_MAX;
}
static inline gulong tes_pages_of(gulong start, gulong end) { return (end - start) >> TES_PAGE_SHIFT; }
static inline gboolean tes_vma_private(const TesVma *v) { return !(v->flags & TES_VMA_SHARED); }

TesMM *tes_mm_alloc(TesKernel *); /* mm.c: without a platform's address space */

/* populate.c; map_lock and pages_lock held */
/* Gives absent pages of [start, end) of a private anonymous vma memory, and maps it. */
int tes_anon_populate(TesMM *, TesVma *, TesChange *, gulong start, gulong end, guint op_flags);
/* map_lock held, pages_lock not: maps pages of the vma's source, as far as it has any. 0 or the source's error
 * if the page at `need` could not be had. */
int tes_source_populate(TesMM *, TesVma *, gulong start, gulong end, gulong need);
/* Private copies of the source's pages of the whole vma. */
int tes_source_copy(TesMM *, TesVma *);
/* Makes the pages really exist (MAP_POPULATE, mlock). map_lock held. */
int tes_mm_touch(TesMM *, TesVma *, gulong start, gulong end);

/* fault.c; map_lock held */
enum {
  TES_NEED_WRITE = 1,
  TES_NEED_FORCE = 2, /* private memory whatever its protection */
  TES_NEED_APPLY = 4, /* the guest faulted: map it again even if the page map is right */
};
/* Makes the page at addr accessible: 0, -EFAULT (no such mapping), -EACCES, -ENOMEM, or a source's error (SIGBUS). */
int tes_mm_resolve(TesMM *, gulong addr, guint need);
/* The same with the lock, for copying. */
int tes_mm_resolve_unlocked(TesMM *, gulong addr, guint need);
static inline guint64 tes_mm_limit(const guint64 *limit) { return __atomic_load_n(limit, __ATOMIC_RELAXED); }
void tes_mm_note_limits(TesMM *, TesTask *); /* task may be NULL: none; no lock held */
/* cow.c; map_lock and pages_lock held */
int tes_cow_break(TesMM *, TesVma *, gulong addr);
/* hot.c; map_lock and pages_lock held */
#define TES_HOT_NOTES 24
#define TES_HOT_HINTS 4
#define TES_HOT_MAX (TES_HOT_NOTES + TES_HOT_HINTS)
typedef struct {
  guint n;
  gulong addr[TES_HOT_MAX]; /* ascending */
  goffset off;              /* of the copies, one page after the other, one reference each */
} TesHotCopy;
TesHot *tes_hot_ref(TesHot *);
void tes_hot_unref(TesHot *);
/* A page was copied on write, or taken back. */
void tes_hot_note(TesMM *, gulong addr);
/* Copies the private pages that will be written soon, those at the hints among them. n may be 0. */
void tes_hot_copy(TesMM *, const gulong *hints, guint n, TesHotCopy *out);

/* compact.c: copies scattered private ranges into contiguous memory; map_lock held */
int tes_mm_compact(TesMM *);

/* patch.c; map_lock held, pages_lock not */
/* Adds patches that lie in one page (sorted, of one kind) and puts them into a private copy of it. 0, -ENOMEM, -EFAULT (the page
 * is not there), -EBUSY (something else is patched there), -EALREADY, -EAGAIN (the bytes are not `old`). */
int tes_patch_add(TesMM *, TesVma *, const TesPatch *, guint n);
/* Restores the original bytes of all patches, or of those of a kind, in [start, end). 0 or -ENOMEM. */
int tes_patch_undo(TesMM *, gulong start, gulong end);
int tes_patch_undo_kind(TesMM *, gulong start, gulong end, TesPatchKind);
/* The range is no longer mapped, or not any more what it was. Cheap when there are none. */
void tes_patch_forget(TesMM *, gulong start, gulong end);
void tes_patch_fork(const TesMM *src, TesMM *child);
/* The same without map_lock: copies as tes_mm_copy_in() does from within one page with TES_PTE_PATCHED, but the original bytes.
 * Bytes copied; 0: the page has changed, look again. */
gsize tes_patch_copy_in(TesMM *, void *dst, gulong src, gsize n);

/* cpuid-sites.c: which file a mapping shows, so that each is searched once. */
typedef struct {
  guint64 dev, ino, size, mtime, mtime_nsec, ctime, ctime_nsec, off, len;
} TesCodeKey;
/* TRUE: the mapping asked for is one to be searched; *key says of what. No lock held. */
gboolean tes_cpuid_wanted(TesMM *, const TesMmapArgs *, guint prot, guint vma_flags, TesCodeKey *key);
/* Patches the CPUID instructions of a fresh vma, as far as its pages are there. map_lock held. */
void tes_cpuid_patch(TesMM *, TesVma *, const TesCodeKey *);

/* map.c; map_lock held */
int tes_unmap_range(TesMM *, gulong start, gulong end);
gulong tes_place(TesMM *, gulong hint, gsize len, guint flags);
/* May `len` bytes more be mapped (and, with is_data, be data)? 0 or -ENOMEM. */
int tes_limit_check(TesMM *, gsize len, gboolean is_data);
/* Private anonymous memory at a free place. 0 or -errno. */
int tes_map_anon(TesMM *, gulong start, gsize len, guint prot, guint vma_flags, const char *name);
gboolean tes_is_data(guint prot, guint vma_flags);

/* source.c */
int tes_shm_source_punch(TesMapSource *, goffset off, goffset len); /* -EINVAL: not a shared-memory source */
gboolean tes_source_is_shm(const TesMapSource *);
void tes_source_link(TesVma *);
void tes_source_unlink(TesVma *);

/* protect.c; map_lock and pages_lock held: new protection for a whole vma. */
int tes_protect_vma(TesMM *, TesVma *, TesChange *, guint prot);

static inline TesCtx *tes_mm_ctx(TesMM *mm, TesTask *t) { return t ? (TesCtx *)t : &mm->kernel->supervisor; }
