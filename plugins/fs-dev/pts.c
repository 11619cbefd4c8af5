/* SPDX-License-Identifier: Apache-2.0 */
/* Pseudo-terminal pairs (pty(7)): the table of slaves, the master and slave files. */
#include "dev.h"

static const TesLockClass tty_class = {"tty", TES_RANK_TTY, FALSE, "a terminal's modes, input and output"};
static const TesLockClass table_class = {"pty table", TES_RANK_TTY + 1, FALSE, "numbers of pseudo-terminals"};

struct _PtyTable {
  TesKernel *kernel;
  TesMutex lock;
  GTree *ttys; /* index -> Tty, borrowed; ordered for readdir */
};

typedef struct {
  TesFile file;
  Tty *tty; /* referenced */
} TtyFile;

static int by_index(gconstpointer a, gconstpointer b, gpointer data) {
  (void)data;
  gsize x = GPOINTER_TO_SIZE(a), y = GPOINTER_TO_SIZE(b);
  return (x > y) - (x < y);
}

PtyTable *pty_table_new(TesKernel *k) {
  PtyTable *p = g_new0(PtyTable, 1);
  p->kernel = k;
  tes_mutex_init(&p->lock, &table_class);
  p->ttys = g_tree_new_full(by_index, NULL, NULL, NULL);
  return p;
}

void pty_table_free(gpointer data) {
  PtyTable *p = data;
  g_tree_unref(p->ttys);
  tes_mutex_clear(&p->lock);
  g_free(p);
}

Tty *tty_ref(Tty *t) {
  g_atomic_int_inc(&t->refs);
  return t;
}

void tty_unref(Tty *t) {
  if (!g_atomic_int_dec_and_test(&t->refs))
    return;
  pty_remove(t);
  tes_timer_cancel(&t->vtime, TRUE);
  g_byte_array_unref(t->in);
  g_byte_array_unref(t->edit);
  g_byte_array_unref(t->out);
  g_queue_clear(&t->lines);
  tes_queue_clear(&t->queue);
  tes_queue_clear(&t->master_queue);
  tes_mutex_clear(&t->lock);
  g_free(t);
}

static void on_vtime(TesTimer *timer, guint64 missed, gpointer data) {
  (void)timer, (void)missed;
  Tty *t = data;
  tty_lock(t);
  t->timed_out = TRUE;
  t->timing = FALSE;
  tty_unlock(t);
}

static gpointer key_of(guint instance, gint index) {
  return GSIZE_TO_POINTER((gsize)instance * TTY_PTS_MAX + (gsize)index);
}

static int take_index(PtyTable *p, Tty *t, gint max) {
  TES_LOCKED(&p->lock);
  if (g_tree_nnodes(p->ttys) >= TTY_PTS_MAX) /* of all instances together */
    return -ENOSPC;
  for (gint i = 0; i < MIN(TTY_PTS_MAX, max); i++)
    if (!g_tree_lookup(p->ttys, key_of(t->instance, i))) {
      t->index = i;
      g_tree_insert(p->ttys, key_of(t->instance, i), t);
      return 0;
    }
  return -ENOSPC;
}

const PtsOptions pts_defaults = {.uid = -1, .gid = 5, .mode = 0620, .ptmxmode = 0666, .max = TTY_PTS_MAX};

int pty_new(TesKernel *k, const PtsOptions *o, const TesCred *cred, Tty **out) {
  Tty *t = g_new0(Tty, 1);
  t->tty.ops = &pty_tty_ops;
  t->refs = 1;
  t->kernel = k;
  t->index = -1;
  t->instance = o->instance;
  t->uid = o->uid >= 0 ? (guint32)o->uid : cred ? cred->fsuid : 0;
  t->gid = o->gid >= 0 ? (guint32)o->gid : cred ? cred->fsgid : 0;
  t->mode = S_IFCHR | o->mode;
  t->locked = TRUE;
  t->created = tes_time_realtime(k);
  tes_mutex_init(&t->lock, &tty_class);
  tes_queue_init(&t->queue);
  tes_queue_init(&t->master_queue);
  tes_timer_init(&t->vtime, k, FALSE, on_vtime, t);
  g_queue_init(&t->lines);
  t->in = g_byte_array_new();
  t->edit = g_byte_array_new();
  t->out = g_byte_array_new();
  tty_default_termios(&t->t);
  int r = take_index(pty_table(k), t, o->max);
  if (r < 0)
    tty_unref(t);
  else
    *out = t;
  return r;
}

