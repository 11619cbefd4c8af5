/* SPDX-License-Identifier: Apache-2.0 */
/* Filesystems: written once at inode level, serving every VFS generation (DESIGN.md decision 4).
 *
 * The VFS resolves names, checks permissions from the inode's cached identity (mode, uid, gid), caches names, and
 * decides about mounts. A filesystem answers for single inodes. It never sees a path of more than one component
 * unless it offers `walk`. */
#pragma once

#include <sys/stat.h>
#include <sys/vfs.h>
#include <tessera/file.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

typedef struct _TesInodeOps TesInodeOps;
typedef struct _TesSuperOps TesSuperOps;

#define TES_NAME_MAX 255
#define TES_PATH_MAX 4096

struct _TesAttr {
  guint32 mode, nlink, uid, gid, blksize;
  guint64 ino, size, blocks /* of 512 bytes */, dev, rdev;
  struct timespec atime, mtime, ctime, btime;
  guint64 attributes; /* STATX_ATTR_* */
  guint64 mount_id;   /* of the place, said by the VFS as is TES_ATTR_MOUNT_ROOT; 0: none */
};
#define TES_ATTR_MOUNT_ROOT 0x2000 /* STATX_ATTR_MOUNT_ROOT, which older headers lack */
/* What statx(2) tells of a place beside the file's own attributes. */
static inline void tes_attr_set_place(TesAttr *a, guint64 mount_id, gboolean mount_root) {
  a->mount_id = mount_id;
  if (mount_root)
    a->attributes |= TES_ATTR_MOUNT_ROOT;
}

/* What setattr shall change; `valid` says which. Times with tv_nsec UTIME_NOW are "now". The VFS has checked that the
 * caller may do it; clearing set-id bits (`kill_suid`) is decided by the VFS too and comes as a mode change. */
enum {
  TES_SET_MODE = 1 << 0,
  TES_SET_UID = 1 << 1,
  TES_SET_GID = 1 << 2,
  TES_SET_SIZE = 1 << 3,
  TES_SET_ATIME = 1 << 4,
  TES_SET_MTIME = 1 << 5,
  TES_SET_CTIME = 1 << 6,
  TES_SET_IF_RESIZED =
      1
      << 7, /* with SIZE: the same size changes no time where nothing is allocated (truncate(2), unlike ftruncate(2)) */
};
struct _TesSetAttr {
  guint valid;
  guint32 mode, uid, gid;
  goffset size;
  struct timespec atime, mtime, ctime;
};

enum {
  TES_INODE_NO_CACHE =
      1 << 0, /* names in this directory change by themselves: ask lookup every time (proc) */
  TES_INODE_REVALIDATE =
      1 << 1, /* ask revalidate before a cached name in this directory is used (shared host files) */
  TES_INODE_MAGIC_LINK = 1 << 2, /* a symbolic link that `follow` resolves to a place, not to a text */
  TES_INODE_APPEND_ONLY = 1 << 3,
  TES_INODE_IMMUTABLE = 1 << 4,
  TES_INODE_FLEETING = 1 << 5,  /* made anew for each lookup: the number says which file it is (proc) */
  TES_INODE_ACL = 1 << 6,       /* has an access control list: tes_inode_set_acl() */
  TES_INODE_WHITEOUTS = 1 << 7, /* rename in this directory knows RENAME_WHITEOUT */
  TES_INODE_NO_BIND = 1 << 8,   /* cannot be mounted elsewhere: it holds a mount namespace */
};

/* A POSIX access control list (acl(5)); the entries are as in the attribute's value, in the order of their tags. */
typedef enum {
  TES_ACL_USER_OBJ = 1,
  TES_ACL_USER = 2,
  TES_ACL_GROUP_OBJ = 4,
  TES_ACL_GROUP = 8,
  TES_ACL_MASK = 16,
  TES_ACL_OTHER = 32,
} TesAclTag;
typedef struct {
  guint16 tag, perm;
  guint32 id;
} TesAclEntry;
typedef struct {
  guint n;
  TesAclEntry e[];
} TesAcl;
#define TES_ACL_ACCESS "system.posix_acl_access"
#define TES_ACL_DEFAULT "system.posix_acl_default"

