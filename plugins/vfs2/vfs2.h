/* SPDX-License-Identifier: Apache-2.0 */
/* The vfs2 generation's private types.
 *
 *   dcache.c   dentries: hash, references, bounded cache         lookup.c   one name in one directory, asking the filesystem
 *   mount.c    mounts and trees of them                          mountop.c  mount(2), umount(2), move, pivot_root(2)
 *   mountns.c  namespaces, mountinfo                             mountattr.c  remount(2), propagation types, detached trees
 *   propagate.c  peer groups, and what changes cause in them
 *   walk.c     whole-path walk                                   open.c     open and create-on-open
 *   names.c    create, remove, rename                            path.c     TesPath, names of places
 *
 * A walk first runs without locks and references inside one epoch, validated at its end by `seq` (changed by every rename
 * and every change of the mount tree). When it must sleep or misses the cache it takes references on where it
 * stands and goes on with references. Lock order: mount > rename > directory lock (ancestors first) > dcache. */
#pragma once

#include "../vfs-common/walk.h"
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <tessera/tessera.h>

typedef struct _V2 V2;
typedef struct _Dentry Dentry;
typedef struct _Mount Mount;

enum {
  D_HASHED = 1 << 0,
  D_DELETED = 1 << 1,  /* its name was removed */
  D_DEAD = 1 << 2,     /* a removed directory: nothing can be made in it. Set under its own lock */
  D_ACCESSED = 1 << 3, /* used since the shrinker last looked */
  D_ROOT = 1 << 4,     /* root of a super */
  D_ANON = 1 << 5,     /* nameless inode on a disconnected mount */
  D_LINKABLE = 1 << 6, /* O_TMPFILE without O_EXCL, before it has a name: can be given one */
};

struct _Dentry {
  gint refs;   /* a child counts; -1: being freed. 0 is alive while hashed */
  guint flags; /* D_*; atomic */
  guint hash;
  guint mounted; /* mounts on it; atomic, written under the mount lock */
  guint
      pins; /* mounts further down that keep this name (below NO_CACHE directories); also counted in mounted. Mount lock */
  Dentry *hnext;                    /* readers: epoch; writers: dcache lock */
  Dentry *parent;                   /* counted; NULL: root. Changes in a rename */
  char *name;                       /* readers: epoch; replaced by a rename */
  TesInode *inode;                  /* owned; NULL: negative. Set once, under the parent's lock */
  TesSuper *super;                  /* borrowed: the inode, or the parent's, holds it */
  char *link;                       /* text of a symbolic link once read */
  TesMutex lock;                    /* directory: guards its entries against change */
  Dentry *children, *snext, *sprev; /* hashed ones; dcache lock */
  Dentry *lnext, *lprev;            /* all hashed dentries in clock order; dcache lock */
  V2 *v;
};

/* Mounts that see each other's changes (mount_namespaces(7)): the members are peers, the slaves receive only. Never without members.
 * Mount lock. */
typedef struct {
  guint id; /* the N of "shared:N" */
  guint mark;
  Mount *members, *slaves;
} Group;

struct _Mount {
  gint refs; /* membership in a tree counts one; 0: freed after the epoch */
  guint id;
  gulong flags; /* MS_* as rules_mount_flags() leaves them; atomic */
  V2 *v;
  TesSuper *super; /* owned */
  Dentry *root;    /* owned */
  char *source;
  guint origin; /* id of the mount it was copied from (ns_copy) */
  gboolean anon;
  gint expire_mark;     /* MNT_EXPIRE; atomic, taken back by use */
  gint writers;         /* files open for writing through it; atomic */
  Mount *anext, *aprev; /* all mounts; mount lock */
  /* mount lock; parent and mountpoint are read in epochs, ns too (compared only) */
  TesMountNs *ns; /* NULL: in no tree */
  Mount *parent;
  Dentry *mountpoint; /* counted */
  Mount *hnext;
  Mount *pnext, **plink; /* others on dentries of the same bucket, perhaps very many; dcache lock */
  Mount *children, *last, *snext, *sprev; /* in the order they came */
  /* propagation; mount lock */
  Group *group, *master;
  Mount *gnext, *gprev; /* group's members */
  Mount *mnext, *mprev; /* master's slaves */
  gboolean unbindable;
  gboolean doomed, candidate; /* while an umount spreads */
};

