/* SPDX-License-Identifier: Apache-2.0 */
/* fs-overlay: options, the instance, inode numbers, and the plugin.
 *
 * mount(2): lowerdir=A:B:C (A on top; "\:" and "\," for those characters), upperdir=, workdir= (on the upper's filesystem),
 * redirect_dir=on|off|follow|nofollow, userxattr, volatile; index=, xino=, metacopy=, nfs_export= are accepted with "off".
 * For the runtime (supervisor only): `source` is a host directory that becomes the only lower layer and
 * the options are "host" with "memory" (an upper that vanishes with the sandbox) or "hostupper=DIR" (DIR/upper and DIR/work). */
#include "overlay.h"
#include <sys/mount.h>

#define OVERLAYFS_MAGIC 0x794c7630
#define MAX_LAYERS 500
#define MAX_DEPTH 2 /* as on Linux: each level is a level of calls, too */
#define INO_BITS 48

static const TesLockClass rename_class = {"overlay rename", TES_RANK_DENTRY + 4, FALSE,
                                          "places of an overlay's directories"};
static const TesLockClass names_class = {"overlay names", TES_RANK_LEAF - 3, FALSE,
                                         "where each overlay inode was found"};
static const TesLockClass table_class = {"overlay inodes", TES_RANK_LEAF - 3, FALSE,
                                         "overlay inodes by layer inode, numbers"};

/* ---- Numbers ---- */

guint ov_dev_index(OvSuper *s, guint64 dev) {
  TES_LOCKED(&s->table_lock);
  guint k = 0;
  while (k < s->devs->len && g_array_index(s->devs, guint64, k) != dev)
    k++;
  if (k == s->devs->len)
    g_array_append_val(s->devs, dev);
  return k;
}

guint64 ov_ino_on(guint k, guint64 ino) {
  if (k == 0)
    return ino;
  if (ino >> INO_BITS) /* no room for the layer: mixed, which may collide in theory */
    return (ino * 0x9e3779b97f4a7c15ULL + k) | 1ULL << 63;
  return ino | (guint64)k << INO_BITS;
}

guint64 ov_origin(OvSuper *s, guint64 upper_ino) {
  TES_LOCKED(&s->table_lock);
  const guint64 *known = g_hash_table_lookup(s->origins, &upper_ino);
  return known ? *known : 0;
}

/* ---- The instance ---- */

static int ov_statfs(TesSuper *base, TesCtx *ctx, struct statfs *out) {
  OvSuper *s = (OvSuper *)base;
  TesSuper *real = (s->upper ? s->upper : s->lower[0])->super;
  int r = TES_HAS(real->ops, statfs) ? real->ops->statfs(real, ctx, out) : -ENOSYS;
  if (r == 0) {
    out->f_type = OVERLAYFS_MAGIC;
    out->f_namelen = TES_NAME_MAX;
  }
  return r;
}

static int ov_sync_super(TesSuper *base) {
  OvSuper *s = (OvSuper *)base;
  TesSuper *real = s->upper ? s->upper->super : NULL;
  return real && TES_HAS(real->ops, sync) ? real->ops->sync(real) : 0;
}

static char *ov_show(TesSuper *base) { return g_strdup(((OvSuper *)base)->options); }

static void layer_put(TesInode *i) {
  TesSuper *super;
  if (!i)
    return;
  super = tes_super_ref(i->super);
  tes_inode_unref(i);
  tes_super_deactivate(super);
  tes_super_unref(super);
}

/* A layer stays usable after its own mount went. `i`: transfer full. */
static TesInode *layer_keep(TesInode *i) {
  tes_super_activate(i->super);
  return i;
}

static void ov_super_free(TesSuper *base) {
  OvSuper *s = (OvSuper *)base;
  ov_index_clear(s);
  layer_put(s->upper);
  layer_put(s->work);
  for (guint k = 0; k < s->n_lower; k++)
    layer_put(s->lower[k]);
  g_hash_table_unref(s->inodes);
  g_hash_table_unref(s->origins);
  g_array_unref(s->devs);
  tes_mutex_clear(&s->rename_lock);
  tes_mutex_clear(&s->names_lock);
  tes_mutex_clear(&s->table_lock);
  g_free(s->lower);
  g_free(s->options);
  g_free(s);
}

