/* SPDX-License-Identifier: Apache-2.0 */
/* Advisory locks on inodes: flock(2), and the record locks of fcntl(2), owned by a process or by an open file description.
 *
 * One lock guards all of them: deadlock detection needs to see every waiter. A process is its descriptor table, as closing any of its
 * descriptors of a file drops its locks there. A set exists while it has locks or waiters; holders keep its object alive. */
#include <core/file/locks.h>
#include <core/task/task.h>
#include <sys/file.h>
#include <sys/sysmacros.h>

#define RANGES_MAX 65536       /* of one object: ENOLCK */
#define ALL_RANGES_MAX 1000000 /* of all */
#define LISTED_MAX 100000      /* lines of /proc/locks */
#define DEADLOCK_DEPTH 64      /* processes in a circle that are found */

/* The locks of an inode or, of files without one, of what their ends share: the wait queue. */
typedef struct {
  gpointer key; /* TesInode or TesQueue */
  TesInode *inode;
  guint64 ino;
  TesQueue queue; /* told when any lock goes */
  TesLockTable records, flocks;
  GList *link; /* in all_sets */
  guint waiters;
} LockSet;

/* Who waits for whom, for EDEADLK. On the waiter's stack. */
typedef struct _Waiting {
  struct _Waiting *next; /* of the same owner: another thread */
  gpointer owner, blocker;
} Waiting;

static const TesLockClass locks_class = {"file locks", TES_RANK_FILE, FALSE,
                                         "advisory locks of all files and who waits for them"};
/* Guarded by the lock below. */
static GHashTable *waiting; /* owner -> Waiting */
static GHashTable *anon;    /* TesQueue -> LockSet, of files without an inode */
static gint n_anon;         /* atomic: its size */
static GQueue all_sets = G_QUEUE_INIT;

static TesMutex *locks_mutex(void) {
  static TesMutex lock;
  static gsize once;
  if (g_once_init_enter(&once)) {
    tes_mutex_init(&lock, &locks_class);
    waiting = g_hash_table_new(NULL, NULL);
    anon = g_hash_table_new(NULL, NULL);
    g_once_init_leave(&once, 1);
  }
  return &lock;
}

static LockSet *find_set(TesFile *f) {
  return f->inode ? f->inode->locks : g_hash_table_lookup(anon, f->queue);
}

static LockSet *get_set(TesFile *f) {
  LockSet *s = find_set(f);
  if (s)
    return s;
  s = g_new0(LockSet, 1);
  s->inode = f->inode;
  s->key = f->inode ? (gpointer)f->inode : (gpointer)f->queue;
  s->ino = f->inode ? f->inode->ino : f->ino;
  tes_queue_init(&s->queue);
  tes_locktable_init(&s->records);
  tes_locktable_init(&s->flocks);
  g_queue_push_tail(&all_sets, s);
  s->link = all_sets.tail;
  if (f->inode) {
    g_atomic_pointer_set(&f->inode->locks, s);
  } else {
    g_hash_table_insert(anon, s->key, s);
    g_atomic_int_inc(&n_anon);
  }
  return s;
}

static guint all_ranges;

static void put_set(LockSet *s) {
  if (s->records.n || s->flocks.n || s->waiters)
    return;
  if (s->inode) {
    g_atomic_pointer_set(&s->inode->locks, NULL);
  } else {
    g_hash_table_remove(anon, s->key);
    g_atomic_int_add(&n_anon, -1);
  }
  g_queue_delete_link(&all_sets, s->link);
  tes_queue_clear(&s->queue);
  tes_locktable_clear(&s->records);
  tes_locktable_clear(&s->flocks);
  g_free(s);
}

static void apply(TesLockTable *t, const TesLockRange *want) {
  guint before = t->n;
  tes_locktable_apply(t, want);
  all_ranges += t->n - before;
}

static gboolean would_deadlock(gpointer me, gpointer blocker) {
  for (guint depth = 0; depth < DEADLOCK_DEPTH; depth++) {
    Waiting *w = g_hash_table_lookup(waiting, blocker);
    if (!w)
      return FALSE;
    if (w->blocker == me)
      return TRUE;
    blocker = w->blocker;
  }
  return FALSE;
}

