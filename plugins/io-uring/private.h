/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring(7): private types.
 *
 *   ring.c      the rings' shared memory, the description, completions     request.c  life of a request: issue, links, drain, cancel
 *   ready.c     requests that wait for a file or a time, and who goes on with them
 *   ops.c       operations on files, polls and timeouts                    opsock.c   on sockets        opsys.c  what is a system call
 *   register.c  io_uring_register(2)                                       syscalls.c io_uring_setup(2), io_uring_enter(2), the plugin
 *
 * There are no worker threads. A request runs in the task that submitted it, with that task's memory, credentials and descriptors: in
 * io_uring_enter(2), and later, when what it waits for is there, as deferred work of the task. So Pause stops it with the task, and
 * it ends with the task. Operations of files never wait; one that would is enlisted on the file's queue.
 *
 * Locks: ring->lock (lists, completions) and, behind wait queues, ring->ready_lock. Neither is held while an operation runs. */
#pragma once

#include <linux/io_uring.h>
#include <string.h>
#include <tessera/tessera.h>

#define URING_MAX_ENTRIES 32768
#define URING_MAX_INFLIGHT 16384     /* requests of one ring */
#define URING_MAX_ALL 65536          /* requests of all rings */
#define URING_MAX_VECTORS (64 << 20) /* bytes of all I/O vectors that requests keep */
#define URING_MAX_OVERFLOW 16384     /* completions that wait for room */
#define URING_MAX_FILES 4096         /* registered */
#define URING_MAX_BUFFERS 1024

typedef struct _Ring Ring;
typedef struct _Request Request;

/* What the guest shares with us. Every word of it may change at any time: ours are kept in Ring. */
typedef struct {
  guint32 sq_head, sq_tail, cq_head, cq_tail;
  guint32 sq_mask, cq_mask, sq_entries, cq_entries;
  guint32 sq_dropped, sq_flags, cq_flags, cq_overflow;
  guint32 pad[4];
  struct io_uring_cqe cqes[]; /* then guint32 sq_array[] */
} Shared;

/* The memory: lives as long as the ring or a mapping of it. */
typedef struct {
  TesMapSource source; /* first */
  gint refs;
  TesMemFile *mf;
  goffset rings, sqes; /* in the memory file */
  gsize rings_len, sqes_len;
} Memory;

typedef struct _Overflow {
  struct _Overflow *next;
  struct io_uring_cqe cqe;
} Overflow;

typedef struct _Waiting { /* a task in io_uring_enter(2) */
  struct _Waiting *next;
  TesTask *task;
} Waiting;

struct _Ring {
  TesFile file; /* first */
  Memory *memory;
  Shared *shared;
  guint32 *sq_array;
  struct io_uring_sqe *sqes;
  guint32 sq_entries, cq_entries, setup;
  GList *all; /* its place in the list of rings */
  gint enabled;

  TesMutex lock;
  guint32 sq_head, cq_tail; /* ours; the guest's copies are only written */
  guint32 n_posted;         /* completions so far: IORING_OP_TIMEOUT counts them */
  Overflow *overflow, **overflow_tail;
  guint n_overflow;
  GQueue inflight;   /* Request, one reference each; heads of chains and what follows them */
  GQueue deferred;   /* of those, first links that wait for IOSQE_IO_DRAIN */
  guint n_running;   /* first links that were begun and whose chain has not ended */
  gboolean draining; /* a request with IOSQE_IO_DRAIN runs, or waits to */
  TesFile *eventfd;  /* owned */
  gboolean eventfd_async;
  TesTask *issuer; /* IORING_SETUP_SINGLE_ISSUER: borrowed, to compare */
  TesFile **files; /* registered; owned, may be NULL */
  guint n_files;
  struct iovec *buffers;
  guint n_buffers;

  TesMutex ready_lock;
  GQueue ready; /* Request, one reference each */
  Waiting *waiting;
  gboolean kicking; /* a call on the event thread is on its way */
};

typedef enum {
  REQ_IDLE,  /* in the hands of its task, or not begun */
  REQ_ARMED, /* waits */
  REQ_READY, /* is in ring->ready, for its task */
  REQ_DONE,
} ReqState;

typedef struct {
  gboolean known;
  gboolean file;             /* works on sqe->fd */
  guint mask;                /* POLL* events to wait for after -EAGAIN; 0: never waits */
  gboolean timer;            /* waits by itself (timeouts) */
  int (*prep)(Request *);    /* checks the entry, copies what it points at; may be NULL */
  glong (*issue)(Request *); /* result, or -EAGAIN to wait */
  gboolean whole;            /* less than sqe->len bytes breaks a chain */
} OpDef;

