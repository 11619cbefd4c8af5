/* SPDX-License-Identifier: Apache-2.0 */
/* ops-io.c - random operations on contents: reading, writing, sizes, holes, copies, mappings. */
#include "diff.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <linux/falloc.h>

/* How full a pipe is depends on how it is built: FIFOs get only short writes, which fit everywhere. */
static size_t bounded(int fd, size_t n) { return fd_type(fd) == S_IFIFO ? n % 64 : n; }

static void op_read(void) {
  int fd = file_fd();
  size_t n = length();
  say("read(%d,%zu)", fd, n);
  long r = done(read(fd, me->buf, n));
  if (r > 0)
    say_bytes(me->buf, (size_t)r);
}

static void op_pread(void) {
  int fd = file_fd();
  size_t n = length();
  long at = offset();
  say("pread(%d,%zu,%ld)", fd, n, at);
  long r = done(pread(fd, me->buf, n, at));
  if (r > 0)
    say_bytes(me->buf, (size_t)r);
}

static void op_write(void) {
  int fd = file_fd();
  size_t n = bounded(fd, length());
  fill(me->buf, n);
  say("write(%d,%zu)", fd, n);
  done(write(fd, me->buf, n));
}

static void op_pwrite(void) {
  int fd = file_fd();
  size_t n = bounded(fd, length());
  long at = offset();
  fill(me->buf, n);
  say("pwrite(%d,%zu,%ld)", fd, n, at);
  done(pwrite(fd, me->buf, n, at));
}

/* Up to five pieces of the buffer. */
static int pieces(struct iovec *v, int fd) {
  int n = (int)below(6);
  size_t at = 0;
  for (int i = 0; i < n; i++) {
    size_t len = bounded(fd, below(3000)) / (fd_type(fd) == S_IFIFO ? 8 : 1);
    v[i] = (struct iovec){me->buf + at, len};
    at += len;
  }
  say("{%d,%zu}", n, at);
  return n;
}

static void op_readv(void) {
  static const int flags[] = {0, 0, 0, RWF_HIPRI, 0x4000};
  struct iovec v[6];
  int fd = file_fd(), how = (int)below(3), f = PICK(flags);
  long at = offset(), r;
  say("readv%d(%d,%ld,%#x,", how, fd, at, f);
  int n = pieces(v, fd);
  r = how == 0   ? readv(fd, v, n)
      : how == 1 ? preadv(fd, v, n, at)
                 : preadv2(fd, v, n, chance(30) ? -1 : at, f);
  done(r);
  if (r > 0)
    say_bytes(me->buf, (size_t)r);
}

static void op_writev(void) {
  static const int flags[] = {0, 0, RWF_APPEND, RWF_DSYNC, RWF_SYNC, 0x4000};
  struct iovec v[6];
  int fd = file_fd(), how = (int)below(3), f = PICK(flags);
  long at = offset();
  say("writev%d(%d,%ld,%#x,", how, fd, at, f);
  int n = pieces(v, fd);
  fill(me->buf, 18000);
  done(how == 0   ? writev(fd, v, n)
       : how == 1 ? pwritev(fd, v, n, at)
                  : pwritev2(fd, v, n, chance(30) ? -1 : at, f));
}

/* What counts as a hole is the filesystem's affair, but no data may lie in one. */
static void seek_hole(int fd, long at, int whence) {
  long before = lseek(fd, 0, SEEK_CUR), end = lseek(fd, 0, SEEK_END), r = lseek(fd, at, whence), e = errno, n;
  lseek(fd, before, SEEK_SET);
  if (r < 0 && (e != ENXIO || at < 0 || at >= end)) {
    say(" = %s", error_name(e));
    return;
  }
  if (r >= 0 && (r < at || r > end))
    say(" = %ld, beyond %ld or %ld", r, at, end);
  for (long to = r < 0 ? end : r; whence == SEEK_DATA && at < to; at += n) {
    n = pread(fd, me->buf, (size_t)(to - at) < BUF ? (size_t)(to - at) : BUF, at);
    if (n <= 0)
      return;
    for (long i = 0; i < n; i++)
      if (me->buf[i]) {
        say(" data at %ld in a hole", at + i);
        return;
      }
  }
}

