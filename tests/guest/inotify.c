/* SPDX-License-Identifier: Apache-2.0 */
/* inotify(7): which events come, in which order, with which names; the queue; the limits; watches and the end of what they watch. */
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static const struct {
  uint32_t bit;
  const char *name;
} bits[] = {{IN_ACCESS, "ACCESS"},
            {IN_MODIFY, "MODIFY"},
            {IN_ATTRIB, "ATTRIB"},
            {IN_CLOSE_WRITE, "CLOSE_WRITE"},
            {IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"},
            {IN_OPEN, "OPEN"},
            {IN_MOVED_FROM, "FROM"},
            {IN_MOVED_TO, "TO"},
            {IN_CREATE, "CREATE"},
            {IN_DELETE, "DELETE"},
            {IN_DELETE_SELF, "DELETE_SELF"},
            {IN_MOVE_SELF, "MOVE_SELF"},
            {IN_UNMOUNT, "UNMOUNT"},
            {IN_Q_OVERFLOW, "OVERFLOW"},
            {IN_IGNORED, "IGNORED"},
            {IN_ISDIR, "ISDIR"}};

static uint32_t last_cookie;

static char *put_event(char *p, char *end, const struct inotify_event *e, uint32_t *cookie) {
  p += snprintf(p, end - p, "%s%d:", e->wd < 10 && p[-1] ? " " : "", e->wd);
  bool first = true;
  for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
    if (e->mask & bits[i].bit) {
      p += snprintf(p, end - p, "%s%s", first ? "" : "|", bits[i].name);
      first = false;
    }
  if (e->len)
    p += snprintf(p, end - p, "(%s)", e->name);
  if (e->mask & IN_MOVED_FROM) {
    CHECK(e->cookie != 0 && e->cookie != *cookie);
    *cookie = e->cookie;
  } else if (e->mask & IN_MOVED_TO) {
    CHECK_EQ(e->cookie, *cookie);
  } else {
    CHECK_EQ(e->cookie, 0);
  }
  return p;
}

/* All events in the queue as text: "WD:EVENT|EVENT(NAME) ...". */
static const char *events(int fd) {
  static char text[1 << 16];
  static char buf[1 << 16] __attribute__((aligned(8)));
  char *p = text + 1;
  int left = 0;
  text[0] = text[1] = '\0';
  SYS(ioctl(fd, FIONREAD, &left));
  while (left > 0) {
    ssize_t n = read(fd, buf, sizeof buf);
    if (n <= 0) {
      CHECK_EQ(n, left);
      break;
    }
    left -= (int)n;
    for (char *at = buf; at < buf + n;) {
      struct inotify_event *e = (struct inotify_event *)at;
      CHECK_EQ(e->len % sizeof *e, 0);
      p = put_event(p, text + sizeof text, e, &last_cookie);
      at += sizeof *e + e->len;
    }
  }
  return text[1] == ' ' ? text + 2 : text + 1;
}

/* What comes until it is all there, for ends that another thread brings about. */
static const char *events_until(int fd, size_t len) {
  static char all[256];
  all[0] = '\0';
  for (int i = 0; i < 2000 && strlen(all) < len; i++) {
    const char *e = events(fd);
    if (*e)
      snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", *all ? " " : "", e);
    else
      sleep_ms(1);
  }
  return all;
}
#define CHECK_COMES(fd, text) CHECK_STR(events_until(fd, strlen(text)), text)

static int start(void) { return (int)SYS(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)); }

TEST(init_flags) {
  int fd = (int)SYS(inotify_init());
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
  close(fd);
  fd = start();
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  char c[64], link[64], target[64] = "";
  CHECK_ERRNO(read(fd, c, sizeof c), EAGAIN);
  CHECK_ERRNO(write(fd, c, 1), EBADF);
  CHECK_ERRNO(pread(fd, c, sizeof c, 0), ESPIPE);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  CHECK(readlink(link, target, sizeof target - 1) > 0);
  CHECK_STR(target, "anon_inode:inotify");
  close(fd);
  CHECK_ERRNO(inotify_init1(1), EINVAL);
}

