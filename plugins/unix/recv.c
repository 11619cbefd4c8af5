/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving. Bytes are copied to the guest under the socket's lock, so that concurrent readers of a stream do not mix; what was consumed
 * is freed after the lock. A message that carries descriptors is taken under the rights lock too (see rights.c). */
#include "private.h"

typedef struct {
  UnixMsg *consumed; /* to be freed without locks */
  gboolean rights;   /* the rights lock is held */
  gboolean need_rights;
  gboolean have_cred;
} Take;

/* The message leaves the head of the queue. */
static void consume(UnixSock *s, UnixMsg *m, Take *t) {
  s->rx.head = m->next;
  if (!s->rx.head)
    s->rx.tail = &s->rx.head;
  s->rx_count--;
  m->next = t->consumed;
  t->consumed = m;
}

/* Hands the message's files to the receiver: copies of the references when peeking. */
static void give_files(UnixSock *s, UnixMsg *m, TesMsg *msg, gboolean peek) {
  if (!m->files)
    return;
  if (!peek) {
    unix_rights_remove(s->k, m);
    msg->files = g_steal_pointer(&m->files);
    return;
  }
  msg->files = g_ptr_array_new_with_free_func((GDestroyNotify)tes_file_unref);
  for (guint i = 0; i < m->files->len; i++)
    g_ptr_array_add(msg->files, tes_file_ref(g_ptr_array_index(m->files, i)));
}

static void give_origin(UnixSock *s, UnixMsg *m, TesMsg *msg) {
  if (tes_sockopts_bool(&s->opts, SO_PASSCRED)) {
    msg->have_cred = TRUE;
    msg->cred = m->cred;
  }
  if (m->from) {
    memcpy(&msg->name, &m->from->un, m->from->len);
    msg->name_len = m->from->len;
  }
}

static gboolean same_cred(const struct ucred *a, const struct ucred *b) {
  return a->pid == b->pid && a->uid == b->uid && a->gid == b->gid;
}

/* What a read of an empty queue says. */
static int empty(UnixSock *s, gboolean nonblock) {
  if (s->error) {
    int e = s->error;
    s->error = 0;
    return -e;
  }
  if (s->type == SOCK_DGRAM)
    return (s->shutdown & UNIX_SHUT_RD) && !nonblock ? 0 : -EAGAIN;
  if (s->shutdown & UNIX_SHUT_RD)
    return 0;
  if (s->state != UNIX_CONNECTED)
    return s->type == SOCK_STREAM ? -EINVAL : -ENOTCONN;
  return -EAGAIN;
}

static gssize take_stream(UnixSock *s, TesMsg *msg, Take *t) {
  gboolean peek = (msg->flags & MSG_PEEK) != 0, passcred = tes_sockopts_bool(&s->opts, SO_PASSCRED);
  gssize done = 0;
  UnixMsg *m = s->rx.head;
  if (s->state == UNIX_LISTENING)
    return -EINVAL;
  if (!m)
    return empty(s, (msg->flags & MSG_DONTWAIT) != 0);
  while (m && msg->iov->left > 0) {
    UnixMsg *next = m->next;
    gboolean files = m->files != NULL;
    if (files && !peek && !t->rights) {
      t->need_rights = done == 0;
      break;
    }
    if (done > 0 && passcred && !same_cred(&msg->cred, &m->cred))
      break; /* messages of different senders are not glued */
    gssize r = tes_iov_write_to(msg->iov, m->data + m->off, m->len - m->off);
    if (r < 0)
      return done ? done : r;
    if (done == 0)
      give_origin(s, m, msg);
    give_files(s, m, msg, peek);
    done += r;
    if (!peek) {
      m->off += (gsize)r;
      s->rx_bytes -= (gsize)r;
      if (m->off == m->len)
        consume(s, m, t);
      else
        break;
    }
    if (files)
      break;
    m = next;
  }
  return done;
}

static gssize take_packet(UnixSock *s, TesMsg *msg, Take *t) {
  gboolean peek = (msg->flags & MSG_PEEK) != 0;
  UnixMsg *m = s->rx.head;
  if (!m)
    return empty(s, (msg->flags & MSG_DONTWAIT) != 0);
  if (m->files && !peek && !t->rights) {
    t->need_rights = TRUE;
    return 0;
  }
  gsize n = MIN(m->len, msg->iov->left);
  gssize r = n ? tes_iov_write_to(msg->iov, m->data, n) : 0;
  if (r < (gssize)n)
    return -EFAULT;
  give_origin(s, m, msg);
  give_files(s, m, msg, peek);
  if (m->len > n)
    msg->out_flags |= MSG_TRUNC;
  gssize result = (gssize)((msg->flags & MSG_TRUNC) ? m->len : n);
  if (!peek) {
    s->rx_bytes -= m->len;
    consume(s, m, t);
  }
  return result;
}

gssize unix_recvmsg(TesFile *f, TesCtx *ctx, TesMsg *msg) {
  UnixSock *s = unix_sock(f);
  Take t = {.consumed = NULL};
  gssize n;
  if (msg->flags & MSG_OOB)
    return s->type == SOCK_STREAM ? -EINVAL : -EOPNOTSUPP;
  if (msg->flags & MSG_ERRQUEUE)
    return -EAGAIN;
  if (s->type == SOCK_STREAM && msg->iov->left == 0)
    return 0;
  do {
    if ((t.rights = t.need_rights))
      tes_mutex_lock(&s->k->rights_lock);
    t.need_rights = FALSE;
    tes_mutex_lock(&s->lock);
    n = s->type == SOCK_STREAM ? take_stream(s, msg, &t) : take_packet(s, msg, &t);
    GQueue blocked = G_QUEUE_INIT;
    if (t.consumed && s->blocked.length && s->rx_count <= UNIX_DGRAM_QUEUE)
      blocked = unix_take_blocked(s);
    tes_mutex_unlock(&s->lock);
    if (t.rights)
      tes_mutex_unlock(&s->k->rights_lock);
    unix_tell(&blocked);
  } while (t.need_rights);
  while (t.consumed) {
    UnixMsg *m = t.consumed;
    t.consumed = m->next;
    unix_msg_free(m);
  }
  return n;
}
