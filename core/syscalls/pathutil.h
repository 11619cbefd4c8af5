/* SPDX-License-Identifier: Apache-2.0 */
/* Path arguments of system calls: copied in once, with their base directory. */
#pragma once

#include <core/syscalls/syscalls.h>
#include <fcntl.h>

typedef struct {
  TesAt at;
  TesFile *file; /* what dirfd names (referenced), when it matters; NULL: AT_FDCWD or an absolute path */
  gboolean
      empty; /* "" with TES_AT_EMPTY: the call is about `file` (or, with file NULL, the working directory) */
  char buf[TES_PATH_MAX];
} TesPathArg;

/* Copies the path at `upath` and finds its base. flags: TES_AT_*. 0 or -EFAULT, -ENAMETOOLONG, -ENOENT (empty), -EBADF, -ENOTDIR. */
int tes_path_arg(TesTask *, TesPathArg *, int dirfd, gulong upath, guint flags);
void tes_path_arg_clear(TesPathArg *);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(TesPathArg, tes_path_arg_clear)
/* Declares one, cleared at the end of the block. The text is left alone: 4 KiB of zeros cost more than most calls. */
#define TES_PATH_ARG(name) \
  g_auto(TesPathArg) name; \
  name.file = NULL

/* AT_SYMLINK_NOFOLLOW (or, in calls that do not follow, AT_SYMLINK_FOLLOW), AT_EMPTY_PATH and AT_NO_AUTOMOUNT as TES_AT_*. */
guint tes_at_flags(int flags, gboolean follow_by_default);

/* The place a path argument names, referenced; for an empty one of a file without a place: *path NULL, *file referenced. */
int tes_path_arg_resolve(TesTask *, TesPathArg *, TesPath **path, TesFile **file);

/* What chmod, chown, utimes and truncate end in: EROFS, then the filesystem. */
int tes_path_setattr(TesTask *, TesPath *, const TesSetAttr *);