TEST(add_arguments) {
  int fd = start(), p[2];
  close(tmp_file("f", "x"));
  CHECK_ERRNO(inotify_add_watch(-1, tmp_path("f"), IN_OPEN), EBADF);
  SYS(pipe(p));
  CHECK_ERRNO(inotify_add_watch(p[0], tmp_path("f"), IN_OPEN), EINVAL);
  CHECK_ERRNO(inotify_rm_watch(p[0], 1), EINVAL);
  CHECK_ERRNO(inotify_rm_watch(-1, 1), EBADF);
  CHECK_ERRNO(inotify_rm_watch(fd, 1), EINVAL);
  CHECK_ERRNO(inotify_rm_watch(fd, -1), EINVAL);
  CHECK_ERRNO(inotify_add_watch(fd, tmp_path("f"), 0), EINVAL);
  CHECK_ERRNO(inotify_add_watch(fd, tmp_path("f"), IN_OPEN | 0x00100000), EINVAL);
  CHECK_ERRNO(inotify_add_watch(fd, tmp_path("f"), IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE), EINVAL);
  CHECK_ERRNO(inotify_add_watch(fd, tmp_path("none"), IN_OPEN), ENOENT);
  CHECK_ERRNO(inotify_add_watch(fd, "", IN_OPEN), ENOENT);
  CHECK_ERRNO(inotify_add_watch(fd, (char *)1, IN_OPEN), EFAULT);
  CHECK_ERRNO(inotify_add_watch(fd, tmp_path("f"), IN_OPEN | IN_ONLYDIR), ENOTDIR);
  CHECK_EQ(inotify_add_watch(fd, tmp_dir(), IN_OPEN | IN_ONLYDIR), 1);
  SYS(symlink("f", tmp_path("l")));
  SYS(symlink("nowhere", tmp_path("d")));
  CHECK_ERRNO(inotify_add_watch(fd, tmp_path("d"), IN_OPEN), ENOENT);
  CHECK_EQ(inotify_add_watch(fd, tmp_path("l"), IN_OPEN), 2);
  CHECK_EQ(inotify_add_watch(fd, tmp_path("f"), IN_OPEN), 2); /* one inode, one watch */
  CHECK_EQ(inotify_add_watch(fd, tmp_path("l"), IN_OPEN | IN_DONT_FOLLOW), 3);
  CHECK_ERRNO(inotify_add_watch(fd, tmp_path("f"), IN_OPEN | IN_MASK_CREATE), EEXIST);
  CHECK_EQ(inotify_rm_watch(fd, 2), 0);
  CHECK_ERRNO(inotify_rm_watch(fd, 2), EINVAL);
  CHECK_EQ(inotify_add_watch(fd, tmp_path("f"), IN_OPEN | IN_MASK_CREATE),
           4); /* numbers are not used again */
  close(fd);
}

TEST(read_permission_is_needed) {
  if (geteuid() != 0)
    SKIP("needs root");
  SYS(chmod(tmp_dir(), 0755));
  close(tmp_file("f", "x"));
  SYS(chmod(tmp_path("f"), 0222));
  WAIT_OK(CHILD({
    char *f = tmp_path("f");
    SYS(setgid(65534));
    SYS(setuid(65534));
    int fd = start();
    CHECK_ERRNO(inotify_add_watch(fd, f, IN_OPEN), EACCES);
  }));
}

TEST(file_events) {
  int fd = start(), f = tmp_file("f", "hello");
  char b[8];
  close(f);
  CHECK_EQ(inotify_add_watch(fd, tmp_path("f"), IN_ALL_EVENTS), 1);
  f = (int)SYS(open(tmp_path("f"), O_RDWR));
  CHECK_STR(events(fd), "1:OPEN");
  SYS(read(f, b, 3));
  CHECK_STR(events(fd), "1:ACCESS");
  SYS(read(f, b, 8));
  CHECK_EQ(read(f, b, 8), 0);
  CHECK_STR(events(fd), "1:ACCESS");
  CHECK_EQ(read(f, b, 8), 0); /* the end of the file is no access */
  CHECK_STR(events(fd), "");
  SYS(pread(f, b, 1, 0));
  CHECK_STR(events(fd), "1:ACCESS");
  SYS(write(f, "x", 1));
  SYS(pwrite(f, "x", 1, 0));
  CHECK_STR(events(fd), "1:MODIFY");
  CHECK_EQ(write(f, "x", 0), 0);
  CHECK_STR(events(fd), "");
  SYS(ftruncate(f, 2));
  CHECK_STR(events(fd), "1:MODIFY");
  SYS(truncate(tmp_path("f"), 1));
  CHECK_STR(events(fd), "1:MODIFY");
  SYS(fchmod(f, 0600));
  SYS(chmod(tmp_path("f"), 0644));
  CHECK_STR(events(fd), "1:ATTRIB");
  SYS(fchown(f, getuid(), -1));
  CHECK_STR(events(fd), "1:ATTRIB");
  SYS(futimens(f, NULL));
  CHECK_STR(events(fd), "1:ATTRIB");
  struct timespec ts[2] = {{5, 0}, {0, UTIME_OMIT}};
  SYS(futimens(f, ts));
  CHECK_STR(events(fd), "1:ACCESS");
  ts[0].tv_nsec = UTIME_OMIT;
  ts[1].tv_nsec = 0;
  SYS(futimens(f, ts));
  CHECK_STR(events(fd), "1:MODIFY");
  int g = (int)SYS(open(tmp_path("f"), O_RDONLY));
  close(g);
  CHECK_STR(events(fd), "1:OPEN 1:CLOSE_NOWRITE");
  g = dup(f);
  close(f);
  CHECK_STR(events(fd), "");
  close(g);
  CHECK_STR(events(fd), "1:CLOSE_WRITE");
  g = (int)SYS(open(tmp_path("f"), O_WRONLY | O_TRUNC));
  CHECK_STR(events(fd), "1:OPEN 1:MODIFY");
  close(g);
  CHECK_STR(events(fd), "1:CLOSE_WRITE");
  close((int)SYS(open(tmp_path("f"), O_PATH)));
  struct stat st;
  SYS(stat(tmp_path("f"), &st));
  SYS(access(tmp_path("f"), R_OK));
  CHECK_STR(events(fd), "");
  close(fd);
}

