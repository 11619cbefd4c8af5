/* SPDX-License-Identifier: Apache-2.0 */
/* Advisory locks on inodes: flock(2), and the record locks of fcntl(2), owned by a process or by an open file description.
 *
 * One lock guards all of them: deadlock detection needs to see every waiter. A process is its descriptor table, as closing any of its
 * descriptors of an inode drops its locks there. An inode's set exists while it holds locks or waiters; holders keep the inode alive. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <limits.h>
#include <sys/file.h>

#define RECORDS_MAX 65536       /* of one inode */
#define ALL_RECORDS_MAX 1000000 /* of all */

typedef struct {
  gpointer owner; /* TesFdTable, or TesFile for OFD locks and flock */
  gboolean ofd;
  gint pid;           /* root namespace */
  int type;           /* F_RDLCK, F_WRLCK */
  goffset start, end; /* inclusive */
} Record;

typedef struct {
  TesQueue queue;  /* told when any lock goes */
  GArray *records; /* Record, by start */
  GArray *flocks;  /* Record: owner and type only */
  guint waiters;
} LockSet;

/* Who waits for whom, for EDEADLK. On the waiter's stack. */
typedef struct _Waiting {
  struct _Waiting *next;
  gpointer owner, blocker;
} Waiting;

static const TesLockClass locks_class = {"file locks", TES_RANK_FILE, FALSE,
                                         "advisory locks of all inodes and who waits for them"};
static Waiting *waiting; /* guarded by the lock below, as is the count */
static guint all_records;

static TesMutex *locks_mutex(void) {
  static TesMutex lock;
  static gsize once;
  if (g_once_init_enter(&once)) {
    tes_mutex_init(&lock, &locks_class);
    g_once_init_leave(&once, 1);
  }
  return &lock;
}

static LockSet *get_set(TesInode *inode) {
  LockSet *s = inode->locks;
  if (!s) {
    s = g_new0(LockSet, 1);
    tes_queue_init(&s->queue);
    s->records = g_array_new(FALSE, FALSE, sizeof(Record));
    s->flocks = g_array_new(FALSE, FALSE, sizeof(Record));
    g_atomic_pointer_set(&inode->locks, s);
  }
  return s;
}

static void put_set(TesInode *inode) {
  LockSet *s = inode->locks;
  if (!s || s->records->len || s->flocks->len || s->waiters)
    return;
  g_atomic_pointer_set(&inode->locks, NULL);
  tes_queue_clear(&s->queue);
  g_array_unref(s->records);
  g_array_unref(s->flocks);
  g_free(s);
}

#define RECORD(array, i) (&g_array_index(array, Record, i))

static Record *find_conflict(GArray *a, const Record *want) {
  for (guint i = 0; i < a->len; i++) {
    Record *r = RECORD(a, i);
    if (r->owner != want->owner && r->start <= want->end && want->start <= r->end &&
        (r->type == F_WRLCK || want->type == F_WRLCK))
      return r;
  }
  return NULL;
}

static void insert_record(GArray *a, const Record *r) {
  guint i = 0;
  while (i < a->len && RECORD(a, i)->start < r->start)
    i++;
  g_array_insert_val(a, i, *r);
}

/* Gives [start, end] of the owner the type of `want` (F_UNLCK: none): cuts its older records and joins equal neighbours. */
static void apply_record(GArray *a, const Record *want) {
  guint before = a->len;
  Record merged = *want;
  for (guint i = 0; i < a->len;) {
    Record r = *RECORD(a, i);
    gboolean joins = r.type == want->type &&
                     r.start <= (merged.end == G_MAXINT64 ? merged.end : merged.end + 1) &&
                     merged.start <= (r.end == G_MAXINT64 ? r.end : r.end + 1);
    gboolean overlaps = r.start <= want->end && want->start <= r.end;
    if (r.owner != want->owner || !(joins || overlaps)) {
      i++;
      continue;
    }
    g_array_remove_index(a, i);
    if (joins) {
      merged.start = MIN(merged.start, r.start);
      merged.end = MAX(merged.end, r.end);
      i = 0; /* the larger range may meet earlier ones */
      continue;
    }
    Record left = r, right = r;
    left.end = want->start - 1;
    right.start = want->end == G_MAXINT64 ? 0 : want->end + 1;
    if (r.start < want->start)
      insert_record(a, &left);
    if (r.end > want->end)
      insert_record(a, &right);
    i = 0;
  }
  if (want->type != F_UNLCK)
    insert_record(a, &merged);
  all_records += a->len - before;
}

