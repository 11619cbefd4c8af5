/* SPDX-License-Identifier: Apache-2.0 */
/* File events: marks on inodes, and who is told what (inotify(7)). Interface: <tessera/notify.h>.
 *
 * Marks hang in buckets by the inode's filesystem and number. Whether a bucket is empty is seen without a lock, so an event of
 * something that nobody watches takes none, even while other things are watched. Delivery runs under the one lock of all marks,
 * which stands behind every lock of the VFS: events come out in the order in which the callers made things happen. */
#include <core/task/task.h>
#include <string.h>
#include <tessera/notify.h>
#include <tessera/vfs.h>

#define BUCKETS 8192

static const TesLockClass marks_class = {"notify marks", TES_RANK_QUEUE - 2, FALSE,
                                         "marks of all watched inodes; held while events are handed over"};
static TesMutex lock = TES_MUTEX_INIT(&marks_class);
static TesNotifyMark *buckets[BUCKETS]; /* written under the lock */
gint tes_notify_marks;

static TesNotifyMark **bucket(const TesInode *i) {
  guint64 h = ((guint64)(gsize)i->super >> 4) * 0x9e3779b97f4a7c15ULL ^ (i->ino + 1) * 0xbf58476d1ce4e5b9ULL;
  return &buckets[(h >> 32) % BUCKETS];
}

/* Perhaps watched; FALSE is certain. */
static gboolean watched(TesInode *i) { return __atomic_load_n(bucket(i), __ATOMIC_RELAXED) != NULL; }

gboolean tes_notify_same_inode(const TesInode *a, const TesInode *b) {
  return a == b ||
         (a->super == b->super && a->ino == b->ino && (a->flags & b->flags & TES_INODE_FLEETING) != 0);
}

/* ---- Marks ---- */

void tes_notify_attach(TesNotifyMark *m, TesInode *i) {
  m->inode = tes_inode_ref(i);
  TES_LOCKED(&lock);
  TesNotifyMark **b = bucket(i);
  m->next = *b;
  m->link = b;
  if (m->next)
    m->next->link = &m->next;
  __atomic_store_n(b, m, __ATOMIC_RELEASE);
  __atomic_add_fetch(&tes_notify_marks, 1, __ATOMIC_SEQ_CST);
}

/* The inode goes where no lock is held: its filesystem may have much to do. */
static void free_mark(gpointer p) {
  TesNotifyMark *m = p;
  TesInode *i = m->inode;
  m->ops->free(m);
  tes_inode_unref(i);
}

static void detach_locked(TesNotifyMark *m) {
  __atomic_store_n(m->link, m->next, __ATOMIC_RELEASE);
  if (m->next)
    m->next->link = m->link;
  m->link = NULL;
  __atomic_sub_fetch(&tes_notify_marks, 1, __ATOMIC_SEQ_CST);
  m->ops->off(m);
  tes_epoch_defer(free_mark, m);
}

gboolean tes_notify_detach(TesNotifyMark *m) {
  TES_LOCKED(&lock);
  if (!m->link)
    return FALSE;
  detach_locked(m);
  return TRUE;
}

/* ---- Delivery ---- */

static void deliver_locked(TesInode *i, const TesNotifyEvent *e) {
  guint always = e->mask & IN_UNMOUNT;
  for (TesNotifyMark *m = *bucket(i), *next; m; m = next) {
    next = m->next;
    if (!tes_notify_same_inode(m->inode, i))
      continue;
    if (!always && !(__atomic_load_n(&m->mask, __ATOMIC_RELAXED) & e->mask & IN_ALL_EVENTS))
      continue;
    if (m->ops->event(m, e))
      detach_locked(m);
  }
}

static void deliver(TesInode *i, const TesNotifyEvent *e) {
  if (!watched(i))
    return;
  TES_LOCKED(&lock);
  deliver_locked(i, e);
}

static guint dir_bit(const TesInode *i) { return S_ISDIR(i->mode) ? IN_ISDIR : 0; }

void tes_notify_do_inode(TesInode *i, guint mask) {
  TesNotifyEvent e = {.mask = mask | dir_bit(i)};
  deliver(i, &e);
}

void tes_notify_do_name(TesInode *dir, const char *name, guint mask) {
  TesNotifyEvent e = {.mask = mask, .name = name};
  deliver(dir, &e);
}

