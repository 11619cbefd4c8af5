/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptions: life cycle, observers of their end, waiting, and what fstat says of files without an inode.
 *
 * tes_file_init() prepares the base that every kind embeds; the last tes_file_unref() runs the watches, drops the locks,
 * asks the kind to release itself and then lets path and inode go. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <semaphore.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

static const TesLockClass pos_class = {"file position", TES_RANK_FILE_POS, FALSE,
                                       "position of a file description"};
/* Below everything but leaves: watches are added under their owners' locks. */
static const TesLockClass watch_class = {"file watches", TES_RANK_LEAF, FALSE,
                                         "lists of end-of-file-description watches"};

static TesMutex *watch_lock(void) {
  static TesMutex lock;
  static gsize once;
  if (g_once_init_enter(&once)) {
    tes_mutex_init(&lock, &watch_class);
    g_once_init_leave(&once, 1);
  }
  return &lock;
}

/* All descriptions, bounded as Linux does by a share of memory (proc(5), /proc/sys/fs/file-max). */
static gsize n_files;

gboolean tes_file_too_many(void) {
  static gsize max;
  if (g_once_init_enter(&max))
    g_once_init_leave(&max, MAX((gsize)sysconf(_SC_PHYS_PAGES) * TES_PAGE_SIZE / 10240, 8192));
  return __atomic_load_n(&n_files, __ATOMIC_RELAXED) > max;
}

void tes_file_init(TesFile *f, TesKernel *kernel, const TesFileOps *ops, guint flags) {
  memset(f, 0, sizeof *f);
  __atomic_add_fetch(&n_files, 1, __ATOMIC_RELAXED);
  f->ops = ops;
  f->kernel = kernel;
  f->refs = 1;
  f->flags = flags & ~(guint)(O_CLOEXEC | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC);
  f->id = f->ino = kernel ? tes_unique_id(kernel) : 1; /* no kernel: unit tests */
  tes_queue_init(&f->own_queue);
  f->queue = &f->own_queue;
  tes_mutex_init(&f->pos_lock, &pos_class);
}

TesFile *tes_file_ref(TesFile *f) {
  g_atomic_int_inc(&f->refs);
  return f;
}

