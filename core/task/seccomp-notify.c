/* SPDX-License-Identifier: Apache-2.0 */
/* User notifications of seccomp(2): a call that a filter hands over waits here, and whoever holds the listening descriptor answers
 * it (seccomp_unotify(2)). A request stands on the stack of the task that waits and is linked as long as it waits. The listener's
 * lock guards all of its requests; descriptors are put into the waiting task's table by that task itself. */
#include <core/file/file.h>
#include <core/task/life.h>
#include <core/task/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>

static const TesLockClass listener_class = {"seccomp listener", TES_RANK_FILE, FALSE,
                                            "calls that wait for an answer"};

typedef enum { FRESH, RECEIVED, REPLIED } State;

/* A descriptor for the waiting task. Under the listener's lock. */
typedef struct {
  gint refs;
  TesFile *file;
  gint newfd; /* -1: any */
  gboolean cloexec, reply, done;
  glong result;
  TesTask *sender; /* borrowed while it waits, else NULL */
} AddFd;

typedef struct {
  guint64 id;
  State state;
  TesTask *task;
  const struct seccomp_data *data;
  gint error;
  gint64 value;
  gboolean go_on; /* SECCOMP_USER_NOTIF_FLAG_CONTINUE */
  GQueue fds;     /* AddFd, referenced */
} Request;

struct _TesListener {
  gint refs; /* the file, and the filter */
  gint dead; /* atomic: no task has the filter any more */
  gboolean wait_killable;
  TesMutex lock;
  TesQueue queue;
  GQueue requests; /* Request */
  guint64 last_id;
  gboolean closed;
};

typedef struct {
  TesFile file;
  TesListener *l;
} ListenerFile;

void tes_listener_unref(TesListener *l) {
  if (!l || !g_atomic_int_dec_and_test(&l->refs))
    return;
  tes_queue_clear(&l->queue);
  tes_mutex_clear(&l->lock);
  g_free(l);
}

void tes_listener_abandon(TesListener *l) {
  if (!l)
    return;
  g_atomic_int_set(&l->dead, 1);
  tes_queue_notify(&l->queue, POLLHUP);
  tes_listener_unref(l);
}

static void addfd_unref(AddFd *a) { /* lock held, or nobody else has it */
  if (--a->refs)
    return;
  g_free(a);
}

static void addfd_finish(AddFd *a, glong result) {
  a->done = TRUE;
  a->result = result;
  if (a->sender)
    tes_task_wake(a->sender);
  addfd_unref(a);
}

/* ---- The side that waits ---- */

/* Lock held; dropped meanwhile. */
static void take_fd(TesListener *l, Request *r, AddFd *a) {
  g_autoptr(TesFile) f = g_steal_pointer(&a->file);
  tes_mutex_unlock(&l->lock);
  glong fd = a->newfd >= 0 ? tes_fd_replace(r->task, f, a->newfd, a->cloexec)
                           : tes_fd_install(r->task, f, 0, a->cloexec);
  tes_mutex_lock(&l->lock);
  if (a->reply && r->state == REPLIED && fd < 0 && !l->closed)
    r->state = RECEIVED; /* still to be answered */
  else if (a->reply && fd >= 0)
    r->error = 0, r->value = fd;
  addfd_finish(a, fd);
}

/* 0: answered; -TES_ERESTARTSYS. */
static int wait_for_answer(TesListener *l, Request *r) {
  int interrupted = 0;
  tes_mutex_lock(&l->lock);
  while (!interrupted) {
    AddFd *a = g_queue_pop_head(&r->fds);
    if (a) {
      take_fd(l, r, a);
      continue;
    }
    if (r->state == REPLIED)
      break;
    gboolean killable = l->wait_killable && r->state == RECEIVED;
    tes_mutex_unlock(&l->lock);
    interrupted = killable ? tes_task_block_killable(r->task, TES_TIME_INFINITE)
                           : tes_task_block(r->task, TES_TIME_INFINITE);
    tes_mutex_lock(&l->lock);
    if (interrupted && l->wait_killable && !killable && r->state == RECEIVED && !tes_task_is_killed(r->task))
      interrupted = 0; /* received while a signal came: it waits for the answer */
  }
  gboolean answered = r->state == REPLIED && g_queue_is_empty(&r->fds);
  g_queue_remove(&l->requests, r);
  GSList *left = NULL;
  for (AddFd *a; (a = g_queue_pop_head(&r->fds));) {
    left = g_slist_prepend(left, g_steal_pointer(&a->file));
    addfd_finish(a, -ESRCH);
  }
  tes_mutex_unlock(&l->lock);
  g_slist_free_full(left, (GDestroyNotify)tes_file_unref);
  return answered ? 0 : -TES_ERESTARTSYS;
}

