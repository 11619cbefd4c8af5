/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: what a piece of code may ask about the one it works for (FEATURES.md 1.2, K1-K24).
 *
 * Three kinds of context answer the same keys: a task, a create-process context (a process that is being made) and
 * the supervisor (the operator's control calls). A key is a slot number; a lookup is an array index and a call of
 * the kind's resolver. Lookups borrow, have no side effect and answer NULL for what they do not know; a
 * borrow lives until the task returns to the guest or blocks. Values that the seeds' contexts *generate*
 * (unique ids, inotify cookies) are functions of the kernel: kernel.h. */
#pragma once

#include <tessera/types.h>

TES_BEGIN_DECLS

typedef enum { TES_CTX_TASK, TES_CTX_CREATE, TES_CTX_SUPERVISOR, TES_CTX_KINDS } TesCtxKind;

/* The core's keys. Plugins' keys get numbers from TES_CTX_N_CORE on when the registry is sealed. */
typedef enum {
  TES_CTX_CAN_TRACE,        /* gboolean (*)(TesCtx *, TesTask *)  K1 */
  TES_CTX_KERNEL,           /* TesKernel   K2 */
  TES_CTX_PID_NS,           /* TesNs       K3 */
  TES_CTX_UTS_NS,           /* TesNs       K4 */
  TES_CTX_IPC_NS,           /* TesNs       K5 */
  TES_CTX_CRED,             /* TesCred     K6 */
  TES_CTX_ROOT,             /* TesPath     K7, K8 */
  TES_CTX_MOUNT_NS,         /* TesMountNs  K9 */
  TES_CTX_DCACHE_LIMITER,   /* K10 */
  TES_CTX_NET_NS,           /* TesNs       K11 */
  TES_CTX_REALTIME_CLOCK,   /* TesClock    K12 */
  TES_CTX_LIMITS,           /* TesLimits   K13 */
  TES_CTX_MEMFILE,          /* TesMemFile  K14 */
  TES_CTX_MEMFILE_PROVIDER, /* TesKernel   K15 */
  TES_CTX_PLATFORM,         /* TesPlatform K16 */
  TES_CTX_UNIQUE_ID,        /* TesKernel: generator K17, K18 */
  TES_CTX_INOTIFY_COOKIE,   /* TesKernel: generator K19 */
  TES_CTX_EVENTS,           /* TesKernel   K20 */
  TES_CTX_TASK_SELF,        /* TesTask     K24 */
  TES_CTX_THREAD_GROUP,     /* TesThreadGroup K24 */
  TES_CTX_WORKING_DIR,      /* TesPath */
  TES_CTX_USER_NS,          /* TesNs */
  TES_CTX_N_CORE
} TesCtxKey;

typedef gpointer (*TesCtxResolver)(TesCtx *);

struct _TesCtx {
  TesCtxKind kind;
  TesKernel *kernel;
  const TesCtxResolver *resolve; /* the kind's table, one entry for each key; entries may be NULL */
};

/* One row of the key table: documentation and the resolvers of each kind. */
typedef struct {
  const char *name;  /* "kernel", "cred", ... */
  const char *type;  /* C type of the value */
  const char *seed;  /* FEATURES.md row, or "" */
  const char *owner; /* who keeps it alive */
  TesCtxResolver resolve[TES_CTX_KINDS];
} TesCtxKeyRow;

/* ops of a "ctx-keys" feature. `slots` receives the assigned key of each row. */
typedef struct {
  gsize size;
  const TesCtxKeyRow *rows;
  gsize n;
  guint *slots;
} TesCtxKeyTable;

static inline gpointer tes_ctx_get(TesCtx *ctx, guint key) {
  TesCtxResolver r = ctx->resolve[key];
  return r ? r(ctx) : NULL;
}
static inline TesKernel *tes_ctx_kernel(TesCtx *ctx) { return ctx->kernel; }
static inline TesCred *tes_ctx_cred(TesCtx *ctx) { return (TesCred *)tes_ctx_get(ctx, TES_CTX_CRED); }
static inline TesPath *tes_ctx_root(TesCtx *ctx) { return (TesPath *)tes_ctx_get(ctx, TES_CTX_ROOT); }
static inline TesPath *tes_ctx_working_dir(TesCtx *ctx) {
  return (TesPath *)tes_ctx_get(ctx, TES_CTX_WORKING_DIR);
}
static inline TesMountNs *tes_ctx_mount_ns(TesCtx *ctx) {
  return (TesMountNs *)tes_ctx_get(ctx, TES_CTX_MOUNT_NS);
}
/* The task itself; NULL in the other two kinds. */
static inline TesTask *tes_ctx_task(TesCtx *ctx) { return (TesTask *)tes_ctx_get(ctx, TES_CTX_TASK_SELF); }
static inline TesNs *tes_ctx_pid_ns(TesCtx *ctx) { return (TesNs *)tes_ctx_get(ctx, TES_CTX_PID_NS); }
static inline TesLimits *tes_ctx_limits(TesCtx *ctx) { return (TesLimits *)tes_ctx_get(ctx, TES_CTX_LIMITS); }

/* All keys of a sealed registry, in slot order. */
void tes_ctx_keys_foreach(const TesRegistry *, void (*)(guint key, const TesCtxKeyRow *, gpointer), gpointer);

TES_END_DECLS
