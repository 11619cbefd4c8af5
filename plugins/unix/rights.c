/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages of a send, and descriptors in flight.
 *
 * A socket's file inside a message keeps the socket alive, and the socket's queue may hold that very message: a circle that no
 * close breaks. unix_collect() finds such sockets: their files are referenced by messages only, and those messages sit in queues of
 * sockets of the same kind. Messages with files are queued and taken under the rights lock, so the graph stands still meanwhile;
 * a reference from outside can only be made through a socket that is reachable, which keeps all it holds. */
#include "private.h"
#include <linux/capability.h>

/* ---- Decoding ---- */

static int decode_files(TesTask *t, const struct cmsghdr *h, GPtrArray **files) {
  gsize n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  if (n > UNIX_MAX_FILES || (*files && (*files)->len + n > UNIX_MAX_FILES))
    return -EINVAL;
  if (n && !*files)
    *files = g_ptr_array_new_with_free_func((GDestroyNotify)tes_file_unref);
  for (gsize i = 0; i < n; i++) {
    int fd;
    memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
    TesFile *f = tes_fd_get(t, fd);
    if (!f)
      return -EBADF;
    g_ptr_array_add(*files, f);
    if (f->ops->flags & TES_FILE_UNPASSABLE)
      return -EINVAL;
  }
  return 0;
}

/* One may claim any of one's own ids; more with capabilities (unix(7), SCM_CREDENTIALS). */
static int decode_cred(TesTask *t, const struct cmsghdr *h, struct ucred *cred) {
  struct ucred u;
  if (h->cmsg_len != CMSG_LEN(sizeof u))
    return -EINVAL;
  memcpy(&u, CMSG_DATA(h), sizeof u);
  TesCred *c = tes_task_cred(t);
  TesNs *ns = tes_ctx_pid_ns(tes_task_ctx(t));
  g_autoptr(TesTask) who = tes_task_find(tes_task_kernel(t), ns, u.pid, TRUE);
  gint own = tes_task_pid(t, NULL), claimed = who ? tes_task_pid(who, NULL) : 0;
  if (claimed != own && !tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  if (!who)
    return -ESRCH;
  if (u.uid != c->uid && u.uid != c->euid && u.uid != c->suid && !tes_task_capable(t, CAP_SETUID))
    return -EPERM;
  if (u.gid != c->gid && u.gid != c->egid && u.gid != c->sgid && !tes_task_capable(t, CAP_SETGID))
    return -EPERM;
  *cred = (struct ucred){.pid = claimed, .uid = u.uid, .gid = u.gid};
  return 0;
}

int unix_decode_control(TesCtx *ctx, const TesMsg *msg, GPtrArray **files, struct ucred *cred) {
  TesTask *t = tes_ctx_to_task(ctx);
  GPtrArray *list = NULL;
  gsize at = 0;
  int r = 0;
  while (r == 0 && msg->control_len - at >= sizeof(struct cmsghdr)) {
    const struct cmsghdr *h = (const struct cmsghdr *)(msg->control + at);
    if (!t || h->cmsg_len < sizeof *h || h->cmsg_len > msg->control_len - at)
      r = -EINVAL;
    else if (h->cmsg_level == SOL_SOCKET)
      r = h->cmsg_type == SCM_RIGHTS        ? decode_files(t, h, &list)
          : h->cmsg_type == SCM_CREDENTIALS ? decode_cred(t, h, cred)
                                            : -EINVAL;
    if (r == 0)
      at = MIN(at + CMSG_ALIGN(h->cmsg_len), msg->control_len);
  }
  if (r < 0 && list) {
    unix_files_drop(list);
    list = NULL;
  }
  *files = list;
  return r;
}

/* ---- In flight ---- */

static gboolean user_may(UnixKernel *k, TesCtx *ctx, guint32 uid, guint n) {
  TesTask *t = tes_ctx_to_task(ctx);
  guint has = GPOINTER_TO_UINT(g_hash_table_lookup(k->by_user, GUINT_TO_POINTER(uid)));
  if (k->n_in_flight + n > UNIX_MAX_IN_FLIGHT)
    return FALSE;
  return !t || has <= tes_task_rlimit(t, RLIMIT_NOFILE) || tes_task_capable(t, CAP_SYS_RESOURCE) ||
         tes_task_capable(t, CAP_SYS_ADMIN);
}

static void account(UnixKernel *k, guint32 uid, gint by) {
  gpointer key = GUINT_TO_POINTER(uid);
  guint n = (guint)((gint)GPOINTER_TO_UINT(g_hash_table_lookup(k->by_user, key)) + by);
  if (n)
    g_hash_table_insert(k->by_user, key, GUINT_TO_POINTER(n));
  else
    g_hash_table_remove(k->by_user, key);
  k->n_in_flight = (guint)((gint)k->n_in_flight + by);
}

int unix_rights_add(UnixKernel *k, TesCtx *ctx, UnixMsg *m) {
  TesCred *c = tes_ctx_cred(ctx);
  m->files_uid = c ? c->uid : 0;
  if (!user_may(k, ctx, m->files_uid, m->files->len))
    return -ETOOMANYREFS;
  account(k, m->files_uid, (gint)m->files->len);
  for (guint i = 0; i < m->files->len; i++) {
    TesFile *f = g_ptr_array_index(m->files, i);
    if (unix_is_file(f) && g_atomic_int_add(&unix_sock(f)->in_flight, 1) == 0)
      g_hash_table_add(k->in_flight, unix_sock(f));
  }
  return 0;
}

void unix_rights_remove(UnixKernel *k, UnixMsg *m) {
  account(k, m->files_uid, -(gint)m->files->len);
  for (guint i = 0; i < m->files->len; i++) {
    TesFile *f = g_ptr_array_index(m->files, i);
    if (unix_is_file(f) && g_atomic_int_dec_and_test(&unix_sock(f)->in_flight))
      g_hash_table_remove(k->in_flight, unix_sock(f));
  }
}

/* A chain of sockets, each held by a message of the next, would release recursively: the outermost call drains a list instead. */
void unix_files_drop(GPtrArray *files) {
  static __thread GQueue *draining;
  if (draining) {
    g_queue_push_tail(draining, files);
    return;
  }
  GQueue list = G_QUEUE_INIT;
  draining = &list;
  while (files) {
    g_ptr_array_unref(files);
    files = g_queue_pop_head(&list);
  }
  draining = NULL;
}

/* ---- Collecting ---- */

typedef void (*Visit)(UnixSock *holder, UnixSock *held, gpointer data);

static void visit_queue(UnixSock *holder, UnixSock *queue, Visit fn, gpointer data) {
  TES_LOCKED(&queue->lock);
  for (UnixMsg *m = queue->rx.head; m; m = m->next)
    for (guint i = 0; m->files && i < m->files->len; i++) {
      TesFile *f = g_ptr_array_index(m->files, i);
      if (unix_is_file(f) && unix_sock(f)->gc_candidate)
        fn(holder, unix_sock(f), data);
    }
}

/* Whose queues a socket keeps: itself, and connections that wait to be accepted. Owned references. */
static GPtrArray *queues_of(UnixSock *s) {
  GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)unix_sock_unref);
  g_ptr_array_add(all, unix_sock_ref(s));
  TES_LOCKED(&s->lock);
  for (GList *l = s->pending.head; l; l = l->next)
    g_ptr_array_add(all, unix_sock_ref(l->data));
  return all;
}

