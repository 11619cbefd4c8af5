/* SPDX-License-Identifier: Apache-2.0 */
/* seccomp(2): installing filters, inheriting them, and judging calls before they are served (run.c). The programs themselves are
 * checked and run by bpf.c. What the rules of a chain of filters say without looking at arguments is worked out when it is
 * installed (`allowed`), so that most calls of a filtered task cost one test of a bit. */
#include <core/file/file.h>
#include <core/task/bpf.h>
#include <core/task/life.h>
#include <core/task/seccomp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/syscall.h>

#define MAX_PATH_INSNS \
  32768 /* of a task's filters together, each counting PENALTY more: seccomp(2), ENOMEM */
#define PENALTY 4
#define MAX_ALL_BYTES (64 << 20) /* of all filters: they are the kernel's memory */
#define MAX_ERRNO 4095
#define WORD_NR_ARCH 3U /* the words of seccomp_data that are known when a filter is installed */
#define CODE_SECCOMP 1  /* si_code SYS_SECCOMP */

struct _TesSeccomp {
  gint refs;
  TesSeccomp *prev;      /* older filter, referenced */
  gboolean strict;       /* SECCOMP_MODE_STRICT: no program, no prev */
  gboolean reads_ip;     /* one of the chain asks for the instruction pointer */
  gboolean log;          /* SECCOMP_FILTER_FLAG_LOG */
  gboolean no_new_privs; /* its installer had it: whom it is put on must have it too */
  guint count, path;     /* filters and instructions of the chain, from here on */
  /* Native calls that it allows whatever their arguments are, and that all of the chain do. */
  guint64 own_allowed[TES_SYSCALL_MAX / 64], allowed[TES_SYSCALL_MAX / 64];
  TesListener *listener; /* or NULL; referenced */
  guint n;
  struct sock_filter insn[];
};

static gsize all_bytes; /* atomic */

static gsize size_of(guint n) { return sizeof(TesSeccomp) + n * sizeof(struct sock_filter); }

/* NULL: there is too much of it already. */
static TesSeccomp *filter_new(guint n) {
  gsize size = size_of(n);
  if (__atomic_add_fetch(&all_bytes, size, __ATOMIC_RELAXED) > MAX_ALL_BYTES) {
    __atomic_sub_fetch(&all_bytes, size, __ATOMIC_RELAXED);
    return NULL;
  }
  TesSeccomp *s = g_malloc0(size);
  s->refs = 1;
  s->n = n;
  return s;
}

static TesSeccomp *filter_ref(TesSeccomp *s) {
  g_atomic_int_inc(&s->refs);
  return s;
}

static void filter_unref(TesSeccomp *s) {
  while (s && g_atomic_int_dec_and_test(&s->refs)) {
    TesSeccomp *prev = s->prev;
    __atomic_sub_fetch(&all_bytes, size_of(s->n), __ATOMIC_RELAXED);
    tes_listener_abandon(s->listener);
    g_free(s);
    s = prev;
  }
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesSeccomp, filter_unref)

/* ---- Judging ---- */

static guint32 action_of(guint32 ret) { return ret & SECCOMP_RET_ACTION_FULL; }

static gboolean is_in(const guint64 *set, guint nr) { return set[nr / 64] >> nr % 64 & 1; }

/* The most restrictive action, and of equal ones the newest filter's: seccomp(2), "the highest precedence". */
static guint32 run_chain(const TesSeccomp *chain, const TesBpfData *d, const TesSeccomp **by) {
  guint32 result = SECCOMP_RET_ALLOW, nr = (guint32)d->data.nr;
  gboolean native = d->data.arch == AUDIT_ARCH_X86_64 && nr < TES_SYSCALL_MAX;
  for (const TesSeccomp *s = chain; s; s = s->prev) {
    guint32 r = SECCOMP_RET_KILL_THREAD;
    if (native && is_in(s->own_allowed, nr))
      continue;
    tes_bpf_run(s->insn, d, TES_BPF_ALL, &r);
    if ((gint32)action_of(r) < (gint32)action_of(result)) {
      result = r;
      *by = s;
    }
  }
  return result;
}

