/* SPDX-License-Identifier: Apache-2.0 */
/* ids.c - credentials, capabilities, prctl(2), resource limits, uname, sysinfo, affinity, personality. */
#include "check.h"

#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

static void check_uids(uid_t r, uid_t e, uid_t s) {
  uid_t a, b, c;

  SYS(getresuid(&a, &b, &c));
  CHECK_EQ(a, r);
  CHECK_EQ(b, e);
  CHECK_EQ(c, s);
  CHECK_EQ(getuid(), r);
  CHECK_EQ(geteuid(), e);
}

#define NEED_ROOT()                                                      \
  do {                                                                   \
    if (getuid() != 0 || !have_cap(CAP_SETUID) || !have_cap(CAP_SETGID)) \
      SKIP("needs root with CAP_SETUID and CAP_SETGID");                 \
  } while (0)

/* Raw calls: glibc's wrappers signal every thread, which is not what is tested. */
#define RAW(nr, ...) syscall(SYS_##nr, __VA_ARGS__)

TEST(setuid_privileged_and_not) {
  NEED_ROOT();
  WAIT_OK(CHILD(SYS(RAW(setuid, 1000)); check_uids(1000, 1000, 1000); CHECK_ERRNO(RAW(setuid, 0), EPERM);
                CHECK_OK(RAW(setuid, 1000)); CHECK_ERRNO(RAW(setuid, 1001), EPERM)));
  WAIT_OK(CHILD(SYS(RAW(setresuid, 1000, 1001, 1002)); SYS(RAW(setuid, 1002)); check_uids(1000, 1002, 1002)));
  CHECK_ERRNO(RAW(setuid, -1), EINVAL);
}

TEST(setreuid_rules) {
  NEED_ROOT();
  WAIT_OK(CHILD(SYS(RAW(setreuid, 1000, 1001)); check_uids(1000, 1001, 1001); SYS(RAW(setreuid, 1001, 1000));
                check_uids(1001, 1000, 1000); CHECK_ERRNO(RAW(setreuid, 5, -1), EPERM);
                CHECK_OK(RAW(setreuid, -1, -1))));
  WAIT_OK(CHILD(SYS(RAW(setreuid, -1, 1000)); check_uids(0, 1000, 1000); SYS(RAW(setreuid, 1000, -1));
                check_uids(1000, 1000, 1000)));
}

TEST(setresuid_rules) {
  NEED_ROOT();
  WAIT_OK(CHILD(SYS(RAW(setresuid, 1, 2, 3)); check_uids(1, 2, 3); SYS(RAW(setresuid, 3, 1, 2));
                check_uids(3, 1, 2); CHECK_ERRNO(RAW(setresuid, 4, -1, -1), EPERM); check_uids(3, 1, 2);
                CHECK_ERRNO(RAW(getresuid, 8, 8, 8), EFAULT)));
}

TEST(setgid_family) {
  NEED_ROOT();
  WAIT_OK(CHILD(gid_t a; gid_t b; gid_t c; SYS(RAW(setresgid, 10, 11, 12)); SYS(getresgid(&a, &b, &c));
                CHECK(a == 10 && b == 11 && c == 12); SYS(RAW(setresuid, 1000, 1000, 1000));
                CHECK_ERRNO(RAW(setgid, 13), EPERM); SYS(RAW(setgid, 12)); CHECK_EQ(getegid(), 12);
                CHECK_EQ(getgid(), 10); SYS(RAW(setregid, 12, 10)); CHECK_EQ(getgid(), 12)));
}

