/* SPDX-License-Identifier: Apache-2.0 */
/* The FUSE client: a filesystem whose answers come from a process of the sandbox that reads requests from /dev/fuse and writes
 * replies (fuse(4), <linux/fuse.h>; FEATURES.md W11).
 *
 *   conn.c   a connection: requests, replies, waiting, its end      dev.c    the file /dev/fuse, from the server's side
 *   inode.c  nodes: lookup, attributes, links, xattrs               names.c  making, removing and renaming names
 *   file.c   open files and directories, contents, mapping          super.c  mount options, instances, the plugin
 *
 * The server is as little trusted as any guest: lengths, names, modes and node numbers are checked, a reply is copied in once,
 * and a client that waits can always be killed. A connection ends when the last descriptor of its server is closed or the last mount
 * goes; who waits then gets ECONNABORTED, who asks later ENOTCONN. Locks: node table > connection. */
#pragma once

#include <linux/fuse.h>
#include <string.h>
#include <tessera/tessera.h>

#define FUSE_OUR_MINOR 31           /* of protocol 7, what is spoken here */
#define FUSE_MAX_TRANSFER (1 << 20) /* bytes of data in one request or reply */
#define FUSE_DEFAULT_PAGES 32
#define FUSE_MAX_UNWAITED 1024 /* replies that are awaited for nobody; of further ones nothing is kept */

typedef struct _FuseConn FuseConn;
typedef struct _FuseInode FuseInode;

/* A request on its way. The client and the connection's lists hold references. */
typedef struct _FuseRequest {
  gint refs;
  guint64 unique;
  guint32 opcode;
  guint8 *out; /* header, argument, data */
  gsize out_len;
  gboolean wants_reply, waited; /* waited: a client waits for the reply */
  /* connection lock */
  gboolean sent, answered;
  int error;      /* of the reply: 0 or -errno */
  GBytes *reply;  /* what follows the reply's header */
  TesQueue queue; /* the client waits here */
  GList link;     /* in conn->pending, or conn->sent */
} FuseRequest;

struct _FuseConn {
  gint refs;
  TesKernel *kernel;
  TesMutex lock;
  GQueue pending;     /* requests that the server has not read */
  GHashTable *sent;   /* unique -> FuseRequest that it has not answered */
  TesQueue to_server; /* readers of /dev/fuse */
  guint unwaited;     /* of them those for which no client waits */
  guint64 next_unique;
  gboolean mounted, ready, dead;
  TesQueue started; /* waits for ready */
  /* Set by the reply to INIT, before ready. */
  guint32 minor, max_write, init_flags;
  guint32 max_read; /* mount option */
  guint64 no_calls; /* bit n: opcode n was answered with ENOSYS */
};

/* ---- conn.c ---- */
FuseConn *fuse_conn_new(TesKernel *);
FuseConn *fuse_conn_ref(FuseConn *);
void fuse_conn_unref(FuseConn *);
/* Ends it: every waiting client gets -ECONNABORTED, the server ENODEV. */
void fuse_conn_abort(FuseConn *);
/* Sends INIT; the reply is dealt with when it comes. */
void fuse_conn_start(FuseConn *);

/* The argument of a request: pieces that are put one behind the other. */
typedef struct {
  const void *data;
  gsize len;
} FusePiece;
#define FUSE_ARG(x) \
  { &(x), sizeof(x) }
#define FUSE_NAME(s) \
  { (s), strlen(s) + 1 }

/* Sends a request and waits for the reply: 0 with *reply (transfer full; NULL when none is wanted) of at least `least` bytes, or
 * -errno: the server's, -ENOTCONN, -EINTR (killed), -EIO (a reply that is too short or too long). */
int fuse_call(FuseConn *, TesCtx *, guint32 opcode, guint64 node, const FusePiece *, guint n, gsize least,
              GBytes **reply);
/* Sends one whose reply nobody waits for; wants_reply: there will be one. */
void fuse_post(FuseConn *, TesCtx *, guint32 opcode, guint64 node, const FusePiece *, guint n,
               gboolean wants_reply);
