/* SPDX-License-Identifier: Apache-2.0 */
/* The walk: path_resolution(7), openat2(2), symlink(7). One directory, one name, one lookup at a time; where the walk stands is
 * counted, so it may sleep anywhere. */
#include "vfs1.h"
#include <linux/openat2.h>

#define SCOPED (RESOLVE_BENEATH | RESOLVE_IN_ROOT)

/* Takes over both references. */
static void move_to(Walk *w, Pos to) {
  v1_pos_clear(&w->pos);
  w->pos = to;
}

static Pos pos_ref(const Pos *p) { return (Pos){v1_mount_ref(p->mnt), v1_dirent_ref(p->d)}; }

static gboolean same_place(const Pos *a, const Pos *b) { return a->mnt == b->mnt && a->d == b->d; }

/* ---- Steps ---- */

/* To the top of what is mounted here. `before`: the mount that the step began in. */
static int cross(Walk *w, const Mount *before) {
  v1_cross(w->v, &w->pos);
  return (w->resolve & RESOLVE_NO_XDEV) && w->pos.mnt != before ? -EXDEV : 0;
}

static int step_up(Walk *w) {
  const Mount *before = w->pos.mnt;
  w->rooted = TRUE;
  while (!same_place(&w->pos, &w->root) && w->pos.d == w->pos.mnt->root)
    if (!v1_step_out(w->v, &w->pos))
      return cross(w, before); /* the top of everything */
  if (same_place(&w->pos, &w->root))
    return (w->resolve & RESOLVE_BENEATH) ? -EXDEV : cross(w, before);
  Dirent *up = v1_parent(w->pos.d);
  if (!up)
    return 0; /* a nameless file */
  move_to(w, (Pos){v1_mount_ref(w->pos.mnt), up});
  /* A scoped walk must not be carried out of its scope by a rename or a mount in the middle. */
  if ((w->resolve & SCOPED) && g_atomic_int_get(&w->v->moves) != w->moves)
    return -EAGAIN;
  return cross(w, before);
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
  if ((w->resolve & RESOLVE_BENEATH) ||
      ((w->resolve & RESOLVE_NO_XDEV) && (!w->rooted || w->pos.mnt != w->root.mnt)))
    return -EXDEV;
  w->rooted = TRUE;
  move_to(w, pos_ref(&w->root));
  return 0;
}

static int follow_magic(Walk *w, TesInode *i) {
  if (w->resolve & RESOLVE_NO_MAGICLINKS)
    return -ELOOP;
  if (w->resolve & SCOPED)
    return -EXDEV;
  g_autoptr(TesPath) p = NULL;
  int r = TES_HAS(i->ops, follow) ? i->ops->follow(i, w->ctx, &p) : -ELOOP;
  if (r < 0)
    return r;
  if ((w->resolve & RESOLVE_NO_XDEV) && v1_pos(p)->mnt != w->pos.mnt)
    return -EXDEV;
  move_to(w, pos_ref(v1_pos(p)));
  return 0;
}

/* i: a symbolic link in the directory where the walk stands. */
static int follow(Walk *w, TesInode *i) {
  if (++w->links > WALK_MAX_LINKS || (w->resolve & RESOLVE_NO_SYMLINKS) ||
      (v1_mount_flags(w->pos.mnt) & MS_NOSYMFOLLOW))
    return -ELOOP;
  if (i->flags & TES_INODE_MAGIC_LINK)
    return follow_magic(w, i);
  int r = *walk_skip_slashes(w->rest) ? 0 : rules_may_follow(w->ctx, w->pos.d->inode, i);
  if (r < 0)
    return r;
  g_autofree char *text = NULL;
  r = TES_HAS(i->ops, readlink) ? i->ops->readlink(i, w->ctx, &text) : -EINVAL;
  return r < 0 ? r : push_text(w, text);
}

/* ---- The walk ---- */

