/* SPDX-License-Identifier: Apache-2.0 */
/* inotify(7): the description that events are read from, and the system calls. */
#include "private.h"
#include <string.h>
#include <sys/ioctl.h>

#define KNOWN_BITS                                                                                          \
  (IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | \
   IN_MASK_ADD | IN_MASK_CREATE | IN_ISDIR | IN_ONESHOT)

static const TesLockClass update_class = {"inotify update", TES_RANK_FILE, FALSE,
                                          "which inodes an instance watches: one change at a time"};
static const TesLockClass queue_class = {"inotify", TES_RANK_QUEUE - 1, FALSE,
                                         "events and watches of an instance"};

static Inotify *inotify(TesFile *f) { return (Inotify *)f; }

static int copy_event(TesIov *iov, const Event *e) {
  struct inotify_event head = {.wd = e->wd, .mask = e->mask, .cookie = e->cookie, .len = e->len};
  if (tes_iov_write_to(iov, &head, sizeof head) < (gssize)sizeof head)
    return -EFAULT;
  return e->len && tes_iov_write_to(iov, e->name, e->len) < (gssize)e->len ? -EFAULT : 0;
}

/* Whole events only. What was taken out and could not be copied is lost, as on Linux. */
static gssize inotify_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  (void)ctx, (void)pos, (void)flags;
  int r;
  gssize done = 0;
  Event *events = inotify_take(inotify(f), iov->left, &r);
  for (const Event *e = events; e && r >= 0; e = e->next) {
    r = copy_event(iov, e);
    if (r >= 0)
      done += (gssize)inotify_event_size(e);
  }
  inotify_events_free(events);
  return done ? done : r;
}

static guint inotify_poll(TesFile *f) {
  TES_LOCKED(&inotify(f)->lock);
  return inotify(f)->head ? POLLIN | POLLRDNORM : 0;
}

static glong inotify_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  if (cmd != FIONREAD)
    return -ENOTTY;
  Inotify *s = inotify(f);
  tes_mutex_lock(&s->lock);
  gint n = (gint)MIN(s->bytes, G_MAXINT32);
  tes_mutex_unlock(&s->lock);
  return tes_copy_out(t, arg, &n, sizeof n);
}

static char *inotify_describe(TesFile *f) {
  (void)f;
  return g_strdup("anon_inode:inotify");
}

static char *inotify_fdinfo(TesFile *f) { return inotify_watches_show(inotify(f)); }

static void inotify_release(TesFile *f) {
  Inotify *s = inotify(f);
  inotify_watches_clear(s);
  inotify_events_free(s->head);
  inotify_unaccount_instance(f->kernel, s->uid);
  tes_mutex_clear(&s->lock);
  tes_mutex_clear(&s->update);
  g_free(s);
}

static const TesFileOps inotify_ops = {
    .size = sizeof(TesFileOps),
    .name = "inotify",
    .read = inotify_read,
    .poll = inotify_poll,
    .ioctl = inotify_ioctl,
    .describe = inotify_describe,
    .fdinfo = inotify_fdinfo,
    .release = inotify_release,
};

/* ---- System calls ---- */

static glong init1(TesTask *t, int flags) {
  TesKernel *k = tes_task_kernel(t);
  guint32 uid = tes_task_cred(t)->uid;
  if (flags & ~(IN_CLOEXEC | IN_NONBLOCK))
    return -EINVAL;
  if (!inotify_account_instance(k, uid))
    return -EMFILE;
  Inotify *s = g_new0(Inotify, 1);
  tes_mutex_init(&s->update, &update_class);
  tes_mutex_init(&s->lock, &queue_class);
  s->tail = &s->head;
  s->uid = uid;
  s->max_events = inotify_max_queued(k);
  inotify_watches_init(s);
  tes_file_init(&s->file, k, &inotify_ops, O_RDONLY | (flags & IN_NONBLOCK ? O_NONBLOCK : 0));
  int fd = tes_fd_install(t, &s->file, 0, (flags & IN_CLOEXEC) != 0);
  tes_file_unref(&s->file);
  return fd;
}

static glong sys_inotify_init(TesTask *t, const gulong a[6]) {
  (void)a;
  return init1(t, 0);
}
static glong sys_inotify_init1(TesTask *t, const gulong a[6]) { return init1(t, (int)a[0]); }

static int find_inode(TesTask *t, gulong upath, guint32 mask, TesPath **out) {
  char name[TES_PATH_MAX];
  gssize n = tes_copy_in_str(t, name, upath, sizeof name);
  if (n < 0)
    return (int)n;
  if (!name[0])
    return -ENOENT;
  TesAt at = {.path = name,
              .flags =
                  (mask & IN_DONT_FOLLOW ? TES_AT_NOFOLLOW : 0) | (mask & IN_ONLYDIR ? TES_AT_DIRECTORY : 0)};
  int r = tes_vfs_walk(tes_task_ctx(t), &at, out);
  return r < 0 ? r : tes_inode_permission((*out)->inode, tes_task_ctx(t), R_OK);
}

static glong sys_inotify_add_watch(TesTask *t, const gulong a[6]) {
  guint32 mask = (guint32)a[2];
  if (!mask || (mask & ~(guint32)KNOWN_BITS))
    return -EINVAL;
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  if (!f)
    return -EBADF;
  if (f->ops != &inotify_ops || (mask & (IN_MASK_ADD | IN_MASK_CREATE)) == (IN_MASK_ADD | IN_MASK_CREATE))
    return -EINVAL;
  g_autoptr(TesPath) path = NULL;
  int r = find_inode(t, a[1], mask, &path);
  return r < 0 ? r : inotify_add(inotify(f), path->inode, mask);
}

static glong sys_inotify_rm_watch(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  if (!f)
    return -EBADF;
  return f->ops == &inotify_ops ? inotify_remove(inotify(f), (gint)a[1]) : -EINVAL;
}

#define NOTE "changes made from outside the sandbox to files of the host are not seen"

static const TesSyscall rows[] = {
    {253, "inotify_init", sys_inotify_init, TES_FULL, NULL, ""},
    {254, "inotify_add_watch", sys_inotify_add_watch, TES_PARTIAL, NOTE, "fsx"},
    {255, "inotify_rm_watch", sys_inotify_rm_watch, TES_FULL, NULL, "fd"},
    {294, "inotify_init1", sys_inotify_init1, TES_FULL, NULL, "x"},
};
static const TesSyscallTable table = {.size = sizeof(TesSyscallTable), .rows = rows, .n = G_N_ELEMENTS(rows)};

/* Watches and unread events of a saved sandbox. Served by the save/restore issue. */
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "inotify", .version = 1};

static const TesFeature features[] = {{"syscalls", "inotify", &table},
                                      {"sysctl", "fs/inotify", &inotify_sysctl},
                                      {"state", "inotify", &state},
                                      {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(inotify, .name = "inotify", .summary = "Events of files and directories: inotify(7)",
                  .licence = "Apache-2.0", .features = features, .init = inotify_accounts_init);
