/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: tracing. The entry points that tasks call are declared in core/task/task.h. One hook serves all of it: while
 * kernel->watch is 0, a call costs one test of it. */
#pragma once

#include <core/task/task.h>

enum {
  TES_WATCH_TEXT = 1,
  TES_WATCH_STATS = 2,
  TES_WATCH_INJECT = 4,
  TES_WATCH_JSON = 8
}; /* bits of kernel->watch */

/* ---- filter.c: sets of calls ---- */
typedef struct {
  guint64 bits[TES_SYSCALL_MAX / 64];
} TesCallSet;
static inline gboolean tes_call_set_has(const TesCallSet *s, gulong nr) {
  return nr < TES_SYSCALL_MAX && (s->bits[nr / 64] >> nr % 64 & 1);
}
/* As -e trace= of strace(1): [!]NAME,%SET,/REGEX,?NAME,all,none. `flag` is for the message. */
gboolean tes_call_set_parse(const TesKernel *, const char *flag, const char *text, TesCallSet *, GError **);

/* ---- inject.c ---- */
enum { TES_INJECTED = 1, TES_DELAYED = 2 };
gpointer tes_injections_new(const TesKernel *, const char *const *texts, GError **); /* NULL: error */
void tes_injections_free(gpointer);
/* Makes the call with what the expressions say; *what: TES_INJECTED, TES_DELAYED. */
glong tes_inject_call(TesTask *, const TesSyscall *row, guint *what);

/* ---- stats.c ---- */
gpointer tes_stats_new(int fd);
void tes_stats_end(TesKernel *); /* writes the table, frees */

/* ---- strace.c ---- */
typedef struct {
  const TesSyscall *row; /* NULL: no such call */
  gulong nr, raw[6];
  char *arg[6]; /* decoded, owned */
  guint n;
  gint64 began; /* real time, ns */
  gboolean have_regs;
  TesRegs regs; /* on entry */
} TesTraceCall;
void tes_trace_call_free(gpointer);
/* Nanoseconds of the host's real time. */
gint64 tes_watch_now(void);
/* "ERESTARTSYS" of a result, or NULL. */
const char *tes_restart_name(glong result);
void tes_trace_enter(TesTask *, const TesSyscall *row);
void tes_trace_leave(TesTask *, const TesSyscall *row, glong result, guint injected);

/* ---- json.c ---- */
/* `result` NULL: it did not return. */
void tes_json_call(TesTask *, const TesSyscall *row, const TesTraceCall *, const glong *result, gint64 took,
                   guint injected);
void tes_json_exec(TesTask *, const char *const *argv);
void tes_json_signal(TesTask *, const siginfo_t *);
void tes_json_exit(TesTask *, int status);
void tes_json_unimplemented(TesTask *, const TesSyscall *row, guint nr, const gulong a[6]);
void tes_json_dropped(int fd, guint64 n);

/* ---- watch.c ---- */
/* Of the kernel, while watch is not 0. */
typedef struct {
  TesCallSet shown; /* calls that --strace and --trace=json show */
  gpointer injections, stats;
  int json_fd;
  gboolean json_regs;
  gboolean plain; /* no data that differs from run to run */
} TesWatch;
gboolean tes_watch_init(TesKernel *, const TesKernelArgs *, GError **);
void tes_watch_end(TesKernel *); /* every task is gone */

/* Of a task; its own thread's. */
typedef struct {
  guint32 **inject_counts; /* for each expression NULL or a count for each call; inject.c */
  gpointer stats;          /* stats.c */
} TesTaskWatch;
TesTaskWatch *tes_task_watch(TesTask *);
/* Nanoseconds of the host's monotonic clock. */
gint64 tes_watch_clock(void);

/* stats.c, of one task */
void tes_stats_call(TesTask *, glong result, guint injected, gint64 began, gint64 blocked_before);
gint64 tes_stats_blocked_time(TesTask *);
void tes_stats_task_end(TesTask *);

/* ---- unimpl.c, path.c ---- */
gpointer tes_unimpl_new(void);
void tes_unimpl_free(gpointer); /* tells what was dropped */
guint64 tes_unimpl_dropped(gpointer);
void tes_trace_path_end(TesKernel *); /* the counts, if it was on */
