/* SPDX-License-Identifier: Apache-2.0 */
/* The vfs1 generation's private types. It is the simple one: what is found is counted, names are looked up one at a time, and
 * every lock is taken where it is needed.
 *
 *   dirent.c   the tree of dirents and its bounded cache     lookup.c   one name in one directory, asking the filesystem
 *   mount.c    mounts and trees of them                      mountop.c  mount(2), umount(2), move, pivot_root(2)
 *   mountns.c  namespaces, mountinfo                         mountattr.c  remount, mount_setattr(2), detached trees
 *   walk.c     a path, component by component                open.c     open and create-on-open
 *   names.c    create, remove, rename                        path.c     TesPath, names of places
 *
 * Locks, outermost first:
 *   mounts      the mount trees; a moment
 *   renames     one rename at a time, so that directories stand still for it
 *   directory   one for each: its names against change; held while the filesystem is asked about them
 *   tree        reader/writer, one for all dirents: parents, names, children, the cache; a moment, nothing is asked meanwhile */
#pragma once

#include "../vfs-common/rules.h"
#include "../vfs-common/walk.h"
#include <stdio.h>
#include <string.h>
#include <tessera/tessera.h>

typedef struct _V1 V1;
typedef struct _Dirent Dirent;
typedef struct _Mount Mount;

enum {
  D_DELETED = 1 << 0,  /* its name was removed */
  D_DEAD = 1 << 1,     /* a removed directory: it has no names any more. Set under its lock */
  D_ANON = 1 << 2,     /* nameless inode on a disconnected mount */
  D_LINKABLE = 1 << 3, /* O_TMPFILE without O_EXCL, before it has a name: can be given one */
  D_IN_TREE = 1 << 4,  /* found by its name: in the parent's `children`, or the root of a filesystem */
};

/* One name of a file that exists. Lives as long as somebody uses it, has a child of it, or the cache keeps it. */
struct _Dirent {
  gint refs; /* users, children, mounts, and the cache count one each */
  gint used; /* atomic: found since the cache last looked at it */
  gint flags;
  V1 *v;
  TesSuper *super; /* borrowed: the inode holds it */
  TesInode *inode; /* owned; constant */
  TesMutex lock;   /* directory: its names against change */
  /* Tree lock: */
  Dirent *parent; /* counted; NULL: root, or nameless */
  char *name;
  GHashTable *children; /* name -> Dirent, not counted; NULL until there is one */
  GList cached;         /* its place in the cache; data NULL: not there */
  gint
      pins; /* mounts on it or below that need its name kept (directories that are asked every time); atomic */
  gint mounted; /* mounts on it; atomic, written under the mount lock */
};

/* A filesystem at a place. Freed when the last reference goes; membership in a tree counts one. */
struct _Mount {
  gint refs;
  guint id, origin; /* origin: id of the mount it was copied from */
  gulong flags;     /* RULES_MOUNT_FLAGS; atomic */
  V1 *v;
  TesSuper *super; /* owned */
  Dirent *root;    /* owned */
  char *source;
  gboolean anon;    /* disconnected: in V1.anon */
  gint expire_mark; /* MNT_EXPIRE; atomic, taken back by use */
  gint writers;     /* files open for writing through it; atomic */
  /* Written under the mount lock and, but for children and unbindable, the tree lock too; either is enough to look: */
  TesMountNs *ns;       /* NULL: in no tree */
  Mount *parent;        /* NULL: a tree's top. Not counted: a parent goes after its children */
  Dirent *point;        /* where in the parent; counted */
  GHashTable *children; /* Dirent -> Mount, at most one on each place: the next one goes on top of it */
  gboolean unbindable;  /* MS_UNBINDABLE */
};

/* A tree of mounts: a namespace, or (detached) what fsmount(2) and open_tree(2) made and no namespace has yet. */
struct _TesMountNs {
  gint refs;
  V1 *v;
  guint64 id;
  gboolean detached;
  Mount *root;    /* mount lock */
  guint64 event;  /* changes so far; atomic */
  TesQueue queue; /* told about them */
};

typedef struct {
  Mount *mnt;
  Dirent *d;
} Pos; /* counted, both */

typedef struct {
  TesPath base;
  Pos pos;
  gboolean writes; /* of a file open for writing: counted in mnt->writers */
} V1Path;

#define V1_DCACHE_DEFAULT 16384 /* dirents kept that nobody uses */

struct _V1 {
  TesVfs base;
  TesMutex mounts, renames;
  TesRwLock tree;
  GQueue cache; /* Dirent.cached, the latest first; tree lock */
  guint cache_max;
  gint moves;        /* renames and changes of mounts so far; atomic */
  GHashTable *roots; /* TesSuper -> Dirent, not counted; tree lock */
  GHashTable *all;   /* every Mount, not counted; tree lock */
  GHashTable *anon;  /* TesSuper -> Mount, not counted; mount lock */
  gint next_mount_id;
};