gboolean fuse_lacks(FuseConn *, guint32 opcode);
/* -ENOSYS is remembered: the server does not have that call, and will not be asked again. */
int fuse_call_optional(FuseConn *, TesCtx *, guint32 opcode, guint64 node, const FusePiece *, guint n,
                       gsize least, GBytes **reply);

void fuse_request_unref(FuseRequest *);
/* For dev.c. The next request (transfer full), or NULL; *room: bytes that fit. -EINVAL if it does not fit. */
int fuse_conn_take(FuseConn *, gsize room, FuseRequest **);
/* A reply; `data` is what followed the header. */
int fuse_conn_answer(FuseConn *, const struct fuse_out_header *, GBytes *data);
gboolean fuse_conn_is_dead(FuseConn *);

/* ---- dev.c ---- */
int fuse_dev_open(TesKernel *, TesCtx *, guint64 rdev, guint flags, TesFile **out);
/* The connection of an open /dev/fuse (transfer full), or NULL. */
FuseConn *fuse_dev_conn(TesFile *);

/* ---- inode.c ---- */
typedef struct {
  TesSuper super;
  FuseConn *conn;
  TesMutex lock;     /* nodes */
  GHashTable *nodes; /* node number -> FuseInode, borrowed */
  guint32 user, group;
  gboolean allow_other, default_permissions;
  char *options; /* for mountinfo */
} FuseSuper;

struct _FuseInode {
  TesInode inode;
  guint64 node, generation;
  TesMutex lock;   /* the rest */
  guint64 lookups; /* the server counts them until FORGET */
  struct fuse_attr attr;
  TesTime attr_until, name_until; /* monotonic */
  /* file.c: a copy of the contents for mappings */
  TesMapSource *map;
  guint64 map_size;
  struct timespec map_mtime;
};

static inline FuseInode *fuse_inode(TesInode *i) { return (FuseInode *)i; }
static inline FuseSuper *fuse_super(TesInode *i) { return (FuseSuper *)i->super; }
static inline FuseConn *fuse_conn(TesInode *i) { return fuse_super(i)->conn; }

/* The inode of an entry that the server named (transfer full). -EIO for one that cannot be. */
int fuse_inode_get(FuseSuper *, const struct fuse_entry_out *, TesInode **out);
FuseInode *fuse_inode_root(FuseSuper *, guint32 mode);
void fuse_attr_stale(FuseInode *);
/* Attributes no older than the server allows. */
int fuse_attr_refresh(FuseInode *, TesCtx *, gboolean force);
guint64 fuse_size(FuseInode *);

/* names.c */
int fuse_mknod(TesInode *, TesCtx *, const char *, guint32 mode, guint64 rdev, TesInode **);
int fuse_create(TesInode *, TesCtx *, const char *, guint32 mode, TesInode **);
int fuse_mkdir(TesInode *, TesCtx *, const char *, guint32 mode, TesInode **);
int fuse_symlink(TesInode *, TesCtx *, const char *, const char *target, TesInode **);
int fuse_link(TesInode *, TesCtx *, const char *, TesInode *target);
int fuse_unlink(TesInode *, TesCtx *, const char *, TesInode *victim);
int fuse_rmdir(TesInode *, TesCtx *, const char *, TesInode *victim);
int fuse_rename(TesInode *, const char *, TesInode *, const char *, TesInode *, TesInode *, TesCtx *,
                guint flags);
gssize fuse_getxattr(TesInode *, TesCtx *, const char *name, void *value, gsize size);
gssize fuse_listxattr(TesInode *, TesCtx *, char *list, gsize size);
int fuse_setxattr(TesInode *, TesCtx *, const char *name, const void *value, gsize size, int flags);
int fuse_removexattr(TesInode *, TesCtx *, const char *name);

/* file.c */
int fuse_open(TesInode *, TesCtx *, guint flags, TesFile **out);
void fuse_map_drop(FuseInode *);

static inline gsize fuse_bytes_copy(GBytes *b, void *to, gsize n) {
  gsize have;
  const void *p = g_bytes_get_data(b, &have);
  n = MIN(n, have);
  if (n)
    memcpy(to, p, n);
  return n;
}
