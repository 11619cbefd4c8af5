/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of identity: user and group ids, supplementary groups, capabilities (credentials(7), capabilities(7),
 * setuid(2), setresuid(2), capget(2)). Interface: tes_sys_cred. Ids are those of the initial user namespace. */
#include <core/syscalls/syscalls.h>
#include <core/task/life.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/syscall.h>

#define NONE G_MAXUINT32 /* (uid_t) -1: no id; "leave as it is" */

static gboolean capable(TesTask *t, int cap) { return tes_task_capable(t, cap); }

/* ---- After a change of ids ---- */

#define FS_CAPS                                                                                      \
  (1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_DAC_READ_SEARCH | 1ULL << CAP_FOWNER | \
   1ULL << CAP_FSETID | 1ULL << CAP_LINUX_IMMUTABLE | 1ULL << CAP_MKNOD | 1ULL << CAP_MAC_OVERRIDE)

/* capabilities(7), "Effect of user ID changes on capabilities". */
static void adjust_caps(const TesCred *old, TesCred *c) {
  if (c->securebits & SECBIT_NO_SETUID_FIXUP)
    return;
  gboolean had_root = old->uid == 0 || old->euid == 0 || old->suid == 0;
  gboolean has_root = c->uid == 0 || c->euid == 0 || c->suid == 0;
  if (had_root && !has_root) {
    if (!(c->securebits & SECBIT_KEEP_CAPS))
      c->cap_permitted = c->cap_effective = 0;
    c->cap_ambient = 0;
  }
  if (old->euid == 0 && c->euid != 0)
    c->cap_effective = 0;
  if (old->euid != 0 && c->euid == 0)
    c->cap_effective = c->cap_permitted;
}

/* A process that changed its effective ids may hold secrets: not dumpable, no parent-death signal. */
static void publish(TesTask *t, TesCred *c) {
  const TesCred *old = t->cred;
  if (c->euid != old->euid || c->egid != old->egid || c->fsuid != old->fsuid || c->fsgid != old->fsgid ||
      c->cap_permitted & ~old->cap_permitted) {
    t->tg->dumpable = FALSE;
    t->pdeath_signal = 0;
  }
  tes_task_set_cred(t, c);
}

static glong refuse(TesCred *c, int err) {
  tes_cred_unref(c);
  return err;
}

/* ---- User ids ---- */

static glong sys_setuid(TesTask *t, const gulong a[6]) {
  guint32 uid = (guint32)a[0];
  const TesCred *old = t->cred;
  if (uid == NONE)
    return -EINVAL;
  TesCred *c = tes_cred_copy(old);
  if (capable(t, CAP_SETUID))
    c->uid = c->suid = uid;
  else if (uid != old->uid && uid != old->suid)
    return refuse(c, -EPERM);
  c->euid = c->fsuid = uid;
  adjust_caps(old, c);
  publish(t, c);
  return 0;
}

static glong sys_setreuid(TesTask *t, const gulong a[6]) {
  guint32 r = (guint32)a[0], e = (guint32)a[1];
  const TesCred *old = t->cred;
  gboolean priv = capable(t, CAP_SETUID);
  TesCred *c = tes_cred_copy(old);
  if (r != NONE) {
    c->uid = r;
    if (r != old->uid && r != old->euid && !priv)
      return refuse(c, -EPERM);
  }
  if (e != NONE) {
    c->euid = e;
    if (e != old->uid && e != old->euid && e != old->suid && !priv)
      return refuse(c, -EPERM);
  }
  if (r != NONE || (e != NONE && e != old->uid))
    c->suid = c->euid;
  c->fsuid = c->euid;
  adjust_caps(old, c);
  publish(t, c);
  return 0;
}

static gboolean one_of_uids(const TesCred *c, guint32 id) {
  return id == NONE || id == c->uid || id == c->euid || id == c->suid;
}

