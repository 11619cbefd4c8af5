/* SPDX-License-Identifier: Apache-2.0 */
/* perms.c - who may do what to a file: mode bits and each capability (capabilities(7), path_resolution(7)), sticky and set-group-ID
 * directories, set-id bits that go, protected links (proc_sys_fs(5)), access(2), inode flags. */
#include "on-tmpfs.h"

#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <linux/fs.h>

#define CAP(n) (1ul << (n))
enum {
  CHOWN,
  DAC_OVERRIDE,
  DAC_READ_SEARCH,
  FOWNER,
  FSETID,
  KILL,
  SETGID,
  SETUID,
  LINUX_IMMUTABLE = 9,
  MKNOD = 27
};

static int may_open(const char *path, int flags) {
  int fd = open(path, flags);

  if (fd >= 0)
    close(fd);
  return fd < 0 ? -errno : 0;
}

/* ---- Mode bits and capabilities ---- */

TMPFS_TEST(capabilities_on_files) {
  SYS(chmod(".", 0777));
  new_file("f", 0, 1000, 1000);
  new_file("x", 0100, 1000, 1000);
  static const struct {
    unsigned long caps;
    int r, w, rw, x; /* of f; of x: execute */
  } t[] = {{0, 0, 0, 0, 0},
           {CAP(DAC_READ_SEARCH), 1, 0, 0, 0},
           {CAP(DAC_OVERRIDE), 1, 1, 1, 1},
           {CAP(FOWNER) | CAP(CHOWN) | CAP(FSETID), 0, 0, 0, 0}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++)
    WITH_CAPS(2000, 2000, t[i].caps, CHECK_EQ(may_open("f", O_RDONLY), t[i].r ? 0 : -EACCES);
              CHECK_EQ(may_open("f", O_WRONLY), t[i].w ? 0 : -EACCES);
              CHECK_EQ(may_open("f", O_RDWR), t[i].rw ? 0 : -EACCES);
              CHECK_EQ(may_open("f", O_RDONLY | O_TRUNC), t[i].w ? 0 : -EACCES);
              CHECK_EQ(faccessat(AT_FDCWD, "x", X_OK, AT_EACCESS), t[i].x ? 0 : -1);
              CHECK_ERRNO(faccessat(AT_FDCWD, "f", X_OK, AT_EACCESS), EACCES);
              CHECK_EQ(faccessat(AT_FDCWD, "x", X_OK | R_OK, AT_EACCESS), t[i].x ? 0 : -1);
              CHECK_EQ(truncate("f", 0), t[i].w ? 0 : -1));
}

TMPFS_TEST(capabilities_on_directories) {
  SYS(chmod(".", 0777));
  new_dir("d", 0, 1000, 1000);
  new_file("d/f", 0666, 1000, 1000);
  struct stat st;
  WITH_CAPS(2000, 2000, 0, CHECK_ERRNO(stat("d/f", &st), EACCES); CHECK_EQ(may_open("d", O_RDONLY), -EACCES);
            CHECK_ERRNO(chdir("d"), EACCES));
  WITH_CAPS(2000, 2000, CAP(DAC_READ_SEARCH), CHECK_OK(stat("d/f", &st));
            CHECK_EQ(may_open("d", O_RDONLY), 0); CHECK_OK(chdir("d")); CHECK_ERRNO(mkdir("e", 0777), EACCES);
            CHECK_ERRNO(unlink("f"), EACCES));
  WITH_CAPS(2000, 2000, CAP(DAC_OVERRIDE), CHECK_OK(stat("d/f", &st)); CHECK_EQ(may_open("d", O_RDONLY), 0);
            CHECK_OK(mkdir("d/e", 0777)); CHECK_OK(rename("d/e", "d/g")); CHECK_OK(rmdir("d/g"));
            CHECK_OK(faccessat(AT_FDCWD, "d", R_OK | W_OK | X_OK, AT_EACCESS)));
  WITH_CAPS(2000, 2000, CAP(FOWNER), CHECK_ERRNO(mkdir("d/e", 0777), EACCES); CHECK_OK(chmod("d", 0711));
            CHECK_OK(stat("d/f", &st)));
}

