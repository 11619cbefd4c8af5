/* SPDX-License-Identifier: Apache-2.0 */
/* fs-cgroup: control groups version 2 (cgroups(7)) with the controllers cpu, memory and pids, and the filesystem "cgroup2" that
 * shows them. tree.c: the hierarchy; member.c: what the core asks (charges, members, moves); fs.c: inodes and the plugin; files.c: the
 * table of files and those of the core interface (cgroup.*); pids.c, memory.c, cpu.c: one controller each.
 *
 * One lock, `lock` of the hierarchy, below the task set's: it guards the tree and every setting. What is counted on every fork or tick
 * (pids, held) is atomic. A cgroup lives as long as somebody holds it; a removed one is `dead` and keeps its parent. */
#pragma once

#include "../fs-common/text.h"

typedef struct _Cg Cg;
typedef struct _CgFile CgFile;

enum { CTL_CPU = 1, CTL_MEMORY = 2, CTL_PIDS = 4, CTL_ALL = 7 };
#define CG_MAX G_MAXUINT64 /* "max" */
#define CG_N_FILES 48      /* attributes for so many files in each */
#define CG_TOTAL_MAX 16384 /* each takes a kilobyte and an id of 16 bits for its memory */
#define CG_DEPTH_MAX 250   /* the tree is walked recursively */

typedef struct {
  guint32 mode, uid, gid;
} CgAttr;

typedef struct {
  TesKernel *kernel;
  TesMutex lock, notify_lock;
  Cg *root;
  guint64 last_id;
  guint total;
  guint8 *used_ids; /* a bit for each memory id */
  guint last_mem_id;
} CgTree;

struct _Cg {
  TesCgroup base;
  gint refs;
  CgTree *tree; /* referenced: inodes may outlive the plugin's data at the kernel's end */
  Cg *parent;   /* referenced; constant */
  char *name;   /* constant */
  guint64 id;
  guint depth;
  GPtrArray *children; /* referenced */
  guint descendants;
  gboolean dead;
  guint ctl;                   /* controllers that it has: its parent's subtree */
  guint subtree;               /* controllers that its children have */
  CgAttr attr[CG_N_FILES + 1]; /* of its files, then of the directory */
  TesTime made;
  guint live;             /* tasks in it */
  guint live_all;         /* and below; cgroup.events */
  guint64 version;        /* of cgroup.events; atomic */
  TesInode *events_inode; /* of cgroup.events, the last one made; borrowed; the tree's notify_lock */
  TesQueue queue;         /* of cgroup.events */
  guint64 max_depth, max_descendants;

  gint freeze;    /* atomic: cgroup.freeze */
  gint throttled; /* atomic: over its quota */

  gint64 pids, pids_peak;                           /* atomic; subtree */
  guint64 pids_max, pids_events, pids_events_local; /* atomic */

  /* memory; settings are atomic, events too */
  guint64 mem_max, mem_high, mem_low, mem_min, swap_max, mem_peak, mem_last;
  gboolean oom_group;
  guint64 ev[6], ev_local[6]; /* low high max oom oom_kill oom_group_kill */
  GArray *dead_ids;           /* guint: removed descendants whose memory is still there */
  TesTime next_sample, last_kill;
  guint64 seen_charged; /* at the last sample */
  guint64
      victim; /* atomic: the process that is being killed, by number; 0: none; G_MAXUINT64: being chosen */

  /* cpu */
  guint64 weight, quota /* us, CG_MAX: none */, period, burst, idle;
  gint64 budget; /* ns left; atomic */
  TesTimer timer;
  gboolean timer_armed; /* lock */
  guint64 periods, throttles, throttled_us;
  TesTime throttled_since;
};

struct _CgFile {
  const char *name;
  guint32 mode;
  guint ctl;         /* shown where this controller is; 0: always */
  gboolean not_root; /* not in the root of the hierarchy */
  int (*show)(Cg *, TesCtx *, GString *);
  int (*store)(Cg *, TesCtx *, TesFile *, char *text);
};

