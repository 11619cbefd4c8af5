/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private view of the registry. */
#pragma once

#include <tessera/tessera.h>

struct _TesRegistry {
  GPtrArray *plugins;   /* TesLoaded, in loading order */
  GHashTable *features; /* "kind:name" -> TesFeature, borrowed from the descriptors */
  gboolean sealed;
  GPtrArray *ctx_rows;                    /* const TesCtxKeyRow by slot */
  TesCtxResolver *resolve[TES_CTX_KINDS]; /* by slot; made when sealed */
  const TesSyscall *syscalls[TES_SYSCALL_MAX];
};

typedef struct {
  const TesPlugin *plugin;
  char *origin;    /* file name, or "core" */
  gpointer module; /* GModule, or NULL */
  gboolean visited;
} TesLoaded;

/* The core's own features (core-features.c) and context keys (core/task/ctx.c). */
extern const TesPlugin tes_core_plugin;
extern const TesCtxKeyRow tes_core_ctx_rows[TES_CTX_N_CORE];