/* A call of the 32-bit ABI has its arguments in other registers. */
static void i386_args(TesTask *t, TesBpfData *d) {
  const TesRegs *r = tes_task_regs(t, FALSE);
  const gulong args[6] = {r->rbx, r->rcx, r->rdx, r->rsi, r->rdi, r->rbp};
  for (guint i = 0; i < 6; i++)
    d->data.args[i] = (guint32)args[i];
}

/* The platform may have to be asked for it, which costs more than the call. */
static void find_ip(TesTask *t, TesBpfData *d) {
  if (!d->data.instruction_pointer)
    d->data.instruction_pointer = tes_task_regs(t, FALSE)->rip;
}

static void describe_call(TesTask *t, TesBpfData *d) {
  d->data.nr = (int)t->trap.nr;
  d->data.arch = t->trap.foreign_abi == TES_ABI_I386 ? AUDIT_ARCH_I386 : AUDIT_ARCH_X86_64;
  d->data.instruction_pointer = t->trap.ip;
  if (t->trap.foreign_abi == TES_ABI_I386)
    i386_args(t, d);
  else
    for (guint i = 0; i < 6; i++)
      d->data.args[i] = t->trap.args[i];
}

/* SIGSYS with the registers as before the call, so that a handler can do something else in its place. */
static void raise_sigsys(TesTask *t, TesBpfData *d, int reason) {
  TesRegs *r = tes_task_regs(t, TRUE);
  d->data.instruction_pointer = r->rip;
  r->rax = r->orig_rax;
  siginfo_t info = {.si_signo = SIGSYS, .si_code = CODE_SECCOMP, .si_errno = reason};
  info.si_call_addr = (void *)d->data.instruction_pointer; /* NOLINT: an address of the guest */
  info.si_syscall = d->data.nr;
  info.si_arch = d->data.arch;
  tes_signal_force(t, &info);
}

static void kill_by(TesTask *t, gboolean process, int sig) {
  if (process || tes_tg_n_live(t->tg) == 1)
    tes_task_group_exit(t, sig);
  else
    tes_task_exit(t, sig);
}

/* read, write, exit and rt_sigreturn; anything else is SIGKILL for the thread (seccomp(2), SECCOMP_SET_MODE_STRICT). */
static gboolean strict_permits(TesTask *t) {
  gulong nr = t->trap.nr;
  if (!t->trap.foreign_abi && (nr == SYS_read || nr == SYS_write || nr == SYS_exit || nr == SYS_rt_sigreturn))
    return TRUE;
  t->no_result = TRUE;
  kill_by(t, FALSE, SIGKILL);
  return FALSE;
}

/* by: the filter that said so; NULL: none did. */
static gboolean act(TesTask *t, TesBpfData *d, guint32 verdict, const TesSeccomp *by, glong *result) {
  guint32 data = verdict & SECCOMP_RET_DATA;
  switch (action_of(verdict)) {
  case SECCOMP_RET_ALLOW:
  case SECCOMP_RET_LOG:
    return TRUE;
  case SECCOMP_RET_ERRNO:
    *result = -(glong)MIN(data, MAX_ERRNO);
    t->no_result = TRUE; /* to the guest as it is: it may look like one of the core's restart codes */
    t->exec->ops->set_result(t->exec, (gulong)*result);
    return FALSE;
  case SECCOMP_RET_USER_NOTIF:
    find_ip(t, d);
    if (by && by->listener)
      return tes_listener_ask(by->listener, t, &d->data, result);
    *result = -ENOSYS;
    return FALSE;
  case SECCOMP_RET_TRACE: /* nobody traces */
    *result = -ENOSYS;
    return FALSE;
  case SECCOMP_RET_TRAP:
    t->no_result = TRUE;
    raise_sigsys(t, d, (int)data);
    return FALSE;
  default:
    t->no_result = TRUE;
    kill_by(t, action_of(verdict) != SECCOMP_RET_KILL_THREAD, SIGSYS);
    return FALSE;
  }
}