TEST(copying_events) {
  int fd = start(), a = tmp_file("a", "0123456789"), b = tmp_file("b", ""), p[2];
  SYS(pipe(p));
  SYS(inotify_add_watch(fd, tmp_path("a"), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("b"), IN_ALL_EVENTS));
  CHECK_EQ(sendfile(b, a, NULL, 4), 4);
  CHECK_STR(events(fd), "1:ACCESS 2:MODIFY");
  loff_t at = 0;
  CHECK_EQ(copy_file_range(a, &at, b, NULL, 4, 0), 4);
  CHECK_STR(events(fd), "1:ACCESS 2:MODIFY");
  CHECK_EQ(splice(a, NULL, p[1], NULL, 3, 0), 3);
  CHECK_STR(events(fd), "1:ACCESS");
  CHECK_EQ(splice(p[0], NULL, b, NULL, 3, 0), 3);
  CHECK_STR(events(fd), "2:MODIFY");
  if (fallocate(b, 0, 0, 100) == 0)
    CHECK_STR(events(fd), "2:MODIFY");
  void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, b, 0);
  REQUIRE(m != MAP_FAILED);
  *(volatile char *)m = 1;
  SYS(msync(m, 4096, MS_SYNC));
  CHECK_STR(events(fd), ""); /* inotify(7): not mmap, msync, munmap */
  close(b);
  CHECK_STR(events(fd), ""); /* the mapping keeps it open */
  SYS(munmap(m, 4096));
  CHECK_COMES(fd, "2:CLOSE_WRITE");
  close(fd);
}

TEST(xattr_events) {
  int fd = start();
  close(tmp_file("f", ""));
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("f"), IN_ALL_EVENTS));
  if (setxattr(tmp_path("f"), "user.x", "y", 1, 0) < 0)
    SKIP("no user attributes here");
  CHECK_STR(events(fd), "1:ATTRIB(f) 2:ATTRIB");
  SYS(removexattr(tmp_path("f"), "user.x"));
  CHECK_STR(events(fd), "1:ATTRIB(f) 2:ATTRIB");
  close(fd);
}

TEST(directory_events) {
  int fd = start();
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS));
  int f = (int)SYS(open(tmp_path("f"), O_CREAT | O_RDWR, 0644));
  CHECK_STR(events(fd), "1:CREATE(f) 1:OPEN(f)");
  SYS(write(f, "x", 1));
  close(f);
  CHECK_STR(events(fd), "1:MODIFY(f) 1:CLOSE_WRITE(f)");
  SYS(mkdir(tmp_path("d"), 0755));
  CHECK_STR(events(fd), "1:CREATE|ISDIR(d)");
  SYS(mkfifo(tmp_path("p"), 0644));
  SYS(symlink("f", tmp_path("s")));
  CHECK_STR(events(fd), "1:CREATE(p) 1:CREATE(s)");
  SYS(link(tmp_path("f"), tmp_path("g")));
  CHECK_STR(events(fd), "1:CREATE(g)");
  SYS(chmod(tmp_path("d"), 0700));
  CHECK_STR(events(fd), "1:ATTRIB|ISDIR(d)");
  f = (int)SYS(open(tmp_path("d"), O_RDONLY | O_DIRECTORY));
  char b[4096];
  SYS(syscall(SYS_getdents64, f, b, sizeof b));
  close(f);
  CHECK_STR(events(fd), "1:OPEN|ISDIR(d) 1:ACCESS|ISDIR(d) 1:CLOSE_NOWRITE|ISDIR(d)");
  f = (int)SYS(open(tmp_dir(), O_RDONLY | O_DIRECTORY));
  close(f);
  CHECK_STR(events(fd), "1:OPEN|ISDIR 1:CLOSE_NOWRITE|ISDIR");
  SYS(unlink(tmp_path("s")));
  CHECK_STR(events(fd), "1:DELETE(s)");
  SYS(unlink(tmp_path("g")));
  CHECK_STR(events(fd), "1:DELETE(g)");
  SYS(rmdir(tmp_path("d")));
  CHECK_STR(events(fd), "1:DELETE|ISDIR(d)");
  SYS(chmod(tmp_dir(), 0711));
  CHECK_STR(events(fd), "1:ATTRIB|ISDIR");
  CHECK_ERRNO(mkdir(tmp_path("f"), 0755), EEXIST);
  CHECK_ERRNO(unlink(tmp_path("none")), ENOENT);
  CHECK_STR(events(fd), "");
  close(fd);
}

