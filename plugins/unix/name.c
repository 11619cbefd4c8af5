/* SPDX-License-Identifier: Apache-2.0 */
/* Names: paths (a socket node whose inode->attached is the socket) and abstract names, which belong to a network namespace (N5).
 * Abstract names of different socket types do not collide. */
#include "private.h"
#include <stddef.h>

#define PATH_AT offsetof(struct sockaddr_un, sun_path)

UnixAddr *unix_addr_ref(UnixAddr *a) {
  g_atomic_int_inc(&a->refs);
  return a;
}

void unix_addr_unref(UnixAddr *a) {
  if (a && g_atomic_int_dec_and_test(&a->refs))
    g_free(a);
}

static UnixAddr *addr_new(const struct sockaddr_un *un, socklen_t len) {
  UnixAddr *a = g_new0(UnixAddr, 1);
  a->refs = 1;
  a->len = len;
  memcpy(&a->un, un, len);
  return a;
}

static int check(const struct sockaddr *name, socklen_t len) {
  return len < PATH_AT || len > sizeof(struct sockaddr_un) || name->sa_family != AF_UNIX ? -EINVAL : 0;
}

static gboolean is_abstract(const struct sockaddr_un *un, socklen_t len) {
  return len > PATH_AT && un->sun_path[0] == '\0';
}

/* Namespace, type and name in one key. */
static GBytes *abstract_key(TesCtx *ctx, int type, const struct sockaddr_un *un, socklen_t len) {
  TesNs *ns = tes_ctx_get(ctx, TES_CTX_NET_NS);
  guint64 id = ns ? ns->id : 0;
  GByteArray *b = g_byte_array_new();
  g_byte_array_append(b, (guint8 *)&id, sizeof id);
  g_byte_array_append(b, (guint8 *)&type, sizeof type);
  g_byte_array_append(b, (const guint8 *)un->sun_path, len - PATH_AT);
  return g_byte_array_free_to_bytes(b);
}

/* ---- Binding ---- */

/* Gives the socket its address, once. */
static int set_addr(UnixSock *s, UnixAddr *a, TesPath *path, GBytes *abstract) {
  TES_LOCKED(&s->lock);
  if (s->addr || s->state == UNIX_CLOSED)
    return -EINVAL;
  g_atomic_pointer_set(&s->addr, a);
  s->path = path;
  s->abstract = abstract;
  return 0;
}

static int bind_abstract(UnixSock *s, TesCtx *ctx, const struct sockaddr_un *un, socklen_t len) {
  GBytes *key = abstract_key(ctx, s->type, un, len);
  UnixAddr *a = addr_new(un, len);
  tes_mutex_lock(&s->k->names_lock);
  int r = g_hash_table_contains(s->k->names, key) ? -EADDRINUSE : 0;
  if (r == 0)
    g_hash_table_insert(s->k->names, key, s);
  tes_mutex_unlock(&s->k->names_lock);
  if (r == 0 && (r = set_addr(s, a, NULL, key)) < 0) {
    TES_LOCKED(&s->k->names_lock);
    g_hash_table_remove(s->k->names, key);
  }
  if (r < 0) {
    g_bytes_unref(key);
    unix_addr_unref(a);
  }
  return r;
}

/* A free abstract name of five hexadecimal digits (unix(7), autobind). */
static int bind_auto(UnixSock *s, TesCtx *ctx) {
  for (guint tries = 0; tries < 0x100000; tries++) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    tes_mutex_lock(&s->k->names_lock);
    guint n = s->k->next_auto++ & 0xfffff;
    tes_mutex_unlock(&s->k->names_lock);
    g_snprintf(un.sun_path + 1, 6, "%05x", n);
    int r = bind_abstract(s, ctx, &un, PATH_AT + 6);
    if (r != -EADDRINUSE)
      return r;
  }
  return -ENOSPC;
}

static void path_string(const struct sockaddr_un *un, socklen_t len, char out[sizeof un->sun_path + 1]) {
  gsize n = strnlen(un->sun_path, len - PATH_AT);
  memcpy(out, un->sun_path, n);
  out[n] = '\0';
}

static void detach_node(TesPath *path, UnixSock *s) {
  tes_inode_attach_lock();
  if (path->inode->attached == s)
    path->inode->attached = NULL;
  tes_inode_attach_unlock();
}

