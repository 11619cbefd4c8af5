/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target for what the loader parses: ELF headers and "#!" lines.
 *
 * With clang and -fsanitize=fuzzer: a libFuzzer program (fuzz-elf). Otherwise a runner: `fuzz-elf-run FILE...` feeds files;
 * without arguments it feeds the seeds and a fixed number of their mutations, and is a test; `--seeds DIR` writes the seeds
 * as files for the fuzzer. */
#include <core/loader/internal.h>
#include <elf.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size);

typedef struct {
  const guint8 *data;
  gsize size;
} Input;

static gssize read_input(gpointer p, void *buf, gsize n, guint64 off) {
  const Input *in = p;
  if (off >= in->size)
    return 0;
  n = MIN(n, in->size - off);
  memcpy(buf, in->data + off, n);
  return n;
}

/* What the loader relies on when it maps the segments. */
static void check(const TesElf *e) {
  gulong end = 0;
  g_assert(e->n_seg > 0 && e->n_seg <= TES_ELF_MAX_SEGMENTS && e->align >= TES_PAGE_SIZE &&
           e->entry < 1UL << 47);
  g_assert((e->align & (e->align - 1)) == 0 && e->lo < e->hi && e->hi <= 1UL << 47);
  for (guint i = 0; i < e->n_seg; i++) {
    const TesElfSegment *s = &e->seg[i];
    g_assert(s->vaddr >= end && s->memsz > 0 && s->filesz <= s->memsz && s->vaddr >= e->lo);
    g_assert(s->filesz == 0 || ((s->vaddr ^ s->off) & ~TES_PAGE_MASK) == 0);
    g_assert(s->off + s->filesz <= G_MAXINT64);
    end = s->vaddr + s->memsz;
    g_assert(end > s->vaddr && end <= e->hi);
  }
}

int LLVMFuzzerTestOneInput(const guint8 *data, gsize size) {
  Input in = {data, size};
  TesElf e;
  if (tes_elf_parse(data, MIN(size, TES_PROGRAM_HEAD), size, read_input, &in, &e) == 0)
    check(&e);
  char *interp = NULL, *arg = NULL;
  if (tes_script_parse((const char *)data, size, &interp, &arg) == 1) {
    g_assert(*interp && strlen(interp) < TES_SCRIPT_LINE &&
             (!arg || (*arg && strlen(arg) < TES_SCRIPT_LINE)));
    g_free(interp);
    g_free(arg);
  }
  return 0;
}

#ifndef TES_LIBFUZZER

#define SEED_SIZE 4096
#define MUTATIONS 100000

/* One image for each feature that the parser looks at; the last ones are scripts. */
static gsize make_seed(guint kind, guint8 *out) {
  memset(out, 0, SEED_SIZE);
  if (kind >= 4) {
    const char *line = kind == 4   ? "#!/bin/sh\n"
                       : kind == 5 ? "#! /usr/bin/env python3 -u \nprint()\n"
                                   : NULL;
    if (!line)
      return 0;
    memcpy(out, line, strlen(line));
    return strlen(line);
  }
  Elf64_Ehdr *h = (Elf64_Ehdr *)out;
  memcpy(h->e_ident, ELFMAG, SELFMAG);
  h->e_ident[EI_CLASS] = ELFCLASS64;
  h->e_ident[EI_DATA] = ELFDATA2LSB;
  h->e_type = kind == 0 ? ET_EXEC : ET_DYN;
  h->e_machine = EM_X86_64;
  h->e_entry = 0x401000;
  h->e_phentsize = sizeof(Elf64_Phdr);
  h->e_phoff = kind == 3 ? 2048 : sizeof *h; /* in the head, or beyond it */
  h->e_phnum = 4;
  Elf64_Phdr *p = (Elf64_Phdr *)(out + h->e_phoff);
  gulong base = kind == 0 ? 0x400000 : 0;
  p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_X,
                      .p_vaddr = base,
                      .p_filesz = 0x1000,
                      .p_memsz = 0x1000,
                      .p_align = 0x1000};
  p[1] = (Elf64_Phdr){.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_W,
                      .p_vaddr = base + 0x2100,
                      .p_offset = 0x100,
                      .p_filesz = 0x80,
                      .p_memsz = 0x5000,
                      .p_align = kind == 2 ? 0x200000 : 0x1000};
  p[2] = (Elf64_Phdr){
      .p_type = kind == 2 ? PT_INTERP : PT_NOTE, .p_offset = 0x300, .p_filesz = 28, .p_memsz = 28};
  p[3] = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W};
  memcpy(out + 0x300, "/lib64/ld-linux-x86-64.so.2", 28);
  return SEED_SIZE;
}

static void feed(const guint8 *data, gsize n) {
  g_autofree guint8 *exact = g_memdup2(data, n); /* so that a checker sees reads beyond the end */
  LLVMFuzzerTestOneInput(exact, n);
}

static void mutate(GRand *rnd, guint8 *data, gsize *n) {
  static const guint64 edges[] = {0, 1, 0xff, 0xfff, 0x1000, 0xffffffff, 1UL << 47, G_MAXINT64, G_MAXUINT64};
  for (guint k = g_rand_int_range(rnd, 1, 6); k > 0 && *n > 8; k--) {
    gsize at = g_rand_int_range(rnd, 0, MIN(*n, 320) - 8);
    if (g_rand_boolean(rnd))
      data[at] ^= 1 << g_rand_int_range(rnd, 0, 8);
    else
      memcpy(data + (at & ~7UL), &edges[g_rand_int_range(rnd, 0, G_N_ELEMENTS(edges))], 8);
  }
  if (g_rand_int_range(rnd, 0, 10) == 0)
    *n = g_rand_int_range(rnd, 0, *n + 1);
}

static int write_seeds(const char *dir) {
  guint8 seed[SEED_SIZE];
  gsize n;
  g_mkdir_with_parents(dir, 0755);
  for (guint kind = 0; (n = make_seed(kind, seed)); kind++) {
    g_autofree char *name = g_strdup_printf("%s/elf-%u", dir, kind);
    if (!g_file_set_contents(name, (const char *)seed, n, NULL))
      return 1;
  }
  return 0;
}

static void run_mutations(void) {
  g_autoptr(GRand) rnd = g_rand_new_with_seed(11);
  guint8 seed[SEED_SIZE];
  gsize n;
  for (guint kind = 0; (n = make_seed(kind, seed)); kind++) {
    feed(seed, n);
    for (guint i = 0; i < MUTATIONS; i++) {
      guint8 copy[SEED_SIZE];
      gsize size = n;
      memcpy(copy, seed, n);
      mutate(rnd, copy, &size);
      feed(copy, size);
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
    feed((const guint8 *)data, n);
  }
  if (argc == 1)
    run_mutations();
  return 0;
}
#endif
