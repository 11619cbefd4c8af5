/* SPDX-License-Identifier: Apache-2.0 */
/* Classic BPF for seccomp(2): bpf(4)'s machine with two registers and 16 words of memory. Jumps only lead forward, so a checked
 * program ends after at most as many steps as it has instructions. No locks; programs are never written to. */
#include <core/task/bpf.h>
#include <errno.h>

/* ---- Checking ---- */

static gboolean alu_is_valid(const struct sock_filter *f) {
  gboolean constant = BPF_SRC(f->code) == BPF_K;
  switch (BPF_OP(f->code)) {
  case BPF_ADD:
  case BPF_SUB:
  case BPF_MUL:
  case BPF_AND:
  case BPF_OR:
  case BPF_XOR:
    return TRUE;
  case BPF_DIV:
    return !constant || f->k != 0;
  case BPF_LSH:
  case BPF_RSH:
    return !constant || f->k < 32;
  case BPF_NEG:
    return constant;
  default: /* no BPF_MOD in filters of system calls */
    return FALSE;
  }
}

static gboolean jump_is_valid(const struct sock_filter *f, guint left) {
  switch (f->code) {
  case BPF_JMP | BPF_JA:
    return f->k < left;
  case BPF_JMP | BPF_JEQ | BPF_K:
  case BPF_JMP | BPF_JEQ | BPF_X:
  case BPF_JMP | BPF_JGT | BPF_K:
  case BPF_JMP | BPF_JGT | BPF_X:
  case BPF_JMP | BPF_JGE | BPF_K:
  case BPF_JMP | BPF_JGE | BPF_X:
  case BPF_JMP | BPF_JSET | BPF_K:
  case BPF_JMP | BPF_JSET | BPF_X:
    return f->jt < left && f->jf < left;
  default:
    return FALSE;
  }
}

/* left: instructions that follow. */
static gboolean is_valid(const struct sock_filter *f, guint left) {
  if (f->code & ~0xff)
    return FALSE;
  switch (f->code) {
  case BPF_LD | BPF_W | BPF_ABS:
    return f->k < sizeof(struct seccomp_data) && f->k % 4 == 0;
  case BPF_LD | BPF_W | BPF_LEN:
  case BPF_LDX | BPF_W | BPF_LEN:
  case BPF_LD | BPF_IMM:
  case BPF_LDX | BPF_IMM:
  case BPF_MISC | BPF_TAX:
  case BPF_MISC | BPF_TXA:
  case BPF_RET | BPF_K:
  case BPF_RET | BPF_A:
    return TRUE;
  case BPF_LD | BPF_MEM:
  case BPF_LDX | BPF_MEM:
  case BPF_ST:
  case BPF_STX:
    return f->k < BPF_MEMWORDS;
  }
  if (BPF_CLASS(f->code) == BPF_ALU)
    return alu_is_valid(f);
  return BPF_CLASS(f->code) == BPF_JMP && jump_is_valid(f, left);
}

/* Memory words are not read before every way there has written them. written[i]: words that are, on all ways to i so far. */
static gboolean memory_is_written(const struct sock_filter *f, guint n) {
  g_autofree guint16 *written = g_new(guint16, n);
  memset(written, 0xff, n * sizeof *written); /* nobody has come by: no restriction */
  written[0] = 0;
  for (guint i = 0; i < n; i++) {
    guint16 w = written[i];
    switch (f[i].code) {
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
      if (!(w >> f[i].k & 1))
        return FALSE;
      break;
    case BPF_ST:
    case BPF_STX:
      w |= (guint16)(1U << f[i].k);
      break;
    }
    if (f[i].code == (BPF_JMP | BPF_JA)) {
      written[i + 1 + f[i].k] &= w;
    } else if (BPF_CLASS(f[i].code) == BPF_JMP) {
      written[i + 1 + f[i].jt] &= w;
      written[i + 1 + f[i].jf] &= w;
    } else if (i + 1 < n) { /* after a return too, as Linux has it */
      written[i + 1] &= w;
    }
  }
  return TRUE;
}

int tes_bpf_check(const struct sock_filter *f, guint n) {
  for (guint i = 0; i < n; i++)
    if (!is_valid(&f[i], n - 1 - i))
      return -EINVAL;
  return BPF_CLASS(f[n - 1].code) == BPF_RET && memory_is_written(f, n) ? 0 : -EINVAL;
}

/* ---- Running ---- */

/* FALSE: division by zero, which ends the program with 0. */
static gboolean alu(guint op, guint32 *a, guint32 b) {
  switch (op) {
  case BPF_ADD:
    *a += b;
    break;
  case BPF_SUB:
    *a -= b;
    break;
  case BPF_MUL:
    *a *= b;
    break;
  case BPF_DIV:
    if (!b)
      return FALSE;
    *a /= b;
    break;
  case BPF_AND:
    *a &= b;
    break;
  case BPF_OR:
    *a |= b;
    break;
  case BPF_XOR:
    *a ^= b;
    break;
  case BPF_LSH:
    *a <<= b & 31;
    break;
  case BPF_RSH:
    *a >>= b & 31;
    break;
  case BPF_NEG:
    *a = -*a;
    break;
  }
  return TRUE;
}

static gboolean condition(guint op, guint32 a, guint32 b) {
  switch (op) {
  case BPF_JEQ:
    return a == b;
  case BPF_JGT:
    return a > b;
  case BPF_JGE:
    return a >= b;
  default:
    return (a & b) != 0;
  }
}

gboolean tes_bpf_run(const struct sock_filter *f, const TesBpfData *d, guint known, guint32 *ret) {
  guint32 a = 0, x = 0, m[BPF_MEMWORDS];
  for (;; f++) {
    guint32 operand = BPF_SRC(f->code) == BPF_X ? x : f->k;
    switch (f->code) {
    case BPF_LD | BPF_W | BPF_ABS:
      if (!(known >> f->k / 4 & 1))
        return FALSE;
      a = d->word[f->k / 4];
      break;
    case BPF_LD | BPF_W | BPF_LEN:
      a = sizeof *d;
      break;
    case BPF_LDX | BPF_W | BPF_LEN:
      x = sizeof *d;
      break;
    case BPF_LD | BPF_IMM:
      a = f->k;
      break;
    case BPF_LDX | BPF_IMM:
      x = f->k;
      break;
    case BPF_LD | BPF_MEM:
      a = m[f->k];
      break;
    case BPF_LDX | BPF_MEM:
      x = m[f->k];
      break;
    case BPF_ST:
      m[f->k] = a;
      break;
    case BPF_STX:
      m[f->k] = x;
      break;
    case BPF_MISC | BPF_TAX:
      x = a;
      break;
    case BPF_MISC | BPF_TXA:
      a = x;
      break;
    case BPF_RET | BPF_K:
    case BPF_RET | BPF_A:
      *ret = BPF_RVAL(f->code) == BPF_A ? a : f->k;
      return TRUE;
    case BPF_JMP | BPF_JA:
      f += f->k;
      break;
    default:
      if (BPF_CLASS(f->code) == BPF_JMP) {
        f += condition(BPF_OP(f->code), a, operand) ? f->jt : f->jf;
      } else if (!alu(BPF_OP(f->code), &a, operand)) {
        *ret = 0;
        return TRUE;
      }
    }
  }
}
