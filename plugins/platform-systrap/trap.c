/* SPDX-License-Identifier: Apache-2.0 */
/* What a posted trap means, and the registers behind it. Everything read here stands in pages that guest threads may
 * write at any moment: each word is read once, and checked before it is used. */
#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include "private.h"

#define X32_BIT 0x40000000U
#define USER_CS 0x33
#define USER32_CS 0x23
#define USER_DS 0x2b
#define FLAGS_USER 0x3f7fd5UL /* what popf and iret let a program choose, and RF */
#define FLAGS_FIXED 0x202UL
#define LAHF_FLAGS 0xd5
#define OVERFLOW_FLAG 0x800
#define FAULT_TRAP 14
#define FAULT_WRITE 2
#define FAULT_FETCH 16
#define SECCOMP_CODE 1 /* SYS_SECCOMP */

#define READ(word) (*(volatile __typeof__(word) *)&(word))

/* x32 numbers have this bit; negative numbers are no ABI of their own. */
static gboolean is_x32(gulong nr) { return (nr & X32_BIT) && !(nr & 0x80000000U); }

void *st_in_slot(const StThread *t, gulong at, gsize n, guint align) {
  gulong slot = ST_SLOTS + (gulong)t->place * ST_SLOT_SIZE;
  if (at < slot + ST_STACK || at > slot + ST_SLOT_SIZE - n || at % align)
    return NULL;
  return (char *)t->out + (at - slot - ST_OUT);
}

static void direct_trap(StExec *e, TesTrap *out) {
  StOut *o = e->thread->out;
  e->syscall = TRUE;
  e->nr = READ(o->nr);
  if (e->nr == ST_NR_LARGE)
    e->nr = READ(o->regs[ST_RAX]);
  out->kind = TES_TRAP_SYSCALL;
  out->nr = (gulong)(gint)e->nr; /* as the host reads it: 32 bits */
  out->foreign_abi = is_x32(out->nr) ? TES_ABI_X32 : 0;
  out->args[0] = READ(o->regs[ST_RDI]);
  out->args[1] = READ(o->regs[ST_RSI]);
  out->args[2] = READ(o->regs[ST_RDX]);
  out->args[3] = READ(o->regs[ST_R10]);
  out->args[4] = READ(o->regs[ST_R8]);
  out->args[5] = READ(o->regs[ST_R9]);
  out->sp = READ(o->regs[ST_RSP]);
}

/* Where our gs base is not loaded, rewritten calls would not find their slot. */
static gboolean own_gs(const StThread *t) {
  return READ(t->out->gs_base) == ST_SLOTS + (gulong)t->place * ST_SLOT_SIZE;
}

static void syscall_trap(StExec *e, TesTrap *out) {
  StContext *c = &e->frame->c;
  e->syscall = TRUE;
  e->nr = READ(c->rax);
  out->kind = TES_TRAP_SYSCALL;
  out->nr = (gulong)(gint)e->nr; /* as the host reads it: 32 bits */
  out->foreign_abi = READ(e->frame->arch) != AUDIT_ARCH_X86_64 ? TES_ABI_I386
                     : is_x32(out->nr)                         ? TES_ABI_X32
                                                               : 0;
  out->args[0] = READ(c->rdi);
  out->args[1] = READ(c->rsi);
  out->args[2] = READ(c->rdx);
  out->args[3] = READ(c->r10);
  out->args[4] = READ(c->r8);
  out->args[5] = READ(c->r9);
  if (!out->foreign_abi && out->ip < ST_BASE && own_gs(e->thread))
    out->rewrite = st_hot(ST_ASPACE(e), out->ip, out->nr);
}

/* The signals that a processor raises; the core uses the number as an index. */
static gboolean is_hardware(int signo) {
  return signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE || signo == SIGTRAP;
}

/* Signals of the hardware have a positive si_code; any other was sent by somebody on the host and is dropped. FALSE: it is
 * none: a forged frame. */
