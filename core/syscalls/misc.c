/* SPDX-License-Identifier: Apache-2.0 */
/* Calls about the system as a whole: uname, host name, sysinfo, random bytes, the log; rows of prctl.c and limits.c; and
 * rows of calls that this kernel has not got. Interface: tes_sys_misc. */
#include <core/syscalls/misc.h>
#include <core/task/life.h>
#include <core/task/seccomp.h>
#include <linux/capability.h>
#include <linux/reboot.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#define RELEASE "6.1.0-tessera"
#define VERSION "#1 SMP PREEMPT_DYNAMIC Tessera"

/* ---- Names ---- */

static glong sys_uname(TesTask *t, const gulong a[6]) {
  struct utsname u = {.sysname = "Linux", .release = RELEASE, .version = VERSION, .machine = "x86_64"};
  TesUtsNs *n = TES_UTS_NS(t->ns_uts);
  tes_mutex_lock(&n->lock);
  memcpy(u.nodename, n->nodename, sizeof u.nodename);
  memcpy(u.domainname, n->domainname, sizeof u.domainname);
  tes_mutex_unlock(&n->lock);
  return tes_copy_out(t, a[0], &u, sizeof u);
}

static glong set_uts(TesTask *t, const gulong a[6], gsize field) {
  char name[65] = {0};
  gint len = (gint)a[1];
  if (!tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  if (len < 0 || len > 64)
    return -EINVAL;
  if (tes_copy_in(t, name, a[0], len))
    return -EFAULT;
  TesUtsNs *n = TES_UTS_NS(t->ns_uts);
  TES_LOCKED(&n->lock);
  memcpy((char *)n + field, name, sizeof name);
  return 0;
}

static glong sys_sethostname(TesTask *t, const gulong a[6]) {
  return set_uts(t, a, G_STRUCT_OFFSET(TesUtsNs, nodename));
}
static glong sys_setdomainname(TesTask *t, const gulong a[6]) {
  return set_uts(t, a, G_STRUCT_OFFSET(TesUtsNs, domainname));
}

/* ---- The machine ---- */

static glong sys_sysinfo(TesTask *t, const gulong a[6]) {
  struct sysinfo host, s = {.mem_unit = 1};
  if (sysinfo(&host) < 0)
    return -errno;
  s.uptime = tes_time_boot(t->kernel) / TES_NSEC;
  s.totalram = host.totalram * host.mem_unit;
  s.freeram = host.freeram * host.mem_unit;
  s.bufferram = host.bufferram * host.mem_unit;
  s.sharedram = tes_memfile_usage(t->kernel->memfile, TES_MEM_FILE);
  s.procs = (unsigned short)MIN(g_atomic_int_get(&t->kernel->n_tasks), G_MAXUINT16);
  return tes_copy_out(t, a[0], &s, sizeof s);
}

#ifndef GRND_INSECURE
#define GRND_INSECURE 4
#endif
#define RANDOM_MAX 33554431 /* most bytes of one call (random(4)) */

/* A large request stops at a signal, after at least 256 bytes. */
static glong sys_getrandom(TesTask *t, const gulong a[6]) {
  guchar buf[4096];
  gsize want = MIN(a[1], RANDOM_MAX), done = 0;
  guint flags = (guint)a[2];
  if (flags & ~(guint)(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) ||
      (flags & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE))
    return -EINVAL;
  while (done < want) {
    gsize n = MIN(want - done, sizeof buf);
    gssize got = getrandom(buf, n, 0);
    if (got <= 0)
      return done ? (glong)done : -EAGAIN;
    gsize moved = tes_mm_copy_out(t->mm, a[0] + done, buf, got);
    done += moved;
    if (moved < (gsize)got)
      return done ? (glong)done : -EFAULT;
    if (tes_signal_pending(t) && done < want)
      break;
  }
  return (glong)done;
}

/* ---- The log ---- */

enum {
  LOG_CLOSE,
  LOG_OPEN,
  LOG_READ,
  LOG_READ_ALL,
  LOG_READ_CLEAR,
  LOG_CLEAR,
  LOG_OFF,
  LOG_ON,
  LOG_LEVEL,
  LOG_UNREAD,
  LOG_SIZE
};

static glong read_log(TesTask *t, gulong to, gint len) {
  const char *text = tes_kernel_syslog(t->kernel);
  gsize all = strlen(text), n = MIN((gsize)len, all);
  if (!to || len < 0)
    return -EINVAL;
  return tes_copy_out(t, to, text + all - n, n) ? -EFAULT : (glong)n; /* the newest lines */
}

/* The log never changes, so nothing is ever unread; clearing and console levels have no effect to show. */
static glong sys_syslog(TesTask *t, const gulong a[6]) {
  int type = (int)a[0];
  if (type != LOG_READ_ALL && type != LOG_SIZE && !tes_task_capable(t, CAP_SYSLOG) &&
      !tes_task_capable(t, CAP_SYS_ADMIN))
    return -EPERM;
  switch (type) {
  case LOG_READ_ALL:
  case LOG_READ_CLEAR:
    return read_log(t, a[1], (gint)a[2]);
  case LOG_CLOSE:
  case LOG_OPEN:
  case LOG_CLEAR:
  case LOG_OFF:
  case LOG_ON:
  case LOG_UNREAD:
    return 0;
  case LOG_LEVEL:
    return (gint)a[2] < 1 || (gint)a[2] > 8 ? -EINVAL : 0;
  case LOG_SIZE:
    return (glong)strlen(tes_kernel_syslog(t->kernel));
  default:
    return -EINVAL; /* LOG_READ would wait for ever */
  }
}

/* ---- Things that only an administrator of a real machine may do ---- */

static glong sys_vhangup(TesTask *t, const gulong a[6]) {
  (void)a;
  if (!tes_task_capable(t, CAP_SYS_TTY_CONFIG))
    return -EPERM;
  TesTty *tty = tes_task_tty(t);
  if (!tty)
    return 0;
  tes_tty_vanished(t->kernel, tty);
  if (TES_HAS(tty->ops, hangup))
    tty->ops->hangup(tty);
  tty->ops->unref(tty);
  return 0;
}

static glong never_permitted(TesTask *t, const gulong a[6]) {
  (void)t, (void)a;
  return -EPERM;
}

/* reboot(2): what a container's init gets: its pid namespace ends. */
static glong sys_reboot(TesTask *t, const gulong a[6]) {
  (void)t;
  if ((guint32)a[0] != LINUX_REBOOT_MAGIC1 && tes_task_capable(t, CAP_SYS_BOOT))
    return -EINVAL;
  return -EPERM;
}

#define REFUSED(nr_, name_, args_)                                                                       \
  {                                                                                                      \
    SYS_##nr_, name_, never_permitted, TES_PARTIAL, "always EPERM: there is no such thing in a sandbox", \
        args_                                                                                            \
  }
#define ABSENT(nr_, note_) \
  { SYS_##nr_, #nr_, NULL, TES_NONE, note_, "" }
#define OLD "removed from Linux"

static const TesSyscall rows[] = {
    {SYS_uname, "uname", sys_uname, TES_FULL, NULL, "p"},
    {SYS_getrlimit, "getrlimit", tes_do_getrlimit, TES_FULL, NULL, "dp"},
    {SYS_getrusage, "getrusage", tes_do_getrusage, TES_PARTIAL,
     "no block I/O counts; times in ticks of 10 ms", "dp"},
    {SYS_sysinfo, "sysinfo", sys_sysinfo, TES_PARTIAL, "no load averages, no swap", "p"},
    {SYS_syslog, "syslog", sys_syslog, TES_PARTIAL, "a fixed text; SYSLOG_ACTION_READ is EINVAL", "dpd"},
    {SYS_personality, "personality", tes_do_personality, TES_PARTIAL, "only ADDR_NO_RANDOMIZE has an effect",
     "x"},
    {SYS_vhangup, "vhangup", sys_vhangup, TES_FULL, NULL, ""},
    {SYS_prctl, "prctl", tes_do_prctl, TES_PARTIAL,
     "no speculation control, PR_TSC_SIGSEGV, PR_SET_MM_MAP, PR_SET_VMA; THP_DISABLE is a hint", "dxxxx"},
    {SYS_arch_prctl, "arch_prctl", tes_do_arch_prctl, TES_PARTIAL,
     "CPUID faulting and shadow stacks are not offered", "xp"},
    {SYS_setrlimit, "setrlimit", tes_do_setrlimit, TES_FULL, NULL, "dp"},
    {SYS_sethostname, "sethostname", sys_sethostname, TES_FULL, NULL, "pd"},
    {SYS_setdomainname, "setdomainname", sys_setdomainname, TES_FULL, NULL, "pd"},
    {SYS_prlimit64, "prlimit64", tes_do_prlimit64, TES_FULL, NULL, "ddpp"},
    {SYS_getrandom, "getrandom", sys_getrandom, TES_FULL, NULL, "pux"},
    {SYS_reboot, "reboot", sys_reboot, TES_PARTIAL, "always refused", "xxdp"},
    REFUSED(acct, "acct", "s"),
    REFUSED(swapon, "swapon", "sd"),
    REFUSED(swapoff, "swapoff", "s"),
    REFUSED(iopl, "iopl", "d"),
    REFUSED(ioperm, "ioperm", "uud"),
    REFUSED(init_module, "init_module", "pus"),
    REFUSED(delete_module, "delete_module", "sx"),
    REFUSED(finit_module, "finit_module", "fsd"),
    REFUSED(kexec_load, "kexec_load", "uupx"),
    REFUSED(kexec_file_load, "kexec_file_load", "ffusx"),
    ABSENT(ptrace, "a later plugin"),
    {SYS_seccomp, "seccomp", tes_seccomp, TES_PARTIAL,
     "TRACE is ENOSYS; LOG goes to the log at level debug; strict mode leaves RDTSC usable; a vsyscall has "
     "the ip of its caller",
     "uxp"},
    ABSENT(rseq, "host CPU numbers are not shown (DESIGN.md, decision 8)"),
    ABSENT(modify_ldt, "64-bit programs only"),
    ABSENT(set_thread_area, "64-bit programs only"),
    ABSENT(get_thread_area, "64-bit programs only"),
    ABSENT(uselib, OLD),
    ABSENT(sysfs, "file systems are listed in /proc/filesystems"),
    ABSENT(_sysctl, OLD),
    ABSENT(create_module, OLD),
    ABSENT(get_kernel_syms, OLD),
    ABSENT(query_module, OLD),
    ABSENT(nfsservctl, OLD),
    ABSENT(getpmsg, "never existed in Linux"),
    ABSENT(putpmsg, "never existed in Linux"),
    ABSENT(afs_syscall, "never existed in Linux"),
    ABSENT(tuxcall, "never existed in Linux"),
    ABSENT(security, "never existed in Linux"),
    ABSENT(vserver, "never existed in Linux"),
    ABSENT(epoll_ctl_old, "never existed in Linux"),
    ABSENT(epoll_wait_old, "never existed in Linux"),
    ABSENT(lookup_dcookie, OLD),
    ABSENT(add_key, "no keyrings"),
    ABSENT(request_key, "no keyrings"),
    ABSENT(keyctl, "no keyrings"),
    ABSENT(perf_event_open, "host counters are not shown"),
    ABSENT(bpf, "not in a sandbox"),
    ABSENT(userfaultfd, "not yet"),
    ABSENT(landlock_create_ruleset, "not yet"),
    ABSENT(landlock_add_rule, "not yet"),
    ABSENT(landlock_restrict_self, "not yet"),
    ABSENT(memfd_secret, "not yet"),
};

const TesSyscallTable tes_sys_misc = TES_ROWS(rows);
