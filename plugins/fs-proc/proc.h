/* SPDX-License-Identifier: Apache-2.0 */
/* fs-proc: process and system information as files (proc(5)). node.c: the tree's machinery; root.c: system files;
 * task.c: files of a process; fdlink.c: fd/, fdinfo/, ns/ and the links; mounts.c; sys.c: /proc/sys. */
#pragma once

#include <stdio.h>
#include <string.h>
#include <tessera/tessera.h>

typedef struct _Node Node;
typedef struct _Entry Entry;

/* What a read sees: appended to `out`. 0 or -errno. */
typedef int (*TextFn)(Node *, TesCtx *, GString *out);
/* What a write does: text of at most a page, NUL-terminated. 0 or -errno. */
typedef int (*WriteFn)(Node *, TesCtx *, const char *text, gsize n);

struct _Entry {
  const char *name;
  guint32 mode; /* type and permissions */
  TextFn text;  /* regular files; links: their target */
  WriteFn write;
  const Entry *dir;      /* directories: entries, ends with a NULL name */
  const TesFileOps *ops; /* regular files that are more than text */
  int (*lookup)(Node *, TesCtx *, const char *name, TesInode **out); /* directories with computed names */
  int (*list)(Node *, TesCtx *, goffset *pos, TesDirFill, gpointer data);
  int (*follow)(Node *, TesCtx *, TesPath **out); /* magic links */
  int (*open)(Node *, TesCtx *, guint flags,
              TesFile **out); /* regular files with a description of their own */
  gboolean private_;          /* only who may inspect the task */
};

struct _Node {
  TesInode inode;
  const Entry *entry;
  TesTask *task;   /* whose it is, referenced; NULL for the system's */
  gint number;     /* fd/N */
  gboolean thread; /* below task/TID: figures of the thread */
};

/* node.c */
int node_new(TesSuper *, const Entry *, TesTask * /* borrowed */, gint number, TesInode **out);
int list_entries(Node *, const Entry *, goffset *pos, TesDirFill, gpointer data, guint first);
int find_entry(Node *, const Entry *, const char *name, TesInode **out);
/* The task, unless it has exited (-ESRCH) or the caller may not look (-EACCES). */
int check_task(Node *, TesCtx *);

extern const Entry proc_root, proc_sys_dir[], proc_task_dir, proc_thread_dir;
/* sysctl.c: a directory below /proc/sys/fs that a plugin fills. */
int sysctl_lookup(Node *, TesCtx *, const char *name, TesInode **out);
int sysctl_list(Node *, TesCtx *, goffset *pos, TesDirFill, gpointer data);
/* fdlink.c: computed names of fd/, fdinfo/ and ns/. */
int fd_lookup(Node *, TesCtx *, const char *name, TesInode **out);
int fdinfo_lookup(Node *, TesCtx *, const char *name, TesInode **out);
int fd_list(Node *, TesCtx *, goffset *pos, TesDirFill, gpointer data);
int ns_lookup(Node *, TesCtx *, const char *name, TesInode **out);
int ns_list(Node *, TesCtx *, goffset *pos, TesDirFill, gpointer data);
#define PROC_FD_DIR \
  { .name = "fd", .mode = S_IFDIR | 0500, .lookup = fd_lookup, .list = fd_list, .private_ = TRUE }
#define PROC_FDINFO_DIR \
  { .name = "fdinfo", .mode = S_IFDIR | 0555, .lookup = fdinfo_lookup, .list = fd_list, .private_ = TRUE }
#define PROC_NS_DIR \
  { .name = "ns", .mode = S_IFDIR | 0511, .lookup = ns_lookup, .list = ns_list, .private_ = TRUE }
int link_exe(Node *, TesCtx *, TesPath **);
int link_cwd(Node *, TesCtx *, TesPath **);
int link_root(Node *, TesCtx *, TesPath **);
int text_exe(Node *, TesCtx *, GString *);
int text_cwd(Node *, TesCtx *, GString *);
int text_root_link(Node *, TesCtx *, GString *);
/* mounts.c */
int text_mounts(Node *, TesCtx *, GString *);
int text_mountinfo(Node *, TesCtx *, GString *);
int text_mountstats(Node *, TesCtx *, GString *);
int open_mounts(Node *, TesCtx *, guint flags, TesFile **out);

#define R_FILE(name_, fn_) \
  { .name = (name_), .mode = S_IFREG | 0444, .text = (fn_) }
