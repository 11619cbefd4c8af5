/* SPDX-License-Identifier: Apache-2.0 */
/* Standard streams of the sandbox's first process: the caller's descriptors, or, on a terminal, a terminal of the
 * sandbox's own that is relayed to the caller's. */
#include <runtime/runtime.h>
#include <unistd.h>

struct _Stdio {
  const TesTtyFeatureOps *ops; /* NULL: no terminal is wrapped */
  gpointer handle;
  TesTty *tty;
};

static gboolean install_host(TesKernel *k, TesFdTable *fds, int fd, GError **error) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0)
    return TRUE; /* closed in the caller: closed in the sandbox */
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  TesFile *f = copy < 0 ? NULL : tes_host_file_new(k, copy, flags & (O_ACCMODE | O_APPEND), error);
  if (!f) {
    if (copy < 0)
      g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "descriptor %d: %s", fd, g_strerror(errno));
    return FALSE;
  }
  tes_fdtable_install_at(fds, f, fd, FALSE);
  tes_file_unref(f);
  return TRUE;
}

static gboolean wrap_terminal(Stdio *s, TesKernel *k, TesFdTable *fds, GError **error) {
  TesFile *slave;
  int r = s->ops->wrap_host(k, STDIN_FILENO, STDOUT_FILENO, &slave, &s->handle, error);
  if (r < 0)
    return FALSE;
  for (int fd = 0; fd < 3; fd++)
    if (isatty(fd))
      tes_fdtable_install_at(fds, slave, fd, FALSE);
  s->tty = TES_HAS(slave->ops, tty) ? slave->ops->tty(slave) : NULL;
  tes_file_unref(slave);
  return TRUE;
}

Stdio *stdio_new(TesKernel *k, TesFdTable *fds, GError **error) {
  Stdio *s = g_new0(Stdio, 1);
  gboolean ok = TRUE;
  if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
    s->ops = tes_registry_find(tes_kernel_registry(k), "tty", "pty");
  if (s->ops)
    ok = wrap_terminal(s, k, fds, error);
  for (int fd = 0; fd < 3 && ok; fd++)
    if (!s->ops || !isatty(fd))
      ok = install_host(k, fds, fd, error);
  if (!ok)
    g_clear_pointer(&s, stdio_free);
  return s;
}

TesTty *stdio_tty(Stdio *s) { return s->tty; }

void stdio_resized(Stdio *s) {
  if (s && s->handle)
    s->ops->resized(s->handle);
}

void stdio_free(Stdio *s) {
  if (s->handle)
    s->ops->stop(s->handle);
  g_free(s);
}