/* Embedded first in every inode. mode, uid, gid, rdev are kept current by the filesystem and may be read
 * at any time (permission checks take them from here). */
struct _TesInode {
  const TesInodeOps *ops;
  TesSuper *super; /* the inode holds a reference on it */
  gint refs;       /* private */
  guint32 mode;    /* type and permission bits */
  guint32 uid, gid;
  guint64 ino, rdev;
  guint flags;       /* TES_INODE_* */
  gpointer attached; /* FIFO: its pipe; socket node: its endpoint. Guarded by tes_inode_attach_lock() */
  gpointer locks;    /* private: flock and record locks */
  gint writers;      /* private: open for writing, or < 0 while being executed (ETXTBSY) */
  TesAcl *acl;       /* private: its access list beyond the mode bits, or NULL; read in an epoch */
};

/* Names are NUL-terminated, 1..255 bytes, no '/', never "." or "..". Inodes returned are referenced (transfer full).
 * `ctx` gives the caller (credentials for ownership of new inodes). The VFS holds its own directory lock around create,
 * mkdir, mknod, symlink, link, unlink, rmdir and rename of a directory, but not around lookup. */
struct _TesInodeOps {
  gsize size;
  int (*lookup)(TesInode *dir, TesCtx *, const char *name, TesInode **out); /* -ENOENT */
  int (*create)(TesInode *dir, TesCtx *, const char *name, guint32 mode, TesInode **out);
  int (*mkdir)(TesInode *dir, TesCtx *, const char *name, guint32 mode, TesInode **out);
  int (*mknod)(TesInode *dir, TesCtx *, const char *name, guint32 mode, guint64 rdev, TesInode **out);
  int (*symlink)(TesInode *dir, TesCtx *, const char *name, const char *target, TesInode **out);
  int (*link)(TesInode *dir, TesCtx *, const char *name, TesInode *target);
  int (*unlink)(TesInode *dir, TesCtx *, const char *name, TesInode *victim);
  int (*rmdir)(TesInode *dir, TesCtx *, const char *name, TesInode *victim); /* -ENOTEMPTY */
  /* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT with TES_INODE_WHITEOUTS (others are refused by the VFS). `target` NULL if ndir has no such name. */
  int (*rename)(TesInode *odir, const char *oname, TesInode *ndir, const char *nname, TesInode *source,
                TesInode *target, TesCtx *, guint flags);
  int (*tmpfile)(TesInode *dir, TesCtx *, guint32 mode, TesInode **out); /* O_TMPFILE */
  int (*readlink)(TesInode *, TesCtx *, char **out);                     /* g_malloc'ed text */
  int (*follow)(TesInode *, TesCtx *, TesPath **out);                    /* MAGIC_LINK: a referenced path */
  int (*getattr)(TesInode *, TesCtx *, TesAttr *);
  int (*setattr)(TesInode *, TesCtx *, const TesSetAttr *);
  /* A new description, transfer full: the filesystem calls tes_file_init(); path and inode are filled in by the VFS
   * afterwards. Not asked for FIFOs and sockets. O_TRUNC has been done by setattr. Device nodes: -ENXIO without a driver. */
  int (*open)(TesInode *, TesCtx *, guint flags, TesFile **out);
  /* Extended attributes; value sizes as getxattr(2): size 0 asks for the length; -ERANGE, -ENODATA, -EOPNOTSUPP. */
  gssize (*getxattr)(TesInode *, TesCtx *, const char *name, void *value, gsize size);
  int (*setxattr)(TesInode *, TesCtx *, const char *name, const void *value, gsize size, int flags);
  int (*removexattr)(TesInode *, TesCtx *, const char *name);
  gssize (*listxattr)(TesInode *, TesCtx *, char *list, gsize size);
  /* Filesystem's own permission rule, beside the mode bits (proc); mask MAY_* as access(2) R_OK... 0 or -EACCES. NULL: mode bits. */
  int (*permission)(TesInode *, TesCtx *, guint mask);
  /* REVALIDATE directories: is `name` in `dir` still `child` (NULL: still missing)? 1 yes, 0 no, -errno. */
  int (*revalidate)(TesInode *dir, TesCtx *, const char *name, TesInode *child);
  /* Optional: several components at once. Resolves names[0..n) below dir, filling out[i] (transfer full); stops after a
   * symbolic link or a non-directory or an error. Returns how many were filled (>= 1), or -errno for the first. */
  int (*walk)(TesInode *dir, TesCtx *, const char *const *names, guint n, TesInode **out);
  void (*free)(TesInode *); /* last reference went */
};

