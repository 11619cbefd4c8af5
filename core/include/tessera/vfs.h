/* SPDX-License-Identifier: Apache-2.0 */
/* VFS generations: path walking, dentries, mounts and mount namespaces (DESIGN.md decision 4).
 *
 * A generation is a feature of kind "vfs". The core calls it through the functions at the end of this header and reads its
 * TesProfile; it never knows which one runs. */
#pragma once

#include <tessera/fs.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

/* What else differs between generations (FEATURES.md 1.24): the core reads flags, never names. */
typedef struct {
  gsize size;
  gboolean mount_ns_per_process; /* else one for the kernel */
  gboolean start_process;     /* a process created after Start waits for StartProcess; else it runs at once */
  gboolean pid_ns_argument;   /* a created process gets the PID namespace asked for; else the root one */
  gboolean kernel_futexes;    /* shared futexes are coherent across created processes (X8) */
  gboolean ticker_stops_idle; /* CPU clock stops when nothing runs, drives CPU timers (C7-C9) */
  gboolean posix_timers_paused; /* at save (C12) */
  gboolean own_anon_mounts;     /* pipes, memfds and sockets have disconnected mounts of their own (W4-W6) */
  gboolean ipc_lookup_refs;     /* K5 */
  gboolean aio_in_pause;        /* U4 */
  gboolean save_discard_first;  /* order of discarding unsavable mappings (W9) */
  gboolean save_cpuid_first;
  gboolean sockets_table;
} TesProfile;

/* A position in the mount tree (a mount and a dentry). Generations embed it; reference counted. */
struct _TesPath {
  TesVfs *vfs;
  gint refs;
  TesInode *inode; /* of the dentry; NULL never: paths name existing things. Constant */
};

/* How a path shall be resolved: the openat2(2) vocabulary. */
enum {
  TES_AT_NOFOLLOW = 1 << 0,  /* do not follow a final symbolic link */
  TES_AT_EMPTY = 1 << 1,     /* "" means base itself */
  TES_AT_DIRECTORY = 1 << 2, /* must be a directory */
  TES_AT_NO_AUTOMOUNT = 1 << 3,
};
typedef struct {
  TesPath *base;    /* NULL: the context's working directory. Borrowed */
  const char *path; /* kernel memory, NUL-terminated, < TES_PATH_MAX */
  guint flags;      /* TES_AT_* */
  guint64 resolve;  /* RESOLVE_* of openat2(2) */
} TesAt;

/* What create() makes: the type bits of mode say what (regular, directory, fifo, socket, device, link). */
typedef struct {
  guint32 mode; /* with the umask already applied */
  guint64 rdev;
  const char *target; /* symbolic link's text */
  TesPath *link_to;   /* hard link to this; mode is ignored */
} TesNode;

/* One mount, for /proc/PID/mountinfo. Strings are borrowed for the call. */
typedef struct {
  guint id, parent_id;
  guint64 dev;
  const char *root, *mount_point, *type, *source, *options, *super_options, *propagation;
  gboolean super_read_only;
} TesMountInfo;

/* Or'ed to the number of a mount: the one that is never given again (STATX_MNT_ID_UNIQUE). */
#define TES_MOUNT_UNIQUE (1ULL << 32)

/* A change of mounts, mount_setattr(2). */
typedef struct {
  gulong set,
      clear; /* MS_RDONLY, MS_NOSUID ... MS_NOSYMFOLLOW; times: MS_NOATIME, MS_RELATIME, MS_STRICTATIME */
  gulong propagation; /* MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE, or 0 */
  gboolean recursive;
} TesMountAttr;

/* How move() moves. */
enum {
  TES_MOVE_MOUNT,     /* mount(2) with MS_MOVE, move_mount(2) */
  TES_MOVE_SET_GROUP, /* MOVE_MOUNT_SET_GROUP: `to` gets the peer group and master of `from` */
};

