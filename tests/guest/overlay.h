/* SPDX-License-Identifier: Apache-2.0 */
/* overlay.h - an overlay mounted inside the case: in a mount namespace of its own, over directories of a tmpfs of its own, so
 * that the host's overlayfs is the oracle. */
#pragma once

#include "check.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/xattr.h>

/* Names below the case's tmpfs: l, l2 (lower directories), u, w (upper, work), m (the mount). */
static inline char *ov(const char *name) {
  char path[512];
  snprintf(path, sizeof path, "ov/%s", name);
  return tmp_path(path);
}

/* The tmpfs with its directories; nothing is mounted on m yet. */
static inline void ov_setup(void) {
  if (getuid() != 0 || !have_cap(21))
    SKIP("needs CAP_SYS_ADMIN");
  if (unshare(CLONE_NEWNS) != 0 && !check_in_sandbox)
    SKIP("needs a mount namespace of its own: %s", strerror(errno));
  mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
  SYS(mkdir(tmp_path("ov"), 0755));
  SYS(mount("tmpfs", tmp_path("ov"), "tmpfs", 0, "mode=755"));
  const char *dirs[] = {"l", "l2", "u", "w", "m"};
  for (int i = 0; i < 5; i++)
    SYS(mkdir(ov(dirs[i]), 0755));
}

static inline int ov_mount_at(const char *at, const char *lower, const char *upper, const char *more) {
  char opts[2048];
  size_t n = (size_t)snprintf(opts, sizeof opts, "lowerdir=%s", lower);
  if (upper)
    n += (size_t)snprintf(opts + n, sizeof opts - n, ",upperdir=%s,workdir=%s", upper, ov("w"));
  if (more)
    snprintf(opts + n, sizeof opts - n, ",%s", more);
  return mount("overlay", at, "overlay", 0, opts);
}

static inline void ov_mount(const char *more) {
  if (ov_mount_at(ov("m"), ov("l"), ov("u"), more) != 0) {
    if (errno == ENODEV && !check_in_sandbox)
      SKIP("the host's kernel has no overlayfs");
    check_fail(__FILE__, __LINE__, "mount overlay: %s", strerror(errno));
    check_abort();
  }
}

static inline void ov_remount(const char *more) {
  SYS(umount(ov("m")));
  ov_mount(more);
}

static inline void ov_down(void) {
  umount2(ov("m"), MNT_DETACH);
  umount2(tmp_path("ov"), MNT_DETACH);
}

static inline void put(const char *name, const char *text) { write_file(ov(name), text, strlen(text), 0644); }

static inline bool has_text(const char *name, const char *text) {
  size_t n;
  char *got = read_file(ov(name), &n);
  bool same = got && n == strlen(text) && memcmp(got, text, n) == 0;
  free(got);
  return same;
}

static inline bool is_whiteout(const char *name) {
  struct stat st;
  return lstat(ov(name), &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

static inline bool exists(const char *name) {
  struct stat st;
  return lstat(ov(name), &st) == 0;
}

static inline ino_t ino_of(const char *name) {
  struct stat st;
  SYS(lstat(ov(name), &st));
  return st.st_ino;
}

/* "a b c": the sorted names of a directory, without "." and ".."; static buffer. */
const char *ov_names(const char *name);
