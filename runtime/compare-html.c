/* SPDX-License-Identifier: Apache-2.0 */
/* The result of `tessera compare` as one page without scripts or references: a table of the arms, bars for each phase and each
 * system call, and the differences in full. */
#include <runtime/compare.h>
#include <string.h>

#define MAX_ROWS 500 /* of one list of differences */

static const char style[] =
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 "
    "1em;color:#222;background:#fff}"
    "h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}code,td.c{font-family:ui-monospace,monospace;font-"
    "size:.9em}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #ddd}td.n{text-align:right;white-space:nowrap}.bar{height:.75em;margin:.15em "
    "0;min-width:1px}"
    ".a0{background:#33658a}.a1{background:#f6ae2d}.a2{background:#6a994e}.a3{background:#b56576}.a4{"
    "background:#7d7d7d}"
    ".key{display:inline-block;width:.8em;height:.8em;margin-right:.3em}.same{color:#2a7a2a}.differs{color:#"
    "a33}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}td,th{border-color:#444}.same{"
    "color:#8c8}"
    ".differs{color:#f99}}";

static void put(FILE *f, const char *text) {
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  g_autofree char *safe = g_markup_escape_text(valid, -1);
  fputs(safe, f);
}

static guint color(guint arm) { return arm % 5; }

static void put_key(FILE *f, const Result *r) {
  fputs("<p>", f);
  for (guint i = 0; i < r->arms->len; i++) {
    fprintf(f, "<span class='key a%u'></span>", color(i));
    put(f, ((Arm *)r->arms->pdata[i])->name);
    fputs(" &nbsp; ", f);
  }
  fputs("</p>\n", f);
}

static void put_time(FILE *f, gint64 ns) {
  g_autofree char *t = time_text(ns);
  fprintf(f, "<td class=n>%s</td>", t);
}

static void put_arms(FILE *f, const Result *r) {
  fputs("<h2>Runs</h2><table><tr><th>arm<th>ended<th>least time<th>median<th>user<th>system<th>files "
        "left</tr>\n",
        f);
  for (guint i = 0; i < r->arms->len; i++) {
    const Arm *arm = r->arms->pdata[i];
    g_autofree char *ended = status_text(arm->status);
    fprintf(f, "<tr><td><span class='key a%u'></span>", color(i));
    put(f, arm->name);
    fprintf(f, "</td><td>%s</td>", ended);
    put_time(f, g_array_index(arm->walls, gint64, 0));
    put_time(f, g_array_index(arm->walls, gint64, arm->walls->len / 2));
    put_time(f, arm->user * 1000);
    put_time(f, arm->sys * 1000);
    fprintf(f, "<td class=n>%u</td></tr>\n", arm->tree->len);
  }
  fputs("</table>\n", f);
}

/* One row: what, and for each arm a bar with its label. `values` in the order of arms. */
static void put_bars(FILE *f, const Result *r, const char *what, const gint64 *values, char *const *labels,
                     gint64 most) {
  fputs("<tr><td class=c>", f);
  put(f, what);
  fputs("</td><td style='width:60%'>", f);
  for (guint i = 0; i < r->arms->len; i++)
    fprintf(f, "<div class='bar a%u' style='width:%.2f%%'></div>", color(i),
            most > 0 ? 100.0 * (double)values[i] / (double)most : 0);
  fputs("</td><td class=n>", f);
  for (guint i = 0; i < r->arms->len; i++)
    fprintf(f, "%s%s", i ? "<br>" : "", labels[i]);
  fputs("</td></tr>\n", f);
}

typedef enum { PHASE_START, PHASE_RUN, PHASE_END, N_PHASES } Phase;

static gint64 phase_time(const Arm *arm, Phase p) {
  if (!arm->calls || !arm->calls->first)
    return 0;
  gint64 at[] = {arm->traced_begin, arm->calls->first, arm->calls->last, arm->traced_end};
  return MAX(at[p + 1] - at[p], 0);
}

static void put_phases(FILE *f, const Result *r) {
  static const char *const names[] = {"start: to the first call", "run: first to last call",
                                      "end: last call to exit"};
  guint n = r->arms->len;
  g_autofree gint64 *values = g_new0(gint64, n);
  gint64 most = 0;
  for (guint i = 0; i < n; i++)
    for (guint p = 0; p < N_PHASES; p++)
      most = MAX(most, phase_time(r->arms->pdata[i], (Phase)p));
  fputs("<h2>Phases of the traced run</h2><table>\n", f);
  for (guint p = 0; p < N_PHASES; p++) {
    g_auto(GStrv) labels = g_new0(char *, n + 1);
    for (guint i = 0; i < n; i++) {
      values[i] = phase_time(r->arms->pdata[i], (Phase)p);
      labels[i] = time_text(values[i]);
    }
    put_bars(f, r, names[p], values, labels, most);
  }
  fputs("</table>\n", f);
}

