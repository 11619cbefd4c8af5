/* SPDX-License-Identifier: Apache-2.0 */
/* Repeats an operation and prints `NAME MIN MEDIAN`, nanoseconds for each. No GLib: the guest half is a static program. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MEASURE_BATCHES 4000
#define MEASURE_BATCH_NS 30000.0 /* a batch is long against the clock's own cost */
#define MEASURE_TOTAL_NS 400e6

static inline double measure_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int measure_compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static inline void measure_print(const char *name, double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, measure_compare);
  printf("%s %.1f %.1f\n", name, values[0], values[n / 2]);
  fflush(stdout);
}

/* `once` does the operation one time. At least five batches, at most MEASURE_TOTAL_NS. */
static inline void measure(const char *name, void (*once)(void)) {
  static double values[MEASURE_BATCHES];
  int n = 0;
  double begin, one = 1e18;
  for (int i = 0; i < 5; i++) {
    begin = measure_now();
    once();
    double took = measure_now() - begin;
    one = took < one ? took : one;
  }
  long batch = one > 0 && one < MEASURE_BATCH_NS ? (long)(MEASURE_BATCH_NS / one) + 1 : 1;
  double end = measure_now() + MEASURE_TOTAL_NS;
  while (n < MEASURE_BATCHES && (n < 5 || measure_now() < end)) {
    begin = measure_now();
    for (long i = 0; i < batch; i++)
      once();
    values[n++] = (measure_now() - begin) / (double)batch;
  }
  measure_print(name, values, n);
}
