/* SPDX-License-Identifier: Apache-2.0 */
/* fs-tmpfs: files in the sandbox's memory file. inode.c: nodes and metadata; dir.c: names; data.c: contents; alloc.c: fallocate(2)
 * and seals; xattr.c: attributes and access lists; flags.c: ioctls; super.c: mount options and limits. */
#pragma once

#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <tessera/tessera.h>

/* File contents come in chunks: one page, the rest of the first 64 KiB, 64 KiB below 2 MiB, 2 MiB above, so that small files stay
 * small and large ones map in few pieces. */
#define SMALL_CHUNK (64UL << 10)
#define LARGE_CHUNK (2UL << 20)
#define SMALL_LIMIT LARGE_CHUNK /* a large chunk begins at a multiple of its size */
#define TMPFS_MAX_SIZE G_MAXINT64
#define INODE_SPACE 1024    /* nr_inodes= counts in these; a name, and what attributes take, costs too */
#define SHORT_SYMLINK 128   /* longer ones take a page, as on Linux */
#define POS_END 0x7fffffffL /* a directory that has been read to its end */

typedef struct {
  goffset start; /* in the file */
  goffset at;    /* in the memory file; < 0: absent (the first chunk only) */
  guint n_blank; /* bits set in the second half */
  guint words;   /* of 64 pages */
  /* Pages that count, for st_blocks and size=; then those of them that fallocate(2) made and nobody wrote, for SEEK_DATA. */
  guint64 used[];
} Chunk;

typedef struct {
  TesSuper super;
  guint64 max_pages, pages; /* 0: no limit; atomic */
  guint64 max_inodes;       /* 0: no limit */
  guint64 space;            /* bytes of nr_inodes= in use; atomic */
  guint64 next_ino;         /* atomic */
  /* as mounted, for show_options */
  guint32 mode, uid, gid;
  gboolean size_given, inodes_given, noswap, inode64;
  const char *huge; /* "always", "within_size", "advise", or NULL */
} Tmpfs;

typedef struct _Node Node;
typedef struct _Extra Extra; /* xattr.c */
typedef struct {
  guint64 cookie; /* readdir position: larger is newer */
  Node *node;     /* owned reference */
  char name[];
} Entry;
typedef struct {
  guint64 cookie;
  Entry *entry; /* NULL: removed */
} Slot;

typedef struct {
  GHashTable *names; /* set of Entry.name; NULL: none yet */
  Slot *slots;       /* by rising cookie */
  guint n_slots, room, n_entries;
  guint64 next_cookie;
  Node *parent; /* borrowed; the root's is itself */
} Dir;

typedef struct {
  TesMutex lock; /* "tmpfs data", inside the mm's mapping lock: chunks, size, pages */
  GTree *chunks; /* start -> Chunk, all but the first; NULL: none */
  Chunk first;   /* the first page */
  guint64 first_used[2];
  const Chunk *recent; /* node lock: the chunk used last, which stays until pages go. NULL: none */
  goffset size;        /* written with both locks held, read with either */
  guint64 n_pages;
  guint seals; /* node lock */
  TesMapSource source;
} Data;

struct _Node {
  TesInode inode;
  TesMutex lock; /* INODE: metadata, names; held around reads and writes, so that truncate waits */
  guint32 nlink, fsflags /* FS_*_FL */;
  gboolean linkable; /* O_TMPFILE: it may get a first name */
  struct timespec atime, mtime, ctime, btime;
  Extra *extra;     /* attributes; NULL: none */
  guint acl_charge; /* bytes that its access lists count for */
  union {           /* by type; allocated only as far as the type needs */
    Dir dir;
    Data data;
    char *target;
  };
};

static inline Tmpfs *tmpfs_of(const Node *n) { return (Tmpfs *)n->inode.super; }
static inline Node *node_of(TesInode *i) { return (Node *)i; }
static inline gboolean is_dir(const Node *n) { return S_ISDIR(n->inode.mode); }
static inline gboolean is_reg(const Node *n) { return S_ISREG(n->inode.mode); }

