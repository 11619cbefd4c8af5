/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of a VFS generation share: a kernel that runs nothing, contexts of the test's own (root, and a user without capabilities),
 * a fixture with a mounted filesystem, and short forms of the operations. Included once, by a test program. */
#pragma once

#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <tessera/tessera.h>
#include <unistd.h>

static TesKernel *kernel;
static TesVfs *vfs;
static char *scratch; /* host directory that holds what the cases make */

/* A context of the test's own: credentials, root and working directory are what the case sets. */
typedef struct {
  TesCtx ctx;
  TesCred *cred;
  TesPath *root, *cwd;
} Who;

static gpointer who_cred(TesCtx *c) { return ((Who *)c)->cred; }
static gpointer who_root(TesCtx *c) { return ((Who *)c)->root; }
static gpointer who_cwd(TesCtx *c) { return ((Who *)c)->cwd; }

static TesCtxResolver table[TES_CTX_N_CORE] = {
    [TES_CTX_CRED] = who_cred, [TES_CTX_ROOT] = who_root, [TES_CTX_WORKING_DIR] = who_cwd};

typedef struct {
  TesMountNs *ns;
  TesPath *top;
  Who root, user;
  char *host_dir;
} Fix;

static TesCtx *R(Fix *f) { return &f->root.ctx; }
static TesCtx *U(Fix *f) { return &f->user.ctx; }

static void setup(Fix *f, gconstpointer fs) {
  TesCtx *super = tes_kernel_supervisor_ctx(kernel);
  TesSuper *s = NULL;
  if (g_str_equal(fs, "host") || g_str_equal(fs, "overlay")) {
    f->host_dir = g_build_filename(scratch, "XXXXXX", NULL);
    g_assert_nonnull(mkdtemp(f->host_dir));
    g_assert_cmpint(chmod(f->host_dir, 0755), ==, 0);
    const char *opts = g_str_equal(fs, "host") ? "rw,cache=exclusive" : "host,memory";
    g_assert_cmpint(tes_fs_new_super(super, fs, f->host_dir, opts, 0, &s), ==, 0);
  } else {
    g_assert_cmpint(tes_fs_new_super(super, fs, "none", "mode=755", 0, &s), ==, 0);
  }
  f->ns = vfs->ops->ns_new(vfs, super, s, "none", 0);
  f->top = vfs->ops->ns_root(f->ns);
  TesNs *user_ns = tes_kernel_root_ns(kernel, 0x10000000 /* CLONE_NEWUSER */);
  f->root = (Who){{TES_CTX_CREATE, kernel, table}, tes_cred_new_root(user_ns), f->top, f->top};
  f->user =
      (Who){{TES_CTX_CREATE, kernel, table}, tes_cred_new_user(user_ns, 1000, 1000, NULL, 0), f->top, f->top};
}

static void teardown(Fix *f, gconstpointer fs) {
  (void)fs;
  tes_path_unref(f->top);
  vfs->ops->ns_unref(f->ns);
  tes_cred_unref(f->root.cred);
  tes_cred_unref(f->user.cred);
  for (int i = 0; i < 10; i++)
    tes_epoch_poll();
  g_free(f->host_dir);
}

/* ---- Short forms; each returns what the operation did ---- */

