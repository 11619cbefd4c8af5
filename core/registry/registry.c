/* SPDX-License-Identifier: Apache-2.0 */
/* The registry: finds plugins, refuses what does not fit, answers "which ops has feature kind:name".
 * Loading reads descriptors only; a plugin's code first runs when a kernel uses it. */
#include <core/registry/registry.h>
#include <gmodule.h>
#include <stdio.h>
#include <string.h>

static void loaded_free(gpointer p) {
  TesLoaded *l = p;
  g_free(l->origin);
  if (l->module)
    g_module_close(l->module);
  g_free(l);
}

static char *feature_key(const char *kind, const char *name) { return g_strconcat(kind, ":", name, NULL); }

#define REFUSE(error, origin, ...) (refuse(error, origin, g_strdup_printf(__VA_ARGS__)), FALSE)

static void refuse(GError **error, const char *origin, char *why) {
  g_set_error(error, TES_ERROR, TES_ERROR_PLUGIN, "plugin %s refused: %s", origin, why);
  g_free(why);
}

static gboolean check_descriptor(const TesPlugin *p, const char *origin, GError **error) {
  if (p->abi_major != TES_ABI_MAJOR)
    return REFUSE(error, origin, "built for plugin ABI %u, this is %u; rebuild it", p->abi_major,
                  TES_ABI_MAJOR);
  if (p->abi_minor > TES_ABI_MINOR)
    return REFUSE(error, origin, "needs plugin ABI %u.%u, this is %u.%u; update tessera", p->abi_major,
                  p->abi_minor, TES_ABI_MAJOR, TES_ABI_MINOR);
  if (p->size < sizeof(TesPlugin))
    return REFUSE(error, origin, "its descriptor has %zu bytes instead of %zu; rebuild it", p->size,
                  sizeof(TesPlugin));
  if (!p->name || !p->summary || !p->licence || !p->features)
    return REFUSE(error, origin, "its descriptor lacks a name, summary, licence or features");
  return TRUE;
}

static gboolean feature_is_sane(const TesFeature *f) {
  /* Every table starts with its size; a table of nothing but its size is useless. */
  return f->name && *f->name && f->ops && *(const gsize *)f->ops > sizeof(gsize);
}

gboolean tes_registry_add(TesRegistry *r, const TesPlugin *p, const char *origin, GError **error) {
  if (r->sealed)
    return REFUSE(error, origin, "the registry is sealed");
  if (!check_descriptor(p, origin, error))
    return FALSE;
  for (const TesFeature *f = p->features; f->kind; f++) {
    if (!feature_is_sane(f))
      return REFUSE(error, origin, "feature %s:%s has no operations", f->kind, f->name ? f->name : "?");
    g_autofree char *key = feature_key(f->kind, f->name);
    gboolean twice = g_hash_table_contains(r->features, key);
    for (const TesFeature *g = p->features; g < f && !twice; g++)
      twice = g_str_equal(g->kind, f->kind) && g_str_equal(g->name, f->name);
    if (twice)
      return REFUSE(error, origin, "feature %s exists already", key);
  }
  for (const TesFeature *f = p->features; f->kind; f++)
    g_hash_table_insert(r->features, feature_key(f->kind, f->name), (gpointer)f);
  TesLoaded *l = g_new0(TesLoaded, 1);
  l->plugin = p;
  l->origin = g_strdup(origin);
  g_ptr_array_add(r->plugins, l);
  return TRUE;
}

TesRegistry *tes_registry_new(void) {
  TesRegistry *r = g_new0(TesRegistry, 1);
  r->plugins = g_ptr_array_new_with_free_func(loaded_free);
  r->features = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  r->ctx_rows = g_ptr_array_new();
  g_autoptr(GError) e = NULL;
  if (!tes_registry_add(r, &tes_core_plugin, "core", &e))
    g_error("%s", e->message);
  return r;
}

void tes_registry_free(TesRegistry *r) {
  if (!r)
    return;
  for (int i = 0; i < TES_CTX_KINDS; i++)
    g_free(r->resolve[i]);
  g_ptr_array_unref(r->ctx_rows);
  g_hash_table_unref(r->features);
  g_ptr_array_unref(r->plugins);
  g_free(r);
}

/* The descriptor's symbol: file fs-tmpfs.so exports tes_plugin_fs_tmpfs. */
static char *descriptor_symbol(const char *path) {
  g_autofree char *base = g_path_get_basename(path);
  if (g_str_has_suffix(base, ".so"))
    base[strlen(base) - 3] = 0;
  g_strdelimit(base, "-.", '_');
  return g_strconcat("tes_plugin_", base, NULL);
}

