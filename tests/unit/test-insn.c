/* SPDX-License-Identifier: Apache-2.0 */
/* Instruction lengths and CPUID sites (core/mm/insn.c): encodings by hand, hostile bytes, and what objdump says of this machine's own
 * programs, where it is installed. */
#include <core/mm/insn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static guint parse_hex(const char *hex, guint8 *out, guint max) {
  guint n = 0;
  for (char *end; n < max; hex = end) {
    gulong v = strtoul(hex, &end, 16);
    if (end == hex)
      break;
    out[n++] = (guint8)v;
  }
  return n;
}

/* Each line is one whole instruction. */
static const char *const whole[] = {
    "90",
    "c3",
    "c2 08 00",
    "c8 10 00 01",
    "55",
    "41 57",
    "6a ff",
    "68 78 56 34 12",
    "66 68 34 12",
    "00 c8",
    "04 01",
    "05 78 56 34 12",
    "66 05 34 12",
    "48 05 78 56 34 12",
    "48 89 e5",
    "48 8b 05 00 00 00 00",          /* rip-relative */
    "48 8b 04 25 00 00 00 00",       /* no base */
    "48 8b 44 24 08",                /* SIB and disp8 */
    "48 8b 84 24 00 01 00 00",       /* SIB and disp32 */
    "8b 04 6d 00 00 00 00",          /* index, no base: disp32 */
    "8b 45 00",                      /* rbp needs a displacement */
    "67 8b 00",                      /* address size */
    "64 48 8b 04 25 28 00 00 00",    /* fs: stack protector */
    "65 48 8b 0c 25 00 00 00 00",    /* gs: */
    "b8 27 00 00 00",                /* mov imm32 */
    "66 b8 27 00",                   /* mov imm16 */
    "48 b8 01 02 03 04 05 06 07 08", /* mov imm64 */
    "48 c7 c0 27 00 00 00",
    "66 c7 00 34 12",
    "c6 00 01",
    "a0 01 02 03 04 05 06 07 08",
    "67 a1 01 02 03 04",
    "48 a3 01 02 03 04 05 06 07 08",
    "a8 01",
    "a9 01 00 00 00",
    "f6 c1 01",             /* test imm8 */
    "f6 d1",                /* not */
    "f7 c1 01 00 00 00",    /* test imm32 */
    "66 f7 c1 01 00",       /* test imm16 */
    "48 f7 e1",             /* mul */
    "69 c0 10 27 00 00",    /* imul imm32 */
    "66 69 c0 10 27",       /* imul imm16 */
    "6b c0 0a",             /* imul imm8 */
    "81 ec 00 10 00 00",    /* sub imm32 */
    "83 ec 10",             /* sub imm8 */
    "80 3d 00 00 00 00 01", /* cmp byte [rip], imm8 */
    "c1 e0 04",
    "d1 e0",
    "74 10",
    "eb fe",
    "e9 00 00 00 00",
    "e8 00 00 00 00",
    "66 66 48 e8 00 00 00 00", /* call __tls_get_addr */
    "0f 84 00 00 00 00",
    "ff 25 00 00 00 00",
    "f2 ff 25 00 00 00 00", /* bnd jmp */
    "ff d0",
    "e3 00",
    "cd 80",
    "f4",
    "f3 a4",
    "f0 48 0f b1 11", /* lock cmpxchg */
    "0f 05",
    "0f a2",
    "0f 0b",
    "0f 01 d0", /* xgetbv */
    "0f 01 f9", /* rdtscp */
    "0f 0d 08", /* prefetchw */
    "f3 0f 1e fa",
    "0f 1f 84 00 00 00 00 00",
    "66 2e 0f 1f 84 00 00 00 00 00",
    "66 66 2e 0f 1f 84 00 00 00 00 00",
    "66 66 66 66 66 2e 0f 1f 84 00 00 00 00 00",
    "0f 20 05", /* mov from cr0: always registers */
    "0f 38 f0 00",
    "66 0f 38 00 c1",
    "66 0f 3a 0f c1 08",
    "0f 70 c1 1b",
    "66 0f 73 f9 08",
    "0f c2 c1 01",
    "0f c6 c1 01",
    "0f c7 0f", /* cmpxchg8b */
    "0f c8",
    "0f 77",
    "0f ba e0 05",
    "0f a4 c2 04",
    "66 0f 78 c1 01 02",             /* extrq */
    "f2 0f 78 c1 01 02",             /* insertq */
    "0f 0f c1 9e",                   /* 3DNow! pfadd */
    "d9 6c 24 0e",                   /* fldcw */
    "c5 f8 77",                      /* vzeroupper */
    "c5 f9 6f 44 24 10",             /* vmovdqa */
    "c5 f9 70 c1 1b",                /* vpshufd */
    "c5 f1 73 f9 08",                /* vpslldq */
    "c5 f8 c6 c1 01",                /* vshufps */
    "c4 e2 7d 18 05 00 00 00 00",    /* vbroadcastss */
    "c4 e3 7d 39 c1 01",             /* vextracti128 */
    "c4 e1 f9 6e c0",                /* vmovq */
    "c4 e2 78 f2 c1",                /* andn */
    "c4 e3 fb f0 c1 05",             /* rorx */
    "c5 f8 92 c8",                   /* kmovw */
    "62 f1 7c 48 28 05 00 00 00 00", /* vmovaps zmm */
    "62 f1 7c 48 28 44 24 01",       /* compressed disp8 */
    "62 f3 7d 48 39 c1 01",          /* vextracti32x4 */
    "62 f2 7d 48 18 00",             /* vbroadcastss zmm */
    "62 f1 75 48 72 f1 05",          /* vpsrld imm8 */
    "62 f5 7c 48 58 c1",             /* vaddph */
    "8f 00",                         /* pop [rax] */
    "8f e9 78 81 c1",                /* XOP vfrczss */
    "8f e8 78 c2 c1 05",             /* XOP vprotd imm8 */
    "8f ea 78 10 c1 01 02 03 04",    /* XOP bextr imm32 */
    "c7 f8 00 00 00 00",             /* xbegin */
    "c6 f8 01",                      /* xabort */
    "0f a7 c0",                      /* padlock */
};

