/* SPDX-License-Identifier: Apache-2.0 */
/* The timer service: TesTimers in one heap for each clock, fired by the kernel's event thread. Interface: <tessera/time.h>.
 *
 * Each heap programs one host timer descriptor with its first expiry; with nothing armed nothing wakes up. The
 * realtime heap's descriptor also fires when the host's date is set. A descriptor that is programmed too early
 * (a timer was disarmed since) costs one needless wake-up; nobody pays for disarming. */
#include <core/task/task.h>
#include <core/time/cpuclock.h>
#include <core/time/timekeeper.h>
#include <glib-unix.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define NOT_QUEUED G_MAXSIZE
#define DELAY_MIN 50000 /* ns between two rounds: what a guest's shortest period can cost */

static const TesLockClass timer_class = {"timers", TES_RANK_TIMER, FALSE, "timer service's heaps"};

typedef struct {
  GPtrArray *v; /* TesTimer, ordered as a binary heap by expiry */
  int fd;
  GSource *source;
  TesTime programmed; /* sandbox time the descriptor will fire at; INFINITE: never */
} Heap;

typedef struct {
  TesMutex lock;
  pthread_cond_t fired; /* a callback has ended */
  TesKernel *kernel;
  Heap heap[2];     /* [realtime] */
  TesTimer *firing; /* whose callback runs */
  pthread_t firing_thread;
  gboolean in_round, paused;
} Service;

/* ---- Heap ---- */

static TesTimer *at(const Heap *h, gsize i) { return g_ptr_array_index(h->v, i); }

static void put(Heap *h, gsize i, TesTimer *t) {
  g_ptr_array_index(h->v, i) = t;
  t->heap_index = i;
}

static void sift_up(Heap *h, gsize i) {
  TesTimer *t = at(h, i);
  for (; i > 0 && at(h, (i - 1) / 2)->expiry > t->expiry; i = (i - 1) / 2)
    put(h, i, at(h, (i - 1) / 2));
  put(h, i, t);
}

static void sift_down(Heap *h, gsize i) {
  TesTimer *t = at(h, i);
  for (gsize child; (child = 2 * i + 1) < h->v->len; i = child) {
    if (child + 1 < h->v->len && at(h, child + 1)->expiry < at(h, child)->expiry)
      child++;
    if (at(h, child)->expiry >= t->expiry)
      break;
    put(h, i, at(h, child));
  }
  put(h, i, t);
}

static void insert(Heap *h, TesTimer *t) {
  g_ptr_array_add(h->v, t);
  sift_up(h, h->v->len - 1);
}

static void delete (Heap *h, TesTimer *t) {
  gsize i = t->heap_index;
  TesTimer *last = at(h, h->v->len - 1);
  g_ptr_array_set_size(h->v, h->v->len - 1);
  t->heap_index = NOT_QUEUED;
  if (last == t)
    return;
  put(h, i, last);
  sift_up(h, i);
  sift_down(h, last->heap_index);
}

/* ---- The host's timers ---- */

static TesTime clock_now(const Service *s, gboolean realtime) {
  return realtime ? tes_time_realtime(s->kernel) : tes_time_monotonic(s->kernel);
}

static void set_fd(const Heap *h, int flags, TesTime host) {
  struct itimerspec its = {.it_value = tes_timespec_from_ns(MAX(host, 1))};
  if (timerfd_settime(h->fd, flags, &its, NULL) < 0)
    g_error("timerfd_settime: %s", g_strerror(errno));
}

/* Makes the descriptor fire when the first timer expires, but not within `delay`. Lock held. */
static void program(Service *s, gboolean realtime, TesTime delay) {
  Heap *h = &s->heap[realtime];
  TesTime first = h->v->len && !s->paused ? at(h, 0)->expiry : TES_TIME_INFINITE;
  h->programmed = first;
  if (first == TES_TIME_INFINITE)
    return; /* if it still fires, the round finds nothing */
  TesTime now = clock_now(s, realtime);
  first = MAX(first, now + delay);
  struct timespec host_real;
  if (realtime) {
    clock_gettime(CLOCK_REALTIME, &host_real);
    set_fd(h, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET,
           tes_time_add(tes_timespec_to_ns(&host_real), MAX(first - now, 0)));
  } else {
    TesTime host = tes_time_to_host(s->kernel, first);
    if (host != TES_TIME_INFINITE)
      set_fd(h, TFD_TIMER_ABSTIME, host);
  }
}

/* It has expired: takes it off, or on to its next expiry. How often it has. */
static guint64 advance(Heap *h, TesTimer *t, TesTime now) {
  guint64 missed = 1;
  delete (h, t);
  if (t->period > 0) {
    missed += (now - t->expiry) / t->period;
    if (__builtin_add_overflow(t->expiry, (TesTime)missed * t->period, &t->expiry))
      t->expiry = TES_TIME_INFINITE - 1;
    insert(h, t);
  } else {
    t->expiry = TES_TIME_INFINITE;
  }
  return missed;
}

static void call(Service *s, TesTimer *t, TesTime now) {
  guint64 missed = advance(&s->heap[t->realtime], t, now);
  TesTimerFunc fn = t->fn;
  gpointer data = t->data;
  s->firing = t;
  tes_mutex_unlock(&s->lock);
  fn(t, missed, data); /* may free t */
  tes_mutex_lock(&s->lock);
  s->firing = NULL;
  pthread_cond_broadcast(&s->fired);
}

