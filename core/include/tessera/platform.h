/* SPDX-License-Identifier: Apache-2.0 */
/* Platform interface: how guest code is executed and how its address space is made.
 *
 * A platform plugin exports a feature of kind "platform" whose ops is a TesPlatformOps. It creates
 * address spaces (TesAspace) and threads of execution in them (TesExec). It knows nothing about
 * tasks, vmas or files: the core says what to map, and serves every trap.
 *
 * Objects embed the base structs below as their first member. Functions return >= 0 or -errno
 * unless they have a GError. */
#pragma once

#include <signal.h>
#include <sys/user.h>
#include <tessera/types.h>

TES_BEGIN_DECLS

/* General registers, as ptrace(2) NT_PRSTATUS lays them out: fs_base and gs_base included. */
typedef struct user_regs_struct TesRegs;

/* One change of an address space. Addresses, lengths and offsets are multiples of the page size and lie in
 * [platform->min_addr, platform->max_addr). MAP replaces whatever was mapped there; UNMAP and PROTECT of pages
 * that are not mapped are not errors. All mappings are shared mappings of `fd`: the core does
 * copy-on-write itself. */
typedef enum { TES_MAP_MAP, TES_MAP_UNMAP, TES_MAP_PROTECT } TesMapKind;

enum {
  TES_MAP_STABLE_FD =
      1 << 0,                /* fd is the memory file: it stays open as long as the platform, may be cached */
  TES_MAP_POPULATE = 1 << 1, /* the pages will be touched at once: map them in if that is cheap */
};

typedef struct {
  guint8 kind;   /* TesMapKind */
  guint8 prot;   /* PROT_READ | PROT_WRITE | PROT_EXEC; PROT_NONE is allowed */
  guint16 flags; /* TES_MAP_* */
  int fd;        /* MAP: borrowed for the call; the platform duplicates it if it defers the mapping */
  gulong addr;
  gulong len;
  goffset off; /* MAP: offset in fd */
} TesMapOp;

/* Why run() returned. */
typedef enum {
  TES_TRAP_SYSCALL,   /* nr, args, sp, and ip (after the instruction; 0: ask for it with regs()) */
  TES_TRAP_FAULT,     /* page fault: addr, access, signo SIGSEGV or SIGBUS with its si_code, ip, sp */
  TES_TRAP_EXCEPTION, /* any other synchronous exception: signo, code, addr, trapno, ip, sp */
  TES_TRAP_KICK,      /* kick() was called, or nothing happened: look for work and run again */
  TES_TRAP_DEAD,      /* the host killed the thread: the task cannot run again */
} TesTrapKind;

enum { TES_ACCESS_READ = 1, TES_ACCESS_WRITE = 2, TES_ACCESS_EXEC = 4 }; /* 0: the platform cannot tell */

enum { TES_ABI_X32 = 1 /* the number has the x32 bit */, TES_ABI_I386 = 2 /* made with int 0x80 */ };

typedef struct {
  TesTrapKind kind;
  gint foreign_abi; /* SYSCALL: TES_ABI_*; not 0: the core answers ENOSYS */
  gulong nr;
  gulong args[6];
  gulong ip, sp;
  int signo, code; /* FAULT, EXCEPTION */
  gulong addr;
  guint access;       /* FAULT: TES_ACCESS_*, 0 when unknown */
  gulong trapno, err; /* as in struct sigcontext; 0 when unknown */
  gboolean
      rewrite; /* SYSCALL: this call site is hot, the platform would like to rewrite it (TesAspaceOps.rewrite) */
} TesTrap;

/* Code that a platform wants in place of some of the guest's: `len` bytes at addr, within one page. */
typedef struct {
  gulong addr;
  guint len; /* 1 .. 16 */
  guint8 bytes[16];
} TesCodePatch;

typedef struct {
  gsize size;
  /* Maps, unmaps and protects, in order, in one batch. May be called by any kernel thread. It may defer
   * mappings until the next run() of any thread of the address space, but when it returns no thread can
   * still use a mapping that the batch removed or a permission that it took away. Returns 0 or -errno
   * (-ENOMEM: the host's limit of mappings; the batch may then be partly applied). Never calls back into
   * the core and takes no core lock. */
  int (*apply)(TesAspace *, const TesMapOp *ops, gsize n);
  /* Optional: applies `ops` (removals of write permission) to `src`, then makes a new address space with the
   * same mappings. Called by a thread that has an exec in `src` and is serving its trap. */
  TesAspace *(*clone)(TesAspace *src, const TesMapOp *ops, gsize n, GError **error);
  /* All execs in it are freed already. */
  void (*free)(TesAspace *);
  /* Optional, and used only by platforms with `clone`, which takes what patches jump to into the child: chooses new code
   * for a call site after a SYSCALL trap with `rewrite`. ip: just after the two bytes of the `syscall` instruction.
   * code: a snapshot of the n bytes at start, the page of that instruction. alone: no other thread of this address space
   * exists, so a patch may cover instructions that another thread could be about to execute; otherwise it must be right for
   * a thread that stands on any instruction it covers. A saved ip in a signal frame may point at any of them even so, and
   * an interrupted call is restarted by executing what is two bytes before ip: best leave the call itself in place.
   * Returns 1 and *out, or 0: leave the site as it is. Called with core locks held: may not call back. */
  int (*rewrite)(TesAspace *, gulong ip, const guint8 *code, gulong start, gsize n, gboolean alone,
                 TesCodePatch *out);
  /* Optional: the core has placed the patch (done), or has not, or has undone it or unmapped it (the latter perhaps only
   * when the place is used again). Other threads may still be in what an undone patch jumps to. As above: may not
   * call back. A child made by clone has the patches of its parent without being told. */
  void (*rewritten)(TesAspace *, const TesCodePatch *, gboolean done);
  /* Optional: an empty address space if one is at hand, into which the few mappings of src will be made again because that is
   * cheaper than clone(); else NULL. rewritten: src has patches, and what they jump to must be there too. */
  TesAspace *(*spare)(TesAspace *src, gboolean rewritten);
} TesAspaceOps;

