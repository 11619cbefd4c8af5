/* SPDX-License-Identifier: Apache-2.0 */
/* A VFS generation (the argument) and the host filesystem, driven through the public interface by contexts of the test's own:
 * root, and a user without capabilities. Every case runs over a host directory and, if it is loaded, tmpfs. */
#include "vfs-box.h"

/* ---- Cases ---- */

static void test_walk(Fix *f, gconstpointer fs) {
  (void)fs;
  OK(mkdir_(R(f), "/a", 0755));
  OK(mkdir_(R(f), "/a/b/", 0755));
  OK(mkdir_(R(f), "a/b/c", 0755));
  OK(touch(R(f), "/a/b/file", 0644));
  OK(walk(R(f), "/a/b/c"));
  OK(walk(R(f), "//a/./b//../b/c/"));
  OK(walk(R(f), "/../../a"));
  OK(walk(R(f), "/"));
  OK(walk(R(f), "."));
  FAILS(walk(R(f), ""), ENOENT);
  FAILS(walk(R(f), "/a/x/y"), ENOENT);
  FAILS(walk(R(f), "/a/b/file/"), ENOTDIR);
  FAILS(walk(R(f), "/a/b/file/x"), ENOTDIR);
  FAILS(walk(R(f), "/a/b/file/.."), ENOTDIR);
  char name[300];
  memset(name, 'n', sizeof name);
  name[256] = 0;
  FAILS(walk(R(f), name), ENAMETOOLONG);
  name[255] = 0;
  FAILS(walk(R(f), name), ENOENT);
  assert_name(R(f), "a/b/../b/c/", "/a/b/c");
  assert_name(R(f), "/", "/");
  g_autoptr(TesPath) c = NULL;
  OK(walk_at(R(f), "/a/b/c", 0, 0, NULL, &c));
  g_autoptr(TesPath) up = NULL;
  OK(walk_at(R(f), "../file", 0, 0, c, &up));
  g_assert_true(S_ISREG(up->inode->mode));
}

static void test_links(Fix *f, gconstpointer fs) {
  (void)fs;
  char name[16], target[16];
  OK(mkdir_(R(f), "/d", 0755));
  OK(touch(R(f), "/d/end", 0644));
  OK(symlink_(R(f), "d/end", "/l0"));
  for (int i = 1; i <= 41; i++) {
    g_snprintf(name, sizeof name, "/l%d", i);
    g_snprintf(target, sizeof target, "l%d", i - 1);
    OK(symlink_(R(f), target, name));
  }
  for (int round = 0; round < 2; round++) { /* the second from the cache */
    OK(walk(R(f), "/l39"));
    FAILS(walk(R(f), "/l40"), ELOOP);
  }
  OK(symlink_(R(f), "/d", "/dl"));
  OK(symlink_(R(f), "self", "/self"));
  OK(symlink_(R(f), "nothing", "/dangling"));
  OK(walk(R(f), "/dl/end"));
  OK(walk(R(f), "/dl/"));
  FAILS(walk(R(f), "/l0/"), ENOTDIR);
  FAILS(walk(R(f), "/self"), ELOOP);
  FAILS(walk(R(f), "/dangling"), ENOENT);
  g_autoptr(TesPath) p = NULL;
  OK(walk_at(R(f), "/dangling", TES_AT_NOFOLLOW, 0, NULL, &p));
  g_assert_true(S_ISLNK(p->inode->mode));
  FAILS(open_(R(f), "/dl", O_RDONLY | O_NOFOLLOW, 0, NULL), ELOOP);
  OK(open_(R(f), "/dl", O_PATH | O_NOFOLLOW, 0, NULL));
  OK(open_(R(f), "/dl/", O_RDONLY | O_NOFOLLOW, 0, NULL));
  FAILS(open_(R(f), "/dangling", O_CREAT | O_EXCL | O_WRONLY, 0644, NULL), EEXIST);
  OK(open_(R(f), "/dangling", O_CREAT | O_WRONLY, 0644, NULL));
  OK(walk(R(f), "/nothing"));
}

