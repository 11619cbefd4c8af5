/* SPDX-License-Identifier: Apache-2.0 */
/* Inodes: references, permission, ownership of new ones, write counts.
 *
 * A super owns its root inode, and every inode holds its super. The circle is broken at the root: the super's own
 * reference on the root is not counted back, every further one is (root's count 1 -> 2 takes the super, 2 -> 1 drops it). */
#include <core/task/task.h>
#include <linux/capability.h>

static const TesLockClass attach_class = {"inode attachments", TES_RANK_LEAF - 2, FALSE,
                                          "TesInode.attached: pipes and socket endpoints of nodes"};
static TesMutex attach_lock;

static void attach_init(void) { tes_mutex_init(&attach_lock, &attach_class); }

void tes_inode_attach_lock(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, attach_init);
  tes_mutex_lock(&attach_lock);
}
void tes_inode_attach_unlock(void) { tes_mutex_unlock(&attach_lock); }

void tes_inode_init(TesInode *i, TesSuper *s, const TesInodeOps *ops, guint32 mode, guint64 ino) {
  i->ops = ops;
  i->super = s ? tes_super_ref(s) : NULL;
  i->refs = 1;
  i->mode = mode;
  i->ino = ino;
}

static gboolean is_root(const TesInode *i) {
  return i->super && __atomic_load_n(&i->super->root, __ATOMIC_ACQUIRE) == i;
}

TesInode *tes_inode_ref(TesInode *i) {
  if (g_atomic_int_add(&i->refs, 1) == 1 && is_root(i))
    tes_super_ref(i->super);
  return i;
}

gboolean tes_inode_try_ref(TesInode *i) {
  gint n = g_atomic_int_get(&i->refs);
  while (n > 0) {
    if (__atomic_compare_exchange_n(&i->refs, &n, n + 1, TRUE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
      if (n == 1 && is_root(i))
        tes_super_ref(i->super);
      return TRUE;
    }
  }
  return FALSE;
}

void tes_inode_unref(TesInode *i) {
  TesSuper *s = i->super;
  gboolean root = is_root(i);
  gint n = g_atomic_int_add(&i->refs, -1);
  if (n == 2 && root) {
    tes_super_unref(s);
  } else if (n == 1) {
    g_free(i->acl);
    i->ops->free(i);
    if (s && !root)
      tes_super_unref(s);
  }
}

/* path_resolution(7), capabilities(7): CAP_DAC_OVERRIDE does not make a file without any x bit executable. */
static int by_mode_bits(TesInode *i, TesCtx *ctx, guint mask) {
  TesCred *c = tes_ctx_cred(ctx);
  if (!c)
    return -EACCES;
  guint32 mode = i->mode, bits = mode;
  int listed;
  if (c->fsuid == i->uid)
    bits = mode >> 6;
  else if (G_UNLIKELY(i->flags & TES_INODE_ACL) && (mode & S_IRWXG) &&
           (listed = tes_acl_permission(i, c, mask)) >= 0)
    bits = listed ? 7 : 0; /* with an empty mask Linux looks at the mode bits alone */
  else if (((mode >> 3 ^ mode) & 7 & mask) && tes_cred_in_group(c, i->gid))
    bits = mode >> 3; /* asked only where group and others differ */
  if (!(mask & ~bits & 7))
    return 0;
  if (S_ISDIR(mode)) {
    if (!(mask & W_OK) && tes_cred_capable(c, CAP_DAC_READ_SEARCH))
      return 0;
    return tes_cred_capable(c, CAP_DAC_OVERRIDE) ? 0 : -EACCES;
  }
  if (mask == R_OK && tes_cred_capable(c, CAP_DAC_READ_SEARCH))
    return 0;
  if ((!(mask & X_OK) || (mode & 0111)) && tes_cred_capable(c, CAP_DAC_OVERRIDE))
    return 0;
  return -EACCES;
}

int tes_inode_mode_permission(TesInode *i, TesCtx *ctx, guint mask) { return by_mode_bits(i, ctx, mask); }

int tes_inode_permission(TesInode *i, TesCtx *ctx, guint mask) {
  if ((mask & W_OK) && (i->flags & TES_INODE_IMMUTABLE))
    return -EPERM;
  if (TES_HAS(i->ops, permission))
    return i->ops->permission(i, ctx, mask);
  return by_mode_bits(i, ctx, mask);
}

gboolean tes_inode_owner_or_capable(const TesInode *i, TesCtx *ctx) {
  TesCred *c = tes_ctx_cred(ctx);
  return c && (c->fsuid == i->uid || tes_cred_capable(c, CAP_FOWNER));
}

void tes_inode_new_owner(TesInode *dir, TesCtx *ctx, guint32 *mode, guint32 *uid, guint32 *gid) {
  TesCred *c = tes_ctx_cred(ctx);
  *uid = c ? c->fsuid : 0;
  *gid = c ? c->fsgid : 0;
  if (!(dir->mode & S_ISGID))
    return;
  *gid = dir->gid;
  if (S_ISDIR(*mode))
    *mode |= S_ISGID;
  else if ((*mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && c && !tes_cred_in_group(c, *gid) &&
           !tes_cred_capable(c, CAP_FSETID))
    *mode &= ~S_ISGID;
}

/* `writers` counts writers when positive, executions when negative. */
static int count_towards(TesInode *i, gint step) {
  gint n = g_atomic_int_get(&i->writers);
  do {
    if (step > 0 ? n < 0 : n > 0)
      return -ETXTBSY;
  } while (!__atomic_compare_exchange_n(&i->writers, &n, n + step, TRUE, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  return 0;
}
int tes_inode_get_write(TesInode *i) { return count_towards(i, 1); }
void tes_inode_put_write(TesInode *i) { g_atomic_int_add(&i->writers, -1); }
int tes_inode_deny_write(TesInode *i) { return count_towards(i, -1); }
void tes_inode_allow_write(TesInode *i) { g_atomic_int_add(&i->writers, 1); }
