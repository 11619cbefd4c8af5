/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-share.c - several processes, one file: what POSIX promises of appending, overlapping reads and writes, mappings beside
 * writes and truncation, names that are replaced, files that are removed while open. */
#include "check.h"

#include <pthread.h>
#include <sys/uio.h>

/* Records of different sizes from several writers, by writev of many pieces: none is torn. */
TEST_LIMIT(appended_vectors_stay_whole, 30) {
  enum { W = 4, ROUNDS = 40, PIECES = 64, PIECE = 700 };
  char path[256];
  pid_t pid[W];
  close(tmp_file("log", ""));
  strcpy(path, tmp_path("log"));
  for (int w = 0; w < W; w++)
    pid[w] = CHILD(int fd = (int)SYS(open(path, O_WRONLY | O_APPEND)); char piece[PIECE];
                   struct iovec v[PIECES]; memset(piece, 'a' + w, PIECE);
                   for (int i = 0; i < PIECES; i++) v[i] = (struct iovec){piece, PIECE - w};
                   for (int i = 0; i < ROUNDS; i++) CHECK_EQ(writev(fd, v, PIECES), PIECES * (PIECE - w)));
  for (int w = 0; w < W; w++)
    WAIT_OK(pid[w]);
  size_t n;
  int count[W] = {0};
  char *text = read_file(path, &n);
  for (size_t at = 0; at < n;) {
    int w = text[at] - 'a';
    REQUIRE(w >= 0 && w < W);
    size_t len = PIECES * (PIECE - w);
    REQUIRE(at + len <= n);
    for (size_t i = 0; i < len; i++)
      REQUIRE(text[at + i] == 'a' + w);
    count[w]++;
    at += len;
  }
  for (int w = 0; w < W; w++)
    CHECK_EQ(count[w], ROUNDS);
}

/* POSIX 2.9.7: a read sees all of a write or nothing of it. Linux's ext4 does not promise it for buffered reads; what must hold
 * everywhere is that writes do not mix with each other. */
TEST_LIMIT(overlapping_writes_do_not_mix, 30) {
  enum { N = 64 * 1024, ROUNDS = 200 };
  char path[256];
  pid_t pid[3];
  static char buf[N];
  int fd = tmp_file("f", "");
  strcpy(path, tmp_path("f"));
  SYS(ftruncate(fd, N));
  for (int w = 0; w < 3; w++)
    pid[w] = CHILD(int c = (int)SYS(open(path, O_RDWR)); memset(buf, 'a' + w, N);
                   for (int i = 0; i < ROUNDS; i++) CHECK_EQ(pwrite(c, buf, N, 0), N));
  for (int w = 0; w < 3; w++)
    WAIT_OK(pid[w]);
  CHECK_EQ(pread(fd, buf, N, 0), N);
  for (int i = 1; i < N; i++)
    if (!CHECK_EQ(buf[i], buf[0]))
      break;
}

/* One description, several processes: the position moves by what each took (POSIX 2.9.7 for shared descriptions). */
TEST(shared_position) {
  enum { W = 4, N = 500 };
  pid_t pid[W];
  int fd = tmp_file("f", "");
  for (int w = 0; w < W; w++)
    pid[w] = CHILD(char rec[16]; memset(rec, 'a' + w, 16);
                   for (int i = 0; i < N; i++) CHECK_EQ(write(fd, rec, 16), 16));
  for (int w = 0; w < W; w++)
    WAIT_OK(pid[w]);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), W * N * 16);
  size_t n;
  char *text = read_file(tmp_path("f"), &n);
  int count[W] = {0};
  CHECK_EQ(n, W * N * 16);
  for (size_t i = 0; i + 16 <= n; i += 16) {
    REQUIRE(text[i] >= 'a' && text[i] < 'a' + W);
    for (int k = 1; k < 16; k++)
      REQUIRE(text[i + k] == text[i]);
    count[text[i] - 'a']++;
  }
  for (int w = 0; w < W; w++)
    CHECK_EQ(count[w], N);
}

