/* SPDX-License-Identifier: Apache-2.0 */
/* The parameter page: how to make the sandbox's clocks from the time stamp counter. Written by the timekeeper, read
 * by the guest's vDSO and, from the timekeeper's own copy, by the kernel: the same arithmetic on the same numbers, so that the
 * two never disagree. Included by code without a C library: only compiler headers here.
 *
 * Reading: seq (even, else ask the kernel), counter, fields, seq again. A counter value more than `valid` cycles
 * behind `base_tsc` has expired: ask the kernel, which refreshes the page. An idle sandbox therefore needs no timer. */
#pragma once

#include <stdint.h>

#define TES_VDSO_SHIFT 48
#define TES_COARSE_NS 4000000 /* granularity of the *_COARSE clocks: 4 ms, as a 250 Hz kernel */

typedef struct {
  uint32_t seq;
  uint32_t usable; /* 0: always ask the kernel (no TSC, paused, foreign clocks) */
  uint64_t base_tsc;
  uint64_t valid;   /* cycles */
  uint64_t mult;    /* ns per cycle << TES_VDSO_SHIFT */
  int64_t mono;     /* CLOCK_MONOTONIC at base_tsc, ns */
  int64_t real_off; /* CLOCK_REALTIME - CLOCK_MONOTONIC */
  int64_t boot_off; /* CLOCK_BOOTTIME - CLOCK_MONOTONIC */
  uint32_t cores;   /* getcpu answers below this; 0: the host's numbers (X3) */
  uint32_t ask_cpu; /* getcpu asks the kernel: some task has limited its affinity */
} TesVdsoParams;

static inline uint64_t tes_rdtsc(void) {
  uint32_t lo, hi;
  __asm__ __volatile__("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory"); /* not before earlier loads */
  return (uint64_t)hi << 32 | lo;
}

/* 1 and the clocks, or 0: ask the kernel. */
static inline int tes_vdso_read(const TesVdsoParams *p, int64_t *mono, int64_t *real_off, int64_t *boot_off) {
  uint32_t seq;
  do {
    seq = __atomic_load_n(&p->seq, __ATOMIC_ACQUIRE);
    if ((seq & 1) || !__atomic_load_n(&p->usable, __ATOMIC_RELAXED))
      return 0;
    int64_t delta = (int64_t)(tes_rdtsc() - __atomic_load_n(&p->base_tsc, __ATOMIC_RELAXED));
    if (delta < 0)
      delta = 0; /* counters of two cores a few cycles apart */
    if ((uint64_t)delta > __atomic_load_n(&p->valid, __ATOMIC_RELAXED))
      return 0;
    uint64_t ns =
        (uint64_t)((unsigned __int128)delta * __atomic_load_n(&p->mult, __ATOMIC_RELAXED) >> TES_VDSO_SHIFT);
    *mono = __atomic_load_n(&p->mono, __ATOMIC_RELAXED) + (int64_t)ns;
    *real_off = __atomic_load_n(&p->real_off, __ATOMIC_RELAXED);
    *boot_off = __atomic_load_n(&p->boot_off, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
  } while (__atomic_load_n(&p->seq, __ATOMIC_RELAXED) != seq);
  return 1;
}
