/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup.c - control groups version 2 (cgroups(7)) without controllers: the hierarchy, members, events, freezer, kill, clone3,
 * namespaces, delegation. */
#include "cgroup.h"

#include <dirent.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/statfs.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

/* A child that only waits; it dies with its parent. */
static pid_t sleeper(void) { return CHILD(for (;;) pause()); }

static void end(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

/* The path behind "0::" in /proc/PID/cgroup. */
static const char *path_of(pid_t pid) {
  static char ring[4][4096];
  static int next;
  char file[64], *p = ring[next++ % 4];

  snprintf(file, sizeof file, "/proc/%d/cgroup", pid);
  const char *s = strstr(cg_read(file), "0::");
  snprintf(p, sizeof ring[0], "%s", s ? s + 3 : "?");
  p[strcspn(p, "\n")] = 0;
  return p;
}

static bool ends_with(const char *s, const char *tail) {
  size_t n = strlen(s), k = strlen(tail);
  return n >= k && strcmp(s + n - k, tail) == 0;
}

TEST(directories_are_cgroups) {
  const char *base = cg_base(NULL);
  struct stat st;
  struct statfs fs;

  SYS(statfs(base, &fs));
  CHECK_EQ(fs.f_type, 0x63677270);
  SYS(mkdir(cg("a"), 0750));
  SYS(stat(cg("a"), &st));
  CHECK_EQ(st.st_mode, S_IFDIR | 0750);
  static const char *const files[] = {
      "cgroup.procs",           "cgroup.threads", "cgroup.controllers", "cgroup.events",
      "cgroup.subtree_control", "cgroup.stat",    "cgroup.type",        "cgroup.max.descendants",
      "cgroup.max.depth",       "cgroup.freeze",  "cgroup.kill",        "cpu.stat"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    CHECK_OK(access(cg("a/%s", files[i]), F_OK));
  CHECK_STR(cg_read(cg("a/cgroup.type")), "domain\n");
  CHECK_STR(cg_read(cg("a/cgroup.procs")), "");
  CHECK_EQ(cg_value(cg("a/cgroup.events"), "populated"), 0);
  CHECK_ERRNO(mkdir(cg("a"), 0755), EEXIST);
  CHECK_ERRNO(mkdir(cg("a/x\ny"), 0755), EINVAL);
  CHECK_ERRNO(unlink(cg("a/cgroup.procs")), EPERM);
  CHECK(open(cg("a/new"), O_CREAT | O_WRONLY, 0644) < 0);
  SYS(mkdir(cg("a/b"), 0755));
  CHECK_EQ(cg_value(cg("cgroup.stat"), "nr_descendants"), 2);
  CHECK_ERRNO(rmdir(cg("a")), EBUSY);
  SYS(rmdir(cg("a/b")));
  SYS(rmdir(cg("a")));
  CHECK_ERRNO(access(cg("a"), F_OK), ENOENT);
  CHECK_ERRNO(rmdir(cg("a")), ENOENT);
}

TEST(members_move_and_fork) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  SYS(mkdir(cg("b"), 0755));
  pid_t pid = sleeper();

  cg_enter(cg("a"), pid);
  CHECK_EQ(atoi(cg_read(cg("a/cgroup.procs"))), pid);
  CHECK(ends_with(path_of(pid), "/a"));
  CHECK_EQ(cg_value(cg("a/cgroup.events"), "populated"), 1);
  CHECK_EQ(cg_value(cg("cgroup.events"), "populated"), 1);
  CHECK_ERRNO(rmdir(cg("a")), EBUSY);
  cg_enter(cg("b"), pid);
  CHECK_EQ(cg_value(cg("a/cgroup.events"), "populated"), 0);
  CHECK_STR(cg_read(cg("a/cgroup.procs")), "");
  CHECK(ends_with(path_of(pid), "/b"));
  SYS(rmdir(cg("a")));
  end(pid);
  CHECK_EQ(cg_value(cg("b/cgroup.events"), "populated"), 0);
  /* A child is born where its parent is. */
  cg_enter(cg("b"), getpid());
  pid = sleeper();
  CHECK(ends_with(path_of(pid), "/b"));
  end(pid);
  cg_enter(cg(".."), getpid());
  CHECK_ERRNO(cg_write(cg("b/cgroup.procs"), "99999999"), ESRCH);
  CHECK_ERRNO(cg_write(cg("b/cgroup.procs"), "me"), EINVAL);
  CHECK_ERRNO(cg_write(cg("b/cgroup.procs"), "-1"), EINVAL);
}

TEST(a_zombie_does_not_keep_a_cgroup) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  pid_t pid = sleeper();

  cg_enter(cg("a"), pid);
  kill(pid, SIGKILL);
  WAIT_FOR(cg_value(cg("a/cgroup.events"), "populated") == 0);
  CHECK_STR(cg_read(cg("a/cgroup.procs")), "");
  SYS(rmdir(cg("a")));
  SYS(waitpid(pid, NULL, 0));
}

