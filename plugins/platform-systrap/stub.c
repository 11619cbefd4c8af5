/* SPDX-License-Identifier: Apache-2.0 */
/* The stub, second part: what a guest thread does between a trap and its answer.
 *
 * This code lives in the guest's address space. It is compiled without vector instructions, refers to
 * nothing outside its section, and runs on the slot's signal stack, which guest threads may scribble
 * on: whatever goes wrong here is the guest's own loss (docs/security/systrap.md).
 *
 * A trap is posted by one store to StOut.post, answered by one to StIn.answer; each side waits for the other's word. A kick
 * is a signal: it posts a trap of its own unless one is under way. */
#include <linux/futex.h>
#include <sys/syscall.h>
#include "stub.h"

#define STUB __attribute__((section("tessera_stub"), used, noinline, visibility("hidden")))
#define INLINE static inline __attribute__((always_inline))
#define CARRY_TO_SIGN 0xd5 /* the flags that lahf saves */
#define OVERFLOW_FLAG 0x800
#define CPUID_BYTES 0xa2fa /* what rewriting made of a cpuid instruction, in memory order fa a2 */
#define TRAP_UD 6
#define TRAP_GP 13
#define SIGILL_ 4
#define SIGTRAP_ 5
#define SIGSEGV_ 11
#define TABLE_JUMP 0x2524ff     /* the windows of rewritten calls (rewrite.c): ff 24 25 */
#define TABLE_JUMP_CMP 0xe524ff /* ff 24 e5 */
#define AGAIN 1UL
#define MIDDLE 0x0006 /* the bytes in the place of the call */

/* Called by stub.S. */
StFrame *tes_st_trapped(StFrame *, volatile StIn *);
StFrame *tes_st_kicked(StFrame *, volatile StIn *);
StFrame *tes_st_again(StFrame *, volatile StIn *);
void tes_st_called(volatile StIn *);

long tes_st_host_call(long nr, const void *a, long b, long c) ST_HIDDEN;

INLINE uint64_t rdfs(void) {
  uint64_t v;
  __asm__("rdfsbase %0" : "=r"(v));
  return v;
}

INLINE uint64_t rdgs(void) {
  uint64_t v;
  __asm__("rdgsbase %0" : "=r"(v));
  return v;
}

INLINE void load_bases(const volatile StIn *in) {
  if (in->flags & ST_LOAD_FS)
    __asm__ volatile("wrfsbase %0" ::"r"(in->fs_base));
  if (in->flags & ST_LOAD_GS)
    __asm__ volatile("wrgsbase %0" ::"r"(in->gs_base));
}

INLINE void wake_kernel(volatile StIn *in, volatile StOut *out) {
  if (in->sleeping)
    tes_st_host_call(SYS_futex, (const void *)&out->post, FUTEX_WAKE, 1);
}

INLINE void post(volatile StIn *in, volatile StOut *out, uint32_t n) {
  out->pending = 0;
  __atomic_store_n(&out->post, n, __ATOMIC_SEQ_CST);
  wake_kernel(in, out);
}

INLINE void wait_for_answer(volatile StIn *in, volatile StOut *out, uint32_t n) {
  for (uint32_t spin = in->spin; spin; spin--) {
    if (in->answer == n)
      return;
    __builtin_ia32_pause();
  }
  while (in->answer != n) {
    __atomic_store_n((uint32_t *)(uintptr_t)&out->sleeping, 1, __ATOMIC_SEQ_CST);
    if (in->answer != n)
      tes_st_host_call(SYS_futex, (const void *)&in->answer, FUTEX_WAIT, n - 1);
    out->sleeping = 0;
  }
}

/* Answers a rewritten cpuid from the table that the kernel process keeps; 0: it has to be asked. */
INLINE int answer_cpuid(StContext *c) {
  const StCpuid *table = (const void *)ST_CPUID;
  if (c->trapno != TRAP_GP || *(const uint16_t *)c->rip != CPUID_BYTES)
    return 0;
  uint32_t n = __atomic_load_n(&table->count, __ATOMIC_ACQUIRE);
  for (uint32_t i = 0; i < n && i < ST_CPUID_ENTRIES; i++) {
    const StCpuidEntry *e = &table->entry[i];
    if (e->leaf != (uint32_t)c->rax || !(e->any_subleaf || e->subleaf == (uint32_t)c->rcx))
      continue;
    c->rax = e->eax;
    c->rbx = e->ebx;
    c->rcx = e->ecx;
    c->rdx = e->edx;
    c->rip += 2;
    return 1;
  }
  return 0;
}

INLINE int within(uint64_t at, const char *from, const char *to) {
  return at >= (uintptr_t)from && at < (uintptr_t)to;
}

/* The trampoline of a window at `at`, or 0. `ip` is in it. */
INLINE uint64_t window_at(uint64_t at, uint64_t ip, uint32_t jump) {
  if ((at ^ ip) & -(uint64_t)ST_PAGE || (*(const uint32_t *)at & 0xffffff) != jump)
    return 0;
  uint32_t disp = *(const uint32_t *)(at + 3);
  return disp - ST_TABLE < ST_TABLE_SIZE && disp % 8 == 0
             ? ST_TRAMPOLINES + (disp - ST_TABLE) / 8 * ST_TRAMPOLINE
             : 0;
}

/* A thread was in the middle of what rewriting replaced, or somebody jumped there. */
INLINE int into_trampoline(StContext *c) {
  uint64_t ip = c->rip, to;
  if (c->trapno == TRAP_GP) {
    to = window_at(ip - 2, ip, TABLE_JUMP_CMP);
    c->rip = to ? to + ST_TR_TAIL : ip;
    return to != 0;
  }
  if (c->trapno != TRAP_UD || (ip + 1) % ST_PAGE == 0 || *(const uint16_t *)ip != MIDDLE)
    return 0;
  to = window_at(ip - 5, ip, TABLE_JUMP);
  if (!to)
    to = window_at(ip - 7, ip, TABLE_JUMP);
  c->rip = to ? to + ST_TR_CALL : ip;
  return to != 0;
}

