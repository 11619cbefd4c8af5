/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera doctor`: facts of the machine that decide what works and how fast, and what network uplinks would need. */
#include <runtime/doctor.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HWCAP2_FSGSBASE_BIT 2UL
#define XFEATURE_AVX512 0xe0UL
#define XFEATURE_AMX 0x60000UL
#define MEASURE_LIMIT_NS 15e6 /* for each figure */
#define MEASURE_ROUNDS 200
#define SLOW_WAKEUP_NS 20e3
#define SLOW_CPUID_NS 2e3

/* ---- Network ---- */

static void check_tun(Finding *f, gconstpointer data) {
  (void)data;
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd >= 0)
    finding(f, DOCTOR_YES, NULL, "/dev/net/tun can be opened");
  else if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
    finding(f, DOCTOR_NO, "load the module tun; in a container: --device /dev/net/tun", "/dev/net/tun: %s",
            g_strerror(errno));
  else
    finding(f, DOCTOR_NO, "make /dev/net/tun accessible to this user", "/dev/net/tun: %s", g_strerror(errno));
}

static void check_net_ns(Finding *f, gconstpointer data) {
  (void)data;
  gboolean direct = unshare(CLONE_NEWNET) == 0;
  if (!direct && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
    finding(f, DOCTOR_NO, "allow user namespaces (see above), or run as root",
            "unshare: %s, in a user namespace too", g_strerror(errno));
  else
    finding(f, DOCTOR_YES, NULL,
            direct ? "allowed by this process's capabilities" : "inside a user namespace");
}

static void check_net_admin(Finding *f, gconstpointer data) {
  (void)data;
  if (have_capability(CAP_NET_ADMIN))
    finding(f, DOCTOR_YES, NULL, "held");
  else
    finding(f, DOCTOR_NO, "run as root, or inside a user and network namespace", "not held");
}

const Check network_checks[] = {
    {"tun device", check_tun, NULL},
    {"network namespace", check_net_ns, NULL},
    {"CAP_NET_ADMIN", check_net_admin, NULL},
    {NULL, NULL, NULL},
};

/* ---- Kernel and limits ---- */

static void check_kernel(Finding *f, gconstpointer data) {
  (void)data;
  struct utsname u;
  guint major = 0, minor = 0;
  uname(&u);
  sscanf(u.release, "%u.%u", &major, &minor);
  guint version = major * 1000 + minor;
  if (version < 5003)
    finding(f, DOCTOR_NO, "use Linux 5.3 or later", "Linux %s", u.release);
  else if (version < 5011)
    finding(f, DOCTOR_LIMITED, "use Linux 5.11 or later",
            "Linux %s lacks later calls (close_range, syscall user dispatch)", u.release);
  else
    finding(f, DOCTOR_YES, NULL, "Linux %s", u.release);
}

static void check_overcommit(Finding *f, gconstpointer data) {
  (void)data;
  glong mode = -1;
  void *p = mmap(NULL, 1UL << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  int error = errno;
  gboolean known = read_number("/proc/sys/vm/overcommit_memory", &mode);
  g_autofree char *is = known ? g_strdup_printf("vm.overcommit_memory is %ld", mode)
                              : g_strdup("vm.overcommit_memory cannot be read");
  if (p == MAP_FAILED)
    finding(f, DOCTOR_LIMITED, "set vm.overcommit_memory to 0 or 1; ulimit -v unlimited",
            "1 TiB cannot be reserved: %s; %s", g_strerror(error), is);
  else
    finding(f, DOCTOR_YES, NULL, "1 TiB can be reserved; %s", is);
}

static void check_map_count(Finding *f, gconstpointer data) {
  (void)data;
  glong n;
  if (!read_number("/proc/sys/vm/max_map_count", &n))
    finding(f, DOCTOR_LIMITED, "mount /proc", "vm.max_map_count cannot be read");
  else if (n < 65530)
    finding(f, DOCTOR_LIMITED, "set vm.max_map_count to 65530 or more", "%ld for each address space", n);
  else
    finding(f, DOCTOR_YES, NULL, "%ld for each address space", n);
}

typedef struct {
  int resource;
  const char *what, *remedy;
  rlim_t enough;
} Limit;
static const Limit nofile = {RLIMIT_NOFILE, "open files",
                             "raise the hard limit: ulimit -Hn, LimitNOFILE=", 4096},
                   nproc = {RLIMIT_NPROC, "processes and threads of this user",
                            "raise the limit: ulimit -u, LimitNPROC=", 4096};

static void check_limit(Finding *f, gconstpointer data) {
  const Limit *l = data;
  struct rlimit r;
  getrlimit(l->resource, &r);
  /* A soft limit can be raised by the process itself. */
  gboolean enough = r.rlim_max == RLIM_INFINITY || r.rlim_max >= l->enough;
  g_autofree char *hard =
      r.rlim_max == RLIM_INFINITY ? g_strdup("no limit") : g_strdup_printf("at most %lu", (gulong)r.rlim_max);
  finding(f, enough ? DOCTOR_YES : DOCTOR_LIMITED, enough ? NULL : l->remedy, "%s %s", hard, l->what);
}

/* ---- CPU ---- */

static gboolean hypervisor(char name[13]) {
  guint a, b = 0, c = 0, d = 0;
  name[0] = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1U << 31))
    return FALSE;
  __cpuid(0x40000000, a, b, c, d);
  memcpy(name, &b, 4);
  memcpy(name + 4, &c, 4);
  memcpy(name + 8, &d, 4);
  name[12] = 0;
  if (!*name)
    g_strlcpy(name, "unknown", 13);
  return TRUE;
}

static void check_hardware(Finding *f, gconstpointer data) {
  (void)data;
  char name[13];
  guint brand[13] = {0}, top = __get_cpuid_max(0x80000000, NULL);
  for (guint i = 0; top >= 0x80000004 && i < 3; i++)
    __cpuid(0x80000002 + i, brand[4 * i], brand[4 * i + 1], brand[4 * i + 2], brand[4 * i + 3]);
  const char *model = g_strstrip((char *)brand);
  if (hypervisor(name))
    finding(f, DOCTOR_LIMITED, NULL,
            "%s, a virtual machine (%s): CPUID and wake-ups of other CPUs leave to the hypervisor", model,
            name);
  else
    finding(f, DOCTOR_YES, NULL, "%s, no hypervisor", model);
}

static void check_fsgsbase(Finding *f, gconstpointer data) {
  (void)data;
  if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT)
    finding(f, DOCTOR_YES, NULL, "programs may set the base of FS and GS themselves");
  else
    finding(f, DOCTOR_NO,
            "use Linux 5.9 or later on an Intel Ivy Bridge, AMD Zen or later CPU, without nofsgsbase",
            "not enabled by the host's kernel");
}

static void check_xsave(Finding *f, gconstpointer data) {
  (void)data;
  guint a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) {
    finding(f, DOCTOR_NO, "boot the host without noxsave", "XSAVE is not enabled");
    return;
  }
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  guint64 on = (guint64)high << 32 | low;
  __cpuid_count(13, 0, a, b, c, d);
  finding(f, DOCTOR_YES, NULL, "XSAVE, %u bytes; AVX %s, AVX-512 %s, AMX %s", b, on & 4 ? "yes" : "no",
          (on & XFEATURE_AVX512) == XFEATURE_AVX512 ? "yes" : "no",
          (on & XFEATURE_AMX) == XFEATURE_AMX ? "yes" : "no");
}

static void check_cpuid_faulting(Finding *f, gconstpointer data) {
  (void)data;
  if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) < 0) {
    finding(f, DOCTOR_NO, NULL, "arch_prctl: %s: the CPUID instruction cannot be trapped", g_strerror(errno));
    return;
  }
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  finding(f, DOCTOR_YES, NULL, "the CPUID instruction can be trapped");
}

static void check_cpus(Finding *f, gconstpointer data) {
  (void)data;
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  int n = CPU_COUNT(&set);
  if (n > 1)
    finding(f, DOCTOR_YES, NULL, "%d usable of %ld", n, sysconf(_SC_NPROCESSORS_CONF));
  else
    finding(f, DOCTOR_LIMITED, "allow more than one CPU (taskset, cpuset)",
            "one usable of %ld: no core is ever spare to wait on", sysconf(_SC_NPROCESSORS_CONF));
}

/* ---- Costs: minima of a few tries ---- */

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void op_syscall(void) { syscall(SYS_getppid); }
static void op_cpuid(void) {
  guint a, b, c, d;
  __cpuid(1, a, b, c, d);
}

static _Atomic guint32 *turn;
static void give(guint32 to) {
  atomic_store(turn, to);
  syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
  while (atomic_load(turn) == to)
    syscall(SYS_futex, turn, FUTEX_WAIT, to, NULL, NULL, 0);
}
static void op_wake(void) { give(1); }

static double minimum(void (*op)(void)) {
  double best = 1e18, end = now_ns() + MEASURE_LIMIT_NS;
  for (int i = 0; i < MEASURE_ROUNDS && (i < 3 || now_ns() < end); i++) {
    double begin = now_ns();
    op();
    best = MIN(best, now_ns() - begin);
  }
  return best;
}

static void pin(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof one, &one);
}

/* There and back between two processes on two CPUs, or on one; the partner is killed with the check's group. */
static double wake_up(int here, int there) {
  pin(here);
  atomic_store(turn, 0);
  pid_t pid = fork();
  if (pid == 0) {
    pin(there);
    while (atomic_load(turn) != 1)
      syscall(SYS_futex, turn, FUTEX_WAIT, 0, NULL, NULL, 0);
    for (;;)
      give(0);
  }
  double ns = pid > 0 ? minimum(op_wake) : 0;
  if (pid > 0) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
  }
  return ns;
}

static void check_costs(Finding *f, gconstpointer data) {
  (void)data;
  cpu_set_t set;
  int cpu[2] = {-1, -1};
  sched_getaffinity(0, sizeof set, &set);
  for (int i = 0, n = 0; i < CPU_SETSIZE && n < 2; i++)
    if (CPU_ISSET(i, &set))
      cpu[n++] = i;
  turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (turn == MAP_FAILED || cpu[0] < 0) {
    finding(f, DOCTOR_NO, NULL, "cannot be measured");
    return;
  }
  double call = minimum(op_syscall), id = minimum(op_cpuid), same = wake_up(cpu[0], cpu[0]);
  double other = cpu[1] >= 0 ? wake_up(cpu[0], cpu[1]) : 0;
  g_autofree char *across =
      cpu[1] >= 0 ? g_strdup_printf(", on two CPUs %.1f us", other / 1e3) : g_strdup("");
  gboolean slow = other > SLOW_WAKEUP_NS || id > SLOW_CPUID_NS;
  finding(f, slow ? DOCTOR_LIMITED : DOCTOR_YES, NULL,
          "rough minima: system call %.0f ns, CPUID %.2f us, wake-up there and back on one CPU %.1f us%s",
          call, id / 1e3, same / 1e3, across);
}

const Check machine_checks[] = {
    {"kernel", check_kernel, NULL},
    {"hardware", check_hardware, NULL},
    {"CPUs", check_cpus, NULL},
    {"FSGSBASE", check_fsgsbase, NULL},
    {"extended state", check_xsave, NULL},
    {"CPUID faulting", check_cpuid_faulting, NULL},
    {"overcommit", check_overcommit, NULL},
    {"mappings", check_map_count, NULL},
    {"open files", check_limit, &nofile},
    {"threads", check_limit, &nproc},
    {"costs", check_costs, NULL},
    {NULL, NULL, NULL},
};
