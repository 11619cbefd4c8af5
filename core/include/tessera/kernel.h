/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel object: one per sandbox (FEATURES.md 1.1, L1-L31). Used by the runtime and by tests; plugins use the small part at the end. */
#pragma once

#include <tessera/ctx.h>
#include <tessera/file.h>
#include <tessera/time.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

/* Namespaces as objects: kind is the CLONE_NEW* flag. */
struct _TesNs {
  gint refs;
  int kind;
  guint64 id;    /* inode number of /proc/PID/ns/NAME */
  TesNs *parent; /* owned, or NULL */
  TesKernel *kernel;
  gpointer data; /* kind's own: core/task/ns.c */
  void (*free_data)(gpointer);
  GData *plugins; /* what plugins keep for it (g_datalist_*); freed with it */
};
TesNs *tes_ns_ref(TesNs *);
void tes_ns_unref(TesNs *);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesNs, tes_ns_unref)

/* Host or domain name of a UTS namespace, NUL-terminated. */
void tes_uts_get(TesNs *uts, gboolean domain, char *buf, gsize n);

/* Who answers the CPUID instructions of programs and libraries (X1). */
typedef enum {
  TES_CPUID_AUTO,  /* the kernel's table where that is faster */
  TES_CPUID_HOST,  /* the CPU: no code is changed for it */
  TES_CPUID_TABLE, /* the kernel's table */
} TesCpuidMode;

/* L6, L7. Pointers are borrowed unless said otherwise. */
typedef struct {
  gsize size;
  TesTimekeeper *timekeeper; /* with clocks set; transfer full */
  const char *platform;      /* NULL: the preferred one that works */
  const char *vfs;           /* NULL: the default generation */
  const char *device;
  guint application_cores; /* > 0 */
  gboolean use_host_cores;
  const guint64 *extra_auxv; /* pairs, ends with 0,0; or NULL (X5) */
  gboolean strace;           /* text trace to stderr */
  const char *hostname;      /* NULL: the host's */
  guint64 memory_limit;      /* bytes; 0: what the host has */
  guint pid_max;             /* 0: 32768 */
  TesCpuidMode cpuid;
  int strace_fd; /* where the text trace goes, with times (O_APPEND; borrowed); 0: standard error, without */
  guint
      dcache_max; /* V9: names kept that nobody uses, and the host descriptors behind them; 0: as each thinks fit */
  gboolean trace_path;              /* V3: a line to stderr for each lookup in a directory */
  guint64 pids_limit;               /* processes and threads in the root cgroup; 0: no limit of its own */
  const char *strace_filter;        /* calls that are shown, as strace -e trace= has them; NULL: all */
  const char *const *inject;        /* faults, as core/trace/inject.c has them, then NULL; or NULL */
  int stats_fd;                     /* where statistics go at the end (borrowed); 0: none are kept */
  int json_fd;                      /* events go there, a JSON object each (O_APPEND; borrowed); 0: none */
  gboolean json_regs, strace_plain; /* with registers; without data that differs from run to run */
} TesKernelArgs;

/* What tes_kernel_init() opens for `want` (NULL: the best), for those who want to know it beforehand: the first preferred
 * platform whose probe succeeds, else the first other one; the generation with the highest priority. `probe` stands in
 * for the platforms' own (NULL: theirs) and answers as TesPlatformOps.probe does. Borrowed; NULL with an error. */
typedef int (*TesPlatformProbe)(const TesFeature *platform, char **why_not, gpointer data);
const TesFeature *tes_choose_platform(const TesRegistry *, const char *want, TesPlatformProbe, gpointer data,
                                      GError **);
const TesFeature *tes_choose_vfs(const TesRegistry *, const char *want, GError **);

TesKernel *tes_kernel_new(TesRegistry *sealed);
/* The seeds' refusals, each a GError: no clocks, zero cores, no platform, no VFS ... */
gboolean tes_kernel_init(TesKernel *, const TesKernelArgs *, GError **);
/* Orderly teardown (L28). Tasks have exited. */
void tes_kernel_free(TesKernel *);
TesRegistry *tes_kernel_registry(TesKernel *);
TesPlatform *tes_kernel_platform(TesKernel *);

