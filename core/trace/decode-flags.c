/* SPDX-License-Identifier: Apache-2.0 */
/* Names of flags and constants in system calls' arguments. */
#include <asm/termbits.h>
#include <core/trace/decode.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

typedef struct {
  gulong v;
  const char *name;
} Name;
#define N(x) \
  { (gulong)(x), #x }
#define END \
  { 0, NULL }

static void add_bits(GString *s, gulong v, const Name *names, const char *zero) {
  gsize before = s->len;
  for (; names->name; names++)
    if (names->v && (v & names->v) == names->v) {
      g_string_append_printf(s, "%s%s", s->len > before ? "|" : "", names->name);
      v &= ~names->v;
    }
  if (v)
    g_string_append_printf(s, "%s%#lx", s->len > before ? "|" : "", v);
  else if (s->len == before)
    g_string_append(s, zero);
}

static void add_name(GString *s, gulong v, const Name *names) {
  for (; names->name; names++)
    if (names->v == v) {
      g_string_append(s, names->name);
      return;
    }
  g_string_append_printf(s, "%#lx", v);
}

static const Name open_flags[] = {N(O_CREAT),    N(O_EXCL),     N(O_NOCTTY),  N(O_TRUNC),
                                  N(O_APPEND),   N(O_NONBLOCK), N(O_TMPFILE), N(O_DIRECTORY),
                                  N(O_NOFOLLOW), N(O_CLOEXEC),  N(O_PATH),    N(O_SYNC),
                                  N(O_DSYNC),    N(O_DIRECT),   N(O_NOATIME), END};
static const Name prot[] = {N(PROT_READ), N(PROT_WRITE), N(PROT_EXEC), N(PROT_GROWSDOWN), END};
static const Name map[] = {
    N(MAP_SHARED_VALIDATE), N(MAP_SHARED),    N(MAP_PRIVATE),  N(MAP_FIXED),           N(MAP_ANONYMOUS),
    N(MAP_GROWSDOWN),       N(MAP_NORESERVE), N(MAP_POPULATE), N(MAP_STACK),           N(MAP_DENYWRITE),
    N(MAP_LOCKED),          N(MAP_HUGETLB),   N(MAP_NONBLOCK), N(MAP_FIXED_NOREPLACE), END};
static const Name at[] = {N(AT_SYMLINK_NOFOLLOW),
                          N(AT_REMOVEDIR),
                          N(AT_SYMLINK_FOLLOW),
                          N(AT_NO_AUTOMOUNT),
                          N(AT_EMPTY_PATH),
                          N(AT_RECURSIVE),
                          END};
static const Name clones[] = {N(CLONE_VM),
                              N(CLONE_FS),
                              N(CLONE_FILES),
                              N(CLONE_SIGHAND),
                              N(CLONE_PIDFD),
                              N(CLONE_PTRACE),
                              N(CLONE_VFORK),
                              N(CLONE_PARENT),
                              N(CLONE_THREAD),
                              N(CLONE_NEWNS),
                              N(CLONE_SYSVSEM),
                              N(CLONE_SETTLS),
                              N(CLONE_PARENT_SETTID),
                              N(CLONE_CHILD_CLEARTID),
                              N(CLONE_CHILD_SETTID),
                              N(CLONE_NEWCGROUP),
                              N(CLONE_NEWUTS),
                              N(CLONE_NEWIPC),
                              N(CLONE_NEWUSER),
                              N(CLONE_NEWPID),
                              N(CLONE_NEWNET),
                              N(CLONE_IO),
                              END};
static const Name clocks[] = {N(CLOCK_REALTIME),
                              N(CLOCK_MONOTONIC),
                              N(CLOCK_PROCESS_CPUTIME_ID),
                              N(CLOCK_THREAD_CPUTIME_ID),
                              N(CLOCK_MONOTONIC_RAW),
                              N(CLOCK_REALTIME_COARSE),
                              N(CLOCK_MONOTONIC_COARSE),
                              N(CLOCK_BOOTTIME),
                              N(CLOCK_TAI),
                              END};
static const Name hows[] = {N(SIG_BLOCK), N(SIG_UNBLOCK), N(SIG_SETMASK), END};
static const Name whences[] = {N(SEEK_SET),      N(SEEK_CUR),      N(SEEK_END),
                               {3, "SEEK_DATA"}, {4, "SEEK_HOLE"}, END};
static const Name waits[] = {N(WNOHANG),
                             N(WUNTRACED),
                             N(WEXITED),
                             N(WCONTINUED),
                             N(WNOWAIT),
                             {0x20000000, "__WNOTHREAD"},
                             {0x40000000, "__WALL"},
                             {0x80000000, "__WCLONE"},
                             END};
static const Name families[] = {N(AF_UNIX),   N(AF_INET),   N(AF_INET6), N(AF_NETLINK),
                                N(AF_PACKET), N(AF_UNSPEC), N(AF_VSOCK), END};
static const Name types[] = {N(SOCK_STREAM), N(SOCK_DGRAM), N(SOCK_RAW), N(SOCK_SEQPACKET), END};
static const Name type_bits[] = {N(SOCK_CLOEXEC), N(SOCK_NONBLOCK), END};
static const Name messages[] = {N(MSG_OOB),      N(MSG_PEEK),     N(MSG_DONTROUTE),    N(MSG_CTRUNC),
                                N(MSG_TRUNC),    N(MSG_DONTWAIT), N(MSG_EOR),          N(MSG_WAITALL),
                                N(MSG_NOSIGNAL), N(MSG_MORE),     N(MSG_CMSG_CLOEXEC), END};
static const Name fcntls[] = {N(F_DUPFD),
                              N(F_GETFD),
                              N(F_SETFD),
                              N(F_GETFL),
                              N(F_SETFL),
                              N(F_GETLK),
                              N(F_SETLK),
                              N(F_SETLKW),
                              N(F_SETOWN),
                              N(F_GETOWN),
                              N(F_SETSIG),
                              N(F_GETSIG),
                              N(F_OFD_GETLK),
                              N(F_OFD_SETLK),
                              N(F_OFD_SETLKW),
                              N(F_SETLEASE),
                              N(F_GETLEASE),
                              N(F_DUPFD_CLOEXEC),
                              N(F_SETPIPE_SZ),
                              N(F_GETPIPE_SZ),
                              N(F_ADD_SEALS),
                              N(F_GET_SEALS),
                              END};
static const Name ioctls[] = {N(TCGETS),
                              N(TCSETS),
                              N(TCSETSW),
                              N(TCSETSF),
                              N(TIOCGWINSZ),
                              N(TIOCSWINSZ),
                              N(TIOCGPGRP),
                              N(TIOCSPGRP),
                              N(TIOCGSID),
                              N(TIOCSCTTY),
                              N(TIOCNOTTY),
                              N(FIONREAD),
                              N(FIONBIO),
                              N(FIOCLEX),
                              N(FIONCLEX),
                              N(FIOASYNC),
                              N(TIOCGPTN),
                              N(TIOCSPTLCK),
                              N(TIOCGPTPEER),
                              N(TIOCOUTQ),
                              N(TCSBRK),
                              N(TCFLSH),
                              N(TCXONC),
                              N(TIOCPKT),
                              N(TIOCSTI),
                              {0x40049409, "FICLONE"},
                              {0x4020940d, "FICLONERANGE"},
                              {0x80086601, "FS_IOC_GETFLAGS"},
                              {0x40086602, "FS_IOC_SETFLAGS"},
                              {0xc020660b, "FS_IOC_FIEMAP"},
                              END};
static const Name futexes[] = {N(FUTEX_WAIT),
                               N(FUTEX_WAKE),
                               N(FUTEX_REQUEUE),
                               N(FUTEX_CMP_REQUEUE),
                               N(FUTEX_WAKE_OP),
                               N(FUTEX_LOCK_PI),
                               N(FUTEX_UNLOCK_PI),
                               N(FUTEX_TRYLOCK_PI),
                               N(FUTEX_WAIT_BITSET),
                               N(FUTEX_WAKE_BITSET),
                               N(FUTEX_WAIT_REQUEUE_PI),
                               N(FUTEX_CMP_REQUEUE_PI),
                               N(FUTEX_LOCK_PI2),
                               END};
static const Name resources[] = {N(RLIMIT_CPU),
                                 N(RLIMIT_FSIZE),
                                 N(RLIMIT_DATA),
                                 N(RLIMIT_STACK),
                                 N(RLIMIT_CORE),
                                 N(RLIMIT_RSS),
                                 N(RLIMIT_NPROC),
                                 N(RLIMIT_NOFILE),
                                 N(RLIMIT_MEMLOCK),
                                 N(RLIMIT_AS),
                                 N(RLIMIT_LOCKS),
                                 N(RLIMIT_SIGPENDING),
                                 N(RLIMIT_MSGQUEUE),
                                 N(RLIMIT_NICE),
                                 N(RLIMIT_RTPRIO),
                                 N(RLIMIT_RTTIME),
                                 END};
static const Name accesses[] = {{4, "R_OK"}, {2, "W_OK"}, {1, "X_OK"}, END};
static const Name epolls[] = {N(EPOLL_CTL_ADD), N(EPOLL_CTL_DEL), N(EPOLL_CTL_MOD), END};
static const Name advices[] = {N(MADV_NORMAL),
                               N(MADV_RANDOM),
                               N(MADV_SEQUENTIAL),
                               N(MADV_WILLNEED),
                               N(MADV_DONTNEED),
                               N(MADV_FREE),
                               N(MADV_HUGEPAGE),
                               N(MADV_NOHUGEPAGE),
                               N(MADV_DONTFORK),
                               N(MADV_DONTDUMP),
                               END};
static const Name polls[] = {
    {1, "POLLIN"},      {2, "POLLPRI"},       {4, "POLLOUT"},        {8, "POLLERR"},        {0x10, "POLLHUP"},
    {0x20, "POLLNVAL"}, {0x40, "POLLRDNORM"}, {0x100, "POLLWRNORM"}, {0x2000, "POLLRDHUP"}, END};
static const Name actions[] = {N(SA_NOCLDSTOP),
                               N(SA_NOCLDWAIT),
                               N(SA_SIGINFO),
                               N(SA_ONSTACK),
                               N(SA_RESTART),
                               N(SA_NODEFER),
                               N(SA_RESETHAND),
                               {0x04000000, "SA_RESTORER"},
                               END};

/* Letters with one table. */
static const struct {
  char letter;
  gboolean bits;
  const Name *names;
  const char *zero;
} tables[] = {{'M', TRUE, prot, "PROT_NONE"}, {'4', TRUE, open_flags, "0"}, {'m', TRUE, map, "0"},
              {'A', TRUE, at, "0"},           {'C', FALSE, clocks, NULL},   {'H', FALSE, hows, NULL},
              {'E', FALSE, whences, NULL},    {'W', TRUE, waits, "0"},      {'D', FALSE, families, NULL},
              {'F', FALSE, fcntls, NULL},     {'J', FALSE, ioctls, NULL},   {'r', FALSE, resources, NULL},
              {'R', TRUE, accesses, "F_OK"},  {'j', FALSE, epolls, NULL},   {'X', FALSE, advices, NULL},
              {'I', TRUE, messages, "0"},     {'1', TRUE, polls, "0"},      {'2', TRUE, actions, "0"}};

void tes_decode_signal(GString *s, int sig) {
  const char *abbrev = sigabbrev_np(sig);
  if (abbrev)
    g_string_append_printf(s, "SIG%s", abbrev);
  else if (sig >= 32 && sig <= TES_NSIG)
    g_string_append_printf(s, "SIGRT_%d", sig - 32);
  else
    g_string_append_printf(s, "%d", sig);
}

/* Those with a number in some bits and flags in the others. */
static gboolean add_mixed(GString *s, char letter, gulong v) {
  static const char *const modes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};
  switch (letter) {
  case 'O':
    g_string_append(s, modes[v & O_ACCMODE]);
    v &= ~(gulong)O_ACCMODE & G_MAXUINT32;
    if (v)
      add_bits(g_string_append_c(s, '|'), v, open_flags, "");
    return TRUE;
  case 'c': /* clone(2): the exit signal in the low byte */
    add_bits(s, v & ~0xffUL, clones, v & 0xff ? "" : "0");
    if (v & 0xff) {
      if (s->len && s->str[s->len - 1] != '(' && v & ~0xffUL)
        g_string_append_c(s, '|');
      tes_decode_signal(s, (int)(v & 0xff));
    }
    return TRUE;
  case 'h':
    add_name(s, v & 0xf, types);
    if (v & ~0xfUL)
      add_bits(g_string_append_c(s, '|'), v & ~0xfUL, type_bits, "");
    return TRUE;
  case 'Z':
    add_name(s, v & 0x7f, futexes);
    g_string_append(s, v & FUTEX_PRIVATE_FLAG ? "_PRIVATE" : "");
    g_string_append(s, v & FUTEX_CLOCK_REALTIME ? "|FUTEX_CLOCK_REALTIME" : "");
    return TRUE;
  default:
    return FALSE;
  }
}

gboolean tes_decode_flags(GString *s, char letter, gulong v) {
  for (guint i = 0; i < G_N_ELEMENTS(tables); i++)
    if (tables[i].letter == letter) {
      v = letter == 'F' || letter == 'J' || letter == 'm' || letter == 'A' || letter == 'W' ? v & G_MAXUINT32
                                                                                            : v;
      if (tables[i].bits)
        add_bits(s, v, tables[i].names, tables[i].zero);
      else
        add_name(s, v, tables[i].names);
      return TRUE;
    }
  return add_mixed(s, letter, v);
}
