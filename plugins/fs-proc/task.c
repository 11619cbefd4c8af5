/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a process and of its threads (proc_pid*(5)). */
#include "proc.h"
#include <stdlib.h>
#include <sys/mman.h>

static TesMM *mm_of(Node *n) { return tes_task_mm_ref(n->task); }

/* ---- Text out of the process's memory ---- */

static int memory_range(Node *n, gulong start, gulong end, TesMM *mm, GString *s) {
  (void)n;
  gsize len = end > start ? MIN(end - start, 2UL << 20) : 0;
  gsize at = s->len;
  g_string_set_size(s, at + len);
  g_string_set_size(s, at + tes_mm_copy_in(mm, s->str + at, start, len));
  return 0;
}

static int text_cmdline(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  TesMM *mm = mm_of(n);
  if (!mm)
    return 0;
  TesMMStat st;
  tes_mm_stat(mm, &st);
  int r = memory_range(n, st.arg_start, st.arg_end, mm, s);
  tes_mm_unref(mm);
  return r;
}

static int text_environ(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  TesMM *mm = mm_of(n);
  if (!mm)
    return 0;
  TesMMStat st;
  tes_mm_stat(mm, &st);
  int r = memory_range(n, st.env_start, st.env_end, mm, s);
  tes_mm_unref(mm);
  return r;
}

static int text_auxv(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  TesMM *mm = mm_of(n);
  if (!mm)
    return 0;
  char buf[1024];
  g_string_append_len(s, buf, tes_mm_auxv(mm, buf, sizeof buf));
  tes_mm_unref(mm);
  return 0;
}

static int text_comm(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  g_string_append_printf(s, "%s\n", tes_task_comm(n->task));
  return 0;
}

static int write_comm(Node *n, TesCtx *ctx, const char *text, gsize len) {
  TesTask *self = tes_ctx_task(ctx);
  if (self && tes_task_group(self) != tes_task_group(n->task))
    return -EINVAL;
  g_autofree char *name = g_strndup(text, len && text[len - 1] == '\n' ? len - 1 : len);
  return tes_task_set_comm(n->task, name);
}

static int text_oom_adj(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  g_string_append_printf(s, "%d\n", tes_task_oom_score_adj(n->task));
  return 0;
}

static int write_oom_adj(Node *n, TesCtx *ctx, const char *text, gsize len) {
  (void)len;
  g_autofree char *t = g_strstrip(g_strdup(text));
  gint64 adj;
  if (!g_ascii_string_to_signed(t, 10, G_MININT32, G_MAXINT32, &adj, NULL))
    return -EINVAL;
  return tes_task_set_oom_score_adj(n->task, ctx, (gint)adj);
}

/* ---- Memory map ---- */

typedef struct {
  GString *s;
  gboolean smaps;
} MapOut;

static void map_line(const TesVmaInfo *v, gpointer data) {
  MapOut *m = data;
  gsize at = m->s->len;
  g_string_append_printf(m->s, "%08lx-%08lx %c%c%c%c %08lx %02x:%02x %" G_GUINT64_FORMAT, v->start, v->end,
                         v->prot & PROT_READ ? 'r' : '-', v->prot & PROT_WRITE ? 'w' : '-',
                         v->prot & PROT_EXEC ? 'x' : '-', v->flags & MAP_SHARED ? 's' : 'p', v->offset,
                         (guint)(v->dev >> 8 & 0xfff), (guint)(v->dev & 0xff), v->ino);
  if (v->name && *v->name) {
    for (gsize col = m->s->len - at; col < 73; col++)
      g_string_append_c(m->s, ' ');
    for (const char *p = v->name; *p; p++)
      if (*p == '\n')
        g_string_append(m->s, "\\012");
      else
        g_string_append_c(m->s, *p);
  }
  g_string_append_c(m->s, '\n');
  if (!m->smaps)
    return;
  gulong kb = (v->end - v->start) / 1024, rss = v->rss / 1024, dirty = v->private_dirty / 1024;
  g_string_append_printf(m->s,
                         "Size:           %8lu kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 "
                         "kB\nRss:            %8lu kB\n"
                         "Pss:            %8lu kB\nShared_Clean:          0 kB\nShared_Dirty:          0 "
                         "kB\nPrivate_Clean:  %8lu kB\n"
                         "Private_Dirty:  %8lu kB\nReferenced:     %8lu kB\nAnonymous:      %8lu kB\nSwap:   "
                         "               0 kB\n"
                         "Locked:                0 kB\nVmFlags: %s%s%s\n",
                         kb, rss, rss, rss - MIN(rss, dirty), dirty, rss, dirty,
                         v->prot & PROT_READ ? "rd " : "", v->prot & PROT_WRITE ? "wr " : "",
                         v->prot & PROT_EXEC ? "ex " : "");
}

