/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: life cycle, the end of a connection, options. */
#include "private.h"

static const TesLockClass sock_class = {"unix socket", TES_RANK_SOCKET, FALSE,
                                        "state and receive queue of a socket"};
static const TesLockClass names_class = {"unix names", TES_RANK_SOCKET + 1, FALSE, "abstract names"};
static const TesLockClass rights_class = {"unix rights", TES_RANK_SOCKET - 1, FALSE,
                                          "descriptors in messages"};
static const char kernel_key;

static void kernel_free(gpointer data) {
  UnixKernel *k = data;
  g_hash_table_unref(k->names);
  g_hash_table_unref(k->in_flight);
  g_hash_table_unref(k->by_user);
  tes_mutex_clear(&k->names_lock);
  tes_mutex_clear(&k->rights_lock);
  g_free(k);
}

gboolean unix_kernel_init(TesKernel *kernel, GError **error) {
  UnixKernel *k = g_new0(UnixKernel, 1);
  tes_mutex_init(&k->names_lock, &names_class);
  tes_mutex_init(&k->rights_lock, &rights_class);
  k->names = g_hash_table_new(g_bytes_hash, g_bytes_equal);
  k->in_flight = g_hash_table_new(NULL, NULL);
  k->by_user = g_hash_table_new(NULL, NULL);
  tes_kernel_set_data(kernel, &kernel_key, k, kernel_free);
  return TRUE;
}

UnixKernel *unix_kernel(TesKernel *kernel) { return tes_kernel_get_data(kernel, &kernel_key); }

UnixSock *unix_sock_new(UnixKernel *k, TesKernel *kernel, int type) {
  UnixSock *s = g_new0(UnixSock, 1);
  s->refs = 1;
  s->k = k;
  s->kernel = kernel;
  s->type = type;
  tes_sockopts_init(&s->opts, AF_UNIX, type, 0);
  tes_mutex_init(&s->lock, &sock_class);
  tes_queue_init(&s->queue);
  s->rx.tail = &s->rx.head;
  g_queue_init(&s->pending);
  g_queue_init(&s->blocked);
  return s;
}

UnixSock *unix_sock_ref(UnixSock *s) {
  g_atomic_int_inc(&s->refs);
  return s;
}

void unix_sock_unref(UnixSock *s) {
  if (!s || !g_atomic_int_dec_and_test(&s->refs))
    return;
  if (s->addr)
    unix_addr_unref(s->addr);
  tes_queue_clear(&s->queue);
  tes_mutex_clear(&s->lock);
  g_free(s);
}

UnixSock *unix_peer(UnixSock *s) {
  TES_LOCKED(&s->lock);
  return s->peer ? unix_sock_ref(s->peer) : NULL;
}

struct ucred unix_cred(TesCtx *ctx, gboolean effective) {
  TesTask *t = tes_ctx_to_task(ctx);
  TesCred *c = tes_ctx_cred(ctx);
  struct ucred u = {.pid = t ? tes_task_pid(t, NULL) : 0, .uid = 0, .gid = 0};
  if (c) {
    u.uid = effective ? c->euid : c->uid;
    u.gid = effective ? c->egid : c->gid;
  }
  return u;
}

/* ---- Being told of room ---- */

void unix_block_on(UnixSock *s, UnixSock *who) {
  if (g_queue_find(&s->blocked, who) == NULL)
    g_queue_push_tail(&s->blocked, unix_sock_ref(who));
}

GQueue unix_take_blocked(UnixSock *s) {
  GQueue q = s->blocked;
  g_queue_init(&s->blocked);
  return q;
}

void unix_tell(GQueue *q) {
  UnixSock *s;
  while ((s = g_queue_pop_head(q))) {
    tes_queue_notify(&s->queue, POLLOUT | POLLWRNORM);
    unix_sock_unref(s);
  }
}

/* ---- The end ---- */

#define EVERYTHING (POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLRDHUP | POLLHUP)

/* The other end of a connection went, or was never accepted. */
static void hang_up(UnixSock *peer, int error) {
  tes_mutex_lock(&peer->lock);
  peer->shutdown |= UNIX_SHUT_RD | UNIX_SHUT_WR;
  if (error)
    peer->error = error;
  tes_mutex_unlock(&peer->lock);
  tes_queue_notify(&peer->queue, EVERYTHING | (error ? POLLERR : 0));
}

/* A connection that nobody accepted, as its listener goes. */
static void drop_pending(UnixSock *embryo) {
  tes_mutex_lock(&embryo->lock);
  UnixSock *client = g_steal_pointer(&embryo->peer);
  UnixMsg *unread = unix_msgs_steal(embryo);
  embryo->state = UNIX_CLOSED;
  embryo->shutdown = UNIX_SHUT_RD | UNIX_SHUT_WR;
  tes_mutex_unlock(&embryo->lock);
  if (client)
    hang_up(client, ECONNRESET);
  unix_msgs_free(unread);
  unix_sock_unref(client);
  unix_sock_unref(embryo);
}

