/* SPDX-License-Identifier: Apache-2.0 */
/* Vmas: an ordered tree that knows the free gap below each, splitting and merging, counters, and the lock of an address
 * space. Everything here runs under map_lock. */
#include <core/mm/private.h>

/* ---- The lock ---- */

void tes_mm_lock(TesMM *mm) { tes_mutex_lock(&mm->map_lock); }

static void vma_free(TesVma *v) {
  if (v->source)
    v->source->ops->unref(v->source);
  if (v->file)
    tes_file_unref(v->file);
  g_free(v);
}

/* A source's windows may go with its last reference: wait for copies that still look through them. Releasing files
 * may take filesystem locks, which come before map_lock. */
void tes_mm_unlock(TesMM *mm) {
  TesVma *dead = mm->dead;
  mm->dead = NULL;
  mm->peak_pages = MAX(mm->peak_pages, mm->pages);
  tes_mutex_unlock(&mm->map_lock);
  gboolean wait = FALSE;
  for (TesVma *v = dead; v && !wait; v = v->next_dead)
    wait = v->source != NULL;
  if (wait)
    tes_epoch_barrier();
  while (dead) {
    TesVma *v = dead;
    dead = v->next_dead;
    vma_free(v);
  }
}

/* ---- Counters ---- */

gboolean tes_is_data(guint prot, guint flags) {
  return (prot & PROT_WRITE) && !(flags & (TES_VMA_SHARED | TES_VMA_GROWSDOWN));
}

static void count(TesMM *mm, const TesVma *v, gboolean add) {
  gulong n = tes_pages_of(tes_vma_start(v), v->end);
  if (!add)
    n = -n;
  mm->pages += n;
  if (tes_is_data(v->prot, v->flags))
    mm->data_pages += n;
  if (v->flags & TES_VMA_GROWSDOWN)
    mm->stack_pages += n;
  if ((v->prot & PROT_EXEC) && !(v->prot & PROT_WRITE))
    mm->exec_pages += n;
  if (v->flags & TES_VMA_LOCKED)
    mm->locked_pages += n;
}

/* ---- Tree ---- */

/* Nothing is placed within the guard gap below a stack. */
static gulong low_edge(const TesVma *v) {
  gulong s = tes_vma_start(v);
  return (v->flags & TES_VMA_GROWSDOWN) ? s - MIN(s, TES_STACK_GUARD) : s;
}

static void set_gap(TesMM *mm, TesVma *v) {
  if (!v)
    return;
  TesVma *prev = tes_vma_prev(v);
  gulong lo = prev ? prev->end : 0, edge = low_edge(v);
  tes_tree_set_val(&mm->vmas, &v->node, edge > lo ? edge - lo : 0);
}

TesVma *tes_vma_new(TesMM *mm, gulong start, gulong end) {
  TesVma *v = g_new0(TesVma, 1);
  v->node.key = start;
  v->end = end;
  v->mm = mm;
  v->link.data = v;
  return v;
}

TesVma *tes_vma_copy(const TesVma *from, TesMM *mm) {
  TesVma *v = tes_vma_new(mm, tes_vma_start(from), from->end);
  v->prot = from->prot;
  v->may = from->may;
  v->flags = from->flags;
  v->off = from->off;
  v->name = from->name;
  v->file = from->file ? tes_file_ref(from->file) : NULL;
  v->source = from->source;
  v->piece = from->piece;
  if (v->source)
    v->source->ops->ref(v->source);
  return v;
}

void tes_vma_insert(TesMM *mm, TesVma *v) {
  v->node.val = 0;
  tes_tree_insert(&mm->vmas, &v->node);
  mm->n_vmas++;
  set_gap(mm, v);
  set_gap(mm, tes_vma_next(v));
  count(mm, v, TRUE);
  if (v->source)
    tes_source_link(v);
}

void tes_vma_remove(TesMM *mm, TesVma *v) {
  TesVma *next = tes_vma_next(v);
  if (v->source)
    tes_source_unlink(v);
  count(mm, v, FALSE);
  tes_tree_remove(&mm->vmas, &v->node);
  mm->n_vmas--;
  set_gap(mm, next);
  v->next_dead = mm->dead;
  mm->dead = v;
}

void tes_vma_resize(TesMM *mm, TesVma *v, gulong start, gulong end) {
  count(mm, v, FALSE);
  if (v->source)
    tes_mutex_lock(&v->source->lock);
  v->off += (goffset)(start - tes_vma_start(v));
  v->node.key = start;
  v->end = end;
  if (v->source)
    tes_mutex_unlock(&v->source->lock);
  count(mm, v, TRUE);
  set_gap(mm, v);
  set_gap(mm, tes_vma_next(v));
}