TMPFS_TEST(capabilities_of_owners) {
  SYS(chmod(".", 0777));
  new_file("f", 0666, 1000, 1000);
  struct timespec ts[2] = {{1, 0}, {2, 0}};
  WITH_CAPS(2000, 2000, 0, CHECK_ERRNO(chmod("f", 0600), EPERM);
            CHECK_ERRNO(utimensat(AT_FDCWD, "f", ts, 0), EPERM);
            CHECK_EQ(may_open("f", O_RDONLY | O_NOATIME), -EPERM); CHECK_ERRNO(chown("f", -1, 2000), EPERM);
            CHECK_OK(utimensat(AT_FDCWD, "f", NULL, 0)));
  WITH_CAPS(2000, 2000, CAP(FOWNER), CHECK_OK(chmod("f", 0660)); CHECK_OK(utimensat(AT_FDCWD, "f", ts, 0));
            CHECK_ERRNO(chown("f", -1, 2000), EPERM); CHECK_ERRNO(chown("f", 2000, -1), EPERM));
  SYS(chmod("f", 0666));
  WITH_CAPS(2000, 2000, CAP(FOWNER), CHECK_EQ(may_open("f", O_RDONLY | O_NOATIME), 0));
  WITH_CAPS(2000, 2000, CAP(CHOWN), CHECK_ERRNO(chmod("f", 0600), EPERM); CHECK_OK(chown("f", 3000, 3000));
            CHECK_OK(chown("f", 1000, 1000)));
  /* The owner may give it to one of his groups, but to nobody else. */
  AS(1000, 1000, 4000, CHECK_OK(chown("f", -1, 4000)); CHECK_OK(chown("f", 1000, 1000));
     CHECK_ERRNO(chown("f", -1, 5000), EPERM); CHECK_ERRNO(chown("f", 1001, -1), EPERM);
     CHECK_OK(chown("f", -1, -1)));
  AS(2000, 2000, 0, CHECK_OK(chown("f", -1, -1)));
}

/* O_TRUNC asks for the permission to write, also where there is nothing to truncate. */
TMPFS_TEST(truncating_opens) {
  SYS(chmod(".", 0777));
  SYS(mkfifo("p", 0600));
  SYS(chmod("p", 0644));
  new_file("f", 0644, 0, 0);
  AS(1000, 1000, 0, CHECK_EQ(may_open("p", O_RDONLY | O_NONBLOCK), 0);
     CHECK_EQ(may_open("p", O_RDONLY | O_NONBLOCK | O_TRUNC), -EACCES);
     CHECK_EQ(may_open("f", O_RDONLY | O_TRUNC), -EACCES); CHECK_EQ(may_open("f", O_RDONLY), 0));
}

TMPFS_TEST(fs_ids) {
  SYS(chmod(".", 0777));
  new_file("f", 0600, 1000, 1000);
  new_file("g", 0060, 5, 2000);
  WITH_CAPS(0, 0, CAP(SETUID) | CAP(SETGID), CHECK_EQ(may_open("f", O_RDONLY), -EACCES); setfsuid(1000);
            CHECK_EQ(may_open("f", O_RDONLY), 0); CHECK_ERRNO(access("f", R_OK), EACCES);
            CHECK_EQ(may_open("g", O_RDWR), -EACCES); setfsgid(2000); CHECK_EQ(may_open("g", O_RDWR), 0);
            close((int)SYS(open("mine", O_CREAT | O_WRONLY, 0600))); struct stat st; SYS(stat("mine", &st));
            CHECK_EQ(st.st_uid, 1000); CHECK_EQ(st.st_gid, 2000));
  /* Leaving user 0 with setfsuid takes the capabilities about files away, coming back returns them. */
  WAIT_OK(CHILD(setfsuid(3000); CHECK_EQ(may_open("f", O_RDONLY), -EACCES); setfsuid(0);
                CHECK_EQ(may_open("f", O_RDONLY), 0)));
}

TMPFS_TEST(owner_class_comes_first) {
  SYS(chmod(".", 0777));
  new_file("f", 0077, 1000, 2000);
  AS(1000, 2000, 0, CHECK_EQ(may_open("f", O_RDONLY), -EACCES));
  AS(1001, 2000, 0, CHECK_EQ(may_open("f", O_RDWR), 0));
  SYS(chmod("f", 0707));
  AS(1001, 9, 2000, CHECK_EQ(may_open("f", O_RDONLY), -EACCES));
  AS(1001, 9, 2001, CHECK_EQ(may_open("f", O_RDWR), 0));
}

