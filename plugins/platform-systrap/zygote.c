/* SPDX-License-Identifier: Apache-2.0 */
/* The zygote: the process that every stub descends from, and the seed, the first mapper.
 *
 * st_zygote_start() forks it before any guest memory exists (../platform-common/birth.h). The first orders unmap all that exec
 * made, install signal handlers and the filter, and fork: the child is the seed, an empty stub that forks others; the
 * parent waits for the end of its socket, which comes however this process ends, and takes all stubs with it: by
 * its PID namespace, and by PDEATHSIG where there is none. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "../platform-common/birth.h"
#include "private.h"

#define DATA_ORDER 40 /* data for the first orders stands in the place of later ones */

static gboolean fail(GError **error, const char *what) {
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "systrap platform: %s: %s", what, g_strerror(errno));
  return FALSE;
}

static char *map_file(int *fd, const char *name, gsize size, int seals, GError **error) {
  *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  void *at = MAP_FAILED;
  if (*fd >= 0 && ftruncate(*fd, (off_t)size) == 0)
    at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *fd, 0);
  if (at != MAP_FAILED && fcntl(*fd, F_ADD_SEALS, seals | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    return at;
  fail(error, "cannot make the file of shared pages");
  if (at != MAP_FAILED)
    munmap(at, size);
  return NULL;
}

/* The second can never be mapped writable by anybody but this mapping. */
static gboolean make_files(StPlatform *p, GError **error) {
  p->rw = map_file(&p->rw_fd, "tessera-slots", RW_SIZE, 0, error);
  if (p->rw)
    p->ro = map_file(&p->ro_fd, "tessera-orders", RO_SIZE, F_SEAL_FUTURE_WRITE, error);
  return p->ro != NULL;
}

static gboolean write_filters(StPlatform *p) {
  guint guest = st_filter_guest(p->ro + SHARED_GUEST_CODE, SHARED_PROCESS - SHARED_GUEST_CODE);
  guint process = st_filter_process(p->ro + SHARED_PROCESS_CODE, ST_PAGE - SHARED_PROCESS_CODE);
  const struct sock_fprog progs[] = {{(guint16)guest, (void *)(ST_SHARED + SHARED_GUEST_CODE)},
                                     {(guint16)process, (void *)(ST_SHARED + SHARED_PROCESS_CODE)}};
  memcpy(p->ro, &progs[0], sizeof progs[0]);
  memcpy(p->ro + SHARED_PROCESS, &progs[1], sizeof progs[1]);
  return guest && process;
}

static void order5(StMapper *m, guint nr, gulong a, gulong b, gulong c, gulong d, gulong e) {
  const gulong args[6] = {a, b, c, d, e};
  st_order(m, nr, 0, args);
}

/* What exec mapped: everywhere but the image and the order page. */
static void order_unmap(StMapper *m) {
  order5(m, SYS_munmap, 0, ST_BASE, 0, 0, 0);
  order5(m, SYS_munmap, ST_BASE + ST_CODE_MAX, ST_ORDERS - ST_BASE - ST_CODE_MAX, 0, 0, 0);
  order5(m, SYS_munmap, ST_ORDERS + ST_PAGE, ST_USER_END - ST_ORDERS - ST_PAGE, 0, 0, 0);
}

static void write_first_orders(StMapper *m, gboolean main_thread) {
  const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, ST_KICK_SIGNAL};
  const struct __user_cap_header_struct cap = {_LINUX_CAPABILITY_VERSION_3, 0};
  /* struct sigaction as the system call takes it. No signal blocks another: the mask never changes. */
  const gulong action[4] = {ST_AT(tes_st_handler), SA_SIGINFO | SA_ONSTACK | SA_NODEFER | 0x04000000,
                            ST_AT(tes_st_restorer), 0};
  char *data = (char *)&m->orders->list[DATA_ORDER];
  gulong data_at = ST_ORDERS + G_STRUCT_OFFSET(StOrders, list[DATA_ORDER]), shared = MAP_SHARED | MAP_FIXED;
  const gulong cpuid[6] = {ST_CPUID, ST_CPUID_SIZE, PROT_READ, shared, ST_FD_RO, RO_CPUID};
  const gulong zygote[6] = {SIGCHLD};
  memcpy(data, action, sizeof action);
  memcpy(data + 64, &cap, sizeof cap); /* followed by empty sets */
  /* PDEATHSIG fires when the *thread* ends that called open(): only useful for the main thread, which stays. */
  if (main_thread)
    order5(m, SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  order5(m, SYS_capset, data_at + 64, data_at + 64 + sizeof cap, 0, 0, 0);
  order_unmap(m);
  order5(m, SYS_mmap, ST_SHARED, ST_PAGE, PROT_READ, shared, ST_FD_RO);
  st_order(m, SYS_mmap, 0, cpuid);
  order5(m, SYS_mmap, ST_SCRATCH, ST_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
         (gulong)-1);
  for (guint i = 0; i < G_N_ELEMENTS(signals); i++)
    order5(m, SYS_rt_sigaction, (gulong)signals[i], data_at, 0, 8, 0);
  st_order(m, SYS_membarrier, ST_F_MAYFAIL, (const gulong[6]){MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED});
  /* SPEC_ALLOW: old kernels slow a filtered process down, in the belief that it is a browser. */
  order5(m, SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, ST_SHARED + SHARED_PROCESS,
         0, 0);
  st_order(m, SYS_clone, ST_F_ZYGOTE, zygote);
}

gboolean st_zygote_start(StPlatform *p, GError **error) {
  gsize n = (gsize)(__stop_tessera_stub - __start_tessera_stub);
  Birth b = {.nfds = ST_FD_LIFE + 1, .fds = {-1, -1, -1, -1}, .mask_signals = TRUE};
  guint failed = 0;
  g_assert(n <= ST_CODE_MAX);
  b.image = birth_image("systrap", __start_tessera_stub, n, ST_CODE_MAX, error);
  if (b.image < 0)
    return FALSE;
  gboolean ok = make_files(p, error);
  if (ok && !(ok = write_filters(p))) {
    errno = ENOSPC;
    fail(error, "the filters do not fit");
  }
  if (ok) {
    p->seed = st_mapper_new(p, &b.fds[ST_FD_SOCK]);
    ok = (p->seed && birth_socket_pair(&p->life, &b.fds[ST_FD_LIFE])) || fail(error, "cannot make sockets");
  }
  if (ok) {
    b.fds[ST_FD_RO] = p->ro_fd;
    b.fds[ST_FD_RW] = p->rw_fd;
    write_first_orders(p->seed, getpid() == gettid());
    p->zygote = birth_fork(&b);
    ok = p->zygote > 0 || fail(error, "cannot fork");
  }
  for (int i = ST_FD_SOCK; i <= ST_FD_LIFE; i += ST_FD_LIFE - ST_FD_SOCK)
    if (b.fds[i] >= 0)
      close(b.fds[i]);
  close(b.image);
  if (!ok)
    return FALSE;
  int r = st_batch(p->seed, &failed, NULL, 0);
  if (r < 0) {
    errno = -r;
    g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM,
                "systrap platform: the first stub process failed (step %u): %s; choose --platform=ptrace",
                failed, g_strerror(-r));
  }
  return r == 0;
}

void st_zygote_stop(StPlatform *p) {
  if (p->life >= 0)
    close(p->life);
  p->life = -1;
  if (p->zygote > 0)
    birth_reap(p->zygote);
  if (p->seed)
    st_mapper_free(p, p->seed);
  if (p->ro)
    munmap(p->ro, RO_SIZE);
  if (p->rw)
    munmap(p->rw, RW_SIZE);
  if (p->ro_fd >= 0)
    close(p->ro_fd);
  if (p->rw_fd >= 0)
    close(p->rw_fd);
}
