/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/mounts, mountinfo and mountstats: proc(5). Polling one tells of changes (POLLPRI | POLLERR), once for each. */
#include "proc.h"
#include <poll.h>

/* Blanks and backslashes are written in octal; in names of sources also what would begin a comment. */
static void add_escaped(GString *s, const char *text, const char *special) {
  for (const char *p = text; *p; p++)
    if (strchr(special, *p))
      g_string_append_printf(s, "\\%03o", (guchar)*p);
    else
      g_string_append_c(s, *p);
}
static void add_path(GString *s, const char *path) { add_escaped(s, path ? path : "/", " \t\n\\"); }
static void add_source(GString *s, const char *source) {
  add_escaped(s, source ? source : "none", " \t\n\\#");
}

static const char *behind_rw(const char *options) { return options && options[0] ? options + 2 : ""; }

static void mounts_line(const TesMountInfo *m, gpointer data) {
  GString *s = data;
  gboolean ro = m->super_read_only || (m->options && g_str_has_prefix(m->options, "ro"));
  add_source(s, m->source);
  g_string_append_c(s, ' ');
  add_path(s, m->mount_point);
  g_string_append_printf(s, " %s %s%s%s 0 0\n", m->type, ro ? "ro" : "rw", behind_rw(m->options),
                         m->super_options ? m->super_options : "");
}

static void mountinfo_line(const TesMountInfo *m, gpointer data) {
  GString *s = data;
  const char *propagation = m->propagation ? m->propagation : "";
  g_string_append_printf(s, "%u %u %u:%u ", m->id, m->parent_id, (guint)(m->dev >> 8 & 0xfff),
                         (guint)(m->dev & 0xff) | (guint)(m->dev >> 12 & 0xfff00));
  add_path(s, m->root);
  g_string_append_c(s, ' ');
  add_path(s, m->mount_point);
  g_string_append_printf(s, " %s%s%s - %s ", m->options ? m->options : "rw", *propagation ? " " : "",
                         propagation, m->type);
  add_source(s, m->source);
  g_string_append_printf(s, " %s%s\n", m->super_read_only ? "ro" : "rw",
                         m->super_options ? m->super_options : "");
}

static void mountstats_line(const TesMountInfo *m, gpointer data) {
  GString *s = data;
  g_string_append(s, "device ");
  add_source(s, m->source);
  g_string_append(s, " mounted on ");
  add_path(s, m->mount_point);
  g_string_append_printf(s, " with fstype %s\n", m->type);
}

static int list_mounts(Node *n, TesCtx *ctx, GString *s, void (*fn)(const TesMountInfo *, gpointer)) {
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  TesFsInfo *fs = n->task ? tes_task_fsinfo(n->task) : NULL;
  g_autoptr(TesPath) root = fs ? tes_fsinfo_root(fs) : n->task ? NULL : tes_path_ref(tes_ctx_root(ctx));
  if (fs)
    tes_fsinfo_unref(fs);
  if (root)
    v->ops->mounts(v, ctx, root, fn, s);
  return 0;
}
int text_mounts(Node *n, TesCtx *ctx, GString *s) { return list_mounts(n, ctx, s, mounts_line); }
int text_mountinfo(Node *n, TesCtx *ctx, GString *s) { return list_mounts(n, ctx, s, mountinfo_line); }
int text_mountstats(Node *n, TesCtx *ctx, GString *s) { return list_mounts(n, ctx, s, mountstats_line); }

/* ---- Files that can be polled ---- */

typedef struct {
  TesFile file;
  TesMutex lock;
  GString *text;  /* made at the first read from 0 */
  TesMountNs *ns; /* referenced; its queue is the file's */
  guint64 seen;   /* changes up to here have been told; atomic */
} MountsFile;

static const TesLockClass mounts_class = {"proc mounts", TES_RANK_FILE_POS + 6, FALSE,
                                          "text of an open /proc/PID/mounts"};

static gssize mounts_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  MountsFile *m = (MountsFile *)f;
  Node *n = (Node *)f->inode;
  (void)flags;
  TES_LOCKED(&m->lock);
  if (*pos == 0 || !m->text) {
    g_string_truncate(m->text ? m->text : (m->text = g_string_new(NULL)), 0);
    n->entry->text(n, ctx, m->text);
  }
  gsize len = *pos < (goffset)m->text->len ? MIN(m->text->len - (gsize)*pos, iov->left) : 0;
  gssize r = len ? tes_iov_write_to(iov, m->text->str + *pos, len) : 0;
  if (r > 0)
    *pos += r;
  return r;
}

static guint mounts_poll(TesFile *f) {
  MountsFile *m = (MountsFile *)f;
  TesQueue *queue;
  guint64 now = m->ns ? tes_kernel_vfs(f->kernel)->ops->ns_event(m->ns, &queue) : 0;
  guint64 before = __atomic_exchange_n(&m->seen, now, __ATOMIC_SEQ_CST);
  return POLLIN | POLLRDNORM | (now != before ? POLLPRI | POLLERR : 0);
}

static void mounts_release(TesFile *f) {
  MountsFile *m = (MountsFile *)f;
  if (m->ns)
    tes_kernel_vfs(f->kernel)->ops->ns_unref(m->ns);
  if (m->text)
    g_string_free(m->text, TRUE);
  tes_mutex_clear(&m->lock);
  g_free(m);
}

static const TesFileOps mounts_ops = {.size = sizeof(TesFileOps),
                                      .name = "proc-mounts",
                                      .flags = TES_FILE_SEEKABLE,
                                      .read = mounts_read,
                                      .poll = mounts_poll,
                                      .release = mounts_release};

int open_mounts(Node *n, TesCtx *ctx, guint flags, TesFile **out) {
  const TesVfsOps *ops = tes_kernel_vfs(ctx->kernel)->ops;
  MountsFile *m = g_new0(MountsFile, 1);
  tes_file_init(&m->file, ctx->kernel, &mounts_ops, flags);
  tes_mutex_init(&m->lock, &mounts_class);
  if (n->task && TES_HAS(ops, ns_event) && (m->ns = tes_task_mount_ns(n->task)))
    m->seen = ops->ns_event(m->ns, &m->file.queue);
  *out = &m->file;
  return 0;
}
