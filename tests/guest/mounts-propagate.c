/* SPDX-License-Identifier: Apache-2.0 */
/* mounts-propagate.c - mount_namespaces(7): peer groups, slaves, unbindable mounts; what is mounted, moved and unmounted spreads. */
#include "mounts.h"

/* A directory that is a tmpfs of its own kind of propagation. */
static void place(const char *name, unsigned long type) {
  SYS(mkdir(name, 0755));
  new_tmpfs(name);
  make(name, type);
}
static void bound(const char *from, const char *to) {
  SYS(mkdir(to, 0755));
  bind_to(from, to);
}

SHARED_TEST(shared_mounts_spread) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  CHECK(the_mount("a").shared > 0);
  CHECK_EQ(the_mount("a").shared, the_mount("b").shared);
  new_tmpfs("a/m");
  CHECK_EQ(mount_count_at("b/m"), 1);
  CHECK_EQ(the_mount("a/m").shared, the_mount("b/m").shared);
  CHECK(the_mount("a/m").shared != the_mount("a").shared);
  SYS(mkdir("a/m/x", 0755));
  CHECK(is_there("b/m/x"));
  new_tmpfs("b/m/x"); /* and back, one level deeper */
  CHECK_EQ(mount_count_at("a/m/x"), 1);
  SYS(umount("a/m/x"));
  CHECK_EQ(mount_count_at("b/m/x"), 0);
  SYS(umount("b/m"));
  CHECK_EQ(mount_count_at("a/m"), 0);
}

SHARED_TEST(private_mounts_do_not) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  make("b", MS_PRIVATE);
  CHECK_EQ(the_mount("b").shared, 0);
  new_tmpfs("a/m");
  CHECK_EQ(mount_count_at("b/m"), 0);
  SYS(umount("a/m"));
  new_tmpfs("b/m");
  CHECK_EQ(mount_count_at("a/m"), 0);
}

SHARED_TEST(slaves_receive_only) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  SYS(mkdir("a/n", 0755));
  bound("a", "b");
  make("b", MS_SLAVE);
  MountLine b = the_mount("b");
  CHECK_EQ(b.shared, 0);
  CHECK_EQ(b.master, the_mount("a").shared);
  new_tmpfs("a/m");
  CHECK_EQ(the_mount("b/m").master, the_mount("a/m").shared);
  CHECK_EQ(the_mount("b/m").shared, 0);
  new_tmpfs("b/n");
  CHECK_EQ(mount_count_at("a/n"), 0);
  SYS(umount("b/m")); /* a slave's own doing stays with it */
  CHECK_EQ(mount_count_at("a/m"), 1);
  SYS(umount("a/m"));
  CHECK_EQ(mount_count_at("a/m"), 0);
}

/* A slave that is shared again hands on what it receives. */
SHARED_TEST(slave_and_shared) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  make("b", MS_SLAVE);
  make("b", MS_SHARED);
  bound("b", "c");
  MountLine a = the_mount("a"), b = the_mount("b"), c = the_mount("c");
  CHECK(b.shared > 0 && b.shared != a.shared);
  CHECK_EQ(b.shared, c.shared);
  CHECK_EQ(b.master, a.shared);
  CHECK_EQ(c.master, a.shared);
  new_tmpfs("a/m");
  CHECK_EQ(the_mount("b/m").master, the_mount("a/m").shared);
  CHECK_EQ(the_mount("c/m").shared, the_mount("b/m").shared);
  SYS(umount("a/m"));
  CHECK_EQ(mount_count_at("b/m") + mount_count_at("c/m"), 0);
  new_tmpfs("c/m");
  CHECK_EQ(mount_count_at("b/m"), 1);
  CHECK_EQ(mount_count_at("a/m"), 0);
}

/* "Propagation type transitions" of the manual page, row by row. */
static void transition(unsigned long first, unsigned long second, bool lonely, bool shared, bool master) {
  static int round;
  char a[16], b[16], c[16];
  snprintf(a, sizeof a, "a%d", round);
  snprintf(b, sizeof b, "b%d", round);
  snprintf(c, sizeof c, "c%d", round++);
  if (lonely) {
    place(b, MS_SHARED);
  } else {
    place(a, MS_SHARED);
    bound(a, b);
  }
  (void)c;
  if (first == (MS_SLAVE | MS_SHARED)) {
    make(b, MS_SLAVE);
    make(b, MS_SHARED);
  } else {
    make(b, first);
  }
  make(b, second);
  MountLine m = the_mount(b);
  if (!CHECK_EQ(m.shared > 0, shared) || !CHECK_EQ(m.master > 0, master))
    printf("# from %lx to %lx%s\n", first, second, lonely ? " alone" : "");
  CHECK_EQ(m.unbindable, second == MS_UNBINDABLE);
}

