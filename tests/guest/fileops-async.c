/* SPDX-License-Identifier: Apache-2.0 */
/* fileops-async.c - signals that files send: F_SETOWN, F_SETSIG, O_ASYNC and FIOASYNC; leases. fcntl(2). */
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static volatile int got, got_code, got_fd, got_sig;
static volatile long got_band;
static void note(int sig, siginfo_t *si, void *uc) {
  got++;
  got_sig = sig;
  got_code = si->si_code;
  got_fd = si->si_fd;
  got_band = si->si_band;
}
static void reset(void) { got = got_code = got_sig = 0, got_fd = -1, got_band = 0; }

TEST(owner_values) {
  int p[2];
  struct f_owner_ex ex;
  SYS(pipe(p));
  CHECK_EQ(fcntl(p[0], F_GETOWN), 0);
  CHECK_OK(fcntl(p[0], F_SETOWN, getpid()));
  CHECK_EQ(fcntl(p[0], F_GETOWN), getpid());
  CHECK_EQ(fcntl(p[1], F_GETOWN), 0);
  CHECK_OK(fcntl(p[0], F_SETOWN, -getpgrp()));
  CHECK_OK(fcntl(p[0], F_GETOWN_EX, &ex));
  CHECK_EQ(ex.type, F_OWNER_PGRP);
  CHECK_EQ(ex.pid, getpgrp());
  ex = (struct f_owner_ex){F_OWNER_TID, (int)syscall(SYS_gettid)};
  CHECK_OK(fcntl(p[0], F_SETOWN_EX, &ex));
  CHECK_EQ(fcntl(p[0], F_GETOWN), ex.pid);
  ex.type = 3;
  CHECK_ERRNO(fcntl(p[0], F_SETOWN_EX, &ex), EINVAL);
  CHECK_ERRNO(fcntl(p[0], F_SETOWN_EX, (void *)1), EFAULT);
  CHECK_ERRNO(fcntl(p[0], F_GETOWN_EX, (void *)1), EFAULT);
  ex = (struct f_owner_ex){F_OWNER_PID, 4000000};
  CHECK_ERRNO(fcntl(p[0], F_SETOWN_EX, &ex), ESRCH);
  CHECK_ERRNO(syscall(SYS_fcntl, p[0], F_SETOWN, 0x80000000L), EINVAL);
  CHECK_OK(fcntl(p[0], F_SETOWN, 0));
  CHECK_EQ(fcntl(p[0], F_GETOWN), 0);
  CHECK_EQ(fcntl(p[0], F_GETSIG), 0);
  CHECK_OK(fcntl(p[0], F_SETSIG, SIGRTMIN));
  CHECK_EQ(fcntl(p[0], F_GETSIG), SIGRTMIN);
  CHECK_ERRNO(fcntl(p[0], F_SETSIG, 65), EINVAL);
  CHECK_ERRNO(fcntl(p[0], F_SETSIG, -1), EINVAL);
}

TEST(pipe_sends_sigio) {
  int p[2];
  SYS(pipe2(p, O_NONBLOCK));
  on_siginfo(SIGIO, note, 0);
  on_siginfo(SIGRTMIN + 1, note, 0);
  SYS(fcntl(p[0], F_SETFL, O_NONBLOCK | O_ASYNC));
  reset();
  write_full(p[1], "x", 1);
  CHECK_EQ(got, 0); /* no owner */
  SYS(fcntl(p[0], F_SETOWN, getpid()));
  write_full(p[1], "x", 1);
  CHECK_EQ(got, 1);
  CHECK_EQ(got_sig, SIGIO);
  CHECK_EQ(got_code, SI_KERNEL);
  SYS(fcntl(p[0], F_SETSIG, SIGRTMIN + 1));
  reset();
  write_full(p[1], "x", 1);
  CHECK_EQ(got, 1);
  CHECK_EQ(got_sig, SIGRTMIN + 1);
  CHECK_EQ(got_code, POLL_IN);
  CHECK_EQ(got_fd, p[0]);
  CHECK_EQ(got_band, POLLIN | POLLRDNORM);
  reset();
  SYS(fcntl(p[0], F_SETFL, O_NONBLOCK));
  write_full(p[1], "x", 1);
  CHECK_EQ(got, 0);
  /* The writer's side: told when a full pipe has room again, and nothing of data. */
  SYS(fcntl(p[1], F_SETOWN, getpid()));
  SYS(fcntl(p[1], F_SETSIG, SIGRTMIN + 1));
  int on = 1;
  SYS(ioctl(p[1], FIOASYNC, &on));
  CHECK_EQ(fcntl(p[1], F_GETFL) & O_ASYNC, O_ASYNC);
  static char buf[70000];
  while (write(p[1], buf, 4096) > 0)
    ;
  reset();
  while (read(p[0], buf, sizeof buf) > 0)
    ;
  CHECK(got >= 1);
  CHECK_EQ(got_code, POLL_OUT);
  CHECK_EQ(got_fd, p[1]);
  CHECK_EQ(got_band, POLLOUT | POLLWRNORM | POLLWRBAND);
  reset();
  close(p[0]); /* the last reader: writers hear of it */
  CHECK(got >= 1);
}

