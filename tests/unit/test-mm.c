/* SPDX-License-Identifier: Apache-2.0 */
/* core/mm over a platform that maps into this process: mapping, copying, copy-on-write, sources, memory accounting. */
#include "mm-model.h"
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static TesKernel *kernel;

static TesMM *mm_new(void) {
  GError *error = NULL;
  TesMM *mm = tes_mm_new(kernel, &error);
  g_assert_no_error(error);
  tes_mm_attach(mm);
  return mm;
}

static void mm_done(TesMM *mm) {
  tes_mm_detach(mm);
  tes_mm_unref(mm);
}

static void setup_with(gboolean clone, guint64 limit) { kernel = fake_kernel_new(clone, limit); }

/* Everything is freed: no page has a reference left. */
static void teardown(void) {
  tes_epoch_barrier();
  tes_epoch_poll();
  for (guint c = 0; c < TES_MEM_CLASSES; c++)
    g_assert_cmpuint(tes_memfile_usage(kernel->memfile, c), ==, 0);
  fake_kernel_free(kernel);
}

static glong map(TesMM *mm, gulong addr, gsize len, guint prot, guint flags) {
  return tes_mm_mmap(
      mm, &(TesMmapArgs){.addr = addr, .len = len, .prot = prot, .flags = flags, .limit_as = RLIM_INFINITY});
}

static void test_basic(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  glong a = map(mm, 0, 3 * TES_PAGE_SIZE, RW, ANON);
  g_assert_cmpint(a, >, 0);
  char buf[8192] = "hello", back[8192];
  g_assert_cmpuint(tes_mm_copy_out(mm, a + 4100, buf, 8192), ==, 12288 - 4100);
  g_assert_cmpint(fake_read(mm, a + 4100, back, 8192, FALSE), ==, SIGSEGV);
  g_assert_cmpint(fake_read(mm, a + 4100, back, 12288 - 4100, FALSE), ==, 0);
  g_assert_cmpstr(back, ==, "hello");
  g_assert_cmpint(fake_write(mm, a, "guest", 6, FALSE), ==, 0);
  g_assert_cmpuint(tes_mm_copy_in(mm, back, a, 6), ==, 6);
  g_assert_cmpstr(back, ==, "guest");
  g_assert_cmpint(tes_mm_munmap(mm, a + 4096, 4096), ==, 0);
  g_assert_cmpuint(tes_mm_copy_in(mm, back, a, 8192), ==, 4096);
  g_assert_cmpint(fake_read(mm, a + 4096, back, 1, FALSE), ==, SIGSEGV);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, a, 4096, PROT_READ), ==, 0);
  g_assert_cmpuint(tes_mm_copy_out(mm, a, buf, 1), ==, 0);
  g_assert_cmpint(fake_write(mm, a, "x", 1, FALSE), ==, SIGSEGV);
  g_assert_cmpint(fake_write(mm, a, "x", 1, TRUE), ==, SIGSEGV);
  g_assert_cmpuint(tes_mm_poke(mm, a, "poked", 6), ==, 6);
  g_assert_cmpint(fake_read(mm, a, back, 6, FALSE), ==, 0);
  g_assert_cmpstr(back, ==, "poked");
  mm_done(mm);
  teardown();
}

