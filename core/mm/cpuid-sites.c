/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and patching the CPUID instructions of mapped programs and libraries (X1): on a virtual machine each costs
 * 8 us, and glibc's start-up executes dozens. The first byte becomes one that is no instruction in 64-bit mode; the trap
 * is answered by core/task/cpuid.c or by the platform. A file is searched once, while nobody has changed it. */
#include <core/mm/insn.h>
#include <core/mm/private.h>

/* A larger mapping is not searched: its program does not start and end all the time. */
#define MAX_CODE (8UL << 20)
/* Searching costs up to 0.2 ms/MiB: up to this it is done when a file is first mapped, else the second time. */
#define SMALL (256UL << 10)
#define MAX_SITES 256       /* of a mapping */
#define MAX_CANDIDATES 1024 /* looked at in a mapping */
#define MAX_FILES 512       /* remembered */
#define BLOCK (64UL << 10)

static const TesLockClass files_class = {"cpuid-files", TES_RANK_LEAF, FALSE,
                                         "where files have CPUID instructions"};

typedef struct {
  gboolean at_once; /* constant */
  TesMutex lock;    /* guards known */
  /* TesCodeKey -> GArray of guint32, offsets of sites in the mapping; NULL: not searched yet */
  GHashTable *known;
} Files;

static guint key_hash(gconstpointer p) {
  const TesCodeKey *k = p;
  return (guint)(k->ino * 31 + k->off * 7 + k->len + k->mtime_nsec + k->dev);
}
static gboolean key_equal(gconstpointer a, gconstpointer b) { return memcmp(a, b, sizeof(TesCodeKey)) == 0; }
static void sites_unref(gpointer sites) {
  if (sites)
    g_array_unref(sites);
}

void tes_cpuid_files_init(TesKernel *k, gboolean at_once) {
  Files *f = g_new0(Files, 1);
  f->at_once = at_once;
  tes_mutex_init(&f->lock, &files_class);
  f->known = g_hash_table_new_full(key_hash, key_equal, g_free, sites_unref);
  k->cpuid_files = f;
}

void tes_cpuid_files_free(TesKernel *k) {
  Files *f = k->cpuid_files;
  if (!f)
    return;
  g_hash_table_unref(f->known);
  tes_mutex_clear(&f->lock);
  g_free(f);
  k->cpuid_files = NULL;
}

gboolean tes_cpuid_wanted(TesMM *mm, const TesMmapArgs *a, guint prot, guint vma_flags, TesCodeKey *key) {
  TesAttr s;
  if (G_LIKELY(!(prot & PROT_EXEC)) || !mm->kernel->cpuid_files || (prot & PROT_WRITE) ||
      (vma_flags & TES_VMA_SHARED) || !a->file || TES_PAGE_UP(a->len) > MAX_CODE)
    return FALSE;
  if (tes_file_getattr(a->file, tes_mm_ctx(mm, a->task), &s) < 0)
    return FALSE;
  *key = (TesCodeKey){.dev = s.dev,
                      .ino = s.ino,
                      .size = s.size,
                      .mtime = (guint64)s.mtime.tv_sec,
                      .mtime_nsec = (guint64)s.mtime.tv_nsec,
                      .ctime = (guint64)s.ctime.tv_sec,
                      .ctime_nsec = (guint64)s.ctime.tv_nsec,
                      .off = (guint64)a->off,
                      .len = TES_PAGE_UP(a->len)};
  return TRUE;
}

/* ---- Searching ---- */

/* Bytes of [at, end) of the vma's file, as far as they are mapped: pages of the memory file (tmpfs) are left alone, since
 * reading a hole there would allocate it. */
static gsize read_code(TesMM *mm, gulong at, gulong end, guint8 *buf) {
  gsize got = 0;
  tes_epoch_enter();
  while (at < end) {
    TesPte e = tes_pte(mm, at);
    gsize in = at & ~TES_PAGE_MASK, n = MIN(end - at, TES_PAGE_SIZE - in);
    if (!(e & TES_PTE_READ) || (e & TES_PTE_MEM) || tes_safe_copy(buf + got, tes_pte_page(e) + in, n))
      break;
    got += n;
    at += n;
  }
  tes_epoch_leave();
  return got;
}