TEST(reader_hears_of_close) {
  int p[2];
  SYS(pipe(p));
  on_siginfo(SIGIO, note, 0);
  SYS(fcntl(p[0], F_SETOWN, getpid()));
  SYS(fcntl(p[0], F_SETSIG, SIGIO));
  SYS(fcntl(p[0], F_SETFL, O_ASYNC));
  reset();
  close(p[1]);
  CHECK_EQ(got, 1);
  CHECK_EQ(got_code, POLL_IN);
}

TEST(socket_sends_sigio) {
  int s[2], on = 1;
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  on_siginfo(SIGRTMIN, note, 0);
  SYS(fcntl(s[0], F_SETOWN, getpid()));
  SYS(fcntl(s[0], F_SETSIG, SIGRTMIN));
  SYS(ioctl(s[0], FIOASYNC, &on));
  reset();
  write_full(s[1], "x", 1);
  CHECK(got >= 1);
  CHECK_EQ(got_code, POLL_IN);
  CHECK_EQ(got_fd, s[0]);
  reset();
  close(s[1]);
  CHECK(got >= 1);
  CHECK_EQ(got_code, POLL_HUP);
}

TEST(other_process_and_group) {
  int p[2], ready[2];
  SYS(pipe(p));
  SYS(pipe(ready));
  signal(SIGIO, SIG_IGN);
  pid_t pid = CHILD(setpgid(0, 0); on_siginfo(SIGIO, note, 0); reset(); write_full(ready[1], "r", 1);
                    WAIT_FOR(got == 1));
  char c;
  read_full(ready[0], &c, 1);
  SYS(fcntl(p[0], F_SETFL, O_ASYNC));
  SYS(fcntl(p[0], F_SETOWN, -pid));
  write_full(p[1], "x", 1);
  WAIT_OK(pid);
  /* Whoever has the owner's file no more still sends. */
  pid = CHILD(on_siginfo(SIGIO, note, 0); reset(); write_full(ready[1], "r", 1); WAIT_FOR(got == 1));
  read_full(ready[0], &c, 1);
  SYS(fcntl(p[0], F_SETOWN, pid));
  WAIT_OK(CHILD(write_full(p[1], "x", 1)));
  WAIT_OK(pid);
  write_full(p[1], "x", 1); /* the owner has gone */
}

TEST(ids_of_the_owner_count) {
  int p[2], ready[2];
  if (geteuid())
    SKIP("not root");
  SYS(pipe(p));
  SYS(pipe(ready));
  pid_t pid = CHILD(on_siginfo(SIGIO, note, 0); reset(); write_full(ready[1], "r", 1); sleep_ms(200);
                    CHECK_EQ(got, 0));
  char c;
  read_full(ready[0], &c, 1);
  WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234)); SYS(fcntl(p[0], F_SETOWN, pid));
                SYS(fcntl(p[0], F_SETFL, O_ASYNC))));
  write_full(p[1], "x", 1); /* root writes, but an unprivileged process set the owner */
  WAIT_OK(pid);
}