/* DESIGN.md decision 3: reservations cost nothing until they are touched. */
static void test_reservations(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  gsize tib = 1UL << 40;
  glong a = map(mm, 0, tib, RW, ANON | MAP_NORESERVE);
  g_assert_cmpint(a, >, 0);
  g_assert_cmpuint(tes_memfile_usage(kernel->memfile, TES_MEM_ANON), ==, 0);
  for (gsize at = 12345; at < tib; at += tib / 16)
    g_assert_cmpint(fake_write(mm, a + (glong)at, "t", 1, TRUE), ==, 0);
  g_assert_cmpuint(tes_memfile_usage(kernel->memfile, TES_MEM_ANON), <=, 17 * TES_LEAF_SIZE);
  g_assert_cmpuint(tes_memfile_resident(kernel->memfile), <, 1 << 20);
  TesMM *child;
  g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
  char c = 0;
  g_assert_cmpint(fake_read(child, a + 12345, &c, 1, FALSE), ==, 0);
  g_assert_cmpint(c, ==, 't');
  tes_mm_unref(child);
  g_assert_cmpint(tes_mm_munmap(mm, a, tib), ==, 0);
  a = map(mm, 0, tib, PROT_NONE, ANON);
  for (gsize at = 0; at < tib; at += tib / 8) {
    g_assert_cmpint(fake_read(mm, a + (glong)at, &c, 1, TRUE), ==, SIGSEGV);
    g_assert_cmpint(tes_mm_mprotect(mm, NULL, a + (glong)at, 65536, RW), ==, 0);
    g_assert_cmpint(fake_write(mm, a + (glong)at + 5, "t", 1, TRUE), ==, 0);
  }
  g_assert_cmpint(map(mm, 0, 1UL << 47, RW, ANON | MAP_NORESERVE), ==, -ENOMEM);
  g_assert_cmpint(map(mm, 0, G_MAXULONG - 4096, RW, ANON), ==, -ENOMEM);
  mm_done(mm);
  teardown();
}

/* Copy-on-write blocks merge into few host mappings; what falls back to one owner is taken over in one go. */
static void test_cow_merges(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new(), *child;
  gsize len = 8 << 20;
  glong a = map(mm, 0, len, RW, ANON);
  for (gsize at = 0; at < len; at += TES_PAGE_SIZE)
    fake_write(mm, a + (glong)at, &at, 8, FALSE);
  g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
  tes_mm_attach(child);
  for (guint i = 0; i < 512; i++) {
    gulong at = (gulong)a + (i * 37 % 512) * TES_COW_FIRST + 100;
    g_assert_cmpint(fake_write(mm, at, "w", 1, TRUE), ==, 0);
  }
  g_assert_cmpuint(fake_runs(mm), <=, 2 * (len / TES_LEAF_SIZE) + 2);
  gsize value;
  for (gsize at = 0; at < len; at += TES_PAGE_SIZE) {
    g_assert_cmpint(fake_read(child, a + (glong)at, &value, 8, FALSE), ==, 0);
    g_assert_cmpuint(value, ==, at);
  }
  tes_epoch_poll();
  guint before = fake_ops_count();
  for (gsize at = 0; at < len; at += TES_PAGE_SIZE)
    g_assert_cmpint(fake_write(child, a + (glong)at, "c", 1, TRUE), ==, 0);
  g_assert_cmpuint(fake_ops_count() - before, <=, 2);
  mm_done(child);
  mm_done(mm);
  teardown();
}

/* A library is laid out by several mappings one over the other; the platform hears of what is left when it is touched. */
static void test_defer(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  FileSource *f = file_source_new(16 * TES_PAGE_SIZE, 16 * TES_PAGE_SIZE);
  for (guint i = 0; i < 16; i++)
    memset(f->window + i * TES_PAGE_SIZE, 'a' + (int)i, TES_PAGE_SIZE);
  TesMmapArgs a = {.len = 16 * TES_PAGE_SIZE,
                   .prot = PROT_READ,
                   .flags = MAP_PRIVATE | MAP_DENYWRITE,
                   .source = &f->source};
  guint before = fake_ops_count();
  glong at = tes_mm_mmap(mm, &a);
  g_assert_cmpint(at, >, 0);
  a.flags |= MAP_FIXED;
  a.addr = (gulong)at + 4 * TES_PAGE_SIZE;
  a.len = 4 * TES_PAGE_SIZE;
  a.off = 8 * TES_PAGE_SIZE;
  g_assert_cmpint(tes_mm_mmap(mm, &a), ==, (glong)a.addr);
  g_assert_cmpint(map(mm, (gulong)at + 14 * TES_PAGE_SIZE, 2 * TES_PAGE_SIZE, RW, ANON | MAP_FIXED), >, 0);
  g_assert_cmpint(tes_mm_munmap(mm, (gulong)at + 9 * TES_PAGE_SIZE, TES_PAGE_SIZE), ==, 0);
  g_assert_cmpuint(fake_ops_count(), ==, before);
  char c = 0;
  g_assert_cmpint(fake_read(mm, (gulong)at + 5 * TES_PAGE_SIZE, &c, 1, TRUE), ==, 0);
  g_assert_cmpint(c, ==, 'a' + 9);
  g_assert_cmpuint(fake_ops_count() - before, ==, 5); /* 0-3, 4-7, 8, 10-13, 14-15 */
  g_assert_cmpint(fake_read(mm, (gulong)at + 10 * TES_PAGE_SIZE, &c, 1, TRUE), ==, 0);
  g_assert_cmpint(c, ==, 'a' + 10);
  g_assert_cmpint(fake_write(mm, (gulong)at + 15 * TES_PAGE_SIZE, "x", 1, TRUE), ==, 0);
  g_assert_cmpint(fake_read(mm, (gulong)at + 9 * TES_PAGE_SIZE, &c, 1, TRUE), ==, SIGSEGV);
  g_assert_cmpint(fake_write(mm, (gulong)at, "x", 1, TRUE), ==, SIGSEGV);
  g_assert_cmpuint(fake_ops_count() - before, ==, 5);
  mm_done(mm);
  f->source.ops->unref(&f->source);
  teardown();
}

