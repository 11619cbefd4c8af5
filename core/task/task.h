/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: tasks, thread groups, sessions and the kernel object. Lock order: task set > signal handlers > task. */
#pragma once

#include <core/mm/mm.h>
#include <pthread.h>
#include <tessera/cgroup.h>
#include <tessera/tessera.h>

#define TES_NSIG 64
#define TES_SIGMASK(sig) (1ULL << ((sig)-1))
#define TES_SIG_UNBLOCKABLE (TES_SIGMASK(SIGKILL) | TES_SIGMASK(SIGSTOP))

typedef struct _TesSeccomp TesSeccomp; /* core/task/seccomp.h */

/* The kernel's sigaction layout (rt_sigaction(2) on x86-64). */
typedef struct {
  guint64 handler; /* SIG_DFL 0, SIG_IGN 1 */
  guint64 flags;   /* SA_*, SA_RESTORER included */
  guint64 restorer;
  guint64 mask;
} TesSigAction;

typedef struct _TesSigQueued {
  struct _TesSigQueued *next;
  siginfo_t info;
  guint user; /* whose RLIMIT_SIGPENDING it counts against: signal-send.c */
} TesSigQueued;

/* Pending signals of a task or of a group. Guarded by the group's sighand lock. */
typedef struct {
  guint64 set;
  TesSigQueued *head, **tail;
} TesSigPending;

/* Actions, shared by CLONE_SIGHAND. Its lock guards actions and all pending sets of its users. */
typedef struct {
  gint refs;
  TesMutex lock;
  TesSigAction action[TES_NSIG + 1];
} TesSigHand;

typedef struct {
  gulong sp, size;
  guint flags; /* SS_DISABLE, SS_AUTODISARM */
} TesAltStack;

struct _TesLimits {
  gint refs;
  TesMutex lock;
  struct rlimit v[RLIM_NLIMITS];
};
TesLimits *tes_limits_new(const struct rlimit *v /* NULL: defaults */);
TesLimits *tes_limits_ref(TesLimits *);
void tes_limits_unref(TesLimits *);

struct _TesSession {
  gint refs;
  gint sid;               /* root namespace number */
  TesTty *tty;            /* controlling terminal, referenced; task-set lock */
  TesThreadGroup *leader; /* borrowed; NULL after its exit */
  gpointer pid;           /* TesPid (life.h), referenced: keeps the number in use */
};
typedef struct _TesPgrp {
  gint refs;
  gint pgid;
  TesSession *session; /* referenced */
  GQueue groups;       /* TesThreadGroup; task-set lock */
  gpointer pid;        /* TesPid (life.h), referenced */
} TesPgrp;

/* A number of a task in one pid namespace. Level 0 is the root namespace. */
typedef struct {
  TesNs *ns;
  gint nr;
} TesPidNr;

