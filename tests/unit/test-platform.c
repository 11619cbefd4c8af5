/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest can see of a platform: TesPlatformOps driven without any core. Traps, registers, exceptions, foreign
 * system calls, jumps into the stub, mappings, clone. test-platform-host.c has threads, kicks and processes. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "platform-box.h"

static void test_probe(void) {
  char *why = NULL;
  g_assert_cmpint(ops->probe(&why), ==, 0);
  g_assert_null(why);
  g_assert_cmpuint(platform->min_addr, >=, 0x1000);
  g_assert_cmpuint(platform->max_addr, >, 0x7f0000000000);
  g_assert_cmpuint(platform->xstate_size, >=, 576);
  g_assert_cmpuint(platform->xfeatures & 3, ==, 3);
}

/* Where what it needs is forbidden probe() says why. */
static void test_probe_refused(void) {
  struct sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog prog = {G_N_ELEMENTS(rules), rules};
  int status;
  pid_t pid = fork();
  if (pid == 0) {
    char *why = NULL;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
    _exit(ops->probe(&why) < 0 && why && strstr(why, "seccomp") ? 0 : 1);
  }
  g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
  g_assert_cmpint(status, ==, 0);
}

static void test_syscall(void) {
  Box b;
  /* eax = 39; rdi, rsi, rdx, r10, r8, r9 are set below; syscall; mov [0x401008], rax; syscall */
  box_new(&b,
          CODE_BYTES(0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x48, 0x89, 0x04, 0x25, 0x08, 0x10, 0x40, 0, 0x0f, 0x05));
  TesRegs *r = b.exec->ops->regs(b.exec, TRUE);
  r->rdi = 1, r->rsi = 2, r->rdx = 3, r->r10 = 4, r->r8 = 5, r->r9 = G_MAXUINT64;
  TesTrap *t = run(&b);
  g_assert_cmpint(t->kind, ==, TES_TRAP_SYSCALL);
  g_assert_false(t->foreign_abi);
  g_assert_cmpuint(t->nr, ==, 39);
  for (gulong i = 0; i < 5; i++)
    g_assert_cmpuint(t->args[i], ==, i + 1);
  g_assert_cmpuint(t->args[5], ==, G_MAXUINT64);
  g_assert_cmpuint(t->ip, ==, CODE + 7);
  g_assert_cmpuint(t->sp, ==, DATA + 8 * TES_PAGE_SIZE);
  r = b.exec->ops->regs(b.exec, FALSE);
  g_assert_cmpint((gint64)r->rax, ==, -ENOSYS);
  g_assert_cmpuint(r->orig_rax, ==, 39);
  b.exec->ops->set_result(b.exec, 0x123456789abcUL);
  g_assert_cmpuint(b.exec->ops->regs(b.exec, FALSE)->rax, ==, 0x123456789abcUL);
  run(&b);
  g_assert_cmpuint(*(guint64 *)(b.mem + TES_PAGE_SIZE + 8), ==, 0x123456789abcUL);
  g_assert_cmpuint(t->nr, ==, 0x56789abc); /* the number is 32 bits wide */
  box_free(&b);
}

/* Results that mean "restart" to the host kernel reach the guest, kicked or not. */
static void test_restart_codes(void) {
  Box b;
  box_new(&b, SYSCALL_LOOP);
  for (glong rax = -520; rax <= -508; rax++)
    for (int kicked = 0; kicked < 2; kicked++) {
      run(&b);
      g_assert_cmpint(b.trap.kind, ==, TES_TRAP_SYSCALL);
      TesRegs *r = b.exec->ops->regs(b.exec, TRUE);
      r->rip = CODE + 7; /* the jump */
      b.exec->ops->set_result(b.exec, (gulong)rax);
      if (kicked)
        b.exec->ops->kick(b.exec);
      if (kicked)
        g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_KICK);
      g_assert_cmpint((gint64)b.exec->ops->regs(b.exec, FALSE)->rax, ==, rax);
      g_assert_cmpint((gint64)run(&b)->nr, ==, 39);
      g_assert_cmpuint(b.trap.ip, ==, CODE + 7);
    }
  box_free(&b);
}

