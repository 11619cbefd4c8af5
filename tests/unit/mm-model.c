/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on core/mm against a model; see mm-model.h. */
#include "mm-model.h"
#include <unistd.h>

#define BASE (0x40000000UL - 300 * TES_PAGE_SIZE) /* the arena crosses leaves and a directory */
#define N 1500
#define PROCS 4
#define RW (PROT_READ | PROT_WRITE)

/* ---- A file ---- */

static int piece(TesMapSource *s, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  FileSource *f = (FileSource *)s;
  f->pieces++;
  gsize size = TES_PAGE_UP(__atomic_load_n(&f->size, __ATOMIC_ACQUIRE));
  if ((gsize)off >= size)
    return -EFAULT;
  /* Pieces of at most seven pages, so that joining them is tested. */
  *out = (TesMapPiece){f->fd, off, f->window + off, MIN(MIN(max, size - (gsize)off), 7 * TES_PAGE_SIZE)};
  return 0;
}
static void file_ref(TesMapSource *s) { g_atomic_int_inc(&((FileSource *)s)->refs); }
static void file_unref(TesMapSource *s) {
  FileSource *f = (FileSource *)s;
  if (!g_atomic_int_dec_and_test(&f->refs))
    return;
  tes_map_source_clear(s);
  munmap(f->window, f->window_size);
  close(f->fd);
  g_free(f);
}
static const TesMapSourceOps file_ops = {sizeof(TesMapSourceOps), piece, file_ref, file_unref};

FileSource *file_source_new(gsize size, gsize window_size) {
  FileSource *f = g_new0(FileSource, 1);
  tes_map_source_init(&f->source, &file_ops);
  f->refs = 1;
  f->fd = memfd_create("file", MFD_CLOEXEC);
  f->size = size;
  f->window_size = window_size;
  g_assert(ftruncate(f->fd, (off_t)size) == 0);
  f->window = mmap(NULL, window_size, RW, MAP_SHARED, f->fd, 0);
  g_assert(f->window != MAP_FAILED);
  return f;
}

void file_source_truncate(FileSource *f, gsize size) {
  gsize old = f->size;
  __atomic_store_n(&f->size, size, __ATOMIC_RELEASE);
  g_assert(ftruncate(f->fd, (off_t)size) == 0);
  if (size < old)
    tes_map_source_invalidate(&f->source, (goffset)TES_PAGE_UP(size),
                              (goffset)(TES_PAGE_UP(old) - TES_PAGE_UP(size)), TRUE);
}

/* ---- The model ---- */

typedef struct {
  gint refs;
  guint64 val[N];
} Shared;
typedef struct {
  gboolean mapped, noreserve;
  guint prot;
  guint64 val;
  Shared *shared; /* NULL: private */
  guint index;    /* page of it */
} Page;
typedef struct {
  TesMM *mm;
  Page page[N];
} Proc;

static Proc *procs[PROCS];
static FileSource *private_file;
static Shared *shared_file_model;
static FileSource *shared_file;
static guint64 next_val = 1;

static void page_clear(Page *p) {
  if (p->shared && --p->shared->refs == 0)
    g_free(p->shared);
  *p = (Page){0};
}
static guint64 *page_val(Page *p) { return p->shared ? &p->shared->val[p->index] : &p->val; }
static gulong addr_of(guint i) { return BASE + i * TES_PAGE_SIZE; }

static void check_page(Proc *p, guint i) {
  Page *m = &p->page[i];
  guint64 got[2] = {~0ULL, ~0ULL};
  gboolean readable = m->mapped && m->prot != PROT_NONE, blind = g_test_rand_bit();
  gulong a = addr_of(i);
  for (guint k = 0; k < 2; k++) {
    gulong at = a + k * (TES_PAGE_SIZE - 8);
    if (g_test_rand_bit()) {
      g_assert_cmpuint(tes_mm_copy_in(p->mm, &got[k], at, 8), ==, readable ? 8 : 0);
    } else {
      int sig = fake_read(p->mm, at, &got[k], 8, blind);
      g_assert_cmpint(sig, ==, readable ? 0 : SIGSEGV);
    }
    if (readable)
      g_assert_cmpuint(got[k], ==, *page_val(m));
  }
}

