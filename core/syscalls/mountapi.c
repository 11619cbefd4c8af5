/* SPDX-License-Identifier: Apache-2.0 */
/* The mount API of Linux 5.2: fsopen(2), fsconfig(2), fsmount(2), fspick(2), open_tree(2), move_mount(2), mount_setattr(2).
 * Interface: tes_sys_mountapi. A context collects options as text until the filesystem is made of them. */
#include <core/file/file.h>
#include <core/syscalls/pathutil.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/syscall.h>

/* <sys/mount.h> and <linux/mount.h> exclude each other in some C libraries; the numbers are ABI. */
#define MS_PROPAGATION ((1UL << 17) | (1UL << 18) | (1UL << 19) | (1UL << 20))
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif
#ifndef MOVE_MOUNT_SET_GROUP
#define MOVE_MOUNT_SET_GROUP 0x00000100
#endif
#define MOVE_BENEATH 0x200U
#define ATTR_IDMAP 0x00100000U
#define RECURSIVE 0x8000U /* AT_RECURSIVE */

/* ---- Contexts ---- */

typedef enum { CREATING, CREATED, RECONFIGURING, RECONFIGURABLE, FAILED } Phase;

#define LOG_MAX 8     /* messages; the oldest go */
#define OPTS_MAX 4096 /* bytes of options, as mount(2) takes a page */
#define KEY_MAX 256   /* of keys and string values, with the NUL */

typedef struct {
  TesFile file;
  TesMutex lock;
  Phase phase;
  char *type, *source;
  GString *opts;
  gulong flags;    /* MS_* of the filesystem */
  TesSuper *super; /* owned; not before CREATED */
  gboolean active; /* it is mounted, and must not be shut down meanwhile: counted as a mount */
  GQueue log;      /* of char* */
  gint single;     /* options can be tried one by one: 1 yes, -1 no, 0 not known yet */
} FsContext;

static const TesLockClass context_class = {"fs context", TES_RANK_FILE_POS + 5, FALSE,
                                           "state and options of a filesystem context"};

static G_GNUC_PRINTF(2, 3) void complain(FsContext *c, const char *format, ...) {
  va_list ap;
  va_start(ap, format);
  g_autofree char *text = g_strdup_vprintf(format, ap);
  va_end(ap);
  if (c->log.length == LOG_MAX)
    g_free(g_queue_pop_head(&c->log));
  g_queue_push_tail(&c->log, g_strdup_printf("e %s: %s\n", c->type, text));
}

static gssize context_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  FsContext *c = (FsContext *)f;
  (void)ctx, (void)pos, (void)flags;
  TES_LOCKED(&c->lock);
  char *text = g_queue_peek_head(&c->log);
  if (!text)
    return -ENODATA;
  gsize n = strlen(text);
  if (n > iov->left)
    return -EMSGSIZE;
  gssize r = tes_iov_write_to(iov, text, n);
  g_free(g_queue_pop_head(&c->log));
  return r;
}

static void context_release(TesFile *f) {
  FsContext *c = (FsContext *)f;
  g_queue_clear_full(&c->log, g_free);
  if (c->active)
    tes_super_deactivate(c->super);
  if (c->super)
    tes_super_unref(c->super);
  g_string_free(c->opts, TRUE);
  g_free(c->type);
  g_free(c->source);
  tes_mutex_clear(&c->lock);
  g_free(c);
}

static const TesFileOps context_ops = {
    .size = sizeof(TesFileOps), .name = "fscontext", .read = context_read, .release = context_release};

/* What reconfiguring is about. */
static void keep_super(FsContext *c, TesSuper *s) {
  c->super = tes_super_ref(s);
  tes_super_activate(s);
  c->active = TRUE;
}

static FsContext *context_new(TesTask *t, const char *type, Phase phase) {
  FsContext *c = g_new0(FsContext, 1);
  tes_file_init(&c->file, t->kernel, &context_ops, O_RDWR);
  tes_mutex_init(&c->lock, &context_class);
  c->type = g_strdup(type);
  c->opts = g_string_new(NULL);
  c->phase = phase;
  g_queue_init(&c->log);
  return c;
}

static gboolean may_mount(TesTask *t) { return tes_task_capable(t, CAP_SYS_ADMIN); }

/* Text of a user: -EINVAL if it is too long. */
static int copy_text(TesTask *t, gulong addr, char *buf, gsize size) {
  gssize n = tes_copy_in_str(t, buf, addr, size);
  return n == -ENAMETOOLONG ? -EINVAL : n < 0 ? (int)n : 0;
}

