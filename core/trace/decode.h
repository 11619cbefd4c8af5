/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private: the text of system calls' arguments, for strace.c and json.c. */
#pragma once

#include <core/trace/trace.h>

/* Letters of a call's arguments, at most 6: the row's, or finer ones that decode.c has for it. */
const char *tes_decode_letters(const TesSyscall *row);
/* Text of argument `i` before the call; transfer full. */
char *tes_decode_arg(TesTask *, char letter, guint i);
/* Text of an output argument after the call; NULL: it is none, what was said before the call holds. */
char *tes_decode_result(TesTask *, char letter, guint i, glong result);
/* `n` bytes as a C string with its quotes. */
void tes_decode_bytes(GString *, const void *, gsize n);

/* ---- decode-struct.c: appends what is at `addr`; FALSE: unreadable, or no such letter ---- */
typedef struct {
  TesTask *task;
  char letter;
  guint i;
  gulong addr;
  glong result; /* of outputs */
  gboolean after;
} TesDecode;
gboolean tes_decode_struct(GString *, const TesDecode *);
/* ---- decode-flags.c: FALSE: no such letter ---- */
gboolean tes_decode_flags(GString *, char letter, gulong v);
void tes_decode_signal(GString *, int sig);
