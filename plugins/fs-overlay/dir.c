/* SPDX-License-Identifier: Apache-2.0 */
/* Reading directories. One that only one layer has is read straight from it. A merged one is listed once as a whole and then
 * read from that list: names are unique, whiteouts gone, and positions (index + 1) stay what they are as long as it is open. The
 * list is kept with the directory until that changes, and shared by all who read it. */
#include "overlay.h"
#include <dirent.h>

typedef struct {
  const char *name; /* in the chunk */
  guint64 ino;
  guint8 type;
} Entry;

struct _OvSnapshot {
  gint refs;
  GArray *entries;
  GStringChunk *names;
};

void ov_snapshot_unref(OvSnapshot *s) {
  if (!s || !g_atomic_int_dec_and_test(&s->refs))
    return;
  g_array_unref(s->entries);
  g_string_chunk_free(s->names);
  g_free(s);
}

/* ---- One layer ---- */

/* Entries are taken in batches and looked at afterwards: a filesystem may hold its lock while it hands them out. */
#define BATCH 1024 /* as many as a buffer of 32 KiB holds, which is what the C library asks with */

typedef struct {
  gsize name; /* in the batch's text */
  guint64 ino;
  guint type;
  goffset next;
} Raw;

typedef struct {
  GArray *raw;
  GString *text;
} Batch;

