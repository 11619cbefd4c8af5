/* SPDX-License-Identifier: Apache-2.0 */
/* Which files a cgroup has, and those of the core interface (cgroup.*). */
#include "cgroup.h"

/* ---- Values ---- */

int cg_parse_max(const char *text, guint64 *out) {
  g_autofree char *t = g_strstrip(g_strdup(text));
  if (g_str_equal(t, "max")) {
    *out = CG_MAX;
    return 0;
  }
  return g_ascii_string_to_unsigned(t, 10, 0, G_MAXINT64, out, NULL) ? 0 : -EINVAL;
}

int cg_parse_bytes(const char *text, guint64 *out) {
  if (cg_parse_max(text, out) == 0) {
    *out = *out == CG_MAX ? CG_MAX : *out & TES_PAGE_MASK;
    return 0;
  }
  char *end;
  guint64 n = g_ascii_strtoull(text, &end, 10);
  static const char units[] = "kmgt";
  const char *u = *end && g_ascii_isdigit(*text) ? strchr(units, g_ascii_tolower(*end)) : NULL;
  if (!u || end[1])
    return -EINVAL;
  guint shift = 10 * (guint)(u - units + 1);
  *out = n > G_MAXINT64 >> shift ? (guint64)G_MAXINT64 & TES_PAGE_MASK : n << shift & TES_PAGE_MASK;
  return 0;
}

void cg_show_max(GString *s, guint64 v) {
  if (v == CG_MAX)
    g_string_append(s, "max\n");
  else
    g_string_append_printf(s, "%" G_GUINT64_FORMAT "\n", v);
}

static const char *const controllers[] = {"cpu", "memory", "pids"}; /* by bit of CTL_* */

static void show_controllers(GString *s, guint set) {
  const char *sep = "";
  for (guint i = 0; i < G_N_ELEMENTS(controllers); i++)
    if (set & 1U << i) {
      g_string_append_printf(s, "%s%s", sep, controllers[i]);
      sep = " ";
    }
  g_string_append_c(s, '\n');
}

/* ---- Members ---- */

static gint by_number(gconstpointer a, gconstpointer b) { return *(const gint *)a - *(const gint *)b; }

static int show_members(Cg *c, TesCtx *ctx, GString *s, gboolean threads) {
  g_autoptr(GPtrArray) all = cg_tasks(c, FALSE);
  g_autoptr(GArray) nr = g_array_new(FALSE, FALSE, sizeof(gint));
  TesNs *ns = tes_ctx_pid_ns(ctx);
  for (guint i = 0; i < all->len; i++) {
    TesTask *t = g_ptr_array_index(all, i);
    gint n = threads ? tes_task_tid(t, ns) : tes_task_pid(t, ns);
    g_array_append_val(nr, n);
  }
  g_array_sort(nr, by_number);
  for (guint i = 0; i < nr->len; i++)
    if (i == 0 || g_array_index(nr, gint, i) != g_array_index(nr, gint, i - 1))
      g_string_append_printf(s, "%d\n", g_array_index(nr, gint, i));
  return 0;
}
static int show_procs(Cg *c, TesCtx *ctx, GString *s) { return show_members(c, ctx, s, FALSE); }
static int show_threads(Cg *c, TesCtx *ctx, GString *s) { return show_members(c, ctx, s, TRUE); }

/* The task whose number a text holds; 0 is the writer. Referenced. */
static int named_task(TesCtx *ctx, char *text, TesTask **out) {
  guint64 nr;
  if (!g_ascii_string_to_unsigned(g_strstrip(text), 10, 0, G_MAXINT32, &nr, NULL))
    return -EINVAL;
  TesTask *self = tes_ctx_task(ctx);
  if (nr == 0)
    *out = self ? tes_task_ref(self) : NULL;
  else
    *out = tes_task_find(tes_ctx_kernel(ctx), tes_ctx_pid_ns(ctx), (gint)nr, FALSE);
  return *out ? 0 : -ESRCH;
}

static int store_procs(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  TesTask *t;
  int r = named_task(ctx, text, &t);
  if (r < 0)
    return r;
  r = cg_attach(c, ctx, text_opener(f), t);
  tes_task_unref(t);
  return r;
}

/* Threads move alone only within a threaded subtree, and there are none. */
static int store_threads(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)f;
  TesTask *t;
  int r = named_task(ctx, text, &t);
  if (r < 0)
    return r;
  Cg *own = (Cg *)tes_task_cgroup(t);
  r = own == c ? 0 : -EOPNOTSUPP;
  cg_unref(own);
  tes_task_unref(t);
  return r;
}

/* ---- Controllers ---- */

