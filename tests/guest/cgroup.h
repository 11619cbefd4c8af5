/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup.h - what the tests of control groups share: a directory of their own in a cgroup2 filesystem that they may write. */
#pragma once

#include "check.h"

#include <stdarg.h>

/* Makes the directory, or skips. With `controllers` ("+pids") those are switched on for what is made in it. It is removed at the end of
 * the case with all below; processes in it are killed. */
const char *cg_base(const char *controllers);
/* BASE/FORMAT in a static ring of 32 buffers. */
char *cg(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Writes text to a file: 0, or -1 with errno. */
int cg_write(const char *path, const char *text);
/* The text of a file; static ring. */
const char *cg_read(const char *path);
/* The number behind "KEY " in a file of lines; -1: none. */
long long cg_value(const char *path, const char *key);
/* Moves a process; ends the case if that fails. */
void cg_enter(const char *dir, pid_t pid);
void cg_spin_ms(unsigned ms); /* burns wall-clock time */
