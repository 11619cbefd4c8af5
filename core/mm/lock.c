/* SPDX-License-Identifier: Apache-2.0 */
/* mlock(2) and its family, mincore(2). Locked pages are made to exist and counted; the host's swap is not in our hands. */
#include <core/mm/private.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

static int lock_vma(TesMM *mm, TesVma *v, gulong start, gulong end, guint flags) {
  guint want = (v->flags & ~(guint)(TES_VMA_LOCKED | TES_VMA_LOCKONFAULT)) | flags;
  if (want == v->flags)
    return 0;
  int r = tes_vma_isolate(mm, start, end);
  if (r < 0)
    return r;
  v = tes_vma_find(mm, start);
  tes_vma_set(mm, v, v->prot, want);
  tes_vma_merge(mm, v);
  return 0;
}

static int lock_range(TesMM *mm, gulong start, gulong end, guint flags) {
  for (gulong at = start; at < end;) {
    TesVma *v = tes_vma_find(mm, at);
    if (!v)
      return -ENOMEM;
    gulong stop = MIN(end, v->end);
    int r = lock_vma(mm, v, at, stop, flags);
    if (r < 0)
      return r;
    at = stop;
  }
  return 0;
}

static int touch_range(TesMM *mm, gulong start, gulong end) {
  for (gulong at = start; at < end;) {
    TesVma *v = tes_vma_first(mm, at);
    if (!v || tes_vma_start(v) >= end)
      break;
    gulong from = MAX(at, tes_vma_start(v)), stop = MIN(end, v->end);
    int r = tes_mm_touch(mm, v, from, stop);
    if (r < 0)
      return r == -EACCES ? -ENOMEM : -EAGAIN;
    at = stop;
  }
  return 0;
}

static gulong pages_locked_in(TesMM *mm, gulong start, gulong end) {
  gulong n = 0;
  for (TesVma *v = tes_vma_first(mm, start); v && tes_vma_start(v) < end; v = tes_vma_next(v))
    if (v->flags & TES_VMA_LOCKED)
      n += tes_pages_of(MAX(start, tes_vma_start(v)), MIN(end, v->end));
  return n;
}

/* Rounds to pages as mlock(2) does: 0, or -EINVAL when the range wraps. */
static int round_range(gulong *addr, gulong len, gulong *end) {
  gulong n = TES_PAGE_UP(len + (*addr & ~TES_PAGE_MASK));
  *addr &= TES_PAGE_MASK;
  *end = *addr + n;
  return *end < *addr || (len && n == 0) ? -EINVAL : 0;
}

int tes_mm_mlock(TesMM *mm, TesTask *t, gulong addr, gulong len, gboolean on_fault) {
  gulong end;
  int r = round_range(&addr, len, &end);
  tes_mm_note_limits(mm, t);
  if (tes_mm_limit(&mm->lock_limit) == 0)
    return -EPERM;
  if (r < 0)
    return tes_mm_limit(&mm->lock_limit) == RLIM_INFINITY ? r : -ENOMEM;
  if (end == addr)
    return 0;
  tes_mm_lock(mm);
  gulong total = mm->locked_pages + tes_pages_of(addr, end) - pages_locked_in(mm, addr, end);
  if (tes_mm_limit(&mm->lock_limit) != RLIM_INFINITY &&
      total > tes_mm_limit(&mm->lock_limit) >> TES_PAGE_SHIFT)
    r = -ENOMEM;
  if (r == 0)
    r = lock_range(mm, addr, end, TES_VMA_LOCKED | (on_fault ? TES_VMA_LOCKONFAULT : 0));
  if (r == 0 && !on_fault)
    r = touch_range(mm, addr, end);
  tes_mm_unlock(mm);
  return r;
}

int tes_mm_munlock(TesMM *mm, gulong addr, gulong len) {
  gulong end;
  int r = round_range(&addr, len, &end);
  if (r < 0 || end == addr)
    return r;
  tes_mm_lock(mm);
  r = lock_range(mm, addr, end, 0);
  tes_mm_unlock(mm);
  return r;
}

