/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a path, as every generation reads it: path_resolution(7). */
#pragma once

#include <tessera/tessera.h>

#define WALK_MAX_LINKS 40 /* path_resolution(7): ELOOP at the 41st */

/* What the last component of a path is. */
typedef enum { LAST_NORM, LAST_DOT, LAST_DOTDOT, LAST_ROOT /* none: "/" */ } LastKind;

enum {
  W_NOFOLLOW = 1 << 0,
  W_DIRECTORY = 1 << 1,
  W_PARENT = 1 << 2, /* stop at the directory of the last component */
};

static inline guint walk_flags(const TesAt *at) {
  return ((at->flags & TES_AT_NOFOLLOW) ? W_NOFOLLOW : 0) |
         ((at->flags & TES_AT_DIRECTORY) ? W_DIRECTORY : 0);
}

static inline LastKind walk_kind(const char *name, gsize len) {
  if (name[0] != '.' || len > 2)
    return LAST_NORM;
  return len == 1 ? LAST_DOT : name[1] == '.' ? LAST_DOTDOT : LAST_NORM;
}

/* Components are short: a loop is over before a call of strcspn(3) has begun. */
static inline const char *walk_skip_slashes(const char *p) {
  while (*p == '/')
    p++;
  return p;
}
static inline gsize walk_component(const char *p) {
  const char *end = p;
  while (*end && *end != '/')
    end++;
  return (gsize)(end - p);
}
