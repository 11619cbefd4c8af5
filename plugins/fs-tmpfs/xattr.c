/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of tmpfs nodes, and their access control lists. The system call layer checks namespaces and sizes;
 * what is stored counts against nr_inodes=, as on Linux: 1 KiB is an inode's worth. */
#include "tmpfs.h"
#include <linux/capability.h>
#include <sys/xattr.h>

#define OVERHEAD 64 /* beside name and value */

typedef struct {
  gsize size;
  char *name; /* behind the value */
  char value[];
} Xattr;

struct _Extra {
  GTree *table;     /* name -> Xattr, or NULL */
  TesAcl *dflt;     /* a directory's default list */
  guint64 n_charge; /* bytes */
};

/* Backwards, the order in which Linux lists them. */
static int by_name(gconstpointer a, gconstpointer b, gpointer data) {
  (void)data;
  return strcmp(b, a);
}

/* Room for what grows, or back what shrinks. */
static gboolean space_move(Node *n, gssize bytes) {
  if (bytes > 0)
    return space_take(tmpfs_of(n), (guint64)bytes);
  space_give(tmpfs_of(n), (guint64)-bytes);
  return TRUE;
}

static Extra *extra_of(Node *n) {
  if (!n->extra)
    n->extra = g_new0(Extra, 1);
  return n->extra;
}

void extra_free(Node *n) {
  Extra *x = n->extra;
  space_give(tmpfs_of(n), n->acl_charge);
  if (!x)
    return;
  space_give(tmpfs_of(n), x->n_charge);
  if (x->table)
    g_tree_unref(x->table);
  g_free(x->dflt);
  g_free(x);
}

/* ---- Access control lists ---- */

const TesAcl *default_acl(const Node *dir) { return dir->extra ? dir->extra->dflt : NULL; }

static guint acl_bytes(const TesAcl *a) { return a ? a->n * sizeof(TesAclEntry) : 0; }

/* Room for what the node's lists will be. */
static gboolean charge_acls(Node *n, const TesAcl *access, const TesAcl *dflt) {
  guint bytes = acl_bytes(access) + acl_bytes(dflt);
  if (!space_move(n, (gssize)bytes - (gssize)n->acl_charge))
    return FALSE;
  n->acl_charge = bytes;
  return TRUE;
}

gboolean inherit_acl(Node *n, const TesAcl *dflt, TesCtx *ctx) {
  if (!dflt)
    return TRUE;
  guint32 mode = n->inode.mode | tes_ctx_umask_took(ctx);
  g_autofree TesAcl *a = tes_acl_inherit(dflt, &mode);
  gboolean dir = S_ISDIR(mode);
  if (!charge_acls(n, a, dir ? dflt : NULL))
    return FALSE;
  n->inode.mode = mode;
  if (a)
    tes_inode_set_acl(&n->inode, g_steal_pointer(&a));
  if (dir)
    extra_of(n)->dflt = tes_acl_copy(dflt);
  return TRUE;
}

void chmod_acl(Node *n) {
  TesAcl *a = tes_acl_copy(n->inode.acl);
  tes_acl_chmod(a, n->inode.mode);
  tes_inode_set_acl(&n->inode, a);
}

/* 0, or 1 for the default list; -1: not the name of a list. */
static int acl_kind(const char *name) {
  return g_str_equal(name, TES_ACL_ACCESS) ? 0 : g_str_equal(name, TES_ACL_DEFAULT) ? 1 : -1;
}

/* A list that says no more than mode bits becomes mode bits. The set-group-ID bit goes as in chmod(2), also when
 * a list is removed. */
static int set_access_acl(Node *n, TesCtx *ctx, TesAcl *list /* transfer full */) {
  g_autofree TesAcl *a = list;
  TesInode *i = &n->inode;
  TesCred *c = tes_ctx_cred(ctx);
  guint32 mode = i->mode;
  if (a && tes_acl_to_mode(a, &mode))
    g_clear_pointer(&a, g_free);
  if (!charge_acls(n, a, default_acl(n)))
    return -ENOSPC;
  if (c && !tes_cred_in_group(c, i->gid) && !tes_cred_capable(c, CAP_FSETID))
    mode &= ~(guint32)S_ISGID;
  i->mode = mode;
  if (a || i->acl)
    tes_inode_set_acl(i, g_steal_pointer(&a));
  return 0;
}

static int set_default_acl(Node *n, TesAcl *list /* transfer full */) {
  g_autofree TesAcl *a = list;
  if (!charge_acls(n, n->inode.acl, a))
    return -ENOSPC;
  Extra *x = extra_of(n);
  g_free(x->dflt);
  x->dflt = g_steal_pointer(&a);
  return 0;
}

static int set_acl(Node *n, TesCtx *ctx, gboolean dflt, const void *value, gsize size) {
  g_autofree TesAcl *a = NULL;
  int r = tes_acl_parse(value, size, &a);
  if (r == 0)
    r = tes_inode_may_set_acl(&n->inode, ctx, dflt, a);
  if (r != 0)
    return MIN(r, 0);
  TES_LOCKED(&n->lock);
  r = dflt ? set_default_acl(n, g_steal_pointer(&a)) : set_access_acl(n, ctx, g_steal_pointer(&a));
  if (r == 0)
    node_now(n, &n->ctime);
  return r;
}

