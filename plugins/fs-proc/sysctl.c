/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of /proc/sys whose files a plugin offers: features of kind "sysctl" (tessera/sysctl.h). */
#include "proc.h"

static const TesSysctlTable *table(Node *n) {
  g_autofree char *name = g_strconcat("fs/", n->entry->name, NULL);
  return tes_registry_find(tes_kernel_registry(n->inode.super->kernel), "sysctl", name);
}

/* A file's node keeps the number of its row; its table is found by the name of the directory. */
static const TesSysctl *row(Node *n) {
  const TesSysctlTable *t =
      tes_registry_find(tes_kernel_registry(n->inode.super->kernel), "sysctl", n->entry->name);
  return t && (gsize)n->number < t->n ? &t->rows[n->number] : NULL;
}

static int text_row(Node *n, TesCtx *ctx, GString *s) {
  const TesSysctl *r = row(n);
  return r ? r->show(ctx, s) : -ENOENT;
}

static int write_row(Node *n, TesCtx *ctx, const char *text, gsize len) {
  (void)len;
  const TesSysctl *r = row(n);
  return r && r->store ? r->store(ctx, text) : -EINVAL;
}

/* The kind of file in each directory, named by the feature. */
#define ROW_FILE(name_) \
  { .name = "fs/" name_, .mode = S_IFREG | 0644, .text = text_row, .write = write_row }
static const Entry row_files[] = {ROW_FILE("inotify"), ROW_FILE("mqueue")};

static const Entry *row_file(const Node *dir) {
  for (gsize i = 0; i < G_N_ELEMENTS(row_files); i++)
    if (g_str_equal(row_files[i].name + strlen("fs/"), dir->entry->name))
      return &row_files[i];
  return NULL;
}

int sysctl_lookup(Node *n, TesCtx *ctx, const char *name, TesInode **out) {
  (void)ctx;
  const TesSysctlTable *t = table(n);
  const Entry *file = row_file(n);
  for (gsize i = 0; t && file && i < t->n; i++)
    if (g_str_equal(t->rows[i].name, name))
      return node_new(n->inode.super, file, NULL, (gint)i, out);
  return -ENOENT;
}

int sysctl_list(Node *n, TesCtx *ctx, goffset *pos, TesDirFill fill, gpointer data) {
  (void)ctx;
  const TesSysctlTable *t = table(n);
  for (gsize i = (gsize)*pos; t && i < t->n; i++) {
    const char *name = t->rows[i].name;
    if (!fill(data, name, strlen(name), n->inode.ino + 2 + i, DT_REG, (goffset)(i + 1 + 1000)))
      return 0;
    *pos = (goffset)i + 1;
  }
  return 0;
}
