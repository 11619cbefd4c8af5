/* SPDX-License-Identifier: Apache-2.0 */
/* Sets that watch sets: no loops, no path of more than five. Depths are computed over the graph with every set visited once, so that a
 * guest cannot make the check itself expensive with a dense graph. */
#include "private.h"

static const TesLockClass nesting_class = {"epoll nesting", TES_RANK_DENTRY + 2, FALSE,
                                           "edges between epoll sets, and their end"};

TesMutex *epoll_nesting_lock(void) {
  static TesMutex lock;
  static gsize once;
  if (g_once_init_enter(&once)) {
    tes_mutex_init(&lock, &nesting_class);
    g_once_init_leave(&once, 1);
  }
  return &lock;
}

static guint visits;

/* Longest path of edges below `e` (above, with `up`); -1 if it meets `avoid`. Existing paths are short: recursion is bounded. */
static gint height(Epoll *e, gboolean up, const Epoll *avoid) {
  gint best = 0;
  if (e == avoid)
    return -1;
  if (e->visit == visits)
    return e->height;
  for (GSList *l = up ? e->parents : e->children; l; l = l->next) {
    EpollItem *i = l->data;
    gint h = height(up ? i->set : (Epoll *)i->file, up, avoid);
    if (h < 0)
      return -1;
    best = MAX(best, h + 1);
  }
  e->visit = visits;
  e->height = best;
  return best;
}

int epoll_nest_check(Epoll *set, Epoll *target) {
  visits++;
  gint below = height(target, FALSE, set);
  visits++;
  gint above = height(set, TRUE, NULL);
  return below < 0 || below + above + 1 > EPOLL_MAX_NEST ? -ELOOP : 0;
}