TEST(self_and_directory) {
  int fd = start();
  close(tmp_file("f", "x"));
  SYS(mkdir(tmp_path("d"), 0755));
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("f"), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("d"), IN_ALL_EVENTS));
  close((int)SYS(open(tmp_path("f"), O_RDONLY)));
  CHECK_STR(events(fd), "1:OPEN(f) 2:OPEN 1:CLOSE_NOWRITE(f) 2:CLOSE_NOWRITE");
  SYS(link(tmp_path("f"), tmp_path("g")));
  CHECK_STR(events(fd), "2:ATTRIB 1:CREATE(g)");
  close((int)SYS(open(tmp_path("g"), O_RDONLY)));
  CHECK_STR(events(fd), "1:OPEN(g) 2:OPEN 1:CLOSE_NOWRITE(g) 2:CLOSE_NOWRITE");
  SYS(unlink(tmp_path("g")));
  CHECK_STR(events(fd), "2:ATTRIB 1:DELETE(g)");
  SYS(unlink(tmp_path("f")));
  CHECK_STR(events(fd), "2:ATTRIB 2:DELETE_SELF 2:IGNORED 1:DELETE(f)");
  CHECK_ERRNO(inotify_rm_watch(fd, 2), EINVAL);
  SYS(rmdir(tmp_path("d")));
  CHECK_STR(events(fd), "3:DELETE_SELF 3:IGNORED 1:DELETE|ISDIR(d)");
  close(fd);
}

TEST(deleted_while_open) {
  int fd = start(), f = tmp_file("f", "x");
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("f"), IN_ALL_EVENTS));
  SYS(unlink(tmp_path("f")));
  CHECK_STR(events(fd), "2:ATTRIB 1:DELETE(f)");
  SYS(write(f, "y", 1));
  CHECK_STR(events(fd), "1:MODIFY(f) 2:MODIFY");
  close(f);
  CHECK_STR(events(fd), "1:CLOSE_WRITE(f) 2:CLOSE_WRITE 2:DELETE_SELF 2:IGNORED");
  close(fd);
}

TEST(excl_unlink) {
  int fd = start(), f = tmp_file("f", "x"), g = tmp_file("g", "x");
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS | IN_EXCL_UNLINK));
  SYS(write(f, "y", 1));
  CHECK_STR(events(fd), "1:MODIFY(f)");
  SYS(unlink(tmp_path("f")));
  CHECK_STR(events(fd), "1:DELETE(f)");
  SYS(write(f, "y", 1));
  close(f);
  CHECK_STR(events(fd), "");
  SYS(write(g, "y", 1));
  CHECK_STR(events(fd), "1:MODIFY(g)");
  close(g);
  close(fd);
}

TEST(nameless_files) {
  int fd = start();
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS));
  int f = open(tmp_dir(), O_TMPFILE | O_RDWR, 0644);
  if (f < 0)
    SKIP("no O_TMPFILE here");
  char link[64], want[256], name[64];
  struct stat st;
  SYS(fstat(f, &st));
  snprintf(name, sizeof name, "#%lu", (unsigned long)st.st_ino);
  SYS(write(f, "x", 1));
  snprintf(want, sizeof want, "1:OPEN(%s) 1:MODIFY(%s)", name, name);
  CHECK_STR(events(fd), want);
  snprintf(link, sizeof link, "/proc/self/fd/%d", f);
  SYS(linkat(AT_FDCWD, link, AT_FDCWD, tmp_path("named"), AT_SYMLINK_FOLLOW));
  CHECK_STR(events(fd), "1:CREATE(named)");
  close(f);
  events(fd);
  close((int)SYS(open(tmp_path("named"), O_RDONLY)));
  CHECK_STR(events(fd), "1:OPEN(named) 1:CLOSE_NOWRITE(named)");
  close(fd);
}

