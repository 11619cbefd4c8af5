/* SPDX-License-Identifier: Apache-2.0 */
/* Events for system calls that are not served (E1-E3): a token bucket of 100 a second with a burst of 1,000, a count of what
 * was dropped, and one log line for each number. */
#include <core/trace/trace.h>

#define MAX_RATE 100 /* events a second */
#define BURST 1000

typedef struct {
  pthread_mutex_t lock;
  gdouble tokens;
  gint64 last; /* host time, microseconds */
  guint64 emitted, dropped;
  guint8 logged[TES_SYSCALL_MAX / 8];
} Unimpl;

gpointer tes_unimpl_new(void) {
  Unimpl *u = g_new0(Unimpl, 1);
  pthread_mutex_init(&u->lock, NULL);
  u->tokens = BURST;
  u->last = g_get_monotonic_time();
  return u;
}

guint64 tes_unimpl_dropped(gpointer p) { return ((Unimpl *)p)->dropped; }

void tes_unimpl_free(gpointer p) {
  Unimpl *u = p;
  if (u->dropped)
    tes_info("Events of system calls that are not served: %" G_GUINT64_FORMAT ", dropped: %" G_GUINT64_FORMAT,
             u->emitted, u->dropped);
  pthread_mutex_destroy(&u->lock);
  g_free(u);
}

static gboolean take_token(Unimpl *u) {
  gint64 now = g_get_monotonic_time();
  u->tokens = MIN(BURST, u->tokens + (now - u->last) * 1e-6 * MAX_RATE);
  u->last = now;
  if (u->tokens < 1) {
    u->dropped++;
    return FALSE;
  }
  u->tokens -= 1;
  u->emitted++;
  return TRUE;
}

void tes_kernel_emit_unimplemented(TesTask *t, guint nr, const gulong a[6]) {
  Unimpl *u = t->kernel->unimpl;
  pthread_mutex_lock(&u->lock);
  gboolean emit = take_token(u), first = FALSE;
  if (emit && nr < TES_SYSCALL_MAX) {
    first = !(u->logged[nr / 8] & (1 << nr % 8));
    u->logged[nr / 8] |= 1 << nr % 8;
  }
  pthread_mutex_unlock(&u->lock);
  const TesSyscall *row = tes_syscall_row(t->kernel->registry, nr);
  if (emit && t->kernel->watch & TES_WATCH_JSON)
    tes_json_unimplemented(t, row, nr, a);
  if (!first)
    return;
  g_autofree char *number = g_strdup_printf("%u", nr);
  tes_info("Unsupported system call %s(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx) by %s (%d)",
           row ? row->name : number, a[0], a[1], a[2], a[3], a[4], a[5], t->comm, t->tid);
}
