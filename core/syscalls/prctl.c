/* SPDX-License-Identifier: Apache-2.0 */
/* prctl(2), arch_prctl(2), personality(2). Operations that are not served answer EINVAL, as a kernel built without them.
 * Interface: tes_do_prctl(), tes_do_arch_prctl(), tes_do_personality() for misc.c's rows. */
#include <core/syscalls/misc.h>
#include <core/task/life.h>
#include <core/task/seccomp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>

#define ALL_SECUREBITS ((guint32)(SECURE_ALL_BITS | SECURE_ALL_LOCKS))

static glong put_int(TesTask *t, gulong to, gint v) { return tes_copy_out(t, to, &v, sizeof v); }

/* ---- Capabilities and security bits ---- */

static glong bounding(TesTask *t, gulong cap, gboolean drop) {
  if (cap > CAP_LAST_CAP || !(TES_CAP_ALL & (1ULL << cap)))
    return -EINVAL;
  if (!drop)
    return t->cred->cap_bounding >> cap & 1;
  if (!tes_task_capable(t, CAP_SETPCAP))
    return -EPERM;
  TesCred *c = tes_cred_copy(t->cred);
  c->cap_bounding &= ~(1ULL << cap);
  tes_task_set_cred(t, c);
  return 0;
}

static glong raise_ambient(TesTask *t, guint64 bit) {
  const TesCred *old = t->cred;
  if (!(old->cap_permitted & old->cap_inheritable & bit) || old->securebits & SECBIT_NO_CAP_AMBIENT_RAISE)
    return -EPERM;
  TesCred *c = tes_cred_copy(old);
  c->cap_ambient |= bit;
  tes_task_set_cred(t, c);
  return 0;
}

static glong ambient(TesTask *t, const gulong a[6]) {
  gulong op = a[1], cap = a[2];
  if (a[3] || a[4] || (op == PR_CAP_AMBIENT_CLEAR_ALL && cap))
    return -EINVAL;
  if (op != PR_CAP_AMBIENT_CLEAR_ALL && (cap > CAP_LAST_CAP || !(TES_CAP_ALL & (1ULL << cap))))
    return -EINVAL;
  guint64 bits = op == PR_CAP_AMBIENT_CLEAR_ALL ? TES_CAP_ALL : 1ULL << cap;
  if (op == PR_CAP_AMBIENT_IS_SET)
    return (t->cred->cap_ambient & bits) != 0;
  if (op == PR_CAP_AMBIENT_RAISE)
    return raise_ambient(t, bits);
  if (op != PR_CAP_AMBIENT_LOWER && op != PR_CAP_AMBIENT_CLEAR_ALL)
    return -EINVAL;
  TesCred *c = tes_cred_copy(t->cred);
  c->cap_ambient &= ~bits;
  tes_task_set_cred(t, c);
  return 0;
}

static void set_securebits_raw(TesTask *t, guint32 bits) {
  TesCred *c = tes_cred_copy(t->cred);
  c->securebits = bits;
  tes_task_set_cred(t, c);
}

/* Locked bits stay, locks are not opened (capabilities(7), "The securebits flags"). */
static glong set_securebits(TesTask *t, gulong arg) {
  guint32 old = t->cred->securebits, want = (guint32)arg;
  if (arg & ~(gulong)ALL_SECUREBITS)
    return -EPERM;
  if ((old & SECURE_ALL_LOCKS) >> 1 & (old ^ want) || old & SECURE_ALL_LOCKS & ~want ||
      !tes_task_capable(t, CAP_SETPCAP))
    return -EPERM;
  set_securebits_raw(t, want);
  return 0;
}

static glong set_keep_caps(TesTask *t, gulong arg) {
  guint32 bits = t->cred->securebits;
  if (arg > 1)
    return -EINVAL;
  if (bits & SECBIT_KEEP_CAPS_LOCKED)
    return -EPERM;
  set_securebits_raw(t, arg ? bits | SECBIT_KEEP_CAPS : bits & ~(guint32)SECBIT_KEEP_CAPS);
  return 0;
}

