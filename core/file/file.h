/* SPDX-License-Identifier: Apache-2.0 */
/* Core-private interface of core/file: what system calls and the task side need of files beyond <tessera/file.h>. */
#pragma once

#include <tessera/tessera.h>

#define TES_MAX_RW_COUNT 0x7ffff000UL
#define TES_NR_OPEN (1 << 20) /* highest possible RLIMIT_NOFILE */

/* ---- file.c ---- */

/* More file descriptions than file-max: new ones get no descriptor (ENFILE). */
gboolean tes_file_too_many(void);

/* Waits on a file for a task, or for a context without one. Use: begin (enlists), then check, then block; end. */
typedef struct {
  TesWaiter w;
  TesTask *task;
  gpointer sem; /* sem_t of a caller without a task */
} TesFileWait;
void tes_file_wait_begin(TesFileWait *, TesFile *, TesTask *, guint mask);
int tes_file_wait_block(TesFileWait *, TesTime deadline); /* 0, -ETIMEDOUT, -EINTR */
void tes_file_wait_end(TesFileWait *);

/* When a blocking call on the file gives up: SO_RCVTIMEO, SO_SNDTIMEO of sockets. */
TesTime tes_file_deadline(TesFile *, gboolean send);
/* What an interrupted call with that deadline returns: restarted only without a timeout (signal(7)). */
static inline int tes_file_interrupted(TesTime deadline) {
  return deadline == TES_TIME_INFINITE ? -TES_ERESTARTSYS : -EINTR;
}
static inline gboolean tes_file_nonblock(TesFile *f) {
  return (g_atomic_int_get((gint *)&f->flags) & O_NONBLOCK) != 0;
}
gboolean tes_file_is_regular(TesFile *);
/* One attempt, never blocks. rw.c */
gssize tes_file_read_once(TesFile *, TesCtx *, TesIov *, goffset *pos, int flags);
gssize tes_file_write_once(TesFile *, TesCtx *, TesIov *, goffset *pos, int flags);
/* The clipped length for a write of n bytes at pos under RLIMIT_FSIZE, or -EFBIG after SIGXFSZ. */
gssize tes_file_size_limit(TesFile *, TesCtx *, goffset pos, gsize n);
/* New position, or -errno. */
goffset tes_file_seek(TesFile *, TesCtx *, goffset off, int whence);
/* Sends a signal to the calling task as the kernel does for SIGPIPE and SIGXFSZ (SI_USER from itself). */
void tes_file_signal_self(TesTask *, int sig);

/* ---- async.c ---- */

/* Does the kind send signals for O_ASYNC? */
gboolean tes_file_can_async(TesFile *);
void tes_file_set_async(TesFile *, int fd, gboolean on);
/* Sends the owner its signal, with si_code `code` (POLL_IN ...). Takes the task set's lock. */
void tes_file_signal_owner(TesFile *, int code, int fd);

/* ---- lease.c ---- */

/* fcntl(2) F_SETLEASE, F_GETLEASE. */
glong tes_lease_set(TesTask *, TesFile *, int fd, int type);
int tes_lease_get(TesFile *);
/* The inode is about to be opened with `flags`, or truncated (O_WRONLY): waits until no lease speaks against it. 0, -EWOULDBLOCK
 * (O_NONBLOCK), -TES_ERESTARTSYS. */
int tes_lease_break(TesInode *, TesTask *, guint flags);
gboolean tes_lease_any(void);
void tes_lease_release(TesFile *);

/* ---- fsinfo.c ---- */

/* The root or working directory without a reference, or NULL if the info is shared. The task itself only; valid as a borrow is. */
TesPath *tes_fsinfo_peek(TesFsInfo *, gboolean cwd);
/* Drops the reference when the task returns to the guest (core/task/ctx.c). */
void tes_task_keep_path(TesTask *, TesPath * /* full */);

/* ---- super.c ---- */

/* sync(2): every mounted filesystem of the kernel. */
void tes_supers_sync(TesKernel *);

