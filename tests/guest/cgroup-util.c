/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup-util.c - see cgroup.h. */
#include "cgroup.h"

#include <dirent.h>

static char base[300];
static pid_t owner;

static void remove_tree(const char *dir, int depth) {
  char path[4096];
  DIR *d = opendir(dir);

  if (!d)
    return;
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_type == DT_DIR && e->d_name[0] != '.') {
      snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
      remove_tree(path, depth + 1);
    }
  closedir(d);
  rmdir(dir);
}

static void cleanup(void) {
  char path[400];

  if (getpid() != owner || !base[0])
    return;
  snprintf(path, sizeof path, "%s/../cgroup.procs", base);
  cg_write(path, "0");
  cg_write(cg("cgroup.kill"), "1");
  for (int i = 0; i < 200; i++) {
    while (waitpid(-1, NULL, WNOHANG) > 0)
      ;
    remove_tree(base, 0);
    if (access(base, F_OK) < 0)
      break;
    sleep_ms(5);
  }
}

/* What cases that were killed left behind. */
static void remove_stale(const char *mount) {
  char path[4096];
  DIR *d = opendir(mount);
  int pid;

  if (!d)
    return;
  for (struct dirent *e; (e = readdir(d));)
    if (sscanf(e->d_name, "guest-test-%d", &pid) == 1 && kill(pid, 0) < 0 && errno == ESRCH) {
      snprintf(path, sizeof path, "%s/%s/cgroup.kill", mount, e->d_name);
      cg_write(path, "1");
      *strrchr(path, '/') = 0;
      remove_tree(path, 0);
    }
  closedir(d);
}

static const char *find_mount(void) {
  static char where[256];
  FILE *f = fopen("/proc/self/mounts", "r");
  char dev[256], type[64];

  while (f && fscanf(f, "%255s %255s %63s %*[^\n]", dev, where, type) == 3)
    if (strcmp(type, "cgroup2") == 0) {
      fclose(f);
      return where;
    }
  if (f)
    fclose(f);
  return NULL;
}

const char *cg_base(const char *controllers) {
  const char *mount = find_mount();
  char path[400];

  if (!mount)
    SKIP("no cgroup2 filesystem is mounted");
  if (controllers) {
    snprintf(path, sizeof path, "%s/cgroup.subtree_control", mount);
    if (cg_write(path, controllers) < 0)
      SKIP("the controllers %s are not to be had at %s", controllers, mount);
  }
  remove_stale(mount);
  snprintf(base, sizeof base, "%s/guest-test-%d", mount, getpid());
  if (mkdir(base, 0755) < 0)
    SKIP("%s: %s", base, strerror(errno));
  owner = getpid();
  check_at_end = cleanup;
  if (controllers)
    SYS(cg_write(cg("cgroup.subtree_control"), controllers));
  return base;
}

char *cg(const char *fmt, ...) {
  static char ring[32][4200];
  static unsigned next;
  char *p = ring[next++ % 32];
  va_list ap;

  int n = snprintf(p, sizeof ring[0], "%s/", base);
  va_start(ap, fmt);
  vsnprintf(p + n, sizeof ring[0] - n, fmt, ap);
  va_end(ap);
  return p;
}

int cg_write(const char *path, const char *text) {
  int fd = open(path, O_WRONLY);

  if (fd < 0)
    return -1;
  ssize_t n = write(fd, text, strlen(text));
  int saved = errno;
  close(fd);
  errno = saved;
  return n < 0 ? -1 : 0;
}

const char *cg_read(const char *path) {
  static char ring[8][16384];
  static unsigned next;
  char *p = ring[next++ % 8];
  int fd = open(path, O_RDONLY);
  ssize_t n = fd < 0 ? -1 : read(fd, p, sizeof ring[0] - 1);

  if (fd >= 0)
    close(fd);
  p[n < 0 ? 0 : n] = 0;
  return p;
}

long long cg_value(const char *path, const char *key) {
  size_t len = strlen(key);

  for (const char *s = cg_read(path); s && *s; s = strchr(s, '\n')) {
    s += *s == '\n';
    if (strncmp(s, key, len) == 0 && s[len] == ' ')
      return atoll(s + len + 1);
  }
  return -1;
}

void cg_enter(const char *dir, pid_t pid) {
  char path[4300], text[32];

  snprintf(path, sizeof path, "%s/cgroup.procs", dir);
  snprintf(text, sizeof text, "%d", pid);
  SYS(cg_write(path, text));
}

void cg_spin_ms(unsigned ms) {
  for (int64_t end = now_ns() + ms * 1000000LL; now_ns() < end;)
    ;
}
