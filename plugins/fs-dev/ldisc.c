/* SPDX-License-Identifier: Apache-2.0 */
/* The line discipline: what happens to characters between a keyboard, a program and a screen (termios(3), POSIX 11).
 * Everything here runs with the tty lock held and copies no guest memory. */
#include "dev.h"

#define I(tty, flag) ((tty)->t.c_iflag & (flag))
#define O(tty, flag) ((tty)->t.c_oflag & (flag))
#define L(tty, flag) ((tty)->t.c_lflag & (flag))
#define TAB_WIDTH 8

static gboolean is_cc(const Tty *t, int which, guint8 c) { return t->t.c_cc[which] && t->t.c_cc[which] == c; }
static gboolean is_utf8_tail(const Tty *t, guint8 c) { return I(t, IUTF8) && (c & 0xc0) == 0x80; }

/* ---- Output ---- */

static void put(Tty *t, guint8 c) { g_byte_array_append(t->out, &c, 1); }

/* One character through output processing. */
static void out_char(Tty *t, guint8 c) {
  if (!O(t, OPOST)) {
    put(t, c);
    return;
  }
  switch (c) {
  case '\n':
    if (O(t, ONLRET))
      t->column = 0;
    if (O(t, ONLCR)) {
      t->column = 0;
      put(t, '\r');
    }
    break;
  case '\r':
    if (O(t, ONOCR) && t->column == 0)
      return;
    if (O(t, OCRNL)) {
      c = '\n';
      if (O(t, ONLRET))
        t->column = 0;
      break;
    }
    t->column = 0;
    break;
  case '\t': {
    guint spaces = TAB_WIDTH - t->column % TAB_WIDTH;
    t->column += spaces;
    if (O(t, TABDLY) == TAB3) {
      while (spaces--)
        put(t, ' ');
      return;
    }
    break;
  }
  case '\b':
    if (t->column)
      t->column--;
    break;
  default:
    if (O(t, OLCUC) && g_ascii_islower(c))
      c = g_ascii_toupper(c);
    if (c >= ' ' && c != 0x7f && !is_utf8_tail(t, c))
      t->column++;
  }
  put(t, c);
}

gsize ldisc_output(Tty *t, const guint8 *p, gsize n) {
  gsize i = 0;
  if (t->stopped)
    return 0;
  for (; i < n && t->out->len < TTY_OUT_MAX; i++)
    out_char(t, p[i]);
  return i;
}

/* ---- Echo ---- */

static gboolean is_control(guint8 c) { return (c < ' ' && c != '\t' && c != '\n') || c == 0x7f; }

static void echo(Tty *t, guint8 c) {
  if (t->out->len >= TTY_OUT_MAX)
    return;
  if (L(t, ECHOCTL) && is_control(c)) {
    out_char(t, '^');
    out_char(t, c ^ 0100);
  } else {
    out_char(t, c);
  }
}

static guint echo_width(const Tty *t, guint8 c) {
  if (is_utf8_tail(t, c))
    return 0;
  if (is_control(c))
    return L(t, ECHOCTL) ? 2 : 0;
  return 1;
}

static void rub_out(Tty *t, guint8 c) {
  for (guint w = echo_width(t, c); w; w--) {
    out_char(t, '\b');
    out_char(t, ' ');
    out_char(t, '\b');
  }
}

/* ---- Editing of the line ---- */

static gboolean erase_char(Tty *t) {
  if (!t->edit->len)
    return FALSE;
  guint8 c;
  do {
    c = t->edit->data[t->edit->len - 1];
    g_byte_array_set_size(t->edit, t->edit->len - 1);
  } while (is_utf8_tail(t, c) && t->edit->len);
  if (L(t, ECHO)) {
    if (L(t, ECHOE))
      rub_out(t, c);
    else
      echo(t, t->t.c_cc[VERASE]);
  }
  return TRUE;
}

static void erase_word(Tty *t) {
  gboolean seen = FALSE;
  while (t->edit->len) {
    guint8 c = t->edit->data[t->edit->len - 1];
    gboolean word = g_ascii_isalnum(c) || c == '_' || c >= 0x80;
    if (seen && !word)
      break;
    seen |= word;
    erase_char(t);
  }
}

