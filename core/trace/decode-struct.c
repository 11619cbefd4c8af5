/* SPDX-License-Identifier: Apache-2.0 */
/* Structures that arguments point to, in strace(1)'s way of writing them. All of it is the guest's memory: it is copied once, and
 * how much is shown is bounded whatever counts it gives. */
#include <arpa/inet.h>
#include <core/trace/decode.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

#define MAX_DATA 64  /* bytes of a buffer */
#define MAX_ITEMS 16 /* of an array */

static gboolean get(const TesDecode *d, gulong addr, gpointer out, gsize n) {
  return addr && tes_mm_copy_in(d->task->mm, out, addr, n) == n;
}
static gulong next(const TesDecode *d) { return d->i < 5 ? d->task->args[d->i + 1] : 0; }
#define GET(d, value) get(d, (d)->addr, &(value), sizeof(value))

static gboolean add_data(GString *s, const TesDecode *d, gulong addr, gulong n) {
  char buf[MAX_DATA] = "";
  gsize want = MIN(n, MAX_DATA), got = want ? tes_mm_copy_in(d->task->mm, buf, addr, want) : 0;
  if (got < want)
    return FALSE;
  tes_decode_bytes(s, buf, got);
  g_string_append(s, n > got ? "..." : "");
  return TRUE;
}

static gboolean add_iov(GString *s, const TesDecode *d, gulong addr, gulong count, gulong limit) {
  struct iovec v[MAX_ITEMS];
  gsize n = MIN(count, MAX_ITEMS);
  if (n && !get(d, addr, v, n * sizeof *v))
    return FALSE;
  g_string_append_c(s, '[');
  for (gsize i = 0; i < n; i++) {
    gulong shown = MIN(v[i].iov_len, limit);
    limit -= shown;
    g_string_append_printf(s, "%s{iov_base=", i ? ", " : "");
    if (!add_data(s, d, (gulong)v[i].iov_base, shown))
      g_string_append_printf(s, "%#lx", (gulong)v[i].iov_base);
    g_string_append_printf(s, ", iov_len=%zu}", v[i].iov_len);
  }
  g_string_append(s, count > n ? ", ...]" : "]");
  return TRUE;
}

static gboolean add_sockaddr(GString *s, const TesDecode *d, gulong addr, gulong len) {
  union {
    struct sockaddr_storage any;
    struct sockaddr_un un;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
  } a;
  char text[INET6_ADDRSTRLEN];
  memset(&a, 0, sizeof a);
  len = MIN(len, sizeof a);
  if (len < sizeof(sa_family_t) || !get(d, addr, &a, len))
    return FALSE;
  g_string_append(s, "{sa_family=");
  tes_decode_flags(s, 'D', a.any.ss_family);
  if (a.any.ss_family == AF_UNIX && len > offsetof(struct sockaddr_un, sun_path)) {
    gsize n = MIN(len - offsetof(struct sockaddr_un, sun_path), sizeof a.un.sun_path);
    gboolean abstract = !a.un.sun_path[0];
    g_string_append(s, abstract ? ", sun_path=@" : ", sun_path=");
    tes_decode_bytes(s, a.un.sun_path + abstract, abstract ? n - 1 : strnlen(a.un.sun_path, n));
  } else if (a.any.ss_family == AF_INET && len >= sizeof a.in) {
    g_string_append_printf(s, ", sin_port=htons(%u), sin_addr=inet_addr(\"%s\")", ntohs(a.in.sin_port),
                           inet_ntop(AF_INET, &a.in.sin_addr, text, sizeof text));
  } else if (a.any.ss_family == AF_INET6 && len >= sizeof a.in6) {
    g_string_append_printf(s, ", sin6_port=htons(%u), inet_pton(AF_INET6, \"%s\")", ntohs(a.in6.sin6_port),
                           inet_ntop(AF_INET6, &a.in6.sin6_addr, text, sizeof text));
  }
  g_string_append_c(s, '}');
  return TRUE;
}

static gboolean add_sockaddr_out(GString *s, const TesDecode *d) {
  guint32 len;
  return get(d, next(d), &len, sizeof len) && add_sockaddr(s, d, d->addr, len);
}

static gboolean add_msghdr(GString *s, const TesDecode *d, gulong limit) {
  struct msghdr m;
  if (!GET(d, m))
    return FALSE;
  g_string_append(s, "{msg_name=");
  if (!m.msg_name || !add_sockaddr(s, d, (gulong)m.msg_name, m.msg_namelen))
    g_string_append_printf(s, m.msg_name ? "%#lx" : "NULL", (gulong)m.msg_name);
  g_string_append_printf(s, ", msg_namelen=%u, msg_iov=", m.msg_namelen);
  if (!add_iov(s, d, (gulong)m.msg_iov, m.msg_iovlen, limit))
    g_string_append_printf(s, "%#lx", (gulong)m.msg_iov);
  g_string_append_printf(s, ", msg_iovlen=%zu, msg_controllen=%zu, msg_flags=", m.msg_iovlen,
                         m.msg_controllen);
  tes_decode_flags(s, 'I', (guint)m.msg_flags);
  g_string_append_c(s, '}');
  return TRUE;
}

