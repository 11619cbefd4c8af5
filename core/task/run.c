/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a task's thread: run the guest until a trap, serve it, look for signals and other work, repeat.
 * Also what makes a task stop doing that: interrupts, deferred work, Pause (L26). */
#include <core/task/life.h>
#include <core/task/seccomp.h>
#include <core/trace/trace.h>
#include <sys/syscall.h>

static __thread TesTask *current __attribute__((tls_model("initial-exec")));

TesTask *tes_task_current(void) { return current; }

/* ---- Interrupts and deferred work ---- */

typedef struct {
  void (*fn)(TesTask *, gpointer);
  gpointer data;
} Work;

void tes_task_interrupt(TesTask *t) {
  tes_task_wake(t);
  if (!g_atomic_int_get(&t->in_guest))
    return;
  tes_mutex_lock(&t->work_lock); /* keeps the exec from being replaced (tes_task_swap_exec) */
  if (t->exec && g_atomic_int_get(&t->in_guest))
    t->exec->ops->kick(t->exec);
  tes_mutex_unlock(&t->work_lock);
}

TesExec *tes_task_swap_exec(TesTask *t, TesExec *exec) {
  tes_mutex_lock(&t->work_lock);
  TesExec *old = t->exec;
  t->exec = exec;
  tes_mutex_unlock(&t->work_lock);
  return old;
}

void tes_task_add_work(TesTask *t, void (*fn)(TesTask *, gpointer), gpointer data) {
  Work *w = g_new(Work, 1);
  *w = (Work){fn, data};
  tes_mutex_lock(&t->work_lock);
  t->work = g_slist_append(t->work, w);
  tes_mutex_unlock(&t->work_lock);
  g_atomic_int_set(&t->work_pending, 1);
  tes_task_interrupt(t);
}

void tes_task_run_work(TesTask *t) {
  g_atomic_int_set(&t->work_pending, 0);
  if (G_UNLIKELY(t->mem_pressure) && t == current) {
    t->mem_pressure = FALSE;
    t->kernel->cgroups->pressure(t);
  }
  tes_mutex_lock(&t->work_lock);
  GSList *list = g_steal_pointer(&t->work);
  tes_mutex_unlock(&t->work_lock);
  for (GSList *l = list; l; l = l->next) {
    Work *w = l->data;
    w->fn(t, w->data);
    g_free(w);
  }
  g_slist_free(list);
}

/* ---- Running, blocked, paused ---- */

static void wait_while_paused(TesKernel *k) {
  pthread_mutex_lock(&k->pause_mutex);
  pthread_cond_broadcast(&k->pause_cond); /* one fewer runs */
  while (g_atomic_int_get(&k->pause_count) > 0)
    pthread_cond_wait(&k->pause_cond, &k->pause_mutex);
  pthread_mutex_unlock(&k->pause_mutex);
}

/* A task that starts to run counts first and looks for a pause second; Pause does it the other way round, so one
 * of the two sees the other. */
static void become_running(TesKernel *k) {
  for (;;) {
    tes_running_inc(k);
    if (G_LIKELY(g_atomic_int_get(&k->pause_count) == 0))
      return;
    tes_running_dec(k);
    wait_while_paused(k);
  }
}

static void become_idle(TesKernel *k) {
  tes_running_dec(k);
  if (G_UNLIKELY(g_atomic_int_get(&k->pause_count) > 0)) {
    pthread_mutex_lock(&k->pause_mutex);
    pthread_cond_broadcast(&k->pause_cond);
    pthread_mutex_unlock(&k->pause_mutex);
  }
}

void tes_task_set_blocked(TesTask *t, TesTaskState state) {
  if (G_UNLIKELY(t->kernel->watch))
    tes_watch_blocked(t, state != TES_TASK_KERNEL);
  if (state != TES_TASK_KERNEL) {
    g_atomic_int_set(&t->state, state);
    become_idle(t->kernel);
  } else {
    become_running(t->kernel);
    g_atomic_int_set(&t->state, TES_TASK_KERNEL);
  }
}

/* Nobody tells a waiter for a lock that it was killed: it looks now and then. */
#define LOOK_EVERY (20 * 1000000)

gboolean tes_task_lock(TesMutex *m) {
  TesTask *t = current;
  gboolean held = tes_mutex_lock_within(m, 0);
  if (held)
    return TRUE;
  if (!t || g_atomic_int_get(&t->state) != TES_TASK_KERNEL) {
    tes_mutex_lock(m);
    return TRUE;
  }
  tes_task_set_blocked(t, TES_TASK_BLOCKED_WITHIN);
  while (!tes_task_is_killed(t) && !(held = tes_mutex_lock_within(m, LOOK_EVERY)))
    ;
  tes_task_set_blocked(t, TES_TASK_KERNEL);
  return held;
}

static void interrupt_one(gpointer tid, gpointer task, gpointer data) {
  (void)tid, (void)data;
  tes_task_interrupt(task);
}

