/* SPDX-License-Identifier: Apache-2.0 */
/* Memory devices (null(4), full(4), random(4)): major 1, minors 3 null, 5 zero, 7 full, 8 random, 9 urandom. */
#include "dev.h"
#include <sys/random.h>

enum { NULL_MINOR = 3, ZERO_MINOR = 5, FULL_MINOR = 7, RANDOM_MINOR = 8, URANDOM_MINOR = 9 };

static gssize null_read(TesFile *f, TesCtx *c, TesIov *iov, goffset *pos, int flags) {
  (void)f, (void)c, (void)iov, (void)pos, (void)flags;
  return 0;
}

static gssize null_write(TesFile *f, TesCtx *c, TesIov *iov, goffset *pos, int flags) {
  (void)f, (void)c, (void)pos, (void)flags;
  gsize n = iov->left;
  tes_iov_advance(iov, n);
  return n;
}

static gssize zero_read(TesFile *f, TesCtx *c, TesIov *iov, goffset *pos, int flags) {
  (void)f, (void)c, (void)pos, (void)flags;
  return iov->left ? tes_iov_zero(iov, iov->left) : 0;
}

static gssize full_write(TesFile *f, TesCtx *c, TesIov *iov, goffset *pos, int flags) {
  (void)f, (void)c, (void)iov, (void)pos, (void)flags;
  return -ENOSPC;
}

static gssize random_read(TesFile *f, TesCtx *c, TesIov *iov, goffset *pos, int flags) {
  (void)f, (void)c, (void)pos, (void)flags;
  guint8 buf[4096];
  gssize total = 0;
  while (iov->left) {
    gssize n = getrandom(buf, MIN(iov->left, sizeof buf), 0);
    if (n < 0)
      return total ? total : -errno;
    gssize r = tes_iov_write_to(iov, buf, n);
    if (r < 0)
      return total ? total : r;
    total += r;
    if (r < n || tes_signal_pending(tes_task_current()))
      break;
  }
  return total;
}

/* These devices do not know positions: lseek succeeds and stays at 0. */
static goffset mem_seek(TesFile *f, TesCtx *c, goffset off, int whence) {
  (void)f, (void)c, (void)off, (void)whence;
  return 0;
}

/* A private or shared mapping of /dev/zero is fresh memory. */
static int zero_map(TesFile *f, TesCtx *c, guint prot, gboolean shared, TesMapSource **out) {
  (void)c, (void)prot, (void)shared;
  *out = tes_shm_source_new(f->kernel, 1ULL << 40);
  return *out ? 0 : -ENOMEM;
}

static glong random_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  (void)f;
  const guint rndgetentcnt = 0x80045200; /* RNDGETENTCNT, random(4) */
  int bits = 256;
  return cmd == rndgetentcnt ? tes_copy_out(t, arg, &bits, sizeof bits) : -ENOTTY;
}

static void mem_release(TesFile *f) { g_free(f); }

#define MEM_OPS(name_, read_, write_, ...)                                                    \
  {                                                                                           \
    .size = sizeof(TesFileOps), .name = (name_), .flags = TES_FILE_SEEKABLE, .read = (read_), \
    .write = (write_), .seek = mem_seek, .release = mem_release, __VA_ARGS__                  \
  }

static const TesFileOps null_ops = MEM_OPS("null", null_read, null_write, );
static const TesFileOps zero_ops = MEM_OPS("zero", zero_read, null_write, .map = zero_map);
static const TesFileOps full_ops = MEM_OPS("full", zero_read, full_write, );
static const TesFileOps random_ops = MEM_OPS("random", random_read, null_write, .ioctl = random_ioctl);

int mem_open(TesKernel *k, guint minor_, guint flags, TesFile **out) {
  const TesFileOps *ops = minor_ == NULL_MINOR                                ? &null_ops
                          : minor_ == ZERO_MINOR                              ? &zero_ops
                          : minor_ == FULL_MINOR                              ? &full_ops
                          : minor_ == RANDOM_MINOR || minor_ == URANDOM_MINOR ? &random_ops
                                                                              : NULL;
  if (!ops)
    return -ENXIO;
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, k, ops, flags);
  *out = f;
  return 0;
}
