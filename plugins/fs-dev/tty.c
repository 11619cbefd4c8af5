/* SPDX-License-Identifier: Apache-2.0 */
/* Terminal ioctls (ioctl_tty(2)), the tty lock and its deferred signals. */
#include "dev.h"

void tty_lock(Tty *t) { tes_mutex_lock(&t->lock); }

void tty_unlock(Tty *t) {
  guint64 signals = t->signals;
  t->signals = 0;
  gboolean output = t->out->len > 0 && t->output_ready;
  tes_mutex_unlock(&t->lock);
  for (int sig = 1; signals; sig++, signals >>= 1)
    if (signals & 1)
      tes_tty_signal_fg(t->kernel, &t->tty, sig);
  tes_queue_notify(&t->queue, POLLIN | POLLOUT | POLLHUP | POLLRDNORM | POLLWRNORM);
  tes_queue_notify(&t->master_queue, POLLIN | POLLOUT | POLLHUP | POLLRDNORM | POLLWRNORM | POLLPRI);
  if (output)
    t->output_ready(t);
}

/* What a fresh pty has on Linux. */
void tty_default_termios(struct termios2 *t) {
  static const guint8 cc[NCCS] = {
      [VINTR] = 3,     [VQUIT] = 28,   [VERASE] = 127, [VKILL] = 21, [VEOF] = 4,
      [VMIN] = 1,      [VSTART] = 17,  [VSTOP] = 19,   [VSUSP] = 26, [VREPRINT] = 18,
      [VDISCARD] = 15, [VWERASE] = 23, [VLNEXT] = 22};
  *t = (struct termios2){.c_iflag = ICRNL | IXON,
                         .c_oflag = OPOST | ONLCR,
                         .c_cflag = B38400 | CS8 | CREAD,
                         .c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
                         .c_ispeed = 38400,
                         .c_ospeed = 38400};
  memcpy(t->c_cc, cc, sizeof cc);
}

/* ---- termios ---- */

static void note_packet(Tty *t, guint8 bits) {
  if (t->packet)
    t->packet_status |= bits;
}

static void apply_termios(Tty *t, const struct termios2 *n, gboolean flush) {
  guint old_lflag = t->t.c_lflag;
  gboolean was_flow = (t->t.c_iflag & IXON) && t->t.c_cc[VSTART] == 17 && t->t.c_cc[VSTOP] == 19;
  t->t = *n;
  if (flush)
    ldisc_flush_input(t);
  ldisc_mode_changed(t, old_lflag);
  if (!(t->t.c_iflag & IXON))
    t->stopped = FALSE;
  gboolean flow = (t->t.c_iflag & IXON) && t->t.c_cc[VSTART] == 17 && t->t.c_cc[VSTOP] == 19;
  if (flow != was_flow)
    note_packet(t, flow ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP);
}

static glong set_termios(Tty *t, TesTask *task, gulong arg, gboolean two, gboolean flush) {
  struct termios2 n = t->t;
  if (tes_copy_in(task, &n, arg, two ? sizeof(struct termios2) : sizeof(struct termios)) < 0)
    return -EFAULT;
  tty_lock(t);
  apply_termios(t, &n, flush);
  tty_unlock(t);
  return 0;
}

static glong get_termios(Tty *t, TesTask *task, gulong arg, gboolean two) {
  tty_lock(t);
  struct termios2 n = t->t;
  tty_unlock(t);
  return tes_copy_out(task, arg, &n, two ? sizeof(struct termios2) : sizeof(struct termios));
}

static glong set_size(Tty *t, TesTask *task, gulong arg) {
  struct winsize w;
  if (tes_copy_in(task, &w, arg, sizeof w) < 0)
    return -EFAULT;
  tty_lock(t);
  if (memcmp(&w, &t->size, sizeof w) != 0) {
    t->size = w;
    t->signals |= 1ULL << (SIGWINCH - 1);
  }
  tty_unlock(t);
  return 0;
}

