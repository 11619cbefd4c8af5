/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/sys/fs/protected_* (proc_sys_fs(5)) and the set-id bits that a change takes away. The values are the host's when the
 * kernel starts; the sandbox's own afterwards. */
#include <core/file/file.h>
#include <core/task/task.h>
#include <linux/capability.h>
#include <stdio.h>

/* Where the host does not say: what most distributions choose. */
static gint level[TES_PROTECTED_N] = {1, 1, 1, 1};
static const char *const name[TES_PROTECTED_N] = {"symlinks", "hardlinks", "fifos", "regular"};

void tes_protected_init(void) {
  for (guint i = 0; i < TES_PROTECTED_N; i++) {
    char path[64];
    g_autofree char *text = NULL;
    g_snprintf(path, sizeof path, "/proc/sys/fs/protected_%s", name[i]);
    if (g_file_get_contents(path, &text, NULL, NULL))
      tes_set_protected(i, (gint)g_ascii_strtoll(text, NULL, 10));
  }
}

gint tes_protected(TesProtected p) { return g_atomic_int_get(&level[p]); }

int tes_set_protected(TesProtected p, gint to) {
  if (to < 0 || to > (p < TES_PROTECTED_FIFOS ? 1 : 2))
    return -EINVAL;
  g_atomic_int_set(&level[p], to);
  return 0;
}

/* chown(2), inode(7). The set-group-ID bit without the group's x bit stays for members of the group. */
gboolean tes_inode_drops_setid(TesInode *i, TesCtx *ctx, gboolean chown, guint32 *mode) {
  guint32 m = __atomic_load_n(&i->mode, __ATOMIC_RELAXED), kill = m & S_ISUID;
  TesCred *c = tes_ctx_cred(ctx);
  if (!(m & (S_ISUID | S_ISGID)) || !c || (chown ? S_ISDIR(m) : !S_ISREG(m)))
    return FALSE;
  gboolean capable = tes_cred_capable(c, CAP_FSETID);
  if ((m & S_ISGID) && ((m & S_IXGRP) || !(capable || tes_cred_in_group(c, i->gid))))
    kill |= S_ISGID;
  *mode = m & 07777 & ~kill;
  return kill && (chown || !capable);
}
