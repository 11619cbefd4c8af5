/* SPDX-License-Identifier: Apache-2.0 */
/* Host descriptors. A slot that nobody pins stays open in the idle list until the budget is exceeded. */
#include "host.h"
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

static int open_component(int dirfd, const char *name, int flags) {
  struct open_how how = {.flags = (guint64)flags | O_CLOEXEC | O_NOFOLLOW,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
  int fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof how);
  return fd < 0 ? -errno : fd;
}

gboolean host_is_kernel_fs(int dirfd, const char *name) {
  static const guint32 kinds[] = {0x9fa0 /* proc */,           0x62656572 /* sysfs */,
                                  0x27e0eb /* cgroup */,       0x63677270 /* cgroup2 */,
                                  0x64626720 /* debugfs */,    0x74726163 /* tracefs */,
                                  0x73636673 /* securityfs */, 0xcafe4a11 /* bpf */,
                                  0x62656570 /* configfs */,   0xde5e81e4 /* efivarfs */,
                                  0x6165676c /* pstore */,     0xf97cff8c /* selinux */,
                                  0x43415d53 /* smack */,      0x1cd1 /* devpts */,
                                  0x19800202 /* mqueue */,     0x42494e4d /* binfmt_misc */,
                                  0x6e736673 /* nsfs */,       0x65735543 /* fusectl */,
                                  0x07655821 /* resctrl */,    0x5a3c69f0 /* apparmor */};
  struct statfs st;
  int fd = name ? open_component(dirfd, name, O_PATH) : dirfd;
  gboolean yes = fd < 0 || fstatfs(fd, &st) < 0;
  for (gsize k = 0; !yes && k < G_N_ELEMENTS(kinds); k++)
    yes = (guint32)st.f_type == kinds[k];
  if (name && fd >= 0)
    close(fd);
  return yes;
}

static int flags_for(const HostInode *i, int slot) {
  guint32 type = i->base.mode & S_IFMT;
  if (type == S_IFDIR)
    return O_PATH | O_DIRECTORY;
  if (type != S_IFREG)
    return O_PATH;
  /* NONBLOCK, NOCTTY: in case the name leads to something else by now; the identity is checked afterwards. */
  return (slot == SLOT_WRITE ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY;
}

/* What a regular file's descriptor says of it is the news that who opens it wants. */
static int check_identity(HostInode *i, int fd) {
  struct statx s;
  if (statx(fd, "", AT_EMPTY_PATH, HOST_STATX, &s) < 0)
    return -errno;
  guint32 type = i->base.mode & S_IFMT;
  /* A device node of ours is a regular file there. */
  gboolean node = (type == S_IFCHR || type == S_IFBLK) && host_super(i)->store && S_ISREG(s.stx_mode);
  if (host_stx_dev(&s) != i->id.dev || s.stx_ino != i->id.ino || (!node && (s.stx_mode & S_IFMT) != type))
    return -ESTALE;
  if (type == S_IFREG) {
    host_meta_load(host_super(i), fd, NULL, &s);
    host_attr_set(i, &s);
  }
  return 0;
}

/* ---- Pins and the idle list; fd lock held ---- */

static void pin(HostSuper *s, HostFd *f) {
  if (f->pins++ == 0 && f->link.data) {
    g_queue_unlink(&s->idle, &f->link);
    f->link.data = NULL;
  }
}

static void make_idle(HostSuper *s, HostFd *f) {
  f->link.data = f;
  g_queue_push_tail_link(&s->idle, &f->link);
}

/* Takes descriptors over the budget out of their slots; the caller closes them without locks. */
static guint take_excess(HostSuper *s, int *fds, guint room) {
  guint n = 0;
  while (n < room && s->n_fds > s->budget && s->idle.head) {
    HostFd *f = s->idle.head->data;
    g_queue_unlink(&s->idle, &f->link);
    f->link.data = NULL;
    fds[n++] = f->fd;
    f->fd = -1;
    s->n_fds--;
  }
  return n;
}

static void shrink(HostSuper *s) {
  int fds[16];
  tes_mutex_lock(&s->fd_lock);
  guint n = take_excess(s, fds, G_N_ELEMENTS(fds));
  tes_mutex_unlock(&s->fd_lock);
  while (n > 0)
    close(fds[--n]);
}

int host_fd_get_open(HostInode *i, int slot) {
  HostSuper *s = host_super(i);
  TES_LOCKED(&s->fd_lock);
  HostFd *f = &i->slot[slot];
  if (f->fd < 0)
    return -1;
  pin(s, f);
  return f->fd;
}

void host_fd_put(HostInode *i, int slot) {
  HostSuper *s = host_super(i);
  HostFd *f = &i->slot[slot];
  tes_mutex_lock(&s->fd_lock);
  if (--f->pins == 0)
    make_idle(s, f);
  gboolean excess = s->n_fds > s->budget && s->idle.head;
  tes_mutex_unlock(&s->fd_lock);
  if (excess)
    shrink(s);
}

void host_fd_install(HostInode *i, int slot, int fd) {
  HostSuper *s = host_super(i);
  tes_mutex_lock(&s->fd_lock);
  HostFd *f = &i->slot[slot];
  if (f->fd < 0) {
    f->fd = fd;
    s->n_fds++;
    fd = -1;
  }
  pin(s, f);
  gboolean excess = s->n_fds > s->budget && s->idle.head;
  tes_mutex_unlock(&s->fd_lock);
  if (fd >= 0)
    close(fd);
  if (excess)
    shrink(s);
}

void host_fds_close(HostInode *i) {
  HostSuper *s = host_super(i);
  int fds[N_SLOTS];
  tes_mutex_lock(&s->fd_lock);
  for (int k = 0; k < N_SLOTS; k++) {
    HostFd *f = &i->slot[k];
    if (f->link.data)
      g_queue_unlink(&s->idle, &f->link);
    f->link.data = NULL;
    fds[k] = f->fd;
    if (f->fd >= 0)
      s->n_fds--;
    f->fd = -1;
  }
  tes_mutex_unlock(&s->fd_lock);
  for (int k = 0; k < N_SLOTS; k++)
    if (fds[k] >= 0)
      close(fds[k]);
}

/* ---- Opening by name; names lock held ---- */

/* A regular file of a tree whose names the guest can change: only what is known to be the file is really opened, so that
 * no device of the host ever is. */
static int open_checked(HostInode *i, int slot, int dirfd) {
  gboolean twice = host_super(i)->rw && !host_super(i)->store && S_ISREG(i->base.mode);
  int fd = open_component(dirfd, i->name, twice ? O_PATH : flags_for(i, slot));
  int r = fd < 0 ? fd : check_identity(i, fd);
  if (r == 0 && twice) {
    char self[40];
    g_snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int real = open(self, flags_for(i, slot) | O_CLOEXEC);
    r = real < 0 ? -errno : 0;
    close(fd);
    fd = real;
  } else if (r < 0 && fd >= 0) {
    close(fd);
  }
  return r < 0 ? r : fd;
}

/* Opens one slot below the parent's open descriptor and leaves it pinned. */
static int open_below(HostInode *i, int slot, int dirfd) {
  if (!i->name || i->unlinked)
    return -ESTALE;
  int fd = open_checked(i, slot, dirfd);
  if (fd == -EMFILE || fd == -ENFILE) {
    shrink(host_super(i));
    fd = open_checked(i, slot, dirfd);
  }
  if (fd < 0)
    return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV ? -ESTALE : fd;
  host_fd_install(i, slot, fd);
  return i->slot[slot].fd;
}

/* Pins a directory's descriptor, opening ancestors from the nearest open one downwards. */
static int open_dir(HostInode *dir) {
  int fd = host_fd_get_open(dir, SLOT_READ);
  if (fd >= 0)
    return fd;
  g_autoptr(GPtrArray) way = g_ptr_array_new();
  HostInode *at = dir;
  while (at && (fd = host_fd_get_open(at, SLOT_READ)) < 0) {
    g_ptr_array_add(way, at);
    at = at->parent;
  }
  if (!at)
    return -ESTALE;
  for (guint k = way->len; k-- > 0;) {
    HostInode *next = way->pdata[k];
    fd = open_below(next, SLOT_READ, fd);
    host_fd_put(at, SLOT_READ);
    if (fd < 0)
      return fd;
    at = next;
  }
  return fd;
}

int host_parent_fd(HostInode *i, HostInode **parent) {
  tes_mutex_assert_held(&host_super(i)->names_lock);
  *parent = i->parent;
  return i->parent && !i->unlinked ? open_dir(i->parent) : -ESTALE;
}

/* A file without a name that is open for reading and writing can still be read, or mapped. */
static int share_writable(HostInode *i) {
  int fd = host_fd_get_open(i, SLOT_WRITE);
  if (fd < 0)
    return -ESTALE;
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0), err = errno;
  host_fd_put(i, SLOT_WRITE);
  if (copy < 0)
    return -err;
  host_fd_install(i, SLOT_READ, copy);
  host_attr_refresh(i);
  return i->slot[SLOT_READ].fd;
}

int host_fd_get(HostInode *i, int slot) {
  int fd = host_fd_get_open(i, slot);
  if (fd >= 0)
    return fd;
  HostSuper *s = host_super(i);
  TES_LOCKED(&s->names_lock);
  if (S_ISDIR(i->base.mode))
    return open_dir(i);
  HostInode *parent;
  int dirfd = host_parent_fd(i, &parent);
  if (dirfd >= 0) {
    fd = open_below(i, slot, dirfd);
    host_fd_put(parent, SLOT_READ);
  } else {
    fd = dirfd;
  }
  return fd == -ESTALE && slot == SLOT_READ ? share_writable(i) : fd;
}
