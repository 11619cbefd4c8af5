/* SPDX-License-Identifier: Apache-2.0 */
/* --trace=path (V3, W7): a line for each lookup in a directory. What the cache answers is told too, so that the walks of two
 * generations can be laid side by side; "asked" is what costs. */
#include <core/trace/trace.h>

typedef struct {
  guint64 asked, names,
      cached; /* atomic: lookups of filesystems, names they were for, lookups that the cache answered */
} Counts;

static Counts counts; /* of the process: --trace is for one sandbox at a time */

gboolean tes_trace_path_on(TesKernel *k) { return k->trace_path; }

static guint count_names(const char *names) {
  guint n = 1;
  for (const char *p = names; *p; p++)
    n += *p == '/';
  return n;
}

void tes_trace_path(TesCtx *ctx, const char *fs, const char *names, int result) {
  if (!ctx->kernel->trace_path)
    return;
  TesTask *t = tes_ctx_to_task(ctx);
  gint tid = t ? tes_task_tid(t, NULL) : 0;
  if (!fs) {
    __atomic_add_fetch(&counts.cached, 1, __ATOMIC_RELAXED);
    g_printerr("[%d] path: cached %s\n", tid, names);
    return;
  }
  __atomic_add_fetch(&counts.asked, 1, __ATOMIC_RELAXED);
  __atomic_add_fetch(&counts.names, count_names(names), __ATOMIC_RELAXED);
  if (result < 0)
    g_printerr("[%d] path: asked %s for %s: %s\n", tid, fs, names, g_strerror(-result));
  else
    g_printerr("[%d] path: asked %s for %s: found %d\n", tid, fs, names, result);
}

void tes_trace_path_end(TesKernel *k) {
  if (k->trace_path)
    g_printerr("path: %" G_GUINT64_FORMAT " lookups asked for %" G_GUINT64_FORMAT " names; %" G_GUINT64_FORMAT
               " were cached\n",
               counts.asked, counts.names, counts.cached);
}
