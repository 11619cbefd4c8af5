/* SPDX-License-Identifier: Apache-2.0 */
/* dev-pty.c - pseudo-terminals: ptmx and pts, line discipline, sessions, job control, window size, hangup. */
#include "check.h"

#include <sched.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <termios.h>

typedef struct {
  int master, slave, number;
  char path[64];
} Pty;

static Pty pty_new(void) {
  Pty p;
  int unlock = 0;

  p.master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (p.master < 0 && !check_in_sandbox)
    SKIP("/dev/ptmx: %s", strerror(errno));
  SYS(p.master);
  SYS(ioctl(p.master, TIOCSPTLCK, &unlock));
  SYS(ioctl(p.master, TIOCGPTN, &p.number));
  snprintf(p.path, sizeof p.path, "/dev/pts/%d", p.number);
  p.slave = (int)SYS(open(p.path, O_RDWR | O_NOCTTY | O_CLOEXEC));
  return p;
}

/* What the master has to say within a short time; NUL-terminated, static. */
static const char *master_says(Pty *p, size_t want) {
  static char buf[8192];
  size_t n = 0;

  while (n < want && n < sizeof buf - 1) {
    struct pollfd f = {.fd = p->master, .events = POLLIN};
    if (poll(&f, 1, 4000) <= 0)
      break;
    ssize_t r = read(p->master, buf + n, sizeof buf - 1 - n);
    if (r <= 0)
      break;
    n += (size_t)r;
  }
  buf[n] = 0;
  return buf;
}

static void set_mode(int fd, tcflag_t lflag, tcflag_t iflag, tcflag_t oflag) {
  struct termios t;

  SYS(tcgetattr(fd, &t));
  t.c_lflag = lflag;
  t.c_iflag = iflag;
  t.c_oflag = oflag;
  t.c_cc[VMIN] = 1;
  t.c_cc[VTIME] = 0;
  SYS(tcsetattr(fd, TCSANOW, &t));
}

/* In a child: a new session with the terminal as its own. */
static void take_terminal(Pty *p) {
  SYS(setsid());
  SYS(ioctl(p->slave, TIOCSCTTY, 0));
}

TEST(pair_exists) {
  Pty p = pty_new();
  struct stat st;

  SYS(fstat(p.slave, &st));
  CHECK_EQ(major(st.st_rdev), 136);
  CHECK_EQ(minor(st.st_rdev), p.number);
  CHECK(isatty(p.slave) && isatty(p.master));
  char name[64] = "";
  CHECK_EQ(ttyname_r(p.slave, name, sizeof name), 0);
  CHECK_STR(name, p.path);
  Pty q = pty_new();
  CHECK(q.number != p.number);
}

TEST(locked_until_unlocked) {
  int m = open("/dev/ptmx", O_RDWR | O_NOCTTY), n, lock;
  char path[64];

  if (m < 0 && !check_in_sandbox)
    SKIP("/dev/ptmx: %s", strerror(errno));
  SYS(m);
  SYS(ioctl(m, TIOCGPTN, &n));
  snprintf(path, sizeof path, "/dev/pts/%d", n);
  CHECK_ERRNO(open(path, O_RDWR | O_NOCTTY), EIO);
  SYS(ioctl(m, TIOCGPTLCK, &lock));
  CHECK_EQ(lock, 1);
  lock = 0;
  SYS(ioctl(m, TIOCSPTLCK, &lock));
  CHECK_OK(open(path, O_RDWR | O_NOCTTY));
  close(m);
}

TEST(raw_bytes_pass) {
  Pty p = pty_new();
  char in[256], out[256];

  set_mode(p.slave, 0, 0, 0);
  for (int i = 0; i < 256; i++)
    in[i] = (char)i;
  write_full(p.master, in, 256);
  read_full(p.slave, out, 256);
  CHECK(memcmp(in, out, 256) == 0);
  write_full(p.slave, in, 256);
  read_full(p.master, out, 256);
  CHECK(memcmp(in, out, 256) == 0);
}

