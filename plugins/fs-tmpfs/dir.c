/* SPDX-License-Identifier: Apache-2.0 */
/* Names of tmpfs directories: a set for lookups, and an array by age for readdir, newest first, where a position stays what it is
 * while names come and go. The VFS serialises changes of one directory and has checked permissions; the node lock
 * protects against lookups and readers. */
#include "tmpfs.h"

#define NAME_SPACE INODE_SPACE /* of a further link */
#define FIRST_COOKIE 3
#define MIN_ROOM 8

void dir_init(Node *n, Node *parent) {
  n->dir.next_cookie = FIRST_COOKIE;
  n->dir.parent = parent ? parent : n;
  n->inode.flags |= TES_INODE_WHITEOUTS;
}

/* Dropping a directory drops what is in it, and so on: in a loop, since a guest can nest them deeper than a stack reaches. */
static void drop_nodes(GPtrArray *nodes) {
  static __thread GPtrArray *todo;
  if (todo) {
    for (guint i = 0; i < nodes->len; i++)
      g_ptr_array_add(todo, nodes->pdata[i]);
    return;
  }
  todo = nodes;
  while (nodes->len) {
    Node *n = nodes->pdata[nodes->len - 1];
    g_ptr_array_set_size(nodes, (gint)nodes->len - 1);
    tes_inode_unref(&n->inode); /* may come back here */
  }
  todo = NULL;
}

static void entry_free(Entry *e) {
  tes_inode_unref(&e->node->inode);
  g_free(e);
}

void dir_clear(Node *n) {
  g_autoptr(GPtrArray) nodes = g_ptr_array_new();
  tes_mutex_lock(&n->lock);
  Dir *d = &n->dir;
  g_clear_pointer(&d->names, g_hash_table_unref);
  for (guint i = 0; i < d->n_slots; i++)
    if (d->slots[i].entry) {
      g_ptr_array_add(nodes, d->slots[i].entry->node);
      g_free(d->slots[i].entry);
    }
  g_clear_pointer(&d->slots, g_free);
  d->n_slots = d->room = d->n_entries = 0;
  tes_mutex_unlock(&n->lock);
  drop_nodes(nodes);
}

/* ---- Entries; node lock of the directory held ---- */

static Entry *entry_find(const Dir *d, const char *name) {
  gpointer key = NULL;
  if (!d->names || !g_hash_table_lookup_extended(d->names, name, &key, NULL))
    return NULL;
  return (Entry *)((char *)key - G_STRUCT_OFFSET(Entry, name));
}