TEST(mappings_and_calls_see_each_other) {
  int fd = tmp_file("f", "");
  char c;
  SYS(ftruncate(fd, 4 * PAGE));
  volatile char *m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  volatile char *p = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
  REQUIRE(m != MAP_FAILED && p != MAP_FAILED);
  for (int i = 0; i < 4; i++) {
    m[i * PAGE] = 'a' + i;
    CHECK_EQ(pread(fd, &c, 1, i * PAGE), 1);
    CHECK_EQ(c, 'a' + i);
    CHECK_EQ(pwrite(fd, "Z", 1, i * PAGE + 1), 1);
    CHECK_EQ(m[i * PAGE + 1], 'Z');
    CHECK_EQ(p[i * PAGE + 1], 'Z'); /* not touched for writing: still the file's */
  }
  int64_t *turn = map_shared(4096);
  turn[0] = 0;
  pid_t pid = CHILD(int f = (int)SYS(open(tmp_path("f"), O_RDWR)); for (int i = 0; i < 200; i++) {
    WAIT_FOR(((volatile int64_t *)turn)[0] == i * 2 + 1);
    char x;
    CHECK_EQ(pread(f, &x, 1, 100), 1);
    CHECK_EQ(x, (char)i);
    x = (char)(i + 1);
    CHECK_EQ(pwrite(f, &x, 1, 200), 1);
    __atomic_store_n(turn, i * 2 + 2, __ATOMIC_SEQ_CST);
  });
  for (int i = 0; i < 200; i++) {
    m[100] = (char)i;
    __atomic_store_n(turn, i * 2 + 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(turn, __ATOMIC_SEQ_CST) != i * 2 + 2 && waitpid(pid, NULL, WNOHANG) == 0)
      usleep(10);
    if (!CHECK_EQ(m[200], (char)(i + 1)))
      break;
  }
  WAIT_OK(pid);
}

TEST(truncation_under_a_mapping) {
  int fd = tmp_file("f", "");
  SYS(ftruncate(fd, 3 * PAGE));
  char *m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  REQUIRE(m != MAP_FAILED && p != MAP_FAILED);
  memset(m, 'x', 3 * PAGE);
  p[PAGE] = 'p';
  p[2 * PAGE] = 'p';
  CHECK_EQ(touch_read(m + 3 * PAGE, NULL), SIGBUS);
  WAIT_OK(CHILD(int f = (int)SYS(open(tmp_path("f"), O_RDWR)); SYS(ftruncate(f, PAGE + 10))));
  CHECK_EQ(touch_read(m + PAGE, NULL), 0);
  CHECK_EQ(touch_read(m + 2 * PAGE, NULL), SIGBUS);
  CHECK_EQ(touch_write(m + 2 * PAGE, NULL), SIGBUS);
  CHECK_EQ(touch_read(p + 2 * PAGE, NULL), SIGBUS); /* private copies beyond the end go too */
  CHECK_EQ(p[PAGE], 'p');
  CHECK_EQ(m[PAGE + 9], 'x');
  CHECK_EQ(m[PAGE + 10], 0); /* the rest of the last page is cleared */
  SYS(ftruncate(fd, 3 * PAGE));
  CHECK_EQ(touch_read(m + 2 * PAGE, NULL), 0);
  for (size_t i = PAGE + 10; i < 3 * PAGE; i += 511)
    CHECK_EQ(m[i], 0);
  CHECK_ERRNO(read(fd, m + 3 * PAGE, 10) < 0 ? -1 : pread(fd, m + 3 * PAGE, 10, 0),
              EFAULT); /* no SIGBUS from a call */
}

TEST_LIMIT(truncation_races_with_access, 20) {
  int fd = tmp_file("f", "");
  char *m = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(m != MAP_FAILED);
  pid_t pid = CHILD(int f = (int)SYS(open(tmp_path("f"), O_RDWR)); for (int i = 0; i < 300; i++) {
    SYS(ftruncate(f, (i % 64) * PAGE));
    SYS(ftruncate(f, 64 * PAGE));
  });
  int done = 0, st, faults = 0;
  uint64_t seed = 5;
  while (!done) {
    int s = touch_write(m + next_random(&seed) % (64 * PAGE), NULL);
    CHECK(s == 0 || s == SIGBUS);
    faults += s != 0;
    done = waitpid(pid, &st, WNOHANG) == pid;
  }
  CHECK_EQ(st, 0);
}

