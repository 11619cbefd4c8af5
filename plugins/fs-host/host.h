/* SPDX-License-Identifier: Apache-2.0 */
/* fs-host: a directory (or one file) of the host as a filesystem.
 *
 *   super.c  options, the instance, identities        fds.c    host descriptors within a budget
 *   inode.c  lookup, attributes, links                 names.c  create, remove, rename
 *   file.c   reading, writing, directory streams       map.c    what mmap maps
 *   xattr.c  extended attributes                       meta.c   owner, mode and devices in attributes
 *
 * An inode is known by (device, inode number) of the host and remembers one directory and name by which it was
 * found. Host descriptors are opened from that when needed, one component below the parent's descriptor, checked against
 * the identity, and kept in a least-recently-used list of bounded length. A guest's text never reaches the host as a path
 * of more than one component, and symbolic links are never followed by the host.
 *
 * Lock order: names > descriptors > attributes; map locks are leaves (taken under core/mm's). */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <tessera/tessera.h>
#include <unistd.h>

typedef struct _HostInode HostInode;

typedef struct {
  guint64 dev, ino;
} HostId;

enum { SLOT_READ, SLOT_WRITE, N_SLOTS }; /* directories and links: SLOT_READ only (O_PATH) */

typedef struct {
  int fd; /* -1: not open; stable while pinned */
  guint pins;
  HostInode *owner;
  GList link; /* in the budget's list while open and not pinned */
} HostFd;

typedef struct {
  TesSuper base;
  char *source;
  enum { HOST_CACHE_DEFAULT, HOST_CACHE_SHARED, HOST_CACHE_EXCLUSIVE } cache; /* as asked for */
  gboolean rw, shared;
  gboolean store;      /* the sandbox's own: keeps what the host would not (meta.c) */
  int store_lock;      /* held while it is ours; 0: none */
  gboolean emulate;    /* owner and mode in attributes */
  TesMutex names_lock; /* parent and name of every inode; opening by name */
  TesMutex fd_lock;    /* slots, the identity table, the device table */
  GHashTable *inodes;  /* HostId -> HostInode, borrowed */
  GHashTable *devs;    /* host device -> virtual device */
  GQueue idle;         /* HostFd links, least recently used first */
  guint n_fds, budget;
} HostSuper;

#define HOST_CHUNK (64UL << 20) /* one kernel window on a mapped file */

struct _HostInode {
  TesInode base;
  HostId id;
  HostInode *parent; /* referenced; NULL: root, or nameless. Names lock */
  char *name;
  TesMutex attr_lock; /* guards stx and fresh */
  struct statx stx;
  gboolean fresh;    /* stx may be answered from (exclusive cache) */
  gboolean unlinked; /* names lock */
  gboolean
      hidden; /* an interface of the host's kernel: nothing of it is shown. Set before others see the inode */
  HostFd slot[N_SLOTS];
  /* mapping */
  TesMapSource source;
  gboolean has_source; /* map lock */
  TesMutex map_lock;
  guint map_users; /* references to the source */
  gboolean map_rw; /* the write slot is pinned for the source too */
  gint map_fd[N_SLOTS];
  GPtrArray *windows[N_SLOTS]; /* by chunk number */
};

static inline HostInode *host_inode(TesInode *i) { return (HostInode *)i; }
static inline HostSuper *host_super(const HostInode *i) { return (HostSuper *)i->base.super; }

/* super.c */
extern const TesFsTypeOps host_fs_ops;
/* The inode of an identity found as `name` in `dir` (names lock not held); transfer full. */
int host_inode_get(HostSuper *, HostInode *dir, const char *name, const struct statx *, HostInode **out);
guint64 host_virtual_dev(HostSuper *, guint64 host_dev);
void host_inode_forget(HostInode *); /* takes it out of the identity table: it is being freed */
#define HOST_STATX (STATX_BASIC_STATS | STATX_BTIME)
static inline guint64 host_stx_dev(const struct statx *s) {
  return (guint64)s->stx_dev_major << 32 | s->stx_dev_minor;
}

/* fds.c */
/* Is what `name` leads to on a filesystem that controls or describes the host's kernel (proc, sysfs, cgroups ...)? */
gboolean host_is_kernel_fs(int dirfd, const char *name);
/* Opens (if need be) and pins a slot; returns the descriptor or -errno. -ESTALE: the name leads elsewhere now. A regular file
 * that was not open before has new attributes afterwards. */
int host_fd_get(HostInode *, int slot);
void host_fd_put(HostInode *, int slot);
/* The descriptor if it is open, pinned; else -1. */
int host_fd_get_open(HostInode *, int slot);
/* Gives an empty slot a descriptor (pinned once), or closes it if the slot has one already. */
void host_fd_install(HostInode *, int slot, int fd);
void host_fds_close(HostInode *);
/* Directory descriptor and name of an inode for calls relative to them. Names lock held; put the parent's slot afterwards. */
int host_parent_fd(HostInode *, HostInode **parent);

/* inode.c */
extern const TesInodeOps host_dir_ops, host_file_ops, host_link_ops, host_special_ops;
const TesInodeOps *host_ops_for(guint32 mode, gboolean rw);
void host_attr_set(HostInode *, const struct statx *);
int host_attr_refresh(HostInode *);
void host_attr_stale(HostInode *);
int host_setattr(TesInode *, TesCtx *, const TesSetAttr *);

/* meta.c. Corrects what statx said of `name` below a directory's descriptor, or of the descriptor itself (name NULL); nothing
 * without the option. */
void host_meta_load(HostSuper *, int fd, const char *name, struct statx *);
int host_meta_chown(HostSuper *, int fd, guint32 type, guint32 uid, guint32 gid);
int host_meta_chmod(HostSuper *, int fd, guint32 type, guint32 mode);
int host_meta_mknod(HostSuper *, int dirfd, const char *name, guint32 mode, guint64 rdev);
gboolean host_meta_must_emulate(int dirfd);
gboolean host_meta_own(const char *xattr);

/* file.c, map.c, names.c, xattr.c */
int host_open(TesInode *, TesCtx *, guint flags, TesFile **out);
int host_map(HostInode *, gboolean may_write, TesMapSource **out);
void host_map_invalidate(HostInode *, goffset off);
void host_map_free(HostInode *);
int host_create(TesInode *, TesCtx *, const char *, guint32 mode, TesInode **);
int host_mkdir(TesInode *, TesCtx *, const char *, guint32 mode, TesInode **);
int host_mknod(TesInode *, TesCtx *, const char *, guint32 mode, guint64 rdev, TesInode **);
int host_symlink(TesInode *, TesCtx *, const char *, const char *target, TesInode **);
int host_link(TesInode *, TesCtx *, const char *, TesInode *target);
int host_unlink(TesInode *, TesCtx *, const char *, TesInode *);
int host_rmdir(TesInode *, TesCtx *, const char *, TesInode *);
int host_rename(TesInode *, const char *, TesInode *, const char *, TesInode *, TesInode *, TesCtx *,
                guint flags);
int host_tmpfile(TesInode *, TesCtx *, guint32 mode, TesInode **);
gssize host_getxattr(TesInode *, TesCtx *, const char *, void *, gsize);
gssize host_listxattr(TesInode *, TesCtx *, char *, gsize);
int host_setxattr(TesInode *, TesCtx *, const char *, const void *, gsize, int);
int host_removexattr(TesInode *, TesCtx *, const char *);
