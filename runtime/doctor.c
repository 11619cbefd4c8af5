/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera doctor`: which platforms, network uplinks and confinement layers work on this machine, why not the others, and which
 * `tessera do` would choose. Uses nothing but what it finds: no /proc, no plugins and no privileges are answers too. */
#include <runtime/doctor.h>
#include <errno.h>
#include <fcntl.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHECK_LIMIT (2 * G_TIME_SPAN_SECOND)
#define PLATFORM_LIMIT (5 * G_TIME_SPAN_SECOND)
#define TOTAL_LIMIT (20 * G_TIME_SPAN_SECOND)
#define REMEDY_COLUMN 37

typedef struct {
  char *name;
  const TesFeature *feature; /* NULL: not a feature */
  Finding f;
} Line;

typedef struct {
  GPtrArray *dirs;
  gboolean json, loaded;
  gint64 end; /* no check runs past it, us of the monotonic clock */
  TesRegistry *registry;
  GPtrArray *areas;                 /* Result */
  GError *error;                    /* why tessera do would not start, or NULL */
  const TesFeature *platform, *vfs; /* chosen */
} Doctor;

typedef struct {
  const char *key, *title;
  GArray *lines; /* Line */
} Result;

static void line_clear(gpointer p) { g_free(((Line *)p)->name); }

static void result_free(gpointer p) {
  g_array_unref(((Result *)p)->lines);
  g_free(p);
}

static Result *add_area(Doctor *d, const char *key, const char *title) {
  Result *r = g_new0(Result, 1);
  r->key = key;
  r->title = title;
  r->lines = g_array_new(FALSE, TRUE, sizeof(Line));
  g_array_set_clear_func(r->lines, line_clear);
  g_ptr_array_add(d->areas, r);
  return r;
}

/* The new line's finding, to be filled before the next line is added. */
static Finding *add_line(Result *r, const char *name, const TesFeature *feature) {
  Line l = {.name = g_strdup(name), .feature = feature};
  g_array_append_val(r->lines, l);
  return &g_array_index(r->lines, Line, r->lines->len - 1).f;
}

static void add_checks(Doctor *d, Result *r, const Check *checks) {
  for (const Check *c = checks; c->name; c++)
    run_check(c, CHECK_LIMIT, d->end, add_line(r, c->name, NULL));
  for (guint i = 0; !d->platform && i < r->lines->len; i++)
    g_array_index(r->lines, Line, i).f.chosen = FALSE;
}

/* ---- Plugins ---- */

static void count_plugin(const TesPlugin *p, const char *origin, gpointer data) {
  (void)p, (void)origin;
  ++*(guint *)data;
}

static void load(Doctor *d) {
  g_autofree char *def = tes_registry_default_dir();
  if (!d->dirs->len)
    g_ptr_array_add(d->dirs, g_strdup(def));
  d->registry = tes_registry_new();
  Result *r = add_area(d, "plugins", "Plugins");
  for (guint i = 0; i < d->dirs->len; i++) {
    const char *dir = g_ptr_array_index(d->dirs, i);
    g_autoptr(GError) e = NULL;
    guint before = 0, after = 0;
    tes_registry_foreach_plugin(d->registry, count_plugin, &before);
    gboolean ok = tes_registry_load_dir(d->registry, dir, &e);
    tes_registry_foreach_plugin(d->registry, count_plugin, &after);
    Finding *f = add_line(r, "directory", NULL);
    if (ok)
      finding(f, after > before ? DOCTOR_YES : DOCTOR_NO,
              after > before ? NULL : "install plugins there, or name another directory with --plugin-path",
              "%s: %u plugins", dir, after - before);
    else
      finding(f, DOCTOR_NO, "install plugins, remove the file, or name another directory with --plugin-path",
              "%s", e->message);
    if (!ok && !d->error)
      d->error = g_steal_pointer(&e);
  }
  if (!d->error && !tes_registry_seal(d->registry, &d->error))
    finding(add_line(r, "needs", NULL), DOCTOR_NO, "install what is missing, or remove the plugin", "%s",
            d->error->message);
  d->loaded = !d->error;
}

/* ---- Platforms ---- */

/* In a child: asks the platform. */
static void check_probe(Finding *f, gconstpointer data) {
  const TesPlatformOps *ops = ((const TesFeature *)data)->ops;
  g_autofree char *why_not = NULL;
  f->result = TES_HAS(ops, probe) ? ops->probe(&why_not) : 0;
  finding(f, f->result < 0 ? DOCTOR_NO : DOCTOR_YES, NULL, "%s",
          f->result >= 0 ? "works"
          : why_not      ? why_not
                         : g_strerror(-f->result));
}

/* In another: opens it as a kernel would. */
static void check_open(Finding *f, gconstpointer data) {
  const TesPlatformOps *ops = ((const TesFeature *)data)->ops;
  g_autoptr(GError) error = NULL;
  TesPlatformArgs args = {.size = sizeof args, .cores = g_get_num_processors()};
  gint64 begin = g_get_monotonic_time();
  TesPlatform *p = ops->open(&args, &error);
  gint64 took = g_get_monotonic_time() - begin;
  if (!p) {
    finding(f, DOCTOR_NO, NULL, "%s", error ? error->message : "no reason given");
    return;
  }
  ops->close(p);
  finding(f, DOCTOR_YES, NULL, "works%s; opened in %.1f ms",
          ops->flags & TES_PLATFORM_PREFERRED ? ", preferred" : "", (double)took / 1e3);
}

static void add_platform(const TesPlugin *p, const char *origin, const TesFeature *feature, gpointer data) {
  (void)p, (void)origin;
  Doctor *d = data;
  const Check probe = {feature->name, check_probe, feature}, open = {feature->name, check_open, feature};
  Finding *f = add_line(g_ptr_array_index(d->areas, d->areas->len - 1), feature->name, feature), opened;
  run_check(&probe, PLATFORM_LIMIT, d->end, f);
  if (f->state == DOCTOR_NO) {
    f->result = MIN(f->result, -1); /* a child that could not say so */
    return;
  }
  run_check(&open, PLATFORM_LIMIT, d->end, &opened);
  if (opened.state == DOCTOR_YES)
    *f = opened;
  else
    finding(f, DOCTOR_NO, "choose another with --platform", "its probe succeeds, but it cannot be opened: %s",
            opened.reason);
}

/* Answers for platforms from what their children found. */
static int probed(const TesFeature *platform, char **why_not, gpointer data) {
  Result *r = data;
  for (guint i = 0; i < r->lines->len; i++) {
    Line *l = &g_array_index(r->lines, Line, i);
    if (l->feature == platform) {
      *why_not = g_strdup(l->f.reason);
      return l->f.result;
    }
  }
  return -ENOENT;
}

/* A probe may promise what opening cannot keep: `tessera do` would choose that platform, and fail. */
static void check_chosen(Doctor *d, Result *r) {
  for (guint i = 0; d->platform && !d->error && i < r->lines->len; i++) {
    Line *l = &g_array_index(r->lines, Line, i);
    if (l->feature == d->platform && l->f.state == DOCTOR_NO)
      d->error =
          g_error_new(TES_ERROR, TES_ERROR_PLATFORM, "platform %s would be chosen: %s", l->name, l->f.reason);
  }
}

static void mark_chosen(Result *r, const TesFeature *feature) {
  for (guint i = 0; feature && i < r->lines->len; i++) {
    Line *l = &g_array_index(r->lines, Line, i);
    l->f.chosen = l->feature == feature;
  }
}

/* Ways to run guests that this machine may have and no plugin uses. */
static void add_unused(Doctor *d, Result *r) {
  static const char device[] = "/dev/kvm";
  if (tes_registry_find(d->registry, "platform", "kvm"))
    return;
  int fd = open(device, O_RDWR | O_CLOEXEC);
  Finding *f = add_line(r, "kvm", NULL);
  if (fd >= 0) {
    finding(f, DOCTOR_NO, "none is needed: other platforms do without",
            "%s can be opened, but no plugin for it is installed", device);
    close(fd);
  } else
    finding(f, DOCTOR_NO, NULL, "no plugin for it is installed; %s: %s", device, g_strerror(errno));
}

static void platforms(Doctor *d) {
  Result *r = add_area(d, "platforms", "Platforms");
  g_autoptr(GError) e = NULL;
  tes_registry_foreach(d->registry, "platform", add_platform, d);
  d->platform = tes_choose_platform(d->registry, NULL, probed, r, &e);
  mark_chosen(r, d->platform);
  if (!r->lines->len)
    finding(add_line(r, "-", NULL), DOCTOR_NO, "install one or give --plugin-path", "no platform is loaded");
  if (!d->platform && !d->error)
    d->error = g_steal_pointer(&e);
  check_chosen(d, r);
  add_unused(d, r);
}

/* ---- VFS generations and the network ---- */

static void add_vfs(const TesPlugin *p, const char *origin, const TesFeature *feature, gpointer data) {
  (void)origin;
  const TesVfsOps *ops = feature->ops;
  finding(add_line(data, feature->name, feature), DOCTOR_YES, NULL, "priority %u: %s", ops->priority,
          p->summary);
}

static void generations(Doctor *d) {
  Result *r = add_area(d, "vfs", "VFS generations");
  g_autoptr(GError) e = NULL;
  tes_registry_foreach(d->registry, "vfs", add_vfs, r);
  d->vfs = tes_choose_vfs(d->registry, NULL, &e);
  mark_chosen(r, d->vfs);
  if (!d->vfs)
    finding(add_line(r, "-", NULL), DOCTOR_NO, "install one or give --plugin-path", "%s",
            "no VFS generation is loaded");
  if (!d->vfs && !d->error)
    d->error = g_steal_pointer(&e);
}

typedef struct {
  GString *names;
  gboolean internet;
} Families;

static void add_family(const TesPlugin *p, const char *origin, const TesFeature *feature, gpointer data) {
  (void)p, (void)origin;
  Families *s = data;
  g_string_append_printf(s->names, "%s%s", s->names->len ? ", " : "", feature->name);
  s->internet |= ((const TesSocketFamilyOps *)feature->ops)->family == AF_INET;
}

static void network(Doctor *d) {
  Result *r = add_area(d, "network", "Network uplinks, and what they would need");
  Families s = {g_string_new(NULL), FALSE};
  tes_registry_foreach(d->registry, "socket-family", add_family, &s);
  Finding *f = add_line(r, "uplink", NULL);
  const char *names = s.names->len ? s.names->str : "none";
  f->chosen = s.internet;
  if (s.internet)
    finding(f, DOCTOR_YES, NULL, "socket families: %s", names);
  else
    finding(f, DOCTOR_NO, "install a network plugin when there is one",
            "the network plugins are not installed: programs have no network; socket families: %s", names);
  g_string_free(s.names, TRUE);
  add_checks(d, r, network_checks);
}

/* ---- Printing ---- */

static const char *const state_names[] = {"no", "limited", "yes"};

static gboolean any_works(Doctor *d) {
  Result *r = g_ptr_array_index(d->areas, 1);
  for (guint i = 0; d->loaded && i < r->lines->len; i++) {
    Line *l = &g_array_index(r->lines, Line, i);
    if (l->feature && l->f.state == DOCTOR_YES)
      return TRUE;
  }
  return FALSE;
}

static void print_text(Doctor *d) {
  for (guint i = 0; i < d->areas->len; i++) {
    Result *r = g_ptr_array_index(d->areas, i);
    printf("%s%s\n", i ? "\n" : "", r->title);
    for (guint k = 0; k < r->lines->len; k++) {
      Line *l = &g_array_index(r->lines, Line, k);
      printf("  %c %-8s %-22s  %s\n", l->f.chosen ? '*' : ' ', state_names[l->f.state], l->name, l->f.reason);
      if (*l->f.remedy)
        printf("%*s-> %s\n", REMEDY_COLUMN, "", l->f.remedy);
    }
  }
  if (d->error)
    printf("\ntessera do cannot work here: %s\n", d->error->message);
  else
    printf("\ntessera do would use what is marked *: platform %s, VFS %s.\n", d->platform->name,
           d->vfs->name);
}

static void add_string(JsonBuilder *b, const char *name, const char *value) {
  json_builder_set_member_name(b, name);
  if (value)
    json_builder_add_string_value(b, value);
  else
    json_builder_add_null_value(b);
}

static void add_boolean(JsonBuilder *b, const char *name, gboolean value) {
  json_builder_set_member_name(b, name);
  json_builder_add_boolean_value(b, value);
}

static void json_line(JsonBuilder *b, const Line *l) {
  json_builder_begin_object(b);
  add_string(b, "name", l->name);
  add_string(b, "state", state_names[l->f.state]);
  add_boolean(b, "chosen", l->f.chosen);
  add_string(b, "reason", l->f.reason);
  add_string(b, "remedy", *l->f.remedy ? l->f.remedy : NULL);
  json_builder_end_object(b);
}

static void print_json(Doctor *d) {
  g_autoptr(JsonBuilder) b = json_builder_new();
  json_builder_begin_object(b);
  add_boolean(b, "works", any_works(d));
  add_string(b, "error", d->error ? d->error->message : NULL);
  add_string(b, "platform", d->platform ? d->platform->name : NULL);
  add_string(b, "vfs", d->vfs ? d->vfs->name : NULL);
  for (guint i = 0; i < d->areas->len; i++) {
    Result *r = g_ptr_array_index(d->areas, i);
    g_autofree char *key = g_strconcat(r->key, "-checks", NULL);
    json_builder_set_member_name(b, key);
    json_builder_begin_array(b);
    for (guint k = 0; k < r->lines->len; k++)
      json_line(b, &g_array_index(r->lines, Line, k));
    json_builder_end_array(b);
  }
  json_builder_end_object(b);
  g_autoptr(JsonNode) root = json_builder_get_root(b);
  g_autofree char *text = json_to_string(root, TRUE);
  printf("%s\n", text);
}

/* ---- The verb ---- */

static gboolean set_json(gpointer o, char **a, GError **e) {
  (void)a, (void)e;
  ((Doctor *)o)->json = TRUE;
  return TRUE;
}
static gboolean add_dir(gpointer o, char **a, GError **e) {
  (void)e;
  g_ptr_array_add(((Doctor *)o)->dirs, g_strdup(a[0]));
  return TRUE;
}
static const Flag doctor_flags[] = {{"json", 0, set_json}, {"plugin-path", 1, add_dir}, {NULL, 0, NULL}};

static GLogWriterOutput silent(GLogLevelFlags level, const GLogField *f, gsize n, gpointer data) {
  (void)level, (void)f, (void)n, (void)data;
  return G_LOG_WRITER_HANDLED;
}

static int examine(Doctor *d) {
  g_log_set_writer_func(silent, NULL, NULL);
  d->end = g_get_monotonic_time() + TOTAL_LIMIT;
  load(d);
  platforms(d);
  generations(d);
  network(d);
  add_checks(d, add_area(d, "confinement", "Confinement layers"), confinement_checks);
  add_checks(d, add_area(d, "machine", "Machine"), machine_checks);
  (d->json ? print_json : print_text)(d);
  tes_registry_free(d->registry);
  return any_works(d) ? 0 : 1;
}

static int doctor_main(int argc, char **argv) {
  Doctor d = {.dirs = g_ptr_array_new_with_free_func(g_free),
              .areas = g_ptr_array_new_with_free_func(result_free)};
  g_autoptr(GError) error = NULL;
  gboolean help = FALSE;
  int rest = argc, status = 0;
  if (parse_flags(doctor_flags, &d, argc, argv, &rest, &help, &error) && !help) {
    if (rest < argc)
      g_set_error(&error, TES_ERROR, TES_ERROR_CONFIG, "\"doctor\" takes no argument %s", argv[rest]);
    else
      status = examine(&d);
  }
  if (help)
    fputs(verb_doctor.manual, stdout);
  g_ptr_array_unref(d.dirs);
  g_ptr_array_unref(d.areas);
  g_clear_error(&d.error);
  return error ? report(error) : status;
}

const Verb verb_doctor = {
    "doctor", "say what works on this machine, why not the rest, and what would be chosen", doctor_main,
    "NAME\n"
    "    tessera doctor - say what works on this machine, why not the rest, and what would be chosen\n\n"
    "SYNOPSIS\n"
    "    tessera doctor [--json] [--plugin-path=DIR...]\n\n"
    "DESCRIPTION\n"
    "    Tries every platform (its probe, then opening it), lists the VFS generations, and examines what "
    "network "
    "uplinks would\n"
    "    need, which layers of confinement the host offers, and the facts of the machine that decide about "
    "speed. A line "
    "says yes,\n"
    "    no or limited, why, and after -> what to do about it. A * marks what `tessera do` would use now. "
    "Each check runs "
    "in a\n"
    "    process of its own and is ended when it takes too long; nothing on the host is changed. No "
    "privileges are "
    "needed: the\n"
    "    answers are those for the user who asks.\n\n"
    "FLAGS\n"
    "    --json                the same as one JSON object: works, error, platform, vfs, and an array of "
    "checks for each "
    "area\n"
    "                          (plugins-checks, platforms-checks, vfs-checks, network-checks, "
    "confinement-checks,\n"
    "                          machine-checks), each with name, state, chosen, reason and remedy (or null)\n"
    "    --plugin-path=DIR     where plugins are; may be repeated; default: the build tree's or the "
    "installed ones\n\n"
    "EXIT STATUS\n"
    "    0 if at least one platform works; 1 if none does, or the plugins cannot be loaded; 125 if the flags "
    "are wrong.\n"};