void tes_vma_set(TesMM *mm, TesVma *v, guint prot, guint flags) {
  count(mm, v, FALSE);
  v->prot = (guint8)prot;
  v->flags = (guint16)flags;
  count(mm, v, TRUE);
}

TesVma *tes_vma_first(TesMM *mm, gulong addr) {
  TesVma *v = (TesVma *)tes_tree_le(&mm->vmas, addr);
  if (v && v->end > addr)
    return v;
  return v ? tes_vma_next(v) : (TesVma *)tes_tree_first(&mm->vmas);
}

TesVma *tes_vma_find(TesMM *mm, gulong addr) {
  TesVma *v = (TesVma *)tes_tree_le(&mm->vmas, addr);
  return v && v->end > addr ? v : NULL;
}

gboolean tes_range_mapped(TesMM *mm, gulong start, gulong end) {
  for (TesVma *v = tes_vma_find(mm, start); v; v = tes_vma_next(v)) {
    if (v->end >= end)
      return TRUE;
    TesVma *next = tes_vma_next(v);
    if (!next || tes_vma_start(next) != v->end)
      return FALSE;
  }
  return FALSE;
}

/* ---- Splitting and merging ---- */

/* Both here and in merging vmas overlap for a moment, so that truncation always finds every page. */
static int split(TesMM *mm, TesVma *v, gulong at) {
  if (mm->n_vmas >= TES_VMA_MAX)
    return -ENOMEM;
  TesVma *upper = tes_vma_copy(v, mm);
  upper->off += (goffset)(at - tes_vma_start(upper));
  upper->node.key = at;
  tes_vma_insert(mm, upper);
  tes_vma_resize(mm, v, tes_vma_start(v), at);
  return 0;
}

int tes_vma_isolate(TesMM *mm, gulong start, gulong end) {
  const gulong edges[2] = {start, end};
  for (guint i = 0; i < 2; i++) {
    TesVma *v = tes_vma_find(mm, edges[i]);
    if (v && tes_vma_start(v) != edges[i]) {
      int r = split(mm, v, edges[i]);
      if (r < 0)
        return r;
    }
  }
  return 0;
}

static gboolean mergeable(const TesVma *a, const TesVma *b) {
  return a && b && a->end == tes_vma_start(b) && a->prot == b->prot && a->may == b->may &&
         a->flags == b->flags && a->file == b->file && a->source == b->source && a->name == b->name &&
         (!a->source || a->off + (goffset)(a->end - tes_vma_start(a)) == b->off);
}

/* `a` takes over what `b` has. */
static void merge_pieces(TesVma *a, const TesVma *b) {
  if (a->piece.fd != b->piece.fd || a->piece.window != b->piece.window || a->piece.fd_off != b->piece.fd_off)
    a->piece.len = 0;
}

TesVma *tes_vma_merge(TesMM *mm, TesVma *v) {
  TesVma *prev = tes_vma_prev(v), *next = tes_vma_next(v);
  if (mergeable(v, next)) {
    merge_pieces(v, next);
    tes_vma_resize(mm, v, tes_vma_start(v), next->end);
    tes_vma_remove(mm, next);
  }
  if (mergeable(prev, v)) {
    merge_pieces(prev, v);
    tes_vma_resize(mm, prev, tes_vma_start(prev), v->end);
    tes_vma_remove(mm, v);
    v = prev;
  }
  return v;
}

/* ---- Placement ---- */

/* The gap below v (NULL: above the last vma), clipped to [lo, hi). */
static gulong fit(TesMM *mm, const TesVma *v, gsize len, gulong lo, gulong hi) {
  const TesVma *prev = v ? tes_vma_prev(v) : (TesVma *)tes_tree_last(&mm->vmas);
  gulong from = MAX(prev ? prev->end : 0, lo), to = v ? MIN(low_edge(v), hi) : hi;
  return to > from && to - from >= len ? to - len : 0;
}

gulong tes_vma_gap(TesMM *mm, gsize len, gulong lo, gulong hi) {
  TesVma *v = (TesVma *)tes_tree_ge(&mm->vmas, hi);
  gulong at = fit(mm, v, len, lo, hi);
  if (at)
    return at;
  for (gulong below = hi; (v = (TesVma *)tes_tree_last_fit(&mm->vmas, below, len));
       below = tes_vma_start(v)) {
    at = fit(mm, v, len, lo, hi);
    if (at || tes_vma_start(v) <= lo)
      return at;
  }
  return 0;
}
