/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits: getrlimit(2). One object for each thread group. Defaults are those of a fresh Linux system, whatever the host's are. */
#include <core/task/life.h>
#include <core/task/signal-private.h>
#include <string.h>

static const TesLockClass limits_class = {"limits", TES_RANK_LEAF, FALSE,
                                          "resource limits of a thread group"};

#define UNLIMITED \
  { RLIM_INFINITY, RLIM_INFINITY }

static const struct rlimit defaults[RLIM_NLIMITS] = {
    [RLIMIT_CPU] = UNLIMITED,
    [RLIMIT_FSIZE] = UNLIMITED,
    [RLIMIT_DATA] = UNLIMITED,
    [RLIMIT_STACK] = {8 << 20, RLIM_INFINITY},
    [RLIMIT_CORE] = {0, RLIM_INFINITY},
    [RLIMIT_RSS] = UNLIMITED,
    [RLIMIT_NPROC] = {31768, 31768},
    [RLIMIT_NOFILE] = {1024, 524288},
    [RLIMIT_MEMLOCK] = {8 << 20, 8 << 20},
    [RLIMIT_AS] = UNLIMITED,
    [RLIMIT_LOCKS] = UNLIMITED,
    [RLIMIT_SIGPENDING] = {31768, 31768},
    [RLIMIT_MSGQUEUE] = {819200, 819200},
    [RLIMIT_NICE] = {0, 0},
    [RLIMIT_RTPRIO] = {0, 0},
    [RLIMIT_RTTIME] = UNLIMITED,
};

TesLimits *tes_limits_new(const struct rlimit *v) {
  TesLimits *l = g_new0(TesLimits, 1);
  l->refs = 1;
  tes_mutex_init(&l->lock, &limits_class);
  memcpy(l->v, v ? v : defaults, sizeof l->v);
  return l;
}

TesLimits *tes_limits_ref(TesLimits *l) {
  g_atomic_int_inc(&l->refs);
  return l;
}

void tes_limits_unref(TesLimits *l) {
  if (!l || !g_atomic_int_dec_and_test(&l->refs))
    return;
  tes_mutex_clear(&l->lock);
  g_free(l);
}

/* A single aligned word: read without the lock. */
guint64 tes_limits_soft(TesLimits *l, int resource) {
  return __atomic_load_n(&l->v[resource].rlim_cur, __ATOMIC_RELAXED);
}

guint64 tes_task_rlimit(TesTask *t, int resource) { return tes_limits_soft(t->tg->limits, resource); }

struct rlimit tes_task_rlimit_pair(TesTask *t, int resource) {
  TesLimits *l = t->tg->limits;
  TES_LOCKED(&l->lock);
  return l->v[resource];
}