static glong flush(Tty *t, gulong which, gboolean master) {
  if (which != TCIFLUSH && which != TCOFLUSH && which != TCIOFLUSH)
    return -EINVAL;
  tty_lock(t);
  gboolean in = which != TCOFLUSH, out = which != TCIFLUSH;
  if (master ? out : in) {
    ldisc_flush_input(t);
    note_packet(t, TIOCPKT_FLUSHREAD);
  }
  if (master ? in : out) {
    g_byte_array_set_size(t->out, 0);
    note_packet(t, TIOCPKT_FLUSHWRITE);
  }
  tty_unlock(t);
  return 0;
}

static glong flow(Tty *t, gulong action) {
  if (action > TCION)
    return -EINVAL;
  tty_lock(t);
  if (action == TCOOFF || action == TCOON) {
    t->stopped = action == TCOOFF;
    note_packet(t, t->stopped ? TIOCPKT_STOP : TIOCPKT_START);
  }
  tty_unlock(t);
  return 0;
}

static glong put_int(TesTask *task, gulong arg, int v) { return tes_copy_out(task, arg, &v, sizeof v); }

static glong get_int(TesTask *task, gulong arg, int *v) { return tes_copy_in(task, v, arg, sizeof *v); }

static glong simulate_input(Tty *t, TesTask *task, gulong arg) {
  guint8 c;
  TesTty *own = tes_task_tty(task);
  gboolean allowed = own == &t->tty || tes_task_capable(task, CAP_SYS_ADMIN_NR);
  if (own)
    own->ops->unref(own);
  if (!allowed)
    return -EPERM;
  if (tes_copy_in(task, &c, arg, 1) < 0)
    return -EFAULT;
  tty_lock(t);
  ldisc_input(t, &c, 1);
  tty_unlock(t);
  return 0;
}

/* Waits until the master has read what was written (tcdrain). */
static glong drain(Tty *t, TesTask *task) {
  TesWaiter w;
  tes_waiter_init_task(&w, task, POLLOUT);
  tes_queue_add(&t->queue, &w);
  glong r = 0;
  for (;;) {
    tty_lock(t);
    gboolean empty = t->out->len == 0 || tty_is_gone(t);
    tes_mutex_unlock(&t->lock);
    if (empty || (r = tes_task_block(task, TES_TIME_INFINITE)) < 0)
      break;
  }
  tes_waiter_remove(&w);
  return r < 0 ? -TES_ERESTARTSYS : 0;
}

/* ---- The two ends' own requests ---- */

static glong master_ioctl(Tty *t, TesTask *task, guint cmd, gulong arg) {
  int v;
  switch (cmd) {
  case TIOCGPTN:
    return put_int(task, arg, t->index);
  case TIOCSPTLCK:
    if (get_int(task, arg, &v) < 0)
      return -EFAULT;
    t->locked = v != 0;
    return 0;
  case TIOCGPTLCK:
    return put_int(task, arg, t->locked);
  case TIOCPKT:
    if (get_int(task, arg, &v) < 0)
      return -EFAULT;
    tty_lock(t);
    t->packet = v != 0;
    t->packet_status = 0;
    tty_unlock(t);
    return 0;
  case TIOCGPKT:
    return put_int(task, arg, t->packet);
  case TIOCGPTPEER: {
    TesFile *f;
    int r = t->locked ? -EIO : tty_open_by_name(t, arg & (O_ACCMODE | O_NONBLOCK), &f);
    if (r == 0) {
      r = tes_fd_install(task, f, 0, (arg & O_CLOEXEC) != 0);
      tes_file_unref(f);
    }
    return r;
  }
  case TIOCSIG:
    if (arg != SIGINT && arg != SIGQUIT && arg != SIGTSTP)
      return -EINVAL;
    tes_tty_signal_fg(t->kernel, &t->tty, arg);
    return 0;
  case FIONREAD:
  case TIOCOUTQ:
    tty_lock(t);
    v = cmd == FIONREAD ? t->out->len : t->in->len + t->edit->len;
    tes_mutex_unlock(&t->lock);
    return put_int(task, arg, v);
  }
  return -ENOIOCTLCMD_;
}

