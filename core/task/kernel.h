/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: the create-process context. */
#pragma once

#include <core/loader/loader.h>
#include <core/task/task.h>

/* What a process that is being made answers to context keys (L17); lives on the stack of tes_kernel_create_process. */
typedef struct {
  TesCtx ctx;
  TesNs *pid_ns, *uts_ns, *ipc_ns; /* borrowed */
  TesCred *cred;
  TesPath *root, *cwd;
  TesMountNs *mount_ns;
  TesLimits *limits;
} TesCreateCtx;

/* A process without a parent from a loaded image (consumed on success): linked, not started. Transfer full.
 * Takes a reference on args->fdtable; root, cwd and credentials are the context's. */
TesThreadGroup *tes_task_create_first(TesCreateCtx *, const TesProcessArgs *, TesImage *, GError **);
