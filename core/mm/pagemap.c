/* SPDX-License-Identifier: Apache-2.0 */
/* The page map of an address space, and changes: what is taken out of the map is handed to the platform as one batch
 * and let go only when neither a guest thread nor a copy inside an epoch can still use it. */
#include <core/mm/private.h>

/* ---- Leaves ---- */

static gpointer sub_get(TesMM *mm, gpointer *slot) {
  TesDir *d = *slot;
  if (!d) {
    d = g_new0(TesDir, 1);
    d->next = mm->dirs;
    mm->dirs = d;
    __atomic_store_n(slot, d, __ATOMIC_RELEASE);
  }
  return d;
}

TesLeaf *tes_leaf_get(TesMM *mm, gulong addr) {
  g_assert(addr < TES_ADDR_LIMIT);
  TesDir *d = sub_get(mm, &mm->top[addr >> TES_TOP_SHIFT]);
  d = sub_get(mm, &d->sub[(addr >> TES_MID_SHIFT) & 511]);
  gpointer *slot = &d->sub[(addr >> TES_LEAF_SHIFT) & 511];
  TesLeaf *l = *slot;
  if (!l) {
    l = g_new0(TesLeaf, 1);
    l->base = addr & ~(TES_LEAF_SIZE - 1);
    l->slots = -1;
    l->next = mm->leaves;
    l->link = &mm->leaves;
    if (l->next)
      l->next->link = &l->next;
    mm->leaves = l;
    __atomic_store_n(slot, l, __ATOMIC_RELEASE);
  }
  return l;
}

TesLeaf *tes_leaf_next(const TesMM *mm, gulong addr, gulong end) {
  while (addr < end) {
    const TesDir *d = mm->top[addr >> TES_TOP_SHIFT];
    if (!d) {
      addr = ((addr >> TES_TOP_SHIFT) + 1) << TES_TOP_SHIFT;
      continue;
    }
    d = d->sub[(addr >> TES_MID_SHIFT) & 511];
    if (!d) {
      addr = ((addr >> TES_MID_SHIFT) + 1) << TES_MID_SHIFT;
      continue;
    }
    TesLeaf *l = d->sub[(addr >> TES_LEAF_SHIFT) & 511];
    if (l)
      return l;
    addr = ((addr >> TES_LEAF_SHIFT) + 1) << TES_LEAF_SHIFT;
  }
  return NULL;
}

static gboolean slot_free(const TesLeaf *l, guint i) { return l->free_slots[i / 64] >> (i % 64) & 1; }

/* Gives back the unused slots of pages [i, end). */
static void slots_release(TesMM *mm, TesLeaf *l, guint i, guint end) {
  if (l->slots < 0)
    return;
  while (i < end) {
    guint64 rest = l->free_slots[i / 64] >> (i % 64);
    if (!rest) {
      i = (i | 63) + 1;
      continue;
    }
    i += (guint)__builtin_ctzll(rest);
    guint from = i;
    for (; i < end && slot_free(l, i); i++)
      l->free_slots[i / 64] &= ~(1ULL << (i % 64));
    if (i > from)
      tes_memfile_release(mm->mf, l->slots + (goffset)from * TES_PAGE_SIZE, (i - from) * TES_PAGE_SIZE);
  }
  for (guint w = 0; w < G_N_ELEMENTS(l->free_slots); w++)
    if (l->free_slots[w])
      return;
  l->slots = -1;
}

goffset tes_leaf_take(TesMM *mm, TesLeaf *l, guint i, guint n, gboolean renew) {
  gboolean fits = l->slots >= 0;
  for (guint k = i; fits && k < i + n; k++)
    fits = slot_free(l, k);
  if (!fits) {
    if (l->slots >= 0 && !renew)
      return -ENOMEM;
    goffset off = tes_memfile_reserve(mm->mf, TES_LEAF_SIZE, TES_PAGE_SIZE, 0);
    if (off < 0)
      return off;
    slots_release(mm, l, 0, TES_LEAF_PAGES);
    l->slots = off;
    memset(l->free_slots, 0xff, sizeof l->free_slots);
  }
  for (guint k = i; k < i + n; k++)
    l->free_slots[k / 64] &= ~(1ULL << (k % 64));
  goffset off = l->slots + (goffset)i * TES_PAGE_SIZE;
  tes_memfile_commit(mm->mf, off, n * TES_PAGE_SIZE, TES_MEM_ANON);
  return off;
}

