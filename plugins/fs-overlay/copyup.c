/* SPDX-License-Identifier: Apache-2.0 */
/* Copy-up: the copy is made complete in the work directory (owner, mode, times, attributes, data with its holes) and then moved to
 * its place, so that nobody ever finds half a file, also after the kernel process was killed.
 *
 * The copy lock of the inode is held meanwhile: others who want to change the file wait. Data moves without the directory's
 * lock. Parents are copied up first, from the top, so no two copy locks are ever held at once. */
#include "overlay.h"

#define BUFFER (1UL << 20)

void ov_temp_name(OvSuper *s, char name[32]) {
  g_snprintf(name, 32, "#%x", (guint)g_atomic_int_add((gint *)&s->next_temp, 1));
}

/* ---- Data ---- */

static gssize move(TesFile *from, TesFile *to, TesCtx *ctx, char *buf, goffset at, gsize n) {
  struct iovec one;
  TesIov iov;
  goffset pos = at;
  tes_iov_init_kernel(&iov, &one, buf, n);
  gssize got = from->ops->read(from, ctx, &iov, &pos, 0);
  if (got <= 0)
    return got;
  for (gssize done = 0; done < got;) {
    pos = at + done;
    tes_iov_init_kernel(&iov, &one, buf + done, (gsize)(got - done));
    gssize r = to->ops->write(to, ctx, &iov, &pos, TES_RW_PWRITE);
    if (r <= 0)
      return r < 0 ? r : -ENOSPC;
    done += r;
  }
  return got;
}

static goffset next_data(TesFile *f, TesCtx *ctx, goffset at, int whence, goffset fallback) {
  goffset r = TES_HAS(f->ops, seek) ? f->ops->seek(f, ctx, at, whence) : -EOPNOTSUPP;
  return r >= 0 || r == -ENXIO ? r : fallback;
}

/* A large file takes its time; who is killed meanwhile does not wait for the rest. */
static gboolean given_up(TesCtx *ctx) {
  TesTask *t = tes_ctx_task(ctx);
  return t && tes_task_is_killed(t);
}

/* How far it came: to `size`, unless a hole is at the end; or -errno. */
static goffset copy_stretches(TesFile *from, TesFile *to, TesCtx *ctx, goffset size) {
  gsize step = MIN(BUFFER, (gsize)size);
  g_autofree char *buf = g_malloc(step);
  gboolean holes = size > (goffset)TES_PAGE_SIZE; /* a page has none */
  goffset at = 0;
  while (at < size) {
    goffset data = holes ? next_data(from, ctx, at, SEEK_DATA, at) : at;
    if (data < 0 || data >= size)
      break; /* nothing but a hole is left */
    goffset end = holes ? MIN(next_data(from, ctx, data, SEEK_HOLE, size), size) : size;
    if (end <= data)
      end = size;
    for (at = data; at < end;) {
      gssize r = move(from, to, ctx, buf, at, MIN(step, (gsize)(end - at)));
      if (r < 0)
        return r;
      if (r == 0)
        return at; /* shorter than it was */
      if (given_up(ctx))
        return -EINTR;
      at += r;
    }
  }
  return at;
}

static int copy_data(OvInode *o, TesCtx *ctx, TesInode *to, goffset size) {
  g_autoptr(TesFile) in = NULL, out = NULL;
  int r = ov_open_real(o->lower[0].inode, ctx, O_RDONLY | O_LARGEFILE, &in);
  if (r == 0)
    r = ov_open_real(to, ctx, O_RDWR | O_LARGEFILE, &out);
  if (r < 0 || size == 0)
    return r;
  goffset end = copy_stretches(in, out, ctx, size);
  TesSetAttr set = {.valid = TES_SET_SIZE, .size = size};
  r = (int)MIN(end, 0);
  if (r == 0 && end < size)
    r = to->ops->setattr(to, ctx, &set);
  if (r == 0 && !ov_super(o)->memory && TES_HAS(out->ops, fsync))
    r = out->ops->fsync(out, ctx, FALSE);
  return r;
}

/* ---- The copy ---- */

static int make(OvInode *o, TesCtx *ctx, const TesAttr *a, const char *temp, TesInode **out) {
  TesInode *work = ov_super(o)->work, *low = o->lower[0].inode;
  const TesInodeOps *ops = work->ops;
  g_autofree char *target = NULL;
  int r;
  switch (a->mode & S_IFMT) {
  case S_IFDIR:
    return ops->mkdir(work, ctx, temp, S_IFDIR | 0700, out);
  case S_IFREG:
    return ops->create(work, ctx, temp, S_IFREG | 0600, out);
  case S_IFLNK:
    r = low->ops->readlink(low, ctx, &target);
    return r < 0 ? r : ops->symlink(work, ctx, temp, target, out);
  default:
    return TES_HAS(ops, mknod) ? ops->mknod(work, ctx, temp, (a->mode & S_IFMT) | 0600, a->rdev, out)
                               : -EPERM;
  }
}

static int set_times(TesInode *i, TesCtx *ctx, const TesAttr *a) {
  TesSetAttr set = {.valid = TES_SET_ATIME | TES_SET_MTIME, .atime = a->atime, .mtime = a->mtime};
  return i->ops->setattr(i, ctx, &set);
}