static glong sys_setresuid(TesTask *t, const gulong a[6]) {
  guint32 r = (guint32)a[0], e = (guint32)a[1], s = (guint32)a[2];
  const TesCred *old = t->cred;
  if (!capable(t, CAP_SETUID) && !(one_of_uids(old, r) && one_of_uids(old, e) && one_of_uids(old, s)))
    return -EPERM;
  TesCred *c = tes_cred_copy(old);
  c->uid = r != NONE ? r : c->uid;
  c->euid = e != NONE ? e : c->euid;
  c->suid = s != NONE ? s : c->suid;
  c->fsuid = c->euid;
  adjust_caps(old, c);
  publish(t, c);
  return 0;
}

/* Answers the old id, whatever happens. */
static glong sys_setfsuid(TesTask *t, const gulong a[6]) {
  guint32 id = (guint32)a[0], before = t->cred->fsuid;
  const TesCred *old = t->cred;
  if (id == NONE || id == before ||
      !(id == old->uid || id == old->euid || id == old->suid || capable(t, CAP_SETUID)))
    return before;
  TesCred *c = tes_cred_copy(old);
  c->fsuid = id;
  if (!(c->securebits & SECBIT_NO_SETUID_FIXUP)) {
    if (before == 0)
      c->cap_effective &= ~FS_CAPS;
    if (id == 0)
      c->cap_effective |= c->cap_permitted & FS_CAPS;
  }
  publish(t, c);
  return before;
}

/* ---- Group ids: the same without capabilities ---- */

static glong sys_setgid(TesTask *t, const gulong a[6]) {
  guint32 gid = (guint32)a[0];
  const TesCred *old = t->cred;
  if (gid == NONE)
    return -EINVAL;
  TesCred *c = tes_cred_copy(old);
  if (capable(t, CAP_SETGID))
    c->gid = c->sgid = gid;
  else if (gid != old->gid && gid != old->sgid)
    return refuse(c, -EPERM);
  c->egid = c->fsgid = gid;
  publish(t, c);
  return 0;
}

static glong sys_setregid(TesTask *t, const gulong a[6]) {
  guint32 r = (guint32)a[0], e = (guint32)a[1];
  const TesCred *old = t->cred;
  gboolean priv = capable(t, CAP_SETGID);
  TesCred *c = tes_cred_copy(old);
  if (r != NONE) {
    c->gid = r;
    if (r != old->gid && r != old->egid && !priv)
      return refuse(c, -EPERM);
  }
  if (e != NONE) {
    c->egid = e;
    if (e != old->gid && e != old->egid && e != old->sgid && !priv)
      return refuse(c, -EPERM);
  }
  if (r != NONE || (e != NONE && e != old->gid))
    c->sgid = c->egid;
  c->fsgid = c->egid;
  publish(t, c);
  return 0;
}

static gboolean one_of_gids(const TesCred *c, guint32 id) {
  return id == NONE || id == c->gid || id == c->egid || id == c->sgid;
}

static glong sys_setresgid(TesTask *t, const gulong a[6]) {
  guint32 r = (guint32)a[0], e = (guint32)a[1], s = (guint32)a[2];
  const TesCred *old = t->cred;
  if (!capable(t, CAP_SETGID) && !(one_of_gids(old, r) && one_of_gids(old, e) && one_of_gids(old, s)))
    return -EPERM;
  TesCred *c = tes_cred_copy(old);
  c->gid = r != NONE ? r : c->gid;
  c->egid = e != NONE ? e : c->egid;
  c->sgid = s != NONE ? s : c->sgid;
  c->fsgid = c->egid;
  publish(t, c);
  return 0;
}

static glong sys_setfsgid(TesTask *t, const gulong a[6]) {
  guint32 id = (guint32)a[0], before = t->cred->fsgid;
  const TesCred *old = t->cred;
  if (id == NONE || id == before ||
      !(id == old->gid || id == old->egid || id == old->sgid || capable(t, CAP_SETGID)))
    return before;
  TesCred *c = tes_cred_copy(old);
  c->fsgid = id;
  publish(t, c);
  return before;
}

