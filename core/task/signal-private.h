/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by signal-send.c, signal.c, frame.c and the signal system calls. */
#pragma once

#include <core/task/task.h>
#include <linux/capability.h>

/* glibc hides two real-time signals; the kernel's range begins here. */
#define SIGRTMIN_KERNEL 32
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31) /* sigaltstack(2); <linux/signal.h> cannot be included beside glibc's */
#endif

/* Takes one instance of sig; sighand lock held. FALSE if none is pending. */
gboolean tes_sigpending_take(TesSigPending *, int sig, siginfo_t *out);
/* Forgets pending signals of `mask` in the whole group; task-set and sighand locks held. */
void tes_signal_discard_group(TesThreadGroup *, guint64 mask);
void tes_signal_retarget(TesTask *, guint64 newly_blocked);
/* As tes_signal_group(), task-set lock held. */
int tes_signal_group_locked(TesThreadGroup *, int sig, const siginfo_t *info);
/* Dequeues the next signal of `set` for the task, its own first; sighand lock held. 0: none. */
int tes_signal_dequeue(TesTask *, guint64 set, siginfo_t *out);
guint64 tes_limits_soft(TesLimits *, int resource);
/* Number of a thread group in a pid namespace (NULL: root); 0: not visible. task-set lock held. */
gint tes_tg_nr(const TesThreadGroup *, TesNs *pid_ns);
