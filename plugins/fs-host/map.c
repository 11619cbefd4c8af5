/* SPDX-License-Identifier: Apache-2.0 */
/* Mapping host files: the guest maps the host's own descriptor, the kernel sees the same pages through windows of
 * HOST_CHUNK bytes. While a source has references its descriptors stay pinned; windows stay until the inode goes. */
#include "host.h"
#include <sys/mman.h>

static HostInode *of(TesMapSource *s) {
  return (HostInode *)((char *)s - G_STRUCT_OFFSET(HostInode, source));
}

/* The last use of a source ended, perhaps below core/mm's locks: descriptors and inode are given back later. */
typedef struct {
  HostInode *i;
  gboolean rw;
} Idle;

static void give_back(gpointer p) {
  Idle *d = p;
  host_fd_put(d->i, SLOT_READ);
  if (d->rw)
    host_fd_put(d->i, SLOT_WRITE);
  tes_inode_unref(&d->i->base);
  g_free(d);
}

static void source_ref(TesMapSource *s) {
  HostInode *i = of(s);
  TES_LOCKED(&i->map_lock);
  i->map_users++;
}

static void source_unref(TesMapSource *s) {
  HostInode *i = of(s);
  Idle *idle = NULL;
  tes_mutex_lock(&i->map_lock);
  if (--i->map_users == 0) {
    idle = g_new(Idle, 1);
    *idle = (Idle){i, i->map_rw};
    i->map_rw = FALSE;
  }
  tes_mutex_unlock(&i->map_lock);
  if (idle)
    tes_epoch_defer(give_back, idle);
}

/* The window of a chunk; map lock held. */
static void *window(HostInode *i, int slot, guint chunk, int fd) {
  if (!i->windows[slot])
    i->windows[slot] = g_ptr_array_new();
  GPtrArray *w = i->windows[slot];
  if (chunk >= w->len)
    g_ptr_array_set_size(w, (gint)chunk + 1);
  if (!w->pdata[chunk]) {
    void *p = mmap(NULL, HOST_CHUNK, PROT_READ | (slot == SLOT_WRITE ? PROT_WRITE : 0), MAP_SHARED, fd,
                   (off_t)chunk * (off_t)HOST_CHUNK);
    if (p == MAP_FAILED)
      return NULL;
    w->pdata[chunk] = p;
  }
  return w->pdata[chunk];
}

static int source_piece(TesMapSource *s, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  HostInode *i = of(s);
  struct stat st;
  TES_LOCKED(&i->map_lock);
  int slot = write && i->map_rw ? SLOT_WRITE : SLOT_READ;
  if (write && !i->map_rw)
    return -EACCES;
  int fd = i->map_fd[slot];
  if (fstat(fd, &st) < 0)
    return -errno;
  gsize end = TES_PAGE_UP((gsize)st.st_size);
  if (off < 0 || (gsize)off >= end || (gsize)off / HOST_CHUNK > G_MAXINT / 2)
    return -EFAULT;
  gsize in = (gsize)off % HOST_CHUNK;
  char *w = window(i, slot, (guint)((gsize)off / HOST_CHUNK), fd);
  if (!w)
    return -ENOMEM;
  *out = (TesMapPiece){
      .fd = fd, .fd_off = off, .window = w + in, .len = MIN(MIN(max, HOST_CHUNK - in), end - (gsize)off)};
  return 0;
}

static const TesMapSourceOps source_ops = {
    .size = sizeof(TesMapSourceOps), .piece = source_piece, .ref = source_ref, .unref = source_unref};

int host_map(HostInode *i, gboolean may_write, TesMapSource **out) {
  int rfd = host_fd_get(i, SLOT_READ), wfd = -1;
  if (rfd < 0)
    return rfd;
  if (may_write && (wfd = host_fd_get(i, SLOT_WRITE)) < 0) {
    host_fd_put(i, SLOT_READ);
    return wfd;
  }
  gboolean keep_read, keep_write = FALSE;
  tes_mutex_lock(&i->map_lock);
  if (!i->has_source) {
    tes_map_source_init(&i->source, &source_ops);
    i->has_source = TRUE;
  }
  keep_read = i->map_users++ == 0;
  if (keep_read) {
    tes_inode_ref(&i->base);
    i->map_fd[SLOT_READ] = rfd;
  }
  if (may_write && !i->map_rw) {
    keep_write = i->map_rw = TRUE;
    i->map_fd[SLOT_WRITE] = wfd;
  }
  tes_mutex_unlock(&i->map_lock);
  if (!keep_read)
    host_fd_put(i, SLOT_READ);
  if (may_write && !keep_write)
    host_fd_put(i, SLOT_WRITE);
  *out = &i->source;
  return 0;
}

void host_map_invalidate(HostInode *i, goffset size) {
  tes_mutex_lock(&i->map_lock);
  gboolean used = i->has_source && i->map_users > 0;
  tes_mutex_unlock(&i->map_lock);
  goffset from = (goffset)TES_PAGE_UP((gsize)size);
  if (used)
    tes_map_source_invalidate(&i->source, from, G_MAXINT64 - TES_PAGE_SIZE + 1 - from, TRUE);
}

void host_map_free(HostInode *i) {
  for (int k = 0; k < N_SLOTS; k++) {
    GPtrArray *w = i->windows[k];
    for (guint c = 0; w && c < w->len; c++)
      if (w->pdata[c])
        munmap(w->pdata[c], HOST_CHUNK);
    if (w)
      g_ptr_array_free(w, TRUE);
  }
  if (i->has_source)
    tes_map_source_clear(&i->source);
}
