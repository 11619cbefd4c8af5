/* SPDX-License-Identifier: Apache-2.0 */
/* arms.c - parsing of the arms that tests run on, and their part of a command line. Interface: arms.h. */
#include "arms.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

static const char *const platforms[] = {"ptrace", "systrap", NULL};
static const char *const generations[] = {"vfs1", "vfs1:2018", "vfs2", NULL};
static const char *const filesystems[] = {"tmpfs", "host", "overlay", NULL};

/* The features of this build, "KIND:NAME". */
static GHashTable *features(const char *tessera) {
  const char *argv[] = {tessera, "plugins", NULL};
  GHashTable *set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_autofree char *text = NULL;

  if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &text, NULL, NULL, NULL))
    return set;
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **p = lines; *p; p++)
    if (g_str_has_prefix(*p, "    "))
      g_hash_table_add(set, g_strdup(g_strstrip(*p)));
  return set;
}

/* "vfs1:2018" is there if "vfs1" is. */
static gboolean has(GHashTable *set, const char *kind, const char *name) {
  g_autofree char *whole = g_strdup_printf("%s:%s", kind, name);
  g_autofree char *base = g_strndup(whole, strlen(kind) + 1 + strcspn(name, ":"));

  return g_hash_table_contains(set, whole) || g_hash_table_contains(set, base);
}

static char *missing(GHashTable *set, const Arm *arm) {
  if (!has(set, "platform", arm->platform))
    return g_strdup_printf("no platform %s in this build", arm->platform);
  if (!has(set, "vfs", arm->vfs))
    return g_strdup_printf("no VFS generation %s in this build", arm->vfs);
  if (!has(set, "filesystem", arm->fs))
    return g_strdup_printf("no filesystem %s in this build", arm->fs);
  return NULL;
}

static void add_arm(GPtrArray *arms, const char *platform, const char *vfs, const char *fs, char *why_not) {
  Arm *arm = g_new0(Arm, 1);

  arm->platform = g_strdup(platform);
  arm->vfs = g_strdup(vfs);
  arm->fs = g_strdup(fs);
  arm->name = g_strdup_printf("%s-%s-%s", platform, vfs, fs);
  arm->why_not = why_not;
  for (guint i = 0; i < arms->len; i++)
    if (strcmp(((Arm *)arms->pdata[i])->name, arm->name) == 0)
      return;
  arm->index = arms->len;
  g_ptr_array_add(arms, arm);
}

/* One part as a list: all of them, or the one. */
static const char *const *choices(const char *part, const char *const *all, const char *one[2]) {
  one[0] = part;
  one[1] = NULL;
  return strcmp(part, "*") == 0 ? all : one;
}

static void add_word(GPtrArray *arms, GHashTable *set, char *word) {
  gboolean old = !strchr(word, '/'), optional = strchr(word, '*') || g_str_has_suffix(word, "?");
  word[strcspn(word, "?")] = '\0';
  g_auto(GStrv) parts = g_strsplit(word, old ? ":" : "/", old ? 2 : 3);
  guint n = g_strv_length(parts);
  const char *one_p[2], *one_v[2], *one_f[2];
  const char *const *v = choices(n > 1 ? parts[1] : "vfs2", generations, one_v);
  const char *const *f = choices(n > 2 ? parts[2] : "tmpfs", filesystems, one_f);

  for (const char *const *p = choices(parts[0], platforms, one_p); *p; p++)
    for (const char *const *q = v; *q; q++)
      for (const char *const *r = f; *r; r++) {
        Arm arm = {.platform = (char *)*p, .vfs = (char *)*q, .fs = (char *)*r};
        add_arm(arms, *p, *q, *r, optional ? missing(set, &arm) : NULL);
      }
}

GPtrArray *arms_parse(const char *tessera, const char *spec) {
  g_auto(GStrv) words = g_strsplit_set(spec, " ,", -1);
  g_autoptr(GHashTable) set = features(tessera);
  GPtrArray *arms = g_ptr_array_new();

  for (char **p = words; *p; p++)
    if (**p)
      add_word(arms, set, *p);
  return arms;
}

Arm *arm_native(void) {
  Arm *arm = g_new0(Arm, 1);

  arm->name = g_strdup("native");
  return arm;
}

void arm_add_argv(GPtrArray *argv, const Arm *arm, const char *host_dir) {
  g_ptr_array_add(argv, g_strdup_printf("--platform=%s", arm->platform));
  g_ptr_array_add(argv, g_strdup_printf("--vfs=%s", arm->vfs));
  if (!host_dir)
    return;
  g_ptr_array_add(argv, g_strdup(strcmp(arm->fs, "host") == 0 ? "--bind" : "--ro-bind"));
  g_ptr_array_add(argv, g_strdup(host_dir));
  g_ptr_array_add(argv, g_strdup("/tmp"));
}

char *arm_host_dir(const Arm *arm, const char *base) {
  if (!arm->fs || strcmp(arm->fs, "tmpfs") == 0)
    return NULL;
  char *dir = g_build_filename(base, "arm-XXXXXX", NULL);
  if (!g_mkdtemp(dir) || g_chmod(dir, 01777) != 0)
    g_error("cannot make a directory in %s", base);
  return dir;
}

char *make_host_tmp(void) {
  struct statvfs st;
  struct statfs fs;
  gboolean shm = statvfs("/dev/shm", &st) == 0 && !(st.f_flag & (ST_NOEXEC | ST_RDONLY)) &&
                 statfs("/dev/shm", &fs) == 0 && fs.f_type == 0x01021994 /* TMPFS_MAGIC */;
  const char *base = shm && g_access("/dev/shm", 7) == 0 ? "/dev/shm" : g_get_tmp_dir();
  char *dir = g_build_filename(base, "tessera-guest-XXXXXX", NULL);

  if (!g_mkdtemp_full(dir, 0755))
    g_error("cannot make a directory in %s", base);
  return dir;
}

void remove_tree(const char *dir) {
  const char *argv[] = {"rm", "-rf", dir, NULL};

  g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
}
