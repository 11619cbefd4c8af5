/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/time and core/vdso: the timekeeper beyond <tessera/time.h>. */
#pragma once

#include <core/vdso/params.h>
#include <tessera/time.h>

typedef struct {
  TesTime mono, real, boot;
} TesNow;

/* All three clocks of one instant. Any thread, any lock but the timekeeper's own. */
void tes_timekeeper_now(TesTimekeeper *, TesNow *out);
/* Host CLOCK_MONOTONIC at which the sandbox's monotonic clock will show t; TES_TIME_INFINITE while paused. */
TesTime tes_timekeeper_to_host(TesTimekeeper *, TesTime t);
/* Where the vDSO reads its parameters (NULL: nowhere), and the CPU count for getcpu. */
void tes_timekeeper_publish_to(TesTimekeeper *, TesVdsoParams *page, guint cores);
/* From now on the vDSO's getcpu asks the kernel. */
void tes_timekeeper_ask_cpu(TesTimekeeper *);
/* Compares with the host now instead of at the parameters' expiry. */
void tes_timekeeper_refresh(TesTimekeeper *);
void tes_timekeeper_pause(TesTimekeeper *);
void tes_timekeeper_resume(TesTimekeeper *);
gboolean tes_timekeeper_is_paused(TesTimekeeper *);
TesClock *tes_timekeeper_clock(TesTimekeeper *, gboolean realtime);
