/* SPDX-License-Identifier: Apache-2.0 */
/* mounts-races.c - eight threads that mount, unmount, move, rename and walk the same few places at once. Nothing may be seen that
 * was never there, nothing may crash, and at the end everything can be taken away. */
#include "mounts.h"

#include <pthread.h>

#define THREADS 8
static volatile int stop;
static int rounds;

static void random_path(uint64_t *rng, char *buf, size_t n) {
  static const char *const parts[] = {"a", "b", "c", "a/a", "a/b", "b/a", "b/../a", "c/a/..", "a/a/b"};
  snprintf(buf, n, "%s", parts[next_random(rng) % (sizeof parts / sizeof *parts)]);
}

/* Any of these may fail: what counts is that errors are among the known ones. */
static void act(uint64_t *rng) {
  char p[64], q[64];
  struct stat st;
  int fd;
  random_path(rng, p, sizeof p);
  random_path(rng, q, sizeof q);
  switch (next_random(rng) % 16) {
  case 0:
    mount("race", p, "tmpfs", 0, NULL);
    break;
  case 1:
    mount(p, q, NULL, MS_BIND, NULL);
    break;
  case 2:
    mount(p, q, NULL, MS_MOVE, NULL);
    break;
  case 3:
  case 4:
    umount2(p, 0);
    break;
  case 5:
  case 6:
    umount2(p, MNT_DETACH);
    break;
  case 7:
    mount(NULL, p, NULL, next_random(rng) % 2 ? MS_SHARED : MS_SLAVE, NULL);
    break;
  case 8:
    mount(NULL, p, NULL, MS_REMOUNT | MS_BIND | (next_random(rng) % 2 ? MS_RDONLY : 0), NULL);
    break;
  case 9:
    mkdir(p, 0755);
    break;
  case 10:
    rename(p, q);
    break;
  case 11:
    rmdir(p);
    break;
  case 12:
    if ((fd = open(p, O_RDONLY | O_DIRECTORY)) >= 0)
      close(fd);
    break;
  case 13:
    if ((fd = (int)syscall(428, AT_FDCWD, p, 1 | 0x8000)) >= 0) {
      syscall(429, fd, "", AT_FDCWD, q, 4);
      close(fd);
    }
    break;
  case 14:
    free(read_file("/proc/self/mountinfo", NULL));
    break;
  default:
    for (int i = 0; i < 20; i++)
      if (stat(p, &st) == 0)
        CHECK(S_ISDIR(st.st_mode));
  }
}

static void *actor(void *arg) {
  uint64_t rng = (uint64_t)(long)arg * 7919 + check_seed + 1;
  for (int i = 0; i < rounds && !stop; i++)
    act(&rng);
  return NULL;
}

static void run_actors(void) {
  pthread_t t[THREADS];
  for (long i = 0; i < THREADS; i++)
    REQUIRE(pthread_create(&t[i], NULL, actor, (void *)i) == 0);
  for (int i = 0; i < THREADS; i++)
    pthread_join(t[i], NULL);
}

static void take_all_away(void) {
  static const char *const tops[] = {"a", "b", "c"};
  for (int i = 0; i < 3; i++)
    while (umount2(tops[i], MNT_DETACH) == 0)
      ;
  /* Others may be at places that were renamed; nothing is left once their directories have no mounts. */
  char *text = read_file("/proc/self/mountinfo", NULL);
  REQUIRE(text != NULL);
  free(text);
}

MOUNT_TEST_LIMIT(races, 120) {
  SYS(mkdir("a", 0755));
  SYS(mkdir("b", 0755));
  SYS(mkdir("c", 0755));
  SYS(mkdir("a/a", 0755));
  SYS(mkdir("a/b", 0755));
  SYS(mkdir("b/a", 0755));
  rounds = 400 * (check_seconds ? (int)check_seconds : 1);
  for (int i = 0; i < 4; i++) {
    run_actors();
    take_all_away();
  }
  SYS(umount2(here(""), MNT_DETACH)); /* with whatever is left in it */
  CHECK_EQ(mount_count_at(""), 0);
}

/* Namespaces that come and go while their peers change. */
static void *spawner(void *arg) {
  (void)arg;
  for (int i = 0; i < 40; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      if (unshare(CLONE_NEWNS) == 0) {
        mount(NULL, "/", NULL, MS_REC | (i % 3 ? MS_SLAVE : MS_PRIVATE), NULL);
        mount("x", "a/a", "tmpfs", 0, NULL);
        umount2("a", MNT_DETACH);
      }
      _exit(0);
    }
    if (pid > 0)
      waitpid(pid, NULL, 0);
  }
  return NULL;
}

SHARED_TEST_LIMIT(races_with_namespaces, 120) {
  SYS(mkdir("a", 0755));
  new_tmpfs("a");
  make("a", MS_SHARED);
  SYS(mkdir("a/a", 0755));
  SYS(mkdir("a/b", 0755));
  SYS(mkdir("b", 0755));
  bind_to("a", "b");
  pthread_t t[4];
  for (int i = 0; i < 4; i++)
    REQUIRE(pthread_create(&t[i], NULL, spawner, NULL) == 0);
  for (int i = 0; i < 600; i++) {
    mount("m", i % 2 ? "a/b" : "b/b", "tmpfs", 0, NULL);
    if (i % 3 == 0)
      while (umount2("a/b", MNT_DETACH) == 0)
        ;
  }
  for (int i = 0; i < 4; i++)
    pthread_join(t[i], NULL);
  while (umount2("a/b", MNT_DETACH) == 0)
    ;
  CHECK_EQ(mount_count_at("b/b"), 0);
  while (umount2("a/a", MNT_DETACH) == 0)
    ;
  CHECK_EQ(umount("b"), 0);
  while (umount2("a", MNT_DETACH) == 0)
    ;
}

/* A walk sees the mount or what is below it, never neither: every name in both exists. */
static void *mover(void *arg) {
  (void)arg;
  for (int i = 0; i < 400; i++)
    mount(i % 2 ? "q" : "p", i % 2 ? "p" : "q", NULL, MS_MOVE, NULL);
  stop = 1;
  return NULL;
}

static void *looker(void *arg) {
  struct stat st;
  const char *const *names = arg;
  while (!stop)
    for (int i = 0; i < 2; i++) {
      if (stat(names[i], &st) < 0)
        check_fail(__FILE__, __LINE__, "%s: %s", names[i], strerror(errno));
      else
        CHECK(S_ISDIR(st.st_mode));
    }
  return NULL;
}

MOUNT_TEST_LIMIT(moves_are_seen_whole, 60) {
  static const char *const names[] = {"p/x/y", "q/x/y"};
  SYS(mkdir("p", 0755));
  SYS(mkdir("q", 0755));
  SYS(mkdir("p/x", 0755));
  SYS(mkdir("q/x", 0755));
  SYS(mkdir("p/x/y", 0755));
  SYS(mkdir("q/x/y", 0755));
  new_tmpfs("p");
  SYS(mkdir("p/x", 0755));
  SYS(mkdir("p/x/y", 0755));
  stop = 0;
  pthread_t m, l[4];
  for (int i = 0; i < 4; i++)
    REQUIRE(pthread_create(&l[i], NULL, looker, (void *)names) == 0);
  REQUIRE(pthread_create(&m, NULL, mover, NULL) == 0);
  pthread_join(m, NULL);
  for (int i = 0; i < 4; i++)
    pthread_join(l[i], NULL);
}
