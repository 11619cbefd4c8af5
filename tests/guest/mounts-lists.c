/* SPDX-License-Identifier: Apache-2.0 */
/* mounts-lists.c - /proc/PID/mounts, mountinfo, mountstats and how they are polled; files on mounts that are in no list: pipes, memfds,
 * sockets (FEATURES.md W3-W6, W10). */
#include "mounts.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

MOUNT_TEST(lists_escape) {
  SYS(mkdir("a b\tc\\d\ne#", 0755));
  SYS(mount("so urce#1", "a b\tc\\d\ne#", "tmpfs", MS_NOSUID, NULL));
  char want[1024], *text = read_file("/proc/self/mountinfo", NULL);
  REQUIRE(text != NULL);
  snprintf(want, sizeof want, "%s/a\\040b\\011c\\134d\\012e# rw,nosuid,relatime - tmpfs so\\040urce\\0431 rw",
           here(""));
  CHECK(strstr(text, want) != NULL);
  free(text);
  text = read_file("/proc/self/mounts", NULL);
  REQUIRE(text != NULL);
  snprintf(want, sizeof want, "\nso\\040urce\\0431 %s/a\\040b\\011c\\134d\\012e# tmpfs rw,nosuid,relatime",
           here(""));
  CHECK(strstr(text, want) != NULL);
  CHECK(strcmp(text + strlen(text) - 5, " 0 0\n") == 0);
  free(text);
  text = read_file("/proc/self/mountstats", NULL);
  REQUIRE(text != NULL);
  snprintf(want, sizeof want,
           "device so\\040urce\\0431 mounted on %s/a\\040b\\011c\\134d\\012e# with fstype tmpfs\n", here(""));
  CHECK(strstr(text, want) != NULL);
  free(text);
}

MOUNT_TEST(lists_follow_the_root) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkdir("d/proc", 0755));
  SYS(mkdir("d/sub", 0755));
  bind_to("/proc", "d/proc");
  new_tmpfs("d/sub");
  int id = the_mount("d").id, parent = the_mount("d").parent;
  WAIT_OK(CHILD(SYS(chroot("d")); SYS(chdir("/")); CHECK_EQ(mount_count(), 3);
                CHECK_EQ(the_mount("/").id, id); CHECK_EQ(the_mount("/").parent, parent);
                CHECK_EQ(the_mount("/sub").parent, id)));
  /* A root that is no mount: those below it only. */
  SYS(mkdir("d/r", 0755));
  SYS(mkdir("d/r/proc", 0755));
  bind_to("/proc", "d/r/proc");
  WAIT_OK(CHILD(SYS(chroot("d/r")); SYS(chdir("/")); CHECK_EQ(mount_count(), 1)));
}

MOUNT_TEST(ids_agree) {
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  MountLine m = the_mount("d");
  struct statx x;
  SYS(statx(AT_FDCWD, "d", 0, STATX_BASIC_STATS | 0x1000, &x));
  CHECK(x.stx_mask & 0x1000);
  CHECK_EQ(x.stx_mnt_id, m.id);
  CHECK(x.stx_attributes_mask & 0x2000); /* STATX_ATTR_MOUNT_ROOT */
  CHECK(x.stx_attributes & 0x2000);
  CHECK(x.stx_dev_major == m.major && x.stx_dev_minor == m.minor);
  SYS(mkdir("d/x", 0755));
  SYS(statx(AT_FDCWD, "d/x", 0, STATX_BASIC_STATS, &x));
  CHECK(!(x.stx_attributes & 0x2000));
  int fd = (int)SYS(open("d", O_RDONLY));
  char path[64], want[64];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  snprintf(want, sizeof want, "\nmnt_id:\t%d\n", m.id);
  char *text = read_file(path, NULL);
  CHECK(text && strstr(text, want));
  free(text);
}

/* proc(5): poll(2) and epoll tell of a change, once. */
MOUNT_TEST(lists_are_polled) {
  SYS(mkdir("d", 0755));
  struct pollfd p = {.fd = (int)SYS(open("/proc/self/mounts", O_RDONLY)), .events = POLLPRI};
  CHECK_EQ(poll(&p, 1, 0), 0);
  new_tmpfs("d");
  CHECK_EQ(poll(&p, 1, 1000), 1);
  CHECK_EQ(p.revents & (POLLPRI | POLLERR), POLLPRI | POLLERR);
  CHECK_EQ(poll(&p, 1, 0), 0);
  SYS(umount("d"));
  CHECK_EQ(poll(&p, 1, 1000), 1);
  /* Somebody who waits is woken. */
  pid_t pid = CHILD(sleep_ms(100); new_tmpfs("d"));
  CHECK_EQ(poll(&p, 1, 5000), 1);
  WAIT_OK(pid);
  p.events = POLLIN;
  CHECK_EQ(poll(&p, 1, 0), 1);
  int e = (int)SYS(epoll_create1(0)), info = (int)SYS(open("/proc/self/mountinfo", O_RDONLY));
  struct epoll_event ev = {.events = EPOLLPRI | EPOLLET}, got;
  SYS(epoll_ctl(e, EPOLL_CTL_ADD, info, &ev));
  CHECK_EQ(epoll_wait(e, &got, 1, 0), 0);
  SYS(umount("d"));
  CHECK_EQ(epoll_wait(e, &got, 1, 1000), 1);
  CHECK_EQ(epoll_wait(e, &got, 1, 0), 0);
  /* Another namespace's changes are none of ours. */
  WAIT_OK(CHILD(SYS(unshare(CLONE_NEWNS)); new_tmpfs("d")));
  CHECK_EQ(epoll_wait(e, &got, 1, 50), 0);
}

