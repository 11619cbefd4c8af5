/* SPDX-License-Identifier: Apache-2.0 */
/* ops-name.c - random operations on names: opening, creating, removing, renaming, directories. */
#include "diff.h"

#include <dirent.h>
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/un.h>

static int open_flags(void) {
  static const int access_modes[] = {O_RDONLY, O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR, 3};
  static const int extra[] = {O_EXCL,      O_TRUNC,     O_TRUNC,    O_APPEND,
                              O_DIRECTORY, O_DIRECTORY, O_NOFOLLOW, O_NOFOLLOW | O_PATH,
                              O_CLOEXEC,   O_DSYNC,     O_NOATIME,  O_EXCL | O_CREAT};
  /* FIFOs must not block. */
  int flags = PICK(access_modes) | O_NONBLOCK | (chance(55) ? O_CREAT : 0);
  for (unsigned n = chance(40) ? 1 + below(2) : 0; n > 0; n--)
    flags |= PICK(extra);
  return opt_user_attributes ? flags & ~O_NOATIME : flags; /* one description of the host serves several */
}

static mode_t file_mode(void) {
  static const mode_t modes[] = {0644, 0666, 0666,  0666,  0600,  0777, 0755,
                                 0444, 0,    04755, 02755, 01777, 0200, 06777};
  return PICK(modes);
}

static void op_open(void) {
  const char *p = path();
  int dir = dir_fd(), flags = open_flags();
  mode_t mode = file_mode();
  say("openat(%d,", dir);
  say_path(p);
  say(",%#o,%#o)", flags, mode);
  keep(done(openat(dir, p, flags, mode)));
}

static void op_opendir(void) {
  const char *p = dir_path();
  int dir = dir_fd(), flags = O_DIRECTORY | (chance(25) ? O_PATH : O_RDONLY);
  if (chance(30))
    p = ".";
  say("opendir(%d,", dir);
  say_path(p);
  say(",%#o)", flags);
  keep(done(openat(dir, p, flags)));
}

static void op_openat2(void) {
  static const unsigned long resolve[] = {RESOLVE_BENEATH,
                                          RESOLVE_IN_ROOT,
                                          RESOLVE_NO_SYMLINKS,
                                          RESOLVE_NO_XDEV,
                                          0,
                                          RESOLVE_NO_MAGICLINKS,
                                          0x1000,
                                          RESOLVE_BENEATH | RESOLVE_IN_ROOT};
  const char *p = path();
  int dir = dir_fd();
  struct open_how how = {.flags = (unsigned)open_flags(), .resolve = PICK(resolve)};
  mode_t mode = file_mode();
  if (strstr(p, "..")) /* a directory, and out of bounds: which is told first? */
    how.flags &= ~(unsigned long)(O_CREAT | O_EXCL);
  if (how.flags & O_CREAT || chance(5))
    how.mode = mode;
  say("openat2(%d,", dir);
  say_path(p);
  say(",%#llo,%#llo,%#llx)", how.flags, how.mode, how.resolve);
  keep(done(syscall(SYS_openat2, dir, p, &how, sizeof how)));
}

static void op_creat(void) {
  const char *p = path();
  mode_t mode = file_mode();
  struct stat st;
  say("creat(");
  say_path(p);
  say(",%#o)", mode);
  if (stat(p, &st) == 0 && S_ISFIFO(st.st_mode)) { /* would block */
    say(" fifo");
    return;
  }
  keep(done(creat(p, mode)));
}

static void op_tmpfile(void) {
  const char *p = dir_path();
  int flags = O_TMPFILE | (chance(85) ? O_RDWR : O_RDONLY) | (chance(20) ? O_EXCL : 0);
  mode_t mode = file_mode();
  if (chance(60))
    p = ".";
  say("tmpfile(");
  say_path(p);
  say(",%#o,%#o)", flags, mode);
  keep(done(open(p, flags, mode)));
}

static void op_close(void) {
  int fd = any_fd();
  say("close(%d)", fd);
  done(close(fd));
  forget(fd);
}

