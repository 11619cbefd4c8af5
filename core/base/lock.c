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

static __thread const TesMutex *held[MAX_HELD];
static __thread guint n_held;

static void check_order(const TesMutex *m) {
  for (guint i = 0; i < n_held; i++) {
    const TesLockClass *h = held[i]->klass;
    if (held[i] == m)
      g_error("lock order: \"%s\" taken twice", m->klass->name);
    if (h->rank > m->klass->rank || (h->rank == m->klass->rank && !(h == m->klass && h->nest)))
      g_error("lock order: \"%s\" (%u) taken while holding \"%s\" (%u)", m->klass->name, m->klass->rank,
              h->name, h->rank);
  }
}

static void push_held(const TesMutex *m) {
  if (n_held < MAX_HELD)
    held[n_held++] = m;
}

static void pop_held(const TesMutex *m) {
  for (guint i = n_held; i-- > 0;)
    if (held[i] == m) {
      for (n_held--; i < n_held; i++)
        held[i] = held[i + 1];
      return;
    }
  g_error("lock order: \"%s\" released but not held", m->klass->name);
}

void tes_mutex_assert_held(const TesMutex *m) {
  for (guint i = 0; i < n_held; i++)
    if (held[i] == m)
      return;
  g_error("lock order: \"%s\" should be held here", m->klass->name);
}

#else

static void check_order(const TesMutex *m) { (void)m; }
static void push_held(const TesMutex *m) { (void)m; }
static void pop_held(const TesMutex *m) { (void)m; }
void tes_mutex_assert_held(const TesMutex *m) { (void)m; }

#endif

void tes_mutex_init(TesMutex *m, const TesLockClass *klass) {
  pthread_mutex_init(&m->m, NULL);
  m->klass = klass;
  static __thread const TesLockClass *last;
  if (last != klass) {
    last = klass;
    remember_class(klass);
  }
}

void tes_mutex_clear(TesMutex *m) { pthread_mutex_destroy(&m->m); }

void tes_mutex_lock(TesMutex *m) {
  check_order(m);
  pthread_mutex_lock(&m->m);
  push_held(m);
}

gboolean tes_mutex_trylock(TesMutex *m) {
  if (pthread_mutex_trylock(&m->m) != 0)
    return FALSE;
  push_held(m); /* an attempt cannot deadlock, so any order is allowed */
  return TRUE;
}

void tes_mutex_unlock(TesMutex *m) {
  pop_held(m);
  pthread_mutex_unlock(&m->m);
}
