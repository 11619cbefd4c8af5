/* SPDX-License-Identifier: Apache-2.0 */
/* poll(2), ppoll(2), select(2), pselect(2): a first look at every file, then enlist on all of them, look again, and sleep.
 *
 * The set of files is resolved once and referenced for the whole call, so that a close by another thread cannot free what is
 * waited for. Small sets live on the stack. */
#include <core/file/file.h>
#include <core/syscalls/syscalls.h>
#include <sys/select.h>

#define ON_STACK 32

/* Host memory for large sets of all calls together: a thousand tasks that each wait for half a million descriptors must not
 * use up the host. Beyond it, ENOMEM. */
#define LARGE_MAX (1UL << 30)
static gsize large; /* atomic */

static gpointer large_alloc(gsize bytes) {
  gpointer p = __atomic_add_fetch(&large, bytes, __ATOMIC_RELAXED) <= LARGE_MAX ? g_try_malloc(bytes) : NULL;
  if (!p)
    __atomic_sub_fetch(&large, bytes, __ATOMIC_RELAXED);
  return p;
}

static void large_free(gpointer p, gsize bytes) {
  if (p)
    __atomic_sub_fetch(&large, bytes, __ATOMIC_RELAXED);
  g_free(p);
}

/* Event groups of select(2). */
#define SELECT_IN (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define SELECT_OUT (POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR)
#define SELECT_EX POLLPRI

typedef struct {
  TesFdLoan loan;
  TesFile *file;                 /* of the loan */
  guint events, always, revents; /* always: reported though not asked for (poll), not so for select */
  gint fd;
  TesWaiter w;
} Slot;

static guint look(Slot *s) {
  s->revents = tes_file_poll(s->file) & (s->events | s->always);
  return s->revents ? 1 : 0;
}

static guint look_all(Slot *s, gsize n) {
  guint ready = 0;
  for (gsize i = 0; i < n; i++)
    if (s[i].file)
      ready += look(&s[i]);
  return ready;
}

/* `ready` slots already count (bad descriptors). Returns how many are ready, 0 at the deadline, or -EINTR. */
static int wait_any(TesTask *t, Slot *s, gsize n, guint bad, TesTime deadline) {
  guint ready = look_all(s, n) + bad;
  if (ready || deadline == 0)
    return (int)ready;
  for (gsize i = 0; i < n; i++)
    if (s[i].file) {
      tes_waiter_init_task(&s[i].w, t, s[i].events);
      tes_queue_add(s[i].file->queue, &s[i].w);
    }
  int r = 0;
  while (!(ready = look_all(s, n)) && r == 0)
    r = tes_task_block(t, deadline);
  for (gsize i = 0; i < n; i++)
    if (s[i].file)
      tes_waiter_remove(&s[i].w);
  return ready ? (int)ready : r == -ETIMEDOUT ? 0 : r;
}

static void release_slots(Slot *s, gsize n) {
  for (gsize i = 0; i < n; i++)
    tes_fd_return(&s[i].loan);
}

static TesFile *take_file(TesTask *t, Slot *s, int fd) {
  s->loan = fd < 0 ? (TesFdLoan){NULL, FALSE} : tes_fd_borrow_io(t, fd);
  return s->file = s->loan.file;
}

/* Absolute time of a relative timeout; 0: do not wait. Never wraps. */
static TesTime deadline_after(TesTask *t, TesTime left) {
  TesTime now = tes_time_monotonic(tes_task_kernel(t)), d;
  if (left == 0)
    return 0;
  return __builtin_add_overflow(now, left, &d) ? TES_TIME_INFINITE : d;
}

/* ---- poll ---- */

static int poll_slots(TesTask *t, const struct pollfd *p, Slot *s, guint n, TesTime deadline) {
  guint bad = 0;
  for (guint i = 0; i < n; i++) {
    take_file(t, &s[i], p[i].fd);
    s[i].events = (gushort)p[i].events;
    s[i].always = POLLERR | POLLHUP;
    s[i].revents = p[i].fd >= 0 && !s[i].file ? POLLNVAL : 0;
    bad += s[i].revents != 0;
  }
  int r = wait_any(t, s, n, bad, deadline);
  release_slots(s, n);
  return r;
}

/* Only revents may be written: the guest's other threads own the rest. What would not change is not written, which another
 * thread cannot tell; but each page is written once, for EFAULT. */
static gboolean store_revents(TesTask *t, gulong ufds, const struct pollfd *p, const Slot *s, guint n) {
  gulong page = 1;
  for (guint i = 0; i < n; i++) {
    gulong at = ufds + i * sizeof *p + G_STRUCT_OFFSET(struct pollfd, revents);
    short revents = (short)s[i].revents;
    if (revents == p[i].revents && TES_PAGE_DOWN(at) == page)
      continue;
    if (tes_copy_out(t, at, &revents, sizeof revents) < 0)
      return FALSE;
    page = TES_PAGE_DOWN(at);
  }
  return TRUE;
}

