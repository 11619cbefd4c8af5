/* SPDX-License-Identifier: Apache-2.0 */
/* seccomp_unotify(2): a thread's calls are answered by another thread, which shares its descriptors. */
#include "seccomp.h"
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>

#define ALLOW RET(SECCOMP_RET_ALLOW)
#define NOTIFY \
  INSTALL_FLAGS(SECCOMP_FILTER_FLAG_NEW_LISTENER, ON_CALL(SYS_mkdir, SECCOMP_RET_USER_NOTIF), ALLOW)

static pthread_barrier_t ready;
static volatile int listener;
static volatile long result, result_errno, target_tid;

static void ask(void) {
  errno = 0;
  result = syscall(SYS_mkdir, "/nonexistent/x", 0x123);
  result_errno = errno;
}

static void *target(void *arg) {
  target_tid = syscall(SYS_gettid);
  listener = (int)NOTIFY;
  pthread_barrier_wait(&ready);
  if (listener >= 0)
    for (long i = 0; i < (long)arg; i++)
      ask();
  return NULL;
}

static pthread_t begin(long calls) {
  pthread_t th;
  no_new_privs();
  pthread_barrier_init(&ready, NULL, 2);
  REQUIRE(pthread_create(&th, NULL, target, (void *)calls) == 0);
  pthread_barrier_wait(&ready);
  SYS(listener);
  return th;
}

static struct seccomp_notif receive(void) {
  struct seccomp_notif n = {0};
  SYS(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n));
  return n;
}

static int reply(uint64_t id, int error, int64_t val, unsigned flags) {
  struct seccomp_notif_resp r = {.id = id, .error = error, .val = val, .flags = flags};
  return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

TEST(notif_sizes) {
  struct seccomp_notif_sizes s = {0};
  CHECK_EQ(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &s), 0);
  CHECK_EQ(s.seccomp_notif, sizeof(struct seccomp_notif));
  CHECK_EQ(s.seccomp_notif_resp, sizeof(struct seccomp_notif_resp));
  CHECK_EQ(s.seccomp_data, sizeof(struct seccomp_data));
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 1, &s), EINVAL);
  CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, NULL), EFAULT);
}

TEST(notify_value_and_error) {
  pthread_t th = begin(1);
  struct seccomp_notif n = receive();
  CHECK_EQ(n.pid, target_tid);
  CHECK_EQ(n.flags, 0);
  CHECK_EQ(n.data.nr, SYS_mkdir);
  CHECK_EQ(n.data.arch, AUDIT_ARCH_X86_64);
  CHECK_EQ(n.data.args[1], 0x123);
  CHECK_STR((const char *)n.data.args[0], "/nonexistent/x");
  CHECK_EQ(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id), 0);
  CHECK_EQ(reply(n.id, 0, 77, 0), 0);
  pthread_join(th, NULL);
  CHECK_EQ(result, 77);
  CHECK_ERRNO(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id), ENOENT);
  CHECK_ERRNO(reply(n.id, 0, 77, 0), ENOENT);
}

TEST(notify_error) {
  pthread_t th = begin(2);
  CHECK_EQ(reply(receive().id, -EXDEV, 5, 0), 0);
  CHECK_EQ(reply(receive().id, -512, 0, 0), 0);
  pthread_join(th, NULL);
  CHECK_EQ(result, -1);
  CHECK_EQ(result_errno, 512);
}

TEST(notify_continue) {
  pthread_t th = begin(1);
  struct seccomp_notif n = receive();
  CHECK_ERRNO(reply(n.id, -1, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE), EINVAL);
  CHECK_ERRNO(reply(n.id, 0, 1, SECCOMP_USER_NOTIF_FLAG_CONTINUE), EINVAL);
  CHECK_ERRNO(reply(n.id, 0, 0, 2), EINVAL);
  CHECK_EQ(reply(n.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE), 0);
  pthread_join(th, NULL);
  CHECK_EQ(result_errno, ENOENT);
}

TEST(notify_bad_arguments) {
  pthread_t th = begin(1);
  struct seccomp_notif n = {.pid = 1};
  CHECK_ERRNO(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n), EINVAL);
  CHECK_ERRNO(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, NULL), EFAULT);
  CHECK_ERRNO(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, NULL), EFAULT);
  CHECK_ERRNO(ioctl(listener, SECCOMP_IOW(99, uint64_t), &n), EINVAL);
  CHECK_ERRNO(reply(12345678, 0, 0, 0), ENOENT);
  CHECK_ERRNO(read(listener, &n, sizeof n), EINVAL);
  n = receive();
  CHECK_EQ(reply(n.id, 0, 3, 0), 0);
  pthread_join(th, NULL);
  CHECK_EQ(result, 3);
}

static void *many(void *arg) {
  listener = (int)NOTIFY;
  pthread_barrier_wait(&ready);
  for (long i = 0; i < 500; i++)
    if (syscall(SYS_mkdir, "", i) != i)
      result = i + 1;
  return NULL;
}

TEST(notify_many) {
  pthread_t th;
  no_new_privs();
  pthread_barrier_init(&ready, NULL, 2);
  REQUIRE(pthread_create(&th, NULL, many, NULL) == 0);
  pthread_barrier_wait(&ready);
  for (int i = 0; i < 500; i++) {
    struct seccomp_notif n = receive();
    if (reply(n.id, 0, (int64_t)n.data.args[1], 0))
      break;
  }
  pthread_join(th, NULL);
  CHECK_EQ(result, 0);
}

