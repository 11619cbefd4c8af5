/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera doctor`: checks, and what they find. Each check runs in a process of its own (doctor-run.c), so it may change that
 * process as it likes, hang or crash. Private to the doctor*.c files. */
#pragma once

#include <runtime/runtime.h>

typedef enum { DOCTOR_NO, DOCTOR_LIMITED, DOCTOR_YES } DoctorState;

/* Plain bytes, at most PIPE_BUF: they come through a pipe in one piece. */
typedef struct {
  DoctorState state;
  gboolean chosen;   /* tessera do would use it now */
  int result;        /* the check's own: of a platform, what its probe said */
  char reason[1200]; /* one sentence without a full stop */
  char remedy[400];  /* what to do; empty if nothing is to be done */
} Finding;

typedef struct {
  const char *name;
  void (*fn)(Finding *, gconstpointer data); /* no finding at all is a crash */
  gconstpointer data;
} Check;

typedef struct {
  const char *key, *title;
  const Check *checks; /* ends with a NULL name */
} Area;

/* doctor-confine.c, doctor-machine.c */
extern const Check confinement_checks[], network_checks[], machine_checks[];

/* Fills a finding; `remedy` may be NULL. */
void finding(Finding *, DoctorState, const char *remedy, const char *format, ...) G_GNUC_PRINTF(4, 5);
/* Runs a check in a child, for at most `limit` (and not past `end`), both in us of the monotonic clock. */
void run_check(const Check *, gint64 limit, gint64 end, Finding *out);

/* ---- What checks share ---- */
/* The first number in a file; FALSE: it cannot be read. */
gboolean read_number(const char *path, glong *value);
gboolean have_capability(int cap); /* effective */
/* Loads a filter that gives `action` for getppid; needs no_new_privs or CAP_SYS_ADMIN. -1 with errno, or what seccomp(2) returns. */
int filter_getppid(guint action, guint flags);
