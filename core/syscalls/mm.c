/* SPDX-License-Identifier: Apache-2.0 */
/* System calls on memory: mmap(2), munmap(2), mprotect(2), brk(2), mremap(2), madvise(2), msync(2), mincore(2), mlock(2) and its
 * family, process_vm_readv(2), pkeys(7). The work is done in core/mm. Interface: tes_sys_mm. */
#include <core/mm/mm.h>
#include <core/syscalls/syscalls.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define TRANSFER_CHUNK 65536 /* bytes of process_vm_readv(2) in flight */

/* Numbers newer than the C library of Debian 12. */
#define NR_cachestat 451
#define NR_map_shadow_stack 453
#define NR_mseal 462
#define NR_set_mempolicy_home_node 450

static glong sys_mmap(TesTask *t, const gulong a[6]) {
  guint flags = (guint)a[3];
  if (a[5] & ~TES_PAGE_MASK)
    return -EINVAL;
  g_autoptr(TesFile) f = NULL;
  if (!(flags & MAP_ANONYMOUS)) {
    f = tes_fd_get(t, (int)a[4]);
    if (!f || (f->flags & O_PATH))
      return -EBADF;
  }
  return tes_mm_mmap(t->mm, &(TesMmapArgs){.addr = a[0],
                                           .len = a[1],
                                           .prot = (guint)a[2],
                                           .flags = flags,
                                           .file = f,
                                           .off = (goffset)a[5],
                                           .task = t});
}

static glong sys_munmap(TesTask *t, const gulong a[6]) { return tes_mm_munmap(t->mm, a[0], a[1]); }
static glong sys_mprotect(TesTask *t, const gulong a[6]) {
  /* Unknown high bits are as wrong as unknown low ones, but are looked at in the same place. */
  return tes_mm_mprotect(t->mm, t, a[0], a[1],
                         a[2] >> 32 ? ~0u & ~(guint)(PROT_GROWSDOWN | PROT_GROWSUP) : (guint)a[2]);
}
static glong sys_brk(TesTask *t, const gulong a[6]) { return tes_mm_brk(t->mm, t, a[0]); }
static glong sys_mremap(TesTask *t, const gulong a[6]) {
  return a[3] >> 32 ? -EINVAL : tes_mm_mremap(t->mm, t, a[0], a[1], a[2], (guint)a[3], a[4]);
}
static glong sys_madvise(TesTask *t, const gulong a[6]) {
  return tes_mm_madvise(t->mm, t, a[0], a[1], (int)a[2]);
}
static glong sys_msync(TesTask *t, const gulong a[6]) {
  return tes_mm_msync(t->mm, t, a[0], a[1], (guint)a[2]);
}
static glong sys_mincore(TesTask *t, const gulong a[6]) { return tes_mm_mincore(t->mm, a[0], a[1], a[2]); }
static glong sys_mlock(TesTask *t, const gulong a[6]) { return tes_mm_mlock(t->mm, t, a[0], a[1], FALSE); }
static glong sys_mlock2(TesTask *t, const gulong a[6]) {
  return (guint)a[2] & ~1u /* MLOCK_ONFAULT */ ? -EINVAL
                                               : tes_mm_mlock(t->mm, t, a[0], a[1], (guint)a[2] & 1);
}
static glong sys_munlock(TesTask *t, const gulong a[6]) { return tes_mm_munlock(t->mm, a[0], a[1]); }
static glong sys_mlockall(TesTask *t, const gulong a[6]) { return tes_mm_mlockall(t->mm, t, (guint)a[0]); }
static glong sys_munlockall(TesTask *t, const gulong a[6]) { return tes_mm_munlockall(t->mm); }

/* ---- pkeys(7), as on a processor without them ---- */

static glong sys_pkey_mprotect(TesTask *t, const gulong a[6]) {
  return (int)a[3] == -1 ? sys_mprotect(t, a) : -EINVAL;
}
static glong sys_pkey_alloc(TesTask *t, const gulong a[6]) {
  return a[0] || (a[1] & ~3UL) ? -EINVAL : -ENOSPC;
}
static glong sys_pkey_free(TesTask *t, const gulong a[6]) { return -EINVAL; }

/* ---- process_vm_readv(2), process_vm_writev(2) ---- */

/* The other process's buffers; its addresses are checked as they are used. */
static int import_remote(TesTask *t, struct iovec **out, gulong uiov, gulong n) {
  *out = NULL;
  if (n > TES_IOV_MAX)
    return -EINVAL;
  g_autofree struct iovec *v = g_new(struct iovec, MAX(n, 1));
  if (tes_copy_in(t, v, uiov, n * sizeof *v) < 0)
    return -EFAULT;
  for (gulong i = 0; i < n; i++)
    if (v[i].iov_len > SSIZE_MAX)
      return -EINVAL;
  *out = g_steal_pointer(&v);
  return 0;
}

/* Moves one chunk; bytes moved, fewer than n when either side ends. */
static gsize transfer(TesMM *remote, gulong addr, TesIov *local, guint8 *buf, gsize n, gboolean write) {
  gssize moved;
  if (!write) {
    n = tes_mm_copy_in(remote, buf, addr, n);
    moved = n ? tes_iov_write_to(local, buf, n) : 0;
    return moved > 0 ? (gsize)moved : 0;
  }
  moved = tes_iov_read_from(local, buf, n);
  return moved > 0 ? tes_mm_copy_out(remote, addr, buf, (gsize)moved) : 0;
}

