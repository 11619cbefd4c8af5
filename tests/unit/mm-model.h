/* SPDX-License-Identifier: Apache-2.0 */
/* A model of address spaces for random tests of core/mm: what each page of an arena must hold in each process, kept in
 * the simplest way, and operations that are done to the model and to core/mm alike. */
#pragma once

#include "fake-platform.h"

/* Runs `steps` random operations on up to four processes and checks them against the model all the time. */
void model_run(TesKernel *, guint steps, gboolean with_files);

/* A source like a host file: a descriptor of its own with a window in this process. */
typedef struct {
  TesMapSource source;
  gint refs;
  int fd;
  guint8 *window;
  gsize size, window_size;
  gint pieces; /* calls of piece() */
} FileSource;
FileSource *file_source_new(gsize size, gsize window_size);
void file_source_truncate(FileSource *, gsize size);