static glong sys_fsopen(TesTask *t, const gulong a[6]) {
  char name[TES_PAGE_SIZE];
  if (!may_mount(t))
    return -EPERM;
  if ((guint)a[1] & ~(guint)FSOPEN_CLOEXEC)
    return -EINVAL;
  int r = copy_text(t, a[0], name, sizeof name);
  if (r < 0)
    return r;
  if (!tes_registry_find(tes_kernel_registry(t->kernel), "filesystem", name))
    return -ENODEV;
  return tes_fd_give(t, &context_new(t, name, CREATING)->file, (a[1] & FSOPEN_CLOEXEC) != 0);
}

/* The place that (dirfd, path) names; a descriptor without a place is EINVAL. */
static int place(TesTask *t, gulong dirfd, gulong upath, guint at_flags, TesPath **out) {
  TES_PATH_ARG(p);
  g_autoptr(TesFile) file = NULL;
  int r = tes_path_arg(t, &p, (int)dirfd, upath, at_flags);
  if (r == 0)
    r = tes_path_arg_resolve(t, &p, out, &file);
  return r < 0 ? r : *out ? 0 : -EINVAL;
}

static glong sys_fspick(TesTask *t, const gulong a[6]) {
  guint flags = (guint)a[2];
  g_autoptr(TesPath) path = NULL;
  if (!may_mount(t))
    return -EPERM;
  if (flags & ~(guint)(FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH))
    return -EINVAL;
  int r = place(t, a[0], a[1],
                (flags & FSPICK_SYMLINK_NOFOLLOW ? TES_AT_NOFOLLOW : 0) |
                    (flags & FSPICK_EMPTY_PATH ? TES_AT_EMPTY : 0),
                &path);
  if (r < 0)
    return r;
  const TesVfsOps *ops = t->kernel->vfs->ops;
  if (!TES_HAS(ops, reconfigure) || !TES_HAS(ops, is_mount_root) || !ops->is_mount_root(path))
    return -EINVAL;
  FsContext *c = context_new(t, path->inode->super->type, RECONFIGURING);
  keep_super(c, path->inode->super);
  c->flags = path->inode->super->read_only ? 1 /* MS_RDONLY */ : 0;
  return tes_fd_give(t, &c->file, (flags & FSPICK_CLOEXEC) != 0);
}

/* ---- fsconfig ---- */

/* Options that every filesystem takes. TRUE if it was one. */
static gboolean common_flag(FsContext *c, const char *key) {
  static const struct {
    const char *key;
    gulong set, clear;
  } table[] = {{"ro", 1, 0},
               {"rw", 0, 1},
               {"sync", 16, 0},
               {"async", 0, 16},
               {"dirsync", 128, 0},
               {"mand", 64, 0},
               {"nomand", 0, 64},
               {"lazytime", 1UL << 25, 0},
               {"silent", 1UL << 15, 0},
               {"nolazytime", 0, 1UL << 25}};
  for (guint i = 0; i < G_N_ELEMENTS(table); i++)
    if (g_str_equal(key, table[i].key)) {
      c->flags = (c->flags & ~table[i].clear) | table[i].set;
      return TRUE;
    }
  return FALSE;
}

static int try_option(FsContext *c, TesCtx *ctx, const char *opt) {
  TesSuper *s = NULL;
  int r = tes_fs_new_super(ctx, c->type, c->source, opt, c->flags, &s);
  if (r >= 0)
    tes_super_unref(s);
  return r;
}

/* A filesystem that needs no option can be asked about each on its own, so that errors come where Linux reports them; others are
 * asked when they are made. */
static int option(FsContext *c, TesCtx *ctx, const char *key, const char *value) {
  if (strpbrk(key, ",=") || (value && strchr(value, ','))) {
    complain(c, "Bad value for '%s'", key);
    return -EINVAL;
  }
  if (c->opts->len + strlen(key) + (value ? strlen(value) : 0) + 2 > OPTS_MAX) {
    complain(c, "Too many options");
    return -EINVAL;
  }
  g_autofree char *opt = value ? g_strconcat(key, "=", value, NULL) : g_strdup(key);
  if (c->phase == CREATING && !c->single)
    c->single = try_option(c, ctx, NULL) >= 0 ? 1 : -1;
  if (c->phase == CREATING && c->single > 0) {
    int r = try_option(c, ctx, opt);
    if (r < 0) {
      complain(c, "Unknown parameter or bad value '%s'", opt);
      return r;
    }
  }
  g_string_append_printf(c->opts, "%s%s", c->opts->len ? "," : "", opt);
  return 0;
}