TMPFS_TEST(access_is_for_real_ids) {
  SYS(chmod(".", 0777));
  new_file("f", 0600, 1000, 1000);
  WAIT_OK(CHILD(SYS(setresgid(2000, 2000, 2000)); SYS(setresuid(2000, 1000, 1000));
                CHECK_ERRNO(access("f", R_OK), EACCES); CHECK_OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
                CHECK_EQ(may_open("f", O_RDONLY), 0); CHECK_OK(access("f", F_OK))));
  /* A set-user-ID program of another user, run by root, still asks for root; capabilities of root count. */
  WAIT_OK(CHILD(SYS(setresuid(0, 2000, 0)); CHECK_OK(access("f", R_OK | W_OK));
                CHECK_EQ(may_open("f", O_RDONLY), -EACCES); CHECK_ERRNO(access("f", X_OK), EACCES)));
  CHECK_ERRNO(faccessat(AT_FDCWD, "f", R_OK, 0x4000), EINVAL);
  CHECK_ERRNO(access("f", 8), EINVAL);
  SYS(symlink("nowhere", "l"));
  CHECK_ERRNO(access("l", F_OK), ENOENT);
  CHECK_OK(faccessat(AT_FDCWD, "l", F_OK, AT_SYMLINK_NOFOLLOW));
  int fd = (int)SYS(open("f", O_PATH));
  CHECK_OK(syscall(SYS_faccessat2, fd, "", R_OK, AT_EMPTY_PATH));
}

/* ---- Sticky directories ---- */

TMPFS_TEST(sticky_matrix) {
  SYS(chmod(".", 0777));
  new_dir("s", 01777, 1000, 1000); /* user 1000's directory */
  static const struct {
    uid_t owner, who;
    unsigned long caps;
    int ok;
  } t[] = {{1001, 1001, 0, 1}, {1001, 1000, 0, 1},
           {1001, 1002, 0, 0}, {1001, 1002, CAP(DAC_OVERRIDE), 0},
           {0, 1002, 0, 0},    {1001, 1002, CAP(FOWNER), 1},
           {0, 1000, 0, 1}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    new_file("s/f", 0666, t[i].owner, 1);
    new_dir("s/d", 0777, t[i].owner, 1);
    new_file("other", 0666, 0, 0);
    WITH_CAPS(
        t[i].who, 1, t[i].caps,
        if (t[i].ok) {
          CHECK_OK(rename("s/f", "s/g"));
          CHECK_OK(rename("s/g", "s/f"));
          CHECK_OK(unlink("s/f"));
          CHECK_OK(rmdir("s/d"));
        } else {
          CHECK_ERRNO(unlink("s/f"), EPERM);
          CHECK_ERRNO(rmdir("s/d"), EPERM);
          CHECK_ERRNO(rename("s/f", "s/g"), EPERM);
          CHECK_ERRNO(rename("s/f", "g"), EPERM);
          CHECK_ERRNO(rename("other", "s/f"), EPERM); /* replacing is deleting */
          CHECK_ERRNO(renameat2(AT_FDCWD, "other", AT_FDCWD, "s/f", RENAME_EXCHANGE), EPERM);
          CHECK_OK(link("other", "s/h") == 0 || errno == EPERM ? 0 : -1);
          unlink("s/h");
        });
    unlink("s/f");
    rmdir("s/d");
    unlink("s/h");
    SYS(unlink("other"));
  }
}

/* user.* attributes of a sticky directory are its owner's. */
TMPFS_TEST(sticky_attributes) {
  SYS(chmod(".", 0777));
  new_dir("s", 01777, 1000, 1000);
  new_dir("t", 0777, 1000, 1000);
  AS(1001, 1001, 0, CHECK_ERRNO(setxattr("s", "user.x", "1", 1, 0), EPERM);
     CHECK_OK(setxattr("t", "user.x", "1", 1, 0)); CHECK_ERRNO(removexattr("s", "user.x"), EPERM);
     CHECK_ERRNO(getxattr("s", "user.x", NULL, 0), ENODATA));
  AS(1000, 1000, 0, CHECK_OK(setxattr("s", "user.x", "1", 1, 0)));
  AS(1001, 1001, 0, CHECK_EQ(getxattr("s", "user.x", NULL, 0), 1));
}

/* ---- Set-group-ID directories ---- */

TMPFS_TEST(setgid_inheritance) {
  struct stat st;

  SYS(chmod(".", 0777));
  umask(0);
  new_dir("d", 02777, 0, 5000);
  AS(1000, 1000, 0, umask(0); close((int)SYS(open("d/f", O_CREAT | O_WRONLY, 02775)));
     close((int)SYS(open("d/g", O_CREAT | O_WRONLY, 02765))); SYS(mkdir("d/e", 0755));
     SYS(mknod("d/p", S_IFIFO | 02777, 0)); SYS(symlink("x", "d/l"));
     int fd = (int)SYS(open("d", O_TMPFILE | O_RDWR, 02777)); SYS(fstat(fd, &st));
     CHECK_EQ(st.st_mode & 07777, 0777); CHECK_EQ(st.st_gid, 5000));
  SYS(stat("d/f", &st));
  CHECK_EQ(st.st_gid, 5000);
  CHECK_EQ(st.st_mode & 07777, 0775); /* not in the group: no set-group-ID program */
  CHECK_EQ(mode_of("d/g"), 02765);    /* without the x bit it means something else */
  CHECK_EQ(mode_of("d/e"), 02755);
  CHECK_EQ(mode_of("d/p"), 0777);
  SYS(lstat("d/l", &st));
  CHECK_EQ(st.st_gid, 5000);
  AS(1000, 1000, 5000, umask(0); close((int)SYS(open("d/h", O_CREAT | O_WRONLY, 02775))));
  CHECK_EQ(mode_of("d/h"), 02775);
  WITH_CAPS(1000, 1000, CAP(FSETID), umask(0); close((int)SYS(open("d/i", O_CREAT | O_WRONLY, 02775))));
  CHECK_EQ(mode_of("d/i"), 02775);
  SYS(chmod("d", 0777));
  AS(1000, 1000, 0, umask(0); close((int)SYS(open("d/j", O_CREAT | O_WRONLY, 06775))));
  CHECK_EQ(mode_of("d/j"), 06775);
  SYS(stat("d/j", &st));
  CHECK_EQ(st.st_gid, 1000);
}