/* Thread group. Fields are guarded by the task-set lock unless said otherwise. */
struct _TesThreadGroup {
  gint refs;
  TesKernel *kernel;
  gint tgid;              /* root namespace */
  TesTask *leader;        /* owned until the group is reaped */
  GQueue threads;         /* live TesTask, in creation order */
  gint n_live;            /* written with atomics: tes_tg_n_live() reads it without the lock */
  TesThreadGroup *parent; /* borrowed; NULL: none (created by the control side) */
  GQueue children;        /* TesThreadGroup, owned references */
  TesPgrp *pgrp;
  TesSession *session;
  TesPidNr *nrs; /* number in each namespace, level order */
  guint n_nrs;
  TesSigHand *sighand;   /* owned */
  TesSigPending pending; /* sighand lock */
  TesLimits *limits;
  gint exit_signal;
  gboolean exiting; /* group exit has begun */
  gint exit_status; /* wait(2) status once exiting */
  gboolean zombie;  /* all threads gone, not reaped */
  gboolean reaped;
  gboolean execed; /* setpgid of a child: EACCES after exec */
  gboolean child_subreaper, has_child_subreaper;
  TesTask *exec_task; /* exec from a thread is killing the others */
  /* job control (sighand lock) */
  gint stop_sig;    /* group stop in progress or complete */
  gboolean stopped; /* every thread has stopped */
  gboolean stop_reported, cont_pending;
  /* waiting parents (wait4) */
  TesQueue child_queue; /* notified on any change of a child */
  TesQueue exit_queue;  /* notified when this group becomes a zombie (pidfd, tes_tg_wait) */
  gboolean started;     /* L8, L21 */
  char *container_id;
  gboolean dumpable;
  gint oom_score_adj;
  /* accounting: ticks of exited threads and reaped children; atomic */
  guint64 dead_utime, dead_stime, child_utime, child_stime;
  guint64 child_maxrss;
  /* timers: core/time/itimer.c, guarded by timer_lock */
  TesMutex timer_lock;
  TesTimer itimer_real;
  TesTime itimer_virt_left, itimer_virt_period, itimer_prof_left, itimer_prof_period;
  GHashTable *posix_timers;
  gint next_timer_id;
  TesTime start_time;  /* monotonic */
  guint64 parent_task; /* id of the parent's thread that counts as parent (PR_SET_PDEATHSIG, __WNOTHREAD) */
  guint64 dead_minflt, dead_majflt, dead_nvcsw, dead_nivcsw, child_minflt, child_majflt, child_nvcsw,
      child_nivcsw;
  guint64 maxrss;         /* bytes, at exit and exec */
  gboolean membarrier;    /* registered for MEMBARRIER_CMD_PRIVATE_EXPEDITED */
  gboolean exit_deferred; /* init of a pid namespace that waits for the other members to go */
  guint64 utime, stime;   /* ticks of all threads, gone ones included; atomic (core/time/cpuclock.c) */
  gint n_cpu_timers;      /* posix timers on CPU clocks; timer_lock */
};

typedef enum {
  TES_TASK_NEW,
  TES_TASK_GUEST,
  TES_TASK_KERNEL,
  TES_TASK_BLOCKED,
  TES_TASK_BLOCKED_WITHIN, /* in the middle of a call: what it borrowed is still in use */
  TES_TASK_STOPPED,
  TES_TASK_DEAD
} TesTaskState;

typedef struct _TesSemUndo TesSemUndo;

/* A task. ctx must stay first: TesTask * and TesCtx * are converted into each other. Fields without a note belong to the task's own thread. */
struct _TesTask {
  TesCtx ctx;
  gint refs;
  TesKernel *kernel;
  TesThreadGroup *tg; /* owned */
  gint tid;           /* root namespace */
  TesPidNr *nrs;      /* task-set lock; freed with the task */
  guint n_nrs;
  guint64 id;
  pthread_t thread;
  gint state;    /* TesTaskState, atomic */
  char comm[16]; /* task lock */
  TesMutex lock; /* guards what others read: mm, fdtable, fsinfo, cred, namespaces, comm */
  TesMM *mm;
  TesExec *exec;
  TesTrap trap; /* the trap being served */
  TesFdTable *fdtable;
  TesFsInfo *fsinfo;
  TesSemUndo *sem_undo; /* core/ipc/sem.c; NULL: none. Own thread, and a parent that makes it */
  TesCred *cred;
  TesMountNs *mount_ns;
  guint64
      futex_root; /* 0: its shared futexes are the kernel's; else those of the created process it descends from (X8) */
  TesNs *ns_user, *ns_uts, *ns_ipc, *ns_pid /* of itself */, *ns_pid_children, *ns_net, *ns_cgroup, *ns_time;

  /* waking and work: tes_task_block */
  gint wake;         /* futex word: bumped by tes_task_wake */
  gint work_pending; /* atomic: something to do before the guest runs again */
  GSList *work;      /* TesTaskWork; under work_lock */
  TesMutex work_lock;
  gint in_guest; /* atomic */

  /* signals: sighand lock */
  TesSigPending pending;
  guint64 blocked;
  guint64 saved_mask; /* with have_saved_mask: restored after the call (sigsuspend, ppoll) */
  gboolean have_saved_mask;
  guint64 wait_set; /* sigtimedwait waits for these although blocked */
  gint sig_flag;    /* atomic: recheck pending signals */
  TesAltStack altstack;
  gboolean stopped; /* takes part in a group stop */
  gboolean killed;  /* SIGKILL or group exit: atomic */
  gint exit_code;   /* wait status for _exit of this thread */
  glong (*restart_fn)(TesTask *, const gulong a[6]);
  gulong restart_args[6];
  gint trap_no, trap_err; /* of the last fault, for sigcontext */
  gulong fault_addr;
  gulong last_fault_addr, last_fault_ip; /* progress check of repeated faults */
  guint fault_repeats;