/* Candidates in buf[from, to) of n bytes; `base`: offset of buf in the mapping. FALSE: enough. The second byte is the
 * rarer one. */
static gboolean search_block(const guint8 *buf, gsize from, gsize to, gsize n, gsize base, guint *candidates,
                             GArray *sites) {
  gsize end = MIN(to + 1, n);
  for (const guint8 *q = buf + from + 1; q < buf + end && (q = memchr(q, 0xa2, (gsize)(buf + end - q)));
       q++) {
    gsize at = (gsize)(q - buf) - 1;
    if (buf[at] != 0x0f)
      continue;
    if (++*candidates > MAX_CANDIDATES || sites->len >= MAX_SITES)
      return FALSE;
    if (tes_insn_is_cpuid(buf, n, at)) {
      guint32 off = (guint32)(base + at);
      g_array_append_val(sites, off);
    }
  }
  return TRUE;
}

static GArray *search(TesMM *mm, const TesVma *v) {
  GArray *sites = g_array_new(FALSE, FALSE, sizeof(guint32));
  gulong start = tes_vma_start(v);
  gsize len = v->end - start;
  guint candidates = 0;
  g_autofree guint8 *buf = g_malloc(TES_CPUID_BEFORE + BLOCK + TES_CPUID_AFTER);
  for (gsize at = 0; at < len; at += BLOCK) {
    gsize before = MIN(at, TES_CPUID_BEFORE), end = MIN(at + BLOCK + TES_CPUID_AFTER, len);
    gsize n = read_code(mm, start + at - before, start + end, buf);
    if (n <= before || !search_block(buf, before, MIN(before + BLOCK, n), n, at - before, &candidates, sites))
      break;
    if (n < end - at + before)
      break;
  }
  return sites;
}

static void remember(Files *f, const TesCodeKey *key, GArray *sites) {
  TES_LOCKED(&f->lock);
  if (g_hash_table_size(f->known) >= MAX_FILES)
    g_hash_table_remove_all(f->known);
  g_hash_table_replace(f->known, g_memdup2(key, sizeof *key), sites ? g_array_ref(sites) : NULL);
}

/* Transfer full; NULL: not this time. */
static GArray *find_sites(TesMM *mm, const TesVma *v, const TesCodeKey *key) {
  Files *f = mm->kernel->cpuid_files;
  gpointer sites = NULL;
  gboolean seen;
  {
    TES_LOCKED(&f->lock);
    seen = g_hash_table_lookup_extended(f->known, key, NULL, &sites);
    if (sites)
      return g_array_ref(sites);
  }
  if (seen || f->at_once || key->len <= SMALL)
    sites = search(mm, v);
  remember(f, key, sites);
  return sites;
}

/* ---- Patching ---- */

static TesPatch patch_of(gulong addr) {
  TesPatch p = {
      .addr = addr, .kind = TES_PATCH_CPUID, .old = {0x0f, 0xa2}, .new = {TES_CPUID_BYTE0, TES_CPUID_BYTE1}};
  p.len = (addr & ~TES_PAGE_MASK) == TES_PAGE_SIZE - 1 ? 1 : 2;
  return p;
}

/* Whatever cannot be patched executes the host's CPUID. */
void tes_cpuid_patch(TesMM *mm, TesVma *v, const TesCodeKey *key) {
  gulong start = tes_vma_start(v);
  TesPte first = tes_pte_peek(mm, start);
  if (!first || (first & TES_PTE_MEM))
    return;
  g_autoptr(GArray) sites = find_sites(mm, v, key);
  if (!sites)
    return;
  TesPatch p[MAX_SITES];
  for (guint i = 0, n = 0; i < sites->len; i++) {
    gulong addr = start + g_array_index(sites, guint32, i);
    if (n > 0 && TES_PAGE_DOWN(p[0].addr) != TES_PAGE_DOWN(addr)) {
      tes_patch_add(mm, v, p, n);
      n = 0;
    }
    p[n++] = patch_of(addr);
    if (i + 1 == sites->len)
      tes_patch_add(mm, v, p, n);
  }
}
