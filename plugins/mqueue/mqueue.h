/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX message queues (mq_overview(7)). queue.c: queues, their IPC namespace, limits; fs.c: the filesystem "mqueue", whose files
 * they are; calls.c: the system calls.
 *
 * Lock order: a namespace's lock, then a queue's. */
#pragma once

#include <signal.h>
#include <string.h>
#include <tessera/tessera.h>

#define MQ_HARD_MSGS 65536
#define MQ_HARD_SIZE (16 << 20)
#define MQ_PRIORITIES 32768
#define MQ_TOTAL_BYTES \
  (256UL << 20) /* of all queues of the sandbox: what they may make the kernel process hold */

/* struct mq_attr of the ABI. */
typedef struct {
  glong flags, maxmsg, msgsize, curmsgs, reserved[4];
} MqAttr;

typedef struct _MqBytes MqBytes; /* what users' queues count together: queue.c */

typedef struct {
  guint prio;
  guint64 seq; /* first come, first served within a priority */
  gsize len;
  guint8 data[];
} Msg;

/* Who is told that a message came to the empty queue. */
typedef struct {
  TesThreadGroup *tg; /* referenced; NULL: nobody */
  gint pid;           /* of it in the root pid namespace */
  int how, signo;     /* SIGEV_* */
  guint64 value;
} Notify;

typedef struct {
  gint refs;
  TesKernel *kernel;
  MqBytes *bytes_of; /* referenced */
  guint64 ino;
  guint32 mode, uid, gid; /* lock */
  struct timespec atime, mtime, ctime;
  guint32 owner;            /* whose RLIMIT_MSGQUEUE it counts against */
  guint64 bytes;            /* what it counts there; constant */
  glong max_msgs, msg_size; /* constant */
  TesMutex lock;            /* guards what follows and the above that is not constant */
  GSequence *msgs;          /* Msg, best first */
  guint64 seq, qsize;
  guint receivers; /* that wait */
  Notify notify;
  TesQueue queue;
} Mq;

/* The queues of an IPC namespace; embedded in the super that shows them. */
typedef struct {
  TesSuper super;
  TesMutex lock;
  GHashTable *names; /* name -> Mq, referenced */
  GPtrArray *order;  /* names in the order of their making, for readdir; borrowed from `names` */
  gint msg_default, msg_max, msgsize_default, msgsize_max, queues_max; /* atomic: /proc/sys/fs/mqueue */
} MqNs;

/* ---- queue.c ---- */
MqNs *mq_ns_of(TesCtx *); /* referenced through its super; NULL: no IPC namespace */
/* -EINVAL, -ENOSPC, -EMFILE, -ENOMEM, -EEXIST; ns->lock held. */
int mq_make(MqNs *, TesCtx *, const char *name, guint32 mode, const MqAttr *, Mq **out /* transfer full */);
int mq_unlink_name(MqNs *, const char *name); /* ns->lock held */
Mq *mq_ref(Mq *);
void mq_unref(Mq *);
int mq_send(Mq *, TesCtx *, Msg *); /* takes it if 0; -EAGAIN: full */
Msg *mq_receive(Mq *);              /* NULL: empty */
guint mq_poll(Mq *);
glong mq_count(Mq *);
void mq_forget_notify(Mq *, TesThreadGroup *); /* if it is the one to be told */
void mq_clear(MqNs *);
extern const TesSysctlTable mq_sysctl;
gboolean mq_init(TesKernel *, GError **);
void mq_fini(TesKernel *);

/* ---- fs.c ---- */
extern const TesFsTypeOps mq_fs_type;
MqNs *mq_ns_new(TesKernel *);
TesInode *mq_inode_new(MqNs *, Mq *);
Mq *mq_of_file(TesFile *); /* borrowed; NULL: another kind of file */

/* ---- calls.c ---- */
extern const TesSyscallTable mq_calls;
