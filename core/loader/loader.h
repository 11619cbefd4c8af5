/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private interface of the program loader: ELF, #! scripts, the initial stack. Knows nothing of VFS generations. */
#pragma once

#include <core/task/task.h>

typedef struct _TesLoadArgs {
  /* What to load: `file` (already open, referenced by the caller) or `at`. */
  TesFile *file;
  const TesAt *at;
  char **argv, **envv; /* kernel copies */
  gboolean fd_cloexec; /* the script was opened by a close-on-exec descriptor: #! gives ENOENT */
  TesTask *task;       /* for limits, personality; NULL: create-process */
  const TesLimits *limits;
  const char *execfn; /* AT_EXECFN, NULL: argv[0] or at->path */
} TesLoadArgs;

struct _TesImage {
  TesMM *mm; /* new address space, transfer full */
  gulong entry, sp;
  char comm[16];
  TesFile *exe;      /* the executable (not the script), referenced */
  guint32 suid_mode; /* mode, uid, gid of the executable for set-id */
  guint32 suid_uid, suid_gid;
  gboolean readable; /* caller may read it (dumpable) */
};

/* Loads an image for `ctx` (whose credentials check execute permission). Until it succeeds nothing of the caller is touched.
 * 0 or -errno: ENOENT, EACCES, ENOEXEC, ELIBBAD, E2BIG, ENOMEM, ETXTBSY, ELOOP, ENOTDIR ... */
int tes_load_image(TesCtx *ctx, const TesLoadArgs *, TesImage *out);
void tes_image_clear(TesImage *);

/* ---- elf.c: a pure parser over bytes, fuzzed ---- */
#define TES_ELF_MAX_SEGMENTS 128
typedef struct {
  gulong vaddr, filesz, memsz, off;
  guint prot;
} TesElfSegment;
typedef struct {
  guint type; /* ET_EXEC or ET_DYN */
  gulong entry, phoff;
  guint phnum;
  gulong phdr_vaddr; /* where the program headers are mapped (before bias), or 0 */
  TesElfSegment seg[TES_ELF_MAX_SEGMENTS];
  guint n_seg;
  gulong lo, hi;                 /* extent of the segments, page-rounded */
  gulong align;                  /* largest p_align of a PT_LOAD */
  gulong interp_off, interp_len; /* PT_INTERP, len 0: none */
  gboolean exec_stack;           /* PT_GNU_STACK says so */
} TesElf;
/* Parses header and program headers. `head` holds the first n bytes; program headers that lie beyond are read by
 * `pread` (returns bytes or -errno). file_size bounds them. 0, -ENOEXEC (no ELF program for
 * this machine), -EINVAL (segments that cannot be mapped), or -errno of pread. */
int tes_elf_parse(const void *head, gsize n, guint64 file_size,
                  gssize (*pread)(gpointer, void *, gsize, guint64), gpointer data, TesElf *out);
