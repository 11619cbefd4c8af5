/* SPDX-License-Identifier: Apache-2.0 */
/* proc.c - what programs read in /proc: their own entries, other processes', and the machine's. */
#include "check.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

static char *must_read(const char *path) {
  char *text = read_file(path, NULL);

  if (!text) {
    check_fail(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    check_abort();
  }
  return text;
}

/* The value after "KEY:" of a status-like text. */
static const char *field(const char *text, const char *key) {
  static char value[300];
  size_t n = strlen(key);

  for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
    if (strncmp(line, key, n) == 0 && line[n] == ':') {
      line += n + 1;
      line += strspn(line, " \t");
      snprintf(value, sizeof value, "%.*s", (int)strcspn(line, "\n"), line);
      return value;
    }
  return NULL;
}

static char *link_of(const char *path) {
  static char buf[1024];
  ssize_t n = readlink(path, buf, sizeof buf - 1);

  if (n < 0)
    return NULL;
  buf[n] = 0;
  return buf;
}

TEST(self_leads_to_the_pid) {
  char want[32];

  snprintf(want, sizeof want, "%d", getpid());
  CHECK_STR(link_of("/proc/self"), want);
  snprintf(want, sizeof want, "%d/task/%d", getpid(), gettid());
  CHECK_STR(link_of("/proc/thread-self"), want);
}

TEST(status_fields) {
  char *s = must_read("/proc/self/status"), num[32];

  prctl(PR_SET_NAME, "a name");
  s = must_read("/proc/self/status");
  CHECK_STR(field(s, "Name"), "a name");
  snprintf(num, sizeof num, "%d", getpid());
  CHECK_STR(field(s, "Pid"), num);
  CHECK_STR(field(s, "Tgid"), num);
  snprintf(num, sizeof num, "%d", getppid());
  CHECK_STR(field(s, "PPid"), num);
  CHECK_STR(field(s, "Threads"), "1");
  snprintf(num, sizeof num, "%u\t%u\t%u\t%u", getuid(), geteuid(), geteuid(), geteuid());
  CHECK_STR(field(s, "Uid"), num);
  CHECK(field(s, "State") && field(s, "State")[0] == 'R');
  CHECK(field(s, "VmSize") && atol(field(s, "VmSize")) > 0);
  CHECK(field(s, "VmRSS") != NULL);
  CHECK_STR(field(s, "TracerPid"), "0");
}

TEST(status_signal_masks) {
  signal(SIGUSR1, SIG_IGN);
  block_signal(SIGUSR2);
  raise(SIGUSR2);
  char *s = must_read("/proc/self/status");
  CHECK(field(s, "SigIgn") && strtoull(field(s, "SigIgn"), NULL, 16) & (1ull << (SIGUSR1 - 1)));
  CHECK(field(s, "SigBlk") && strtoull(field(s, "SigBlk"), NULL, 16) & (1ull << (SIGUSR2 - 1)));
  const char *p = field(s, "SigPnd");
  unsigned long long pending = p ? strtoull(p, NULL, 16) : 0;
  p = field(s, "ShdPnd");
  pending |= p ? strtoull(p, NULL, 16) : 0;
  CHECK(pending & (1ull << (SIGUSR2 - 1)));
}

TEST(stat_line) {
  char comm[64], state;
  int pid, ppid, pgrp, session;

  prctl(PR_SET_NAME, "we) (ird");
  char *s = must_read("/proc/self/stat"), *end = strrchr(s, ')');
  REQUIRE(end != NULL);
  CHECK_EQ(sscanf(s, "%d (", &pid), 1);
  snprintf(comm, sizeof comm, "%.*s", (int)(end - strchr(s, '(') - 1), strchr(s, '(') + 1);
  CHECK_STR(comm, "we) (ird");
  CHECK_EQ(sscanf(end + 2, "%c %d %d %d", &state, &ppid, &pgrp, &session), 4);
  CHECK_EQ(pid, getpid());
  CHECK_EQ(state, 'R');
  CHECK_EQ(ppid, getppid());
  CHECK_EQ(pgrp, getpgrp());
  CHECK_EQ(session, getsid(0));
  int fields = 3;
  for (char *p = end + 2; (p = strchr(p, ' ')); p++)
    fields++;
  CHECK(fields >= 44 && fields <= 60);
}

TEST(statm_numbers) {
  unsigned long v[7];

  CHECK_EQ(sscanf(must_read("/proc/self/statm"), "%lu %lu %lu %lu %lu %lu %lu", &v[0], &v[1], &v[2], &v[3],
                  &v[4], &v[5], &v[6]),
           7);
  CHECK(v[0] > 0 && v[1] <= v[0]);
}

typedef struct {
  unsigned long from, to, offset;
  char perms[8], path[600];
} Vma;

static bool find_vma(const void *addr, Vma *v) {
  char *maps = must_read("/proc/self/maps");
  bool found = false;

  for (char *line = strtok(maps, "\n"); line && !found; line = strtok(NULL, "\n")) {
    v->path[0] = 0;
    if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %599[^\n]", &v->from, &v->to, v->perms, &v->offset, v->path) >=
        4)
      found = (unsigned long)addr >= v->from && (unsigned long)addr < v->to;
  }
  free(maps);
  return found;
}

