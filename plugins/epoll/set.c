/* SPDX-License-Identifier: Apache-2.0 */
/* Interest and ready lists.
 *
 * Every item keeps a waiter on its file's queue. When the file tells of an event the item joins the ready list and the set's own queues are
 * told. Harvesting asks each ready file again, so what is reported holds at that moment; level-triggered items stay on the list
 * and fall off when a later harvest finds nothing. */
#include "private.h"

static const TesLockClass items_class = {"epoll items", TES_RANK_DENTRY + 3, TRUE,
                                         "interest list of an epoll set; outer sets first"};
static const TesLockClass ready_class = {"epoll ready", TES_RANK_EPOLL_READY, FALSE,
                                         "ready list of an epoll set"};
static gint n_items; /* atomic: of all sets */

static guint item_hash(gconstpointer p) {
  const EpollItem *i = p;
  return g_direct_hash(i->file) * 31 + (guint)i->fd;
}

static gboolean item_equal(gconstpointer a, gconstpointer b) {
  const EpollItem *x = a, *y = b;
  return x->file == y->file && x->fd == y->fd;
}

int epoll_new(TesKernel *kernel, guint flags, TesFile **out) {
  Epoll *e = g_new0(Epoll, 1);
  tes_file_init(&e->file, kernel, &epoll_file_ops, O_RDWR | flags);
  tes_mutex_init(&e->items_lock, &items_class);
  tes_mutex_init(&e->ready_lock, &ready_class);
  tes_queue_init(&e->sleepers);
  tes_queue_init(&e->queue);
  e->file.queue = &e->queue;
  e->items = g_hash_table_new(item_hash, item_equal);
  *out = &e->file;
  return 0;
}

/* ---- The ready list ---- */

static void ready_push(Epoll *e, EpollItem *i, gboolean front) {
  TES_LOCKED(&e->ready_lock);
  if (i->ready)
    return;
  i->ready = TRUE;
  i->prev = front ? NULL : e->tail;
  i->next = front ? e->head : NULL;
  *(i->prev ? &i->prev->next : &e->head) = i;
  *(i->next ? &i->next->prev : &e->tail) = i;
  g_atomic_int_inc(&e->n_ready);
}

static void ready_unlink(Epoll *e, EpollItem *i) {
  *(i->prev ? &i->prev->next : &e->head) = i->next;
  *(i->next ? &i->next->prev : &e->tail) = i->prev;
  i->ready = FALSE;
  g_atomic_int_add(&e->n_ready, -1);
}

static EpollItem *ready_pop(Epoll *e) {
  TES_LOCKED(&e->ready_lock);
  EpollItem *i = e->head;
  if (i)
    ready_unlink(e, i);
  return i;
}

static void ready_remove(Epoll *e, EpollItem *i) {
  TES_LOCKED(&e->ready_lock);
  if (i->ready)
    ready_unlink(e, i);
}

gboolean epoll_has_ready(Epoll *e) { return g_atomic_int_get(&e->n_ready) > 0; }

/* TRUE: somebody was told. */
static gboolean tell(Epoll *e) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the ready list before the look for waiters */
  gboolean sleepers = g_atomic_int_get(&e->sleepers.n) > 0, watchers = g_atomic_int_get(&e->queue.n) > 0;
  if (sleepers)
    tes_queue_notify(&e->sleepers, POLLIN | POLLRDNORM);
  if (watchers)
    tes_queue_notify(&e->queue, POLLIN | POLLRDNORM);
  return sleepers || watchers;
}

/* Runs under the source's queue lock; the set's own queue nests inside it, as sets cannot watch in circles. */
static gboolean on_event(TesWaiter *w, guint mask, gpointer key) {
  EpollItem *i = w->data;
  guint events = (guint)g_atomic_int_get((gint *)&i->events);
  if (!(events & ~EPOLL_PRIVATE_BITS)) /* one-shot, and shot */
    return FALSE;
  ready_push(i->set, i, FALSE);
  return tell(i->set);
}

static guint interest(EpollItem *i) {
  return (guint)g_atomic_int_get((gint *)&i->events) & ~EPOLL_PRIVATE_BITS;
}

