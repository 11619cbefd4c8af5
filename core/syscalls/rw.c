/* SPDX-License-Identifier: Apache-2.0 */
/* read(2), write(2) and their relatives, lseek(2); and the table of the area. */
#include <core/syscalls/rw.h>

glong tes_sys_wrote(TesTask *t, gssize n) {
  if (n == -EPIPE)
    tes_file_signal_self(t, SIGPIPE);
  return n;
}

/* One call: which descriptor, which buffers, which position. */
typedef struct {
  TesFile *file;
  TesFdLoan loan;
  TesIov iov;
  struct iovec one, *store;
  goffset pos;
  goffset *posp;
  int flags;
} Call;

/* The order of the checks shows where several things are wrong: position, descriptor, kind of file, access mode. */
static int begin(Call *c, TesTask *t, const gulong a[6], gboolean writing, gboolean positioned) {
  c->store = NULL;
  c->loan = (TesFdLoan){NULL};
  c->flags = 0;
  c->pos = (goffset)a[3];
  if (positioned && c->pos < 0)
    return -EINVAL;
  c->loan = tes_fd_borrow(t, (int)a[0]);
  c->file = c->loan.file;
  if (!c->file || (c->file->flags & O_PATH))
    return -EBADF;
  if (positioned && !(c->file->ops->flags & TES_FILE_SEEKABLE))
    return -ESPIPE;
  c->posp = positioned ? &c->pos : NULL;
  return (writing ? tes_file_writable(c->file) : tes_file_readable(c->file)) ? 0 : -EBADF;
}

static glong end(Call *c, glong result) {
  if (c->store)
    g_free(c->store);
  tes_fd_return(&c->loan);
  return result;
}

static glong finish(Call *c, TesTask *t, int r, gboolean writing) {
  gssize n = r;
  if (r == 0)
    n = writing ? tes_file_write(c->file, tes_task_ctx(t), &c->iov, c->posp, c->flags)
                : tes_file_read(c->file, tes_task_ctx(t), &c->iov, c->posp, c->flags);
  end(c, 0);
  return writing ? tes_sys_wrote(t, n) : n;
}

static glong simple(TesTask *t, const gulong a[6], gboolean writing, gboolean positioned) {
  Call c;
  int r = begin(&c, t, a, writing, positioned);
  if (r == 0)
    r = tes_iov_init_user(&c.iov, &c.one, t, a[1], a[2]);
  return finish(&c, t, r, writing);
}

static glong sys_read(TesTask *t, const gulong a[6]) { return simple(t, a, FALSE, FALSE); }
static glong sys_write(TesTask *t, const gulong a[6]) { return simple(t, a, TRUE, FALSE); }
static glong sys_pread64(TesTask *t, const gulong a[6]) { return simple(t, a, FALSE, TRUE); }
static glong sys_pwrite64(TesTask *t, const gulong a[6]) { return simple(t, a, TRUE, TRUE); }

/* RWF_* of preadv2(2); the ones of newer kernels are refused as unknown. */
static int rwf_flags(Call *c, int rwf, gboolean writing) {
  enum { HIPRI = 1, DSYNC = 2, SYNC = 4, NOWAIT = 8, APPEND = 16, NOAPPEND = 32 };
  if (rwf & ~(HIPRI | DSYNC | SYNC | NOWAIT | APPEND | NOAPPEND))
    return -EOPNOTSUPP;
  if ((rwf & APPEND) && (rwf & NOAPPEND))
    return -EINVAL;
  if (rwf & NOWAIT)
    c->flags |= TES_RW_NONBLOCK;
  if (writing && (rwf & (DSYNC | SYNC)))
    c->flags |= TES_RW_SYNC;
  if (writing && (rwf & APPEND))
    c->flags |= TES_RW_APPEND;
  if (rwf & NOAPPEND)
    c->flags |= TES_RW_NOAPPEND;
  return 0;
}

static glong vector(TesTask *t, const gulong a[6], gboolean writing, gboolean positioned, int rwf) {
  Call c;
  int r = begin(&c, t, a, writing, positioned);
  if (r == 0)
    r = tes_iov_import(&c.iov, &c.store, t, a[1], a[2]);
  if (r == 0 && c.iov.left)
    r = rwf_flags(&c, rwf, writing);
  return r == 0 && !c.iov.left ? end(&c, 0) : finish(&c, t, r, writing);
}