/* The number of slots whose cookie is at most `cookie`. */
static guint slots_up_to(const Dir *d, guint64 cookie) {
  guint lo = 0, hi = d->n_slots;
  while (lo < hi) {
    guint mid = lo + (hi - lo) / 2;
    if (d->slots[mid].cookie <= cookie)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* Drops removed slots once they are the greater part, and makes room for one more. */
static void slots_make_room(Dir *d) {
  if (d->n_slots < d->room)
    return;
  if (d->n_entries < d->n_slots / 2) {
    guint kept = 0;
    for (guint i = 0; i < d->n_slots; i++)
      if (d->slots[i].entry)
        d->slots[kept++] = d->slots[i];
    d->n_slots = kept;
  }
  guint room = MAX(MIN_ROOM, d->n_slots * 2);
  if (room != d->room)
    d->slots = g_renew(Slot, d->slots, room);
  d->room = room;
}

static void entry_add(Node *dir, const char *name, Node *child /* reference taken */) {
  Dir *d = &dir->dir;
  gsize len = strlen(name) + 1;
  Entry *e = g_malloc(sizeof *e + len);
  *e = (Entry){.cookie = d->next_cookie++, .node = child};
  memcpy(e->name, name, len);
  tes_inode_ref(&child->inode);
  if (!d->names)
    d->names = g_hash_table_new(g_str_hash, g_str_equal);
  g_hash_table_add(d->names, e->name);
  slots_make_room(d);
  d->slots[d->n_slots++] = (Slot){e->cookie, e};
  d->n_entries++;
  node_modified(dir);
}

static void entry_remove(Node *dir, Entry *e) {
  Dir *d = &dir->dir;
  guint at = slots_up_to(d, e->cookie) - 1;
  d->slots[at].entry = NULL;
  while (d->n_slots && !d->slots[d->n_slots - 1].entry)
    d->n_slots--;
  g_hash_table_remove(d->names, e->name);
  d->n_entries--;
  entry_free(e);
  node_modified(dir);
}

int tmpfs_lookup(TesInode *i, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  Node *dir = node_of(i);
  TES_LOCKED(&dir->lock);
  Entry *e = entry_find(&dir->dir, name);
  if (!e)
    return -ENOENT;
  *out = tes_inode_ref(&e->node->inode);
  return 0;
}

/* A removed directory takes no names. */
int dir_add(Node *dir, const char *name, Node *child) {
  TES_LOCKED(&dir->lock);
  if (dir->nlink == 0)
    return -ENOENT;
  if (entry_find(&dir->dir, name))
    return -EEXIST;
  entry_add(dir, name, child);
  if (is_dir(child))
    dir->nlink++;
  return 0;
}

/* ---- Changes ---- */

/* A name of a file that is no directory went. A further name costs as much as a node. */
static void drop_link(Node *n) {
  TES_LOCKED(&n->lock);
  if (n->nlink > 1)
    space_give(tmpfs_of(n), NAME_SPACE);
  n->nlink--;
  node_now(n, &n->ctime);
}

/* The first name of an O_TMPFILE file has been paid for. */
static int take_link(Node *n) {
  TES_LOCKED(&n->lock);
  if (!n->nlink && !n->linkable)
    return -ENOENT; /* removed for good */
  if (n->nlink && !space_take(tmpfs_of(n), NAME_SPACE))
    return -ENOSPC;
  n->nlink++;
  n->linkable = FALSE;
  node_now(n, &n->ctime);
  return 0;
}

int tmpfs_link(TesInode *i, TesCtx *ctx, const char *name, TesInode *target) {
  (void)ctx;
  Node *t = node_of(target);
  int err = take_link(t);
  if (err < 0)
    return err;
  err = dir_add(node_of(i), name, t);
  if (err < 0)
    drop_link(t);
  return err;
}

int tmpfs_unlink(TesInode *i, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)ctx;
  Node *dir = node_of(i);
  drop_link(node_of(victim));
  TES_LOCKED(&dir->lock);
  Entry *e = entry_find(&dir->dir, name);
  if (e)
    entry_remove(dir, e);
  return 0;
}

static gboolean mark_removed_if_empty(Node *v) {
  TES_LOCKED(&v->lock);
  if (v->dir.n_entries)
    return FALSE;
  v->nlink = 0;
  node_now(v, &v->ctime);
  return TRUE;
}

int tmpfs_rmdir(TesInode *i, TesCtx *ctx, const char *name, TesInode *victim) {
  (void)ctx;
  Node *dir = node_of(i);
  if (!mark_removed_if_empty(node_of(victim)))
    return -ENOTEMPTY;
  TES_LOCKED(&dir->lock);
  dir->nlink--;
  Entry *e = entry_find(&dir->dir, name);
  if (e)
    entry_remove(dir, e);
  return 0;
}

/* ---- Rename ---- */

/* Moves a directory's ".." and the link it holds on its parent. */
static void reparent(Node *child, Node *from, Node *to) {
  if (!is_dir(child) || from == to)
    return;
  __atomic_store_n(&child->dir.parent, to, __ATOMIC_RELEASE);
  change_nlink(from, -1);
  change_nlink(to, 1);
}

static void replace_entry(Node *dir, const char *name, Node *with) {
  TES_LOCKED(&dir->lock);
  Entry *e = entry_find(&dir->dir, name);
  if (e)
    entry_remove(dir, e);
  if (with)
    entry_add(dir, name, with);
}

/* The name keeps its place, and stands for another node. The caller holds both nodes. */
static void point_entry(Node *dir, const char *name, Node *to) {
  tes_mutex_lock(&dir->lock);
  Entry *e = entry_find(&dir->dir, name);
  Node *old = e->node;
  e->node = node_of(tes_inode_ref(&to->inode));
  node_modified(dir);
  tes_mutex_unlock(&dir->lock);
  tes_inode_unref(&old->inode);
}

static void exchange(Node *from, const char *oname, Node *to, const char *nname, Node *s, Node *t) {
  tes_inode_ref(&s->inode);
  tes_inode_ref(&t->inode);
  point_entry(from, oname, t);
  point_entry(to, nname, s);
  reparent(s, from, to);
  reparent(t, to, from);
  change_nlink(t, 0);
  tes_inode_unref(&t->inode);
  tes_inode_unref(&s->inode);
}

/* RENAME_WHITEOUT: the device 0:0 that a union filesystem takes for a removed name. */
static Node *whiteout_new(Node *dir, TesCtx *ctx, guint flags, int *err) {
  return (flags & RENAME_WHITEOUT) ? node_new(tmpfs_of(dir), ctx, dir, S_IFCHR, err) : NULL;
}

int tmpfs_rename(TesInode *odir, const char *oname, TesInode *ndir, const char *nname, TesInode *source,
                 TesInode *target, TesCtx *ctx, guint flags) {
  Node *from = node_of(odir), *to = node_of(ndir), *s = node_of(source), *t = target ? node_of(target) : NULL;
  int err = 0;
  if (flags & RENAME_EXCHANGE) {
    exchange(from, oname, to, nname, s, t);
    change_nlink(s, 0);
    return 0;
  }
  Node *whiteout = whiteout_new(from, ctx, flags, &err);
  if (err == 0 && t && is_dir(t) && !mark_removed_if_empty(t))
    err = -ENOTEMPTY;
  if (err < 0) {
    if (whiteout)
      tes_inode_unref(&whiteout->inode);
    return err;
  }
  tes_inode_ref(source); /* survives the removal of its old name */
  if (t && is_dir(t))
    change_nlink(to, -1);
  else if (t)
    drop_link(t);
  replace_entry(from, oname, whiteout);
  replace_entry(to, nname, s);
  reparent(s, from, to);
  change_nlink(s, 0);
  if (whiteout)
    tes_inode_unref(&whiteout->inode);
  tes_inode_unref(source);
  return 0;
}

/* ---- Reading ---- */

static void dir_release(TesFile *f) { g_free(f); }

/* Positions: 0 ".", 1 "..", then the cookie of the next entry or, if that has gone, of an older one. */
static int dir_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  Node *dir = node_of(f->inode);
  TES_LOCKED(&dir->lock);
  Dir *d = &dir->dir;
  touch_atime(f, dir);
  if (*pos >= POS_END)
    return 0;
  guint at = *pos <= 2 ? d->n_slots : slots_up_to(d, (guint64)*pos);
  while (at && !d->slots[at - 1].entry)
    at--;
  if (*pos == 0) {
    if (!fill(data, ".", 1, dir->inode.ino, DT_DIR, 1))
      return 0;
    *pos = 1;
  }
  if (*pos == 1) {
    const Node *up = __atomic_load_n(&d->parent, __ATOMIC_ACQUIRE);
    goffset next = at ? (goffset)d->slots[at - 1].cookie : POS_END;
    if (!fill(data, "..", 2, up->inode.ino, DT_DIR, next))
      return 0;
    *pos = next;
  }
  while (at) {
    const Entry *e = d->slots[--at].entry;
    while (at && !d->slots[at - 1].entry)
      at--;
    goffset next = at ? (goffset)d->slots[at - 1].cookie : POS_END;
    if (!fill(data, e->name, strlen(e->name), e->node->inode.ino, IFTODT(e->node->inode.mode), next))
      return 0;
    *pos = next;
  }
  *pos = POS_END;
  return 0;
}

/* Positions are cookies: there is no end to seek to. */
static goffset dir_seek(TesFile *f, TesCtx *ctx, goffset off, int whence) {
  (void)f, (void)ctx, (void)off;
  return whence == SEEK_SET || whence == SEEK_CUR ? -EOPNOTSUPP : -EINVAL;
}

static int dir_fsync(TesFile *f, TesCtx *ctx, gboolean data_only) {
  (void)f, (void)ctx, (void)data_only;
  return 0;
}

const TesFileOps tmpfs_dir_ops = {.size = sizeof(TesFileOps),
                                  .name = "tmpfs-dir",
                                  .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                  .seek = dir_seek,
                                  .ioctl = tmpfs_ioctl,
                                  .readdir = dir_readdir,
                                  .fsync = dir_fsync,
                                  .release = dir_release};
