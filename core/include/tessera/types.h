/* SPDX-License-Identifier: Apache-2.0 */
/* Forward declarations and the few scalar types that every Tessera header uses.
 * What serves a guest returns >= 0 or -errno; what serves the operator fills a GError (docs/errors.md). */
#pragma once

#include <errno.h>
#include <glib.h>

/* Symbols declared between TES_BEGIN_DECLS and TES_END_DECLS are exported from the core library. */
#define TES_BEGIN_DECLS _Pragma("GCC visibility push(default)") G_BEGIN_DECLS
#define TES_END_DECLS G_END_DECLS _Pragma("GCC visibility pop")

/* An operation exists when the table is large enough to hold it and it is not NULL. */
#define TES_HAS(ops, member) ((ops)->size > G_STRUCT_OFFSET(__typeof__(*(ops)), member) && (ops)->member)

#define TES_PAGE_SHIFT 12
#define TES_PAGE_SIZE 4096UL
#define TES_PAGE_MASK (~(TES_PAGE_SIZE - 1))
#define TES_PAGE_DOWN(x) ((x)&TES_PAGE_MASK)
#define TES_PAGE_UP(x) (((x) + TES_PAGE_SIZE - 1) & TES_PAGE_MASK)

typedef gint64 TesTime; /* nanoseconds */
#define TES_TIME_INFINITE G_MAXINT64
#define TES_NSEC ((TesTime)1000000000)

/* core/registry */
typedef struct _TesRegistry TesRegistry;
typedef struct _TesPlugin TesPlugin;
typedef struct _TesFeature TesFeature;
typedef struct _TesCtx TesCtx;

/* core/task */
typedef struct _TesKernel TesKernel;
typedef struct _TesTask TesTask;
typedef struct _TesThreadGroup TesThreadGroup;
typedef struct _TesCred TesCred;
typedef struct _TesSession TesSession;
typedef struct _TesTty TesTty;
typedef struct _TesNs TesNs;
typedef struct _TesTimekeeper TesTimekeeper;
typedef struct _TesLimits TesLimits;

/* platform */
typedef struct _TesPlatform TesPlatform;
typedef struct _TesAspace TesAspace;
typedef struct _TesExec TesExec;

/* core/mm */
typedef struct _TesMM TesMM;
typedef struct _TesMemFile TesMemFile;
typedef struct _TesMapSource TesMapSource;
typedef struct _TesIov TesIov;

/* core/file, VFS, filesystems */
typedef struct _TesFile TesFile;
typedef struct _TesFdTable TesFdTable;
typedef struct _TesFsInfo TesFsInfo;
typedef struct _TesVfs TesVfs;
typedef struct _TesPath TesPath;
typedef struct _TesMountNs TesMountNs;
typedef struct _TesInode TesInode;
typedef struct _TesSuper TesSuper;

/* Errors shown to the operator. */
#define TES_ERROR (tes_error_quark())
typedef enum {
  TES_ERROR_FAILED,
  TES_ERROR_CONFIG,   /* a flag, a file or a combination that cannot work */
  TES_ERROR_PLUGIN,   /* a plugin was refused */
  TES_ERROR_STATE,    /* the call does not fit the kernel's state (not started, already started, ...) */
  TES_ERROR_PLATFORM, /* the platform cannot run here */
  TES_ERROR_NOEXEC,   /* the program could not be started: exit status 126 */
  TES_ERROR_NOTFOUND, /* the program was not found: exit status 127 */
} TesErrorCode;

TES_BEGIN_DECLS
GQuark tes_error_quark(void);
TES_END_DECLS