static void lock_all(TesMM *mm, guint flags) {
  for (TesVma *v = (TesVma *)tes_tree_first(&mm->vmas), *next; v; v = next) {
    next = tes_vma_next(v);
    tes_vma_set(mm, v, v->prot, (v->flags & ~(guint)(TES_VMA_LOCKED | TES_VMA_LOCKONFAULT)) | flags);
  }
}

int tes_mm_mlockall(TesMM *mm, TesTask *t, guint flags) {
  if (!flags || flags == MCL_ONFAULT || (flags & ~(guint)(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)))
    return -EINVAL;
  tes_mm_note_limits(mm, t);
  if (tes_mm_limit(&mm->lock_limit) == 0)
    return -EPERM;
  int r = 0;
  guint want = TES_VMA_LOCKED | (flags & MCL_ONFAULT ? TES_VMA_LOCKONFAULT : 0);
  tes_mm_lock(mm);
  if ((flags & MCL_CURRENT) && tes_mm_limit(&mm->lock_limit) != RLIM_INFINITY &&
      mm->pages > tes_mm_limit(&mm->lock_limit) >> TES_PAGE_SHIFT) {
    r = -ENOMEM;
  } else {
    mm->def_flags = flags & MCL_FUTURE ? want : 0;
    if (flags & MCL_CURRENT) {
      lock_all(mm, want);
      /* As mlockall(2): what cannot be made present is not an error. Huge reservations wait for their faults. */
      for (TesVma *v = (TesVma *)tes_tree_first(&mm->vmas); v && !(flags & MCL_ONFAULT); v = tes_vma_next(v))
        if (v->end - tes_vma_start(v) <= mm->mf->limit)
          tes_mm_touch(mm, v, tes_vma_start(v), v->end);
    }
  }
  tes_mm_unlock(mm);
  return r;
}

int tes_mm_munlockall(TesMM *mm) {
  tes_mm_lock(mm);
  mm->def_flags = 0;
  lock_all(mm, 0);
  tes_mm_unlock(mm);
  return 0;
}

/* ---- mincore ---- */

/* Residency of the n pages from addr; map_lock held. -ENOMEM: a hole. */
static int residency(TesMM *mm, gulong addr, guint n, guint8 *vec) {
  memset(vec, 0, n);
  if (!tes_range_mapped(mm, addr, addr + n * TES_PAGE_SIZE))
    return -ENOMEM;
  TES_LOCKED(&mm->pages_lock);
  for (guint i = 0; i < n;) {
    TesPte e = tes_pte(mm, addr + i * TES_PAGE_SIZE);
    guint from = i++;
    if (!e)
      continue;
    while (i < n && tes_pte_page(tes_pte(mm, addr + i * TES_PAGE_SIZE)) ==
                        tes_pte_page(e) + (i - from) * TES_PAGE_SIZE)
      i++;
    if (mincore(tes_pte_page(e), (i - from) * TES_PAGE_SIZE, vec + from) < 0)
      memset(vec + from, 0, i - from);
  }
  for (guint i = 0; i < n; i++)
    vec[i] &= 1;
  return 0;
}

int tes_mm_mincore(TesMM *mm, gulong addr, gulong len, gulong uvec) {
  if (addr & ~TES_PAGE_MASK)
    return -EINVAL;
  if (addr > mm->max_addr || len > mm->max_addr - addr)
    return -ENOMEM;
  guint8 vec[TES_LEAF_PAGES];
  for (gulong left = TES_PAGE_UP(len) >> TES_PAGE_SHIFT; left > 0;) {
    guint n = (guint)MIN(left, sizeof vec);
    tes_mm_lock(mm);
    int r = residency(mm, addr, n, vec);
    tes_mm_unlock(mm);
    if (r < 0)
      return r;
    if (tes_mm_copy_out(mm, uvec, vec, n) < n)
      return -EFAULT;
    addr += n * TES_PAGE_SIZE;
    uvec += n;
    left -= n;
  }
  return 0;
}