void pty_remove(Tty *t) {
  PtyTable *p = pty_table(t->kernel);
  TES_LOCKED(&p->lock);
  if (t->index >= 0 && g_tree_lookup(p->ttys, key_of(t->instance, t->index)) == t)
    g_tree_remove(p->ttys, key_of(t->instance, t->index));
}

static Tty *ref_unless_gone(Tty *t) {
  for (gint n = g_atomic_int_get(&t->refs); n > 0;)
    if (g_atomic_int_compare_and_exchange_full(&t->refs, n, n + 1, &n))
      return t;
  return NULL;
}

Tty *pty_find(TesKernel *k, guint instance, gint index) {
  PtyTable *p = pty_table(k);
  TES_LOCKED(&p->lock);
  Tty *t = g_tree_lookup(p->ttys, key_of(instance, index));
  return t ? ref_unless_gone(t) : NULL;
}

typedef struct {
  void (*fn)(Tty *, gpointer);
  gpointer data;
} ForEach;

static gboolean call_each(gpointer key, gpointer value, gpointer data) {
  (void)key;
  ForEach *f = data;
  f->fn(value, f->data);
  return FALSE;
}

void pty_foreach(TesKernel *k, void (*fn)(Tty *, gpointer), gpointer data) {
  PtyTable *p = pty_table(k);
  ForEach f = {fn, data};
  TES_LOCKED(&p->lock);
  g_tree_foreach(p->ttys, call_each, &f);
}

guint64 pty_creation_time(Tty *t) { return t->created; }

/* ---- The slave ---- */

static Tty *file_tty(TesFile *f) { return ((TtyFile *)f)->tty; }

void tty_hangup(Tty *t) {
  tty_lock(t);
  g_atomic_int_set(&t->hung_up, TRUE);
  ldisc_flush_input(t);
  tty_unlock(t);
}

/* Reads with VTIME give up after a while: the reader is told through its queue. */
static void start_vtime(Tty *t) {
  if ((t->t.c_lflag & ICANON) || !t->t.c_cc[VTIME] || t->timing || (t->t.c_cc[VMIN] && !t->in->len))
    return;
  t->timing = TRUE;
  tes_timer_arm(&t->vtime, tes_time_monotonic(t->kernel) + t->t.c_cc[VTIME] * (TES_NSEC / 10), 0);
}

static gssize slave_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)pos, (void)flags;
  Tty *t = file_tty(f);
  guint8 buf[TTY_IN_MAX];
  TesTask *task = tes_ctx_to_task(ctx);
  if (tty_is_gone(t))
    return 0;
  int check = task ? tes_tty_check_change(task, &t->tty, SIGTTIN) : 0;
  if (check < 0)
    return check;
  tty_lock(t);
  gssize n = ldisc_read(t, buf, MIN(iov->left, sizeof buf));
  if (n == -EAGAIN)
    start_vtime(t);
  tty_unlock_if(t, n == -EAGAIN);
  return n > 0 ? tes_iov_write_to(iov, buf, n) : n;
}

static gssize slave_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)pos, (void)flags;
  Tty *t = file_tty(f);
  TesTask *task = tes_ctx_to_task(ctx);
  if (task && (t->t.c_lflag & TOSTOP)) {
    int check = tes_tty_check_change(task, &t->tty, SIGTTOU);
    if (check < 0)
      return check;
  }
  guint8 buf[4096];
  gssize total = 0;
  while (iov->left) {
    if (tty_is_gone(t))
      return total ? total : -EIO;
    TesIov before = *iov;
    gssize n = tes_iov_read_from(iov, buf, MIN(iov->left, sizeof buf));
    if (n <= 0)
      return total ? total : n;
    tty_lock(t);
    gsize taken = ldisc_output(t, buf, n);
    tty_unlock_if(t, taken == 0);
    total += taken;
    if (taken < (gsize)n) {
      *iov = before; /* what was not taken is copied in again later */
      tes_iov_advance(iov, taken);
      return total ? total : -EAGAIN;
    }
  }
  return total;
}

