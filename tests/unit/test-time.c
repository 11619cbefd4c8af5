/* SPDX-License-Identifier: Apache-2.0 */
/* The timekeeper, its calibrated line, and the timer service: with the host's clocks and with clocks of the test's own. */
#include <core/task/task.h>
#include <core/time/calibrate.h>
#include <core/time/timekeeper.h>
#include <string.h>

/* ---- Calibration ---- */

#define MHZ 3000

static TesSample sample_at(TesTime ns, TesTime error) {
  return (TesSample){(guint64)ns * MHZ / 1000, ns + error};
}

/* A host clock that is read with an error: the line stays within a microsecond or two and never goes back. */
static void test_line(void) {
  TesCalibration c = {0};
  TesVdsoParams p = {0};
  g_autoptr(GRand) rnd = g_rand_new_with_seed(1);
  TesTime now = 1000 * TES_NSEC, shown = 0;
  guint lines = 0;
  for (guint i = 0; i < 20000; i++) {
    TesSample s = sample_at(now, g_rand_int_range(rnd, -50, 50));
    if (tes_calibration_step(&c, &s, &p)) {
      TesTime at_start = tes_calibration_line(&p, s.tsc);
      g_assert_cmpint(at_start, >=, shown);
      g_assert_cmpint(ABS(at_start - now), <, 4000);
      guint64 end = p.base_tsc + p.valid;
      shown = tes_calibration_line(&p, end);
      g_assert_cmpint(shown, >, at_start);
      g_assert_cmpint(ABS(shown - (TesTime)(end * 1000 / MHZ)), <, 4000);
      now = (TesTime)(end * 1000 / MHZ) + g_rand_int_range(rnd, 1, 100000);
      lines++;
    } else {
      now += 300000;
    }
  }
  g_assert_cmpuint(lines, >, 19000);
}

/* The host slept: its clock stood while the counter ran. No line is drawn from such a pair. */
static void test_line_restart(void) {
  TesCalibration c = {0};
  TesVdsoParams p = {0};
  TesSample s = sample_at(TES_NSEC, 0);
  g_assert_false(tes_calibration_step(&c, &s, &p));
  s = sample_at(TES_NSEC + 5000000, 0);
  g_assert_true(tes_calibration_step(&c, &s, &p));
  s.mono += 10000000;
  s.tsc += (guint64)3600 * TES_NSEC * MHZ / 1000;
  g_assert_false(tes_calibration_step(&c, &s, &p));
  s.mono += 5000000;
  s.tsc += 5000000ULL * MHZ / 1000;
  g_assert_true(tes_calibration_step(&c, &s, &p));
}

/* ---- Timekeeper ---- */

static void test_refusal(void) {
  TesTimekeeper *tk = tes_timekeeper_new();
  g_assert_false(tes_timekeeper_has_clocks(tk));
  tes_timekeeper_set_clocks(tk, NULL, NULL);
  g_assert_true(tes_timekeeper_has_clocks(tk));
  tes_timekeeper_free(tk);
}

static TesTime host_now(clockid_t id) {
  struct timespec ts;
  clock_gettime(id, &ts);
  return tes_timespec_to_ns(&ts);
}

static void test_follows_host(void) {
  TesTimekeeper *tk = tes_timekeeper_new();
  TesNow now;
  tes_timekeeper_set_clocks(tk, NULL, NULL);
  TesTime end = host_now(CLOCK_MONOTONIC) + 300 * 1000 * 1000, worst = 0;
  while (host_now(CLOCK_MONOTONIC) < end) {
    TesTime before = host_now(CLOCK_MONOTONIC), real = host_now(CLOCK_REALTIME);
    tes_timekeeper_now(tk, &now);
    TesTime after = host_now(CLOCK_MONOTONIC);
    if (after - before < 5000) { /* else we were interrupted */
      worst = MAX(worst, MAX(before - now.mono, now.mono - after));
      g_assert_cmpint(ABS(now.real - real), <, 100000);
    }
  }
  g_test_message("worst difference from the host's clock: %ld ns", (long)worst);
  g_assert_cmpint(worst, <, 20000);
  tes_timekeeper_free(tk);
}

typedef struct {
  TesTimekeeper *tk;
  TesTime last; /* shared: the largest time any thread has seen; atomic */
  gint stop;
} Shared;

