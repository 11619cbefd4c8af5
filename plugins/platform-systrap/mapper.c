/* SPDX-License-Identifier: Apache-2.0 */
/* A stub process as its kernel sees it: the mapper, its first thread, and what it is told.
 *
 * Orders stand in a page that only this process can write; a bell, a futex word in it, says that there are new ones. Answers
 * come over a socket, and only as lengths: no byte is believed that a guest could have written. The end of the process
 * closes the socket. Callers serialise batches (StAspace.lock, StPlatform.seed_lock). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "../platform-common/birth.h"
#include "private.h"

void st_numbers_init(StNumbers *n, guint max) {
  *n = (StNumbers){g_array_new(FALSE, FALSE, sizeof(guint)), 0, max};
}

gboolean st_number_take(StNumbers *n, guint *out) {
  if (n->free->len) {
    *out = g_array_index(n->free, guint, n->free->len - 1);
    g_array_set_size(n->free, n->free->len - 1);
    return TRUE;
  }
  if (n->next == n->max)
    return FALSE;
  *out = n->next++;
  return TRUE;
}

void st_number_give(StNumbers *n, guint number) { g_array_append_val(n->free, number); }

StMapper *st_mapper_new(StPlatform *p, int *theirs) {
  const int one = 1;
  guint page;
  st_sweep(p, 0);
  g_mutex_lock(&p->lock);
  gboolean ok = st_number_take(&p->pages, &page);
  g_mutex_unlock(&p->lock);
  if (!ok) {
    st_sweep(p, 100);
    errno = EAGAIN;
    return NULL;
  }
  StMapper *m = g_new0(StMapper, 1);
  m->page = page;
  m->pidfd = -1;
  m->orders = (StOrders *)(p->ro + ST_RO_ORDERS + (gsize)page * ST_PAGE);
  memset(m->orders, 0, sizeof *m->orders);
  m->mem_fd = m->cpu = m->sock = -1;
  m->alone = TRUE;
  g_mutex_init(&m->kick_lock);
  if (birth_socket_pair(&m->sock, theirs) &&
      setsockopt(m->sock, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0)
    return m;
  int error = errno;
  if (m->sock >= 0)
    close(*theirs);
  st_mapper_free(p, m);
  errno = error;
  return NULL;
}

void st_mapper_free(StPlatform *p, StMapper *m) {
  g_mutex_lock(&p->lock);
  st_number_give(&p->pages, m->page);
  g_mutex_unlock(&p->lock);
  if (m->sock >= 0)
    close(m->sock);
  if (m->pidfd >= 0)
    close(m->pidfd);
  g_mutex_clear(&m->kick_lock);
  g_free(m);
}

/* ---- The end of a process ---- */

void st_mapper_kill(const StMapper *m) {
  if (m->pidfd >= 0)
    syscall(SYS_pidfd_send_signal, m->pidfd, SIGKILL, NULL, 0);
}

gboolean st_mapper_gone(const StMapper *m, int ms) {
  struct pollfd fd = {m->pidfd, POLLIN, 0};
  int r;
  if (m->pidfd < 0)
    return TRUE;
  while ((r = poll(&fd, 1, ms)) < 0 && errno == EINTR)
    ;
  return r > 0;
}

void st_sweep(StPlatform *p, int ms) {
  for (guint i = 0;;) {
    StGrave g = {NULL, NULL, NULL};
    g_mutex_lock(&p->lock);
    for (; i < p->graves->len && !g.mapper; i++)
      if (st_mapper_gone(g_array_index(p->graves, StGrave, i).mapper, i == 0 ? ms : 0)) {
        g = g_array_index(p->graves, StGrave, i);
        g_array_remove_index(p->graves, i--);
      }
    g_mutex_unlock(&p->lock);
    if (!g.mapper)
      return;
    for (guint j = 0; j < g.threads->len; j++)
      st_thread_free(p, g_ptr_array_index(g.threads, j));
    g_ptr_array_unref(g.threads);
    st_family_unref(p, g.family);
    st_mapper_free(p, g.mapper);
  }
}