static void put_calls(FILE *f, const Result *r) {
  g_autoptr(GPtrArray) names = call_names(r);
  if (!names->len)
    return;
  put_phases(f, r);
  fputs("<h2>System calls of the traced run, by time</h2><p>Bars show the time from entry to answer, waiting "
        "included.</p>"
        "<table>\n",
        f);
  guint n = r->arms->len;
  g_autofree gint64 *values = g_new0(gint64, n);
  gint64 most = 0;
  for (guint i = 0; i < n; i++)
    most = MAX(most, call_sum(r->arms->pdata[i], names->pdata[0])->took);
  for (guint c = 0; c < names->len; c++) {
    g_auto(GStrv) labels = g_new0(char *, n + 1);
    for (guint i = 0; i < n; i++) {
      const CallSum *s = call_sum(r->arms->pdata[i], names->pdata[c]);
      g_autofree char *took = time_text(s->took);
      values[i] = s->took;
      labels[i] = g_strdup_printf("%s, %u calls, %u failed", took, s->calls, s->errors);
    }
    put_bars(f, r, names->pdata[c], values, labels, most);
  }
  fputs("</table>\n", f);
}

static void put_verdict(FILE *f, const char *what, gboolean same, const char *how) {
  fprintf(f, "<p>%s: <span class=%s>", what, same ? "same" : "differs");
  put(f, same ? "the same" : how);
  fputs("</span></p>\n", f);
}

static void put_lines(FILE *f, GPtrArray *lines) {
  fputs("<ul>", f);
  for (guint i = 0; i < MIN(lines->len, MAX_ROWS); i++) {
    fputs("<li><code>", f);
    put(f, lines->pdata[i]);
    fputs("</code></li>\n", f);
  }
  fputs("</ul>\n", f);
}

static void put_call_differences(FILE *f, const Arm *first, const Comparison *c) {
  fputs("<table><tr><th>times<th>call<th>", f);
  put(f, first->name);
  fputs("<th>", f);
  put(f, c->other->name);
  fputs("</tr>\n", f);
  for (guint i = 0; i < MIN(c->calls->len, MAX_ROWS); i++) {
    const CallDifference *d = c->calls->pdata[i];
    fprintf(f, "<tr><td class=n>%u</td><td class=c>", d->count);
    put(f, d->what);
    fputs("</td><td class=c>", f);
    put(f, d->a ? d->a : "(not made)");
    fputs("</td><td class=c>", f);
    put(f, d->b ? d->b : "(not made)");
    fputs("</td></tr>\n", f);
  }
  fputs("</table>\n", f);
}

static void put_comparison(FILE *f, const Arm *first, const Comparison *c) {
  fputs("<h2>", f);
  put(f, first->name);
  fputs(" and ", f);
  put(f, c->other->name);
  fputs("</h2>\n", f);
  put_verdict(f, "Exit status", c->same_exit, "differs");
  put_verdict(f, "Standard output", !c->out, c->out);
  put_verdict(f, "Standard error", !c->err, c->err);
  put_verdict(f, "File tree", c->tree->len == 0, "differs");
  if (c->tree->len)
    put_lines(f, c->tree);
  if (!c->calls) {
    put_verdict(f, "System calls", FALSE, "not compared");
    return;
  }
  put_verdict(f, "System calls", c->calls->len == 0, "answered differently, or made on one arm only");
  if (c->calls->len)
    put_call_differences(f, first, c);
}

static void put_page(FILE *f, const Result *r) {
  g_autofree char *command = g_strjoinv(" ", r->command);
  fputs("<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>tessera compare</title><style>", f);
  fputs(style, f);
  fputs("</style></head><body><h1>tessera compare</h1><p><code>", f);
  put(f, command);
  fprintf(f, "</code>, %u timed run%s of each arm</p>\n", r->runs, r->runs == 1 ? "" : "s");
  put_key(f, r);
  put_arms(f, r);
  for (guint i = 0; i < r->comparisons->len; i++)
    put_comparison(f, r->arms->pdata[0], r->comparisons->pdata[i]);
  put_calls(f, r);
  fputs("</body></html>\n", f);
}

gboolean report_html(const Result *r, const char *path, GError **error) {
  FILE *f = fopen(path, "we");
  if (f)
    put_page(f, r);
  if (!f || fclose(f) != 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "--html=%s: %s", path, g_strerror(errno));
    return FALSE;
  }
  return TRUE;
}
