/* SPDX-License-Identifier: Apache-2.0 */
/* pidfd: a description that stands for a thread group (pidfd_open(2)). Readable once the group has exited. Waiters
 * enlist on the group's exit queue, which the file keeps alive. */
#include <core/task/life.h>

typedef struct {
  TesFile file;
  TesThreadGroup *tg;
} PidFile;

static TesThreadGroup *group_of(TesFile *f) { return ((PidFile *)f)->tg; }

/* Without a lock: pollers may hold theirs. The flag only ever goes up, before the queue is told. */
static guint pidfd_poll(TesFile *f) {
  return g_atomic_int_get(&group_of(f)->zombie) ? POLLIN | POLLRDNORM : 0;
}

static char *pidfd_describe(TesFile *f) {
  (void)f;
  return g_strdup("anon_inode:[pidfd]");
}

/* Numbers as the reader's namespace sees them; -1 once reaped (proc(5), fdinfo). */
static char *pidfd_fdinfo(TesFile *f) {
  TesThreadGroup *tg = group_of(f);
  TesTask *reader = tes_task_current();
  TesNs *ns = reader ? reader->ns_pid : NULL;
  TES_LOCKED(&f->kernel->task_set);
  if (!tg->nrs)
    return g_strdup("Pid:\t-1\nNSpid:\t-1\n");
  TesPid *pid = tes_pid_of(tg->nrs);
  GString *s = g_string_new(NULL);
  g_string_append_printf(s, "Pid:\t%d\nNSpid:", tes_pid_in(pid, ns));
  for (guint i = ns ? TES_PID_NS(ns)->level : 0; i < pid->n; i++)
    g_string_append_printf(s, "\t%d", pid->nr[i].nr);
  g_string_append_c(s, '\n');
  return g_string_free(s, FALSE);
}

static void pidfd_release(TesFile *f) {
  tes_tg_unref(group_of(f));
  g_free(f);
}

static const TesFileOps pidfd_ops = {
    .size = sizeof(TesFileOps),
    .name = "pidfd",
    .poll = pidfd_poll,
    .describe = pidfd_describe,
    .fdinfo = pidfd_fdinfo,
    .release = pidfd_release,
};

TesFile *tes_pidfd_new(TesThreadGroup *tg, guint flags) {
  PidFile *f = g_new0(PidFile, 1);
  tes_file_init(&f->file, tg->kernel, &pidfd_ops, O_RDWR | (flags & O_NONBLOCK));
  f->tg = tes_tg_ref(tg);
  f->file.queue = &tg->exit_queue;
  return &f->file;
}

TesThreadGroup *tes_file_pidfd(TesFile *f) { return f->ops == &pidfd_ops ? tes_tg_ref(group_of(f)) : NULL; }