/* What one thread has seen no other may undercut afterwards (C2). */
static gpointer read_clock(gpointer data) {
  Shared *s = data;
  for (guint i = 0; i < 1000000; i++) {
    TesTime seen = __atomic_load_n(&s->last, __ATOMIC_SEQ_CST);
    TesNow now;
    tes_timekeeper_now(s->tk, &now);
    g_assert_cmpint(now.mono, >=, seen);
    while (now.mono > seen &&
           !__atomic_compare_exchange_n(&s->last, &seen, now.mono, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      ;
  }
  return NULL;
}

static gpointer disturb(gpointer data) {
  Shared *s = data;
  while (!g_atomic_int_get(&s->stop)) {
    tes_timekeeper_refresh(s->tk);
    g_usleep(300);
    tes_timekeeper_pause(s->tk);
    tes_timekeeper_resume(s->tk);
    g_usleep(7000);
  }
  return NULL;
}

static void test_never_back(void) {
  Shared s = {.tk = tes_timekeeper_new()};
  tes_timekeeper_set_clocks(s.tk, NULL, NULL);
  GThread *d = g_thread_new("disturb", disturb, &s);
  GThread *t[3];
  for (guint i = 0; i < 3; i++)
    t[i] = g_thread_new("read", read_clock, &s);
  for (guint i = 0; i < 3; i++)
    g_thread_join(t[i]);
  g_atomic_int_set(&s.stop, 1);
  g_thread_join(d);
  tes_timekeeper_free(s.tk);
}

static TesTime fake_mono, fake_real;
static TesTime now_mono(TesClock *c) { return __atomic_load_n(&fake_mono, __ATOMIC_SEQ_CST); }
static TesTime now_real(TesClock *c) { return __atomic_load_n(&fake_real, __ATOMIC_SEQ_CST); }
static TesClock mono_clock = {.now = now_mono}, real_clock = {.now = now_real};

static void test_own_clocks(void) {
  TesTimekeeper *tk = tes_timekeeper_new();
  TesNow now;
  fake_mono = 100 * TES_NSEC;
  fake_real = 5000 * TES_NSEC;
  tes_timekeeper_set_clocks(tk, &real_clock, &mono_clock);
  tes_timekeeper_now(tk, &now);
  g_assert_cmpint(now.mono, ==, 100 * TES_NSEC);
  g_assert_cmpint(now.real, ==, 5000 * TES_NSEC);
  fake_mono = 99 * TES_NSEC; /* a bad clock: monotonic stands still */
  tes_timekeeper_now(tk, &now);
  g_assert_cmpint(now.mono, ==, 100 * TES_NSEC);
  fake_mono = 101 * TES_NSEC;
  fake_real = 3000 * TES_NSEC; /* the date is set back */
  tes_timekeeper_now(tk, &now);
  g_assert_cmpint(now.mono, ==, 101 * TES_NSEC);
  g_assert_cmpint(now.real, ==, 3000 * TES_NSEC);
  tes_timekeeper_free(tk);
}

static void test_pause(void) {
  TesTimekeeper *tk = tes_timekeeper_new();
  TesNow now;
  fake_mono = 100 * TES_NSEC;
  fake_real = 5000 * TES_NSEC;
  tes_timekeeper_set_clocks(tk, &real_clock, &mono_clock);
  tes_timekeeper_pause(tk);
  tes_timekeeper_pause(tk); /* idempotent */
  fake_mono += 10 * TES_NSEC;
  fake_real += 10 * TES_NSEC;
  tes_timekeeper_now(tk, &now);
  g_assert_cmpint(now.mono, ==, 100 * TES_NSEC);
  g_assert_cmpint(tes_timekeeper_to_host(tk, now.mono), ==, TES_TIME_INFINITE);
  tes_timekeeper_resume(tk);
  tes_timekeeper_resume(tk);
  tes_timekeeper_now(tk, &now);
  g_assert_cmpint(now.mono, ==, 100 * TES_NSEC);
  g_assert_cmpint(now.real, ==, 5010 * TES_NSEC);
  g_assert_cmpint(now.boot, ==, 110 * TES_NSEC);
  tes_timekeeper_free(tk);
}

/* ---- Timers ---- */

typedef struct {
  TesKernel *k;
  GMainLoop *loop;
  GThread *thread;
} Fixture;

static gpointer run_loop(gpointer data) {
  Fixture *f = data;
  g_main_context_push_thread_default(f->k->main_context);
  g_main_loop_run(f->loop);
  g_main_context_pop_thread_default(f->k->main_context);
  return NULL;
}

/* A kernel object with nothing in it but time. */
static const TesLockClass test_class = {"test", TES_RANK_RUNNING, FALSE, "test"};
static void set_up(Fixture *f, gconstpointer unused) {
  f->k = g_new0(TesKernel, 1);
  f->k->timekeeper = tes_timekeeper_new();
  tes_timekeeper_set_clocks(f->k->timekeeper, NULL, NULL);
  f->k->main_context = g_main_context_new();
  f->k->cores = 2;
  f->k->tasks = g_hash_table_new(NULL, NULL);
  tes_mutex_init(&f->k->running_lock, &test_class);
  tes_mutex_init(&f->k->task_set, &test_class);
  tes_timers_init(f->k);
  tes_ticker_init(f->k);
  f->loop = g_main_loop_new(f->k->main_context, FALSE);
  f->thread = g_thread_new("events", run_loop, f);
}

static void tear_down(Fixture *f, gconstpointer unused) {
  g_main_loop_quit(f->loop);
  g_thread_join(f->thread);
  tes_ticker_free(f->k);
  tes_timers_free(f->k);
  g_main_loop_unref(f->loop);
  g_main_context_unref(f->k->main_context);
  tes_timekeeper_free(f->k->timekeeper);
  g_hash_table_unref(f->k->tasks);
  g_free(f->k);
}

typedef struct {
  TesTimer timer;
  gint fired;
  TesTime due, late;
} Probe;

static void on_fire(TesTimer *t, guint64 missed, gpointer data) {
  Probe *p = data;
  p->late = tes_time_monotonic(t->kernel) - p->due;
  g_atomic_int_add(&p->fired, (gint)missed);
}

static void wait_for(gint *counter, gint n) {
  for (guint i = 0; i < 5000 && g_atomic_int_get(counter) < n; i++)
    g_usleep(1000);
  g_assert_cmpint(g_atomic_int_get(counter), >=, n);
}

static void test_many_timers(Fixture *f, gconstpointer unused) {
  enum { N = 500 };
  g_autofree Probe *p = g_new0(Probe, N);
  g_autoptr(GRand) rnd = g_rand_new_with_seed(3);
  TesTime now = tes_time_monotonic(f->k);
  for (guint i = 0; i < N; i++) {
    tes_timer_init(&p[i].timer, f->k, i & 1, on_fire, &p[i]);
    TesTime delay = g_rand_int_range(rnd, 0, 200 * 1000 * 1000);
    p[i].due = now + delay;
    tes_timer_arm(&p[i].timer, (i & 1 ? tes_time_realtime(f->k) - tes_time_monotonic(f->k) : 0) + p[i].due,
                  0);
  }
  for (guint i = 0; i < N; i += 5)
    tes_timer_cancel(&p[i].timer, TRUE);
  g_usleep(300 * 1000);
  for (guint i = 0; i < N; i++) {
    gint fired = g_atomic_int_get(&p[i].fired);
    if (i % 5 == 0) {
      g_assert_cmpint(fired, <=, 1); /* it may have been due before it was cancelled */
      continue;
    }
    wait_for(&p[i].fired, 1);
    g_assert_cmpint(g_atomic_int_get(&p[i].fired), ==, 1);
    g_assert_cmpint(p[i].late, >=, -3000); /* realtime: the two clocks were read one after the other */
  }
}

static void test_period(Fixture *f, gconstpointer unused) {
  Probe p = {0};
  TesTime left, period, start = tes_time_monotonic(f->k);
  tes_timer_init(&p.timer, f->k, FALSE, on_fire, &p);
  tes_timer_get(&p.timer, &left, &period);
  g_assert_cmpint(left, ==, 0);
  tes_timer_arm(&p.timer, start + 10 * 1000 * 1000, 10 * 1000 * 1000);
  wait_for(&p.fired, 10);
  tes_timer_get(&p.timer, &left, &period);
  g_assert_cmpint(period, ==, 10 * 1000 * 1000);
  tes_timer_cancel(&p.timer, TRUE);
  TesTime passed = tes_time_monotonic(f->k) - start;
  g_assert_cmpint(p.fired, <=, passed / (10 * 1000 * 1000));
  gint fired = p.fired;
  g_usleep(30 * 1000);
  g_assert_cmpint(p.fired, ==, fired);
}

/* A period of 1 ns counts its expirations without eating the processor. */
static void test_shortest_period(Fixture *f, gconstpointer unused) {
  Probe p = {0};
  tes_timer_init(&p.timer, f->k, FALSE, on_fire, &p);
  TesTime cpu = host_now(CLOCK_PROCESS_CPUTIME_ID);
  tes_timer_arm(&p.timer, tes_time_monotonic(f->k), 1);
  g_usleep(100 * 1000);
  tes_timer_cancel(&p.timer, TRUE);
  g_assert_cmpint(p.fired, >, 50 * 1000 * 1000);
  g_test_message("CPU time: %ld us of 100 ms", (long)(host_now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1000);
}

static void test_timer_pause(Fixture *f, gconstpointer unused) {
  Probe p = {0};
  tes_timer_init(&p.timer, f->k, FALSE, on_fire, &p);
  tes_timer_arm(&p.timer, p.due = tes_time_monotonic(f->k) + 50 * 1000 * 1000, 0);
  tes_time_pause(f->k);
  g_usleep(100 * 1000);
  g_assert_cmpint(g_atomic_int_get(&p.fired), ==, 0);
  tes_time_resume(f->k);
  wait_for(&p.fired, 1);
  g_assert_cmpint(p.late, >=, 0);
  g_assert_cmpint(p.late, <, 40 * 1000 * 1000);
}

/* ---- CPU clock ---- */

static void test_ticker(Fixture *f, gconstpointer unused) {
  guint64 start = tes_kernel_cpu_ticks(f->k);
  g_usleep(100 * 1000);
  g_assert_cmpuint(tes_kernel_cpu_ticks(f->k), ==, start); /* nothing runs: it stands (C8) */
  tes_running_inc(f->k);                                   /* 0 -> 1 adds what was missed (C9) */
  guint64 resumed = tes_kernel_cpu_ticks(f->k);
  g_assert_cmpuint(resumed - start, >=, 9);
  g_usleep(205 * 1000);
  guint64 ran = tes_kernel_cpu_ticks(f->k) - resumed;
  g_assert_cmpuint(ran, >=, 15);
  g_assert_cmpuint(ran, <=, 21);
  for (guint i = 0; i < 100000; i++) { /* blocking and running again, as tasks do all the time */
    tes_running_dec(f->k);
    tes_running_inc(f->k);
  }
  tes_running_dec(f->k);
  g_usleep(50 * 1000);
  guint64 stopped = tes_kernel_cpu_ticks(f->k);
  g_usleep(100 * 1000);
  g_assert_cmpuint(tes_kernel_cpu_ticks(f->k), ==, stopped);
}

static void test_conversions(void) {
  struct timespec ts = {G_MAXINT64, 999999999};
  g_assert_cmpint(tes_timespec_to_ns(&ts), ==, TES_TIME_INFINITE - 1);
  ts = (struct timespec){1, 5};
  g_assert_cmpint(tes_timespec_to_ns(&ts), ==, TES_NSEC + 5);
  g_assert_cmpint(tes_time_add(TES_TIME_INFINITE - 1, TES_TIME_INFINITE - 1), ==, TES_TIME_INFINITE - 1);
  g_assert_cmpint(tes_time_add(1, 2), ==, 3);
  ts.tv_nsec = TES_NSEC;
  g_assert_false(tes_timespec_valid(&ts));
}

#define ADD(name, fn) g_test_add("/time/" name, Fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/time/line", test_line);
  g_test_add_func("/time/line-restart", test_line_restart);
  g_test_add_func("/time/conversions", test_conversions);
  g_test_add_func("/time/refusal", test_refusal);
  g_test_add_func("/time/follows-host", test_follows_host);
  g_test_add_func("/time/never-back", test_never_back);
  g_test_add_func("/time/own-clocks", test_own_clocks);
  g_test_add_func("/time/pause", test_pause);
  ADD("timers/many", test_many_timers);
  ADD("timers/period", test_period);
  ADD("timers/shortest-period", test_shortest_period);
  ADD("timers/pause", test_timer_pause);
  ADD("ticker", test_ticker);
  return g_test_run();
}
