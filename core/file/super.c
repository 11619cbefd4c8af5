/* SPDX-License-Identifier: Apache-2.0 */
/* Filesystem instances, device numbers, and finding a filesystem type by its name, a device by its number. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

void tes_super_init(TesSuper *s, TesKernel *k, const TesSuperOps *ops, const char *type) {
  s->ops = ops;
  s->kernel = k;
  s->refs = 1;
  s->type = type;
  s->dev = tes_kernel_new_dev(k);
}

TesSuper *tes_super_ref(TesSuper *s) {
  g_atomic_int_inc(&s->refs);
  return s;
}

void tes_super_unref(TesSuper *s) {
  if (!g_atomic_int_dec_and_test(&s->refs))
    return;
  TesInode *root = s->root;
  if (root) {
    /* No other reference on it is left: each would count against the super. It stays "root" while it is freed, so
     * that its going does not drop the super once more. */
    tes_inode_unref(root);
  }
  s->ops->free(s);
}

void tes_super_set_root(TesSuper *s, TesInode *root) {
  g_return_if_fail(!s->root && root->super == s && root->refs == 1);
  __atomic_store_n(&s->root, root, __ATOMIC_RELEASE);
  g_atomic_int_add(&s->refs, -1); /* what tes_inode_init() took; the creator holds another */
}

/* Those with mounts, for sync(2); no references. */
static const TesLockClass active_class = {"mounted filesystems", TES_RANK_LEAF - 1, FALSE,
                                          "list of filesystems with mounts"};
static TesMutex active_lock;
static GHashTable *active;

static void active_init(void) {
  tes_mutex_init(&active_lock, &active_class);
  active = g_hash_table_new(NULL, NULL);
}

static void lock_active(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, active_init);
  tes_mutex_lock(&active_lock);
}

void tes_super_activate(TesSuper *s) {
  lock_active();
  if (g_atomic_int_add(&s->active, 1) == 0)
    g_hash_table_add(active, s);
  tes_mutex_unlock(&active_lock);
}

/* Who mounts one holds a reference until it has deactivated it, so the ones in the table can be referenced. */
void tes_supers_sync(TesKernel *k) {
  g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func((GDestroyNotify)tes_super_unref);
  GHashTableIter i;
  gpointer s;
  lock_active();
  g_hash_table_iter_init(&i, active);
  while (g_hash_table_iter_next(&i, &s, NULL))
    if (((TesSuper *)s)->kernel == k)
      g_ptr_array_add(all, tes_super_ref(s));
  tes_mutex_unlock(&active_lock);
  for (guint n = 0; n < all->len; n++) {
    TesSuper *one = all->pdata[n];
    if (TES_HAS(one->ops, sync))
      one->ops->sync(one);
  }
}

void tes_super_deactivate(TesSuper *s) {
  lock_active();
  gboolean last = g_atomic_int_dec_and_test(&s->active);
  if (last)
    g_hash_table_remove(active, s);
  tes_mutex_unlock(&active_lock);
  if (!last)
    return;
  tes_notify_unmount(s);
  if (TES_HAS(s->ops, shutdown))
    s->ops->shutdown(s);
}

guint64 tes_kernel_new_dev(TesKernel *k) {
  guint n = (guint)g_atomic_int_add((gint *)&k->next_dev, 1) + 1;
  return makedev(0, n);
}

int tes_fs_new_super(TesCtx *ctx, const char *fstype, const char *source, const char *opts, gulong ms_flags,
                     TesSuper **out) {
  /* "fuse.sshfs" is fuse, served by sshfs. */
  const char *dot = strchr(fstype, '.');
  g_autofree char *type = dot ? g_strndup(fstype, (gsize)(dot - fstype)) : g_strdup(fstype);
  const TesFsTypeOps *fs = tes_registry_find(tes_kernel_registry(ctx->kernel), "filesystem", type);
  if (!fs || !TES_HAS(fs, mount))
    return -ENODEV;
  int r = fs->mount(ctx, source, opts && *opts ? opts : NULL, ms_flags, out);
  if (r >= 0 && (ms_flags & MS_RDONLY))
    (*out)->read_only = TRUE;
  return r;
}

int tes_fs_mount(TesCtx *ctx, const TesAt *at, const char *fstype, const char *source, const char *opts,
                 gulong ms_flags) {
  TesSuper *s = NULL;
  int r = tes_fs_new_super(ctx, fstype, source, opts, ms_flags, &s);
  if (r < 0)
    return r;
  TesVfs *v = tes_kernel_vfs(ctx->kernel);
  r = v->ops->mount(v, ctx, at, s, source ? source : "none", ms_flags);
  if (r < 0)
    tes_super_unref(s);
  return r;
}

int tes_device_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  if (!S_ISCHR(i->mode))
    return -ENXIO;
  char name[32];
  g_snprintf(name, sizeof name, "%u:%u", major(i->rdev), minor(i->rdev));
  const TesDeviceOps *d = tes_registry_find(tes_kernel_registry(ctx->kernel), "char-device", name);
  return d ? d->open(ctx->kernel, ctx, i->rdev, flags, out) : -ENXIO;
}

int tes_mount_opts_parse(const char *opts, int (*fn)(const char *, const char *, gpointer), gpointer data) {
  if (!opts)
    return 0;
  g_auto(GStrv) parts = g_strsplit(opts, ",", -1);
  for (char **p = parts; *p; p++) {
    if (!**p)
      continue;
    char *eq = strchr(*p, '=');
    if (eq)
      *eq = '\0';
    int r = fn(*p, eq ? eq + 1 : NULL, data);
    if (r < 0)
      return r;
  }
  return 0;
}