/* ---- Set-id bits that go ---- */

TMPFS_TEST(setid_chmod) {
  SYS(chmod(".", 0777));
  new_file("f", 0644, 1000, 2000);
  new_dir("d", 0755, 1000, 2000);
  AS(1000, 1000, 0, CHECK_OK(chmod("f", 06755)); CHECK_OK(chmod("d", 03755)));
  CHECK_EQ(mode_of("f"), 04755);
  CHECK_EQ(mode_of("d"), 01755);
  AS(1000, 1000, 2000, CHECK_OK(chmod("f", 06755)); CHECK_OK(chmod("d", 02755)));
  CHECK_EQ(mode_of("f"), 06755);
  CHECK_EQ(mode_of("d"), 02755);
  WITH_CAPS(1000, 1000, CAP(FSETID), CHECK_OK(chmod("f", 02644)));
  CHECK_EQ(mode_of("f"), 02644);
}

static const mode_t before[] = {06755, 06744, 02755, 02744, 04700, 06777, 02777, 02767};

TMPFS_TEST(setid_chown) {
  static const mode_t root[] = {0755, 02744, 0755, 02744, 0700, 0777, 0777, 02767};
  static const mode_t owner[] = {0755, 0744, 0755, 0744, 0700, 0777, 0777, 0767};

  SYS(chmod(".", 0777));
  new_file("f", 0, 1000, 2000);
  new_dir("d", 0, 1000, 2000);
  for (int i = 0; i < 8; i++) {
    SYS(chmod("f", before[i]));
    SYS(chown("f", 1000, 2000));
    CHECK_EQ(mode_of("f"), root[i]);
    SYS(chmod("f", before[i]));
    SYS(chown("f", -1, -1));
    CHECK_EQ(mode_of("f"), root[i]);
    SYS(chmod("f", before[i]));
    AS(1000, 1000, 0, CHECK_OK(chown("f", 1000, -1)));
    CHECK_EQ(mode_of("f"), owner[i]);
    SYS(chmod("d", before[i]));
    AS(1000, 1000, 0, CHECK_OK(chown("d", 1000, -1)));
    CHECK_EQ(mode_of("d"), before[i]);
    SYS(chown("d", 1000, 2000));
    CHECK_EQ(mode_of("d"), before[i]);
  }
}

/* Who may not change the mode may not change the owner of a file that would lose such bits, not even to what it is; and what holds for
 * programs holds for everything but directories. */
TMPFS_TEST(setid_chown_by_others) {
  SYS(chmod(".", 0777));
  new_file("f", 04755, 1000, 1000);
  SYS(mkfifo("p", 0600));
  AS(2000, 2000, 0, CHECK_ERRNO(chown("f", -1, -1), EPERM));
  WITH_CAPS(2000, 2000, CAP(CHOWN), CHECK_ERRNO(chown("f", -1, 5), EPERM));
  WITH_CAPS(2000, 2000, CAP(CHOWN) | CAP(FOWNER), CHECK_OK(chown("f", -1, 5)));
  CHECK_EQ(mode_of("f"), 0755);
  AS(2000, 2000, 0, CHECK_OK(chown("f", -1, -1)));
  SYS(chmod("p", 06711));
  SYS(chown("p", 5, 5));
  CHECK_EQ(mode_of("p"), 0711);
}

