/* SPDX-License-Identifier: Apache-2.0 */
/* Text files: see text.h. The text is made when a file is read from its beginning and kept for the reads that follow. */
#include "text.h"

typedef struct {
  TesFile file;
  const TextOps *ops;
  GMutex lock;   /* guards text; a leaf */
  GString *text; /* NULL before the first read */
  guint64 seen;  /* atomic: the version that was read last */
  TesCred *opener;
} TextFile;

static gssize text_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)flags;
  TextFile *t = (TextFile *)f;
  if (*pos == 0 || !t->text) {
    g_autoptr(GString) fresh = g_string_new(NULL);
    if (t->ops->version)
      __atomic_store_n(&t->seen, t->ops->version(f->inode), __ATOMIC_RELAXED);
    int r = t->ops->text(f->inode, ctx, fresh);
    if (r < 0)
      return r;
    g_mutex_lock(&t->lock);
    GString *old = t->text;
    t->text = g_steal_pointer(&fresh);
    fresh = old;
    g_mutex_unlock(&t->lock);
  }
  g_mutex_lock(&t->lock);
  gsize len = *pos < (goffset)t->text->len ? t->text->len - *pos : 0;
  len = MIN(len, iov->left);
  g_autofree char *copy = g_memdup2(t->text->str + (len ? *pos : 0), len);
  g_mutex_unlock(&t->lock);
  gssize r = len ? tes_iov_write_to(iov, copy, len) : 0;
  if (r > 0)
    *pos += r;
  return r;
}

static gssize text_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)flags;
  TextFile *t = (TextFile *)f;
  if (!t->ops->write)
    return -EINVAL;
  if (iov->left >= TES_PAGE_SIZE)
    return -E2BIG;
  g_autofree char *buf = g_malloc(iov->left + 1);
  gssize n = tes_iov_read_from(iov, buf, iov->left);
  if (n < 0)
    return n;
  buf[n] = 0;
  if (n > 0 && buf[n - 1] == '\n')
    buf[n - 1] = 0;
  int r = t->ops->write(f->inode, ctx, f, buf);
  if (r < 0)
    return r;
  *pos += n;
  return n;
}

static guint text_poll(TesFile *f) {
  TextFile *t = (TextFile *)f;
  guint news = t->ops->version && t->ops->version(f->inode) != __atomic_load_n(&t->seen, __ATOMIC_RELAXED)
                   ? POLLPRI | POLLERR
                   : 0;
  return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | news;
}

static void text_release(TesFile *f) {
  TextFile *t = (TextFile *)f;
  if (t->text)
    g_string_free(t->text, TRUE);
  if (t->opener)
    tes_cred_unref(t->opener);
  g_mutex_clear(&t->lock);
  g_free(t);
}

static const TesFileOps text_ops = {.size = sizeof(TesFileOps),
                                    .name = "text",
                                    .flags = TES_FILE_SEEKABLE,
                                    .read = text_read,
                                    .write = text_write,
                                    .poll = text_poll,
                                    .release = text_release};

TesFile *text_file_new(TesKernel *k, guint flags, const TextOps *ops) {
  TextFile *t = g_new0(TextFile, 1);
  tes_file_init(&t->file, k, &text_ops, flags);
  g_mutex_init(&t->lock);
  t->ops = ops;
  return &t->file;
}

void text_set_opener(TesFile *f, TesCred *c) { ((TextFile *)f)->opener = tes_cred_ref(c); }
TesCred *text_opener(TesFile *f) { return ((TextFile *)f)->opener; }
void text_watch(TesFile *f, TesQueue *q, guint64 seen) {
  f->queue = q;
  ((TextFile *)f)->seen = seen;
}

/* ---- Directories ---- */

TesFile *text_dir_new(TesKernel *k, guint flags, const TesFileOps *ops) {
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, k, ops, flags);
  return f;
}

void text_dir_release(TesFile *f) { g_free(f); }

gboolean text_dir_dots(TesFile *f, goffset *pos, TesDirFill fill, gpointer data) {
  for (; *pos < 2; ++*pos)
    if (!fill(data, "..", *pos + 1, f->inode->ino, DT_DIR, *pos + 1))
      return FALSE;
  return TRUE;
}

/* ---- CPUs ---- */

void text_cpu_list(GString *s, guint first, guint n) {
  if (n == 1)
    g_string_append_printf(s, "%u\n", first);
  else if (n)
    g_string_append_printf(s, "%u-%u\n", first, first + n - 1);
  else
    g_string_append_c(s, '\n');
}

/* Groups of 32 bits, highest first; the highest has only the digits that `total` needs. */
void text_cpu_mask(GString *s, guint first, guint n, guint total) {
  for (guint w = (total + 31) / 32; w-- > 0;) {
    guint32 bits = 0;
    for (guint b = 0; b < 32; b++)
      bits |= (guint32)(w * 32 + b >= first && w * 32 + b < first + n) << b;
    guint digits = w == (total - 1) / 32 ? ((total - 1) % 32) / 4 + 1 : 8;
    g_string_append_printf(s, "%0*x%c", digits, bits, w ? ',' : '\n');
  }
}
