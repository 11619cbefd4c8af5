/* SPDX-License-Identifier: Apache-2.0 */
/* The pids controller: exact, at every fork and clone. Zombies count until somebody waits for them. */
#include "cgroup.h"

/* The new number, or -1: it would be too high. Never too high in between, so that others are not refused for it. */
static gint64 add_one(Cg *c, gboolean force) {
  gint64 n = __atomic_load_n(&c->pids, __ATOMIC_SEQ_CST);
  do {
    if (!force && (guint64)n >= __atomic_load_n(&c->pids_max, __ATOMIC_RELAXED))
      return -1;
  } while (!__atomic_compare_exchange_n(&c->pids, &n, n + 1, FALSE, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return n + 1;
}

int pids_charge(Cg *c, gboolean force) {
  for (Cg *a = c; a; a = a->parent) {
    gint64 n = add_one(a, force);
    if (n < 0) {
      for (Cg *b = c; b != a; b = b->parent)
        __atomic_sub_fetch(&b->pids, 1, __ATOMIC_SEQ_CST);
      __atomic_add_fetch(&a->pids_events, 1, __ATOMIC_RELAXED);
      return -EAGAIN;
    }
    gint64 peak = __atomic_load_n(&a->pids_peak, __ATOMIC_RELAXED);
    while (n > peak &&
           !__atomic_compare_exchange_n(&a->pids_peak, &peak, n, FALSE, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      ;
  }
  return 0;
}

void pids_uncharge(Cg *c) {
  for (; c; c = c->parent)
    __atomic_sub_fetch(&c->pids, 1, __ATOMIC_SEQ_CST);
}

int pids_show_current(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  g_string_append_printf(s, "%" G_GINT64_FORMAT "\n", __atomic_load_n(&c->pids, __ATOMIC_RELAXED));
  return 0;
}

int pids_show_peak(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  g_string_append_printf(s, "%" G_GINT64_FORMAT "\n", __atomic_load_n(&c->pids_peak, __ATOMIC_RELAXED));
  return 0;
}

int pids_show_max(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  cg_show_max(s, __atomic_load_n(&c->pids_max, __ATOMIC_RELAXED));
  return 0;
}

int pids_store_max(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  guint64 v;
  int r = cg_parse_max(text, &v);
  if (r < 0)
    return r;
  if (v != CG_MAX && v > 4 << 20) /* more than there can ever be */
    return -EINVAL;
  __atomic_store_n(&c->pids_max, v, __ATOMIC_RELAXED);
  return 0;
}

int pids_show_events(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  g_string_append_printf(s, "max %" G_GUINT64_FORMAT "\n",
                         __atomic_load_n(&c->pids_events, __ATOMIC_RELAXED));
  return 0;
}