TEST(notify_poll) {
  pthread_t th = begin(0);
  struct pollfd p = {.fd = listener, .events = POLLIN | POLLOUT};
  pthread_join(th, NULL);
  CHECK_EQ(poll(&p, 1, 8000), 1);
  CHECK(p.revents & POLLHUP);
}

TEST(notify_poll_states) {
  pthread_t th = begin(1);
  struct pollfd p = {.fd = listener, .events = POLLIN | POLLOUT};
  CHECK_EQ(poll(&p, 1, 8000), 1);
  CHECK_EQ(p.revents, POLLIN);
  struct seccomp_notif n = receive();
  CHECK_EQ(poll(&p, 1, 0), 1);
  CHECK_EQ(p.revents, POLLOUT);
  CHECK_EQ(reply(n.id, 0, 0, 0), 0);
  pthread_join(th, NULL);
}

TEST(notify_listener_closed) {
  pthread_t th = begin(2);
  receive();
  SYS(close(listener));
  pthread_join(th, NULL);
  CHECK_EQ(result_errno, ENOSYS);
}

TEST(notify_one_listener) {
  no_new_privs();
  listener = (int)SYS(NOTIFY);
  CHECK_EQ(fcntl(listener, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(NOTIFY, EBUSY);
  CHECK_OK(INSTALL(ALLOW));
  CHECK_ERRNO(INSTALL_FLAGS(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, ALLOW), EINVAL);
}

/* ---- Descriptors for the target ---- */

static int add_fd(uint64_t id, int src, unsigned newfd, unsigned flags, unsigned newfd_flags) {
  struct seccomp_notif_addfd a = {
      .id = id, .srcfd = src, .newfd = newfd, .flags = flags, .newfd_flags = newfd_flags};
  return ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &a);
}

TEST(notify_addfd) {
  int p[2];
  SYS(pipe(p));
  pthread_t th = begin(2);
  struct seccomp_notif n = receive();
  CHECK_ERRNO(add_fd(n.id, 9999, 0, 0, 0), EBADF);
  CHECK_ERRNO(add_fd(n.id + 1000, p[0], 0, 0, 0), ENOENT);
  CHECK_ERRNO(add_fd(n.id, p[0], 5, 0, 0), EINVAL);
  CHECK_ERRNO(add_fd(n.id, p[0], 0, 8, 0), EINVAL);
  CHECK_ERRNO(add_fd(n.id, p[0], 0, 0, O_NONBLOCK), EINVAL);
  CHECK_EQ(add_fd(n.id, p[0], 200, SECCOMP_ADDFD_FLAG_SETFD, O_CLOEXEC), 200);
  CHECK_EQ(fcntl(200, F_GETFD), FD_CLOEXEC);
  int fd = add_fd(n.id, p[1], 0, 0, 0);
  CHECK(fd > 2 && fd != p[1]);
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  CHECK_EQ(reply(n.id, 0, 55, 0), 0);
  n = receive();
  int sent = add_fd(n.id, p[1], 0, SECCOMP_ADDFD_FLAG_SEND, 0);
  CHECK(sent > 2);
  pthread_join(th, NULL);
  CHECK_EQ(result, sent);
  char c = 0;
  CHECK_EQ(write(sent, "y", 1), 1);
  CHECK_EQ(read(200, &c, 1), 1);
  CHECK_EQ(c, 'y');
}

TEST(notify_addfd_send_fails) {
  struct rlimit {
    unsigned long cur, max;
  } low = {listener, 4096};
  pthread_t th = begin(1);
  struct seccomp_notif n = receive();
  low.cur = 3;
  SYS(syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, &low, NULL));
  CHECK_ERRNO(add_fd(n.id, 0, 0, SECCOMP_ADDFD_FLAG_SEND, 0), EMFILE);
  CHECK_EQ(reply(n.id, 0, 9, 0), 0);
  pthread_join(th, NULL);
  CHECK_EQ(result, 9);
}

/* ---- Signals ---- */

static void nothing(int sig) {}

TEST(notify_interrupted) {
  on_signal(SIGUSR1, nothing, 0);
  pthread_t th = begin(1);
  struct seccomp_notif n = receive();
  pthread_kill(th, SIGUSR1);
  pthread_join(th, NULL);
  CHECK_EQ(result_errno, EINTR);
  CHECK_ERRNO(reply(n.id, 0, 0, 0), ENOENT);
}

TEST(notify_restarted) {
  on_signal(SIGUSR1, nothing, SA_RESTART);
  pthread_t th = begin(1);
  struct seccomp_notif n = receive();
  pthread_kill(th, SIGUSR1);
  struct seccomp_notif again = receive();
  CHECK(again.id != n.id);
  CHECK_EQ(reply(again.id, 0, 66, 0), 0);
  pthread_join(th, NULL);
  CHECK_EQ(result, 66);
}

TEST(notify_target_killed) {
  no_new_privs();
  int *shared = map_shared(PAGE);
  int p[2];
  SYS(pipe(p));
  /* The filter is the parent's, too: the child only makes the call. */
  listener = (int)SYS(NOTIFY);
  pid_t pid = CHILD({
    shared[0] = 1;
    syscall(SYS_mkdir, "/nonexistent/x", 0);
    shared[1] = 1;
  });
  struct seccomp_notif n = receive();
  CHECK_EQ(n.pid, pid);
  SYS(kill(pid, SIGKILL));
  int s = check_wait(pid);
  CHECK(WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL);
  CHECK_ERRNO(reply(n.id, 0, 0, 0), ENOENT);
  CHECK_EQ(shared[1], 0);
}