TEST(special_files) {
  int fd = start();
  char c;
  SYS(mkfifo(tmp_path("p"), 0644));
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS));
  int p = (int)SYS(open(tmp_path("p"), O_RDWR | O_NONBLOCK));
  CHECK_STR(events(fd), "1:OPEN(p)");
  SYS(write(p, "x", 1));
  SYS(read(p, &c, 1));
  events(fd); /* told or not: that changed with Linux 6.11 */
  SYS(inotify_add_watch(fd, tmp_path("p"), IN_ACCESS | IN_MODIFY));
  SYS(write(p, "x", 1));
  SYS(read(p, &c, 1));
  CHECK(strstr(events(fd), "2:MODIFY"));
  close(p);
  int s = (int)SYS(socket(AF_UNIX, SOCK_STREAM, 0));
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  SYS(chdir(tmp_dir()));
  strcpy(a.sun_path, "s");
  events(fd);
  SYS(bind(s, (struct sockaddr *)&a, sizeof a));
  CHECK_STR(events(fd), "1:CREATE(s)");
  close(s);
  CHECK_STR(events(fd), "");
  close(fd);
}

TEST(renames) {
  int fd = start();
  close(tmp_file("a", "x"));
  SYS(mkdir(tmp_path("d"), 0755));
  SYS(mkdir(tmp_path("e"), 0755));
  SYS(inotify_add_watch(fd, tmp_dir(), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("d"), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("a"), IN_ALL_EVENTS));
  SYS(inotify_add_watch(fd, tmp_path("e"), IN_ALL_EVENTS));
  SYS(rename(tmp_path("a"), tmp_path("b")));
  CHECK_STR(events(fd), "1:FROM(a) 1:TO(b) 3:MOVE_SELF");
  SYS(rename(tmp_path("b"), tmp_path("d/c")));
  CHECK_STR(events(fd), "1:FROM(b) 2:TO(c) 3:MOVE_SELF");
  SYS(rename(tmp_path("e"), tmp_path("d/e")));
  CHECK_STR(events(fd), "1:FROM|ISDIR(e) 2:TO|ISDIR(e) 4:MOVE_SELF");
  close(tmp_file("n", "y"));
  CHECK_STR(events(fd), "1:CREATE(n) 1:OPEN(n) 1:MODIFY(n) 1:CLOSE_WRITE(n)");
  SYS(rename(tmp_path("n"), tmp_path("d/c"))); /* what was c ends */
  CHECK_STR(events(fd), "1:FROM(n) 2:TO(c) 3:ATTRIB 3:DELETE_SELF 3:IGNORED");
  SYS(rename(tmp_path("d/c"), tmp_path("d/c")));
  CHECK_STR(events(fd), "");
  close(tmp_file("x", ""));
  close(tmp_file("y", ""));
  events(fd);
  SYS(inotify_add_watch(fd, tmp_path("x"), IN_MOVE_SELF));
  SYS(inotify_add_watch(fd, tmp_path("y"), IN_MOVE_SELF));
  if (renameat2(AT_FDCWD, tmp_path("x"), AT_FDCWD, tmp_path("y"), RENAME_EXCHANGE) == 0)
    CHECK_STR(events(fd), "1:FROM(x) 1:TO(y) 5:MOVE_SELF 1:FROM(y) 1:TO(x) 6:MOVE_SELF");
  SYS(mkdir(tmp_path("o"), 0755));
  SYS(mkdir(tmp_path("q"), 0755));
  events(fd);
  SYS(inotify_add_watch(fd, tmp_path("q"), IN_ALL_EVENTS));
  SYS(rename(tmp_path("o"), tmp_path("q")));
  CHECK_STR(events(fd), "1:FROM|ISDIR(o) 1:TO|ISDIR(q) 7:ATTRIB|ISDIR 7:DELETE_SELF 7:IGNORED");
  close(fd);
}

TEST(only_what_was_asked_for) {
  int fd = start();
  SYS(inotify_add_watch(fd, tmp_dir(), IN_DELETE | IN_CLOSE_WRITE));
  close(tmp_file("f", "x"));
  SYS(unlink(tmp_path("f")));
  CHECK_STR(events(fd), "1:CLOSE_WRITE(f) 1:DELETE(f)");
  CHECK_EQ(inotify_add_watch(fd, tmp_dir(), IN_CREATE), 1); /* replaces */
  close(tmp_file("f", "x"));
  CHECK_STR(events(fd), "1:CREATE(f)");
  CHECK_EQ(inotify_add_watch(fd, tmp_dir(), IN_DELETE | IN_MASK_ADD), 1);
  SYS(unlink(tmp_path("f")));
  close(tmp_file("f", "x"));
  CHECK_STR(events(fd), "1:DELETE(f) 1:CREATE(f)");
  close(fd);
}

TEST(oneshot) {
  int fd = start();
  close(tmp_file("f", "x"));
  SYS(inotify_add_watch(fd, tmp_path("f"), IN_OPEN | IN_ONESHOT));
  close((int)SYS(open(tmp_path("f"), O_RDONLY)));
  close((int)SYS(open(tmp_path("f"), O_RDONLY)));
  CHECK_STR(events(fd), "1:OPEN 1:IGNORED");
  CHECK_ERRNO(inotify_rm_watch(fd, 1), EINVAL);
  CHECK_EQ(inotify_add_watch(fd, tmp_path("f"), IN_OPEN), 2);
  close(fd);
}

