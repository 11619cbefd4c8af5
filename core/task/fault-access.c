/* SPDX-License-Identifier: Apache-2.0 */
/* What an instruction that faulted tried to do, for the error code in a signal frame (sigcontext's err) on platforms that
 * cannot tell. Decodes opcodes only (Intel SDM vol. 2, appendix A); what it does not know counts as a read. */
#include <core/task/task.h>
#include <string.h>

enum { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_FETCH = 16 };
#define PAGE_FAULT_VECTOR 14
#define MAX_INSN 15

static gboolean in_set(guint8 op, const guint8 *set, gsize n) { return memchr(set, op, n) != NULL; }

/* One-byte opcodes; `reg` is the middle field of the byte behind it. */
static gboolean one_byte_writes(guint8 op, guint reg) {
  static const guint8 always[] = {0x88, 0x89, 0xc6, 0xc7, 0x86, 0x87, 0xaa, 0xab, 0xa4,
                                  0xa5, 0x8f, 0xa2, 0xa3, 0x6c, 0x6d, 0xc0, 0xc1, 0xd0,
                                  0xd1, 0xd2, 0xd3, 0xe8, 0x68, 0x6a, 0xc8};
  if (op < 0x40)
    return (op & 7) < 2 && op < 0x38; /* ALU operation into memory; 0x38 and 0x39 compare */
  if (op >= 0x50 && op <= 0x57)
    return TRUE; /* push */
  switch (op) {
  case 0x80:
  case 0x81:
  case 0x83:
    return reg != 7;
  case 0xfe:
    return TRUE;
  case 0xff:
    return reg < 2 || reg == 2 || reg == 6;
  case 0xf6:
  case 0xf7:
    return reg == 2 || reg == 3;
  }
  return in_set(op, always, sizeof always);
}

/* Opcodes behind 0x0f, and the same map in VEX and EVEX encodings. */
static gboolean two_byte_writes(guint8 op, guint reg) {
  static const guint8 always[] = {0x11, 0x13, 0x17, 0x29, 0x2b, 0x7f, 0xe7, 0xd6, 0xc0, 0xc1, 0xb0,
                                  0xb1, 0xc3, 0xc7, 0xab, 0xb3, 0xbb, 0xa4, 0xa5, 0xac, 0xad};
  if (op >= 0x90 && op <= 0x9f)
    return TRUE; /* setcc */
  return (op == 0xba && reg >= 5) || in_set(op, always, sizeof always);
}

static gboolean is_prefix(guint8 b) {
  static const guint8 prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
  return in_set(b, prefixes, sizeof prefixes);
}

static gboolean writes_memory(const guint8 *p, gsize n) {
  gsize i = 0;
  while (i < n && is_prefix(p[i]))
    i++;
  if (i < n && (p[i] & 0xf0) == 0x40)
    i++;
  guint8 b[8] = {0};
  memcpy(b, p + i, MIN(n - i, sizeof b));
  switch (b[0]) {
  case 0x0f:
    return two_byte_writes(b[1], b[2] >> 3 & 7);
  case 0xc5:
    return two_byte_writes(b[2], b[3] >> 3 & 7);
  case 0xc4:
    return (b[1] & 0x1f) == 1 && two_byte_writes(b[3], b[4] >> 3 & 7);
  case 0x62:
    return (b[1] & 7) == 1 && two_byte_writes(b[4], b[5] >> 3 & 7);
  }
  return one_byte_writes(b[0], b[1] >> 3 & 7);
}

void tes_fault_error_code(TesTask *t, gboolean present) {
  t->trap_no = PAGE_FAULT_VECTOR;
  t->trap_err = PF_USER | (present ? PF_PRESENT : 0);
  guint access = t->trap.access;
  if (access == 0) {
    guint8 insn[MAX_INSN];
    gsize n = tes_mm_copy_in(t->mm, insn, t->trap.ip, sizeof insn);
    access = n && writes_memory(insn, n) ? TES_ACCESS_WRITE : TES_ACCESS_READ;
  }
  if (access & TES_ACCESS_WRITE)
    t->trap_err |= PF_WRITE;
  if (access & TES_ACCESS_EXEC)
    t->trap_err |= PF_FETCH;
}