static glong slave_ioctl(Tty *t, TesTask *task, guint cmd, gulong arg) {
  int v;
  switch (cmd) {
  case FIONREAD:
  case TIOCOUTQ:
    tty_lock(t);
    v = cmd == FIONREAD ? (t->t.c_lflag & ICANON ? (t->lines.length ? t->in->len : 0) : t->in->len)
                        : t->out->len;
    tes_mutex_unlock(&t->lock);
    return put_int(task, arg, v);
  case TIOCEXCL:
  case TIOCNXCL:
    t->exclusive = cmd == TIOCEXCL;
    return 0;
  case TIOCGEXCL:
    return put_int(task, arg, t->exclusive);
  }
  return -ENOIOCTLCMD_;
}

/* Requests that change the terminal stop a background process (SIGTTOU). */
static gboolean changes_terminal(guint cmd) {
  switch (cmd) {
  case TCSETS:
  case TCSETSW:
  case TCSETSF:
  case TCSETS2:
  case TCSETSW2:
  case TCSETSF2:
  case TCSBRK:
  case TCSBRKP:
  case TCXONC:
  case TCFLSH:
    return TRUE;
  }
  return FALSE;
}

static glong common_ioctl(Tty *t, TesTask *task, gboolean master, guint cmd, gulong arg) {
  switch (cmd) {
  case TCGETS:
    return get_termios(t, task, arg, FALSE);
  case TCGETS2:
    return get_termios(t, task, arg, TRUE);
  case TCSETS:
    return set_termios(t, task, arg, FALSE, FALSE);
  case TCSETS2:
    return set_termios(t, task, arg, TRUE, FALSE);
  case TCSETSW:
  case TCSETSF: {
    glong r = master ? 0 : drain(t, task);
    return r < 0 ? r : set_termios(t, task, arg, FALSE, cmd == TCSETSF);
  }
  case TCSETSW2:
  case TCSETSF2: {
    glong r = master ? 0 : drain(t, task);
    return r < 0 ? r : set_termios(t, task, arg, TRUE, cmd == TCSETSF2);
  }
  case TIOCGWINSZ:
    return tes_copy_out(task, arg, &t->size, sizeof t->size);
  case TIOCSWINSZ:
    return set_size(t, task, arg);
  case TCFLSH:
    return flush(t, arg, master);
  case TCXONC:
    return flow(t, arg);
  case TCSBRK:
  case TCSBRKP:
    return arg && !master ? drain(t, task) : 0;
  case TIOCSTI:
    return simulate_input(t, task, arg);
  case TIOCGETD:
    return put_int(task, arg, 0);
  case TIOCSBRK:
  case TIOCCBRK:
    return 0;
  case TIOCGSOFTCAR:
    return put_int(task, arg, (t->t.c_cflag & CLOCAL) != 0);
  case TIOCSSOFTCAR:
    return 0;
  }
  return tes_tty_job_ioctl(task, &t->tty, cmd, arg);
}

glong tty_ioctl(Tty *t, TesFile *f, TesTask *task, gboolean master, guint cmd, gulong arg) {
  (void)f;
  if (!master && tty_is_gone(t) && cmd != TIOCSPGRP && cmd != TIOCGPGRP)
    return -EIO;
  glong r = master ? master_ioctl(t, task, cmd, arg) : slave_ioctl(t, task, cmd, arg);
  if (r != -ENOIOCTLCMD_)
    return r;
  if (!master && changes_terminal(cmd)) {
    int check = tes_tty_check_change(task, &t->tty, SIGTTOU);
    if (check < 0)
      return check;
  }
  return common_ioctl(t, task, master, cmd, arg);
}

/* ---- What the core asks of a tty ---- */

static void op_ref(TesTty *t) { tty_ref(tty_of(t)); }
static void op_unref(TesTty *t) { tty_unref(tty_of(t)); }
static guint64 op_dev(TesTty *t) { return makedev(136 + tty_of(t)->index / 256, tty_of(t)->index % 256); }
static char *op_name(TesTty *t) { return g_strdup_printf("pts/%d", tty_of(t)->index); }
static void op_hangup(TesTty *t) { tty_hangup(tty_of(t)); }
static int op_open(TesTty *t, TesCtx *ctx, guint flags, TesFile **out) {
  return tty_open_slave(tty_of(t), ctx, flags, out);
}

const TesTtyOps pty_tty_ops = {sizeof(TesTtyOps), op_ref, op_unref, op_dev, op_name, op_hangup, op_open};
