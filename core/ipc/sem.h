/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: semaphore sets and the undo lists of tasks, semop(2), semctl(2). All is guarded by the namespace's lock. */
#pragma once

#include <core/ipc/ipc.h>
#include <sys/sem.h>

#define SEM_MOST 32767          /* SEMVMX */
#define SEM_SET_MAX 32000       /* SEMMSL: semaphores in a set */
#define SEM_ALL_MAX 1000000     /* in the sandbox */
#define SEM_UNDO_MAX (16 << 20) /* adjustments that all undo lists have room for */
#define SEM_OPS_MAX 500         /* SEMOPM: operations of one call */

typedef struct {
  guint16 value;
  guint16 waiting_more, waiting_zero; /* tasks */
  gint pid;                           /* of the last operation */
} Sem;

typedef struct {
  TesIpcPerm perm;
  gint refs; /* atomic: the table's, waiters' */
  gboolean removed;
  guint n;
  Sem *sem;
  GSList *undos; /* Undo of every task that has some */
  gint64 otime, ctime;
  TesQueue queue; /* told of every change */
} SemSet;

/* What the exit of a task gives back to one set. */
typedef struct {
  struct _TesSemUndo *owner;
  SemSet *set;
  gint16 adjust[];
} Undo;

/* Of a task, or of several with CLONE_SYSVSEM. */
struct _TesSemUndo {
  gint refs; /* atomic */
  TesNs *ns; /* referenced: where the sets are */
  GSList *undos;
};

void sem_set_unref(SemSet *);
/* Takes an undo from its owner and its set. */
void sem_undo_drop(Undo *);

/* semctl.c */
glong tes_sys_semctl(TesTask *, const gulong a[6]);
