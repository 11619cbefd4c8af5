/* SPDX-License-Identifier: Apache-2.0 */
/* signals-basic.c - sigaction(2) flags, masks, pending signals, queues, waiting, alternate stacks, kill(2) targets. */
#include "check.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <ucontext.h>

static volatile int hits, last_sig, nested_max, depth;
static volatile siginfo_t info;

static void count(int sig) {
  hits++;
  last_sig = sig;
}

static void keep_info(int sig, siginfo_t *si, void *uc) {
  hits++;
  *(siginfo_t *)&info = *si;
}

TEST(handler_runs_once_per_signal) {
  on_signal(SIGUSR1, count, 0);
  for (int i = 0; i < 100; i++)
    SYS(raise(SIGUSR1));
  CHECK_EQ(hits, 100);
  CHECK_EQ(last_sig, SIGUSR1);
}

TEST(sigaction_reads_back) {
  struct sigaction sa = {.sa_handler = count, .sa_flags = SA_RESTART | SA_NODEFER}, old;

  sa.sa_mask = sigset_of(SIGUSR2, SIGHUP, 0);
  SYS(sigaction(SIGUSR1, &sa, NULL));
  SYS(sigaction(SIGUSR1, NULL, &old));
  CHECK(old.sa_handler == count);
  CHECK_EQ(old.sa_flags & (SA_RESTART | SA_NODEFER | SA_SIGINFO | SA_RESETHAND), SA_RESTART | SA_NODEFER);
  CHECK(sigismember(&old.sa_mask, SIGUSR2) == 1);
  CHECK(sigismember(&old.sa_mask, SIGINT) == 0);
}

TEST(sigaction_arguments) {
  struct sigaction sa = {.sa_handler = count};

  CHECK_ERRNO(sigaction(SIGKILL, &sa, NULL), EINVAL);
  CHECK_ERRNO(sigaction(SIGSTOP, &sa, NULL), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, 0, NULL, NULL, 8), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, 65, NULL, NULL, 8), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 16), EINVAL);
  CHECK_OK(syscall(SYS_rt_sigaction, 64, NULL, NULL, 8));
  CHECK_ERRNO(syscall(SYS_rt_sigprocmask, 77, &(unsigned long){1}, NULL, 8), EINVAL);
  CHECK_OK(syscall(SYS_rt_sigprocmask, 77, NULL, NULL, 8)); /* without a set "how" is not looked at */
  CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &(unsigned long){1}, NULL, 4), EINVAL);
}

TEST(kill_and_stop_cannot_be_blocked) {
  sigset_t all, now;

  sigfillset(&all);
  SYS(sigprocmask(SIG_SETMASK, &all, NULL));
  SYS(sigprocmask(SIG_SETMASK, NULL, &now));
  CHECK(!sigismember(&now, SIGKILL) && !sigismember(&now, SIGSTOP));
  CHECK(sigismember(&now, SIGUSR1) && sigismember(&now, 64));
  int status = check_wait(CHILD(kill(getpid(), SIGKILL); sleep(5)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(blocked_signal_stays_pending) {
  sigset_t set = sigset_of(SIGUSR1, 0), pending;

  on_signal(SIGUSR1, count, 0);
  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
  for (int i = 0; i < 5; i++)
    kill(getpid(), SIGUSR1);
  CHECK_EQ(hits, 0);
  SYS(sigpending(&pending));
  CHECK(sigismember(&pending, SIGUSR1) == 1);
  CHECK(sigismember(&pending, SIGUSR2) == 0);
  SYS(sigprocmask(SIG_UNBLOCK, &set, NULL));
  CHECK_EQ(hits, 1); /* a standard signal does not queue */
  SYS(sigpending(&pending));
  CHECK(sigismember(&pending, SIGUSR1) == 0);
}

TEST(ignoring_discards_pending) {
  on_signal(SIGUSR1, count, 0);
  block_signal(SIGUSR1);
  kill(getpid(), SIGUSR1);
  signal(SIGUSR1, SIG_IGN);
  on_signal(SIGUSR1, count, 0);
  sigset_t set = sigset_of(SIGUSR1, 0);
  SYS(sigprocmask(SIG_UNBLOCK, &set, NULL));
  CHECK_EQ(hits, 0);
}

static int order[16], norder;

static void note_order(int sig, siginfo_t *si, void *uc) {
  if (norder < 16)
    order[norder++] = sig * 1000 + si->si_value.sival_int;
}

TEST(realtime_signals_queue_in_order) {
  sigset_t set = sigset_of(SIGRTMIN + 1, SIGRTMIN + 2, 0);

  for (int s = 1; s <= 2; s++) {
    struct sigaction sa = {.sa_sigaction = note_order, .sa_flags = SA_SIGINFO, .sa_mask = set};
    SYS(sigaction(SIGRTMIN + s, &sa, NULL));
  }
  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
  for (int i = 0; i < 3; i++) {
    SYS(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = i}));
    SYS(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 10 + i}));
  }
  SYS(sigprocmask(SIG_UNBLOCK, &set, NULL));
  CHECK_EQ(norder, 6);
  int a = 0, b = 0;
  for (int i = 0; i < norder; i++) { /* each signal's own order is first in, first out */
    if (order[i] / 1000 == SIGRTMIN + 1)
      CHECK_EQ(order[i] % 1000, 10 + a++);
    else
      CHECK_EQ(order[i] % 1000, b++);
  }
  CHECK_EQ(a, 3);
}

