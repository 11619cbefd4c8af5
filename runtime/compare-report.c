/* SPDX-License-Identifier: Apache-2.0 */
/* The result of `tessera compare` as text. */
#include <runtime/compare.h>
#include <string.h>
#include <sys/wait.h>

#define MAX_LINES 20 /* of one list */

char *status_text(int status) {
  return WIFSIGNALED(status) ? g_strdup_printf("killed by signal %d", WTERMSIG(status))
                             : g_strdup_printf("exited with %d", WEXITSTATUS(status));
}

char *time_text(gint64 ns) {
  static const struct {
    gint64 unit;
    const char *name;
  } units[] = {{1000000000, "s"}, {1000000, "ms"}, {1000, "µs"}};
  for (gsize i = 0; i < G_N_ELEMENTS(units); i++)
    if (ns >= units[i].unit)
      return g_strdup_printf("%.3g %s", (double)ns / (double)units[i].unit, units[i].name);
  return g_strdup_printf("%d ns", (int)ns);
}

const CallSum *call_sum(const Arm *arm, const char *name) {
  static const CallSum none;
  const CallSum *s = arm->calls ? g_hash_table_lookup(arm->calls->sums, name) : NULL;
  return s ? s : &none;
}

static gint64 longest(const Result *r, const char *name) {
  gint64 most = 0;
  for (guint i = 0; i < r->arms->len; i++)
    most = MAX(most, call_sum(r->arms->pdata[i], name)->took);
  return most;
}

static int by_time(gconstpointer a, gconstpointer b, gpointer result) {
  const char *x = *(char *const *)a, *y = *(char *const *)b;
  gint64 tx = longest(result, x), ty = longest(result, y);
  return tx != ty ? (tx < ty ? 1 : -1) : strcmp(x, y);
}

GPtrArray *call_names(const Result *r) {
  g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
  GPtrArray *names = g_ptr_array_new();
  for (guint i = 0; i < r->arms->len; i++) {
    const Arm *arm = r->arms->pdata[i];
    GHashTableIter it;
    gpointer name;
    if (!arm->calls)
      continue;
    g_hash_table_iter_init(&it, arm->calls->sums);
    while (g_hash_table_iter_next(&it, &name, NULL))
      if (g_hash_table_add(seen, name))
        g_ptr_array_add(names, name);
  }
  g_ptr_array_sort_with_data(names, by_time, (gpointer)r);
  return names;
}

static void report_arms(const Result *r, FILE *f) {
  fprintf(f, "%-28s %-20s %10s %10s %10s %10s\n", "arm", "ended", "least", "median", "user", "system");
  for (guint i = 0; i < r->arms->len; i++) {
    const Arm *arm = r->arms->pdata[i];
    g_autofree char *ended = status_text(arm->status);
    g_autofree char *least = time_text(g_array_index(arm->walls, gint64, 0));
    g_autofree char *median = time_text(g_array_index(arm->walls, gint64, arm->walls->len / 2));
    g_autofree char *user = time_text(arm->user * 1000), *sys = time_text(arm->sys * 1000);
    fprintf(f, "%-28s %-20s %10s %10s %10s %10s\n", arm->name, ended, least, median, user, sys);
  }
}

static void report_list(FILE *f, const char *title, GPtrArray *lines) {
  fprintf(f, "  %s: %s\n", title, lines->len ? "" : "the same");
  for (guint i = 0; i < MIN(lines->len, MAX_LINES); i++)
    fprintf(f, "    %s\n", (char *)lines->pdata[i]);
  if (lines->len > MAX_LINES)
    fprintf(f, "    ... and %u more\n", lines->len - MAX_LINES);
}

static void report_calls(FILE *f, const Arm *first, const Comparison *c) {
  const char *why = first->no_calls ? first->no_calls : c->other->no_calls;
  if (why) {
    fprintf(f, "  system calls: not compared: %s\n", why);
    return;
  }
  fprintf(f, "  system calls: %s\n", c->calls->len ? "" : "the same");
  for (guint i = 0; i < MIN(c->calls->len, MAX_LINES); i++) {
    const CallDifference *d = c->calls->pdata[i];
    if (d->a && d->b)
      fprintf(f, "    %u x %s: %s, %s\n", d->count, d->what, d->a, d->b);
    else
      fprintf(f, "    %u x only in %s: %s = %s\n", d->count, d->a ? first->name : c->other->name, d->what,
              d->a ? d->a : d->b);
  }
  if (c->calls->len > MAX_LINES)
    fprintf(f, "    ... and %u more\n", c->calls->len - MAX_LINES);
}

static void report_comparison(FILE *f, const Arm *first, const Comparison *c) {
  fprintf(f, "\n%s and %s\n", first->name, c->other->name);
  fprintf(f, "  exit status: %s\n", c->same_exit ? "the same" : "differs");
  fprintf(f, "  standard output: %s\n", c->out ? c->out : "the same");
  fprintf(f, "  standard error: %s\n", c->err ? c->err : "the same");
  report_list(f, "file tree", c->tree);
  report_calls(f, first, c);
}

static void report_sums(const Result *r, FILE *f) {
  g_autoptr(GPtrArray) names = call_names(r);
  if (!names->len)
    return;
  fprintf(f, "\n%-20s", "calls, time traced");
  for (guint i = 0; i < r->arms->len; i++)
    fprintf(f, " %28.28s", ((Arm *)r->arms->pdata[i])->name);
  for (guint n = 0; n < MIN(names->len, MAX_LINES); n++) {
    fprintf(f, "\n%-20s", (char *)names->pdata[n]);
    for (guint i = 0; i < r->arms->len; i++) {
      const CallSum *s = call_sum(r->arms->pdata[i], names->pdata[n]);
      g_autofree char *took = time_text(s->took);
      fprintf(f, " %8u (%4u failed) %10s", s->calls, s->errors, s->calls ? took : "-");
    }
  }
  fputc('\n', f);
}

void report_text(const Result *r, FILE *f) {
  report_arms(r, f);
  for (guint i = 0; i < r->comparisons->len; i++)
    report_comparison(f, r->arms->pdata[0], r->comparisons->pdata[i]);
  report_sums(r, f);
}