static void note_waiting(Waiting *me) {
  me->next = g_hash_table_lookup(waiting, me->owner);
  g_hash_table_insert(waiting, me->owner, me);
}

static void forget_waiting(Waiting *me) {
  Waiting *head = g_hash_table_lookup(waiting, me->owner), **p = &head;
  while (*p != me)
    p = &(*p)->next;
  *p = me->next;
  if (head)
    g_hash_table_insert(waiting, me->owner, head);
  else
    g_hash_table_remove(waiting, me->owner);
}

/* One attempt, lock held: 0 done, -EAGAIN with the blocking range's owner in *blocker. */
static int try_lock(LockSet *s, const TesLockRange *want, gboolean flock_, gpointer *blocker) {
  TesLockTable *t = flock_ ? &s->flocks : &s->records;
  const TesLockRange *c = want->type == F_UNLCK ? NULL : tes_locktable_conflict(t, want);
  if (c) {
    *blocker = c->owner;
    return -EAGAIN;
  }
  if (want->type != F_UNLCK && (t->n >= RANGES_MAX || all_ranges >= ALL_RANGES_MAX))
    return -ENOLCK;
  apply(t, want);
  return 0;
}

/* Sleeps until something on the object was unlocked. Lock held on entry and exit, not meanwhile. */
static int wait_unlock(TesTask *t) {
  tes_mutex_unlock(locks_mutex());
  int r = tes_task_block(t, TES_TIME_INFINITE);
  tes_mutex_lock(locks_mutex());
  return r < 0 ? -TES_ERESTARTSYS : 0;
}

/* The caller has found a conflict. */
static int lock_waiting(TesTask *t, LockSet *s, const TesLockRange *want, gboolean flock_) {
  gboolean posix = !flock_ && !want->ofd;
  Waiting me = {.owner = want->owner};
  TesWaiter w;
  int r;
  s->waiters++;
  tes_waiter_init_task(&w, t, POLLIN);
  tes_queue_add(&s->queue, &w);
  while ((r = try_lock(s, want, flock_, &me.blocker)) == -EAGAIN) {
    if (posix && would_deadlock(want->owner, me.blocker)) {
      r = -EDEADLK;
      break;
    }
    if (posix)
      note_waiting(&me);
    r = wait_unlock(t);
    if (posix)
      forget_waiting(&me);
    if (r < 0)
      break;
  }
  tes_waiter_remove(&w);
  s->waiters--;
  return r;
}

static int set_lock(TesTask *t, TesFile *f, const TesLockRange *want, gboolean flock_, gboolean block) {
  TES_LOCKED(locks_mutex());
  LockSet *s = get_set(f);
  gpointer blocker = NULL;
  int r = try_lock(s, want, flock_, &blocker);
  if (r == -EAGAIN && block)
    r = lock_waiting(t, s, want, flock_);
  /* An unlock, but also a downgrade or a split, may let others in. */
  if (r == 0 && s->waiters)
    tes_queue_notify(&s->queue, POLLIN);
  put_set(s);
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
  TesLockRange want = {.owner = f, .ofd = TRUE, .type = F_UNLCK, .start = 0, .end = G_MAXINT64};
  want.pid = t->tg->tgid;
  if (type != F_UNLCK) {
    /* A conversion gives the old lock up first unless it already fits (flock(2)). */
    want.type = type;
    int r = set_lock(t, f, &want, TRUE, FALSE);
    if (r != -EAGAIN)
      return r;
    TesLockRange unlock = want;
    unlock.type = F_UNLCK;
    set_lock(t, f, &unlock, TRUE, FALSE);
  }
  int r = set_lock(t, f, &want, TRUE, block);
  return r == -EAGAIN ? -EWOULDBLOCK : r;
}

/* ---- fcntl ---- */

