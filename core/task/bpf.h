/* SPDX-License-Identifier: Apache-2.0 */
/* Classic BPF programs over struct seccomp_data (seccomp(2)): a verifier and an interpreter. */
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <tessera/types.h>

#define TES_BPF_WORDS (sizeof(struct seccomp_data) / 4)
#define TES_BPF_ALL 0xffffU /* every word is known */

typedef union {
  struct seccomp_data data;
  guint32 word[TES_BPF_WORDS];
} TesBpfData;

/* 0, or -EINVAL: the program could read what it may not, run away or end without a value. 1 <= n <= BPF_MAXINSNS. */
int tes_bpf_check(const struct sock_filter *, guint n);
/* Runs a checked program. FALSE: it asked for a word whose bit in `known` is not set; *ret is not changed then. */
gboolean tes_bpf_run(const struct sock_filter *, const TesBpfData *, guint known, guint32 *ret);
