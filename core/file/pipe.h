/* SPDX-License-Identifier: Apache-2.0 */
/* The pipe object, shared by pipe.c (data), pipefile.c (the file operations) and fifo.c (opening by name). */
#pragma once

#include <core/file/file.h>

#define TES_PIPE_DEFAULT (64 * 1024)
#define TES_PIPE_MAX (1024 * 1024) /* pipe-max-size, pipe(7) */
#define TES_PIPE_PACKETS (TES_PIPE_MAX / 4096)
/* Told to openers of a FIFO that wait for the other side. */
#define TES_POLL_PEER 0x20000

typedef struct {
  guint64 start;
  gsize len;
} TesPipePacket;

/* A byte ring that grows up to `cap` as it fills, with packets (O_DIRECT) marked in a list of their own. */
struct _TesPipe {
  gint refs;
  TesMutex lock;
  TesQueue queue; /* of all its files */
  guchar *ring;
  gsize size, cap;       /* powers of two; size: allocated */
  guint64 head, tail;    /* bytes ever written and read */
  TesPipePacket *packet; /* ring of TES_PIPE_PACKETS, or NULL: never used */
  guint p_head, p_tail;
  guint state; /* atomic: PIPE_* as of the last change, for poll */
  gsize want;  /* free bytes that wake blocked writers */
  gint readers, writers;
  guint r_counter, w_counter; /* opens so far */
  gboolean splicing;          /* a splice holds the front */
  guint32 uid, gid;
  guint64 ino;
  TesTime created;
  TesInode *inode; /* FIFO: whose `attached` points here; owned */
};

typedef struct {
  TesFile file;
  TesPipe *pipe;
  gboolean alone;   /* when it was opened there was no other end */
  guint peers_seen; /* the other end's counter then */
  guint w_seen;     /* FIFO opened for reading without blocking: no POLLHUP before a writer came */
} TesPipeFile;

extern const TesFileOps tes_pipe_ops;

enum { PIPE_DATA = 1, PIPE_SPACE = 2, PIPE_NO_WRITERS = 4, PIPE_NO_READERS = 8 };

/* ---- pipe.c, with the lock held ---- */
/* Brings `state` up to date: after every change of contents, size or ends. */
void tes_pipe_publish(TesPipe *);
static inline gsize tes_pipe_len(const TesPipe *p) { return (gsize)(p->head - p->tail); }
static inline gsize tes_pipe_free(const TesPipe *p) { return p->cap - tes_pipe_len(p); }
/* Moves bytes; return as file operations do, and the events to notify after unlocking in *events. */
gssize tes_pipe_fill(TesPipe *, TesIov *, gboolean packets, guint *events);
gssize tes_pipe_drain(TesPipe *, TesIov *, guint *events);
int tes_pipe_resize(TesPipe *, gsize cap);
