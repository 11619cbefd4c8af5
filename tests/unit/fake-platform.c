/* SPDX-License-Identifier: Apache-2.0 */
/* The platform of fake-platform.h. */
#include "fake-platform.h"

static guint n_ops; /* atomic */

static gpointer key_of(gulong addr) { return GSIZE_TO_POINTER(addr >> TES_PAGE_SHIFT); }

static void remap(FakeAspace *f, gulong addr, gsize len, const FakePage *p) {
  void *at = f->window + addr, *r;
  if (f->dry)
    return;
  if (p)
    r = mmap(at, len, (int)p->prot, MAP_SHARED | MAP_FIXED, p->fd, p->off);
  else
    r = mmap(at, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  g_assert(r == at);
}

static void forget(FakeAspace *f, gulong addr, gsize len) {
  if (len >> TES_PAGE_SHIFT < g_hash_table_size(f->pages)) {
    for (gulong a = addr; a < addr + len; a += TES_PAGE_SIZE)
      g_hash_table_remove(f->pages, key_of(a));
    return;
  }
  GHashTableIter it;
  gpointer k;
  g_hash_table_iter_init(&it, f->pages);
  while (g_hash_table_iter_next(&it, &k, NULL))
    if (GPOINTER_TO_SIZE(k) >= addr >> TES_PAGE_SHIFT && GPOINTER_TO_SIZE(k) < (addr + len) >> TES_PAGE_SHIFT)
      g_hash_table_iter_remove(&it);
}

static void do_op(FakeAspace *f, const TesMapOp *op) {
  __atomic_fetch_add(&n_ops, 1, __ATOMIC_RELAXED);
  g_assert((op->addr | op->len | (gulong)op->off) % TES_PAGE_SIZE == 0 && op->len > 0);
  g_assert(op->addr >= 0x10000 && op->addr + op->len <= FAKE_TOP);
  if (op->kind == TES_MAP_PROTECT) {
    for (gulong a = op->addr; a < op->addr + op->len; a += TES_PAGE_SIZE) {
      FakePage *p = g_hash_table_lookup(f->pages, key_of(a));
      if (!p)
        continue;
      p->prot = op->prot;
      g_assert(f->dry || mprotect(f->window + a, TES_PAGE_SIZE, op->prot) == 0);
    }
    return;
  }
  forget(f, op->addr, op->len);
  if (op->kind == TES_MAP_UNMAP) {
    remap(f, op->addr, op->len, NULL);
    return;
  }
  FakePage p = {op->fd, op->off, op->prot};
  remap(f, op->addr, op->len, &p);
  for (gulong a = op->addr; a < op->addr + op->len; a += TES_PAGE_SIZE, p.off += (goffset)TES_PAGE_SIZE)
    g_hash_table_insert(f->pages, key_of(a), g_memdup2(&p, sizeof p));
}

static int fake_apply(TesAspace *a, const TesMapOp *ops, gsize n) {
  FakeAspace *f = (FakeAspace *)a;
  g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&f->lock);
  for (gsize i = 0; i < n; i++) {
    if (f->fail_after && ops[i].kind != TES_MAP_UNMAP && --f->fail_after == 0) {
      f->fail_after = 1;
      return -ENOMEM;
    }
    do_op(f, &ops[i]);
  }
  return 0;
}

