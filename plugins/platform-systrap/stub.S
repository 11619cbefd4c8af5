/* SPDX-License-Identifier: Apache-2.0 */
/* The stub, first part: what needs its registers chosen by hand. stub.c is the second.
 *
 * With stub.c this makes a complete ELF executable, position-dependent at ST_BASE, that is kept in the plugin and run by the
 * zygote from a memfd.
 *
 *   mapper      the first thread of every stub process: does what the order page says, uses no stack and no memory
 *               but read-only pages. Never runs guest code.
 *   handler     where signals of guest threads arrive, on the slot's signal stack
 *   direct      where trampolines of rewritten system calls jump to
 *
 * Two syscall instructions, one for the mapper, one for guest threads: the filters tell them apart (filter.c). */
#include "stub.h"

#define SYS_READ 0
#define SYS_CLOSE 3
#define SYS_MMAP 9
#define SYS_MUNMAP 11
#define SYS_RT_SIGPROCMASK 14
#define SYS_DUP2 33
#define SYS_GETPID 39
#define SYS_SENDTO 44
#define SYS_EXIT_GROUP 231
#define SYS_SIGALTSTACK 131
#define SYS_PRCTL 157
#define SYS_FUTEX 202
#define SYS_TGKILL 234
#define SYS_SECCOMP 317
#define SYS_CLOSE_RANGE 436
#define SIGKILL_ 9
#define PR_SET_PDEATHSIG_ 1
#define MAP_SHARED_FIXED 0x11
#define MSG_NOSIGNAL_ 0x4000
#define SIG_SETMASK_ 2

  .macro global name
  .globl tes_st_\name
  .hidden tes_st_\name
tes_st_\name:
  .endm

  /* The mapper's way to make a system call: eax and arguments are set; goes on at \ret. */
  .macro call_at ret
  lea \ret(%rip), %r15
  jmp mapper_syscall
  .endm

  .section tessera_stub, "ax", @progbits
  .balign 64
image:
  .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
  .short 2, 62                   /* ET_EXEC, EM_X86_64 */
  .long 1
  .quad ST_BASE + (start - image)
  .quad segments - image, 0      /* program headers; no sections */
  .long 0
  .short 64, 56, 2, 64, 0, 0
segments:
  .long 1, 5                     /* PT_LOAD, read and execute */
  .quad 0, ST_BASE, ST_BASE, ST_CODE_MAX, ST_CODE_MAX, ST_PAGE
  .long 0x6474e551, 6            /* PT_GNU_STACK: else old kernels make every mapping executable */
  .quad 0, 0, 0, 0, 0, 16

  /* recvmsg writes the message header back: it fails with EFAULT here, after it has installed the
   * descriptor. So no guest thread can redirect it, and a message is always taken off the queue. */
  .balign 8
global msghdr
  .quad 0, 0                     /* name */
  .quad ST_BASE + (iov - image), 1
  .quad ST_SCRATCH, 24           /* control: one descriptor */
  .quad 0
iov:
  .quad ST_SCRATCH + 64, 1
global empty_set
  .quad 0

  /* ---- The mapper. r12d: batches done, r13d: kicks done, r14d: this process, r15: where to go on ---- */
  .balign 16
start:
  mov $ST_RO_ORDERS, %r9d        /* the seed's is the first */
map_orders:                      /* r9: the order page's offset */
  mov $SYS_MMAP, %eax
  movabs $ST_ORDERS, %rdi
  mov $ST_PAGE, %esi
  mov $1, %edx
  mov $MAP_SHARED_FIXED, %r10d
  mov $ST_FD_RO, %r8d
  call_at 1f
1:
  cmp $-4095, %rax
  jae exit_group
  mov $SYS_GETPID, %eax
  call_at 2f
2:
  mov %eax, %r14d
  xor %r12d, %r12d
  xor %r13d, %r13d

mapper:
  movabs $ST_ORDERS, %rbx
  mov ST_O_BELL(%rbx), %edx
  cmp ST_O_KICKS(%rbx), %r13d
  jne kick
  cmp ST_O_BATCH(%rbx), %r12d
  jne batch
  mov $SYS_FUTEX, %eax           /* FUTEX_WAIT */
  lea ST_O_BELL(%rbx), %rdi
  xor %esi, %esi
  xor %r10d, %r10d
  call_at mapper

kick:
  mov $SYS_TGKILL, %eax
  mov %r14d, %edi
  mov %r13d, %esi
  and $ST_RING - 1, %esi
  mov ST_O_RING(%rbx,%rsi,4), %esi
  mov $ST_KICK_SIGNAL, %edx
  inc %r13d
  call_at mapper

batch:
  mov ST_O_BATCH(%rbx), %r12d
  add $ST_O_LIST, %rbx
