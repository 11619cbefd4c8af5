/* SPDX-License-Identifier: Apache-2.0 */
/* Changed guest code (core/mm/patch.c, rewrite.c) over the platform of fake-platform.h: what is placed, what undoes it, who
 * sees which bytes, what is refused. The "platform" here asks for what the test tells it to. */
#include "mm-model.h"
#include <unistd.h>

#define RX (PROT_READ | PROT_EXEC)
#define PAGES 4
#define SITE 0x1234 /* offset of a `syscall` in the file */

static const guint8 call_code[] = {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}; /* mov $39,%eax; syscall; ret */

static TesKernel *kernel;
static FileSource *file;
static TesAspaceOps ops;
static TesCodePatch want;
static gboolean refuse, last_alone;
static guint asked, placed, undone;
static gulong last_ip;

static int fake_rewrite(TesAspace *a, gulong ip, const guint8 *code, gulong start, gsize n, gboolean alone,
                        TesCodePatch *out) {
  asked++;
  last_alone = alone;
  last_ip = ip;
  g_assert_cmpuint(start % TES_PAGE_SIZE, ==, 0);
  g_assert_cmpuint(n, ==, TES_PAGE_SIZE);
  g_assert_cmpint(code[ip - 2 - start], ==, 0x0f);
  if (refuse)
    return 0;
  *out = want;
  return 1;
}

static void fake_rewritten(TesAspace *a, const TesCodePatch *p, gboolean done) {
  *(done ? &placed : &undone) += 1;
}

static void give_ops(TesMM *mm) {
  ops = *mm->aspace->ops;
  ops.size = sizeof ops;
  ops.rewrite = fake_rewrite;
  ops.rewritten = fake_rewritten;
  mm->aspace->ops = &ops;
}

static TesMM *setup(gboolean clone) {
  kernel = fake_kernel_new(clone, 0);
  file = file_source_new(PAGES * TES_PAGE_SIZE, PAGES * TES_PAGE_SIZE);
  for (guint i = 0; i < PAGES * TES_PAGE_SIZE; i++)
    file->window[i] = (guint8)(i * 7 + i / 256);
  memcpy(file->window + SITE, call_code, sizeof call_code);
  asked = placed = undone = 0;
  refuse = FALSE;
  GError *error = NULL;
  TesMM *mm = tes_mm_new(kernel, &error);
  g_assert_no_error(error);
  tes_mm_attach(mm);
  give_ops(mm);
  return mm;
}

static void done(TesMM *mm) {
  tes_mm_detach(mm);
  tes_mm_unref(mm);
  file->source.ops->unref(&file->source);
  tes_epoch_barrier();
  tes_epoch_poll();
  for (guint c = 0; c < TES_MEM_CLASSES; c++)
    g_assert_cmpuint(tes_memfile_usage(kernel->memfile, c), ==, 0);
  fake_kernel_free(kernel);
}

static gulong map_at(TesMM *mm, gulong addr, guint prot, guint flags) {
  glong a = tes_mm_mmap(mm, &(TesMmapArgs){.addr = addr,
                                           .len = PAGES * TES_PAGE_SIZE,
                                           .prot = prot,
                                           .flags = flags,
                                           .source = &file->source,
                                           .limit_as = RLIM_INFINITY});
  g_assert_cmpint(a, >, 0);
  return (gulong)a;
}

static int rewrite(TesMM *mm, gulong ip) {
  g_autofree TesTask *t = g_new0(TesTask, 1);
  t->mm = mm;
  t->kernel = kernel;
  return tes_mm_rewrite(t, ip);
}

/* A five-byte jump and two bytes of the old call: what the platform would ask for at base + SITE. */
static void want_jump(gulong base) {
  want = (TesCodePatch){.addr = base + SITE, .len = 7, .bytes = {0xe9, 1, 2, 3, 4, 0xcc, 0xcc}};
}

static int place(TesMM *mm, gulong base) {
  want_jump(base);
  return rewrite(mm, base + SITE + 7);
}