/* A tree of mounts: a namespace, or (detached) what fsmount(2) and open_tree(2) made and no namespace has yet. */
struct _TesMountNs {
  gint refs;
  V2 *v;
  guint64 id;
  gboolean detached;
  Mount *root;    /* mount lock */
  guint n;        /* mounts; mount lock */
  guint pending;  /* more that a propagation is about to bring; mount lock */
  guint64 event;  /* changes so far; atomic */
  TesQueue queue; /* told about changes */
};

typedef struct {
  TesPath base;
  Mount *mnt;
  Dentry *d;
  gboolean writes; /* of a file open for writing: counted in mnt->writers */
} V2Path;

/* A place, counted or borrowed as its user says. */
typedef struct {
  Mount *mnt;
  Dentry *d;
} Pos;

#define V2_HASH_BITS 14
#define V2_MOUNT_BUCKETS 4096
#define V2_MOUNTS_MAX 100000   /* in a namespace: fs.mount-max */
#define V2_MOUNTS_TOTAL 300000 /* in the kernel */
#define V2_DCACHE_MAX 16384    /* hashed dentries, unless --dcache says so; more only while they are in use */

struct _V2 {
  TesVfs base;
  TesMutex mount_lock, rename_lock, dcache_lock;
  guint seq; /* odd while a rename or a mount change is published; written under the dcache lock */
  Dentry **buckets;
  Dentry *clock; /* ring of hashed dentries */
  guint n_hashed;
  GHashTable *roots; /* TesSuper -> Dentry, borrowed; dcache lock */
  guint dcache_max;
  gboolean tracing; /* --trace=path */
  Mount *mounts[V2_MOUNT_BUCKETS];
  Mount *places[V2_MOUNT_BUCKETS]; /* by mountpoint; dcache lock */
  Mount *all;                      /* mount lock, as all below */
  guint n_mounts, next_group_id, mark;
  GHashTable *anon; /* TesSuper -> Mount, borrowed; mount lock */
  guint next_mount_id;
};

static inline V2 *v2_of(TesVfs *v) { return (V2 *)v; }
static inline V2Path *v2_path(TesPath *p) { return (V2Path *)p; }
#define LOAD(p) __atomic_load_n(&(p), __ATOMIC_ACQUIRE)
#define STORE(p, x) __atomic_store_n(&(p), (x), __ATOMIC_RELEASE)
static inline guint d_flags(const Dentry *d) { return __atomic_load_n(&d->flags, __ATOMIC_SEQ_CST); }
static inline void d_set(Dentry *d, guint f) { __atomic_fetch_or(&d->flags, f, __ATOMIC_SEQ_CST); }
static inline void d_clear(Dentry *d, guint f) { __atomic_fetch_and(&d->flags, ~f, __ATOMIC_SEQ_CST); }
static inline TesInode *d_inode(const Dentry *d) { return LOAD(d->inode); }