TEST(sigqueue_info) {
  on_siginfo(SIGUSR1, keep_info, 0);
  SYS(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_ptr = (void *)0x1122334455667788}));
  CHECK_EQ(hits, 1);
  CHECK_EQ(info.si_code, SI_QUEUE);
  CHECK_EQ(info.si_pid, getpid());
  CHECK_EQ(info.si_uid, getuid());
  CHECK_EQ(info.si_value.sival_ptr, 0x1122334455667788);
  CHECK_ERRNO(sigqueue(getpid(), 65, (union sigval){0}), EINVAL);
  CHECK_ERRNO(sigqueue(0x3ffffff, SIGUSR1, (union sigval){0}), ESRCH);
}

TEST(rt_sigqueueinfo_cannot_forge) {
  siginfo_t si = {.si_signo = SIGUSR1, .si_code = SI_USER};

  block_signal(SIGUSR1);
  pid_t other = CHILD(sleep_ms(3000));
  CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, other, SIGUSR1, &si), EPERM);
  si.si_code = SI_TKILL;
  CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, other, SIGUSR1, &si), EPERM);
  si.si_code = SI_KERNEL;
  CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, other, SIGUSR1, &si), EPERM);
  si.si_code = -60;
  CHECK_OK(syscall(SYS_rt_sigqueueinfo, other, 0, &si));
  kill(other, SIGKILL);
  check_wait(other);
  si.si_code = SI_USER; /* to oneself anything goes */
  CHECK_OK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &si));
}