static FakeAspace *aspace_make(const TesAspaceOps *ops, TesPlatform *p) {
  FakeAspace *f = g_new0(FakeAspace, 1);
  f->base = (TesAspace){ops, p};
  f->pages = g_hash_table_new_full(NULL, NULL, NULL, g_free);
  f->window = mmap(NULL, FAKE_TOP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  g_assert(f->window != MAP_FAILED);
  return f;
}

static TesAspace *fake_clone(TesAspace *a, const TesMapOp *ops, gsize n, GError **error) {
  FakeAspace *src = (FakeAspace *)a, *f = aspace_make(a->ops, a->platform);
  fake_apply(a, ops, n);
  GHashTableIter it;
  gpointer k, v;
  g_hash_table_iter_init(&it, src->pages);
  while (g_hash_table_iter_next(&it, &k, &v)) {
    g_hash_table_insert(f->pages, k, g_memdup2(v, sizeof(FakePage)));
    remap(f, GPOINTER_TO_SIZE(k) << TES_PAGE_SHIFT, TES_PAGE_SIZE, v);
  }
  return &f->base;
}

static void fake_free(TesAspace *a) {
  FakeAspace *f = (FakeAspace *)a;
  munmap(f->window, FAKE_TOP);
  g_hash_table_unref(f->pages);
  g_mutex_clear(&f->lock);
  g_free(f);
}

/* Every other time there is one. */
static TesAspace *fake_spare(TesAspace *a, gboolean rewritten) {
  static guint asked;
  return asked++ % 2 ? &aspace_make(a->ops, a->platform)->base : NULL;
}

static const TesAspaceOps ops_clone = {.size = sizeof(TesAspaceOps),
                                       .apply = fake_apply,
                                       .clone = fake_clone,
                                       .free = fake_free,
                                       .spare = fake_spare};
static const TesAspaceOps ops_replay = {sizeof(TesAspaceOps), fake_apply, NULL, fake_free};

static TesAspace *new_clone(TesPlatform *p, GError **e) { return &aspace_make(&ops_clone, p)->base; }
static TesAspace *new_replay(TesPlatform *p, GError **e) { return &aspace_make(&ops_replay, p)->base; }
static const TesPlatformOps platform_clone = {.size = sizeof(TesPlatformOps), .aspace_new = new_clone};
static const TesPlatformOps platform_replay = {.size = sizeof(TesPlatformOps), .aspace_new = new_replay};

TesKernel *fake_kernel_new(gboolean with_clone, guint64 memory_limit) {
  TesKernel *k = g_new0(TesKernel, 1);
  k->platform = g_new0(TesPlatform, 1);
  k->platform->ops = with_clone ? &platform_clone : &platform_replay;
  k->platform->min_addr = 0x10000;
  k->platform->max_addr = FAKE_TOP;
  GError *error = NULL;
  k->memfile = tes_memfile_new(memory_limit, &error);
  g_assert_no_error(error);
  return k;
}

void fake_kernel_free(TesKernel *k) {
  tes_memfile_free(k->memfile);
  g_free(k->platform);
  g_free(k);
}

/* One page's worth; the guest instruction is tried again after each resolved fault. */
static int access_page(TesMM *mm, gulong addr, guint8 *buf, gsize n, gboolean write, gboolean blind) {
  FakeAspace *f = (FakeAspace *)mm->aspace;
  for (guint i = 0; i < 64; i++) {
    g_mutex_lock(&f->lock);
    FakePage *p = g_hash_table_lookup(f->pages, key_of(addr));
    gboolean mapped = p != NULL, ok = p && p->prot != PROT_NONE && (!write || (p->prot & PROT_WRITE));
    g_mutex_unlock(&f->lock);
    /* Another thread may unmap it, or the file may end: then it is a fault after all. */
    if (ok && tes_safe_copy(write ? f->window + addr : buf, write ? buf : f->window + addr, n) == 0)
      return 0;
    int code, sig = tes_mm_fault(mm, NULL, addr,
                                 blind   ? 0
                                 : write ? TES_ACCESS_WRITE
                                         : TES_ACCESS_READ,
                                 mapped, 0, &code);
    if (sig)
      return sig < 0 ? -sig : sig;
  }
  g_error("a fault at %lx is resolved again and again", addr);
}

static int access_range(TesMM *mm, gulong addr, guint8 *buf, gsize n, gboolean write, gboolean blind) {
  while (n > 0) {
    gsize part = MIN(n, TES_PAGE_SIZE - (addr & ~TES_PAGE_MASK));
    int r = access_page(mm, addr, buf, part, write, blind);
    if (r)
      return r;
    addr += part;
    buf += part;
    n -= part;
  }
  return 0;
}

int fake_read(TesMM *mm, gulong addr, void *buf, gsize n, gboolean blind) {
  return access_range(mm, addr, buf, n, FALSE, blind);
}
int fake_write(TesMM *mm, gulong addr, const void *buf, gsize n, gboolean blind) {
  return access_range(mm, addr, (guint8 *)(gulong)buf, n, TRUE, blind);
}
guint fake_ops_count(void) { return n_ops; }

static gint order(gconstpointer a, gconstpointer b) {
  gulong x = *(const gulong *)a, y = *(const gulong *)b;
  return (x > y) - (x < y);
}

guint fake_runs(TesMM *mm) {
  FakeAspace *f = (FakeAspace *)mm->aspace;
  guint n, runs = 0;
  g_autofree gulong *keys = (gulong *)g_hash_table_get_keys_as_array(f->pages, &n);
  qsort(keys, n, sizeof *keys, order);
  const FakePage *last = NULL;
  for (guint i = 0; i < n; i++) {
    const FakePage *p = g_hash_table_lookup(f->pages, GSIZE_TO_POINTER(keys[i]));
    if (!last || keys[i] != keys[i - 1] + 1 || p->fd != last->fd || p->prot != last->prot ||
        p->off != last->off + (goffset)TES_PAGE_SIZE)
      runs++;
    last = p;
  }
  return runs;
}
