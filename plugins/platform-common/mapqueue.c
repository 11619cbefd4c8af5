/* SPDX-License-Identifier: Apache-2.0 */
#include "mapqueue.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define POPULATE_MAX (2 << 20)

void mapqueue_init(MapQueue *q, gulong min, gulong max) {
  *q = (MapQueue){.ops = g_array_new(FALSE, FALSE, sizeof(QueuedOp)), .min = min, .max = max};
}

void mapqueue_clear(MapQueue *q) {
  for (guint i = 0; i < q->ops->len; i++)
    if (mapqueue_at(q, i)->owned)
      close(mapqueue_at(q, i)->op.fd);
  g_array_set_size(q->ops, 0);
  g_atomic_int_set(&q->n, 0);
}

void mapqueue_free(MapQueue *q) {
  mapqueue_clear(q);
  g_array_unref(q->ops);
}

static QueuedOp drop_all(const MapQueue *q) {
  return (QueuedOp){.op = {.kind = TES_MAP_UNMAP, .fd = -1, .addr = 0, .len = q->max}};
}

/* An empty operation is valid, and skipped. */
static gboolean valid(const MapQueue *q, const TesMapOp *op) {
  return op->kind <= TES_MAP_PROTECT && op->prot <= (PROT_READ | PROT_WRITE | PROT_EXEC) &&
         op->addr >= q->min && op->addr < q->max && op->len <= q->max - op->addr &&
         !((op->addr | op->len | (gulong)op->off) & ~TES_PAGE_MASK);
}

/* Extends the last operation of the queue by `op` if they are one. */
static gboolean merge(MapQueue *q, const TesMapOp *op) {
  if (!q->ops->len)
    return FALSE;
  TesMapOp *last = &mapqueue_at(q, q->ops->len - 1)->op;
  if (last->kind != op->kind || last->addr + last->len != op->addr)
    return FALSE;
  if (op->kind != TES_MAP_UNMAP && last->prot != op->prot)
    return FALSE;
  if (op->kind == TES_MAP_MAP &&
      (last->fd != op->fd || last->flags != op->flags || last->off + (goffset)last->len != op->off))
    return FALSE;
  last->len += op->len;
  return TRUE;
}

/* Appends one operation. A descriptor that may be closed by the caller is duplicated, once for a row of
 * mappings (`src`, `dup`). If that fails the pages are left out. */
static void push(MapQueue *q, const TesMapOp *op, int *src, int *dup) {
  QueuedOp new = {*op, FALSE};
  if (op->kind == TES_MAP_MAP && !(op->flags & TES_MAP_STABLE_FD)) {
    if (*src != op->fd || *dup < 0) {
      *dup = fcntl(op->fd, F_DUPFD_CLOEXEC, 3);
      *src = op->fd;
      new.owned = *dup >= 0;
    }
    new.op.fd = *dup;
    if (*dup < 0)
      new.op.kind = TES_MAP_UNMAP;
  }
  if (op->len > POPULATE_MAX)
    new.op.flags &= (guint16)~TES_MAP_POPULATE;
  if (!new.owned && merge(q, &new.op))
    return;
  if (q->ops->len < MAPQUEUE_MAX) {
    g_array_append_val(q->ops, new);
    return;
  }
  if (new.owned)
    close(new.op.fd);
  new = drop_all(q);
  mapqueue_clear(q);
  g_array_append_val(q->ops, new);
  *src = *dup = -1;
}

int mapqueue_push(MapQueue *q, const TesMapOp *ops, gsize n) {
  int src = -1, dup = -1;
  for (gsize i = 0; i < n; i++)
    if (!valid(q, &ops[i]))
      return -EINVAL;
  for (gsize i = 0; i < n; i++)
    if (ops[i].len)
      push(q, &ops[i], &src, &dup);
  g_atomic_int_set(&q->n, (gint)q->ops->len);
  return 0;
}

Refused mapqueue_degrade(MapQueue *q, guint i, int error, gboolean *dropped) {
  TesMapOp *op = &mapqueue_at(q, i)->op;
  /* mprotect fails at a gap too, and has not seen what is behind it. */
  if (op->kind == TES_MAP_PROTECT) {
    op->kind = TES_MAP_UNMAP;
    return REFUSED_RETRY;
  }
  if (error == -ENOMEM && !*dropped) {
    QueuedOp all = drop_all(q);
    *dropped = TRUE;
    g_array_insert_val(q->ops, i, all);
    return REFUSED_RETRY;
  }
  if (op->kind == TES_MAP_UNMAP)
    return REFUSED_FATAL;
  op->kind = TES_MAP_UNMAP;
  return REFUSED_LOST;
}
