/* SPDX-License-Identifier: Apache-2.0 */
/* madvise(2), msync(2). What must be said to files is said after map_lock, which comes below filesystem locks. */
#include <core/mm/private.h>
#include <fcntl.h>
#include <linux/falloc.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* A range of a file (or of shared memory without one) to be dealt with after the lock. */
typedef struct {
  TesFile *file;
  TesMapSource *source;
  goffset off, len;
} FileRange;

static void later_add(GArray *later, const TesVma *v, gulong start, gulong end) {
  FileRange r = {v->file, v->source, v->off + (goffset)(start - tes_vma_start(v)), (goffset)(end - start)};
  if (r.file)
    tes_file_ref(r.file);
  r.source->ops->ref(r.source);
  g_array_append_val(later, r);
}

static void later_clear(GArray *later) {
  for (guint i = 0; i < later->len; i++) {
    FileRange *r = &g_array_index(later, FileRange, i);
    if (r->file)
      tes_file_unref(r->file);
    r->source->ops->unref(r->source);
  }
  g_array_free(later, TRUE);
}

/* ---- MADV_DONTNEED, MADV_FREE ---- */

/* Pages of a single owner become holes of the memory file: every mapping of them stays and reads zeros. */
static gulong zero_owned(TesMM *mm, gulong at, gulong end) {
  TesPte first = tes_pte(mm, at);
  gsize len = 0;
  goffset off = tes_memfile_offset(mm->mf, tes_pte_page(first));
  while (at + len < end) {
    TesPte e = tes_pte(mm, at + len);
    if (e != first + len || tes_memfile_count(mm->mf, off + (goffset)len) != 1)
      break;
    len += TES_PAGE_SIZE;
  }
  return len && tes_memfile_zero(mm->mf, off, len) == 0 ? at + len : at;
}

static int dontneed(TesMM *mm, TesVma *v, gulong start, gulong end) {
  if (!tes_vma_private(v))
    return 0;
  tes_patch_forget(mm, start, end);
  TesChange c;
  tes_change_init(&c);
  TES_LOCKED(&mm->pages_lock);
  for (gulong at = tes_pages_find(mm, start, end, TRUE); at < end; at = tes_pages_find(mm, at, end, TRUE)) {
    if (!v->source && (tes_pte(mm, at) & TES_PTE_OWNED)) {
      gulong stop = zero_owned(mm, at, end);
      if (stop > at) {
        at = stop;
        continue;
      }
    }
    tes_change_unmap(&c, at, TES_PAGE_SIZE);
    tes_pages_clear(mm, &c, at, at + TES_PAGE_SIZE, 0);
    at += TES_PAGE_SIZE;
  }
  int r = tes_change_apply(mm, &c);
  if (r < 0) /* still mapped somewhere: keep the pages allocated */
    c.n = c.n_runs = 0;
  tes_change_finish(mm, &c);
  return r;
}

/* ---- One vma ---- */

static int set_flags(TesMM *mm, gulong start, gulong end, guint on, guint off) {
  TesVma *v = tes_vma_find(mm, start);
  guint flags = (v->flags | on) & ~off;
  if (flags == v->flags)
    return 0;
  int r = tes_vma_isolate(mm, start, end);
  if (r < 0)
    return r;
  v = tes_vma_find(mm, start);
  tes_vma_set(mm, v, v->prot, flags);
  tes_vma_merge(mm, v);
  return 0;
}

static int populate(TesMM *mm, TesVma *v, gulong start, gulong end, gboolean write) {
  if (v->prot == PROT_NONE || (write && !(v->prot & PROT_WRITE)))
    return -EINVAL;
  int r = tes_mm_touch(mm, v, start, end);
  return r == 0 || r == -ENOMEM ? r : -EFAULT;
}

static int advise_vma(TesMM *mm, TesVma *v, gulong start, gulong end, int advice, GArray *later) {
  gboolean locked = v->flags & TES_VMA_LOCKED;
  switch (advice) {
  case MADV_DONTNEED:
    return locked ? -EINVAL : dontneed(mm, v, start, end);
  case MADV_DONTNEED_LOCKED:
    return dontneed(mm, v, start, end);
  case MADV_FREE: /* at once: the pages may be dropped at any time */
    return locked || v->source ? -EINVAL : dontneed(mm, v, start, end);
  case MADV_REMOVE:
    if (locked || !v->source)
      return -EINVAL;
    if (tes_vma_private(v) || !(v->prot & PROT_WRITE))
      return -EACCES;
    later_add(later, v, start, end);
    return 0;
  case MADV_COLD:
  case MADV_PAGEOUT:
    return locked ? -EINVAL : 0;
  case MADV_DONTFORK:
    return set_flags(mm, start, end, TES_VMA_DONTFORK, 0);
  case MADV_DOFORK:
    return set_flags(mm, start, end, 0, TES_VMA_DONTFORK);
  case MADV_DONTDUMP:
    return set_flags(mm, start, end, TES_VMA_DONTDUMP, 0);
  case MADV_DODUMP:
    return set_flags(mm, start, end, 0, TES_VMA_DONTDUMP);
  case MADV_WIPEONFORK:
    return v->source ? -EINVAL : set_flags(mm, start, end, TES_VMA_WIPEONFORK, 0);
  case MADV_KEEPONFORK:
    return set_flags(mm, start, end, 0, TES_VMA_WIPEONFORK);
  case MADV_POPULATE_READ:
  case MADV_POPULATE_WRITE:
    return populate(mm, v, start, end, advice == MADV_POPULATE_WRITE);
  default: /* hints */
    return 0;
  }
}

