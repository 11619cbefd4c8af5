/* SPDX-License-Identifier: Apache-2.0 */
/* signals-info.c - synchronous faults' siginfo and the machine state around a handler: registers, FP/SSE, red zone. */
#include "check.h"

#include <sys/ucontext.h>

static volatile int hits;
static volatile siginfo_t info;

static void divide(void *p) {
  volatile int zero = *(int *)p, x = 1;
  __asm__ volatile("idivl %1" : "+a"((int){0}) : "r"(zero), "d"(0) : "cc");
  (void)x;
}

static void invalid(void *p) { __asm__ volatile("ud2"); }

static void breakpoint(void *p) { __asm__ volatile("int3"); }

static void privileged(void *p) { __asm__ volatile("hlt"); }

static void divide_sse(void *p) {
  unsigned csr = 0x1f80 & ~0x200u; /* unmask division by zero */
  volatile float zero = 0, one = 1, q;

  __asm__ volatile("ldmxcsr %0" : : "m"(csr));
  q = one / zero;
  (void)q;
}

TEST(sigfpe_integer) {
  siginfo_t si;
  int zero = 0;

  CHECK_EQ(catch_fault(divide, &zero, &si), SIGFPE);
  CHECK_EQ(si.si_code, FPE_INTDIV);
  CHECK(si.si_addr != NULL);
}

TEST(sigfpe_sse) {
  siginfo_t si;

  CHECK_EQ(catch_fault(divide_sse, NULL, &si), SIGFPE);
  CHECK_EQ(si.si_code, FPE_FLTDIV);
}

TEST(sigill) {
  siginfo_t si;

  CHECK_EQ(catch_fault(invalid, NULL, &si), SIGILL);
  CHECK_EQ(si.si_code, ILL_ILLOPN);
  CHECK(*(unsigned short *)si.si_addr == 0x0b0f);
}

TEST(sigtrap_int3) {
  siginfo_t si;

  CHECK_EQ(catch_fault(breakpoint, NULL, &si), SIGTRAP);
  CHECK_EQ(si.si_code, SI_KERNEL);
}

