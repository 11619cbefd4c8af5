/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: listen, connect, accept.
 *
 * connect(2) makes the server's end at once and puts it on the listener's queue; accept only gives it a file. The two
 * sockets are never locked together: the client is marked as connecting, then the listener is asked, then the client is joined. */
#include "private.h"

int unix_listen(TesFile *f, TesCtx *ctx, int backlog) {
  UnixSock *s = unix_sock(f);
  if (!unix_connected_type(s))
    return -EOPNOTSUPP;
  tes_mutex_lock(&s->lock);
  int r = !s->addr || (s->state != UNIX_IDLE && s->state != UNIX_LISTENING) ? -EINVAL : 0;
  GQueue blocked = G_QUEUE_INIT;
  if (r == 0) {
    s->state = UNIX_LISTENING;
    s->backlog = backlog;
    s->cred = unix_cred(ctx, TRUE);
    blocked = unix_take_blocked(s);
  }
  tes_mutex_unlock(&s->lock);
  unix_tell(&blocked);
  return r;
}

/* The server's end of a connection from `client`; two references, for the queue and for the client. */
static UnixSock *make_embryo(UnixSock *client, TesCtx *ctx) {
  UnixSock *e = unix_sock_new(client->k, client->kernel, client->type);
  e->state = UNIX_CONNECTED;
  e->peer = unix_sock_ref(client);
  e->peer_cred = unix_cred(ctx, TRUE);
  return unix_sock_ref(e);
}

/* 0: `embryo` is on the queue. -EAGAIN: it is full, and the client will be told. */
static int enqueue(UnixSock *listener, UnixSock *client, UnixSock *embryo) {
  TES_LOCKED(&listener->lock);
  if (listener->state != UNIX_LISTENING || (listener->shutdown & UNIX_SHUT_RD))
    return -ECONNREFUSED;
  if ((int)listener->pending.length > listener->backlog) {
    unix_block_on(listener, client);
    return -EAGAIN;
  }
  embryo->addr = unix_addr_ref(listener->addr);
  embryo->cred = listener->cred;
  embryo->opts.bools = listener->opts.bools & (1ULL << SO_PASSCRED);
  g_queue_push_tail(&listener->pending, embryo);
  return 0;
}

static int begin_connect(UnixSock *s) {
  TES_LOCKED(&s->lock);
  switch (s->state) {
  case UNIX_IDLE:
    s->state = UNIX_CONNECTING;
    return 0;
  case UNIX_CONNECTED:
    return -EISCONN;
  case UNIX_CONNECTING:
    return -EALREADY;
  default:
    return -EINVAL;
  }
}

static int connect_stream(UnixSock *s, TesCtx *ctx, const struct sockaddr *name, socklen_t len) {
  UnixSock *listener = NULL;
  int r = begin_connect(s);
  if (r < 0)
    return r;
  r = unix_find(s, ctx, name, len, &listener);
  UnixSock *embryo = r == 0 ? make_embryo(s, ctx) : NULL;
  if (r == 0)
    r = enqueue(listener, s, embryo);
  struct ucred server = {0};
  if (r == 0) {
    tes_mutex_lock(&listener->lock);
    server = listener->cred;
    tes_mutex_unlock(&listener->lock);
  }
  tes_mutex_lock(&s->lock);
  s->state = r == 0 ? UNIX_CONNECTED : UNIX_IDLE;
  if (r == 0) {
    s->peer = embryo;
    s->cred = unix_cred(ctx, TRUE);
    s->peer_cred = server;
  }
  tes_mutex_unlock(&s->lock);
  if (r == 0) {
    tes_queue_notify(&listener->queue, POLLIN | POLLRDNORM);
    tes_queue_notify(&s->queue, POLLOUT | POLLWRNORM);
  } else if (embryo) {
    UnixSock *back = g_steal_pointer(&embryo->peer);
    unix_sock_unref(back);
    unix_sock_unref(embryo);
    unix_sock_unref(embryo);
  }
  unix_sock_unref(listener);
  return r;
}

/* Sets, or with AF_UNSPEC clears, where datagrams go. */
static int connect_dgram(UnixSock *s, TesCtx *ctx, const struct sockaddr *name, socklen_t len) {
  UnixSock *to = NULL;
  if (len < sizeof(sa_family_t))
    return -EINVAL;
  if (name->sa_family != AF_UNSPEC) {
    int r = unix_find(s, ctx, name, len, &to);
    if (r < 0)
      return r;
    UnixSock *theirs = to == s ? NULL : unix_peer(to);
    gboolean taken = theirs && theirs != s;
    unix_sock_unref(theirs);
    if (taken) {
      unix_sock_unref(to);
      return -EPERM;
    }
  }
  tes_mutex_lock(&s->lock);
  UnixSock *old = s->peer;
  s->peer = to;
  s->state = to ? UNIX_CONNECTED : UNIX_IDLE;
  tes_mutex_unlock(&s->lock);
  unix_sock_unref(old);
  return 0;
}

int unix_connect(TesFile *f, TesCtx *ctx, const struct sockaddr *name, socklen_t len) {
  UnixSock *s = unix_sock(f);
  return unix_connected_type(s) ? connect_stream(s, ctx, name, len) : connect_dgram(s, ctx, name, len);
}

int unix_accept(TesFile *f, TesCtx *ctx, guint flags, TesFile **out) {
  UnixSock *s = unix_sock(f);
  if (!unix_connected_type(s))
    return -EOPNOTSUPP;
  tes_mutex_lock(&s->lock);
  int r = 0;
  UnixSock *conn = NULL;
  GQueue blocked = G_QUEUE_INIT;
  if (s->state != UNIX_LISTENING)
    r = -EINVAL;
  else if (!(conn = g_queue_pop_head(&s->pending)))
    r = (s->shutdown & UNIX_SHUT_RD) ? -EINVAL : -EAGAIN;
  else
    blocked = unix_take_blocked(s);
  tes_mutex_unlock(&s->lock);
  unix_tell(&blocked);
  if (r == 0)
    *out = unix_file_new(conn, ctx, flags);
  return r;
}

void unix_join(UnixSock *a, UnixSock *b, struct ucred cred) {
  a->peer = unix_sock_ref(b);
  b->peer = unix_sock_ref(a);
  a->cred = b->cred = a->peer_cred = b->peer_cred = cred;
  a->state = b->state = UNIX_CONNECTED;
}
