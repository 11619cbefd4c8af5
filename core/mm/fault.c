/* SPDX-License-Identifier: Apache-2.0 */
/* Page faults of the guest, and the slow path of copying, which resolves a page as a fault would. */
#include <core/mm/private.h>
#include <linux/capability.h>

#define STACK_STEP (128UL << 10) /* a stack grows by this much if nothing forbids it */

void tes_mm_note_limits(TesMM *mm, TesTask *t) {
  if (!t)
    return;
  guint64 lock = tes_task_capable(t, CAP_IPC_LOCK) ? RLIM_INFINITY : tes_task_rlimit(t, RLIMIT_MEMLOCK);
  __atomic_store_n(&mm->stack_limit, tes_task_rlimit(t, RLIMIT_STACK), __ATOMIC_RELAXED);
  __atomic_store_n(&mm->as_limit, tes_task_rlimit(t, RLIMIT_AS), __ATOMIC_RELAXED);
  __atomic_store_n(&mm->data_limit, tes_task_rlimit(t, RLIMIT_DATA), __ATOMIC_RELAXED);
  __atomic_store_n(&mm->lock_limit, lock, __ATOMIC_RELAXED);
}

/* ---- Stacks ---- */

static gboolean stack_fits(const TesMM *mm, const TesVma *v, gulong start) {
  const TesVma *prev = tes_vma_prev(v);
  gulong grown = tes_vma_start(v) - start;
  if (start < mm->min_addr || start >= tes_vma_start(v) || v->end - start > tes_mm_limit(&mm->stack_limit))
    return FALSE;
  if (tes_mm_limit(&mm->as_limit) != RLIM_INFINITY &&
      (mm->pages << TES_PAGE_SHIFT) + grown > tes_mm_limit(&mm->as_limit))
    return FALSE;
  if (!prev)
    return TRUE;
  gboolean needs_gap = !(prev->flags & TES_VMA_GROWSDOWN) && prev->prot != PROT_NONE;
  return start >= prev->end && (!needs_gap || start - prev->end >= TES_STACK_GUARD);
}

/* The stack vma above addr, grown so that it holds addr; NULL. */
static TesVma *grow_stack(TesMM *mm, gulong addr) {
  TesVma *v = tes_vma_first(mm, addr);
  if (!v || !(v->flags & TES_VMA_GROWSDOWN))
    return NULL;
  gulong exact = TES_PAGE_DOWN(addr), start = addr & ~(STACK_STEP - 1);
  if (!stack_fits(mm, v, start))
    start = exact;
  if (!stack_fits(mm, v, start))
    return NULL;
  tes_vma_resize(mm, v, start, v->end);
  return v;
}

/* ---- One page ---- */

/* The absent pages around addr, at most its 2 MiB. */
static int populate_around(TesMM *mm, TesVma *v, gulong addr) {
  gulong lo = MAX(tes_vma_start(v), addr & ~(TES_LEAF_SIZE - 1)),
         hi = MIN(v->end, (addr | (TES_LEAF_SIZE - 1)) + 1);
  TesLeaf *l = tes_leaf_get(mm, addr);
  gulong from = addr;
  while (from > lo && !l->e[tes_leaf_index(from - TES_PAGE_SIZE)])
    from -= TES_PAGE_SIZE;
  TesChange c;
  tes_change_init(&c);
  int r = tes_anon_populate(mm, v, &c, from, tes_pages_find(mm, addr, hi, TRUE), 0);
  /* When memory is short a single page may still be had. */
  if (r == -ENOMEM)
    r = tes_anon_populate(mm, v, &c, addr, addr + TES_PAGE_SIZE, 0);
  if (r == 0)
    r = tes_change_apply(mm, &c);
  if (r == -ENOMEM && tes_mm_compact(mm) == 0)
    r = tes_change_apply(mm, &c);
  c.n = 0;
  tes_change_finish(mm, &c);
  return r;
}

