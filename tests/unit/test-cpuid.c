/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID from the kernel's table: the table itself (core/task/cpuid.c), and which instructions of a mapped file are patched
 * (core/mm/cpuid-sites.c) over the platform of fake-platform.h. */
#include "mm-model.h"
#include <core/mm/insn.h>
#include <core/task/life.h>
#include <cpuid.h>

#define LEN (40 * TES_PAGE_SIZE)
#define RX (PROT_READ | PROT_EXEC)

static TesKernel *kernel;
static FileSource *file;

static const guint8 cpuid_insn[] = {0x0f, 0xa2};

static TesMM *setup(guint cores) {
  GError *error = NULL;
  kernel = fake_kernel_new(TRUE, 0);
  kernel->cores = cores;
  tes_cpuid_init(kernel, TES_CPUID_TABLE, FALSE);
  file = file_source_new(LEN, LEN);
  memset(file->window, 0x90, LEN);
  TesMM *mm = tes_mm_new(kernel, &error);
  g_assert_no_error(error);
  tes_mm_attach(mm);
  return mm;
}

static void done(TesMM *mm) {
  tes_mm_detach(mm);
  tes_mm_unref(mm);
  file->source.ops->unref(&file->source);
  tes_epoch_barrier();
  tes_epoch_poll();
  g_assert_cmpuint(tes_memfile_usage(kernel->memfile, TES_MEM_ANON), ==, 0);
  tes_cpuid_free(kernel);
  fake_kernel_free(kernel);
}

static gulong map(TesMM *mm, TesMapSource *source, guint64 version) {
  glong a = tes_mm_mmap(
      mm, &(TesMmapArgs){
              .len = LEN, .prot = RX, .flags = MAP_PRIVATE, .source = source, .limit_as = RLIM_INFINITY});
  g_assert_cmpint(a, >, 0);
  TesCodeKey key = {.ino = 7, .mtime = version, .len = LEN};
  tes_mm_lock(mm);
  tes_cpuid_patch(mm, tes_vma_find(mm, (gulong)a), &key);
  tes_mm_unlock(mm);
  return (gulong)a;
}

static guint8 guest_byte(TesMM *mm, gulong addr) {
  guint8 b;
  g_assert_cmpint(fake_read(mm, addr, &b, 1, FALSE), ==, 0);
  return b;
}

static void put(gsize at) { memcpy(file->window + at, cpuid_insn, 2); }

/* ---- Sites ---- */

/* Large files are searched when they are mapped again. */
static void test_second_time(void) {
  TesMM *mm = setup(2);
  TesCodeKey key = {.ino = 9, .len = 4UL << 20}; /* of that length */
  tes_cpuid_files_free(kernel);
  tes_cpuid_files_init(kernel, FALSE);
  put(700);
  for (guint i = 0; i < 3; i++) {
    glong a = tes_mm_mmap(mm, &(TesMmapArgs){.len = LEN,
                                             .prot = RX,
                                             .flags = MAP_PRIVATE,
                                             .source = &file->source,
                                             .limit_as = RLIM_INFINITY});
    tes_mm_lock(mm);
    tes_cpuid_patch(mm, tes_vma_find(mm, (gulong)a), &key);
    tes_mm_unlock(mm);
    g_assert_cmpint(guest_byte(mm, (gulong)a + 700), ==, i == 0 ? 0x0f : TES_CPUID_BYTE0);
  }
  done(mm);
}

static void test_sites(void) {
  /* The start, the end, across pages, across the blocks in which a file is searched. */
  static const gsize sites[] = {40, 300, 0x1fff, 0x3000, 0xff00, 0xffff, 0x1ffff, 0x20001, LEN - 2};
  TesMM *mm = setup(2);
  for (guint i = 0; i < G_N_ELEMENTS(sites); i++)
    put(sites[i]);
  memcpy(file->window + 0x5000, "\xb8\x0f\xa2\x00\x00", 5); /* mov $0xa20f,%eax */
  g_autofree guint8 *expect = g_memdup2(file->window, LEN), *got = g_malloc(LEN);
  gulong a = map(mm, &file->source, 1);
  g_assert_cmpuint(mm->patches->len, ==, G_N_ELEMENTS(sites));
  g_assert_cmpuint(tes_mm_copy_in(mm, got, a, LEN), ==, LEN);
  g_assert_cmpmem(got, LEN, expect, LEN);
  for (guint i = 0; i < G_N_ELEMENTS(sites); i++)
    expect[sites[i]] = TES_CPUID_BYTE0;
  g_assert_cmpint(fake_read(mm, a, got, LEN, FALSE), ==, 0);
  g_assert_cmpmem(got, LEN, expect, LEN);
  TesMM *child;
  g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
  tes_mm_attach(child);
  g_assert_cmpint(fake_read(child, a, got, LEN, FALSE), ==, 0);
  g_assert_cmpmem(got, LEN, expect, LEN);
  g_assert_cmpint(tes_mm_mprotect(child, NULL, a, TES_PAGE_SIZE, RX | PROT_WRITE), ==, 0);
  g_assert_cmpint(guest_byte(child, a + 40), ==, 0x0f);
  g_assert_cmpint(guest_byte(child, a + 0x1fff), ==, TES_CPUID_BYTE0);
  g_assert_cmpint(guest_byte(mm, a + 40), ==, TES_CPUID_BYTE0);
  tes_mm_detach(child);
  tes_mm_unref(child);
  /* Rewriting for the platform ends; CPUID stays. */
  g_assert_cmpint(tes_mm_unpatch_all(mm), ==, 0);
  g_assert_cmpint(guest_byte(mm, a + 40), ==, TES_CPUID_BYTE0);
  done(mm);
}