static void guest_sees(TesMM *mm, gulong base, gboolean patched) {
  guint8 buf[TES_PAGE_SIZE], expect[TES_PAGE_SIZE];
  gulong page = SITE & TES_PAGE_MASK;
  memcpy(expect, file->window + page, sizeof expect);
  if (patched)
    memcpy(expect + (SITE - page), "\xe9\1\2\3\4\xcc\xcc", 7);
  g_assert_cmpint(fake_read(mm, base + page, buf, sizeof buf, FALSE), ==, 0);
  g_assert_cmpmem(buf, sizeof buf, expect, sizeof expect);
}

/* What the kernel reads for the guest is always the program's own code. */
static void kernel_sees_file(TesMM *mm, gulong base) {
  guint8 buf[PAGES * TES_PAGE_SIZE];
  g_assert_cmpuint(tes_mm_copy_in(mm, buf, base, sizeof buf), ==, sizeof buf);
  g_assert_cmpmem(buf, sizeof buf, file->window, sizeof buf);
  for (guint i = 0; i < 12; i++) {
    g_assert_cmpuint(tes_mm_copy_in(mm, buf, base + SITE - 2 + i, 3), ==, 3);
    g_assert_cmpmem(buf, 3, file->window + SITE - 2 + i, 3);
  }
}

static void pinned_sees_file(TesMM *mm, gulong base) {
  struct iovec one = {(void *)base, PAGES * TES_PAGE_SIZE}, out[PAGES];
  TesIov v = {mm, &one, 1, 0, PAGES * TES_PAGE_SIZE};
  TesIovPin *pin;
  int n = tes_iov_pin(&v, one.iov_len, FALSE, out, PAGES, &pin);
  g_assert_cmpint(n, >, 0);
  gsize at = 0;
  for (int i = 0; i < n; at += out[i++].iov_len)
    g_assert_cmpmem(out[i].iov_base, out[i].iov_len, file->window + at, out[i].iov_len);
  g_assert_cmpuint(at, ==, PAGES * TES_PAGE_SIZE);
  tes_iov_unpin(pin);
}

static void test_place(void) {
  TesMM *mm = setup(TRUE);
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE), b = map_at(mm, 0, RX, MAP_PRIVATE);
  refuse = TRUE;
  g_assert_cmpint(place(mm, a), ==, 0);
  guest_sees(mm, a, FALSE);
  refuse = FALSE;
  g_assert_cmpint(place(mm, a), ==, 1);
  g_assert_true(last_alone);
  g_assert_cmpuint(last_ip, ==, a + SITE + 7);
  g_assert_cmpuint(placed, ==, 1);
  guest_sees(mm, a, TRUE);
  guest_sees(mm, b, FALSE);
  kernel_sees_file(mm, a);
  pinned_sees_file(mm, a);
  g_assert_cmpint(memcmp(file->window + SITE, call_code, sizeof call_code), ==, 0);
  /* A second thread, a second site in the same page. */
  memcpy(file->window + SITE + 64, call_code, sizeof call_code);
  tes_mm_attach(mm);
  want = (TesCodePatch){.addr = b + SITE + 5, .len = 2, .bytes = {0xcd, 0x03}};
  g_assert_cmpint(rewrite(mm, b + SITE + 7), ==, 1);
  g_assert_false(last_alone);
  want = (TesCodePatch){.addr = b + SITE + 64, .len = 7, .bytes = {1, 2, 3, 4, 5, 6, 7}};
  g_assert_cmpint(rewrite(mm, b + SITE + 64 + 7), ==, 1);
  g_assert_cmpint(rewrite(mm, b + SITE + 64 + 7), ==, 0); /* there is no call any more */
  want.addr = a + SITE + 64;
  g_assert_cmpint(rewrite(mm, a + SITE + 64 + 7), ==, 0); /* this copy is older than the file's new call */
  tes_mm_detach(mm);
  guint8 buf[2];
  g_assert_cmpint(fake_read(mm, b + SITE + 5, buf, 2, FALSE), ==, 0);
  g_assert_cmpmem(buf, 2, "\xcd\x03", 2);
  done(mm);
}

