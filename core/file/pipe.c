/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes: the ring of bytes, its packets, atomic writes, and who is woken when. pipe(7).
 *
 * Writers that block say how much room they want, so that a reader wakes them once for many bytes; readers are told of every write.
 * Copies from and to the guest happen under the pipe's lock (FILE ranks below the memory locks). */
#include <core/file/pipe.h>
#include <limits.h>

/* Host memory in all pipes together; beyond it a pipe keeps the ring it has. */
#define ALL_PIPES_MAX (256UL << 20)

static const TesLockClass pipe_class = {"pipe", TES_RANK_FILE, TRUE,
                                        "ring and ends of a pipe; two are taken in address order"};
static gsize all_pipes; /* atomic */

TesPipe *tes_pipe_alloc(guint32 uid, guint32 gid) {
  TesPipe *p = g_new0(TesPipe, 1);
  p->refs = 1;
  p->cap = TES_PIPE_DEFAULT;
  p->want = G_MAXSIZE;
  p->uid = uid;
  p->gid = gid;
  tes_mutex_init(&p->lock, &pipe_class);
  tes_queue_init(&p->queue);
  return p;
}

TesPipe *tes_pipe_ref(TesPipe *p) {
  g_atomic_int_inc(&p->refs);
  return p;
}

/* A FIFO's pipe is found through inode->attached under the attach lock, where the last reference goes too. */
void tes_pipe_unref(TesPipe *p) {
  TesInode *inode = p->inode;
  if (inode) {
    tes_inode_attach_lock();
    gboolean last = g_atomic_int_dec_and_test(&p->refs);
    if (last && inode->attached == p)
      inode->attached = NULL;
    tes_inode_attach_unlock();
    if (!last)
      return;
    tes_inode_unref(inode);
  } else if (!g_atomic_int_dec_and_test(&p->refs)) {
    return;
  }
  __atomic_sub_fetch(&all_pipes, p->size, __ATOMIC_RELAXED);
  tes_queue_clear(&p->queue);
  tes_mutex_clear(&p->lock);
  g_free(p->ring);
  g_free(p->packet);
  g_free(p);
}

/* ---- The ring ---- */

static void copy_from_ring(const TesPipe *p, guint64 from, guchar *to, gsize n) {
  gsize at = from & (p->size - 1), first = MIN(n, p->size - at);
  memcpy(to, p->ring + at, first);
  memcpy(to + first, p->ring, n - first);
}

/* A ring of `size` bytes with the same contents. */
static int reallocate(TesPipe *p, gsize size) {
  if (size > p->size && __atomic_load_n(&all_pipes, __ATOMIC_RELAXED) + size > ALL_PIPES_MAX)
    return -ENOMEM;
  guchar *ring = g_try_malloc(size);
  if (!ring)
    return -ENOMEM;
  gsize len = tes_pipe_len(p);
  for (gsize done = 0; done < len;) {
    gsize at = (p->tail + done) & (size - 1), n = MIN(len - done, size - at);
    copy_from_ring(p, p->tail + done, ring + at, n);
    done += n;
  }
  __atomic_add_fetch(&all_pipes, size - p->size, __ATOMIC_RELAXED);
  g_free(p->ring);
  p->ring = ring;
  p->size = size;
  return 0;
}

/* Makes room for n more bytes if the capacity allows it; how many fit now. */
static gsize make_room(TesPipe *p, gsize n) {
  gsize len = tes_pipe_len(p), need = MIN(len + n, p->cap), size = MAX(p->size, TES_PAGE_SIZE);
  while (size < need)
    size *= 2;
  if (size > p->size)
    (void)reallocate(p, size);
  return p->size ? MIN(n, p->size - len) : 0;
}

int tes_pipe_resize(TesPipe *p, gsize cap) {
  if (cap < tes_pipe_len(p) || p->p_head - p->p_tail > cap / TES_PAGE_SIZE)
    return -EBUSY;
  if (p->size > cap) {
    int r = reallocate(p, cap);
    if (r < 0)
      return r;
  }
  p->cap = cap;
  tes_pipe_publish(p);
  return 0;
}

/* ---- Packets ---- */

static TesPipePacket *front_packet(TesPipe *p) {
  return p->p_head == p->p_tail ? NULL : &p->packet[p->p_tail % TES_PIPE_PACKETS];
}

static gboolean packet_room(TesPipe *p) { return p->p_head - p->p_tail < p->cap / TES_PAGE_SIZE; }

static void push_packet(TesPipe *p, gsize len) {
  if (!p->packet)
    p->packet = g_new(TesPipePacket, TES_PIPE_PACKETS);
  p->packet[p->p_head++ % TES_PIPE_PACKETS] = (TesPipePacket){p->head, len};
}

/* Bytes up to the next boundary; *packet: they are one packet. */
static gsize front_len(TesPipe *p, gboolean *packet) {
  TesPipePacket *k = front_packet(p);
  *packet = k && p->tail >= k->start;
  if (!k)
    return tes_pipe_len(p);
  return *packet ? (gsize)(k->start + k->len - p->tail) : (gsize)(k->start - p->tail);
}