TEST(maps_lines) {
  Vma v;
  int local, fd = tmp_file("mapped file", "");

  SYS(ftruncate(fd, 4 * PAGE));
  char *p = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE), *anon = map_anon(3 * PAGE, PROT_NONE);
  CHECK(find_vma(p, &v));
  CHECK_EQ(v.from, p);
  CHECK_EQ(v.to, p + 2 * PAGE);
  CHECK_EQ(v.offset, PAGE);
  CHECK_STR(v.perms, "r--s");
  CHECK_STR(v.path, tmp_path("mapped file"));
  CHECK(find_vma(anon, &v));
  CHECK_STR(v.perms, "---p");
  CHECK(find_vma(&local, &v));
  CHECK_STR(v.path, "[stack]");
  CHECK(find_vma(sbrk(PAGE), &v));
  CHECK_STR(v.path, "[heap]");
  CHECK(find_vma((void *)find_vma, &v));
  CHECK_STR(v.perms, "r-xp");
  CHECK_STR(v.path, link_of("/proc/self/exe"));
}

TEST(maps_follow_mprotect_and_munmap) {
  Vma v;
  char *p = map_anon(4 * PAGE, PROT_READ | PROT_WRITE);

  SYS(mprotect(p + PAGE, PAGE, PROT_READ));
  CHECK(find_vma(p + PAGE, &v));
  CHECK_EQ(v.from, p + PAGE);
  CHECK_EQ(v.to, p + 2 * PAGE);
  SYS(munmap(p + 2 * PAGE, PAGE));
  CHECK(!find_vma(p + 2 * PAGE, &v));
  CHECK(find_vma(p + 3 * PAGE, &v));
}

TEST(maps_are_sorted_and_complete_for_many) {
  char *p = map_anon(4000 * PAGE, PROT_READ | PROT_WRITE);

  for (int i = 0; i < 2000; i++)
    SYS(mprotect(p + (size_t)i * 2 * PAGE, PAGE, PROT_READ));
  char *maps = must_read("/proc/self/maps");
  unsigned long last = 0, from, to;
  int lines = 0;
  for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n"), lines++) {
    CHECK_EQ(sscanf(line, "%lx-%lx", &from, &to), 2);
    if (!CHECK(from >= last && to > from))
      break;
    last = to;
  }
  CHECK(lines >= 4000);
}

TEST(cmdline_and_environ) {
  int fds[2];
  char cmd[200] = "", envtext[200] = "";

  SYS(pipe(fds));
  pid_t pid = CHILD(char *argv[] = {"proc", "--helper", "wait_eof", "", "arg", NULL};
                    char *envp[] = {"A=1", "B=two words", NULL}; dup2(fds[0], 0); close(fds[1]);
                    execve("/proc/self/exe", argv, envp); _exit(9));
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
  size_t n = 0;
  WAIT_FOR(({
    char *t = read_file(path, &n);
    bool ok = t && n == 28;
    if (ok)
      memcpy(cmd, t, n);
    free(t);
    ok;
  }));
  CHECK(memcmp(cmd, "proc\0--helper\0wait_eof\0\0arg", 28) == 0);
  snprintf(path, sizeof path, "/proc/%d/environ", pid);
  char *t = read_file(path, &n);
  REQUIRE(t != NULL);
  CHECK_EQ(n, 16);
  memcpy(envtext, t, 16);
  CHECK(memcmp(envtext, "A=1\0B=two words\0", 16) == 0);
  close(fds[1]);
  WAIT_OK(pid);
}

