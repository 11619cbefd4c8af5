/* SPDX-License-Identifier: Apache-2.0 */
/* The error domain of what the operator is told. */
#include <tessera/types.h>

GQuark tes_error_quark(void) { return g_quark_from_static_string("tes-error"); }
