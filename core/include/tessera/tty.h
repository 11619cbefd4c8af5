/* SPDX-License-Identifier: Apache-2.0 */
/* Terminals: what the task side (sessions, job control) and the runtime (the host's terminal) need of a tty, which
 * a plugin implements (feature kind "tty", name "pty"). */
#pragma once

#include <tessera/file.h>

TES_BEGIN_DECLS

typedef struct {
  gsize size;
  void (*ref)(TesTty *);
  void (*unref)(TesTty *);
  guint64 (*dev)(TesTty *); /* tty_nr of /proc/PID/stat */
  char *(*name)(TesTty *);  /* "pts/0", transfer full */
  void (*hangup)(TesTty *); /* the session leader died: EIO from now on, SIGHUP is sent by the core */
  int (*open)(TesTty *, TesCtx *, guint flags, TesFile **out); /* what /dev/tty opens */
} TesTtyOps;

/* Embedded first in a tty. session and foreground group are owned by core/task/session.c under the task-set lock. */
struct _TesTty {
  const TesTtyOps *ops;
  TesSession *session; /* whose controlling terminal it is, or NULL; borrowed */
  gint pgrp;           /* foreground process group id (root pid namespace); 0: none */
};

/* Session services for tty implementations; they take the task-set lock, so hold no tty lock. */
void tes_tty_signal_fg(TesKernel *, TesTty *, int sig); /* ISIG characters, SIGWINCH */
/* Job control at read, write (TOSTOP) and ioctl: 0 go on; -EIO (orphaned, or ignored SIGTTIN); -TES_ERESTARTSYS after sending `sig`
 * (SIGTTIN, SIGTTOU) to the caller's group. No controlling terminal relation: 0. */
int tes_tty_check_change(TesTask *, TesTty *, int sig);
/* TIOCSCTTY, TIOCNOTTY, TIOCGPGRP, TIOCSPGRP, TIOCGSID; -ENOTTY for any other cmd. */
glong tes_tty_job_ioctl(TesTask *, TesTty *, guint cmd, gulong arg);
/* open(2) of a tty without O_NOCTTY by a session leader without a terminal. */
void tes_tty_opened(TesTask *, TesTty *);
/* The tty is gone (master closed): hang up its session, SIGHUP + SIGCONT to the leader's and foreground group. */
void tes_tty_vanished(TesKernel *, TesTty *);
/* The task's controlling terminal, referenced, or NULL. */
TesTty *tes_task_tty(TesTask *);

typedef struct {
  gsize size;
  /* Wraps the host's terminal: a pty of ours whose slave the sandbox gets as stdio, relayed on the kernel's event thread
   * to host_in/host_out (not closed); window size and raw mode handled and put back by stop(). Transfer full. */
  int (*wrap_host)(TesKernel *, int host_in, int host_out, TesFile **slave, gpointer *handle, GError **);
  void (*resized)(gpointer handle); /* SIGWINCH arrived */
  void (*stop)(gpointer handle);    /* drains output, restores the terminal */
} TesTtyFeatureOps;

TES_END_DECLS
