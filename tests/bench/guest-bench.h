/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the guest benchmark: `once` does the operation one time, or `row` measures and prints by itself. */
#pragma once

#include "measure.h"

#include <errno.h>

typedef struct {
  const char *name;
  void (*once)(void);
  void (*row)(const char *name);
} BenchRow;

extern const BenchRow file_rows[]; /* file-rows.c; ends with a row without a name */
void file_rows_begin(void);
void file_rows_end(void);

#define DIE(what) \
  do {            \
    perror(what); \
    exit(1);      \
  } while (0)
