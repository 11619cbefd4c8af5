/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: making, naming, connecting and configuring them. Families come from the registry; without one a family does not exist
 * (EAFNOSUPPORT). Sending and receiving are in sockmsg.c. */
#include <core/syscalls/socket.h>

#define TYPE_MASK 0xf
#define TYPE_MAX 11 /* SOCK_PACKET + 1 */
#define FAMILY_MAX 46
#define SOMAXCONN_LIMIT 4096
#define OPT_MAX (64 * 1024)

TesFile *tes_sock_get(TesTask *t, gulong fd, int *error) {
  TesFile *f = tes_fd_get_io(t, (int)fd);
  *error = -EBADF;
  if (f && !(TES_HAS(f->ops, sock))) {
    tes_file_unref(f);
    f = NULL;
    *error = -ENOTSOCK;
  }
  return f;
}

TesFdLoan tes_sock_borrow(TesTask *t, gulong fd, int *error) {
  TesFdLoan l = tes_fd_borrow_io(t, (int)fd);
  *error = -EBADF;
  if (l.file && !TES_HAS(l.file->ops, sock)) {
    tes_fd_return(&l);
    l = (TesFdLoan){NULL, FALSE};
    *error = -ENOTSOCK;
  }
  return l;
}

int tes_sock_addr_in(TesTask *t, gulong addr, glong len, struct sockaddr_storage *out, socklen_t *out_len) {
  if (len < 0 || len > (glong)sizeof *out)
    return -EINVAL;
  memset(out, 0, sizeof *out);
  *out_len = (socklen_t)len;
  return len ? tes_copy_in(t, out, addr, (gsize)len) : 0;
}

int tes_sock_addr_out(TesTask *t, gulong addr, gulong ulen, const struct sockaddr_storage *name,
                      socklen_t len) {
  int room;
  if (tes_copy_in(t, &room, ulen, sizeof room) < 0)
    return -EFAULT;
  if (room < 0)
    return -EINVAL;
  gsize n = MIN((gsize)room, len);
  if (n && tes_copy_out(t, addr, name, n) < 0)
    return -EFAULT;
  int full = (int)len;
  return tes_copy_out(t, ulen, &full, sizeof full);
}

/* ---- Making ---- */

typedef struct {
  int family;
  const TesSocketFamilyOps *ops;
} FamilyFind;

static void match_family(const TesPlugin *p, const char *origin, const TesFeature *feature, gpointer data) {
  FamilyFind *find = data;
  const TesSocketFamilyOps *ops = feature->ops;
  if (ops->family == find->family)
    find->ops = ops;
}

static int find_family(TesTask *t, gulong family, gulong type, const TesSocketFamilyOps **out) {
  FamilyFind find = {.family = (int)family};
  if ((int)family < 0 || (int)family >= FAMILY_MAX)
    return -EAFNOSUPPORT;
  if ((type & ~(gulong)(TYPE_MASK | SOCK_CLOEXEC | SOCK_NONBLOCK)) || (type & TYPE_MASK) >= TYPE_MAX)
    return -EINVAL;
  tes_registry_foreach(tes_kernel_registry(tes_task_kernel(t)), "socket-family", match_family, &find);
  *out = find.ops;
  return find.ops ? 0 : -EAFNOSUPPORT;
}

static glong sys_socket(TesTask *t, const gulong a[6]) {
  const TesSocketFamilyOps *family;
  guint type = (guint)a[1];
  int r = find_family(t, a[0], type, &family);
  if (r < 0)
    return r;
  TesFile *f;
  r = family->create(tes_task_ctx(t), type & TYPE_MASK, (int)a[2], type & SOCK_NONBLOCK, &f);
  if (r < 0)
    return r;
  r = tes_fd_install(t, f, 0, (type & SOCK_CLOEXEC) != 0);
  tes_file_unref(f);
  return r;
}

static glong sys_socketpair(TesTask *t, const gulong a[6]) {
  const TesSocketFamilyOps *family;
  guint type = (guint)a[1];
  int r = find_family(t, a[0], type, &family);
  if (r < 0)
    return r;
  if (!TES_HAS(family, pair))
    return -EOPNOTSUPP;
  TesFile *f[2];
  int fd[2] = {-1, -1};
  r = family->pair(tes_task_ctx(t), type & TYPE_MASK, (int)a[2], type & SOCK_NONBLOCK, f);
  if (r < 0)
    return r;
  for (int i = 0; i < 2 && r >= 0; i++)
    r = fd[i] = tes_fd_install(t, f[i], 0, (type & SOCK_CLOEXEC) != 0);
  tes_file_unref(f[0]);
  tes_file_unref(f[1]);
  if (r >= 0)
    r = tes_copy_out(t, a[3], fd, sizeof fd);
  for (int i = 0; i < 2 && r < 0; i++)
    if (fd[i] >= 0)
      tes_fd_close(t, fd[i]);
  return r;
}

/* ---- Naming and connecting ---- */

