/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's side of the vDSO: image and parameter page in the memory file, offered to the loader as a mapping
 * source (kernel->vdso_source). Interface: tes_vdso_init(), tes_vdso_free(), tes_vdso_update() in task.h.
 *
 * Guests map it privately and read-only: whatever a guest does to its copy, the pages that others see stay as they are. */
#include <core/task/task.h>
#include <core/time/timekeeper.h>
#include <core/vdso/vdso.h>
#include <string.h>

#define PAGES (TES_VDSO_IMAGE_PAGES + 1)

typedef struct {
  TesMapSource source;
  TesMemFile *memfile;
  goffset off;
} VdsoSource;

/* One source for the kernel's life: references are not counted. */
static void source_ref(TesMapSource *s) { (void)s; }

static int source_piece(TesMapSource *s, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  VdsoSource *v = (VdsoSource *)s;
  gsize size = PAGES * TES_PAGE_SIZE;
  if (off < 0 || (gsize)off >= size)
    return -EFAULT;
  if (write)
    return -EACCES; /* no shared writable mapping exists */
  *out = (TesMapPiece){
      .fd = tes_memfile_fd(v->memfile),
      .fd_off = v->off + off,
      .window = tes_memfile_ptr(v->memfile, v->off + off),
      .len = MIN(max, size - (gsize)off),
  };
  return 0;
}

static const TesMapSourceOps source_ops = {
    .size = sizeof(TesMapSourceOps),
    .piece = source_piece,
    .ref = source_ref,
    .unref = source_ref,
};

gboolean tes_vdso_init(TesKernel *k, GError **error) {
  goffset off = tes_memfile_alloc(k->memfile, PAGES * TES_PAGE_SIZE, TES_PAGE_SIZE, 0, TES_MEM_KERNEL);
  if (off < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "no memory for the vDSO: %s", g_strerror((int)-off));
    return FALSE;
  }
  VdsoSource *v = g_new0(VdsoSource, 1);
  tes_map_source_init(&v->source, &source_ops);
  v->memfile = k->memfile;
  v->off = off;
  memcpy(tes_memfile_ptr(k->memfile, off), tes_vdso_image, tes_vdso_image_size);
  k->vdso_source = &v->source;
  k->vdso_pages = PAGES;
  k->vdso_param_offset = TES_VDSO_IMAGE_PAGES * TES_PAGE_SIZE;
  k->vdso_params = tes_memfile_ptr(k->memfile, off + k->vdso_param_offset);
  tes_timekeeper_publish_to(k->timekeeper, k->vdso_params, k->use_host_cores ? 0 : k->cores);
  return TRUE;
}

void tes_vdso_free(TesKernel *k) {
  VdsoSource *v = (VdsoSource *)k->vdso_source;
  if (!v)
    return;
  tes_timekeeper_publish_to(k->timekeeper, NULL, 0);
  k->vdso_params = NULL;
  k->vdso_source = NULL;
  tes_map_source_clear(&v->source);
  tes_memfile_unref(k->memfile, v->off, PAGES * TES_PAGE_SIZE);
  g_free(v);
}

void tes_vdso_ask_cpu(TesKernel *k) { tes_timekeeper_ask_cpu(k->timekeeper); }

void tes_vdso_update(TesKernel *k) { tes_timekeeper_refresh(k->timekeeper); }
