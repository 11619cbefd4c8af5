/* SPDX-License-Identifier: Apache-2.0 */
/* Wait queues: who is told when something becomes ready, and how a task blocks.
 *
 * Rule: enlist first, then check, then block. A waiter is on at most one queue. */
#pragma once

#include <poll.h>
#include <tessera/lock.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

typedef struct _TesQueue TesQueue;
typedef struct _TesWaiter TesWaiter;

enum {
  TES_WAIT_EXCLUSIVE = 1 << 0, /* a notify wakes at most one exclusive waiter (first in, first woken) */
  TES_WAIT_ONESHOT = 1 << 1,   /* is removed from the queue before its callback runs */
};

struct _TesWaiter {
  guint mask;  /* POLL* bits of interest; POLLERR and POLLHUP are always of interest */
  guint flags; /* TES_WAIT_* */
  /* Runs under the queue's lock, in the notifier's thread: must not block nor take a lock of rank <= QUEUE.
   * Returns TRUE if it really woke something (counts for EXCLUSIVE). */
  gboolean (*fn)(TesWaiter *, guint mask, gpointer key);
  gpointer data;
  /* private */
  TesQueue *queue;
  TesWaiter *prev, *next;
};

struct _TesQueue {
  TesMutex lock;
  TesWaiter *head, *tail;
  gint n; /* atomic; notify is free when it is 0 */
};

void tes_queue_init(TesQueue *);
/* Detaches any waiter still there (their `queue` becomes NULL) and frees the lock. */
void tes_queue_clear(TesQueue *);
void tes_queue_add(TesQueue *, TesWaiter *);
/* Calls every waiter whose mask meets `mask`. `key` is handed on (0 if unused). */
void tes_queue_notify(TesQueue *, guint mask);
/* As notify, but stops after `n` waiters returned TRUE; returns how many did. */
guint tes_queue_wake(TesQueue *, guint mask, gpointer key, guint n);
/* Removes it from its queue, if any. When it returns the callback is not running and will not run. The queue
 * must be kept alive by the caller (usually by a reference to its file). */
void tes_waiter_remove(TesWaiter *);

/* For a waiter's callback: calls `fn` in this thread once it has no queue locked any more; other locks of the notifier may be held. */
void tes_queue_after(void (*fn)(gpointer), gpointer data);

/* Makes `w` wake `task` on any event of `mask`. */
void tes_waiter_init_task(TesWaiter *w, TesTask *task, guint mask);

/* Blocks the calling task until it is woken (any of its waiters, tes_task_wake()), or `deadline` passes
 * (CLOCK_MONOTONIC of the sandbox, TES_TIME_INFINITE: none), or a signal or kill must be handled.
 * Returns 0 when woken (perhaps spuriously: check again), -ETIMEDOUT, or -EINTR. The caller turns -EINTR into one
 * of the restart codes of task.h. No lock may be held. */
int tes_task_block(TesTask *, TesTime deadline);
/* As tes_task_block, but only a fatal signal ends it (-EINTR). */
int tes_task_block_killable(TesTask *, TesTime deadline);
/* The same for a filesystem's operation that must wait for another task in the middle of a path walk: what the call borrowed stays
 * valid, deferred actions wait, and the VFS's locks may be held, so whoever it waits for must not need them.
 * `killable_only`: only a fatal signal ends it. */
int tes_task_block_within(TesTask *, TesTime deadline, gboolean killable_only);
/* Wakes the task if it blocks, now or next. Any thread, any lock. */
void tes_task_wake(TesTask *);

TES_END_DECLS
