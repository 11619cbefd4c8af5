/* SPDX-License-Identifier: Apache-2.0 */
/* util.c - what many guest tests need: files, time, faults, signals, patterns (declared in check.h). */
#include "check.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/vfs.h>

void check_tmp_cleanup(void);

static char tmp_root[256];
static pid_t tmp_owner; /* only the process that made it removes it */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st, (void)ftw;
  if (type == FTW_DP || type == FTW_D || type == FTW_DNR)
    rmdir(path);
  else
    unlink(path);
  return 0;
}

void check_tmp_cleanup(void) {
  if (tmp_root[0] && getpid() == tmp_owner) {
    if (chdir("/") == 0)
      nftw(tmp_root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    rmdir(tmp_root);
  }
}

const char *tmp_dir(void) {
  if (!tmp_root[0]) {
    const char *base = getenv("TMPDIR");
    snprintf(tmp_root, sizeof tmp_root, "%s/tg-XXXXXX", base && *base ? base : "/tmp");
    REQUIRE(mkdtemp(tmp_root) != NULL);
    tmp_owner = getpid();
    SYS(chmod(tmp_root, 0777));
  }
  return tmp_root;
}

char *tmp_path(const char *name) {
  static char ring[16][512];
  static unsigned turn;
  char *p = ring[turn++ % 16];

  snprintf(p, sizeof ring[0], "%s/%s", tmp_dir(), name);
  return p;
}

int tmp_file(const char *name, const char *text) {
  int fd = (int)SYS(open(tmp_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));

  if (text && *text)
    SYS(pwrite(fd, text, strlen(text), 0));
  return fd;
}

void write_file(const char *path, const void *data, size_t n, mode_t mode) {
  int fd = (int)SYS(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));

  write_full(fd, data, n);
  SYS(fchmod(fd, mode));
  SYS(close(fd));
}

char *read_file(const char *path, size_t *ret_len) {
  size_t cap = 65536, n = 0;
  char *buf;
  int fd = open(path, O_RDONLY | O_CLOEXEC);

  if (fd < 0)
    return NULL;
  buf = malloc(cap + 1);
  for (;;) {
    if (n == cap)
      buf = realloc(buf, (cap *= 2) + 1);
    REQUIRE(buf != NULL);
    ssize_t r = read(fd, buf + n, cap - n);
    if (r < 0 && errno == EINTR)
      continue;
    if (r <= 0)
      break;
    n += (size_t)r;
  }
  close(fd);
  buf[n] = 0;
  if (ret_len)
    *ret_len = n;
  return buf;
}

void read_full(int fd, void *buf, size_t n) {
  for (size_t done = 0; done < n;) {
    ssize_t r = read(fd, (char *)buf + done, n - done);
    if (r < 0 && errno == EINTR)
      continue;
    REQUIRE(r > 0);
    done += (size_t)r;
  }
}

void write_full(int fd, const void *buf, size_t n) {
  for (size_t done = 0; done < n;) {
    ssize_t r = write(fd, (const char *)buf + done, n - done);
    if (r < 0 && errno == EINTR)
      continue;
    REQUIRE(r > 0);
    done += (size_t)r;
  }
}

