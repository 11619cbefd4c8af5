/* SPDX-License-Identifier: Apache-2.0 */
/* core/mm: mremap, madvise, msync, mincore, mlock, limits, futex keys; and the structures below: the tree, the memory file. */
#include "mm-model.h"

#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define P TES_PAGE_SIZE

static TesKernel *kernel;

static TesMM *start(void) {
  kernel = fake_kernel_new(TRUE, 0);
  TesMM *mm = tes_mm_new(kernel, NULL);
  tes_mm_attach(mm);
  return mm;
}

static void finish(TesMM *mm) {
  tes_mm_detach(mm);
  tes_mm_unref(mm);
  tes_epoch_barrier();
  tes_epoch_poll();
  g_assert_cmpuint(tes_memfile_usage(kernel->memfile, TES_MEM_ANON), ==, 0);
  fake_kernel_free(kernel);
}

static gulong map(TesMM *mm, gulong addr, gsize len, guint prot, guint flags) {
  return (gulong)tes_mm_mmap(mm, &(TesMmapArgs){.addr = addr, .len = len, .prot = prot, .flags = flags});
}

static void put(TesMM *mm, gulong at, guint8 v) { g_assert_cmpint(fake_write(mm, at, &v, 1, TRUE), ==, 0); }
static int get(TesMM *mm, gulong at) {
  guint8 v = 0;
  int sig = fake_read(mm, at, &v, 1, TRUE);
  return sig ? -sig : v;
}

static void test_mremap(void) {
  TesMM *mm = start();
  gulong a = map(mm, 0x100000, 8 * P, RW, ANON | MAP_FIXED);
  for (guint i = 0; i < 8; i++)
    put(mm, a + i * P, (guint8)(i + 1));
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a + 1, P, P, 0, 0), ==, -EINVAL);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, P, 0, 0, 0), ==, -EINVAL);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, 0, P, MREMAP_MAYMOVE, 0), ==, -EINVAL);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, P, P, 0x80, 0), ==, -EINVAL);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, P, P, MREMAP_FIXED, 0x200000), ==, -EINVAL);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, a + P), ==,
                  -EINVAL);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, 0x90000, P, 2 * P, MREMAP_MAYMOVE, 0), ==, -EFAULT);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, 9 * P, 16 * P, MREMAP_MAYMOVE, 0), ==, -EFAULT);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, 8 * P, 4 * P, 0, 0), ==, (glong)a);
  g_assert_cmpint(get(mm, a + 4 * P), ==, -SIGSEGV);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, 4 * P, 8 * P, 0, 0), ==, (glong)a);
  g_assert_cmpint(get(mm, a + 3 * P), ==, 4);
  g_assert_cmpint(get(mm, a + 4 * P), ==, 0);
  map(mm, a + 8 * P, P, RW, ANON | MAP_FIXED);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, a + 8 * P, P, PROT_READ), ==, 0);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, 8 * P, 9 * P, 0, 0), ==, -ENOMEM);
  glong b = tes_mm_mremap(mm, NULL, a, 8 * P, 700 * P, MREMAP_MAYMOVE, 0);
  g_assert_cmpint(b, >, 0);
  g_assert_cmpint(get(mm, (gulong)b + 2 * P), ==, 3);
  g_assert_cmpint(get(mm, (gulong)b + 699 * P), ==, 0);
  g_assert_cmpint(get(mm, a), ==, -SIGSEGV);
  glong c = tes_mm_mremap(mm, NULL, (gulong)b, 700 * P, 700 * P, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
  g_assert_cmpint(get(mm, (gulong)c + P), ==, 2);
  g_assert_cmpint(get(mm, (gulong)b + P), ==, 0);
  gulong s = map(mm, 0, 2 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
  glong d = tes_mm_mremap(mm, NULL, s, 0, 2 * P, MREMAP_MAYMOVE, 0);
  put(mm, s, 5);
  g_assert_cmpint(get(mm, (gulong)d), ==, 5);
  finish(mm);
}

static void test_madvise(void) {
  TesMM *mm = start(), *child;
  gulong a = map(mm, 0, 4 * P, RW, ANON), s = map(mm, 0, 2 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
  for (guint i = 0; i < 4; i++)
    put(mm, a + i * P, 7);
  put(mm, s, 9);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a + 1, P, MADV_DONTNEED), ==, -EINVAL);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, P, 12345), ==, -EINVAL);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, ~0UL - 100, MADV_DONTNEED), ==, -EINVAL);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, P, MADV_REMOVE), ==, -EINVAL);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, s, P, MADV_REMOVE), ==, 0);
  g_assert_cmpint(get(mm, s), ==, 0);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, s, P, MADV_WIPEONFORK), ==, -EINVAL);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, P, MADV_WIPEONFORK), ==, 0);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a + P, P, MADV_DONTFORK), ==, 0);
  g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
  g_assert_cmpint(get(child, a), ==, 0);
  g_assert_cmpint(get(child, a + P), ==, -SIGSEGV);
  g_assert_cmpint(get(child, a + 2 * P), ==, 7);
  tes_mm_unref(child);
  g_assert_cmpint(get(mm, a), ==, 7);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a + 2 * P, P, MADV_DONTNEED), ==,
                  0); /* perhaps still referenced by the child */
  g_assert_cmpint(get(mm, a + 2 * P), ==, 0);
  g_assert_cmpint(get(mm, a + 3 * P), ==, 7);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, 4 * P, MADV_POPULATE_WRITE), ==, 0);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, a, P, PROT_READ), ==, 0);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, P, MADV_POPULATE_WRITE), ==, -EINVAL);
  finish(mm);
}