TEST(remove_watch) {
  int fd = start();
  SYS(inotify_add_watch(fd, tmp_dir(), IN_CREATE));
  close(tmp_file("f", ""));
  SYS(inotify_rm_watch(fd, 1));
  close(tmp_file("g", ""));
  CHECK_STR(events(fd), "1:CREATE(f) 1:IGNORED"); /* what was queued stays */
  close(fd);
}

TEST(watch_keeps_the_file_not_the_name) {
  int fd = start();
  close(tmp_file("f", "x"));
  SYS(mkdir(tmp_path("d"), 0755));
  SYS(inotify_add_watch(fd, tmp_path("f"), IN_OPEN));
  SYS(link(tmp_path("f"), tmp_path("d/other")));
  SYS(unlink(tmp_path("f")));
  close(tmp_file("f", "new"));
  CHECK_STR(events(fd), "");
  close((int)SYS(open(tmp_path("d/other"), O_RDONLY)));
  CHECK_STR(events(fd), "1:OPEN");
  close(fd);
}

TEST(through_descriptors) {
  int fd = start(), f = tmp_file("f", "x");
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", f);
  SYS(inotify_add_watch(fd, link, IN_ALL_EVENTS));
  SYS(write(f, "y", 1));
  CHECK_STR(events(fd), "1:MODIFY");
  SYS(chdir(tmp_dir()));
  close((int)SYS(open("./f", O_RDONLY)));
  CHECK_STR(events(fd), "1:OPEN 1:CLOSE_NOWRITE");
  close(f);
  close(fd);
}

TEST(buffers) {
  int fd = start(), left = -1;
  SYS(inotify_add_watch(fd, tmp_dir(), IN_CREATE));
  close(tmp_file("f", ""));
  close(tmp_file("a-name-of-20-letters", ""));
  close(tmp_file("fifteen-letters", ""));
  close(tmp_file("sixteen-letters-", ""));
  char b[256] __attribute__((aligned(8)));
  struct inotify_event *e = (struct inotify_event *)b;
  SYS(ioctl(fd, FIONREAD, &left));
  CHECK_EQ(left, 4 * 16 + 16 + 32 + 16 + 32);
  CHECK_ERRNO(read(fd, b, 0), EINVAL);
  CHECK_ERRNO(read(fd, b, 16), EINVAL);
  CHECK_ERRNO(read(fd, b, 31), EINVAL);
  CHECK_EQ(read(fd, b, 32 + 47), 32);
  CHECK_EQ(e->len, 16);
  CHECK_EQ(e->wd, 1);
  CHECK_EQ(e->mask, IN_CREATE);
  for (int i = 1; i < 16; i++)
    CHECK_EQ(e->name[i], 0);
  CHECK_EQ(read(fd, b, sizeof b), 48 + 32 + 48);
  CHECK_EQ(e->len, 32);
  CHECK_STR(e->name, "a-name-of-20-letters");
  CHECK_EQ(((struct inotify_event *)(b + 48))->len, 16);
  CHECK_EQ(((struct inotify_event *)(b + 80))->len, 32);
  CHECK_ERRNO(read(fd, b, 8), EAGAIN); /* nothing is there */
  close(tmp_file("h", ""));
  CHECK_ERRNO(read(fd, (void *)1, 64), EFAULT);
  close(fd);
}

TEST(waiting) {
  int fd = (int)SYS(inotify_init());
  SYS(inotify_add_watch(fd, tmp_dir(), IN_CREATE));
  struct pollfd p = {.fd = fd, .events = POLLIN};
  CHECK_EQ(poll(&p, 1, 0), 0);
  int ep = (int)SYS(epoll_create1(0));
  struct epoll_event ev = {.events = EPOLLIN | EPOLLET}, got;
  SYS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
  CHECK_EQ(epoll_wait(ep, &got, 1, 0), 0);
  char *f = tmp_path("late");
  pid_t pid = CHILD({
    sleep_ms(50);
    close((int)SYS(open(f, O_CREAT | O_WRONLY, 0644)));
  });
  char b[64] __attribute__((aligned(8)));
  CHECK_EQ(read(fd, b, sizeof b), 32); /* sleeps until it comes */
  WAIT_OK(pid);
  CHECK_EQ(poll(&p, 1, 0), 0);
  close(tmp_file("now", ""));
  CHECK_EQ(poll(&p, 1, 0), 1);
  CHECK_EQ(p.revents, POLLIN);
  CHECK_EQ(epoll_wait(ep, &got, 1, 1000), 1);
  close(ep);
  close(fd);
}

