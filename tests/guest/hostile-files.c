/* SPDX-License-Identifier: Apache-2.0 */
/* hostile-files.c - random calls as in hostile.c, with arguments of the right kinds: descriptors of every kind, names that exist, flags
 * that are known, pointers to the last bytes of a page. So they come past the first checks of the calls about files, mounts, rings,
 * queues and watches. Only in the sandbox. `--seed=N`, `--seconds=N` (default 20). */
#include "check.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/mount.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>

#define WORKERS 4
#define THREADS 3
#define BATCH 1200
#define LIMIT_MS 1500
#define ROOM (16 * PAGE)
#define FDS 96

int mount(const char *, const char *, const char *, unsigned long,
          const void *); /* <sys/mount.h> excludes <linux/mount.h> */

/* Kinds of arguments: f descriptor, d descriptor of a directory or AT_FDCWD, p path, n name of an attribute, filesystem or option,
 * b bytes, s length, o offset, i small number, x flags, r number of any kind, m mode, 0 zero. */
typedef struct {
  short nr;
  const char *args;
} Call;

static const Call calls[] = {
    {SYS_open_tree, "dpx"},
    {SYS_move_mount, "dpdpx"},
    {SYS_fsopen, "ni"},
    {SYS_fsconfig, "finni"},
    {SYS_fsconfig, "fi000"},
    {SYS_fsmount, "fix"},
    {SYS_fspick, "dpx"},
    {442 /* mount_setattr */, "dpxbs"},
    {SYS_mount, "ppnxb"},
    {SYS_mount, "pp0x0"},
    {SYS_umount2, "pi"},
    {SYS_pivot_root, "pp"},
    {SYS_unshare, "x"},
    {SYS_setns, "fx"},
    {SYS_io_uring_setup, "ib"},
    {SYS_io_uring_enter, "fiiibs"},
    {SYS_io_uring_register, "fibi"},
    {SYS_inotify_init1, "i"},
    {SYS_inotify_add_watch, "fpx"},
    {SYS_inotify_add_watch, "fpx"},
    {SYS_inotify_rm_watch, "fi"},
    {SYS_mq_open, "nxmb"},
    {SYS_mq_unlink, "n"},
    {SYS_mq_timedsend, "fbsib"},
    {SYS_mq_timedreceive, "fbsbb"},
    {SYS_mq_notify, "fb"},
    {SYS_mq_getsetattr, "fbb"},
    {SYS_signalfd4, "fbix"},
    {SYS_shmget, "isx"},
    {SYS_shmat, "ibx"},
    {SYS_shmdt, "b"},
    {SYS_shmctl, "iib"},
    {SYS_copy_file_range, "fbfbsi"},
    {SYS_sendfile, "ffbs"},
    {SYS_splice, "fbfbsx"},
    {SYS_tee, "ffsx"},
    {SYS_vmsplice, "fbix"},
    {SYS_fallocate, "fxos"},
    {SYS_ftruncate, "fo"},
    {SYS_setxattr, "pnbsi"},
    {SYS_getxattr, "pnbs"},
    {SYS_fgetxattr, "fnbs"},
    {SYS_fsetxattr, "fnbsi"},
    {SYS_listxattr, "pbs"},
    {SYS_flistxattr, "fbs"},
    {SYS_removexattr, "pn"},
    {SYS_fcntl, "fib"},
    {SYS_fcntl, "fir"},
    {SYS_flock, "fi"},
    {SYS_openat2, "dpbs"},
    {SYS_openat, "dpxm"},
    {SYS_openat, "dpxm"},
    {SYS_name_to_handle_at, "dpbbx"},
    {SYS_open_by_handle_at, "fbx"},
    {SYS_renameat2, "dpdpi"},
    {SYS_linkat, "dpdpx"},
    {SYS_symlinkat, "pdp"},
    {SYS_unlinkat, "dpx"},
    {SYS_mkdirat, "dpm"},
    {SYS_mknodat, "dpmr"},
    {SYS_fchmodat, "dpm"},
    {SYS_fchownat, "dpiix"},
    {SYS_utimensat, "dpbx"},
    {SYS_statx, "dpxxb"},
    {SYS_getdents64, "fbs"},
    {SYS_lseek, "foi"},
    {SYS_read, "fbs"},
    {SYS_write, "fbs"},
    {SYS_pread64, "fbso"},
    {SYS_pwrite64, "fbso"},
    {SYS_preadv2, "fbiooi"},
    {SYS_pwritev2, "fbiooi"},
    {SYS_mmap, "0sixfo"},
    {SYS_msync, "bsi"},
    {SYS_madvise, "bsi"},
    {SYS_epoll_ctl, "fifb"},
    {SYS_ioctl, "frb"},
    {SYS_close, "f"},
    {SYS_dup3, "ffi"},
    {SYS_sendmsg, "fbx"},
    {SYS_recvmsg, "fbx"},
    {SYS_chdir, "p"},
    {SYS_fchdir, "f"},
    {SYS_fsync, "f"},
    {SYS_statfs, "pb"},
    {SYS_fstat, "fb"},
};

