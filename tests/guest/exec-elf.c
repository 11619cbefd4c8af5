/* SPDX-License-Identifier: Apache-2.0 */
/* exec-elf.c - ELF images made by hand: good ones of several shapes, and bad ones refused with Linux's errno. */
#include "check.h"

#include <elf.h>

extern char **environ;

/* A minimal image: headers and code in one loadable segment; the code is exit(42). */
typedef struct {
  Elf64_Ehdr e;
  Elf64_Phdr p[3];
  unsigned char code[64];
} Image;

#define BASE 0x10000000ul

static const unsigned char exit42[] = {0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05};

static Image image(void) {
  Image im = {0};

  memcpy(im.e.e_ident, ELFMAG, SELFMAG);
  im.e.e_ident[EI_CLASS] = ELFCLASS64;
  im.e.e_ident[EI_DATA] = ELFDATA2LSB;
  im.e.e_ident[EI_VERSION] = EV_CURRENT;
  im.e.e_type = ET_EXEC;
  im.e.e_machine = EM_X86_64;
  im.e.e_version = EV_CURRENT;
  im.e.e_entry = BASE + offsetof(Image, code);
  im.e.e_phoff = offsetof(Image, p);
  im.e.e_ehsize = sizeof(Elf64_Ehdr);
  im.e.e_phentsize = sizeof(Elf64_Phdr);
  im.e.e_phnum = 1;
  im.p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                         .p_flags = PF_R | PF_X,
                         .p_vaddr = BASE,
                         .p_paddr = BASE,
                         .p_filesz = sizeof im,
                         .p_memsz = sizeof im,
                         .p_align = PAGE};
  memcpy(im.code, exit42, sizeof exit42);
  return im;
}

