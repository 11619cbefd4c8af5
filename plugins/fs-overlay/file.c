/* SPDX-License-Identifier: Apache-2.0 */
/* Open regular files: a description that hands everything on to one of the layer's. Opened for reading before the file was copied
 * up, it goes over to the copy at the next call, so that a reader sees what others write. Only mappings that exist by then keep
 * showing the lower file, as on Linux. */
#include "overlay.h"

typedef struct {
  TesFile file;
  OvInode *o;
  TesFile *first;  /* of the layer that the file was in when it was opened */
  TesFile *second; /* of the upper, once it was copied up; set once, atomic */
} OvFile;

int ov_open_real(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  int r = TES_HAS(i->ops, open) ? i->ops->open(i, ctx, flags, out) : -ENXIO;
  if (r == 0 && !(*out)->inode)
    (*out)->inode = tes_inode_ref(i);
  return r;
}

static TesFile *real(TesFile *f, TesCtx *ctx) {
  OvFile *h = (OvFile *)f;
  TesFile *second = __atomic_load_n(&h->second, __ATOMIC_ACQUIRE);
  if (second)
    return second;
  TesInode *u = ov_upper(h->o);
  TesFile *fresh = NULL;
  if (!u || h->first->inode == u || ov_open_real(u, ctx, f->flags, &fresh) < 0)
    return h->first;
  if (__atomic_compare_exchange_n(&h->second, &second, fresh, FALSE, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return fresh;
  tes_file_unref(fresh);
  return second;
}

static gssize file_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TesFile *r = real(f, ctx);
  return TES_HAS(r->ops, read) ? r->ops->read(r, ctx, iov, pos, flags) : -EINVAL;
}

static gssize file_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TesFile *r = real(f, ctx);
  return TES_HAS(r->ops, write) ? r->ops->write(r, ctx, iov, pos, flags) : -EINVAL;
}

/* Plain positions are the core's business; data and holes are the layer's. */
static goffset file_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  TesFile *r = real(f, ctx);
  if ((whence != SEEK_DATA && whence != SEEK_HOLE) || !TES_HAS(r->ops, seek))
    return -EOPNOTSUPP;
  return r->ops->seek(r, ctx, off, whence);
}

static glong file_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  TesFile *r = real(f, tes_task_ctx(t));
  return TES_HAS(r->ops, ioctl) ? r->ops->ioctl(r, t, cmd, arg) : -ENOTTY;
}

static int file_map(TesFile *f, TesCtx *ctx, guint prot, gboolean shared, TesMapSource **out) {
  TesFile *r = real(f, ctx);
  return TES_HAS(r->ops, map) ? r->ops->map(r, ctx, prot, shared, out) : -ENODEV;
}

static int file_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  TesFile *r = real(f, ctx);
  return TES_HAS(r->ops, fsync) ? r->ops->fsync(r, ctx, data_only) : -EINVAL;
}

static int file_fallocate(TesFile *f, TesCtx *ctx, int mode, goffset off, goffset len) {
  TesFile *r = real(f, ctx);
  return TES_HAS(r->ops, fallocate) ? r->ops->fallocate(r, ctx, mode, off, len) : -EOPNOTSUPP;
}

static int file_set_flags(TesFile *f, guint flags) {
  OvFile *h = (OvFile *)f;
  TesFile *all[2] = {h->first, __atomic_load_n(&h->second, __ATOMIC_ACQUIRE)};
  int r = 0;
  for (int k = 0; k < 2 && r == 0; k++)
    if (all[k] && TES_HAS(all[k]->ops, set_flags))
      r = all[k]->ops->set_flags(all[k], flags);
  return r;
}

static void file_release(TesFile *f) {
  OvFile *h = (OvFile *)f;
  tes_file_unref(h->first);
  if (h->second)
    tes_file_unref(h->second);
  tes_inode_unref(&h->o->base);
  g_free(h);
}

static const TesFileOps file_ops = {.size = sizeof(TesFileOps),
                                    .name = "overlay",
                                    .flags = TES_FILE_SEEKABLE,
                                    .read = file_read,
                                    .write = file_write,
                                    .seek = file_seek,
                                    .ioctl = file_ioctl,
                                    .map = file_map,
                                    .fsync = file_fsync,
                                    .fallocate = file_fallocate,
                                    .set_flags = file_set_flags,
                                    .release = file_release};

int ov_file_open(OvInode *o, TesCtx *ctx, guint flags, TesFile **out) {
  TesFile *first = NULL;
  int r = (flags & O_ACCMODE) != O_RDONLY ? ov_copy_up(o, ctx, -1) : 0;
  if (r == 0)
    r = ov_open_real(ov_real(o), ctx, flags, &first);
  if (r < 0)
    return r;
  ov_sync(o); /* the layer may have looked again */
  OvFile *h = g_new0(OvFile, 1);
  tes_file_init(&h->file, ctx->kernel, &file_ops, flags);
  h->o = ov_inode(tes_inode_ref(&o->base));
  h->first = first;
  *out = &h->file;
  return 0;
}
