/* SPDX-License-Identifier: Apache-2.0 */
/* --strace: one line for each system call, in the form strace(1) users know; on standard error, or in a file (--strace-to)
 * in the form strace writes with -f, absolute and system call times in nanoseconds: TASK TIME CALL = RESULT <SECONDS>.
 * The same calls go to json.c, if that is on. decode.c has the arguments. */
#include <core/trace/decode.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_SECOND G_GINT64_CONSTANT(1000000000)

gint64 tes_watch_now(void) {
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

static void emit_event(TesTask *t, const char *text) {
  if (t->kernel->watch & TES_WATCH_TEXT)
    emit(t, text, tes_watch_now(), -1);
}

static const char *letters_of(TesTask *t, const TesSyscall *row) {
  gboolean plain = ((TesWatch *)t->kernel->watching)->plain;
  return plain && row && row->args ? row->args : tes_decode_letters(row);
}

void tes_trace_call_free(gpointer p) {
  TesTraceCall *c = p;
  if (!c)
    return;
  for (guint i = 0; i < c->n; i++)
    g_free(c->arg[i]);
  g_free(c);
}

void tes_trace_enter(TesTask *t, const TesSyscall *row) {
  TesTraceCall *c = g_new0(TesTraceCall, 1);
  const char *letters = letters_of(t, row);
  c->nr = t->nr;
  memcpy(c->raw, t->args, sizeof c->raw);
  for (; c->n < 6 && letters[c->n]; c->n++)
    c->arg[c->n] = tes_decode_arg(t, letters[c->n], c->n);
  if (((TesWatch *)t->kernel->watching)->json_regs && t->kernel->watch & TES_WATCH_JSON) {
    c->regs = *tes_task_regs(t, FALSE);
    c->have_regs = TRUE;
  }
  tes_trace_call_free(t->trace);
  t->trace = c;
  c->row = row;
  c->began = tes_watch_now();
}

const char *tes_restart_name(glong r) {
  switch (-r) {
  case TES_ERESTARTSYS:
    return "ERESTARTSYS";
  case TES_ERESTARTNOINTR:
    return "ERESTARTNOINTR";
  case TES_ERESTARTNOHAND:
    return "ERESTARTNOHAND";
  case TES_ERESTART_RESTARTBLOCK:
    return "ERESTART_RESTARTBLOCK";
  default:
    return NULL;
  }
}

static void add_result(GString *s, glong r) {
  const char *restart = tes_restart_name(r), *name = r < 0 && r > -4096 ? strerrorname_np((int)-r) : NULL;
  if (restart)
    g_string_append_printf(s, " = ? %s", restart);
  else if (name)
    g_string_append_printf(s, " = -1 %s (%s)", name, strerrordesc_np((int)-r));
  else if (r >= 0 && r < 1 << 24)
    g_string_append_printf(s, " = %ld", r);
  else
    g_string_append_printf(s, " = %#lx", r);
}

static GString *call_text(const TesTraceCall *c) {
  GString *s = g_string_new(NULL);
  if (c->row)
    g_string_append_printf(s, "%s(", c->row->name);
  else
    g_string_append_printf(s, "syscall_%lu(", c->nr);
  for (guint i = 0; i < c->n; i++)
    g_string_append_printf(s, "%s%s", i ? ", " : "", c->arg[i]);
  return g_string_append_c(s, ')');
}

void tes_trace_leave(TesTask *t, const TesSyscall *row, glong result, guint injected) {
  TesTraceCall *c = g_steal_pointer(&t->trace);
  if (!c)
    return;
  gint64 took = MAX(tes_watch_now() - c->began, 0);
  const char *letters = letters_of(t, row);
  for (guint i = 0; i < c->n && !t->no_result; i++) {
    char *text = tes_decode_result(t, letters[i], i, result);
    if (text) {
      g_free(c->arg[i]);
      c->arg[i] = text;
    }
  }
  if (t->kernel->watch & TES_WATCH_TEXT) {
    GString *s = call_text(c);
    add_result(s, result);
    if (injected)
      g_string_append(s, injected & TES_INJECTED ? " (INJECTED)" : " (DELAYED)");
    emit(t, s->str, c->began, took);
    g_string_free(s, TRUE);
  }
  if (t->kernel->watch & TES_WATCH_JSON)
    tes_json_call(t, row, c, &result, took, injected);
  tes_trace_call_free(c);
}

void tes_trace_exec(TesTask *t, char **argv) {
  g_autofree char *line = g_strjoinv(" ", argv);
  g_autofree char *text = g_strdup_printf("--- exec [%s] ---", line);
  emit_event(t, text);
  if (t->kernel->watch & TES_WATCH_JSON)
    tes_json_exec(t, (const char *const *)argv);
}

void tes_trace_signal(TesTask *t, const siginfo_t *info) {
  const char *abbrev = sigabbrev_np(info->si_signo);
  g_autofree char *text =
      g_strdup_printf("--- SIG%s {si_signo=%d, si_code=%d, si_pid=%d, si_addr=%p} ---",
                      abbrev ? abbrev : "RT", info->si_signo, info->si_code, info->si_pid, info->si_addr);
  emit_event(t, text);
  if (t->kernel->watch & TES_WATCH_JSON)
    tes_json_signal(t, info);
}

void tes_trace_exit(TesTask *t, int status) {
  TesTraceCall *c = g_steal_pointer(&t->trace);
  if (c && t->kernel->watch & TES_WATCH_TEXT) { /* a call that did not return */
    GString *s = call_text(c);
    g_string_append(s, " = ?");
    emit(t, s->str, c->began, -1);
    g_string_free(s, TRUE);
  }
  if (c && t->kernel->watch & TES_WATCH_JSON)
    tes_json_call(t, c->row, c, NULL, 0, 0);
  tes_trace_call_free(c);
  g_autofree char *text = status & 0x7f ? g_strdup_printf("+++ killed by signal %d +++", status & 0x7f)
                                        : g_strdup_printf("+++ exited with %d +++", status >> 8 & 0xff);
  emit_event(t, text);
  if (t->kernel->watch & TES_WATCH_JSON)
    tes_json_exit(t, status);
}
