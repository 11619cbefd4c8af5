/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of platforms: a box is a memory file with hand-made machine code in its first page, an
 * address space that maps it, and a thread of execution. The platform's name is the first argument, its plugin is
 * in TESSERA_PLUGIN_PATH; platform_main() runs the tests of a table. */
#pragma once

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <tessera/platform.h>
#include <tessera/plugin.h>

#define CODE 0x400000UL /* page n of the file is at CODE + n pages: page 0 code, page 1 ... data */
#define DATA (CODE + TES_PAGE_SIZE)
#define PAGES 16
#define R_X (PROT_READ | PROT_EXEC)
#define R_W (PROT_READ | PROT_WRITE)

static const TesPlatformOps *ops;
static TesPlatform *platform;

/* A memory file with code in its first page, an address space that maps it, a thread of execution. */
typedef struct {
  int fd;
  guint8 *mem;
  TesAspace *as;
  TesExec *exec;
  TesTrap trap;
} Box;

#define APPLY(as, ...)                              \
  ({                                                \
    const TesMapOp ops_[] = {__VA_ARGS__};          \
    (as)->ops->apply(as, ops_, G_N_ELEMENTS(ops_)); \
  })
#define MAP(a, n, pr, f, o, ...) \
  { .kind = TES_MAP_MAP, .prot = pr, .fd = f, .addr = a, .len = (n)*TES_PAGE_SIZE, .off = o, ##__VA_ARGS__ }
#define UNMAP(a, n) \
  { .kind = TES_MAP_UNMAP, .fd = -1, .addr = a, .len = (n)*TES_PAGE_SIZE }
#define PROTECT(a, n, pr) \
  { .kind = TES_MAP_PROTECT, .prot = pr, .fd = -1, .addr = a, .len = (n)*TES_PAGE_SIZE }
#define CODE_BYTES(...) (const guint8[]){__VA_ARGS__}, sizeof((const guint8[]){__VA_ARGS__})

static G_GNUC_UNUSED void box_map(Box *b) {
  g_assert_cmpint(APPLY(b->as, MAP(CODE, 1, R_X, b->fd, 0), MAP(DATA, PAGES - 1, R_W, b->fd, TES_PAGE_SIZE)),
                  ==, 0);
}

static G_GNUC_UNUSED void box_new(Box *b, const guint8 *code, gsize n) {
  GError *error = NULL;
  memset(b, 0, sizeof *b);
  b->fd = memfd_create("box", MFD_CLOEXEC);
  g_assert_cmpint(ftruncate(b->fd, PAGES * TES_PAGE_SIZE), ==, 0);
  b->mem = mmap(NULL, PAGES * TES_PAGE_SIZE, R_W, MAP_SHARED, b->fd, 0);
  memcpy(b->mem, code, n);
  b->as = ops->aspace_new(platform, &error);
  g_assert_no_error(error);
  box_map(b);
  b->exec = ops->exec_new(platform, b->as, &error);
  g_assert_no_error(error);
  TesRegs *r = b->exec->ops->regs(b->exec, TRUE);
  r->rip = CODE;
  r->rsp = DATA + 8 * TES_PAGE_SIZE;
  r->rdi = DATA;
}

static G_GNUC_UNUSED void box_free(Box *b) {
  if (b->exec)
    b->exec->ops->free(b->exec);
  b->as->ops->free(b->as);
  munmap(b->mem, PAGES * TES_PAGE_SIZE);
  close(b->fd);
}

static G_GNUC_UNUSED TesTrap *run(Box *b) {
  g_assert_cmpint(b->exec->ops->run(b->exec, &b->trap), ==, 0);
  return &b->trap;
}

/* Loop: eax = 39; syscall; jump back. */
#define SYSCALL_LOOP CODE_BYTES(0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7)
#define SPIN CODE_BYTES(0xeb, 0xfe)
/* Loop: inc rax; mov [rdi], rax; jump back. */
#define WRITER CODE_BYTES(0x48, 0xff, 0xc0, 0x48, 0x89, 0x07, 0xeb, 0xf8)

static G_GNUC_UNUSED const TesPlugin *open_plugin(const char *name) {
  const char *dir = g_getenv("TESSERA_PLUGIN_PATH");
  g_autofree char *id = g_strconcat("platform-", name, NULL);
  g_autofree char *file = g_strconcat(id, ".so", NULL);
  g_autofree char *a = g_build_filename(dir ? dir : ".", id, file, NULL);
  g_autofree char *b = g_build_filename(dir ? dir : ".", file, NULL);
  g_autofree char *symbol = g_strconcat("tes_plugin_platform_", name, NULL);
  void *so = dlopen(a, RTLD_NOW | RTLD_LOCAL);
  if (!so)
    so = dlopen(b, RTLD_NOW | RTLD_LOCAL);
  return so ? dlsym(so, symbol) : NULL;
}

typedef struct {
  const char *name;
  GTestFunc func;
} PlatformTest;

static G_GNUC_UNUSED int platform_main(int argc, char **argv, const PlatformTest *tests, gsize n) {
  g_test_init(&argc, &argv, NULL);
  const TesPlugin *plugin = open_plugin(argc > 1 ? argv[1] : "ptrace");
  char *why = NULL;
  GError *error = NULL;
  if (!plugin)
    g_error("no such platform in TESSERA_PLUGIN_PATH: %s", dlerror());
  ops = plugin->features[0].ops;
  if (ops->probe(&why) < 0) {
    printf("1..0 # SKIP %s\n", why);
    return 0;
  }
  platform = ops->open(&(TesPlatformArgs){.size = sizeof(TesPlatformArgs)}, &error);
  g_assert_no_error(error);
  for (gsize i = 0; i < n; i++) {
    g_autofree char *path = g_strconcat("/platform/", tests[i].name, NULL);
    g_test_add_func(path, tests[i].func);
  }
  int r = g_test_run();
  platform->ops->close(platform);
  return r;
}