/* No instructions in 64-bit mode, or none whose length is certain. */
static const char *const none[] = {
    "06",
    "0e",
    "16",
    "17",
    "1e",
    "1f",
    "27",
    "2f",
    "37",
    "3f",
    "60",
    "61",
    "82 00 00",
    "9a 00 00 00 00 00 00",
    "ce",
    "d4 0a",
    "d5 0a",
    "d6",
    "ea 00 00 00 00 00 00",
    "0f 04",
    "0f 0a",
    "0f 24 c0",
    "0f 36",
    "0f 39",
    "0f 3b",
    "48 66 90",                                           /* REX is not last */
    "66 e9 00 00 00 00",                                  /* 16 or 32 bits */
    "62 f9 7c 48 28 c0",                                  /* EVEX: reserved bit */
    "62 f1 78 48 28 c0",                                  /* EVEX: fixed bit clear */
    "62 f4 7c 48 28 c0",                                  /* EVEX: no such map */
    "c4 e4 78 10 c0",                                     /* VEX: no such map */
    "ff f8",                                              /* group 5, /7 */
    "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90",    /* 16 bytes */
    "66 66 66 66 66 66 66 66 66 66 66 48 05 01 00 00 00", /* 16 bytes with the operand */
    "66 66",
    "f0",
    "48",
};

static void test_lengths(void) {
  for (guint i = 0; i < G_N_ELEMENTS(whole); i++) {
    guint8 b[32] = {0};
    guint n = parse_hex(whole[i], b, 16);
    g_test_message("%s", whole[i]);
    memset(b + n, 0x90, sizeof b - n);
    g_assert_cmpuint(tes_insn_length(b, sizeof b), ==, n);
    for (guint cut = 0; cut <= n; cut++)
      g_assert_cmpuint(tes_insn_length(b, cut), ==, cut == n ? n : 0);
  }
}

