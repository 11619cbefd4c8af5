/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox of `tessera do` sees as its file tree, and finding the program in it. */
#include <glib/gstdio.h>
#include <runtime/runtime.h>
#include <string.h>
#include <sys/mount.h>

static gboolean mount_failed(GError **error, const char *what, const char *where, int err) {
  g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "cannot mount %s at %s: %s", what, where,
              err == -ENODEV ? "no plugin offers that filesystem" : g_strerror(-err));
  return FALSE;
}

/* Backslashes keep commas of a directory's name apart from those between options. */
static char *escape(const char *text) {
  GString *s = g_string_new(NULL);
  for (; *text; text++) {
    if (*text == '\\' || *text == ',')
      g_string_append_c(s, '\\');
    g_string_append_c(s, *text);
  }
  return g_string_free(s, FALSE);
}

/* The root's filesystem. Without the overlay plugin the default falls back to read-only. */
static int root_super(TesCtx *ctx, const DoOptions *o, const char *dir, gulong *flags, TesSuper **out) {
  *flags = 0;
  if (o->root_mode == ROOT_RW)
    return tes_fs_new_super(ctx, "host", dir, "rw,cache=shared", 0, out);
  if (o->root_mode == ROOT_OVERLAY) {
    g_autofree char *upper = escape(o->overlay), *opts = g_strconcat("host,hostupper=", upper, NULL);
    return tes_fs_new_super(ctx, "overlay", dir, opts, 0, out);
  }
  if (o->root_mode == ROOT_MEMORY) {
    int r = tes_fs_new_super(ctx, "overlay", dir, "host,memory", 0, out);
    if (r != -ENODEV)
      return r;
    tes_info("no overlay plugin: %s is read-only", dir);
  }
  *flags = MS_RDONLY;
  return tes_fs_new_super(ctx, "host", dir, "ro", MS_RDONLY, out);
}

static gboolean make_root(TesKernel *k, const DoOptions *o, GError **error) {
  TesCtx *ctx = tes_kernel_supervisor_ctx(k);
  TesVfs *v = tes_kernel_vfs(k);
  const char *dir = o->root ? o->root : "/";
  if (!g_file_test(dir, G_FILE_TEST_IS_DIR)) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "root directory %s does not exist; give --root=DIR", dir);
    return FALSE;
  }
  if (o->root_mode == ROOT_OVERLAY && g_mkdir_with_parents(o->overlay, 0700) < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "--overlay=%s: %s", o->overlay, g_strerror(errno));
    return FALSE;
  }
  TesSuper *super;
  gulong flags;
  int r = root_super(ctx, o, dir, &flags, &super);
  if (r == -EBUSY) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "--overlay=%s: another sandbox uses that directory now",
                o->overlay);
    return FALSE;
  }
  if (r < 0)
    return mount_failed(error, dir, "/", r);
  TesMountNs *ns = v->ops->ns_new(v, ctx, super, dir, flags);
  if (!ns) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "the root mount namespace could not be made");
    return FALSE;
  }
  return tes_kernel_set_root_mount_ns(k, ns, error);
}

typedef struct {
  const char *type, *source, *opts;
  gulong flags;
} MountType;