/* Writing, truncating and allocating take them too, but not from CAP_FSETID. */
TMPFS_TEST(setid_write) {
  static const mode_t other[] = {0755, 0744, 0755, 0744, 0700, 0777, 0777, 0767};

  SYS(chmod(".", 0777));
  new_file("f", 0, 1000, 2000);
  for (int i = 0; i < 8; i++)
    for (int how = 0; how < 6; how++) {
      SYS(chmod("f", before[i]));
      int fd = (int)SYS(open("f", O_RDWR));
      AS(
          3000, 3000, 0, if (how == 0) CHECK_OK(write(fd, "x", 1));
          if (how == 1) CHECK_OK(pwrite(fd, "x", 1, 0)); if (how == 2) CHECK_OK(ftruncate(fd, 0));
          if (how == 3) CHECK_OK(fallocate(fd, 0, 0, 100)); if (how == 4) CHECK_OK(write(fd, "", 0));
          if (how == 5) {
            struct iovec v = {(void *)"ab", 2};
            CHECK_OK(syscall(SYS_writev, fd, &v, 1));
          });
      if (mode_of("f") != (how == 4 ? before[i] : other[i]))
        check_fail(__FILE__, __LINE__, "mode %o way %d: %o", before[i], how, mode_of("f"));
      SYS(chmod("f", before[i]));
      SYS(write(fd, "x", 1));
      SYS(ftruncate(fd, 0));
      CHECK_EQ(mode_of("f"), before[i]);
      SYS(close(fd));
    }
  SYS(chmod("f", 06777));
  AS(3000, 3000, 0, CHECK_OK(truncate("f", 0)));
  CHECK_EQ(mode_of("f"), 0777);
  SYS(chmod("f", 06777));
  AS(3000, 3000, 0, CHECK_EQ(may_open("f", O_WRONLY | O_TRUNC), 0));
  CHECK_EQ(mode_of("f"), 0777);
  SYS(chmod("f", 06777));
  AS(3000, 3000, 0, CHECK_EQ(may_open("f", O_WRONLY), 0));
  CHECK_EQ(mode_of("f"), 06777);
}

/* ---- Links, fifos and files of others in sticky directories ---- */

static int sysctl_of(const char *name) {
  char path[100];

  sprintf(path, "/proc/sys/fs/%s", name);
  char *text = read_file(path, NULL);
  int v = text ? atoi(text) : -1;
  free(text);
  return v;
}

/* The sandbox's are its own, so that both values can be looked at; the host's are only read. */
static bool sysctl_set(const char *name, int value) {
  char path[100], text[2] = {(char)('0' + value), 0};

  if (!check_in_sandbox)
    return sysctl_of(name) == value;
  sprintf(path, "/proc/sys/fs/%s", name);
  int fd = (int)SYS(open(path, O_WRONLY));
  CHECK_OK(write(fd, text, 1));
  close(fd);
  CHECK_EQ(sysctl_of(name), value);
  return true;
}

TMPFS_TEST(protected_sysctls) {
  CHECK(sysctl_of("protected_symlinks") >= 0);
  CHECK(sysctl_of("protected_hardlinks") >= 0);
  CHECK(sysctl_of("protected_fifos") >= 0);
  CHECK(sysctl_of("protected_regular") >= 0);
  if (!check_in_sandbox)
    return;
  int fd = (int)SYS(open("/proc/sys/fs/protected_fifos", O_WRONLY));
  CHECK_ERRNO(write(fd, "3\n", 2), EINVAL);
  CHECK_ERRNO(write(fd, "x\n", 2), EINVAL);
  CHECK_ERRNO(write(fd, "-1\n", 3), EINVAL);
  CHECK_OK(write(fd, "2\n", 2));
  CHECK_EQ(sysctl_of("protected_fifos"), 2);
  AS(1000, 1000, 0, CHECK_ERRNO(open("/proc/sys/fs/protected_fifos", O_WRONLY), EACCES));
}

TMPFS_TEST(protected_hardlinks) {
  SYS(chmod(".", 0777));
  new_file("own", 0600, 1000, 1000);
  new_file("other", 0644, 0, 0);
  new_file("open", 0666, 0, 0);
  new_file("setuid", 04777, 0, 0);
  new_file("setgid", 02777, 0, 0);
  new_file("mandatory", 02767, 0, 0);
  SYS(mkfifo("fifo", 0666));
  SYS(symlink("x", "link"));
  for (int on = 0; on < 2; on++) {
    if (!sysctl_set("protected_hardlinks", on))
      continue;
    AS(1000, 1000, 0, CHECK_OK(link("own", "l1")); CHECK_EQ(link("other", "l2"), on ? -1 : 0);
       if (on) CHECK_EQ(errno, EPERM); CHECK_OK(link("open", "l3"));
       CHECK_EQ(link("setuid", "l4"), on ? -1 : 0); CHECK_EQ(link("setgid", "l5"), on ? -1 : 0);
       CHECK_OK(link("mandatory", "l6")); CHECK_EQ(link("fifo", "l7"), on ? -1 : 0);
       CHECK_EQ(link("link", "l8"), on ? -1 : 0));
    for (int i = 1; i <= 8; i++) {
      char name[3] = {'l', (char)('0' + i), 0};
      unlink(name);
    }
    new_dir("shut", 0755, 0, 0);
    AS(1000, 1000, 0, CHECK_ERRNO(link("setuid", "shut/l"), on ? EPERM : EACCES);
       CHECK_ERRNO(link("own", "shut/l"), EACCES));
    SYS(rmdir("shut"));
    WITH_CAPS(1000, 1000, CAP(FOWNER), CHECK_OK(link("other", "l2")); CHECK_OK(link("setuid", "l4"));
              CHECK_OK(link("fifo", "l7")); SYS(unlink("l2")); SYS(unlink("l4")); SYS(unlink("l7")));
    WITH_CAPS(1000, 1000, CAP(DAC_OVERRIDE), CHECK_EQ(link("setuid", "l4"), on ? -1 : 0); unlink("l4"));
  }
}

