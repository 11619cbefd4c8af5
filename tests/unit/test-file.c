/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptions without a sandbox: pipes, eventfds, descriptor tables, advisory locks, socket options, inherited host files. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <limits.h>
#include <sys/file.h>
#include <unistd.h>

/* A context that knows nothing: no kernel, no credentials, no task. */
static const TesCtxResolver no_keys[TES_CTX_N_CORE];
static TesCtx bare = {.kind = TES_CTX_SUPERVISOR, .resolve = no_keys};

static gssize io(TesFile *f, void *buf, gsize n, gboolean writing) {
  TesIov iov;
  struct iovec one;
  tes_iov_init_kernel(&iov, &one, buf, n);
  return writing ? tes_file_write(f, &bare, &iov, NULL, 0) : tes_file_read(f, &bare, &iov, NULL, 0);
}
static gssize put(TesFile *f, const void *buf, gsize n) { return io(f, (void *)(gulong)buf, n, TRUE); }
static gssize get(TesFile *f, void *buf, gsize n) { return io(f, buf, n, FALSE); }

static void new_pipe(guint flags, TesFile *end[2]) {
  g_assert_cmpint(tes_pipe_new(NULL, &bare, flags, end), ==, 0);
}

/* ---- Pipes ---- */

/* Random sizes through the ring, against a counter: nothing lost, nothing out of order, at any place of the ring. */
static void test_pipe_bytes(void) {
  TesFile *end[2];
  g_autofree guchar *buf = g_malloc(TES_PAGE_SIZE * 40);
  guint64 written = 0, read_ = 0;
  new_pipe(O_NONBLOCK, end);
  for (int i = 0; i < 5000; i++) {
    gsize n = (gsize)g_test_rand_int_range(1, (gint32)TES_PAGE_SIZE * 40);
    gboolean writing = g_test_rand_bit();
    if (writing)
      for (gsize k = 0; k < n; k++)
        buf[k] = (guchar)((written + k) * 2654435761u >> 13);
    gssize r = writing ? put(end[1], buf, n) : get(end[0], buf, n);
    if (r == -EAGAIN)
      continue;
    g_assert_cmpint(r, >, 0);
    for (gssize k = 0; !writing && k < r; k++)
      g_assert_cmpuint(buf[k], ==, (guchar)((read_ + (guint64)k) * 2654435761u >> 13));
    *(writing ? &written : &read_) += (guint64)r;
    g_assert_cmpuint(written - read_, <=, 65536);
  }
  tes_file_unref(end[1]);
  gssize r;
  while ((r = get(end[0], buf, 1000)) > 0)
    read_ += (guint64)r;
  g_assert_cmpint(r, ==, 0);
  g_assert_cmpuint(read_, ==, written);
  tes_file_unref(end[0]);
}

static void test_pipe_atomic(void) {
  TesFile *end[2];
  static char buf[70000];
  new_pipe(O_NONBLOCK, end);
  g_assert_cmpint(put(end[1], buf, 65536 - 100), ==, 65536 - 100);
  g_assert_false(tes_file_poll(end[1]) & POLLOUT);
  g_assert_cmpint(put(end[1], buf, 101), ==, -EAGAIN); /* at most PIPE_BUF: whole or not at all */
  g_assert_cmpint(put(end[1], buf, 5000), ==, 100);    /* larger ones may be split */
  g_assert_cmpint(put(end[1], buf, 1), ==, -EAGAIN);
  g_assert_cmpint(get(end[0], buf, PIPE_BUF), ==, PIPE_BUF);
  g_assert_true(tes_file_poll(end[1]) & POLLOUT);
  g_assert_cmpint(put(end[1], buf, PIPE_BUF), ==, PIPE_BUF);
  tes_file_unref(end[0]);
  g_assert_cmpint(put(end[1], buf, 1), ==, -EPIPE);
  g_assert_true(tes_file_poll(end[1]) & POLLERR);
  tes_file_unref(end[1]);
}

