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
  /* NULL: always readable and writable. */
  guint (*poll)(TesInode *, TesFile *);
} TextOps;

/* A description; `ops` must live as long. `seen` of a poll operation: text_seen(). */
TesFile *text_file_new(TesKernel *, guint flags, const TextOps *ops);
/* A number of the file's own, for poll operations: which version of the contents was read last. */
guint64 text_seen(TesFile *);
void text_set_seen(TesFile *, guint64);
/* Where changes are told: `queue` replaces the file's own. It must live as long as the inode. */
void text_share_queue(TesFile *, TesQueue *);

/* As tes_file_init() for a directory whose readdir is `ops`'. */
TesFile *text_dir_new(TesKernel *, guint flags, const TesFileOps *ops);
void text_dir_release(TesFile *);
/* Offers "." and ".."; FALSE: the buffer is full. */
gboolean text_dir_dots(TesFile *, goffset *pos, TesDirFill, gpointer data);

/* "0-3,5" of n numbers from 0; "00000000,0000000f" as a mask of them with as many words as n needs. */
void text_cpu_list(GString *, guint first, guint n);
void text_cpu_mask(GString *, guint first, guint n, guint total);
