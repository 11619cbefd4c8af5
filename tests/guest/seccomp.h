/* SPDX-License-Identifier: Apache-2.0 */
/* What the seccomp cases share: installing filters. */
#pragma once

#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#define LOAD(field_) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field_))
#define LOAD_HIGH(field_) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field_) + 4)
#define RET(value_) BPF_STMT(BPF_RET | BPF_K, value_)
/* The next instruction is executed only if A is k_. */
#define IF_EQ(k_) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k_, 0, 1)
#define ON_CALL(nr_, value_) LOAD(nr), IF_EQ(nr_), RET(value_)
#define COUNT(a_) (sizeof(a_) / sizeof(a_)[0])

static inline long install_n(const struct sock_filter *f, unsigned n, unsigned flags) {
  struct sock_fprog p = {.len = (unsigned short)n, .filter = (struct sock_filter *)f};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p);
}
#define INSTALL_FLAGS(flags_, ...)                      \
  ({                                                    \
    const struct sock_filter filter_[] = {__VA_ARGS__}; \
    install_n(filter_, COUNT(filter_), flags_);         \
  })
#define INSTALL(...) INSTALL_FLAGS(0, __VA_ARGS__)

static inline void no_new_privs(void) { SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }
