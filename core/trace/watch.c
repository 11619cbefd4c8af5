/* SPDX-License-Identifier: Apache-2.0 */
/* Where tracing, statistics and fault injection meet the tasks: what run.c calls instead of a row while kernel->watch is not 0. */
#include <core/trace/trace.h>
#include <string.h>

#define HAS(a, field) ((a)->size > G_STRUCT_OFFSET(TesKernelArgs, field) && (a)->field)

gint64 tes_watch_clock(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (gint64)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

gboolean tes_watch_init(TesKernel *k, const TesKernelArgs *a, GError **error) {
  k->strace_fd = HAS(a, strace_fd) ? a->strace_fd : 0;
  TesWatch *w = k->watching = g_new0(TesWatch, 1);
  memset(&w->shown, 0xff, sizeof w->shown);
  if (HAS(a, strace_filter) && !tes_call_set_parse(k, "strace", a->strace_filter, &w->shown, error))
    return FALSE;
  if (HAS(a, inject) && !(w->injections = tes_injections_new(k, a->inject, error)))
    return FALSE;
  if (HAS(a, stats_fd))
    w->stats = tes_stats_new(a->stats_fd);
  w->json_fd = HAS(a, json_fd) ? a->json_fd : 0;
  w->json_regs = HAS(a, json_regs);
  w->plain = HAS(a, strace_plain);
  k->watch = (w->json_fd ? TES_WATCH_JSON : 0) | (a->strace ? TES_WATCH_TEXT : 0) |
             (w->injections ? TES_WATCH_INJECT : 0) | (w->stats ? TES_WATCH_STATS : 0);
  return TRUE;
}

void tes_watch_end(TesKernel *k) {
  TesWatch *w = k->watching;
  if (!w)
    return;
  guint64 dropped = k->unimpl ? tes_unimpl_dropped(k->unimpl) : 0;
  if (w->json_fd && dropped)
    tes_json_dropped(w->json_fd, dropped);
  tes_stats_end(k);
  tes_injections_free(w->injections);
  g_free(w);
}

TesTaskWatch *tes_task_watch(TesTask *t) {
  if (!t->watch)
    t->watch = g_new0(TesTaskWatch, 1);
  return t->watch;
}

glong tes_watch_call(TesTask *t, const TesSyscall *row) {
  TesKernel *k = t->kernel;
  TesWatch *w = k->watching;
  gboolean shown = (k->watch & (TES_WATCH_TEXT | TES_WATCH_JSON)) &&
                   (tes_call_set_has(&w->shown, t->nr) || t->nr >= TES_SYSCALL_MAX);
  gboolean counted = k->watch & TES_WATCH_STATS;
  gint64 began = counted ? tes_watch_clock() : 0, blocked = counted ? tes_stats_blocked_time(t) : 0;
  if (shown)
    tes_trace_enter(t, row);
  guint injected = 0;
  glong r = w->injections ? tes_inject_call(t, row, &injected) : tes_task_serve_call(t, row);
  if (counted)
    tes_stats_call(t, r, injected, began, blocked);
  if (shown)
    tes_trace_leave(t, row, r, injected);
  return r;
}

void tes_watch_exit(TesTask *t, int status) {
  if (t->kernel->watch & (TES_WATCH_TEXT | TES_WATCH_JSON))
    tes_trace_exit(t, status);
  if (t->kernel->watch & TES_WATCH_STATS)
    tes_stats_task_end(t);
}

void tes_watch_first(TesTask *t, const char *const *argv) {
  if (t->kernel->watch & TES_WATCH_JSON)
    tes_json_exec(t, argv);
}

void tes_watch_task_free(TesTask *t) {
  TesTaskWatch *w = t->watch;
  tes_trace_call_free(t->trace);
  if (!w)
    return;
  for (guint32 **c = w->inject_counts; c && c - w->inject_counts < 64; c++)
    g_free(*c);
  g_free(w->inject_counts);
  g_free(w->stats);
  g_free(w);
}
