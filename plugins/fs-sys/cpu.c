/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs, their caches, and the one memory node. One package, one die, one thread for each core: what the guest's CPUID says
 * too (core/task/cpuid.c). The first two levels of cache belong to a core, the third to all. */
#include "sys.h"
#include <unistd.h>

#define CPU "devices/system/cpu/"
#define NODE "devices/system/node/"
#define CPU_MAX_INDEX "8191"
#define CACHES_MAX 8

static void online(const SysNode *n, TesKernel *k, GString *s) {
  (void)n;
  text_cpu_list(s, 0, tes_kernel_cores(k));
}
static void all_mask(const SysNode *n, TesKernel *k, GString *s) {
  (void)n;
  text_cpu_mask(s, 0, tes_kernel_cores(k), tes_kernel_cores(k));
}
static void offline(const SysNode *n, TesKernel *k, GString *s) {
  (void)n, (void)k;
  g_string_append_c(s, '\n');
}
static void self_list(const SysNode *n, TesKernel *k, GString *s) {
  (void)k;
  text_cpu_list(s, n->cpu, 1);
}
static void self_mask(const SysNode *n, TesKernel *k, GString *s) {
  text_cpu_mask(s, n->cpu, 1, tes_kernel_cores(k));
}
static void core_id(const SysNode *n, TesKernel *k, GString *s) {
  (void)k;
  g_string_append_printf(s, "%u\n", n->cpu);
}

/* As /proc/meminfo has it. */
static void node_meminfo(const SysNode *n, TesKernel *k, GString *s) {
  (void)n;
  TesMemFile *mf = tes_kernel_memfile(k);
  guint64 total = (guint64)sysconf(_SC_PHYS_PAGES) * (TES_PAGE_SIZE / 1024),
          anon = tes_memfile_usage(mf, TES_MEM_ANON) / 1024, shm = tes_memfile_usage(mf, TES_MEM_FILE) / 1024,
          used = MIN(total, anon + shm);
  const struct {
    const char *name;
    guint64 kib;
  } rows[] = {{"MemTotal", total}, {"MemFree", total - used},
              {"MemUsed", used},   {"Active", used},
              {"Inactive", 0},     {"Dirty", 0},
              {"Writeback", 0},    {"FilePages", shm},
              {"Mapped", 0},       {"AnonPages", anon},
              {"Shmem", shm},      {"KernelStack", 0},
              {"PageTables", 0},   {"Slab", 0},
              {"AnonHugePages", 0}};
  for (gsize i = 0; i < G_N_ELEMENTS(rows); i++) {
    g_autofree char *name = g_strconcat(rows[i].name, ":", NULL);
    g_string_append_printf(s, "Node 0 %-15s %8" G_GUINT64_FORMAT " kB\n", name, rows[i].kib);
  }
  g_string_append(
      s, "Node 0 HugePages_Total:     0\nNode 0 HugePages_Free:      0\nNode 0 HugePages_Surp:      0\n");
}

static const SysEntry entries[] = {{.path = CPU "online", .text = online},
                                   {.path = CPU "possible", .text = online},
                                   {.path = CPU "present", .text = online},
                                   {.path = CPU "offline", .text = offline},
                                   {.path = CPU "isolated", .text = offline},
                                   {.path = CPU "kernel_max", .fixed = CPU_MAX_INDEX},
                                   {.path = CPU "smt/active", .fixed = "0"},
                                   {.path = CPU "smt/control", .fixed = "notsupported"},
                                   {.path = CPU "cpu#/topology/core_id", .text = core_id},
                                   {.path = CPU "cpu#/topology/core_cpus", .text = self_mask},
                                   {.path = CPU "cpu#/topology/core_cpus_list", .text = self_list},
                                   {.path = CPU "cpu#/topology/core_siblings", .text = all_mask},
                                   {.path = CPU "cpu#/topology/core_siblings_list", .text = online},
                                   {.path = CPU "cpu#/topology/die_id", .fixed = "0"},
                                   {.path = CPU "cpu#/topology/die_cpus", .text = all_mask},
                                   {.path = CPU "cpu#/topology/die_cpus_list", .text = online},
                                   {.path = CPU "cpu#/topology/package_cpus", .text = all_mask},
                                   {.path = CPU "cpu#/topology/package_cpus_list", .text = online},
                                   {.path = CPU "cpu#/topology/physical_package_id", .fixed = "0"},
                                   {.path = CPU "cpu#/topology/thread_siblings", .text = self_mask},
                                   {.path = CPU "cpu#/topology/thread_siblings_list", .text = self_list},
                                   {.path = CPU "cpu#/subsystem", .target = "../../../../bus/cpu"},
                                   {.path = CPU "cpu#/node0", .target = "../../node/node0"},
                                   {.path = CPU "cpu#/uevent", .fixed = "DRIVER=processor"},
                                   {.path = "bus/cpu/drivers"},
                                   {.path = "bus/node/drivers"},
                                   {.path = "bus/node/devices/node0", .target = "../../../" NODE "node0"},
                                   {.path = NODE "online", .fixed = "0"},
                                   {.path = NODE "possible", .fixed = "0"},
                                   {.path = NODE "has_cpu", .fixed = "0"},
                                   {.path = NODE "has_memory", .fixed = "0"},
                                   {.path = NODE "has_normal_memory", .fixed = "0"},
                                   {.path = NODE "node0/cpulist", .text = online},
                                   {.path = NODE "node0/cpumap", .text = all_mask},
                                   {.path = NODE "node0/distance", .fixed = "10"},
                                   {.path = NODE "node0/meminfo", .text = node_meminfo},
                                   {.path = NODE "node0/numastat",
                                    .fixed = "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\n"
                                             "local_node 0\nother_node 0"},
                                   {.path = NULL}};