static gboolean hardware_trap(StExec *e, int signo, int code, TesTrap *out) {
  StContext *c = &e->frame->c;
  if (!is_hardware(signo))
    return FALSE;
  out->signo = signo;
  out->code = code;
  out->trapno = READ(c->trapno);
  out->err = READ(c->err);
  out->addr = READ(e->frame->addr);
  out->kind = TES_TRAP_EXCEPTION;
  if (out->trapno == FAULT_TRAP && (signo == SIGSEGV || signo == SIGBUS) && code != SI_KERNEL) {
    out->kind = TES_TRAP_FAULT;
    out->access = out->err & FAULT_FETCH   ? TES_ACCESS_EXEC
                  : out->err & FAULT_WRITE ? TES_ACCESS_WRITE
                                           : TES_ACCESS_READ;
  }
  return TRUE;
}

gboolean st_decode(StExec *e, TesTrap *out) {
  StThread *t = e->thread;
  guint kind = READ(t->out->kind);
  e->stopped = TRUE;

  e->has_regs = e->syscall = FALSE;
  e->kind = kind == ST_DIRECT ? ST_DIRECT : ST_FRAME;
  if (kind == ST_DIRECT) {
    direct_trap(e, out);
    return TRUE;
  }
  e->frame = st_in_slot(t, READ(t->out->frame), sizeof(StFrame), 8);
  if (!e->frame)
    return FALSE;
  int signo = READ(e->frame->signo), code = READ(e->frame->code);

  out->ip = st_guest_ip(ST_ASPACE(e), READ(e->frame->c.rip));
  out->sp = READ(e->frame->c.rsp);
  if (kind == ST_KICKED || code <= 0)
    out->kind = TES_TRAP_KICK;
  else if (signo == SIGSYS && code == SECCOMP_CODE)
    syscall_trap(e, out);
  else
    return hardware_trap(e, signo, code, out);
  return TRUE;
}

static void from_direct(StExec *e) {
  StOut *o = e->thread->out;
  TesRegs *r = &e->regs;
  guint32 flags = READ(o->flags);
  *r = (TesRegs){.rbx = READ(o->regs[ST_RBX]),
                 .rdx = READ(o->regs[ST_RDX]),
                 .rsi = READ(o->regs[ST_RSI]),
                 .rdi = READ(o->regs[ST_RDI]),
                 .rbp = READ(o->regs[ST_RBP]),
                 .rsp = READ(o->regs[ST_RSP]),
                 .r8 = READ(o->regs[ST_R8]),
                 .r9 = READ(o->regs[ST_R9]),
                 .r10 = READ(o->regs[ST_R10]),
                 .r12 = READ(o->regs[ST_R12]),
                 .r13 = READ(o->regs[ST_R13]),
                 .r14 = READ(o->regs[ST_R14]),
                 .r15 = READ(o->regs[ST_R15]),
                 .rip = st_guest_ip(ST_ASPACE(e), READ(o->regs[ST_RIP])),
                 .cs = USER_CS};
  r->eflags = FLAGS_FIXED | (flags >> 8 & LAHF_FLAGS) | (flags & 1 ? OVERFLOW_FLAG : 0);
  r->rcx = r->rip;
  r->r11 = r->eflags;
}

/* A kick came while the stub answered a call by itself: the registers are those after the call. */
static void finish_fact(StExec *e) {
  StThread *t = e->thread;
  TesRegs *r = &e->regs;
  guint32 flags = READ(t->out->flags);
  r->rax = t->in->facts[r->r11 % ST_FACTS];
  r->rip = r->rcx;
  r->eflags &= ~(gulong)(LAHF_FLAGS | OVERFLOW_FLAG);
  r->eflags |= (flags >> 8 & LAHF_FLAGS) | (flags & 1 ? OVERFLOW_FLAG : 0);
  r->r11 = r->eflags;
}

