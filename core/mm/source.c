/* SPDX-License-Identifier: Apache-2.0 */
/* Mapping sources: the reverse map from a source to the vmas that use it, taking pages away (truncate), and the source
 * of fresh shared memory. Lock order: map_lock > source lock > pages_lock. */
#include <core/mm/private.h>

static const TesLockClass source_class = {"map-source", TES_RANK_MAP_SOURCE, TRUE, "vmas that map a source"};

void tes_map_source_init(TesMapSource *s, const TesMapSourceOps *ops) {
  s->ops = ops;
  s->maps = NULL;
  s->invalidations = 0;
  tes_mutex_init(&s->lock, &source_class);
}

void tes_map_source_clear(TesMapSource *s) {
  g_assert(!s->maps);
  tes_mutex_clear(&s->lock);
}

void tes_source_link(TesVma *v) {
  TES_LOCKED(&v->source->lock);
  v->link.prev = NULL;
  v->link.next = v->source->maps;
  if (v->link.next)
    v->link.next->prev = &v->link;
  v->source->maps = &v->link;
}

void tes_source_unlink(TesVma *v) {
  TES_LOCKED(&v->source->lock);
  v->source->maps = g_list_remove_link(v->source->maps, &v->link);
}

gboolean tes_map_source_has_writers(TesMapSource *s) {
  TES_LOCKED(&s->lock);
  for (GList *l = s->maps; l; l = l->next) {
    TesVma *v = l->data;
    if ((v->flags & TES_VMA_SHARED) && (v->may & PROT_WRITE))
      return TRUE;
  }
  return FALSE;
}

/* Source lock held. */
static void invalidate_vma(TesVma *v, goffset off, goffset end, gboolean even_private) {
  goffset v_end = v->off + (goffset)(v->end - tes_vma_start(v));
  goffset from = MAX(off, v->off), to = MIN(end, v_end);
  if (from >= to)
    return;
  TesMM *mm = v->mm;
  gulong start = tes_vma_start(v) + (gulong)(from - v->off), stop = tes_vma_start(v) + (gulong)(to - v->off);
  TesChange c;
  tes_change_init(&c);
  TES_LOCKED(&mm->pages_lock);
  mm->invalidations++;
  gboolean keep = tes_vma_private(v) && !even_private;
  tes_pages_clear(mm, &c, start, stop, keep ? TES_CLEAR_KEEP_ANON : 0);
  tes_change_unmap(&c, start, stop - start);
  if (keep)
    tes_pages_replay(mm, v, &c, start, stop);
  /* Mapping limits cannot stop an unmapping from the start; what a failure leaves is only kept private pages, which
   * the next fault maps again. */
  tes_change_apply(mm, &c);
  tes_change_finish(mm, &c);
}

void tes_map_source_invalidate(TesMapSource *s, goffset off, goffset len, gboolean even_private) {
  if (len <= 0)
    return;
  off &= (goffset)TES_PAGE_MASK;
  goffset end = len > G_MAXINT64 - off - (goffset)TES_PAGE_SIZE ? G_MAXINT64
                                                                : (goffset)TES_PAGE_UP((gulong)(off + len));
  TES_LOCKED(&s->lock);
  s->invalidations++;
  for (GList *l = s->maps; l; l = l->next)
    invalidate_vma(l->data, off, end, even_private);
}

/* ---- Shared memory ---- */

static const TesLockClass shm_class = {"shm-source", TES_RANK_MAP_SOURCE - 1, FALSE,
                                       "chunks of shared anonymous memory"};

/* Small ones are one contiguous range; large ones take 2 MiB chunks as they are touched. */
typedef struct {
  TesMapSource source;
  gint refs;
  TesMemFile *mf;
  gsize size;
  goffset whole;      /* -1: chunks */
  TesMutex lock;      /* guards chunks */
  GHashTable *chunks; /* index -> page number of the offset */
} Shm;

static gsize chunk_len(const Shm *s, gsize index) {
  return MIN(TES_LEAF_SIZE, s->size - index * TES_LEAF_SIZE);
}

