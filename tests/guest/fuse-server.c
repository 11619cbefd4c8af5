/* SPDX-License-Identifier: Apache-2.0 */
/* fuse-server.c - the filesystem in memory of fuse-server.h, on the bare protocol of <linux/fuse.h>. */
#include "fuse-server.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#define MAX_NODES 600
#define MAX_NAMES 700
#define MAX_XATTRS 16
#define BUFFER (1 << 20)

typedef struct {
  struct fuse_attr attr; /* nlink 0 and no lookups: free */
  uint64_t lookups;
  char *data; /* contents, or the link's text */
  bool used;
} Node;
typedef struct {
  uint64_t parent, node;
  char name[256];
} Name;
typedef struct {
  uint64_t node;
  char name[64], value[256];
  size_t len;
} Xattr;

static Node nodes[MAX_NODES];
static Name names[MAX_NAMES];
static Xattr xattrs[MAX_XATTRS];
static FuseControl *ctl;
static int dev;
static uint64_t hanging; /* a request that waits for its interruption */

/* ---- Replies ---- */

static void reply(uint64_t unique, int error, const void *data, size_t n) {
  static char buf[BUFFER];
  struct fuse_out_header h = {.len = (uint32_t)(sizeof h + n), .error = error, .unique = unique};

  memcpy(buf, &h, sizeof h);
  if (n)
    memcpy(buf + sizeof h, data, n);
  if (write(dev, buf, h.len) < 0 && errno != ENOENT && errno != ENODEV)
    _exit(3);
}

static int64_t wall(void) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return ts.tv_sec;
}

static uint64_t node_new(const struct fuse_in_header *h, uint32_t mode, uint32_t rdev) {
  for (uint64_t i = 2; i < MAX_NODES; i++)
    if (!nodes[i].used) {
      nodes[i] = (Node){.used = true};
      nodes[i].attr = (struct fuse_attr){.ino = i,
                                         .mode = mode,
                                         .nlink = S_ISDIR(mode) ? 2 : 1,
                                         .uid = h->uid,
                                         .gid = h->gid,
                                         .rdev = rdev,
                                         .blksize = 4096};
      nodes[i].attr.mtime = nodes[i].attr.ctime = nodes[i].attr.atime = (uint64_t)wall();
      return i;
    }
  return 0;
}

static void node_drop(uint64_t n) {
  if (n > 1 && !nodes[n].attr.nlink && !nodes[n].lookups) {
    free(nodes[n].data);
    nodes[n].data = NULL;
    nodes[n].used = false;
    for (int i = 0; i < MAX_XATTRS; i++)
      if (xattrs[i].node == n)
        xattrs[i].node = 0;
  }
}

static Name *find(uint64_t parent, const char *name) {
  for (int i = 0; i < MAX_NAMES; i++)
    if (names[i].node && names[i].parent == parent && !strcmp(names[i].name, name))
      return &names[i];
  return NULL;
}

static Name *name_new(uint64_t parent, const char *name, uint64_t node) {
  for (int i = 0; i < MAX_NAMES; i++)
    if (!names[i].node) {
      names[i] = (Name){.parent = parent, .node = node};
      snprintf(names[i].name, sizeof names[i].name, "%s", name);
      return &names[i];
    }
  return NULL;
}

static bool is_empty(uint64_t dir) {
  for (int i = 0; i < MAX_NAMES; i++)
    if (names[i].node && names[i].parent == dir)
      return false;
  return true;
}

static void send_entry(uint64_t unique, uint64_t n, const void *more, size_t more_len) {
  struct {
    struct fuse_entry_out e;
    char more[64];
  } o = {.e = {.nodeid = n,
               .generation = 1,
               .entry_valid = ctl->valid,
               .attr_valid = ctl->valid,
               .attr = nodes[n].attr}};

  nodes[n].lookups++;
  if (more_len)
    memcpy(o.more, more, more_len);
  reply(unique, 0, &o, sizeof o.e + more_len);
}

static void send_attr(uint64_t unique, uint64_t n) {
  struct fuse_attr_out o = {.attr_valid = ctl->valid, .attr = nodes[n].attr};
  reply(unique, 0, &o, sizeof o);
}

