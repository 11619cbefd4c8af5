/* SPDX-License-Identifier: Apache-2.0 */
/* Signal frames of x86-64: what a handler finds on its stack, and the way back (rt_sigreturn(2)). The layout is ABI
 * (System V psABI, Linux's ucontext and the XSAVE area of the Intel SDM vol. 1, ch. 13); the area's software bytes are read by
 * debuggers and by setcontext-like code. Everything read back is hostile. */
#include <core/task/signal-private.h>
#include <cpuid.h>

typedef struct {
  guint64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  guint16 cs, gs, fs, ss;
  guint64 err, trapno, oldmask, cr2, fpstate, reserved[8];
} SigContext;

typedef struct {
  guint64 flags, link;
  struct {
    guint64 sp;
    gint32 flags, pad;
    guint64 size;
  } stack;
  SigContext mc;
  guint64 sigmask;
} UContext;

typedef struct {
  guint64 restorer;
  UContext uc;
  siginfo_t info;
} Frame;
G_STATIC_ASSERT(sizeof(SigContext) == 256);
G_STATIC_ASSERT(sizeof(UContext) == 304);
G_STATIC_ASSERT(sizeof(siginfo_t) == 128);

enum { UC_FP_XSTATE = 1, UC_SIGCONTEXT_SS = 2, UC_STRICT_RESTORE_SS = 4 };

/* Software-reserved bytes of the legacy area. */
typedef struct {
  guint32 magic1, extended_size;
  guint64 xfeatures;
  guint32 xstate_size, pad[7];
} SwBytes;
#define SW_OFFSET 464
#define LEGACY_SIZE 512
#define XSAVE_MIN (LEGACY_SIZE + 64)
#define MAGIC1 0x46505853U
#define MAGIC2 0x46505845U
#define MAGIC2_SIZE 4

#define XTILECFG 17
#define TILE_FEATURES (3ULL << XTILECFG)

#define RED_ZONE 128
/* Flags a program may change: CF PF AF ZF SF TF DF OF NT RF AC. */
#define USER_FLAGS (0x1UL | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x4000 | 0x10000 | 0x40000)
#define FLAG_TF 0x100UL
#define FLAG_DF 0x400UL
#define FLAG_RF 0x10000UL

static gboolean on_altstack(const TesTask *t, gulong sp) {
  return t->altstack.size && sp > t->altstack.sp && sp - t->altstack.sp <= t->altstack.size;
}

static gulong stack_top(const TesTask *t, gulong sp, const TesSigAction *a) {
  gboolean inside = !(t->altstack.flags & SS_AUTODISARM) && on_altstack(t, sp);
  if ((a->flags & SA_ONSTACK) && !inside && !(t->altstack.flags & SS_DISABLE) && t->altstack.size)
    return t->altstack.sp + t->altstack.size;
  return sp - RED_ZONE;
}

static void save_regs(SigContext *mc, const TesRegs *r, const TesTask *t, guint64 mask) {
  *mc = (SigContext){.r8 = r->r8,
                     .r9 = r->r9,
                     .r10 = r->r10,
                     .r11 = r->r11,
                     .r12 = r->r12,
                     .r13 = r->r13,
                     .r14 = r->r14,
                     .r15 = r->r15,
                     .rdi = r->rdi,
                     .rsi = r->rsi,
                     .rbp = r->rbp,
                     .rbx = r->rbx,
                     .rdx = r->rdx,
                     .rax = r->rax,
                     .rcx = r->rcx,
                     .rsp = r->rsp,
                     .rip = r->rip,
                     .eflags = r->eflags,
                     .cs = r->cs,
                     .ss = r->ss,
                     .err = t->trap_err,
                     .trapno = t->trap_no,
                     .oldmask = mask,
                     .cr2 = t->fault_addr};
}