static void test_mlock_mincore_msync(void) {
  TesMM *mm = start();
  gulong a = map(mm, 0, 8 * P, RW, ANON), v = map(mm, 0, P, RW, ANON);
  guint8 vec[8];
  put(mm, a, 1);
  g_assert_cmpint(tes_mm_mincore(mm, a, 8 * P, v), ==, 0);
  g_assert_cmpuint(tes_mm_copy_in(mm, vec, v, 8), ==, 8);
  g_assert_cmpuint(vec[0], ==, 1);
  g_assert_cmpuint(vec[7], ==, 0);
  g_assert_cmpint(tes_mm_mlock(mm, NULL, a + 10, 7 * P, FALSE), ==, 0);
  g_assert_cmpuint(mm->locked_pages, ==, 8);
  g_assert_cmpint(tes_mm_mincore(mm, a, 8 * P, v), ==, 0);
  g_assert_cmpuint(tes_mm_copy_in(mm, vec, v, 8), ==, 8);
  g_assert_cmpuint(vec[7], ==, 1);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, P, MADV_DONTNEED), ==, -EINVAL);
  g_assert_cmpint(tes_mm_msync(mm, NULL, a, P, MS_INVALIDATE), ==, -EBUSY);
  g_assert_cmpint(tes_mm_munlock(mm, a, P), ==, 0);
  g_assert_cmpuint(mm->locked_pages, ==, 7);
  g_assert_cmpint(tes_mm_munmap(mm, a + 4 * P, P), ==, 0);
  g_assert_cmpuint(mm->locked_pages, ==, 6);
  g_assert_cmpint(tes_mm_mlock(mm, NULL, a, 8 * P, FALSE), ==, -ENOMEM);
  g_assert_cmpint(tes_mm_mincore(mm, a, 8 * P, v), ==, -ENOMEM);
  g_assert_cmpint(tes_mm_mincore(mm, a, P, 8), ==, -EFAULT);
  g_assert_cmpint(tes_mm_msync(mm, NULL, a, 8 * P, MS_SYNC), ==, -ENOMEM);
  g_assert_cmpint(tes_mm_msync(mm, NULL, a, P, MS_SYNC | MS_ASYNC), ==, -EINVAL);
  g_assert_cmpint(tes_mm_mlockall(mm, NULL, MCL_CURRENT | MCL_FUTURE), ==, 0);
  g_assert_cmpuint(mm->locked_pages, ==, mm->pages);
  map(mm, 0, P, RW, ANON);
  g_assert_cmpuint(mm->locked_pages, ==, mm->pages);
  g_assert_cmpint(tes_mm_munlockall(mm), ==, 0);
  g_assert_cmpuint(mm->locked_pages, ==, 0);
  finish(mm);
}