static int do_poll(TesTask *t, gulong ufds, guint n, TesTime deadline) {
  struct pollfd p_few[ON_STACK], *p = p_few;
  Slot s_few[ON_STACK], *s = s_few;
  if (n > MIN(tes_task_rlimit(t, RLIMIT_NOFILE), TES_NR_OPEN))
    return -EINVAL;
  if (n > ON_STACK) {
    p = large_alloc(n * sizeof *p);
    s = large_alloc(n * sizeof *s);
  }
  int r = !p || !s ? -ENOMEM : tes_copy_in(t, p, ufds, n * sizeof *p);
  if (r == 0)
    r = poll_slots(t, p, s, n, deadline);
  if (r >= 0 && !store_revents(t, ufds, p, s, n))
    r = -EFAULT;
  if (n > ON_STACK) {
    large_free(p, n * sizeof *p);
    large_free(s, n * sizeof *s);
  }
  return r;
}

static glong poll_again(TesTask *t, const gulong a[6]) {
  int r = do_poll(t, a[0], (guint)a[1], (TesTime)a[2]);
  if (r != -EINTR)
    return r;
  tes_task_set_restart(t, poll_again, a);
  return -TES_ERESTART_RESTARTBLOCK;
}

static glong sys_poll(TesTask *t, const gulong a[6]) {
  int ms = (int)a[2];
  TesTime deadline = ms < 0 ? TES_TIME_INFINITE : deadline_after(t, (TesTime)ms * 1000000);
  const gulong args[6] = {a[0], (guint)a[1], (gulong)deadline};
  return poll_again(t, args);
}

/* A guest timespec (or timeval, `unit` 1000) as a deadline. */
static int fetch_timeout(TesTask *t, gulong addr, glong unit, TesTime *deadline) {
  glong v[2];
  *deadline = TES_TIME_INFINITE;
  if (!addr)
    return 0;
  if (tes_copy_in(t, v, addr, sizeof v) < 0)
    return -EFAULT;
  if (unit > 1 && v[1] >= 1000000 && v[0] >= 0) { /* select(2) accepts microseconds beyond a second */
    if (__builtin_add_overflow(v[0], v[1] / 1000000, &v[0]))
      v[0] = G_MAXLONG;
    v[1] %= 1000000;
  }
  if (v[0] < 0 || v[1] < 0 || v[1] * unit >= TES_NSEC)
    return -EINVAL;
  TesTime left = v[0] >= G_MAXINT64 / TES_NSEC ? TES_TIME_INFINITE : v[0] * TES_NSEC + v[1] * unit;
  *deadline = deadline_after(t, left);
  return 0;
}

/* Writes the time that is left back; a failure to do so is ignored, as on Linux. */
static void store_timeout(TesTask *t, gulong addr, glong unit, TesTime deadline) {
  if (!addr || deadline == TES_TIME_INFINITE)
    return;
  TesTime left = deadline == 0 ? 0 : deadline - tes_time_monotonic(tes_task_kernel(t));
  left = MAX(left, 0);
  glong v[2] = {left / TES_NSEC, left % TES_NSEC / unit};
  (void)tes_copy_out(t, addr, v, sizeof v);
}

static int apply_mask(TesTask *t, gulong umask, gulong size) {
  guint64 mask;
  if (!umask)
    return 0;
  if (size != sizeof mask)
    return -EINVAL;
  if (tes_copy_in(t, &mask, umask, sizeof mask) < 0)
    return -EFAULT;
  tes_task_set_tmp_mask(t, mask);
  return 0;
}

static glong sys_ppoll(TesTask *t, const gulong a[6]) {
  TesTime deadline;
  int r = fetch_timeout(t, a[2], 1, &deadline);
  if (r == 0)
    r = apply_mask(t, a[3], a[4]);
  if (r < 0)
    return r;
  r = do_poll(t, a[0], (guint)a[1], deadline);
  store_timeout(t, a[2], 1, deadline);
  return r == -EINTR ? -TES_ERESTARTNOHAND : r;
}

/* ---- select ---- */

typedef struct {
  gulong addr[3];          /* of the guest's sets, in: read, write, except */
  guint64 *in[3], *out[3]; /* words; NULL if the guest gave none */
  gsize words;
} Sets;

static int fetch_sets(TesTask *t, Sets *s, guint64 *store) {
  for (int k = 0; k < 3; k++) {
    s->in[k] = s->addr[k] ? store + 2 * (gsize)k * s->words : NULL;
    s->out[k] = s->addr[k] ? s->in[k] + s->words : NULL;
    if (s->in[k] && tes_copy_in(t, s->in[k], s->addr[k], s->words * 8) < 0)
      return -EFAULT;
  }
  return 0;
}

static gboolean has_bit(const guint64 *set, gsize fd) { return set && (set[fd / 64] >> (fd % 64) & 1); }