SHARED_TEST(transitions) {
  const unsigned long both = MS_SLAVE | MS_SHARED;
  transition(MS_SHARED, MS_SHARED, false, true, false);
  transition(MS_SHARED, MS_SLAVE, false, false, true);
  transition(MS_SHARED, MS_SLAVE, true, false, false); /* without peers: private */
  transition(MS_SHARED, MS_PRIVATE, false, false, false);
  transition(MS_SHARED, MS_UNBINDABLE, false, false, false);
  transition(MS_SLAVE, MS_SHARED, false, true, true);
  transition(MS_SLAVE, MS_SLAVE, false, false, true);
  transition(MS_SLAVE, MS_PRIVATE, false, false, false);
  transition(MS_SLAVE, MS_UNBINDABLE, false, false, false);
  transition(both, MS_SHARED, false, true, true);
  transition(both, MS_SLAVE, false, false, true);
  transition(both, MS_PRIVATE, false, false, false);
  transition(MS_PRIVATE, MS_SHARED, false, true, false);
  transition(MS_PRIVATE, MS_SLAVE, false, false, false);
  transition(MS_PRIVATE, MS_UNBINDABLE, false, false, false);
  transition(MS_UNBINDABLE, MS_SHARED, false, true, false);
  transition(MS_UNBINDABLE, MS_PRIVATE, false, false, false);
}

/* A chain: the closest group that the process can see is named when the master itself is out of sight. */
SHARED_TEST(propagate_from) {
  place("a", MS_SHARED);
  SYS(mkdir("a/etc", 0755));
  SYS(mkdir("root", 0755));
  new_tmpfs("root");
  SYS(mkdir("root/proc", 0755));
  SYS(mkdir("root/c", 0755));
  SYS(mkdir("root/a", 0755));
  bind_to("/proc", "root/proc");
  bind_to("a", "root/a");
  bound("a", "b");
  make("b", MS_SLAVE);
  make("b", MS_SHARED);
  bind_to("b", "root/c");
  make("root/c", MS_SLAVE);
  int top = the_mount("a").shared, middle = the_mount("b").shared;
  CHECK_EQ(the_mount("root/c").master, middle);
  CHECK_EQ(the_mount("root/c").from, 0);
  WAIT_OK(CHILD(SYS(chroot("root")); SYS(chdir("/")); MountLine c = the_mount("/c");
                CHECK_EQ(c.master, middle); CHECK_EQ(c.from, top); CHECK_EQ(the_mount("/a").shared, top)));
}

SHARED_TEST(unbindable) {
  place("a", MS_UNBINDABLE);
  SYS(mkdir("b", 0755));
  CHECK(the_mount("a").unbindable);
  CHECK_ERRNO(mount("a", "b", NULL, MS_BIND, NULL), EINVAL);
  CHECK_ERRNO(mount("a", "b", NULL, MS_BIND | MS_REC, NULL), EINVAL);
  SYS(mkdir("a/x", 0755));
  CHECK_ERRNO(mount("a/x", "b", NULL, MS_BIND, NULL), EINVAL);
  /* Left out of copies of trees. */
  place("t", MS_PRIVATE);
  SYS(mkdir("t/u", 0755));
  SYS(mkdir("t/v", 0755));
  new_tmpfs("t/u");
  SYS(mkdir("t/u/w", 0755));
  new_tmpfs("t/u/w");
  new_tmpfs("t/v");
  make("t/u", MS_UNBINDABLE);
  SYS(mount("t", "b", NULL, MS_BIND | MS_REC, NULL));
  CHECK_EQ(mount_count_at("b/u"), 0);
  CHECK_EQ(mount_count_at("b/u/w"), 0);
  CHECK_EQ(mount_count_at("b/v"), 1);
  SYS(umount2("b", MNT_DETACH));
}

SHARED_TEST(unbindable_moves) {
  place("a", MS_UNBINDABLE);
  place("s", MS_SHARED);
  SYS(mkdir("s/x", 0755));
  SYS(mkdir("p", 0755));
  CHECK_ERRNO(mount("a", "s/x", NULL, MS_MOVE, NULL), EINVAL);
  SYS(mount("a", "p", NULL, MS_MOVE, NULL));
  CHECK(the_mount("p").unbindable);
  /* In a copy of the namespace it is there. */
  WAIT_OK(CHILD(SYS(unshare(CLONE_NEWNS)); CHECK_EQ(mount_count_at("p"), 1)));
}