void tes_inode_init(TesInode *, TesSuper *, const TesInodeOps *, guint32 mode, guint64 ino);
TesInode *tes_inode_ref(TesInode *);
void tes_inode_unref(TesInode *);
gboolean tes_inode_try_ref(TesInode *);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesInode, tes_inode_unref)
/* One lock for all `attached` pointers. */
void tes_inode_attach_lock(void);
void tes_inode_attach_unlock(void);
/* mask: R_OK | W_OK | X_OK against the context's credentials (capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
 * included, fs ids). 0, -EACCES; W_OK on an immutable inode: -EPERM. */
int tes_inode_permission(TesInode *, TesCtx *, guint mask);
/* By mode bits and capabilities alone: for a filesystem whose own `permission` decides only part of it. */
int tes_inode_mode_permission(TesInode *, TesCtx *, guint mask);
/* Owner, or CAP_FOWNER. */
gboolean tes_inode_owner_or_capable(const TesInode *, TesCtx *);
/* The permission bits left after a change of owner (`chown`) or of contents: set-id bits go, in a change of contents not from who has
 * CAP_FSETID. TRUE if they differ; *mode receives them. */
gboolean tes_inode_drops_setid(TesInode *, TesCtx *, gboolean chown, guint32 *mode);
/* /proc/sys/fs/protected_* (proc_sys_fs(5)). */
typedef enum {
  TES_PROTECTED_SYMLINKS,
  TES_PROTECTED_HARDLINKS,
  TES_PROTECTED_FIFOS,
  TES_PROTECTED_REGULAR,
  TES_PROTECTED_N
} TesProtected;
gint tes_protected(TesProtected);
int tes_set_protected(TesProtected, gint); /* -EINVAL: out of range */

/* ---- Access control lists; a list is freed with g_free() ---- */

/* From the value of an attribute: 0, -EINVAL, -EOPNOTSUPP (another version). *out is NULL for an empty list. */
int tes_acl_parse(const void *value, gsize size, TesAcl **out);
gssize tes_acl_format(const TesAcl *, void *value, gsize size); /* as getxattr(2) */
TesAcl *tes_acl_copy(const TesAcl * /* or NULL */);
/* The permission bits that show a list; TRUE: they say all there is in it. */
gboolean tes_acl_to_mode(const TesAcl *, guint32 *mode);
/* chmod(2) of a file with a list: owner, mask (or group) and others follow the mode. */
void tes_acl_chmod(TesAcl *, guint32 mode);
/* What something new gets from the default list of its directory: restricts the bits of *mode, which no umask has touched, and returns
 * the access list, or NULL if the bits are enough. */
TesAcl *tes_acl_inherit(const TesAcl *dflt, guint32 *mode);
/* Gives the inode a list that its owner's filesystem keeps (transfer full; NULL: none). tes_inode_permission() follows it, everywhere but where
 * the filesystem has a `permission` of its own. A filesystem stacked on another copies the list of the inode below. */
void tes_inode_set_acl(TesInode *, TesAcl *);
TesAcl *tes_inode_get_acl(TesInode *); /* a copy, transfer full */
/* For a filesystem stacked on another: `to` gets the list of the inode below, whenever that may have changed. */
void tes_inode_mirror_acl(TesInode *to, TesInode *from);
/* May the attribute be set or (NULL) removed? 0, 1 (nothing to remove), -EOPNOTSUPP, -EACCES, -EPERM. */
int tes_inode_may_set_acl(TesInode *, TesCtx *, gboolean dflt, const TesAcl *);
/* For tes_inode_permission(): 1 granted, 0 denied, -1 no list. The caller is not the owner. */
int tes_acl_permission(TesInode *, const TesCred *, guint mask);
/* The mode without the bits of the caller's umask; it remembers which those were, until the context's next such call. */
guint32 tes_ctx_apply_umask(TesCtx *, guint32 mode);
/* The bits that the umask took from the mode of the call being served: a directory with a default list gives them back. */
guint32 tes_ctx_umask_took(TesCtx *);