  /* the call being served */
  guint32 umask_took; /* tes_ctx_apply_umask() */
  gulong nr, args[6];
  gboolean in_syscall; /* result may be a restart code */
  gboolean no_result;  /* handler set all registers itself (sigreturn, exec) */

  /* threads */
  gulong clear_child_tid, robust_list;
  gsize robust_list_len;
  TesTask *vfork_parent; /* referenced; woken at exec or exit */
  gint vfork_done;       /* atomic, in the parent */
  gint pdeath_signal;
  gulong child_exit_signal;
  gboolean is_dead;     /* task-set lock */
  guint64 cpu_mask[16]; /* affinity, up to 1,024 CPUs */
  gint nice;
  gint sched_policy, sched_priority;
  gulong timer_slack;
  gboolean keep_caps;
  gulong personality;
  /* accounting, in ticks (atomic): charged by the CPU clock ticker */
  guint64 utime, stime;
  guint64 nvcsw, nivcsw, minflt, majflt; /* tes_count(): by the task itself, read by anyone */
  TesTime start_time;
  /* borrowed root and cwd handed out by the context table, dropped before the guest runs again */
  GSList *borrowed_paths;
  GSList *dropped_files;   /* tes_task_drop_file(), until the call is over */
  gboolean working;        /* runs deferred work in the middle of a call */
  gpointer trace, watch;   /* core/trace */
  gboolean vm_shared;      /* CLONE_VM was used with another group: its memory outlives it */
  gboolean linked;         /* task-set lock: has numbers and is counted */
  guint32 counted_uid;     /* task-set lock: whose RLIMIT_NPROC it counts against */
  gboolean nproc_exceeded; /* setuid went over RLIMIT_NPROC: execve fails (execve(2) EAGAIN) */
  gint ioprio;
  guint64 sched_flags, sched_runtime, sched_deadline, sched_period; /* sched_setattr(2) */
  gulong default_timer_slack;
  gboolean thp_disable, tsc_sigsegv, cpuid_fault;
  gint cpu_running, cpu_listed; /* core/time/cpuclock.c: atomic; running lock */
  TesCgroup *cgroup;            /* core/task/cgroup.c; owned, NULL without a plugin */
  gboolean cgroup_charged, cgroup_counted;
  gint mem_id;           /* atomic: whom fresh memory is charged to */
  gboolean mem_pressure; /* pressure() is to be called */
  TesSeccomp *seccomp;   /* core/task/seccomp.c; atomic, written under the task-set lock; NULL: no filters */
};

struct _TesKernel {
  TesRegistry *registry;
  TesTimekeeper *timekeeper;
  TesPlatform *platform;
  TesVfs *vfs;
  const char *vfs_name; /* of the feature */
  TesMemFile *memfile;
  TesMutex ext_lock; /* L2 */
  gboolean initialised, started;
  guint cores;
  gboolean use_host_cores;
  guint64 *extra_auxv;
  guint n_extra_auxv;
  TesQueue signal_queue; /* signalfds wait here */
  guint watch;           /* core/trace/trace.h: what is watched, or 0; set before the first task */
  gpointer watching;     /* core/trace/watch.c */
  int strace_fd;         /* where to; 0: standard error */
  const TesSyscall *syscalls[TES_SYSCALL_MAX];

  TesMutex task_set;    /* process tree */
  GHashTable *tasks;    /* tid in the root namespace -> TesTask, referenced */
  GHashTable *pgrps;    /* pgid -> TesPgrp, borrowed */
  GHashTable *sessions; /* sid -> TesSession, borrowed */
  gint n_tasks;         /* atomic: live */
  gint last_pid, pid_max;
  TesThreadGroup *init;  /* L23 */
  TesQueue exited_queue; /* notified when n_tasks falls to 0 */
  GPtrArray *to_start;   /* created before Start */
  gint pause_count;      /* L26; task-set lock */
  pthread_mutex_t pause_mutex;
  pthread_cond_t pause_cond;
  gint running; /* tasks that run guest or kernel code; running lock */
  TesMutex running_lock;
  gpointer ticker;   /* core/time/cpuclock.c */
  guint64 cpu_ticks; /* atomic */