static gboolean dots(const char *name) {
  return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static gboolean take(gpointer data, const char *name, gsize len, guint64 ino, guint type, goffset next) {
  Batch *b = data;
  if (b->raw->len >= BATCH)
    return FALSE;
  Raw r = {b->text->len, ino, type, next};
  g_string_append_len(b->text, name, (gssize)len);
  g_string_append_c(b->text, '\0');
  g_array_append_val(b->raw, r);
  return TRUE;
}

/* The next entries from *pos on. */
static int read_batch(TesFile *f, TesCtx *ctx, goffset *pos, Batch *b) {
  g_array_set_size(b->raw, 0);
  g_string_truncate(b->text, 0);
  return TES_HAS(f->ops, readdir) ? f->ops->readdir(f, ctx, pos, take, b) : -ENOTDIR;
}

static Batch *batch_new(void) {
  Batch *b = g_new(Batch, 1);
  *b = (Batch){g_array_sized_new(FALSE, FALSE, sizeof(Raw), BATCH), g_string_sized_new(8192)};
  return b;
}
static void batch_free(Batch *b) {
  g_array_unref(b->raw);
  g_string_free(b->text, TRUE);
  g_free(b);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Batch, batch_free)

#define MAX_LISTING (256UL << 20) /* bytes of names */

int ov_list_layer(TesInode *dir, TesCtx *ctx, OvNameFunc fn, gpointer data) {
  g_autoptr(TesFile) f = NULL;
  g_autoptr(Batch) b = batch_new();
  goffset pos = 0;
  int r = ov_open_real(dir, ctx, O_RDONLY | O_DIRECTORY, &f);
  TesTask *t = tes_ctx_task(ctx);
  gsize total = 0;
  while (r == 0 && (r = read_batch(f, ctx, &pos, b)) == 0 && b->raw->len) {
    /* A directory that a process serves need not end. */
    total += b->text->len;
    if (total > MAX_LISTING || (t && tes_task_is_killed(t)))
      return total > MAX_LISTING ? -ENOMEM : -EINTR;
    for (guint k = 0; k < b->raw->len && r == 0; k++) {
      const Raw *e = &g_array_index(b->raw, Raw, k);
      if (!dots(b->text->str + e->name))
        r = fn(data, b->text->str + e->name, e->ino, e->type);
    }
  }
  return r;
}

/* ---- Merging; directory lock held ---- */

typedef struct {
  OvInode *dir;
  TesCtx *ctx;
  TesInode *layer; /* being read */
  guint dev;       /* its index */
  gboolean is_upper;
  GHashTable *seen;
  OvSnapshot *to;
} Merge;

static gboolean whiteout_in(TesInode *layer, TesCtx *ctx, const char *name, guint type) {
  TesInode *i;
  if ((type != DT_CHR && type != DT_UNKNOWN) || ov_child(layer, ctx, name, &i) < 0)
    return FALSE;
  gboolean yes = ov_is_whiteout(i);
  tes_inode_unref(i);
  return yes;
}

/* What was copied up keeps the number it had below. */
static guint64 upper_ino(OvSuper *s, TesCtx *ctx, TesInode *layer, const char *name, guint64 ino,
                         guint type) {
  guint64 known = ov_origin(s, ino);
  TesInode *i;
  if (known || s->memory || (type != DT_REG && type != DT_DIR) || ov_child(layer, ctx, name, &i) < 0)
    return known;
  known = ov_known_ino(s, ctx, i);
  tes_inode_unref(i);
  return known;
}

/* A directory of the upper layer that merges is known by the number of the topmost lower one; only asked for those that this
 * instance has not copied up itself. */
static gboolean merges(Merge *m, const char *name, guint type) {
  OvSuper *s = ov_super(m->dir);
  TesInode *i;
  if (type != DT_DIR || ov_child(m->layer, m->ctx, name, &i) < 0)
    return FALSE;
  g_autofree char *opaque = ov_own_get(s, i, m->ctx, "opaque");
  g_autofree char *redirect = ov_own_get(s, i, m->ctx, "redirect");
  tes_inode_unref(i);
  return !redirect && !(opaque && *opaque == 'y');
}

static guint64 entry_ino(Merge *m, const char *name, guint64 ino, guint type) {
  OvSuper *s = ov_super(m->dir);
  guint64 known = m->is_upper ? upper_ino(s, m->ctx, m->layer, name, ino, type) : 0;
  if (known)
    return known;
  for (guint k = 0; m->is_upper && k < m->dir->n_lower; k++) {
    TesInode *i;
    TesAttr a;
    if (ov_child(m->dir->lower[k].inode, m->ctx, name, &i) < 0)
      continue;
    int r = i->ops->getattr(i, m->ctx, &a);
    tes_inode_unref(i);
    if (r == 0 && S_ISDIR(a.mode) && merges(m, name, type))
      return ov_ino(s, a.dev, a.ino);
    break;
  }
  return ov_ino_on(m->dev, ino);
}

static int merge_name(gpointer data, const char *name, guint64 ino, guint type) {
  Merge *m = data;
  if (g_hash_table_contains(m->seen, name))
    return 0;
  gboolean whiteout = whiteout_in(m->layer, m->ctx, name, type);
  char *kept = g_string_chunk_insert(m->to->names, name);
  g_hash_table_add(m->seen, kept);
  if (whiteout)
    return 0;
  Entry e = {kept, entry_ino(m, name, ino, type), (guint8)type};
  g_array_append_val(m->to->entries, e);
  return 0;
}

static int merge_layer(Merge *m, TesInode *layer) {
  TesAttr a;
  int r = layer->ops->getattr(layer, m->ctx, &a);
  m->layer = layer;
  if (r == 0)
    m->dev = ov_dev_index(ov_super(m->dir), a.dev);
  return r < 0 ? r : ov_list_layer(layer, m->ctx, merge_name, m);
}

static int snapshot_make(OvInode *dir, TesCtx *ctx, OvSnapshot **out) {
  OvSnapshot *s = g_new0(OvSnapshot, 1);
  s->refs = 1;
  s->entries = g_array_new(FALSE, FALSE, sizeof(Entry));
  s->names = g_string_chunk_new(4096);
  g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
  Merge m = {.dir = dir, .ctx = ctx, .seen = seen, .to = s};
  TesInode *u = ov_upper(dir);
  int r = 0;
  m.is_upper = TRUE;
  if (u)
    r = merge_layer(&m, u);
  m.is_upper = FALSE;
  for (guint k = 0; k < dir->n_lower && r == 0; k++)
    r = merge_layer(&m, dir->lower[k].inode);
  if (r < 0)
    ov_snapshot_unref(s);
  else
    *out = s;
  return r;
}

static int snapshot_get(OvInode *dir, TesCtx *ctx, OvSnapshot **out) {
  TES_LOCKED(&dir->lock);
  int r = dir->cache ? 0 : snapshot_make(dir, ctx, &dir->cache);
  if (r < 0)
    return r;
  g_atomic_int_inc(&dir->cache->refs);
  *out = dir->cache;
  return 0;
}

int ov_check_empty(OvInode *dir, TesCtx *ctx) {
  OvSnapshot *s;
  int r = snapshot_make(dir, ctx, &s);
  if (r < 0)
    return r;
  r = s->entries->len ? -ENOTEMPTY : 0;
  ov_snapshot_unref(s);
  return r;
}

/* ---- Open directories ---- */

typedef struct {
  TesFile file;
  OvInode *dir;
  /* Position lock. One of them, chosen when reading begins at the start. */
  TesFile *only; /* the one layer's own description */
  guint dev;     /* index */
  gboolean only_upper;
  OvSnapshot *list;
} OvDir;

static guint64 parent_ino(OvInode *dir) {
  TES_LOCKED(&ov_super(dir)->names_lock);
  return dir->parent ? dir->parent->base.ino : dir->base.ino;
}

static int begin(OvDir *d, TesCtx *ctx) {
  OvInode *o = d->dir;
  g_clear_pointer(&d->only, tes_file_unref);
  g_clear_pointer(&d->list, ov_snapshot_unref);
  TesInode *u = ov_upper(o);
  if ((u ? 1 : 0) + o->n_lower > 1)
    return snapshot_get(o, ctx, &d->list);
  TesInode *layer = u ? u : o->lower[0].inode;
  TesAttr a;
  int r = layer->ops->getattr(layer, ctx, &a);
  if (r == 0)
    d->dev = ov_dev_index(ov_super(o), a.dev);
  d->only_upper = u != NULL;
  return r < 0 ? r : ov_open_real(layer, ctx, O_RDONLY | O_DIRECTORY, &d->only);
}

/* One entry of the only layer. Numbers are the overlay's; a whiteout may be left in a directory that no longer merges. */
static gboolean emit(OvDir *d, TesCtx *ctx, const char *name, const Raw *e, TesDirFill fill, gpointer data,
                     gboolean *some) {
  gsize len = strlen(name);
  guint64 ino = 0;
  if (dots(name)) {
    ino = len == 1 ? d->dir->base.ino : parent_ino(d->dir);
  } else if (whiteout_in(d->only->inode, ctx, name, e->type)) {
    return TRUE;
  } else {
    if (d->only_upper)
      ino = upper_ino(ov_super(d->dir), ctx, d->only->inode, name, e->ino, e->type);
    if (!ino)
      ino = ov_ino_on(d->dev, e->ino);
  }
  *some = TRUE;
  return fill(data, name, len, ino, e->type, e->next);
}

/* As much as the layer hands out at once: whoever wants more comes again. */
static int read_through(OvDir *d, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  g_autoptr(Batch) b = batch_new();
  int r = 0;
  gboolean some = FALSE;
  goffset at = *pos;
  while (!some && (r = read_batch(d->only, ctx, &at, b)) == 0 && b->raw->len) {
    for (guint k = 0; k < b->raw->len; k++) {
      const Raw *e = &g_array_index(b->raw, Raw, k);
      if (!emit(d, ctx, b->text->str + e->name, e, fill, data, &some))
        return 0;
      *pos = e->next;
    }
    at = *pos;
  }
  return r;
}

static int read_list(OvDir *d, goffset *pos, TesDirFill fill, gpointer data) {
  if (*pos == 0) {
    if (!fill(data, ".", 1, d->dir->base.ino, DT_DIR, 1))
      return 0;
    *pos = 1;
  }
  if (*pos == 1) {
    if (!fill(data, "..", 2, parent_ino(d->dir), DT_DIR, 2))
      return 0;
    *pos = 2;
  }
  for (; *pos >= 2 && *pos - 2 < (goffset)d->list->entries->len; ++*pos) {
    const Entry *e = &g_array_index(d->list->entries, Entry, *pos - 2);
    if (!fill(data, e->name, strlen(e->name), e->ino, e->type, *pos + 1))
      return 0;
  }
  return 0;
}

static int dir_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  OvDir *d = (OvDir *)f;
  if (ov_is_removed(d->dir))
    return -ENOENT;
  int r = *pos == 0 || (!d->only && !d->list) ? begin(d, ctx) : 0;
  if (r < 0)
    return r;
  if (d->list)
    return read_list(d, pos, fill, data);
  return read_through(d, ctx, pos, fill, data);
}

static int dir_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  OvDir *d = (OvDir *)f;
  TesInode *u = ov_upper(d->dir);
  g_autoptr(TesFile) real = NULL;
  if (!u || ov_super(d->dir)->memory)
    return 0;
  int r = ov_open_real(u, ctx, O_RDONLY | O_DIRECTORY, &real);
  return r == 0 && TES_HAS(real->ops, fsync) ? real->ops->fsync(real, ctx, data_only) : r;
}

static void dir_release(TesFile *f) {
  OvDir *d = (OvDir *)f;
  g_clear_pointer(&d->only, tes_file_unref);
  ov_snapshot_unref(d->list);
  tes_inode_unref(&d->dir->base);
  g_free(d);
}

static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "overlay-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = dir_readdir,
                                   .fsync = dir_fsync,
                                   .release = dir_release};

int ov_dir_open(OvInode *o, TesCtx *ctx, guint flags, TesFile **out) {
  OvDir *d = g_new0(OvDir, 1);
  tes_file_init(&d->file, ctx->kernel, &dir_ops, flags);
  d->dir = ov_inode(tes_inode_ref(&o->base));
  *out = &d->file;
  return 0;
}
