/* SPDX-License-Identifier: Apache-2.0 */
/* acl.c - POSIX access control lists as attributes (acl(5), xattr(7)): form, check, mask and mode, inheritance. */
#include "on-tmpfs.h"

#include <sys/xattr.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"
enum { U = 1, USER = 2, G = 4, GROUP = 8, M = 16, O = 32 };
#define NOBODY 0xffffffffu

typedef struct {
  uint16_t tag, perm;
  uint32_t id;
} Ace;
typedef struct {
  uint32_t version;
  Ace e[16];
} AclValue;

#define N(...) (sizeof((Ace[]){__VA_ARGS__}) / sizeof(Ace))
#define SET(path, which, ...) set_acl(path, which, (Ace[]){__VA_ARGS__}, N(__VA_ARGS__))

static int set_acl(const char *path, const char *which, const Ace *e, size_t n) {
  AclValue v = {.version = 2};

  memcpy(v.e, e, n * sizeof *e);
  return setxattr(path, which, &v, 4 + n * sizeof *e, 0);
}

/* "u::rwx,u:1000:r--,..." with numbers for permissions: "u7 u1000:4 g5 m5 o0". */
static const char *get_acl(const char *path, const char *which) {
  static char text[4][400];
  static unsigned turn;
  char *out = text[turn++ % 4];
  AclValue v;
  ssize_t n = getxattr(path, which, &v, sizeof v);

  *out = 0;
  if (n < 0)
    return errno == ENODATA ? "none" : strerror(errno);
  for (int i = 0; i < (n - 4) / 8; i++) {
    const Ace *a = &v.e[i];
    char c = a->tag & (U | USER) ? 'u' : a->tag & (G | GROUP) ? 'g' : a->tag == M ? 'm' : 'o';
    char *end = out + strlen(out);
    if (a->tag & (USER | GROUP))
      sprintf(end, "%s%c%u:%d", i ? " " : "", c, a->id, a->perm);
    else
      sprintf(end, "%s%c%d", i ? " " : "", c, a->perm);
  }
  return out;
}

TMPFS_TEST(acl_stored) {
  new_file("f", 0640, 0, 0);
  CHECK_STR(get_acl("f", ACCESS), "none");
  CHECK_ERRNO(getxattr("f", DEFAULT, NULL, 0), ENODATA);
  CHECK_OK(SET("f", ACCESS, {U, 6, 0}, {USER, 4, 1000}, {G, 4, 7}, {GROUP, 7, 50}, {M, 5, 1}, {O, 0, 2}));
  CHECK_STR(get_acl("f", ACCESS), "u6 u1000:4 g4 g50:7 m5 o0");
  AclValue v;
  CHECK_EQ(getxattr("f", ACCESS, NULL, 0), 4 + 6 * 8);
  CHECK_EQ(getxattr("f", ACCESS, &v, sizeof v), 4 + 6 * 8);
  CHECK_EQ(v.version, 2);
  CHECK_EQ(v.e[0].id, NOBODY);
  CHECK_EQ(v.e[4].id, NOBODY);
  CHECK_ERRNO(getxattr("f", ACCESS, &v, 20), ERANGE);
  CHECK_EQ(mode_of("f"), 0650); /* the group bits show the mask */
  char list[200] = "";
  CHECK_EQ(listxattr("f", list, sizeof list), (long)sizeof ACCESS);
  CHECK_STR(list, ACCESS);
  CHECK_OK(removexattr("f", ACCESS));
  CHECK_STR(get_acl("f", ACCESS), "none");
  CHECK_EQ(mode_of("f"), 0650);
  CHECK_EQ(listxattr("f", list, sizeof list), 0);
  CHECK_OK(removexattr("f", ACCESS));
}

