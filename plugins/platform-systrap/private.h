/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the systrap platform: its objects, and which file does what.
 *
 *   platform.c  the plugin, probe, open and close
 *   zygote.c    the process every stub descends from
 *   filter.c    the two seccomp filters
 *   mapper.c    a stub process: orders to its mapper thread and the answers, descriptors, kicks
 *   aspace.c    address spaces: applying the queue of mapping operations, clone, recycling
 *   exec.c      threads of execution: run, registers, extended state, kick
 *   handover.c  waiting for a guest thread and waking it; where both run; spinning
 *   watch.c     threads that do not answer kicks
 *   trap.c      what a posted trap means
 *   rewrite.c   hot system calls become jumps to trampolines
 *   stub.S, stub.c, stub.h   the code in the guest's address space, and the contract with it
 *
 * Locks: StAspace.lock > StPlatform.lock; StMapper.kick_lock is a leaf. No core function is called under any.
 * docs/security/systrap.md says why none of this trusts a guest. */
#pragma once

#include <sched.h>
#include <sys/types.h>
#include <tessera/platform.h>
#include "../platform-common/mapqueue.h"
#include "../platform-common/pair.h"
#include "stub.h"

#define ST_SPARES 4        /* clean stubs kept for the next address space */
#define ST_IDLE 8          /* waiting threads kept by an address space */
#define ST_PROCESSES 32768 /* at once: order pages */
#define ST_THREADS 65536   /* at once: slots */
#define ST_FAMILIES 1024   /* at once: areas of trampolines */
#define ST_HEAT 128        /* sites whose traps are counted, of an address space */
#define ST_PER_PROCESS ((guint)((ST_USER_END - ST_SLOTS) / ST_SLOT_SIZE))
/* Guest threads share nothing with the mapper but memory and signal handlers: not its descriptors. */
#define ST_CLONE_THREAD (CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
/* All stubs are children of the zygote, which reaps them. */
#define ST_CLONE_PROCESS (CLONE_PARENT | SIGCHLD)

/* The file that only this process can write. */
#define RO_CPUID (ST_CPUID - ST_SHARED)
#define RO_SLOTS (ST_RO_ORDERS + (glong)ST_PROCESSES * ST_PAGE)
#define RO_TABLE (RO_SLOTS + (glong)ST_THREADS * ST_PAGE)
#define RO_FAMILIES (RO_TABLE + ST_TABLE_SIZE)
#define RO_SIZE (RO_FAMILIES + (glong)ST_FAMILIES * ST_TRAMPOLINES_SIZE)
/* The other one: what guests may write. */
#define RW_SLOT (ST_SLOT_SIZE - ST_OUT)
#define RW_SIZE ((glong)ST_THREADS * RW_SLOT)
/* In the page at ST_SHARED: a struct sock_fprog and its program, twice. */
#define SHARED_GUEST_CODE 64
#define SHARED_PROCESS 1008
#define SHARED_PROCESS_CODE 1024

typedef struct {
  GArray *free;
  guint next, max;
} StNumbers; /* a pool of small numbers */

typedef struct {
  pid_t pid;  /* as this process sees it */
  int pidfd;  /* the same, or -1: the number may come to mean another process when this one has died */
  int sock;   /* our end */
  guint page; /* number of its order page */
  StOrders *orders;
  int mem_fd;      /* what its ST_FD_MEM is a copy of, or -1 */
  int cpu;         /* where it is pinned, or -1 */
  guint nordered;  /* orders of the batch being written */
  guint stale_fds; /* sent, and not fetched by a batch that broke off */
  gboolean alone;  /* it still lacks a pid: the first answer brings it */
  guint drained;   /* kicks that it has certainly sent: those before a batch that has ended */
  GMutex kick_lock;
} StMapper;

/* A guest thread of a stub, which outlives the exec that uses it. */
typedef struct {
  pid_t tid;   /* in the stubs' PID namespace */
  guint slot;  /* number in the files */
  guint place; /* number in the address space */
  StIn *in;
  StOut *out;
  guint32 seq;    /* traps answered */
  int cpu;        /* where it is pinned, or -1 */
  pid_t host_tid; /* as this process sees it; 0: not looked up yet, -1: unknown */
  guint kicks[2]; /* under the mapper's kick_lock: StOrders.kicks after the last two kicks, the last in [1] */
} StThread;

typedef struct _StExec StExec;
typedef struct _StFamily StFamily;

typedef struct {
  StMapper *mapper;
  StThread *thread;
} StSpare;

