/* SPDX-License-Identifier: Apache-2.0 */
/* The whole-path walk: path_resolution(7), openat2(2), symlink(7).
 *
 * Lock-free phase: inside one epoch, nothing counted, valid if `seq` did not change until its end. It ends early
 * (unlazy) where something must be asked that may sleep; the walk then goes on from there with references. */
#include "../vfs-common/rules.h"
#include "vfs2.h"
#include <linux/openat2.h>

#define RETRY (-4095) /* internal: again, with references from the start */

/* ---- Position ---- */

/* --trace=path: what the lock-free phase found in the cache is one lookup. Outside the epoch. */
static void tell_seen(Walk *w, gboolean valid) {
  if (!w->seen)
    return;
  if (valid && w->seen->len)
    tes_trace_path(w->ctx, NULL, w->seen->str, 1);
  g_string_free(w->seen, TRUE);
  w->seen = NULL;
}

static void note_seen(Walk *w, const char *name, gsize len) {
  if (!w->seen)
    w->seen = g_string_new(NULL);
  else
    g_string_append_c(w->seen, '/');
  g_string_append_len(w->seen, name, (gssize)len);
}

/* Takes references on the position and leaves the lock-free phase. */
static int legitimize(Walk *w) {
  gboolean ok = v2_mount_try_ref(w->pos.mnt);
  if (ok && !v2_dentry_try_ref(w->pos.d)) {
    tes_epoch_leave();
    w->lockless = FALSE;
    v2_mount_unref(w->pos.mnt);
    w->pos = (Pos){NULL, NULL};
    return RETRY;
  }
  tes_epoch_leave();
  w->lockless = FALSE;
  if (!ok) {
    w->pos = (Pos){NULL, NULL};
    return RETRY;
  }
  gboolean valid = !v2_seq_changed(w->v, w->seq);
  tell_seen(w, valid);
  return valid ? 0 : RETRY;
}

/* The same in the middle of a walk, because something must be asked that may sleep. */
static int unlazy(Walk *w) {
  if (!w->lockless)
    return 0;
  return (w->resolve & RESOLVE_CACHED) ? -EAGAIN : legitimize(w);
}

/* Moves to (mnt, d); counted walks get both transfer full. */
static void move_to(Walk *w, Mount *mnt, Dentry *d) {
  Pos old = w->pos;
  w->pos = (Pos){mnt, d};
  if (!w->lockless)
    v2_pos_unref(&old);
}

/* Moves to a place held by somebody else (root, base). */
static void jump(Walk *w, const Pos *p) {
  if (w->lockless)
    move_to(w, p->mnt, p->d);
  else
    move_to(w, v2_mount_ref(p->mnt), v2_dentry_ref(p->d));
}

static Mount *mounted_ref(V2 *v, Mount *parent, Dentry *d) {
  for (;;) {
    guint seq = v2_seq_read(v);
    tes_epoch_enter();
    Mount *m = v2_mount_find(v, parent, d);
    if (m && !v2_mount_try_ref(m))
      m = NULL;
    tes_epoch_leave();
    if (m || !v2_seq_changed(v, seq))
      return m;
    if (seq & 1)
      g_thread_yield();
  }
}

void v2_cross_mounts(V2 *v, Pos *p) {
  while (__atomic_load_n(&p->d->mounted, __ATOMIC_ACQUIRE)) {
    Mount *m = mounted_ref(v, p->mnt, p->d);
    if (!m)
      return;
    Pos old = *p;
    *p = (Pos){m, v2_dentry_ref(m->root)};
    v2_pos_unref(&old);
  }
}

static int cross(Walk *w) {
  Mount *before = w->pos.mnt;
  if (w->lockless) {
    Mount *m;
    while (__atomic_load_n(&w->pos.d->mounted, __ATOMIC_ACQUIRE) &&
           (m = v2_mount_find(w->v, w->pos.mnt, w->pos.d)))
      w->pos = (Pos){m, m->root};
  } else {
    v2_cross_mounts(w->v, &w->pos);
  }
  return before != w->pos.mnt && (w->resolve & RESOLVE_NO_XDEV) ? -EXDEV : 0;
}

