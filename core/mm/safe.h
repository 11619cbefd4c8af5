/* SPDX-License-Identifier: Apache-2.0 */
/* Accesses of mapped files that survive SIGBUS and SIGSEGV: a fault at one of the marked instructions continues at its
 * fix-up; any other fault goes to the handler that was installed before. */
#pragma once

#include <glib.h>

/* Installs the handlers; once per process, cheap afterwards. */
void tes_safe_init(void);
/* Bytes not cleared. */
gsize tes_safe_zero(void *dst, gsize n);
/* Aligned words; FALSE: the page cannot be accessed. */
gboolean tes_safe_load32(const guint32 *p, guint32 *out);
gboolean tes_safe_cas32(guint32 *p, guint32 *expected, guint32 desired);
