/* SPDX-License-Identifier: Apache-2.0 */
/* Epoch-based reclamation: nothing is freed while a section that found it is open, whoever polls, whenever. Races are
 * met by chance; a sched_yield() between the two looks of tes_epoch_poll() makes them frequent. */
#include <tessera/lock.h>

#define ALIVE 0x600df00du
#define DEAD 0xdeadbeefu
#define SECONDS 1

typedef struct {
  guint32 state;
} Object;

static Object *shared;
static gint stop, wrong, freed, retired;

/* The memory itself stays until the end, so that a reader that comes too late sees what happened. */
static GPtrArray *graves;
static GMutex graves_lock;

static void bury(gpointer data) {
  Object *o = data;
  __atomic_store_n(&o->state, DEAD, __ATOMIC_SEQ_CST);
  g_atomic_int_inc(&freed);
  g_mutex_lock(&graves_lock);
  g_ptr_array_add(graves, o);
  g_mutex_unlock(&graves_lock);
}

static Object *make(void) {
  Object *o = g_new(Object, 1);
  o->state = ALIVE;
  return o;
}

static gpointer reader(gpointer data) {
  (void)data;
  while (!g_atomic_int_get(&stop)) {
    tes_epoch_enter();
    Object *o = g_atomic_pointer_get(&shared);
    for (guint i = 0; i < 20; i++) {
      if (__atomic_load_n(&o->state, __ATOMIC_SEQ_CST) != ALIVE)
        g_atomic_int_set(&wrong, 1);
      g_thread_yield();
    }
    tes_epoch_leave();
    g_thread_yield(); /* at times nobody is in a section */
  }
  return NULL;
}

static gpointer writer(gpointer data) {
  (void)data;
  while (!g_atomic_int_get(&stop)) {
    Object *fresh = make(), *old = g_atomic_pointer_exchange(&shared, fresh);
    tes_epoch_defer(bury, old);
    /* Few are pending at a time: what a poller takes is then often retired after its look. */
    for (gint n = g_atomic_int_add(&retired, 1) + 1;
         n - g_atomic_int_get(&freed) > 1 && !g_atomic_int_get(&stop);)
      g_thread_yield();
  }
  return NULL;
}

static gpointer poller(gpointer data) {
  (void)data;
  while (!g_atomic_int_get(&stop))
    tes_epoch_poll();
  return NULL;
}

static void test_nothing_is_freed_early(void) {
  GThread *t[6];
  GThreadFunc fn[6] = {reader, writer, poller, poller, poller, poller};
  graves = g_ptr_array_new_with_free_func(g_free);
  shared = make();
  for (guint i = 0; i < G_N_ELEMENTS(t); i++)
    t[i] = g_thread_new("epoch", fn[i], NULL);
  for (guint i = 0; i < SECONDS * 100 && !g_atomic_int_get(&wrong); i++)
    g_usleep(10000);
  g_atomic_int_set(&stop, 1);
  for (guint i = 0; i < G_N_ELEMENTS(t); i++)
    g_thread_join(t[i]);
  tes_epoch_poll();
  g_assert_false(wrong);
  g_assert_cmpint(freed, >, 0);
  g_ptr_array_unref(graves);
  g_free(shared);
}

static gint runs;
static void count(gpointer data) {
  (void)data;
  runs++;
}

/* One's own open section holds everything back that was retired since it began. */
static void test_own_section(void) {
  tes_epoch_poll();
  tes_epoch_enter();
  tes_epoch_defer(count, NULL);
  tes_epoch_poll();
  g_assert_cmpint(runs, ==, 0);
  tes_epoch_enter();
  tes_epoch_leave();
  tes_epoch_poll();
  g_assert_cmpint(runs, ==, 0);
  tes_epoch_leave();
  tes_epoch_poll();
  g_assert_cmpint(runs, ==, 1);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/epoch/own-section", test_own_section);
  g_test_add_func("/epoch/nothing-is-freed-early", test_nothing_is_freed_early);
  return g_test_run();
}