/* Events of an item that hold now. Items lock held. */
static guint item_poll(EpollItem *i) {
  guint want = interest(i);
  return want ? tes_file_poll(i->file) & want : 0;
}

static void look(Epoll *e, EpollItem *i) {
  if (!item_poll(i))
    return;
  ready_push(e, i, FALSE);
  tell(e);
}

/* ---- Interest ---- */

static EpollItem *find(Epoll *e, TesFile *f, gint fd) {
  EpollItem key = {.file = f, .fd = fd};
  return g_hash_table_lookup(e->items, &key);
}

/* Takes the item out of everything but its file's watch list. Items lock held; nesting lock too if the file is a set. */
static void detach(Epoll *e, EpollItem *i) {
  tes_waiter_remove(&i->waiter);
  ready_remove(e, i);
  g_hash_table_remove(e->items, i);
  if (is_epoll(i->file)) {
    Epoll *child = (Epoll *)i->file;
    child->parents = g_slist_remove(child->parents, i);
    e->children = g_slist_remove(e->children, i);
  }
}

static void free_item(EpollItem *i) {
  g_free(i);
  g_atomic_int_add(&n_items, -1);
}

/* The file's last reference went. */
static void file_gone(TesFile *f, gpointer data) {
  EpollItem *i = data;
  tes_mutex_lock(epoll_nesting_lock());
  if (i->set) {
    TES_LOCKED(&i->set->items_lock);
    detach(i->set, i);
  }
  tes_mutex_unlock(epoll_nesting_lock());
  free_item(i);
}

static EpollItem *new_item(Epoll *e, TesFile *f, gint fd, const struct epoll_event *ev) {
  EpollItem *i = g_new0(EpollItem, 1);
  i->set = e;
  i->file = f;
  i->fd = fd;
  i->events = ev->events | EPOLLERR | EPOLLHUP;
  i->data = ev->data.u64;
  i->waiter = (TesWaiter){.mask = interest(i), .fn = on_event, .data = i};
  i->waiter.flags = (ev->events & EPOLLEXCLUSIVE) ? TES_WAIT_EXCLUSIVE : 0;
  i->watch = (TesFileWatch){.fn = file_gone, .data = i};
  return i;
}

static int add_locked(Epoll *e, TesFile *f, gint fd, const struct epoll_event *ev) {
  TES_LOCKED(&e->items_lock);
  if (find(e, f, fd))
    return -EEXIST;
  if (g_atomic_int_add(&n_items, 1) >= EPOLL_MAX_ITEMS) {
    g_atomic_int_add(&n_items, -1);
    return -ENOSPC;
  }
  EpollItem *i = new_item(e, f, fd, ev);
  g_hash_table_add(e->items, i);
  if (is_epoll(f)) {
    e->children = g_slist_prepend(e->children, i);
    ((Epoll *)f)->parents = g_slist_prepend(((Epoll *)f)->parents, i);
  }
  tes_file_add_watch(f, &i->watch);
  tes_queue_add(f->queue, &i->waiter);
  look(e, i);
  return 0;
}

int epoll_add(Epoll *e, TesFile *f, gint fd, const struct epoll_event *ev) {
  if (!is_epoll(f))
    return add_locked(e, f, fd, ev);
  TES_LOCKED(epoll_nesting_lock());
  int r = epoll_nest_check(e, (Epoll *)f);
  return r < 0 ? r : add_locked(e, f, fd, ev);
}

int epoll_modify(Epoll *e, TesFile *f, gint fd, const struct epoll_event *ev) {
  TES_LOCKED(&e->items_lock);
  EpollItem *i = find(e, f, fd);
  if (!i)
    return -ENOENT;
  if (i->events & EPOLLEXCLUSIVE)
    return -EINVAL;
  i->data = ev->data.u64;
  g_atomic_int_set((gint *)&i->events, (gint)(ev->events | EPOLLERR | EPOLLHUP));
  __atomic_store_n(&i->waiter.mask, interest(i), __ATOMIC_SEQ_CST);
  look(e, i);
  return 0;
}

static int delete_locked(Epoll *e, TesFile *f, gint fd) {
  TES_LOCKED(&e->items_lock);
  EpollItem *i = find(e, f, fd);
  if (!i)
    return -ENOENT;
  tes_file_remove_watch(f, &i->watch);
  detach(e, i);
  free_item(i);
  return 0;
}

