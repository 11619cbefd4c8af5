/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptions: the unit of extension (DESIGN.md decision 5). Files, pipes, sockets, timerfd, epoll, eventfd and
 * ttys implement one table. The core owns descriptors, positions, blocking and O_NONBLOCK. */
#pragma once

#include <fcntl.h>
#include <tessera/ctx.h>
#include <tessera/mm.h>
#include <tessera/types.h>
#include <tessera/wait.h>

TES_BEGIN_DECLS

typedef struct _TesFileOps TesFileOps;
typedef struct _TesSockOps TesSockOps;
typedef struct _TesAttr TesAttr;
typedef struct _TesSetAttr TesSetAttr;

/* flags of read/write operations */
enum {
  TES_RW_NONBLOCK = 1 << 0, /* informative: the core blocks, never the operation */
  TES_RW_APPEND = 1 << 1,   /* write at the end of file, whatever *pos says; set *pos */
  TES_RW_SYNC = 1 << 2,
  TES_RW_PWRITE = 1 << 3,   /* an explicit offset was given */
  TES_RW_NOAPPEND = 1 << 5, /* for the core: O_APPEND does not count this time */
  TES_RW_QUIET = 1 << 4,    /* the caller tells those who watch the file itself */
};

/* properties of a kind of file */
enum {
  TES_FILE_SEEKABLE = 1 << 0, /* has a position; otherwise lseek and pread are ESPIPE */
  TES_FILE_STREAM = 1 << 1,   /* a blocking write goes on until all is written (pipe, stream socket, tty) */
  TES_FILE_DIR = 1 << 2,
  TES_FILE_NO_READ_WRITE = 1 << 3, /* O_PATH */
  TES_FILE_ROOM =
      1
      << 4, /* tells TES_POLL_ROOM when enough space is free for what blocked writers want to write; they wait
                                * for that alone, which saves wake-ups (pipes) */
  TES_FILE_UNPASSABLE =
      1 << 6, /* not through a socket: it keeps files itself, and nobody would find a circle of references */
  TES_FILE_ASYNC = 1 << 5, /* O_ASYNC sends signals; sockets, terminals and pipes need not say so */
};

/* An event beside POLL*: see TES_FILE_ROOM. */
#define TES_POLL_ROOM 0x10000

/* Called for each directory entry; FALSE: the buffer is full, the entry was not taken. `next` is the
 * position behind it. type is DT_*. */
typedef gboolean (*TesDirFill)(gpointer data, const char *name, gsize len, guint64 ino, guint type,
                               goffset next);

/* Operations never wait for readiness: they return -EAGAIN and the core blocks on file->queue and asks again. Each is
 * called without core locks (but the position lock, when the position is the file's own), possibly by several threads at
 * once. NULL: not supported (the core answers EINVAL, ENOTTY, ESPIPE, ENODEV, ... as Linux does). */
struct _TesFileOps {
  gsize size;
  const char *name; /* "pipe", "eventfd", ... */
  guint flags;      /* TES_FILE_* */
  /* Bytes moved (0: end of file) or -errno. *pos advances by what was moved (seekable files). */
  gssize (*read)(TesFile *, TesCtx *, TesIov *, goffset *pos, int flags);
  gssize (*write)(TesFile *, TesCtx *, TesIov *, goffset *pos, int flags);
  /* Which POLL* events hold now. NULL: always POLLIN | POLLOUT. Never blocks. A change that may add an event must
   * tes_queue_notify(file->queue, events). */
  guint (*poll)(TesFile *);
  goffset (*seek)(TesFile *, TesCtx *, goffset off,
                  int whence); /* NULL or -EOPNOTSUPP: the core's rule, from getattr's size */
  glong (*ioctl)(TesFile *, TesTask *, guint cmd, gulong arg); /* -ENOTTY for unknown ones */
  int (*readdir)(TesFile *, TesCtx *, goffset *pos, TesDirFill, gpointer data);
  /* A referenced source to map, transfer full through source->ops->unref. prot: PROT_*; shared: MAP_SHARED. */
  int (*map)(TesFile *, TesCtx *, guint prot, gboolean shared, TesMapSource **out);
  int (*fsync)(TesFile *, TesCtx *, gboolean data_only);
  int (*fallocate)(TesFile *, TesCtx *, int mode, goffset off, goffset len);
  /* Default: the inode's. Files without an inode (anonymous ones) get core defaults. */
  int (*getattr)(TesFile *, TesCtx *, TesAttr *);
  int (*setattr)(TesFile *, TesCtx *, const TesSetAttr *);
  /* Target of /proc/PID/fd/N for files without a path, "pipe:[12]"; transfer full. NULL: "anon_inode:[name]". */
  char *(*describe)(TesFile *);
  /* Lines for /proc/PID/fdinfo/N after the standard ones; transfer full. */
  char *(*fdinfo)(TesFile *);
  /* fcntl's that change status flags, to be told; may refuse. */
  int (*set_flags)(TesFile *, guint flags);
  /* A descriptor was closed (not the last reference): flush(2) semantics. */
  int (*flush)(TesFile *, TesCtx *);
  /* Stops and resumes timers and whatever moves by itself (C10). */
  int (*freeze)(TesFile *, gboolean on);
  const TesSockOps *sock;    /* socket.h; NULL: ENOTSOCK */
  TesTty *(*tty)(TesFile *); /* terminals: the tty behind it, borrowed */
  /* The last reference went: free what embeds the TesFile. `path` and `inode` are still there; nobody waits any more. */
  void (*release)(TesFile *);
  /* Appended. fcntl F_GET_SEALS, F_ADD_SEALS (the core has checked O_WRONLY/O_RDWR); NULL: -EINVAL. op is TES_SEALS_*. */
  int (*seals)(TesFile *, TesCtx *, int op, guint seals);
  /* fcntl(2) commands the core does not know itself (F_GETPIPE_SZ ...): -EINVAL for unknown ones. */
  glong (*fcntl)(TesFile *, TesTask *, guint cmd, gulong arg);
  /* Another description of the same object: open(2) of /proc/PID/fd/N for a file without a path. NULL: -ENXIO. Transfer full. */
  int (*reopen)(TesFile *, TesCtx *, guint flags, TesFile **out);
};

/* Operations of TesFileOps.seals. */
enum {
  TES_SEALS_GET,   /* fcntl F_GET_SEALS: the seals */
  TES_SEALS_ADD,   /* fcntl F_ADD_SEALS: 0, -EPERM (sealed against it), -EBUSY (writable mappings) */
  TES_SEALS_RESET, /* memfd_create(2): the new file's first set */
};

/* Embedded as the first member of every file. */
struct _TesFile {
  const TesFileOps *ops;
  TesKernel *kernel;
  gint refs;       /* private: use tes_file_ref/unref */
  guint flags;     /* O_* status flags and access mode; atomic; O_CLOEXEC is not here */
  guint64 id;      /* unique id (U1) */
  TesQueue *queue; /* where waiters enlist: &own_queue, or a queue shared with other files */
  TesQueue own_queue;
  TesMutex pos_lock;
  goffset pos;                   /* guarded by pos_lock */
  TesPath *path;                 /* where it was opened, owned; NULL for anonymous files */
  TesInode *inode;               /* owned; NULL for files without one */
  guint64 ino;                   /* inode number of anonymous files */
  gint owner;                    /* F_SETOWN: >0 pid, <0 process group */
  gint owner_type;               /* F_OWNER_* */
  int sigio;                     /* F_SETSIG */
  struct _TesFileWatch *watches; /* private: epoll-like observers, called at release */
  GSList *locks;                 /* private: core/file/locks.c */
  gboolean
      writer; /* the VFS called tes_inode_get_write(inode) for it: the core undoes that when the file goes */
  guint32 owner_uid, owner_euid; /* who set the owner */
  struct _TesFileAsync *async;   /* private: core/file/async.c */
};

/* Prepares the embedded base; one reference. `flags` are O_*. */
void tes_file_init(TesFile *, TesKernel *, const TesFileOps *, guint flags);
TesFile *tes_file_ref(TesFile *);
void tes_file_unref(TesFile *);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TesFile, tes_file_unref)
/* FALSE if the last reference is already gone (weak lookups under the owner's lock). */
gboolean tes_file_try_ref(TesFile *);

/* Called (once, without locks) when the file's last reference goes; how epoll sets forget a file. */
typedef struct _TesFileWatch {
  void (*fn)(TesFile *, gpointer data);
  gpointer data;
  struct _TesFileWatch *next, **link; /* private; zero before it is added */
} TesFileWatch;
void tes_file_add_watch(TesFile *, TesFileWatch *);
/* In constant time; nothing happens if it was removed, or called, already. */
void tes_file_remove_watch(TesFile *, TesFileWatch *);

