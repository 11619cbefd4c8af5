/* SPDX-License-Identifier: Apache-2.0 */
/* tree.c - the tree that is left: printed for comparison, and removed. */
#include "diff.h"

#include <dirent.h>
#include <sys/xattr.h>

static int plain(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static size_t names(const char *dir, char ***ret) {
  DIR *d = opendir(dir);
  struct dirent *e;
  size_t n = 0;

  *ret = calloc(256, sizeof **ret);
  while (d && (e = readdir(d)) && n < 256)
    if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
      (*ret)[n++] = strdup(e->d_name);
  if (d)
    closedir(d);
  qsort(*ret, n, sizeof **ret, plain);
  return n;
}

static void free_names(char **list, size_t n) {
  for (size_t i = 0; i < n; i++)
    free(list[i]);
  free(list);
}

static void say_contents(const char *p) {
  uint32_t h = 0;
  long n, total = 0;
  int fd = open(p, O_RDONLY);

  if (fd < 0) {
    say(" open=%s", error_name(errno));
    return;
  }
  while ((n = read(fd, me->buf, BUF)) > 0) {
    h = h * 31 + hash(me->buf, (size_t)n);
    total += n;
  }
  say(" #%ld:%08x", total, h);
  close(fd);
}

static void say_attributes(const char *p) {
  char list[4096], *sorted[64];
  size_t count = 0;
  long n = llistxattr(p, list, sizeof list);

  for (long i = 0; i < n && count < 64; i += (long)strlen(list + i) + 1)
    sorted[count++] = list + i;
  qsort(sorted, count, sizeof *sorted, plain);
  for (size_t i = 0; i < count; i++) {
    n = lgetxattr(p, sorted[i], me->buf, BUF);
    say(" %s#%ld:%08x", sorted[i], n, n > 0 ? hash(me->buf, (size_t)n) : 0);
  }
}

static void print_one(void (*line)(const char *), const char *p) {
  struct stat st;
  long n;

  me->n = 0;
  say("tree ");
  say_path(p);
  if (lstat(p, &st) < 0) {
    done(-1);
  } else {
    say_stat(&st);
    if (S_ISLNK(st.st_mode) && (n = readlink(p, me->buf, BUF)) >= 0)
      say_bytes(me->buf, (size_t)n);
    if (S_ISREG(st.st_mode))
      say_contents(p);
    say_attributes(p);
  }
  line(me->line);
}

static bool is_dir(const char *p) {
  struct stat st;
  return lstat(p, &st) == 0 && S_ISDIR(st.st_mode);
}

void print_tree(void (*line)(const char *), const char *dir) {
  char **list, *p = NULL;

  print_one(line, dir);
  size_t n = names(dir, &list);
  for (size_t i = 0; i < n && asprintf(&p, "%s%s%s", dir, dir[1] ? "/" : "", list[i]) > 0; i++) {
    if (is_dir(p) && strlen(p) < 3000)
      print_tree(line, p);
    else
      print_one(line, p);
    free(p);
  }
  free_names(list, n);
}

/* Relative to the working directory, since trees can be deeper than a path is long. */
static long remove_here(void) {
  char **list;
  size_t n = names(".", &list);
  long left = 0;

  for (size_t i = 0; i < n; i++) {
    if (is_dir(list[i]) && chdir(list[i]) == 0) {
      left += remove_here();
      if (chdir("..") != 0)
        left++;
    }
    if (unlinkat(AT_FDCWD, list[i], is_dir(list[i]) ? AT_REMOVEDIR : 0) < 0)
      left++;
  }
  free_names(list, n);
  return left;
}

/* Attributes of the directory that stays may count as inodes (tmpfs). */
static void remove_attributes(const char *dir) {
  char list[4096];
  long n = listxattr(dir, list, sizeof list);

  for (long i = 0; i < n; i += (long)strlen(list + i) + 1)
    removexattr(dir, list + i);
}

long remove_all(const char *dir) {
  remove_attributes(dir);
  return chdir(dir) == 0 ? remove_here() : -1;
}