static int shm_piece(TesMapSource *source, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  Shm *s = (Shm *)source;
  if (off < 0 || (gsize)off >= s->size)
    return -EFAULT;
  gsize len = s->size - (gsize)off;
  goffset at;
  if (s->whole >= 0) {
    at = s->whole + off;
  } else {
    gsize index = (gsize)off / TES_LEAF_SIZE, inside = (gsize)off % TES_LEAF_SIZE;
    len = chunk_len(s, index) - inside;
    TES_LOCKED(&s->lock);
    goffset base = (goffset)GPOINTER_TO_SIZE(g_hash_table_lookup(s->chunks, GSIZE_TO_POINTER(index)))
                   << TES_PAGE_SHIFT;
    if (!base) {
      base = tes_memfile_alloc(s->mf, chunk_len(s, index), TES_PAGE_SIZE, 0, TES_MEM_ANON);
      if (base < 0)
        return (int)base;
      g_hash_table_insert(s->chunks, GSIZE_TO_POINTER(index),
                          GSIZE_TO_POINTER((gsize)base >> TES_PAGE_SHIFT));
    }
    at = base + (goffset)inside;
  }
  *out = (TesMapPiece){s->mf->fd, at, tes_memfile_ptr(s->mf, at), MIN(len, max)};
  return 0;
}

static void shm_ref(TesMapSource *source) { g_atomic_int_inc(&((Shm *)source)->refs); }

static void shm_unref(TesMapSource *source) {
  Shm *s = (Shm *)source;
  if (!g_atomic_int_dec_and_test(&s->refs))
    return;
  if (s->whole >= 0)
    tes_memfile_unref(s->mf, s->whole, s->size);
  GHashTableIter it;
  gpointer index, page;
  g_hash_table_iter_init(&it, s->chunks);
  while (g_hash_table_iter_next(&it, &index, &page))
    tes_memfile_unref(s->mf, (goffset)GPOINTER_TO_SIZE(page) << TES_PAGE_SHIFT,
                      chunk_len(s, GPOINTER_TO_SIZE(index)));
  g_hash_table_unref(s->chunks);
  tes_mutex_clear(&s->lock);
  tes_map_source_clear(source);
  g_free(s);
}

static const TesMapSourceOps shm_ops = {sizeof(TesMapSourceOps), shm_piece, shm_ref, shm_unref};

TesMapSource *tes_shm_source_new(TesKernel *k, gsize size) {
  TesMemFile *mf = tes_kernel_memfile(k);
  if (size == 0 || size > TES_ADDR_LIMIT)
    return NULL;
  size = TES_PAGE_UP(size);
  goffset whole = -1;
  if (size <= TES_EAGER_MAX) {
    whole = tes_memfile_alloc(mf, size, TES_PAGE_SIZE, 0, TES_MEM_ANON);
    if (whole < 0)
      return NULL;
  }
  Shm *s = g_new0(Shm, 1);
  tes_map_source_init(&s->source, &shm_ops);
  tes_mutex_init(&s->lock, &shm_class);
  s->refs = 1;
  s->mf = mf;
  s->size = size;
  s->whole = whole;
  s->chunks = g_hash_table_new(NULL, NULL);
  return &s->source;
}

gboolean tes_source_is_shm(const TesMapSource *s) { return s->ops == &shm_ops; }

int tes_shm_source_punch(TesMapSource *source, goffset off, goffset len) {
  Shm *s = (Shm *)source;
  if (!tes_source_is_shm(source))
    return -EINVAL;
  goffset end = MIN(off + len, (goffset)s->size);
  for (goffset at = off; at < end;) {
    goffset pos = s->whole + at, stop = end;
    if (s->whole < 0) {
      gsize index = (gsize)at / TES_LEAF_SIZE;
      stop = MIN(end, (goffset)((index + 1) * TES_LEAF_SIZE));
      TES_LOCKED(&s->lock);
      gsize page = GPOINTER_TO_SIZE(g_hash_table_lookup(s->chunks, GSIZE_TO_POINTER(index)));
      pos = page ? (goffset)((page << TES_PAGE_SHIFT) + (gsize)at % TES_LEAF_SIZE) : -1;
    }
    int r = pos >= 0 ? tes_memfile_zero(s->mf, pos, (gsize)(stop - at)) : 0;
    if (r < 0)
      return r;
    at = stop;
  }
  return 0;
}
