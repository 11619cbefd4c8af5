/* SPDX-License-Identifier: Apache-2.0 */
/* The timekeeper: the sandbox's monotonic, realtime and boot clocks (C1-C3), their pausing (C10, C13), and the parameters of
 * the vDSO. Interface: <tessera/time.h>, timekeeper.h.
 *
 * With the host's clocks and a usable time stamp counter, the kernel reads time exactly as guests do: from the
 * calibrated line (core/vdso/params.h). Only an expired line takes the lock. Otherwise every reading takes the lock and asks the
 * clocks, and the monotonic clock is kept from going back. */
#include <core/task/task.h>
#include <core/time/calibrate.h>
#include <core/time/timekeeper.h>
#include <string.h>
#include <time.h>

#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define SAMPLE_TRIES 3
#define REAL_JITTER 2000 /* ns: a smaller change of realtime - monotonic is measuring error */

/* Any code may ask for the time under any lock, so this one comes after all others. */
static const TesLockClass timekeeper_class = {"timekeeper", TES_RANK_LEAF + 1, FALSE, "clock parameters"};

struct _TesTimekeeper {
  TesMutex lock;
  gboolean set, host; /* clocks were set; they are the host's */
  gboolean tsc;       /* the counter may be used */
  TesClock *real_src, *mono_src;
  TesClock real_clock, mono_clock; /* the sandbox's own, for the context table (K12) */
  TesVdsoParams p;                 /* own copy, read without the lock */
  TesVdsoParams *page;             /* the guests' copy, written only */
  TesCalibration cal;
  TesTime adjust;             /* sandbox's monotonic - source's; grows smaller by every pause; atomic */
  TesTime floor;              /* no monotonic time below this may be given out under the lock */
  TesTime real_off, boot_off; /* of the sandbox's monotonic clock */
  gint paused;                /* atomic */
  TesTime paused_at;
};

/* ---- The host's clocks ---- */

static TesTime host_clock(clockid_t id) {
  struct timespec ts;
  clock_gettime(id, &ts);
  return ts.tv_sec * TES_NSEC + ts.tv_nsec;
}

static TesTime host_real(TesClock *c) {
  (void)c;
  return host_clock(CLOCK_REALTIME);
}
static TesTime host_mono(TesClock *c) {
  (void)c;
  return host_clock(CLOCK_MONOTONIC);
}
static TesClock host_real_clock = {.now = host_real}, host_mono_clock = {.now = host_mono};

/* Where the host itself trusts the counter, so may we: it is then constant, and the same on all CPUs. */
static gboolean host_uses_tsc(void) {
  g_autofree char *name = NULL;
  return g_file_get_contents(CLOCKSOURCE, &name, NULL, NULL) && g_str_has_prefix(name, "tsc");
}

/* Counter and clock at one instant: the tightest of a few tries. */
static TesSample take_sample(void) {
  TesSample best = {0};
  guint64 best_width = G_MAXUINT64;
  for (guint i = 0; i < SAMPLE_TRIES; i++) {
    guint64 before = tes_rdtsc();
    TesTime mono = host_clock(CLOCK_MONOTONIC);
    guint64 width = tes_rdtsc() - before;
    if (width < best_width) {
      best_width = width;
      best = (TesSample){before + width / 2, mono};
    }
  }
  return best;
}

/* ---- Construction ---- */

static TesTime sandbox_real(TesClock *c) {
  TesNow now;
  tes_timekeeper_now(c->data, &now);
  return now.real;
}
static TesTime sandbox_mono(TesClock *c) {
  TesNow now;
  tes_timekeeper_now(c->data, &now);
  return now.mono;
}

TesTimekeeper *tes_timekeeper_new(void) {
  TesTimekeeper *tk = g_new0(TesTimekeeper, 1);
  tes_mutex_init(&tk->lock, &timekeeper_class);
  tk->real_clock = (TesClock){sandbox_real, tk};
  tk->mono_clock = (TesClock){sandbox_mono, tk};
  tk->floor = G_MININT64;
  return tk;
}

void tes_timekeeper_free(TesTimekeeper *tk) {
  tes_mutex_clear(&tk->lock);
  g_free(tk);
}

gboolean tes_timekeeper_has_clocks(const TesTimekeeper *tk) { return tk->set; }
TesClock *tes_timekeeper_clock(TesTimekeeper *tk, gboolean realtime) {
  return realtime ? &tk->real_clock : &tk->mono_clock;
}

