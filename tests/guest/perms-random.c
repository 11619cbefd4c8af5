/* SPDX-License-Identifier: Apache-2.0 */
/* perms-random.c - random calls of random users on a small tree, with modes, owners, access lists and flags that change all the time.
 * Every result, and the tree after each ten calls, goes into a digest that was recorded on Linux 6.18. To see where two kernels part,
 * compare the output of `perms --helper calls SEED N` on both. */
#include "on-tmpfs.h"

#include <linux/fs.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <sys/xattr.h>

#define N_PATHS 13
static const char *const paths[N_PATHS] = {"a",    "b",    "c",    "d1",     "d2",   "d1/a", "d1/b",
                                           "d2/a", "d2/b", "d1/e", "d1/e/f", "d2/l", "l"};
static const uid_t users[] = {0, 1000, 1001, 1002};
static const gid_t groups[] = {0, 2000, 2001, 1000};
static const mode_t modes[] = {0,    0777, 0755, 0700, 0750, 0711, 0644, 0600,
                               0664, 0070, 0007, 0111, 0222, 0444, 0666};
static const int capabilities[] = {0, 1, 2, 3, 4, 9, 21, 27};

static uint64_t rnd_state;
static unsigned rnd(unsigned n) { return (unsigned)(next_random(&rnd_state) >> 11) % n; }

/* What is seen: kept in shared memory, since each call is a child's. */
typedef struct {
  uint64_t digest;
  bool print;
} Log;
static Log *seen;

__attribute__((format(printf, 1, 2))) static void tell(const char *fmt, ...) {
  char line[300];
  va_list ap;

  va_start(ap, fmt);
  int n = vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  for (int i = 0; i < n; i++)
    seen->digest = (seen->digest ^ (unsigned char)line[i]) * 0x100000001b3;
  if (seen->print)
    write(1, line, (size_t)n);
}

static mode_t any_mode(void) {
  mode_t m = modes[rnd(15)];

  m |= rnd(4) ? 0 : S_ISGID;
  m |= rnd(6) ? 0 : S_ISVTX;
  return m | (rnd(6) ? 0 : S_ISUID);
}

static size_t any_list(unsigned *v) {
  unsigned named = rnd(4), n = 1;

  v[0] = 2;
#define ENTRY(tag_, id_) (v[n++] = (tag_) | rnd(8) << 16, v[n++] = (unsigned)(id_))
  ENTRY(1, -1);
  if (named & 1)
    ENTRY(2, users[1 + rnd(3)]);
  ENTRY(4, -1);
  if (named & 2)
    ENTRY(8, groups[1 + rnd(2)]);
  if (named || rnd(2))
    ENTRY(16, -1);
  ENTRY(32, -1);
  return n * sizeof *v;
}

static int with_open(const char *p, int flags, mode_t mode) {
  int fd = open(p, flags | O_NONBLOCK, mode);

  if (fd < 0)
    return fd;
  struct stat st;
  fstat(fd, &st);
  tell("[%o %d]", st.st_mode, (int)st.st_gid);
  if (rnd(2) && S_ISREG(st.st_mode) && (flags & O_ACCMODE) != O_RDONLY)
    tell("w%d", (int)write(fd, "xyz", 3));
  close(fd);
  return 0;
}

static int with_flags(const char *p) {
  static const int flags[] = {0, 0, 0, FS_APPEND_FL, FS_IMMUTABLE_FL};
  int fd = open(p, O_RDONLY | O_NONBLOCK | (rnd(2) ? O_NOATIME : 0)), f = flags[rnd(5)], r;

  if (fd < 0)
    return -1;
  r = ioctl(fd, FS_IOC_SETFLAGS, &f);
  close(fd);
  return r;
}

static int change_name(unsigned k, const char *p, const char *q) {
  switch (k) {
  case 0:
    return with_open(p, O_CREAT | O_RDWR | (rnd(3) ? 0 : O_EXCL), any_mode());
  case 1:
    return mkdir(p, any_mode());
  case 2:
    return unlink(p);
  case 3:
    return rmdir(p);
  case 4:
    return rename(p, q);
  case 5:
    return link(p, q);
  case 6:
    return symlink("a", p);
  case 7: {
    mode_t type = rnd(2) ? S_IFIFO : S_IFCHR;
    return mknod(p, type | any_mode(), 0);
  }
  case 8:
    return with_open(p, O_TMPFILE | O_RDWR, any_mode());
  default:
    return renameat2(AT_FDCWD, p, AT_FDCWD, q, 1 + rnd(2));
  }
}

static int change_attribute(unsigned k, const char *p) {
  static const struct timespec ts[2] = {{1, 1}, {2, 2}};
  unsigned list[16];

  switch (k) {
  case 10:
    return chmod(p, any_mode());
  case 11:
  case 12: {
    uid_t u = rnd(2) ? (uid_t)-1 : users[rnd(4)];
    gid_t g = rnd(2) ? (gid_t)-1 : groups[rnd(4)];
    return k == 11 ? chown(p, u, g) : lchown(p, u, g);
  }
  case 13:
  case 14: {
    size_t n = any_list(list);
    return setxattr(p, k == 13 ? "system.posix_acl_access" : "system.posix_acl_default", list, n, 0);
  }
  case 15:
    return removexattr(p, rnd(2) ? "system.posix_acl_access" : "system.posix_acl_default");
  case 16:
    return setxattr(p, rnd(2) ? "user.x" : "trusted.x", "1", 1, 0);
  case 17:
    return utimensat(AT_FDCWD, p, rnd(2) ? ts : NULL, 0);
  default:
    return with_flags(p);
  }
}