static glong no_new_privs(TesTask *t, const gulong a[6], gboolean set) {
  if (a[2] || a[3] || a[4] || a[1] != (set ? 1 : 0))
    return -EINVAL;
  if (!set)
    return t->cred->no_new_privs;
  TesCred *c = tes_cred_copy(t->cred);
  c->no_new_privs = TRUE;
  tes_task_set_cred(t, c);
  return 0;
}

static glong seccomp_mode(TesTask *t) {
  gint mode;
  guint filters;
  tes_task_seccomp(t, &mode, &filters);
  return mode;
}

/* ---- The process ---- */

static glong set_name(TesTask *t, gulong from) {
  char name[16];
  gssize n = tes_copy_in_str(t, name, from, sizeof name);
  if (n == -EFAULT)
    return -EFAULT;
  if (n < 0) { /* longer: cut (prctl(2)) */
    if (tes_copy_in(t, name, from, sizeof name - 1))
      return -EFAULT;
    name[15] = '\0';
  }
  return tes_task_set_comm(t, name);
}

static glong get_name(TesTask *t, gulong to) {
  char name[16];
  tes_mutex_lock(&t->lock);
  memcpy(name, t->comm, sizeof name);
  tes_mutex_unlock(&t->lock);
  return tes_copy_out(t, to, name, sizeof name);
}

static glong set_pdeath(TesTask *t, gulong sig) {
  if (sig > TES_NSIG)
    return -EINVAL;
  g_atomic_int_set(&t->pdeath_signal, (gint)sig);
  return 0;
}

static glong set_dumpable(TesTask *t, gulong arg) {
  if (arg > 1)
    return -EINVAL;
  t->tg->dumpable = arg == 1;
  return 0;
}

static glong set_timer_slack(TesTask *t, gulong arg) {
  t->timer_slack = (glong)arg <= 0 ? t->default_timer_slack : arg;
  return 0;
}

static glong thp(TesTask *t, const gulong a[6], gboolean set) {
  if (a[2] || a[3] || a[4] || (!set && a[1]))
    return -EINVAL;
  if (!set)
    return t->thp_disable;
  t->thp_disable = a[1] != 0; /* a hint: there are no huge pages of ours to keep away */
  return 0;
}

static glong set_mm_field(TesTask *t, gulong op, gulong addr) {
  TesMMLayout y;
  tes_mm_get_layout(t->mm, &y);
  gulong *field[] = {
      [PR_SET_MM_START_CODE] = &y.code_start,   [PR_SET_MM_END_CODE] = &y.code_end,
      [PR_SET_MM_START_DATA] = &y.data_start,   [PR_SET_MM_END_DATA] = &y.data_end,
      [PR_SET_MM_START_STACK] = &y.stack_start, [PR_SET_MM_ARG_START] = &y.arg_start,
      [PR_SET_MM_ARG_END] = &y.arg_end,         [PR_SET_MM_ENV_START] = &y.env_start,
      [PR_SET_MM_ENV_END] = &y.env_end,
  };
  if (op >= G_N_ELEMENTS(field) || !field[op])
    return -EINVAL;
  if (addr < t->kernel->platform->min_addr || addr >= t->kernel->platform->max_addr)
    return -EINVAL;
  *field[op] = addr;
  tes_mm_set_layout(t->mm, &y);
  return 0;
}

static glong set_mm(TesTask *t, const gulong a[6]) {
  if (a[4] || (a[3] && a[1] != PR_SET_MM_AUXV))
    return -EINVAL;
  if (!tes_task_capable(t, CAP_SYS_RESOURCE))
    return -EPERM;
  if (a[1] == PR_SET_MM_EXE_FILE) {
    g_autoptr(TesFile) f = tes_fd_get(t, (int)a[2]);
    if (!f)
      return -EBADF;
    if (!f->inode || !S_ISREG(f->inode->mode))
      return -EACCES;
    tes_mm_set_exe(t->mm, f);
    return 0;
  }
  return set_mm_field(t, a[1], a[2]);
}