static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps),
                                      .statfs = ov_statfs,
                                      .sync = ov_sync_super,
                                      .show_options = ov_show,
                                      .free = ov_super_free};

static OvSuper *super_new(TesKernel *k) {
  OvSuper *s = g_new0(OvSuper, 1);
  tes_super_init(&s->base, k, &super_ops, "overlay");
  s->base.magic = OVERLAYFS_MAGIC;
  s->prefix = "trusted.overlay.";
  s->redirect = TRUE;
  tes_mutex_init(&s->rename_lock, &rename_class);
  tes_mutex_init(&s->names_lock, &names_class);
  tes_mutex_init(&s->table_lock, &table_class);
  s->inodes = g_hash_table_new(NULL, NULL);
  s->index = g_hash_table_new(NULL, NULL);
  s->origins = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
  s->devs = g_array_new(FALSE, FALSE, sizeof(guint64));
  return s;
}

/* ---- Options ---- */

typedef struct {
  char *lower, *upper, *work, *host_upper;
  gboolean host, memory, user_xattr, volatile_;
  gboolean redirect;
} Options;

static void options_clear(Options *o) {
  g_free(o->lower);
  g_free(o->upper);
  g_free(o->work);
  g_free(o->host_upper);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Options, options_clear)

static int set_text(char **slot, const char *value) {
  if (!value || !*value)
    return -EINVAL;
  g_free(*slot);
  *slot = g_strdup(value);
  return 0;
}

static int off_only(const char *value) { return value && g_str_equal(value, "off") ? 0 : -EINVAL; }

static int option(const char *key, const char *value, Options *o) {
  if (g_str_equal(key, "lowerdir"))
    return set_text(&o->lower, value);
  if (g_str_equal(key, "upperdir"))
    return set_text(&o->upper, value);
  if (g_str_equal(key, "workdir"))
    return set_text(&o->work, value);
  if (g_str_equal(key, "hostupper"))
    return set_text(&o->host_upper, value);
  if (g_str_equal(key, "redirect_dir") && value) {
    o->redirect = g_str_equal(value, "on");
    return o->redirect || g_str_equal(value, "off") || g_str_equal(value, "follow") ||
                   g_str_equal(value, "nofollow")
               ? 0
               : -EINVAL;
  }
  if (g_str_equal(key, "xino") && value)
    return g_str_equal(value, "on") || g_str_equal(value, "auto") || g_str_equal(value, "off") ? 0 : -EINVAL;
  if (g_str_equal(key, "index") || g_str_equal(key, "metacopy") || g_str_equal(key, "nfs_export"))
    return off_only(value);
  if (value)
    return -EINVAL;
  gboolean *flag = g_str_equal(key, "userxattr")  ? &o->user_xattr
                   : g_str_equal(key, "volatile") ? &o->volatile_
                   : g_str_equal(key, "host")     ? &o->host
                   : g_str_equal(key, "memory")   ? &o->memory
                                                  : NULL;
  if (!flag)
    return -EINVAL;
  *flag = TRUE;
  return 0;
}

/* Cuts at the next `sep` that no backslash precedes; NULL at the end. The text is changed. */
static char *cut(char **rest, char sep) {
  char *from = *rest, *p = from;
  if (!from)
    return NULL;
  while (*p && *p != sep)
    p += *p == '\\' && p[1] ? 2 : 1;
  *rest = *p ? p + 1 : NULL;
  *p = '\0';
  return from;
}

static void unescape(char *text) {
  char *to = text;
  for (char *p = text; *p; p++) {
    if (*p == '\\' && p[1])
      p++;
    *to++ = *p;
  }
  *to = '\0';
}

static int parse(const char *opts, Options *o) {
  g_autofree char *copy = g_strdup(opts);
  char *rest = copy, *part;
  int r = 0;
  while (r == 0 && (part = cut(&rest, ','))) {
    if (!*part)
      continue;
    char *eq = strchr(part, '=');
    if (eq)
      *eq++ = '\0';
    if (eq && !g_str_equal(part, "lowerdir"))
      unescape(eq);
    r = option(part, eq, o);
  }
  return r;
}

/* ---- Layers ---- */

