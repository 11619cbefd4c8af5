/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups, the core's side (cgroups(7)): every task belongs to one, children to their parent's, and a plugin that
 * offers a feature of kind "cgroup" counts and bounds what they use. Without one nothing is counted.
 *
 * Memory: while accounting is on, each page of the memory file is marked with the id of the cgroup whose task took it first.
 * tes_memfile_charged() says how much was handed out to an id, which is an upper bound of what it touched;
 * tes_memfile_sample() asks the host what really exists. */
#pragma once

#include <tessera/file.h>
#include <tessera/mm.h>
#include <tessera/task.h>

TES_BEGIN_DECLS

/* Embedded first in a plugin's cgroup. */
typedef struct {
  guint64 utime, stime; /* ticks of TES_CLOCK_TICK charged to its tasks; atomic */
  guint mem_id;         /* whom its tasks' memory is charged to; 0: nobody */
} TesCgroup;

typedef struct {
  gsize size;
  TesCgroup *(*root)(TesKernel *); /* where the first process begins; transfer full */
  TesCgroup *(*ref)(TesCgroup *);
  void (*unref)(TesCgroup *);
  /* One task more. 0, or -EAGAIN: a limit (pids.max), never with `force`. No lock of the core but perhaps the task set's. */
  int (*charge)(TesCgroup *, gboolean force);
  void (*uncharge)(TesCgroup *);
  /* A task is in it from now on (+1), or has exited or left (-1; never fails). Task-set lock held. -ENODEV: removed meanwhile;
   * -EBUSY: must not have tasks of its own. */
  int (*count)(TesCgroup *, TesTask *, int delta);
  /* clone3(2) CLONE_INTO_CGROUP: the cgroup of a directory that the task may put children into. Transfer full. */
  int (*open)(TesTask *, TesFile *dir, TesCgroup **out);
  /* Name as seen from `root` (NULL: the hierarchy's), as in /proc/PID/cgroup. Transfer full. */
  char *(*path)(TesCgroup *, TesCgroup *root);
  /* A tick was charged to a task of it. Event thread, no lock held. */
  void (*tick)(TesCgroup *, TesTask *);
  /* The calling task took memory of a watched cgroup; no lock held. May wait. */
  void (*pressure)(TesTask *);
  /* Rows of /proc/cgroups. */
  void (*describe)(TesKernel *, GString *);
} TesCgroupOps;

/* The task's cgroup, transfer full (the ops' unref); NULL without a plugin. */
TesCgroup *tes_task_cgroup(TesTask *);
/* The root that a context's cgroup namespace shows; borrowed; NULL: the hierarchy's. */
TesCgroup *tes_ctx_cgroup_root(TesCtx *);
/* Puts all threads of the task's group into another cgroup. 0, -ESRCH (no thread is left), or what count() says. */
int tes_task_cgroup_move(TesTask *, TesCgroup *to);
/* Every live task and its cgroup, with the task-set lock held. */
void tes_cgroup_foreach_task(TesKernel *, void (*)(TesTask *, TesCgroup *, gpointer), gpointer);
/* For /proc: "0::/path\n" of a task, and the rows of /proc/cgroups. */
void tes_task_cgroup_line(TesTask *, TesCtx *viewer, GString *);
void tes_cgroup_describe(TesKernel *, GString *);
/* What the operator allows the sandbox as a whole (0: no limit was given). */
guint64 tes_kernel_memory_limit(TesKernel *);
guint64 tes_kernel_pids_limit(TesKernel *);
/* /proc/PID/oom_score_adj: -1000 (never killed) to 1000. Setting: -EINVAL; -EACCES: less than before needs CAP_SYS_RESOURCE. */
gint tes_task_oom_score_adj(TesTask *);
int tes_task_set_oom_score_adj(TesTask *, TesCtx *who, gint);

/* ---- Memory ---- */

#define TES_MEM_IDS 65536
/* From now on pages are marked and counted. */
void tes_memfile_account(TesMemFile *);
/* After each MiB that is charged to `id` the task that took it calls pressure(). */
void tes_memfile_watch(TesMemFile *, guint id, gboolean on);
/* Bytes handed out to an id and not given back. */
guint64 tes_memfile_charged(const TesMemFile *, guint id);
/* Adds up, by class, the bytes that exist of all ids in a set (a bit for each id). Takes a while: about 50 us for each MiB. */
void tes_memfile_sample(TesMemFile *, const guint8 *ids, guint64 bytes[TES_MEM_CLASSES]);

TES_END_DECLS