glong tes_do_prctl(TesTask *t, const gulong a[6]) {
  switch ((int)a[0]) {
  case PR_SET_PDEATHSIG:
    return set_pdeath(t, a[1]);
  case PR_GET_PDEATHSIG:
    return put_int(t, a[1], t->pdeath_signal);
  case PR_GET_DUMPABLE:
    return t->tg->dumpable;
  case PR_SET_DUMPABLE:
    return set_dumpable(t, a[1]);
  case PR_GET_KEEPCAPS:
    return (t->cred->securebits & SECBIT_KEEP_CAPS) != 0;
  case PR_SET_KEEPCAPS:
    return set_keep_caps(t, a[1]);
  case PR_GET_TIMING:
    return PR_TIMING_STATISTICAL;
  case PR_SET_TIMING:
    return a[1] == PR_TIMING_STATISTICAL ? 0 : -EINVAL;
  case PR_SET_NAME:
    return set_name(t, a[1]);
  case PR_GET_NAME:
    return get_name(t, a[1]);
  case PR_GET_SECCOMP:
    return seccomp_mode(t);
  case PR_SET_SECCOMP:
    return tes_seccomp_prctl(t, a[1], a[2]);
  case PR_CAPBSET_READ:
    return bounding(t, a[1], FALSE);
  case PR_CAPBSET_DROP:
    return bounding(t, a[1], TRUE);
  case PR_GET_TSC:
    return put_int(t, a[1], PR_TSC_ENABLE);
  case PR_SET_TSC:
    return a[1] == PR_TSC_ENABLE ? 0 : -EINVAL;
  case PR_GET_SECUREBITS:
    return t->cred->securebits;
  case PR_SET_SECUREBITS:
    return set_securebits(t, a[1]);
  case PR_SET_TIMERSLACK:
    return set_timer_slack(t, a[1]);
  case PR_GET_TIMERSLACK:
    return (glong)MIN(t->timer_slack, G_MAXINT);
  case PR_SET_MM:
    return set_mm(t, a);
  case PR_SET_CHILD_SUBREAPER:
    t->tg->child_subreaper = a[1] != 0;
    return 0;
  case PR_GET_CHILD_SUBREAPER:
    return put_int(t, a[1], t->tg->child_subreaper);
  case PR_SET_NO_NEW_PRIVS:
    return no_new_privs(t, a, TRUE);
  case PR_GET_NO_NEW_PRIVS:
    return no_new_privs(t, a, FALSE);
  case PR_GET_TID_ADDRESS:
    return tes_copy_out(t, a[1], &t->clear_child_tid, sizeof t->clear_child_tid);
  case PR_SET_THP_DISABLE:
    return thp(t, a, TRUE);
  case PR_GET_THP_DISABLE:
    return thp(t, a, FALSE);
  case PR_CAP_AMBIENT:
    return ambient(t, a);
  default:
    return -EINVAL;
  }
}

/* ---- arch_prctl ---- */

enum {
  SET_GS = 0x1001,
  SET_FS = 0x1002,
  GET_FS = 0x1003,
  GET_GS = 0x1004,
  GET_CPUID = 0x1011,
  SET_CPUID = 0x1012
};

glong tes_do_arch_prctl(TesTask *t, const gulong a[6]) {
  gulong addr = a[1];
  switch ((int)a[0]) {
  case SET_GS:
  case SET_FS:
    if (addr >= t->kernel->platform->max_addr)
      return -EPERM;
    /* What rewritten code jumps to finds its data through %gs. */
    if ((int)a[0] == SET_GS && addr && tes_mm_unpatch_all(t->mm) < 0)
      return -ENOMEM;
    if ((int)a[0] == SET_FS)
      tes_task_regs(t, TRUE)->fs_base = addr;
    else
      tes_task_regs(t, TRUE)->gs_base = addr;
    return 0;
  case GET_FS:
    return tes_copy_out(t, addr, &tes_task_regs(t, FALSE)->fs_base, sizeof addr);
  case GET_GS:
    return tes_copy_out(t, addr, &tes_task_regs(t, FALSE)->gs_base, sizeof addr);
  case GET_CPUID:
    return 1;
  case SET_CPUID:
    return addr ? 0 : -ENODEV; /* as a CPU that cannot make CPUID fault */
  default:
    return -EINVAL;
  }
}

glong tes_do_personality(TesTask *t, const gulong a[6]) {
  gulong old = t->personality;
  if ((guint32)a[0] != G_MAXUINT32)
    t->personality = (guint32)a[0];
  return (glong)old;
}
