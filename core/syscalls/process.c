/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of processes: making, ending, waiting, executing, their numbers, sessions, namespaces, pidfds.
 * Interface: tes_sys_process. */
#include <core/file/file.h>
#include <core/loader/loader.h>
#include <core/syscalls/syscalls.h>
#include <core/task/life.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/syscall.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

/* ---- fork, clone ---- */

static glong sys_fork(TesTask *t, const gulong a[6]) {
  (void)a;
  return tes_task_clone(t, &(TesCloneArgs){.exit_signal = SIGCHLD});
}

static glong sys_vfork(TesTask *t, const gulong a[6]) {
  (void)a;
  return tes_task_clone(t, &(TesCloneArgs){.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD});
}

/* The flags of the old call are 32 bits wide; the pidfd shares an argument with the parent's tid. */
static glong sys_clone(TesTask *t, const gulong a[6]) {
  TesCloneArgs args = {
      .flags = a[0] & 0xffffff00UL,
      .exit_signal = a[0] & CSIGNAL,
      .stack = a[1],
      .parent_tid = a[2],
      .pidfd = a[2],
      .child_tid = a[3],
      .tls = a[4],
  };
  if (args.flags & CLONE_PIDFD && args.flags & CLONE_PARENT_SETTID)
    return -EINVAL;
  if (args.exit_signal > TES_NSIG)
    return -EINVAL;
  return tes_task_clone(t, &args);
}

#define MAX_SET_TID 32

static int check_clone3(const struct clone_args *c) {
  if (c->flags & (CLONE_DETACHED | CSIGNAL) ||
      c->flags & ~(0xffffffffULL | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP))
    return -EINVAL;
  if (c->exit_signal > TES_NSIG)
    return -EINVAL;
  if (c->flags & (CLONE_THREAD | CLONE_PARENT) && c->exit_signal)
    return -EINVAL;
  if (!c->stack != !c->stack_size)
    return -EINVAL;
  if (c->stack && c->stack + c->stack_size < c->stack)
    return -EINVAL;
  if (c->set_tid_size > MAX_SET_TID || !c->set_tid != !c->set_tid_size)
    return -EINVAL;
  return 0;
}

/* Copies a struct whose size the caller knows better than we do: bytes beyond ours must be zero (E2BIG). */
static int copy_versioned(TesTask *t, void *dst, gsize own, gulong src, gsize size, gsize min) {
  if (size < min)
    return -EINVAL;
  if (size > TES_PAGE_SIZE)
    return -E2BIG;
  guchar buf[TES_PAGE_SIZE];
  if (tes_copy_in(t, buf, src, size))
    return -EFAULT;
  for (gsize i = own; i < size; i++)
    if (buf[i])
      return -E2BIG;
  memset(dst, 0, own);
  memcpy(dst, buf, MIN(size, own));
  return 0;
}

static glong sys_clone3(TesTask *t, const gulong a[6]) {
  struct clone_args c;
  gint set_tid[MAX_SET_TID];
  int r = copy_versioned(t, &c, sizeof c, a[0], a[1], CLONE_ARGS_SIZE_VER0);
  if (r == 0)
    r = c.flags & CLONE_INTO_CGROUP && (c.cgroup > G_MAXINT || a[1] < CLONE_ARGS_SIZE_VER2)
            ? -EINVAL
            : check_clone3(&c);
  if (r < 0)
    return r;
  if (c.set_tid_size && tes_copy_in(t, set_tid, c.set_tid, c.set_tid_size * sizeof set_tid[0]))
    return -EFAULT;
  TesCloneArgs args = {
      .flags = c.flags,
      .stack = c.stack,
      .stack_size = c.stack_size,
      .tls = c.tls,
      .parent_tid = c.parent_tid,
      .child_tid = c.child_tid,
      .pidfd = c.pidfd,
      .exit_signal = (gint)c.exit_signal,
      .cgroup = c.flags & CLONE_INTO_CGROUP ? (gint)c.cgroup : -1,
      .set_tid = set_tid,
      .n_set_tid = (guint)c.set_tid_size,
  };
  return tes_task_clone(t, &args);
}