order:
  mov (%rbx), %eax
  mov 4(%rbx), %ebp
  cmp $ST_NR_END, %eax
  je batch_end
  mov ST_ORDER_ARG(0)(%rbx), %rdi
  mov ST_ORDER_ARG(1)(%rbx), %rsi
  mov ST_ORDER_ARG(2)(%rbx), %rdx
  mov ST_ORDER_ARG(3)(%rbx), %r10
  mov ST_ORDER_ARG(4)(%rbx), %r8
  mov ST_ORDER_ARG(5)(%rbx), %r9
  call_at ordered
ordered:
  test $(ST_F_THREAD | ST_F_FORK | ST_F_ZYGOTE), %bpl
  jnz cloned
  cmp $-4095, %rax
  jb next_order
  test $ST_F_MAYFAIL, %bpl
  jz batch_failed
next_order:
  add $ST_ORDER_SIZE, %rbx
  jmp order

batch_failed:
  neg %eax
  lea 1(%rax), %edx
  lea 1f(%rip), %r11
  jmp answer
1:
  movabs $ST_ORDERS + ST_O_LIST, %rdx
  sub %rdx, %rbx
  shr $6, %rbx
  lea 1(%rbx), %edx
  lea mapper(%rip), %r11
  jmp answer
batch_end:
  mov $1, %edx
  lea mapper(%rip), %r11

answer:                          /* a datagram of edx bytes, then on at r11 */
  mov %r11, %r15
  mov $SYS_SENDTO, %eax
  mov $ST_FD_SOCK, %edi
  movabs $ST_ORDERS, %rsi
  mov $MSG_NOSIGNAL_, %r10d
  xor %r8d, %r8d
  xor %r9d, %r9d
  jmp mapper_syscall

cloned:
  test %rax, %rax
  jz child
  cmp $-4095, %rax
  jae batch_failed
  test $ST_F_ZYGOTE, %bpl
  jnz zygote
  test $ST_F_THREAD, %bpl
  jz next_order
  mov %eax, %ebp                 /* three parts of the thread's id */
  mov %ebp, %edx
  and $ST_A_PART - 1, %edx
  add $ST_A_PART + 1, %edx
  lea 1f(%rip), %r11
  jmp answer
1:
  shr $10, %ebp
  mov %ebp, %edx
  and $ST_A_PART - 1, %edx
  add $ST_A_PART + 1, %edx
  lea 2f(%rip), %r11
  jmp answer
2:
  shr $10, %ebp
  lea ST_A_PART + 1(%rbp), %edx
  lea next_order(%rip), %r11
  jmp answer

child:
  test $ST_F_THREAD, %bpl
  jnz new_thread
  mov $SYS_PRCTL, %eax           /* all stubs are children of the zygote */
  mov $PR_SET_PDEATHSIG_, %edi
  mov $SIGKILL_, %esi
  call_at 1f
1:
  test $ST_F_ZYGOTE, %bpl
  jnz seed
  mov $SYS_DUP2, %eax
  mov $ST_FD_IN, %edi
  mov $ST_FD_SOCK, %esi
  call_at 2f
2:
  cmp $-4095, %rax
  jae exit_group
  mov $SYS_CLOSE, %eax
  mov $ST_FD_IN, %edi
  call_at 3f
3:
  mov $SYS_MUNMAP, %eax
  movabs $ST_SLOTS, %rdi
  movabs $ST_USER_END - ST_SLOTS, %rsi
  call_at 4f
4:
  cmp $-4095, %rax
  jae exit_group
  jmp map_orders

seed:                            /* the first mapper: goes on with the zygote's orders */
  mov $SYS_CLOSE, %eax
  mov $ST_FD_LIFE, %edi
  call_at 1f
1:
  mov $SYS_GETPID, %eax
  call_at 2f
2:
  mov %eax, %r14d
  jmp next_order

zygote:
  mov $SYS_CLOSE_RANGE, %eax
  xor %edi, %edi
  mov $ST_FD_LIFE - 1, %esi       /* it keeps the last one */
  xor %edx, %edx
  call_at 1f
1:
  mov $SYS_READ, %eax
  mov $ST_FD_LIFE, %edi
  movabs $ST_SCRATCH, %rsi
  mov $1, %edx
  call_at 2f
2:
  cmp $-4, %rax                  /* EINTR */
  je 1b
exit_group:
  mov $SYS_EXIT_GROUP, %eax
  xor %edi, %edi
  call_at exit_group

mapper_syscall:
  syscall
global mapper_called
  jmp *%r15

  /* A new guest thread: gives up its descriptors, then everything else. r9: its slot. All signals are blocked until the
   * filter is there, so none of this can be diverted. */