static glong sys_readv(TesTask *t, const gulong a[6]) { return vector(t, a, FALSE, FALSE, 0); }
static glong sys_writev(TesTask *t, const gulong a[6]) { return vector(t, a, TRUE, FALSE, 0); }
static glong sys_preadv(TesTask *t, const gulong a[6]) { return vector(t, a, FALSE, TRUE, 0); }
static glong sys_pwritev(TesTask *t, const gulong a[6]) { return vector(t, a, TRUE, TRUE, 0); }
/* Position -1: the file's own. The high half (a[4]) is unused with 64-bit longs. */
static glong sys_preadv2(TesTask *t, const gulong a[6]) {
  return vector(t, a, FALSE, (glong)a[3] != -1, (int)a[5]);
}
static glong sys_pwritev2(TesTask *t, const gulong a[6]) {
  return vector(t, a, TRUE, (glong)a[3] != -1, (int)a[5]);
}

static glong sys_lseek(TesTask *t, const gulong a[6]) {
  g_auto(TesFdLoan) l = tes_fd_borrow_io(t, (int)a[0]);
  return l.file ? tes_file_seek(l.file, tes_task_ctx(t), (goffset)a[1], (int)a[2]) : -EBADF;
}

static const TesSyscall rows[] = {
    {0, "read", sys_read, TES_FULL, NULL, "fpu"},
    {1, "write", sys_write, TES_FULL, NULL, "fpu"},
    {8, "lseek", sys_lseek, TES_FULL, NULL, "fdd"},
    {17, "pread64", sys_pread64, TES_FULL, NULL, "fpud"},
    {18, "pwrite64", sys_pwrite64, TES_FULL, NULL, "fpud"},
    {19, "readv", sys_readv, TES_FULL, NULL, "fpu"},
    {20, "writev", sys_writev, TES_FULL, NULL, "fpu"},
    {40, "sendfile", tes_sys_do_sendfile, TES_FULL, NULL, "ffpu"},
    {74, "fsync", tes_sys_do_fsync, TES_FULL, NULL, "f"},
    {75, "fdatasync", tes_sys_do_fdatasync, TES_FULL, NULL, "f"},
    {77, "ftruncate", tes_sys_do_ftruncate, TES_FULL, NULL, "fd"},
    {78, "getdents", tes_sys_do_getdents, TES_FULL, NULL, "fpu"},
    {162, "sync", tes_sys_do_sync, TES_FULL, NULL, ""},
    {187, "readahead", tes_sys_do_readahead, TES_PARTIAL, "checks its arguments; nothing is read ahead",
     "fdu"},
    {217, "getdents64", tes_sys_do_getdents64, TES_FULL, NULL, "fpu"},
    {221, "fadvise64", tes_sys_do_fadvise64, TES_PARTIAL, "checks its arguments; advice has no effect",
     "fddd"},
    {275, "splice", tes_sys_do_splice, TES_PARTIAL, "copies bytes", "fpfpux"},
    {276, "tee", tes_sys_do_tee, TES_PARTIAL, "copies bytes", "ffux"},
    {277, "sync_file_range", tes_sys_do_sync_file_range, TES_PARTIAL, "syncs the whole file", "fddx"},
    {278, "vmsplice", tes_sys_do_vmsplice, TES_PARTIAL, "copies bytes", "fpux"},
    {285, "fallocate", tes_sys_do_fallocate, TES_FULL, NULL, "fxdd"},
    {295, "preadv", sys_preadv, TES_FULL, NULL, "fpudd"},
    {296, "pwritev", sys_pwritev, TES_FULL, NULL, "fpudd"},
    {306, "syncfs", tes_sys_do_syncfs, TES_FULL, NULL, "f"},
    {326, "copy_file_range", tes_sys_do_copy_file_range, TES_FULL, NULL, "fpfpux"},
    {327, "preadv2", sys_preadv2, TES_FULL, NULL, "fpuddx"},
    {328, "pwritev2", sys_pwritev2, TES_FULL, NULL, "fpuddx"},
};

const TesSyscallTable tes_sys_rw = TES_ROWS(rows);