void tes_kernel_pause(TesKernel *k) {
  g_atomic_int_inc(&k->pause_count);
  tes_mutex_lock(&k->task_set);
  g_hash_table_foreach(k->tasks, interrupt_one, NULL);
  tes_mutex_unlock(&k->task_set);
  pthread_mutex_lock(&k->pause_mutex);
  while (g_atomic_int_get(&k->running) > 0)
    pthread_cond_wait(&k->pause_cond, &k->pause_mutex);
  pthread_mutex_unlock(&k->pause_mutex);
}

gboolean tes_kernel_unpause(TesKernel *k, GError **error) {
  gint n = g_atomic_int_get(&k->pause_count);
  do {
    if (n == 0) {
      g_set_error(error, TES_ERROR, TES_ERROR_STATE, "the sandbox is not paused");
      return FALSE;
    }
  } while (!g_atomic_int_compare_and_exchange_full(&k->pause_count, n, n - 1, &n));
  pthread_mutex_lock(&k->pause_mutex);
  pthread_cond_broadcast(&k->pause_cond);
  pthread_mutex_unlock(&k->pause_mutex);
  return TRUE;
}

/* ---- Traps ---- */

static glong no_such_call(TesTask *t) {
  if (!t->trap.foreign_abi)
    tes_kernel_emit_unimplemented(t, t->nr, t->args);
  return -ENOSYS;
}

static inline glong serve_call(TesTask *t, const TesSyscall *row) {
  glong r;
  if (G_UNLIKELY(g_atomic_pointer_get(&t->seccomp)) && !tes_seccomp_permits(t, &r))
    return r;
  return row && row->fn ? row->fn(t, t->args) : no_such_call(t);
}
glong tes_task_serve_call(TesTask *t, const TesSyscall *row) { return serve_call(t, row); }

static void serve_syscall(TesTask *t) {
  t->nr = t->trap.nr;
  memcpy(t->args, t->trap.args, sizeof t->args);
  t->fault_repeats = 0; /* it got as far as a call */
  t->no_result = FALSE;
  const TesSyscall *row = t->nr < TES_SYSCALL_MAX && !t->trap.foreign_abi ? t->kernel->syscalls[t->nr] : NULL;
  glong r = G_UNLIKELY(t->kernel->watch) ? tes_watch_call(t, row) : serve_call(t, row);
  if (t->no_result)
    return;
  t->exec->ops->set_result(t->exec, r);
  if (G_UNLIKELY(r <= -TES_ERESTARTSYS && r >= -TES_ERESTART_RESTARTBLOCK)) {
    t->in_syscall = TRUE;
    tes_signal_deliver(t);
  }
}

/* A page fault that the memory manager calls resolved must not come back for ever. Other threads' forks bring it back
 * honestly, hence the generous number; the thread's own are told apart by the system calls between. */
#define MAX_FAULT_REPEATS 4096

static gboolean makes_progress(TesTask *t) {
  if (t->trap.addr != t->last_fault_addr || t->trap.ip != t->last_fault_ip) {
    t->last_fault_addr = t->trap.addr;
    t->last_fault_ip = t->trap.ip;
    t->fault_repeats = 0;
  }
  return ++t->fault_repeats < MAX_FAULT_REPEATS;
}

static void force_signal(TesTask *t, int sig, int code, gulong addr) {
  siginfo_t info = {.si_signo = sig, .si_code = code, .si_addr = (void *)addr};
  t->trap_no = t->trap.trapno;
  t->trap_err = t->trap.err;
  if (t->trap.kind == TES_TRAP_FAULT && !t->trap_err) /* a user-mode fault has a bit set */
    tes_fault_error_code(t, code == SEGV_ACCERR);
  t->fault_addr = addr;
  tes_signal_force(t, &info);
}

static void serve_fault(TesTask *t) {
  int code = t->trap.code;
  if (t->trap.signo == SIGSEGV) {
    int r = tes_mm_fault(t->mm, t, t->trap.addr, t->trap.access, code == SEGV_ACCERR, t->trap.sp, &code);
    if (r == 0 && makes_progress(t)) {
      tes_count(&t->minflt);
      return;
    }
    if (r < 0) {
      tes_warn("out of memory: killing process %d (%s)", t->tg->tgid, t->comm);
      tes_task_group_exit(t, SIGKILL);
      return;
    }
    force_signal(t, r == 0 ? SIGSEGV : r, code, t->trap.addr);
    return;
  }
  force_signal(t, t->trap.signo, code, t->trap.addr);
}

static void serve_trap(TesTask *t) {
  switch (t->trap.kind) {
  case TES_TRAP_SYSCALL:
    serve_syscall(t);
    if (G_UNLIKELY(t->trap.rewrite))
      tes_mm_rewrite(t, t->trap.ip);
    break;
  case TES_TRAP_FAULT:
    serve_fault(t);
    break;
  case TES_TRAP_EXCEPTION:
    if (tes_task_cpuid(t))
      break;
    force_signal(t, t->trap.signo, t->trap.code, t->trap.addr);
    break;
  case TES_TRAP_KICK:
    tes_count(&t->nivcsw);
    break;
  case TES_TRAP_DEAD:
    tes_task_group_exit(t, SIGKILL);
    break;
  }
}

static void drop_file(gpointer p) { tes_file_unref(p); }