TEST(canonical_lines) {
  Pty p = pty_new();
  char buf[64] = "";
  struct pollfd f = {.fd = p.slave, .events = POLLIN};

  set_mode(p.slave, ICANON, ICRNL, 0);
  write_full(p.master, "half", 4);
  CHECK_EQ(poll(&f, 1, 30), 0); /* no line yet */
  write_full(p.master, " line\rsecond\n", 13);
  CHECK_EQ(poll(&f, 1, 4000), 1);
  CHECK_EQ(read(p.slave, buf, sizeof buf), 10);
  CHECK(memcmp(buf, "half line\n", 10) == 0); /* carriage return became newline; one line per read */
  CHECK_EQ(read(p.slave, buf, 3), 3);
  CHECK_EQ(read(p.slave, buf + 3, sizeof buf), 4);
  CHECK(memcmp(buf, "second\n", 7) == 0);
}

TEST(canonical_editing) {
  Pty p = pty_new();
  char buf[64] = "";

  set_mode(p.slave, ICANON, ICRNL, 0);
  write_full(p.master, "abx\177c\n", 6);
  CHECK_EQ(read(p.slave, buf, sizeof buf), 4);
  CHECK(memcmp(buf, "abc\n", 4) == 0);
  write_full(p.master, "gone\025kept\n", 10); /* ^U kills the line */
  CHECK_EQ(read(p.slave, buf, sizeof buf), 5);
  CHECK(memcmp(buf, "kept\n", 5) == 0);
  write_full(p.master, "tail\004", 5); /* ^D gives what there is */
  CHECK_EQ(read(p.slave, buf, sizeof buf), 4);
  write_full(p.master, "\004", 1); /* and alone it is the end of file */
  CHECK_EQ(read(p.slave, buf, sizeof buf), 0);
}

TEST(echo) {
  Pty p = pty_new();

  set_mode(p.slave, ICANON | ECHO | ECHOE | ECHOK, ICRNL, OPOST | ONLCR);
  write_full(p.master, "hi\r", 3);
  CHECK_STR(master_says(&p, 4), "hi\r\n");
  set_mode(p.slave, ICANON | ISIG | ECHO | ECHOCTL, ICRNL, OPOST | ONLCR);
  write_full(p.master, "\001", 1);
  CHECK_STR(master_says(&p, 2), "^A");
}

TEST(output_processing) {
  Pty p = pty_new();

  set_mode(p.slave, 0, 0, OPOST | ONLCR);
  write_full(p.slave, "a\nb\n", 4);
  CHECK_STR(master_says(&p, 6), "a\r\nb\r\n");
  set_mode(p.slave, 0, 0, 0);
  write_full(p.slave, "a\n", 2);
  CHECK_STR(master_says(&p, 2), "a\n");
}

TEST(termios_round_trip) {
  Pty p = pty_new();
  struct termios a, b;

  SYS(tcgetattr(p.slave, &a));
  CHECK(a.c_lflag & ICANON);
  CHECK(a.c_lflag & ECHO);
  CHECK(a.c_lflag & ISIG);
  CHECK_EQ(a.c_cc[VINTR], 3);
  CHECK_EQ(a.c_cc[VEOF], 4);
  a.c_cc[VINTR] = 7;
  a.c_lflag &= ~(tcflag_t)ECHO;
  SYS(tcsetattr(p.slave, TCSADRAIN, &a));
  SYS(tcgetattr(p.master, &b)); /* one set of attributes for both ends */
  CHECK_EQ(b.c_cc[VINTR], 7);
  CHECK_EQ(b.c_lflag & ECHO, 0);
  CHECK_ERRNO(tcgetattr(tmp_file("f", ""), &a), ENOTTY);
}

TEST(flush_and_queue_sizes) {
  Pty p = pty_new();
  int n = -1;

  set_mode(p.slave, 0, 0, 0);
  write_full(p.master, "12345", 5);
  WAIT_FOR(ioctl(p.slave, FIONREAD, &n) == 0 && n == 5);
  SYS(tcflush(p.slave, TCIFLUSH));
  SYS(ioctl(p.slave, FIONREAD, &n));
  CHECK_EQ(n, 0);
}