static void test_open(Fix *f, gconstpointer fs) {
  (void)fs;
  TesFile *file = NULL;
  OK(mkdir_(R(f), "/dir", 0755));
  OK(open_(R(f), "/dir/new", O_CREAT | O_RDWR, 0640, &file));
  g_assert_cmpuint(file->inode->mode, ==, S_IFREG | 0640);
  char buf[8] = "hello";
  TesIov iov;
  struct iovec one;
  tes_iov_init_kernel(&iov, &one, buf, 5);
  goffset pos = 0;
  g_assert_cmpint(tes_file_write(file, R(f), &iov, &pos, 0), ==, 5);
  memset(buf, 0, sizeof buf);
  g_assert_cmpint(tes_file_read_kernel(file, R(f), buf, 8, 0), ==, 5);
  g_assert_cmpstr(buf, ==, "hello");
  TesAttr a;
  OK(tes_file_getattr(file, R(f), &a));
  g_assert_cmpuint(a.size, ==, 5);
  FAILS(tes_inode_deny_write(file->inode), ETXTBSY);
  tes_file_unref(file);
  OK(open_(R(f), "/dir/new", O_RDONLY | O_TRUNC, 0, &file));
  OK(tes_file_getattr(file, R(f), &a));
  g_assert_cmpuint(a.size, ==, 0);
  OK(tes_inode_deny_write(file->inode));
  FAILS(open_(R(f), "/dir/new", O_WRONLY, 0, NULL), ETXTBSY);
  tes_inode_allow_write(file->inode);
  tes_file_unref(file);
  FAILS(open_(R(f), "/dir/new", O_CREAT | O_EXCL | O_RDWR, 0600, NULL), EEXIST);
  FAILS(open_(R(f), "/dir", O_WRONLY, 0, NULL), EISDIR);
  FAILS(open_(R(f), "/dir", O_RDONLY | O_CREAT, 0600, NULL), EISDIR);
  FAILS(open_(R(f), "/dir/x/", O_RDWR | O_CREAT, 0600, NULL), EISDIR);
  FAILS(open_(R(f), "/dir/new", O_RDONLY | O_DIRECTORY, 0, NULL), ENOTDIR);
  FAILS(open_(R(f), "/dir/none", O_RDWR, 0, NULL), ENOENT);
  OK(open_(R(f), "/dir", O_TMPFILE | O_RDWR, 0600, &file));
  g_assert_cmpuint(file->path->inode->mode, ==, S_IFREG | 0600);
  tes_file_unref(file);
  FAILS(open_(R(f), "/dir", O_TMPFILE, 0600, NULL), EINVAL);
  OK(make(R(f), "/sock", S_IFSOCK | 0600, NULL));
  FAILS(open_(R(f), "/sock", O_RDONLY, 0, NULL), ENXIO);
  OK(make(R(f), "/fifo", S_IFIFO | 0600, NULL));
  OK(open_(R(f), "/fifo", O_RDONLY | O_NONBLOCK, 0, NULL));
  FAILS(open_(R(f), "/fifo", O_WRONLY | O_NONBLOCK, 0, NULL), ENXIO);
}

static void test_names(Fix *f, gconstpointer fs) {
  (void)fs;
  OK(mkdir_(R(f), "/d", 0755));
  FAILS(mkdir_(R(f), "/d", 0755), EEXIST);
  FAILS(mkdir_(R(f), "/", 0755), EEXIST);
  FAILS(mkdir_(R(f), "/d/.", 0755), EEXIST);
  FAILS(touch(R(f), "/d/t/", 0644), ENOENT);
  OK(touch(R(f), "/d/t", 0644));
  FAILS(rm(R(f), "/d", TRUE), ENOTEMPTY);
  FAILS(rm(R(f), "/d", FALSE), EISDIR);
  FAILS(rm(R(f), "/d/t", TRUE), ENOTDIR);
  FAILS(rm(R(f), "/d/t/", FALSE), ENOTDIR);
  FAILS(rm(R(f), "/d/.", TRUE), EINVAL);
  FAILS(rm(R(f), "/d/..", TRUE), ENOTEMPTY);
  FAILS(rm(R(f), "/", TRUE), EBUSY);
  OK(link_(R(f), "/d/t", "/d/u"));
  FAILS(link_(R(f), "/d", "/e"), EPERM);
  FAILS(link_(R(f), "/d/t", "/d/u"), EEXIST);
  TesFile *file;
  OK(open_(R(f), "/d/t", O_RDONLY, 0, &file));
  OK(rm(R(f), "/d/t", FALSE));
  FAILS(walk(R(f), "/d/t"), ENOENT);
  g_autofree char *n = tes_vfs_name(R(f), file->path);
  g_assert_cmpstr(n, ==, "/d/t (deleted)");
  TesAttr a;
  OK(tes_file_getattr(file, R(f), &a));
  g_assert_cmpuint(a.nlink, ==, 1);
  tes_file_unref(file);
  OK(rm(R(f), "/d/u", FALSE));
  OK(open_(R(f), "/d", O_RDONLY, 0, &file));
  OK(rm(R(f), "/d", TRUE));
  TesAt at = {.base = file->path, .path = "new"};
  TesFile *none = NULL;
  FAILS(tes_vfs_open(R(f), &at, O_CREAT | O_RDWR, 0600, &none), ENOENT);
  tes_file_unref(file);
}