new_thread:
  mov %r9, %rbx
  mov $SYS_CLOSE_RANGE, %eax
  xor %edi, %edi
  mov $-1, %esi
  xor %edx, %edx
  call_at 1f
1:
  test %rax, %rax
  jnz exit_group
  mov $SYS_SIGALTSTACK, %eax
  lea ST_I_ALTSTACK(%rbx), %rdi
  xor %esi, %esi
  call_at 2f
2:
  test %rax, %rax
  jnz exit_group
  wrgsbase %rbx
  mov $SYS_SECCOMP, %eax         /* SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW */
  mov $1, %edi
  mov $4, %esi
  movabs $ST_SHARED, %rdx
  call_at 3f
3:
  test %rax, %rax
  jnz exit_group
  mov $SYS_RT_SIGPROCMASK, %eax
  mov $SIG_SETMASK_, %edi
  lea tes_st_empty_set(%rip), %rsi
  xor %edx, %edx
  mov $8, %r10d
  lea 4f(%rip), %r15
  jmp guest_syscall
4:
  /* Traps, with a frame that the kernel process fills. Also the end of a direct call that shall. */
global reframe
  mov $-1, %eax
  lea tes_st_reframe(%rip), %r15
  jmp guest_syscall

guest_syscall:
  syscall
global guest_called
  jmp *%r15

  /* long tes_st_host_call(long nr, long a, long b, long c): for stub.c */
  .balign 16
global host_call
  push %r15
  mov %rdi, %rax
  mov %rsi, %rdi
  mov %rdx, %rsi
  mov %rcx, %rdx
  xor %r10d, %r10d
  lea 1f(%rip), %r15
  jmp guest_syscall
1:
  pop %r15
  ret

  /* ---- Signals. edi: number, rdx: ucontext ---- */
  .balign 16
global handler
  pushq $0x202                   /* AC, NT: a guest's choice */
  popfq
  mov %rsp, %rbx
  and $-ST_SLOT_SIZE, %rbx
  mov %rdx, %rbp
  cmp $ST_KICK_SIGNAL, %edi
  jne 1f
  testl $ST_RESET, ST_I_FLAGS(%rbx)
  jnz reset
  mov 160(%rdx), %rax            /* rsp: in the handling of another signal? */
  sub %rbx, %rax
  sub $ST_STACK, %rax
  cmp $ST_STACK_SIZE - ST_DIRECT_STACK, %rax
  jb 2f
  mov %rdx, ST_S_KICK_FRAME(%rbx)
2:
  mov %rdx, %rdi
  mov %rbx, %rsi
  call tes_st_kicked             /* the ucontext to leave by, or 0: a trap like any other */
  test %rax, %rax
  jz 1f
  btr $0, %rax
  jnc restore
  lea -128(%rax), %rsp           /* with bit 0: to trap with. What was on top of it is over */
  and $-16, %rsp
  mov %rax, %rdi
  mov %rbx, %rsi
  call tes_st_again
  jmp restore
1:
  mov ST_I_ANSWER(%rbx), %eax
  inc %eax
  mov %eax, ST_S_ENTERING(%rbx)
global entered
  mov %rbp, %rdi
  mov %rbx, %rsi
  call tes_st_trapped
restore:                         /* rax: ucontext. On user space's own: rt_sigreturn could change the signal mask. */
  mov %rax, %rdi
  mov 224(%rdi), %rcx            /* fpstate */
  test %rcx, %rcx
  jz 1f
  movabs $ST_XFEATURES, %rsi
  mov (%rsi), %eax               /* not all: XRSTOR looks at the end of what it may read */
  mov 4(%rsi), %edx
  xrstor64 (%rcx)
1:
  pushq $0x2b
  push 160(%rdi)                 /* rsp */
  push 176(%rdi)                 /* eflags */
  movzwl 184(%rdi), %eax         /* cs: one of user space, or iretq faults */
  push %rax
  push 168(%rdi)                 /* rip */
  mov 40(%rdi), %r8
  mov 48(%rdi), %r9
  mov 56(%rdi), %r10
  mov 64(%rdi), %r11
  mov 72(%rdi), %r12
  mov 80(%rdi), %r13
  mov 88(%rdi), %r14
  mov 96(%rdi), %r15
  mov 112(%rdi), %rsi
  mov 120(%rdi), %rbp
  mov 128(%rdi), %rbx
  mov 136(%rdi), %rdx
  mov 144(%rdi), %rax
  mov 152(%rdi), %rcx
  mov 104(%rdi), %rdi
global iretq
  iretq
global restorer                  /* sa_restorer must be something */
  ud2

  /* The stub gets a new address space. This thread can do nothing any more but say so, by posting the answers that it sees; once
   * ST_RESET is gone it is a new thread. No memory is believed but the slot's first page. rbx: the slot. */