static void *idle_thread(void *p) {
  *(pid_t *)p = gettid();
  for (;;)
    pause();
  return NULL;
}

TEST(all_threads_of_a_process_move) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  pid_t *tid = map_shared(PAGE);
  pid_t pid = CHILD(pthread_t th; pthread_create(&th, NULL, idle_thread, (void *)tid); for (;;) pause());

  WAIT_FOR(*(volatile pid_t *)tid != 0);
  cg_enter(cg("a"), pid);
  const char *threads = cg_read(cg("a/cgroup.threads"));
  char want[64];
  snprintf(want, sizeof want, "%d\n%d\n", pid, *tid);
  CHECK_STR(threads, want);
  snprintf(want, sizeof want, "%d\n", pid);
  CHECK_STR(cg_read(cg("a/cgroup.procs")), want);
  /* Naming one thread moves the whole process. */
  SYS(mkdir(cg("b"), 0755));
  cg_enter(cg("b"), *tid);
  CHECK_STR(cg_read(cg("b/cgroup.procs")), want);
  /* One thread alone does not go elsewhere outside of a threaded subtree. */
  snprintf(want, sizeof want, "%d", *tid);
  CHECK_ERRNO(cg_write(cg("a/cgroup.threads"), want), EOPNOTSUPP);
  end(pid);
}

TEST(events_are_told) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  int fd = (int)SYS(open(cg("a/cgroup.events"), O_RDONLY));
  char buf[128];
  struct pollfd p = {.fd = fd, .events = POLLPRI};

  SYS(read(fd, buf, sizeof buf));
  CHECK_EQ(poll(&p, 1, 20), 0);
  pid_t pid = sleeper();
  cg_enter(cg("a"), pid);
  CHECK_EQ(poll(&p, 1, 2000), 1);
  CHECK(p.revents & POLLPRI);
  SYS(pread(fd, buf, sizeof buf, 0));
  CHECK_EQ(poll(&p, 1, 20), 0);
  kill(pid, SIGKILL); /* told while it waits */
  CHECK_EQ(poll(&p, 1, 2000), 1);
  waitpid(pid, NULL, 0);
}

TEST(events_are_told_to_inotify) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  int fd = inotify_init1(IN_NONBLOCK);
  char buf[512];

  if (fd < 0)
    SKIP("no inotify");
  int wd = (int)SYS(inotify_add_watch(fd, cg("a/cgroup.events"), IN_MODIFY));
  CHECK_ERRNO(read(fd, buf, sizeof buf), EAGAIN);
  pid_t pid = sleeper();
  cg_enter(cg("a"), pid);
  struct pollfd p = {.fd = fd, .events = POLLIN};
  CHECK_EQ(poll(&p, 1, 2000), 1);
  REQUIRE(read(fd, buf, sizeof buf) >= (ssize_t)sizeof(struct inotify_event));
  struct inotify_event *e = (struct inotify_event *)(void *)buf;
  CHECK_EQ(e->wd, wd);
  CHECK_EQ(e->mask, IN_MODIFY);
  kill(pid, SIGKILL);
  CHECK_EQ(poll(&p, 1, 2000), 1);
  waitpid(pid, NULL, 0);
}

