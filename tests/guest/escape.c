/* SPDX-License-Identifier: Apache-2.0 */
/* escape.c - threads that try to leave a tree: directories are moved, exchanged with links and mounted on while others walk through them
 * with "..". Natively, and below a directory of the host with a secret outside of it (tests/e2e/run-roots.c calls the helpers). */
#include "check.h"

#include <linux/openat2.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SECRET "TOP-SECRET"

static volatile int stop_now;
static volatile long looked, found;
static const char *outside; /* path of the secret on the host, or NULL */
static char base[512];

static void check_content(int fd, const char *how) {
  char buf[sizeof SECRET] = "";
  ssize_t n = pread(fd, buf, sizeof buf - 1, 0);
  __atomic_add_fetch(&looked, 1, __ATOMIC_RELAXED);
  if (n > 0 && strncmp(buf, SECRET, strlen(SECRET)) == 0) {
    __atomic_add_fetch(&found, 1, __ATOMIC_RELAXED);
    dprintf(2, "escaped: %s\n", how);
  }
}

static void try_path(int dir, const char *path) {
  int fd = openat(dir, path, O_RDONLY | O_NONBLOCK);
  if (fd >= 0) {
    check_content(fd, path);
    close(fd);
  }
  struct stat st;
  fstatat(dir, path, &st, 0);
}

static const char *const paths[] = {
    "a/secret",
    "a/../secret",
    "a/b/../../secret",
    "a/b/c/../../../../secret",
    "b/secret",
    "b/../../secret",
    "link/secret",
    "link/../secret",
    "link/../../secret",
    "f",
    "out/secret",
    "out/../secret",
    "out/in/../../secret",
    "up/secret",
    "up/up/secret",
    "up/out/secret",
    "m/secret",
    "m/../../secret",
    "m/a/../../secret",
    "absolute",
    "a/b/c/up/secret",
    "a/b/../link/secret",
    "out/in/../../../../secret",
    "x/../../secret",
    "fl",
};

static void *walk_paths(void *arg) {
  int top = open(base, O_RDONLY | O_DIRECTORY), deep = -1;
  (void)arg;
  for (unsigned i = 0; !stop_now; i++) {
    try_path(top, paths[i % (sizeof paths / sizeof *paths)]);
    if (i % 16 == 0) {
      if (deep >= 0)
        close(deep);
      deep = openat(top, i & 16 ? "a/b/c" : "out/in", O_PATH | O_DIRECTORY);
    }
    if (deep >= 0) {
      try_path(deep, "../../../secret");
      try_path(deep, "../secret");
      try_path(deep, "../../../../../../secret");
    }
    if (outside)
      try_path(AT_FDCWD, outside);
  }
  close(deep);
  close(top);
  return NULL;
}

/* A walk that shall stay beneath a directory never ends above it, whatever moves meanwhile. */
static void *walk_beneath(void *arg) {
  int top = open(base, O_RDONLY | O_DIRECTORY);
  struct stat above, st;
  fstatat(top, "..", &above, 0);
  (void)arg;
  while (!stop_now) {
    struct open_how how = {.flags = O_PATH, .resolve = RESOLVE_BENEATH};
    int fd = (int)syscall(SYS_openat2, top, "a/b/c/../../../x/../a/b/../..", &how, sizeof how);
    if (fd < 0)
      continue;
    if (fstat(fd, &st) == 0 && st.st_ino == above.st_ino && st.st_dev == above.st_dev)
      __atomic_add_fetch(&found, 1, __ATOMIC_RELAXED);
    close(fd);
  }
  close(top);
  return NULL;
}

static void *move_around(void *arg) {
  int top = open(base, O_RDONLY | O_DIRECTORY);
  (void)arg;
  while (!stop_now) {
    renameat(top, "a/b", top, "x/b2");
    renameat2(top, "a", top, "x", RENAME_EXCHANGE);
    renameat2(top, "b", top, "link", RENAME_EXCHANGE); /* a directory and a link to ".." */
    renameat(top, "a/b2", top, "a/b");
    renameat(top, "x/b2", top, "a/b");
    renameat2(top, "f", top, "fl", RENAME_EXCHANGE);
    renameat(top, "a/b/c", top, "b/c");
    renameat(top, "b/c", top, "a/b/c");
  }
  close(top);
  return NULL;
}

static void *mount_around(void *arg) {
  char m[600], a[600];
  snprintf(m, sizeof m, "%s/m", base);
  snprintf(a, sizeof a, "%s/a", base);
  (void)arg;
  while (!stop_now) {
    if (mount(a, m, NULL, MS_BIND, NULL) == 0)
      umount2(m, MNT_DETACH);
    if (mount("tmpfs", m, "tmpfs", 0, NULL) == 0)
      umount2(m, MNT_DETACH);
    sched_yield();
  }
  return NULL;
}

static void make_tree(void) {
  static const char *const dirs[] = {"a", "a/b", "a/b/c", "b", "x", "m", "out", "out/in"};
  int top = (int)SYS(open(base, O_RDONLY | O_DIRECTORY));
  for (unsigned i = 0; i < sizeof dirs / sizeof *dirs; i++)
    mkdirat(top, dirs[i], 0755);
  symlinkat("..", top, "link");
  symlinkat("..", top, "up");
  symlinkat("../../..", top, "a/b/c/up");
  symlinkat(outside ? outside : "/secret", top, "absolute");
  symlinkat(outside ? outside : "../secret", top, "fl");
  close(openat(top, "f", O_CREAT | O_WRONLY, 0644));
  close(top);
}