static void test_loop(void) {
  Box b;
  box_new(&b, SYSCALL_LOOP);
  for (int i = 0; i < 1000; i++) {
    g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
    b.exec->ops->set_result(b.exec, (gulong)i);
  }
  box_free(&b);
}

/* Registers that a system call leaves alone, and rax. */
static unsigned long long *general(TesRegs *r, gulong i) {
#define REG(name) G_STRUCT_OFFSET(TesRegs, name)
  const glong at[] = {REG(rax), REG(rbx), REG(rdx), REG(rbp), REG(rsp), REG(rsi), REG(rdi),
                      REG(r8),  REG(r9),  REG(r10), REG(r12), REG(r13), REG(r14), REG(r15)};
#define N_GENERAL 14
  return &G_STRUCT_MEMBER(unsigned long long, r, at[i]);
}

static void test_registers(void) {
  Box b;
  box_new(&b, CODE_BYTES(0x0f, 0x05, 0x0f, 0x05)); /* syscall; syscall */
  run(&b);
  TesRegs *r = b.exec->ops->regs(b.exec, TRUE);
  for (gulong i = 0; i < N_GENERAL; i++)
    *general(r, i) = 0x0101010101010101UL * (i + 1);
  r->fs_base = 0x7000deadb000, r->gs_base = 0x1234, r->eflags = 0x202 | 0x8d5; /* CF PF AF ZF SF OF */
  TesRegs want = *r;
  run(&b);
  r = b.exec->ops->regs(b.exec, FALSE);
  want.orig_rax = want.rax, want.rax = (gulong)-ENOSYS, want.rip += 2;
  want.rcx = want.rip, want.r11 = want.eflags = r->eflags;
  g_assert_cmphex(r->r11 & 0x8d5, ==, 0x8d5);
  g_assert_cmpmem(r, sizeof *r, &want, sizeof want);
  /* What cannot be loaded must not stop the exec. */
  r = b.exec->ops->regs(b.exec, TRUE);
  r->rip = CODE, r->cs = 0xffff, r->ss = 0x18, r->ds = 7, r->fs_base = G_MAXUINT64;
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
  r = b.exec->ops->regs(b.exec, TRUE);
  r->rip = 0x8000000000000000UL;
  g_assert_cmpint(run(&b)->signo, ==, SIGSEGV);
  box_free(&b);
}

static void test_xstate(void) {
  Box b;
  /* syscall; movaps xmm1, xmm0; syscall */
  box_new(&b, CODE_BYTES(0x0f, 0x05, 0x0f, 0x28, 0xc8, 0x0f, 0x05));
  gsize n = platform->xstate_size;
  g_autofree guint8 *x = g_malloc0(n), *y = g_malloc0(n);
  g_assert_cmpint(b.exec->ops->xstate_get(b.exec, x, n), ==, (int)n); /* before the first run */
  for (int i = 0; i < 16; i++)
    x[160 + i] = (guint8)(i + 1);
  g_assert_cmpint(b.exec->ops->xstate_set(b.exec, x, n), ==, 0);
  run(&b);
  run(&b);
  g_assert_cmpint(b.exec->ops->xstate_get(b.exec, y, n), ==, (int)n);
  g_assert_cmpmem(y + 160, 16, x + 160, 16);
  g_assert_cmpmem(y + 176, 16, x + 160, 16);
  y[0] = 0x7f;
  g_assert_cmpint(b.exec->ops->xstate_set(b.exec, y, n), ==, 0);
  y[24] = y[25] = y[26] = y[27] = 0xff; /* reserved bits of MXCSR */
  g_assert_cmpint(b.exec->ops->xstate_set(b.exec, y, n), ==, -EINVAL);
  g_assert_cmpint(b.exec->ops->xstate_set(b.exec, y, 16), ==, -EINVAL);
  box_free(&b);
}