static glong transfer_all(TesMM *remote, TesIov *local, const struct iovec *v, gulong n, gboolean write) {
  g_autofree guint8 *buf = g_malloc(TRANSFER_CHUNK);
  gsize total = 0;
  for (gulong i = 0; i < n; i++) {
    for (gsize done = 0; done < v[i].iov_len && local->left > 0;) {
      gsize part = MIN(MIN(v[i].iov_len - done, TRANSFER_CHUNK), local->left);
      gsize got = transfer(remote, (gulong)v[i].iov_base + done, local, buf, part, write);
      total += got;
      done += got;
      if (got < part)
        return total ? (glong)total : -EFAULT;
    }
  }
  return (glong)total;
}

static glong process_vm(TesTask *t, const gulong a[6], gboolean write) {
  if (a[5])
    return -EINVAL;
  TesIov local;
  g_autofree struct iovec *store = NULL, *remote = NULL;
  int r = tes_iov_import(&local, &store, t, a[1], a[2]);
  if (r == 0)
    r = import_remote(t, &remote, a[3], a[4]);
  if (r < 0)
    return r;
  g_autoptr(TesTask) target = tes_task_find(t->kernel, t->ns_pid, (gint)a[0], FALSE);
  if (!target)
    return -ESRCH;
  if (target != t && !tes_task_may_inspect(tes_task_ctx(t), target))
    return -EPERM;
  TesMM *mm = tes_task_mm_ref(target);
  if (!mm)
    return -ESRCH;
  glong n = transfer_all(mm, &local, remote, a[4], write);
  tes_mm_unref(mm);
  return n;
}

static glong sys_process_vm_readv(TesTask *t, const gulong a[6]) { return process_vm(t, a, FALSE); }
static glong sys_process_vm_writev(TesTask *t, const gulong a[6]) { return process_vm(t, a, TRUE); }

#define NO_NUMA "as a kernel built without NUMA support"
#define NO_PKEYS "as on a processor without protection keys"

static const TesSyscall rows[] = {
    {SYS_mmap, "mmap", sys_mmap, TES_PARTIAL,
     "no MAP_HUGETLB, no MAP_SYNC; private file pages are copied in blocks of 64 KiB", "puMmdx"},
    {SYS_mprotect, "mprotect", sys_mprotect, TES_FULL, NULL, "puM"},
    {SYS_munmap, "munmap", sys_munmap, TES_FULL, NULL, "pu"},
    {SYS_brk, "brk", sys_brk, TES_FULL, NULL, "p"},
    {SYS_mremap, "mremap", sys_mremap, TES_FULL, NULL, "puuxp"},
    {SYS_msync, "msync", sys_msync, TES_FULL, NULL, "pux"},
    {SYS_mincore, "mincore", sys_mincore, TES_FULL, NULL, "pup"},
    {SYS_madvise, "madvise", sys_madvise, TES_PARTIAL,
     "MADV_FREE frees at once; no KSM, COLLAPSE, HWPOISON; paging hints are accepted", "pud"},
    {SYS_mlock, "mlock", sys_mlock, TES_PARTIAL,
     "pages are made present and counted; the host may still swap them", "pu"},
    {SYS_mlock2, "mlock2", sys_mlock2, TES_PARTIAL, "as mlock", "pux"},
    {SYS_munlock, "munlock", sys_munlock, TES_FULL, NULL, "pu"},
    {SYS_mlockall, "mlockall", sys_mlockall, TES_PARTIAL, "as mlock", "x"},
    {SYS_munlockall, "munlockall", sys_munlockall, TES_FULL, NULL, ""},
    {SYS_process_vm_readv, "process_vm_readv", sys_process_vm_readv, TES_FULL, NULL, "dpupux"},
    {SYS_process_vm_writev, "process_vm_writev", sys_process_vm_writev, TES_FULL, NULL, "dpupux"},
    {SYS_pkey_mprotect, "pkey_mprotect", sys_pkey_mprotect, TES_PARTIAL, NO_PKEYS, "puMd"},
    {SYS_pkey_alloc, "pkey_alloc", sys_pkey_alloc, TES_PARTIAL, NO_PKEYS, "ux"},
    {SYS_pkey_free, "pkey_free", sys_pkey_free, TES_PARTIAL, NO_PKEYS, "d"},
    {SYS_remap_file_pages, "remap_file_pages", NULL, TES_NONE, "deprecated; use several mmap calls", "puxux"},
    {SYS_mbind, "mbind", NULL, TES_NONE, NO_NUMA, "puxpux"},
    {SYS_set_mempolicy, "set_mempolicy", NULL, TES_NONE, NO_NUMA, "xpu"},
    {SYS_get_mempolicy, "get_mempolicy", NULL, TES_NONE, NO_NUMA, "ppupx"},
    {SYS_migrate_pages, "migrate_pages", NULL, TES_NONE, NO_NUMA, "dupp"},
    {SYS_move_pages, "move_pages", NULL, TES_NONE, NO_NUMA, "dupppx"},
    {NR_set_mempolicy_home_node, "set_mempolicy_home_node", NULL, TES_NONE, NO_NUMA, "puux"},
    {SYS_process_madvise, "process_madvise", NULL, TES_NONE, "advice for other processes is not taken",
     "fpudx"},
    {SYS_process_mrelease, "process_mrelease", NULL, TES_NONE, "memory of an exiting process goes at once",
     "fx"},
    {NR_cachestat, "cachestat", NULL, TES_NONE, "the page cache is the host's", "fppx"},
    {NR_map_shadow_stack, "map_shadow_stack", NULL, TES_NONE, "no shadow stacks", "pux"},
    {NR_mseal, "mseal", NULL, TES_NONE, "sealing is not implemented", "pux"},
};

const TesSyscallTable tes_sys_mm = TES_ROWS(rows);
