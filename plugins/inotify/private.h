/* SPDX-License-Identifier: Apache-2.0 */
/* inotify(7): private types.
 *
 *   file.c    the description, the system calls, the plugin      queue.c   events on their way to the reader
 *   watch.c   watches: marks on inodes, their numbers, limits
 *
 * Locks, outermost first: update (one change of the set of watches at a time) > the core's lock of all marks, under which events come >
 * lock (queue and tables). */
#pragma once

#include <tessera/tessera.h>

typedef struct _Event {
  struct _Event *next;
  gint32 wd;
  guint32 mask, cookie;
  guint32 len; /* bytes of name with its padding; 0: none */
  char name[];
} Event;

typedef struct {
  TesFile file; /* first */
  TesMutex update, lock;
  /* lock: */
  Event *head, **tail;
  guint n_events;
  gsize bytes;          /* of all events as read(2) gives them */
  gboolean overflowed;  /* IN_Q_OVERFLOW is in the queue */
  GHashTable *by_wd;    /* wd -> Watch */
  GHashTable *by_inode; /* Watch, as a set; equal if the inode is the same */
  gint last_wd;
  /* constant: */
  guint32 uid; /* who made it: counted against him */
  guint max_events;
} Inotify;

typedef struct {
  TesNotifyMark mark; /* first */
  Inotify *set;       /* valid until the mark is off */
  gint refs;          /* one while attached */
  gint wd;
  guint hash;  /* of the inode */
  guint flags; /* IN_ONESHOT, IN_EXCL_UNLINK; the set's lock */
  guint32 uid;
  TesKernel *kernel;
} Watch;

/* ---- queue.c ---- */
/* An event joins the queue, unless it is the same as the last one in it; past the limit, IN_Q_OVERFLOW does. The set's lock is held; the
 * caller wakes readers when it has let it go. name may be NULL. */
void inotify_queue(Inotify *, gint wd, guint32 mask, guint32 cookie, const char *name);
void inotify_wake(Inotify *);
/* Takes out the events that fit into `room` bytes: a chain, or NULL with *r = -EAGAIN (none there) or -EINVAL (the first does not fit). */
Event *inotify_take(Inotify *, gsize room, int *r);
gsize inotify_event_size(const Event *);
void inotify_events_free(Event *);

/* ---- watch.c ---- */
void inotify_watches_init(Inotify *);
/* Adds a watch or changes the one that is there: its number, or -errno. */
int inotify_add(Inotify *, TesInode *, guint32 mask);
int inotify_remove(Inotify *, gint wd);
void inotify_watches_clear(Inotify *);
char *inotify_watches_show(Inotify *);
/* Counts an instance of a user: FALSE past the limit. */
gboolean inotify_account_instance(TesKernel *, guint32 uid);
void inotify_unaccount_instance(TesKernel *, guint32 uid);
guint inotify_max_queued(TesKernel *);
extern const TesSysctlTable inotify_sysctl;
gboolean inotify_accounts_init(TesKernel *, GError **);