static void test_pipe_packets(void) {
  TesFile *end[2];
  static char buf[10000];
  new_pipe(O_NONBLOCK | O_DIRECT, end);
  g_assert_cmpint(put(end[1], "one", 3), ==, 3);
  g_assert_cmpint(put(end[1], "two", 3), ==, 3);
  g_assert_cmpint(put(end[1], buf, 10000), ==, 10000); /* three packets */
  g_assert_cmpint(get(end[0], buf, 100), ==, 3);
  g_assert_cmpint(get(end[0], buf, 2), ==, 2); /* the rest of the packet is gone */
  g_assert_cmpint(get(end[0], buf, sizeof buf), ==, PIPE_BUF);
  g_assert_cmpint(get(end[0], buf, sizeof buf), ==, PIPE_BUF);
  g_assert_cmpint(get(end[0], buf, sizeof buf), ==, 10000 - 2 * PIPE_BUF);
  int n = 0;
  while (put(end[1], "x", 1) == 1)
    n++;
  g_assert_cmpint(n, ==, 16); /* a packet takes a page */
  tes_file_unref(end[0]);
  tes_file_unref(end[1]);
}

static void test_pipe_resize(void) {
  TesFile *end[2];
  static guchar buf[65536], back[65536];
  for (gsize i = 0; i < sizeof buf; i++)
    buf[i] = (guchar)(i * 7);
  new_pipe(O_NONBLOCK, end);
  const TesFileOps *ops = end[0]->ops;
  g_assert_cmpint(ops->fcntl(end[0], NULL, F_GETPIPE_SZ, 0), ==, 65536);
  g_assert_cmpint(put(end[1], buf, 30000), ==, 30000);
  g_assert_cmpint(get(end[0], back, 25000), ==, 25000);
  g_assert_cmpint(put(end[1], buf, 20000), ==, 20000); /* wraps */
  g_assert_cmpint(ops->fcntl(end[0], NULL, F_SETPIPE_SZ, 16384), ==, -EBUSY);
  g_assert_cmpint(ops->fcntl(end[0], NULL, F_SETPIPE_SZ, 32768), ==, 32768);
  g_assert_cmpint(ops->fcntl(end[0], NULL, F_SETPIPE_SZ, 100000), ==, 131072);
  g_assert_cmpint(ops->fcntl(end[0], NULL, F_SETPIPE_SZ, 2 << 20), ==, -EPERM);
  g_assert_cmpint(get(end[0], back, sizeof back), ==, 25000);
  g_assert_cmpmem(back, 5000, buf + 25000, 5000);
  g_assert_cmpmem(back + 5000, 20000, buf, 20000);
  tes_file_unref(end[0]);
  tes_file_unref(end[1]);
}

static gpointer slow_reader(gpointer data) {
  TesFile *f = data;
  guchar buf[1000];
  guint64 sum = 0;
  gssize r;
  while ((r = get(f, buf, sizeof buf)) > 0)
    for (gssize i = 0; i < r; i++)
      sum += buf[i];
  return GSIZE_TO_POINTER(sum);
}

/* Two threads, both of which block: a writer that wants more room than there is, readers that want data. */
static void test_pipe_block(void) {
  TesFile *end[2];
  new_pipe(0, end);
  gsize n = 3 << 20;
  g_autofree guchar *buf = g_malloc(n);
  guint64 sum = 0;
  for (gsize i = 0; i < n; i++)
    sum += buf[i] = (guchar)(i * 31 >> 3);
  GThread *a = g_thread_new("a", slow_reader, end[0]), *b = g_thread_new("b", slow_reader, end[0]);
  g_usleep(10000);
  g_assert_cmpint(put(end[1], buf, n), ==, (gssize)n);
  tes_file_unref(end[1]);
  guint64 got = GPOINTER_TO_SIZE(g_thread_join(a));
  got += GPOINTER_TO_SIZE(g_thread_join(b));
  g_assert_cmpuint(got, ==, sum);
  tes_file_unref(end[0]);
}

/* ---- eventfd ---- */

