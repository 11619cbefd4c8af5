/* SPDX-License-Identifier: Apache-2.0 */
/* --inject: calls that fail, return, are delayed or get a signal although nothing is wrong, as -e inject= of strace(1) does
 * it: SET:ERRNO[:when=FIRST[..LAST][+[STEP]]][:retval=N][:signal=SIG][:delay_enter=TIME][:delay_exit=TIME][:path=GLOB].
 *
 * Calls are counted for each task (a child begins at 0) and each call number; with a path, only calls on matching paths
 * count. Where several expressions hit a call, each gives its delays and signal, and the first with a result gives that. */
#include <core/trace/trace.h>
#include <fnmatch.h>
#include <string.h>

#define MAX_EXPRESSIONS 64
#define MAX_DELAY (3600 * G_GINT64_CONSTANT(1000000000))

typedef struct {
  char *text;
  TesCallSet set;
  gboolean has_result;
  glong result;
  int signal;                     /* 0: none */
  gint64 delay_enter, delay_exit; /* ns */
  guint64 first, last, step;
  char *path; /* glob, or NULL */
} Injection;

/* ---- Parsing ---- */

static const char *const keys[] = {"error",       "when",       "retval", "signal",
                                   "delay_enter", "delay_exit", "delay",  "path"};

/* The key that `s` begins with ("when=..."), or -1. */
static int key_at(const char *s) {
  for (guint i = 0; i < G_N_ELEMENTS(keys); i++) {
    gsize n = strlen(keys[i]);
    if (!strncmp(s, keys[i], n) && s[n] == '=')
      return (int)i;
  }
  return -1;
}

static gboolean parse_error(const char *s, glong *out) {
  char *end;
  guint64 n = g_ascii_strtoull(s, &end, 10);
  if (*s && !*end && strerrorname_np((int)MIN(n, 4096)))
    return *out = -(glong)n, n > 0;
  for (int i = 1; i < 4096; i++) {
    const char *name = strerrorname_np(i);
    if (name && g_str_equal(name, s))
      return *out = -i, TRUE;
  }
  if (g_str_equal(s, "EWOULDBLOCK"))
    return *out = -EWOULDBLOCK, TRUE;
  return FALSE;
}

static gboolean parse_signal(const char *s, int *out) {
  guint64 n;
  if (g_ascii_string_to_unsigned(s, 10, 1, TES_NSIG, &n, NULL))
    return *out = (int)n, TRUE;
  const char *bare = g_str_has_prefix(s, "SIG") ? s + 3 : s;
  for (int i = 1; i < 32; i++) {
    const char *name = sigabbrev_np(i);
    if (name && g_str_equal(name, bare))
      return *out = i, TRUE;
  }
  return FALSE;
}

/* Microseconds, or with a unit. */
static gboolean parse_time(const char *s, gint64 *out) {
  static const struct {
    const char *unit;
    gint64 ns;
  } units[] = {{"", 1000}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {"ns", 1}};
  char *end;
  guint64 n = g_ascii_strtoull(s, &end, 10);
  for (guint i = 0; end > s && g_ascii_isdigit(*s) && i < G_N_ELEMENTS(units); i++)
    if (g_str_equal(end, units[i].unit) && n <= (guint64)(MAX_DELAY / units[i].ns))
      return *out = (gint64)n * units[i].ns, TRUE;
  return FALSE;
}

static gboolean parse_number(const char **s, guint64 *out) {
  char *end;
  *out = g_ascii_isdigit(**s) ? g_ascii_strtoull(*s, &end, 10) : 0;
  if (*out == 0 || *out > G_MAXUINT32)
    return FALSE;
  *s = end;
  return TRUE;
}

/* FIRST[..LAST][+[STEP]] */
static gboolean parse_when(const char *s, Injection *j) {
  if (!parse_number(&s, &j->first))
    return FALSE;
  j->last = j->first;
  j->step = 1;
  if (g_str_has_prefix(s, "..")) {
    s += 2;
    if (!parse_number(&s, &j->last) || j->last < j->first)
      return FALSE;
  } else if (*s == '+') {
    j->last = G_MAXUINT64;
  }
  if (*s == '+') {
    s++;
    if (*s && !parse_number(&s, &j->step))
      return FALSE;
  }
  return !*s;
}

static gboolean parse_field(const char *field, Injection *j) {
  int key = key_at(field);
  const char *value = key < 0 ? field : strchr(field, '=') + 1;
  gboolean is_error = key <= 0, is_result = is_error || key == 2;
  if (is_result && j->has_result)
    return FALSE;
  j->has_result |= is_result;
  switch (key) {
  case 1:
    return parse_when(value, j);
  case 2: {
    gint64 n;
    if (!g_ascii_string_to_signed(value, 10, 0, G_MAXINT64, &n, NULL))
      return FALSE;
    return j->result = n, TRUE;
  }
  case 3:
    return parse_signal(value, &j->signal);
  case 5:
    return parse_time(value, &j->delay_exit);
  case 4:
  case 6:
    return parse_time(value, &j->delay_enter);
  case 7:
    g_free(j->path);
    j->path = g_strdup(value);
    return *value != '\0';
  default:
    return parse_error(value, &j->result);
  }
}

/* Where the field that begins at `s` ends: at ':', or ',' before a key; a path may hold both. */
static const char *field_end(const char *s) {
  gboolean path = g_str_has_prefix(s, "path=");
  for (; *s; s++)
    if ((*s == ':' && (!path || key_at(s + 1) >= 0)) || (*s == ',' && key_at(s + 1) >= 0))
      break;
  return s;
}