static int add_lower(OvSuper *s, TesInode *i) {
  if (!S_ISDIR(i->mode)) {
    tes_inode_unref(i);
    return -ENOTDIR;
  }
  if (i->super->ops == &super_ops)
    s->depth = MAX(s->depth, ((OvSuper *)i->super)->depth + 1);
  s->lower = g_renew(TesInode *, s->lower, s->n_lower + 1);
  s->lower[s->n_lower++] = layer_keep(i);
  return 0;
}

/* A directory of the sandbox; its mount must allow writing if `write`. */
static int sandbox_dir(TesCtx *ctx, const char *path, gboolean write, TesInode **out) {
  TesAt at = {.path = path, .flags = TES_AT_DIRECTORY};
  g_autoptr(TesPath) p = NULL;
  if (strlen(path) >= TES_PATH_MAX)
    return -ENAMETOOLONG;
  int r = tes_vfs_walk(ctx, &at, &p);
  if (r < 0)
    return r;
  if (write && ((p->vfs->ops->mount_flags(p) & MS_RDONLY) || p->inode->super->read_only))
    return -EROFS;
  *out = tes_inode_ref(p->inode);
  return 0;
}

static int sandbox_lowers(OvSuper *s, TesCtx *ctx, char *list) {
  char *rest = list, *part;
  while ((part = cut(&rest, ':'))) {
    TesInode *i;
    unescape(part);
    int r = !*part || s->n_lower >= MAX_LAYERS ? -EINVAL : sandbox_dir(ctx, part, FALSE, &i);
    if (r == 0)
      r = add_lower(s, i);
    if (r < 0)
      return r;
  }
  return s->n_lower ? 0 : -EINVAL;
}

static int subdir(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  int r = ov_child(dir, ctx, name, out);
  return r == -ENOENT ? dir->ops->mkdir(dir, ctx, name, S_IFDIR | 0700, out) : r;
}

/* Whiteouts and renames that exchange are what an upper layer must be able to do. */
static int check_upper(OvSuper *s, TesCtx *ctx) {
  const TesInodeOps *ops = s->upper->ops;
  if (!S_ISDIR(s->upper->mode) || !S_ISDIR(s->work->mode))
    return -ENOTDIR;
  if (s->upper->super != s->work->super || s->upper == s->work || s->upper->super->ops == &super_ops ||
      !TES_HAS(ops, create) || !TES_HAS(ops, mknod) || !TES_HAS(ops, rename) || !TES_HAS(ops, setattr) ||
      !TES_HAS(ops, setxattr))
    return -EINVAL;
  ov_clear_dir(s->work, ctx, 0);
  return 0;
}

static int sandbox_upper(OvSuper *s, TesCtx *ctx, const Options *o) {
  TesInode *work = NULL;
  int r = o->work ? sandbox_dir(ctx, o->upper, TRUE, &s->upper) : -EINVAL;
  if (r < 0)
    return r;
  layer_keep(s->upper);
  r = sandbox_dir(ctx, o->work, TRUE, &work);
  if (r < 0)
    return r;
  /* As on Linux, what is private is one level below what the user named. */
  if (!S_ISDIR(work->mode) || !TES_HAS(work->ops, mkdir))
    r = -EINVAL;
  else if (work->super != s->upper->super || work == s->upper)
    r = -EINVAL;
  else
    r = subdir(work, ctx, "work", &s->work);
  tes_inode_unref(work);
  if (r < 0)
    return r;
  layer_keep(s->work);
  return check_upper(s, ctx);
}

/* The runtime's layers. */
static int host_layers(OvSuper *s, TesCtx *ctx, const char *source, const Options *o) {
  TesSuper *low, *up = NULL;
  int r = tes_fs_new_super(ctx, "host", source, "ro", MS_RDONLY, &low);
  if (r < 0)
    return r;
  r = add_lower(s, tes_inode_ref(low->root));
  tes_super_unref(low);
  if (r < 0)
    return r;
  if (o->memory)
    r = tes_fs_new_super(ctx, "tmpfs", "overlay", "mode=755", 0, &up);
  else if (o->host_upper)
    r = tes_fs_new_super(ctx, "host", o->host_upper, "rw,store,cache=exclusive", 0, &up);
  else
    return 0;
  if (r < 0)
    return r;
  if ((r = subdir(up->root, ctx, "upper", &s->upper)) == 0) {
    layer_keep(s->upper);
    if ((r = subdir(up->root, ctx, "work", &s->work)) == 0)
      layer_keep(s->work);
  }
  tes_super_unref(up);
  s->private_upper = TRUE;
  s->memory = o->memory;
  if (!o->memory)
    s->prefix = "user.overlay.";
  return r < 0 ? r : check_upper(s, ctx);
}

