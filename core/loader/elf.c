/* SPDX-License-Identifier: Apache-2.0 */
/* ELF parser: turns a file's first bytes and program headers into a TesElf, or refuses them.
 *
 * Interface: tes_elf_parse() in loader.h. It reads nothing but `head` and what `pread` gives, allocates only the header
 * table (<= 64 KiB), and trusts no number of the file: all sums are checked, all counts are bounded. Fuzzed by
 * tests/fuzz/fuzz-elf.c. elf(5); System V ABI, AMD64 supplement. */
#include <core/loader/loader.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#define USER_MAX (1UL << 47) /* no segment can lie above, whatever the platform */
#define PHDR_TABLE_MAX 65536 /* what Linux accepts */

static gboolean header_ok(const Elf64_Ehdr *h) {
  return memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 && h->e_ident[EI_CLASS] == ELFCLASS64 &&
         h->e_ident[EI_DATA] == ELFDATA2LSB && (h->e_type == ET_EXEC || h->e_type == ET_DYN) &&
         h->e_machine == EM_X86_64 && h->e_phentsize == sizeof(Elf64_Phdr) && h->e_phnum > 0 &&
         h->e_phnum * sizeof(Elf64_Phdr) <= PHDR_TABLE_MAX;
}

/* The program header table: from `head` when it lies there, else read. Transfer full. */
static int read_phdrs(const void *head, gsize n, guint64 file_size,
                      gssize (*pread_fn)(gpointer, void *, gsize, guint64), gpointer data,
                      const Elf64_Ehdr *h, Elf64_Phdr **out) {
  gsize len = h->e_phnum * sizeof(Elf64_Phdr);
  if (h->e_phoff > file_size || len > file_size - h->e_phoff)
    return -ENOEXEC;
  g_autofree Elf64_Phdr *ph = g_malloc(len);
  if (h->e_phoff <= n && len <= n - h->e_phoff) {
    memcpy(ph, (const guchar *)head + h->e_phoff, len);
  } else {
    gssize r = pread_fn ? pread_fn(data, ph, len, h->e_phoff) : 0;
    if (r < 0)
      return (int)r;
    if ((gsize)r != len)
      return -ENOEXEC;
  }
  *out = g_steal_pointer(&ph);
  return 0;
}

/* Linux finds out about impossible segments (EINVAL) when it is too late to return.
 * They must come in ascending order and must not overlap by a byte; two may share a page, as linkers without
 * -z separate-code lay them out: the later one's file page then holds both. */
static int add_segment(TesElf *e, const Elf64_Phdr *p) {
  if (p->p_memsz == 0)
    return 0;
  if (e->n_seg == TES_ELF_MAX_SEGMENTS)
    return -ENOEXEC;
  if (p->p_filesz > p->p_memsz || p->p_vaddr >= USER_MAX || p->p_memsz > USER_MAX - p->p_vaddr ||
      p->p_offset > G_MAXINT64 - p->p_memsz - 2 * TES_PAGE_SIZE)
    return -EINVAL;
  if (p->p_filesz > 0 && (p->p_vaddr & ~TES_PAGE_MASK) != (p->p_offset & ~TES_PAGE_MASK))
    return -EINVAL;
  if (e->n_seg > 0) {
    const TesElfSegment *prev = &e->seg[e->n_seg - 1];
    if (p->p_vaddr < prev->vaddr + prev->memsz)
      return -EINVAL;
  } else {
    e->lo = TES_PAGE_DOWN(p->p_vaddr);
  }
  e->hi = TES_PAGE_UP(p->p_vaddr + p->p_memsz);
  /* An alignment that is no power of two is no alignment. */
  if (p->p_align > e->align && p->p_align <= USER_MAX && (p->p_align & (p->p_align - 1)) == 0)
    e->align = p->p_align;
  e->seg[e->n_seg++] = (TesElfSegment){
      .vaddr = p->p_vaddr,
      .filesz = p->p_filesz,
      .memsz = p->p_memsz,
      .off = p->p_offset,
      .prot = (p->p_flags & PF_R ? PROT_READ : 0) | (p->p_flags & PF_W ? PROT_WRITE : 0) |
              (p->p_flags & PF_X ? PROT_EXEC : 0),
  };
  return 0;
}

/* Only the first PT_INTERP counts. Its text is read later; the length includes the NUL. */
static int set_interp(TesElf *e, const Elf64_Phdr *p) {
  if (e->interp_len)
    return 0;
  if (p->p_filesz < 2 || p->p_filesz > TES_PATH_MAX || p->p_offset > G_MAXINT64 - TES_PATH_MAX)
    return -ENOEXEC;
  e->interp_off = p->p_offset;
  e->interp_len = p->p_filesz;
  return 0;
}

/* Where the header table is in memory (AT_PHDR): in the segment whose file part holds it, or nowhere. */
static gulong find_phdr_vaddr(const TesElf *e) {
  for (guint i = 0; i < e->n_seg; i++) {
    const TesElfSegment *s = &e->seg[i];
    if (e->phoff >= s->off && e->phoff - s->off < s->filesz)
      return s->vaddr + (e->phoff - s->off);
  }
  return 0;
}

int tes_elf_parse(const void *head, gsize n, guint64 file_size,
                  gssize (*pread_fn)(gpointer, void *, gsize, guint64), gpointer data, TesElf *out) {
  Elf64_Ehdr h;
  if (n < sizeof h)
    return -ENOEXEC;
  memcpy(&h, head, sizeof h);
  if (!header_ok(&h))
    return -ENOEXEC;
  g_autofree Elf64_Phdr *ph = NULL;
  int r = read_phdrs(head, n, file_size, pread_fn, data, &h, &ph);
  if (r < 0)
    return r;
  g_autofree TesElf *e = g_new0(TesElf, 1); /* outputs are not written on failure */
  e->type = h.e_type;
  e->entry = h.e_entry;
  e->phoff = h.e_phoff;
  e->phnum = h.e_phnum;
  e->align = TES_PAGE_SIZE;
  for (guint i = 0; i < h.e_phnum && r == 0; i++) {
    if (ph[i].p_type == PT_LOAD)
      r = add_segment(e, &ph[i]);
    else if (ph[i].p_type == PT_INTERP)
      r = set_interp(e, &ph[i]);
    else if (ph[i].p_type == PT_GNU_STACK)
      e->exec_stack = (ph[i].p_flags & PF_X) != 0;
  }
  if (r < 0)
    return r;
  if (e->n_seg == 0)
    return -ENOEXEC;
  if (e->entry >= USER_MAX)
    return -EINVAL;
  e->phdr_vaddr = find_phdr_vaddr(e);
  *out = *e;
  return 0;
}
