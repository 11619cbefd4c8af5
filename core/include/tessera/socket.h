/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: files with a TesSockOps; families come from plugins (feature kind "socket-family"). The core decodes msghdr,
 * addresses and control messages' headers, blocks, and sends SIGPIPE; operations return -EAGAIN when they would block. */
#pragma once

#include <sys/socket.h>
#include <tessera/file.h>

TES_BEGIN_DECLS

/* A decoded message. For sendmsg the control buffer holds the guest's cmsgs (copied in, <= 64 KiB) and `files` is NULL: the
 * family decodes SCM_RIGHTS with tes_fd_get(). For recvmsg the family fills name, flags, and the raw parts below; the core writes cmsgs out. */
typedef struct {
  TesIov *iov;
  struct sockaddr_storage name;
  socklen_t name_len; /* send: given; recv: filled (0: none) */
  guchar *control;    /* send: cmsgs, or NULL */
  gsize control_len;
  GPtrArray *files;   /* recv: TesFile (owned) for SCM_RIGHTS; family creates it */
  gboolean have_cred; /* recv: SCM_CREDENTIALS (SO_PASSCRED) */
  struct ucred cred;  /* in the initial namespaces' numbers */
  int flags;          /* send, recv: MSG_* as given; recv: MSG_TRUNC, MSG_EOR ... added to `out_flags` */
  int out_flags;
} TesMsg;

struct _TesSockOps {
  gsize size;
  int (*bind)(TesFile *, TesCtx *, const struct sockaddr *, socklen_t);
  int (*connect)(TesFile *, TesCtx *, const struct sockaddr *,
                 socklen_t); /* -EINPROGRESS/-EAGAIN: wait for POLLOUT, ask again */
  int (*listen)(TesFile *, TesCtx *, int backlog);
  int (*accept)(TesFile *, TesCtx *, guint flags, TesFile **out); /* flags: O_NONBLOCK for the new file */
  gssize (*sendmsg)(TesFile *, TesCtx *, TesMsg *);
  gssize (*recvmsg)(TesFile *, TesCtx *, TesMsg *);
  int (*shutdown)(TesFile *, TesCtx *, int how);
  int (*getname)(TesFile *, TesCtx *, gboolean peer, struct sockaddr_storage *, socklen_t *);
  /* Kernel memory. getsockopt: *len in: room, out: written. -ENOPROTOOPT. */
  int (*getsockopt)(TesFile *, TesCtx *, int level, int name, void *value, socklen_t *len);
  int (*setsockopt)(TesFile *, TesCtx *, int level, int name, const void *value, socklen_t len);
  /* SO_RCVTIMEO / SO_SNDTIMEO in ns (0: none); the core waits that long. */
  TesTime (*timeout)(TesFile *, gboolean send);
};

typedef struct {
  gsize size;
  int family; /* AF_* */
  const char *name;
  /* type: SOCK_STREAM ... without the flag bits; flags: O_NONBLOCK. -EPROTONOSUPPORT, -ESOCKTNOSUPPORT. */
  int (*create)(TesCtx *, int type, int protocol, guint flags, TesFile **out);
  int (*pair)(TesCtx *, int type, int protocol, guint flags, TesFile *out[2]); /* optional: EOPNOTSUPP */
} TesSocketFamilyOps;

/* SOL_SOCKET options that every family keeps and treats alike. A family embeds one, answers what it knows better itself
 * (SO_ERROR, SO_PEERCRED, SO_ACCEPTCONN ...) and hands the rest on. Word-sized fields: read without a lock. */
typedef struct {
  int domain, type, protocol;
  int sndbuf, rcvbuf;         /* bytes, doubled as socket(7) says */
  TesTime sndtimeo, rcvtimeo; /* ns; 0: none */
  int priority, mark, rcvlowat;
  struct linger linger;
  guint64 bools; /* bit N: option N (SO_REUSEADDR, SO_KEEPALIVE, SO_PASSCRED, ...) */
} TesSockOpts;
void tes_sockopts_init(TesSockOpts *, int domain, int type, int protocol);
/* -ENOPROTOOPT for options that are not common. */
int tes_sockopts_get(TesSockOpts *, int name, void *value, socklen_t *len);
int tes_sockopts_set(TesSockOpts *, TesCtx *, int name, const void *value, socklen_t len);
static inline gboolean tes_sockopts_bool(const TesSockOpts *o, int name) { return (o->bools >> name) & 1; }

TES_END_DECLS