static void visit(UnixSock *s, Visit fn, gpointer data) {
  g_autoptr(GPtrArray) all = queues_of(s);
  for (guint i = 0; i < all->len; i++)
    visit_queue(s, g_ptr_array_index(all, i), fn, data);
}

static void count_inside(UnixSock *holder, UnixSock *held, gpointer data) { held->gc_refs--; }

static void revive(UnixSock *holder, UnixSock *held, gpointer data) {
  held->gc_candidate = FALSE;
  g_queue_push_tail(data, held);
}

/* Takes the messages with files out of a queue of a garbage socket. Rights lock held. */
static void take_messages(UnixKernel *k, UnixSock *s, UnixMsg **out) {
  TES_LOCKED(&s->lock);
  UnixMsg **p = &s->rx.head;
  while (*p) {
    UnixMsg *m = *p;
    if (!m->files) {
      p = &m->next;
      continue;
    }
    *p = m->next;
    s->rx_bytes -= m->len - m->off;
    s->rx_count--;
    unix_rights_remove(k, m);
    m->next = *out;
    *out = m;
  }
  s->rx.tail = p;
}

static UnixMsg *find_garbage(UnixKernel *k) {
  GHashTableIter iter;
  UnixSock *s;
  UnixMsg *garbage = NULL;
  g_autoptr(GPtrArray) candidates = g_ptr_array_new();
  g_hash_table_iter_init(&iter, k->in_flight);
  while (g_hash_table_iter_next(&iter, (gpointer *)&s, NULL)) {
    s->gc_refs = s->in_flight;
    s->gc_candidate = g_atomic_int_get(&s->file->refs) == s->in_flight;
    if (s->gc_candidate)
      g_ptr_array_add(candidates, s);
  }
  for (guint i = 0; i < candidates->len; i++)
    visit(g_ptr_array_index(candidates, i), count_inside, NULL);
  GQueue alive = G_QUEUE_INIT; /* reached from a message outside the candidates' queues */
  for (guint i = 0; i < candidates->len; i++) {
    s = g_ptr_array_index(candidates, i);
    if (s->gc_refs > 0 && s->gc_candidate)
      revive(NULL, s, &alive);
  }
  while ((s = g_queue_pop_head(&alive)))
    visit(s, revive, &alive);
  for (guint i = 0; i < candidates->len; i++) {
    s = g_ptr_array_index(candidates, i);
    g_autoptr(GPtrArray) all = s->gc_candidate ? queues_of(s) : NULL;
    for (guint q = 0; all && q < all->len; q++)
      take_messages(k, g_ptr_array_index(all, q), &garbage);
    s->gc_candidate = FALSE;
  }
  return garbage;
}

/* A collection looks at all that is in flight: with thousands, not each close makes one, lest they take quadratic time. */
#define PUT_OFF(n) ((n) / 64)

void unix_collect(UnixKernel *k) {
  tes_mutex_lock(&k->rights_lock);
  UnixMsg *garbage = NULL;
  guint n = g_hash_table_size(k->in_flight);
  if (!k->collecting && n > 0 && ++k->put_off > PUT_OFF(n)) {
    k->put_off = 0;
    k->collecting = TRUE;
    garbage = find_garbage(k);
    k->collecting = FALSE;
  }
  tes_mutex_unlock(&k->rights_lock);
  while (garbage) {
    UnixMsg *next = garbage->next;
    unix_msg_free(garbage);
    garbage = next;
  }
}
