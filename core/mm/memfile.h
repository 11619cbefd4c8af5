/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private side of the memory file: reserved ranges, references taken without a lock, and frees that are known to be
 * past the epoch. Public part: tessera/mm.h. */
#pragma once

#include <core/mm/tree.h>
#include <string.h>
#include <tessera/mm.h>

/* Page references: 30 bits of count (sticky near the top: such a page is never freed) and 2 bits of class. */
#define TES_REF_COUNT 0x3fffffffu
#define TES_REF_STICKY 0x20000000u

struct _TesMemFile {
  int fd;
  guint8 *base; /* constant: offset 0 in the kernel's address space */
  gsize size;
  guint32 *refs;                  /* one word per page, lazily touched; atomic */
  guint64 limit;                  /* bytes the sandbox may use */
  guint64 usage[TES_MEM_CLASSES]; /* atomic */
  guint64 unchecked;              /* atomic: bytes handed out since the host's count was read */
  TesMutex lock;                  /* guards what follows */
  TesTree free_tree;              /* Extent; val: length */
  GArray *dead;                   /* TesRun: unreferenced, past the epoch, not punched yet */
  gsize dead_bytes;
  gulong low; /* lowest offset ever taken */
  /* Accounting by cgroup (account.c); NULL: off. Set once. */
  guint16 *owner;   /* of each page; atomic */
  guint64 *charged; /* bytes of each id; atomic */
  guint64 *taken;   /* by each id since somebody was told; atomic */
  guint8 *watched;  /* of each id; atomic */
};

typedef struct {
  goffset off;
  gsize len;
} TesRun;

/* Offsets without pages or accounting; -ENOMEM. */
goffset tes_memfile_reserve(TesMemFile *, gsize len, gsize align, gsize phase);
/* A reserved part becomes memory: one reference for each page. */
void tes_memfile_commit(TesMemFile *, goffset off, gsize len, TesMemClass);
/* Gives back a reserved part that was never committed. */
void tes_memfile_release(TesMemFile *, goffset off, gsize len);
/* May `len` bytes more be handed out? 0 or -ENOMEM. Looks at the host's count of touched pages now and then. */
int tes_memfile_check(TesMemFile *, gsize len);
/* As tes_memfile_unref(), by a caller that knows that no epoch section can still use the range. */
void tes_memfile_unref_now(TesMemFile *, goffset off, gsize len);
/* Takes references unless a page is already free: then FALSE and nothing is taken. */
gboolean tes_memfile_try_ref(TesMemFile *, goffset off, gsize len);
/* Makes [off, off+len) read as zeros; for pages of a single owner. */
int tes_memfile_zero(TesMemFile *, goffset off, gsize len);
/* Copies without mapping the destination into the kernel; holes of a source inside the file stay holes. 0 or -EFAULT, -ENOMEM. */
int tes_memfile_copy_page_run(TesMemFile *, goffset dst, const void *src, gsize len);
/* Bytes the host really holds for the file. */
guint64 tes_memfile_resident(TesMemFile *);

/* account.c: pages were handed out to the calling task, or given back. Accounting is on. */
void tes_memfile_charge(TesMemFile *, goffset off, gsize len);
void tes_memfile_uncharge(TesMemFile *, goffset off, gsize len);
void tes_memfile_account_free(TesMemFile *);
gboolean tes_memfile_watches_me(const TesMemFile *); /* the calling task's id */
static inline gboolean tes_memfile_accounts(const TesMemFile *mf) {
  return __atomic_load_n(&mf->owner, __ATOMIC_ACQUIRE) != NULL;
}

static inline gboolean tes_memfile_has(const TesMemFile *mf, const void *p) {
  return (gsize)((const guint8 *)p - mf->base) < mf->size;
}
static inline goffset tes_memfile_offset(const TesMemFile *mf, const void *p) {
  return (const guint8 *)p - mf->base;
}
static inline guint tes_memfile_count(const TesMemFile *mf, goffset off) {
  return __atomic_load_n(&mf->refs[off >> TES_PAGE_SHIFT], __ATOMIC_ACQUIRE) & TES_REF_COUNT;
}