/* Maps the run of memory-file pages around addr again. */
static int reapply(TesMM *mm, TesVma *v, gulong addr) {
  TesLeaf *l = tes_leaf_get(mm, addr);
  gulong lo = MAX(tes_vma_start(v), l->base), hi = MIN(v->end, l->base + TES_LEAF_SIZE);
  TesPte e = l->e[tes_leaf_index(addr)];
  gulong from = addr, to = addr + TES_PAGE_SIZE;
  while (from > lo && l->e[tes_leaf_index(from - TES_PAGE_SIZE)] == e - (addr - (from - TES_PAGE_SIZE)))
    from -= TES_PAGE_SIZE;
  while (to < hi && l->e[tes_leaf_index(to)] == e + (to - addr))
    to += TES_PAGE_SIZE;
  TesChange c;
  tes_change_init(&c);
  tes_pages_replay(mm, v, &c, from, to);
  int r = tes_change_apply(mm, &c);
  if (r == -ENOMEM && tes_mm_compact(mm) == 0)
    r = tes_change_apply(mm, &c);
  c.n = 0;
  tes_change_finish(mm, &c);
  return r;
}

static int from_source(TesMM *mm, TesVma *v, gulong addr) {
  gulong lo = MAX(tes_vma_start(v), addr & ~(TES_LEAF_SIZE - 1)),
         hi = MIN(v->end, (addr | (TES_LEAF_SIZE - 1)) + 1);
  int r = tes_source_populate(mm, v, lo, hi, addr);
  /* No room for the neighbours (a full tmpfs, the host's limit of mappings): this page alone. */
  if (r < 0)
    r = tes_source_populate(mm, v, addr, addr + TES_PAGE_SIZE, addr);
  return r;
}

static int make_present(TesMM *mm, TesVma *v, gulong addr, guint need) {
  gboolean write = need & TES_NEED_WRITE, done = FALSE;
  int r = 0;
  for (guint tries = 0; tries < 8 && !done && r == 0; tries++) {
    tes_mutex_lock(&mm->pages_lock);
    TesLeaf *l = tes_leaf(mm, addr);
    TesPte e = l ? l->e[tes_leaf_index(addr)] : 0;
    gboolean ask = v->source && (!e || (write && !tes_vma_private(v) && !(e & TES_PTE_WRITE)));
    if (!e && !v->source) {
      r = populate_around(mm, v, addr);
      done = TRUE;
    } else if (!ask && write && tes_vma_private(v) && !(e & TES_PTE_OWNED)) {
      r = tes_cow_break(mm, v, addr);
      done = TRUE;
    } else if (!ask) {
      done = TRUE;
      if (need & TES_NEED_APPLY && tries == 0) {
        if (e & TES_PTE_MEM)
          r = reapply(mm, v, addr);
        else
          ask = TRUE;
      }
    }
    tes_mutex_unlock(&mm->pages_lock);
    if (ask && r == 0)
      r = from_source(mm, v, addr);
  }
  return r == 0 && !done ? -EFAULT : r;
}

int tes_mm_resolve(TesMM *mm, gulong addr, guint need) {
  addr = TES_PAGE_DOWN(addr);
  if (mm->dropped || addr < mm->min_addr || addr >= mm->max_addr)
    return -EFAULT;
  TesVma *v = tes_vma_find(mm, addr);
  if (!v)
    v = grow_stack(mm, addr);
  if (!v)
    return -EFAULT;
  gboolean force = (need & TES_NEED_FORCE) && tes_vma_private(v);
  if (!force && (v->prot == PROT_NONE || ((need & TES_NEED_WRITE) && !(v->prot & PROT_WRITE))))
    return -EACCES;
  return make_present(mm, v, addr, need);
}

int tes_mm_resolve_unlocked(TesMM *mm, gulong addr, guint need) {
  TesTask *t = tes_task_current();
  if (t && t->mm == mm)
    tes_mm_note_limits(mm, t);
  tes_mm_lock(mm);
  int r = tes_mm_resolve(mm, addr, need);
  tes_mm_unlock(mm);
  return r;
}

