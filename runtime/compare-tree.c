/* SPDX-License-Identifier: Apache-2.0 */
/* File trees: reading them and saying where two differ. */
#include <runtime/compare.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAX_FILES 200000 /* the rest is left out, with a line that says so */

static char *contents_of(const char *path) {
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  FILE *f = fopen(path, "re");
  if (!f)
    return g_strdup("unreadable");
  guchar buf[65536];
  gsize n;
  while ((n = fread(buf, 1, sizeof buf, f)) > 0)
    g_checksum_update(sum, buf, (gssize)n);
  fclose(f);
  return g_strndup(g_checksum_get_string(sum), 16);
}

static char *describe(const char *path, const char *name, const struct stat *st) {
  g_autofree char *common =
      g_strdup_printf("%s: mode %04o, owner %u:%u", name, st->st_mode & 07777, st->st_uid, st->st_gid);
  if (S_ISREG(st->st_mode)) {
    g_autofree char *sum = contents_of(path);
    return g_strdup_printf("%s, file of %lld bytes, sha256 %s", common, (long long)st->st_size, sum);
  }
  if (S_ISLNK(st->st_mode)) {
    g_autofree char *target = g_file_read_link(path, NULL);
    return g_strdup_printf("%s, link to %s", common, target ? target : "?");
  }
  if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
    return g_strdup_printf("%s, device %u:%u", common, major(st->st_rdev), minor(st->st_rdev));
  return g_strdup_printf("%s, %s", common,
                         S_ISDIR(st->st_mode)    ? "directory"
                         : S_ISFIFO(st->st_mode) ? "FIFO"
                                                 : "socket");
}

static void read_dir(GPtrArray *lines, const char *dir, const char *prefix) {
  GDir *d = g_dir_open(dir, 0, NULL);
  if (!d)
    return;
  const char *name;
  while (lines->len < MAX_FILES && (name = g_dir_read_name(d))) {
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *shown = g_strconcat(prefix, name, NULL);
    struct stat st;
    if (lstat(path, &st) < 0)
      continue;
    g_ptr_array_add(lines, describe(path, shown, &st));
    if (S_ISDIR(st.st_mode)) {
      g_autofree char *below = g_strconcat(shown, "/", NULL);
      read_dir(lines, path, below);
    }
  }
  g_dir_close(d);
}

static int by_text(gconstpointer a, gconstpointer b) { return strcmp(*(char *const *)a, *(char *const *)b); }

GPtrArray *tree_read(const char *dir) {
  GPtrArray *lines = g_ptr_array_new_with_free_func(g_free);
  read_dir(lines, dir, "");
  if (lines->len >= MAX_FILES)
    g_ptr_array_add(lines, g_strdup("(more files: not compared)"));
  g_ptr_array_sort(lines, by_text);
  return lines;
}

/* Compares up to the ": " that ends the names. */
static int compare_names(const char *a, const char *b) {
  gsize na = (gsize)(strstr(a, ": ") ? strstr(a, ": ") - a : (gssize)strlen(a));
  gsize nb = (gsize)(strstr(b, ": ") ? strstr(b, ": ") - b : (gssize)strlen(b));
  int r = strncmp(a, b, MIN(na, nb));
  return r ? r : na < nb ? -1 : na > nb;
}

GPtrArray *tree_differences(GPtrArray *a, const char *a_name, GPtrArray *b, const char *b_name) {
  GPtrArray *out = g_ptr_array_new_with_free_func(g_free);
  guint i = 0, j = 0;
  while (i < a->len || j < b->len) {
    const char *x = i < a->len ? a->pdata[i] : NULL, *y = j < b->len ? b->pdata[j] : NULL;
    int order = !x ? 1 : !y ? -1 : compare_names(x, y);
    if (order < 0) {
      g_ptr_array_add(out, g_strdup_printf("only in %s: %s", a_name, x));
    } else if (order > 0) {
      g_ptr_array_add(out, g_strdup_printf("only in %s: %s", b_name, y));
    } else if (strcmp(x, y)) {
      const char *rest = strstr(y, ": ");
      g_ptr_array_add(out, g_strdup_printf("%s [%s]; %s [%s]", x, a_name, rest ? rest + 2 : y, b_name));
    }
    i += order <= 0;
    j += order >= 0;
  }
  return out;
}
