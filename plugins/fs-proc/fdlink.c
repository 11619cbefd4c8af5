/* SPDX-License-Identifier: Apache-2.0 */
/* Links of a process: exe, cwd, root, fd/N, fdinfo/N, ns/NAME, and its view of the mounts. */
#include "proc.h"
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

/* ---- exe, cwd, root ---- */

/* Unlike getcwd(2), links do not say that a place cannot be reached. */
static int name_of(TesCtx *ctx, TesPath *p, GString *s) {
  static const char unreachable[] = "(unreachable)";
  g_autofree char *name = tes_vfs_name(ctx, p);
  g_string_append(s, g_str_has_prefix(name, unreachable) ? name + strlen(unreachable) : name);
  return 0;
}

static TesPath *exe_path(Node *n) {
  TesMM *mm = tes_task_mm_ref(n->task);
  if (!mm)
    return NULL;
  g_autoptr(TesFile) exe = tes_mm_exe(mm);
  tes_mm_unref(mm);
  return exe && exe->path ? tes_path_ref(exe->path) : NULL;
}

static TesPath *fs_path(Node *n, gboolean root) {
  TesFsInfo *fs = tes_task_fsinfo(n->task);
  if (!fs)
    return NULL;
  TesPath *p = root ? tes_fsinfo_root(fs) : tes_fsinfo_cwd(fs);
  tes_fsinfo_unref(fs);
  return p;
}

static int give(TesPath *p /* full or NULL */, TesPath **out) {
  *out = p;
  return p ? 0 : -ENOENT;
}
static int give_name(TesPath *p /* full or NULL */, TesCtx *ctx, GString *s) {
  g_autoptr(TesPath) owned = p;
  return owned ? name_of(ctx, owned, s) : -ENOENT;
}

int link_exe(Node *n, TesCtx *ctx, TesPath **out) {
  (void)ctx;
  return give(exe_path(n), out);
}
int link_cwd(Node *n, TesCtx *ctx, TesPath **out) {
  (void)ctx;
  return give(fs_path(n, FALSE), out);
}
int link_root(Node *n, TesCtx *ctx, TesPath **out) {
  (void)ctx;
  return give(fs_path(n, TRUE), out);
}
int text_exe(Node *n, TesCtx *ctx, GString *s) { return give_name(exe_path(n), ctx, s); }
int text_cwd(Node *n, TesCtx *ctx, GString *s) { return give_name(fs_path(n, FALSE), ctx, s); }
int text_root_link(Node *n, TesCtx *ctx, GString *s) { return give_name(fs_path(n, TRUE), ctx, s); }

/* ---- fd/N ---- */

typedef struct {
  gint want;
  TesFile *file; /* referenced */
  gboolean cloexec;
  GArray *all; /* gint */
} FdSearch;

static void match_fd(int fd, TesFile *f, gboolean cloexec, gpointer data) {
  FdSearch *s = data;
  if (s->all)
    g_array_append_val(s->all, fd);
  if (fd == s->want) {
    s->file = tes_file_ref(f);
    s->cloexec = cloexec;
  }
}

static gboolean search(Node *n, FdSearch *s) {
  TesFdTable *t = tes_task_fdtable_ref(n->task);
  if (!t)
    return FALSE;
  tes_fdtable_foreach(t, match_fd, s);
  tes_fdtable_unref(t, tes_task_ctx(tes_task_current()));
  return TRUE;
}

static TesFile *file_of(Node *n, gboolean *cloexec) {
  FdSearch s = {.want = n->number};
  search(n, &s);
  if (cloexec)
    *cloexec = s.cloexec;
  return s.file;
}

static int text_fd(Node *n, TesCtx *ctx, GString *s) {
  g_autoptr(TesFile) f = file_of(n, NULL);
  if (!f)
    return -ENOENT;
  g_autofree char *ns = tes_ns_file_name(f);
  if (ns)
    g_string_append(s, ns);
  if (f->path)
    return ns ? 0 : name_of(ctx, f->path, s);
  g_autofree char *text =
      TES_HAS(f->ops, describe) ? f->ops->describe(f) : g_strdup_printf("anon_inode:[%s]", f->ops->name);
  g_string_append(s, text);
  return 0;
}

