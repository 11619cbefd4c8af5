/* SPDX-License-Identifier: Apache-2.0 */
/* --strace: one line for each system call, in the form strace(1) users know; on standard error, or in a file (--strace-to)
 * in the form strace writes with -f, absolute and system call times in nanoseconds: TASK TIME CALL = RESULT <SECONDS>. Arguments are decoded from
 * the row's letters: d int, u unsigned, x hex, p pointer, s string, f descriptor, a directory descriptor, o octal mode,
 * O open flags, M protection, m mmap flags, S signal, T timespec. */
#include <core/trace/trace.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_STRING 64
#define NS_PER_SECOND G_GINT64_CONSTANT(1000000000)

static void add_flags(GString *s, gulong v, const char *const *names, const gulong *bits, gsize n,
                      const char *zero) {
  gsize before = s->len;
  for (gsize i = 0; i < n; i++)
    if (bits[i] && (v & bits[i]) == bits[i]) {
      g_string_append_printf(s, "%s%s", s->len > before ? "|" : "", names[i]);
      v &= ~bits[i];
    }
  if (v)
    g_string_append_printf(s, "%s%#lx", s->len > before ? "|" : "", v);
  else if (s->len == before)
    g_string_append(s, zero);
}

static void add_open_flags(GString *s, gulong v) {
  static const char *const names[] = {"O_CREAT",    "O_EXCL",    "O_NOCTTY",    "O_TRUNC",    "O_APPEND",
                                      "O_NONBLOCK", "O_TMPFILE", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC",
                                      "O_PATH",     "O_SYNC",    "O_DIRECT"};
  static const gulong bits[] = {O_CREAT,     O_EXCL,     O_NOCTTY,  O_TRUNC, O_APPEND, O_NONBLOCK, O_TMPFILE,
                                O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC, O_PATH,  O_SYNC,   O_DIRECT};
  static const char *const modes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};
  g_string_append(s, modes[v & O_ACCMODE]);
  if (v & ~(gulong)O_ACCMODE) {
    g_string_append_c(s, '|');
    add_flags(s, v & ~(gulong)O_ACCMODE, names, bits, G_N_ELEMENTS(bits), "");
  }
}

static void add_string(GString *s, TesTask *t, gulong addr) {
  char buf[MAX_STRING + 1];
  gsize n = addr ? tes_mm_copy_in(t->mm, buf, addr, MAX_STRING) : 0;
  if (n == 0) {
    g_string_append_printf(s, addr ? "%#lx" : "NULL", addr);
    return;
  }
  buf[n] = 0;
  gsize len = strlen(buf);
  g_autofree char *escaped = g_strescape(buf, NULL);
  g_string_append_printf(s, "\"%s\"%s", escaped, len == MAX_STRING ? "..." : "");
}

static void add_timespec(GString *s, TesTask *t, gulong addr) {
  struct timespec ts;
  if (addr && tes_mm_copy_in(t->mm, &ts, addr, sizeof ts) == sizeof ts)
    g_string_append_printf(s, "{tv_sec=%ld, tv_nsec=%ld}", (long)ts.tv_sec, (long)ts.tv_nsec);
  else
    g_string_append_printf(s, addr ? "%#lx" : "NULL", addr);
}

static void add_prot(GString *s, gulong v) {
  static const char *const names[] = {"PROT_READ", "PROT_WRITE", "PROT_EXEC"};
  static const gulong bits[] = {PROT_READ, PROT_WRITE, PROT_EXEC};
  add_flags(s, v, names, bits, G_N_ELEMENTS(bits), "PROT_NONE");
}

static void add_mmap_flags(GString *s, gulong v) {
  static const char *const names[] = {"MAP_SHARED",    "MAP_PRIVATE",   "MAP_FIXED",
                                      "MAP_ANONYMOUS", "MAP_GROWSDOWN", "MAP_NORESERVE",
                                      "MAP_POPULATE",  "MAP_STACK",     "MAP_DENYWRITE"};
  static const gulong bits[] = {MAP_SHARED,    MAP_PRIVATE,  MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN,
                                MAP_NORESERVE, MAP_POPULATE, MAP_STACK, MAP_DENYWRITE};
  add_flags(s, v, names, bits, G_N_ELEMENTS(bits), "0");
}

static void add_arg(GString *s, TesTask *t, char letter, gulong v) {
  switch (letter) {
  case 'a':
    if ((int)v == AT_FDCWD) {
      g_string_append(s, "AT_FDCWD");
      return;
    }
    G_GNUC_FALLTHROUGH;
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
  case 'O':
    add_open_flags(s, v & G_MAXUINT32);
    return;
  case 'M':
    add_prot(s, v);
    return;
  case 'm':
    add_mmap_flags(s, v & G_MAXUINT32);
    return;
  case 's':
    add_string(s, t, v);
    return;
  case 'T':
    add_timespec(s, t, v);
    return;
  case 'S': {
    const char *abbrev = sigabbrev_np((int)v);
    if (abbrev)
      g_string_append_printf(s, "SIG%s", abbrev);
    else
      g_string_append_printf(s, "%d", (int)v);
    return;
  }
  case 'p':
    g_string_append_printf(s, v ? "%#lx" : "NULL", v);
    return;
  default:
    g_string_append_printf(s, "%#lx", v);
  }
}

