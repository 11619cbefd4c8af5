/* SPDX-License-Identifier: Apache-2.0 */
/* Breaking copy-on-write. A page of which this address space is the only owner left is taken over in place, together
 * with its neighbours of the same kind (one PROTECT). Other pages are copied in 64 KiB blocks to the slots of
 * their leaf, so that neighbouring breaks merge into one host mapping. */
#include <core/mm/private.h>

#define RUN_PAGES 16384 /* taken over at once */
#define OWNED_PAGES 64  /* of pages that are writable already, looked through at a stretch */
#define SCATTERED_MAX 28000

static gboolean single_owner(const TesMM *mm, TesPte e) {
  return (e & TES_PTE_ANON) && tes_memfile_count(mm->mf, tes_memfile_offset(mm->mf, tes_pte_page(e))) == 1;
}

/* Walks from addr (exclusive) in steps of one page while pages can be taken over; the last address that was. */
static gulong take_over(TesMM *mm, const TesVma *v, gulong addr, glong step) {
  gulong last = addr;
  guint owned = 0;
  for (guint n = 0; n < RUN_PAGES && owned < OWNED_PAGES; n++) {
    gulong at = addr + (gulong)((glong)(n + 1) * step);
    if (at < tes_vma_start(v) || at >= v->end)
      break;
    TesLeaf *l = tes_leaf(mm, at);
    TesPte e = l ? l->e[tes_leaf_index(at)] : 0;
    if (e & TES_PTE_OWNED) {
      owned++;
      continue;
    }
    if (!single_owner(mm, e))
      break;
    owned = 0;
    tes_pte_store(l, tes_leaf_index(at), tes_pte_for(v, e | TES_PTE_OWNED));
    last = at;
  }
  return last;
}

static int own_run(TesMM *mm, TesVma *v, gulong addr) {
  TesLeaf *l = tes_leaf_get(mm, addr);
  guint i = tes_leaf_index(addr);
  tes_pte_store(l, i, tes_pte_for(v, l->e[i] | TES_PTE_OWNED));
  gulong lo = take_over(mm, v, addr, -(glong)TES_PAGE_SIZE),
         hi = take_over(mm, v, addr, (glong)TES_PAGE_SIZE);
  TesChange c;
  tes_change_init(&c);
  tes_change_protect(&c, lo, hi + TES_PAGE_SIZE - lo, v->prot);
  int r = tes_change_apply(mm, &c);
  tes_change_finish(mm, &c);
  return r;
}

static gboolean must_copy(const TesMM *mm, TesPte e) {
  return e && !(e & TES_PTE_OWNED) && !single_owner(mm, e);
}

/* Copies entries [i, end) of a leaf to dst. */
static int copy_entries(TesMM *mm, const TesLeaf *l, guint i, guint end, goffset dst) {
  while (i < end) {
    guint from = i;
    guint8 *src = tes_pte_page(l->e[i]);
    for (i++; i < end && tes_pte_page(l->e[i]) == src + (i - from) * TES_PAGE_SIZE; i++)
      ;
    gsize len = (i - from) * TES_PAGE_SIZE;
    int r = tes_memfile_copy_page_run(mm->mf, dst, src, len);
    if (r < 0)
      return r;
    dst += (goffset)len;
  }
  return 0;
}

/* Applies what replaces shared pages. If the host has no mappings left the old ones may still be in place: their
 * pages then stay allocated for ever rather than be given to somebody else. */
static int apply_or_keep(TesMM *mm, TesChange *c) {
  int r = tes_change_apply(mm, c);
  if (r < 0) {
    c->n_runs = 0;
    c->n = 0;
  }
  tes_change_finish(mm, c);
  return r;
}

static int copy_block(TesMM *mm, TesVma *v, TesLeaf *l, guint i, guint end) {
  gsize len = (end - i) * TES_PAGE_SIZE;
  gulong addr = l->base + i * TES_PAGE_SIZE;
  int r = tes_memfile_check(mm->mf, len);
  if (r < 0)
    return r;
  goffset dst = tes_leaf_take(mm, l, i, end - i, TRUE);
  if (dst < 0)
    return (int)dst;
  r = copy_entries(mm, l, i, end, dst);
  if (r < 0) {
    tes_memfile_unref(mm->mf, dst, len);
    return r;
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
  tes_change_map(&c, addr, len, v->prot, mm->mf->fd, dst, TES_MAP_STABLE_FD);
  mm->scattered += 2;
  return apply_or_keep(mm, &c);
}

int tes_cow_break(TesMM *mm, TesVma *v, gulong addr) {
  TesLeaf *l = tes_leaf_get(mm, addr);
  guint at = tes_leaf_index(addr);
  tes_hot_note(mm, addr);
  if (single_owner(mm, l->e[at]))
    return own_run(mm, v, addr);
  if (mm->scattered > SCATTERED_MAX && tes_mm_compact(mm) == 0 && (l->e[at] & TES_PTE_OWNED))
    return 0;
  gulong block = mm->breaks++ < TES_COW_FEW ? TES_COW_FIRST : TES_COW_BLOCK;
  gulong lo = MAX(addr & ~(block - 1), tes_vma_start(v)), hi = MIN((addr | (block - 1)) + 1, v->end);
  guint first = at, end = at + 1, min = tes_leaf_index(lo), max = min + (guint)tes_pages_of(lo, hi);
  while (first > min && must_copy(mm, l->e[first - 1]))
    first--;
  while (end < max && must_copy(mm, l->e[end]))
    end++;
  int r = copy_block(mm, v, l, first, end);
  /* A neighbour that cannot be read (a truncated file) must not spoil this page. */
  if (r == -EFAULT && end - first > 1)
    r = copy_block(mm, v, l, at, at + 1);
  if (r == -ENOMEM && tes_mm_compact(mm) == 0 && (l->e[at] & TES_PTE_OWNED))
    r = 0;
  return r;
}