static long limit_of(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "/proc/sys/fs/inotify/%s", name);
  char *text = read_file(path, NULL);
  if (!CHECK(text != NULL))
    check_abort();
  long n = atol(text);
  free(text);
  CHECK(n > 0);
  return n;
}

TEST_LIMIT(overflow, 60) {
  long max = limit_of("max_queued_events");
  if (max > 100000)
    SKIP("the queue holds %ld events", max);
  int fd = start(), left = 0;
  int f = tmp_file("f", "x");
  SYS(inotify_add_watch(fd, tmp_path("f"), IN_MODIFY | IN_ACCESS));
  char c;
  for (long i = 0; i < max + 10; i += 2) { /* alternating, so that none is merged */
    SYS(pwrite(f, "x", 1, 0));
    SYS(pread(f, &c, 1, 0));
  }
  SYS(ioctl(fd, FIONREAD, &left));
  CHECK_EQ(left / 16, max + 1);
  static char buf[1 << 20] __attribute__((aligned(8)));
  struct inotify_event *e = NULL;
  long n = 0;
  for (ssize_t r; (r = read(fd, buf, sizeof buf)) > 0;) {
    n += r / 16;
    e = (struct inotify_event *)(buf + r - 16);
  }
  CHECK_EQ(n, max + 1);
  REQUIRE(e != NULL);
  CHECK_EQ(e->wd, -1);
  CHECK_EQ(e->mask, IN_Q_OVERFLOW);
  SYS(pwrite(f, "x", 1, 0)); /* and it goes on */
  CHECK_STR(events(fd), "1:MODIFY");
  close(fd);
}

TEST(instances_are_limited) {
  long max = limit_of("max_user_instances");
  limit_of("max_user_watches");
  if (max > 1000 || geteuid() != 0)
    SKIP("%ld instances", max);
  WAIT_OK(CHILD({
    SYS(setuid(54321)); /* whoever that is, he has none yet */
    long n = 0;
    int fd = -1;
    while (n <= max && (fd = inotify_init1(0)) >= 0)
      n++;
    CHECK_ERRNO(inotify_init1(0), EMFILE);
    CHECK_EQ(n, max);
    close(3);
    CHECK_OK(inotify_init1(0));
  }));
}

TEST(fdinfo) {
  int fd = start();
  char path[64], want[128];
  struct stat st;
  close(tmp_file("f", "x"));
  SYS(stat(tmp_path("f"), &st));
  SYS(inotify_add_watch(fd, tmp_path("f"), IN_OPEN | IN_CLOSE_WRITE));
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  char *text = read_file(path, NULL);
  REQUIRE(text != NULL);
  char *line = strstr(text, "inotify wd:");
  snprintf(want, sizeof want, "inotify wd:1 ino:%lx sdev:", (unsigned long)st.st_ino);
  CHECK(line && strncmp(line, want, strlen(want)) == 0);
  CHECK(line && strstr(line, " mask:28 ignored_mask:0"));
  free(text);
  close(fd);
}

