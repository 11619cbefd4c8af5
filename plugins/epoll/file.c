/* SPDX-License-Identifier: Apache-2.0 */
/* The description of an epoll set: it can be polled and watched itself, and shown in fdinfo. */
#include "private.h"

static guint set_poll(TesFile *f) { return epoll_any_ready((Epoll *)f) ? POLLIN | POLLRDNORM : 0; }

static char *set_fdinfo(TesFile *f) {
  Epoll *e = (Epoll *)f;
  GString *s = g_string_new(NULL);
  TES_LOCKED(&e->items_lock);
  GHashTableIter iter;
  EpollItem *i;
  g_hash_table_iter_init(&iter, e->items);
  while (g_hash_table_iter_next(&iter, (gpointer *)&i, NULL))
    g_string_append_printf(s,
                           "tfd: %8d events: %8x data: %16" G_GINT64_MODIFIER "x  pos:%" G_GINT64_FORMAT
                           " ino:%" G_GINT64_MODIFIER "x sdev:0\n",
                           i->fd, i->events, i->data, i->file->pos,
                           i->file->inode ? i->file->inode->ino : i->file->ino);
  return g_string_free(s, FALSE);
}

static char *set_describe(TesFile *f) { return g_strdup("anon_inode:[eventpoll]"); }

static void set_release(TesFile *f) {
  epoll_clear((Epoll *)f);
  g_free(f);
}

const TesFileOps epoll_file_ops = {
    .size = sizeof(TesFileOps),
    .name = "eventpoll",
    .poll = set_poll,
    .describe = set_describe,
    .fdinfo = set_fdinfo,
    .release = set_release,
};