static void check_exception(const guint8 *code, gsize n, TesTrapKind kind, int signo, int sicode,
                            gulong addr) {
  Box b;
  box_new(&b, code, n);
  TesTrap *t = run(&b);
  g_assert_cmpint(t->kind, ==, kind);
  g_assert_cmpint(t->signo, ==, signo);
  g_assert_cmpint(t->code, ==, sicode);
  g_assert_cmphex(t->addr, ==, addr);
  box_free(&b);
}

static void test_exceptions(void) {
  /* mov rax, [0x10000]; mov [CODE], rax; jump to 0x20000; hlt; ud2; int3; div by zero; non-canonical */
  check_exception(CODE_BYTES(0x48, 0x8b, 0x04, 0x25, 0, 0, 1, 0), TES_TRAP_FAULT, SIGSEGV, SEGV_MAPERR,
                  0x10000);
  check_exception(CODE_BYTES(0x48, 0x89, 0x04, 0x25, 0, 0, 0x40, 0), TES_TRAP_FAULT, SIGSEGV, SEGV_ACCERR,
                  CODE);
  check_exception(CODE_BYTES(0xb8, 0, 0, 2, 0, 0xff, 0xe0), TES_TRAP_FAULT, SIGSEGV, SEGV_MAPERR, 0x20000);
  check_exception(CODE_BYTES(0xf4), TES_TRAP_EXCEPTION, SIGSEGV, SI_KERNEL, 0);
  check_exception(CODE_BYTES(0x0f, 0x0b), TES_TRAP_EXCEPTION, SIGILL, ILL_ILLOPN, CODE);
  check_exception(CODE_BYTES(0xcc), TES_TRAP_EXCEPTION, SIGTRAP, SI_KERNEL, 0);
  check_exception(CODE_BYTES(0x31, 0xc9, 0xf7, 0xf1), TES_TRAP_EXCEPTION, SIGFPE, FPE_INTDIV, CODE + 2);
  check_exception(CODE_BYTES(0x48, 0x0f, 0xba, 0xe8, 63, 0x48, 0x8b, 0), TES_TRAP_EXCEPTION, SIGSEGV,
                  SI_KERNEL, 0);
}

static void test_bus_error(void) {
  Box b;
  box_new(&b, CODE_BYTES(0x48, 0x8b, 0x04, 0x25, 0, 0x10, 0x40, 0)); /* mov rax, [DATA] */
  g_assert_cmpint(ftruncate(b.fd, TES_PAGE_SIZE), ==, 0);
  run(&b);
  g_assert_cmpint(b.trap.kind, ==, TES_TRAP_FAULT);
  g_assert_cmpint(b.trap.signo, ==, SIGBUS);
  g_assert_cmpint(b.trap.code, ==, BUS_ADRERR);
  g_assert_cmphex(b.trap.addr, ==, DATA);
  box_free(&b);
}

static void test_single_step(void) {
  Box b;
  box_new(&b, CODE_BYTES(0x90, 0x90, 0x90, 0x0f, 0x05, 0x90, 0x90));
  b.exec->ops->regs(b.exec, TRUE)->eflags |= 0x100;
  for (gulong ip = CODE + 1; ip <= CODE + 3; ip++) {
    run(&b);
    g_assert_cmpint(b.trap.kind, ==, TES_TRAP_EXCEPTION);
    g_assert_cmpint(b.trap.signo, ==, SIGTRAP);
    g_assert_cmphex(b.trap.ip, ==, ip);
  }
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_EXCEPTION);
  b.exec->ops->regs(b.exec, TRUE)->eflags &= ~0x100UL;
  b.exec->ops->regs(b.exec, TRUE)->rip = CODE + 3;
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
  box_free(&b);
}

