/* SPDX-License-Identifier: Apache-2.0 */
/* fs-overlay: one tree over several (Linux's Documentation/filesystems/overlayfs).
 *
 *   super.c   options, instance, numbers        inode.c  lookup, attributes        dir.c    readdir
 *   index.c   lower files with several names
 *   copyup.c  making the upper copy             names.c  create, remove, rename     file.c   contents      xattr.c
 *
 * Layers are inodes of other filesystems, called through their TesInodeOps; the overlay keeps no data of its own. An overlay
 * inode stands on its upper inode, if there is one, and on the lower ones that it hides or merges with. The upper one is
 * set once (copy-up) and everything else about layers is constant, so both are read without a lock.
 *
 * Lock order: rename or copy-up > directory (ancestors first) > the layers' own locks; names and table are leaves. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <tessera/tessera.h>

typedef struct _OvInode OvInode;
typedef struct _OvSnapshot OvSnapshot;

typedef struct {
  TesInode *inode; /* referenced */
  guint layer;     /* index into OvSuper.lower */
} OvLower;

/* A lower file with several names (index.c). */
typedef struct {
  TesInode *lower, *upper; /* referenced; upper: atomic, NULL until it is copied up */
  guint layer;
  gint nlink_delta; /* atomic */
  char kept[32];    /* name in work that keeps the upper, or empty. Table lock */
} OvIndex;

typedef struct {
  TesSuper base;
  TesInode *upper, *work; /* NULL: read-only. Referenced, as are their supers */
  TesInode **lower;       /* topmost first */
  guint n_lower;
  guint depth;            /* overlays on overlays; the sandbox's own root counts as none */
  const char *prefix;     /* "trusted.overlay." or "user.overlay." */
  gboolean redirect;      /* rename merged directories; else EXDEV */
  gboolean private_upper; /* nobody else can reach the upper layer */
  gboolean memory;        /* the upper is gone with the sandbox: nothing needs to reach storage */
  char *options;          /* for mountinfo */
  guint next_temp;        /* names in work; atomic */
  TesMutex rename_lock;
  TesMutex names_lock; /* parent, name, removed of every inode */
  TesMutex table_lock; /* the tables */
  GHashTable *inodes;  /* layer's inode -> OvInode, borrowed both */
  GHashTable *index;   /* lower inode with several names, and its upper inode -> OvIndex */
  GHashTable *origins; /* upper inode number -> overlay's, of what was copied up */
  GArray *devs;        /* device numbers of the layers' inodes: index is what ov_ino_on() mixes in */
} OvSuper;

struct _OvInode {
  TesInode base;
  TesInode *upper; /* atomic; set once, by copy-up under `copy` */
  OvLower *lower;  /* what a directory merges; one for anything else */
  guint n_lower;
  TesMutex copy; /* held while it is copied up */
  TesMutex lock; /* directory: its entries */
  /* names lock: where it was found last; a directory's only place */
  OvInode *parent; /* referenced; NULL: root, nameless */
  char *name;
  gboolean removed; /* parent/name lead nowhere any more */
  gboolean aliased; /* found under a second name */
  gint
      nlink_delta; /* atomic: names gained and lost over the lower inode's count; in `index` if there is one */
  OvIndex *index;  /* atomic */
  char *redirect;  /* directory: absolute path in the lower layers, if not that of the place. Names lock */
  guint64 version;   /* directory: counts changes. Lock */
  OvSnapshot *cache; /* directory: merged list of `version`. Lock */
};

static inline OvInode *ov_inode(TesInode *i) { return (OvInode *)i; }
static inline OvSuper *ov_super(const OvInode *o) { return (OvSuper *)o->base.super; }
static inline TesInode *ov_upper(const OvInode *o) { return __atomic_load_n(&o->upper, __ATOMIC_ACQUIRE); }
/* The inode that answers for this one now. */
static inline TesInode *ov_real(const OvInode *o) {
  TesInode *u = ov_upper(o);
  return u ? u : o->lower[0].inode;
}
static inline gboolean ov_is_whiteout(const TesInode *i) { return S_ISCHR(i->mode) && i->rdev == 0; }

/* super.c */
extern const TesFsTypeOps ov_type;
/* st_ino and d_ino of a layer's inode number on a device of that index. */
guint ov_dev_index(OvSuper *, guint64 dev);
guint64 ov_ino_on(guint dev_index, guint64 ino);
static inline guint64 ov_ino(OvSuper *s, guint64 dev, guint64 ino) {
  return ov_ino_on(ov_dev_index(s, dev), ino);
}
/* The number under which a file of the upper layer has been known before it was copied there, or 0. */
guint64 ov_origin(OvSuper *, guint64 upper_ino);
/* The same, also of what an earlier instance has copied up. */
guint64 ov_known_ino(OvSuper *, TesCtx *, TesInode *upper);