reset:
  mov ST_I_ANSWER(%rbx), %r12d
  testl $ST_RESET, ST_I_FLAGS(%rbx)
  jz reset_done
  mov %r12d, ST_S_POST(%rbx)
  mov $SYS_FUTEX, %eax
  lea ST_S_POST(%rbx), %rdi
  mov $1, %esi                   /* FUTEX_WAKE */
  mov $0x7fffffff, %edx
  lea 1f(%rip), %r15
  jmp guest_syscall
1:
  mov $SYS_FUTEX, %eax
  mov %rbx, %rdi
  xor %esi, %esi                 /* FUTEX_WAIT */
  mov %r12d, %edx
  xor %r10d, %r10d
  lea reset(%rip), %r15
  jmp guest_syscall
reset_done:
  wrgsbase %rbx
  xor %ecx, %ecx
  wrfsbase %rcx
  lea ST_SLOT_SIZE(%rbx), %rsp
  .irp r, ebx, edx, esi, edi, ebp, r8d, r9d, r10d, r11d, r12d, r13d, r14d
  xor %\r, %\r
  .endr
  jmp tes_st_reframe

  /* ---- Rewritten calls. eax: number, rcx: where to go on. The trampoline came here without touching anything else: only
   * rcx and r11 are free, there is no stack, gs is the slot ---- */
  .balign 64
global direct
  mov %rax, %gs:ST_S_REG(ST_RAX)
  lahf
  seto %al
  mov %eax, %gs:ST_S_FLAGS
  mov %gs:ST_S_REG(ST_RAX), %r11
  cmp $ST_FACT_CALLS, %r11
  jae 1f
  movzbl %gs:ST_I_FACT_OF(%r11), %r11d
  test %r11d, %r11d
  jz 1f
  cmpl $0, %gs:ST_S_PENDING
global fact                      /* from here on a kick takes this for guest code, where the call is done (trap.c) */
  jne 1f
  add $0x7f, %al
  sahf
  mov %gs:ST_I_FACTS(,%r11,8), %rax
  jmp *%rcx
global fact_end
1:
  mov %gs:ST_I_ANSWER, %r11d
  inc %r11d
  mov %r11d, %gs:ST_S_ENTERING
global direct_entered
  movl $0, %gs:ST_S_PENDING
  mov %rcx, %gs:ST_S_REG(ST_RIP)
  mov %rbx, %gs:ST_S_REG(ST_RBX)
  mov %rbp, %gs:ST_S_REG(ST_RBP)
  mov %r12, %gs:ST_S_REG(ST_R12)
  mov %r13, %gs:ST_S_REG(ST_R13)
  mov %r14, %gs:ST_S_REG(ST_R14)
  mov %r15, %gs:ST_S_REG(ST_R15)
  mov %gs:ST_S_REG(ST_RAX), %eax
  mov $ST_NR_LARGE, %ecx
  cmp %ecx, %eax
  cmova %ecx, %eax
  shl $16, %eax
  or $ST_DIRECT, %eax
  rdfsbase %rcx
  cmp %rcx, %gs:ST_S_FS_BASE
  je 1f
  mov %rcx, %gs:ST_S_FS_BASE
1:                               /* the first cache line */
  mov %eax, %gs:ST_S_KIND
  mov %rdi, %gs:ST_S_REG(ST_RDI)
  mov %rsi, %gs:ST_S_REG(ST_RSI)
  mov %rdx, %gs:ST_S_REG(ST_RDX)
  mov %r10, %gs:ST_S_REG(ST_R10)
  mov %r8, %gs:ST_S_REG(ST_R8)
  mov %r9, %gs:ST_S_REG(ST_R9)
  mov %rsp, %gs:ST_S_REG(ST_RSP)
  xchg %r11d, %gs:ST_S_POST
  rdgsbase %rdi
  lea ST_SLOT_SIZE(%rdi), %rsp
  call tes_st_called
  mov %gs:ST_S_FLAGS, %eax
  add $0x7f, %al
  sahf
  mov %gs:ST_S_REG(ST_RDX), %rdx
  mov %gs:ST_S_REG(ST_RSI), %rsi
  mov %gs:ST_S_REG(ST_RDI), %rdi
  mov %gs:ST_S_REG(ST_R8), %r8
  mov %gs:ST_S_REG(ST_R9), %r9
  mov %gs:ST_S_REG(ST_R10), %r10
  mov %gs:ST_S_REG(ST_RIP), %rcx
  mov %gs:ST_I_RESULT, %rax
  mov %gs:ST_S_REG(ST_RSP), %rsp
  jmp *%rcx

  .section .note.GNU-stack, "", @progbits
