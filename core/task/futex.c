/* SPDX-License-Identifier: Apache-2.0 */
/* Futexes: waiters hashed by what their word is (X8), robust lists. Interface: futex.h, and tes_futex_* in task.h.
 *
 * A waiter is a record on its thread's stack, in one bucket's list. It enlists first and looks at the word second, under the
 * bucket's lock; a waker has changed the word before it looks at the bucket: so one of the two sees the other. A waiter
 * that is woken has `bucket` NULL; from then on only its own thread touches the record. Threads are woken after the lock is
 * dropped, so that they do not run into it. */
#include <core/task/futex.h>
#include <core/time/itimer.h>
#include <linux/futex.h>

#define BUCKETS 256
#define WAKE_BATCH 32
#define FAULT_TRIES 16 /* the page may be taken away again between resolving it and the look under the lock */
#define ROBUST_MAX 2048 /* entries of a list, as Linux */

static const TesLockClass futex_class = {"futex bucket", TES_RANK_FUTEX, TRUE,
                                         "waiters of a bucket; two in address order"};

typedef struct _Bucket Bucket;

typedef struct _Waiter {
  struct _Waiter *prev, *next;
  TesFutexKey key;
  guint32 bitset;
  TesTask *task;
  Bucket *bucket; /* atomic; changed under the bucket's lock */
} Waiter;

struct _Bucket {
  TesMutex lock;
  Waiter *head, *tail;
  gint n; /* atomic */
} __attribute__((aligned(64)));

typedef struct {
  TesTask *task[WAKE_BATCH]; /* referenced */
  guint n;
} WakeList;

gpointer tes_futexes_new(void) {
  Bucket *b = g_aligned_alloc0(BUCKETS, sizeof(Bucket), 64);
  for (guint i = 0; i < BUCKETS; i++)
    tes_mutex_init(&b[i].lock, &futex_class);
  return b;
}

void tes_futexes_free(gpointer futexes) {
  Bucket *b = futexes;
  for (guint i = 0; i < BUCKETS; i++)
    tes_mutex_clear(&b[i].lock);
  g_aligned_free(b);
}

static Bucket *bucket_of(TesKernel *k, const TesFutexKey *key) {
  guint64 h = (key->a * 0x9e3779b97f4a7c15ULL) ^ (key->b >> 2) * 0xc2b2ae3d27d4eb4fULL;
  return (Bucket *)k->futexes + (h >> 32) % BUCKETS;
}

static gboolean same_key(const TesFutexKey *x, const TesFutexKey *y) {
  return x->a == y->a && x->b == y->b && !x->shared == !y->shared && x->root == y->root;
}

static int find_key(TesTask *t, gulong addr, gboolean private_, TesFutexKey *out) {
  out->root = 0;
  int r = tes_mm_futex_key(t->mm, addr, private_, out);
  if (r >= 0 && out->shared)
    out->root = t->futex_root;
  return r;
}

/* ---- Lists; the bucket's lock is held ---- */

static void enqueue(Bucket *b, Waiter *w) {
  w->next = NULL;
  w->prev = b->tail;
  if (b->tail)
    b->tail->next = w;
  else
    b->head = w;
  b->tail = w;
  g_atomic_pointer_set(&w->bucket, b);
  g_atomic_int_inc(&b->n); /* full barrier: the look at the word comes after */
}

/* Leaves w->bucket to the caller. */
static void unlink_waiter(Bucket *b, Waiter *w) {
  if (w->prev)
    w->prev->next = w->next;
  else
    b->head = w->next;
  if (w->next)
    w->next->prev = w->prev;
  else
    b->tail = w->prev;
  g_atomic_int_add(&b->n, -1);
}

static void wake_waiter(Bucket *b, Waiter *w, WakeList *l) {
  unlink_waiter(b, w);
  l->task[l->n++] = tes_task_ref(w->task);
  g_atomic_pointer_set(&w->bucket, NULL); /* w may be gone now */
}

static void wake_tasks(WakeList *l) {
  for (guint i = 0; i < l->n; i++) {
    tes_task_wake(l->task[i]);
    tes_task_unref(l->task[i]);
  }
  l->n = 0;
}

