/* SPDX-License-Identifier: Apache-2.0 */
/* Which platform and which VFS generation a kernel gets: by name, or the best one that works. */
#include <core/registry/registry.h>
#include <string.h>

static void unknown_feature(const TesRegistry *r, const char *kind, const char *name, GError **error) {
  g_auto(GStrv) names = tes_registry_names(r, kind);
  g_autofree char *list = g_strjoinv(", ", names);
  if (name)
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "no %s \"%s\" is loaded; there is: %s", kind, name,
                *list ? list : "none");
  else
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "no %s is loaded; install one or give --plugin-path",
                kind);
}

static void add_feature(const TesPlugin *p, const char *origin, const TesFeature *f, gpointer data) {
  (void)p, (void)origin;
  g_ptr_array_add(data, (gpointer)f);
}

/* Features of `kind`, or the one named `want`; transfer full. */
static GPtrArray *candidates(const TesRegistry *r, const char *kind, const char *want) {
  GPtrArray *found = g_ptr_array_new();
  tes_registry_foreach(r, kind, add_feature, found);
  for (guint i = 0; want && i < found->len;)
    if (g_str_equal(((const TesFeature *)g_ptr_array_index(found, i))->name, want))
      i++;
    else
      g_ptr_array_remove_index(found, i);
  return found;
}

static int own_probe(const TesFeature *f, char **why_not, gpointer data) {
  (void)data;
  const TesPlatformOps *ops = f->ops;
  return TES_HAS(ops, probe) ? ops->probe(why_not) : 0;
}

static gboolean works(const TesFeature *f, TesPlatformProbe probe, gpointer data, GString *why) {
  g_autofree char *why_not = NULL;
  int r = (probe ? probe : own_probe)(f, &why_not, data);
  if (r < 0)
    g_string_append_printf(why, "%s%s: %s", why->len ? "; " : "", f->name,
                           why_not ? why_not : g_strerror(-r));
  return r >= 0;
}

const TesFeature *tes_choose_platform(const TesRegistry *r, const char *want, TesPlatformProbe probe,
                                      gpointer data, GError **error) {
  g_autoptr(GPtrArray) found = candidates(r, "platform", want);
  g_autoptr(GString) why = g_string_new(NULL);
  if (!found->len) {
    unknown_feature(r, "platform", want, error);
    return NULL;
  }
  for (int preferred = 1; preferred >= 0; preferred--)
    for (guint i = 0; i < found->len; i++) {
      const TesFeature *f = g_ptr_array_index(found, i);
      const TesPlatformOps *ops = f->ops;
      if (((ops->flags & TES_PLATFORM_PREFERRED) != 0) == preferred && works(f, probe, data, why))
        return f;
    }
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "no platform works here: %s", why->str);
  return NULL;
}

const TesFeature *tes_choose_vfs(const TesRegistry *r, const char *want, GError **error) {
  g_autoptr(GPtrArray) found = candidates(r, "vfs", want);
  const TesFeature *best = NULL;
  for (guint i = 0; i < found->len; i++) {
    const TesFeature *f = g_ptr_array_index(found, i);
    if (!best || ((const TesVfsOps *)f->ops)->priority > ((const TesVfsOps *)best->ops)->priority)
      best = f;
  }
  if (!best)
    unknown_feature(r, "vfs", want, error);
  return best;
}
