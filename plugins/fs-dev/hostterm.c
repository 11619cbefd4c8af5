/* SPDX-License-Identifier: Apache-2.0 */
/* The host's terminal behind a pty of the sandbox: the host side is raw, the line discipline and job control are ours.
 * Bytes are relayed on the kernel's event thread; the host's descriptors stay blocking, so no more is written at once
 * than a terminal that reports POLLOUT takes. */
#include "dev.h"
#include <glib-unix.h>
#include <poll.h>
#include <unistd.h>

#define HOST_CHUNK 256 /* a tty or pty that polls writable takes this much */
#define DRAIN_MS 2000  /* at the end: what the host's terminal may take to swallow the rest */

typedef struct {
  Tty *tty;
  int in, out;
  struct termios2 saved;
  gboolean raw;
  GMutex lock; /* the sources, which several threads arm */
  GSource *input, *output;
} HostTerm;

static int console_key;

static gboolean on_output(int fd, GIOCondition cond, gpointer data);

static void arm_output(HostTerm *h) {
  g_mutex_lock(&h->lock);
  if (!h->output) {
    h->output = g_unix_fd_source_new(h->out, G_IO_OUT);
    g_source_set_callback(h->output, G_SOURCE_FUNC(on_output), h, NULL);
    g_source_attach(h->output, tes_kernel_main_context(h->tty->kernel));
  }
  g_mutex_unlock(&h->lock);
}

static void output_ready(Tty *t) { arm_output(t->host); }

/* Hands the host what it takes now; TRUE while there is more. */
static gboolean write_some(HostTerm *h) {
  guint8 buf[HOST_CHUNK];
  tty_lock(h->tty);
  gsize n = MIN(h->tty->out->len, sizeof buf);
  memcpy(buf, h->tty->out->data, n);
  tes_mutex_unlock(&h->tty->lock);
  gssize w = n ? write(h->out, buf, n) : 0;
  if (w < 0 && errno != EAGAIN && errno != EINTR)
    w = n; /* the terminal is gone: what programs write is lost */
  tty_lock(h->tty);
  if (w > 0)
    g_byte_array_remove_range(h->tty->out, 0, MIN((gsize)w, h->tty->out->len));
  gboolean more = h->tty->out->len > 0;
  tes_mutex_unlock(&h->tty->lock);
  tes_queue_notify(&h->tty->queue, POLLOUT | POLLWRNORM);
  return more;
}

static gboolean on_output(int fd, GIOCondition cond, gpointer data) {
  (void)fd, (void)cond;
  HostTerm *h = data;
  if (write_some(h))
    return G_SOURCE_CONTINUE;
  g_mutex_lock(&h->lock);
  g_clear_pointer(&h->output, g_source_unref);
  g_mutex_unlock(&h->lock);
  tty_lock(h->tty);
  gboolean more =
      h->tty->out->len > 0; /* written after the last look: its writer saw the source still there */
  tes_mutex_unlock(&h->tty->lock);
  if (more)
    arm_output(h);
  return G_SOURCE_REMOVE;
}

static gboolean on_input(int fd, GIOCondition cond, gpointer data) {
  (void)cond;
  HostTerm *h = data;
  guint8 buf[1024];
  gssize n = read(fd, buf, sizeof buf);
  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return G_SOURCE_CONTINUE;
  if (n <= 0) { /* the host's terminal hung up */
    tty_lock(h->tty);
    g_atomic_int_set(&h->tty->master_gone, TRUE);
    tty_unlock(h->tty);
    tes_tty_vanished(h->tty->kernel, &h->tty->tty);
    return G_SOURCE_REMOVE;
  }
  tty_lock(h->tty);
  ldisc_input(h->tty, buf, n);
  tty_unlock(h->tty);
  return G_SOURCE_CONTINUE;
}

static void set_raw(HostTerm *h) {
  struct termios2 t = h->saved;
  t.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  t.c_oflag &= ~OPOST;
  t.c_lflag &= ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
  t.c_cflag = (t.c_cflag & ~(CSIZE | PARENB)) | CS8;
  t.c_cc[VMIN] = 1;
  t.c_cc[VTIME] = 0;
  h->raw = ioctl(h->in, TCSETSW2, &t) == 0;
}

static int wrap_host(TesKernel *k, int host_in, int host_out, TesFile **slave, gpointer *handle,
                     GError **error) {
  HostTerm *h = g_new0(HostTerm, 1);
  g_mutex_init(&h->lock);
  h->in = host_in;
  h->out = host_out;
  int r = pty_new(k, &pts_defaults, NULL, &h->tty);
  if (r == 0 && ioctl(host_in, TCGETS2, &h->saved) < 0)
    r = -errno;
  if (r == 0) {
    h->tty->locked = FALSE;
    h->tty->host = h;
    h->tty->t = h->saved;
    ioctl(host_in, TIOCGWINSZ, &h->tty->size);
    r = tty_open_by_name(h->tty, O_RDWR, slave);
  }
  if (r < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "the terminal cannot be used: %s", g_strerror(-r));
    if (h->tty)
      tty_unref(h->tty);
    g_free(h);
    return r;
  }
  h->tty->output_ready = output_ready;
  set_raw(h);
  h->input = g_unix_fd_source_new(host_in, G_IO_IN | G_IO_HUP);
  g_source_set_callback(h->input, G_SOURCE_FUNC(on_input), h, NULL);
  g_source_attach(h->input, tes_kernel_main_context(k));
  tes_kernel_set_data(k, &console_key, h->tty, NULL);
  *handle = h;
  return 0;
}

Tty *host_terminal_console(TesKernel *k) {
  Tty *t = tes_kernel_get_data(k, &console_key);
  return t ? tty_ref(t) : NULL;
}

static void resized(gpointer handle) {
  HostTerm *h = handle;
  struct winsize w;
  if (ioctl(h->in, TIOCGWINSZ, &w) < 0)
    return;
  tty_lock(h->tty);
  if (memcmp(&w, &h->tty->size, sizeof w) != 0) {
    h->tty->size = w;
    h->tty->signals |= 1ULL << (SIGWINCH - 1);
  }
  tty_unlock(h->tty);
}

static void drop_source(GSource **s) {
  if (*s) {
    g_source_destroy(*s);
    g_clear_pointer(s, g_source_unref);
  }
}

/* Called when no program runs any more. */
static void stop(gpointer handle) {
  HostTerm *h = handle;
  tty_lock(h->tty);
  h->tty->output_ready = NULL;
  tes_mutex_unlock(&h->tty->lock);
  g_mutex_lock(&h->lock);
  drop_source(&h->input);
  drop_source(&h->output);
  g_mutex_unlock(&h->lock);
  for (gint64 end = g_get_monotonic_time() + DRAIN_MS * 1000; g_get_monotonic_time() < end;) {
    struct pollfd p = {h->out, POLLOUT, 0};
    if (poll(&p, 1, 100) > 0 && !write_some(h))
      break;
  }
  if (h->raw)
    ioctl(h->in, TCSETSW2, &h->saved);
  tes_kernel_set_data(h->tty->kernel, &console_key, NULL, NULL);
  tty_unref(h->tty);
  g_mutex_clear(&h->lock);
  g_free(h);
}

const TesTtyFeatureOps host_terminal_ops = {sizeof(TesTtyFeatureOps), wrap_host, resized, stop};
