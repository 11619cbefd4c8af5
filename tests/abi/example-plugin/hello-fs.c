/* SPDX-License-Identifier: Apache-2.0 */
/* hello-fs: a filesystem of one directory with one text file, `greeting`. The example of docs/plugins/writing.md: it is
 * built outside the tree, against the installed headers, and mounted with `mount -t hello none DIR`.
 *
 * Mount option: text=TEXT, what the file says (default: "hello from a plugin"). Everything is read-only and never
 * changes, so there is nothing to lock. */
#include <dirent.h>
#include <string.h>
#include <sys/mount.h>
#include <tessera/tessera.h>

#define HELLO_MAGIC 0x68656c6f
#define FILE_NAME "greeting"
enum { ROOT_INO = 1, FILE_INO = 2 };

/* One mounted instance; the base comes first, so that the pointers can be converted. */
typedef struct {
  TesSuper super;
  char *text;
  gsize len;
  struct timespec mounted;
} HelloFs;

static HelloFs *hello(const TesInode *i) { return (HelloFs *)i->super; }

static TesInode *inode_new(TesSuper *, guint32 mode, guint64 ino);

/* ---- Open files ---- */

/* Copies out as much as fits, and moves the position by that. Never blocks; 0 is the end of the file. */
static gssize hello_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  const HelloFs *fs = hello(f->inode);
  (void)ctx, (void)flags;
  if ((gsize)*pos >= fs->len)
    return 0;
  gssize n = tes_iov_write_to(iov, fs->text + *pos, MIN(iov->left, fs->len - (gsize)*pos));
  if (n > 0)
    *pos += n;
  return n;
}

/* An entry that the caller did not take is offered again at the same position. */
static int hello_readdir(TesFile *f, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  static const struct {
    const char *name;
    guint64 ino;
    guint type;
  } entries[] = {{".", ROOT_INO, DT_DIR}, {"..", ROOT_INO, DT_DIR}, {FILE_NAME, FILE_INO, DT_REG}};
  (void)f, (void)ctx;
  while (*pos >= 0 && (gsize)*pos < G_N_ELEMENTS(entries)) {
    gsize i = (gsize)*pos;
    if (!fill(data, entries[i].name, strlen(entries[i].name), entries[i].ino, entries[i].type, *pos + 1))
      break;
    ++*pos;
  }
  return 0;
}

static void hello_release(TesFile *f) { g_free(f); }

static const TesFileOps file_ops = {.size = sizeof(TesFileOps),
                                    .name = "hello",
                                    .flags = TES_FILE_SEEKABLE,
                                    .read = hello_read,
                                    .release = hello_release};
static const TesFileOps dir_ops = {.size = sizeof(TesFileOps),
                                   .name = "hello-dir",
                                   .flags = TES_FILE_SEEKABLE | TES_FILE_DIR,
                                   .readdir = hello_readdir,
                                   .release = hello_release};

/* ---- Inodes ---- */

/* The VFS has checked the permission to search, and remembers the answer, -ENOENT included. */
static int hello_lookup(TesInode *dir, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  if (!g_str_equal(name, FILE_NAME))
    return -ENOENT;
  *out = inode_new(dir->super, S_IFREG | 0444, FILE_INO);
  return 0;
}

static int hello_getattr(TesInode *i, TesCtx *ctx, TesAttr *a) {
  const HelloFs *fs = hello(i);
  gboolean dir = S_ISDIR(i->mode);
  (void)ctx;
  *a = (TesAttr){.mode = i->mode,
                 .nlink = dir ? 2 : 1,
                 .blksize = TES_PAGE_SIZE,
                 .ino = i->ino,
                 .dev = i->super->dev,
                 .size = dir ? 0 : fs->len,
                 .atime = fs->mounted,
                 .mtime = fs->mounted,
                 .ctime = fs->mounted};
  return 0;
}

static int hello_open(TesInode *i, TesCtx *ctx, guint flags, TesFile **out) {
  TesFile *f = g_new0(TesFile, 1);
  (void)ctx;
  tes_file_init(f, i->super->kernel, S_ISDIR(i->mode) ? &dir_ops : &file_ops, flags);
  *out = f;
  return 0;
}

static void hello_free(TesInode *i) { g_free(i); }

/* What is not here is not supported. The VFS refuses every change with EROFS before it gets here: the super is read-only. */
static const TesInodeOps inode_ops = {.size = sizeof(TesInodeOps),
                                      .lookup = hello_lookup,
                                      .getattr = hello_getattr,
                                      .open = hello_open,
                                      .free = hello_free};

static TesInode *inode_new(TesSuper *s, guint32 mode, guint64 ino) {
  TesInode *i = g_new0(TesInode, 1);
  tes_inode_init(i, s, &inode_ops, mode, ino);
  return i;
}

/* ---- The instance ---- */

static int hello_statfs(TesSuper *s, TesCtx *ctx, struct statfs *st) {
  (void)ctx;
  *st = (struct statfs){
      .f_type = (long)s->magic, .f_bsize = TES_PAGE_SIZE, .f_files = 2, .f_namelen = TES_NAME_MAX};
  return 0;
}

static void hello_super_free(TesSuper *s) {
  g_free(((HelloFs *)s)->text);
  g_free(s);
}

static const TesSuperOps super_ops = {
    .size = sizeof(TesSuperOps), .statfs = hello_statfs, .free = hello_super_free};

static int option(const char *key, const char *value, gpointer data) {
  char **text = data;
  if (!g_str_equal(key, "text") || !value)
    return -EINVAL;
  g_free(*text);
  *text = g_strdup(value);
  return 0;
}

static int hello_mount(TesCtx *ctx, const char *source, const char *opts, gulong ms_flags, TesSuper **out) {
  g_autofree char *text = g_strdup("hello from a plugin");
  (void)source, (void)ms_flags;
  int r = tes_mount_opts_parse(opts, option, &text);
  if (r < 0)
    return r;
  HelloFs *fs = g_new0(HelloFs, 1);
  tes_super_init(&fs->super, tes_ctx_kernel(ctx), &super_ops, "hello");
  fs->super.magic = HELLO_MAGIC;
  fs->super.read_only = TRUE;
  fs->text = g_strconcat(text, "\n", NULL);
  fs->len = strlen(fs->text);
  fs->mounted = tes_timespec_from_ns(tes_time_realtime(tes_ctx_kernel(ctx)));
  tes_super_set_root(&fs->super, inode_new(&fs->super, S_IFDIR | 0555, ROOT_INO));
  *out = &fs->super;
  return 0;
}

/* ---- The plugin ---- */

static const TesFsTypeOps type = {.size = sizeof(TesFsTypeOps), .name = "hello", .mount = hello_mount};
static const TesFeature features[] = {{"filesystem", "hello", &type}, {NULL, NULL, NULL}};

/* The file is hello-fs.so, so the descriptor is tes_plugin_hello_fs. */
TES_PLUGIN_DEFINE(hello_fs, .name = "hello-fs", .summary = "An example: one file that says hello",
                  .licence = "Apache-2.0", .features = features);
