/* SPDX-License-Identifier: Apache-2.0 */
/* diff.h - the random file operations: an actor (process or thread), its random numbers, its log.
 *
 * An operation draws its parameters from numbers that depend only on the seed and its own number, never on what came
 * before, so that a sequence with some operations left out is still the same sequence.
 */
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define SLOTS 12
#define MAPS 4
#define ACTORS 3 /* processes */
#define BUF 65536
#define FILE_LIMIT (1 << 20) /* RLIMIT_FSIZE */

typedef struct {
  void *at; /* NULL: unused */
  size_t len;
  bool writable;
  bool may_be_copy; /* mmap(2) leaves open whether later writes to the file show */
} Map;

typedef struct {
  unsigned index;
  uint64_t rng;
  int fd[SLOTS];
  mode_t type[SLOTS]; /* S_IFMT of the file */
  Map map[MAPS];
  char line[16384];
  size_t n;
  char buf[BUF];
  int mail[2]; /* descriptors travel to the next actor: [0] receive, [1] send */
  char paths[4][1200];
  unsigned turn;
} Actor;

typedef struct {
  const char *name;
  void (*fn)(void);
  unsigned weight;
} Op;

extern const Op io_ops[], name_ops[], attr_ops[], fd_ops[];

extern _Thread_local Actor *me;
extern bool opt_threads;         /* for safety only: nothing is logged */
extern bool opt_user_attributes; /* no trusted.* and security.* */
extern bool opt_dir_counts;      /* link counts of directories are comparable (not on an overlay) */

/* What actors share. */
typedef struct {
  uint32_t turn; /* futex: whose it is, or ACTORS: the end */
  uint64_t op;   /* the next */
  int waiting[ACTORS];
  pid_t pid[ACTORS];
} Shared;
extern Shared *shared;

/* Random numbers of this operation. */
uint64_t draw(void);
unsigned below(unsigned n);
bool chance(unsigned percent);
#define PICK(list) ((list)[below(sizeof(list) / sizeof(*(list)))])
long offset(void); /* bytes: mostly small, sometimes at the edges */
unsigned length(void);
const char *path(void);     /* a ring of four */
const char *dir_path(void); /* likely to be a directory */

/* Descriptors. any_fd() is sometimes bad; the others prefer what they name. */
int any_fd(void), file_fd(void), dir_fd(void); /* dir_fd(): often AT_FDCWD */
mode_t fd_type(int fd);
void keep(long fd); /* puts a new descriptor into a slot and closes what was there */
void forget(int fd);

/* The log: say() adds to the line of this operation; done() adds the result and returns it. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void say_path(const char *p);
long done(long ret); /* ret < 0: errno */
void say_bytes(const void *p, size_t n);
const char *error_name(int e);
uint32_t hash(const void *p, size_t n);
void fill(void *p, size_t n);
void say_stat(const struct stat *st);

/* tree.c */
void print_tree(void (*line)(const char *), const char *dir);
long remove_all(const char *dir); /* 0, or what could not be removed */