/* ---- dcache.c ---- */
void v2_dcache_init(V2 *);
void v2_dcache_clear(V2 *);
/* Begin and end of a change that lock-free walkers must notice; dcache lock held. */
void v2_seq_begin(V2 *);
void v2_seq_end(V2 *);
static inline guint v2_seq_read(const V2 *v) { return LOAD(v->seq); }
/* FALSE when nothing changed since `seq` was read (and it was even). */
static inline gboolean v2_seq_changed(const V2 *v, guint seq) {
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  return (seq & 1) || __atomic_load_n(&v->seq, __ATOMIC_RELAXED) != seq;
}
/* A dentry outside the cache with one reference. inode: transfer full or NULL; parent: a reference is taken. */
Dentry *v2_dentry_new(V2 *, TesSuper *, Dentry *parent, const char *name, gsize len, TesInode *inode);
Dentry *v2_dentry_ref(Dentry *);
gboolean v2_dentry_try_ref(Dentry *);
void v2_dentry_unref(Dentry *);
/* The cached dentry of a name, negative ones included; borrowed, in an epoch. */
Dentry *v2_dcache_find(V2 *, Dentry *parent, const char *name, gsize len);
Dentry *v2_dcache_find_ref(V2 *, Dentry *parent, const char *name, gsize len);
void v2_dcache_add(Dentry *);
/* Adds a chain d[0] <- d[1] <- ... of new dentries in one step, so that none is found before its children are there. */
void v2_dcache_add_chain(Dentry **, guint n);
/* Takes it out of the cache; the caller holds a reference. */
void v2_dcache_drop(Dentry *);
void v2_dcache_prune_children(Dentry *);
/* Forgets every unused dentry of a super whose last mount went. */
void v2_dcache_drop_super(V2 *, TesSuper *);
void v2_dcache_move(Dentry *, Dentry *new_parent, const char *new_name, Dentry *victim /* or NULL */);
void v2_dcache_exchange(Dentry *, Dentry *);
/* Root dentry of a super, shared by all its mounts; transfer full. */
Dentry *v2_dcache_root(V2 *, TesSuper *);

/* ---- lookup.c ---- */
/* The dentry of a name in a directory (transfer full), perhaps negative. `more` (or NULL) is the text that follows, for
 * filesystems that resolve several components at once. Takes the directory's lock. */
int v2_lookup(V2 *, TesCtx *, Dentry *dir, const char *name, gsize len, const char *more, Dentry **out);
/* The same with the directory's lock held. */
int v2_lookup_locked(V2 *, TesCtx *, Dentry *dir, const char *name, gsize len, Dentry **out);
/* Makes a negative dentry positive; parent lock held; inode: transfer full. */
void v2_instantiate(Dentry *negative, TesInode *);
gboolean v2_dir_is_cached(Dentry *dir);

/* ---- mount.c ---- */
Mount *v2_mount_new(V2 *, TesSuper * /* full */, Dentry *root /* full */, const char *source, gulong flags);
Mount *v2_mount_ref(Mount *);
gboolean v2_mount_try_ref(Mount *);
void v2_mount_unref(Mount *);
/* The same without taking back an MNT_EXPIRE mark. */
void v2_mount_unref_unused(Mount *);
static inline void v2_mount_used(Mount *m) {
  if (G_UNLIKELY(__atomic_load_n(&m->expire_mark, __ATOMIC_RELAXED)))
    __atomic_store_n(&m->expire_mark, 0, __ATOMIC_RELAXED);
}
/* The mount on (parent, dentry), or NULL; in an epoch, or under the mount lock. */
Mount *v2_mount_find(V2 *, Mount *parent, Dentry *);
/* Replaces (mnt, d) by what is on top there. Mount lock held. */
void v2_mount_top(V2 *, Pos *);
/* Is a mount of the namespace on it? Takes the dcache lock. */
gboolean v2_is_mountpoint_in(TesMountNs *, Dentry *);
/* Some mount on the dentry, in whatever tree; mount lock held. */
Mount *v2_mount_at_place(Dentry *);
/* All below have the mount lock held. */
/* Next in a tree, parents first; NULL after the last. */
Mount *v2_mount_next(const Mount *, const Mount *top);
guint v2_tree_size(const Mount *top);
gboolean v2_tree_below(const Dentry *, const Dentry *root);
gboolean v2_pos_below(const Pos *, const Pos *root);
/* Puts a tree on a place nothing is mounted on, or moves it there in one step; where it is new the mount's own reference becomes the
 * tree's. */