static void test_rename(Fix *f, gconstpointer fs) {
  (void)fs;
  OK(mkdir_(R(f), "/a", 0755));
  OK(mkdir_(R(f), "/a/sub", 0755));
  OK(mkdir_(R(f), "/b", 0755));
  OK(touch(R(f), "/a/f", 0644));
  OK(touch(R(f), "/b/g", 0644));
  FAILS(mv(R(f), "/a", "/a/sub/x", 0), EINVAL);
  FAILS(mv(R(f), "/a/sub", "/a", 0), ENOTEMPTY);
  FAILS(mv(R(f), "/a/f", "/b", 0), EISDIR);
  FAILS(mv(R(f), "/a", "/b/g", 0), ENOTDIR);
  FAILS(mv(R(f), "/a", "/b", 0), ENOTEMPTY);
  FAILS(mv(R(f), "/a/f", "/b/g", RENAME_NOREPLACE), EEXIST);
  FAILS(mv(R(f), "/a/f", "/b/none", RENAME_EXCHANGE), ENOENT);
  FAILS(mv(R(f), "/a/.", "/b/x", 0), EBUSY);
  FAILS(mv(R(f), "/a/f/", "/b/x", 0), ENOTDIR);
  FAILS(mv(R(f), "/none", "/b/x", 0), ENOENT);
  g_autoptr(TesPath) sub = NULL;
  OK(walk_at(R(f), "/a/sub", 0, 0, NULL, &sub));
  OK(mv(R(f), "/a/sub", "/b/moved", 0));
  g_autofree char *n = tes_vfs_name(R(f), sub);
  g_assert_cmpstr(n, ==, "/b/moved");
  FAILS(walk(R(f), "/a/sub"), ENOENT);
  OK(walk(R(f), "/b/moved"));
  OK(mv(R(f), "/a/f", "/b/g", 0));
  FAILS(walk(R(f), "/a/f"), ENOENT);
  OK(touch(R(f), "/a/f", 0600));
  g_autoptr(TesPath) x = NULL;
  OK(walk_at(R(f), "/a/f", 0, 0, NULL, &x));
  OK(mv(R(f), "/a/f", "/b/g", RENAME_EXCHANGE));
  g_autofree char *m = tes_vfs_name(R(f), x);
  g_assert_cmpstr(m, ==, "/b/g");
  OK(walk(R(f), "/a/f"));
  OK(rm(R(f), "/b/moved", TRUE));
  OK(link_(R(f), "/a/f", "/a/same"));
  OK(mv(R(f), "/a/f", "/a/same", 0)); /* two names of one file: nothing happens */
  OK(walk(R(f), "/a/f"));
}

static void test_permission(Fix *f, gconstpointer fs) {
  (void)fs;
  OK(mkdir_(R(f), "/closed", 0700));
  OK(mkdir_(R(f), "/closed/in", 0755));
  OK(touch(R(f), "/secret", 0600));
  OK(mkdir_(R(f), "/open", 0777));
  OK(mkdir_(R(f), "/sticky", 01777));
  OK(touch(R(f), "/sticky/roots", 0666));
  for (int i = 0; i < 2; i++)
    FAILS(walk(U(f), "/closed/in"), EACCES);
  OK(walk(R(f), "/closed/in"));
  FAILS(open_(U(f), "/secret", O_RDONLY, 0, NULL), EACCES);
  OK(open_(U(f), "/secret", O_PATH, 0, NULL));
  FAILS(mkdir_(U(f), "/new", 0755), EACCES);
  OK(mkdir_(U(f), "/open/new", 0755));
  TesAttr a;
  TesAt at = {.path = "/open/new"};
  OK(vfs->ops->getattr(vfs, U(f), &at, &a));
  g_assert_cmpuint(a.uid, ==, 1000);
  FAILS(rm(U(f), "/sticky/roots", FALSE), EPERM);
  FAILS(mv(U(f), "/sticky/roots", "/sticky/mine", 0), EPERM);
  OK(touch(U(f), "/sticky/own", 0600));
  OK(rm(U(f), "/sticky/own", FALSE));
  g_autoptr(TesPath) p = NULL;
  OK(walk_at(R(f), "/secret", 0, 0, NULL, &p));
  OK(tes_inode_permission(p->inode, R(f), R_OK | W_OK));
  FAILS(tes_inode_permission(p->inode, R(f), X_OK), EACCES);
}