static void log_action(TesTask *t, const TesBpfData *d, guint32 verdict, const TesSeccomp *by) {
  guint32 action = action_of(verdict);
  if (action == SECCOMP_RET_LOG || (by && by->log && action != SECCOMP_RET_ALLOW))
    tes_debug("seccomp: process %d (%s), call %d, arch %x, ip %llx: action %08x", t->tg->tgid, t->comm,
              d->data.nr, d->data.arch, (unsigned long long)d->data.instruction_pointer, verdict);
}

/* TSYNC gives the other threads no_new_privs too. Only the task itself changes its credentials, and at no better time than before it
 * can make use of them. */
static void adopt_no_new_privs(TesTask *t) {
  TesCred *c = tes_cred_copy(t->cred);
  c->no_new_privs = TRUE;
  tes_task_set_cred(t, c);
}

gboolean tes_seccomp_permits(TesTask *t, glong *result) {
  const TesSeccomp *chain = g_atomic_pointer_get(&t->seccomp), *by = NULL;
  gulong nr = t->trap.nr;
  *result = 0;
  if (chain->strict)
    return strict_permits(t);
  if (G_UNLIKELY(chain->no_new_privs && !t->cred->no_new_privs))
    adopt_no_new_privs(t);
  if (!t->trap.foreign_abi && nr < TES_SYSCALL_MAX && is_in(chain->allowed, (guint)nr))
    return TRUE;
  TesBpfData d;
  describe_call(t, &d);
  if (G_UNLIKELY(chain->reads_ip))
    find_ip(t, &d);
  guint32 verdict = run_chain(chain, &d, &by);
  log_action(t, &d, verdict, by);
  return act(t, &d, verdict, by, result);
}

/* ---- Installing ---- */

static void find_allowed(TesSeccomp *s) {
  TesBpfData d = {.data.arch = AUDIT_ARCH_X86_64};
  for (guint nr = 0; nr < TES_SYSCALL_MAX; nr++) {
    guint32 r;
    d.data.nr = (int)nr;
    if (tes_bpf_run(s->insn, &d, WORD_NR_ARCH, &r) && action_of(r) == SECCOMP_RET_ALLOW)
      s->own_allowed[nr / 64] |= 1ULL << nr % 64;
  }
}

static gboolean reads_ip(const TesSeccomp *s) {
  const guint ip = offsetof(struct seccomp_data, instruction_pointer);
  for (guint i = 0; i < s->n; i++)
    if (s->insn[i].code == (BPF_LD | BPF_W | BPF_ABS) && (s->insn[i].k == ip || s->insn[i].k == ip + 4))
      return TRUE;
  return FALSE;
}

/* The guest's program, checked: *out, not linked to anything yet. */
static int read_filter(TesTask *t, gulong from, TesSeccomp **out) {
  struct {
    guint16 len;
    guint64 filter;
  } prog; /* struct sock_fprog */
  if (tes_copy_in(t, &prog, from, sizeof prog) < 0)
    return -EFAULT;
  if (prog.len == 0 || prog.len > BPF_MAXINSNS)
    return -EINVAL;
  if (!t->cred->no_new_privs && !tes_task_capable(t, CAP_SYS_ADMIN))
    return -EACCES;
  if (!prog.filter)
    return -EINVAL;
  g_autoptr(TesSeccomp) s = filter_new(prog.len);
  if (!s)
    return -ENOMEM;
  if (tes_copy_in(t, s->insn, prog.filter, prog.len * sizeof s->insn[0]) < 0)
    return -EFAULT;
  int r = tes_bpf_check(s->insn, s->n);
  if (r < 0)
    return r;
  s->no_new_privs = t->cred->no_new_privs;
  s->reads_ip = reads_ip(s);
  find_allowed(s);
  *out = g_steal_pointer(&s);
  return 0;
}