/* ---- exec ---- */

#define MAX_ARG (32 * TES_PAGE_SIZE) /* one string, terminator included (execve(2)) */
#define MAX_ARGS (6UL << 20)         /* all strings and their pointers */

/* Copies a NULL-terminated vector of strings; *left is what the limit still allows. A NULL vector is an empty one. */
static int copy_strings(TesTask *t, gulong vec, gsize *left, char ***out) {
  g_autoptr(GPtrArray) v = g_ptr_array_new_with_free_func(g_free);
  g_autofree char *buf = g_malloc(MAX_ARG);
  for (gulong p = vec; vec; p += sizeof(gulong)) {
    gulong s;
    if (tes_copy_in(t, &s, p, sizeof s))
      return -EFAULT;
    if (!s)
      break;
    gssize n = tes_copy_in_str(t, buf, s, MAX_ARG);
    if (n < 0)
      return n == -ENAMETOOLONG ? -E2BIG : (int)n;
    if ((gsize)n + 1 + sizeof s > *left)
      return -E2BIG;
    *left -= n + 1 + sizeof s;
    g_ptr_array_add(v, g_memdup2(buf, n + 1));
  }
  g_ptr_array_add(v, NULL);
  *out = (char **)g_ptr_array_steal(v, NULL);
  return 0;
}

static glong exec_with(TesTask *t, TesLoadArgs *la, gulong uargv, gulong uenvv) {
  g_auto(GStrv) argv = NULL, envv = NULL;
  gsize left = CLAMP(tes_task_rlimit(t, RLIMIT_STACK) / 4, MAX_ARG, MAX_ARGS);
  int r = copy_strings(t, uargv, &left, &argv);
  if (r == 0)
    r = copy_strings(t, uenvv, &left, &envv);
  if (r < 0)
    return r;
  if (!argv[0]) { /* a program never sees argc 0 */
    g_free(argv);
    argv = g_new0(char *, 2);
    argv[0] = g_strdup("");
  }
  la->argv = argv;
  la->envv = envv;
  la->task = t;
  la->limits = t->tg->limits;
  return tes_task_exec(t, la);
}

static int copy_path(TesTask *t, char *buf, gulong src) {
  gssize n = tes_copy_in_str(t, buf, src, TES_PATH_MAX);
  return n < 0 ? (int)n : 0;
}

static glong sys_execve(TesTask *t, const gulong a[6]) {
  char path[TES_PATH_MAX];
  int r = copy_path(t, path, a[0]);
  if (r < 0)
    return r;
  if (!path[0])
    return -ENOENT;
  TesAt at = {.path = path};
  return exec_with(t, &(TesLoadArgs){.at = &at}, a[1], a[2]);
}

/* A descriptor names the program itself (AT_EMPTY_PATH) or the directory of a relative path. Scripts see /dev/fd/N. */
static glong exec_at(TesTask *t, int fd, char *path, int flags, gulong argv, gulong envv) {
  g_autoptr(TesFile) f = tes_fd_get(t, fd);
  if (!f)
    return -EBADF;
  g_autofree char *name =
      *path ? g_strdup_printf("/dev/fd/%d/%s", fd, path) : g_strdup_printf("/dev/fd/%d", fd);
  TesAt at = {.base = f->path, .path = path, .flags = flags & AT_SYMLINK_NOFOLLOW ? TES_AT_NOFOLLOW : 0};
  TesLoadArgs la = {.execfn = name, .fd_cloexec = tes_fd_get_cloexec(t, fd) > 0};
  if (*path) {
    if (!f->path || !f->inode || !S_ISDIR(f->path->inode->mode))
      return -ENOTDIR;
    la.at = &at;
  } else
    la.file = f;
  return exec_with(t, &la, argv, envv);
}