/* The call itself stays in place: it can be entered, and asked about, again. */
static void test_leaves_call(void) {
  TesMM *mm = setup(TRUE);
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE);
  want = (TesCodePatch){.addr = a + SITE, .len = 5, .bytes = {0xe9, 1, 2, 3, 4}};
  for (guint i = 0; i < 3; i++)
    g_assert_cmpint(rewrite(mm, a + SITE + 7), ==, 1);
  g_assert_cmpuint(placed, ==, 1);
  g_assert_cmpuint(undone, ==, 0);
  want.bytes[1] = 9;
  g_assert_cmpint(rewrite(mm, a + SITE + 7), ==, 0);
  g_assert_cmpuint(undone, ==, 1);
  g_assert_cmpuint(mm->patches->len, ==, 1);
  guint8 buf[7];
  g_assert_cmpint(fake_read(mm, a + SITE, buf, 7, FALSE), ==, 0);
  g_assert_cmpmem(buf, 7, "\xe9\1\2\3\4\x0f\x05", 7);
  kernel_sees_file(mm, a);
  done(mm);
}

/* Whatever the address or the answer: nothing happens. */
static void test_refusals(void) {
  TesMM *mm = setup(TRUE);
  gulong shared = map_at(mm, 0, RX, MAP_SHARED), data = map_at(mm, 0, PROT_READ, MAP_PRIVATE),
         rwx = map_at(mm, 0, RX | PROT_WRITE, MAP_PRIVATE), a = map_at(mm, 0, RX, MAP_PRIVATE);
  g_assert_cmpint(place(mm, shared), ==, 0);
  g_assert_cmpint(place(mm, data), ==, 0);
  g_assert_cmpint(place(mm, rwx), ==, 0);
  static const gulong nowhere[] = {0, 1, 2, 3, 4096, 1UL << 46, 1UL << 63, G_MAXULONG, G_MAXULONG - 1, 0xfff};
  for (guint i = 0; i < G_N_ELEMENTS(nowhere); i++)
    g_assert_cmpint(rewrite(mm, nowhere[i]), ==, 0);
  g_assert_cmpint(rewrite(mm, a), ==, 0);            /* the call would end where the mapping begins */
  g_assert_cmpint(rewrite(mm, a + SITE + 6), ==, 0); /* no call there */
  g_assert_cmpint(rewrite(mm, a + 0x1001), ==, 0);   /* crosses pages */
  kernel->vdso_source = &file->source;
  g_assert_cmpint(place(mm, a), ==, 0);
  kernel->vdso_source = NULL;
  g_assert_cmpuint(asked, ==, 0);
  /* Answers that make no sense. */
  static const struct {
    glong addr;
    guint len;
  } bad[] = {{SITE, 0},   {SITE, 17},  {SITE, 4},         {SITE + 8, 2},
             {0xfff, 16}, {0x2000, 7}, {-(glong)SITE, 7}, {SITE, G_MAXUINT}};
  for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
    want_jump(a);
    want.addr = a + (gulong)bad[i].addr;
    want.len = bad[i].len;
    g_assert_cmpint(rewrite(mm, a + SITE + 7), ==, 0);
    guest_sees(mm, a, FALSE);
  }
  g_assert_cmpuint(undone, ==, G_N_ELEMENTS(bad));
  /* A platform that knows nothing of it. */
  ops.size = offsetof(TesAspaceOps, rewrite);
  g_assert_cmpint(place(mm, a), ==, 0);
  g_assert_cmpuint(placed, ==, 0);
  done(mm);
}

