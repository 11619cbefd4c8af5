/* SPDX-License-Identifier: Apache-2.0 */
/* The memory controller. A page is charged to the cgroup whose task took it first and stays there, also when the task moves or the
 * cgroup is removed (then it is its parent's). What was handed out to a cgroup is known exactly and bounds what it uses; only
 * when that exceeds a limit the pages that exist are counted (docs/plugins/fs-cgroup.md), by the task that takes more memory and at
 * ticks of the CPU clock. Beyond memory.max the largest process dies. */
#include "cgroup.h"

#define SAMPLE_REST 20 /* sampling may take one part in so many of the time */
#define SAMPLE_MIN (10 * 1000 * 1000LL)
#define FASTEST 2 /* bytes in a nanosecond that memory can be filled with */
#define SAMPLE_STEP (1UL << 20)
#define KILL_WAIT (2 * TES_NSEC)        /* for a victim to go before another is chosen */
#define KILL_SETTLE ((TesTime)20000000) /* ns after a kill in which the memory of the victim comes back */
#define WAIT_STEP (5 * 1000 * 1000LL)
#define LOOKS 100
#define CHOOSING G_MAXUINT64
enum { EV_LOW, EV_HIGH, EV_MAX, EV_OOM, EV_OOM_KILL, EV_GROUP_KILL };

void memory_reset(Cg *c) {
  c->mem_max = c->mem_high = c->swap_max = CG_MAX;
  c->mem_low = c->mem_min = 0;
  c->oom_group = FALSE;
}

static guint64 get(const guint64 *v) { return __atomic_load_n(v, __ATOMIC_RELAXED); }
static guint64 limit_of(const Cg *c) {
  return c->parent && c->ctl & CTL_MEMORY ? MIN(get(&c->mem_max), get(&c->mem_high)) : CG_MAX;
}

static void watch_one(Cg *c, gpointer data) {
  (void)data;
  gboolean limited = FALSE;
  for (const Cg *a = c; a->parent && !limited; a = a->parent)
    limited = limit_of(a) != CG_MAX;
  tes_memfile_watch(tes_kernel_memfile(c->tree->kernel), c->base.mem_id, limited);
}

void memory_watch(Cg *c) { cg_foreach(c, watch_one, NULL); }

/* ---- How much is it? ---- */

typedef struct {
  guint8 set[TES_MEM_IDS / 8];
  TesMemFile *mf;
  guint64 charged;
} Ids;

static void add_id(Ids *i, guint id) {
  i->set[id / 8] |= (guint8)(1 << id % 8);
  i->charged += tes_memfile_charged(i->mf, id);
}

static void add_ids(Cg *c, gpointer data) {
  add_id(data, c->base.mem_id);
  for (guint i = 0; i < c->dead_ids->len; i++)
    add_id(data, g_array_index(c->dead_ids, guint, i));
}

static void collect_ids(Cg *c, Ids *i) {
  memset(i->set, 0, sizeof i->set);
  i->mf = tes_kernel_memfile(c->tree->kernel);
  i->charged = 0;
  TES_LOCKED(&c->tree->lock);
  cg_foreach(c, add_ids, i);
}