/* ---- Requests that make and remove names ---- */

static void make(const struct fuse_in_header *h, const char *name, uint32_t mode, uint32_t rdev,
                 const char *target, bool open) {
  struct fuse_open_out oo = {.fh = 7};
  if (find(h->nodeid, name)) {
    reply(h->unique, -EEXIST, NULL, 0);
    return;
  }
  uint64_t n = node_new(h, mode, rdev);
  if (!n || !name_new(h->nodeid, name, n)) {
    reply(h->unique, -ENOSPC, NULL, 0);
    return;
  }
  if (target) {
    nodes[n].data = strdup(target);
    nodes[n].attr.size = strlen(target);
  }
  send_entry(h->unique, n, &oo, open ? sizeof oo : 0);
}

static void take_away(const struct fuse_in_header *h, const char *name, bool dir) {
  Name *nm = find(h->nodeid, name);
  uint64_t n = nm ? nm->node : 0;
  int error = !nm ? -ENOENT : dir && !is_empty(n) ? -ENOTEMPTY : 0;

  if (!error) {
    nm->node = 0;
    nodes[n].attr.nlink = dir ? 0 : nodes[n].attr.nlink - 1;
    node_drop(n);
  }
  reply(h->unique, error, NULL, 0);
}

static void do_rename(const struct fuse_in_header *h, uint64_t newdir, unsigned flags, const char *old) {
  const char *new = old + strlen(old) + 1;
  Name *from = find(h->nodeid, old), *to = find(newdir, new);
  int error = !from ? -ENOENT : to && (flags & 1) ? -EEXIST : !to && (flags & 2) ? -ENOENT : 0;

  if (!error && (flags & 2)) {
    uint64_t t = from->node;
    from->node = to->node;
    to->node = t;
  } else if (!error) {
    if (to) {
      nodes[to->node].attr.nlink = 0;
      uint64_t gone = to->node;
      to->node = 0;
      node_drop(gone);
    }
    from->parent = newdir;
    snprintf(from->name, sizeof from->name, "%s", new);
  }
  reply(h->unique, error, NULL, 0);
}

/* ---- Contents and attributes ---- */

static void resize(uint64_t n, uint64_t size) {
  nodes[n].data = realloc(nodes[n].data, size + 1);
  if (size > nodes[n].attr.size)
    memset(nodes[n].data + nodes[n].attr.size, 0, size - nodes[n].attr.size);
  nodes[n].attr.size = size;
  nodes[n].attr.blocks = (size + 511) / 512;
}

static void do_setattr(const struct fuse_in_header *h, const struct fuse_setattr_in *in) {
  struct fuse_attr *a = &nodes[h->nodeid].attr;
  if (in->valid & FATTR_MODE)
    a->mode = in->mode;
  if (in->valid & FATTR_UID)
    a->uid = in->uid;
  if (in->valid & FATTR_GID)
    a->gid = in->gid;
  if (in->valid & FATTR_SIZE)
    resize(h->nodeid, in->size);
  if (in->valid & FATTR_ATIME) {
    a->atime = in->valid & FATTR_ATIME_NOW ? (uint64_t)wall() : in->atime;
    a->atimensec = in->atimensec;
  }
  if (in->valid & FATTR_MTIME) {
    a->mtime = in->valid & FATTR_MTIME_NOW ? (uint64_t)wall() : in->mtime;
    a->mtimensec = in->mtimensec;
  }
  send_attr(h->unique, h->nodeid);
}

static void do_read(const struct fuse_in_header *h, const struct fuse_read_in *in) {
  const Node *n = &nodes[h->nodeid];
  uint64_t left = in->offset < n->attr.size ? n->attr.size - in->offset : 0;
  reply(h->unique, 0, left ? n->data + in->offset : NULL, left < in->size ? left : in->size);
}