int epoll_delete(Epoll *e, TesFile *f, gint fd) {
  if (!is_epoll(f))
    return delete_locked(e, f, fd);
  TES_LOCKED(epoll_nesting_lock());
  return delete_locked(e, f, fd);
}

/* The set's last reference went. Files that end at the same time have their watch waiting for the nesting lock: it then finds no
 * set and frees the item. */
void epoll_clear(Epoll *e) {
  g_autoptr(GPtrArray) alive = g_ptr_array_new();
  tes_mutex_lock(epoll_nesting_lock());
  GHashTableIter iter;
  EpollItem *i;
  g_hash_table_iter_init(&iter, e->items);
  while (g_hash_table_iter_next(&iter, (gpointer *)&i, NULL)) {
    tes_waiter_remove(&i->waiter);
    if (is_epoll(i->file))
      ((Epoll *)i->file)->parents = g_slist_remove(((Epoll *)i->file)->parents, i);
    i->set = NULL;
    if (!tes_file_try_ref(i->file))
      continue;
    tes_file_remove_watch(i->file, &i->watch);
    g_ptr_array_add(alive, i->file);
    free_item(i);
  }
  tes_mutex_unlock(epoll_nesting_lock());
  g_ptr_array_foreach(alive, (GFunc)(void (*)(void))tes_file_unref, NULL);
  g_slist_free(e->children);
  g_slist_free(e->parents);
  g_hash_table_unref(e->items);
  tes_queue_clear(&e->sleepers);
  tes_queue_clear(&e->queue);
  tes_mutex_clear(&e->ready_lock);
  tes_mutex_clear(&e->items_lock);
}

/* ---- Harvest ---- */

#define BATCH 32

typedef struct {
  struct epoll_event event[BATCH];
  EpollItem *item[BATCH];
  guint was[BATCH]; /* the item's events before a one-shot was disabled */
  int n;
} Batch;

static void undo(Epoll *e, Batch *b) {
  for (int k = b->n - 1; k >= 0; k--) {
    g_atomic_int_set((gint *)&b->item[k]->events, (gint)b->was[k]);
    b->item[k]->waiter.mask = interest(b->item[k]);
    ready_push(e, b->item[k], TRUE);
  }
}

/* Fills the batch from the ready list; `budget` bounds one pass, as level-triggered items go to the end again. */
static void fill(Epoll *e, Batch *b, int max, guint *budget) {
  b->n = 0;
  while (b->n < MIN(max, BATCH) && *budget > 0) {
    EpollItem *i = ready_pop(e);
    if (!i)
      break;
    --*budget;
    guint got = item_poll(i);
    if (!got)
      continue;
    guint events = (guint)g_atomic_int_get((gint *)&i->events);
    b->event[b->n] = (struct epoll_event){.events = got, .data.u64 = i->data};
    b->item[b->n] = i;
    b->was[b->n++] = events;
    if (events & EPOLLONESHOT)
      g_atomic_int_set((gint *)&i->events, (gint)(events & EPOLL_PRIVATE_BITS));
    else if (!(events & EPOLLET))
      ready_push(e, i, FALSE);
  }
}

int epoll_harvest(Epoll *e, TesTask *t, gulong uevents, int max) {
  if (!epoll_has_ready(e))
    return 0;
  TES_LOCKED(&e->items_lock);
  Batch b;
  guint budget = (guint)g_atomic_int_get(&e->n_ready);
  int done = 0;
  do {
    fill(e, &b, max - done, &budget);
    if (b.n && tes_copy_out(t, uevents + (gulong)done * sizeof b.event[0], b.event,
                            (gsize)b.n * sizeof b.event[0]) < 0) {
      undo(e, &b);
      return done ? done : -EFAULT;
    }
    done += b.n;
  } while (b.n == BATCH && done < max);
  return done;
}

gboolean epoll_any_ready(Epoll *e) {
  if (!epoll_has_ready(e))
    return FALSE;
  TES_LOCKED(&e->items_lock);
  EpollItem *i;
  while ((i = ready_pop(e)))
    if (item_poll(i)) {
      ready_push(e, i, TRUE);
      return TRUE;
    }
  return FALSE;
}
