/* SPDX-License-Identifier: Apache-2.0 */
/* Copying between the kernel and guest memory: walk the page map, copy, inside an epoch and without a lock. What is not
 * accessible as it stands is resolved as a fault would be (fault.c) and tried again. */
#include <core/mm/private.h>

#define SECTION_BYTES (256UL << 10) /* copied in one epoch section, so that reclamation does not starve */

typedef enum { COPY_IN, COPY_OUT, COPY_ZERO } CopyKind;

/* Hides what the compiler knows of a length: it would expand memcpy into string instructions, which start slowly. */
static inline gsize opaque(gsize n) {
  __asm__("" : "+r"(n));
  return n;
}

static inline void copy_plain(void *dst, const void *src, gsize n) {
  if (n == 8)
    memcpy(dst, src, 8);
  else
    memcpy(dst, src, opaque(n));
}

/* Bytes NOT copied. Memory-file pages cannot fault; windows of host files can. */
static inline gsize copy_bytes(TesPte e, guint8 *page, guint8 *buf, gsize n, CopyKind kind) {
  if (G_LIKELY(e & TES_PTE_MEM)) {
    if (kind == COPY_IN)
      copy_plain(buf, page, n);
    else if (kind == COPY_OUT)
      copy_plain(page, buf, n);
    else
      memset(page, 0, opaque(n));
    return 0;
  }
  if (kind == COPY_IN)
    return tes_safe_copy(buf, page, n);
  return kind == COPY_OUT ? tes_safe_copy(page, buf, n) : tes_safe_zero(page, n);
}

/* Copies as far as the page map allows; the address where it stopped. *fault: a window raised SIGBUS there. */
static inline gulong copy_fast(TesMM *mm, gulong addr, gulong end, guint8 *buf, CopyKind kind,
                               gboolean *fault) {
  const TesPte need = kind == COPY_IN ? TES_PTE_READ : TES_PTE_WRITE;
  while (addr < end) {
    gsize inside = addr & ~TES_PAGE_MASK, n = MIN(end - addr, TES_PAGE_SIZE - inside);
    TesPte e = tes_pte(mm, addr);
    if ((e & (need | TES_PTE_PATCHED)) != need)
      return addr;
    gsize left = copy_bytes(e, tes_pte_page(e) + inside, buf, n, kind);
    addr += n - left;
    if (left) {
      *fault = TRUE;
      return addr;
    }
    if (kind != COPY_ZERO)
      buf += n;
  }
  return addr;
}

static inline gsize copy_any(TesMM *mm, gulong addr, gsize n, guint8 *buf, CopyKind kind) {
  gulong at = addr, end = addr + MIN(n, G_MAXULONG - addr);
  guint idle = 0;
  while (at < end) {
    gboolean fault = FALSE;
    gulong limit = MIN(end, at + SECTION_BYTES), before = at;
    tes_epoch_enter();
    at = copy_fast(mm, at, limit, kind == COPY_ZERO ? NULL : buf + (at - addr), kind, &fault);
    tes_epoch_leave();
    if (at == limit)
      continue;
    if (kind == COPY_IN && (tes_pte_peek(mm, at) & TES_PTE_PATCHED)) {
      gsize got = tes_patch_copy_in(mm, buf + (at - addr), at, limit - at);
      at += got;
      if (got)
        continue;
    }
    /* The page may be taken away again between resolving and copying; not for ever. */
    idle = at > before ? 0 : idle + 1;
    if (fault || idle > 64 || tes_mm_resolve_unlocked(mm, at, kind == COPY_IN ? 0 : TES_NEED_WRITE) < 0)
      break;
  }
  return at - addr;
}

gsize tes_mm_copy_in(TesMM *mm, void *dst, gulong src, gsize n) { return copy_any(mm, src, n, dst, COPY_IN); }
gsize tes_mm_copy_out(TesMM *mm, gulong dst, const void *src, gsize n) {
  return copy_any(mm, dst, n, (guint8 *)(gulong)src, COPY_OUT);
}
gsize tes_mm_zero_out(TesMM *mm, gulong dst, gsize n) { return copy_any(mm, dst, n, NULL, COPY_ZERO); }

int tes_copy_in(TesTask *t, void *dst, gulong src, gsize n) {
  return n == 0 || tes_mm_copy_in(t->mm, dst, src, n) == n ? 0 : -EFAULT;
}
int tes_copy_out(TesTask *t, gulong dst, const void *src, gsize n) {
  return n == 0 || tes_mm_copy_out(t->mm, dst, src, n) == n ? 0 : -EFAULT;
}

