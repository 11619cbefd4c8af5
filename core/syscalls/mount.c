/* SPDX-License-Identifier: Apache-2.0 */
/* mount(2), umount2(2), pivot_root(2). Interface: tes_sys_mount. */
#include <core/syscalls/pathutil.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

/* mount(2) reads at most one page of options; what lies behind the first unreadable byte counts as zeros. */
static char *copy_options(TesTask *t, gulong udata) {
  if (!udata)
    return NULL;
  char *opts = g_malloc0(TES_PAGE_SIZE + 1);
  gsize n = tes_mm_copy_in(t->mm, opts, udata, TES_PAGE_SIZE);
  opts[MIN(n, TES_PAGE_SIZE - 1)] = '\0';
  return opts;
}

/* A string argument that may be a null pointer. */
static int copy_optional(TesTask *t, gulong addr, char **out) {
  char buf[TES_PATH_MAX];
  *out = NULL;
  if (!addr)
    return 0;
  gssize n = tes_copy_in_str(t, buf, addr, sizeof buf);
  if (n < 0)
    return n == -ENAMETOOLONG ? -EINVAL : (int)n;
  *out = g_strdup(buf);
  return 0;
}

static int bind_mount(TesTask *t, const TesAt *at, gulong usource, gulong flags) {
  TesVfs *v = t->kernel->vfs;
  TES_PATH_ARG(s);
  g_autoptr(TesPath) source = NULL;
  int r = tes_path_arg(t, &s, AT_FDCWD, usource, 0);
  if (r == 0)
    r = tes_vfs_walk(tes_task_ctx(t), &s.at, &source);
  if (r < 0)
    return r;
  return TES_HAS(v->ops, bind) ? v->ops->bind(v, tes_task_ctx(t), source, at, flags) : -EINVAL;
}

/* MS_MOVE: the mount at one place goes to another. */
static int do_move(TesTask *t, const TesAt *at, gulong usource) {
  TesVfs *v = t->kernel->vfs;
  TES_PATH_ARG(s);
  g_autoptr(TesPath) from = NULL;
  g_autoptr(TesPath) to = NULL;
  int r = tes_path_arg(t, &s, AT_FDCWD, usource, 0);
  if (r == 0)
    r = tes_vfs_walk(tes_task_ctx(t), &s.at, &from);
  if (r == 0)
    r = tes_vfs_walk(tes_task_ctx(t), at, &to);
  if (r < 0)
    return r;
  return TES_HAS(v->ops, move) ? v->ops->move(v, tes_task_ctx(t), from, to, TES_MOVE_MOUNT) : -EINVAL;
}

#define PROPAGATION (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE)

static int dispatch(TesTask *t, const TesAt *at, gulong usource, const char *type, gulong flags,
                    const char *opts) {
  TesVfs *v = t->kernel->vfs;
  TesCtx *ctx = tes_task_ctx(t);
  if (flags & MS_REMOUNT)
    return TES_HAS(v->ops, remount) ? v->ops->remount(v, ctx, at, flags, opts) : -EINVAL;
  if (flags & MS_BIND)
    return bind_mount(t, at, usource, flags);
  if (flags & PROPAGATION)
    return TES_HAS(v->ops, propagation) ? v->ops->propagation(v, ctx, at, flags) : -EINVAL;
  if (flags & MS_MOVE)
    return do_move(t, at, usource);
  if (!type)
    return -EINVAL;
  g_autofree char *source = NULL;
  int r = copy_optional(t, usource, &source);
  return r < 0 ? r : tes_fs_mount(ctx, at, type, source, opts, flags);
}

static glong sys_mount(TesTask *t, const gulong a[6]) {
  TES_PATH_ARG(target);
  g_autofree char *type = NULL;
  gulong flags = a[3];
  if ((flags & MS_MGC_MSK) == MS_MGC_VAL)
    flags &= ~(gulong)MS_MGC_MSK;
  int r = copy_optional(t, a[2], &type);
  if (r == 0)
    r = tes_path_arg(t, &target, AT_FDCWD, a[1], 0);
  if (r < 0)
    return r;
  if (!tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  g_autofree char *opts = copy_options(t, a[4]);
  return dispatch(t, &target.at, a[0], type, flags, opts);
}

static glong sys_umount2(TesTask *t, const gulong a[6]) {
  TesVfs *v = t->kernel->vfs;
  TES_PATH_ARG(p);
  int flags = (int)a[1];
  if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW))
    return -EINVAL;
  int r = tes_path_arg(t, &p, AT_FDCWD, a[0], (flags & UMOUNT_NOFOLLOW) ? TES_AT_NOFOLLOW : 0);
  if (r < 0)
    return r;
  if (!tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  return v->ops->umount(v, tes_task_ctx(t), &p.at, flags);
}

static glong sys_pivot_root(TesTask *t, const gulong a[6]) {
  TesVfs *v = t->kernel->vfs;
  TES_PATH_ARG(n);
  TES_PATH_ARG(o);
  if (!tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  int r = tes_path_arg(t, &n, AT_FDCWD, a[0], TES_AT_DIRECTORY);
  if (r == 0)
    r = tes_path_arg(t, &o, AT_FDCWD, a[1], TES_AT_DIRECTORY);
  if (r < 0)
    return r;
  return TES_HAS(v->ops, pivot_root) ? v->ops->pivot_root(v, tes_task_ctx(t), &n.at, &o.at) : -EINVAL;
}

#define NO_QUOTA "no filesystem here has quotas"

static const TesSyscall rows[] = {
    {SYS_pivot_root, "pivot_root", sys_pivot_root, TES_FULL, NULL, "ss"},
    {SYS_mount, "mount", sys_mount, TES_FULL, NULL, "sssxp"},
    {SYS_umount2, "umount2", sys_umount2, TES_FULL, NULL, "sx"},
    {SYS_quotactl, "quotactl", NULL, TES_NONE, NO_QUOTA, "xsdp"},
    {443, "quotactl_fd", NULL, TES_NONE, NO_QUOTA, "fxdp"},
    {457, "statmount", NULL, TES_NONE, "/proc/self/mountinfo has it", "ppux"},
    {458, "listmount", NULL, TES_NONE, "/proc/self/mountinfo has it", "ppux"},
};

const TesSyscallTable tes_sys_mount = TES_ROWS(rows);
