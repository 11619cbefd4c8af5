/* SPDX-License-Identifier: Apache-2.0 */
/* fuse-server.h - a small filesystem in memory, served over /dev/fuse by a child process; what it does wrong on request, and
 * what it has seen, is in a page shared with the test. */
#pragma once

#include "check.h"

#include <linux/fuse.h>

enum {
  FAULT_NONE,
  FAULT_HANG,            /* never answers */
  FAULT_SHORT,           /* a reply that is too short */
  FAULT_LONG,            /* one that is too long for what was asked */
  FAULT_MODE,            /* attributes without a file type */
  FAULT_ERROR,           /* the error in `fault_error` */
  FAULT_DIE,             /* the server exits */
  FAULT_UNTIL_INTERRUPT, /* answers EINTR once it is told of the signal */
};

typedef struct {
  volatile unsigned fault_op; /* opcode that goes wrong */
  volatile int fault, fault_error;
  volatile unsigned seen[64]; /* requests by opcode */
  volatile unsigned valid;    /* seconds that names and attributes are valid */
  volatile int ended;         /* errno of the read that ended it */
  volatile unsigned forgotten;
} FuseControl;

typedef struct {
  pid_t pid;
  FuseControl *control;
  char *dir; /* where it is mounted */
} FuseServer;

/* Skips the case where there is no FUSE. `more`: further mount options, ",allow_other". */
FuseServer fuse_server_start(const char *more);
void fuse_server_stop(FuseServer *);
/* Opens /dev/fuse, or skips. In a private mount namespace from here on. */
int fuse_device(void);