/* Takes up to `max` matching waiters off into l; stops when l is full. */
static int collect(Bucket *b, const TesFutexKey *key, int max, guint32 bitset, WakeList *l) {
  int n = 0;
  for (Waiter *w = b->head, *next; w && n < max && l->n < WAKE_BATCH; w = next) {
    next = w->next;
    if ((w->bitset & bitset) && same_key(&w->key, key)) {
      wake_waiter(b, w, l);
      n++;
    }
  }
  return n;
}

/* TRUE if it was still waiting. */
static gboolean dequeue(Waiter *w) {
  Bucket *b;
  while ((b = g_atomic_pointer_get(&w->bucket))) {
    tes_mutex_lock(&b->lock);
    gboolean here = g_atomic_pointer_get(&w->bucket) == b; /* not requeued meanwhile */
    if (here) {
      unlink_waiter(b, w);
      g_atomic_pointer_set(&w->bucket, NULL);
    }
    tes_mutex_unlock(&b->lock);
    if (here)
      return TRUE;
  }
  return FALSE;
}

/* ---- Waiting ---- */

/* Puts w on its bucket's list if the word holds the value: 0, -EAGAIN, -EFAULT. */
static int enlist(TesTask *t, const TesFutexWait *f, Waiter *w) {
  *w = (Waiter){.task = t, .bitset = f->bitset};
  for (guint i = 0; i < FAULT_TRIES; i++) {
    guint32 now;
    int r = tes_user_load32(t, f->addr, &now);
    if (r == 0)
      r = find_key(t, f->addr, f->private_, &w->key);
    if (r < 0)
      return r;
    if (now != f->value)
      return -EAGAIN;
    Bucket *b = bucket_of(t->kernel, &w->key);
    tes_mutex_lock(&b->lock);
    enqueue(b, w);
    r = tes_user_load32(t, f->addr, &now);
    if (r < 0 || now != f->value) {
      unlink_waiter(b, w);
      g_atomic_pointer_set(&w->bucket, NULL);
    }
    tes_mutex_unlock(&b->lock);
    if (r == 0)
      return now == f->value ? 0 : -EAGAIN;
  }
  return -EFAULT;
}

/* The first that is not in a list any more, or -1. */
static int find_woken(Waiter *w, guint n) {
  for (guint i = 0; i < n; i++)
    if (!g_atomic_pointer_get(&w[i].bucket))
      return i;
  return -1;
}

/* Ends the wait on all: the index of one that had been woken, or `otherwise`. */
static int leave(Waiter *w, guint n, int otherwise) {
  int woken = -1;
  for (guint i = 0; i < n; i++)
    if (!dequeue(&w[i]) && woken < 0)
      woken = i;
  return woken >= 0 ? woken : otherwise;
}

static int wait_all(TesTask *t, const TesFutexWait *f, guint n, Waiter *w, int clockid, TesTime deadline) {
  for (guint i = 0; i < n; i++) {
    int r = enlist(t, &f[i], &w[i]);
    if (r < 0)
      return leave(w, i, r);
  }
  while (find_woken(w, n) < 0) {
    int r = tes_clock_block(t, clockid, deadline);
    if (r < 0)
      return leave(w, n, r);
  }
  return leave(w, n, -EAGAIN); /* never -EAGAIN: one was woken */
}

int tes_futex_wait(TesTask *t, const TesFutexWait *f, guint n, int clockid, TesTime deadline) {
  Waiter one;
  g_autofree Waiter *many = n > 1 ? g_new(Waiter, n) : NULL;
  return wait_all(t, f, n, many ? many : &one, clockid, deadline);
}

/* ---- Waking ---- */

static int wake_key(TesKernel *k, const TesFutexKey *key, int max, guint32 bitset) {
  Bucket *b = bucket_of(k, key);
  WakeList l = {.n = 0};
  int woken = 0;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (g_atomic_int_get(&b->n) == 0)
    return 0;
  for (;;) {
    tes_mutex_lock(&b->lock);
    woken += collect(b, key, max - woken, bitset, &l);
    tes_mutex_unlock(&b->lock);
    gboolean full = l.n == WAKE_BATCH;
    wake_tasks(&l);
    if (!full || woken >= max)
      return woken;
  }
}

int tes_futex_wake(TesTask *t, gulong addr, gboolean private_, int max, guint32 bitset) {
  TesFutexKey key;
  int r = find_key(t, addr, private_, &key);
  return r < 0 ? r : wake_key(t->kernel, &key, MAX(max, 1), bitset);
}