/* Kernel layout of struct flock on x86-64 is the C library's. */
static int to_range(TesTask *t, TesFile *f, const struct flock *fl, TesLockRange *want) {
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

static glong get_lock(TesTask *t, TesFile *f, const TesLockRange *want, struct flock *fl, gulong arg) {
  tes_mutex_lock(locks_mutex());
  LockSet *s = find_set(f);
  const TesLockRange *c = s ? tes_locktable_conflict(&s->records, want) : NULL;
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
  if (ofd && get && fl.l_pid != 0)
    return -EINVAL;
  TesLockRange want = {
      .owner = ofd ? (gpointer)f : (gpointer)tes_task_fdtable(t), .ofd = ofd, .type = fl.l_type};
  want.pid = t->tg->tgid;
  int r = to_range(t, f, &fl, &want);
  if (r < 0)
    return r;
  if (get)
    return get_lock(t, f, &want, &fl, arg);
  if ((want.type == F_RDLCK && !tes_file_readable(f)) || (want.type == F_WRLCK && !tes_file_writable(f)))
    return -EBADF;
  if (ofd && fl.l_pid != 0)
    return -EINVAL;
  r = set_lock(t, f, &want, FALSE, cmd == F_SETLKW || cmd == F_OFD_SETLKW);
  /* Closed by another thread meanwhile: its close found no lock, so it goes here. */
  if (r == 0 && !ofd && want.type != F_UNLCK && !tes_fd_is(t, fd, f)) {
    want.type = F_UNLCK;
    set_lock(t, f, &want, FALSE, FALSE);
    return -EBADF;
  }
  return r;
}

/* ---- The end of owners ---- */

static void drop_owner(TesFile *f, gpointer owner) {
  TES_LOCKED(locks_mutex());
  LockSet *s = find_set(f);
  if (!s)
    return;
  TesLockRange all = {.owner = owner, .type = F_UNLCK, .start = 0, .end = G_MAXINT64};
  apply(&s->records, &all);
  apply(&s->flocks, &all);
  tes_queue_notify(&s->queue, POLLIN);
  put_set(s);
}

static gboolean may_have_locks(TesFile *f) {
  return f->inode ? g_atomic_pointer_get(&f->inode->locks) != NULL : g_atomic_int_get(&n_anon) > 0;
}

void tes_lock_fd_closed(TesFile *f, TesFdTable *t) {
  if (!(f->flags & O_PATH) && may_have_locks(f)) /* an O_PATH descriptor has not opened the file */
    drop_owner(f, t);
}

void tes_lock_release(TesFile *f) {
  if (may_have_locks(f))
    drop_owner(f, f);
}

/* ---- /proc/locks ---- */

typedef struct {
  GString *out;
  TesNs *pid_ns;
  LockSet *set;
  const char *kind;
  guint n;
} Listing;

/* The number of a holder that has exited is shown in the root namespace only: elsewhere it means nothing. */
static gint pid_seen(const TesLockRange *r, TesNs *ns) {
  if (!ns->parent)
    return r->pid;
  g_autoptr(TesTask) holder = tes_task_find(ns->kernel, NULL, r->pid, TRUE);
  return holder ? tes_task_pid(holder, ns) : 0;
}

static void list_range(const TesLockRange *r, gpointer data) {
  Listing *l = data;
  gboolean ofd = r->ofd && *l->kind == 'P';
  gint pid = ofd ? -1 : pid_seen(r, l->pid_ns);
  if (pid == 0 || l->n >= LISTED_MAX)
    return;
  guint64 dev = l->set->inode ? l->set->inode->super->dev : 0;
  g_string_append_printf(l->out, "%u: %s ADVISORY  %s %d %02x:%02x:%" G_GUINT64_FORMAT " %" G_GINT64_FORMAT,
                         ++l->n, ofd ? "OFDLCK" : l->kind, r->type == F_WRLCK ? "WRITE" : "READ", pid,
                         major(dev), minor(dev), l->set->ino, (gint64)r->start);
  if (r->end == G_MAXINT64)
    g_string_append(l->out, " EOF\n");
  else
    g_string_append_printf(l->out, " %" G_GINT64_FORMAT "\n", (gint64)r->end);
}

void tes_locks_text(TesCtx *viewer, GString *out) {
  TES_LOCKED(locks_mutex());
  Listing l = {.out = out, .pid_ns = tes_ctx_pid_ns(viewer)};
  for (GList *i = all_sets.head; i; i = i->next) {
    l.set = i->data;
    l.kind = "POSIX ";
    tes_locktable_foreach(&l.set->records, list_range, &l);
    l.kind = "FLOCK ";
    tes_locktable_foreach(&l.set->flocks, list_range, &l);
  }
}