extern const TesInodeOps tmpfs_inode_ops;
extern const TesFileOps tmpfs_file_ops, tmpfs_dir_ops;
extern const TesFsTypeOps tmpfs_type;

/* super.c: limits. FALSE: the filesystem, or what all of them may take of the kernel's memory, is full. */
gboolean space_take(Tmpfs *, guint64 bytes);
void space_give(Tmpfs *, guint64 bytes);
gboolean heap_take(guint64 bytes); /* of the kernel's memory alone */
void heap_give(guint64 bytes);
guint64 pages_take(Tmpfs *, guint64 n, gboolean all); /* how many there were; `all`: n or 0 */
void pages_give(Tmpfs *, guint64 n);

/* inode.c */
Node *node_new(Tmpfs *, TesCtx *, Node *dir, guint32 mode, int *err); /* dir NULL: the root */
void node_now(const Node *, struct timespec *);
void node_modified(Node *); /* mtime and ctime; node lock held */
void change_nlink(Node *, int by);
/* A read through the file: atime, as the mount's flags, the file's and the inode's say. Node lock held. */
void touch_atime(TesFile *, Node *);

/* dir.c */
void dir_init(Node *, Node *parent);
void dir_clear(Node *);
int tmpfs_lookup(TesInode *, TesCtx *, const char *name, TesInode **out);
int dir_add(Node *dir, const char *name, Node *child); /* takes a reference on the child; -ENOENT, -EEXIST */
int tmpfs_link(TesInode *, TesCtx *, const char *name, TesInode *target);
int tmpfs_unlink(TesInode *, TesCtx *, const char *name, TesInode *victim);
int tmpfs_rmdir(TesInode *, TesCtx *, const char *name, TesInode *victim);
int tmpfs_rename(TesInode *odir, const char *oname, TesInode *ndir, const char *nname, TesInode *source,
                 TesInode *target, TesCtx *, guint flags);

/* data.c */
void data_init(Node *);
void data_clear(Node *);
/* Node lock held. Frees or zeroes what lies beyond a smaller size. */
int data_truncate(Node *, goffset size);
void data_set_size(Node *, goffset size);
Chunk *chunk_find(Node *, goffset off); /* data lock held, as for the next ones */
Chunk *chunk_next(Node *, goffset off); /* the first one that begins at or behind off */
Chunk *chunk_make(Node *, goffset off);
gsize chunk_use(Node *, Chunk *, goffset off, gsize len, gboolean blank);
gboolean chunk_is_data(const Chunk *, goffset off);
void chunk_punch(Node *, Chunk *, goffset off, gsize len); /* drops it if nothing is left */
guint64 chunk_count(const Chunk *, goffset off, gsize len);
gsize chunk_size(goffset off);
static inline goffset chunk_end(const Chunk *c) {
  guint64 end = (guint64)c->start + chunk_size(c->start);
  return (goffset)MIN(end, (guint64)G_MAXINT64);
}

/* alloc.c */
int file_fallocate(TesFile *, TesCtx *, int mode, goffset off, goffset len);
int file_seals(TesFile *, TesCtx *, int op, guint seals);
goffset file_seek(TesFile *, TesCtx *, goffset off, int whence);

/* flags.c */
glong tmpfs_ioctl(TesFile *, TesTask *, guint cmd, gulong arg);

/* xattr.c */
gssize tmpfs_getxattr(TesInode *, TesCtx *, const char *name, void *value, gsize size);
int tmpfs_setxattr(TesInode *, TesCtx *, const char *name, const void *value, gsize size, int flags);
int tmpfs_removexattr(TesInode *, TesCtx *, const char *name);
gssize tmpfs_listxattr(TesInode *, TesCtx *, char *list, gsize size);
void extra_free(Node *);
const TesAcl *default_acl(const Node *dir);
/* A new node; directory's lock held. FALSE: no space. */
gboolean inherit_acl(Node *, const TesAcl *dflt, TesCtx *);
void chmod_acl(Node *); /* node lock held; inode.mode is new */