/* ---- Disconnected mounts ---- */

static bool listed(dev_t dev) {
  char *text = read_file("/proc/self/mountinfo", NULL), want[32];
  snprintf(want, sizeof want, " %u:%u ", major(dev), minor(dev));
  bool found = text && strstr(text, want);
  free(text);
  return found;
}

static void check_link(int fd, const char *form, unsigned long ino) {
  char path[64], got[128] = "", want[128];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK_OK(readlink(path, got, sizeof got - 1));
  snprintf(want, sizeof want, "%s:[%lu]", form, ino);
  CHECK_STR(got, want);
}

static int mount_id_of(int fd) {
  char path[64];
  int id = -1;
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  char *text = read_file(path, NULL), *at = text ? strstr(text, "mnt_id:") : NULL;
  CHECK(at && sscanf(at, "mnt_id: %d", &id) == 1);
  free(text);
  return id;
}

static bool id_listed(int id) {
  char *text = read_file("/proc/self/mountinfo", NULL), *save;
  bool found = false;
  for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
    found |= atoi(l) == id;
  free(text);
  return found;
}

SHARED_TEST(pipes_sockets_and_memfds) {
  int a[2], b[2], s[2], m = (int)SYS(memfd_create("x", 0)), m2 = (int)SYS(memfd_create("y", 0));
  struct stat pa, pb, so, me, me2;
  struct statfs fs;
  SYS(pipe(a));
  SYS(pipe(b));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  SYS(fstat(a[0], &pa));
  SYS(fstat(b[1], &pb));
  SYS(fstat(s[0], &so));
  SYS(fstat(m, &me));
  SYS(fstat(m2, &me2));
  CHECK_EQ(pa.st_dev, pb.st_dev);
  CHECK(pa.st_ino != pb.st_ino);
  CHECK_EQ(me.st_dev, me2.st_dev);
  CHECK(pa.st_dev != so.st_dev && pa.st_dev != me.st_dev && so.st_dev != me.st_dev);
  CHECK(!listed(pa.st_dev) && !listed(so.st_dev) && !listed(me.st_dev));
  check_link(a[0], "pipe", pa.st_ino);
  check_link(s[0], "socket", so.st_ino);
  CHECK_EQ(mount_id_of(a[0]), mount_id_of(b[0]));
  CHECK_EQ(mount_id_of(m), mount_id_of(m2));
  CHECK(mount_id_of(a[0]) != mount_id_of(s[0]) && mount_id_of(a[0]) != mount_id_of(m));
  CHECK(!id_listed(mount_id_of(a[0])) && !id_listed(mount_id_of(s[0])) && !id_listed(mount_id_of(m)));
  SYS(fstatfs(m, &fs));
  CHECK_EQ(fs.f_type, 0x01021994);
  SYS(fstatfs(a[0], &fs));
  CHECK_EQ(fs.f_type, 0x50495045);
  SYS(fstatfs(s[0], &fs));
  CHECK_EQ(fs.f_type, 0x534f434b);
  char path[64], got[64] = "";
  snprintf(path, sizeof path, "/proc/self/fd/%d", m);
  SYS(readlink(path, got, sizeof got - 1));
  CHECK_STR(got, "/memfd:x (deleted)");
  /* None of them is a place for mounts. */
  SYS(mkdir("d", 0755));
  SYS(close(SYS(creat("f", 0644))));
  CHECK(mount("f", path, NULL, MS_BIND, NULL) < 0 && (errno == EINVAL || errno == ENOENT));
}

/* A FIFO and a bound socket are on the filesystem that holds their names. */
MOUNT_TEST(named_ones_are_where_they_are) {
  struct stat d, st;
  SYS(mkdir("d", 0755));
  new_tmpfs("d");
  SYS(mkfifo("d/p", 0644));
  SYS(stat("d", &d));
  int fd = (int)SYS(open("d/p", O_RDWR));
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_dev, d.st_dev);
  CHECK_ERRNO(umount("d"), EBUSY);
  SYS(close(fd));
  SYS(mknod("d/s", S_IFSOCK | 0644, 0));
  SYS(stat("d/s", &st));
  CHECK_EQ(st.st_dev, d.st_dev);
  CHECK_EQ(umount("d"), 0);
}