static void from_frame(StExec *e) {
  StContext *c = &e->frame->c;
  e->regs = (TesRegs){.r15 = READ(c->r15),
                      .r14 = READ(c->r14),
                      .r13 = READ(c->r13),
                      .r12 = READ(c->r12),
                      .rbp = READ(c->rbp),
                      .rbx = READ(c->rbx),
                      .r11 = READ(c->r11),
                      .r10 = READ(c->r10),
                      .r9 = READ(c->r9),
                      .r8 = READ(c->r8),
                      .rax = READ(c->rax),
                      .rcx = READ(c->rcx),
                      .rdx = READ(c->rdx),
                      .rsi = READ(c->rsi),
                      .rdi = READ(c->rdi),
                      .rip = READ(c->rip),
                      .cs = READ(c->cs),
                      .eflags = READ(c->eflags),
                      .rsp = READ(c->rsp)};
  if (e->regs.rip >= ST_AT(tes_st_fact) && e->regs.rip < ST_AT(tes_st_fact_end))
    finish_fact(e);
  e->regs.rip = st_guest_ip(ST_ASPACE(e), e->regs.rip);
}

void st_get_regs(StExec *e) {
  StThread *t = e->thread;
  gulong slot = ST_SLOTS + (gulong)t->place * ST_SLOT_SIZE, gs = READ(t->out->gs_base);
  if (e->kind == ST_DIRECT)
    from_direct(e);
  else
    from_frame(e);
  e->regs.fs_base = READ(t->out->fs_base);
  e->regs.gs_base = e->kind == ST_DIRECT || gs == slot ? 0 : gs;
  e->regs.ss = USER_DS;
  e->regs.orig_rax = (gulong)-1;
  if (e->syscall) {
    e->regs.orig_rax = e->nr;
    e->regs.rax = (gulong)-ENOSYS;
  }
  if (e->has_result)
    e->regs.rax = e->result;
  e->has_regs = TRUE;
}

/* Into the frame; selectors of user mode and bases in user space only. */
void st_put_regs(StExec *e) {
  StContext *c = &e->frame->c;
  StThread *t = e->thread;
  TesRegs *r = &e->regs;
  c->r8 = r->r8, c->r9 = r->r9, c->r10 = r->r10, c->r11 = r->r11;
  c->r12 = r->r12, c->r13 = r->r13, c->r14 = r->r14, c->r15 = r->r15;
  c->rdi = r->rdi, c->rsi = r->rsi, c->rbp = r->rbp, c->rbx = r->rbx;
  c->rdx = r->rdx, c->rax = r->rax, c->rcx = r->rcx, c->rsp = r->rsp;
  c->rip = r->rip;
  c->eflags = (r->eflags & FLAGS_USER) | FLAGS_FIXED;
  c->cs = r->cs == USER32_CS ? USER32_CS : USER_CS;
  t->in->fs_base = r->fs_base < ST_USER_END ? r->fs_base : 0;
  t->in->gs_base =
      r->gs_base && r->gs_base < ST_USER_END ? r->gs_base : ST_SLOTS + (gulong)t->place * ST_SLOT_SIZE;
}

G_STATIC_ASSERT(sizeof(StCpuid) == sizeof(TesCpuidTable) && ST_CPUID_ENTRIES == TES_CPUID_ENTRIES);
G_STATIC_ASSERT(sizeof(StCpuidEntry) == sizeof(TesCpuidEntry) &&
                offsetof(StCpuidEntry, edx) == offsetof(TesCpuidEntry, edx));

void st_copy_cpuid(StPlatform *p) {
  StCpuid *copy = (StCpuid *)(p->ro + RO_CPUID);
  guint32 n = p->cpuid ? __atomic_load_n(&p->cpuid->count, __ATOMIC_ACQUIRE) : 0;
  if (G_LIKELY(n == __atomic_load_n(&copy->count, __ATOMIC_RELAXED)))
    return;
  /* Another thread may copy the same. Entries never change. */
  memcpy(copy->entry, p->cpuid->entry, n * sizeof copy->entry[0]);
  __atomic_store_n(&copy->count, n, __ATOMIC_RELEASE);
}
