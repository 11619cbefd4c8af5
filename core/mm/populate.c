/* SPDX-License-Identifier: Apache-2.0 */
/* Giving pages to ranges: fresh memory for anonymous ones, pieces of the source for file mappings, copies for small
 * writable private ones. One batch for the platform per call. */
#include <core/mm/private.h>

/* ---- Anonymous ---- */

/* Offsets for n pages from addr that lie in one run. Small ranges come from their leaf's slots if those are unused. */
static goffset take_offsets(TesMM *mm, gulong addr, gsize len) {
  guint i = tes_leaf_index(addr);
  if (len < TES_LEAF_SIZE && i + (len >> TES_PAGE_SHIFT) <= TES_LEAF_PAGES) {
    goffset off = tes_leaf_take(mm, tes_leaf_get(mm, addr), i, (guint)(len >> TES_PAGE_SHIFT), FALSE);
    if (off >= 0)
      return off;
  }
  goffset off = tes_memfile_reserve(mm->mf, len, TES_PAGE_SIZE, 0);
  if (off >= 0)
    tes_memfile_commit(mm->mf, off, len, TES_MEM_ANON);
  return off;
}

static void fill_entries(TesMM *mm, const TesVma *v, gulong start, gulong end, guint8 *page, TesPte flags) {
  TesPte e = tes_pte_for(v, flags);
  for (gulong at = start; at < end;) {
    TesLeaf *l = tes_leaf_get(mm, at);
    gulong stop = MIN(end, l->base + TES_LEAF_SIZE);
    for (; at < stop; at += TES_PAGE_SIZE, page += TES_PAGE_SIZE)
      tes_pte_store(l, tes_leaf_index(at), (TesPte)page | e);
  }
}

static int populate_run(TesMM *mm, TesVma *v, TesChange *c, gulong start, gulong end, guint op_flags) {
  gsize len = end - start;
  int r = tes_memfile_check(mm->mf, len);
  if (r < 0)
    return r;
  goffset off = take_offsets(mm, start, len);
  if (off < 0)
    return (int)off;
  fill_entries(mm, v, start, end, tes_memfile_ptr(mm->mf, off), TES_PTE_ANON | TES_PTE_OWNED | TES_PTE_MEM);
  tes_change_map(c, start, len, v->prot, mm->mf->fd, off, TES_MAP_STABLE_FD | op_flags);
  return 0;
}

int tes_anon_populate(TesMM *mm, TesVma *v, TesChange *c, gulong start, gulong end, guint op_flags) {
  for (gulong at = tes_pages_find(mm, start, end, FALSE); at < end;) {
    gulong stop = tes_pages_find(mm, at, end, TRUE);
    int r = populate_run(mm, v, c, at, stop, op_flags);
    if (r < 0)
      return r;
    at = tes_pages_find(mm, stop, end, FALSE);
  }
  return 0;
}

/* ---- Sources ---- */

#define BATCH 32
#define RETRIES 1000

typedef struct {
  guint n;
  gulong start, end;
  TesMapPiece piece[BATCH];
  gboolean mem[BATCH];
  guint64 seen; /* source->invalidations before the pieces were asked for */
} Gather;

static void gather_release(TesMM *mm, Gather *g) {
  for (guint i = 0; i < g->n; i++)
    if (g->mem[i])
      tes_memfile_unref(mm->mf, g->piece[i].fd_off, g->piece[i].len);
}

/* Asks for pieces of [start, end), with page references. 0, or the error at g->end (after what could be had); -EAGAIN: a page
 * was taken away meanwhile. */
static int gather(TesMM *mm, const TesVma *v, gulong start, gulong end, Gather *g) {
  TesMapSource *s = v->source;
  gboolean write = !tes_vma_private(v) && (v->prot & PROT_WRITE);
  g->n = 0;
  g->start = g->end = start;
  tes_mutex_lock(&s->lock);
  g->seen = s->invalidations;
  tes_mutex_unlock(&s->lock);
  while (g->end < end && g->n < BATCH) {
    TesMapPiece *p = &g->piece[g->n];
    gsize max = end - g->end;
    int r = s->ops->piece(s, v->off + (goffset)(g->end - tes_vma_start(v)), max, write, p);
    if (r < 0)
      return r;
    p->len = MIN(p->len & TES_PAGE_MASK, max);
    if (p->len == 0)
      return -EFAULT;
    g->mem[g->n] = p->fd == mm->mf->fd;
    if (g->mem[g->n] && !tes_memfile_try_ref(mm->mf, p->fd_off, p->len)) {
      gather_release(mm, g);
      return -EAGAIN;
    }
    g->end += p->len;
    g->n++;
  }
  return 0;
}