void unix_sock_close(UnixSock *s) {
  tes_mutex_lock(&s->lock);
  s->state = UNIX_CLOSED;
  s->file = NULL;
  s->shutdown = UNIX_SHUT_RD | UNIX_SHUT_WR;
  UnixSock *peer = g_steal_pointer(&s->peer);
  UnixMsg *unread = unix_msgs_steal(s);
  GQueue pending = s->pending, blocked = unix_take_blocked(s);
  g_queue_init(&s->pending);
  tes_mutex_unlock(&s->lock);

  unix_unbind(s);
  if (peer && unix_connected_type(s))
    hang_up(peer, unread ? ECONNRESET : 0);
  unix_tell(&blocked);
  UnixSock *embryo;
  while ((embryo = g_queue_pop_head(&pending)))
    drop_pending(embryo);
  unix_msgs_free(unread);
  unix_sock_unref(peer);
  unix_collect(s->k);
  unix_sock_unref(s);
}

int unix_shutdown(TesFile *f, TesCtx *ctx, int how) {
  UnixSock *s = unix_sock(f);
  guint bits = how == SHUT_RD ? UNIX_SHUT_RD : how == SHUT_WR ? UNIX_SHUT_WR : UNIX_SHUT_RD | UNIX_SHUT_WR;
  tes_mutex_lock(&s->lock);
  s->shutdown |= bits;
  UnixSock *peer = s->peer && unix_connected_type(s) ? unix_sock_ref(s->peer) : NULL;
  GQueue blocked = unix_take_blocked(s);
  tes_mutex_unlock(&s->lock);
  if (peer) {
    guint theirs = (bits & UNIX_SHUT_RD ? UNIX_SHUT_WR : 0) | (bits & UNIX_SHUT_WR ? UNIX_SHUT_RD : 0);
    tes_mutex_lock(&peer->lock);
    peer->shutdown |= theirs;
    gboolean all = peer->shutdown == (UNIX_SHUT_RD | UNIX_SHUT_WR);
    tes_mutex_unlock(&peer->lock);
    tes_queue_notify(&peer->queue, all ? EVERYTHING : EVERYTHING & ~(guint)POLLHUP);
    unix_sock_unref(peer);
  }
  tes_queue_notify(&s->queue, EVERYTHING);
  unix_tell(&blocked);
  return 0;
}

/* ---- Options ---- */

static int put(void *value, socklen_t *len, const void *from, gsize n) {
  *len = (socklen_t)MIN((gsize)*len, n);
  memcpy(value, from, *len);
  return 0;
}

static int get_peercred(UnixSock *s, TesCtx *ctx, void *value, socklen_t *len) {
  tes_mutex_lock(&s->lock);
  struct ucred c = s->peer_cred;
  tes_mutex_unlock(&s->lock);
  TesNs *ns = tes_ctx_pid_ns(ctx);
  if (c.pid > 0 && ns && ns->parent) {
    g_autoptr(TesTask) who = tes_task_find(s->kernel, NULL, c.pid, TRUE);
    c.pid = who ? tes_task_pid(who, ns) : 0;
  }
  return put(value, len, &c, sizeof c);
}

int unix_getsockopt(TesFile *f, TesCtx *ctx, int level, int name, void *value, socklen_t *len) {
  UnixSock *s = unix_sock(f);
  int v;
  if (level != SOL_SOCKET)
    return -EOPNOTSUPP;
  switch (name) {
  case SO_PEERCRED:
    return get_peercred(s, ctx, value, len);
  case SO_ERROR:
    tes_mutex_lock(&s->lock);
    v = s->error;
    s->error = 0;
    tes_mutex_unlock(&s->lock);
    return put(value, len, &v, sizeof v);
  case SO_ACCEPTCONN:
    v = s->state == UNIX_LISTENING;
    return put(value, len, &v, sizeof v);
  default:
    return tes_sockopts_get(&s->opts, name, value, len);
  }
}

int unix_setsockopt(TesFile *f, TesCtx *ctx, int level, int name, const void *value, socklen_t len) {
  UnixSock *s = unix_sock(f);
  if (level != SOL_SOCKET)
    return -EOPNOTSUPP;
  int r = tes_sockopts_set(&s->opts, ctx, name, value, len);
  if (r == 0 && name == SO_SNDBUF)
    tes_queue_notify(&s->queue, POLLOUT | POLLWRNORM);
  return r;
}

TesTime unix_timeout(TesFile *f, gboolean send) {
  UnixSock *s = unix_sock(f);
  return send ? s->opts.sndtimeo : s->opts.rcvtimeo;
}