gboolean tes_listener_ask(TesListener *l, TesTask *t, const struct seccomp_data *d, glong *result) {
  Request r = {.task = t, .data = d, .fds = G_QUEUE_INIT};
  *result = -ENOSYS;
  tes_mutex_lock(&l->lock);
  gboolean closed = l->closed;
  if (!closed) {
    r.id = ++l->last_id;
    g_queue_push_tail(&l->requests, &r);
  }
  tes_mutex_unlock(&l->lock);
  if (closed)
    return FALSE;
  tes_queue_notify(&l->queue, POLLIN | POLLRDNORM);
  int e = wait_for_answer(l, &r);
  if (e < 0) {
    *result = e;
    return FALSE;
  }
  if (r.go_on)
    return TRUE;
  *result = r.error ? r.error : r.value;
  t->no_result = TRUE; /* to the guest as it is: it may look like one of the core's restart codes */
  t->exec->ops->set_result(t->exec, (gulong)*result);
  return FALSE;
}

/* ---- The side that answers ---- */

static Request *find_state(TesListener *l, State s) {
  for (GList *i = l->requests.head; i; i = i->next)
    if (((Request *)i->data)->state == s)
      return i->data;
  return NULL;
}

static Request *find_id(TesListener *l, guint64 id) {
  for (GList *i = l->requests.head; i; i = i->next)
    if (((Request *)i->data)->id == id)
      return i->data;
  return NULL;
}

static void fill_notif(TesListener *l, TesTask *t, struct seccomp_notif *n, Request *r) {
  *n = (struct seccomp_notif){.id = r->id, .data = *r->data};
  n->pid = (guint32)tes_pid_in(tes_pid_of(r->task->nrs), t->ns_pid);
  r->state = RECEIVED;
  if (l->wait_killable)
    tes_task_wake(r->task); /* it waits in another way now */
}

/* The oldest request that nobody received; 0, -EAGAIN, or -ENOENT: there will be none. */
static int try_receive(TesListener *l, TesTask *t, struct seccomp_notif *n) {
  TES_LOCKED(&l->lock);
  Request *r = find_state(l, FRESH);
  if (!r)
    return g_atomic_int_get(&l->dead) ? -ENOENT : -EAGAIN;
  fill_notif(l, t, n, r);
  return 0;
}

static glong receive(TesListener *l, TesTask *t, gulong to) {
  struct seccomp_notif n;
  static const struct seccomp_notif zero;
  if (tes_copy_in(t, &n, to, sizeof n) < 0)
    return -EFAULT;
  if (memcmp(&n, &zero, sizeof n))
    return -EINVAL;
  TesWaiter w;
  tes_waiter_init_task(&w, t, POLLIN);
  tes_queue_add(&l->queue, &w);
  int r;
  while ((r = try_receive(l, t, &n)) == -EAGAIN && (r = tes_task_block(t, TES_TIME_INFINITE)) == 0)
    ;
  tes_waiter_remove(&w);
  if (r < 0)
    return r == -EINTR ? -TES_ERESTARTSYS : r;
  if (tes_copy_out(t, to, &n, sizeof n) == 0) {
    tes_queue_notify(&l->queue, POLLOUT | POLLWRNORM);
    return 0;
  }
  tes_mutex_lock(&l->lock);
  Request *back = find_id(l, n.id);
  if (back && back->state == RECEIVED)
    back->state = FRESH;
  tes_mutex_unlock(&l->lock);
  tes_queue_notify(&l->queue, POLLIN | POLLRDNORM);
  return -EFAULT;
}

static glong answer(TesListener *l, TesTask *t, gulong from) {
  struct seccomp_notif_resp a;
  if (tes_copy_in(t, &a, from, sizeof a) < 0)
    return -EFAULT;
  gboolean go_on = a.flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  if (a.flags & ~SECCOMP_USER_NOTIF_FLAG_CONTINUE || (go_on && (a.error || a.val)))
    return -EINVAL;
  TES_LOCKED(&l->lock);
  Request *r = find_id(l, a.id);
  if (!r)
    return -ENOENT;
  if (r->state != RECEIVED)
    return -EINPROGRESS;
  r->state = REPLIED;
  r->error = a.error;
  r->value = a.val;
  r->go_on = go_on;
  tes_task_wake(r->task);
  return 0;
}

static glong is_id_valid(TesListener *l, TesTask *t, gulong from) {
  guint64 id;
  if (tes_copy_in(t, &id, from, sizeof id) < 0)
    return -EFAULT;
  TES_LOCKED(&l->lock);
  Request *r = find_id(l, id);
  return r && r->state == RECEIVED ? 0 : -ENOENT;
}

/* Locked: enters the descriptor for the waiting task. */
static int offer_fd(TesListener *l, guint64 id, AddFd *a) {
  Request *r = find_id(l, id);
  if (!r)
    return -ENOENT;
  if (r->state != RECEIVED)
    return -EINPROGRESS;
  if (a->reply && !g_queue_is_empty(&r->fds))
    return -EBUSY;
  if (a->reply) {
    r->state = REPLIED;
    r->go_on = FALSE;
  }
  a->refs++;
  g_queue_push_tail(&r->fds, a);
  tes_task_wake(r->task);
  return 0;
}