TEST(files_without_async) {
  int fd = tmp_file("f", "x"), on = 1;
  CHECK_ERRNO(ioctl(fd, FIOASYNC, &on), ENOTTY);
  CHECK_ERRNO(ioctl(fd, FIOASYNC, (void *)1), EFAULT);
  CHECK_OK(fcntl(fd, F_SETFL, O_ASYNC)); /* without effect */
}

TEST(async_ends_with_the_file) {
  int p[2];
  SYS(pipe(p));
  on_siginfo(SIGIO, note, 0);
  SYS(fcntl(p[1], F_SETOWN, getpid()));
  SYS(fcntl(p[1], F_SETFL, O_ASYNC));
  close(p[1]);
  reset();
  close(p[0]);
  CHECK_EQ(got, 0);
}

/* ---- Leases ---- */

TEST(lease_errors) {
  int fd = tmp_file("f", "x"), p[2], ro = (int)SYS(open(tmp_path("f"), O_RDONLY));
  SYS(pipe(p));
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
  CHECK_ERRNO(fcntl(fd, F_SETLEASE, 3), EINVAL);
  CHECK_ERRNO(fcntl(p[0], F_SETLEASE, F_RDLCK), EINVAL);
  CHECK_ERRNO(fcntl(fd, F_SETLEASE, F_UNLCK), EAGAIN);
  CHECK_ERRNO(fcntl(fd, F_SETLEASE, F_RDLCK), EAGAIN); /* open for writing, by itself */
  CHECK_ERRNO(fcntl(ro, F_SETLEASE, F_RDLCK), EAGAIN);
  CHECK_ERRNO(fcntl(fd, F_SETLEASE, F_WRLCK), EAGAIN); /* open elsewhere */
  close(ro);
  CHECK_OK(fcntl(fd, F_SETLEASE, F_WRLCK));
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_WRLCK);
  CHECK_OK(fcntl(fd, F_SETLEASE, F_UNLCK));
  close(fd);
  ro = (int)SYS(open(tmp_path("f"), O_RDONLY));
  CHECK_OK(fcntl(ro, F_SETLEASE, F_RDLCK));
  CHECK_OK(fcntl(ro, F_SETLEASE, F_WRLCK));
  CHECK_OK(fcntl(ro, F_SETLEASE, F_RDLCK));
  int r2 = (int)SYS(open(tmp_path("f"), O_RDONLY)); /* no conflict */
  CHECK_OK(fcntl(r2, F_SETLEASE, F_RDLCK));
  CHECK_ERRNO(fcntl(r2, F_SETLEASE, F_WRLCK), EAGAIN);
  if (geteuid() == 0) {
    SYS(chmod(tmp_path("f"), 0666));
    SYS(chmod(tmp_dir(), 0755));
    WAIT_OK(CHILD(SYS(setresuid(1234, 1234, 1234)); CHECK_ERRNO(fcntl(r2, F_SETLEASE, F_RDLCK), EACCES)));
  }
}

TEST(lease_is_broken) {
  char path[256];
  close(tmp_file("f", "hello"));
  strcpy(path, tmp_path("f"));
  int fd = (int)SYS(open(path, O_RDONLY));
  on_siginfo(SIGRTMIN, note, 0);
  SYS(fcntl(fd, F_SETSIG, SIGRTMIN));
  SYS(fcntl(fd, F_SETLEASE, F_RDLCK));
  CHECK_EQ(fcntl(fd, F_GETOWN), getpid());
  reset();
  close((int)SYS(open(path, O_RDONLY)));
  CHECK_EQ(got, 0);
  WAIT_OK(CHILD(CHECK_ERRNO(open(path, O_WRONLY | O_NONBLOCK), EWOULDBLOCK)));
  CHECK_EQ(got, 1);
  CHECK_EQ(got_fd, fd);
  CHECK_EQ(got_code, POLL_MSG);
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK); /* what it must become */
  WAIT_OK(CHILD(CHECK_ERRNO(open(path, O_WRONLY | O_NONBLOCK), EWOULDBLOCK)));
  CHECK_EQ(got, 1); /* told once */
  SYS(fcntl(fd, F_SETLEASE, F_UNLCK));
  WAIT_OK(CHILD(SYS(open(path, O_WRONLY | O_NONBLOCK))));
}