static void test_foreign_abis(void) {
  Box b;
  /* int 0x80; mov eax, 0x40000027; syscall; mov eax, -1; syscall */
  box_new(&b, CODE_BYTES(0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xb8, 39, 0, 0, 0x40, 0x0f, 0x05, 0xb8, 0xff, 0xff,
                         0xff, 0xff, 0x0f, 0x05));
  run(&b);
  if (b.trap.kind == TES_TRAP_SYSCALL) { /* the host may be without 32-bit calls */
    g_assert_true(b.trap.foreign_abi);
    g_assert_cmpuint(b.trap.nr, ==, 20);
  } else
    b.exec->ops->regs(b.exec, TRUE)->rip = CODE + 7;
  run(&b);
  g_assert_cmpint(b.trap.kind, ==, TES_TRAP_SYSCALL);
  g_assert_true(b.trap.foreign_abi);
  g_assert_cmphex(b.trap.nr, ==, 0x40000027);
  run(&b);
  g_assert_false(b.trap.foreign_abi);
  g_assert_cmphex(b.trap.nr, ==, G_MAXUINT64);
  box_free(&b);
}

static void test_vsyscall(void) {
  Box b;
  /* mov rax, 0xffffffffff600400; mov edi, 0; call rax; mov [DATA], rax; syscall */
  box_new(&b, CODE_BYTES(0x48, 0xc7, 0xc0, 0, 0x04, 0x60, 0xff, 0xbf, 0, 0, 0, 0, 0xff, 0xd0, 0x48, 0x89,
                         0x04, 0x25, 0, 0x10, 0x40, 0, 0x0f, 0x05));
  run(&b);
  g_assert_cmpint(b.trap.kind, ==, TES_TRAP_SYSCALL);
  g_assert_cmpuint(b.trap.nr, ==, SYS_time);
  g_assert_false(b.trap.foreign_abi);
  g_assert_cmphex(b.trap.ip, ==, CODE + 14);
  TesRegs *r = b.exec->ops->regs(b.exec, FALSE);
  g_assert_cmpint((gint64)r->rax, ==, -ENOSYS);
  g_assert_cmpuint(r->orig_rax, ==, SYS_time);
  g_assert_cmphex(r->rsp, ==, DATA + 8 * TES_PAGE_SIZE);
  b.exec->ops->set_result(b.exec, 4711);
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
  g_assert_cmpuint(*(guint64 *)(b.mem + TES_PAGE_SIZE), ==, 4711);
  r = b.exec->ops->regs(b.exec, TRUE);
  r->rip = 0xffffffffff600001UL;
  g_assert_cmpint(run(&b)->signo, ==, SIGSEGV);
  box_free(&b);
}

typedef struct {
  GMutex lock;
  TesExec *exec; /* NULL: none at present */
  gint stop;
} Watchdog;

static gpointer watchdog_thread(gpointer data) {
  Watchdog *w = data;
  while (!g_atomic_int_get(&w->stop)) {
    g_usleep(3000);
    g_mutex_lock(&w->lock);
    if (w->exec)
      w->exec->ops->kick(w->exec);
    if (w->exec &&
        TES_HAS(w->exec->ops, tick)) /* as the core does: a kick that is not answered is followed up */
      w->exec->ops->tick(w->exec);
    g_mutex_unlock(&w->lock);
  }
  return NULL;
}

static void watch(Watchdog *w, TesExec *exec) {
  g_mutex_lock(&w->lock);
  w->exec = exec;
  g_mutex_unlock(&w->lock);
}

/* One jump: whatever comes of it, it ends, at the latest when it is kicked. FALSE: the guest killed itself. */
static gboolean jump(Box *b, gulong at) {
  TesRegs *r = b->exec->ops->regs(b->exec, TRUE);
  for (guint i = 0; i < N_GENERAL; i++)
    *general(r, i) =
        g_random_boolean() ? (gulong)g_random_int() << 16 : platform->max_addr + g_random_int_range(0, 12288);
  r->rbx = platform->max_addr + TES_PAGE_SIZE;
  if (at % 5 == 0)
    r->rax = (gulong)g_random_int_range(0, 300);
  r->rip = at;
  for (int i = 0; i < 3; i++) {
    run(b);
    if (b->trap.kind == TES_TRAP_DEAD)
      return FALSE;
    if (b->trap.kind != TES_TRAP_SYSCALL)
      break;
    b->exec->ops->set_result(b->exec, (gulong)g_random_int_range(-5, 9));
  }
  return TRUE;
}