static inline V1 *v1_of(TesVfs *v) { return (V1 *)v; }
static inline Pos *v1_pos(TesPath *p) { return &((V1Path *)p)->pos; }
static inline gint d_flags(const Dirent *d) { return g_atomic_int_get(&d->flags); }
static inline void d_set(Dirent *d, gint f) { g_atomic_int_or((guint *)&d->flags, (guint)f); }
static inline void d_clear(Dirent *d, gint f) { g_atomic_int_and((guint *)&d->flags, ~(guint)f); }
/* Names in it come and go by themselves: ask every time. */
static inline gboolean d_asks_always(const Dirent *dir) {
  return (dir->inode->flags & TES_INODE_NO_CACHE) != 0;
}

/* ---- dirent.c ---- */
void v1_tree_init(V1 *);
void v1_forget_all(V1 *); /* the cache lets go of everything */
void v1_tree_clear(V1 *);
/* Outside the tree. inode: transfer full; parent: a reference is taken. */
Dirent *v1_dirent_new(V1 *, Dirent *parent, const char *name, TesInode *);
Dirent *v1_dirent_ref(Dirent *);
void v1_dirent_unref(Dirent *); /* not under the tree lock */
/* The child of that name in the tree, referenced, or NULL. */
Dirent *v1_child(Dirent *dir, const char *name);
Dirent *v1_parent(Dirent *); /* referenced, or NULL */
/* Puts a new dirent into the tree and the cache; the directory's lock is held. */
void v1_enter_tree(Dirent *);
/* Takes it out of both. */
void v1_leave_tree(Dirent *);
/* The directories' locks are held. `victim` (or NULL) had the new name. */
void v1_move(Dirent *, Dirent *new_parent, const char *new_name, Dirent *victim);
void v1_exchange(Dirent *, Dirent *);
/* Root of a filesystem, shared by all its mounts; transfer full. */
Dirent *v1_root_of(V1 *, TesSuper *);
/* A filesystem's last mount went: the cache forgets it. */
void v1_drop_super(V1 *, TesSuper *);
gboolean v1_is_above(const Dirent *above, const Dirent *); /* or the same; under `renames` or the tree lock */
/* Keep and release the names that lead to a mount point; mount lock and tree lock (for writing) held. */
void v1_pin(Dirent *);
void v1_unpin(Dirent *);

/* ---- lookup.c ---- */
/* The dirent of a name (transfer full), or -ENOENT. Takes the directory's lock if it must ask; `cached_only`: -EAGAIN then. */
int v1_lookup(TesCtx *, Dirent *dir, const char *name, gboolean cached_only, Dirent **out);
/* The same with the directory's lock held. */
int v1_lookup_locked(TesCtx *, Dirent *dir, const char *name, Dirent **out);

/* ---- mount.c ---- */
typedef struct {
  GSList *mounts, *dirents; /* references to drop */
} Dead;
Mount *v1_mount_new(V1 *, TesSuper * /* full */, Dirent *root /* full */, const char *source, gulong flags);
Mount *v1_mount_ref(Mount *);
/* No lock held. The end of a use takes MNT_EXPIRE's mark back. */
void v1_mount_unref(Mount *);
void v1_mount_unref_unused(Mount *);
static inline gulong v1_mount_flags(Mount *m) {
  return __atomic_load_n(&m->flags, __ATOMIC_ACQUIRE) | (m->super->read_only ? MS_RDONLY : 0);
}
static inline gboolean v1_read_only(Mount *m) { return (v1_mount_flags(m) & MS_RDONLY) != 0; }
/* Replaces a place by what is mounted there, and by what is mounted on that. */
void v1_cross(V1 *, Pos *);
/* Replaces the root of a mount by where that is mounted; FALSE at the top. */
gboolean v1_step_out(V1 *, Pos *);
/* Is a mount of the namespace (NULL: of any) on it? */
gboolean v1_is_mountpoint(TesMountNs *, Dirent *);
/* May so many more mounts be made, in whatever namespaces? */
gboolean v1_has_room(V1 *, guint more);
/* Is a file of the filesystem open for writing, through whatever mount? */
gboolean v1_super_written(V1 *, const TesSuper *);
/* With the mount lock held: */
GPtrArray *v1_tree(Mount *top); /* its mounts, parents first; not counted; transfer full */
void v1_attach(Mount *top, TesMountNs *, Mount *parent, Dirent *point); /* a tree; takes over its reference */
/* One mount, and a whole tree. What the tree held goes to `dead`, for v1_release() without locks. */
void v1_detach(Mount *, Dead *);
void v1_detach_tree(Mount *top, Dead *);
void v1_set_ns(Mount *top, TesMountNs *); /* of a whole tree */
/* A tree in no namespace, one reference for each mount in it; NULL: too many. recursive: with what is mounted below `root`. */
Mount *v1_copy_tree(Mount *, Dirent *root, gboolean recursive, gboolean unbindable_too);
/* Without it: */
void v1_release(Dead *);

