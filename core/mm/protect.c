/* SPDX-License-Identifier: Apache-2.0 */
/* mprotect(2). Entries and the platform follow the vmas; pages that are still shared by fork stay read-only whatever
 * the vma allows. */
#include <core/mm/private.h>

/* PROTECT for present runs; memory for absent ones if `fill`. */
static int protect_runs(TesMM *mm, TesVma *v, TesChange *c, gboolean fill) {
  gulong start = tes_vma_start(v);
  TesLeaf *l = NULL;
  for (gulong at = tes_pages_find(mm, start, v->end, TRUE); at < v->end;) {
    if (!l || at >= l->base + TES_LEAF_SIZE)
      l = tes_leaf_get(mm, at);
    guint i = tes_leaf_index(at);
    TesPte e = l->e[i];
    if (!e) {
      at = tes_pages_find(mm, at, v->end, TRUE);
      continue;
    }
    e = tes_pte_for(v, e);
    tes_pte_store(l, i, e);
    tes_change_protect(c, at, TES_PAGE_SIZE, tes_pte_prot(v, e));
    at += TES_PAGE_SIZE;
  }
  return fill ? tes_anon_populate(mm, v, c, start, v->end, 0) : 0;
}

int tes_protect_vma(TesMM *mm, TesVma *v, TesChange *c, guint prot) {
  guint old = v->prot;
  gulong start = tes_vma_start(v), len = v->end - start;
  tes_vma_set(mm, v, prot, v->flags);
  if (old == prot)
    return 0;
  /* A source must be asked again before its pages are written (piece() with `write`). */
  if (!tes_vma_private(v) && (prot & ~old & PROT_WRITE) && !tes_source_is_shm(v->source)) {
    tes_pages_clear(mm, c, start, v->end, 0);
    tes_change_unmap(c, start, len);
    return 0;
  }
  gsize most = v->flags & TES_VMA_NORESERVE ? TES_LEAF_SIZE : tes_eager_max(mm);
  return protect_runs(mm, v, c, !v->source && old == PROT_NONE && len <= most);
}

/* The part of one vma in [start, end). */
static int protect_part(TesMM *mm, TesVma *v, TesChange *c, gulong start, gulong end, guint prot) {
  gulong len = end - start;
  if (prot & ~(guint)v->may)
    return -EACCES;
  if (tes_is_data(prot, v->flags) && !tes_is_data(v->prot, v->flags)) {
    if (tes_mm_limit(&mm->data_limit) != RLIM_INFINITY &&
        (mm->data_pages << TES_PAGE_SHIFT) + len > tes_mm_limit(&mm->data_limit))
      return -ENOMEM;
    if (!(v->flags & TES_VMA_NORESERVE) && !v->source && len > mm->mf->limit)
      return -ENOMEM;
  }
  int r = tes_vma_isolate(mm, start, end);
  if (r < 0)
    return r;
  TES_LOCKED(&mm->pages_lock);
  return tes_protect_vma(mm, tes_vma_find(mm, start), c, prot);
}

static int protect_range(TesMM *mm, TesChange *c, gulong start, gulong end, guint prot, guint grows) {
  TesVma *v = tes_vma_first(mm, start);
  if (!v)
    return -ENOMEM;
  if (grows & PROT_GROWSDOWN) {
    if (tes_vma_start(v) >= end || !(v->flags & TES_VMA_GROWSDOWN))
      return -EINVAL;
    start = MIN(start, tes_vma_start(v));
  } else if (grows) {
    return -EINVAL;
  }
  while (start < end) {
    v = tes_vma_find(mm, start);
    if (!v)
      return -ENOMEM;
    gulong stop = MIN(end, v->end);
    if (v->prot != prot) {
      int r = protect_part(mm, v, c, start, stop, prot);
      if (r < 0)
        return r;
      tes_vma_merge(mm, tes_vma_find(mm, start));
    }
    start = stop;
  }
  return 0;
}

int tes_mm_mprotect(TesMM *mm, TesTask *t, gulong addr, gulong len, guint prot) {
  guint grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
  prot &= ~grows;
  if (grows == (PROT_GROWSDOWN | PROT_GROWSUP) || (addr & ~TES_PAGE_MASK))
    return -EINVAL;
  if (len == 0)
    return 0;
  gulong end = addr + TES_PAGE_UP(len);
  if (end <= addr)
    return -ENOMEM;
  if (prot & ~(guint)(PROT_READ | PROT_WRITE | PROT_EXEC | 0x8 /* PROT_SEM */))
    return -EINVAL;
  prot &= PROT_READ | PROT_WRITE | PROT_EXEC;
  if (t && (t->personality & 0x0400000 /* READ_IMPLIES_EXEC */) && (prot & PROT_READ))
    prot |= PROT_EXEC;
  tes_mm_note_limits(mm, t);
  TesChange c;
  tes_change_init(&c);
  tes_mm_lock(mm);
  int r = prot & PROT_WRITE ? tes_patch_undo(mm, addr, end) : 0;
  if (r == 0)
    r = protect_range(mm, &c, addr, end, prot, grows);
  tes_mutex_lock(&mm->pages_lock);
  int failed = tes_change_apply(mm, &c);
  if (failed < 0) {
    /* Rights that cannot be taken away one by one go with the mapping; faults map it again as it should be. */
    c.n = 0;
    tes_change_unmap(&c, addr, MIN(end, mm->max_addr) - addr);
    tes_change_apply(mm, &c);
    c.n = 0;
    r = r < 0 ? r : failed;
  }
  tes_change_finish(mm, &c);
  tes_mutex_unlock(&mm->pages_lock);
  tes_mm_unlock(mm);
  return r;
}