static MountType mount_type(const MountSpec *m) {
  switch (m->kind) {
  case MOUNT_RO_BIND:
    return (MountType){"host", m->source, "ro", MS_RDONLY};
  case MOUNT_BIND:
    return (MountType){"host", m->source, "rw,cache=shared", 0};
  case MOUNT_TMPFS:
    return (MountType){"tmpfs", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV};
  case MOUNT_PROC:
    return (MountType){"proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC};
  case MOUNT_SYS:
    return (MountType){"sysfs", "sysfs", NULL, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC};
  case MOUNT_MQUEUE:
    return (MountType){"mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC};
  case MOUNT_CGROUP:
    return (MountType){"cgroup2", "cgroup2", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC};
  case MOUNT_DEV:
    break;
  }
  return (MountType){"dev", "dev", NULL, MS_NOSUID};
}

/* Makes a missing mount point with the directories above it, as container runtimes do; fails where nothing can be made. */
static int make_mount_point(TesCtx *ctx, const char *path, gboolean dir) {
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  g_autofree char *part = g_strdup(path);
  for (char *p = part; *p; p++) {
    gboolean last = !p[1];
    if (p == part || (*p != '/' && !last))
      continue;
    char kept = *p;
    if (kept == '/')
      *p = '\0';
    TesAt at = {.path = part};
    TesNode node = {.mode = last && !dir ? S_IFREG | 0644 : S_IFDIR | 0755};
    int r = v->ops->create(v, ctx, &at, &node, NULL);
    *p = kept;
    if (r < 0 && r != -EEXIST)
      return r;
  }
  return 0;
}

/* What the default tree lacks is left out: a root may hold nothing but one program, and a missing filesystem plugin takes
 * away that filesystem only. */
static gboolean mount_one(TesKernel *k, const MountSpec *m, gboolean optional, GError **error) {
  MountType t = mount_type(m);
  TesAt at = {.path = m->target};
  TesCtx *ctx = tes_kernel_supervisor_ctx(k);
  int r = tes_fs_mount(ctx, &at, t.type, t.source, t.opts, t.flags);
  gboolean is_file =
      (m->kind == MOUNT_BIND || m->kind == MOUNT_RO_BIND) && !g_file_test(m->source, G_FILE_TEST_IS_DIR);
  if (r == -ENOENT && !optional && make_mount_point(ctx, m->target, !is_file) == 0)
    r = tes_fs_mount(ctx, &at, t.type, t.source, t.opts, t.flags);
  if (r == 0)
    return TRUE;
  if (optional && (r == -ENOENT || r == -ENOTDIR || r == -ENODEV)) {
    tes_info("no %s at %s: %s", t.type, m->target, g_strerror(-r));
    return TRUE;
  }
  return mount_failed(error, t.source, m->target, r);
}

gboolean build_mounts(TesKernel *k, const DoOptions *o, GError **error) {
  static const MountSpec defaults[] = {{MOUNT_PROC, "proc", "/proc"},
                                       {MOUNT_SYS, "sysfs", "/sys"},
                                       {MOUNT_CGROUP, "cgroup2", "/sys/fs/cgroup"},
                                       {MOUNT_DEV, "dev", "/dev"},
                                       {MOUNT_TMPFS, "tmpfs", "/dev/shm"},
                                       {MOUNT_MQUEUE, "mqueue", "/dev/mqueue"},
                                       {MOUNT_TMPFS, "tmpfs", "/tmp"},
                                       {MOUNT_TMPFS, "tmpfs", "/run"}};
  if (!make_root(k, o, error))
    return FALSE;
  for (gsize i = 0; i < G_N_ELEMENTS(defaults); i++)
    /* With --rw the host's /tmp is written to like the rest. */
    if (!(o->root_mode == ROOT_RW && g_str_equal(defaults[i].target, "/tmp")) &&
        !mount_one(k, &defaults[i], TRUE, error))
      return FALSE;
  for (guint i = 0; i < o->mounts->len; i++)
    if (!mount_one(k, &g_array_index(o->mounts, MountSpec, i), FALSE, error))
      return FALSE;
  return TRUE;
}

static int is_program(TesKernel *k, const char *path) {
  TesAt at = {.path = path};
  TesPath *p;
  int r = tes_vfs_walk(tes_kernel_supervisor_ctx(k), &at, &p);
  if (r < 0)
    return r;
  gboolean ok = S_ISREG(p->inode->mode) && (p->inode->mode & 0111);
  tes_path_unref(p);
  return ok ? 0 : -EACCES;
}

char *find_program(TesKernel *k, const char *name, const char *path_env, const char *cwd, GError **error) {
  if (strchr(name, '/'))
    return g_path_is_absolute(name) ? g_strdup(name) : g_build_filename(cwd, name, NULL);
  int worst = -ENOENT;
  g_auto(GStrv) dirs = g_strsplit(
      path_env ? path_env : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ":", -1);
  for (char **d = dirs; *d; d++) {
    g_autofree char *path = g_build_filename(**d ? *d : cwd, name, NULL);
    int r = is_program(k, path);
    if (r == 0)
      return g_steal_pointer(&path);
    if (r == -EACCES)
      worst = r;
  }
  g_set_error(error, TES_ERROR, worst == -EACCES ? TES_ERROR_NOEXEC : TES_ERROR_NOTFOUND,
              "%s: %s in the sandbox's PATH", name, worst == -EACCES ? "not executable" : "not found");
  return NULL;
}
