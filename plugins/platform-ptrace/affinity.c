/* SPDX-License-Identifier: Apache-2.0 */
/* What ../platform-common/pair.h needs to keep tracer and tracee on one CPU. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "private.h"

static gboolean place(gpointer exec, const cpu_set_t *set) {
  PtExec *e = exec;
  sched_setaffinity(e->tid, sizeof *set, set);
  sched_setaffinity(e->owner, sizeof *set, set);
  return TRUE;
}

/* CPU time of the stub thread. Of the whole stub where /proc is not to be had: then contention is seen too rarely. */
static gint64 stub_cpu_ns(gpointer exec) {
  PtExec *e = exec;
  pid_t pid = ((PtAspace *)e->base.aspace)->stub.pid;
  char buf[64], path[64];
  gint64 ns = -1;
  if (g_atomic_int_get(&((PtAspace *)e->base.aspace)->nexecs) > 1) {
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", pid, e->tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    gssize n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    if (fd >= 0)
      close(fd);
    if (n > 0) {
      buf[n] = 0;
      ns = g_ascii_strtoll(buf, NULL, 10);
    }
  }
  clockid_t clock;
  struct timespec t;
  if (ns < 0 && clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &t) == 0)
    ns = t.tv_sec * TES_NSEC + t.tv_nsec;
  return ns;
}

void pt_affinity_init(PtPlatform *p) {
  if (sched_getaffinity(0, sizeof p->allowed, &p->allowed) < 0)
    CPU_ZERO(&p->allowed);
  p->pairs = (PairOps){.allowed = &p->allowed,
                       .ncpus = (guint)CPU_COUNT(&p->allowed),
                       .place = place,
                       .stub_cpu_ns = stub_cpu_ns};
}
