/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera doctor`: what the host offers to confine processes with, and to isolate them. Each check tries the real thing. */
#include <runtime/doctor.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Newer than the oldest headers this builds with. */
#define DISPATCH 59 /* PR_SET_SYSCALL_USER_DISPATCH */
#define NOTIF_SET_FLAGS SECCOMP_IOW(4, guint64)
#define NOTIF_SYNC_WAKE_UP 1UL
#define SYS_LANDLOCK_CREATE_RULESET 444
#define LANDLOCK_VERSION 1U

static const char seccomp_remedy[] =
    "build the host's kernel with CONFIG_SECCOMP_FILTER, or let the container allow seccomp(2)";

static void check_no_new_privs(Finding *f, gconstpointer data) {
  (void)data;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    finding(f, DOCTOR_NO, "use Linux 3.5 or later", "prctl: %s", g_strerror(errno));
  else
    finding(f, DOCTOR_YES, NULL, "set-user-ID programs gain nothing once it is set");
  f->chosen = f->state != DOCTOR_NO;
}

static volatile sig_atomic_t trapped;
static void on_sigsys(int sig) {
  (void)sig;
  trapped = 1;
}

/* Names of filter actions the host lacks. */
static char *missing_actions(void) {
  static const struct {
    guint32 action;
    const char *name;
  } actions[] = {
      {SECCOMP_RET_KILL_PROCESS, "KILL_PROCESS"}, {SECCOMP_RET_TRAP, "TRAP"},   {SECCOMP_RET_ERRNO, "ERRNO"},
      {SECCOMP_RET_USER_NOTIF, "USER_NOTIF"},     {SECCOMP_RET_TRACE, "TRACE"}, {SECCOMP_RET_ALLOW, "ALLOW"},
  };
  g_autoptr(GString) missing = g_string_new(NULL);
  for (guint i = 0; i < G_N_ELEMENTS(actions); i++)
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &actions[i].action) < 0)
      g_string_append_printf(missing, "%s%s", missing->len ? ", " : "", actions[i].name);
  return g_string_free(g_steal_pointer(&missing), FALSE);
}

static void check_filter(Finding *f, gconstpointer data) {
  (void)data;
  int outer = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  signal(SIGSYS, on_sigsys);
  if (outer < 0 || filter_getppid(SECCOMP_RET_TRAP, 0) < 0) {
    finding(f, DOCTOR_NO, seccomp_remedy, "a filter cannot be loaded: %s", g_strerror(errno));
    return;
  }
  syscall(SYS_getppid);
  if (!trapped) {
    finding(f, DOCTOR_NO, "do not run under an emulator or tracer that hides filters",
            "a filter that traps a call was loaded and did nothing");
    return;
  }
  g_autofree char *missing = missing_actions();
  f->chosen = TRUE;
  const char *note = outer == 2 ? "; this process is under a filter already, as in containers" : "";
  if (*missing)
    finding(f, DOCTOR_LIMITED, "use Linux 5.0 or later, or let the container allow seccomp(2)",
            "filters trap calls, but actions are missing: %s%s", missing, note);
  else
    finding(f, DOCTOR_YES, NULL, "filters trap, refuse and notify%s", note);
}

static void check_notification(Finding *f, gconstpointer data) {
  (void)data;
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  int fd = filter_getppid(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
  if (fd < 0 && errno == EBUSY)
    finding(f, DOCTOR_NO, "start tessera outside the container manager that listens",
            "an outer filter has a listener already, and there can be only one");
  else if (fd < 0)
    finding(f, DOCTOR_NO, seccomp_remedy, "no listener: %s", g_strerror(errno));
  else if (ioctl(fd, NOTIF_SET_FLAGS, NOTIF_SYNC_WAKE_UP) < 0)
    finding(f, DOCTOR_LIMITED, "use Linux 6.6 or later",
            "calls can be handed to another process, without a hand-over on the same CPU (SYNC_WAKE_UP)");
  else
    finding(f, DOCTOR_YES, NULL, "calls can be handed to another process on the same CPU (SYNC_WAKE_UP)");
}

static void check_dispatch(Finding *f, gconstpointer data) {
  (void)data;
  static char allow; /* SYSCALL_DISPATCH_FILTER_ALLOW */
  if (prctl(DISPATCH, 1, 0, 0, &allow) < 0)
    finding(f, DOCTOR_NO, "use Linux 5.11 or later", "prctl: %s", g_strerror(errno));
  else
    finding(f, DOCTOR_YES, NULL, "a byte in memory can switch trapping on and off");
}

/* ---- Namespaces ---- */

static const char *userns_remedy(int error) {
  glong n;
  if (error == ENOSPC)
    return "raise user.max_user_namespaces";
  if (read_number("/proc/sys/user/max_user_namespaces", &n) && n == 0)
    return "raise user.max_user_namespaces";
  if (read_number("/proc/sys/kernel/unprivileged_userns_clone", &n) && n == 0)
    return "set kernel.unprivileged_userns_clone to 1";
  if (read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", &n) && n == 1)
    return "give tessera an AppArmor profile with userns, or set "
           "kernel.apparmor_restrict_unprivileged_userns to 0";
  if (error == EPERM)
    return "leave the chroot or the container, or let its filter allow unshare and clone with namespaces";
  return "build the host's kernel with CONFIG_USER_NS";
}

static void check_user_ns(Finding *f, gconstpointer data) {
  (void)data;
  if (unshare(CLONE_NEWUSER) < 0)
    finding(f, DOCTOR_NO, userns_remedy(errno), "unshare: %s", g_strerror(errno));
  else if (unshare(CLONE_NEWNS) < 0)
    finding(f, DOCTOR_LIMITED, userns_remedy(errno),
            "one can be made, but gives no capabilities: unshare of mounts: %s", g_strerror(errno));
  else
    finding(f, DOCTOR_YES, NULL, "%s", "made by this user, with all capabilities inside");
}

typedef struct {
  int flag;
  const char *config;
  gboolean used;
} NsKind;

/* Inside a PID namespace the first child is number 1: that proves it. */
static gboolean child_is_first(void) {
  int status = 0;
  pid_t pid = fork();
  if (pid == 0)
    _exit(getpid() == 1 ? 0 : 1);
  return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static void check_ns(Finding *f, gconstpointer data) {
  const NsKind *k = data;
  gboolean direct = unshare(k->flag) == 0;
  if (!direct && unshare(CLONE_NEWUSER | k->flag) < 0) {
    g_autofree char *remedy = g_strdup_printf("%s (or %s)", userns_remedy(errno), k->config);
    finding(f, DOCTOR_NO, remedy, "unshare: %s, in a user namespace too", g_strerror(errno));
    return;
  }
  if (k->flag == CLONE_NEWPID && !child_is_first()) {
    finding(f, DOCTOR_NO, NULL, "one was made, but its first process did not become number 1");
    return;
  }
  finding(f, DOCTOR_YES, NULL, direct ? "allowed by this process's capabilities" : "inside a user namespace");
  f->chosen = k->used;
}

/* ---- Others ---- */

static void check_landlock(Finding *f, gconstpointer data) {
  (void)data;
  long abi = syscall(SYS_LANDLOCK_CREATE_RULESET, NULL, 0, LANDLOCK_VERSION);
  if (abi > 0)
    finding(f, DOCTOR_YES, NULL, "ABI version %ld", abi);
  else if (errno == EOPNOTSUPP)
    finding(f, DOCTOR_NO, "add landlock to lsm= on the host's kernel command line",
            "built into the kernel, but off since boot");
  else
    finding(f, DOCTOR_NO, "use a host kernel with CONFIG_SECURITY_LANDLOCK (Linux 5.13 or later)",
            "landlock_create_ruleset: %s", g_strerror(errno));
}

/* Where the cgroup2 hierarchy is mounted; NULL: nowhere. */
static char *cgroup2_mount(const char *mountinfo) {
  g_auto(GStrv) lines = g_strsplit(mountinfo, "\n", -1);
  for (char **l = lines; *l; l++) {
    g_auto(GStrv) word = g_strsplit(*l, " ", 6);
    if (strstr(*l, " - cgroup2 ") && g_strv_length(word) > 4)
      return g_strcompress(word[4]);
  }
  return NULL;
}

static void check_cgroup(Finding *f, gconstpointer data) {
  (void)data;
  g_autofree char *mounts = NULL, *mine = NULL, *controllers = NULL;
  if (!g_file_get_contents("/proc/self/mountinfo", &mounts, NULL, NULL) ||
      !g_file_get_contents("/proc/self/cgroup", &mine, NULL, NULL)) {
    finding(f, DOCTOR_NO, "mount /proc", "cannot be told: /proc is missing");
    return;
  }
  g_autofree char *mount = cgroup2_mount(mounts);
  const char *path = g_str_has_prefix(mine, "0::") ? mine + 3
                     : strstr(mine, "\n0::")       ? strstr(mine, "\n0::") + 4
                                                   : NULL;
  if (!mount || !path) {
    finding(f, DOCTOR_NO, "mount the cgroup2 filesystem on /sys/fs/cgroup",
            strstr(mounts, " - cgroup ") ? "only version 1 is mounted" : "no control groups are mounted");
    return;
  }
  g_autofree char *rel = g_strndup(path, strcspn(path, "\n"));
  g_autofree char *dir = g_build_filename(mount, rel, NULL),
                  *file = g_build_filename(dir, "cgroup.controllers", NULL);
  if (faccessat(AT_FDCWD, dir, W_OK, AT_EACCESS) < 0)
    finding(f, DOCTOR_NO, "let the session manager delegate it (systemd: Delegate=yes), or run as root",
            "%s: %s", dir, g_strerror(errno));
  else if (!g_file_get_contents(file, &controllers, NULL, NULL) || !*g_strstrip(controllers))
    finding(f, DOCTOR_LIMITED, "enable controllers in cgroup.subtree_control of the group above",
            "%s can be written, but has no controllers", dir);
  else
    finding(f, DOCTOR_YES, NULL, "%s can be written; controllers: %s", dir, controllers);
}

static void check_capabilities(Finding *f, gconstpointer data) {
  (void)data;
  static const struct {
    int cap;
    const char *name;
  } useful[] = {
      {CAP_SYS_ADMIN, "SYS_ADMIN"},
      {CAP_SYS_PTRACE, "SYS_PTRACE"},
      {CAP_SETUID, "SETUID"},
      {CAP_SETGID, "SETGID"},
      {CAP_CHOWN, "CHOWN"},
      {CAP_FOWNER, "FOWNER"},
      {CAP_FSETID, "FSETID"},
      {CAP_DAC_OVERRIDE, "DAC_OVERRIDE"},
      {CAP_DAC_READ_SEARCH, "DAC_READ_SEARCH"},
      {CAP_SYS_CHROOT, "SYS_CHROOT"},
      {CAP_MKNOD, "MKNOD"},
      {CAP_NET_ADMIN, "NET_ADMIN"},
  };
  g_autoptr(GString) held = g_string_new(NULL), lacks = g_string_new(NULL);
  for (guint i = 0; i < G_N_ELEMENTS(useful); i++) {
    GString *s = have_capability(useful[i].cap) ? held : lacks;
    g_string_append_printf(s, "%s%s", s->len ? ", " : "", useful[i].name);
  }
  const char *rerun = "none are needed for tessera do; run as root for host files of other users";
  if (!lacks->len)
    finding(f, DOCTOR_YES, NULL, "all that are useful: %s", held->str);
  else if (held->len)
    finding(f, DOCTOR_LIMITED, rerun, "held: %s; not held: %s", held->str, lacks->str);
  else
    finding(f, DOCTOR_NO, rerun, "none of those that are useful");
}

static void check_yama(Finding *f, gconstpointer data) {
  (void)data;
  glong scope = 0;
  if (!read_number("/proc/sys/kernel/yama/ptrace_scope", &scope)) {
    if (access("/proc/sys/kernel", F_OK) < 0)
      finding(f, DOCTOR_LIMITED, "mount /proc", "cannot be told: /proc is missing");
    else
      finding(f, DOCTOR_YES, NULL, "no restriction: the Yama module is not there");
  } else if (scope <= 1)
    finding(f, DOCTOR_YES, NULL, "kernel.yama.ptrace_scope is %ld: processes may trace their children",
            scope);
  else if (scope == 2 && have_capability(CAP_SYS_PTRACE))
    finding(f, DOCTOR_LIMITED, "set kernel.yama.ptrace_scope to 1 to allow ordinary users",
            "kernel.yama.ptrace_scope is 2: only with CAP_SYS_PTRACE, which this process holds");
  else
    finding(f, DOCTOR_NO,
            scope == 2 ? "set kernel.yama.ptrace_scope to 1, or run with CAP_SYS_PTRACE"
                       : "boot the host without kernel.yama.ptrace_scope=3",
            "kernel.yama.ptrace_scope is %ld", scope);
}

static void check_memfd(Finding *f, gconstpointer data) {
  (void)data;
  static const guint8 ret = 0xc3;
  int fd = memfd_create("tessera-doctor", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, 4096) < 0 || pwrite(fd, &ret, 1, 0) != 1) {
    finding(f, DOCTOR_NO, "use Linux 3.17 or later; do not let the container forbid memfd_create",
            "memfd_create: %s", g_strerror(errno));
    return;
  }
  void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) {
    finding(f, DOCTOR_NO, "let the security module (SELinux: execmem, execmod) allow it",
            "mapping it executable: %s", g_strerror(errno));
    return;
  }
  ((void (*)(void))p)();
  if (faccessat(fd, "", X_OK, AT_EMPTY_PATH) < 0 &&
      errno == EACCES) /* EINVAL, ENOSYS: older than Linux 5.8 */
    finding(f, DOCTOR_LIMITED, "set vm.memfd_noexec to 0",
            "it can be mapped executable, but not executed as a program (vm.memfd_noexec)");
  else
    finding(f, DOCTOR_YES, NULL, "it can be mapped executable and executed");
}

static const NsKind pid_ns = {CLONE_NEWPID, "CONFIG_PID_NS", TRUE},
                    mount_ns = {CLONE_NEWNS, "CONFIG_NAMESPACES", FALSE},
                    ipc_ns = {CLONE_NEWIPC, "CONFIG_IPC_NS", FALSE},
                    uts_ns = {CLONE_NEWUTS, "CONFIG_UTS_NS", FALSE};

const Check confinement_checks[] = {
    {"no_new_privs", check_no_new_privs, NULL},
    {"seccomp filter", check_filter, NULL},
    {"seccomp notification", check_notification, NULL},
    {"syscall user dispatch", check_dispatch, NULL},
    {"user namespace", check_user_ns, NULL},
    {"PID namespace", check_ns, &pid_ns},
    {"mount namespace", check_ns, &mount_ns},
    {"IPC namespace", check_ns, &ipc_ns},
    {"UTS namespace", check_ns, &uts_ns},
    {"landlock", check_landlock, NULL},
    {"cgroup v2", check_cgroup, NULL},
    {"capabilities", check_capabilities, NULL},
    {"tracing children", check_yama, NULL},
    {"executable memfd", check_memfd, NULL},
    {NULL, NULL, NULL},
};
