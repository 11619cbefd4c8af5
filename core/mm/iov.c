/* SPDX-License-Identifier: Apache-2.0 */
/* I/O vectors: lists of guest or kernel buffers with a cursor (readv(2)), and pinning their pages for host calls. */
#include <core/mm/private.h>
#include <limits.h>

#define MAX_RW_COUNT (INT_MAX & TES_PAGE_MASK)

static gboolean range_ok(const TesMM *mm, gulong addr, gsize n) {
  return addr <= mm->max_addr && n <= mm->max_addr - addr;
}

void tes_iov_init_kernel(TesIov *v, struct iovec *one, void *buf, gsize n) {
  *one = (struct iovec){buf, n};
  *v = (TesIov){.v = one, .n = 1, .left = n};
}

int tes_iov_init_user(TesIov *v, struct iovec *one, TesTask *t, gulong addr, gsize n) {
  if (!range_ok(t->mm, addr, n))
    return -EFAULT;
  n = MIN(n, MAX_RW_COUNT);
  *one = (struct iovec){(void *)addr, n};
  *v = (TesIov){.mm = t->mm, .v = one, .n = 1, .left = n};
  return 0;
}

int tes_iov_import(TesIov *v, struct iovec **store, TesTask *t, gulong uiov, gulong n) {
  *store = NULL;
  if (n > TES_IOV_MAX)
    return -EINVAL;
  g_autofree struct iovec *list = g_new(struct iovec, MAX(n, 1));
  if (tes_copy_in(t, list, uiov, n * sizeof *list) < 0)
    return -EFAULT;
  gsize total = 0;
  for (gulong i = 0; i < n; i++) {
    if (list[i].iov_len > SSIZE_MAX)
      return -EINVAL;
    if (!range_ok(t->mm, (gulong)list[i].iov_base, list[i].iov_len))
      return -EFAULT;
    list[i].iov_len = MIN(list[i].iov_len, MAX_RW_COUNT - total);
    total += list[i].iov_len;
  }
  *v = (TesIov){.mm = t->mm, .v = list, .n = (guint)n, .left = total};
  *store = g_steal_pointer(&list);
  return 0;
}

void tes_iov_advance(TesIov *v, gsize n) {
  n = MIN(n, v->left);
  v->left -= n;
  v->skip += n;
  while (v->n > 0 && v->skip >= v->v->iov_len) {
    v->skip -= v->v->iov_len;
    v->v++;
    v->n--;
  }
}

typedef enum { IOV_READ, IOV_WRITE, IOV_ZERO } IovKind;

static gsize move(TesMM *mm, guint8 *at, guint8 *buf, gsize n, IovKind kind) {
  if (mm)
    return kind == IOV_READ    ? tes_mm_copy_in(mm, buf, (gulong)at, n)
           : kind == IOV_WRITE ? tes_mm_copy_out(mm, (gulong)at, buf, n)
                               : tes_mm_zero_out(mm, (gulong)at, n);
  if (kind == IOV_READ)
    memcpy(buf, at, n);
  else if (kind == IOV_WRITE)
    memcpy(at, buf, n);
  else
    memset(at, 0, n);
  return n;
}

static gssize walk(TesIov *v, guint8 *buf, gsize n, IovKind kind) {
  gsize done = 0;
  n = MIN(n, v->left);
  while (done < n) {
    gsize part = MIN(n - done, v->v->iov_len - v->skip);
    gsize got =
        part ? move(v->mm, (guint8 *)v->v->iov_base + v->skip, buf ? buf + done : NULL, part, kind) : 0;
    done += got;
    if (got < part) {
      tes_iov_advance(v, got);
      return done ? (gssize)done : -EFAULT;
    }
    if (part)
      tes_iov_advance(v, part);
    else /* an empty buffer */
      v->v++, v->n--, v->skip = 0;
  }
  return (gssize)done;
}

