/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of two runs: reading traces in strace's form, lining them up task by task, and finding the calls that were
 * answered differently or made in one run only. */
#include <runtime/compare.h>
#include <string.h>

/* How far ahead a call that the other run did not make is looked for. */
#define LOOK_AHEAD 200
#define MAX_CALLS 2000000

static void call_free(gpointer p) {
  Call *c = p;
  g_free(c->name);
  g_free(c->text);
  g_free(c->key);
  g_free(c->result);
  g_free(c);
}

/* Hexadecimal numbers of more than 5 digits are addresses: they differ from run to run. */
static char *without_addresses(const char *s, gsize len) {
  GString *out = g_string_sized_new(len);
  for (gsize i = 0; i < len;) {
    gsize n = 0;
    if (s[i] == '0' && i + 1 < len && s[i + 1] == 'x')
      while (i + 2 + n < len && g_ascii_isxdigit(s[i + 2 + n]))
        n++;
    if (n > 5) {
      g_string_append(out, "ADDR");
      i += 2 + n;
    } else {
      g_string_append_c(out, s[i++]);
    }
  }
  return g_string_free(out, FALSE);
}

/* What a program made up is as good as any other: runs of letters and digits that mkstemp(3) or a hash could have made. */
static gboolean is_random(const char *s, gsize n) {
  gboolean upper = FALSE, lower = FALSE, digit = FALSE;
  for (gsize i = 0; i < n; i++) {
    upper |= g_ascii_isupper(s[i]);
    lower |= g_ascii_islower(s[i]);
    digit |= g_ascii_isdigit(s[i]);
  }
  return n >= 6 && ((upper && lower) || (digit && (upper || lower)));
}

static char *without_random(const char *s) {
  GString *out = g_string_new(NULL);
  while (*s) {
    gsize n = 0;
    while (g_ascii_isalnum(s[n]))
      n++;
    if (is_random(s, n))
      g_string_append_c(out, '*');
    else
      g_string_append_len(out, s, (gssize)MAX(n, 1));
    s += MAX(n, 1);
  }
  return g_string_free(out, FALSE);
}

/* "3", "-1 ENOENT", "?", "ADDR" of what follows " = ". Numbers are decimal, however they were shown. */
static char *result_of(const char *s, gsize len) {
  g_auto(GStrv) words = NULL;
  g_autofree char *text = g_strndup(s, len);
  words = g_strsplit(text, " ", 3);
  if (words[0] && g_str_equal(words[0], "-1") && words[1])
    return g_strjoin(" ", words[0], words[1], NULL);
  if (!words[0])
    return g_strdup("");
  char *end;
  gint64 n = g_ascii_strtoll(words[0], &end, 0);
  if (end != words[0] && !*end && ABS(n) < 1 << 20)
    return g_strdup_printf("%" G_GINT64_FORMAT, n);
  return without_addresses(words[0], strlen(words[0]));
}

static void add_sum(Calls *c, const Call *call) {
  CallSum *s = g_hash_table_lookup(c->sums, call->name);
  if (!s) {
    s = g_new0(CallSum, 1);
    g_hash_table_insert(c->sums, g_strdup(call->name), s);
  }
  s->calls++;
  s->errors += g_str_has_prefix(call->result, "-1 ");
  s->took += MAX(call->took, 0);
  if (!c->foreign && strchr(call->text, '"'))
    g_hash_table_add(c->has_text, g_strdup(call->name));
}

/* "NAME(ARGUMENTS) = RESULT <SECONDS>"; NULL if it is something else. */
static Call *parse_call(const char *text) {
  const char *paren = strchr(text, '('), *equals = NULL;
  for (const char *p = text; (p = strstr(p, " = ")); p += 3)
    equals = p; /* the last one: a text argument may hold another */
  if (!paren || !equals || paren > equals)
    return NULL;
  const char *value = equals + 3, *angle = strrchr(value, '<');
  Call *c = g_new0(Call, 1);
  c->name = g_strndup(text, (gsize)(paren - text));
  while (equals > text && equals[-1] == ' ')
    equals--; /* strace pads short calls */
  c->text = without_addresses(text, (gsize)(equals - text));
  c->key = without_random(c->text);
  c->result = result_of(value, angle ? (gsize)(angle - value) : strlen(value));
  c->took = angle ? (gint64)(g_ascii_strtod(angle + 1, NULL) * 1e9) : -1;
  return c;
}

