/* SPDX-License-Identifier: Apache-2.0 */
/* Reading an address space for /proc: memory map lines and totals. */
#include <core/mm/private.h>

typedef struct {
  TesVmaInfo info;
  TesFile *file; /* referenced */
} Row;

/* Pages of a run at `page` that the host holds. */
static guint64 resident(const guint8 *page, gsize len) {
  guint8 vec[TES_LEAF_PAGES];
  guint64 n = 0;
  for (gsize at = 0; at < len; at += TES_LEAF_SIZE) {
    gsize part = MIN(len - at, TES_LEAF_SIZE);
    if (mincore((void *)(gulong)(page + at), part, vec) < 0)
      continue;
    for (gsize i = 0; i < part >> TES_PAGE_SHIFT; i++)
      n += vec[i] & 1;
  }
  return n << TES_PAGE_SHIFT;
}

/* Bytes present in [start, end), and those that are private copies. map_lock and pages_lock held. */
static void measure(TesMM *mm, const TesVma *v, guint64 *rss, guint64 *anon) {
  TesPte first = 0;
  gsize len = 0;
  *rss = *anon = 0;
  for (gulong at = tes_vma_start(v); at <= v->end; at += TES_PAGE_SIZE) {
    if (at < v->end)
      at = tes_pages_find(mm, at, v->end, TRUE);
    TesPte e = at < v->end ? tes_pte(mm, at) : 0;
    if (first && (tes_pte_page(e) != tes_pte_page(first) + len || (e ^ first) & TES_PTE_ANON)) {
      guint64 n = resident(tes_pte_page(first), len);
      *rss += n;
      *anon += first & TES_PTE_ANON ? n : 0;
      first = 0;
    }
    if (!first) {
      first = e;
      len = 0;
    }
    len += TES_PAGE_SIZE;
  }
}

/* Runs of memory-file pages up to this (a fresh stack, a fresh heap) are taken to be resident: asking the host costs more
 * than the answer is worth. */
#define SHORT_RUN (192UL << 10)

/* Bytes of one leaf that are resident, nearly: pages of files count as they are mapped. */
static guint64 leaf_rss(const TesLeaf *l) {
  guint64 rss = 0;
  guint left = l->present;
  for (guint i = 0, end; left > 0; i = end) {
    TesPte e = l->e[i];
    end = i + 1;
    if (!e)
      continue;
    gboolean mem = e & TES_PTE_MEM;
    while (mem && end < TES_LEAF_PAGES && l->e[end] & TES_PTE_MEM &&
           tes_pte_page(l->e[end]) == tes_pte_page(e) + (end - i) * TES_PAGE_SIZE)
      end++;
    gsize len = (end - i) * TES_PAGE_SIZE;
    rss += len <= SHORT_RUN ? len : resident(tes_pte_page(e), len);
    left -= end - i;
  }
  return rss;
}

guint64 tes_mm_final_rss(TesMM *mm) {
  guint64 rss = 0;
  tes_mm_lock(mm);
  tes_mutex_lock(&mm->pages_lock);
  for (const TesLeaf *l = mm->leaves; l; l = l->next)
    rss += leaf_rss(l);
  tes_mutex_unlock(&mm->pages_lock);
  rss = MAX(rss, mm->peak_rss);
  tes_mm_unlock(mm);
  return rss;
}

void tes_mm_foreach_vma(TesMM *mm, TesCtx *viewer, void (*fn)(const TesVmaInfo *, gpointer), gpointer data) {
  g_autoptr(GArray) rows = g_array_new(FALSE, FALSE, sizeof(Row));
  tes_mm_lock(mm);
  tes_mutex_lock(&mm->pages_lock);
  for (TesVma *v = (TesVma *)tes_tree_first(&mm->vmas); v; v = tes_vma_next(v)) {
    Row r = {.info = {.start = tes_vma_start(v), .end = v->end, .prot = v->prot, .name = v->name}};
    r.info.offset = v->source ? (gulong)v->off : 0;
    r.info.flags =
        (tes_vma_private(v) ? MAP_PRIVATE : MAP_SHARED) | (v->flags & TES_VMA_GROWSDOWN ? MAP_GROWSDOWN : 0);
    if (v->file)
      r.file = tes_file_ref(v->file);
    else if (!r.info.name && v->source && tes_source_is_shm(v->source))
      r.info.name = "/dev/zero (deleted)";
    measure(mm, v, &r.info.rss, &r.info.private_dirty);
    g_array_append_val(rows, r);
  }
  tes_mutex_unlock(&mm->pages_lock);
  tes_mm_unlock(mm);
  for (guint i = 0; i < rows->len; i++) {
    Row *r = &g_array_index(rows, Row, i);
    g_autofree char *path = NULL;
    if (r->file) {
      r->info.ino = r->file->inode ? r->file->inode->ino : r->file->ino;
      r->info.dev = r->file->inode && r->file->inode->super ? r->file->inode->super->dev : 0;
      if (!r->info.name && r->file->path)
        r->info.name = path = tes_vfs_name(viewer, r->file->path);
      else if (!r->info.name && TES_HAS(r->file->ops, describe))
        r->info.name = path = r->file->ops->describe(r->file);
    }
    if (!r->info.name)
      r->info.name = "";
    fn(&r->info, data);
    if (r->file)
      tes_file_unref(r->file);
  }
}

void tes_mm_stat(TesMM *mm, TesMMStat *s) {
  *s = (TesMMStat){0};
  tes_mm_lock(mm);
  tes_mutex_lock(&mm->pages_lock);
  guint64 text = 0;
  for (TesVma *v = (TesVma *)tes_tree_first(&mm->vmas); v; v = tes_vma_next(v)) {
    guint64 rss, anon;
    measure(mm, v, &rss, &anon);
    s->rss += rss;
    s->rss_shared += rss - anon;
    text += (v->prot & PROT_EXEC) && !(v->prot & PROT_WRITE) ? v->end - tes_vma_start(v) : 0;
  }
  tes_mutex_unlock(&mm->pages_lock);
  s->vm_size = (guint64)mm->pages << TES_PAGE_SHIFT;
  s->vm_peak = (guint64)MAX(mm->peak_pages, mm->pages) << TES_PAGE_SHIFT;
  s->data = (guint64)mm->data_pages << TES_PAGE_SHIFT;
  s->stack = (guint64)mm->stack_pages << TES_PAGE_SHIFT;
  s->text = mm->layout.code_end > mm->layout.code_start ? mm->layout.code_end - mm->layout.code_start : text;
  mm->peak_rss = MAX(mm->peak_rss, s->rss);
  s->rss_peak = mm->peak_rss;
  s->arg_start = mm->layout.arg_start;
  s->arg_end = mm->layout.arg_end;
  s->env_start = mm->layout.env_start;
  s->env_end = mm->layout.env_end;
  s->brk_start = mm->layout.brk_start;
  s->brk = mm->brk;
  s->stack_start = mm->layout.stack_start;
  s->exe = mm->exe;
  tes_mm_unlock(mm);
}