/* A fresh host directory mounted at a place. */
static int mount_tmp(Fix *f, const char *where, gulong flags) {
  TesAt at = {.path = where};
  g_autofree char *dir = g_build_filename(scratch, "mXXXXXX", NULL);
  TesSuper *s = NULL;
  g_assert_nonnull(mkdtemp(dir));
  OK(tes_fs_new_super(tes_kernel_supervisor_ctx(kernel), "host", dir, "rw,cache=exclusive", flags, &s));
  int r = vfs->ops->mount(vfs, R(f), &at, s, "src", flags);
  if (r < 0)
    tes_super_unref(s);
  return r;
}

static void count_mounts(const TesMountInfo *i, gpointer data) {
  GString *s = data;
  g_string_append_printf(s, "%s ", i->mount_point);
}

static void test_mounts(Fix *f, gconstpointer fs) {
  (void)fs;
  TesAt at = {.path = "/m"}, sub = {.path = "/m/sub"};
  OK(mkdir_(R(f), "/m", 0755));
  OK(touch(R(f), "/m/below", 0644));
  OK(touch(R(f), "/plain", 0644));
  OK(mount_tmp(f, "/m", 0));
  FAILS(walk(R(f), "/m/below"), ENOENT);
  FAILS(mount_tmp(f, "/plain", 0), ENOTDIR);
  OK(mkdir_(R(f), "/m/sub", 0755));
  assert_name(R(f), "/m/sub", "/m/sub");
  OK(walk(R(f), "/m/sub/../../m/sub"));
  FAILS(rm(R(f), "/m", TRUE), EBUSY);
  FAILS(mv(R(f), "/m", "/n", 0), EBUSY);
  FAILS(mv(R(f), "/m/sub", "/n", 0), EXDEV);
  FAILS(link_(R(f), "/plain", "/m/plain"), EXDEV);
  OK(mount_tmp(f, "/m/sub", MS_RDONLY));
  FAILS(touch(R(f), "/m/sub/x", 0600), EROFS);
  FAILS(vfs->ops->umount(vfs, R(f), &at, 0), EBUSY);
  g_autoptr(GString) list = g_string_new(NULL);
  vfs->ops->mounts(vfs, R(f), f->top, count_mounts, list);
  g_assert_cmpstr(list->str, ==, "/ /m /m/sub ");
  TesFile *file;
  OK(open_(R(f), "/m/sub", O_RDONLY, 0, &file));
  FAILS(vfs->ops->umount(vfs, R(f), &sub, 0), EBUSY);
  OK(vfs->ops->umount(vfs, R(f), &sub, MNT_DETACH));
  g_autofree char *n = tes_vfs_name(R(f), file->path);
  g_assert_true(g_str_has_prefix(n, "(unreachable)"));
  tes_file_unref(file);
  OK(vfs->ops->umount(vfs, R(f), &at, 0));
  OK(walk(R(f), "/m/below"));
  FAILS(vfs->ops->umount(vfs, R(f), &at, 0), EINVAL);
}

