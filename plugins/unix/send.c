/* SPDX-License-Identifier: Apache-2.0 */
/* Sending. Data is copied from the guest into a message without any lock, then the message joins the receiver's queue. A sender is charged
 * for its messages until they are taken; SO_SNDBUF bounds the charge, and POLLOUT comes back when three quarters are free. */
#include "private.h"

/* Host memory in messages of all sockets together. */
#define ALL_MESSAGES_MAX (512UL << 20)
static gsize all_messages; /* atomic */

gboolean unix_writable(UnixSock *s) {
  return __atomic_load_n(&s->wmem, __ATOMIC_SEQ_CST) * 4 <= (gsize)s->opts.sndbuf;
}

void unix_msg_free(UnixMsg *m) {
  UnixSock *s = m->sender;
  if (m->charge) {
    gsize now = __atomic_sub_fetch(&s->wmem, m->charge, __ATOMIC_SEQ_CST);
    if (now * 4 <= (gsize)s->opts.sndbuf && (now + m->charge) * 4 > (gsize)s->opts.sndbuf)
      tes_queue_notify(&s->queue, POLLOUT | POLLWRNORM);
  }
  if (m->files)
    unix_files_drop(m->files);
  if (m->from)
    unix_addr_unref(m->from);
  __atomic_sub_fetch(&all_messages, m->size, __ATOMIC_RELAXED);
  unix_sock_unref(s);
  g_free(m);
}

/* Files leave flight first: nobody finds the messages any more. */
void unix_msgs_free(UnixMsg *first) {
  for (UnixMsg *m = first; m; m = m->next)
    if (m->files) {
      UnixKernel *k = m->sender->k;
      tes_mutex_lock(&k->rights_lock);
      unix_rights_remove(k, m);
      tes_mutex_unlock(&k->rights_lock);
    }
  while (first) {
    UnixMsg *next = first->next;
    unix_msg_free(first);
    first = next;
  }
}

UnixMsg *unix_msgs_steal(UnixSock *s) {
  UnixMsg *first = s->rx.head;
  s->rx.head = NULL;
  s->rx.tail = &s->rx.head;
  s->rx_bytes = 0;
  s->rx_count = 0;
  return first;
}

/* A message of the next n bytes of the vector; takes `files` over when it succeeds. */
static int msg_new(UnixSock *s, TesIov *iov, gsize n, const struct ucred *cred, GPtrArray *files,
                   UnixMsg **out) {
  gsize size = sizeof(UnixMsg) + n;
  if (__atomic_load_n(&all_messages, __ATOMIC_RELAXED) + size > ALL_MESSAGES_MAX)
    return -ENOBUFS;
  UnixMsg *m = g_try_malloc(size);
  if (!m)
    return -ENOBUFS;
  memset(m, 0, sizeof *m);
  m->size = size;
  gssize r = n ? tes_iov_read_from(iov, m->data, n) : 0;
  if (r < 0 || (r < (gssize)n && s->type != SOCK_STREAM)) {
    g_free(m);
    return -EFAULT;
  }
  m->len = (gsize)r;
  m->charge = m->len + UNIX_OVERHEAD;
  m->sender = unix_sock_ref(s);
  m->cred = *cred;
  m->files = files;
  tes_mutex_lock(&s->lock);
  m->from = s->addr ? unix_addr_ref(s->addr) : NULL;
  tes_mutex_unlock(&s->lock);
  __atomic_add_fetch(&s->wmem, m->charge, __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&all_messages, size, __ATOMIC_RELAXED);
  *out = m;
  return 0;
}

/* Why a message for `to` cannot be queued now; to->lock held. */
static int refuse(UnixSock *s, UnixSock *to) {
  if (to->state == UNIX_CLOSED)
    return unix_connected_type(s) ? -EPIPE : -ECONNREFUSED;
  if (to->shutdown & UNIX_SHUT_RD)
    return -EPIPE;
  if (unix_connected_type(s))
    return 0;
  if (to->peer && to->peer != s)
    return -EPERM;
  if (to != s && to->peer != s && to->rx_count > UNIX_DGRAM_QUEUE) {
    unix_block_on(to, s);
    return -EAGAIN;
  }
  return 0;
}

static int enqueue(UnixSock *s, UnixSock *to, UnixMsg *m) {
  TES_LOCKED(&to->lock);
  int r = refuse(s, to);
  if (r < 0)
    return r;
  *to->rx.tail = m;
  to->rx.tail = &m->next;
  to->rx_bytes += m->len;
  to->rx_count++;
  return 0;
}

