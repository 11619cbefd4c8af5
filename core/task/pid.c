/* SPDX-License-Identifier: Apache-2.0 */
/* Task numbers: pid namespaces, allocation with wrap-around, and the limits on how many tasks there may be.
 * Everything here is guarded by the task-set lock. A number is in use as long as a TesPid holds it: a task, a process
 * group or a session refers to it (pid_namespaces(7), clone(2)). */
#include <core/task/life.h>
#include <string.h>
#include <sys/resource.h>

#define RESERVED_PIDS 300 /* after a wrap small numbers are left to daemons, as Linux does */
#define MAX_PID_LEVELS 32

/* ---- Numbers ---- */

TesPid *tes_pid_of(TesPidNr *nrs) { return (TesPid *)((char *)nrs - G_STRUCT_OFFSET(TesPid, nr)); }

TesPid *tes_pid_ref(TesPid *p) {
  p->refs++;
  return p;
}

static void release_number(TesPidNr *n) {
  TesPidNs *d = TES_PID_NS(n->ns);
  g_hash_table_remove(d->map, GINT_TO_POINTER(n->nr));
  tes_ns_unref(n->ns);
}

void tes_pid_unref(TesKernel *k, TesPid *p) {
  tes_mutex_assert_held(&k->task_set);
  if (--p->refs > 0)
    return;
  for (guint i = 0; i < p->n; i++)
    release_number(&p->nr[i]);
  g_free(p);
}

void tes_pid_free(TesKernel *k, TesPidNr *nrs, guint n) {
  (void)n;
  if (nrs)
    tes_pid_unref(k, tes_pid_of(nrs));
}

gint tes_pid_in(TesPid *p, TesNs *ns) {
  if (!p)
    return 0;
  if (!ns)
    return p->nr[0].nr;
  guint level = TES_PID_NS(ns)->level;
  return level < p->n && p->nr[level].ns == ns ? p->nr[level].nr : 0;
}

TesPid *tes_pid_find(TesKernel *k, TesNs *ns, gint nr) {
  TesPidNs *d = TES_PID_NS(ns ? ns : k->root_pid);
  return g_hash_table_lookup(d->map, GINT_TO_POINTER(nr));
}

/* The next free number, or -EAGAIN. */
static gint next_number(TesKernel *k, TesPidNs *d) {
  gint max = k->pid_max, nr = d->last;
  if ((gint)g_hash_table_size(d->map) >= max - 1)
    return -EAGAIN;
  for (gint tries = 0; tries < max; tries++) {
    if (++nr >= max)
      nr = max > RESERVED_PIDS * 2 ? RESERVED_PIDS : 1;
    if (!g_hash_table_contains(d->map, GINT_TO_POINTER(nr))) {
      d->last = nr;
      return nr;
    }
  }
  return -EAGAIN;
}

/* clone3(2) set_tid: the number must be free, and a namespace without init may only get number 1. */
static gint chosen_number(TesKernel *k, TesPidNs *d, gint nr) {
  if (nr < 1 || nr >= k->pid_max || (nr != 1 && !d->init && !d->n_tasks))
    return -EINVAL;
  return g_hash_table_contains(d->map, GINT_TO_POINTER(nr)) ? -EEXIST : nr;
}

int tes_pid_alloc(TesKernel *k, TesNs *ns, TesTask *t, const gint *set_tid, guint n_set) {
  tes_mutex_assert_held(&k->task_set);
  guint levels = TES_PID_NS(ns)->level + 1;
  if (n_set > levels)
    return -EINVAL;
  if (TES_PID_NS(ns)->dying)
    return -ENOMEM;
  TesPid *p = g_malloc0(sizeof *p + levels * sizeof p->nr[0]);
  p->refs = 1;
  p->n = levels;
  p->task = t;
  TesNs *at = ns;
  for (guint i = 0; i < levels; i++, at = at->parent) {
    TesPidNs *d = TES_PID_NS(at);
    gint nr = i < n_set ? chosen_number(k, d, set_tid[i]) : next_number(k, d);
    if (nr < 0) {
      for (guint j = levels - i; j < levels; j++)
        release_number(&p->nr[j]);
      g_free(p);
      return nr;
    }
    p->nr[d->level] = (TesPidNr){tes_ns_ref(at), nr};
    g_hash_table_insert(d->map, GINT_TO_POINTER(nr), p);
  }
  t->nrs = p->nr;
  t->n_nrs = levels;
  t->tid = p->nr[0].nr;
  k->last_pid = t->tid;
  return 0;
}

/* ---- Namespaces ---- */

static void pid_ns_free(gpointer data) {
  TesPidNs *d = data;
  g_hash_table_unref(d->map);
  g_free(d);
}

TesNs *tes_pid_ns_new(TesKernel *k, TesNs *parent) {
  guint level = parent ? TES_PID_NS(parent)->level + 1 : 0;
  if (level > MAX_PID_LEVELS)
    return NULL;
  TesPidNs *d = g_new0(TesPidNs, 1);
  d->map = g_hash_table_new(NULL, NULL);
  d->level = level;
  TesNs *ns = tes_ns_new(k, CLONE_NEWPID, parent);
  ns->data = d;
  ns->free_data = pid_ns_free;
  return ns;
}

/* ---- Limits ---- */

guint tes_uid_tasks(TesKernel *k, guint32 uid) {
  return GPOINTER_TO_UINT(g_hash_table_lookup(k->uid_tasks, GUINT_TO_POINTER(uid)));
}

void tes_uid_count(TesKernel *k, guint32 uid, gint delta) {
  guint n = tes_uid_tasks(k, uid) + delta;
  if (n)
    g_hash_table_insert(k->uid_tasks, GUINT_TO_POINTER(uid), GUINT_TO_POINTER(n));
  else
    g_hash_table_remove(k->uid_tasks, GUINT_TO_POINTER(uid));
}

gboolean tes_uid_may_add(TesKernel *k, guint32 uid, guint64 limit, gboolean exempt) {
  if (g_atomic_int_get(&k->n_tasks) >= k->task_limit)
    return FALSE;
  return exempt || limit == RLIM_INFINITY || tes_uid_tasks(k, uid) < limit;
}

static guint64 read_number(const char *path) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents(path, &text, NULL, NULL) || !g_ascii_isdigit(text[0]))
    return G_MAXUINT64;
  return g_ascii_strtoull(text, NULL, 10);
}

/* pids.max of the kernel process's own cgroup (version 2). */
static guint64 cgroup_limit(void) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents("/proc/self/cgroup", &text, NULL, NULL))
    return G_MAXUINT64;
  const char *own = strstr(text, "0::/");
  if (!own)
    return G_MAXUINT64;
  g_autofree char *dir = g_strndup(own + 3, strcspn(own + 3, "\n"));
  g_autofree char *path = g_strconcat("/sys/fs/cgroup", dir, "/pids.max", NULL);
  return read_number(path);
}

/* A task costs a thread of the kernel and, on most platforms, one of the guest; the host keeps a quarter for itself. */
void tes_task_limit_init(TesKernel *k) {
  guint64 host = MIN(read_number("/proc/sys/kernel/threads-max"), read_number("/proc/sys/kernel/pid_max"));
  host = MIN(host, cgroup_limit());
  struct rlimit rl;
  if (getrlimit(RLIMIT_NPROC, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY)
    host = MIN(host, rl.rlim_cur);
  host = host / 8 * 3;
  k->task_limit = (gint)CLAMP(host, 16, (guint64)k->pid_max);
}