void st_bury(StPlatform *p, StMapper *m, GPtrArray *threads, StFamily *family) {
  StGrave g = {m, threads, family};
  st_mapper_kill(m);
  close(m->sock);
  m->sock = -1;
  g_mutex_lock(&p->lock);
  g_array_append_val(p->graves, g);
  g_mutex_unlock(&p->lock);
  st_sweep(p, 0);
}

void st_order(StMapper *m, guint nr, guint flags, const gulong args[6]) {
  g_return_if_fail(m->nordered < ST_ORDERS_MAX);
  StOrder *o = &m->orders->list[m->nordered++];
  o->nr = nr;
  o->flags = flags;
  memcpy(o->args, args, sizeof o->args);
}

/* A mapper on another CPU takes ten times longer to answer. */
static void move_here(StPlatform *p, StMapper *m) {
  int cpu = sched_getcpu();
  cpu_set_t set;
  if (p->pairs.ncpus < 2 || cpu == m->cpu || cpu < 0 || cpu >= CPU_SETSIZE || m->alone)
    return;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(m->pid, sizeof set, &set) == 0)
    m->cpu = cpu;
}

static void order_receive(StMapper *m) {
  const gulong receive[6] = {ST_FD_SOCK, ST_AT(tes_st_msghdr), MSG_DONTWAIT};
  st_order(m, SYS_recvmsg, ST_F_MAYFAIL, receive);
}

void st_close_fd(StMapper *m) {
  const gulong in[6] = {ST_FD_IN};
  st_order(m, SYS_close, ST_F_MAYFAIL, in);
}

void st_begin(StPlatform *p, StMapper *m) {
  m->nordered = 0;
  move_here(p, m);
  if (!m->stale_fds)
    return;
  /* A batch of its own: nothing new may be on its way. Some were fetched; then there is nothing to receive. */
  st_close_fd(m);
  for (; m->stale_fds; m->stale_fds--) {
    order_receive(m);
    st_close_fd(m);
  }
  st_batch(m, NULL, NULL, 0);
}

int st_send_fd(StMapper *m, int fd) {
  int r = birth_send_fd(m->sock, fd);
  if (r < 0)
    return r;
  order_receive(m);
  m->stale_fds++; /* until the batch has ended well */
  return 0;
}

/* TRUE: the mapper slept, so that it had done what it was told before. (Or a guest thread waited on this word, to its own
 * harm.) */
static gboolean ring(StMapper *m) {
  __atomic_add_fetch(&m->orders->bell, 1, __ATOMIC_SEQ_CST);
  return syscall(SYS_futex, &m->orders->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0) > 0;
}

void st_ring(StMapper *m) {
  m->orders->list[m->nordered].nr = ST_NR_END;
  m->nordered = 0;
  __atomic_add_fetch(&m->orders->batch, 1, __ATOMIC_SEQ_CST);
  ring(m);
}

/* One answer: its value, or -ESRCH. */
static int receive(StMapper *m) {
  union {
    struct cmsghdr h;
    char space[CMSG_SPACE(sizeof(struct ucred))];
  } control;
  char byte;
  struct iovec iov = {&byte, 1};
  struct msghdr msg = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  struct ucred cred;
  gssize n;
  while ((n = m->alone ? recvmsg(m->sock, &msg, MSG_TRUNC | MSG_CMSG_CLOEXEC)
                       : recv(m->sock, &byte, 1, MSG_TRUNC)) < 0 &&
         errno == EINTR)
    ;
  if (n <= 0)
    return -ESRCH;
  if (m->alone) {
    const int zero = 0;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
      return -ESRCH;
    memcpy(&cred, CMSG_DATA(c), sizeof cred);
    m->pid = cred.pid;
    m->alone = FALSE;
    m->pidfd = (int)syscall(SYS_pidfd_open, m->pid, 0);
    if (m->pidfd < 0) { /* too many files: it has only just answered, so that it is still this process */
      kill(m->pid, SIGKILL);
      return -ESRCH;
    }
    setsockopt(m->sock, SOL_SOCKET, SO_PASSCRED, &zero, sizeof zero);
  }
  return (int)n - 1;
}

gboolean st_alive(const StMapper *m) {
  struct pollfd fd = {m->sock, 0, 0};
  return poll(&fd, 1, 0) <= 0;
}

