/* SPDX-License-Identifier: Apache-2.0 */
/* The contract between the kernel process and the stub: addresses, descriptors, orders, slots.
 * Included by C (both sides) and by stub.S. docs/security/systrap.md says who may write what. */
#pragma once

/* Above everything a guest can map. */
#define ST_BASE 0x7fffc0000000 /* the image: code, read and execute */
#define ST_CODE_MAX 0x4000
#define ST_SHARED 0x7fffc0010000    /* one page for all: the guest threads' filter, constants (read-only) */
#define ST_XFEATURES 0x7fffc0010030 /* in it: the state components of signal frames, 64 bits */
#define ST_CPUID 0x7fffc0014000     /* answers of cpuid (read-only) */
#define ST_CPUID_SIZE 0x1000
#define ST_ORDERS 0x7fffc0020000      /* this address space's orders (read-only) */
#define ST_SCRATCH 0x7fffc0030000     /* recvmsg writes here; nobody ever reads it */
#define ST_TRAMPOLINES 0x7fffc0100000 /* read and execute */
#define ST_TRAMPOLINES_SIZE 0x40000
#define ST_SLOTS 0x7fffd0000000    /* one slot for each guest thread */
#define ST_USER_END 0x7ffffffff000 /* end of user space with four-level page tables */
#define ST_PAGE 0x1000
#define ST_TRAMPOLINE 32 /* bytes of each */
#define ST_TRAMPOLINES_MAX (ST_TRAMPOLINES_SIZE / ST_TRAMPOLINE)
/* Where a trampoline is entered in the middle, by whom an instruction of the site that is no more would be executed. */
#define ST_TR_CALL 7  /* the call, of those that begin with a mov */
#define ST_TR_TAIL 12 /* what followed the call, of the others */
/* Pointers to trampolines, for `jmp *disp32`. The bytes at the old place of a `syscall` instruction that such a jump
 * covers are the upper half of this address, 06 00: no valid instruction. */
#define ST_TABLE 0x60000
#define ST_TABLE_SIZE 0x10000 /* 8 bytes for each trampoline */

/* Descriptors of every stub process. Nothing else is open, so a received one is always ST_FD_IN: its number is never
 * read from memory. Guest threads have none. */
#define ST_FD_SOCK 0 /* answers out, descriptors in */
#define ST_FD_RO 1   /* the file of pages that only the kernel process writes */
#define ST_FD_RW 2   /* the file of pages that guests may write */
#define ST_FD_LIFE 3 /* only the zygote's: end of file means that the kernel process is gone */
#define ST_FD_IN 3
#define ST_FD_MEM 4 /* the memory file, once the address space has used it */

#define ST_KICK_SIGNAL 23 /* SIGURG */

#define ST_RO_ORDERS 0x10000 /* where order pages begin in ST_FD_RO */

/* ---- The order page: what the mapper, the stub's own thread, is to do ---- */
#define ST_O_BELL 0  /* futex word: rung after the others were changed */
#define ST_O_BATCH 4 /* number of the present batch */
#define ST_O_KICKS 8 /* kicks asked for so far */
#define ST_O_MASK 16 /* CPU mask for sched_setaffinity, ST_MASK_SIZE bytes */
#define ST_MASK_SIZE 128
#define ST_O_RING 256 /* thread ids to kick */
#define ST_RING 64
#define ST_O_LIST 512 /* orders */
#define ST_ORDER_SIZE 64
#define ST_ORDERS_MAX 55 /* and the end */
#define ST_ORDER_ARG(n) (8 + 8 * (n))
#define ST_NR_END 0xffffffff
/* Flags of an order. */
#define ST_F_MAYFAIL 1 /* errors do not end the batch */
#define ST_F_THREAD 2  /* clone: the child is a guest thread whose slot is args[5]; its id is answered */
#define ST_F_FORK \
  4 /* clone: the child is a mapper; its socket is ST_FD_IN, its order page at offset args[5] */
#define ST_F_ZYGOTE 8 /* clone: the parent becomes the zygote, which waits for the end */
/* Answers are datagrams whose length less one tells: below ST_A_PART 0 or the errno of the batch, then, after an error, the
 * order that failed; from ST_A_PART on ten bits of a thread id, the lowest first, three times. */
