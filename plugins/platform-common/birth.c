/* SPDX-License-Identifier: Apache-2.0 */
#include "birth.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/memfd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <tessera/types.h>
#include <unistd.h>

#define FD_EXEC 100 /* in the zygote, closed by exec */
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

int birth_image(const char *platform, const void *code, gsize n, gsize size, GError **error) {
  int fd = memfd_create("tessera-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
  if (fd < 0 && errno == EINVAL)
    fd = memfd_create("tessera-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd >= 0 && write(fd, code, n) == (gssize)n && ftruncate(fd, (off_t)size) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    return fd;
  g_set_error(error, TES_ERROR, TES_ERROR_PLATFORM,
              "%s platform: cannot make the stub's image (vm.memfd_noexec must not be 2): %s", platform,
              g_strerror(errno));
  if (fd >= 0)
    close(fd);
  return -1;
}

/* Ignored and blocked signals survive exec: parked stubs are not to be disturbed; SIGCHLD, so that they leave no
 * zombies. */
static void set_signals(gboolean mask) {
  const int traps[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
  struct sigaction action = {.sa_handler = SIG_IGN};
  sigset_t set;
  for (int i = 1; i < NSIG; i++)
    sigaction(i, &action, NULL);
  action.sa_handler = SIG_DFL;
  for (guint i = 0; i < G_N_ELEMENTS(traps); i++)
    sigaction(traps[i], &action, NULL);
  if (mask)
    sigfillset(&set);
  else
    sigemptyset(&set);
  sigprocmask(SIG_SETMASK, &set, NULL);
}

/* In the new process, whose other threads did not come along: system calls only. */
static G_GNUC_NORETURN void be_born(const Birth *b) {
  const struct rlimit none = {0, 0};
  char *argv[] = {"tessera-stub", NULL}, *envp[] = {NULL};
  int fds[BIRTH_FDS_MAX];
  setsid();
  set_signals(b->mask_signals);
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  personality(ADDR_NO_RANDOMIZE); /* keeps the stack away from the image */
  for (int i = 0; i < b->nfds; i++)
    if ((fds[i] = fcntl(b->fds[i], F_DUPFD, FD_EXEC + 1)) < 0)
      _exit(1);
  int image = fcntl(b->image, F_DUPFD, FD_EXEC + 1);
  if (image < 0 || dup3(image, FD_EXEC, O_CLOEXEC) < 0)
    _exit(1);
  for (int i = 0; i < b->nfds; i++)
    if (dup2(fds[i], i) < 0)
      _exit(1);
  if (chdir("/") < 0 || syscall(SYS_close_range, b->nfds, FD_EXEC - 1, 0) < 0 ||
      syscall(SYS_close_range, FD_EXEC + 1, ~0U, 0) < 0)
    _exit(1);
  syscall(SYS_execveat, FD_EXEC, "", argv, envp, AT_EMPTY_PATH);
  _exit(1);
}

/* Without CLONE_VM a raw clone is a fork. No exit signal: our SIGCHLD handler is not theirs to bother. */
pid_t birth_fork(const Birth *b) {
  const gulong tries[] = {CLONE_NEWPID, CLONE_NEWPID | CLONE_NEWUSER, 0};
  pid_t pid = -1;
  for (guint i = 0; i < G_N_ELEMENTS(tries) && pid < 0; i++) {
    pid = (pid_t)syscall(SYS_clone, tries[i], 0, 0, 0, 0);
    if (pid == 0)
      be_born(b);
  }
  return pid;
}

gboolean birth_socket_pair(int *ours, int *theirs) {
  int s[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) < 0)
    return FALSE;
  *ours = s[0];
  *theirs = s[1];
  return TRUE;
}

int birth_send_fd(int sock, int fd) {
  char byte = 0;
  union {
    struct cmsghdr h;
    char space[CMSG_SPACE(sizeof(int))];
  } control = {.h = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
  struct iovec iov = {&byte, 1};
  struct msghdr m = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  memcpy(CMSG_DATA(&control.h), &fd, sizeof fd);
  return sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

void birth_reap(pid_t zygote) {
  for (int i = 0; i < 2000; i++) {
    pid_t r = waitpid(zygote, NULL, __WALL | WNOHANG);
    if (r == zygote || (r < 0 && errno == ECHILD))
      return;
    if (i == 500)
      kill(zygote, SIGKILL);
    g_usleep(i < 100 ? 100 : 1000);
  }
}
