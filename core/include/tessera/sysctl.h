/* SPDX-License-Identifier: Apache-2.0 */
/* Settings below /proc/sys that a plugin offers: features of kind "sysctl", named by their directory ("fs/mqueue"). */
#pragma once

#include <tessera/ctx.h>

TES_BEGIN_DECLS

typedef struct {
  const char *name; /* of the file */
  guint32 mode;     /* permission bits */
  int (*show)(TesCtx *, GString *out);
  int (*store)(TesCtx *,
               const char *text); /* NULL with a mode that has no write bit; text without the final newline */
} TesSysctl;

typedef struct {
  gsize size;
  const TesSysctl *rows;
  gsize n;
} TesSysctlTable;

TES_END_DECLS
