/* SPDX-License-Identifier: Apache-2.0 */
/* vdso.c - the vDSO image and its functions, against the system calls they stand for (X6, C1-C3). */
#include "check.h"

#include <elf.h>
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <sys/sysinfo.h>

typedef struct {
  const Elf64_Sym *sym;
  const char *str;
  const Elf64_Versym *versym;
  size_t nsyms;
  uintptr_t bias;
} Vdso;

static const Elf64_Ehdr *ehdr(void) { return (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR); }

static size_t count_symbols(const uint32_t *hash, const uint32_t *gnu) {
  if (hash)
    return hash[1];
  /* DT_GNU_HASH: the highest bucket's chain ends the table. */
  uint32_t nbuckets = gnu[0], offset = gnu[1], bloom = gnu[2], last = 0;
  const uint32_t *buckets = gnu + 4 + bloom * 2, *chain = buckets + nbuckets;
  for (uint32_t i = 0; i < nbuckets; i++)
    if (buckets[i] > last)
      last = buckets[i];
  if (last < offset)
    return offset;
  while (!(chain[last - offset] & 1))
    last++;
  return last + 1;
}

static void parse(Vdso *v) {
  const Elf64_Ehdr *e = ehdr();
  const Elf64_Phdr *ph = (const void *)((const char *)e + e->e_phoff);
  const Elf64_Dyn *dyn = NULL;
  const uint32_t *hash = NULL, *gnu = NULL;
  bool have_load = false;

  *v = (Vdso){0};
  for (int i = 0; i < e->e_phnum; i++)
    if (ph[i].p_type == PT_LOAD && !have_load) {
      v->bias = (uintptr_t)e + ph[i].p_offset - ph[i].p_vaddr;
      have_load = true;
    } else if (ph[i].p_type == PT_DYNAMIC) {
      dyn = (const void *)((const char *)e + ph[i].p_offset);
    }
  REQUIRE(have_load && dyn != NULL);
  for (; dyn->d_tag != DT_NULL; dyn++) {
    void *p = (void *)(v->bias + dyn->d_un.d_ptr);
    switch (dyn->d_tag) {
    case DT_STRTAB:
      v->str = p;
      break;
    case DT_SYMTAB:
      v->sym = p;
      break;
    case DT_HASH:
      hash = p;
      break;
    case DT_GNU_HASH:
      gnu = p;
      break;
    case DT_VERSYM:
      v->versym = p;
      break;
    }
  }
  REQUIRE(v->str && v->sym && (hash || gnu));
  v->nsyms = count_symbols(hash, gnu);
}

static void *lookup(const char *name) {
  Vdso v;

  parse(&v);
  for (size_t i = 0; i < v.nsyms; i++)
    if (v.sym[i].st_shndx != SHN_UNDEF && strcmp(v.str + v.sym[i].st_name, name) == 0)
      return (void *)(v.bias + v.sym[i].st_value);
  return NULL;
}

static int (*fn_gettime)(clockid_t, struct timespec *);
static int (*fn_getres)(clockid_t, struct timespec *);
static int (*fn_gettimeofday)(struct timeval *, void *);
static time_t (*fn_time)(time_t *);
static long (*fn_getcpu)(unsigned *, unsigned *, void *);

static void load(void) {
  if (!ehdr())
    SKIP("no vDSO (AT_SYSINFO_EHDR is absent)");
  fn_gettime = lookup("__vdso_clock_gettime");
  fn_getres = lookup("__vdso_clock_getres");
  fn_gettimeofday = lookup("__vdso_gettimeofday");
  fn_time = lookup("__vdso_time");
  fn_getcpu = lookup("__vdso_getcpu");
  REQUIRE(fn_gettime && fn_gettimeofday && fn_time && fn_getcpu);
}

static int64_t ns_of(const struct timespec *ts) { return ts->tv_sec * 1000000000LL + ts->tv_nsec; }

TEST(image_is_elf) {
  const Elf64_Ehdr *e = ehdr();

  REQUIRE(e != NULL);
  CHECK((uintptr_t)e % PAGE == 0);
  CHECK(memcmp(e->e_ident, ELFMAG, SELFMAG) == 0);
  CHECK_EQ(e->e_type, ET_DYN);
  CHECK_EQ(e->e_machine, EM_X86_64);
  CHECK_EQ(e->e_phentsize, sizeof(Elf64_Phdr));
  CHECK(e->e_phnum > 0 && e->e_phnum < 20);
  CHECK_EQ(touch_write((void *)e, NULL), SIGSEGV); /* not writable */
}