void v2_mount_attach(Mount *, TesMountNs *, Mount *parent, Dentry *mountpoint);
/* Gives a tree without a parent to a namespace (or to none), and counts it there. */
void v2_tree_set_ns(Mount *top, TesMountNs *);
/* Takes a mount with what is on it from its parent; the caller gets the tree's reference. */
void v2_mount_unlink(Mount *);
/* Mounts that are or will be in trees are listed and counted. */
void v2_mount_enlist(Mount *);
void v2_mount_retire(Mount *);
/* Takes a tree apart; the trees' references go to `dead`, released by v2_mounts_release() without the lock. */
void v2_tree_dissolve(Mount *top, GSList **dead);
void v2_mounts_release(GSList *dead);
enum {
  COPY_TREE = 1 << 0,       /* with what is mounted below `root` */
  COPY_UNBINDABLE = 1 << 1, /* unbindable ones too (namespaces); else they are left out */
  COPY_SLAVE = 1 << 2,      /* copies receive from the originals, which are shared; else they join them */
  COPY_SHARE = 1 << 3,      /* and form groups of their own */
};
/* A copy in no namespace, with one reference on each; NULL: too many mounts. */
Mount *v2_tree_copy(Mount *, Dentry *root, guint how);
/* Where a mount is attached, referenced; FALSE at a tree's top. Takes the mount lock. */
gboolean v2_mount_above(Mount *, Mount **parent, Dentry **mountpoint);
static inline gulong v2_mount_flags(Mount *m) { return __atomic_load_n(&m->flags, __ATOMIC_ACQUIRE); }
static inline gboolean v2_mount_read_only(Mount *m) {
  return (v2_mount_flags(m) & MS_RDONLY) || m->super->read_only;
}
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

/* ---- propagate.c: mount lock held ---- */
void v2_group_join(Mount *, Group *);
Group *v2_group_new(Mount *);
void v2_slave_of(Mount *, Group * /* or NULL */);
/* MS_SHARED, MS_PRIVATE, MS_SLAVE or MS_UNBINDABLE. */
void v2_set_propagation(Mount *, gulong type);
/* Attaches a tree (in no namespace yet, or to be moved) and whatever that causes among peers and slaves of `parent`. Nothing has happened
 * on failure: -ENOSPC. */
int v2_attach_tree(V2 *, Mount *tree, Mount *parent, Dentry *mountpoint, GSList **dead);
/* Would umount(2) of it meet somebody who uses a mount that goes with it? */
gboolean v2_umount_busy(Mount *);
/* Takes the tree away, here and wherever that propagates to. */
void v2_umount_tree(Mount *top, GSList **dead);
/* "shared:1 master:2"; root: of the process that asks. g_malloc'ed. */
char *v2_propagation_text(Mount *, const Pos *root);

/* ---- mountop.c, mountattr.c, mountns.c ---- */
int v2_op_mount(TesVfs *, TesCtx *, const TesAt *, TesSuper *, const char *source, gulong flags);
int v2_op_bind(TesVfs *, TesCtx *, TesPath *, const TesAt *, gulong flags);
int v2_op_move(TesVfs *, TesCtx *, TesPath *from, TesPath *to, guint flags);
int v2_op_umount(TesVfs *, TesCtx *, const TesAt *, int flags);
int v2_op_pivot_root(TesVfs *, TesCtx *, const TesAt *, const TesAt *);
/* After a name was removed: what others have mounted on it goes. */
void v2_detach_mounts(V2 *, Dentry *);
/* May the context change this mount: is it in the caller's namespace? Mount lock held. */
gboolean v2_mount_is_ours(TesCtx *, const Mount *);
int v2_op_remount(TesVfs *, TesCtx *, const TesAt *, gulong flags, const char *opts);
int v2_op_reconfigure(TesVfs *, TesCtx *, TesSuper *, gulong flags, const char *opts);
int v2_op_propagation(TesVfs *, TesCtx *, const TesAt *, gulong flags);
int v2_op_setattr(TesVfs *, TesCtx *, TesPath *, const TesMountAttr *);
int v2_op_detached(TesVfs *, TesCtx *, TesSuper *, const char *source, gulong flags, TesFile **);
int v2_op_clone_tree(TesVfs *, TesCtx *, TesPath *, gboolean recursive, TesFile **);
/* The O_PATH file of a tree in no namespace; takes over its reference. */
TesFile *v2_detached_file(V2 *, TesCtx *, Mount *);
void v2_op_mounts(TesVfs *, TesCtx *, TesPath *root, void (*)(const TesMountInfo *, gpointer), gpointer);
guint64 v2_op_ns_event(TesMountNs *, TesQueue **);
void v2_ns_changed(TesMountNs *);
TesMountNs *v2_ns_alloc(V2 *, gboolean detached);
void v2_ns_free(TesMountNs *);
TesMountNs *v2_op_ns_new(TesVfs *, TesCtx *, TesSuper *, const char *source, gulong flags);
TesMountNs *v2_op_ns_copy(TesVfs *, TesCtx *, TesMountNs *);
TesMountNs *v2_op_ns_ref(TesMountNs *);
void v2_op_ns_unref(TesMountNs *);
TesPath *v2_op_ns_root(TesMountNs *);
guint64 v2_op_ns_id(TesMountNs *);
TesPath *v2_op_ns_path(TesMountNs *, TesPath *);

