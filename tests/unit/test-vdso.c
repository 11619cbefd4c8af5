/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's vDSO, run in this process: its symbols are where a C library looks for them, and its clocks are the timekeeper's. */
#include <core/task/task.h>
#include <core/time/timekeeper.h>
#include <core/vdso/vdso.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

typedef struct {
  guchar *image;
  TesTimekeeper *tk;
  int (*clock_gettime)(int, struct timespec *);
  int (*gettimeofday)(struct timeval *, struct timezone *);
  time_t (*time)(time_t *);
  int (*getcpu)(guint *, guint *, void *);
  int (*clock_getres)(int, struct timespec *);
} Fixture;

static TesVdsoParams *params(Fixture *f) {
  return (TesVdsoParams *)(f->image + TES_VDSO_IMAGE_PAGES * TES_PAGE_SIZE);
}

/* Follows the dynamic section, as a dynamic loader does. */
static gpointer find(Fixture *f, const char *name) {
  const Elf64_Ehdr *h = (const Elf64_Ehdr *)f->image;
  const Elf64_Phdr *ph = (const Elf64_Phdr *)(f->image + h->e_phoff);
  const Elf64_Sym *sym = NULL;
  const char *strings = NULL;
  const Elf64_Word *hash = NULL;
  for (guint i = 0; i < h->e_phnum; i++)
    for (const Elf64_Dyn *d = (const Elf64_Dyn *)(f->image + ph[i].p_vaddr);
         ph[i].p_type == PT_DYNAMIC && d->d_tag; d++) {
      if (d->d_tag == DT_SYMTAB)
        sym = (const Elf64_Sym *)(f->image + d->d_un.d_ptr);
      else if (d->d_tag == DT_STRTAB)
        strings = (const char *)f->image + d->d_un.d_ptr;
      else if (d->d_tag == DT_HASH)
        hash = (const Elf64_Word *)(f->image + d->d_un.d_ptr);
    }
  g_assert_true(sym && strings && hash);
  for (guint i = 0; i < hash[1]; i++)
    if (g_str_equal(strings + sym[i].st_name, name))
      return f->image + sym[i].st_value;
  g_error("no symbol %s", name);
}

static void set_up(Fixture *f, gconstpointer unused) {
  gsize size = (TES_VDSO_IMAGE_PAGES + 1) * TES_PAGE_SIZE;
  f->image = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  g_assert_true(f->image != MAP_FAILED);
  memcpy(f->image, tes_vdso_image, tes_vdso_image_size);
  f->tk = tes_timekeeper_new();
  tes_timekeeper_set_clocks(f->tk, NULL, NULL);
  tes_timekeeper_publish_to(f->tk, params(f), 2);
  f->clock_gettime = find(f, "__vdso_clock_gettime");
  f->gettimeofday = find(f, "__vdso_gettimeofday");
  f->time = find(f, "__vdso_time");
  f->getcpu = find(f, "__vdso_getcpu");
  f->clock_getres = find(f, "__vdso_clock_getres");
}

static void tear_down(Fixture *f, gconstpointer unused) {
  munmap(f->image, (TES_VDSO_IMAGE_PAGES + 1) * TES_PAGE_SIZE);
  tes_timekeeper_free(f->tk);
}

static TesTime read_vdso(Fixture *f, int id) {
  struct timespec ts;
  g_assert_cmpint(f->clock_gettime(id, &ts), ==, 0);
  g_assert_true(tes_timespec_valid(&ts));
  return tes_timespec_to_ns(&ts);
}

/* What a trap would do: make new parameters when the old ones have expired. */
static TesNow serve(Fixture *f) {
  TesNow now;
  tes_timekeeper_now(f->tk, &now);
  return now;
}

static void test_image(void) {
  const Elf64_Ehdr *h = (const Elf64_Ehdr *)tes_vdso_image;
  g_assert_cmpmem(h->e_ident, SELFMAG, ELFMAG, SELFMAG);
  g_assert_cmpint(h->e_type, ==, ET_DYN);
  g_assert_cmpuint(tes_vdso_image_size, <=, TES_VDSO_IMAGE_PAGES * TES_PAGE_SIZE);
}

static void test_clocks(Fixture *f, gconstpointer unused) {
  static const int ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME};
  for (guint i = 0; i < 300000; i++) {
    int id = ids[i % 3];
    TesNow a = serve(f);
    TesTime t = read_vdso(f, id);
    TesNow b = serve(f);
    if (!params(f)->usable)
      continue;
    TesTime low = id == CLOCK_REALTIME ? a.real : id == CLOCK_BOOTTIME ? a.boot : a.mono;
    TesTime high = id == CLOCK_REALTIME ? b.real : id == CLOCK_BOOTTIME ? b.boot : b.mono;
    if (id == CLOCK_MONOTONIC) {
      g_assert_cmpint(t, >=, low);
      g_assert_cmpint(t, <=, high);
    } else if (b.mono - a.mono < 20000) {
      g_assert_cmpint(t, >=, low - 20000);
      g_assert_cmpint(t, <=, high + 20000);
    }
  }
}