#define ST_A_PART 1024

/* ---- A slot: page 0 is written by the kernel process only, the rest by anybody ---- */
#define ST_SLOT_SIZE 0x8000
#define ST_OUT 0x1000   /* StOut */
#define ST_STACK 0x2000 /* the signal stack, to the end */
#define ST_STACK_SIZE (ST_SLOT_SIZE - ST_STACK)

#define ST_FACTS 8 /* values; 0 is unused */
#define ST_FACT_CALLS 384
/* Offsets in StIn. */
#define ST_I_ANSWER 0
#define ST_I_FLAGS 4
#define ST_I_RESULT 16
#define ST_I_ALTSTACK 40
#define ST_I_FACTS 64
#define ST_I_FACT_OF 128
/* Offsets in StOut, from the slot. */
#define ST_S_POST ST_OUT
#define ST_S_KIND (ST_OUT + 4) /* and the number */
#define ST_S_REG(n) (ST_OUT + 8 + 8 * (n))
#define ST_S_ENTERING (ST_OUT + 128)
#define ST_S_PENDING (ST_OUT + 132)
#define ST_S_FLAGS (ST_OUT + 136)
#define ST_S_FS_BASE (ST_OUT + 208)
#define ST_S_KICK_FRAME (ST_OUT + 224)
#define ST_DIRECT_STACK 512 /* what a direct call uses of the signal stack, at most: less than any frame */
#define ST_NR_LARGE 0xffff  /* a larger number: see the register */

/* StIn.flags */
#define ST_LOAD_FS 1 /* fs_base is to be loaded */
#define ST_LOAD_GS 2
#define ST_REFRAME 4 /* trap again, with a signal frame, instead of returning from a direct call */
#define ST_RESET 8   /* a kick makes it a new thread, whatever it was doing */
/* StOut.kind */
#define ST_FRAME 0  /* a signal frame: `frame` is its ucontext */
#define ST_DIRECT 1 /* a rewritten call: registers in `regs` */
#define ST_KICKED 2 /* the frame's registers are a guest's that was only interrupted */
#define ST_LOCAL 3  /* never posted: the stub answered by itself, `frame` is being restored */

/* Order of StOut.regs: what every call is asked for stands in the first cache line. */
#define ST_RDI 0
#define ST_RSI 1
#define ST_RDX 2
#define ST_R10 3
#define ST_R8 4
#define ST_R9 5
#define ST_RSP 6
#define ST_RAX 7
#define ST_RIP 8
#define ST_RBX 9
#define ST_RBP 10
#define ST_R12 11
#define ST_R13 12
#define ST_R14 13
#define ST_R15 14
#define ST_NREGS 15

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint32_t nr, flags;
  uint64_t args[6];
  uint64_t unused;
} StOrder;

typedef struct {
  uint32_t bell, batch, kicks, pad;
  uint8_t mask[ST_MASK_SIZE];
  uint8_t pad2[ST_O_RING - ST_O_MASK - ST_MASK_SIZE];
  uint32_t ring[ST_RING];
  StOrder list[ST_ORDERS_MAX + 1];
} StOrders;

/* What the kernel process tells a guest thread. */
typedef struct {
  uint32_t answer;   /* number of the last trap that was served; futex word */
  uint32_t flags;    /* ST_LOAD_*, ST_REFRAME */
  uint32_t spin;     /* rounds to wait for the answer before sleeping */
  uint32_t sleeping; /* the task's thread sleeps on StOut.post */
  uint64_t result;   /* rax, for a direct call */
  uint64_t fs_base, gs_base;
  struct {
    uint64_t sp;
    uint32_t flags, pad;
    uint64_t size;
  } altstack; /* stack_t */
  uint64_t facts[ST_FACTS];
  uint8_t fact_of[ST_FACT_CALLS]; /* system call -> index of a fact, or 0 */
} StIn;

/* What a guest thread tells: untrusted. The kernel process may spin on the first cache line and needs no other for a
 * direct call: it is written last, all at once. The second and third are written for each call, and read seldom; the
 * fourth is not. */
