/* SPDX-License-Identifier: Apache-2.0 */
/* platform-systrap: runs guest code in stub processes whose system calls become signals (seccomp), handed to the kernel
 * process through shared pages. Several times faster than ptrace.
 *
 * This file: the plugin's descriptor, probe(), open() and close(). The other files are listed in private.h.
 *
 * What the kernel process must know:
 *   - Processes that it forks must close its descriptors (exec does): the stubs live until the last copy of
 *     the zygote's socket is closed. Where PID namespaces are allowed, or open() was called by the main thread, they
 *     also die with the zygote, or with that thread.
 *   - open() comes after changes of user, user namespace or session leader (fork); capabilities may go later. */
#include <cpuid.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <tessera/plugin.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>
#include "../platform-common/xstate.h"
#include "private.h"

#define PROBE_LIMIT (2 * G_TIME_SPAN_SECOND)
#define HWCAP2_FSGSBASE 2
#define XSTATE_MAGIC 0x46505853U
#define LOWEST (ST_TABLE + ST_TABLE_SIZE)

/* ---- Probe: a child traps itself ---- */

static void probe_handler(int sig, siginfo_t *si, void *uc) {
  (void)sig, (void)uc;
  syscall(SYS_exit_group, si->si_code == 1 && si->si_syscall == SYS_getppid ? 0 : 3);
}

static G_GNUC_NORETURN void probe_child(void) {
  struct sock_filter code[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, G_STRUCT_OFFSET(struct seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_getppid},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRAP},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  };
  struct sock_fprog prog = {G_N_ELEMENTS(code), code};
  struct sigaction action = {.sa_sigaction = probe_handler, .sa_flags = SA_SIGINFO};
  sigaction(SIGSYS, &action, NULL);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
    syscall(SYS_exit_group, 1);
  syscall(SYS_getppid);
  syscall(SYS_exit_group, 2);
  __builtin_unreachable();
}

/* The status of the child, or -errno. */
static int probe_wait(pid_t pid) {
  gint64 end = g_get_monotonic_time() + PROBE_LIMIT;
  int status = 0;
  for (;;) {
    pid_t r = waitpid(pid, &status, __WALL | WNOHANG);
    if (r == pid)
      return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
    if (r < 0 && errno != EINTR)
      return -errno;
    if (g_get_monotonic_time() > end) {
      kill(pid, SIGKILL);
      waitpid(pid, NULL, __WALL);
      return -ETIMEDOUT;
    }
    g_usleep(20);
  }
}

static int probe(char **why_not) {
  static const char *const reasons[] = {
      NULL,
      "seccomp filters cannot be installed (an outer filter, or a kernel without CONFIG_SECCOMP_FILTER)",
      "a filter's trap is not delivered (an outer seccomp filter decides first)",
      "a filter's trap arrives without its details",
      "a child process that used seccomp was killed (by an outer seccomp filter?)",
  };
  const char *why = NULL;
  guint a, b, c, d;
  int r = 0;
  if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
    why = "the processor or kernel lacks FSGSBASE (Linux 5.9 or later is needed)";
  else if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
    why = "the processor or kernel lacks XSAVE";
  if (!why) {
    pid_t pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0); /* no exit signal */
    if (pid == 0)
      probe_child();
    r = pid < 0 ? -errno : probe_wait(pid);
    why = r > 0 ? reasons[MIN((guint)r, G_N_ELEMENTS(reasons) - 1)] : r < 0 ? g_strerror(-r) : NULL;
  }
  if (why && why_not)
    *why_not = g_strdup_printf("systrap does not work here: %s", why);
  return !why ? 0 : r < 0 ? r : -EOPNOTSUPP;
}

/* ---- Open ---- */