/* A process without a parent (L8-L20). */
typedef struct {
  gsize size;
  const char *filename; /* L9: else file, else argv[0] which must be absolute */
  TesFile *file;
  const char *const *argv, *const *envv;
  const char *cwd; /* default: root (L11) */
  TesCred *cred;   /* NULL: root */
  guint32 umask;
  const struct rlimit *limits;     /* RLIM_NLIMITS entries, or NULL: defaults */
  guint max_symlinks;              /* 0: 40 */
  TesFdTable *fdtable;             /* a reference is taken on success (L13) */
  TesNs *uts_ns, *ipc_ns, *pid_ns; /* NULL: root ones (L14) */
  TesMountNs *mount_ns;            /* NULL: init's (L15) */
  const char *root;                /* inside mount_ns; NULL: "/" */
  const char *container_id;        /* L16 */
  TesTty *tty;                     /* becomes the controlling terminal of a new session; NULL: none */
} TesProcessArgs;
/* Returns the thread group (transfer full: tes_tg_unref) and its pid in *pid. Reports exec errors early with
 * TES_ERROR_NOTFOUND or TES_ERROR_NOEXEC. */
TesThreadGroup *tes_kernel_create_process(TesKernel *, const TesProcessArgs *, gint *pid, GError **);
gboolean tes_kernel_start_process(TesKernel *, TesThreadGroup *, GError **); /* L21 */
gboolean tes_kernel_start(TesKernel *, GError **);                           /* L22 */
TesThreadGroup *tes_tg_ref(TesThreadGroup *);
void tes_tg_unref(TesThreadGroup *);
TesTask *tes_tg_leader(TesThreadGroup *);            /* borrowed */
TesThreadGroup *tes_kernel_global_init(TesKernel *); /* L23; borrowed, valid after its exit */
/* wait(2) status of a thread group that exited; blocks the calling (non-task) thread. */
int tes_tg_wait(TesThreadGroup *);
void tes_kernel_wait_exited(TesKernel *);            /* L24 */
void tes_kernel_kill(TesKernel *, int wait_status);  /* L25 */
void tes_kernel_pause(TesKernel *);                  /* L26: nests, returns when nothing runs */
gboolean tes_kernel_unpause(TesKernel *, GError **); /* unmatched: TES_ERROR_STATE */
void tes_kernel_send_external_signal(TesKernel *, int sig, const char *context); /* G3 */
int tes_kernel_send_container_signal(TesKernel *, const char *cid, int sig);     /* G5 */
/* First error wins (L29). */
void tes_kernel_set_save_error(TesKernel *, GError *transfer_full);
const GError *tes_kernel_save_error(TesKernel *);
/* Contexts outside any task. The supervisor's is borrowed and used by one thread at a time, under tes_kernel_ext_lock(). */
TesCtx *tes_kernel_supervisor_ctx(TesKernel *);
void tes_kernel_ext_lock(TesKernel *);
void tes_kernel_ext_unlock(TesKernel *);
/* The root mount namespace must be set before the first process (runtime builds it). Transfer full; once. */
gboolean tes_kernel_set_root_mount_ns(TesKernel *, TesMountNs *, GError **);
TesMountNs *tes_kernel_root_mount_ns(TesKernel *);
TesNs *tes_kernel_root_ns(
    TesKernel *,
    int clone_flag); /* borrowed: CLONE_NEWUSER, NEWUTS, NEWIPC, NEWPID, NEWNET, NEWCGROUP, NEWTIME */

/* ---- For plugins ---- */
guint64 tes_unique_id(TesKernel *);     /* U1: grows, never repeats; wrap-around aborts */
guint32 tes_notify_cookie(TesKernel *); /* U3: never 0 */
guint tes_kernel_cores(TesKernel *);    /* X2 */
/* X1: eax, ebx, ecx, edx of a CPUID leaf as guests see it. From the kernel's table, else from the host's CPU. */
void tes_cpuid(TesKernel *, guint32 leaf, guint32 subleaf, guint32 out[4]);
/* The event thread: GMainLoop for control, host descriptors and timers. */
GMainContext *tes_kernel_main_context(TesKernel *);
/* Plugin's own per-kernel data; key is the address of a static variable. */
void tes_kernel_set_data(TesKernel *, gconstpointer key, gpointer data, GDestroyNotify);
gpointer tes_kernel_get_data(TesKernel *, gconstpointer key);
void tes_kernel_emit_unimplemented(TesTask *, guint nr, const gulong a[6]); /* E1, E2 */
const char *tes_kernel_syslog(TesKernel *); /* E4: dmesg text, fixed at first read */

/* Log lines of the kernel itself, to stderr (or --log): levels as GLib's. */
#define tes_debug(...) g_log("tessera", G_LOG_LEVEL_DEBUG, __VA_ARGS__)
#define tes_info(...) g_log("tessera", G_LOG_LEVEL_INFO, __VA_ARGS__)
#define tes_warn(...) g_log("tessera", G_LOG_LEVEL_WARNING, __VA_ARGS__)

TES_END_DECLS
