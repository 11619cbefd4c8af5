/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory as filesystems, sockets and plugins see it: copying, I/O vectors, the memory file, and
 * mapping sources (what a file offers to mmap). DESIGN.md decision 3; docs/memory.md. */
#pragma once

#include <sys/uio.h>
#include <tessera/lock.h>
#include <tessera/platform.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

/* ---- Copying. Guest addresses may be anything; nothing below faults, blocks or takes a lock above MM_MAP. ---- */

/* All or nothing towards the caller: 0 or -EFAULT (a prefix may have been copied). */
int tes_copy_in(TesTask *, void *dst, gulong src, gsize n);
int tes_copy_out(TesTask *, gulong dst, const void *src, gsize n);
/* Bytes copied before the first address that cannot be accessed. */
gsize tes_mm_copy_in(TesMM *, void *dst, gulong src, gsize n);
gsize tes_mm_copy_out(TesMM *, gulong dst, const void *src, gsize n);
gsize tes_mm_zero_out(TesMM *, gulong dst, gsize n);
/* For a tracer: as copy_out, but writes through read-only private mappings (ptrace POKE, /proc/pid/mem). */
gsize tes_mm_poke(TesMM *, gulong dst, const void *src, gsize n);
/* NUL-terminated string into dst[max]: its length, -ENAMETOOLONG if no NUL in max bytes, or -EFAULT. */
gssize tes_copy_in_str(TesTask *, char *dst, gulong src, gsize max);
/* Aligned 32-bit word operations on memory shared with running guest threads: 0 or -EFAULT. */
int tes_user_load32(TesTask *, gulong addr, guint32 *out);
/* Stores `desired` if the word equals *expected; *expected receives the old value. */
int tes_user_cas32(TesTask *, gulong addr, guint32 *expected, guint32 desired);

/* ---- I/O vectors: a list of guest (or kernel) buffers with a cursor. ---- */

struct _TesIov {
  TesMM *mm;             /* NULL: the buffers are kernel memory */
  const struct iovec *v; /* borrowed */
  guint n;
  gsize skip; /* bytes of v[0] already used */
  gsize left; /* bytes left in total */
};
#define TES_IOV_MAX 1024

void tes_iov_init_kernel(TesIov *, struct iovec *one, void *buf, gsize n);
/* One guest buffer. -EFAULT if the range is not in the guest's half of the address space. n is clipped to MAX_RW_COUNT. */
int tes_iov_init_user(TesIov *, struct iovec *one, TesTask *, gulong addr, gsize n);
/* Copies a guest iovec array in (once) and checks it as readv(2) does. *store (transfer full, g_free) holds it.
 * -EINVAL, -EFAULT. */
int tes_iov_import(TesIov *, struct iovec **store, TesTask *, gulong uiov, gulong n);
/* Advance the cursor by what they moved; return bytes moved, or -EFAULT if nothing could be. */
gssize tes_iov_read_from(TesIov *, void *dst, gsize n);      /* guest -> kernel (for a write call) */
gssize tes_iov_write_to(TesIov *, const void *src, gsize n); /* kernel -> guest (for a read call) */
gssize tes_iov_zero(TesIov *, gsize n);
void tes_iov_advance(TesIov *, gsize n);
/* For host calls without a copy: fills `out` with kernel addresses of the next bytes and pins their pages until
 * unpin. Does not advance. Returns the number of entries (>= 1), or -EFAULT. `guest_write`: the host call will
 * write them. The memory may change or be unmapped by the guest meanwhile; it is not reused. */
typedef struct _TesIovPin TesIovPin;
int tes_iov_pin(TesIov *, gsize max_bytes, gboolean guest_write, struct iovec *out, int max, TesIovPin **pin);
void tes_iov_unpin(TesIovPin *);
/* As tes_iov_unpin() after a host call that wrote n bytes to `in`, before the cursor moves: if another thread forked
 * meanwhile, pages that were copied on write get the bytes too. */
void tes_iov_unpin_written(const TesIov *, const struct iovec *in, gsize n, TesIovPin *);