TEST(kill_ends_all_below) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  SYS(mkdir(cg("a/b"), 0755));
  pid_t pid[8];

  for (int i = 0; i < 8; i++) {
    pid[i] = CHILD(signal(SIGTERM, SIG_IGN); for (;;) pause());
    cg_enter(i % 2 ? cg("a") : cg("a/b"), pid[i]);
  }
  pid_t other = sleeper();
  CHECK_ERRNO(cg_write(cg("a/cgroup.kill"), "2"), ERANGE);
  CHECK(open(cg("a/cgroup.kill"), O_RDONLY) < 0 || getuid() == 0);
  SYS(cg_write(cg("a/cgroup.kill"), "1"));
  for (int i = 0; i < 8; i++) {
    int st = check_wait(pid[i]);
    CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
  }
  CHECK_EQ(waitpid(other, NULL, WNOHANG), 0);
  end(other);
}

TEST(kill_catches_a_fork_bomb) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  pid_t pid = CHILD(sleep_ms(100); for (int i = 0; i < 30; i++) if (fork() == 0) for (;;) {
    pid_t k = fork();
    if (k == 0)
      _exit(0);
    waitpid(k, NULL, 0);
  } for (;;) pause());

  cg_enter(cg("a"), pid);
  sleep_ms(200);
  SYS(cg_write(cg("a/cgroup.kill"), "1"));
  waitpid(pid, NULL, 0);
  WAIT_FOR(cg_value(cg("a/cgroup.events"), "populated") == 0);
}

TEST_LIMIT(the_freezer_stops_and_lets_go, 20) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  volatile uint64_t *n = map_shared(PAGE);
  int pipefd[2];

  SYS(pipe(pipefd));
  pid_t busy = CHILD(for (;;)(*n)++);
  pid_t reader = CHILD(char c; while (read(pipefd[0], &c, 1) == 1) n[1]++; _exit(0));
  cg_enter(cg("a"), busy);
  cg_enter(cg("a"), reader);
  WAIT_FOR(n[0] > 0);
  CHECK_STR(cg_read(cg("a/cgroup.freeze")), "0\n");
  SYS(cg_write(cg("a/cgroup.freeze"), "1"));
  WAIT_FOR(cg_value(cg("a/cgroup.events"), "frozen") == 1);
  uint64_t before = n[0];
  SYS(write(pipefd[1], "x", 1));
  sleep_ms(100);
  CHECK_EQ(n[0], before);
  CHECK_EQ(n[1], 0);
  SYS(cg_write(cg("a/cgroup.freeze"), "0"));
  WAIT_FOR(n[0] > before && n[1] == 1); /* what was written meanwhile is not lost */
  CHECK_EQ(cg_value(cg("a/cgroup.events"), "frozen"), 0);
  /* Whoever comes into a frozen cgroup freezes, and can be killed there. */
  SYS(cg_write(cg("a/cgroup.freeze"), "1"));
  pid_t late = CHILD(for (;;) n[2]++);
  cg_enter(cg("a"), late);
  WAIT_FOR(cg_value(cg("a/cgroup.events"), "frozen") == 1);
  before = n[2];
  sleep_ms(50);
  CHECK_EQ(n[2], before);
  end(late);
  end(busy);
  end(reader);
  CHECK_ERRNO(cg_write(cg("a/cgroup.freeze"), "2"), ERANGE);
}

static pid_t clone_into(int fd, uint64_t flags) {
  struct clone_args a = {.flags = CLONE_INTO_CGROUP | flags, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd};
  return (pid_t)syscall(SYS_clone3, &a, sizeof a);
}

