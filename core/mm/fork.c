/* SPDX-License-Identifier: Apache-2.0 */
/* fork(2): a second address space with the same memory. Private pages become read-only in both and are copied when
 * they are written (cow.c), but for a few that both will write at once and that are copied here (hot.c). */
#include <core/mm/private.h>

#define RETRIES 16

/* Collects neighbouring pages to reference them in one go. */
typedef struct {
  TesMemFile *mf;
  goffset off;
  gsize len;
} RefRun;

static void ref_flush(RefRun *r) {
  if (r->len)
    tes_memfile_ref(r->mf, r->off, r->len);
  r->len = 0;
}

static void ref_add(RefRun *r, goffset off) {
  if (r->len && r->off + (goffset)r->len != off)
    ref_flush(r);
  if (!r->len)
    r->off = off;
  r->len += TES_PAGE_SIZE;
}

/* The state of copying a page map. */
typedef struct {
  TesMM *src, *child;
  RefRun refs;
  TesHotCopy hot;
  guint next;              /* in hot */
  TesChange protect, lose; /* of the parent; of the child: what it does not get, and its copies */
  gulong lo, hi;           /* pages of the current vma that lose write permission; hi 0: none yet */
} Copying;

static void protect_flush(Copying *c, const TesVma *v) {
  if (c->hi)
    tes_change_protect(&c->protect, c->lo, c->hi - c->lo, v->prot & ~(guint)PROT_WRITE);
  c->hi = 0;
}

/* The child's entry for a page that was copied already; the parent's stays as it is. */
static TesPte copied_page(Copying *c, const TesVma *v, gulong at) {
  TesMemFile *mf = c->src->mf;
  goffset off = c->hot.off + (goffset)c->next++ * (goffset)TES_PAGE_SIZE;
  tes_change_map(&c->lose, at, TES_PAGE_SIZE, v->prot, mf->fd, off, TES_MAP_STABLE_FD);
  c->child->scattered += 2;
  return (TesPte)tes_memfile_ptr(mf, off) | tes_pte_for(v, TES_PTE_ANON | TES_PTE_OWNED | TES_PTE_MEM);
}

/* One entry: the child's. Write permission of private pages ends in both. */
static TesPte copy_entry(Copying *c, const TesVma *v, TesLeaf *l, guint i, gulong at) {
  TesPte e = l->e[i];
  if (c->next < c->hot.n && c->hot.addr[c->next] == at) {
    protect_flush(c, v);
    return copied_page(c, v, at);
  }
  if (tes_vma_private(v) && (e & (TES_PTE_OWNED | TES_PTE_WRITE))) {
    if (e & TES_PTE_WRITE) {
      c->lo = c->hi ? c->lo : at;
      c->hi = at + TES_PAGE_SIZE;
    }
    e &= ~(TesPte)(TES_PTE_OWNED | TES_PTE_WRITE);
    tes_pte_store(l, i, e);
  }
  if (e & TES_PTE_MEM)
    ref_add(&c->refs, tes_memfile_offset(c->src->mf, tes_pte_page(e)));
  return e;
}

static void copy_entries(Copying *c, const TesVma *v) {
  TesLeaf *l;
  for (gulong at = tes_vma_start(v); at < v->end && (l = tes_leaf_next(c->src, at, v->end));) {
    gulong from = MAX(at, l->base), to = MIN(v->end, l->base + TES_LEAF_SIZE);
    at = to;
    if (!l->present)
      continue;
    TesLeaf *to_leaf = tes_leaf_get(c->child, from);
    for (gulong p = from; p < to; p += TES_PAGE_SIZE) {
      guint i = tes_leaf_index(p);
      if (l->e[i])
        tes_pte_store(to_leaf, i, copy_entry(c, v, l, i, p));
    }
  }
  protect_flush(c, v);
}

/* All vmas but the DONTFORK ones, linked to their sources, so that truncation finds the child from now on. */
static void copy_vmas(TesMM *src, TesMM *child) {
  for (TesVma *v = (TesVma *)tes_tree_first(&src->vmas); v; v = tes_vma_next(v)) {
    if (v->flags & TES_VMA_DONTFORK)
      continue;
    TesVma *n = tes_vma_copy(v, child);
    n->flags &= (guint16) ~(TES_VMA_LOCKED | TES_VMA_LOCKONFAULT);
    tes_vma_insert(child, n);
  }
}

