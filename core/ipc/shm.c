/* SPDX-License-Identifier: Apache-2.0 */
/* System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2). A segment is a mapping source; each mapping holds a reference, so
 * the attachments are the references beyond the table's own, forks and exits included. */
#include <core/ipc/ipc.h>
#include <core/mm/mm.h>
#include <core/syscalls/syscalls.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/shm.h>

#ifndef SHM_STAT_ANY
#define SHM_STAT_ANY 15
#endif
#define SHM_MAX (G_MAXULONG - (1UL << 24)) /* SHMMAX and SHMALL, as Linux sets them */
#define LARGEST (1UL << 46)                /* no address space takes more */
#define NAME "/SYSV00000000 (deleted)"     /* in /proc/PID/maps */

typedef struct {
  TesIpcPerm perm; /* mode also holds SHM_DEST, SHM_LOCKED */
  TesMapSource source;
  gint refs;     /* atomic; the table's, and one for each mapping */
  gint detached; /* atomic: calls of last_detached() that are still to come, and attempts to be the last */
  TesNs *ns;     /* referenced while it is attached, and by each of those calls */
  TesMapSource *memory;
  TesKernel *kernel;
  gsize size;
  gint64 atime, dtime, ctime; /* seconds */
  gint cpid, lpid;
} Segment;

static Segment *of_source(TesMapSource *s) {
  return (Segment *)((char *)s - G_STRUCT_OFFSET(Segment, source));
}

static gint attachments(Segment *s) { return g_atomic_int_get(&s->refs) - 1; }

static void segment_free(Segment *s) {
  s->memory->ops->unref(s->memory);
  tes_map_source_clear(&s->source);
  g_free(s);
}

static TesIpcNs *table_of(const Segment *s) { return s->ns->data; }

/* Takes a removed segment that nothing uses from the table. Lock held; TRUE: the caller frees it. */
static gboolean drop_if_unused(Segment *s) {
  if (!(s->perm.mode & SHM_DEST) || attachments(s) > 0 || g_atomic_int_get(&s->detached) > 0)
    return FALSE;
  tes_ipc_remove(&table_of(s)->shm, &s->perm);
  table_of(s)->shm_pages -= TES_PAGE_UP(s->size) >> TES_PAGE_SHIFT;
  return TRUE;
}

/* ---- The mapping source ---- */

static int shm_piece(TesMapSource *source, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  TesMapSource *m = of_source(source)->memory;
  return m->ops->piece(m, off, max, write, out);
}

static void shm_ref(TesMapSource *source) {
  Segment *s = of_source(source);
  if (g_atomic_int_add(&s->refs, 1) == 1)
    tes_ns_ref(s->ns);
}

static void last_detached(gpointer data) {
  Segment *s = data;
  TesNs *ns = s->ns;
  TesIpcNs *table = ns->data;
  tes_mutex_lock(&table->lock);
  g_atomic_int_add(&s->detached, -1);
  gboolean unused = drop_if_unused(s);
  tes_mutex_unlock(&table->lock);
  if (unused)
    segment_free(s);
  tes_ns_unref(ns);
}

/* Perhaps below core/mm's locks: what the end of the last attachment brings with it comes later. */
static void shm_unref(TesMapSource *source) {
  Segment *s = of_source(source);
  TesTask *t = tes_task_current();
  __atomic_store_n(&s->dtime, tes_ipc_now(s->kernel), __ATOMIC_RELAXED);
  if (t)
    __atomic_store_n(&s->lpid, t->tg->tgid, __ATOMIC_RELAXED);
  for (;;) {
    gint n = g_atomic_int_get(&s->refs);
    if (n > 2) {
      if (g_atomic_int_compare_and_exchange(&s->refs, n, n - 1))
        return; /* it may be gone */
      continue;
    }
    g_atomic_int_inc(&s->detached); /* first, so that nobody else frees it before the deferred call */
    if (g_atomic_int_compare_and_exchange(&s->refs, 2, 1)) {
      tes_epoch_defer(last_detached, s);
      return;
    }
    g_atomic_int_add(&s->detached, -1);
  }
}

static const TesMapSourceOps shm_ops = {
    .size = sizeof(TesMapSourceOps), .piece = shm_piece, .ref = shm_ref, .unref = shm_unref};

/* Nothing is attached any more: attached segments keep their namespace. */
void tes_shm_ns_free(TesIpcNs *ns) {
  for (guint i = 0; i < ns->shm.top; i++)
    if (ns->shm.slot[i])
      segment_free((Segment *)ns->shm.slot[i]);
}

/* ---- shmget(2) ---- */