TEST(clone_into_a_cgroup) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  int fd = (int)SYS(open(cg("a"), O_RDONLY | O_DIRECTORY));
  int root = (int)SYS(open("/", O_RDONLY | O_DIRECTORY));
  pid_t pid = clone_into(fd, 0);

  if (pid == 0)
    for (;;)
      pause();
  SYS(pid);
  CHECK(ends_with(path_of(pid), "/a"));
  CHECK(!ends_with(path_of(getpid()), "/a"));
  end(pid);
  CHECK_ERRNO(clone_into(root, 0), EBADF);
  CHECK_ERRNO(clone_into(999, 0), EBADF);
  int file = (int)SYS(open(cg("a/cgroup.procs"), O_RDONLY));
  CHECK(clone_into(file, 0) < 0);
  SYS(rmdir(cg("a")));
  CHECK_ERRNO(clone_into(fd, 0), ENOENT);
  struct clone_args old = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd};
  CHECK_ERRNO(syscall(SYS_clone3, &old, 80), EINVAL); /* a structure that has no such field */
}

TEST(a_removed_cgroup_answers_nothing) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  int procs = (int)SYS(open(cg("a/cgroup.procs"), O_RDWR));
  int dir = (int)SYS(open(cg("a"), O_RDONLY | O_DIRECTORY));
  char c;

  SYS(rmdir(cg("a")));
  CHECK_ERRNO(write(procs, "0", 1), ENODEV);
  CHECK_ERRNO(read(procs, &c, 1), ENODEV);
  CHECK_ERRNO(openat(dir, "cgroup.procs", O_RDONLY), ENOENT);
  CHECK(mkdirat(dir, "b", 0755) < 0);
}

TEST(namespaces_show_a_root_of_their_own) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  SYS(mkdir(cg("a/b"), 0755));
  if (!have_cap(21 /* CAP_SYS_ADMIN */))
    SKIP("no right to make namespaces");
  pid_t outside = sleeper();
  cg_enter(cg("a/b"), outside);
  pid_t pid = CHILD(
      char name[64], text[256]; cg_enter(cg("a"), getpid()); SYS(unshare(CLONE_NEWCGROUP));
      CHECK_STR(path_of(getpid()), "/"); CHECK_STR(path_of(outside), "/b");
      CHECK(strncmp(path_of(getppid()), "/..", 3) == 0); snprintf(name, sizeof name, "/proc/self/ns/cgroup");
      CHECK(readlink(name, text, sizeof text) > 0); if (check_in_sandbox) {
        SYS(mkdir("/tmp/cgns", 0755));
        SYS(mount("none", "/tmp/cgns", "cgroup2", 0, NULL));
        CHECK_OK(access("/tmp/cgns/b/cgroup.procs", F_OK));
        CHECK(access("/tmp/cgns/a", F_OK) < 0);
      });
  WAIT_OK(pid);
  CHECK(ends_with(path_of(outside), "/a/b"));
  end(outside);
}

TEST(limits_of_the_tree) {
  cg_base(NULL);
  SYS(cg_write(cg("cgroup.max.descendants"), "3"));
  SYS(cg_write(cg("cgroup.max.depth"), "2"));
  SYS(mkdir(cg("a"), 0755));
  SYS(mkdir(cg("a/b"), 0755));
  CHECK_ERRNO(mkdir(cg("a/b/c"), 0755), EAGAIN); /* too deep */
  SYS(mkdir(cg("d"), 0755));
  CHECK_ERRNO(mkdir(cg("e"), 0755), EAGAIN); /* too many */
  SYS(cg_write(cg("cgroup.max.descendants"), "max"));
  SYS(mkdir(cg("e"), 0755));
  CHECK_STR(cg_read(cg("cgroup.max.depth")), "2\n");
  CHECK_ERRNO(cg_write(cg("cgroup.max.depth"), "many"), EINVAL);
}

