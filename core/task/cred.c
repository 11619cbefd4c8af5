/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials as values: made, copied, asked; what execve(2) makes of them (capabilities(7), "Transformation of
 * capabilities during execve()"). A task's pointer is swapped under its lock; a TesCred never changes once published. */
#include <core/task/life.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Values ---- */

static TesCred *cred_new(TesNs *user_ns) {
  TesCred *c = g_new0(TesCred, 1);
  c->refs = 1;
  c->cap_bounding = TES_CAP_ALL;
  c->user_ns = tes_ns_ref(user_ns);
  return c;
}

TesCred *tes_cred_new_root(TesNs *user_ns) {
  TesCred *c = cred_new(user_ns);
  c->cap_permitted = c->cap_effective = TES_CAP_ALL;
  return c;
}

static int by_value(gconstpointer a, gconstpointer b) {
  guint32 x = *(const guint32 *)a, y = *(const guint32 *)b;
  return (x > y) - (x < y);
}

static void set_groups(TesCred *c, const guint32 *groups, guint n) {
  g_free(c->groups);
  c->groups = n ? g_memdup2(groups, n * sizeof *groups) : NULL;
  c->n_groups = n;
  if (n)
    qsort(c->groups, n, sizeof *groups, by_value);
}

void tes_cred_set_groups(TesCred *c, const guint32 *groups, guint n) { set_groups(c, groups, n); }

TesCred *tes_cred_new_user(TesNs *user_ns, guint32 uid, guint32 gid, const guint32 *groups, guint n) {
  TesCred *c = uid == 0 ? tes_cred_new_root(user_ns) : cred_new(user_ns);
  c->uid = c->euid = c->suid = c->fsuid = uid;
  c->gid = c->egid = c->sgid = c->fsgid = gid;
  set_groups(c, groups, n);
  return c;
}

TesCred *tes_cred_copy(const TesCred *from) {
  TesCred *c = g_memdup2(from, sizeof *from);
  c->refs = 1;
  c->user_ns = tes_ns_ref(from->user_ns);
  c->groups = NULL;
  set_groups(c, from->groups, from->n_groups);
  return c;
}

TesCred *tes_cred_ref(TesCred *c) {
  g_atomic_int_inc(&c->refs);
  return c;
}

void tes_cred_unref(TesCred *c) {
  if (!c || !g_atomic_int_dec_and_test(&c->refs))
    return;
  tes_ns_unref(c->user_ns);
  g_free(c->groups);
  g_free(c);
}

/* ---- Questions ---- */

gboolean tes_cred_in_group(const TesCred *c, guint32 gid) {
  return c->fsgid == gid || (c->n_groups && bsearch(&gid, c->groups, c->n_groups, sizeof gid, by_value));
}

gboolean tes_cred_capable(const TesCred *c, int cap) {
  return !c->user_ns->parent && c->cap_effective & (1ULL << cap);
}

gboolean tes_ctx_capable(TesCtx *ctx, int cap) {
  const TesCred *c = tes_ctx_cred(ctx);
  return c && tes_cred_capable(c, cap);
}

gboolean tes_task_capable(TesTask *t, int cap) { return tes_cred_capable(t->cred, cap); }

/* ---- Publishing ---- */

static void free_later(gpointer c) { tes_cred_unref(c); }

/* Going over RLIMIT_NPROC by setuid(2) is noticed at the next execve. */
static void move_count(TesTask *t, guint32 uid) {
  guint64 limit = tes_task_rlimit(t, RLIMIT_NPROC);
  TES_LOCKED(&t->kernel->task_set);
  if (!t->linked || t->counted_uid == uid)
    return;
  tes_uid_count(t->kernel, t->counted_uid, -1);
  tes_uid_count(t->kernel, uid, 1);
  t->counted_uid = uid;
  t->nproc_exceeded = uid != 0 && tes_uid_tasks(t->kernel, uid) > limit;
}

/* Others may still be reading the old one in an epoch (ctx.h). */
void tes_task_set_cred(TesTask *t, TesCred *c) {
  tes_mutex_lock(&t->lock);
  TesCred *old = t->cred;
  t->cred = c;
  tes_mutex_unlock(&t->lock);
  if (old->uid != c->uid)
    move_count(t, c->uid);
  tes_epoch_defer(free_later, old);
  if (t == tes_task_current())
    tes_task_tell_facts(t);
}

/* ---- execve ---- */

/* The file's capabilities are none, or all of them where root is special (capabilities(7), "Capabilities and execution of
 * programs by root"). */
static void transform(const TesCred *old, TesCred *c, gboolean set_id) {
  gboolean root_special = !(old->securebits & SECBIT_NOROOT);
  gboolean root = root_special && (c->uid == 0 || c->euid == 0), effective = root_special && c->euid == 0;
  if (set_id)
    c->cap_ambient = 0;
  if (root)
    c->cap_permitted = old->cap_bounding | old->cap_inheritable;
  else
    c->cap_permitted = c->cap_ambient;
  c->cap_effective = effective ? c->cap_permitted : c->cap_ambient;
  c->securebits &= ~(guint32)SECBIT_KEEP_CAPS;
}

TesCred *tes_cred_for_exec(const TesCred *old, guint32 mode, guint32 uid, guint32 gid, gboolean *gained) {
  TesCred *c = tes_cred_copy(old);
  if (!old->no_new_privs) {
    if (mode & S_ISUID)
      c->euid = uid;
    if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
      c->egid = gid;
  }
  gboolean set_id = c->euid != old->euid || c->egid != old->egid;
  transform(old, c, set_id);
  c->suid = c->fsuid = c->euid;
  c->sgid = c->fsgid = c->egid;
  *gained = set_id || (c->cap_permitted & ~old->cap_permitted & ~old->cap_ambient && old->uid != 0);
  return c;
}
