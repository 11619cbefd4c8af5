/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: System V IPC, sysvipc(7). An IPC namespace has a table of objects of each kind; an identifier is a slot's index and a
 * sequence number, so that a stale one does not name the slot's next object. */
#pragma once

#include <core/task/task.h>
#include <sys/ipc.h>

#define TES_IPC_SLOTS 4096 /* objects of a kind in a namespace (SHMMNI) */

/* Embedded first in every object. */
typedef struct {
  guint32 key, uid, gid, cuid, cgid;
  guint16 mode, seq;
  int id;
} TesIpcPerm;

typedef struct {
  TesIpcPerm **slot; /* TES_IPC_SLOTS, or NULL before the first object */
  guint16 *seq;      /* of the slot's next object */
  guint n, top;      /* used slots; no used one is at or above top */
} TesIpcTable;

/* Data of a namespace of kind CLONE_NEWIPC, made at first use. */
typedef struct {
  TesMutex lock; /* the tables and their objects */
  TesIpcTable shm, msg, sem;
  guint64 shm_pages;
} TesIpcNs;

TesIpcNs *tes_ipc_ns(TesTask *);

/* ipc.c; lock held */
/* The object of an identifier: -EINVAL. */
int tes_ipc_find(TesIpcTable *, int id, TesIpcPerm **out);
TesIpcPerm *tes_ipc_find_key(TesIpcTable *, guint32 key);
/* Gives `p` an identifier and the caller as owner: it, or -ENOSPC. */
int tes_ipc_add(TesTask *, TesIpcTable *, TesIpcPerm *p, guint32 key, guint32 mode);
void tes_ipc_remove(TesIpcTable *, TesIpcPerm *);
/* mask: 4 read, 2 write. 0 or -EACCES. */
int tes_ipc_permission(TesTask *, const TesIpcPerm *, guint mask);
/* IPC_SET, IPC_RMID: 0 or -EPERM. */
int tes_ipc_may_change(TesTask *, const TesIpcPerm *);
/* The part of struct shmid64_ds and its like that is the same for all kinds. */
void tes_ipc_perm_out(const TesIpcPerm *, struct ipc_perm *);
/* IPC_SET takes owner and permission bits. */
int tes_ipc_perm_set(TesIpcPerm *, const struct ipc_perm *);

/* The object that xxxCTL's IPC_STAT (an identifier) or xxx_STAT and xxx_STAT_ANY (a slot's number) mean, readable unless `any`. What
 * the call returns, or -errno. */
int tes_ipc_stat(TesTask *, TesIpcTable *, int id, gboolean by_slot, gboolean any, TesIpcPerm **out);
static inline gint64 tes_ipc_now(TesKernel *k) { return tes_time_realtime(k) / TES_NSEC; }

/* /proc/sysvipc: a line for each object. Takes the lock. */
void tes_ipc_list(TesTask *, TesIpcTable *, void (*)(const TesIpcPerm *, GString *), GString *out);

/* Each kind, when its namespace goes: nobody waits any more. */
void tes_shm_ns_free(TesIpcNs *);
void tes_msg_ns_free(TesIpcNs *);
void tes_sem_ns_free(TesIpcNs *);