int tes_futex_wake_addr(TesTask *t, gulong addr, int n) {
  if (!t->mm || (addr & 3))
    return -EINVAL;
  return tes_futex_wake(t, addr, FALSE, n, TES_FUTEX_ANY);
}

/* ---- Two words ---- */

static void lock_two(Bucket *a, Bucket *b) {
  tes_mutex_lock(a < b ? &a->lock : &b->lock);
  if (a != b)
    tes_mutex_lock(a < b ? &b->lock : &a->lock);
}

static void unlock_two(Bucket *a, Bucket *b) {
  tes_mutex_unlock(&a->lock);
  if (a != b)
    tes_mutex_unlock(&b->lock);
}

typedef struct {
  TesFutexKey key[2];
  Bucket *b[2];
} Pair;

static int find_two(TesTask *t, gulong addr, gulong addr2, gboolean private_, Pair *p) {
  gulong a[2] = {addr, addr2};
  for (guint i = 0; i < 2; i++) {
    int r = find_key(t, a[i], private_, &p->key[i]);
    if (r < 0)
      return r;
    p->b[i] = bucket_of(t->kernel, &p->key[i]);
  }
  return 0;
}

/* Both locks held. */
static int move_waiters(Pair *p, int max) {
  int n = 0;
  Waiter *last = p->b[0]->tail; /* what is appended behind it has been moved already */
  for (Waiter *w = p->b[0]->head, *next = NULL; w && n < max; w = next) {
    next = w == last ? NULL : w->next;
    if (!same_key(&w->key, &p->key[0]))
      continue;
    w->key = p->key[1];
    n++;
    if (p->b[0] != p->b[1]) {
      unlink_waiter(p->b[0], w);
      enqueue(p->b[1], w);
    }
  }
  return n;
}

/* The comparison, under the locks: 0, -EAGAIN, -EFAULT. */
static int compare_word(TesTask *t, gulong addr, const guint32 *compare) {
  guint32 now;
  int r = compare ? tes_user_load32(t, addr, &now) : 0;
  return r == 0 && compare && now != *compare ? -EAGAIN : r;
}

int tes_futex_requeue(TesTask *t, gulong from, gulong to, gboolean private_, int wake, int move,
                      const guint32 *compare) {
  Pair p;
  WakeList l = {.n = 0};
  int done = 0;
  for (guint faults = 0; faults < FAULT_TRIES;) {
    int r = compare_word(t, from, compare); /* resolves the page, too */
    if (r == 0)
      r = find_two(t, from, to, private_, &p);
    if (r < 0)
      return r;
    lock_two(p.b[0], p.b[1]);
    r = compare_word(t, from, compare);
    if (r == 0)
      done += collect(p.b[0], &p.key[0], wake - done, TES_FUTEX_ANY, &l);
    gboolean again = r == -EFAULT || (l.n == WAKE_BATCH && done < wake);
    if (r == 0 && !again && !same_key(&p.key[0], &p.key[1])) /* to itself: nothing moves */
      done += move_waiters(&p, move);
    unlock_two(p.b[0], p.b[1]);
    wake_tasks(&l);
    if (!again)
      return r < 0 ? r : done;
    if (r < 0)
      faults++;
    else
      compare = NULL; /* it held when the first batch was woken */
  }
  return -EFAULT;
}

/* ---- FUTEX_WAKE_OP ---- */

static int decode_op(guint32 op, guint32 old, guint32 *new_value) {
  guint32 arg = (guint32)((gint32)(op << 8) >> 20); /* 12 bits, signed */
  if (op & 0x80000000u)
    arg = 1u << (arg & 31);
  switch (op >> 28 & 7) {
  case FUTEX_OP_SET:
    *new_value = arg;
    return 0;
  case FUTEX_OP_ADD:
    *new_value = old + arg;
    return 0;
  case FUTEX_OP_OR:
    *new_value = old | arg;
    return 0;
  case FUTEX_OP_ANDN:
    *new_value = old & ~arg;
    return 0;
  case FUTEX_OP_XOR:
    *new_value = old ^ arg;
    return 0;
  default:
    return -ENOSYS;
  }
}