TEST(delegation_ends_at_its_root) {
  const char *base = cg_base(NULL);
  if (getuid() != 0)
    SKIP("needs root");
  SYS(chmod(base, 0755));
  SYS(mkdir(cg("mine"), 0755));
  SYS(chown(cg("mine"), 1000, 1000));
  SYS(chown(cg("mine/cgroup.procs"), 1000, 1000));
  SYS(mkdir(cg("other"), 0755));
  SYS(chown(cg("other/cgroup.procs"), 1000, 1000));
  struct stat st;
  SYS(stat(cg("mine/cgroup.procs"), &st));
  CHECK_EQ(st.st_uid, 1000);
  WAIT_OK(CHILD(
      cg_enter(cg("mine"), getpid()); SYS(setgid(1000)); SYS(setuid(1000)); SYS(mkdir(cg("mine/x"), 0755));
      SYS(mkdir(cg("mine/y"), 0755)); cg_enter(cg("mine/x"), getpid()); cg_enter(cg("mine/y"), getpid());
      /* The common ancestor is not theirs. */
      CHECK_ERRNO(cg_write(cg("other/cgroup.procs"), "0"), EACCES);
      CHECK_ERRNO(cg_write(cg("cgroup.procs"), "0"), EACCES); CHECK_ERRNO(mkdir(cg("new"), 0755), EACCES);
      cg_enter(cg("mine"), getpid()); SYS(rmdir(cg("mine/x"))); SYS(rmdir(cg("mine/y")))));
}

/* A descriptor keeps the rights of who opened it: a privileged writer lends nothing. */
TEST(the_opener_counts) {
  cg_base(NULL);
  if (getuid() != 0)
    SKIP("needs root");
  SYS(mkdir(cg("a"), 0755));
  SYS(chown(cg("a/cgroup.procs"), 1000, 1000));
  int fd[2];
  SYS(pipe(fd));
  pid_t pid = CHILD(SYS(seteuid(1000)); int f = (int)SYS(open(cg("a/cgroup.procs"), O_WRONLY));
                    SYS(seteuid(0)); CHECK_ERRNO(write(f, "0", 1), EACCES));
  WAIT_OK(pid);
}

TEST(subtree_control_refusals) {
  cg_base(NULL);
  SYS(mkdir(cg("a"), 0755));
  CHECK_ERRNO(cg_write(cg("a/cgroup.subtree_control"), "+nonsense"), EINVAL);
  CHECK_ERRNO(cg_write(cg("a/cgroup.subtree_control"), "pids"), EINVAL);
  CHECK_STR(cg_read(cg("a/cgroup.controllers")), cg_read(cg("cgroup.subtree_control")));
  CHECK_ERRNO(cg_write(cg("a/cgroup.subtree_control"), "+memory"), ENOENT); /* not its to give */
  CHECK_OK(cg_write(cg("a/cgroup.subtree_control"), ""));
}

TEST_LIMIT(a_thousand_cgroups, 60) {
  cg_base(NULL);
  for (int i = 0; i < 1000; i++)
    if (CHECK_OK(mkdir(cg("c%d", i), 0755)) < 0)
      break;
  CHECK_EQ(cg_value(cg("cgroup.stat"), "nr_descendants"), 1000);
  DIR *d = opendir(cg("."));
  int n = 0;
  REQUIRE(d);
  for (struct dirent *e; (e = readdir(d));)
    n += e->d_type == DT_DIR && e->d_name[0] == 'c';
  closedir(d);
  CHECK_EQ(n, 1000);
  for (int i = 0; i < 1000; i++)
    if (CHECK_OK(rmdir(cg("c%d", i))) < 0)
      break;
  CHECK_EQ(cg_value(cg("cgroup.stat"), "nr_descendants"), 0);
}

TEST(deep_nesting_ends) {
  const char *base = cg_base(NULL);
  char path[4096];
  int depth = 0;

  snprintf(path, sizeof path, "%s", base);
  while (depth < (check_in_sandbox ? 2000 : 250) && /* a cgroup of the host takes its time */
         strlen(path) + 3 < sizeof path) {
    strcat(path, "/n");
    if (mkdir(path, 0755) < 0)
      break;
    depth++;
  }
  CHECK(depth >= 200);
  while (depth-- > 0) {
    if (access(path, F_OK) < 0)
      *strrchr(path, '/') = 0;
    SYS(rmdir(path));
    *strrchr(path, '/') = 0;
  }
}

