/* SPDX-License-Identifier: Apache-2.0 */
/* on-tmpfs.h - cases that need a tmpfs of their own, or several users. */
#pragma once

#include "check.h"

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>

#define NEED_ROOT()                             \
  do {                                          \
    if (getuid() != 0 || !have_cap(CAP_ADMIN_)) \
      SKIP("needs root with all capabilities"); \
  } while (0)
#define CAP_ADMIN_ 21 /* CAP_SYS_ADMIN */

static char *tmpfs_root_;

__attribute__((unused)) static void tmpfs_leave(void) {
  if (tmpfs_root_)
    umount2(tmpfs_root_, MNT_DETACH);
}

/* A mount namespace of its own, where there can be several: the VFS level vfs1:2018 has one for the whole sandbox. */
__attribute__((unused)) static void own_mounts(void) {
  if (unshare(CLONE_NEWNS) < 0)
    REQUIRE(check_in_sandbox && errno == EINVAL);
  else
    SYS(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

/* A tmpfs at tmp_path("m"). */
__attribute__((unused)) static const char *tmpfs_new(const char *opts) {
  NEED_ROOT();
  own_mounts();
  tmpfs_root_ = strdup(tmp_path("m"));
  mkdir(tmpfs_root_, 0755);
  SYS(mount("x", tmpfs_root_, "tmpfs", 0, opts));
  umask(022);
  SYS(chdir(tmpfs_root_));
  return tmpfs_root_;
}

/* A case on a new tmpfs, which is the working directory. */
#define TMPFS_TEST_OPTS(name_, opts_) \
  static void body_##name_(void);     \
  TEST_LIMIT(name_, 60) {             \
    tmpfs_new(opts_);                 \
    body_##name_();                   \
    chdir("/");                       \
    tmpfs_leave();                    \
  }                                   \
  static void body_##name_(void)
#define TMPFS_TEST(name_) TMPFS_TEST_OPTS(name_, "mode=755")

/* A child with these ids, one supplementary group (or 0) and no capabilities. */
#define AS(uid_, gid_, group_, ...)                                                                 \
  WAIT_OK(CHILD(gid_t groups_[] = {group_}; SYS(syscall(SYS_setgroups, (group_) ? 1 : 0, groups_)); \
                SYS(setresgid(gid_, gid_, gid_)); SYS(setresuid(uid_, uid_, uid_)); __VA_ARGS__))

/* The same with the capabilities of a mask in all of a process' sets. */
__attribute__((unused)) static void become(uid_t uid, gid_t gid, unsigned long caps) {
  struct {
    uint32_t version;
    int pid;
  } head = {0x20080522, 0};
  struct {
    uint32_t effective, permitted, inheritable;
  } data[2] = {{(uint32_t)caps, (uint32_t)caps, 0}, {(uint32_t)(caps >> 32), (uint32_t)(caps >> 32), 0}};

  SYS(syscall(SYS_setgroups, 0, NULL));
  SYS(setresgid(gid, gid, gid));
  SYS(syscall(SYS_prctl, 8 /* PR_SET_KEEPCAPS */, 1, 0, 0, 0));
  SYS(setresuid(uid, uid, uid));
  SYS(syscall(SYS_capset, &head, data));
}
#define WITH_CAPS(uid_, gid_, caps_, ...) WAIT_OK(CHILD(become(uid_, gid_, caps_); __VA_ARGS__))

/* A new file or directory with exactly this mode and owner. */
__attribute__((unused)) static void new_file(const char *path, mode_t mode, uid_t uid, gid_t gid) {
  close((int)SYS(open(path, O_CREAT | O_EXCL | O_WRONLY, 0600)));
  SYS(chown(path, uid, gid));
  SYS(chmod(path, mode));
}
__attribute__((unused)) static void new_dir(const char *path, mode_t mode, uid_t uid, gid_t gid) {
  SYS(mkdir(path, 0700));
  SYS(chown(path, uid, gid));
  SYS(chmod(path, mode));
}
__attribute__((unused)) static int mode_of(const char *path) {
  struct stat st;

  return lstat(path, &st) < 0 ? -1 : (int)(st.st_mode & 07777);
}