/* What was written after one fork is copied by the next: neither side faults for it, and both see their own bytes. */
static void test_fork_copies_hot_pages(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new(), *child;
  glong a = map(mm, 0, 64 * TES_PAGE_SIZE, RW, ANON);
  const gulong hot[] = {(gulong)a + 8, (gulong)a + 20 * TES_PAGE_SIZE + 8, (gulong)a + 63 * TES_PAGE_SIZE};
  for (gulong at = (gulong)a; at < (gulong)a + 64 * TES_PAGE_SIZE; at += TES_PAGE_SIZE)
    g_assert_cmpint(fake_write(mm, at, "first", 6, FALSE), ==, 0);
  for (guint round = 0; round < 200; round++) {
    g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
    tes_mm_attach(child);
    guint before = fake_ops_count();
    for (guint i = 0; i < G_N_ELEMENTS(hot); i++) {
      char c = 0, in_child = (char)(round + 1), in_parent = (char)(round + 2);
      g_assert_cmpint(fake_write(child, hot[i], &in_child, 1, TRUE), ==, 0);
      g_assert_cmpint(fake_write(mm, hot[i], &in_parent, 1, TRUE), ==, 0);
      g_assert_cmpint(fake_read(child, hot[i], &c, 1, TRUE), ==, 0);
      g_assert_cmpint(c, ==, in_child);
    }
    /* Forgotten now and then, and learnt again. */
    if (round > 0 && round % 64 > 1 && round % 64 < 62)
      g_assert_cmpuint(fake_ops_count(), ==, before);
    mm_done(child);
  }
  char text[6];
  g_assert_cmpint(fake_read(mm, (gulong)a + 19 * TES_PAGE_SIZE, text, 6, TRUE), ==, 0);
  g_assert_cmpstr(text, ==, "first");
  mm_done(mm);
  teardown();
}

/* The heap grows in small steps, small mappings come one below the other: neither may use up the host's mappings. */
static void test_small_steps_merge(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  tes_mm_set_layout(mm, &(TesMMLayout){.mmap_top = 1UL << 40, .brk_start = 0x10000123});
  gulong brk = 0x10000123;
  for (guint i = 0; i < 300; i++) {
    brk += 33 * TES_PAGE_SIZE;
    g_assert_cmpint(tes_mm_brk(mm, NULL, brk), ==, (glong)brk);
  }
  g_assert_cmpuint(fake_runs(mm), <, 60);
  guint before = fake_runs(mm);
  for (guint i = 0; i < 2000; i++)
    g_assert_cmpint(map(mm, 0, 2 * TES_PAGE_SIZE, RW, ANON), >, 0);
  g_assert_cmpuint(fake_runs(mm) - before, <, 60);
  g_assert_cmpuint(mm->n_vmas, ==, 2);
  g_assert_cmpint(tes_mm_brk(mm, NULL, 1), ==, (glong)brk);
  g_assert_cmpint(tes_mm_brk(mm, NULL, 0x10000123), ==, 0x10000123);
  mm_done(mm);
  teardown();
}

