/* SPDX-License-Identifier: Apache-2.0 */
/* The text of arguments. Letters of the rows: d int, u unsigned, x hex, p pointer, s string, f descriptor, a directory
 * descriptor, o octal mode, O open flags, M protection, m mmap flags, S signal, T timespec. `forms` has finer ones for calls that
 * people look at: flags (decode-flags.c) and structures (decode-struct.c), small letters for what the call fills in. */
#include <core/trace/decode.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#define MAX_STRING 256 /* of a path; as much as helps */

static const struct {
  guint nr;
  const char *letters;
} forms[] = {
    {SYS_read, "fbu"},
    {SYS_write, "fBu"},
    {SYS_pread64, "fbud"},
    {SYS_pwrite64, "fBud"},
    {SYS_readv, "fvu"},
    {SYS_writev, "fVu"},
    {SYS_preadv, "fvud"},
    {SYS_pwritev, "fVud"},
    {SYS_stat, "sz"},
    {SYS_lstat, "sz"},
    {SYS_fstat, "fz"},
    {SYS_newfstatat, "aszA"},
    {SYS_statx, "asAxp"},
    {SYS_unlinkat, "asA"},
    {SYS_linkat, "asasA"},
    {SYS_fchownat, "asddA"},
    {SYS_utimensat, "aspA"},
    {SYS_access, "sR"},
    {SYS_faccessat, "asR"},
    {SYS_faccessat2, "asRA"},
    {SYS_readlink, "sbu"},
    {SYS_readlinkat, "asbu"},
    {SYS_getcwd, "bu"},
    {SYS_lseek, "fdE"},
    {SYS_fcntl, "fFx"},
    {SYS_ioctl, "fJp"},
    {SYS_pipe, "e"},
    {SYS_pipe2, "e4"},
    {SYS_dup3, "fd4"},
    {SYS_poll, "Pud"},
    {SYS_ppoll, "PuTKu"},
    {SYS_epoll_ctl, "fjfp"},
    {SYS_nanosleep, "Tp"},
    {SYS_clock_gettime, "Ct"},
    {SYS_clock_getres, "Ct"},
    {SYS_clock_nanosleep, "CxTp"},
    {SYS_rt_sigaction, "SGgu"},
    {SYS_rt_sigprocmask, "HKku"},
    {SYS_rt_sigpending, "ku"},
    {SYS_rt_sigsuspend, "Ku"},
    {SYS_rt_sigtimedwait, "KiTu"},
    {SYS_socket, "Dhd"},
    {SYS_socketpair, "Dhde"},
    {SYS_bind, "fNu"},
    {SYS_connect, "fNu"},
    {SYS_accept, "fnp"},
    {SYS_accept4, "fnpx"},
    {SYS_getsockname, "fnp"},
    {SYS_getpeername, "fnp"},
    {SYS_sendto, "fBuINu"},
    {SYS_recvfrom, "fbuInp"},
    {SYS_sendmsg, "fLI"},
    {SYS_recvmsg, "flI"},
    {SYS_wait4, "dwWp"},
    {SYS_waitid, "ddiWp"},
    {SYS_clone, "cpppx"},
    {SYS_clone3, "3u"},
    {SYS_unshare, "c"},
    {SYS_execve, "sQp"},
    {SYS_execveat, "asQpA"},
    {SYS_futex, "pZuTpu"},
    {SYS_madvise, "puX"},
    {SYS_getrlimit, "ry"},
    {SYS_setrlimit, "rY"},
    {SYS_prlimit64, "drYy"},
};

const char *tes_decode_letters(const TesSyscall *row) {
  if (!row)
    return "xxxxxx";
  for (guint i = 0; i < G_N_ELEMENTS(forms); i++)
    if (forms[i].nr == row->nr)
      return forms[i].letters;
  return row->args ? row->args : "xxxxxx";
}

void tes_decode_bytes(GString *s, const void *data, gsize n) {
  static const char plain[] = "\b\f\n\r\t\v\\\"", after[] = "bfnrtv\\\"";
  const guint8 *p = data;
  g_string_append_c(s, '"');
  for (gsize i = 0; i < n; i++) {
    const char *special = p[i] ? strchr(plain, p[i]) : NULL;
    if (special)
      g_string_append_printf(s, "\\%c", after[special - plain]);
    else if (p[i] < ' ' || p[i] > '~')
      g_string_append_printf(s, "\\%03o", p[i]);
    else
      g_string_append_c(s, (char)p[i]);
  }
  g_string_append_c(s, '"');
}

static gboolean add_string(GString *s, TesTask *t, gulong addr) {
  char buf[MAX_STRING];
  gsize n = addr ? tes_mm_copy_in(t->mm, buf, addr, sizeof buf) : 0, len = strnlen(buf, n);
  if (n == 0)
    return FALSE;
  tes_decode_bytes(s, buf, len);
  g_string_append(s, len == n ? "..." : "");
  return TRUE;
}

static void add_pointer(GString *s, gulong v) { g_string_append_printf(s, v ? "%#lx" : "NULL", v); }

static void add_arg(GString *s, TesTask *t, char letter, guint i) {
  gulong v = t->args[i];
  TesDecode d = {.task = t, .letter = letter, .i = i, .addr = v};
  gsize before = s->len;
  switch (letter) {
  case 'a':
    if ((int)v == AT_FDCWD)
      g_string_append(s, "AT_FDCWD");
    else
      g_string_append_printf(s, "%d", (int)v);
    return;
  case 'd':
  case 'f':
    g_string_append_printf(s, "%d", (int)v);
    return;
  case 'u':
    g_string_append_printf(s, "%lu", v);
    return;
  case 'o':
    g_string_append_printf(s, "%#lo", v & 07777777);
    return;
  case 'x':
    g_string_append_printf(s, "%#lx", v);
    return;
  case 'S':
    tes_decode_signal(s, (int)v);
    return;
  case 's':
    if (!add_string(s, t, v))
      add_pointer(s, v);
    return;
  default:
    if (tes_decode_flags(s, letter, v))
      return;
    if (!v || !tes_decode_struct(s, &d))
      add_pointer(g_string_truncate(s, before), v);
  }
}

char *tes_decode_arg(TesTask *t, char letter, guint i) {
  GString *s = g_string_new(NULL);
  add_arg(s, t, letter, i);
  return g_string_free(s, FALSE);
}

char *tes_decode_result(TesTask *t, char letter, guint i, glong result) {
  TesDecode d = {.task = t, .letter = letter, .i = i, .addr = t->args[i], .result = result, .after = TRUE};
  if (result < 0 || !d.addr || !strchr("bvlntkgizwyeP", letter))
    return NULL;
  GString *s = g_string_new(NULL);
  gboolean ok = tes_decode_struct(s, &d);
  char *text = g_string_free(s, !ok);
  return ok ? text : NULL;
}
