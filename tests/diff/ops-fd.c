/* SPDX-License-Identifier: Apache-2.0 */
/* ops-fd.c - random operations on descriptors, locks and the process: dup, fcntl, flock, ids, umask, passing. */
#include "diff.h"

#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static void op_dup(void) {
  int fd = any_fd(), to = 30 + (int)below(8), how = (int)below(5);
  say("dup%d(%d,%d)", how, fd, to);
  if (how >= 3)
    forget(to);
  keep(done(how == 0   ? dup(fd)
            : how == 1 ? fcntl(fd, F_DUPFD, to)
            : how == 2 ? fcntl(fd, F_DUPFD_CLOEXEC, to)
            : how == 3 ? dup2(fd, to)
                       : dup3(fd, to, chance(80) ? O_CLOEXEC : 1)));
}

static void op_close_range(void) {
  unsigned from = 3 + below(40), to = from + below(3), flags = chance(30) ? CLOSE_RANGE_CLOEXEC : 0;
  if (chance(5))
    to = from - 1;
  say("close_range(%u,%u,%#x)", from, to, flags);
  long r = done(syscall(SYS_close_range, from, to, flags));
  for (unsigned fd = from; r == 0 && !flags && fd <= to; fd++)
    forget((int)fd);
}

static void op_flags(void) {
  int fd = any_fd(), how = (int)below(6),
      v = (chance(50) ? O_APPEND : 0) | O_NONBLOCK | (chance(20) && !opt_user_attributes ? O_NOATIME : 0);
  static const int commands[] = {F_GETFL, F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_GETFD};
  int cmd = commands[how];
  if (cmd == F_SETFD)
    v = (int)below(2);
  say("fcntl(%d,%d,%#o)", fd, cmd, v);
  done(fcntl(fd, cmd, v));
}

static int actor_of(pid_t pid) {
  for (int i = 0; i < ACTORS; i++)
    if (shared->pid[i] == pid)
      return i;
  return -1;
}

static void op_lock(void) {
  static const int commands[] = {F_SETLK, F_SETLK, F_SETLK, F_GETLK, F_OFD_SETLK, F_OFD_SETLK, F_OFD_GETLK};
  static const short types[] = {F_RDLCK, F_WRLCK, F_WRLCK, F_UNLCK};
  int fd = file_fd(), cmd = PICK(commands);
  struct flock l = {.l_type = PICK(types), .l_whence = (short)(chance(70) ? SEEK_SET : below(4))};
  l.l_start = chance(90) ? below(50) : offset();
  l.l_len = chance(20) ? 0 : chance(90) ? below(30) : -(long)below(30);
  if (chance(2))
    l.l_pid = 1;
  if (cmd == F_OFD_GETLK && l.l_type == F_UNLCK) /* has a meaning only in newer kernels */
    l.l_type = F_RDLCK;
  say("lock(%d,%d,%d,%d,%ld,%ld,%d)", fd, cmd, l.l_type, l.l_whence, (long)l.l_start, (long)l.l_len, l.l_pid);
  long r = done(fcntl(fd, cmd, &l));
  if (r == 0 && (cmd == F_GETLK || cmd == F_OFD_GETLK)) {
    say(" %d", l.l_type);
    if (l.l_type != F_UNLCK)
      say(",%d,%ld,%ld,%d", l.l_whence, (long)l.l_start, (long)l.l_len,
          l.l_pid == -1 ? -1 : actor_of(l.l_pid) + 100);
  }
}

static void op_flock(void) {
  static const int ops[] = {LOCK_SH, LOCK_EX, LOCK_EX, LOCK_UN, 0};
  int fd = any_fd(), op = PICK(ops) | LOCK_NB;
  say("flock(%d,%d)", fd, op);
  done(flock(fd, op));
}

static void op_umask(void) {
  static const mode_t masks[] = {022, 022, 0, 077, 027};
  mode_t mask = PICK(masks);
  say("umask(%#o)", mask);
  done((long)umask(mask));
}

/* The raw calls: in a process of several threads, glibc's would change all of them. */
static void op_ids(void) {
  static const unsigned ids[] = {0, 0, 0, 0, 0, 1000, 1000, 1001};
  unsigned uid = PICK(ids), gid = PICK(ids);
  gid_t groups[1] = {1000};
  say("ids(%u,%u)", uid, gid);
  syscall(SYS_setresuid, -1, 0, -1);
  syscall(SYS_setgroups, chance(50) ? 1 : 0, groups);
  syscall(SYS_setresgid, -1, gid, -1);
  done(syscall(SYS_setresuid, -1, uid, -1));
}

/* Sends a descriptor to the next actor. Few are under way at a time, as how many fit is the kernel's own affair. */
static void op_pass(void) {
  unsigned to = (me->index + 1) % ACTORS;
  int fd = any_fd();
  char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
  struct iovec v = {&byte, 1};
  struct msghdr m = {
      .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  say("pass(%d)", fd);
  if (opt_threads || shared->waiting[to] >= 4) {
    say(" full");
    return;
  }
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  if (done(sendmsg(me->mail[1], &m, MSG_DONTWAIT)) == 1)
    shared->waiting[to]++;
}

static void op_take(void) {
  char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
  struct iovec v = {&byte, 1};
  struct msghdr m = {
      .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  int fd = -1;
  say("take()");
  if (opt_threads || done(recvmsg(me->mail[0], &m, MSG_DONTWAIT)) != 1)
    return;
  shared->waiting[me->index]--;
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  if (c && c->cmsg_type == SCM_RIGHTS)
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
  say(" fd %d", fd);
  keep(fd);
}

static void op_fionread(void) {
  int fd = file_fd(), n = -1;
  say("FIONREAD(%d)", fd);
  if (done(ioctl(fd, FIONREAD, &n)) == 0)
    say(" %d", n);
}

static void op_poll(void) {
  struct pollfd p = {.fd = any_fd(), .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
  say("poll(%d)", p.fd);
  done(poll(&p, 1, 0));
  say(" %#x", (unsigned)p.revents);
}

static void op_close_all(void) {
  say("close_all()");
  if (!chance(20)) { /* rarely */
    say(" not now");
    return;
  }
  for (int i = 0; i < SLOTS; i++) {
    if (me->fd[i] >= 0)
      say(" %d", close(me->fd[i]));
    me->fd[i] = -1;
  }
}

const Op fd_ops[] = {{"dup", op_dup, 12},
                     {"close_range", op_close_range, 2},
                     {"flags", op_flags, 14},
                     {"lock", op_lock, 25},
                     {"flock", op_flock, 10},
                     {"umask", op_umask, 5},
                     {"ids", op_ids, 20},
                     {"pass", op_pass, 6},
                     {"take", op_take, 7},
                     {"poll", op_poll, 6},
                     {"fionread", op_fionread, 4},
                     {"close_all", op_close_all, 3},
                     {NULL, NULL, 0}};