/* ---- Faults ---- */

typedef struct {
  const TesVma *vma;
  TesPte pte;
  gulong addr;
  gboolean mapped;
} VmaView;

/* Is it a plain violation of the vma's protection? */
static gboolean forbidden(const TesVma *v, guint access) {
  return v->prot == PROT_NONE || ((access & TES_ACCESS_WRITE) && !(v->prot & PROT_WRITE)) ||
         ((access & TES_ACCESS_EXEC) && !(v->prot & PROT_EXEC));
}

/* The platform cannot tell what was tried, only that the page was mapped (or not). A page that is mapped and allows all
 * that its vma allows was misused -- or another thread has changed it since: then one more try shows. `retry`: if it
 * comes back although nothing changed, it was misused. */
static gboolean guess_write(TesMM *mm, TesTask *t, const VmaView *v, gboolean *violation, gboolean *retry) {
  gboolean may_write = v->vma->prot & PROT_WRITE, full = !may_write || (v->pte & TES_PTE_WRITE);
  *violation = *retry = FALSE;
  if (!v->mapped || !v->pte)
    return FALSE;
  if (!full)
    return TRUE;
  if (may_write && (v->vma->prot & PROT_EXEC))
    return FALSE;
  *retry = g_atomic_int_get(&mm->users) > 1 &&
           !(mm->retry_task == t && mm->retry_addr == v->addr && mm->retry_changes == mm->changes);
  *violation = !*retry;
  return FALSE;
}

/* The first touch of a range whose mappings waited. TRUE: that was all. */
static gboolean was_deferred(TesMM *mm, const TesVma *v, gulong addr, guint access) {
  TES_LOCKED(&mm->pages_lock);
  if (!tes_deferring(mm, addr) || tes_defer_flush(mm, NULL) < 0)
    return FALSE;
  TesPte e = tes_pte(mm, addr);
  return e && (e & TES_PTE_READ) && (!(access & TES_ACCESS_WRITE) || (e & TES_PTE_WRITE)) &&
         (!(access & TES_ACCESS_EXEC) || (v->prot & PROT_EXEC));
}

static int fault_signal(int r, int *code) {
  if (r == -ENOMEM)
    return -SIGKILL;
  *code = r == -EACCES ? SEGV_ACCERR : BUS_ADRERR;
  return r == -EACCES ? SIGSEGV : SIGBUS;
}

int tes_mm_fault(TesMM *mm, TesTask *t, gulong addr, guint access, gboolean mapped, gulong sp, int *code) {
  *code = SEGV_MAPERR;
  tes_mm_note_limits(mm, t);
  tes_mm_lock(mm);
  TesVma *v = addr < mm->max_addr ? tes_vma_find(mm, addr) : NULL;
  if (!v && addr < mm->max_addr)
    v = grow_stack(mm, addr);
  int r;
  gboolean violation = FALSE, retry = FALSE;
  if (!v) {
    r = SIGSEGV;
  } else {
    *code = SEGV_ACCERR;
    gboolean write = access & TES_ACCESS_WRITE;
    if (!access)
      write = guess_write(mm, t, &(VmaView){v, tes_pte_peek(mm, addr), addr, mapped}, &violation, &retry);
    if (violation || forbidden(v, access))
      r = SIGSEGV;
    else if (was_deferred(mm, v, addr, access))
      r = 0;
    else
      r = make_present(mm, v, TES_PAGE_DOWN(addr), TES_NEED_APPLY | (write ? TES_NEED_WRITE : 0));
    if (retry) {
      mm->retry_task = t;
      mm->retry_addr = addr;
      mm->retry_changes = mm->changes;
    }
    if (r < 0)
      r = fault_signal(r, code);
  }
  tes_mm_unlock(mm);
  return r;
}
