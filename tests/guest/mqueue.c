/* SPDX-License-Identifier: Apache-2.0 */
/* mqueue.c - POSIX message queues (mq_overview(7)): order, blocking, limits, notification, the filesystem. */
#include "check.h"

#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statfs.h>

static char queue_name[64];
static pid_t owner;

static void cleanup(void) {
  char other[80];
  if (getpid() != owner)
    return;
  snprintf(other, sizeof other, "%s-2", queue_name);
  mq_unlink(queue_name);
  mq_unlink(other);
}

/* A name of this case's own; removed at its end. */
static const char *name(void) {
  snprintf(queue_name, sizeof queue_name, "/guest-test-%d", getpid());
  owner = getpid();
  check_at_end = cleanup;
  return queue_name;
}

static mqd_t make(long msgs, long size, int flags) {
  struct mq_attr a = {.mq_maxmsg = msgs, .mq_msgsize = size};
  return (mqd_t)SYS(mq_open(name(), O_RDWR | O_CREAT | flags, 0600, &a));
}

static struct timespec in_ms(long ms) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  ts.tv_nsec += ms % 1000 * 1000000;
  ts.tv_sec += ms / 1000 + ts.tv_nsec / 1000000000;
  ts.tv_nsec %= 1000000000;
  return ts;
}

TEST(opening) {
  struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 32}, got;
  const char *n = name();

  CHECK_ERRNO(mq_open(n, O_RDWR), ENOENT);
  mqd_t q = (mqd_t)SYS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, &a));
  CHECK_ERRNO(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, &a), EEXIST);
  SYS(mq_getattr(q, &got));
  CHECK_EQ(got.mq_maxmsg, 4);
  CHECK_EQ(got.mq_msgsize, 32);
  CHECK_EQ(got.mq_curmsgs, 0);
  CHECK_EQ(got.mq_flags, 0);
  CHECK_EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
  mqd_t other = (mqd_t)SYS(mq_open(n, O_RDONLY));
  CHECK_ERRNO(mq_send(other, "x", 1, 0), EBADF);
  CHECK_ERRNO(mq_receive((mqd_t)SYS(mq_open(n, O_WRONLY)), (char[32]){0}, 32, NULL), EBADF);
  a.mq_maxmsg = 0;
  CHECK_ERRNO(mq_open("/guest-test-bad", O_RDWR | O_CREAT, 0600, &a), EINVAL);
  a.mq_maxmsg = 65537;
  CHECK_ERRNO(mq_open("/guest-test-bad", O_RDWR | O_CREAT, 0600, &a), EINVAL);
  CHECK_ERRNO(syscall(SYS_mq_open, "", O_RDWR, 0, NULL), ENOENT);
  CHECK_ERRNO(syscall(SYS_mq_open, "a/b", O_RDWR | O_CREAT, 0600, NULL), EACCES);
  CHECK_ERRNO(syscall(SYS_mq_open, "..", O_RDWR | O_CREAT, 0600, NULL), EACCES);
  char longname[300];
  memset(longname, 'x', sizeof longname);
  longname[256] = 0;
  CHECK_ERRNO(syscall(SYS_mq_open, longname, O_RDWR, 0, NULL), ENAMETOOLONG);
  CHECK_ERRNO(syscall(SYS_mq_open, 8, O_RDWR, 0, NULL), EFAULT);
  SYS(mq_unlink(n));
  CHECK_ERRNO(mq_unlink(n), ENOENT);
  CHECK_ERRNO(mq_open(n, O_RDWR), ENOENT);
  CHECK_OK(mq_send(q, "still", 5, 0)); /* lives until the last descriptor goes */
}

TEST(order_of_messages) {
  mqd_t q = make(8, 16, 0);
  char buf[16];
  unsigned prio;
  static const struct {
    const char *text;
    unsigned prio;
  } in[] = {{"a", 1}, {"b", 5}, {"c", 1}, {"d", 32767}, {"e", 5}, {"", 0}},
    out[] = {{"d", 32767}, {"b", 5}, {"e", 5}, {"a", 1}, {"c", 1}, {"", 0}};
  for (int i = 0; i < 6; i++)
    SYS(mq_send(q, in[i].text, strlen(in[i].text), in[i].prio));
  for (int i = 0; i < 6; i++) {
    ssize_t n = SYS(mq_receive(q, buf, sizeof buf, &prio));
    CHECK_EQ(n, strlen(out[i].text));
    CHECK(memcmp(buf, out[i].text, n) == 0);
    CHECK_EQ(prio, out[i].prio);
  }
}