void tes_task_drop_file(TesTask *t, TesFile *f) {
  if (t->working)
    t->dropped_files = g_slist_prepend(t->dropped_files, f);
  else
    tes_file_unref(f);
}

void tes_kernel_on_leave(TesKernel *k, void (*fn)(TesTask *, gpointer), gpointer data) {
  Work *w = g_new(Work, 1);
  *w = (Work){fn, data};
  k->on_leave = g_slist_append(k->on_leave, w);
}

void tes_task_tell_leave(TesTask *t) {
  for (GSList *l = t->kernel->on_leave; l; l = l->next)
    ((Work *)l->data)->fn(t, ((Work *)l->data)->data);
  g_slist_free_full(g_steal_pointer(&t->dropped_files), drop_file);
}

static void drop_path(gpointer p) { tes_path_unref(p); }

/* Everything that must happen between a trap and the next run of the guest; TRUE if it should be looked at again. */
static gboolean before_guest(TesTask *t) {
  if (G_UNLIKELY(t->borrowed_paths))
    g_slist_free_full(g_steal_pointer(&t->borrowed_paths), drop_path);
  if (G_UNLIKELY(t->dropped_files))
    g_slist_free_full(g_steal_pointer(&t->dropped_files), drop_file);
  tes_epoch_poll();
  gboolean again = FALSE;
  if (G_UNLIKELY(g_atomic_int_get(&t->kernel->pause_count) > 0)) {
    tes_task_set_blocked(t, TES_TASK_BLOCKED);
    tes_task_set_blocked(t, TES_TASK_KERNEL);
    again = TRUE;
  }
  if (g_atomic_int_get(&t->work_pending)) {
    tes_task_run_work(t);
    again = TRUE;
  }
  if (g_atomic_int_get(&t->sig_flag) || t->have_saved_mask) {
    tes_signal_deliver(t);
    again = TRUE;
  }
  return again && !g_atomic_int_get(&t->killed);
}

static gboolean has_work(TesTask *t) {
  return g_atomic_int_get(&t->killed) || g_atomic_int_get(&t->sig_flag) ||
         g_atomic_int_get(&t->work_pending) || g_atomic_int_get(&t->kernel->pause_count) > 0;
}

/* `state` is for onlookers only (/proc) and needs no order; in_guest needs a full barrier when it is set, and none but release when
 * it is cleared: a kick that comes too late is not noticed by anyone. */
static void set_state(TesTask *t, TesTaskState state) {
  __atomic_store_n(&t->state, state, __ATOMIC_RELAXED);
}

static void run_guest(TesTask *t) {
  t->in_syscall = FALSE;
  set_state(t, TES_TASK_GUEST);
  __atomic_exchange_n(&t->in_guest, 1, __ATOMIC_SEQ_CST);
  int r = 0;
  if (has_work(t)) /* after in_guest, so that an interrupt is either seen here or kicks */
    t->trap.kind = TES_TRAP_KICK;
  else
    r = t->exec->ops->run(t->exec, &t->trap);
  __atomic_store_n(&t->in_guest, 0, __ATOMIC_RELEASE);
  set_state(t, TES_TASK_KERNEL);
  if (r < 0)
    t->trap.kind = TES_TRAP_DEAD;
}

void tes_task_tell_facts(TesTask *t) {
  if (!TES_HAS(t->exec->ops, facts) || t->kernel->watch) /* each call is to be seen */
    return;
  if (g_atomic_pointer_get(&t->seccomp)) { /* filters see every call */
    t->exec->ops->facts(t->exec, NULL, 0);
    return;
  }
  const TesCred *c = t->cred;
  const TesFact facts[] = {{SYS_getpid, tes_pid_in(tes_pid_of(t->tg->nrs), t->ns_pid)},
                           {SYS_gettid, tes_pid_in(tes_pid_of(t->nrs), t->ns_pid)},
                           {SYS_getuid, c->uid},
                           {SYS_geteuid, c->euid},
                           {SYS_getgid, c->gid},
                           {SYS_getegid, c->egid}};
  t->exec->ops->facts(t->exec, facts, G_N_ELEMENTS(facts));
}

void tes_task_main(TesTask *t) {
  TesKernel *k = t->kernel;
  const gboolean watched = k->watch != 0; /* constant: the usual way is one, so that it is inlined */
  current = t;
  tes_task_tell_facts(t);
  become_running(k);
  g_atomic_int_set(&t->state, TES_TASK_KERNEL);
  while (!g_atomic_int_get(&t->killed)) {
    while (before_guest(t))
      ;
    if (g_atomic_int_get(&t->killed))
      break;
    gint64 began = watched ? tes_watch_run_begin(t) : 0;
    run_guest(t);
    if (watched)
      began = tes_watch_run_end(t, began);
    serve_trap(t);
    if (watched)
      tes_watch_trap_end(t, began);
  }
  g_slist_free_full(g_steal_pointer(&t->borrowed_paths), drop_path);
  tes_task_do_exit(t); /* may free t */
  current = NULL;
  become_idle(k);
  tes_epoch_poll();
  tes_task_thread_gone(k); /* the kernel may be freed from here on */
}