static void do_write(const struct fuse_in_header *h, const struct fuse_write_in *in) {
  struct fuse_write_out o = {.size = in->size};
  if (in->offset + in->size > nodes[h->nodeid].attr.size)
    resize(h->nodeid, in->offset + in->size);
  memcpy(nodes[h->nodeid].data + in->offset, in + 1, in->size);
  nodes[h->nodeid].attr.mtime = (uint64_t)wall();
  reply(h->unique, 0, &o, sizeof o);
}

static void do_readdir(const struct fuse_in_header *h, const struct fuse_read_in *in) {
  static char buf[65536];
  size_t used = 0;
  for (uint64_t i = in->offset; i < MAX_NAMES + 2; i++) {
    Name dots = {.node = 1, .name = {'.', i == 1 ? '.' : 0}};
    const Name *n = i < 2 ? &dots : &names[i - 2];
    if (i >= 2 && (!n->node || n->parent != h->nodeid))
      continue;
    struct fuse_dirent d = {.ino = n->node,
                            .off = i + 1,
                            .namelen = (uint32_t)strlen(n->name),
                            .type = i < 2 ? DT_DIR : nodes[n->node].attr.mode >> 12};
    size_t len = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d.namelen);
    if (used + len > in->size || used + len > sizeof buf)
      break;
    memset(buf + used, 0, len);
    memcpy(buf + used, &d, FUSE_NAME_OFFSET);
    memcpy(buf + used + FUSE_NAME_OFFSET, n->name, d.namelen);
    used += len;
  }
  reply(h->unique, 0, buf, used);
}

static Xattr *xattr_find(uint64_t node, const char *name) {
  for (int i = 0; i < MAX_XATTRS; i++)
    if (xattrs[i].node == node && !strcmp(xattrs[i].name, name))
      return &xattrs[i];
  return NULL;
}

static void do_setxattr(const struct fuse_in_header *h, const struct fuse_setxattr_in *in) {
  const char *name = (const char *)in + FUSE_COMPAT_SETXATTR_IN_SIZE, *value = name + strlen(name) + 1;
  Xattr *x = xattr_find(h->nodeid, name);
  if (!x)
    x = xattr_find(0, "");
  if (!x)
    for (int i = 0; i < MAX_XATTRS && !x; i++)
      x = xattrs[i].node ? NULL : &xattrs[i];
  if (!x || in->size > sizeof x->value) {
    reply(h->unique, -ENOSPC, NULL, 0);
    return;
  }
  x->node = h->nodeid;
  strncpy(x->name, name, sizeof x->name - 1);
  memcpy(x->value, value, in->size);
  x->len = in->size;
  reply(h->unique, 0, NULL, 0);
}

static void send_xattr(uint64_t unique, unsigned size, const void *data, size_t n) {
  struct fuse_getxattr_out o = {.size = (uint32_t)n};
  if (!size)
    reply(unique, 0, &o, sizeof o);
  else if (size < n)
    reply(unique, -ERANGE, NULL, 0);
  else
    reply(unique, 0, data, n);
}

static void do_getxattr(const struct fuse_in_header *h, const struct fuse_getxattr_in *in) {
  Xattr *x = xattr_find(h->nodeid, (const char *)(in + 1));
  if (!x)
    reply(h->unique, -ENODATA, NULL, 0);
  else
    send_xattr(h->unique, in->size, x->value, x->len);
}

static void do_listxattr(const struct fuse_in_header *h, const struct fuse_getxattr_in *in) {
  char list[MAX_XATTRS * 64];
  size_t n = 0;
  for (int i = 0; i < MAX_XATTRS; i++)
    if (xattrs[i].node == h->nodeid) {
      strcpy(list + n, xattrs[i].name);
      n += strlen(xattrs[i].name) + 1;
    }
  send_xattr(h->unique, in->size, list, n);
}

static void do_removexattr(const struct fuse_in_header *h, const char *name) {
  Xattr *x = xattr_find(h->nodeid, name);
  if (x)
    x->node = 0;
  reply(h->unique, x ? 0 : -ENODATA, NULL, 0);
}

/* ---- The loop ---- */

static void do_init(const struct fuse_in_header *h) {
  struct fuse_init_out o = {
      .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 65536, .max_readahead = 65536};
  reply(h->unique, 0, &o, sizeof o);
}