/* inode.c */
extern const TesInodeOps ov_dir_ops, ov_file_ops, ov_link_ops, ov_special_ops;
/* The overlay inode of layers found as `name` in `dir` (both NULL: root or nameless). Consumes the references on upper
 * and lower[].inode, success or not; transfer full. */
int ov_inode_get(OvSuper *, TesCtx *, OvInode *dir, const char *name, TesInode *upper, OvLower *lower,
                 guint n_lower, TesInode **out);
/* Mode and owner, for permission checks, from the layer's inode. */
void ov_sync(OvInode *);
/* Place of an inode; references are the caller's. */
void ov_place(OvInode *, OvInode **parent, char **name);
void ov_set_place(OvInode *, OvInode *parent, const char *name);
void ov_set_removed(OvInode *);
/* rmdir or rename took its last name. */
gboolean ov_is_removed(OvInode *);
int ov_getattr(TesInode *, TesCtx *, TesAttr *);
/* The directory's names change without the VFS that may have it cached: it is to ask. */
void ov_watch_upper(OvSuper *, TesInode *upper);
/* A second key for an inode that got an upper. */
void ov_inode_enter_upper(OvInode *);
/* Directory lock held. Is the name visible in what `dir` has below its upper? */
gboolean ov_lower_has(OvInode *dir, TesCtx *, const char *name);
int ov_child(TesInode *dir, TesCtx *, const char *name, TesInode **out); /* lookup in a layer */
void ov_changed(OvInode *dir);                                           /* directory lock held */

/* index.c */
OvIndex *ov_index_find(OvSuper *, TesInode *lower_or_upper);
/* The entry of a file that needs one, or NULL. */
OvIndex *ov_index_make(OvInode *, TesCtx *);
/* Table lock not held. `kept`: its name in work. */
void ov_index_set_upper(OvSuper *, OvIndex *, TesInode *copy, const char *kept);
/* Names of a file that has a lower inode. */
guint32 ov_index_links(OvInode *, TesCtx *);
void ov_count_link(OvInode *, TesCtx *, gint by);
void ov_index_clear(OvSuper *);

/* copyup.c */
/* Makes sure that there is an upper inode; `size` bytes of data are enough (< 0: all). No overlay lock held. */
int ov_copy_up(OvInode *, TesCtx *, goffset size);
void ov_temp_name(OvSuper *, char name[32]);

/* names.c */
int ov_create(TesInode *, TesCtx *, const char *, guint32, TesInode **);
int ov_mkdir(TesInode *, TesCtx *, const char *, guint32, TesInode **);
int ov_mknod(TesInode *, TesCtx *, const char *, guint32, guint64, TesInode **);
int ov_symlink(TesInode *, TesCtx *, const char *, const char *, TesInode **);
int ov_link(TesInode *, TesCtx *, const char *, TesInode *);
int ov_unlink(TesInode *, TesCtx *, const char *, TesInode *);
int ov_rmdir(TesInode *, TesCtx *, const char *, TesInode *);
int ov_tmpfile(TesInode *, TesCtx *, guint32, TesInode **);
int ov_rename(TesInode *, const char *, TesInode *, const char *, TesInode *, TesInode *, TesCtx *, guint);
/* Removes everything below a layer's directory (what an earlier run left in work). */
void ov_clear_dir(TesInode *dir, TesCtx *, guint depth);

/* dir.c */
int ov_dir_open(OvInode *, TesCtx *, guint flags, TesFile **);
/* Directory lock held. 0 or -ENOTEMPTY. */
int ov_check_empty(OvInode *, TesCtx *);
/* Calls fn for each name of one layer's directory, "." and ".." left out. */
typedef int (*OvNameFunc)(gpointer data, const char *name, guint64 ino, guint type);
int ov_list_layer(TesInode *dir, TesCtx *, OvNameFunc, gpointer);
void ov_snapshot_unref(OvSnapshot *);

/* file.c */
int ov_file_open(OvInode *, TesCtx *, guint flags, TesFile **);
/* Opens a layer's inode as the VFS would; transfer full. */
int ov_open_real(TesInode *, TesCtx *, guint flags, TesFile **);

/* xattr.c */
gssize ov_getxattr(TesInode *, TesCtx *, const char *, void *, gsize);
int ov_setxattr(TesInode *, TesCtx *, const char *, const void *, gsize, int);
int ov_removexattr(TesInode *, TesCtx *, const char *);
gssize ov_listxattr(TesInode *, TesCtx *, char *, gsize);
/* The overlay's own attributes on a layer's inode. get: text or NULL; transfer full. */
char *ov_own_get(OvSuper *, TesInode *real, TesCtx *, const char *name);
int ov_own_set(OvSuper *, TesInode *real, TesCtx *, const char *name, const char *value);
/* Copies what the guest sees of the attributes. */
int ov_copy_xattrs(OvSuper *, TesInode *from, TesInode *to, TesCtx *);
