/* SPDX-License-Identifier: Apache-2.0 */
/* --stats: what each system call cost, and where the tasks' time went. A task counts by itself and adds to the totals when it
 * exits, so tasks share no cache line. Times are of the host's monotonic clock; "blocked" is waiting within a call (for input,
 * another task, a pause) and not part of "kernel". */
#include <core/trace/trace.h>
#include <string.h>
#include <unistd.h>

#define OTHER TES_SYSCALL_MAX /* numbers beyond the table */

typedef struct {
  guint64 calls, errors, injected;
  gint64 kernel, blocked; /* ns */
} CallStats;

typedef struct {
  CallStats call[TES_SYSCALL_MAX + 1];
  guint64 traps[TES_TRAP_DEAD + 1]; /* by TesTrapKind */
  guint64 minflt, majflt, voluntary, involuntary, tasks;
  gint64 guest, calls, faults, blocked, life; /* ns; life: from the first trap to the exit */
  gint64 began, blocked_since, trap_blocked;  /* of a task */
} Counts;

typedef struct {
  GMutex lock;
  int fd;
  gint64 began;
  Counts totals; /* lock */
} Stats;

gpointer tes_stats_new(int fd) {
  Stats *s = g_new0(Stats, 1);
  g_mutex_init(&s->lock);
  s->fd = fd;
  s->began = tes_watch_clock();
  return s;
}

static Counts *counts_of(TesTask *t) {
  TesTaskWatch *w = tes_task_watch(t);
  if (G_UNLIKELY(!w->stats)) {
    Counts *c = w->stats = g_new0(Counts, 1);
    c->began = tes_watch_clock();
    c->tasks = 1;
  }
  return w->stats;
}

gint64 tes_stats_blocked_time(TesTask *t) { return counts_of(t)->blocked; }

void tes_stats_call(TesTask *t, glong result, guint injected, gint64 began, gint64 blocked_before) {
  Counts *c = counts_of(t);
  CallStats *s = &c->call[MIN(t->nr, OTHER)];
  gint64 blocked = c->blocked - blocked_before, took = MAX(tes_watch_clock() - began - blocked, 0);
  s->calls++;
  s->errors += result < 0 && result > -TES_ERESTARTSYS;
  s->injected += injected != 0;
  s->kernel += took;
  s->blocked += blocked;
  c->calls += took;
}

void tes_watch_blocked(TesTask *t, gboolean blocked) {
  if (!(t->kernel->watch & TES_WATCH_STATS))
    return;
  Counts *c = counts_of(t);
  if (blocked)
    c->blocked_since = tes_watch_clock();
  else if (c->blocked_since)
    c->blocked += tes_watch_clock() - c->blocked_since, c->blocked_since = 0;
}

gint64 tes_watch_run_begin(TesTask *t) {
  if (!(t->kernel->watch & TES_WATCH_STATS))
    return 0;
  counts_of(t);
  return tes_watch_clock();
}

gint64 tes_watch_run_end(TesTask *t, gint64 began) {
  if (!(t->kernel->watch & TES_WATCH_STATS))
    return 0;
  Counts *c = counts_of(t);
  gint64 now = tes_watch_clock();
  c->guest += now - began;
  c->traps[MIN((guint)t->trap.kind, TES_TRAP_DEAD)]++;
  c->trap_blocked = c->blocked;
  return now;
}

void tes_watch_trap_end(TesTask *t, gint64 began) {
  if (!(t->kernel->watch & TES_WATCH_STATS) || t->trap.kind != TES_TRAP_FAULT)
    return;
  Counts *c = counts_of(t);
  c->faults += tes_watch_clock() - began - (c->blocked - c->trap_blocked);
}

void tes_stats_task_end(TesTask *t) {
  Stats *s = ((TesWatch *)t->kernel->watching)->stats;
  Counts *c = counts_of(t), *sum = &s->totals;
  g_mutex_lock(&s->lock);
  for (guint i = 0; i <= OTHER; i++) {
    sum->call[i].calls += c->call[i].calls;
    sum->call[i].errors += c->call[i].errors;
    sum->call[i].injected += c->call[i].injected;
    sum->call[i].kernel += c->call[i].kernel;
    sum->call[i].blocked += c->call[i].blocked;
  }
  for (guint i = 0; i < G_N_ELEMENTS(c->traps); i++)
    sum->traps[i] += c->traps[i];
  sum->minflt += tes_counted(&t->minflt);
  sum->majflt += tes_counted(&t->majflt);
  sum->voluntary += tes_counted(&t->nvcsw);
  sum->involuntary += tes_counted(&t->nivcsw);
  sum->tasks++;
  sum->guest += c->guest;
  sum->calls += c->calls;
  sum->faults += c->faults;
  sum->blocked += c->blocked;
  sum->life += tes_watch_clock() - c->began;
  g_mutex_unlock(&s->lock);
}