static int set_param(FsContext *c, TesCtx *ctx, guint cmd, const char *key, const char *value) {
  if (c->phase == RECONFIGURABLE)
    c->phase = RECONFIGURING;
  if (c->phase != CREATING && c->phase != RECONFIGURING)
    return -EBUSY;
  if (cmd == FSCONFIG_SET_FLAG && common_flag(c, key))
    return 0;
  if (!g_str_equal(key, "source"))
    return option(c, ctx, key, value);
  if (cmd != FSCONFIG_SET_STRING || c->source) {
    complain(c, c->source ? "Multiple sources" : "Non-string source");
    return -EINVAL;
  }
  c->source = g_strdup(value);
  return 0;
}

static int create_super(FsContext *c, TesCtx *ctx) {
  if (c->phase != CREATING)
    return -EBUSY;
  int r = tes_fs_new_super(ctx, c->type, c->source, c->opts->str, c->flags, &c->super);
  c->phase = r < 0 ? FAILED : CREATED;
  if (r < 0)
    complain(c, "Cannot be made with these options");
  return r < 0 ? r : 0;
}

static int reconfigure(FsContext *c, TesCtx *ctx) {
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  if (c->phase == RECONFIGURABLE)
    c->phase = RECONFIGURING;
  if (c->phase != RECONFIGURING)
    return -EBUSY;
  int r = v->ops->reconfigure(v, ctx, c->super, c->flags, c->opts->len ? c->opts->str : NULL);
  c->phase = r < 0 ? FAILED : RECONFIGURABLE;
  if (r < 0)
    complain(c, "Cannot be reconfigured so");
  g_string_truncate(c->opts, 0);
  return r < 0 ? r : 0;
}

/* Which arguments a command takes. 0 or -errno. */
static int check_config(guint cmd, gboolean key, gboolean value, int aux) {
  switch (cmd) {
  case FSCONFIG_SET_FLAG:
    return !key || value || aux ? -EINVAL : 0;
  case FSCONFIG_SET_STRING:
    return !key || !value || aux ? -EINVAL : 0;
  case FSCONFIG_SET_BINARY:
    return !key || !value || aux <= 0 || aux > 1024 * 1024 ? -EINVAL : 0;
  case FSCONFIG_SET_PATH:
  case FSCONFIG_SET_PATH_EMPTY:
    return !key || !value || (aux != AT_FDCWD && aux < 0) ? -EINVAL : 0;
  case FSCONFIG_SET_FD:
    return !key || value || aux < 0 ? -EINVAL : 0;
  case FSCONFIG_CMD_CREATE:
  case FSCONFIG_CMD_RECONFIGURE:
  case FSCONFIG_CMD_RECONFIGURE + 1: /* CREATE_EXCL: instances are never shared here */
    return key || value || aux ? -EINVAL : 0;
  default:
    return -EOPNOTSUPP;
  }
}

static FsContext *context_of(TesFile *f) { return f->ops == &context_ops ? (FsContext *)f : NULL; }

/* The value as option text: strings and paths as they are, descriptors by number. */
static int copy_value(TesTask *t, guint cmd, gulong uvalue, int aux, char *buf) {
  if (cmd == FSCONFIG_SET_FD) {
    g_autoptr(TesFile) f = tes_fd_get(t, aux);
    g_snprintf(buf, KEY_MAX, "%d", aux);
    return f ? 0 : -EBADF;
  }
  int r = copy_text(t, uvalue, buf, cmd == FSCONFIG_SET_STRING ? KEY_MAX : TES_PATH_MAX);
  return r < 0 ? r : cmd != FSCONFIG_SET_STRING && *buf != '/' ? -EINVAL : 0;
}

static glong sys_fsconfig(TesTask *t, const gulong a[6]) {
  guint cmd = (guint)a[1];
  int aux = (int)a[4];
  char key[KEY_MAX], value[TES_PATH_MAX];
  if ((int)a[0] < 0)
    return -EINVAL;
  int r = check_config(cmd, a[2] != 0, a[3] != 0, aux);
  if (r < 0)
    return r;
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  if (!f)
    return -EBADF;
  FsContext *c = context_of(f);
  if (!c)
    return -EINVAL;
  gboolean valued = a[3] != 0 || cmd == FSCONFIG_SET_FD;
  if (a[2])
    r = copy_text(t, a[2], key, sizeof key);
  if (r == 0 && cmd == FSCONFIG_SET_BINARY)
    r = -EINVAL; /* no filesystem has such an option */
  if (r == 0 && valued)
    r = copy_value(t, cmd, a[3], aux, value);
  if (r < 0)
    return r;
  if (cmd >= FSCONFIG_CMD_CREATE && !may_mount(t))
    return -EPERM;
  TES_LOCKED(&c->lock);
  if (cmd == FSCONFIG_CMD_RECONFIGURE)
    return reconfigure(c, tes_task_ctx(t));
  if (cmd >= FSCONFIG_CMD_CREATE)
    return create_super(c, tes_task_ctx(t));
  return set_param(c, tes_task_ctx(t), cmd, key, valued ? value : NULL);
}