static glong sys_execveat(TesTask *t, const gulong a[6]) {
  int fd = (int)a[0], flags = (int)a[4];
  char path[TES_PATH_MAX];
  if (flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
    return -EINVAL;
  int r = copy_path(t, path, a[1]);
  if (r < 0)
    return r;
  if (!path[0] && !(flags & AT_EMPTY_PATH))
    return -ENOENT;
  if (path[0] != '/' && (fd != AT_FDCWD || !path[0])) {
    if (fd == AT_FDCWD)
      return -EACCES; /* the working directory itself is no program */
    return exec_at(t, fd, path, flags, a[2], a[3]);
  }
  TesAt at = {.path = path, .flags = flags & AT_SYMLINK_NOFOLLOW ? TES_AT_NOFOLLOW : 0};
  return exec_with(t, &(TesLoadArgs){.at = &at}, a[2], a[3]);
}

/* ---- exit ---- */

static glong sys_exit(TesTask *t, const gulong a[6]) {
  tes_task_exit(t, (a[0] & 0xff) << 8);
  t->no_result = TRUE;
  return 0;
}

static glong sys_exit_group(TesTask *t, const gulong a[6]) {
  tes_task_group_exit(t, (a[0] & 0xff) << 8);
  t->no_result = TRUE;
  return 0;
}

/* ---- Numbers ---- */

static glong sys_getpid(TesTask *t, const gulong a[6]) {
  (void)a;
  return tes_pid_in(tes_pid_of(t->tg->nrs), t->ns_pid); /* constant while a thread lives */
}

static glong sys_gettid(TesTask *t, const gulong a[6]) {
  (void)a;
  return tes_pid_in(tes_pid_of(t->nrs), t->ns_pid);
}

static glong sys_getppid(TesTask *t, const gulong a[6]) {
  (void)a;
  return tes_task_ppid(t, t->ns_pid);
}

static glong sys_set_tid_address(TesTask *t, const gulong a[6]) {
  t->clear_child_tid = a[0];
  return tes_pid_in(tes_pid_of(t->nrs), t->ns_pid);
}

/* ---- Sessions and process groups ---- */

static glong sys_setsid(TesTask *t, const gulong a[6]) {
  (void)a;
  TesKernel *k = t->kernel;
  TesThreadGroup *tg = t->tg;
  TES_LOCKED(&k->task_set);
  if (g_hash_table_lookup(k->pgrps, GINT_TO_POINTER(tg->tgid)))
    return -EPERM; /* a group leader, or a group of its number lives on */
  TesSession *s = tes_session_new(tg);
  TesPgrp *p = tes_pgrp_new(tg->tgid, s);
  tes_tg_set_pgrp(tg, p);
  tes_pgrp_unref(k, p);
  tes_session_unref(s);
  return tes_pid_in(tes_pid_of(tg->nrs), t->ns_pid);
}

/* The group `pgid` names for setpgid: an existing one of the session, or a new one led by tg. Referenced. */
static int group_to_join(TesTask *t, TesThreadGroup *tg, gint pgid, TesPgrp **out) {
  TesPgrp *p = tes_pgrp_find_locked(t->kernel, t->ns_pid, pgid);
  if (p && p->session == tg->session) {
    p->refs++;
    *out = p;
    return 0;
  }
  if (p || tes_pid_in(tes_pid_of(tg->nrs), t->ns_pid) != pgid)
    return -EPERM;
  *out = tes_pgrp_new(tg->tgid, tg->session);
  return 0;
}

static glong sys_setpgid(TesTask *t, const gulong a[6]) {
  TesKernel *k = t->kernel;
  gint pid = (gint)a[0], pgid = (gint)a[1];
  if (pgid < 0)
    return -EINVAL;
  TES_LOCKED(&k->task_set);
  TesTask *target = pid ? tes_task_find_locked(k, t->ns_pid, pid, TRUE) : t;
  TesThreadGroup *tg = target ? target->tg : NULL;
  if (!tg || (tg != t->tg && tg->parent != t->tg))
    return -ESRCH;
  if (tg != t->tg && (tg->session != t->tg->session || !tg->session))
    return -EPERM;
  if (tg != t->tg && tg->execed)
    return -EACCES;
  if (!tg->session || tg->session->leader == tg)
    return -EPERM;
  TesPgrp *p = NULL;
  int r = group_to_join(t, tg, pgid ? pgid : tes_pid_in(tes_pid_of(tg->nrs), t->ns_pid), &p);
  if (r < 0)
    return r;
  if (p != tg->pgrp)
    tes_tg_set_pgrp(tg, p);
  tes_pgrp_unref(k, p);
  return 0;
}

static glong number_of(TesTask *t, gint pid, gboolean sid) {
  TES_LOCKED(&t->kernel->task_set);
  TesTask *target = pid ? tes_task_find_locked(t->kernel, t->ns_pid, pid, FALSE) : t;
  if (!target || !target->tg->pgrp)
    return -ESRCH;
  return tes_pid_in(sid ? target->tg->session->pid : target->tg->pgrp->pid, t->ns_pid);
}

static glong sys_getpgid(TesTask *t, const gulong a[6]) { return number_of(t, (gint)a[0], FALSE); }
static glong sys_getsid(TesTask *t, const gulong a[6]) { return number_of(t, (gint)a[0], TRUE); }
static glong sys_getpgrp(TesTask *t, const gulong a[6]) {
  (void)a;
  return number_of(t, 0, FALSE);
}

/* ---- Namespaces and sharing ---- */

#define UNSHARE_FLAGS \
  (TES_CLONE_NEW_ALL | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)

static void unshare_fs(TesTask *t) {
  TesFsInfo *copy = tes_fsinfo_copy(t->fsinfo);
  tes_mutex_lock(&t->lock);
  TesFsInfo *old = t->fsinfo;
  t->fsinfo = copy;
  tes_mutex_unlock(&t->lock);
  tes_fsinfo_unref(old);
}

static glong sys_unshare(TesTask *t, const gulong a[6]) {
  guint64 flags = a[0];
  if (flags & ~(guint64)UNSHARE_FLAGS)
    return -EINVAL;
  /* What only exists per process can be "unshared" when there is nothing to share. */
  if (flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) && (tes_tg_n_live(t->tg) > 1 || t->vm_shared))
    return -EINVAL;
  if (flags & (CLONE_NEWUSER | CLONE_NEWTIME))
    return -EINVAL;
  if (flags & TES_CLONE_NEW_SERVED && !tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  if (flags & CLONE_FILES) {
    int r = tes_task_unshare_fdtable(t);
    if (r < 0)
      return r;
  }
  if (flags & (CLONE_FS | CLONE_NEWNS))
    unshare_fs(t);
  if (flags & (CLONE_SYSVSEM | CLONE_NEWIPC))
    tes_sem_undo_leave(t);
  return flags & TES_CLONE_NEW_SERVED ? tes_ns_unshare(t, flags) : 0;
}

static glong sys_setns(TesTask *t, const gulong a[6]) {
  g_autoptr(TesFile) f = tes_fd_get(t, (int)a[0]);
  return f ? tes_ns_setns(t, f, (int)a[1]) : -EBADF;
}

/* ---- pidfds ---- */

static glong sys_pidfd_open(TesTask *t, const gulong a[6]) {
  gint pid = (gint)a[0];
  guint flags = (guint)a[1];
  if (flags & ~(guint)O_NONBLOCK || pid <= 0)
    return -EINVAL;
  g_autoptr(TesTask) target = tes_task_find(t->kernel, t->ns_pid, pid, FALSE);
  if (!target)
    return -ESRCH;
  if (target->tg->leader != target)
    return -EINVAL;
  g_autoptr(TesFile) f = tes_pidfd_new(target->tg, flags);
  return tes_fd_install(t, f, 0, TRUE);
}

/* The leader of the group behind a pidfd, referenced; NULL with *err. */
static TesTask *pidfd_target(TesTask *t, int fd, int *err) {
  g_autoptr(TesFile) f = tes_fd_get(t, fd);
  g_autoptr(TesThreadGroup) tg = f ? tes_file_pidfd(f) : NULL;
  *err = -EBADF;
  if (!tg)
    return NULL;
  TES_LOCKED(&t->kernel->task_set);
  *err = -ESRCH;
  return tg->leader ? tes_task_ref(tg->leader) : NULL;
}

static glong sys_pidfd_send_signal(TesTask *t, const gulong a[6]) {
  int sig = (int)a[1], err;
  if (a[3])
    return -EINVAL;
  g_autoptr(TesTask) target = pidfd_target(t, (int)a[0], &err);
  if (!target)
    return err;
  siginfo_t info = {.si_signo = sig, .si_code = SI_USER};
  info.si_pid = tes_task_pid(t, target->ns_pid);
  info.si_uid = t->cred->uid;
  if (a[2]) {
    if (tes_copy_in(t, &info, a[2], sizeof info))
      return -EFAULT;
    if (info.si_signo != sig)
      return -EINVAL;
    if (target->tg != t->tg && (info.si_code >= 0 || info.si_code == SI_TKILL))
      return -EPERM; /* only the kernel's and kill(2)'s codes look like that */
  }
  if (sig < 0 || sig > TES_NSIG)
    return -EINVAL;
  if (!tes_signal_may_send(&t->ctx, target, sig))
    return -EPERM;
  return sig ? tes_signal_group(target->tg, sig, &info) : 0;
}

typedef struct {
  int fd;
  TesFile *file;
} Wanted;

static void pick_file(int fd, TesFile *f, gboolean cloexec, gpointer data) {
  Wanted *w = data;
  (void)cloexec;
  if (fd == w->fd)
    w->file = tes_file_ref(f);
}

static glong sys_pidfd_getfd(TesTask *t, const gulong a[6]) {
  int err;
  if (a[2])
    return -EINVAL;
  g_autoptr(TesTask) target = pidfd_target(t, (int)a[0], &err);
  if (!target)
    return err;
  if (!tes_task_may_inspect(&t->ctx, target))
    return -EPERM;
  TesFdTable *table = tes_task_fdtable_ref(target);
  if (!table)
    return -ESRCH;
  Wanted w = {.fd = (int)a[1]};
  tes_fdtable_foreach(table, pick_file, &w);
  tes_fdtable_unref(table, &t->ctx);
  g_autoptr(TesFile) f = w.file;
  return f ? tes_fd_install(t, f, 0, TRUE) : -EBADF;
}

/* ---- kcmp ---- */

static glong order(gconstpointer a, gconstpointer b) { return a == b ? 0 : a < b ? 1 : 2; }

static gconstpointer kcmp_object(TesTask *t, int type) {
  switch (type) {
  case KCMP_VM:
    return t->mm;
  case KCMP_FILES:
    return t->fdtable;
  case KCMP_FS:
    return t->fsinfo;
  case KCMP_SIGHAND:
    return t->tg->sighand;
  default:
    return NULL;
  }
}

static TesFile *file_of(TesTask *t, int fd) {
  TesFdTable *table = tes_task_fdtable_ref(t);
  Wanted w = {.fd = fd};
  if (table) {
    tes_fdtable_foreach(table, pick_file, &w);
    tes_fdtable_unref(table, &t->ctx);
  }
  return w.file;
}

static glong sys_kcmp(TesTask *t, const gulong a[6]) {
  int type = (int)a[2];
  g_autoptr(TesTask) p = tes_task_find(t->kernel, t->ns_pid, (gint)a[0], FALSE);
  g_autoptr(TesTask) q = tes_task_find(t->kernel, t->ns_pid, (gint)a[1], FALSE);
  if (!p || !q)
    return -ESRCH;
  if (!tes_task_may_inspect(&t->ctx, p) || !tes_task_may_inspect(&t->ctx, q))
    return -EPERM;
  if (type == KCMP_FILE) {
    g_autoptr(TesFile) f = file_of(p, (int)a[3]);
    g_autoptr(TesFile) g = file_of(q, (int)a[4]);
    return f && g ? order(f, g) : -EBADF;
  }
  if (type == KCMP_SYSVSEM)
    return order(p->sem_undo, q->sem_undo);
  if (type == KCMP_IO)
    return order(p->tg, q->tg); /* never shared between processes here */
  if (type != KCMP_VM && type != KCMP_FILES && type != KCMP_FS && type != KCMP_SIGHAND)
    return -EINVAL;
  return order(kcmp_object(p, type), kcmp_object(q, type));
}

#define EXEC_NOTE "no file capabilities; impossible ELF segments give an errno where Linux kills"

static const TesSyscall rows[] = {
    {SYS_getpid, "getpid", sys_getpid, TES_FULL, NULL, ""},
    {SYS_clone, "clone", sys_clone, TES_PARTIAL, "no CLONE_NEWUSER, CLONE_NEWTIME, CLONE_PTRACE, CLONE_IO",
     "xpppx"},
    {SYS_fork, "fork", sys_fork, TES_FULL, NULL, ""},
    {SYS_vfork, "vfork", sys_vfork, TES_FULL, NULL, ""},
    {SYS_execve, "execve", sys_execve, TES_PARTIAL, EXEC_NOTE, "spp"},
    {SYS_exit, "exit", sys_exit, TES_FULL, NULL, "d"},
    {SYS_wait4, "wait4", tes_do_wait4, TES_FULL, NULL, "dpxp"},
    {SYS_setpgid, "setpgid", sys_setpgid, TES_FULL, NULL, "dd"},
    {SYS_getppid, "getppid", sys_getppid, TES_FULL, NULL, ""},
    {SYS_getpgrp, "getpgrp", sys_getpgrp, TES_FULL, NULL, ""},
    {SYS_setsid, "setsid", sys_setsid, TES_FULL, NULL, ""},
    {SYS_getpgid, "getpgid", sys_getpgid, TES_FULL, NULL, "d"},
    {SYS_getsid, "getsid", sys_getsid, TES_FULL, NULL, "d"},
    {SYS_gettid, "gettid", sys_gettid, TES_FULL, NULL, ""},
    {SYS_set_tid_address, "set_tid_address", sys_set_tid_address, TES_FULL, NULL, "p"},
    {SYS_exit_group, "exit_group", sys_exit_group, TES_FULL, NULL, "d"},
    {SYS_waitid, "waitid", tes_do_waitid, TES_FULL, NULL, "ddpxp"},
    {SYS_unshare, "unshare", sys_unshare, TES_PARTIAL, "no CLONE_NEWUSER, CLONE_NEWTIME", "x"},
    {SYS_setns, "setns", sys_setns, TES_PARTIAL, "no user and time namespaces", "fx"},
    {SYS_kcmp, "kcmp", sys_kcmp, TES_PARTIAL, "no KCMP_EPOLL_TFD", "dddxx"},
    {SYS_execveat, "execveat", sys_execveat, TES_PARTIAL, EXEC_NOTE, "asppx"},
    {SYS_pidfd_send_signal, "pidfd_send_signal", sys_pidfd_send_signal, TES_FULL, NULL, "fSpx"},
    {SYS_pidfd_open, "pidfd_open", sys_pidfd_open, TES_FULL, NULL, "dx"},
    {SYS_clone3, "clone3", sys_clone3, TES_PARTIAL, "as clone", "pu"},
    {SYS_pidfd_getfd, "pidfd_getfd", sys_pidfd_getfd, TES_FULL, NULL, "ffx"},
};

const TesSyscallTable tes_sys_process = TES_ROWS(rows);