/* ---- Steps ---- */

static gboolean at_root(const Walk *w) { return w->pos.mnt == w->root.mnt && w->pos.d == w->root.d; }

/* From the root of a mount to where it is mounted; FALSE at the top. */
static gboolean step_out(Walk *w) {
  Mount *parent = NULL;
  Dentry *mp = NULL;
  if (w->lockless) {
    parent = LOAD(w->pos.mnt->parent);
    mp = LOAD(w->pos.mnt->mountpoint);
    if (!parent || !mp)
      return FALSE;
  } else if (!v2_mount_above(w->pos.mnt, &parent, &mp)) {
    return FALSE;
  }
  move_to(w, parent, mp);
  return TRUE;
}

static int step_up(Walk *w) {
  w->rooted = TRUE;
  for (;;) {
    if (at_root(w))
      return (w->resolve & RESOLVE_BENEATH) ? -EXDEV : cross(w); /* what covers the root */
    if (w->pos.d != w->pos.mnt->root)
      break;
    Mount *m = w->pos.mnt;
    if (!step_out(w))
      return cross(w);
    if ((w->resolve & RESOLVE_NO_XDEV) && m != w->pos.mnt)
      return -EXDEV;
  }
  tes_epoch_enter();
  Dentry *up = LOAD(w->pos.d->parent);
  if (!up) {
    tes_epoch_leave();
    return 0; /* a nameless file's dentry */
  }
  gboolean ok = w->lockless || v2_dentry_try_ref(up);
  tes_epoch_leave();
  if (!ok)
    return RETRY;
  move_to(w, w->lockless ? w->pos.mnt : v2_mount_ref(w->pos.mnt), up);
  /* A scoped walk must not be carried out of its scope by a rename or a mount in the middle. */
  if ((w->resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) && v2_seq_changed(w->v, w->seq))
    return -EAGAIN;
  return cross(w);
}

/* What a name in the position's directory leads to; counted unless lockless. *d is NULL if the lock-free phase had to end. */
static int child(Walk *w, const char *name, gsize len, Dentry **d) {
  *d = NULL;
  TesInode *dir = d_inode(w->pos.d);
  if (w->lockless) {
    Dentry *c = v2_dcache_find(w->v, w->pos.d, name, len);
    if (c && (!(dir->flags & (TES_INODE_NO_CACHE | TES_INODE_REVALIDATE)) ||
              __atomic_load_n(&c->mounted, __ATOMIC_ACQUIRE))) {
      if (G_UNLIKELY(w->v->tracing))
        note_seen(w, name, len);
      *d = c;
      return 0;
    }
    int r = unlazy(w);
    if (r < 0)
      return r;
  }
  return v2_lookup(w->v, w->ctx, w->pos.d, name, len, (w->flags & W_PARENT) ? NULL : name + len, d);
}

static int search_permission(Walk *w) {
  TesInode *i = d_inode(w->pos.d);
  if (!i)
    return -ENOENT;
  if (!S_ISDIR(i->mode))
    return -ENOTDIR;
  if (w->lockless && TES_HAS(i->ops, permission)) {
    int r = unlazy(w);
    if (r < 0)
      return r;
  }
  return tes_inode_permission(i, w->ctx, X_OK);
}

/* ---- Symbolic links ---- */

/* Goes on with `text` and then with what followed the link. */
static int push_text(Walk *w, const char *text) {
  if (!*text)
    return -ENOENT;
  char *joined = g_strconcat(text, w->rest, NULL);
  gboolean absolute = *text == '/';
  g_free(w->buf);
  w->buf = joined;
  w->rest = joined;
  if (!absolute)
    return 0;
  if (w->resolve & RESOLVE_BENEATH)
    return -EXDEV;
  if ((w->resolve & RESOLVE_NO_XDEV) && (!w->rooted || w->pos.mnt != w->root.mnt))
    return -EXDEV;
  w->rooted = TRUE;
  jump(w, &w->root);
  return 0;
}