static void write_page(Proc *p, guint i) {
  Page *m = &p->page[i];
  gboolean ok = m->mapped && (m->prot & PROT_WRITE), kernel = g_test_rand_bit(), blind = g_test_rand_bit();
  guint64 v = next_val++;
  for (guint k = 0; k < 2; k++) {
    gulong at = addr_of(i) + k * (TES_PAGE_SIZE - 8);
    if (kernel)
      g_assert_cmpuint(tes_mm_copy_out(p->mm, at, &v, 8), ==, ok ? 8 : 0);
    else
      g_assert_cmpint(fake_write(p->mm, at, &v, 8, blind), ==, ok ? 0 : SIGSEGV);
  }
  if (ok)
    *page_val(m) = v;
}

static guint random_prot(void) {
  static const guint prots[] = {PROT_NONE, PROT_READ, RW, RW, RW, RW | PROT_EXEC};
  return prots[g_test_rand_int_range(0, G_N_ELEMENTS(prots))];
}

static void do_map(Proc *p, guint s, guint n, gboolean files) {
  guint kind = (guint)g_test_rand_int_range(0, files ? 5 : 3), prot = random_prot();
  Shared *sh = kind == 1 ? g_new0(Shared, 1) : kind == 3 ? shared_file_model : NULL;
  TesMmapArgs a = {.addr = addr_of(s),
                   .len = n * TES_PAGE_SIZE,
                   .prot = prot,
                   .limit_as = RLIM_INFINITY,
                   .flags = MAP_FIXED | (sh ? MAP_SHARED : MAP_PRIVATE)};
  if (kind == 2)
    a.flags |= MAP_NORESERVE;
  if (kind <= 2)
    a.flags |= MAP_ANONYMOUS;
  guint first = kind >= 3 ? (guint)g_test_rand_int_range(0, (gint)(N - n + 1)) : 0;
  if (kind == 4 && g_test_rand_bit())
    a.flags |= MAP_DENYWRITE; /* as a dynamic loader does: the platform may hear of it later */
  if (kind >= 3) {
    a.source = kind == 3 ? &shared_file->source : &private_file->source;
    a.off = (goffset)(first * TES_PAGE_SIZE);
  }
  g_assert_cmpint(tes_mm_mmap(p->mm, &a), ==, (glong)addr_of(s));
  for (guint i = 0; i < n; i++) {
    Page *m = &p->page[s + i];
    page_clear(m);
    *m = (Page){.mapped = TRUE,
                .prot = prot,
                .noreserve = kind == 2,
                .shared = sh,
                .index = kind == 0 || kind == 2 ? 0 : first + i};
    if (sh)
      sh->refs++;
    if (kind == 4 && first + i > 0)
      m->val = ((guint64)(first + i) << 32) + 7;
  }
}

static void do_unmap(Proc *p, guint s, guint n) {
  g_assert_cmpint(tes_mm_munmap(p->mm, addr_of(s), n * TES_PAGE_SIZE), ==, 0);
  for (guint i = s; i < s + n; i++)
    page_clear(&p->page[i]);
}

static void do_protect(Proc *p, guint s, guint n) {
  guint prot = random_prot(), i = s;
  int r = tes_mm_mprotect(p->mm, NULL, addr_of(s), n * TES_PAGE_SIZE, prot);
  for (; i < s + n && p->page[i].mapped; i++)
    p->page[i].prot = prot;
  g_assert_cmpint(r, ==, i < s + n ? -ENOMEM : 0);
}

static void do_dontneed(Proc *p, guint s, guint n) {
  gboolean hole = FALSE;
  int r = tes_mm_madvise(p->mm, NULL, addr_of(s), n * TES_PAGE_SIZE, MADV_DONTNEED);
  for (guint i = s; i < s + n; i++) {
    Page *m = &p->page[i];
    hole |= !m->mapped;
    if (m->mapped && !m->shared)
      m->val = m->index ? ((guint64)m->index << 32) + 7 : 0;
  }
  g_assert_cmpint(r, ==, hole ? -ENOMEM : 0);
}