/* Queues the message, or frees it. */
static int deliver(UnixSock *s, UnixSock *to, TesCtx *ctx, UnixMsg *m) {
  int r;
  if (m->files) {
    tes_mutex_lock(&s->k->rights_lock);
    r = unix_rights_add(s->k, ctx, m);
    if (r == 0 && (r = enqueue(s, to, m)) < 0)
      unix_rights_remove(s->k, m);
    tes_mutex_unlock(&s->k->rights_lock);
  } else {
    r = enqueue(s, to, m);
  }
  if (r < 0)
    unix_msg_free(m);
  else
    tes_queue_notify(&to->queue, POLLIN | POLLRDNORM);
  return r;
}

static gboolean has_room(UnixSock *s) {
  return __atomic_load_n(&s->wmem, __ATOMIC_SEQ_CST) < (gsize)s->opts.sndbuf;
}

/* ---- Streams ---- */

static int stream_peer(UnixSock *s, UnixSock **peer) {
  TES_LOCKED(&s->lock);
  if (s->shutdown & UNIX_SHUT_WR)
    return -EPIPE;
  if (s->state != UNIX_CONNECTED || !s->peer)
    return -ENOTCONN;
  *peer = unix_sock_ref(s->peer);
  return 0;
}

static gssize send_stream(UnixSock *s, TesCtx *ctx, TesMsg *msg, GPtrArray **files,
                          const struct ucred *cred) {
  UnixSock *peer = NULL;
  gssize done = 0;
  int r = 0;
  if (msg->name_len)
    return s->state == UNIX_CONNECTED ? -EISCONN : -EOPNOTSUPP;
  if ((r = stream_peer(s, &peer)) < 0)
    return r;
  while (msg->iov->left > 0) {
    UnixMsg *m;
    if (!has_room(s)) {
      r = -EAGAIN;
      break;
    }
    gsize n = MIN(MIN(msg->iov->left, UNIX_CHUNK), MAX((gsize)s->opts.sndbuf / 2, 1));
    if ((r = msg_new(s, msg->iov, n, cred, *files, &m)) < 0)
      break;
    *files = NULL;
    gsize len = m->len;
    if ((r = deliver(s, peer, ctx, m)) < 0)
      break;
    done += (gssize)len;
    if (len < n)
      break;
  }
  unix_sock_unref(peer);
  return done ? done : r;
}

/* ---- Datagrams and packets ---- */

static int target(UnixSock *s, TesCtx *ctx, const TesMsg *msg, UnixSock **to) {
  if (s->type == SOCK_SEQPACKET)
    return stream_peer(s, to);
  tes_mutex_lock(&s->lock);
  gboolean shut = (s->shutdown & UNIX_SHUT_WR) != 0;
  tes_mutex_unlock(&s->lock);
  if (shut)
    return -EPIPE;
  if (msg->name_len)
    return unix_find(s, ctx, (const struct sockaddr *)&msg->name, msg->name_len, to);
  *to = unix_peer(s);
  return *to ? 0 : -ENOTCONN;
}

/* A datagram socket whose peer has gone is connected no more. */
static void forget_peer(UnixSock *s, UnixSock *gone) {
  tes_mutex_lock(&s->lock);
  UnixSock *old = s->peer == gone ? g_steal_pointer(&s->peer) : NULL;
  if (old)
    s->state = UNIX_IDLE;
  tes_mutex_unlock(&s->lock);
  unix_sock_unref(old);
}

static gssize send_packet(UnixSock *s, TesCtx *ctx, TesMsg *msg, GPtrArray **files,
                          const struct ucred *cred) {
  gsize n = msg->iov->left;
  TesIov saved = *msg->iov; /* asked again after waiting: the cursor must not have moved */
  if (n > (gsize)s->opts.sndbuf - MIN(32, s->opts.sndbuf))
    return -EMSGSIZE;
  UnixSock *to = NULL;
  UnixMsg *m;
  int r = target(s, ctx, msg, &to);
  if (r < 0)
    return r;
  if (!has_room(s))
    r = -EAGAIN;
  else if ((r = msg_new(s, msg->iov, n, cred, *files, &m)) == 0) {
    *files = NULL;
    r = deliver(s, to, ctx, m);
  }
  if (r == -EAGAIN)
    *msg->iov = saved;
  if (r == -ECONNREFUSED)
    forget_peer(s, to);
  unix_sock_unref(to);
  return r < 0 ? r : (gssize)n;
}

gssize unix_sendmsg(TesFile *f, TesCtx *ctx, TesMsg *msg) {
  UnixSock *s = unix_sock(f);
  GPtrArray *files = NULL;
  struct ucred cred = unix_cred(ctx, FALSE);
  if (msg->flags & MSG_OOB)
    return -EOPNOTSUPP;
  int r = msg->control_len ? unix_decode_control(ctx, msg, &files, &cred) : 0;
  if (r < 0)
    return r;
  gssize n = s->type == SOCK_STREAM ? send_stream(s, ctx, msg, &files, &cred)
                                    : send_packet(s, ctx, msg, &files, &cred);
  if (files)
    unix_files_drop(files);
  return n;
}