/* What a killed process may use until it has ended. */
typedef struct {
  StMapper *mapper;
  GPtrArray *threads; /* StThread */
  StFamily *family;   /* or NULL */
} StGrave;

typedef struct {
  TesPlatform base;
  pid_t zygote;
  int life; /* our end: the zygote ends with it */
  int ro_fd, rw_fd;
  char *ro, *rw;
  cpu_set_t allowed; /* CPUs at open */
  PairOps pairs;
  gint in_guest; /* execs that wait for a trap, and do not spin */
  gint spinning; /* execs that spin */
  /* handover.c's limits */
  guint64 spin_cycles, short_cycles, long_cycles, serve_cycles, preempted_cycles, ms_cycles;
  void *xinit;    /* initial extended state, xstate_size bytes */
  StMapper *seed; /* forks an empty stub when asked */
  GMutex seed_lock;
  int mem_fd;                 /* the memory file, once known, or -1 */
  const TesCpuidTable *cpuid; /* NULL: not rewritten */
  GMutex lock;                /* guards what follows */
  StNumbers pages, slots, families;
  StSpare spares[ST_SPARES];
  guint nspares;
  GArray *graves; /* StGrave */
} StPlatform;

typedef struct {
  guint64 word; /* instruction pointer << 16 | traps */
  guint32 nr;   /* the last call there */
} StHeat;

typedef struct {
  TesAspace base;
  StMapper *mapper;
  GMutex lock; /* guards what follows */
  MapQueue queue;
  guint strict;      /* > 0: a queued mapping was lost; apply at once, so that the caller sees the error */
  GPtrArray *execs;  /* StExec, all */
  GPtrArray *idle;   /* StThread without an exec, waiting, or so it says; the last is used first */
  GPtrArray *unborn; /* StThread that the host refused to make, whose slots may be mapped: for the next */
  gboolean empty;    /* nothing is mapped, nothing has been asked for since the last exec went */
  gint ran;          /* a thread has run guest code: whether one waits cannot be known any more */
  StNumbers places;
  gint nexecs;          /* length of execs, for anyone */
  gint dead;            /* the stub is gone or going: its pid means nothing any more */
  StFamily *family;     /* whose trampolines are mapped, or NULL; set once, read without the lock */
  StHeat heat[ST_HEAT]; /* no lock: counts may be wrong */
} StAspace;

struct _StExec {
  TesExec base;
  StThread *thread;
  gint in_guest; /* the guest thread runs guest code, or is about to */
  gint attn;     /* a kick; set before in_guest is looked at, looked at after in_guest is set */
  /* watch.c: of the kick that has not been answered; under kick_lock */
  gint64 first_kick, last_look, first_cpu;
  guint32 kick_seq;
  gboolean bound;
  gboolean stopped;    /* the last trap is known: `kind`, `frame`, `trap_*` are valid */
  gboolean syscall;    /* it was a system call */
  guint kind;          /* ST_FRAME, ST_DIRECT */
  gboolean has_regs;   /* regs are the guest's */
  gboolean dirty;      /* regs must be loaded */
  gboolean has_result; /* only rax must be loaded */
  StFrame *frame;      /* in the slot: untrusted */
  gulong nr, result;
  TesRegs regs;
  void *xstate; /* to be loaded by the first run; NULL: initial */
  /* handover.c */
  pid_t owner;
  Pair pair;
  gboolean spinning;
  gint score;          /* how much spinning would pay */
  guint hits, rest_ms; /* rounds since it began; pause after it did not pay */
  guint64 rest_until;  /* time stamp counter */
  guint64 last_trap_tsc;
};

#define ST_PLATFORM(a) ((StPlatform *)(a)->base.platform)
#define ST_ASPACE(e) ((StAspace *)(e)->base.aspace)

/* zygote.c */
gboolean st_zygote_start(StPlatform *, GError **);
void st_zygote_stop(StPlatform *);

/* filter.c: write a seccomp filter to `out`, return the number of instructions (0: no room). */
guint st_filter_process(void *out, gsize size);
guint st_filter_guest(void *out, gsize size);

/* mapper.c. Results: 0 or -errno; -ESRCH: the process is gone. */
void st_numbers_init(StNumbers *, guint max);
gboolean st_number_take(StNumbers *, guint *out);
void st_number_give(StNumbers *, guint number);
StMapper *st_mapper_new(StPlatform *, int *theirs); /* NULL with errno; `theirs` is for the new process */
void st_mapper_free(StPlatform *, StMapper *);      /* the process is gone, or never was */
void st_mapper_kill(const StMapper *);
gboolean st_mapper_gone(const StMapper *,
                        int ms); /* waits so long for its end: no thread of it runs any more */
