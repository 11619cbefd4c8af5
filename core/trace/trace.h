/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: tracing. The entry points that tasks call are declared in core/task/task.h. */
#pragma once

#include <core/task/task.h>

gpointer tes_unimpl_new(void);
void tes_unimpl_free(gpointer);
void tes_trace_path_end(TesKernel *); /* the counts, if it was on */