/* ---- Caches, from CPUID leaf 4 (Intel) or 0x8000001d (AMD), which have the same form ---- */

typedef struct {
  guint type, level, line, partitions, ways, sets; /* type: 0 none, 1 data, 2 instruction, 3 unified */
} Cache;

static gboolean is_amd(TesKernel *k) {
  guint32 r[4];
  tes_cpuid(k, 0, 0, r);
  return r[1] == 0x68747541 /* "Auth" */ || r[1] == 0x6f677948 /* "Hygo" */;
}

static gboolean get_cache(TesKernel *k, gboolean amd, guint i, Cache *c) {
  guint32 r[4];
  tes_cpuid(k, amd ? 0x80000000 : 0, 0, r);
  guint32 leaf = amd ? 0x8000001d : 4;
  if (r[0] < leaf)
    return FALSE;
  tes_cpuid(k, leaf, i, r);
  *c = (Cache){.type = r[0] & 31,
               .level = r[0] >> 5 & 7,
               .line = (r[1] & 0xfff) + 1,
               .partitions = (r[1] >> 12 & 0x3ff) + 1,
               .ways = (r[1] >> 22) + 1,
               .sets = r[2] + 1};
  return c->type >= 1 && c->type <= 3;
}

static void add_cache_file(SysFs *fs, guint cpu, guint i, const char *name, const char *text) {
  g_autofree char *path = g_strdup_printf(CPU "cpu%u/cache/index%u/%s", cpu, i, name);
  sys_add(fs, path, &(SysEntry){.fixed = text}, cpu, i);
}

static void add_cache_number(SysFs *fs, guint cpu, guint i, const char *name, guint v) {
  g_autofree char *text = g_strdup_printf("%u", v);
  add_cache_file(fs, cpu, i, name, text);
}

static void add_cache(SysFs *fs, guint cpu, guint i, const Cache *c) {
  static const char *const types[] = {"", "Data", "Instruction", "Unified"};
  g_autofree char *size =
      g_strdup_printf("%" G_GUINT64_FORMAT "K", (guint64)c->line * c->partitions * c->ways * c->sets / 1024);
  g_autofree char *map = g_strdup_printf(CPU "cpu%u/cache/index%u/shared_cpu_map", cpu, i);
  g_autofree char *list = g_strdup_printf(CPU "cpu%u/cache/index%u/shared_cpu_list", cpu, i);
  gboolean shared = c->level >= 3;
  add_cache_number(fs, cpu, i, "coherency_line_size", c->line);
  add_cache_number(fs, cpu, i, "id", shared ? 0 : cpu);
  add_cache_number(fs, cpu, i, "level", c->level);
  add_cache_number(fs, cpu, i, "number_of_sets", c->sets);
  add_cache_number(fs, cpu, i, "physical_line_partition", c->partitions);
  add_cache_number(fs, cpu, i, "ways_of_associativity", c->ways);
  add_cache_file(fs, cpu, i, "size", size);
  add_cache_file(fs, cpu, i, "type", types[c->type]);
  sys_add(fs, map, &(SysEntry){.text = shared ? all_mask : self_mask}, cpu, i);
  sys_add(fs, list, &(SysEntry){.text = shared ? online : self_list}, cpu, i);
}

void sys_add_cpus(SysFs *fs) {
  TesKernel *k = fs->super.kernel;
  guint cores = tes_kernel_cores(k);
  sys_add_table(fs, entries);
  gboolean amd = is_amd(k);
  Cache c;
  for (guint i = 0; i < CACHES_MAX && get_cache(k, amd, i, &c); i++)
    for (guint cpu = 0; cpu < cores; cpu++)
      add_cache(fs, cpu, i, &c);
  for (guint cpu = 0; cpu < cores; cpu++) {
    g_autofree char *dir = g_strdup_printf(CPU "cpu%u", cpu);
    g_autofree char *of_node = g_strdup_printf(NODE "node0/cpu%u", cpu);
    g_autofree char *on_bus = g_strdup_printf("bus/cpu/devices/cpu%u", cpu);
    g_autofree char *is_online = g_strdup_printf("%s/online", dir);
    sys_add_link(fs, of_node, dir);
    sys_add_link(fs, on_bus, dir);
    if (cpu > 0) /* the first cannot be taken away, so it has no switch */
      sys_add(fs, is_online, &(SysEntry){.fixed = "1"}, cpu, 0);
  }
}
