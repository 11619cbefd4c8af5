/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials: immutable, reference counted; a task swaps its pointer. Ids are numbers of the initial user
 * namespace (kuid); tes_uid_to_ns() shows them to a task. capabilities(7), credentials(7). */
#pragma once

#include <tessera/types.h>

TES_BEGIN_DECLS

struct _TesCred {
  gint refs;
  guint32 uid, euid, suid, fsuid;
  guint32 gid, egid, sgid, fsgid;
  guint64 cap_permitted, cap_effective, cap_inheritable, cap_bounding, cap_ambient;
  guint32 securebits;
  gboolean no_new_privs;
  guint n_groups;
  guint32 *groups; /* sorted, owned */
  TesNs *user_ns;  /* owned */
};

#define TES_CAP_ALL ((1ULL << 41) - 1)
#define TES_NGROUPS_MAX 65536

TesCred *tes_cred_new_root(TesNs *user_ns); /* uid 0, all capabilities */
TesCred *tes_cred_new_user(TesNs *user_ns, guint32 uid, guint32 gid, const guint32 *groups,
                           guint n);     /* none if uid != 0 */
TesCred *tes_cred_copy(const TesCred *); /* to be changed before it is published */
TesCred *tes_cred_ref(TesCred *);
void tes_cred_unref(TesCred *);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesCred, tes_cred_unref)
gboolean tes_cred_in_group(const TesCred *, guint32 gid); /* fsgid or supplementary */
/* Effective capability towards the initial user namespace (cap: CAP_* number). */
gboolean tes_cred_capable(const TesCred *, int cap);
gboolean tes_ctx_capable(TesCtx *, int cap);
gboolean tes_task_capable(TesTask *, int cap);

TES_END_DECLS
