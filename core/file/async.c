/* SPDX-License-Identifier: Apache-2.0 */
/* Signals for files: F_SETOWN, F_SETSIG and O_ASYNC of fcntl(2). A file with O_ASYNC keeps a waiter on its queue; what happens there is
 * sent once the queue's lock has been dropped, by whoever made it happen, so that the signal is there when that call returns. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <signal.h>

struct _TesFileAsync {
  TesWaiter w;
  TesFile *file;
  int fd;      /* number under which O_ASYNC was set: si_fd */
  guint ready; /* terminals: what held when they were last looked at */
};

/* What to send, copied: the file may be gone by then. */
typedef struct {
  TesKernel *kernel;
  gint owner, owner_type;
  guint32 uid, euid;
  int sig, code, fd;
  glong band;
} Note;

static const TesLockClass async_class = {"file owner", TES_RANK_FILE, FALSE, "O_ASYNC of all files"};

static TesMutex *async_lock(void) {
  static TesMutex lock;
  static gsize once;
  if (g_once_init_enter(&once)) {
    tes_mutex_init(&lock, &async_class);
    g_once_init_leave(&once, 1);
  }
  return &lock;
}

static glong band_of(int code) {
  static const glong bands[] = {[POLL_IN] = POLLIN | POLLRDNORM,
                                [POLL_OUT] = POLLOUT | POLLWRNORM | POLLWRBAND,
                                [POLL_MSG] = POLLIN | POLLRDNORM | POLLMSG,
                                [POLL_ERR] = POLLERR,
                                [POLL_PRI] = POLLPRI | POLLRDBAND,
                                [POLL_HUP] = POLLHUP | POLLERR};
  return bands[code];
}

/* fcntl(2): the owner's ids must permit a signal from who set the owner. */
static gboolean permitted(const Note *n, TesTask *t) {
  TES_LOCKED(&t->lock);
  TesCred *c = t->cred;
  return c &&
         (n->euid == 0 || n->euid == c->suid || n->euid == c->uid || n->uid == c->suid || n->uid == c->uid);
}

static gboolean has_own_codes(int sig) {
  return sig == SIGILL || sig == SIGFPE || sig == SIGSEGV || sig == SIGBUS || sig == SIGTRAP ||
         sig == SIGCHLD || sig == SIGSYS;
}

/* Without F_SETSIG, or when the queue is full: a plain SIGIO. */
static void send_to(const Note *n, TesTask *t) {
  if (!permitted(n, t))
    return;
  gboolean one = n->owner_type == F_OWNER_TID;
  if (n->sig) {
    siginfo_t info = {.si_signo = n->sig, .si_code = has_own_codes(n->sig) ? SI_SIGIO : n->code};
    info.si_band = n->band;
    info.si_fd = n->fd;
    if ((one ? tes_signal_task(t, n->sig, &info) : tes_signal_group(t->tg, n->sig, &info)) != -EAGAIN)
      return;
  }
  if (one)
    tes_signal_task(t, SIGIO, NULL);
  else
    tes_signal_group(t->tg, SIGIO, NULL);
}

static void send_note(gpointer data) {
  Note *n = data;
  if (n->owner > 0) {
    g_autoptr(TesTask) t = tes_task_find(n->kernel, NULL, n->owner, n->owner_type != F_OWNER_TID);
    if (t)
      send_to(n, t);
  } else {
    g_autoptr(GPtrArray) all = tes_tasks_snapshot(n->kernel, NULL);
    for (guint i = 0; i < all->len; i++)
      if (tes_task_pgid(all->pdata[i], NULL) == -n->owner)
        send_to(n, all->pdata[i]);
  }
  g_free(n);
}

static Note *make_note(TesFile *f, int code, int fd) {
  if (!f->owner)
    return NULL;
  Note *n = g_new(Note, 1);
  *n = (Note){.kernel = f->kernel,
              .owner = f->owner,
              .owner_type = f->owner_type,
              .uid = f->owner_uid,
              .euid = f->owner_euid,
              .sig = f->sigio,
              .code = code,
              .fd = fd,
              .band = band_of(code)};
  return n;
}

void tes_file_signal_owner(TesFile *f, int code, int fd) {
  Note *n = make_note(f, code, fd);
  if (n)
    send_note(n);
}

static int code_of(TesFile *f, guint mask) {
  gboolean socket = TES_HAS(f->ops, sock);
  if (socket && (mask & POLLHUP))
    return POLL_HUP;
  if (mask & POLLPRI)
    return POLL_PRI;
  if ((mask & (POLLIN | POLLRDNORM)) && tes_file_readable(f))
    return POLL_IN;
  if ((mask & (POLLOUT | POLLWRNORM)) && tes_file_writable(f))
    return POLL_OUT;
  return (mask & POLLERR) && socket ? POLL_ERR : 0;
}

/* Terminals announce every change as everything: what counts is what holds now and did not before. Consumes the reference. */
static void look_at_tty(gpointer data) {
  g_autoptr(TesFile) f = data;
  guint now = tes_file_poll(f);
  tes_mutex_lock(async_lock());
  guint came = f->async ? now & ~f->async->ready : 0;
  int fd = f->async ? f->async->fd : -1, code = code_of(f, came);
  if (f->async)
    f->async->ready = now;
  tes_mutex_unlock(async_lock());
  if (code)
    tes_file_signal_owner(f, code, fd);
}

/* Under the queue's lock: only noted. */
static gboolean happened(TesWaiter *w, guint mask, gpointer key) {
  struct _TesFileAsync *a = w->data;
  if (TES_HAS(a->file->ops, tty)) {
    if (tes_file_try_ref(a->file))
      tes_queue_after(look_at_tty, a->file);
    return FALSE;
  }
  int code = code_of(a->file, mask);
  Note *n = code ? make_note(a->file, code, a->fd) : NULL;
  if (n)
    tes_queue_after(send_note, n);
  return FALSE;
}

gboolean tes_file_can_async(TesFile *f) {
  return (f->ops->flags & TES_FILE_ASYNC) || TES_HAS(f->ops, sock) || TES_HAS(f->ops, tty) ||
         tes_file_pipe(f);
}

void tes_file_set_async(TesFile *f, int fd, gboolean on) {
  TES_LOCKED(async_lock());
  if (on && f->async) {
    f->async->fd = fd;
  } else if (on) {
    f->async = g_new0(struct _TesFileAsync, 1);
    f->async->file = f;
    f->async->fd = fd;
    f->async->w = (TesWaiter){
        .mask = POLLIN | POLLRDNORM | POLLPRI | POLLOUT | POLLWRNORM, .fn = happened, .data = f->async};
    tes_queue_add(f->queue, &f->async->w);
  } else if (f->async) {
    tes_waiter_remove(&f->async->w);
    g_clear_pointer(&f->async, g_free);
  }
}