/* Takes back what the waiting task has not begun to take. Locked; FALSE: it has. */
static gboolean withdraw_fd(TesListener *l, guint64 id, AddFd *a) {
  Request *r = find_id(l, id);
  if (!r || !g_queue_remove(&r->fds, a))
    return FALSE;
  if (a->reply)
    r->state = RECEIVED;
  a->refs--;
  return TRUE;
}

/* A signal takes it back, unless the waiting task is at it: then it will be done soon. */
static glong pass_fd(TesListener *l, TesTask *t, guint64 id, AddFd *a) {
  tes_mutex_lock(&l->lock);
  glong r = offer_fd(l, id, a);
  gboolean taken = FALSE;
  while (r == 0 && !a->done) {
    tes_mutex_unlock(&l->lock);
    int e = taken ? tes_task_block_killable(t, TES_TIME_INFINITE) : tes_task_block(t, TES_TIME_INFINITE);
    tes_mutex_lock(&l->lock);
    if (e == 0 || a->done)
      continue;
    if (taken || withdraw_fd(l, id, a))
      r = taken ? -EINTR : -TES_ERESTARTSYS;
    taken = TRUE;
  }
  if (r == 0)
    r = a->result;
  a->sender = NULL;
  TesFile *left = g_steal_pointer(&a->file);
  addfd_unref(a);
  tes_mutex_unlock(&l->lock);
  if (left)
    tes_file_unref(left);
  return r;
}

static glong add_fd(TesListener *l, TesTask *t, gulong from) {
  struct seccomp_notif_addfd in;
  if (tes_copy_in(t, &in, from, sizeof in) < 0)
    return -EFAULT;
  gboolean set = in.flags & SECCOMP_ADDFD_FLAG_SETFD;
  if (in.newfd_flags & ~(guint32)O_CLOEXEC ||
      in.flags & ~(SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND) || (in.newfd && !set))
    return -EINVAL;
  if (set && in.newfd > G_MAXINT32)
    return -EBADF;
  TesFile *f = tes_fd_get(t, (int)in.srcfd);
  if (!f)
    return -EBADF;
  AddFd *a = g_new0(AddFd, 1);
  *a = (AddFd){
      .refs = 1, .file = f, .newfd = set ? (gint)in.newfd : -1, .cloexec = in.newfd_flags != 0, .sender = t};
  a->reply = (in.flags & SECCOMP_ADDFD_FLAG_SEND) != 0;
  return pass_fd(l, t, in.id, a);
}

/* The first form of ID_VALID had the direction wrong; both are served. */
#define ID_VALID_WRONG_DIR SECCOMP_IOR(2, __u64)

static glong listener_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  TesListener *l = ((ListenerFile *)f)->l;
  switch (cmd) {
  case SECCOMP_IOCTL_NOTIF_RECV:
    return receive(l, t, arg);
  case SECCOMP_IOCTL_NOTIF_SEND:
    return answer(l, t, arg);
  case SECCOMP_IOCTL_NOTIF_ID_VALID:
  case ID_VALID_WRONG_DIR:
    return is_id_valid(l, t, arg);
  case SECCOMP_IOCTL_NOTIF_ADDFD:
    return add_fd(l, t, arg);
  default:
    return -EINVAL;
  }
}

static guint listener_poll(TesFile *f) {
  TesListener *l = ((ListenerFile *)f)->l;
  TES_LOCKED(&l->lock);
  return (find_state(l, FRESH) ? POLLIN | POLLRDNORM : 0) |
         (find_state(l, RECEIVED) ? POLLOUT | POLLWRNORM : 0) | (g_atomic_int_get(&l->dead) ? POLLHUP : 0);
}

/* Nobody will answer: those who wait get ENOSYS. */
static void listener_release(TesFile *f) {
  TesListener *l = ((ListenerFile *)f)->l;
  tes_mutex_lock(&l->lock);
  l->closed = TRUE;
  for (GList *i = l->requests.head; i; i = i->next) {
    Request *r = i->data;
    if (r->state == REPLIED)
      continue;
    r->state = REPLIED;
    r->error = -ENOSYS;
    tes_task_wake(r->task);
  }
  tes_mutex_unlock(&l->lock);
  tes_listener_unref(l);
  g_free(f);
}

static char *listener_describe(TesFile *f) {
  (void)f;
  return g_strdup("anon_inode:seccomp notify");
}

static const TesFileOps listener_ops = {
    .size = sizeof(TesFileOps),
    .name = "seccomp notify",
    .poll = listener_poll,
    .ioctl = listener_ioctl,
    .describe = listener_describe,
    .release = listener_release,
};

TesListener *tes_listener_new(TesKernel *k, gboolean wait_killable, TesFile **file) {
  TesListener *l = g_new0(TesListener, 1);
  l->refs = 2;
  l->wait_killable = wait_killable;
  tes_mutex_init(&l->lock, &listener_class);
  tes_queue_init(&l->queue);
  g_queue_init(&l->requests);
  ListenerFile *f = g_new0(ListenerFile, 1);
  tes_file_init(&f->file, k, &listener_ops, O_RDWR);
  f->file.queue = &l->queue;
  f->l = l;
  *file = &f->file;
  return l;
}