TEST(kill_info) {
  on_siginfo(SIGUSR1, keep_info, 0);
  SYS(kill(getpid(), SIGUSR1));
  CHECK_EQ(info.si_code, SI_USER);
  CHECK_EQ(info.si_pid, getpid());
  SYS(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
  CHECK_EQ(info.si_code, SI_TKILL);
  CHECK_EQ(hits, 2);
}

static void nest(int sig) {
  depth++;
  if (depth > nested_max)
    nested_max = depth;
  if (hits++ < 3)
    raise(sig);
  depth--;
}

TEST(handler_masks_its_own_signal) {
  on_signal(SIGUSR1, nest, 0);
  raise(SIGUSR1);
  CHECK_EQ(nested_max, 1);
  CHECK_EQ(hits, 4);
}

TEST(nodefer_nests) {
  on_signal(SIGUSR1, nest, SA_NODEFER);
  raise(SIGUSR1);
  CHECK_EQ(nested_max, 4);
}

static void raise_usr2(int sig) {
  int before = hits;
  raise(SIGUSR2);
  nested_max = hits - before;
}

TEST(sa_mask_blocks_others_while_handling) {
  struct sigaction sa = {.sa_handler = raise_usr2, .sa_mask = sigset_of(SIGUSR2, 0)};

  on_signal(SIGUSR2, count, 0);
  SYS(sigaction(SIGUSR1, &sa, NULL));
  raise(SIGUSR1);
  CHECK_EQ(nested_max, 0);
  CHECK_EQ(hits, 1); /* delivered when the first handler was done */
  on_signal(SIGUSR1, raise_usr2, 0);
  raise(SIGUSR1);
  CHECK_EQ(nested_max, 1);
}

TEST(resethand) {
  on_signal(SIGUSR1, count, SA_RESETHAND);
  raise(SIGUSR1);
  CHECK_EQ(hits, 1);
  struct sigaction now;
  SYS(sigaction(SIGUSR1, NULL, &now));
  CHECK(now.sa_handler == SIG_DFL);
  int status = check_wait(CHILD(raise(SIGUSR1)));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
}

static void *volatile handler_sp;

static void note_sp(int sig) {
  handler_sp = __builtin_frame_address(0);
  hits++;
}

TEST(altstack_is_used) {
  char *mem = map_anon(65536, PROT_READ | PROT_WRITE);
  stack_t ss = {.ss_sp = mem, .ss_size = 65536}, old;

  SYS(sigaltstack(NULL, &old));
  CHECK_EQ(old.ss_flags, SS_DISABLE);
  SYS(sigaltstack(&ss, NULL));
  on_signal(SIGUSR1, note_sp, SA_ONSTACK);
  on_signal(SIGUSR2, note_sp, 0);
  raise(SIGUSR1);
  CHECK((char *)handler_sp > mem && (char *)handler_sp < mem + 65536);
  raise(SIGUSR2);
  CHECK((char *)handler_sp < mem || (char *)handler_sp >= mem + 65536);
  SYS(sigaltstack(NULL, &old));
  CHECK(old.ss_sp == mem && old.ss_flags == 0 && old.ss_size == 65536);
}

static void change_altstack(int sig) {
  stack_t now, other = {.ss_sp = map_anon(65536, PROT_READ | PROT_WRITE), .ss_size = 65536};

  CHECK_OK(sigaltstack(NULL, &now));
  CHECK_EQ(now.ss_flags & SS_ONSTACK, SS_ONSTACK);
  CHECK_ERRNO(sigaltstack(&other, NULL), EPERM);
  hits++;
}

TEST(altstack_arguments) {
  char *mem = map_anon(65536, PROT_READ | PROT_WRITE);
  stack_t ss = {.ss_sp = mem, .ss_size = 1024};

  CHECK_ERRNO(sigaltstack(&ss, NULL), ENOMEM);
  ss.ss_size = 65536;
  ss.ss_flags = 0x40;
  CHECK_ERRNO(sigaltstack(&ss, NULL), EINVAL);
  CHECK_ERRNO(syscall(SYS_sigaltstack, 8, NULL), EFAULT);
  ss.ss_flags = 0;
  SYS(sigaltstack(&ss, NULL));
  on_signal(SIGUSR1, change_altstack, SA_ONSTACK);
  raise(SIGUSR1);
  CHECK_EQ(hits, 1);
  ss.ss_flags = SS_DISABLE;
  CHECK_OK(sigaltstack(&ss, NULL));
}

TEST(sigsuspend_swaps_the_mask) {
  sigset_t wait = sigset_of(SIGHUP, 0), now;

  on_signal(SIGUSR1, count, 0);
  block_signal(SIGUSR1);
  pid_t parent = getpid();
  pid_t pid = CHILD(sleep_ms(20); kill(parent, SIGUSR1));
  CHECK_ERRNO(sigsuspend(&wait), EINTR);
  CHECK_EQ(hits, 1);
  SYS(sigprocmask(SIG_SETMASK, NULL, &now));
  CHECK(sigismember(&now, SIGUSR1) && !sigismember(&now, SIGHUP));
  WAIT_OK(pid);
  kill(getpid(), SIGUSR1); /* already pending: no wait at all */
  CHECK_ERRNO(sigsuspend(&wait), EINTR);
  CHECK_EQ(hits, 2);
}

TEST(sigtimedwait_takes_a_pending_signal) {
  sigset_t set = sigset_of(SIGUSR1, SIGRTMIN + 3, 0);
  siginfo_t si;
  struct timespec zero = {0};

  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
  CHECK_ERRNO(sigtimedwait(&set, &si, &zero), EAGAIN);
  SYS(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 42}));
  CHECK_EQ(sigtimedwait(&set, &si, &zero), SIGRTMIN + 3);
  CHECK_EQ(si.si_value.sival_int, 42);
  CHECK_EQ(si.si_code, SI_QUEUE);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR1);
  CHECK_EQ(si.si_signo, SIGUSR1);
  CHECK_ERRNO(sigtimedwait(&set, &si, &zero), EAGAIN);
}