static void test_none(void) {
  for (guint i = 0; i < G_N_ELEMENTS(none); i++) {
    guint8 b[32];
    guint n = parse_hex(none[i], b, 20);
    g_test_message("%s", none[i]);
    g_assert_cmpuint(tes_insn_length(b, n), ==, 0);
  }
}

/* Random bytes right before an unmapped page: no look beyond the end, no length above what there is. */
static void test_random(void) {
  guint8 *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  g_assert_true(p != MAP_FAILED && munmap(p + 4096, 4096) == 0);
  for (guint round = 0; round < 2000; round++) {
    for (guint i = 4096 - 512; i < 4096; i++)
      p[i] = (guint8)g_test_rand_int();
    for (guint n = 0; n < 40; n++)
      g_assert_cmpuint(tes_insn_length(p + 4096 - n, n), <=, MIN(n, TES_INSN_MAX));
    gsize n = (gsize)g_test_rand_int_range(2, 512), at = (gsize)g_test_rand_int_range(0, (gint32)n);
    p[4096 - n + at] = 0x0f;
    if (at + 1 < n)
      p[4096 - n + at + 1] = 0xa2;
    tes_insn_is_cpuid(p + 4096 - n, n, at);
  }
  munmap(p, 4096);
}

/* Code without CPUID in which the two bytes occur: nothing is taken for one. And data: hardly ever. */
static void test_lookalikes(void) {
  guint8 code[1024];
  static const guint8 mov[] = {0xb8, 0x0f, 0xa2, 0x00, 0x00}; /* mov $0xa20f,%eax */
  for (guint i = 0; i + sizeof mov <= sizeof code; i += sizeof mov)
    memcpy(code + i, mov, sizeof mov);
  for (gsize at = 0; at < sizeof code; at++)
    g_assert_false(tes_insn_is_cpuid(code, sizeof code - 4, at));
  memset(code, 0x90, sizeof code);
  code[600] = 0x0f;
  code[601] = 0xa2;
  g_assert_true(tes_insn_is_cpuid(code, sizeof code, 600));
  g_assert_true(tes_insn_is_cpuid(code + 500, 200, 100));
  g_assert_false(tes_insn_is_cpuid(code + 600, 200, 0)); /* nothing to go by */
  code[599] = 0x66;
  g_assert_false(tes_insn_is_cpuid(code, sizeof code, 600)); /* a prefix belongs to it */
  guint taken = 0;
  for (guint round = 0; round < 20000; round++) {
    guint32 *w = (guint32 *)(gpointer)code;
    for (guint i = 0; i < sizeof code / 4; i++)
      w[i] = g_test_rand_int();
    code[600] = 0x0f;
    code[601] = 0xa2;
    taken += tes_insn_is_cpuid(code, sizeof code, 600);
  }
  g_test_message("%u of 20000 pairs in random data taken for CPUID", taken);
  g_assert_cmpuint(taken, <, 20);
}

/* ---- Against objdump ---- */

typedef struct {
  guint instructions, refused, cpuid, missed, invented;
} Score;

typedef struct {
  guint64 start; /* address of run[0] */
  GByteArray *run;
  GArray *cpuids; /* guint64: addresses objdump gives */
} Text;

/* Judges a run of adjacent bytes. */
static void judge(Text *t, Score *s) {
  guint k = 0;
  for (gsize i = 0; i + 1 < t->run->len; i++) {
    if (t->run->data[i] != 0x0f || t->run->data[i + 1] != 0xa2)
      continue;
    while (k < t->cpuids->len && g_array_index(t->cpuids, guint64, k) < t->start + i)
      k++;
    gboolean real = k < t->cpuids->len && g_array_index(t->cpuids, guint64, k) == t->start + i;
    gboolean found = tes_insn_is_cpuid(t->run->data, t->run->len, i);
    s->cpuid += real;
    s->missed += real && !found;
    s->invented += !real && found;
  }
  g_byte_array_set_size(t->run, 0);
  g_array_set_size(t->cpuids, 0);
}

