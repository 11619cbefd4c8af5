/* SPDX-License-Identifier: Apache-2.0 */
/* overlay-races.c - many threads on one overlay: copy-ups of one file, copy-up against rename and removal. */
#include "overlay.h"

#include <ftw.h>
#include <pthread.h>

#define N_THREADS 8

typedef struct {
  int id;
  pthread_t thread;
} Worker;

static volatile int stop_now;

static void run_all(void *(*fn)(void *), Worker *w, int n) {
  for (int i = 0; i < n; i++) {
    w[i].id = i;
    SYS(pthread_create(&w[i].thread, NULL, fn, &w[i]));
  }
}
static void join_all(Worker *w, int n) {
  for (int i = 0; i < n; i++)
    pthread_join(w[i].thread, NULL);
}

/* Paths are made before threads run: tmp_path() has one ring of buffers for all. */
static char files[64][256], others[64][256];

static void *write_own_byte(void *arg) {
  Worker *w = arg;
  for (int i = 0; i < 64; i++) {
    int fd = open(files[i], O_RDWR);
    if (!CHECK(fd >= 0))
      continue;
    char c = (char)('A' + w->id);
    CHECK_EQ(pwrite(fd, &c, 1, w->id * 1000), 1);
    close(fd);
  }
  return NULL;
}

/* Eight threads open the same lower files for writing at once: one copy, no write lost. */
TEST_LIMIT(copy_up_by_many, 60) {
  ov_setup();
  static char data[20000];
  memset(data, '.', sizeof data);
  SYS(mkdir(ov("l/d"), 0755));
  for (int i = 0; i < 64; i++) {
    char name[32];
    snprintf(name, sizeof name, "l/d/f%d", i);
    write_file(ov(name), data, sizeof data, 0644);
    name[0] = 'm';
    strcpy(files[i], ov(name));
  }
  ov_mount(NULL);
  Worker w[N_THREADS];
  run_all(write_own_byte, w, N_THREADS);
  join_all(w, N_THREADS);
  for (int i = 0; i < 64; i++) {
    size_t n;
    char *got = read_file(files[i], &n);
    REQUIRE(got && n == sizeof data);
    for (int k = 0; k < N_THREADS; k++)
      CHECK_EQ(got[k * 1000], 'A' + k);
    CHECK_EQ(got[500], '.');
    free(got);
  }
  ov_down();
}

static void *look(void *arg) {
  static char buf[N_THREADS][70000];
  Worker *w = arg;
  for (int i = 0; !stop_now; i = (i + 1) % 64) {
    int fd = open(files[i], O_RDONLY);
    if (!CHECK(fd >= 0))
      break;
    ssize_t n = read(fd, buf[w->id], sizeof buf[0]);
    struct stat st;
    if (!CHECK_EQ(n, 65536) || !CHECK(fstat(fd, &st) == 0 && st.st_size == 65536) ||
        !CHECK(pattern_ok(buf[w->id] + 1, 65535, 7)))
      break;
    close(fd);
  }
  return NULL;
}

/* Whoever opens a file while it is copied up finds all of it. */
TEST_LIMIT(nobody_sees_half_a_copy, 60) {
  ov_setup();
  static char data[65536];
  pattern_fill(data + 1, sizeof data - 1, 7);
  for (int i = 0; i < 64; i++) {
    char name[32];
    snprintf(name, sizeof name, "l/f%d", i);
    write_file(ov(name), data, sizeof data, 0644);
    name[0] = 'm';
    strcpy(files[i], ov(name));
  }
  ov_mount(NULL);
  Worker w[4];
  stop_now = 0;
  run_all(look, w, 4);
  for (int i = 0; i < 64; i++)
    SYS(chmod(files[i], 0600));
  stop_now = 1;
  join_all(w, 4);
  ov_down();
}

static void *rename_back_and_forth(void *arg) {
  (void)arg;
  for (int i = 0; i < 64; i++) {
    CHECK_OK(rename(files[i], others[i]));
    CHECK_OK(rename(others[i], files[i]));
  }
  return NULL;
}

static void *change(void *arg) {
  Worker *w = arg;
  for (int i = 0; i < 64; i++) {
    int fd = open((i + w->id) & 1 ? files[i] : others[i], O_RDWR);
    if (fd >= 0) {
      CHECK_EQ(pwrite(fd, "!", 1, w->id), 1);
      close(fd);
    } else {
      CHECK_EQ(errno, ENOENT);
    }
    if (chmod(files[i], 0600 + (unsigned)w->id) != 0)
      CHECK_EQ(errno, ENOENT);
  }
  return NULL;
}

