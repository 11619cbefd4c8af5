/* SPDX-License-Identifier: Apache-2.0 */
/* Changed guest code: the list of patches of an address space and the pages that hold them. A page is never edited in
 * place: a private copy is edited and then mapped in its stead, so that other threads see all of the old or
 * all of the new code, and the page-map entry says that it is there (TES_PTE_PATCHED). All under map_lock. */
#include <core/mm/private.h>

#define MAX_PATCHES 8192 /* of an address space */

static TesPatch *at(const TesMM *mm, guint i) { return &g_array_index(mm->patches, TesPatch, i); }

/* Index of the first patch at or above addr. */
static guint lower(const TesMM *mm, gulong addr) {
  guint lo = 0, hi = mm->patches ? mm->patches->len : 0;
  while (lo < hi) {
    guint mid = (lo + hi) / 2;
    if (at(mm, mid)->addr < addr)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* ---- The list ---- */

static void tell(TesMM *mm, const TesPatch *p, gboolean done) {
  if (p->kind != TES_PATCH_REWRITE || !mm->aspace || !TES_HAS(mm->aspace->ops, rewritten))
    return;
  TesCodePatch c = {.addr = p->addr, .len = p->len};
  memcpy(c.bytes, p->new, p->len);
  mm->aspace->ops->rewritten(mm->aspace, &c, done);
}

static void list_remove(TesMM *mm, guint i) {
  TesPatch p = *at(mm, i);
  mm->rewrites -= p.kind == TES_PATCH_REWRITE;
  g_array_remove_index(mm->patches, i);
  tell(mm, &p, FALSE);
}

void tes_patch_forget(TesMM *mm, gulong start, gulong end) {
  if (G_LIKELY(!mm->patches))
    return;
  for (guint i = lower(mm, start); i < mm->patches->len && at(mm, i)->addr < end;)
    list_remove(mm, i);
}

static gboolean page_patched(const TesMM *mm, gulong addr) {
  return (tes_pte_peek(mm, addr) & TES_PTE_PATCHED) != 0;
}

/* Patches whose pages have gone. */
static void purge(TesMM *mm) {
  for (guint i = 0; mm->patches && i < mm->patches->len;)
    if (page_patched(mm, at(mm, i)->addr))
      i++;
    else
      list_remove(mm, i);
}

void tes_patch_fork(const TesMM *src, TesMM *child) {
  child->no_rewrite = src->no_rewrite;
  child->rewrites = src->rewrites;
  child->patches = src->patches && src->patches->len ? g_array_copy(src->patches) : NULL;
}

/* ---- Pages ---- */

/* Maps `dst`, a copy of the page with other code, in its stead. If the host has no mapping left the page is unmapped,
 * and the next fault maps it. pages_lock held. */
static int map_copy(TesMM *mm, TesVma *v, gulong page, goffset dst, gboolean patched) {
  TesLeaf *l = tes_leaf_get(mm, page);
  guint i = tes_leaf_index(page);
  TesPte old = l->e[i];
  TesPte e = tes_pte_for(v, TES_PTE_ANON | TES_PTE_OWNED | TES_PTE_MEM | (patched ? TES_PTE_PATCHED : 0));
  TesChange c;
  tes_change_init(&c);
  g_atomic_int_inc(&mm->moves);
  tes_pte_store(l, i, (TesPte)tes_memfile_ptr(mm->mf, dst) | e);
  if (old & TES_PTE_MEM)
    tes_change_drop(&c, tes_memfile_offset(mm->mf, tes_pte_page(old)), TES_PAGE_SIZE);
  tes_change_map(&c, page, TES_PAGE_SIZE, tes_pte_prot(v, e), mm->mf->fd, dst, TES_MAP_STABLE_FD);
  mm->scattered += 2;
  int r = tes_change_apply(mm, &c);
  if (r < 0) {
    c.n = 0;
    tes_change_unmap(&c, page, TES_PAGE_SIZE);
    r = tes_change_apply(mm, &c);
    if (r < 0) /* the old page may still be in use: it stays allocated */
      c.n = c.n_runs = 0;
  }
  tes_change_finish(mm, &c);
  return r;
}

/* Contents of a page: 0 or -EFAULT. pages_lock held. What was modified while the mapping was writable may still be
 * being written by a copy that began then: wait for it. */
static int read_page(TesMM *mm, gulong page, guint8 buf[TES_PAGE_SIZE]) {
  TesPte e = tes_pte(mm, page);
  if (!(e & TES_PTE_READ))
    return -EFAULT;
  if ((e & TES_PTE_OWNED) && !(e & TES_PTE_PATCHED))
    tes_epoch_barrier();
  return tes_safe_copy(buf, tes_pte_page(e), TES_PAGE_SIZE) ? -EFAULT : 0;
}

/* pages_lock held */
static int write_page(TesMM *mm, TesVma *v, gulong page, const guint8 buf[TES_PAGE_SIZE], gboolean patched) {
  int r = tes_memfile_check(mm->mf, TES_PAGE_SIZE);
  if (r < 0)
    return r;
  goffset dst = tes_leaf_take(mm, tes_leaf_get(mm, page), tes_leaf_index(page), 1, TRUE);
  if (dst < 0)
    return (int)dst;
  r = tes_memfile_copy_page_run(mm->mf, dst, buf, TES_PAGE_SIZE);
  if (r < 0) {
    tes_memfile_unref(mm->mf, dst, TES_PAGE_SIZE);
    return r;
  }
  return map_copy(mm, v, page, dst, patched);
}

/* ---- Adding ---- */

static gboolean overlaps(const TesMM *mm, const TesPatch *p) {
  guint i = lower(mm, p->addr);
  if (mm->patches && i < mm->patches->len && at(mm, i)->addr < p->addr + p->len)
    return TRUE;
  return i > 0 && at(mm, i - 1)->addr + at(mm, i - 1)->len > p->addr;
}

static gboolean is_there(const TesMM *mm, const TesPatch *p) {
  guint i = lower(mm, p->addr);
  if (!mm->patches || i == mm->patches->len)
    return FALSE;
  const TesPatch *q = at(mm, i);
  return q->addr == p->addr && q->len == p->len && q->kind == p->kind && memcmp(q->new, p->new, p->len) == 0;
}

static int edit(TesMM *mm, const TesPatch *p, guint n, gulong page, guint8 buf[TES_PAGE_SIZE]) {
  for (guint k = 0; k < n; k++) {
    if (overlaps(mm, &p[k]))
      return is_there(mm, &p[k]) ? -EALREADY : -EBUSY;
    guint8 *b = buf + (p[k].addr - page);
    if (memcmp(b, p[k].old, p[k].len) != 0)
      return -EAGAIN;
    memcpy(b, p[k].new, p[k].len);
  }
  return 0;
}

int tes_patch_add(TesMM *mm, TesVma *v, const TesPatch *p, guint n) {
  gulong page = TES_PAGE_DOWN(p[0].addr);
  guint8 buf[TES_PAGE_SIZE];
  if (!page_patched(mm, page))
    tes_patch_forget(mm, page, page + TES_PAGE_SIZE);
  if (mm->patches && mm->patches->len + n > MAX_PATCHES)
    purge(mm);
  if (mm->patches && mm->patches->len + n > MAX_PATCHES)
    return -ENOMEM;
  {
    TES_LOCKED(&mm->pages_lock);
    int r = read_page(mm, page, buf);
    if (r == 0)
      r = edit(mm, p, n, page, buf);
    if (r == 0)
      r = write_page(mm, v, page, buf, TRUE);
    if (r < 0)
      return r;
  }
  if (!mm->patches)
    mm->patches = g_array_new(FALSE, FALSE, sizeof(TesPatch));
  g_array_insert_vals(mm->patches, lower(mm, p[0].addr), p, n);
  for (guint k = 0; k < n; k++) {
    mm->rewrites += p[k].kind == TES_PATCH_REWRITE;
    tell(mm, &p[k], TRUE);
  }
  return 0;
}

/* ---- Undoing ---- */

/* Patches [i, end) of the list lie in one page; those of a kind in `kinds` go. */
static int undo_page(TesMM *mm, guint i, guint end, guint kinds) {
  gulong page = TES_PAGE_DOWN(at(mm, i)->addr);
  gboolean any = FALSE, rest = FALSE;
  guint8 buf[TES_PAGE_SIZE];
  {
    TES_LOCKED(&mm->pages_lock);
    if (tes_pte(mm, page) & TES_PTE_PATCHED) {
      int r = read_page(mm, page, buf);
      for (guint k = i; k < end && r == 0; k++) {
        const TesPatch *p = at(mm, k);
        gboolean goes = kinds >> p->kind & 1;
        if (goes)
          memcpy(buf + (p->addr - page), p->old, p->len);
        any |= goes;
        rest |= !goes;
      }
      if (r == 0 && any)
        r = write_page(mm, tes_vma_find(mm, page), page, buf, rest);
      if (r < 0)
        return r == -EFAULT ? 0 : r;
    }
  }
  for (guint k = end; k-- > i;)
    if (kinds >> at(mm, k)->kind & 1)
      list_remove(mm, k);
  return 0;
}

static int undo(TesMM *mm, gulong start, gulong end, guint kinds) {
  int r = 0;
  for (gulong next = start; r == 0 && next < end && mm->patches;) {
    guint i = lower(mm, next), k = i;
    if (i == mm->patches->len || at(mm, i)->addr >= end)
      break;
    next = TES_PAGE_DOWN(at(mm, i)->addr) + TES_PAGE_SIZE;
    while (k < mm->patches->len && at(mm, k)->addr < next)
      k++;
    r = undo_page(mm, i, k, kinds);
  }
  return r;
}

int tes_patch_undo(TesMM *mm, gulong start, gulong end) {
  return G_LIKELY(!mm->patches)
             ? 0
             : undo(mm, TES_PAGE_DOWN(start), end, 1U << TES_PATCH_REWRITE | 1U << TES_PATCH_CPUID);
}
int tes_patch_undo_kind(TesMM *mm, gulong start, gulong end, TesPatchKind kind) {
  return undo(mm, TES_PAGE_DOWN(start), end, 1U << kind);
}

/* ---- Reading ---- */

gsize tes_patch_copy_in(TesMM *mm, void *dst, gulong src, gsize n) {
  gulong page = TES_PAGE_DOWN(src);
  guint8 buf[TES_PAGE_SIZE];
  TES_LOCKED(&mm->map_lock);
  {
    TES_LOCKED(&mm->pages_lock);
    if (!(tes_pte(mm, page) & TES_PTE_PATCHED) || read_page(mm, page, buf) < 0)
      return 0;
  }
  for (guint i = lower(mm, page); i < mm->patches->len && at(mm, i)->addr < page + TES_PAGE_SIZE; i++)
    memcpy(buf + (at(mm, i)->addr - page), at(mm, i)->old, at(mm, i)->len);
  n = MIN(n, page + TES_PAGE_SIZE - src);
  memcpy(dst, buf + (src - page), n);
  return n;
}