/* ---- The platform's side ---- */

#define REPLAY_OPS 32 /* mapped again rather than cloned: then that is cheaper */
#define REPLAY_PAGES 2048
#define REPLAY_SOURCES 3 /* descriptors, each as dear as several mappings */

/* Where a page of a file lies in it. FALSE: not known any more; a fault finds out. */
static gboolean file_offset(const TesVma *v, TesPte e, goffset *off) {
  gsize in = (gsize)(tes_pte_page(e) - (guint8 *)v->piece.window);
  *off = v->piece.fd_off + (goffset)in;
  return in < v->piece.len;
}

/* MAP operations for what of a vma is present. */
static void replay_vma(TesMM *mm, const TesVma *v, TesChange *c) {
  for (gulong at = tes_pages_find(mm, tes_vma_start(v), v->end, TRUE); at < v->end && c->n <= REPLAY_OPS;
       at = tes_pages_find(mm, at + TES_PAGE_SIZE, v->end, TRUE)) {
    TesPte e = tes_pte(mm, at);
    goffset off;
    if (e & TES_PTE_MEM)
      tes_change_map(c, at, TES_PAGE_SIZE, tes_pte_prot(v, e), mm->mf->fd,
                     tes_memfile_offset(mm->mf, tes_pte_page(e)), TES_MAP_STABLE_FD);
    else if (file_offset(v, e, &off))
      tes_change_map(c, at, TES_PAGE_SIZE, tes_pte_prot(v, e), v->piece.fd, off, 0);
  }
}

/* Is the file one whose code runs here? Others (locales, say) can wait for a fault. */
static gboolean is_code(TesMM *mm, const TesMapSource *s) {
  for (TesVma *v = (TesVma *)tes_tree_first(&mm->vmas); v; v = tes_vma_next(v))
    if (v->source == s && v->prot & PROT_EXEC)
      return TRUE;
  return FALSE;
}

/* All mappings of a small address space. FALSE: it is not small. */
static gboolean replay_small(TesMM *mm, TesChange *c) {
  guint sources = 0;
  const TesMapSource *last = NULL;
  gboolean wanted = TRUE;
  for (TesVma *v = (TesVma *)tes_tree_first(&mm->vmas); v; v = tes_vma_next(v)) {
    if (v->source && v->source != last) {
      last = v->source;
      wanted = tes_source_is_shm(last) || is_code(mm, last);
      sources += wanted && v->piece.len;
    }
    if (!v->source || wanted)
      replay_vma(mm, v, c);
    if (c->n > REPLAY_OPS || sources > REPLAY_SOURCES)
      return FALSE;
  }
  tes_defer_sort(c->op, c->n);
  return TRUE;
}

/* A small address space, mapped again in an empty one that the platform has at hand. FALSE: clone. */
static gboolean use_spare(TesMM *src, TesMM *child, TesChange *maps) {
  if (!TES_HAS(src->aspace->ops, spare) || src->pages > REPLAY_PAGES || !replay_small(child, maps))
    return FALSE;
  child->aspace = src->aspace->ops->spare(src->aspace, src->rewrites > 0);
  return child->aspace != NULL;
}

static int clone_aspace(TesMM *src, TesMM *child, TesChange *protect, TesChange *lose) {
  GError *error = NULL;
  TesChange maps;
  tes_change_init(&maps);
  if (use_spare(src, child, &maps)) {
    int r = tes_change_apply(src, protect);
    if (r == 0)
      r = tes_change_apply(child, &maps);
    tes_change_finish(child, &maps);
    return r;
  }
  tes_change_finish(child, &maps);
  if (TES_HAS(src->aspace->ops, clone)) {
    child->aspace = src->aspace->ops->clone(src->aspace, protect->op, protect->n, &error);
    /* Whatever the failure left undone: the entries say read-only. */
    if (!child->aspace)
      tes_change_apply(src, protect);
  } else {
    int r = tes_change_apply(src, protect);
    if (r < 0)
      return r;
    child->aspace = src->kernel->platform->ops->aspace_new(src->kernel->platform, &error);
    lose->n = 0;
    for (TesVma *v = (TesVma *)tes_tree_first(&child->vmas); v; v = tes_vma_next(v))
      tes_pages_replay(child, v, lose, tes_vma_start(v), v->end);
  }
  if (!child->aspace) {
    tes_info("fork: %s", error ? error->message : "the platform made no address space");
    g_clear_error(&error);
    return -EMFILE; /* the host's processes, threads or descriptors; fork(2) has EAGAIN for that */
  }
  return tes_change_apply(child, lose);
}