static gboolean known(int advice) {
  switch (advice) {
  case MADV_NORMAL:
  case MADV_RANDOM:
  case MADV_SEQUENTIAL:
  case MADV_WILLNEED:
  case MADV_HUGEPAGE:
  case MADV_NOHUGEPAGE:
  case MADV_DONTNEED:
  case MADV_DONTNEED_LOCKED:
  case MADV_FREE:
  case MADV_REMOVE:
  case MADV_COLD:
  case MADV_PAGEOUT:
  case MADV_DONTFORK:
  case MADV_DOFORK:
  case MADV_DONTDUMP:
  case MADV_DODUMP:
  case MADV_WIPEONFORK:
  case MADV_KEEPONFORK:
  case MADV_POPULATE_READ:
  case MADV_POPULATE_WRITE:
    return TRUE;
  default:
    return FALSE;
  }
}

static int advise_range(TesMM *mm, gulong start, gulong end, int advice, GArray *later) {
  gboolean hole = FALSE, strict = advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE;
  while (start < end) {
    TesVma *v = tes_vma_first(mm, start);
    if (!v || tes_vma_start(v) >= end)
      return -ENOMEM;
    if (tes_vma_start(v) > start) {
      if (strict)
        return -ENOMEM;
      hole = TRUE;
      start = tes_vma_start(v);
    }
    gulong stop = MIN(end, v->end);
    int r = advise_vma(mm, v, start, stop, advice, later);
    if (r < 0)
      return r;
    start = stop;
  }
  return hole ? -ENOMEM : 0;
}

static int remove_pages(TesMM *mm, TesTask *t, const FileRange *r) {
  if (!r->file)
    return tes_shm_source_punch(r->source, r->off, r->len);
  if (!TES_HAS(r->file->ops, fallocate))
    return -EOPNOTSUPP;
  return r->file->ops->fallocate(r->file, tes_mm_ctx(mm, t), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 r->off, r->len);
}

int tes_mm_madvise(TesMM *mm, TesTask *t, gulong addr, gulong len, int advice) {
  gulong end = addr + TES_PAGE_UP(len);
  if (!known(advice) || (addr & ~TES_PAGE_MASK) || (len && !TES_PAGE_UP(len)) || end < addr)
    return -EINVAL;
  if (end == addr)
    return 0;
  GArray *later = g_array_new(FALSE, FALSE, sizeof(FileRange));
  tes_mm_note_limits(mm, t);
  tes_mm_lock(mm);
  int r = advise_range(mm, addr, end, advice, later);
  tes_mm_unlock(mm);
  for (guint i = 0; i < later->len && (r == 0 || r == -ENOMEM); i++) {
    int e = remove_pages(mm, t, &g_array_index(later, FileRange, i));
    r = e < 0 ? e : r;
  }
  later_clear(later);
  return r;
}

/* ---- msync ---- */

int tes_mm_msync(TesMM *mm, TesTask *t, gulong addr, gulong len, guint flags) {
  gulong end = addr + TES_PAGE_UP(len);
  if ((flags & ~(guint)(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) || (addr & ~TES_PAGE_MASK) ||
      ((flags & MS_ASYNC) && (flags & MS_SYNC)))
    return -EINVAL;
  if (end < addr || (len && !TES_PAGE_UP(len)))
    return -ENOMEM;
  GArray *later = g_array_new(FALSE, FALSE, sizeof(FileRange));
  int r = 0;
  tes_mm_lock(mm);
  for (gulong at = addr; at < end;) {
    TesVma *v = tes_vma_first(mm, at);
    if (!v || tes_vma_start(v) >= end || tes_vma_start(v) > at)
      r = -ENOMEM;
    if (!v || tes_vma_start(v) >= end)
      break;
    gulong from = MAX(at, tes_vma_start(v)), stop = MIN(end, v->end);
    if ((flags & MS_INVALIDATE) && (v->flags & TES_VMA_LOCKED)) {
      r = -EBUSY;
      break;
    }
    if ((flags & MS_SYNC) && v->file && !tes_vma_private(v))
      later_add(later, v, from, stop);
    at = stop;
  }
  tes_mm_unlock(mm);
  for (guint i = 0; i < later->len; i++) {
    TesFile *f = g_array_index(later, FileRange, i).file;
    int e = TES_HAS(f->ops, fsync) ? f->ops->fsync(f, tes_mm_ctx(mm, t), TRUE) : 0;
    r = e < 0 ? e : r;
  }
  later_clear(later);
  return r;
}
