/* SPDX-License-Identifier: Apache-2.0 */
/* hostile-stub.h - what the attacks on platform systrap's stub share: jumps into it, slots, exposed children, the innocent.
 *
 * The layout comes from the platform's own header: an attacker can read it too. */
#pragma once

#include "check.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include "../../plugins/platform-systrap/stub.h"

#define BACK_MAX 8

typedef struct {
  unsigned long rax, rdi, rsi, rdx, r10, r8, r9, rbx, rbp, r12, r13, r14, r15, rcx;
} Regs;

typedef struct {
  pid_t pid;
  int fd;
} Innocent;

/* Leaves a case early where there is no such stub. */
#define NEED_STUB()   \
  do {                \
    if (!stub_here()) \
      return;         \
  } while (0)

/* Loads r, jumps to `at`; comes back through come_back (where r->r15 leads), with rax. */
long jump_and_return(const Regs *r, unsigned long at);
extern char come_back[];
extern sigjmp_buf again; /* where catch_all() leads signals */

bool stub_here(void);
int find_syscalls(unsigned long *at, int max);
long call_at(unsigned long at, long nr, long a, long b, long c, long d, long e, long f);
unsigned long my_slot(void);
volatile StIn *slot_in(unsigned long slot);
volatile StOut *slot_out(unsigned long slot);
unsigned long guest_site(void);
void host_wake(const volatile void *word);
void expose(void (*fn)(uint64_t), uint64_t seed, unsigned ms);
Innocent innocent_start(void);
void innocent_check(Innocent i);
void storm(void (*fn)(uint64_t), unsigned each_ms, unsigned total_ms);
unsigned long random_register(uint64_t *seed);
void catch_all(void);
