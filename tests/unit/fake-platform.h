/* SPDX-License-Identifier: Apache-2.0 */
/* A platform for unit tests of core/mm: address spaces are windows of this process, made of real mappings of the memory
 * file, so that "guest" accesses go through what the core asked for. It also keeps a table of pages to check against. */
#pragma once

#include <core/mm/private.h>

#define FAKE_TOP (1UL << 41) /* guest addresses end here: 2 TiB */

typedef struct {
  TesAspace base;
  guint8 *window;    /* guest address 0 */
  GHashTable *pages; /* page number -> FakePage */
  GMutex lock;       /* guards pages */
  gboolean dry;      /* keep the table only: this process has a limit of mappings too */
  guint fail_after;  /* operations until apply fails with -ENOMEM; 0: never */
} FakeAspace;
typedef struct {
  int fd;
  goffset off;
  guint prot;
} FakePage;

/* A kernel object with a memory file and this platform; enough for core/mm. */
TesKernel *fake_kernel_new(gboolean with_clone, guint64 memory_limit);
void fake_kernel_free(TesKernel *);
/* Guest accesses: faults are served by tes_mm_fault(). 0 or the signal. `blind`: the platform does not say what was tried. */
int fake_read(TesMM *, gulong addr, void *buf, gsize n, gboolean blind);
int fake_write(TesMM *, gulong addr, const void *buf, gsize n, gboolean blind);
guint fake_ops_count(void); /* operations applied so far */
guint fake_runs(TesMM *);   /* host mappings that the address space needs */