static void test_limits(void) {
  TesMM *mm = start();
  TesMmapArgs a = {.len = 100 * P, .prot = RW, .flags = ANON, .limit_as = 150 * P};
  g_assert_cmpint(tes_mm_mmap(mm, &a), >, 0);
  g_assert_cmpint(tes_mm_mmap(mm, &a), ==, -ENOMEM);
  mm->as_limit = RLIM_INFINITY;
  mm->data_limit = 150 * P;
  g_assert_cmpint(tes_mm_brk(mm, NULL, 0), ==, 0);
  a.limit_as = RLIM_INFINITY;
  g_assert_cmpint(tes_mm_mmap(mm, &a), ==, -ENOMEM);
  a.prot = PROT_READ;
  glong r = tes_mm_mmap(mm, &a);
  g_assert_cmpint(r, >, 0);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, (gulong)r, 100 * P, RW), ==, -ENOMEM);
  g_assert_cmpint((glong)map(mm, 1, P, RW, ANON | MAP_FIXED), ==, -EINVAL);
  g_assert_cmpint((glong)map(mm, 0, P, RW, ANON | MAP_FIXED), ==, -EPERM);
  g_assert_cmpint((glong)map(mm, 0, 0, RW, ANON), ==, -EINVAL);
  g_assert_cmpint((glong)map(mm, 0, P, RW, MAP_ANONYMOUS), ==, -EINVAL);
  g_assert_cmpint((glong)map(mm, FAKE_TOP, P, RW, ANON | MAP_FIXED), ==, -ENOMEM);
  g_assert_cmpint((glong)map(mm, (gulong)r, P, PROT_READ, ANON | MAP_FIXED_NOREPLACE), ==, -EEXIST);
  g_assert_cmpuint(map(mm, 0, P, PROT_READ, ANON | MAP_32BIT), <, 1UL << 31);
  g_assert_cmpint(tes_mm_munmap(mm, 0x1001, P), ==, -EINVAL);
  g_assert_cmpint(tes_mm_munmap(mm, 0x1000, 0), ==, -EINVAL);
  g_assert_cmpint(tes_mm_munmap(mm, ~(P - 1), P), ==, -EINVAL);
  g_assert_cmpuint(tes_mm_copy_in(mm, &a, ~0UL - 4, 8), ==, 0);
  g_assert_cmpuint(tes_mm_zero_out(mm, 1UL << 47, 8), ==, 0);
  finish(mm);
}

static void test_futex_key(void) {
  TesMM *mm = start(), *child;
  gulong p = map(mm, 0, P, RW, ANON), s = map(mm, 0, 2 * P, RW, MAP_SHARED | MAP_ANONYMOUS);
  TesFutexKey a, b;
  g_assert_cmpint(tes_mm_futex_key(mm, p + 4, FALSE, &a), ==, 0);
  g_assert(!a.shared && a.a == tes_mm_id(mm) && a.b == p + 4);
  g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
  gulong alias = (gulong)tes_mm_mremap(child, NULL, s, 0, 2 * P, MREMAP_MAYMOVE, 0);
  g_assert_cmpint(tes_mm_futex_key(mm, s + P + 8, FALSE, &a), ==, 0);
  g_assert_cmpint(tes_mm_futex_key(child, alias + P + 8, FALSE, &b), ==, 0);
  g_assert(a.shared && b.shared && a.a == b.a && a.b == b.b);
  g_assert_cmpint(tes_mm_futex_key(mm, 0x10000, FALSE, &a), ==, -EFAULT);
  tes_mm_unref(child);
  finish(mm);
}

/* ---- Structures ---- */

static void test_tree(void) {
  enum { N = 300 };
  TesTree t = {NULL};
  TesTreeNode node[N];
  gboolean in[N] = {FALSE};
  for (guint step = 0; step < 30000; step++) {
    guint k = (guint)g_test_rand_int_range(0, N);
    if (!in[k]) {
      node[k] = (TesTreeNode){.key = k * 10, .val = (gulong)g_test_rand_int_range(0, 1000)};
      tes_tree_insert(&t, &node[k]);
      in[k] = TRUE;
    } else if (g_test_rand_bit()) {
      tes_tree_remove(&t, &node[k]);
      in[k] = FALSE;
    } else {
      tes_tree_set_val(&t, &node[k], (gulong)g_test_rand_int_range(0, 1000));
    }
    gulong below = (gulong)g_test_rand_int_range(0, N * 10), val = (gulong)g_test_rand_int_range(1, 1000);
    TesTreeNode *le = NULL, *ge = NULL, *fit = NULL;
    for (guint i = 0; i < N; i++) {
      if (!in[i])
        continue;
      if (node[i].key <= below)
        le = &node[i];
      if (node[i].key >= below && !ge)
        ge = &node[i];
      if (node[i].key < below && node[i].val >= val)
        fit = &node[i];
    }
    g_assert(tes_tree_le(&t, below) == le && tes_tree_ge(&t, below) == ge &&
             tes_tree_last_fit(&t, below, val) == fit);
    g_assert(!t.root || t.root->height <= 12);
  }
}