/* Data, attributes and owner; the owner before the mode, which a change of owner may clear bits of. */
static int fill(OvInode *o, TesCtx *ctx, const TesAttr *a, TesInode *copy, goffset size) {
  int r = S_ISREG(a->mode)
              ? copy_data(o, ctx, copy, size < 0 ? (goffset)a->size : MIN(size, (goffset)a->size))
              : 0;
  if (r == 0)
    r = ov_copy_xattrs(ov_super(o), o->lower[0].inode, copy, ctx);
  TesSetAttr set = {
      .valid = TES_SET_UID | TES_SET_GID, .uid = a->uid, .gid = a->gid, .mode = a->mode & 07777};
  if (r == 0)
    r = copy->ops->setattr(copy, ctx, &set);
  set.valid = TES_SET_MODE;
  if (r == 0 && !S_ISLNK(a->mode))
    r = copy->ops->setattr(copy, ctx, &set);
  if (r == 0 && !ov_super(o)->memory && (S_ISREG(a->mode) || S_ISDIR(a->mode))) {
    char number[20]; /* it keeps it in later instances too; where the layer cannot, it does not */
    g_snprintf(number, sizeof number, "%" G_GINT64_MODIFIER "x", o->base.ino);
    ov_own_set(ov_super(o), copy, ctx, "ino", number);
  }
  return r == 0 ? set_times(copy, ctx, a) : r;
}

static void discard(OvSuper *s, TesCtx *ctx, const char *temp, TesInode *copy) {
  int (*remove)(TesInode *, TesCtx *, const char *, TesInode *) =
      S_ISDIR(copy->mode) ? s->work->ops->rmdir : s->work->ops->unlink;
  remove(s->work, ctx, temp, copy);
}

/* `temp` is free in work by now, or still the copy's name (nameless). */
static void publish(OvInode *o, TesCtx *ctx, const char *temp, gboolean nameless, TesInode *copy) {
  OvSuper *s = ov_super(o);
  OvIndex *ix = ov_index_make(o, ctx);
  if (ix && !nameless && (!TES_HAS(s->work->ops, link) || s->work->ops->link(s->work, ctx, temp, copy) < 0))
    temp = "";
  if (ix)
    ov_index_set_upper(s, ix, copy, temp);
  else if (nameless)
    discard(s, ctx, temp, copy);
  tes_mutex_lock(&s->table_lock);
  guint64 *pair = g_new(guint64, 2);
  pair[0] = copy->ino;
  pair[1] = o->base.ino;
  g_hash_table_insert(s->origins, pair, pair + 1);
  tes_mutex_unlock(&s->table_lock);
  ov_watch_upper(s, copy);
  __atomic_store_n(&o->upper, tes_inode_ref(copy), __ATOMIC_RELEASE);
  ov_inode_enter_upper(o);
  ov_sync(o);
}

/* Moves the copy to its place in `parent`; -EAGAIN: the inode is somewhere else by now. */
static int put(OvInode *o, TesCtx *ctx, OvInode *parent, const char *name, const char *temp, TesInode *copy) {
  OvSuper *s = ov_super(o);
  TesInode *pu = ov_upper(parent);
  TesAttr before;
  TES_LOCKED(&parent->lock);
  tes_mutex_lock(&s->names_lock);
  gboolean here = o->parent == parent && !o->removed && g_strcmp0(o->name, name) == 0;
  tes_mutex_unlock(&s->names_lock);
  if (!here)
    return -EAGAIN;
  gboolean known = pu->ops->getattr(pu, ctx, &before) == 0;
  int r = s->work->ops->rename(s->work, temp, pu, name, copy, NULL, ctx, RENAME_NOREPLACE);
  if (r < 0)
    return r;
  if (known) /* nothing changed for those who look at the directory */
    set_times(pu, ctx, &before);
  publish(o, ctx, temp, FALSE, copy);
  return 0;
}

/* A file that has lost its name is copied for those who still have it open. */
static int put_nameless(OvInode *o, TesCtx *ctx, const char *temp, TesInode *copy) {
  if (S_ISDIR(o->base.mode))
    return -ENOENT;
  publish(o, ctx, temp, TRUE, copy);
  return 0;
}

static int copy_one(OvInode *o, TesCtx *ctx, OvInode *parent, const char *name, goffset size) {
  OvSuper *s = ov_super(o);
  TesInode *low = o->lower[0].inode, *copy = NULL;
  TesAttr a;
  char temp[32];
  TES_LOCKED(&o->copy);
  if (ov_upper(o))
    return 0;
  int r = low->ops->getattr(low, ctx, &a);
  ov_temp_name(s, temp);
  if (r == 0)
    r = make(o, ctx, &a, temp, &copy);
  if (r < 0)
    return r;
  r = fill(o, ctx, &a, copy, size);
  if (r == 0)
    r = parent ? put(o, ctx, parent, name, temp, copy) : put_nameless(o, ctx, temp, copy);
  if (r < 0)
    discard(s, ctx, temp, copy);
  tes_inode_unref(copy);
  return r;
}

/* The highest directory on the way up that has no upper, or `o` itself; its place, referenced. */
static OvInode *highest(OvInode *o, OvInode **parent, char **name) {
  OvInode *at = ov_inode(tes_inode_ref(&o->base));
  for (;;) {
    ov_place(at, parent, name);
    if (!*parent || ov_upper(*parent))
      return at;
    tes_inode_unref(&at->base);
    at = *parent;
    g_free(*name);
  }
}

int ov_copy_up(OvInode *o, TesCtx *ctx, goffset size) {
  if (ov_upper(o))
    return 0;
  if (!ov_super(o)->upper)
    return -EROFS;
  for (guint tries = 0; !ov_upper(o);) {
    OvInode *parent;
    g_autofree char *name = NULL;
    OvInode *at = highest(o, &parent, &name);
    int r = copy_one(at, ctx, parent, name, at == o ? size : -1);
    tes_inode_unref(&at->base);
    if (parent)
      tes_inode_unref(&parent->base);
    if (r < 0 && (r != -EAGAIN || tries++ > 100))
      return r;
  }
  return 0;
}
