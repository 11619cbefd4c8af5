/* SPDX-License-Identifier: Apache-2.0 */
/* The stub: all the host code that lives in a guest address space under ptrace.
 *
 * This file assembles to a complete ELF executable of one page, position-dependent at STUB_BASE, kept in the
 * plugin's read-only data; the zygote executes it from a memfd. It uses no stack and no writable
 * memory that matters: guest threads may write every writable page at any moment. There is
 * one syscall instruction, and the seccomp filter admits no other.
 *
 *   stub_batch      rbx = first order: runs orders until the end or an error, then traps with
 *                   rax = 0 or -errno and rbx = the order that failed
 *   stub_park       waits to be seized, or for the end of the kernel process
 *   stub_exit, stub_exit_group
 */
#include "stub.h"

#define SYS_READ 0
#define SYS_MMAP 9
#define SYS_SENDTO 44
#define SYS_CLONE 56
#define SYS_EXIT 60
#define SYS_EXIT_GROUP 231
#define SIGCHLD_ 17
#define MAP_SHARED_FIXED 0x11
#define MSG_DONTWAIT_NOSIGNAL 0x4040

  .macro global name
  .globl tes_ptrace_\name
  .hidden tes_ptrace_\name
tes_ptrace_\name:
  .endm

  /* eax and arguments are set; continues at \ret. */
  .macro call ret
  lea \ret(%rip), %r15
  jmp do_syscall
  .endm

  .section .rodata.tes_ptrace_stub, "a"
  .balign 64
global stub
elf_header:
  .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
  .short 2, 62                   /* ET_EXEC, EM_X86_64 */
  .long 1
  .quad STUB_BASE + (start - elf_header)
  .quad segments - elf_header, 0 /* program headers; no sections */
  .long 0
  .short 64, 56, 2, 64, 0, 0
segments:
  .long 1, 5                     /* PT_LOAD, read and execute */
  .quad 0, STUB_BASE, STUB_BASE, STUB_PAGE, STUB_PAGE, STUB_PAGE
  .long 0x6474e551, 6            /* PT_GNU_STACK: else old kernels make every mapping executable */
  .quad 0, 0, 0, 0, 0, 16

  /* recvmsg writes the message header back: it fails with EFAULT here, after it has installed the
   * descriptor. So no guest thread can redirect it, and a message is always taken off the queue. */
  .balign 8
global stub_msghdr
  .quad 0, 0                     /* name */
  .quad STUB_BASE + (iov - elf_header), 1
  .quad STUB_SCRATCH, 24         /* control: one descriptor */
  .quad 0
iov:
  .quad STUB_SCRATCH + 64, 1

  .balign 16
start:                           /* the order page of the zygote does the rest */
  mov $SYS_MMAP, %eax
  movabs $STUB_ORDERS, %rdi
  mov $STUB_PAGE, %esi
  mov $1, %edx
  mov $MAP_SHARED_FIXED, %r10d
  mov $STUB_FD_ORDERS, %r8d
  xor %r9d, %r9d
  call 1f
1:
  movabs $STUB_ORDERS, %rbx

global stub_batch
  mov (%rbx), %eax
  mov 4(%rbx), %r12d
  cmp $STUB_NR_END, %eax
  je batch_end
  mov STUB_ORDER_ARG(0)(%rbx), %rdi
  mov STUB_ORDER_ARG(1)(%rbx), %rsi
  mov STUB_ORDER_ARG(2)(%rbx), %rdx
  mov STUB_ORDER_ARG(3)(%rbx), %r10
  mov STUB_ORDER_ARG(4)(%rbx), %r8
  mov STUB_ORDER_ARG(5)(%rbx), %r9
  call ordered
ordered:
  test $STUB_F_CLONE, %r12b
  jz 2f
  test %rax, %rax
  jz child
2:
  test $STUB_F_MAYFAIL, %r12b
  jnz 3f
  cmp $-4095, %rax
  jae trap
3:
  add $STUB_ORDER_SIZE, %rbx
  jmp tes_ptrace_stub_batch
batch_end:
  test $STUB_F_ZYGOTE, %r12b
  jnz zygote
  xor %eax, %eax
trap:
  int3
global stub_trapped
  jmp trap

child:
  test $STUB_F_FORK, %r12b
  jz tes_ptrace_stub_park
  mov $SYS_MMAP, %eax            /* r9 holds the offset of its own orders */
  movabs $STUB_ORDERS, %rdi
  mov $STUB_PAGE, %esi
  mov $1, %edx
  mov $MAP_SHARED_FIXED, %r10d
  mov $STUB_FD_ORDERS, %r8d
  call 1f
1:
  cmp $-4095, %rax
  jae tes_ptrace_stub_exit_group

global stub_park
  mov $SYS_READ, %eax
  mov $STUB_FD_LIFE, %edi
  movabs $STUB_SCRATCH, %rsi
  mov $1, %edx
  call tes_ptrace_stub_parked
global stub_parked
  cmp $-4, %rax                  /* EINTR */
  je tes_ptrace_stub_park

global stub_exit_group
  mov $SYS_EXIT_GROUP, %eax
  xor %edi, %edi
  call tes_ptrace_stub_exit_group

global stub_exit
  mov $SYS_EXIT, %eax
  xor %edi, %edi
  call tes_ptrace_stub_exit

do_syscall:
  syscall
global stub_syscalled
  jmp *%r15

  /* Takes the offset of an order page, answers with it from the child (whose credentials tell the pid), or with
   * -errno. No guest runs in the zygote, so its scratch page can be trusted. */
zygote:
  mov $SYS_READ, %eax
  mov $STUB_FD_CTL, %edi
  movabs $STUB_SCRATCH, %rsi
  mov $8, %edx
  call 1f
1:
  cmp $-4, %rax
  je zygote
  cmp $8, %rax
  jne tes_ptrace_stub_exit_group
  movabs $STUB_SCRATCH, %rbp
  mov (%rbp), %r9
  mov $SYS_CLONE, %eax
  mov $SIGCHLD_, %edi
  xor %esi, %esi
  xor %edx, %edx
  xor %r10d, %r10d
  xor %r8d, %r8d
  call 2f
2:
  test %rax, %rax
  jz 3f
  cmp $-4095, %rax
  jb zygote
  lea zygote(%rip), %r14
  jmp answer
3:
  mov $SYS_MMAP, %eax
  movabs $STUB_ORDERS, %rdi
  mov $STUB_PAGE, %esi
  mov $1, %edx
  mov $MAP_SHARED_FIXED, %r10d
  mov $STUB_FD_ORDERS, %r8d
  call 4f
4:
  lea tes_ptrace_stub_park(%rip), %r14
  cmp $-4095, %rax
  jb 5f
  lea tes_ptrace_stub_exit_group(%rip), %r14
  jmp answer
5:
  mov %r9, %rax
answer:                          /* sends rax, goes on at r14 */
  mov %rax, (%rbp)
  mov $SYS_SENDTO, %eax
  mov $STUB_FD_CTL, %edi
  mov %rbp, %rsi
  mov $8, %edx
  mov $MSG_DONTWAIT_NOSIGNAL, %r10d
  xor %r8d, %r8d
  xor %r9d, %r9d
  call 6f
6:
  cmp $8, %rax
  jne tes_ptrace_stub_exit_group
  jmp *%r14
  .org tes_ptrace_stub + STUB_PAGE, 0xcc
global stub_end

  .section .note.GNU-stack, "", @progbits
