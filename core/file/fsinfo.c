/* SPDX-License-Identifier: Apache-2.0 */
/* Root, working directory and umask of a process; shared by CLONE_FS. */
#include <core/file/file.h>
#include <core/task/task.h>

struct _TesFsInfo {
  gint refs;
  TesMutex lock; /* guards root and cwd */
  TesPath *root, *cwd;
  gint mask; /* atomic */
};

static const TesLockClass fsinfo_class = {"fs info", TES_RANK_FSINFO, FALSE,
                                          "root and working directory of a process"};

TesFsInfo *tes_fsinfo_new(TesPath *root, TesPath *cwd, guint32 mask) {
  TesFsInfo *f = g_new0(TesFsInfo, 1);
  f->refs = 1;
  tes_mutex_init(&f->lock, &fsinfo_class);
  f->root = root;
  f->cwd = cwd;
  f->mask = mask & 0777;
  return f;
}

TesFsInfo *tes_fsinfo_ref(TesFsInfo *f) {
  g_atomic_int_inc(&f->refs);
  return f;
}

void tes_fsinfo_unref(TesFsInfo *f) {
  if (!g_atomic_int_dec_and_test(&f->refs))
    return;
  g_clear_pointer(&f->root, tes_path_unref);
  g_clear_pointer(&f->cwd, tes_path_unref);
  tes_mutex_clear(&f->lock);
  g_free(f);
}

TesFsInfo *tes_fsinfo_copy(TesFsInfo *f) {
  TES_LOCKED(&f->lock);
  return tes_fsinfo_new(f->root ? tes_path_ref(f->root) : NULL, f->cwd ? tes_path_ref(f->cwd) : NULL,
                        tes_fsinfo_umask(f));
}

TesPath *tes_fsinfo_root(TesFsInfo *f) {
  TES_LOCKED(&f->lock);
  return f->root ? tes_path_ref(f->root) : NULL;
}

TesPath *tes_fsinfo_cwd(TesFsInfo *f) {
  TES_LOCKED(&f->lock);
  return f->cwd ? tes_path_ref(f->cwd) : NULL;
}

/* A process with one thread need not count what it looks at: only it changes its own, and others who do (pivot_root(2)) keep the
 * old path until it has returned to the guest. NULL: shared, ask for a reference. */
TesPath *tes_fsinfo_peek(TesFsInfo *f, gboolean cwd) {
  return g_atomic_int_get(&f->refs) == 1 ? g_atomic_pointer_get(cwd ? &f->cwd : &f->root) : NULL;
}

/* The old path is released outside the lock: its last reference may free a mount. The task itself may have borrowed it. */
static void set_path(TesFsInfo *f, TesPath **slot, TesPath *p) {
  TesTask *t = tes_task_current();
  tes_mutex_lock(&f->lock);
  TesPath *old = *slot;
  g_atomic_pointer_set(slot, p);
  tes_mutex_unlock(&f->lock);
  if (old && t && t->fsinfo == f)
    tes_task_keep_path(t, old);
  else if (old)
    tes_path_unref(old);
}
void tes_fsinfo_set_root(TesFsInfo *f, TesPath *p) { set_path(f, &f->root, p); }
void tes_fsinfo_set_cwd(TesFsInfo *f, TesPath *p) { set_path(f, &f->cwd, p); }

guint32 tes_fsinfo_umask(TesFsInfo *f) { return (guint32)g_atomic_int_get(&f->mask); }
guint32 tes_fsinfo_set_umask(TesFsInfo *f, guint32 m) {
  return (guint32)__atomic_exchange_n(&f->mask, (gint)(m & 0777), __ATOMIC_SEQ_CST);
}