static glong sys_bind(TesTask *t, const gulong a[6]) {
  struct sockaddr_storage name;
  socklen_t len;
  int r;
  g_autoptr(TesFile) f = tes_sock_get(t, a[0], &r);
  if (!f)
    return r;
  r = tes_sock_addr_in(t, a[1], (int)a[2], &name, &len);
  if (r < 0)
    return r;
  return TES_HAS(tes_sock_ops(f), bind)
             ? tes_sock_ops(f)->bind(f, tes_task_ctx(t), (struct sockaddr *)&name, len)
             : -EOPNOTSUPP;
}

static int connect_wait(TesTask *t, TesFile *f, const struct sockaddr *name, socklen_t len) {
  TesCtx *ctx = tes_task_ctx(t);
  int r = tes_sock_ops(f)->connect(f, ctx, name, len);
  if ((r != -EINPROGRESS && r != -EAGAIN) || tes_file_nonblock(f))
    return r;
  TesTime deadline = tes_file_deadline(f, TRUE);
  TesFileWait fw;
  tes_file_wait_begin(&fw, f, t, POLLOUT | POLLWRNORM);
  while ((r = tes_sock_ops(f)->connect(f, ctx, name, len)) == -EINPROGRESS || r == -EAGAIN ||
         r == -EALREADY) {
    int w = tes_file_wait_block(&fw, deadline);
    if (w == 0)
      continue;
    r = w == -ETIMEDOUT ? (r == -EALREADY ? -EINPROGRESS : r) : tes_file_interrupted(deadline);
    break;
  }
  tes_file_wait_end(&fw);
  return r;
}

static glong sys_connect(TesTask *t, const gulong a[6]) {
  struct sockaddr_storage name;
  socklen_t len;
  int r;
  g_autoptr(TesFile) f = tes_sock_get(t, a[0], &r);
  if (!f)
    return r;
  r = tes_sock_addr_in(t, a[1], (int)a[2], &name, &len);
  if (r < 0)
    return r;
  return TES_HAS(tes_sock_ops(f), connect) ? connect_wait(t, f, (struct sockaddr *)&name, len) : -EOPNOTSUPP;
}

static glong sys_listen(TesTask *t, const gulong a[6]) {
  int r, backlog = (int)a[1];
  g_autoptr(TesFile) f = tes_sock_get(t, a[0], &r);
  if (!f)
    return r;
  if (!TES_HAS(tes_sock_ops(f), listen))
    return -EOPNOTSUPP;
  return tes_sock_ops(f)->listen(f, tes_task_ctx(t),
                                 (guint)backlog > SOMAXCONN_LIMIT ? SOMAXCONN_LIMIT : backlog);
}

static int accept_wait(TesTask *t, TesFile *f, guint flags, TesFile **out) {
  TesCtx *ctx = tes_task_ctx(t);
  int r = tes_sock_ops(f)->accept(f, ctx, flags, out);
  if (r != -EAGAIN || tes_file_nonblock(f))
    return r;
  TesTime deadline = tes_file_deadline(f, FALSE);
  TesFileWait fw;
  tes_file_wait_begin(&fw, f, t, POLLIN | POLLRDNORM);
  while ((r = tes_sock_ops(f)->accept(f, ctx, flags, out)) == -EAGAIN) {
    int w = tes_file_wait_block(&fw, deadline);
    if (w == 0)
      continue;
    r = w == -ETIMEDOUT ? -EAGAIN : tes_file_interrupted(deadline);
    break;
  }
  tes_file_wait_end(&fw);
  return r;
}

static glong do_accept(TesTask *t, gulong fd, gulong addr, gulong ulen, gulong flags) {
  int r;
  if (flags & ~(gulong)(SOCK_CLOEXEC | SOCK_NONBLOCK))
    return -EINVAL;
  g_autoptr(TesFile) f = tes_sock_get(t, fd, &r);
  if (!f)
    return r;
  if (!TES_HAS(tes_sock_ops(f), accept))
    return -EOPNOTSUPP;
  /* The number is taken before a connection is, so that EMFILE loses none. */
  int nr = tes_fd_reserve(t, (flags & SOCK_CLOEXEC) != 0);
  if (nr < 0)
    return nr;
  TesFile *conn = NULL;
  r = accept_wait(t, f, flags & SOCK_NONBLOCK, &conn);
  if (r == 0 && addr) {
    struct sockaddr_storage name;
    socklen_t len = 0;
    memset(&name, 0, sizeof name);
    if (!TES_HAS(tes_sock_ops(conn), getname) ||
        tes_sock_ops(conn)->getname(conn, tes_task_ctx(t), TRUE, &name, &len) < 0)
      r = -ECONNABORTED;
    else
      r = tes_sock_addr_out(t, addr, ulen, &name, len);
  }
  tes_fd_fill(t, nr, r == 0 ? conn : NULL);
  if (conn)
    tes_file_unref(conn);
  return r == 0 ? nr : r;
}

static glong sys_accept(TesTask *t, const gulong a[6]) { return do_accept(t, a[0], a[1], a[2], 0); }
static glong sys_accept4(TesTask *t, const gulong a[6]) {
  return do_accept(t, a[0], a[1], a[2], (guint)a[3]);
}

