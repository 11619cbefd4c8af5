/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu controller. Time is counted in ticks of 10 ms (core/time/cpuclock.c). cpu.max: each period adds the quota to a budget, each
 * tick takes from it; below zero the tasks are held until the end of a period finds it above. Debts are carried over, so that the
 * share is right in the long run although a tick may be more than a whole quota. Weights are stored, the host's scheduler decides. */
#include "cgroup.h"
#include <math.h>

#define TICK_NS ((TesTime)TES_CLOCK_TICK)
#define US 1000LL

void cpu_reset(Cg *c) {
  c->weight = 100;
  c->quota = CG_MAX;
  c->period = 100000;
  c->burst = c->idle = 0;
}

/* Event thread: the period has ended. */
static void on_period(TesTimer *timer, guint64 missed, gpointer data) {
  (void)timer;
  Cg *c = data;
  gboolean wake = FALSE, again = FALSE;
  tes_mutex_lock(&c->tree->lock);
  TesTime period = (TesTime)c->period * US;
  if (c->dead || c->quota == CG_MAX) {
    wake = g_atomic_int_get(&c->throttled);
  } else {
    gint64 quota = (gint64)c->quota * US, room = quota + (gint64)c->burst * US;
    gint64 now = MIN(c->budget + quota * (gint64)(1 + MIN(missed, 1000)), room);
    c->budget = now;
    c->periods++;
    wake = g_atomic_int_get(&c->throttled) && now > 0;
    again = now < room;
  }
  if (wake) {
    g_atomic_int_set(&c->throttled, 0);
    c->throttled_us += (tes_time_monotonic(c->tree->kernel) - c->throttled_since) / US;
  }
  c->timer_armed = again;
  tes_mutex_unlock(&c->tree->lock);
  if (again)
    tes_timer_arm(&c->timer, tes_time_monotonic(c->tree->kernel) + period, 0);
  if (wake)
    cg_wake_tasks(c);
}

void cpu_init(Cg *c) {
  tes_timer_init(&c->timer, c->tree->kernel, FALSE, on_period, c);
  cpu_reset(c);
}

/* No callback runs afterwards. */
void cpu_fini(Cg *c) { tes_timer_cancel(&c->timer, TRUE); }

static void charge(Cg *c) {
  gboolean hold = FALSE, arm = FALSE;
  TesTime now = tes_time_monotonic(c->tree->kernel);
  tes_mutex_lock(&c->tree->lock);
  if (!c->dead && c->quota != CG_MAX) {
    c->budget -= TICK_NS;
    arm = !c->timer_armed;
    c->timer_armed = TRUE;
    hold = c->budget <= 0 && !g_atomic_int_get(&c->throttled);
    if (hold) {
      g_atomic_int_set(&c->throttled, 1);
      c->throttles++;
      c->throttled_since = now;
    }
  }
  TesTime period = (TesTime)c->period * US;
  tes_mutex_unlock(&c->tree->lock);
  if (arm)
    tes_timer_arm(&c->timer, now + period, 0);
  if (hold)
    cg_hold_tasks(c);
  tes_mutex_lock(&c->tree->lock);
  gboolean dead = c->dead;
  tes_mutex_unlock(&c->tree->lock);
  if (dead && arm) /* removed meanwhile: nobody else would */
    tes_timer_cancel(&c->timer, FALSE);
}

void cpu_tick(Cg *c) {
  for (; c->parent; c = c->parent)
    if (c->quota != CG_MAX)
      charge(c);
}

/* ---- Files ---- */

static void sum(Cg *c, gpointer data) {
  guint64 *ticks = data;
  ticks[0] += __atomic_load_n(&c->base.utime, __ATOMIC_RELAXED);
  ticks[1] += __atomic_load_n(&c->base.stime, __ATOMIC_RELAXED);
}