/* ---- The table ---- */

static gint by_time(gconstpointer pa, gconstpointer pb, gpointer data) {
  const Counts *c = data;
  const CallStats *a = &c->call[*(const guint *)pa], *b = &c->call[*(const guint *)pb];
  gint64 ta = a->kernel + a->blocked, tb = b->kernel + b->blocked;
  return (ta < tb) - (ta > tb);
}

static void add_row(GString *out, const CallStats *s, const char *name) {
  g_string_append_printf(
      out, "%10" G_GUINT64_FORMAT " %9" G_GUINT64_FORMAT " %9" G_GUINT64_FORMAT " %13.6f %13.6f %10.3f  %s\n",
      s->calls, s->errors, s->injected, s->kernel * 1e-9, s->blocked * 1e-9,
      s->calls ? s->kernel * 1e-3 / s->calls : 0.0, name);
}

static void add_calls(GString *out, TesKernel *k, Counts *c) {
  g_autoptr(GArray) order = g_array_new(FALSE, FALSE, sizeof(guint));
  for (guint i = 0; i <= OTHER; i++)
    if (c->call[i].calls)
      g_array_append_val(order, i);
  g_array_sort_with_data(order, by_time, c);
  g_string_append(out, "     calls    errors  injected      kernel s     blocked s    us/call  name\n");
  CallStats sum = {0};
  for (guint i = 0; i < order->len; i++) {
    guint nr = g_array_index(order, guint, i);
    const CallStats *s = &c->call[nr];
    const TesSyscall *row = nr < TES_SYSCALL_MAX ? k->syscalls[nr] : NULL;
    g_autofree char *name = row           ? g_strdup(row->name)
                            : nr == OTHER ? g_strdup("(no such call)")
                                          : g_strdup_printf("syscall_%u", nr);
    add_row(out, s, name);
    sum.calls += s->calls;
    sum.errors += s->errors;
    sum.injected += s->injected;
    sum.kernel += s->kernel;
    sum.blocked += s->blocked;
  }
  add_row(out, &sum, "total");
}

static void add_totals(GString *out, TesKernel *k, const Stats *s) {
  const Counts *c = &s->totals;
  guint64 traps = 0;
  for (guint i = 0; i < G_N_ELEMENTS(c->traps); i++)
    traps += c->traps[i];
  gint64 rest = c->life - c->guest - c->calls - c->faults - c->blocked;
  g_string_append_printf(out,
                         "tasks: %" G_GUINT64_FORMAT "\n"
                         "traps: %" G_GUINT64_FORMAT " (system calls %" G_GUINT64_FORMAT
                         ", faults %" G_GUINT64_FORMAT ", exceptions %" G_GUINT64_FORMAT
                         ", kicks %" G_GUINT64_FORMAT ")\n",
                         c->tasks, traps, c->traps[TES_TRAP_SYSCALL], c->traps[TES_TRAP_FAULT],
                         c->traps[TES_TRAP_EXCEPTION], c->traps[TES_TRAP_KICK]);
  g_string_append_printf(out,
                         "page faults: %" G_GUINT64_FORMAT " minor, %" G_GUINT64_FORMAT " major\n"
                         "context switches: %" G_GUINT64_FORMAT " voluntary, %" G_GUINT64_FORMAT
                         " involuntary\n",
                         c->minflt, c->majflt, c->voluntary, c->involuntary);
  g_string_append_printf(
      out,
      "task seconds: %.6f = guest %.6f + calls %.6f + faults %.6f + blocked %.6f + other %.6f; "
      "%.6f passed\n",
      c->life * 1e-9, c->guest * 1e-9, c->calls * 1e-9, c->faults * 1e-9, c->blocked * 1e-9, rest * 1e-9,
      (tes_watch_clock() - s->began) * 1e-9);
  guint64 dropped = k->unimpl ? tes_unimpl_dropped(k->unimpl) : 0;
  if (dropped)
    g_string_append_printf(out, "events of calls that are not served, dropped: %" G_GUINT64_FORMAT "\n",
                           dropped);
}

void tes_stats_end(TesKernel *k) {
  Stats *s = ((TesWatch *)k->watching)->stats;
  if (!s)
    return;
  GString *out = g_string_new(NULL);
  add_calls(out, k, &s->totals);
  add_totals(out, k, s);
  for (gsize done = 0; done < out->len;) {
    gssize n = write(s->fd, out->str + done, out->len - done);
    if (n <= 0)
      break;
    done += (gsize)n;
  }
  g_string_free(out, TRUE);
  g_mutex_clear(&s->lock);
  g_free(s);
}