static int follow_magic(Walk *w, TesInode *i) {
  if (w->resolve & RESOLVE_NO_MAGICLINKS)
    return -ELOOP;
  if (w->resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT))
    return -EXDEV;
  g_autoptr(TesPath) p = NULL;
  int r = TES_HAS(i->ops, follow) ? i->ops->follow(i, w->ctx, &p) : -ELOOP;
  if (r < 0)
    return r;
  Pos to = {v2_path(p)->mnt, v2_path(p)->d};
  if ((w->resolve & RESOLVE_NO_XDEV) && to.mnt != w->pos.mnt)
    return -EXDEV;
  jump(w, &to);
  return 0;
}

/* d: a symbolic link in the position's directory, counted unless lockless (then with its text known). */
static int follow(Walk *w, Dentry *d) {
  if (++w->links > WALK_MAX_LINKS || (w->resolve & RESOLVE_NO_SYMLINKS))
    return -ELOOP;
  if (v2_mount_flags(w->pos.mnt) & MS_NOSYMFOLLOW)
    return -ELOOP;
  TesInode *i = d_inode(d);
  if (i->flags & TES_INODE_MAGIC_LINK)
    return follow_magic(w, i);
  int r = *walk_skip_slashes(w->rest) ? 0 : rules_may_follow(w->ctx, d_inode(w->pos.d), i);
  if (r < 0)
    return r;
  const char *text = LOAD(d->link);
  if (text)
    return push_text(w, text);
  g_autofree char *fresh = NULL;
  r = TES_HAS(i->ops, readlink) ? i->ops->readlink(i, w->ctx, &fresh) : -EINVAL;
  if (r < 0)
    return r;
  r = push_text(w, fresh);
  char *none = NULL;
  if (!(i->flags & TES_INODE_NO_CACHE) && v2_dir_is_cached(w->pos.d) &&
      __atomic_compare_exchange_n(&d->link, &none, fresh, FALSE, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
    fresh = NULL; /* a link's text never changes; the dentry owns it */
  return r;
}

/* ---- The walk ---- */

/* Moves to the child `d` (counted unless lockless; consumed). */
static int enter(Walk *w, Dentry *d) {
  move_to(w, w->lockless ? w->pos.mnt : v2_mount_ref(w->pos.mnt), d);
  return cross(w);
}

/* One ordinary component. `after` is the text behind it. */
static int step(Walk *w, const char *name, gsize len, const char *after) {
  Dentry *d;
  int r = child(w, name, len, &d);
  if (r < 0)
    return r;
  TesInode *i = d_inode(d);
  if (!i) {
    r = -ENOENT;
  } else if (S_ISLNK(i->mode) && (*after || !(w->flags & W_NOFOLLOW))) {
    if (w->lockless && (!LOAD(d->link) || (i->flags & TES_INODE_MAGIC_LINK))) {
      r = unlazy(w);
      return r < 0 ? r : step(w, name, len, after);
    }
    w->rest = after;
    r = follow(w, d);
  } else {
    w->rest = after;
    return enter(w, d);
  }
  if (!w->lockless)
    v2_dentry_unref(d);
  return r;
}

static int final_checks(Walk *w, gboolean slash) {
  TesInode *i = d_inode(w->pos.d);
  if (!i)
    return -ENOENT;
  if ((slash || (w->flags & W_DIRECTORY)) && !S_ISDIR(i->mode))
    return -ENOTDIR;
  return 0;
}

static int keep_last(Walk *w, const char *name, gsize len, LastKind kind, gboolean slash) {
  memcpy(w->last, name, len);
  w->last[len] = '\0';
  w->last_len = len;
  w->last_kind = kind;
  w->last_slash = slash;
  w->rest = "";
  return 0;
}

static int run(Walk *w) {
  gboolean slash = FALSE;
  w->last_kind = LAST_ROOT;
  w->last_len = 0;
  for (;;) {
    const char *name = walk_skip_slashes(w->rest);
    gsize len = walk_component(name);
    if (!len)
      return final_checks(w, slash);
    int r = search_permission(w);
    if (r < 0)
      return r;
    if (len > TES_NAME_MAX)
      return -ENAMETOOLONG;
    const char *after = name + len;
    gboolean final = !*walk_skip_slashes(after);
    slash = *after == '/';
    LastKind kind = walk_kind(name, len);
    if (final && (w->flags & W_PARENT))
      return keep_last(w, name, len, kind, slash);
    if (kind != LAST_NORM) {
      w->rest = after;
      slash = TRUE; /* "." and ".." are directories */
      r = kind == LAST_DOTDOT ? step_up(w) : 0;
    } else {
      r = step(w, name, len, after);
    }
    if (r < 0)
      return r;
  }
}

static int start(Walk *w, const TesAt *at, TesPath *root, TesPath *base) {
  w->root = (Pos){v2_path(root)->mnt, v2_path(root)->d};
  w->base = base ? (Pos){v2_path(base)->mnt, v2_path(base)->d} : w->root;
  if (w->resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT))
    w->root = w->base;
  w->rest = at->path;
  w->rooted = *at->path == '/' || (w->resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT));
  if (*at->path == '/') {
    if (w->resolve & RESOLVE_BENEATH)
      return -EXDEV;
    jump(w, &w->root);
  } else {
    jump(w, &w->base);
  }
  return *at->path || (at->flags & TES_AT_EMPTY) ? 0 : -ENOENT;
}

