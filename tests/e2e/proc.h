/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes for the end-to-end tests: run one with a deadline and collect what it wrote, talk to one on a
 * terminal, and prove that nothing it started outlives it (this process is made a child subreaper, so every
 * orphaned descendant becomes a child of ours). */
#pragma once

#include <glib.h>
#include <sys/types.h>

typedef struct {
  GString *out, *err; /* capped at 16 MiB each; what exceeds that is dropped */
  int status;         /* exit status, 128+N for signal N, -1 when the deadline passed */
} ProcResult;

typedef struct {
  pid_t pid;
  int in, out, err; /* our ends; -1 when closed. On a terminal all three are the master */
} Proc;

/* Makes the caller a subreaper. Call once, before anything is started. */
void proc_setup(void);
/* Starts argv in a process group of its own, in `dir` (NULL: here); it dies with us. The environment is ours. */
Proc proc_start(const char *const *argv, const char *dir);
/* The same on a new terminal that is its controlling terminal. */
Proc proc_start_terminal(const char *const *argv);
/* Reads from p->out until `text` was seen. Returns FALSE at end of file or after `seconds`; *seen (never NULL) collects. */
gboolean proc_until(Proc *p, GString *seen, const char *text, double seconds);
void proc_write(Proc *p, const char *text);
/* Feeds `input` (may be NULL), collects output until end of file on both and the exit. Kills the group at the deadline. */
ProcResult proc_finish(Proc *p, const char *input, double seconds);
ProcResult proc_run(const char *const *argv, const char *input, double seconds);
void proc_result_clear(ProcResult *r);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ProcResult, proc_result_clear)
/* Process ids of all living descendants of `pid`, itself not included, parents first. */
GArray *proc_descendants(pid_t pid);
/* Waits up to `seconds` for every remaining child of ours to be gone. Returns NULL, or what is left ("pid name, …"),
 * which it kills. Transfer full. */
char *proc_leftovers(double seconds);
/* Deadlines are multiplied by TESSERA_TIMEOUT_SCALE (sanitizers are slow). */
double proc_scale(double seconds);
/* One g_test_message() for each line, at most `limit` lines. */
void proc_show(const char *title, const char *text, int limit);