static void test_eventfd(void) {
  TesFile *f;
  guint64 v = 3;
  tes_eventfd_new(NULL, 2, FALSE, O_NONBLOCK, &f);
  g_assert_cmpint(put(f, &v, 8), ==, 8);
  g_assert_cmpint(get(f, &v, 4), ==, -EINVAL);
  g_assert_cmpint(get(f, &v, 8), ==, 8);
  g_assert_cmpuint(v, ==, 5);
  g_assert_cmpint(get(f, &v, 8), ==, -EAGAIN);
  v = G_MAXUINT64;
  g_assert_cmpint(put(f, &v, 8), ==, -EINVAL);
  v = G_MAXUINT64 - 1;
  g_assert_cmpint(put(f, &v, 8), ==, 8);
  g_assert_cmpuint(tes_file_poll(f) & (POLLIN | POLLOUT), ==, POLLIN);
  v = 1;
  g_assert_cmpint(put(f, &v, 8), ==, -EAGAIN);
  tes_file_unref(f);
  tes_eventfd_new(NULL, 2, TRUE, O_NONBLOCK, &f);
  g_assert_cmpint(get(f, &v, 8), ==, 8);
  g_assert_cmpuint(v, ==, 1);
  g_assert_cmpint(get(f, &v, 8), ==, 8);
  g_assert_cmpint(get(f, &v, 8), ==, -EAGAIN);
  tes_file_unref(f);
}

/* ---- Descriptor tables ---- */

static gint released;
static void count_release(TesFile *f) {
  released++;
  g_free(f);
}
static const TesFileOps dummy_ops = {.size = sizeof(TesFileOps), .name = "dummy", .release = count_release};

static TesFile *dummy(void) {
  TesFile *f = g_new0(TesFile, 1);
  tes_file_init(f, NULL, &dummy_ops, O_RDWR);
  return f;
}

static TesTask *fake_task(guint64 nofile) {
  TesTask *t = g_new0(TesTask, 1);
  t->ctx = bare;
  t->tg = g_new0(TesThreadGroup, 1);
  t->tg->limits = tes_limits_new(NULL);
  t->tg->limits->v[RLIMIT_NOFILE].rlim_cur = nofile;
  t->fdtable = tes_fdtable_new();
  return t;
}

static void free_task(TesTask *t) {
  tes_fdtable_unref(t->fdtable, &t->ctx);
  tes_limits_unref(t->tg->limits);
  g_free(t->tg);
  g_free(t);
}

static void test_table_numbers(void) {
  TesTask *t = fake_task(200);
  TesFile *f = dummy();
  released = 0;
  for (int i = 0; i < 200; i++)
    g_assert_cmpint(tes_fd_install(t, f, 0, FALSE), ==, i);
  g_assert_cmpint(tes_fd_install(t, f, 0, FALSE), ==, -EMFILE);
  tes_fd_close(t, 130);
  tes_fd_close(t, 7);
  g_assert_cmpint(tes_fd_install(t, f, 8, TRUE), ==, 130);
  g_assert_cmpint(tes_fd_get_cloexec(t, 130), ==, 1);
  g_assert_cmpint(tes_fd_install(t, f, 0, FALSE), ==, 7);
  g_assert_cmpint(tes_fd_close(t, 1000), ==, -EBADF);
  g_assert_null(tes_fd_get(t, -1));
  g_assert_null(tes_fd_get(t, G_MAXINT));
  g_assert_cmpint(tes_fd_replace(t, f, 200, FALSE), ==, -EBADF);
  tes_fd_close_range(t, 3, G_MAXUINT, FALSE);
  g_assert_cmpint(tes_fd_install(t, f, 0, FALSE), ==, 3);
  int nr = tes_fd_reserve(t, FALSE);
  g_assert_cmpint(nr, ==, 4);
  g_assert_null(tes_fd_get(t, 4));
  g_assert_cmpint(tes_fd_close(t, 4), ==, -EBADF);
  g_assert_cmpint(tes_fd_replace(t, f, 4, FALSE), ==, -EBUSY);
  g_assert_cmpint(tes_fd_install(t, f, 0, FALSE), ==, 5);
  tes_fd_fill(t, nr, NULL);
  g_assert_cmpint(tes_fd_install(t, f, 0, FALSE), ==, 4);
  tes_file_unref(f);
  g_assert_cmpint(released, ==, 0);
  free_task(t);
  g_assert_cmpint(released, ==, 1);
}

