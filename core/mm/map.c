/* SPDX-License-Identifier: Apache-2.0 */
/* mmap(2), munmap(2), brk(2): checks, placement, limits, and what is mapped at once. */
#include <core/mm/private.h>
#include <sys/mount.h>

/* ---- Limits and placement ---- */

int tes_limit_check(TesMM *mm, gsize len, gboolean is_data) {
  if (tes_mm_limit(&mm->as_limit) != RLIM_INFINITY &&
      (mm->pages << TES_PAGE_SHIFT) + len > tes_mm_limit(&mm->as_limit))
    return -ENOMEM;
  if (is_data && tes_mm_limit(&mm->data_limit) != RLIM_INFINITY &&
      (mm->data_pages << TES_PAGE_SHIFT) + len > tes_mm_limit(&mm->data_limit))
    return -ENOMEM;
  return 0;
}

static gboolean hint_free(TesMM *mm, gulong at, gsize len) {
  if (at < mm->min_addr || at > mm->max_addr || len > mm->max_addr - at)
    return FALSE;
  TesVma *v = tes_vma_first(mm, at);
  if (!v)
    return TRUE;
  gulong edge = tes_vma_start(v);
  if (v->flags & TES_VMA_GROWSDOWN)
    edge -= MIN(edge, TES_STACK_GUARD);
  return at + len <= edge;
}

gulong tes_place(TesMM *mm, gulong hint, gsize len, guint flags) {
  hint = TES_PAGE_UP(hint);
  if (flags & MAP_32BIT) {
    if (hint && hint + len <= 1UL << 31 && hint_free(mm, hint, len))
      return hint;
    return tes_vma_gap(mm, len, 0x40000000UL, 1UL << 31);
  }
  if (hint && hint_free(mm, hint, len))
    return hint;
  gulong at = tes_vma_gap(mm, len, mm->min_addr, mm->layout.mmap_top);
  return at ? at : tes_vma_gap(mm, len, mm->layout.mmap_top, mm->max_addr);
}

/* ---- Unmapping ---- */

int tes_unmap_range(TesMM *mm, gulong start, gulong end) {
  TesVma *v = tes_vma_first(mm, start);
  if (!v || tes_vma_start(v) >= end)
    return 0;
  int r = tes_vma_isolate(mm, start, end);
  if (r < 0)
    return r;
  TesChange c;
  tes_change_init(&c);
  tes_mutex_lock(&mm->pages_lock);
  tes_change_unmap(&c, start, end - start);
  r = tes_change_apply(mm, &c);
  if (r == 0)
    tes_pages_clear(mm, &c, start, end, TES_CLEAR_SLOTS);
  tes_change_finish(mm, &c);
  tes_mutex_unlock(&mm->pages_lock);
  if (r < 0)
    return r;
  tes_patch_forget(mm, start, end);
  while ((v = tes_vma_first(mm, start)) && tes_vma_start(v) < end)
    tes_vma_remove(mm, v);
  return 0;
}

/* The end of the mapping that began at addr, of which [addr, first vma) may have been unmapped before: as far as vmas of the source
 * lie where it would have put them. */
int tes_mm_unmap_source(TesMM *mm, gulong addr, const TesMapSourceOps *ops) {
  TesMapSource *source = NULL;
  int r = -EINVAL;
  tes_mm_lock(mm);
  for (TesVma *v = tes_vma_first(mm, addr), *next; v; v = next) {
    gulong start = tes_vma_start(v), end = v->end;
    next = tes_vma_next(v);
    gboolean ours = v->source && v->source->ops == ops && start - addr == (gulong)v->off &&
                    (!source || v->source == source);
    if (!ours)
      continue;
    source = v->source;
    r = tes_unmap_range(mm, start, end);
    if (r < 0)
      break;
    next = tes_vma_first(mm, end);
  }
  tes_mm_unlock(mm);
  return r;
}

int tes_mm_munmap(TesMM *mm, gulong addr, gulong len) {
  if ((addr & ~TES_PAGE_MASK) || len == 0 || len > mm->max_addr || addr > mm->max_addr - len)
    return -EINVAL;
  tes_mm_lock(mm);
  int r = tes_unmap_range(mm, addr, addr + TES_PAGE_UP(len));
  tes_mm_unlock(mm);
  return r;
}

