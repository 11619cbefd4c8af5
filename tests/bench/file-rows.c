/* SPDX-License-Identifier: Apache-2.0 */
/* The guest benchmark's file rows. BENCH_DATA names a directory of the host with `big`, 256 MiB that the host has cached, and
 * `many`, 5,000 and more small files; without it the rows that need it print nothing. */
#include "guest-bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (1 << 20)
#define BIG ((size_t)256 * MIB)

static int file_fd;

static void do_open(void) {
  int fd = open("/tmp/bench-file", O_RDONLY);
  if (fd < 0)
    DIE("open");
  close(fd);
}

static void do_stat(void) {
  struct stat st;
  if (stat("/tmp/a/b/c/d/e", &st))
    DIE("stat");
}

static void do_stat_missing(void) {
  struct stat st;
  if (!stat("/tmp/a/b/c/d/missing", &st))
    DIE("stat of what is missing");
}

static void do_stat_host(void) {
  struct stat st;
  if (stat("/usr/share/doc", &st))
    DIE("stat");
}

static void do_create(void) {
  int fd = open("/tmp/bench-new", O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (fd < 0 || unlink("/tmp/bench-new"))
    DIE("create");
  close(fd);
}

static char page[4096];
static void do_read(void) {
  if (pread(file_fd, page, sizeof page, 0) != sizeof page)
    DIE("read");
}
static void do_write(void) {
  if (pwrite(file_fd, page, sizeof page, 0) != sizeof page)
    DIE("write");
}

static void read_all_names(const char *dir, long least) {
  static char buf[32768];
  int fd = open(dir, O_RDONLY | O_DIRECTORY);
  long n, total = 0;
  while ((n = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0)
    total += n;
  close(fd);
  if (n < 0 || total < least * 24)
    DIE("getdents");
}

static void do_readdir(void) { read_all_names("/tmp/bench-dir", 5000); }

/* All names of a directory of 5,000 files. */
static void row_readdir(const char *name) {
  char path[64];
  mkdir("/tmp/bench-dir", 0700);
  for (int i = 0; i < 5000; i++) {
    snprintf(path, sizeof path, "/tmp/bench-dir/file-%d", i);
    close(open(path, O_WRONLY | O_CREAT, 0600));
  }
  measure(name, do_readdir);
  for (int i = 0; i < 5000; i++) {
    snprintf(path, sizeof path, "/tmp/bench-dir/file-%d", i);
    unlink(path);
  }
  rmdir("/tmp/bench-dir");
}

/* 256 MiB written to a file in /tmp and read back, 64 KiB at a time. */
static void row_file(const char *name) {
  static char buf[65536];
  double values[3];
  memset(buf, 'x', sizeof buf);
  for (int i = 0; i < 3; i++) {
    int fd = open("/tmp/bench-big", O_RDWR | O_CREAT | O_TRUNC, 0600);
    double begin = measure_now();
    for (int k = 0; k < 4096; k++)
      if (write(fd, buf, sizeof buf) != sizeof buf)
        DIE("write");
    lseek(fd, 0, SEEK_SET);
    for (int k = 0; k < 4096; k++)
      if (read(fd, buf, sizeof buf) != sizeof buf)
        DIE("read");
    values[i] = measure_now() - begin;
    close(fd);
    unlink("/tmp/bench-big");
  }
  measure_print(name, values, 3);
}

static int open_big(void) {
  char path[512];
  const char *data = getenv("BENCH_DATA");
  snprintf(path, sizeof path, "%s/big", data ? data : "");
  int fd = data ? open(path, O_RDONLY) : -1;
  if (fd < 0)
    DIE("BENCH_DATA");
  return fd;
}

/* A cached file of the host, read 64 KiB at a time. */
static void row_seq_read(const char *name) {
  static char buf[65536];
  double values[5];
  int fd = open_big();
  for (int i = 0; i < 5; i++) {
    double begin = measure_now();
    lseek(fd, 0, SEEK_SET);
    for (size_t k = 0; k < BIG / sizeof buf; k++)
      if (read(fd, buf, sizeof buf) != sizeof buf)
        DIE("read");
    values[i] = measure_now() - begin;
  }
  close(fd);
  measure_print(name, values, 5);
}

/* The same file mapped anew each time, one word of each cache line read. */
static void row_seq_map(const char *name) {
  double values[5];
  int fd = open_big();
  for (int i = 0; i < 5; i++) {
    double begin = measure_now();
    const volatile long *p = mmap(NULL, BIG, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
      DIE("mmap");
    for (size_t k = 0; k < BIG / sizeof *p; k += 8)
      (void)p[k];
    munmap((void *)p, BIG);
    values[i] = measure_now() - begin;
  }
  close(fd);
  measure_print(name, values, 5);
}

const BenchRow file_rows[] = {{"open-close", do_open, NULL},
                              {"stat", do_stat, NULL},
                              {"stat-missing", do_stat_missing, NULL},
                              {"stat-host", do_stat_host, NULL},
                              {"create", do_create, NULL},
                              {"readdir-5000", NULL, row_readdir},
                              {"read-4k", do_read, NULL},
                              {"write-4k", do_write, NULL},
                              {"file-256m", NULL, row_file},
                              {"seq-read", NULL, row_seq_read},
                              {"seq-map", NULL, row_seq_map},
                              {NULL, NULL, NULL}};

void file_rows_begin(void) {
  static const char *const dirs[] = {"/tmp/a", "/tmp/a/b", "/tmp/a/b/c", "/tmp/a/b/c/d", "/tmp/a/b/c/d/e"};
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
    mkdir(dirs[i], 0755);
  file_fd = open("/tmp/bench-file", O_RDWR | O_CREAT, 0600);
  if (file_fd < 0 || pwrite(file_fd, page, sizeof page, 0) != sizeof page)
    DIE("/tmp/bench-file");
}

void file_rows_end(void) { unlink("/tmp/bench-file"); }