TEST(symbols_are_there) {
  load();
  CHECK(fn_getres != NULL);
}

TEST(symbols_are_versioned) {
  Vdso v;

  load();
  parse(&v);
  CHECK(v.versym != NULL); /* glibc looks for LINUX_2.6 and ignores the others */
}

TEST(maps_names_it) {
  char *maps = read_file("/proc/self/maps", NULL);

  REQUIRE(maps != NULL);
  char *line = strstr(maps, "[vdso]");
  CHECK(line != NULL);
  free(maps);
}

TEST(agrees_with_the_syscall) {
  static const clockid_t clocks[] = {CLOCK_REALTIME,         CLOCK_MONOTONIC, CLOCK_REALTIME_COARSE,
                                     CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME,  CLOCK_TAI,
                                     CLOCK_MONOTONIC_RAW};

  load();
  for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++)
    for (int i = 0; i < 50; i++) {
      struct timespec a, b, d;
      SYS(syscall(SYS_clock_gettime, clocks[c], &a));
      CHECK_EQ(fn_gettime(clocks[c], &b), 0);
      SYS(syscall(SYS_clock_gettime, clocks[c], &d));
      if (ns_of(&a) > ns_of(&b) || ns_of(&b) > ns_of(&d)) {
        check_fail(__FILE__, __LINE__, "clock %d: %lld, %lld, %lld", clocks[c], (long long)ns_of(&a),
                   (long long)ns_of(&b), (long long)ns_of(&d));
        break;
      }
    }
}

TEST(bad_clock) {
  struct timespec ts;

  load();
  long r = fn_gettime(1000, &ts); /* falls back to the system call */
  CHECK(r == -EINVAL || r == -1);
  CHECK_EQ(fn_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);
  CHECK_EQ(fn_gettime(CLOCK_THREAD_CPUTIME_ID, &ts), 0);
  CHECK(ts.tv_nsec >= 0 && ts.tv_nsec < 1000000000);
}

TEST(gettimeofday_and_time) {
  load();
  for (int i = 0; i < 20; i++) {
    struct timeval a, b;
    struct timespec ts;
    SYS(clock_gettime(CLOCK_REALTIME, &ts));
    CHECK_EQ(fn_gettimeofday(&a, NULL), 0);
    SYS(syscall(SYS_gettimeofday, &b, NULL));
    int64_t ua = a.tv_sec * 1000000LL + a.tv_usec;
    CHECK(ua >= ns_of(&ts) / 1000 && ua <= b.tv_sec * 1000000LL + b.tv_usec);
    time_t t1 = (time_t)syscall(SYS_time, NULL), stored = 0, t2 = fn_time(&stored);
    CHECK_EQ(stored, t2);
    CHECK(t2 >= t1 && t2 <= t1 + 2);
    CHECK(t2 >= a.tv_sec - 1);
  }
}

TEST(clock_getres_agrees) {
  load();
  if (!fn_getres)
    SKIP("no __vdso_clock_getres");
  static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
  for (size_t c = 0; c < 4; c++) {
    struct timespec a, b;
    SYS(syscall(SYS_clock_getres, clocks[c], &a));
    CHECK_EQ(fn_getres(clocks[c], &b), 0);
    CHECK_EQ(ns_of(&a), ns_of(&b));
  }
}

/* X2: processor numbers are in [0, n). */
TEST(getcpu_in_range) {
  long n = sysconf(_SC_NPROCESSORS_CONF);

  load();
  for (int i = 0; i < 1000; i++) {
    unsigned cpu = 99999, node = 99999;
    CHECK_EQ(fn_getcpu(&cpu, &node, NULL), 0);
    if (!CHECK(cpu < (unsigned long)n))
      break;
    CHECK(node < 64);
    unsigned cpu2;
    SYS(syscall(SYS_getcpu, &cpu2, NULL, NULL));
    CHECK(cpu2 < (unsigned long)n);
  }
  CHECK_EQ(fn_getcpu(NULL, NULL, NULL), 0);
}

TEST(getcpu_follows_affinity) {
  cpu_set_t all, one;

  load();
  SYS(sched_getaffinity(0, sizeof all, &all));
  for (int c = 0; c < CPU_SETSIZE; c++)
    if (CPU_ISSET(c, &all)) {
      CPU_ZERO(&one);
      CPU_SET(c, &one);
      SYS(sched_setaffinity(0, sizeof one, &one));
      unsigned cpu = 99999;
      fn_getcpu(&cpu, NULL, NULL);
      CHECK_EQ(cpu, c);
    }
}