HELPER(wait_eof) {
  char c;
  return read(0, &c, 1) == 0 ? 0 : 1;
}

TEST(cwd_root_exe) {
  SYS(chdir(tmp_dir()));
  CHECK_STR(link_of("/proc/self/cwd"), tmp_dir());
  CHECK_STR(link_of("/proc/self/root"), "/");
  struct stat a, b;
  SYS(stat("/proc/self/exe", &a));
  CHECK(S_ISREG(a.st_mode));
  close(tmp_file("here", ""));
  SYS(stat("/proc/self/cwd/here", &a));
  SYS(stat(tmp_path("here"), &b));
  CHECK_EQ(a.st_ino, b.st_ino);
}

TEST(fd_directory) {
  int fd = tmp_file("f", "hello"), seen = 0, others = 0;
  char path[64];
  DIR *d = opendir("/proc/self/fd");

  REQUIRE(d != NULL);
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.') {
      seen |= atoi(e->d_name) == fd;
      others += fcntl(atoi(e->d_name), F_GETFD) < 0;
    }
  closedir(d);
  CHECK_EQ(seen, 1);
  CHECK_EQ(others, 0);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK_STR(link_of(path), tmp_path("f"));
  struct stat st;
  SYS(lstat(path, &st));
  CHECK(S_ISLNK(st.st_mode));
  CHECK_EQ(st.st_mode & 0700, 0700);
  close(fd);
  CHECK_ERRNO(lstat(path, &st), ENOENT);
}

TEST(fdinfo) {
  int fd = tmp_file("f", "0123456789");
  char path[64];

  SYS(lseek(fd, 7, SEEK_SET));
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  char *s = must_read(path);
  CHECK_STR(field(s, "pos"), "7");
  CHECK(field(s, "flags") &&
        strtol(field(s, "flags"), NULL, 8) == (O_RDWR | O_CLOEXEC | 0100000 /* O_LARGEFILE */));
}

TEST(comm_read_and_write) {
  int fd = (int)SYS(open("/proc/self/comm", O_RDWR));
  char name[17] = "", buf[32] = "";

  CHECK_EQ(write(fd, "written by proc", 15), 15);
  prctl(PR_GET_NAME, name);
  CHECK_STR(name, "written by proc");
  prctl(PR_SET_NAME, "much too long a name");
  CHECK_EQ(pread(fd, buf, sizeof buf, 0), 16);
  CHECK_STR(buf, "much too long a\n");
}

static volatile int quit;

static void *thread_main(void *arg) {
  prctl(PR_SET_NAME, "thread-name");
  *(volatile pid_t *)arg = gettid();
  while (!quit)
    sleep_ms(1);
  return NULL;
}

TEST(task_directory) {
  pthread_t t;
  volatile pid_t tid = 0;
  int n = 0;
  char path[64];

  REQUIRE(pthread_create(&t, NULL, thread_main, (void *)&tid) == 0);
  WAIT_FOR(tid != 0);
  DIR *d = opendir("/proc/self/task");
  REQUIRE(d != NULL);
  for (struct dirent *e; (e = readdir(d));)
    n += e->d_name[0] != '.';
  closedir(d);
  CHECK_EQ(n, 2);
  snprintf(path, sizeof path, "/proc/self/task/%d/comm", tid);
  CHECK_STR(must_read(path), "thread-name\n");
  CHECK_STR(field(must_read("/proc/self/status"), "Threads"), "2");
  snprintf(path, sizeof path, "/proc/%d/status", tid); /* a thread answers by number, though not listed */
  CHECK_EQ(atoi(field(must_read(path), "Tgid")), getpid());
  quit = 1;
  pthread_join(t, NULL);
}