gssize tes_iov_read_from(TesIov *v, void *dst, gsize n) { return walk(v, dst, n, IOV_READ); }
gssize tes_iov_write_to(TesIov *v, const void *src, gsize n) {
  return walk(v, (guint8 *)(gulong)src, n, IOV_WRITE);
}
gssize tes_iov_zero(TesIov *v, gsize n) { return walk(v, NULL, n, IOV_ZERO); }

/* ---- Pinning ---- */

/* The lists begin in the record: most calls pin one or two runs of pages, and one allocation is most of what that costs. */
#define PIN_FEW 4
struct _TesIovPin {
  TesMemFile *mf;
  guint moves; /* mm->moves before the first page was looked up */
  guint n_runs, cap_runs;
  TesRun *run; /* page references in the memory file: few_runs, or allocated */
  TesRun few_runs[PIN_FEW];
  GPtrArray *sources; /* references that keep windows; NULL: none */
};

static void pin_run(TesIovPin *p, goffset off) {
  TesRun *last = p->n_runs ? &p->run[p->n_runs - 1] : NULL;
  if (last && last->off + (goffset)last->len == off) {
    last->len += TES_PAGE_SIZE;
    return;
  }
  if (p->n_runs == p->cap_runs) {
    p->cap_runs *= 2;
    TesRun *more = g_renew(TesRun, p->run == p->few_runs ? NULL : p->run, p->cap_runs);
    if (p->run == p->few_runs)
      memcpy(more, p->few_runs, sizeof p->few_runs);
    p->run = more;
  }
  p->run[p->n_runs++] = (TesRun){off, TES_PAGE_SIZE};
}

static TesIovPin *pin_new(TesMM *mm) {
  TesIovPin *p = g_new(TesIovPin, 1);
  p->mf = mm->mf;
  p->moves = (guint)g_atomic_int_get(&mm->moves);
  p->n_runs = 0;
  p->cap_runs = PIN_FEW;
  p->run = p->few_runs;
  p->sources = NULL;
  return p;
}

/* A window stays as long as its source: hold that. */
static guint8 *pin_window(TesMM *mm, TesIovPin *p, gulong addr, TesPte need) {
  guint8 *page = NULL;
  tes_mm_lock(mm);
  TesVma *v = tes_vma_find(mm, addr);
  TesPte e = tes_pte_peek(mm, addr);
  if (v && v->source && (e & need) && !(e & TES_PTE_MEM)) {
    page = tes_pte_page(e);
    if (!p->sources)
      p->sources = g_ptr_array_new();
    if (p->sources->len == 0 || g_ptr_array_index(p->sources, p->sources->len - 1) != v->source) {
      v->source->ops->ref(v->source);
      g_ptr_array_add(p->sources, v->source);
    }
  }
  tes_mm_unlock(mm);
  return page;
}

/* A copy of a page with patches, as the guest's program knows it. NULL: it has changed, look again. */
static guint8 *pin_unpatched(TesMM *mm, TesIovPin *p, gulong page) {
  goffset off = tes_memfile_alloc(mm->mf, TES_PAGE_SIZE, TES_PAGE_SIZE, 0, TES_MEM_KERNEL);
  if (off < 0)
    return NULL;
  guint8 *copy = tes_memfile_ptr(mm->mf, off);
  if (tes_patch_copy_in(mm, copy, page, TES_PAGE_SIZE) != TES_PAGE_SIZE) {
    tes_memfile_unref(mm->mf, off, TES_PAGE_SIZE);
    return NULL;
  }
  pin_run(p, off);
  return copy;
}

