/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting: mount(2) with type "fuse" and options fd=N, rootmode=OCTAL, user_id=N, group_id=N, and the plugin itself. */
#include "fuse.h"

#define FUSE_MAGIC 0x65735546

static const TesLockClass table_class = {"fuse nodes", TES_RANK_FS, FALSE,
                                         "table of a FUSE filesystem's nodes"};

typedef struct {
  gint fd;
  gint64 rootmode, user, group;
  guint32 max_read;
  gboolean allow_other, default_permissions;
} Options;

static gboolean number(const char *value, guint base, guint64 max, gint64 *out) {
  guint64 n;
  if (!value || !g_ascii_string_to_unsigned(value, base, 0, max, &n, NULL))
    return FALSE;
  *out = (gint64)n;
  return TRUE;
}

static int option(const char *key, const char *value, gpointer data) {
  Options *o = data;
  gint64 n = 0;
  gboolean ok = TRUE;
  if (g_str_equal(key, "fd")) {
    ok = number(value, 10, G_MAXINT, &n);
    o->fd = (gint)n;
  } else if (g_str_equal(key, "rootmode")) {
    ok = number(value, 8, 0177777, &o->rootmode);
  } else if (g_str_equal(key, "user_id")) {
    ok = number(value, 10, G_MAXUINT32 - 1, &o->user);
  } else if (g_str_equal(key, "group_id")) {
    ok = number(value, 10, G_MAXUINT32 - 1, &o->group);
  } else if (g_str_equal(key, "max_read")) {
    ok = number(value, 10, G_MAXUINT32, &n);
    o->max_read = (guint32)n;
  } else if (g_str_equal(key, "allow_other")) {
    o->allow_other = TRUE;
  } else if (g_str_equal(key, "default_permissions")) {
    o->default_permissions = TRUE;
  } else {
    ok = g_str_equal(key, "blksize") || g_str_equal(key, "subtype");
  }
  return ok ? 0 : -EINVAL;
}

/* ---- The instance ---- */

static int super_statfs(TesSuper *base, TesCtx *ctx, struct statfs *st) {
  FuseSuper *s = (FuseSuper *)base;
  g_autoptr(GBytes) reply = NULL;
  struct fuse_statfs_out o = {0};
  int r = fuse_call(s->conn, ctx, FUSE_STATFS, FUSE_ROOT_ID, NULL, 0, sizeof o, &reply);
  if (r < 0)
    return r;
  fuse_bytes_copy(reply, &o, sizeof o);
  *st = (struct statfs){.f_type = FUSE_MAGIC,
                        .f_bsize = o.st.bsize,
                        .f_frsize = o.st.frsize,
                        .f_blocks = o.st.blocks,
                        .f_bfree = o.st.bfree,
                        .f_bavail = o.st.bavail,
                        .f_files = o.st.files,
                        .f_ffree = o.st.ffree,
                        .f_namelen = o.st.namelen};
  return 0;
}

static char *super_show(TesSuper *base) { return g_strdup(((FuseSuper *)base)->options); }

static void super_shutdown(TesSuper *base) { fuse_conn_abort(((FuseSuper *)base)->conn); }

static void super_free(TesSuper *base) {
  FuseSuper *s = (FuseSuper *)base;
  fuse_conn_abort(s->conn);
  fuse_conn_unref(s->conn);
  g_hash_table_destroy(s->nodes);
  tes_mutex_clear(&s->lock);
  g_free(s->options);
  g_free(s);
}

static const TesSuperOps super_ops = {.size = sizeof(TesSuperOps),
                                      .statfs = super_statfs,
                                      .show_options = super_show,
                                      .shutdown = super_shutdown,
                                      .free = super_free};

/* The connection behind descriptor `fd` of the caller, which must be an open /dev/fuse that is not mounted yet. */
static int claim_conn(TesCtx *ctx, int fd, FuseConn **out) {
  TesTask *task = tes_ctx_task(ctx);
  g_autoptr(TesFile) f = task ? tes_fd_get(task, fd) : NULL;
  FuseConn *c = f ? fuse_dev_conn(f) : NULL;
  if (!c)
    return -EINVAL;
  tes_mutex_lock(&c->lock);
  gboolean taken = c->mounted || c->dead;
  __atomic_store_n(&c->mounted, TRUE, __ATOMIC_RELEASE);
  tes_mutex_unlock(&c->lock);
  if (taken) {
    fuse_conn_unref(c);
    return -EINVAL;
  }
  *out = c;
  return 0;
}

static int fuse_mount(TesCtx *ctx, const char *source, const char *opts, gulong flags, TesSuper **out) {
  Options o = {
      .fd = -1, .rootmode = -1, .user = -1, .group = -1, .max_read = FUSE_DEFAULT_PAGES * TES_PAGE_SIZE};
  int r = tes_mount_opts_parse(opts, option, &o);
  if (r < 0)
    return r;
  if (o.fd < 0 || o.rootmode < 0 || o.user < 0 || o.group < 0 || !S_ISDIR(o.rootmode))
    return -EINVAL;
  FuseConn *c;
  r = claim_conn(ctx, o.fd, &c);
  if (r < 0)
    return r;
  c->max_read = CLAMP(o.max_read, TES_PAGE_SIZE, FUSE_MAX_TRANSFER);
  FuseSuper *s = g_new0(FuseSuper, 1);
  tes_super_init(&s->super, ctx->kernel, &super_ops, "fuse");
  s->super.magic = FUSE_MAGIC;
  s->conn = c;
  s->user = (guint32)o.user;
  s->group = (guint32)o.group;
  s->allow_other = o.allow_other;
  s->default_permissions = o.default_permissions;
  tes_mutex_init(&s->lock, &table_class);
  s->nodes = g_hash_table_new(g_int64_hash, g_int64_equal);
  s->options = g_strdup_printf(",user_id=%u,group_id=%u%s%s", s->user, s->group,
                               s->default_permissions ? ",default_permissions" : "",
                               s->allow_other ? ",allow_other" : "");
  tes_super_set_root(&s->super, &fuse_inode_root(s, (guint32)o.rootmode)->inode);
  fuse_conn_start(c);
  *out = &s->super;
  return 0;
}

static const TesFsTypeOps fuse_type = {.size = sizeof(TesFsTypeOps), .name = "fuse", .mount = fuse_mount};
static const TesDeviceOps fuse_device = {.size = sizeof(TesDeviceOps), .open = fuse_dev_open};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "fs-fuse", .version = 1};
static const TesFeature features[] = {{"filesystem", "fuse", &fuse_type},
                                      {"char-device", "10:229", &fuse_device},
                                      {"state", "fs-fuse", &state},
                                      {NULL, NULL, NULL}};
TES_PLUGIN_DEFINE(fs_fuse, .name = "fs-fuse",
                  .summary = "Filesystems served by programs of the sandbox (FUSE)", .licence = "Apache-2.0",
                  .features = features);