/* Under map_lock the page cannot be unmapped; the epoch keeps it from being reused if its file is truncated. */
static gsize poke_page(TesMM *mm, gulong addr, const guint8 *src, gsize n) {
  TES_LOCKED(&mm->map_lock);
  if (tes_patch_undo(mm, addr, addr + n) < 0 || tes_mm_resolve(mm, addr, TES_NEED_WRITE | TES_NEED_FORCE) < 0)
    return 0;
  gsize left = n;
  tes_epoch_enter();
  TesPte e = tes_pte(mm, addr);
  if (e & (TES_PTE_WRITE | TES_PTE_OWNED))
    left = tes_safe_copy(tes_pte_page(e) + (addr & ~TES_PAGE_MASK), src, n);
  tes_epoch_leave();
  return n - left;
}

gsize tes_mm_poke(TesMM *mm, gulong dst, const void *src, gsize n) {
  gsize done = 0;
  while (done < n && dst + done >= dst) {
    gulong at = dst + done;
    gsize part = MIN(n - done, TES_PAGE_SIZE - (at & ~TES_PAGE_MASK)),
          got = poke_page(mm, at, (const guint8 *)src + done, part);
    done += got;
    if (got < part)
      break;
  }
  return done;
}

/* Most strings are short: the first pieces are small, and none crosses a page. */
gssize tes_copy_in_str(TesTask *t, char *dst, gulong src, gsize max) {
  gsize done = 0;
  for (gsize piece = 64; done < max; piece = MIN(piece * 4, TES_PAGE_SIZE)) {
    gulong at = src + done;
    if (at < src)
      return -EFAULT;
    gsize part = MIN(max - done, TES_PAGE_SIZE - (at & ~TES_PAGE_MASK));
    part = MIN(part, piece);
    gsize got = tes_mm_copy_in(t->mm, dst + done, at, part);
    /* The text was copied once: what is looked at is what is used. */
    const char *nul = memchr(dst + done, 0, got);
    if (nul)
      return nul - dst;
    if (got < part)
      return -EFAULT;
    done += part;
  }
  return -ENAMETOOLONG;
}

/* ---- Words shared with running guest threads ---- */

/* Runs `cas` (or a load if NULL) on the word; FALSE: it cannot be accessed as the page map stands. */
static gboolean word_try(TesMM *mm, gulong addr, guint32 *value, const guint32 *cas) {
  gboolean ok = FALSE;
  tes_epoch_enter();
  TesPte e = tes_pte(mm, addr);
  if (e & (cas ? TES_PTE_WRITE : TES_PTE_READ)) {
    guint32 *p = (guint32 *)(gpointer)(tes_pte_page(e) + (addr & ~TES_PAGE_MASK));
    ok = cas ? tes_safe_cas32(p, value, *cas) : tes_safe_load32(p, value);
  }
  tes_epoch_leave();
  return ok;
}

static int word_access(TesTask *t, gulong addr, guint32 *value, const guint32 *cas) {
  if (addr & 3)
    return -EFAULT;
  for (guint i = 0; i < 64; i++) {
    if (word_try(t->mm, addr, value, cas))
      return 0;
    if (tes_mm_resolve_unlocked(t->mm, addr, cas ? TES_NEED_WRITE : 0) < 0)
      break;
  }
  return -EFAULT;
}

int tes_user_load32(TesTask *t, gulong addr, guint32 *out) { return word_access(t, addr, out, NULL); }
int tes_user_cas32(TesTask *t, gulong addr, guint32 *expected, guint32 desired) {
  return word_access(t, addr, expected, &desired);
}

/* futex(2): a word of a shared mapping is the same word wherever its source is mapped. */
int tes_mm_futex_key(TesMM *mm, gulong addr, gboolean private_, TesFutexKey *out) {
  *out = (TesFutexKey){.a = mm->id, .b = addr, .shared = FALSE};
  if (addr >= mm->max_addr)
    return -EFAULT;
  if (private_)
    return 0;
  tes_mm_lock(mm);
  int r = tes_mm_resolve(mm, addr, 0);
  if (r == 0) {
    const TesVma *v = tes_vma_find(mm, addr);
    if (!tes_vma_private(v))
      *out = (TesFutexKey){
          .a = (guint64)(gulong)v->source, .b = (guint64)v->off + (addr - tes_vma_start(v)), .shared = TRUE};
  }
  tes_mm_unlock(mm);
  return r < 0 ? -EFAULT : 0;
}