/* ---- fdtable.c ---- */

/* As tes_fd_install() with the caller's reference, which is dropped if there is no number. */
int tes_fd_give(TesTask *, TesFile * /* full */, gboolean cloexec);
/* Removes a descriptor and drops its file: -EBADF, or what flush says. */
int tes_fd_close(TesTask *, int fd);
/* Closes [first, last] or, with `cloexec`, marks them. */
void tes_fd_close_range(TesTask *, guint first, guint last, gboolean cloexec);
/* dup2/dup3: installs `f` at fd, closing what was there. fd, or -EBADF. */
int tes_fd_replace(TesTask *, TesFile *, int fd, gboolean cloexec);
/* Takes the lowest free number for a call that will need it: the number or -EMFILE. Ended by tes_fd_fill(), which installs
 * `f`, or with NULL gives the number back. Meanwhile the descriptor is EBADF. */
int tes_fd_reserve(TesTask *, gboolean cloexec);
void tes_fd_fill(TesTask *, int fd, TesFile *f);
/* 0/1, or -EBADF. */
int tes_fd_get_cloexec(TesTask *, int fd);
int tes_fd_set_cloexec(TesTask *, int fd, gboolean on);
/* As tes_fd_get, but not for O_PATH files. */
TesFile *tes_fd_get_io(TesTask *, int fd);
/* TRUE while `fd` names `f`. */
gboolean tes_fd_is(TesTask *, int fd, TesFile *f);
/* One above the highest number the table can hold without growing (a multiple of 64). */
guint tes_fdtable_size(TesFdTable *);
/* Gives the calling task a table of its own (unshare, close_range). 0 or -ENOMEM. */
int tes_task_unshare_fdtable(TesTask *);
gboolean tes_fdtable_is_shared(TesFdTable *);

/* ---- pipe.c, fifo.c ---- */

typedef struct _TesPipe TesPipe;
/* The pipe of a file, or NULL. Borrowed. */
TesPipe *tes_file_pipe(TesFile *);
TesPipe *tes_pipe_alloc(guint32 uid, guint32 gid);
TesPipe *tes_pipe_ref(TesPipe *);
void tes_pipe_unref(TesPipe *);
/* Opens an end; with `out` NULL only counts it. */
TesFile *tes_pipe_open(TesPipe *, TesKernel *, guint flags);
/* splice(2) from a pipe: copies up to n bytes without consuming and keeps other readers away until release, which
 * consumes `used`. -EAGAIN: empty or another splice runs; 0: end of file. */
gssize tes_pipe_peek_begin(TesPipe *, void *buf, gsize n);
void tes_pipe_peek_end(TesPipe *, gsize used);
/* Copies without consuming (tee). */
gssize tes_pipe_peek(TesPipe *, void *buf, gsize n);
gsize tes_pipe_room(TesPipe *);

/* ---- eventfd.c ---- */
int tes_eventfd_new(TesKernel *, guint64 count, gboolean semaphore, guint flags, TesFile **out);

/* ---- hostmap.c ---- */
/* A source over a host file (which is duplicated); transfer full. */
int tes_host_map_new(int fd, gboolean writable, TesMapSource **out);

extern const TesStateOps tes_state_file, tes_state_pipe;

/* ---- locks.c ---- */

/* flock(2). */
int tes_lock_flock(TesTask *, TesFile *, int op);
/* fcntl(2) F_SETLK, F_SETLKW, F_GETLK and the F_OFD_ ones, on a struct flock in guest memory. */
glong tes_lock_fcntl(TesTask *, int fd, TesFile *, int cmd, gulong arg);
/* A descriptor of the table was closed: the process' POSIX locks on the inode go. */
void tes_lock_fd_closed(TesFile *, TesFdTable *);
/* The description goes: its flock and OFD locks go. */
void tes_lock_release(TesFile *);

/* core/file/protect.c: takes the host's values over. */
void tes_protected_init(void);