static void test_undo(void) {
  TesMM *mm = setup(TRUE);
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE);
  g_assert_cmpint(place(mm, a), ==, 1);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, a, PAGES * TES_PAGE_SIZE, PROT_READ), ==, 0);
  guest_sees(mm, a, TRUE);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, a + 0x1000, 4096, PROT_READ | PROT_WRITE), ==, 0);
  guest_sees(mm, a, FALSE);
  g_assert_cmpuint(undone, ==, 1);
  g_assert_cmpint(fake_write(mm, a + 0x1000, "jit", 3, TRUE), ==, 0);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, a, PAGES * TES_PAGE_SIZE, RX), ==, 0);
  /* A page that the program has changed may be patched as well. */
  g_assert_cmpint(place(mm, a), ==, 1);
  guint8 buf[16];
  g_assert_cmpint(fake_read(mm, a + 0x1000, buf, 3, FALSE), ==, 0);
  g_assert_cmpmem(buf, 3, "jit", 3);
  g_assert_cmpint(fake_read(mm, a + SITE, buf, 2, FALSE), ==, 0);
  g_assert_cmpmem(buf, 2, "\xe9\1", 2);
  /* A tracer's write ends it, and neighbours keep theirs. */
  g_assert_cmpuint(tes_mm_poke(mm, a + SITE + 1, "\x55", 1), ==, 1);
  g_assert_cmpuint(undone, ==, 2);
  g_assert_cmpint(fake_read(mm, a + SITE, buf, 8, FALSE), ==, 0);
  g_assert_cmpmem(buf, 8, "\xb8\x55\0\0\0\x0f\x05\xc3", 8);
  g_assert_cmpuint(tes_mm_copy_in(mm, buf, a + SITE, 8), ==, 8);
  g_assert_cmpmem(buf, 8, "\xb8\x55\0\0\0\x0f\x05\xc3", 8);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a + 0x1000, 4096, MADV_DONTNEED), ==, 0);
  guest_sees(mm, a, FALSE);
  g_assert_cmpint(place(mm, a), ==, 1);
  g_assert_cmpint(tes_mm_madvise(mm, NULL, a, PAGES * TES_PAGE_SIZE, MADV_DONTNEED), ==, 0);
  guest_sees(mm, a, FALSE);
  kernel_sees_file(mm, a);
  g_assert_cmpuint(undone, ==, 3);
  done(mm);
}

static void test_unmap(void) {
  TesMM *mm = setup(TRUE);
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE);
  g_assert_cmpint(place(mm, a), ==, 1);
  g_assert_cmpuint(map_at(mm, a, RX, MAP_PRIVATE | MAP_FIXED), ==, a);
  g_assert_cmpuint(undone, ==, 1);
  guest_sees(mm, a, FALSE);
  g_assert_cmpint(place(mm, a), ==, 1);
  g_assert_cmpint(tes_mm_munmap(mm, a, PAGES * TES_PAGE_SIZE), ==, 0);
  g_assert_cmpuint(undone, ==, 2);
  g_assert_cmpuint(mm->rewrites, ==, 0);
  map_at(mm, a, RX, MAP_PRIVATE | MAP_FIXED);
  guest_sees(mm, a, FALSE);
  kernel_sees_file(mm, a);
  /* Code that moves is as it was. */
  g_assert_cmpint(place(mm, a), ==, 1);
  gulong to = a - (1UL << 30);
  g_assert_cmpint(tes_mm_mremap(mm, NULL, a, PAGES * TES_PAGE_SIZE, PAGES * TES_PAGE_SIZE,
                                MREMAP_MAYMOVE | MREMAP_FIXED, to),
                  ==, (glong)to);
  guest_sees(mm, to, FALSE);
  kernel_sees_file(mm, to);
  g_assert_cmpuint(undone, ==, 3);
  /* The file is cut: the page goes, and with it the patch; a new one at the same place starts afresh. */
  g_assert_cmpint(place(mm, to), ==, 1);
  file_source_truncate(file, 4096);
  file_source_truncate(file, PAGES * TES_PAGE_SIZE);
  guint8 byte;
  g_assert_cmpuint(tes_mm_copy_in(mm, &byte, to + SITE, 1), ==, 1);
  g_assert_cmpint(byte, ==, file->window[SITE]);
  memcpy(file->window + SITE, call_code, sizeof call_code);
  guest_sees(mm, to, FALSE);
  g_assert_cmpint(place(mm, to), ==, 1);
  guest_sees(mm, to, TRUE);
  g_assert_cmpuint(mm->patches->len, ==, 1);
  done(mm);
}