static int show_available(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  TES_LOCKED(&c->tree->lock);
  show_controllers(s, c->ctl);
  return 0;
}
static int show_subtree(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  TES_LOCKED(&c->tree->lock);
  show_controllers(s, c->subtree);
  return 0;
}

static int parse_subtree(char *text, guint *on, guint *off) {
  g_auto(GStrv) w = g_strsplit_set(text, " \t\n", -1);
  *on = *off = 0;
  for (char **p = w; *p; p++) {
    if (!**p)
      continue;
    guint bit = 0;
    for (guint i = 0; i < G_N_ELEMENTS(controllers); i++)
      if (g_str_equal(*p + 1, controllers[i]))
        bit = 1U << i;
    if (!bit || (**p != '+' && **p != '-'))
      return -EINVAL;
    guint *set = **p == '+' ? on : off, *other = **p == '+' ? off : on;
    *set |= bit;
    *other &= ~bit;
  }
  return 0;
}

static gboolean child_uses(const Cg *c, guint ctl) {
  for (guint i = 0; i < c->children->len; i++)
    if (((Cg *)g_ptr_array_index(c->children, i))->subtree & ctl)
      return TRUE;
  return FALSE;
}

static gboolean child_populated(const Cg *c) {
  for (guint i = 0; i < c->children->len; i++)
    if (((Cg *)g_ptr_array_index(c->children, i))->live_all)
      return TRUE;
  return FALSE;
}

/* May these be switched on although the cgroup has processes of its own? */
static gboolean internal_ok(const Cg *c, guint on) {
  if (!c->parent || !c->live || !on)
    return TRUE;
  return !((on | c->subtree) & CTL_MEMORY) && !child_populated(c);
}

static void set_controllers(Cg *c, guint ctl) {
  guint gone = c->ctl & ~ctl;
  c->ctl = ctl;
  if (gone & CTL_CPU)
    cpu_reset(c);
  if (gone & CTL_MEMORY)
    memory_reset(c);
  if (gone & CTL_PIDS)
    __atomic_store_n(&c->pids_max, CG_MAX, __ATOMIC_RELAXED);
  memory_watch(c);
}

static int store_subtree(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  guint on, off;
  int r = parse_subtree(text, &on, &off);
  if (r < 0)
    return r;
  TES_LOCKED(&c->tree->lock);
  on &= ~c->subtree;
  off &= c->subtree;
  if (on & ~c->ctl)
    return -ENOENT;
  if ((off && child_uses(c, off)) || !internal_ok(c, on))
    return -EBUSY;
  c->subtree = (c->subtree | on) & ~off;
  for (guint i = 0; i < c->children->len; i++)
    set_controllers(g_ptr_array_index(c->children, i), c->subtree);
  return 0;
}

/* ---- The rest of cgroup.* ---- */

static int show_type(Cg *c, TesCtx *ctx, GString *s) {
  (void)c, (void)ctx;
  g_string_append(s, "domain\n");
  return 0;
}
static int store_type(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)c, (void)ctx, (void)f;
  return g_str_equal(g_strstrip(text), "threaded") ? -EOPNOTSUPP : -EINVAL;
}

static int show_events(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  tes_mutex_lock(&c->tree->lock);
  gboolean populated = c->live_all > 0;
  tes_mutex_unlock(&c->tree->lock);
  g_string_append_printf(s, "populated %d\nfrozen %d\n", populated, cg_is_frozen(c));
  return 0;
}

static int show_freeze(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  g_string_append(s, g_atomic_int_get(&c->freeze) ? "1\n" : "0\n");
  return 0;
}
static int store_freeze(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  guint64 on;
  if (!g_ascii_string_to_unsigned(g_strstrip(text), 10, 0, G_MAXINT32, &on, NULL))
    return -EINVAL;
  if (on > 1)
    return -ERANGE;
  tes_mutex_lock(&c->tree->lock); /* so that who becomes a member either sees it or is seen */
  g_atomic_int_set(&c->freeze, (gint)on);
  tes_mutex_unlock(&c->tree->lock);
  if (on)
    cg_hold_tasks(c);
  else
    cg_wake_tasks(c);
  cg_event(c);
  return 0;
}

static int store_kill(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  guint64 n;
  if (!g_ascii_string_to_unsigned(g_strstrip(text), 10, 0, G_MAXINT32, &n, NULL))
    return -EINVAL;
  if (n != 1)
    return -ERANGE;
  cg_kill(c);
  return 0;
}

static void count_dying(Cg *c, gpointer n) { *(guint *)n += c->dead_ids->len; }
static int show_stat(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  guint dying = 0;
  TES_LOCKED(&c->tree->lock);
  cg_prune_ids(c);
  cg_foreach(c, count_dying, &dying);
  g_string_append_printf(s, "nr_descendants %u\nnr_dying_descendants %u\n", c->descendants, dying);
  return 0;
}