/* Bytes of extended state that a frame holds: all but AMX's tiles, which come last, take 8 KiB and need a permission
 * (ARCH_REQ_XCOMP_PERM) that no program here has. */
static gsize frame_xstate_size(const TesPlatform *p) {
  static gsize before_tiles;
  if (!before_tiles) {
    guint eax, ebx = 0, ecx, edx;
    if (!__get_cpuid_count(0xd, XTILECFG, &eax, &ebx, &ecx, &edx) || ebx < XSAVE_MIN)
      ebx = G_MAXUINT;
    before_tiles = ebx;
  }
  return MIN(p->xstate_size, before_tiles);
}

/* Writes the extended state at a 64-byte aligned place below *sp: its address, 0 if there is none, or G_MAXULONG on a fault. */
static gulong push_xstate(TesTask *t, gulong *sp) {
  gsize n = t->kernel->platform->xstate_size;
  g_autofree guchar *buf = g_malloc0(n + MAGIC2_SIZE);
  int got = t->exec->ops->xstate_get(t->exec, buf, n);
  if (got < XSAVE_MIN)
    return 0;
  got = MIN((gsize)got, frame_xstate_size(t->kernel->platform));
  SwBytes sw = {.magic1 = MAGIC1, .extended_size = got + MAGIC2_SIZE, .xstate_size = got};
  sw.xfeatures = t->kernel->platform->xfeatures & ~TILE_FEATURES;
  memcpy(buf + SW_OFFSET, &sw, sizeof sw);
  memcpy(buf + got, &(guint32){MAGIC2}, MAGIC2_SIZE);
  *sp = (*sp - got - MAGIC2_SIZE) & ~63UL;
  return tes_copy_out(t, *sp, buf, got + MAGIC2_SIZE) == 0 ? *sp : G_MAXULONG;
}

/* Handlers begin with the extended state of a fresh program. */
static void reset_xstate(TesTask *t) {
  gsize n = t->kernel->platform->xstate_size;
  g_autofree guchar *init = g_malloc0(n);
  *(guint16 *)init = 0x37f;         /* x87 control word */
  *(guint32 *)(init + 24) = 0x1f80; /* MXCSR; XSTATE_BV is 0: everything else in its initial state */
  t->exec->ops->xstate_set(t->exec, init, n);
}

gboolean tes_signal_setup_frame(TesTask *t, const siginfo_t *info, const TesSigAction *a, guint64 mask) {
  if (!(a->flags & 0x04000000 /* SA_RESTORER */))
    return FALSE;
  TesRegs *r = tes_task_regs(t, TRUE);
  gulong sp = stack_top(t, r->rsp, a);
  if (on_altstack(t, r->rsp) && !on_altstack(t, sp) && !(a->flags & SA_ONSTACK))
    return FALSE;
  gulong fp = push_xstate(t, &sp);
  if (fp == G_MAXULONG)
    return FALSE;
  sp = ((sp - sizeof(Frame)) & ~15UL) - 8;
  if (on_altstack(t, r->rsp) && !on_altstack(t, sp + sizeof(Frame)))
    return FALSE; /* ran off the alternate stack */
  Frame f = {.restorer = a->restorer, .info = *info};
  f.uc.flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | (fp ? UC_FP_XSTATE : 0);
  f.uc.stack.sp = t->altstack.sp;
  f.uc.stack.size = t->altstack.size;
  f.uc.stack.flags = t->altstack.flags & SS_DISABLE
                         ? SS_DISABLE
                         : t->altstack.flags | (on_altstack(t, r->rsp) ? SS_ONSTACK : 0);
  f.uc.sigmask = mask;
  save_regs(&f.uc.mc, r, t, mask);
  f.uc.mc.fpstate = fp;
  if (tes_copy_out(t, sp, &f, sizeof f) < 0)
    return FALSE;
  if (t->altstack.flags & SS_AUTODISARM)
    t->altstack = (TesAltStack){.flags = SS_DISABLE};
  r->rsp = sp;
  r->rip = a->handler;
  r->rdi = info->si_signo;
  r->rsi = sp + G_STRUCT_OFFSET(Frame, info);
  r->rdx = sp + G_STRUCT_OFFSET(Frame, uc);
  r->rax = 0;
  r->orig_rax = -1;
  r->eflags &= ~(FLAG_DF | FLAG_RF | FLAG_TF);
  reset_xstate(t);
  return TRUE;
}

