/* SPDX-License-Identifier: Apache-2.0 */
/* Calibration of the time stamp counter against the host's monotonic clock. Interface: calibrate.h.
 *
 * A sample's error is some 50 ns, so the frequency's relative error is 50 ns / distance of the two samples. The line is
 * used for a time in proportion to that distance, which bounds its error near 1 µs from the first line on. */
#include <core/time/calibrate.h>

#define FIRST_DISTANCE (2 * 1000 * 1000)  /* ns between samples before the first line: 25 ppm */
#define KEEP_DISTANCE (500 * 1000 * 1000) /* the older sample is replaced when the newer is this old */
#define VALID_FACTOR 10                   /* line's life / distance of samples */
#define VALID_MAX (1000 * 1000 * 1000)
#define MULT_CHANGE_MAX \
  1000                 /* a frequency that changes by more than 1/1000 was mismeasured, or the host slept */
#define CATCH_UP_MAX 2 /* the slowest line runs at 1 - 1/2 of the host's speed */

TesTime tes_calibration_line(const TesVdsoParams *p, guint64 tsc) {
  gint64 delta = (gint64)(tsc - p->base_tsc);
  if (delta < 0)
    delta = 0;
  if ((guint64)delta > p->valid)
    delta = p->valid; /* nobody saw more of it */
  return p->mono + (TesTime)((unsigned __int128)delta * p->mult >> TES_VDSO_SHIFT);
}

static gboolean restart(TesCalibration *c, const TesSample *s) {
  *c = (TesCalibration){.older = *s, .newer = *s, .started = TRUE};
  return FALSE;
}

static gboolean differs(guint64 a, guint64 b) { return (a > b ? a - b : b - a) > b / MULT_CHANGE_MAX; }

static void shift_samples(TesCalibration *c, const TesSample *s) {
  if (s->mono - c->newer.mono >= KEEP_DISTANCE) {
    c->older = c->newer;
    c->newer = *s;
  }
}

gboolean tes_calibration_step(TesCalibration *c, const TesSample *s, TesVdsoParams *p) {
  if (!c->started || s->tsc <= c->older.tsc || s->mono < c->older.mono)
    return restart(c, s); /* first, or the counter was reset */
  TesTime distance = s->mono - c->older.mono;
  if (distance < FIRST_DISTANCE)
    return FALSE;
  guint64 cycles = s->tsc - c->older.tsc;
  guint64 mult = (guint64)(((unsigned __int128)(guint64)distance << TES_VDSO_SHIFT) / cycles);
  if (mult == 0 || (c->ready && differs(mult, c->mult)))
    return restart(c, s);
  c->mult = mult;
  TesTime life = MIN(distance * VALID_FACTOR, VALID_MAX);
  TesTime floor = c->ready ? tes_calibration_line(p, s->tsc) : s->mono;
  TesTime ahead = MAX(floor - s->mono, 0);
  if (ahead > 0)
    mult -= (guint64)((unsigned __int128)mult * MIN(ahead, life / CATCH_UP_MAX) / life);
  p->base_tsc = s->tsc;
  p->mono = MAX(s->mono, floor);
  p->mult = mult;
  p->valid = (guint64)(((unsigned __int128)(guint64)life * cycles) / (guint64)distance);
  c->ready = TRUE;
  shift_samples(c, s);
  return TRUE;
}