static gboolean bad(GError **error, const char *text, const char *field) {
  g_set_error(
      error, TES_ERROR, TES_ERROR_CONFIG,
      "--inject=%s: \"%s\" is none of ERRNO, retval=N, signal=SIG, delay_enter=TIME, delay_exit=TIME, "
      "when=FIRST[..LAST][+[STEP]], path=GLOB, or is given twice",
      text, field);
  return FALSE;
}

static gboolean parse(const TesKernel *k, const char *text, Injection *j, GError **error) {
  const char *colon = strchr(text, ':');
  if (!colon) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG,
                "--inject=%s: expected CALL[,CALL]:WHAT, such as openat:ENOSPC", text);
    return FALSE;
  }
  g_autofree char *names = g_strndup(text, (gsize)(colon - text));
  if (!tes_call_set_parse(k, "inject", names, &j->set, error))
    return FALSE;
  for (const char *s = colon; *s;) {
    const char *end = field_end(++s);
    g_autofree char *field = g_strndup(s, (gsize)(end - s));
    if (!parse_field(field, j))
      return bad(error, text, field);
    s = end;
  }
  if (!j->has_result && !j->signal && !j->delay_enter && !j->delay_exit) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG,
                "--inject=%s: nothing to inject: no error, retval, signal or delay", text);
    return FALSE;
  }
  return TRUE;
}

static void injection_free(gpointer p) {
  Injection *j = p;
  g_free(j->path);
  g_free(j);
}

gpointer tes_injections_new(const TesKernel *k, const char *const *texts, GError **error) {
  g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(injection_free);
  for (; *texts; texts++) {
    Injection *j = g_new0(Injection, 1);
    *j = (Injection){.first = 1, .last = G_MAXUINT64, .step = 1};
    g_ptr_array_add(all, j);
    if (!parse(k, *texts, j, error))
      return NULL;
  }
  if (all->len > MAX_EXPRESSIONS) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "--inject: more than %d expressions", MAX_EXPRESSIONS);
    return NULL;
  }
  return g_steal_pointer(&all);
}

void tes_injections_free(gpointer p) {
  if (p)
    g_ptr_array_unref(p);
}

/* ---- Which calls ---- */

static char *name_of_fd(TesTask *t, int fd) {
  g_autoptr(TesPath) cwd = fd == AT_FDCWD ? tes_fsinfo_cwd(t->fsinfo) : NULL;
  if (cwd)
    return tes_vfs_name(&t->ctx, cwd);
  g_autoptr(TesFile) f = tes_fd_get(t, fd);
  return f && f->path ? tes_vfs_name(&t->ctx, f->path) : NULL;
}

/* The path that the call is about, absolute, without "." and "..", symbolic links as they are: its first path argument, else
 * the name its descriptor was opened by. Transfer full, or NULL. */
static char *path_of_call(TesTask *t, const TesSyscall *row) {
  const char *letters = row && row->args ? row->args : "", *s = strchr(letters, 's');
  if (!s)
    return *letters == 'f' ? name_of_fd(t, (int)t->args[0]) : NULL;
  char text[TES_PATH_MAX + 1];
  gsize i = (gsize)(s - letters), n = tes_mm_copy_in(t->mm, text, t->args[i], TES_PATH_MAX);
  text[n] = '\0';
  if (*text == '/')
    return g_canonicalize_filename(text, "/");
  g_autofree char *dir = name_of_fd(t, i && s[-1] == 'a' ? (int)t->args[i - 1] : AT_FDCWD);
  return dir && g_path_is_absolute(dir) ? g_canonicalize_filename(text, dir) : NULL;
}

static gboolean hits(TesTask *t, const TesSyscall *row, guint index, const Injection *j, char **path) {
  if (!tes_call_set_has(&j->set, t->nr))
    return FALSE;
  if (j->path) {
    if (!*path)
      *path = path_of_call(t, row);
    if (!*path || fnmatch(j->path, *path, 0))
      return FALSE;
  }
  TesTaskWatch *w = tes_task_watch(t);
  if (!w->inject_counts)
    w->inject_counts = g_new0(guint32 *, MAX_EXPRESSIONS + 1);
  if (!w->inject_counts[index])
    w->inject_counts[index] = g_new0(guint32, TES_SYSCALL_MAX);
  guint64 n = ++w->inject_counts[index][t->nr];
  return n >= j->first && n <= j->last && (n - j->first) % j->step == 0;
}

/* Only a kill ends it early. */
static void delay(TesTask *t, gint64 ns) {
  TesTime until = tes_time_add(tes_time_monotonic(t->kernel), ns);
  while (ns && tes_time_monotonic(t->kernel) < until)
    if (tes_task_block_killable(t, until) == -EINTR)
      break;
}

glong tes_inject_call(TesTask *t, const TesSyscall *row, guint *what) {
  GPtrArray *all = ((TesWatch *)t->kernel->watching)->injections;
  g_autofree char *path = NULL;
  const Injection *result = NULL;
  gint64 before = 0, after = 0;
  for (guint i = 0; i < all->len; i++) {
    const Injection *j = g_ptr_array_index(all, i);
    if (!hits(t, row, i, j, &path))
      continue;
    before += j->delay_enter;
    after += j->delay_exit;
    if (!result && j->has_result)
      result = j;
    if (j->signal) {
      *what |= TES_INJECTED;
      tes_signal_task(t, j->signal, NULL);
    }
  }
  *what |= (before || after ? TES_DELAYED : 0) | (result ? TES_INJECTED : 0);
  delay(t, before);
  glong r = result ? result->result : tes_task_serve_call(t, row);
  delay(t, after);
  return r;
}
