/* SPDX-License-Identifier: Apache-2.0 */
/* --trace=json: one JSON object (RFC 8259) for each event, on a line of its own, written with one write(2). docs/tracing.md lists
 * the members. What is not UTF-8 becomes U+FFFD. */
#include <core/trace/decode.h>
#include <string.h>
#include <unistd.h>

static void add_text(GString *s, const char *text) {
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  g_string_append_c(s, '"');
  for (const char *p = valid; *p; p++)
    if (*p == '"' || *p == '\\')
      g_string_append_printf(s, "\\%c", *p);
    else if ((guint8)*p < ' ' || *p == 0x7f)
      g_string_append_printf(s, "\\u%04x", (guint8)*p);
    else
      g_string_append_c(s, *p);
  g_string_append_c(s, '"');
}

static void add_key(GString *s, const char *key, const char *text) {
  g_string_append_printf(s, ",\"%s\":", key);
  add_text(s, text);
}

static GString *begin(TesTask *t, const char *event, gint64 ns) {
  GString *s = g_string_sized_new(256);
  g_string_append_printf(s, "{\"event\":\"%s\",\"time\":%" G_GINT64_FORMAT ".%09d,\"task\":%d,\"pid\":%d",
                         event, ns / 1000000000, (int)(ns % 1000000000), t->tid, t->tg->tgid);
  char comm[sizeof t->comm + 1] = {0};
  memcpy(comm, t->comm, sizeof t->comm);
  add_key(s, "comm", comm);
  return s;
}

static void end(TesTask *t, GString *s) {
  g_string_append(s, "}\n");
  int fd = ((TesWatch *)t->kernel->watching)->json_fd;
  if (write(fd, s->str, s->len) < 0)
    tes_info("--trace=json: %s", g_strerror(errno));
  g_string_free(s, TRUE);
}

static void add_regs(GString *s, const TesRegs *r) {
#define REG(x) \
  { #x, r->x }
  const struct {
    const char *name;
    guint64 v;
  } regs[] = {REG(rax), REG(rbx), REG(rcx), REG(rdx),    REG(rsi),     REG(rdi),    REG(rbp),
              REG(rsp), REG(r8),  REG(r9),  REG(r10),    REG(r11),     REG(r12),    REG(r13),
              REG(r14), REG(r15), REG(rip), REG(eflags), REG(fs_base), REG(gs_base)};
#undef REG
  g_string_append(s, ",\"regs\":{");
  for (guint i = 0; i < G_N_ELEMENTS(regs); i++)
    g_string_append_printf(s, "%s\"%s\":\"%#" G_GINT64_MODIFIER "x\"", i ? "," : "", regs[i].name, regs[i].v);
  g_string_append_c(s, '}');
}

void tes_json_call(TesTask *t, const TesSyscall *row, const TesTraceCall *c, const glong *result, gint64 took,
                   guint injected) {
  GString *s = begin(t, "syscall", c->began);
  g_string_append_printf(s, ",\"nr\":%lu", c->nr);
  if (row)
    add_key(s, "name", row->name);
  g_string_append(s, ",\"args\":[");
  for (guint i = 0; i < c->n; i++) {
    g_string_append(s, i ? "," : "");
    add_text(s, c->arg[i]);
  }
  g_string_append(s, "],\"raw\":[");
  for (guint i = 0; i < c->n; i++)
    g_string_append_printf(s, "%s\"%#lx\"", i ? "," : "", c->raw[i]);
  g_string_append_c(s, ']');
  if (result) {
    g_string_append_printf(s, ",\"result\":%ld", *result);
    const char *name = *result < 0 && *result > -4096 ? strerrorname_np((int)-*result) : NULL;
    const char *restart = tes_restart_name(*result);
    if (name || restart)
      add_key(s, name ? "errno" : "restart", name ? name : restart);
    g_string_append_printf(s, ",\"duration\":%" G_GINT64_FORMAT ".%09d", took / 1000000000,
                           (int)(took % 1000000000));
  }
  if (injected)
    add_key(s, "tampered", injected & TES_INJECTED ? "injected" : "delayed");
  if (c->have_regs)
    add_regs(s, &c->regs);
  end(t, s);
}

void tes_json_exec(TesTask *t, const char *const *argv) {
  GString *s = begin(t, "exec", tes_watch_now());
  gboolean valid = TRUE;
  g_string_append(s, ",\"argv\":[");
  for (guint i = 0; argv[i]; i++) {
    g_string_append(s, i ? "," : "");
    add_text(s, argv[i]);
    valid &= g_utf8_validate(argv[i], -1, NULL);
  }
  g_string_append_c(s, ']');
  if (!valid) {
    g_string_append(s, ",\"argv_base64\":[");
    for (guint i = 0; argv[i]; i++) {
      g_autofree char *text = g_base64_encode((const guchar *)argv[i], strlen(argv[i]));
      g_string_append_printf(s, "%s\"%s\"", i ? "," : "", text);
    }
    g_string_append_c(s, ']');
  }
  end(t, s);
}

void tes_json_signal(TesTask *t, const siginfo_t *info) {
  GString *s = begin(t, "signal", tes_watch_now()), *name = g_string_new(NULL);
  tes_decode_signal(name, info->si_signo);
  add_key(s, "name", name->str);
  g_string_free(name, TRUE);
  g_string_append_printf(s, ",\"signo\":%d,\"code\":%d", info->si_signo, info->si_code);
  if (info->si_code > 0 &&
      (info->si_signo == SIGSEGV || info->si_signo == SIGBUS || info->si_signo == SIGILL ||
       info->si_signo == SIGFPE || info->si_signo == SIGTRAP))
    g_string_append_printf(s, ",\"addr\":\"%#lx\"", (gulong)info->si_addr);
  else
    g_string_append_printf(s, ",\"sender\":%d,\"uid\":%u", info->si_pid, info->si_uid);
  if (((TesWatch *)t->kernel->watching)->json_regs)
    add_regs(s, tes_task_regs(t, FALSE));
  end(t, s);
}

void tes_json_exit(TesTask *t, int status) {
  GString *s = begin(t, "exit", tes_watch_now());
  if (status & 0x7f) {
    const char *abbrev = sigabbrev_np(status & 0x7f);
    g_string_append_printf(s, ",\"signo\":%d,\"name\":\"SIG%s\"", status & 0x7f, abbrev ? abbrev : "RT");
  } else {
    g_string_append_printf(s, ",\"status\":%d", status >> 8 & 0xff);
  }
  end(t, s);
}

/* E1: with all registers. */
void tes_json_unimplemented(TesTask *t, const TesSyscall *row, guint nr, const gulong a[6]) {
  GString *s = begin(t, "unimplemented", tes_watch_now());
  g_string_append_printf(s, ",\"nr\":%u", nr);
  if (row)
    add_key(s, "name", row->name);
  g_string_append(s, ",\"raw\":[");
  for (guint i = 0; i < 6; i++)
    g_string_append_printf(s, "%s\"%#lx\"", i ? "," : "", a[i]);
  g_string_append_c(s, ']');
  add_regs(s, tes_task_regs(t, FALSE));
  end(t, s);
}

void tes_json_dropped(int fd, guint64 n) {
  g_autofree char *text =
      g_strdup_printf("{\"event\":\"dropped\",\"unimplemented\":%" G_GUINT64_FORMAT "}\n", n);
  if (write(fd, text, strlen(text)) < 0)
    tes_info("--trace=json: %s", g_strerror(errno));
}