static gboolean is_within(const TesSeccomp *s, const TesSeccomp *chain) {
  while (chain && chain != s)
    chain = chain->prev;
  return chain == s;
}

/* The first other thread whose filters are not all the caller's, or NULL. task-set lock held. */
static TesTask *unlike(TesTask *t) {
  for (GList *l = t->tg->threads.head; l; l = l->next) {
    TesTask *o = l->data;
    if (o != t && !o->is_dead && o->seccomp && !is_within(o->seccomp, t->seccomp))
      return o;
  }
  return NULL;
}

/* In the task's own thread: its platform answers no calls by itself from now on. */
static void filtered(TesTask *t, gpointer data) {
  (void)data;
  if (t == tes_task_current() && t->exec)
    tes_task_tell_facts(t);
}

/* transfer full: s, which is the task's from now on. task-set lock held. */
static void put_on(TesTask *t, TesSeccomp *s) {
  TesSeccomp *old = t->seccomp;
  g_atomic_pointer_set(&t->seccomp, s);
  filter_unref(old); /* lives on in the new chain */
}

static void put_on_others(TesTask *t) {
  for (GList *l = t->tg->threads.head; l; l = l->next) {
    TesTask *o = l->data;
    if (o == t || o->is_dead)
      continue;
    put_on(o, filter_ref(t->seccomp));
    tes_task_add_work(o, filtered, NULL);
  }
}

/* Locked. */
static glong attach(TesTask *t, TesSeccomp **filter, gulong flags) {
  TesSeccomp *s = *filter, *prev = t->seccomp;
  if (prev && prev->strict)
    return -EINVAL;
  guint path = s->n + (prev ? prev->path : 0);
  if (path > MAX_PATH_INSNS)
    return -ENOMEM;
  for (const TesSeccomp *p = s->listener ? prev : NULL; p; p = p->prev)
    if (p->listener)
      return -EBUSY;
  TesTask *other = flags & SECCOMP_FILTER_FLAG_TSYNC ? unlike(t) : NULL;
  if (other)
    return flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH ? -ESRCH : tes_pid_in(tes_pid_of(other->nrs), t->ns_pid);
  s->path = path + PENALTY;
  s->count = 1 + (prev ? prev->count : 0);
  for (guint i = 0; i < G_N_ELEMENTS(s->allowed); i++)
    s->allowed[i] = s->own_allowed[i] & (prev ? prev->allowed[i] : G_MAXUINT64);
  s->reads_ip |= prev && prev->reads_ip;
  s->prev = prev ? filter_ref(prev) : NULL;
  put_on(t, g_steal_pointer(filter));
  if (flags & SECCOMP_FILTER_FLAG_TSYNC)
    put_on_others(t);
  return 0;
}

#define FLAGS                                                                             \
  (SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW | \
   SECCOMP_FILTER_FLAG_TSYNC_ESRCH | SECCOMP_FILTER_FLAG_NEW_LISTENER |                   \
   SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)

static gboolean flags_fit(gulong flags) {
  gboolean listener = flags & SECCOMP_FILTER_FLAG_NEW_LISTENER;
  /* A thread's number and a descriptor could not be told apart. */
  if (listener && flags & SECCOMP_FILTER_FLAG_TSYNC && !(flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH))
    return FALSE;
  return !(flags & ~FLAGS) && (listener || !(flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV));
}

static glong attach_and_tell(TesTask *t, TesSeccomp **s, gulong flags) {
  tes_mutex_lock(&t->kernel->task_set);
  glong r = attach(t, s, flags);
  tes_mutex_unlock(&t->kernel->task_set);
  if (r == 0)
    tes_task_tell_facts(t);
  return r;
}

/* The listener's descriptor, or what attach() says. */
static glong attach_with_listener(TesTask *t, TesSeccomp **s, gulong flags) {
  int fd = tes_fd_reserve(t, TRUE);
  if (fd < 0)
    return fd;
  g_autoptr(TesFile) f = NULL;
  (*s)->listener = tes_listener_new(t->kernel, (flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) != 0, &f);
  glong r = attach_and_tell(t, s, flags);
  tes_fd_fill(t, fd, r == 0 ? f : NULL);
  return r == 0 ? fd : r;
}