TEST(vmin_and_vtime) {
  Pty p = pty_new();
  struct termios t;
  char buf[8];

  SYS(tcgetattr(p.slave, &t));
  t.c_lflag = 0;
  t.c_cc[VMIN] = 0;
  t.c_cc[VTIME] = 0;
  SYS(tcsetattr(p.slave, TCSANOW, &t));
  CHECK_EQ(read(p.slave, buf, 8), 0); /* polling read */
  t.c_cc[VTIME] = 1;
  SYS(tcsetattr(p.slave, TCSANOW, &t));
  int64_t start = now_ns();
  CHECK_EQ(read(p.slave, buf, 8), 0);
  CHECK(now_ns() - start >= 60000000);
  t.c_cc[VMIN] = 3;
  t.c_cc[VTIME] = 0;
  SYS(tcsetattr(p.slave, TCSANOW, &t));
  pid_t pid = CHILD(write_full(p.master, "a", 1); sleep_ms(20); write_full(p.master, "bc", 2));
  CHECK_EQ(read(p.slave, buf, 8), 3);
  WAIT_OK(pid);
}

TEST(window_size_and_sigwinch) {
  Pty p = pty_new();
  struct winsize w = {33, 111, 0, 0}, got;
  int ready[2];
  char c;

  SYS(ioctl(p.master, TIOCSWINSZ, &w));
  SYS(ioctl(p.slave, TIOCGWINSZ, &got));
  CHECK_EQ(got.ws_row, 33);
  CHECK_EQ(got.ws_col, 111);
  SYS(pipe(ready));
  pid_t pid = CHILD(sigset_t set = sigset_of(SIGWINCH, 0); SYS(sigprocmask(SIG_BLOCK, &set, NULL));
                    take_terminal(&p); on_signal(SIGWINCH, _exit, 0); write_full(ready[1], "x", 1);
                    struct timespec ts = ts_ms(6000); CHECK_EQ(sigtimedwait(&set, NULL, &ts), SIGWINCH));
  read_full(ready[0], &c, 1);
  w.ws_row = 40;
  SYS(ioctl(p.master, TIOCSWINSZ, &w));
  WAIT_OK(pid);
}

TEST(controlling_terminal) {
  Pty p = pty_new();

  WAIT_OK(CHILD(CHECK_ERRNO(ioctl(p.slave, TIOCSCTTY, 0), EPERM); /* not a session leader */
                SYS(setsid()); CHECK_ERRNO(tcgetpgrp(p.slave), ENOTTY); SYS(ioctl(p.slave, TIOCSCTTY, 0));
                CHECK_EQ(tcgetpgrp(p.slave), getpgrp()); CHECK_EQ(tcgetsid(p.slave), getpid());
                int tty = (int)SYS(open("/dev/tty", O_RDWR)); CHECK(isatty(tty));
                write_full(tty, "via tty", 7);
                signal(SIGHUP, SIG_IGN); /* a leader that gives it up hangs up its group */
                CHECK_OK(ioctl(tty, TIOCNOTTY)); CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO)));
  CHECK_STR(master_says(&p, 7), "via tty");
}

TEST(opening_makes_it_controlling) {
  Pty p = pty_new();

  WAIT_OK(CHILD(SYS(setsid()); SYS(open(p.path, O_RDWR)); CHECK_OK(open("/dev/tty", O_RDWR))));
  WAIT_OK(CHILD(SYS(setsid()); SYS(open(p.path, O_RDWR | O_NOCTTY));
                CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO)));
}

TEST(interrupt_goes_to_the_foreground_group) {
  Pty p = pty_new();
  int ready[2];
  char c;

  SYS(pipe(ready));
  pid_t pid =
      CHILD(take_terminal(&p); signal(SIGTTOU, SIG_IGN); pid_t bg = CHILD(setpgid(0, 0); for (;;) pause());
            setpgid(bg, bg); pid_t fg = CHILD(setpgid(0, 0); signal(SIGINT, SIG_DFL); for (;;) pause());
            setpgid(fg, fg); SYS(tcsetpgrp(p.slave, fg)); write_full(ready[1], "x", 1);
            int status = check_wait(fg); CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
            CHECK_EQ(waitpid(bg, &status, WNOHANG), 0); kill(bg, SIGKILL); check_wait(bg));
  read_full(ready[0], &c, 1);
  write_full(p.master, "\003", 1);
  WAIT_OK(pid);
}

