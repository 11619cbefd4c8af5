/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private interface of core/mm: what tasks, the loader and system calls do with an address space.
 * Lock order: mm mapping lock > mapping source > mm pages > platform address space > memory file. */
#pragma once

#include <tessera/task.h>
#include <tessera/tessera.h>

/* ---- Memory file: made once per kernel ---- */
TesMemFile *tes_memfile_new(guint64 limit, GError **);
void tes_memfile_free(TesMemFile *);

/* ---- Life cycle ---- */
/* An empty address space on the kernel's platform; one reference. */
TesMM *tes_mm_new(TesKernel *, GError **);
TesMM *tes_mm_ref(TesMM *);
/* Between these two calls the platform hears nothing of a fresh address space: exec's mappings are one batch. 0 or -errno. */
void tes_mm_begin_image(TesMM *);
int tes_mm_finish_image(TesMM *);
/* Copy for fork: private pages copy-on-write, shared ones shared; MADV_DONTFORK and MADV_WIPEONFORK honoured. Called by the
 * forking task. -ENOMEM ... */
int tes_mm_fork(TesMM *src, TesTask *, TesMM **out);
TesAspace *tes_mm_aspace(TesMM *);
/* Users: tasks that run in it. When the last goes all mappings are dropped at once even if references (from /proc) remain. */
void tes_mm_attach(TesMM *);
void tes_mm_detach(TesMM *);
/* Charges the private pages that were handed out but never touched to another id (account.c). */
void tes_mm_recharge(TesMM *, guint id);
/* Bytes resident now, or the most that tes_mm_stat() has seen if that is more: cheap and near enough for ru_maxrss. */
guint64 tes_mm_final_rss(TesMM *);
guint64 tes_mm_id(TesMM *); /* unique, for private futex keys */

/* ---- Layout, set by the loader ---- */
typedef struct {
  gulong mmap_top;    /* mappings are placed downwards from here */
  gulong brk_start;   /* page-aligned or not, as the ELF ends (+ randomisation) */
  gulong stack_start; /* top of the stack */
  gulong arg_start, arg_end, env_start, env_end;
  gulong code_start, code_end, data_start, data_end;
  gulong vdso; /* base address, 0: none */
} TesMMLayout;
void tes_mm_set_layout(TesMM *, const TesMMLayout *);
void tes_mm_get_layout(TesMM *, TesMMLayout *);
void tes_mm_set_exe(TesMM *, TesFile *); /* takes a reference; PR_SET_MM_EXE_FILE too */
void tes_mm_set_auxv(TesMM *, const guint64 *auxv, gsize bytes);

/* ---- Mapping, for mmap(2) and for the loader. Addresses, lengths: any; checked here. ---- */
typedef struct {
  gulong addr, len;
  guint prot;    /* PROT_* */
  guint flags;   /* MAP_* as mmap(2); MAP_GROWSDOWN | MAP_STACK honoured */
  TesFile *file; /* NULL: anonymous */
  goffset off;
  const char *name;     /* NULL, or a static string for /proc/PID/maps: "[vdso]", "[stack]" */
  TesMapSource *source; /* instead of file: maps this (SysV shm, vDSO); a reference is taken */
  guint64 limit_as;     /* RLIMIT_AS, RLIM_INFINITY: none (loader) */
  TesTask *task;        /* for limits and contexts; NULL: none */
} TesMmapArgs;
/* Address or -errno (as a long). */
glong tes_mm_mmap(TesMM *, const TesMmapArgs *);
int tes_mm_munmap(TesMM *, gulong addr, gulong len);
/* shmdt(2): unmaps what is left of the mapping of a source with these operations that began at addr. -EINVAL: there is none. */
int tes_mm_unmap_source(TesMM *, gulong addr, const TesMapSourceOps *);
int tes_mm_mprotect(TesMM *, TesTask *, gulong addr, gulong len, guint prot);
glong tes_mm_brk(TesMM *, TesTask *, gulong addr);
/* The system calls of the same names; 0 (an address) or -errno. */
glong tes_mm_mremap(TesMM *, TesTask *, gulong old, gulong old_len, gulong new_len, guint flags, gulong to);
int tes_mm_madvise(TesMM *, TesTask *, gulong addr, gulong len, int advice);
int tes_mm_msync(TesMM *, TesTask *, gulong addr, gulong len, guint flags);
int tes_mm_mincore(TesMM *, gulong addr, gulong len, gulong vec);
int tes_mm_mlock(TesMM *, TesTask *, gulong addr, gulong len, gboolean on_fault);
int tes_mm_munlock(TesMM *, gulong addr, gulong len);
int tes_mm_mlockall(TesMM *, TesTask *, guint mcl_flags);
int tes_mm_munlockall(TesMM *);

/* ---- Changed code (docs/memory.md) ---- */
/* Lets the platform rewrite the call site of the trap that t is serving, whose syscall instruction ends at ip: 1 if it was done,
 * 0 if not. */
int tes_mm_rewrite(TesTask *, gulong ip);
/* Undoes all rewriting and allows no more in this address space (nor in children): 0 or -ENOMEM. */
int tes_mm_unpatch_all(TesMM *);
/* From now on CPUID instructions of files are patched to trap when they are mapped (once, before the first process). `at_once`: also
 * those of large files that are mapped for the first time, whose search may take longer than it saves. */
void tes_cpuid_files_init(TesKernel *, gboolean at_once);
void tes_cpuid_files_free(TesKernel *);

/* ---- Faults ---- */
/* Resolves a page fault of the guest (grows stacks, breaks copy-on-write, allocates, re-applies). access: TES_ACCESS_* bits or 0 when
 * unknown; `mapped`: si_code was SEGV_ACCERR. Returns 0 (run again) or the signal to send with *code (SEGV_MAPERR, SEGV_ACCERR, BUS_ADRERR)
 * and for -ENOMEM: -SIGKILL (out of memory). */
int tes_mm_fault(TesMM *, TesTask *, gulong addr, guint access, gboolean mapped, gulong sp, int *code);

/* ---- Keys for shared futexes ---- */
typedef struct {
  guint64 a, b; /* private: mm id, address. shared: page identity in the memory file or file window, offset */
  gboolean shared;
  guint64
      root; /* of a shared word: who sees its waiters (TesTask.futex_root); 0: everybody. The caller fills it in */
} TesFutexKey;
/* Finds what a word is: private when `private_` or the mapping is private. Address is 4-byte aligned. A shared word's page is faulted in.
 * 0 or -EFAULT. */
int tes_mm_futex_key(TesMM *, gulong addr, gboolean private_, TesFutexKey *out);

/* Save/restore sections. */
extern const TesStateOps tes_state_mm, tes_state_memfile;
