/* SPDX-License-Identifier: Apache-2.0 */
/* hostile-forged.c - a guest that writes the words by which platform systrap's stub says that a thread waits: threads that run on
 * after their trap was served, after their process has ended, and into the stub's next life; threads that ignore kicks. */
#include "hostile-stub.h"

#define MARK 0x4d41524b4d41524bul
#define SECRET 0x5345435245545321ul

/* ---- Threads that say they wait ---- */

/* Posts a system call in the name of the thread that has this slot, which runs on. */
static bool forge(unsigned long slot, long nr, long a, long b) {
  volatile StIn *in = slot_in(slot);
  volatile StOut *out = slot_out(slot);
  uint32_t n = in->answer + 1;

  for (int i = 0; i < ST_NREGS; i++)
    out->regs[i] = 0;
  out->kind = ST_DIRECT;
  out->nr = (uint16_t)nr;
  out->regs[ST_RAX] = (unsigned long)nr;
  out->regs[ST_RDI] = (unsigned long)a;
  out->regs[ST_RSI] = (unsigned long)b;
  out->entering = n;
  __atomic_store_n(&out->post, n, __ATOMIC_SEQ_CST);
  for (int64_t until = now_ns() + 2000000000; (int32_t)(in->answer - n) < 0 && now_ns() < until;)
    host_wake(&out->post);
  return (int32_t)(in->answer - n) >= 0;
}

typedef struct {
  unsigned long slot;
  int stop, leak, ready, forged;
} Shared;
static Shared *shared;
static volatile unsigned long *page;

static void *reader_thread(void *arg) {
  shared->slot = my_slot();
  catch_all();
  if (sigsetjmp(again, 0))
    return NULL; /* a fault: the page is gone, as it should be */
  __atomic_store_n(&shared->ready, 1, __ATOMIC_SEQ_CST);
  while (!shared->stop)
    if (*page != MARK && *page != 0)
      shared->leak = 1;
  return NULL;
}

static void forged_munmap(uint64_t seed) {
  pthread_t t;

  page = map_anon(PAGE, PROT_READ | PROT_WRITE);
  *page = MARK;
  pthread_create(&t, NULL, reader_thread, NULL);
  while (!__atomic_load_n(&shared->ready, __ATOMIC_SEQ_CST))
    sched_yield();
  guest_site();
  shared->forged = forge(shared->slot, SYS_munmap, (long)page, PAGE);
  for (int64_t until = now_ns() + 50000000; now_ns() < until;) { /* the page's next owner */
    unsigned long *p = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; p != MAP_FAILED && i < 64; i++)
      p[i * PAGE / 8] = SECRET;
    munmap(p, 64 * PAGE);
  }
}

static void shared_new(void) {
  if (!shared)
    shared = map_shared(PAGE);
  memset(shared, 0, sizeof *shared);
}

/* A trap posted for a thread that runs: what the call took away is gone for that thread too. */
TEST_LIMIT(forged_munmap_is_final, 60) {
  NEED_STUB();
  for (int i = 0; i < 10; i++) {
    shared_new();
    expose(forged_munmap, 0, 1000);
    CHECK(shared->forged);
    CHECK(!shared->leak);
  }
}

/* Its own exit, posted and not done. */
static void forged_exit(uint64_t seed) {
  unsigned long slot = my_slot();
  volatile StOut *out = slot_out(slot);

  page = map_anon(PAGE, PROT_READ | PROT_WRITE);
  *page = MARK;
  guest_site();
  uint32_t n = slot_in(slot)->answer + 1;
  out->kind = ST_DIRECT;
  out->nr = SYS_exit_group;
  out->regs[ST_RAX] = SYS_exit_group;
  out->regs[ST_RDI] = 0;
  __atomic_store_n(&out->post, n, __ATOMIC_SEQ_CST);
  host_wake(&out->post);
  for (;;) {
    if (*page != MARK && *page != 0)
      shared->leak = 1;
    __atomic_add_fetch(&shared->ready, 1, __ATOMIC_RELAXED);
  }
}

