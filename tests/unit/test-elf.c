/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF parser and the "#!" parser: what they accept, what they refuse, and that no change of any byte of a header breaks
 * their promises. */
#include <core/loader/internal.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#define IMAGE_SIZE 8192

typedef struct {
  guchar bytes[IMAGE_SIZE];
  gsize size;
} Image;

static Elf64_Ehdr *ehdr(Image *i) { return (Elf64_Ehdr *)i->bytes; }
static Elf64_Phdr *phdr(Image *i, guint n) { return (Elf64_Phdr *)(i->bytes + ehdr(i)->e_phoff) + n; }

/* Text, data with bss, an interpreter and a stack mark. */
static void make_image(Image *i) {
  memset(i, 0, sizeof *i);
  i->size = IMAGE_SIZE;
  Elf64_Ehdr *h = ehdr(i);
  memcpy(h->e_ident, ELFMAG, SELFMAG);
  h->e_ident[EI_CLASS] = ELFCLASS64;
  h->e_ident[EI_DATA] = ELFDATA2LSB;
  h->e_ident[EI_VERSION] = EV_CURRENT;
  h->e_type = ET_DYN;
  h->e_machine = EM_X86_64;
  h->e_phentsize = sizeof(Elf64_Phdr);
  h->e_phoff = sizeof *h;
  h->e_phnum = 4;
  h->e_entry = 0x1000;
  *phdr(i, 0) = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x200, .p_filesz = 8};
  *phdr(i, 1) = (Elf64_Phdr){
      .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_filesz = 0x1100, .p_memsz = 0x1100, .p_align = 0x1000};
  *phdr(i, 2) = (Elf64_Phdr){.p_type = PT_LOAD,
                             .p_flags = PF_R | PF_W,
                             .p_offset = 0x1200,
                             .p_vaddr = 0x3200,
                             .p_filesz = 0x100,
                             .p_memsz = 0x3000,
                             .p_align = 0x4000};
  *phdr(i, 3) = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W | PF_X};
}

static gssize read_image(gpointer data, void *buf, gsize n, guint64 off) {
  Image *i = data;
  if (off >= i->size)
    return 0;
  n = MIN(n, i->size - off);
  memcpy(buf, i->bytes + off, n);
  return n;
}

static int parse(Image *i, TesElf *e) {
  return tes_elf_parse(i->bytes, MIN(i->size, 256), i->size, read_image, i, e);
}

static void test_good(void) {
  Image i;
  TesElf e;
  make_image(&i);
  g_assert_cmpint(parse(&i, &e), ==, 0);
  g_assert_cmpuint(e.n_seg, ==, 2);
  g_assert_cmpuint(e.lo, ==, 0);
  g_assert_cmpuint(e.hi, ==, 0x7000);
  g_assert_cmpuint(e.align, ==, 0x4000);
  g_assert_cmpuint(e.interp_len, ==, 8);
  g_assert_cmpuint(e.phdr_vaddr, ==, sizeof(Elf64_Ehdr));
  g_assert_true(e.exec_stack);
  g_assert_cmpuint(e.seg[0].prot, ==, PROT_READ | PROT_EXEC);
}

#define REFUSED_WITH(error, change)            \
  do {                                         \
    Image i;                                   \
    TesElf e;                                  \
    make_image(&i);                            \
    change;                                    \
    g_assert_cmpint(parse(&i, &e), ==, error); \
  } while (0)
#define REFUSED(change) REFUSED_WITH(-ENOEXEC, change)
#define IMPOSSIBLE(change) REFUSED_WITH(-EINVAL, change)

static void test_bad_header(void) {
  REFUSED(i.bytes[0] = 0);
  REFUSED(i.size = 63);
  REFUSED(i.bytes[EI_CLASS] = ELFCLASS32);
  REFUSED(i.bytes[EI_DATA] = ELFDATA2MSB);
  REFUSED(ehdr(&i)->e_machine = EM_386);
  REFUSED(ehdr(&i)->e_type = ET_REL);
  REFUSED(ehdr(&i)->e_phentsize = 32);
  REFUSED(ehdr(&i)->e_phnum = 0);
  REFUSED(ehdr(&i)->e_phnum = 0xffff);
  REFUSED(ehdr(&i)->e_phoff = IMAGE_SIZE - 8);
  REFUSED(ehdr(&i)->e_phoff = G_MAXUINT64 - 8);
  IMPOSSIBLE(ehdr(&i)->e_entry = 1UL << 60);
}