/* "Bind (MS_BIND) semantics" and "Move (MS_MOVE) semantics": source x destination. */
static MountLine put(unsigned long source, unsigned long dest, unsigned long op) {
  static int round;
  char s[16], p[16], d[16], at[32];
  snprintf(s, sizeof s, "s%d", round);
  snprintf(p, sizeof p, "p%d", round);
  snprintf(d, sizeof d, "d%d", round++);
  place(s, MS_SHARED);
  bound(s, p); /* a peer, so that it can be a slave */
  make(s, source);
  place(d, dest);
  snprintf(at, sizeof at, "%s/m", d);
  SYS(mkdir(at, 0755));
  SYS(mount(s, at, NULL, op, NULL));
  return the_mount(at);
}

SHARED_TEST(bind_and_move_semantics) {
  for (int i = 0; i < 2; i++) {
    unsigned long op = i ? MS_MOVE : MS_BIND;
    MountLine m = put(MS_SHARED, MS_SHARED, op);
    CHECK(m.shared && !m.master);
    m = put(MS_PRIVATE, MS_SHARED, op);
    CHECK(m.shared && !m.master);
    m = put(MS_SLAVE, MS_SHARED, op);
    CHECK(m.shared && m.master);
    m = put(MS_SHARED, MS_PRIVATE, op);
    CHECK(m.shared && !m.master);
    m = put(MS_PRIVATE, MS_PRIVATE, op);
    CHECK(!m.shared && !m.master);
    m = put(MS_SLAVE, MS_PRIVATE, op);
    CHECK(!m.shared && m.master);
  }
}

SHARED_TEST(move_spreads) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  place("x", MS_PRIVATE);
  SYS(mkdir("x/in", 0755));
  new_tmpfs("x/in");
  SYS(mkdir("x/in/deep", 0755));
  SYS(mount("x", "a/m", NULL, MS_MOVE, NULL));
  CHECK(is_there("b/m/in/deep"));
  CHECK_EQ(mount_count_at("b/m/in"), 1);
  CHECK(the_mount("a/m/in").shared > 0);
  SYS(umount("b/m/in"));
  CHECK_EQ(mount_count_at("a/m/in"), 0);
}

SHARED_TEST(recursive_type) {
  place("a", MS_PRIVATE);
  SYS(mkdir("a/x", 0755));
  new_tmpfs("a/x");
  make("a", MS_SHARED);
  CHECK_EQ(the_mount("a/x").shared, 0);
  make("a", MS_SHARED | MS_REC);
  CHECK(the_mount("a/x").shared > 0);
  make("a", MS_UNBINDABLE | MS_REC);
  CHECK(the_mount("a/x").unbindable && the_mount("a").unbindable);
}

/* A tree bound inside itself: the copies made by the propagation do not receive it again. */
SHARED_TEST(bind_tree_into_itself) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  int before = mount_count();
  SYS(mount("a", "a/m", NULL, MS_BIND | MS_REC, NULL));
  CHECK_EQ(mount_count(), before + 1);
  SYS(mount("a", "a/m", NULL, MS_BIND | MS_REC, NULL));
  /* On top of the copy, which is a peer of "a": so "a" itself is covered too. */
  CHECK_EQ(mount_count(), before + 5);
  SYS(umount2("a", MNT_DETACH));
  CHECK_EQ(mount_count(), before);
  SYS(umount2("a", MNT_DETACH));
  CHECK_EQ(mount_count(), before - 1);
}

/* What is on the place already stays on top of what propagates there. */
SHARED_TEST(tucked_below) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  make("b", MS_SLAVE);
  new_tmpfs("b/m");
  SYS(mkdir("b/m/mine", 0755));
  new_tmpfs("a/m");
  SYS(mkdir("a/m/theirs", 0755));
  CHECK(is_there("b/m/mine") && !is_there("b/m/theirs"));
  CHECK_EQ(mount_count_at("b/m"), 2);
  SYS(umount("a/m")); /* taken out from below */
  CHECK(is_there("b/m/mine"));
  CHECK_EQ(mount_count_at("b/m"), 1);
  new_tmpfs("a/m");
  SYS(mkdir("a/m/theirs", 0755));
  SYS(umount("b/m"));
  CHECK(is_there("b/m/theirs"));
}

/* What others mounted in a propagated mount keeps it. */
SHARED_TEST(umount_spares_what_is_used) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  make("b", MS_SLAVE);
  new_tmpfs("a/m");
  SYS(mkdir("a/m/x", 0755));
  new_tmpfs("b/m/x");
  SYS(umount("a/m"));
  CHECK_EQ(mount_count_at("b/m"), 1);
  CHECK_EQ(mount_count_at("b/m/x"), 1);
  SYS(umount("b/m/x"));
  SYS(umount("b/m"));
}