static int map_text(Node *n, TesCtx *ctx, GString *s, gboolean smaps) {
  TesMM *mm = mm_of(n);
  if (!mm)
    return 0;
  MapOut m = {s, smaps};
  tes_mm_foreach_vma(mm, ctx, map_line, &m);
  tes_mm_unref(mm);
  return 0;
}
static int text_maps(Node *n, TesCtx *ctx, GString *s) { return map_text(n, ctx, s, FALSE); }
static int text_smaps(Node *n, TesCtx *ctx, GString *s) { return map_text(n, ctx, s, TRUE); }

/* /proc/PID/mem: reads and writes at guest addresses, through read-only private pages too. */
static gssize mem_io(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, gboolean write) {
  Node *n = (Node *)f->inode;
  int check = check_task(n, ctx);
  if (check < 0)
    return check;
  TesMM *mm = mm_of(n);
  if (!mm)
    return 0;
  char buf[4096];
  gssize total = 0, r = 0;
  while (iov->left) {
    gsize len = MIN(iov->left, sizeof buf);
    if (write) {
      r = tes_iov_read_from(iov, buf, len);
      if (r > 0)
        r = tes_mm_poke(mm, *pos, buf, r);
    } else {
      r = tes_mm_copy_in(mm, buf, *pos, len);
      if (r > 0)
        r = tes_iov_write_to(iov, buf, r);
    }
    if (r <= 0)
      break;
    total += r;
    *pos += r;
    if ((gsize)r < len)
      break;
  }
  tes_mm_unref(mm);
  return total ? total : r < 0 ? r : -EIO;
}
static gssize mem_read(TesFile *f, TesCtx *c, TesIov *iov, goffset *pos, int flags) {
  (void)flags;
  return mem_io(f, c, iov, pos, FALSE);
}
static gssize mem_write(TesFile *f, TesCtx *c, TesIov *iov, goffset *pos, int flags) {
  (void)flags;
  return mem_io(f, c, iov, pos, TRUE);
}
static goffset mem_seek(TesFile *f, TesCtx *c, goffset off, int whence) {
  (void)f, (void)c;
  return whence == SEEK_SET ? off : -EINVAL;
}
static void mem_release(TesFile *f) { g_free(f); }
static const TesFileOps mem_ops = {.size = sizeof(TesFileOps),
                                   .name = "proc-mem",
                                   .flags = TES_FILE_SEEKABLE,
                                   .read = mem_read,
                                   .write = mem_write,
                                   .seek = mem_seek,
                                   .release = mem_release};

/* ---- stat, statm, status ---- */

static void figures(Node *n, TesTaskStat *st, TesMMStat *ms) {
  tes_task_stat(n->task, st);
  *ms = (TesMMStat){0};
  TesMM *mm = mm_of(n);
  if (mm) {
    tes_mm_stat(mm, ms);
    tes_mm_unref(mm);
  }
}

static int text_stat(Node *n, TesCtx *ctx, GString *s) {
  TesTaskStat st;
  TesMMStat ms;
  figures(n, &st, &ms);
  TesNs *ns = tes_ctx_pid_ns(ctx);
  guint64 rss_limit = tes_task_rlimit(n->task, RLIMIT_RSS);
  g_string_append_printf(s, "%d (%s) %c %d %d %d %" G_GUINT64_FORMAT " %d 0 ", tes_task_tid(n->task, ns),
                         tes_task_comm(n->task), st.state, tes_task_ppid(n->task, ns),
                         tes_task_pgid(n->task, ns), tes_task_sid(n->task, ns), st.tty_nr, st.tty_pgrp);
  g_string_append_printf(s,
                         "%" G_GUINT64_FORMAT " 0 %" G_GUINT64_FORMAT " 0 %" G_GUINT64_FORMAT
                         " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                         " %d %d %d 0 %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                         " %" G_GUINT64_FORMAT " ",
                         st.minflt, st.majflt, st.utime, st.stime, st.cutime, st.cstime,
                         st.priority ? st.priority : 20 + st.nice, st.nice, st.threads,
                         st.start_time / TES_CLOCK_TICK, ms.vm_size, ms.rss / TES_PAGE_SIZE, rss_limit);
  g_string_append_printf(s,
                         "0 0 %lu 0 0 %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                         " %" G_GUINT64_FORMAT " 0 0 0 %d %d 0 0 0 0 0 0 0 %lu %lu %lu %lu %lu %d\n",
                         ms.stack_start, st.sig_pending & G_MAXINT32, st.sig_blocked & G_MAXINT32,
                         st.sig_ignored & G_MAXINT32, st.sig_caught & G_MAXINT32, st.exit_signal, st.last_cpu,
                         ms.brk_start, ms.arg_start, ms.arg_end, ms.env_start, ms.env_end, st.exit_code);
  return 0;
}

