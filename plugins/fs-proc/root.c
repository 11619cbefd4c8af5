/* SPDX-License-Identifier: Apache-2.0 */
/* System-wide files of proc(5). */
#include "proc.h"
#include <sys/utsname.h>

#define USER_HZ 100

static int text_uptime(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  gdouble up = tes_time_boot(ctx->kernel) / 1e9;
  gdouble busy = tes_kernel_cpu_ticks(ctx->kernel) / (gdouble)USER_HZ;
  gdouble idle = MAX(0, up * tes_kernel_cores(ctx->kernel) - busy);
  g_string_append_printf(s, "%.2f %.2f\n", up, idle);
  return 0;
}

static void count_tasks(TesCtx *ctx, guint *running, guint *total, gint *last) {
  g_autoptr(GPtrArray) all = tes_tasks_snapshot(ctx->kernel, tes_ctx_pid_ns(ctx));
  *running = *total = 0;
  *last = 0;
  for (guint i = 0; i < all->len; i++) {
    TesTaskStat st;
    tes_task_stat(g_ptr_array_index(all, i), &st);
    *running += st.state == 'R';
    *total += MAX(st.threads, 1);
    *last = MAX(*last, tes_task_pid(g_ptr_array_index(all, i), tes_ctx_pid_ns(ctx)));
  }
}

static int text_loadavg(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  guint running, total;
  gint last;
  count_tasks(ctx, &running, &total, &last);
  g_string_append_printf(s, "0.00 0.00 0.00 %u/%u %d\n", running, total, last);
  return 0;
}

static int text_version(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "Linux version 6.1.0-tessera (tessera) #1 SMP\n");
  return 0;
}

static int text_cgroups(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  tes_cgroup_describe(ctx->kernel, s);
  return 0;
}

static int text_cmdline(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "BOOT_IMAGE=tessera\n");
  return 0;
}

static guint64 memory_total(void) { return (guint64)sysconf(_SC_PHYS_PAGES) * TES_PAGE_SIZE; }

static int text_meminfo(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  TesMemFile *mf = tes_kernel_memfile(ctx->kernel);
  guint64 total = memory_total() / 1024, anon = tes_memfile_usage(mf, TES_MEM_ANON) / 1024,
          shm = tes_memfile_usage(mf, TES_MEM_FILE) / 1024;
  guint64 used = MIN(total, anon + shm), free_ = total - used;
  g_string_append_printf(
      s,
      "MemTotal:       %8" G_GUINT64_FORMAT " kB\nMemFree:        %8" G_GUINT64_FORMAT " kB\n"
      "MemAvailable:   %8" G_GUINT64_FORMAT
      " kB\nBuffers:               0 kB\nCached:         %8" G_GUINT64_FORMAT
      " kB\nSwapCached:            0 kB\nActive:         %8" G_GUINT64_FORMAT
      " kB\nInactive:              0 kB\n"
      "SwapTotal:             0 kB\nSwapFree:              0 kB\nDirty:                 0 kB\nWriteback:     "
      "        0 kB\n"
      "AnonPages:      %8" G_GUINT64_FORMAT
      " kB\nMapped:                0 kB\nShmem:          %8" G_GUINT64_FORMAT " kB\n"
      "Slab:                  0 kB\nSReclaimable:          0 kB\nCommitLimit:    %8" G_GUINT64_FORMAT " kB\n"
      "Committed_AS:   %8" G_GUINT64_FORMAT " kB\nVmallocTotal:   34359738367 kB\nHugePages_Total:       0\n"
      "HugePages_Free:        0\nHugepagesize:       2048 kB\n",
      total, free_, free_, shm, used, anon, shm, total, used);
  return 0;
}

static int text_stat(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  guint cores = tes_kernel_cores(ctx->kernel), running, total;
  gint last;
  count_tasks(ctx, &running, &total, &last);
  guint64 user = tes_kernel_cpu_ticks(ctx->kernel), up = tes_time_boot(ctx->kernel) / (TES_NSEC / USER_HZ);
  guint64 idle = up * cores > user ? up * cores - user : 0;
  g_string_append_printf(s, "cpu  %" G_GUINT64_FORMAT " 0 0 %" G_GUINT64_FORMAT " 0 0 0 0 0 0\n", user, idle);
  for (guint i = 0; i < cores; i++)
    g_string_append_printf(s, "cpu%u %" G_GUINT64_FORMAT " 0 0 %" G_GUINT64_FORMAT " 0 0 0 0 0 0\n", i,
                           user / cores, idle / cores);
  TesTime boot = tes_time_realtime(ctx->kernel) - tes_time_boot(ctx->kernel);
  g_string_append_printf(
      s, "intr 0\nctxt 0\nbtime %" G_GINT64_FORMAT "\nprocesses %d\nprocs_running %u\nprocs_blocked 0\n",
      boot / TES_NSEC, last, MAX(running, 1));
  return 0;
}

/* The host's description of its first CPU, once for each of ours. */
static int text_cpuinfo(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  g_autofree char *host = NULL;
  if (!g_file_get_contents("/proc/cpuinfo", &host, NULL, NULL))
    return -EIO;
  char *end = strstr(host, "\n\n");
  if (end)
    *end = 0;
  g_auto(GStrv) lines = g_strsplit(host, "\n", -1);
  guint cores = tes_kernel_cores(ctx->kernel);
  for (guint i = 0; i < cores; i++) {
    for (char **l = lines; *l; l++) {
      if (g_str_has_prefix(*l, "processor"))
        g_string_append_printf(s, "processor\t: %u\n", i);
      else if (g_str_has_prefix(*l, "core id") || g_str_has_prefix(*l, "apicid") ||
               g_str_has_prefix(*l, "initial apicid"))
        g_string_append_printf(s, "%.*s: %u\n", (int)(strchr(*l, ':') ? strchr(*l, ':') - *l : 0), *l, i);
      else if (g_str_has_prefix(*l, "siblings") || g_str_has_prefix(*l, "cpu cores"))
        g_string_append_printf(s, "%.*s: %u\n", (int)(strchr(*l, ':') ? strchr(*l, ':') - *l : 0), *l, cores);
      else
        g_string_append_printf(s, "%s\n", *l);
    }
    g_string_append_c(s, '\n');
  }
  return 0;
}