/* A guest may jump anywhere in the stub, with any registers: only traps come of it, or its own end. */
static void test_stub_jumps(void) {
  Box b;
  Watchdog w = {.stop = 0};
  guint deaths = 0;
  GThread *thread = g_thread_new("watchdog", watchdog_thread, &w);
  box_new(&b, SYSCALL_LOOP);
  run(&b);
  watch(&w, b.exec);
  for (gulong at = platform->max_addr; at < platform->max_addr + 3 * TES_PAGE_SIZE; at++) {
    if (!jump(&b, at)) {
      deaths++;
      watch(&w, NULL);
      box_free(&b);
      box_new(&b, SYSCALL_LOOP);
      watch(&w, b.exec);
    }
    if (at >= platform->max_addr + TES_PAGE_SIZE)
      at += 100; /* little code, or none: a few will do */
  }
  watch(&w, NULL);
  g_atomic_int_set(&w.stop, 1);
  g_thread_join(thread);
  g_test_message("the guest killed itself %u times", deaths);
  /* The platform still works. */
  box_free(&b);
  box_new(&b, SYSCALL_LOOP);
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
  g_assert_cmpint(APPLY(b.as, UNMAP(CODE, PAGES)), ==, 0);
  b.exec->ops->regs(b.exec, TRUE)->rip = CODE;
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_FAULT);
  box_map(&b);
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
  box_free(&b);
}

static void test_map(void) {
  Box b;
  box_new(&b,
          CODE_BYTES(0x48, 0x8b, 0x07, 0x48, 0x89, 0x06, 0x0f, 0x05)); /* rax = [rdi]; [rsi] = rax; syscall */
  TesRegs *r = b.exec->ops->regs(b.exec, TRUE);
  b.mem[5 * TES_PAGE_SIZE] = 42;
  r->rdi = 0x123456000000, r->rsi = platform->max_addr - TES_PAGE_SIZE;
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_FAULT);
  g_assert_cmphex(b.trap.addr, ==, 0x123456000000);
  /* Many separate operations, of several descriptors; the descriptor may be closed at once. */
  for (gulong i = 0; i < 300; i++) {
    int fd = i % 3 ? b.fd : fcntl(b.fd, F_DUPFD_CLOEXEC, 0);
    g_assert_cmpint(APPLY(b.as, MAP(0x123456000000 + i * 0x2000, 1, R_W, fd, 5 * TES_PAGE_SIZE)), ==, 0);
    if (fd != b.fd)
      close(fd);
  }
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_FAULT);
  g_assert_cmphex(b.trap.addr, ==, platform->max_addr - TES_PAGE_SIZE);
  g_assert_cmpint(APPLY(b.as, MAP(platform->max_addr - TES_PAGE_SIZE, 1, R_W, b.fd, 6 * TES_PAGE_SIZE),
                        MAP(platform->min_addr, 1, R_W, b.fd, 6 * TES_PAGE_SIZE)),
                  ==, 0);
  g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_SYSCALL);
  g_assert_cmpint(b.mem[6 * TES_PAGE_SIZE], ==, 42);
  /* Bad operations are refused. */
  g_assert_cmpint(APPLY(b.as, MAP(platform->max_addr, 1, R_W, b.fd, 0)), ==, -EINVAL);
  g_assert_cmpint(APPLY(b.as, UNMAP(platform->max_addr - TES_PAGE_SIZE, 2)), ==, -EINVAL);
  g_assert_cmpint(APPLY(b.as, UNMAP(CODE + 1, 1)), ==, -EINVAL);
  box_free(&b);
}

/* A mapping that the host refuses: a fault again, and then the caller of apply is told. */
static void test_map_refused(void) {
  Box b;
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), r = 0;
  box_new(&b, WRITER);
  b.exec->ops->regs(b.exec, TRUE)->rdi = 0x10000000;
  for (int i = 0; i < 4 && r == 0; i++) {
    g_assert_cmpint(run(&b)->kind, ==, TES_TRAP_FAULT);
    r = APPLY(b.as, MAP(0x10000000, 1, R_W, fd, 0));
  }
  g_assert_cmpint(r, ==, -EACCES);
  g_assert_cmpint(APPLY(b.as, MAP(0x10000000, 1, R_W, b.fd, 0)), ==, 0);
  close(fd);
  box_free(&b);
}