static gboolean would_deadlock(gpointer me, gpointer blocker) {
  for (guint depth = 0; depth < 64; depth++) {
    Waiting *w = waiting;
    while (w && w->owner != blocker)
      w = w->next;
    if (!w)
      return FALSE;
    if (w->blocker == me)
      return TRUE;
    blocker = w->blocker;
  }
  return FALSE;
}

static void forget_waiting(Waiting *me) {
  for (Waiting **p = &waiting; *p; p = &(*p)->next)
    if (*p == me) {
      *p = me->next;
      return;
    }
}

/* One attempt, lock held: 0 done, -EAGAIN with the blocking record's owner in *blocker. */
static int try_lock(LockSet *s, const Record *want, gboolean flock_, gpointer *blocker) {
  GArray *a = flock_ ? s->flocks : s->records;
  Record *c = want->type == F_UNLCK ? NULL : find_conflict(a, want);
  if (c) {
    *blocker = c->owner;
    return -EAGAIN;
  }
  if (want->type != F_UNLCK && (a->len >= RECORDS_MAX || all_records >= ALL_RECORDS_MAX))
    return -ENOLCK;
  apply_record(a, want);
  return 0;
}

/* Sleeps until something on the inode was unlocked. Lock held on entry and exit, not meanwhile. */
static int wait_unlock(LockSet *s, TesTask *t, TesWaiter *w) {
  tes_mutex_unlock(locks_mutex());
  int r = tes_task_block(t, TES_TIME_INFINITE);
  tes_mutex_lock(locks_mutex());
  return r < 0 ? -TES_ERESTARTSYS : 0;
}

static int set_lock(TesTask *t, TesInode *inode, const Record *want, gboolean flock_, gboolean block) {
  TES_LOCKED(locks_mutex());
  LockSet *s = get_set(inode);
  gpointer blocker = NULL;
  int r = try_lock(s, want, flock_, &blocker);
  if (r == -EAGAIN && block) {
    TesWaiter w;
    Waiting me = {.owner = want->owner};
    s->waiters++;
    tes_waiter_init_task(&w, t, POLLIN);
    tes_queue_add(&s->queue, &w);
    while ((r = try_lock(s, want, flock_, &blocker)) == -EAGAIN) {
      gboolean posix = !flock_ && !want->ofd;
      if (posix && would_deadlock(want->owner, blocker)) {
        r = -EDEADLK;
        break;
      }
      me.blocker = blocker;
      me.next = waiting;
      if (posix)
        waiting = &me;
      r = wait_unlock(s, t, &w);
      if (posix)
        forget_waiting(&me);
      if (r < 0)
        break;
    }
    tes_waiter_remove(&w);
    s->waiters--;
  }
  /* An unlock, but also a downgrade or a split, may let others in. */
  if (r == 0 && s->waiters)
    tes_queue_notify(&s->queue, POLLIN);
  put_set(inode);
  return r;
}

/* ---- flock ---- */

int tes_lock_flock(TesTask *t, TesFile *f, int op) {
  gboolean block = !(op & LOCK_NB);
  int type = (op & ~LOCK_NB) == LOCK_SH   ? F_RDLCK
             : (op & ~LOCK_NB) == LOCK_EX ? F_WRLCK
             : (op & ~LOCK_NB) == LOCK_UN ? F_UNLCK
                                          : -1;
  if (type < 0)
    return -EINVAL;
  if (!f->inode)
    return -EINVAL;
  Record want = {.owner = f, .ofd = TRUE, .type = F_UNLCK, .start = 0, .end = G_MAXINT64};
  want.pid = t->tg->tgid;
  if (type != F_UNLCK) {
    /* A conversion gives the old lock up first unless it already fits (flock(2)). */
    want.type = type;
    int r = set_lock(t, f->inode, &want, TRUE, FALSE);
    if (r != -EAGAIN)
      return r;
    Record unlock = want;
    unlock.type = F_UNLCK;
    set_lock(t, f->inode, &unlock, TRUE, FALSE);
  }
  int r = set_lock(t, f->inode, &want, TRUE, block);
  return r == -EAGAIN ? -EWOULDBLOCK : r;
}

/* ---- fcntl ---- */

