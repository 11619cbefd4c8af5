/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX access control lists (acl(5)): the form in system.posix_acl_* attributes, the check, and how lists and mode bits follow
 * each other. An inode's list is immutable and published by pointer: checks read it in an epoch, without a lock. */
#include <core/task/task.h>
#include <linux/capability.h>
#include <string.h>

#define ACL_VERSION 2 /* little-endian u32, then the entries */
#define ALL_BITS 0777u

/* ---- Form ---- */

static gboolean is_named(const TesAclEntry *e) { return e->tag == TES_ACL_USER || e->tag == TES_ACL_GROUP; }

/* Entries come in the order of their tags; one each of user, group and other; a mask where somebody is named. */
static int check_entries(const TesAcl *a) {
  guint last = 0;
  gboolean named = FALSE, mask = FALSE, group = FALSE;
  for (guint i = 0; i < a->n; i++) {
    const TesAclEntry *e = &a->e[i];
    if ((e->perm & ~7) || (e->tag <= last && !(is_named(e) && e->tag == last)))
      return -EINVAL;
    if ((i == 0) != (e->tag == TES_ACL_USER_OBJ) || (i == a->n - 1) != (e->tag == TES_ACL_OTHER))
      return -EINVAL;
    named |= is_named(e);
    mask |= e->tag == TES_ACL_MASK;
    group |= e->tag == TES_ACL_GROUP_OBJ;
    last = e->tag;
  }
  return !group || (named && !mask) ? -EINVAL : 0;
}

int tes_acl_parse(const void *value, gsize size, TesAcl **out) {
  guint32 version;
  *out = NULL;
  if (size == 0)
    return 0;
  if (size < sizeof version)
    return -EINVAL;
  memcpy(&version, value, sizeof version);
  if (GUINT32_FROM_LE(version) != ACL_VERSION)
    return -EOPNOTSUPP;
  size -= sizeof version;
  guint n = size / sizeof(TesAclEntry);
  if (size % sizeof(TesAclEntry))
    return -EINVAL;
  if (!n)
    return 0;
  g_autofree TesAcl *a = g_malloc(sizeof *a + size);
  a->n = n;
  memcpy(a->e, (const char *)value + sizeof version, size);
  for (guint i = 0; i < n; i++) {
    TesAclEntry *e = &a->e[i];
    if (!e->tag || (e->tag & (e->tag - 1)) || e->tag > TES_ACL_OTHER || (is_named(e) && e->id == G_MAXUINT32))
      return -EINVAL;
    if (!is_named(e))
      e->id = G_MAXUINT32;
  }
  int r = check_entries(a);
  if (r == 0)
    *out = g_steal_pointer(&a);
  return r;
}

gssize tes_acl_format(const TesAcl *a, void *value, gsize size) {
  guint32 version = GUINT32_TO_LE(ACL_VERSION);
  gsize len = sizeof version + a->n * sizeof(TesAclEntry);
  if (!size)
    return (gssize)len;
  if (size < len)
    return -ERANGE;
  memcpy(value, &version, sizeof version);
  memcpy((char *)value + sizeof version, a->e, len - sizeof version);
  return (gssize)len;
}

TesAcl *tes_acl_copy(const TesAcl *a) {
  return a ? g_memdup2(a, sizeof *a + a->n * sizeof(TesAclEntry)) : NULL;
}

/* ---- Lists and mode bits ---- */

static TesAclEntry *entry_of(TesAcl *a, guint tag) {
  for (guint i = 0; i < a->n; i++)
    if (a->e[i].tag == tag)
      return &a->e[i];
  return NULL;
}

/* The entry that the mode's group bits stand for: the mask where there is one. */
static TesAclEntry *group_class(TesAcl *a) {
  TesAclEntry *mask = entry_of(a, TES_ACL_MASK);
  return mask ? mask : entry_of(a, TES_ACL_GROUP_OBJ);
}

gboolean tes_acl_to_mode(const TesAcl *acl, guint32 *mode) {
  TesAcl *a = (TesAcl *)acl;
  *mode = (*mode & ~ALL_BITS) | (guint32)a->e[0].perm << 6 | (guint32)group_class(a)->perm << 3 |
          a->e[a->n - 1].perm;
  return a->n == 3;
}

void tes_acl_chmod(TesAcl *a, guint32 mode) {
  a->e[0].perm = mode >> 6 & 7;
  group_class(a)->perm = mode >> 3 & 7;
  a->e[a->n - 1].perm = mode & 7;
}