int cpu_show_stat(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  guint64 ticks[2] = {0}, us = TICK_NS / US;
  TES_LOCKED(&c->tree->lock);
  cg_foreach(c, sum, ticks);
  g_string_append_printf(s,
                         "usage_usec %" G_GUINT64_FORMAT "\nuser_usec %" G_GUINT64_FORMAT
                         "\nsystem_usec %" G_GUINT64_FORMAT "\n",
                         (ticks[0] + ticks[1]) * us, ticks[0] * us, ticks[1] * us);
  if (c->parent && c->ctl & CTL_CPU) {
    guint64 held = c->throttled_us;
    if (g_atomic_int_get(&c->throttled))
      held += (tes_time_monotonic(c->tree->kernel) - c->throttled_since) / US;
    g_string_append_printf(s,
                           "nr_periods %" G_GUINT64_FORMAT "\nnr_throttled %" G_GUINT64_FORMAT
                           "\nthrottled_usec %" G_GUINT64_FORMAT "\nnr_bursts 0\nburst_usec 0\n",
                           c->periods, c->throttles, held);
  }
  return 0;
}

int cpu_show_max(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  TES_LOCKED(&c->tree->lock);
  if (c->quota == CG_MAX)
    g_string_append(s, "max");
  else
    g_string_append_printf(s, "%" G_GUINT64_FORMAT, c->quota);
  g_string_append_printf(s, " %" G_GUINT64_FORMAT "\n", c->period);
  return 0;
}

int cpu_store_max(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  g_auto(GStrv) w = g_strsplit_set(g_strstrip(text), " \t", -1);
  guint64 quota, period = c->period;
  if (!w[0] || cg_parse_max(w[0], &quota) < 0)
    return -EINVAL;
  if (w[1] && !g_ascii_string_to_unsigned(w[1], 10, 1000, 1000000, &period, NULL))
    return -EINVAL;
  if (quota != CG_MAX && (quota < 1000 || quota > G_MAXINT32))
    return -EINVAL;
  tes_mutex_lock(&c->tree->lock);
  gboolean was = g_atomic_int_get(&c->throttled);
  c->quota = quota;
  c->period = period;
  c->burst = MIN(c->burst, quota);
  c->budget = quota == CG_MAX ? 0 : (gint64)quota * US;
  if (was) {
    g_atomic_int_set(&c->throttled, 0);
    c->throttled_us += (tes_time_monotonic(c->tree->kernel) - c->throttled_since) / US;
  }
  tes_mutex_unlock(&c->tree->lock);
  if (was)
    cg_wake_tasks(c);
  return 0;
}

static int show_number(Cg *c, GString *s, const guint64 *v) {
  TES_LOCKED(&c->tree->lock);
  g_string_append_printf(s, "%" G_GUINT64_FORMAT "\n", *v);
  return 0;
}

static int store_number(Cg *c, char *text, guint64 lo, guint64 hi, int beyond, guint64 *v) {
  guint64 n;
  if (!g_ascii_string_to_unsigned(g_strstrip(text), 10, 0, G_MAXINT64, &n, NULL))
    return -EINVAL;
  if (n < lo || n > hi)
    return beyond;
  TES_LOCKED(&c->tree->lock);
  *v = n;
  return 0;
}

int cpu_show_burst(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  return show_number(c, s, &c->burst);
}
int cpu_store_burst(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  return store_number(c, text, 0, c->quota == CG_MAX ? 0 : c->quota, -EINVAL, &c->burst);
}
int cpu_show_weight(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  return show_number(c, s, &c->weight);
}
int cpu_store_weight(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  return store_number(c, text, 1, 10000, -ERANGE, &c->weight);
}
int cpu_show_idle(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  return show_number(c, s, &c->idle);
}
int cpu_store_idle(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  return store_number(c, text, 0, 1, -EINVAL, &c->idle);
}

/* A step of nice is a quarter more or less: weight 100 is nice 0. */
static guint64 nice_to_weight(int nice) { return (guint64)MAX(1, lround(100 * pow(1.25, -nice))); }

int cpu_show_nice(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  TES_LOCKED(&c->tree->lock);
  int best = -20;
  for (int nice = -19; nice <= 19; nice++)
    if (fabs(log((gdouble)c->weight / nice_to_weight(nice))) <
        fabs(log((gdouble)c->weight / nice_to_weight(best))))
      best = nice;
  g_string_append_printf(s, "%d\n", best);
  return 0;
}

int cpu_store_nice(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  gint64 n;
  if (!g_ascii_string_to_signed(g_strstrip(text), 10, G_MININT32, G_MAXINT32, &n, NULL))
    return -EINVAL;
  if (n < -20 || n > 19)
    return -ERANGE;
  TES_LOCKED(&c->tree->lock);
  c->weight = nice_to_weight((int)n);
  return 0;
}
