/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera compare`: one command on several kernels (arms), and what came out differently. Private to compare*.c.
 *
 *   compare.c         options, the order of runs          compare-run.c     one run of one arm
 *   compare-tree.c    file trees, their differences       compare-calls.c   system calls, their differences
 *   compare-report.c  the result as text                  compare-html.c    the result as a page */
#pragma once

#include <runtime/runtime.h>
#include <stdio.h>

/* ---- compare-tree.c ---- */

/* A file tree: one line for each file, "NAME: TYPE MODE OWNER ...", sorted by name. */
GPtrArray *tree_read(const char *dir);
/* Lines "only in A: ...", "A has ..., B has ...". */
GPtrArray *tree_differences(GPtrArray *a, const char *a_name, GPtrArray *b, const char *b_name);

/* ---- compare-calls.c ---- */

typedef struct {
  char *name,
      *text; /* text: "openat(AT_FDCWD, "x", ...)" with addresses made equal; the name's part of it is `name` */
  char *key;    /* text without names that programs make up: what calls are lined up by */
  char *result; /* "3", "-1 ENOENT", "ADDR" */
  gint64 took;  /* ns; -1: unknown */
} Call;

/* Calls of one system call's name in one arm. */
typedef struct {
  guint calls, errors;
  gint64 took; /* ns, waiting included */
} CallSum;

typedef struct {
  GPtrArray *tasks;     /* GPtrArray of Call, tasks in the order of their first call */
  GHashTable *sums;     /* name -> CallSum */
  GHashTable *has_text; /* names whose calls show a text argument (only from the sandbox's own traces) */
  gint64 first, last;   /* ns since the epoch: begin of the first call, of the last line; 0: no calls */
  gboolean foreign;     /* strace(1) wrote it: arguments are shown in other words */
} Calls;

Calls *calls_read(const char *path, gboolean foreign);
void calls_free(Calls *);

typedef struct {
  char *what;  /* the call; transfer full */
  char *a, *b; /* results; NULL: the call was not made */
  guint count;
} CallDifference;
/* Most frequent first. */
GPtrArray *calls_differences(Calls *a, Calls *b);

/* ---- An arm and its results ---- */

typedef struct {
  char *name;       /* "vfs=vfs1", "host" */
  GPtrArray *flags; /* of `tessera do` */
  gboolean host;
  char *dir; /* where its results are kept */
  /* Of the first run, which compares: */
  int status; /* wait(2) */
  GString *out, *err;
  GPtrArray *tree;
  /* Of all runs: */
  GArray *walls;    /* gint64 ns, sorted after the last run */
  gint64 user, sys; /* µs, least of all runs */
  /* Of the traced run: */
  Calls *calls; /* NULL: not traced, `no_calls` says why */
  const char *no_calls;
  gint64 traced_begin, traced_end; /* ns since the epoch */
} Arm;

typedef struct {
  Arm *other;         /* compared with the first arm */
  gboolean same_exit; /* the rest: NULL or empty if nothing differs */
  char *out, *err;
  GPtrArray *tree, *calls;
} Comparison;

typedef struct {
  GPtrArray *arms;        /* Arm */
  GPtrArray *comparisons; /* Comparison */
  char **command;         /* borrowed */
  guint runs;
} Result;

/* ---- compare-run.c ---- */

typedef struct {
  const char *self; /* this program */
  const char *work; /* directory in which the command runs, the same for all arms */
  const char *tree; /* what it holds at first, or NULL */
  char **command;
} RunPlan;

typedef enum { RUN_FIRST, RUN_TIMED, RUN_TRACED } RunKind;
gboolean run_arm(const RunPlan *, Arm *, RunKind, GError **);
/* Removes a directory and all that is in it. */
void remove_tree(const char *dir);

/* ---- compare-report.c, compare-html.c ---- */
void report_text(const Result *, FILE *);
gboolean report_html(const Result *, const char *path, GError **);
/* "exited with 3", "killed by signal 9". */
char *status_text(int status);
/* "12.3 ms"; transfer full. */
char *time_text(gint64 ns);
/* Names of all calls of the arms, by the time spent, most first. */
GPtrArray *call_names(const Result *);
const CallSum *call_sum(const Arm *, const char *name);
