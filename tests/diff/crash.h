/* SPDX-License-Identifier: Apache-2.0 */
/* crash.h - the records that crash-writer writes and run-crash looks for. */
#pragma once

#define RECORD 1000

static inline void crash_record(unsigned char *p, unsigned i) {
  unsigned x = i * 2654435761u + 12345;
  for (int k = 0; k < RECORD; k++) {
    x = x * 1664525u + 1013904223u;
    p[k] = (unsigned char)(x >> 24);
  }
}
