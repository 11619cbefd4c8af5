/* SPDX-License-Identifier: Apache-2.0 */
/* Save/restore sections. Each subsystem and plugin owns a named, versioned section; order follows declared needs.
 * The stream format and the verbs come later; the declarations exist from the beginning so that every
 * object is reachable by id. */
#pragma once

#include <tessera/types.h>

TES_BEGIN_DECLS

typedef struct _TesWriter TesWriter;
typedef struct _TesReader TesReader;

/* ops of a feature of kind "state" (or a core table). NULL operations: the section is declared, not yet served. */
typedef struct {
  gsize size;
  const char *section; /* "task", "mm", "fs-tmpfs", ... */
  guint version;
  const char *const *after; /* sections that must be loaded before; NULL-terminated, or NULL */
  gboolean (*save)(TesKernel *, TesWriter *, GError **);
  gboolean (*load)(TesKernel *, TesReader *, guint version, GError **);
  gboolean (*resolve)(TesKernel *, GError **);
} TesStateOps;

TES_END_DECLS
