/* SPDX-License-Identifier: Apache-2.0 */
/* The zygote: the process that every stub descends from.
 *
 * pt_zygote_start() forks it before any guest memory exists: its own session and, where allowed, PID namespace;
 * no descriptors but the protocol's; then the stub's image, executed from a memfd. The first orders
 * unmap all else, drop capabilities and install the filter. pt_stub_new() asks it for a new, empty, parked
 * process. It ends, and with it the namespace, when our end of its socket is closed, however that happens. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../platform-common/birth.h"
#include "private.h"

#define ANSWER_LIMIT_MS 10000
static gboolean fail(GError **error, const char *what) {
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM, "ptrace platform: %s: %s", what, g_strerror(errno));
  return FALSE;
}

/* A file of order pages that only this process can write: sealed after it is mapped here. */
static gboolean make_orders(PtPlatform *p, GError **error) {
  gsize size = (gsize)PT_SLOTS * STUB_PAGE;
  p->orders_fd = memfd_create("tessera-orders", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (p->orders_fd < 0 || ftruncate(p->orders_fd, (off_t)size) < 0)
    return fail(error, "cannot make the order file");
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, p->orders_fd, 0);
  if (at == MAP_FAILED)
    return fail(error, "cannot map the order file");
  p->orders = at;
  if (fcntl(p->orders_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
    return fail(error, "cannot seal the order file");
  return TRUE;
}

static void init_order(StubOrder **o, guint nr, guint flags, gulong a, gulong b, gulong c, gulong d,
                       gulong e) {
  **o = (StubOrder){nr, flags, {a, b, c, d, e, 0}, 0};
  (*o)++;
}

/* The zygote's first orders, and the data they point to, in its order page. */
static gboolean write_init_orders(PtPlatform *p, gboolean main_thread) {
  StubOrder *o = (StubOrder *)p->orders;
  char *data = p->orders + 16 * STUB_ORDER_SIZE;
  gulong data_at = STUB_ORDERS + 16 * STUB_ORDER_SIZE;
  const struct __user_cap_header_struct cap = {_LINUX_CAPABILITY_VERSION_3, 0};
  memcpy(data, &cap, sizeof cap); /* followed by empty sets */
  guint n = pt_filter(data + 64, STUB_PAGE - 16 * STUB_ORDER_SIZE - 64);
  struct sock_fprog prog = {(guint16)n, (void *)(data_at + 64)};
  if (n == 0)
    return FALSE;
  memcpy(data + 48, &prog, sizeof prog);
  /* PDEATHSIG fires when the *thread* ends that called open(): only useful for the main thread, which stays. */
  if (main_thread)
    init_order(&o, SYS_prctl, 0, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  init_order(&o, SYS_capset, 0, data_at, data_at + sizeof cap, 0, 0, 0);
  init_order(&o, SYS_mmap, 0, STUB_SCRATCH, STUB_PAGE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, (gulong)-1);
  init_order(&o, SYS_munmap, 0, 0, STUB_BASE, 0, 0, 0);
  init_order(&o, SYS_munmap, 0, STUB_END, STUB_USER_END - STUB_END, 0, 0, 0);
  /* SPEC_ALLOW: old kernels slow a filtered process down, in the belief that it is a browser. */
  init_order(&o, SYS_seccomp, 0, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, data_at + 48, 0, 0);
  init_order(&o, STUB_NR_END, STUB_F_ZYGOTE, 0, 0, 0, 0, 0);
  return TRUE;
}

static gboolean make_sockets(PtPlatform *p, Birth *b) {
  const int one = 1;
  if (!birth_socket_pair(&p->ctl, &b->fds[STUB_FD_CTL]) ||
      !birth_socket_pair(&p->life, &b->fds[STUB_FD_LIFE]))
    return FALSE;
  for (int i = 0; i < STUB_POOL; i++)
    if (!birth_socket_pair(&p->tx[i], &p->rx[i]))
      return FALSE;
    else
      b->fds[STUB_FD_POOL + i] = p->rx[i];
  b->fds[STUB_FD_ORDERS] = p->orders_fd;
  return setsockopt(p->ctl, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0;
}

gboolean pt_zygote_start(PtPlatform *p, GError **error) {
  Birth b = {.nfds = STUB_FD_IN};
  gboolean ok = FALSE;
  b.fds[STUB_FD_CTL] = b.fds[STUB_FD_LIFE] = -1;
  b.image = birth_image("ptrace", tes_ptrace_stub, STUB_PAGE, STUB_PAGE, error);
  if (b.image < 0)
    return FALSE;
  if (!make_orders(p, error))
    goto out;
  if (!make_sockets(p, &b)) {
    fail(error, "cannot make sockets");
    goto out;
  }
  if (!write_init_orders(p, getpid() == gettid())) {
    errno = ENOSPC;
    fail(error, "the filter does not fit");
    goto out;
  }
  p->next_slot = 1;
  p->zygote_cpu = -1;
  p->zygote = birth_fork(&b);
  ok = p->zygote > 0 || fail(error, "cannot fork");
out:
  close(b.image);
  for (int i = STUB_FD_CTL; i <= STUB_FD_LIFE; i++)
    if (b.fds[i] >= 0)
      close(b.fds[i]);
  return ok;
}

static void close_fd(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

void pt_zygote_stop(PtPlatform *p) {
  close_fd(&p->ctl);
  close_fd(&p->life);
  for (int i = 0; i < STUB_POOL; i++) {
    close_fd(&p->tx[i]);
    close_fd(&p->rx[i]);
  }
  close_fd(&p->orders_fd);
  if (p->orders)
    munmap(p->orders, (gsize)PT_SLOTS * STUB_PAGE);
  p->orders = NULL;
  if (p->zygote <= 0)
    return;
  birth_reap(p->zygote); /* the end of its sockets ends it; a namespace waits for its last process */
}

int pt_slot_new(PtPlatform *p, guint *out) {
  int r = 0;
  g_mutex_lock(&p->lock);
  if (p->free_slots->len) {
    *out = g_array_index(p->free_slots, guint, p->free_slots->len - 1);
    g_array_set_size(p->free_slots, p->free_slots->len - 1);
  } else if (p->next_slot < PT_SLOTS)
    *out = p->next_slot++;
  else
    r = -EAGAIN;
  g_mutex_unlock(&p->lock);
  return r;
}

void pt_slot_free(PtPlatform *p, guint slot) {
  g_mutex_lock(&p->lock);
  g_array_append_val(p->free_slots, slot);
  g_mutex_unlock(&p->lock);
}

/* Under the lock. One message of the zygote or a child of it: *value and the sender's pid, translated to our namespace. */
static int receive(PtPlatform *p, gint64 *value, pid_t *pid) {
  union {
    struct cmsghdr h;
    char space[CMSG_SPACE(sizeof(struct ucred))];
  } control;
  struct iovec iov = {value, sizeof *value};
  struct msghdr m = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  struct pollfd fd = {p->ctl, POLLIN, 0};
  struct ucred cred;
  int r;
  while ((r = poll(&fd, 1, ANSWER_LIMIT_MS)) < 0 && errno == EINTR)
    ;
  if (r == 0)
    return -ETIMEDOUT;
  if (recvmsg(p->ctl, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof *value)
    return -EIO;
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
    return -EIO;
  memcpy(&cred, CMSG_DATA(c), sizeof cred);
  *pid = cred.pid;
  return 0;
}

/* Under the lock. An answer from another CPU takes ten times longer (../platform-common/pair.h). */
static void move_zygote_here(PtPlatform *p) {
  int cpu = sched_getcpu();
  cpu_set_t set;
  if (p->pairs.ncpus < 2 || cpu == p->zygote_cpu || cpu < 0 || cpu >= CPU_SETSIZE)
    return;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(p->zygote, sizeof set, &set) == 0)
    p->zygote_cpu = cpu;
}

/* A new stub with this order page: its pid, or -errno. After -ETIMEDOUT the answer may still come, and the slot is taken. */
static pid_t ask(PtPlatform *p, guint slot) {
  gint64 offset = (gint64)slot * STUB_PAGE, value = 0;
  pid_t pid = 0;
  int r = 0;
  g_mutex_lock(&p->lock);
  move_zygote_here(p);
  if (send(p->ctl, &offset, sizeof offset, MSG_NOSIGNAL) != sizeof offset)
    r = -errno;
  while (r == 0) {
    r = receive(p, &value, &pid);
    if (r == 0 && value < 0)
      r = (int)value;
    else if (r == 0 && value == offset)
      r = pid > 0 ? pid : -EIO;
    else if (r == 0 && pid > 0) { /* somebody gave up on that one */
      guint late = (guint)(value / STUB_PAGE);
      kill(pid, SIGKILL);
      g_array_append_val(p->free_slots, late);
    }
  }
  g_mutex_unlock(&p->lock);
  return r;
}

gboolean pt_stub_spare(PtPlatform *p, PtStub *out) {
  gboolean spare = FALSE;
  g_mutex_lock(&p->lock);
  while (p->nspares && !spare) {
    *out = p->spares[p->nspares - 1];
    g_atomic_int_add(&p->nspares, -1);
    spare = kill(out->pid, 0) == 0; /* the host may have killed it */
    if (!spare)
      g_array_append_val(p->free_slots, out->slot);
  }
  g_mutex_unlock(&p->lock);
  return spare;
}

gboolean pt_stub_new(PtPlatform *p, PtStub *out, GError **error) {
  if (pt_stub_spare(p, out))
    return TRUE;
  int r = pt_slot_new(p, &out->slot);
  if (r == 0) {
    r = ask(p, out->slot);
    if (r < 0 && r != -ETIMEDOUT)
      pt_slot_free(p, out->slot);
  }
  out->pid = r;
  if (r > 0)
    return TRUE;
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM,
              r == -EAGAIN ? "ptrace platform: too many processes: %s"
                           : "ptrace platform: no new stub process (did its zygote die?): %s",
              g_strerror(-r));
  return FALSE;
}

void pt_stub_recycle(PtPlatform *p, const PtStub *stub) {
  g_mutex_lock(&p->lock);
  gboolean keep = p->nspares < PT_SPARES;
  if (keep) {
    p->spares[p->nspares] = *stub;
    g_atomic_int_inc(&p->nspares);
  }
  g_mutex_unlock(&p->lock);
  if (!keep)
    pt_stub_kill(p, stub);
}

/* For stubs without tracer. The zygote ignores SIGCHLD, which reaps them. */
void pt_stub_kill(PtPlatform *p, const PtStub *stub) {
  kill(stub->pid, SIGKILL);
  pt_slot_free(p, stub->slot);
}

int pt_pool_get(PtPlatform *p) {
  for (int i = 0; i < STUB_POOL; i++)
    if (g_atomic_int_compare_and_exchange(&p->pool_busy[i], 0, 1))
      return i;
  /* All in use: take turns on the lock, which the holder of the first socket does not need. */
  g_mutex_lock(&p->pool_lock);
  while (!g_atomic_int_compare_and_exchange(&p->pool_busy[0], 0, 1))
    sched_yield();
  g_mutex_unlock(&p->pool_lock);
  return 0;
}

void pt_pool_put(PtPlatform *p, int i) { g_atomic_int_set(&p->pool_busy[i], 0); }

/* Takes back descriptors that a stub did not fetch, before the next stub could. */
void pt_drain_socket(int sock) {
  union {
    struct cmsghdr h;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  char byte;
  for (;;) {
    struct iovec iov = {&byte, 1};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
      return;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
      int fd;
      memcpy(&fd, CMSG_DATA(c), sizeof fd);
      close(fd);
    }
  }
}