static void do_forget(uint64_t node, uint64_t n) {
  if (node < MAX_NODES) {
    nodes[node].lookups -= n < nodes[node].lookups ? n : nodes[node].lookups;
    ctl->forgotten++;
    node_drop(node);
  }
}

static bool go_wrong(const struct fuse_in_header *h) {
  char big[70000] = {0};
  struct fuse_entry_out e = {.nodeid = 5, .attr_valid = 1};

  switch (ctl->fault) {
  case FAULT_UNTIL_INTERRUPT:
    hanging = h->unique;
    return true;
  case FAULT_HANG:
    return true;
  case FAULT_SHORT:
    reply(h->unique, 0, big, 4);
    return true;
  case FAULT_LONG:
    reply(h->unique, 0, big, sizeof big);
    return true;
  case FAULT_MODE:
    reply(h->unique, 0, &e, h->opcode == FUSE_GETATTR ? sizeof(struct fuse_attr_out) : sizeof e);
    return true;
  case FAULT_ERROR:
    reply(h->unique, ctl->fault_error, NULL, 0);
    return true;
  case FAULT_DIE:
    _exit(0);
  }
  return false;
}

static void serve_names(const struct fuse_in_header *h, const char *arg) {
  const Name *n;
  struct fuse_statfs_out st = {.st = {.blocks = 1000,
                                      .bfree = 500,
                                      .bavail = 400,
                                      .files = MAX_NODES,
                                      .ffree = 9,
                                      .bsize = 4096,
                                      .frsize = 4096,
                                      .namelen = 255}};

  switch (h->opcode) {
  case FUSE_LOOKUP:
    n = find(h->nodeid, arg);
    if (n)
      send_entry(h->unique, n->node, NULL, 0);
    else
      reply(h->unique, -ENOENT, NULL, 0);
    return;
  case FUSE_MKNOD:
    make(h, arg + sizeof(struct fuse_mknod_in), ((const struct fuse_mknod_in *)arg)->mode,
         ((const struct fuse_mknod_in *)arg)->rdev, NULL, false);
    return;
  case FUSE_CREATE:
    make(h, arg + sizeof(struct fuse_create_in), ((const struct fuse_create_in *)arg)->mode, 0, NULL, true);
    return;
  case FUSE_MKDIR:
    make(h, arg + sizeof(struct fuse_mkdir_in), S_IFDIR | ((const struct fuse_mkdir_in *)arg)->mode, 0, NULL,
         false);
    return;
  case FUSE_SYMLINK:
    make(h, arg, S_IFLNK | 0777, 0, arg + strlen(arg) + 1, false);
    return;
  case FUSE_LINK:
    if (!name_new(h->nodeid, arg + sizeof(struct fuse_link_in),
                  ((const struct fuse_link_in *)arg)->oldnodeid))
      reply(h->unique, -ENOSPC, NULL, 0);
    nodes[((const struct fuse_link_in *)arg)->oldnodeid].attr.nlink++;
    send_entry(h->unique, ((const struct fuse_link_in *)arg)->oldnodeid, NULL, 0);
    return;
  case FUSE_UNLINK:
  case FUSE_RMDIR:
    take_away(h, arg, h->opcode == FUSE_RMDIR);
    return;
  case FUSE_RENAME:
    do_rename(h, ((const struct fuse_rename_in *)arg)->newdir, 0, arg + sizeof(struct fuse_rename_in));
    return;
  case FUSE_RENAME2:
    do_rename(h, ((const struct fuse_rename2_in *)arg)->newdir, ((const struct fuse_rename2_in *)arg)->flags,
              arg + sizeof(struct fuse_rename2_in));
    return;
  case FUSE_STATFS:
    reply(h->unique, 0, &st, sizeof st);
    return;
  default:
    reply(h->unique, -ENOSYS, NULL, 0);
  }
}

