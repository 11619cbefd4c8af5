/* SPDX-License-Identifier: Apache-2.0 */
/* The `tessera` command: verbs, their options, and what they share. */
#pragma once

#include <tessera/tessera.h>

/* Exit statuses of container tools. */
enum { EXIT_CONFIG = 125, EXIT_NOEXEC = 126, EXIT_NOTFOUND = 127 };

typedef struct {
  const char *name, *summary;
  int (*run)(int argc, char **argv); /* argv[0] is the verb */
  const char *manual;                /* text of `tessera VERB --help` */
} Verb;
extern const Verb *const verbs[];
extern const Verb verb_do, verb_compare, verb_doctor, verb_plugins, verb_syscalls, verb_context_keys;

/* A flag of a verb: takes n_args words ("--x v", or "--x=v" for one). Returns FALSE with *error set. */
enum { OPTIONAL_ARG = -1 }; /* n_args: "--x" (args[0] is NULL) or "--x=v" */
typedef struct {
  const char *name;
  int n_args;
  gboolean (*set)(gpointer options, char **args, GError **error);
} Flag;
/* Parses leading flags up to "--" or the first word that is none; *rest is what follows. `--help` sets *help. */
gboolean parse_flags(const Flag *flags, gpointer options, int argc, char **argv, int *rest, gboolean *help,
                     GError **error);

/* Prints "tessera: MESSAGE" as one line; returns the exit status that fits the error. */
int report(const GError *);
/* A sealed registry from the given directories (NULL or empty: the default one). */
TesRegistry *load_plugins(char **dirs, GError **error);

/* ---- do.c's parts ---- */
typedef enum {
  MOUNT_RO_BIND,
  MOUNT_BIND,
  MOUNT_TMPFS,
  MOUNT_PROC,
  MOUNT_DEV,
  MOUNT_SYS,
  MOUNT_CGROUP,
  MOUNT_MQUEUE
} MountKind;
typedef struct {
  MountKind kind;
  char *source, *target;
} MountSpec;

/* What becomes of writes to the root: gone with the sandbox, kept in a directory, refused, done. */
typedef enum { ROOT_MEMORY, ROOT_OVERLAY, ROOT_RO, ROOT_RW } RootMode;

typedef struct {
  RootMode root_mode;
  char *overlay; /* ROOT_OVERLAY: the directory */
  char *platform, *vfs, *device, *root, *cwd, *hostname;
  GPtrArray *plugin_dirs, *env; /* strings */
  GArray *mounts;               /* MountSpec */
  TesCpuidMode cpuid;
  gboolean clear_env, strace, trace_path, verbose, have_user;
  guint dcache;    /* 0: default */
  char *strace_to; /* file, or NULL: standard error */
  char *strace_filter, *stats_to;
  gboolean stats, json, json_regs, strace_plain;
  char *json_to;     /* NULL: standard error */
  GPtrArray *inject; /* strings */
  guint32 uid, gid;
  guint cpus;
  guint64 memory, pids;
  GArray *auxv; /* guint64 pairs */
} DoOptions;

/* limits.c: raises the host limits of this process; FALSE: one is too small to run. */
gboolean prepare_limits(GError **);
/* mounts.c: the root mount namespace of the options. */
gboolean build_mounts(TesKernel *, const DoOptions *, GError **);
/* Path of a program as execvp(3) would find it inside the sandbox; transfer full. */
char *find_program(TesKernel *, const char *name, const char *path_env, const char *cwd, GError **);
/* stdio.c: descriptors 0-2 of the sandbox's first process. */
typedef struct _Stdio Stdio;
Stdio *stdio_new(TesKernel *, TesFdTable *, GError **);
TesTty *stdio_tty(Stdio *); /* terminal that the first process shall control, or NULL */
void stdio_resized(Stdio *);
void stdio_free(Stdio *);