TMPFS_TEST(protected_symlinks) {
  SYS(chmod(".", 0777));
  new_dir("s", 01777, 1000, 1000);
  new_dir("t", 01755, 1000, 1000);
  new_file("f", 0666, 0, 0);
  SYS(symlink("../f", "s/mine"));
  SYS(lchown("s/mine", 1001, 1001));
  SYS(symlink("../f", "s/dirs")); /* the directory's owner's */
  SYS(lchown("s/dirs", 1000, 1000));
  SYS(symlink("../f", "t/other"));
  for (int on = 0; on < 2; on++) {
    if (!sysctl_set("protected_symlinks", on))
      continue;
    struct stat st;
    AS(1001, 1001, 0, CHECK_OK(stat("s/mine", &st)); CHECK_OK(stat("s/dirs", &st)));
    AS(1002, 1002, 0, CHECK_EQ(stat("s/mine", &st), on ? -1 : 0); if (on) CHECK_EQ(errno, EACCES);
       CHECK_OK(lstat("s/mine", &st)); CHECK_OK(stat("s/dirs", &st)); CHECK_OK(stat("t/other", &st));
       char buf[20]; CHECK_OK(readlink("s/mine", buf, sizeof buf));
       CHECK_EQ(may_open("s/mine", O_RDONLY), on ? -EACCES : 0);
       CHECK_EQ(may_open("s/mine", O_RDONLY | O_CREAT), on ? -EACCES : 0));
    CHECK_EQ(may_open("s/mine", O_RDONLY), on ? -EACCES : 0); /* root is no exception */
  }
}

TMPFS_TEST(protected_creation) {
  SYS(chmod(".", 0777));
  new_dir("w", 01777, 1000, 1000); /* world-writable and sticky */
  new_dir("g", 01770, 1000, 0);    /* group-writable */
  new_dir("n", 0777, 1000, 1000);  /* not sticky */
  for (int i = 0; i < 3; i++) {
    char p[20];
    sprintf(p, "%c/f", "wgn"[i]);
    new_file(p, 0666, 1001, 1001);
    sprintf(p, "%c/p", "wgn"[i]);
    SYS(mkfifo(p, 0666));
    SYS(chmod(p, 0666));
    SYS(chown(p, 1001, 1001));
    sprintf(p, "%c/d", "wgn"[i]);
    new_file(p, 0666, 1000, 1000);
  }
  for (int level = 0; level < 3; level++) {
    const int fl = O_RDWR | O_CREAT | O_NONBLOCK;
    if (sysctl_set("protected_regular", level)) {
      CHECK_EQ(may_open("w/f", fl), level ? -EACCES : 0); /* root too */
      CHECK_EQ(may_open("g/f", fl), level > 1 ? -EACCES : 0);
      CHECK_EQ(may_open("n/f", fl), 0);
      CHECK_EQ(may_open("w/d", fl), 0);
      CHECK_EQ(may_open("w/f", O_RDWR), 0);
      AS(1001, 1001, 0, CHECK_EQ(may_open("w/f", fl), 0));
      AS(1002, 1002, 0, CHECK_EQ(may_open("w/f", fl), level ? -EACCES : 0));
    }
    if (sysctl_set("protected_fifos", level)) {
      CHECK_EQ(may_open("w/p", fl), level ? -EACCES : 0);
      CHECK_EQ(may_open("g/p", fl), level > 1 ? -EACCES : 0);
      CHECK_EQ(may_open("n/p", fl), 0);
      CHECK_EQ(may_open("w/p", O_RDWR | O_NONBLOCK), 0);
      AS(1001, 1001, 0, CHECK_EQ(may_open("w/p", fl), 0));
    }
  }
}