void tes_pipe_publish(TesPipe *p) {
  guint s = (tes_pipe_len(p) > 0 ? PIPE_DATA : 0) |
            (tes_pipe_free(p) >= PIPE_BUF && packet_room(p) ? PIPE_SPACE : 0) |
            (p->writers == 0 ? PIPE_NO_WRITERS : 0) | (p->readers == 0 ? PIPE_NO_READERS : 0);
  __atomic_store_n(&p->state, s, __ATOMIC_RELEASE);
}

/* ---- Moving ---- */

static gssize fill_stream(TesPipe *p, TesIov *iov, gsize n) {
  n = make_room(p, n);
  if (n == 0)
    return -ENOMEM;
  gsize at = p->head & (p->size - 1), first = MIN(n, p->size - at);
  gssize r = tes_iov_read_from(iov, p->ring + at, first);
  if (r < 0)
    return r;
  if ((gsize)r == first && n > first) {
    gssize more = tes_iov_read_from(iov, p->ring, n - first);
    r += MAX(more, 0);
  }
  return r;
}

gssize tes_pipe_fill(TesPipe *p, TesIov *iov, gboolean packets, guint *events) {
  gssize done = 0, r = 0;
  if (iov->left == 0)
    return 0;
  if (p->readers == 0)
    return -EPIPE;
  while (iov->left > 0) {
    gsize n = packets ? MIN(iov->left, PIPE_BUF) : iov->left, room = tes_pipe_free(p);
    gboolean whole = packets || (n <= PIPE_BUF && done == 0);
    if (room == 0 || (whole && room < n) || (packets && !packet_room(p))) {
      r = -EAGAIN;
      break;
    }
    r = fill_stream(p, iov, MIN(n, room));
    if (r < 0)
      break;
    if (packets && r > 0)
      push_packet(p, (gsize)r);
    p->head += (guint64)r;
    done += r;
    if ((gsize)r < MIN(n, room))
      break; /* the guest's buffer ended early */
  }
  if (iov->left > 0)
    p->want = MIN(p->want, iov->left <= PIPE_BUF ? iov->left : MIN(iov->left, p->cap / 2));
  if (done > 0) {
    *events |= POLLIN | POLLRDNORM;
    tes_pipe_publish(p);
  }
  return done > 0 ? done : r;
}

static void consume(TesPipe *p, gsize n, guint *events) {
  gsize before = tes_pipe_free(p);
  gboolean had_slot = packet_room(p);
  p->tail += n;
  TesPipePacket *k = front_packet(p);
  if (k && p->tail >= k->start + k->len)
    p->p_tail++;
  if (tes_pipe_len(p) == 0)
    p->head = p->tail = 0; /* start of the ring again: fewer split copies */
  gsize now = tes_pipe_free(p);
  if ((before < PIPE_BUF && now >= PIPE_BUF) || !had_slot)
    *events |= POLLOUT | POLLWRNORM;
  if (now >= p->want || !had_slot) {
    *events |= TES_POLL_ROOM;
    p->want = G_MAXSIZE;
  }
  tes_pipe_publish(p);
}

gssize tes_pipe_drain(TesPipe *p, TesIov *iov, guint *events) {
  if (iov->left == 0)
    return 0;
  if (p->splicing)
    return -EAGAIN;
  if (tes_pipe_len(p) == 0)
    return p->writers == 0 ? 0 : -EAGAIN;
  gssize done = 0;
  gboolean packet = FALSE;
  while (iov->left > 0 && tes_pipe_len(p) > 0 && !packet) {
    gsize all = front_len(p, &packet), n = MIN(all, iov->left);
    gsize at = p->tail & (p->size - 1), first = MIN(n, p->size - at);
    gssize r = tes_iov_write_to(iov, p->ring + at, first);
    if (r < 0)
      return done ? done : r;
    if ((gsize)r == first && n > first) {
      gssize more = tes_iov_write_to(iov, p->ring, n - first);
      r += MAX(more, 0);
    }
    consume(p, packet && (gsize)r == n ? all : (gsize)r, events);
    done += r;
    if ((gsize)r < n)
      break;
  }
  return done;
}

/* ---- For splice and tee ---- */

gsize tes_pipe_room(TesPipe *p) {
  TES_LOCKED(&p->lock);
  return tes_pipe_free(p);
}

static gssize peek_locked(TesPipe *p, void *buf, gsize n) {
  gboolean packet;
  if (p->splicing)
    return -EAGAIN;
  if (tes_pipe_len(p) == 0)
    return p->writers == 0 ? 0 : -EAGAIN;
  n = MIN(n, front_len(p, &packet));
  copy_from_ring(p, p->tail, buf, n);
  return (gssize)n;
}

gssize tes_pipe_peek(TesPipe *p, void *buf, gsize n) {
  TES_LOCKED(&p->lock);
  return peek_locked(p, buf, n);
}

gssize tes_pipe_peek_begin(TesPipe *p, void *buf, gsize n) {
  TES_LOCKED(&p->lock);
  gssize r = peek_locked(p, buf, n);
  p->splicing = r > 0 || p->splicing;
  return r;
}

void tes_pipe_peek_end(TesPipe *p, gsize used) {
  guint events = POLLIN | POLLRDNORM;
  tes_mutex_lock(&p->lock);
  p->splicing = FALSE;
  if (used)
    consume(p, used, &events);
  tes_mutex_unlock(&p->lock);
  tes_queue_notify(&p->queue, events);
}