/* ---- mmap: what is asked for ---- */

typedef struct {
  gsize len;
  guint prot, may, vflags;
  TesMapSource *source; /* referenced */
  goffset off;
  gboolean has_key; /* code to be searched for CPUID */
  TesCodeKey key;
} Plan;

#define KNOWN_FLAGS                                                                                    \
  (MAP_TYPE | MAP_FIXED | MAP_ANONYMOUS | MAP_32BIT | MAP_GROWSDOWN | MAP_DENYWRITE | MAP_EXECUTABLE | \
   MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK | MAP_HUGETLB |                \
   MAP_FIXED_NOREPLACE | 0x4000000 /* UNINITIALIZED */)

static gboolean on_noexec(TesFile *f) {
  return f->path && (f->path->vfs->ops->mount_flags(f->path) & MS_NOEXEC);
}

/* memfd_create(2): no later mprotect(2) makes such a mapping writable. */
static gboolean sealed_against_writing(TesFile *f, TesCtx *ctx) {
  int seals = TES_HAS(f->ops, seals) ? f->ops->seals(f, ctx, TES_SEALS_GET, 0) : 0;
  return seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

static int plan_file(TesMM *mm, const TesMmapArgs *a, Plan *p) {
  TesFile *f = a->file;
  gboolean shared = p->vflags & TES_VMA_SHARED;
  if (!tes_file_readable(f) || (shared && (p->prot & PROT_WRITE) && !tes_file_writable(f)))
    return -EACCES;
  if (!TES_HAS(f->ops, map))
    return -ENODEV;
  if (p->vflags & TES_VMA_GROWSDOWN)
    return -EINVAL;
  if (on_noexec(f)) {
    if (p->prot & PROT_EXEC)
      return -EPERM;
    p->may &= ~(guint)PROT_EXEC;
  }
  if (shared && !tes_file_writable(f))
    p->may &= ~(guint)PROT_WRITE;
  if (shared && sealed_against_writing(f, tes_mm_ctx(mm, a->task)))
    p->may &= ~(guint)PROT_WRITE;
  return f->ops->map(f, tes_mm_ctx(mm, a->task), p->prot, shared, &p->source);
}

/* Everything that needs no lock. */
static int plan(TesMM *mm, const TesMmapArgs *a, Plan *p) {
  guint type = a->flags & MAP_TYPE;
  if (a->len == 0 || (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE))
    return -EINVAL;
  if (type == MAP_SHARED_VALIDATE && a->file && (a->flags & ~(guint)KNOWN_FLAGS))
    return -EOPNOTSUPP;
  if ((a->flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && (a->addr & ~TES_PAGE_MASK))
    return -EINVAL;
  if (a->len > mm->max_addr)
    return -ENOMEM;
  p->len = TES_PAGE_UP(a->len);
  p->off = a->file || a->source ? a->off : 0;
  if (p->off & (goffset)~TES_PAGE_MASK)
    return -EINVAL;
  if (p->off < 0 || p->off > G_MAXINT64 - (goffset)p->len)
    return -EOVERFLOW;
  if (a->flags & MAP_HUGETLB)
    return a->file ? -EINVAL : -ENOMEM; /* a host without reserved huge pages */
  p->prot = a->prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
  if (a->task && (a->task->personality & 0x0400000 /* READ_IMPLIES_EXEC */) && (p->prot & PROT_READ))
    p->prot |= a->file && on_noexec(a->file) ? 0 : PROT_EXEC;
  p->may = PROT_READ | PROT_WRITE | PROT_EXEC;
  p->vflags =
      (type != MAP_PRIVATE ? TES_VMA_SHARED : 0) | (a->flags & MAP_GROWSDOWN ? TES_VMA_GROWSDOWN : 0) |
      (a->flags & MAP_NORESERVE ? TES_VMA_NORESERVE : 0) | (a->flags & MAP_LOCKED ? TES_VMA_LOCKED : 0);
  if (a->source) {
    a->source->ops->ref(a->source);
    p->source = a->source;
  } else if (a->file) {
    return plan_file(mm, a, p);
  } else if (type != MAP_PRIVATE) {
    if (p->vflags & TES_VMA_GROWSDOWN)
      return -EINVAL;
    p->source = tes_shm_source_new(mm->kernel, p->len);
    if (!p->source)
      return -ENOMEM;
  }
  return 0;
}

/* ---- mmap: doing it ---- */

static glong choose(TesMM *mm, const TesMmapArgs *a, const Plan *p) {
  if (!(a->flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))) {
    gulong at = tes_place(mm, a->addr, p->len, a->flags);
    return at ? (glong)at : -ENOMEM;
  }
  if (a->addr > mm->max_addr || p->len > mm->max_addr - a->addr)
    return -ENOMEM;
  if (a->addr < mm->min_addr)
    return -EPERM;
  if (a->flags & MAP_FIXED_NOREPLACE) {
    TesVma *v = tes_vma_first(mm, a->addr);
    if (v && tes_vma_start(v) < a->addr + p->len)
      return -EEXIST;
  }
  return (glong)a->addr;
}

static gulong overlap_pages(TesMM *mm, gulong start, gulong end) {
  gulong n = 0;
  for (TesVma *v = tes_vma_first(mm, start); v && tes_vma_start(v) < end; v = tes_vma_next(v))
    n += tes_pages_of(MAX(start, tes_vma_start(v)), MIN(end, v->end));
  return n;
}

static int check_limits(TesMM *mm, const Plan *p, gulong at) {
  gsize replaced = overlap_pages(mm, at, at + p->len) << TES_PAGE_SHIFT,
        more = p->len - MIN(p->len, replaced);
  int r = tes_limit_check(mm, more, tes_is_data(p->prot, p->vflags));
  if (r == 0 && tes_is_data(p->prot, p->vflags) && !(p->vflags & TES_VMA_NORESERVE) && !p->source &&
      p->len > mm->mf->limit)
    r = -ENOMEM;
  if (r == 0 && (p->vflags & TES_VMA_LOCKED) && tes_mm_limit(&mm->lock_limit) != RLIM_INFINITY &&
      (mm->locked_pages << TES_PAGE_SHIFT) + p->len > tes_mm_limit(&mm->lock_limit))
    r = -EAGAIN;
  /* One for the new vma, one for a split of what it replaces. */
  if (r == 0 && mm->n_vmas + 2 > TES_VMA_MAX)
    r = -ENOMEM;
  return r;
}

/* What is mapped at once. Failures of a source wait for the fault that needs the page. */
static int populate(TesMM *mm, TesVma *v, guint flags) {
  gulong start = tes_vma_start(v), len = v->end - start;
  if (v->prot == PROT_NONE)
    return 0;
  if (v->source) {
    gboolean shm = tes_source_is_shm(v->source);
    if (tes_vma_private(v) && (v->prot & PROT_WRITE) && len <= TES_COPY_SEGMENT)
      return tes_source_copy(mm, v);
    gsize most = !shm && !tes_vma_private(v) && (v->prot & PROT_WRITE) ? TES_LEAF_SIZE : TES_EAGER_MAX;
    tes_source_populate(mm, v, start, start + MIN(len, most), start);
    return 0;
  }
  if ((v->flags & TES_VMA_NORESERVE) || len > tes_eager_max(mm))
    return 0;
  TesChange c;
  tes_change_init(&c);
  TES_LOCKED(&mm->pages_lock);
  int r = tes_anon_populate(mm, v, &c, start, v->end, flags & MAP_POPULATE ? TES_MAP_POPULATE : 0);
  if (r == 0)
    r = tes_change_apply(mm, &c);
  if (r == -ENOMEM && tes_mm_compact(mm) == 0)
    r = tes_change_apply(mm, &c);
  c.n = 0;
  tes_change_finish(mm, &c);
  return r;
}

static void defer(TesMM *mm, const TesVma *v) {
  TES_LOCKED(&mm->pages_lock);
  tes_defer_begin(mm, tes_vma_start(v), v->end);
}

/* What a dynamic loader does first for a library: more mappings over this one follow before it is touched. */
static gboolean lays_out_library(const TesMmapArgs *a, const TesVma *v) {
  return v->source && (a->flags & MAP_DENYWRITE) && !(a->flags & MAP_POPULATE) &&
         !(v->flags & (TES_VMA_SHARED | TES_VMA_LOCKED));
}

static glong map_locked(TesMM *mm, const TesMmapArgs *a, Plan *p) {
  glong at = choose(mm, a, p);
  if (at < 0)
    return at;
  if (mm->dropped)
    return -ENOMEM;
  p->vflags |= mm->def_flags;
  const TesVma *first = tes_vma_first(mm, (gulong)at);
  gboolean fresh = !first || tes_vma_start(first) >= (gulong)at + p->len;
  int r = check_limits(mm, p, (gulong)at);
  if (r == 0)
    r = tes_unmap_range(mm, (gulong)at, (gulong)at + p->len);
  if (r < 0)
    return r;
  TesVma *v = tes_vma_new(mm, (gulong)at, (gulong)at + p->len);
  v->prot = (guint8)p->prot;
  v->may = (guint8)p->may;
  v->flags = (guint16)p->vflags;
  v->name = a->name;
  v->file = a->file ? tes_file_ref(a->file) : NULL;
  v->off = p->off;
  v->source = g_steal_pointer(&p->source);
  tes_vma_insert(mm, v);
  if (fresh && lays_out_library(a, v))
    defer(mm, v);
  r = populate(mm, v, a->flags);
  if (r < 0) {
    tes_unmap_range(mm, (gulong)at, v->end);
    return r;
  }
  if (p->has_key)
    tes_cpuid_patch(mm, v, &p->key);
  if ((a->flags & MAP_POPULATE && !(a->flags & MAP_NONBLOCK)) ||
      (p->vflags & (TES_VMA_LOCKED | TES_VMA_LOCKONFAULT)) == TES_VMA_LOCKED)
    tes_mm_touch(mm, v, (gulong)at, v->end);
  tes_vma_merge(mm, v);
  return at;
}

glong tes_mm_mmap(TesMM *mm, const TesMmapArgs *a) {
  Plan p = {0};
  glong r = plan(mm, a, &p);
  if (r == 0) {
    p.has_key = tes_cpuid_wanted(mm, a, p.prot, p.vflags, &p.key);
    tes_mm_note_limits(mm, a->task);
    tes_mm_lock(mm);
    if (!a->task)
      mm->as_limit = a->limit_as ? a->limit_as : RLIM_INFINITY;
    r = map_locked(mm, a, &p);
    tes_mm_unlock(mm);
  }
  if (p.source)
    p.source->ops->unref(p.source);
  return r;
}

int tes_map_anon(TesMM *mm, gulong start, gsize len, guint prot, guint vflags, const char *name) {
  Plan p = {.len = len, .prot = prot, .may = PROT_READ | PROT_WRITE | PROT_EXEC, .vflags = vflags};
  TesMmapArgs a = {.addr = start,
                   .len = len,
                   .prot = prot,
                   .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                   .name = name};
  glong r = map_locked(mm, &a, &p);
  return r < 0 ? (int)r : 0;
}

/* ---- brk ---- */

static gboolean brk_move(TesMM *mm, gulong addr) {
  gulong from = TES_PAGE_UP(mm->brk), to = TES_PAGE_UP(addr);
  if (addr < mm->layout.brk_start || addr >= mm->max_addr || !mm->layout.brk_start)
    return FALSE;
  gulong data = addr - mm->layout.brk_start + (mm->layout.data_end - mm->layout.data_start);
  if (addr > mm->brk && tes_mm_limit(&mm->data_limit) != RLIM_INFINITY &&
      data > tes_mm_limit(&mm->data_limit))
    return FALSE;
  if (to == from)
    return TRUE;
  if (to < from)
    return tes_unmap_range(mm, to, from) == 0;
  /* A page stays free above, the guard gap below a stack. */
  return hint_free(mm, from, to - from + TES_PAGE_SIZE) &&
         tes_map_anon(mm, from, to - from, PROT_READ | PROT_WRITE, 0, "[heap]") == 0;
}

glong tes_mm_brk(TesMM *mm, TesTask *t, gulong addr) {
  tes_mm_note_limits(mm, t);
  tes_mm_lock(mm);
  if (brk_move(mm, addr))
    mm->brk = addr;
  glong r = (glong)mm->brk;
  tes_mm_unlock(mm);
  return r;
}