/* Makes a first stub: proves that this works here, and tells the extended state's layout in signal frames. */
static gboolean first_stub(StPlatform *p, GError **error) {
  struct {
    guint32 magic, extended_size;
    guint64 features;
    guint32 size;
  } sw = {0};
  TesAspace *as = st_aspace_new(&p->base, error);
  TesExec *exec = as ? st_exec_new(&p->base, as, error) : NULL;
  gboolean ok = FALSE;
  if (exec) {
    StExec *e = (StExec *)exec;
    StThread *t = e->thread;
    gulong slot = ST_SLOTS + (gulong)t->place * ST_SLOT_SIZE;
    TesTrap trap;
    gint64 end = g_get_monotonic_time() + PROBE_LIMIT;
    while (g_atomic_int_get((gint *)&t->out->post) == 0 && g_get_monotonic_time() < end)
      g_usleep(10);
    if (t->out->post == 1 && st_decode(e, &trap))
      memcpy(&sw, (char *)t->out + (e->frame->c.fpstate - slot - ST_OUT) + XSTATE_SW, sizeof sw);
    ok = sw.magic == XSTATE_MAGIC && sw.size >= XSTATE_HEADER + 64 && sw.size < ST_STACK_SIZE / 3;
    if (!ok)
      g_set_error(
          error, TES_ERROR, TES_ERROR_PLATFORM,
          "systrap platform: the first stub thread does not trap as it should; choose --platform=ptrace");
  }
  p->base.xstate_size = sw.size;
  p->base.xfeatures = sw.features;
  memcpy(p->ro + (ST_XFEATURES - ST_SHARED), &sw.features, sizeof sw.features);
  if (ok)
    p->xinit = xstate_initial(sw.size);
  if (exec)
    exec->ops->free(exec);
  if (as)
    as->ops->free(as);
  return ok;
}

static void platform_close(TesPlatform *base) {
  StPlatform *p = (StPlatform *)base;
  st_spares_free(p);
  for (guint i = 0; i < 50 && p->graves->len; i++)
    st_sweep(p, 100);
  st_zygote_stop(p);
  g_array_unref(p->graves);
  g_array_unref(p->pages.free);
  g_array_unref(p->slots.free);
  g_array_unref(p->families.free);
  g_mutex_clear(&p->lock);
  g_mutex_clear(&p->seed_lock);
  g_free(p->xinit);
  g_free(p);
}

static const TesPlatformOps platform_ops;

static TesPlatform *platform_open(const TesPlatformArgs *args, GError **error) {
  if (args && TES_HAS(args, device)) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "platform systrap uses no device: leave out %s",
                args->device);
    return NULL;
  }
  StPlatform *p = g_new0(StPlatform, 1);
  p->base.ops = &platform_ops;
  p->base.min_addr = LOWEST;
  p->cpuid = args && TES_HAS(args, cpuid) ? args->cpuid : NULL;
  p->base.max_addr = ST_BASE;
  p->life = p->ro_fd = p->rw_fd = p->mem_fd = -1;
  g_mutex_init(&p->lock);
  g_mutex_init(&p->seed_lock);
  st_numbers_init(&p->pages, ST_PROCESSES);
  st_numbers_init(&p->slots, ST_THREADS);
  st_numbers_init(&p->families, ST_FAMILIES);
  p->graves = g_array_new(FALSE, FALSE, sizeof(StGrave));
  st_handover_init(p);
  guint64 tsc = __rdtsc();
  gint64 begin = g_get_monotonic_time();
  if (!st_zygote_start(p, error) || !first_stub(p, error)) {
    platform_close(&p->base);
    return NULL;
  }
  st_handover_calibrate(p, __rdtsc() - tsc, (g_get_monotonic_time() - begin) * 1000);
  return &p->base;
}

static const TesPlatformOps platform_ops = {
    .size = sizeof(TesPlatformOps),
    .flags = TES_PLATFORM_PREFERRED | TES_PLATFORM_CPUID,
    .probe = probe,
    .open = platform_open,
    .close = platform_close,
    .aspace_new = st_aspace_new,
    .exec_new = st_exec_new,
};

static const TesFeature features[] = {
    {"platform", "systrap", &platform_ops},
    {NULL, NULL, NULL},
};

TES_PLUGIN_DEFINE(platform_systrap, .name = "platform-systrap",
                  .summary = "runs programs in processes whose system calls become signals: fast without KVM",
                  .licence = "Apache-2.0", .features = features);