/* Copy-up of a file against its rename between two directories: it is somewhere, once, and whole. */
TEST_LIMIT(copy_up_against_rename, 60) {
  ov_setup();
  SYS(mkdir(ov("l/d"), 0755));
  SYS(mkdir(ov("l/e"), 0755));
  for (int i = 0; i < 64; i++) {
    char name[32];
    snprintf(name, sizeof name, "l/d/f%d", i);
    write_file(ov(name), "0123456789", 10, 0644);
    name[0] = 'm';
    strcpy(files[i], ov(name));
    name[2] = 'e';
    strcpy(others[i], ov(name));
  }
  ov_mount(NULL);
  Worker mover, w[4];
  run_all(change, w, 4);
  run_all(rename_back_and_forth, &mover, 1);
  join_all(&mover, 1);
  join_all(w, 4);
  for (int i = 0; i < 64; i++) {
    size_t n;
    char *got = read_file(files[i], &n);
    CHECK(got && n == 10 && memcmp(got + 4, "456789", 6) == 0);
    free(got);
    CHECK(access(others[i], F_OK) != 0);
  }
  ov_down();
}

static void *make_and_remove(void *arg) {
  Worker *w = arg;
  for (int i = 0; i < 64; i++) {
    if (unlink(files[i]) != 0)
      CHECK_EQ(errno, ENOENT);
    int fd = open(files[i], O_CREAT | O_RDWR, 0644);
    if (fd < 0) {
      CHECK_EQ(errno, ENOENT);
      continue;
    }
    CHECK_EQ(pwrite(fd, "new", 3, 0), 3);
    close(fd);
    if (w->id & 1)
      rename(files[i], others[i]);
  }
  return NULL;
}

/* Removing, making, renaming the same names: nothing but the errors that must be, and a directory that can be emptied. */
TEST_LIMIT(names_under_fire, 60) {
  ov_setup();
  SYS(mkdir(ov("l/d"), 0755));
  for (int i = 0; i < 64; i++) {
    char name[32];
    snprintf(name, sizeof name, "l/d/f%d", i / 4);
    write_file(ov(name), "0123456789", 10, 0644);
    name[0] = 'm';
    strcpy(files[i], ov(name));
    snprintf(name, sizeof name, "m/d/g%d", i / 4);
    strcpy(others[i], ov(name));
  }
  ov_mount(NULL);
  Worker w[N_THREADS];
  run_all(make_and_remove, w, N_THREADS);
  join_all(w, N_THREADS);
  for (int i = 0; i < 64; i++) {
    unlink(files[i]);
    unlink(others[i]);
  }
  CHECK_OK(rmdir(ov("m/d")));
  CHECK(is_whiteout("u/d"));
  ov_down();
}

static void *move_directories(void *arg) {
  Worker *w = arg;
  char a[300], b[300];
  snprintf(a, sizeof a, "%s/d%d", files[0], w->id);
  snprintf(b, sizeof b, "%s/d%d", files[0], (w->id + 3) % N_THREADS);
  for (int i = 0; i < 100; i++) {
    char in[400];
    snprintf(in, sizeof in, "%s/in%d", b, w->id);
    if (rename(a, in) == 0)
      rename(in, a);
    snprintf(in, sizeof in, "%s/f", b);
    int fd = open(in, O_RDWR);
    if (fd >= 0)
      close(fd);
    chmod(in, 0600);
  }
  return NULL;
}

static int found;

static int count_file(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  size_t n;
  if (type == FTW_F) {
    char *got = read_file(path, &n);
    found += got && n == 1 && got[0] == 'x' && strcmp(path + ftw->base, "f") == 0;
    free(got);
  }
  (void)st;
  return 0;
}

/* Directories are moved into one another while files in them are copied up: no deadlock, no file lost. */
TEST_LIMIT(directories_into_one_another, 60) {
  ov_setup();
  for (int i = 0; i < N_THREADS; i++) {
    char name[32];
    snprintf(name, sizeof name, "l/d%d", i);
    SYS(mkdir(ov(name), 0755));
    snprintf(name, sizeof name, "l/d%d/f", i);
    put(name, "x");
  }
  ov_mount("redirect_dir=on");
  strcpy(files[0], ov("m"));
  Worker w[N_THREADS];
  run_all(move_directories, w, N_THREADS);
  join_all(w, N_THREADS);
  found = 0;
  nftw(ov("m"), count_file, 16, FTW_PHYS);
  CHECK_EQ(found, N_THREADS);
  ov_down();
}