static gboolean restore_xstate(TesTask *t, gulong fp) {
  if (!fp) {
    reset_xstate(t);
    return TRUE;
  }
  guchar legacy[LEGACY_SIZE];
  if (tes_copy_in(t, legacy, fp, sizeof legacy) < 0)
    return FALSE;
  SwBytes sw;
  memcpy(&sw, legacy + SW_OFFSET, sizeof sw);
  gsize max = t->kernel->platform->xstate_size;
  gboolean extended = sw.magic1 == MAGIC1 && sw.xstate_size >= XSAVE_MIN && sw.xstate_size <= max &&
                      sw.extended_size == sw.xstate_size + MAGIC2_SIZE;
  gsize n = extended ? sw.xstate_size : XSAVE_MIN;
  g_autofree guchar *buf = g_malloc0(max + MAGIC2_SIZE);
  memcpy(buf, legacy, sizeof legacy);
  if (extended && tes_copy_in(t, buf + LEGACY_SIZE, fp + LEGACY_SIZE, n - LEGACY_SIZE) < 0)
    return FALSE;
  guint64 *header = (guint64 *)(buf + LEGACY_SIZE);
  header[0] = extended ? header[0] & t->kernel->platform->xfeatures : 3; /* x87 and SSE only */
  memset(header + 1, 0, 56); /* standard format, reserved bytes zero */
  memset(buf + SW_OFFSET, 0, LEGACY_SIZE - SW_OFFSET);
  *(guint32 *)(buf + 24) &= 0xffff; /* reserved MXCSR bits */
  return t->exec->ops->xstate_set(t->exec, buf, max) >= 0;
}

static void restore_regs(TesRegs *r, const SigContext *mc) {
  r->r8 = mc->r8, r->r9 = mc->r9, r->r10 = mc->r10, r->r11 = mc->r11;
  r->r12 = mc->r12, r->r13 = mc->r13, r->r14 = mc->r14, r->r15 = mc->r15;
  r->rdi = mc->rdi, r->rsi = mc->rsi, r->rbp = mc->rbp, r->rbx = mc->rbx;
  r->rdx = mc->rdx, r->rax = mc->rax, r->rcx = mc->rcx, r->rsp = mc->rsp, r->rip = mc->rip;
  r->eflags = (r->eflags & ~USER_FLAGS) | (mc->eflags & USER_FLAGS);
  r->orig_rax = -1;
}

glong tes_signal_sigreturn(TesTask *t) {
  TesRegs *r = tes_task_regs(t, TRUE);
  UContext uc;
  gulong at = r->rsp; /* the handler's ret has popped the restorer's address */
  t->no_result = TRUE;
  gboolean ok = tes_copy_in(t, &uc, at, sizeof uc) == 0;
  if (ok) {
    tes_signal_set_blocked(t, uc.sigmask);
    restore_regs(r, &uc.mc);
    ok = r->rip < t->kernel->platform->max_addr && restore_xstate(t, uc.mc.fpstate);
  }
  if (!ok) {
    siginfo_t info = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};
    tes_signal_force(t, &info);
    return 0;
  }
  if (uc.stack.flags & SS_DISABLE)
    t->altstack = (TesAltStack){.flags = SS_DISABLE};
  else if (uc.stack.size >= 2048)
    t->altstack = (TesAltStack){uc.stack.sp, uc.stack.size, uc.stack.flags & SS_AUTODISARM};
  return 0;
}
