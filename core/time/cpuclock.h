/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/time: CPU accounting. */
#pragma once

#include <core/task/task.h>

/* CPU time in ns, in steps of TES_CLOCK_TICK. */
TesTime tes_cpu_time_task(TesTask *);
TesTime tes_cpu_time_group(TesThreadGroup *);

/* itimer.c, posix-timer.c: a tick was charged to the task (in_guest: to its user time). Event thread, no lock held. */
void tes_itimers_charge(TesTask *, gboolean in_guest);
void tes_posix_timers_charge(TesTask *);
