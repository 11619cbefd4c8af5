/* SPDX-License-Identifier: Apache-2.0 */
/* The epoll set, shared by set.c (interest and ready lists), nest.c (sets that watch sets), file.c (the description) and syscalls.c.
 *
 * Locks: nesting (one for all sets: edges between sets, the end of sets) > a set's items > ... > wait queues > a set's
 * ready list. An item does not hold its file; the file's watch takes it out when the description goes. Its file pointer is valid
 * while the item is in the set and the set's items lock or the nesting lock is held, as the watch needs both. */
#pragma once

#include <sys/epoll.h>
#include <tessera/tessera.h>

/* Edges on a path of sets watching sets: five sets at most (epoll_ctl(2), ELOOP). */
#define EPOLL_MAX_NEST 4
#define EPOLL_MAX_ITEMS (400 * 1000) /* of all sets together: fs.epoll.max_user_watches */
#define EPOLL_PRIVATE_BITS (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)

typedef struct _Epoll Epoll;
typedef struct _EpollItem EpollItem;

struct _EpollItem {
  Epoll *set;    /* nesting lock; NULL: the set has gone */
  TesFile *file; /* not referenced */
  gint fd;
  guint events; /* atomic: callbacks read it */
  guint64 data;
  TesWaiter waiter;
  TesFileWatch watch;
  EpollItem *next, *prev; /* ready list; the set's ready lock */
  gboolean ready;
};

struct _Epoll {
  TesFile file;
  TesMutex items_lock;
  GHashTable *items; /* EpollItem by (file, fd) */
  TesMutex ready_lock;
  EpollItem *head, *tail;
  gint n_ready;      /* atomic; written under the ready lock */
  TesQueue sleepers; /* tasks in epoll_wait */
  TesQueue queue;    /* who polls or watches the set; outlives the file's own queue */
  /* nesting lock */
  GSList *children, *parents; /* EpollItem: sets this one watches; items that watch this one */
  guint visit;
  gint height;
};

extern const TesFileOps epoll_file_ops;
static inline gboolean is_epoll(const TesFile *f) { return f->ops == &epoll_file_ops; }

/* ---- set.c ---- */
int epoll_new(TesKernel *, guint flags, TesFile **out);
/* epoll_ctl(2), both files referenced by the caller. */
int epoll_add(Epoll *, TesFile *, gint fd, const struct epoll_event *);
int epoll_modify(Epoll *, TesFile *, gint fd, const struct epoll_event *);
int epoll_delete(Epoll *, TesFile *, gint fd);
/* Moves up to `max` events to the guest: how many, or -EFAULT if the first could not be written. */
int epoll_harvest(Epoll *, TesTask *, gulong uevents, int max);
/* Does any item have an event now? Drops stale ones from the ready list. */
gboolean epoll_any_ready(Epoll *);
gboolean epoll_has_ready(Epoll *);
void epoll_clear(Epoll *);

/* ---- nest.c ---- */
TesMutex *epoll_nesting_lock(void);
/* Would `set` watching `target` make a loop or too deep a nest? 0 or -ELOOP. Nesting lock held. */
int epoll_nest_check(Epoll *set, Epoll *target);