/* ---- walk.c ---- */
typedef struct {
  V2 *v;
  TesCtx *ctx;
  guint flags; /* W_* */
  guint64 resolve;
  Pos root, base;    /* borrowed: the caller's paths hold them */
  Pos pos;           /* counted unless lockless */
  gboolean lockless; /* in an epoch, nothing is counted */
  gboolean
      rooted; /* the walk has looked at the root: as on Linux, only then may a link lead there with RESOLVE_NO_XDEV */
  guint seq; /* of the start */
  guint links;
  const char *rest; /* what is left to walk, in the caller's text or in buf */
  char *buf;        /* owned: text of links, with what followed them */
  GString *seen;    /* --trace=path: names that the cache answered in one go */
  /* W_PARENT: the last component */
  char last[TES_NAME_MAX + 1];
  gsize last_len;
  LastKind last_kind;
  gboolean last_slash;
} Walk;

/* Walks as far as `flags` say. On success w->pos is where; v2_walk_end() releases it. May end lock-free only if
 * `allow_lockless` was given and w->lockless is set. */
int v2_walk(Walk *, V2 *, TesCtx *, const TesAt *, guint flags, gboolean allow_lockless);
/* Goes on after the caller has looked at the last component `d` (of w->pos) and found a symbolic link to follow. */
int v2_walk_link(Walk *, Dentry *d);
void v2_walk_end(Walk *);
/* Replaces (mnt, d) by what is mounted there. Both are counted. */
void v2_cross_mounts(V2 *, Pos *);
#define v2_at_flags walk_flags
static inline void v2_pos_unref(Pos *p) {
  if (p->d)
    v2_dentry_unref(p->d);
  if (p->mnt)
    v2_mount_unref(p->mnt);
  p->d = NULL;
  p->mnt = NULL;
}

/* ---- open.c, names.c, path.c ---- */
int v2_op_open(TesVfs *, TesCtx *, const TesAt *, guint flags, guint32 mode, TesFile **);
int v2_op_open_path(TesVfs *, TesCtx *, TesPath *, guint flags, TesFile **);
int v2_op_create(TesVfs *, TesCtx *, const TesAt *, const TesNode *, TesPath **);
int v2_op_remove(TesVfs *, TesCtx *, const TesAt *, gboolean dir);
int v2_op_rename(TesVfs *, TesCtx *, const TesAt *, const TesAt *, guint flags);
/* May names be added to the directory? Its lock is held. */
int v2_may_create(TesCtx *, Mount *, Dentry *dir);

TesPath *v2_path_new(V2 *, Mount * /* full */, Dentry * /* full */);
TesPath *v2_op_path_ref(TesPath *);
void v2_op_path_unref(TesPath *);
char *v2_op_name(TesVfs *, TesPath *root, TesPath *);
TesPath *v2_op_anon_path(TesVfs *, TesCtx *, TesInode *, const char *name);
gboolean v2_op_is_deleted(TesPath *);
gboolean v2_op_parent(TesPath *, gboolean (*want)(TesInode *), TesInode **dir, char *name);
/* Name of a place below `root`; `top`: name inside its own mount's super. g_malloc'ed. */
char *v2_name_of(V2 *, const Pos *root, const Pos *p, gboolean in_super);