static void run_for(unsigned ms, bool mounts) {
  void *(*jobs[])(void *) = {walk_paths, walk_paths, walk_beneath, move_around,
                             mounts ? mount_around : move_around};
  enum { N = sizeof jobs / sizeof *jobs };
  pthread_t t[N];
  stop_now = 0;
  for (int i = 0; i < N; i++)
    SYS(pthread_create(&t[i], NULL, jobs[i], NULL));
  sleep_ms(ms);
  stop_now = 1;
  for (int i = 0; i < N; i++)
    pthread_join(t[i], NULL);
}

/* Within a directory that has nothing secret above it: nothing but errors that must be, and no walk that ends above. */
TEST_LIMIT(walks_stay_beneath, 30) {
  snprintf(base, sizeof base, "%s", tmp_dir());
  make_tree();
  run_for(1500, false);
  CHECK_EQ(found, 0);
}

/* attack DIR MS [SECRET]: 0 if nothing was reached. */
HELPER(attack) {
  if (argc < 2)
    return 2;
  snprintf(base, sizeof base, "%s", argv[0]);
  outside = argc > 2 ? argv[2] : NULL;
  make_tree();
  run_for((unsigned)atoi(argv[1]), true);
  dprintf(1, "looked\n");
  return found || looked == 0;
}

/* Only walks: somebody else moves things. */
HELPER(look) {
  snprintf(base, sizeof base, "%s", argv[0]);
  outside = argc > 2 ? argv[2] : NULL;
  pthread_t t[3];
  for (int i = 0; i < 3; i++)
    SYS(pthread_create(&t[i], NULL, walk_paths, NULL));
  sleep_ms((unsigned)atoi(argv[1]));
  stop_now = 1;
  for (int i = 0; i < 3; i++)
    pthread_join(t[i], NULL);
  dprintf(1, "looked\n");
  return found != 0;
}

static void *swap_names(void *arg) {
  char x[600], y[600], link[600];
  snprintf(x, sizeof x, "%s/x", (char *)arg);
  snprintf(y, sizeof y, "%s/y", (char *)arg);
  snprintf(link, sizeof link, "%s/link", (char *)arg);
  symlink(outside, link);
  while (!stop_now) {
    renameat2(AT_FDCWD, link, AT_FDCWD, x, RENAME_EXCHANGE);
    renameat2(AT_FDCWD, link, AT_FDCWD, x, RENAME_EXCHANGE);
    rename(x, y);
    rmdir(y);
    unlink(y);
  }
  return NULL;
}

/* chase DIR1 DIR2 SECRET MS: two mounts of one host directory, so that the VFS does not see that both are one. What is made in the
 * first is exchanged with a link to the secret through the second, in the hope that the secret gets its mode or owner. */
HELPER(chase) {
  char x[600];
  pthread_t t;
  if (argc < 4)
    return 2;
  outside = argv[2];
  snprintf(x, sizeof x, "%s/x", argv[0]);
  SYS(pthread_create(&t, NULL, swap_names, argv[1]));
  int64_t until = now_ns() + atoi(argv[3]) * 1000000LL;
  while (now_ns() < until) {
    mkdir(x, 0777);
    chmod(x, 0777);
    chown(x, 1234, 1234);
    int fd = open(x, O_RDWR | O_TRUNC | O_NONBLOCK);
    if (fd >= 0) {
      check_content(fd, "by exchange");
      close(fd);
    }
    rmdir(x);
    mkfifo(x, 0777);
    truncate(x, 0);
    unlink(x);
    fd = open(x, O_CREAT | O_WRONLY | O_NONBLOCK, 0777);
    if (fd >= 0) {
      fchmod(fd, 0777);
      close(fd);
    }
    unlink(x);
  }
  stop_now = 1;
  pthread_join(t, NULL);
  dprintf(1, "looked\n");
  return found != 0;
}

/* connect PATH: 0 if a peer answers, else errno. */
HELPER(connect) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  int fd = (int)SYS(socket(AF_UNIX, SOCK_STREAM, 0));
  snprintf(a.sun_path, sizeof a.sun_path, "%s", argv[0]);
  return connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno;
}

/* append FILE: records of 64 bytes for ever; each is one write. */
HELPER(append) {
  char record[64];
  int fd = (int)SYS(open(argv[0], O_CREAT | O_WRONLY | O_APPEND, 0644));
  memset(record, 'r', sizeof record);
  record[63] = '\n';
  dprintf(1, "go\n");
  for (;;)
    if (write(fd, record, sizeof record) != sizeof record)
      return 1;
}

/* replace DIR: writes DIR/new and renames it over DIR/file, for ever. */
HELPER(replace) {
  static char text[8192];
  memset(text, 'w', sizeof text);
  SYS(chdir(argv[0]));
  dprintf(1, "go\n");
  for (;;) {
    int fd = open("new", O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd < 0 || write(fd, text, sizeof text) != sizeof text || close(fd) != 0 || rename("new", "file") != 0)
      return 1;
  }
}

/* copyup DIR N: opens DIR/f0 ... for writing, which copies them up. */
HELPER(copyup) {
  SYS(chdir(argv[0]));
  dprintf(1, "go\n");
  for (int i = 0; i < atoi(argv[1]); i++) {
    char name[32];
    snprintf(name, sizeof name, "f%d", i);
    close(open(name, O_RDWR));
  }
  dprintf(1, "done\n");
  return 0;
}
