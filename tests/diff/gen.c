/* SPDX-License-Identifier: Apache-2.0 */
/* gen.c - what operations are made of: random numbers, names, descriptors, and the line of the log. Interface: diff.h. */
#include "diff.h"

_Thread_local Actor *me;
bool opt_threads, opt_user_attributes, opt_dir_counts = true;
Shared *shared;

uint64_t draw(void) { /* splitmix64 */
  uint64_t z = (me->rng += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

unsigned below(unsigned n) { return (unsigned)((draw() >> 33) % n); }
bool chance(unsigned percent) { return below(100) < percent; }

long offset(void) {
  switch (below(16)) {
  case 0:
    return FILE_LIMIT - (long)below(5000);
  case 1:
    return -(long)below(100);
  case 2:
    return chance(20) ? (long)(draw() >> 2) : 0;
  case 3:
  case 4:
  case 5:
    return (long)below(40) * 4096;
  case 6:
  case 7:
    return below(150000);
  default:
    return below(chance(50) ? 200 : 12000);
  }
}

unsigned length(void) {
  switch (below(8)) {
  case 0:
    return 0;
  case 1:
    return 4096 * (1 + below(8));
  case 2:
    return below(40000);
  default:
    return below(chance(50) ? 100 : 9000);
  }
}

/* Directories and other files mostly have names of their own, so that operations often succeed. */
static const char *component(bool dir) {
  static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"};
  unsigned first = chance(8) ? below(7) : dir ? 4 + below(3) : below(4);
  static char max_name[256];

  memset(max_name, 'M', 255);
  switch (below(90)) {
  case 0:
  case 1:
    return ".";
  case 2:
  case 3:
  case 4:
    return "..";
  case 5:
    return max_name;
  default:
    return names[first];
  }
}

static const char *make_path(bool dir) {
  char *p = me->paths[me->turn++ % 4];
  unsigned depth = chance(55) ? 1 : chance(75) ? 2 : 3;

  p[0] = '\0';
  if (chance(1))
    return p;
  if (chance(20))
    strcat(p, "/");
  for (unsigned i = 0; i < depth; i++) {
    strcat(p, component(dir || i + 1 < depth));
    if (i + 1 < depth || chance(3))
      strcat(p, chance(3) ? "//" : "/");
  }
  return p;
}

const char *path(void) {
  bool dir = chance(25);
  return make_path(dir);
}
const char *dir_path(void) { return make_path(true); }

void say(const char *fmt, ...) {
  va_list ap;
  int n;

  if (opt_threads || me->n > sizeof me->line - 600)
    return;
  va_start(ap, fmt);
  n = vsnprintf(me->line + me->n, sizeof me->line - me->n, fmt, ap);
  va_end(ap);
  me->n = me->n + (size_t)n < sizeof me->line ? me->n + (size_t)n : sizeof me->line - 1;
}

/* Long names are shown by their first letters. */
void say_path(const char *p) {
  char out[64];
  size_t n = 0;

  for (size_t i = 0; p[i] && n < sizeof out - 2; i++)
    if ((p[i] != 'L' && p[i] != 'M') || i == 0 || p[i - 1] != p[i])
      out[n++] = p[i];
  out[n] = '\0';
  say("\"%s\"", out);
}

const char *error_name(int e) {
  const char *s = strerrorname_np(e);
  return s ? s : "E?";
}

long done(long ret) {
  if (ret < 0)
    say(" = %s", error_name(errno));
  else
    say(" = %ld", ret);
  return ret;
}

uint32_t hash(const void *p, size_t n) { /* FNV-1a */
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < n; i++)
    h = (h ^ ((const unsigned char *)p)[i]) * 16777619u;
  return h;
}

void say_bytes(const void *p, size_t n) { say(" #%zu:%08x", n, hash(p, n)); }

void fill(void *p, size_t n) {
  uint64_t x = draw() | 1;
  for (size_t i = 0; i < n; i++) {
    x = x * 6364136223846793005ull + 1442695040888963407ull;
    ((unsigned char *)p)[i] = (unsigned char)((x >> 33) % 255 + 1);
  }
}

/* A time that was set shows; one that came from the clock is only "now". */
static void say_time(const char *what, const struct timespec *ts) {
  if (ts->tv_sec < 1000000)
    say(" %s=%ld.%09ld", what, (long)ts->tv_sec, ts->tv_nsec);
  else
    say(" %s=now", what);
}

void say_stat(const struct stat *st) {
  bool dir = S_ISDIR(st->st_mode);

  say(" %06o %u:%u", st->st_mode, st->st_uid, st->st_gid);
  if (!dir || opt_dir_counts)
    say(" n=%lu", (unsigned long)st->st_nlink);
  if (!dir)
    say(" size=%ld", (long)st->st_size);
  if (!dir || opt_dir_counts)
    say_time("a", &st->st_atim);
  say_time("m", &st->st_mtim);
}

mode_t fd_type(int fd) {
  for (int i = 0; i < SLOTS; i++)
    if (me->fd[i] == fd)
      return me->type[i];
  return 0;
}

/* A descriptor of this type if there is one, with the given probability; any other way, one that may be bad. */
static int fd_of(mode_t type, unsigned percent) {
  unsigned from = below(SLOTS);
  bool like = chance(percent), bad = chance(2);

  if (bad)
    return chance(50) ? -1 : 77;
  for (int pass = like ? 0 : 1; pass < 2; pass++)
    for (unsigned i = 0; i < SLOTS; i++) {
      unsigned k = (from + i) % SLOTS;
      if (me->fd[k] >= 0 && (pass == 1 || me->type[k] == type))
        return me->fd[k];
    }
  return 76;
}

int any_fd(void) { return fd_of(0, 0); }
int file_fd(void) { return fd_of(S_IFREG, 92); }
int dir_fd(void) {
  bool cwd = chance(55);
  int fd = fd_of(S_IFDIR, 90);
  return cwd ? AT_FDCWD : fd;
}

void forget(int fd) {
  for (int i = 0; i < SLOTS; i++)
    if (me->fd[i] == fd)
      me->fd[i] = -1;
}

void keep(long fd) {
  unsigned k = below(SLOTS);
  struct stat st;

  if (fd < 0)
    return;
  forget((int)fd);
  if (me->fd[k] >= 0)
    close(me->fd[k]);
  me->fd[k] = (int)fd;
  me->type[k] = fstat((int)fd, &st) == 0 ? st.st_mode & S_IFMT : 0;
  say(" [%o]", me->type[k] >> 12);
}