static void count_fd(int fd, TesFile *f, gboolean cloexec, gpointer data) { ++*(int *)data; }

/* One descriptor at 500,000: copying the table a thousand times stays quick, and exec closes what is marked. */
static void test_table_sparse(void) {
  TesTask *t = fake_task(600000);
  TesFile *f = dummy();
  g_assert_cmpint(tes_fd_replace(t, f, 500000, TRUE), ==, 500000);
  g_assert_cmpint(tes_fd_install(t, f, 0, FALSE), ==, 0);
  gint64 start = g_get_monotonic_time();
  for (int i = 0; i < 1000; i++)
    tes_fdtable_unref(tes_fdtable_fork(t->fdtable), &bare);
  g_assert_cmpint(g_get_monotonic_time() - start, <, 2 * G_USEC_PER_SEC);
  TesFdTable *child = tes_fdtable_fork(t->fdtable);
  int n = 0;
  tes_fdtable_foreach(child, count_fd, &n);
  g_assert_cmpint(n, ==, 2);
  child = tes_fdtable_exec(child, &bare);
  n = 0;
  tes_fdtable_foreach(child, count_fd, &n);
  g_assert_cmpint(n, ==, 1);
  tes_fdtable_unref(child, &bare);
  tes_fd_close_range(t, 1, G_MAXUINT, TRUE);
  g_assert_cmpint(tes_fd_get_cloexec(t, 0), ==, 0);
  tes_fd_close_range(t, 0, 0, TRUE);
  g_assert_cmpint(tes_fd_get_cloexec(t, 0), ==, 1);
  tes_file_unref(f);
  free_task(t);
}

static void watch_fn(TesFile *f, gpointer data) { ++*(int *)data; }

static void test_watches(void) {
  TesFile *f = dummy();
  int a = 0, b = 0;
  TesFileWatch wa = {watch_fn, &a}, wb = {watch_fn, &b};
  tes_file_add_watch(f, &wa);
  tes_file_add_watch(f, &wb);
  tes_file_remove_watch(f, &wb);
  tes_file_unref(f);
  g_assert_cmpint(a, ==, 1);
  g_assert_cmpint(b, ==, 0);
}

/* ---- flock ---- */

static void test_flock(void) {
  static const TesInodeOps inode_ops = {.size = sizeof(TesInodeOps)};
  TesInode inode = {.ops = &inode_ops, .refs = 100, .mode = S_IFREG};
  TesTask *t = fake_task(10);
  TesFile *a = dummy(), *b = dummy();
  a->inode = b->inode = &inode;
  g_assert_cmpint(tes_lock_flock(t, a, LOCK_SH), ==, 0);
  g_assert_cmpint(tes_lock_flock(t, b, LOCK_SH | LOCK_NB), ==, 0);
  g_assert_cmpint(tes_lock_flock(t, b, LOCK_EX | LOCK_NB), ==, -EWOULDBLOCK);
  g_assert_cmpint(tes_lock_flock(t, a, LOCK_EX | LOCK_NB), ==,
                  0); /* b lost its lock when it asked for more */
  g_assert_cmpint(tes_lock_flock(t, b, LOCK_SH | LOCK_NB), ==, -EWOULDBLOCK);
  g_assert_cmpint(tes_lock_flock(t, a, LOCK_UN), ==, 0);
  g_assert_cmpint(tes_lock_flock(t, b, LOCK_EX | LOCK_NB), ==, 0);
  g_assert_cmpint(tes_lock_flock(t, a, 77), ==, -EINVAL);
  tes_lock_release(b);
  g_assert_null(inode.locks);
  a->inode = b->inode = NULL;
  tes_file_unref(a);
  tes_file_unref(b);
  free_task(t);
}

/* ---- Host files ---- */