int64_t now_ns(void) {
  struct timespec ts;

  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

struct timespec ts_ms(long ms) {
  return (struct timespec){ms / 1000, ms % 1000 * 1000000};
}

void sleep_ms(unsigned ms) {
  struct timespec ts = ts_ms(ms);

  while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
    ;
}

void *map_anon(size_t len, int prot) {
  void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  REQUIRE(p != MAP_FAILED);
  return p;
}

void *map_shared(size_t len) {
  void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  REQUIRE(p != MAP_FAILED);
  return p;
}

static sigjmp_buf fault_jump;
static siginfo_t fault_info;

static void fault_handler(int sig, siginfo_t *si, void *uc) {
  (void)uc;
  fault_info = *si;
  siglongjmp(fault_jump, sig);
}

int catch_fault(void (*fn)(void *), void *arg, siginfo_t *ret_si) {
  static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
  struct sigaction old[5];
  struct sigaction sa = {.sa_sigaction = fault_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};

  for (int i = 0; i < 5; i++)
    SYS(sigaction(sigs[i], &sa, &old[i]));
  int sig = sigsetjmp(fault_jump, 1);
  if (sig == 0)
    fn(arg);
  else if (ret_si)
    *ret_si = fault_info;
  for (int i = 0; i < 5; i++)
    sigaction(sigs[i], &old[i], NULL);
  return sig;
}

static void do_read(void *p) { (void)*(volatile char *)p; }

static void do_write(void *p) { *(volatile char *)p = 1; }

int touch_read(const volatile void *p, siginfo_t *ret_si) { return catch_fault(do_read, (void *)p, ret_si); }

int touch_write(volatile void *p, siginfo_t *ret_si) { return catch_fault(do_write, (void *)p, ret_si); }

void on_signal(int sig, void (*fn)(int), int flags) {
  struct sigaction sa = {.sa_handler = fn, .sa_flags = flags};

  SYS(sigaction(sig, &sa, NULL));
}

void on_siginfo(int sig, void (*fn)(int, siginfo_t *, void *), int flags) {
  struct sigaction sa = {.sa_sigaction = fn, .sa_flags = flags | SA_SIGINFO};

  SYS(sigaction(sig, &sa, NULL));
}

sigset_t sigset_of(int first, ...) {
  sigset_t set;
  va_list ap;

  sigemptyset(&set);
  va_start(ap, first);
  for (int s = first; s; s = va_arg(ap, int))
    sigaddset(&set, s);
  va_end(ap);
  return set;
}

void block_signal(int sig) {
  sigset_t set = sigset_of(sig, 0);

  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
}

const char *check_sandbox_evidence(void) {
  static const char *const roots[] = {"/", "/etc", "/usr"};
  char mine[300] = "", init[300] = "";
  struct statfs fs;

  /* The program, or its parent that runs all cases, is the sandbox's first process. */
  if (readlink("/proc/self/exe", mine, sizeof mine - 1) <= 0 ||
      readlink("/proc/1/exe", init, sizeof init - 1) <= 0 || strcmp(mine, init) != 0)
    return "process 1 is another program";
  /* Never empty and never removable; on a read-only root that is not even looked at. */
  for (int i = 0; i < 3; i++)
    if (rmdir(roots[i]) == 0 || (errno != EROFS && errno != EBUSY) || (i && errno != EROFS))
      return "the root is not read-only";
  if (statfs("/tmp", &fs) < 0 || fs.f_type != 0x01021994)
    return "/tmp is not a tmpfs";
  /* With a bad descriptor nothing is loaded; EBADF would mean that the caller might load a module. */
  if (syscall(SYS_finit_module, -1, "", 0) == 0 || (errno != ENOSYS && errno != EPERM))
    return "it may load kernel modules";
  return NULL;
}

bool have_cap(int cap) {
  char *status = read_file("/proc/self/status", NULL);
  char *line = status ? strstr(status, "CapEff:") : NULL;
  unsigned long long bits = line ? strtoull(line + 7, NULL, 16) : 0;

  free(status);
  return bits >> cap & 1;
}

static uint8_t pattern_byte(size_t i, uint32_t seed) {
  return (uint8_t)((i * 2654435761u + seed * 40503u) >> 13 ^ i);
}

void pattern_fill(void *buf, size_t n, uint32_t seed) {
  for (size_t i = 0; i < n; i++)
    ((uint8_t *)buf)[i] = pattern_byte(i, seed);
}

bool pattern_ok(const void *buf, size_t n, uint32_t seed) {
  for (size_t i = 0; i < n; i++)
    if (((const uint8_t *)buf)[i] != pattern_byte(i, seed))
      return false;
  return true;
}

uint64_t next_random(uint64_t *state) {
  uint64_t x = *state ? *state : 88172645463325252ull;

  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  *state = x;
  return x;
}
