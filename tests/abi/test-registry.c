/* SPDX-License-Identifier: Apache-2.0 */
/* The registry accepts what fits and refuses the rest with one line that names the file and the remedy. */
#include <glib/gstdio.h>
#include <string.h>
#include <tessera/tessera.h>
#include <unistd.h>

static char *plugin_path(const char *name) {
  return g_strdup_printf("%s/%s.so", g_getenv("ABI_PLUGIN_DIR"), name);
}

/* One line, and it says `word`. */
static void assert_refusal(const GError *e, const char *word) {
  g_assert_nonnull(e);
  g_assert_true(e->domain == TES_ERROR);
  g_assert_null(strchr(e->message, '\n'));
  if (!strstr(e->message, word))
    g_error("message \"%s\" does not say \"%s\"", e->message, word);
}

static void refused(const char *name, const char *word) {
  g_autofree char *path = plugin_path(name);
  g_autoptr(GError) e = NULL;
  TesRegistry *r = tes_registry_new();
  g_assert_false(tes_registry_load_file(r, path, &e));
  assert_refusal(e, word);
  assert_refusal(e, name);
  g_assert_null(tes_registry_find(r, "filesystem", "abi-test"));
  tes_registry_free(r);
}

static void test_major(void) { refused("bad-major", "ABI"); }
static void test_minor(void) { refused("bad-minor", "update"); }
static void test_size(void) { refused("bad-size", "rebuild"); }
static void test_no_descriptor(void) { refused("bad-no-descriptor", "tes_plugin_bad_no_descriptor"); }

static void test_not_elf(void) {
  g_autofree char *dir = g_dir_make_tmp("tessera-abi-XXXXXX", NULL);
  g_autofree char *path = g_build_filename(dir, "text.so", NULL);
  g_assert_true(g_file_set_contents(path, "just text", -1, NULL));
  g_autoptr(GError) e = NULL;
  TesRegistry *r = tes_registry_new();
  g_assert_false(tes_registry_load_dir(r, dir, &e));
  assert_refusal(e, "not a shared object");
  tes_registry_free(r);
  g_unlink(path);
  g_rmdir(dir);
}

static void test_no_directory(void) {
  g_autoptr(GError) e = NULL;
  TesRegistry *r = tes_registry_new();
  g_assert_false(tes_registry_load_dir(r, "/nonexistent/tessera", &e));
  assert_refusal(e, "/nonexistent/tessera");
  tes_registry_free(r);
}

static void test_duplicate(void) {
  g_autofree char *good = plugin_path("good"), *twin = plugin_path("twin");
  g_autoptr(GError) e = NULL;
  TesRegistry *r = tes_registry_new();
  g_assert_true(tes_registry_load_file(r, good, &e));
  g_assert_no_error(e);
  g_assert_false(tes_registry_load_file(r, twin, &e));
  assert_refusal(e, "filesystem:abi-test");
  tes_registry_free(r);
}

static void test_missing_need(void) {
  g_autofree char *path = plugin_path("bad-need");
  g_autoptr(GError) e = NULL;
  TesRegistry *r = tes_registry_new();
  g_assert_true(tes_registry_load_file(r, path, &e));
  g_assert_false(tes_registry_seal(r, &e));
  assert_refusal(e, "filesystem:never-there");
  tes_registry_free(r);
}

static void test_sealed(void) {
  g_autofree char *good = plugin_path("good");
  g_autoptr(GError) e = NULL;
  TesRegistry *r = tes_registry_new();
  g_assert_true(tes_registry_seal(r, &e));
  g_assert_true(tes_registry_is_sealed(r));
  g_assert_false(tes_registry_load_file(r, good, &e));
  assert_refusal(e, "sealed");
  tes_registry_free(r);
}

static void test_good(void) {
  g_autofree char *good = plugin_path("good");
  g_autoptr(GError) e = NULL;
  TesRegistry *r = tes_registry_new();
  g_assert_true(tes_registry_load_file(r, good, &e));
  g_assert_true(tes_registry_seal(r, &e));
  g_assert_nonnull(tes_registry_find(r, "filesystem", "abi-test"));
  g_assert_null(tes_registry_find(r, "filesystem", "other"));
  tes_registry_free(r);
}

/* Unknown context keys of an out-of-tree plugin are NULL (K21); the core's table is complete (1.2). */
static void count_key(guint key, const TesCtxKeyRow *row, gpointer n) {
  g_assert_cmpuint(key, ==, *(guint *)n);
  g_assert_nonnull(row->name);
  g_assert_nonnull(row->type);
  ++*(guint *)n;
}
static void test_context_keys(void) {
  TesRegistry *r = tes_registry_new();
  g_assert_true(tes_registry_seal(r, NULL));
  guint n = 0;
  tes_ctx_keys_foreach(r, count_key, &n);
  g_assert_cmpuint(n, ==, TES_CTX_N_CORE);
  tes_registry_free(r);
}

