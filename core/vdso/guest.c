/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's vDSO: runs in guest processes, without a C library, without relocations, without writable data.
 * Answers clock questions from the parameter page behind the image; what it cannot answer it asks the kernel
 * for by a system call. vdso(7). */
#include <core/vdso/params.h>
#include <stddef.h>

#define SYS_gettimeofday 96
#define SYS_time 201
#define SYS_clock_gettime 228
#define SYS_clock_getres 229
#define SYS_getcpu 309

enum {
  REALTIME = 0,
  MONOTONIC = 1,
  MONOTONIC_RAW = 4,
  REALTIME_COARSE = 5,
  MONOTONIC_COARSE = 6,
  BOOTTIME = 7
};

struct timespec_ {
  int64_t sec, nsec;
};
struct timeval_ {
  int64_t sec, usec;
};
struct timezone_ {
  int32_t minutes_west, dst_time;
};

/* Defined by the linker script: the page behind the image. */
extern const TesVdsoParams tes_vdso_params __attribute__((visibility("hidden")));

#define EXPORT __attribute__((visibility("default")))
int __vdso_clock_gettime(int clock, struct timespec_ *ts);
int __vdso_gettimeofday(struct timeval_ *tv, struct timezone_ *tz);
int64_t __vdso_time(int64_t *t);
int __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused);
int __vdso_clock_getres(int clock, struct timespec_ *res);

static inline long call(long nr, long a, long b) {
  long r;
  __asm__ __volatile__("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory");
  return r;
}

/* Division by a constant of a value that is never negative. */
static inline void split(int64_t ns, int64_t *sec, int64_t *rest) {
  *sec = (int64_t)((uint64_t)ns / 1000000000u);
  *rest = (int64_t)((uint64_t)ns % 1000000000u);
}

/* 1 and *ns, or 0: not a clock of the page, or the page has no answer now. */
static inline int read_clock(int clock, int64_t *ns) {
  int64_t mono, real_off, boot_off;
  if ((unsigned)clock > BOOTTIME || !(0xf3u >> clock & 1)) /* not the CPU clocks 2 and 3 */
    return 0;
  if (!tes_vdso_read(&tes_vdso_params, &mono, &real_off, &boot_off))
    return 0;
  if (clock == REALTIME_COARSE || clock == MONOTONIC_COARSE)
    mono -= (int64_t)((uint64_t)mono % TES_COARSE_NS);
  if (clock == REALTIME || clock == REALTIME_COARSE)
    mono += real_off;
  else if (clock == BOOTTIME)
    mono += boot_off;
  *ns = mono;
  return mono >= 0;
}

EXPORT int __vdso_clock_gettime(int clock, struct timespec_ *ts) {
  int64_t ns;
  if (!read_clock(clock, &ns))
    return (int)call(SYS_clock_gettime, clock, (long)ts);
  split(ns, &ts->sec, &ts->nsec);
  return 0;
}

EXPORT int __vdso_gettimeofday(struct timeval_ *tv, struct timezone_ *tz) {
  int64_t ns;
  if (!tv || !read_clock(REALTIME, &ns))
    return (int)call(SYS_gettimeofday, (long)tv, (long)tz);
  split(ns, &tv->sec, &tv->usec);
  tv->usec = (int64_t)((uint64_t)tv->usec / 1000u);
  if (tz) {
    tz->minutes_west = 0;
    tz->dst_time = 0;
  }
  return 0;
}

EXPORT int64_t __vdso_time(int64_t *t) {
  int64_t ns, sec, rest;
  if (!read_clock(REALTIME_COARSE, &ns))
    return call(SYS_time, (long)t, 0);
  split(ns, &sec, &rest);
  if (t)
    *t = sec;
  return sec;
}

EXPORT int __vdso_clock_getres(int clock, struct timespec_ *res) {
  if ((unsigned)clock > BOOTTIME || !(0xf3u >> clock & 1))
    return (int)call(SYS_clock_getres, clock, (long)res);
  if (res) {
    res->sec = 0;
    res->nsec = clock == REALTIME_COARSE || clock == MONOTONIC_COARSE ? TES_COARSE_NS : 1;
  }
  return 0;
}

/* The host keeps CPU (12 bits) and node in the limit of a segment that every user program may read. */
EXPORT int __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused) {
  (void)unused;
  if (__atomic_load_n(&tes_vdso_params.ask_cpu, __ATOMIC_RELAXED))
    return (int)call(SYS_getcpu, (long)cpu, (long)node);
  unsigned n;
  __asm__("lsl %1, %0" : "=r"(n) : "r"(0x7b));
  unsigned cores = __atomic_load_n(&tes_vdso_params.cores, __ATOMIC_RELAXED);
  n &= 0xfff;
  if (cpu)
    *cpu = cores && n >= cores ? n % cores : n;
  if (node)
    *node = 0;
  return 0;
}

#define ALIAS(name) __attribute__((weak, alias("__vdso_" #name), visibility("default")))
int clock_gettime(int, struct timespec_ *) ALIAS(clock_gettime);
int gettimeofday(struct timeval_ *, struct timezone_ *) ALIAS(gettimeofday);
int64_t time(int64_t *) ALIAS(time);
int getcpu(unsigned *, unsigned *, void *) ALIAS(getcpu);
int clock_getres(int, struct timespec_ *) ALIAS(clock_getres);
