/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera plugins`, `tessera syscalls` and `tessera context-keys`: what the registry knows, as text or data. */
#include <json-glib/json-glib.h>
#include <runtime/runtime.h>
#include <stdio.h>

typedef struct {
  GPtrArray *dirs;
  char *format;
} ListOptions;

static gboolean set_format(gpointer o, char **a, GError **e) {
  (void)e;
  g_free(((ListOptions *)o)->format);
  ((ListOptions *)o)->format = g_strdup(a[0]);
  return TRUE;
}
static gboolean set_json(gpointer o, char **a, GError **e) {
  (void)a;
  char *json[] = {"json"};
  return set_format(o, json, e);
}
static gboolean add_dir(gpointer o, char **a, GError **e) {
  (void)e;
  g_ptr_array_add(((ListOptions *)o)->dirs, g_strdup(a[0]));
  return TRUE;
}
static const Flag list_flags[] = {
    {"format", 1, set_format}, {"json", 0, set_json}, {"plugin-path", 1, add_dir}, {NULL, 0, NULL}};

static void print_json(JsonBuilder *b) {
  g_autoptr(JsonNode) root = json_builder_get_root(b);
  g_autofree char *text = json_to_string(root, TRUE);
  printf("%s\n", text);
}

static void add_member(JsonBuilder *b, const char *name, const char *value) {
  json_builder_set_member_name(b, name);
  json_builder_add_string_value(b, value ? value : "");
}

/* ---- plugins ---- */

static void plugin_text(const TesPlugin *p, const char *origin, gpointer data) {
  (void)data;
  printf("%-16s %s\n", p->name, p->summary);
  for (const TesFeature *f = p->features; f->kind; f++)
    printf("    %s:%s\n", f->kind, f->name);
  for (const char *const *n = p->needs; n && *n; n++)
    printf("    needs %s\n", *n);
  printf("    from %s, ABI %u.%u, %s\n", origin, p->abi_major, p->abi_minor, p->licence);
}

static void plugin_json(const TesPlugin *p, const char *origin, gpointer data) {
  JsonBuilder *b = data;
  g_autofree char *abi = g_strdup_printf("%u.%u", p->abi_major, p->abi_minor);
  json_builder_begin_object(b);
  add_member(b, "name", p->name);
  add_member(b, "summary", p->summary);
  add_member(b, "licence", p->licence);
  add_member(b, "abi", abi);
  add_member(b, "origin", origin);
  json_builder_set_member_name(b, "features");
  json_builder_begin_array(b);
  for (const TesFeature *f = p->features; f->kind; f++) {
    json_builder_begin_object(b);
    add_member(b, "kind", f->kind);
    add_member(b, "name", f->name);
    json_builder_end_object(b);
  }
  json_builder_end_array(b);
  json_builder_set_member_name(b, "needs");
  json_builder_begin_array(b);
  for (const char *const *n = p->needs; n && *n; n++)
    json_builder_add_string_value(b, *n);
  json_builder_end_array(b);
  json_builder_end_object(b);
}

static gboolean print_plugins(TesRegistry *r, const char *format) {
  if (g_str_equal(format, "table")) {
    tes_registry_foreach_plugin(r, plugin_text, NULL);
    return TRUE;
  }
  if (!g_str_equal(format, "json"))
    return FALSE;
  g_autoptr(JsonBuilder) b = json_builder_new();
  json_builder_begin_array(b);
  tes_registry_foreach_plugin(r, plugin_json, b);
  json_builder_end_array(b);
  print_json(b);
  return TRUE;
}

/* ---- syscalls ---- */

static const char *level_name(const TesSyscall *row) {
  return row->level == TES_FULL ? "full" : row->level == TES_PARTIAL ? "partial" : "none";
}

static void syscall_json(JsonBuilder *b, const TesSyscall *row) {
  json_builder_begin_object(b);
  json_builder_set_member_name(b, "number");
  json_builder_add_int_value(b, row->nr);
  add_member(b, "name", row->name);
  add_member(b, "support", level_name(row));
  add_member(b, "note", row->note);
  json_builder_end_object(b);
}

static gboolean print_syscalls(TesRegistry *r, const char *format) {
  gboolean json = g_str_equal(format, "json"), csv = g_str_equal(format, "csv");
  if (!json && !csv && !g_str_equal(format, "table"))
    return FALSE;
  g_autoptr(JsonBuilder) b = json_builder_new();
  json_builder_begin_array(b);
  if (csv)
    printf("number,name,support,note\n");
  for (guint i = 0; i < TES_SYSCALL_MAX; i++) {
    const TesSyscall *row = tes_syscall_row(r, i);
    if (!row)
      continue;
    if (json)
      syscall_json(b, row);
    else
      printf(csv ? "%u,%s,%s,\"%s\"\n" : "%4u  %-24s %-8s %s\n", row->nr, row->name, level_name(row),
             row->note ? row->note : "");
  }
  json_builder_end_array(b);
  if (json)
    print_json(b);
  return TRUE;
}

/* ---- context keys ---- */

static void key_text(guint key, const TesCtxKeyRow *row, gpointer data) {
  (void)data;
  printf("%3u  %-26s %-10s %-40s %c%c%c  %s\n", key, row->name, row->seed, row->type,
         row->resolve[TES_CTX_TASK] ? 't' : '-', row->resolve[TES_CTX_CREATE] ? 'c' : '-',
         row->resolve[TES_CTX_SUPERVISOR] ? 's' : '-', row->owner);
}

static gboolean print_keys(TesRegistry *r, const char *format) {
  if (!g_str_equal(format, "table"))
    return FALSE;
  tes_ctx_keys_foreach(r, key_text, NULL);
  return TRUE;
}

/* ---- Shared ---- */

static int list_main(int argc, char **argv, const Verb *verb,
                     gboolean (*print)(TesRegistry *, const char *)) {
  ListOptions o = {g_ptr_array_new_with_free_func(g_free), g_strdup("table")};
  g_autoptr(GError) error = NULL;
  gboolean help = FALSE;
  int rest = argc;
  TesRegistry *r = NULL;
  if (parse_flags(list_flags, &o, argc, argv, &rest, &help, &error) && !help) {
    g_ptr_array_add(o.dirs, NULL);
    if (rest < argc)
      g_set_error(&error, TES_ERROR, TES_ERROR_CONFIG, "\"%s\" takes no argument %s", verb->name, argv[rest]);
    else if ((r = load_plugins((char **)o.dirs->pdata, &error)) && !print(r, o.format))
      g_set_error(&error, TES_ERROR, TES_ERROR_CONFIG, "--format=%s: unknown format; see tessera %s --help",
                  o.format, verb->name);
  }
  if (help)
    fputs(verb->manual, stdout);
  tes_registry_free(r);
  g_ptr_array_unref(o.dirs);
  g_free(o.format);
  return error ? report(error) : 0;
}

static int plugins_main(int argc, char **argv) { return list_main(argc, argv, &verb_plugins, print_plugins); }
static int syscalls_main(int argc, char **argv) {
  return list_main(argc, argv, &verb_syscalls, print_syscalls);
}
static int keys_main(int argc, char **argv) { return list_main(argc, argv, &verb_context_keys, print_keys); }

const Verb verb_plugins = {"plugins", "list plugins and their features", plugins_main,
                           "NAME\n    tessera plugins - list plugins and their features\n\n"
                           "SYNOPSIS\n    tessera plugins [--json] [--plugin-path=DIR...]\n\n"
                           "DESCRIPTION\n    Reads every plugin's descriptor; runs no plugin's code.\n"};
const Verb verb_syscalls = {
    "syscalls", "list system calls and their support", syscalls_main,
    "NAME\n    tessera syscalls - list system calls and their support\n\n"
    "SYNOPSIS\n    tessera syscalls [--format=table|csv|json] [--plugin-path=DIR...]\n\n"
    "DESCRIPTION\n    Prints the table the kernel dispatches on: number, name, full, partial or none, and "
    "what is missing.\n"
    "    A number that is not listed is ENOSYS.\n"};
const Verb verb_context_keys = {"context-keys", "list the context-key table", keys_main,
                                "NAME\n    tessera context-keys - list the context-key table\n\n"
                                "SYNOPSIS\n    tessera context-keys [--plugin-path=DIR...]\n\n"
                                "DESCRIPTION\n    Slot, name, row of the specification, type, which contexts "
                                "answer (task, create, supervisor), owner.\n"};