/* One line of a task; calls that strace shows in two halves are put together in `halves`. */
static char *whole_text(GHashTable *halves, gpointer tid, const char *text) {
  const char *cut = strstr(text, " <unfinished ...>");
  if (cut) {
    g_hash_table_insert(halves, tid, g_strndup(text, (gsize)(cut - text)));
    return NULL;
  }
  if (!g_str_has_prefix(text, "<... "))
    return g_strdup(text);
  const char *rest = strstr(text, "resumed>"), *first = g_hash_table_lookup(halves, tid);
  char *whole = rest && first ? g_strconcat(first, rest + strlen("resumed>"), NULL) : NULL;
  g_hash_table_remove(halves, tid);
  return whole;
}

typedef struct {
  Calls *calls;
  GHashTable *by_task, *halves; /* task id -> its calls, its unfinished call */
} Reader;

static void read_line(Reader *r, const char *line) {
  char *end;
  gpointer tid = GINT_TO_POINTER((int)g_ascii_strtoll(line, &end, 10));
  if (end == line || *end != ' ')
    return;
  while (*end == ' ')
    end++;
  gint64 seconds = g_ascii_strtoll(end, &end, 10);
  gint64 time = seconds * 1000000000 + (*end == '.' ? (gint64)(g_ascii_strtod(end, &end) * 1e9) : 0);
  while (*end == ' ')
    end++;
  Calls *c = r->calls;
  c->first = c->first ? MIN(c->first, time) : time;
  c->last = MAX(c->last, time);
  g_autofree char *text = whole_text(r->halves, tid, end);
  Call *call = text ? parse_call(text) : NULL;
  if (!call)
    return;
  GPtrArray *of_task = g_hash_table_lookup(r->by_task, tid);
  if (!of_task) {
    of_task = g_ptr_array_new_with_free_func(call_free);
    g_hash_table_insert(r->by_task, tid, of_task);
    g_ptr_array_add(c->tasks, of_task);
  }
  g_ptr_array_add(of_task, call);
  add_sum(c, call);
}

Calls *calls_read(const char *path, gboolean foreign) {
  Calls *c = g_new0(Calls, 1);
  c->tasks = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
  c->sums = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  c->has_text = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  c->foreign = foreign;
  Reader r = {c, g_hash_table_new(NULL, NULL), g_hash_table_new_full(NULL, NULL, NULL, g_free)};
  FILE *f = fopen(path, "re");
  char *line = NULL;
  size_t size = 0;
  gssize n;
  for (guint i = 0; f && i < MAX_CALLS && (n = getline(&line, &size, f)) > 0; i++) {
    line[n - (line[n - 1] == '\n')] = '\0';
    read_line(&r, line);
  }
  free(line);
  if (f)
    fclose(f);
  g_hash_table_destroy(r.by_task);
  g_hash_table_destroy(r.halves);
  return c;
}

void calls_free(Calls *c) {
  g_ptr_array_unref(c->tasks);
  g_hash_table_destroy(c->sums);
  g_hash_table_destroy(c->has_text);
  g_free(c);
}

/* ---- Lining up ---- */

static void difference_free(gpointer p) {
  CallDifference *d = p;
  g_free(d->what);
  g_free(d->a);
  g_free(d->b);
  g_free(d);
}

/* Results that say who one is, or that calls which do not return leave behind: no two kernels need share them. */
static gboolean is_private(const char *name) {
  static const char *const names[] = {"getpid", "gettid", "getppid", "set_tid_address", "clone",
                                      "clone3", "fork",   "vfork",   "getpgid",         "getpgrp",
                                      "getsid", "setsid", "wait4",   "exit_group",      "rt_sigreturn",
                                      "exit",   NULL};
  return g_strv_contains(names, name);
}

typedef struct {
  Calls *a, *b;
  gboolean foreign;  /* only names and first texts can be compared */
  GHashTable *found; /* description -> CallDifference */
} Aligner;

/* The part of a call that both programs of traces write in the same words. */
static void same_words(const Aligner *al, const Call *c, const char **from, gsize *n) {
  *from = c->key;
  *n = strlen(c->key);
  if (!al->foreign)
    return;
  const char *quote =
      g_hash_table_contains(al->a->has_text, c->name) || g_hash_table_contains(al->b->has_text, c->name)
          ? strchr(c->key, '"')
          : NULL;
  const char *end = quote ? strchr(quote + 1, '"') : NULL;
  *from = end ? quote : c->name;
  *n = end ? (gsize)(end - quote) : strlen(c->name);
}