/* A fresh upper looks like what it covers. */
static int adopt_root(OvSuper *s, TesCtx *ctx) {
  TesInode *l = s->lower[0];
  TesSetAttr set = {
      .valid = TES_SET_UID | TES_SET_GID, .uid = l->uid, .gid = l->gid, .mode = l->mode & 07777};
  int r = s->upper->ops->setattr(s->upper, ctx, &set);
  set.valid = TES_SET_MODE;
  return r < 0 ? r : s->upper->ops->setattr(s->upper, ctx, &set);
}

static int make_root(OvSuper *s, TesCtx *ctx) {
  g_autofree OvLower *lower = g_new(OvLower, s->n_lower);
  for (guint k = 0; k < s->n_lower; k++)
    lower[k] = (OvLower){tes_inode_ref(s->lower[k]), k};
  TesInode *root;
  TesAttr a;
  if (s->lower[0]->ops->getattr(s->lower[0], ctx, &a) == 0)
    ov_dev_index(s, a.dev); /* the topmost lower layer's numbers stay as they are */
  int r =
      ov_inode_get(s, ctx, NULL, NULL, s->upper ? tes_inode_ref(s->upper) : NULL, lower, s->n_lower, &root);
  if (r == 0)
    tes_super_set_root(&s->base, root);
  return r;
}

static char *describe(const Options *o, const char *source) {
  GString *g = g_string_new(NULL);
  g_string_append_printf(g, ",lowerdir=%s", o->host ? source : o->lower);
  if (o->upper)
    g_string_append_printf(g, ",upperdir=%s,workdir=%s", o->upper, o->work);
  if (o->host_upper)
    g_string_append_printf(g, ",upperdir=%s/upper,workdir=%s/work", o->host_upper, o->host_upper);
  if (o->user_xattr)
    g_string_append(g, ",userxattr");
  return g_string_free(g, FALSE);
}

static int fill(OvSuper *s, TesCtx *ctx, const char *source, Options *o) {
  int r;
  if (o->host) {
    r = ctx->kind != TES_CTX_SUPERVISOR ? -EPERM : !source || *source != '/' ? -EINVAL : 0;
    if (r == 0)
      r = host_layers(s, ctx, source, o);
  } else if (o->memory || o->host_upper || !o->lower) {
    r = -EINVAL;
  } else {
    s->memory = o->volatile_;
    if (o->user_xattr)
      s->prefix = "user.overlay.";
    g_autofree char *list = g_strdup(o->lower);
    s->depth = 1;
    r = sandbox_lowers(s, ctx, list);
    if (r == 0 && s->depth > MAX_DEPTH)
      r = -EINVAL;
    if (r == 0 && o->upper)
      r = sandbox_upper(s, ctx, o);
    else if (r == 0 && s->n_lower < 2)
      r = -EINVAL; /* nothing to lay over anything */
  }
  if (r == 0 && o->host && s->upper)
    r = adopt_root(s, ctx);
  return r == 0 ? make_root(s, ctx) : r;
}

static int ov_mount(TesCtx *ctx, const char *source, const char *opts, gulong ms_flags, TesSuper **out) {
  g_auto(Options) o = {.redirect = TRUE};
  int r = parse(opts, &o);
  if (r < 0)
    return r;
  OvSuper *s = super_new(ctx->kernel);
  s->redirect = o.redirect;
  r = fill(s, ctx, source, &o);
  if (r < 0) {
    tes_super_unref(&s->base);
    return r;
  }
  s->options = describe(&o, source);
  s->base.read_only = !s->upper || (ms_flags & MS_RDONLY);
  *out = &s->base;
  return 0;
}

const TesFsTypeOps ov_type = {.size = sizeof(TesFsTypeOps), .name = "overlay", .mount = ov_mount};

static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-overlay", .version = 1};
static const TesFeature features[] = {
    {"filesystem", "overlay", &ov_type}, {"state", "fs-overlay", &state}, {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(fs_overlay, .name = "fs-overlay", .summary = "One tree over others (overlay)",
                  .licence = "Apache-2.0", .features = features);
