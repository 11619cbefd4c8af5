/* SPDX-License-Identifier: Apache-2.0 */
/* What is neither a CPU nor a network interface: character devices, settings of the kernel, mount points. */
#include "sys.h"

#define THP "kernel/mm/transparent_hugepage/"

static const SysEntry entries[] = {
    {.path = "block"},
    {.path = "bus"},
    {.path = "class/block"},
    {.path = "class/hwmon"},
    {.path = "class/mem"},
    {.path = "class/net"},
    {.path = "class/power_supply"},
    {.path = "class/thermal"},
    {.path = "class/tty"},
    {.path = "dev/block"},
    {.path = "dev/char"},
    {.path = "devices/system"},
    {.path = "devices/virtual/block"},
    {.path = "firmware"},
    {.path = "fs/cgroup"},
    {.path = "kernel/address_bits", .fixed = "64"},
    {.path = "kernel/cgroup/delegate",
     .fixed = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\nmemory.oom.group"},
    {.path = "kernel/cpu_byteorder", .fixed = "little"},
    {.path = "kernel/debug"},
    {.path = "kernel/fscaps", .fixed = "1"},
    {.path = "kernel/mm/hugepages"},
    {.path = THP "defrag", .fixed = "always defer defer+madvise madvise [never]"},
    {.path = THP "enabled", .fixed = "always madvise [never]"},
    {.path = THP "hpage_pmd_size", .fixed = "2097152"},
    {.path = THP "shmem_enabled", .fixed = "always within_size advise [never] deny force"},
    {.path = THP "use_zero_page", .fixed = "0"},
    {.path = "kernel/profiling", .fixed = "0"},
    {.path = "kernel/rcu_expedited", .fixed = "0"},
    {.path = "kernel/rcu_normal", .fixed = "0"},
    {.path = "kernel/security"},
    {.path = "kernel/tracing"},
    {.path = "kernel/uevent_seqnum", .fixed = "0"},
    {.path = "module"},
    {.path = "power"},
    {.path = NULL}};

/* The nodes that the filesystem "dev" offers. */
static const struct {
  const char *subsystem, *name;
  guint major, minor, mode;
  const char *needs; /* a filesystem: without its plugin the device is not there */
} devices[] = {
    {"mem", "full", 1, 7, 0666, "devtmpfs"},   {"mem", "null", 1, 3, 0666, "devtmpfs"},
    {"mem", "random", 1, 8, 0666, "devtmpfs"}, {"mem", "urandom", 1, 9, 0666, "devtmpfs"},
    {"mem", "zero", 1, 5, 0666, "devtmpfs"},   {"tty", "console", 5, 1, 0, "devtmpfs"},
    {"tty", "ptmx", 5, 2, 0666, "devtmpfs"},   {"tty", "tty", 5, 0, 0666, "devtmpfs"},
    {"misc", "fuse", 10, 229, 0666, "fuse"},
};

static void add_device(SysFs *fs, gsize i) {
  const char *sub = devices[i].subsystem, *name = devices[i].name;
  g_autofree char *dir = g_strdup_printf("devices/virtual/%s/%s", sub, name);
  g_autofree char *dev = g_strdup_printf("%s/dev", dir);
  g_autofree char *uevent = g_strdup_printf("%s/uevent", dir);
  g_autofree char *subsystem = g_strdup_printf("%s/subsystem", dir);
  g_autofree char *class = g_strdup_printf("class/%s", sub);
  g_autofree char *in_class = g_strdup_printf("%s/%s", class, name);
  g_autofree char *number = g_strdup_printf("%u:%u", devices[i].major, devices[i].minor);
  g_autofree char *by_number = g_strdup_printf("dev/char/%s", number);
  g_autoptr(GString) text = g_string_new(NULL);
  g_string_append_printf(text, "MAJOR=%u\nMINOR=%u\nDEVNAME=%s", devices[i].major, devices[i].minor, name);
  if (devices[i].mode)
    g_string_append_printf(text, "\nDEVMODE=%04o", devices[i].mode);
  sys_add(fs, dev, &(SysEntry){.fixed = number}, 0, 0);
  sys_add(fs, uevent, &(SysEntry){.fixed = text->str}, 0, 0);
  sys_add_link(fs, subsystem, class);
  sys_add_link(fs, in_class, dir);
  sys_add_link(fs, by_number, dir);
}

void sys_add_kernel(SysFs *fs) {
  const TesRegistry *r = tes_kernel_registry(fs->super.kernel);
  sys_add_table(fs, entries);
  for (gsize i = 0; i < G_N_ELEMENTS(devices); i++)
    if (tes_registry_find(r, "filesystem", devices[i].needs))
      add_device(fs, i);
}
