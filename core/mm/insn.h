/* SPDX-License-Identifier: Apache-2.0 */
/* Lengths of x86-64 instructions, and where a program executes CPUID. Pure functions of bytes: no locks, nothing kept. */
#pragma once

#include <glib.h>

#define TES_INSN_MAX 15

/* Length of the instruction at p, of which n bytes can be looked at; 0: no such instruction in 64-bit mode, or cut off, or one
 * whose length depends on the make of the CPU. Privileged instructions count as instructions. */
guint tes_insn_length(const guint8 *p, gsize n);

/* Is `code[at]` the first byte of a CPUID instruction of the program, as far as the n bytes of code around it can tell? FALSE when in doubt:
 * bytes of data, or the middle of another instruction. Looks at TES_CPUID_BEFORE bytes before and TES_CPUID_AFTER behind. */
gboolean tes_insn_is_cpuid(const guint8 *code, gsize n, gsize at);
#define TES_CPUID_BEFORE 256
#define TES_CPUID_AFTER 64