TEST(supplementary_groups) {
  NEED_ROOT();
  WAIT_OK(CHILD(gid_t set[3] = {30, 10, 20}; gid_t got[10]; SYS(RAW(setgroups, 3, set));
                CHECK_EQ(getgroups(0, NULL), 3); CHECK_EQ(getgroups(10, got), 3);
                int sum = (int)(got[0] + got[1] + got[2]); CHECK_EQ(sum, 60);
                CHECK_ERRNO(getgroups(2, got), EINVAL); CHECK_ERRNO(getgroups(-1, got), EINVAL);
                CHECK_ERRNO(RAW(setgroups, 70000, set), EINVAL); SYS(RAW(setgroups, 0, NULL));
                CHECK_EQ(getgroups(0, NULL), 0); SYS(RAW(setresuid, 1000, 1000, 1000));
                CHECK_ERRNO(RAW(setgroups, 1, set), EPERM)));
}

TEST(fsuid) {
  NEED_ROOT();
  tmp_dir(); /* made as root */
  WAIT_OK(CHILD(CHECK_EQ(setfsuid(1000), 0); CHECK_EQ(setfsuid((uid_t)-1), 1000); struct stat st;
                close((int)SYS(open(tmp_path("f"), O_CREAT | O_WRONLY, 0600))); SYS(stat(tmp_path("f"), &st));
                CHECK_EQ(st.st_uid, 1000); CHECK_EQ(geteuid(), 0)));
}

static void get_caps(uint64_t *eff, uint64_t *perm, uint64_t *inh) {
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2] = {{0}};

  SYS(syscall(SYS_capget, &h, d));
  *eff = d[0].effective | (uint64_t)d[1].effective << 32;
  *perm = d[0].permitted | (uint64_t)d[1].permitted << 32;
  *inh = d[0].inheritable | (uint64_t)d[1].inheritable << 32;
}

static long set_caps(uint64_t eff, uint64_t perm, uint64_t inh) {
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2] = {
      {(uint32_t)eff, (uint32_t)perm, (uint32_t)inh},
      {(uint32_t)(eff >> 32), (uint32_t)(perm >> 32), (uint32_t)(inh >> 32)}};
  return syscall(SYS_capset, &h, d);
}

TEST(capabilities_drop_and_stay_dropped) {
  uint64_t e, p, i;

  get_caps(&e, &p, &i);
  if (!p)
    SKIP("no capabilities to drop");
  uint64_t low = p & -p;
  WAIT_OK(CHILD(SYS(set_caps(e & ~low, p, i)); SYS(set_caps(e, p, i)); /* down and up again */
                SYS(set_caps(e & ~low, p & ~low, i & ~low)); CHECK_ERRNO(set_caps(e, p, i), EPERM);
                uint64_t e2; uint64_t p2; uint64_t i2; get_caps(&e2, &p2, &i2); CHECK_EQ(p2, p & ~low)));
  CHECK_ERRNO(set_caps(p, p & ~low, 0), EPERM); /* effective beyond permitted */
}

TEST(capabilities_header) {
  struct __user_cap_header_struct h = {0x12345678, 0};
  struct __user_cap_data_struct d[2];

  CHECK_ERRNO(syscall(SYS_capget, &h, d), EINVAL);
  CHECK_EQ(h.version, _LINUX_CAPABILITY_VERSION_3); /* told what it should be */
  h.pid = 0x3ffffff;
  CHECK_ERRNO(syscall(SYS_capget, &h, d), ESRCH);
  h.pid = -1;
  CHECK_ERRNO(syscall(SYS_capget, &h, d), EINVAL);
}

TEST(capabilities_go_with_root) {
  NEED_ROOT();
  WAIT_OK(CHILD(uint64_t e; uint64_t p; uint64_t i; SYS(RAW(setresuid, -1, 1000, -1)); get_caps(&e, &p, &i);
                CHECK_EQ(e, 0); CHECK(p != 0); SYS(RAW(setresuid, -1, 0, -1)); get_caps(&e, &p, &i);
                CHECK(e != 0); SYS(RAW(setresuid, 1000, 1000, 1000)); get_caps(&e, &p, &i);
                CHECK_EQ(e | p, 0)));
  WAIT_OK(CHILD(uint64_t e; uint64_t p; uint64_t i; SYS(prctl(PR_SET_KEEPCAPS, 1));
                SYS(RAW(setresuid, 1000, 1000, 1000)); get_caps(&e, &p, &i); CHECK_EQ(e, 0); CHECK(p != 0)));
}