typedef struct {
  uint32_t post; /* number of the last trap; futex word */
  uint16_t kind;
  uint16_t nr; /* of a direct call, or ST_NR_LARGE */
  uint64_t regs[ST_NREGS];
  uint32_t entering; /* number of the next trap, on the way from the guest to its post */
  uint32_t pending;  /* a kick came before the trap was posted */
  uint32_t flags;    /* lahf and seto of a direct call */
  uint32_t pad[13];
  uint32_t sleeping; /* waits on StIn.answer */
  uint32_t pad2;
  uint64_t frame;
  uint64_t fs_base, gs_base;
  uint64_t kick_frame; /* of the last kick that did not interrupt the handling of a signal */
} StOut;

/* As TesCpuidTable. */
#define ST_CPUID_ENTRIES 127
typedef struct {
  uint32_t leaf, subleaf, any_subleaf, eax, ebx, ecx, edx, reserved;
} StCpuidEntry;
typedef struct {
  uint32_t count, reserved[7];
  StCpuidEntry entry[ST_CPUID_ENTRIES];
} StCpuid;

/* The host's signal frame, as far as it matters (uapi asm/sigcontext.h, asm/ucontext.h). */
typedef struct {
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  uint16_t cs, gs, fs, ss;
  uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
} StContext;

typedef struct {
  uint64_t uc_flags, uc_link, stack[3];
  StContext c;
  uint64_t sigmask;
  int32_t signo, error, code, pad; /* siginfo follows */
  uint64_t addr;                   /* si_addr, si_call_addr */
  uint32_t syscall, arch;
  uint8_t rest[96];
} StFrame;

_Static_assert(sizeof(StOrder) == ST_ORDER_SIZE, "");
_Static_assert(sizeof(StOrders) == ST_PAGE, "");
_Static_assert(offsetof(StOrders, ring) == ST_O_RING && offsetof(StOrders, list) == ST_O_LIST, "");
_Static_assert(offsetof(StIn, result) == ST_I_RESULT && offsetof(StIn, altstack) == ST_I_ALTSTACK, "");
_Static_assert(offsetof(StIn, facts) == ST_I_FACTS && offsetof(StIn, fact_of) == ST_I_FACT_OF, "");
_Static_assert(offsetof(StOut, entering) + ST_OUT == ST_S_ENTERING, "");
_Static_assert(offsetof(StOut, pending) + ST_OUT == ST_S_PENDING, "");
_Static_assert(offsetof(StOut, kick_frame) + ST_OUT == ST_S_KICK_FRAME, "");
_Static_assert(offsetof(StOut, flags) + ST_OUT == ST_S_FLAGS, "");
_Static_assert(offsetof(StOut, regs) + ST_OUT == ST_S_REG(0), "");
_Static_assert(offsetof(StOut, kind) + ST_OUT == ST_S_KIND && offsetof(StOut, regs[ST_RAX]) == 64, "");
_Static_assert(offsetof(StOut, fs_base) + ST_OUT == ST_S_FS_BASE && offsetof(StOut, sleeping) == 192, "");
_Static_assert(offsetof(StFrame, signo) == 304 && offsetof(StContext, fpstate) == 184, "");

/* The image, as linked into the plugin: a complete ELF executable that loads at ST_BASE. */
#define ST_HIDDEN __attribute__((visibility("hidden")))
extern const char __start_tessera_stub[] ST_HIDDEN, __stop_tessera_stub[] ST_HIDDEN;
extern const char tes_st_handler[] ST_HIDDEN, tes_st_entered[] ST_HIDDEN, tes_st_direct[] ST_HIDDEN,
    tes_st_direct_entered[] ST_HIDDEN, tes_st_restorer[] ST_HIDDEN, tes_st_mapper_called[] ST_HIDDEN,
    tes_st_guest_called[] ST_HIDDEN, tes_st_msghdr[] ST_HIDDEN, tes_st_empty_set[] ST_HIDDEN,
    tes_st_reframe[] ST_HIDDEN, tes_st_iretq[] ST_HIDDEN, tes_st_fact[] ST_HIDDEN,
    tes_st_fact_end[] ST_HIDDEN;
#define ST_AT(symbol) ((uint64_t)ST_BASE + (uint64_t)((symbol)-__start_tessera_stub))
#endif