/* ---- Inode flags (ioctl_iflags(2)) ---- */

static int set_flags(const char *path, int flags) {
  int fd = (int)SYS(open(path, O_RDONLY | O_NONBLOCK)), r = ioctl(fd, FS_IOC_SETFLAGS, &flags), e = errno;

  close(fd);
  errno = e;
  return r;
}

TMPFS_TEST(inode_flags) {
  int flags = -1;

  new_file("f", 0666, 0, 0);
  int fd = (int)SYS(open("f", O_RDWR));
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
    SKIP("this kernel's tmpfs has no inode flags");
  CHECK_EQ(flags, 0);
  CHECK_OK(set_flags("f", FS_NODUMP_FL | FS_NOATIME_FL));
  SYS(ioctl(fd, FS_IOC_GETFLAGS, &flags));
  CHECK_EQ(flags, FS_NODUMP_FL | FS_NOATIME_FL);
  CHECK_ERRNO(set_flags("f", FS_COMPR_FL), EOPNOTSUPP);
  CHECK_ERRNO(set_flags("f", FS_NODUMP_FL | FS_JOURNAL_DATA_FL), EOPNOTSUPP);
  SYS(chmod(".", 0777));
  SYS(chown("f", 1000, 1000));
  AS(1001, 1001, 0, CHECK_ERRNO(set_flags("f", 0), EPERM));
  AS(1000, 1000, 0, CHECK_OK(set_flags("f", 0)); CHECK_ERRNO(set_flags("f", FS_IMMUTABLE_FL), EPERM);
     CHECK_ERRNO(set_flags("f", FS_APPEND_FL), EPERM));
  WITH_CAPS(1000, 1000, CAP(LINUX_IMMUTABLE), CHECK_OK(set_flags("f", FS_IMMUTABLE_FL)));
  AS(1000, 1000, 0, CHECK_ERRNO(set_flags("f", 0), EPERM); CHECK_OK(set_flags("f", FS_IMMUTABLE_FL)));
  CHECK_OK(set_flags("f", 0));
}

TMPFS_TEST(immutable) {
  new_file("f", 0666, 0, 0);
  SYS(mkdir("d", 0777));
  new_file("d/f", 0666, 0, 0);
  int fd = (int)SYS(open("f", O_RDWR));
  struct timespec ts[2] = {{1, 0}, {2, 0}};
  if (set_flags("f", FS_IMMUTABLE_FL) < 0)
    SKIP("this kernel's tmpfs has no inode flags");
  CHECK_EQ(write(fd, "x", 1), 1); /* who has it open goes on */
  CHECK_OK(ftruncate(fd, 0));
  CHECK_ERRNO(fallocate(fd, 0, 0, 10), EPERM);
  CHECK_EQ(may_open("f", O_WRONLY), -EPERM);
  CHECK_EQ(may_open("f", O_WRONLY | O_APPEND), -EPERM);
  CHECK_EQ(may_open("f", O_RDONLY), 0);
  CHECK_EQ(may_open("f", O_RDONLY | O_TRUNC), -EPERM);
  CHECK_ERRNO(chmod("f", 0600), EPERM);
  CHECK_ERRNO(fchmod(fd, 0600), EPERM);
  CHECK_ERRNO(chown("f", 5, 5), EPERM);
  CHECK_OK(chown("f", -1, -1));
  CHECK_ERRNO(utimensat(AT_FDCWD, "f", NULL, 0), EPERM);
  CHECK_ERRNO(utimensat(AT_FDCWD, "f", ts, 0), EPERM);
  CHECK_ERRNO(link("f", "g"), EPERM);
  CHECK_ERRNO(unlink("f"), EPERM);
  CHECK_ERRNO(rename("f", "g"), EPERM);
  CHECK_ERRNO(rename("d/f", "f"), EPERM);
  CHECK_ERRNO(truncate("f", 0), EPERM);
  CHECK_ERRNO(setxattr("f", "user.a", "1", 1, 0), EPERM);
  CHECK_ERRNO(setxattr("f", "trusted.a", "1", 1, 0), EPERM);
  CHECK_ERRNO(removexattr("f", "system.posix_acl_access"), EPERM);
  CHECK_ERRNO(access("f", W_OK), EPERM);
  SYS(chmod(".", 0777));
  AS(1000, 1000, 0, CHECK_ERRNO(utimensat(AT_FDCWD, "f", NULL, 0), EPERM));
  SYS(set_flags("f", 0));
  SYS(set_flags("d", FS_IMMUTABLE_FL));
  CHECK_ERRNO(unlink("d/f"), EPERM);
  CHECK_ERRNO(mkdir("d/e", 0777), EPERM);
  CHECK_ERRNO(open("d/g", O_CREAT | O_RDWR, 0600), EPERM);
  CHECK_ERRNO(open("d", O_TMPFILE | O_RDWR, 0600), EPERM);
  CHECK_ERRNO(rename("f", "d/g"), EPERM);
  CHECK_EQ(may_open("d/f", O_RDWR), 0);
  struct statx sx;
  SYS(statx(AT_FDCWD, "d", 0, STATX_BASIC_STATS, &sx));
  CHECK(sx.stx_attributes_mask & STATX_ATTR_IMMUTABLE);
  CHECK(sx.stx_attributes & STATX_ATTR_IMMUTABLE);
  SYS(set_flags("d", 0));
}