static void test_fork(void) {
  TesMM *mm = setup(TRUE), *child;
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE);
  g_assert_cmpint(place(mm, a), ==, 1);
  g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
  tes_mm_attach(child);
  guest_sees(child, a, TRUE);
  kernel_sees_file(child, a);
  pinned_sees_file(child, a);
  g_assert_cmpint(tes_mm_mprotect(child, NULL, a, PAGES * TES_PAGE_SIZE, RX | PROT_WRITE), ==, 0);
  guest_sees(child, a, FALSE);
  guest_sees(mm, a, TRUE);
  g_assert_cmpint(fake_write(child, a + SITE, "mine", 4, FALSE), ==, 0);
  guest_sees(mm, a, TRUE);
  /* Poking at a neighbour copies a block of shared pages; those that are patched stay so. */
  TesMM *second;
  g_assert_cmpint(tes_mm_fork(mm, NULL, &second), ==, 0);
  tes_mm_attach(second);
  g_assert_cmpuint(tes_mm_poke(second, a, "\x90", 1), ==, 1);
  guest_sees(second, a, TRUE);
  guint8 buf[8];
  g_assert_cmpuint(tes_mm_copy_in(second, buf, a + SITE, 8), ==, 8);
  g_assert_cmpmem(buf, 8, call_code, 8);
  g_assert_cmpint(tes_mm_unpatch_all(second), ==, 0);
  guest_sees(second, a, FALSE);
  g_assert_cmpint(place(second, a), ==, 0);
  guest_sees(mm, a, TRUE);
  tes_mm_detach(second);
  tes_mm_unref(second);
  tes_mm_detach(child);
  tes_mm_unref(child);
  g_assert_cmpint(tes_mm_unpatch_all(mm), ==, 0);
  guest_sees(mm, a, FALSE);
  g_assert_cmpint(tes_mm_fork(mm, NULL, &child), ==, 0);
  g_assert_cmpint(place(child, a), ==, 0); /* inherited */
  tes_mm_unref(child);
  done(mm);
}

/* Without `clone` a child would jump to what is not there: such a platform gets no patches. */
static void test_needs_clone(void) {
  TesMM *mm = setup(FALSE);
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE);
  g_assert_cmpint(place(mm, a), ==, 0);
  g_assert_cmpuint(asked, ==, 0);
  done(mm);
}

/* As many sites as there are: the limit holds, what was placed works, all can be undone. */
static void test_limits(void) {
  TesMM *mm = setup(TRUE);
  gsize len = 64 * TES_PAGE_SIZE;
  glong a = tes_mm_mmap(mm, &(TesMmapArgs){.len = len,
                                           .prot = PROT_READ | PROT_WRITE,
                                           .flags = MAP_PRIVATE | MAP_ANONYMOUS,
                                           .limit_as = RLIM_INFINITY});
  g_autofree guint8 *code = g_malloc(len), *back = g_malloc(len);
  for (gsize i = 0; i < len; i++)
    code[i] = i % 2 ? 0x05 : 0x0f;
  g_assert_cmpuint(tes_mm_copy_out(mm, (gulong)a, code, len), ==, len);
  g_assert_cmpint(tes_mm_mprotect(mm, NULL, (gulong)a, len, RX), ==, 0);
  guint n = 0;
  for (gulong ip = (gulong)a + 2; ip < (gulong)a + len; ip += 32) {
    want = (TesCodePatch){.addr = ip - 2, .len = 2, .bytes = {0xff, 0xff}};
    n += (guint)rewrite(mm, ip);
  }
  g_assert_cmpuint(n, ==, 4096);
  g_assert_cmpint(fake_read(mm, (gulong)a, back, 2, FALSE), ==, 0);
  g_assert_cmpint(back[0], ==, 0xff);
  g_assert_cmpuint(tes_mm_copy_in(mm, back, (gulong)a, len), ==, len);
  g_assert_cmpmem(code, len, back, len);
  /* Overlapping what is there. */
  mm->rewrites = 0;
  want = (TesCodePatch){.addr = (gulong)a + 1, .len = 3, .bytes = {1, 2, 3}};
  g_assert_cmpint(rewrite(mm, (gulong)a + 4), ==, 0);
  mm->rewrites = n;
  g_assert_cmpint(tes_mm_unpatch_all(mm), ==, 0);
  g_assert_cmpuint(mm->rewrites, ==, 0);
  g_assert_cmpint(fake_read(mm, (gulong)a, back, len, FALSE), ==, 0);
  g_assert_cmpmem(code, len, back, len);
  done(mm);
}

