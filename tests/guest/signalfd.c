/* SPDX-License-Identifier: Apache-2.0 */
/* signalfd.c - signalfd(2): reading, polling and waiting for signals as a file; what each siginfo member holds. */
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/time.h>

static int make(int sig, int flags) {
  sigset_t set = sigset_of(sig, 0);
  block_signal(sig);
  return (int)SYS(signalfd(-1, &set, flags));
}

TEST(arguments) {
  sigset_t set = sigset_of(SIGUSR1, 0);
  char small[64];
  int fd = make(SIGUSR1, SFD_CLOEXEC | SFD_NONBLOCK);

  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_NONBLOCK | O_RDWR);
  CHECK_ERRNO(signalfd(-1, &set, 1), EINVAL);
  CHECK_ERRNO(signalfd(99, &set, 0), EBADF);
  CHECK_ERRNO(signalfd(0, &set, 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_signalfd4, -1, &set, 4, 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_signalfd4, -1, (void *)8, 8, 0), EFAULT);
  CHECK_ERRNO(read(fd, small, sizeof small), EINVAL); /* no room for one */
  CHECK_ERRNO(write(fd, small, sizeof small), EINVAL);
}

TEST(read_one) {
  int fd = make(SIGUSR1, SFD_NONBLOCK);
  struct signalfd_siginfo s;

  CHECK_ERRNO(read(fd, &s, sizeof s), EAGAIN);
  SYS(kill(getpid(), SIGUSR1));
  CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
  CHECK_EQ(s.ssi_signo, SIGUSR1);
  CHECK_EQ(s.ssi_code, SI_USER);
  CHECK_EQ(s.ssi_pid, getpid());
  CHECK_EQ(s.ssi_uid, getuid());
  CHECK_ERRNO(read(fd, &s, sizeof s), EAGAIN);
}

TEST(what_they_hold) {
  int rt = SIGRTMIN + 1, fd = make(rt, SFD_NONBLOCK), chld = make(SIGCHLD, 0);
  struct signalfd_siginfo s;
  struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = rt, .sigev_value.sival_int = 77};
  struct itimerspec its = {.it_value.tv_nsec = 1000000};
  timer_t timer;

  SYS(sigqueue(getpid(), rt, (union sigval){.sival_ptr = (void *)0x123456789abcUL}));
  CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
  CHECK_EQ(s.ssi_code, SI_QUEUE);
  CHECK_EQ(s.ssi_ptr, 0x123456789abcUL);
  CHECK_EQ(s.ssi_int, 0x56789abc);
  SYS(timer_create(CLOCK_MONOTONIC, &ev, &timer));
  SYS(timer_settime(timer, 0, &its, NULL));
  struct pollfd p = {.fd = fd, .events = POLLIN};
  CHECK_EQ(poll(&p, 1, 5000), 1);
  CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
  CHECK_EQ(s.ssi_code, SI_TIMER);
  CHECK_EQ(s.ssi_int, 77);
  CHECK_EQ(s.ssi_overrun, 0);
  pid_t pid = CHILD(_exit(5));
  CHECK_EQ(read(chld, &s, sizeof s), sizeof s);
  CHECK_EQ(s.ssi_signo, SIGCHLD);
  CHECK_EQ(s.ssi_code, CLD_EXITED);
  CHECK_EQ(s.ssi_pid, pid);
  CHECK_EQ(s.ssi_status, 5);
  check_wait(pid);
}

TEST(several_in_one_read) {
  sigset_t set = sigset_of(SIGUSR1, SIGUSR2, SIGRTMIN + 2, 0);
  struct signalfd_siginfo s[5];

  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
  int fd = (int)SYS(signalfd(-1, &set, SFD_NONBLOCK));
  SYS(kill(getpid(), SIGUSR2));
  SYS(kill(getpid(), SIGUSR1));
  SYS(kill(getpid(), SIGUSR1)); /* pending once */
  SYS(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){1}));
  SYS(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){2}));
  CHECK_EQ(read(fd, s, sizeof s - 1), 4 * sizeof *s);
  CHECK_EQ(s[0].ssi_signo, SIGUSR1); /* lowest number first */
  CHECK_EQ(s[1].ssi_signo, SIGUSR2);
  CHECK_EQ(s[2].ssi_int, 1);
  CHECK_EQ(s[3].ssi_int, 2);
}