TEST(sigtimedwait_blocks_and_times_out) {
  sigset_t set = sigset_of(SIGUSR1, 0);
  struct timespec ts = ts_ms(50), bad = {0, 1000000000};

  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
  int64_t start = now_ns();
  CHECK_ERRNO(sigtimedwait(&set, NULL, &ts), EAGAIN);
  CHECK(now_ns() - start >= 49000000);
  CHECK_ERRNO(sigtimedwait(&set, NULL, &bad), EINVAL);
  pid_t parent = getpid(), pid = CHILD(sleep_ms(20); kill(parent, SIGUSR1));
  ts = ts_ms(8000);
  siginfo_t si;
  CHECK_EQ(sigtimedwait(&set, &si, &ts), SIGUSR1);
  CHECK_EQ(si.si_pid, pid);
  on_signal(SIGUSR2, count, SA_RESTART);
  WAIT_OK(pid);
  pid = CHILD(sleep_ms(20); kill(parent, SIGUSR2));
  CHECK_ERRNO(sigtimedwait(&set, &si, &ts), EINTR); /* another signal, caught: never restarted */
  WAIT_OK(pid);
}

TEST(kill_targets) {
  CHECK_OK(kill(getpid(), 0));
  CHECK_ERRNO(kill(getpid(), 65), EINVAL);
  CHECK_ERRNO(kill(getpid(), -1), EINVAL);
  CHECK_ERRNO(kill(0x3ffffff, 0), ESRCH);
  CHECK_ERRNO(kill(-0x3ffffff, 0), ESRCH);
  pid_t zombie = CHILD(_exit(0));
  siginfo_t si;
  SYS(waitid(P_PID, (id_t)zombie, &si, WEXITED | WNOWAIT));
  CHECK_OK(kill(zombie, SIGTERM)); /* a zombie is still there */
  check_wait(zombie);
  CHECK_ERRNO(kill(zombie, 0), ESRCH);
}

TEST(kill_process_group) {
  pid_t leader = CHILD(setpgid(0, 0); pause());
  setpgid(leader, leader);
  pid_t member = CHILD(setpgid(0, leader); pause());
  setpgid(member, leader);
  CHECK_OK(kill(-leader, SIGTERM));
  int a = check_wait(leader), b = check_wait(member);
  CHECK(WIFSIGNALED(a) && WTERMSIG(a) == SIGTERM);
  CHECK(WIFSIGNALED(b) && WTERMSIG(b) == SIGTERM);
}

