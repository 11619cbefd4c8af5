/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks as plugins see them: identity, what they hold, signals. The struct itself is private to core (core/task/task.h). */
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <tessera/cred.h>
#include <tessera/ctx.h>
#include <tessera/wait.h>

TES_BEGIN_DECLS

/* Restart codes, kernel-internal: a handler returns them negated; the signal code turns them into EINTR or a restart. */
#define TES_ERESTARTSYS 512           /* restart if SA_RESTART, or no handler */
#define TES_ERESTARTNOINTR 513        /* restart always */
#define TES_ERESTARTNOHAND 514        /* restart if no handler runs, else EINTR */
#define TES_ERESTART_RESTARTBLOCK 516 /* continue through restart_syscall(2) if no handler runs, else EINTR */

/* Context of a task, and back (NULL if it is not a task's). */
TesCtx *tes_task_ctx(TesTask *);
static inline TesTask *tes_ctx_to_task(TesCtx *ctx) {
  return ctx->kind == TES_CTX_TASK ? (TesTask *)ctx : NULL;
}
TesTask *tes_task_current(void); /* the calling thread's task, or NULL */
TesTask *tes_task_ref(TesTask *);
void tes_task_unref(TesTask *);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesTask, tes_task_unref)

TesKernel *tes_task_kernel(TesTask *);
TesThreadGroup *tes_task_group(TesTask *);
/* Numbers as a namespace sees them (NULL: the root namespace); 0 if not visible there. */
gint tes_task_tid(TesTask *, TesNs *pid_ns);
gint tes_task_pid(TesTask *, TesNs *pid_ns);
gint tes_task_ppid(TesTask *, TesNs *pid_ns);
gint tes_task_pgid(TesTask *, TesNs *pid_ns);
gint tes_task_sid(TesTask *, TesNs *pid_ns);
TesMM *tes_task_mm(TesTask *);     /* borrowed by the task itself; NULL after exit */
TesMM *tes_task_mm_ref(TesTask *); /* of another task: referenced or NULL; tes_mm_unref() */
void tes_mm_unref(TesMM *);
TesCred *tes_task_cred(TesTask *); /* borrowed, see ctx.h */
TesFdTable *tes_task_fdtable(TesTask *);
guint64 tes_task_rlimit(TesTask *, int resource); /* soft limit; RLIM_INFINITY */
const char *tes_task_comm(TesTask *);

/* Task by number in a pid namespace (NULL: root), referenced, or NULL. `tgid_only`: thread group leaders only. */
TesTask *tes_task_find(TesKernel *, TesNs *pid_ns, gint tid, gboolean tgid_only);
/* Snapshot of all thread group leaders (GPtrArray of owned TesTask), ordered by pid. */
GPtrArray *tes_tasks_snapshot(TesKernel *, TesNs *pid_ns);
/* Snapshot of the threads of a group. */
GPtrArray *tes_task_threads(TesTask *);

/* Signals. `info` NULL: SI_KERNEL. Any thread; takes task-set and signal locks, so hold no lock of higher rank. 0 or -errno (ESRCH,
 * EAGAIN: queue limit). No permission check: tes_signal_may_send() does that. */
int tes_signal_task(TesTask *, int sig, const siginfo_t *info);
int tes_signal_group(TesThreadGroup *, int sig, const siginfo_t *info);
int tes_signal_pgrp(TesKernel *, gint pgid /* root ns */, int sig, const siginfo_t *info);
gboolean tes_signal_may_send(TesCtx *, TesTask *target, int sig);
gboolean tes_signal_pending(TesTask *); /* one that would interrupt it */
/* It is to end: long work on its behalf is given up. */
gboolean tes_task_is_killed(TesTask *);
/* For signalfd(2). Sets have bit SIG - 1 for a signal. What is pending for the task or its group, blocked or not; takes one of `set` (0: there is
 * none); and the queue that is told (POLLIN) whenever a signal has been queued for anybody in the sandbox. */
guint64 tes_signal_pending_set(TesTask *);
int tes_signal_take(TesTask *, guint64 set, siginfo_t *info);
TesQueue *tes_signal_queue(TesKernel *);
/* Replaces the blocked mask until the call ends and a handler (if any) has been set up: ppoll, pselect, epoll_pwait, sigsuspend.
 * A handler says: tes_task_set_tmp_mask(task, mask) once, then blocks; the old mask comes back by itself. */
