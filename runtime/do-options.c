/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of `tessera do`. */
#include <runtime/do.h>

static gboolean set_string(char **slot, char **a) {
  g_free(*slot);
  *slot = g_strdup(a[0]);
  return TRUE;
}

static gboolean bad_value(GError **error, const char *flag, const char *value, const char *wants) {
  g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "--%s=%s: expected %s", flag, value, wants);
  return FALSE;
}

#define STRING_FLAG(field)                                        \
  static gboolean set_##field(gpointer o, char **a, GError **e) { \
    (void)e;                                                      \
    return set_string(&((DoOptions *)o)->field, a);               \
  }
STRING_FLAG(platform)
STRING_FLAG(vfs)
STRING_FLAG(device)
STRING_FLAG(cwd)
STRING_FLAG(hostname)

static gboolean set_root(gpointer o, char **a, GError **e) {
  (void)e;
  DoOptions *d = o;
  g_free(d->root);
  d->root = g_canonicalize_filename(a[0], NULL);
  return TRUE;
}

static gboolean set_rw(gpointer o, char **a, GError **e) {
  (void)a, (void)e;
  ((DoOptions *)o)->root_mode = ROOT_RW;
  return TRUE;
}
static gboolean set_ro(gpointer o, char **a, GError **e) {
  (void)a, (void)e;
  ((DoOptions *)o)->root_mode = ROOT_RO;
  return TRUE;
}
static gboolean set_overlay(gpointer o, char **a, GError **e) {
  DoOptions *d = o;
  gboolean memory = g_str_equal(a[0], "memory");
  if (!*a[0])
    return bad_value(e, "overlay", a[0], "memory or a directory");
  g_free(d->overlay);
  d->overlay = memory ? NULL : g_canonicalize_filename(a[0], NULL);
  d->root_mode = memory ? ROOT_MEMORY : ROOT_OVERLAY;
  return TRUE;
}

static gboolean add_plugin_path(gpointer o, char **a, GError **e) {
  (void)e;
  g_ptr_array_add(((DoOptions *)o)->plugin_dirs, g_strdup(a[0]));
  return TRUE;
}

static gboolean add_env(gpointer o, char **a, GError **e) {
  if (!strchr(a[0], '='))
    return bad_value(e, "env", a[0], "NAME=VALUE");
  g_ptr_array_add(((DoOptions *)o)->env, g_strdup(a[0]));
  return TRUE;
}

#define BOOL_FLAG(field)                                          \
  static gboolean set_##field(gpointer o, char **a, GError **e) { \
    (void)a, (void)e;                                             \
    return ((DoOptions *)o)->field = TRUE;                        \
  }
BOOL_FLAG(clear_env)
BOOL_FLAG(verbose)

static gboolean set_strace(gpointer o, char **a, GError **e) {
  (void)e;
  DoOptions *d = o;
  d->strace = TRUE;
  return !a[0] || set_string(&d->strace_filter, a);
}

static gboolean set_stats(gpointer o, char **a, GError **e) {
  (void)e;
  DoOptions *d = o;
  d->stats = TRUE;
  return !a[0] || set_string(&d->stats_to, a);
}

static gboolean add_inject(gpointer o, char **a, GError **e) {
  (void)e;
  g_ptr_array_add(((DoOptions *)o)->inject, g_strdup(a[0]));
  return TRUE;
}

static gboolean set_strace_to(gpointer o, char **a, GError **e) {
  (void)e;
  DoOptions *d = o;
  d->strace = TRUE;
  return set_string(&d->strace_to, a);
}

static gboolean set_user(gpointer o, char **a, GError **e) {
  DoOptions *d = o;
  guint64 uid, gid;
  g_auto(GStrv) parts = g_strsplit(a[0], ":", 2);
  if (!parts[0] || !g_ascii_string_to_unsigned(parts[0], 10, 0, G_MAXUINT32 - 1, &uid, NULL) ||
      (parts[1] && !g_ascii_string_to_unsigned(parts[1], 10, 0, G_MAXUINT32 - 1, &gid, NULL)))
    return bad_value(e, "user", a[0], "UID or UID:GID as numbers");
  d->have_user = TRUE;
  d->uid = uid;
  d->gid = parts[1] ? gid : uid;
  return TRUE;
}

