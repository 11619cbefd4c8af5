/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of advisory locks as locks.c (calls, waiting) and lockset.c (the data structure) share them. */
#pragma once

#include <core/file/file.h>

typedef struct {
  gpointer owner; /* TesFdTable, or TesFile for OFD locks and flock */
  gboolean ofd;
  gint pid;           /* root namespace */
  int type;           /* F_RDLCK, F_WRLCK; as a wish also F_UNLCK */
  goffset start, end; /* inclusive */
} TesLockRange;

/* All locks of one kind on one object. An owner's ranges never overlap, so each owner has a sorted tree of its own. */
typedef struct {
  GHashTable *by_owner; /* owner -> LockOwner */
  GQueue owners;        /* LockOwner, in order of their first lock */
  guint n;              /* ranges of all */
} TesLockTable;

void tes_locktable_init(TesLockTable *);
void tes_locktable_clear(TesLockTable *);
/* A range of another owner that excludes `want`, or NULL. */
const TesLockRange *tes_locktable_conflict(TesLockTable *, const TesLockRange *want);
/* Gives [start, end] of the owner the type of `want` (F_UNLCK: none): cuts its older ranges and joins equal neighbours. */
void tes_locktable_apply(TesLockTable *, const TesLockRange *want);
void tes_locktable_foreach(TesLockTable *, void (*)(const TesLockRange *, gpointer), gpointer);