TEST(removed_while_open) {
  int fd = tmp_file("f", "hello");
  struct stat st;
  char buf[16] = "";
  char *m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  WAIT_OK(CHILD(SYS(unlink(tmp_path("f")))));
  CHECK_ERRNO(stat(tmp_path("f"), &st), ENOENT);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_nlink, 0);
  CHECK_EQ(pread(fd, buf, 16, 0), 5);
  CHECK_EQ(pwrite(fd, "HELLO world", 11, 0), 11);
  CHECK(!memcmp(m, "HELLO world", 11));
  close(tmp_file("f", "new")); /* another file of the same name */
  CHECK_EQ(pread(fd, buf, 16, 0), 11);
  char proc[64], target[512] = "";
  snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
  SYS(readlink(proc, target, sizeof target - 1));
  CHECK(strstr(target, " (deleted)") != NULL);
  int again = (int)SYS(open(proc, O_RDONLY));
  CHECK_EQ(read(again, buf, 16), 11);
  close(fd);
  CHECK(!memcmp(m, "HELLO world", 11));
}

/* While one process replaces a name by rename, it is never missing for others, and always whole. */
TEST_LIMIT(replaced_names_are_always_there, 30) {
  char a[256], path[256];
  close(tmp_file("f", "0000000000"));
  strcpy(path, tmp_path("f"));
  strcpy(a, tmp_path("new"));
  pid_t pid = CHILD(for (int i = 0; i < 500; i++) {
    char text[11];
    memset(text, 'a' + i % 26, 10);
    write_file(a, text, 10, 0644);
    SYS(rename(a, path));
  });
  int st;
  while (waitpid(pid, &st, WNOHANG) == 0) {
    char buf[16];
    int fd = (int)CHECK_OK(open(path, O_RDONLY));
    if (fd < 0)
      break;
    CHECK_EQ(read(fd, buf, 16), 10);
    for (int i = 1; i < 10; i++)
      CHECK_EQ(buf[i], buf[0]);
    close(fd);
    struct stat s;
    CHECK_OK(stat(path, &s));
  }
  CHECK_EQ(st, 0);
}

TEST_LIMIT(exchanged_directories_are_always_there, 30) {
  char a[256], b[256];
  SYS(mkdir(tmp_path("a"), 0700));
  SYS(mkdir(tmp_path("b"), 0700));
  close((int)SYS(open(tmp_path("a/x"), O_CREAT | O_RDWR, 0600)));
  close((int)SYS(open(tmp_path("b/x"), O_CREAT | O_RDWR, 0600)));
  strcpy(a, tmp_path("a"));
  strcpy(b, tmp_path("b"));
  pid_t pid = CHILD(for (int i = 0; i < 500; i++) SYS(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2)));
  int st;
  while (waitpid(pid, &st, WNOHANG) == 0) {
    struct stat s;
    CHECK_OK(stat(tmp_path("a/x"), &s));
    CHECK_OK(stat(tmp_path("b/x"), &s));
  }
  CHECK_EQ(st, 0);
}

/* O_EXCL and link: of several that try, one wins. */
TEST(one_creator_wins) {
  enum { W = 4, N = 50 };
  pid_t pid[W];
  int *wins = map_shared(4096);
  *wins = 0;
  tmp_dir();
  for (int w = 0; w < W; w++)
    pid[w] = CHILD(for (int i = 0; i < N; i++) {
      char name[16];
      snprintf(name, sizeof name, "n%d", i);
      int fd = open(tmp_path(name), O_CREAT | O_EXCL | O_RDWR, 0600);
      if (fd >= 0)
        __sync_fetch_and_add(wins, 1);
      else
        CHECK_EQ(errno, EEXIST);
    });
  for (int w = 0; w < W; w++)
    WAIT_OK(pid[w]);
  CHECK_EQ(*wins, N);
}

static int race_fd;
static void *closer(void *arg) {
  for (int i = 0; i < 2000; i++) {
    dup2(0, 77);
    close(77);
  }
  return NULL;
}
static void *user(void *arg) {
  char buf[16];
  for (int i = 0; i < 2000; i++) {
    pread(race_fd, buf, 16, 0);
    fcntl(77, F_GETFL);
    lseek(77, 0, SEEK_CUR);
    struct stat st;
    fstat(77, &st);
  }
  return NULL;
}
TEST(descriptors_change_under_threads) {
  pthread_t th[4];
  race_fd = tmp_file("f", "0123456789abcdef");
  for (int i = 0; i < 4; i++)
    pthread_create(&th[i], NULL, i & 1 ? closer : user, NULL);
  for (int i = 0; i < 4; i++)
    pthread_join(th[i], NULL);
}