  TesNs *root_user, *root_uts, *root_ipc, *root_pid, *root_net, *root_cgroup, *root_time;
  TesMountNs *root_mount_ns;
  TesPath *root_path; /* of root_mount_ns */
  TesCtx supervisor;
  TesCred *supervisor_cred;
  guint64 unique_id;      /* atomic */
  guint32 inotify_cookie; /* atomic */
  guint next_dev;         /* atomic */
  guint64 anon_devs[3];   /* core/file/file.c; atomic, 0: not yet */
  TesDcacheLimiter dcache_limiter;
  gboolean trace_path;
  GError *save_error;
  GHashTable *data; /* plugins' data; ext lock */
  char *syslog;
  GMainContext *main_context;
  GMainLoop *main_loop;
  GThread *event_thread;
  TesMapSource *vdso_source; /* core/vdso: image, then parameter page */
  gpointer vdso_params;      /* kernel's view of the parameter page */
  gsize vdso_pages, vdso_param_offset;
  gpointer cpuid;        /* core/task/cpuid.c; NULL: CPUID is the host's */
  gpointer cpuid_files;  /* core/mm/cpuid-sites.c; NULL: code of files is not searched for CPUID */
  gpointer timers;       /* core/time/timer.c */
  gpointer futexes;      /* core/task/futex.c: root futex manager (X8) */
  gpointer unimpl;       /* core/trace/unimpl.c */
  TesSuper *nsfs_super;  /* atomic; core/task/nsfile.c: the filesystem of namespaces, made at first use */
  TesSuper *memfd_super; /* atomic; core/syscalls/open.c: the filesystem of memfd_create, made at first use */
  GSList *on_leave;      /* Work: tes_kernel_on_leave() */
  gpointer plugins_inited; /* GPtrArray of TesPlugin with fini */
  guint32 boot_time;
  gint task_limit;                  /* so that the host's limits are never met */
  const TesCgroupOps *cgroups;      /* NULL: no plugin */
  guint64 memory_limit, pids_limit; /* the operator's; 0: none */
  GHashTable *uid_tasks;            /* uid -> number of tasks (RLIMIT_NPROC); task-set lock */
};

extern const TesStateOps tes_state_task;

/* ---- kernel.c / ctx.c ---- */
void tes_ctx_init(TesCtx *, TesCtxKind, TesKernel *);