static gboolean same_call(const Aligner *al, const Call *x, const Call *y) {
  if (strcmp(x->name, y->name))
    return FALSE;
  const char *p, *q;
  gsize n, m;
  same_words(al, x, &p, &n);
  same_words(al, y, &q, &m);
  return n == m && memcmp(p, q, n) == 0;
}

/* x or y may be NULL: `made` is the one that is there. */
static void add_difference(Aligner *al, const Call *made, const Call *x, const Call *y) {
  const char *text = made->text;
  g_autofree char *key = g_strjoin("\n", text, x ? x->result : "", y ? y->result : "", NULL);
  CallDifference *d = g_hash_table_lookup(al->found, key);
  if (!d) {
    d = g_new0(CallDifference, 1);
    d->what = g_strdup(text);
    d->a = x ? g_strdup(x->result) : NULL;
    d->b = y ? g_strdup(y->result) : NULL;
    g_hash_table_insert(al->found, g_steal_pointer(&key), d);
  }
  d->count++;
}

static void only_in_first(Aligner *al, const Call *c) { add_difference(al, c, c, NULL); }
static void only_in_other(Aligner *al, const Call *c) { add_difference(al, c, NULL, c); }

static void compare_answers(Aligner *al, const Call *x, const Call *y) {
  if (strcmp(x->result, y->result) == 0 ||
      (is_private(x->name) && x->result[0] != '-' && y->result[0] != '-'))
    return;
  add_difference(al, x, x, y);
}

/* The nearest pair of equal calls at or after (i, j), by the number of calls skipped; FALSE if none is near. */
static gboolean next_match(const Aligner *al, GPtrArray *a, GPtrArray *b, guint i, guint j, guint *mi,
                           guint *mj) {
  for (guint skip = 1; skip <= LOOK_AHEAD; skip++)
    for (guint x = 0; x <= skip; x++) {
      guint y = skip - x;
      if (i + x < a->len && j + y < b->len && same_call(al, a->pdata[i + x], b->pdata[j + y])) {
        *mi = i + x;
        *mj = j + y;
        return TRUE;
      }
    }
  return FALSE;
}

static void align_task(Aligner *al, GPtrArray *a, GPtrArray *b) {
  guint i = 0, j = 0;
  while (i < a->len && j < b->len) {
    if (same_call(al, a->pdata[i], b->pdata[j])) {
      compare_answers(al, a->pdata[i++], b->pdata[j++]);
      continue;
    }
    guint mi, mj;
    if (!next_match(al, a, b, i, j, &mi, &mj)) {
      mi = i + 1;
      mj = j + 1;
    }
    while (i < mi)
      only_in_first(al, a->pdata[i++]);
    while (j < mj)
      only_in_other(al, b->pdata[j++]);
  }
  while (i < a->len)
    only_in_first(al, a->pdata[i++]);
  while (j < b->len)
    only_in_other(al, b->pdata[j++]);
}

static int by_count(gconstpointer x, gconstpointer y) {
  const CallDifference *a = *(CallDifference *const *)x, *b = *(CallDifference *const *)y;
  gboolean one_a = !a->a || !a->b, one_b = !b->a || !b->b;
  if (one_a != one_b)
    return one_a - one_b; /* other answers before missing calls */
  return a->count != b->count ? (a->count < b->count ? 1 : -1) : strcmp(a->what, b->what);
}

GPtrArray *calls_differences(Calls *a, Calls *b) {
  Aligner al = {a, b, a->foreign || b->foreign, g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
  g_autoptr(GPtrArray) none = g_ptr_array_new();
  for (guint i = 0; i < MAX(a->tasks->len, b->tasks->len); i++)
    align_task(&al, i < a->tasks->len ? a->tasks->pdata[i] : none,
               i < b->tasks->len ? b->tasks->pdata[i] : none);
  GPtrArray *out = g_ptr_array_new_with_free_func(difference_free);
  GHashTableIter it;
  gpointer d;
  g_hash_table_iter_init(&it, al.found);
  while (g_hash_table_iter_next(&it, NULL, &d))
    g_ptr_array_add(out, d);
  g_hash_table_destroy(al.found);
  g_ptr_array_sort(out, by_count);
  return out;
}