static gboolean add_poll(GString *s, const TesDecode *d) {
  struct pollfd p[MAX_ITEMS];
  gulong count = next(d);
  gsize n = MIN(count, MAX_ITEMS);
  if (n && !get(d, d->addr, p, n * sizeof *p))
    return FALSE;
  g_string_append_c(s, '[');
  for (gsize i = 0; i < n; i++) {
    g_string_append_printf(s, "%s{fd=%d, events=", i ? ", " : "", p[i].fd);
    tes_decode_flags(s, '1', (guint16)p[i].events);
    if (d->after) {
      g_string_append(s, ", revents=");
      tes_decode_flags(s, '1', (guint16)p[i].revents);
    }
    g_string_append_c(s, '}');
  }
  g_string_append(s, count > n ? ", ...]" : "]");
  return TRUE;
}

static void add_set(GString *s, guint64 set) {
  gboolean most = __builtin_popcountll(set) > 32;
  g_string_append(s, most ? "~[" : "[");
  const char *gap = "";
  for (int sig = 1; sig <= TES_NSIG; sig++)
    if (((set & TES_SIGMASK(sig)) == 0) == most) {
      const char *abbrev = sigabbrev_np(sig);
      if (abbrev)
        g_string_append_printf(s, "%s%s", gap, abbrev);
      else
        g_string_append_printf(s, "%sRT_%d", gap, sig - 32);
      gap = " ";
    }
  g_string_append_c(s, ']');
}

static gboolean add_sigset(GString *s, const TesDecode *d) {
  guint64 set;
  if (!GET(d, set))
    return FALSE;
  add_set(s, set);
  return TRUE;
}

static gboolean add_sigaction(GString *s, const TesDecode *d) {
  TesSigAction a;
  if (!GET(d, a))
    return FALSE;
  g_string_append(s, "{sa_handler=");
  if (a.handler < 2)
    g_string_append(s, a.handler ? "SIG_IGN" : "SIG_DFL");
  else
    g_string_append_printf(s, "%#lx", (gulong)a.handler);
  g_string_append(s, ", sa_mask=");
  add_set(s, a.mask);
  g_string_append(s, ", sa_flags=");
  tes_decode_flags(s, '2', a.flags & G_MAXUINT32);
  g_string_append_c(s, '}');
  return TRUE;
}

static gboolean add_siginfo(GString *s, const TesDecode *d) {
  siginfo_t i;
  if (!GET(d, i))
    return FALSE;
  g_string_append(s, "{si_signo=");
  tes_decode_signal(s, i.si_signo);
  g_string_append_printf(s, ", si_code=%d, si_pid=%d, si_uid=%u}", i.si_code, i.si_pid, i.si_uid);
  return TRUE;
}

/* As strace does without -v. */
static gboolean add_stat(GString *s, const TesDecode *d) {
  static const char *const kinds[16] = {[1] = "S_IFIFO", [2] = "S_IFCHR",  [4] = "S_IFDIR",  [6] = "S_IFBLK",
                                        [8] = "S_IFREG", [10] = "S_IFLNK", [12] = "S_IFSOCK"};
  struct stat st;
  if (!GET(d, st))
    return FALSE;
  const char *kind = kinds[st.st_mode >> 12 & 15];
  g_string_append_printf(s, "{st_mode=%s|%#o, ", kind ? kind : "0", st.st_mode & 07777);
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
    g_string_append_printf(s, "st_rdev=makedev(%#x, %#x), ...}", major(st.st_rdev), minor(st.st_rdev));
  else
    g_string_append_printf(s, "st_size=%ld, ...}", (long)st.st_size);
  return TRUE;
}

static gboolean add_wait_status(GString *s, const TesDecode *d) {
  int w;
  if (d->result <= 0 || !GET(d, w))
    return FALSE;
  if (WIFEXITED(w)) {
    g_string_append_printf(s, "[{WIFEXITED(s) && WEXITSTATUS(s) == %d}]", WEXITSTATUS(w));
  } else if (WIFCONTINUED(w)) {
    g_string_append(s, "[{WIFCONTINUED(s)}]");
  } else {
    g_string_append(s, WIFSTOPPED(w) ? "[{WIFSTOPPED(s) && WSTOPSIG(s) == "
                                     : "[{WIFSIGNALED(s) && WTERMSIG(s) == ");
    tes_decode_signal(s, WIFSTOPPED(w) ? WSTOPSIG(w) : WTERMSIG(w));
    g_string_append(s, "}]");
  }
  return TRUE;
}