typedef struct {
  gsize size;
  const TesProfile *profile;
  TesVfs *(*new_)(TesKernel *, GError **); /* "failed to initialize VFS" (W2) */
  void (*free)(TesVfs *);

  /* -- Mount namespaces. A namespace starts with `root` mounted at "/" (consumes the reference). -- */
  TesMountNs *(*ns_new)(TesVfs *, TesCtx *, TesSuper *root, const char *source, gulong ms_flags);
  TesMountNs *(*ns_copy)(TesVfs *, TesCtx *, TesMountNs *); /* CLONE_NEWNS; optional */
  TesMountNs *(*ns_ref)(TesMountNs *);
  void (*ns_unref)(TesMountNs *);
  TesPath *(*ns_root)(TesMountNs *); /* transfer full */
  guint64 (*ns_id)(TesMountNs *);
  /* Mounts `super` (reference consumed on success) at a path. ms_flags as mount(2). */
  int (*mount)(TesVfs *, TesCtx *, const TesAt *, TesSuper *super, const char *source, gulong ms_flags);
  int (*bind)(TesVfs *, TesCtx *, TesPath *source, const TesAt *target, gulong ms_flags); /* optional */
  int (*remount)(TesVfs *, TesCtx *, const TesAt *, gulong ms_flags, const char *opts);   /* optional */
  int (*propagation)(TesVfs *, TesCtx *, const TesAt *, gulong ms_flags);                 /* optional */
  int (*umount)(TesVfs *, TesCtx *, const TesAt *, int flags);
  int (*pivot_root)(TesVfs *, TesCtx *, const TesAt *new_root, const TesAt *put_old); /* optional */
  void (*mounts)(TesVfs *, TesCtx *, TesPath *root, void (*)(const TesMountInfo *, gpointer), gpointer);

  /* -- Paths. Permission to search is checked on the way, with the context's credentials; at most 40 links. -- */
  int (*walk)(TesVfs *, TesCtx *, const TesAt *, TesPath **out);
  /* As open(2): flags O_*, mode with umask applied (O_CREAT, O_TMPFILE). Checks permission, truncates, opens FIFOs. */
  int (*open)(TesVfs *, TesCtx *, const TesAt *, guint flags, guint32 mode, TesFile **out);
  /* Opens an already resolved path again (/proc/self/fd/N, AT_EMPTY_PATH). */
  int (*open_path)(TesVfs *, TesCtx *, TesPath *, guint flags, TesFile **out);
  int (*create)(TesVfs *, TesCtx *, const TesAt *, const TesNode *, TesPath **out /* or NULL */);
  int (*remove)(TesVfs *, TesCtx *, const TesAt *, gboolean dir);
  int (*rename)(TesVfs *, TesCtx *, const TesAt *from, const TesAt *to, guint flags);
  /* 0 or -EROFS: may things on this mount be changed? flags of the mount: MS_RDONLY | MS_NOEXEC | MS_NOSUID | MS_NODEV. */
  gulong (*mount_flags)(TesPath *);
  guint (*mount_id)(TesPath *);
  /* Fast path, optional: getattr of a path without building a TesPath; with tes_attr_set_place(). */
  int (*getattr)(TesVfs *, TesCtx *, const TesAt *, TesAttr *);
  /* Path as seen from `root`, g_malloc'ed; " (deleted)" appended if removed, "(unreachable)" prefixed if outside. */
  char *(*name)(TesVfs *, TesPath *root, TesPath *);
  TesPath *(*path_ref)(TesPath *);
  void (*path_unref)(TesPath *);
  /* A path on a disconnected mount for an inode without a name (memfd, pipes with own mounts); transfer full. */
  TesPath *(*anon_path)(TesVfs *, TesCtx *, TesInode *, const char *name);
  guint priority; /* the generation with the highest is the default */
  /* The same place in a namespace that ns_copy() made (unshare and clone move root and cwd there); transfer full.
   * A path outside the copied namespace: itself. */
  TesPath *(*ns_path)(TesMountNs *copy, TesPath *);
  /* Its name has been removed (getcwd: ENOENT). */
  gboolean (*is_deleted)(TesPath *);
  /* The directory that holds the place's name and that name, inside its filesystem (mounts do not matter), if want(directory)
   * says so; want is quick and takes no lock. FALSE: not wanted, or none (a filesystem's root). notify.h. Transfer full. */
  gboolean (*parent)(TesPath *, gboolean (*want)(TesInode *dir), TesInode **dir, char name[TES_NAME_MAX + 1]);
  /* -- Appended: MS_MOVE and the mount API of Linux 5.2; optional. -- */
  int (*move)(TesVfs *, TesCtx *, TesPath *from, TesPath *to, guint how /* TES_MOVE_* */);
  /* Options of a filesystem; mounts keep their flags. */
  int (*reconfigure)(TesVfs *, TesCtx *, TesSuper *, gulong ms_flags, const char *opts);
  int (*mount_setattr)(TesVfs *, TesCtx *, TesPath *, const TesMountAttr *);
  /* An O_PATH file of a mount in no namespace, of `super` (consumed on success) or a copy of a place. It is dissolved when the file goes,
   * unless it has been moved into a namespace. */
  int (*mount_detached)(TesVfs *, TesCtx *, TesSuper *super, const char *source, gulong ms_flags,
                        TesFile **out);
  int (*clone_tree)(TesVfs *, TesCtx *, TesPath *, gboolean recursive, TesFile **out);
  /* How often the namespace's mounts have changed; *queue is told POLLPRI | POLLERR of the next time. */
  guint64 (*ns_event)(TesMountNs *, TesQueue **queue);
  gboolean (*is_mount_root)(TesPath *);
} TesVfsOps;