/* A file without a path is opened again through an inode of its own that asks the file for another description. */
typedef struct {
  TesInode inode;
  TesFile *file;
} ReopenNode;

static int reopen_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  TesFile *f = ((ReopenNode *)i)->file;
  return TES_HAS(f->ops, reopen) ? f->ops->reopen(f, ctx, flags, out) : -ENXIO;
}

static int reopen_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  TesFile *f = ((ReopenNode *)i)->file;
  if (TES_HAS(f->ops, getattr))
    return f->ops->getattr(f, ctx, a);
  *a = (TesAttr){
      .mode = S_IFREG | 0600, .nlink = 1, .ino = f->ino, .dev = i->super->dev, .blksize = TES_PAGE_SIZE};
  return 0;
}

static int reopen_setattr(TesInode *i, TesCtx *ctx, const TesSetAttr *s) {
  (void)i, (void)ctx;
  return s->valid & (TES_SET_UID | TES_SET_GID | TES_SET_MODE) ? -EPERM : 0;
}

static void reopen_free(TesInode *i) {
  tes_file_unref(((ReopenNode *)i)->file);
  g_free(i);
}

static const TesInodeOps reopen_ops = {.size = sizeof(TesInodeOps),
                                       .getattr = reopen_getattr,
                                       .setattr = reopen_setattr,
                                       .open = reopen_open,
                                       .free = reopen_free};

static int follow_fd(Node *n, TesCtx *ctx, TesPath **out) {
  TesFile *f = file_of(n, NULL);
  if (!f)
    return -ENOENT;
  if (f->path) {
    *out = tes_path_ref(f->path);
    tes_file_unref(f);
    return 0;
  }
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  if (!TES_HAS(v->ops, anon_path)) {
    tes_file_unref(f);
    return -ENXIO;
  }
  ReopenNode *r = g_new0(ReopenNode, 1);
  /* The type is that of a plain file: the VFS would open FIFOs and sockets itself. */
  tes_inode_init(&r->inode, n->inode.super, &reopen_ops, S_IFREG | 0666, f->ino);
  r->inode.uid = n->inode.uid;
  r->file = f;
  *out = v->ops->anon_path(v, ctx, &r->inode, f->ops->name);
  tes_inode_unref(&r->inode);
  return *out ? 0 : -ENOMEM;
}

static const Entry fd_entry = {
    .name = "fd", .mode = S_IFLNK | 0700, .text = text_fd, .follow = follow_fd, .private_ = TRUE};

/* Pipes, sockets and other files without a place are on mounts that no list has, one for each device number (W4-W6). */
#define DISCONNECTED 0x40000000U

static guint mount_id_of(TesFile *f, TesCtx *ctx) {
  TesAttr a;
  if (f->path && TES_HAS(f->path->vfs->ops, mount_id))
    return f->path->vfs->ops->mount_id(f->path);
  return tes_file_getattr(f, ctx, &a) < 0 ? DISCONNECTED : DISCONNECTED | (guint)minor(a.dev);
}

static int text_fdinfo(Node *n, TesCtx *ctx, GString *s) {
  gboolean cloexec;
  g_autoptr(TesFile) f = file_of(n, &cloexec);
  if (!f)
    return -ENOENT;
  guint mnt = mount_id_of(f, ctx);
  g_string_append_printf(
      s, "pos:\t%" G_GINT64_FORMAT "\nflags:\t0%o\nmnt_id:\t%u\nino:\t%" G_GUINT64_FORMAT "\n", f->pos,
      f->flags | (cloexec ? O_CLOEXEC : 0), mnt, f->inode ? f->inode->ino : f->ino);
  if (TES_HAS(f->ops, fdinfo)) {
    g_autofree char *more = f->ops->fdinfo(f);
    g_string_append(s, more ? more : "");
  }
  return 0;
}