static void reset(Walk *w) {
  if (w->lockless)
    tes_epoch_leave();
  else
    v2_pos_unref(&w->pos);
  tell_seen(w, w->lockless);
  w->lockless = FALSE;
  w->pos = (Pos){NULL, NULL};
  w->links = 0;
  g_clear_pointer(&w->buf, g_free);
}

static int attempt(Walk *w, const TesAt *at, TesPath *root, TesPath *base, gboolean lockless,
                   gboolean may_end) {
  w->seq = v2_seq_read(w->v);
  w->lockless = lockless;
  if (lockless)
    tes_epoch_enter();
  int r = start(w, at, root, base);
  if (r == 0)
    r = run(w);
  if (!w->lockless)
    return r;
  if (r >= 0 && !may_end)
    return legitimize(w);
  /* What was seen without locks, errors too, counts only if nothing moved meanwhile. */
  return v2_seq_changed(w->v, w->seq) ? RETRY : r;
}

int v2_walk(Walk *w, V2 *v, TesCtx *ctx, const TesAt *at, guint flags, gboolean allow_lockless) {
  memset(w, 0, G_STRUCT_OFFSET(Walk, last));
  w->v = v;
  w->ctx = ctx;
  w->flags = flags;
  w->resolve = at->resolve;
  TesPath *root = tes_ctx_root(ctx);
  TesPath *base = at->base;
  if (!base && (*at->path != '/' || (at->resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH))))
    base = tes_ctx_working_dir(ctx);
  if (!root)
    root = base;
  if (!root)
    return -ENOENT;
  int r = attempt(w, at, root, base, TRUE, allow_lockless);
  for (guint i = 0; r == RETRY && i < 100; i++) {
    reset(w);
    r = (at->resolve & RESOLVE_CACHED) ? -EAGAIN : attempt(w, at, root, base, FALSE, FALSE);
  }
  if (r < 0)
    reset(w);
  return r == RETRY ? -EAGAIN : r;
}

int v2_walk_link(Walk *w, Dentry *d) {
  w->rest = w->last_slash ? "/" : "";
  int r = follow(w, d);
  return r < 0 ? r : run(w);
}

void v2_walk_end(Walk *w) { reset(w); }