static int bind_path(UnixSock *s, TesCtx *ctx, const struct sockaddr_un *un, socklen_t len) {
  char text[sizeof un->sun_path + 1];
  path_string(un, len, text);
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  TesAt at = {.path = text, .flags = TES_AT_NOFOLLOW};
  TesNode node = {.mode = S_IFSOCK | tes_ctx_apply_umask(ctx, 0777)};
  TesPath *path = NULL;
  int r = v->ops->create(v, ctx, &at, &node, &path);
  if (r < 0)
    return r == -EEXIST ? -EADDRINUSE : r;
  tes_inode_attach_lock();
  path->inode->attached = s;
  tes_inode_attach_unlock();
  UnixAddr *a = addr_new(un, PATH_AT + (socklen_t)strlen(text) + 1 > sizeof *un
                                 ? sizeof *un
                                 : PATH_AT + (socklen_t)strlen(text) + 1);
  r = set_addr(s, a, path, NULL);
  if (r < 0) {
    detach_node(path, s);
    tes_path_unref(path);
    unix_addr_unref(a);
  }
  return r;
}

int unix_bind(TesFile *f, TesCtx *ctx, const struct sockaddr *name, socklen_t len) {
  UnixSock *s = unix_sock(f);
  const struct sockaddr_un *un = (const struct sockaddr_un *)name;
  int r = check(name, len);
  if (r < 0)
    return r;
  if (g_atomic_pointer_get(&s->addr)) /* set_addr() decides; this spares making a node in vain */
    return -EINVAL;
  if (len == PATH_AT)
    return bind_auto(s, ctx);
  return is_abstract(un, len) ? bind_abstract(s, ctx, un, len) : bind_path(s, ctx, un, len);
}

void unix_unbind(UnixSock *s) {
  tes_mutex_lock(&s->lock);
  TesPath *path = g_steal_pointer(&s->path);
  GBytes *abstract = g_steal_pointer(&s->abstract);
  tes_mutex_unlock(&s->lock);
  if (path) {
    detach_node(path, s);
    tes_path_unref(path);
  }
  if (abstract) {
    tes_mutex_lock(&s->k->names_lock);
    g_hash_table_remove(s->k->names, abstract);
    tes_mutex_unlock(&s->k->names_lock);
    g_bytes_unref(abstract);
  }
}

/* ---- Finding ---- */

static int find_abstract(UnixSock *from, TesCtx *ctx, const struct sockaddr_un *un, socklen_t len,
                         UnixSock **out) {
  g_autoptr(GBytes) key = abstract_key(ctx, from->type, un, len);
  TES_LOCKED(&from->k->names_lock);
  UnixSock *s = g_hash_table_lookup(from->k->names, key);
  if (!s)
    return -ECONNREFUSED;
  *out = unix_sock_ref(s);
  return 0;
}

static int find_path(UnixSock *from, TesCtx *ctx, const struct sockaddr_un *un, socklen_t len,
                     UnixSock **out) {
  char text[sizeof un->sun_path + 1];
  path_string(un, len, text);
  TesAt at = {.path = text};
  g_autoptr(TesPath) path = NULL;
  int r = tes_vfs_walk(ctx, &at, &path);
  if (r == 0)
    r = tes_inode_permission(path->inode, ctx, W_OK);
  if (r < 0)
    return r;
  if (!S_ISSOCK(path->inode->mode))
    return -ECONNREFUSED;
  tes_inode_attach_lock();
  UnixSock *s = path->inode->attached;
  if (s)
    unix_sock_ref(s);
  tes_inode_attach_unlock();
  if (!s)
    return -ECONNREFUSED;
  if (s->type != from->type) {
    unix_sock_unref(s);
    return -EPROTOTYPE;
  }
  *out = s;
  return 0;
}

int unix_find(UnixSock *from, TesCtx *ctx, const struct sockaddr *name, socklen_t len, UnixSock **out) {
  const struct sockaddr_un *un = (const struct sockaddr_un *)name;
  int r = check(name, len);
  if (r < 0)
    return r;
  if (len == PATH_AT)
    return -ECONNREFUSED;
  return is_abstract(un, len) ? find_abstract(from, ctx, un, len, out) : find_path(from, ctx, un, len, out);
}

int unix_getname(TesFile *f, TesCtx *ctx, gboolean peer, struct sockaddr_storage *name, socklen_t *len) {
  UnixSock *s = peer ? unix_peer(unix_sock(f)) : unix_sock_ref(unix_sock(f));
  if (!s)
    return -ENOTCONN;
  tes_mutex_lock(&s->lock);
  if (s->addr) {
    memcpy(name, &s->addr->un, s->addr->len);
    *len = s->addr->len;
  } else {
    name->ss_family = AF_UNIX;
    *len = PATH_AT;
  }
  tes_mutex_unlock(&s->lock);
  unix_sock_unref(s);
  return 0;
}