static void op_lseek(void) {
  static const int whence[] = {SEEK_SET, SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE, 9};
  int fd = file_fd(), w = PICK(whence);
  long at = offset();
  if (fd_type(fd) == S_IFDIR) /* what positions of directories mean is the filesystem's own affair */
    at = 0, w = SEEK_SET;
  say("lseek(%d,%ld,%d)", fd, at, w);
  if (w == SEEK_DATA || w == SEEK_HOLE)
    seek_hole(fd, at, w);
  else
    done(lseek(fd, at, w));
}

static void op_ftruncate(void) {
  int fd = file_fd();
  long to = offset();
  say("ftruncate(%d,%ld)", fd, to);
  done(ftruncate(fd, to));
}

static void op_truncate(void) {
  const char *p = path();
  long to = offset();
  say("truncate(");
  say_path(p);
  say(",%ld)", to);
  done(truncate(p, to));
}

static void op_fallocate(void) {
  static const int modes[] = {0,
                              0,
                              FALLOC_FL_KEEP_SIZE,
                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              FALLOC_FL_PUNCH_HOLE,
                              FALLOC_FL_ZERO_RANGE,
                              FALLOC_FL_COLLAPSE_RANGE,
                              FALLOC_FL_INSERT_RANGE,
                              FALLOC_FL_UNSHARE_RANGE,
                              0x1000};
  int fd = file_fd(), mode = PICK(modes);
  long at = offset(), n = chance(90) ? (long)length() : offset();
  if (mode &
      ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) /* not offered, or out of range: which is told first? */
    at = 4096, n = 4096;
  say("fallocate(%d,%#x,%ld,%ld)", fd, mode, at, n);
  done(fallocate(fd, mode, at, n));
}

static void op_sync(void) {
  int fd = any_fd(), how = (int)below(4);
  say("sync%d(%d)", how, fd);
  done(how == 0   ? fsync(fd)
       : how == 1 ? fdatasync(fd)
       : how == 2 ? sync_file_range(fd, 0, 4096, SYNC_FILE_RANGE_WRITE)
                  : syncfs(fd));
}

static void op_advise(void) {
  int fd = any_fd(), what = (int)below(8);
  long at = offset(), n = length();
  say("fadvise(%d,%ld,%ld,%d)", fd, at, n, what);
  int r = posix_fadvise(fd, at, n, what);
  errno = r;
  done(r ? -1 : 0);
}

static bool same_file(int a, int b) {
  struct stat x, y;
  return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino;
}

static void op_sendfile(void) {
  int out = file_fd(), in = file_fd();
  size_t n = length();
  off_t at = offset();
  bool explicit = chance(50);
  if (fd_type(out) == S_IFIFO)
    out = -1;
  if (fd_type(in) == S_IFDIR || same_file(in, out)) /* fails, but a time changes; see op_splice() */
    in = -1;
  say("sendfile(%d,%d,%ld,%zu)", out, in, explicit ? (long)at : -1L, n);
  long r = done(sendfile(out, in, explicit ? &at : NULL, n));
  if (r >= 0 && explicit)
    say(" at=%ld", (long)at);
}

static void op_copy_range(void) {
  int in = file_fd(), out = file_fd();
  size_t n = length();
  off_t from = offset(), to = offset();
  bool a = chance(60), b = chance(60);
  unsigned flags = chance(3) ? 1 : 0;
  say("copy_file_range(%d,%ld,%d,%ld,%zu,%u)", in, a ? (long)from : -1L, out, b ? (long)to : -1L, n, flags);
  long r = done(copy_file_range(in, a ? &from : NULL, out, b ? &to : NULL, n, flags));
  if (r >= 0)
    say(" from=%ld to=%ld", a ? (long)from : -1, b ? (long)to : -1);
}

/* Through a pipe of its own, emptied again. */
static void op_splice(void) {
  int in = file_fd(), out = file_fd(), p[2];
  loff_t from = offset(), to = offset();
  size_t n = length() % 32768;
  bool a = chance(60), b = chance(60);
  say("splice(%d,%ld,%d,%ld,%zu)", in, a ? (long)from : -1L, out, b ? (long)to : -1L, n);
  /* Within one file it matters whether the pipe holds bytes or pages. */
  if (same_file(in, out) || fd_type(in) != S_IFREG || fd_type(out) != S_IFREG || pipe2(p, O_NONBLOCK) < 0) {
    say(" skipped");
    return;
  }
  long r = done(splice(in, a ? &from : NULL, p[1], NULL, n, SPLICE_F_NONBLOCK));
  if (r > 0) {
    done(splice(p[0], NULL, out, b ? &to : NULL, (size_t)r, SPLICE_F_NONBLOCK));
    say(" from=%ld to=%ld", a ? (long)from : -1, b ? (long)to : -1);
  }
  close(p[0]);
  close(p[1]);
}