TEST(other_processes) {
  char path[64];
  int go[2];

  SYS(pipe(go));
  pid_t pid = CHILD(prctl(PR_SET_NAME, "otherone"); char c; close(go[1]); read(go[0], &c, 1));
  snprintf(path, sizeof path, "/proc/%d/comm", pid);
  WAIT_FOR(({
    char *t = read_file(path, NULL);
    bool ok = t && strcmp(t, "otherone\n") == 0;
    free(t);
    ok;
  }));
  bool listed = false;
  DIR *d = opendir("/proc");
  for (struct dirent *e; (e = readdir(d));)
    listed |= atoi(e->d_name) == pid;
  closedir(d);
  CHECK(listed);
  close(go[1]);
  WAIT_OK(pid);
  CHECK_ERRNO(access(path, F_OK), ENOENT);
}

TEST(open_entry_of_a_dead_process) {
  char path[64], c;
  int go[2];

  SYS(pipe(go));
  pid_t pid = CHILD(char x; close(go[1]); read(go[0], &x, 1));
  snprintf(path, sizeof path, "/proc/%d", pid);
  int dir = (int)SYS(open(path, O_RDONLY | O_DIRECTORY));
  int stat_fd = (int)SYS(openat(dir, "stat", O_RDONLY));
  close(go[1]);
  WAIT_OK(pid);
  CHECK_ERRNO(read(stat_fd, &c, 1), ESRCH);
  int r = openat(dir, "stat", O_RDONLY);
  CHECK(r == -1 && (errno == ENOENT || errno == ESRCH));
}

TEST(meminfo) {
  char *s = must_read("/proc/meminfo");
  struct sysinfo si;

  SYS(sysinfo(&si));
  CHECK(field(s, "MemTotal") && atol(field(s, "MemTotal")) > 1000);
  CHECK(field(s, "MemFree") && atol(field(s, "MemFree")) >= 0);
  CHECK(field(s, "MemAvailable") != NULL);
  CHECK(field(s, "SwapTotal") != NULL);
  CHECK_EQ(atol(field(s, "MemTotal")), (long)(si.totalram * si.mem_unit / 1024));
}

/* X2: the number of processors is the same everywhere. */
TEST(cpuinfo) {
  char *s = must_read("/proc/cpuinfo");
  int n = 0;

  for (char *p = s; (p = strstr(p, "processor\t")); p++)
    n++;
  CHECK_EQ(n, sysconf(_SC_NPROCESSORS_ONLN));
  CHECK(strstr(s, "vendor_id") && strstr(s, "model name") && strstr(s, "flags"));
  CHECK(strstr(s, " sse2 ") != NULL);
}

TEST(uptime_and_loadavg) {
  double up, idle, a, b, c;
  struct timespec ts;

  CHECK_EQ(sscanf(must_read("/proc/uptime"), "%lf %lf", &up, &idle), 2);
  SYS(clock_gettime(CLOCK_BOOTTIME, &ts));
  CHECK(up > 0 && up <= (double)ts.tv_sec + 2 && up >= (double)ts.tv_sec - 60);
  int running, total, last;
  CHECK_EQ(sscanf(must_read("/proc/loadavg"), "%lf %lf %lf %d/%d %d", &a, &b, &c, &running, &total, &last),
           6);
}

TEST(version_agrees_with_uname) {
  struct utsname u;
  char *v = must_read("/proc/version");

  SYS(uname(&u));
  CHECK(strncmp(v, "Linux version ", 14) == 0);
  CHECK(strstr(v, u.release) != NULL);
  CHECK_STR(strtok(must_read("/proc/sys/kernel/osrelease"), "\n"), u.release);
  CHECK_STR(strtok(must_read("/proc/sys/kernel/hostname"), "\n"), u.nodename);
}

TEST(mounts) {
  char *m = must_read("/proc/self/mounts"), *info = must_read("/proc/self/mountinfo");

  CHECK(strstr(m, " /proc proc ") != NULL);
  CHECK(strstr(m, " / ") != NULL);
  CHECK(strstr(info, " /proc ") != NULL && strstr(info, " - proc ") != NULL);
  CHECK_STR(link_of("/proc/mounts"), "self/mounts");
  free(must_read("/proc/mounts"));
}