static int text_statm(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  TesTaskStat st;
  TesMMStat ms;
  figures(n, &st, &ms);
  g_string_append_printf(s,
                         "%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                         " %" G_GUINT64_FORMAT " 0 %" G_GUINT64_FORMAT " 0\n",
                         ms.vm_size / TES_PAGE_SIZE, ms.rss / TES_PAGE_SIZE, ms.rss_shared / TES_PAGE_SIZE,
                         ms.text / TES_PAGE_SIZE, (ms.data + ms.stack) / TES_PAGE_SIZE);
  return 0;
}

static const char *state_name(char c) {
  switch (c) {
  case 'R':
    return "R (running)";
  case 'S':
    return "S (sleeping)";
  case 'D':
    return "D (disk sleep)";
  case 'T':
    return "T (stopped)";
  case 't':
    return "t (tracing stop)";
  case 'Z':
    return "Z (zombie)";
  default:
    return "X (dead)";
  }
}

static void status_cred(const TesCred *c, GString *s) {
  g_string_append_printf(s, "Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\nGroups:\t", c->uid, c->euid, c->suid,
                         c->fsuid, c->gid, c->egid, c->sgid, c->fsgid);
  for (guint i = 0; i < c->n_groups; i++)
    g_string_append_printf(s, "%u ", c->groups[i]);
  g_string_append_c(s, '\n');
}

#define HEX16 "%016" G_GINT64_MODIFIER "x"
#define KB(v) ((v) / 1024)

static void status_memory(const TesMMStat *ms, GString *s) {
  if (!ms->vm_size)
    return;
  g_string_append_printf(s,
                         "VmPeak:\t%8" G_GUINT64_FORMAT " kB\nVmSize:\t%8" G_GUINT64_FORMAT
                         " kB\nVmLck:\t       0 kB\nVmPin:\t       0 kB\n"
                         "VmHWM:\t%8" G_GUINT64_FORMAT " kB\nVmRSS:\t%8" G_GUINT64_FORMAT
                         " kB\nRssAnon:\t%8" G_GUINT64_FORMAT
                         " kB\nRssFile:\t       0 kB\nRssShmem:\t%8" G_GUINT64_FORMAT
                         " kB\nVmData:\t%8" G_GUINT64_FORMAT " kB\nVmStk:\t%8" G_GUINT64_FORMAT
                         " kB\nVmExe:\t%8" G_GUINT64_FORMAT " kB\nVmLib:\t       0 kB\nVmPTE:\t       0 kB\n"
                         "VmSwap:\t       0 kB\n",
                         KB(ms->vm_peak), KB(ms->vm_size), KB(ms->rss_peak), KB(ms->rss),
                         KB(ms->rss - MIN(ms->rss, ms->rss_shared)), KB(ms->rss_shared), KB(ms->data),
                         KB(ms->stack), KB(ms->text));
}