/* Both pages locks held. `hints`: addresses that will be written soon. */
static int copy_pages(TesMM *src, TesMM *child, const gulong *hints, guint n_hints) {
  Copying c = {.src = src, .child = child, .refs.mf = src->mf};
  tes_change_init(&c.protect);
  tes_change_init(&c.lose);
  tes_hot_copy(src, hints, n_hints, &c.hot);
  child->hot = src->hot ? tes_hot_ref(src->hot) : NULL;
  for (TesVma *v = (TesVma *)tes_tree_first(&src->vmas); v; v = tes_vma_next(v)) {
    gulong start = tes_vma_start(v);
    if (v->flags & (TES_VMA_DONTFORK | TES_VMA_WIPEONFORK))
      tes_change_unmap(&c.lose, start, v->end - start);
    else
      copy_entries(&c, v);
  }
  g_assert(c.next == c.hot.n);
  ref_flush(&c.refs);
  int r = src->defer_hi ? tes_defer_flush(src, NULL) : 0;
  if (r == 0)
    r = clone_aspace(src, child, &c.protect, &c.lose);
  tes_change_finish(src, &c.protect);
  tes_change_finish(child, &c.lose);
  return r;
}

static void copy_head(TesMM *src, TesMM *child) {
  child->layout = src->layout;
  child->brk = src->brk;
  child->stack_limit = tes_mm_limit(&src->stack_limit);
  child->as_limit = tes_mm_limit(&src->as_limit);
  child->data_limit = tes_mm_limit(&src->data_limit);
  child->lock_limit = tes_mm_limit(&src->lock_limit);
  child->scattered = src->scattered;
  src->breaks = 0;
  child->exe = src->exe ? tes_file_ref(src->exe) : NULL;
  tes_patch_fork(src, child);
  child->auxv_len = src->auxv_len;
  child->auxv = src->auxv ? g_memdup2(src->auxv, src->auxv_len) : NULL;
}

/* -EAGAIN: truncation came in between. */
static int fork_once(TesMM *src, const gulong *hints, guint n_hints, TesMM **out) {
  TesMM *child = tes_mm_alloc(src->kernel);
  tes_mm_lock(src);
  tes_mutex_lock(&child->map_lock);
  copy_head(src, child);
  copy_vmas(src, child);
  tes_mutex_lock(&src->pages_lock);
  tes_mutex_lock(&child->pages_lock);
  /* Truncation that visited the child when it was empty missed what would be copied now. */
  int r = child->invalidations ? -EAGAIN : copy_pages(src, child, hints, n_hints);
  g_atomic_int_inc(&src->moves); /* before anything that is shared now can be copied */
  tes_mutex_unlock(&child->pages_lock);
  tes_mutex_unlock(&src->pages_lock);
  /* Copies that began when the pages were writable end before any of them can be copied on write: none is lost. */
  tes_epoch_barrier();
  tes_mm_unlock(child);
  tes_mm_unlock(src);
  if (r < 0)
    tes_mm_unref(child);
  else
    *out = child;
  return r;
}

#define RED_ZONE 128 /* System V ABI: bytes below the stack pointer that are in use */

int tes_mm_fork(TesMM *src, TesTask *t, TesMM **out) {
  gulong hints[2];
  guint n = 0;
  tes_mm_note_limits(src, t);
  if (t && t->exec) {
    const TesRegs *regs = tes_task_regs(t, FALSE);
    hints[n++] = regs->rsp - RED_ZONE;
    hints[n++] = regs->fs_base;
  }
  int r = -EAGAIN;
  for (guint i = 0; i < RETRIES && r == -EAGAIN; i++)
    r = fork_once(src, hints, n, out);
  return r == -EAGAIN ? -ENOMEM : r == -EMFILE ? -EAGAIN : r;
}