/* One ordinary component; `after` is the text behind it. */
static int step(Walk *w, const char *name, gsize len, const char *after) {
  Dirent *d;
  char one[TES_NAME_MAX + 1];
  memcpy(one, name, len);
  one[len] = '\0';
  int r = v1_lookup(w->ctx, w->pos.d, one, (w->resolve & RESOLVE_CACHED) != 0, &d);
  if (r < 0)
    return r;
  w->rest = after;
  if (S_ISLNK(d->inode->mode) && (*after || !(w->flags & W_NOFOLLOW))) {
    r = follow(w, d->inode);
    v1_dirent_unref(d);
    return r;
  }
  const Mount *before = w->pos.mnt;
  move_to(w, (Pos){v1_mount_ref(w->pos.mnt), d});
  return cross(w, before);
}

static int keep_last(Walk *w, const char *name, gsize len, LastKind kind, gboolean slash) {
  memcpy(w->last, name, len);
  w->last[len] = '\0';
  w->last_kind = kind;
  w->last_slash = slash;
  w->rest = "";
  return 0;
}

static int search_permission(Walk *w) {
  TesInode *i = w->pos.d->inode;
  return S_ISDIR(i->mode) ? tes_inode_permission(i, w->ctx, X_OK) : -ENOTDIR;
}

static int run(Walk *w) {
  gboolean slash = FALSE;
  w->last_kind = LAST_ROOT;
  for (;;) {
    const char *name = walk_skip_slashes(w->rest);
    gsize len = walk_component(name);
    if (!len)
      return (slash || (w->flags & W_DIRECTORY)) && !S_ISDIR(w->pos.d->inode->mode) ? -ENOTDIR : 0;
    int r = search_permission(w);
    if (r < 0)
      return r;
    if (len > TES_NAME_MAX)
      return -ENAMETOOLONG;
    const char *after = name + len;
    slash = *after == '/';
    LastKind kind = walk_kind(name, len);
    if ((w->flags & W_PARENT) && !*walk_skip_slashes(after))
      return keep_last(w, name, len, kind, slash);
    if (kind == LAST_NORM) {
      r = step(w, name, len, after);
    } else {
      w->rest = after;
      slash = TRUE; /* "." and ".." are directories */
      r = kind == LAST_DOTDOT ? step_up(w) : 0;
    }
    if (r < 0)
      return r;
  }
}

static int start(Walk *w, const TesAt *at) {
  if (w->resolve & SCOPED)
    w->root = w->base;
  w->rooted = *at->path == '/' || (w->resolve & SCOPED);
  if (*at->path == '/') {
    if (w->resolve & RESOLVE_BENEATH)
      return -EXDEV;
    w->pos = pos_ref(&w->root);
  } else {
    w->pos = pos_ref(&w->base);
  }
  return *at->path || (at->flags & TES_AT_EMPTY) ? 0 : -ENOENT;
}

int v1_walk(Walk *w, TesVfs *vfs, TesCtx *ctx, const TesAt *at, guint flags) {
  memset(w, 0, G_STRUCT_OFFSET(Walk, last));
  w->v = v1_of(vfs);
  w->ctx = ctx;
  w->flags = flags;
  w->resolve = at->resolve;
  w->rest = at->path;
  w->moves = g_atomic_int_get(&w->v->moves);
  TesPath *root = tes_ctx_root(ctx), *base = at->base;
  if (!base && (*at->path != '/' || (at->resolve & SCOPED)))
    base = tes_ctx_working_dir(ctx);
  if (!root)
    root = base;
  if (!root)
    return -ENOENT;
  w->root = *v1_pos(root);
  w->base = base ? *v1_pos(base) : w->root;
  int r = start(w, at);
  if (r >= 0)
    r = run(w);
  if (r < 0)
    v1_walk_end(w);
  return r;
}

int v1_walk_link(Walk *w, Dirent *d) {
  w->rest = w->last_slash ? "/" : "";
  int r = follow(w, d->inode);
  return r < 0 ? r : run(w);
}

void v1_walk_end(Walk *w) {
  v1_pos_clear(&w->pos);
  g_clear_pointer(&w->buf, g_free);
}