TEST(opener_waits_for_the_holder) {
  char path[256];
  int ready[2];
  SYS(pipe(ready));
  close(tmp_file("f", "hello"));
  strcpy(path, tmp_path("f"));
  int fd = (int)SYS(open(path, O_RDWR));
  on_siginfo(SIGIO, note, 0);
  SYS(fcntl(fd, F_SETLEASE, F_WRLCK));
  reset();
  pid_t pid = CHILD(char buf[8] = ""; int c = (int)SYS(open(path, O_RDONLY)); CHECK_EQ(read(c, buf, 8), 5);
                    CHECK_STR(buf, "HELLO"); write_full(ready[1], "x", 1));
  WAIT_FOR(got == 1);
  CHECK_EQ(got_sig, SIGIO);
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK); /* a reader came: downgrading is enough */
  CHECK_EQ(pwrite(fd, "HELLO", 5, 0), 5);
  SYS(fcntl(fd, F_SETLEASE, F_RDLCK) == 0 ? 0 : fcntl(fd, F_SETLEASE, F_UNLCK));
  WAIT_OK(pid);
}

TEST(truncation_breaks_before_it_happens) {
  char path[256];
  close(tmp_file("f", "hello"));
  strcpy(path, tmp_path("f"));
  int fd = (int)SYS(open(path, O_RDONLY));
  struct stat st;
  on_siginfo(SIGIO, note, 0);
  SYS(fcntl(fd, F_SETLEASE, F_RDLCK));
  reset();
  pid_t pid = CHILD(close(fd); SYS(open(path, O_WRONLY | O_TRUNC)));
  WAIT_FOR(got == 1);
  sleep_ms(20);
  SYS(fstat(fd, &st));
  CHECK_EQ(st.st_size, 5);
  close(fd); /* gives it back */
  WAIT_OK(pid);
  SYS(stat(path, &st));
  CHECK_EQ(st.st_size, 0);
  fd = (int)SYS(open(path, O_RDONLY));
  SYS(fcntl(fd, F_SETLEASE, F_RDLCK));
  reset();
  pid = CHILD(SYS(truncate(path, 3)));
  WAIT_FOR(got == 1);
  SYS(fcntl(fd, F_SETLEASE, F_UNLCK));
  WAIT_OK(pid);
}

/* ---- Everything at once ---- */

static int storm_fd[2];
static void *storm(void *arg) {
  uint64_t seed = (uintptr_t)arg + 1;
  char buf[64] = "";
  for (int i = 0; i < 3000; i++)
    switch (next_random(&seed) % 6) {
    case 0:
      fcntl(storm_fd[next_random(&seed) & 1], F_SETFL, O_NONBLOCK | O_ASYNC);
      break;
    case 1:
      fcntl(storm_fd[next_random(&seed) & 1], F_SETFL, O_NONBLOCK);
      break;
    case 2:
      fcntl(storm_fd[0], F_SETOWN, next_random(&seed) & 1 ? getpid() : -getpgrp());
      break;
    case 3:
      fcntl(storm_fd[0], F_SETSIG, next_random(&seed) & 1 ? SIGIO : 0);
      break;
    case 4:
      write(storm_fd[1], buf, 64);
      break;
    default:
      read(storm_fd[0], buf, 64);
    }
  return NULL;
}
TEST(changed_under_threads) {
  pthread_t th[3];
  setpgid(0, 0);
  on_siginfo(SIGIO, note, SA_RESTART);
  for (int round = 0; round < 2; round++) {
    if (round)
      SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, storm_fd));
    else
      SYS(pipe(storm_fd));
    SYS(fcntl(storm_fd[0], F_SETFL, O_NONBLOCK));
    SYS(fcntl(storm_fd[1], F_SETFL, O_NONBLOCK));
    reset();
    for (long i = 0; i < 3; i++)
      pthread_create(&th[i], NULL, storm, (void *)i);
    for (int i = 0; i < 3; i++)
      pthread_join(th[i], NULL);
    CHECK(got > 0);
    close(storm_fd[0]);
    close(storm_fd[1]);
  }
}