static gint64 host_nanoseconds(void) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return (gint64)ts.tv_sec * NS_PER_SECOND + ts.tv_nsec;
}

/* One write(2) for a line: the lines of several tasks do not mix. `took` < 0: no duration. */
static void emit(TesTask *t, const char *text, gint64 began, gint64 took) {
  int fd = t->kernel->strace_fd;
  if (fd <= 0) {
    g_printerr("[%d] %s\n", t->tid, text);
    return;
  }
  GString *line = g_string_new(NULL);
  g_string_append_printf(line, "%d %" G_GINT64_FORMAT ".%09d %s", t->tid, began / NS_PER_SECOND,
                         (int)(began % NS_PER_SECOND), text);
  if (took >= 0)
    g_string_append_printf(line, " <%" G_GINT64_FORMAT ".%09d>", took / NS_PER_SECOND,
                           (int)(took % NS_PER_SECOND));
  g_string_append_c(line, '\n');
  if (write(fd, line->str, line->len) < 0)
    tes_info("--strace-to: %s", g_strerror(errno));
  g_string_free(line, TRUE);
}

static void emit_event(TesTask *t, const char *text) { emit(t, text, host_nanoseconds(), -1); }

void tes_trace_enter(TesTask *t, const TesSyscall *row) {
  GString *s = g_string_new(NULL);
  if (row)
    g_string_append_printf(s, "%s(", row->name);
  else
    g_string_append_printf(s, "syscall_%lu(", t->nr);
  const char *letters = row && row->args ? row->args : "xxxxxx";
  for (int i = 0; i < 6 && letters[i]; i++) {
    if (i)
      g_string_append(s, ", ");
    add_arg(s, t, letters[i], t->args[i]);
  }
  g_string_append_c(s, ')');
  if (t->trace)
    g_string_free(t->trace, TRUE);
  t->trace = s;
  t->trace_began = host_nanoseconds();
}

static void add_result(GString *s, glong r) {
  static const struct {
    int code;
    const char *name;
  } restarts[] = {{TES_ERESTARTSYS, "ERESTARTSYS"},
                  {TES_ERESTARTNOINTR, "ERESTARTNOINTR"},
                  {TES_ERESTARTNOHAND, "ERESTARTNOHAND"},
                  {TES_ERESTART_RESTARTBLOCK, "ERESTART_RESTARTBLOCK"}};
  for (gsize i = 0; i < G_N_ELEMENTS(restarts); i++)
    if (r == -restarts[i].code) {
      g_string_append_printf(s, " = ? %s", restarts[i].name);
      return;
    }
  const char *name = r < 0 && r > -4096 ? strerrorname_np((int)-r) : NULL;
  if (name)
    g_string_append_printf(s, " = -1 %s (%s)", name, strerrordesc_np((int)-r));
  else if (r >= 0 && r < 1 << 24)
    g_string_append_printf(s, " = %ld", r);
  else
    g_string_append_printf(s, " = %#lx", r);
}

void tes_trace_leave(TesTask *t, const TesSyscall *row, glong result, guint injected) {
  (void)row;
  GString *s = g_steal_pointer(&t->trace);
  if (!s)
    return;
  gint64 took = host_nanoseconds() - t->trace_began;
  add_result(s, result);
  if (injected)
    g_string_append(s, injected & TES_INJECTED ? " (INJECTED)" : " (DELAYED)");
  emit(t, s->str, t->trace_began, MAX(took, 0));
  g_string_free(s, TRUE);
}

void tes_trace_exec(TesTask *t, char **argv) {
  g_autofree char *line = g_strjoinv(" ", argv);
  g_autofree char *text = g_strdup_printf("--- exec [%s] ---", line);
  if (t->kernel->watch & TES_WATCH_TEXT)
    emit_event(t, text);
}

void tes_trace_signal(TesTask *t, const siginfo_t *info) {
  if (!(t->kernel->watch & TES_WATCH_TEXT))
    return;
  const char *abbrev = sigabbrev_np(info->si_signo);
  g_autofree char *text =
      g_strdup_printf("--- SIG%s {si_signo=%d, si_code=%d, si_pid=%d, si_addr=%p} ---",
                      abbrev ? abbrev : "RT", info->si_signo, info->si_code, info->si_pid, info->si_addr);
  emit_event(t, text);
}

void tes_trace_exit(TesTask *t, int status) {
  GString *s = g_steal_pointer(&t->trace);
  if (s) { /* a call that did not return */
    g_string_append(s, " = ?");
    emit(t, s->str, t->trace_began, -1);
    g_string_free(s, TRUE);
  }
  g_autofree char *text = status & 0x7f ? g_strdup_printf("+++ killed by signal %d +++", status & 0x7f)
                                        : g_strdup_printf("+++ exited with %d +++", status >> 8 & 0xff);
  emit_event(t, text);
}