/* Fires what has expired on one clock. `now` is read once: a periodic timer fires once in a round. */
static void round_of(Service *s, gboolean realtime) {
  Heap *h = &s->heap[realtime];
  if (h->v->len == 0 || s->paused)
    return;
  TesTime now = clock_now(s, realtime);
  while (!s->paused && h->v->len && at(h, 0)->expiry <= now)
    call(s, at(h, 0), now);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data) {
  Service *s = data;
  guint64 n;
  (void)condition;
  if (read(fd, &n, sizeof n) < 0 && errno == ECANCELED)
    tes_timekeeper_refresh(s->kernel->timekeeper); /* the host's date was set */
  tes_mutex_lock(&s->lock);
  s->in_round = TRUE;
  s->firing_thread = pthread_self();
  for (guint realtime = 0; realtime < 2; realtime++)
    round_of(s, realtime);
  s->in_round = FALSE;
  for (guint realtime = 0; realtime < 2; realtime++)
    program(s, realtime, DELAY_MIN);
  tes_mutex_unlock(&s->lock);
  return G_SOURCE_CONTINUE;
}

static void heap_init(Service *s, gboolean realtime) {
  Heap *h = &s->heap[realtime];
  h->v = g_ptr_array_new();
  h->programmed = TES_TIME_INFINITE;
  h->fd = timerfd_create(realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (h->fd < 0)
    g_error("timerfd_create: %s", g_strerror(errno));
  h->source = g_unix_fd_source_new(h->fd, G_IO_IN);
  g_source_set_callback(h->source, (GSourceFunc)(void (*)(void))on_readable, s, NULL);
  g_source_attach(h->source, s->kernel->main_context);
}

void tes_timers_init(TesKernel *k) {
  Service *s = g_new0(Service, 1);
  tes_mutex_init(&s->lock, &timer_class);
  pthread_cond_init(&s->fired, NULL);
  s->kernel = k;
  k->timers = s;
  heap_init(s, FALSE);
  heap_init(s, TRUE);
}

void tes_timers_free(TesKernel *k) {
  Service *s = k->timers;
  for (guint i = 0; i < 2; i++) {
    g_source_destroy(s->heap[i].source);
    g_source_unref(s->heap[i].source);
    close(s->heap[i].fd);
    g_ptr_array_unref(s->heap[i].v);
  }
  pthread_cond_destroy(&s->fired);
  tes_mutex_clear(&s->lock);
  g_free(s);
  k->timers = NULL;
}

/* ---- Timers ---- */

void tes_timer_init(TesTimer *t, TesKernel *k, gboolean realtime, TesTimerFunc fn, gpointer data) {
  *t = (TesTimer){
      .kernel = k,
      .fn = fn,
      .data = data,
      .realtime = realtime != FALSE,
      .expiry = TES_TIME_INFINITE,
      .heap_index = NOT_QUEUED,
  };
}

void tes_timer_arm(TesTimer *t, TesTime expiry, TesTime period) {
  Service *s = t->kernel->timers;
  Heap *h = &s->heap[t->realtime];
  TES_LOCKED(&s->lock);
  if (t->heap_index != NOT_QUEUED)
    delete (h, t);
  t->expiry = expiry;
  t->period = period;
  if (expiry == TES_TIME_INFINITE)
    return;
  insert(h, t);
  if (!s->in_round && !s->paused && expiry < h->programmed)
    program(s, t->realtime, 0);
}

void tes_timer_cancel(TesTimer *t, gboolean wait) {
  Service *s = t->kernel->timers;
  TES_LOCKED(&s->lock);
  if (t->heap_index != NOT_QUEUED)
    delete (&s->heap[t->realtime], t);
  t->expiry = TES_TIME_INFINITE;
  t->period = 0;
  while (wait && s->firing == t && !pthread_equal(s->firing_thread, pthread_self()))
    pthread_cond_wait(&s->fired, &s->lock.m);
  if (wait && t->heap_index != NOT_QUEUED) { /* the callback armed it again */
    delete (&s->heap[t->realtime], t);
    t->expiry = TES_TIME_INFINITE;
  }
}

void tes_timer_get(TesTimer *t, TesTime *left, TesTime *period) {
  Service *s = t->kernel->timers;
  TES_LOCKED(&s->lock);
  *period = t->period;
  *left = t->expiry == TES_TIME_INFINITE ? 0 : MAX(t->expiry - clock_now(s, t->realtime), 1);
}

guint64 tes_timer_overdue(TesTimer *t) {
  Service *s = t->kernel->timers;
  TES_LOCKED(&s->lock);
  if (t->heap_index == NOT_QUEUED || s->paused)
    return 0;
  TesTime now = clock_now(s, t->realtime);
  return t->expiry <= now ? advance(&s->heap[t->realtime], t, now) : 0;
}

/* ---- Pausing everything (C10, C13) ---- */

static void set_paused(Service *s, gboolean paused) {
  TES_LOCKED(&s->lock);
  s->paused = paused;
  for (guint realtime = 0; realtime < 2 && !s->in_round; realtime++)
    program(s, realtime, 0);
}

void tes_time_pause(TesKernel *k) {
  if (tes_timekeeper_is_paused(k->timekeeper))
    return;
  set_paused(k->timers, TRUE);
  tes_timekeeper_pause(k->timekeeper);
}

static void wake_one(gpointer tid, gpointer task, gpointer data) {
  (void)tid, (void)data;
  tes_task_wake(task);
}

void tes_time_resume(TesKernel *k) {
  if (!tes_timekeeper_is_paused(k->timekeeper))
    return;
  tes_timekeeper_resume(k->timekeeper);
  set_paused(k->timers, FALSE);
  /* Deadlines have another place in host time now: sleepers look again. */
  TES_LOCKED(&k->task_set);
  g_hash_table_foreach(k->tasks, wake_one, NULL);
}
