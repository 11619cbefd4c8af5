/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the ptrace platform: its objects, and which file does what.
 *
 *   platform.c  the plugin, probe, open and close
 *   zygote.c    the process every stub descends from, its seccomp filter, new stubs
 *   aspace.c    address spaces: the queue of mapping operations, applying it, clone
 *   exec.c      threads of execution: run, registers, kick
 *   trap.c      what a stop of the guest means
 *   tracee.c    ptrace primitives: take over a parked thread, run a batch of orders in it, let it go
 *   affinity.c  what is needed to keep a task's thread and its stub on one CPU
 *
 * Locks: PtAspace.lock > PtPlatform.lock. No core function is called under either. */
#pragma once

#include <sched.h>
#include <sys/types.h>
#include <tessera/platform.h>
#include "../platform-common/mapqueue.h"
#include "../platform-common/pair.h"
#include "stub.h"

#define PT_SPARES 4    /* clean stubs kept for the next address space */
#define PT_IDLE 4      /* parked threads kept by an address space */
#define PT_SLOTS 32768 /* address spaces at once: pages of the order file */
#define PT_ORDERS_MAX (STUB_PAGE / STUB_ORDER_SIZE - 1)
/* Threads share everything. A process gets the forking one's parent, the zygote, which reaps it. */
#define PT_CLONE_THREAD (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define PT_CLONE_PROCESS (CLONE_PARENT | SIGCHLD)
#define PT_KICK_SIGNAL SIGURG /* ignored by default: does no harm when it reaches a parked thread */

typedef struct {
  pid_t pid;  /* as this process sees it */
  guint slot; /* its page of the order file */
} PtStub;

typedef struct {
  TesPlatform base;
  pid_t zygote;
  int ctl, life; /* our ends */
  int orders_fd;
  char *orders;      /* PT_SLOTS pages, never unmapped before close */
  int tx[STUB_POOL]; /* descriptors for stubs are sent here ... */
  int rx[STUB_POOL]; /* ... and taken back here when a stub did not fetch them */
  gint pool_busy[STUB_POOL];
  GMutex pool_lock;  /* waits for a free socket */
  cpu_set_t allowed; /* CPUs at open */
  PairOps pairs;
  void *xinit;        /* initial extended state, xstate_size bytes */
  GMutex lock;        /* guards what follows, and conversations with the zygote */
  GArray *free_slots; /* guint */
  guint next_slot;
  PtStub spares[PT_SPARES];
  gint nspares;   /* written with atomics: exec.c looks without the lock */
  int zygote_cpu; /* where it is pinned, or -1 */
} PtPlatform;

typedef struct _PtExec PtExec;

typedef struct {
  TesAspace base;
  PtStub stub;
  StubOrder *orders;
  GMutex lock; /* guards what follows */
  GCond left;  /* an exec that was asked to (PT_ATTN_DRAIN) left the guest */
  MapQueue queue;
  guint64 pushed, drained; /* operations */
  guint strict;     /* > 0: a queued mapping was lost; apply at once, so that the caller sees the error */
  GPtrArray *execs; /* PtExec that are bound to threads */
  GArray *idle;     /* pid_t: parked threads, the last is used first */
  gint nexecs;      /* not yet freed, bound or not; written under the lock, read by anyone */
  gboolean clean;   /* parked, single-threaded, empty: fit to be a spare */
  gint dead;        /* the stub is gone or going: its pid means nothing any more */
  guint nordered;   /* orders of the batch being built */
  gboolean broken;  /* the last batch ended early and may have left STUB_FD_IN open */
  guint fork_slot;  /* not 0: the next batch that empties the queue ends with a fork */
  int fork_error;   /* its -errno */
} PtAspace;

enum { PT_ATTN_KICK = 1, PT_ATTN_DRAIN = 2 };

struct _PtExec {
  TesExec base;
  pid_t tid;
  pid_t owner;           /* 0 until the first run */
  PtExec *owner_next;    /* list of the owner thread's execs */
  gint in_guest;         /* the stub thread runs guest code, or is about to */
  gint attn;             /* PT_ATTN_*; set before in_guest is looked at, looked at after in_guest is set */
  gboolean dead;         /* the stub thread is gone, or going */
  gboolean reaped;       /* gone for good: its pid means nothing any more */
  gboolean has_regs;     /* regs are the guest's */
  gboolean dirty;        /* regs must be loaded */
  gboolean has_result;   /* only rax must be loaded */
  gboolean emulated;     /* the system call was not stopped at by SYSEMU: rax, orig_rax are made up */
  gboolean syscall_stop; /* the last trap was a system call */
  gulong result, nr;
  TesRegs regs;
  void *xstate;  /* to be loaded by the first run; NULL: initial */
  pid_t new_tid; /* result of a batch with a clone order */
  Pair pair;     /* initialised when bound */
};

#define PT_PLATFORM(a) ((PtPlatform *)(a)->base.platform)

/* zygote.c */
gboolean pt_zygote_start(PtPlatform *, GError **);
void pt_zygote_stop(PtPlatform *);
gboolean pt_stub_new(PtPlatform *, PtStub *out, GError **); /* parked and empty */
gboolean pt_stub_spare(PtPlatform *, PtStub *out);          /* the same, if one is at hand */
void pt_stub_recycle(PtPlatform *, const PtStub *);         /* parked and empty again */
void pt_stub_kill(PtPlatform *, const PtStub *);
int pt_slot_new(PtPlatform *, guint *out);
void pt_slot_free(PtPlatform *, guint slot);
void pt_drain_socket(int sock);
int pt_pool_get(PtPlatform *);
void pt_pool_put(PtPlatform *, int i);

/* filter.c: writes a seccomp filter to `out`, returns the number of instructions (0: no room). */
guint pt_filter(void *out, gsize size);

/* tracee.c. Results: 0, or -ESRCH when the stub thread is gone. All on the owner thread. */
long pt_ptrace(int request, pid_t, gulong addr, gulong data); /* >= 0 or -errno */
int pt_wait(pid_t, int *status);                              /* 0 or -errno; restarts after signals */
gboolean pt_seize(pid_t, gboolean *parked);
int pt_takeover(PtExec *);
int pt_get_regs(PtExec *);
void pt_sanitise(TesRegs *);
int pt_set_regs(PtExec *, TesRegs *);
void pt_order(PtAspace *, guint nr, guint flags, const gulong args[6]);
int pt_batch(PtExec *, guint *failed); /* also -errno of the order that failed */
void pt_release(PtExec *, gulong ip);  /* the thread goes on there, on its own */

/* aspace.c */
TesAspace *pt_aspace_new(TesPlatform *, GError **);
int pt_drain(PtExec *, guint first); /* under the lock */
void pt_mark_dead(PtAspace *);       /* under the lock */
PtExec *pt_my_exec(PtAspace *);

/* exec.c */
extern __thread PtExec *pt_my_execs;
void pt_reap_others(PtExec *); /* on any thread */
TesExec *pt_exec_new(TesPlatform *, TesAspace *, GError **);

/* trap.c. TRUE: *out tells; FALSE: nothing for the core, resume. */
gboolean pt_decode(PtExec *, int status, TesTrap *out);
gboolean pt_syscall_trap(PtExec *, TesTrap *out);

/* affinity.c */
void pt_affinity_init(PtPlatform *);