static void kill_line(Tty *t) {
  if (L(t, ECHOKE) && L(t, ECHOE) && L(t, ECHO)) {
    while (erase_char(t))
      ;
    return;
  }
  g_byte_array_set_size(t->edit, 0);
  if (L(t, ECHO)) {
    echo(t, t->t.c_cc[VKILL]);
    if (L(t, ECHOK))
      out_char(t, '\n');
  }
}

static void reprint(Tty *t) {
  echo(t, t->t.c_cc[VREPRINT]);
  out_char(t, '\n');
  for (guint i = 0; i < t->edit->len; i++)
    echo(t, t->edit->data[i]);
}

static void end_line(Tty *t, gboolean at_eof) {
  g_queue_push_tail(&t->lines, GUINT_TO_POINTER(t->edit->len * 2 + (at_eof ? 1 : 0)));
  g_byte_array_append(t->in, t->edit->data, t->edit->len);
  g_byte_array_set_size(t->edit, 0);
}

static void edit_add(Tty *t, guint8 c) {
  if (t->edit->len < TTY_IN_MAX - 1)
    g_byte_array_append(t->edit, &c, 1);
  else if (I(t, IMAXBEL))
    put(t, '\a');
}

/* ---- Input ---- */

void ldisc_flush_input(Tty *t) {
  g_byte_array_set_size(t->in, 0);
  g_byte_array_set_size(t->edit, 0);
  g_queue_clear(&t->lines);
  t->lnext = FALSE;
}

static gboolean signal_char(Tty *t, guint8 c) {
  int sig = is_cc(t, VINTR, c) ? SIGINT : is_cc(t, VQUIT, c) ? SIGQUIT : is_cc(t, VSUSP, c) ? SIGTSTP : 0;
  if (!sig)
    return FALSE;
  if (!L(t, NOFLSH)) {
    ldisc_flush_input(t);
    g_byte_array_set_size(t->out, 0);
  }
  t->stopped = FALSE;
  if (L(t, ECHO))
    echo(t, c);
  t->signals |= 1ULL << (sig - 1);
  return TRUE;
}

static gboolean flow_char(Tty *t, guint8 c) {
  if (is_cc(t, VSTOP, c) && !(is_cc(t, VSTART, c) && t->stopped)) {
    t->stopped = TRUE;
    return TRUE;
  }
  if (is_cc(t, VSTART, c)) {
    t->stopped = FALSE;
    return TRUE;
  }
  return FALSE;
}

/* A character in canonical mode. */
static void canonical_char(Tty *t, guint8 c) {
  if (is_cc(t, VERASE, c)) {
    erase_char(t);
    return;
  }
  if (is_cc(t, VKILL, c)) {
    kill_line(t);
    return;
  }
  if (L(t, IEXTEN)) {
    if (is_cc(t, VWERASE, c)) {
      erase_word(t);
      return;
    }
    if (is_cc(t, VREPRINT, c) && L(t, ECHO)) {
      reprint(t);
      return;
    }
  }
  if (is_cc(t, VEOF, c)) {
    end_line(t, TRUE);
    return;
  }
  gboolean eol = c == '\n' || is_cc(t, VEOL, c) || (is_cc(t, VEOL2, c) && L(t, IEXTEN));
  if (c == '\n' ? L(t, ECHO) || L(t, ECHONL) : L(t, ECHO) != 0)
    echo(t, c);
  if (eol && t->edit->len >= TTY_IN_MAX - 1)
    g_byte_array_set_size(t->edit, TTY_IN_MAX - 2);
  edit_add(t, c);
  if (eol)
    end_line(t, FALSE);
}

static void plain_char(Tty *t, guint8 c) {
  if (L(t, ICANON)) {
    edit_add(t, c);
    if (L(t, ECHO))
      echo(t, c);
  } else {
    if (L(t, ECHO))
      echo(t, c);
    g_byte_array_append(t->in, &c, 1);
  }
}