/* "  ADDRESS:\tBYTES\tTEXT" */
static void take_line(Text *t, Score *s, char *line) {
  char *tab = strchr(line, '\t'), *text = tab ? strchr(tab + 1, '\t') : NULL;
  if (line[0] != ' ' || !text)
    return;
  guint8 b[16];
  *text++ = 0;
  guint64 addr = g_ascii_strtoull(line, NULL, 16);
  guint n = parse_hex(tab + 1, b, sizeof b), len = tes_insn_length(b, n);
  if (t->run->len && addr != t->start + t->run->len)
    judge(t, s);
  if (!t->run->len)
    t->start = addr;
  g_byte_array_append(t->run, b, n);
  if (g_str_has_prefix(text, "cpuid"))
    g_array_append_val(t->cpuids, addr);
  /* Data among the code; and objdump puts fwait and what follows it together. */
  if (strstr(text, "(bad)") || g_str_has_prefix(text, "rex") || (b[0] == 0x9b && n > 1))
    return;
  s->instructions++;
  s->refused += len == 0;
  if (len != 0 && len != n)
    g_error("length %u: %s\t%s\t%s", len, line, tab + 1, text);
}

static gboolean disassemble(const char *file, Score *s) {
  g_autofree char *objdump = g_find_program_in_path("objdump");
  if (!objdump || access(file, R_OK) < 0)
    return FALSE;
  g_autofree char *quoted = g_shell_quote(file),
                  *cmd = g_strdup_printf("'%s' -d -w --insn-width=16 %s", objdump, quoted);
  FILE *f = popen(cmd, "r");
  Text t = {.run = g_byte_array_new(), .cpuids = g_array_new(FALSE, FALSE, sizeof(guint64))};
  char line[4096];
  while (f && fgets(line, sizeof line, f))
    take_line(&t, s, line);
  judge(&t, s);
  g_byte_array_unref(t.run);
  g_array_unref(t.cpuids);
  return f && pclose(f) == 0;
}

/* Files that this process maps, and some programs: whatever the machine has. */
static void test_objdump(void) {
  g_autofree char *maps = NULL, *bash = g_find_program_in_path("bash"),
                  *box = g_find_program_in_path("busybox");
  g_autoptr(GHashTable) files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_assert_true(g_file_get_contents("/proc/self/maps", &maps, NULL, NULL));
  g_auto(GStrv) lines = g_strsplit(maps, "\n", -1);
  for (guint i = 0; lines[i]; i++)
    if (strstr(lines[i], " r-xp ") && strchr(lines[i], '/'))
      g_hash_table_add(files, g_strdup(strchr(lines[i], '/')));
  if (bash)
    g_hash_table_add(files, g_strdup(bash));
  if (box)
    g_hash_table_add(files, g_strdup(box));
  GHashTableIter it;
  gpointer name;
  guint n = 0;
  g_hash_table_iter_init(&it, files);
  while (g_hash_table_iter_next(&it, &name, NULL)) {
    Score s = {0};
    if (!disassemble(name, &s))
      continue;
    n++;
    g_test_message("%s: %u instructions, %u refused, %u cpuid, %u of them missed, %u invented", (char *)name,
                   s.instructions, s.refused, s.cpuid, s.missed, s.invented);
    g_assert_cmpuint(s.refused * 1000, <=, s.instructions);
    g_assert_cmpuint(s.invented, ==, 0);
    g_assert_cmpuint(s.missed * 2, <=, s.cpuid);
  }
  if (n == 0)
    g_test_skip("objdump is not installed");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/insn/lengths", test_lengths);
  g_test_add_func("/insn/none", test_none);
  g_test_add_func("/insn/random", test_random);
  g_test_add_func("/insn/lookalikes", test_lookalikes);
  g_test_add_func("/insn/objdump", test_objdump);
  return g_test_run();
}