struct _TesVfs {
  const TesVfsOps *ops;
  TesKernel *kernel;
};

TesVfs *tes_kernel_vfs(TesKernel *);
const TesProfile *tes_kernel_profile(TesKernel *);

static inline TesPath *tes_path_ref(TesPath *p) { return p->vfs->ops->path_ref(p); }
static inline void tes_path_unref(TesPath *p) { p->vfs->ops->path_unref(p); }
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesPath, tes_path_unref)
static inline int tes_vfs_walk(TesCtx *ctx, const TesAt *at, TesPath **out) {
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  return v->ops->walk(v, ctx, at, out);
}
static inline int tes_vfs_open(TesCtx *ctx, const TesAt *at, guint flags, guint32 mode, TesFile **out) {
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  return v->ops->open(v, ctx, at, flags, mode, out);
}
/* Path as the context's process sees it; transfer full. */
static inline char *tes_vfs_name(TesCtx *ctx, TesPath *p) {
  return p->vfs->ops->name(p->vfs, tes_ctx_root(ctx), p);
}

/* Mounts a filesystem type found in the registry: what mount(2) and the runtime's flags end in. -ENODEV: unknown type. */
int tes_fs_mount(TesCtx *, const TesAt *, const char *fstype, const char *source, const char *opts,
                 gulong ms_flags);
/* Makes an instance only. */
int tes_fs_new_super(TesCtx *, const char *fstype, const char *source, const char *opts, gulong ms_flags,
                     TesSuper **out);

/* What bounds cached names and what they hold on to (V9, K10: the context's dentry-cache-limiter). */
typedef struct {
  guint max; /* names that nobody uses; 0: no bound but the generation's own */
} TesDcacheLimiter;
static inline TesDcacheLimiter *tes_ctx_dcache_limiter(TesCtx *ctx) {
  return (TesDcacheLimiter *)tes_ctx_get(ctx, TES_CTX_DCACHE_LIMITER);
}
guint tes_kernel_dcache_max(TesKernel *); /* the same number */

/* --trace=path (V3): tells of one lookup in a directory, with the names it was for, separated by "/". `fs`: the type of the filesystem
 * that was asked; NULL: the cache answered. result: how many names were found, or -errno. Costs a call when it is off. */
gboolean tes_trace_path_on(TesKernel *);
void tes_trace_path(TesCtx *, const char *fs, const char *names, int result);

/* Root, working directory and umask of a process (CLONE_FS shares it). */
TesFsInfo *tes_fsinfo_new(TesPath *root /* full */, TesPath *cwd /* full */, guint32 umask);
TesFsInfo *tes_fsinfo_ref(TesFsInfo *);
void tes_fsinfo_unref(TesFsInfo *);
TesFsInfo *tes_fsinfo_copy(TesFsInfo *);
TesPath *tes_fsinfo_root(TesFsInfo *); /* transfer full */
TesPath *tes_fsinfo_cwd(TesFsInfo *);  /* transfer full */
void tes_fsinfo_set_root(TesFsInfo *, TesPath * /* full */);
void tes_fsinfo_set_cwd(TesFsInfo *, TesPath * /* full */);
/* For who has changed another task's root or working directory: drops the old path once the task cannot have it borrowed any more,
 * at once if it runs guest code or blocks. */
void tes_task_drop_path(TesTask *, TesPath * /* full */);
guint32 tes_fsinfo_umask(TesFsInfo *);
guint32 tes_fsinfo_set_umask(TesFsInfo *, guint32); /* returns the old one */

TES_END_DECLS