TEST(refusals) {
  mqd_t q = make(2, 16, O_NONBLOCK);
  char buf[32];
  int file = (int)SYS(open("/dev/null", O_RDWR));
  struct timespec bad = {.tv_nsec = 1000000000}, past = {0};

  CHECK_ERRNO(mq_send(q, buf, 17, 0), EMSGSIZE);
  CHECK_ERRNO(mq_receive(q, buf, 15, NULL), EMSGSIZE);
  CHECK_ERRNO(mq_send(q, buf, 1, 32768), EINVAL);
  CHECK_ERRNO(mq_receive(q, buf, 16, NULL), EAGAIN);
  SYS(mq_send(q, "1", 1, 0));
  SYS(mq_send(q, "2", 1, 0));
  CHECK_ERRNO(mq_send(q, "3", 1, 0), EAGAIN);
  CHECK_ERRNO(mq_send(file, "3", 1, 0), EBADF);
  CHECK_ERRNO(mq_send(-1, "3", 1, 0), EBADF);
  CHECK_ERRNO(mq_timedsend(q, "3", 1, 0, &bad), EINVAL);
  CHECK_ERRNO(syscall(SYS_mq_timedsend, q, 8, 1, 0, NULL), EFAULT);
  struct mq_attr a = {.mq_flags = 0}, old;
  SYS(mq_setattr(q, &a, &old));
  CHECK_EQ(old.mq_flags, O_NONBLOCK);
  CHECK_EQ(old.mq_curmsgs, 2);
  CHECK_ERRNO(mq_timedsend(q, "3", 1, 0, &past), ETIMEDOUT);
  a.mq_flags = O_APPEND;
  CHECK_ERRNO(mq_setattr(q, &a, NULL), EINVAL);
  SYS(mq_receive(q, buf, 16, NULL));
  SYS(mq_timedsend(q, "3", 1, 0, &past)); /* there is room: the time does not matter */
}

TEST(blocking_and_time) {
  mqd_t q = make(1, 16, 0);
  char buf[16];
  struct timespec ts = in_ms(60);
  int64_t t0 = now_ns();

  CHECK_ERRNO(mq_timedreceive(q, buf, 16, NULL, &ts), ETIMEDOUT);
  CHECK(now_ns() - t0 >= 50000000);
  pid_t pid = CHILD(sleep_ms(50); SYS(mq_send(q, "hello", 5, 3)));
  unsigned prio;
  CHECK_EQ(mq_receive(q, buf, 16, &prio), 5);
  CHECK_EQ(prio, 3);
  WAIT_OK(pid);
  SYS(mq_send(q, "1", 1, 0));
  pid = CHILD(sleep_ms(50); char b[16]; CHECK_EQ(mq_receive(q, b, 16, NULL), 1));
  SYS(mq_send(q, "2", 1, 0)); /* waits for room */
  WAIT_OK(pid);
  CHECK_EQ(mq_receive(q, buf, 16, NULL), 1);
  CHECK_EQ(buf[0], '2');
}

static void nothing(int sig) { (void)sig; }

TEST(signals_interrupt) {
  mqd_t q = make(1, 16, 0);
  char buf[16];
  pid_t parent = getpid();

  on_signal(SIGUSR1, nothing, 0);
  pid_t pid = CHILD(sleep_ms(50); kill(parent, SIGUSR1));
  CHECK_ERRNO(mq_receive(q, buf, 16, NULL), EINTR);
  WAIT_OK(pid);
  on_signal(SIGUSR1, nothing, SA_RESTART);
  pid = CHILD(sleep_ms(50); kill(parent, SIGUSR1); sleep_ms(50); SYS(mq_send(q, "x", 1, 0)));
  CHECK_EQ(mq_receive(q, buf, 16, NULL), 1);
  WAIT_OK(pid);
}

TEST(poll_tells) {
  mqd_t q = make(1, 16, 0);
  struct pollfd p = {.fd = q, .events = POLLIN | POLLOUT};
  char buf[16];

  CHECK_EQ(poll(&p, 1, 0), 1);
  CHECK_EQ(p.revents, POLLOUT);
  SYS(mq_send(q, "x", 1, 0));
  CHECK_EQ(poll(&p, 1, 0), 1);
  CHECK_EQ(p.revents, POLLIN);
  SYS(mq_receive(q, buf, 16, NULL));
  pid_t pid = CHILD(sleep_ms(30); SYS(mq_send(q, "x", 1, 0)));
  p.events = POLLIN;
  CHECK_EQ(poll(&p, 1, 3000), 1);
  WAIT_OK(pid);
}