/* Ranges never overlap, are aligned as asked, read as zeros, and come back when they are dropped. */
static void test_memfile(void) {
  kernel = fake_kernel_new(TRUE, 0);
  TesMemFile *mf = kernel->memfile;
  struct {
    goffset off;
    gsize len;
  } r[200] = {{0}};
  for (guint step = 0; step < 20000; step++) {
    guint k = (guint)g_test_rand_int_range(0, G_N_ELEMENTS(r));
    if (r[k].len) {
      g_assert_cmpuint(*(guint32 *)tes_memfile_ptr(mf, r[k].off), ==, k);
      if (g_test_rand_bit()) {
        tes_memfile_unref(mf, r[k].off, r[k].len);
      } else {
        tes_memfile_ref(mf, r[k].off, r[k].len);
        tes_memfile_unref(mf, r[k].off, r[k].len);
        g_assert_cmpuint(tes_memfile_refs(mf, r[k].off), ==, 1);
        tes_memfile_unref_now(mf, r[k].off, r[k].len);
      }
      r[k].len = 0;
      tes_epoch_poll();
      continue;
    }
    gsize align = P << g_test_rand_int_range(0, 10),
          phase = (gsize)g_test_rand_int_range(0, 1024) * P % align;
    r[k].len = (gsize)g_test_rand_int_range(1, 64) * P;
    r[k].off = tes_memfile_alloc(mf, r[k].len, align, phase, TES_MEM_FILE);
    g_assert_cmpint(r[k].off % (goffset)align, ==, (goffset)phase);
    for (gsize at = 0; at < r[k].len; at += P)
      g_assert_cmpuint(*(guint32 *)tes_memfile_ptr(mf, r[k].off + (goffset)at), ==, 0);
    for (gsize at = 0; at < r[k].len; at += P)
      *(guint32 *)tes_memfile_ptr(mf, r[k].off + (goffset)at) = k;
  }
  for (guint k = 0; k < G_N_ELEMENTS(r); k++)
    if (r[k].len)
      tes_memfile_unref(mf, r[k].off, r[k].len);
  tes_epoch_barrier();
  tes_epoch_poll();
  g_assert_cmpuint(tes_memfile_usage(mf, TES_MEM_FILE), ==, 0);
  g_assert_cmpuint(tes_memfile_resident(mf), <, 4 << 20);
  g_assert_cmpint(tes_memfile_alloc(mf, mf->limit + P, P, 0, TES_MEM_FILE), ==, -ENOMEM);
  fake_kernel_free(kernel);
}

/* Copies that hit a page they may not touch stop exactly there. */
static void test_safe_copy(void) {
  tes_safe_init();
  guint8 *p = mmap(NULL, 3 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), buf[8192];
  munmap(p + P, P);
  for (guint before = 1; before < 2000; before += 13) {
    gsize n = before + 1 + before % 100;
    g_assert_cmpuint(tes_safe_copy(buf, p + P - before, n), ==, n - before);
    g_assert_cmpuint(tes_safe_copy(p + P - before, buf, n), ==, n - before);
    g_assert_cmpuint(tes_safe_zero(p + P - before, n), ==, n - before);
    g_assert_cmpuint(tes_safe_copy(buf, p + P - before, before), ==, 0);
  }
  guint32 word = 3, old = 4;
  g_assert(tes_safe_cas32((guint32 *)(gpointer)p, &old, 5) && old == 0);
  g_assert(tes_safe_cas32((guint32 *)(gpointer)p, &old, 5) && *p == 5);
  g_assert(!tes_safe_cas32((guint32 *)(gpointer)(p + P), &old, 5));
  g_assert(tes_safe_load32((guint32 *)(gpointer)p, &word) && word == 5);
  munmap(p, 3 * P);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/mm/mremap", test_mremap);
  g_test_add_func("/mm/madvise", test_madvise);
  g_test_add_func("/mm/mlock-mincore-msync", test_mlock_mincore_msync);
  g_test_add_func("/mm/limits", test_limits);
  g_test_add_func("/mm/futex-key", test_futex_key);
  g_test_add_func("/mm/tree", test_tree);
  g_test_add_func("/mm/memfile", test_memfile);
  g_test_add_func("/mm/safe-copy", test_safe_copy);
  return g_test_run();
}