static void test_bind(Fix *f, gconstpointer fs) {
  (void)fs;
  OK(mkdir_(R(f), "/src", 0755));
  OK(mkdir_(R(f), "/src/in", 0755));
  OK(mkdir_(R(f), "/dst", 0755));
  OK(touch(R(f), "/file", 0644));
  g_autoptr(TesPath) src = NULL;
  g_autoptr(TesPath) out = NULL;
  OK(walk_at(R(f), "/src", 0, 0, NULL, &src));
  TesAt dst = {.path = "/dst"};
  OK(vfs->ops->bind(vfs, R(f), src, &dst, 0));
  OK(touch(R(f), "/src/in/new", 0600));
  OK(walk(R(f), "/dst/in/new"));
  assert_name(R(f), "/dst/in", "/dst/in");
  OK(vfs->ops->remount(vfs, R(f), &dst, MS_BIND | MS_RDONLY, NULL));
  FAILS(touch(R(f), "/dst/x", 0600), EROFS);
  FAILS(open_(R(f), "/dst/in/new", O_WRONLY, 0, NULL), EROFS);
  OK(touch(R(f), "/src/x", 0600));
  FAILS(mv(R(f), "/src/x", "/dst/y", 0), EXDEV);
  /* a copied namespace changes by itself */
  TesMountNs *copy = vfs->ops->ns_copy(vfs, R(f), f->ns);
  OK(vfs->ops->umount(vfs, R(f), &dst, 0));
  FAILS(walk(R(f), "/dst/in"), ENOENT);
  Who other = f->root;
  other.root = other.cwd = vfs->ops->ns_root(copy);
  OK(walk(&other.ctx, "/dst/in/new"));
  OK(walk_at(&other.ctx, "/dst/in", 0, 0, NULL, &out));
  tes_path_unref(other.root);
  vfs->ops->ns_unref(copy);
  g_assert_true(S_ISDIR(out->inode->mode)); /* alive without its namespace */
}

static int resolve(Fix *f, const char *path, guint64 how) {
  g_autoptr(TesPath) base = NULL;
  OK(walk_at(R(f), "/base", 0, 0, NULL, &base));
  TesPath *p = NULL;
  int r = walk_at(R(f), path, 0, how, base, &p);
  if (p)
    tes_path_unref(p);
  return r;
}

static void test_resolve(Fix *f, gconstpointer fs) {
  (void)fs;
  OK(mkdir_(R(f), "/base", 0755));
  OK(mkdir_(R(f), "/base/d", 0755));
  OK(touch(R(f), "/outside", 0644));
  OK(touch(R(f), "/base/inside", 0644));
  OK(symlink_(R(f), "../outside", "/base/up"));
  OK(symlink_(R(f), "/inside", "/base/abs"));
  OK(symlink_(R(f), "inside", "/base/rel"));
  OK(mkdir_(R(f), "/base/m", 0755));
  OK(mount_tmp(f, "/base/m", 0));
  OK(resolve(f, "d/../inside", RESOLVE_BENEATH));
  FAILS(resolve(f, "../outside", RESOLVE_BENEATH), EXDEV);
  FAILS(resolve(f, "/base/inside", RESOLVE_BENEATH), EXDEV);
  FAILS(resolve(f, "up", RESOLVE_BENEATH), EXDEV);
  FAILS(resolve(f, "abs", RESOLVE_BENEATH), EXDEV);
  OK(resolve(f, "rel", RESOLVE_BENEATH));
  FAILS(resolve(f, "rel", RESOLVE_NO_SYMLINKS), ELOOP);
  OK(resolve(f, "abs", RESOLVE_IN_ROOT));
  FAILS(resolve(f, "abs", 0), ENOENT);
  OK(resolve(f, "../../inside", RESOLVE_IN_ROOT));
  FAILS(resolve(f, "../outside", RESOLVE_IN_ROOT), ENOENT);
  FAILS(resolve(f, "m", RESOLVE_NO_XDEV), EXDEV);
  OK(resolve(f, "d", RESOLVE_NO_XDEV));
  OK(resolve(f, "d", RESOLVE_CACHED));
}

/* ---- Threads: names move while others walk them ---- */

typedef struct {
  Fix *f;
  guint seed;
  gint *stop;
} Job;