SHARED_TEST(umount_is_busy_elsewhere) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  new_tmpfs("a/m");
  int fd = (int)SYS(open("b/m", O_RDONLY));
  CHECK_ERRNO(umount("a/m"), EBUSY);
  SYS(umount2("a/m", MNT_DETACH));
  CHECK_EQ(mount_count_at("b/m"), 0);
  SYS(close(fd));
}

SHARED_TEST(tree_umount_spreads) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  bound("a", "b");
  new_tmpfs("a/m");
  for (int i = 0; i < 5; i++) {
    char name[32];
    snprintf(name, sizeof name, "a/m/%d", i);
    SYS(mkdir(name, 0755));
    new_tmpfs(name);
  }
  CHECK_EQ(mount_count_at("b/m/3"), 1);
  SYS(umount2("b/m", MNT_DETACH));
  CHECK_EQ(mount_count_at("a/m") + mount_count_at("a/m/3") + mount_count_at("b/m/4"), 0);
}

/* ---- Namespaces ---- */

SHARED_TEST(namespaces_share_and_receive) {
  int up[2], down[2];
  char c;
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  SYS(mkdir("a/n", 0755));
  SYS(pipe(up));
  SYS(pipe(down));
  pid_t pid = CHILD(
      SYS(unshare(CLONE_NEWNS)); CHECK(the_mount("a").shared > 0); write_full(up[1], "1", 1);
      read_full(down[0], &c, 1); CHECK_EQ(mount_count_at("a/m"), 1); /* a peer in the parent's namespace */
      new_tmpfs("a/n"); make("a", MS_SLAVE | MS_REC); write_full(up[1], "2", 1); read_full(down[0], &c, 1);
      CHECK_EQ(mount_count_at("a/m"), 0); SYS(umount("a/n")); write_full(up[1], "3", 1));
  read_full(up[0], &c, 1);
  new_tmpfs("a/m");
  write_full(down[1], "x", 1);
  read_full(up[0], &c, 1);
  CHECK_EQ(mount_count_at("a/n"), 1);
  SYS(umount("a/m"));
  write_full(down[1], "x", 1);
  read_full(up[0], &c, 1);
  CHECK_EQ(mount_count_at("a/n"), 1); /* the slave's umount stayed there */
  WAIT_OK(pid);
}

/* A namespace that goes takes its mounts along, and nobody else's. */
SHARED_TEST(end_of_a_namespace_does_not_spread) {
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  new_tmpfs("a/m");
  int before = mount_count();
  for (int i = 0; i < 20; i++)
    WAIT_OK(CHILD(SYS(unshare(CLONE_NEWNS)); CHECK_EQ(mount_count_at("a/m"), 1)));
  CHECK_EQ(mount_count(), before);
  CHECK_EQ(umount("a/m"), 0);
}

static int child_of_clone(void *arg) {
  (void)arg;
  char buf[1024];
  new_tmpfs("d");
  CHECK_STR(getcwd(buf, sizeof buf), here("sub"));
  check_child_exit();
}

SHARED_TEST(clone_newns_keeps_directories) {
  static char stack[65536];
  SYS(mkdir("sub", 0755));
  SYS(mkdir("sub/d", 0755));
  SYS(chdir("sub"));
  pid_t pid = (pid_t)SYS(clone(child_of_clone, stack + sizeof stack, CLONE_NEWNS | SIGCHLD, NULL));
  WAIT_OK(pid);
  CHECK_EQ(mount_count_at("sub/d"), 0);
  /* Also where the directory has no name any more. */
  SYS(mkdir("gone", 0755));
  SYS(chdir("gone"));
  SYS(rmdir(here("sub/gone")));
  struct stat before, after;
  SYS(stat(".", &before));
  WAIT_OK(CHILD(SYS(unshare(CLONE_NEWNS)); SYS(stat(".", &after)); CHECK_EQ(before.st_ino, after.st_ino);
                char buf[64]; CHECK_ERRNO(syscall(SYS_getcwd, buf, sizeof buf), ENOENT)));
}

/* Storms end at the limit, and leave nothing half done. */
SHARED_TEST_LIMIT(storm, 120) {
  if (!check_in_sandbox)
    SKIP("a storm of mounts belongs in a sandbox");
  place("a", MS_SHARED);
  SYS(mkdir("a/m", 0755));
  int r = 0, n = 0;
  while (r == 0 && n < 40) {
    r = mount("a", "a/m", NULL, MS_BIND | MS_REC, NULL);
    n++;
  }
  CHECK(r < 0 && errno == ENOSPC);
  CHECK(n < 40);
  while (umount2("a", MNT_DETACH) == 0)
    ;
  CHECK_EQ(mount_count_at("a"), 0);
  new_tmpfs("a");
}
