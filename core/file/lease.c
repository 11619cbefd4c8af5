/* SPDX-License-Identifier: Apache-2.0 */
/* Leases of fcntl(2): the holder is told, and has time to react, before somebody opens or truncates the file. Kept in one list for
 * the whole kernel: there are few, and without any an open pays one load. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <linux/capability.h>
#include <signal.h>

#define BREAK_TIME (45 * TES_NSEC) /* /proc/sys/fs/lease-break-time, proc(5) */
#define LEASES_MAX 4096

typedef struct {
  TesFile *file; /* holder; drops the lease when it goes */
  TesInode *inode;
  int type;         /* F_RDLCK, F_WRLCK */
  int target;       /* while it is being broken: what it must become, else -1 */
  TesTime deadline; /* of that */
  int fd;           /* si_fd */
} Lease;

static const TesLockClass lease_class = {"leases", TES_RANK_FILE, FALSE, "leases of all files"};
static GPtrArray *leases; /* guarded by the lock below */
static gint n_leases;     /* atomic: its length */
static TesQueue changed;  /* told when a lease goes or shrinks */

static TesMutex *lease_lock(void) {
  static TesMutex lock;
  static gsize once;
  if (g_once_init_enter(&once)) {
    tes_mutex_init(&lock, &lease_class);
    tes_queue_init(&changed);
    leases = g_ptr_array_new_with_free_func(g_free);
    g_once_init_leave(&once, 1);
  }
  return &lock;
}

gboolean tes_lease_any(void) { return g_atomic_int_get(&n_leases) > 0; }

static Lease *find(TesFile *f) {
  for (guint i = 0; i < leases->len; i++)
    if (((Lease *)leases->pdata[i])->file == f)
      return leases->pdata[i];
  return NULL;
}

static void drop(Lease *l) {
  g_ptr_array_remove_fast(leases, l);
  g_atomic_int_set(&n_leases, (gint)leases->len);
  tes_queue_notify(&changed, POLLIN);
}

/* ---- Who else has the file open ---- */

typedef struct {
  TesFile *mine;
  gboolean found;
} Others;

static void look(int fd, TesFile *f, gboolean cloexec, gpointer data) {
  Others *o = data;
  if (f != o->mine && f->inode == o->mine->inode && !(f->flags & O_PATH))
    o->found = TRUE;
}

static gboolean open_elsewhere(TesFile *f) {
  Others o = {f, FALSE};
  g_autoptr(GPtrArray) all = tes_tasks_snapshot(f->kernel, NULL);
  for (guint i = 0; i < all->len && !o.found; i++) {
    TesFdTable *t = tes_task_fdtable_ref(all->pdata[i]);
    if (!t)
      continue;
    tes_fdtable_foreach(t, look, &o);
    tes_fdtable_unref(t, tes_task_ctx(tes_task_current()));
  }
  return o.found;
}

static gboolean refused(TesFile *f, int type) {
  if (type == F_RDLCK)
    return g_atomic_int_get(&f->inode->writers) > 0;
  return type == F_WRLCK && open_elsewhere(f);
}

/* ---- Taking and giving back ---- */

static int add(TesTask *t, TesFile *f, int fd, int type) {
  if (leases->len >= LEASES_MAX)
    return -ENOLCK;
  Lease *l = g_new(Lease, 1);
  *l = (Lease){.file = f, .inode = f->inode, .type = type, .target = -1, .fd = fd};
  g_ptr_array_add(leases, l);
  g_atomic_int_set(&n_leases, (gint)leases->len);
  if (!f->owner) {
    f->owner_type = F_OWNER_PID;
    f->owner_uid = t->cred->uid;
    f->owner_euid = t->cred->euid;
    f->owner = tes_task_pid(t, NULL);
  }
  return 0;
}

static int change(TesTask *t, TesFile *f, int fd, int type) {
  TES_LOCKED(lease_lock());
  Lease *l = find(f);
  if (type == F_UNLCK) {
    if (l)
      drop(l);
    return l ? 0 : -EAGAIN;
  }
  if (!l)
    return add(t, f, fd, type);
  if (l->target >= 0 && (type == F_WRLCK || l->target == F_UNLCK))
    return -EAGAIN;
  l->type = type;
  l->target = -1;
  l->fd = fd;
  tes_queue_notify(&changed, POLLIN);
  return 0;
}

glong tes_lease_set(TesTask *t, TesFile *f, int fd, int type) {
  if (type != F_RDLCK && type != F_WRLCK && type != F_UNLCK)
    return -EINVAL;
  if (type == F_UNLCK)
    return change(t, f, fd, type);
  if (!f->inode || (t->cred->fsuid != f->inode->uid && !tes_task_capable(t, CAP_LEASE)))
    return f->inode ? -EACCES : -EINVAL;
  if (!S_ISREG(f->inode->mode))
    return -EINVAL;
  if (refused(f, type))
    return -EAGAIN;
  int before = tes_lease_get(f);
  int r = change(t, f, fd, type);
  /* Who opened it in between has either met the lease or is found now. */
  if (r == 0 && refused(f, type)) {
    change(t, f, fd, before);
    return -EAGAIN;
  }
  return r;
}

int tes_lease_get(TesFile *f) {
  TES_LOCKED(lease_lock());
  Lease *l = find(f);
  return !l ? F_UNLCK : l->target >= 0 ? l->target : l->type;
}

void tes_lease_release(TesFile *f) {
  TES_LOCKED(lease_lock());
  Lease *l = find(f);
  if (l)
    drop(l);
}

/* ---- Breaking ---- */

/* Tells holders that were not told, takes leases whose time has passed, and says when the next one's does; 0: none is left. */
static TesTime demand(TesInode *inode, TesKernel *k, gboolean write) {
  TesTime now = tes_time_monotonic(k), next = 0;
  for (guint i = 0; i < leases->len; i++) {
    Lease *l = leases->pdata[i];
    if (l->inode != inode || (l->type == F_RDLCK && !write))
      continue;
    int target = write ? F_UNLCK : F_RDLCK;
    if (l->target < 0) {
      l->deadline = now + BREAK_TIME;
      tes_file_signal_owner(l->file, POLL_MSG, l->fd);
    }
    if (l->target != F_UNLCK)
      l->target = target;
    if (now < l->deadline) {
      next = next ? MIN(next, l->deadline) : l->deadline;
    } else if (l->target == F_RDLCK) {
      l->type = F_RDLCK;
      l->target = -1;
    } else {
      drop(l);
      i--;
    }
  }
  return next;
}

int tes_lease_break(TesInode *inode, TesTask *t, guint flags) {
  gboolean write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
  TesTime until;
  TesWaiter w;
  int r = 0;
  tes_mutex_lock(lease_lock());
  tes_waiter_init_task(&w, t, POLLIN);
  tes_queue_add(&changed, &w);
  while (r == 0 && (until = demand(inode, t->kernel, write)) != 0) {
    tes_mutex_unlock(lease_lock());
    r = (flags & O_NONBLOCK) ? -EWOULDBLOCK : tes_task_block(t, until);
    r = r == -ETIMEDOUT ? 0 : r == -EINTR ? -TES_ERESTARTSYS : r;
    tes_mutex_lock(lease_lock());
  }
  tes_waiter_remove(&w);
  tes_mutex_unlock(lease_lock());
  return r;
}