static void test_bad_segments(void) {
  REFUSED(phdr(&i, 1)->p_type = phdr(&i, 2)->p_type = PT_NULL);
  IMPOSSIBLE(phdr(&i, 2)->p_vaddr = 0x200);   /* overlaps the first */
  IMPOSSIBLE(phdr(&i, 1)->p_vaddr = 0x10000); /* not in order */
  IMPOSSIBLE(phdr(&i, 2)->p_filesz = 0x4000); /* more in the file than in memory */
  IMPOSSIBLE(phdr(&i, 2)->p_memsz = G_MAXUINT64);
  IMPOSSIBLE(phdr(&i, 2)->p_memsz = 1UL << 47);
  IMPOSSIBLE(phdr(&i, 2)->p_vaddr = (1UL << 47) + 0x200);
  IMPOSSIBLE(phdr(&i, 2)->p_vaddr = 0x3300); /* not congruent */
  IMPOSSIBLE(phdr(&i, 2)->p_offset = (G_MAXUINT64 & ~0xfffUL) | 0x200);
  REFUSED(phdr(&i, 0)->p_filesz = 1);
  REFUSED(phdr(&i, 0)->p_filesz = 5000);
  REFUSED(phdr(&i, 0)->p_offset = G_MAXUINT64);
}

static void test_many_segments(void) {
  static guchar bytes[sizeof(Elf64_Ehdr) + (TES_ELF_MAX_SEGMENTS + 1) * sizeof(Elf64_Phdr)];
  TesElf e;
  Image head;
  make_image(&head);
  memcpy(bytes, head.bytes, sizeof(Elf64_Ehdr));
  Elf64_Ehdr *h = (Elf64_Ehdr *)bytes;
  Elf64_Phdr *p = (Elf64_Phdr *)(h + 1);
  for (guint n = TES_ELF_MAX_SEGMENTS; n <= TES_ELF_MAX_SEGMENTS + 1; n++) {
    h->e_phnum = n;
    for (guint i = 0; i < n; i++)
      p[i] = (Elf64_Phdr){.p_type = PT_LOAD, .p_vaddr = i * 0x1000UL, .p_memsz = 0x1000};
    g_assert_cmpint(tes_elf_parse(bytes, sizeof bytes, sizeof bytes, NULL, NULL, &e), ==,
                    n > TES_ELF_MAX_SEGMENTS ? -ENOEXEC : 0);
  }
}

/* What everybody who uses a TesElf relies on. */
static void check_promises(const TesElf *e) {
  gulong end = 0;
  g_assert_cmpuint(e->n_seg, >, 0);
  g_assert_cmpuint(e->n_seg, <=, TES_ELF_MAX_SEGMENTS);
  g_assert_cmpuint(e->align & (e->align - 1), ==, 0);
  g_assert_cmpuint(e->align, >=, TES_PAGE_SIZE);
  for (guint i = 0; i < e->n_seg; i++) {
    const TesElfSegment *s = &e->seg[i];
    g_assert_cmpuint(s->vaddr, >=, end);
    g_assert_cmpuint(s->filesz, <=, s->memsz);
    g_assert_cmpuint(s->memsz, >, 0);
    end = s->vaddr + s->memsz;
    g_assert_cmpuint(end, >, s->vaddr);
    g_assert_cmpuint(end, <=, 1UL << 47);
    g_assert_cmpint((gint64)(s->off + s->filesz), >=, 0);
    g_assert_cmpuint(s->vaddr, >=, e->lo);
    g_assert_cmpuint(end, <=, e->hi);
  }
  g_assert_cmpuint(e->hi - e->lo, <=, 1UL << 47);
}

