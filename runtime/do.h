/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `tessera do`, private to do.c and do-options.c. */
#pragma once

#include <runtime/runtime.h>
#include <string.h>

extern const Flag do_flags[];
void do_options_init(DoOptions *);
void do_options_clear(DoOptions *);