/* ---- tree.c ---- */
CgTree *cg_tree(TesKernel *);
CgTree *cg_tree_new(TesKernel *);
void cg_tree_free(gpointer);
Cg *cg_ref(Cg *);
void cg_unref(Cg *);
/* Lock held. -EAGAIN: a limit; -EEXIST, -ENODEV. */
int cg_make(Cg *parent, const char *name, Cg **out /* transfer full */);
int cg_remove(Cg *); /* then, without the lock: cpu_fini(), and cg_unref() for the tree's reference */
Cg *cg_child(Cg *, const char *name);            /* borrowed */
gboolean cg_is_below(const Cg *, const Cg *top); /* or the same */
char *cg_path(Cg *, Cg *root);
void cg_event(Cg *); /* cgroup.events has changed */
/* Calls fn for the cgroup and all below; lock held. */
void cg_foreach(Cg *, void (*fn)(Cg *, gpointer), gpointer data);
/* Live tasks of it (with `below`: and of those below), as referenced TesTask. No lock held. */
GPtrArray *cg_tasks(Cg *, gboolean below);
/* Frees memory ids that nothing is charged to any more. Lock held. */
void cg_prune_ids(Cg *);

/* ---- member.c ---- */
extern const TesCgroupOps cg_ops;
int cg_attach(Cg *to, TesCtx *, const TesCred *opener, TesTask *task);
/* May the opener put tasks from `from` into `to`? Delegation: write permission on cgroup.procs of both's common ancestor. */
int cg_may_move(const TesCred *, Cg *from, Cg *to);
gboolean cg_held(Cg *); /* frozen or throttled, or an ancestor is */
void cg_hold_tasks(Cg *);
void cg_wake_tasks(Cg *);
gboolean cg_is_frozen(Cg *);
void cg_kill(Cg *);

/* ---- files.c ---- */
extern const CgFile cg_files[];
extern const guint cg_n_files;
#define CG_PROCS 0 /* index of cgroup.procs */
#define CG_EVENTS 4
gboolean cg_has_file(const Cg *, guint i);
int cg_parse_max(const char *text, guint64 *out); /* a number or "max" */
void cg_show_max(GString *, guint64);
int cg_parse_bytes(const char *text, guint64 *out); /* with suffixes K, M, G */

/* ---- fs.c ---- */
Cg *cg_of_dir(TesFile *); /* borrowed; NULL: not a directory of a cgroup */

/* ---- controllers ---- */
int pids_charge(Cg *, gboolean force);
void pids_uncharge(Cg *);
int pids_show_current(Cg *, TesCtx *, GString *);
int pids_show_max(Cg *, TesCtx *, GString *);
int pids_store_max(Cg *, TesCtx *, TesFile *, char *);
int pids_show_peak(Cg *, TesCtx *, GString *);
int pids_show_events(Cg *, TesCtx *, GString *);

void memory_reset(Cg *);
void memory_watch(Cg *); /* after a change of limits or of controllers; lock held */
void memory_tick(Cg *, gboolean may_wait);
int memory_show(Cg *, TesCtx *, GString *);
int memory_show_peak(Cg *, TesCtx *, GString *);
int memory_show_stat(Cg *, TesCtx *, GString *);
int memory_show_events(Cg *, TesCtx *, GString *);
int memory_show_events_local(Cg *, TesCtx *, GString *);
#define MEMORY_SETTING(name_)                         \
  int memory_show_##name_(Cg *, TesCtx *, GString *); \
  int memory_store_##name_(Cg *, TesCtx *, TesFile *, char *)
MEMORY_SETTING(max);
MEMORY_SETTING(high);
MEMORY_SETTING(low);
MEMORY_SETTING(min);
MEMORY_SETTING(swap_max);
MEMORY_SETTING(oom_group);
int memory_show_zero(Cg *, TesCtx *, GString *);

void cpu_init(Cg *);
void cpu_reset(Cg *);
void cpu_fini(Cg *);
void cpu_tick(Cg *);
int cpu_show_stat(Cg *, TesCtx *, GString *);
int cpu_show_max(Cg *, TesCtx *, GString *);
int cpu_store_max(Cg *, TesCtx *, TesFile *, char *);
int cpu_show_burst(Cg *, TesCtx *, GString *);
int cpu_store_burst(Cg *, TesCtx *, TesFile *, char *);
int cpu_show_weight(Cg *, TesCtx *, GString *);
int cpu_store_weight(Cg *, TesCtx *, TesFile *, char *);
int cpu_show_nice(Cg *, TesCtx *, GString *);
int cpu_store_nice(Cg *, TesCtx *, TesFile *, char *);
int cpu_show_idle(Cg *, TesCtx *, GString *);
int cpu_store_idle(Cg *, TesCtx *, TesFile *, char *);