TEST(bind_mounts_and_unmount) {
  if (!check_in_sandbox &&
      (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
    SKIP("needs a mount namespace of its own");
  int fd = start();
  SYS(mkdir(tmp_path("src"), 0755));
  SYS(mkdir(tmp_path("dst"), 0755));
  SYS(inotify_add_watch(fd, tmp_path("src"), IN_ALL_EVENTS));
  SYS(mount(tmp_path("src"), tmp_path("dst"), NULL, MS_BIND, NULL));
  close(tmp_file("dst/f", "x")); /* another way to the same directory */
  CHECK_STR(events(fd), "1:CREATE(f) 1:OPEN(f) 1:MODIFY(f) 1:CLOSE_WRITE(f)");
  SYS(umount(tmp_path("dst")));
  CHECK_STR(events(fd), "");
  SYS(mount("none", tmp_path("dst"), "tmpfs", 0, NULL));
  close(tmp_file("dst/g", "x"));
  SYS(inotify_add_watch(fd, tmp_path("dst"), IN_CREATE));
  SYS(inotify_add_watch(fd, tmp_path("dst/g"), IN_OPEN));
  SYS(umount(tmp_path("dst"))); /* watches keep no filesystem busy */
  const char *all = events_until(fd, strlen("2:UNMOUNT|ISDIR 2:IGNORED 3:UNMOUNT 3:IGNORED"));
  CHECK(strstr(all, "2:UNMOUNT|ISDIR 2:IGNORED")); /* of the two, any may be first */
  CHECK(strstr(all, "3:UNMOUNT 3:IGNORED"));
  CHECK_ERRNO(inotify_rm_watch(fd, 2), EINVAL);
  close(fd);
}

TEST(programs_are_opened) {
  int fd = start();
  size_t n;
  char *self = read_file("/proc/self/exe", &n);
  REQUIRE(self != NULL);
  write_file(tmp_path("prog"), self, n, 0755);
  free(self);
  SYS(inotify_add_watch(fd, tmp_path("prog"), IN_OPEN | IN_CLOSE));
  pid_t pid = CHILD({
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    execl(tmp_path("prog"), "prog", "--list", NULL);
  });
  check_wait(pid);
  CHECK_COMES(fd, "1:OPEN 1:CLOSE_NOWRITE");
  close(fd);
}

TEST(proc_files) {
  int fd = start();
  CHECK_EQ(inotify_add_watch(fd, "/proc/self/status", IN_ALL_EVENTS), 1);
  char b[64];
  int f = (int)SYS(open("/proc/self/status", O_RDONLY));
  SYS(read(f, b, sizeof b));
  close(f);
  CHECK_STR(events(fd), "1:OPEN 1:ACCESS 1:CLOSE_NOWRITE");
  close(fd);
}

/* ---- Storms: nothing is lost that was asked for, nothing hangs ---- */

static _Atomic bool stop;
static int storm_fd;

static void *storm_files(void *arg) {
  char a[64], b[64];
  unsigned me = (unsigned)(uintptr_t)arg;
  snprintf(a, sizeof a, "storm-%u", me % 4);
  snprintf(b, sizeof b, "moved-%u", me % 4);
  while (!stop) {
    int f = openat(AT_FDCWD, a, O_CREAT | O_RDWR, 0644);
    if (f >= 0) {
      write(f, "x", 1);
      fchmod(f, 0600);
    }
    rename(a, b);
    if (f >= 0)
      close(f);
    unlink(b);
    mkdir(a, 0755);
    rmdir(a);
  }
  return NULL;
}

static void *storm_watches(void *arg) {
  char a[64];
  unsigned me = (unsigned)(uintptr_t)arg;
  snprintf(a, sizeof a, "storm-%u", me % 4);
  while (!stop) {
    int w = inotify_add_watch(storm_fd, a, IN_ALL_EVENTS | (me & 1 ? IN_ONESHOT : 0));
    if (w > 0 && !(me & 2))
      inotify_rm_watch(storm_fd, w);
    int fd = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(fd, ".", IN_ALL_EVENTS);
    inotify_add_watch(fd, a, IN_ALL_EVENTS);
    close(fd);
  }
  return NULL;
}

static void *storm_read(void *arg) {
  static __thread char b[65536];
  while (!stop)
    if (read(storm_fd, b, sizeof b) < 0)
      sleep_ms(1);
  return NULL;
}

TEST_LIMIT(storm, 60) {
  pthread_t t[9];
  storm_fd = start();
  SYS(chdir(tmp_dir()));
  SYS(inotify_add_watch(storm_fd, ".", IN_ALL_EVENTS));
  for (unsigned i = 0; i < 9; i++)
    REQUIRE(pthread_create(&t[i], NULL,
                           i < 4   ? storm_files
                           : i < 8 ? storm_watches
                                   : storm_read,
                           (void *)(uintptr_t)i) == 0);
  sleep_ms(check_seconds ? (unsigned)check_seconds * 1000 : 2000);
  stop = true;
  for (unsigned i = 0; i < 9; i++)
    pthread_join(t[i], NULL);
  close(storm_fd);
  int fd = start(); /* it still works, and nobody is told twice */
  SYS(inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE));
  close(tmp_file("after", ""));
  SYS(unlink(tmp_path("after")));
  CHECK_STR(events(fd), "1:CREATE(after) 1:DELETE(after)");
  close(fd);
}

/* Each reader of one queue gets whole events, and every event once. */
TEST(order_of_events) {
  int fd = start();
  SYS(inotify_add_watch(fd, tmp_dir(), IN_CREATE | IN_DELETE));
  enum { N = 200 };
  for (int i = 0; i < N; i++) {
    char name[32];
    snprintf(name, sizeof name, "n%d", i);
    close(tmp_file(name, ""));
    SYS(unlink(tmp_path(name)));
  }
  static char b[1 << 16] __attribute__((aligned(8)));
  int n = 0;
  for (ssize_t r; (r = read(fd, b, 100)) > 0;)
    for (char *at = b; at < b + r; at += 16 + ((struct inotify_event *)at)->len, n++) {
      struct inotify_event *e = (struct inotify_event *)at;
      char name[32];
      snprintf(name, sizeof name, "n%d", n / 2);
      CHECK_STR(e->name, name);
      CHECK_EQ(e->mask, n % 2 ? IN_DELETE : IN_CREATE);
    }
  CHECK_EQ(n, 2 * N);
  close(fd);
}
