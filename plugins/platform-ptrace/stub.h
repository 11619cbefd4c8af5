/* SPDX-License-Identifier: Apache-2.0 */
/* The contract between the kernel process and the stub: addresses, descriptors, orders.
 * Included by C and by stub.S. */
#pragma once

/* The stub's three pages, above everything a guest can map: code (read and execute), orders (shared with the
 * kernel process, read-only here), scratch (written by recvmsg and by the zygote; nothing is ever
 * trusted that was read from it while a guest runs). */
#define STUB_BASE 0x7ffff0000000
#define STUB_ORDERS 0x7ffff0001000
#define STUB_SCRATCH 0x7ffff0002000
#define STUB_END 0x7ffff0003000
#define STUB_PAGE 0x1000
#define STUB_USER_END 0x7ffffffff000 /* end of user space with four-level page tables */

/* Descriptors of every stub. Nothing else is open, so a received descriptor is always STUB_FD_IN: its number is
 * never read from memory. */
#define STUB_FD_CTL 0  /* the zygote's requests and its children's answers */
#define STUB_FD_LIFE 1 /* nothing is ever sent; end of file means that the kernel process is gone */
#define STUB_FD_ORDERS 2
#define STUB_FD_POOL 3 /* sockets that bring descriptors */
#define STUB_POOL 4
#define STUB_FD_IN 7

/* An order is a system call for stub_batch: 64 bytes; number and flags (32 bits each), six arguments. */
#define STUB_ORDER_SIZE 64
#define STUB_ORDER_ARG(n) (8 + 8 * (n))
#define STUB_NR_END 0xffffffff
/* Flags of an order. */
#define STUB_F_CLONE 1   /* returns twice; the new thread parks */
#define STUB_F_FORK 2    /* ... and it is a process: its orders are at offset args[5] */
#define STUB_F_MAYFAIL 4 /* errors do not end the batch */
#define STUB_F_ZYGOTE 8  /* on STUB_NR_END: serve as the zygote instead of trapping */

#ifndef __ASSEMBLER__
#include <glib.h>

typedef struct {
  guint32 nr, flags;
  guint64 args[6];
  guint64 unused;
} StubOrder;
G_STATIC_ASSERT(sizeof(StubOrder) == STUB_ORDER_SIZE);
G_STATIC_ASSERT(STUB_FD_IN == STUB_FD_POOL + STUB_POOL);

/* The image (a complete ELF executable that loads at STUB_BASE) and its entry points, as linked into the plugin. */
extern const char tes_ptrace_stub[], tes_ptrace_stub_end[], tes_ptrace_stub_batch[],
    tes_ptrace_stub_trapped[], tes_ptrace_stub_syscalled[], tes_ptrace_stub_park[], tes_ptrace_stub_parked[],
    tes_ptrace_stub_exit[], tes_ptrace_stub_exit_group[], tes_ptrace_stub_msghdr[] G_GNUC_INTERNAL;
#define STUB_AT(symbol) ((gulong)STUB_BASE + (gulong)((symbol)-tes_ptrace_stub))
#endif