/* Access mode 3 is neither; open(2), "File access mode". */
static inline gboolean tes_file_readable(const TesFile *f) {
  return ((f->flags + 1) & 1) && !(f->flags & O_PATH);
}
static inline gboolean tes_file_writable(const TesFile *f) {
  return ((f->flags + 1) & 2) && !(f->flags & O_PATH);
}
guint tes_file_poll(TesFile *);

/* Blocking I/O on behalf of a task (or, with a context without a task, until done). `pos` NULL: the file's own position (with
 * its lock). Returns bytes or -errno; interrupted before anything moved: -TES_ERESTARTSYS. Sends no SIGPIPE. */
gssize tes_file_read(TesFile *, TesCtx *, TesIov *, goffset *pos, int flags);
gssize tes_file_write(TesFile *, TesCtx *, TesIov *, goffset *pos, int flags);
/* Blocks until poll() meets mask, or the deadline: 0, -ETIMEDOUT, -EINTR. */
int tes_file_wait(TesFile *, TesTask *, guint mask, TesTime deadline);
gssize tes_file_read_kernel(TesFile *, TesCtx *, void *buf, gsize n, goffset pos);
/* fstat(2) of any file: the file's own answer, its inode's, or the defaults of anonymous files. */
int tes_file_getattr(TesFile *, TesCtx *, TesAttr *);
/* The file's own setattr, or its inode's; -EPERM for anonymous files, -EROFS on a read-only filesystem. No permission check. */
int tes_file_setattr(TesFile *, TesCtx *, const TesSetAttr *);
/* Target of /proc/PID/fd/N for a file without a path; transfer full. */
char *tes_file_describe(TesFile *);
/* Appends the lines of /proc/locks, with the process numbers that the viewer sees. */
void tes_locks_text(TesCtx *viewer, GString *out);

/* ---- Descriptors ---- */

TesFdTable *tes_fdtable_new(void);
TesFdTable *tes_fdtable_ref(TesFdTable *);
void tes_fdtable_unref(TesFdTable *, TesCtx *);
/* Copy for fork: files shared, descriptors copied. */
TesFdTable *tes_fdtable_fork(TesFdTable *);
/* For execve(2) (core/file/fdtable.c): a table shared with others is replaced by a copy, then close-on-exec descriptors are
 * closed. Consumes the reference, returns the one to use. */
TesFdTable *tes_fdtable_exec(TesFdTable *, TesCtx *);
/* Referenced file of a descriptor of the task, or NULL (EBADF). */
TesFile *tes_fd_get(TesTask *, int fd);
/* The same for the time of one call, without counting where nobody else can take the file away: the table has one owner,
 * the calling task. The call must not close descriptors. */
typedef struct {
  TesFile *file; /* NULL: EBADF */
  gboolean counted;
} TesFdLoan;
TesFdLoan tes_fd_borrow(TesTask *, int fd);
TesFdLoan tes_fd_borrow_io(TesTask *, int fd); /* not for O_PATH */
static inline void tes_fd_return(TesFdLoan *l) {
  if (G_UNLIKELY(l->counted))
    tes_file_unref(l->file);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(TesFdLoan, tes_fd_return)
/* Installs in the lowest free number >= min (reference taken): the number, -EMFILE (limit RLIMIT_NOFILE). */
int tes_fd_install(TesTask *, TesFile *, int min, gboolean cloexec);
/* As install in a table of a process that does not run yet; limit `max`. */
int tes_fdtable_install_at(TesFdTable *, TesFile *, int fd, gboolean cloexec);
void tes_fdtable_foreach(TesFdTable *, void (*)(int fd, TesFile *, gboolean cloexec, gpointer), gpointer);

/* Anonymous kinds the core offers. */
/* A pipe: two files (transfer full); flags O_NONBLOCK, O_DIRECT. */
int tes_pipe_new(TesKernel *, TesCtx *, guint flags, TesFile *out[2]);
/* The pipe of a FIFO inode, opened as open(2) does (may block: the core waits; -ENXIO, -TES_ERESTARTSYS). */
int tes_fifo_open(TesInode *, TesCtx *, guint flags, TesFile **out);
/* A file over a host descriptor (stdio, --preserve-fds): polled, never set non-blocking. Takes the descriptor. */
TesFile *tes_host_file_new(TesKernel *, int host_fd, guint flags, GError **error);

TES_END_DECLS