static int segment_new(TesTask *t, TesIpcNs *table, guint32 key, gsize size, guint32 mode) {
  if (!size || size > LARGEST)
    return size ? -ENOMEM : -EINVAL;
  TesMapSource *memory = tes_shm_source_new(t->kernel, size);
  if (!memory)
    return -ENOMEM;
  Segment *s = g_new0(Segment, 1);
  tes_map_source_init(&s->source, &shm_ops);
  s->refs = 1;
  s->ns = t->ns_ipc;
  s->memory = memory;
  s->kernel = t->kernel;
  s->size = size;
  s->ctime = tes_ipc_now(t->kernel);
  s->cpid = t->tg->tgid;
  int id = tes_ipc_add(t, &table->shm, &s->perm, key, mode);
  if (id < 0)
    segment_free(s);
  else
    table->shm_pages += TES_PAGE_UP(size) >> TES_PAGE_SHIFT;
  return id;
}

static glong sys_shmget(TesTask *t, const gulong a[6]) {
  guint32 key = (guint32)a[0];
  gsize size = a[1];
  guint flags = (guint)a[2];
  TesIpcNs *ns = tes_ipc_ns(t);
  if (flags & SHM_HUGETLB)
    return -ENOMEM; /* a host without reserved huge pages */
  TES_LOCKED(&ns->lock);
  Segment *s = key == IPC_PRIVATE ? NULL : (Segment *)tes_ipc_find_key(&ns->shm, key);
  if (!s)
    return key != IPC_PRIVATE && !(flags & IPC_CREAT) ? -ENOENT : segment_new(t, ns, key, size, flags);
  if ((flags & IPC_CREAT) && (flags & IPC_EXCL))
    return -EEXIST;
  if (size > s->size)
    return -EINVAL;
  int r = tes_ipc_permission(t, &s->perm, (flags | flags >> 3 | flags >> 6) & 6);
  return r < 0 ? r : s->perm.id;
}

/* ---- shmat(2), shmdt(2) ---- */

static int plan_attach(TesTask *t, const gulong a[6], TesMmapArgs *m) {
  gulong addr = a[1];
  guint flags = (guint)a[2];
  if (addr & ~TES_PAGE_MASK) {
    if (!(flags & SHM_RND))
      return -EINVAL;
    addr = TES_PAGE_DOWN(addr);
    if (!addr && (flags & SHM_REMAP))
      return -EINVAL;
  }
  if (!addr && (flags & SHM_REMAP))
    return -EINVAL;
  m->addr = addr;
  m->flags = MAP_SHARED | (!addr ? 0 : flags & SHM_REMAP ? MAP_FIXED : MAP_FIXED_NOREPLACE);
  m->prot = PROT_READ | (flags & SHM_RDONLY ? 0 : PROT_WRITE) | (flags & SHM_EXEC ? PROT_EXEC : 0);
  m->task = t;
  m->name = NAME;
  return 0;
}

static glong sys_shmat(TesTask *t, const gulong a[6]) {
  TesMmapArgs m = {0};
  TesIpcNs *ns = tes_ipc_ns(t);
  TesIpcPerm *p;
  int r = plan_attach(t, a, &m);
  if (r < 0)
    return r;
  tes_mutex_lock(&ns->lock);
  r = tes_ipc_find(&ns->shm, (int)a[0], &p);
  Segment *s = (Segment *)p;
  if (r == 0)
    r = tes_ipc_permission(t, p, m.prot & PROT_WRITE ? 6 : 4);
  if (r == 0)
    shm_ref(&s->source); /* ours for the time of the call */
  tes_mutex_unlock(&ns->lock);
  if (r < 0)
    return r;
  m.len = s->size;
  m.source = &s->source;
  glong at = tes_mm_mmap(t->mm, &m);
  if (at >= 0) {
    __atomic_store_n(&s->atime, tes_ipc_now(t->kernel), __ATOMIC_RELAXED);
    __atomic_store_n(&s->lpid, t->tg->tgid, __ATOMIC_RELAXED);
  }
  gint64 dtime = s->dtime;
  shm_unref(&s->source);
  __atomic_store_n(&s->dtime, dtime, __ATOMIC_RELAXED);
  return at == -EEXIST ? -EINVAL : at;
}

static glong sys_shmdt(TesTask *t, const gulong a[6]) {
  return a[0] & ~TES_PAGE_MASK ? -EINVAL : tes_mm_unmap_source(t->mm, a[0], &shm_ops);
}

/* ---- shmctl(2) ---- */

static void fill(Segment *s, struct shmid_ds *d) {
  *d = (struct shmid_ds){.shm_segsz = s->size,
                         .shm_atime = s->atime,
                         .shm_dtime = s->dtime,
                         .shm_ctime = s->ctime,
                         .shm_cpid = s->cpid,
                         .shm_lpid = s->lpid,
                         .shm_nattch = (shmatt_t)attachments(s)};
  tes_ipc_perm_out(&s->perm, &d->shm_perm);
}

static glong info(TesTask *t, TesIpcNs *ns, int cmd, gulong out) {
  struct shminfo limits = {
      .shmmax = SHM_MAX, .shmmin = 1, .shmmni = TES_IPC_SLOTS, .shmseg = TES_IPC_SLOTS, .shmall = SHM_MAX};
  struct shm_info used = {0};
  tes_mutex_lock(&ns->lock);
  used.used_ids = (int)ns->shm.n;
  used.shm_tot = used.shm_rss = ns->shm_pages;
  int highest = ns->shm.top ? (int)ns->shm.top - 1 : 0;
  tes_mutex_unlock(&ns->lock);
  gboolean bad = cmd == IPC_INFO ? tes_copy_out(t, out, &limits, sizeof limits) < 0
                                 : tes_copy_out(t, out, &used, sizeof used) < 0;
  return bad ? -EFAULT : highest;
}

