/* SPDX-License-Identifier: Apache-2.0 */
/* The hand-over between a task's thread and its guest thread, and where the two run.
 *
 * Ordinarily both are on one CPU (../platform-common/pair.h) and sleep while the other works: some 3 us for a round trip.
 * While a guest makes system calls in quick succession and a CPU is idle, the task's thread moves there and both
 * spin: some 0.4 us, one busy CPU more. It goes back as soon as that does not pay: when the guest computes for long
 * between calls, when its calls wait, when another guest wants to run. */
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>
#include "private.h"

#define SPIN_NS 50000   /* the task's thread waits so long for the next trap */
#define SPIN_ROUNDS 300 /* the guest thread for the answer, before it sleeps; some 15 us */
#define SHORT_NS 10000  /* between calls: worth spinning */
#define LONG_NS 60000   /* not at all */
#define SERVE_NS 25000  /* a call that took longer has probably waited */
#define NEED 32         /* score at which spinning begins */
#define MISS 16         /* points lost by what speaks against it */
#define PAID 256        /* calls: spinning was worth the move */
#define REST_MIN 1      /* ms without spinning after it did not pay; doubles until it does */
#define REST_MAX 512
#define REST_PREEMPTED 16
#define PREEMPTED_NS 25000 /* between two looks: somebody else had the CPU */
#define LOOKUPS_MAX 64     /* threads of a process whose ids are worth looking up */

long st_futex(const void *at, int op, guint32 value, const struct timespec *limit) {
  return syscall(SYS_futex, at, op, value, limit, NULL, 0);
}

static void wake_all(const void *at) { st_futex(at, FUTEX_WAKE, G_MAXINT, NULL); }

void st_exec_wake(StExec *e) { wake_all(&e->thread->out->post); }

/* ---- Spinning ---- */

static void pin_self(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

/* Both threads on one CPU again. */
static void stop_spinning(StExec *e) {
  StPlatform *p = ST_PLATFORM(ST_ASPACE(e));
  e->rest_ms = e->hits >= PAID ? REST_MIN : MIN(e->rest_ms * 2, REST_MAX);
  e->rest_until = __rdtsc() + e->rest_ms * p->ms_cycles;
  e->score = 0;
  e->spinning = FALSE;
  g_atomic_int_add(&p->spinning, -1);
  if (e->pair.pinned >= 0)
    pin_self(e->pair.pinned);
}

static void start_spinning(StExec *e) {
  StPlatform *p = ST_PLATFORM(ST_ASPACE(e));
  int cpu = e->pair.pinned;
  if (cpu < 0 || p->pairs.ncpus < 2)
    return;
  gint pairs = g_atomic_int_add(&p->spinning, 1) + 1;
  if (2 * pairs + g_atomic_int_get(&p->in_guest) > (gint)p->pairs.ncpus) {
    g_atomic_int_add(&p->spinning, -1);
    e->score = 0;
    return;
  }
  do
    cpu = (cpu + 1) % CPU_SETSIZE;
  while (!CPU_ISSET(cpu, p->pairs.allowed));
  pin_self(cpu);
  e->spinning = TRUE;
  e->hits = 0;
  e->score = NEED;
}

void st_against_spinning(StExec *e) {
  e->score -= MISS;
  if (e->score < 0)
    e->score = 0;
}

void st_gather(void) {
  if (st_current && st_current->spinning)
    stop_spinning(st_current);
}

/* After a trap: has the last round spoken for spinning? */
static void keep_score(StExec *e) {
  const StPlatform *p = ST_PLATFORM(ST_ASPACE(e));
  guint64 guest = e->pair.trap_tsc - e->pair.enter_tsc, serve = e->pair.enter_tsc - e->last_trap_tsc;
  e->last_trap_tsc = e->pair.trap_tsc;
  if (guest > p->long_cycles || serve > p->serve_cycles)
    st_against_spinning(e);
  else if (guest < p->short_cycles)
    e->score = MIN(e->score + 1, NEED);
  e->hits++;
  if (e->spinning && e->score == 0)
    stop_spinning(e);
  else if (!e->spinning && e->score == NEED && e->pair.trap_tsc > e->rest_until)
    start_spinning(e);
}

/* TRUE: posted. FALSE: it took too long, or somebody else wants the CPU. */
static gboolean spin(StExec *e, guint32 want) {
  StPlatform *p = ST_PLATFORM(ST_ASPACE(e));
  const guint32 *post = &e->thread->out->post;
  guint64 last = __rdtsc(), end = last + p->spin_cycles;
  while (__atomic_load_n(post, __ATOMIC_ACQUIRE) != want) {
    guint64 now = __rdtsc();
    if (now - last > p->preempted_cycles) { /* another process of the host */
      e->hits = 0;
      e->rest_ms = MAX(e->rest_ms, REST_PREEMPTED);
      return FALSE;
    }
    if (now > end ||
        2 * g_atomic_int_get(&p->spinning) + g_atomic_int_get(&p->in_guest) > (gint)p->pairs.ncpus)
      return FALSE;
    last = now;
  }
  return TRUE;
}

/* ---- The words ---- */

void st_answer(StExec *e, guint32 flags) {
  StThread *t = e->thread;
  t->in->flags = flags;
  t->in->spin = e->spinning ? SPIN_ROUNDS : 0;
  __atomic_store_n(&t->in->answer, ++t->seq, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&t->out->sleeping, __ATOMIC_SEQ_CST))
    wake_all(&t->in->answer);
}

