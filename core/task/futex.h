/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/task/futex.c and core/syscalls/futex.c: futexes as a mechanism. Words are guest addresses of the
 * calling task, 4-byte aligned (the caller checks). All return >= 0 or -errno. futex(2). */
#pragma once

#include <core/task/task.h>

#define TES_FUTEX_ANY 0xffffffffu /* a bitset that meets every other */
#define TES_FUTEX_WAITV_MAX 128

typedef struct {
  gulong addr;
  guint32 value; /* wait only while the word holds it */
  guint32 bitset;
  gboolean private_; /* FUTEX_PRIVATE_FLAG */
} TesFutexWait;

/* Waits for a wake on any of n words: the index of one that was woken; -EAGAIN: a word holds something else; -ETIMEDOUT,
 * -EINTR, -EFAULT. The deadline is absolute on CLOCK_MONOTONIC or CLOCK_REALTIME. */
int tes_futex_wait(TesTask *, const TesFutexWait *, guint n, int clockid, TesTime deadline);
/* Wakes at most `max` (at least one) waiters whose bitset meets `bitset`; how many. */
int tes_futex_wake(TesTask *, gulong addr, gboolean private_, int max, guint32 bitset);
/* Wakes `wake` waiters of `from` and moves up to `move` others to `to`; with `compare` only if *from holds
 * *compare (-EAGAIN). How many were woken or moved. */
int tes_futex_requeue(TesTask *, gulong from, gulong to, gboolean private_, int wake, int move,
                      const guint32 *compare);
/* FUTEX_WAKE_OP: changes *addr2 as `op` says, wakes on addr, and on addr2 if the old value compares. */
int tes_futex_wake_op(TesTask *, gulong addr, gulong addr2, gboolean private_, int wake, int wake2,
                      guint32 op);