static void leaf_drop(TesMM *mm, TesLeaf *l) {
  TesDir *d = mm->top[l->base >> TES_TOP_SHIFT];
  d = d->sub[(l->base >> TES_MID_SHIFT) & 511];
  __atomic_store_n(&d->sub[(l->base >> TES_LEAF_SHIFT) & 511], NULL, __ATOMIC_RELEASE);
  *l->link = l->next;
  if (l->next)
    l->next->link = l->link;
  tes_epoch_defer(g_free, l);
}

void tes_pagemap_free(TesMM *mm) {
  for (TesLeaf *l; (l = mm->leaves);) {
    mm->leaves = l->next;
    slots_release(mm, l, 0, TES_LEAF_PAGES);
    g_free(l);
  }
  for (TesDir *d; (d = mm->dirs);) {
    mm->dirs = d->next;
    g_free(d);
  }
  memset(mm->top, 0, sizeof mm->top);
}

/* ---- Changes ---- */

void tes_change_init(TesChange *c) {
  c->op = c->few;
  c->run = c->few_runs;
  c->cap = G_N_ELEMENTS(c->few);
  c->cap_runs = G_N_ELEMENTS(c->few_runs);
  c->n = c->n_runs = 0;
}

static gpointer grow(gpointer v, gpointer few, guint *cap, gsize item) {
  gpointer p = g_malloc_n((gsize)*cap * 4, item);
  memcpy(p, v, *cap * item);
  if (v != few)
    g_free(v);
  *cap *= 4;
  return p;
}

static void add_op(TesChange *c, const TesMapOp *op) {
  TesMapOp *last = c->n ? &c->op[c->n - 1] : NULL;
  if (last && last->kind == op->kind && last->addr + last->len == op->addr && last->prot == op->prot &&
      last->flags == op->flags && last->fd == op->fd &&
      (op->kind != TES_MAP_MAP || last->off + (goffset)last->len == op->off)) {
    last->len += op->len;
    return;
  }
  if (c->n == c->cap)
    c->op = grow(c->op, c->few, &c->cap, sizeof *c->op);
  c->op[c->n++] = *op;
}

void tes_change_map(TesChange *c, gulong addr, gsize len, guint prot, int fd, goffset off, guint flags) {
  add_op(c, &(TesMapOp){TES_MAP_MAP, (guint8)prot, (guint16)flags, fd, addr, len, off});
}
void tes_change_unmap(TesChange *c, gulong addr, gsize len) {
  add_op(c, &(TesMapOp){TES_MAP_UNMAP, 0, 0, -1, addr, len, 0});
}
void tes_change_protect(TesChange *c, gulong addr, gsize len, guint prot) {
  add_op(c, &(TesMapOp){TES_MAP_PROTECT, (guint8)prot, 0, -1, addr, len, 0});
}

void tes_change_drop(TesChange *c, goffset off, gsize len) {
  TesRun *last = c->n_runs ? &c->run[c->n_runs - 1] : NULL;
  if (last && last->off + (goffset)last->len == off) {
    last->len += len;
    return;
  }
  if (c->n_runs == c->cap_runs)
    c->run = grow(c->run, c->few_runs, &c->cap_runs, sizeof *c->run);
  c->run[c->n_runs++] = (TesRun){off, len};
}

int tes_change_apply(TesMM *mm, TesChange *c) {
  if (c->n == 0 || mm->dropped)
    return 0;
  mm->changes++;
  int r = 0;
  if (G_UNLIKELY(mm->defer_hi))
    r = tes_defer_change(mm, c) ? 0 : tes_defer_flush(mm, c);
  else if (mm->aspace)
    r = mm->aspace->ops->apply(mm->aspace, c->op, c->n);
  if (r == 0)
    c->n = 0;
  return r;
}

typedef struct {
  TesMemFile *mf;
  guint n;
  TesRun run[];
} Dropped;

