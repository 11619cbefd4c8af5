/* SPDX-License-Identifier: Apache-2.0 */
/* execve(2): the new image is complete before anything of the caller is touched; then the other threads go, memory,
 * handlers, timers and descriptors change hands, and the registers are the program's first. */
#include <core/loader/loader.h>
#include <core/task/life.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/personality.h>

/* setuid(2) may have gone over RLIMIT_NPROC; execve(2) is where that shows. */
static gboolean over_nproc(TesTask *t) {
  if (!t->nproc_exceeded)
    return FALSE;
  guint64 limit = tes_task_rlimit(t, RLIMIT_NPROC);
  TES_LOCKED(&t->kernel->task_set);
  t->nproc_exceeded = tes_uid_tasks(t->kernel, t->cred->uid) > limit;
  return t->nproc_exceeded;
}

/* A table that another process shares (CLONE_SIGHAND without CLONE_THREAD) is left to it. */
static void own_sighand(TesTask *t) {
  TesThreadGroup *tg = t->tg;
  if (g_atomic_int_get(&tg->sighand->refs) == 1)
    return;
  TesSigHand *copy = tes_sighand_copy(tg->sighand), *old;
  tes_mutex_lock(&t->kernel->task_set);
  old = tg->sighand;
  tg->sighand = copy;
  tes_mutex_unlock(&t->kernel->task_set);
  tes_sighand_unref(old);
}

static void change_credentials(TesTask *t, const TesImage *image) {
  gboolean gained;
  TesCred *c = tes_cred_for_exec(t->cred, image->suid_mode, image->suid_uid, image->suid_gid, &gained);
  if (gained)
    t->pdeath_signal = 0;
  t->tg->dumpable = image->readable && !gained && c->euid == c->uid && c->egid == c->gid;
  tes_task_set_cred(t, c);
}

static void close_files(TesTask *t) {
  tes_mutex_lock(&t->lock);
  TesFdTable *table = g_steal_pointer(&t->fdtable);
  tes_mutex_unlock(&t->lock);
  table = tes_fdtable_exec(table, &t->ctx);
  tes_mutex_lock(&t->lock);
  t->fdtable = table;
  tes_mutex_unlock(&t->lock);
}

/* Nothing of the old program's state is left in the thread. */
static void reset_thread(TesTask *t, const TesImage *image) {
  t->vm_shared = FALSE;
  t->keep_caps = FALSE;
  t->personality &= ~(gulong)(READ_IMPLIES_EXEC | ADDR_COMPAT_LAYOUT);
  t->tg->membarrier = FALSE;
  t->have_saved_mask = FALSE;
  t->tsc_sigsegv = t->cpuid_fault = FALSE;
  tes_task_set_comm(t, image->comm);
  TesRegs *r = tes_task_regs(t, TRUE); /* zero but for selectors and flags */
  r->rip = image->entry;
  r->rsp = image->sp;
  t->in_syscall = FALSE;
  t->no_result = TRUE;
}

static void take_image(TesTask *t, TesImage *image, TesExec *exec) {
  TesThreadGroup *tg = t->tg;
  if (t->have_saved_mask) /* a mask that was to come back does so now: it survives execve */
    tes_signal_set_blocked(t, t->saved_mask);
  tes_task_leave_memory(t);
  tes_mm_attach(image->mm);
  tes_task_switch_memory(t, g_steal_pointer(&image->mm), exec);
  own_sighand(t);
  tes_signal_exec(t);
  tes_itimers_exec(tg);
  close_files(t);
  change_credentials(t, image);
  tes_mutex_lock(&t->kernel->task_set);
  tg->execed = TRUE;
  tg->exit_signal = SIGCHLD;
  tes_mutex_unlock(&t->kernel->task_set);
  reset_thread(t, image);
}

glong tes_task_exec(TesTask *t, const TesLoadArgs *args) {
  if (over_nproc(t))
    return -EAGAIN;
  TesPlatform *p = t->kernel->platform;
  TesImage image = {0};
  int r = tes_load_image(&t->ctx, args, &image);
  if (r < 0)
    return r;
  g_autoptr(GError) error = NULL;
  TesExec *exec = p->ops->exec_new(p, tes_mm_aspace(image.mm), &error);
  if (!exec) {
    tes_debug("execve: %s", error ? error->message : "no thread of execution");
    tes_image_clear(&image);
    return -ENOMEM;
  }
  r = tes_task_make_alone(t);
  if (r < 0) {
    exec->ops->free(exec);
    tes_image_clear(&image);
    return -TES_ERESTARTNOINTR;
  }
  take_image(t, &image, exec);
  tes_task_tell_facts(t);
  tes_image_clear(&image);
  if (G_UNLIKELY(t->kernel->watch))
    tes_trace_exec(t, args->argv);
  return 0;
}

int tes_task_execve(TesTask *t, const TesAt *at, TesFile *file, char **argv, char **envv) {
  TesLoadArgs args = {.file = file, .at = at, .argv = argv, .envv = envv, .task = t, .limits = t->tg->limits};
  return (int)tes_task_exec(t, &args);
}