TEST(prctl_name) {
  char name[17];

  memset(name, 'x', sizeof name);
  SYS(prctl(PR_SET_NAME, "0123456789abcdefXYZ"));
  SYS(prctl(PR_GET_NAME, name));
  CHECK_STR(name, "0123456789abcde");
  CHECK_ERRNO(prctl(PR_SET_NAME, 8), EFAULT);
}

TEST(prctl_switches) {
  int v = -1;

  CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
  SYS(prctl(PR_SET_DUMPABLE, 0));
  CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
  CHECK_ERRNO(prctl(PR_SET_DUMPABLE, 2), EINVAL);
  SYS(prctl(PR_SET_PDEATHSIG, SIGUSR1));
  SYS(prctl(PR_GET_PDEATHSIG, &v));
  CHECK_EQ(v, SIGUSR1);
  WAIT_OK(CHILD(SYS(prctl(PR_GET_PDEATHSIG, &v)); CHECK_EQ(v, 0)));
  CHECK_ERRNO(prctl(PR_SET_PDEATHSIG, 65), EINVAL);
  CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) & ~1, 0);
  SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
  CHECK_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
  CHECK_ERRNO(prctl(123456), EINVAL);
}

TEST(rlimits_table) {
  for (int i = 0; i < RLIM_NLIMITS; i++) {
    struct rlimit r, s;
    SYS(getrlimit((__rlimit_resource_t)i, &r));
    CHECK(r.rlim_cur <= r.rlim_max);
    CHECK_OK(setrlimit((__rlimit_resource_t)i, &r));
    SYS(prlimit(0, (__rlimit_resource_t)i, NULL, &s));
    CHECK(r.rlim_cur == s.rlim_cur && r.rlim_max == s.rlim_max);
  }
  struct rlimit r = {5, 4};
  CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &r), EINVAL);
  CHECK_ERRNO(syscall(SYS_getrlimit, 99, &r), EINVAL);
  CHECK_ERRNO(syscall(SYS_getrlimit, 7, 8), EFAULT);
  CHECK_ERRNO(prlimit(0x3ffffff, RLIMIT_NOFILE, NULL, &r), ESRCH);
}

TEST(rlimits_soft_and_hard) {
  NEED_ROOT();
  WAIT_OK(CHILD(struct rlimit r = {100, 200}; SYS(setrlimit(RLIMIT_NOFILE, &r));
                SYS(RAW(setresuid, 1000, 1000, 1000)); r.rlim_cur = 200;
                CHECK_OK(setrlimit(RLIMIT_NOFILE, &r)); r.rlim_max = 201;
                CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &r), EPERM); r.rlim_cur = r.rlim_max = 150;
                CHECK_OK(setrlimit(RLIMIT_NOFILE, &r)); r.rlim_max = 200;
                CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &r), EPERM)));
}

TEST(prlimit_of_a_child) {
  pid_t pid = CHILD(for (;;) pause());
  struct rlimit r = {64, 64}, old;

  SYS(prlimit(pid, RLIMIT_CORE, &(struct rlimit){0, 0}, NULL));
  SYS(prlimit(pid, RLIMIT_NOFILE, &r, &old));
  SYS(prlimit(pid, RLIMIT_NOFILE, NULL, &old));
  CHECK_EQ(old.rlim_cur, 64);
  SYS(getrlimit(RLIMIT_NOFILE, &old));
  CHECK(old.rlim_cur != 64);
  kill(pid, SIGKILL);
  check_wait(pid);
}