/* ---- fsmount, mount_setattr ---- */

/* MOUNT_ATTR_* as MS_*; times aside. */
static gulong attr_flags(guint64 attr) {
  return (attr & (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)) |
         (attr & MOUNT_ATTR_NODIRATIME ? 2048 : 0) | (attr & MOUNT_ATTR_NOSYMFOLLOW ? 256 : 0);
}

/* MS_* of the times; -1: there is no such mode. */
static glong attr_times(guint64 attr) {
  switch (attr & MOUNT_ATTR__ATIME) {
  case MOUNT_ATTR_RELATIME:
    return 1L << 21;
  case MOUNT_ATTR_NOATIME:
    return 1024;
  case MOUNT_ATTR_STRICTATIME:
    return 1L << 24;
  default:
    return -1;
  }
}
#define ALL_TIMES (1024UL | 1UL << 21 | 1UL << 24)
#define ATTR_KNOWN                                                                                    \
  (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR__ATIME | \
   MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW)

static int mount_context(TesTask *t, FsContext *c, gulong ms, TesFile **out) {
  TesVfs *v = t->kernel->vfs;
  TES_LOCKED(&c->lock);
  if (c->phase != CREATED)
    return c->phase == CREATING || c->phase == FAILED ? -EINVAL : -EBUSY;
  int r = v->ops->mount_detached(v, tes_task_ctx(t), c->super, c->source ? c->source : "none", ms, out);
  if (r < 0)
    return r;
  keep_super(c, (*out)->inode->super); /* the first reference went into the mount */
  c->phase = RECONFIGURABLE;
  g_string_truncate(c->opts, 0);
  return 0;
}

static glong sys_fsmount(TesTask *t, const gulong a[6]) {
  const TesVfsOps *ops = t->kernel->vfs->ops;
  guint attr = (guint)a[2];
  if (!may_mount(t))
    return -EPERM;
  glong times = attr_times(attr);
  if (((guint)a[1] & ~(guint)FSMOUNT_CLOEXEC) || (attr & ~(guint)ATTR_KNOWN) || times < 0)
    return -EINVAL;
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  if (!f)
    return -EBADF;
  FsContext *c = context_of(f);
  if (!c || !TES_HAS(ops, mount_detached))
    return -EINVAL;
  TesFile *out = NULL;
  int r = mount_context(t, c, attr_flags(attr) | (gulong)times, &out);
  return r < 0 ? r : tes_fd_give(t, out, (a[1] & FSMOUNT_CLOEXEC) != 0);
}

static int parse_attr(const struct mount_attr *m, TesMountAttr *out) {
  guint64 p = m->propagation;
  if ((p & ~(guint64)MS_PROPAGATION) || (p & (p - 1)))
    return -EINVAL;
  if ((m->attr_set | m->attr_clr) & ~(guint64)ATTR_KNOWN) /* MOUNT_ATTR_IDMAP too */
    return -EINVAL;
  *out = (TesMountAttr){.set = attr_flags(m->attr_set), .clear = attr_flags(m->attr_clr), .propagation = p};
  if (!(m->attr_clr & MOUNT_ATTR__ATIME))
    return m->attr_set & MOUNT_ATTR__ATIME ? -EINVAL : 0;
  glong times = attr_times(m->attr_set);
  if ((m->attr_clr & MOUNT_ATTR__ATIME) != MOUNT_ATTR__ATIME || times < 0)
    return -EINVAL;
  out->set |= (gulong)times;
  out->clear |= ALL_TIMES;
  return 0;
}

/* A struct that may grow: what is behind the known part must be zero. */
static int copy_attr(TesTask *t, gulong addr, gulong size, struct mount_attr *out) {
  guchar page[TES_PAGE_SIZE];
  if (size > sizeof page)
    return -E2BIG;
  if (size < sizeof *out)
    return -EINVAL;
  if (!may_mount(t))
    return -EPERM;
  int r = tes_copy_in(t, page, addr, size);
  if (r < 0)
    return r;
  for (gulong i = sizeof *out; i < size; i++)
    if (page[i])
      return -E2BIG;
  memcpy(out, page, sizeof *out);
  return 0;
}

