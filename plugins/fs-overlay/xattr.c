/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes: the layers', without the overlay's own, which are not seen through it. */
#include "overlay.h"
#include <sys/xattr.h>

#define MAX_LIST 65536
#define MAX_VALUE 65536

/* "trusted.overlay." and "user.overlay." both: what belongs to an overlay under this one is none of the guest's business either. */
static gboolean own(const OvSuper *s, const char *name) { return g_str_has_prefix(name, s->prefix); }

gssize ov_getxattr(TesInode *base, TesCtx *ctx, const char *name, void *value, gsize size) {
  OvInode *o = ov_inode(base);
  TesInode *r = ov_real(o);
  if (own(ov_super(o), name) || !TES_HAS(r->ops, getxattr))
    return -EOPNOTSUPP;
  return r->ops->getxattr(r, ctx, name, value, size);
}

/* What the flags forbid is no reason to copy. */
static int may_set(TesInode *r, TesCtx *ctx, const char *name, int flags) {
  if (!flags || !TES_HAS(r->ops, getxattr))
    return 0;
  gssize n = r->ops->getxattr(r, ctx, name, NULL, 0);
  if (n == -ENODATA)
    return (flags & XATTR_REPLACE) ? -ENODATA : 0;
  return n >= 0 && (flags & XATTR_CREATE) ? -EEXIST : 0;
}

int ov_setxattr(TesInode *base, TesCtx *ctx, const char *name, const void *value, gsize size, int flags) {
  OvInode *o = ov_inode(base);
  if (own(ov_super(o), name))
    return -EOPNOTSUPP;
  int r = ov_upper(o) ? 0 : may_set(ov_real(o), ctx, name, flags);
  if (r == 0)
    r = ov_copy_up(o, ctx, -1);
  if (r < 0)
    return r;
  TesInode *u = ov_upper(o);
  r = TES_HAS(u->ops, setxattr) ? u->ops->setxattr(u, ctx, name, value, size, flags) : -EOPNOTSUPP;
  ov_sync(o);
  return r;
}

int ov_removexattr(TesInode *base, TesCtx *ctx, const char *name) {
  OvInode *o = ov_inode(base);
  TesInode *r = ov_real(o);
  if (own(ov_super(o), name))
    return -EOPNOTSUPP;
  if (!ov_upper(o)) { /* nothing to remove is no reason to copy */
    gssize n = TES_HAS(r->ops, getxattr) ? r->ops->getxattr(r, ctx, name, NULL, 0) : -EOPNOTSUPP;
    if (n < 0)
      return (int)n;
  }
  int e = ov_copy_up(o, ctx, -1);
  if (e < 0)
    return e;
  TesInode *u = ov_upper(o);
  e = TES_HAS(u->ops, removexattr) ? u->ops->removexattr(u, ctx, name) : -EOPNOTSUPP;
  ov_sync(o);
  return e;
}

static gssize list_all(TesInode *r, TesCtx *ctx, char *all) {
  return TES_HAS(r->ops, listxattr) ? r->ops->listxattr(r, ctx, all, MAX_LIST) : 0;
}

gssize ov_listxattr(TesInode *base, TesCtx *ctx, char *list, gsize size) {
  OvInode *o = ov_inode(base);
  g_autofree char *all = g_malloc(MAX_LIST);
  gssize n = list_all(ov_real(o), ctx, all);
  if (n <= 0)
    return n;
  gsize used = 0;
  for (gssize at = 0; at < n;) {
    gsize len = strlen(all + at) + 1;
    if (!own(ov_super(o), all + at)) {
      if (size && used + len > size)
        return -ERANGE;
      if (size)
        memcpy(list + used, all + at, len);
      used += len;
    }
    at += (gssize)len;
  }
  return (gssize)used;
}

/* ---- The overlay's own ---- */

char *ov_own_get(OvSuper *s, TesInode *real, TesCtx *ctx, const char *name) {
  char full[64], value[TES_PATH_MAX + 1];
  if (!TES_HAS(real->ops, getxattr))
    return NULL;
  g_snprintf(full, sizeof full, "%s%s", s->prefix, name);
  gssize n = real->ops->getxattr(real, ctx, full, value, TES_PATH_MAX);
  return n < 0 ? NULL : g_strndup(value, (gsize)n);
}

int ov_own_set(OvSuper *s, TesInode *real, TesCtx *ctx, const char *name, const char *value) {
  char full[64];
  if (!TES_HAS(real->ops, setxattr))
    return -EOPNOTSUPP;
  g_snprintf(full, sizeof full, "%s%s", s->prefix, name);
  return real->ops->setxattr(real, ctx, full, value, strlen(value), 0);
}

int ov_copy_xattrs(OvSuper *s, TesInode *from, TesInode *to, TesCtx *ctx) {
  g_autofree char *all = g_malloc(MAX_LIST);
  gssize n = list_all(from, ctx, all);
  if (n <= 0)
    return n == -EOPNOTSUPP ? 0 : (int)n;
  g_autofree char *value = g_malloc(MAX_VALUE);
  for (gssize at = 0; at < n; at += (gssize)strlen(all + at) + 1) {
    const char *name = all + at;
    if (own(s, name))
      continue;
    gssize len = from->ops->getxattr(from, ctx, name, value, MAX_VALUE);
    if (len < 0)
      continue;
    int r = TES_HAS(to->ops, setxattr) ? to->ops->setxattr(to, ctx, name, value, (gsize)len, 0) : -EOPNOTSUPP;
    if (r < 0 && r != -EOPNOTSUPP && r != -EPERM)
      return r;
  }
  return 0;
}
