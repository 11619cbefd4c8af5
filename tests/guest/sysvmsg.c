/* SPDX-License-Identifier: Apache-2.0 */
/* sysvmsg.c - System V message queues: msgget(2), msgop(2), msgctl(2), in an IPC namespace of the case's own. */
#include "check.h"

#include <sched.h>
#include <sys/ipc.h>
#include <sys/msg.h>

typedef struct {
  long type;
  char text[9000];
} Message;

static int make(void) {
  if (unshare(CLONE_NEWIPC) < 0)
    SKIP("needs an IPC namespace of its own: %s", strerror(errno));
  return (int)SYS(msgget(IPC_PRIVATE, 0600));
}

static int send(int id, long type, const char *text, int flags) {
  Message m = {.type = type};
  strcpy(m.text, text);
  return msgsnd(id, &m, strlen(text), flags);
}

/* The text of the message received, or NULL with errno. */
static const char *receive(int id, long type, int flags) {
  static Message m;
  ssize_t n = msgrcv(id, &m, sizeof m.text - 1, type, flags);
  if (n < 0)
    return NULL;
  m.text[n] = 0;
  return m.text;
}

TEST(get) {
  make();
  CHECK_ERRNO(msgget(5, 0600), ENOENT);
  int id = (int)SYS(msgget(5, IPC_CREAT | 0600));
  CHECK_EQ(msgget(5, 0), id);
  CHECK_ERRNO(msgget(5, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
  struct msqid_ds d;
  SYS(msgctl(id, IPC_STAT, &d));
  CHECK_EQ(d.msg_perm.mode, 0600);
  CHECK_EQ(d.msg_qbytes, 16384);
  CHECK_EQ(d.msg_qnum, 0);
  CHECK_EQ(d.msg_stime, 0);
  SYS(msgctl(id, IPC_RMID, NULL));
  CHECK_ERRNO(msgctl(id, IPC_STAT, &d), EINVAL);
}

TEST(order_and_types) {
  int id = make();

  SYS(send(id, 3, "three", 0));
  SYS(send(id, 1, "one", 0));
  SYS(send(id, 2, "two", 0));
  SYS(send(id, 1, "again", 0));
  CHECK_STR(receive(id, 2, 0), "two");
  CHECK_STR(receive(id, -2, 0), "one"); /* the lowest type up to 2 */
  CHECK_STR(receive(id, 3, MSG_EXCEPT), "again");
  CHECK_STR(receive(id, 0, 0), "three");
  CHECK(receive(id, 0, IPC_NOWAIT) == NULL);
  CHECK_EQ(errno, ENOMSG);
}

TEST(sizes) {
  int id = make();
  Message m = {.type = 1};
  char small[sizeof(long) + 4];

  memset(m.text, 'x', sizeof m.text);
  CHECK_ERRNO(msgsnd(id, &m, 8193, 0), EINVAL);
  CHECK_ERRNO(msgsnd(id, &m, (size_t)-1, 0), EINVAL);
  SYS(msgsnd(id, &m, 8192, 0));
  SYS(msgsnd(id, &m, 8192, 0));
  CHECK_ERRNO(msgsnd(id, &m, 1, IPC_NOWAIT), EAGAIN);
  SYS(msgsnd(id, &m, 0, IPC_NOWAIT)); /* takes no room */
  CHECK_ERRNO(msgrcv(id, small, 4, 0, 0), E2BIG);
  CHECK_EQ(msgrcv(id, small, 4, 0, MSG_NOERROR), 4);
  m.type = 0;
  CHECK_ERRNO(msgsnd(id, &m, 1, 0), EINVAL);
  CHECK_ERRNO(msgsnd(id, (void *)8, 1, 0), EFAULT);
  CHECK_ERRNO(msgsnd(id + 777, &m, 1, 0), EINVAL);
  CHECK_ERRNO(msgrcv(id, &m, (size_t)-1, 0, 0), EINVAL);
}

TEST(waiting) {
  int id = make();
  struct msqid_ds d;
  pid_t pid = CHILD(CHECK_STR(receive(id, 7, 0), "for you"));

  sleep_ms(20);
  SYS(send(id, 1, "for nobody", 0));
  SYS(send(id, 7, "for you", 0));
  WAIT_OK(pid);
  SYS(msgctl(id, IPC_STAT, &d));
  CHECK_EQ(d.msg_lrpid, pid);
  CHECK_EQ(d.msg_lspid, getpid());
  CHECK_EQ(d.msg_qnum, 1);
  CHECK_EQ(d.__msg_cbytes, 10);
  Message m = {.type = 1};
  SYS(msgsnd(id, &m, 8192, 0));
  SYS(msgsnd(id, &m, 8192 - 10, 0));
  pid = CHILD(SYS(send(id, 1, "at last", 0)));
  sleep_ms(20);
  CHECK_STR(receive(id, 0, 0), "for nobody");
  WAIT_OK(pid);
}

static void handler(int sig) { (void)sig; }

TEST(removed_and_interrupted) {
  int id = make();
  pid_t pid = CHILD({
    CHECK(receive(id, 0, 0) == NULL);
    CHECK_EQ(errno, EIDRM);
  });

  sleep_ms(20);
  SYS(msgctl(id, IPC_RMID, NULL));
  WAIT_OK(pid);
  id = (int)SYS(msgget(IPC_PRIVATE, 0600));
  pid = CHILD({
    on_signal(SIGUSR1, handler, SA_RESTART);
    CHECK(receive(id, 0, 0) == NULL);
    CHECK_EQ(errno, EINTR); /* never restarted once a handler ran */
  });
  sleep_ms(50);
  SYS(kill(pid, SIGUSR1));
  WAIT_OK(pid);
}

TEST(control) {
  int id = make(), n;
  struct msqid_ds d;
  struct msginfo i;

  SYS(msgctl(id, IPC_STAT, &d));
  d.msg_qbytes = 100;
  d.msg_perm.mode = 0666;
  SYS(msgctl(id, IPC_SET, &d));
  char text[102] = {0};
  memset(text, 'x', 101);
  CHECK_ERRNO(send(id, 1, text, IPC_NOWAIT), EAGAIN);
  CHECK_OK(n = msgctl(0, IPC_INFO, (struct msqid_ds *)&i));
  CHECK_EQ(i.msgmax, 8192);
  CHECK_EQ(i.msgmnb, 16384);
  CHECK_EQ(msgctl(n, MSG_STAT, &d), id);
  SYS(send(id, 1, "12345", 0));
  CHECK_OK(msgctl(0, MSG_INFO, (struct msqid_ds *)&i));
  CHECK_EQ(i.msgpool, 1);
  CHECK_EQ(i.msgmap, 1);
  CHECK_EQ(i.msgtql, 5);
  CHECK_ERRNO(msgctl(id, 99, &d), EINVAL);
  WAIT_OK(CHILD({
    SYS(setresuid(1000, 1000, 1000));
    CHECK_ERRNO(msgctl(id, IPC_RMID, NULL), EPERM);
    CHECK_ERRNO(msgctl(id, IPC_SET, &d), EPERM);
    CHECK_STR(receive(id, 0, 0), "12345"); /* 0666 */
  }));
}
