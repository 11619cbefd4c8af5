/* SPDX-License-Identifier: Apache-2.0 */
/* Writes seccomp filters, for the platforms that run guests in host processes. A rule begins with one word
 * loaded, by convention the system call's number, and leaves it loaded for the next. */
#pragma once

#include <glib.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

typedef struct {
  struct sock_filter *code;
  guint n, max; /* n > max: there was no room */
} Filter;

static inline void emit(Filter *f, guint16 code, guint32 k, guint8 jt, guint8 jf) {
  if (f->n < f->max)
    f->code[f->n] = (struct sock_filter){code, jt, jf, k};
  f->n++;
}

static inline void load(Filter *f, gsize offset) { emit(f, BPF_LD | BPF_W | BPF_ABS, (guint32)offset, 0, 0); }
static inline void allow(Filter *f) { emit(f, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0); }
static inline void trap(Filter *f) { emit(f, BPF_RET | BPF_K, SECCOMP_RET_TRAP, 0, 0); }
static inline void load_nr(Filter *f) { load(f, G_STRUCT_OFFSET(struct seccomp_data, nr)); }

static inline void load_arg(Filter *f, guint n, gboolean high) {
  load(f, G_STRUCT_OFFSET(struct seccomp_data, args) + 8 * n + (high ? 4 : 0));
}

/* Traps unless the loaded word is `k`. */
static inline void need(Filter *f, gulong k) {
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, (guint32)k, 1, 0);
  trap(f);
}

static inline void need_64(Filter *f, gsize offset, gulong value) {
  load(f, offset + 4);
  need(f, value >> 32);
  load(f, offset);
  need(f, value & G_MAXUINT32);
}

static inline void need_arg(Filter *f, guint n, gulong value) {
  need_64(f, G_STRUCT_OFFSET(struct seccomp_data, args) + 8 * n, value);
}

/* What follows, until end_if(), is for the loaded word `k` only. */
static inline guint begin_if(Filter *f, gulong k) {
  emit(f, BPF_JMP | BPF_JEQ | BPF_K, (guint32)k, 0, 0);
  return f->n - 1;
}

static inline void end_if(Filter *f, guint at) {
  if (at < f->max)
    f->code[at].jf = (guint8)(f->n - at - 1);
}

/* Traps unless argument n is below `end`, or, with `above`, unless it is `end` or more. */
static inline void need_address(Filter *f, guint n, gulong end, gboolean above) {
  guint32 high = (guint32)(end >> 32), low = (guint32)end;
  load_arg(f, n, TRUE);
  if (above)
    emit(f, BPF_JMP | BPF_JGE | BPF_K, high, 1, 0);
  else
    emit(f, BPF_JMP | BPF_JGT | BPF_K, high, 0, 1);
  trap(f);
  guint same = begin_if(f, high);
  load_arg(f, n, FALSE);
  if (above)
    emit(f, BPF_JMP | BPF_JGE | BPF_K, low, 1, 0);
  else
    emit(f, BPF_JMP | BPF_JGE | BPF_K, low, 0, 1);
  trap(f);
  end_if(f, same);
}

static inline void rule_always(Filter *f, guint32 number) {
  guint nr = begin_if(f, number);
  allow(f);
  end_if(f, nr);
}

/* Allowed when argument `n` is `value`. */
static inline void rule_arg(Filter *f, guint32 number, guint n, gulong value) {
  guint nr = begin_if(f, number);
  load_arg(f, n, TRUE);
  guint high = begin_if(f, value >> 32);
  load_arg(f, n, FALSE);
  guint low = begin_if(f, value & G_MAXUINT32);
  allow(f);
  end_if(f, low);
  end_if(f, high);
  load_nr(f);
  end_if(f, nr);
}

/* Allowed when argument 0 is an address below `end`. */
static inline void rule_below(Filter *f, guint32 number, gulong end) {
  guint nr = begin_if(f, number);
  need_address(f, 0, end, FALSE);
  allow(f);
  end_if(f, nr);
}

/* Allowed when the low half of argument 0 is one of `values`. */
static inline void rule_one_of(Filter *f, guint32 number, const guint32 *values, guint n) {
  guint nr = begin_if(f, number);
  load_arg(f, 0, FALSE);
  for (guint i = 0; i < n; i++) {
    guint same = begin_if(f, values[i]);
    allow(f);
    end_if(f, same);
  }
  trap(f);
  end_if(f, nr);
}