static glong sys_mount_setattr(TesTask *t, const gulong a[6]) {
  TesVfs *v = t->kernel->vfs;
  guint flags = (guint)a[2];
  struct mount_attr m;
  TesMountAttr attr;
  if (flags & ~(AT_EMPTY_PATH | RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT))
    return -EINVAL;
  int r = copy_attr(t, a[3], a[4], &m);
  if (r < 0 || !(m.attr_set | m.attr_clr | m.propagation))
    return r;
  r = parse_attr(&m, &attr);
  if (r < 0)
    return r;
  attr.recursive = (flags & RECURSIVE) != 0;
  g_autoptr(TesPath) path = NULL;
  r = place(t, a[0], a[1], tes_at_flags((int)flags, TRUE), &path);
  if (r < 0)
    return r;
  return TES_HAS(v->ops, mount_setattr) ? v->ops->mount_setattr(v, tes_task_ctx(t), path, &attr) : -EINVAL;
}

/* ---- open_tree, move_mount ---- */

static glong sys_open_tree(TesTask *t, const gulong a[6]) {
  TesVfs *v = t->kernel->vfs;
  guint flags = (guint)a[2];
  gboolean clone = (flags & OPEN_TREE_CLONE) != 0;
  if (flags & ~(guint)(AT_EMPTY_PATH | AT_NO_AUTOMOUNT | RECURSIVE | AT_SYMLINK_NOFOLLOW | OPEN_TREE_CLONE |
                       O_CLOEXEC))
    return -EINVAL;
  if ((flags & RECURSIVE) && !clone)
    return -EINVAL;
  if (clone && !may_mount(t))
    return -EPERM;
  g_autoptr(TesPath) path = NULL;
  TesFile *f = NULL;
  int r = place(t, a[0], a[1], tes_at_flags((int)flags, TRUE), &path);
  if (r < 0)
    return r;
  if (!clone)
    r = v->ops->open_path(v, tes_task_ctx(t), path, O_PATH, &f);
  else if (TES_HAS(v->ops, clone_tree))
    r = v->ops->clone_tree(v, tes_task_ctx(t), path, (flags & RECURSIVE) != 0, &f);
  else
    r = -EINVAL;
  return r < 0 ? r : tes_fd_give(t, f, (flags & O_CLOEXEC) != 0);
}

static glong sys_move_mount(TesTask *t, const gulong a[6]) {
  TesVfs *v = t->kernel->vfs;
  guint flags = (guint)a[4];
  if (!may_mount(t))
    return -EPERM;
  if ((flags & ~0x177U) || !TES_HAS(v->ops, move)) /* MOVE_MOUNT_BENEATH is not served */
    return -EINVAL;
  g_autoptr(TesPath) from = NULL;
  g_autoptr(TesPath) to = NULL;
  int r = place(t, a[0], a[1],
                (flags & MOVE_MOUNT_F_SYMLINKS ? 0 : TES_AT_NOFOLLOW) |
                    (flags & MOVE_MOUNT_F_EMPTY_PATH ? TES_AT_EMPTY : 0),
                &from);
  if (r == 0)
    r = place(t, a[2], a[3],
              (flags & MOVE_MOUNT_T_SYMLINKS ? 0 : TES_AT_NOFOLLOW) |
                  (flags & MOVE_MOUNT_T_EMPTY_PATH ? TES_AT_EMPTY : 0),
              &to);
  if (r < 0)
    return r;
  return v->ops->move(v, tes_task_ctx(t), from, to,
                      flags & MOVE_MOUNT_SET_GROUP ? TES_MOVE_SET_GROUP : TES_MOVE_MOUNT);
}

#define NO_IDMAP "no id-mapped mounts (EINVAL)"

static const TesSyscall rows[] = {
    {428, "open_tree", sys_open_tree, TES_FULL, NULL, "asx"},
    {429, "move_mount", sys_move_mount, TES_PARTIAL, "no MOVE_MOUNT_BENEATH", "asasx"},
    {430, "fsopen", sys_fsopen, TES_FULL, NULL, "sx"},
    {431, "fsconfig", sys_fsconfig, TES_PARTIAL,
     "no binary values; descriptors and absolute paths are handed on as text; a value has no comma", "fxspd"},
    {432, "fsmount", sys_fsmount, TES_FULL, NULL, "fxx"},
    {433, "fspick", sys_fspick, TES_FULL, NULL, "asx"},
    {442, "mount_setattr", sys_mount_setattr, TES_PARTIAL, NO_IDMAP, "asxpu"},
};

const TesSyscallTable tes_sys_mountapi = TES_ROWS(rows);