/* The host has no mappings left: placing and undoing still come out right at the next fault. */
static void test_host_refuses(void) {
  TesMM *mm = setup(TRUE);
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE);
  ((FakeAspace *)mm->aspace)->fail_after = 1;
  g_assert_cmpint(place(mm, a), ==, 1);
  ((FakeAspace *)mm->aspace)->fail_after = 0;
  guest_sees(mm, a, TRUE);
  ((FakeAspace *)mm->aspace)->fail_after = 1;
  g_assert_cmpint(tes_mm_unpatch_all(mm), ==, 0);
  ((FakeAspace *)mm->aspace)->fail_after = 0;
  guest_sees(mm, a, FALSE);
  done(mm);
}

/* ---- Another thread looks on ---- */

typedef struct {
  TesMM *mm;
  gulong site;
  gint stop, bad, looks;
} Watcher;

static gpointer watch(gpointer data) {
  Watcher *w = data;
  while (!g_atomic_int_get(&w->stop)) {
    guint8 guest[7], kern[7];
    g_assert_cmpint(fake_read(w->mm, w->site, guest, 7, FALSE), ==, 0);
    if (memcmp(guest, call_code, 7) != 0 && memcmp(guest, "\xe9\1\2\3\4\xcc\xcc", 7) != 0)
      g_atomic_int_inc(&w->bad);
    g_assert_cmpuint(tes_mm_copy_in(w->mm, kern, w->site, 7), ==, 7);
    if (memcmp(kern, call_code, 7) != 0)
      g_atomic_int_inc(&w->bad);
    g_atomic_int_inc(&w->looks);
  }
  return NULL;
}

static void test_threads(void) {
  TesMM *mm = setup(TRUE);
  gulong a = map_at(mm, 0, RX, MAP_PRIVATE);
  Watcher w = {.mm = mm, .site = a + SITE};
  GThread *t = g_thread_new("watch", watch, &w);
  for (guint i = 0; i < 3000 || (g_atomic_int_get(&w.looks) < 100 && i < 1000000); i++) {
    g_assert_cmpint(place(mm, a), ==, 1);
    g_assert_cmpint(tes_mm_unpatch_all(mm), ==, 0);
    mm->no_rewrite = FALSE;
  }
  g_atomic_int_set(&w.stop, 1);
  g_thread_join(t);
  g_assert_cmpint(w.bad, ==, 0);
  g_assert_cmpint(w.looks, >, 0);
  done(mm);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/rewrite/place", test_place);
  g_test_add_func("/rewrite/leaves-call", test_leaves_call);
  g_test_add_func("/rewrite/refusals", test_refusals);
  g_test_add_func("/rewrite/undo", test_undo);
  g_test_add_func("/rewrite/unmap", test_unmap);
  g_test_add_func("/rewrite/fork", test_fork);
  g_test_add_func("/rewrite/needs-clone", test_needs_clone);
  g_test_add_func("/rewrite/limits", test_limits);
  g_test_add_func("/rewrite/host-refuses", test_host_refuses);
  g_test_add_func("/rewrite/threads", test_threads);
  return g_test_run();
}
