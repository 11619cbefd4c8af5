/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings that the platform is told of later. While exec builds an address space, and while a dynamic loader lays out a
 * library (one mapping for all of it, then its segments over that), nobody touches the pages. What happens in such a
 * range is kept here, each page once, and handed over in one batch: by the first fault in it, the first change elsewhere, or
 * the end of exec. The page map and the vmas are right all the time.
 *
 * The rule that makes it safe: in the range the platform has nothing mapped, so there is nothing to take away, and what is
 * removed before it was handed over is forgotten here at once. pages_lock guards it all. */
#include <core/mm/private.h>
#include <stdlib.h>

#define DEFERRED_MAX 64

static void append(TesMM *mm, const TesMapOp *op) { g_array_append_val(mm->deferred, *op); }

/* Forgets [start, end). */
static void trim(TesMM *mm, gulong start, gulong end) {
  for (guint i = 0; i < mm->deferred->len;) {
    TesMapOp *op = &g_array_index(mm->deferred, TesMapOp, i), old = *op;
    gulong stop = old.addr + old.len;
    if (old.addr >= end || stop <= start) {
      i++;
      continue;
    }
    g_array_remove_index_fast(mm->deferred, i);
    TesMapOp left = old, right = old;
    left.len = start - MIN(start, old.addr);
    right.addr = end;
    right.off += (goffset)(end - old.addr);
    right.len = stop - MIN(stop, end);
    if (old.addr < start)
      append(mm, &left);
    if (stop > end)
      append(mm, &right);
  }
}

gboolean tes_defer_change(TesMM *mm, const TesChange *c) {
  if (mm->deferred->len + 2 * c->n > DEFERRED_MAX)
    return FALSE;
  for (guint i = 0; i < c->n; i++) {
    const TesMapOp *op = &c->op[i];
    if (op->kind == TES_MAP_PROTECT || !tes_deferring(mm, op->addr) || op->len > mm->defer_hi - op->addr)
      return FALSE;
  }
  for (guint i = 0; i < c->n; i++) {
    trim(mm, c->op[i].addr, c->op[i].addr + c->op[i].len);
    if (c->op[i].kind == TES_MAP_MAP)
      append(mm, &c->op[i]);
  }
  return TRUE;
}

/* By descriptor, since handing one over costs more than a mapping. They do not overlap: any order is right. */
static int order(const void *a, const void *b) {
  const TesMapOp *x = a, *y = b;
  return x->fd != y->fd ? (x->fd > y->fd) - (x->fd < y->fd) : (x->addr > y->addr) - (x->addr < y->addr);
}

void tes_defer_sort(TesMapOp *ops, guint n) {
  if (n > 1)
    qsort(ops, n, sizeof *ops, order);
}

int tes_defer_flush(TesMM *mm, const TesChange *c) {
  GArray *ops = mm->deferred;
  if (mm->dropped)
    return 0;
  mm->defer_lo = mm->defer_hi = 0;
  tes_defer_sort((TesMapOp *)(gpointer)ops->data, ops->len);
  if (c)
    g_array_append_vals(ops, c->op, c->n);
  int r = 0;
  if (ops->len && mm->aspace)
    r = mm->aspace->ops->apply(mm->aspace, (const TesMapOp *)(gpointer)ops->data, ops->len);
  g_array_set_size(ops, 0); /* after a failure faults bring back what is missing */
  mm->changes++;
  return r;
}

int tes_defer_begin(TesMM *mm, gulong lo, gulong hi) {
  int r = tes_deferring(mm, lo) || !mm->defer_hi ? 0 : tes_defer_flush(mm, NULL);
  if (!mm->deferred)
    mm->deferred = g_array_new(FALSE, FALSE, sizeof(TesMapOp));
  if (!mm->defer_hi) {
    mm->defer_lo = lo;
    mm->defer_hi = hi;
  }
  return r;
}

void tes_mm_begin_image(TesMM *mm) {
  TES_LOCKED(&mm->pages_lock);
  tes_defer_begin(mm, 0, TES_ADDR_LIMIT);
}

int tes_mm_finish_image(TesMM *mm) {
  TES_LOCKED(&mm->pages_lock);
  return mm->defer_hi ? tes_defer_flush(mm, NULL) : 0;
}