static glong set_filter(TesTask *t, gulong flags, gulong from) {
  if (!flags_fit(flags))
    return -EINVAL;
  g_autoptr(TesSeccomp) s = NULL;
  int r = read_filter(t, from, &s);
  if (r < 0)
    return r;
  s->log = (flags & SECCOMP_FILTER_FLAG_LOG) != 0;
  if (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
    return attach_with_listener(t, &s, flags);
  return attach_and_tell(t, &s, flags);
}

static glong set_strict(TesTask *t) {
  g_autoptr(TesSeccomp) s = filter_new(0);
  if (!s)
    return -ENOMEM;
  s->strict = TRUE;
  tes_mutex_lock(&t->kernel->task_set);
  gboolean can = !t->seccomp || t->seccomp->strict;
  if (can)
    put_on(t, g_steal_pointer(&s));
  tes_mutex_unlock(&t->kernel->task_set);
  if (can)
    tes_task_tell_facts(t);
  return can ? 0 : -EINVAL;
}

/* ---- Life ---- */

void tes_seccomp_inherit(const TesTask *parent, TesTask *child) {
  if (!parent->seccomp)
    return;
  child->seccomp = filter_ref(parent->seccomp);
  if (parent->seccomp->no_new_privs && !child->cred->no_new_privs) { /* the parent has yet to adopt it */
    TesCred *old = child->cred, *c = tes_cred_copy(old);
    c->no_new_privs = TRUE;
    child->cred = c;
    tes_cred_unref(old);
  }
}

void tes_seccomp_release(TesTask *t) { filter_unref(g_steal_pointer(&t->seccomp)); }

void tes_task_seccomp(TesTask *t, gint *mode, guint *filters) {
  TES_LOCKED(&t->kernel->task_set);
  const TesSeccomp *s = t->seccomp;
  *mode = !s ? SECCOMP_MODE_DISABLED : s->strict ? SECCOMP_MODE_STRICT : SECCOMP_MODE_FILTER;
  *filters = s ? s->count : 0;
}

/* ---- Calls ---- */

static glong action_available(TesTask *t, gulong from) {
  static const guint32 actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                                    SECCOMP_RET_ERRNO,        SECCOMP_RET_USER_NOTIF,  SECCOMP_RET_TRACE,
                                    SECCOMP_RET_LOG,          SECCOMP_RET_ALLOW};
  guint32 action;
  if (tes_copy_in(t, &action, from, sizeof action) < 0)
    return -EFAULT;
  for (guint i = 0; i < G_N_ELEMENTS(actions); i++)
    if (action == actions[i])
      return 0;
  return -EOPNOTSUPP;
}

glong tes_seccomp(TesTask *t, const gulong a[6]) {
  static const struct seccomp_notif_sizes sizes = {
      sizeof(struct seccomp_notif), sizeof(struct seccomp_notif_resp), sizeof(struct seccomp_data)};
  gulong flags = (guint32)a[1], arg = a[2];
  switch ((guint32)a[0]) {
  case SECCOMP_SET_MODE_STRICT:
    return flags || arg ? -EINVAL : set_strict(t);
  case SECCOMP_SET_MODE_FILTER:
    return set_filter(t, flags, arg);
  case SECCOMP_GET_ACTION_AVAIL:
    return flags ? -EINVAL : action_available(t, arg);
  case SECCOMP_GET_NOTIF_SIZES:
    return flags ? -EINVAL : tes_copy_out(t, arg, &sizes, sizeof sizes);
  default:
    return -EINVAL;
  }
}

glong tes_seccomp_prctl(TesTask *t, gulong mode, gulong filter) {
  switch (mode) {
  case SECCOMP_MODE_STRICT:
    return set_strict(t);
  case SECCOMP_MODE_FILTER:
    return set_filter(t, 0, filter);
  default:
    return -EINVAL;
  }
}