static int walk_at(TesCtx *c, const char *path, guint flags, guint64 resolve, TesPath *base, TesPath **out) {
  TesAt at = {.base = base, .path = path, .flags = flags, .resolve = resolve};
  return vfs->ops->walk(vfs, c, &at, out);
}
static int walk(TesCtx *c, const char *path) {
  TesPath *p = NULL;
  int r = walk_at(c, path, 0, 0, NULL, &p);
  if (p)
    tes_path_unref(p);
  return r;
}
static int make(TesCtx *c, const char *path, guint32 mode, const char *target) {
  TesAt at = {.path = path};
  TesNode n = {.mode = mode, .target = target};
  return vfs->ops->create(vfs, c, &at, &n, NULL);
}
static int mkdir_(TesCtx *c, const char *path, guint32 mode) { return make(c, path, S_IFDIR | mode, NULL); }
static int symlink_(TesCtx *c, const char *target, const char *path) {
  return make(c, path, S_IFLNK | 0777, target);
}
static int touch(TesCtx *c, const char *path, guint32 mode) { return make(c, path, S_IFREG | mode, NULL); }
static int rm(TesCtx *c, const char *path, gboolean dir) {
  TesAt at = {.path = path};
  return vfs->ops->remove(vfs, c, &at, dir);
}
static int mv(TesCtx *c, const char *from, const char *to, guint flags) {
  TesAt a = {.path = from}, b = {.path = to};
  return vfs->ops->rename(vfs, c, &a, &b, flags);
}
static int open_(TesCtx *c, const char *path, guint flags, guint32 mode, TesFile **out) {
  TesAt at = {.path = path};
  TesFile *f = NULL;
  int r = tes_vfs_open(c, &at, flags, mode, &f);
  if (out)
    *out = f;
  else if (f)
    tes_file_unref(f);
  return r;
}
static int link_(TesCtx *c, const char *from, const char *to) {
  g_autoptr(TesPath) p = NULL;
  int r = walk_at(c, from, TES_AT_NOFOLLOW, 0, NULL, &p);
  TesAt at = {.path = to};
  TesNode n = {.link_to = p};
  return r < 0 ? r : vfs->ops->create(vfs, c, &at, &n, NULL);
}
static char *name_of(TesCtx *c, const char *path) {
  g_autoptr(TesPath) p = NULL;
  g_assert_cmpint(walk_at(c, path, TES_AT_NOFOLLOW, 0, NULL, &p), ==, 0);
  return tes_vfs_name(c, p);
}
#define OK(x) g_assert_cmpint((x), ==, 0)
#define FAILS(x, e) g_assert_cmpint((x), ==, -(e))
static void assert_name(TesCtx *c, const char *path, const char *want) {
  g_autofree char *n = name_of(c, path);
  g_assert_cmpstr(n, ==, want);
}

/* ---- Start and end ---- */

static guint dcache_max; /* 0: the generation's own */

/* Arguments of the program: the generation (without one `generation`), and how many unused names it may keep. */
static TesRegistry *box_start(int *argc, char ***argv, const char *generation) {
  g_test_init(argc, argv, NULL);
  if (*argc > 1)
    generation = (*argv)[1];
  if (*argc > 2)
    dcache_max = (guint)g_ascii_strtoull((*argv)[2], NULL, 10);
  scratch = g_dir_make_tmp("tessera-vfs-XXXXXX", NULL);
  g_assert_nonnull(scratch);
  g_assert_cmpint(chmod(scratch, 0755), ==, 0);
  const char *dir = g_getenv("TESSERA_PLUGIN_PATH");
  static const char *const wanted[] = {"vfs1",       "vfs2",     "fs-host",
                                       "fs-overlay", "fs-tmpfs", "platform-ptrace"};
  g_autoptr(GError) error = NULL;
  TesRegistry *reg = tes_registry_new();
  for (guint i = 0; i < G_N_ELEMENTS(wanted); i++) {
    g_autofree char *so = g_strdup_printf("%s/%s/%s.so", dir ? dir : "plugins", wanted[i], wanted[i]);
    if (g_file_test(so, G_FILE_TEST_EXISTS))
      tes_registry_load_file(reg, so, &error);
    g_assert_no_error(error);
  }
  tes_registry_seal(reg, &error);
  g_assert_no_error(error);
  kernel = tes_kernel_new(reg);
  TesKernelArgs args = {.size = sizeof args,
                        .timekeeper = tes_timekeeper_new(),
                        .application_cores = 1,
                        .vfs = generation,
                        .dcache_max = dcache_max};
  tes_timekeeper_set_clocks(args.timekeeper, NULL, NULL);
  tes_kernel_init(kernel, &args, &error);
  g_assert_no_error(error);
  vfs = tes_kernel_vfs(kernel);
  return reg;
}

static int box_end(TesRegistry *reg, int result) {
  tes_kernel_free(kernel);
  tes_registry_free(reg);
  g_autofree char *clean = g_strdup_printf("rm -rf '%s'", scratch);
  return system(clean) == 0 ? result : 1;
}
