/* SPDX-License-Identifier: Apache-2.0 */
/* AF_UNIX sockets, shared by the plugin's files: sock.c (life cycle, options), connect.c (listen, connect, accept), name.c (addresses),
 * send.c and recv.c (messages), rights.c (descriptors in flight), file.c (file operations, poll, the descriptor). unix(7).
 *
 * A socket is a counted object apart from its file: peers, queued messages and waiting connectors keep it after its file went.
 * Locks: rights > socket; no two sockets are locked at once, and nothing is freed under a lock. */
#pragma once

#include <sys/un.h>
#include <tessera/tessera.h>

#define UNIX_DGRAM_QUEUE 10      /* net.unix.max_dgram_qlen */
#define UNIX_CHUNK (32 * 1024)   /* bytes of one stream message */
#define UNIX_OVERHEAD 512        /* charged for a message beside its data */
#define UNIX_MAX_FILES 253       /* SCM_MAX_FD */
#define UNIX_MAX_IN_FLIGHT 65536 /* descriptors in messages, of the whole sandbox */

typedef struct _UnixSock UnixSock;
typedef struct _UnixMsg UnixMsg;

typedef struct {
  gint refs;
  socklen_t len;
  struct sockaddr_un un;
} UnixAddr;

/* One for each kernel. */
typedef struct {
  TesMutex names_lock;
  GHashTable *names; /* abstract names: GBytes -> UnixSock, borrowed: a socket leaves before it goes */
  guint next_auto;
  TesMutex rights_lock; /* descriptors in flight; taken around queueing and taking messages that carry any */
  GHashTable
      *in_flight;      /* set of UnixSock whose file is in a message; borrowed: the message holds the file */
  GHashTable *by_user; /* uid -> descriptors in flight */
  guint n_in_flight;
  gboolean collecting;
  guint put_off; /* collections that were not made */
} UnixKernel;

struct _UnixMsg {
  UnixMsg *next;
  gsize len, off;    /* bytes; off: already read (streams) */
  gsize size;        /* of this allocation */
  gsize charge;      /* what the sender is charged */
  UnixSock *sender;  /* owned: told when its charge goes */
  UnixAddr *from;    /* owned or NULL */
  struct ucred cred; /* root-namespace numbers */
  GPtrArray *files;  /* TesFile, owned, or NULL */
  guint32 files_uid; /* who is charged for them */
  guchar data[];
};

typedef struct {
  UnixMsg *head, **tail;
} UnixMsgList;

typedef enum { UNIX_IDLE, UNIX_CONNECTING, UNIX_LISTENING, UNIX_CONNECTED, UNIX_CLOSED } UnixState;
enum { UNIX_SHUT_RD = 1, UNIX_SHUT_WR = 2 };

struct _UnixSock {
  gint refs;
  UnixKernel *k;
  TesKernel *kernel;
  TesFile *file; /* weak: NULL before accept and once released */
  int type;
  TesSockOpts opts;
  TesQueue queue;
  gsize wmem;    /* atomic: charge of messages sent and not taken */
  TesMutex lock; /* guards what follows */
  UnixState state;
  guint shutdown;    /* UNIX_SHUT_* */
  int error;         /* SO_ERROR, positive */
  UnixSock *peer;    /* owned */
  UnixAddr *addr;    /* owned; set once */
  TesPath *path;     /* of a bound name; owned */
  GBytes *abstract;  /* key of an abstract name */
  struct ucred cred; /* of who listens, or connected */
  struct ucred peer_cred;
  UnixMsgList rx;
  gsize rx_bytes;
  guint rx_count;
  GQueue pending; /* listening: UnixSock, owned, not accepted yet */
  int backlog;
  GQueue blocked; /* UnixSock, owned: connectors and senders to tell when there is room */
  gint in_flight; /* messages that carry its file; written under the rights lock, atomic */
  gint gc_refs;   /* rights lock */
  gboolean gc_candidate;
};

typedef struct {
  TesFile file;
  UnixSock *sock;
} UnixFile;

