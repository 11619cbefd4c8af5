/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the life-cycle files of core/task (task.c, clone.c, exit.c, pid.c, wait4.c, session.c, ns.c, exec.c):
 * numbers, namespaces' contents, linking into the process tree. "Locked" means: the task-set lock is held. */
#pragma once

#include <core/task/task.h>
#include <sched.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesThreadGroup, tes_tg_unref)

/* ---- pid.c ---- */

/* The numbers of one task in its pid namespace and every ancestor, root first. Lives as long as a task, a process
 * group or a session uses it: only then may the numbers be given out again. */
typedef struct {
  gint refs; /* locked */
  guint n;
  TesTask *task; /* borrowed; NULL when no task has the number any more */
  TesPidNr nr[]; /* ns: referenced */
} TesPid;

/* TesNs.data of CLONE_NEWPID. Locked. */
typedef struct {
  GHashTable *map;      /* number -> TesPid, borrowed */
  gint last;            /* last number given */
  guint level;          /* 0: the root namespace */
  guint n_tasks;        /* tasks with a number here, zombies included */
  TesThreadGroup *init; /* borrowed; NULL before the first process and after init's end */
  gboolean dying;       /* init is gone: no new members */
} TesPidNs;

#define TES_PID_NS(ns) ((TesPidNs *)(ns)->data)

TesPid *tes_pid_of(TesPidNr *nrs);
TesPid *tes_pid_ref(TesPid *);             /* locked */
void tes_pid_unref(TesKernel *, TesPid *); /* locked */
gint tes_pid_in(TesPid *, TesNs *ns /* NULL: root */);
TesPid *tes_pid_find(TesKernel *, TesNs *, gint nr); /* locked; borrowed */
TesNs *tes_pid_ns_new(TesKernel *, TesNs *parent);   /* -> ns.c; NULL: nested too deeply */
/* TRUE if one more task of `uid` is allowed (RLIMIT_NPROC, RLIM_INFINITY: none; `exempt`: privileged). Locked. */
gboolean tes_uid_may_add(TesKernel *, guint32 uid, guint64 limit, gboolean exempt);
void tes_uid_count(TesKernel *, guint32 uid, gint delta); /* locked */
guint tes_uid_tasks(TesKernel *, guint32 uid);            /* locked */
void tes_task_limit_init(TesKernel *);

/* ---- ns.c ---- */
typedef struct {
  TesMutex lock;
  char nodename[65], domainname[65];
} TesUtsNs;
#define TES_UTS_NS(ns) ((TesUtsNs *)(ns)->data)

/* CLONE_NEW* flags that this kernel can serve. */
#define TES_CLONE_NEW_SERVED \
  (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)
#define TES_CLONE_NEW_ALL (TES_CLONE_NEW_SERVED | CLONE_NEWUSER | CLONE_NEWTIME)
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* Namespaces of a task-to-be: copies or references of the parent's. */
typedef struct {
  TesMountNs *mount_ns;
  TesNs *user, *uts, *ipc, *pid, *pid_children, *net, *cgroup, *time;
} TesNsSet;
/* What `flags` (CLONE_NEW*) make of the task's own set. 0 or -errno; all or nothing. */
int tes_ns_set_make(TesTask *, guint64 flags, TesNsSet *out);
void tes_ns_set_clear(TesKernel *, TesNsSet *);
/* Hands the set's references to a task that nobody sees yet. */
void tes_ns_set_give(TesTask *, TesNsSet *);
/* Root and working directory as names in the task's mount namespace (transfer full), and back after the namespace was
 * copied: the task's fsinfo then points at the same places of its new mount_ns. */
void tes_ns_carry_dirs(TesTask *);
glong tes_ns_unshare(TesTask *, guint64 flags);
glong tes_ns_setns(TesTask *, TesFile *, int nstype);

/* ---- nsfile.c ---- */
/* The kind (CLONE_NEW*) of namespace a file is, and the namespace, borrowed (one of the two); 0: it is none. */
int tes_ns_of_file(TesFile *, TesNs **, TesMountNs **);

