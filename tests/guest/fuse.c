/* SPDX-License-Identifier: Apache-2.0 */
/* fuse.c - filesystems served by a process (fuse(4), W11): what programs see of a well-behaved server, and that a bad, a dead or a
 * silent one harms nobody but its clients, who can always be killed. */
#include "fuse-server.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

static char *at(const FuseServer *s, const char *name) {
  static char ring[8][600];
  static unsigned turn;
  char *p = ring[turn++ % 8];
  snprintf(p, sizeof ring[0], "%s/%s", s->dir, name);
  return p;
}

TEST(files) {
  FuseServer s = fuse_server_start("");
  char buf[64] = {0};
  struct stat st;
  int fd = (int)SYS(open(at(&s, "a"), O_RDWR | O_CREAT | O_EXCL, 0640));

  CHECK_EQ(write(fd, "hello", 5), 5);
  CHECK_EQ(pwrite(fd, "J", 1, 0), 1);
  CHECK_EQ(pread(fd, buf, sizeof buf, 1), 4);
  CHECK_STR(buf, "ello");
  CHECK_EQ(pread(fd, buf, sizeof buf, 5), 0);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 5);
  CHECK_EQ(st.st_mode, S_IFREG | 0640);
  CHECK_EQ(lseek(fd, 0, SEEK_END), 5);
  SYS(ftruncate(fd, 2));
  CHECK_EQ(lseek(fd, 0, SEEK_END), 2);
  SYS(ftruncate(fd, 4));
  memset(buf, 'x', sizeof buf);
  CHECK_EQ(pread(fd, buf, sizeof buf, 0), 4);
  CHECK(!memcmp(buf, "Je\0", 4));
  SYS(close(fd));
  fd = (int)SYS(open(at(&s, "a"), O_WRONLY | O_APPEND));
  CHECK_EQ(write(fd, "++", 2), 2);
  SYS(fsync(fd));
  SYS(close(fd));
  SYS(stat(at(&s, "a"), &st));
  CHECK_EQ(st.st_size, 6);
  CHECK_ERRNO(open(at(&s, "a"), O_RDWR | O_CREAT | O_EXCL, 0640), EEXIST);
  SYS(close((int)SYS(open(at(&s, "a"), O_WRONLY | O_TRUNC))));
  SYS(stat(at(&s, "a"), &st));
  CHECK_EQ(st.st_size, 0);
  CHECK_ERRNO(open(at(&s, "none"), O_RDONLY), ENOENT);
  fuse_server_stop(&s);
}