static const char *const paths[] = {"a",
                                    "b",
                                    "d",
                                    "d/c",
                                    "d/e",
                                    "l",
                                    "m",
                                    "m/a",
                                    "ov",
                                    "ov/a",
                                    "ov/d/x",
                                    "low/a",
                                    "low",
                                    "up",
                                    ".",
                                    "..",
                                    "",
                                    "/proc/self/fd",
                                    "ov/low-file",
                                    "ov/d",
                                    "m/d",
                                    "fifo",
                                    "/proc/self/ns/mnt",
                                    "/sys/fs/cgroup",
                                    "cg",
                                    "cg/x",
                                    "cg/x/cgroup.procs",
                                    "mq",
                                    "mq/q",
                                    "/dev/shm/h",
                                    "fuse",
                                    "fuse/x"};
static const char *const names[] = {"tmpfs",
                                    "overlay",
                                    "proc",
                                    "sysfs",
                                    "mqueue",
                                    "cgroup2",
                                    "devpts",
                                    "fuse",
                                    "ro",
                                    "size",
                                    "source",
                                    "lowerdir",
                                    "upperdir",
                                    "1m",
                                    "low",
                                    "user.a",
                                    "user.b",
                                    "trusted.overlay.opaque",
                                    "security.a",
                                    "system.posix_acl_access",
                                    "system.posix_acl_default",
                                    "q",
                                    "/q",
                                    "mode"};

typedef struct {
  uint64_t rng;
  char *room; /* ROOM bytes, then a hole */
  int left;
} Fuzzer;

static uint64_t draw(Fuzzer *z, uint64_t n) { return (next_random(&z->rng) >> 11) % n; }

static unsigned long bytes(Fuzzer *z) {
  char *p = z->room + draw(z, ROOM / 64) * 64;
  if (draw(z, 6) == 0)
    p = z->room + ROOM - draw(z, 200); /* runs into the hole */
  if (draw(z, 12) == 0)
    return 0;
  for (int i = 0, n = (int)draw(z, 5); i < n; i++) { /* words that mean something */
    unsigned long w = draw(z, 3) == 0   ? (unsigned long)z->room + draw(z, ROOM)
                      : draw(z, 2) == 0 ? draw(z, FDS)
                                        : draw(z, 1 << 16);
    if (p + 64 < z->room + ROOM)
      memcpy(p + draw(z, 8) * (draw(z, 2) ? 8 : 4), &w, 4 + 4 * draw(z, 2));
  }
  return (unsigned long)p;
}

static unsigned long number(Fuzzer *z) {
  static const long odd[] = {-1, 0x7fffffff, 0x80000000l, 1l << 62, 4095, 4097, 0x7fffffffffffffff, -4096};
  return draw(z, 2) ? (unsigned long)odd[draw(z, sizeof odd / sizeof *odd)] : next_random(&z->rng);
}

static unsigned long text(Fuzzer *z, const char *t) {
  size_t n = strlen(t) + 1;
  char *p = draw(z, 4) ? z->room + draw(z, ROOM / 64 - 1) * 64 : z->room + ROOM - n;
  memcpy(p, t, n);
  return (unsigned long)p;
}

static unsigned long argument(Fuzzer *z, char kind) {
  switch (kind) {
  case 'f':
    return draw(z, 20) ? draw(z, FDS) : number(z);
  case 'd':
    return draw(z, 3) ? (unsigned long)AT_FDCWD : draw(z, FDS);
  case 'p':
    return text(z, paths[draw(z, sizeof paths / sizeof *paths)]);
  case 'n':
    return text(z, names[draw(z, sizeof names / sizeof *names)]);
  case 'b':
    return bytes(z);
  case 's':
    return draw(z, 8) ? draw(z, 9000) : number(z);
  case 'o':
    return draw(z, 4) ? draw(z, 1 << 20) : number(z);
  case 'i':
    return draw(z, 16);
  case 'x':
    return draw(z, 2) ? 1ul << draw(z, 32) : draw(z, 3) ? 0 : (1ul << draw(z, 32)) | (1ul << draw(z, 20));
  case 'm': {
    static const unsigned types[] = {S_IFREG, S_IFDIR, S_IFIFO, S_IFCHR, S_IFSOCK, 0};
    return types[draw(z, 6)] | draw(z, 07777);
  }
  case 'r':
    return draw(z, 2) ? number(z) : 0x5400 + draw(z, 256);
  default:
    return 0;
  }
}