static volatile int stop_threads;

static void *watch_clock(void *arg) {
  clockid_t clock = (clockid_t)(long)arg;
  int64_t last = 0;

  for (long i = 0; i < 300000 && !stop_threads; i++) {
    struct timespec ts;
    if (fn_gettime(clock, &ts) != 0 || ts.tv_nsec < 0 || ts.tv_nsec > 999999999)
      return (void *)1;
    if (ns_of(&ts) < last)
      return (void *)2;
    last = ns_of(&ts);
  }
  return NULL;
}

/* C2: monotonic never goes back, on one thread or seen from another. */
TEST(monotonic_over_threads) {
  pthread_t t[4];
  void *r;

  load();
  for (int i = 0; i < 4; i++)
    REQUIRE(pthread_create(&t[i], NULL, watch_clock,
                           (void *)(long)(i < 3 ? CLOCK_MONOTONIC : CLOCK_BOOTTIME)) == 0);
  for (int i = 0; i < 4; i++) {
    pthread_join(t[i], &r);
    CHECK_EQ((long)r, 0);
  }
}

static volatile int64_t published;

static void *publish(void *arg) {
  while (!stop_threads) {
    struct timespec ts;
    fn_gettime(CLOCK_MONOTONIC, &ts);
    __atomic_store_n(&published, ns_of(&ts), __ATOMIC_SEQ_CST);
  }
  return NULL;
}

TEST(monotonic_between_threads) {
  pthread_t t;
  int bad = 0;

  load();
  REQUIRE(pthread_create(&t, NULL, publish, NULL) == 0);
  for (int i = 0; i < 300000; i++) {
    struct timespec ts;
    int64_t seen = __atomic_load_n(&published, __ATOMIC_SEQ_CST);
    fn_gettime(CLOCK_MONOTONIC, &ts);
    bad += ns_of(&ts) < seen;
  }
  stop_threads = 1;
  pthread_join(t, NULL);
  CHECK_EQ(bad, 0);
}

TEST(monotonic_between_vdso_and_syscall) {
  int64_t last = 0;

  load();
  for (int i = 0; i < 5000; i++) {
    struct timespec ts;
    if (i % 2)
      SYS(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts));
    else
      fn_gettime(CLOCK_MONOTONIC, &ts);
    if (!CHECK(ns_of(&ts) >= last))
      break;
    last = ns_of(&ts);
  }
}

TEST(clock_advances_at_the_right_speed) {
  struct timespec a, b, sa, sb;

  load();
  fn_gettime(CLOCK_MONOTONIC, &a);
  SYS(syscall(SYS_clock_gettime, CLOCK_REALTIME, &sa));
  sleep_ms(300);
  fn_gettime(CLOCK_MONOTONIC, &b);
  SYS(syscall(SYS_clock_gettime, CLOCK_REALTIME, &sb));
  int64_t mono = ns_of(&b) - ns_of(&a), real = ns_of(&sb) - ns_of(&sa);
  CHECK(mono >= 299000000);
  CHECK(mono - real < 100000000 && real - mono < 100000000);
}

TEST(works_in_a_forked_child) {
  load();
  for (int i = 0; i < 5; i++)
    WAIT_OK(CHILD(struct timespec a; struct timespec b; SYS(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &a));
                  fn_gettime(CLOCK_MONOTONIC, &b); CHECK(ns_of(&b) >= ns_of(&a));
                  CHECK(ns_of(&b) - ns_of(&a) < 2000000000)));
}

TEST(may_be_unmapped) {
  /* A program may drop the whole image; system calls go on working. */
  char *maps = read_file("/proc/self/maps", NULL), *line = maps ? strstr(maps, "[vdso]") : NULL;
  unsigned long from = 0, to = 0;

  if (!line)
    SKIP("no [vdso] line in /proc/self/maps");
  while (line > maps && line[-1] != '\n')
    line--;
  CHECK_EQ(sscanf(line, "%lx-%lx", &from, &to), 2);
  load();
  WAIT_OK(CHILD(struct timespec ts; CHECK_OK(munmap((void *)from, to - from));
                CHECK_OK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts)); CHECK(ts.tv_sec > 0)));
}