TEST(filesystems_and_stat) {
  char *s = must_read("/proc/stat");

  CHECK(strncmp(s, "cpu ", 4) == 0);
  CHECK(strstr(s, "\nbtime ") != NULL);
  CHECK(strstr(s, "\ncpu0 ") != NULL);
  CHECK(strstr(must_read("/proc/filesystems"), "tmpfs") != NULL);
}

TEST(sys_kernel_limits) {
  CHECK(atol(must_read("/proc/sys/kernel/pid_max")) >= 300);
  CHECK(atol(must_read("/proc/sys/fs/file-max")) > 0);
  CHECK(strlen(must_read("/proc/sys/kernel/random/uuid")) == 37);
  CHECK(strcmp(must_read("/proc/sys/kernel/random/uuid"), must_read("/proc/sys/kernel/random/uuid")) != 0);
  CHECK_STR(must_read("/proc/sys/kernel/random/boot_id"), must_read("/proc/sys/kernel/random/boot_id"));
}

TEST(limits_table) {
  char *s = must_read("/proc/self/limits");

  CHECK(strstr(s, "Max open files") != NULL);
  CHECK(strstr(s, "Max stack size") != NULL);
}

TEST(auxv_and_oom) {
  size_t n = 0;

  CHECK(read_file("/proc/self/auxv", &n) != NULL);
  CHECK(n >= 16 * 10 && n % 16 == 0);
  CHECK(must_read("/proc/self/oom_score_adj") != NULL);
}

TEST(mem_of_self) {
  int fd = open("/proc/self/mem", O_RDWR);
  static volatile char cell[8] = "before";
  char buf[8] = "";

  if (fd < 0)
    SKIP("/proc/self/mem: %s", strerror(errno));
  CHECK_EQ(pread(fd, buf, 7, (off_t)(uintptr_t)cell), 7);
  CHECK_STR(buf, "before");
  CHECK_EQ(pwrite(fd, "after!", 7, (off_t)(uintptr_t)cell), 7);
  CHECK(memcmp((char *)cell, "after!", 7) == 0);
  CHECK_ERRNO(pread(fd, buf, 8, 16), EIO);
}

TEST(small_reads_give_the_whole_file) {
  char all[8192], *whole = must_read("/proc/self/limits");
  int fd = (int)SYS(open("/proc/self/limits", O_RDONLY));
  size_t n = 0;

  for (ssize_t r; n < sizeof all - 8 && (r = read(fd, all + n, 7)) > 0;)
    n += (size_t)r;
  all[n] = 0;
  CHECK_STR(all, whole);
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  CHECK_EQ(read(fd, all, 5), 5);
  CHECK(memcmp(all, whole, 5) == 0);
}

TEST(refusals) {
  CHECK_ERRNO(open("/proc/nosuch", O_RDONLY), ENOENT);
  CHECK_ERRNO(open("/proc/99999999/stat", O_RDONLY), ENOENT);
  CHECK_ERRNO(open("/proc/self/task/1x", O_RDONLY), ENOENT);
  int r = open("/proc/new", O_CREAT | O_WRONLY, 0600);
  CHECK(r == -1 && (errno == ENOENT || errno == EACCES));
  r = mkdir("/proc/dir", 0700);
  CHECK(r == -1 && (errno == ENOENT || errno == EACCES || errno == EPERM || errno == EROFS));
  r = unlink("/proc/self/status");
  CHECK(r == -1 && (errno == EPERM || errno == EACCES || errno == EROFS));
  char c;
  CHECK_ERRNO(read((int)SYS(open("/proc/self", O_RDONLY)), &c, 1), EISDIR);
}

TEST(walk_everything_of_self) {
  /* Every file of our own directory opens and reads, or refuses: none hangs. */
  DIR *d = opendir("/proc/self");
  char path[400], buf[4096];
  int files = 0;

  REQUIRE(d != NULL);
  for (struct dirent *e; (e = readdir(d));) {
    snprintf(path, sizeof path, "/proc/self/%s", e->d_name);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
      continue;
    files += read(fd, buf, sizeof buf) >= 0;
    close(fd);
  }
  closedir(d);
  CHECK(files >= 10);
}
