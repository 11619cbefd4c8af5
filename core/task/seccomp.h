/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: seccomp(2). A task's filters are a chain of immutable, reference counted nodes, newest first; children share it.
 * TesTask.seccomp is written under the task-set lock and only ever replaced by a chain that contains the old one, so the task
 * itself follows it without a lock or a reference. */
#pragma once

#include <core/task/task.h>
#include <linux/seccomp.h>

/* The task's filters (it has some) judge the call in t->trap. TRUE: serve it. FALSE: it is not served, and *result is what it
 * returns; with t->no_result it is for onlookers, and the registers are as they must be. The task itself. */
gboolean tes_seccomp_permits(TesTask *, glong *result);
/* A child takes its parent's filters. Task-set lock held; nobody sees the child yet. */
void tes_seccomp_inherit(const TesTask *parent, TesTask *child);
/* Drops the task's filters: it makes no more calls. */
void tes_seccomp_release(TesTask *);
/* seccomp(2), and what prctl(2) offers of it. */
glong tes_seccomp(TesTask *, const gulong a[6]);
glong tes_seccomp_prctl(TesTask *, gulong mode, gulong filter);

/* ---- seccomp-notify.c: SECCOMP_RET_USER_NOTIF ---- */
typedef struct _TesListener TesListener;
/* A listener and its file (transfer full, both). wait_killable: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV. */
TesListener *tes_listener_new(TesKernel *, gboolean wait_killable, TesFile **);
void tes_listener_unref(TesListener *);
/* Drops the filter's reference (NULL: nothing): no task has the filter any more. Any lock below the wait queues'. */
void tes_listener_abandon(TesListener *);
/* Waits for somebody's answer; as tes_seccomp_permits(). */
gboolean tes_listener_ask(TesListener *, TesTask *, const struct seccomp_data *, glong *result);