static guint64 sample(Cg *c, Ids *i, guint64 by_class[TES_MEM_CLASSES]) {
  if (!c->parent) {
    tes_memfile_account(i->mf);
    memset(i->set, 0xff, sizeof i->set);
  }
  tes_memfile_sample(i->mf, i->set, by_class);
  guint64 n = 0;
  for (guint k = 0; k < TES_MEM_CLASSES; k++)
    n += by_class[k];
  guint64 peak = get(&c->mem_peak);
  while (n > peak &&
         !__atomic_compare_exchange_n(&c->mem_peak, &peak, n, FALSE, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
  __atomic_store_n(&c->mem_last, n, __ATOMIC_RELAXED);
  return n;
}

static guint64 usage(Cg *c, guint64 by_class[TES_MEM_CLASSES]) {
  Ids i;
  collect_ids(c, &i);
  return sample(c, &i, by_class);
}

/* ---- Out of memory ---- */

static void event(Cg *c, guint which) {
  __atomic_add_fetch(&c->ev_local[which], 1, __ATOMIC_RELAXED);
  for (Cg *a = c; a; a = a->parent)
    __atomic_add_fetch(&a->ev[which], 1, __ATOMIC_RELAXED);
}

static guint64 badness(TesTask *t, guint64 total) {
  gint adj = tes_task_oom_score_adj(t);
  TesMM *mm = adj > -1000 ? tes_task_mm_ref(t) : NULL;
  if (!mm)
    return 0;
  TesMMStat st;
  tes_mm_stat(mm, &st);
  tes_mm_unref(mm);
  gint64 score = (gint64)st.rss + (gint64)(total / 1000) * adj;
  return (guint64)MAX(score, 1);
}

/* The largest process, never the sandbox's init; referenced, or NULL. */
static TesTask *choose_victim(Cg *c, guint64 used) {
  g_autoptr(GPtrArray) all = cg_tasks(c, TRUE);
  TesTask *worst = NULL;
  guint64 most = 0;
  for (guint i = 0; i < all->len; i++) {
    TesTask *t = g_ptr_array_index(all, i);
    if (tes_task_pid(t, NULL) <= 1 || (worst && tes_task_group(worst) == tes_task_group(t)))
      continue;
    guint64 n = badness(t, used);
    if (n > most) {
      most = n;
      worst = t;
    }
  }
  return worst ? tes_task_ref(worst) : NULL;
}

/* TRUE while a victim of this cgroup is being chosen, or has not given back its memory yet. */
static gboolean victim_lives(Cg *c) {
  guint64 pid = get(&c->victim);
  TesTime now = tes_time_monotonic(c->tree->kernel);
  if (!pid || now - __atomic_load_n(&c->last_kill, __ATOMIC_RELAXED) > KILL_WAIT)
    return FALSE;
  if (pid == CHOOSING || now - __atomic_load_n(&c->last_kill, __ATOMIC_RELAXED) < KILL_SETTLE)
    return TRUE;
  g_autoptr(TesTask) t = tes_task_find(c->tree->kernel, NULL, (gint)pid, TRUE);
  TesMM *mm = t ? tes_task_mm_ref(t) : NULL;
  if (mm)
    tes_mm_unref(mm);
  return mm != NULL;
}

/* One of those who find that memory is short chooses; the others wait for the outcome. */
static gboolean claim(Cg *c) {
  guint64 seen = get(&c->victim);
  if (victim_lives(c))
    return FALSE;
  TES_LOCKED(&c->tree->lock);
  if (get(&c->victim) != seen)
    return FALSE;
  __atomic_store_n(&c->victim, CHOOSING, __ATOMIC_RELAXED);
  __atomic_store_n(&c->last_kill, tes_time_monotonic(c->tree->kernel), __ATOMIC_RELAXED);
  return TRUE;
}

static void kill_victim(Cg *c, TesTask *t, guint64 used) {
  Cg *home = (Cg *)tes_task_cgroup(t), *group = NULL;
  for (Cg *a = home; a; a = a == c ? NULL : a->parent)
    if (a->parent && a->oom_group)
      group = a;
  event(c, EV_OOM);
  event(home, EV_OOM_KILL);
  tes_info("cgroup %s is out of memory (%" G_GUINT64_FORMAT " bytes): killing process %d (%s)", c->name, used,
           tes_task_pid(t, NULL), tes_task_comm(t));
  if (group) {
    event(group, EV_GROUP_KILL);
    cg_kill(group);
  } else {
    tes_signal_group(tes_task_group(t), SIGKILL, NULL);
  }
  for (Cg *a = home; a; a = a->parent)
    cg_event(a);
  cg_unref(home);
}

/* FALSE: nobody could be killed, or nobody may wait. TRUE: a victim is gone; is it enough? */
static gboolean out_of_memory(Cg *c, guint64 used, gboolean may_wait) {
  gboolean found = TRUE;
  if (claim(c)) {
    guint64 by_class[TES_MEM_CLASSES];
    used = usage(c, by_class); /* another victim may have gone since it was counted */
    if (used <= get(&c->mem_max)) {
      __atomic_store_n(&c->victim, 0, __ATOMIC_RELAXED);
      return may_wait;
    }
    event(c, EV_MAX);
    g_autoptr(TesTask) t = choose_victim(c, used);
    found = t != NULL;
    __atomic_store_n(&c->victim, found ? (guint64)tes_task_pid(t, NULL) : 0, __ATOMIC_RELAXED);
    if (found)
      kill_victim(c, t, used);
  }
  TesTask *self = tes_task_current();
  if (!may_wait || !self || !found)
    return FALSE;
  while (victim_lives(c))
    if (tes_task_block_killable(self, tes_time_monotonic(c->tree->kernel) + WAIT_STEP) == -EINTR)
      return FALSE; /* it is the victim */
  return TRUE;
}

/* memory.high: the more it is exceeded, the longer whoever takes more waits. */
static void slow_down(Cg *c, guint64 used, gboolean may_wait) {
  guint64 high = get(&c->mem_high);
  event(c, EV_HIGH);
  cg_event(c);
  TesTask *self = tes_task_current();
  if (!may_wait || !self)
    return;
  guint64 percent = MIN((used - high) / (high / 100 + 1), 100);
  tes_task_block_killable(self, tes_time_monotonic(c->tree->kernel) + (TesTime)(1 + percent) * 1000000);
  tes_task_wake(self);
}

/* Is it time to count? */
static gboolean is_due(Cg *c, guint64 charged, guint64 limit, gboolean own) {
  TesTime now = tes_time_monotonic(c->tree->kernel);
  TES_LOCKED(&c->tree->lock);
  guint64 last = get(&c->mem_last), step = last < limit ? MAX((limit - last) / 4, SAMPLE_STEP) : 0;
  if (now < c->next_sample && !(own && charged >= c->seen_charged + step))
    return FALSE;
  c->next_sample = now + SAMPLE_MIN;
  c->seen_charged = charged;
  return TRUE;
}

/* How long until the next count: a small part of the time goes into it, a larger one the nearer the limit is. */
static TesTime rest(TesTime took, guint64 used, guint64 limit) {
  TesTime reach = used < limit ? (TesTime)((limit - used) / FASTEST) : 0;
  return MAX(SAMPLE_MIN, MIN(took * SAMPLE_REST, MAX(reach, took * 3)));
}

/* Counts; TRUE: too much, but somebody has been killed for it. */
static gboolean look_once(Cg *c, gboolean may_wait) {
  guint64 by_class[TES_MEM_CLASSES], limit = limit_of(c);
  Ids i;
  collect_ids(c, &i);
  if (i.charged <= limit || !is_due(c, i.charged, limit, may_wait))
    return FALSE;
  TesTime began = tes_time_monotonic(c->tree->kernel);
  guint64 used = sample(c, &i, by_class);
  TesTime took = tes_time_monotonic(c->tree->kernel) - began;
  tes_mutex_lock(&c->tree->lock);
  c->next_sample = began + rest(took, used, limit);
  tes_mutex_unlock(&c->tree->lock);
  if (used > get(&c->mem_max))
    return out_of_memory(c, used, may_wait);
  if (used > get(&c->mem_high))
    slow_down(c, used, may_wait);
  return FALSE;
}

static void look(Cg *c, gboolean may_wait) {
  for (guint n = 0; n < LOOKS && look_once(c, may_wait); n++)
    ;
}

void memory_tick(Cg *c, gboolean may_wait) {
  for (; c->parent; c = c->parent)
    if (limit_of(c) != CG_MAX)
      look(c, may_wait);
}

/* ---- Files ---- */

int memory_show(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  guint64 by_class[TES_MEM_CLASSES];
  g_string_append_printf(s, "%" G_GUINT64_FORMAT "\n", usage(c, by_class));
  return 0;
}

int memory_show_peak(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  guint64 by_class[TES_MEM_CLASSES];
  usage(c, by_class);
  g_string_append_printf(s, "%" G_GUINT64_FORMAT "\n", get(&c->mem_peak));
  return 0;
}

int memory_show_zero(Cg *c, TesCtx *ctx, GString *s) {
  (void)c, (void)ctx;
  g_string_append(s, "0\n");
  return 0;
}

int memory_show_stat(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  guint64 v[TES_MEM_CLASSES];
  usage(c, v);
  const struct {
    const char *name;
    guint64 n;
  } rows[] = {{"anon", v[TES_MEM_ANON]},
              {"file", v[TES_MEM_FILE]},
              {"kernel", v[TES_MEM_KERNEL]},
              {"kernel_stack", 0},
              {"pagetables", 0},
              {"percpu", 0},
              {"sock", 0},
              {"shmem", v[TES_MEM_FILE]},
              {"file_mapped", 0},
              {"file_dirty", 0},
              {"file_writeback", 0},
              {"swapcached", 0},
              {"anon_thp", 0},
              {"inactive_anon", v[TES_MEM_ANON] + v[TES_MEM_FILE]},
              {"active_anon", 0},
              {"inactive_file", 0},
              {"active_file", 0},
              {"unevictable", 0},
              {"slab", 0}};
  for (gsize i = 0; i < G_N_ELEMENTS(rows); i++)
    g_string_append_printf(s, "%s %" G_GUINT64_FORMAT "\n", rows[i].name, rows[i].n);
  return 0;
}

static int show_events(const guint64 *ev, GString *s) {
  static const char *const names[] = {"low", "high", "max", "oom", "oom_kill", "oom_group_kill"};
  for (gsize i = 0; i < G_N_ELEMENTS(names); i++)
    g_string_append_printf(s, "%s %" G_GUINT64_FORMAT "\n", names[i], get(&ev[i]));
  return 0;
}
int memory_show_events(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  return show_events(c->ev, s);
}
int memory_show_events_local(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  return show_events(c->ev_local, s);
}

static int store_bytes(Cg *c, char *text, guint64 *v) {
  guint64 n;
  int r = cg_parse_bytes(g_strstrip(text), &n);
  if (r < 0)
    return r;
  if (!c->parent) /* the sandbox as a whole is bounded by the operator */
    return -EINVAL;
  tes_mutex_lock(&c->tree->lock);
  __atomic_store_n(v, n, __ATOMIC_RELAXED);
  c->next_sample = 0;
  memory_watch(c);
  tes_mutex_unlock(&c->tree->lock);
  look(c, FALSE);
  return 0;
}

#define BYTES_SETTING(name_, field_)                                     \
  int memory_show_##name_(Cg *c, TesCtx *ctx, GString *s) {              \
    (void)ctx;                                                           \
    cg_show_max(s, get(&c->field_));                                     \
    return 0;                                                            \
  }                                                                      \
  int memory_store_##name_(Cg *c, TesCtx *ctx, TesFile *f, char *text) { \
    (void)ctx, (void)f;                                                  \
    return store_bytes(c, text, &c->field_);                             \
  }
BYTES_SETTING(max, mem_max)
BYTES_SETTING(high, mem_high)
BYTES_SETTING(low, mem_low)
BYTES_SETTING(min, mem_min)
BYTES_SETTING(swap_max, swap_max)

int memory_show_oom_group(Cg *c, TesCtx *ctx, GString *s) {
  (void)ctx;
  g_string_append(s, c->oom_group ? "1\n" : "0\n");
  return 0;
}

int memory_store_oom_group(Cg *c, TesCtx *ctx, TesFile *f, char *text) {
  (void)ctx, (void)f;
  guint64 n;
  if (!g_ascii_string_to_unsigned(g_strstrip(text), 10, 0, 1, &n, NULL))
    return -EINVAL;
  TES_LOCKED(&c->tree->lock);
  c->oom_group = n != 0;
  return 0;
}
