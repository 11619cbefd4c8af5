/* SPDX-License-Identifier: Apache-2.0 */
/* run-guest.h - shared by the runner's two halves: running a command with a deadline, and reporting cases. */
#pragma once

#include <glib.h>

typedef struct {
  gint64 deadline;    /* monotonic microseconds; the callback may move it */
  gboolean timed_out; /* out */
  gint status;        /* out: wait status */
  /* Called with each complete line (without newline; transfer none). */
  void (*line)(gpointer user, char *line);
  gpointer user;
} RunOutput;

/* Once, before the first command: makes SIGTERM and SIGINT take the running command along. */
void run_command_init(void);

/* Runs argv in a session and process group of its own, stdin from /dev/null, stdout and stderr on one pipe.
 * At the deadline the whole group is killed. Returns FALSE when it cannot be started. */
gboolean run_command(const char *const *argv, char **envp, RunOutput *io, GError **error);

/* Kills and reaps processes that were reparented to this one; returns the names of those that
 * were still there after grace_ms (transfer full, NULL if none). */
char *reap_strays(guint grace_ms);