/* Kernel layout of struct flock on x86-64 is the C library's. */
static int to_range(TesTask *t, TesFile *f, const struct flock *fl, Record *want) {
  goffset base = 0;
  if (fl->l_whence == SEEK_CUR) {
    TES_LOCKED(&f->pos_lock);
    base = f->pos;
  } else if (fl->l_whence == SEEK_END) {
    TesAttr a;
    int r = tes_file_getattr(f, tes_task_ctx(t), &a);
    if (r < 0)
      return r;
    base = (goffset)a.size;
  } else if (fl->l_whence != SEEK_SET) {
    return -EINVAL;
  }
  goffset start, end;
  if (__builtin_add_overflow(base, (goffset)fl->l_start, &start))
    return -EOVERFLOW;
  if (start < 0)
    return -EINVAL;
  if (fl->l_len > 0) {
    if (__builtin_add_overflow(start, (goffset)fl->l_len - 1, &end))
      return -EOVERFLOW;
  } else if (fl->l_len < 0) {
    end = start - 1;
    if (__builtin_add_overflow(start, (goffset)fl->l_len, &start) || start < 0)
      return -EINVAL;
  } else {
    end = G_MAXINT64;
  }
  want->start = start;
  want->end = end;
  return 0;
}

static glong get_lock(TesTask *t, TesFile *f, const Record *want, struct flock *fl, gulong arg) {
  tes_mutex_lock(locks_mutex());
  LockSet *s = f->inode->locks;
  Record *c = s ? find_conflict(s->records, want) : NULL;
  gint pid = 0;
  if (c) {
    fl->l_type = (short)c->type;
    fl->l_whence = SEEK_SET;
    fl->l_start = c->start;
    fl->l_len = c->end == G_MAXINT64 ? 0 : c->end - c->start + 1;
    pid = c->ofd ? -1 : c->pid;
  } else {
    fl->l_type = F_UNLCK;
  }
  tes_mutex_unlock(locks_mutex());
  if (c) {
    g_autoptr(TesTask) holder = pid > 0 ? tes_task_find(f->kernel, NULL, pid, TRUE) : NULL;
    fl->l_pid = holder ? tes_task_pid(holder, tes_ctx_pid_ns(tes_task_ctx(t))) : pid < 0 ? -1 : 0;
  }
  return tes_copy_out(t, arg, fl, sizeof *fl);
}

glong tes_lock_fcntl(TesTask *t, int fd, TesFile *f, int cmd, gulong arg) {
  struct flock fl;
  gboolean ofd = cmd == F_OFD_GETLK || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW;
  gboolean get = cmd == F_GETLK || cmd == F_OFD_GETLK;
  if (tes_copy_in(t, &fl, arg, sizeof fl) < 0)
    return -EFAULT;
  if (fl.l_type != F_RDLCK && fl.l_type != F_WRLCK && (fl.l_type != F_UNLCK || get))
    return -EINVAL;
  if ((ofd && fl.l_pid != 0) || !f->inode)
    return -EINVAL;
  Record want = {.owner = ofd ? (gpointer)f : (gpointer)tes_task_fdtable(t), .ofd = ofd, .type = fl.l_type};
  want.pid = t->tg->tgid;
  int r = to_range(t, f, &fl, &want);
  if (r < 0)
    return r;
  if (get)
    return get_lock(t, f, &want, &fl, arg);
  if ((want.type == F_RDLCK && !tes_file_readable(f)) || (want.type == F_WRLCK && !tes_file_writable(f)))
    return -EBADF;
  r = set_lock(t, f->inode, &want, FALSE, cmd == F_SETLKW || cmd == F_OFD_SETLKW);
  /* Closed by another thread meanwhile: its close found no lock, so it goes here. */
  if (r == 0 && !ofd && want.type != F_UNLCK && !tes_fd_is(t, fd, f)) {
    want.type = F_UNLCK;
    set_lock(t, f->inode, &want, FALSE, FALSE);
    return -EBADF;
  }
  return r;
}

/* ---- The end of owners ---- */

static void drop_owner(TesInode *inode, gpointer owner, gboolean flocks_too) {
  TES_LOCKED(locks_mutex());
  LockSet *s = inode->locks;
  if (!s)
    return;
  Record all = {.owner = owner, .type = F_UNLCK, .start = 0, .end = G_MAXINT64};
  apply_record(s->records, &all);
  if (flocks_too)
    apply_record(s->flocks, &all);
  tes_queue_notify(&s->queue, POLLIN);
  put_set(inode);
}

void tes_lock_fd_closed(TesFile *f, TesFdTable *t) {
  if (f->inode && g_atomic_pointer_get(&f->inode->locks))
    drop_owner(f->inode, t, FALSE);
}

void tes_lock_release(TesFile *f) {
  if (f->inode && g_atomic_pointer_get(&f->inode->locks))
    drop_owner(f->inode, f, TRUE);
}