TEST(quit_and_suspend_characters) {
  static const struct {
    char key;
    int sig;
  } t[] = {{034, SIGQUIT}, {032, SIGTSTP}};

  for (int i = 0; i < 2; i++) {
    Pty p = pty_new();
    int ready[2];
    char c;
    SYS(pipe(ready));
    pid_t pid =
        CHILD(take_terminal(&p); signal(SIGTTOU, SIG_IGN); pid_t fg = CHILD(setpgid(0, 0); for (;;) pause());
              setpgid(fg, fg); SYS(tcsetpgrp(p.slave, fg)); write_full(ready[1], "x", 1); int status;
              CHECK_EQ(waitpid(fg, &status, WUNTRACED), fg);
              CHECK(t[i].sig == SIGTSTP ? WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP
                                        : WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT);
              kill(fg, SIGKILL));
    read_full(ready[0], &c, 1);
    write_full(p.master, &t[i].key, 1);
    WAIT_OK(pid);
  }
}

TEST(background_reader_gets_sigttin) {
  Pty p = pty_new();

  WAIT_OK(CHILD(
      take_terminal(&p); pid_t bg = CHILD(setpgid(0, 0); char c; read(p.slave, &c, 1)); setpgid(bg, bg);
      int status; CHECK_EQ(waitpid(bg, &status, WUNTRACED), bg);
      CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN); kill(bg, SIGKILL); check_wait(bg);
      bg = CHILD(setpgid(0, 0); signal(SIGTTIN, SIG_IGN); char c; CHECK_ERRNO(read(p.slave, &c, 1), EIO));
      WAIT_OK(bg)));
}

TEST(background_writer_gets_sigttou_with_tostop) {
  Pty p = pty_new();
  struct termios t;

  SYS(tcgetattr(p.slave, &t));
  t.c_lflag |= TOSTOP;
  SYS(tcsetattr(p.slave, TCSANOW, &t));
  WAIT_OK(CHILD(take_terminal(&p); pid_t bg = CHILD(setpgid(0, 0); write(p.slave, "x", 1)); setpgid(bg, bg);
                int status; CHECK_EQ(waitpid(bg, &status, WUNTRACED), bg);
                CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU); kill(bg, SIGKILL); check_wait(bg);
                /* changing the attributes from the background always asks */
                bg = CHILD(setpgid(0, 0); tcsetattr(p.slave, TCSANOW, &t));
                setpgid(bg, bg); CHECK_EQ(waitpid(bg, &status, WUNTRACED), bg);
                CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU); kill(bg, SIGKILL); check_wait(bg)));
}

TEST(tcsetpgrp_errors) {
  Pty p = pty_new();

  WAIT_OK(CHILD(take_terminal(&p); CHECK_ERRNO(tcsetpgrp(p.slave, 0x3ffffff), ESRCH);
                CHECK_ERRNO(tcsetpgrp(p.slave, -1), EINVAL); pid_t other = CHILD(setsid(); for (;;) pause());
                WAIT_FOR(getsid(other) == other); CHECK_ERRNO(tcsetpgrp(p.slave, other), EPERM);
                kill(other, SIGKILL); check_wait(other)));
  CHECK_ERRNO(tcsetpgrp(p.slave, getpgrp()), ENOTTY);
}

TEST(master_closed_hangs_up) {
  Pty p = pty_new();
  int ready[2];
  char c;

  SYS(pipe(ready));
  pid_t pid =
      CHILD(close(p.master); sigset_t set = sigset_of(SIGHUP, 0); SYS(sigprocmask(SIG_BLOCK, &set, NULL));
            take_terminal(&p); write_full(ready[1], "x", 1); struct timespec ts = ts_ms(6000);
            CHECK_EQ(sigtimedwait(&set, NULL, &ts), SIGHUP); char b; CHECK_EQ(read(p.slave, &b, 1), 0);
            CHECK_ERRNO(write(p.slave, "x", 1), EIO); struct pollfd f = {.fd = p.slave, .events = POLLIN};
            CHECK_EQ(poll(&f, 1, 0), 1); CHECK(f.revents & POLLHUP));
  read_full(ready[0], &c, 1);
  close(p.master);
  WAIT_OK(pid);
}

TEST(slave_closed_is_eio) {
  Pty p = pty_new();
  char buf[16];

  set_mode(p.slave, 0, 0, 0);
  write_full(p.slave, "last", 4);
  close(p.slave);
  CHECK_EQ(read(p.master, buf, 16), 4); /* what was written still comes */
  CHECK_ERRNO(read(p.master, buf, 16), EIO);
  struct pollfd f = {.fd = p.master, .events = POLLIN};
  CHECK_EQ(poll(&f, 1, 0), 1);
  CHECK(f.revents & POLLHUP);
  p.slave = (int)SYS(open(p.path, O_RDWR | O_NOCTTY)); /* it may be opened again */
  write_full(p.slave, "more", 4);
  CHECK_EQ(read(p.master, buf, 16), 4);
}

