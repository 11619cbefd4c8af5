/* SPDX-License-Identifier: Apache-2.0 */
/* Mutexes with classes. Debug builds (TES_LOCKDEP) check the rank of every acquisition against what the thread holds
 * and abort with both names: a wrong order is found the first time it runs, not the first time it deadlocks. */
#include <tessera/lock.h>

#define MAX_HELD 32
#define MAX_CLASSES 256

/* Classes seen so far, for the generated documentation. */
static const TesLockClass *classes[MAX_CLASSES];
static gint n_classes;
static pthread_mutex_t classes_lock = PTHREAD_MUTEX_INITIALIZER;

static void remember_class(const TesLockClass *klass) {
  pthread_mutex_lock(&classes_lock);
  gboolean known = FALSE;
  for (gint i = 0; i < n_classes && !known; i++)
    known = classes[i] == klass;
  if (!known && n_classes < MAX_CLASSES)
    classes[n_classes++] = klass;
  pthread_mutex_unlock(&classes_lock);
}

void tes_lock_class_foreach(void (*fn)(const TesLockClass *, gpointer), gpointer data) {
  for (gint i = 0; i < n_classes; i++)
    fn(classes[i], data);
}

#ifdef TES_LOCKDEP

static __thread struct {
  gconstpointer lock;
  const TesLockClass *klass;
} held[MAX_HELD];
static __thread guint n_held;

static void check_order(gconstpointer lock, const TesLockClass *klass) {
  for (guint i = 0; i < n_held; i++) {
    const TesLockClass *h = held[i].klass;
    if (held[i].lock == lock)
      g_error("lock order: \"%s\" taken twice", klass->name);
    if (h->rank > klass->rank || (h->rank == klass->rank && !(h == klass && h->nest)))
      g_error("lock order: \"%s\" (%u) taken while holding \"%s\" (%u)", klass->name, klass->rank, h->name,
              h->rank);
  }
}

static void push_held(gconstpointer lock, const TesLockClass *klass) {
  if (n_held < MAX_HELD) {
    held[n_held].lock = lock;
    held[n_held++].klass = klass;
  }
}

static void pop_held(gconstpointer lock, const TesLockClass *klass) {
  for (guint i = n_held; i-- > 0;)
    if (held[i].lock == lock) {
      for (n_held--; i < n_held; i++)
        held[i] = held[i + 1];
      return;
    }
  g_error("lock order: \"%s\" released but not held", klass->name);
}

void tes_mutex_assert_held(const TesMutex *m) {
  for (guint i = 0; i < n_held; i++)
    if (held[i].lock == m)
      return;
  g_error("lock order: \"%s\" should be held here", m->klass->name);
}

#else

static void check_order(gconstpointer lock, const TesLockClass *klass) { (void)lock, (void)klass; }
static void push_held(gconstpointer lock, const TesLockClass *klass) { (void)lock, (void)klass; }
static void pop_held(gconstpointer lock, const TesLockClass *klass) { (void)lock, (void)klass; }
void tes_mutex_assert_held(const TesMutex *m) { (void)m; }

#endif

static void note_class(const TesLockClass *klass) {
  static __thread const TesLockClass *last;
  if (last != klass) {
    last = klass;
    remember_class(klass);
  }
}

void tes_mutex_init(TesMutex *m, const TesLockClass *klass) {
  pthread_mutex_init(&m->m, NULL);
  m->klass = klass;
  note_class(klass);
}

void tes_mutex_clear(TesMutex *m) { pthread_mutex_destroy(&m->m); }

void tes_mutex_lock(TesMutex *m) {
  check_order(m, m->klass);
  pthread_mutex_lock(&m->m);
  push_held(m, m->klass);
}

gboolean tes_mutex_trylock(TesMutex *m) {
  if (pthread_mutex_trylock(&m->m) != 0)
    return FALSE;
  push_held(m, m->klass); /* an attempt cannot deadlock, so any order is allowed */
  return TRUE;
}

gboolean tes_mutex_lock_within(TesMutex *m, gint64 ns) {
  struct timespec until;
  check_order(m, m->klass);
  if (ns == 0)
    return tes_mutex_trylock(m);
  clock_gettime(CLOCK_MONOTONIC, &until);
  ns += until.tv_nsec;
  until.tv_sec += ns / 1000000000;
  until.tv_nsec = ns % 1000000000;
  if (pthread_mutex_clocklock(&m->m, CLOCK_MONOTONIC, &until) != 0)
    return FALSE;
  push_held(m, m->klass);
  return TRUE;
}

void tes_mutex_unlock(TesMutex *m) {
  pop_held(m, m->klass);
  pthread_mutex_unlock(&m->m);
}

/* ---- Reader/writer locks ---- */

void tes_rwlock_init(TesRwLock *l, const TesLockClass *klass) {
  pthread_rwlock_init(&l->rw, NULL);
  l->klass = klass;
  note_class(klass);
}

void tes_rwlock_clear(TesRwLock *l) { pthread_rwlock_destroy(&l->rw); }

void tes_rwlock_read(TesRwLock *l) {
  check_order(l, l->klass);
  pthread_rwlock_rdlock(&l->rw);
  push_held(l, l->klass);
}

void tes_rwlock_write(TesRwLock *l) {
  check_order(l, l->klass);
  pthread_rwlock_wrlock(&l->rw);
  push_held(l, l->klass);
}

void tes_rwlock_unlock(TesRwLock *l) {
  pop_held(l, l->klass);
  pthread_rwlock_unlock(&l->rw);
}
