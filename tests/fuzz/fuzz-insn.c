/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target for what looks at guest code: lengths of instructions and the search for CPUID (core/mm/insn.c).
 *
 * With clang and -fsanitize=fuzzer: a libFuzzer program (fuzz-insn). Otherwise a runner: `fuzz-insn-run FILE...` feeds files; without
 * arguments it feeds the seeds and a fixed number of their mutations, and is a test; `--seeds DIR` writes the seeds. */
#include <core/mm/insn.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size);

/* More bytes behind an instruction do not change it; a prefix alone is none. */
static void check_length(const guint8 *p, gsize n) {
  guint len = tes_insn_length(p, n);
  g_assert(len <= n && len <= TES_INSN_MAX);
  if (len) {
    g_assert(tes_insn_length(p, len) == len && tes_insn_length(p, len - 1) == 0);
    guint8 longer[2 * TES_INSN_MAX];
    memset(longer, 0xa2, sizeof longer);
    memcpy(longer, p, len);
    g_assert(tes_insn_length(longer, sizeof longer) == len);
  }
}

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size) {
  g_autofree guint8 *code =
      g_memdup2(data, size); /* of exactly this size: a sanitizer sees looks beyond it */
  for (gsize at = 0; at < size; at++) {
    check_length(code + at, size - at);
    if (tes_insn_is_cpuid(code, size, at))
      g_assert(at + 1 < size && code[at] == 0x0f && code[at + 1] == 0xa2);
  }
  return 0;
}

#ifndef TES_LIBFUZZER
#define SEED_SIZE 700
#define MUTATIONS 2000

/* Code as compilers make it, over and over, with a CPUID here and there; kind: which pieces. 0: no such seed. */
static gsize make_seed(guint kind, guint8 *out) {
  static const char *const pieces[] = {
      "\x55\x48\x89\xe5",
      "\x48\x8b\x44\x24\x08",
      "\x0f\xa2",
      "\xe8\x01\x02\x03\x04",
      "\x66\x0f\x6f\x44\x24\x10",
      "\xc5\xf9\x6f\x44\x24\x10",
      "\x62\xf1\x7c\x48\x28\x44\x24\x01",
      "\x8f\xe8\x78\xc2\xc1\x05",
      "\xf3\x0f\x1e\xfa",
      "\x48\xb8\x0f\xa2\x0f\xa2\x0f\xa2\x0f\xa2",
      "\x41\xf7\xc1\x0f\xa2\x0f\xa2",
      "\x64\x48\x8b\x0c\x25\x28",
  };
  if (kind >= 8)
    return 0;
  gsize n = 0;
  for (guint i = kind; n + 10 < SEED_SIZE; i += 1 + kind) {
    const char *p = pieces[i % G_N_ELEMENTS(pieces)];
    memcpy(out + n, p, strlen(p));
    n += strlen(p);
  }
  return n;
}

static void mutate(GRand *rnd, guint8 *data, gsize *n) {
  for (gint k = g_rand_int_range(rnd, 1, 8); k > 0; k--) {
    gint at = g_rand_int_range(rnd, 0, (gint32)*n - 2);
    if (g_rand_boolean(rnd))
      data[at] = (guint8)g_rand_int(rnd);
    else
      memcpy(data + at, "\x0f\xa2", 2);
  }
  if (g_rand_int_range(rnd, 0, 10) == 0)
    *n = (gsize)g_rand_int_range(rnd, 3, (gint32)*n + 1);
}

static int write_seeds(const char *dir) {
  guint8 seed[SEED_SIZE];
  gsize n;
  g_mkdir_with_parents(dir, 0755);
  for (guint kind = 0; (n = make_seed(kind, seed)); kind++) {
    g_autofree char *name = g_strdup_printf("%s/insn-%u", dir, kind);
    if (!g_file_set_contents(name, (const char *)seed, (gssize)n, NULL))
      return 1;
  }
  return 0;
}

static void run_mutations(void) {
  g_autoptr(GRand) rnd = g_rand_new_with_seed(17);
  guint8 seed[SEED_SIZE];
  gsize n;
  for (guint kind = 0; (n = make_seed(kind, seed)); kind++) {
    LLVMFuzzerTestOneInput(seed, n);
    for (guint i = 0; i < MUTATIONS; i++) {
      guint8 copy[SEED_SIZE];
      gsize size = n;
      memcpy(copy, seed, n);
      mutate(rnd, copy, &size);
      LLVMFuzzerTestOneInput(copy, size);
    }
  }
}

int main(int argc, char **argv) {
  if (argc == 3 && g_str_equal(argv[1], "--seeds"))
    return write_seeds(argv[2]);
  for (int i = 1; i < argc; i++) {
    g_autofree char *data = NULL;
    gsize n;
    if (!g_file_get_contents(argv[i], &data, &n, NULL)) {
      g_printerr("%s: cannot be read\n", argv[i]);
      return 1;
    }
    LLVMFuzzerTestOneInput((const guint8 *)data, n);
  }
  if (argc == 1)
    run_mutations();
  return 0;
}
#endif
