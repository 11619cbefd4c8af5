/* SPDX-License-Identifier: Apache-2.0 */
/* Lengths of x86-64 instructions (Intel SDM vol. 2, chapter 2 and appendix A; AMD APM vol. 3 for XOP), and the decision
 * whether two bytes are a CPUID instruction. Only what decides the length is decoded. */
#include <core/mm/insn.h>
#include <string.h>

/* What follows an opcode. One letter per opcode:
 *   .  nothing            m  ModRM                 b  byte                M  ModRM and byte
 *   z  4 bytes (2: 0x66)  Z  ModRM and the same    v  as z, 8 with REX.W  w  2 bytes
 *   o  8 bytes of address e  3 bytes (enter)       j  4 bytes, a jump     t, T  group 3: ModRM, byte or z if /0, /1
 *   k  xbegin or mov      x  no instruction        p  prefix or escape    c  group 5 */
static const char one_byte[257] = "mmmmbzxxmmmmbzxp" /* 00 */
                                  "mmmmbzxxmmmmbzxx"
                                  "mmmmbzpxmmmmbzpx"
                                  "mmmmbzpxmmmmbzpx"
                                  "pppppppppppppppp" /* 40 */
                                  "................"
                                  "xxxmppppzZbM...."
                                  "bbbbbbbbbbbbbbbb"
                                  "MZxMmmmmmmmmmmmm" /* 80 */
                                  "..........x....."
                                  "oooo....bz......"
                                  "bbbbbbbbvvvvvvvv"
                                  "MMw.ppMZe.w..bx." /* c0 */
                                  "mmmmxxx.mmmmmmmm"
                                  "bbbbbbbbjjxb...."
                                  "p.pp..tT......mc";

/* Behind 0x0f. Immediates of the VEX and EVEX forms of this map are the same. */
static const char two_byte[257] = "mmmmx.....x.xm.M" /* 00 */
                                  "mmmmmmmmmmmmmmmm"
                                  "bbbbxxxxmmmmmmmm" /* 20: their ModRM has no other form than registers */
                                  "......x.pxpxxxxx"
                                  "mmmmmmmmmmmmmmmm" /* 40 */
                                  "mmmmmmmmmmmmmmmm"
                                  "mmmmmmmmmmmmmmmm"
                                  "MMMMmmm.mmxxmmmm"
                                  "jjjjjjjjjjjjjjjj" /* 80 */
                                  "mmmmmmmmmmmmmmmm"
                                  "...mMmmm...mMmmm"
                                  "mmmmmmmmmmMmmmmm"
                                  "mmMmMMMm........" /* c0 */
                                  "mmmmmmmmmmmmmmmm"
                                  "mmmmmmmmmmmmmmmm"
                                  "mmmmmmmmmmmmmmmm";

typedef struct {
  const guint8 *p;
  gsize n, at; /* bytes there are, and looked at */
  gboolean opsize, repne, rexw;
} Insn;

static int next(Insn *i) { return i->at < i->n && i->at < TES_INSN_MAX ? i->p[i->at++] : -1; }

static gboolean skip(Insn *i, gsize n) {
  i->at += n;
  return i->at <= i->n && i->at <= TES_INSN_MAX;
}

/* ModRM, SIB and displacement; the ModRM byte, or -1. */
static int modrm(Insn *i) {
  int m = next(i), mod = m >> 6, rm = m & 7, sib = 0;
  if (m < 0 || mod == 3)
    return m;
  if (rm == 4 && (sib = next(i)) < 0)
    return -1;
  gsize disp = mod == 1 ? 1 : mod == 2 || rm == 5 || (rm == 4 && (sib & 7) == 5) ? 4 : 0;
  return skip(i, disp) ? m : -1;
}

static gsize z_size(const Insn *i) { return i->opsize && !i->rexw ? 2 : 4; }

/* With an operand-size prefix near jumps are 16 bits wide on some CPUs and 32 on others. */
static gboolean jump(Insn *i) { return (!i->opsize || i->rexw) && skip(i, 4); }

