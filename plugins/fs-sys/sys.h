/* SPDX-License-Identifier: Apache-2.0 */
/* fs-sys: devices, CPUs and settings of the kernel as files (sysfs(5)). tree.c: the tree, made once for each mount from const
 * tables; cpu.c: CPUs, caches and the memory node; net.c: network interfaces; kernel.c: the rest.
 *
 * Nothing here is read from the host's /sys: values are the guest's own (its CPUs, its devices) or constants. */
#pragma once

#include "../fs-common/text.h"

typedef struct _SysNode SysNode;
typedef void (*SysText)(const SysNode *, TesKernel *, GString *out);

/* One line of a table. In `path`, '#' stands for the number of each CPU. Directories above appear by themselves. */
typedef struct {
  const char *path;
  SysText text;       /* a file with computed text */
  const char *fixed;  /* a file with this text and a newline */
  const char *target; /* a symbolic link */
} SysEntry;

struct _SysNode {
  const char *name;
  guint32 mode;
  guint64 ino;
  SysText text;
  char *fixed;  /* text with its newline, or the target of a link */
  guint cpu, n; /* which CPU; which cache */
  SysNode **child;
  guint n_child, cap;
};

typedef struct {
  TesSuper super;
  SysNode *root;
  guint64 last_ino;
  TesTime made;
} SysFs;

/* tree.c: adds a path (parents too) and returns its node; `arg`s are kept in the node. */
SysNode *sys_add(SysFs *, const char *path, const SysEntry *, guint cpu, guint n);
/* All entries of a table that ends with a NULL path. */
void sys_add_table(SysFs *, const SysEntry *);
/* A link `path` -> the directory `to` (both from the root), written relatively. */
void sys_add_link(SysFs *, const char *path, const char *to);

void sys_add_cpus(SysFs *);   /* cpu.c */
void sys_add_net(SysFs *);    /* net.c */
void sys_add_kernel(SysFs *); /* kernel.c */