static glong get_name(TesTask *t, const gulong a[6], gboolean peer) {
  struct sockaddr_storage name;
  socklen_t len = 0;
  int r;
  g_autoptr(TesFile) f = tes_sock_get(t, a[0], &r);
  if (!f)
    return r;
  memset(&name, 0, sizeof name);
  if (!TES_HAS(tes_sock_ops(f), getname))
    return -EOPNOTSUPP;
  r = tes_sock_ops(f)->getname(f, tes_task_ctx(t), peer, &name, &len);
  return r < 0 ? r : tes_sock_addr_out(t, a[1], a[2], &name, len);
}

static glong sys_getsockname(TesTask *t, const gulong a[6]) { return get_name(t, a, FALSE); }
static glong sys_getpeername(TesTask *t, const gulong a[6]) { return get_name(t, a, TRUE); }

static glong sys_shutdown(TesTask *t, const gulong a[6]) {
  int r;
  g_autoptr(TesFile) f = tes_sock_get(t, a[0], &r);
  if (!f)
    return r;
  if ((int)a[1] < SHUT_RD || (int)a[1] > SHUT_RDWR)
    return -EINVAL;
  return TES_HAS(tes_sock_ops(f), shutdown) ? tes_sock_ops(f)->shutdown(f, tes_task_ctx(t), (int)a[1])
                                            : -EOPNOTSUPP;
}

/* ---- Options ---- */

static glong sys_setsockopt(TesTask *t, const gulong a[6]) {
  int r, len = (int)a[4];
  g_autoptr(TesFile) f = tes_sock_get(t, a[0], &r);
  if (!f)
    return r;
  if (len < 0 || len > OPT_MAX)
    return -EINVAL;
  if (!TES_HAS(tes_sock_ops(f), setsockopt))
    return -ENOPROTOOPT;
  g_autofree guchar *value = g_malloc0(MAX((gsize)len, 1));
  if (len && tes_copy_in(t, value, a[3], (gsize)len) < 0)
    return -EFAULT;
  return tes_sock_ops(f)->setsockopt(f, tes_task_ctx(t), (int)a[1], (int)a[2], value, (socklen_t)len);
}

static glong sys_getsockopt(TesTask *t, const gulong a[6]) {
  int r, room;
  g_autoptr(TesFile) f = tes_sock_get(t, a[0], &r);
  if (!f)
    return r;
  if (tes_copy_in(t, &room, a[4], sizeof room) < 0)
    return -EFAULT;
  if (room < 0)
    return -EINVAL;
  if (!TES_HAS(tes_sock_ops(f), getsockopt))
    return -ENOPROTOOPT;
  socklen_t len = (socklen_t)MIN(room, OPT_MAX);
  g_autofree guchar *value = g_malloc0(MAX(len, 1));
  r = tes_sock_ops(f)->getsockopt(f, tes_task_ctx(t), (int)a[1], (int)a[2], value, &len);
  if (r < 0)
    return r;
  int out = (int)len;
  if ((len && tes_copy_out(t, a[3], value, MIN(len, (socklen_t)room)) < 0) ||
      tes_copy_out(t, a[4], &out, sizeof out) < 0)
    return -EFAULT;
  return 0;
}

static const TesSyscall rows[] = {
    {41, "socket", sys_socket, TES_PARTIAL, "the families that plugins offer", "dxd"},
    {42, "connect", sys_connect, TES_FULL, NULL, "fpu"},
    {43, "accept", sys_accept, TES_FULL, NULL, "fpp"},
    {44, "sendto", tes_sys_do_sendto, TES_FULL, NULL, "fpuxpu"},
    {45, "recvfrom", tes_sys_do_recvfrom, TES_FULL, NULL, "fpuxpp"},
    {46, "sendmsg", tes_sys_do_sendmsg, TES_FULL, NULL, "fpx"},
    {47, "recvmsg", tes_sys_do_recvmsg, TES_FULL, NULL, "fpx"},
    {48, "shutdown", sys_shutdown, TES_FULL, NULL, "fd"},
    {49, "bind", sys_bind, TES_FULL, NULL, "fpu"},
    {50, "listen", sys_listen, TES_FULL, NULL, "fd"},
    {51, "getsockname", sys_getsockname, TES_FULL, NULL, "fpp"},
    {52, "getpeername", sys_getpeername, TES_FULL, NULL, "fpp"},
    {53, "socketpair", sys_socketpair, TES_FULL, NULL, "dxdp"},
    {54, "setsockopt", sys_setsockopt, TES_PARTIAL, "the options of each family; no filters", "fddpu"},
    {55, "getsockopt", sys_getsockopt, TES_PARTIAL, "the options of each family; no filters", "fddpp"},
    {288, "accept4", sys_accept4, TES_FULL, NULL, "fppx"},
    {299, "recvmmsg", tes_sys_do_recvmmsg, TES_FULL, NULL, "fpuxT"},
    {307, "sendmmsg", tes_sys_do_sendmmsg, TES_FULL, NULL, "fpux"},
};

const TesSyscallTable tes_sys_socket = TES_ROWS(rows);