static int text_status(Node *n, TesCtx *ctx, GString *s) {
  TesTaskStat st;
  TesMMStat ms;
  figures(n, &st, &ms);
  TesNs *ns = tes_ctx_pid_ns(ctx);
  TesCred *c = tes_task_cred(n->task);
  g_string_append_printf(
      s, "Name:\t%s\nUmask:\t%04o\nState:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0\n",
      tes_task_comm(n->task), st.umask, state_name(st.state), tes_task_pid(n->task, ns),
      tes_task_tid(n->task, ns), tes_task_ppid(n->task, ns));
  if (c)
    status_cred(c, s);
  g_string_append_printf(s, "NStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\n", tes_task_pid(n->task, ns),
                         tes_task_tid(n->task, ns), tes_task_pgid(n->task, ns), tes_task_sid(n->task, ns));
  status_memory(&ms, s);
  g_string_append_printf(s,
                         "Threads:\t%d\nSigQ:\t0/%" G_GUINT64_FORMAT "\nSigPnd:\t" HEX16 "\nShdPnd:\t" HEX16
                         "\nSigBlk:\t" HEX16 "\nSigIgn:\t" HEX16 "\nSigCgt:\t" HEX16 "\n",
                         st.threads, tes_task_rlimit(n->task, RLIMIT_SIGPENDING), st.sig_pending,
                         st.shared_pending, st.sig_blocked, st.sig_ignored, st.sig_caught);
  if (c)
    g_string_append_printf(s,
                           "CapInh:\t" HEX16 "\nCapPrm:\t" HEX16 "\nCapEff:\t" HEX16 "\nCapBnd:\t" HEX16
                           "\nCapAmb:\t" HEX16 "\nNoNewPrivs:\t%d\n",
                           c->cap_inheritable, c->cap_permitted, c->cap_effective, c->cap_bounding,
                           c->cap_ambient, c->no_new_privs);
  guint cores = tes_kernel_cores(ctx->kernel), filters;
  gint mode;
  tes_task_seccomp(n->task, &mode, &filters);
  g_string_append_printf(s,
                         "Seccomp:\t%d\nSeccomp_filters:\t%u\nCpus_allowed:\t%x\nCpus_allowed_list:\t0-%"
                         "u\nMems_allowed:\t1\nMems_allowed_list:\t0\n",
                         mode, filters, cores >= 32 ? G_MAXUINT32 : (1U << cores) - 1, cores - 1);
  g_string_append_printf(s,
                         "voluntary_ctxt_switches:\t%" G_GUINT64_FORMAT
                         "\nnonvoluntary_ctxt_switches:\t%" G_GUINT64_FORMAT "\n",
                         st.voluntary_switches, st.involuntary_switches);
  return 0;
}

/* ---- Smaller files ---- */

static int text_limits(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  static const struct {
    int resource;
    const char *name, *unit;
  } rows[] = {
      {RLIMIT_CPU, "Max cpu time", "seconds"},         {RLIMIT_FSIZE, "Max file size", "bytes"},
      {RLIMIT_DATA, "Max data size", "bytes"},         {RLIMIT_STACK, "Max stack size", "bytes"},
      {RLIMIT_CORE, "Max core file size", "bytes"},    {RLIMIT_RSS, "Max resident set", "bytes"},
      {RLIMIT_NPROC, "Max processes", "processes"},    {RLIMIT_NOFILE, "Max open files", "files"},
      {RLIMIT_MEMLOCK, "Max locked memory", "bytes"},  {RLIMIT_AS, "Max address space", "bytes"},
      {RLIMIT_LOCKS, "Max file locks", "locks"},       {RLIMIT_SIGPENDING, "Max pending signals", "signals"},
      {RLIMIT_MSGQUEUE, "Max msgqueue size", "bytes"}, {RLIMIT_NICE, "Max nice priority", ""},
      {RLIMIT_RTPRIO, "Max realtime priority", ""},    {RLIMIT_RTTIME, "Max realtime timeout", "us"}};
  g_string_append_printf(s, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units");
  for (gsize i = 0; i < G_N_ELEMENTS(rows); i++) {
    struct rlimit r = tes_task_rlimit_pair(n->task, rows[i].resource);
    rlim_t v[2] = {r.rlim_cur, r.rlim_max};
    g_string_append_printf(s, "%-26s", rows[i].name);
    for (int j = 0; j < 2; j++)
      if (v[j] == RLIM_INFINITY)
        g_string_append_printf(s, "%-21s", "unlimited");
      else
        g_string_append_printf(s, "%-21lu", (gulong)v[j]);
    g_string_append_printf(s, "%-10s\n", rows[i].unit);
  }
  return 0;
}

static int text_id_map(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append_printf(s, "%10u %10u %10u\n", 0, 0, G_MAXUINT32);
  return 0;
}

static int text_setgroups(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "allow\n");
  return 0;
}

static int text_cgroup(Node *n, TesCtx *ctx, GString *s) {
  tes_task_cgroup_line(n->task, ctx, s);
  return 0;
}

static int text_zero(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "0\n");
  return 0;
}

static int text_loginuid(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "4294967295");
  return 0;
}

static int text_wchan(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "0");
  return 0;
}