/* Applies ownership rules for a new inode in `dir` (fs ids, set-gid directories) to *uid, *gid, *mode. */
void tes_inode_new_owner(TesInode *dir, TesCtx *, guint32 *mode, guint32 *uid, guint32 *gid);

/* ETXTBSY. Open for writing (the VFS; undone by itself when the file goes) and being executed (the loader). 0 or -ETXTBSY. */
int tes_inode_get_write(TesInode *);
void tes_inode_put_write(TesInode *);
int tes_inode_deny_write(TesInode *);
void tes_inode_allow_write(TesInode *);

struct _TesSuperOps {
  gsize size;
  int (*statfs)(TesSuper *, TesCtx *, struct statfs *); /* from <sys/vfs.h> */
  int (*sync)(TesSuper *);
  char *(*show_options)(TesSuper *); /* ",size=1k" for mountinfo; transfer full */
  void (*free)(TesSuper *);
  /* Optional. The last mount went: drop references that inodes hold on one another (a directory on its entries), which
   * would otherwise keep the super alive through them. Open files may still use single inodes. */
  void (*shutdown)(TesSuper *);
  /* Optional: remount with other options of the filesystem's own. NULL: only flags can change. */
  int (*remount)(TesSuper *, TesCtx *, gulong ms_flags, const char *opts);
};

/* A mounted filesystem instance; embedded first. */
struct _TesSuper {
  const TesSuperOps *ops;
  TesKernel *kernel;
  gint refs;
  const char *type; /* "tmpfs" */
  guint64 dev;      /* st_dev, from tes_kernel_new_dev() */
  guint64 magic;    /* statfs f_type */
  gboolean read_only;
  TesInode *
      root; /* owned by the super through tes_super_set_root(): that reference is not counted against the super */
  gint active; /* private: mounts of it */
};
void tes_super_init(TesSuper *, TesKernel *, const TesSuperOps *, const char *type);
TesSuper *tes_super_ref(TesSuper *);
void tes_super_unref(TesSuper *);
void tes_super_set_root(TesSuper *, TesInode *root /* transfer full */);
/* A VFS generation counts its mounts of a super; the last deactivation calls shutdown. */
void tes_super_activate(TesSuper *);
void tes_super_deactivate(TesSuper *);
guint64 tes_kernel_new_dev(TesKernel *); /* 0:n device numbers */

typedef struct {
  gsize size;
  const char *name;      /* "tmpfs": as mount(2) and /proc/filesystems name it */
  gboolean needs_device; /* without: "nodev" */
  /* Makes an instance (transfer full). `source` and `opts` are what mount(2) was given (opts may be NULL). A filesystem that reaches
   * outside the sandbox must refuse (-EPERM) unless ctx->kind == TES_CTX_SUPERVISOR. */
  int (*mount)(TesCtx *, const char *source, const char *opts, gulong ms_flags, TesSuper **out);
} TesFsTypeOps;

/* Character devices: features of kind "char-device" named "MAJOR:MINOR" (decimal). Whatever filesystem a device node lies on,
 * opening it ends here; host devices are never opened. */
typedef struct {
  gsize size;
  int (*open)(TesKernel *, TesCtx *, guint64 rdev, guint flags, TesFile **out); /* transfer full */
} TesDeviceOps;
/* What the VFS calls for a device node that its filesystem does not open itself; -ENXIO: no plugin has that device. */
int tes_device_open(TesInode *, TesCtx *, guint flags, TesFile **out);

/* Splits "a=b,c" at commas: calls fn(key, value or NULL); its -errno ends it. */
int tes_mount_opts_parse(const char *opts, int (*fn)(const char *key, const char *value, gpointer),
                         gpointer data);

TES_END_DECLS