/* A move of n pages to d, only if the model's pages are of one kind. */
static void do_move(Proc *p, guint s, guint n) {
  guint d = (guint)g_test_rand_int_range(0, (gint)(N - n));
  glong r = tes_mm_mremap(p->mm, NULL, addr_of(s), n * TES_PAGE_SIZE, n * TES_PAGE_SIZE,
                          MREMAP_MAYMOVE | MREMAP_FIXED, addr_of(d));
  if (r == -EINVAL) {
    g_assert(d < s + n && s < d + n);
    return;
  }
  if (r == -EFAULT) {
    /* What lay at the target has gone all the same, if the source was mapped at all. */
    if (p->page[s].mapped)
      for (guint i = d; i < d + n; i++)
        page_clear(&p->page[i]);
    return;
  }
  g_assert_cmpint(r, ==, (glong)addr_of(d));
  for (guint i = 0; i < n; i++) {
    page_clear(&p->page[d + i]);
    p->page[d + i] = p->page[s + i];
    p->page[s + i] = (Page){0};
    g_assert(p->page[d + i].mapped);
  }
}

static void do_exit(guint slot) {
  Proc *p = procs[slot];
  for (guint i = 0; i < N; i++)
    page_clear(&p->page[i]);
  tes_mm_detach(p->mm);
  tes_mm_unref(p->mm);
  g_free(p);
  procs[slot] = NULL;
}

static void do_fork(Proc *p) {
  guint slot = (guint)g_test_rand_int_range(0, PROCS);
  if (procs[slot] == p)
    return;
  if (procs[slot])
    do_exit(slot);
  Proc *c = g_memdup2(p, sizeof *p);
  for (guint i = 0; i < N; i++)
    if (c->page[i].shared)
      c->page[i].shared->refs++;
  g_assert_cmpint(tes_mm_fork(p->mm, NULL, &c->mm), ==, 0);
  tes_mm_attach(c->mm);
  procs[slot] = c;
}

static void step(Proc *p, gboolean files) {
  guint n = g_test_rand_int_range(0, 8) == 0 ? (guint)g_test_rand_int_range(1, N / 2)
                                             : (guint)g_test_rand_int_range(1, 40);
  guint s = (guint)g_test_rand_int_range(0, (gint)(N - n + 1));
  switch (g_test_rand_int_range(0, 20)) {
  case 0:
  case 1:
  case 2:
    do_map(p, s, n, files);
    break;
  case 3:
    do_unmap(p, s, n);
    break;
  case 4:
  case 5:
    do_protect(p, s, n);
    break;
  case 6:
    do_fork(p);
    break;
  case 7:
    do_dontneed(p, s, n);
    break;
  case 8:
  case 9:
    do_move(p, s, MIN(n, 20));
    break;
  case 10:
  case 11:
  case 12:
  case 13:
  case 14:
    for (guint i = 0; i < MIN(n, 40); i++)
      write_page(p, s + i);
    break;
  default:
    for (guint i = 0; i < MIN(n, 60); i++)
      check_page(p, s + i);
  }
}

void model_run(TesKernel *k, guint steps, gboolean files) {
  GError *error = NULL;
  procs[0] = g_new0(Proc, 1);
  procs[0]->mm = tes_mm_new(k, &error);
  tes_mm_attach(procs[0]->mm);
  private_file = file_source_new(N * TES_PAGE_SIZE, N * TES_PAGE_SIZE);
  shared_file = file_source_new(N * TES_PAGE_SIZE, N * TES_PAGE_SIZE);
  shared_file_model = g_new0(Shared, 1);
  shared_file_model->refs = 1;
  for (guint i = 1; i < N; i++)
    for (guint e = 0; e < 2; e++)
      *(guint64 *)(gpointer)(private_file->window + i * TES_PAGE_SIZE + e * (TES_PAGE_SIZE - 8)) =
          ((guint64)i << 32) + 7;
  for (guint i = 0; i < steps; i++) {
    Proc *p = procs[g_test_rand_int_range(0, PROCS)];
    if (p)
      step(p, files);
  }
  for (guint s = 0; s < PROCS; s++) {
    if (!procs[s])
      continue;
    for (guint i = 0; i < N; i++)
      check_page(procs[s], i);
    do_exit(s);
  }
  private_file->source.ops->unref(&private_file->source);
  shared_file->source.ops->unref(&shared_file->source);
  g_free(shared_file_model);
}
