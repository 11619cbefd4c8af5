/* SPDX-License-Identifier: Apache-2.0 */
/* sysfs.c - /sys as programs read it: CPUs, caches, the memory node, the loopback interface, character devices. */
#include "check.h"

#include <dirent.h>
#include <sched.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#define CPU "/sys/devices/system/cpu/"

/* The text of a file; static, one at a time. */
static const char *text(const char *path) {
  static char buf[8192];
  int fd = (int)SYS(open(path, O_RDONLY));
  ssize_t n = SYS(read(fd, buf, sizeof buf - 1));

  buf[n] = 0;
  CHECK_EQ(read(fd, buf + n, 1), 0);
  close(fd);
  return buf;
}

/* How many CPUs a list like "0-3,8" names; -1: no list. */
static int list_count(const char *s) {
  int n = 0;

  while (*s && *s != '\n') {
    char *end;
    long a = strtol(s, &end, 10), b = a;
    if (end == s)
      return -1;
    if (*end == '-')
      b = strtol(end + 1, &end, 10);
    n += (int)(b - a + 1);
    s = *end == ',' ? end + 1 : end;
  }
  return n;
}

static int mask_count(const char *s) {
  int n = 0;

  for (; *s && *s != '\n'; s++)
    if (*s != ',')
      n += __builtin_popcountl(strtoul((char[]){*s, 0}, NULL, 16));
  return n;
}

TEST(it_is_a_sysfs) {
  struct statfs st;
  SYS(statfs("/sys", &st));
  CHECK_EQ(st.f_type, 0x62656572);
}

TEST(cpu_lists_agree) {
  int online = list_count(text(CPU "online")), present = list_count(text(CPU "present"));
  int possible = list_count(text(CPU "possible")), max = atoi(text(CPU "kernel_max"));
  cpu_set_t set;

  CHECK(online >= 1);
  CHECK(online <= present && present <= possible && possible <= max + 1);
  CHECK_EQ(sysconf(_SC_NPROCESSORS_CONF), present);
  SYS(sched_getaffinity(0, sizeof set, &set));
  CHECK(CPU_COUNT(&set) <= online);
  CHECK_EQ(list_count(text("/sys/devices/system/node/node0/cpulist")), online);
  CHECK_EQ(mask_count(text("/sys/devices/system/node/node0/cpumap")), online);
}

TEST(directories_of_cpus_match_the_list) {
  DIR *d = opendir(CPU);
  int n = 0;

  REQUIRE(d);
  for (struct dirent *e; (e = readdir(d));)
    if (strncmp(e->d_name, "cpu", 3) == 0 && e->d_name[3] >= '0' && e->d_name[3] <= '9') {
      CHECK_EQ(e->d_type, DT_DIR);
      n++;
    }
  closedir(d);
  CHECK_EQ(n, list_count(text(CPU "present")));
}

TEST(topology_is_consistent) {
  int online = list_count(text(CPU "online"));

  CHECK(atoi(text(CPU "cpu0/topology/physical_package_id")) >= 0);
  CHECK(atoi(text(CPU "cpu0/topology/core_id")) >= 0);
  CHECK(list_count(text(CPU "cpu0/topology/thread_siblings_list")) >= 1);
  CHECK_EQ(list_count(text(CPU "cpu0/topology/thread_siblings_list")),
           mask_count(text(CPU "cpu0/topology/thread_siblings")));
  CHECK(list_count(text(CPU "cpu0/topology/core_siblings_list")) <= online);
  CHECK_EQ(list_count(text(CPU "cpu0/topology/core_siblings_list")),
           mask_count(text(CPU "cpu0/topology/core_siblings")));
}

TEST(caches_have_their_size) {
  if (access(CPU "cpu0/cache/index0", F_OK) < 0)
    SKIP("the CPU tells nothing about its caches");
  for (int i = 0; i < 8; i++) {
    char path[128];
    long v[4];
    static const char *const names[] = {"coherency_line_size", "number_of_sets", "ways_of_associativity",
                                        "physical_line_partition"};
    snprintf(path, sizeof path, CPU "cpu0/cache/index%d", i);
    if (access(path, F_OK) < 0)
      break;
    for (int k = 0; k < 4; k++) {
      snprintf(path, sizeof path, CPU "cpu0/cache/index%d/%s", i, names[k]);
      v[k] = atol(text(path));
      CHECK(v[k] > 0);
    }
    snprintf(path, sizeof path, CPU "cpu0/cache/index%d/size", i);
    const char *size = text(path);
    CHECK_EQ(atol(size), v[0] * v[1] * v[2] * v[3] / 1024);
    CHECK(strchr(size, 'K') != NULL);
    snprintf(path, sizeof path, CPU "cpu0/cache/index%d/shared_cpu_list", i);
    CHECK(list_count(text(path)) >= 1);
  }
}

TEST(memory_node) {
  long total = 0, free_ = 0, used = 0;

  CHECK_STR(text("/sys/devices/system/node/online"), "0\n");
  CHECK_EQ(sscanf(text("/sys/devices/system/node/node0/meminfo"),
                  "Node 0 MemTotal: %ld kB\nNode 0 MemFree: %ld kB\nNode 0 MemUsed: %ld kB", &total, &free_,
                  &used),
           3);
  CHECK_EQ(total, free_ + used);
  CHECK(total > 0 && free_ > 0);
}