/* ---- Asking ---- */

static glong sys_getuid(TesTask *t, const gulong a[6]) { return (void)a, t->cred->uid; }
static glong sys_geteuid(TesTask *t, const gulong a[6]) { return (void)a, t->cred->euid; }
static glong sys_getgid(TesTask *t, const gulong a[6]) { return (void)a, t->cred->gid; }
static glong sys_getegid(TesTask *t, const gulong a[6]) { return (void)a, t->cred->egid; }

static glong put3(TesTask *t, const gulong a[6], guint32 r, guint32 e, guint32 s) {
  if (tes_copy_out(t, a[0], &r, sizeof r) || tes_copy_out(t, a[1], &e, sizeof e) ||
      tes_copy_out(t, a[2], &s, sizeof s))
    return -EFAULT;
  return 0;
}

static glong sys_getresuid(TesTask *t, const gulong a[6]) {
  return put3(t, a, t->cred->uid, t->cred->euid, t->cred->suid);
}
static glong sys_getresgid(TesTask *t, const gulong a[6]) {
  return put3(t, a, t->cred->gid, t->cred->egid, t->cred->sgid);
}

static glong sys_getgroups(TesTask *t, const gulong a[6]) {
  gint size = (gint)a[0];
  const TesCred *c = t->cred;
  if (size < 0 || (size && (guint)size < c->n_groups))
    return -EINVAL;
  if (size && tes_copy_out(t, a[1], c->groups, c->n_groups * sizeof *c->groups))
    return -EFAULT;
  return c->n_groups;
}

static glong sys_setgroups(TesTask *t, const gulong a[6]) {
  guint n = (guint)a[0];
  if (!capable(t, CAP_SETGID))
    return -EPERM;
  if (n > TES_NGROUPS_MAX)
    return -EINVAL;
  g_autofree guint32 *groups = g_new(guint32, n);
  if (n && tes_copy_in(t, groups, a[1], n * sizeof *groups))
    return -EFAULT;
  for (guint i = 0; i < n; i++)
    if (groups[i] == NONE)
      return -EINVAL;
  TesCred *c = tes_cred_copy(t->cred);
  tes_cred_set_groups(c, groups, n);
  publish(t, c);
  return 0;
}

/* ---- Capabilities ---- */

/* Words of each set in a version of the interface; 0: unknown version, and the preferred one is written back. */
static int cap_words(TesTask *t, gulong uhdr, struct __user_cap_header_struct *h) {
  if (tes_copy_in(t, h, uhdr, sizeof *h))
    return -EFAULT;
  switch (h->version) {
  case _LINUX_CAPABILITY_VERSION_1:
    return _LINUX_CAPABILITY_U32S_1;
  case _LINUX_CAPABILITY_VERSION_2:
  case _LINUX_CAPABILITY_VERSION_3:
    return _LINUX_CAPABILITY_U32S_3;
  }
  guint32 best = _LINUX_CAPABILITY_VERSION_3;
  return tes_copy_out(t, uhdr, &best, sizeof best) ? -EFAULT : 0;
}

static glong sys_capget(TesTask *t, const gulong a[6]) {
  struct __user_cap_header_struct h;
  struct __user_cap_data_struct d[2];
  int words = cap_words(t, a[0], &h);
  if (words <= 0)
    return words < 0 ? words : a[1] ? -EINVAL : 0;
  if (h.pid < 0)
    return -EINVAL;
  g_autoptr(TesTask) target = h.pid ? tes_task_find(t->kernel, t->ns_pid, h.pid, FALSE) : tes_task_ref(t);
  if (!target)
    return -ESRCH;
  g_autoptr(TesCred) c = tes_task_cred_ref(target);
  for (int i = 0; i < words; i++)
    d[i] = (struct __user_cap_data_struct){(guint32)(c->cap_effective >> 32 * i),
                                           (guint32)(c->cap_permitted >> 32 * i),
                                           (guint32)(c->cap_inheritable >> 32 * i)};
  return tes_copy_out(t, a[1], d, words * sizeof d[0]);
}