TEST(many_senders_and_receivers) {
  mqd_t q = make(3, 8, 0);
  pid_t pid[4];
  int *sum = map_shared(PAGE);

  for (int i = 0; i < 2; i++)
    pid[i] = CHILD(for (int k = 1; k <= 200; k++) SYS(mq_send(q, (char *)&k, sizeof k, (unsigned)k % 7)));
  for (int i = 2; i < 4; i++)
    pid[i] = CHILD(for (int k = 1; k <= 200; k++) {
      int v[2];
      SYS(mq_receive(q, (char *)v, 8, NULL));
      __atomic_add_fetch(sum, v[0], __ATOMIC_SEQ_CST);
    });
  for (int i = 0; i < 4; i++)
    WAIT_OK(pid[i]);
  CHECK_EQ(*sum, 2 * 200 * 201 / 2);
}

static volatile sig_atomic_t told;
static siginfo_t told_info;
static void on_told(int sig, siginfo_t *si, void *u) {
  told = sig;
  told_info = *si;
}

TEST(notification) {
  mqd_t q = make(4, 16, 0);
  char buf[16];
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};

  e.sigev_value.sival_int = 77;
  on_siginfo(SIGUSR2, on_told, 0);
  SYS(mq_notify(q, &e));
  WAIT_OK(CHILD(CHECK_ERRNO(mq_notify(q, &e), EBUSY)));
  SYS(mq_send(q, "1", 1, 0));
  CHECK_EQ(told, SIGUSR2);
  CHECK_EQ(told_info.si_code, SI_MESGQ);
  CHECK_EQ(told_info.si_value.sival_int, 77);
  CHECK_EQ(told_info.si_pid, getpid());
  told = 0;
  SYS(mq_receive(q, buf, 16, NULL));
  SYS(mq_send(q, "2", 1, 0)); /* once only */
  CHECK_EQ(told, 0);
  SYS(mq_notify(q, &e));
  SYS(mq_send(q, "3", 1, 0)); /* the queue was not empty */
  CHECK_EQ(told, 0);
  SYS(mq_notify(q, NULL));
  SYS(mq_notify(q, &e));
  /* Closing any descriptor of the queue ends it. */
  close((int)SYS(mq_open(queue_name, O_RDONLY)));
  WAIT_OK(CHILD(CHECK_OK(mq_notify(q, &e))));
  e.sigev_notify = SIGEV_NONE;
  SYS(mq_notify(q, &e));
  SYS(mq_receive(q, buf, 16, NULL));
  SYS(mq_receive(q, buf, 16, NULL));
  SYS(mq_send(q, "4", 1, 0));
  CHECK_EQ(told, 0);
  e.sigev_notify = 99;
  CHECK_ERRNO(mq_notify(q, &e), EINVAL);
  e.sigev_notify = SIGEV_SIGNAL;
  e.sigev_signo = 65;
  CHECK_ERRNO(mq_notify(q, &e), EINVAL);
  CHECK_ERRNO(mq_notify(0, &(struct sigevent){.sigev_notify = SIGEV_NONE}), EBADF);
}

TEST(a_waiting_receiver_comes_first) {
  mqd_t q = make(4, 16, 0);
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};

  on_siginfo(SIGUSR2, on_told, 0);
  pid_t pid = CHILD(char b[16]; CHECK_EQ(mq_receive(q, b, 16, NULL), 1));
  sleep_ms(100);
  SYS(mq_notify(q, &e));
  SYS(mq_send(q, "x", 1, 0));
  WAIT_OK(pid);
  CHECK_EQ(told, 0);
}

TEST(the_filesystem_shows_queues) {
  struct statfs fs;
  const char *dir = "/dev/mqueue";
  if (statfs(dir, &fs) < 0 || fs.f_type != 0x19800202) {
    CHECK(!check_in_sandbox);
    dir = tmp_dir();
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "mqueue", 0, NULL) < 0)
      SKIP("no mqueue filesystem");
  }
  mqd_t q = make(4, 16, 0);
  char path[256], *s, buf[8192];
  struct stat st;

  snprintf(path, sizeof path, "%s%s", dir, queue_name);
  SYS(stat(path, &st));
  CHECK(S_ISREG(st.st_mode));
  CHECK_EQ(st.st_size, 80);
  CHECK_EQ(st.st_mode & 0777, 0600);
  SYS(mq_send(q, "12345", 5, 0));
  REQUIRE((s = read_file(path, NULL)) != NULL);
  CHECK(strncmp(s, "QSIZE:5", 7) == 0);
  CHECK(strstr(s, "NOTIFY:0") != NULL && strstr(s, "NOTIFY_PID:0") != NULL);
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 10};
  SYS(mq_notify(q, &e));
  REQUIRE(read_file(path, NULL) != NULL); /* reading it closed a descriptor: that ended the registration */
  mqd_t by_path = (mqd_t)SYS(open(path, O_RDWR));
  CHECK_EQ(mq_receive(by_path, buf, sizeof buf, NULL), 5);
  SYS(unlink(path));
  CHECK_ERRNO(mq_open(queue_name, O_RDWR), ENOENT);
  int fd = (int)SYS(open(path, O_RDWR | O_CREAT, 0644)); /* with the attributes that are usual */
  struct mq_attr a;
  SYS(mq_getattr(fd, &a));
  CHECK(a.mq_maxmsg > 0 && a.mq_msgsize > 0);
  snprintf(path, sizeof path, "%s/dir", dir);
  CHECK(mkdir(path, 0755) < 0);
}