static void test_vma_limit(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  ((FakeAspace *)mm->aspace)->dry = TRUE;
  glong a = map(mm, 0, 70000 * 2 * TES_PAGE_SIZE, PROT_NONE, ANON | MAP_NORESERVE);
  guint i = 0;
  while (tes_mm_mprotect(mm, NULL, a + i * 2 * TES_PAGE_SIZE, TES_PAGE_SIZE, PROT_READ) == 0)
    i++;
  g_assert_cmpuint(i, >, 32000);
  g_assert_cmpuint(mm->n_vmas, <=, TES_VMA_MAX);
  g_assert_cmpint(map(mm, 0, 4096, RW, ANON), ==, -ENOMEM);
  g_assert_cmpint(tes_mm_munmap(mm, a, 70000 * 2 * TES_PAGE_SIZE), ==, 0);
  g_assert_cmpuint(mm->n_vmas, ==, 0);
  mm_done(mm);
  teardown();
}

/* The host refuses further mappings: ENOMEM, nothing lost, nothing leaked. */
static void test_host_refuses(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  glong a = map(mm, 0, 16 * TES_PAGE_SIZE, RW, ANON);
  glong b = map(mm, 0, 4 * TES_PAGE_SIZE, RW, ANON | MAP_NORESERVE);
  fake_write(mm, a, "keep", 5, FALSE);
  fake_write(mm, b, "move", 5, FALSE);
  ((FakeAspace *)mm->aspace)->fail_after = 1;
  g_assert_cmpint(map(mm, 0, 4096, RW, ANON), ==, -ENOMEM);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, a, 4096, PROT_READ), ==, -ENOMEM);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, b, 4 * TES_PAGE_SIZE, 4 * TES_PAGE_SIZE,
                                MREMAP_MAYMOVE | MREMAP_FIXED, 0x100000),
                  ==, -ENOMEM);
  ((FakeAspace *)mm->aspace)->fail_after = 0;
  char buf[5];
  g_assert_cmpint(fake_read(mm, a, buf, 5, TRUE), ==, 0);
  g_assert_cmpstr(buf, ==, "keep");
  g_assert_cmpint(fake_read(mm, b, buf, 5, TRUE), ==, 0);
  g_assert_cmpstr(buf, ==, "move");
  mm_done(mm);
  teardown();
}

static void test_memory_limit(void) {
  setup_with(TRUE, 16 << 20);
  TesMM *mm = mm_new();
  g_assert_cmpint(map(mm, 0, 32 << 20, RW, ANON), ==, -ENOMEM);
  glong a = map(mm, 0, 1UL << 30, RW, ANON | MAP_NORESERVE);
  g_assert_cmpint(a, >, 0);
  int sig = 0;
  gsize at = 0;
  for (; !sig && at < 1UL << 30; at += TES_PAGE_SIZE)
    sig = fake_write(mm, a + (glong)at, "x", 1, TRUE);
  g_assert_cmpint(sig, ==, SIGKILL);
  g_assert_cmpuint(at, >, 8 << 20);
  g_assert_cmpuint(at, <, 24 << 20);
  mm_done(mm);
  teardown();
}

static void test_stack(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  gulong top = 0x7000000000;
  g_assert_cmpint(map(mm, top - 0x21000, 0x21000, RW, ANON | MAP_FIXED | MAP_GROWSDOWN), ==,
                  (glong)(top - 0x21000));
  g_assert_cmpint(fake_write(mm, top - (2 << 20), "s", 1, TRUE), ==, 0);
  g_assert_cmpuint(tes_mm_copy_out(mm, top - (3 << 20), "k", 1), ==, 1);
  g_assert_cmpint(fake_write(mm, top - (9 << 20), "s", 1, TRUE), ==, SIGSEGV);
  gulong lo = tes_vma_start(tes_vma_first(mm, 0)), wall = lo - 300 * TES_PAGE_SIZE;
  g_assert_cmpint(map(mm, wall, TES_PAGE_SIZE, RW, ANON | MAP_FIXED_NOREPLACE), ==, (glong)wall);
  g_assert_cmpint(fake_write(mm, lo - 10 * TES_PAGE_SIZE, "s", 1, TRUE), ==, 0);
  g_assert_cmpint(fake_write(mm, wall + 100 * TES_PAGE_SIZE, "s", 1, TRUE), ==, SIGSEGV);
  for (guint i = 0; i < 10; i++) {
    glong m = map(mm, 0, 1 << 20, RW, ANON);
    g_assert(m + (1 << 20) + (glong)TES_STACK_GUARD <= (glong)lo || (gulong)m >= top);
  }
  mm_done(mm);
  teardown();
}

