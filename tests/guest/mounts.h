/* SPDX-License-Identifier: Apache-2.0 */
/* mounts.h - what the tests of mounts share: each body runs in a child with a mount namespace of its own, standing in an empty
 * tmpfs that only this child has mounted. Nothing of the host's tree is touched. */
#pragma once

#include "check.h"

#include <sched.h>
#include <sys/mount.h>

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

/* Declares a case that runs so; `seconds` as TEST_LIMIT. SHARED_ ones need propagation, which not every VFS generation has. */
#define MOUNTS_CASE(name_, seconds_, shared_)                        \
  static void body_##name_(void);                                    \
  TEST_LIMIT(name_, seconds_) { mounts_run(body_##name_, shared_); } \
  static void body_##name_(void)
#define MOUNT_TEST_LIMIT(name_, seconds_) MOUNTS_CASE(name_, seconds_, false)
#define MOUNT_TEST(name_) MOUNT_TEST_LIMIT(name_, 30)
#define SHARED_TEST_LIMIT(name_, seconds_) MOUNTS_CASE(name_, seconds_, true)
#define SHARED_TEST(name_) SHARED_TEST_LIMIT(name_, 30)

void mounts_run(void (*body)(void), bool shared);

/* A line of mountinfo. */
typedef struct {
  int id, parent;
  unsigned major, minor;
  char root[4096], point[4096], options[256], type[64], source[256], super[256];
  int shared, master, from; /* 0: not there */
  bool unbindable;
} MountLine;
/* The last line (of /proc/self/mountinfo) with this mount point, a name below the test's directory or absolute. FALSE: none. */
bool mount_line(const char *point, MountLine *ret);
MountLine the_mount(const char *point); /* fails the case if there is none */
int mount_count(void);                  /* lines of /proc/self/mountinfo */
int mount_count_at(const char *point);
/* Absolute path of a name below the test's directory; ring of buffers. */
char *here(const char *name);
bool is_there(const char *path);
void new_tmpfs(const char *at);
void bind_to(const char *from, const char *to);
void make(const char *at, unsigned long type);
