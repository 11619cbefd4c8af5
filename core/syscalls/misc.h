/* SPDX-License-Identifier: Apache-2.0 */
/* Private to misc.c, prctl.c and limits.c: handlers whose rows are in misc.c. */
#pragma once

#include <core/syscalls/syscalls.h>

glong tes_do_prctl(TesTask *, const gulong a[6]);
glong tes_do_arch_prctl(TesTask *, const gulong a[6]);
glong tes_do_personality(TesTask *, const gulong a[6]);
glong tes_do_getrlimit(TesTask *, const gulong a[6]);
glong tes_do_setrlimit(TesTask *, const gulong a[6]);
glong tes_do_prlimit64(TesTask *, const gulong a[6]);
glong tes_do_getrusage(TesTask *, const gulong a[6]);