/* ---- Parameters ---- */

/* Readers that see an odd number, or two different ones, try again or ask the kernel. */
static void store_params(TesVdsoParams *to, const TesVdsoParams *from) {
  guint32 seq = to->seq;
  __atomic_store_n(&to->seq, seq + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  __atomic_store_n(&to->usable, from->usable, __ATOMIC_RELAXED);
  __atomic_store_n(&to->base_tsc, from->base_tsc, __ATOMIC_RELAXED);
  __atomic_store_n(&to->valid, from->valid, __ATOMIC_RELAXED);
  __atomic_store_n(&to->mult, from->mult, __ATOMIC_RELAXED);
  __atomic_store_n(&to->mono, from->mono, __ATOMIC_RELAXED);
  __atomic_store_n(&to->real_off, from->real_off, __ATOMIC_RELAXED);
  __atomic_store_n(&to->boot_off, from->boot_off, __ATOMIC_RELAXED);
  __atomic_store_n(&to->cores, from->cores, __ATOMIC_RELAXED);
  __atomic_store_n(&to->ask_cpu, from->ask_cpu, __ATOMIC_RELAXED);
  __atomic_store_n(&to->seq, seq + 2, __ATOMIC_RELEASE);
}

static void publish(TesTimekeeper *tk, const TesVdsoParams *p) {
  store_params(&tk->p, p);
  if (tk->page)
    store_params(tk->page, p);
}

/* Asks the source what lies between its two clocks: the tightest of a few readings of one between two of the other. Realtime
 * may be set at any time; boot time also counts the host's sleep. A pause adds to both by lowering the monotonic clock. */
static void measure_offsets(TesTimekeeper *tk) {
  TesTime best_width = TES_TIME_INFINITE, real = 0, boot = 0;
  for (guint i = 0; i < SAMPLE_TRIES && best_width > REAL_JITTER / 2; i++) {
    TesTime before = tk->mono_src->now(tk->mono_src);
    TesTime r = tk->real_src->now(tk->real_src), b = tk->host ? host_clock(CLOCK_BOOTTIME) : before;
    TesTime width = tk->mono_src->now(tk->mono_src) - before;
    if (width >= best_width)
      continue;
    best_width = width;
    real = r - before - tk->adjust;
    boot = b - before - tk->adjust;
  }
  if (ABS(real - tk->real_off) > REAL_JITTER)
    tk->real_off = real;
  if (ABS(boot - tk->boot_off) > REAL_JITTER)
    tk->boot_off = boot;
}

/* The line is about to go: what it may have shown must not be undercut. */
static void raise_floor(TesTimekeeper *tk, const TesVdsoParams *line) {
  TesTime shown = line->usable ? tes_calibration_line(line, tes_rdtsc()) : tk->floor;
  tk->floor = MAX(tk->floor, shown);
}

/* New parameters from a fresh sample. Lock held, clocks running. */
static void refresh(TesTimekeeper *tk) {
  TesVdsoParams old = tk->p, next = old;
  measure_offsets(tk);
  next.usable = FALSE;
  if (tk->tsc) {
    TesSample s = take_sample();
    s.mono += tk->adjust;
    next.usable = tes_calibration_step(&tk->cal, &s, &next);
    if (next.usable && next.mono < tk->floor)
      next.mono = tk->floor; /* a reading under the lock came first */
  }
  next.real_off = tk->real_off;
  next.boot_off = tk->boot_off;
  publish(tk, &next);
  if (!next.usable)
    raise_floor(tk, &old);
}

static TesTime read_source(TesTimekeeper *tk) {
  TesTime mono = tk->paused ? tk->paused_at : tk->mono_src->now(tk->mono_src) + tk->adjust;
  return tk->floor = MAX(mono, tk->floor);
}

static void now_locked(TesTimekeeper *tk, TesNow *out) {
  gint64 mono, real_off, boot_off;
  if (!tk->paused && tk->tsc && !tes_vdso_read(&tk->p, &mono, &real_off, &boot_off))
    refresh(tk);
  else if (!tk->paused && !tk->tsc)
    measure_offsets(tk);
  if (!tes_vdso_read(&tk->p, &mono, &real_off, &boot_off)) {
    mono = read_source(tk);
    real_off = tk->real_off;
    boot_off = tk->boot_off;
  }
  *out = (TesNow){mono, mono + real_off, mono + boot_off};
}

void tes_timekeeper_now(TesTimekeeper *tk, TesNow *out) {
  gint64 mono, real_off, boot_off;
  if (G_LIKELY(tes_vdso_read(&tk->p, &mono, &real_off, &boot_off))) {
    *out = (TesNow){mono, mono + real_off, mono + boot_off};
    return;
  }
  TES_LOCKED(&tk->lock);
  now_locked(tk, out);
}

TesTime tes_timekeeper_to_host(TesTimekeeper *tk, TesTime t) {
  if (t == TES_TIME_INFINITE || g_atomic_int_get(&tk->paused))
    return TES_TIME_INFINITE;
  TesTime host;
  if (tk->host)
    return __builtin_sub_overflow(t, __atomic_load_n(&tk->adjust, __ATOMIC_RELAXED), &host)
               ? TES_TIME_INFINITE
               : host;
  TesNow now;
  tes_timekeeper_now(tk, &now);
  TesTime left = t > now.mono ? t - now.mono : 0;
  return __builtin_add_overflow(host_clock(CLOCK_MONOTONIC), left, &host) ? TES_TIME_INFINITE : host;
}

void tes_timekeeper_set_clocks(TesTimekeeper *tk, TesClock *realtime, TesClock *monotonic) {
  TES_LOCKED(&tk->lock);
  tk->host = !realtime && !monotonic;
  tk->real_src = realtime ? realtime : &host_real_clock;
  tk->mono_src = monotonic ? monotonic : &host_mono_clock;
  tk->tsc = tk->host && host_uses_tsc();
  tk->set = TRUE;
  refresh(tk);
}

void tes_timekeeper_publish_to(TesTimekeeper *tk, TesVdsoParams *page, guint cores) {
  TES_LOCKED(&tk->lock);
  TesVdsoParams p = tk->p;
  p.cores = cores;
  tk->page = page;
  publish(tk, &p);
}

void tes_timekeeper_ask_cpu(TesTimekeeper *tk) {
  TES_LOCKED(&tk->lock);
  TesVdsoParams p = tk->p;
  if (p.ask_cpu)
    return;
  p.ask_cpu = TRUE;
  publish(tk, &p);
}

void tes_timekeeper_refresh(TesTimekeeper *tk) {
  TES_LOCKED(&tk->lock);
  if (!tk->paused)
    refresh(tk);
}

/* ---- Pausing ---- */

void tes_timekeeper_pause(TesTimekeeper *tk) {
  TES_LOCKED(&tk->lock);
  if (tk->paused)
    return;
  TesVdsoParams line = tk->p, stopped = line;
  stopped.usable = FALSE;
  publish(tk, &stopped); /* first: readers that still saw the line looked at the counter before we do */
  raise_floor(tk, &line);
  tk->paused_at = read_source(tk);
  g_atomic_int_set(&tk->paused, TRUE);
}

/* Monotonic goes on where it stopped; realtime and boot time have gone on meanwhile. */
void tes_timekeeper_resume(TesTimekeeper *tk) {
  TES_LOCKED(&tk->lock);
  if (!tk->paused)
    return;
  __atomic_store_n(&tk->adjust, tk->paused_at - tk->mono_src->now(tk->mono_src), __ATOMIC_RELAXED);
  g_atomic_int_set(&tk->paused, FALSE);
  tk->cal = (TesCalibration){.started = FALSE};
  refresh(tk);
}

gboolean tes_timekeeper_is_paused(TesTimekeeper *tk) { return g_atomic_int_get(&tk->paused); }

/* ---- The kernel's clocks ---- */

TesTime tes_time_monotonic(TesKernel *k) {
  TesNow now;
  tes_timekeeper_now(k->timekeeper, &now);
  return now.mono;
}
TesTime tes_time_realtime(TesKernel *k) {
  TesNow now;
  tes_timekeeper_now(k->timekeeper, &now);
  return now.real;
}
TesTime tes_time_boot(TesKernel *k) {
  TesNow now;
  tes_timekeeper_now(k->timekeeper, &now);
  return now.boot;
}
TesClock *tes_kernel_realtime_clock(TesKernel *k) { return tes_timekeeper_clock(k->timekeeper, TRUE); }
TesClock *tes_kernel_monotonic_clock(TesKernel *k) { return tes_timekeeper_clock(k->timekeeper, FALSE); }
TesTime tes_time_to_host(TesKernel *k, TesTime t) { return tes_timekeeper_to_host(k->timekeeper, t); }