static int use(unsigned k, const char *p) {
  switch (k) {
  case 19:
    return with_open(p, (int)rnd(3) | (rnd(4) ? 0 : O_TRUNC), 0);
  case 20:
    return access(p, (int)rnd(8));
  case 21:
    return faccessat(AT_FDCWD, p, (int)rnd(8), AT_EACCESS);
  case 22:
    return truncate(p, rnd(100));
  case 23:
    return (int)getxattr(p, rnd(2) ? "user.x" : "trusted.x", NULL, 0);
  default:
    return chdir(p);
  }
}

static void one_call(int i) {
  static const mode_t masks[] = {022, 0, 077, 027};
  const char *p = paths[rnd(N_PATHS)], *q = paths[rnd(N_PATHS)];
  unsigned k = rnd(25), u = rnd(4), g = rnd(4);
  unsigned long caps = rnd(3) ? 0 : 1ul << capabilities[rnd(8)];

  umask(masks[rnd(4)]);
  if (u || rnd(2))
    become(users[u], groups[g], caps);
  errno = 0;
  int r = k < 10 ? change_name(k, p, q) : k < 19 ? change_attribute(k, p) : use(k, p);
  tell("%d: user %u:%u caps %lx call %u %s %s = %d %d\n", i, users[u], groups[g], caps, k, p, q, r,
       r < 0 ? errno : 0);
}

static void look(const char *p) {
  struct stat st;
  unsigned list[16] = {0}, sum = 0;

  if (lstat(p, &st) < 0)
    return;
  ssize_t n = S_ISLNK(st.st_mode) ? 0 : getxattr(p, "system.posix_acl_access", list, sizeof list);
  for (ssize_t i = 0; i < n / 4; i++)
    sum = sum * 31 + list[i];
  tell("  %s %o %u:%u %u %ld %x\n", p, st.st_mode, st.st_uid, st.st_gid, (unsigned)st.st_nlink,
       (long)st.st_size, sum);
}

static void plant_tree(void) {
  static const char *const dirs[] = {"d1", "d2", "d1/e"}, *const files[] = {"a", "b", "d1/a", "d2/b",
                                                                            "d1/e/f"};

  SYS(chdir("/"));
  SYS(umount2(tmpfs_root_, MNT_DETACH));
  SYS(mount("x", tmpfs_root_, "tmpfs", 0, "mode=777"));
  SYS(chdir(tmpfs_root_));
  for (int i = 0; i < 3; i++)
    new_dir(dirs[i], i == 1 ? 01777 : 0777, users[i], groups[i]);
  for (int i = 0; i < 5; i++)
    new_file(files[i], 0664, users[i % 4], groups[3 - i % 4]);
}

static uint64_t run_calls(uint64_t seed, int n, bool print) {
  seen = map_shared(PAGE);
  *seen = (Log){0xcbf29ce484222325, print};
  for (int i = 0; i < n; i++) {
    if (i % 100 == 0)
      plant_tree();
    rnd_state = (seed * 1000003 + (uint64_t)i) * 0x9e3779b97f4a7c15 | 1;
    rnd(2);
    WAIT_OK(CHILD(one_call(i)));
    for (int k = 0; i % 10 == 9 && k < N_PATHS; k++)
      look(paths[k]);
  }
  return seen->digest;
}

static void same_protection(void) {
  static const char *const names[] = {"symlinks", "hardlinks", "fifos", "regular"};

  for (int i = 0; i < 4; i++) {
    char path[100], *text;
    sprintf(path, "/proc/sys/fs/protected_%s", names[i]);
    if (check_in_sandbox) {
      int fd = (int)SYS(open(path, O_WRONLY));
      write_full(fd, i == 1 ? "1" : "0", 1);
      close(fd);
    }
    text = read_file(path, NULL);
    if (!text || atoi(text) != (i == 1))
      SKIP("recorded with other values of protected_*");
    free(text);
  }
}

HELPER(calls) {
  tmpfs_new("mode=777");
  same_protection();
  run_calls(strtoul(argv[0], NULL, 0), atoi(argv[1]), true);
  chdir("/");
  tmpfs_leave();
  return 0;
}

static const uint64_t recorded[] = {0x9dd5cecfca9467d6, 0x44fb86e1dffc85f3, 0xffe5be25db14f1d4};

TEST_LIMIT(random_calls, 120) {
  struct utsname un;

  uname(&un);
  if (!check_in_sandbox && strncmp(un.release, "6.18.", 5))
    SKIP("recorded on another kernel");
  tmpfs_new("mode=777");
  same_protection();
  for (unsigned seed = 0; seed < 3; seed++) {
    uint64_t digest = run_calls(seed, 1500, false);
    if (digest != recorded[seed])
      check_fail(__FILE__, __LINE__, "seed %u: 0x%lx", seed, digest);
  }
  chdir("/");
  tmpfs_leave();
}