static int store_limit(Cg *c, char *text, guint64 *v) {
  guint64 n;
  int r = cg_parse_max(text, &n);
  if (r < 0)
    return r;
  if (n != CG_MAX && n > G_MAXINT32)
    return -ERANGE;
  TES_LOCKED(&c->tree->lock);
  *v = n;
  return 0;
}
static int show_depth(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  cg_show_max(s, c->max_depth);
  return 0;
}
static int store_depth(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  return store_limit(c, text, &c->max_depth);
}
static int show_descendants(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  cg_show_max(s, c->max_descendants);
  return 0;
}
static int store_descendants(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  return store_limit(c, text, &c->max_descendants);
}

/* ---- The table; cgroup.procs is CG_PROCS, cgroup.events CG_EVENTS ---- */

const CgFile cg_files[] = {
    {"cgroup.procs", 0644, 0, FALSE, show_procs, store_procs},
    {"cgroup.threads", 0644, 0, FALSE, show_threads, store_threads},
    {"cgroup.controllers", 0444, 0, FALSE, show_available, NULL},
    {"cgroup.subtree_control", 0644, 0, FALSE, show_subtree, store_subtree},
    {"cgroup.events", 0444, 0, TRUE, show_events, NULL},
    {"cgroup.type", 0644, 0, TRUE, show_type, store_type},
    {"cgroup.freeze", 0644, 0, TRUE, show_freeze, store_freeze},
    {"cgroup.kill", 0200, 0, TRUE, NULL, store_kill},
    {"cgroup.stat", 0444, 0, FALSE, show_stat, NULL},
    {"cgroup.max.depth", 0644, 0, FALSE, show_depth, store_depth},
    {"cgroup.max.descendants", 0644, 0, FALSE, show_descendants, store_descendants},
    {"pids.current", 0444, CTL_PIDS, FALSE, pids_show_current, NULL},
    {"pids.max", 0644, CTL_PIDS, FALSE, pids_show_max, pids_store_max},
    {"pids.peak", 0444, CTL_PIDS, FALSE, pids_show_peak, NULL},
    {"pids.events", 0444, CTL_PIDS, FALSE, pids_show_events, NULL},
    {"memory.current", 0444, CTL_MEMORY, FALSE, memory_show, NULL},
    {"memory.peak", 0444, CTL_MEMORY, FALSE, memory_show_peak, NULL},
    {"memory.max", 0644, CTL_MEMORY, FALSE, memory_show_max, memory_store_max},
    {"memory.high", 0644, CTL_MEMORY, TRUE, memory_show_high, memory_store_high},
    {"memory.low", 0644, CTL_MEMORY, TRUE, memory_show_low, memory_store_low},
    {"memory.min", 0644, CTL_MEMORY, TRUE, memory_show_min, memory_store_min},
    {"memory.swap.max", 0644, CTL_MEMORY, TRUE, memory_show_swap_max, memory_store_swap_max},
    {"memory.swap.current", 0444, CTL_MEMORY, TRUE, memory_show_zero, NULL},
    {"memory.stat", 0444, CTL_MEMORY, FALSE, memory_show_stat, NULL},
    {"memory.events", 0444, CTL_MEMORY, TRUE, memory_show_events, NULL},
    {"memory.events.local", 0444, CTL_MEMORY, TRUE, memory_show_events_local, NULL},
    {"memory.oom.group", 0644, CTL_MEMORY, TRUE, memory_show_oom_group, memory_store_oom_group},
    {"cpu.stat", 0444, 0, FALSE, cpu_show_stat, NULL},
    {"cpu.max", 0644, CTL_CPU, TRUE, cpu_show_max, cpu_store_max},
    {"cpu.max.burst", 0644, CTL_CPU, TRUE, cpu_show_burst, cpu_store_burst},
    {"cpu.weight", 0644, CTL_CPU, TRUE, cpu_show_weight, cpu_store_weight},
    {"cpu.weight.nice", 0644, CTL_CPU, TRUE, cpu_show_nice, cpu_store_nice},
    {"cpu.idle", 0644, CTL_CPU, TRUE, cpu_show_idle, cpu_store_idle},
};
const guint cg_n_files = G_N_ELEMENTS(cg_files);
G_STATIC_ASSERT(G_N_ELEMENTS(cg_files) <= CG_N_FILES);

gboolean cg_has_file(const Cg *c, guint i) {
  const CgFile *f = &cg_files[i];
  return !(f->not_root && !c->parent) && (!f->ctl || f->ctl & c->ctl);
}