void tes_task_set_tmp_mask(TesTask *, guint64 mask);
/* Has `fn` called to continue a call that returned -TES_ERESTART_RESTARTBLOCK; args are saved for it. */
void tes_task_set_restart(TesTask *, glong (*fn)(TesTask *, const gulong args[6]), const gulong args[6]);

/* A per-task deferred action, run by the task itself before it returns to the guest. Any thread. */
void tes_task_add_work(TesTask *, void (*fn)(TesTask *, gpointer), gpointer data);
/* Drops a reference (transfer full) on a file whose descriptor the task's own deferred action took away. The call that the task is
 * blocked in may use the file without a reference (tes_fd_borrow()): then it goes when the call is over. The task itself only. */
void tes_task_drop_file(TesTask *, TesFile *);
/* Has `fn` called by each task that leaves its memory, in exit and in exec, while it is still there. Before the first process. */
void tes_kernel_on_leave(TesKernel *, void (*fn)(TesTask *, gpointer), gpointer data);

/* Text of /proc/sysvipc/msg, sem and shm: the objects of the caller's IPC namespace that exist, readable or not, as Linux lists them. */
void tes_ipc_msg_text(TesTask *, GString *out);
void tes_ipc_sem_text(TesTask *, GString *out);
void tes_ipc_shm_text(TesTask *, GString *out);

/* Reading a process for /proc: memory map lines, statistics. */
typedef struct {
  gulong start, end, offset;
  guint prot, flags; /* PROT_*, MAP_SHARED or MAP_PRIVATE, MAP_GROWSDOWN */
  guint64 dev, ino;
  guint64 rss, private_dirty; /* bytes present; private copies */
  const char *name;           /* path, "[heap]", "[stack]", "[vdso]", "" */
} TesVmaInfo;
void tes_mm_foreach_vma(TesMM *, TesCtx *viewer, void (*)(const TesVmaInfo *, gpointer), gpointer);
typedef struct {
  guint64 vm_size, rss, rss_shared, data, stack, text, vm_peak, rss_peak; /* bytes */
  gulong arg_start, arg_end, env_start, env_end, brk_start, brk, stack_start;
  TesFile *exe; /* borrowed under the mm reference */
} TesMMStat;
void tes_mm_stat(TesMM *, TesMMStat *);
TesFile *tes_mm_exe(TesMM *); /* referenced, or NULL: without counting all pages */
/* Copy of the saved auxiliary vector in bytes. */
gsize tes_mm_auxv(TesMM *, void *buf, gsize n);
typedef struct {
  char state; /* R S D T t Z X */
  gint exit_signal, tty_pgrp, nice, threads, priority;
  guint64 tty_nr, start_time /* ns since boot */, utime, stime, cutime, cstime /* ticks of TES_CLOCK_TICK */;
  guint64 minflt, majflt, sig_pending, shared_pending, sig_blocked, sig_ignored, sig_caught;
  guint64 voluntary_switches, involuntary_switches;
  gint exit_code;
  gint last_cpu;
  guint32 umask;
} TesTaskStat;
void tes_task_stat(TesTask *, TesTaskStat *);
TesFsInfo *tes_task_fsinfo(TesTask *);         /* referenced or NULL */
TesFdTable *tes_task_fdtable_ref(TesTask *);   /* referenced or NULL (exited) */
TesNs *tes_task_ns(TesTask *, int clone_flag); /* CLONE_NEWUTS ...; referenced or NULL */
TesMountNs *tes_task_mount_ns(TesTask *);      /* referenced; NULL: it has exited */
/* Where /proc/PID/ns/NAME leads, transfer full; -ENOENT: the task has exited. */
int tes_ns_place(TesCtx *, TesTask *, int clone_flag, TesPath **out);
/* "mnt:[4026531841]" of an open file of a namespace; NULL: it is none. Transfer full. */
char *tes_ns_file_name(TesFile *);
struct rlimit tes_task_rlimit_pair(TesTask *, int resource);
/* May `ctx` look into the task (ptrace access mode read)? K1 */
gboolean tes_task_may_inspect(TesCtx *, TesTask *);
int tes_task_set_comm(TesTask *, const char *);
/* seccomp(2): its mode (SECCOMP_MODE_*) and how many filters it has. */
void tes_task_seccomp(TesTask *, gint *mode, guint *filters);

TES_END_DECLS
