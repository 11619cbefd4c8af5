/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/loader: what its files hand to each other. */
#pragma once

#include <core/loader/loader.h>

/* ---- open.c: an executable that is open for the loader. While it is open nobody can open it for writing (ETXTBSY). ---- */
#define TES_PROGRAM_HEAD 1024
typedef struct {
  TesFile *file;
  gboolean denies_write;
  guint32 mode, uid, gid; /* set-id bits are gone if the mount or no_new_privs forbids them */
  guint64 size;
  char head[TES_PROGRAM_HEAD];
  gsize n_head;
} TesProgram;

/* Both check: a regular file (EACCES), execute permission, a mount without MS_NOEXEC, no writer. */
int tes_program_open(TesCtx *, const TesAt *, TesProgram *out);
int tes_program_open_file(TesCtx *, TesFile *, TesProgram *out);
/* The program is run: it denies writing as long as its file is open (which address spaces keep it). */
void tes_program_keep(TesProgram *);
void tes_program_close(TesProgram *);

/* ---- script.c ---- */
#define TES_SCRIPT_LINE 256
/* Splits a "#!" line: 1 with *interp (and *arg, or NULL), transfer full; 0 when head is no script; -ENOEXEC. */
int tes_script_parse(const char *head, gsize n, char **interp, char **arg);

/* ---- stack.c ---- */
typedef struct {
  TesKernel *kernel;
  TesMM *mm;
  TesTask *task; /* or NULL */
  const TesCred *cred;
  char *const *argv, *const *envv;
  const char *execfn;
  gboolean exec_stack, randomize;
  guint64 stack_limit, as_limit; /* RLIMIT_STACK, RLIMIT_AS */
  gulong stack_top;
  /* for the auxiliary vector */
  gulong phdr, phnum, base, entry, vdso;
  guint32 euid, egid;
} TesStackArgs;

/* 0 or -E2BIG: execve(2), "Limits on size of arguments and environment". */
int tes_stack_check_args(char *const *argv, char *const *envv, const char *execfn, guint64 stack_limit);
/* Maps the stack, writes strings, vectors and auxv; sets arg and env addresses of *layout, the mm's auxv and *sp. */
int tes_stack_build(const TesStackArgs *, TesMMLayout *layout, gulong *sp);

/* Random bytes from the host. */
void tes_loader_random(void *buf, gsize n);
