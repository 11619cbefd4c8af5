/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/time: the line that turns the time stamp counter into nanoseconds. No locks, no host calls: the
 * timekeeper feeds it samples; unit tests feed it others. */
#pragma once

#include <core/vdso/params.h>
#include <tessera/types.h>

/* One reading of counter and clock at the same instant (as nearly as could be had). */
typedef struct {
  guint64 tsc;
  TesTime mono;
} TesSample;

typedef struct {
  TesSample older, newer; /* the frequency comes from the older one */
  guint64 mult;           /* of the host's clock, at the last step */
  gboolean started, ready;
} TesCalibration;

/* What the line shows at a counter value: nothing before its start, nothing beyond its expiry. */
TesTime tes_calibration_line(const TesVdsoParams *, guint64 tsc);

/* Takes a sample and makes the next line in *p (base_tsc, mono, mult, valid): it starts at the host's time, but never
 * below what the old line has shown to anybody (up to its expiry); then it runs slower until the host has caught up.
 * FALSE while the frequency is not known well enough: p->usable must stay 0. */
gboolean tes_calibration_step(TesCalibration *, const TesSample *, TesVdsoParams *p);