static const Entry fdinfo_entry = {
    .name = "fdinfo", .mode = S_IFREG | 0400, .text = text_fdinfo, .private_ = TRUE};

static int numbered(Node *n, const char *name, const Entry *e, TesInode **out) {
  guint64 fd;
  if ((name[0] == '0' && name[1]) || !g_ascii_string_to_unsigned(name, 10, 0, G_MAXINT32, &fd, NULL))
    return -ENOENT;
  FdSearch s = {.want = fd};
  if (!search(n, &s) || !s.file)
    return -ENOENT;
  gboolean r = tes_file_readable(s.file), w = tes_file_writable(s.file);
  tes_file_unref(s.file);
  int err = node_new(n->inode.super, e, n->task, fd, out);
  if (S_ISLNK(e->mode))
    (*out)->mode = S_IFLNK | (r ? 0500 : 0) | (w ? 0300 : 0);
  return err;
}

int fd_lookup(Node *n, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  return numbered(n, name, &fd_entry, out);
}
int fdinfo_lookup(Node *n, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  return numbered(n, name, &fdinfo_entry, out);
}

int fd_list(Node *n, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  FdSearch s = {.want = -1, .all = g_array_new(FALSE, FALSE, sizeof(gint))};
  search(n, &s);
  for (guint i = 0; i < s.all->len; i++) {
    gint fd = g_array_index(s.all, gint, i);
    if (fd < *pos)
      continue;
    char name[16];
    int len = g_snprintf(name, sizeof name, "%d", fd);
    if (!fill(data, name, len, n->inode.ino + 1 + fd,
              S_ISDIR(n->entry->mode) && n->entry->mode & 0055 ? DT_REG : DT_LNK, fd + 1 + 1000))
      break;
    *pos = fd + 1;
  }
  g_array_unref(s.all);
  return 0;
}

/* ---- ns/NAME ---- */

static const struct {
  const char *name, *type;
  int flag;
} namespaces[] = {{"cgroup", "cgroup", CLONE_NEWCGROUP}, {"ipc", "ipc", CLONE_NEWIPC},
                  {"mnt", "mnt", CLONE_NEWNS},           {"net", "net", CLONE_NEWNET},
                  {"pid", "pid", CLONE_NEWPID},          {"time", "time", CLONE_NEWTIME},
                  {"user", "user", CLONE_NEWUSER},       {"uts", "uts", CLONE_NEWUTS}};

static int text_ns(Node *n, TesCtx *ctx, GString *s) {
  (void)ctx;
  TesNs *ns = tes_task_ns(n->task, namespaces[n->number].flag);
  if (!ns && namespaces[n->number].flag != CLONE_NEWNS)
    return -ENOENT;
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  TesMountNs *m = ns ? NULL : tes_task_mount_ns(n->task);
  guint64 id = ns ? ns->id : m ? v->ops->ns_id(m) : 0;
  if (m)
    v->ops->ns_unref(m);
  g_string_append_printf(s, "%s:[%" G_GUINT64_FORMAT "]", namespaces[n->number].type, id);
  if (ns)
    tes_ns_unref(ns);
  return 0;
}

static int follow_ns(Node *n, TesCtx *ctx, TesPath **out) {
  return tes_ns_place(ctx, n->task, namespaces[n->number].flag, out);
}

static const Entry ns_entry = {
    .name = "ns", .mode = S_IFLNK | 0777, .text = text_ns, .follow = follow_ns, .private_ = TRUE};

int ns_lookup(Node *n, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  for (gsize i = 0; i < G_N_ELEMENTS(namespaces); i++)
    if (g_str_equal(name, namespaces[i].name))
      return node_new(n->inode.super, &ns_entry, n->task, i, out);
  return -ENOENT;
}

int ns_list(Node *n, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  for (gsize i = *pos; i < G_N_ELEMENTS(namespaces); i++) {
    if (!fill(data, namespaces[i].name, strlen(namespaces[i].name), n->inode.ino + 1 + i, DT_LNK,
              i + 1 + 1000))
      return 0;
    *pos = i + 1;
  }
  return 0;
}