TMPFS_TEST(acl_minimal_is_mode) {
  new_file("f", 0600, 0, 0);
  CHECK_OK(SET("f", ACCESS, {U, 7, 0}, {G, 5, 0}, {O, 1, 0}));
  CHECK_STR(get_acl("f", ACCESS), "none");
  CHECK_EQ(mode_of("f"), 0751);
  /* With a mask it is more than the mode, even if nobody is named. */
  CHECK_OK(SET("f", ACCESS, {U, 6, 0}, {G, 6, 0}, {M, 4, 0}, {O, 0, 0}));
  CHECK_STR(get_acl("f", ACCESS), "u6 g6 m4 o0");
  CHECK_EQ(mode_of("f"), 0640);
  CHECK_OK(setxattr("f", ACCESS, "", 0, 0)); /* an empty value removes it */
  CHECK_STR(get_acl("f", ACCESS), "none");
  CHECK_EQ(mode_of("f"), 0640);
  AclValue v = {.version = 2};
  CHECK_OK(setxattr("f", ACCESS, &v, 4, 0)); /* so does one without entries */
  CHECK_OK(SET("f", ACCESS, {U, 6, 0}, {USER, 6, 9}, {G, 6, 0}, {M, 4, 0}, {O, 0, 0}));
  CHECK_OK(setxattr("f", ACCESS, &v, 4, 0));
  CHECK_STR(get_acl("f", ACCESS), "none");
}