/* Remembered while the file is the same; what is remembered wrongly does no harm. */
static void test_remembered(void) {
  TesMM *mm = setup(2);
  put(500);
  put(0x2500);
  gulong a = map(mm, &file->source, 1);
  g_assert_cmpint(guest_byte(mm, a + 500), ==, TES_CPUID_BYTE0);
  file->window[0x2501] = 0xa3; /* bt %esp,... */
  put(900);
  gulong b = map(mm, &file->source, 1);
  g_assert_cmpint(guest_byte(mm, b + 500), ==, TES_CPUID_BYTE0);
  g_assert_cmpint(guest_byte(mm, b + 900), ==, 0x0f);
  g_assert_cmpint(guest_byte(mm, b + 0x2500), ==, 0x0f);
  gulong c = map(mm, &file->source, 2);
  g_assert_cmpint(guest_byte(mm, c + 900), ==, TES_CPUID_BYTE0);
  for (guint64 v = 10; v < 1500; v++)
    g_assert_cmpint(tes_mm_munmap(mm, map(mm, &file->source, v), LEN), ==, 0);
  g_assert_cmpint(guest_byte(mm, map(mm, &file->source, 2) + 900), ==, TES_CPUID_BYTE0);
  done(mm);
}

/* A file made to keep the search busy: bounded. A file that is cut while it is searched: what is there. */
static void test_hostile(void) {
  TesMM *mm = setup(2);
  for (gsize i = 0; i < LEN; i += 2)
    put(i);
  gint64 before = g_get_monotonic_time();
  map(mm, &file->source, 1);
  g_assert_cmpint(g_get_monotonic_time() - before, <, 500000);
  g_assert_cmpuint(mm->patches ? mm->patches->len : 0, <=, 256);
  for (gsize i = 0; i < LEN; i += 4)
    memcpy(file->window + i, "\x90\x0f\xa2\x90", 4);
  before = g_get_monotonic_time();
  map(mm, &file->source, 2);
  g_assert_cmpint(g_get_monotonic_time() - before, <, 500000);
  g_assert_cmpuint(mm->patches->len, <=, 512);
  memset(file->window, 0x90, LEN);
  put(600);
  file_source_truncate(file, 2 * TES_PAGE_SIZE);
  g_assert_cmpint(guest_byte(mm, map(mm, &file->source, 3) + 600), ==, TES_CPUID_BYTE0);
  file_source_truncate(file, 0);
  map(mm, &file->source, 4);
  done(mm);
}

/* Files in the memory file may have holes that a look would fill. */
static void test_not_in_memory_file(void) {
  TesMM *mm = setup(2);
  TesMapSource *shm = tes_shm_source_new(kernel, LEN);
  guint64 before = tes_memfile_resident(kernel->memfile);
  map(mm, shm, 1);
  g_assert_null(mm->patches);
  g_assert_cmpuint(tes_memfile_resident(kernel->memfile), ==, before);
  shm->ops->unref(shm);
  done(mm);
}

static void test_off(void) {
  TesMM *mm = setup(2);
  tes_cpuid_free(kernel);
  g_assert_null(tes_cpuid_table(kernel));
  TesCodeKey key;
  TesMmapArgs a = {.len = LEN, .prot = RX, .flags = MAP_PRIVATE};
  g_assert_false(tes_cpuid_wanted(mm, &a, RX, 0, &key));
  tes_cpuid_init(kernel, TES_CPUID_HOST, TRUE);
  g_assert_null(tes_cpuid_table(kernel));
  tes_cpuid_init(kernel, TES_CPUID_AUTO, FALSE);
  g_assert_null(tes_cpuid_table(kernel));
  guint32 r[4], host[4];
  tes_cpuid(kernel, 0, 0, r);
  __cpuid(0, host[0], host[1], host[2], host[3]);
  g_assert_cmpmem(r, 16, host, 16);
  done(mm);
}

