/* SPDX-License-Identifier: Apache-2.0 */
#include "hostile-stub.h"

/* Readable there: the stub's image. Only mapped by platform systrap. */
bool stub_here(void) {
  return check_in_sandbox && touch_read((const char *)ST_BASE, NULL) == 0 &&
         memcmp((const char *)ST_BASE, "\177ELF", 4) == 0;
}

/* ---- Jumps into the stub ---- */

/* Loads r, jumps to `at`; comes back through come_back (where r->r15 leads), with rax. Clobbers everything. */
__asm__(".text\n"
        ".globl jump_and_return\n"
        "jump_and_return:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, saved_sp(%rip)\n"
        "  push %rsi\n"
        "  mov %rdi, %r11\n"
        "  mov 0(%r11), %rax; mov 8(%r11), %rdi; mov 16(%r11), %rsi; mov 24(%r11), %rdx\n"
        "  mov 32(%r11), %r10; mov 40(%r11), %r8; mov 48(%r11), %r9; mov 56(%r11), %rbx\n"
        "  mov 64(%r11), %rbp; mov 72(%r11), %r12; mov 80(%r11), %r13; mov 88(%r11), %r14\n"
        "  mov 96(%r11), %r15; mov 104(%r11), %rcx\n"
        "  ret\n"
        ".globl come_back\n"
        "come_back:\n"
        "  mov saved_sp(%rip), %rsp\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "  ret\n"
        ".local saved_sp\n"
        ".comm saved_sp, 8, 8\n");

/* Addresses in the stub of the two bytes of a syscall instruction, wherever they stand. */
int find_syscalls(unsigned long *at, int max) {
  const unsigned char *p = (const unsigned char *)ST_BASE;
  int n = 0;

  for (unsigned long i = 0; i + 1 < ST_CODE_MAX && n < max; i++)
    if (p[i] == 0x0f && p[i + 1] == 0x05)
      at[n++] = ST_BASE + i;
  return n;
}

/* A system call made by the stub's instruction; no other thread of the process may do the same. */
long call_at(unsigned long at, long nr, long a, long b, long c, long d, long e, long f) {
  Regs r = {.rax = (unsigned long)nr,
            .rdi = (unsigned long)a,
            .rsi = (unsigned long)b,
            .rdx = (unsigned long)c,
            .r10 = (unsigned long)d,
            .r8 = (unsigned long)e,
            .r9 = (unsigned long)f,
            .r15 = (unsigned long)come_back};
  return jump_and_return(&r, at);
}

unsigned long my_slot(void) {
  unsigned long at;
  __asm__("rdgsbase %0" : "=r"(at));
  return at;
}

volatile StIn *slot_in(unsigned long slot) { return (volatile StIn *)slot; }
volatile StOut *slot_out(unsigned long slot) { return (volatile StOut *)(slot + ST_OUT); }

/* The syscall instruction of guest threads, where the host answers: it knows a futex in a slot, the sandbox does not. */
unsigned long guest_site(void) {
  static unsigned long at[BACK_MAX], site;
  int n = site ? 0 : find_syscalls(at, BACK_MAX);

  for (int i = 0; i < n && !site; i++)
    if (call_at(at[i], SYS_futex, (long)(my_slot() + ST_STACK), FUTEX_WAIT, 0x12345, 0, 0, 0) == -EAGAIN)
      site = at[i];
  return site;
}

/* A futex call of the host's, on a page that the kernel process waits on. */
void host_wake(const volatile void *word) {
  call_at(guest_site(), SYS_futex, (long)word, FUTEX_WAKE, 1000, 0, 0, 0);
}

/* ---- Children and the innocent ---- */

/* Runs fn in a child for at most `ms`; however it ends is fine, as long as it can be ended. */
void expose(void (*fn)(uint64_t), uint64_t seed, unsigned ms) {
  int64_t until = now_ns() + ms * 1000000ll, last;
  int status;
  pid_t pid = (pid_t)SYS(fork()), r;

  if (pid == 0) {
    check_child_start();
    fn(seed);
    _exit(0);
  }
  while ((r = waitpid(pid, &status, WNOHANG)) == 0 && now_ns() < until)
    sleep_ms(1);
  kill(pid, SIGKILL);
  last = now_ns() + 20000000000ll;
  while (r == 0 && (r = waitpid(pid, &status, WNOHANG)) == 0 && now_ns() < last)
    sleep_ms(1);
  CHECK_EQ(r, pid); /* else it cannot be killed */
}

/* Computes, allocates and talks to a pipe until the other end is closed. */
static int innocent(int fd) {
  unsigned char *p = map_anon(64 * PAGE, PROT_READ | PROT_WRITE);
  uint32_t n = 0;
  char c;

  do {
    pattern_fill(p, 64 * PAGE, n);
    int q[2];
    if (pipe(q) < 0 || write(q[1], &n, 4) != 4 || read(q[0], &n, 4) != 4)
      return 2;
    close(q[0]);
    close(q[1]);
    unsigned char *fresh = map_anon(16 * PAGE, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < 16 * PAGE; i++)
      if (fresh[i])
        return 3; /* somebody else's */
    munmap(fresh, 16 * PAGE);
    if (!pattern_ok(p, 64 * PAGE, n))
      return 4;
    n++;
  } while (read(fd, &c, 1) < 0);
  return 0;
}

Innocent innocent_start(void) {
  int p[2];
  SYS(pipe(p));
  SYS(fcntl(p[0], F_SETFL, O_NONBLOCK));
  pid_t pid = (pid_t)SYS(fork());
  if (pid == 0) {
    close(p[1]);
    _exit(innocent(p[0]));
  }
  close(p[0]);
  SYS(fcntl(p[1], F_SETFD, FD_CLOEXEC));
  return (Innocent){pid, p[1]};
}

void innocent_check(Innocent i) {
  close(i.fd);
  CHECK_EQ(check_wait(i.pid), 0);
}

static unsigned storm_ms(unsigned ms) { return check_seconds ? (unsigned)check_seconds * 250 : ms; }

/* For the length of the storm. */
void storm(void (*fn)(uint64_t), unsigned each_ms, unsigned total_ms) {
  Innocent i = innocent_start();
  uint64_t seed = check_seed ? check_seed : (uint64_t)now_ns();

  for (int64_t until = now_ns() + storm_ms(total_ms) * 1000000ll; now_ns() < until;)
    expose(fn, next_random(&seed), each_ms);
  innocent_check(i);
}

unsigned long random_register(uint64_t *seed) {
  uint64_t r = next_random(seed);
  switch (r % 6) {
  case 0:
    return r >> 8;
  case 1:
    return ST_BASE + (r >> 8) % ST_CODE_MAX;
  case 2:
    return my_slot() + (r >> 8) % ST_SLOT_SIZE;
  case 3:
    return my_slot() + (r >> 8) % 8 * PAGE;
  case 4:
    return (unsigned long)come_back;
  default:
    return (r >> 8) % 400;
  }
}

sigjmp_buf again;
static void jump_again(int sig) { siglongjmp(again, 1); }

void catch_all(void) {
  static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS, SIGALRM};
  static char stack[4 * PAGE];
  stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};

  sigaltstack(&ss, NULL);
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    on_signal(signals[i], jump_again, SA_ONSTACK | SA_NODEFER);
}