/* memcpy that survives SIGBUS (a host file that was truncated): bytes NOT copied. */
gsize tes_safe_copy(void *dst, const void *src, gsize n);

/* ---- The memory file: all anonymous guest memory, tmpfs data and shared segments. ---- */

typedef enum {
  TES_MEM_ANON,
  TES_MEM_FILE /* tmpfs, memfd, shm */,
  TES_MEM_KERNEL,
  TES_MEM_CLASSES
} TesMemClass;

TesMemFile *tes_kernel_memfile(TesKernel *);
int tes_memfile_fd(const TesMemFile *);
/* A contiguous, page-aligned range that reads as zeros, every page with one reference. `align` is a power of two
 * >= the page size; `phase` < align: the offset satisfies off % align == phase. Returns the offset or -ENOMEM. */
goffset tes_memfile_alloc(TesMemFile *, gsize len, gsize align, gsize phase, TesMemClass);
/* One reference more, or less, for each page of a range. A page whose last reference goes is unmapped from the host's
 * view (punched) after the current epoch, then reused. The caller has already removed it from every page map. */
void tes_memfile_ref(TesMemFile *, goffset off, gsize len);
void tes_memfile_unref(TesMemFile *, goffset off, gsize len);
guint tes_memfile_refs(TesMemFile *, goffset off);
/* The kernel's view of an offset; valid for the whole file, contiguous. */
void *tes_memfile_ptr(const TesMemFile *, goffset off);
/* Bytes of memory the sandbox may have. */
guint64 tes_memfile_limit(const TesMemFile *);
/* Bytes allocated, by class. */
guint64 tes_memfile_usage(TesMemFile *, TesMemClass);

/* ---- Mapping sources: what mmap of a file maps. Embedded in an inode or a file. ---- */

/* A piece of a source: `len` bytes from source offset `off` are at fd/fd_off and visible at `window`. A piece in the memory
 * file has fd == tes_memfile_fd() and the page maps that use it hold page references of their own. */
typedef struct {
  int fd; /* borrowed; lives as long as the source */
  goffset fd_off;
  void *window; /* page-aligned kernel address; access it only with tes_safe_copy unless in the memory file */
  gsize len;    /* >= one page, multiple of the page size */
} TesMapPiece;

typedef struct {
  gsize size;
  /* The piece that starts at page-aligned `off`, at most `max` bytes. Allocates holes when `write` (a private
   * mapping asks with write FALSE). May sleep; called with the mm's mapping lock held, never below filesystem locks.
   * Beyond the end of file: -EFAULT (the task gets SIGBUS). -ENOMEM, -ENOSPC (SIGBUS). Locks taken inside rank above
   * TES_RANK_MM_MAP; never source->lock. To take pages away a source first stops offering them here, then calls
   * tes_map_source_invalidate(), then drops its own references. */
  int (*piece)(TesMapSource *, goffset off, gsize max, gboolean write, TesMapPiece *out);
  void (*ref)(TesMapSource *);
  void (*unref)(TesMapSource *);
} TesMapSourceOps;

struct _TesMapSource {
  const TesMapSourceOps *ops;
  TesMutex lock;         /* guards `maps` */
  GList *maps;           /* private to core/mm: reverse map */
  guint64 invalidations; /* private to core/mm; guarded by lock */
};
void tes_map_source_init(TesMapSource *, const TesMapSourceOps *);
void tes_map_source_clear(TesMapSource *);
/* Removes every use of [off, off+len) from every page map and address space (truncate, hole punching): the next access
 * asks piece() again. When it returns no guest thread can use the old pages. `even_private`: copied
 * pages of private mappings go too (truncate). No mm lock may be held. */
void tes_map_source_invalidate(TesMapSource *, goffset off, goffset len, gboolean even_private);
/* TRUE while any mapping of it may write through (for seals, ETXTBSY). */
gboolean tes_map_source_has_writers(TesMapSource *);
/* A source of fresh shared memory of the given size (MAP_SHARED|MAP_ANONYMOUS, SysV shm). Transfer full. */
TesMapSource *tes_shm_source_new(TesKernel *, gsize size);

TES_END_DECLS