static gpointer churn(gpointer p) {
  Job *j = p;
  g_autoptr(GRand) rnd = g_rand_new_with_seed(j->seed);
  char a[64], b[64];
  while (!g_atomic_int_get(j->stop)) {
    int x = g_rand_int_range(rnd, 0, 4), y = g_rand_int_range(rnd, 0, 4), z = g_rand_int_range(rnd, 0, 4);
    g_snprintf(a, sizeof a, "/d%d/e%d/n%d", x, y, z);
    g_snprintf(b, sizeof b, "/d%d/e%d/n%d", z, x, y);
    int r = 0;
    switch (g_rand_int_range(rnd, 0, 8)) {
    case 0:
      r = open_(R(j->f), a, O_CREAT | O_RDWR, 0600, NULL);
      break;
    case 1:
      r = rm(R(j->f), a, FALSE);
      break;
    case 2:
      r = mv(R(j->f), a, b, 0);
      break;
    case 3:
      r = mkdir_(R(j->f), a, 0755);
      break;
    case 4:
      r = rm(R(j->f), a, TRUE);
      break;
    case 5: /* a whole directory goes away and comes back, perhaps elsewhere */
      g_snprintf(a, sizeof a, "/d%d/e%d", x, y);
      g_snprintf(b, sizeof b, "/d%d/e%d", y, x);
      if ((r = mv(R(j->f), a, "/moved", RENAME_NOREPLACE)) == 0)
        r = mv(R(j->f), "/moved", b, RENAME_NOREPLACE) == 0 ? 0 : mv(R(j->f), "/moved", a, RENAME_NOREPLACE);
      break;
    default:
      r = walk(R(j->f), a);
    }
    g_assert_true(r == 0 || r == -ENOENT || r == -EEXIST || r == -EISDIR || r == -ENOTDIR ||
                  r == -ENOTEMPTY || r == -EINVAL || r == -EBUSY || r == -ESTALE);
    tes_epoch_poll();
  }
  return NULL;
}

static void test_threads(Fix *f, gconstpointer fs) {
  (void)fs;
  char path[32];
  gint stop = 0;
  for (int i = 0; i < 4; i++) {
    g_snprintf(path, sizeof path, "/d%d", i);
    OK(mkdir_(R(f), path, 0755));
    for (int k = 0; k < 4; k++) {
      g_snprintf(path, sizeof path, "/d%d/e%d", i, k);
      OK(mkdir_(R(f), path, 0755));
    }
  }
  GThread *t[4];
  Job job[4];
  for (int i = 0; i < 4; i++) {
    job[i] = (Job){f, 7 + (guint)i, &stop};
    t[i] = g_thread_new("churn", churn, &job[i]);
  }
  g_usleep(1500 * 1000);
  g_atomic_int_set(&stop, 1);
  for (int i = 0; i < 4; i++)
    g_thread_join(t[i]);
  OK(walk(R(f), "/d0"));
}

/* ---- fs-host's own ---- */

static gboolean take_entry(gpointer data, const char *name, gsize len, guint64 ino, guint type,
                           goffset next) {
  (void)len, (void)ino, (void)type, (void)next;
  g_hash_table_add(data, g_strdup(name));
  return TRUE;
}

static void test_host_files(Fix *f, gconstpointer fs) {
  (void)fs;
  g_autofree char *path = g_build_filename(f->host_dir, "data", NULL);
  g_autofree char *text = g_strnfill(10000, 'x');
  g_assert_true(g_file_set_contents(path, text, 10000, NULL));
  TesFile *file;
  char buf[16];
  OK(open_(R(f), "/data", O_RDONLY, 0, &file));
  g_assert_cmpint(tes_file_read_kernel(file, R(f), buf, 16, 9990), ==, 10);
  TesMapSource *src = NULL;
  OK(file->ops->map(file, R(f), 1, FALSE, &src));
  TesMapPiece piece;
  OK(src->ops->piece(src, 4096, 1 << 20, FALSE, &piece));
  g_assert_cmpuint(piece.len, ==, 8192);
  g_assert_cmpint(((char *)piece.window)[0], ==, 'x');
  FAILS(src->ops->piece(src, 12288, 4096, FALSE, &piece), EFAULT);
  src->ops->unref(src);
  tes_file_unref(file);
  OK(open_(R(f), "/", O_RDONLY | O_DIRECTORY, 0, &file));
  g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  goffset pos = 0;
  OK(file->ops->readdir(file, R(f), &pos, take_entry, names));
  g_assert_true(g_hash_table_contains(names, "data") && g_hash_table_contains(names, "..") &&
                g_hash_table_size(names) == 3);
  tes_file_unref(file);
  TesSuper *s = NULL;
  FAILS(tes_fs_new_super(R(f), "host", "/", NULL, 0, &s), EPERM);
  FAILS(make(R(f), "/dev", S_IFBLK | 0600, NULL), EPERM);
}