TesAcl *tes_acl_inherit(const TesAcl *dflt, guint32 *mode) {
  TesAcl *a = tes_acl_copy(dflt);
  a->e[0].perm &= *mode >> 6;
  group_class(a)->perm &= *mode >> 3;
  a->e[a->n - 1].perm &= *mode;
  if (tes_acl_to_mode(a, mode))
    g_clear_pointer(&a, g_free);
  return a;
}

/* ---- The list of an inode ---- */

void tes_inode_set_acl(TesInode *i, TesAcl *a) {
  /* The flag is raised after the list is there, and may stay up a moment after it has gone: a reader then finds NULL. */
  if (!a)
    g_atomic_int_and(&i->flags, ~(guint)TES_INODE_ACL);
  gpointer old = __atomic_exchange_n(&i->acl, a, __ATOMIC_ACQ_REL);
  if (a)
    g_atomic_int_or(&i->flags, TES_INODE_ACL);
  if (old)
    tes_epoch_defer(g_free, old);
}

TesAcl *tes_inode_get_acl(TesInode *i) {
  tes_epoch_enter();
  TesAcl *a = tes_acl_copy(__atomic_load_n(&i->acl, __ATOMIC_ACQUIRE));
  tes_epoch_leave();
  return a;
}

static gboolean same_acl(const TesAcl *a, const TesAcl *b) {
  return a && b ? a->n == b->n && !memcmp(a->e, b->e, a->n * sizeof a->e[0]) : a == b;
}

void tes_inode_mirror_acl(TesInode *to, TesInode *from) {
  while ((to->flags | from->flags) & TES_INODE_ACL) {
    tes_epoch_enter();
    const TesAcl *now = __atomic_load_n(&from->acl, __ATOMIC_ACQUIRE);
    gboolean same = same_acl(now, __atomic_load_n(&to->acl, __ATOMIC_ACQUIRE));
    TesAcl *a = same ? NULL : tes_acl_copy(now);
    tes_epoch_leave();
    if (same)
      return;
    tes_inode_set_acl(to, a); /* then once more: another thread may have mirrored something newer before */
  }
}

static gboolean grants(const TesAcl *a, guint at, guint mask) {
  guint perm = a->e[at].perm;
  for (guint i = at + 1; i < a->n; i++)
    if (a->e[i].tag == TES_ACL_MASK)
      perm &= a->e[i].perm;
  return !(mask & ~perm);
}

/* acl(5), "access check algorithm". The owner has been dealt with. */
static gboolean check_list(const TesAcl *a, const TesCred *c, guint32 gid, guint mask) {
  gboolean in_group = FALSE;
  for (guint i = 0; i < a->n; i++) {
    const TesAclEntry *e = &a->e[i];
    if (e->tag == TES_ACL_USER && e->id == c->fsuid)
      return grants(a, i, mask);
    if ((e->tag == TES_ACL_GROUP_OBJ && tes_cred_in_group(c, gid)) ||
        (e->tag == TES_ACL_GROUP && tes_cred_in_group(c, e->id))) {
      in_group = TRUE;
      if (!(mask & ~e->perm))
        return grants(a, i, mask);
    }
  }
  return !in_group && !(mask & ~a->e[a->n - 1].perm);
}

int tes_acl_permission(TesInode *i, const TesCred *c, guint mask) {
  tes_epoch_enter();
  const TesAcl *a = __atomic_load_n(&i->acl, __ATOMIC_ACQUIRE);
  int r = a ? check_list(a, c, i->gid, mask) : -1;
  tes_epoch_leave();
  return r;
}

int tes_inode_may_set_acl(TesInode *i, TesCtx *ctx, gboolean dflt, const TesAcl *a) {
  if (S_ISLNK(i->mode))
    return -EOPNOTSUPP;
  if (dflt && !S_ISDIR(i->mode))
    return a ? -EACCES : 1;
  return tes_inode_owner_or_capable(i, ctx) ? 0 : -EPERM;
}

/* ---- The umask, which a directory's default list replaces ---- */

guint32 tes_ctx_apply_umask(TesCtx *ctx, guint32 mode) {
  TesTask *t = tes_ctx_to_task(ctx);
  guint32 mask = t && t->fsinfo ? tes_fsinfo_umask(t->fsinfo) : 022;
  if (t)
    t->umask_took = mode & mask;
  return mode & ~mask;
}

guint32 tes_ctx_umask_took(TesCtx *ctx) {
  TesTask *t = tes_ctx_to_task(ctx);
  return t ? t->umask_took : 0;
}