/* ---- mountns.c ---- */
TesMountNs *v1_ns_alloc(V1 *, gboolean detached);
void v1_ns_free(TesMountNs *);
void v1_ns_changed(TesMountNs *);
TesMountNs *v1_ns_new(TesVfs *, TesCtx *, TesSuper *root, const char *source, gulong flags);
TesMountNs *v1_ns_copy(TesVfs *, TesCtx *, TesMountNs *);
TesMountNs *v1_ns_ref(TesMountNs *);
void v1_ns_unref(TesMountNs *);
TesPath *v1_ns_root(TesMountNs *);
guint64 v1_ns_id(TesMountNs *);
TesPath *v1_ns_path(TesMountNs *, TesPath *);
guint64 v1_ns_event(TesMountNs *, TesQueue **);
void v1_mounts(TesVfs *, TesCtx *, TesPath *, void (*)(const TesMountInfo *, gpointer), gpointer);

/* ---- mountop.c, mountattr.c ---- */
gboolean v1_is_ours(TesCtx *, const Mount *); /* in the caller's namespace; mount lock held */
int v1_mount(TesVfs *, TesCtx *, const TesAt *, TesSuper *, const char *source, gulong flags);
int v1_bind(TesVfs *, TesCtx *, TesPath *, const TesAt *, gulong flags);
int v1_clone_tree(TesVfs *, TesCtx *, TesPath *, gboolean recursive, TesFile **);
int v1_move_mount(TesVfs *, TesCtx *, TesPath *from, TesPath *to, guint how);
int v1_umount(TesVfs *, TesCtx *, const TesAt *, int flags);
void v1_detach_all(V1 *, Dirent *); /* whatever is mounted on a removed name, in any namespace */
int v1_pivot_root(TesVfs *, TesCtx *, const TesAt *, const TesAt *);
int v1_remount(TesVfs *, TesCtx *, const TesAt *, gulong flags, const char *opts);
int v1_reconfigure(TesVfs *, TesCtx *, TesSuper *, gulong flags, const char *opts);
int v1_propagation(TesVfs *, TesCtx *, const TesAt *, gulong flags);
int v1_setattr(TesVfs *, TesCtx *, TesPath *, const TesMountAttr *);
int v1_mount_detached(TesVfs *, TesCtx *, TesSuper *, const char *source, gulong flags, TesFile **);
TesFile *v1_detached_file(V1 *, TesCtx *, Mount *top); /* O_PATH; takes over the tree */

/* ---- walk.c ---- */
typedef struct {
  V1 *v;
  TesCtx *ctx;
  guint flags; /* W_* */
  guint64 resolve;
  Pos root, base; /* borrowed: the caller's paths hold them */
  Pos pos;
  gint moves; /* at the start */
  gboolean
      rooted; /* the walk has looked at the root: as on Linux, only then may a link lead there with RESOLVE_NO_XDEV */
  guint links;
  const char *rest; /* what is left, in the caller's text or in buf */
  char *buf;        /* owned: text of a link, with what followed it */
  /* W_PARENT: the last component */
  LastKind last_kind;
  gboolean last_slash;
  char last[TES_NAME_MAX + 1];
} Walk;

/* On success w->pos is where; v1_walk_end() releases it. */
int v1_walk(Walk *, TesVfs *, TesCtx *, const TesAt *, guint flags);
/* Goes on after the caller found that the last component, `d`, is a symbolic link to follow. */
int v1_walk_link(Walk *, Dirent *d);
void v1_walk_end(Walk *);
static inline void v1_pos_clear(Pos *p) {
  if (p->d)
    v1_dirent_unref(p->d);
  if (p->mnt)
    v1_mount_unref(p->mnt);
  *p = (Pos){NULL, NULL};
}

/* ---- open.c, names.c, path.c ---- */
int v1_open(TesVfs *, TesCtx *, const TesAt *, guint flags, guint32 mode, TesFile **);
int v1_open_path(TesVfs *, TesCtx *, TesPath *, guint flags, TesFile **);
int v1_create(TesVfs *, TesCtx *, const TesAt *, const TesNode *, TesPath **);
int v1_remove(TesVfs *, TesCtx *, const TesAt *, gboolean dir);
int v1_rename(TesVfs *, TesCtx *, const TesAt *, const TesAt *, guint flags);
/* Makes `node` under the walk's last name, whose directory is locked; *out: transfer full. -EEXIST if there is one. */
int v1_make(Walk *, const TesNode *node, Dirent **out);

TesPath *v1_path_new(V1 *, Mount * /* full */, Dirent * /* full */);
TesPath *v1_path_ref(TesPath *);
void v1_path_unref(TesPath *);
char *v1_name(TesVfs *, TesPath *root, TesPath *);
TesPath *v1_anon_path(TesVfs *, TesCtx *, TesInode *, const char *name);
gboolean v1_is_deleted(TesPath *);
gboolean v1_parent_name(TesPath *, gboolean (*want)(TesInode *), TesInode **dir, char *name);
/* Name of a place below `root` (NULL: none); `in_super`: inside its own filesystem. g_malloc'ed. */
char *v1_name_of(const Pos *root, const Pos *, gboolean in_super);