/* Enters one page of a piece; FALSE: a private copy is there and stays. */
static gboolean install_page(TesMM *mm, TesChange *c, TesLeaf *l, guint i, TesPte fresh) {
  TesPte old = l->e[i];
  TesPte spare = (old & TES_PTE_ANON) || tes_pte_page(old) == tes_pte_page(fresh) ? fresh : old;
  if (old && (spare & TES_PTE_MEM))
    tes_change_drop(c, tes_memfile_offset(mm->mf, tes_pte_page(spare)), TES_PAGE_SIZE);
  if (old & TES_PTE_ANON)
    return FALSE;
  tes_pte_store(l, i, fresh);
  return TRUE;
}

static void install_piece(TesMM *mm, TesVma *v, TesChange *c, gulong addr, const TesMapPiece *p,
                          gboolean mem) {
  TesPte flags = tes_pte_for(v, mem ? TES_PTE_MEM : 0);
  guint prot = tes_pte_prot(v, flags);
  if (!mem)
    v->piece = *p;
  for (gsize done = 0; done < p->len; done += TES_PAGE_SIZE) {
    gulong at = addr + done;
    if (install_page(mm, c, tes_leaf_get(mm, at), tes_leaf_index(at),
                     (TesPte)((guint8 *)p->window + done) | flags))
      tes_change_map(c, at, TES_PAGE_SIZE, prot, p->fd, p->fd_off + (goffset)done,
                     mem ? TES_MAP_STABLE_FD : 0);
  }
}

/* Enters what was gathered unless the source has taken pages away since: -EAGAIN. */
static int install(TesMM *mm, TesVma *v, Gather *g) {
  TesChange c;
  tes_change_init(&c);
  int r = -EAGAIN;
  tes_mutex_lock(&v->source->lock);
  if (v->source->invalidations == g->seen) {
    tes_mutex_lock(&mm->pages_lock);
    gulong at = g->start;
    for (guint i = 0; i < g->n; at += g->piece[i++].len)
      install_piece(mm, v, &c, at, &g->piece[i], g->mem[i]);
    r = tes_change_apply(mm, &c);
    tes_change_finish(mm, &c);
    tes_mutex_unlock(&mm->pages_lock);
  }
  tes_mutex_unlock(&v->source->lock);
  if (r == -EAGAIN)
    gather_release(mm, g);
  return r;
}

int tes_source_populate(TesMM *mm, TesVma *v, gulong start, gulong end, gulong need) {
  guint tries = 0;
  for (gulong at = start; at < end;) {
    Gather g;
    int fail = gather(mm, v, at, end, &g);
    int r = fail == -EAGAIN ? fail : g.n > 0 ? install(mm, v, &g) : 0;
    if (r == -EAGAIN) {
      if (++tries > RETRIES)
        return -EFAULT;
      continue;
    }
    if (r < 0)
      return r;
    at = g.end;
    if (fail == 0)
      continue;
    if (at > need)
      return 0;
    if (at == need)
      return fail;
    at = need;
  }
  return 0;
}

/* ---- Copies of small writable private mappings ---- */

/* Copies what the source has into [dst, ...): bytes copied, or -EAGAIN, -ENOMEM. */
static gssize copy_pieces(TesMM *mm, TesVma *v, goffset dst) {
  gsize len = v->end - tes_vma_start(v), done = 0;
  while (done < len) {
    TesMapPiece p;
    int r = v->source->ops->piece(v->source, v->off + (goffset)done, len - done, FALSE, &p);
    if (r < 0)
      break;
    p.len = MIN(p.len & TES_PAGE_MASK, len - done);
    gboolean mem = p.fd == mm->mf->fd;
    if (p.len == 0)
      break;
    if (mem && !tes_memfile_try_ref(mm->mf, p.fd_off, p.len))
      return -EAGAIN;
    r = tes_memfile_copy_page_run(mm->mf, dst + (goffset)done, p.window, p.len);
    if (mem)
      tes_memfile_unref(mm->mf, p.fd_off, p.len);
    if (r == -ENOMEM)
      return r;
    if (r < 0)
      break;
    done += p.len;
  }
  return (gssize)done;
}

