/* SPDX-License-Identifier: Apache-2.0 */
/* arms.h - the combinations that tests run on: platform, VFS generation, and what the test's /tmp lies on.
 *
 * An arm is written PLATFORM/VFS/FS, e.g. "ptrace/vfs1:2018/overlay". FS is tmpfs (the default), host (a directory of
 * the host, bound read-write) or overlay (that directory below a writable layer in memory); VFS defaults to vfs2. "*"
 * stands for all of a part. An arm that "*" or a final "?" made optional is skipped where this build lacks it. The older form PLATFORM:VFS means PLATFORM/VFS/tmpfs. docs/testing.md has examples.
 */
#pragma once

#include <glib.h>

typedef struct {
  char *name;                /* "native", "ptrace-vfs2-tmpfs" */
  char *platform, *vfs, *fs; /* NULL: native */
  char *why_not;             /* this build lacks it: skip, and say so */
  guint index;
} Arm;

/* All arms of SPEC, words separated by blanks or commas, in order and once each (transfer full, Arm). An optional one
 * that this build of TESSERA lacks has why_not; one that is spelled out is believed, and fails. */
GPtrArray *arms_parse(const char *tessera, const char *spec);
Arm *arm_native(void);

/* The arguments of `tessera do` for this arm. HOST_DIR: see arm_host_dir(). */
void arm_add_argv(GPtrArray *argv, const Arm *arm, const char *host_dir);
/* A directory of the host for one sandbox of this arm, in BASE (transfer full); NULL where the arm needs none. */
char *arm_host_dir(const Arm *arm, const char *base);
/* Where tests put their files on the host (transfer full): on a tmpfs where there is one, so that the oracle is tmpfs. */
char *make_host_tmp(void);
void remove_tree(const char *dir);