/* Every byte of the headers gets every value; then pairs at random. */
static void test_mutations(void) {
  Image good, i;
  TesElf e;
  make_image(&good);
  gsize n = sizeof(Elf64_Ehdr) + 4 * sizeof(Elf64_Phdr);
  for (gsize at = 0; at < n; at++)
    for (guint v = 0; v < 256; v++) {
      i = good;
      i.bytes[at] = v;
      if (parse(&i, &e) == 0)
        check_promises(&e);
    }
  g_autoptr(GRand) rnd = g_rand_new_with_seed(7);
  for (guint round = 0; round < 200000; round++) {
    i = good;
    for (guint k = g_rand_int_range(rnd, 1, 8); k > 0; k--)
      i.bytes[g_rand_int_range(rnd, 0, n)] = g_rand_boolean(rnd) ? 0xff : g_rand_int(rnd);
    i.size = g_rand_boolean(rnd) ? IMAGE_SIZE : g_rand_int_range(rnd, 0, IMAGE_SIZE);
    if (parse(&i, &e) == 0)
      check_promises(&e);
  }
}

static void check_script(const char *line, int result, const char *interp, const char *arg) {
  char *i = NULL, *a = NULL;
  g_assert_cmpint(tes_script_parse(line, strlen(line), &i, &a), ==, result);
  g_assert_cmpstr(i, ==, interp);
  g_assert_cmpstr(a, ==, arg);
  g_free(i);
  g_free(a);
}

static void test_script(void) {
  check_script("#!/bin/sh\necho", 1, "/bin/sh", NULL);
  check_script("#!/bin/sh", 1, "/bin/sh", NULL);
  check_script("#! \t/usr/bin/env  python3 -u \t\nx", 1, "/usr/bin/env", "python3 -u");
  check_script("#!\n", -ENOEXEC, NULL, NULL);
  check_script("#!   \t \nx", -ENOEXEC, NULL, NULL);
  check_script("# !/bin/sh\n", 0, NULL, NULL);
  check_script("", 0, NULL, NULL);
  g_autofree char *name = g_strnfill(252, 'a'), *fits = g_strdup_printf("#!%s\n", name);
  check_script(fits, 1, name, NULL);
  g_autofree char *cut = g_strdup_printf("#!%sbbbbbbbb\n", name);
  check_script(cut, -ENOEXEC, NULL, NULL);
  g_autofree char *long_arg = g_strdup_printf("#!/x %s\n", cut), *kept = g_strndup(cut, 250);
  check_script(long_arg, 1, "/x", kept);
}

static void test_arguments(void) {
  char *none[] = {NULL};
  g_autofree char *biggest = g_strnfill(128 * 1024 - 1, 'x'), *too_big = g_strnfill(128 * 1024, 'x');
  char *one[] = {biggest, NULL}, *bad[] = {too_big, NULL}, *many[17];
  for (guint i = 0; i < 16; i++)
    many[i] = biggest;
  many[16] = NULL;
  g_assert_cmpint(tes_stack_check_args(none, none, "x", 8 << 20), ==, 0);
  g_assert_cmpint(tes_stack_check_args(one, none, "x", 8 << 20), ==, 0);
  g_assert_cmpint(tes_stack_check_args(none, bad, "x", 8 << 20), ==, -E2BIG);
  g_assert_cmpint(tes_stack_check_args(many, NULL, "x", 8 << 20), ==,
                  -E2BIG); /* 2 MiB, a quarter of the stack */
  g_assert_cmpint(tes_stack_check_args(many, NULL, "x", G_MAXUINT64), ==, 0);
  g_assert_cmpint(tes_stack_check_args(one, none, "x", 4096), ==,
                  -E2BIG); /* 128 KiB less pointers and name */
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/elf/good", test_good);
  g_test_add_func("/elf/bad-header", test_bad_header);
  g_test_add_func("/elf/bad-segments", test_bad_segments);
  g_test_add_func("/elf/many-segments", test_many_segments);
  g_test_add_func("/elf/mutations", test_mutations);
  g_test_add_func("/script/lines", test_script);
  g_test_add_func("/stack/arguments", test_arguments);
  return g_test_run();
}