TEST(kill_permission) {
  if (getuid() != 0 || !have_cap(7 /* CAP_SETUID */))
    SKIP("needs root with CAP_SETUID");
  pid_t root = getpid();
  int ready[2];
  char c;
  SYS(pipe(ready));
  pid_t peer = CHILD(SYS(setresuid(1001, 1001, 1001)); write_full(ready[1], "x", 1); pause());
  read_full(ready[0], &c, 1);
  WAIT_OK(CHILD(SYS(setresuid(1000, 1000, 1000)); CHECK_ERRNO(kill(root, SIGUSR1), EPERM);
                CHECK_ERRNO(kill(peer, 0), EPERM); CHECK_OK(kill(getpid(), 0));
                /* SIGCONT within one session needs no permission. */
                CHECK_OK(kill(root, SIGCONT))));
  WAIT_OK(CHILD(SYS(setresuid(1001, 1001, 1001)); CHECK_OK(kill(peer, SIGTERM))));
  int status = check_wait(peer);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(default_actions) {
  static const int deadly[] = {SIGHUP,  SIGINT,    SIGPIPE, SIGALRM,   SIGTERM, SIGUSR1, SIGUSR2,
                               SIGPROF, SIGVTALRM, SIGXCPU, SIGXFSZ,   SIGQUIT, SIGABRT, SIGTRAP,
                               SIGSYS,  SIGIO,     SIGPWR,  SIGSTKFLT, 34,      64};
  for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) {
    int status = check_wait(CHILD(kill(getpid(), deadly[i]); sleep(3)));
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), deadly[i]);
  }
  static const int quiet[] = {SIGCHLD, SIGCONT, SIGURG, SIGWINCH};
  for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++)
    WAIT_OK(CHILD(kill(getpid(), quiet[i])));
}

static sigjmp_buf jump;

static void jump_out(int sig) { siglongjmp(jump, 1); }

TEST(siglongjmp_out_of_handlers) {
  on_signal(SIGUSR1, jump_out, 0);
  for (volatile int i = 0; i < 100; i++)
    if (sigsetjmp(jump, 1) == 0) {
      raise(SIGUSR1);
      CHECK(!"reached");
    } else {
      hits++;
    }
  CHECK_EQ(hits, 100);
}

TEST(siglongjmp_off_the_altstack) {
  stack_t ss = {.ss_sp = map_anon(65536, PROT_READ | PROT_WRITE), .ss_size = 65536}, now;

  SYS(sigaltstack(&ss, NULL));
  on_signal(SIGUSR1, jump_out, SA_ONSTACK);
  for (volatile int i = 0; i < 10; i++)
    if (sigsetjmp(jump, 1) == 0)
      raise(SIGUSR1);
  SYS(sigaltstack(NULL, &now));
  CHECK_EQ(now.ss_flags, 0); /* whether we are on it follows the stack pointer */
}

TEST(mask_inherited_pending_not) {
  block_signal(SIGUSR1);
  kill(getpid(), SIGUSR1);
  WAIT_OK(CHILD(sigset_t now; sigset_t pending; SYS(sigprocmask(SIG_SETMASK, NULL, &now));
                SYS(sigpending(&pending)); CHECK(sigismember(&now, SIGUSR1));
                CHECK(!sigismember(&pending, SIGUSR1))));
}

TEST(sigpending_of_thread_and_process) {
  sigset_t set;

  block_signal(SIGUSR1);
  block_signal(SIGUSR2);
  SYS(syscall(SYS_tkill, gettid(), SIGUSR1));
  SYS(kill(getpid(), SIGUSR2));
  SYS(sigpending(&set));
  CHECK(sigismember(&set, SIGUSR1) && sigismember(&set, SIGUSR2));
}

TEST(tkill_arguments) {
  CHECK_ERRNO(syscall(SYS_tkill, 0, SIGUSR1), EINVAL);
  CHECK_ERRNO(syscall(SYS_tkill, -1, SIGUSR1), EINVAL);
  CHECK_ERRNO(syscall(SYS_tgkill, -1, gettid(), SIGUSR1), EINVAL);
  CHECK_ERRNO(syscall(SYS_tgkill, getpid(), 0x3ffffff, SIGUSR1), ESRCH);
  CHECK_ERRNO(syscall(SYS_tgkill, getppid(), gettid(), SIGUSR1), ESRCH);
  CHECK_ERRNO(syscall(SYS_tkill, gettid(), 65), EINVAL);
}

TEST(rlimit_sigpending) {
  WAIT_OK(CHILD(block_signal(SIGRTMIN + 1); struct rlimit r = {500, 500};
                SYS(setrlimit(RLIMIT_SIGPENDING, &r)); int n = 0;
                while (n < 2000 && sigqueue(getpid(), SIGRTMIN + 1, (union sigval){0}) == 0) n++;
                CHECK_EQ(errno, EAGAIN); CHECK(n >= 10 && n <= 500)));
}
