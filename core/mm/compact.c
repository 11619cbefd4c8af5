/* SPDX-License-Identifier: Apache-2.0 */
/* Near the host's limit of mappings: private memory that copy-on-write has scattered over the memory file is copied
 * into contiguous blocks, one for each 2 MiB of address space, so that each needs one host mapping. */
#include <core/mm/private.h>

#define RUNS_MAX 8 /* of a leaf that is left as it is */

/* Host mappings needed for entries [i, end). */
static guint count_runs(const TesVma *v, const TesLeaf *l, guint i, guint end) {
  guint runs = 0;
  for (guint k = i; k < end; k++) {
    TesPte e = l->e[k], before = k > i ? l->e[k - 1] : 0;
    if (e && (!before || tes_pte_page(e) != tes_pte_page(before) + TES_PAGE_SIZE ||
              tes_pte_prot(v, e) != tes_pte_prot(v, before)))
      runs++;
  }
  return runs;
}

/* Moves the pages of [i, end) to one range. Absent pages among them get memory too: they must not split it. */
static int move_part(TesMM *mm, TesVma *v, TesLeaf *l, guint i, guint end) {
  gsize len = (end - i) * TES_PAGE_SIZE;
  if (tes_memfile_check(mm->mf, len) < 0)
    return -ENOMEM;
  goffset dst = tes_memfile_reserve(mm->mf, len, TES_PAGE_SIZE, 0);
  if (dst < 0)
    return (int)dst;
  tes_memfile_commit(mm->mf, dst, len, TES_MEM_ANON);
  for (guint k = i; k < end; k++)
    if (l->e[k] && tes_memfile_copy_page_run(mm->mf, dst + (goffset)((k - i) * TES_PAGE_SIZE),
                                             tes_pte_page(l->e[k]), TES_PAGE_SIZE) < 0) {
      tes_memfile_unref(mm->mf, dst, len);
      return -EFAULT;
    }
  TesChange c;
  tes_change_init(&c);
  TesPte flags = tes_pte_for(v, TES_PTE_ANON | TES_PTE_OWNED | TES_PTE_MEM);
  for (guint k = i; k < end; k++) {
    TesPte old = l->e[k];
    tes_pte_store(l, k,
                  (TesPte)tes_memfile_ptr(mm->mf, dst + (goffset)((k - i) * TES_PAGE_SIZE)) | flags |
                      (old & TES_PTE_PATCHED));
    if (old & TES_PTE_MEM)
      tes_change_drop(&c, tes_memfile_offset(mm->mf, tes_pte_page(old)), TES_PAGE_SIZE);
  }
  tes_change_map(&c, l->base + i * TES_PAGE_SIZE, len, v->prot, mm->mf->fd, dst, TES_MAP_STABLE_FD);
  int r = tes_change_apply(mm, &c);
  if (r < 0)
    c.n = c.n_runs = 0;
  tes_change_finish(mm, &c);
  return r;
}

/* Only read-only entries may be moved under running guest threads: a writable page would lose what is written while it
 * is copied. Write permission is taken away first, and copies through old entries are waited for. */
static int freeze(TesMM *mm, TesVma *v, TesLeaf *l, guint i, guint end) {
  TesChange c;
  tes_change_init(&c);
  for (guint k = i; k < end; k++)
    if (l->e[k])
      tes_pte_store(l, k, l->e[k] & ~(TesPte)TES_PTE_WRITE);
  tes_change_protect(&c, l->base + i * TES_PAGE_SIZE, (end - i) * TES_PAGE_SIZE,
                     v->prot & ~(guint)PROT_WRITE);
  int r = tes_change_apply(mm, &c);
  c.n = 0;
  tes_change_finish(mm, &c);
  tes_epoch_barrier();
  g_atomic_int_inc(&mm->moves); /* before the copy */
  return r;
}

static void thaw(TesMM *mm, TesVma *v, TesLeaf *l, guint i, guint end) {
  TesChange c;
  tes_change_init(&c);
  for (guint k = i; k < end; k++)
    if (l->e[k])
      tes_pte_store(l, k, tes_pte_for(v, l->e[k]));
  tes_pages_replay(mm, v, &c, l->base + i * TES_PAGE_SIZE, l->base + end * TES_PAGE_SIZE);
  tes_change_apply(mm, &c);
  c.n = 0;
  tes_change_finish(mm, &c);
}

/* The number of host mappings that remain for the vma. */
static guint compact_vma(TesMM *mm, TesVma *v, gboolean *moved) {
  guint total = 0;
  TesLeaf *l;
  for (gulong at = tes_vma_start(v); at < v->end && (l = tes_leaf_next(mm, at, v->end));) {
    gulong from = MAX(at, l->base), to = MIN(v->end, l->base + TES_LEAF_SIZE);
    guint i = tes_leaf_index(from), end = i + (guint)tes_pages_of(from, to), runs = count_runs(v, l, i, end);
    at = to;
    /* Pages of a file at its end may be absent for a reason: leave such vmas alone. */
    if (runs > RUNS_MAX && tes_vma_private(v) && !v->source && freeze(mm, v, l, i, end) == 0) {
      if (move_part(mm, v, l, i, end) == 0) {
        runs = 1;
        *moved = TRUE;
      } else {
        thaw(mm, v, l, i, end);
      }
    }
    total += runs;
  }
  return total;
}

int tes_mm_compact(TesMM *mm) {
  gboolean moved = FALSE;
  guint total = 0;
  for (TesVma *v = (TesVma *)tes_tree_first(&mm->vmas); v; v = tes_vma_next(v))
    total += compact_vma(mm, v, &moved);
  mm->scattered = total;
  return moved ? 0 : -ENOMEM;
}