gboolean st_wait_post(StExec *e, guint limit) {
  StThread *t = e->thread;
  StAspace *as = ST_ASPACE(e);
  guint32 want = t->seq + 1, post;
  const struct timespec second = {1, 0};
  gint64 end = limit ? g_get_monotonic_time() + limit * G_TIME_SPAN_SECOND : G_MAXINT64;
  gboolean ok = TRUE;
  if (e->spinning && !limit) {
    if (spin(e, want))
      return TRUE;
    stop_spinning(e);
  }
  if (__atomic_load_n(&t->out->post, __ATOMIC_ACQUIRE) == want)
    return TRUE;
  __atomic_store_n(&t->in->sleeping, 1, __ATOMIC_SEQ_CST);
  while (ok && (post = __atomic_load_n(&t->out->post, __ATOMIC_SEQ_CST)) != want) {
    if (g_atomic_int_get(&as->dead))
      ok = FALSE;
    else if (st_futex(&t->out->post, FUTEX_WAIT, post, limit ? &second : NULL) < 0 && errno == ETIMEDOUT)
      st_kick_thread(as, t);
    if (limit && g_get_monotonic_time() > end) /* also when others change the word all the time */
      ok = FALSE;
  }
  __atomic_store_n(&t->in->sleeping, 0, __ATOMIC_RELAXED);
  return ok;
}

gboolean st_guest_round(StExec *e) {
  StPlatform *p = ST_PLATFORM(ST_ASPACE(e));
  gboolean counted = !e->spinning;
  if (counted)
    g_atomic_int_inc(&p->in_guest);
  gboolean ok = st_wait_post(e, 0);
  if (counted)
    g_atomic_int_add(&p->in_guest, -1);
  __atomic_store_n(&e->in_guest, 0, __ATOMIC_RELEASE); /* a kick that still sees 1 is one too many, no more */
  pair_trap(&e->pair, &p->pairs, e);
  keep_score(e);
  return ok;
}

/* ---- Placing the pair ---- */

/* Under the address space's lock. */
static gboolean place_guest(StExec *e, const cpu_set_t *set) {
  StAspace *as = ST_ASPACE(e);
  StThread *t = e->thread;
  const gulong args[6] = {(gulong)t->tid, ST_MASK_SIZE, ST_ORDERS + ST_O_MASK};
  int cpu = -1;
  if (CPU_COUNT(set) == 1)
    for (cpu = 0; !CPU_ISSET(cpu, set); cpu++)
      ;
  if (cpu >= 0 && t->cpu == cpu)
    return TRUE;
  if (as->dead)
    return FALSE;
  st_begin(ST_PLATFORM(as), as->mapper);
  memcpy(as->mapper->orders->mask, set, ST_MASK_SIZE);
  st_order(as->mapper, SYS_sched_setaffinity, ST_F_MAYFAIL, args);
  if (st_batch(as->mapper, NULL, NULL, 0) < 0)
    return FALSE;
  t->cpu = cpu;
  return TRUE;
}
G_STATIC_ASSERT(sizeof(cpu_set_t) == ST_MASK_SIZE);