/* Posts a kick with the registers of `f`, that were about to be restored. */
INLINE StFrame *trap_again(volatile StIn *in, volatile StOut *out, StFrame *f) {
  uint32_t n = in->answer + 1;
  out->frame = (uintptr_t)f;
  out->entering = n; /* from here on kicks wait */
  out->fs_base = rdfs();
  out->gs_base = rdgs();
  out->kind = ST_KICKED;
  post(in, out, n);
  wait_for_answer(in, out, n);
  load_bases(in);
  return f;
}

/* Any signal but a kick that found nothing to do. Returns the frame to leave by. */
STUB StFrame *tes_st_trapped(StFrame *f, volatile StIn *in) {
  volatile StOut *out = (volatile StOut *)((uintptr_t)in + ST_OUT);
  uint32_t n = in->answer + 1;
  /* A program that single-steps itself does not see what a rewritten call consists of. `entering` stays: kicks wait. */
  if (f->signo == SIGTRAP_ && (within(f->c.rip, tes_st_direct, __stop_tessera_stub) ||
                               f->c.rip - ST_TRAMPOLINES < ST_TRAMPOLINES_SIZE))
    return f;
  out->frame = (uintptr_t)f;
  out->kind = f->signo == ST_KICK_SIGNAL ? ST_KICKED : ST_FRAME;
  if ((f->signo == SIGSEGV_ && answer_cpuid(&f->c)) ||
      ((f->signo == SIGSEGV_ || f->signo == SIGILL_) && f->code > 0 && into_trampoline(&f->c))) {
    out->kind = ST_LOCAL;
    __atomic_store_n(&out->entering, n - 1, __ATOMIC_SEQ_CST);
    return out->pending ? trap_again(in, out, f) : f;
  }
  out->fs_base = rdfs();
  out->gs_base = rdgs();
  post(in, out, n);
  wait_for_answer(in, out, n);
  load_bases(in);
  return f;
}

/* A rewritten call, posted already. */
STUB void tes_st_called(volatile StIn *in) {
  volatile StOut *out = (volatile StOut *)((uintptr_t)in + ST_OUT);
  wake_kernel(in, out);
  wait_for_answer(in, out, out->post);
  if (in->flags & ST_REFRAME)
    __asm__ volatile("jmp tes_st_reframe");
}

/* The guest's registers as they will be when the direct call has returned. */
INLINE void unwind_direct(StContext *c, const volatile StIn *in, const volatile StOut *out) {
  c->rax = in->result;
  c->rbx = out->regs[ST_RBX];
  c->rcx = c->rip = out->regs[ST_RIP];
  c->rdx = out->regs[ST_RDX];
  c->rsi = out->regs[ST_RSI];
  c->rdi = out->regs[ST_RDI];
  c->rbp = out->regs[ST_RBP];
  c->rsp = out->regs[ST_RSP];
  c->r8 = out->regs[ST_R8];
  c->r9 = out->regs[ST_R9];
  c->r10 = out->regs[ST_R10];
  c->r12 = out->regs[ST_R12];
  c->r13 = out->regs[ST_R13];
  c->r14 = out->regs[ST_R14];
  c->r15 = out->regs[ST_R15];
  c->eflags &= ~(uint64_t)(CARRY_TO_SIGN | OVERFLOW_FLAG);
  c->eflags |= (out->flags >> 8 & CARRY_TO_SIGN) | (out->flags & 1 ? OVERFLOW_FLAG : 0);
  c->r11 = c->eflags;
}

/* A kick. What it interrupted decides:
 *   guest code                           a trap (0)
 *   the stub, before a trap is posted    remembered: whoever then answers without a trap looks for it
 *   the stub, waiting for the answer     nothing: who answers looks for kicks afterwards
 *   the stub, with the answer            a trap, with the registers that were about to be restored */
STUB StFrame *tes_st_kicked(StFrame *f, volatile StIn *in) {
  volatile StOut *out = (volatile StOut *)((uintptr_t)in + ST_OUT);
  uint64_t ip = f->c.rip;
  uint32_t answer = in->answer;
  if (!within(ip, __start_tessera_stub, __stop_tessera_stub) || within(ip, tes_st_fact, tes_st_fact_end))
    return 0;
  if (out->post != answer)
    return f;
  if (out->entering == answer + 1 || within(ip, tes_st_handler, tes_st_entered) ||
      within(ip, tes_st_direct, tes_st_direct_entered)) {
    out->pending = 1;
    return f;
  }
  if (out->kind == ST_DIRECT)
    f = (StFrame *)(uintptr_t)
            out->kick_frame; /* of this one, or of one that it interrupts: extended state is there */
  else if (!out->frame)
    return f;
  else
    f = (StFrame *)(uintptr_t)out->frame;
  return (StFrame *)((uintptr_t)f | AGAIN);
}

/* On a stack that ends below `f`, whatever was stacked before: kicks that come again and again take no more room. One that
 * comes before the post takes the place of this. */
STUB StFrame *tes_st_again(StFrame *f, volatile StIn *in) {
  volatile StOut *out = (volatile StOut *)((uintptr_t)in + ST_OUT);
  if (out->kind != ST_LOCAL)
    load_bases(in);
  if (out->kind == ST_DIRECT)
    unwind_direct(&f->c, in, out);
  return trap_again(in, out, f);
}
