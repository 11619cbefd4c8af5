/* SPDX-License-Identifier: Apache-2.0 */
/* What Linux allows with names and files, whatever generation asks: the checks of open(2), mkdir(2), link(2), unlink(2), rmdir(2) and
 * rename(2), on inodes. Mounts, cached names and locks are the generation's. All return 0 or -errno. */
#pragma once

#include <sys/mount.h>
#include <tessera/tessera.h>

/* ---- names.c: the caller holds its lock on the directory ---- */

/* Refuses what rename(2) and renameat2(2) do not take together. */
int rules_rename_flags(guint flags);
/* unlink(2) and rmdir(2) of a path whose last component is no name. */
int rules_remove_last(int last_kind, gboolean dir);
/* May names be added to the directory? */
int rules_may_create(TesCtx *, TesInode *dir, gboolean read_only);
/* May `victim` be removed from `dir`, as a directory or as anything else? Also what rename replaces. */
int rules_may_delete(TesCtx *, TesInode *dir, TesInode *victim, gboolean as_dir);
/* Makes what `node` says, except for hard links. Permission has been checked. */
int rules_make(TesCtx *, TesInode *dir, const char *name, const TesNode *node, TesInode **out);
/* May it get another name? Asked before what the directory allows. */
int rules_may_link(TesCtx *, TesInode *target);
/* Another name of `target`, which is on the same mount; *out: target, referenced. What has lost its last name stays nameless; `linkable`: it
 * never had one (O_TMPFILE). */
int rules_link(TesCtx *, TesInode *dir, const char *name, TesInode *target, gboolean linkable,
               TesInode **out);

/* May a symbolic link in `dir` be followed, as the last component of a path? */
int rules_may_follow(TesCtx *, TesInode *dir, TesInode *link);
/* May open(2) with O_CREAT have what exists in `dir` already? */
int rules_may_open_existing(TesCtx *, TesInode *dir, TesInode *);

typedef struct {
  TesInode *odir, *ndir, *source, *target; /* borrowed; source and target may be NULL: no such name */
  guint flags;                             /* RENAME_* */
  gboolean source_slash, target_slash;     /* the names had a slash behind them */
  gboolean into_itself;                    /* source is ndir or above it */
  gboolean target_above;                   /* target is odir or above it */
} RulesRename;
/* The two names themselves; returns 1 if there is nothing to do. */
int rules_rename_names(const RulesRename *);
/* Permissions, after rules_rename_names(). */
int rules_may_rename(TesCtx *, const RulesRename *);

/* ---- mountflags.c ---- */

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#define RULES_MOUNT_FLAGS                                                                    \
  (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME | \
   MS_STRICTATIME | MS_NOSYMFOLLOW)
/* What a mount keeps of mount(2)'s flags. Times are MS_RELATIME, MS_NOATIME, or neither (strict). */
gulong rules_mount_flags(gulong ms);
/* After MS_REMOUNT: one that says nothing about times keeps them. */
gulong rules_remount_flags(gulong old, gulong ms);
gulong rules_changed_flags(gulong old, const TesMountAttr *);
char *rules_mount_options(gulong flags); /* "rw,nosuid,relatime"; g_malloc'ed */

/* ---- open.c ---- */

/* The flags that open(2) goes on with, and their part in how the path is resolved (*at). */
guint rules_open_flags(guint flags, TesAt *at);
/* Which of the flags may not be together in a call that makes a nameless file. */
int rules_tmpfile_flags(guint flags);
/* A description of the inode: checks permission, refuses writers of running programs, truncates. `created`: the file was made by this
 * call, whatever its mode. mount_flags: MS_* of the mount, MS_RDONLY for a read-only filesystem too. The inode is filled in; the path
 * is left to the caller (a filesystem may have filled it in). */
int rules_open(TesCtx *, TesInode *, gulong mount_flags, guint flags, gboolean created, TesFile **out);
/* Tells those who watch (notify.h), once f->path is there; flags as given to rules_open(). */
void rules_tell_open(TesFile *f, guint flags, gboolean created);
