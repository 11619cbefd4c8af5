/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that parent and child both write soon after a fork: the stack, thread-local data, the C library's state. They are
 * learnt from the first copy-on-write breaks that follow forks and copied by the next fork itself: the parent keeps its page
 * writable, the child begins with a copy. That saves two faults for each page, for the price of copying some in vain.
 *
 * Address spaces related by fork share what was learnt; exec begins anew. */
#include <core/mm/private.h>
#include <sys/uio.h>

#define NOTED_AFTER_FORK 12
#define FORGET_EVERY 64 /* forks: what is not written any more would be copied for ever */

struct _TesHot {
  gint refs;
  gulong addr[TES_HOT_NOTES]; /* atomic; 0: none */
  guint next, forks;          /* atomic */
};

TesHot *tes_hot_ref(TesHot *h) {
  g_atomic_int_inc(&h->refs);
  return h;
}

void tes_hot_unref(TesHot *h) {
  if (h && g_atomic_int_dec_and_test(&h->refs))
    g_free(h);
}

void tes_hot_note(TesMM *mm, gulong addr) {
  TesHot *h = mm->hot;
  if (!h || mm->noted >= NOTED_AFTER_FORK)
    return;
  mm->noted++;
  for (guint i = 0; i < TES_HOT_NOTES; i++)
    if (__atomic_load_n(&h->addr[i], __ATOMIC_RELAXED) == addr)
      return;
  guint i = __atomic_fetch_add(&h->next, 1, __ATOMIC_RELAXED);
  __atomic_store_n(&h->addr[i % TES_HOT_NOTES], addr, __ATOMIC_RELAXED);
}

/* ---- Copying ---- */

static void add(TesHotCopy *c, gulong addr) {
  guint i = c->n;
  for (guint k = 0; k < c->n; k++)
    if (c->addr[k] == addr)
      return;
  for (; i > 0 && c->addr[i - 1] > addr; i--)
    c->addr[i] = c->addr[i - 1];
  c->addr[i] = addr;
  c->n++;
}

static TesPte wanted(TesMM *mm, gulong addr) {
  const TesVma *v = tes_vma_find(mm, addr);
  if (!v || !tes_vma_private(v) || !(v->prot & PROT_WRITE) ||
      v->flags & (TES_VMA_DONTFORK | TES_VMA_WIPEONFORK))
    return 0;
  TesPte e = tes_pte(mm, addr);
  return (e & TES_PTE_ANON) && (e & TES_PTE_MEM) && !(e & TES_PTE_PATCHED) ? e : 0;
}

/* One write for all: the destination is contiguous. */
static gboolean copy(TesMM *mm, TesHotCopy *c) {
  struct iovec v[TES_HOT_MAX];
  gsize len = c->n * TES_PAGE_SIZE;
  if (c->n == 0 || tes_memfile_check(mm->mf, len) < 0)
    return FALSE;
  for (guint i = 0; i < c->n; i++)
    v[i] = (struct iovec){tes_pte_page(tes_pte(mm, c->addr[i])), TES_PAGE_SIZE};
  c->off = tes_memfile_reserve(mm->mf, len, TES_PAGE_SIZE, 0);
  if (c->off < 0)
    return FALSE;
  tes_memfile_commit(mm->mf, c->off, len, TES_MEM_ANON);
  if (pwritev(mm->mf->fd, v, (int)c->n, c->off) == (gssize)len)
    return TRUE;
  tes_memfile_unref(mm->mf, c->off, len);
  return FALSE;
}

void tes_hot_copy(TesMM *mm, const gulong *hints, guint n, TesHotCopy *out) {
  TesHot *h = mm->hot;
  gulong page[TES_HOT_MAX];
  guint pages = 0;
  out->n = 0;
  mm->noted = 0;
  /* Other threads could write while a page is copied: the child would see the later of two writes without the earlier. */
  if (g_atomic_int_get(&mm->users) != 1)
    return;
  if (!h) {
    h = mm->hot = g_new0(TesHot, 1);
    h->refs = 1;
  }
  gboolean forget = __atomic_add_fetch(&h->forks, 1, __ATOMIC_RELAXED) % FORGET_EVERY == 0;
  for (guint i = 0; i < n && i < TES_HOT_HINTS; i++)
    page[pages++] = TES_PAGE_DOWN(hints[i]);
  for (guint i = 0; i < TES_HOT_NOTES; i++) {
    page[pages++] = __atomic_load_n(&h->addr[i], __ATOMIC_RELAXED);
    if (forget)
      __atomic_store_n(&h->addr[i], 0, __ATOMIC_RELAXED);
  }
  for (guint i = 0; i < pages; i++)
    if (page[i] && wanted(mm, page[i]))
      add(out, page[i]);
  if (!copy(mm, out))
    out->n = 0;
}