static void test_truncate(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  FileSource *f = file_source_new(4 * TES_PAGE_SIZE, 8 * TES_PAGE_SIZE);
  TesMmapArgs a = {.len = 8 * TES_PAGE_SIZE, .prot = RW, .flags = MAP_SHARED, .source = &f->source};
  glong s = tes_mm_mmap(mm, &a);
  a.flags = MAP_PRIVATE;
  glong p = tes_mm_mmap(mm, &a);
  g_assert(tes_map_source_has_writers(&f->source));
  g_assert_cmpint(fake_write(mm, s + 3 * 4096, "shared", 7, TRUE), ==, 0);
  g_assert_cmpint(fake_write(mm, p + 3 * 4096, "private", 8, TRUE), ==, 0);
  g_assert_cmpstr((char *)f->window + 3 * 4096, ==, "shared");
  char buf[8];
  g_assert_cmpint(fake_read(mm, s + 4 * 4096, buf, 1, TRUE), ==, SIGBUS);
  g_assert_cmpuint(tes_mm_copy_in(mm, buf, s + 4 * 4096 - 2, 8), ==, 2);
  file_source_truncate(f, TES_PAGE_SIZE);
  g_assert_cmpint(fake_read(mm, s + 3 * 4096, buf, 1, TRUE), ==, SIGBUS);
  g_assert_cmpint(fake_read(mm, p + 3 * 4096, buf, 1, TRUE), ==, SIGBUS);
  g_assert_cmpuint(tes_mm_copy_out(mm, p + 3 * 4096, buf, 1), ==, 0);
  file_source_truncate(f, 8 * TES_PAGE_SIZE);
  g_assert_cmpint(fake_read(mm, s + 3 * 4096, buf, 7, TRUE), ==, 0);
  g_assert_cmpstr(buf, ==, "");
  /* The host's file shrinks behind our back: short copies, no crash. */
  g_assert(ftruncate(f->fd, 4096) == 0);
  g_assert_cmpuint(tes_mm_copy_in(mm, buf, s + 3 * 4096, 7), ==, 0);
  guint32 word;
  g_assert(!tes_safe_load32((guint32 *)(gpointer)(f->window + 3 * 4096), &word));
  mm_done(mm);
  g_assert(!tes_map_source_has_writers(&f->source));
  f->source.ops->unref(&f->source);
  teardown();
}

static void test_iov(void) {
  setup_with(TRUE, 0);
  TesMM *mm = mm_new();
  glong a = map(mm, 0, 4 * TES_PAGE_SIZE, RW, ANON);
  struct iovec v[3] = {{(void *)(a + 4090), 10}, {NULL, 0}, {(void *)(a + 3 * 4096), 8192}};
  TesIov iov = {.mm = mm, .v = v, .n = 3, .left = 10 + 8192};
  g_assert_cmpint(tes_iov_write_to(&iov, "0123456789abcdef", 16), ==, 16);
  char buf[20] = "";
  g_assert_cmpuint(tes_mm_copy_in(mm, buf, a + 4090, 10), ==, 10);
  g_assert_cmpstr(buf, ==, "0123456789");
  struct iovec out[4];
  TesIovPin *pin;
  g_assert_cmpint(tes_iov_pin(&iov, 8192, TRUE, out, 4, &pin), ==, 1);
  g_assert_cmpuint(out[0].iov_len, ==, 4090);
  g_assert_cmpint(tes_mm_munmap(mm, a, 4 * TES_PAGE_SIZE), ==, 0);
  memcpy(out[0].iov_base, "late", 5); /* still ours */
  tes_iov_unpin(pin);
  g_assert_cmpint(tes_iov_pin(&iov, 8192, TRUE, out, 4, &pin), ==, -EFAULT);
  g_assert_cmpint(tes_iov_zero(&iov, 5), ==, -EFAULT);
  mm_done(mm);
  teardown();
}

