/* SPDX-License-Identifier: Apache-2.0 */
/* Mutexes with classes, and epochs.
 *
 * Every mutex belongs to a class with a rank; a thread may only take a lock whose class has a larger rank than
 * every lock it holds (classes marked `nest` may be taken several times, in address order or as their users
 * document). Debug builds check this on every acquisition and abort with both names. The ranks below are the
 * lock order; docs/reference/locks.md is generated from the classes. */
#pragma once

#include <pthread.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

typedef struct {
  const char *name;
  guint rank;
  gboolean nest;
  const char *guards; /* one line for the generated documentation */
} TesLockClass;

/* Outermost first. Gaps are for plugins' classes. */
enum {
  TES_RANK_KERNEL_EXT = 10, /* serialises external changes (L2) */
  TES_RANK_FILE_POS = 20,   /* a file description's position */
  TES_RANK_VFS_MOUNT = 30,  /* mount tree */
  TES_RANK_VFS_RENAME = 32,
  TES_RANK_DENTRY = 34,
  TES_RANK_INODE = 40, /* filesystem's inode locks */
  TES_RANK_FS = 44,    /* filesystem-wide locks below inodes */
  TES_RANK_SOCKET = 46,
  TES_RANK_TTY = 48,
  TES_RANK_FILE = 50, /* pipes, eventfds, timerfds and so on: one object's own state */
  TES_RANK_FDTABLE = 52,
  TES_RANK_FSINFO = 54,   /* root, working directory, umask */
  TES_RANK_TG_TIMER = 60, /* thread group's interval timers */
  TES_RANK_TIMER = 62,    /* timer service */
  TES_RANK_TASK_SET = 64, /* process tree, pid namespaces, groups, sessions */
  TES_RANK_SIGHAND = 66,  /* signal actions and queues of a thread group */
  TES_RANK_TASK = 68,
  TES_RANK_RUNNING = 70, /* running-task count, CPU ticker */
  TES_RANK_FUTEX = 72,
  TES_RANK_MM_MAP = 80,     /* vmas */
  TES_RANK_MAP_SOURCE = 84, /* reverse map of a mapping source */
  TES_RANK_MM_PAGES = 86,   /* page map */
  TES_RANK_ASPACE = 88,     /* platform's address space */
  TES_RANK_MEMFILE = 90,    /* offset allocator */
  TES_RANK_QUEUE = 94,      /* wait queues; callbacks run under it */
  TES_RANK_EPOLL_READY = 96,
  TES_RANK_LEAF = 99,
};

typedef struct {
  pthread_mutex_t m;
  const TesLockClass *klass;
} TesMutex;

#define TES_MUTEX_INIT(lock_class) \
  { PTHREAD_MUTEX_INITIALIZER, lock_class }
void tes_mutex_init(TesMutex *, const TesLockClass *);
void tes_mutex_clear(TesMutex *);
void tes_mutex_lock(TesMutex *);
gboolean tes_mutex_trylock(TesMutex *);
/* Waits so many nanoseconds at most. */
gboolean tes_mutex_lock_within(TesMutex *, gint64 ns);
/* For a lock that others may hold as long as a process of the sandbox likes (a directory of a filesystem that a process serves): FALSE if the
 * calling task was killed meanwhile. Who waits for it does not keep Pause waiting. */
gboolean tes_task_lock(TesMutex *);
void tes_mutex_unlock(TesMutex *);
/* Aborts in debug builds unless the calling thread holds it. */
void tes_mutex_assert_held(const TesMutex *);
void tes_lock_class_foreach(void (*)(const TesLockClass *, gpointer), gpointer);

typedef TesMutex TesMutexHolder;
static inline TesMutexHolder *tes_mutex_hold(TesMutex *m) {
  tes_mutex_lock(m);
  return m;
}
static inline void tes_mutex_holder_free(TesMutexHolder *m) { tes_mutex_unlock(m); }
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesMutexHolder, tes_mutex_holder_free)
/* Holds `m` to the end of the block. */
#define TES_LOCKED(m) g_autoptr(TesMutexHolder) G_PASTE(tes_held_, __LINE__) G_GNUC_UNUSED = tes_mutex_hold(m)

/* Many readers or one writer; the same classes and the same rule. A reader may not take it again. */
typedef struct {
  pthread_rwlock_t rw;
  const TesLockClass *klass;
} TesRwLock;
void tes_rwlock_init(TesRwLock *, const TesLockClass *);
void tes_rwlock_clear(TesRwLock *);
void tes_rwlock_read(TesRwLock *);
void tes_rwlock_write(TesRwLock *);
void tes_rwlock_unlock(TesRwLock *);

/* Epochs: between enter and leave a thread may use objects found without a lock (page-map entries, dentries,
 * context values); what is retired meanwhile is freed only after it left. Sections nest, never sleep, never
 * take a lock of rank below MM_PAGES. */
void tes_epoch_enter(void);
void tes_epoch_leave(void);
/* Calls fn(data) once every thread that is in a section now has left it. Any context but a callback. */
void tes_epoch_defer(void (*fn)(gpointer), gpointer data);
/* Runs deferred calls whose time has come; cheap when there are none. Called by tasks on their way to the guest, holding no lock. */
void tes_epoch_poll(void);
/* Waits until every other thread that is in a section now has left it. Not inside a section. */
void tes_epoch_barrier(void);

TES_END_DECLS