static void serve(const struct fuse_in_header *h, const char *arg) {
  struct fuse_open_out open = {.fh = 7};

  if (h->opcode < 64)
    ctl->seen[h->opcode]++;
  if (ctl->fault && h->opcode == ctl->fault_op && go_wrong(h))
    return;
  switch (h->opcode) {
  case FUSE_INIT:
    do_init(h);
    return;
  case FUSE_FORGET:
    do_forget(h->nodeid, ((const struct fuse_forget_in *)arg)->nlookup);
    return;
  case FUSE_BATCH_FORGET:
    for (unsigned i = 0; i < ((const struct fuse_batch_forget_in *)arg)->count; i++) {
      const struct fuse_forget_one *f = (const void *)(arg + sizeof(struct fuse_batch_forget_in));
      do_forget(f[i].nodeid, f[i].nlookup);
    }
    return;
  case FUSE_INTERRUPT:
    if (hanging == ((const struct fuse_interrupt_in *)arg)->unique)
      reply(hanging, -EINTR, NULL, 0);
    return;
  case FUSE_GETATTR:
    send_attr(h->unique, h->nodeid);
    return;
  case FUSE_SETATTR:
    do_setattr(h, (const void *)arg);
    return;
  case FUSE_READLINK:
    reply(h->unique, 0, nodes[h->nodeid].data, nodes[h->nodeid].attr.size);
    return;
  case FUSE_OPEN:
  case FUSE_OPENDIR:
    reply(h->unique, 0, &open, sizeof open);
    return;
  case FUSE_READ:
    do_read(h, (const void *)arg);
    return;
  case FUSE_WRITE:
    do_write(h, (const void *)arg);
    return;
  case FUSE_READDIR:
    do_readdir(h, (const void *)arg);
    return;
  case FUSE_RELEASE:
  case FUSE_RELEASEDIR:
  case FUSE_FSYNC:
  case FUSE_FLUSH:
    reply(h->unique, 0, NULL, 0);
    return;
  case FUSE_SETXATTR:
    do_setxattr(h, (const void *)arg);
    return;
  case FUSE_GETXATTR:
    do_getxattr(h, (const void *)arg);
    return;
  case FUSE_LISTXATTR:
    do_listxattr(h, (const void *)arg);
    return;
  case FUSE_REMOVEXATTR:
    do_removexattr(h, arg);
    return;
  default:
    serve_names(h, arg);
  }
}

static void loop(void) {
  static char buf[BUFFER] __attribute__((aligned(8)));

  nodes[1] = (Node){.used = true, .lookups = 1, .attr = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2}};
  for (;;) {
    ssize_t n = read(dev, buf, sizeof buf);
    if (n < 0 && (errno == EINTR || errno == ENOENT))
      continue;
    if (n < (ssize_t)sizeof(struct fuse_in_header)) {
      ctl->ended = n < 0 ? errno : -1;
      _exit(0);
    }
    buf[n < (ssize_t)sizeof buf ? n : (ssize_t)sizeof buf - 1] = 0;
    serve((const struct fuse_in_header *)buf, buf + sizeof(struct fuse_in_header));
  }
}

int fuse_device(void) {
  static bool apart;
  if (geteuid() != 0)
    SKIP("needs root");
  if (!apart && unshare(CLONE_NEWNS) == 0)
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
  apart = true;
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0 && !check_in_sandbox)
    SKIP("the host has no /dev/fuse: %s", strerror(errno));
  SYS(fd);
  return fd;
}

FuseServer fuse_server_start(const char *more) {
  FuseServer s = {.control = map_shared(PAGE), .dir = strdup(tmp_path("mnt"))};
  char opts[256];

  dev = fuse_device();
  ctl = s.control;
  SYS(mkdir(s.dir, 0755));
  snprintf(opts, sizeof opts, "fd=%d,rootmode=40755,user_id=0,group_id=0%s", dev, more);
  SYS(mount("guest-test", s.dir, "fuse", MS_NOSUID | MS_NODEV, opts));
  s.pid = fork();
  if (s.pid == 0)
    loop();
  SYS(s.pid);
  SYS(close(dev));
  return s;
}

void fuse_server_stop(FuseServer *s) {
  s->control->fault = FAULT_NONE;
  umount2(s->dir, MNT_DETACH);
  kill(s->pid, SIGKILL);
  check_wait(s->pid);
  rmdir(s->dir);
}
