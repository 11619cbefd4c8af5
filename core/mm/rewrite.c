/* SPDX-License-Identifier: Apache-2.0 */
/* Rewriting of hot call sites on behalf of a platform: which code may be changed, and that what the platform answers
 * is sane. How bytes are placed: patch.c. */
#include <core/mm/private.h>

#define MAX_REWRITES 4096 /* of an address space */
#define SYSCALL_LEN 2

/* Only what is private, cannot be written as it stands, and is the program's own: not the vDSO, which has few calls. */
static gboolean may_change(const TesMM *mm, const TesVma *v) {
  return v && tes_vma_private(v) && (v->prot & (PROT_EXEC | PROT_WRITE)) == PROT_EXEC &&
         (!v->source || v->source != mm->kernel->vdso_source);
}

/* A patch must lie in the page and cover something of the call, or touch it: replacing only the `mov` before it leaves
 * the call where it is for those who jump there. */
static gboolean sane(const TesCodePatch *c, gulong page, gulong ip) {
  return c->len >= 1 && c->len <= sizeof c->bytes && c->addr >= page &&
         c->addr - page <= TES_PAGE_SIZE - c->len && c->addr <= ip && c->addr + c->len >= ip - SYSCALL_LEN;
}

static int ask(TesMM *mm, gulong ip, gulong page, const guint8 *code, TesPatch *out) {
  TesCodePatch c = {0};
  gboolean alone = g_atomic_int_get(&mm->users) == 1;
  if (mm->aspace->ops->rewrite(mm->aspace, ip, code, page, TES_PAGE_SIZE, alone, &c) != 1)
    return 0;
  *out = (TesPatch){.addr = c.addr, .len = (guint8)c.len, .kind = TES_PATCH_REWRITE};
  if (!sane(&c, page, ip)) {
    mm->aspace->ops->rewritten(mm->aspace, &c, FALSE);
    return 0;
  }
  memcpy(out->old, code + (c.addr - page), c.len);
  memcpy(out->new, c.bytes, c.len);
  return 1;
}

static int rewrite_locked(TesMM *mm, gulong ip) {
  gulong page = TES_PAGE_DOWN(ip - SYSCALL_LEN), in_page = ip - SYSCALL_LEN - page;
  TesVma *v = ip >= SYSCALL_LEN && ip < mm->max_addr ? tes_vma_find(mm, page) : NULL;
  if (mm->no_rewrite || mm->dropped || mm->rewrites >= MAX_REWRITES || !may_change(mm, v) ||
      in_page > TES_PAGE_SIZE - SYSCALL_LEN)
    return 0;
  guint8 code[TES_PAGE_SIZE];
  tes_epoch_enter();
  TesPte e = tes_pte(mm, page);
  gboolean got = (e & TES_PTE_READ) && tes_safe_copy(code, tes_pte_page(e), TES_PAGE_SIZE) == 0;
  tes_epoch_leave();
  if (!got || code[in_page] != 0x0f || code[in_page + 1] != 0x05)
    return 0;
  TesPatch p;
  if (!ask(mm, ip, page, code, &p))
    return 0;
  int r = tes_patch_add(mm, v, &p, 1);
  if (r == 0 || r == -EALREADY)
    return 1;
  TesCodePatch c = {.addr = p.addr, .len = p.len};
  memcpy(c.bytes, p.new, p.len);
  mm->aspace->ops->rewritten(mm->aspace, &c, FALSE);
  return 0;
}

int tes_mm_rewrite(TesTask *t, gulong ip) {
  TesMM *mm = t->mm;
  const TesAspaceOps *ops = mm->aspace->ops;
  if (!TES_HAS(ops, rewrite) || !TES_HAS(ops, rewritten) || !TES_HAS(ops, clone))
    return 0;
  tes_mm_lock(mm);
  int r = rewrite_locked(mm, ip);
  tes_mm_unlock(mm);
  return r;
}

int tes_mm_unpatch_all(TesMM *mm) {
  tes_mm_lock(mm);
  mm->no_rewrite = TRUE;
  int r = mm->patches ? tes_patch_undo_kind(mm, 0, mm->max_addr, TES_PATCH_REWRITE) : 0;
  tes_mm_unlock(mm);
  return r;
}
