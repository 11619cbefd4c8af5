/* SPDX-License-Identifier: Apache-2.0 */
/* System call rows: number, handler, and what is supported (DESIGN.md decision 10). */
#pragma once

#include <tessera/types.h>

TES_BEGIN_DECLS

typedef enum { TES_FULL, TES_PARTIAL, TES_NONE } TesSupport;

/* Returns >= 0, -errno, or one of the restart codes of task.h. Arguments are as the guest gave them. */
typedef glong (*TesSyscallFn)(TesTask *, const gulong a[6]);

typedef struct {
  guint nr; /* x86-64 number; on other architectures looked up by name */
  const char *name;
  TesSyscallFn fn; /* NULL with TES_NONE: ENOSYS */
  TesSupport level;
  const char *note; /* what is missing (PARTIAL) or why (NONE); NULL when FULL */
  const char
      *args; /* strace-like decoding: one letter each, see core/trace/strace.c: d int, u unsigned, x hex,
                        p pointer, s string, f fd, a at-fd, o octal mode, O open flags, ... "" none */
} TesSyscall;

/* ops of a feature of kind "syscalls". A number given twice is refused. */
typedef struct {
  gsize size;
  const TesSyscall *rows;
  gsize n;
} TesSyscallTable;

#define TES_SYSCALL_MAX 512
/* Rows of a sealed registry by number; NULL: no such call (ENOSYS). */
const TesSyscall *tes_syscall_row(const TesRegistry *, guint nr);

TES_END_DECLS
