/* SPDX-License-Identifier: Apache-2.0 */
/* Files whose contents are text made at read, and directories over a fixed list: what the filesystems that show the kernel's
 * insides (sysfs, cgroup2) have in common. Compiled into each of them. */
#pragma once

#include <string.h>
#include <tessera/tessera.h>

typedef struct {
  /* Appends what a read from the beginning sees. 0 or -errno. */
  int (*text)(TesInode *, TesCtx *, GString *out);
  /* NULL: writing is -EINVAL. Text of less than a page, NUL-terminated, without the last newline. 0 or -errno. */
  int (*write)(TesInode *, TesCtx *, TesFile *, char *text);
  /* Changes are told by poll(2) as POLLPRI | POLLERR: which version of the contents is current. NULL: they are not. */
  guint64 (*version)(TesInode *);
} TextOps;

/* A description; `ops` must live as long. */
TesFile *text_file_new(TesKernel *, guint flags, const TextOps *ops);
/* Whose credentials opened it (a reference is taken), for rules that ask for the opener's rather than the writer's. */
void text_set_opener(TesFile *, TesCred *);
TesCred *text_opener(TesFile *);
/* Changes after version `seen` are told; `queue` replaces the file's own and lives as long as the inode. */
void text_watch(TesFile *, TesQueue *queue, guint64 seen);

/* As tes_file_init() for a directory whose readdir is `ops`'. */
TesFile *text_dir_new(TesKernel *, guint flags, const TesFileOps *ops);
void text_dir_release(TesFile *);
/* Offers "." and ".."; FALSE: the buffer is full. */
gboolean text_dir_dots(TesFile *, goffset *pos, TesDirFill, gpointer data);

/* "0-3,5" of n numbers from 0; "00000000,0000000f" as a mask of them with as many words as n needs. */
void text_cpu_list(GString *, guint first, guint n);
void text_cpu_mask(GString *, guint first, guint n, guint total);
