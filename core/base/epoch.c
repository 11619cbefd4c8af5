/* SPDX-License-Identifier: Apache-2.0 */
/* Epoch-based reclamation. Each thread publishes the epoch in which its current section began (0: none). A deferred
 * call is tagged with the epoch of its retirement and runs once no thread's section began at or before it. */
#include <sched.h>
#include <tessera/lock.h>

typedef struct _Record {
  struct _Record *next;
  guint64 epoch; /* atomic; 0: not in a section */
  guint nest;    /* owner only */
  gint in_use;   /* atomic; records are reused, never freed */
} Record;

typedef struct {
  void (*fn)(gpointer);
  gpointer data;
  guint64 epoch;
} Deferred;

static Record *records; /* atomic list head, only ever grows */
static guint64 global_epoch = 1;
static pthread_mutex_t pending_lock = PTHREAD_MUTEX_INITIALIZER;
static GQueue pending = G_QUEUE_INIT; /* Deferred, oldest first; pending_lock */
static gint n_pending;

static __thread Record *self __attribute__((tls_model("initial-exec")));
static pthread_key_t exit_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void record_release(void *p) {
  Record *r = p;
  __atomic_store_n(&r->epoch, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&r->in_use, 0, __ATOMIC_RELEASE);
}

static void make_key(void) { pthread_key_create(&exit_key, record_release); }

static Record *record_get(void) {
  pthread_once(&once, make_key);
  Record *r;
  for (r = __atomic_load_n(&records, __ATOMIC_ACQUIRE); r; r = r->next)
    if (g_atomic_int_compare_and_exchange(&r->in_use, 0, 1))
      break;
  if (!r) {
    r = g_new0(Record, 1);
    r->in_use = 1;
    r->next = __atomic_load_n(&records, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&records, &r->next, r, TRUE, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
      ;
  }
  r->nest = 0;
  pthread_setspecific(exit_key, r);
  return self = r;
}

void tes_epoch_enter(void) {
  Record *r = self ? self : record_get();
  if (r->nest++ == 0)
    __atomic_store_n(&r->epoch, __atomic_load_n(&global_epoch, __ATOMIC_SEQ_CST), __ATOMIC_SEQ_CST);
}

void tes_epoch_leave(void) {
  if (--self->nest == 0)
    __atomic_store_n(&self->epoch, 0, __ATOMIC_RELEASE);
}

/* The oldest epoch in which some thread's section began; G_MAXUINT64 if none is in one. */
static guint64 oldest_section(void) {
  guint64 oldest = G_MAXUINT64;
  for (Record *r = __atomic_load_n(&records, __ATOMIC_ACQUIRE); r; r = r->next) {
    guint64 e = __atomic_load_n(&r->epoch, __ATOMIC_SEQ_CST);
    if (e && e < oldest)
      oldest = e;
  }
  return oldest;
}

void tes_epoch_defer(void (*fn)(gpointer), gpointer data) {
  Deferred *d = g_new(Deferred, 1);
  d->fn = fn;
  d->data = data;
  pthread_mutex_lock(&pending_lock);
  d->epoch = __atomic_fetch_add(&global_epoch, 1, __ATOMIC_SEQ_CST);
  g_queue_push_tail(&pending, d);
  g_atomic_int_inc(&n_pending);
  pthread_mutex_unlock(&pending_lock);
}

void tes_epoch_poll(void) {
  while (g_atomic_int_get(&n_pending) > 0) {
    /* What is retired after the look at the sections must wait for another look: hence the present epoch first. */
    guint64 now = __atomic_load_n(&global_epoch, __ATOMIC_SEQ_CST), oldest = oldest_section();
    oldest =
        MIN(oldest, now); /* a variable: the macro evaluates its argument twice, and the answer changes */
    Deferred *d = NULL;
    pthread_mutex_lock(&pending_lock);
    Deferred *first = g_queue_peek_head(&pending);
    if (first && first->epoch < oldest) {
      d = g_queue_pop_head(&pending);
      g_atomic_int_add(&n_pending, -1);
    }
    pthread_mutex_unlock(&pending_lock);
    if (!d)
      return;
    d->fn(d->data);
    g_free(d);
  }
}

void tes_epoch_barrier(void) {
  guint64 now = __atomic_fetch_add(&global_epoch, 1, __ATOMIC_SEQ_CST);
  for (Record *r = __atomic_load_n(&records, __ATOMIC_ACQUIRE); r; r = r->next) {
    if (r == self)
      continue;
    for (;;) {
      guint64 e = __atomic_load_n(&r->epoch, __ATOMIC_SEQ_CST);
      if (!e || e > now)
        break;
      sched_yield();
    }
  }
}