static gboolean with_modrm(Insn *i, char kind, int op) {
  int m = modrm(i);
  if (m < 0)
    return FALSE;
  gboolean imm = (m >> 3 & 7) < 2;
  switch (kind) {
  case 'M':
    return skip(i, 1);
  case 'Z':
    return op == 0xc7 && m == 0xf8 ? jump(i) : skip(i, z_size(i)); /* xbegin */
  case 't':
    return skip(i, imm ? 1 : 0);
  case 'T':
    return skip(i, imm ? z_size(i) : 0);
  case 'c':
    return (m >> 3 & 7) != 7;
  default:
    return TRUE;
  }
}

static gboolean operands(Insn *i, char kind, int op) {
  switch (kind) {
  case '.':
    return TRUE;
  case 'b':
    return skip(i, 1);
  case 'w':
    return skip(i, 2);
  case 'e':
    return skip(i, 3);
  case 'z':
    return skip(i, z_size(i));
  case 'v':
    return skip(i, i->rexw ? 8 : z_size(i));
  case 'j':
    return jump(i);
  case 'x':
  case 'p':
    return FALSE;
  default:
    return with_modrm(i, kind, op);
  }
}

static gboolean after_0f(Insn *i) {
  int op = next(i);
  if (op < 0)
    return FALSE;
  if (op == 0x38 || op == 0x3a)
    return next(i) >= 0 && operands(i, op == 0x38 ? 'm' : 'M', 0);
  if (op == 0x78 && (i->opsize || i->repne)) /* extrq, insertq */
    return modrm(i) >= 0 && skip(i, 2);
  return operands(i, two_byte[op], op);
}

/* An opcode of map 1, 2, 3, 5 or 6 in VEX or EVEX form. */
static gboolean vector_map(Insn *i, int map) {
  int op = next(i);
  if (op < 0)
    return FALSE;
  switch (map) {
  case 1:
    if (op == 0x77) /* vzeroupper */
      return TRUE;
    return operands(i, two_byte[op] == 'M' ? 'M' : 'm', op);
  case 3:
    return operands(i, 'M', op);
  case 2:
  case 5:
  case 6:
    return operands(i, 'm', op);
  default:
    return FALSE;
  }
}

static gboolean after_vex(Insn *i, gboolean three) {
  int a = next(i), map = 1;
  if (three) {
    map = a & 0x1f;
    if (next(i) < 0)
      return FALSE;
  }
  return a >= 0 && map <= 3 && vector_map(i, map);
}

static gboolean after_evex(Insn *i) {
  int a = next(i), b = next(i), c = next(i);
  if (c < 0 || (a & 0x08) || !(b & 0x04))
    return FALSE;
  return vector_map(i, a & 7);
}

/* 0x8f: pop if the field of the next byte is 0, else AMD's XOP, whose maps start at 8. */
static gboolean after_8f(Insn *i) {
  int a = i->at < i->n ? i->p[i->at] : -1, map = a & 0x1f;
  if (a < 0)
    return FALSE;
  if (map < 8)
    return (a >> 3 & 7) == 0 && modrm(i) >= 0;
  if (!skip(i, 2) || next(i) < 0 || modrm(i) < 0)
    return FALSE;
  return map == 8 ? skip(i, 1) : map == 9 ? TRUE : map == 10 && skip(i, 4);
}

/* The first opcode byte, behind all prefixes; -1: cut off. */
static int prefixes(Insn *i) {
  for (int b;;) {
    b = next(i);
    switch (b) {
    case 0x66:
      i->opsize = TRUE;
      break;
    case 0xf2:
      i->repne = TRUE;
      break;
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x67:
    case 0xf0:
    case 0xf3:
      break;
    default:
      if (b < 0x40 || b > 0x4f)
        return b;
      i->rexw = b & 8;
      b = next(i);
      if (b >= 0 && one_byte[b] == 'p' && b != 0x0f) /* a REX prefix stands last */
        return -1;
      return b;
    }
  }
}

guint tes_insn_length(const guint8 *p, gsize n) {
  Insn i = {.p = p, .n = n};
  int op = prefixes(&i);
  gboolean ok;
  switch (op) {
  case -1:
    return 0;
  case 0x0f:
    ok = after_0f(&i);
    break;
  case 0x62:
    ok = after_evex(&i);
    break;
  case 0x8f:
    ok = after_8f(&i);
    break;
  case 0xc4:
  case 0xc5:
    ok = after_vex(&i, op == 0xc4);
    break;
  default:
    if (op >= 0xa0 && op <= 0xa3)
      ok = skip(&i, memchr(p, 0x67, i.at - 1) ? 4 : 8);
    else
      ok = operands(&i, one_byte[op], op);
  }
  return ok ? (guint)i.at : 0;
}

