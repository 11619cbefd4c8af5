/* SPDX-License-Identifier: Apache-2.0 */
/* A queue of mapping operations that wait to be carried out in a host process, for the platforms that
 * have one for each address space.
 *
 * When the host refuses: a mapping that cannot be made is left out; the fault that follows asks for it again. A
 * removal that cannot be made, because it would split a mapping at the host's limit (vm.max_map_count), is replaced by a
 * larger one, in the end of everything: faults bring back what is needed. Only if that fails too a stale mapping would
 * stay, and the process must be killed. */
#pragma once

#include <tessera/platform.h>

#define MAPQUEUE_MAX 1024 /* beyond it the queue becomes one removal of everything */

typedef struct {
  TesMapOp op;
  gboolean owned; /* op.fd is the queue's to close */
} QueuedOp;

typedef struct {
  GArray *ops; /* QueuedOp, in order */
  gint n;      /* their number: read without a lock */
  gulong min, max;
} MapQueue;

void mapqueue_init(MapQueue *, gulong min, gulong max);
void mapqueue_free(MapQueue *);
void mapqueue_clear(MapQueue *);
/* Appends, merging neighbours; descriptors that the caller may close are duplicated. -EINVAL: an operation outside [min,
 * max) or not page-aligned; nothing was appended. */
int mapqueue_push(MapQueue *, const TesMapOp *ops, gsize n);

typedef enum { REFUSED_RETRY, REFUSED_LOST, REFUSED_FATAL } Refused;
/* The host refused operation i: makes the queue one that it will accept. RETRY: nothing is lost that a fault does not
 * bring back. LOST: a mapping will be missing. FATAL: a stale mapping would stay. *dropped: FALSE at first, kept by the
 * caller until the queue is empty. */
Refused mapqueue_degrade(MapQueue *, guint i, int error, gboolean *dropped);

static inline QueuedOp *mapqueue_at(MapQueue *q, guint i) { return &g_array_index(q->ops, QueuedOp, i); }