TEST(session_leader_exit_hangs_up) {
  Pty p = pty_new();
  int ready[2], done[2];
  char c;

  SYS(pipe(ready));
  SYS(pipe(done));
  pid_t leader = CHILD(take_terminal(&p);
                       CHILD(sigset_t set = sigset_of(SIGHUP, 0); SYS(sigprocmask(SIG_BLOCK, &set, NULL));
                             write_full(ready[1], "x", 1); struct timespec ts = ts_ms(6000);
                             c = (char)sigtimedwait(&set, NULL, &ts); write_full(done[1], &c, 1));
                       read_full(ready[0], &c, 1));
  WAIT_OK(leader);
  read_full(done[0], &c, 1);
  CHECK_EQ(c, SIGHUP);
}

TEST(shell_like_session) {
  /* A program on the terminal that answers lines: what an interactive shell needs at least. */
  Pty p = pty_new();
  pid_t pid = CHILD(
      take_terminal(&p); dup2(p.slave, 0); dup2(p.slave, 1); dup2(p.slave, 2); close(p.master);
      execl("/bin/sh", "sh", "-c", "read a; echo \"got:$a\"; tty; stty size 2>/dev/null; exit 5", NULL));
  close(p.slave);
  write_full(p.master, "hello\n", 6);
  char all[4096];
  snprintf(all, sizeof all, "%s", master_says(&p, 4000));
  CHECK(strstr(all, "got:hello\r\n") != NULL);
  CHECK(strstr(all, p.path) != NULL);
  CHECK_EQ(WEXITSTATUS(check_wait(pid)), 5);
}

TEST(devpts_lists_numbers) {
  Pty p = pty_new();
  struct stat st;

  SYS(stat(p.path, &st));
  close(p.slave);
  close(p.master);
  WAIT_FOR(stat(p.path, &st) < 0 && errno == ENOENT);
}

/* A devpts of one's own: mount(8), "Mount options for devpts". */
TEST(devpts_instances_and_options) {
  const char *dir = tmp_dir();
  char path[300];
  struct stat st;
  int n = -1, unlock = 0;

  if (unshare(CLONE_NEWNS) < 0)
    SKIP("no right to mount");
  if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
    CHECK(check_in_sandbox);
  SYS(mount("devpts", dir, "devpts", 0, "newinstance,gid=7,mode=0640,ptmxmode=0666"));
  snprintf(path, sizeof path, "%s/ptmx", dir);
  SYS(stat(path, &st));
  CHECK_EQ(st.st_mode, S_IFCHR | 0666);
  int other = (int)SYS(open("/dev/ptmx", O_RDWR | O_NOCTTY)); /* of another instance */
  int master = (int)SYS(open(path, O_RDWR | O_NOCTTY));
  SYS(ioctl(master, TIOCGPTN, &n));
  CHECK_EQ(n, 0); /* numbers of its own */
  SYS(ioctl(master, TIOCSPTLCK, &unlock));
  snprintf(path, sizeof path, "%s/0", dir);
  SYS(stat(path, &st));
  CHECK_EQ(st.st_mode, S_IFCHR | 0640);
  CHECK_EQ(st.st_gid, 7);
  CHECK_EQ(st.st_uid, geteuid());
  int slave = (int)SYS(open(path, O_RDWR | O_NOCTTY));
  char buf[8];
  SYS(write(master, "x\n", 2));
  CHECK_EQ(read(slave, buf, sizeof buf), 2);
  if (geteuid() == 0) { /* owner and mode stay with the terminal */
    SYS(fchown(slave, 1, 2));
    SYS(chmod(path, 0600));
    SYS(stat(path, &st));
    CHECK_EQ(st.st_uid, 1);
    CHECK_EQ(st.st_gid, 2);
    CHECK_EQ(st.st_mode, S_IFCHR | 0600);
  }
  close(slave);
  close(master);
  CHECK_ERRNO(stat(path, &st), ENOENT);
  close(other);
  CHECK_ERRNO(mount("devpts", dir, "devpts", 0, "mode=rw"), EINVAL);
  SYS(umount(dir));
}