/* capset(2): no new permitted ones; effective within permitted; inheritable within inheritable, permitted and bounding. */
static int check_capset(TesTask *t, guint64 e, guint64 p, guint64 i) {
  const TesCred *old = t->cred;
  if (p & ~old->cap_permitted || e & ~p)
    return -EPERM;
  if (!capable(t, CAP_SETPCAP) && i & ~(old->cap_inheritable | old->cap_permitted))
    return -EPERM;
  return i & ~(old->cap_inheritable | old->cap_bounding) ? -EPERM : 0;
}

static glong sys_capset(TesTask *t, const gulong a[6]) {
  struct __user_cap_header_struct h;
  struct __user_cap_data_struct d[2] = {{0, 0, 0}, {0, 0, 0}};
  int words = cap_words(t, a[0], &h);
  if (words <= 0)
    return words < 0 ? words : -EINVAL;
  if (h.pid && h.pid != tes_task_tid(t, t->ns_pid))
    return -EPERM;
  if (tes_copy_in(t, d, a[1], words * sizeof d[0]))
    return -EFAULT;
  guint64 e = (d[0].effective | (guint64)d[1].effective << 32) & TES_CAP_ALL;
  guint64 p = (d[0].permitted | (guint64)d[1].permitted << 32) & TES_CAP_ALL;
  guint64 i = (d[0].inheritable | (guint64)d[1].inheritable << 32) & TES_CAP_ALL;
  int r = check_capset(t, e, p, i);
  if (r < 0)
    return r;
  TesCred *c = tes_cred_copy(t->cred);
  c->cap_effective = e;
  c->cap_permitted = p;
  c->cap_inheritable = i;
  c->cap_ambient &= p & i;
  publish(t, c);
  return 0;
}

static const TesSyscall rows[] = {
    {SYS_getuid, "getuid", sys_getuid, TES_FULL, NULL, ""},
    {SYS_getgid, "getgid", sys_getgid, TES_FULL, NULL, ""},
    {SYS_setuid, "setuid", sys_setuid, TES_FULL, NULL, "u"},
    {SYS_setgid, "setgid", sys_setgid, TES_FULL, NULL, "u"},
    {SYS_geteuid, "geteuid", sys_geteuid, TES_FULL, NULL, ""},
    {SYS_getegid, "getegid", sys_getegid, TES_FULL, NULL, ""},
    {SYS_setreuid, "setreuid", sys_setreuid, TES_FULL, NULL, "dd"},
    {SYS_setregid, "setregid", sys_setregid, TES_FULL, NULL, "dd"},
    {SYS_getgroups, "getgroups", sys_getgroups, TES_FULL, NULL, "dp"},
    {SYS_setgroups, "setgroups", sys_setgroups, TES_FULL, NULL, "dp"},
    {SYS_setresuid, "setresuid", sys_setresuid, TES_FULL, NULL, "ddd"},
    {SYS_getresuid, "getresuid", sys_getresuid, TES_FULL, NULL, "ppp"},
    {SYS_setresgid, "setresgid", sys_setresgid, TES_FULL, NULL, "ddd"},
    {SYS_getresgid, "getresgid", sys_getresgid, TES_FULL, NULL, "ppp"},
    {SYS_setfsuid, "setfsuid", sys_setfsuid, TES_FULL, NULL, "u"},
    {SYS_setfsgid, "setfsgid", sys_setfsgid, TES_FULL, NULL, "u"},
    {SYS_capget, "capget", sys_capget, TES_FULL, NULL, "pp"},
    {SYS_capset, "capset", sys_capset, TES_FULL, NULL, "pp"},
};

const TesSyscallTable tes_sys_cred = TES_ROWS(rows);
