/* SPDX-License-Identifier: Apache-2.0 */
/* File events: what happens to inodes and to names in directories, for those who watch (inotify(7)).
 *
 * The core and the VFS generations tell with the functions below; each costs one load and a branch while nobody watches anything.
 * A watcher attaches a mark to an inode. The masks are the IN_* bits of <sys/inotify.h>.
 *
 * What a VFS generation tells, while it holds the lock of the directory that changed, in this order:
 *   create, mkdir, mknod, symlink  tes_notify_create(directory, name, new inode)
 *   link                           tes_notify_link(directory, name, inode)
 *   unlink                         tes_notify_inode(inode, IN_ATTRIB); drop the name's dentry; tes_notify_remove()
 *   rmdir                          drop the name's dentry; tes_notify_remove()
 *   rename                         tes_notify_rename(); for an exchange once each way, the second with no target
 *   open                           IN_OPEN, then IN_MODIFY if it truncated: tes_notify_file(), with file->path set; not for O_PATH (rules_tell_open() of plugins/vfs-common)
 *   a removed name's last user went: tes_notify_gone(its inode), which finds out whether that was the last link
 * and it offers TesVfsOps.parent. The core tells the rest: reading, writing, attributes, closing, unmounting. */
#pragma once

#include <sys/inotify.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

typedef struct {
  guint mask; /* one event's bit, and IN_ISDIR */
  guint32 cookie;
  const char *name;  /* which name in the watched directory; NULL: the watched inode itself */
  gboolean unlinked; /* that name was removed before (IN_EXCL_UNLINK) */
} TesNotifyEvent;

typedef struct _TesNotifyMark TesNotifyMark;
typedef struct {
  gsize size;
  /* It happened, and mark->mask has it. Called under the lock of all marks (rank TES_RANK_QUEUE - 2), so it cannot take
   * but locks behind that. TRUE: takes the mark off (IN_ONESHOT). */
  gboolean (*event)(TesNotifyMark *, const TesNotifyEvent *);
  /* The mark was taken off, by whomever; called once, under the same lock. */
  void (*off)(TesNotifyMark *);
  /* Nothing refers to it any more: free it. Called without locks, some time after off. */
  void (*free)(TesNotifyMark *);
} TesNotifyMarkOps;

/* Embedded first by its owner. A mark keeps its inode. */
struct _TesNotifyMark {
  const TesNotifyMarkOps *ops;
  TesInode *inode;             /* constant while attached */
  guint mask;                  /* atomic: IN_ALL_EVENTS bits wanted; IN_UNMOUNT comes in any case */
  TesNotifyMark *next, **link; /* private */
};

/* Puts a mark on an inode (a reference is taken). */
void tes_notify_attach(TesNotifyMark *, TesInode *);
/* Takes it off; FALSE if it was off already. The caller must know that it has not been freed. */
gboolean tes_notify_detach(TesNotifyMark *);
/* The same file? Two inodes of a filesystem that makes them anew for each lookup may be (TES_INODE_FLEETING). */
gboolean tes_notify_same_inode(const TesInode *, const TesInode *);

extern gint tes_notify_marks; /* private: how many are attached */
static inline gboolean tes_notify_on(void) {
  return G_UNLIKELY(__atomic_load_n(&tes_notify_marks, __ATOMIC_RELAXED) != 0);
}

/* Private halves of the functions below. */
void tes_notify_do_file(TesFile *, guint mask);
void tes_notify_do_path(TesPath *, guint mask);
void tes_notify_do_inode(TesInode *, guint mask);
void tes_notify_do_name(TesInode *dir, const char *name, guint mask);
void tes_notify_do_create(TesInode *dir, const char *name, TesInode *child);
void tes_notify_do_rename(TesCtx *, TesInode *odir, const char *oname, TesInode *ndir, const char *nname,
                          TesInode *source, TesInode *target);
void tes_notify_do_gone(TesInode *);
void tes_notify_do_unmount(TesSuper *);
guint tes_notify_setattr_mask(guint valid);

/* To those who watch the file and those who watch the directory it was opened in. */
static inline void tes_notify_file(TesFile *f, guint mask) {
  if (tes_notify_on())
    tes_notify_do_file(f, mask);
}
/* The same for a place. */
static inline void tes_notify_path(TesPath *p, guint mask) {
  if (tes_notify_on())
    tes_notify_do_path(p, mask);
}
/* To those who watch the inode itself. */
static inline void tes_notify_inode(TesInode *i, guint mask) {
  if (tes_notify_on())
    tes_notify_do_inode(i, mask);
}
static inline void tes_notify_create(TesInode *dir, const char *name, TesInode *child) {
  if (tes_notify_on())
    tes_notify_do_create(dir, name, child);
}
static inline void tes_notify_link(TesInode *dir, const char *name, TesInode *inode) {
  tes_notify_inode(inode, IN_ATTRIB);
  tes_notify_create(dir, name, inode);
}
static inline void tes_notify_remove(TesInode *dir, const char *name, gboolean was_dir) {
  if (tes_notify_on())
    tes_notify_do_name(dir, name, IN_DELETE | (was_dir ? IN_ISDIR : 0));
}
/* `target`: what the rename replaced, or NULL. Draws one cookie (K19). */
static inline void tes_notify_rename(TesCtx *ctx, TesInode *odir, const char *oname, TesInode *ndir,
                                     const char *nname, TesInode *source, TesInode *target) {
  if (tes_notify_on())
    tes_notify_do_rename(ctx, odir, oname, ndir, nname, source, target);
}
/* A removed name of the inode has no users any more. No lock of rank TES_RANK_INODE or behind is held. */
static inline void tes_notify_gone(TesInode *i) {
  if (tes_notify_on())
    tes_notify_do_gone(i);
}
/* The last mount of the filesystem went. */
static inline void tes_notify_unmount(TesSuper *s) {
  if (tes_notify_on())
    tes_notify_do_unmount(s);
}
/* Attributes were changed; `valid` as in TesSetAttr. */
static inline void tes_notify_setattr(TesPath *p, guint valid) {
  if (tes_notify_on())
    tes_notify_do_path(p, tes_notify_setattr_mask(valid));
}

TES_END_DECLS