static void test_others(Fixture *f, gconstpointer unused) {
  struct timeval tv;
  struct timezone tz = {1, 1};
  struct timespec res;
  time_t stored;
  g_assert_cmpint(f->gettimeofday(&tv, &tz), ==, 0);
  g_assert_cmpint(tz.tz_minuteswest, ==, 0);
  g_assert_cmpint(f->gettimeofday(NULL, NULL), ==, 0);
  time_t now = f->time(&stored);
  g_assert_cmpint(now, ==, stored);
  g_assert_cmpint(ABS(now - tv.tv_sec), <=, 1);
  g_assert_cmpint(f->clock_getres(CLOCK_MONOTONIC, &res), ==, 0);
  g_assert_cmpint(res.tv_nsec, ==, 1);
  g_assert_cmpint(f->clock_getres(CLOCK_MONOTONIC_COARSE, NULL), ==, 0);
  g_assert_cmpint(f->clock_getres(999, &res), ==, -EINVAL);
  g_assert_cmpint(f->clock_gettime(999, &res), ==, -EINVAL);
  TesTime fine = read_vdso(f, CLOCK_MONOTONIC), coarse = read_vdso(f, CLOCK_MONOTONIC_COARSE);
  g_assert_cmpint(coarse, >, fine - 10 * TES_COARSE_NS);
  g_assert_cmpint(coarse, <=, read_vdso(f, CLOCK_MONOTONIC));
  g_assert_cmpint(read_vdso(f, CLOCK_PROCESS_CPUTIME_ID), >=, 0); /* by system call */
  guint cpu = 99, node = 99;
  for (guint cores = 1; cores < 4; cores++) {
    tes_timekeeper_publish_to(f->tk, params(f), cores);
    g_assert_cmpint(f->getcpu(&cpu, &node, NULL), ==, 0);
    g_assert_cmpuint(cpu, <, cores);
    g_assert_cmpuint(node, ==, 0);
  }
}

static gint stop;

static gpointer refresh(gpointer data) {
  Fixture *f = data;
  while (!g_atomic_int_get(&stop)) {
    tes_timekeeper_refresh(f->tk);
    g_usleep(200);
  }
  return NULL;
}

static TesTime last_seen; /* by any thread; atomic */

static gpointer read_many(gpointer data) {
  Fixture *f = data;
  for (guint i = 0; i < 1000000; i++) {
    TesTime seen = __atomic_load_n(&last_seen, __ATOMIC_SEQ_CST);
    if (params(f)->usable == 0)
      serve(f);
    TesTime now = i & 1 ? read_vdso(f, CLOCK_MONOTONIC) : serve(f).mono;
    g_assert_cmpint(now, >=, seen);
    while (now > seen &&
           !__atomic_compare_exchange_n(&last_seen, &seen, now, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      ;
  }
  return NULL;
}

/* Readers never see two halves of two parameter sets, nor time go back between kernel, threads and guest (C2). The host's
 * answer, which the fall-back gives here, is within the line's error only: so parameters are kept fresh. */
static void test_seqlock(Fixture *f, gconstpointer unused) {
  g_usleep(5000);
  serve(f);
  if (!params(f)->usable) {
    g_test_skip("no usable time stamp counter");
    return;
  }
  GThread *r = g_thread_new("refresh", refresh, f), *t[2];
  for (guint i = 0; i < 2; i++)
    t[i] = g_thread_new("read", read_many, f);
  for (guint i = 0; i < 2; i++)
    g_thread_join(t[i]);
  g_atomic_int_set(&stop, 1);
  g_thread_join(r);
}

static void test_cost(Fixture *f, gconstpointer unused) {
  g_usleep(5000);
  serve(f);
  struct timespec ts;
  gint64 start = g_get_monotonic_time();
  for (guint i = 0; i < 1000000; i++)
    f->clock_gettime(CLOCK_MONOTONIC, &ts);
  g_test_message("clock_gettime: %" G_GINT64_FORMAT " ns", (g_get_monotonic_time() - start) / 1000);
}

#define ADD(name, fn) g_test_add("/vdso/" name, Fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/vdso/image", test_image);
  ADD("clocks", test_clocks);
  ADD("others", test_others);
  ADD("seqlock", test_seqlock);
  ADD("cost", test_cost);
  return g_test_run();
}