static gboolean set_cpus(gpointer o, char **a, GError **e) {
  guint64 n;
  if (!g_ascii_string_to_unsigned(a[0], 10, 0, 1024, &n, NULL))
    return bad_value(e, "cpus", a[0], "a number from 1 to 1024");
  ((DoOptions *)o)->cpus = n;
  return TRUE;
}

static gboolean set_pids(gpointer o, char **a, GError **e) {
  if (!g_ascii_string_to_unsigned(a[0], 10, 1, 4 << 20, &((DoOptions *)o)->pids, NULL))
    return bad_value(e, "pids", a[0], "a number from 1");
  return TRUE;
}

static gboolean set_cpuid(gpointer o, char **a, GError **e) {
  static const char *const modes[] = {
      [TES_CPUID_AUTO] = "auto", [TES_CPUID_HOST] = "host", [TES_CPUID_TABLE] = "table"};
  for (guint i = 0; i < G_N_ELEMENTS(modes); i++)
    if (g_str_equal(a[0], modes[i])) {
      ((DoOptions *)o)->cpuid = (TesCpuidMode)i;
      return TRUE;
    }
  return bad_value(e, "cpuid", a[0], "auto, host or table");
}

static gboolean set_dcache(gpointer o, char **a, GError **e) {
  guint64 n;
  if (!g_ascii_string_to_unsigned(a[0], 10, 1, 1 << 24, &n, NULL))
    return bad_value(e, "dcache", a[0], "a number of names from 1 to 16777216");
  ((DoOptions *)o)->dcache = n;
  return TRUE;
}

static gboolean set_trace(gpointer o, char **a, GError **e) {
  DoOptions *d = o;
  g_auto(GStrv) what = g_strsplit(a[0], ",", -1);
  for (char **w = what; *w; w++) {
    if (g_str_equal(*w, "path"))
      d->trace_path = TRUE;
    else if (g_str_equal(*w, "syscalls"))
      d->strace = TRUE;
    else if (g_str_equal(*w, "json"))
      d->json = TRUE;
    else if (g_str_has_prefix(*w, "json:") && (*w)[5])
      d->json = set_string(&d->json_to, (char *[]){*w + 5});
    else if (g_str_equal(*w, "regs"))
      d->json_regs = TRUE;
    else if (g_str_equal(*w, "plain"))
      d->strace_plain = TRUE;
    else
      return bad_value(e, "trace", a[0], "path, syscalls, json[:FILE], regs or plain, with commas between");
  }
  return TRUE;
}

static gboolean set_memory(gpointer o, char **a, GError **e) {
  char *end;
  guint64 n = g_ascii_strtoull(a[0], &end, 10);
  const char *units = "kmgt", *u = *end ? strchr(units, g_ascii_tolower(*end)) : NULL;
  if (!n || (*end && (!u || end[1])) || (u && n > G_MAXUINT64 >> 10 * (u - units + 1)))
    return bad_value(e, "memory", a[0], "a size such as 512M");
  ((DoOptions *)o)->memory = u ? n << 10 * (u - units + 1) : n;
  return TRUE;
}

static gboolean add_auxv(gpointer o, char **a, GError **e) {
  g_auto(GStrv) parts = g_strsplit(a[0], "=", 2);
  guint64 pair[2];
  for (int i = 0; i < 2; i++)
    if (!parts[0] || !parts[i] ||
        !g_ascii_string_to_unsigned(parts[i], 10, i == 0, G_MAXUINT64, &pair[i], NULL))
      return bad_value(e, "auxv", a[0], "TYPE=VALUE as numbers");
  g_array_append_vals(((DoOptions *)o)->auxv, pair, 2);
  return TRUE;
}

