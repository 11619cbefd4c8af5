/* SPDX-License-Identifier: Apache-2.0 */
/* Plugin descriptors and the registry.
 *
 * A plugin is a shared object (or an archive linked into the program) that exports one const descriptor,
 * `tes_plugin_<id>`, where <id> is the plugin's name with '-' written as '_'. The registry reads
 * descriptors, runs no plugin code to list features, refuses what does not fit with one clear line,
 * and is sealed before a kernel is made. */
#pragma once

#include <tessera/types.h>

TES_BEGIN_DECLS

/* A plugin built for another major, or for a newer minor than the core's, is refused. */
#define TES_ABI_MAJOR 1
#define TES_ABI_MINOR 0

/* A feature: data, never code. `kind` says what `ops` is:
 *   "platform"       TesPlatformOps        platform.h
 *   "vfs"            TesVfsOps             vfs.h
 *   "filesystem"     TesFsTypeOps          fs.h
 *   "char-device"    TesDeviceOps          fs.h
 *   "syscalls"       TesSyscallTable       syscall.h
 *   "socket-family"  TesSocketFamilyOps    socket.h
 *   "tty"            TesTtyFeatureOps      tty.h
 *   "ctx-keys"       TesCtxKeyTable        ctx.h
 *   "state"          TesStateOps           state.h
 *   "cgroup"         TesCgroupOps          cgroup.h
 *   "sysctl"         TesSysctlTable        sysctl.h
 * (kind, name) is unique in a registry. */
struct _TesFeature {
  const char *kind, *name;
  const void *ops;
};

struct _TesPlugin {
  guint abi_major, abi_minor;
  gsize size; /* sizeof(TesPlugin) */
  const char *name, *summary, *licence;
  const char *const *needs;   /* NULL, or NULL-terminated "kind:name" of other plugins' features */
  const TesFeature *features; /* ends with a feature whose kind is NULL */
  /* Optional; called once for each kernel, after the registry is sealed, in the order of needs. */
  gboolean (*init)(TesKernel *, GError **error);
  void (*fini)(TesKernel *);
};

/* Emits the descriptor. `id` is an identifier (fs_tmpfs for "fs-tmpfs"). Compiled with
 * -DTES_STATIC_PLUGINS the descriptor is also found by tes_registry_add_static(). */
#ifdef TES_STATIC_PLUGINS
#define TES_PLUGIN_LINKAGE __attribute__((used, section("tes_plugins"), visibility("default")))
#else
#define TES_PLUGIN_LINKAGE __attribute__((visibility("default")))
#endif
#define TES_PLUGIN_DEFINE(id, ...)                       \
  TES_PLUGIN_LINKAGE const TesPlugin tes_plugin_##id = { \
      .abi_major = TES_ABI_MAJOR, .abi_minor = TES_ABI_MINOR, .size = sizeof(TesPlugin), __VA_ARGS__}

/* An empty registry holding the core's own features. Free with tes_registry_free(). */
TesRegistry *tes_registry_new(void);
void tes_registry_free(TesRegistry *);
/* Loads every *.so of a directory, in name order. A file that is refused is an error naming it. */
gboolean tes_registry_load_dir(TesRegistry *, const char *dir, GError **error);
gboolean tes_registry_load_file(TesRegistry *, const char *path, GError **error);
/* Adds a descriptor that is linked in; `origin` is shown in messages. */
gboolean tes_registry_add(TesRegistry *, const TesPlugin *, const char *origin, GError **error);
/* Checks needs and assigns slots (context keys, system calls). Nothing can be added afterwards. */
gboolean tes_registry_seal(TesRegistry *, GError **error);
gboolean tes_registry_is_sealed(const TesRegistry *);
/* The ops of a feature, or NULL. Borrowed. */
const void *tes_registry_find(const TesRegistry *, const char *kind, const char *name);
/* Names of the features of a kind, in registration order. Transfer full (g_strfreev). */
char **tes_registry_names(const TesRegistry *, const char *kind);
typedef void (*TesFeatureFunc)(const TesPlugin *, const char *origin, const TesFeature *, gpointer data);
void tes_registry_foreach(const TesRegistry *, const char *kind, TesFeatureFunc, gpointer data);
typedef void (*TesPluginFunc)(const TesPlugin *, const char *origin, gpointer data);
void tes_registry_foreach_plugin(const TesRegistry *, TesPluginFunc, gpointer data);
/* Where the running program's plugins are: the build tree's if it was started from one, else the installed. */
char *tes_registry_default_dir(void);

TES_END_DECLS