extern const TesFileOps unix_stream_ops, unix_packet_ops;
extern const TesSockOps unix_sock_ops;

static inline UnixSock *unix_sock(TesFile *f) { return ((UnixFile *)f)->sock; }
static inline gboolean unix_is_file(const TesFile *f) {
  return f->ops == &unix_stream_ops || f->ops == &unix_packet_ops;
}
static inline gboolean unix_connected_type(const UnixSock *s) { return s->type != SOCK_DGRAM; }

/* ---- sock.c ---- */
UnixKernel *unix_kernel(TesKernel *);
gboolean unix_kernel_init(TesKernel *, GError **);
UnixSock *unix_sock_new(UnixKernel *, TesKernel *, int type);
UnixSock *unix_sock_ref(UnixSock *);
void unix_sock_unref(UnixSock *);
TesFile *unix_file_new(UnixSock *, TesCtx *, guint flags); /* takes the socket's reference */
void unix_sock_close(UnixSock *);
/* The peer, referenced, or NULL. */
UnixSock *unix_peer(UnixSock *);
/* The caller's credentials: effective ids for SO_PEERCRED, real ones for messages. */
struct ucred unix_cred(TesCtx *, gboolean effective);
int unix_shutdown(TesFile *, TesCtx *, int how);
int unix_getsockopt(TesFile *, TesCtx *, int level, int name, void *value, socklen_t *len);
int unix_setsockopt(TesFile *, TesCtx *, int level, int name, const void *value, socklen_t len);
TesTime unix_timeout(TesFile *, gboolean send);
/* `who` is told (POLLOUT) when `s` has room. s->lock held. */
void unix_block_on(UnixSock *s, UnixSock *who);
/* Takes the blocked out, to be told by unix_tell() without locks. s->lock held. */
GQueue unix_take_blocked(UnixSock *s);
void unix_tell(GQueue *);

/* ---- connect.c ---- */
int unix_connect(TesFile *, TesCtx *, const struct sockaddr *, socklen_t);
int unix_listen(TesFile *, TesCtx *, int backlog);
int unix_accept(TesFile *, TesCtx *, guint flags, TesFile **out);
void unix_join(UnixSock *a, UnixSock *b, struct ucred); /* socketpair: both fresh */

/* ---- name.c ---- */
int unix_bind(TesFile *, TesCtx *, const struct sockaddr *, socklen_t);
int unix_getname(TesFile *, TesCtx *, gboolean peer, struct sockaddr_storage *, socklen_t *);
/* The socket an address names, referenced. -ECONNREFUSED, -EPROTOTYPE, -EACCES ... */
int unix_find(UnixSock *from, TesCtx *, const struct sockaddr *, socklen_t, UnixSock **out);
void unix_unbind(UnixSock *); /* at close */
UnixAddr *unix_addr_ref(UnixAddr *);
void unix_addr_unref(UnixAddr *);

/* ---- send.c, recv.c ---- */
gssize unix_sendmsg(TesFile *, TesCtx *, TesMsg *);
gssize unix_recvmsg(TesFile *, TesCtx *, TesMsg *);
gboolean unix_writable(UnixSock *); /* POLLOUT by its own charge */
void unix_msg_free(UnixMsg *);
void unix_msgs_free(UnixMsg *first);
UnixMsg *unix_msgs_steal(UnixSock *); /* lock held */

/* ---- rights.c ---- */
/* Decodes the control messages of a send: files (transfer full or NULL) and credentials. 0 or -errno. */
int unix_decode_control(TesCtx *, const TesMsg *, GPtrArray **files, struct ucred *cred);
/* Counts a message's files in or out of flight; rights lock held. -ETOOMANYREFS. */
int unix_rights_add(UnixKernel *, TesCtx *, UnixMsg *);
void unix_rights_remove(UnixKernel *, UnixMsg *);
/* Drops files without recursion, however deep sockets hold sockets. */
void unix_files_drop(GPtrArray *);
/* Frees messages that only sockets within such messages can reach. No locks. */
void unix_collect(UnixKernel *);