TEST(names) {
  FuseServer s = fuse_server_start("");
  struct stat a, b;
  char buf[64] = {0};

  SYS(mkdir(at(&s, "d"), 0750));
  CHECK_ERRNO(mkdir(at(&s, "d"), 0750), EEXIST);
  write_file(at(&s, "d/f"), "text", 4, 0644);
  SYS(link(at(&s, "d/f"), at(&s, "g")));
  SYS(stat(at(&s, "d/f"), &a));
  SYS(stat(at(&s, "g"), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  CHECK_EQ(b.st_nlink, 2);
  SYS(symlink("d/f", at(&s, "l")));
  CHECK_EQ(readlink(at(&s, "l"), buf, sizeof buf), 3);
  CHECK_STR(buf, "d/f");
  SYS(stat(at(&s, "l"), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  CHECK_ERRNO(rmdir(at(&s, "d")), ENOTEMPTY);
  CHECK_ERRNO(unlink(at(&s, "d")), EISDIR);
  CHECK_ERRNO(rmdir(at(&s, "g")), ENOTDIR);
  SYS(rename(at(&s, "d/f"), at(&s, "h")));
  CHECK_ERRNO(stat(at(&s, "d/f"), &b), ENOENT);
  SYS(stat(at(&s, "h"), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
  CHECK_ERRNO(syscall(SYS_renameat2, AT_FDCWD, at(&s, "h"), AT_FDCWD, at(&s, "g"), RENAME_NOREPLACE), EEXIST);
  SYS(syscall(SYS_renameat2, AT_FDCWD, at(&s, "h"), AT_FDCWD, at(&s, "d"), RENAME_EXCHANGE));
  SYS(stat(at(&s, "h"), &b));
  CHECK(S_ISDIR(b.st_mode));
  SYS(rmdir(at(&s, "h")));
  SYS(unlink(at(&s, "d")));
  SYS(unlink(at(&s, "g")));
  CHECK_ERRNO(stat(at(&s, "g"), &b), ENOENT);
  SYS(mknod(at(&s, "p"), S_IFIFO | 0600, 0));
  SYS(stat(at(&s, "p"), &b));
  CHECK(S_ISFIFO(b.st_mode));
  fuse_server_stop(&s);
}

TEST(directories) {
  FuseServer s = fuse_server_start("");
  char name[32];
  bool seen[300] = {0};
  int dots = 0, n = 0;

  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "file-%d", i);
    write_file(at(&s, name), "", 0, 0644);
  }
  DIR *d = opendir(s.dir);
  REQUIRE(d != NULL);
  for (struct dirent *e; (e = readdir(d));) {
    int i;
    if (sscanf(e->d_name, "file-%d", &i) == 1 && i >= 0 && i < 300) {
      CHECK(!seen[i]);
      CHECK_EQ(e->d_type, DT_REG);
      seen[i] = true;
      n++;
    } else {
      CHECK(!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."));
      dots++;
    }
  }
  CHECK_EQ(n, 300);
  CHECK_EQ(dots, 2);
  rewinddir(d);
  CHECK(readdir(d) != NULL);
  closedir(d);
  fuse_server_stop(&s);
}

TEST(attributes) {
  FuseServer s = fuse_server_start("");
  struct stat st;
  struct statfs fs;
  struct timespec ts[2] = {{12345, 678}, {54321, 999999999}};

  write_file(at(&s, "a"), "", 0, 0644);
  SYS(chmod(at(&s, "a"), 04711));
  SYS(chown(at(&s, "a"), 12, 34));
  SYS(utimensat(AT_FDCWD, at(&s, "a"), ts, 0));
  SYS(stat(at(&s, "a"), &st));
  CHECK_EQ(st.st_uid, 12);
  CHECK_EQ(st.st_gid, 34);
  CHECK_EQ(st.st_mtim.tv_sec, 54321);
  CHECK_EQ(st.st_mtim.tv_nsec, 999999999);
  CHECK_EQ(st.st_atim.tv_sec, 12345);
  SYS(statfs(at(&s, "a"), &fs));
  CHECK_EQ(fs.f_type, 0x65735546);
  CHECK_EQ(fs.f_blocks, 1000);
  CHECK_EQ(fs.f_ffree, 9);
  fuse_server_stop(&s);
}

TEST(xattrs) {
  FuseServer s = fuse_server_start("");
  char buf[256];

  write_file(at(&s, "a"), "", 0, 0644);
  CHECK_ERRNO(getxattr(at(&s, "a"), "user.x", buf, sizeof buf), ENODATA);
  SYS(setxattr(at(&s, "a"), "user.x", "value", 5, 0));
  CHECK_EQ(getxattr(at(&s, "a"), "user.x", NULL, 0), 5);
  CHECK_EQ(getxattr(at(&s, "a"), "user.x", buf, sizeof buf), 5);
  CHECK(!memcmp(buf, "value", 5));
  CHECK_ERRNO(getxattr(at(&s, "a"), "user.x", buf, 2), ERANGE);
  CHECK_EQ(listxattr(at(&s, "a"), buf, sizeof buf), 7);
  CHECK_STR(buf, "user.x");
  SYS(removexattr(at(&s, "a"), "user.x"));
  CHECK_EQ(listxattr(at(&s, "a"), buf, sizeof buf), 0);
  fuse_server_stop(&s);
}

TEST_LIMIT(contents, 30) {
  FuseServer s = fuse_server_start("");
  size_t n = 300001;
  char *p = map_anon(n, PROT_READ | PROT_WRITE), *q = map_anon(n, PROT_READ | PROT_WRITE);

  pattern_fill(p, n, 5);
  int fd = (int)SYS(open(at(&s, "big"), O_RDWR | O_CREAT, 0644));
  CHECK_EQ(write(fd, p, n), n);
  SYS(lseek(fd, 0, SEEK_SET));
  read_full(fd, q, n);
  CHECK(pattern_ok(q, n, 5));
  CHECK_EQ(read(fd, q, 10), 0);
  CHECK_EQ(pread(fd, q, 20000, 290000), 10001);
  CHECK(!memcmp(q, p + 290000, 10001));
  char *m = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
  REQUIRE(m != MAP_FAILED);
  CHECK(pattern_ok(m, n, 5));
  fuse_server_stop(&s);
}

HELPER(answer) { return 42; }

/* A program on a FUSE filesystem runs. */
TEST_LIMIT(exec, 30) {
  FuseServer s = fuse_server_start("");
  size_t n;
  char *self = read_file("/proc/self/exe", &n);
  char *path = at(&s, "program");

  REQUIRE(self != NULL);
  write_file(path, self, n, 0755);
  pid_t pid = (pid_t)SYS(fork());
  if (pid == 0) {
    execl(path, path, "--helper", "answer", NULL);
    _exit(1);
  }
  CHECK_EQ(check_wait(pid), 42 << 8);
  SYS(chmod(path, 0644));
  pid = (pid_t)SYS(fork());
  if (pid == 0) {
    execl(path, path, "--helper", "answer", NULL);
    _exit(errno);
  }
  CHECK_EQ(check_wait(pid), EACCES << 8);
  fuse_server_stop(&s);
}

TEST(how_long_attributes_hold) {
  FuseServer s = fuse_server_start("");
  struct stat st;

  write_file(at(&s, "a"), "", 0, 0644);
  SYS(stat(at(&s, "a"), &st));
  unsigned before = s.control->seen[FUSE_GETATTR] + s.control->seen[FUSE_LOOKUP];
  for (int i = 0; i < 5; i++)
    SYS(stat(at(&s, "a"), &st));
  CHECK(s.control->seen[FUSE_GETATTR] + s.control->seen[FUSE_LOOKUP] >= before + 5);
  s.control->valid = 1000;
  SYS(stat(s.dir, &st));
  SYS(stat(at(&s, "a"), &st));
  SYS(stat(at(&s, "a"), &st));
  before = s.control->seen[FUSE_GETATTR] + s.control->seen[FUSE_LOOKUP];
  for (int i = 0; i < 5; i++)
    SYS(stat(at(&s, "a"), &st));
  CHECK_EQ(s.control->seen[FUSE_GETATTR] + s.control->seen[FUSE_LOOKUP], before);
  SYS(chmod(at(&s, "a"), 0600)); /* what one changes oneself is seen at once */
  SYS(stat(at(&s, "a"), &st));
  CHECK_EQ(st.st_mode & 0777, 0600);
  fuse_server_stop(&s);
}

TEST(who_may_look) {
  FuseServer s = fuse_server_start("");
  struct stat st;

  write_file(at(&s, "a"), "", 0, 0644);
  WAIT_OK(CHILD({
    SYS(setuid(1000));
    CHECK_ERRNO(stat(at(&s, "a"), &st), EACCES);
    CHECK_ERRNO(open(s.dir, O_RDONLY), EACCES);
  }));
  fuse_server_stop(&s);
}

TEST(mode_bits_decide) {
  FuseServer s = fuse_server_start(",allow_other,default_permissions");

  write_file(at(&s, "open"), "", 0, 0644);
  write_file(at(&s, "closed"), "", 0, 0600);
  WAIT_OK(CHILD({
    SYS(setgid(1000));
    SYS(setuid(1000));
    CHECK_OK(open(at(&s, "open"), O_RDONLY));
    CHECK_ERRNO(open(at(&s, "open"), O_WRONLY), EACCES);
    CHECK_ERRNO(open(at(&s, "closed"), O_RDONLY), EACCES);
    CHECK_ERRNO(mkdir(at(&s, "d"), 0755), EACCES);
  }));
  fuse_server_stop(&s);
}

/* ---- Servers that do not behave ---- */

TEST(errors_are_handed_on) {
  FuseServer s = fuse_server_start("");
  struct stat st;

  s.control->fault_op = FUSE_LOOKUP;
  s.control->fault_error = -EDQUOT;
  s.control->fault = FAULT_ERROR;
  CHECK_ERRNO(stat(at(&s, "a"), &st), EDQUOT);
  fuse_server_stop(&s);
}

TEST(bad_replies) {
  FuseServer s = fuse_server_start("");
  struct stat st;

  write_file(at(&s, "a"), "0123456789", 10, 0644);
  int fd = (int)SYS(open(at(&s, "a"), O_RDONLY | O_DIRECT));
  s.control->fault_op = FUSE_LOOKUP;
  s.control->fault = FAULT_MODE;
  CHECK_ERRNO(stat(at(&s, "b"), &st), EIO);
  s.control->fault_op = FUSE_GETATTR;
  CHECK_ERRNO(fstat(fd, &st), EIO);
  s.control->fault = FAULT_NONE;
  close(fd);
  fuse_server_stop(&s);
}

TEST(killed_while_it_waits) {
  if (!check_in_sandbox)
    SKIP("Linux lets a client wait for ever once the server has its request");
  FuseServer s = fuse_server_start("");
  struct stat st;

  write_file(at(&s, "a"), "", 0, 0644);
  s.control->fault_op = FUSE_LOOKUP;
  s.control->fault = FAULT_HANG;
  unsigned before = s.control->seen[FUSE_LOOKUP];
  pid_t pid = CHILD(stat(at(&s, "b"), &st));
  WAIT_FOR(s.control->seen[FUSE_LOOKUP] > before);
  SYS(kill(pid, SIGKILL));
  CHECK_EQ(check_wait(pid), SIGKILL);
  s.control->fault = FAULT_NONE;
  SYS(stat(at(&s, "a"), &st));
  fuse_server_stop(&s);
}

/* While one waits for the server's answer about a name, another waits for the first one's lock of the directory. */
TEST(killed_behind_one_that_waits) {
  if (!check_in_sandbox)
    SKIP("Linux does not promise that a request that was read can be given up");
  FuseServer s = fuse_server_start("");
  struct stat st;

  s.control->fault_op = FUSE_LOOKUP;
  s.control->fault = FAULT_HANG;
  unsigned before = s.control->seen[FUSE_LOOKUP];
  pid_t first = CHILD(stat(at(&s, "b"), &st));
  WAIT_FOR(s.control->seen[FUSE_LOOKUP] > before);
  pid_t second = CHILD(stat(at(&s, "c"), &st));
  sleep_ms(50);
  SYS(kill(second, SIGKILL));
  CHECK_EQ(check_wait(second), SIGKILL);
  SYS(kill(first, SIGKILL));
  CHECK_EQ(check_wait(first), SIGKILL);
  fuse_server_stop(&s);
}

static void nothing(int sig) { (void)sig; }

TEST(interrupted_while_it_waits) {
  FuseServer s = fuse_server_start("");
  struct stat st;

  s.control->fault_op = FUSE_LOOKUP;
  s.control->fault = FAULT_UNTIL_INTERRUPT;
  unsigned before = s.control->seen[FUSE_LOOKUP];
  pid_t pid = CHILD({
    on_signal(SIGUSR1, nothing, 0);
    CHECK_ERRNO(stat(at(&s, "b"), &st), EINTR);
  });
  WAIT_FOR(s.control->seen[FUSE_LOOKUP] > before);
  sleep_ms(20);
  SYS(kill(pid, SIGUSR1));
  WAIT_OK(pid);
  CHECK(s.control->seen[FUSE_INTERRUPT] >= 1);
  fuse_server_stop(&s);
}

TEST(server_dies) {
  FuseServer s = fuse_server_start("");
  struct stat st;

  write_file(at(&s, "a"), "", 0, 0644);
  int fd = (int)SYS(open(at(&s, "a"), O_RDWR));
  s.control->fault_op = FUSE_LOOKUP;
  s.control->fault = FAULT_DIE;
  CHECK_ERRNO(stat(at(&s, "b"), &st), ECONNABORTED);
  CHECK_ERRNO(stat(at(&s, "b"), &st), ENOTCONN);
  CHECK_ERRNO(fstat(fd, &st), ENOTCONN);
  close(fd);
  fuse_server_stop(&s);
}

/* Several wait at once, of them one with a directory locked. */
TEST(server_dies_under_many) {
  FuseServer s = fuse_server_start("");
  pid_t pid[6];

  s.control->fault_op = FUSE_MKDIR;
  s.control->fault = FAULT_HANG;
  for (int i = 0; i < 6; i++)
    pid[i] = CHILD({
      char name[8];
      snprintf(name, sizeof name, "d%d", i);
      CHECK_EQ(mkdir(at(&s, name), 0755), -1);
      CHECK(errno == ECONNABORTED || errno == ENOTCONN);
    });
  WAIT_FOR(s.control->seen[FUSE_MKDIR] >= 1);
  SYS(kill(s.pid, SIGKILL));
  for (int i = 0; i < 6; i++)
    WAIT_OK(pid[i]);
  fuse_server_stop(&s);
}

TEST(unmount_ends_the_server) {
  FuseServer s = fuse_server_start("");
  struct stat st;

  SYS(stat(s.dir, &st));
  SYS(umount(s.dir));
  WAIT_FOR(s.control->ended);
  CHECK_EQ(s.control->ended, ENODEV);
  fuse_server_stop(&s);
}

TEST(nodes_are_forgotten) {
  FuseServer s = fuse_server_start("");

  for (int i = 0; i < 20; i++) {
    write_file(at(&s, "a"), "x", 1, 0644);
    SYS(unlink(at(&s, "a")));
  }
  WAIT_FOR(s.control->forgotten >= 18);
  fuse_server_stop(&s);
}

/* ---- The device ---- */

TEST(device_rules) {
  int fd = fuse_device();
  char buf[FUSE_MIN_READ_BUFFER], opts[128];
  struct fuse_out_header h = {.len = sizeof h, .unique = 12345};

  CHECK_ERRNO(read(fd, buf, sizeof buf), EPERM); /* not mounted */
  CHECK_ERRNO(write(fd, &h, sizeof h), EPERM);
  CHECK_ERRNO(mount("x", tmp_dir(), "fuse", 0, "rootmode=40755,user_id=0,group_id=0"), EINVAL);
  CHECK_ERRNO(mount("x", tmp_dir(), "fuse", 0, "fd=0,rootmode=40755,user_id=0,group_id=0"), EINVAL);
  snprintf(opts, sizeof opts, "fd=%d,rootmode=100644,user_id=0,group_id=0,nosuch=1", fd);
  CHECK_ERRNO(mount("x", tmp_dir(), "fuse", 0, opts), EINVAL);
  snprintf(opts, sizeof opts, "fd=%d,rootmode=40755,user_id=0,group_id=0", fd);
  SYS(mkdir(tmp_path("m"), 0755));
  SYS(mount("x", tmp_path("m"), "fuse", 0, opts));
  CHECK_ERRNO(read(fd, buf, 100), EINVAL); /* too small for any request */
  CHECK_ERRNO(write(fd, &h, sizeof h), ENOENT);
  h.len++;
  CHECK_ERRNO(write(fd, &h, sizeof h), EINVAL);
  CHECK_ERRNO(write(fd, &h, 5), EINVAL);
  h = (struct fuse_out_header){.len = sizeof h, .unique = 2, .error = 5};
  CHECK_ERRNO(write(fd, &h, sizeof h), EINVAL);
  SYS(umount(tmp_path("m")));
  CHECK_ERRNO(read(fd, buf, sizeof buf), ENODEV);
  close(fd);
}