int st_wait(StMapper *m, guint *failed, pid_t *tids, guint ntids) {
  guint part = 0;
  int r;
  while ((r = receive(m)) >= ST_A_PART) {
    if (part / 3 < ntids)
      tids[part / 3] = (part % 3 ? tids[part / 3] : 0) | (r - ST_A_PART) << 10 * (part % 3);
    part++;
  }
  if (r == 0)
    m->stale_fds = 0;
  if (r <= 0)
    return r;
  int at = receive(m);
  if (at < 0)
    return -ESRCH;
  if (failed)
    *failed = (guint)at;
  return -r;
}

int st_batch(StMapper *m, guint *failed, pid_t *tids, guint ntids) {
  guint kicks = __atomic_load_n(&m->orders->kicks, __ATOMIC_SEQ_CST);
  st_ring(m);
  int r = st_wait(m, failed, tids, ntids);
  __atomic_store_n(&m->drained, kicks, __ATOMIC_RELAXED); /* it looks for them first */
  return r;
}

/* A mapper that is stopped, or waits for a CPU, must not send all that it missed at once: each kick takes a frame on the
 * thread's signal stack, and the host kills a process whose signal stack overflows. So a thread has two kicks on their way at
 * most; what is left out comes with a later tick. */
gboolean st_kick(StMapper *m, StThread *t) {
  gboolean room, enough, slept;
  g_mutex_lock(&m->kick_lock);
  do {
    guint kicks = m->orders->kicks, unsent = kicks - __atomic_load_n(&m->drained, __ATOMIC_RELAXED);
    room = unsent < ST_RING;
    enough = kicks - t->kicks[0] < unsent;
    if (room && !enough) {
      m->orders->ring[kicks % ST_RING] = (guint32)t->tid;
      t->kicks[0] = t->kicks[1];
      t->kicks[1] = __atomic_add_fetch(&m->orders->kicks, 1, __ATOMIC_SEQ_CST);
    }
    slept = ring(m);
    if (slept)
      __atomic_store_n(&m->drained, kicks, __ATOMIC_RELAXED);
  } while (slept && (enough || !room));
  g_mutex_unlock(&m->kick_lock);
  return room || enough;
}

StThread *st_thread_new(StPlatform *p, guint place) {
  guint slot;
  g_mutex_lock(&p->lock);
  gboolean ok = st_number_take(&p->slots, &slot);
  g_mutex_unlock(&p->lock);
  if (!ok) {
    st_sweep(p, 100);
    return NULL;
  }
  StThread *t = g_new0(StThread, 1);
  t->slot = slot;
  t->place = place;
  t->cpu = -1;
  t->in = (StIn *)(p->ro + RO_SLOTS + (gsize)slot * ST_PAGE);
  t->out = (StOut *)(p->rw + (gsize)slot * RW_SLOT);
  memset(t->in, 0, sizeof *t->in);
  t->in->altstack.sp = ST_SLOTS + (gulong)place * ST_SLOT_SIZE + ST_STACK;
  t->in->altstack.size = ST_STACK_SIZE;
  return t;
}

void st_order_thread(StMapper *m, const StThread *t) {
  gulong at = ST_SLOTS + (gulong)t->place * ST_SLOT_SIZE, flags = MAP_SHARED | MAP_FIXED;
  const gulong in[6] = {at, ST_PAGE, PROT_READ, flags, ST_FD_RO, RO_SLOTS + (gulong)t->slot * ST_PAGE};
  const gulong out[6] = {at + ST_OUT, RW_SLOT,  PROT_READ | PROT_WRITE,
                         flags,       ST_FD_RW, (gulong)t->slot * RW_SLOT};
  const gulong clone[6] = {ST_CLONE_THREAD, 0, 0, 0, 0, at};
  st_order(m, SYS_mmap, 0, in);
  st_order(m, SYS_mmap, 0, out);
  st_order(m, SYS_clone, ST_F_THREAD, clone);
}

void st_thread_free(StPlatform *p, StThread *t) {
  /* The next user may be another process: it must not read what is left here. */
  fallocate(p->rw_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)t->slot * RW_SLOT, RW_SLOT);
  g_mutex_lock(&p->lock);
  st_number_give(&p->slots, t->slot);
  g_mutex_unlock(&p->lock);
  g_free(t);
}
