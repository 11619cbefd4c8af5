/* SPDX-License-Identifier: Apache-2.0 */
/* The core's system call rows, one table for each area; core/registry/core-features.c lists them. */
#pragma once

#include <core/task/task.h>

extern const TesSyscallTable tes_sys_mm;       /* mm.c: mmap ... mlock, brk */
extern const TesSyscallTable tes_sys_process;  /* process.c: clone, exec, exit, wait, ids of processes */
extern const TesSyscallTable tes_sys_cred;     /* cred.c: uids, gids, capabilities */
extern const TesSyscallTable tes_sys_sched;    /* sched.c */
extern const TesSyscallTable tes_sys_misc;     /* misc.c: uname, sysinfo, prctl, rlimits, getrandom ... */
extern const TesSyscallTable tes_sys_signal;   /* signal.c */
extern const TesSyscallTable tes_sys_futex;    /* futex.c */
extern const TesSyscallTable tes_sys_time;     /* time.c */
extern const TesSyscallTable tes_sys_rw;       /* rw.c: read, write ... sendfile */
extern const TesSyscallTable tes_sys_fd;       /* fd.c: dup, fcntl, ioctl, close, pipe, eventfd */
extern const TesSyscallTable tes_sys_poll;     /* poll.c */
extern const TesSyscallTable tes_sys_path;     /* path.c: mkdir, rename, chdir ... */
extern const TesSyscallTable tes_sys_stat;     /* stat.c: stat, statx, statfs */
extern const TesSyscallTable tes_sys_open;     /* open.c: open, access, memfd_create */
extern const TesSyscallTable tes_sys_attr;     /* attr.c: chmod, chown, utimensat ... */
extern const TesSyscallTable tes_sys_xattr;    /* xattr.c */
extern const TesSyscallTable tes_sys_mount;    /* mount.c */
extern const TesSyscallTable tes_sys_mountapi; /* mountapi.c: fsopen ... mount_setattr */
extern const TesSyscallTable tes_sys_msg;      /* core/ipc/msg.c */
extern const TesSyscallTable tes_sys_sem;      /* core/ipc/sem.c */
extern const TesSyscallTable tes_sys_shm;      /* core/ipc/shm.c */
extern const TesSyscallTable tes_sys_socket;   /* socket.c */

#define TES_ROWS(rows_) \
  { .size = sizeof(TesSyscallTable), .rows = (rows_), .n = G_N_ELEMENTS(rows_) }