TEST(loopback_interface) {
  CHECK_STR(text("/sys/class/net/lo/address"), "00:00:00:00:00:00\n");
  CHECK_EQ(atoi(text("/sys/class/net/lo/mtu")), 65536);
  CHECK_EQ(atoi(text("/sys/class/net/lo/ifindex")), 1);
  CHECK_EQ(atoi(text("/sys/class/net/lo/type")), 772);
  CHECK_EQ(strtol(text("/sys/class/net/lo/flags"), NULL, 16) & 8, 8); /* IFF_LOOPBACK */
  CHECK(atol(text("/sys/class/net/lo/statistics/rx_bytes")) >= 0);
  CHECK(text("/sys/class/net/lo/operstate")[0] != 0);
  char target[256];
  ssize_t n = SYS(readlink("/sys/class/net/lo", target, sizeof target - 1));
  target[n] = 0;
  CHECK_STR(target, "../../devices/virtual/net/lo");
  CHECK_ERRNO(open("/sys/class/net/lo/speed-of-light", O_RDONLY), ENOENT);
}

TEST(devices_by_number) {
  static const char *const names[] = {"null", "zero", "full", "random", "urandom"};

  for (int i = 0; i < 5; i++) {
    char path[128], want[64], real[4096];
    struct stat st;
    snprintf(path, sizeof path, "/dev/%s", names[i]);
    SYS(stat(path, &st));
    snprintf(path, sizeof path, "/sys/class/mem/%s/dev", names[i]);
    snprintf(want, sizeof want, "%u:%u\n", major(st.st_rdev), minor(st.st_rdev));
    CHECK_STR(text(path), want);
    snprintf(path, sizeof path, "/sys/dev/char/%u:%u", major(st.st_rdev), minor(st.st_rdev));
    REQUIRE(realpath(path, real) != NULL);
    snprintf(want, sizeof want, "/sys/devices/virtual/mem/%s", names[i]);
    CHECK_STR(real, want);
    CHECK(realpath(strcat(path, "/subsystem"), real) != NULL);
    CHECK_STR(real, "/sys/class/mem");
  }
}

TEST(settings_of_the_kernel) {
  CHECK(strchr(text("/sys/kernel/mm/transparent_hugepage/enabled"), '[') != NULL);
  CHECK_EQ(atol(text("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")), 2 << 20);
  static const char *const dirs[] = {"/sys/block",       "/sys/fs/cgroup",    "/sys/kernel/security",
                                     "/sys/module",      "/sys/power",        "/sys/kernel/mm/hugepages",
                                     "/sys/class/block", "/sys/class/thermal"};
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
    struct stat st;
    if (CHECK_OK(stat(dirs[i], &st)) == 0)
      CHECK(S_ISDIR(st.st_mode));
  }
}

TEST(files_are_what_stat_says) {
  struct stat st;
  SYS(stat(CPU "online", &st));
  CHECK(S_ISREG(st.st_mode));
  CHECK_EQ(st.st_size, 4096);
  CHECK_EQ(st.st_mode & 0444, 0444);
  CHECK_EQ(st.st_uid, 0);
  int fd = (int)SYS(open(CPU "online", O_RDONLY));
  char a[64] = "", b[64] = "";
  ssize_t n = SYS(pread(fd, a, sizeof a - 1, 0));
  CHECK_EQ(pread(fd, b, sizeof b - 1, 1), n - 1); /* in pieces as whole */
  CHECK_STR(b, a + 1);
  CHECK_ERRNO(read(fd, (void *)8, 1), EFAULT);
}

TEST(nothing_can_be_made_or_removed) {
  CHECK(open("/sys/kernel/new", O_CREAT | O_WRONLY, 0644) < 0);
  CHECK(errno == EACCES || errno == EROFS || errno == EPERM);
  CHECK(mkdir("/sys/kernel/new", 0755) < 0);
  CHECK(errno == EPERM || errno == EROFS);
  CHECK(unlink(CPU "online") < 0);
  CHECK(errno == EPERM || errno == EROFS);
  CHECK(rename(CPU "online", CPU "offline2") < 0);
  CHECK(errno == EPERM || errno == EROFS);
}

/* In the sandbox the whole tree is small, and every file of it can be read. */
static int files_read;
static void read_tree(const char *dir, int depth) {
  DIR *d = opendir(dir);

  REQUIRE(d && depth < 16);
  for (struct dirent *e; (e = readdir(d));) {
    char path[4096];
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
      continue;
    snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    if (e->d_type == DT_DIR && strcmp(path, "/sys/fs/cgroup") != 0) {
      read_tree(path, depth + 1);
    } else if (e->d_type == DT_REG) {
      text(path);
      files_read++;
    } else if (e->d_type == DT_LNK) {
      CHECK_OK(access(path, F_OK)); /* none dangles */
    }
  }
  closedir(d);
}

TEST(the_whole_tree_can_be_read) {
  if (!check_in_sandbox)
    SKIP("on the host that would read every device's registers");
  read_tree("/sys", 0);
  CHECK(files_read > 100);
  CHECK_ERRNO(access("/sys/class/dmi", F_OK), ENOENT);
  CHECK_ERRNO(access("/sys/firmware/dmi", F_OK), ENOENT);
  CHECK_ERRNO(access("/sys/bus/pci", F_OK), ENOENT);
}