/* Exit status, 1000 + signal, or -errno of execve. */
static int run_bytes(const void *bytes, size_t n) {
  char path[256];
  int fds[2], e = 0;

  strcpy(path, tmp_path("elf"));
  unlink(path);
  write_file(path, bytes, n, 0755);
  SYS(pipe2(fds, O_CLOEXEC));
  pid_t pid = CHILD(execve(path, (char *[]){"elf", NULL}, environ); e = errno;
                    write_full(fds[1], &e, sizeof e); _exit(99));
  close(fds[1]);
  ssize_t r = read(fds[0], &e, sizeof e);
  close(fds[0]);
  int status = check_wait(pid);
  if (r == sizeof e)
    return -e;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int run_image(const Image *im) { return run_bytes(im, sizeof *im); }

#define EXPECT(change, want)                                                      \
  do {                                                                            \
    Image im = image();                                                           \
    change;                                                                       \
    int got_ = run_image(&im);                                                    \
    if (got_ != (want))                                                           \
      check_fail(__FILE__, __LINE__, "%s: got %d, want %d", #change, got_, want); \
  } while (0)

TEST(elf_minimal) {
  EXPECT((void)0, 42);
  EXPECT(im.e.e_type = ET_DYN; im.p[0].p_vaddr = 0; im.e.e_entry = offsetof(Image, code), 42);
  EXPECT(im.e.e_ident[EI_OSABI] = ELFOSABI_GNU, 42);
}

TEST(elf_truncated) {
  Image im = image();

  for (size_t n = 1; n < sizeof(Elf64_Ehdr); n += 9) {
    int got = run_bytes(&im, n);
    if (got != -ENOEXEC)
      check_fail(__FILE__, __LINE__, "%zu bytes: got %d", n, got);
  }
  CHECK_EQ(run_bytes(&im, sizeof(Elf64_Ehdr)), -ENOEXEC); /* the program headers are missing */
  CHECK_EQ(run_bytes(&im, sizeof(Elf64_Ehdr) + 20), -ENOEXEC);
}

TEST(elf_wrong_kind) {
  EXPECT(im.e.e_ident[EI_MAG1] = 'X', -ENOEXEC);
  EXPECT(im.e.e_machine = EM_AARCH64, -ENOEXEC);
  EXPECT(im.e.e_machine = EM_RISCV, -ENOEXEC);
  EXPECT(im.e.e_type = ET_REL, -ENOEXEC);
  EXPECT(im.e.e_type = ET_CORE, -ENOEXEC);
  EXPECT(im.e.e_type = 0xffff, -ENOEXEC);
}

TEST(elf_bad_program_headers) {
  EXPECT(im.e.e_phentsize = 55, -ENOEXEC);
  EXPECT(im.e.e_phentsize = 0, -ENOEXEC);
  EXPECT(im.e.e_phnum = 0, -ENOEXEC);
  EXPECT(im.e.e_phnum = 0xffff, -ENOEXEC); /* more than 64 KiB of headers */
  EXPECT(im.e.e_phoff = 1ul << 62, -ENOEXEC);
  EXPECT(im.e.e_phoff = ~0ul - 8, -ENOEXEC);
}

/* Nothing to load: Linux runs into the entry point, which is not mapped. */
TEST(elf_no_load_segments) {
  Image im = image();

  im.p[0].p_type = PT_NOTE;
  int got = run_image(&im);
  CHECK(got == 1000 + SIGSEGV || got == -ENOEXEC || got == -EINVAL);
}

/* Linux finds these only after the old image is gone and kills; a kernel that looks first may refuse with an errno. */
static bool refused_or_killed(int got) { return got < 0 || got == 1000 + SIGSEGV || got == 1000 + SIGKILL; }

TEST(elf_segment_sizes) {
  int got;

  /* Runs over the end of the file, but not of its last page. */
  EXPECT(im.p[0].p_filesz = im.p[0].p_memsz = sizeof im + 100, 42);
  Image im = image();
  im.p[0].p_memsz =
      sizeof im - 1; /* smaller in memory than in the file: found after the point of no return */
  got = run_image(&im);
  CHECK(refused_or_killed(got));
  im.p[0].p_memsz = 1ul << 60;
  got = run_image(&im);
  CHECK(refused_or_killed(got));
  im.p[0].p_memsz = ~0ul;
  got = run_image(&im);
  CHECK(refused_or_killed(got));
}

TEST(elf_bad_addresses) {
  int got;
  Image im = image();

  im.p[0].p_vaddr = 1ul << 47; /* in the kernel's half */
  got = run_image(&im);
  CHECK(refused_or_killed(got));
  im = image();
  im.p[0].p_vaddr = BASE + 100; /* address and offset disagree modulo the page */
  got = run_image(&im);
  CHECK(got != 99);
  im = image();
  im.e.e_entry = 0xffff800000000000ul;
  got = run_image(&im);
  CHECK(refused_or_killed(got));
  im = image();
  im.e.e_entry = 0;
  CHECK_EQ(run_image(&im), 1000 + SIGSEGV);
}

TEST(elf_overlapping_segments) {
  /* The later segment lies over the first one, as MAP_FIXED would put it; the host says what happens. */
  Image im = image();

  im.e.e_phnum = 2;
  im.p[1] = im.p[0];
  int got = run_image(&im);
  CHECK(got == 42 || refused_or_killed(got));
}

TEST(elf_bss_is_zero) {
  /* cmpl $0, [BASE + 0x5000]; exit(al) */
  static const unsigned char code[] = {0x31, 0xff, 0x8b, 0x3c, 0x25, 0x00, 0x50, 0x00,
                                       0x10, 0xb8, 60,   0,    0,    0,    0x0f, 0x05};
  EXPECT(memcpy(im.code, code, sizeof code); im.p[0].p_memsz = 0x8000; im.p[0].p_flags |= PF_W, 0);
  EXPECT(memcpy(im.code, code, sizeof code), 1000 + SIGSEGV);
}

TEST(elf_segment_protection) {
  /* mov %rsp-independent store into its own text: movb $1, [BASE] */
  static const unsigned char store[] = {0xc6, 0x04, 0x25, 0x00, 0x00, 0x00, 0x10, 0x01, 0xbf, 42,
                                        0,    0,    0,    0xb8, 60,   0,    0,    0,    0x0f, 0x05};
  EXPECT(memcpy(im.code, store, sizeof store), 1000 + SIGSEGV);
  EXPECT(memcpy(im.code, store, sizeof store); im.p[0].p_flags |= PF_W, 42);
  EXPECT(im.p[0].p_flags = PF_R, 1000 + SIGSEGV);
  EXPECT(im.p[0].p_flags = PF_R; im.e.e_phnum = 2; im.p[1].p_type = PT_GNU_STACK;
         im.p[1].p_flags = PF_R | PF_W, 1000 + SIGSEGV);
}

TEST(elf_interpreter) {
  struct {
    Image im;
    char interp[64];
  } f = {.im = image()};
  Elf64_Phdr *p = f.im.p;

  f.im.e.e_phnum = 2;
  p[1] = p[0];
  p[1].p_filesz = p[1].p_memsz = sizeof f;
  p[0] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = sizeof(Image), .p_filesz = 10, .p_align = 1};
  strcpy(f.interp, "/no/such/interpreter");
  CHECK_EQ(run_bytes(&f, sizeof f), -ENOEXEC); /* not terminated where its size says... */
  p[0].p_filesz = strlen(f.interp) + 1;
  CHECK_EQ(run_bytes(&f, sizeof f), -ENOENT);
  p[0].p_filesz = 1;
  CHECK_EQ(run_bytes(&f, sizeof f), -ENOEXEC);
  p[0].p_filesz = 5000;
  CHECK_EQ(run_bytes(&f, sizeof f), -ENOEXEC);
  strcpy(f.interp, "/dev/null");
  p[0].p_filesz = strlen(f.interp) + 1;
  int got = run_bytes(&f, sizeof f);
  CHECK(got == -EACCES || got == -ENOEXEC || got == -ELIBBAD);
  p[0].p_offset = 1ul << 40;
  CHECK_EQ(run_bytes(&f, sizeof f), -EIO);
}

TEST(elf_interpreter_is_not_elf) {
  struct {
    Image im;
    char interp[256];
  } f = {.im = image()};
  char path[256];

  strcpy(path, tmp_path("interp"));
  write_file(path, "this is a text of more than sixty-four bytes so that a header can be read from it\n", 82,
             0755);
  strcpy(f.interp, path);
  f.im.e.e_phnum = 2;
  f.im.p[1] = f.im.p[0];
  f.im.p[0] = (Elf64_Phdr){
      .p_type = PT_INTERP, .p_offset = sizeof(Image), .p_filesz = strlen(path) + 1, .p_align = 1};
  CHECK_EQ(run_bytes(&f, sizeof f), -ELIBBAD);
  write_file(path, "short", 5, 0755);
  CHECK_EQ(run_bytes(&f, sizeof f), -EIO);
  Image interp = image(); /* an interpreter that is good: it is what runs */
  interp.e.e_type = ET_DYN;
  interp.p[0].p_vaddr = 0;
  interp.e.e_entry = offsetof(Image, code);
  interp.code[1] = 43;
  unlink(path);
  write_file(path, &interp, sizeof interp, 0755);
  CHECK_EQ(run_bytes(&f, sizeof f), 43);
}

TEST(elf_32_bit) {
  /* ENOEXEC where 32-bit programs are not run, as in the sandbox. */
  Image im = image();

  im.e.e_ident[EI_CLASS] = ELFCLASS32;
  int got = run_image(&im);
  CHECK(got == 42 || got == -ENOEXEC || got < 0); /* Linux does not look at the class byte here */
}

TEST(elf_random_damage) {
  /* Any single damaged byte in the headers ends in an errno, an exit or a signal: never a hang or a panic. */
  uint64_t seed = 20240511;

  for (int i = 0; i < 150; i++) {
    Image im = image();
    unsigned char *bytes = (unsigned char *)&im;
    for (int k = 0; k < 1 + i % 3; k++)
      bytes[next_random(&seed) % (sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr))] =
          (unsigned char)next_random(&seed);
    run_image(&im);
  }
}

TEST(elf_changed_while_it_runs) {
  /* The kernel must have its own idea of the image: writing gives ETXTBSY, as the text is in use. */
  Image im = image();
  static const unsigned char spin[] = {0xeb, 0xfe};
  char path[256];

  strcpy(path, tmp_path("spin"));
  memcpy(im.code, spin, 2);
  write_file(path, &im, sizeof im, 0755);
  pid_t pid = CHILD(execl(path, "spin", NULL); _exit(9));
  char link[300] = "", exe[64];
  snprintf(exe, sizeof exe, "/proc/%d/exe", pid);
  WAIT_FOR(
      (memset(link, 0, sizeof link), readlink(exe, link, sizeof link - 1) > 0 && strcmp(link, path) == 0));
  CHECK_ERRNO(open(path, O_WRONLY), ETXTBSY);
  kill(pid, SIGKILL);
  check_wait(pid);
  CHECK_OK(open(path, O_WRONLY));
}