static long raw(long nr, const unsigned long a[6]) {
  register unsigned long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
  long r = nr;
  __asm__ volatile("syscall"
                   : "+a"(r)
                   : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory", "cc");
  return r;
}

static int fuzz(void *arg) {
  Fuzzer *z = arg;
  for (; z->left > 0; z->left--) {
    const Call *c = &calls[draw(z, sizeof calls / sizeof *calls)];
    unsigned long a[6] = {0};
    if ((c->nr == SYS_close || c->nr == SYS_dup3) && draw(z, 8))
      continue; /* descriptors are worth keeping */
    for (int i = 0; c->args[i]; i++)
      a[i] = argument(z, c->args[i]);
    raw(c->nr, a);
  }
  return 0;
}

/* ---- What there is to work on ---- */

static void make_fds(void) {
  sigset_t set;
  struct io_uring_params p = {0};
  char *args[] = {"a",
                  "d",
                  "ov/a",
                  "ov",
                  "m",
                  "l",
                  "fifo",
                  "/dev/null",
                  "/dev/zero",
                  "/dev/ptmx",
                  "/proc/self/ns/mnt",
                  "/proc/self/mountinfo",
                  "cg",
                  "cg/cgroup.procs",
                  "low/a",
                  "/proc/self/fd"};
  int s[2];

  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  for (size_t i = 0; i < sizeof args / sizeof *args; i++) {
    open(args[i], O_RDWR | O_NONBLOCK);
    open(args[i], O_RDONLY | O_NONBLOCK);
    open(args[i], O_PATH);
  }
  for (int i = 0; i < 3; i++) {
    (void)!pipe2(s, O_NONBLOCK);
    socketpair(AF_UNIX, i == 1 ? SOCK_DGRAM : SOCK_STREAM, 0, s);
    eventfd(1, EFD_NONBLOCK);
    inotify_init1(IN_NONBLOCK);
    int u = (int)syscall(SYS_io_uring_setup, 8, &p);
    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, u, IORING_OFF_SQ_RING);
    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, u, (off_t)IORING_OFF_SQES);
  }
  epoll_create1(0);
  signalfd(-1, &set, SFD_NONBLOCK);
  timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  syscall(SYS_memfd_create, "h", 2);
  syscall(SYS_mq_open, "q", O_RDWR | O_CREAT | O_NONBLOCK, 0600, NULL);
  syscall(SYS_fsopen, "tmpfs", 0);
  syscall(SYS_fsopen, "overlay", 0);
  syscall(SYS_open_tree, AT_FDCWD, "m", OPEN_TREE_CLONE);
  syscall(SYS_open_tree, AT_FDCWD, ".", OPEN_TREE_CLONE | 0x8000);
  int ctx = (int)syscall(SYS_fsopen, "tmpfs", 0);
  syscall(SYS_fsconfig, ctx, 6, NULL, NULL, 0);
  syscall(SYS_fsmount, ctx, 0, 0);
  syscall(SYS_pidfd_open, getpid(), 0);
}

static void make_tree(bool with_fuse) {
  char o[96];

  mkdir("d", 0755), mkdir("m", 0755), mkdir("low", 0755), mkdir("up", 0755), mkdir("work", 0755);
  mkdir("ov", 0755), mkdir("low/d", 0755), mkdir("cg", 0755), mkdir("mq", 0755), mkdir("fuse", 0755);
  write_file("a", "contents", 8, 0644);
  write_file("low/a", "below", 5, 0644);
  write_file("low/low-file", "below", 5, 0644);
  (void)!symlink("d/c", "l");
  mkfifo("fifo", 0600);
  mount("x", "m", "tmpfs", 0, "size=1m");
  mount("x", "ov", "overlay", 0, "lowerdir=low,upperdir=up,workdir=work");
  mount("x", "cg", "cgroup2", 0, NULL);
  mount("x", "mq", "mqueue", 0, NULL);
  if (with_fuse) { /* nobody serves it */
    snprintf(o, sizeof o, "fd=%d,rootmode=40755,user_id=0,group_id=0", open("/dev/fuse", O_RDWR));
    mount("x", "fuse", "fuse", 0, o);
  }
  mount(NULL, "m", NULL, next_random(&(uint64_t){(uint64_t)getpid()}) % 2 ? 1 << 20 : 1 << 18, NULL);
}

