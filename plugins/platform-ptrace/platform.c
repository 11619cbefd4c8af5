/* SPDX-License-Identifier: Apache-2.0 */
/* platform-ptrace: runs guest code in traced stub processes. Works wherever ptrace(2) does.
 *
 * This file: the plugin's descriptor, probe(), open() and close(). The other files are listed in private.h.
 *
 * What the kernel process must know:
 *   - A thread that ran an exec is its tracer: its end, without free(), kills the whole stub process.
 *   - Nobody may wait for *any* child (waitpid(-1) without __WNOTHREAD): that takes other threads' stops away.
 *   - Processes that it forks must close its descriptors (exec does): the stubs live until the last copy of
 *     the zygote's socket is closed. Where PID namespaces are allowed, or open() was called by the main thread, they
 *     also die with the zygote, or with that thread.
 *   - open() comes after changes of user, user namespace or session leader (fork); capabilities may go later. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <tessera/plugin.h>
#include "../platform-common/xstate.h"
#include "private.h"

#define PROBE_LIMIT (2 * G_TIME_SPAN_SECOND)
#define XSTATE_MAX 65536
#define MIN_ADDR 0x10000UL

static gulong read_number(const char *path, gulong otherwise) {
  g_autofree char *text = NULL;
  return g_file_get_contents(path, &text, NULL, NULL) ? strtoul(text, NULL, 10) : otherwise;
}

/* Waits for a stop of the probe's child, at most until `end`. */
static int probe_wait(pid_t pid, gint64 end, int *status) {
  for (;;) {
    pid_t r = waitpid(pid, status, __WALL | WNOHANG);
    if (r == pid)
      return WIFSTOPPED(*status) ? 0 : -ECHILD;
    if (r < 0 && errno != EINTR)
      return -errno;
    if (g_get_monotonic_time() > end)
      return -ETIMEDOUT;
    g_usleep(50);
  }
}

/* The child calls getpid for ever. *what: the request that failed. */
static int probe_child(pid_t pid, const char **what) {
  gint64 end = g_get_monotonic_time() + PROBE_LIMIT;
  struct ptrace_syscall_info info;
  int status, r;
  *what = "PTRACE_SEIZE";
  if ((r = (int)pt_ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) < 0 ||
      (r = (int)pt_ptrace(PTRACE_INTERRUPT, pid, 0, 0)) < 0 || (r = probe_wait(pid, end, &status)) < 0)
    return r;
  *what = "PTRACE_SYSEMU";
  do {
    if ((r = (int)pt_ptrace(PTRACE_SYSEMU, pid, 0, 0)) < 0 || (r = probe_wait(pid, end, &status)) < 0)
      return r;
  } while (WSTOPSIG(status) != (SIGTRAP | 0x80));
  *what = "PTRACE_GET_SYSCALL_INFO";
  r = (int)pt_ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, (gulong)&info);
  return r < 0 ? r : info.op == PTRACE_SYSCALL_INFO_ENTRY ? 0 : -EOPNOTSUPP;
}

static char *explain(const char *what, int error) {
  gulong yama = read_number("/proc/sys/kernel/yama/ptrace_scope", 0);
  int seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
  const char *why = "";
  if (error == -ETIMEDOUT)
    why = " (no answer within 2 seconds)";
  else if (yama >= 2)
    why = yama == 2 ? " (kernel.yama.ptrace_scope is 2: the capability CAP_SYS_PTRACE is needed)"
                    : " (kernel.yama.ptrace_scope is 3: no process may trace)";
  else if (seccomp == 2)
    why =
        " (a seccomp filter is active, as in containers: allow ptrace, for docker with --cap-add=SYS_PTRACE)";
  else if (error == -EIO || error == -EINVAL || error == -EOPNOTSUPP)
    why = " (Linux 5.3 or later on x86-64 is needed)";
  else if (error == -EPERM)
    why = " (a security module, or a tracer of this process, may forbid it)";
  return g_strdup_printf("ptrace does not work here: %s: %s%s", what, g_strerror(-error), why);
}