TEST(sigsegv_privileged_instruction) {
  siginfo_t si;

  CHECK_EQ(catch_fault(privileged, NULL, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SI_KERNEL);
  CHECK(si.si_addr == NULL);
}

static void skip_ud2(int sig, siginfo_t *si, void *ucp) {
  ucontext_t *uc = ucp;

  uc->uc_mcontext.gregs[REG_RIP] += 2;
  uc->uc_mcontext.gregs[REG_RBX] = 0x1234;
  hits++;
}

TEST(handler_changes_registers) {
  unsigned long rbx = 1;

  on_siginfo(SIGILL, skip_ud2, 0);
  __asm__ volatile("ud2" : "+b"(rbx) : : "memory");
  CHECK_EQ(hits, 1);
  CHECK_EQ(rbx, 0x1234);
}

static void step(int sig, siginfo_t *si, void *ucp) {
  ucontext_t *uc = ucp;

  *(siginfo_t *)&info = *si;
  if (++hits >= 3)
    uc->uc_mcontext.gregs[REG_EFL] &= ~0x100l;
}

/* The trap flag set by the program itself single-steps it. */
TEST(sigtrap_single_step) {
  on_siginfo(SIGTRAP, step, 0);
  __asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n nop\n nop\n nop\n nop\n" : : : "memory", "cc");
  CHECK_EQ(hits, 3);
  CHECK_EQ(info.si_code, TRAP_TRACE);
}

static void clobber(int sig, siginfo_t *si, void *uc) {
  hits++;
  __asm__ volatile("pxor %%xmm0, %%xmm0\n pxor %%xmm7, %%xmm7\n pxor %%xmm15, %%xmm15\n fninit\n fldpi\n"
                   "xor %%ebx, %%ebx\n xor %%r12d, %%r12d\n std\n cld\n"
                   :
                   :
                   : "xmm0", "xmm7", "xmm15", "rbx", "r12", "cc", "st");
}

/* A signal sent to oneself between setting and reading the registers; kill is asked by a raw instruction. */
TEST(sse_registers_survive_a_handler) {
  uint64_t in[6] = {1, 2, 3, 4, 5, 6}, out[6] = {0};
  long pid = getpid(), nr = SYS_kill;

  on_siginfo(SIGUSR1, clobber, 0);
  __asm__ volatile("movdqu (%[in]), %%xmm0\n movdqu 16(%[in]), %%xmm7\n movdqu 32(%[in]), %%xmm15\n"
                   "mov %[sig], %%rsi\n syscall\n"
                   "movdqu %%xmm0, (%[out])\n movdqu %%xmm7, 16(%[out])\n movdqu %%xmm15, 32(%[out])\n"
                   : "+a"(nr)
                   : [in] "r"(in), [out] "r"(out), "D"(pid), [sig] "i"(SIGUSR1)
                   : "xmm0", "xmm7", "xmm15", "rsi", "rcx", "r11", "memory");
  CHECK_EQ(nr, 0);
  CHECK_EQ(hits, 1);
  CHECK(memcmp(in, out, sizeof in) == 0);
}

TEST(x87_and_mxcsr_survive_a_handler) {
  double value = 1.5, out = 0;
  unsigned csr = 0x9f80, csr_out = 0;    /* flush to zero */
  unsigned short cw = 0x27f, cw_out = 0; /* double precision */
  long pid = getpid(), nr = SYS_kill;

  on_siginfo(SIGUSR1, clobber, 0);
  __asm__ volatile("ldmxcsr %[csr]\n fninit\n fldcw %[cw]\n fldl %[value]\n mov %[sig], %%rsi\n syscall\n"
                   "fstpl %[out]\n fnstcw %[cwo]\n stmxcsr %[csro]\n fninit\n"
                   : "+a"(nr), [out] "=m"(out), [cwo] "=m"(cw_out), [csro] "=m"(csr_out)
                   : [csr] "m"(csr), [cw] "m"(cw), [value] "m"(value), "D"(pid), [sig] "i"(SIGUSR1)
                   : "rsi", "rcx", "r11", "memory", "st");
  csr = 0x1f80;
  __asm__ volatile("ldmxcsr %0" : : "m"(csr));
  CHECK(out == 1.5);
  CHECK_EQ(csr_out & 0xffc0, 0x9f80);
  CHECK_EQ(cw_out, 0x27f);
}

TEST(avx_registers_survive_a_handler) {
  uint64_t in[4] = {11, 22, 33, 44}, out[4] = {0};
  long pid = getpid(), nr = SYS_kill;

  if (!__builtin_cpu_supports("avx"))
    SKIP("the processor has no AVX");
  on_siginfo(SIGUSR1, clobber, 0);
  __asm__ volatile(
      "vmovdqu (%[in]), %%ymm3\n mov %[sig], %%rsi\n syscall\n vmovdqu %%ymm3, (%[out])\n vzeroupper\n"
      : "+a"(nr)
      : [in] "r"(in), [out] "r"(out), "D"(pid), [sig] "i"(SIGUSR1)
      : "xmm3", "rsi", "rcx", "r11", "memory");
  CHECK(memcmp(in, out, sizeof in) == 0);
}

/* 128 bytes below the stack pointer belong to the interrupted function. */
TEST(red_zone_survives_a_handler) {
  long pid = getpid(), nr = SYS_kill, a = 0, b = 0;

  on_siginfo(SIGUSR1, clobber, 0);
  __asm__ volatile("movq $0x1111, -8(%%rsp)\n movq $0x2222, -128(%%rsp)\n mov %[sig], %%rsi\n syscall\n"
                   "movq -8(%%rsp), %[a]\n movq -128(%%rsp), %[b]\n"
                   : "+a"(nr), [a] "=&r"(a), [b] "=&r"(b)
                   : "D"(pid), [sig] "i"(SIGUSR1)
                   : "rsi", "rcx", "r11", "memory");
  CHECK_EQ(a, 0x1111);
  CHECK_EQ(b, 0x2222);
}

TEST(general_registers_survive_a_handler) {
  long pid = getpid(), nr = SYS_kill, out[6];

  on_siginfo(SIGUSR1, clobber, 0);
  __asm__ volatile(
      "mov $101, %%rbx\n mov $102, %%r12\n mov $103, %%r13\n mov $104, %%r8\n mov $105, %%r10\n"
      "mov $106, %%rdx\n mov %[sig], %%rsi\n syscall\n"
      "mov %%rbx, (%[out])\n mov %%r12, 8(%[out])\n mov %%r13, 16(%[out])\n mov %%r8, 24(%[out])\n"
      "mov %%r10, 32(%[out])\n mov %%rdx, 40(%[out])\n"
      : "+a"(nr)
      : [out] "r"(out), "D"(pid), [sig] "i"(SIGUSR1)
      : "rbx", "r12", "r13", "r8", "r10", "rdx", "rsi", "rcx", "r11", "memory");
  for (int i = 0; i < 6; i++)
    CHECK_EQ(out[i], 101 + i);
}

/* syscall(2) ABI: only rax, rcx and r11 change; rcx is the return address and r11 the flags. */
TEST(syscall_clobbers) {
  unsigned long rcx, rax = SYS_getpid, rip, r11, flags;

  __asm__ volatile("syscall\n 1: mov %%r11, %[r11]\n pushfq\n popq %[flags]\n lea 1b(%%rip), %[rip]\n"
                   : "+a"(rax), "=c"(rcx), [rip] "=r"(rip), [r11] "=&r"(r11), [flags] "=&r"(flags)
                   :
                   : "r11", "memory");
  CHECK_EQ(rax, getpid());
  CHECK_EQ(rcx, rip);
  CHECK_EQ(r11 & 0xcd5, flags & 0xcd5);
}

TEST(direction_flag_is_clear_in_handlers) {
  unsigned long flags = 0;
  long pid = getpid(), nr = SYS_kill;

  on_siginfo(SIGUSR1, clobber, 0);
  __asm__ volatile("mov %[sig], %%rsi\n std\n syscall\n pushfq\n popq %[flags]\n cld\n"
                   : "+a"(nr), [flags] "=r"(flags)
                   : "D"(pid), [sig] "i"(SIGUSR1)
                   : "rsi", "rcx", "r11", "memory", "cc");
  CHECK_EQ(flags & 0x400, 0x400); /* and as it was afterwards */
  CHECK_EQ(hits, 1);
}

static volatile unsigned long frame_sp, frame_align;

static void note_frame(int sig, siginfo_t *si, void *ucp) {
  ucontext_t *uc = ucp;

  frame_sp = (unsigned long)uc->uc_mcontext.gregs[REG_RSP];
  /* At entry rsp + 8 is a multiple of 16. */
  frame_align = ((unsigned long)__builtin_frame_address(0) + 16) % 16;
  CHECK(uc->uc_mcontext.fpregs != NULL);
  CHECK((unsigned long)uc->uc_mcontext.fpregs % 64 == 0);
  CHECK_EQ(si->si_signo, sig);
  hits++;
}

TEST(frame_layout) {
  on_siginfo(SIGUSR1, note_frame, 0);
  raise(SIGUSR1);
  CHECK_EQ(frame_align, 0);
  CHECK(frame_sp > (unsigned long)&frame_sp);
  CHECK_EQ(hits, 1);
}

static void forge(int sig, siginfo_t *si, void *ucp) {
  ucontext_t *uc = ucp;

  hits++;
  uc->uc_mcontext.gregs[REG_CSGSFS] = 0;              /* selectors that must not be believed */
  uc->uc_mcontext.gregs[REG_EFL] |= 0x3000 | 0x20000; /* IOPL and VM */
}

/* Whatever sigreturn is given, the kernel stays alive; the program runs on or is killed. */
TEST(forged_frame) {
  int status = check_wait(CHILD(on_siginfo(SIGUSR1, forge, 0); raise(SIGUSR1); _exit(0)));
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
        (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
  status = check_wait(CHILD(__asm__ volatile("mov $0x1000, %%rsp\n mov $15, %%eax\n syscall\n"
                                             :
                                             :
                                             : "memory", "rax");
                            _exit(0)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

TEST(handler_frame_on_a_bad_stack) {
  int status =
      check_wait(CHILD(on_siginfo(SIGUSR1, clobber, 0); long pid = getpid();
                       __asm__ volatile("mov $0x2000, %%rsp\n mov $62, %%eax\n mov $10, %%esi\n syscall\n"
                                        "mov $60, %%eax\n xor %%edi, %%edi\n syscall\n"
                                        :
                                        : "D"(pid)
                                        : "rax", "rsi", "memory");
                       _exit(0)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}
