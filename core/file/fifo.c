/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a FIFO by name: readers wait for a writer and the reverse; fifo(7). All opens of one inode share a pipe, which
 * inode->attached names while any of them is open. */
#include <core/file/pipe.h>

/* The inode's pipe, made if there is none; referenced. */
static TesPipe *pipe_of_inode(TesInode *inode, TesKernel *kernel) {
  TesPipe *fresh = tes_pipe_alloc(inode->uid, inode->gid), *p;
  fresh->ino = inode->ino;
  tes_inode_attach_lock();
  if (inode->attached) {
    p = tes_pipe_ref(inode->attached);
  } else {
    p = fresh;
    p->inode = tes_inode_ref(inode);
    inode->attached = p;
  }
  tes_inode_attach_unlock();
  if (p != fresh)
    tes_pipe_unref(fresh);
  return p;
}

static gboolean peer_came(TesPipe *p, const guint *counter, guint before) {
  TES_LOCKED(&p->lock);
  return *counter != before;
}

static int wait_for_peer(TesPipe *p, TesFile *f, TesCtx *ctx, const guint *counter, guint before) {
  TesFileWait fw;
  int r = 0;
  tes_file_wait_begin(&fw, f, tes_ctx_to_task(ctx), TES_POLL_PEER);
  while (!peer_came(p, counter, before) && (r = tes_file_wait_block(&fw, TES_TIME_INFINITE)) == 0)
    ;
  tes_file_wait_end(&fw);
  return r == 0 ? 0 : -TES_ERESTARTSYS;
}

int tes_fifo_open(TesInode *inode, TesCtx *ctx, guint flags, TesFile **out) {
  g_autoptr(TesFile) f = NULL;
  TesPipe *p = pipe_of_inode(inode, ctx->kernel);
  guint mode = flags & O_ACCMODE;
  int r = mode == O_ACCMODE ? -EINVAL : 0;
  if (mode == O_WRONLY && (flags & O_NONBLOCK)) {
    tes_mutex_lock(&p->lock);
    r = p->readers == 0 ? -ENXIO : 0;
    tes_mutex_unlock(&p->lock);
  }
  if (r == 0) {
    f = tes_pipe_open(p, ctx->kernel, flags);
    tes_queue_notify(&p->queue, TES_POLL_PEER);
    /* As it was when this end came: a peer that has come and gone since then is one all the same. */
    const TesPipeFile *pf = (TesPipeFile *)f;
    gboolean reads = mode == O_RDONLY;
    if (pf->alone && reads && (flags & O_NONBLOCK))
      ((TesPipeFile *)f)->w_seen = pf->peers_seen;
    else if (pf->alone && mode != O_RDWR && !(flags & O_NONBLOCK))
      r = wait_for_peer(p, f, ctx, reads ? &p->w_counter : &p->r_counter, pf->peers_seen);
  }
  tes_pipe_unref(p);
  if (r == 0)
    *out = g_steal_pointer(&f);
  return r;
}