/* ---- task.c: life cycle ---- */
typedef struct {
  guint64 flags;            /* CLONE_* */
  gulong stack, stack_size; /* clone3: lowest address and size; clone: stack top, size 0 */
  gulong tls, parent_tid, child_tid, pidfd;
  gint exit_signal;
  gint cgroup;         /* CLONE_INTO_CGROUP: a directory's descriptor */
  const gint *set_tid; /* clone3 set_tid */
  guint n_set_tid;
} TesCloneArgs;
glong tes_task_clone(TesTask *, const TesCloneArgs *);
/* Makes the calling task (and with `group` its whole group) exit at the next return to the guest. status: wait(2) status. */
void tes_task_exit(TesTask *, int status);
void tes_task_group_exit(TesTask *, int status);
/* From any thread: as group_exit for another group. Task-set lock not held. */
void tes_tg_kill(TesThreadGroup *, int status);
/* Kills all other threads of the caller's group for exec and makes it the leader; 0, or -EINTR if it is being killed itself. */
int tes_task_make_alone(TesTask *);
/* Gives the task's number tables; new tid in ns and its parents. 0 or -EAGAIN. task-set lock held. */
int tes_pid_alloc(TesKernel *, TesNs *ns, TesTask *, const gint *set_tid, guint n_set_tid);
void tes_pid_free(TesKernel *, TesPidNr *, guint n);
/* A statistic that one thread writes and any thread reads. */
static inline void tes_count(guint64 *n) {
  __atomic_store_n(n, __atomic_load_n(n, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
}
static inline guint64 tes_counted(const guint64 *n) { return __atomic_load_n(n, __ATOMIC_RELAXED); }
/* Live threads; without the task-set lock a hint. */
static inline gint tes_tg_n_live(const TesThreadGroup *tg) { return g_atomic_int_get(&tg->n_live); }
/* Full registers of the stopped guest thread. */
static inline TesRegs *tes_task_regs(TesTask *t, gboolean write) {
  return t->exec->ops->regs(t->exec, write);
}

/* ---- fault-access.c ---- */
/* Fills trap_no and trap_err for the page fault in t->trap. */
void tes_fault_error_code(TesTask *, gboolean present);

/* ---- run.c ---- */
/* The life of a task on its thread: run guest, serve, deliver, repeat. */
void tes_task_main(TesTask *);
/* What the row says to the call in t->nr and t->args. */
glong tes_task_serve_call(TesTask *, const TesSyscall *row);
/* Tells the platform which calls have constant answers: numbers and credentials. The task's own thread, when they or
 * the exec are new. */
void tes_task_tell_facts(TesTask *);
/* Leaves (TRUE) and enters (FALSE) the state "blocked" for accounting (C8) and Pause. */
/* BLOCKED or BLOCKED_WITHIN: no longer counts as running; KERNEL: runs again, once nothing is paused. */
void tes_task_set_blocked(TesTask *, TesTaskState);
/* Makes the task notice something before it runs the guest again; kicks it out of the guest. Any thread. */
void tes_task_interrupt(TesTask *);
/* Runs what tes_task_add_work() left; the task itself, no lock held. */
void tes_task_run_work(TesTask *);
/* Installs another exec (exec(2), or NULL at exit) and returns the old one for the caller to free: no kick is under way on it. */
TesExec *tes_task_swap_exec(TesTask *, TesExec *);

/* ---- exec.c (uses core/loader) ---- */
int tes_task_execve(TesTask *, const TesAt *, TesFile *file /* or NULL */, char **argv, char **envv);

/* ---- signal.c ---- */
TesSigHand *tes_sighand_new(void);
TesSigHand *tes_sighand_copy(TesSigHand *);
void tes_sighand_unref(TesSigHand *);
void tes_sigpending_clear(TesSigPending *);
/* exec: handlers to default, ignored stay ignored; altstack off. */
void tes_signal_exec(TesTask *);
/* Looks for signals to act on and acts: stops, exits, or sets up one handler frame. Called with the result of the call that was
 * served in rax (restart codes included); repeats until nothing is left. */
void tes_signal_deliver(TesTask *);
/* A synchronous exception: forced if blocked or ignored. */
void tes_signal_force(TesTask *, const siginfo_t *);
void tes_signal_recalc(TesTask *); /* sets sig_flag from pending & ~blocked; sighand lock held */
void tes_signal_set_blocked(TesTask *, guint64 mask);
glong tes_signal_sigreturn(TesTask *); /* frame.c */
gboolean tes_signal_setup_frame(TesTask *, const siginfo_t *, const TesSigAction *,
                                guint64 mask); /* frame.c; FALSE: SIGSEGV */
/* Waits here while the group is stopped (job control). */
void tes_signal_stop_wait(TesTask *);
/* The parent learns of exit, stop, continue: SIGCHLD with its info. task-set lock held. */
void tes_signal_notify_parent(TesThreadGroup *child, int why /* CLD_* */, int status);

/* ---- session.c; task-set lock held unless said otherwise ---- */
TesSession *tes_session_new(TesThreadGroup *leader);
void tes_session_unref(TesSession *);
TesPgrp *tes_pgrp_new(gint pgid, TesSession *);
void tes_pgrp_unref(TesKernel *, TesPgrp *);
void tes_tg_set_pgrp(TesThreadGroup *, TesPgrp *);
gboolean tes_pgrp_is_orphaned(TesPgrp *);
void tes_session_leader_exit(TesThreadGroup *); /* task-set lock NOT held */

/* ---- futex.c ---- */
gpointer tes_futexes_new(void);
void tes_futexes_free(gpointer);
int tes_futex_wake_addr(TesTask *, gulong addr, int n); /* CHILD_CLEARTID */
void tes_futex_exit_robust(TesTask *);

/* ---- ns.c ---- */
TesNs *tes_ns_new(TesKernel *, int kind, TesNs *parent);
gboolean tes_kernel_init_namespaces(TesKernel *, const char *hostname);

/* ---- core/time ---- */
void tes_timers_init(TesKernel *);
void tes_timers_free(TesKernel *);
void tes_itimers_init(TesThreadGroup *);
void tes_itimers_exit(TesThreadGroup *); /* cancels all timers of the group */
void tes_itimers_exec(TesThreadGroup *); /* posix timers go, itimers stay */
void tes_ticker_init(TesKernel *);
void tes_ticker_free(TesKernel *);
/* 0->1 and 1->0 of running tasks start and stop the ticker (C8, C9). */
void tes_running_inc(TesKernel *);
void tes_running_dec(TesKernel *);
/* An exiting task is charged no more. By the task itself, before it may be freed. */
void tes_ticker_forget(TesTask *);

/* ---- core/vdso, core/loader ---- */
gboolean tes_vdso_init(TesKernel *, GError **);
void tes_vdso_free(TesKernel *);
void tes_vdso_update(TesKernel *);  /* new clock parameters */
void tes_vdso_ask_cpu(TesKernel *); /* a task limits its affinity: getcpu needs the kernel from now on */

/* ---- core/ipc ---- */
/* SEM_UNDO: the task's list for a child of clone(CLONE_SYSVSEM), referenced; and leaving it (exit, unshare): the last one gives back. */
TesSemUndo *tes_sem_undo_share(TesTask *);
void tes_sem_undo_leave(TesTask *);

/* ---- core/trace ---- */
/* Instead of tes_task_serve_call(), while kernel->watch is not 0. */
glong tes_watch_call(TesTask *, const TesSyscall *row);
/* Around run(): the time it begins at; the time it ended at; the trap is served. And around blocking. */
gint64 tes_watch_run_begin(TesTask *);
gint64 tes_watch_run_end(TesTask *, gint64 began);
void tes_watch_trap_end(TesTask *, gint64 began);
void tes_watch_blocked(TesTask *, gboolean blocked);
void tes_watch_exit(TesTask *, int status);
void tes_watch_task_free(TesTask *);
void tes_watch_first(TesTask *, const char *const *argv); /* a process was created (L18) */
void tes_trace_exec(TesTask *, char **argv);
void tes_trace_signal(TesTask *, const siginfo_t *);
void tes_trace_exit(TesTask *, int status);

/* ---- task.c: start and end of a task's thread (see also core/task/kernel.h) ---- */
/* threads.c: gives a fully linked task a host thread, which enters tes_task_main(). 0 or -EAGAIN. */
int tes_task_start(TesTask *);
/* The end of a task, called last in its thread: everything exit(2) does. Drops the thread's reference. */
void tes_task_do_exit(TesTask *);

/* ---- Life cycle for kernel.c and run.c: core/task/{task,exit}.c (tes_task_create_first: kernel.h) ---- */
typedef struct _TesImage TesImage; /* core/loader/loader.h */
/* The very last thing a task's thread does: kernel->n_tasks falls, exited_queue is told; the kernel may be freed then. */
void tes_task_thread_gone(TesKernel *);
/* As tes_tg_kill with the task-set lock held. */
void tes_tg_kill_locked(TesThreadGroup *, int status);
/* Referenced credentials of any task. */
TesCred *tes_task_cred_ref(TesTask *);
/* Publishes new credentials of the calling task (transfer full), RLIMIT_NPROC accounting included. */
void tes_task_set_cred(TesTask *, TesCred *);
/* As tes_task_find with the task-set lock held; borrowed. */
TesTask *tes_task_find_locked(TesKernel *, TesNs *pid_ns, gint tid, gboolean tgid_only);
/* Process group by its number in a namespace; borrowed, task-set lock held. */
TesPgrp *tes_pgrp_find_locked(TesKernel *, TesNs *pid_ns, gint pgid);
/* The group behind a pidfd, referenced, or NULL (-EBADF): pidfd.c. */
TesThreadGroup *tes_file_pidfd(TesFile *);
/* Wakes a parent that waits in vfork(2): exec or exit of the child. */
void tes_task_vfork_done(TesTask *child);