static int probe(char **why_not) {
  const char *what = "fork";
  pid_t pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0); /* no exit signal */
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
      syscall(SYS_getpid);
  }
  int r = pid < 0 ? -errno : probe_child(pid, &what);
  if (pid > 0) {
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
      ;
  }
  if (r < 0 && why_not)
    *why_not = explain(what, r);
  return r;
}

/* Makes a first stub and traces it: proves that this works here, and tells the extended state's layout. */
static gboolean first_stub(PtPlatform *p, GError **error) {
  g_autofree char *buf = g_malloc0(XSTATE_MAX);
  struct iovec iov = {buf, XSTATE_MAX};
  PtAspace as = {.base = {.platform = &p->base}};
  PtExec e = {.base = {.aspace = &as.base}, .has_regs = TRUE};
  if (!pt_stub_new(p, &as.stub, error))
    return FALSE;
  e.tid = as.stub.pid;
  int r = pt_takeover(&e);
  if (r == 0)
    r = (int)pt_ptrace(PTRACE_GETREGSET, e.tid, NT_X86_XSTATE, (gulong)&iov);
  if (r == 0 && iov.iov_len < XSTATE_HEADER + 64)
    r = -EOPNOTSUPP;
  if (r < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "ptrace platform: cannot trace a stub: %s",
                g_strerror(-r));
    pt_stub_kill(p, &as.stub);
    return FALSE;
  }
  p->base.xstate_size = iov.iov_len;
  memcpy(&p->base.xfeatures, buf + XSTATE_SW, sizeof p->base.xfeatures);
  p->xinit = xstate_initial(iov.iov_len);
  pt_release(&e, STUB_AT(tes_ptrace_stub_park));
  pt_stub_recycle(p, &as.stub);
  return TRUE;
}

static void platform_close(TesPlatform *base) {
  PtPlatform *p = (PtPlatform *)base;
  pt_zygote_stop(p);
  g_array_unref(p->free_slots);
  g_mutex_clear(&p->lock);
  g_mutex_clear(&p->pool_lock);
  g_free(p->xinit);
  g_free(p);
}

/* Each stop of a stub would send SIGCHLD, and so wake whatever thread polls a signalfd or does not block it: measured, that
 * doubles the cost of a system call. Waiting does not need it. */
static void no_signal_for_stops(void) {
  struct sigaction action;
  if (sigaction(SIGCHLD, NULL, &action) == 0) {
    action.sa_flags |= SA_NOCLDSTOP;
    sigaction(SIGCHLD, &action, NULL);
  }
}

static const TesPlatformOps platform_ops;

static TesPlatform *platform_open(const TesPlatformArgs *args, GError **error) {
  if (args && TES_HAS(args, device)) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "platform ptrace uses no device: leave out %s",
                args->device);
    return NULL;
  }
  PtPlatform *p = g_new0(PtPlatform, 1);
  p->base.ops = &platform_ops;
  p->base.min_addr = TES_PAGE_UP(MAX(MIN_ADDR, read_number("/proc/sys/vm/mmap_min_addr", MIN_ADDR)));
  p->base.max_addr = STUB_BASE;
  p->ctl = p->life = p->orders_fd = -1;
  for (int i = 0; i < STUB_POOL; i++)
    p->tx[i] = p->rx[i] = -1;
  g_mutex_init(&p->lock);
  g_mutex_init(&p->pool_lock);
  p->free_slots = g_array_new(FALSE, FALSE, sizeof(guint));
  pt_affinity_init(p);
  no_signal_for_stops();
  if (!pt_zygote_start(p, error) || !first_stub(p, error)) {
    platform_close(&p->base);
    return NULL;
  }
  return &p->base;
}

static const TesPlatformOps platform_ops = {
    .size = sizeof(TesPlatformOps),
    .probe = probe,
    .open = platform_open,
    .close = platform_close,
    .aspace_new = pt_aspace_new,
    .exec_new = pt_exec_new,
};

static const TesFeature features[] = {
    {"platform", "ptrace", &platform_ops},
    {NULL, NULL, NULL},
};

TES_PLUGIN_DEFINE(platform_ptrace, .name = "platform-ptrace",
                  .summary = "runs programs in traced processes, wherever ptrace(2) is allowed",
                  .licence = "Apache-2.0", .features = features);