static gboolean add_mount(gpointer o, MountKind kind, const char *source, const char *target, GError **e) {
  if (!g_path_is_absolute(target)) {
    g_set_error(e, TES_ERROR, TES_ERROR_CONFIG, "mount target %s is not an absolute path", target);
    return FALSE;
  }
  MountSpec m = {kind, g_strdup(source), g_strdup(target)};
  g_array_append_val(((DoOptions *)o)->mounts, m);
  return TRUE;
}
static gboolean add_host_dir(gpointer o, MountKind kind, char **a, GError **e) {
  g_autofree char *source = g_canonicalize_filename(a[0], NULL);
  return add_mount(o, kind, source, a[1], e);
}
static gboolean add_ro_bind(gpointer o, char **a, GError **e) { return add_host_dir(o, MOUNT_RO_BIND, a, e); }
static gboolean add_bind(gpointer o, char **a, GError **e) { return add_host_dir(o, MOUNT_BIND, a, e); }
static gboolean add_tmpfs(gpointer o, char **a, GError **e) {
  return add_mount(o, MOUNT_TMPFS, "tmpfs", a[0], e);
}
static gboolean add_proc(gpointer o, char **a, GError **e) {
  return add_mount(o, MOUNT_PROC, "proc", a[0], e);
}
static gboolean add_dev(gpointer o, char **a, GError **e) { return add_mount(o, MOUNT_DEV, "dev", a[0], e); }

const Flag do_flags[] = {
    {"platform", 1, set_platform},
    {"vfs", 1, set_vfs},
    {"device", 1, set_device},
    {"root", 1, set_root},
    {"rw", 0, set_rw},
    {"ro", 0, set_ro},
    {"overlay", 1, set_overlay},
    {"plugin-path", 1, add_plugin_path},
    {"cwd", 1, set_cwd},
    {"env", 1, add_env},
    {"clearenv", 0, set_clear_env},
    {"user", 1, set_user},
    {"cpus", 1, set_cpus},
    {"cpuid", 1, set_cpuid},
    {"memory", 1, set_memory},
    {"pids", 1, set_pids},
    {"dcache", 1, set_dcache},
    {"trace", 1, set_trace},
    {"hostname", 1, set_hostname},
    {"auxv", 1, add_auxv},
    {"ro-bind", 2, add_ro_bind},
    {"bind", 2, add_bind},
    {"tmpfs", 1, add_tmpfs},
    {"proc", 1, add_proc},
    {"dev", 1, add_dev},
    {"strace", OPTIONAL_ARG, set_strace},
    {"strace-to", 1, set_strace_to},
    {"stats", OPTIONAL_ARG, set_stats},
    {"inject", 1, add_inject},
    {"verbose", 0, set_verbose},
    {NULL, 0, NULL},
};

static void mount_spec_clear(gpointer p) {
  MountSpec *m = p;
  g_free(m->source);
  g_free(m->target);
}

void do_options_init(DoOptions *o) {
  *o = (DoOptions){.plugin_dirs = g_ptr_array_new_with_free_func(g_free),
                   .env = g_ptr_array_new_with_free_func(g_free),
                   .inject = g_ptr_array_new_with_free_func(g_free),
                   .mounts = g_array_new(FALSE, FALSE, sizeof(MountSpec)),
                   .auxv = g_array_new(TRUE, TRUE, sizeof(guint64)),
                   .cpus = g_get_num_processors()};
  g_array_set_clear_func(o->mounts, mount_spec_clear);
}

void do_options_clear(DoOptions *o) {
  char **strings[] = {&o->platform, &o->vfs,       &o->device,        &o->root,     &o->overlay, &o->cwd,
                      &o->hostname, &o->strace_to, &o->strace_filter, &o->stats_to, &o->json_to};
  for (gsize i = 0; i < G_N_ELEMENTS(strings); i++)
    g_free(*strings[i]);
  g_ptr_array_unref(o->plugin_dirs);
  g_ptr_array_unref(o->env);
  g_ptr_array_unref(o->inject);
  g_array_unref(o->mounts);
  g_array_unref(o->auxv);
}
