/* SPDX-License-Identifier: Apache-2.0 */
/* Whose memory is it? Accounting of the memory file by cgroup (tessera/cgroup.h). Each page keeps the id of the cgroup whose task
 * took it, until it is free again; the bytes of each id are added up. That bounds from above what a cgroup really uses,
 * because a page that was handed out exists only when it has been touched; sampling asks the host for those. */
#include <core/mm/private.h>

#define PRESSURE_STEP (1UL << 20)
#define REFS_PER_PAGE (TES_PAGE_SIZE / sizeof(guint32))

static gsize owner_bytes(const TesMemFile *mf) { return mf->size / TES_PAGE_SIZE * sizeof *mf->owner; }

void tes_memfile_account(TesMemFile *mf) {
  TES_LOCKED(&mf->lock);
  if (mf->owner)
    return;
  void *p =
      mmap(NULL, owner_bytes(mf), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return; /* then every page is nobody's */
  madvise(p, owner_bytes(mf), MADV_DONTDUMP);
  mf->charged = g_new0(guint64, TES_MEM_IDS);
  mf->taken = g_new0(guint64, TES_MEM_IDS);
  mf->watched = g_new0(guint8, TES_MEM_IDS);
  g_atomic_pointer_set(&mf->owner, p);
}

void tes_memfile_account_free(TesMemFile *mf) {
  if (mf->owner)
    munmap(mf->owner, owner_bytes(mf));
  g_free(mf->charged);
  g_free(mf->taken);
  g_free(mf->watched);
}

void tes_memfile_watch(TesMemFile *mf, guint id, gboolean on) {
  if (tes_memfile_accounts(mf) && id < TES_MEM_IDS)
    __atomic_store_n(&mf->watched[id], (guint8)on, __ATOMIC_RELAXED);
}

gboolean tes_memfile_watches_me(const TesMemFile *mf) {
  TesTask *t = tes_task_current();
  return t && __atomic_load_n(&mf->watched[(guint16)g_atomic_int_get(&t->mem_id)], __ATOMIC_RELAXED);
}

guint64 tes_memfile_charged(const TesMemFile *mf, guint id) {
  return tes_memfile_accounts(mf) && id < TES_MEM_IDS ? __atomic_load_n(&mf->charged[id], __ATOMIC_RELAXED)
                                                      : 0;
}

void tes_memfile_charge(TesMemFile *mf, goffset off, gsize len) {
  TesTask *t = tes_task_current();
  guint16 id = t ? (guint16)g_atomic_int_get(&t->mem_id) : 0;
  guint16 *o = mf->owner + (off >> TES_PAGE_SHIFT);
  for (gsize i = 0; i < len >> TES_PAGE_SHIFT; i++)
    __atomic_store_n(&o[i], id, __ATOMIC_RELAXED);
  if (!id)
    return;
  __atomic_fetch_add(&mf->charged[id], len, __ATOMIC_RELAXED);
  if (!__atomic_load_n(&mf->watched[id], __ATOMIC_RELAXED) ||
      __atomic_add_fetch(&mf->taken[id], len, __ATOMIC_RELAXED) < PRESSURE_STEP)
    return;
  __atomic_store_n(&mf->taken[id], 0, __ATOMIC_RELAXED);
  t->mem_pressure = TRUE; /* seen on the way back to the guest */
  g_atomic_int_set(&t->work_pending, 1);
}

void tes_memfile_uncharge(TesMemFile *mf, goffset off, gsize len) {
  const guint16 *o = mf->owner + (off >> TES_PAGE_SHIFT);
  gsize n = len >> TES_PAGE_SHIFT;
  for (gsize i = 0; i < n;) {
    gsize from = i;
    guint16 id = __atomic_load_n(&o[i], __ATOMIC_RELAXED);
    while (i < n && __atomic_load_n(&o[i], __ATOMIC_RELAXED) == id)
      i++;
    if (id)
      __atomic_fetch_sub(&mf->charged[id], (i - from) << TES_PAGE_SHIFT, __ATOMIC_RELAXED);
  }
}

/* ---- Sampling ---- */

/* Which pages of [p, p + n pages) exist; FALSE: unknown. */
static gboolean present(const void *p, gsize n, guint8 *vec) {
  return mincore((void *)(gulong)p, n << TES_PAGE_SHIFT, vec) == 0;
}

/* Pages [first, first + n), whose counts lie in one page of the table. */
static void sample_block(TesMemFile *mf, const guint8 *ids, gsize first, gsize n, guint64 *bytes) {
  guint8 vec[REFS_PER_PAGE];
  for (gsize i = 0; i < n;) {
    gsize from = i;
    for (; i < n; i++) {
      guint16 id = __atomic_load_n(&mf->owner[first + i], __ATOMIC_RELAXED);
      if (!(__atomic_load_n(&mf->refs[first + i], __ATOMIC_RELAXED) & TES_REF_COUNT) ||
          !(ids[id / 8] & 1 << id % 8))
        break;
    }
    if (i == from) {
      i++;
      continue;
    }
    if (!present(mf->base + ((first + from) << TES_PAGE_SHIFT), i - from, vec))
      continue;
    for (gsize k = from; k < i; k++)
      if (vec[k - from] & 1)
        bytes[__atomic_load_n(&mf->refs[first + k], __ATOMIC_RELAXED) >> 30] += TES_PAGE_SIZE;
  }
}

void tes_memfile_sample(TesMemFile *mf, const guint8 *ids, guint64 bytes[TES_MEM_CLASSES]) {
  guint64 sum[4] = {0};
  gsize end = mf->size / TES_PAGE_SIZE, at = MIN(mf->low / TES_PAGE_SIZE, end) & ~(REFS_PER_PAGE - 1);
  guint8 vec[512];
  for (; tes_memfile_accounts(mf) && at < end; at += G_N_ELEMENTS(vec) * REFS_PER_PAGE) {
    gsize blocks = MIN(G_N_ELEMENTS(vec), (end - at) / REFS_PER_PAGE);
    /* Counts that were never written belong to pages that were never handed out. */
    if (!present(mf->refs + at, blocks, vec))
      break;
    for (gsize b = 0; b < blocks; b++)
      if (vec[b] & 1)
        sample_block(mf, ids, at + b * REFS_PER_PAGE, REFS_PER_PAGE, sum);
  }
  for (guint i = 0; i < TES_MEM_CLASSES; i++)
    bytes[i] = sum[i];
}

/* ---- Moving ---- */

static void recharge_page(TesMemFile *mf, gsize page, guint16 id) {
  guint16 old = __atomic_exchange_n(&mf->owner[page], id, __ATOMIC_RELAXED);
  if (old)
    __atomic_fetch_sub(&mf->charged[old], TES_PAGE_SIZE, __ATOMIC_RELAXED);
  if (id)
    __atomic_fetch_add(&mf->charged[id], TES_PAGE_SIZE, __ATOMIC_RELAXED);
}

static void recharge_leaf(TesMemFile *mf, const TesLeaf *l, guint16 id) {
  guint8 vec[TES_LEAF_PAGES];
  for (guint i = 0; i < TES_LEAF_PAGES;) {
    guint from = i;
    guint8 *first = tes_pte_page(l->e[i]);
    while (i < TES_LEAF_PAGES && (l->e[i] & TES_PTE_OWNED) && (l->e[i] & TES_PTE_MEM) &&
           tes_pte_page(l->e[i]) == first + (i - from) * TES_PAGE_SIZE)
      i++;
    if (i == from) {
      i++;
      continue;
    }
    if (!present(first, i - from, vec))
      continue;
    for (guint k = from; k < i; k++)
      if (!(vec[k - from] & 1))
        recharge_page(mf, (gsize)tes_memfile_offset(mf, tes_pte_page(l->e[k])) >> TES_PAGE_SHIFT, id);
  }
}

void tes_mm_recharge(TesMM *mm, guint id) {
  if (!tes_memfile_accounts(mm->mf))
    return;
  TES_LOCKED(&mm->pages_lock);
  for (const TesLeaf *l = mm->leaves; l; l = l->next)
    recharge_leaf(mm->mf, l, (guint16)id);
}