static void ignore(int sig) { (void)sig; }

static void worker(uint64_t seed, const char *dir) {
  static Fuzzer z[THREADS];
  char *stacks = map_anon(THREADS * 65536, PROT_READ | PROT_WRITE);
  struct itimerval tick = {{0, 20000}, {0, 20000}};
  struct rlimit files = {FDS + 30, FDS + 30}, size = {8 << 20, 8 << 20}, space = {512 << 20, 512 << 20};

  setpgid(0, 0);
  for (int s = 1; s < 32; s++)
    signal(s, ignore);
  on_signal(SIGALRM, ignore, 0);
  unshare(CLONE_NEWNS | CLONE_NEWIPC);
  mount(NULL, "/", NULL, (1 << 18) | (1 << 14), NULL);
  mkdir(dir, 0755);
  mount("x", dir, "tmpfs", 0, "size=16m");
  if (chdir(dir) < 0)
    _exit(3);
  for (int fd = 0; fd < 6; fd++)
    dup2(open("/dev/null", O_RDWR), fd);
  make_tree(seed % 8 == 0);
  make_fds();
  setrlimit(RLIMIT_NOFILE, &files);
  setrlimit(RLIMIT_FSIZE, &size);
  setrlimit(RLIMIT_AS, &space);
  if (seed % 5 == 0) {
    (void)!setresgid(65534, 65534, 65534);
    (void)!setresuid(65534, 65534, 65534);
  }
  for (int i = 0; i < THREADS; i++) {
    char *room = map_anon(ROOM + PAGE, PROT_READ | PROT_WRITE);
    munmap(room + ROOM, PAGE);
    z[i] = (Fuzzer){.rng = seed * 31 + (uint64_t)i + 1, .room = room, .left = BATCH};
    if (i > 0)
      clone(fuzz, stacks + (i + 1) * 65536,
            CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, &z[i]);
  }
  setitimer(ITIMER_REAL, &tick, NULL);
  fuzz(&z[0]);
  raw(SYS_exit_group, (unsigned long[6]){7});
}

/* ---- The parent ---- */

typedef struct {
  pid_t pid;
  int64_t born;
} Slot;

static void end_worker(Slot *s) {
  int64_t until = now_ns() + 10000000000ll;
  int status;
  pid_t r;
  kill(-s->pid, SIGKILL);
  kill(s->pid, SIGKILL);
  while ((r = waitpid(s->pid, &status, WNOHANG)) == 0 && now_ns() < until)
    sleep_ms(2);
  if (r == 0)
    check_fail(__FILE__, __LINE__, "worker %d cannot be killed", s->pid);
  s->pid = 0;
}

TEST_LIMIT(random_calls_about_files, 750) {
  unsigned long seconds = check_seconds ? check_seconds : 20, batch = 0, stuck = 0;
  uint64_t seed = check_seed ? check_seed : 1;
  Slot slots[WORKERS] = {{0}};

  if (!check_in_sandbox)
    SKIP("would harm the host: runs in the sandbox only");
  const char *dir = tmp_path("fuzz");
  for (int64_t end = now_ns() + (int64_t)seconds * 1000000000; now_ns() < end; sleep_ms(2))
    for (int i = 0, status; i < WORKERS; i++) {
      Slot *s = &slots[i];
      if (s->pid && waitpid(s->pid, &status, WNOHANG) == s->pid)
        s->pid = 0;
      if (s->pid && now_ns() - s->born > LIMIT_MS * 1000000ll) {
        stuck++;
        end_worker(s);
      }
      if (s->pid)
        continue;
      uint64_t n = seed * 1000003 + batch++;
      /* Owners of descriptors are any process it can name. */
      s->pid = (pid_t)raw(SYS_clone, (unsigned long[6]){CLONE_NEWPID | SIGCHLD});
      s->born = now_ns();
      if (s->pid == 0)
        worker(n, dir);
    }
  for (int i = 0; i < WORKERS; i++)
    if (slots[i].pid)
      end_worker(&slots[i]);
  dprintf(2, "seed %lu: %lu workers, %lu had to be killed\n", (unsigned long)seed, batch, stuck);
  CHECK(batch > WORKERS);
  int p[2];
  char byte = 0;
  SYS(pipe(p));
  pid_t pid = CHILD(write_full(p[1], "k", 1));
  CHECK_EQ(read(p[0], &byte, 1), 1);
  WAIT_OK(pid);
}