TMPFS_TEST(append_only) {
  new_file("f", 0666, 0, 0);
  SYS(mkdir("d", 0777));
  new_file("d/f", 0666, 0, 0);
  int fd = (int)SYS(open("f", O_RDWR));
  struct timespec ts[2] = {{1, 0}, {2, 0}};
  if (set_flags("f", FS_APPEND_FL) < 0)
    SKIP("this kernel's tmpfs has no inode flags");
  CHECK_EQ(may_open("f", O_WRONLY), -EPERM);
  CHECK_EQ(may_open("f", O_RDWR | O_APPEND), 0);
  CHECK_EQ(may_open("f", O_WRONLY | O_APPEND | O_TRUNC), -EPERM);
  CHECK_ERRNO(chmod("f", 0600), EPERM);
  CHECK_ERRNO(chown("f", 5, 5), EPERM);
  CHECK_OK(utimensat(AT_FDCWD, "f", NULL, 0));
  CHECK_ERRNO(utimensat(AT_FDCWD, "f", ts, 0), EPERM);
  CHECK_ERRNO(link("f", "g"), EPERM);
  CHECK_ERRNO(unlink("f"), EPERM);
  CHECK_ERRNO(rename("f", "g"), EPERM);
  CHECK_ERRNO(truncate("f", 0), EPERM);
  CHECK_ERRNO(ftruncate(fd, 0), EPERM);
  CHECK_ERRNO(setxattr("f", "user.a", "1", 1, 0), EPERM);
  CHECK_OK(fallocate(fd, 0, 0, 10));
  CHECK_ERRNO(fallocate(fd, 3, 0, 10), EPERM);
  int ap = (int)SYS(open("f", O_WRONLY | O_APPEND));
  CHECK_ERRNO(fcntl(ap, F_SETFL, 0), EPERM);
  SYS(set_flags("f", 0));
  SYS(set_flags("d", FS_APPEND_FL));
  CHECK_OK(mkdir("d/e", 0777));
  CHECK_ERRNO(rmdir("d/e"), EPERM);
  CHECK_ERRNO(unlink("d/f"), EPERM);
  CHECK_ERRNO(rename("d/f", "d/g"), EPERM);
  CHECK_OK(rename("f", "d/h"));
  SYS(set_flags("d", 0));
}

/* ---- Others ---- */

TMPFS_TEST(chroot_and_links) {
  SYS(mkdir("r", 0755));
  SYS(mkdir("r/in", 0755));
  new_file("r/in/f", 0644, 0, 0);
  new_file("f", 0644, 0, 0);
  SYS(symlink("/in/f", "r/abs"));
  SYS(symlink("../../../../in/f", "r/in/up"));
  SYS(symlink("/f", "r/out"));
  WAIT_OK(CHILD(SYS(chroot("r")); struct stat st; CHECK_OK(stat("/abs", &st)); CHECK_OK(stat("/in/up", &st));
                CHECK_ERRNO(stat("/out", &st), ENOENT); SYS(chdir("/")); CHECK_OK(stat("../../in/f", &st))));
  AS(1000, 1000, 0, CHECK_ERRNO(chroot("r"), EPERM));
}

TMPFS_TEST(device_nodes) {
  SYS(chmod(".", 0777));
  WITH_CAPS(1000, 1000, 0, CHECK_ERRNO(mknod("c", S_IFCHR | 0666, 0x103), EPERM);
            CHECK_ERRNO(mknod("b", S_IFBLK | 0666, 0x103), EPERM); CHECK_OK(mknod("w", S_IFCHR | 0666, 0));
            CHECK_OK(mknod("p", S_IFIFO | 0666, 0)); CHECK_OK(mknod("s", S_IFSOCK | 0666, 0));
            CHECK_OK(renameat2(AT_FDCWD, "p", AT_FDCWD, "q", RENAME_WHITEOUT)));
  WITH_CAPS(1000, 1000, CAP(MKNOD), CHECK_OK(mknod("c", S_IFCHR | 0666, 0x103)));
}
