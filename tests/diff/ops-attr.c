/* SPDX-License-Identifier: Apache-2.0 */
/* ops-attr.c - random operations on attributes: stat, modes, owners, times, extended attributes, access. */
#include "diff.h"

#include <linux/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

static int at_flags(void) {
  static const int flags[] = {
      0, 0, 0, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_NO_AUTOMOUNT, 0x8000};
  return PICK(flags);
}

/* With AT_EMPTY_PATH mostly an empty path. */
static const char *path_for(int flags) {
  const char *p = path();
  return (flags & AT_EMPTY_PATH) && chance(80) ? "" : p;
}

static void op_stat(void) {
  int flags = at_flags(), fd = chance(70) ? dir_fd() : any_fd();
  const char *p = path_for(flags);
  struct stat st;
  say("fstatat(%d,", fd);
  say_path(p);
  say(",%#x)", flags);
  if (done(syscall(SYS_newfstatat, fd, p, &st, flags)) == 0)
    say_stat(&st);
}

static void op_fstat(void) {
  int fd = any_fd();
  struct stat st;
  say("fstat(%d)", fd);
  if (done(fstat(fd, &st)) == 0 && fd_type(fd) != S_IFSOCK)
    say_stat(&st);
}

struct statx_answer { /* glibc's and the kernel's headers both declare struct statx */
  uint32_t mask, blksize;
  uint64_t attributes;
  uint32_t nlink, uid, gid;
  uint16_t mode, pad;
  uint64_t ino, size, blocks;
  char rest[256];
};

static void op_statx(void) {
  static const unsigned masks[] = {STATX_BASIC_STATS, STATX_BASIC_STATS, 0, STATX_SIZE, 0x80000000u};
  int flags = at_flags(), fd = chance(70) ? dir_fd() : any_fd();
  const char *p = path_for(flags);
  unsigned mask = PICK(masks);
  struct statx_answer x;
  say("statx(%d,", fd);
  say_path(p);
  say(",%#x,%#x)", flags, mask);
  memset(&x, 0xff, sizeof x);
  if (done(syscall(SYS_statx, fd, p, flags, mask, &x)) != 0)
    return;
  say(" %x %o %u:%u", x.mask & mask & STATX_BASIC_STATS, x.mode, x.uid, x.gid);
  if (!S_ISDIR(x.mode))
    say(" n=%u size=%lu", x.nlink, (unsigned long)x.size);
}

static void op_access(void) {
  static const int modes[] = {F_OK, R_OK, W_OK, X_OK, R_OK | W_OK, R_OK | X_OK, 8};
  static const int flags[] = {0, 0, AT_EACCESS, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, 0x8000};
  int f = PICK(flags), fd = dir_fd(), mode = PICK(modes);
  const char *p = path_for(f);
  say("faccessat2(%d,", fd);
  say_path(p);
  say(",%d,%#x)", mode, f);
  done(f ? syscall(SYS_faccessat2, fd, p, mode, f) : syscall(SYS_faccessat, fd, p, mode));
}

static void op_chmod(void) {
  static const mode_t modes[] = {0644,  0755,  0777, 0777, 0600,  04755, 02755,
                                 01777, 06777, 0,    0444, 02644, 0711};
  const char *p = path();
  int fd = any_fd(), dir = dir_fd(), how = (int)below(4);
  mode_t mode = PICK(modes);
  say("chmod%d(%d,%d,", how, dir, fd);
  say_path(p);
  say(",%#o)", mode);
  done(how == 0   ? fchmod(fd, mode)
       : how == 1 ? syscall(452 /* fchmodat2 */, dir, p, mode, chance(50) ? AT_SYMLINK_NOFOLLOW : 0)
                  : syscall(SYS_fchmodat, dir, p, mode));
}

static void op_chown(void) {
  static const unsigned ids[] = {0, 1000, 1000, 1001, (unsigned)-1};
  static const int flags[] = {0, 0, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH};
  int f = PICK(flags), fd = any_fd(), dir = dir_fd();
  const char *p = path_for(f);
  unsigned uid = PICK(ids), gid = PICK(ids);
  bool by_fd = chance(25);
  if (by_fd)
    say("fchown(%d,%d,%d)", fd, (int)uid, (int)gid);
  else {
    say("fchownat(%d,", dir);
    say_path(p);
    say(",%d,%d,%#x)", (int)uid, (int)gid, f);
  }
  done(by_fd ? fchown(fd, uid, gid) : fchownat(dir, p, uid, gid, f));
}

static struct timespec some_time(void) {
  switch (below(8)) {
  case 0:
    return (struct timespec){0, UTIME_NOW};
  case 1:
    return (struct timespec){0, UTIME_OMIT};
  case 2:
    return (struct timespec){5, chance(30) ? 2000000000 : 7};
  default:
    return (struct timespec){below(1000), below(1000000000)};
  }
}

