/* SPDX-License-Identifier: Apache-2.0 */
/* fs-tmpfs: files in the sandbox's memory file. inode.c: names and metadata; data.c: contents; xattr.c; super.c: mount. */
#pragma once

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <tessera/tessera.h>

/* File contents come in chunks: 64 KiB below 2 MiB, 2 MiB above, so that small files stay small and large ones map in few pieces. */
#define SMALL_CHUNK (64UL << 10)
#define LARGE_CHUNK (2UL << 20)
#define SMALL_LIMIT LARGE_CHUNK /* a large chunk begins at a multiple of its size */
#define MAX_CHUNK_PAGES (LARGE_CHUNK / TES_PAGE_SIZE)
#define TMPFS_MAX_SIZE G_MAXINT64

typedef struct {
  goffset off;                        /* in the memory file */
  guint64 used[MAX_CHUNK_PAGES / 64]; /* pages that were written: for st_blocks, size= and SEEK_DATA */
} Chunk;

typedef struct {
  TesSuper super;
  TesMutex lock;            /* guards the counters */
  guint64 max_pages, pages; /* 0: no limit */
  guint64 max_inodes, inodes;
  guint64 next_ino;
} Tmpfs;

typedef struct _Node Node;
typedef struct {
  guint64 cookie; /* readdir position */
  char *name;
  Node *node; /* owned reference */
} Entry;

struct _Node {
  TesInode inode;
  TesMutex
      lock; /* INODE: metadata, directory entries; held around reads and writes, so that truncate waits */
  guint32 nlink;
  struct timespec atime, mtime, ctime, btime;
  GHashTable *xattrs; /* name -> GBytes, or NULL */
  /* directories */
  GHashTable *names; /* name -> Entry */
  GTree *order;      /* cookie -> Entry */
  guint64 next_cookie;
  Node *parent; /* borrowed; the root's is itself */
  /* regular files */
  TesMutex data_lock; /* inside the mm's mapping lock: chunk table and size */
  GHashTable *chunks; /* first byte of the chunk's range -> Chunk */
  /* The chunk that was used last, which stays until the file is truncated: node lock. NULL: none */
  Chunk *recent;
  goffset recent_start;
  goffset size; /* written with lock and data_lock held, read with either */
  guint64 n_pages;
  guint seals;
  TesMapSource source;
  /* symbolic links */
  char *target;
};

static inline Tmpfs *tmpfs_of(const Node *n) { return (Tmpfs *)n->inode.super; }
static inline Node *node_of(TesInode *i) { return (Node *)i; }

extern const TesInodeOps tmpfs_inode_ops;
extern const TesFileOps tmpfs_file_ops, tmpfs_dir_ops;
extern const TesFsTypeOps tmpfs_type;

/* inode.c */
Node *node_new(Tmpfs *, TesCtx *, Node *dir, guint32 mode, int *err); /* dir NULL: the root */
void node_now(const Node *, struct timespec *);

/* data.c */
void data_init(Node *);
void data_clear(Node *);
/* Node lock held. Frees or zeroes what lies beyond a smaller size. */
int data_truncate(Node *, goffset size);
int data_open(Node *, TesCtx *, guint flags, TesFile **out);

/* xattr.c */
gssize tmpfs_getxattr(TesInode *, TesCtx *, const char *name, void *value, gsize size);
int tmpfs_setxattr(TesInode *, TesCtx *, const char *name, const void *value, gsize size, int flags);
int tmpfs_removexattr(TesInode *, TesCtx *, const char *name);
gssize tmpfs_listxattr(TesInode *, TesCtx *, char *list, gsize size);