gboolean tes_file_try_ref(TesFile *f) {
  gint n = g_atomic_int_get(&f->refs);
  while (n > 0)
    if (__atomic_compare_exchange_n(&f->refs, &n, n + 1, TRUE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      return TRUE;
  return FALSE;
}

static void unlink_watch(TesFileWatch *w) {
  *w->link = w->next;
  if (w->next)
    w->next->link = w->link;
  w->next = NULL;
  w->link = NULL;
}

static void run_watches(TesFile *f) {
  TesMutex *lock = watch_lock();
  for (;;) {
    tes_mutex_lock(lock);
    TesFileWatch *w = f->watches;
    if (w)
      unlink_watch(w);
    tes_mutex_unlock(lock);
    if (!w)
      return;
    w->fn(f, w->data);
  }
}

/* Path and inode outlive the kind's release, which may still look at them. */
static void destroy(TesFile *f) {
  tes_notify_file(f, (f->flags & O_ACCMODE) == O_RDONLY ? IN_CLOSE_NOWRITE : IN_CLOSE_WRITE);
  if (g_atomic_pointer_get(&f->watches))
    run_watches(f);
  tes_lock_release(f);
  if (tes_lease_any())
    tes_lease_release(f);
  if (f->async)
    tes_file_set_async(f, -1, FALSE);
  __atomic_sub_fetch(&n_files, 1, __ATOMIC_RELAXED);
  TesPath *path = f->path;
  TesInode *inode = f->inode;
  if (inode && f->writer)
    tes_inode_put_write(inode);
  tes_queue_clear(&f->own_queue);
  tes_mutex_clear(&f->pos_lock);
  if (TES_HAS(f->ops, release))
    f->ops->release(f);
  if (inode)
    tes_inode_unref(inode);
  if (path)
    tes_path_unref(path);
}

void tes_file_unref(TesFile *f) {
  if (f && g_atomic_int_dec_and_test(&f->refs))
    destroy(f);
}

void tes_file_add_watch(TesFile *f, TesFileWatch *w) {
  TES_LOCKED(watch_lock());
  w->next = f->watches;
  w->link = &f->watches;
  if (w->next)
    w->next->link = &w->next;
  f->watches = w;
}

void tes_file_remove_watch(TesFile *f, TesFileWatch *w) {
  TES_LOCKED(watch_lock());
  if (w->link)
    unlink_watch(w);
}

guint tes_file_poll(TesFile *f) {
  return TES_HAS(f->ops, poll) ? f->ops->poll(f) : POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
}

gboolean tes_file_is_regular(TesFile *f) { return f->inode && S_ISREG(f->inode->mode); }

/* ---- Waiting ---- */

static gboolean post_sem(TesWaiter *w, guint mask, gpointer key) {
  sem_post(((TesFileWait *)w->data)->sem);
  return TRUE;
}

void tes_file_wait_begin(TesFileWait *fw, TesFile *f, TesTask *task, guint mask) {
  fw->task = task;
  fw->sem = NULL;
  if (task) {
    tes_waiter_init_task(&fw->w, task, mask);
  } else {
    fw->sem = g_new(sem_t, 1);
    sem_init(fw->sem, 0, 0);
    fw->w = (TesWaiter){.mask = mask, .fn = post_sem, .data = fw};
  }
  tes_queue_add(f->queue, &fw->w);
}

int tes_file_wait_block(TesFileWait *fw, TesTime deadline) {
  if (fw->task)
    return tes_task_block(fw->task, deadline);
  if (deadline == TES_TIME_INFINITE) {
    while (sem_wait(fw->sem) < 0 && errno == EINTR)
      ;
    return 0;
  }
  struct timespec ts = {deadline / TES_NSEC, deadline % TES_NSEC};
  while (sem_clockwait(fw->sem, CLOCK_MONOTONIC, &ts) < 0)
    if (errno == ETIMEDOUT)
      return -ETIMEDOUT;
  return 0;
}

void tes_file_wait_end(TesFileWait *fw) {
  tes_waiter_remove(&fw->w);
  if (fw->sem) {
    sem_destroy(fw->sem);
    g_free(fw->sem);
  }
}

int tes_file_wait(TesFile *f, TesTask *task, guint mask, TesTime deadline) {
  guint want = mask | POLLERR | POLLHUP;
  if (tes_file_poll(f) & want)
    return 0;
  TesFileWait fw;
  tes_file_wait_begin(&fw, f, task, mask);
  int r = 0;
  while (!(tes_file_poll(f) & want) && (r = tes_file_wait_block(&fw, deadline)) == 0)
    ;
  tes_file_wait_end(&fw);
  return r;
}

TesTime tes_file_deadline(TesFile *f, gboolean send) {
  if (!TES_HAS(f->ops, sock) || !TES_HAS(f->ops->sock, timeout))
    return TES_TIME_INFINITE;
  TesTime t = f->ops->sock->timeout(f, send);
  return t > 0 ? tes_time_monotonic(f->kernel) + t : TES_TIME_INFINITE;
}

void tes_file_signal_self(TesTask *t, int sig) {
  siginfo_t info = {.si_signo = sig, .si_code = SI_USER};
  TesNs *ns = tes_ctx_pid_ns(tes_task_ctx(t));
  info.si_pid = tes_task_pid(t, ns);
  info.si_uid = tes_task_cred(t)->uid;
  tes_signal_task(t, sig, &info);
}

/* ---- Attributes ---- */

/* Files without a place: pipes and sockets have disconnected mounts of their own (W4, W6), unless the VFS generation has one for all. */
static guint64 anon_dev(TesKernel *k, guint32 mode) {
  guint kind = !tes_kernel_profile(k)->own_anon_mounts ? 0 : S_ISFIFO(mode) ? 1 : S_ISSOCK(mode) ? 2 : 0;
  guint64 *slot = &k->anon_devs[kind], none = 0;
  if (!__atomic_load_n(slot, __ATOMIC_ACQUIRE)) {
    guint64 fresh = tes_kernel_new_dev(k);
    __atomic_compare_exchange_n(slot, &none, fresh, FALSE, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
  }
  return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

int tes_file_getattr(TesFile *f, TesCtx *ctx, TesAttr *a) {
  if (TES_HAS(f->ops, getattr)) {
    int r = f->ops->getattr(f, ctx, a);
    if (r == 0 && !a->dev)
      a->dev = f->inode ? f->inode->super->dev : anon_dev(f->kernel, a->mode);
    return r;
  }
  if (f->inode)
    return TES_HAS(f->inode->ops, getattr) ? f->inode->ops->getattr(f->inode, ctx, a) : -EIO;
  TesTime now = tes_time_realtime(f->kernel);
  struct timespec ts = {now / TES_NSEC, now % TES_NSEC};
  *a = (TesAttr){.mode = 0600,
                 .nlink = 1,
                 .blksize = 4096,
                 .ino = f->ino,
                 .dev = anon_dev(f->kernel, 0),
                 .atime = ts,
                 .mtime = ts,
                 .ctime = ts};
  return 0;
}

int tes_file_setattr(TesFile *f, TesCtx *ctx, const TesSetAttr *set) {
  if (f->path && (f->path->vfs->ops->mount_flags(f->path) & MS_RDONLY))
    return -EROFS;
  int r = -EPERM;
  if (TES_HAS(f->ops, setattr))
    r = f->ops->setattr(f, ctx, set);
  else if (f->inode && TES_HAS(f->inode->ops, setattr))
    r = f->inode->ops->setattr(f->inode, ctx, set);
  if (r >= 0 && f->path)
    tes_notify_setattr(f->path, set->valid);
  return r;
}

char *tes_file_describe(TesFile *f) {
  if (TES_HAS(f->ops, describe))
    return f->ops->describe(f);
  return g_strdup_printf("anon_inode:[%s]", f->ops->name);
}

const TesStateOps tes_state_file = {.size = sizeof(TesStateOps), .section = "file", .version = 1};