static _Thread_local sigjmp_buf fault;
static _Thread_local volatile bool guarded;

static void on_fault(int sig) {
  if (guarded)
    siglongjmp(fault, sig);
  signal(sig, SIG_DFL);
}

/* Reads (and hashes) or writes guest memory; says the signal it raised. */
static void touch(char *p, size_t n, bool write, bool open_contents) {
  struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  sigaction(SIGBUS, &sa, NULL);
  sigaction(SIGSEGV, &sa, NULL);
  guarded = true;
  int sig = sigsetjmp(fault, 0);
  if (sig) {
    say(" %s", sig == SIGBUS ? "SIGBUS" : "SIGSEGV");
  } else if (write) {
    memcpy(p, me->buf, n);
    say(" written");
  } else {
    uint32_t h = hash(p, n);
    if (open_contents)
      say(" read");
    else
      say(" #%zu:%08x", n, h);
  }
  guarded = false;
}

static void op_mmap(void) {
  Map *m = &me->map[below(MAPS)];
  int fd = file_fd(), prot = chance(60) ? PROT_READ | PROT_WRITE : PROT_READ;
  int flags = chance(75) ? MAP_SHARED : chance(20) ? 0x03 : MAP_PRIVATE;
  size_t len = 1 + below(40000);
  long at = chance(80) ? (long)below(20) * 4096 : offset();
  if (m->at)
    munmap(m->at, m->len);
  say("mmap(%zu,%#x,%#x,%d,%ld)", len, prot, flags, fd, at);
  m->at = mmap(NULL, len, prot, flags, fd, at);
  m->len = len;
  m->writable = prot & PROT_WRITE;
  m->may_be_copy = m->writable && flags == MAP_PRIVATE;
  done(m->at == MAP_FAILED ? -1 : 0);
  if (m->at == MAP_FAILED)
    m->at = NULL;
  else if (chance(50))
    touch(m->at, 1 + below((unsigned)len), false, false);
}

static void op_map_use(void) {
  Map *m = &me->map[below(MAPS)];
  bool write = chance(50);
  size_t at = below(40000), n = 1 + below(5000);
  say("map-%s(%d,%zu,%zu)", write ? "write" : "read", (int)(m - me->map), at, n);
  fill(me->buf, 5001);
  /* A platform that is not told about the access cannot know which of two signals it is. */
  if (!m->at || at >= m->len || (write && !m->writable)) {
    say(" none");
    return;
  }
  if (n > m->len - at)
    n = m->len - at;
  touch((char *)m->at + at, n, write, m->may_be_copy);
}

static void op_msync(void) {
  static const int flags[] = {MS_SYNC, MS_ASYNC, MS_SYNC | MS_INVALIDATE, MS_SYNC | MS_ASYNC};
  Map *m = &me->map[below(MAPS)];
  int f = PICK(flags);
  say("msync(%d,%#x)", (int)(m - me->map), f);
  done(m->at ? msync(m->at, m->len, f) : 0);
}

static void op_munmap(void) {
  Map *m = &me->map[below(MAPS)];
  say("munmap(%d)", (int)(m - me->map));
  done(m->at ? munmap(m->at, m->len) : 0);
  m->at = NULL;
}

const Op io_ops[] = {{"read", op_read, 30},         {"pread", op_pread, 25},
                     {"write", op_write, 30},       {"pwrite", op_pwrite, 30},
                     {"readv", op_readv, 15},       {"writev", op_writev, 15},
                     {"lseek", op_lseek, 25},       {"ftruncate", op_ftruncate, 14},
                     {"truncate", op_truncate, 10}, {"fallocate", op_fallocate, 18},
                     {"sync", op_sync, 5},          {"advise", op_advise, 3},
                     {"sendfile", op_sendfile, 10}, {"copy_range", op_copy_range, 12},
                     {"splice", op_splice, 8},      {"mmap", op_mmap, 15},
                     {"map-use", op_map_use, 40},   {"msync", op_msync, 4},
                     {"munmap", op_munmap, 5},      {NULL, NULL, 0}};