TMPFS_TEST(acl_refused) {
  AclValue v = {.version = 2};

  new_file("f", 0640, 0, 0);
  SYS(mkdir("d", 0755));
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {G, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {G, 6, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {USER, 4, 5}, {G, 6, 0}, {O, 4, 0}), EINVAL); /* no mask */
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {G, 6, 0}, {GROUP, 4, 5}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {G, 6, 0}, {U, 6, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {U, 6, 0}, {G, 6, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {G, 6, 0}, {O, 4, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 8, 0}, {G, 6, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {G, 6, 0}, {O, 4, 0}, {64, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {3, 6, 0}, {G, 6, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {0, 6, 0}, {G, 6, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {USER, 6, NOBODY}, {G, 6, 0}, {M, 7, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {USER, 6, 1}, {G, 6, 0}, {M, 7, 0}, {M, 7, 0}, {O, 4, 0}), EINVAL);
  CHECK_ERRNO(SET("f", ACCESS, {U, 6, 0}, {G, 6, 0}, {USER, 6, 1}, {M, 7, 0}, {O, 4, 0}), EINVAL);
  CHECK_OK(
      SET("f", ACCESS, {U, 6, 0}, {USER, 6, 2}, {USER, 4, 1}, {USER, 5, 1}, {G, 6, 0}, {M, 7, 0}, {O, 4, 0}));
  CHECK_ERRNO(setxattr("f", ACCESS, &v, 3, 0), EINVAL);
  CHECK_ERRNO(setxattr("f", ACCESS, &v, 11, 0), EINVAL);
  v.version = 1;
  CHECK_ERRNO(setxattr("f", ACCESS, &v, 4, 0), EOPNOTSUPP);
  /* Default lists are for directories; links have none. */
  CHECK_ERRNO(SET("f", DEFAULT, {U, 6, 0}, {G, 6, 0}, {O, 4, 0}), EACCES);
  CHECK_OK(removexattr("f", DEFAULT));
  CHECK_OK(SET("d", DEFAULT, {U, 6, 0}, {G, 6, 0}, {O, 4, 0}));
  CHECK_STR(get_acl("d", DEFAULT), "u6 g6 o4");
  CHECK_EQ(mode_of("d"), 0755);
  SYS(symlink("f", "l"));
  v.version = 2;
  CHECK_ERRNO(lsetxattr("l", ACCESS, &v, 4, 0), EOPNOTSUPP);
  CHECK_ERRNO(lgetxattr("l", ACCESS, &v, sizeof v), EOPNOTSUPP);
  CHECK_ERRNO(lremovexattr("l", ACCESS), EOPNOTSUPP);
  CHECK_ERRNO(setxattr("f", "system.other", "x", 1, 0), EOPNOTSUPP);
  CHECK_ERRNO(getxattr("f", "system.other", &v, sizeof v), EOPNOTSUPP);
}

TMPFS_TEST(acl_owner_only) {
  SYS(chmod(".", 0777));
  new_file("f", 0666, 1000, 1000);
  AS(1001, 1001, 0, CHECK_ERRNO(SET("f", ACCESS, {U, 7, 0}, {G, 7, 0}, {O, 7, 0}), EPERM);
     CHECK_ERRNO(removexattr("f", ACCESS), EPERM); CHECK_STR(get_acl("f", ACCESS), "none"));
  AS(1000, 1000, 0, CHECK_OK(SET("f", ACCESS, {U, 6, 0}, {USER, 6, 1001}, {G, 4, 0}, {M, 6, 0}, {O, 0, 0})));
  AS(1001, 1001, 0, CHECK_STR(get_acl("f", ACCESS), "u6 u1001:6 g4 m6 o0");
     CHECK_OK(access("f", R_OK | W_OK)); CHECK_ERRNO(chmod("f", 0777), EPERM));
  AS(1002, 1002, 0, CHECK_ERRNO(access("f", R_OK), EACCES); CHECK_OK(getxattr("f", ACCESS, NULL, 0)));
  WITH_CAPS(1002, 1002, 1ul << 3 /* CAP_FOWNER */, CHECK_OK(removexattr("f", ACCESS)));
}

static const struct {
  Ace e[7];
  int n;
} lists[] = {
    {{{U, 4, 0}, {USER, 6, 1001}, {G, 1, 0}, {GROUP, 2, 3000}, {M, 7, 0}, {O, 4, 0}}, 6},
    {{{U, 0, 0}, {USER, 7, 1001}, {G, 7, 0}, {GROUP, 7, 3000}, {M, 2, 0}, {O, 7, 0}}, 6},
    {{{U, 7, 0}, {USER, 0, 1001}, {G, 4, 0}, {GROUP, 2, 3000}, {M, 7, 0}, {O, 7, 0}}, 6},
    {{{U, 7, 0}, {USER, 7, 1001}, {G, 4, 0}, {GROUP, 2, 3000}, {M, 0, 0}, {O, 5, 0}}, 6},
    {{{U, 7, 0}, {G, 7, 0}, {M, 4, 0}, {O, 3, 0}}, 4},
    {{{U, 7, 0}, {USER, 5, 1000}, {USER, 1, 1001}, {USER, 7, 1001}, {G, 0, 0}, {M, 7, 0}, {O, 7, 0}}, 7},
};
/* What each of these users may, bit by bit and together, as Linux answers. */
static const struct {
  uid_t uid;
  gid_t gid, group;
  int want[6][8];
} users[] = {
    /* With an empty mask (list 3) Linux looks at the mode bits alone. */
    {1000,
     9,
     0,
     {{1, 0, 0, 0, 1, 0, 0, 0},
      {1, 0, 0, 0, 0, 0, 0, 0},
      {1, 1, 1, 1, 1, 1, 1, 1},
      {1, 1, 1, 1, 1, 1, 1, 1},
      {1, 1, 1, 1, 1, 1, 1, 1},
      {1, 1, 1, 1, 1, 1, 1, 1}}},
    {1001,
     2000,
     3000,
     {{1, 0, 1, 0, 1, 0, 1, 0},
      {1, 0, 1, 0, 0, 0, 0, 0},
      {1, 0, 0, 0, 0, 0, 0, 0},
      {1, 0, 0, 0, 0, 0, 0, 0},
      {1, 0, 0, 0, 1, 0, 0, 0},
      {1, 1, 0, 0, 0, 0, 0, 0}}},
    {1002,
     2000,
     3000,
     {{1, 1, 1, 0, 0, 0, 0, 0},
      {1, 0, 1, 0, 0, 0, 0, 0},
      {1, 0, 1, 0, 1, 0, 0, 0},
      {1, 0, 0, 0, 0, 0, 0, 0},
      {1, 0, 0, 0, 1, 0, 0, 0},
      {1, 0, 0, 0, 0, 0, 0, 0}}},
    {1002,
     9,
     3000,
     {{1, 0, 1, 0, 0, 0, 0, 0},
      {1, 0, 1, 0, 0, 0, 0, 0},
      {1, 0, 1, 0, 0, 0, 0, 0},
      {1, 1, 0, 0, 1, 1, 0, 0},
      {1, 1, 1, 1, 0, 0, 0, 0},
      {1, 1, 1, 1, 1, 1, 1, 1}}},
    {1002,
     9,
     0,
     {{1, 0, 0, 0, 1, 0, 0, 0},
      {1, 1, 1, 1, 1, 1, 1, 1},
      {1, 1, 1, 1, 1, 1, 1, 1},
      {1, 1, 0, 0, 1, 1, 0, 0},
      {1, 1, 1, 1, 0, 0, 0, 0},
      {1, 1, 1, 1, 1, 1, 1, 1}}},
};

TMPFS_TEST(acl_check) {
  SYS(chmod(".", 0777));
  new_file("f", 0600, 1000, 2000);
  new_dir("d", 0700, 1000, 2000);
  for (int l = 0; l < 6; l++) {
    CHECK_OK(set_acl("f", ACCESS, lists[l].e, lists[l].n));
    CHECK_OK(set_acl("d", ACCESS, lists[l].e, lists[l].n));
    for (size_t u = 0; u < sizeof users / sizeof *users; u++)
      AS(
          users[u].uid, users[u].gid, users[u].group, for (int m = 1; m < 8; m++) {
            int got = access("f", m) == 0, dir = access("d", m) == 0;
            if (got != users[u].want[l][m] || dir != got)
              check_fail(__FILE__, __LINE__, "list %d user %zu mask %d: %d %d", l, u, m, got, dir);
          });
  }
}

TMPFS_TEST(acl_opens_and_searches) {
  SYS(chmod(".", 0777));
  new_dir("d", 0700, 0, 0);
  new_file("d/f", 0600, 0, 0);
  AS(1001, 1001, 0, CHECK_ERRNO(open("d/f", O_RDONLY), EACCES));
  CHECK_OK(SET("d", ACCESS, {U, 7, 0}, {USER, 1, 1001}, {G, 0, 0}, {M, 1, 0}, {O, 0, 0}));
  AS(1001, 1001, 0, struct stat st; CHECK_OK(stat("d/f", &st)); CHECK_ERRNO(open("d/f", O_RDONLY), EACCES);
     CHECK_ERRNO(open("d", O_RDONLY), EACCES); CHECK_ERRNO(open("d/g", O_CREAT | O_RDWR, 0600), EACCES);
     CHECK_OK(chdir("d")); CHECK_ERRNO(unlink("f"), EACCES));
  CHECK_OK(SET("d/f", ACCESS, {U, 6, 0}, {USER, 4, 1001}, {G, 0, 0}, {M, 6, 0}, {O, 0, 0}));
  AS(1001, 1001, 0, CHECK_OK(open("d/f", O_RDONLY)); CHECK_ERRNO(open("d/f", O_RDWR), EACCES));
  AS(1002, 1002, 0, CHECK_ERRNO(open("d/f", O_RDONLY), EACCES));
  CHECK_OK(SET("d", ACCESS, {U, 7, 0}, {USER, 7, 1001}, {G, 0, 0}, {M, 7, 0}, {O, 0, 0}));
  AS(1001, 1001, 0, CHECK_OK(open("d/g", O_CREAT | O_RDWR, 0600)); CHECK_OK(rename("d/g", "d/h"));
     CHECK_OK(unlink("d/f")));
}

/* Capabilities help as with mode bits: a file without any x bit, the mask's included, stays closed to root. */
TMPFS_TEST(acl_and_capabilities) {
  SYS(chmod(".", 0777));
  new_file("f", 0600, 1000, 1000);
  CHECK_OK(SET("f", ACCESS, {U, 6, 0}, {USER, 0, 1001}, {G, 0, 0}, {M, 6, 0}, {O, 0, 0}));
  WITH_CAPS(1001, 1001, 1ul << 2 /* DAC_READ_SEARCH */, CHECK_OK(open("f", O_RDONLY));
            CHECK_ERRNO(open("f", O_WRONLY), EACCES));
  WITH_CAPS(1001, 1001, 1ul << 1 /* DAC_OVERRIDE */, CHECK_OK(open("f", O_RDWR));
            CHECK_ERRNO(faccessat(AT_FDCWD, "f", X_OK, AT_EACCESS), EACCES));
  CHECK_OK(SET("f", ACCESS, {U, 6, 0}, {USER, 0, 1001}, {G, 0, 0}, {M, 1, 0}, {O, 0, 0}));
  WITH_CAPS(1001, 1001, 1ul << 1, CHECK_OK(faccessat(AT_FDCWD, "f", X_OK, AT_EACCESS)));
}

TMPFS_TEST(acl_chmod) {
  new_file("f", 0600, 0, 0);
  CHECK_OK(SET("f", ACCESS, {U, 7, 0}, {USER, 7, 1001}, {G, 5, 0}, {M, 7, 0}, {O, 0, 0}));
  SYS(chmod("f", 0641));
  CHECK_STR(get_acl("f", ACCESS), "u6 u1001:7 g5 m4 o1");
  CHECK_EQ(mode_of("f"), 0641);
  SYS(chmod("f", 04777));
  CHECK_STR(get_acl("f", ACCESS), "u7 u1001:7 g5 m7 o7");
  CHECK_EQ(mode_of("f"), 04777);
  SYS(chown("f", 5, 6));
  CHECK_STR(get_acl("f", ACCESS), "u7 u1001:7 g5 m7 o7");
  CHECK_EQ(mode_of("f"), 0777);
  SYS(mkdir("d", 0755));
  CHECK_OK(SET("d", DEFAULT, {U, 7, 0}, {USER, 7, 1001}, {G, 5, 0}, {M, 7, 0}, {O, 0, 0}));
  SYS(chmod("d", 0700));
  CHECK_STR(get_acl("d", DEFAULT), "u7 u1001:7 g5 m7 o0");
  CHECK_STR(get_acl("d", ACCESS), "none");
}

TMPFS_TEST(acl_setgid_goes) {
  SYS(chmod(".", 0777));
  new_file("f", 02755, 1000, 2000);
  AS(1000, 1000, 0, CHECK_OK(SET("f", ACCESS, {U, 7, 0}, {USER, 5, 9}, {G, 5, 0}, {M, 5, 0}, {O, 5, 0})));
  CHECK_EQ(mode_of("f"), 0755);
  SYS(chmod("f", 02755));
  AS(1000, 2000, 0, CHECK_OK(SET("f", ACCESS, {U, 7, 0}, {G, 5, 0}, {O, 5, 0})));
  CHECK_EQ(mode_of("f"), 02755);
  AS(1000, 1000, 0, CHECK_OK(SET("f", ACCESS, {U, 7, 0}, {G, 1, 0}, {O, 5, 0})));
  CHECK_EQ(mode_of("f"), 0715);
  SYS(chmod("f", 02755));
  AS(1000, 1000, 0, CHECK_OK(removexattr("f", ACCESS)));
  CHECK_EQ(mode_of("f"), 0755);
}

TMPFS_TEST(acl_inherited) {
  int fd;

  umask(077);
  SYS(mkdir("d", 0755));
  CHECK_OK(SET("d", DEFAULT, {U, 7, 0}, {USER, 6, 1001}, {G, 5, 0}, {M, 7, 0}, {O, 4, 0}));
  close((int)SYS(open("d/f", O_CREAT | O_WRONLY, 0666)));
  CHECK_EQ(mode_of("d/f"), 0664); /* the umask does not count */
  CHECK_STR(get_acl("d/f", ACCESS), "u6 u1001:6 g5 m6 o4");
  CHECK_STR(get_acl("d/f", DEFAULT), "none");
  close((int)SYS(open("d/g", O_CREAT | O_WRONLY, 0600)));
  CHECK_EQ(mode_of("d/g"), 0600);
  CHECK_STR(get_acl("d/g", ACCESS), "u6 u1001:6 g5 m0 o0");
  SYS(mkdir("d/d", 0777));
  CHECK_EQ(mode_of("d/d"), 0774);
  CHECK_STR(get_acl("d/d", ACCESS), "u7 u1001:6 g5 m7 o4");
  CHECK_STR(get_acl("d/d", DEFAULT), "u7 u1001:6 g5 m7 o4");
  SYS(mknod("d/p", S_IFIFO | 0666, 0));
  CHECK_STR(get_acl("d/p", ACCESS), "u6 u1001:6 g5 m6 o4");
  SYS(mknod("d/n", S_IFREG | 0640, 0));
  CHECK_STR(get_acl("d/n", ACCESS), "u6 u1001:6 g5 m4 o0");
  SYS(symlink("x", "d/l"));
  CHECK_EQ(mode_of("d/l"), 0777);
  SYS(link("d/f", "d/f2"));
  CHECK_STR(get_acl("d/f2", ACCESS), "u6 u1001:6 g5 m6 o4");
  fd = (int)SYS(open("d", O_TMPFILE | O_RDWR, 0662));
  char p[64];
  sprintf(p, "/proc/self/fd/%d", fd);
  CHECK_STR(get_acl(p, ACCESS), "u6 u1001:6 g5 m6 o0");
  /* Without named entries the new file's list is its mode. */
  CHECK_OK(SET("d", DEFAULT, {U, 7, 0}, {G, 7, 0}, {O, 0, 0}));
  close((int)SYS(open("d/h", O_CREAT | O_WRONLY, 0666)));
  CHECK_EQ(mode_of("d/h"), 0660);
  CHECK_STR(get_acl("d/h", ACCESS), "none");
  SYS(mkdir("d/e", 0777));
  CHECK_STR(get_acl("d/e", ACCESS), "none");
  CHECK_STR(get_acl("d/e", DEFAULT), "u7 g7 o0");
  CHECK_EQ(mode_of("d/e"), 0770);
  CHECK_OK(removexattr("d", DEFAULT));
  close((int)SYS(open("d/i", O_CREAT | O_WRONLY, 0666)));
  CHECK_EQ(mode_of("d/i"), 0600);
  /* It is a directory's own: a file that moves in keeps what it had. */
  close((int)SYS(open("j", O_CREAT | O_WRONLY, 0640)));
  SYS(rename("j", "d/e/j"));
  CHECK_EQ(mode_of("d/e/j"), 0600);
}

TMPFS_TEST(acl_descriptors) {
  AclValue v = {2, {{U, 6, 0}, {USER, 6, 1001}, {G, 5, 0}, {M, 7, 0}, {O, 4, 0}}};
  int fd = (int)SYS(open("f", O_CREAT | O_RDONLY, 0600)), path = (int)SYS(open("f", O_PATH));
  char proc[64];

  CHECK_OK(fsetxattr(fd, ACCESS, &v, 4 + 5 * 8, 0));
  CHECK_ERRNO(fsetxattr(path, ACCESS, &v, 4 + 5 * 8, 0), EBADF);
  CHECK_ERRNO(fgetxattr(path, ACCESS, &v, sizeof v), EBADF);
  CHECK_ERRNO(flistxattr(path, NULL, 0), EBADF);
  CHECK_ERRNO(fremovexattr(path, ACCESS), EBADF);
  sprintf(proc, "/proc/self/fd/%d", path);
  CHECK_STR(get_acl(proc, ACCESS), "u6 u1001:6 g5 m7 o4");
  /* The flags of setxattr(2) mean nothing here. */
  CHECK_OK(fsetxattr(fd, ACCESS, &v, 4 + 5 * 8, XATTR_CREATE));
  SYS(fremovexattr(fd, ACCESS));
  CHECK_OK(fsetxattr(fd, ACCESS, &v, 4 + 5 * 8, XATTR_REPLACE));
  CHECK_ERRNO(setxattr(proc, DEFAULT, &v, 4 + 5 * 8, 0), EACCES);
}

/* An overlay keeps lists in its upper layer, and goes by them. */
TMPFS_TEST(acl_on_overlay) {
  SYS(chmod(".", 0777));
  SYS(mkdir("l", 0755));
  SYS(mkdir("u", 0755));
  SYS(mkdir("w", 0755));
  SYS(mkdir("m", 0755));
  new_file("l/listed", 0600, 0, 0);
  new_file("l/plain", 0600, 0, 0);
  new_dir("l/d", 0755, 0, 0);
  SET("l/listed", ACCESS, {U, 6, 0}, {USER, 6, 1001}, {G, 0, 0}, {M, 6, 0}, {O, 0, 0});
  if (mount("x", "m", "overlay", 0, "lowerdir=l,upperdir=u,workdir=w") < 0)
    SKIP("no overlay filesystem: %s", strerror(errno));
  AS(1001, 1001, 0, CHECK_OK(access("m/listed", R_OK | W_OK)); CHECK_ERRNO(access("m/plain", R_OK), EACCES));
  AS(1002, 1002, 0, CHECK_ERRNO(access("m/listed", R_OK), EACCES));
  CHECK_OK(SET("m/plain", ACCESS, {U, 6, 0}, {USER, 4, 1002}, {G, 0, 0}, {M, 4, 0}, {O, 0, 0}));
  AS(1002, 1002, 0, CHECK_OK(access("m/plain", R_OK)); CHECK_ERRNO(access("m/plain", W_OK), EACCES));
  CHECK_STR(get_acl("l/plain", ACCESS), "none");
  CHECK_STR(get_acl("m/plain", ACCESS), "u6 u1002:4 g0 m4 o0");
  AS(1001, 1001, 0, CHECK_EQ(truncate("m/listed", 3), 0)); /* copied up with its list */
  AS(1001, 1001, 0, CHECK_OK(access("m/listed", R_OK | W_OK)));
  CHECK_STR(get_acl("m/listed", ACCESS), "u6 u1001:6 g0 m6 o0");
  SYS(chmod("m/plain", 0600));
  AS(1002, 1002, 0, CHECK_ERRNO(access("m/plain", R_OK), EACCES));
  CHECK_OK(SET("m/d", DEFAULT, {U, 7, 0}, {USER, 7, 1003}, {G, 5, 0}, {M, 7, 0}, {O, 0, 0}));
  umask(077);
  close((int)SYS(open("m/d/new", O_CREAT | O_WRONLY, 0666)));
  CHECK_STR(get_acl("m/d/new", ACCESS), "u6 u1003:7 g5 m6 o0");
  AS(1003, 1003, 0, CHECK_OK(access("m/d/new", R_OK | W_OK)));
  CHECK_OK(removexattr("m/d/new", ACCESS));
  AS(1003, 1003, 0, CHECK_ERRNO(access("m/d/new", R_OK), EACCES));
  SYS(umount("m"));
}

/* Four threads change a list while others are checked against it: nothing breaks, and no answer is neither. */
TMPFS_TEST(acl_race) {
  volatile int *stop = map_shared(PAGE);
  pid_t pid[4];

  SYS(chmod(".", 0777));
  new_dir("d", 0700, 0, 0);
  new_file("d/f", 0600, 0, 0);
  for (int i = 0; i < 4; i++) {
    pid[i] = CHILD(
        if (i < 2) {
          while (!*stop) {
            SET("d", ACCESS, {U, 7, 0}, {USER, 1, 1001}, {G, 0, 0}, {M, 1, 0}, {O, 0, 0});
            if (i)
              removexattr("d", ACCESS);
            chmod("d", 0710);
          }
        } else {
          SYS(setresgid(1001, 1001, 1001));
          SYS(setresuid(1001, 1001, 1001));
          while (!*stop) {
            struct stat st;
            int r = stat("d/f", &st);
            CHECK(r == 0 || errno == EACCES);
          }
        });
  }
  sleep_ms(700);
  *stop = 1;
  for (int i = 0; i < 4; i++)
    WAIT_OK(pid[i]);
}