static gssize get_acl(Node *n, gboolean dflt, void *value, gsize size) {
  if (S_ISLNK(n->inode.mode))
    return -EOPNOTSUPP;
  TES_LOCKED(&n->lock);
  const TesAcl *a = dflt ? default_acl(n) : n->inode.acl;
  return a ? tes_acl_format(a, value, size) : -ENODATA;
}

/* ---- The others ---- */

static int known(const char *name) {
  static const char *const prefix[] = {"security.", "trusted.", "user."};
  for (guint i = 0; i < G_N_ELEMENTS(prefix); i++)
    if (g_str_has_prefix(name, prefix[i]))
      return name[strlen(prefix[i])] ? 0 : -EINVAL;
  return -EOPNOTSUPP;
}

gssize tmpfs_getxattr(TesInode *i, TesCtx *ctx, const char *name, void *value, gsize size) {
  (void)ctx;
  Node *n = node_of(i);
  int kind = acl_kind(name), r = kind < 0 ? known(name) : 0;
  if (kind >= 0 || r < 0)
    return r < 0 ? r : get_acl(n, kind, value, size);
  TES_LOCKED(&n->lock);
  const Xattr *x = n->extra && n->extra->table ? g_tree_lookup(n->extra->table, name) : NULL;
  if (!x)
    return -ENODATA;
  if (size && x->size > size)
    return -ERANGE;
  if (size)
    memcpy(value, x->value, x->size);
  return (gssize)x->size;
}

static Xattr *xattr_new(const char *name, const void *value, gsize size) {
  Xattr *x = g_malloc(sizeof *x + size + strlen(name) + 1);
  x->size = size;
  x->name = x->value + size;
  if (size)
    memcpy(x->value, value, size);
  strcpy(x->name, name);
  return x;
}

int tmpfs_setxattr(TesInode *i, TesCtx *ctx, const char *name, const void *value, gsize size, int flags) {
  Node *n = node_of(i);
  int kind = acl_kind(name), r = kind < 0 ? known(name) : 0;
  if (kind >= 0 || r < 0)
    return r < 0 ? r : set_acl(n, ctx, kind, value, size);
  TES_LOCKED(&n->lock);
  Extra *e = extra_of(n);
  if (!e->table)
    e->table = g_tree_new_full(by_name, NULL, NULL, g_free);
  const Xattr *old = g_tree_lookup(e->table, name);
  if ((flags & XATTR_CREATE) && old)
    return -EEXIST;
  if ((flags & XATTR_REPLACE) && !old)
    return -ENODATA;
  gssize grows = (gssize)size - (old ? (gssize)old->size : -(gssize)(strlen(name) + OVERHEAD));
  if (!space_move(n, grows))
    return -ENOSPC;
  e->n_charge += grows;
  Xattr *x = xattr_new(name, value, size);
  g_tree_replace(e->table, x->name, x);
  node_now(n, &n->ctime);
  return 0;
}

int tmpfs_removexattr(TesInode *i, TesCtx *ctx, const char *name) {
  Node *n = node_of(i);
  int kind = acl_kind(name), r = kind < 0 ? known(name) : 0;
  if (kind >= 0 || r < 0)
    return r < 0 ? r : set_acl(n, ctx, kind, NULL, 0);
  TES_LOCKED(&n->lock);
  const Xattr *x = n->extra && n->extra->table ? g_tree_lookup(n->extra->table, name) : NULL;
  if (!x)
    return -ENODATA;
  gsize charge = x->size + strlen(name) + OVERHEAD;
  g_tree_remove(n->extra->table, name);
  n->extra->n_charge -= charge;
  space_give(tmpfs_of(n), charge);
  node_now(n, &n->ctime);
  return 0;
}

static int list_one(char *list, gsize size, gsize *used, const char *name) {
  gsize len = strlen(name) + 1;
  if (size && *used + len > size)
    return -ERANGE;
  if (size)
    memcpy(list + *used, name, len);
  *used += len;
  return 0;
}

gssize tmpfs_listxattr(TesInode *i, TesCtx *ctx, char *list, gsize size) {
  (void)ctx;
  Node *n = node_of(i);
  TES_LOCKED(&n->lock);
  gsize used = 0;
  int r = i->acl ? list_one(list, size, &used, TES_ACL_ACCESS) : 0;
  if (r == 0 && default_acl(n))
    r = list_one(list, size, &used, TES_ACL_DEFAULT);
  GTree *t = n->extra ? n->extra->table : NULL;
  for (GTreeNode *at = t ? g_tree_node_first(t) : NULL; r == 0 && at; at = g_tree_node_next(at))
    r = list_one(list, size, &used, g_tree_node_key(at));
  return r < 0 ? r : (gssize)used;
}