/* ---- The table ---- */

static void test_table(void) {
  TesMM *mm = setup(4096);
  const TesCpuidTable *t = tes_cpuid_table(kernel);
  guint32 r[4], host[4];
  g_assert_cmpuint(t->count, ==, 0);
  static const guint32 leaves[][2] = {{0, 0}, {2, 0},   {4, 0},          {4, 1},
                                      {7, 0}, {0xd, 0}, {0x80000001, 0}, {0x80000004, 0}};
  for (guint i = 0; i < G_N_ELEMENTS(leaves); i++) {
    tes_cpuid(kernel, leaves[i][0], leaves[i][1], r);
    __cpuid_count(leaves[i][0], leaves[i][1], host[0], host[1], host[2], host[3]);
    g_assert_cmpmem(r, 16, host, 16);
    g_assert_cmpuint(t->count, ==, i + 1);
    g_assert_cmpmem(&t->entry[i].eax, 16, host, 16);
    g_assert_cmpuint(t->entry[i].leaf, ==, leaves[i][0]);
    tes_cpuid(kernel, leaves[i][0], leaves[i][1], r);
    g_assert_cmpmem(r, 16, host, 16);
    g_assert_cmpuint(t->count, ==, i + 1);
  }
  /* One entry for every ecx of a leaf without subleaves. */
  tes_cpuid(kernel, 0, 12345, r);
  g_assert_cmpuint(t->count, ==, G_N_ELEMENTS(leaves));
  g_assert_cmpuint(r[0], ==, t->entry[0].eax);
  g_assert_cmpuint(t->entry[0].any_subleaf, !=, 0);
  g_assert_cmpuint(t->entry[2].any_subleaf, ==, 0);
  done(mm);
}

/* Questions at random do not fill it. */
static void test_table_bounded(void) {
  TesMM *mm = setup(2);
  const TesCpuidTable *t = tes_cpuid_table(kernel);
  guint32 r[4];
  for (guint i = 0; i < 3000; i++)
    tes_cpuid(kernel, g_test_rand_int(), g_test_rand_int(), r);
  g_assert_cmpuint(t->count, <, 8);
  for (guint leaf = 0; leaf < 0x24; leaf++)
    for (guint sub = 0; sub < 70; sub++)
      tes_cpuid(kernel, leaf, sub, r);
  g_assert_cmpuint(t->count, <=, TES_CPUID_ENTRIES);
  tes_cpuid(kernel, 0x80000000, 0, r);
  g_assert_cmpuint(r[0], >=, 0x80000000);
  done(mm);
}

/* No more CPUs than the sandbox has, and no number of a CPU of the host. */
static void test_topology(void) {
  TesMM *mm = setup(1);
  guint32 r[4];
  tes_cpuid(kernel, 1, 0, r);
  g_assert_cmpuint(r[1] >> 16, <=, 1);
  for (guint sub = 0; sub < 4; sub++) {
    tes_cpuid(kernel, 4, sub, r);
    g_assert_cmpuint(r[0] >> 14, ==, 0);
    tes_cpuid(kernel, 0xb, sub, r);
    g_assert_cmpuint(r[1] & 0xffff, <=, 1);
    g_assert_cmpuint(r[3], ==, 0);
  }
  done(mm);
}

static gpointer asker(gpointer data) {
  guint32 r[4];
  for (guint i = 0; i < 400; i++)
    tes_cpuid(kernel, i % 0x1a, i % 5, r);
  return NULL;
}

static void test_table_threads(void) {
  TesMM *mm = setup(2);
  GThread *threads[4];
  for (guint i = 0; i < 4; i++)
    threads[i] = g_thread_new("asker", asker, NULL);
  for (guint i = 0; i < 4; i++)
    g_thread_join(threads[i]);
  const TesCpuidTable *t = tes_cpuid_table(kernel);
  for (guint i = 0; i < t->count; i++)
    for (guint k = 0; k < i; k++)
      g_assert_false(t->entry[i].leaf == t->entry[k].leaf && t->entry[i].subleaf == t->entry[k].subleaf);
  done(mm);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/cpuid/sites", test_sites);
  g_test_add_func("/cpuid/second-time", test_second_time);
  g_test_add_func("/cpuid/remembered", test_remembered);
  g_test_add_func("/cpuid/hostile", test_hostile);
  g_test_add_func("/cpuid/not-in-memory-file", test_not_in_memory_file);
  g_test_add_func("/cpuid/off", test_off);
  g_test_add_func("/cpuid/table", test_table);
  g_test_add_func("/cpuid/table-bounded", test_table_bounded);
  g_test_add_func("/cpuid/topology", test_topology);
  g_test_add_func("/cpuid/table-threads", test_table_threads);
  return g_test_run();
}