static guint slave_poll(TesFile *f) {
  Tty *t = file_tty(f);
  tty_lock(t);
  guint mask = 0;
  if (tty_is_gone(t))
    mask = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP;
  else {
    gsize want = t->t.c_lflag & ICANON || t->t.c_cc[VTIME] || !t->t.c_cc[VMIN] ? 1 : t->t.c_cc[VMIN];
    if (ldisc_readable(t) >= want || t->timed_out)
      mask |= POLLIN | POLLRDNORM;
    if (!t->stopped && t->out->len < TTY_OUT_MAX)
      mask |= POLLOUT | POLLWRNORM;
  }
  tes_mutex_unlock(&t->lock);
  return mask;
}

static glong slave_ioctl_op(TesFile *f, TesTask *task, guint cmd, gulong arg) {
  return tty_ioctl(file_tty(f), f, task, FALSE, cmd, arg);
}

static TesTty *file_tty_op(TesFile *f) { return &file_tty(f)->tty; }

static char *slave_describe(TesFile *f) { return g_strdup_printf("/dev/pts/%d", file_tty(f)->index); }

static void slave_release(TesFile *f) {
  Tty *t = file_tty(f);
  tty_lock(t);
  t->n_slaves--;
  tty_unlock(t);
  g_free(f);
  tty_unref(t);
}

static const TesFileOps slave_ops = {.size = sizeof(TesFileOps),
                                     .name = "tty",
                                     .flags = TES_FILE_STREAM,
                                     .read = slave_read,
                                     .write = slave_write,
                                     .poll = slave_poll,
                                     .ioctl = slave_ioctl_op,
                                     .describe = slave_describe,
                                     .tty = file_tty_op,
                                     .release = slave_release};

static TtyFile *file_new(Tty *t, const TesFileOps *ops, guint flags, TesQueue *queue) {
  TtyFile *f = g_new0(TtyFile, 1);
  tes_file_init(&f->file, t->kernel, ops, flags);
  f->file.queue = queue;
  f->tty = tty_ref(t);
  return f;
}

int tty_open_slave(Tty *t, TesCtx *ctx, guint flags, TesFile **out) {
  TesTask *task = tes_ctx_to_task(ctx);
  if (t->locked || tty_is_gone(t))
    return -EIO;
  if (t->exclusive && !tes_ctx_capable(ctx, CAP_SYS_ADMIN_NR))
    return -EBUSY;
  TtyFile *f = file_new(t, &slave_ops, flags & ~O_NOCTTY, &t->queue);
  tty_lock(t);
  t->n_slaves++;
  t->ever_opened = TRUE;
  tty_unlock(t);
  if (task && !(flags & O_NOCTTY))
    tes_tty_opened(task, &t->tty);
  *out = &f->file;
  return 0;
}

int tty_open_by_name(Tty *t, guint flags, TesFile **out) {
  char path[32];
  g_snprintf(path, sizeof path, "/dev/pts/%d", t->index);
  TesAt at = {.path = path};
  TesCtx *ctx = tes_kernel_supervisor_ctx(t->kernel);
  tes_kernel_ext_lock(t->kernel);
  int r = t->instance ? -ENOENT : tes_vfs_open(ctx, &at, flags | O_NOCTTY, 0, out);
  if (r < 0) /* no /dev/pts in this root, or another */
    r = tty_open_slave(t, ctx, flags | O_NOCTTY, out);
  tes_kernel_ext_unlock(t->kernel);
  return r;
}

/* ---- The master ---- */

