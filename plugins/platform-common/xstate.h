/* SPDX-License-Identifier: Apache-2.0 */
/* Extended state in the standard XSAVE format (Intel SDM vol. 1, 13.4), as far as platforms need to know it. */
#pragma once

#include <glib.h>
#include <string.h>

#define XSTATE_MXCSR 24
#define XSTATE_SW 464 /* offset of the software-reserved words */
#define XSTATE_HEADER 512

/* What a processor has after reset: `size` bytes, transfer full (g_free). */
static inline void *xstate_initial(gsize size) {
  char *x = g_malloc0(size);
  const guint16 fcw = 0x37f;
  const guint32 mxcsr = 0x1f80;
  const guint64 x87_and_sse = 3;
  memcpy(x, &fcw, sizeof fcw);
  memcpy(x + XSTATE_MXCSR, &mxcsr, sizeof mxcsr);
  memcpy(x + XSTATE_HEADER, &x87_and_sse, sizeof x87_and_sse);
  return x;
}
