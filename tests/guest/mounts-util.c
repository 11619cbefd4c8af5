/* SPDX-License-Identifier: Apache-2.0 */
/* mounts-util.c - see mounts.h. */
#include "mounts.h"

static char base[256];

/* 0: all there; 77: no privilege; 78: this VFS generation has no propagation of mounts. */
static int probe(void) {
  pid_t pid = (pid_t)SYS(fork());
  if (pid == 0) {
    if (unshare(CLONE_NEWNS) < 0)
      _exit(77);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
      _exit(77);
    _exit(mount(NULL, "/", NULL, MS_SHARED, NULL) < 0 ? 78 : 0);
  }
  int status = check_wait(pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

void mounts_run(void (*body)(void), bool propagation) {
  int can = probe();
  if (can == 77)
    SKIP("mount namespaces need privileges");
  if (can == 78 && check_in_sandbox && propagation)
    SKIP("this VFS generation has no propagation");
  REQUIRE(can == 0 || (can == 78 && check_in_sandbox));
  snprintf(base, sizeof base, "%s", tmp_dir());
  WAIT_OK(CHILD(SYS(unshare(CLONE_NEWNS)); SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
                SYS(mount("test", base, "tmpfs", 0, NULL)); SYS(chdir(base)); umask(022); body()));
}

char *here(const char *name) {
  static char ring[16][1024];
  static unsigned turn;
  char *p = ring[turn++ % 16];
  if (*name == '/')
    snprintf(p, sizeof ring[0], "%s", name);
  else if (*name)
    snprintf(p, sizeof ring[0], "%s/%s", base, name);
  else
    snprintf(p, sizeof ring[0], "%s", base);
  return p;
}

static void optional(MountLine *m, const char *word) {
  if (sscanf(word, "shared:%d", &m->shared) == 1 || sscanf(word, "master:%d", &m->master) == 1 ||
      sscanf(word, "propagate_from:%d", &m->from) == 1)
    return;
  if (strcmp(word, "unbindable") == 0)
    m->unbindable = true;
  else
    check_fail(__FILE__, __LINE__, "optional field '%s'", word);
}

static bool parse(char *line, MountLine *m) {
  int at = 0;
  memset(m, 0, sizeof *m);
  if (sscanf(line, "%d %d %u:%u %4095s %4095s %255s%n", &m->id, &m->parent, &m->major, &m->minor, m->root,
             m->point, m->options, &at) < 7)
    return CHECK(!"a line of mountinfo");
  char *save, *word = strtok_r(line + at, " ", &save);
  for (; word && strcmp(word, "-") != 0; word = strtok_r(NULL, " ", &save))
    optional(m, word);
  return CHECK(word && sscanf(save, "%63s %255s %255s", m->type, m->source, m->super) == 3);
}

static int scan(const char *point, MountLine *ret) {
  char *text = read_file("/proc/self/mountinfo", NULL), *save;
  int n = 0;
  REQUIRE(text != NULL);
  for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    MountLine m;
    if (parse(line, &m) && (!point || strcmp(m.point, point) == 0)) {
      n++;
      if (ret)
        *ret = m;
    }
  }
  free(text);
  return n;
}

bool mount_line(const char *point, MountLine *ret) { return scan(here(point), ret) > 0; }
MountLine the_mount(const char *point) {
  MountLine m;
  memset(&m, 0, sizeof m);
  if (!mount_line(point, &m))
    check_fail(__FILE__, __LINE__, "nothing is mounted on %s", point);
  return m;
}
int mount_count(void) { return scan(NULL, NULL); }
int mount_count_at(const char *point) { return scan(here(point), NULL); }

bool is_there(const char *path) { return access(path, F_OK) == 0; }
void new_tmpfs(const char *at) { SYS(mount("tmpfs", at, "tmpfs", 0, NULL)); }
void bind_to(const char *from, const char *to) { SYS(mount(from, to, NULL, MS_BIND, NULL)); }
void make(const char *at, unsigned long type) { SYS(mount(NULL, at, NULL, type, NULL)); }