/* More scattered mappings than the host allows (vm.max_map_count): faults bring back what was dropped. */
static void test_map_limit(void) {
  Box b;
  box_new(&b, CODE_BYTES(0x48, 0x8b, 0x07, 0x0f, 0x05)); /* rax = [rdi]; syscall */
  run(&b);
  for (gulong i = 0; i < 70000; i++)
    g_assert_cmpint(APPLY(b.as, MAP(0x10000000 + i * 0x2000, 1, R_W, b.fd, 0)), ==, 0);
  g_assert_cmpint(APPLY(b.as, PROTECT(0x10000000, 70000 * 2, PROT_READ)), ==, 0);
  b.exec->ops->regs(b.exec, TRUE)->rip = CODE;
  b.exec->ops->regs(b.exec, TRUE)->rdi = 0x10000000;
  for (int i = 0; i < 4 && run(&b)->kind == TES_TRAP_FAULT; i++) {
    if (b.trap.addr >= 0x10000000)
      g_assert_cmpint(APPLY(b.as, MAP(0x10000000, 1, R_W, b.fd, 0)), ==, 0);
    else
      box_map(&b);
  }
  g_assert_cmpint(b.trap.kind, ==, TES_TRAP_SYSCALL);
  box_free(&b);
}

static void test_clone(void) {
  Box b, c = {0};
  GError *error = NULL;
  box_new(&b, WRITER);
  b.exec->ops->regs(b.exec, TRUE)->rdi = 0x1000; /* faults at once */
  run(&b);
  b.mem[TES_PAGE_SIZE] = 7;
  const TesMapOp protect[] = {PROTECT(DATA, PAGES - 1, PROT_READ)};
  c.as = b.as->ops->clone(b.as, protect, 1, &error);
  g_assert_no_error(error);
  c.exec = ops->exec_new(platform, c.as, &error);
  g_assert_no_error(error);
  *c.exec->ops->regs(c.exec, TRUE) = *b.exec->ops->regs(b.exec, FALSE);
  Box *const both[] = {&b, &c};
  for (int i = 0; i < 2; i++) {
    TesRegs *r = both[i]->exec->ops->regs(both[i]->exec, TRUE);
    r->rdi = DATA, r->rip = CODE;
    run(both[i]);
    g_assert_cmpint(both[i]->trap.kind, ==, TES_TRAP_FAULT);
    g_assert_cmpint(both[i]->trap.code, ==, SEGV_ACCERR);
    g_assert_cmphex(both[i]->trap.addr, ==, DATA);
  }
  /* The address spaces are apart: the child's page can be had without the parent. */
  g_assert_cmpint(APPLY(c.as, UNMAP(DATA, 1)), ==, 0);
  run(&c);
  g_assert_cmpint(c.trap.code, ==, SEGV_MAPERR);
  run(&b);
  g_assert_cmpint(b.trap.code, ==, SEGV_ACCERR);
  c.exec->ops->free(c.exec);
  c.as->ops->free(c.as);
  box_free(&b);
}

int main(int argc, char **argv) {
  static const PlatformTest tests[] = {
      {"probe", test_probe},
      {"probe-refused", test_probe_refused},
      {"syscall", test_syscall},
      {"restart", test_restart_codes},
      {"loop", test_loop},
      {"registers", test_registers},
      {"xstate", test_xstate},
      {"exceptions", test_exceptions},
      {"bus-error", test_bus_error},
      {"step", test_single_step},
      {"foreign-abis", test_foreign_abis},
      {"vsyscall", test_vsyscall},
      {"stub-jumps", test_stub_jumps},
      {"map", test_map},
      {"map-refused", test_map_refused},
      {"map-limit", test_map_limit},
      {"clone", test_clone},
  };
  return platform_main(argc, argv, tests, G_N_ELEMENTS(tests));
}