static void test_host_pipe(void) {
  int fd[2];
  char buf[100];
  g_assert_cmpint(pipe(fd), ==, 0);
  TesFile *r = tes_host_file_new(NULL, fd[0], O_NONBLOCK, NULL), *w = tes_host_file_new(NULL, fd[1], 0, NULL);
  g_assert_nonnull(r);
  g_assert_nonnull(w);
  g_assert_cmpint(get(r, buf, 10), ==, -EAGAIN);
  g_assert_false(tes_file_poll(r) & POLLIN);
  g_assert_cmpint(put(w, "hello", 5), ==, 5);
  g_assert_true(tes_file_poll(r) & POLLIN);
  g_assert_cmpint(get(r, buf, 100), ==, 5);
  tes_file_unref(w);
  g_assert_cmpint(get(r, buf, 100), ==, 0);
  tes_file_unref(r);
}

/* The position is the host's: what somebody else writes through the same description is not overwritten. */
static void test_host_regular(void) {
  g_autofree char *name = NULL;
  int fd = g_file_open_tmp(NULL, &name, NULL), other = dup(fd);
  char buf[20];
  TesFile *f = tes_host_file_new(NULL, fd, 0, NULL);
  g_assert_cmpint(put(f, "one ", 4), ==, 4);
  g_assert_cmpint(write(other, "two ", 4), ==, 4);
  g_assert_cmpint(put(f, "three", 5), ==, 5);
  g_assert_cmpint(tes_file_seek(f, &bare, 4, SEEK_SET), ==, 4);
  g_assert_cmpint(get(f, buf, 20), ==, 9);
  g_assert_cmpmem(buf, 9, "two three", 9);
  g_assert_cmpint(tes_file_read_kernel(f, &bare, buf, 3, 0), ==, 3);
  g_assert_cmpmem(buf, 3, "one", 3);
  g_assert_cmpint(lseek(other, 0, SEEK_CUR), ==, 13);
  tes_file_unref(f);
  close(other);
  unlink(name);
}

static void test_sockopts(void) {
  TesSockOpts o;
  int v = 5000, out;
  socklen_t len = sizeof out;
  tes_sockopts_init(&o, AF_UNIX, SOCK_STREAM, 0);
  g_assert_cmpint(tes_sockopts_set(&o, &bare, SO_SNDBUF, &v, sizeof v), ==, 0);
  g_assert_cmpint(tes_sockopts_get(&o, SO_SNDBUF, &out, &len), ==, 0);
  g_assert_cmpint(out, ==, 10000);
  v = G_MAXINT;
  tes_sockopts_set(&o, &bare, SO_RCVBUF, &v, sizeof v);
  g_assert_cmpint(o.rcvbuf, ==, 425984);
  g_assert_cmpint(tes_sockopts_set(&o, &bare, SO_TYPE, &v, sizeof v), ==, -ENOPROTOOPT);
  g_assert_cmpint(tes_sockopts_set(&o, &bare, SO_PASSCRED, &v, 3), ==, -EINVAL);
  struct timeval tv = {1, 1000000};
  g_assert_cmpint(tes_sockopts_set(&o, &bare, SO_RCVTIMEO, &tv, sizeof tv), ==, -EDOM);
  tv.tv_usec = 500000;
  g_assert_cmpint(tes_sockopts_set(&o, &bare, SO_RCVTIMEO, &tv, sizeof tv), ==, 0);
  g_assert_cmpint(o.rcvtimeo, ==, 1500000000);
  len = 2;
  g_assert_cmpint(tes_sockopts_get(&o, SO_TYPE, &out, &len), ==, 0);
  g_assert_cmpuint(len, ==, 2);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/file/pipe/bytes", test_pipe_bytes);
  g_test_add_func("/file/pipe/atomic", test_pipe_atomic);
  g_test_add_func("/file/pipe/packets", test_pipe_packets);
  g_test_add_func("/file/pipe/resize", test_pipe_resize);
  g_test_add_func("/file/pipe/block", test_pipe_block);
  g_test_add_func("/file/eventfd", test_eventfd);
  g_test_add_func("/file/table/numbers", test_table_numbers);
  g_test_add_func("/file/table/sparse", test_table_sparse);
  g_test_add_func("/file/watches", test_watches);
  g_test_add_func("/file/flock", test_flock);
  g_test_add_func("/file/host/pipe", test_host_pipe);
  g_test_add_func("/file/host/regular", test_host_regular);
  g_test_add_func("/file/sockopts", test_sockopts);
  return g_test_run();
}