static guint wanted(const Sets *s, gsize fd) {
  return (has_bit(s->in[0], fd) ? SELECT_IN : 0) | (has_bit(s->in[1], fd) ? SELECT_OUT : 0) |
         (has_bit(s->in[2], fd) ? SELECT_EX : 0);
}

/* Slots for every descriptor in any set: how many, or -EBADF. */
static int make_slots(TesTask *t, const Sets *s, gsize nfds, Slot *slot) {
  int n = 0;
  for (gsize fd = 0; fd < nfds; fd++) {
    guint events = wanted(s, fd);
    if (!events)
      continue;
    slot[n] = (Slot){.events = events, .fd = (gint)fd};
    if (!take_file(t, &slot[n], (int)fd)) {
      release_slots(slot, (gsize)n);
      return -EBADF;
    }
    n++;
  }
  return n;
}

static int mark(const Sets *s, const Slot *slot, int n) {
  static const guint group[3] = {SELECT_IN, SELECT_OUT, SELECT_EX};
  int bits = 0;
  for (int i = 0; i < n; i++)
    for (int k = 0; k < 3; k++)
      if (has_bit(s->in[k], (gsize)slot[i].fd) && (slot[i].revents & group[k])) {
        s->out[k][slot[i].fd / 64] |= 1ULL << (slot[i].fd % 64);
        bits++;
      }
  return bits;
}

static gsize count_wanted(const Sets *s) {
  gsize n = 0;
  for (gsize w = 0; w < s->words; w++) {
    guint64 any = (s->in[0] ? s->in[0][w] : 0) | (s->in[1] ? s->in[1][w] : 0) | (s->in[2] ? s->in[2][w] : 0);
    n += (gsize)__builtin_popcountll(any);
  }
  return n;
}

static int select_sets(TesTask *t, Sets *s, gsize nfds, TesTime deadline) {
  Slot few[ON_STACK], *slot = few;
  gsize want = count_wanted(s);
  if (want > ON_STACK && !(slot = large_alloc(want * sizeof *slot)))
    return -ENOMEM;
  int n = make_slots(t, s, nfds, slot), r = n;
  if (n >= 0) {
    r = wait_any(t, slot, (gsize)n, 0, deadline);
    if (r > 0)
      r = mark(s, slot, n);
    release_slots(slot, (gsize)n);
  }
  if (slot != few)
    large_free(slot, want * sizeof *slot);
  return r;
}

static int do_select(TesTask *t, int nfds, const gulong addr[3], TesTime deadline) {
  guint64 few[6 * 16], *store = few;
  if (nfds < 0)
    return -EINVAL;
  gsize n = MIN((gsize)nfds, tes_fdtable_size(tes_task_fdtable(t)));
  Sets s = {.addr = {addr[0], addr[1], addr[2]}, .words = (n + 63) / 64};
  if (s.words > 16 && !(store = large_alloc(6 * s.words * 8)))
    return -ENOMEM;
  memset(store, 0, 6 * s.words * 8);
  int r = fetch_sets(t, &s, store);
  if (r == 0)
    r = select_sets(t, &s, n, deadline);
  for (int k = 0; k < 3 && r >= 0; k++)
    if (s.out[k] && tes_copy_out(t, s.addr[k], s.out[k], s.words * 8) < 0)
      r = -EFAULT;
  if (store != few)
    large_free(store, 6 * s.words * 8);
  return r;
}

static glong sys_select(TesTask *t, const gulong a[6]) {
  TesTime deadline;
  const gulong sets[3] = {a[1], a[2], a[3]};
  int r = fetch_timeout(t, a[4], 1000, &deadline);
  if (r < 0)
    return r;
  r = do_select(t, (int)a[0], sets, deadline);
  store_timeout(t, a[4], 1000, deadline);
  return r == -EINTR ? -TES_ERESTARTNOHAND : r;
}

static glong sys_pselect6(TesTask *t, const gulong a[6]) {
  TesTime deadline;
  const gulong sets[3] = {a[1], a[2], a[3]};
  gulong sig[2] = {0, 0};
  if (a[5] && tes_copy_in(t, sig, a[5], sizeof sig) < 0)
    return -EFAULT;
  int r = fetch_timeout(t, a[4], 1, &deadline);
  if (r == 0)
    r = apply_mask(t, sig[0], sig[1]);
  if (r < 0)
    return r;
  r = do_select(t, (int)a[0], sets, deadline);
  store_timeout(t, a[4], 1, deadline);
  return r == -EINTR ? -TES_ERESTARTNOHAND : r;
}

static const TesSyscall rows[] = {
    {7, "poll", sys_poll, TES_FULL, NULL, "pud"},
    {23, "select", sys_select, TES_FULL, NULL, "dpppp"},
    {270, "pselect6", sys_pselect6, TES_FULL, NULL, "dppppp"},
    {271, "ppoll", sys_ppoll, TES_FULL, NULL, "puTpu"},
};

const TesSyscallTable tes_sys_poll = TES_ROWS(rows);