/* 1, 0, or -ENOSYS. */
static int compare_op(guint32 op, gint32 old) {
  gint32 arg = (gint32)(op << 20) >> 20;
  switch (op >> 24 & 15) {
  case FUTEX_OP_CMP_EQ:
    return old == arg;
  case FUTEX_OP_CMP_NE:
    return old != arg;
  case FUTEX_OP_CMP_LT:
    return old < arg;
  case FUTEX_OP_CMP_LE:
    return old <= arg;
  case FUTEX_OP_CMP_GT:
    return old > arg;
  case FUTEX_OP_CMP_GE:
    return old >= arg;
  default:
    return -ENOSYS;
  }
}

/* Atomic change of the word; the old value in *old. */
static int apply_op(TesTask *t, gulong addr, guint32 op, guint32 *old) {
  guint32 seen, changed;
  int r = tes_user_load32(t, addr, &seen);
  while (r == 0) {
    *old = seen;
    if ((r = decode_op(op, seen, &changed)) < 0)
      return r;
    r = tes_user_cas32(t, addr, &seen, changed);
    if (r == 0 && seen == *old)
      return 0;
  }
  return r;
}

/* Makes the word's page writable: an exchange that changes nothing. */
static int touch(TesTask *t, gulong addr) {
  guint32 v;
  int r = tes_user_load32(t, addr, &v);
  return r < 0 ? r : tes_user_cas32(t, addr, &v, v);
}

/* The change is made under both locks; waking may take several rounds afterwards. */
static int change_locked(TesTask *t, gulong addr, gulong addr2, gboolean private_, guint32 op, Pair *p,
                         guint32 *old) {
  int r = -EFAULT;
  for (guint i = 0; r == -EFAULT && i < FAULT_TRIES; i++) {
    if ((r = touch(t, addr2)) < 0 || (r = find_two(t, addr, addr2, private_, p)) < 0)
      return r;
    lock_two(p->b[0], p->b[1]);
    r = apply_op(t, addr2, op, old);
    unlock_two(p->b[0], p->b[1]);
  }
  return r;
}

int tes_futex_wake_op(TesTask *t, gulong addr, gulong addr2, gboolean private_, int wake, int wake2,
                      guint32 op) {
  Pair p;
  guint32 old = 0;
  int r = change_locked(t, addr, addr2, private_, op, &p, &old);
  if (r < 0)
    return r;
  int met = compare_op(op, (gint32)old);
  if (met < 0)
    return met; /* the change stays, as in Linux */
  r = wake_key(t->kernel, &p.key[0], MAX(wake, 1), TES_FUTEX_ANY);
  if (met)
    r += wake_key(t->kernel, &p.key[1], MAX(wake2, 1), TES_FUTEX_ANY);
  return r;
}

/* ---- Robust lists: get_robust_list(2) ---- */

/* A lock that a dying thread still holds: marked, and one waiter woken. `pending`: taking or giving it was under way. */
static void owner_died(TesTask *t, gulong addr, gboolean pi, gboolean pending, gint tid) {
  guint32 word;
  if ((addr & 3) || tes_user_load32(t, addr, &word) < 0)
    return;
  /* It was being released: the word is free already but the wake may not have been made. */
  if (pending && !pi && word == 0) {
    tes_futex_wake_addr(t, addr, 1);
    return;
  }
  while ((word & FUTEX_TID_MASK) == (guint32)tid) {
    guint32 seen = word;
    if (tes_user_cas32(t, addr, &seen, (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED) < 0)
      return;
    if (seen == word) {
      if (!pi && (word & FUTEX_WAITERS))
        tes_futex_wake_addr(t, addr, 1);
      return;
    }
    word = seen;
  }
}

void tes_futex_exit_robust(TesTask *t) {
  struct {
    gulong next;
    glong offset;
    gulong pending;
  } head;
  gulong list = t->robust_list;
  t->robust_list = 0;
  if (!list || !t->mm || tes_copy_in(t, &head, list, sizeof head) < 0)
    return;
  gint tid = tes_task_tid(t, t->ns_pid);
  gulong entry = head.next, pending = head.pending & ~1UL;
  for (guint i = 0; i < ROBUST_MAX && (entry & ~1UL) != list; i++) {
    gulong at = entry & ~1UL, next;
    gboolean more = tes_copy_in(t, &next, at, sizeof next) == 0; /* before the lock can be taken and freed */
    if (at != pending)
      owner_died(t, at + head.offset, entry & 1, FALSE, tid);
    if (!more)
      return;
    entry = next;
  }
  if (pending)
    owner_died(t, pending + head.offset, head.pending & 1, TRUE, tid);
}