TEST(mask_changes) {
  int fd = make(SIGUSR1, SFD_NONBLOCK);
  sigset_t other = sigset_of(SIGUSR2, SIGKILL, SIGSTOP, 0);
  struct signalfd_siginfo s;
  struct pollfd p = {.fd = fd, .events = POLLIN};

  block_signal(SIGUSR2);
  SYS(kill(getpid(), SIGUSR2));
  CHECK_EQ(poll(&p, 1, 0), 0);
  CHECK_EQ(signalfd(fd, &other, 0), fd);
  CHECK_EQ(poll(&p, 1, 0), 1);
  CHECK_EQ(p.revents, POLLIN);
  CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
  CHECK_EQ(s.ssi_signo, SIGUSR2);
  char *info = read_file("/proc/self/fdinfo/3", NULL);
  CHECK(info && strstr(info, "sigmask:\t0000000000000800")); /* KILL and STOP left out */
}

static void *send_later(void *pid) {
  sleep_ms(30);
  kill(*(pid_t *)pid, SIGUSR1);
  return NULL;
}

TEST(blocking_read_and_polls) {
  int fd = make(SIGUSR1, 0), ep = (int)SYS(epoll_create1(0));
  struct signalfd_siginfo s;
  struct epoll_event ev = {.events = EPOLLIN};
  struct pollfd p = {.fd = fd, .events = POLLIN};
  pid_t me = getpid();
  pthread_t t;

  SYS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
  for (int i = 0; i < 3; i++) {
    REQUIRE(pthread_create(&t, NULL, send_later, &me) == 0);
    if (i == 1)
      CHECK_EQ(poll(&p, 1, 5000), 1);
    if (i == 2)
      CHECK_EQ(epoll_wait(ep, &ev, 1, 5000), 1);
    CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
    pthread_join(t, NULL);
  }
  CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
}

/* A reader sees its own signals, whoever made the file. */
TEST(of_whom) {
  int fd = make(SIGUSR1, SFD_NONBLOCK);
  struct signalfd_siginfo s;

  SYS(kill(getpid(), SIGUSR1));
  WAIT_OK(CHILD({
    CHECK_ERRNO(read(fd, &s, sizeof s), EAGAIN);
    SYS(kill(getpid(), SIGUSR1));
    CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
    CHECK_EQ(s.ssi_pid, getpid());
  }));
  CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
  CHECK_EQ(s.ssi_pid, getpid());
}

static void *own_signal(void *fd) {
  struct signalfd_siginfo s;
  bool mine;
  pthread_kill(pthread_self(), SIGUSR1);
  mine = read(*(int *)fd, &s, sizeof s) == sizeof s && s.ssi_code == SI_TKILL;
  return mine ? fd : NULL;
}

TEST(signals_of_threads) {
  int fd = make(SIGUSR1, SFD_NONBLOCK);
  struct signalfd_siginfo s;
  pthread_t t;
  void *r;

  pthread_kill(pthread_self(), SIGUSR1);
  REQUIRE(pthread_create(&t, NULL, own_signal, &fd) == 0);
  pthread_join(t, &r);
  CHECK(r != NULL);
  CHECK_EQ(read(fd, &s, sizeof s), sizeof s);
  CHECK_ERRNO(read(fd, &s, sizeof s), EAGAIN);
}

static void handler(int sig) { (void)sig; }

TEST(interrupted) {
  int fd = make(SIGUSR1, 0);
  struct signalfd_siginfo s;
  struct itimerval it = {.it_value.tv_usec = 20000};

  on_signal(SIGALRM, handler, 0);
  SYS(setitimer(ITIMER_REAL, &it, NULL));
  CHECK_ERRNO(read(fd, &s, sizeof s), EINTR);
}

TEST(bad_buffer) {
  int fd = make(SIGUSR1, SFD_NONBLOCK);
  char *p = map_anon(PAGE, PROT_READ);

  SYS(kill(getpid(), SIGUSR1));
  CHECK_ERRNO(read(fd, p, PAGE), EFAULT);
}