static void op_link(void) {
  static const int flags[] = {0, 0, 0, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, AT_EMPTY_PATH, 0x800};
  const char *from = path(), *to = path();
  int f = PICK(flags), a = dir_fd(), b = dir_fd();
  if (fd_type(b) != S_IFDIR)
    b = AT_FDCWD;
  if (!*to)
    to = "a";
  if (f == AT_EMPTY_PATH && geteuid() != 0)
    f = 0; /* who else may is a matter of the kernel's version */
  if (f == AT_EMPTY_PATH && chance(80)) {
    from = "";
    a = file_fd();
  }
  say("linkat(%d,", a);
  say_path(from);
  say(",%d,", b);
  say_path(to);
  say(",%#x)", f);
  done(linkat(a, from, b, to, f));
}

static void op_symlink(void) {
  static const char *const targets[] = {"a",  "b",  "c", "../a", "/d", "./e",   "b/c",
                                        "d/", "..", "/", "none", "",   "a/../f"};
  static char long_target[4097];
  const char *to = chance(2) ? long_target : PICK(targets), *p = path();
  int dir = dir_fd();
  if (!long_target[0])
    memset(long_target, 'L', 4095 + 1 * (long_target[1] != 0));
  say("symlinkat(");
  say_path(to);
  say(",%d,", dir);
  say_path(p);
  say(")");
  done(symlinkat(to, dir, p));
}

static void op_unlink(void) {
  const char *p = path();
  int dir = dir_fd(), flags = chance(10) ? AT_REMOVEDIR : chance(2) ? 1 : 0;
  say("unlinkat(%d,", dir);
  say_path(p);
  say(",%#x)", flags);
  done(unlinkat(dir, p, flags));
}

static void op_rename(void) {
  static const unsigned flags[] = {0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 6, 8};
  const char *from = path(), *to = path();
  int a = dir_fd(), b = chance(60) ? a : dir_fd();
  if (fd_type(b) != S_IFDIR) /* one thing wrong at a time: who looks first differs */
    b = AT_FDCWD;
  if (!*to)
    to = "a";
  unsigned f = PICK(flags);
  say("renameat2(%d,", a);
  say_path(from);
  say(",%d,", b);
  say_path(to);
  say(",%u)", f);
  done(syscall(SYS_renameat2, a, from, b, to, f));
}

static void op_mkdir(void) {
  static const mode_t modes[] = {0755, 0777, 0777, 0777, 0700, 01777, 02777, 0555};
  const char *p = dir_path();
  int dir = dir_fd();
  mode_t mode = PICK(modes);
  say("mkdirat(%d,", dir);
  say_path(p);
  say(",%#o)", mode);
  done(mkdirat(dir, p, mode));
}

static void op_rmdir(void) {
  const char *p = dir_path();
  int dir = dir_fd();
  say("rmdir(%d,", dir);
  say_path(p);
  say(")");
  done(unlinkat(dir, p, AT_REMOVEDIR));
}

static void op_mknod(void) {
  static const mode_t types[] = {S_IFIFO, S_IFIFO, S_IFSOCK, S_IFREG, 0, S_IFDIR, S_IFLNK};
  const char *p = path();
  int dir = dir_fd();
  mode_t mode = PICK(types) | file_mode();
  say("mknodat(%d,", dir);
  say_path(p);
  say(",%#o)", mode);
  done(mknodat(dir, p, mode, 0));
}

static void op_bind(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  const char *p = path();
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  say("bind(");
  say_path(p);
  say(")");
  if (!*p || strlen(p) >= sizeof a.sun_path)
    p = "a";
  strcpy(a.sun_path, p);
  done(bind(s, (struct sockaddr *)&a, sizeof a));
  close(s);
}

typedef struct {
  char name[20];
  unsigned char type;
} Seen;

static int by_name(const void *a, const void *b) {
  return strcmp(((const Seen *)a)->name, ((const Seen *)b)->name);
}