static void drop_past_epoch(gpointer data) {
  Dropped *d = data;
  for (guint i = 0; i < d->n; i++)
    tes_memfile_unref_now(d->mf, d->run[i].off, d->run[i].len);
  g_free(d);
}

/* The references themselves wait for the epoch, not only the frees: a page that falls to one owner may be written by
 * it at once, and a copy that still reads it for a former owner must not see that. */
void tes_change_finish(TesMM *mm, TesChange *c) {
  if (c->n_runs) {
    Dropped *d = g_malloc(sizeof *d + c->n_runs * sizeof *c->run);
    d->mf = mm->mf;
    d->n = c->n_runs;
    memcpy(d->run, c->run, c->n_runs * sizeof *c->run);
    tes_epoch_defer(drop_past_epoch, d);
  }
  if (c->op != c->few)
    g_free(c->op);
  if (c->run != c->few_runs)
    g_free(c->run);
  tes_change_init(c);
}

/* ---- Ranges ---- */

static void clear_leaf(TesMM *mm, TesChange *c, TesLeaf *l, guint i, guint end, guint flags) {
  for (guint k = i; k < end && l->present; k++) {
    TesPte e = l->e[k];
    if (!e || ((flags & TES_CLEAR_KEEP_ANON) && (e & TES_PTE_ANON)))
      continue;
    tes_pte_store(l, k, 0);
    if (e & TES_PTE_MEM)
      tes_change_drop(c, tes_memfile_offset(mm->mf, tes_pte_page(e)), TES_PAGE_SIZE);
  }
  if (flags & TES_CLEAR_SLOTS)
    slots_release(mm, l, i, end);
  if (l->present == 0 && l->slots < 0)
    leaf_drop(mm, l);
}

void tes_pages_clear(TesMM *mm, TesChange *c, gulong start, gulong end, guint flags) {
  TesLeaf *l;
  for (gulong at = start; at < end && (l = tes_leaf_next(mm, at, end));) {
    gulong from = MAX(at, l->base), to = MIN(end, l->base + TES_LEAF_SIZE);
    at = to;
    clear_leaf(mm, c, l, tes_leaf_index(from), tes_leaf_index(from) + (guint)tes_pages_of(from, to), flags);
  }
}

void tes_pages_clear_all(TesMM *mm, TesChange *c) {
  for (TesLeaf *l = mm->leaves, *next; l; l = next) {
    next = l->next;
    clear_leaf(mm, c, l, 0, TES_LEAF_PAGES, TES_CLEAR_SLOTS);
  }
}

gulong tes_pages_find(const TesMM *mm, gulong at, gulong end, gboolean present) {
  while (at < end) {
    TesLeaf *l = tes_leaf_next(mm, at, end);
    if (!l || l->base > at) {
      if (!present || !l)
        return present ? end : at;
      at = l->base;
    }
    gulong stop = MIN(end, l->base + TES_LEAF_SIZE);
    for (; at < stop; at += TES_PAGE_SIZE)
      if ((l->e[tes_leaf_index(at)] != 0) == present)
        return at;
  }
  return end;
}

guint tes_pte_prot(const TesVma *v, TesPte e) {
  return (e & TES_PTE_WRITE) ? v->prot : v->prot & ~(guint)PROT_WRITE;
}

TesPte tes_pte_for(const TesVma *v, TesPte e) {
  e &= ~(TesPte)(TES_PTE_READ | TES_PTE_WRITE);
  if (v->prot != PROT_NONE)
    e |= TES_PTE_READ;
  if ((v->prot & PROT_WRITE) && (!tes_vma_private(v) || (e & TES_PTE_OWNED)))
    e |= TES_PTE_WRITE;
  return e;
}

void tes_pages_replay(TesMM *mm, const TesVma *v, TesChange *c, gulong start, gulong end) {
  for (gulong at = tes_pages_find(mm, start, end, TRUE); at < end; at = tes_pages_find(mm, at, end, TRUE)) {
    TesPte e = tes_pte(mm, at);
    if (e & TES_PTE_MEM)
      tes_change_map(c, at, TES_PAGE_SIZE, tes_pte_prot(v, e), mm->mf->fd,
                     tes_memfile_offset(mm->mf, tes_pte_page(e)), TES_MAP_STABLE_FD);
    at += TES_PAGE_SIZE;
  }
}