/* Issue 2, Robustness: a guest that forks without bound meets RLIMIT_NPROC, as a user without capabilities. */
TEST_LIMIT(nproc_stops_a_fork_bomb, 20) {
  NEED_ROOT();
  WAIT_OK(CHILD(struct rlimit r = {40, 40}; SYS(setrlimit(RLIMIT_NPROC, &r));
                SYS(RAW(setresgid, 4321, 4321, 4321)); SYS(RAW(setresuid, 4321, 4321, 4321));
                SYS(setpgid(0, 0)); int made = 0; int err = 0; for (int i = 0; i < 200; i++) {
                  pid_t pid = fork();
                  if (pid == 0) {
                    pause();
                    _exit(0);
                  }
                  if (pid < 0) {
                    err = errno;
                    break;
                  }
                  made++;
                } CHECK_EQ(err, EAGAIN);
                CHECK(made >= 30 && made <= 40); signal(SIGTERM, SIG_IGN); kill(0, SIGTERM);
                for (int i = 0; i < made; i++) wait(NULL); CHECK_OK(waitpid(CHILD(_exit(0)), NULL, 0))));
}

static void bomb(int depth) {
  for (int i = 0; i < 3; i++)
    if (fork() == 0 && depth > 0)
      bomb(depth - 1);
  pause();
}

