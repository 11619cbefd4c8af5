/* SPDX-License-Identifier: Apache-2.0 */
/* "#!" lines: INTERPRETER [ARGUMENT], where the argument is the rest of the line, spaces included. execve(2),
 * "Interpreter scripts". Interface: tes_script_parse(). */
#include <core/loader/internal.h>
#include <string.h>

static gboolean is_blank(char c) { return c == ' ' || c == '\t'; }

static const char *skip_blanks(const char *p, const char *end) {
  while (p < end && is_blank(*p))
    p++;
  return p;
}

/* The end of a word: a blank, a NUL, or `end`. */
static const char *word_end(const char *p, const char *end) {
  while (p < end && *p && !is_blank(*p))
    p++;
  return p;
}

int tes_script_parse(const char *head, gsize n, char **interp, char **arg) {
  if (n < 2 || head[0] != '#' || head[1] != '!')
    return 0;
  /* Linux looks at 256 bytes, the last of which may only be the newline's place or be ignored. */
  char line[TES_SCRIPT_LINE] = {0};
  memcpy(line, head, MIN(n, sizeof line));
  const char *start = line + 2, *limit = line + sizeof line - 1;
  const char *end = memchr(start, '\n', sizeof line - 2);
  if (!end) {
    /* Without a newline the line is cut: acceptable as long as the interpreter's name is whole. */
    const char *name = skip_blanks(start, limit);
    if (word_end(name, limit) == limit)
      return -ENOEXEC;
    end = limit;
  }
  while (end > start && is_blank(end[-1]))
    end--;
  const char *name = skip_blanks(start, end), *stop = word_end(name, end);
  if (stop == name)
    return -ENOEXEC;
  *interp = g_strndup(name, stop - name);
  *arg = NULL;
  if (stop < end && *stop) {
    const char *a = skip_blanks(stop, end);
    if (a < end && *a)
      *arg = g_strndup(a, end - a); /* ends at a NUL, if there is one */
  }
  return 1;
}