/* Threads map, write, fork and unmap at once: fresh memory is always zero and nobody sees another's bytes. */
static gpointer canary(gpointer data) {
  TesMM *mm = data;
  guint64 tag = (guint64)(gulong)g_thread_self() | 1, got[512];
  tes_mm_attach(mm);
  for (guint i = 0; i < 300; i++) {
    gsize len = (1 + (i * 7) % 30) * TES_PAGE_SIZE;
    glong a = map(mm, 0, len, RW, ANON | (i % 3 ? 0 : MAP_NORESERVE));
    g_assert_cmpint(a, >, 0);
    for (gsize at = 0; at < len; at += 4096) {
      if (i & 1)
        g_assert_cmpint(fake_read(mm, a + (glong)at, got, 4096, TRUE), ==, 0);
      else
        g_assert_cmpuint(tes_mm_copy_in(mm, got, a + (glong)at, 4096), ==, 4096);
      for (guint k = 0; k < 512; k++)
        g_assert_cmpuint(got[k], ==, 0);
      for (guint k = 0; k < 512; k++)
        got[k] = tag;
      if (i & 2)
        g_assert_cmpint(fake_write(mm, a + (glong)at, got, 4096, TRUE), ==, 0);
      else
        g_assert_cmpuint(tes_mm_copy_out(mm, a + (glong)at, got, 4096), ==, 4096);
    }
    if (i % 20 == 0) {
      TesMM *child;
      g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
      tes_mm_attach(child);
      guint64 other = 42;
      g_assert_cmpuint(tes_mm_copy_out(child, a, &other, 8), ==, 8);
      g_assert_cmpuint(tes_mm_copy_in(mm, got, a, 8), ==, 8);
      g_assert_cmpuint(got[0], ==, tag);
      mm_done(child);
    }
    g_assert_cmpint(tes_mm_munmap(mm, a, len), ==, 0);
    tes_epoch_poll();
  }
  tes_mm_detach(mm);
  return NULL;
}

static void test_canary(void) {
  setup_with(TRUE, 0);
  TesMM *a = mm_new(), *b = mm_new();
  GThread *t[8];
  for (guint i = 0; i < G_N_ELEMENTS(t); i++)
    t[i] = g_thread_new("canary", canary, i & 1 ? a : b);
  for (guint i = 0; i < G_N_ELEMENTS(t); i++)
    g_thread_join(t[i]);
  mm_done(a);
  mm_done(b);
  teardown();
}

static void test_model(gconstpointer kind) {
  guint k = GPOINTER_TO_UINT(kind);
  setup_with(k & 1, 0);
  model_run(kernel, g_test_slow() ? 200000 : 4000, k & 2);
  teardown();
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/mm/basic", test_basic);
  g_test_add_func("/mm/reservations", test_reservations);
  g_test_add_func("/mm/cow-merges", test_cow_merges);
  g_test_add_func("/mm/defer", test_defer);
  g_test_add_func("/mm/fork-copies-hot-pages", test_fork_copies_hot_pages);
  g_test_add_func("/mm/small-steps-merge", test_small_steps_merge);
  g_test_add_func("/mm/vma-limit", test_vma_limit);
  g_test_add_func("/mm/host-refuses", test_host_refuses);
  g_test_add_func("/mm/memory-limit", test_memory_limit);
  g_test_add_func("/mm/stack", test_stack);
  g_test_add_func("/mm/truncate", test_truncate);
  g_test_add_func("/mm/iov", test_iov);
  g_test_add_func("/mm/canary", test_canary);
  g_test_add_data_func("/mm/model/replay", GUINT_TO_POINTER(0), test_model);
  g_test_add_data_func("/mm/model/clone", GUINT_TO_POINTER(1), test_model);
  g_test_add_data_func("/mm/model/replay-files", GUINT_TO_POINTER(2), test_model);
  g_test_add_data_func("/mm/model/clone-files", GUINT_TO_POINTER(3), test_model);
  return g_test_run();
}