/* The kernel's refusals (L1, L3, L6). */
static void test_kernel_refusals(void) {
  TesRegistry *r = tes_registry_new();
  g_assert_true(tes_registry_seal(r, NULL));
  TesKernel *k = tes_kernel_new(r);
  g_autoptr(GError) e = NULL;
  TesKernelArgs a = {.size = sizeof a, .application_cores = 1};
  g_assert_false(tes_kernel_start(k, &e));
  assert_refusal(e, "not initialised");
  g_clear_error(&e);
  g_assert_false(tes_kernel_init(k, &a, &e));
  assert_refusal(e, "timekeeper");
  g_clear_error(&e);
  a.timekeeper = tes_timekeeper_new();
  g_assert_false(tes_kernel_init(k, &a, &e));
  assert_refusal(e, "clocks must be set");
  g_clear_error(&e);
  tes_timekeeper_set_clocks(a.timekeeper, NULL, NULL);
  a.application_cores = 0;
  g_assert_false(tes_kernel_init(k, &a, &e));
  assert_refusal(e, "CPUs");
  g_clear_error(&e);
  a.application_cores = 1;
  a.platform = "nosuch";
  g_assert_false(tes_kernel_init(k, &a, &e));
  assert_refusal(e, "nosuch");
  g_clear_error(&e);
  g_assert_false(tes_kernel_unpause(k, &e));
  assert_refusal(e, "not paused");
  tes_timekeeper_free(a.timekeeper);
  tes_kernel_free(k);
  tes_registry_free(r);
}

/* A size may only grow with the minor ABI version, at the end: then change the number here on purpose. */
static void test_sizes(void) {
#define PIN(type, n) g_assert_cmpuint(sizeof(type), ==, n)
  PIN(TesPlugin, 72);
  PIN(TesFeature, 24);
  PIN(TesMapOp, 32);
  PIN(TesTrap, 128);
  PIN(TesPlatformOps, 56);
  PIN(TesAspaceOps, 56);
  PIN(TesExecOps, 80);
  PIN(TesSyscall, 48);
  PIN(TesAttr, 144);
  PIN(TesMapPiece, 32);
  PIN(TesWaiter, 48);
  PIN(TesFileOps, 200);
  PIN(TesInodeOps, 192);
  PIN(TesSuperOps, 56);
  PIN(TesFsTypeOps, 32);
  PIN(TesVfsOps, 328);
  PIN(TesSockOps, 96);
  PIN(TesSocketFamilyOps, 40);
  PIN(TesCgroupOps, 96);
#undef PIN
}

/* Prints the sizes when a pin fails: TESSERA_PRINT_SIZES=1. */
static void print_sizes(void) {
#define SHOW(type) g_printerr("PIN(" #type ", %zu);\n", sizeof(type))
  SHOW(TesPlugin), SHOW(TesFeature), SHOW(TesMapOp), SHOW(TesTrap), SHOW(TesPlatformOps), SHOW(TesAspaceOps),
      SHOW(TesExecOps), SHOW(TesSyscall), SHOW(TesAttr), SHOW(TesMapPiece), SHOW(TesWaiter), SHOW(TesFileOps),
      SHOW(TesInodeOps), SHOW(TesSuperOps), SHOW(TesFsTypeOps), SHOW(TesVfsOps), SHOW(TesSockOps),
      SHOW(TesSocketFamilyOps), SHOW(TesCgroupOps);
#undef SHOW
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  if (g_getenv("TESSERA_PRINT_SIZES"))
    print_sizes();
  g_test_add_func("/abi/wrong-major", test_major);
  g_test_add_func("/abi/newer-minor", test_minor);
  g_test_add_func("/abi/wrong-size", test_size);
  g_test_add_func("/abi/no-descriptor", test_no_descriptor);
  g_test_add_func("/abi/not-elf", test_not_elf);
  g_test_add_func("/abi/no-directory", test_no_directory);
  g_test_add_func("/abi/duplicate-feature", test_duplicate);
  g_test_add_func("/abi/missing-need", test_missing_need);
  g_test_add_func("/abi/sealed", test_sealed);
  g_test_add_func("/abi/good", test_good);
  g_test_add_func("/abi/context-keys", test_context_keys);
  g_test_add_func("/abi/kernel-refusals", test_kernel_refusals);
  g_test_add_func("/abi/struct-sizes", test_sizes);
  return g_test_run();
}