static gboolean place(gpointer exec, const cpu_set_t *set) {
  StExec *e = exec;
  StAspace *as = ST_ASPACE(e);
  gboolean mine = e->owner == gettid();
  if (mine && e->spinning) /* the caller pins this thread next */
    stop_spinning(e);
  if (mine)
    g_mutex_lock(&as->lock);
  else if (!g_mutex_trylock(&as->lock)) /* the next tick will do */
    return FALSE;
  gboolean ok = place_guest(e, set);
  g_mutex_unlock(&as->lock);
  if (ok)
    sched_setaffinity(e->owner, sizeof *set, set);
  return ok;
}

/* The last of the numbers on a line like `NSpid: 512 3` of /proc/PID/task/TID/status: the id in the stubs' namespace. */
static pid_t inner_tid(pid_t pid, const char *tid) {
  char path[64], line[256];
  pid_t found = 0;
  g_snprintf(path, sizeof path, "/proc/%d/task/%s/status", pid, tid);
  FILE *f = fopen(path, "re");
  while (f && !found && fgets(line, sizeof line, f))
    if (g_str_has_prefix(line, "NSpid:")) {
      char *last = strrchr(g_strchomp(line), '\t');
      found = last ? atoi(last) : -1;
    }
  if (f)
    fclose(f);
  return found;
}

/* What the host calls the guest thread; -1: unknown. */
static pid_t host_tid(StExec *e) {
  StThread *t = e->thread;
  pid_t pid = ST_ASPACE(e)->mapper->pid;
  char path[64];
  if (t->host_tid)
    return t->host_tid;
  t->host_tid = -1;
  g_snprintf(path, sizeof path, "/proc/%d/task", pid);
  g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
  const char *name;
  for (guint i = 0; d && i < LOOKUPS_MAX && t->host_tid < 0 && (name = g_dir_read_name(d)); i++)
    if (inner_tid(pid, name) == t->tid)
      t->host_tid = atoi(name);
  return t->host_tid;
}

/* CPU time of the guest thread. Of the whole stub where the thread is not known: then contention is seen too rarely. */
static gint64 stub_cpu_ns(gpointer exec) {
  StExec *e = exec;
  StAspace *as = ST_ASPACE(e);
  struct timespec t;
  clockid_t clock;
  if (g_atomic_int_get(&as->nexecs) > 1 && host_tid(e) > 0) {
    char path[64], buf[64];
    g_snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", as->mapper->pid, e->thread->host_tid);
    FILE *f = fopen(path, "re");
    gboolean ok = f && fgets(buf, sizeof buf, f);
    if (f)
      fclose(f);
    if (ok)
      return g_ascii_strtoll(buf, NULL, 10);
  }
  if (clock_getcpuclockid(as->mapper->pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
    return 0;
  return t.tv_sec * TES_NSEC + t.tv_nsec;
}

void st_handover_init(StPlatform *p) {
  if (sched_getaffinity(0, sizeof p->allowed, &p->allowed) < 0)
    CPU_ZERO(&p->allowed);
  p->pairs = (PairOps){.allowed = &p->allowed,
                       .ncpus = (guint)CPU_COUNT(&p->allowed),
                       .place = place,
                       .stub_cpu_ns = stub_cpu_ns};
}

void st_handover_calibrate(StPlatform *p, guint64 cycles, gint64 ns) {
  double per_ns = ns > 0 ? (double)cycles / (double)ns : 1;
  p->spin_cycles = (guint64)(SPIN_NS * per_ns);
  p->short_cycles = (guint64)(SHORT_NS * per_ns);
  p->long_cycles = (guint64)(LONG_NS * per_ns);
  p->serve_cycles = (guint64)(SERVE_NS * per_ns);
  p->preempted_cycles = (guint64)(PREEMPTED_NS * per_ns);
  p->ms_cycles = (guint64)(1000000 * per_ns);
}