static void add_fs(const TesPlugin *p, const char *origin, const TesFeature *f, gpointer data) {
  (void)p, (void)origin;
  const TesFsTypeOps *ops = f->ops;
  g_string_append_printf(data, "%s\t%s\n", ops->needs_device ? "" : "nodev", f->name);
}

static int text_filesystems(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  tes_registry_foreach(tes_kernel_registry(ctx->kernel), "filesystem", add_fs, s);
  return 0;
}

static int text_locks(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  tes_locks_text(ctx, s);
  return 0;
}

#define SYSVIPC(kind)                                        \
  static int text_##kind(Node *n, TesCtx *ctx, GString *s) { \
    TesTask *t = tes_ctx_task(ctx);                          \
    if (t)                                                   \
      tes_ipc_##kind##_text(t, s);                           \
    return 0;                                                \
  }
SYSVIPC(msg)
SYSVIPC(sem)
SYSVIPC(shm)
static const Entry sysvipc_dir[] = {
    R_FILE("msg", text_msg), R_FILE("sem", text_sem), R_FILE("shm", text_shm), {.name = NULL}};

static int text_devices(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 "
                     "pts\n\nBlock devices:\n");
  return 0;
}

static int text_swaps(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
  return 0;
}

static int text_vmstat(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  guint64 anon = tes_memfile_usage(tes_kernel_memfile(ctx->kernel), TES_MEM_ANON) / TES_PAGE_SIZE;
  g_string_append_printf(s,
                         "nr_free_pages %" G_GUINT64_FORMAT "\nnr_anon_pages %" G_GUINT64_FORMAT
                         "\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\n",
                         (guint64)sysconf(_SC_PHYS_PAGES) - anon, anon);
  return 0;
}

static int text_self(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  TesTask *t = tes_ctx_task(ctx);
  gint pid = t ? tes_task_pid(t, tes_ctx_pid_ns(ctx)) : 0;
  if (!pid)
    return -ENOENT;
  g_string_append_printf(s, "%d", pid);
  return 0;
}

static int text_thread_self(Node *n, TesCtx *ctx, GString *s) {
  int r = text_self(n, ctx, s);
  if (r == 0)
    g_string_append_printf(s, "/task/%d", tes_task_tid(tes_ctx_task(ctx), tes_ctx_pid_ns(ctx)));
  return r;
}

static int text_to_self_mounts(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "self/mounts");
  return 0;
}

/* ---- Processes by number ---- */

static int root_lookup(Node *n, TesCtx *ctx, const char *name, TesInode **out) {
  guint64 pid;
  if (name[0] == '0' || !g_ascii_string_to_unsigned(name, 10, 1, G_MAXINT32, &pid, NULL))
    return -ENOENT;
  g_autoptr(TesTask) t = tes_task_find(ctx->kernel, tes_ctx_pid_ns(ctx), pid, FALSE);
  return t ? node_new(n->inode.super, &proc_task_dir, t, 0, out) : -ENOENT;
}

static int root_list(Node *n, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)n;
  g_autoptr(GPtrArray) all = tes_tasks_snapshot(ctx->kernel, tes_ctx_pid_ns(ctx));
  for (guint i = 0; i < all->len; i++) {
    gint pid = tes_task_pid(g_ptr_array_index(all, i), tes_ctx_pid_ns(ctx));
    if (pid < *pos)
      continue;
    char name[16];
    int len = g_snprintf(name, sizeof name, "%d", pid);
    if (!fill(data, name, len, (guint64)pid << 32 | 1, DT_DIR, pid + 1 + 1000))
      return 0;
    *pos = pid + 1;
  }
  return 0;
}

static const Entry root_entries[] = {
    {.name = "self", .mode = S_IFLNK | 0777, .text = text_self},
    {.name = "thread-self", .mode = S_IFLNK | 0777, .text = text_thread_self},
    {.name = "mounts", .mode = S_IFLNK | 0777, .text = text_to_self_mounts},
    {.name = "sys", .mode = S_IFDIR | 0555, .dir = proc_sys_dir},
    {.name = "sysvipc", .mode = S_IFDIR | 0555, .dir = sysvipc_dir},
    R_FILE("cgroups", text_cgroups),
    R_FILE("cmdline", text_cmdline),
    R_FILE("cpuinfo", text_cpuinfo),
    R_FILE("devices", text_devices),
    R_FILE("filesystems", text_filesystems),
    R_FILE("locks", text_locks),
    R_FILE("loadavg", text_loadavg),
    R_FILE("meminfo", text_meminfo),
    R_FILE("stat", text_stat),
    R_FILE("swaps", text_swaps),
    R_FILE("uptime", text_uptime),
    R_FILE("version", text_version),
    R_FILE("vmstat", text_vmstat),
    {.name = NULL},
};

const Entry proc_root = {
    .name = "", .mode = S_IFDIR | 0555, .dir = root_entries, .lookup = root_lookup, .list = root_list};
