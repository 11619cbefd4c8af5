/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an executable: permission, kind, mount flags, ETXTBSY, and its first bytes.
 *
 * Execution needs no read permission, so the file is opened at inode level after the checks of execve(2). */
#include <core/loader/internal.h>
#include <sys/mount.h>

/* Lives from the successful load of a program to the end of its last address space. */
typedef struct {
  TesFileWatch watch; /* first */
  TesInode *inode;
} ExeWatch;

static int check_inode(TesCtx *ctx, TesInode *inode, gulong mount_flags) {
  if (S_ISLNK(inode->mode))
    return -ELOOP; /* AT_SYMLINK_NOFOLLOW */
  if (!S_ISREG(inode->mode) || (mount_flags & MS_NOEXEC))
    return -EACCES;
  return tes_inode_permission(inode, ctx, X_OK);
}

static int open_inode(TesCtx *ctx, TesInode *inode, TesPath *path, TesProgram *p) {
  if (!TES_HAS(inode->ops, open))
    return -EACCES;
  int r = tes_inode_deny_write(inode);
  if (r < 0)
    return r;
  r = inode->ops->open(inode, ctx, O_RDONLY, &p->file);
  if (r < 0) {
    tes_inode_allow_write(inode);
    return r;
  }
  p->denies_write = TRUE;
  if (!p->file->inode)
    p->file->inode = tes_inode_ref(inode);
  if (path && !p->file->path)
    p->file->path = tes_path_ref(path);
  tes_notify_file(p->file, IN_OPEN);
  return 0;
}

static void forget_set_id(TesCtx *ctx, gulong mount_flags, TesProgram *p) {
  const TesCred *c = tes_ctx_cred(ctx);
  if ((mount_flags & MS_NOSUID) || !c || c->no_new_privs)
    p->mode &= ~(S_ISUID | S_ISGID);
  if (!(p->mode & S_IXGRP))
    p->mode &= ~S_ISGID; /* mandatory-locking mark, no set-group-ID */
}

static int read_head(TesCtx *ctx, TesProgram *p) {
  gssize n = tes_file_read_kernel(p->file, ctx, p->head, sizeof p->head, 0);
  if (n < 0)
    return (int)n;
  p->n_head = n;
  return 0;
}

static int take_attributes(TesCtx *ctx, TesInode *inode, TesProgram *p) {
  TesAttr a = {0};
  if (!inode || !TES_HAS(inode->ops, getattr))
    return -EACCES;
  int r = inode->ops->getattr(inode, ctx, &a);
  if (r < 0)
    return r;
  p->size = a.size;
  p->mode = a.mode;
  p->uid = a.uid;
  p->gid = a.gid;
  return 0;
}

static int open_checked(TesCtx *ctx, TesInode *inode, TesPath *path, TesProgram *out) {
  gulong mount_flags = path ? path->vfs->ops->mount_flags(path) : 0;
  TesProgram p = {0};
  int r = check_inode(ctx, inode, mount_flags);
  if (r == 0)
    r = take_attributes(ctx, inode, &p);
  if (r == 0)
    r = open_inode(ctx, inode, path, &p);
  if (r < 0)
    return r;
  forget_set_id(ctx, mount_flags, &p);
  r = read_head(ctx, &p);
  if (r < 0)
    tes_program_close(&p);
  else
    *out = p;
  return r;
}

int tes_program_open(TesCtx *ctx, const TesAt *at, TesProgram *out) {
  g_autoptr(TesPath) path = NULL;
  int r = tes_vfs_walk(ctx, at, &path);
  return r < 0 ? r : open_checked(ctx, path->inode, path, out);
}

/* A description without an inode is one that the operator handed in (L9): it is what it says it is. */
static int open_plain(TesCtx *ctx, TesFile *f, TesProgram *out) {
  TesProgram p = {0};
  TesAttr a = {0};
  if (ctx->kind == TES_CTX_TASK || !TES_HAS(f->ops, getattr) || f->ops->getattr(f, ctx, &a) < 0 ||
      !S_ISREG(a.mode) || !(a.mode & 0111) || !tes_file_readable(f))
    return -EACCES;
  p.size = a.size;
  p.mode = a.mode & ~(S_ISUID | S_ISGID);
  p.uid = a.uid;
  p.gid = a.gid;
  p.file = tes_file_ref(f);
  int r = read_head(ctx, &p);
  if (r < 0)
    tes_program_close(&p);
  else
    *out = p;
  return r;
}

int tes_program_open_file(TesCtx *ctx, TesFile *f, TesProgram *out) {
  TesInode *inode = f->path ? f->path->inode : f->inode;
  return inode ? open_checked(ctx, inode, f->path, out) : open_plain(ctx, f, out);
}

static void executed_no_more(TesFile *f, gpointer watch) {
  (void)f;
  TesFileWatch *w = watch;
  TesInode *inode = ((ExeWatch *)w)->inode;
  tes_inode_allow_write(inode);
  tes_inode_unref(inode);
  g_free(w);
}

void tes_program_keep(TesProgram *p) {
  if (!p->denies_write)
    return;
  ExeWatch *w = g_new(ExeWatch, 1);
  *w = (ExeWatch){.watch = {executed_no_more, w}, .inode = tes_inode_ref(p->file->inode)};
  tes_file_add_watch(p->file, &w->watch);
  p->denies_write = FALSE;
}

void tes_program_close(TesProgram *p) {
  if (p->denies_write)
    tes_inode_allow_write(p->file->inode);
  if (p->file)
    tes_file_unref(p->file);
  *p = (TesProgram){0};
}