TEST(permissions) {
  if (getuid() != 0)
    SKIP("needs root");
  make(4, 16, 0);
  WAIT_OK(CHILD(SYS(setgid(1000)); SYS(setuid(1000)); CHECK_ERRNO(mq_open(queue_name, O_RDONLY), EACCES);
                CHECK(mq_unlink(queue_name) < 0); CHECK(errno == EACCES || errno == EPERM);
                struct mq_attr a = {.mq_maxmsg = 1000, .mq_msgsize = 16};
                CHECK_ERRNO(mq_open("/guest-test-user", O_RDWR | O_CREAT, 0600, &a), EINVAL);
                /* The creator's own mode does not stop it from opening what it makes. */
                char mine[80]; snprintf(mine, sizeof mine, "%s-2", queue_name); a.mq_maxmsg = 2;
                mqd_t q = (mqd_t)SYS(mq_open(mine, O_RDWR | O_CREAT, 0, &a)); SYS(mq_send(q, "x", 1, 0));
                CHECK_ERRNO(mq_open(mine, O_RDWR), EACCES); SYS(mq_unlink(mine))));
}

TEST(the_limit_of_bytes) {
  name();
  struct rlimit r = {20000, 20000};
  WAIT_OK(CHILD(SYS(setrlimit(RLIMIT_MSGQUEUE, &r)); struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = 1000};
                if (getuid() == 0) SYS(setuid(54321));
                mqd_t q = (mqd_t)SYS(mq_open(queue_name, O_RDWR | O_CREAT, 0600, &a)); char two[80];
                snprintf(two, sizeof two, "%s-2", queue_name);
                CHECK_ERRNO(mq_open(two, O_RDWR | O_CREAT, 0600, &a), EMFILE); SYS(mq_unlink(queue_name));
                CHECK_ERRNO(mq_open(two, O_RDWR | O_CREAT, 0600, &a), EMFILE); /* while it is open */
                SYS(mq_close(q)); q = (mqd_t)SYS(mq_open(two, O_RDWR | O_CREAT, 0600, &a));
                SYS(mq_unlink(two))));
}

TEST(settings_below_proc) {
  static const char *const files[] = {"msg_default", "msg_max", "msgsize_default", "msgsize_max",
                                      "queues_max"};
  for (int i = 0; i < 5; i++) {
    char path[100], *s;
    snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", files[i]);
    if (CHECK((s = read_file(path, NULL)) != NULL))
      CHECK(atoi(s) > 0);
  }
  if (!check_in_sandbox)
    SKIP("the rest would change the host's");
  int fd = (int)SYS(open("/proc/sys/fs/mqueue/msg_max", O_WRONLY));
  SYS(write(fd, "3", 1));
  WAIT_OK(CHILD(struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 8}; name(); SYS(setuid(1000));
                CHECK_ERRNO(mq_open(queue_name, O_RDWR | O_CREAT, 0600, &a), EINVAL); a.mq_maxmsg = 3;
                CHECK_OK(mq_open(queue_name, O_RDWR | O_CREAT, 0600, &a)); SYS(mq_unlink(queue_name))));
  CHECK_ERRNO(write(fd, "0", 1), EINVAL);
  SYS(write(fd, "10", 2));
}

TEST(ipc_namespaces_are_apart) {
  if (!have_cap(21 /* CAP_SYS_ADMIN */))
    SKIP("no right to make namespaces");
  make(4, 16, 0);
  WAIT_OK(CHILD(SYS(unshare(CLONE_NEWIPC)); CHECK_ERRNO(mq_open(queue_name, O_RDWR), ENOENT);
                CHECK_OK(mq_open(queue_name, O_RDWR | O_CREAT, 0600, NULL)); if (check_in_sandbox) {
                  SYS(mkdir("/tmp/mq", 0755));
                  SYS(mount("none", "/tmp/mq", "mqueue", 0, NULL));
                  char path[100];
                  snprintf(path, sizeof path, "/tmp/mq%s", queue_name);
                  CHECK_OK(access(path, F_OK));
                }));
  CHECK_OK(mq_open(queue_name, O_RDWR));
}