/* Kernel address of the page at addr, pinned; NULL: not accessible. */
static guint8 *pin_page(TesMM *mm, TesIovPin *p, gulong addr, gboolean write) {
  const TesPte need = write ? TES_PTE_WRITE : TES_PTE_READ;
  for (guint i = 0; i < 64; i++) {
    guint8 *page = NULL;
    tes_epoch_enter();
    TesPte e = tes_pte(mm, addr);
    if ((e & (need | TES_PTE_PATCHED)) == need && (e & TES_PTE_MEM) &&
        tes_memfile_try_ref(p->mf, tes_memfile_offset(p->mf, tes_pte_page(e)), TES_PAGE_SIZE))
      page = tes_pte_page(e);
    tes_epoch_leave();
    if (page) {
      pin_run(p, tes_memfile_offset(p->mf, page));
      return page;
    }
    if ((e & need) && !(e & TES_PTE_MEM) && (page = pin_window(mm, p, TES_PAGE_DOWN(addr), need)))
      return page;
    if (!write && (e & TES_PTE_PATCHED) && (page = pin_unpatched(mm, p, TES_PAGE_DOWN(addr))))
      return page;
    if (!(e & need) && tes_mm_resolve_unlocked(mm, addr, write ? TES_NEED_WRITE : 0) < 0)
      return NULL;
  }
  return NULL;
}

static gboolean out_add(struct iovec *out, int *n, int max, guint8 *p, gsize len) {
  if (*n > 0 && (guint8 *)out[*n - 1].iov_base + out[*n - 1].iov_len == p) {
    out[*n - 1].iov_len += len;
    return TRUE;
  }
  if (*n == max)
    return FALSE;
  out[(*n)++] = (struct iovec){p, len};
  return TRUE;
}

int tes_iov_pin(TesIov *v, gsize max_bytes, gboolean guest_write, struct iovec *out, int max,
                TesIovPin **pin) {
  TesIov c = *v;
  int n = 0;
  gsize todo = MIN(max_bytes, c.left);
  TesIovPin *p = c.mm ? pin_new(c.mm) : NULL;
  while (todo > 0 && c.n > 0) {
    guint8 *at = (guint8 *)c.v->iov_base + c.skip;
    gsize len = MIN(todo, c.v->iov_len - c.skip);
    if (p && len) {
      gsize inside = (gulong)at & ~TES_PAGE_MASK;
      len = MIN(len, TES_PAGE_SIZE - inside);
      guint8 *page = pin_page(c.mm, p, (gulong)at, guest_write);
      if (!page)
        break;
      at = page + inside;
    }
    if (len && !out_add(out, &n, max, at, len))
      break;
    todo -= len;
    if (len)
      tes_iov_advance(&c, len);
    else
      c.v++, c.n--, c.skip = 0;
  }
  if (n == 0) {
    tes_iov_unpin(p);
    *pin = NULL;
    return -EFAULT;
  }
  *pin = p;
  return n;
}

void tes_iov_unpin(TesIovPin *p) {
  if (!p)
    return;
  for (guint i = 0; i < p->n_runs; i++)
    tes_memfile_unref(p->mf, p->run[i].off, p->run[i].len);
  for (guint i = 0; p->sources && i < p->sources->len; i++) {
    TesMapSource *s = g_ptr_array_index(p->sources, i);
    s->ops->unref(s);
  }
  if (p->run != p->few_runs)
    g_free(p->run);
  if (p->sources)
    g_ptr_array_free(p->sources, TRUE);
  g_free(p);
}

/* The pages were writable and the caller's own when they were pinned. A fork shares them; the next write of the guest copies
 * one while the host still fills it, and what comes after the copy is seen by the child only. */
void tes_iov_unpin_written(const TesIov *v, const struct iovec *in, gsize n, TesIovPin *p) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (G_UNLIKELY(p && n && (guint)g_atomic_int_get(&v->mm->moves) != p->moves)) {
    TesIov again = *v;
    for (gsize done = 0, part; done < n; done += part, in++) {
      part = MIN(in->iov_len, n - done);
      if (tes_iov_write_to(&again, in->iov_base, part) < (gssize)part)
        break;
    }
  }
  tes_iov_unpin(p);
}