/* ---- task.c ---- */
TesTask *tes_task_alloc(TesKernel *);
TesThreadGroup *tes_tg_alloc(TesKernel *);
/* Gives back memory, files, root and mount namespace; the namespaces of numbers and names stay until the task is freed. No lock held. */
void tes_task_drop_resources(TesTask *);
/* Drops everything of a task that is not linked, and the reference. */
void tes_task_abort(TesTask *);
/* Makes the task visible: numbers, thread list, parent's children, process group. `parent` NULL: none. Locked; 0 or -errno. */
int tes_task_link(TesTask *, TesThreadGroup *parent, TesPgrp *pgrp /* new groups only */, const gint *set_tid,
                  guint n);
/* Takes a dead task's numbers and its place in the tables. Locked. */
void tes_task_unlink(TesTask *);
/* Reverts a link of a task that never ran. Locked. */
void tes_task_link_undo(TesTask *);

/* ---- exit.c ---- */

/* What has to be done after the task-set lock is released. */
typedef struct {
  GArray *signals;
} TesAfter;
void tes_after_signal_tg(TesAfter *, TesThreadGroup *, int sig);
void tes_after_signal_task(TesAfter *, TesTask *, int sig);
void tes_after_signal_pgrp(TesAfter *, TesPgrp *, int sig);
void tes_after_run(TesAfter *);
/* A zombie leaves the tree for good. `account`: its times go to the parent. Locked. */
void tes_tg_reap(TesThreadGroup *, gboolean account, TesAfter *);
/* Robust futexes, the cleared tid and vfork: what exec and exit do to the memory they leave. No lock held. */
void tes_task_leave_memory(TesTask *);
/* run.c: those who asked to be told (tes_kernel_on_leave). */
void tes_task_tell_leave(TesTask *);
/* Detaches from and drops the task's memory and exec; `exec`, `mm`: new ones (exec(2)) or NULL. */
void tes_task_switch_memory(TesTask *, TesMM *mm, TesExec *exec);
/* CPU time and counters of a group: live and dead threads. Locked. */
typedef struct {
  guint64 utime, stime /* ticks */, minflt, majflt, nvcsw, nivcsw, maxrss;
} TesUsage;
void tes_tg_usage(TesThreadGroup *, TesUsage *);
void tes_task_usage(TesTask *, TesUsage *);
void tes_tg_child_usage(TesThreadGroup *, TesUsage *);
void tes_usage_to_rusage(const TesUsage *, struct rusage *);

/* ---- cpuid.c ---- */
/* Before the platform is opened; knows the number of CPUs. */
void tes_cpuid_init(TesKernel *, TesCpuidMode, gboolean platform_answers);
void tes_cpuid_free(TesKernel *);
const TesCpuidTable *tes_cpuid_table(TesKernel *); /* NULL: CPUID is fast here */
/* Serves the trap of a patched CPUID; FALSE: it is something else. */
gboolean tes_task_cpuid(TesTask *);

/* ---- cgroup.c: nothing without a plugin ---- */
void tes_cgroups_init(TesKernel *);
/* The child's cgroup, charged: 0, -EAGAIN, or what CLONE_INTO_CGROUP's directory says. No lock held. */
int tes_cgroup_fork(TesTask *, TesTask *child, const TesCloneArgs *);
/* A task that is about to be linked becomes a member: of its parent's cgroup (NULL: of the one it has, else the root). Locked. */
int tes_cgroup_link(TesTask *, TesTask *parent);
void tes_cgroup_died(TesTask *);    /* no member any more; locked */
void tes_cgroup_release(TesTask *); /* not charged any more */
void tes_cgroup_free(TesTask *);
TesNs *tes_cgroup_ns_new(TesTask *); /* rooted at the task's cgroup */

/* ---- pidfd.c ---- */
TesFile *tes_pidfd_new(TesThreadGroup *, guint flags);

/* ---- exec.c ---- */
struct _TesLoadArgs;
/* As tes_task_execve() for any arguments of the loader. */
glong tes_task_exec(TesTask *, const struct _TesLoadArgs *);

/* ---- wait4.c: system call handlers ---- */
glong tes_do_wait4(TesTask *, const gulong a[6]);
glong tes_do_waitid(TesTask *, const gulong a[6]);

/* ---- cred.c ---- */
void tes_cred_set_groups(TesCred *, const guint32 *groups, guint n); /* of one that is not published yet */
/* Credentials after execve(2) of a file with these set-id bits (capabilities(7)); *gained: the process got more than its
 * caller had (not dumpable, AT_SECURE). Transfer full. */
TesCred *tes_cred_for_exec(const TesCred *, guint32 mode, guint32 uid, guint32 gid, gboolean *gained);
