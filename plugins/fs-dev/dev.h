/* SPDX-License-Identifier: Apache-2.0 */
/* fs-dev: device nodes and terminals. fs.c: the tree; mem.c: null, zero, full, random; tty.c: terminal files and ioctls;
 * ldisc.c: the line discipline; pts.c: pseudo-terminal pairs; hostterm.c: the host's terminal behind a pair. */
#pragma once

#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <tessera/tessera.h>
#include <asm/termbits.h>

/* ---- Terminals ---- */

#define TTY_IN_MAX 4096         /* canonical input, as Linux: longer lines are cut */
#define TTY_OUT_MAX (64 * 1024) /* output nobody has read yet */
#define TTY_PTS_MAX 4096
#define ENOIOCTLCMD_ 515 /* internal: try the next table */
#define CAP_SYS_ADMIN_NR 21

typedef struct _Tty Tty;
typedef struct _PtyTable PtyTable;

/* What a mount of devpts says about the terminals that are made through it. */
typedef struct {
  guint instance;  /* whose numbers: 0 is what /dev/pts of the filesystem "dev" shows */
  gint64 uid, gid; /* -1: those of whoever opens ptmx */
  guint32 mode, ptmxmode;
  gint max;
} PtsOptions;
extern const PtsOptions pts_defaults; /* Debian's: gid=5 (tty), mode=620 */

/* A slave terminal and what is between it and its master. `lock` (TTY) guards everything after it; signals are collected in
 * `signals` and sent when it is dropped (tty_unlock). */
struct _Tty {
  TesTty tty;
  gint refs;
  TesKernel *kernel;
  guint instance;         /* of devpts */
  gint index;             /* N of /dev/pts/N */
  guint32 uid, gid, mode; /* of the slave's node; atomic */
  TesTime created;        /* CLOCK_REALTIME */
  TesMutex lock;
  struct termios2 t;
  struct winsize size;
  guint64 signals; /* to send to the foreground group */
  /* input: `in` is ready for readers; in canonical mode `lines` holds the length of each line in it */
  GByteArray *in, *edit;
  GQueue lines;       /* GUINT_TO_POINTER(length * 2 + at_eof) */
  gboolean lnext;     /* the next character is literal */
  gboolean timed_out; /* VTIME ran out for the reader */
  gboolean timing;
  TesTimer vtime;
  /* output towards the master */
  GByteArray *out;
  guint column;
  gboolean stopped; /* ^S, TCOOFF */
  gboolean locked, ever_opened, exclusive;
  gint hung_up, master_gone; /* set under the lock for good: tty_is_gone() asks without it */
  gboolean packet;
  guint8 packet_status;
  gint n_slaves;
  TesQueue queue;              /* slave readers and writers */
  TesQueue master_queue;       /* the master's */
  void (*output_ready)(Tty *); /* the host's terminal wants to know; NULL for ordinary pairs */
  gpointer host;
};

static inline Tty *tty_of(TesTty *t) { return (Tty *)t; }

/* pts.c */
PtyTable *pty_table_new(TesKernel *);
void pty_table_free(gpointer);
PtyTable *pty_table(TesKernel *);
int pty_new(TesKernel *, const PtsOptions *, const TesCred * /* NULL: root */, Tty **out); /* one reference */
Tty *tty_ref(Tty *);
void tty_unref(Tty *);
Tty *pty_find(TesKernel *, guint instance, gint index); /* referenced or NULL */
void pty_remove(Tty *);
void pty_foreach(TesKernel *, void (*)(Tty *, gpointer), gpointer);
int ptmx_open(TesKernel *, TesCtx *, const PtsOptions *, guint flags, TesFile **out);
int tty_open_slave(Tty *, TesCtx *, guint flags, TesFile **out);
/* Opens the slave through its name in the sandbox's first root, so that fstat and ttyname agree. */
int tty_open_by_name(Tty *, guint flags, TesFile **out);
void tty_hangup(Tty *);
guint64 pty_creation_time(Tty *);

/* tty.c */
extern const TesTtyOps pty_tty_ops;
void tty_lock(Tty *);
/* Drops the lock, then sends the signals that were collected and tells both queues. */
void tty_unlock(Tty *);
/* After something that changed nothing if `idle`: tells nobody. A reader that found nothing must not wake itself. */
static inline void tty_unlock_if(Tty *t, gboolean idle) {
  if (idle && !t->signals)
    tes_mutex_unlock(&t->lock);
  else
    tty_unlock(t);
}
/* No more input will come: hangup, or the other side has gone. */
static inline gboolean tty_is_gone(const Tty *t) {
  return g_atomic_int_get(&t->hung_up) || g_atomic_int_get(&t->master_gone);
}
void tty_default_termios(struct termios2 *);
glong tty_ioctl(Tty *, TesFile *, TesTask *, gboolean master, guint cmd, gulong arg);

/* ldisc.c; tty lock held */
gsize ldisc_input(Tty *, const guint8 *, gsize n);  /* from the keyboard: bytes taken */
gsize ldisc_output(Tty *, const guint8 *, gsize n); /* from programs: bytes taken */
gsize ldisc_readable(Tty *);
gssize ldisc_read(Tty *, guint8 *, gsize n); /* -EAGAIN */
void ldisc_mode_changed(Tty *, guint old_lflag);
void ldisc_flush_input(Tty *);
gsize ldisc_room(Tty *);

/* hostterm.c */
extern const TesTtyFeatureOps host_terminal_ops;
Tty *host_terminal_console(TesKernel *); /* referenced, or NULL */

/* mem.c */
int mem_open(TesKernel *, guint minor, guint flags, TesFile **out);

/* fs.c */
extern const TesFsTypeOps dev_type, devpts_type;