static int copy_once(TesMM *mm, TesVma *v, goffset dst) {
  gsize len = v->end - tes_vma_start(v);
  gulong start = tes_vma_start(v);
  tes_mutex_lock(&v->source->lock);
  guint64 seen = v->source->invalidations;
  tes_mutex_unlock(&v->source->lock);
  gssize got = copy_pieces(mm, v, dst);
  if (got == -ENOMEM)
    tes_memfile_unref(mm->mf, dst, len);
  if (got < 0)
    return (int)got;
  TesChange c;
  tes_change_init(&c);
  int r = -EAGAIN;
  tes_mutex_lock(&v->source->lock);
  if (v->source->invalidations == seen) {
    tes_mutex_lock(&mm->pages_lock);
    if (got > 0) {
      fill_entries(mm, v, start, start + (gulong)got, tes_memfile_ptr(mm->mf, dst),
                   TES_PTE_ANON | TES_PTE_OWNED | TES_PTE_MEM);
      tes_change_map(&c, start, (gsize)got, v->prot, mm->mf->fd, dst, TES_MAP_STABLE_FD);
    }
    if ((gsize)got < len)
      tes_change_drop(&c, dst + got, len - (gsize)got);
    r = tes_change_apply(mm, &c);
    tes_change_finish(mm, &c);
    tes_mutex_unlock(&mm->pages_lock);
  }
  tes_mutex_unlock(&v->source->lock);
  return r;
}

int tes_source_copy(TesMM *mm, TesVma *v) {
  gsize len = v->end - tes_vma_start(v);
  int r = tes_memfile_check(mm->mf, len);
  if (r < 0)
    return r;
  tes_mutex_lock(&mm->pages_lock);
  goffset dst = take_offsets(mm, tes_vma_start(v), len);
  tes_mutex_unlock(&mm->pages_lock);
  if (dst < 0)
    return (int)dst;
  for (guint tries = 0; tries < RETRIES; tries++) {
    r = copy_once(mm, v, dst);
    if (r != -EAGAIN)
      return r;
    tes_memfile_zero(mm->mf, dst, len);
  }
  tes_memfile_unref(mm->mf, dst, len);
  return 0; /* faults will map the source */
}

/* ---- Touching ---- */

static void touch_run(TesMM *mm, guint8 *p, gsize len, gboolean write) {
  /* The pages stay in the file; only the kernel's own page-table entries are given back. */
  if (madvise(p, len, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0)
    madvise(p, len, MADV_DONTNEED);
}

int tes_mm_touch(TesMM *mm, TesVma *v, gulong start, gulong end) {
  gboolean write = (v->prot & PROT_WRITE) && tes_vma_private(v);
  if (v->prot == PROT_NONE)
    return -EACCES;
  guint8 *run = NULL;
  gsize len = 0;
  int r = 0;
  const TesTask *self = tes_task_current();
  for (gulong at = start; at < end; at += TES_PAGE_SIZE) {
    if (self && (at & (TES_LEAF_SIZE - 1)) == 0 && g_atomic_int_get(&self->killed)) {
      r = -EINTR;
      break;
    }
    TesPte e = tes_pte_peek(mm, at);
    if (!e || (write && !(e & TES_PTE_WRITE))) {
      r = tes_mm_resolve(mm, at, write ? TES_NEED_WRITE : 0);
      if (r < 0)
        break;
      e = tes_pte_peek(mm, at);
    }
    if (!(e & TES_PTE_MEM))
      continue;
    if (run && run + len != tes_pte_page(e)) {
      touch_run(mm, run, len, TRUE);
      run = NULL;
    }
    if (!run) {
      run = tes_pte_page(e);
      len = 0;
    }
    len += TES_PAGE_SIZE;
  }
  if (run)
    touch_run(mm, run, len, TRUE);
  return r;
}