/* All entries from the start, sorted, since their order is the filesystem's own affair. */
static void op_getdents(void) {
  static const unsigned sizes[] = {32768, 32768, 4096, 600, 10};
  int fd = dir_fd();
  unsigned size = PICK(sizes);
  Seen seen[64];
  size_t n = 0;
  long r = 0;

  if (fd == AT_FDCWD)
    fd = file_fd();
  say("getdents(%d,%u)", fd, size);
  if (fd_type(fd) == S_IFDIR && lseek(fd, 0, SEEK_SET) < 0)
    say(" lseek=%s", error_name(errno));
  while ((r = syscall(SYS_getdents64, fd, me->buf, size)) > 0)
    for (long at = 0; at < r && n < 64;) {
      struct dirent64 *d = (void *)(me->buf + at);
      snprintf(seen[n].name, sizeof seen[n].name, "%.16s", d->d_name);
      seen[n++].type = d->d_type;
      at += d->d_reclen;
    }
  done(r);
  qsort(seen, n, sizeof *seen, by_name);
  for (size_t i = 0; i < n; i++)
    say(" %s/%u", seen[i].name, seen[i].type);
}

static void op_readlink(void) {
  const char *p = path();
  int dir = dir_fd();
  size_t n = chance(80) ? 4096 : below(4);
  say("readlinkat(%d,", dir);
  say_path(p);
  say(",%zu)", n);
  long r = done(readlinkat(dir, p, me->buf, n));
  if (r > 0)
    say_bytes(me->buf, (size_t)r);
}

static void op_chdir(void) {
  const char *p = dir_path();
  int fd = dir_fd();
  bool by_fd = chance(40);
  if (chance(45))
    p = "/";
  if (by_fd && fd != AT_FDCWD) {
    say("fchdir(%d)", fd);
    done(fchdir(fd));
  } else {
    say("chdir(");
    say_path(p);
    say(")");
    done(chdir(p));
  }
}

static void op_getcwd(void) {
  say("getcwd()");
  long r = done(syscall(SYS_getcwd, me->buf, chance(90) ? 4096 : below(8)));
  if (r > 0) {
    say(" ");
    say_path(me->buf);
  }
}

/* Everything below a directory, as far as this actor may: otherwise all names would soon be taken. */
static unsigned sweep(int dir, unsigned depth) {
  struct dirent64 *d;
  unsigned count = 0;
  long n, at;
  int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY);
  char entries[2048];

  while (depth < 6 && (n = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0)
    for (at = 0; at < n; at += d->d_reclen) {
      d = (void *)(entries + at);
      if (d->d_name[0] == '.')
        continue;
      int sub = openat(fd, d->d_name, O_PATH | O_NOFOLLOW | O_DIRECTORY);
      if (sub >= 0) {
        count += sweep(sub, depth + 1);
        close(sub);
      }
      count += unlinkat(fd, d->d_name, sub >= 0 ? AT_REMOVEDIR : 0) == 0;
    }
  if (fd >= 0)
    close(fd);
  return count;
}

static void op_sweep(void) {
  const char *p = dir_path();
  int fd = open(p, O_PATH | O_DIRECTORY | O_NOFOLLOW);
  say("sweep(");
  say_path(p);
  say(")");
  if (done(fd) >= 0) {
    say(" %u", sweep(fd, 0));
    close(fd);
  }
}

/* Lets everybody in again. */
static void op_calm(void) {
  static const char *const dirs[] = {"/", "/e", "/f", "/g", "/e/f", "/g/e"};
  const char *p = PICK(dirs);
  say("calm(");
  say_path(p);
  say(")");
  done(chmod(p, 0777));
}

const Op name_ops[] = {
    {"open", op_open, 80},         {"opendir", op_opendir, 25}, {"openat2", op_openat2, 12},
    {"creat", op_creat, 8},        {"tmpfile", op_tmpfile, 8},  {"close", op_close, 15},
    {"link", op_link, 20},         {"symlink", op_symlink, 14}, {"unlink", op_unlink, 24},
    {"rename", op_rename, 30},     {"mkdir", op_mkdir, 32},     {"rmdir", op_rmdir, 10},
    {"mknod", op_mknod, 8},        {"bind", op_bind, 3},        {"getdents", op_getdents, 18},
    {"readlink", op_readlink, 10}, {"chdir", op_chdir, 12},     {"getcwd", op_getcwd, 6},
    {"sweep", op_sweep, 8},        {"calm", op_calm, 20},       {NULL, NULL, 0}};