static gboolean looks_like_elf(const char *path, GError **error) {
  char magic[4] = {0};
  FILE *f = fopen(path, "re");
  if (!f)
    return REFUSE(error, path, "%s", g_strerror(errno));
  gsize n = fread(magic, 1, sizeof magic, f);
  fclose(f);
  if (n < sizeof magic || memcmp(magic, "\177ELF", 4) != 0)
    return REFUSE(error, path, "it is not a shared object");
  return TRUE;
}

gboolean tes_registry_load_file(TesRegistry *r, const char *path, GError **error) {
  if (!looks_like_elf(path, error))
    return FALSE;
  GModule *m = g_module_open(path, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
  if (!m)
    return REFUSE(error, path, "%s", g_module_error());
  g_autofree char *symbol = descriptor_symbol(path);
  gpointer p;
  if (!g_module_symbol(m, symbol, &p)) {
    g_module_close(m);
    return REFUSE(error, path, "it does not export %s", symbol);
  }
  if (!tes_registry_add(r, p, path, error)) {
    g_module_close(m);
    return FALSE;
  }
  TesLoaded *l = g_ptr_array_index(r->plugins, r->plugins->len - 1);
  l->module = m;
  return TRUE;
}

static int by_name(gconstpointer a, gconstpointer b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Names of *.so files in `dir` and, for a build tree, in its direct subdirectories. */
static gboolean list_plugins(const char *dir, gboolean subdirs, GPtrArray *out, GError **error) {
  g_autoptr(GError) e = NULL;
  GDir *d = g_dir_open(dir, 0, &e);
  if (!d) {
    g_set_error(error, TES_ERROR, TES_ERROR_PLUGIN,
                "plugin directory %s cannot be read: %s; see --plugin-path", dir, g_strerror(errno));
    return FALSE;
  }
  for (const char *name; (name = g_dir_read_name(d));) {
    g_autofree char *path = g_build_filename(dir, name, NULL);
    if (g_str_has_suffix(name, ".so"))
      g_ptr_array_add(out, g_steal_pointer(&path));
    else if (subdirs && !g_str_has_suffix(name, ".p") && g_file_test(path, G_FILE_TEST_IS_DIR))
      list_plugins(path, FALSE, out, NULL);
  }
  g_dir_close(d);
  return TRUE;
}

gboolean tes_registry_load_dir(TesRegistry *r, const char *dir, GError **error) {
  g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
  if (!list_plugins(dir, TRUE, paths, error))
    return FALSE;
  g_ptr_array_sort(paths, by_name);
  for (guint i = 0; i < paths->len; i++)
    if (!tes_registry_load_file(r, g_ptr_array_index(paths, i), error))
      return FALSE;
  return TRUE;
}

/* The plugin that provides feature "kind:name". */
static TesLoaded *provider(TesRegistry *r, const char *need) {
  const TesFeature *want = g_hash_table_lookup(r->features, need);
  for (guint i = 0; i < r->plugins->len; i++) {
    TesLoaded *l = g_ptr_array_index(r->plugins, i);
    for (const TesFeature *f = l->plugin->features; f->kind; f++)
      if (f == want)
        return l;
  }
  return NULL;
}

/* Appends a plugin after those it needs; plugins that need each other keep their loading order. */
static void visit(TesRegistry *r, TesLoaded *l, GPtrArray *ordered) {
  if (!l || l->visited)
    return;
  l->visited = TRUE;
  for (const char *const *need = l->plugin->needs; need && *need; need++)
    visit(r, provider(r, *need), ordered);
  g_ptr_array_add(ordered, l);
}

static void order_by_needs(TesRegistry *r) {
  GPtrArray *ordered = g_ptr_array_new_with_free_func(loaded_free);
  for (guint i = 0; i < r->plugins->len; i++)
    visit(r, g_ptr_array_index(r->plugins, i), ordered);
  g_ptr_array_set_free_func(r->plugins, NULL);
  g_ptr_array_unref(r->plugins);
  r->plugins = ordered;
}

static gboolean check_needs(TesRegistry *r, GError **error) {
  for (guint i = 0; i < r->plugins->len; i++) {
    TesLoaded *l = g_ptr_array_index(r->plugins, i);
    for (const char *const *need = l->plugin->needs; need && *need; need++)
      if (!g_hash_table_contains(r->features, *need))
        return REFUSE(error, l->origin, "it needs feature %s, which no plugin provides", *need);
  }
  return TRUE;
}

static gboolean add_syscalls(TesRegistry *r, const TesLoaded *l, const TesSyscallTable *t, GError **error) {
  for (gsize i = 0; i < t->n; i++) {
    const TesSyscall *row = &t->rows[i];
    if (row->nr >= TES_SYSCALL_MAX)
      return REFUSE(error, l->origin, "system call number %u is out of range", row->nr);
    const TesSyscall *old = r->syscalls[row->nr];
    /* A plugin may serve what the core declares it does not. */
    if (old && (old->fn || !row->fn))
      return REFUSE(error, l->origin, "system call %s (%u) is already served", row->name, row->nr);
    r->syscalls[row->nr] = row;
  }
  return TRUE;
}

static void assign_slots(TesRegistry *r) {
  for (guint i = 0; i < TES_CTX_N_CORE; i++)
    g_ptr_array_add(r->ctx_rows, (gpointer)&tes_core_ctx_rows[i]);
  for (guint i = 0; i < r->plugins->len; i++) {
    TesLoaded *l = g_ptr_array_index(r->plugins, i);
    for (const TesFeature *f = l->plugin->features; f->kind; f++) {
      if (!g_str_equal(f->kind, "ctx-keys"))
        continue;
      const TesCtxKeyTable *t = f->ops;
      for (gsize j = 0; j < t->n; j++) {
        t->slots[j] = r->ctx_rows->len;
        g_ptr_array_add(r->ctx_rows, (gpointer)&t->rows[j]);
      }
    }
  }
  for (int kind = 0; kind < TES_CTX_KINDS; kind++) {
    r->resolve[kind] = g_new0(TesCtxResolver, r->ctx_rows->len);
    for (guint i = 0; i < r->ctx_rows->len; i++)
      r->resolve[kind][i] = ((const TesCtxKeyRow *)g_ptr_array_index(r->ctx_rows, i))->resolve[kind];
  }
}

gboolean tes_registry_seal(TesRegistry *r, GError **error) {
  if (r->sealed)
    return TRUE;
  if (!check_needs(r, error))
    return FALSE;
  order_by_needs(r);
  for (guint i = 0; i < r->plugins->len; i++) {
    TesLoaded *l = g_ptr_array_index(r->plugins, i);
    for (const TesFeature *f = l->plugin->features; f->kind; f++)
      if (g_str_equal(f->kind, "syscalls") && !add_syscalls(r, l, f->ops, error))
        return FALSE;
  }
  assign_slots(r);
  r->sealed = TRUE;
  return TRUE;
}

gboolean tes_registry_is_sealed(const TesRegistry *r) { return r->sealed; }

const void *tes_registry_find(const TesRegistry *r, const char *kind, const char *name) {
  g_autofree char *key = feature_key(kind, name);
  const TesFeature *f = g_hash_table_lookup(r->features, key);
  return f ? f->ops : NULL;
}

void tes_registry_foreach(const TesRegistry *r, const char *kind, TesFeatureFunc fn, gpointer data) {
  for (guint i = 0; i < r->plugins->len; i++) {
    TesLoaded *l = g_ptr_array_index(r->plugins, i);
    for (const TesFeature *f = l->plugin->features; f->kind; f++)
      if (!kind || g_str_equal(f->kind, kind))
        fn(l->plugin, l->origin, f, data);
  }
}

static void add_name(const TesPlugin *p, const char *origin, const TesFeature *f, gpointer data) {
  (void)p, (void)origin;
  g_ptr_array_add(data, g_strdup(f->name));
}

char **tes_registry_names(const TesRegistry *r, const char *kind) {
  GPtrArray *names = g_ptr_array_new();
  tes_registry_foreach(r, kind, add_name, names);
  g_ptr_array_add(names, NULL);
  return (char **)g_ptr_array_free(names, FALSE);
}

void tes_registry_foreach_plugin(const TesRegistry *r, TesPluginFunc fn, gpointer data) {
  for (guint i = 0; i < r->plugins->len; i++) {
    TesLoaded *l = g_ptr_array_index(r->plugins, i);
    fn(l->plugin, l->origin, data);
  }
}

char *tes_registry_default_dir(void) {
  const char *env = g_getenv("TESSERA_PLUGIN_PATH");
  if (env && *env)
    return g_strdup(env);
  g_autofree char *exe = g_file_read_link("/proc/self/exe", NULL);
  if (exe) {
    g_autofree char *dir = g_path_get_dirname(exe);
    g_autofree char *mark = g_build_filename(dir, "build.ninja", NULL);
    if (g_file_test(mark, G_FILE_TEST_EXISTS))
      return g_build_filename(dir, "plugins", NULL);
  }
  return g_strdup(TES_PLUGIN_DIR);
}

const TesSyscall *tes_syscall_row(const TesRegistry *r, guint nr) {
  return nr < TES_SYSCALL_MAX ? r->syscalls[nr] : NULL;
}

void tes_ctx_keys_foreach(const TesRegistry *r, void (*fn)(guint, const TesCtxKeyRow *, gpointer),
                          gpointer data) {
  for (guint i = 0; i < r->ctx_rows->len; i++)
    fn(i, g_ptr_array_index(r->ctx_rows, i), data);
}
