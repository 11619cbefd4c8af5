/* SPDX-License-Identifier: Apache-2.0 */
/* Address spaces: making, sharing, dropping; layout, executable and auxiliary vector. References keep the object, users
 * (tasks) keep its mappings. */
#include <core/mm/private.h>

static const TesLockClass map_class = {"mm-map", TES_RANK_MM_MAP, TRUE,
                                       "vmas, layout and counters of an address space"};
static const TesLockClass pages_class = {"mm-pages", TES_RANK_MM_PAGES, TRUE,
                                         "page-map entries with the platform's mappings"};

/* fork.c makes children with it: an address space without a platform's one. */
TesMM *tes_mm_alloc(TesKernel *k) {
  TesMM *mm = g_new0(TesMM, 1);
  mm->refs = 1;
  mm->kernel = k;
  mm->mf = tes_kernel_memfile(k);
  mm->id = tes_unique_id(k);
  mm->min_addr = MAX(k->platform->min_addr, 0x10000);
  mm->max_addr = MIN(k->platform->max_addr, TES_ADDR_LIMIT - TES_PAGE_SIZE);
  mm->layout.mmap_top = mm->max_addr;
  mm->stack_limit = 8UL << 20;
  mm->as_limit = mm->data_limit = mm->lock_limit = RLIM_INFINITY;
  tes_mutex_init(&mm->map_lock, &map_class);
  tes_mutex_init(&mm->pages_lock, &pages_class);
  return mm;
}

TesMM *tes_mm_new(TesKernel *k, GError **error) {
  TesAspace *as = k->platform->ops->aspace_new(k->platform, error);
  if (!as)
    return NULL;
  TesMM *mm = tes_mm_alloc(k);
  mm->aspace = as;
  return mm;
}

TesMM *tes_mm_ref(TesMM *mm) {
  g_atomic_int_inc(&mm->refs);
  return mm;
}

/* Nobody runs the guest here any more, so the platform's mappings may stay until it is freed: nothing can use them. */
static void drop_all(TesMM *mm) {
  TesChange c;
  tes_change_init(&c);
  tes_mm_lock(mm);
  tes_mutex_lock(&mm->pages_lock);
  mm->dropped = TRUE;
  tes_pages_clear_all(mm, &c);
  tes_mutex_unlock(&mm->pages_lock);
  for (TesVma *v; (v = (TesVma *)tes_tree_first(&mm->vmas));)
    tes_vma_remove(mm, v);
  /* A fault of truncation may have run in between. */
  tes_mutex_lock(&mm->pages_lock);
  tes_pages_clear_all(mm, &c);
  tes_change_finish(mm, &c);
  tes_mutex_unlock(&mm->pages_lock);
  tes_mm_unlock(mm);
}

void tes_mm_unref(TesMM *mm) {
  if (!mm || !g_atomic_int_dec_and_test(&mm->refs))
    return;
  if (!mm->dropped)
    drop_all(mm);
  if (mm->aspace)
    mm->aspace->ops->free(mm->aspace);
  tes_pagemap_free(mm);
  tes_hot_unref(mm->hot);
  if (mm->deferred)
    g_array_free(mm->deferred, TRUE);
  if (mm->exe)
    tes_file_unref(mm->exe);
  g_free(mm->auxv);
  if (mm->patches)
    g_array_free(mm->patches, TRUE);
  tes_mutex_clear(&mm->map_lock);
  tes_mutex_clear(&mm->pages_lock);
  g_free(mm);
}

void tes_mm_attach(TesMM *mm) { g_atomic_int_inc(&mm->users); }

void tes_mm_detach(TesMM *mm) {
  if (g_atomic_int_dec_and_test(&mm->users))
    drop_all(mm);
}

TesAspace *tes_mm_aspace(TesMM *mm) { return mm->aspace; }
guint64 tes_mm_id(TesMM *mm) { return mm->id; }

/* ---- Layout ---- */

void tes_mm_set_layout(TesMM *mm, const TesMMLayout *l) {
  TES_LOCKED(&mm->map_lock);
  if (mm->layout.brk_start != l->brk_start)
    mm->brk = l->brk_start;
  mm->layout = *l;
  if (!mm->layout.mmap_top || mm->layout.mmap_top > mm->max_addr)
    mm->layout.mmap_top = mm->max_addr;
}

void tes_mm_get_layout(TesMM *mm, TesMMLayout *l) {
  TES_LOCKED(&mm->map_lock);
  *l = mm->layout;
}

void tes_mm_set_exe(TesMM *mm, TesFile *f) {
  TesFile *old;
  {
    TES_LOCKED(&mm->map_lock);
    old = mm->exe;
    mm->exe = f ? tes_file_ref(f) : NULL;
  }
  if (old)
    tes_file_unref(old);
}

TesFile *tes_mm_exe(TesMM *mm) {
  TES_LOCKED(&mm->map_lock);
  return mm->exe ? tes_file_ref(mm->exe) : NULL;
}

void tes_mm_set_auxv(TesMM *mm, const guint64 *auxv, gsize bytes) {
  TES_LOCKED(&mm->map_lock);
  g_free(mm->auxv);
  mm->auxv = g_memdup2(auxv, bytes);
  mm->auxv_len = bytes;
}

gsize tes_mm_auxv(TesMM *mm, void *buf, gsize n) {
  TES_LOCKED(&mm->map_lock);
  n = MIN(n, mm->auxv_len);
  if (n)
    memcpy(buf, mm->auxv, n);
  return n;
}

const TesStateOps tes_state_mm = {.size = sizeof(TesStateOps),
                                  .section = "mm",
                                  .version = 1,
                                  .after = (const char *const[]){"memfile", NULL}};