/* Belongs to its task, but for what is said to be under a lock. It is in the ring's list until it ends. */
struct _Request {
  Ring *ring;
  ReqState state; /* ready_lock */
  TesTask *task;
  TesFile *file; /* owned */
  struct io_uring_sqe sqe;
  const OpDef *op;
  Request *link;             /* the next of its chain, or NULL */
  GList node, deferred_node; /* ring->lock */
  GList ready_node;          /* ready_lock */
  gboolean is_deferred;      /* ring->lock */
  gboolean begun;            /* ring->lock: the one of its chain that runs */
  gboolean prepared;         /* op->prep has been called */
  gboolean nowait;           /* -EAGAIN is the result */
  guint poll_mask;
  TesWaiter waiter;
  TesTimer timer;
  gboolean timer_set, realtime;
  guint32 target;  /* IORING_OP_TIMEOUT: when so many completions have been posted; ring->lock */
  gboolean counts; /* ring->lock */
  glong result;    /* of what ended the wait, when `decided` */
  gboolean decided;
  TesTime time, expiry; /* as given; on the timer's clock */
  Request *guards;      /* IORING_OP_LINK_TIMEOUT: what it may end; until its timer is stopped */
  gboolean fired;
  struct iovec *store, one; /* what vec goes over */
  gsize kept;               /* bytes counted by uring_keep() */
  TesIov vec;
  gsize len; /* of the whole */
  struct sockaddr_storage name;
  socklen_t name_len;
};

static inline Ring *uring(TesFile *f) { return (Ring *)f; }
extern const TesFileOps uring_file_ops;

/* ---- ring.c ---- */
void uring_forget(Ring *); /* syscalls.c: takes it out of the list of rings */
int uring_new(TesKernel *, guint32 sq_entries, guint32 cq_entries, guint32 setup, Ring **out);
void uring_offsets(const Ring *, struct io_uring_params *);
void uring_post(Ring *, guint64 user_data, gint32 res, guint32 flags);
void uring_flush_overflow(Ring *);
guint uring_cq_ready(Ring *);

/* ---- request.c ---- */
/* May a ring have one more request? */
gboolean uring_has_room(const Ring *);
/* Counts what a request keeps beside itself until it is freed: -ENOMEM if all keep too much. */
int uring_keep(Request *, gsize bytes);
Request *uring_request_new(Ring *, TesTask *, const struct io_uring_sqe *);
/* Begins a chain, or defers it (drain). The submitting task only. */
void uring_begin(Request *first);
/* Goes on with a request that was waiting. Its task only. */
void uring_continue(Request *);
/* Ends waiting requests that `match` selects, one or all, with -ECANCELED: how many, -ENOENT, or -EALREADY if they do not wait. */
int uring_cancel(Ring *, gboolean (*match)(const Request *, gpointer), gpointer data, gboolean all);
/* Takes everything of a task (NULL: of all) away, without completions. */
void uring_drop(Ring *, TesTask *);

/* ---- ready.c ---- */
/* TRUE: it waits. FALSE: it has a result. */
gboolean uring_arm_file(Request *, guint mask);
void uring_arm_timer(Request *);
/* Starts the timer of a linked timeout, which ends the request before it. */
void uring_arm_link(Request *timeout, Request *before);
/* The wait is over with this result: hands the request to its task. FALSE if something else ended it. */
gboolean uring_decide(Request *, glong result);
void uring_disarm(Request *);
void uring_make_ready(Request *);
/* request.c: is a request of the calling task in the middle of its operation? */
gboolean uring_is_running(void);
/* Asks again for deferred work that came while one was. */
void uring_work_postponed(TesTask *);
/* Runs what is ready for the task; TRUE if anything was. */
gboolean uring_run_ready(Ring *, TesTask *);
void uring_wait_begin(Ring *, Waiting *, TesTask *);
void uring_wait_end(Ring *, Waiting *);
/* Takes a request that is to be freed out of the ready list and whatever it waits on. */
void uring_stop(Request *);

/* ---- Operations: NULL in the table's place, or no name: not supported ---- */
const OpDef *uring_op(guint opcode);
glong uring_op_send(Request *), uring_op_recv(Request *), uring_op_accept(Request *),
    uring_op_connect(Request *);
int uring_prep_message(Request *), uring_prep_accept(Request *), uring_prep_connect(Request *);
glong uring_op_sendmsg(Request *), uring_op_recvmsg(Request *);
TesTime uring_expiry(const Request *, TesTime value, guint timeout_flags);
/* Those that are a system call. */
glong uring_call(Request *);
int uring_prep_call(Request *);

/* ---- register.c ---- */
glong uring_register(Ring *, TesTask *, guint opcode, gulong arg, guint n);
void uring_unregister_all(Ring *);
/* Referenced, or NULL. */
TesFile *uring_registered_file(Ring *, guint index);
int uring_registered_buffer(Ring *, guint index, gulong addr, gsize len);
