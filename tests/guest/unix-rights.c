/* SPDX-License-Identifier: Apache-2.0 */
/* unix-rights.c - ancillary data over unix(7) sockets: descriptors in flight, credentials, truncation, errors. */
#include "check.h"

#include <sys/socket.h>
#include <sys/uio.h>

static void pair(int type, int fds[2]) {
  if (socketpair(AF_UNIX, type, 0, fds) < 0) {
    if ((type & 15) != SOCK_STREAM &&
        (errno == ESOCKTNOSUPPORT || errno == EPROTONOSUPPORT || errno == EOPNOTSUPP))
      SKIP("socket type %d is not supported: %s", type & 15, strerror(errno));
    SYS(-1);
  }
}

static void send_fds(int s, const int *fds, int n, const char *text) {
  char ctl[CMSG_SPACE(sizeof(int) * 300)] = {0};
  struct iovec iov = {(void *)text, strlen(text)};
  struct msghdr m = {.msg_iov = &iov,
                     .msg_iovlen = 1,
                     .msg_control = ctl,
                     .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n)};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);

  *c = (struct cmsghdr){
      .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n)};
  memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
  SYS(sendmsg(s, &m, 0));
}

static int recv_fds(int s, int *fds, int max, int flags, int *ret_flags) {
  char ctl[CMSG_SPACE(sizeof(int) * 300)] = {0}, data[64];
  struct iovec iov = {data, sizeof data};
  struct msghdr m = {.msg_iov = &iov,
                     .msg_iovlen = 1,
                     .msg_control = ctl,
                     .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)max)};

  SYS(recvmsg(s, &m, flags));
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  if (ret_flags)
    *ret_flags = m.msg_flags;
  if (!c || c->cmsg_type != SCM_RIGHTS)
    return 0;
  int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  memcpy(fds, CMSG_DATA(c), sizeof(int) * (size_t)n);
  return n;
}

TEST(pass_descriptors) {
  int s[2], send[2] = {tmp_file("f", "0123456789"), (int)SYS(open("/dev/null", O_RDWR))}, got[4];
  char c;

  pair(SOCK_STREAM, s);
  SYS(lseek(send[0], 4, SEEK_SET));
  send_fds(s[0], send, 2, "x");
  CHECK_EQ(recv_fds(s[1], got, 4, MSG_CMSG_CLOEXEC, NULL), 2);
  CHECK_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
  CHECK_EQ(read(got[0], &c, 1), 1);
  CHECK_EQ(c, '4');
  CHECK_EQ(lseek(send[0], 0, SEEK_CUR), 5); /* one description */
}

TEST(pass_descriptors_between_processes) {
  int s[2];

  pair(SOCK_STREAM, s);
  pid_t pid = CHILD(int p[2]; SYS(pipe(p)); send_fds(s[1], p, 1, "r"); write_full(p[1], "from child", 10);
                    close(p[0]); close(p[1]));
  int got[2] = {-1};
  char buf[16] = "";
  CHECK_EQ(recv_fds(s[0], got, 2, 0, NULL), 1);
  WAIT_OK(pid);
  CHECK_EQ(read(got[0], buf, 16), 10);
  CHECK_EQ(read(got[0], buf, 16), 0);
}

TEST(descriptors_in_flight_keep_files_open) {
  int s[2], p[2], got[2];
  char c;

  pair(SOCK_STREAM, s);
  SYS(pipe2(p, O_NONBLOCK));
  send_fds(s[0], &p[1], 1, "x");
  close(p[1]);
  CHECK_ERRNO(read(p[0], &c, 1), EAGAIN); /* the write end lives in the queue */
  CHECK_EQ(recv_fds(s[1], got, 1, 0, NULL), 1);
  close(got[0]);
  CHECK_EQ(read(p[0], &c, 1), 0);
  SYS(pipe2(p, O_NONBLOCK));
  send_fds(s[0], &p[1], 1, "x");
  close(p[1]);
  close(s[1]); /* never received: released with the socket */
  close(s[0]);
  CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(control_truncation) {
  int s[2], send[3], got[3], flags = 0;

  pair(SOCK_STREAM, s);
  for (int i = 0; i < 3; i++)
    send[i] = (int)SYS(dup(0));
  int before = (int)SYS(dup(0));
  close(before);
  send_fds(s[0], send, 3, "x");
  CHECK_EQ(recv_fds(s[1], got, 1, 0, &flags), 2); /* CMSG_SPACE(1) has room for two: the rest is closed */
  CHECK_EQ(flags & MSG_CTRUNC, MSG_CTRUNC);
  send_fds(s[0], send, 1, "y");
  char c;
  CHECK_EQ(read(s[1], &c, 1), 1); /* a plain read drops them */
  close(got[0]);
  close(got[1]);
  CHECK_EQ(dup(0), before);
}

TEST(rights_errors) {
  int s[2], bad = 9999;
  char ctl[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec iov = {"x", 1};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);

  pair(SOCK_STREAM, s);
  *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
  memcpy(CMSG_DATA(c), &bad, sizeof bad);
  CHECK_ERRNO(sendmsg(s[0], &m, 0), EBADF);
  c->cmsg_len = CMSG_LEN(sizeof(int)) + 100; /* longer than the buffer */
  CHECK_ERRNO(sendmsg(s[0], &m, 0), EINVAL);
  c->cmsg_len = 3;
  CHECK_ERRNO(sendmsg(s[0], &m, 0), EINVAL);
  c->cmsg_len = CMSG_LEN(sizeof(int));
  c->cmsg_type = 77;
  CHECK_ERRNO(sendmsg(s[0], &m, 0), EINVAL);
  m.msg_control = (void *)8;
  CHECK_ERRNO(sendmsg(s[0], &m, 0), EFAULT);
  m.msg_controllen = 0;
  m.msg_iovlen = 2000;
  CHECK_ERRNO(sendmsg(s[0], &m, 0), EMSGSIZE);
}

TEST(socket_passed_over_itself) {
  /* A cycle of sockets in flight: the garbage must not hurt. */
  for (int i = 0; i < 20; i++) {
    int s[2];
    pair(SOCK_STREAM, s);
    send_fds(s[0], s, 2, "x");
    send_fds(s[1], s, 2, "x");
    close(s[0]);
    close(s[1]);
  }
}

/* Each pair is held by a message of the next one only: no step may look at all of them, nor the end recurse through them. */
TEST_LIMIT(long_chain_of_passed_sockets, 60) {
  int last[2], s[2];

  pair(SOCK_STREAM, last);
  for (int i = 0; i < 6000; i++) {
    pair(SOCK_STREAM, s);
    send_fds(s[0], last, 2, "x");
    close(last[0]);
    close(last[1]);
    memcpy(last, s, sizeof s);
  }
  close(last[0]);
  close(last[1]);
}

TEST(passed_credentials) {
  int s[2], on = 1;
  char ctl[CMSG_SPACE(sizeof(struct ucred))] = {0}, data[8];
  struct iovec iov = {data, sizeof data};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
  struct ucred cr;

  pair(SOCK_STREAM, s);
  SYS(setsockopt(s[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  pid_t pid = CHILD(write_full(s[1], "hi", 2));
  CHECK_EQ(recvmsg(s[0], &m, 0), 2);
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  REQUIRE(c != NULL);
  CHECK_EQ(c->cmsg_type, SCM_CREDENTIALS);
  memcpy(&cr, CMSG_DATA(c), sizeof cr);
  CHECK_EQ(cr.pid, pid);
  CHECK_EQ(cr.uid, getuid());
  WAIT_OK(pid);
}