static void op_utimens(void) {
  struct timespec ts[2] = {some_time(), some_time()};
  int flags = chance(25)   ? AT_SYMLINK_NOFOLLOW
              : chance(10) ? AT_EMPTY_PATH
                           : 0,
      dir = dir_fd(), fd = any_fd();
  const char *p = path_for(flags);
  bool null = chance(10), by_fd = chance(20);
  say("utimensat(%d,", by_fd ? fd : dir);
  say_path(by_fd ? "" : p);
  say(",%s%ld.%ld,%ld.%ld,%#x)", null ? "NULL," : "", (long)ts[0].tv_sec, ts[0].tv_nsec, (long)ts[1].tv_sec,
      ts[1].tv_nsec, flags);
  done(syscall(SYS_utimensat, by_fd ? fd : dir, by_fd ? NULL : p, null ? NULL : ts, by_fd ? 0 : flags));
}

static const char *any_attribute(void) {
  static const char *const names[] = {"user.a", "user.a",    "user.b", "trusted.x",       "security.y",
                                      "user.",  "nothing.z", "",       "system.nonsense", "user.long"};
  return PICK(names);
}

/* Those that speak to the host's kernel do not reach host directories. */
static const char *attribute(void) {
  const char *name = any_attribute();
  return opt_user_attributes && (name[0] == 't' || !strncmp(name, "sec", 3)) ? "user.c" : name;
}

static void op_setxattr(void) {
  const char *p = path(), *name = attribute();
  int fd = any_fd(), how = (int)below(3), flags = chance(70) ? 0 : (int)below(4);
  size_t n = chance(80) ? below(40) : chance(90) ? below(2000) : 65537;
  fill(me->buf, 2000);
  say("setxattr%d(%d,", how, fd);
  say_path(p);
  say(",\"%s\",%zu,%d)", name, n, flags);
  done(how == 0   ? setxattr(p, name, me->buf, n, flags)
       : how == 1 ? lsetxattr(p, name, me->buf, n, flags)
                  : fsetxattr(fd, name, me->buf, n, flags));
}

static void op_getxattr(void) {
  const char *p = path(), *name = attribute();
  int fd = any_fd(), how = (int)below(3);
  size_t n = chance(60) ? 4000 : chance(50) ? 0 : below(20);
  say("getxattr%d(%d,", how, fd);
  say_path(p);
  say(",\"%s\",%zu)", name, n);
  long r = done(how == 0   ? getxattr(p, name, me->buf, n)
                : how == 1 ? lgetxattr(p, name, me->buf, n)
                           : fgetxattr(fd, name, me->buf, n));
  if (r > 0 && n)
    say_bytes(me->buf, (size_t)r);
}

/* Names may come in any order: their hashes are added up. */
static void op_listxattr(void) {
  const char *p = path();
  int fd = any_fd(), how = (int)below(3);
  size_t n = chance(60) ? 4000 : chance(50) ? 0 : below(20);
  uint32_t sum = 0;
  say("listxattr%d(%d,", how, fd);
  say_path(p);
  say(",%zu)", n);
  long r = done(how == 0   ? listxattr(p, me->buf, n)
                : how == 1 ? llistxattr(p, me->buf, n)
                           : flistxattr(fd, me->buf, n));
  for (long i = 0; n && i < r; i += (long)strlen(me->buf + i) + 1)
    sum += hash(me->buf + i, strlen(me->buf + i));
  say(" %08x", sum);
}

static void op_removexattr(void) {
  const char *p = path(), *name = attribute();
  int fd = any_fd(), how = (int)below(3);
  say("removexattr%d(%d,", how, fd);
  say_path(p);
  say(",\"%s\")", name);
  done(how == 0 ? removexattr(p, name) : how == 1 ? lremovexattr(p, name) : fremovexattr(fd, name));
}

static void op_statfs(void) {
  const char *p = path();
  int fd = any_fd();
  struct statfs st;
  bool by_fd = chance(50);
  say("statfs(%d,", fd);
  say_path(p);
  say(",%d)", by_fd);
  if (done(by_fd ? fstatfs(fd, &st) : statfs(p, &st)) == 0 && !(by_fd && fd_type(fd) == S_IFSOCK))
    say(" namelen=%ld", (long)st.f_namelen);
}

const Op attr_ops[] = {{"stat", op_stat, 35},
                       {"fstat", op_fstat, 20},
                       {"statx", op_statx, 12},
                       {"access", op_access, 15},
                       {"chmod", op_chmod, 16},
                       {"chown", op_chown, 12},
                       {"utimens", op_utimens, 12},
                       {"setxattr", op_setxattr, 10},
                       {"getxattr", op_getxattr, 10},
                       {"listxattr", op_listxattr, 6},
                       {"removexattr", op_removexattr, 4},
                       {"statfs", op_statfs, 4},
                       {NULL, NULL, 0}};
