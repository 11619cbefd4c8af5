/* SPDX-License-Identifier: Apache-2.0 */
/* Host limits of the kernel process. Guests have limits of their own; the ones that tessera was started with bound the kernel itself, so it
 * takes as much as it may have, and says in one line which of them is too small to run at all. */
#include <runtime/runtime.h>
#include <signal.h>
#include <sys/resource.h>

#define FILES_MIN 256 /* the kernel, its platform, and a program that opens a few */

/* To `want` if the host permits it (CAP_SYS_RESOURCE), else to the hard limit. What the soft limit is then. */
static guint64 raise_limit(int resource, rlim_t want) {
  struct rlimit r;
  if (getrlimit(resource, &r) < 0)
    return want;
  if (r.rlim_max < want) {
    struct rlimit all = {want, want};
    if (setrlimit(resource, &all) == 0)
      return want;
  }
  r.rlim_cur = r.rlim_max;
  setrlimit(resource, &r);
  return r.rlim_cur;
}

gboolean prepare_limits(GError **error) {
  /* Guests' files are charged to guests' limits; a host limit that is met shall be EFBIG. */
  signal(SIGXFSZ, SIG_IGN);
  guint64 bytes = raise_limit(RLIMIT_FSIZE, RLIM_INFINITY);
  if (bytes != RLIM_INFINITY) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG,
                "the host's file size limit (ulimit -f) of %" G_GUINT64_FORMAT
                " bytes is too small: guest memory is one large file; set it to unlimited",
                bytes);
    return FALSE;
  }
  guint64 files = raise_limit(RLIMIT_NOFILE, FILES_MIN);
  if (files < FILES_MIN) {
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG,
                "the host's limit of open files (ulimit -n) of %" G_GUINT64_FORMAT
                " is too small: tessera needs at least %d",
                files, FILES_MIN);
    return FALSE;
  }
  return TRUE;
}