/* The directory hears of it first, then the file. */
void tes_notify_do_path(TesPath *p, guint mask) {
  const TesVfsOps *ops = p->vfs->ops;
  g_autoptr(TesInode) dir = NULL;
  char name[TES_NAME_MAX + 1];
  if (!mask)
    return;
  if (TES_HAS(ops, parent) && ops->parent(p, watched, &dir, name)) {
    TesNotifyEvent e = {.mask = mask | dir_bit(p->inode),
                        .name = name,
                        .unlinked = TES_HAS(ops, is_deleted) && ops->is_deleted(p)};
    deliver(dir, &e);
  }
  tes_notify_do_inode(p->inode, mask);
}

/* Who may look into a directory learns from it when its regular files are used, as their times show; the times of devices and FIFOs
 * do not, and the moments of key strokes are a secret (Linux 6.11). */
static gboolean for_watchers_of_itself_only(const TesInode *i, guint mask) {
  return (mask & (IN_ACCESS | IN_MODIFY)) && !S_ISREG(i->mode) && !S_ISDIR(i->mode);
}

void tes_notify_do_file(TesFile *f, guint mask) {
  if (!f->path || (f->flags & O_PATH))
    return;
  if (for_watchers_of_itself_only(f->path->inode, mask))
    tes_notify_do_inode(f->path->inode, mask);
  else
    tes_notify_do_path(f->path, mask);
}

void tes_notify_do_create(TesInode *dir, const char *name, TesInode *child) {
  tes_notify_do_name(dir, name, IN_CREATE | dir_bit(child));
}

void tes_notify_do_rename(TesCtx *ctx, TesInode *odir, const char *oname, TesInode *ndir, const char *nname,
                          TesInode *source, TesInode *target) {
  guint dir = dir_bit(source);
  TesKernel *generator = tes_ctx_get(ctx, TES_CTX_INOTIFY_COOKIE);
  guint32 cookie = tes_notify_cookie(generator ? generator : ctx->kernel);
  TesNotifyEvent from = {.mask = IN_MOVED_FROM | dir, .cookie = cookie, .name = oname};
  TesNotifyEvent to = {.mask = IN_MOVED_TO | dir, .cookie = cookie, .name = nname};
  deliver(odir, &from);
  deliver(ndir, &to);
  if (target)
    tes_notify_do_inode(target, IN_ATTRIB);
  TesNotifyEvent self = {.mask = IN_MOVE_SELF};
  deliver(source, &self);
}

/* notify_change: both times is utime(2), one alone stands for an access or a change. */
guint tes_notify_setattr_mask(guint valid) {
  guint times = valid & (TES_SET_ATIME | TES_SET_MTIME), mask = 0;
  if (valid & (TES_SET_MODE | TES_SET_UID | TES_SET_GID))
    mask |= IN_ATTRIB;
  if (valid & TES_SET_SIZE)
    return mask | IN_MODIFY;
  if (times == (TES_SET_ATIME | TES_SET_MTIME))
    mask |= IN_ATTRIB;
  else if (times)
    mask |= times == TES_SET_ATIME ? IN_ACCESS : IN_MODIFY;
  return mask;
}

/* ---- The end of what is watched ---- */

static void take_all_off(TesInode *i, guint mask) {
  TesNotifyEvent e = {.mask = mask};
  TES_LOCKED(&lock);
  deliver_locked(i, &e);
  for (TesNotifyMark *m = *bucket(i), *next; m; m = next) {
    next = m->next;
    if (tes_notify_same_inode(m->inode, i))
      detach_locked(m);
  }
}

void tes_notify_do_gone(TesInode *i) {
  TesCtx ctx;
  TesAttr a = {0};
  if (!watched(i) || !TES_HAS(i->ops, getattr))
    return;
  tes_ctx_init(&ctx, TES_CTX_SUPERVISOR, i->super->kernel);
  int r = i->ops->getattr(i, &ctx, &a);
  if (S_ISDIR(i->mode) || r == -ENOENT || r == -ESTALE || (r == 0 && a.nlink == 0))
    take_all_off(i, IN_DELETE_SELF);
}

/* The first mark of the filesystem; its inode is referenced. */
static TesInode *first_of(TesSuper *s) {
  TES_LOCKED(&lock);
  for (guint b = 0; b < BUCKETS; b++)
    for (TesNotifyMark *m = buckets[b]; m; m = m->next)
      if (m->inode->super == s)
        return tes_inode_ref(m->inode);
  return NULL;
}

void tes_notify_do_unmount(TesSuper *s) {
  TesInode *i;
  while ((i = first_of(s))) {
    take_all_off(i, IN_UNMOUNT | dir_bit(i));
    tes_inode_unref(i);
  }
}
