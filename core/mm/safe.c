/* SPDX-License-Identifier: Apache-2.0 */
/* Fault-protected memory access; see safe.h. x86-64. Each protected range [start, end) has a fix-up address in a table of
 * its own section; the signal handler compares the interrupted instruction pointer. */
#include <core/mm/safe.h>
#include <pthread.h>
#include <signal.h>
#include <tessera/mm.h>
#include <ucontext.h>

typedef struct {
  gulong start, end, fix;
} Fixup;
extern const Fixup __start_tes_fixups[] __attribute__((visibility("hidden")));
extern const Fixup __stop_tes_fixups[] __attribute__((visibility("hidden")));

#define FIXUP(from, to, fix) \
  ".pushsection tes_fixups,\"aw\"\n .balign 8\n .quad " from ", " to ", " fix "\n .popsection\n"

gsize tes_safe_copy(void *dst, const void *src, gsize n) {
  /* Blocks of 32 bytes, then bytes. A fault in a block goes on with bytes, so that the count is exact. */
  __asm__ volatile("cmpq $1024, %%rcx\n jae 3f\n"
                   "1: cmpq $32, %%rcx\n jb 3f\n"
                   "10: movdqu (%%rsi), %%xmm0\n movdqu 16(%%rsi), %%xmm1\n"
                   " movdqu %%xmm0, (%%rdi)\n movdqu %%xmm1, 16(%%rdi)\n"
                   "11: addq $32, %%rsi\n addq $32, %%rdi\n subq $32, %%rcx\n jmp 1b\n"
                   "3: rep movsb\n"
                   "4:\n" FIXUP("10b", "11b", "3b") FIXUP("3b", "4b", "4b")
                   : "+D"(dst), "+S"(src), "+c"(n)
                   :
                   : "memory", "cc", "xmm0", "xmm1");
  return n;
}

gsize tes_safe_zero(void *dst, gsize n) {
  __asm__ volatile("1: rep stosb\n"
                   "2:\n" FIXUP("1b", "2b", "2b")
                   : "+D"(dst), "+c"(n)
                   : "a"(0)
                   : "memory", "cc");
  return n;
}

gboolean tes_safe_load32(const guint32 *p, guint32 *out) {
  gint ok = 0;
  guint32 v = 0;
  __asm__ volatile("1: movl (%2), %1\n movl $1, %0\n"
                   "2:\n" FIXUP("1b", "2b", "2b")
                   : "+&r"(ok), "+&r"(v)
                   : "r"(p)
                   : "memory");
  *out = v;
  return ok;
}

gboolean tes_safe_cas32(guint32 *p, guint32 *expected, guint32 desired) {
  gint ok = 0;
  guint32 old = *expected;
  __asm__ volatile("1: lock cmpxchgl %3, (%2)\n movl $1, %0\n"
                   "2:\n" FIXUP("1b", "2b", "2b")
                   : "+&r"(ok), "+&a"(old)
                   : "r"(p), "r"(desired)
                   : "memory", "cc");
  *expected = old;
  return ok;
}

static struct sigaction old_segv, old_bus;

static void on_fault(int sig, siginfo_t *info, void *context) {
  ucontext_t *uc = context;
  gulong ip = (gulong)uc->uc_mcontext.gregs[REG_RIP];
  for (const Fixup *f = __start_tes_fixups; f < __stop_tes_fixups; f++)
    if (ip >= f->start && ip < f->end) {
      uc->uc_mcontext.gregs[REG_RIP] = (greg_t)f->fix;
      return;
    }
  struct sigaction *old = sig == SIGSEGV ? &old_segv : &old_bus;
  if (old->sa_flags & SA_SIGINFO) {
    old->sa_sigaction(sig, info, context);
  } else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
    old->sa_handler(sig);
  } else {
    /* A crash: the instruction faults again with the default action. */
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigaction(sig, &dfl, NULL);
  }
}

static void install(void) {
  struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  sigemptyset(&sa.sa_mask);
  sigaction(SIGSEGV, &sa, &old_segv);
  sigaction(SIGBUS, &sa, &old_bus);
}

void tes_safe_init(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, install);
}
