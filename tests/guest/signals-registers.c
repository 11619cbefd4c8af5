/* SPDX-License-Identifier: Apache-2.0 */
/* signals-registers.c - what a signal handler must not change: general and vector registers of the code it interrupts, however densely
 * signals come, and wherever between two instructions they meet it. */
#include "check.h"

#include <immintrin.h>
#include <pthread.h>
#include <sys/time.h>

#define SECONDS (check_seconds ? check_seconds : 2)

static volatile long handled;
static volatile bool stop;
static pthread_t main_thread;

/* Spoils what the interrupted code uses. */
__attribute__((target("avx2"))) static void spoil(int sig) {
  (void)sig;
  __m256i x = _mm256_set1_epi64x(++handled);
  __asm__ volatile("vmovdqa %0, %%ymm0\n vmovdqa %0, %%ymm7\n vmovdqa %0, %%ymm15\n fninit\n mov $0x77, %%r10"
                   :
                   : "m"(x)
                   : "xmm0", "xmm7", "xmm15", "r10");
}

/* Fills registers, makes a system call, computes for a moment, and looks at them: how many differ. */
__attribute__((target("avx2"))) static unsigned one_round(unsigned long n) {
  unsigned long in[4] = {n, n + 1, n + 2, n + 3}, v0[4], v7[4], v15[4], r[4];
  unsigned bad = 0;

  __asm__ volatile("vmovdqu %[in], %%ymm0\n vmovdqu %[in], %%ymm7\n vmovdqu %[in], %%ymm15\n"
                   "mov %[n], %%r12\n mov %[n], %%r8\n mov %[n], %%rbx\n mov %[n], %%r10\n"
                   "mov $110, %%eax\n syscall\n" /* getppid */
                   "mov $40, %%ecx\n 1: dec %%ecx\n jnz 1b\n"
                   "vmovdqu %%ymm0, %[v0]\n vmovdqu %%ymm7, %[v7]\n vmovdqu %%ymm15, %[v15]\n"
                   "mov %%r12, %[r0]\n mov %%r8, %[r1]\n mov %%rbx, %[r2]\n mov %%r10, %[r3]\n"
                   : [v0] "=m"(v0), [v7] "=m"(v7), [v15] "=m"(v15), [r0] "=m"(r[0]), [r1] "=m"(r[1]),
                     [r2] "=m"(r[2]), [r3] "=m"(r[3])
                   : [in] "m"(in), [n] "m"(n)
                   : "rax", "rcx", "r11", "r12", "r8", "rbx", "r10", "xmm0", "xmm7", "xmm15", "cc", "memory");
  bad += memcmp(in, v0, 32) || memcmp(in, v7, 32) || memcmp(in, v15, 32);
  for (int i = 0; i < 4; i++)
    bad += r[i] != n;
  return bad;
}

static void *rounds(void *seed) {
  unsigned long n = (unsigned long)seed << 32, bad = 0;
  int64_t end = now_ns() + (int64_t)SECONDS * 1000000000;

  while (now_ns() < end)
    for (int i = 0; i < 500; i++)
      bad += one_round(++n);
  return (void *)bad;
}

static void *shoot(void *unused) {
  sigset_t all;

  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  while (!stop) {
    pthread_kill(main_thread, SIGALRM);
    for (volatile int i = 0; i < 300; i++)
      ;
  }
  return unused;
}

static void storm(int threads) {
  struct itimerval it = {{0, 200}, {0, 200}};
  pthread_t t[8], shooter;
  void *bad;

  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2"))
    SKIP("the CPU has no AVX2");
  main_thread = pthread_self();
  on_signal(SIGALRM, spoil, SA_RESTART);
  SYS(setitimer(ITIMER_REAL, &it, NULL));
  for (long i = 0; i < threads; i++)
    REQUIRE(pthread_create(&t[i], NULL, rounds, (void *)(i + 2)) == 0);
  REQUIRE(pthread_create(&shooter, NULL, shoot, NULL) == 0);
  CHECK_EQ((long)rounds((void *)1), 0);
  stop = true;
  for (int i = 0; i < threads; i++) {
    REQUIRE(pthread_join(t[i], &bad) == 0);
    CHECK_EQ((long)bad, 0);
  }
  pthread_join(shooter, NULL);
  CHECK(handled > 100);
}

TEST_LIMIT(registers_of_one_thread, 60) { storm(0); }
TEST_LIMIT(registers_of_three_threads, 60) { storm(2); }