/* A process that has ended, as its parent knows, and whose thread runs on. Its memory is kept in being by /proc. */
TEST_LIMIT(forged_exit_is_final, 60) {
  NEED_STUB();
  for (int round = 0; round < 10; round++) {
    char path[64];
    int status;
    shared_new();
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
      sleep_ms(20);
      forged_exit(0);
    }
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDONLY);
    int64_t start = now_ns();
    while (waitpid(pid, &status, WNOHANG) == 0)
      if (now_ns() > start + 3000000000)
        kill(pid, SIGKILL);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0); /* it was believed */
    int before = shared->ready;
    for (int i = 0; i < 20; i++) {
      unsigned long *p = map_anon(256 * PAGE, PROT_READ | PROT_WRITE);
      for (size_t k = 0; k < 256; k++)
        p[k * PAGE / 8] = SECRET;
      munmap(p, 256 * PAGE);
      sleep_ms(1);
    }
    CHECK_EQ(shared->ready, before); /* it cannot even write where it shared */
    CHECK(!shared->leak);
    if (mem >= 0)
      close(mem);
  }
}

/* ---- What the next user of a stub finds ---- */

static volatile int evil_ran;

/* At the same address in every process that runs this program. */
static void evil(void) {
  evil_ran = 1;
  for (;;)
    ;
}

HELPER(next_user) {
  bool clean = true;

  for (int64_t until = now_ns() + 20000000; now_ns() < until;)
    getppid();
  if (evil_ran)
    return 3;
  if (touch_read((const char *)ST_BASE, NULL) == 0) {
    const unsigned long *p = (const unsigned long *)(my_slot() + ST_OUT);
    for (size_t i = 0; i < (ST_SLOT_SIZE - ST_OUT) / 8; i++)
      clean = clean && p[i] != SECRET;
    clean = clean && *(volatile unsigned long *)(ST_SCRATCH + 512) != SECRET;
  }
  return clean ? 0 : 4;
}

/* Leaves a secret, posts its exit, and hides in a host call in the stub, to come back in the next address space. */
static void hide(void) {
  unsigned long slot = my_slot(), site = guest_site();
  volatile StOut *out = slot_out(slot);
  volatile unsigned long *words = (volatile unsigned long *)(slot + ST_STACK);
  Regs r = {.rax = SYS_futex, .rsi = FUTEX_WAIT, .r15 = (unsigned long)evil, .rcx = (unsigned long)evil};

  for (size_t i = 0; i < 64; i++)
    words[i] = SECRET;
  *(volatile unsigned long *)(ST_SCRATCH + 512) = SECRET;
  r.rdi = (unsigned long)words;
  r.rdx = (uint32_t)SECRET;
  uint32_t post = slot_in(slot)->answer + 1;
  out->kind = ST_DIRECT;
  out->nr = SYS_exit_group;
  out->regs[ST_RAX] = SYS_exit_group;
  out->regs[ST_RDI] = 0;
  __atomic_store_n(&out->post, post, __ATOMIC_SEQ_CST);
  host_wake(&out->post);
  jump_and_return(&r, site);
}

TEST_LIMIT(nothing_survives_in_a_stub, 60) {
  NEED_STUB();
  for (int i = 0; i < 40; i++) {
    int status;
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0)
      hide();
    for (int64_t until = now_ns() + 500000000; waitpid(pid, &status, WNOHANG) == 0;)
      if (now_ns() > until)
        kill(pid, SIGKILL);
    pid = (pid_t)SYS(fork());
    if (pid == 0) {
      execl("/proc/self/exe", "hostile-systrap", "--helper", "next_user", NULL);
      _exit(9);
    }
    CHECK_EQ(check_wait(pid), 0);
  }
}

/* ---- Threads that do not answer ---- */

static void defy(uint64_t asleep) {
  unsigned long slot = my_slot(), site = guest_site();
  volatile StOut *out = slot_out(slot);

  for (;;) {
    out->post = slot_in(slot)->answer + 7;
    if (asleep)
      call_at(site, SYS_futex, (long)&out->post, FUTEX_WAIT, (long)(slot_in(slot)->answer + 7), 0, 0, 0);
    else
      host_wake(&out->frame);
  }
}

/* The stub takes a kick for its own business while these words are so: the process must die all the same. */
TEST_LIMIT(kicks_cannot_be_ignored, 90) {
  NEED_STUB();
  expose(defy, 1, 200);
  expose(defy, 0, 200);
}