/* ---- CPUID ---- */

/* Instructions that programs do not contain, or so seldom that data is likelier. `p` is behind no prefix: what has one
 * passes. */
static gboolean implausible(const guint8 *p) {
  static const guint8 rare[] = {0x6c, 0x6d, 0x6e, 0x6f, 0x9a, 0xca, 0xcb, 0xcd, 0xcf, 0xe4, 0xe5, 0xe6,
                                0xe7, 0xec, 0xed, 0xee, 0xef, 0xf1, 0xf5, 0xfa, 0xfb, 0xd7, 0x9e, 0x9f};
  static const guint8 rare_0f[] = {0x02, 0x03, 0x06, 0x07, 0x08, 0x09, 0x0e, 0x20, 0x21, 0x22, 0x23, 0x30,
                                   0x32, 0x33, 0x34, 0x35, 0x37, 0x78, 0x79, 0xa0, 0xa1, 0xa8, 0xa9, 0xaa};
  return p[0] == 0x0f ? memchr(rare_0f, p[1], sizeof rare_0f) != NULL
                      : memchr(rare, p[0], sizeof rare) != NULL;
}

/* Length of the instruction at `at` if it looks like a program's, else 0. */
static guint step(const guint8 *code, gsize n, gsize at) {
  guint len = at < n ? tes_insn_length(code + at, n - at) : 0;
  return len >= 1 && !implausible(code + at) ? len : 0;
}

/* Does control never reach what comes next? */
static gboolean ends_flow(const guint8 *p) {
  return p[0] == 0xc3 || p[0] == 0xc2 || p[0] == 0xe9 || p[0] == 0xeb ||
         (p[0] == 0xff && (p[1] >> 3 & 7) == 4) || (p[0] == 0x0f && p[1] == 0x0b);
}

/* What follows looks like code, up to where the flow ends. */
static gboolean plausible_after(const guint8 *code, gsize n, gsize at) {
  gsize end = MIN(n, at + TES_CPUID_AFTER);
  for (gsize i = at + 2; i + TES_INSN_MAX < end;) {
    guint len = step(code, n, i);
    if (len == 0)
      return FALSE;
    if (ends_flow(code + i))
      break;
    i += len;
  }
  return TRUE;
}

/* Decoding from anywhere falls into step with the program after some instructions. So streams are started at many
 * places, far enough away; those that meet bytes that are no instruction end there, and all others must have one
 * that starts at `at`. Data rarely survives that long. */
#define STREAMS 24
#define MIN_STREAMS 8
#define NEAR_START 32 /* at the start of the code, fewer and shorter streams do */

gboolean tes_insn_is_cpuid(const guint8 *code, gsize n, gsize at) {
  guint8 seen[TES_CPUID_BEFORE] = {0}; /* 1: a stream that arrived came by; 2: one that died */
  gboolean whole = at >= TES_CPUID_BEFORE;
  gsize from = whole ? at - TES_CPUID_BEFORE : 0, last = whole ? from + STREAMS : at - MIN(at, NEAR_START);
  guint arrived = 0;
  if (at + 2 > n || code[at] != 0x0f || code[at + 1] != 0xa2)
    return FALSE;
  for (gsize s = from; s < last; s++) {
    gsize i = s;
    guint fate = 0, len;
    while (i < at && !(fate = seen[i - from]) && (len = step(code, n, i)) > 0)
      i += len;
    if (i > at)
      return FALSE;
    if (i == at)
      fate = 1;
    else if (!fate)
      fate = 2;
    for (i = s; i < at && !seen[i - from] && (len = step(code, n, i)) > 0; i += len)
      seen[i - from] = (guint8)fate;
    arrived += fate == 1;
  }
  guint enough = whole ? MIN_STREAMS : MIN((guint)(last - from) / 4, MIN_STREAMS);
  return arrived >= MAX(enough, 1) && plausible_after(code, n, at);
}