/* A system call without arguments, and what it returns. */
typedef struct {
  guint nr;
  glong value;
} TesFact;

typedef struct {
  gsize size;
  /* Runs the guest until a trap. The first call binds the exec to the calling thread for good. Registers
   * come from regs(); a fresh exec has all-zero registers with valid segment selectors and flags.
   * Returns 0; -errno if the exec can never run (treated like TES_TRAP_DEAD). */
  int (*run)(TesExec *, TesTrap *out);
  /* All general registers, valid until the next run(); with `write` they will be loaded by it.
   * After a SYSCALL trap rax is -ENOSYS and orig_rax the number. Owner thread only (or before the first run). */
  TesRegs *(*regs)(TesExec *, gboolean write);
  /* Sets rax only: the cheap way to finish a system call. Owner thread only. */
  void (*set_result)(TesExec *, gulong rax);
  /* Extended state in the standard (non-compacted) XSAVE format, as PTRACE_GETREGSET NT_X86_XSTATE
   * gives it. get returns the bytes written to buf (at most n); set takes platform->xstate_size bytes, 0 or -errno. */
  int (*xstate_get)(TesExec *, void *buf, gsize n);
  int (*xstate_set)(TesExec *, const void *buf, gsize n);
  /* Makes run() return (now, or at once when it is called next). Any thread; idempotent; bounded in time. */
  void (*kick)(TesExec *);
  /* Optional: called about every CPU tick (10 ms) for an exec that is inside run(), by the event thread. */
  void (*tick)(TesExec *);
  /* Ends the thread of execution. Owner thread, or any thread if run() was never called. */
  void (*free)(TesExec *);
  /* Optional: calls whose result is the same until the next facts(), so that the platform may answer them by itself. Replaces
   * what was told before; n may be 0. It may answer fewer, or none. Owner thread only (or before the first run). */
  void (*facts)(TesExec *, const TesFact *facts, guint n);
} TesExecOps;

/* What CPUID answers in this sandbox. The table grows as leaves are asked for and entries never change, so a platform may
 * copy those in [known, count) whenever it sees a larger count (read it with acquire order). */
typedef struct {
  guint32 leaf, subleaf; /* eax, ecx */
  guint32 any_subleaf;   /* not 0: the answer is the same for every ecx */
  guint32 eax, ebx, ecx, edx, reserved;
} TesCpuidEntry;
#define TES_CPUID_ENTRIES 127
typedef struct {
  guint32 count, reserved[7];
  TesCpuidEntry entry[TES_CPUID_ENTRIES];
} TesCpuidTable; /* one page */

/* CPUID instructions of mapped files become these bytes where CPUID is slow (it leaves to a hypervisor) or must not tell
 * the truth: CLI, which no program may execute. (An undefined opcode would leave to the hypervisor too.) The trap, an
 * EXCEPTION with SIGSEGV and SI_KERNEL, is served by the core; a platform may answer by itself from the table: rax, rbx,
 * rcx, rdx zero-extended, ip + 2. */
#define TES_CPUID_BYTE0 0xfa
#define TES_CPUID_BYTE1 0xa2

typedef struct {
  gsize size;
  guint cores;                /* [1, n]: CPUs the guest sees */
  const char *device;         /* NULL, or a device path given by the operator (KVM) */
  const TesCpuidTable *cpuid; /* NULL: CPUID is not rewritten. Lives as long as the platform */
} TesPlatformArgs;

enum {
  TES_PLATFORM_PREFERRED =
      1 << 0,                  /* chosen before others when the operator names none and probe() succeeds */
  TES_PLATFORM_CPUID = 1 << 1, /* answers rewritten CPUID instructions by itself, in some 2 us at most */
};

typedef struct {
  gsize size;
  guint flags;
  /* 0 when it can run here; else -errno and one sentence in *why_not (transfer full). Bounded in time. */
  int (*probe)(char **why_not);
  /* Called once per kernel, before any guest memory exists, from the main thread. */
  TesPlatform *(*open)(const TesPlatformArgs *, GError **error);
  void (*close)(TesPlatform *);
  /* An empty address space. */
  TesAspace *(*aspace_new)(TesPlatform *, GError **error);
  /* A thread of execution in `aspace`, parked. The caller is a thread that has an exec in the same address space and
   * is serving its trap, or any thread if the address space has no exec yet. */
  TesExec *(*exec_new)(TesPlatform *, TesAspace *, GError **error);
} TesPlatformOps;

struct _TesPlatform {
  const TesPlatformOps *ops;
  gulong min_addr;   /* lowest mappable guest address */
  gulong max_addr;   /* first address above the guest's */
  gsize xstate_size; /* bytes xstate_get() writes at most */
  guint64 xfeatures; /* XCR0: state components in use */
};
struct _TesAspace {
  const TesAspaceOps *ops;
  TesPlatform *platform;
};
struct _TesExec {
  const TesExecOps *ops;
  TesAspace *aspace;
};

/* A thread that run() was called by may run other tasks, and so other execs, when its task has ended and its exec is freed. This
 * makes the calling thread end instead: for a platform that had to leave something with it. */
void tes_task_retire_thread(void);

TES_END_DECLS