/* IPC_STAT takes an identifier, the others a slot's number and answer with the identifier. */
static glong status(TesTask *t, TesIpcNs *ns, int id, int cmd, gulong out) {
  struct shmid_ds d;
  TesIpcPerm *p;
  tes_mutex_lock(&ns->lock);
  int r = tes_ipc_stat(t, &ns->shm, id, cmd != IPC_STAT, cmd == SHM_STAT_ANY, &p);
  if (r >= 0)
    fill((Segment *)p, &d);
  tes_mutex_unlock(&ns->lock);
  if (r >= 0 && tes_copy_out(t, out, &d, sizeof d) < 0)
    return -EFAULT;
  return r;
}

static void line(const TesIpcPerm *p, GString *out) {
  Segment *s = (Segment *)p;
  g_string_append_printf(
      out,
      "%10d %10d  %4o %21" G_GSIZE_FORMAT " %5d %5d  %5d %5u %5u %5u %5u %10" G_GINT64_FORMAT
      " %10" G_GINT64_FORMAT " %10" G_GINT64_FORMAT " %21" G_GSIZE_FORMAT " %21d\n",
      (gint)p->key, p->id, p->mode, s->size, s->cpid, s->lpid, attachments(s), p->uid, p->gid, p->cuid,
      p->cgid, s->atime, s->dtime, s->ctime, (gsize)TES_PAGE_UP(s->size), 0);
}

void tes_ipc_shm_text(TesTask *t, GString *out) {
  g_string_append(
      out,
      "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      "
      "atime      dtime      ctime                   rss                  swap\n");
  tes_ipc_list(t, &tes_ipc_ns(t)->shm, line, out);
}

/* The key is free at once, the memory with the last attachment. TRUE: now. */
static gboolean mark_removed(Segment *s) {
  s->perm.key = IPC_PRIVATE;
  __atomic_or_fetch(&s->perm.mode, SHM_DEST, __ATOMIC_SEQ_CST);
  return drop_if_unused(s);
}

static glong change(TesTask *t, TesIpcNs *ns, int id, int cmd, gulong in) {
  struct shmid_ds d;
  if (cmd == IPC_SET && tes_copy_in(t, &d, in, sizeof d) < 0)
    return -EFAULT;
  TesIpcPerm *p;
  gboolean gone = FALSE;
  tes_mutex_lock(&ns->lock);
  int r = tes_ipc_find(&ns->shm, id, &p);
  Segment *s = (Segment *)p;
  if (r == 0)
    r = cmd == SHM_LOCK || cmd == SHM_UNLOCK
            ? (tes_cred_capable(tes_task_cred(t), CAP_IPC_LOCK) ? 0 : tes_ipc_may_change(t, p))
            : tes_ipc_may_change(t, p);
  if (r == 0 && cmd == IPC_RMID)
    gone = mark_removed(s);
  else if (r == 0 && cmd == IPC_SET && (r = tes_ipc_perm_set(p, &d.shm_perm)) == 0)
    s->ctime = tes_ipc_now(t->kernel);
  else if (r == 0 && cmd == SHM_LOCK)
    p->mode |= SHM_LOCKED;
  else if (r == 0 && cmd == SHM_UNLOCK)
    p->mode &= (guint16)~SHM_LOCKED;
  tes_mutex_unlock(&ns->lock);
  if (gone)
    segment_free(s);
  return r;
}

static glong sys_shmctl(TesTask *t, const gulong a[6]) {
  int id = (int)a[0], cmd = (int)a[1];
  TesIpcNs *ns = tes_ipc_ns(t);
  if (cmd < 0 || id < 0)
    return -EINVAL;
  switch (cmd) {
  case IPC_INFO:
  case SHM_INFO:
    return info(t, ns, cmd, a[2]);
  case IPC_STAT:
  case SHM_STAT:
  case SHM_STAT_ANY:
    return status(t, ns, id, cmd, a[2]);
  case IPC_SET:
  case IPC_RMID:
  case SHM_LOCK:
  case SHM_UNLOCK:
    return change(t, ns, id, cmd, a[2]);
  default:
    return -EINVAL;
  }
}

static const TesSyscall rows[] = {
    {29, "shmget", sys_shmget, TES_PARTIAL, "no huge pages", "xux"},
    {30, "shmat", sys_shmat, TES_FULL, NULL, "dpx"},
    {31, "shmctl", sys_shmctl, TES_PARTIAL, "SHM_LOCK is kept and shown; the host may still swap", "ddp"},
    {67, "shmdt", sys_shmdt, TES_FULL, NULL, "p"},
};
const TesSyscallTable tes_sys_shm = TES_ROWS(rows);