/* cache=shared: what other processes of the host do is seen at the next use. exclusive: names are not asked for again. */
static void test_host_cache(Fix *f, gconstpointer fs) {
  (void)fs;
  OK(mkdir_(R(f), "/s", 0755));
  OK(mkdir_(R(f), "/e", 0755));
  g_autofree char *dir = g_build_filename(scratch, "cXXXXXX", NULL);
  g_assert_nonnull(mkdtemp(dir));
  for (int k = 0; k < 2; k++) {
    TesSuper *s = NULL;
    TesAt at = {.path = k ? "/e" : "/s"};
    OK(tes_fs_new_super(tes_kernel_supervisor_ctx(kernel), "host", dir,
                        k ? "rw,cache=exclusive" : "rw,cache=shared", 0, &s));
    OK(vfs->ops->mount(vfs, R(f), &at, s, "src", 0));
  }
  g_autofree char *path = g_build_filename(dir, "new", NULL), *other = g_build_filename(dir, "other", NULL);
  FAILS(walk(R(f), "/s/new"), ENOENT);
  g_assert_true(g_file_set_contents(path, "x", 1, NULL));
  OK(walk(R(f), "/s/new"));
  OK(walk(R(f), "/e/new"));
  g_assert_cmpint(chmod(path, 0611), ==, 0);
  TesAttr a;
  TesAt at = {.path = "/s/new"};
  OK(vfs->ops->getattr(vfs, R(f), &at, &a));
  g_assert_cmpuint(a.mode & 07777, ==, 0611);
  g_assert_cmpint(rename(path, other), ==, 0);
  FAILS(walk(R(f), "/s/new"), ENOENT);
  if (!dcache_max)
    OK(walk(R(f), "/e/new")); /* until it is opened */
  FAILS(open_(R(f), "/e/new", O_RDONLY, 0, NULL), ENOENT);
  OK(walk(R(f), "/s/other"));
  g_assert_cmpint(unlink(other), ==, 0);
  FAILS(open_(R(f), "/s/other", O_RDONLY, 0, NULL), ENOENT);
}

static guint open_fds(void) {
  g_autoptr(GDir) d = g_dir_open("/proc/self/fd", 0, NULL);
  guint n = 0;
  while (g_dir_read_name(d))
    n++;
  return n;
}

/* V9: cached names do not hold descriptors without bound; everything is found again after its descriptor was closed. */
static void test_host_budget(Fix *f, gconstpointer fs) {
  (void)fs;
  guint before = open_fds();
  char path[64];
  for (int i = 0; i < 3000; i++) {
    g_snprintf(path, sizeof path, "/dir%d", i);
    OK(mkdir_(R(f), path, 0755));
    g_snprintf(path, sizeof path, "/dir%d/file", i);
    OK(open_(R(f), path, O_CREAT | O_RDWR, 0600, NULL));
  }
  g_assert_cmpuint(open_fds(), <, before + (dcache_max ? dcache_max + 20 : 1100));
  for (int i = 0; i < 3000; i += 7) {
    g_snprintf(path, sizeof path, "/dir%d/file", i);
    OK(open_(R(f), path, O_RDONLY, 0, NULL));
  }
}

int main(int argc, char **argv) {
  TesRegistry *reg = box_start(&argc, &argv, "vfs2");
  static const struct {
    const char *name;
    void (*fn)(Fix *, gconstpointer);
    gboolean host_only;
  } cases[] = {{"walk", test_walk, FALSE},       {"links", test_links, FALSE},
               {"open", test_open, FALSE},       {"names", test_names, FALSE},
               {"rename", test_rename, FALSE},   {"permission", test_permission, FALSE},
               {"mounts", test_mounts, FALSE},   {"bind", test_bind, FALSE},
               {"resolve", test_resolve, FALSE}, {"threads", test_threads, FALSE},
               {"files", test_host_files, TRUE}, {"budget", test_host_budget, TRUE},
               {"cache", test_host_cache, TRUE}};
  static const char *const kinds[] = {"host", "tmpfs", "overlay"};
  for (guint k = 0; k < G_N_ELEMENTS(kinds); k++)
    for (guint i = 0; tes_registry_find(reg, "filesystem", kinds[k]) && i < G_N_ELEMENTS(cases); i++) {
      g_autofree char *path = g_strdup_printf("/vfs/%s/%s", kinds[k], cases[i].name);
      if (!cases[i].host_only || k == 0)
        g_test_add(path, Fix, kinds[k], setup, cases[i].fn, teardown);
    }
  int r = g_test_run();
  return box_end(reg, r);
}