static void in_char(Tty *t, guint8 c) {
  if (I(t, ISTRIP))
    c &= 0x7f;
  if (t->lnext) {
    t->lnext = FALSE;
    plain_char(t, c);
    return;
  }
  if (I(t, IUCLC) && L(t, IEXTEN))
    c = g_ascii_tolower(c);
  if (I(t, IXON)) {
    if (flow_char(t, c))
      return;
    if (t->stopped && I(t, IXANY))
      t->stopped = FALSE;
  }
  if (L(t, ISIG) && signal_char(t, c))
    return;
  if (c == '\r') {
    if (I(t, IGNCR))
      return;
    if (I(t, ICRNL))
      c = '\n';
  } else if (c == '\n' && I(t, INLCR)) {
    c = '\r';
  }
  if (L(t, ICANON) && L(t, IEXTEN) && is_cc(t, VLNEXT, c)) {
    t->lnext = TRUE;
    if (L(t, ECHO) && L(t, ECHOCTL)) {
      put(t, '^');
      put(t, '\b');
    }
    return;
  }
  if (L(t, ICANON))
    canonical_char(t, c);
  else
    plain_char(t, c);
}

gsize ldisc_room(Tty *t) {
  gsize held = t->in->len + (L(t, ICANON) ? 0 : t->edit->len);
  /* In canonical mode an unfinished line never stops the keyboard: what is too long is cut. */
  return held < TTY_IN_MAX ? TTY_IN_MAX - held : 0;
}

gsize ldisc_input(Tty *t, const guint8 *p, gsize n) {
  gsize i = 0;
  /* Control characters must get through even when the buffer is full of unread lines. */
  for (; i < n && (ldisc_room(t) || L(t, ISIG)); i++) {
    if (!ldisc_room(t) && !is_cc(t, VINTR, p[i]) && !is_cc(t, VQUIT, p[i]) && !is_cc(t, VSUSP, p[i]))
      break;
    in_char(t, p[i]);
  }
  return i;
}

gsize ldisc_readable(Tty *t) {
  if (!L(t, ICANON))
    return t->in->len;
  gpointer line = g_queue_peek_head(&t->lines);
  return line || t->lines.length ? MAX(GPOINTER_TO_UINT(line) / 2, 1) : 0;
}

/* A line at a time; a line that ends with the EOF character has no terminator, and an empty one is end of file. */
static gssize read_line(Tty *t, guint8 *buf, gsize n) {
  if (!t->lines.length)
    return -EAGAIN;
  guint line = GPOINTER_TO_UINT(g_queue_peek_head(&t->lines));
  gsize take = MIN(n, line / 2);
  memcpy(buf, t->in->data, take);
  if (take)
    g_byte_array_remove_range(t->in, 0, take);
  if (take < line / 2)
    t->lines.head->data = GUINT_TO_POINTER(line - take * 2);
  else
    g_queue_pop_head(&t->lines);
  return take;
}

gssize ldisc_read(Tty *t, guint8 *buf, gsize n) {
  if (L(t, ICANON))
    return read_line(t, buf, n);
  guint min = t->t.c_cc[VMIN], time = t->t.c_cc[VTIME];
  if (t->in->len < (min ? MIN(min, n) : 1)) {
    gboolean give_up = min == 0 && (time == 0 || t->timed_out);
    gboolean between = min > 0 && time > 0 && t->timed_out && t->in->len;
    if (!give_up && !between)
      return -EAGAIN;
  }
  t->timed_out = FALSE;
  gsize take = MIN(n, t->in->len);
  if (take) {
    memcpy(buf, t->in->data, take);
    g_byte_array_remove_range(t->in, 0, take);
  }
  return take;
}

void ldisc_mode_changed(Tty *t, guint old_lflag) {
  if (!((old_lflag ^ t->t.c_lflag) & ICANON))
    return;
  if (L(t, ICANON)) { /* what was typed raw becomes one finished line */
    g_queue_clear(&t->lines);
    if (t->in->len)
      g_queue_push_tail(&t->lines, GUINT_TO_POINTER(t->in->len * 2));
  } else {
    g_queue_clear(&t->lines);
    g_byte_array_append(t->in, t->edit->data, t->edit->len);
    g_byte_array_set_size(t->edit, 0);
  }
}
