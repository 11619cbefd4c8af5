/* SPDX-License-Identifier: Apache-2.0 */
/* sysvshm.c - System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2), in an IPC namespace of the case's own. */
#include "check.h"

#include <sched.h>
#include <sys/ipc.h>
#include <sys/shm.h>

static void apart(void) {
  if (unshare(CLONE_NEWIPC) < 0)
    SKIP("needs an IPC namespace of its own: %s", strerror(errno));
}

static struct shmid_ds stat_of(int id) {
  struct shmid_ds d;
  SYS(shmctl(id, IPC_STAT, &d));
  return d;
}

TEST(get) {
  apart();
  CHECK_ERRNO(shmget(77, 100, 0600), ENOENT);
  int id = (int)SYS(shmget(77, 100, IPC_CREAT | 0640));
  CHECK_EQ(shmget(77, 100, 0), id);
  CHECK_EQ(shmget(77, 0, 0), id);
  CHECK_EQ(shmget(77, 50, IPC_CREAT | 0600), id);
  CHECK_ERRNO(shmget(77, 101, 0), EINVAL);
  CHECK_ERRNO(shmget(77, 100, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
  CHECK_ERRNO(shmget(78, 0, IPC_CREAT | 0600), EINVAL);
  int a = (int)SYS(shmget(IPC_PRIVATE, 10, 0600)), b = (int)SYS(shmget(IPC_PRIVATE, 10, 0600));
  CHECK(a != b);
  struct shmid_ds d = stat_of(id);
  CHECK_EQ(d.shm_segsz, 100);
  CHECK_EQ(d.shm_perm.mode, 0640);
  CHECK_EQ(d.shm_perm.__key, 77);
  CHECK_EQ(d.shm_perm.uid, geteuid());
  CHECK_EQ(d.shm_nattch, 0);
  CHECK_EQ(d.shm_cpid, getpid());
  CHECK_EQ(d.shm_lpid, 0);
  CHECK_EQ(d.shm_atime, 0);
  CHECK(d.shm_ctime > 1000000);
}

TEST(attach_and_detach) {
  apart();
  int id = (int)SYS(shmget(IPC_PRIVATE, 3 * PAGE - 1, 0600));
  char *p = shmat(id, NULL, 0), *q = shmat(id, NULL, SHM_RDONLY);

  REQUIRE(p != (void *)-1 && q != (void *)-1);
  CHECK_EQ(p[3 * PAGE - 1], 0);
  strcpy(p + PAGE, "shared");
  CHECK_STR(q + PAGE, "shared");
  CHECK_EQ(touch_write(q, NULL), SIGSEGV);
  CHECK_EQ(stat_of(id).shm_nattch, 2);
  CHECK_EQ(stat_of(id).shm_lpid, getpid());
  CHECK_ERRNO(shmdt(p + PAGE), EINVAL);
  CHECK_ERRNO(shmdt(p + 1), EINVAL);
  SYS(shmdt(p));
  CHECK_ERRNO(shmdt(p), EINVAL);
  CHECK_EQ(touch_read(p, NULL), SIGSEGV);
  CHECK_EQ(stat_of(id).shm_nattch, 1);
  SYS(shmdt(q));
  CHECK_EQ(stat_of(id).shm_nattch, 0);
  CHECK(stat_of(id).shm_dtime > 1000000);
}

TEST(where) {
  apart();
  int id = (int)SYS(shmget(IPC_PRIVATE, PAGE, 0600));
  char *hole = map_anon(4 * PAGE, PROT_NONE);

  SYS(munmap(hole + PAGE, PAGE));
  CHECK(shmat(id, hole + PAGE, 0) == hole + PAGE);
  CHECK_ERRNO((long)shmat(id, hole + PAGE, 0), EINVAL); /* taken */
  CHECK_ERRNO((long)shmat(id, hole, 0), EINVAL);
  CHECK(shmat(id, hole, SHM_REMAP) == hole);
  CHECK_ERRNO((long)shmat(id, hole + 7, 0), EINVAL);
  SYS(shmdt(hole));
  CHECK(shmat(id, hole + 7, SHM_RND) == hole);
  CHECK_ERRNO((long)shmat(id, NULL, SHM_REMAP), EINVAL);
  CHECK_ERRNO((long)shmat(id + 12345, NULL, 0), EINVAL);
  CHECK_ERRNO((long)shmat(-1, NULL, 0), EINVAL);
}

/* Parts of an attachment that were unmapped one by one; a detach takes the rest. */
TEST(detach_of_parts) {
  apart();
  int id = (int)SYS(shmget(IPC_PRIVATE, 5 * PAGE, 0600));
  char *p = shmat(id, NULL, 0);

  REQUIRE(p != (void *)-1);
  SYS(munmap(p + PAGE, PAGE));
  CHECK_EQ(stat_of(id).shm_nattch, 2);
  SYS(shmdt(p));
  CHECK_EQ(stat_of(id).shm_nattch, 0);
  CHECK_EQ(touch_read(p + 4 * PAGE, NULL), SIGSEGV);
}

TEST(fork_exec_exit) {
  apart();
  int id = (int)SYS(shmget(IPC_PRIVATE, PAGE, 0600)), ready[2];
  char *p = shmat(id, NULL, 0);

  REQUIRE(p != (void *)-1);
  SYS(pipe(ready));
  pid_t pid = CHILD({
    char c;
    strcpy(p, "from the child");
    SYS(read(ready[0], &c, 1));
  });
  WAIT_FOR(!strcmp(p, "from the child"));
  CHECK_EQ(stat_of(id).shm_nattch, 2);
  SYS(write(ready[1], "", 1));
  WAIT_OK(pid);
  WAIT_FOR(stat_of(id).shm_nattch == 1);
  CHECK_EQ(stat_of(id).shm_lpid, pid);
}

TEST(removal) {
  apart();
  int id = (int)SYS(shmget(5, PAGE, IPC_CREAT | 0600));
  char *p = shmat(id, NULL, 0);

  REQUIRE(p != (void *)-1);
  SYS(shmctl(id, IPC_RMID, NULL));
  CHECK_EQ(stat_of(id).shm_perm.mode & SHM_DEST, SHM_DEST);
  CHECK_EQ(stat_of(id).shm_perm.__key, IPC_PRIVATE);
  CHECK_ERRNO(shmget(5, 0, 0), ENOENT); /* the key is free */
  strcpy(p, "still there");
  char *q = shmat(id, NULL, 0); /* Linux lets one attach by identifier */
  REQUIRE(q != (void *)-1);
  CHECK_STR(q, "still there");
  SYS(shmdt(p));
  SYS(shmdt(q));
  struct shmid_ds d;
  WAIT_FOR(shmctl(id, IPC_STAT, &d) < 0);
  CHECK(errno == EINVAL || errno == EIDRM);
  id = (int)SYS(shmget(IPC_PRIVATE, PAGE, 0600));
  SYS(shmctl(id, IPC_RMID, NULL));
  CHECK_ERRNO(shmctl(id, IPC_STAT, &d), EINVAL);
  CHECK_ERRNO(shmctl(id, IPC_RMID, NULL), EINVAL);
}

TEST(control) {
  apart();
  int id = (int)SYS(shmget(9, PAGE, IPC_CREAT | 0600)), n;
  struct shmid_ds d = stat_of(id);
  struct shminfo limits;
  struct shm_info used;

  d.shm_perm.uid = 1000;
  d.shm_perm.mode = 0664 | 07000;
  SYS(shmctl(id, IPC_SET, &d));
  d = stat_of(id);
  CHECK_EQ(d.shm_perm.uid, 1000);
  CHECK_EQ(d.shm_perm.mode, 0664);
  CHECK_EQ(d.shm_perm.cuid, geteuid());
  CHECK_OK(n = shmctl(0, IPC_INFO, (struct shmid_ds *)&limits));
  CHECK_EQ(limits.shmmni, 4096);
  CHECK_EQ(limits.shmmin, 1);
  CHECK_OK(shmctl(0, SHM_INFO, (struct shmid_ds *)&used));
  CHECK_EQ(used.used_ids, 1);
  CHECK_EQ(used.shm_tot, 1);
  CHECK_EQ(shmctl(n, SHM_STAT, &d), id);
  CHECK_EQ(d.shm_perm.__key, 9);
  CHECK_ERRNO(shmctl(n + 1, SHM_STAT, &d), EINVAL);
  CHECK_ERRNO(shmctl(id, 999, &d), EINVAL);
  CHECK_ERRNO(shmctl(id, IPC_STAT, (void *)8), EFAULT);
  SYS(shmctl(id, SHM_LOCK, NULL));
  CHECK_EQ(stat_of(id).shm_perm.mode & SHM_LOCKED, SHM_LOCKED);
  SYS(shmctl(id, SHM_UNLOCK, NULL));
}

TEST(permission) {
  apart();
  int id = (int)SYS(shmget(11, PAGE, IPC_CREAT | 0640));
  struct shmid_ds d;

  if (geteuid() != 0)
    SKIP("needs root");
  WAIT_OK(CHILD({
    SYS(setresgid(1000, 1000, 1000));
    SYS(setresuid(1000, 1000, 1000));
    CHECK_ERRNO(shmget(11, 0, 0400), EACCES);
    CHECK_EQ(shmget(11, 0, 0), id);
    CHECK_ERRNO((long)shmat(id, NULL, SHM_RDONLY), EACCES);
    CHECK_ERRNO(shmctl(id, IPC_STAT, &d), EACCES);
    CHECK_ERRNO(shmctl(id, IPC_RMID, NULL), EPERM);
    CHECK_ERRNO(shmctl(id, SHM_LOCK, NULL), EPERM);
  }));
  d = stat_of(id);
  d.shm_perm.gid = 1000;
  SYS(shmctl(id, IPC_SET, &d));
  WAIT_OK(CHILD({
    SYS(setresgid(1000, 1000, 1000));
    SYS(setresuid(1000, 1000, 1000));
    CHECK(shmat(id, NULL, SHM_RDONLY) != (void *)-1);
    CHECK_ERRNO((long)shmat(id, NULL, 0), EACCES);
  }));
}

/* The memory stays where it is attached, wherever its namespace went. */
TEST(namespace_goes) {
  apart();
  int id = (int)SYS(shmget(IPC_PRIVATE, 4 * PAGE, 0600));
  char *p = shmat(id, NULL, 0);

  REQUIRE(p != (void *)-1);
  pattern_fill(p, 4 * PAGE, 3);
  SYS(unshare(CLONE_NEWIPC));
  CHECK_ERRNO((long)shmat(id, NULL, 0), EINVAL);
  CHECK(pattern_ok(p, 4 * PAGE, 3));
  SYS(shmdt(p));
}

TEST_LIMIT(how_many, 30) {
  apart();
  int ids[4097], n = 0;

  while (n < 4097 && (ids[n] = shmget(IPC_PRIVATE, PAGE, 0600)) >= 0)
    n++;
  CHECK_EQ(errno, ENOSPC);
  CHECK_EQ(n, 4096);
  for (int i = 0; i < n; i++)
    SYS(shmctl(ids[i], IPC_RMID, NULL));
  int again = (int)SYS(shmget(IPC_PRIVATE, PAGE, 0600));
  for (int i = 0; i < n; i++)
    CHECK(again != ids[i]); /* an old identifier names nothing new */
}