static gboolean add_timespec(GString *s, const TesDecode *d) {
  struct timespec ts;
  if (!GET(d, ts))
    return FALSE;
  g_string_append_printf(s, "{tv_sec=%ld, tv_nsec=%ld}", (long)ts.tv_sec, (long)ts.tv_nsec);
  return TRUE;
}

static gboolean add_rlimit(GString *s, const TesDecode *d) {
  guint64 r[2];
  if (!GET(d, r))
    return FALSE;
  static const char *const names[] = {"{rlim_cur=", ", rlim_max="};
  for (int i = 0; i < 2; i++)
    if (r[i] == G_MAXUINT64)
      g_string_append_printf(s, "%sRLIM64_INFINITY", names[i]);
    else
      g_string_append_printf(s, "%s%" G_GUINT64_FORMAT, names[i], r[i]);
  g_string_append_c(s, '}');
  return TRUE;
}

static gboolean add_pair(GString *s, const TesDecode *d) {
  int fd[2];
  if (!GET(d, fd))
    return FALSE;
  g_string_append_printf(s, "[%d, %d]", fd[0], fd[1]);
  return TRUE;
}

static gboolean add_argv(GString *s, const TesDecode *d) {
  gulong p[MAX_ITEMS + 1];
  gsize n = tes_mm_copy_in(d->task->mm, p, d->addr, sizeof p) / sizeof *p;
  g_string_append_c(s, '[');
  for (gsize i = 0; i < n && p[i]; i++) {
    char text[MAX_DATA + 1];
    gsize got = i < MAX_ITEMS ? tes_mm_copy_in(d->task->mm, text, p[i], MAX_DATA) : 0;
    g_string_append(s, i ? ", " : "");
    if (got)
      tes_decode_bytes(s, text, strnlen(text, got));
    g_string_append(s, !got || (got == MAX_DATA && !memchr(text, 0, got)) ? "..." : "");
  }
  g_string_append_c(s, ']');
  return n > 0;
}

static gboolean add_clone_args(GString *s, const TesDecode *d) {
  guint64 a[8]; /* clone3(2): flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls */
  if (next(d) < sizeof a || !GET(d, a))
    return FALSE;
  g_string_append(s, "{flags=");
  tes_decode_flags(s, 'c', a[0] & ~(guint64)0xff);
  g_string_append(s, ", exit_signal=");
  tes_decode_signal(s, (int)a[4]);
  g_string_append_printf(s, ", stack=%#lx, stack_size=%#lx}", (gulong)a[5], (gulong)a[6]);
  return TRUE;
}

static gboolean add_output(GString *s, const TesDecode *d) {
  gulong n = d->result > 0 ? (gulong)d->result : 0;
  switch (d->letter) {
  case 'b':
    return add_data(s, d, d->addr, n);
  case 'v':
    return add_iov(s, d, d->addr, next(d), n);
  case 'l':
    return add_msghdr(s, d, n);
  case 'n':
    return add_sockaddr_out(s, d);
  case 't':
    return add_timespec(s, d);
  case 'k':
    return add_sigset(s, d);
  case 'g':
    return add_sigaction(s, d);
  case 'i':
    return add_siginfo(s, d);
  case 'z':
    return add_stat(s, d);
  case 'w':
    return add_wait_status(s, d);
  case 'y':
    return add_rlimit(s, d);
  case 'e':
    return add_pair(s, d);
  case 'P':
    return add_poll(s, d);
  default:
    return FALSE;
  }
}

gboolean tes_decode_struct(GString *s, const TesDecode *d) {
  if (d->after)
    return add_output(s, d);
  switch (d->letter) {
  case 'B':
    return add_data(s, d, d->addr, next(d));
  case 'V':
    return add_iov(s, d, d->addr, next(d), G_MAXULONG);
  case 'L':
    return add_msghdr(s, d, G_MAXULONG);
  case 'N':
    return add_sockaddr(s, d, d->addr, next(d));
  case 'T':
    return add_timespec(s, d);
  case 'K':
    return add_sigset(s, d);
  case 'G':
    return add_sigaction(s, d);
  case 'Y':
    return add_rlimit(s, d);
  case 'P':
    return add_poll(s, d);
  case 'Q':
    return add_argv(s, d);
  case '3':
    return add_clone_args(s, d);
  default:
    return FALSE;
  }
}
