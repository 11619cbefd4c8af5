/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of one inotify instance: bounded, in the order in which things happened. An event equal to the last one in the queue is not
 * repeated; what does not fit into the bound is lost, and IN_Q_OVERFLOW stands where that began (inotify(7)). */
#include "private.h"
#include <string.h>

/* Events of all instances may take so much memory; then it is as if each queue were full. */
#define ALL_BYTES (64 * 1024 * 1024)
static gsize all_bytes;

/* Names are padded, with at least one NUL, to multiples of the structure's own size. */
static gsize padded(const char *name) {
  gsize unit = sizeof(struct inotify_event);
  return name ? (strlen(name) + 1 + unit - 1) / unit * unit : 0;
}

gsize inotify_event_size(const Event *e) { return sizeof(struct inotify_event) + e->len; }

static void append(Inotify *s, gint wd, guint32 mask, guint32 cookie, const char *name) {
  gsize len = padded(name);
  Event *e = g_malloc0(sizeof *e + len);
  e->wd = wd;
  e->mask = mask;
  e->cookie = cookie;
  e->len = (guint32)len;
  if (name)
    strcpy(e->name, name);
  *s->tail = e;
  s->tail = &e->next;
  s->n_events++;
  s->bytes += inotify_event_size(e);
  __atomic_add_fetch(&all_bytes, sizeof *e + len, __ATOMIC_RELAXED);
}

/* The last event, if there is one: `tail` points into it. */
static const Event *last(const Inotify *s) {
  return s->head ? (const Event *)((const char *)s->tail - G_STRUCT_OFFSET(Event, next)) : NULL;
}

static gboolean repeats(const Event *e, gint wd, guint32 mask, const char *name) {
  return e && !(e->mask & IN_IGNORED) && e->wd == wd && e->mask == mask && (e->len != 0) == (name != NULL) &&
         (!name || strcmp(e->name, name) == 0);
}

void inotify_queue(Inotify *s, gint wd, guint32 mask, guint32 cookie, const char *name) {
  if (s->n_events >= s->max_events || __atomic_load_n(&all_bytes, __ATOMIC_RELAXED) > ALL_BYTES) {
    if (!s->overflowed)
      append(s, -1, IN_Q_OVERFLOW, 0, NULL);
    s->overflowed = TRUE;
  } else if (!repeats(last(s), wd, mask, name)) {
    append(s, wd, mask, cookie, name);
  }
}

void inotify_wake(Inotify *s) { tes_queue_notify(s->file.queue, POLLIN | POLLRDNORM); }

Event *inotify_take(Inotify *s, gsize room, int *r) {
  TES_LOCKED(&s->lock);
  Event *first = s->head, **end = &s->head;
  *r = !first ? -EAGAIN : inotify_event_size(first) > room ? -EINVAL : 0;
  if (*r < 0)
    return NULL;
  for (Event *e; (e = *end) && inotify_event_size(e) <= room; end = &e->next) {
    room -= inotify_event_size(e);
    s->bytes -= inotify_event_size(e);
    s->n_events--;
    if (e->mask & IN_Q_OVERFLOW)
      s->overflowed = FALSE;
  }
  Event *rest = *end;
  *end = NULL;
  s->head = rest;
  if (!rest)
    s->tail = &s->head;
  return first;
}

void inotify_events_free(Event *e) {
  while (e) {
    Event *next = e->next;
    __atomic_sub_fetch(&all_bytes, sizeof *e + e->len, __ATOMIC_RELAXED);
    g_free(e);
    e = next;
  }
}