static int text_personality(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  g_string_append(s, "00000000\n");
  return 0;
}

/* ---- task/ ---- */

static int threads_lookup(Node *n, TesCtx *ctx, const char *name, TesInode **out) {
  guint64 tid;
  if (!g_ascii_string_to_unsigned(name, 10, 1, G_MAXINT32, &tid, NULL))
    return -ENOENT;
  g_autoptr(TesTask) t = tes_task_find(ctx->kernel, tes_ctx_pid_ns(ctx), tid, FALSE);
  if (!t || tes_task_group(t) != tes_task_group(n->task))
    return -ENOENT;
  int r = node_new(n->inode.super, &proc_thread_dir, t, 0, out);
  ((Node *)*out)->thread = TRUE;
  return r;
}

static int threads_list(Node *n, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  g_autoptr(GPtrArray) all = tes_task_threads(n->task);
  for (guint i = *pos; i < all->len; i++) {
    gint tid = tes_task_tid(g_ptr_array_index(all, i), tes_ctx_pid_ns(ctx));
    char name[16];
    int len = g_snprintf(name, sizeof name, "%d", tid);
    if (!fill(data, name, len, (guint64)tid << 32 | 1, DT_DIR, i + 1 + 1000))
      return 0;
    *pos = i + 1;
  }
  return 0;
}

#define COMMON_FILES                                                                                        \
  {.name = "auxv", .mode = S_IFREG | 0400, .text = text_auxv, .private_ = TRUE},                            \
      R_FILE("cgroup", text_cgroup), R_FILE("cmdline", text_cmdline),                                       \
      {.name = "comm", .mode = S_IFREG | 0644, .text = text_comm, .write = write_comm},                     \
      {.name = "cwd", .mode = S_IFLNK | 0777, .text = text_cwd, .follow = link_cwd, .private_ = TRUE},      \
      {.name = "environ", .mode = S_IFREG | 0400, .text = text_environ, .private_ = TRUE},                  \
      {.name = "exe", .mode = S_IFLNK | 0777, .text = text_exe, .follow = link_exe, .private_ = TRUE},      \
      R_FILE("gid_map", text_id_map), R_FILE("limits", text_limits),                                        \
      {.name = "loginuid", .mode = S_IFREG | 0644, .text = text_loginuid}, R_FILE("maps", text_maps),       \
      {.name = "mem", .mode = S_IFREG | 0600, .ops = &mem_ops, .private_ = TRUE},                           \
      {.name = "mountinfo", .mode = S_IFREG | 0444, .text = text_mountinfo, .open = open_mounts},           \
      {.name = "mounts", .mode = S_IFREG | 0444, .text = text_mounts, .open = open_mounts},                 \
      {.name = "mountstats", .mode = S_IFREG | 0400, .text = text_mountstats, .open = open_mounts},         \
      R_FILE("oom_score", text_zero),                                                                       \
      {.name = "oom_score_adj", .mode = S_IFREG | 0644, .text = text_oom_adj, .write = write_oom_adj},      \
                                                                                                            \
      {.name = "personality", .mode = S_IFREG | 0400, .text = text_personality, .private_ = TRUE},          \
      {.name = "root",                                                                                      \
       .mode = S_IFLNK | 0777,                                                                              \
       .text = text_root_link,                                                                              \
       .follow = link_root,                                                                                 \
       .private_ = TRUE},                                                                                   \
      R_FILE("sessionid", text_loginuid), R_FILE("setgroups", text_setgroups), R_FILE("smaps", text_smaps), \
      R_FILE("stat", text_stat), R_FILE("statm", text_statm), R_FILE("status", text_status),                \
      R_FILE("uid_map", text_id_map), R_FILE("wchan", text_wchan)

static const Entry task_entries[] = {
    COMMON_FILES,
    PROC_FD_DIR,
    PROC_FDINFO_DIR,
    PROC_NS_DIR,
    {.name = "task", .mode = S_IFDIR | 0555, .lookup = threads_lookup, .list = threads_list},
    {.name = NULL},
};
static const Entry thread_entries[] = {
    COMMON_FILES, PROC_FD_DIR, PROC_FDINFO_DIR, PROC_NS_DIR, {.name = NULL}};

const Entry proc_task_dir = {.name = "", .mode = S_IFDIR | 0555, .dir = task_entries};
const Entry proc_thread_dir = {.name = "", .mode = S_IFDIR | 0555, .dir = thread_entries};
