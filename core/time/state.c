/* SPDX-License-Identifier: Apache-2.0 */
/* Save/restore section of clocks and timers: declared, served later. */
#include <core/time/state.h>

static const char *const after[] = {"task", NULL};

const TesStateOps tes_state_time = {
    .size = sizeof(TesStateOps),
    .section = "time",
    .version = 1,
    .after = after,
};
