/* SPDX-License-Identifier: Apache-2.0 */
/* The host threads that run tasks. A few whose task has ended wait for another one, since making a thread, with its stack
 * and its signal stack, costs as much as several round trips. They belong to no kernel and sleep without a timeout. */
#include <core/task/task.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TASK_STACK_SIZE (256 * 1024)
/* Room for the handler that survives faults in copies (tes_safe_copy); a task's stack may be small. */
#define ALTSTACK_SIZE (32 * 1024)
#define IDLE_MAX 8

/* A thread that waits, on its own stack. */
typedef struct {
  pid_t tid;
  gint word; /* futex: 1 when there is a task */
  TesTask *task;
} Idle;

static Idle *idle[IDLE_MAX]; /* atomic; whoever exchanges an entry for NULL owns the thread */
static __thread gboolean retire;

void tes_task_retire_thread(void) { retire = TRUE; }

/* Waits for another task; NULL: enough threads do. */
static TesTask *wait_for_task(void) {
  Idle me = {.tid = gettid()};
  guint i = 0;
  for (Idle *none = NULL; i < IDLE_MAX; i++, none = NULL)
    if (__atomic_compare_exchange_n(&idle[i], &none, &me, FALSE, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
      break;
  if (i == IDLE_MAX)
    return NULL;
  while (!g_atomic_int_get(&me.word))
    syscall(SYS_futex, &me.word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
  return me.task;
}

/* Gives the task to a thread that waits. It gets the caller's CPUs, as a thread made now would. */
static gboolean hand_over(TesTask *t) {
  cpu_set_t cpus;
  Idle *w = NULL;
  for (guint i = 0; i < IDLE_MAX && !w; i++)
    if (__atomic_load_n(&idle[i], __ATOMIC_RELAXED))
      w = __atomic_exchange_n(&idle[i], NULL, __ATOMIC_ACQUIRE);
  if (!w)
    return FALSE;
  if (sched_getaffinity(0, sizeof cpus, &cpus) == 0)
    sched_setaffinity(w->tid, sizeof cpus, &cpus);
  w->task = t;
  g_atomic_int_set(&w->word, 1);
  /* The thread may have seen it already, and *w be gone: then this wakes nobody, or somebody who looks again. */
  syscall(SYS_futex, &w->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  return TRUE;
}

static void *install_altstack(void) {
  void *p =
      mmap(NULL, ALTSTACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return NULL;
  stack_t ss = {.ss_sp = p, .ss_size = ALTSTACK_SIZE};
  sigaltstack(&ss, NULL);
  return p;
}

static void *thread_main(void *data) {
  void *altstack = install_altstack();
  prctl(PR_SET_NAME, "tessera-task");
  for (TesTask *t = data; t; t = retire ? NULL : wait_for_task())
    tes_task_main(t);
  if (altstack) {
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    munmap(altstack, ALTSTACK_SIZE);
  }
  return NULL;
}

/* Only synchronous faults may reach a task's thread; a platform that uses a signal of its own unblocks it itself. */
static void thread_mask(sigset_t *set) {
  static const int open[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};
  sigfillset(set);
  for (guint i = 0; i < G_N_ELEMENTS(open); i++)
    sigdelset(set, open[i]);
}

static gboolean make_thread(TesTask *t) {
  pthread_attr_t attr;
  sigset_t mask;
  pthread_t thread;
  thread_mask(&mask);
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, TASK_STACK_SIZE);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setsigmask_np(&attr, &mask);
  int r = pthread_create(&thread, &attr, thread_main, t);
  pthread_attr_destroy(&attr);
  return r == 0;
}

int tes_task_start(TesTask *t) {
  tes_task_ref(t); /* the thread's */
  g_atomic_int_set(&t->state, TES_TASK_KERNEL);
  if (hand_over(t) || make_thread(t))
    return 0;
  g_atomic_int_set(&t->state, TES_TASK_NEW);
  tes_task_unref(t);
  return -EAGAIN;
}