TEST_LIMIT(fork_bomb_is_killable, 20) {
  NEED_ROOT();
  int status =
      check_wait(CHILD(struct rlimit r = {60, 60}; SYS(setrlimit(RLIMIT_NPROC, &r));
                       SYS(RAW(setresgid, 4322, 4322, 4322)); SYS(RAW(setresuid, 4322, 4322, 4322));
                       SYS(setpgid(0, 0)); if (fork() == 0) bomb(6); sleep_ms(300); kill(0, SIGKILL)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(uname_fields) {
  struct utsname u;

  SYS(uname(&u));
  CHECK_STR(u.sysname, "Linux");
  CHECK_STR(u.machine, "x86_64");
  CHECK(u.release[0] >= '3' && u.release[0] <= '9');
  CHECK(strlen(u.nodename) > 0);
  char host[65] = "";
  SYS(gethostname(host, sizeof host));
  CHECK_STR(host, u.nodename);
}

TEST(hostname_permission) {
  NEED_ROOT();
  WAIT_OK(CHILD(SYS(RAW(setresuid, 1000, 1000, 1000)); CHECK_ERRNO(sethostname("x", 1), EPERM)));
  CHECK_ERRNO(sethostname("x", (size_t)-1), EINVAL);
  CHECK_ERRNO(sethostname("x", 100), EINVAL);
}

TEST(sysinfo_fields) {
  struct sysinfo si;
  struct timespec ts;

  SYS(sysinfo(&si));
  SYS(clock_gettime(CLOCK_BOOTTIME, &ts));
  CHECK(labs(si.uptime - ts.tv_sec) <= 2);
  CHECK(si.totalram > 0 && si.freeram <= si.totalram);
  CHECK(si.procs >= 1);
  CHECK(si.mem_unit >= 1);
  CHECK_ERRNO(syscall(SYS_sysinfo, 8), EFAULT);
}

/* X2, X4: the mask's count is the number of processors; set then get a subset. */
TEST(affinity) {
  cpu_set_t all, one, got;
  int first = -1;

  long n = SYS(syscall(SYS_sched_getaffinity, 0, sizeof all, memset(&all, 0, sizeof all)));
  CHECK(n >= 8 && n % 8 == 0);
  CHECK(CPU_COUNT(&all) >= 1 && CPU_COUNT(&all) <= sysconf(_SC_NPROCESSORS_CONF));
  for (int c = 0; c < CPU_SETSIZE && first < 0; c++)
    if (CPU_ISSET(c, &all))
      first = c;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  SYS(sched_setaffinity(0, sizeof one, &one));
  SYS(sched_getaffinity(0, sizeof got, &got));
  CHECK(CPU_EQUAL(&one, &got));
  WAIT_OK(CHILD(SYS(sched_getaffinity(0, sizeof got, &got)); CHECK(CPU_EQUAL(&one, &got)); /* inherited */
                unsigned cpu; SYS(getcpu(&cpu, NULL)); CHECK_EQ(cpu, first)));
  CPU_ZERO(&one);
  CHECK_ERRNO(sched_setaffinity(0, sizeof one, &one), EINVAL);
  CPU_SET(1000, &one);
  CHECK_ERRNO(sched_setaffinity(0, sizeof one, &one), EINVAL);
  CHECK_ERRNO(syscall(SYS_sched_getaffinity, 0, 1, &got), EINVAL);
  CHECK_ERRNO(sched_getaffinity(0x3ffffff, sizeof got, &got), ESRCH);
  CHECK_ERRNO(syscall(SYS_sched_getaffinity, 0, 8, 8), EFAULT);
  SYS(sched_setaffinity(0, sizeof all, &all));
}

TEST(scheduler_calls) {
  struct sched_param p = {0};

  CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
  CHECK_OK(sched_getparam(0, &p));
  CHECK_EQ(p.sched_priority, 0);
  CHECK_OK(sched_yield());
  CHECK_EQ(sched_get_priority_max(SCHED_OTHER), 0);
  CHECK_EQ(sched_get_priority_max(SCHED_FIFO), 99);
  CHECK_ERRNO(sched_get_priority_min(77), EINVAL);
  p.sched_priority = 5;
  CHECK_ERRNO(sched_setscheduler(0, SCHED_OTHER, &p), EINVAL);
  CHECK_ERRNO(sched_getscheduler(0x3ffffff), ESRCH);
}

TEST(personality_query) {
  CHECK_EQ(personality(0xffffffff), 0);
  CHECK_OK(personality(ADDR_NO_RANDOMIZE));
  CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE);
  WAIT_OK(CHILD(CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE)));
  CHECK_OK(personality(0));
}

TEST(unknown_syscalls) {
  CHECK_ERRNO(syscall(5000), ENOSYS);
  CHECK_ERRNO(syscall(-1), ENOSYS);
  CHECK_ERRNO(syscall(0x7fffffff), ENOSYS);
  CHECK_ERRNO(syscall(SYS_tuxcall), ENOSYS);
  CHECK_ERRNO(syscall(SYS_nfsservctl), ENOSYS);
}

/* DESIGN.md decision 9: x32 calls and int 0x80 get ENOSYS in the sandbox, whatever the host offers. */
TEST(foreign_abis) {
  long r = SYS_getpid | 0x40000000;

  if (!check_in_sandbox)
    SKIP("the host may offer x32 and 32-bit calls");
  __asm__ volatile("syscall" : "+a"(r) : : "rcx", "r11", "memory");
  CHECK_EQ(r, -ENOSYS);
  int status = check_wait(CHILD(long v = 20; __asm__ volatile("int $0x80"
                                                              : "+a"(v)
                                                              :
                                                              : "memory", "r8", "r9", "r10", "r11");
                                CHECK_EQ((int)v, -ENOSYS)));
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
        (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
}

TEST(vsyscall_page) {
  /* Emulated, or not there: then SIGSEGV. Never the host's own answer unseen by the kernel. */
  int status = check_wait(CHILD(time_t t = ((time_t(*)(time_t *))0xffffffffff600400ul)(NULL);
                                time_t now = time(NULL); CHECK(t >= now - 3 && t <= now + 3)));
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
        (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
}

TEST(getpid_family) {
  CHECK_EQ(getpid(), syscall(SYS_getpid));
  CHECK_EQ(gettid(), getpid());
  CHECK_EQ(getpgid(0), getpgrp());
  CHECK(getsid(0) > 0 || getsid(0) == 0);
  CHECK(getppid() >= 0);
}
