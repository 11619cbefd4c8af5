/* SPDX-License-Identifier: Apache-2.0 */
/* Kicks that have no effect, and what is done about it.
 *
 * A kick is a signal that a guest thread cannot block, and an honest one answers with a trap as soon as it gets a CPU. But a guest
 * may write the words by which the stub tells guest code from its own, and jump into the stub to sleep or spin there, or
 * divert the handler from another thread: then its task could neither be paused nor killed. So who kicks again looks how long
 * it has been, and what the thread has done since. One that sleeps after two seconds, or used half a second of a CPU, has not answered
 * although it could: its process is killed. One that has no CPU, or that the host keeps (a slow page fault, a
 * stopped process), is left alone.
 *
 * StMapper.kick_lock guards the words in StExec; nothing here waits for another thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tessera/kernel.h>
#include "private.h"

#define PATIENCE (2 * G_TIME_SPAN_SECOND)
#define BLIND_PATIENCE (60 * G_TIME_SPAN_SECOND)  /* where /proc does not tell */
#define PER_THREAD (10 * G_TIME_SPAN_MILLISECOND) /* more, for each thread that could be before it */
#define CPU_LIMIT 500000000                       /* ns */
#define TASKS_MAX 4096

typedef struct {
  char state; /* as in /proc/PID/status; 0: unknown */
  gint64 cpu; /* ns used */
} Look;

/* The thread's state, if this directory of /proc/PID/task is its own. */
static char state_of(pid_t pid, const char *task, pid_t tid) {
  char path[64], line[256], state = 0;
  gboolean found = FALSE;
  g_snprintf(path, sizeof path, "/proc/%d/task/%s/status", pid, task);
  FILE *f = fopen(path, "re");
  while (f && !found && fgets(line, sizeof line, f)) {
    const char *inner = strrchr(line, '\t');
    if (g_str_has_prefix(line, "State:\t"))
      state = line[7];
    found = g_str_has_prefix(line, "NSpid:") && inner && atoi(inner) == tid;
  }
  if (f)
    fclose(f);
  return found ? state : 0;
}

static gint64 cpu_of(pid_t pid, const char *task) {
  char path[64], line[128];
  g_snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, task);
  FILE *f = fopen(path, "re");
  gint64 ns = f && fgets(line, sizeof line, f) ? g_ascii_strtoll(line, NULL, 10) : 0;
  if (f)
    fclose(f);
  return ns;
}

static Look look_at(const StMapper *m, const StThread *t) {
  Look look = {0, 0};
  char path[64];
  g_snprintf(path, sizeof path, "/proc/%d/task", m->pid);
  g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
  const char *name;
  for (guint i = 0; d && i < TASKS_MAX && !look.state && (name = g_dir_read_name(d)); i++)
    if ((look.state = state_of(m->pid, name, t->tid)))
      look.cpu = cpu_of(m->pid, name);
  return look;
}

/* After a second and more: TRUE if the thread could have answered. */
static gboolean defies(StExec *e, gint64 waited) {
  StAspace *as = ST_ASPACE(e);
  gint64 more = g_atomic_int_get(&ST_PLATFORM(as)->in_guest) * PER_THREAD;
  Look look = look_at(as->mapper, e->thread);
  if (e->first_cpu < 0)
    e->first_cpu = look.cpu;
  if (waited < PATIENCE + more)
    return FALSE;
  if (!look.state)
    return waited > BLIND_PATIENCE + more;
  return look.state == 'S' || (look.state == 'R' && look.cpu - e->first_cpu > CPU_LIMIT);
}

/* Under kick_lock. TRUE: kill it. */
static gboolean too_long(StExec *e) {
  gint64 now = g_get_monotonic_time();
  guint32 seq = __atomic_load_n(&e->thread->seq, __ATOMIC_RELAXED);
  if (!e->first_kick || e->kick_seq != seq) {
    e->first_kick = e->last_look = now;
    e->first_cpu = -1;
    e->kick_seq = seq;
    return FALSE;
  }
  if (now - e->last_look < G_TIME_SPAN_SECOND)
    return FALSE;
  e->last_look = now;
  return defies(e, now - e->first_kick);
}

void st_insist(StExec *e) {
  StAspace *as = ST_ASPACE(e);
  StMapper *m = as->mapper;
  g_mutex_lock(&m->kick_lock);
  gboolean kill = too_long(e);
  g_mutex_unlock(&m->kick_lock);
  if (!kill)
    return;
  tes_info("systrap: process %d of the host ignores its kernel: killed", m->pid);
  st_mapper_kill(m);
  /* Whoever holds the lock talks to the mapper, and finds out by himself. */
  if (g_mutex_trylock(&as->lock)) {
    st_mark_dead(as);
    g_mutex_unlock(&as->lock);
  }
}
