/* SPDX-License-Identifier: Apache-2.0 */
/* mremap(2): growing in place, moving, duplicating shared mappings. Pages move, they are not copied. */
#include <core/mm/private.h>

typedef struct {
  gulong old, old_len, new_len, to; /* to: 0, or where it shall go */
  guint flags;
} Remap;

static int check_args(TesMM *mm, Remap *m) {
  if (m->flags & ~(guint)(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP))
    return -EINVAL;
  if ((m->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(m->flags & MREMAP_MAYMOVE))
    return -EINVAL;
  if ((m->flags & MREMAP_DONTUNMAP) && m->old_len != m->new_len)
    return -EINVAL;
  if ((m->old & ~TES_PAGE_MASK) || m->new_len == 0)
    return -EINVAL;
  if (m->new_len > mm->max_addr || m->old_len > mm->max_addr)
    return m->flags & MREMAP_FIXED ? -EINVAL : m->old_len > mm->max_addr ? -EFAULT : -ENOMEM;
  m->old_len = TES_PAGE_UP(m->old_len);
  m->new_len = TES_PAGE_UP(m->new_len);
  if (m->old > mm->max_addr - m->old_len)
    return -EFAULT;
  if (!(m->flags & MREMAP_FIXED))
    return 0;
  if ((m->to & ~TES_PAGE_MASK) || m->to > mm->max_addr - m->new_len || m->to < mm->min_addr)
    return -EINVAL;
  return m->old + m->old_len > m->to && m->to + m->new_len > m->old ? -EINVAL : 0;
}

/* May the mapping at m->old become new_len long? */
static int check_vma(TesMM *mm, const TesVma *v, const Remap *m) {
  if (!v || m->old_len > v->end - m->old)
    return -EFAULT;
  if (m->old_len == 0 && tes_vma_private(v))
    return -EINVAL;
  if (m->new_len <= m->old_len && !(m->flags & MREMAP_DONTUNMAP))
    return 0;
  gulong more = m->flags & MREMAP_DONTUNMAP ? m->new_len : m->new_len - m->old_len;
  if (v->source && v->off + (goffset)(m->old - tes_vma_start(v)) > G_MAXINT64 - (goffset)m->new_len)
    return -EINVAL;
  if ((v->flags & TES_VMA_LOCKED) && tes_mm_limit(&mm->lock_limit) != RLIM_INFINITY &&
      (mm->locked_pages << TES_PAGE_SHIFT) + more > tes_mm_limit(&mm->lock_limit))
    return -EAGAIN;
  return tes_limit_check(mm, more, tes_is_data(v->prot, v->flags));
}

/* Memory for the part by which a mapping grew. Larger parts wait for faults, as do sources. */
static void fill_tail(TesMM *mm, TesVma *v, gulong start, gulong end) {
  if (start >= end)
    return;
  if (!v->source && v->prot != PROT_NONE && !(v->flags & TES_VMA_NORESERVE) &&
      end - start <= tes_eager_max(mm)) {
    TesChange c;
    tes_change_init(&c);
    TES_LOCKED(&mm->pages_lock);
    /* A failure shows at the fault. */
    if (tes_anon_populate(mm, v, &c, start, end, 0) == 0)
      tes_change_apply(mm, &c);
    tes_change_finish(mm, &c);
  }
  if ((v->flags & (TES_VMA_LOCKED | TES_VMA_LOCKONFAULT)) == TES_VMA_LOCKED)
    tes_mm_touch(mm, v, start, end);
}

/* Entries of [old, old+len) go to `to`; pages in windows of files are asked for again. pages_lock held. */
static void move_entries(TesMM *mm, TesChange *c, gulong old, gulong len, gulong to) {
  for (gulong at = tes_pages_find(mm, old, old + len, TRUE); at < old + len;
       at = tes_pages_find(mm, at, old + len, TRUE)) {
    TesLeaf *l = tes_leaf_get(mm, at);
    guint i = tes_leaf_index(at);
    TesPte e = l->e[i];
    tes_pte_store(l, i, 0);
    gulong dst = to + (at - old);
    if (e & TES_PTE_MEM)
      tes_pte_store(tes_leaf_get(mm, dst), tes_leaf_index(dst), e);
    at += TES_PAGE_SIZE;
  }
  tes_pages_clear(mm, c, old, old + len, TES_CLEAR_SLOTS);
}

static int move_pages(TesMM *mm, const TesVma *v, gulong old, gulong len, gulong to) {
  TesChange c;
  tes_change_init(&c);
  TES_LOCKED(&mm->pages_lock);
  tes_change_unmap(&c, old, len);
  for (gulong at = tes_pages_find(mm, old, old + len, TRUE); at < old + len;
       at = tes_pages_find(mm, at, old + len, TRUE)) {
    TesPte e = tes_pte(mm, at);
    if (e & TES_PTE_MEM)
      tes_change_map(&c, to + (at - old), TES_PAGE_SIZE, tes_pte_prot(v, e), mm->mf->fd,
                     tes_memfile_offset(mm->mf, tes_pte_page(e)), TES_MAP_STABLE_FD);
    at += TES_PAGE_SIZE;
  }
  int r = tes_change_apply(mm, &c);
  if (r == 0) {
    move_entries(mm, &c, old, len, to);
  } else {
    /* What was unmapped at the old place comes back by faults. */
    c.n = 0;
    tes_change_unmap(&c, to, len);
    tes_change_apply(mm, &c);
  }
  tes_change_finish(mm, &c);
  return r;
}

static glong move_to(TesMM *mm, const Remap *m, gulong to) {
  if (mm->n_vmas + 4 > TES_VMA_MAX)
    return -ENOMEM;
  gboolean keep = m->flags & MREMAP_DONTUNMAP;
  int r = tes_patch_undo(mm, m->old, m->old + m->old_len); /* changed code is right at its place only */
  if (r == 0 && m->old_len && !keep)
    r = tes_vma_isolate(mm, m->old, m->old + m->old_len);
  if (r < 0)
    return r;
  TesVma *v = tes_vma_find(mm, m->old), *n = tes_vma_copy(v, mm);
  n->off = v->source ? v->off + (goffset)(m->old - tes_vma_start(v)) : 0;
  n->node.key = to;
  n->end = to + m->new_len;
  tes_vma_insert(mm, n);
  if (m->old_len)
    r = move_pages(mm, v, m->old, MIN(m->old_len, m->new_len), to);
  if (r < 0) {
    tes_vma_remove(mm, n);
    return r;
  }
  if (m->old_len && !keep)
    tes_vma_remove(mm, v);
  else if (m->old_len)
    tes_vma_set(mm, v, v->prot, v->flags & ~(guint)(TES_VMA_LOCKED | TES_VMA_LOCKONFAULT));
  fill_tail(mm, n, to + m->old_len, n->end);
  tes_vma_merge(mm, n);
  return (glong)to;
}

static glong grow_in_place(TesMM *mm, TesVma *v, const Remap *m) {
  gulong end = m->old + m->new_len;
  TesVma *next = tes_vma_next(v);
  if (v->end != m->old + m->old_len || end > mm->max_addr || (next && tes_vma_start(next) < end))
    return -ENOMEM;
  if (next && (next->flags & TES_VMA_GROWSDOWN) && tes_vma_start(next) - end < TES_STACK_GUARD)
    return -ENOMEM;
  tes_vma_resize(mm, v, tes_vma_start(v), end);
  fill_tail(mm, v, m->old + m->old_len, end);
  tes_vma_merge(mm, v);
  return (glong)m->old;
}

static glong remap_to(TesMM *mm, Remap *m) {
  int r = 0;
  if (m->flags & MREMAP_FIXED) {
    r = tes_unmap_range(mm, m->to, m->to + m->new_len);
    if (r < 0)
      return r;
  }
  if (m->old_len > m->new_len) {
    r = tes_unmap_range(mm, m->old + m->new_len, m->old + m->old_len);
    m->old_len = m->new_len;
  }
  if (r == 0)
    r = check_vma(mm, tes_vma_find(mm, m->old), m);
  if (r < 0)
    return r;
  gulong to = m->flags & MREMAP_FIXED ? m->to : tes_place(mm, m->to, m->new_len, 0);
  return to ? move_to(mm, m, to) : -ENOMEM;
}

static glong remap_locked(TesMM *mm, Remap *m) {
  TesVma *v = tes_vma_find(mm, m->old);
  if (!v)
    return -EFAULT;
  if (m->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
    return remap_to(mm, m);
  if (m->old_len >= m->new_len) {
    int r = m->old_len > m->new_len ? tes_unmap_range(mm, m->old + m->new_len, m->old + m->old_len) : 0;
    return r < 0 ? r : (glong)m->old;
  }
  int r = check_vma(mm, v, m);
  if (r < 0)
    return r;
  glong at = m->old_len ? grow_in_place(mm, v, m) : -ENOMEM;
  if (at != -ENOMEM || !(m->flags & MREMAP_MAYMOVE))
    return at;
  gulong to = tes_place(mm, 0, m->new_len, 0);
  return to ? move_to(mm, m, to) : -ENOMEM;
}

glong tes_mm_mremap(TesMM *mm, TesTask *t, gulong old, gulong old_len, gulong new_len, guint flags,
                    gulong to) {
  Remap m = {old, old_len, new_len, flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) ? to : 0, flags};
  int r = check_args(mm, &m);
  if (r < 0)
    return r;
  tes_mm_note_limits(mm, t);
  tes_mm_lock(mm);
  glong at = remap_locked(mm, &m);
  tes_mm_unlock(mm);
  return at;
}