/* Three who make, remove and enter the same names. */
static void *racer(void *p) {
  uint64_t seed = 88172645463325252ULL + (uintptr_t)p;

  for (int i = 0; i < 400; i++) {
    unsigned k = next_random(&seed) % 3;
    char dir[300], file[320];
    snprintf(dir, sizeof dir, "%s", cg("r%u", (unsigned)(next_random(&seed) % 2)));
    snprintf(file, sizeof file, "%s/cgroup.procs", dir);
    if (k == 0)
      mkdir(dir, 0755);
    else if (k == 1)
      rmdir(dir);
    else if (cg_write(file, "0") == 0)
      cg_write(cg("cgroup.procs"), "0");
  }
  return NULL;
}

TEST_LIMIT(races_of_rmdir, 40) {
  cg_base(NULL);
  pid_t pid[3];

  for (int i = 0; i < 3; i++)
    pid[i] = CHILD(racer((void *)(uintptr_t)i); cg_enter(cg(".."), getpid()));
  for (int i = 0; i < 3; i++)
    WAIT_OK(pid[i]);
  rmdir(cg("r0"));
  rmdir(cg("r1"));
  CHECK_EQ(cg_value(cg("cgroup.stat"), "nr_descendants"), 0);
  CHECK_EQ(cg_value(cg("cgroup.events"), "populated"), 0);
}

/* Everything at once, on a few names: whatever happens, in the end all can be let go, killed and removed. */
static void chaos(unsigned seed_of, int64_t until) {
  uint64_t seed = 0x9e3779b97f4a7c15ULL * (seed_of + 1);

  while (now_ns() < until) {
    unsigned a = next_random(&seed) % 3, b = next_random(&seed) % 2, what = next_random(&seed) % 10;
    char dir[300];
    snprintf(dir, sizeof dir, "%s", b ? cg("k%u", a) : cg("k%u/s", a));
    char file[330];
    if (what == 0)
      mkdir(dir, 0755);
    else if (what == 1)
      rmdir(dir);
    else if (what <= 3)
      snprintf(file, sizeof file, "%s/cgroup.freeze", dir), cg_write(file, what == 2 ? "1" : "0");
    else if (what == 4)
      snprintf(file, sizeof file, "%s/cgroup.kill", dir), cg_write(file, "1");
    else if (what == 5)
      snprintf(file, sizeof file, "%s/cgroup.procs", dir), cg_read(file);
    else if (what == 6)
      snprintf(file, sizeof file, "%s/cgroup.events", dir), cg_read(file);
    else if (what == 7)
      snprintf(file, sizeof file, "%s/cgroup.subtree_control", dir),
          cg_write(file, next_random(&seed) % 2 ? "+pids +cpu" : "-pids -cpu");
    else {
      snprintf(file, sizeof file, "%s/cgroup.procs", dir);
      pid_t pid = fork();
      if (pid == 0) {
        cg_write(file, "0");
        for (int i = 0; i < 20; i++) {
          pid_t k = fork();
          if (k == 0)
            _exit(0);
          waitpid(k, NULL, 0);
        }
        _exit(0);
      }
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
      ;
  }
}

TEST_LIMIT(chaos_ends_well, 40) {
  cg_base(NULL);
  pid_t pid[4];
  unsigned seconds = check_seconds ? check_seconds : 2;

  for (unsigned i = 0; i < 4; i++)
    pid[i] = CHILD(chaos(i, now_ns() + seconds * 1000000000LL));
  for (int i = 0; i < 4; i++)
    WAIT_OK(pid[i]);
  for (int i = 0; i < 3; i++)
    for (int s = 1; s >= 0; s--) {
      cg_write(s ? cg("k%d/s/cgroup.freeze", i) : cg("k%d/cgroup.freeze", i), "0");
      cg_write(s ? cg("k%d/s/cgroup.kill", i) : cg("k%d/cgroup.kill", i), "1");
    }
  WAIT_FOR(cg_value(cg("cgroup.events"), "populated") == 0);
  for (int i = 0; i < 3; i++) {
    rmdir(cg("k%d/s", i));
    rmdir(cg("k%d", i));
  }
  CHECK_EQ(cg_value(cg("cgroup.stat"), "nr_descendants"), 0);
  WAIT_OK(CHILD());
}