/* In packet mode each read begins with a status byte: pending control events, or 0 before data. */
static gssize read_packet(Tty *t, guint8 *buf, gsize n) {
  if (t->packet_status) {
    buf[0] = t->packet_status;
    t->packet_status = 0;
    return 1;
  }
  gsize take = MIN(n - 1, t->out->len);
  if (!take)
    return -EAGAIN;
  buf[0] = TIOCPKT_DATA;
  memcpy(buf + 1, t->out->data, take);
  g_byte_array_remove_range(t->out, 0, take);
  return take + 1;
}

static gssize master_take(Tty *t, guint8 *buf, gsize n) {
  if (t->packet)
    return read_packet(t, buf, n);
  gsize take = MIN(n, t->out->len);
  if (!take)
    return t->ever_opened && t->n_slaves == 0 ? -EIO : -EAGAIN;
  memcpy(buf, t->out->data, take);
  g_byte_array_remove_range(t->out, 0, take);
  return take;
}

static gssize master_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx, (void)pos, (void)flags;
  Tty *t = file_tty(f);
  guint8 buf[4096];
  if (!iov->left)
    return 0;
  tty_lock(t);
  gssize n = master_take(t, buf, MIN(iov->left, sizeof buf));
  tty_unlock_if(t, n < 0);
  return n > 0 ? tes_iov_write_to(iov, buf, n) : n;
}

static gssize master_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx, (void)pos, (void)flags;
  Tty *t = file_tty(f);
  guint8 buf[1024];
  gssize total = 0;
  while (iov->left) {
    TesIov before = *iov;
    gssize n = tes_iov_read_from(iov, buf, MIN(iov->left, sizeof buf));
    if (n <= 0)
      return total ? total : n;
    tty_lock(t);
    guint out = t->out->len;
    gsize taken = ldisc_input(t, buf, n);
    tty_unlock_if(t, taken == 0 && t->out->len == out);
    total += taken;
    if (taken < (gsize)n) {
      *iov = before;
      tes_iov_advance(iov, taken);
      return total ? total : -EAGAIN;
    }
  }
  return total;
}

static guint master_poll(TesFile *f) {
  Tty *t = file_tty(f);
  tty_lock(t);
  guint mask = 0;
  if (t->out->len || (t->packet && t->packet_status))
    mask |= POLLIN | POLLRDNORM;
  if (t->packet && t->packet_status)
    mask |= POLLPRI;
  if (t->ever_opened && t->n_slaves == 0)
    mask |= POLLHUP;
  if (ldisc_room(t))
    mask |= POLLOUT | POLLWRNORM;
  tes_mutex_unlock(&t->lock);
  return mask;
}

static glong master_ioctl_op(TesFile *f, TesTask *task, guint cmd, gulong arg) {
  return tty_ioctl(file_tty(f), f, task, TRUE, cmd, arg);
}

static char *master_describe(TesFile *f) {
  (void)f;
  return g_strdup("/dev/ptmx");
}

static void master_release(TesFile *f) {
  Tty *t = file_tty(f);
  tty_lock(t);
  g_atomic_int_set(&t->master_gone, TRUE);
  tty_unlock(t);
  pty_remove(t);
  tes_tty_vanished(t->kernel, &t->tty);
  g_free(f);
  tty_unref(t);
}

static const TesFileOps master_ops = {.size = sizeof(TesFileOps),
                                      .name = "ptmx",
                                      .flags = TES_FILE_STREAM,
                                      .read = master_read,
                                      .write = master_write,
                                      .poll = master_poll,
                                      .ioctl = master_ioctl_op,
                                      .describe = master_describe,
                                      .release = master_release};

int ptmx_open(TesKernel *k, TesCtx *ctx, const PtsOptions *o, guint flags, TesFile **out) {
  Tty *t;
  int r = pty_new(k, o, tes_ctx_cred(ctx), &t);
  if (r < 0)
    return r;
  *out = &file_new(t, &master_ops, flags & ~O_NOCTTY, &t->master_queue)->file;
  tty_unref(t);
  return 0;
}