/* Kills, and frees all when the process is gone: until then it has the pages. Takes threads (an array of its own) and family. */
void st_bury(StPlatform *, StMapper *, GPtrArray *threads, StFamily *family);
void st_sweep(StPlatform *, int ms); /* frees what has ended; waits so long for the oldest */
void st_order(StMapper *, guint nr, guint flags, const gulong args[6]);
/* Before a batch: where it will run, what must be cleaned up. */
void st_begin(StPlatform *, StMapper *);
void st_ring(StMapper *); /* the batch is written */
/* Waits for the end of a batch. tids: of the threads that it made. */
int st_wait(StMapper *, guint *failed, pid_t *tids, guint ntids);
int st_batch(StMapper *, guint *failed, pid_t *tids, guint ntids);
gboolean st_alive(const StMapper *);
int st_send_fd(StMapper *, int fd);       /* and an order to receive it as ST_FD_IN */
void st_close_fd(StMapper *);             /* an order to close it */
gboolean st_kick(StMapper *, StThread *); /* FALSE: too many kicks are on their way; a batch makes room */
StThread *st_thread_new(StPlatform *, guint place); /* NULL: too many. Not in the host yet */
void st_order_thread(StMapper *, const StThread *); /* maps its slot, makes it */
void st_thread_free(StPlatform *, StThread *);      /* it is gone */

/* aspace.c */
TesAspace *st_aspace_new(TesPlatform *, GError **);
int st_drain(StAspace *, guint first); /* under the lock */
void st_mark_dead(StAspace *);         /* under the lock */
void st_kill(StAspace *);              /* under the lock */
void st_kick_thread(StAspace *, StThread *);
void st_empty(StAspace *); /* under the lock: the last exec has gone */
void st_spares_free(StPlatform *);

/* exec.c */
extern __thread StExec *st_current; /* the exec whose trap this thread serves */
TesExec *st_exec_new(TesPlatform *, TesAspace *, GError **);

/* handover.c. All but st_exec_wake on the task's thread. */
void st_handover_init(StPlatform *);
void st_handover_calibrate(StPlatform *, guint64 cycles,
                           gint64 ns); /* what the time stamp counter did meanwhile */
void st_answer(StExec *, guint32 flags);
long st_futex(const void *at, int op, guint32 value, const struct timespec *limit);
gboolean st_wait_post(StExec *,
                      guint limit); /* FALSE: the stub died, or the limit (seconds, 0: none) has passed */
gboolean st_guest_round(StExec *);  /* after the answer: waits for the next trap */
void st_against_spinning(StExec *); /* something dear happened that is cheaper on one CPU */
void st_gather(void);               /* a child's threads begin where this one is: on its guest's CPU, then */
void st_exec_wake(StExec *);        /* its thread looks again: the stub is dead */

/* watch.c */
void st_insist(
    StExec *); /* a kick has been sent, perhaps not for the first time. Any thread; does not wait */

/* trap.c. FALSE: what was posted cannot be; the stub must die. */
gboolean st_decode(StExec *, TesTrap *out);
/* What is at a guest's address on the signal stack, n bytes, as this process sees it; NULL: not there as a whole. */
void *st_in_slot(const StThread *, gulong at, gsize n, guint align);
void st_get_regs(StExec *);
void st_put_regs(StExec *);
void st_copy_cpuid(StPlatform *); /* the stub answers what the table has learnt */

/* rewrite.c */
gboolean st_hot(StAspace *, gulong ip, gulong nr); /* a trap: TRUE if the core should be asked */
int st_rewrite(TesAspace *, gulong ip, const guint8 *code, gulong start, gsize n, gboolean alone,
               TesCodePatch *out);
void st_rewritten(TesAspace *, const TesCodePatch *, gboolean done);
StFamily *st_family_ref(StFamily *); /* either may get NULL */
void st_family_unref(StPlatform *, StFamily *);
/* Under the lock: takes over the reference, maps table and trampolines. FALSE: the stub is gone; the reference is not taken. */
gboolean st_family_join(StAspace *, StFamily *);
void st_facts(TesExec *, const TesFact *facts, guint n);
/* The address in the program that stands for `ip`: another one if that is in a trampoline. */
gulong st_guest_ip(StAspace *, gulong ip);
